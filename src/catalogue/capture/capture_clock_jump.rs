//! The capture's clock ran backwards: times across that place cannot be trusted.
//!
//! ## How tcpwhy knows
//! A packet is more than 1 ms older than the one before it on the same interface.
//!
//! ## What it is not
//! - Files of two interfaces are in order only within one interface; that alone is no jump.
//!
//! ## What people see
//! Negative times in Wireshark, answers before their questions, a delay of exactly the step.
//!
//! ## False alarms it avoids
//! Steps below 1 ms come from several receive queues of one network card. They are not counted.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-clock-jump",
    title: "timestamps go backwards",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Capture,
    says: "the capture's clock ran backwards {times} times, by up to {step}: delays across it are wrong",
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
    sources: &["pcapng §4.3: packets of several interfaces need not be in order of time"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let packets = capture.packets;
    if packets.clock_steps == 0 || packets.clock_step_max.abs() <= capture.thresholds.clock_step {
        return Vec::new();
    }
    let Some((before, after)) = packets.clock_step_first else { return Vec::new() };
    let back = before.time.since(after.time).abs();
    let finding = RULE
        .about(Subject::Capture, after, None, format!("{back} older than the packet before it"))
        .cites(before, None, "the packet before it")
        .with("times", packets.clock_steps)
        .with("step", packets.clock_step_max.abs());
    vec![finding]
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

    #[test]
    fn a_millisecond_is_the_order_of_receive_queues() {
        assert!(step(Elapsed::millis(1)).is_empty());
    }
}
