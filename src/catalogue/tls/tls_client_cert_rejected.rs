//! The server refused the client's certificate.
//!
//! ## How tcpwhy knows
//! TLS 1.2: the client's Certificate message is readable and holds one, and the server answers with a fatal alert about it (42 to 46, 48, 49, 51). TLS
//! 1.3: the client's first sealed record is too long for anything but a certificate, and all that comes back is one record as long as an
//! alert, and the end. For the client the handshake has then succeeded: its request may be under way already, and dies.
//!
//! ## What it is not
//! - `tls-client-cert-required`: there the client sent no certificate.
//! - `tls-cert-rejected`: there it is the client that refuses.
//!
//! ## What people see
//! curl: `(56) … tlsv13 alert unknown ca`, `tlsv1 alert certificate expired`; HAProxy: `SSL client certificate not trusted`; Go: `remote error:
//! tls: bad certificate`.
//!
//! ## False alarms it avoids
//! A ticket or data of the server, a client that leaves first, a late end and a hole in the capture make it silent.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mutual::{self, Offered};
use crate::rule::trust;
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-client-cert-rejected",
    title: "the server refused the client's certificate",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello]).and_any(&[
        Kind::CertificateRequest,
        Kind::CertificateSealed,
        Kind::Certificates,
    ]),
    says: "{server} refuses the client certificate of {client_host}: {alert} ({number})",
    variants: &[
        "{server} refuses the client certificate of {client_host}; TLS 1.3 hides why",
        "{server} refuses the client certificate of {client_host}, which expired on {not_after}: {alert} ({number})",
    ],
    users_see: &[
        "alert unknown ca",
        "alert bad certificate",
        "alert certificate expired",
        "SSL client certificate not trusted",
        "remote error: tls: bad certificate",
        "remote error: tls: unknown certificate authority",
    ],
    do_first: &[
        Step {
            says: "Whose certificates does {server} accept? Compare Acceptable client certificate CA names with the issuer.",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "On {client_host}: who issued the client's certificate, and is it still valid? (Its own file instead of client.pem.)",
            command: "openssl x509 -in client.pem -noout -subject -issuer -dates",
        },
    ],
    verify: &[Step {
        says: "from {client_host}, with its certificate: no alert behind the handshake once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -cert client.pem -key client.key </dev/null",
    }],
    not: &[("network", "the client's certificate arrived and was answered")],
    cannot_show: &["which authorities the server trusts, and in TLS 1.3 the certificate and the reason"],
    explains: &[Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &[
        "RFC 8446 sections 4.4.2 and 6.2",
        "RFC 5246 section 7.2.2",
        "measured on HAProxy 2.6, Apache 2.4, Go 1.19",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = mutual::refused(flow).filter(|refused| refused.offered != Offered::Nothing)?;
    let finding = mutual::tell(&RULE, flow, &refused);
    let Some(alert) = refused.alert else { return Some(finding.variant(1).confidence(Confidence::High)) };
    let finding = finding.with("alert", alert.name()).with("number", u32::from(alert.description));
    Some(match refused.offered {
        Offered::Readable(leaf) if refused.at.time > leaf.not_after => {
            finding.variant(2).with("not_after", trust::moment(leaf.not_after))
        }
        Offered::Readable(leaf) if refused.at.time < leaf.not_before => {
            finding.note(format!("It is not valid before {}.", trust::moment(leaf.not_before)))
        }
        _ => finding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Side, What};
    use crate::rule::mutual::samples;
    use crate::rule::trust::samples::{alert, certificate, works};

    #[test]
    fn an_alert_about_the_certificate_is_certain() {
        for (chain, description, variant) in [(certificate(-9, -1), 45, 2), (certificate(-1, 9), 48, 0)] {
            let found = alert(samples::asked_12(vec![chain]), Side::Server, description).check(&RULE).expect("refused");
            assert_eq!((found.confidence, found.variant), (Confidence::Certain, variant));
        }
    }

    #[test]
    fn tls_13_tells_it_by_lengths() {
        let scene = samples::hangs_up(samples::asked_13(What::CertificateSealed { len: 880 }), 7, true);
        let found = scene.check(&RULE).expect("refused");
        assert_eq!((found.confidence, found.variant), (Confidence::High, 1));
    }

    #[test]
    fn accepted_and_missing_certificates_and_other_alerts_are_silent() {
        assert!(works(samples::asked_13(What::CertificateSealed { len: 880 })).check(&RULE).is_none());
        let ticket = samples::hangs_up(samples::asked_13(What::CertificateSealed { len: 880 }), 7, false);
        assert!(ticket.check(&RULE).is_none());
        assert!(alert(samples::asked_12(Vec::new()), Side::Server, 42).check(&RULE).is_none());
        assert!(alert(samples::asked_12(vec![certificate(-1, 9)]), Side::Server, 80).check(&RULE).is_none());
    }
}
