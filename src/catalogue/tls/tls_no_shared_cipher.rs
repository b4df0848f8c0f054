//! Client and server have no cipher suite, no group or no signature scheme in common.
//!
//! ## How tcpwhy knows
//! The server answers the ClientHello, and nothing else, with the fatal alert 40 (`handshake_failure`) or 71 (`insufficient_security`): nobody
//! has been asked for a certificate yet. An ECDSA certificate and a client that offers suites for RSA only look like this as well.
//!
//! ## What it is not
//! - `tls-client-cert-required`: there the 40 comes behind the client's own flight.
//! - `tls-version-mismatch` (70), `tls-sni-unrecognized` (112).
//! - 47 or 50 for a ClientHello that cannot be read: `tls-fatal-alert`.
//!
//! ## What people see
//! `sslv3 alert handshake failure`; nginx's log: `no shared cipher`; Go: `remote error: tls: handshake failure`.
//!
//! ## False alarms it avoids
//! A public client that is turned away with five different offers where others are served is a scanner: a notice. Content
//! networks send 40 for a name they do not know, and for none: a ClientHello without a name is left to `tls-fatal-alert`, and where the offer is
//! one that nearly every server takes, or was taken for another name or at another time, the finding says so and is of medium confidence.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::offer::{self, Lack};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};
use crate::wire::tls::{ClientHello, cipher_name, version_name};

pub static RULE: Rule = Rule {
    id: "tls-no-shared-cipher",
    title: "client and server have no cipher suite, group or signature scheme in common",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello, Kind::AlertPlain]),
    says: "{server} takes none of the cipher suites or groups that {client_host} offers",
    users_see: &[
        "sslv3 alert handshake failure",
        "no shared cipher",
        "remote error: tls: handshake failure",
        "Received fatal alert: handshake_failure",
        "ERR_SSL_VERSION_OR_CIPHER_MISMATCH",
    ],
    do_first: &[
        Step {
            says: "What does {server} choose for a modern client, and is its certificate RSA or ECDSA?",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "What is it told to take? On {host}, if nginx, HAProxy or Apache stands there:",
            command: "grep -rnE 'ssl_ciphers|ssl_ecdh_curve|ssl-default-bind-cipher|SSLCipherSuite|CipherString' /etc/nginx /etc/haproxy /etc/apache2 /etc/ssl/openssl.cnf",
        },
    ],
    verify: &[Step {
        says: "from {client_host}: prints a certificate once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("network", "the alert is an answer to the ClientHello")],
    cannot_show: &["whether suite, group or signature scheme is missing: the alert is the same"],
    explains: &[Explains("http-gateway-error", Scope::Link), Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &[
        "RFC 8446 sections 4.1.1 and 6.2",
        "RFC 5246 section 7.4.1.3",
        "measured on nginx 1.22, Go 1.19, GnuTLS 3.7",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::SameOffer,
    ..Rule::BLANK
};

/// Suites named in the evidence.
const NAMED: usize = 3;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = offer::refused(flow).filter(|refused| refused.lack == Lack::Suite)?;
    let finding = offer::tell(&RULE, flow, &refused, &offers(refused.hello));
    Some(if modern(refused.hello) {
        let sentence =
            "nearly every server takes one of these suites: a group may be missing, or the server refuses the name";
        finding.confidence(Confidence::Medium).note(sentence)
    } else {
        finding
    })
}

/// AES-GCM with ephemeral keys for TLS 1.3, or for ECDSA and for RSA certificates in TLS 1.2.
fn modern(hello: &ClientHello) -> bool {
    let any = |suites: &[u16]| suites.iter().any(|suite| hello.ciphers.contains(suite));
    any(&[0x1301, 0x1302]) || any(&[0xc02b, 0xc02c]) && any(&[0xc02f, 0xc030])
}

fn offers(hello: &ClientHello) -> String {
    let named: Vec<&str> = hello.ciphers.iter().filter_map(|suite| cipher_name(*suite)).take(NAMED).collect();
    let count = hello.ciphers.len();
    let suites = if count == 1 { "suite" } else { "suites" };
    format!("offers {}, {count} {suites}, first {}", offer::versions(hello), named.join(", "))
}

/// What others got, and whether it can be the offer at all.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let Some(hello) = offer::hello(own) else { return Keep::Yes };
    let alike = |other: &ClientHello| other.ciphers == hello.ciphers && other.versions == hello.versions;
    if let Some(taken) = offer::taken(capture, own).find(|taken| alike(taken.hello)) {
        let sentence = if taken.hello.sni == hello.sni {
            "the same offer was taken on another connection: the server's setting changed, or one of several servers differs"
        } else {
            "the same offer is taken for another name: this server may refuse the name with this alert"
        };
        offer::control(finding, &taken, "the same offer is taken");
        finding.confidence = Confidence::Medium;
        finding.notes.push(sentence.into());
    } else if let Some(taken) = offer::taken(capture, own).next() {
        let suite = cipher_name(taken.chosen.cipher).unwrap_or("a suite without a name");
        let version = taken.chosen.version;
        offer::control(finding, &taken, &format!("{}, {suite}", version_name(version)));
    }
    offer::quiet_for_scanners(finding, capture, own);
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{offer, other, takes, turned_away};
    use crate::rule::testing::{Scene, World};

    #[test]
    fn alert_40_right_behind_the_hello_names_the_first_suites() {
        let found = turned_away(Scene::open(), offer(), 40).check(&RULE).expect("no suite");
        assert_eq!(
            found.evidence[1].shows,
            "ClientHello www.example.com: offers TLS 1.0 to TLS 1.2, 2 suites, first \
             TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA"
        );
        assert_eq!(found.confidence, Confidence::High);
        assert!(turned_away(Scene::open(), offer(), 71).check(&RULE).is_some());
    }

    #[test]
    fn a_modern_offer_is_doubted_and_one_without_a_name_is_silent() {
        let mut hello = offer();
        hello.ciphers.push(0xc02b);
        assert_eq!(turned_away(Scene::open(), hello, 40).check(&RULE).expect("told").confidence, Confidence::Medium);
        let mut nameless = offer();
        nameless.sni = None;
        assert!(turned_away(Scene::open(), nameless, 40).check(&RULE).is_none());
    }

    #[test]
    fn a_broken_hello_and_a_hole_in_the_capture_are_silent() {
        assert!(turned_away(Scene::open(), offer(), 47).check(&RULE).is_none());
        let mut holed = turned_away(Scene::open(), offer(), 40);
        holed.facts.from_server.unseen = 1400;
        assert!(holed.check(&RULE).is_none(), "the ServerHello may be in the hole");
    }

    #[test]
    fn the_same_offer_for_another_name_makes_it_doubtful() {
        let scene = turned_away(Scene::open(), offer(), 40);
        let finding = scene.check(&RULE).expect("no suite");
        let mut hello = offer();
        hello.sni = Some("shop.example.com".into());
        let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), hello, 0x0303));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert_eq!(told.confidence, Confidence::Medium);
        assert!(told.notes[0].contains("the name"));
    }

    #[test]
    fn what_a_richer_offer_got_is_the_control() {
        let scene = turned_away(Scene::open(), offer(), 40);
        let finding = scene.check(&RULE).expect("no suite");
        let mut hello = offer();
        hello.ciphers.push(0xc02b);
        let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), hello, 0x0303));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert_eq!(told.confidence, Confidence::High);
        assert_eq!(told.evidence[2].shows, "ServerHello to 10.0.0.9: TLS 1.2, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    }
}
