//! One client is running out of source ports towards one server.
//!
//! ## How tcpwhy knows
//! Either 20 000 different source ports were used within a minute from one address to one port of one server: Linux has 28 232, and a port
//! whose connection the client closed first rests for 60 s. Or five ports or more were used again within 60 s, and most of the connections
//! of that time were on such ports: there are hardly any others.
//!
//! ## What it is not
//! - `port-reuse-collision`: what may follow from it, where the server still holds the older connection.
//! - Chance: a system that draws its ports at random meets one again now and then; there most connections use new ports.
//!
//! ## What people see
//! `Cannot assign requested address` (99); in HAProxy's log "no free ports"; 502 and 503 from proxies at the busiest time of the day.
//!
//! ## False alarms it avoids
//! Clients that use one port on purpose; ports drawn at random; ports used again after a minute.

use std::collections::BTreeSet;

use crate::event::Side;
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Subject};
use crate::rule::summary::Digest;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "ephemeral-ports-exhausted",
    title: "one client is running out of source ports to one server",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    says: "{client_host} uses its source ports to {server} again within {gap}: {again} of {of} connections are on {ports} ports that were used just before",
    variants: &["{client_host} used {ports} source ports to {server} within a minute: there are hardly more"],
    users_see: &["Cannot assign requested address", "EADDRNOTAVAIL", "no free ports", "Address already in use"],
    do_first: &[
        Step {
            says: "On {client_host}: how many connections to that server are open or resting?",
            command: "ss -tan dst {host}",
        },
        Step {
            says: "On {client_host}: which ports may it use, and may resting ones be used again?",
            command: "sysctl net.ipv4.ip_local_port_range net.ipv4.tcp_tw_reuse",
        },
    ],
    fix: &[
        Fix {
            says: "Keep connections to {server} open and use them again (keep-alive in the proxy's upstream, a pool in the program)",
            command: "",
            risk: "",
        },
        Fix {
            says: "On {client_host}: more ports:",
            command: "sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
            risk: "services on {client_host} that listen above 1024 must be in net.ipv4.ip_local_reserved_ports",
        },
    ],
    verify: &[Step { says: "on {client_host}; connections that rest, by state:", command: "ss -s" }],
    not: &[("port-reuse-collision", "the server accepted these connections")],
    cannot_show: &["connections that could not even be tried for want of a port"],
    explains: &[
        Explains("port-reuse-collision", Scope::Source),
        Explains("connect-slow", Scope::Source),
        Explains("http-gateway-error", Scope::Host),
    ],
    sources: &["RFC 6056", "RFC 9293 §3.6.1 (TIME-WAIT)", "Linux ip_local_port_range 32768 to 60999, TIME_WAIT 60 s"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Ports within [`MINUTE`] that leave hardly any.
const MANY: usize = 20_000;
/// How long a port rests.
const MINUTE: Elapsed = Elapsed::secs(60);
/// Ports that were used again within it.
const AGAIN: usize = 5;
/// Connections cited.
const CITED: usize = 4;

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (client, server, flows) in capture.pairs().filter(|(.., flows)| flows.len() > 2 * AGAIN) {
        let tcp = |digest: &&Digest| digest.transport == IpProtocol::Tcp;
        let flows: Vec<&Digest> = flows.iter().map(|flow| flow.digest).filter(tcp).collect();
        if flows.len() > 2 * AGAIN {
            let n = found.len() as u32;
            found.extend(few(client, server, &flows, n, capture).or_else(|| most(client, server, &flows, n)));
        }
    }
    found
}

/// Ports that come again before they have rested.
fn few(client: Address, server: Endpoint, flows: &[&Digest], n: u32, capture: &CaptureView<'_>) -> Option<Finding> {
    // Each port with the places of its connections.
    let mut by_port: Vec<(u16, usize)> = flows.iter().map(|flow| flow.client().port).zip(0..).collect();
    by_port.sort_unstable();
    let next = by_port.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| (pair[1].1, pair[0].1));
    let mut again: Vec<(usize, usize)> = next.filter(|(flow, earlier)| soon(flows[*earlier], flows[*flow])).collect();
    again.sort_unstable();
    let again: Vec<(&Digest, &Digest)> =
        again.into_iter().map(|(flow, earlier)| (flows[earlier], flows[flow])).collect();
    let ports: BTreeSet<u16> = again.iter().map(|(_, flow)| flow.client().port).collect();
    let (first, end) = (again.first()?, again.last()?);
    let meanwhile: Vec<_> = flows.iter().filter(|flow| flow.id >= first.0.id && flow.id <= end.1.id).collect();
    if ports.len() < AGAIN || again.len() * 2 < meanwhile.len() {
        return None;
    }
    let gap = again.iter().map(|(earlier, flow)| flow.id.time.since(earlier.last)).max()?;
    let shows = |flow: &Digest| format!("a connection from port {}", flow.client().port);
    let mut finding =
        RULE.about(Subject::Host(n), first.1.id, Some(Side::Client), format!("{}, again", shows(first.1)));
    finding = finding.on_flow(first.1.id).cites(first.0.id, Some(first.0.id), shows(first.0));
    for (_, flow) in again.iter().skip(1).take(CITED - 2) {
        finding = finding.cites(flow.id, Some(flow.id), format!("{}, again", shows(flow)));
    }
    let collided = again.iter().filter(|(_, flow)| {
        capture
            .flows
            .get(&flow.id)
            .is_some_and(|flow| flow.findings.iter().any(|found| found.rule == "port-reuse-collision"))
    });
    let collided = collided.count();
    let finding = finding
        .with("again", again.len() as u64)
        .with("of", meanwhile.len() as u64)
        .with("ports", ports.len() as u64)
        .with("gap", gap);
    let finding = match collided {
        0 => finding,
        n => finding.note(format!("{n} of them met a connection that the server still held")),
    };
    Some(reached(finding, client, server, first.0, end.1, again.len() as u64, meanwhile.len() as u64))
}

/// The port had not rested; and it is no second picture of the same connection, from another place.
fn soon(earlier: &Digest, flow: &Digest) -> bool {
    let rest = flow.id.time.since(earlier.last);
    let same = earlier.numbers != 0 && earlier.numbers == flow.numbers;
    !same && rest >= Elapsed::ZERO && rest < MINUTE
}

/// So many ports within a minute that the rest does not last.
fn most(client: Address, server: Endpoint, flows: &[&Digest], n: u32) -> Option<Finding> {
    if flows.len() < MANY {
        return None;
    }
    let mut from = 0;
    for (to, flow) in flows.iter().enumerate() {
        while flow.id.time.since(flows[from].id.time) > MINUTE {
            from += 1;
        }
        let minute = &flows[from..=to];
        if minute.len() < MANY {
            continue;
        }
        let ports: BTreeSet<u16> = minute.iter().map(|flow| flow.client().port).collect();
        if ports.len() >= MANY {
            let (first, last) = (minute[0], *flow);
            let finding = RULE
                .about(Subject::Host(n), last.id, Some(Side::Client), "the last of these connections")
                .on_flow(last.id)
                .cites(first.id, Some(first.id), "the first of these connections")
                .variant(1)
                .with("ports", ports.len() as u64);
            let count = minute.len() as u64;
            return Some(reached(finding, client, server, first, last, count, count));
        }
    }
    None
}

fn reached(
    finding: Finding,
    client: Address,
    server: Endpoint,
    first: &Digest,
    last: &Digest,
    flows: u64,
    of: u64,
) -> Finding {
    finding.with("client_host", client).with("server", server).with("host", server.address).reaches(Reach {
        servers: vec![server],
        sources: vec![client],
        spans: vec![(first.id.time, last.last)],
        flows,
        of,
        clients: 1,
        ..Reach::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::wire::seq::Seq;

    /// Connections on these ports, `gap` ms apart.
    fn opened(ports: impl Iterator<Item = u16>, gap: i64) -> World {
        ports.enumerate().fold(World::new(), |world, (n, port)| {
            let number = n as u64 * 10 + 1;
            let mut scene = Scene::starting(&format!("10.0.0.1:{port}"), "10.0.0.2:80", number, n as i64 * gap);
            scene.facts.from_client.isn = Some(Seq(n as u32 * 1_000));
            world.with_good(&scene.handshake())
        })
    }

    #[test]
    fn ten_ports_that_come_again_and_again_are_too_few() {
        let found = opened((0..40).map(|n| 40_000 + n % 10), 100).check(&RULE);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].evidence[0].shows, "a connection from port 40000, again");
        assert_eq!((found[0].evidence[0].at.number, found[0].evidence[1].at.number), (101, 1));
    }

    #[test]
    fn rested_ports_one_fixed_port_and_chance_are_none() {
        assert_eq!(opened((0..40).map(|n| 40_000 + n % 10), 7_000).check(&RULE).len(), 0);
        assert_eq!(opened((0..40).map(|_| 40_000), 100).check(&RULE).len(), 0);
        assert_eq!(
            opened((0..40).map(|n| if n % 7 == 6 { 40_000 + n - 3 } else { 40_000 + n }), 100).check(&RULE).len(),
            0
        );
    }
}
