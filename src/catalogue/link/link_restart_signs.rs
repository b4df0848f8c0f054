//! Traces of a link or a switch port that came back.
//!
//! ## How tcpwhy knows
//! A bridge announced a change of the spanning tree; or at least three hosts introduced themselves within 10 s (ARP announcements, probes
//! for duplicates, router solicitations, DHCP without an address, LLDP). Hosts do so when their link comes up.
//!
//! ## What it is not
//! A fault: it dates the return of a link, and supports `network-blackout`. Frames of the nearest switch tell of the near link only.
//!
//! ## What people see
//! Nothing, or a gap that has just ended.
//!
//! ## False alarms it avoids
//! It is a notice only and never a root. Fewer than three hosts are ordinary life.

use std::collections::BTreeSet;

use crate::host::link::{Sign, SignKind};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};
use crate::time::Elapsed;
use crate::wire::Mac;

/// Hosts that introduce themselves together.
const HOSTS: usize = 3;
/// Within this time.
const BURST: Elapsed = Elapsed::secs(10);

pub static RULE: Rule = Rule {
    id: "link-restart-signs",
    title: "traces of a link or switch port that came back",
    severity: Severity::Notice,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    says: "{hosts} hosts introduce themselves within {after}: a link or switch came back",
    variants: &["a bridge says that the spanning tree changes: a link went or came"],
    do_first: &[Step {
        says: "On the host: when did the link go and come?",
        command: "journalctl -k --since -1h --grep 'Link is|link becomes'",
    }],
    not: &[("network-blackout", "it only dates the return of a link")],
    sources: &["IEEE 802.1D-2004 §9.3", "RFC 5227 §3", "RFC 4862 §5.4.2", "[S4]"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let signs = &capture.neighbors.signs.kept;
    let change = signs.iter().find(|sign| sign.kind == SignKind::TopologyChange);
    let mut findings: Vec<Finding> = change.map(|sign| begun(sign).variant(1)).into_iter().collect();
    findings.extend(burst(signs));
    findings.sort_by_key(Finding::first);
    findings
}

fn begun(sign: &Sign) -> Finding {
    RULE.about(Subject::Capture, sign.at, None, shows(sign))
}

fn shows(sign: &Sign) -> String {
    match sign.from {
        Some(mac) => format!("{mac}: {}", sign.kind.says()),
        None => sign.kind.says().into(),
    }
}

/// The first time at which enough hosts introduce themselves together.
fn burst(signs: &[Sign]) -> Option<Finding> {
    let signs: Vec<(&Sign, Mac)> = signs
        .iter()
        .filter(|sign| sign.kind != SignKind::TopologyChange)
        .filter_map(|sign| Some((sign, sign.from?)))
        .collect();
    for (from, (first, _)) in signs.iter().enumerate() {
        let within: Vec<_> =
            signs.iter().skip(from).take_while(|(sign, _)| sign.at.time.since(first.at.time) <= BURST).collect();
        let hosts: BTreeSet<Mac> = within.iter().map(|(_, mac)| *mac).collect();
        if hosts.len() < HOSTS {
            continue;
        }
        let mut finding = begun(first).with("hosts", hosts.len() as u64);
        let mut told: BTreeSet<Mac> = first.from.into_iter().collect();
        let mut last = first.at;
        for (sign, mac) in &within {
            if told.insert(*mac) {
                last = sign.at;
                if finding.evidence.len() < 8 {
                    finding = finding.cites(sign.at, None, shows(sign));
                }
            }
        }
        return Some(finding.with("after", last.time.since(first.at.time)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::rule::testing::World;
    use crate::time::Timestamp;

    fn world(signs: &[(i64, SignKind, u8)]) -> World {
        let mut world = World::new();
        world.neighbors.signs.kept = signs
            .iter()
            .map(|(ms, kind, host)| {
                let at =
                    PacketRef { file: 0, number: *ms as u64 + 1, time: Timestamp::default() + Elapsed::millis(*ms) };
                Sign { at, kind: *kind, from: Some(Mac([2, 0, 0, 0, 0, *host])) }
            })
            .collect();
        world
    }

    #[test]
    fn three_hosts_within_ten_seconds_are_a_link_that_came_back() {
        let signs = [
            (0, SignKind::Announcement, 1),
            (100, SignKind::Probe, 1),
            (3000, SignKind::RouterSolicitation, 2),
            (9000, SignKind::DhcpRequest, 3),
        ];
        let findings = world(&signs).check(&RULE);
        assert_eq!((findings.len(), findings[0].evidence.len(), findings[0].severity), (1, 3, Severity::Notice));
    }

    #[test]
    fn a_change_of_the_spanning_tree_is_one_sign_enough() {
        assert_eq!(world(&[(0, SignKind::TopologyChange, 1)]).check(&RULE)[0].variant, 1);
    }

    #[test]
    fn two_hosts_or_a_minute_in_between_are_ordinary_life() {
        let two = [(0, SignKind::Announcement, 1), (100, SignKind::Announcement, 2), (200, SignKind::Announcement, 1)];
        assert!(world(&two).check(&RULE).is_empty());
        let slow = [(0, SignKind::Announcement, 1), (20_000, SignKind::Probe, 2), (40_000, SignKind::Probe, 3)];
        assert!(world(&slow).check(&RULE).is_empty());
    }
}
