//! One server port refuses or ignores everybody.
//!
//! ## How tcpwhy knows
//! At least three clients, or ten connections, to one server port are refused or never answered, and nobody gets through from the first to
//! the last of these failures. Before, connections to the port were accepted; other ports of the host may go on answering, which shows
//! that host and path are fine.
//!
//! ## What it is not
//! - `network-blackout`: there nothing at all comes from the host.
//! - `accept-queue-overflow`: there others get through at the same time.
//! - `service-restart`: there the port is back within seconds, after its connections were closed.
//!
//! ## What people see
//! Monitoring is red for one service; "connection refused" or time-outs for all its users.
//!
//! ## False alarms it avoids
//! One client that tries a port nobody ever served, and single refusals between connections that work.

use std::collections::{BTreeMap, BTreeSet};

use super::service_restart;
use crate::event::{PacketRef, Side};
use crate::rule::finding::{
    Confidence, Culprit, Evidence, Finding, Reach, Severity, Standing, Subject, in_order_of_time,
};
use crate::rule::summary::Digest;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step, Words};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// Variant of the headline about a port from which nothing comes.
const SILENT: u8 = 1;
/// Clients that fail, or connections.
const CLIENTS: usize = 3;
const FLOWS: usize = 10;
/// Clients remembered one by one.
const ASKERS: usize = 16;
/// Failures cited.
const CITED: usize = 4;
/// Failures further apart are two events.
const APART: Elapsed = Elapsed::secs(60);

pub static RULE: Rule = Rule {
    id: "service-down",
    title: "one server port refuses or ignores everybody",
    severity: Severity::Critical,
    culprit: Culprit::Server,
    says: "{server} refuses everybody: {failures} connections of {clients} in {span}, and none gets through",
    variants: &["{server} answers nobody: {failures} connections of {clients} in {span}, and none gets through"],
    users_see: &["Connection refused", "Connection timed out", "connect() failed (111: Connection refused)", "SC"],
    words_of: &[(
        SILENT,
        Words {
            users_see: &["Connection timed out", "(110: Connection timed out)", "sC"],
            do_first: &[
                Step {
                    says: "On {host}: do the SYNs arrive, and does any answer leave, by whichever interface?",
                    command: "timeout 60 tcpdump -c 9 -ni any 'tcp port {port}'",
                },
                Step {
                    says: "On {host}, where they arrive and nothing leaves: a filter, or a full queue? These should not grow:",
                    command: "nstat -az TcpExtIPReversePathFilter TcpExtListenOverflows",
                },
            ],
            verify: &[Step {
                says: "from a client's host; prints succeeded once the port answers:",
                command: "nc -vz -w 5 {host} {port}",
            }],
            cannot_show: &[
                "why no answer comes: a host that is down, a firewall, a way back that is not this one, an address that its name has left",
            ],
        },
    )],
    do_first: &[
        Step {
            says: "On {host}: does anything listen on port {port}, and on which address?",
            command: "ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "On {host}: was a process killed, or did a unit fail in that minute?",
            command: "systemctl --failed",
        },
    ],
    verify: &[Step {
        says: "from a client's host; prints succeeded once the port answers:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[("accept-queue-overflow", "nobody gets through to the port at the same time")],
    cannot_show: &[
        "why nothing answers there: a crash, a stop that was planned, a firewall, or an address that its name has left",
    ],
    explains: &[
        Explains("connect-refused", Scope::Peer),
        Explains("connect-timeout", Scope::Peer),
        Explains("health-check-flapping", Scope::Peer),
        Explains("port-reuse-collision", Scope::Peer),
        Explains("closed-without-answer", Scope::PeerTime),
        Explains("server-reset-mid-response", Scope::PeerTime),
        Explains("http-response-truncated", Scope::PeerTime),
        Explains("http-upstream-closed-before-response", Scope::PeerTime),
        Explains("http-upstream-reset-before-response", Scope::PeerTime),
    ],
    sources: &["RFC 9293 section 3.10.7.1", "catalogue of diagnoses, family O"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// A connection that failed at the port.
struct Failure {
    id: PacketRef,
    client: Address,
    refused: bool,
    /// Its last packet of the failure: the RST, or the last SYN.
    last: PacketRef,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut ports: BTreeMap<Endpoint, Vec<Failure>> = BTreeMap::new();
    for rule in ["connect-refused", "connect-timeout"] {
        for flow in capture.found_by(rule) {
            let Some(found) = flow.findings.iter().find(|finding| finding.rule == rule) else { continue };
            if found.severity >= Severity::Warning {
                ports.entry(flow.facts.server).or_default().push(Failure {
                    id: flow.facts.id,
                    client: flow.facts.client.address,
                    refused: rule == "connect-refused",
                    last: found.last(),
                });
            }
        }
    }
    let mut found = Vec::new();
    let restarts = service_restart::restarts(capture);
    for (server, mut failures) in ports {
        if failures.len() < CLIENTS {
            continue;
        }
        failures.sort_by_key(|failure| failure.id);
        let all: Vec<&Digest> = capture.began_to(&server, Timestamp::MIN, Timestamp::MAX).collect();
        let accepted: Vec<PacketRef> = all.iter().filter(|digest| digest.accepted).map(|digest| digest.id).collect();
        // Refused between the end of all its connections and its return: that is the restart's.
        let restarting = |part: &[Failure]| {
            let within = |at: PacketRef| {
                let holds = |restart: &service_restart::Restart<'_>| restart.from() <= at.time && at < restart.back;
                restarts.iter().any(|restart| restart.server == server && holds(restart))
            };
            part.iter().all(|failure| within(failure.id))
        };
        for part in parts(&failures, &accepted).into_iter().filter(|part| !restarting(part)) {
            found.extend(judge(found.len() as u32, server, part, &accepted, all.len(), capture));
        }
    }
    in_order_of_time(&mut found);
    found
}

/// The failures in runs without an accepted connection and without a long pause between them.
fn parts<'f>(failures: &'f [Failure], accepted: &[PacketRef]) -> Vec<&'f [Failure]> {
    failures
        .chunk_by(|one, next| {
            let after = accepted.partition_point(|id| *id <= one.id);
            let got_through = accepted.get(after).is_some_and(|id| *id < next.id);
            !got_through && next.id.time.since(one.last.time.max(one.id.time)) <= APART
        })
        .collect()
}

fn judge(
    n: u32,
    server: Endpoint,
    failures: &[Failure],
    accepted: &[PacketRef],
    of: usize,
    capture: &CaptureView<'_>,
) -> Option<Finding> {
    let (first, last) = (failures.first()?, failures.last()?);
    let clients: BTreeSet<Address> = failures.iter().map(|failure| failure.client).collect();
    let before = accepted.partition_point(|id| *id < first.id);
    let good = before.checked_sub(1).and_then(|place| accepted.get(place)).copied();
    let enough = clients.len() >= CLIENTS || failures.len() >= FLOWS && good.is_some();
    if !enough {
        return None;
    }
    let until = failures.iter().map(|failure| failure.last).max().unwrap_or(last.last);
    let after = accepted.partition_point(|id| *id <= last.id);
    let standing = accepted.get(after).map_or(Standing::GoesOn, |id| Standing::Over(*id));
    let silent = failures.iter().filter(|failure| !failure.refused).count();
    let confidence = if good.is_some() { Confidence::High } else { Confidence::Medium };
    let text = |failure: &Failure| match failure.refused {
        true => "RST: refused".to_owned(),
        false => "SYN, never answered".to_owned(),
    };
    let at = |failure: &Failure| if failure.refused { failure.last } else { failure.id };
    let side = if first.refused { Side::Server } else { Side::Client };
    let mut finding = RULE
        .about(Subject::Host(n), at(first), Some(side), text(first))
        .on_flow(first.id)
        .confidence(confidence)
        .variant(if silent * 2 > failures.len() { SILENT } else { 0 });
    for failure in failures.iter().skip(1).take(CITED - 1) {
        finding = finding.cites(at(failure), Some(failure.id), text(failure));
    }
    finding = finding.cites(at(last), Some(last.id), format!("the last of {} failures", failures.len()));
    if let Some(good) = good {
        finding.evidence.push(Evidence {
            at: good,
            flow: Some(good),
            side: None,
            shows: "the last connection to it that was accepted".into(),
        });
    } else {
        finding = finding.note("whether it was ever up is not in this capture");
    }
    if let Standing::Over(back) = standing {
        finding = finding.cites(back, Some(back), "the first connection to it that is accepted again");
    }
    finding = others(finding, server, first.id.time, until.time, capture);
    let reach = Reach {
        servers: vec![server],
        spans: vec![(first.id.time, until.time)],
        flows: failures.len() as u64,
        of: of as u64,
        clients: clients.len() as u64,
        askers: if clients.len() <= ASKERS { clients.iter().copied().collect() } else { Vec::new() },
        last_good: good,
        standing,
        ..Reach::default()
    };
    let who = match clients.first() {
        Some(one) if clients.len() == 1 => one.to_string(),
        _ => format!("{} clients", clients.len()),
    };
    Some(
        finding
            .with("server", server)
            .with("host", server.address)
            .with("port", u64::from(server.port))
            .with("failures", failures.len() as u64)
            .with("clients", who)
            .with("span", until.time.since(first.id.time))
            .reaches(reach),
    )
}

/// Another port of the host that answers meanwhile clears host and path.
fn others(finding: Finding, server: Endpoint, from: Timestamp, until: Timestamp, capture: &CaptureView<'_>) -> Finding {
    let answers =
        capture.flows_to_host(server.address).filter(|flow| flow.facts.server.port != server.port).find_map(|flow| {
            let last = flow.facts.from_server.last_payload?;
            (last.time >= from && last.time <= until).then_some((flow.facts.server, last))
        });
    match answers {
        Some((other, at)) => {
            finding.rules_out("network-blackout", format!("{other} on the same host answers meanwhile"), &[at])
        }
        None => finding.note("no other port of that host is seen to answer in this time: the host itself may be down"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};

    fn refused(n: u64, client: &str, start: i64) -> Scene {
        let mut scene = Scene::starting(client, "10.0.0.2:80", n * 10, start).syn(0);
        scene = scene.rst(Side::Server, 1, ResetKind::Refused, 0);
        let found = crate::catalogue::rule("connect-refused").expect("built");
        let finding = scene.check(found).expect("refused");
        scene.findings.push(finding);
        scene
    }

    fn good(number: u64, start: i64) -> Scene {
        Scene::starting("10.0.0.9:40000", "10.0.0.2:80", number, start)
            .handshake()
            .request(3, "GET", "/", 40)
            .response(4, 200, 90)
    }

    fn three() -> World {
        World::new()
            .with(&refused(10, "10.0.0.11:40000", 1000))
            .with(&refused(11, "10.0.0.12:40000", 1100))
            .with(&refused(12, "10.0.0.13:40000", 1200))
    }

    #[test]
    fn three_refused_clients_after_a_success_are_a_service_that_went_down() {
        let findings = three().with_good(&good(1, 0)).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::High));
        assert_eq!(findings[0].reach.as_ref().map(|reach| reach.standing), Some(Standing::GoesOn));
    }

    #[test]
    fn it_is_over_when_somebody_gets_through_again() {
        let findings = three().with_good(&good(1, 0)).with_good(&good(500, 5000)).check(&RULE);
        let over = findings[0].reach.as_ref().map(|reach| reach.standing);
        assert!(matches!(over, Some(Standing::Over(at)) if at.number == 500), "{over:?}");
    }

    #[test]
    fn a_port_that_was_never_seen_up_is_less_sure() {
        assert_eq!(three().check(&RULE)[0].confidence, Confidence::Medium);
    }

    #[test]
    fn one_client_at_a_port_nobody_served_is_its_own_mistake() {
        let world = (0..12).fold(World::new(), |world, n| {
            world.with(&refused(10 + n, &format!("10.0.0.11:{}", 40000 + n), 1000 + 100 * n as i64))
        });
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn refusals_between_connections_that_work_are_no_outage() {
        let world = World::new()
            .with(&refused(10, "10.0.0.11:40000", 1000))
            .with_good(&good(105, 1050))
            .with(&refused(11, "10.0.0.12:40000", 1100))
            .with_good(&good(115, 1150))
            .with(&refused(12, "10.0.0.13:40000", 1200));
        assert!(world.check(&RULE).is_empty());
    }
}
