//! The client names no site in its ClientHello, and that is why it is refused: clients that name one are served by the same server.
//!
//! ## How tcpwhy knows
//! The ClientHello has no server name (SNI), the handshake fails, and another connection to the same server that named a site was served. It
//! fails by an alert of the server (112, 109, 40, 49, 80), by a close without a word, or because the client rejects a certificate that
//! is not the one that is shown to those who name a site. Where a connection without a name was served too, the name is not the difference,
//! and nothing is said. Certain where the alert is 112 or the certificates differ; high where another alert meets the same offer.
//!
//! ## What it is not
//! - `tls-sni-unrecognized`: there a name is sent, and nobody knows it.
//! - `tls-no-shared-cipher`: there the offer does not fit, whatever the name.
//!
//! ## What people see
//! `tlsv1 unrecognized name`, `handshake failure` or a certificate for another site, through one proxy or health check only, while browsers work.
//! nginx in front of an HTTPS backend sends no name until `proxy_ssl_server_name on` says so; HAProxy until its server line has `sni`.
//!
//! ## False alarms it avoids
//! Whoever walks through the internet by address sends no name: from a public address it is a notice.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::header::is_public;
use crate::rule::offer::{self, Taken};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-sni-missing",
    title: "the client names no site (SNI), and is refused for it",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::ClientHello]).and_any(&[Kind::AlertPlain, Kind::Fin, Kind::Reset]),
    says: "{client_host} names no site in its ClientHello and {server} refuses it; who names one is served",
    variants: &[
        "{client_host} names no site in its ClientHello and gets another certificate of {server}, which it rejects",
    ],
    users_see: &[
        "tlsv1 unrecognized name",
        "sslv3 alert handshake failure",
        "SSL_do_handshake() failed",
        "no alternative certificate subject name matches target host name",
    ],
    do_first: &[
        Step {
            says: "Without a name this fails, as {client_host} does:",
            command: "openssl s_client -connect {server} -noservername </dev/null",
        },
        Step {
            says: "Is {client_host} a proxy? On it, for nginx or HAProxy: is the name sent on?",
            command: "grep -rnE 'proxy_ssl_server_name|proxy_ssl_name|proxy_pass https|sni ' /etc/nginx /etc/haproxy",
        },
    ],
    verify: &[Step {
        says: "with a name it prints a certificate:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("network", "the ClientHello was answered")],
    cannot_show: &["which name the client meant to ask for"],
    explains: &[
        Explains("tls-sni-unrecognized", Scope::Same),
        Explains("tls-cert-name-mismatch", Scope::Same),
        Explains("tls-cert-untrusted", Scope::Same),
        Explains("tls-cert-rejected", Scope::Same),
        Explains("tls-cert-expired", Scope::Same),
        Explains("tls-fatal-alert", Scope::Same),
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["RFC 6066 §3", "measured on nginx 1.22 as server and as proxy, HAProxy 2.6"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Variant of a certificate that the client rejects.
const OTHER_CERTIFICATE: u8 = 1;
/// Alerts by which servers refuse a ClientHello without a name: their own, that of a missing extension, and the ones that say nothing.
const REFUSALS: [u8; 5] = [112, 109, 40, 49, 80];
/// Alerts by which clients reject a certificate.
const REJECTIONS: [u8; 5] = [42, 43, 45, 46, 48];

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (hello_at, hello) = flow.client_hello()?;
    let server = flow.server();
    if hello.sni.is_some() || hello.ech || flow.facts.mid_stream || server.unseen + server.cut > 0 {
        return None;
    }
    if flow.saw(Kind::ProxyHeader) || flow.saw(Kind::ProxyBroken) || offer::checks_health(hello) {
        return None;
    }
    let (at, side, shows, variant) = trouble(flow, hello_at)?;
    let finding = RULE
        .found(flow, hello_at, Side::Client, "ClientHello without a name")
        .and(at, side, shows)
        .variant(variant)
        .severity(if is_public(flow.facts.client.address) { Severity::Notice } else { Severity::Critical });
    Some(finding.with("name", flow.facts.server.address))
}

/// How the handshake failed: the packet, who sent it, what it shows, and the variant of the headline.
fn trouble(flow: &FlowView<'_>, hello_at: PacketRef) -> Option<(PacketRef, Side, String, u8)> {
    let greeted = flow.saw(Kind::ServerHello);
    let alert = flow.story.events().find_map(|e| match e.what {
        What::AlertPlain(alert) if alert.fatal() && e.at > hello_at => Some((e.at, e.side, alert)),
        _ => None,
    });
    if let Some((at, side, alert)) = alert {
        let (known, who, variant) = match side {
            Side::Server => (!greeted && REFUSALS.contains(&alert.description), "server", 0),
            Side::Client => (greeted && REJECTIONS.contains(&alert.description), "client", OTHER_CERTIFICATE),
        };
        let shows = format!("fatal alert {} ({}) by the {who}", alert.description, alert.name());
        return known.then_some((at, side, shows, variant));
    }
    let (_, close) = flow.facts.closer.filter(|(side, close)| *side == Side::Server && *close > hello_at)?;
    let after = close.time.since(hello_at.time);
    let at_once = flow.server().payload == 0 && after <= flow.thresholds.refusal;
    let shows = format!("{} {after} later: 0 octets, no alert", flow.close_word(Side::Server));
    at_once.then_some((close, Side::Server, shows, 0))
}

/// The name must be the difference: somebody with a name was served, nobody without one was.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Drop };
    let served = |taken: &Taken<'_>| taken.flow.digest.served && taken.flow.facts.id != own.facts.id;
    if offer::taken(capture, own).any(|taken| served(&taken) && taken.hello.sni.is_none()) {
        return Keep::Drop;
    }
    let leaf = own.digest.leaf;
    let differs = |taken: &Taken<'_>| {
        finding.variant != OTHER_CERTIFICATE
            || leaf != 0 && taken.flow.digest.leaf != 0 && taken.flow.digest.leaf != leaf
    };
    let named = |taken: &Taken<'_>| taken.hello.sni.is_some() && served(taken) && differs(taken);
    let same_offer = |taken: &Taken<'_>| taken.flow.digest.offer == own.digest.offer;
    let best =
        offer::taken(capture, own).filter(named).max_by_key(|taken| (same_offer(taken), std::cmp::Reverse(taken.at)));
    let Some(control) = best else { return Keep::Drop };
    let name = control.hello.sni.clone().unwrap_or_default();
    let says_name = finding.evidence.iter().any(|evidence| evidence.shows.contains("alert 112"));
    // The alert is about the name, or the certificates differ by it: octets prove both. The other alerts may have reasons of their own.
    finding.confidence = if says_name || finding.variant == OTHER_CERTIFICATE {
        Confidence::Certain
    } else if same_offer(&control) {
        Confidence::High
    } else {
        Confidence::Medium
    };
    offer::control(finding, &control, &format!("{name} is served"));
    *finding = finding.clone().with("name", Value::Packet(name.to_string()));
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{offer, other, takes, turned_away};
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::certificate;
    use crate::wire::tls::{Alert, Certificate, ClientHello};

    fn nameless() -> ClientHello {
        ClientHello { sni: None, ..offer() }
    }

    fn served(number: u64, hello: ClientHello) -> Scene {
        takes(other(number, "10.0.0.9:40000"), hello, 0x0303).event(Side::Client, 6, What::TlsFinished).event(
            Side::Client,
            7,
            What::TlsData,
        )
    }

    fn shown(serial: &str) -> What {
        What::Certificates(Box::new(vec![Certificate { serial: serial.into(), ..certificate(-9, 90) }]))
    }

    #[test]
    fn a_refusal_without_a_name_beside_one_that_is_served_with_a_name_is_told() {
        let scene = turned_away(Scene::open(), nameless(), 112);
        let finding = scene.check(&RULE).expect("refused");
        assert_eq!(finding.severity, Severity::Critical);
        let world = World::new().with(&scene).with(&served(50, offer()));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert_eq!(told.confidence, Confidence::Certain);
        assert_eq!(told.values.get("name"), Some(&Value::Packet("www.example.com".into())));
    }

    #[test]
    fn without_a_control_or_with_a_nameless_one_that_is_served_nothing_is_said() {
        let scene = turned_away(Scene::open(), nameless(), 40);
        let finding = scene.check(&RULE).expect("refused");
        assert!(World::new().with(&scene).corroborated(&RULE, finding.clone()).is_none());
        let world = World::new().with(&scene).with(&served(50, offer())).with(&served(90, nameless()));
        assert!(world.corroborated(&RULE, finding).is_none());
    }

    #[test]
    fn a_name_other_alerts_and_strangers_are_no_such_thing() {
        assert!(turned_away(Scene::open(), offer(), 112).check(&RULE).is_none());
        assert!(turned_away(Scene::open(), nameless(), 70).check(&RULE).is_none());
        let public = Scene::between("203.0.113.7:40000", "10.0.0.2:443").handshake();
        assert_eq!(turned_away(public, nameless(), 112).check(&RULE).expect("told").severity, Severity::Notice);
    }

    #[test]
    fn a_rejected_certificate_must_be_another_than_the_one_shown_to_names() {
        let rejected = takes(Scene::open(), nameless(), 0x0303)
            .also(Side::Server, shown("default"))
            .event(Side::Client, 6, What::AlertPlain(Alert { level: 2, description: 48 }))
            .gone(9);
        let finding = rejected.check(&RULE).expect("rejected");
        assert_eq!(finding.variant, OTHER_CERTIFICATE);
        let beside =
            |serial| {
                let control = takes(other(50, "10.0.0.9:40000"), offer(), 0x0303)
                    .also(Side::Server, shown(serial))
                    .event(Side::Client, 7, What::TlsData);
                World::new().with(&rejected).with(&control).corroborated(&RULE, finding.clone())
            };
        assert!(beside("default").is_none());
        assert!(beside("www").is_some());
    }
}
