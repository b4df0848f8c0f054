//! The server has no site for the name that the client asks for.
//!
//! ## How tcpwhy knows
//! The server answers the ClientHello with the fatal alert 112 (`unrecognized_name`): nginx with `ssl_reject_handshake`, HAProxy with
//! `strict-sni`. A name that a DNS answer in the capture gives to this server is critical, and so is one that three clients ask for: then
//! the name leads to the wrong server, or its site is missing there.
//!
//! ## What it is not
//! - A warning 112 followed by a ServerHello (GnuTLS, Java, old Apache): the handshake goes on.
//! - `tls-closed-after-clienthello`: Envoy and TCP proxies drop unknown names without a word.
//! - A default site that answers with its own certificate: `tls-cert-name-mismatch`.
//!
//! ## What people see
//! `tlsv1 unrecognized name`; Java: `Received fatal alert: unrecognized_name`; Chrome: `ERR_SSL_UNRECOGNIZED_NAME_ALERT`.
//!
//! ## False alarms it avoids
//! Whoever walks through the internet by address asks without a name, or for names that are nobody's: a public client without a name, and one
//! that is turned away with five different offers where others are served, are notices; one client alone with a name is a warning.

use crate::event::Kind;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::header::is_public;
use crate::rule::offer::{self, Lack};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "tls-sni-unrecognized",
    title: "the server has no site for the name that the client asks for",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello, Kind::AlertPlain]),
    says: "{server} knows no site called {name} and refuses {client_host}",
    variants: &["{server} refuses {client_host}, whose ClientHello names no site"],
    users_see: &[
        "tlsv1 unrecognized name",
        "Received fatal alert: unrecognized_name",
        "remote error: tls: unrecognized name",
        "ERR_SSL_UNRECOGNIZED_NAME_ALERT",
    ],
    do_first: &[
        Step { says: "Does {name} lead to {host}, and is that the right server?", command: "getent ahosts {name}" },
        Step {
            says: "Which names are served? On {host}, if nginx or HAProxy stands there:",
            command: "grep -rnE 'server_name|ssl_reject_handshake|strict-sni|crt-list' /etc/nginx /etc/haproxy",
        },
    ],
    verify: &[Step {
        says: "prints a certificate once the site is there:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("network", "the alert is an answer to the ClientHello")],
    cannot_show: &["which names the server knows, unless somebody else asked for one"],
    explains: &[Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &["RFC 6066 section 3", "measured on nginx 1.22 and HAProxy 2.6"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    recovery: Recovery::SameFlow,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = offer::refused(flow).filter(|refused| refused.lack == Lack::Name)?;
    let finding = offer::tell(&RULE, flow, &refused, &format!("offers {}", offer::versions(refused.hello)));
    if refused.hello.sni.is_some() {
        return Some(finding);
    }
    let stranger = is_public(flow.facts.client.address);
    let severity = if stranger { Severity::Notice } else { Severity::Warning };
    Some(finding.variant(1).severity(severity))
}

/// Who else asks for the name, where the DNS leads it, and which names are served.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let server = own.facts.server.address;
    if let Some(name) = offer::hello(own).and_then(|hello| hello.sni.as_deref()) {
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        let lease = capture.names.addresses_of(&lower).find(|(address, _)| *address == server);
        if let Some((_, lease)) = lease {
            *finding = finding.clone().cites(lease.last, None, format!("DNS answer: {lower} is {server}"));
            finding.severity = Severity::Critical;
        }
        let clients = offer::clients(capture, own, Lack::Name);
        if clients >= capture.thresholds.many as usize {
            finding.severity = Severity::Critical;
            finding.notes.push(format!("{clients} clients ask for this name"));
        }
    }
    if let Some(taken) = offer::taken(capture, own).find(|taken| taken.hello.sni.is_some()) {
        let name = taken.hello.sni.as_deref().unwrap_or_default();
        offer::control(finding, &taken, &format!("{name} is served"));
    }
    offer::quiet_for_scanners(finding, capture, own);
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{makes, offer, other, takes, turned_away};
    use crate::rule::testing::{Scene, World, dns_answer};
    use crate::{event::Side, event::What, wire::tls::Alert};

    #[test]
    fn a_fatal_112_is_a_warning_and_names_the_site() {
        let found = turned_away(Scene::open(), offer(), 112).check(&RULE).expect("unrecognized");
        assert_eq!((found.severity, found.variant), (Severity::Warning, 0));
        assert_eq!(found.evidence[1].shows, "ClientHello www.example.com: offers TLS 1.0 to TLS 1.2");
    }

    #[test]
    fn a_warning_that_the_handshake_survives_is_silent() {
        let scene = makes(Scene::open(), offer())
            .data(Side::Server, 4, 7)
            .also(Side::Server, What::AlertPlain(Alert { level: 1, description: 112 }));
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_stranger_without_a_name_is_a_notice() {
        let mut hello = offer();
        hello.sni = None;
        let public = Scene::between("203.0.113.7:40000", "10.0.0.2:443").handshake();
        let found = turned_away(public, hello.clone(), 112).check(&RULE).expect("unrecognized");
        assert_eq!((found.severity, found.variant), (Severity::Notice, 1));
        let found = turned_away(Scene::open(), hello, 112).check(&RULE).expect("unrecognized");
        assert_eq!(found.severity, Severity::Warning, "a health check of one's own");
    }

    #[test]
    fn a_name_that_three_clients_ask_for_is_critical() {
        let scene = turned_away(Scene::open(), offer(), 112);
        let finding = scene.check(&RULE).expect("unrecognized");
        let mut world = World::new().with(&scene);
        for (number, client) in [(50, "10.0.0.8:40000"), (90, "10.0.0.9:40000")] {
            world = world.with(&turned_away(other(number, client), offer(), 112));
        }
        let mut hello = offer();
        hello.sni = Some("shop.example.net".into());
        world = world.with(&takes(other(120, "10.0.0.9:40001"), hello, 0x0303));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert_eq!(
            (told.severity, told.notes.as_slice()),
            (Severity::Critical, &["3 clients ask for this name".to_owned()][..])
        );
        assert_eq!(told.evidence[2].shows, "ServerHello to 10.0.0.9: shop.example.net is served");
    }

    #[test]
    fn a_name_that_the_dns_gives_to_this_server_is_critical() {
        let scene = turned_away(Scene::open(), offer(), 112);
        let finding = scene.check(&RULE).expect("unrecognized");
        let mut world = World::new().with(&scene);
        let What::Dns(answer) = dns_answer(7, "www.example.com", 1, 0, &["10.0.0.2"]) else { panic!("an answer") };
        world.names.learn(scene.facts.id, &answer, scene.facts.client.address);
        assert_eq!(world.corroborated(&RULE, finding).expect("kept").severity, Severity::Critical);
    }
}
