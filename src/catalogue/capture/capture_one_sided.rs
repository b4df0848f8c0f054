//! Only one direction of the traffic is in the file: nobody can say here what the other side answered.
//!
//! ## How tcpwhy knows
//! At least nine of ten connections with payload show one direction only, and the acknowledgments in it advance: the side that is not
//! in the file does answer.
//!
//! ## What it is not
//! - `asymmetric-return-path`: there the other direction is in the file, on another interface or from another link address.
//! - `connect-timeout`: a lone SYN has no acknowledgment that could advance. With only such SYNs nobody can tell whether no answer came
//!   or this tap does not see answers.
//!
//! ## What people see
//! Wireshark shows requests without responses, or "TCP ACKed unseen segment" on every line.
//!
//! ## False alarms it avoids
//! One connection alone counts only with ten segments of payload. A capture filter such as `src host`, one member of a bond mirrored
//! alone, and a mirror port that copies only one way are the usual reasons: the network may be well.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

/// A single one-sided connection says something about the tap only from here.
const SEGMENTS_OF_A_LONE_FLOW: u64 = 10;

pub static RULE: Rule = Rule {
    id: "capture-one-sided",
    title: "only one direction of the traffic is in the file",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Capture,
    says: "{sided} of {all} connections show one direction only: the other is missing in this capture",
    users_see: &["TCP ACKed unseen segment", "requests without responses in Wireshark"],
    do_first: &[Step {
        says: "Capture on the host itself, all interfaces; on a mirror port copy both receive and transmit:",
        command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /var/tmp/both.pcap",
    }],
    verify: &[Step {
        says: "more than one default route, or a route by another interface, sends answers another way:",
        command: "ip route show",
    }],
    not: &[
        ("asymmetric-return-path", "the other direction is on no interface of this capture"),
        ("connect-timeout", "acknowledgments advance, so answers do come"),
    ],
    cannot_show: &["what the unseen side sent, and when"],
    explains: &[
        Explains("connect-timeout", Scope::Same),
        Explains("dns-no-answer", Scope::Same),
        Explains("upstream-hang", Scope::Same),
        Explains("return-path-lost", Scope::Same),
        Explains("rto-unrecovered", Scope::Same),
        Explains("stateful-drop-after-handshake", Scope::Same),
        Explains("neighbor-unresolved", Scope::Same),
        Explains("asymmetric-return-path", Scope::Same),
    ],
    sources: &["[S0], seen on one interface only"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    one_sided(capture).into_iter().collect()
}

fn one_sided(capture: &CaptureView<'_>) -> Option<Finding> {
    let tally = capture.tally;
    let (sided, all) = (tally.one_sided, tally.tcp_with_payload);
    let most = sided.saturating_mul(100) >= all.saturating_mul(u64::from(capture.thresholds.one_sided_percent));
    let enough = sided >= 2 || tally.one_sided_segments >= SEGMENTS_OF_A_LONE_FLOW;
    let (flow, ack) = tally.one_sided_example.filter(|_| sided > 0 && most && enough)?;
    Some(
        RULE.about(Subject::Capture, flow, None, "first packet of a connection with one direction")
            .cites(ack, Some(flow), "its acknowledgment number covers octets of the unseen side")
            .with("sided", sided)
            .with("all", all),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn sided(one_sided: u64, with_payload: u64, segments: u64) -> Vec<Finding> {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        world.tally.tcp_with_payload = with_payload;
        world.tally.one_sided = one_sided;
        world.tally.one_sided_segments = segments;
        world.tally.one_sided_example = Some((first, last));
        world.check(&RULE)
    }

    #[test]
    fn nine_of_ten_connections_with_one_direction_make_the_capture_one_sided() {
        let findings = sided(9, 10, 9);
        assert_eq!((findings.len(), findings[0].evidence.len()), (1, 2));
    }

    #[test]
    fn a_few_one_sided_connections_among_many_are_not_the_tap() {
        assert!(sided(8, 10, 80).is_empty());
    }

    #[test]
    fn a_lone_connection_needs_ten_segments() {
        assert!(sided(1, 1, 9).is_empty());
        assert_eq!(sided(1, 1, 10).len(), 1);
    }
}
