//! Many connections lose packets in the same seconds.
//!
//! ## How tcpwhy knows
//! At least five connections, and one in five of all that are active, send octets again (by timer or after SACK; SYN, FIN and probes left
//! out) within the same 12 s, most of them at no other time. What they share (a host at one end) tells where to look.
//!
//! ## What it is not
//! - `network-blackout`: there nothing at all arrives; here some packets still do.
//! - `packet-loss`: one connection, or loss that goes on all the time.
//! - `capture-packet-loss`: there the capture lacks packets that the receivers acknowledged.
//!
//! ## What people see
//! Everyone is slow for the same seconds: a link that is full, a policer, a backup job, a queue that overflows in bursts.
//!
//! ## False alarms it avoids
//! Loss at all times (a radio link), loss between two hosts only, the retransmissions that a blackout leaves behind.

use std::collections::BTreeSet;

use super::silence::blackouts;
use crate::event::PacketRef;
use crate::flow::facts::{Half, IpProtocol};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::Address;

pub static RULE: Rule = Rule {
    id: "loss-storm",
    title: "many flows lose packets in the same seconds",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    says: "{lossy} of {active} connections lost packets within the same {span}{shared}",
    users_see: &["everyone is slow for the same seconds", "TCP Retransmission", "Connection timed out"],
    do_first: &[Step { says: "On {host}: do drops or errors grow on an interface?", command: "ip -s -s link" }],
    verify: &[Step {
        says: "on {host}, twice a minute apart; a number that jumps is another storm:",
        command: "nstat -az TcpRetransSegs",
    }],
    not: &[("network-blackout", "packets still arrive in that time")],
    cannot_show: &["which link is full, or which queue drops"],
    explains: &[
        Explains("packet-loss", Scope::HopTime),
        Explains("loss-burst-single", Scope::HopTime),
        Explains("connect-slow", Scope::HopTime),
        Explains("slow-response", Scope::HopTime),
        Explains("h2-flow-control-stalled", Scope::HopTime),
    ],
    sources: &["RFC 5681", "catalogue of diagnoses, family O"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Connections that lose, and of how many percent of the active ones.
const FLOWS: usize = 5;
const PERCENT: usize = 20;
/// Hosts on the far side that make it sure.
const PEERS: usize = 3;
/// Copies cited.
const CITED: usize = 4;

/// A copy that was sent again: when, of which flow.
type Copy<'a> = (PacketRef, &'a FlowSummary);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut copies: Vec<Copy<'_>> = Vec::new();
    for flow in capture.flows.values().filter(|flow| flow.facts.transport == IpProtocol::Tcp) {
        let halves = [&flow.facts.from_client, &flow.facts.from_server];
        let mut times: BTreeSet<PacketRef> = halves.into_iter().flat_map(sent_again).collect();
        copies.extend(std::mem::take(&mut times).into_iter().map(|at| (at, flow)));
    }
    copies.sort_by_key(|(at, flow)| (*at, flow.facts.id));
    fullest(&copies, capture).and_then(|window| judge(window, &copies, capture)).into_iter().collect()
}

/// Copies of octets, as far as the facts tell their times.
fn sent_again(half: &Half) -> Vec<PacketRef> {
    if half.loss.timeout + half.loss.fast == 0 {
        return Vec::new();
    }
    let (first, last) = half.loss.span.unzip();
    half.loss.worst.iter().map(|resent| resent.copy).chain(first).chain(last).collect()
}

/// The grouping time in which most connections lose: places of its first copy and behind its last.
fn fullest(copies: &[Copy<'_>], capture: &CaptureView<'_>) -> Option<(usize, usize)> {
    let group = capture.thresholds.group;
    let mut best: Option<(usize, usize, usize)> = None;
    let mut from = 0;
    let mut inside: std::collections::BTreeMap<PacketRef, usize> = std::collections::BTreeMap::new();
    for (place, (at, flow)) in copies.iter().enumerate() {
        *inside.entry(flow.facts.id).or_default() += 1;
        while at.time.since(copies[from].0.time) > group {
            let gone = copies[from].1.facts.id;
            if let Some(count) = inside.get_mut(&gone) {
                *count -= 1;
                if *count == 0 {
                    inside.remove(&gone);
                }
            }
            from += 1;
        }
        if best.is_none_or(|(_, _, most)| inside.len() > most) {
            best = Some((from, place + 1, inside.len()));
        }
    }
    let (from, behind, _) = best?;
    let within = copies[behind..].iter().take_while(|(at, _)| at.time.since(copies[from].0.time) <= group).count();
    Some((from, behind + within))
}

fn judge((from, behind): (usize, usize), copies: &[Copy<'_>], capture: &CaptureView<'_>) -> Option<Finding> {
    let window = &copies[from..behind];
    let (first, last) = (window.first()?.0, window.last()?.0);
    let lossy: BTreeSet<PacketRef> = window.iter().map(|(_, flow)| flow.facts.id).collect();
    let outside: BTreeSet<PacketRef> =
        copies[..from].iter().chain(&copies[behind..]).map(|(_, flow)| flow.facts.id).collect();
    // What also loses at other times has a path that loses; a storm is an exception.
    let only_now = lossy.difference(&outside).count();
    let alive = |digest: &&Digest| {
        digest.transport == IpProtocol::Tcp
            && digest.id.time <= last.time
            && digest.last >= first.time
            && digest.accepted
    };
    if lossy.len() < FLOWS || only_now * 2 <= lossy.len() {
        return None;
    }
    let active = capture.known().filter(alive).count();
    if lossy.len() * 100 < active * PERCENT {
        return None;
    }
    let darkness =
        |span: (Timestamp, Timestamp)| span.0 <= last.time && first.time <= span.1 + capture.thresholds.group;
    if blackouts(capture).iter().any(|blackout| darkness(blackout.span(capture.end))) {
        return None;
    }
    let flows: Vec<&FlowSummary> = lossy.iter().filter_map(|id| capture.flows.get(id)).collect();
    let pairs: BTreeSet<(Address, Address)> =
        flows.iter().map(|flow| (flow.facts.client.address, flow.facts.server.address)).collect();
    if pairs.len() < PEERS {
        return None;
    }
    let hosts: BTreeSet<Address> = pairs.iter().flat_map(|(client, server)| [*client, *server]).collect();
    let shared =
        hosts.iter().copied().find(|host| pairs.iter().all(|(client, server)| client == host || server == host));
    let suffer = |flow: &&FlowSummary| flow.findings.iter().any(|finding| finding.severity >= Severity::Warning);
    let told = flows.iter().filter(|flow| suffer(flow)).count();
    let mut finding = RULE
        .about(Subject::Host(0), first, None, "octets are sent again")
        .severity(if told * 2 >= flows.len() { Severity::Critical } else { Severity::Warning })
        .confidence(if pairs.len() >= FLOWS { Confidence::High } else { Confidence::Medium });
    finding = finding.on_flow(window.first()?.1.facts.id);
    let mut cited = BTreeSet::from([window.first()?.1.facts.id]);
    for (at, flow) in window {
        if cited.len() < CITED && cited.insert(flow.facts.id) {
            finding = finding.cites(*at, Some(flow.facts.id), "and on another connection");
        }
    }
    finding = finding.cites(last, Some(window.last()?.1.facts.id), format!("the last of {} copies told", window.len()));
    let fewest = hosts.iter().copied().max_by_key(|host| {
        let ends = pairs.iter().filter(|(client, server)| client == host || server == host).count();
        (ends, std::cmp::Reverse(*host))
    })?;
    let reach = Reach {
        hosts: hosts.into_iter().collect(),
        spans: vec![(first.time, last.time)],
        flows: lossy.len() as u64,
        of: active as u64,
        clients: pairs.iter().map(|(client, _)| client).collect::<BTreeSet<_>>().len() as u64,
        standing: standing(&flows, last, capture),
        ..Reach::default()
    };
    let text = match shared {
        Some(host) => format!(", all of {host}"),
        None => format!(", between {} pairs of hosts", pairs.len()),
    };
    Some(
        finding
            .with("lossy", lossy.len() as u64)
            .with("active", active as u64)
            .with("span", last.time.since(first.time))
            .with("shared", text)
            .with("host", shared.unwrap_or(fewest))
            .reaches(reach),
    )
}

/// Over when octets went on afterwards for longer than a silence may last.
fn standing(flows: &[&FlowSummary], last: PacketRef, capture: &CaptureView<'_>) -> Standing {
    let later = flows.iter().filter_map(|flow| flow.facts.from_server.last_payload);
    let back = later.filter(|at| at.time.since(last.time) > capture.thresholds.tail).min();
    match back {
        Some(back) => Standing::Over(back),
        None if capture.end.since(last.time) > capture.thresholds.tail => Standing::Unknown,
        None => Standing::GoesOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World};

    /// A connection from one client to one server that sends its request again `at` ms after the capture's beginning.
    fn lossy(n: u64, server: u64, at: &[i64]) -> Scene {
        let scene =
            Scene::starting(&format!("10.0.1.{}:40000", 1 + n), &format!("10.0.0.{server}:80"), 100 * (n + 1), 0);
        let mut scene = scene.handshake().data(Side::Client, 3, 40);
        for ms in at {
            scene = scene.again(Side::Client, *ms);
            let copy = scene.facts.last;
            let span = scene.facts.from_client.loss.span.map_or((copy, copy), |(first, _)| (first, copy));
            scene.facts.from_client.loss.span = Some(span);
        }
        scene.acked(Side::Client, 60_000).data(Side::Server, 60_001, 90)
    }

    #[test]
    fn six_connections_of_six_clients_that_lose_in_the_same_seconds_are_a_storm() {
        let world = (0..6).fold(World::new(), |world, n| world.with(&lossy(n, 2, &[20_000 + n as i64 * 300])));
        let findings = world.check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::High));
        assert_eq!(findings[0].values.get("host"), Some(&crate::rule::testing::host("10.0.0.2").into()));
    }

    #[test]
    fn loss_at_all_times_is_a_lossy_path() {
        let times = [5000, 25_000, 45_000];
        let world = (0..6).fold(World::new(), |world, n| world.with(&lossy(n, 2, &times)));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn few_of_many_or_four_of_four_are_no_storm() {
        let few = (0..40).fold(World::new(), |world, n| {
            let at: &[i64] = if n < 6 { &[20_000] } else { &[] };
            world.with(&lossy(n, 2, at))
        });
        assert!(few.check(&RULE).is_empty());
        let four = (0..4).fold(World::new(), |world, n| world.with(&lossy(n, 2, &[20_000])));
        assert!(four.check(&RULE).is_empty());
    }
}
