//! The client does not trust the issuer of the server's certificate.
//!
//! ## How tcpwhy knows
//! The client's alert 48 says so. Java's 46 and Go's 42 after a readable certificate whose dates and name are fine leave nothing else.
//!
//! ## What it is not
//! - `tls-chain-incomplete`: there other clients accept the same certificate.
//! - `tls-cert-expired`, `tls-cert-not-yet-valid`, `tls-cert-name-mismatch`: there the certificate itself shows the fault.
//!
//! ## What people see
//! curl: `unable to get local issuer certificate`; Java: `PKIX path building failed`; Go: `certificate signed by unknown authority`.
//!
//! ## False alarms it avoids
//! Clients that accept a self-signed certificate are silent, and so are those that finish the handshake and leave without a request (Node
//! refuses so, and a balancer's health check ends so).

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust::{self, Fault, How};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-cert-untrusted",
    title: "the client does not trust the issuer of the certificate",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::any(&[Kind::ServerHello, Kind::AlertPlain]),
    says: "{client_host} does not trust the issuer of the certificate of {server} for {name}",
    users_see: &[
        "unable to get local issuer certificate",
        "self-signed certificate",
        "PKIX path building failed",
        "certificate signed by unknown authority",
        "SSL alert number 48",
    ],
    do_first: &[Step {
        says: "Who issued it, and is the intermediate sent?",
        command: "openssl s_client -connect {server} -servername {name} -showcerts </dev/null",
    }],
    verify: &[Step {
        says: "prints Verification: OK once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "the certificate arrived and was answered")],
    cannot_show: &["what the client trusts"],
    explains: &[
        // A proxy that leaves its backend on other connections too, where the session is resumed and shows no certificate.
        Explains("http-gateway-error", Scope::Peer),
        Explains("tls-cert-rejected", Scope::PeerName),
        Explains("http-gateway-error", Scope::Link),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["RFC 5280", "RFC 8446 section 6.2", "measured on OpenSSL 3.0, Go 1.19, Java 17, Node 20"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = trust::refused(flow)?;
    if refused.fault != Fault::Untrusted {
        return None;
    }
    let finding = trust::tell(&RULE, flow, &refused);
    let finding = match refused.how {
        How::Alert(alert) if alert.description == 48 => finding,
        _ => finding.confidence(Confidence::Medium),
    };
    let own = refused.chain.and_then(|(_, chain)| chain.first()).is_some_and(|leaf| leaf.self_signed);
    Some(if own { finding.note("The certificate is self-signed: its subject is its issuer.") } else { finding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::trust::samples;

    #[test]
    fn alert_48_is_certain_and_the_42_of_go_is_medium() {
        for (description, sure) in [(48, Confidence::Certain), (42, Confidence::Medium), (46, Confidence::Medium)] {
            let scene = samples::alert(samples::tls_12(vec![samples::certificate(-1, 80)]), Side::Client, description);
            assert_eq!(scene.check(&RULE).expect("untrusted").confidence, sure);
        }
    }

    #[test]
    fn an_expired_certificate_is_another_rule() {
        let scene = samples::alert(samples::tls_12(vec![samples::certificate(-9, -1)]), Side::Client, 42);
        assert!(scene.check(&RULE).is_none());
    }
}
