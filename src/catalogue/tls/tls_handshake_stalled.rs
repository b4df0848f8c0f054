//! The server acknowledged the ClientHello and never answered it.
//!
//! ## How tcpwhy knows
//! The ClientHello is complete and acknowledged to its last octet, and then not one octet of the server came for 10 s: up to the end of the
//! capture, until somebody closed, or until it came after all. A client that gives up earlier counts if it waited for at least 1 s and 20
//! round trips; whether an answer would have come cannot be known then. Critical from 60 s on, and where the client gave up after 10 s (the
//! time that Go and many others allow for the handshake).
//!
//! ## What it is not
//! - Loss: there the ClientHello is not acknowledged (`rto-unrecovered`, `tls-clienthello-lost`).
//! - `tls-closed-after-clienthello`: there the server closes.
//! - `pmtu-blackhole`: the large first flight of the server is lost, small packets pass; it explains this one.
//! - `upstream-hang`: there a request waits.
//!
//! ## What people see
//! curl stops at `TLS handshake, Client hello (1)`; Go: `net/http: TLS handshake timeout`; openssl s_client prints `CONNECTED` and nothing more.
//!
//! ## False alarms it avoids
//! Octets of the server, seen or missing in the capture, a closed window, and a capture that ends too early make it silent. An answer that comes after
//! all is no critical finding.

use crate::event::{Kind, PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, offer, trust};

pub static RULE: Rule = Rule {
    id: "tls-handshake-stalled",
    title: "the server accepted the ClientHello and never answered",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::ClientHello, Kind::FirstPayloadAcknowledged]),
    claims_absence: true,
    says: "{server} took the ClientHello of {client_host} and gave no answer for {wait}",
    variants: &["{server} answered the ClientHello of {client_host} only after {wait}"],
    users_see: &[
        "TLS handshake, Client hello (1)",
        "net/http: TLS handshake timeout",
        "SSL connection timeout",
        "CONNECTED",
        "ERR_TIMED_OUT",
    ],
    do_first: &[
        Step {
            says: "Does {server} answer now? CONNECTED and nothing more is the fault.",
            command: "timeout 12 openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "On {host}: which program listens there, and how many wait in its queue (Recv-Q)?",
            command: "ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "Is {host} a TCP proxy? Then its backend does not answer: capture there, both legs.",
            command: "tcpdump -ni any -w /tmp/legs.pcap 'tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0 or tcp port {port}'",
        },
    ],
    verify: &[Step {
        says: "prints a certificate at once when it is mended:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("rto-unrecovered", "the ClientHello is acknowledged: path and kernel work")],
    cannot_show: &[
        "why the server's program is silent: it hangs, waits for a backend, or expects other first octets (no TLS, a PROXY header)",
    ],
    explains: &[Explains("tls-handshake-stalled", Scope::Link)],
    sources: &["RFC 8446 section 2", "measured on Redis 7.0"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    spoke_late: Some(spoke_late),
    ..Rule::BLANK
};

/// Variant of an answer that came late.
const LATE: u8 = 1;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (client, server) = (flow.client(), flow.server());
    if flow.facts.mid_stream || server.payload + server.unseen > 0 || client.unseen > 0 || flow.answer().is_some() {
        return None;
    }
    let (asked, _) = flow.client_hello()?;
    // Its later numbers say that it did answer: the path lost it.
    if server.never_came() > 0 {
        return None;
    }
    let delivered = client.acknowledged > 0 && client.unacknowledged.is_none_or(|waits| waits.len == 0);
    let by_server = flow.facts.closer.is_some_and(|(side, _)| side == Side::Server);
    if !delivered || by_server || client.zero_window_count + server.zero_window_count > 0 {
        return None;
    }
    let wait = flow.waited_since(asked);
    let gave_up = patience::client_gave_up(flow, asked, wait);
    let long = wait >= flow.thresholds.hang;
    if !long && gave_up.is_none() {
        return None;
    }
    let critical = wait >= flow.thresholds.hang_critical || long && gave_up.is_some();
    let acknowledged = client.first_payload_acked;
    let finding = RULE.found(flow, asked, Side::Client, "the ClientHello is complete").and_maybe(
        acknowledged,
        Side::Server,
        "its ACK: the server's kernel has it, then silence",
    );
    let mut finding = trust::named(finding, flow)
        .severity(if critical { Severity::Critical } else { Severity::Warning })
        .confidence(if long { Confidence::High } else { Confidence::Medium })
        .with("wait", wait);
    if flow.facts.closer.is_none() {
        finding = finding.with("until", flow.now);
    }
    if let Some(close) = gave_up {
        let word = flow.close_word(Side::Client);
        finding = finding.and(close, Side::Client, format!("{word} {wait} after the ClientHello: the client gives up"));
    }
    Some(if long { finding } else { patience::early(finding, wait, "an answer") })
}

/// The answer came after all: no outage that goes on.
fn spoke_late(finding: Finding, at: PacketRef) -> Finding {
    patience::came_late(finding, at, "the server's first octets", "the ClientHello", LATE)
}

/// Whether the port ever speaks TLS, and how many wait.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    // Judged while it was open, and afterwards the server's numbers said that it had answered.
    if own.facts.from_server.never_came() > 0 {
        return Keep::Drop;
    }
    if let Some(taken) = offer::taken(capture, own).next() {
        let version = crate::wire::tls::version_name(taken.chosen.version);
        offer::control(finding, &taken, version);
        finding.notes.push("the port does speak TLS: by time, by name or by client it was silent here".into());
    } else {
        let sentence = "no connection in this capture got TLS from this port: it may speak something else that waits for \
                        its own first words, or wait for a PROXY header";
        finding.notes.push(sentence.into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{makes, offer, other, takes};
    use crate::rule::testing::{Scene, World};
    use crate::time::Elapsed;

    fn waits() -> Scene {
        makes(Scene::open(), offer()).acked(Side::Client, 4)
    }

    #[test]
    fn silence_of_a_minute_is_critical_and_of_ten_seconds_a_warning() {
        let found = waits().capture_ends(61_003).check(&RULE).expect("stalled");
        assert_eq!((found.severity, found.confidence), (Severity::Critical, Confidence::High));
        assert_eq!((found.evidence[0].at.number, found.evidence[1].at.number), (4, 5));
        assert_eq!(waits().capture_ends(12_003).check(&RULE).expect("stalled").severity, Severity::Warning);
    }

    #[test]
    fn a_client_that_gives_up_after_ten_seconds_was_not_served() {
        let found = waits().fin(Side::Client, 10_010).check(&RULE).expect("stalled");
        assert_eq!((found.severity, found.confidence), (Severity::Critical, Confidence::High));
        let early = waits().fin(Side::Client, 3_010).check(&RULE).expect("stalled");
        assert_eq!((early.severity, early.confidence), (Severity::Warning, Confidence::Medium));
        assert!(waits().fin(Side::Client, 400).check(&RULE).is_none());
    }

    #[test]
    fn short_silence_lost_octets_answers_and_closes_of_the_server_are_silent() {
        assert!(waits().capture_ends(9_000).check(&RULE).is_none());
        assert!(makes(Scene::open(), offer()).again(Side::Client, 300).capture_ends(70_000).check(&RULE).is_none());
        assert!(takes(Scene::open(), offer(), 0x0303).capture_ends(70_000).check(&RULE).is_none());
        assert!(waits().fin(Side::Server, 12_000).check(&RULE).is_none());
        let mut holed = waits().capture_ends(70_000);
        holed.facts.from_server.unseen = 1400;
        assert!(holed.check(&RULE).is_none());
        let mut lost = waits().capture_ends(70_000);
        lost.facts.from_server.next = lost.facts.from_server.next.map(|next| next.plus(4000));
        assert!(lost.check(&RULE).is_none(), "the server's numbers say that it answered");
    }

    #[test]
    fn an_answer_that_comes_after_all_takes_the_alarm_back() {
        let found = waits().capture_ends(61_003).check(&RULE).expect("stalled");
        let answer = PacketRef { file: 0, number: 9, time: found.first().time + Elapsed::secs(70) };
        let late = spoke_late(found, answer);
        assert_eq!((late.severity, late.variant), (Severity::Warning, LATE));
    }

    #[test]
    fn a_connection_that_got_tls_is_the_control() {
        let scene = waits().capture_ends(61_003);
        let finding = scene.check(&RULE).expect("stalled");
        let world = World::new().with(&scene).with(&takes(other(50, "10.0.0.9:40000"), offer(), 0x0303));
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert!(told.notes[0].contains("does speak TLS"), "{:?}", told.notes);
    }
}
