//! Sizes and checksums in the file are the network card's work in progress, not what was on the wire.
//!
//! ## How tcpwhy knows
//! A segment is larger than the peer's MSS allows, or a good part of the TCP checksums is wrong. Both happen where the capture sits
//! before the card cuts segments (TSO, GSO) or fills in checksums, and behind the card that joins them (GRO, LRO).
//!
//! ## What it is not
//! - `corrupt-segments`: damage on the path hits a few segments, never a tenth of them, and the receiver does not acknowledge those.
//! - `pmtu-blackhole`: a large segment here says nothing about sizes on the wire.
//!
//! ## What people see
//! Wireshark's red "incorrect, should be … (maybe caused by "TCP checksum offload"?)" and packets of 7 or 60 kB.
//!
//! ## False alarms it avoids
//! Wrong checksums of a far host came over the wire: the capturing host's card has nothing to do with them. It is a notice, and it takes
//! such segments out of every rule about corruption and packet size.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-offload-artifacts",
    title: "segment sizes and checksums are the network card's, not the wire's",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the capture was made beside the network card's offload: segments exceed the MSS ({oversized})",
    variants: &[
        "the capture was made beside the network card's offload: checksums are not filled in ({wrong} of {looked} looked at)",
    ],
    users_see: &["maybe caused by \"TCP checksum offload\"?", "Checksum incorrect"],
    do_first: &[Step {
        says: "Harmless. Which offloads does the card do? Only the wire's view needs them off:",
        command: "ethtool -k eth0",
    }],
    not: &[
        ("corrupt-segments", "the receivers acknowledge these segments"),
        ("pmtu-blackhole", "sizes above the MSS never were on the wire"),
    ],
    cannot_show: &["the sizes and checksums on the wire"],
    explains: &[Explains("corrupt-segments", Scope::Same)],
    sources: &["Linux Documentation/networking/segmentation-offloads.rst"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    oversized(capture).or_else(|| checksums(capture)).into_iter().collect()
}

fn oversized(capture: &CaptureView<'_>) -> Option<Finding> {
    let tally = capture.tally;
    let (flow, at) = tally.oversized_first.filter(|_| tally.oversized > 0)?;
    let finding = RULE.about(Subject::Capture, at, None, "segment larger than the peer's MSS");
    let finding =
        finding.with("oversized", tally.oversized).with("wrong", tally.bad_checksums).with("looked", tally.checksums);
    let finding = match tally.bad_checksum_first.filter(|_| many_wrong(capture)) {
        Some((flow, wrong)) => finding.cites(wrong, Some(flow), "first checksum that is not filled in"),
        None => finding,
    };
    Some(in_flow(finding, flow))
}

fn checksums(capture: &CaptureView<'_>) -> Option<Finding> {
    let (flow, at) = capture.tally.bad_checksum_first.filter(|_| many_wrong(capture))?;
    let finding = RULE.about(Subject::Capture, at, None, "first checksum that is not filled in");
    Some(in_flow(
        finding.with("wrong", capture.tally.bad_checksums).with("looked", capture.tally.checksums).variant(1),
        flow,
    ))
}

/// Offload leaves out every checksum of the sending host; damage on a path that still works hits far fewer than one in ten.
fn many_wrong(capture: &CaptureView<'_>) -> bool {
    let tally = capture.tally;
    tally.bad_checksums > 0 && tally.bad_checksums.saturating_mul(10) >= tally.checksums
}

fn in_flow(mut finding: Finding, flow: crate::event::PacketRef) -> Finding {
    finding.evidence[0].flow = Some(flow);
    finding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn world(oversized: u64, wrong: u64, looked: u64) -> Vec<Finding> {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        (world.tally.oversized, world.tally.oversized_first) = (oversized, Some((first, last)));
        (world.tally.bad_checksums, world.tally.checksums) = (wrong, looked);
        world.tally.bad_checksum_first = Some((first, last));
        world.check(&RULE)
    }

    #[test]
    fn segments_above_the_mss_are_offload() {
        assert_eq!(world(12, 0, 40)[0].variant, 0);
    }

    #[test]
    fn checksums_wrong_by_the_half_are_offload() {
        assert_eq!(world(0, 20, 40)[0].variant, 1);
    }

    #[test]
    fn one_wrong_checksum_among_many_is_no_offload() {
        assert!(world(0, 1, 400).is_empty());
    }
}
