//! One process closed or lost all its connections at one moment: it was restarted, or it died and came back.
//!
//! ## How tcpwhy knows
//! *Server side*: every connection to one server port that was open then (two at least) ends within 2 s, closed by the server, and new
//! ones are refused until the port is back, within a minute. Or the server answers five connections with RSTs of a kernel that does not
//! know them any more. *Client side*: one host closes within 2 s five connections to one server on each of which a request waited, or
//! twenty that had been open since before the capture.
//!
//! ## What it is not
//! - `service-down`: there the port stays shut.
//! - `idle-flow-expired`, `gateway-moved`: there a device on the way forgets connections, of many hosts that have nothing in common.
//! - A cause of its own on the client side, where the connections waited for an answer: then somebody restarted what was stuck
//!   (`upstream-hang`).
//!
//! ## What people see
//! A burst of 502, `ECONNRESET` and "connection refused" that is over after seconds; in the S3 outage hundreds of FIN and RST at once.
//!
//! ## False alarms it avoids
//! Idle timers that end connections of one age together (the port goes on accepting), servers that close after every answer (the others
//! stay open), browsers and load generators that close a handful at once, waiting requests that end by their timeout. Connections that were
//! answered until their client closed them all are those of a job that is done: a notice.

use std::collections::BTreeMap;

use crate::event::{PacketRef, ResetKind, Side};
use crate::flow::facts::{Close, Handshake, IpProtocol, RoleSource};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "service-restart",
    title: "one process closed or lost all its connections at one moment",
    severity: Severity::Warning,
    culprit: Culprit::Server,
    says: "{server} closed all its {count} connections in {span}, refused new ones, and was back after {gap}",
    variants: &[
        "{server} has forgotten {count} connections: it answers them with RST, all within {span}",
        "{actor} closed {count} connections to {server} in {span}: the process that held them ended",
    ],
    users_see: &["502 Bad Gateway", "Connection reset by peer", "ECONNRESET", "Connection refused"],
    do_first: &[Step {
        says: "On {actor}: what was stopped, killed or started in that second?",
        command: "sudo journalctl --since '1 hour ago' -g 'Start|Stop|exited|Killed'",
    }],
    verify: &[Step {
        says: "from a client's host; prints succeeded while the port answers:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[("middlebox-reset", "all connections of one port end, and no others")],
    cannot_show: &["whether somebody restarted it or it crashed"],
    explains: &[
        Explains("server-reset-mid-response", Scope::PeerTime),
        Explains("stray-reset", Scope::PeerTime),
        Explains("connect-refused", Scope::PeerTime),
        Explains("http-upstream-closed-before-response", Scope::PeerTime),
        Explains("http-upstream-reset-before-response", Scope::PeerTime),
        Explains("h2-goaway-race", Scope::PeerTime),
    ],
    sources: &["[S3]: Apache was restarted, hundreds of FIN and RST", "RFC 9293 §3.10.7.1"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// All ends lie within this time.
const TOGETHER: Elapsed = Elapsed::secs(2);
/// A restart is over within this time; a port that is shut for longer is down.
const BACK: Elapsed = Elapsed::secs(60);
/// Connections that end together: of a server that refuses meanwhile, and of one that does not or of a client.
const ALL: usize = 2;
const MANY: usize = 5;
/// Ends cited.
const CITED: usize = 4;

/// A connection's end: when, its flow.
type End<'a> = (PacketRef, &'a FlowSummary);

/// A port that lost its connections, refused new ones and came back.
pub(super) struct Restart<'a> {
    pub server: Endpoint,
    ends: Vec<End<'a>>,
    refused: PacketRef,
    pub back: PacketRef,
}

impl Restart<'_> {
    /// When the first connection ended.
    pub fn from(&self) -> Timestamp {
        self.ends.first().map_or(self.refused.time, |(at, _)| at.time)
    }
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    let restarts = restarts(capture);
    for restart in &restarts {
        found.push(came_back(found.len() as u32, restart, capture));
    }
    for (server, ends) in by_server(capture, forgotten) {
        if restarts.iter().any(|restart| restart.server == server) {
            continue;
        }
        for part in together(&ends).filter(|part| part.len() >= MANY) {
            let finding = told(found.len() as u32, part, server, server.address, capture, Side::Server);
            found.push(finding.variant(1));
        }
    }
    for ((client, server), ends) in by_client(capture) {
        for part in together(&ends) {
            let waited = part.iter().filter(|(_, flow)| waits(flow)).count();
            let old = part.iter().filter(|(_, flow)| flow.facts.mid_stream).count();
            if waited >= MANY && !timed_out(part) || old >= capture.thresholds.pile as usize {
                let finding = told(found.len() as u32, part, server, client, capture, Side::Client).variant(2);
                let since =
                    format!("{old} of them had been open since before the capture, on {waited} a request waited");
                let finding = finding.culprit(Culprit::Client).note(since);
                // Of those that only were open nobody saw what they were for. Those that were answered until the end have done their work.
                let silent = part.iter().filter(|(_, flow)| flow.facts.from_server.payload == 0).count();
                let served = silent < capture.thresholds.pile as usize;
                let pool = || {
                    let finding = finding.clone().confidence(Confidence::Medium);
                    let finding = if served { finding.severity(Severity::Notice) } else { finding };
                    finding.note(if served {
                        "nobody is seen to wait: a job that is done looks the same"
                    } else {
                        "a pool that gives up idle connections looks the same"
                    })
                };
                found.push(if waited >= MANY { finding } else { pool() });
            }
        }
    }
    found
}

/// Ports whose connections all ended together, that then refused new ones, and accept again.
pub(super) fn restarts<'a>(capture: &'a CaptureView<'a>) -> Vec<Restart<'a>> {
    let mut refused: BTreeMap<Endpoint, Vec<PacketRef>> = BTreeMap::new();
    for flow in capture.found_by("connect-refused") {
        refused.entry(flow.facts.server).or_default().push(flow.facts.id);
    }
    let mut found = Vec::new();
    for (server, ends) in by_server(capture, |flow| closed_by(flow, Side::Server)) {
        let Some(refused) = refused.get(&server) else { continue };
        for part in together(&ends).filter(|part| part.len() >= ALL) {
            let (Some((first, _)), Some((last, _))) = (part.first(), part.last()) else { continue };
            let shut = refused.iter().find(|at| at.time >= first.time && at.time.since(first.time) <= BACK);
            let Some(shut) = shut.copied().filter(|_| all_ended(server, *first, *last, capture)) else { continue };
            let after = capture.began_to(&server, shut.time, first.time + BACK);
            let back = after.filter(|digest| digest.accepted).map(|digest| digest.id).min();
            if let Some(back) = back {
                found.push(Restart { server, ends: part.to_vec(), refused: shut, back });
            }
        }
    }
    found
}

/// No connection that was open when the first one ended outlived the last one.
fn all_ended(server: Endpoint, first: PacketRef, last: PacketRef, capture: &CaptureView<'_>) -> bool {
    let outlived = |digest: &Digest| digest.accepted && digest.last > last.time + TOGETHER;
    !capture.began_to(&server, Timestamp::MIN, first.time).any(outlived)
}

fn came_back(n: u32, restart: &Restart<'_>, capture: &CaptureView<'_>) -> Finding {
    let (server, back) = (restart.server, restart.back);
    let mut finding = told(n, &restart.ends, server, server.address, capture, Side::Server)
        .cites(restart.refused, Some(restart.refused), "a new connection is refused")
        .cites(back, Some(back), "the first one that is accepted again")
        .with("gap", back.time.since(restart.from()));
    if let Some(reach) = &mut finding.reach {
        reach.spans = vec![(restart.from(), back.time)];
        reach.standing = Standing::Over(back);
    }
    finding
}

/// A finding about ends that came together.
fn told(n: u32, ends: &[End<'_>], server: Endpoint, actor: Address, capture: &CaptureView<'_>, side: Side) -> Finding {
    let (from, until) = match (ends.first(), ends.last()) {
        (Some((first, _)), Some((last, _))) => (*first, *last),
        _ => (PacketRef { file: 0, number: 0, time: capture.end }, PacketRef { file: 0, number: 0, time: capture.end }),
    };
    let what = |flow: &FlowSummary| match flow.facts.close {
        Close::Reset(..) => "RST",
        _ => "FIN",
    };
    let mut finding =
        RULE.about(Subject::Host(n), from, Some(side), "the first of them ends").confidence(Confidence::High);
    if let Some((_, flow)) = ends.first() {
        finding = finding.on_flow(flow.facts.id);
    }
    for (at, flow) in ends.iter().skip(1).take(CITED - 2) {
        finding = finding.cites(*at, Some(flow.facts.id), format!("{} of another one", what(flow)));
    }
    if let Some((at, flow)) = ends.last().filter(|_| ends.len() >= CITED) {
        finding = finding.cites(*at, Some(flow.facts.id), format!("{}: the last of {}", what(flow), ends.len()));
    }
    let sources: Vec<Address> = if side == Side::Client { vec![actor] } else { Vec::new() };
    let mine = |digest: &&Digest| sources.is_empty() || sources.contains(&digest.client().address);
    let later = capture.began_to(&server, until.time, Timestamp::MAX).filter(mine).find(|digest| digest.served);
    let mut clients: Vec<Address> = ends.iter().map(|(_, flow)| flow.facts.client.address).collect();
    clients.sort_unstable();
    clients.dedup();
    let reach = Reach {
        servers: vec![server],
        sources,
        spans: vec![(from.time, until.time)],
        flows: ends.len() as u64,
        of: ends.len() as u64,
        clients: clients.len() as u64,
        standing: later.map_or(Standing::Unknown, |digest| Standing::Over(digest.id)),
        ..Reach::default()
    };
    finding
        .with("server", server)
        .with("host", server.address)
        .with("port", u64::from(server.port))
        .with("actor", actor)
        .with("count", ends.len() as u64)
        .with("span", until.time.since(from.time))
        .reaches(reach)
}

fn by_server<'a>(
    capture: &'a CaptureView<'a>,
    end: impl Fn(&FlowSummary) -> Option<PacketRef>,
) -> BTreeMap<Endpoint, Vec<End<'a>>> {
    let mut all: BTreeMap<Endpoint, Vec<End<'a>>> = BTreeMap::new();
    for flow in capture.flows.values().filter(|flow| established(flow)) {
        if let Some(at) = end(flow) {
            all.entry(flow.facts.server).or_default().push((at, flow));
        }
    }
    all.values_mut().for_each(|ends| ends.sort_by_key(|(at, _)| *at));
    all
}

fn by_client<'a>(capture: &'a CaptureView<'a>) -> BTreeMap<(Address, Endpoint), Vec<End<'a>>> {
    let mut all: BTreeMap<(Address, Endpoint), Vec<End<'a>>> = BTreeMap::new();
    for flow in capture.flows.values().filter(|flow| established(flow) && (waits(flow) || flow.facts.mid_stream)) {
        if let Some(at) = closed_by(flow, Side::Client) {
            all.entry((flow.facts.client.address, flow.facts.server)).or_default().push((at, flow));
        }
    }
    all.values_mut().for_each(|ends| ends.sort_by_key(|(at, _)| *at));
    all
}

fn established(flow: &FlowSummary) -> bool {
    let facts = &flow.facts;
    facts.transport == IpProtocol::Tcp
        && facts.role != RoleSource::Guess
        && (facts.handshake >= Handshake::SynAck || facts.mid_stream)
}

/// When that side closed the connection, if it was the first to do so.
fn closed_by(flow: &FlowSummary, side: Side) -> Option<PacketRef> {
    flow.facts.closer.filter(|(closer, _)| *closer == side).map(|(_, at)| at)
}

/// When the server's kernel said that it does not know the connection.
fn forgotten(flow: &FlowSummary) -> Option<PacketRef> {
    let stray = flow.facts.from_server.resets.iter().find(|reset| reset.kind == ResetKind::Stray)?;
    (flow.facts.from_server.fin.is_none()).then_some(stray.at)
}

/// A request waited on it when it ended.
fn waits(flow: &FlowSummary) -> bool {
    flow.findings.iter().any(|finding| finding.rule == "upstream-hang" && finding.variant != 2)
}

/// Requests that began one after the other and ended in the same rhythm ran into the caller's timeout; a process that ends takes all with it.
fn timed_out(part: &[End<'_>]) -> bool {
    let mut asked: Vec<Timestamp> =
        part.iter().filter(|(_, flow)| waits(flow)).map(|(_, flow)| flow.facts.start()).collect();
    asked.sort_unstable();
    let spread = |first: Option<Timestamp>, last: Option<Timestamp>| match (first, last) {
        (Some(first), Some(last)) => last.since(first),
        _ => Elapsed::ZERO,
    };
    let begun = spread(asked.first().copied(), asked.last().copied());
    let ended = spread(part.first().map(|(at, _)| at.time), part.last().map(|(at, _)| at.time));
    begun.0 < ended.0.saturating_mul(3)
}

/// Runs of ends each of which begins before the first of them and ends within [`TOGETHER`] of it.
fn together<'e, 'a>(ends: &'e [End<'a>]) -> impl Iterator<Item = &'e [End<'a>]> {
    let mut rest = ends;
    std::iter::from_fn(move || {
        let (first, _) = rest.first()?;
        let older = |flow: &FlowSummary| flow.facts.mid_stream || flow.facts.id <= *first;
        let fits = |(at, flow): &End<'_>| at.time.since(first.time) <= TOGETHER && older(flow);
        let n = rest.iter().take_while(|end| fits(end)).count().max(1);
        let (part, left) = rest.split_at(n);
        rest = left;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    /// Opened at `start`, one answer, closed by `side` at `end` of the capture.
    fn kept(n: u64, start: i64, end: i64, side: Side) -> Scene {
        Scene::starting(&format!("10.0.0.{}:40000", 10 + n), "10.0.0.2:80", 10 * (n + 1), start)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
            .also(Side::Server, crate::event::What::ResponseEnd)
            .fin(side, end - start)
    }

    fn refused(number: u64, start: i64) -> Scene {
        let scene = Scene::starting("10.0.0.30:40000", "10.0.0.2:80", number, start).syn(0);
        let mut scene = scene.rst(Side::Server, 1, ResetKind::Refused, 0);
        let rule = crate::catalogue::rule("connect-refused").expect("built");
        scene.findings.extend(scene.check(rule));
        scene
    }

    fn three(end: i64) -> World {
        (0..3).fold(World::new(), |world, n| world.with(&kept(n, n as i64 * 700, end + n as i64 * 10, Side::Server)))
    }

    #[test]
    fn a_port_that_closes_all_refuses_and_comes_back_was_restarted() {
        let world = three(5000).with(&refused(500, 5500)).with_good(&kept(60, 7000, 9000, Side::Client));
        let findings = world.check(&RULE);
        assert_eq!((findings.len(), findings[0].variant, findings[0].confidence), (1, 0, Confidence::High));
        assert_eq!(findings[0].values.get("gap"), Some(&Elapsed::millis(2000).into()));
    }

    #[test]
    fn a_port_that_stays_shut_or_goes_on_accepting_was_not() {
        assert!(three(5000).with(&refused(500, 5500)).check(&RULE).is_empty());
        assert!(three(5000).with_good(&kept(60, 7000, 9000, Side::Client)).check(&RULE).is_empty());
    }

    #[test]
    fn a_connection_that_lives_on_speaks_against_it() {
        let lives = kept(3, 2000, 30_000, Side::Client);
        let world = three(5000).with(&refused(500, 5500)).with_good(&kept(60, 7000, 9000, Side::Client));
        assert!(world.with(&lives).check(&RULE).is_empty());
    }

    fn waiting(n: u64, end: i64) -> Scene {
        let mut scene =
            Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:80", 10 * (n + 1), n as i64 * 300)
                .handshake()
                .request(3, "GET", "/ca.crl", 60)
                .acked(Side::Client, 4)
                .fin(Side::Client, end - n as i64 * 300);
        scene.findings.extend(scene.check(crate::catalogue::rule("upstream-hang").expect("built")));
        scene
    }

    #[test]
    fn a_client_that_drops_five_waiting_requests_at_once_was_restarted_and_four_are_not_enough() {
        let world = |count: u64| (0..count).fold(World::new(), |world, n| world.with(&waiting(n, 30_000 + n as i64)));
        let findings = world(5).check(&RULE);
        assert_eq!((findings.len(), findings[0].variant, findings[0].culprit), (1, 2, Culprit::Client));
        assert!(world(4).check(&RULE).is_empty());
    }

    #[test]
    fn requests_that_end_in_the_rhythm_in_which_they_began_ran_into_a_timeout() {
        let world = (0..6).fold(World::new(), |world, n| world.with(&waiting(n, 20_000 + n as i64 * 300)));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn a_browser_that_closes_six_idle_connections_is_none() {
        let world = (0..6).fold(World::new(), |world, n| world.with(&kept(0, n * 100, 9000, Side::Client)));
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn five_connections_that_the_kernel_no_longer_knows_were_lost_in_a_restart() {
        let stray = |n: u64| {
            Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:80", 10 * (n + 1), 0)
                .handshake()
                .data(Side::Client, 9000 + n as i64 * 100, 40)
                .rst(Side::Server, 9001 + n as i64 * 100, ResetKind::Stray, 0)
        };
        let world = |count: u64| (0..count).fold(World::new(), |world, n| world.with(&stray(n)));
        assert_eq!(world(5).check(&RULE).iter().map(|finding| finding.variant).collect::<Vec<_>>(), [1]);
        assert!(world(4).check(&RULE).is_empty());
    }
}
