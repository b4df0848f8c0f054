//! The service begins in plain text and wants to be asked for TLS first; the client begins with TLS.
//!
//! ## How tcpwhy knows
//! The client's first octets are a ClientHello, and the server says the first words of a protocol that has its own way into TLS: SMTP, IMAP,
//! POP3, FTP, MySQL, PostgreSQL. PostgreSQL reads the ClientHello as a broken startup packet and closes without a word within milliseconds:
//! that counts on a port where PostgreSQL answered others (high) or by its number (medium).
//!
//! ## What it is not
//! - STARTTLS, STLS, AUTH TLS, SSLRequest: there both sides begin in the service's own protocol.
//! - `tls-to-http-port`, and `unexpected-protocol-on-port` for SSH, Redis, MQTT and AMQP: they have no such way.
//! - PostgreSQL 17 and later, which take TLS at once from a client that offers `postgresql` by ALPN.
//!
//! ## What people see
//! `wrong version number`, `SSL_ERROR_SYSCALL`; Java: `Unsupported or unrecognized SSL message`; the server logs `invalid length of startup
//! packet`, `Bad handshake` or a command that it does not know.
//!
//! ## False alarms it avoids
//! A public address that probes a port which serves others, and was not served there itself, is a notice.

use crate::event::{Kind, PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::summary::{Digest, Verdict};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, header};
use crate::time::{Elapsed, Timestamp};

/// A stranger that probes a port comes a few times.
const PROBES: u64 = 3;
/// PostgreSQL reads four octets of length and closes.
const AT_ONCE: Elapsed = Elapsed::millis(50);

pub static RULE: Rule = Rule {
    id: "starttls-needed",
    title: "the service wants to be asked for TLS in its own protocol first",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello]),
    says: "{client_host} begins with TLS, but {server} speaks {service} in plain text, where TLS comes after {way}",
    users_see: &[
        "wrong version number",
        "SSL_ERROR_SYSCALL",
        "Unsupported or unrecognized SSL message",
        "first record does not look like a TLS handshake",
        "invalid length of startup packet",
    ],
    do_first: &[
        Step {
            says: "Asked in its own way, does {server} take TLS? It prints a certificate then.",
            command: "openssl s_client -starttls {starttls} -connect {server} </dev/null",
        },
        Step {
            says: "On {host}: which ports does the service listen on? TLS from the first octet has a port of its own (465, 993, 995, 990).",
            command: "sudo ss -ltnp",
        },
    ],
    verify: &[Step {
        says: "prints a certificate once the port takes TLS from the first octet:",
        command: "openssl s_client -connect {server} </dev/null",
    }],
    not: &[("network", "both sides were heard")],
    cannot_show: &["which of the two ends is configured as meant"],
    explains: &[
        Explains("unexpected-protocol-on-port", Scope::Same),
        Explains("service-greeting-error", Scope::Same),
        Explains("closed-without-answer", Scope::Same),
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("tls-fatal-alert", Scope::Same),
    ],
    sources: &[
        "RFC 3207 (SMTP), RFC 9051 §6.2.1 (IMAP), RFC 2595 (POP3), RFC 4217 (FTP)",
        "PostgreSQL documentation, SSL Session Encryption",
        "measured on Dovecot 2.3, vsftpd 3.0, Postfix 3.7, PostgreSQL 15",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// How a service is asked for TLS: in words, and as OpenSSL's client calls it.
fn way(service: Protocol) -> Option<(&'static str, &'static str)> {
    match service {
        Protocol::Smtp => Some(("STARTTLS", "smtp")),
        Protocol::Imap => Some(("STARTTLS", "imap")),
        Protocol::Pop3 => Some(("STLS", "pop3")),
        Protocol::Ftp => Some(("AUTH TLS", "ftp")),
        Protocol::Mysql => Some(("its own request for TLS", "mysql")),
        Protocol::Postgres => Some(("an SSLRequest", "postgres")),
        _ => None,
    }
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.saw(Kind::ProxyHeader) || flow.saw(Kind::ProxyBroken) || flow.facts.mid_stream {
        return None;
    }
    let (asked, spoken) = mismatch::spoken_by_client(flow)?;
    let refusal = mismatch::refusal(flow)?;
    let shows = refusal.shows(flow);
    let (at, service, confidence) = told(flow, &refusal)?;
    let (way, starttls) = way(service).filter(|_| spoken == Protocol::Tls)?;
    let text = |words: &str| Value::Text(words.to_owned());
    Some(
        RULE.found(flow, asked, Side::Client, "ClientHello: the client begins with TLS")
            .and(at, Side::Server, shows)
            .confidence(confidence)
            .with("service", service.name())
            .with("way", text(way))
            .with("starttls", text(starttls)),
    )
}

/// What the server speaks, by its own words or, for one that closes without any, by the port's number.
fn told(flow: &FlowView<'_>, refusal: &Refusal<'_>) -> Option<(PacketRef, Protocol, Confidence)> {
    match *refusal {
        Refusal::Words(at, service, _) => Some((at, service, Confidence::Certain)),
        Refusal::Closed(at, after) if after <= AT_ONCE => {
            let service = mismatch::by_number(flow.facts.server.port).filter(|known| *known == Protocol::Postgres)?;
            Some((at, service, Confidence::Medium))
        }
        _ => None,
    }
}

/// What the port speaks to others, and whether a stranger only probes it.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    if finding.confidence < Confidence::Certain {
        if mismatch::to_others(capture, &server, Protocol::Tls).is_some() {
            return Keep::Drop;
        }
        if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Postgres) {
            finding.confidence = finding.confidence.raised();
            mismatch::cite_control(finding, &spoke, "PostgreSQL to the same port");
        }
    }
    let Some(service) = capture.service(&server) else { return Keep::Yes };
    let came = service.clients.get(&client).copied().unwrap_or(PROBES + 1);
    let served =
        |digest: &Digest| digest.served && digest.client().address == client && digest.verdict == Verdict::Healthy;
    let known = capture.began_to(&server, Timestamp::MIN, capture.end).any(served);
    if service.good > 0 && came <= PROBES && header::is_public(client) && !known {
        finding.severity = Severity::Notice;
        finding.notes.push("the port serves others in its own protocol: a stranger that probes ports".into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{makes, offer};
    use crate::rule::testing::{Scene, World};

    fn begins(client: &str, server: &str) -> Scene {
        makes(Scene::starting(client, server, 40, 50).handshake(), offer())
    }

    fn greeted(server: &str, service: Protocol) -> Scene {
        begins("10.0.0.1:40000", server).data(Side::Server, 4, 60).speaks(Side::Server, service)
    }

    #[test]
    fn a_service_with_a_way_of_its_own_is_named_with_it() {
        let found = greeted("10.0.0.2:143", Protocol::Imap).check(&RULE).expect("IMAP wants STARTTLS");
        assert_eq!((found.severity, found.confidence), (Severity::Critical, Confidence::Certain));
        assert_eq!(found.values.get("starttls"), Some(&Value::Text("imap".into())));
        assert!(greeted("10.0.0.2:587", Protocol::Smtp).check(&RULE).is_some());
    }

    #[test]
    fn services_without_such_a_way_and_plain_clients_are_silent() {
        for service in [Protocol::Ssh, Protocol::Redis, Protocol::Mqtt, Protocol::Http] {
            assert!(greeted("10.0.0.2:22", service).check(&RULE).is_none(), "{service:?}");
        }
        let plain = Scene::between("10.0.0.1:40000", "10.0.0.2:143").handshake();
        let plain = plain.data(Side::Server, 3, 60).speaks(Side::Server, Protocol::Imap);
        let plain = plain.data(Side::Client, 4, 13).speaks(Side::Client, Protocol::Imap);
        let upgraded = makes(plain, offer()).speaks(Side::Client, Protocol::Tls);
        assert!(upgraded.check(&RULE).is_none(), "STARTTLS as it should be");
    }

    #[test]
    fn postgresql_that_closes_at_once_is_told_by_its_number() {
        let closed = |port: u16, ms| begins("10.0.0.1:40000", &format!("10.0.0.2:{port}")).fin(Side::Server, ms);
        let scene = closed(5432, 20);
        let found = scene.check(&RULE).expect("PostgreSQL closes");
        assert_eq!(found.confidence, Confidence::Medium);
        assert!(closed(5432, 900).check(&RULE).is_none());
        assert!(closed(443, 20).check(&RULE).is_none());
        let good = Scene::between("10.0.0.9:40000", "10.0.0.2:5432")
            .handshake()
            .data(Side::Client, 3, 60)
            .speaks(Side::Client, Protocol::Postgres)
            .data(Side::Server, 4, 40)
            .speaks(Side::Server, Protocol::Postgres);
        let world = World::new().with(&scene).with_good(&good);
        assert_eq!(world.corroborated(&RULE, found).expect("kept").confidence, Confidence::High);
    }

    #[test]
    fn a_stranger_on_a_port_that_serves_others_is_a_notice() {
        let probe = begins("198.51.100.9:40000", "10.0.0.2:143").data(Side::Server, 4, 60);
        let probe = probe.speaks(Side::Server, Protocol::Imap);
        let finding = probe.check(&RULE).expect("told");
        let good = Scene::between("10.0.0.9:40000", "10.0.0.2:143")
            .handshake()
            .data(Side::Server, 3, 60)
            .speaks(Side::Server, Protocol::Imap)
            .data(Side::Client, 4, 20)
            .speaks(Side::Client, Protocol::Imap);
        let world = World::new().with(&probe).with_good(&good);
        assert_eq!(world.corroborated(&RULE, finding).expect("kept").severity, Severity::Notice);
    }
}
