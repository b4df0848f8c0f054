//! A RST that its alleged sender probably did not send: a box on the way injected it.
//!
//! ## How tcpwhy knows
//! The RST does not fit its side: its sequence number is none the side could use, or it stands out by two marks at once (another hop
//! distance by its TTL, no timestamps where a live socket always has them, an IP id out of the row). Or it stands out by its TTL, and
//! genuine octets of that side go on coming after it. Hop distance counts, not TTL alone: a kernel that answers with 255 instead of 64 is
//! still the same host.
//!
//! ## What it is not
//! - `server-reset-mid-response`: there the RST fits the server in every respect.
//! - A balancer or proxy that ends connections: its TTL is the same all along.
//!
//! ## What people see
//! "Connection reset by peer", ERR_CONNECTION_RESET, often only for certain names, contents or hours.
//!
//! ## False alarms it avoids
//! A connection that goes on, all of it acknowledged, did not obey: a notice. RSTs after the side's own FIN, refusals of a SYN, RSTs before the handshake is complete (they answer what is left of an older
//! connection), and connections whose beginning the capture lacks. One odd mark alone says nothing.

use crate::event::{Kind, ResetKind, Side};
use crate::flow::facts::{Half, Handshake, Reset};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "middlebox-reset",
    title: "the reset was probably injected on the path",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Reset, Kind::Established]),
    says: "a RST in the name of {sender} ends the connection to {server}, and {sender} probably did not send it",
    variants: &[
        "a RST in the name of {sender} that it probably did not send did not end the connection to {server}: it went on",
    ],
    users_see: &["Connection reset by peer", "ERR_CONNECTION_RESET", "ECONNRESET"],
    do_first: &[Step {
        says: "On {sender}, meanwhile one request that fails: does that host send the RST at all?",
        command: "tcpdump -nnv -c 5 -i any 'host {peer} and tcp[tcpflags] & tcp-rst != 0'",
    }],
    verify: &[Step {
        says: "from {peer}: how many hops away is {sender}? Compare with the RST's TTL:",
        command: "traceroute -n -T -p {port} {host}",
    }],
    not: &[("server-reset-mid-response", "the RST does not fit the side it claims to come from")],
    cannot_show: &["which box sent it: firewall, intrusion prevention, content filter, or a balancer in the way"],
    explains: &[
        Explains("server-reset-mid-response", Scope::Same),
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("http-upstream-reset-before-response", Scope::Same),
    ],
    sources: &["Weaver, Sommer, Paxson: Detecting Forged TCP Reset Packets, 2009", "RFC 3360", "RFC 5961 §3.2"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.handshake != Handshake::Full || flow.facts.mid_stream {
        return None;
    }
    [Side::Server, Side::Client].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let half = flow.facts.half(side);
    // Before the handshake is complete a kernel refuses what is left of an older connection on the same ports.
    let open = flow.facts.established?;
    let reset = half.resets.iter().find(|reset| suspicious(reset) && reset.at > open)?;
    let first = half.first.filter(|first| *first < reset.at)?;
    let far = hops(reset.ttl).abs_diff(hops(half.ttl.0)) >= 2;
    let goes_on = half.last_payload.filter(|last| *last > reset.at);
    if reset.kind != ResetKind::Edge && !(far && goes_on.is_some()) {
        return None;
    }
    let peer = flow.facts.half(side.other());
    let trigger = peer.last_payload.filter(|at| *at < reset.at);
    let early = trigger.is_some_and(|at| too_early(peer, reset, at.time));
    let shows = format!("RST with TTL {} and sequence number {}", reset.ttl, reset.seq.0);
    let mut finding = RULE
        .found(flow, reset.at, side, shows)
        .and(first, side, format!("the side's own packets have TTL {}", half.ttl.0))
        .and_maybe(trigger, side.other(), "the last octets before it")
        .and_maybe(goes_on, side, "the side itself goes on sending")
        .with("sender", flow.facts.endpoint(side).address)
        .with("peer", flow.facts.endpoint(side.other()).address);
    if early {
        finding = finding.note("it came in less than half the round trip to that side");
    }
    // A RST whose number is not the next one is asked back about, and ignored (RFC 5961 §3.2).
    if goes_on.is_some() && half.unacknowledged.is_none() && peer.resets.is_empty() && half.resets.len() == 1 {
        finding = finding.severity(Severity::Notice).variant(1);
    }
    let marks = u8::from(reset.kind == ResetKind::Edge) + u8::from(far) + u8::from(goes_on.is_some()) + u8::from(early);
    Some(if marks >= 2 { finding.confidence(Confidence::High) } else { finding })
}

/// Where the answers took another way, whoever got them there answered with that RST: no middlebox made it up.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let elsewhere = |found: &Finding| {
        matches!(&*found.rule, "asymmetric-return-path" | "reply-from-other-address")
            && found.severity >= Severity::Warning
    };
    match capture.flow_of(finding).is_some_and(|flow| flow.findings.iter().any(elsewhere)) {
        true => Keep::Drop,
        false => Keep::Yes,
    }
}

fn suspicious(reset: &Reset) -> bool {
    !matches!(reset.kind, ResetKind::AfterFin | ResetKind::Refused)
}

/// Faster than the far side could have answered.
fn too_early(peer: &Half, reset: &Reset, asked: crate::time::Timestamp) -> bool {
    let took = reset.at.time.since(asked);
    peer.min_rtt.is_some_and(|rtt| rtt > crate::time::Elapsed::millis(2) && took.0 * 2 < rtt.0)
}

/// Hops a packet has made, by the usual first values 32, 64, 128 and 255.
fn hops(ttl: u8) -> u8 {
    match ttl {
        0..=32 => 32 - ttl,
        33..=64 => 64 - ttl,
        65..=128 => 128 - ttl,
        _ => 255 - ttl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    fn asked() -> Scene {
        Scene::open().request(3, "GET", "/", 41).acked(Side::Client, 40)
    }

    fn ttl(mut scene: Scene, ttl: u8) -> Scene {
        scene.facts.from_server.resets[0].ttl = ttl;
        scene.facts.from_server.ttl.0 = 52;
        scene
    }

    #[test]
    fn a_reset_that_fits_its_side_in_no_way_is_injected() {
        let finding = ttl(asked().rst(Side::Server, 41, ResetKind::Edge, 0), 61).check(&RULE).expect("injected");
        assert_eq!(finding.confidence, Confidence::High);
    }

    #[test]
    fn octets_that_go_on_after_a_reset_from_elsewhere_betray_it() {
        let scene = ttl(asked().rst(Side::Server, 41, ResetKind::Abort, 0).data(Side::Server, 60, 900), 61);
        assert_eq!(scene.check(&RULE).map(|finding| finding.confidence), Some(Confidence::High));
    }

    #[test]
    fn a_connection_that_goes_on_did_not_obey() {
        let scene = asked().rst(Side::Server, 41, ResetKind::Edge, 0).data(Side::Server, 60, 900);
        let finding = ttl(scene.acked(Side::Server, 61), 61).check(&RULE).expect("injected");
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, 1));
    }

    #[test]
    fn another_ttl_alone_says_nothing() {
        assert_eq!(ttl(asked().rst(Side::Server, 41, ResetKind::Stray, 0), 61).check(&RULE), None);
    }

    #[test]
    fn a_kernel_that_answers_with_255_is_still_the_same_host() {
        let mut scene = asked().rst(Side::Server, 41, ResetKind::Stray, 0).data(Side::Server, 60, 900);
        scene.facts.from_server.resets[0].ttl = 255 - 12;
        scene.facts.from_server.ttl.0 = 52;
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_refuses_the_ack_of_an_older_connection_is_no_middlebox() {
        let scene = Scene::new().syn(0).rst(Side::Client, 29, ResetKind::Edge, 0).syn(3000).syn_ack(3028);
        assert_eq!(scene.established(3029).data(Side::Client, 3030, 517).check(&RULE), None);
    }

    #[test]
    fn a_reset_after_the_sides_own_fin_is_the_end_of_a_close() {
        let scene = asked().fin(Side::Server, 41).rst(Side::Server, 42, ResetKind::AfterFin, 0);
        assert_eq!(scene.check(&RULE), None);
    }
}
