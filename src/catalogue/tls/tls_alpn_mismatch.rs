//! Client and server have no application protocol in common: one wants h2, the other has HTTP/1.1 only.
//!
//! ## How tcpwhy knows
//! The server answers the ClientHello with the fatal alert 120 (`no_application_protocol`); what the client offered by ALPN stands in its
//! ClientHello. Go, in TLS 1.3, sends the alert only behind its ServerHello and sealed: a first sealed record as long as an alert, and the end,
//! is taken for it (medium; high where another offer was taken).
//!
//! ## What it is not
//! - `h2-preface-failed`: there TLS succeeds and the protocol inside does not fit.
//! - A server that ignores ALPN: it goes on without, and a client that insists on h2 (gRPC) closes by itself, inside TLS.
//!
//! ## What people see
//! `tlsv1 alert no application protocol`; Go: `remote error: tls: no application protocol`.
//!
//! ## False alarms it avoids
//! A client that offers `acme-tls/1` and nothing else checks a domain for a certificate authority: a notice. So is a public client that is turned
//! away with five different offers where others are served.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::offer::{self, Lack};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-alpn-mismatch",
    title: "client and server have no application protocol (ALPN) in common",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello]).and_any(&[Kind::AlertPlain, Kind::AlertEncrypted]),
    says: "{server} takes none of the application protocols that {client_host} offers: {offered}",
    variants: &[
        "{server} breaks the handshake with {client_host} off right behind its ServerHello: most likely for want of a common application protocol ({offered})",
    ],
    users_see: &[
        "tlsv1 alert no application protocol",
        "remote error: tls: no application protocol",
        "Received fatal alert: no_application_protocol",
    ],
    do_first: &[
        Step {
            says: "What does {server} choose when both are offered? See the line ALPN.",
            command: "openssl s_client -connect {server} -servername {name} -alpn h2,http/1.1 </dev/null",
        },
        Step {
            says: "What is it told to offer? On {host}, if nginx, HAProxy or Apache stands there:",
            command: "grep -rnE 'http2|alpn|Protocols' /etc/nginx /etc/haproxy /etc/apache2",
        },
    ],
    verify: &[Step {
        says: "prints ALPN protocol: h2 where h2 is offered:",
        command: "openssl s_client -connect {server} -servername {name} -alpn h2 </dev/null",
    }],
    not: &[
        ("h2-preface-failed", "TLS itself did not succeed"),
        ("network", "the alert is an answer to the ClientHello"),
    ],
    cannot_show: &["which protocols the server would take"],
    explains: &[Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &["RFC 7301 section 3.2", "RFC 8737 (acme-tls/1)", "measured on Go 1.19 and OpenSSL 3.0"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::SameOffer,
    ..Rule::BLANK
};

/// What a certificate authority offers that checks a domain (RFC 8737).
const ACME: &str = "acme-tls/1";
/// Variant of the alert that nobody can read.
const SEALED: u8 = 1;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let Some(refused) = offer::refused(flow) else { return sealed(flow) };
    if refused.lack != Lack::Application {
        return None;
    }
    let alpn = &refused.hello.alpn;
    let offered = if alpn.is_empty() { "none".to_owned() } else { alpn.join(", ") };
    let finding =
        offer::tell(&RULE, flow, &refused, &format!("ALPN {offered}")).with("offered", Value::Packet(offered));
    Some(if alpn.iter().all(|name| name == ACME) && !alpn.is_empty() {
        let sentence = "a certificate authority checks a domain this way: the server has no answer for it, others are not concerned";
        finding.severity(Severity::Notice).note(sentence)
    } else {
        finding
    })
}

/// The alert that Go seals.
fn sealed(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, hello_at, hello) = offer::refused_sealed(flow)?;
    let offered = hello.alpn.join(", ");
    let name = hello.sni.as_deref().unwrap_or("without a name");
    let shows = "sealed record as long as an alert, the first behind the ServerHello, and the end";
    let finding = RULE
        .found(flow, at, Side::Server, shows)
        .and(hello_at, Side::Client, format!("ClientHello {name}: ALPN {offered}"))
        .variant(SEALED)
        .confidence(Confidence::Medium)
        .with("offered", Value::Packet(offered));
    Some(match &hello.sni {
        Some(name) => finding.with("name", Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    })
}

/// What others offered, and whether this client only tries out what the port takes.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let sealed = finding.variant == SEALED;
    let mine = offer::hello(own).map(|hello| hello.alpn.clone()).unwrap_or_default();
    let other = |taken: &offer::Taken<'_>| !sealed || taken.flow.digest.served && taken.hello.alpn != mine;
    if let Some(taken) = offer::taken(capture, own).find(other) {
        if sealed {
            finding.confidence = finding.confidence.raised();
        }
        let offered = match taken.hello.alpn.as_slice() {
            [] => "no ALPN was offered".to_owned(),
            names => format!("ALPN {} was offered", names.join(", ")),
        };
        offer::control(finding, &taken, &offered);
    }
    offer::quiet_for_scanners(finding, capture, own);
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::offer::samples::{offer, other, takes, turned_away};
    use crate::rule::testing::{Scene, World};

    #[test]
    fn the_offer_stands_beside_the_alert() {
        let found = turned_away(Scene::open(), offer(), 120).check(&RULE).expect("mismatch");
        assert_eq!(found.severity, Severity::Critical);
        assert_eq!(found.evidence[1].shows, "ClientHello www.example.com: ALPN http/1.1");
    }

    #[test]
    fn a_check_of_a_certificate_authority_is_a_notice() {
        let mut hello = offer();
        hello.alpn = vec![ACME.into()];
        assert_eq!(turned_away(Scene::open(), hello, 120).check(&RULE).expect("told").severity, Severity::Notice);
    }

    #[test]
    fn other_alerts_and_a_server_that_ignores_alpn_are_silent() {
        assert!(turned_away(Scene::open(), offer(), 40).check(&RULE).is_none());
        assert!(takes(Scene::open(), offer(), 0x0303).check(&RULE).is_none());
    }

    fn broken_off(scene: Scene) -> Scene {
        takes(scene, offer(), 0x0304)
            .also(Side::Server, What::AlertEncrypted { len: 19, alone: true })
            .fin(Side::Server, 5)
            .gone(9)
    }

    #[test]
    fn a_sealed_record_of_an_alerts_length_right_behind_the_server_hello_is_medium() {
        let found = broken_off(Scene::open()).check(&RULE).expect("broken off");
        assert_eq!((found.confidence, found.variant), (Confidence::Medium, SEALED));
        let mut hello = offer();
        hello.alpn.clear();
        let nameless = takes(Scene::open(), hello, 0x0304);
        assert!(nameless.also(Side::Server, What::AlertEncrypted { len: 19, alone: true }).check(&RULE).is_none());
        let late = takes(Scene::open(), offer(), 0x0304);
        assert!(late.also(Side::Server, What::AlertEncrypted { len: 19, alone: false }).check(&RULE).is_none());
    }

    #[test]
    fn what_was_taken_from_another_is_the_control() {
        let scene = turned_away(Scene::open(), offer(), 120);
        let finding = scene.check(&RULE).expect("mismatch");
        let mut hello = offer();
        hello.alpn = vec!["h2".into()];
        let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), hello, 0x0303));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert_eq!(told.evidence[2].shows, "ServerHello to 10.0.0.9: ALPN h2 was offered");
    }
}
