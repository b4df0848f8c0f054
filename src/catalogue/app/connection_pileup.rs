//! More and more connections from one host wait on the same server, each with a request that nobody answers.
//!
//! ## How tcpwhy knows
//! At least 20 requests of one client to one server hang (`upstream-hang`) at the same moment. Each holds a worker, its memory and a
//! socket on the caller's side.
//!
//! ## What it is not
//! - A pool of idle connections: there no request is outstanding.
//! - The cause: that is the server's silence (`upstream-hang`), and a caller without a total timeout.
//!
//! ## What people see
//! Swap is full, "server reached MaxRequestWorkers setting", "Too many open files", hundreds of ESTABLISHED to one address.
//!
//! ## False alarms it avoids
//! Idle keep-alive connections, WebSocket fleets and long polls: only requests that `upstream-hang` names are counted.

use std::collections::BTreeMap;

use crate::event::{PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "connection-pileup",
    title: "more and more connections from one host wait on the same server",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    claims_absence: true,
    says: "{client_host} holds {count} connections to {server} that all wait for an answer at once",
    users_see: &["server reached MaxRequestWorkers setting", "Too many open files", "swap is full"],
    do_first: &[Step {
        says: "On {client_host}: how many are there now, and whose?",
        command: "sudo ss -tnp state established dport = :{port}",
    }],
    fix: &[Fix {
        says: "Cap how many such requests the caller makes at once, and give each a total timeout",
        command: "",
        risk: "requests above the cap fail at once instead of waiting",
    }],
    verify: &[Step {
        says: "on {client_host}, twice a minute apart; a number that grows is a pile-up:",
        command: "ss -tn state established dport = :{port} | wc -l",
    }],
    not: &[("stray-reset", "nobody closes these connections")],
    cannot_show: &["which visitors' requests the waiting ones belong to, unless they are in the capture as well"],
    explains: &[
        Explains("accept-queue-overflow", Scope::Source),
        Explains("slow-response", Scope::Source),
        Explains("pool-saturated", Scope::Source),
        Explains("service-restart", Scope::Peer),
    ],
    sources: &["a PHP site in 2012: 111 CRL fetches without a timeout"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Connections cited.
const CITED: usize = 4;

/// A request that waits: from, until, its flow.
type Wait = (PacketRef, Timestamp, PacketRef);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut waits: BTreeMap<(Address, Endpoint), Vec<Wait>> = BTreeMap::new();
    for flow in capture.flows.values() {
        for hang in flow.findings.iter().filter(|finding| finding.rule == super::upstream_hang::RULE.id) {
            let until = if hang.variant == 0 {
                flow.facts.closer.map_or(capture.end, |(_, at)| at.time)
            } else {
                hang.last().time
            };
            let ends = (flow.facts.client.address, flow.facts.server);
            waits.entry(ends).or_default().push((hang.first(), until, flow.facts.id));
        }
    }
    let enough = capture.thresholds.pile as usize;
    waits.into_values().filter(|waits| waits.len() >= enough).filter_map(|waits| judge(waits, enough)).collect()
}

/// The moment with the most that wait.
fn judge(mut waits: Vec<Wait>, enough: usize) -> Option<Finding> {
    waits.sort_unstable();
    let mut ends: Vec<Timestamp> = waits.iter().map(|(_, until, _)| *until).collect();
    ends.sort_unstable();
    let (mut over, mut most, mut full) = (0, 0, None);
    for (begun, (asked, _, _)) in waits.iter().enumerate() {
        while ends.get(over).is_some_and(|end| *end < asked.time) {
            over += 1;
        }
        let waiting = begun + 1 - over;
        if waiting == enough && full.is_none() {
            full = Some(*asked);
        }
        most = most.max(waiting);
    }
    let full = full?;
    let (first, _, id) = waits.first()?;
    let mut finding = RULE
        .about(Subject::Flow(*id), *first, Some(Side::Client), "the first request that waits")
        .with("count", most as u64)
        .note(format!(
            "{most} connections hold {most} workers of the caller, and grow with every request that needs that server"
        ));
    for (asked, _, flow) in waits.iter().skip(1).filter(|(asked, ..)| *asked != full).take(CITED - 2) {
        finding = finding.cites(*asked, Some(*flow), "another one");
    }
    let (_, _, flow) = waits.iter().find(|(asked, ..)| *asked == full)?;
    Some(finding.cites(full, Some(*flow), format!("the {enough}th that waits at once")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn waiting(count: u64, apart: i64, until: i64) -> World {
        let mut world = World::new();
        for n in 0..count {
            let start = n as i64 * apart;
            let client = format!("10.0.0.1:{}", 40_000 + n);
            let mut scene = Scene::starting(&client, "10.0.0.2:80", 10 * (n + 1), start)
                .handshake()
                .request(3, "GET", "/ca.crl", 60)
                .acked(Side::Client, 4)
                .fin(Side::Client, until);
            scene.findings.extend(scene.check(&super::super::upstream_hang::RULE));
            world = world.with(&scene);
        }
        world
    }

    #[test]
    fn twenty_that_wait_at_once_are_a_pile() {
        let findings = waiting(22, 100, 20_000).check(&RULE);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].values.get("count"), Some(&22u64.into()));
        assert_eq!(findings[0].evidence[0].at.number, 13);
    }

    #[test]
    fn as_many_one_after_the_other_are_none() {
        assert!(waiting(22, 30_000, 20_000).check(&RULE).is_empty());
        assert!(waiting(19, 100, 20_000).check(&RULE).is_empty());
    }
}
