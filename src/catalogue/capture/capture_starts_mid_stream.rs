//! Connections were already open when the capture began: how they were opened is not in the file.
//!
//! ## How tcpwhy knows
//! The first packet of a connection is no SYN. On such a connection no rule about the handshake, the beginning of TLS or a PROXY header
//! is asked.
//!
//! ## What it is not
//! - `capture-packet-loss`: that is about holes in the middle of the file, this about its beginning.
//!
//! ## What people see
//! Wireshark's "TCP ACKed unseen segment" at the top of the file.
//!
//! ## False alarms it avoids
//! It is a notice, never an incident. Late packets of connections that closed before the capture count as well: they too began earlier.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-starts-mid-stream",
    title: "connections were already open when the capture began",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "{mid} of {all} connections were already open when the capture began",
    users_see: &["TCP ACKed unseen segment"],
    do_first: &[Step {
        says: "Start the capture, then let the fault happen again. How old are the open connections?",
        command: "ss -tnoe state established",
    }],
    not: &[("capture-packet-loss", "the octets are missing at the beginning, not in the middle")],
    cannot_show: &["the handshake, the TLS hello and the PROXY header of those connections"],
    explains: &[
        Explains("stray-reset", Scope::Same),
        Explains("closed-without-answer", Scope::Same),
        Explains("http-invalid-response", Scope::Same),
    ],
    sources: &["RFC 9293 §3.5: a connection begins with a SYN"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let tally = capture.tally;
    let Some(first) = tally.mid_stream_first.filter(|_| tally.mid_stream > 0) else { return Vec::new() };
    let finding = RULE
        .about(Subject::Capture, first, None, "first packet of a connection, and no SYN")
        .with("mid", tally.mid_stream)
        .with("all", tally.flows);
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    #[test]
    fn a_connection_without_syn_is_noticed() {
        let scene = Scene::new().mid_stream();
        let mut world = World::new().with(&scene);
        (world.tally.mid_stream, world.tally.mid_stream_first) = (1, Some(scene.facts.id));
        let findings = world.check(&RULE);
        assert_eq!((findings[0].severity, findings[0].evidence[0].at.number), (Severity::Notice, 1));
    }

    #[test]
    fn connections_seen_from_their_syn_are_fine() {
        assert!(World::new().with(&Scene::open()).check(&RULE).is_empty());
    }
}
