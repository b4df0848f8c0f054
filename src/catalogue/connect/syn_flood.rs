//! Half-open connections are being piled up on a server.
//!
//! ## How tcpwhy knows
//! At least 200 new connections a second to one server port, from at least 50 sources, and fewer than one in ten of them is ever completed
//! by its client.
//!
//! ## What it is not
//! - `port-scan`: one source, many ports.
//! - Many users who come back at once: they complete their handshakes.
//! - `return-path-lost`: there the same clients get through to other ports.
//! - `accept-queue-overflow`: there the clients are few and repeat their SYNs; a flood may be its cause.
//!
//! ## What people see
//! `possible SYN flooding on port 443. Sending cookies.` in the kernel log, new connections that are slow or fail.
//!
//! ## False alarms it avoids
//! A capture of one direction, in which nobody is seen to complete anything: then no answer of the server is seen either, or no
//! acknowledgment on any connection.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PacketRef, Side};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::Digest;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

/// New connections in one second.
const RATE: usize = 200;
/// Different sources.
const SOURCES: usize = 50;
/// At most one in this many completes its handshake.
const COMPLETE: usize = 10;
/// Connections cited.
const CITED: usize = 4;

pub static RULE: Rule = Rule {
    id: "syn-flood",
    title: "half-open connections are being piled up",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    claims_absence: true,
    says: "{server} is flooded with SYNs: {tries} from {sources} sources, up to {rate} a second, {complete} completed",
    users_see: &["possible SYN flooding on port", "Sending cookies", "connections that are slow to open, or fail"],
    do_first: &[Step {
        says: "On {host}: does it answer with cookies, and do they come back?",
        command: "nstat -az TcpExtSyncookiesSent TcpExtSyncookiesRecv TcpExtTCPReqQFullDoCookies",
    }],
    fix: &[Fix {
        says: "Cookies let real clients in while the flood lasts:",
        command: "sysctl -w net.ipv4.tcp_syncookies=1",
        risk: "none known; the volume itself has to be filtered upstream",
    }],
    verify: &[Step {
        says: "on {host}; half-open connections on the port right now:",
        command: "ss -Htn state syn-recv 'sport = :{port}'",
    }],
    not: &[("return-path-lost", "the sources are many and none of them gets through")],
    cannot_show: &["who sends them: the source addresses are most likely forged"],
    explains: &[
        Explains("accept-queue-overflow", Scope::PeerTime),
        Explains("connect-timeout", Scope::PeerTime),
        Explains("connect-slow", Scope::PeerTime),
        Explains("return-path-lost", Scope::PeerTime),
    ],
    sources: &["RFC 4987"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let busy = capture.services.by_end.iter().filter(|(_, service)| service.flows as usize >= RATE);
    let mut by_port: BTreeMap<u16, Vec<Flooded<'_>>> = BTreeMap::new();
    for (server, _) in busy {
        if let Some(flooded) = Flooded::of(*server, capture) {
            by_port.entry(server.port).or_default().push(flooded);
        }
    }
    by_port.values().enumerate().filter_map(|(n, flooded)| judge(n as u32, flooded, capture)).collect()
}

/// The busy seconds of one server end.
struct Flooded<'a> {
    server: Endpoint,
    tries: Vec<&'a Digest>,
    rate: usize,
}

impl<'a> Flooded<'a> {
    fn of(server: Endpoint, capture: &'a CaptureView<'_>) -> Option<Self> {
        let began: Vec<&Digest> = capture.began_to(&server, Timestamp::MIN, Timestamp::MAX).collect();
        let mut busy: Vec<Vec<&Digest>> = Vec::new();
        // They are in order of time.
        for second in began.chunk_by(|a, b| a.id.time.second() == b.id.time.second()) {
            if second.len() < RATE {
                continue;
            }
            let tries: Vec<&Digest> =
                second.iter().copied().filter(|digest| digest.transport == IpProtocol::Tcp).collect();
            let complete = tries.iter().filter(|digest| digest.completed).count();
            if tries.len() >= RATE && complete * COMPLETE < tries.len() {
                busy.push(tries);
            }
        }
        let rate = busy.iter().map(Vec::len).max()?;
        Some(Self { server, tries: busy.into_iter().flatten().collect(), rate })
    }
}

fn judge(n: u32, flooded: &[Flooded<'_>], capture: &CaptureView<'_>) -> Option<Finding> {
    let server = flooded.first()?.server;
    let mut tries: Vec<&Digest> = flooded.iter().flat_map(|one| one.tries.iter().copied()).collect();
    tries.sort_unstable_by_key(|digest| digest.id);
    let sources: BTreeSet<Address> = tries.iter().map(|digest| digest.client().address).collect();
    if sources.len() < SOURCES {
        return None;
    }
    let rate: usize = flooded.iter().map(|one| one.rate).sum();
    let servers: Vec<Endpoint> = flooded.iter().map(|one| one.server).collect();
    let complete = tries.iter().filter(|digest| digest.completed).count();
    let half: Vec<&&Digest> = tries.iter().filter(|digest| !digest.completed).collect();
    let (first, last) = (half.first()?, half.last()?);
    let text = |digest: &Digest| match digest.accepted {
        true => format!("SYN of {}, answered, never completed", digest.client()),
        false => format!("SYN of {}, not answered", digest.client()),
    };
    // A capture that never shows a client's ACK cannot show that a client completed anything.
    let seen = capture.services.by_end.values().any(|service| service.good > 0);
    let mut finding = RULE
        .about(Subject::Host(n), first.id, Some(Side::Client), text(first))
        .on_flow(first.id)
        .confidence(if seen { Confidence::High } else { Confidence::Medium });
    for digest in half.iter().skip(1).take(CITED - 1) {
        finding = finding.cites(digest.id, Some(digest.id), text(digest));
    }
    finding = finding.cites(last.id, Some(last.id), format!("the last of {}", half.len()));
    let after = |digest: &&Digest| digest.answered && digest.id > last.id;
    let back = servers.iter().filter_map(|server| capture.began_to(server, last.id.time, Timestamp::MAX).find(after));
    let back = back.map(|digest| digest.id).min();
    let goes_on = capture.end.since(last.id.time) < capture.thresholds.tail;
    let standing: Standing = match back {
        Some(back) => Standing::Over(back),
        None if goes_on => Standing::GoesOn,
        None => Standing::Unknown,
    };
    let good: Option<PacketRef> =
        capture.service(&server).and_then(|service| service.first_good).filter(|good| *good < first.id);
    Some(
        finding
            .with("server", named(&servers))
            .with("host", server.address)
            .with("port", u64::from(server.port))
            .with("tries", tries.len() as u64)
            .with("sources", sources.len() as u64)
            .with("rate", rate as u64)
            .with("complete", complete as u64)
            .rules_out("port-scan", format!("{} sources, one port", sources.len()), &[first.id, last.id])
            .reaches(Reach {
                servers: servers.clone(),
                spans: vec![(first.id.time, last.id.time)],
                flows: half.len() as u64,
                of: servers.iter().filter_map(|server| capture.service(server)).map(|service| service.flows).sum(),
                clients: sources.len() as u64,
                last_good: good,
                standing,
                ..Reach::default()
            }),
    )
}

fn named(servers: &[Endpoint]) -> String {
    match servers {
        [one] => one.to_string(),
        [one, ..] => format!("{one} (and {} more servers)", servers.len() - 1),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn half_open(n: u64, source: String) -> Scene {
        Scene::starting(&source, "10.0.0.2:443", 1 + n * 3, n as i64 * 3).syn(0).syn_ack(1)
    }

    fn flood(source: impl Fn(u64) -> String) -> World {
        (0..250).fold(World::new(), |world, n| world.with_good(&half_open(n, source(n))))
    }

    #[test]
    fn hundreds_of_sources_that_never_complete_are_one_finding() {
        let findings = flood(|n| format!("198.51.{}.{}:1024", n / 100, n % 100)).check(&RULE);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].values.get("sources"), Some(&250u64.into()));
    }

    #[test]
    fn one_source_is_a_scanner_or_a_broken_client() {
        assert!(flood(|n| format!("198.51.100.7:{}", 1024 + n)).check(&RULE).is_empty());
    }

    #[test]
    fn users_who_come_back_at_once_complete_their_handshakes() {
        let world = (0..250).fold(World::new(), |world, n| {
            let source = format!("198.51.{}.{}:1024", n / 100, n % 100);
            world.with_good(&half_open(n, source).established(2))
        });
        assert!(world.check(&RULE).is_empty());
    }
}
