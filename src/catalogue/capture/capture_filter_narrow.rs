//! The file holds TCP and nothing beside it: what ICMP, ARP and DNS would tell is missing.
//!
//! ## How tcpwhy knows
//! There is TCP, and not one packet of ICMP, ARP or DNS in the whole file. Every "no ICMP was seen" then means less, and the report says so
//! where an answer is missing or the path or the names are to blame, or where the file itself names its filter.
//!
//! ## What it is not
//! - `capture-has-nothing`: packets are there.
//! - `capture-one-sided`: both directions are there.
//!
//! ## What people see
//! Nothing. The capture was made with a filter such as `tcp port 443`.
//!
//! ## False alarms it avoids
//! A short and quiet capture may hold no other packet without any filter: it is a notice of medium confidence unless the file names its
//! filter, and nothing at all where every answer came: then nobody misses what is not there. Traffic inside one host (loopback) never has
//! ARP and is left out.

use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};

pub static RULE: Rule = Rule {
    id: "capture-filter-narrow",
    title: "the file holds only part of the protocols needed",
    severity: Severity::Notice,
    confidence: Confidence::Medium,
    culprit: Culprit::Capture,
    says: "the capture holds no ICMP, no ARP and no DNS at all: a filter may have hidden them",
    do_first: &[Step {
        says: "Capture again with what tells about the path and the names:",
        command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /var/tmp/wide.pcap 'tcp or icmp or icmp6 or arp or port 53'",
    }],
    not: &[("capture-has-nothing", "TCP is there, other protocols are missing")],
    cannot_show: &["ICMP errors, address resolution and name resolution"],
    sources: &["RFC 1122 §4.2.3.9: ICMP tells why a connection fails", "RFC 826"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let packets = capture.packets;
    if packets.tcp == 0 || packets.icmp > 0 || packets.arp > 0 || packets.dns > 0 {
        return Vec::new();
    }
    let mut servers = capture.services.by_end.keys();
    if servers.len() > 0 && servers.all(|end| end.address.is_loopback()) {
        return Vec::new();
    }
    let filter = capture.infos.iter().flat_map(|info| &info.interfaces).find_map(|interface| interface.filter.clone());
    if filter.is_none() && !missed(capture) {
        return Vec::new();
    }
    let (Some(first), Some(last)) = (packets.first, packets.last) else { return Vec::new() };
    let mut finding = RULE.about(Subject::Capture, first, None, "first packet").cites(
        last,
        None,
        format!("last packet: of {} not one is ICMP, ARP or DNS", packets.read - packets.filtered),
    );
    if let Some(filter) = filter {
        finding = finding.confidence(Confidence::High).note("the file names the filter it was made with");
        finding.values.set("filter", Value::Packet(filter));
    } else if !capture.asked.is_empty() {
        finding = finding.note(format!("only a part was asked for: {}", capture.asked));
    }
    vec![finding]
}

/// Something failed to come, or the path or the names are to blame: what is missing would have told why.
fn missed(capture: &CaptureView<'_>) -> bool {
    let absent = |finding: &Finding| crate::catalogue::rule(&finding.rule).is_some_and(|rule| rule.claims_absence);
    let beyond = |finding: &Finding| matches!(finding.culprit, Culprit::Network | Culprit::Dns);
    let weighs = |finding: &Finding| finding.severity >= Severity::Warning && (absent(finding) || beyond(finding));
    capture.flows.values().any(|flow| flow.findings.iter().any(weighs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn world(server: &str) -> World {
        let mut scene = Scene::between("10.0.0.1:40000", server).handshake();
        let finding = RULE.about(Subject::Capture, scene.facts.id, None, "").culprit(Culprit::Network);
        scene.findings.push(finding.severity(Severity::Warning));
        let mut world = World::new().with(&scene);
        (world.packets.read, world.packets.tcp) = (3, 3);
        world
    }

    #[test]
    fn tcp_alone_is_noticed() {
        assert_eq!(world("10.0.0.2:443").check(&RULE)[0].confidence, Confidence::Medium);
    }

    #[test]
    fn where_everything_went_well_nobody_misses_it() {
        let mut world = World::new().with(&Scene::between("10.0.0.1:40000", "10.0.0.2:443").handshake());
        (world.packets.read, world.packets.tcp) = (3, 3);
        assert!(world.check(&RULE).is_empty());
        world.infos[0].interfaces[0].filter = Some("tcp port 443".into());
        assert_eq!(world.check(&RULE).len(), 1);
    }

    #[test]
    fn a_file_that_names_its_filter_makes_it_likely() {
        let mut world = world("10.0.0.2:443");
        world.infos[0].interfaces[0].filter = Some("tcp port 443".into());
        assert_eq!(world.check(&RULE)[0].confidence, Confidence::High);
    }

    #[test]
    fn one_arp_packet_shows_that_the_filter_was_wide() {
        let mut world = world("10.0.0.2:443");
        world.packets.arp = 1;
        assert!(world.check(&RULE).is_empty());
    }

    #[test]
    fn traffic_inside_one_host_has_no_arp() {
        assert!(world("127.0.0.1:443").check(&RULE).is_empty());
    }
}
