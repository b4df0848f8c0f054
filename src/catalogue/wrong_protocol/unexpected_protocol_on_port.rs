//! Client and server speak different protocols: the connection works, the conversation cannot.
//!
//! ## How tcpwhy knows
//! The first octets of both sides are recognised, and they belong to protocols that do not go together: SSH answered by HTTP, HTTP answered by
//! Redis, TLS answered by an SSH banner. Both are octets: it is certain.
//!
//! ## What it is not
//! - `tls-to-http-port`, `http-to-tls-port` and the rules about PROXY headers: they know more.
//! - `h2-preface-failed`: HTTP/2 that meets a server of HTTP/1.
//! - STARTTLS and its like: both sides begin in the service's own protocol. A client that begins with TLS there: `starttls-needed`.
//!
//! ## What people see
//! The other protocol's complaint: `400 Bad Request`, `Invalid SSH identification string.`, `-ERR unknown command`, `Received HTTP/0.9 when not
//! allowed`.
//!
//! ## False alarms it avoids
//! Ports on the internet are probed by strangers in every protocol: a public address that fails a few times, on a port that serves others in
//! its own protocol, is a notice.

use crate::event::{Kind, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, header};

/// A stranger that probes a port comes a few times.
const PROBES: u64 = 3;

pub static RULE: Rule = Rule {
    id: "unexpected-protocol-on-port",
    title: "client and server speak different protocols",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Recognised]),
    says: "{client_host} speaks {spoken}, but {server} speaks {service}",
    users_see: &[
        "400 Bad Request",
        "Invalid SSH identification string.",
        "kex_exchange_identification",
        "-ERR unknown command",
        "curl: (1) Received HTTP/0.9 when not allowed",
        "wrong version number",
    ],
    do_first: &[
        Step { says: "Which service should listen on port {port} of {host}?", command: "ss -ltnp 'sport = :{port}'" },
        Step {
            says: "Does a port mapping lead there? In Kubernetes, compare port and targetPort:",
            command: "kubectl get services --all-namespaces",
        },
    ],
    verify: &[Step {
        says: "prints the greeting of what listens, if it greets first:",
        command: "nc -w 3 {host} {port} </dev/null",
    }],
    not: &[("network", "both sides were heard")],
    cannot_show: &["which of the two ends is configured as meant"],
    explains: &[
        Explains("http-bad-request", Scope::Same),
        Explains("http-invalid-response", Scope::Same),
        Explains("closed-without-answer", Scope::Same),
    ],
    sources: &["measured on OpenSSH 9.2, Redis 7.0, nginx 1.22, Apache 2.4, vsftpd 3.0, Dovecot 2.3, RabbitMQ 3.10"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.saw(Kind::ProxyHeader) || flow.saw(Kind::ProxyBroken) || flow.facts.mid_stream {
        return None;
    }
    let (asked, spoken) = mismatch::spoken_by_client(flow)?;
    if flow.protocol(Side::Server).is_none_or(|service| service == spoken) {
        return None;
    }
    let (answered, service, shows) = match mismatch::refusal(flow)? {
        refusal @ Refusal::Words(at, service, _) => (at, service, refusal.shows(flow)),
        refusal @ Refusal::Http(at, _) => (at, Protocol::Http, refusal.shows(flow)),
        Refusal::Alert(..) | Refusal::Closed(..) => return None,
    };
    if !clash(spoken, service) {
        return None;
    }
    Some(
        RULE.found(flow, asked, Side::Client, format!("the client speaks {}", spoken.name()))
            .and(answered, Side::Server, shows)
            .with("spoken", spoken.name())
            .with("service", service.name()),
    )
}

/// Two protocols that do not go together and have no rule of their own.
fn clash(client: Protocol, server: Protocol) -> bool {
    let known = |protocol| mismatch::is_service(protocol) || matches!(protocol, Protocol::Http | Protocol::Tls);
    known(client) && known(server) && client != server && (client, server) != (Protocol::Tls, Protocol::Http)
}

/// A stranger on a port that works for others is no outage.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let client = flow.facts.client.address;
    let Some(service) = capture.service(&flow.facts.server) else { return Keep::Yes };
    let came = service.clients.get(&client).copied().unwrap_or(PROBES + 1);
    if service.good > 0 && came <= PROBES && header::is_public(client) {
        finding.severity = Severity::Notice;
        finding
            .notes
            .push("the port serves others in its own protocol: a stranger that probes ports, or a mistyped one".into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn scene(client: &str, spoken: Protocol, service: Protocol) -> Scene {
        Scene::starting(client, "10.0.0.2:22", 40, 50)
            .handshake()
            .data(Side::Client, 3, 80)
            .speaks(Side::Client, spoken)
            .data(Side::Server, 8, 41)
            .speaks(Side::Server, service)
    }

    #[test]
    fn both_protocols_are_named() {
        let found = scene("10.0.0.1:40000", Protocol::Http, Protocol::Ssh).check(&RULE).expect("HTTP meets SSH");
        assert_eq!(found.evidence.len(), 2);
        assert!(scene("10.0.0.1:40000", Protocol::Ssh, Protocol::Http).check(&RULE).is_some());
    }

    #[test]
    fn the_same_protocol_and_pairs_with_a_rule_of_their_own_are_silent() {
        for (client, server) in [
            (Protocol::Ssh, Protocol::Ssh),
            (Protocol::Tls, Protocol::Http),
            (Protocol::Http2, Protocol::Http),
            (Protocol::Unknown, Protocol::Ssh),
            (Protocol::Http, Protocol::Unknown),
        ] {
            assert!(scene("10.0.0.1:40000", client, server).check(&RULE).is_none(), "{client:?} {server:?}");
        }
    }

    #[test]
    fn a_stranger_on_a_port_that_works_is_a_notice() {
        let probe = scene("198.51.100.9:40000", Protocol::Http, Protocol::Ssh);
        let good = Scene::between("10.0.0.9:40000", "10.0.0.2:22")
            .handshake()
            .data(Side::Client, 3, 41)
            .speaks(Side::Client, Protocol::Ssh)
            .data(Side::Server, 4, 41)
            .speaks(Side::Server, Protocol::Ssh);
        let found = probe.check(&RULE).expect("HTTP meets SSH");
        let alone = World::new().with(&probe).corroborated(&RULE, found.clone()).expect("kept");
        assert_eq!(alone.severity, Severity::Critical);
        let beside = World::new().with(&probe).with_good(&good).corroborated(&RULE, found).expect("kept");
        assert_eq!(beside.severity, Severity::Notice);
    }
}
