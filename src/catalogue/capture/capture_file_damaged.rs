//! The file is cut off or has broken records: everything before the break was read.
//!
//! ## How tcpwhy knows
//! A record ends behind the end of the file, or says a length that no record can have, or the frames are of a link type that nobody
//! here reads. Every packet before it counts, and the report says how far it got.
//!
//! ## What it is not
//! - `capture-ends-early`: there the file ends properly between two records.
//!
//! ## What people see
//! Wireshark's "The capture file appears to have been cut short in the middle of a packet", tcpdump's "truncated dump file".
//!
//! ## False alarms it avoids
//! Only the last record incomplete means that tcpdump is still writing, or was killed: a notice.

use crate::capture::{CaptureInfo, Damage};
use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};

pub static RULE: Rule = Rule {
    id: "capture-file-damaged",
    title: "the file is cut off or has broken records",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the file is damaged after packet {packet}: everything before it was read",
    variants: &[
        "the last record of the file is incomplete; everything before it was read (packet {packets} is the last)",
        "frames of a link type that nobody here reads are left out: {frames} of {link}",
    ],
    users_see: &[
        "The capture file appears to have been cut short in the middle of a packet",
        "truncated dump file",
        "appears to be damaged or corrupt",
    ],
    do_first: &[Step {
        says: "Copy the file again after tcpdump has ended. Is it still damaged?",
        command: "capinfos -c -u {file}",
    }],
    not: &[("capture-ends-early", "the file does not end between two records")],
    cannot_show: &["the packets behind the damage"],
    sources: &["draft-ietf-opsawg-pcap §4", "draft-ietf-opsawg-pcapng §3.1"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> =
        capture.infos.iter().enumerate().filter_map(|(file, info)| damaged(capture, file as u16, info)).collect();
    found.extend(unreadable_link(capture));
    for (ordinal, finding) in found.iter_mut().enumerate() {
        finding.ordinal = ordinal as u32;
    }
    found
}

fn damaged(capture: &CaptureView<'_>, file: u16, info: &CaptureInfo) -> Option<Finding> {
    // A break in the middle says more than the incomplete last record.
    let worst = info.damage.iter().find(|damage| !damage.cut_at_end).or(info.damage.first())?;
    let at = last_before(capture, file, info, worst)?;
    let finding = RULE
        .about(
            Subject::Capture,
            at,
            None,
            format!("last packet before octet {} of the file: {}", worst.offset, worst.what),
        )
        .with("packet", worst.after_packet)
        .with("packets", info.packets)
        .with("file", plain_name(&info.file))
        .note(match worst.resumed_after {
            Some(octets) => format!("reading went on after {octets} octets"),
            None => "nothing behind it could be read".to_owned(),
        });
    let finding = if info.damage.len() > 1 {
        finding.note(format!("{} broken places in the file", info.damage.len()))
    } else {
        finding
    };
    Some(if worst.cut_at_end { finding.severity(Severity::Notice).variant(1) } else { finding })
}

/// The last packet before the damage; the first of the capture when the damage stands before every packet of its file.
fn last_before(capture: &CaptureView<'_>, file: u16, info: &CaptureInfo, damage: &Damage) -> Option<PacketRef> {
    if damage.after_packet == 0 {
        return capture.packets.first;
    }
    let time = if damage.after_packet == info.packets { info.last } else { info.first };
    Some(PacketRef { file, number: damage.after_packet, time: time? })
}

/// The file's name where it can stand in a command as it is, else a name to be replaced.
fn plain_name(file: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if file.starts_with('-') || file.is_empty() || !file.chars().all(plain) {
        "capture.pcap".into()
    } else {
        file.into()
    }
}

fn unreadable_link(capture: &CaptureView<'_>) -> Option<Finding> {
    let packets = capture.packets;
    let at = packets.unknown_link_first.filter(|_| packets.unknown_link > 0)?;
    let link = packets.unknown_links.keys().next().cloned().unwrap_or_default();
    let finding = RULE.about(Subject::Capture, at, None, "first frame of an unknown link type");
    Some(finding.with("frames", packets.unknown_link).with("link", link).with("file", "capture.pcap").variant(2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::time::Timestamp;

    fn world(damage: Damage) -> World {
        let mut world = World::new().with(&Scene::open());
        world.infos[0].packets = 12;
        (world.infos[0].first, world.infos[0].last) = (Some(Timestamp(0)), Some(Timestamp(9)));
        world.infos[0].damage.push(damage);
        world
    }

    fn broken(cut_at_end: bool) -> Damage {
        let what = "a record claims 3405691582 octets".into();
        Damage { after_packet: 12, offset: 4711, what, resumed_after: None, cut_at_end }
    }

    #[test]
    fn a_broken_record_is_a_warning_with_the_last_good_packet() {
        let findings = world(broken(false)).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].evidence[0].at.number), (Severity::Warning, 12));
    }

    #[test]
    fn an_incomplete_last_record_is_a_notice() {
        let findings = world(broken(true)).check(&RULE);
        assert_eq!((findings[0].severity, findings[0].variant), (Severity::Notice, 1));
    }

    #[test]
    fn a_sound_file_is_not_mentioned() {
        assert!(World::new().with(&Scene::open()).check(&RULE).is_empty());
    }

    #[test]
    fn frames_of_an_unknown_link_type_are_counted() {
        let mut world = World::new().with(&Scene::open());
        world.packets.unknown_link = 5;
        world.packets.unknown_link_first = world.packets.first;
        world.packets.unknown_links.insert("IEEE802_11".into(), 5);
        assert_eq!(world.check(&RULE)[0].variant, 2);
    }
}
