//! One side ended the TLS handshake with a fatal alert, and said why.
//!
//! ## How tcpwhy knows
//! A readable alert record of level 2 (RFC 8446 §6): the number stands in it. Who sent it is the side that objects; at fault is mostly the
//! other one.
//!
//! ## What it is not
//! - An encrypted alert: its number cannot be read, and `close_notify` looks the same.
//! - A warning: `unrecognized_name` of level 1 is followed by the handshake, `close_notify` and `user_canceled` are a normal end.
//! - `tls-version-mismatch` (70), `tls-no-shared-cipher` (40, 71), `tls-sni-unrecognized` (112), `tls-alpn-mismatch` (120): the server's answer to
//!   a ClientHello says exactly what is missing.
//! - `proxy-header-to-tls-port`, `http-to-tls-port`: the server objects to octets that are no TLS.
//!
//! ## What people see
//! The library's words with the number: `alert number 40`, `tlsv1 alert protocol version`, `remote error: tls: bad certificate`,
//! `Received fatal alert: handshake_failure`.
//!
//! ## False alarms it avoids
//! Warnings, encrypted alerts and alerts on connections that began before the capture are silent, and so is the alert that HAProxy's
//! `option ssl-hello-chk` takes for a sign of life. Where the ClientHello is missing or cut, that check cannot be told apart: a warning of
//! medium confidence. A public address that is turned away with five different offers while others are served is a scan: a notice.

use crate::event::{Kind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mutual;
use crate::rule::offer;
use crate::rule::trust;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::wire::tls::Alert;

pub static RULE: Rule = Rule {
    id: "tls-fatal-alert",
    title: "a fatal TLS alert ended the connection",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::AlertPlain]),
    says: "{sender} ends TLS with the fatal alert {alert} ({number}) on {server}",
    users_see: &[
        "alert number",
        "tlsv1 alert",
        "sslv3 alert",
        "remote error: tls:",
        "Received fatal alert:",
        "ERR_SSL_PROTOCOL_ERROR",
    ],
    do_first: &[
        Step {
            says: "{meaning}. Which versions and ciphers does the port offer, and which certificate?",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "What does the log of {sender} say at that second?",
            command: "journalctl --since '-1h' --grep 'SSL|TLS'",
        },
    ],
    verify: &[Step {
        says: "prints no alert once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("network", "the alert is an answer of the peer's TLS library")],
    cannot_show: &["more than the number: libraries send the same one for several reasons"],
    explains: &[Explains("proxy-protocol-mismatch-upstream", Scope::Link)],
    sources: &[
        "RFC 8446 section 6",
        "RFC 7507 (inappropriate_fallback)",
        "measured on OpenSSL 3.0, Go 1.19, GnuTLS, nginx 1.22",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Somebody who finds out what a port offers is turned away in many ways.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    if let Some(own) = capture.flow_of(finding) {
        offer::quiet_for_scanners(finding, capture, own);
    }
    Keep::Yes
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let told_exactly =
        trust::refused(flow).is_some() || mutual::refused(flow).is_some() || offer::refused(flow).is_some();
    if flow.facts.mid_stream || told_exactly {
        return None;
    }
    let (at, side, alert) = flow.story.events().find_map(|e| match e.what {
        What::AlertPlain(alert) if ends(alert) => Some((e.at, e.side, alert)),
        _ => None,
    })?;
    // OpenSSL's client answers a close with decode_error: what came before is the finding.
    let to_nothing = side == Side::Client && flow.server().payload + flow.server().unseen == 0;
    let health_check =
        side == Side::Server && flow.client_hello().is_some_and(|(_, hello)| offer::checks_health(hello));
    if to_nothing || health_check {
        return None;
    }
    let (sender, peer) = match side {
        Side::Client => ("the client", Culprit::Server),
        Side::Server => ("the server", Culprit::Client),
    };
    let shows = format!("fatal alert {} ({}) by {sender}", alert.description, alert.name());
    let mut finding = RULE
        .found(flow, at, side, shows)
        .culprit(culprit(alert.description, side, peer))
        .with("sender", sender)
        .with("alert", alert.name())
        .with("number", u32::from(alert.description))
        .with("meaning", meaning(alert.description));
    if let Some((hello_at, hello)) = flow.client_hello() {
        let name = hello.sni.as_deref().unwrap_or("without a name");
        finding = finding.and(hello_at, Side::Client, format!("ClientHello {name}"));
    }
    finding = finding.and_maybe(flow.first(Kind::ServerHello, Side::Server).map(|e| e.at), Side::Server, "ServerHello");
    if side == Side::Server && flow.client_hello().is_none() {
        // A check of a load balancer that takes any answer for life is told by its ClientHello alone.
        finding = finding
            .severity(Severity::Warning)
            .confidence(Confidence::Medium)
            .note("the ClientHello cannot be read in this capture: a health check would look the same");
    }
    let name = flow.client_hello().and_then(|(_, hello)| hello.sni.clone());
    Some(match name {
        Some(name) => finding.with("name", crate::rule::value::Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    })
}

/// close_notify (0) and user_canceled (90) are a normal end at any level.
fn ends(alert: Alert) -> bool {
    alert.fatal() && !matches!(alert.description, 0 | 90)
}

/// The sender objects to the other side; only internal_error is its own.
fn culprit(description: u8, sender: Side, peer: Culprit) -> Culprit {
    match description {
        80 if sender == Side::Server => Culprit::Server,
        80 => Culprit::Client,
        40 | 70 | 71 | 112 | 120 => Culprit::Config,
        _ => peer,
    }
}

/// The number in a sentence for the person who has to act. RFC 8446 §6.2, RFC 5246 §7.2.2.
fn meaning(description: u8) -> &'static str {
    match description {
        10 => "The message came at the wrong moment, or was no TLS at all",
        20 | 51 => "Decryption failed: damaged octets, or session keys not shared between servers of one name",
        22 => "A record was too long: mostly no TLS at all",
        40 => {
            "No common ground: cipher suites, groups, a client certificate that is missing, or a name that is missing or not known"
        }
        42 | 43 | 46 => "The certificate was refused; Go says this for expired, unknown and wrongly named ones alike",
        44 => "The certificate is revoked",
        45 => "The certificate is expired, or not yet valid by the clock of the side that objects",
        47 | 50 => "The message could not be read: a broken implementation, or a box on the path",
        48 => "The issuer of the certificate is not trusted, or an intermediate certificate is missing",
        49 | 116 => "The server wants a client certificate, or refuses the one it got",
        70 => "No TLS version in common",
        71 => "The offered cipher suites are too weak",
        80 => "The sender failed by itself: its configuration, its certificate or its memory",
        86 => "The client repeats with an older version and the server knows a newer one: its first attempt failed",
        109 | 110 => "An extension is missing, or was not offered",
        112 => "The server knows no such name",
        115 => "The server does not know the pre-shared key",
        120 => "No application protocol (ALPN) in common",
        _ => "The sender gave up",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;

    fn alert(side: Side, level: u8, description: u8) -> Scene {
        Scene::open()
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Server, 4, 90)
            .data(side, 5, 7)
            .also(side, What::AlertPlain(Alert { level, description }))
    }

    #[test]
    fn an_alert_in_answer_to_nothing_is_not_what_went_wrong() {
        let alone =
            Scene::open().data(Side::Client, 3, 517).speaks(Side::Client, Protocol::Tls).data(Side::Client, 5, 7);
        let alone = alone.also(Side::Client, What::AlertPlain(Alert { level: 2, description: 50 }));
        assert!(alone.check(&RULE).is_none());
    }

    #[test]
    fn name_number_and_sender_are_told() {
        let found = alert(Side::Server, 2, 80).check(&RULE).expect("fatal alert");
        assert_eq!(found.evidence[0].shows, "fatal alert 80 (internal_error) by the server");
        assert_eq!(found.culprit, Culprit::Server);
        assert_eq!(alert(Side::Client, 2, 45).check(&RULE).expect("fatal alert").culprit, Culprit::Server);
    }

    #[test]
    fn a_health_check_that_takes_any_answer_is_silent() {
        let answered = |random: [u8; 32]| {
            let hello = crate::wire::tls::ClientHello { random, ..Default::default() };
            let scene = Scene::open().data(Side::Client, 3, 126).speaks(Side::Client, Protocol::Tls);
            let scene = scene.also(Side::Client, What::ClientHello(Box::new(hello))).data(Side::Server, 4, 7);
            let alert = What::AlertPlain(Alert { level: 2, description: 40 });
            scene.also(Side::Server, alert).check(&RULE).is_some()
        };
        assert!(!answered(*b"\x6b\x03\xd5\x50HAPROXYSSLCHK\nHAPROXYSSLCHK\n"));
        assert!(answered([7; 32]));
    }

    #[test]
    fn warnings_and_normal_ends_are_silent() {
        assert!(alert(Side::Server, 1, 112).check(&RULE).is_none());
        assert!(alert(Side::Client, 1, 0).check(&RULE).is_none());
        assert!(alert(Side::Client, 2, 90).check(&RULE).is_none());
    }
}
