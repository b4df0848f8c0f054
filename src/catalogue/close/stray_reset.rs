//! A host received octets of a connection it does not know, and said so with RST.
//!
//! ## How tcpwhy knows
//! A RST without ACK came, whose sequence number is the acknowledgment number of the packet it answers: that is how a kernel refuses what
//! it has no connection for (RFC 9293 §3.10.7.1). In this file that side had closed nothing before. It restarted, another host has its
//! address now, or a balancer, NAT box or firewall in between lost or moved its state. A server that refuses the ACK of an answer whose promised
//! end has not come has broken it off: its socket is gone.
//!
//! ## What it is not
//! - `connect-refused`: that answers a SYN.
//! - A RST after the side's own FIN: the program is gone, and late octets are refused. That is the normal end of a close.
//!
//! ## What people see
//! "Connection reset by peer" or "Broken pipe", often on the first request after a pause.
//!
//! ## False alarms it avoids
//! Connections whose FIN lies before the beginning of the capture, scans that hit a closed port without SYN, handshakes that the client
//! refuses, clients that reset after the whole answer, and RSTs with numbers beyond what the file holds of their side (its FIN may be what
//! is missing). A client that spoke within the last second knew the connection a moment ago: a notice.

use crate::event::{Kind, ResetKind, Side};
use crate::flow::facts::Handshake;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;
use crate::wire::http::Framing;

pub static RULE: Rule = Rule {
    id: "stray-reset",
    title: "a host received packets for a connection it does not know",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Reset]),
    symptom: true,
    says: "{refuser} no longer knows the connection: RST in answer to octets{pause}",
    variants: &["{refuser} no longer knows the connection in the middle of its answer: RST in answer to an ACK{pause}"],
    users_see: &["Connection reset by peer", "Broken pipe", "ECONNRESET", "EPIPE"],
    do_first: &[
        Step { says: "On {refuser_host}: did it, or the service, restart since?", command: "uptime -s" },
        Step {
            says: "Does one machine alone have that address? A second hardware address is a second machine:",
            command: "ip neigh show {refuser_host}",
        },
    ],
    verify: &[Step {
        says: "from the client's host, a new connection; it should work at once:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[
        ("connect-refused", "the RST answers octets, no SYN"),
        ("server-reset-mid-response", "the RST carries no ACK: no live socket was aborted"),
    ],
    cannot_show: &["who lost the state: the host itself, or a NAT box, balancer or firewall in between"],
    sources: &["RFC 9293 §3.5.3, §3.10.7.1"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// A pause worth a word.
const PAUSE: Elapsed = Elapsed::secs(1);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    stray(flow, Side::Server).or_else(|| stray(flow, Side::Client)).or_else(|| broken_off(flow))
}

/// The server refuses an ACK of the answer that it was giving. A live socket would have been aborted with RST+ACK.
fn broken_off(flow: &FlowView<'_>) -> Option<Finding> {
    let reset = flow.facts.reset(Side::Server).filter(|reset| reset.kind == ResetKind::Stray)?;
    let begun = flow.pending().filter(|pending| pending.proven).and_then(|pending| pending.begun)?;
    let exchange = flow.exchange()?;
    let (_, head) = exchange.response?;
    let promised = matches!(head.framing_after(&exchange.head.method), Framing::Length(_) | Framing::Chunked);
    let server = flow.server();
    let last = server.last_payload.filter(|last| *last >= begun && *last < reset.at)?;
    let hidden = flow.client().cut + server.cut + server.held_dropped > 0 || flow.facts.mid_stream;
    if !promised
        || hidden
        || !flow.closed_first(Side::Server)
        || server.next.is_some_and(|next| reset.seq.minus(next) > 0)
    {
        return None;
    }
    let refuser = flow.facts.server;
    let pause = reset.at.time.since(last.time);
    Some(
        RULE.found(flow, reset.at, Side::Server, "RST without ACK: this host has no such connection")
            .and(begun, Side::Server, format!("{} begins", head.status))
            .and_maybe(Some(last).filter(|last| *last > begun), Side::Server, "the last octets of the answer")
            .variant(1)
            .with("refuser", refuser)
            .with("refuser_host", refuser.address)
            .with("pause", if pause >= PAUSE { format!(" after {pause} idle") } else { String::new() }),
    )
}

fn stray(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let reset = flow.facts.reset(side).filter(|reset| reset.kind == ResetKind::Stray)?;
    // A live connection: opened here, or both sides were heard before the RST.
    let heard = mine.first.is_some_and(|first| first < reset.at) && mine.packets > 1;
    let open = flow.facts.handshake == Handshake::Full || (flow.facts.mid_stream && heard && mine.payload > 0);
    // A side that has acknowledged the octets knows the connection, whatever form its RST has.
    let unknown = peer.acknowledged < peer.payload;
    let closed = mine.fin.is_some_and(|fin| fin < reset.at);
    let oldest = peer.unacknowledged.map(|waits| waits.first);
    let trigger = oldest.or(peer.last_payload).filter(|octets| *octets <= reset.at)?;
    // The file does not hold all that this side sent: its FIN may be among it.
    let unseen = mine.unseen > 0 || mine.next.is_some_and(|next| reset.seq.minus(next) > 0);
    if !open || !unknown || closed || unseen || (side == Side::Client && nothing_open(flow)) {
        return None;
    }
    let refuser = flow.facts.endpoint(side);
    let pause = mine.last_payload.map(|last| trigger.time.since(last.time)).filter(|pause| *pause >= PAUSE);
    let finding = RULE
        .found(flow, reset.at, side, "RST without ACK: this host has no such connection")
        .and(trigger, side.other(), "octets that it answers")
        .and_maybe(mine.last_payload.filter(|last| *last < trigger), side, "the last octets it sent itself")
        .culprit(if side == Side::Server { Culprit::Server } else { Culprit::Client })
        .with("refuser", refuser)
        .with("refuser_host", refuser.address)
        .with("pause", pause.map_or_else(String::new, |pause| format!(" after {pause} idle")));
    let fresh = [mine.last_payload, flow.facts.established].into_iter().flatten().filter(|at| *at < trigger).max();
    let fresh = fresh.filter(|at| side == Side::Client && trigger.time.since(at.time) < PAUSE);
    Some(match fresh {
        Some(at) => finding.severity(Severity::Notice).note(format!(
            "the client itself had spoken {} before: a client that throws a connection away looks like this on some systems",
            trigger.time.since(at.time)
        )),
        None if flow.facts.mid_stream => finding.severity(Severity::Notice),
        None => finding,
    })
}

/// The answer is complete: a client may throw the connection away.
fn nothing_open(flow: &FlowView<'_>) -> bool {
    flow.exchange().is_some_and(|exchange| exchange.response_end.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;

    fn exchange() -> Scene {
        Scene::open()
            .request(3, "GET", "/", 41)
            .acked(Side::Client, 4)
            .response(5, 200, 40)
            .also(Side::Server, What::ResponseEnd)
    }

    #[test]
    fn a_server_that_forgot_the_connection_is_told_with_the_pause() {
        let scene = exchange().data(Side::Client, 2005, 41).rst(Side::Server, 2006, ResetKind::Stray, 41);
        let finding = scene.check(&RULE).expect("a stray reset");
        assert_eq!(finding.values.get("pause"), Some(&" after 2.0 s idle".into()));
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (8, 7));
    }

    /// 40 octets of an answer came; the server has no such connection any more when their ACK arrives.
    fn broken_off(framing: Framing) -> Scene {
        let head = crate::wire::http::ResponseHead { status: 200, minor: 1, framing, ..Default::default() };
        Scene::open()
            .request(3, "GET", "/", 41)
            .acked(Side::Client, 4)
            .data(Side::Server, 5, 40)
            .speaks(Side::Server, crate::event::Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
            .acked(Side::Server, 6)
    }

    #[test]
    fn an_ack_in_the_middle_of_an_answer_that_is_refused_breaks_it_off() {
        let scene = broken_off(Framing::Length(9_000)).rst(Side::Server, 26, ResetKind::Stray, 0);
        let finding = scene.check(&RULE).expect("broken off");
        assert_eq!((finding.variant, finding.severity, finding.culprit), (1, Severity::Warning, Culprit::Server));
        assert_eq!(finding.evidence[0].at.number, 8);
    }

    #[test]
    fn an_answer_without_a_promised_end_or_a_client_that_left_breaks_nothing_off() {
        let until_close = broken_off(Framing::UntilClose).rst(Side::Server, 26, ResetKind::Stray, 0);
        assert_eq!(until_close.check(&RULE), None);
        let left = broken_off(Framing::Length(9_000)).fin(Side::Client, 20).rst(Side::Server, 40, ResetKind::Stray, 0);
        assert_eq!(left.check(&RULE), None);
    }

    #[test]
    fn a_reset_after_the_sides_own_fin_is_the_end_of_a_close() {
        let scene = exchange().fin(Side::Server, 6).data(Side::Client, 60, 4);
        assert_eq!(scene.rst(Side::Server, 61, ResetKind::AfterFin, 4).check(&RULE), None);
    }

    #[test]
    fn a_reset_beyond_what_is_seen_of_its_side_may_follow_a_fin_that_is_missing() {
        let mut scene = exchange().data(Side::Client, 17_005, 23).rst(Side::Server, 17_190, ResetKind::Stray, 23);
        let reset = &mut scene.facts.from_server.resets[0];
        reset.seq = reset.seq.plus(24);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_throws_away_what_it_just_used_is_a_notice() {
        let told = |ms: i64| {
            let scene = Scene::open().data(Side::Client, 3, 5).acked(Side::Client, 4).data(Side::Server, ms, 15);
            scene.rst(Side::Client, ms + 1, ResetKind::Stray, 15).check(&RULE).map(|finding| finding.severity)
        };
        assert_eq!(told(5), Some(Severity::Notice));
        assert_eq!(told(9_000), Some(Severity::Warning));
    }

    #[test]
    fn a_client_that_refuses_the_syn_ack_is_another_story() {
        let scene = Scene::new().syn(0).syn_ack(1).rst(Side::Client, 2, ResetKind::Stray, 0);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn late_octets_of_a_connection_closed_before_the_capture_are_refused_in_silence() {
        let scene = Scene::new().mid_stream().data(Side::Client, 0, 31).rst(Side::Server, 1, ResetKind::Stray, 31);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_side_that_has_acknowledged_the_octets_knows_the_connection() {
        let scene = exchange().data(Side::Client, 2005, 41).acked(Side::Client, 2006);
        assert_eq!(scene.rst(Side::Server, 2007, ResetKind::Stray, 0).check(&RULE), None);
    }

    #[test]
    fn a_client_may_reset_after_the_whole_answer() {
        assert_eq!(exchange().rst(Side::Client, 6, ResetKind::Stray, 0).check(&RULE), None);
    }
}
