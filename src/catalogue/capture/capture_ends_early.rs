//! The capture stops before the outcome is known: something still waited for less time than an answer may take.
//!
//! ## How tcpwhy knows
//! At the last packet of the file a SYN, a request or a segment was unanswered, and its *first* copy was younger than the time from
//! which silence means something (3 s). A retry in the last packet does not make the end early: six SYNs over 7 s are an answer.
//!
//! ## What it is not
//! - `upstream-hang` and `connect-timeout`: those need enough silence inside the capture.
//!
//! ## What people see
//! A report that says "undecided" for the very connection they asked about.
//!
//! ## False alarms it avoids
//! It is a notice. A file rotated by `tcpdump -G` or `-C` ends early for every open connection: read the next file with it.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-ends-early",
    title: "the capture stops before the outcome is known",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the capture ends while {waiting} for an answer or an acknowledgment, the longest for {since}",
    variants: &["the capture ends while {waiting} for an answer or an acknowledgment to its last packet"],
    users_see: &["undecided"],
    do_first: &[Step {
        says: "Capture longer than the longest timeout: 65 s covers nginx, Apache and ALB, 135 s a connect:",
        command: "sudo timeout -s INT 135 tcpdump -i any -s 0 -w /var/tmp/longer.pcap",
    }],
    not: &[
        ("upstream-hang", "too little silence is inside the capture"),
        ("connect-timeout", "too little silence is inside the capture"),
    ],
    cannot_show: &["whether an answer came after the last packet"],
    explains: &[
        Explains("upstream-hang", Scope::Same),
        Explains("connect-timeout", Scope::Same),
        Explains("dns-no-answer", Scope::Same),
        Explains("http-request-incomplete", Scope::Same),
        Explains("half-closed-stuck", Scope::Same),
        Explains("tls-handshake-stalled", Scope::Same),
        Explains("both-sides-wait", Scope::Same),
    ],
    sources: &["RFC 6298 §2: the second SYN comes after 1 s", "RFC 9293 §3.8.6.3: an acknowledgment may take 500 ms"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let tally = capture.tally;
    let Some((flow, waits)) = tally.ends_early_example.filter(|_| tally.ends_early > 0) else { return Vec::new() };
    let since = capture.end.since(waits.time);
    let mut finding = RULE
        .about(Subject::Capture, waits, None, format!("unanswered when the capture ended {since} later"))
        .with(
            "waiting",
            if tally.ends_early == 1 {
                "1 connection waits".to_owned()
            } else {
                format!("{} connections wait", tally.ends_early)
            },
        )
        .with("since", since);
    finding.evidence[0].flow = Some(flow);
    vec![match capture.packets.last {
        Some(last) if last != waits => finding.cites(last, None, "last packet of the capture"),
        _ => finding.variant(1),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    #[test]
    fn a_request_that_waits_at_the_end_is_noticed() {
        let scene = Scene::open().request(3, "GET", "/", 40).capture_ends(500);
        let mut world = World::new().with(&scene);
        let waits = scene.facts.from_client.first_payload.expect("the request");
        (world.tally.ends_early, world.tally.ends_early_example) = (1, Some((scene.facts.id, waits)));
        let findings = world.check(&RULE);
        assert_eq!((findings[0].severity, findings[0].evidence[0].at.number), (Severity::Notice, 4));
    }

    #[test]
    fn what_waits_may_be_the_last_packet() {
        let mut world = World::new().with(&Scene::open());
        world.tally.ends_early = 1;
        world.tally.ends_early_example = world.packets.last.map(|last| (last, last));
        assert_eq!(world.check(&RULE)[0].variant, 1);
    }

    #[test]
    fn a_capture_in_which_nothing_waits_ends_in_time() {
        assert!(World::new().with(&Scene::open()).check(&RULE).is_empty());
    }
}
