//! The capture's clock ran backwards, jumped or runs at a wrong rate: delays measured by it cannot be trusted.
//!
//! ## How tcpwhy knows
//! A packet is more than 1 ms older than the one before it on the same interface. Or on at least three connections the hosts' own clocks
//! (TCP timestamps, RFC 7323) say that another time has passed than the capture's clock does, by more than 20 %.
//!
//! ## What it is not
//! - Files of two interfaces are in order only within one interface; that alone is no jump.
//!
//! ## What people see
//! Negative times in Wireshark, answers before their questions, a delay of exactly the step.
//!
//! ## False alarms it avoids
//! Steps below 1 ms come from several receive queues of one network card. They are not counted. A pause in which nobody sends is no jump:
//! the hosts' clocks go on in it.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::tally::Tally;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-clock-jump",
    title: "timestamps go backwards, jump or run at a wrong rate",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Capture,
    says: "the capture's clock ran backwards {times}, by up to {step}: delays across it are wrong",
    variants: &["the capture's clock is wrong: {seen} by it are {told} by the hosts' clocks on {flows} connections"],
    users_see: &["negative time delta in Wireshark"],
    do_first: &[Step {
        says: "Does the capturing host step its clock? Merge files of two clocks only after correcting them:",
        command: "timedatectl status",
    }],
    verify: &[Step { says: "a step since the start is in the log of the time service:", command: "chronyc tracking" }],
    not: &[("capture-file-damaged", "every record is complete; only its time is wrong")],
    cannot_show: &["which of the two times is right"],
    explains: &[
        Explains("rtt-high-or-rising", Scope::Time),
        Explains("slow-response", Scope::Time),
        Explains("idle-flow-expired", Scope::Time),
        Explains("tls-slow-handshake", Scope::Time),
    ],
    sources: &[
        "RFC 7323 §5.4: the timestamp clock ticks once in 1 ms to 1 s",
        "pcapng §4.3: packets of several interfaces need not be in order of time",
    ],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    backwards(capture).or_else(|| skewed(capture)).into_iter().collect()
}

fn backwards(capture: &CaptureView<'_>) -> Option<Finding> {
    let packets = capture.packets;
    let (before, after) = packets.clock_step_first.filter(|_| packets.clock_steps > 0)?;
    if packets.clock_step_max.abs() <= capture.thresholds.clock_step {
        return None;
    }
    let back = before.time.since(after.time).abs();
    Some(
        RULE.about(Subject::Capture, after, None, format!("{back} older than the packet before it"))
            .cites(before, None, "the packet before it")
            .with(
                "times",
                if packets.clock_steps == 1 { "once".to_owned() } else { format!("{} times", packets.clock_steps) },
            )
            .with("step", packets.clock_step_max.abs()),
    )
}

fn skewed(capture: &CaptureView<'_>) -> Option<Finding> {
    let (first, last, told) =
        capture.tally.clock_skew_first.filter(|_| capture.tally.clock_skewed >= Tally::CLOCK_FLOWS)?;
    let seen = last.time.since(first.time);
    Some(
        RULE.about(Subject::Capture, first, None, "a packet with a TCP timestamp")
            .cites(last, None, format!("{seen} later by the capture's clock, {told} by the sender's"))
            .with("seen", seen)
            .with("told", told)
            .with("flows", capture.tally.clock_skewed)
            .variant(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::rule::testing::World;
    use crate::time::{Elapsed, Timestamp};

    fn step(back: Elapsed) -> Vec<Finding> {
        let mut world = World::new();
        let before = PacketRef { file: 0, number: 7, time: Timestamp(5_000_000_000) };
        let after = PacketRef { file: 0, number: 8, time: before.time - back };
        (world.packets.clock_steps, world.packets.clock_step_max) = (1, back);
        world.packets.clock_step_first = Some((before, after));
        world.check(&RULE)
    }

    #[test]
    fn a_packet_two_seconds_older_than_its_predecessor_is_a_jump() {
        let findings = step(Elapsed::secs(2));
        assert_eq!(findings[0].evidence[0].shows, "2.0 s older than the packet before it");
        assert_eq!(findings[0].evidence[0].at.number, 8);
    }

    fn skew(flows: u64) -> Vec<Finding> {
        let mut world = World::new();
        let first = PacketRef { file: 0, number: 1, time: Timestamp(0) };
        let last = PacketRef { file: 0, number: 90, time: first.time + Elapsed::secs(3603) };
        world.tally.clock_skewed = flows;
        world.tally.clock_skew_first = Some((first, last, Elapsed::secs(3)));
        world.check(&RULE)
    }

    #[test]
    fn three_connections_whose_hosts_disagree_with_the_capture_show_a_jump() {
        let findings = skew(3);
        assert_eq!(findings[0].evidence[1].shows, "60 min 3 s later by the capture's clock, 3.0 s by the sender's");
        assert_eq!(findings[0].variant, 1);
    }

    #[test]
    fn two_such_connections_may_be_two_odd_hosts() {
        assert!(skew(2).is_empty());
    }

    #[test]
    fn a_millisecond_is_the_order_of_receive_queues() {
        assert!(step(Elapsed::millis(1)).is_empty());
    }
}
