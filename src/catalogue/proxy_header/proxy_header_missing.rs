//! The receiver expects a PROXY protocol header, and none came. It hangs up on the client's first octets.
//!
//! ## How tcpwhy knows
//! The client's first octets are no PROXY header, and the server closes within 1 s without an octet: nginx on a plain port with FIN, nginx
//! on a TLS port and HAProxy with RST, Apache with FIN. That alone proves nothing. It is certain when other connections to the same port
//! with a header in front succeed and none without; it is low when only another port of that host is known to want headers, and no
//! finding at all when no PROXY header worked on that host.
//!
//! ## What it is not
//! - `tls-closed-after-clienthello`, `closed-without-answer`: the bare facts, here with their cause.
//! - A server that rejects one name (SNI): there connections without a header succeed with other names.
//! - `proxy-header-to-tls-port`: the same disagreement the other way round. A rollback turns one into the other when a
//!   server-state-file keeps the new port.
//!
//! ## What people see
//! `SSL_ERROR_SYSCALL`, `Empty reply from server`, `Connection reset by peer`. nginx logs `broken header: "…" while reading PROXY protocol`;
//! HAProxy logs `Received something which does not look like a PROXY protocol header`; Apache logs nothing at its usual level.
//!
//! ## False alarms it avoids
//! A port that also works without a header is silent: it wants none. So are a client that closes first, a close later than 1 s, and a
//! connection that began before the capture.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::summary::Verdict;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "proxy-header-missing",
    title: "the receiver expects a PROXY protocol header and none came",
    severity: Severity::Critical,
    confidence: Confidence::Low,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Recognised]).and_any(&[Kind::Fin, Kind::Reset]),
    says: "{client_host} connects without the PROXY header that {server} expects",
    variants: &["{client_host} no longer sends the PROXY header that {server} expects"],
    users_see: &[
        "while reading PROXY protocol",
        "broken header:",
        "Received something which does not look like a PROXY protocol header",
        "SSL_ERROR_SYSCALL",
        "curl: (52) Empty reply from server",
        "AH01998",
    ],
    do_first: &[
        Step {
            says: "Does {client_host} send the header? In HAProxy the server line must say send-proxy-v2.",
            command: "grep -nE 'send-proxy|:{port}' /etc/haproxy/haproxy.cfg",
        },
        Step {
            says: "After a rollback: does a server-state-file keep the new port {port}?",
            command: "echo \"show servers state\" | socat stdio /run/haproxy/admin.sock",
        },
        Step {
            says: "Who else comes without a header? Direct users and health checks need a port of their own.",
            command: "ss -tn state established 'sport = :{port}'",
        },
    ],
    fix: &[
        Fix {
            says: "Switch the header on at the sender: HAProxy send-proxy-v2, AWS NLB proxy_protocol_v2.enabled=true.",
            command: "systemctl reload haproxy",
            risk: "every other port that the same line serves gets the header too",
        },
        Fix {
            says: "Give clients that come directly a port without PROXY: the specification forbids to guess on one port. In Kubernetes, pods that use the balancer's address are short-cut past it.",
            command: "",
            risk: "on the new port the client's address is the connection's",
        },
    ],
    verify: &[
        Step {
            says: "works with the header:",
            command: "curl -sv -m 5 --haproxy-protocol --connect-to ::{server} {scheme}://{name}/",
        },
        Step { says: "fails without it:", command: "curl -sv -m 5 --connect-to ::{server} {scheme}://{name}/" },
    ],
    cannot_show: &["the receiver's configuration"],
    explains: &[
        Explains("tls-closed-after-clienthello", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("server-reset-mid-response", Scope::SameOrLink),
        Explains("proxy-upstream-closed", Scope::SameOrLink),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 2: the receiver must not guess",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let header = [Kind::ProxyHeader, Kind::ProxyBroken, Kind::ProxyIncomplete];
    // Who answers has not closed without a word.
    if flow.answer().is_some() || header.iter().any(|kind| flow.saw(*kind)) {
        return None;
    }
    // Octets that the snaplen cut off may have been a header.
    flow.first(Kind::Recognised, Side::Client)?;
    let refusal @ Refusal::Closed(close, _) = mismatch::refusal(flow)? else { return None };
    let first = flow.client().first_payload?;
    let hello = flow.client_hello();
    let request = flow.exchange().map(|exchange| exchange.head);
    let (what, scheme) = match (hello, request) {
        (Some(_), _) => ("ClientHello", "https"),
        (None, Some(_)) => ("request", "http"),
        (None, None) => ("octets", "http"),
    };
    let finding = RULE
        .found(flow, first, Side::Client, format!("{what} first, no PROXY header"))
        .and(close, Side::Server, refusal.shows(flow))
        .with("scheme", scheme);
    let finding = mismatch::rules_out_path(finding, flow);
    let name = hello.and_then(|(_, hello)| hello.sni.clone()).or_else(|| request?.host.clone());
    Some(match name {
        Some(name) => finding.with("name", crate::rule::value::Value::Packet(name.into())),
        None => finding.with("name", flow.facts.server.address),
    })
}

/// Connections to the same port that succeed with a header, and none without, prove it; another port of the host only suggests it.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Drop };
    let server = flow.facts.server;
    let wants_none = capture.service(&server).is_some_and(|service| !service.plain.is_empty());
    if wants_none {
        return Keep::Drop;
    }
    if let Some(spoke) = mismatch::behind_header(capture, &server) {
        finding.confidence = Confidence::Certain;
        mismatch::cite_control(finding, &spoke, "the same port behind a PROXY header");
        let client = flow.facts.client.address;
        // Only the latest flows: this runs once for every finding.
        let sent_before = capture.latest_before(flow.facts.id, 1_000).any(|other| {
            let same = other.server() == server && other.client().address == client;
            same && other.behind_proxy() && other.verdict == Verdict::Healthy
        });
        if sent_before {
            finding.variant = 1;
        }
        return Keep::Yes;
    }
    let mut ports = capture.good_ports(server.address, server.port);
    let Some((end, spoke)) = ports.find_map(|(end, service)| Some((*end, *service.accepts_proxy()?))) else {
        return Keep::Drop;
    };
    finding.confidence = Confidence::Low;
    finding.evidence.push(Evidence {
        at: spoke.answer,
        flow: Some(spoke.first),
        side: Some(Side::Server),
        shows: format!("port {} of the same host works behind a PROXY header", end.port),
    });
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Protocol, ResetKind, What};
    use crate::rule::testing::{Scene, World, proxy_header};
    use crate::wire::tls::ClientHello;

    fn hello(number: u64, client: &str, server: &str) -> Scene {
        let hello = ClientHello { sni: Some("www.example.com".into()), ..ClientHello::default() };
        Scene::starting(client, server, number, number as i64)
            .handshake()
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    fn behind_header(number: u64, client: &str, server: &str) -> Scene {
        let header = proxy_header(2, "35.229.69.78:443", 28);
        hello(number, client, server)
            .also(Side::Client, What::ProxyHeader(Box::new(header)))
            .data(Side::Server, 4, 900)
            .speaks(Side::Server, Protocol::Tls)
    }

    #[test]
    fn siblings_that_succeed_with_the_header_make_it_certain() {
        let scene = hello(100, "10.0.0.9:4000", "10.0.0.2:8443").rst(Side::Server, 4, ResetKind::Abort, 517);
        let world = World::new().with(&scene).with_good(&behind_header(1, "10.0.0.1:4000", "10.0.0.2:8443"));
        let found = world.corroborated(&RULE, scene.check(&RULE).expect("a candidate")).expect("kept");
        assert_eq!((found.confidence, found.variant), (Confidence::Certain, 0));
        assert!(found.evidence[2].shows.starts_with("control: the same port behind a PROXY header"));
    }

    #[test]
    fn octets_that_nobody_could_read_are_no_missing_header() {
        let scene = Scene::open().data(Side::Client, 3, 517).fin(Side::Server, 4);
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_sender_that_had_sent_it_before_is_told_so() {
        let scene = hello(100, "10.0.0.1:4001", "10.0.0.2:8443").rst(Side::Server, 4, ResetKind::Abort, 517);
        let world = World::new().with(&scene).with_good(&behind_header(1, "10.0.0.1:4000", "10.0.0.2:8443"));
        let found = world.corroborated(&RULE, scene.check(&RULE).expect("a candidate")).expect("kept");
        assert_eq!(found.variant, 1);
    }

    #[test]
    fn another_port_of_the_host_only_suggests_it() {
        let scene = hello(100, "10.0.0.9:4000", "10.0.0.2:9444").fin(Side::Server, 4);
        let world = World::new().with(&scene).with_good(&behind_header(1, "10.0.0.1:4000", "10.0.0.2:8443"));
        let found = world.corroborated(&RULE, scene.check(&RULE).expect("a candidate")).expect("kept");
        assert_eq!(found.confidence, Confidence::Low);
    }

    #[test]
    fn without_any_header_that_worked_it_is_no_finding() {
        let scene = hello(100, "10.0.0.9:4000", "10.0.0.2:8443").fin(Side::Server, 4);
        assert!(World::new().with(&scene).corroborated(&RULE, scene.check(&RULE).expect("a candidate")).is_none());
    }

    #[test]
    fn a_port_that_also_works_without_a_header_wants_none() {
        let scene = hello(100, "10.0.0.9:4000", "10.0.0.2:8443").fin(Side::Server, 4);
        let plain =
            hello(50, "10.0.0.8:4000", "10.0.0.2:8443").data(Side::Server, 4, 900).speaks(Side::Server, Protocol::Tls);
        let world =
            World::new().with(&scene).with_good(&behind_header(1, "10.0.0.1:4000", "10.0.0.2:8443")).with_good(&plain);
        assert!(world.corroborated(&RULE, scene.check(&RULE).expect("a candidate")).is_none());
    }
}
