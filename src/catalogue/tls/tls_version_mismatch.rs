//! Client and server have no TLS version in common.
//!
//! ## How tcpwhy knows
//! The server answers the ClientHello with the fatal alert 70 (`protocol_version`), or the client says it behind a ServerHello that chose a
//! version it does not want. What the client offers stands in the ClientHello; what the server speaks, in its answers to others.
//!
//! ## What it is not
//! - `tls-no-shared-cipher` (40): there a version would do.
//! - "wrong version number": so OpenSSL calls plain text where TLS is expected (`tls-to-http-port`).
//! - A lower version that the client takes: that is a normal handshake.
//!
//! ## What people see
//! `tlsv1 alert protocol version`, `unsupported protocol`; Java: `Received fatal alert: protocol_version`; Chrome:
//! `ERR_SSL_VERSION_OR_CIPHER_MISMATCH`.
//!
//! ## False alarms it avoids
//! A public client that is turned away with five different offers where others are served is a scanner: a notice. Warnings and alerts behind a PROXY header, which the server
//! may have read as TLS, are silent.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::offer::{self, Lack};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};
use crate::wire::tls::version_name;

pub static RULE: Rule = Rule {
    id: "tls-version-mismatch",
    title: "client and server have no TLS version in common",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello, Kind::AlertPlain]),
    says: "{server} takes none of the TLS versions that {client_host} offers: {offered}",
    variants: &["{client_host} refuses the TLS version that {server} chose: {chosen}"],
    users_see: &[
        "tlsv1 alert protocol version",
        "unsupported protocol",
        "Received fatal alert: protocol_version",
        "tls: protocol version not supported",
        "ERR_SSL_VERSION_OR_CIPHER_MISMATCH",
    ],
    do_first: &[
        Step {
            says: "Does {server} take TLS 1.2? (a certificate; -tls1_3 asks for 1.3)",
            command: "openssl s_client -connect {server} -servername {name} -tls1_2 </dev/null",
        },
        Step {
            says: "What is it told to speak? On {host}, if nginx, HAProxy or Apache stands there:",
            command: "grep -rnE 'ssl_protocols|ssl-min-ver|ssl-max-ver|SSLProtocol|MinProtocol' /etc/nginx /etc/haproxy /etc/apache2 /etc/ssl/openssl.cnf",
        },
    ],
    verify: &[Step {
        says: "prints a certificate where TLS 1.2 is taken:",
        command: "openssl s_client -connect {server} -servername {name} -tls1_2 </dev/null",
    }],
    not: &[("network", "the alert is an answer to the ClientHello")],
    cannot_show: &["which versions the server would take, unless somebody else got one"],
    explains: &[Explains("http-gateway-error", Scope::Link), Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &[
        "RFC 8446 sections 4.2.1 and 6.2",
        "RFC 5246 appendix E.1",
        "measured on nginx 1.22, HAProxy 2.6, Go 1.19, GnuTLS 3.7",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::SameOffer,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = offer::refused(flow).filter(|refused| refused.lack == Lack::Version)?;
    let offered = offer::versions(refused.hello);
    let finding = offer::tell(&RULE, flow, &refused, &format!("offers {offered}")).with("offered", offered.as_str());
    Some(match refused.chosen {
        Some((at, chosen)) => {
            let chosen = version_name(chosen.version);
            finding.and(at, Side::Server, format!("ServerHello: {chosen}")).with("chosen", chosen).variant(1)
        }
        None => finding,
    })
}

/// What others got, and whether this client only tries out what the port takes.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let offered = offer::hello(own).map(|hello| hello.versions.as_slice()).unwrap_or(&[]);
    if let Some(taken) = offer::taken(capture, own).find(|taken| !offered.contains(&taken.chosen.version)) {
        offer::control(finding, &taken, &format!("{}, which was not offered here", version_name(taken.chosen.version)));
    }
    offer::quiet_for_scanners(finding, capture, own);
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::offer::samples::{makes, offer, other, takes, turned_away};
    use crate::rule::testing::{Scene, World};
    use crate::wire::tls::Alert;

    #[test]
    fn the_range_of_the_offer_stands_beside_the_alert() {
        let found = turned_away(Scene::open(), offer(), 70).check(&RULE).expect("mismatch");
        assert_eq!(found.evidence[0].shows, "fatal alert 70 (protocol_version) by the server");
        assert_eq!(found.evidence[1].shows, "ClientHello www.example.com: offers TLS 1.0 to TLS 1.2");
    }

    #[test]
    fn a_client_that_refuses_what_was_chosen_is_told_so() {
        let scene = takes(Scene::open(), offer(), 0x0301)
            .data(Side::Client, 5, 7)
            .also(Side::Client, What::AlertPlain(Alert { level: 2, description: 70 }));
        let found = scene.check(&RULE).expect("mismatch");
        assert_eq!((found.variant, found.evidence.len()), (1, 3));
    }

    #[test]
    fn other_alerts_and_served_clients_are_silent() {
        assert!(turned_away(Scene::open(), offer(), 40).check(&RULE).is_none());
        assert!(takes(Scene::open(), offer(), 0x0303).check(&RULE).is_none());
        let warned = makes(Scene::open(), offer())
            .data(Side::Server, 4, 7)
            .also(Side::Server, What::AlertPlain(Alert { level: 1, description: 70 }));
        assert!(warned.check(&RULE).is_none());
    }

    #[test]
    fn what_another_client_got_is_the_control() {
        let scene = turned_away(Scene::open(), offer(), 70);
        let finding = scene.check(&RULE).expect("mismatch");
        let served = takes(other(50, "10.0.0.9:40000"), offer(), 0x0304);
        let told = World::new().with(&scene).with(&served).corroborated(&RULE, finding).expect("kept");
        assert_eq!(told.evidence[2].shows, "ServerHello to 10.0.0.9: TLS 1.3, which was not offered here");
        assert_eq!(told.severity, Severity::Critical);
    }

    #[test]
    fn five_offers_of_one_client_are_a_scan_where_others_are_served() {
        for (client, severity) in [("203.0.113.7", Severity::Notice), ("10.0.0.1", Severity::Warning)] {
            let scene =
                turned_away(Scene::between(&format!("{client}:40000"), "10.0.0.2:443").handshake(), offer(), 70);
            let finding = scene.check(&RULE).expect("mismatch");
            let mut world = World::new().with(&scene);
            for n in 1..5u16 {
                let mut hello = offer();
                hello.ciphers = vec![n];
                world = world.with(&turned_away(other(u64::from(n) * 50, &format!("{client}:4100{n}")), hello, 40));
            }
            let alone = world.corroborated(&RULE, finding.clone()).expect("kept");
            assert_eq!(alone.severity, Severity::Critical, "nobody is served");
            let world = world.with(&takes(other(500, "10.0.0.9:40000"), offer(), 0x0304));
            assert_eq!(world.corroborated(&RULE, finding).expect("kept").severity, severity);
        }
    }
}
