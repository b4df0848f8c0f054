//! The server closed politely without a single octet of an answer.
//!
//! ## How tcpwhy knows
//! The client's octets were acknowledged, so the server's kernel has them. Then the server sent a FIN, and not one octet before it. In
//! HTTP the request was complete by its framing.
//!
//! ## What it is not
//! - `tls-closed-after-clienthello`: the same after a ClientHello.
//! - `closed-before-request`: there the client had not spoken yet.
//! - `idle-timeout-close`: there nothing was outstanding.
//!
//! ## What people see
//! `curl: (52) Empty reply from server`, nginx's "upstream prematurely closed connection", "unexpected end of file".
//!
//! ## False alarms it avoids
//! A client that closes first, a request whose body is still coming, a client of an unknown protocol that goes on talking after the
//! server's close (it did not wait for an answer), and connections whose beginning is not in the file. A service of an unknown protocol
//! may only listen and never answer: a warning. What is answered by a close alone: PostgreSQL's CancelRequest, a `quit`, memcached's
//! `noreply`.

use crate::event::{Kind, PacketRef, Protocol, ResetKind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "closed-without-answer",
    title: "the server closed politely without answering",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Fin]),
    symptom: true,
    claims_absence: true,
    says: "{server} took {question} octets of {client_host} and closed {after} later without a word",
    users_see: &[
        "curl: (52) Empty reply from server",
        "upstream prematurely closed connection while reading response header from upstream",
        "SSL_ERROR_SYSCALL",
        "RemoteDisconnected('Remote end closed connection without response')",
        "unexpected EOF",
    ],
    do_first: &[
        Step {
            says: "On {host}: does the same request work from the server itself?",
            command: "curl -sS -o /dev/null -m 10 -w '%{response_code}\\n' http://{host}:{port}/",
        },
        Step {
            says: "On {host}: what did the service log when it closed?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
    ],
    verify: &[Step {
        says: "from the client's host; (52) means that it still closes without a word:",
        command: "curl -sS -o /dev/null -m 10 http://{host}:{port}/",
    }],
    not: &[
        ("closed-before-request", "the client had spoken, and was acknowledged"),
        ("idle-timeout-close", "a question was outstanding"),
        ("client-abandoned", "the server closed first"),
    ],
    cannot_show: &["why the server closed"],
    sources: &["RFC 9293 §3.6", "RFC 9112 §9.6"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let fin = server.fin.filter(|fin| flow.facts.closer == Some((Side::Server, *fin)))?;
    // Its FIN's own number says whether octets went before it, where its SYN+ACK tells what it counts from.
    let silent = server.payload == 0 && server.unseen == 0 && server.syn_count > 0 && server.never_came() == 0;
    if !silent || client.acknowledged == 0 || flow.facts.mid_stream {
        return None;
    }
    if wants_no_answer(flow) {
        return None;
    }
    let (asked, known) = question(flow, fin)?;
    let after = fin.time.since(asked.time);
    let finding = RULE
        .found(flow, fin, Side::Server, format!("FIN {after} later: 0 octets"))
        .and(asked, Side::Client, if known { "the request is complete" } else { "octets of the client" })
        .and_maybe(client.first_payload_acked, Side::Server, "the client's octets are acknowledged")
        .with("after", after)
        .with("question", Value::Octets(client.payload));
    let finding = if known { finding } else { finding.severity(Severity::Warning) };
    // What the client does next may show that it was not waiting, or what its octets were.
    let early = flow.open_at_end() && flow.now.since(fin.time) < flow.thresholds.tail;
    Some(if early {
        finding.confidence(Confidence::High).note("the capture ends before the client reacts")
    } else {
        finding
    })
}

/// Octets of PostgreSQL's CancelRequest (PostgreSQL documentation, "Canceling Requests in Progress"), which the server only closes on.
const CANCEL: u64 = 16;

/// What the client said is answered by nothing but a close: PostgreSQL's CancelRequest, a `quit`; or it asked for no answers (memcached's
/// `noreply`).
fn wants_no_answer(flow: &FlowView<'_>) -> bool {
    let client = flow.client();
    if flow.protocol(Side::Client) == Some(Protocol::Postgres) {
        return client.payload == CANCEL;
    }
    let begins = flow.story.excerpt(Side::Client).unwrap_or(&[]);
    let line = begins.split(|octet| *octet == b'\n').next().unwrap_or(&[]).trim_ascii();
    line.ends_with(b" noreply") || line.eq_ignore_ascii_case(b"quit")
}

/// The packet with the client's question, and whether it is known to be one.
fn question(flow: &FlowView<'_>, fin: PacketRef) -> Option<(PacketRef, bool)> {
    // The snaplen left the beginning of what it said, and nothing came back whatever that was.
    let cut = || flow.client().cut > 0 && !flow.saw(Kind::ClientHello) && !flow.saw(Kind::Request);
    match flow.protocol(Side::Client) {
        Some(Protocol::Tls | Protocol::Http) if cut() => {
            flow.client().last_payload.filter(|last| *last < fin).map(|last| (last, false))
        }
        Some(Protocol::Tls) => None,
        Some(Protocol::Http) => {
            let exchange = flow.exchange()?;
            exchange.request_end.filter(|end| *end < fin).map(|end| (end, true))
        }
        protocol => {
            let last = flow.client().last_payload?;
            let reader_gone = flow.server().resets.iter().any(|reset| reset.kind == ResetKind::AfterFin);
            let known = protocol.is_some_and(|protocol| protocol != Protocol::Unknown);
            // Octets after the close: the client was not waiting.
            (last < fin && (known || !reader_gone)).then_some((last, known))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;

    #[test]
    fn a_fin_after_a_whole_request_and_no_octet_is_told_with_both_packets() {
        let scene = Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4).fin(Side::Server, 53);
        let finding = scene.check(&RULE).expect("closed");
        assert_eq!(
            (finding.severity, finding.evidence[0].shows.as_str()),
            (Severity::Critical, "FIN 50 ms later: 0 octets")
        );
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 4));
    }

    #[test]
    fn what_the_snaplen_left_of_a_client_hello_and_no_octet_back_is_a_warning() {
        let scene = Scene::open().data(Side::Client, 3, 517).speaks(Side::Client, Protocol::Tls).acked(Side::Client, 4);
        let mut scene = scene.fin(Side::Server, 3_003);
        assert_eq!(scene.check(&RULE), None);
        scene.facts.from_client.cut = 1;
        assert_eq!(scene.check(&RULE).map(|found| found.severity), Some(Severity::Warning));
    }

    #[test]
    fn one_octet_of_an_answer_is_an_answer() {
        let scene = Scene::open().request(3, "GET", "/", 80).response(4, 500, 1).fin(Side::Server, 53);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_closes_first_is_not_closed_on() {
        let scene = Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4).fin(Side::Client, 50);
        assert_eq!(scene.fin(Side::Server, 53).check(&RULE), None);
    }

    #[test]
    fn a_client_hello_is_the_business_of_the_tls_rule() {
        let scene = Scene::open().data(Side::Client, 3, 517).speaks(Side::Client, Protocol::Tls).acked(Side::Client, 4);
        assert_eq!(scene.fin(Side::Server, 5).check(&RULE), None);
    }

    #[test]
    fn who_says_goodbye_or_wants_no_answer_is_closed_on_without_a_word() {
        for (octets, told) in [(&b"quit\r\n"[..], false), (b"set a 0 0 3 noreply\r\nabc", false), (b"stats\r\n", true)]
        {
            let scene = Scene::open().data(Side::Client, 3, octets.len() as u32).acked(Side::Client, 4);
            let scene = scene.also(Side::Client, What::Excerpt { octets: octets.to_vec() }).fin(Side::Server, 5);
            assert_eq!(scene.check(&RULE).is_some(), told, "{octets:?}");
        }
        let startup = |octets| {
            let scene = Scene::open().data(Side::Client, 3, octets).speaks(Side::Client, Protocol::Postgres);
            scene.acked(Side::Client, 4).fin(Side::Server, 5).check(&RULE).is_some()
        };
        assert_eq!((startup(16), startup(84)), (false, true));
    }

    #[test]
    fn octets_of_an_unknown_protocol_make_it_a_warning() {
        let scene = Scene::open().data(Side::Client, 3, 28).acked(Side::Client, 4).fin(Side::Server, 53);
        assert_eq!(scene.check(&RULE).expect("closed").severity, Severity::Warning);
    }

    #[test]
    fn a_client_that_goes_on_talking_did_not_wait_for_an_answer() {
        let scene = Scene::open().data(Side::Client, 3, 2).acked(Side::Client, 4).fin(Side::Server, 5);
        let scene = scene.data(Side::Client, 200, 4).rst(Side::Server, 201, ResetKind::AfterFin, 4);
        assert_eq!(scene.check(&RULE), None);
    }
}
