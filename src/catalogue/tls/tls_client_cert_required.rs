//! The server wants a client certificate, and the client has none.
//!
//! ## How tcpwhy knows
//! TLS 1.2: the server asks (CertificateRequest), the client answers with an empty Certificate message, the server ends with an alert
//! (HAProxy, Apache and OpenSSL 40; Go 42). TLS 1.3: the client's first sealed record has the length of an empty Certificate message (25;
//! Java 41), and all that comes back is one record as long as an alert, and the end. For the client the handshake has then succeeded:
//! its request may be under way already, and dies.
//!
//! ## What it is not
//! - `tls-client-cert-rejected`: there the client sent a certificate.
//! - `tls-no-shared-cipher`: there the 40 comes right behind the ClientHello; nobody asked for a certificate.
//! - A server that asks and goes on without one (`optional`): it sends tickets or data.
//!
//! ## What people see
//! curl: `(56) … tlsv13 alert certificate required`, or `(35) … sslv3 alert handshake failure`; Go: `remote error: tls: certificate required`.
//!
//! ## False alarms it avoids
//! A ticket or data of the server, a client that leaves first, a late end and a hole in the capture make it silent. nginx completes the
//! handshake and says `400 No required SSL certificate was sent` inside TLS: on the wire that is a connection that works, so nothing is said.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mutual::{self, Offered};
use crate::rule::trust;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-client-cert-required",
    title: "the server wants a client certificate and did not get one",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello, Kind::Certificates]).and_any(&[Kind::AlertPlain, Kind::AlertEncrypted]),
    says: "{server} wants a client certificate; {client_host} sends none and is refused",
    users_see: &[
        "tlsv13 alert certificate required",
        "sslv3 alert handshake failure",
        "remote error: tls: certificate required",
        "peer did not return a certificate",
        "ERR_BAD_SSL_CLIENT_AUTH_CERT",
    ],
    do_first: &[
        Step {
            says: "Whose certificates does {server} accept? See Acceptable client certificate CA names.",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "Is it meant to ask? On {host}, if nginx or HAProxy stands there:",
            command: "grep -rnE 'ssl_verify_client|verify required|SSLVerifyClient' /etc/nginx /etc/haproxy /etc/apache2",
        },
    ],
    fix: &[Fix {
        says: "give the client its certificate and key.",
        command: "curl --cert client.pem --key client.key --connect-to ::{server} https://{name}/",
        risk: "none for others; the key must be readable by the client only",
    }],
    verify: &[Step {
        says: "from {client_host}, with its certificate: no alert behind the handshake once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} -cert client.pem -key client.key </dev/null",
    }],
    not: &[("network", "the client's flight arrived and was answered")],
    cannot_show: &["in TLS 1.3 the alert itself: its length and its place tell it"],
    explains: &[
        Explains("server-reset-mid-response", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "RFC 8446 section 4.4.2.4",
        "RFC 5246 section 7.4.6",
        "measured on HAProxy 2.6, Apache 2.4, OpenSSL 3.0, Go 1.19",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = mutual::refused(flow).filter(|refused| refused.offered == Offered::Nothing)?;
    let finding = mutual::tell(&RULE, flow, &refused);
    Some(if refused.alert.is_some() { finding } else { finding.confidence(Confidence::High) })
}

/// A client that has a certificate and is served shows that it is the certificate that is missed.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let with_one = capture
        .flows_to(&own.facts.server)
        .filter(|other| trust::same_name(&own.story, &other.story) && trust::accepted(other))
        .find_map(|other| match mutual::offered(&other.story)? {
            (_, Offered::Nothing) => None,
            (at, _) => Some((other.facts.id, at, other.facts.client.address)),
        });
    if let Some((flow, at, client)) = with_one {
        let cited = finding.clone().cites(at, Some(flow), format!("{client} sends a certificate and is served"));
        *finding = cited;
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Side, What};
    use crate::rule::mutual::samples;
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::{alert, certificate, works};

    fn empty() -> What {
        What::Certificates(Box::default())
    }

    #[test]
    fn an_empty_certificate_and_an_alert_are_certain() {
        for description in [40, 42, 116] {
            let found = alert(samples::asked_12(Vec::new()), Side::Server, description).check(&RULE).expect("required");
            assert_eq!((found.confidence, found.evidence.len()), (Confidence::Certain, 4));
        }
    }

    #[test]
    fn tls_13_tells_it_by_lengths() {
        let found = samples::hangs_up(samples::asked_13(empty()), 7, true).check(&RULE).expect("required");
        assert_eq!(found.confidence, Confidence::High);
    }

    #[test]
    fn a_server_that_goes_on_without_a_certificate_is_silent() {
        assert!(works(samples::asked_13(empty())).check(&RULE).is_none());
        assert!(samples::hangs_up(samples::asked_13(empty()), 7, false).check(&RULE).is_none(), "behind a ticket");
        assert!(samples::hangs_up(samples::asked_13(empty()), 9_000, true).check(&RULE).is_none(), "an idle time-out");
        let left = samples::asked_13(empty()).fin(Side::Client, 6);
        assert!(samples::hangs_up(left, 7, true).check(&RULE).is_none(), "the client left first");
    }

    #[test]
    fn a_certificate_that_was_sent_is_another_rule() {
        assert!(alert(samples::asked_12(vec![certificate(-1, 9)]), Side::Server, 42).check(&RULE).is_none());
        assert!(alert(Scene::open(), Side::Server, 40).check(&RULE).is_none());
    }

    #[test]
    fn one_that_is_served_with_a_certificate_is_the_control() {
        let scene = samples::hangs_up(samples::asked_13(empty()), 7, true);
        let finding = scene.check(&RULE).expect("required");
        let mut good = works(samples::asked_13(What::CertificateSealed { len: 880 }));
        good.facts.id.number = 90;
        let world = World::new().with(&scene).with(&good);
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert!(told.evidence.last().is_some_and(|e| e.shows.contains("is served")));
    }
}
