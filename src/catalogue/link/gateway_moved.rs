//! The link address of a next hop changed once: another machine took over.
//!
//! ## How tcpwhy knows
//! Answers and announcements gave one address the link address A and, from one moment on, B; A was not given again. Connections that repeat
//! themselves or fail within 5 s of it make it a warning.
//!
//! ## What it is not
//! - `duplicate-address`: there both answer in turns.
//!
//! ## What people see
//! A pause of some seconds; if the new machine does not know the old connections, they are all reset.
//!
//! ## False alarms it avoids
//! Takeovers nobody felt are a notice. A backup that takes over after a blackout is a sign of the recovery and no fault.

use crate::event::PacketRef;
use crate::host::neighbor::{Answered, Known};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Subject};
use crate::rule::summary::FlowSummary;
use crate::rule::value::counted;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::Address;

/// Connections suffer within this time of it.
const NEAR: Elapsed = Elapsed::secs(5);

pub static RULE: Rule = Rule {
    id: "gateway-moved",
    title: "the link address of a next hop changed",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    says: "{host} moved from {mac} to {other_mac}: another machine took over",
    users_see: &["Entering MASTER STATE", "neighbour table changed"],
    do_first: &[Step {
        says: "On both routers: who took over, and why?",
        command: "journalctl -u keepalived --since -1h",
    }],
    verify: &[Step { says: "prints the link address in use:", command: "ip neigh show to {host}" }],
    not: &[("duplicate-address", "the old link address was not given again")],
    explains: &[
        Explains("loss-storm", Scope::HopTime),
        Explains("stray-reset", Scope::HopTime),
        Explains("rto-unrecovered", Scope::HopTime),
        Explains("server-reset-mid-response", Scope::HopTime),
    ],
    sources: &["RFC 9568", "RFC 5227 §3"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let known = capture.neighbors.by_address.iter();
    let mut found: Vec<(Address, Move<'_>)> =
        known.filter_map(|(address, known)| Some((*address, moved(known)?))).collect();
    found.sort_by_key(|(_, moved)| moved.to.1);
    (0_u32..).zip(found).map(|(number, (address, moved))| told(number, address, &moved, capture)).collect()
}

/// The last answer of the old machine and the first one of the new.
struct Move<'a> {
    from: (&'a Answered, PacketRef),
    to: (&'a Answered, PacketRef),
}

fn moved(known: &Known) -> Option<Move<'_>> {
    let [one, other] = known.answers.as_slice() else { return None };
    let span = |answered: &Answered| Some((*answered.times.first.first()?, answered.times.last?));
    let (a, b) = (span(one)?, span(other)?);
    let (from, to) = if a.1 < b.0 {
        ((one, a.1), (other, b.0))
    } else if b.1 < a.0 {
        ((other, b.1), (one, a.0))
    } else {
        return None;
    };
    // Two answers in one second are two machines, not one that took over; an announcement says so itself. The capturing host's own interfaces are no next hop.
    let apart = to.0.unasked > 0 || to.1.time.since(from.1.time) > Elapsed::secs(1);
    (apart && !from.0.own && !to.0.own).then_some(Move { from, to })
}

fn told(number: u32, address: Address, moved: &Move<'_>, capture: &CaptureView<'_>) -> Finding {
    let (to, at) = moved.to;
    let says = if to.unasked > 0 { "announces" } else { "answers" };
    let mut finding = RULE
        .about(Subject::Host(number), at, None, format!("{} {says}: {address} is here", to.mac))
        .cites(moved.from.1, None, format!("until here {address} was at {}", moved.from.0.mac))
        .with("host", address)
        .with("mac", moved.from.0.mac.to_string())
        .with("other_mac", to.mac.to_string());
    let hit: Vec<&FlowSummary> = capture.flows.values().filter(|flow| suffers(flow, at)).collect();
    if let Some(first) = hit.first() {
        let (n, repeat) = (
            counted(hit.len(), "connection"),
            if hit.len() == 1 { "repeats itself or fails" } else { "repeat themselves or fail" },
        );
        finding = finding
            .severity(Severity::Warning)
            .note(format!("{n} {repeat} within 5 s of it, the first is flow {}", first.facts.id.number));
    }
    let reach =
        Reach { spans: vec![(at.time, at.time)], flows: hit.len() as u64, of: hit.len() as u64, ..Reach::default() };
    finding.reaches(reach)
}

/// The flow failed or repeated octets near that time.
fn suffers(flow: &FlowSummary, at: PacketRef) -> bool {
    let near = |other: PacketRef| other.time.since(at.time).abs() <= NEAR;
    let halves = [&flow.facts.from_client, &flow.facts.from_server];
    halves.iter().any(|half| half.loss.worst.iter().any(|resent| near(resent.copy)))
        || flow.findings.iter().any(|finding| finding.severity >= Severity::Warning && near(finding.first()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::host::neighbor::Times;
    use crate::rule::testing::{Scene, World, host};
    use crate::time::Timestamp;
    use crate::wire::Mac;

    fn times(ms: &[i64]) -> Times {
        let at =
            |ms: &i64| PacketRef { file: 0, number: *ms as u64 + 1, time: Timestamp::default() + Elapsed::millis(*ms) };
        Times { count: ms.len() as u64, first: ms.iter().map(at).collect(), last: ms.last().map(at) }
    }

    fn told(world: World, a: &[i64], b: &[i64]) -> Option<Severity> {
        let mut world = world;
        let known = world.neighbors.by_address.entry(host("10.0.0.254")).or_default();
        for (mac, ms) in [(1, a), (2, b)] {
            known.answers.push(Answered {
                mac: Mac([2, 0, 0, 0, 0, mac]),
                times: times(ms),
                unasked: 1,
                announced: times(ms),
                own: false,
            });
        }
        world.check(&RULE).first().map(|finding| finding.severity)
    }

    #[test]
    fn a_takeover_nobody_felt_is_a_notice() {
        assert_eq!(told(World::new(), &[0, 1000], &[9000]), Some(Severity::Notice));
    }

    #[test]
    fn connections_that_repeat_themselves_make_it_a_warning() {
        let scene = Scene::open().data(Side::Client, 8000, 10).again(Side::Client, 8200);
        assert_eq!(told(World::new().with(&scene), &[0, 1000], &[9000]), Some(Severity::Warning));
    }

    #[test]
    fn turns_are_another_story() {
        assert_eq!(told(World::new(), &[0, 9500], &[9000]), None);
    }
}
