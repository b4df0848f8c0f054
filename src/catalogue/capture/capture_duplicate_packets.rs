//! The same packets were recorded more than once: the copies are the capture's, not the network's.
//!
//! ## How tcpwhy knows
//! Two records within 1 ms hold the same IP packet: same IP identification, sequence number and payload, the TTL equal or one less.
//! Copies are left out before any rule about TCP looks; only `asymmetric-return-path` compares interfaces before that.
//!
//! ## What it is not
//! - `spurious-retransmission`: a packet that was sent again has a new IP identification or comes a retransmission timeout later.
//! - One connection under two addresses (before and after NAT, in front of and behind a sidecar) is no duplicate.
//!
//! ## What people see
//! Wireshark full of "TCP Retransmission" and "TCP Dup ACK" while everything works.
//!
//! ## False alarms it avoids
//! It takes 5 % of the packets. An IP identification of 0 is common on Linux, so checksum and timestamps have to be equal too.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-duplicate-packets",
    title: "the same packet was recorded more than once",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Capture,
    says: "{copies} of {all} packets are second copies that the capture made; they are left out",
    users_see: &["TCP Retransmission", "TCP Dup ACK", "TCP Out-Of-Order"],
    do_first: &[Step {
        says: "Any bridge, veth or bond on this host shows a packet 2 to 4 times with -i any. Choose one interface:",
        command: "ip -br link",
    }],
    not: &[("spurious-retransmission", "the copies carry the same IP identification within 1 ms")],
    explains: &[
        Explains("spurious-retransmission", Scope::Same),
        Explains("reordering", Scope::Same),
        Explains("packet-loss", Scope::Same),
        Explains("zero-window", Scope::Same),
    ],
    sources: &["RFC 6864: the IP identification of a packet that may not be fragmented can be anything"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let (copies, all) = (capture.tally.duplicates, capture.packets.tcp + capture.packets.udp);
    let many = copies.saturating_mul(100) >= all.saturating_mul(u64::from(capture.thresholds.duplicate_percent));
    let Some((original, copy)) = capture.tally.duplicate_example.filter(|_| copies > 0 && many) else {
        return Vec::new();
    };
    let later = copy.time.since(original.time);
    let finding = RULE
        .about(Subject::Capture, original, None, "a packet")
        .cites(copy, None, format!("the same packet again, {later} later"))
        .with("copies", copies)
        .with("all", all);
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn copies(copies: u64, of: u64) -> Vec<Finding> {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        world.tally.duplicates = copies;
        world.tally.duplicate_example = Some((first, last));
        world.packets.tcp = of;
        world.check(&RULE)
    }

    #[test]
    fn every_second_packet_twice_is_noticed_with_an_example() {
        let findings = copies(50, 100);
        assert_eq!((findings[0].evidence.len(), findings[0].severity), (2, Severity::Notice));
    }

    #[test]
    fn four_in_a_hundred_are_not_worth_a_word() {
        assert!(copies(4, 100).is_empty());
    }
}
