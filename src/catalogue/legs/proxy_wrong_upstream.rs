//! The proxy uses another backend address or port than the one it is expected to use.
//!
//! ## How tcpwhy knows
//! The user said with `--expect-upstream ADDRESS:PORT` (once for each declared server) where the proxy's backends are. A linked backend leg
//! goes to another port of such a host, or goes elsewhere while no packet at all goes to any of them.
//!
//! ## What it is not
//! Load balancing over several declared servers: name them all. A canary on purpose: name it too.
//!
//! ## What people see
//! It works when the proxy is bypassed; it cannot be reproduced with a fresh configuration; `haproxy -c` and the logs are silent.
//!
//! ## False alarms it avoids
//! Without `--expect-upstream` it says nothing. Legs to other hosts are let pass while the expected ones are used.

use std::collections::BTreeSet;

use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Finding, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "proxy-wrong-upstream",
    title: "the proxy uses another backend address or port than expected",
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    claims_absence: true,
    says: "the proxy {client_host} connects to {server}, expected was {expected}",
    users_see: &["works when the proxy is bypassed"],
    do_first: &[
        Step {
            says: "On the proxy {client_host}, if it is HAProxy: which ports do its running servers have, whatever the file says?",
            command: "echo 'show servers state' | sudo socat stdio /run/haproxy/admin.sock",
        },
        Step {
            says: "On the proxy {client_host}: do old workers still run?",
            command: "ps -eo pid,lstart,args | grep -E '[h]aproxy|[n]ginx'",
        },
    ],
    verify: &[Step { says: "on the proxy {client_host}:", command: "ss -tn 'dport = :{port}'" }],
    not: &[("network", "the proxy itself chose the address")],
    cannot_show: &["from where the proxy has that address: a state file, the DNS, an old worker"],
    explains: &[
        Explains("proxy-header-to-tls-port", Scope::Link),
        Explains("proxy-header-to-http-port", Scope::Link),
        Explains("proxy-header-to-other-service", Scope::Link),
        Explains("connect-refused", Scope::Link),
        Explains("connect-timeout", Scope::Link),
        Explains("tls-sni-unrecognized", Scope::Link),
        Explains("http-wrong-vhost", Scope::Link),
        Explains("http-to-tls-port", Scope::Link),
    ],
    sources: &["GitLab Pages, 2021: HAProxy's state file kept the old port"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    if capture.expected.is_empty() {
        return Vec::new();
    }
    let expected: BTreeSet<Endpoint> = capture.expected.iter().copied().collect();
    let hosts: BTreeSet<Address> = expected.iter().map(|end| end.address).collect();
    let known = || capture.flows.values().map(|flow| &flow.digest).chain(capture.digests.iter());
    let used = known().any(|digest| expected.contains(&digest.server()));
    let seen = known().find(|digest| hosts.contains(&digest.server().address)).map(|digest| digest.id);
    let names: Vec<String> = expected.iter().map(ToString::to_string).collect();
    let span = capture.packets.first.map_or(capture.end, |first| first.time);
    let mut told: BTreeSet<crate::event::PacketRef> = BTreeSet::new();
    let wrong = capture.links.iter().filter(|link| link.certainty >= Confidence::Medium);
    wrong
        .filter_map(|link| {
            let backend = capture.flows.get(&link.backend_leg)?;
            let server = backend.facts.server;
            let elsewhere = !expected.contains(&server) && (hosts.contains(&server.address) || !used);
            if !elsewhere || !told.insert(backend.facts.id) {
                return None;
            }
            let at = backend.facts.from_client.first.unwrap_or(backend.facts.id);
            let finding = RULE
                .about(Subject::Legs(link.client_leg, link.backend_leg), at, Some(Side::Client), format!("to {server}"))
                .confidence(link.certainty)
                .with("expected", names.join(", "));
            let absent = format!("0 packets to {} in {}", names.join(", "), capture.end.since(span));
            Some(match seen {
                _ if used => finding.note(format!("other flows do go to {}", names.join(", "))),
                Some(seen) if hosts.contains(&server.address) => finding
                    .cites(seen, Some(seen), "this capture does see that host")
                    .note(format!("{absent}; this capture does see that host")),
                _ => finding.note(format!("{absent}; whether this capture could see that host is unknown")),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, end};
    use crate::rule::view::{Link, LinkMethod};

    fn world(expected: &[&str]) -> World {
        let client = Scene::open().data(Side::Client, 3, 200);
        let backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:1443", 100, 4).handshake();
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::ClientHelloRandom, Confidence::Certain);
        let mut world = World::new().with(&client).with(&backend);
        world.links = vec![link];
        world.expected = expected.iter().map(|text| end(text)).collect();
        world
    }

    #[test]
    fn another_port_of_the_expected_host_is_told_with_what_is_absent() {
        let found = world(&["10.0.0.3:2443"]).check(&RULE);
        assert_eq!(found.len(), 1);
        assert!(found[0].notes[0].starts_with("0 packets to 10.0.0.3:2443 in "), "{:?}", found[0].notes);
    }

    #[test]
    fn the_expected_port_or_no_expectation_says_nothing() {
        assert_eq!(world(&["10.0.0.3:1443"]).check(&RULE), []);
        assert_eq!(world(&[]).check(&RULE), []);
    }

    #[test]
    fn legs_to_other_hosts_pass_while_the_expected_one_is_used() {
        let used = Scene::starting("10.0.0.2:50001", "10.0.0.4:80", 200, 9).handshake();
        assert_eq!(world(&["10.0.0.4:80"]).with(&used).check(&RULE), []);
    }
}
