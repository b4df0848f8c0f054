//! A host on the internet sends PROXY headers itself, and the server believes them. It can name any client it likes.
//!
//! ## How tcpwhy knows
//! A connection from a public address begins with a PROXY header and the server answers it as usual, while the port's headers otherwise
//! come from other hosts: the proxies. Nothing in the capture shows the sender as a proxy; it always names one and the same client.
//!
//! ## What it is not
//! - A proxy with a public address: it names many clients.
//! - Front ends and health checkers of cloud balancers with known public ranges.
//!
//! ## What people see
//! Requests in the access log from addresses that never sent them, often private ones; access lists and rate limits passed by.
//!
//! ## False alarms it avoids
//! A header that the server refuses is silent: it does no harm. A sender that is the only one on that port is silent: it is the proxy.

use std::collections::BTreeSet;

use crate::event::{Kind, Side, What};
use crate::host::known;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, header};
use crate::time::Timestamp;
use crate::wire::Address;
use crate::wire::proxy::Command;

pub static RULE: Rule = Rule {
    id: "proxy-header-from-untrusted",
    title: "a host on the internet sends PROXY headers that the server believes",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader]),
    says: "{client_host} is none of the proxies and sends PROXY headers that {server} believes",
    do_first: &[
        Step {
            says: "Whose address is {client_host}? If it is a proxy of yours, this is no fault.",
            command: "whois {client_host}",
        },
        Step {
            says: "From whom does the receiver accept headers? nginx:",
            command: "grep -rnE 'proxy_protocol|set_real_ip_from' /etc/nginx",
        },
    ],
    fix: &[Fix {
        says: "Accept headers from the proxies only: nginx set_real_ip_from, HAProxy `tcp-request connection expect-proxy layer4 if { src PROXIES }`, Traefik proxyProtocol.trustedIPs; and let the firewall close port {port} to everybody else.",
        command: "",
        risk: "a proxy that is left out of the list is cut off",
    }],
    verify: &[Step {
        says: "from outside; it must fail once only the proxies are trusted:",
        command: "curl -sv -m 5 --haproxy-protocol http://{server}/",
    }],
    cannot_show: &["whether the receiver used the address in the header for access rules"],
    explains: &[
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["proxy-protocol.txt (HAProxy, 2020/03/05) section 5"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Silent until the whole capture shows who the proxies are: a public proxy's connections are healthy.
fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    let sender = flow.facts.client.address;
    if !header::is_public(sender) || known::is_balancer(sender) {
        return None;
    }
    if proxy.command == Command::Local || header::has_a_fault_of_its_own(flow) {
        return None;
    }
    let answer = header::accepted(flow)?;
    let found = RULE
        .found(flow, at, Side::Client, header::shows(proxy))
        .and(answer, Side::Server, "the server answers: it believed the header")
        .severity(Severity::Silent);
    Some(header::fill(found, proxy))
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Drop };
    let (sender, server) = (flow.facts.client.address, flow.facts.server);
    let a_proxy = capture
        .began_to(&server, Timestamp::MIN, Timestamp::MAX)
        .filter(|other| other.behind_proxy() && other.answered)
        .find(|other| other.client().address != sender);
    let Some(a_proxy) = a_proxy else { return Keep::Drop };
    let named: BTreeSet<Address> = capture
        .flows_to(&server)
        .filter(|other| other.facts.client.address == sender)
        .filter_map(named_client)
        .collect();
    let is_host_asked = capture.services.of_host(sender).next().is_some();
    if named.len() > 1 || is_host_asked {
        return Keep::Drop;
    }
    finding.severity = Severity::Warning;
    let shows = format!("for comparison: a proxy, {}, sends headers to the same port", a_proxy.client().address);
    finding.evidence.push(crate::rule::finding::Evidence {
        at: a_proxy.id,
        flow: Some(a_proxy.id),
        side: Some(Side::Client),
        shows,
    });
    Keep::Yes
}

fn named_client(flow: &FlowSummary) -> Option<Address> {
    flow.story.events().find_map(|e| match &e.what {
        What::ProxyHeader(header) => header.source.map(|source| source.address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, end};
    use crate::wire::proxy::{Family, ProxyHeader};

    fn scene(number: u64, sender: &str, named: &str) -> Scene {
        let header = ProxyHeader {
            version: 1,
            command: Command::Proxy,
            family: Family::Tcp4,
            source: Some(end(named)),
            destination: Some(end("35.229.69.78:80")),
            tlvs: Vec::new(),
            checksum_fits: None,
            len: 43,
        };
        Scene::starting(sender, "10.224.26.2:8080", number, number as i64)
            .handshake()
            .data(Side::Client, 3, 43)
            .also(Side::Client, What::ProxyHeader(Box::new(header)))
            .request(4, "GET", "/", 60)
            .response(5, 200, 90)
    }

    #[test]
    fn a_stranger_beside_the_proxies_is_a_warning() {
        let spoofed = scene(20, "198.51.100.23:41393", "10.0.0.1:40000");
        let world = World::new().with_good(&scene(1, "10.224.26.1:44518", "203.0.113.7:56420")).with(&spoofed);
        let found = world.corroborated(&RULE, spoofed.check(&RULE).expect("public sender")).expect("kept");
        assert_eq!(found.severity, Severity::Warning);
    }

    #[test]
    fn the_only_sender_of_headers_is_the_proxy() {
        let only = scene(20, "198.51.100.23:41393", "203.0.113.7:40000");
        let found = only.check(&RULE).expect("public sender");
        assert_eq!(found.severity, Severity::Silent);
        assert!(World::new().with(&only).corroborated(&RULE, found).is_none());
    }

    #[test]
    fn a_public_host_that_names_many_clients_is_a_proxy() {
        let (one, two) =
            (scene(20, "198.51.100.23:41393", "203.0.113.7:1"), scene(40, "198.51.100.23:41394", "203.0.113.8:1"));
        let world = World::new().with_good(&scene(1, "10.224.26.1:44518", "203.0.113.9:2")).with(&one).with(&two);
        assert!(world.corroborated(&RULE, one.check(&RULE).expect("public sender")).is_none());
    }

    #[test]
    fn a_private_sender_is_silent() {
        assert!(scene(1, "10.224.26.1:44518", "203.0.113.7:56420").check(&RULE).is_none());
    }
}
