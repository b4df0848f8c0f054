//! Both sides wait for the other to speak first: the connection stands and nobody says a word.
//!
//! ## How tcpwhy knows
//! The handshake is complete, and not one octet goes either way for 10 s: up to the end of the capture, or until somebody closes. The port is
//! one on which the server speaks first (SSH, SMTP, FTP, IMAP, POP3, MySQL), so its client is right to be silent. A client that gives up
//! earlier counts if it waited for at least 1 s and 20 round trips. Where the same port greeted others in the capture it is surer; where it
//! speaks something else, nothing is said. Critical from 60 s on, and where somebody gave up after 10 s.
//!
//! ## What it is not
//! - A browser that opens a connection beforehand, a pool that is idle: on ports where the client speaks first, silence is no fault.
//! - `closed-before-request`: there the server closes at once.
//! - `accept-queue-overflow`: there the server's kernel does not even acknowledge the client's FIN; such connections are not counted here.
//!
//! ## What people see
//! ssh: `Connection timed out during banner exchange`; MySQL: `Lost connection to MySQL server at 'reading initial communication packet'`;
//! mail: `timed out while receiving the initial server greeting`.
//!
//! ## False alarms it avoids
//! Checks that connect and leave within a second, ports where clients speak first, octets that the capture lost, and a capture that ends
//! early.

use crate::event::{Kind, Side};
use crate::flow::facts::Handshake;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch;
use crate::rule::patience;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "both-sides-wait",
    title: "both sides wait for the other to speak first",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Established]),
    claims_absence: true,
    says: "{client_host} waits for the greeting of {service} and {server} says nothing: not one octet either way in {wait}",
    users_see: &[
        "Connection timed out during banner exchange",
        "Lost connection to MySQL server at 'reading initial communication packet'",
        "timed out while receiving the initial server greeting",
        "ssh_exchange_identification: read: Connection timed out",
    ],
    do_first: &[
        Step {
            says: "Does {server} greet now, and after how long?",
            command: "time timeout 20 nc -d {host} {port} | head -n 1",
        },
        Step {
            says: "On {host}: which program listens there? A proxy that inspects first octets, or wants a PROXY header, waits for the client:",
            command: "sudo ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "On {host}, if HAProxy or nginx stands there: what does it wait for?",
            command: "grep -rnE 'inspect-delay|accept-proxy|ssl_preread|proxy_protocol' /etc/haproxy /etc/nginx",
        },
    ],
    verify: &[Step {
        says: "prints the greeting at once when it is mended:",
        command: "timeout 5 nc -d {host} {port}",
    }],
    not: &[("connect-timeout", "the handshake is complete"), ("network", "the handshake passed in both directions")],
    cannot_show: &[
        "why the server is silent: it waits for the client's octets, hangs, or looks up the client's name first",
    ],
    explains: &[Explains("closed-before-request", Scope::Same), Explains("client-abandoned", Scope::Same)],
    sources: &["RFC 4253 §4.2, RFC 5321 §3.1", "measured: HAProxy 2.6 with inspect-delay in front of OpenSSH 9.2"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    if client.payload + client.unseen + server.unseen > 0 || heard(flow) {
        return None;
    }
    let opened = flow.facts.established.filter(|_| flow.facts.handshake == Handshake::Full)?;
    let protocol = mismatch::by_number(flow.facts.server.port).filter(|known| mismatch::greets_first(*known))?;
    let wait = flow.waited_since(opened);
    let gave_up = patience::gave_up(flow, wait);
    let long = wait >= flow.thresholds.hang && (gave_up.is_some() || flow.facts.closer.is_none());
    if !long && gave_up.is_none_or(|(side, _)| side != Side::Client) || ignored(flow) {
        return None;
    }
    let critical = wait >= flow.thresholds.hang_critical || long && gave_up.is_some();
    let mut finding = RULE
        .found(flow, opened, Side::Client, "the handshake is complete, and nobody speaks")
        .severity(if critical { Severity::Critical } else { Severity::Warning })
        .with("service", protocol.name())
        .with("wait", wait);
    match gave_up {
        Some((side, close)) => {
            let who = if side == Side::Client { "the client gives up" } else { "the server gives up" };
            finding = finding.and(close, side, format!("{} {wait} later: {who}", flow.close_word(side)));
            finding =
                finding.and_maybe(server.first_payload, Side::Server, "its first octets: nobody waits for them now");
        }
        None => finding = finding.with("until", flow.now),
    }
    Some(if long { finding } else { patience::early(finding, wait, "a greeting") })
}

/// The server spoke while somebody waited. A proxy that inspects first octets goes on when the client gives up, and a program that hung
/// greets who is gone.
fn heard(flow: &FlowView<'_>) -> bool {
    flow.answer().is_some_and(|first| !flow.facts.closer.is_some_and(|(side, at)| side == Side::Client && at < first))
}

/// The server's kernel leaves the client's FIN unanswered: it never took the connection.
fn ignored(flow: &FlowView<'_>) -> bool {
    let client = flow.client();
    client.fin.is_some_and(|fin| client.fin_acked.is_none() && flow.server().last.is_none_or(|last| last < fin))
}

/// Whether the port ever greeted anybody.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    let Some(service) = capture.service(&server) else { return Keep::Yes };
    let spoke = service.plain.iter().min_by_key(|(_, spoke)| spoke.first);
    match spoke {
        Some((protocol, spoke)) if mismatch::greets_first(*protocol) => {
            finding.confidence = finding.confidence.raised();
            *finding = finding.clone().with("service", protocol.name());
            mismatch::cite_control(finding, spoke, &format!("{} greeted", protocol.name()));
        }
        Some(_) => return Keep::Drop,
        None => {
            let sentence =
                "no connection in this capture was greeted by this port: by its number it should greet first";
            finding.notes.push(sentence.into());
        }
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::{Scene, World};

    fn open(port: u16) -> Scene {
        Scene::between("10.0.0.1:40000", &format!("10.0.0.2:{port}")).handshake()
    }

    #[test]
    fn silence_of_a_minute_on_a_port_that_greets_is_critical_and_of_ten_seconds_a_warning() {
        let found = open(22).capture_ends(61_003).check(&RULE).expect("nobody speaks");
        assert_eq!((found.severity, found.confidence), (Severity::Critical, Confidence::Medium));
        assert_eq!(found.evidence[0].at.number, 3);
        assert_eq!(open(25).capture_ends(12_003).check(&RULE).expect("silent").severity, Severity::Warning);
    }

    #[test]
    fn who_gives_up_after_ten_seconds_was_not_served() {
        for side in [Side::Client, Side::Server] {
            let scene = open(22).fin(side, 12_003).acked(side, 12_004);
            assert_eq!(scene.check(&RULE).expect("given up").severity, Severity::Critical, "{side:?}");
        }
        let early = open(22).fin(Side::Client, 3_003).acked(Side::Client, 3_004).check(&RULE).expect("given up");
        assert_eq!(early.severity, Severity::Warning);
    }

    #[test]
    fn checks_clients_that_speak_first_and_a_short_wait_are_silent() {
        assert!(open(22).fin(Side::Client, 300).acked(Side::Client, 301).check(&RULE).is_none());
        assert!(open(443).capture_ends(70_000).check(&RULE).is_none());
        assert!(open(22).capture_ends(9_000).check(&RULE).is_none());
        assert!(open(22).data(Side::Server, 900, 40).capture_ends(70_000).check(&RULE).is_none());
        assert!(open(22).fin(Side::Server, 3_000).check(&RULE).is_none(), "the server closes: closed-before-request");
    }

    #[test]
    fn a_greeting_for_a_client_that_is_gone_is_none() {
        let scene = open(21).fin(Side::Client, 12_003).acked(Side::Client, 12_004).data(Side::Server, 12_005, 20);
        let found = scene.check(&RULE).expect("it came too late");
        assert_eq!(found.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [3, 4, 6]);
    }

    #[test]
    fn a_fin_that_the_server_never_acknowledges_is_a_full_queue() {
        assert!(open(22).fin(Side::Client, 12_003).capture_ends(20_000).check(&RULE).is_none());
    }

    #[test]
    fn others_that_were_greeted_make_it_surer_and_another_protocol_drops_it() {
        let scene = open(22).capture_ends(61_003);
        let finding = scene.check(&RULE).expect("nobody speaks");
        let good = |protocol| {
            Scene::starting("10.0.0.9:40000", "10.0.0.2:22", 40, 50)
                .handshake()
                .data(Side::Server, 3, 41)
                .speaks(Side::Server, protocol)
                .data(Side::Client, 4, 41)
                .speaks(Side::Client, protocol)
        };
        let world = World::new().with(&scene).with_good(&good(Protocol::Ssh));
        assert_eq!(world.corroborated(&RULE, finding.clone()).expect("kept").confidence, Confidence::High);
        let other = World::new().with(&scene).with_good(&good(Protocol::Http));
        assert!(other.corroborated(&RULE, finding).is_none());
    }
}
