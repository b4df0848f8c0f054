//! The PROXY header hides the client or names another one. Logs, access lists and rate limits of the receiver are then wrong.
//!
//! ## How tcpwhy knows
//! A whole header says `UNKNOWN` (version 1), `LOCAL` or the unspecified family (version 2), and real requests follow it. Or the header names
//! as client the proxy itself, or a private address behind a public one, while the client's own leg is in the capture and shows another
//! client.
//!
//! ## What it is not
//! - A health check: `LOCAL` is right there; such a connection carries no request of a user.
//! - `proxy-header-malformed`: these headers are valid.
//!
//! ## What people see
//! The proxy's address in the access log instead of the client's; users share one rate limit or are let past an access list. Apache closes
//! the connection on `UNKNOWN` and on the unspecified family: `Empty reply from server`.
//!
//! ## False alarms it avoids
//! `LOCAL` followed by a close, by a TLS handshake alone, or by the request of a checker is silent. UNIX sockets have no addresses.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, header};
use crate::wire::http::RequestHead;
use crate::wire::proxy::{Command, Family, ProxyHeader};

pub static RULE: Rule = Rule {
    id: "proxy-header-client-unknown",
    title: "the PROXY header hides or contradicts the client",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader]),
    says: "the PROXY header from {client_host} to {server} does not say who the client is",
    variants: &["the PROXY header from {client_host} to {server} names another client than the one seen"],
    users_see: &["PROXY UNKNOWN", "curl: (52) Empty reply from server"],
    do_first: &[
        Step {
            says: "Which hop in front of {client_host} loses the client? A PROXY header that comes in must be read there.",
            command: "grep -nE 'bind |accept-proxy|send-proxy' /etc/haproxy/haproxy.cfg",
        },
        Step {
            says: "What does the receiver log as the client of these connections?",
            command: "tail -n 5 /var/log/nginx/access.log",
        },
    ],
    fix: &[Fix {
        says: "Let the hop read the header it receives (HAProxy: accept-proxy on the bind line), so that it can pass the client on.",
        command: "systemctl reload haproxy",
        risk: "with accept-proxy, connections to that hop without a header fail",
    }],
    verify: &[Step {
        says: "a header that names a client is logged with that client's address:",
        command: "curl -sv -m 5 --haproxy-protocol http://{server}/",
    }],
    cannot_show: &["who the client was, when only this leg is in the capture"],
    explains: &[
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) sections 2.1 and 2.2",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    if header::has_a_fault_of_its_own(flow) || proxy.family == Family::Unix {
        return None;
    }
    let found = header::fill(RULE.found(flow, at, Side::Client, header::shows(proxy)), proxy);
    if names_client(proxy) {
        return suspicious(flow, proxy)
            .then(|| found.severity(Severity::Silent).confidence(Confidence::High).variant(1));
    }
    let (request, what) = real_request(flow, proxy)?;
    let found = found.and(request, Side::Client, what);
    match mismatch::refusal(flow) {
        // Apache hangs up on UNKNOWN and UNSPEC, and nobody hangs up on LOCAL for what it says.
        Some(refusal @ Refusal::Closed(close, _)) if proxy.command == Command::Proxy => {
            Some(found.and(close, Side::Server, refusal.shows(flow)).severity(Severity::Warning))
        }
        _ => {
            Some(found.and(header::accepted(flow)?, Side::Server, "the receiver answers, with the proxy as its client"))
        }
    }
}

fn names_client(proxy: &ProxyHeader) -> bool {
    proxy.command == Command::Proxy && proxy.source.is_some()
}

/// The header may contradict the client's leg: it names the sender itself, or a private client of a public address.
fn suspicious(flow: &FlowView<'_>, proxy: &ProxyHeader) -> bool {
    let Some(source) = proxy.source else { return false };
    let public_service = proxy.destination.is_some_and(|destination| header::is_public(destination.address));
    source.address == flow.facts.client.address || (public_service && !header::is_public(source.address))
}

/// What follows the header and is no check.
fn real_request(flow: &FlowView<'_>, proxy: &ProxyHeader) -> Option<(PacketRef, &'static str)> {
    let request = flow.story.events().find_map(|e| match &e.what {
        What::Request(head) => Some((e.at, head.as_ref())),
        _ => None,
    });
    match request {
        Some((_, head)) if proxy.command == Command::Local && is_check(head) => None,
        Some((at, _)) => Some((at, "a request behind the header")),
        // A check may open TLS behind LOCAL; what it asks inside cannot be seen.
        None if proxy.command == Command::Local => None,
        None => mismatch::spoken_by_client(flow).map(|(at, _)| (at, "octets of a client behind the header")),
    }
}

/// Checkers name themselves, or name nothing: HAProxy's own request has neither Host nor User-Agent.
fn is_check(head: &RequestHead) -> bool {
    match head.user_agent.as_deref() {
        Some(agent) => ["ELB-HealthChecker", "kube-probe", "GoogleHC"].iter().any(|name| agent.starts_with(name)),
        None => head.method == "OPTIONS" || head.minor == 0,
    }
}

/// A contradiction needs the client's own leg: its first hop shows who the client is.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if finding.variant == 0 {
        return Keep::Yes;
    }
    let Some(flow) = capture.flow_of(finding) else { return Keep::Drop };
    let named = flow.story.events().find_map(|e| match &e.what {
        What::ProxyHeader(header) => header.source,
        _ => None,
    });
    let leg = capture
        .links_of(flow.facts.id)
        .filter(|link| link.backend_leg == flow.facts.id)
        .filter_map(|link| capture.digest_of(link.client_leg))
        .find(|leg| !leg.behind_proxy() && named.is_some_and(|named| named.address != leg.client().address));
    let Some(leg) = leg else { return Keep::Drop };
    finding.severity = Severity::Warning;
    finding.evidence.push(Evidence {
        at: leg.id,
        flow: Some(leg.id),
        side: Some(Side::Client),
        shows: format!("client leg: the client is {}", leg.client()),
    });
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, end};
    use crate::rule::view::{Link, LinkMethod};

    fn header(command: Command, family: Family, source: Option<&str>) -> What {
        What::ProxyHeader(Box::new(ProxyHeader {
            version: 2,
            command,
            family,
            source: source.map(end),
            destination: source.map(|_| end("35.229.69.78:443")),
            tlvs: Vec::new(),
            checksum_fits: None,
            len: 28,
        }))
    }

    fn scene(command: Command, source: Option<&str>) -> Scene {
        let family = if source.is_some() { Family::Tcp4 } else { Family::Unspecified };
        Scene::starting("10.0.0.1:40000", "10.0.0.2:8080", 10, 5)
            .handshake()
            .data(Side::Client, 3, 28)
            .also(Side::Client, header(command, family, source))
    }

    #[test]
    fn an_unnamed_client_with_a_request_is_a_notice() {
        let found = scene(Command::Proxy, None).request(4, "GET", "/", 60).response(5, 200, 90).check(&RULE);
        assert_eq!(found.expect("client not named").severity, Severity::Notice);
    }

    #[test]
    fn a_receiver_that_hangs_up_on_it_makes_it_a_warning() {
        let found = scene(Command::Proxy, None).request(4, "GET", "/", 60).fin(Side::Server, 5).check(&RULE);
        assert_eq!(found.expect("client not named").severity, Severity::Warning);
    }

    #[test]
    fn local_checks_are_silent() {
        let l4 = scene(Command::Local, None).fin(Side::Client, 4).fin(Side::Server, 5);
        assert!(l4.check(&RULE).is_none());
        let l7 = scene(Command::Local, None).request(4, "OPTIONS", "/", 20).response(5, 200, 90);
        assert!(l7.check(&RULE).is_none());
    }

    #[test]
    fn a_header_that_names_the_proxy_itself_needs_the_clients_leg() {
        let backend = scene(Command::Proxy, Some("10.0.0.1:5555")).request(4, "GET", "/", 60).response(5, 200, 90);
        let found = backend.check(&RULE).expect("names the sender");
        assert_eq!(found.severity, Severity::Silent);
        let world = World::new().with(&backend);
        assert!(world.corroborated(&RULE, found.clone()).is_none());
        let client = Scene::between("203.0.113.7:53002", "35.229.69.78:443").handshake();
        let mut world = World::new().with(&backend).with_good(&client);
        world.links.push(Link {
            client_leg: client.facts.id,
            backend_leg: backend.facts.id,
            methods: vec![LinkMethod::ClientHelloRandom],
            certainty: Confidence::Certain,
            exchanges: Vec::new(),
        });
        let found = world.corroborated(&RULE, found).expect("contradicted by the client's leg");
        assert_eq!(found.severity, Severity::Warning);
    }

    #[test]
    fn a_header_that_names_a_client_is_silent() {
        let scene = scene(Command::Proxy, Some("203.0.113.7:53002")).request(4, "GET", "/", 60).response(5, 200, 90);
        assert!(scene.check(&RULE).is_none());
    }
}
