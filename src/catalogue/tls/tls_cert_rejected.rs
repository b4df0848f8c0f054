//! The client refused the server's certificate in TLS 1.3; the reason is sealed.
//!
//! ## How tcpwhy knows
//! Where the client's Finished (53, 69 or 85 octets) belongs, the server's flight is answered by one sealed record as long as an alert (19;
//! Java 35) and the end (Go, Java), or by a bare FIN (Node). OpenSSL refuses in the clear: 42 and 46 are told here when the certificate is
//! sealed, 45 and 48 have rules of their own. Refusals of the same name at the same server whose reason is readable lend it to the others.
//!
//! ## What it is not
//! - `tls-cert-expired`, `tls-cert-untrusted`: there the reason is readable.
//! - `tls-client-cert-required`: there the client's Finished comes first, and the server closes.
//! - `client-abandoned`: there the client waits longer before it leaves.
//!
//! ## What people see
//! The reason stands at the client only: `curl: (60)`, a browser's page, `x509:`, `PKIX path`. nginx: `peer closed connection in SSL handshake`.
//!
//! ## False alarms it avoids
//! A Finished, data, a late FIN, a reset and the end of the capture make it silent. A bare FIN is of medium confidence: probes that only
//! want to see the certificate leave in the same way.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::trust::{self, Fault, How};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-cert-rejected",
    title: "the client refused the server's certificate; the reason is encrypted",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello]),
    says: "{client_host} refuses the certificate of {server} for {name}; TLS 1.3 hides why",
    users_see: &[
        "curl: (60)",
        "x509:",
        "PKIX path",
        "remote error: tls: bad certificate",
        "peer closed connection in SSL handshake",
    ],
    do_first: &[
        Step {
            says: "Which certificate does {server} send for {name}: dates, names, chain? (From the client's host, with its own trust store.)",
            command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -showcerts </dev/null",
        },
        Step {
            says: "What does the client's own log say at that second? Only there stands the reason.",
            command: "journalctl --since '-1h' --grep 'certificate|x509|PKIX'",
        },
    ],
    verify: &[Step {
        says: "prints Verification: OK once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "the server's flight arrived and was answered")],
    cannot_show: &["the certificate and the client's reason: TLS 1.3 encrypts both"],
    explains: &[Explains("proxy-protocol-mismatch-upstream", Scope::Link), Explains("tls-cert-rejected", Scope::Link)],
    sources: &["RFC 8446 sections 4.4 and 6.2", "measured on Go 1.19, Java 17, Node 20, OpenSSL 3.0"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

const REASONS: [&str; 4] =
    ["tls-cert-expired", "tls-cert-not-yet-valid", "tls-cert-untrusted", "tls-cert-name-mismatch"];

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = trust::refused(flow)?;
    if refused.fault != Fault::Hidden {
        return None;
    }
    let finding = trust::tell(&RULE, flow, &refused);
    let whole = flow.first(Kind::TlsFinished, crate::event::Side::Server).is_some();
    Some(match refused.how {
        // Somebody who only wanted to see the certificate, or gave the connection up, leaves so too.
        How::Silent => finding.confidence(Confidence::Medium).severity(Severity::Warning),
        How::Sealed(_) if !whole => finding.confidence(Confidence::Medium),
        _ => finding,
    })
}

/// The reason other clients gave for the same name.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let reason = capture
        .flows_to(&own.facts.server)
        .filter(|other| trust::same_name(&own.story, &other.story))
        .find_map(|other| {
            let told =
                other.findings.iter().find(|f| REASONS.contains(&&*f.rule) && f.severity == Severity::Critical)?;
            Some((other.facts.id, told.rule.clone(), told.evidence.first()?.clone()))
        });
    if let Some((flow, rule, evidence)) = reason {
        finding.notes.push(format!("Another client says why about the same name at the same server: {rule}."));
        *finding = finding.clone().cites(evidence.at, Some(flow), evidence.shows);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Side, What};
    use crate::rule::testing::Scene;
    use crate::rule::trust::samples;

    #[test]
    fn a_sealed_alert_where_finished_belongs_is_a_refusal() {
        let scene = samples::tls_13(Scene::open()).data(Side::Client, 5, 24);
        let scene =
            scene.also(Side::Client, What::AlertEncrypted { len: 19, alone: false }).fin(Side::Client, 6).gone(9);
        assert_eq!(scene.check(&RULE).expect("refused").confidence, Confidence::High);
    }

    #[test]
    fn a_bare_fin_at_once_is_a_weaker_one() {
        let scene = samples::tls_13(Scene::open()).fin(Side::Client, 6).gone(9);
        assert_eq!(scene.check(&RULE).expect("refused").confidence, Confidence::Medium);
    }

    #[test]
    fn a_certificate_of_tls_1_2_that_nobody_could_read_is_not_hidden_by_tls_1_3() {
        let refused = |version| {
            let hello = crate::wire::tls::ServerHello { version, ..Default::default() };
            let scene = samples::asked(Scene::open()).data(Side::Server, 4, 90);
            let scene = scene.also(Side::Server, What::ServerHello(Box::new(hello))).data(Side::Client, 5, 7);
            let alert = What::AlertPlain(crate::wire::tls::Alert { level: 2, description: 42 });
            scene.also(Side::Client, alert).check(&RULE).is_some()
        };
        assert_eq!((refused(0x0304), refused(0x0303)), (true, false));
    }

    #[test]
    fn connections_that_work_are_silent() {
        assert!(samples::works(samples::tls_13(Scene::open())).check(&RULE).is_none());
    }
}
