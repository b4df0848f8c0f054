//! The server's listen queue is full: its kernel drops new connections because the application does not accept them.
//!
//! ## How tcpwhy knows
//! Connections to one port fail while the same port works for others at the same time, so neither the path nor the host is dead. Three
//! forms are known:
//! (a) at least three connections whose SYNs are never answered, while others to the port are completed within 1 s of them and their
//! host goes on acknowledging; (b) at least three on which the client finished the handshake, the server repeats its SYN+ACK and
//! acknowledges no data; (c) at least two on which the server's kernel acknowledges nothing at all, not even after two repetitions, while
//! a connection by the same client had its octets acknowledged at once (Linux 6.18 repeats no SYN+ACK then).
//!
//! ## What it is not
//! - `syn-flood`: there the sources are many and never complete a handshake.
//! - `connect-timeout` of a dead port: there nobody gets through.
//! - `pmtu-blackhole`: there only large segments stay unacknowledged; those are not counted here.
//!
//! ## What people see
//! Connects of 1, 3 or 7 s, nginx's 504 "while connecting to upstream", HAProxy's 503 with `sC`; `ss -ltn` shows Recv-Q above Send-Q.
//!
//! ## False alarms it avoids
//! A single retried SYN, and a port that died: after the last success nobody gets through any more, and the host sends nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Kind, PacketRef, Side};
use crate::flow::facts::{Handshake, Vantage};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// Unanswered connections that make variant (a) or (b).
const DROPPED: usize = 3;
/// Unacknowledged connections that make variant (c).
const IGNORED: usize = 2;
/// Others to the same port are completed this close to a dropped SYN.
const BESIDE: Elapsed = Elapsed::secs(1);
/// An application that accepts at all says something within this time.
const UNHEARD: Elapsed = Elapsed::secs(1);
/// How long an application may have stood still before its queue was full.
const STANDS: Elapsed = Elapsed::secs(60);
/// Larger first segments may be lost to a path MTU instead.
const SMALL: u32 = 1000;
/// Connections cited.
const CITED: usize = 6;

pub static RULE: Rule = Rule {
    id: "accept-queue-overflow",
    title: "the server's listen queue is full: it drops new connections",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Server,
    claims_absence: true,
    says: "{server} drops new connections: {dropped} get no answer while others to the same port are open",
    variants: &["{server} opens connections and acknowledges nothing on {dropped} of them: its listen queue is full"],
    users_see: &[
        "upstream timed out (110: Connection timed out) while connecting to upstream",
        "sC",
        "connects that take 1, 3 or 7 s",
        "times the listen queue of a socket overflowed",
    ],
    do_first: &[
        Step {
            says: "On {host}: is Recv-Q at or above Send-Q? Then the application does not call accept:",
            command: "ss -ltn 'sport = :{port}'",
        },
        Step {
            says: "On {host}: what do its workers wait for? Connections that stand open on the port:",
            command: "ss -tn state established 'sport = :{port}'",
        },
    ],
    fix: &[Fix {
        says: "Allow a longer queue (the listen() backlog of the application has to be raised as well):",
        command: "sysctl -w net.core.somaxconn=4096",
        risk: "a longer queue hides slow workers: clients wait longer before they fail",
    }],
    verify: &[Step {
        says: "on {host}, twice; the counter grows while the queue is full:",
        command: "nstat -az TcpExtListenOverflows TcpExtListenDrops",
    }],
    not: &[
        ("syn-flood", "the dropped clients are few and repeat their SYNs"),
        ("connect-timeout", "the port works for other connections at the same time"),
        ("packet-loss", "other connections of the same port lose nothing"),
    ],
    cannot_show: &["why the application does not accept connections"],
    explains: &[
        Explains("connect-timeout", Scope::PeerTime),
        Explains("connect-slow", Scope::PeerTime),
        Explains("service-down", Scope::Peer),
        Explains("client-abandoned", Scope::PeerTime),
        Explains("rto-unrecovered", Scope::PeerTime),
        Explains("return-path-lost", Scope::PeerTime),
        Explains("proxy-upstream-connect-failed", Scope::PeerTime),
    ],
    sources: &["Linux tcp_v4_syn_recv_sock, tcp_conn_request", "measured on Linux 6.18 with a backlog of 1"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut ports: BTreeMap<Endpoint, Vec<&FlowSummary>> = BTreeMap::new();
    for flow in capture.flows.values().filter(|flow| trouble(flow, capture).is_some()) {
        ports.entry(flow.facts.server).or_default().push(flow);
    }
    let mut found = Vec::new();
    for flows in ports.values() {
        let mut rest = flows.as_slice();
        while !rest.is_empty() {
            let (together, later) = rest.split_at(same_time(rest, capture.thresholds.group));
            found.extend(judge(together, capture));
            rest = later;
        }
    }
    found
}

/// How many of the flows, in order of time, began without a pause of `group`.
fn same_time(flows: &[&FlowSummary], group: Elapsed) -> usize {
    let starts = flows.iter().map(|flow| flow.facts.start());
    let pause = starts.clone().zip(starts.skip(1)).position(|(one, next)| next.since(one) > group);
    pause.map_or(flows.len(), |last| last + 1)
}

/// How a connection suffers from a full queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// (a) its SYNs are never answered.
    Dropped,
    /// (b) the SYN+ACK is repeated and data stay unacknowledged.
    Repeated,
    /// (c) the client finished the handshake and the server acknowledges nothing.
    Ignored,
}

fn trouble(flow: &FlowSummary, capture: &CaptureView<'_>) -> Option<Trouble> {
    let (facts, thresholds) = (&flow.facts, capture.thresholds);
    let (client, server) = (&facts.from_client, &facts.from_server);
    if flow.story.seen().has(Kind::Icmp) || flow.story.seen().has(Kind::Reset) && server.reset_count > 0 {
        return None;
    }
    if facts.handshake == Handshake::Syn && server.packets == 0 {
        let first = client.syns.first()?.time;
        let retried =
            client.syn_count >= thresholds.syn_copies && client.syns.last()?.time.since(first) >= thresholds.syn_span;
        return (retried && capture.end.since(first) >= thresholds.tail).then_some(Trouble::Dropped);
    }
    let waits = client.unacknowledged.filter(|waits| waits.len <= SMALL)?;
    if facts.handshake != Handshake::Full || client.acknowledged > 0 || client.fin_acked.is_some() || server.payload > 0
    {
        return None;
    }
    match (server.syn_count, waits.copies) {
        (2.., 2..) => Some(Trouble::Repeated),
        (_, 3..) => Some(Trouble::Ignored),
        _ => None,
    }
}

fn judge(flows: &[&FlowSummary], capture: &CaptureView<'_>) -> Option<Finding> {
    let of = |kind: Trouble| -> Vec<&FlowSummary> {
        flows.iter().filter(|flow| trouble(flow, capture) == Some(kind)).copied().collect()
    };
    let (dropped, repeated, ignored) = (of(Trouble::Dropped), of(Trouble::Repeated), of(Trouble::Ignored));
    let beside = Beside::of(flows, capture)?;
    if dropped.len() >= DROPPED {
        let sure = !repeated.is_empty() || !ignored.is_empty() || beside.unheard;
        return Some(finding(&dropped, &beside, if sure { Confidence::High } else { Confidence::Medium }, 0, capture));
    }
    if repeated.len() >= DROPPED {
        return Some(finding(&repeated, &beside, Confidence::Medium, 1, capture));
    }
    if ignored.len() < IGNORED || !beside.same_client {
        return None;
    }
    let on_server = ignored.iter().any(|flow| at_server(flow));
    let confidence = match on_server {
        true => Confidence::Certain,
        false if !dropped.is_empty() || beside.unheard => Confidence::High,
        false => Confidence::Medium,
    };
    Some(finding(&ignored, &beside, confidence, 1, capture))
}

/// The segments are seen arriving at the host whose kernel ignores them.
fn at_server(flow: &FlowSummary) -> bool {
    const IN: u8 = 1;
    let faces = &flow.facts.from_client.faces;
    flow.facts.vantage == Vantage::NearServer || !faces.is_empty() && faces.iter().all(|face| face.direction == IN)
}

/// What happens on the port beside the connections in trouble.
struct Beside {
    /// One that was accepted, with the server's packet that shows it.
    accepted: PacketRef,
    proof: Option<PacketRef>,
    /// No accepted connection got an octet from the application within 1 s.
    unheard: bool,
    /// One of them is by a client in trouble: its path works.
    same_client: bool,
}

impl Beside {
    /// `None` when nobody else gets through at that time, or the host has fallen silent: then the port is dead, not full.
    fn of(flows: &[&FlowSummary], capture: &CaptureView<'_>) -> Option<Self> {
        let first = flows.first()?;
        let (server, from) = (first.facts.server, first.facts.start());
        let until = flows.iter().map(|flow| flow.facts.last.time).max()?;
        let clients: BTreeSet<Address> = flows.iter().map(|flow| flow.facts.client.address).collect();
        let mut beside: Option<Self> = None;
        for digest in capture.began_to(&server, from - BESIDE, until + BESIDE) {
            // The flows are in the order of their first packets.
            if !digest.accepted || flows.binary_search_by_key(&digest.id, |flow| flow.facts.id).is_ok() {
                continue;
            }
            let whole = capture.flows.get(&digest.id);
            if !alive(from, until, digest, whole) {
                continue;
            }
            let client = clients.contains(&digest.client().address);
            let unheard = !digest.answered && digest.last.since(digest.id.time) >= UNHEARD;
            let proof = whole.and_then(|flow| flow.facts.from_server.last);
            let known = beside.get_or_insert(Self { accepted: digest.id, proof, unheard: true, same_client: false });
            known.unheard &= unheard;
            known.same_client |= client;
        }
        beside.or_else(|| Self::full(server, from, &clients, capture))
    }

    /// The application stood still while its kernel went on accepting, until the queue was full: the octets of a connection that was
    /// accepted are acknowledged and not answered, nobody is answered any more, and over a second later another one is still accepted.
    /// (A host that dies takes both with it at once.)
    fn full(server: Endpoint, from: Timestamp, clients: &BTreeSet<Address>, capture: &CaptureView<'_>) -> Option<Self> {
        let mut stuck: Option<&FlowSummary> = None;
        let mut still = false;
        for digest in capture.began_to(&server, from - STANDS, from).filter(|digest| digest.accepted) {
            if digest.answered {
                (stuck, still) = (None, false);
                continue;
            }
            let Some(flow) = capture.flows.get(&digest.id).filter(|flow| unanswered(flow)) else { continue };
            match stuck {
                None => stuck = Some(flow),
                Some(first) => still |= flow.facts.start().since(first.facts.start()) >= UNHEARD,
            }
        }
        let flow = stuck.filter(|_| still)?;
        Some(Self {
            accepted: flow.facts.id,
            proof: flow.facts.from_server.last,
            unheard: true,
            same_client: clients.contains(&flow.facts.client.address),
        })
    }
}

/// The server's kernel acknowledged the client's octets, and nothing answered them.
fn unanswered(flow: &FlowSummary) -> bool {
    let (client, server) = (&flow.facts.from_client, &flow.facts.from_server);
    client.acknowledged > 0 && client.unacknowledged.is_none() && server.payload == 0 && server.reset_count == 0
}

/// The port's host sends on an accepted connection while others wait: what it says before and after tells nothing of a dark time between.
fn alive(from: Timestamp, until: Timestamp, digest: &Digest, whole: Option<&FlowSummary>) -> bool {
    let meanwhile = |at: Timestamp| at > from && at <= until;
    let Some(flow) = whole else { return digest.answered && meanwhile(digest.id.time) };
    let (client, server) = (&flow.facts.from_client, &flow.facts.from_server);
    let acknowledges = client.acknowledged > 0 || client.fin_acked.is_some();
    let said = [server.first, server.first_payload, server.last_payload, server.last, client.fin_acked];
    let told = flow.story.events().filter(|event| event.side == Side::Server).map(|event| event.at);
    acknowledges && said.into_iter().flatten().chain(told).any(|at| meanwhile(at.time))
}

fn finding(
    members: &[&FlowSummary],
    beside: &Beside,
    confidence: Confidence,
    variant: u8,
    capture: &CaptureView<'_>,
) -> Finding {
    let (id, at, shows) = members.first().map_or_else(
        || (beside.accepted, beside.accepted, String::new()),
        |flow| (flow.facts.id, waits(flow).0, waits(flow).1),
    );
    let mut finding = RULE
        .about(Subject::Flow(id), at, Some(Side::Client), shows)
        .confidence(confidence)
        .variant(variant)
        .with("dropped", members.len() as u64);
    for flow in members.iter().skip(1).take(CITED - 1) {
        let (at, shows) = waits(flow);
        finding = finding.cites(at, Some(flow.facts.id), shows);
    }
    finding = finding.cites(beside.accepted, Some(beside.accepted), "a connection to the same port that was accepted");
    if let Some(proof) = beside.proof {
        finding = finding.cites(proof, Some(beside.accepted), "the host still answers on it");
    }
    if beside.unheard {
        finding =
            finding.note("the accepted connections hear nothing for over 1 s either: the application accepts none");
    }
    match reach(members, capture) {
        Some(reach) => finding.reaches(reach),
        None => finding,
    }
}

/// All connections in trouble together; over with the first one that gets an answer after the last of them.
fn reach(members: &[&FlowSummary], capture: &CaptureView<'_>) -> Option<Reach> {
    let (server, from) = (members.first()?.facts.server, members.first()?.facts.id);
    let last = members.iter().map(|flow| flow.facts.last).max()?;
    let clients: BTreeSet<Address> = members.iter().map(|flow| flow.facts.client.address).collect();
    let back = capture.began_to(&server, last.time, Timestamp::MAX).find(|digest| digest.answered);
    Some(Reach {
        servers: vec![server],
        spans: vec![(from.time, last.time)],
        flows: members.len() as u64,
        of: capture.service(&server).map_or(0, |service| service.flows),
        clients: clients.len() as u64,
        last_good: capture.began_to(&server, Timestamp::MIN, from.time).filter(|d| d.answered).map(|d| d.id).last(),
        standing: back.map_or(Standing::GoesOn, |digest| Standing::Over(digest.id)),
        ..Reach::default()
    })
}

/// The packet that waits for an answer, and what it shows.
fn waits(flow: &FlowSummary) -> (PacketRef, String) {
    let client = &flow.facts.from_client;
    match (client.unacknowledged, flow.facts.handshake) {
        (Some(waits), Handshake::Full) => {
            let what = if waits.len == 0 { "FIN" } else { "first octets" };
            (waits.first, format!("{what}, {} copies, never acknowledged", waits.copies))
        }
        _ => (flow.facts.id, format!("SYN, {} copies, never answered", client.syn_count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn dropped(number: u64, start: i64) -> Scene {
        Scene::starting("10.0.0.1:40000", "10.0.0.2:2060", number, start).syn(0).syn(1030).syn(2050).capture_ends(8000)
    }

    fn accepted(start: i64) -> Scene {
        Scene::starting("10.0.0.1:39000", "10.0.0.2:2060", 100, start)
            .handshake()
            .data(Side::Client, 500, 6)
            .acked(Side::Client, 501)
            .fin(Side::Client, 8500)
    }

    fn ignored(number: u64, client: &str) -> Scene {
        Scene::starting(client, "10.0.0.2:2060", number, 3)
            .handshake()
            .data(Side::Client, 5, 40)
            .again(Side::Client, 205)
            .again(Side::Client, 610)
    }

    fn three() -> World {
        World::new().with(&dropped(10, 1)).with(&dropped(20, 2)).with(&dropped(30, 3))
    }

    #[test]
    fn three_streams_of_syns_beside_a_silent_accepted_connection_are_a_full_queue() {
        let findings = three().with(&accepted(0)).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::High));
        assert_eq!(findings[0].values.get("dropped"), Some(&3u64.into()));
        assert_eq!(findings[0].subject, Subject::Flow(dropped(10, 1).facts.id));
    }

    #[test]
    fn a_port_nobody_reaches_is_dead_and_not_full() {
        assert!(three().check(&RULE).is_empty());
    }

    #[test]
    fn a_port_that_died_after_its_last_success_is_not_full() {
        let before = Scene::starting("10.0.0.1:39000", "10.0.0.2:2060", 1, -500)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90);
        assert!(three().with_good(&before).check(&RULE).is_empty());
    }

    #[test]
    fn an_application_that_stood_still_while_its_kernel_accepted_has_a_full_queue() {
        let taken = |number: u64, start: i64| {
            Scene::starting(&format!("10.0.0.1:{}", 39_000 + number), "10.0.0.2:2060", number, start)
                .handshake()
                .request(3, "GET", "/", 40)
                .acked(Side::Client, 4)
        };
        let world = |starts: [i64; 2]| three().with(&taken(1, starts[0])).with(&taken(2, starts[1]));
        let found = world([-1500, -200]).check(&RULE);
        assert_eq!((found.len(), found[0].confidence), (1, Confidence::High));
        assert!(world([-250, -200]).check(&RULE).is_empty(), "a host that died takes what it has just got with it");
        let answered = taken(3, -900).response(5, 200, 90);
        assert!(world([-1500, -200]).with_good(&answered).check(&RULE).is_empty(), "it answered meanwhile");
    }

    #[test]
    fn two_streams_of_syns_may_be_bad_luck() {
        let world = World::new().with(&dropped(10, 1)).with(&dropped(20, 2)).with(&accepted(0));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn connections_whose_octets_are_never_acknowledged_are_in_the_queue() {
        let world = World::new().with(&ignored(10, "10.0.0.1:40001")).with(&ignored(20, "10.0.0.1:40002"));
        let findings = world.with(&accepted(0)).check(&RULE);
        assert_eq!((findings[0].variant, findings[0].confidence), (1, Confidence::High));
    }

    #[test]
    fn clients_of_another_network_may_suffer_from_their_path() {
        let world = World::new().with(&ignored(10, "192.0.2.1:40001")).with(&ignored(20, "192.0.2.1:40002"));
        assert!(world.with(&accepted(0)).check(&RULE).is_empty());
    }
}
