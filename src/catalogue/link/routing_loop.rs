//! Routers pass packets round in a circle until their TTL is used up.
//!
//! ## How tcpwhy knows
//! Either the capture point lies on the circle: the very same packet (IP id, sequence numbers, payload) comes by at the same interface
//! again, with a TTL lower by two or more, three times at least. Or the circle lies farther off: three ICMP errors "time exceeded" (IPv4
//! type 11 code 0, IPv6 type 3 code 0) say that packets died on the way which were sent with a TTL of 32 or more. No way is that long.
//!
//! ## What it is not
//! - `connect-timeout`: there nobody says anything.
//! - `capture-duplicate-packets`: copies that the capture made have the TTL of their original, or of one router more.
//!
//! ## What people see
//! `No route to host` at once (Linux gives up a connection at the first such error), time-outs elsewhere; `ping` says "Time to live exceeded"; `traceroute` shows two addresses in turn.
//!
//! ## False alarms it avoids
//! Traceroute, which sends with a TTL of 1 to 30 to get these errors; captures on routers and bridges, where a packet goes in and out; one or
//! two errors while routes change. A circle that ended, so that the other side was heard afterwards, is a warning.

use super::quoted;
use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::wire::icmp::IcmpError;

pub static RULE: Rule = Rule {
    id: "routing-loop",
    title: "routers pass packets round until their TTL is used up",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::any(&[Kind::Icmp, Kind::WentRound]),
    says: "packets of {source_host} to {target_host} go round in a circle between routers until their TTL is used up",
    users_see: &[
        "Time to live exceeded",
        "No route to host",
        "Operation timed out",
        "Connection timed out",
        "ETIMEDOUT",
    ],
    do_first: &[
        Step {
            says: "From {source_host}: which two addresses come in turn? Their routes point at each other:",
            command: "mtr -n -r -c 3 {target_host}",
        },
        Step { says: "On each of the two: which way does it send them?", command: "ip route get {target_host}" },
    ],
    verify: &[Step {
        says: "from {source_host}; it reaches {target_host}, no address comes twice:",
        command: "traceroute -n {target_host}",
    }],
    not: &[("connect-timeout", "the packets do not vanish silently: they are passed on, to the wrong router")],
    cannot_show: &["which of the routers has the wrong route"],
    explains: &[
        Explains("connect-timeout", Scope::Peer),
        Explains("packet-loss", Scope::Peer),
        Explains("rto-unrecovered", Scope::Peer),
    ],
    sources: &["RFC 792", "RFC 1812 §5.3.1", "RFC 4443 §3.3", "measured on two Linux routers"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Errors, or packets seen again, that make a circle.
const MANY: u64 = 3;
/// No way through the internet takes so many hops; traceroute stops at 30.
const LONG: u8 = 32;

fn died(error: &IcmpError) -> bool {
    error.code == 0 && error.kind == if error.v6 { 3 } else { 11 }
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (finding, sender) = seen_again(flow).or_else(|| told(flow))?;
    let (source, target) = (flow.facts.endpoint(sender), flow.facts.endpoint(sender.other()));
    let finding = finding.with("source_host", source.address).with("target_host", target.address);
    let heard = flow.facts.half(sender.other()).last;
    Some(match heard.filter(|heard| *heard > latest(flow).unwrap_or(*heard)) {
        Some(heard) => finding
            .severity(Severity::Warning)
            .and(heard, sender.other(), "the other side is heard again")
            .with("over", Value::Frame(heard)),
        None => finding,
    })
}

/// The latest packet that shows the circle.
fn latest(flow: &FlowView<'_>) -> Option<PacketRef> {
    let shows = |what: &What| match what {
        What::Icmp(error) => died(error),
        What::WentRound { .. } => true,
        _ => false,
    };
    flow.story.events().rev().find(|event| shows(&event.what)).map(|event| event.at)
}

/// The capture point lies on the circle.
fn seen_again(flow: &FlowView<'_>) -> Option<(Finding, Side)> {
    let mut passages = flow.story.events().filter_map(|event| match event.what {
        What::WentRound { original, from, to } => Some((event.at, event.side, original, from, to)),
        _ => None,
    });
    let (at, side, original, from, to) = passages.next()?;
    let mut finding = RULE
        .found(flow, at, side, format!("the same packet again at the same place: TTL {to}, was {from}"))
        .and(original, side, format!("its first passage, TTL {from}"))
        .with("circles", u64::from(flow.facts.rounds));
    for (at, side, _, from, to) in passages.take(2) {
        finding = finding.and(at, side, format!("again: TTL {to}, was {from}"));
    }
    let count = flow.facts.rounds;
    let error = quoted(flow, died);
    if let Some(quoted) = error {
        let shows = format!("ICMP from {}: its TTL is used up", quoted.error.from);
        finding = finding.and(quoted.at, quoted.sender.other(), shows);
    }
    Some((finding.note(format!("packets of this connection came by again {count} times")), side))
}

/// A router says that packets died which were sent with enough TTL for any way.
fn told(flow: &FlowView<'_>) -> Option<(Finding, Side)> {
    let quoted = quoted(flow, died)?;
    let sender = flow.facts.half(quoted.sender);
    if sender.packets == 0 || sender.ttl.1 < LONG {
        return None;
    }
    let shows = format!("ICMP {}/0 from {}: the TTL is used up", quoted.error.kind, quoted.error.from);
    let finding = RULE
        .found(flow, quoted.at, quoted.sender.other(), shows)
        .and_maybe(sender.first, quoted.sender, format!("sent with TTL {}", sender.ttl.0))
        .with("errors", quoted.count as u64)
        .note(format!("{} threw them away: it lies on the circle", quoted.error.from));
    Some((finding, quoted.sender))
}

/// One or two are an anecdote: all connections together count.
fn corroborate(_: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let number = |finding: &Finding, slot| match finding.values.get(slot) {
        Some(Value::Count(n)) => *n,
        _ => 0,
    };
    let found = capture.found_by(RULE.id).flat_map(|flow| flow.findings.iter().filter(|found| found.rule == RULE.id));
    let (mut circles, mut errors) = (0, 0);
    for other in found {
        circles += number(other, "circles");
        errors += number(other, "errors");
    }
    if circles >= MANY || errors >= MANY { Keep::Yes } else { Keep::Drop }
}

#[cfg(test)]
mod tests {
    use super::super::tests::icmp;
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn dying(errors: i64) -> Scene {
        (0..errors).fold(Scene::new().syn(0), |scene, n| {
            scene.syn(1000 * (n + 1)).event(Side::Client, 1000 * (n + 1) + 1, icmp("10.0.0.254", 11, 0))
        })
    }

    fn judged(mut scene: Scene) -> Option<Finding> {
        let finding = scene.check(&RULE)?;
        scene.findings.push(finding.clone());
        World::new().with(&scene).corroborated(&RULE, finding)
    }

    fn round(to: u8) -> impl Fn(Scene) -> Scene {
        move |mut scene| {
            scene.facts.rounds += 1;
            let original = scene.facts.id;
            scene.event(Side::Client, 0, What::WentRound { original, from: 62, to })
        }
    }

    #[test]
    fn three_packets_that_died_with_enough_ttl_are_a_circle() {
        let finding = judged(dying(3)).expect("a circle");
        assert_eq!(finding.evidence[0].shows, "ICMP 11/0 from 10.0.0.254: the TTL is used up");
        assert_eq!(finding.evidence[1].shows, "sent with TTL 64");
        assert_eq!(finding.severity, Severity::Critical);
        assert_eq!(judged(dying(2)), None);
    }

    #[test]
    fn traceroute_asks_for_these_errors() {
        let mut scene = dying(3);
        scene.facts.from_client.ttl = (3, 3, 3);
        assert_eq!(judged(scene), None);
    }

    #[test]
    fn a_packet_that_comes_by_three_times_more_is_a_circle_twice_is_none() {
        let scene = round(56)(round(58)(round(60)(Scene::new().syn(0))));
        let finding = judged(scene).expect("a circle");
        assert_eq!(finding.evidence[0].shows, "the same packet again at the same place: TTL 60, was 62");
        assert_eq!(judged(round(58)(round(60)(Scene::new().syn(0)))), None);
    }

    #[test]
    fn a_circle_that_ended_is_a_warning() {
        let scene = dying(3).syn_ack(9_000).established(9_001);
        let finding = judged(scene).expect("a circle");
        assert_eq!((finding.severity, finding.over().is_some()), (Severity::Warning, true));
    }

    #[test]
    fn a_host_that_gives_up_reassembly_is_no_circle() {
        let scene = (0..3).fold(Scene::new().syn(0), |scene, n| scene.event(Side::Client, n, icmp("10.0.0.2", 11, 1)));
        assert_eq!(judged(scene), None);
    }
}
