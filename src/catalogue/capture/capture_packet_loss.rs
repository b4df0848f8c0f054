//! The capture missed packets that were on the wire: a hole in the file is no hole in the network.
//!
//! ## How tcpwhy knows
//! A receiver acknowledged octets that the file never shows it getting. It had them, so they passed; the capture lost them. Three such
//! acknowledgments are enough. Or the file itself says that the kernel or the interface dropped packets (pcapng interface statistics).
//!
//! ## What it is not
//! - `packet-loss`: there the network lost the octets, and the sender repeats them.
//! - `capture-one-sided`: there every octet of one side is missing, not some.
//!
//! ## What people see
//! Wireshark's "TCP ACKed unseen segment" and "TCP Previous segment not captured".
//!
//! ## False alarms it avoids
//! The first packets of connections that were open before the capture began, the one direction of a one-sided capture, and a hole that
//! a late or repeated segment fills. A tcpdump killed at once loses its last unwritten block: that is no hole either.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "capture-packet-loss",
    title: "the capture missed packets that were on the wire",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Capture,
    says: "the capture missed packets: {missing} octets were acknowledged that it lacks ({share})",
    variants: &["the capturing host dropped {drops} packets: what the file lacks may have been on the wire"],
    users_see: &["TCP ACKed unseen segment", "TCP Previous segment not captured", "packets dropped by kernel"],
    do_first: &[Step {
        says: "Capture again with a larger buffer, only the heads of packets, to a fast disk; does it still drop?",
        command: "sudo tcpdump -i any -B 65536 -s 128 -w /var/tmp/again.pcap",
    }],
    verify: &[Step {
        says: "a counter of dropped or missed packets that grows while capturing is the interface's own loss:",
        command: "ip -s link show",
    }],
    not: &[
        ("packet-loss", "the receiver has the octets: it acknowledged them"),
        ("capture-one-sided", "other octets of the same direction are in the file"),
    ],
    cannot_show: &["what the missing packets held"],
    explains: &[
        Explains("packet-loss", Scope::Time),
        Explains("http-response-truncated", Scope::Time),
        Explains("tls-fatal-alert", Scope::Time),
        Explains("http-invalid-response", Scope::Time),
        Explains("upstream-hang", Scope::Time),
        Explains("dns-no-answer", Scope::Time),
        Explains("connect-timeout", Scope::Time),
    ],
    sources: &[
        "Wireshark expert information tcp.analysis.ack_lost_segment",
        "Zeek missed_bytes",
        "pcapng §4.6 isb_ifdrop, isb_osdrop",
    ],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    holes(capture).or_else(|| drops(capture)).into_iter().collect()
}

fn holes(capture: &CaptureView<'_>) -> Option<Finding> {
    let tally = capture.tally;
    if tally.unseen_acks < u64::from(capture.thresholds.capture_loss_acks) {
        return None;
    }
    let (flow, at) = tally.unseen_first?;
    let thousandths = tally.unseen.saturating_mul(1000) / tally.acknowledged.max(1);
    let mut finding = RULE
        .about(Subject::Capture, at, None, "ACK of octets that the file does not hold")
        .with("missing", Value::Octets(tally.unseen))
        .with("share", share(tally.unseen, tally.acknowledged))
        .note(format!("{} acknowledgments cover octets that the file does not hold", tally.unseen_acks))
        // Below one in a thousand the other rules still see enough.
        .severity(if thousandths >= 1 { Severity::Warning } else { Severity::Notice });
    finding.evidence[0].flow = Some(flow);
    Some(finding)
}

fn drops(capture: &CaptureView<'_>) -> Option<Finding> {
    let drops: u64 = capture.infos.iter().filter_map(|info| info.drops).sum();
    let last = capture.packets.last.filter(|_| drops > 0)?;
    let shows = format!("last packet: by now the capturing host had dropped {drops}");
    Some(RULE.about(Subject::Capture, last, None, shows).with("drops", drops).variant(1))
}

fn share(part: u64, whole: u64) -> String {
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    if percent < 0.1 { "less than 0.1 %".to_owned() } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn lossy(acks: u64, unseen: u64) -> World {
        let mut world = World::new().with(&Scene::open());
        let (first, last) = (world.packets.first.expect("a packet"), world.packets.last.expect("a packet"));
        (world.tally.unseen_acks, world.tally.unseen, world.tally.acknowledged) = (acks, unseen, 1_000_000);
        world.tally.unseen_first = Some((first, last));
        world
    }

    #[test]
    fn three_acknowledgments_of_unseen_octets_make_the_capture_lossy() {
        let findings = lossy(3, 4344).check(&RULE);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert_eq!(findings[0].evidence[0].at.number, 3);
        assert_eq!(findings[0].values.get("share"), Some(&Value::Text("0.4 %".into())));
    }

    #[test]
    fn two_acknowledgments_may_be_the_edge_of_the_file() {
        assert!(lossy(2, 4344).check(&RULE).is_empty());
    }

    #[test]
    fn less_than_a_thousandth_is_a_notice() {
        assert_eq!(lossy(3, 120).check(&RULE)[0].severity, Severity::Notice);
    }

    #[test]
    fn drops_that_the_file_reports_are_enough() {
        let mut world = World::new().with(&Scene::open());
        world.infos[0].drops = Some(17);
        assert_eq!(world.check(&RULE)[0].variant, 1);
        world.infos[0].drops = Some(0);
        assert!(world.check(&RULE).is_empty());
    }
}
