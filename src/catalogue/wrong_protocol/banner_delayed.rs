//! The server greets only after seconds: it looks something up first, or it is slow to take connections.
//!
//! ## How tcpwhy knows
//! The first octets of the server are a greeting of a protocol in which the server speaks first (SSH, SMTP, FTP, IMAP, POP3, MySQL), and they
//! came 2 s or more after the handshake, at least 20 round trips, with nothing lost. Where the server's host asked the DNS for the client's
//! name meanwhile (PTR) and got no answer, that is the reason (high).
//!
//! ## What it is not
//! - `both-sides-wait`: there no greeting comes at all.
//! - `packet-loss`: a greeting that had to be sent again.
//! - `slow-response`: there a request waits.
//!
//! ## What people see
//! Logins that hang for 5 or 10 s before anything appears; `Connection timed out during banner exchange` where the client is less patient. MariaDB
//! logs `could not be resolved`.
//!
//! ## False alarms it avoids
//! Mail servers wait on purpose before they greet (Postfix' postscreen 6 s, others 5 to 30 s): SMTP is a notice, unless the DNS is the reason.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch;
use crate::rule::patience;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::Elapsed;
use crate::wire::Address;

/// A greeting that takes longer was held up: programs greet within milliseconds.
const LATE: Elapsed = Elapsed::secs(2);
/// Question for the name of an address (RFC 1035 §3.2.2).
const PTR: u16 = 12;
/// Where resolvers are asked.
const DNS: u16 = 53;

pub static RULE: Rule = Rule {
    id: "banner-delayed",
    title: "the server greets only after seconds",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Established, Kind::Greeting]),
    says: "the {service} {server} greeted {client_host} only after {wait}",
    variants: &[
        "the {service} {server} greeted {client_host} only after {wait}: it asked the DNS for that host's name in vain",
    ],
    users_see: &[
        "Connection timed out during banner exchange",
        "could not be resolved",
        "Lost connection to MySQL server at 'reading initial communication packet'",
    ],
    do_first: &[
        Step {
            says: "On {host}: does the name of the client's address come at once, or after seconds?",
            command: "time getent hosts {client_host}",
        },
        Step {
            says: "On {host}: which services look up the names of their clients?",
            command: "sudo grep -rnEi 'UseDNS|skip.name.resolve|smtpd_peername_lookup|reverse_lookup' /etc/ssh /etc/mysql /etc/postfix /etc/vsftpd.conf",
        },
    ],
    verify: &[Step {
        says: "prints the greeting at once when it is mended:",
        command: "time timeout 20 nc -d {host} {port} | head -c 80",
    }],
    not: &[("network", "the handshake was quick, and nothing was sent twice")],
    cannot_show: &[
        "what the server did meanwhile, unless it asked others",
        "away from the server, whether the greeting was sent before and lost on the way",
    ],
    sources: &["measured on MariaDB 10.11 and Postfix 3.7 whose resolver does not answer"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    let opened = flow.facts.established?;
    let greeting = flow.first(Kind::Greeting, Side::Server)?.at;
    let first = server.first_payload?;
    let service = flow.protocol(Side::Server).filter(|known| mismatch::greets_first(*known))?;
    let resent = server.loss.total() + client.loss.total();
    if flow.facts.mid_stream || server.unseen > 0 || resent > 0 || flow.proxy_header().is_some() {
        return None;
    }
    let wait = first.time.since(opened.time);
    // A client of another protocol, or one that was slow itself, is another story; SSH's speaks without waiting.
    let waited = service == Protocol::Ssh || client.first_payload.is_none_or(|asked| asked > first);
    let long = wait >= LATE && patience::beyond_path(flow, wait);
    // Who had given up before was not greeted at all (both-sides-wait).
    let gone = flow.facts.closer.is_some_and(|(_, close)| close < first);
    if !waited || !long || gone {
        return None;
    }
    let severity = if service == Protocol::Smtp { Severity::Notice } else { RULE.severity };
    Some(
        RULE.found(flow, first, Side::Server, format!("the first octets of the greeting, {wait} after the handshake"))
            .and(opened, Side::Client, "the handshake is complete")
            .and_maybe((greeting != first).then_some(greeting), Side::Server, "the greeting is whole")
            .severity(severity)
            .with("service", service.name())
            .with("over", crate::rule::value::Value::Frame(first))
            .with("wait", wait),
    )
}

/// Whether the server asked for the client's name meanwhile.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let (Some(opened), Some(first)) = (flow.facts.established, flow.facts.from_server.first_payload) else {
        return Keep::Yes;
    };
    if let Some((id, asked)) = name_asked(capture, flow.facts.server.address, flow.facts.client.address, opened, first)
    {
        *finding = finding
            .clone()
            .cites(
                asked,
                Some(id),
                "the server's host asks for the name of the client's address: no answer in that time",
            )
            .severity(Severity::Warning)
            .confidence(Confidence::High)
            .culprit(Culprit::Dns)
            .variant(1);
    }
    Keep::Yes
}

/// A question of `host` for the name of `client` within the wait that was not answered in it, with its flow.
fn name_asked(
    capture: &CaptureView<'_>,
    host: Address,
    client: Address,
    from: PacketRef,
    to: PacketRef,
) -> Option<(PacketRef, PacketRef)> {
    let name = reversed(client)?;
    let flows = capture.flows.range(from..=to).map(|(_, flow)| flow);
    let questions = flows.filter(|flow| flow.facts.client.address == host && flow.facts.server.port == DNS);
    questions
        .filter(|flow| !flow.story.events().any(|e| matches!(&e.what, What::Dns(said) if said.response && e.at < to)))
        .find_map(|flow| {
            let asked = flow.story.events().find_map(|e| match &e.what {
                What::Dns(said) if !said.response && said.qtype == PTR && said.name.eq_ignore_ascii_case(&name) => {
                    Some(e.at)
                }
                _ => None,
            })?;
            Some((flow.facts.id, asked))
        })
}

/// The name under which the name of an IPv4 address stands (RFC 1035 §3.5).
fn reversed(address: Address) -> Option<String> {
    let text = address.is_v4().then(|| address.to_string())?;
    let mut parts: Vec<&str> = text.split('.').collect();
    parts.reverse();
    Some(format!("{}.in-addr.arpa", parts.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, dns_question};
    use crate::wire::text::Greeting;

    fn greeted(service: Protocol, ms: i64) -> Scene {
        let words = Greeting { text: "8.0.36".into(), code: None, refuses: false };
        let scene = Scene::between("10.0.0.1:40000", "10.0.0.2:3306").handshake().data(Side::Server, ms, 90);
        scene.speaks(Side::Server, service).also(Side::Server, What::Greeting(Box::new(words)))
    }

    #[test]
    fn a_greeting_after_five_seconds_is_a_warning_and_in_mail_a_notice() {
        let found = greeted(Protocol::Mysql, 5_002).check(&RULE).expect("late");
        assert_eq!((found.severity, found.evidence[0].at.number), (Severity::Warning, 4));
        assert_eq!(greeted(Protocol::Smtp, 5_002).check(&RULE).expect("late").severity, Severity::Notice);
    }

    #[test]
    fn quick_greetings_lost_ones_and_answers_are_silent() {
        assert!(greeted(Protocol::Mysql, 900).check(&RULE).is_none());
        assert!(greeted(Protocol::Mysql, 5_002).again(Side::Server, 5_300).check(&RULE).is_none());
        assert!(greeted(Protocol::Redis, 5_002).check(&RULE).is_none(), "Redis answers, it does not greet");
        let asked = Scene::between("10.0.0.1:40000", "10.0.0.2:3306").handshake().data(Side::Client, 3_000, 20);
        let words = Greeting { text: "8.0.36".into(), code: None, refuses: false };
        let asked = asked.data(Side::Server, 5_002, 90).speaks(Side::Server, Protocol::Mysql);
        assert!(asked.also(Side::Server, What::Greeting(Box::new(words))).check(&RULE).is_none());
    }

    #[test]
    fn a_name_that_the_server_asks_for_in_vain_is_the_reason() {
        let scene = greeted(Protocol::Smtp, 10_002);
        let finding = scene.check(&RULE).expect("late");
        let question = |name: &str| {
            let asked = Scene::starting("10.0.0.2:50000", "10.0.0.53:53", 9, 100).udp();
            asked.event(Side::Client, 0, dns_question(7, name, PTR))
        };
        let told =
            World::new().with(&scene).with(&question("1.0.0.10.in-addr.arpa")).corroborated(&RULE, finding.clone());
        let told = told.expect("kept");
        assert_eq!((told.severity, told.confidence, told.culprit), (Severity::Warning, Confidence::High, Culprit::Dns));
        let other = World::new().with(&scene).with(&question("9.0.0.10.in-addr.arpa")).corroborated(&RULE, finding);
        assert_eq!(other.expect("kept").severity, Severity::Notice);
    }
}
