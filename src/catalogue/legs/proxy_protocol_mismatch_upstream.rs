//! Proxy and backend disagree on what is spoken between them: TLS or plain, the HTTP version, a PROXY header.
//!
//! ## How tcpwhy knows
//! The client leg failed, and the linked backend leg has a diagnosis that names the disagreement. This one only says that the user's error and
//! that disagreement are one thing; the backend leg's own diagnosis is the root.
//!
//! ## What it is not
//! - A fault that both legs have by themselves.
//! - `proxy-upstream-connect-failed`: there no connection came to be.
//!
//! ## What people see
//! nginx: 502 `SSL_do_handshake() failed … wrong version number … while SSL handshaking to upstream`; HAProxy: 503 `SC`; Apache: 500 and AH01997;
//! or the backend's own 400 page.
//!
//! ## False alarms it avoids
//! A client leg that was served, and findings on the backend leg of another request.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::{CaptureView, LegsView};
use crate::rule::{Check, Explains, Keep, Rule, Scope, Step};

/// Diagnoses of a backend leg that are such a disagreement.
const CAUSES: [&str; 28] = [
    "tls-to-http-port",
    "http-to-tls-port",
    "h2-preface-failed",
    "tls-cert-expired",
    "tls-cert-not-yet-valid",
    "tls-cert-untrusted",
    "tls-chain-incomplete",
    "tls-cert-name-mismatch",
    "tls-cert-rejected",
    "tls-client-cert-required",
    "tls-client-cert-rejected",
    "tls-sni-unrecognized",
    "tls-sni-missing",
    "tls-version-mismatch",
    "tls-no-shared-cipher",
    "tls-alpn-mismatch",
    "tls-closed-after-clienthello",
    "tls-fatal-alert",
    "proxy-header-to-tls-port",
    "proxy-header-to-http-port",
    "proxy-header-to-other-service",
    "proxy-header-missing",
    "proxy-header-malformed",
    "proxy-header-bad-checksum",
    "proxy-header-fragmented",
    "proxy-header-duplicated",
    "proxy-header-client-unknown",
    "proxy-header-from-untrusted",
];
/// What such a disagreement looks like to the client.
const SYMPTOMS: [&str; 5] = [
    "http-gateway-error",
    "closed-without-answer",
    "closed-before-request",
    "tls-closed-after-clienthello",
    "server-reset-mid-response",
];

pub static RULE: Rule = Rule {
    id: "proxy-protocol-mismatch-upstream",
    title: "proxy and backend disagree on TLS, HTTP version or PROXY header",
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "the client's error at {front} is the disagreement between the proxy {client_host} and its backend {server}",
    users_see: &["while SSL handshaking to upstream", "502 Bad Gateway", "AH01997"],
    do_first: &[Step {
        says: "On the proxy {client_host}: what does {server} speak?",
        command: "openssl s_client -connect {host}:{port} </dev/null",
    }],
    verify: &[Step {
        says: "on the proxy {client_host}: the protocol that works is the one to set:",
        command: "curl -sSk -o /dev/null -m 10 -w '%{response_code}\\n' https://{host}:{port}/",
    }],
    not: &[("network", "both legs carried octets both ways")],
    explains: &[Explains("http-gateway-error", Scope::Link)],
    sources: &["measured: what nginx, HAProxy and Apache answer for each fault of a backend"],
    check: Check::Legs(check),
    ..Rule::BLANK
};

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    let symptom = client.findings.iter().find(|finding| SYMPTOMS.contains(&finding.rule.as_ref()))?;
    let span = |finding: &Finding| (finding.first().time, finding.last().time);
    let cause = backend.findings.iter().find(|finding| {
        CAUSES.contains(&finding.rule.as_ref())
            && finding.severity >= Severity::Warning
            && legs.link.joins(span(symptom), span(finding))
            && stands(finding, legs.capture)
    })?;
    let first = cause.evidence.first()?;
    let told = symptom.evidence.first()?;
    Some(
        RULE.about(Subject::Legs(client.facts.id, backend.facts.id), first.at, first.side, first.shows.clone())
            .cites(told.at, Some(client.facts.id), told.shows.clone())
            .confidence(legs.link.certainty.min(cause.confidence))
            .with("front", client.facts.server)
            .note(format!("the backend leg's own diagnosis: {}", cause.rule)),
    )
}

/// Whether the finding survives its own rule's second look, which is still to come.
fn stands(finding: &Finding, capture: &CaptureView<'_>) -> bool {
    let look = crate::catalogue::rule(&finding.rule).and_then(|rule| rule.corroborate);
    look.is_none_or(|look| look(&mut finding.clone(), capture) == Keep::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::http::http_gateway_error;
    use crate::event::Side;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{Link, LinkMethod};

    fn found(status: u16, cause: &'static str) -> Option<Finding> {
        let mut client = Scene::open().request(3, "GET", "/", 80).response(9, status, 300);
        client.findings = client.check(&http_gateway_error::RULE).into_iter().collect();
        let mut backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake();
        let rule = Rule { id: cause, ..Rule::BLANK };
        backend.findings = vec![rule.found(&backend.view(), backend.facts.last, Side::Server, "it says")];
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::Timing, Confidence::Medium);
        World::new().with(&client).with(&backend).check_legs(&RULE, &link)
    }

    #[test]
    fn an_error_of_the_client_and_a_disagreement_behind_are_joined() {
        let finding = found(502, "tls-to-http-port").expect("joined");
        assert_eq!((finding.confidence, finding.evidence.len()), (Confidence::Medium, 2));
    }

    #[test]
    fn a_served_client_or_another_fault_behind_is_not() {
        assert_eq!(found(200, "tls-to-http-port"), None);
        assert_eq!(found(502, "connect-refused"), None);
    }
}
