//! The server's certificate is not valid yet, or the client's clock is wrong.
//!
//! ## How tcpwhy knows
//! The readable certificate's notBefore lies after the packet that carries it, and the client refuses. Or the dates are fine and the client
//! says 45 (its clock is fast), or, as OpenSSL and Java do for a notBefore in the future, 42 (its clock is slow).
//!
//! ## What it is not
//! - `tls-cert-expired`: there the capture's clock agrees with the client.
//! - `tls-cert-untrusted`: the issuer is refused with 48, or 46 (Java), or 42 (Go).
//!
//! ## What people see
//! curl: `certificate is not yet valid`; Go: `x509: certificate has expired or is not yet valid`; Chrome: `NET::ERR_CERT_DATE_INVALID`.
//!
//! ## False alarms it avoids
//! Clients that accept the certificate are silent.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust::{self, Fault, How};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-cert-not-yet-valid",
    title: "the certificate is not valid yet, or a clock is wrong",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello]),
    says: "the certificate of {server} for {name} is not valid before {not_before}, and {client_host} refuses it",
    variants: &["{client_host} objects to the dates of a valid certificate of {server} for {name}: its clock is wrong"],
    users_see: &[
        "certificate is not yet valid",
        "certificate has expired or is not yet valid",
        "NET::ERR_CERT_DATE_INVALID",
    ],
    do_first: &[Step {
        says: "Is the clock right? Ask on {client_host}, and on the host of the capture.",
        command: "chronyc tracking",
    }],
    verify: &[Step {
        says: "prints Verification: OK once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "the certificate arrived and was answered")],
    cannot_show: &["the client's clock"],
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
    let finding = trust::tell(&RULE, flow, &refused);
    match refused.fault {
        Fault::Early(_, one) => Some(
            match refused.how {
                // A balancer's check that looks at no certificate leaves in the same way.
                How::Left => finding.confidence(Confidence::Medium).severity(Severity::Warning),
                _ => finding,
            }
            .with("not_before", trust::moment(one.not_before)),
        ),
        Fault::Clock(leaf) => {
            let fast = matches!(refused.how, How::Alert(alert) if alert.description == 45);
            let sure = if fast { Confidence::High } else { Confidence::Medium };
            let finding = finding.variant(1).culprit(Culprit::Client).confidence(sure);
            Some(finding.with("not_before", trust::moment(leaf.not_before)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::trust::samples;

    #[test]
    fn a_date_in_the_future_and_a_refusal() {
        let early = vec![samples::certificate(2, 80)];
        let scene = samples::alert(samples::tls_12(early), Side::Client, 42);
        assert_eq!(scene.check(&RULE).expect("early").culprit, Culprit::Config);
    }

    #[test]
    fn expired_said_of_a_valid_certificate_is_the_clients_clock() {
        let scene = samples::alert(samples::tls_12(vec![samples::certificate(-1, 80)]), Side::Client, 45);
        assert_eq!(scene.check(&RULE).expect("clock").culprit, Culprit::Client);
    }
}
