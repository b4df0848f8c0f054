//! Packets were cut to their first octets: what came behind the cut cannot be read.
//!
//! ## How tcpwhy knows
//! The file says how long each packet was and how much of it was kept. At least one in a hundred packets with payload was cut.
//!
//! ## What it is not
//! - `capture-file-damaged`: the file is whole, it was made this way.
//!
//! ## What people see
//! Wireshark's "Packet size limited during capture".
//!
//! ## False alarms it avoids
//! A deliberate `-s 96` for privacy is no fault: everything about TCP still holds. Certificates, HTTP heads and PROXY TLVs behind the
//! cut are unreadable, and rules about them keep silent.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-snaplen-truncated",
    title: "packets were cut to their first octets",
    severity: Severity::Notice,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "{cut} of {all} packets with payload were cut{length}: what stands behind is unreadable",
    users_see: &["Packet size limited during capture"],
    do_first: &[Step { says: "Capture whole packets:", command: "sudo tcpdump -i any -s 0 -w /var/tmp/whole.pcap" }],
    not: &[("capture-file-damaged", "every record is complete as it was written")],
    cannot_show: &["certificates, HTTP heads and PROXY TLVs behind the cut"],
    explains: &[
        Explains("http-bad-request", Scope::Same),
        Explains("http-invalid-response", Scope::Same),
        Explains("unexpected-protocol-on-port", Scope::Same),
        Explains("proxy-header-malformed", Scope::Same),
    ],
    sources: &["tcpdump(1) -s: 262144 octets is the default"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Octets of the longest frame that segmentation offload makes of IPv4.
const MOST: u32 = 65_535;

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let tally = capture.tally;
    let Some((flow, at)) = tally.cut_first.filter(|_| tally.cut > 0) else { return Vec::new() };
    // One in a hundred: a few jumbo packets over the limit hide nothing that matters.
    if tally.cut.saturating_mul(100) < tally.payload_packets {
        return Vec::new();
    }
    let snaplen = capture.infos.iter().flat_map(|info| &info.interfaces).map(|interface| interface.snaplen);
    // A file that was cut afterwards keeps the length that it was taken with: no frame is as long as that.
    let snaplen = snaplen.filter(|octets| (1..=MOST).contains(octets)).min();
    let mut finding = RULE
        .about(Subject::Capture, at, None, "first packet whose payload was cut")
        .with("cut", tally.cut)
        .with("all", tally.payload_packets)
        .with("length", snaplen.map_or_else(String::new, |octets| format!(" to {octets} octets")));
    finding.evidence[0].flow = Some(flow);
    vec![finding]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn cut(cut: u64, of: u64) -> Vec<Finding> {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        (world.tally.cut, world.tally.payload_packets, world.tally.cut_first) = (cut, of, Some((first, last)));
        world.infos[0].interfaces[0].snaplen = 96;
        world.check(&RULE)
    }

    #[test]
    fn one_cut_packet_in_a_hundred_is_noticed() {
        let findings = cut(1, 100);
        assert_eq!(findings[0].values.get("length"), Some(&" to 96 octets".into()));
    }

    #[test]
    fn a_file_that_was_cut_afterwards_does_not_say_to_what() {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        (world.tally.cut, world.tally.payload_packets, world.tally.cut_first) = (50, 100, Some((first, last)));
        assert_eq!(world.check(&RULE)[0].values.get("length"), Some(&"".into()));
    }

    #[test]
    fn one_in_two_hundred_hides_nothing_that_matters() {
        assert!(cut(1, 200).is_empty());
    }
}
