//! The file, or the part of it that was asked for, holds no packet: nothing can be said about the trouble.
//!
//! ## How tcpwhy knows
//! It read the whole file and counted. Either there was no packet record at all, or none passed `--filter`, `--since` and the others.
//!
//! ## What it is not
//! - `capture-file-damaged`: there packets were lost with the file.
//! - `capture-filter-narrow`: there packets are, only whole protocols are missing.
//! - `network-blackout`: there this host goes on sending and nobody answers.
//!
//! ## What people see
//! An empty tcpdump while everything hangs. That excludes some things: at this point nobody opened, repeated or closed a connection in
//! that time, for a retry, a keep-alive probe or a FIN would show. It does not exclude a hang: an established connection on which both
//! sides wait sends nothing, for ever.
//!
//! ## False alarms it avoids
//! A wrong interface, another network namespace, a typing error in the filter, VLAN tags (`vlan and (…)`), `--since` in another time
//! zone, or a tcpdump that was killed before it wrote its first block all look like this. Rule them out before you trust the silence.

use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};
use crate::time::Timestamp;

pub static RULE: Rule = Rule {
    id: "capture-has-nothing",
    title: "the file, or the part that was asked for, holds no packet",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the capture holds no packet at all",
    variants: &["nothing that was asked for is in the capture: {packets} packets of others in {span}"],
    users_see: &["an empty tcpdump while everything hangs", "0 packets captured", "0 packets received by filter"],
    do_first: &[
        Step {
            says: "Do connections stand open and silent? Both sides may wait for ever without a packet:",
            command: "ss -tno state established",
        },
        Step {
            says: "Does this interface carry the traffic? Other interfaces of this host:",
            command: "sudo tcpdump -D",
        },
    ],
    verify: &[Step {
        says: "prints packets of every interface of this host as they come, 20 of them:",
        command: "sudo tcpdump -i any -nn -c 20",
    }],
    not: &[
        ("capture-filter-narrow", "packets would be there, and only protocols would be missing"),
        ("network-blackout", "this host would go on sending"),
    ],
    cannot_show: &["established connections on which both sides wait: they send nothing"],
    sources: &["[S3]: an empty tcpdump beside hundreds of hanging requests"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let packets = capture.packets;
    if packets.read > packets.filtered {
        return Vec::new();
    }
    let (Some(first), Some(last)) = (packets.filtered_first, packets.filtered_last) else {
        return vec![empty(capture)];
    };
    let finding = RULE
        .about(Subject::Capture, first, None, "first packet of the capture: not of what was asked for")
        .cites(last, None, format!("last packet: all {} are of others", packets.read))
        .with("packets", packets.read)
        .with("span", last.time.since(first.time))
        .note(format!("asked for: {}", capture.asked))
        .note("nobody asked for opened, repeated or closed a connection here in that time")
        .variant(1);
    vec![finding]
}

/// The one finding without a packet: it cites number 0 of the first input, because there is none to cite.
fn empty(capture: &CaptureView<'_>) -> Finding {
    let nowhere = PacketRef { file: 0, number: 0, time: Timestamp::default() };
    let finding = RULE.about(Subject::Capture, nowhere, None, "no packet in the file");
    let broken = capture.infos.iter().flat_map(|info| &info.damage).next();
    match broken {
        Some(damage) => finding.note(format!("the file is damaged: {}", damage.what)),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    #[test]
    fn a_file_without_packets_is_said_to_be_empty() {
        let findings = World::new().check(&RULE);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].evidence[0].at.number, findings[0].variant), (0, 0));
    }

    #[test]
    fn a_filter_that_nothing_passes_cites_the_packets_of_others() {
        let mut world = World::new();
        (world.packets.read, world.packets.filtered, world.asked) = (40, 40, "--filter host 10.9.9.9".into());
        world.packets.filtered_first = Some(PacketRef { file: 0, number: 1, time: Timestamp(0) });
        world.packets.filtered_last = Some(PacketRef { file: 0, number: 40, time: Timestamp(5_000_000_000) });
        let findings = world.check(&RULE);
        assert_eq!((findings[0].variant, findings[0].last().number), (1, 40));
    }

    #[test]
    fn one_packet_that_was_asked_for_is_something() {
        let mut world = World::new().with(&Scene::open());
        (world.packets.read, world.packets.filtered) = (40, 37);
        assert!(world.check(&RULE).is_empty());
    }
}
