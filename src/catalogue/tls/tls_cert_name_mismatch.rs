//! The server's certificate is for another name, and the client refuses it.
//!
//! ## How tcpwhy knows
//! The name in the ClientHello is none of the readable certificate's names (a wildcard stands for one label), its dates are fine, and the
//! client refuses: 42 or 46, or it finishes the handshake and leaves without a request (curl, Node).
//!
//! ## What it is not
//! - `tls-sni-unrecognized`: there the server refuses.
//! - `tls-cert-untrusted`: there the names fit.
//!
//! ## What people see
//! curl: `no alternative certificate subject name matches target host name`; Go: `certificate is valid for`.
//!
//! ## False alarms it avoids
//! Clients that check no name or another one, and go on, are silent. Who finishes the handshake and leaves without a request may only have
//! looked at the certificate, as monitors do: a warning that does not speak of a refusal.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust::{self, Fault, How};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-cert-name-mismatch",
    title: "the server's certificate is for another name",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello]),
    says: "{server} answers {name} with a certificate for other names, and {client_host} refuses it",
    variants: &[
        "{server} answers {name} with a certificate for other names, and {client_host} leaves without a request",
    ],
    users_see: &[
        "no alternative certificate subject name matches target host name",
        "certificate is valid for",
        "ERR_CERT_COMMON_NAME_INVALID",
    ],
    do_first: &[Step {
        says: "Which names does the certificate hold?",
        command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -ext subjectAltName",
    }],
    verify: &[Step {
        says: "prints Verification: OK once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "the certificate arrived and was answered")],
    cannot_show: &["which name the client really checks"],
    explains: &[
        // A proxy that leaves its backend on other connections too, where the session is resumed and shows no certificate.
        Explains("http-gateway-error", Scope::Peer),
        Explains("tls-cert-rejected", Scope::PeerName),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["RFC 5280", "RFC 8446 section 6.2", "measured on OpenSSL 3.0, Go 1.19, Java 17, Node 20"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = trust::refused(flow)?;
    let Fault::Name(_) = refused.fault else { return None };
    let finding = trust::tell(&RULE, flow, &refused);
    // A balancer's check with another name than the certificate's ends in the same way.
    Some(match refused.how {
        How::Left => finding.confidence(Confidence::Medium).severity(Severity::Warning).variant(1),
        _ => finding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::trust::samples;

    #[test]
    fn another_name_and_a_refusal() {
        let mut leaf = samples::certificate(-1, 80);
        leaf.names = vec!["shop.example.net".into()];
        let refused = samples::alert(samples::tls_12(vec![leaf.clone()]), Side::Client, 42);
        assert!(refused.check(&RULE).is_some());
        assert!(samples::works(samples::tls_12(vec![leaf])).check(&RULE).is_none());
    }
}
