//! The server's certificate has expired, and clients refuse it.
//!
//! ## How tcpwhy knows
//! TLS 1.2: the certificate is readable and the packet that carries it is younger than its notAfter (the leaf, or an intermediate sent with
//! it), and the client refuses: by alert (OpenSSL and Java 45, Go 42), or by leaving without a request (Node): then it is a warning, for a
//! balancer's check leaves so too. TLS 1.3: OpenSSL says 45 in the
//! clear; the certificate is sealed, so a client whose clock is fast cannot be ruled out.
//!
//! ## What it is not
//! - `tls-cert-not-yet-valid`: there the dates are fine, or the client's clock is wrong.
//! - `tls-cert-untrusted`: there the client objects to the issuer.
//!
//! ## What people see
//! curl: `certificate has expired`; Go: `x509: certificate has expired or is not yet valid`; Java: `validity check failed`; Chrome:
//! `NET::ERR_CERT_DATE_INVALID`; nginx: `SSL alert number 45`.
//!
//! ## False alarms it avoids
//! Dates are compared with the capture's clock, never with today. Clients that accept the certificate are no failure.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust::{self, Fault, How};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-cert-expired",
    title: "the server's certificate has expired",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::any(&[Kind::ServerHello, Kind::AlertPlain]),
    says: "the certificate of {server} for {name} expired on {not_after}, and {client_host} refuses it",
    variants: &[
        "{client_host} refuses the certificate of {server} for {name}: it says expired",
        "the certificate of {server} for {name} expired on {not_after}, and {client_host} leaves without a request",
    ],
    users_see: &[
        "certificate has expired",
        "x509: certificate has expired or is not yet valid",
        "validity check failed",
        "NET::ERR_CERT_DATE_INVALID",
        "SSL alert number 45",
    ],
    do_first: &[
        Step {
            says: "Which certificate does {server} send now, and until when?",
            command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -serial -dates",
        },
        Step {
            says: "Was it renewed on disk and never reloaded? Then a newer serial stands here.",
            command: "certbot certificates",
        },
    ],
    verify: &[Step {
        says: "prints a notAfter in the future once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null | openssl x509 -noout -serial -dates",
    }],
    not: &[("network", "the certificate arrived and was answered")],
    cannot_show: &["in TLS 1.3 the certificate itself: only the client's word"],
    explains: &[
        // A proxy that leaves its backend on other connections too, where the session is resumed and shows no certificate.
        Explains("http-gateway-error", Scope::Peer),
        Explains("tls-cert-rejected", Scope::PeerName),
        Explains("tls-cert-expiring-soon", Scope::PeerName),
        Explains("http-gateway-error", Scope::Link),
        Explains("closed-without-answer", Scope::Link),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "RFC 5280 section 4.1.2.5",
        "RFC 8446 section 6.2",
        "measured on OpenSSL 3.0, Go 1.19, Java 17, Node 20",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = trust::refused(flow)?;
    let finding = trust::tell(&RULE, flow, &refused);
    // A balancer's check that looks at no certificate leaves in the same way.
    let finding = match refused.how {
        How::Left => finding.confidence(Confidence::Medium).severity(Severity::Warning).variant(2),
        _ => finding,
    };
    match refused.fault {
        Fault::Expired(0, leaf) => Some(finding.with("not_after", trust::moment(leaf.not_after))),
        Fault::Expired(_, sent) => {
            let note =
                format!("It is not the server's own certificate that expired but one sent with it: {}.", sent.subject);
            Some(finding.with("not_after", trust::moment(sent.not_after)).note(note))
        }
        // A client whose clock is fast says the same of a good certificate (measured on OpenSSL).
        Fault::SaidExpired => Some(finding.variant(1).confidence(Confidence::High)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::testing::Scene;
    use crate::rule::trust::samples;

    #[test]
    fn a_readable_date_in_the_past_and_any_alert_about_it() {
        for description in [42, 45, 46] {
            let scene = samples::alert(samples::tls_12(vec![samples::certificate(-90, -1)]), Side::Client, description);
            assert_eq!(scene.check(&RULE).expect("expired").confidence, Confidence::Certain);
        }
    }

    #[test]
    fn the_clients_word_alone_is_less() {
        let scene = samples::alert(samples::tls_13(Scene::open()), Side::Client, 45);
        assert_eq!(scene.check(&RULE).expect("expired").confidence, Confidence::High);
    }

    #[test]
    fn a_valid_certificate_and_clients_that_accept_are_silent() {
        let valid = samples::certificate(-1, 80);
        assert!(samples::alert(samples::tls_12(vec![valid.clone()]), Side::Client, 45).check(&RULE).is_none());
        assert!(samples::works(samples::tls_12(vec![valid])).check(&RULE).is_none());
    }
}
