//! The service refuses its client in its very first message.
//!
//! ## How tcpwhy knows
//! The first message of the server is an error of its own protocol: MySQL's error packet, PostgreSQL's FATAL, Redis' DENIED, LOADING or "max
//! number of clients reached", a reply of the 4xx or 5xx class from an SMTP or FTP server, BYE of an IMAP server, an error of a POP3 server, a
//! CONNACK of MQTT with a reason, the version of AMQP that a broker has instead, the words of an sshd that takes no more clients. It is quoted.
//!
//! ## What it is not
//! - `closed-before-request`: there the server says nothing.
//! - `login-refused`: there the service greets, and refuses a password, a name or a database later.
//! - `unexpected-protocol-on-port`, `proxy-header-to-other-service`: there the client does not speak the service's protocol.
//!
//! ## What people see
//! The quoted words, in the client's log.
//!
//! ## False alarms it avoids
//! Refusals of a command or of a password are answers, no greetings; a device that MQTT does not let in for its name or password is a
//! warning. A host that is served within 2 s all the same has another login, a
//! second way in, or waited for a start to end: a warning; a limit that was reached stays critical, for whom it met was not served. A
//! public address that is refused by its address, on a port that serves others, is a notice: somebody tries the door. So is PostgreSQL's
//! refusal of a connection without TLS when the same host is let in with it at once (libpq's `sslmode=allow`).

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, Words, header};
use crate::time::Elapsed;
use crate::wire::text::Greeting;

/// A host that is served so soon after a refusal has another login or a second way in, or the service had only begun to start.
const RETRY: Elapsed = Elapsed::secs(2);
/// A stranger tries the door a few times.
const KNOCKS: u64 = 3;
/// What Redis says instead of serving anybody; its other errors answer a command.
const REDIS: [&str; 3] = ["ERR max number of clients", "DENIED ", "LOADING "];

/// Codes by which MQTT refuses a name or password, 3.1.1 and 5: others may be let in.
const LOGIN: [u16; 4] = [4, 5, 0x86, 0x87];

/// Variant with the commands for mail.
const MAIL: u8 = 1;

pub static RULE: Rule = Rule {
    id: "service-greeting-error",
    title: "the service refuses in its first message",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Greeting]),
    says: "the {service} {server} refuses {client_host} in its first message: {words}",
    variants: &["the {service} {server} refuses {client_host} in its first message: {words}"],
    words_of: &[(
        MAIL,
        Words {
            users_see: &["421 4.7.0 Too many connections", "554 5.7.1 Service unavailable; client blocked"],
            do_first: &[
                Step {
                    says: "On {host}: what does the mail server's log say of {client_host}?",
                    command: "sudo grep -hF {client_host} /var/log/mail.log /var/log/maillog /var/log/exim4/mainlog | tail -n 20",
                },
                Step {
                    says: "On {host}: which limits and which lists of clients are set?",
                    command: "sudo grep -rnE 'smtp_accept_max|smtpd_client|process_limit|_restrictions|dnslists' /etc/postfix /etc/exim4",
                },
            ],
            ..Words::NONE
        },
    )],
    users_see: &[
        "Too many connections",
        "sorry, too many clients already",
        "no pg_hba.conf entry for host",
        "the database system is starting up",
        "ERR max number of clients reached",
        "DENIED Redis is running in protected mode",
        "Exceeded MaxStartups",
        "421 There are too many connected users",
        "Connection Refused: not authorised",
    ],
    do_first: &[
        Step {
            says: "On {host}: which limits and which lists of clients are set?",
            command: "sudo grep -rnE -e 'max_connections|max_clients|maxclients|MaxStartups|process_limit' -e '^bind|^host|protected-mode|allow_anonymous' /etc/mysql /etc/postgresql /etc/redis /etc/ssh /etc/vsftpd.conf /etc/dovecot /etc/mosquitto /etc/rabbitmq",
        },
        Step {
            says: "On {host}: how many connections does the service hold? Compare with its limit:",
            command: "ss -tn state established 'sport = :{port}' | wc -l",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; a service that greets first must not print its refusal:",
        command: "timeout 3 nc {host} {port} </dev/null",
    }],
    not: &[("network", "the connection was accepted and the refusal arrived")],
    cannot_show: &["why the limit was reached: clients that leak connections, or a limit that is too small"],
    explains: &[Explains("closed-before-request", Scope::Same), Explains("server-error-in-protocol", Scope::Same)],
    sources: &[
        "MySQL errors 1040, 1129, 1130; PostgreSQL SQLSTATE 53300, 28000, 57P03; RFC 5321 §3.1",
        "MQTT 3.1.1 §3.2.2.3, AMQP 0-9-1 §4.2.2, RFC 9051 §7.1.5",
        "measured: PostgreSQL 15, Redis 7.0, OpenSSH 9.2, vsftpd 3.0, Mosquitto 2.0, RabbitMQ 3.10",
    ],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, words) = first_words(flow)?;
    let service = flow.protocol(Side::Server)?;
    let spoken = flow.protocol(Side::Client);
    let strange = spoken.is_some_and(|spoken| spoken != service && spoken != Protocol::Unknown);
    // Without the beginning of the connection the message may be any.
    if flow.facts.mid_stream || strange || flow.proxy_header().is_some() || !refuses(service, words) {
        return None;
    }
    let code =
        words.code.filter(|_| service == Protocol::Mysql).map(|code| format!("error {code}, ")).unwrap_or_default();
    let told = format!("{code}{}", words.text);
    let shows = format!("its first message: {told}");
    let login = service == Protocol::Mqtt && words.code.is_some_and(|code| LOGIN.contains(&code));
    let severity = if login { Severity::Warning } else { RULE.severity };
    let variant = if service == Protocol::Smtp { MAIL } else { 0 };
    let finding = RULE.found(flow, at, Side::Server, shows).severity(severity).variant(variant).and_maybe(
        flow.facts.established,
        Side::Client,
        "the connection was accepted",
    );
    let close = flow.close_of(Side::Server).filter(|close| *close > at);
    Some(
        finding
            .and_maybe(close, Side::Server, format!("{} right after it", flow.close_word(Side::Server)))
            .with("service", service.name())
            .with("words", told),
    )
}

/// The first message of the server, when it is a greeting or a refusal.
fn first_words<'a>(flow: &FlowView<'a>) -> Option<(PacketRef, &'a Greeting)> {
    flow.story.events().filter(|e| e.side == Side::Server).find_map(|e| match &e.what {
        What::Greeting(words) => Some((e.at, words.as_ref())),
        _ => None,
    })
}

fn refuses(service: Protocol, words: &Greeting) -> bool {
    let redis = service != Protocol::Redis || REDIS.iter().any(|begin| words.text.starts_with(begin));
    // The words of an sshd that could not read its client are about the client's octets.
    let ssh = service != Protocol::Ssh
        || ["Exceeded MaxStartups", "Not allowed"].iter().any(|begin| words.text.starts_with(begin));
    words.refuses && redis && ssh
}

/// A second way in is half a failure, a stranger at the door none.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let refused = |id: PacketRef| {
        capture.flows.get(&id).is_some_and(|flow| flow.findings.iter().any(|found| found.rule == RULE.id))
    };
    let at = finding.first().time;
    let later = || {
        let own = capture.began_to(&server, at, at + RETRY).filter(|later| later.client().address == client);
        own.filter(|later| later.served && !refused(later.id))
    };
    let soon = later().next().is_some();
    let in_tls = || later().any(|later| later.protocol == Some(Protocol::Tls));
    let knocks = capture.found_by(RULE.id).filter(|other| other.facts.client.address == client).count() as u64;
    let others = capture.service(&server).is_some_and(|service| service.good > 0);
    if others && header::is_public(client) && knocks <= KNOCKS && by_address(finding) && !soon {
        *finding = finding.clone().severity(Severity::Notice).note("a public address that the service does not let in");
    } else if says(finding, &["no pg_hba.conf entry"]) && in_tls() {
        let note = "the same host was let in with TLS at once: libpq's sslmode=allow tries without it first";
        *finding = finding.clone().severity(Severity::Notice).note(note);
    } else if soon && !by_limit(finding) {
        *finding = finding.clone().severity(Severity::Warning).note("the same host was served within 2 s");
    }
    Keep::Yes
}

/// The refusal is about who asks.
fn by_address(finding: &Finding) -> bool {
    says(finding, &["error 1130", "error 1129", "28000", "DENIED", "554"])
}

/// It is about a limit, which the next one may slip through.
fn by_limit(finding: &Finding) -> bool {
    says(finding, &["Too many", "too many", "max number", "MaxStartups", "421"])
}

fn says(finding: &Finding, words: &[&str]) -> bool {
    finding.evidence.iter().any(|evidence| words.iter().any(|word| evidence.shows.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::{tls_12_on, works};

    fn greeted(scene: Scene, service: Protocol, text: &str, refuses: bool) -> Scene {
        let words = Greeting { text: text.into(), code: None, refuses };
        scene
            .data(Side::Server, 4, 60)
            .speaks(Side::Server, service)
            .also(Side::Server, What::Greeting(Box::new(words)))
    }

    fn full() -> Scene {
        greeted(Scene::open(), Protocol::Mysql, "Too many connections", true)
    }

    #[test]
    fn a_refusal_is_quoted_with_its_packet_and_the_close() {
        let finding = full().fin(Side::Server, 5).check(&RULE).expect("refused");
        assert_eq!(finding.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [4, 3, 5]);
        assert_eq!(finding.evidence[0].shows, "its first message: Too many connections");
    }

    #[test]
    fn a_greeting_and_a_refused_command_are_none() {
        assert_eq!(greeted(Scene::open(), Protocol::Mysql, "8.0.36", false).check(&RULE), None);
        for text in ["NOAUTH Authentication required.", "ERR unknown command", "WRONGPASS invalid"] {
            assert_eq!(greeted(Scene::open(), Protocol::Redis, text, true).check(&RULE), None, "{text}");
        }
        assert!(greeted(Scene::open(), Protocol::Redis, "LOADING Redis is loading", true).check(&RULE).is_some());
    }

    #[test]
    fn a_complaint_about_another_protocol_is_another_story() {
        let http = Scene::open().data(Side::Client, 3, 80).speaks(Side::Client, Protocol::Http);
        assert_eq!(greeted(http, Protocol::Redis, "DENIED Redis is running", true).check(&RULE), None);
        assert_eq!(
            greeted(Scene::open(), Protocol::Ssh, "Invalid SSH identification string.", true).check(&RULE),
            None
        );
    }

    #[test]
    fn a_device_with_a_wrong_password_is_a_warning_and_a_broker_that_is_busy_critical() {
        let connack = |code: u16| {
            let words = Greeting { text: format!("CONNACK {code}"), code: Some(code), refuses: true };
            let scene = Scene::open().data(Side::Client, 3, 30).speaks(Side::Client, Protocol::Mqtt);
            let scene = scene.data(Side::Server, 4, 4).speaks(Side::Server, Protocol::Mqtt);
            scene.also(Side::Server, What::Greeting(Box::new(words))).check(&RULE).expect("refused").severity
        };
        assert_eq!((connack(5), connack(3)), (Severity::Warning, Severity::Critical));
    }

    #[test]
    fn a_client_that_tries_without_tls_first_is_let_in_with_it() {
        let told = |protocol: Protocol| {
            let words = "FATAL 28000: no pg_hba.conf entry for host \"10.0.0.1\", no encryption";
            let first = greeted(Scene::open(), Protocol::Postgres, words, true);
            let second = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 50, 20).handshake();
            let second = match protocol {
                Protocol::Tls => works(tls_12_on(second, Vec::new())),
                _ => {
                    let second = greeted(second, protocol, "AuthenticationOk", false);
                    second.data(Side::Client, 6, 80).acked(Side::Client, 7).data(Side::Server, 8, 40)
                }
            };
            let world = World::new().with(&first).with_good(&second);
            world.corroborated(&RULE, first.check(&RULE).expect("refused")).expect("kept").severity
        };
        assert_eq!((told(Protocol::Tls), told(Protocol::Postgres)), (Severity::Notice, Severity::Warning));
    }

    #[test]
    fn a_second_way_in_makes_it_a_warning_unless_a_limit_was_met() {
        let second = |ms| {
            let scene = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 50, ms).handshake();
            let scene = greeted(scene, Protocol::Postgres, "AuthenticationOk", false);
            scene.data(Side::Client, 6, 80).acked(Side::Client, 7).data(Side::Server, 8, 40)
        };
        let told = |words: &str, ms| {
            let mut first = greeted(Scene::open(), Protocol::Postgres, words, true);
            let finding = first.check(&RULE).expect("refused");
            first.findings.push(finding.clone());
            let world = World::new().with(&first).with(&second(ms));
            world.corroborated(&RULE, finding).expect("kept").severity
        };
        let address = "FATAL 28000: no pg_hba.conf entry";
        assert_eq!((told(address, 500), told(address, 5_000)), (Severity::Warning, Severity::Critical));
        assert_eq!(told("FATAL 53300: sorry, too many clients already", 500), Severity::Critical);
    }
}
