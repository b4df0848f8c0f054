//! Two machines answer for one IP address.
//!
//! ## How tcpwhy knows
//! Answers or announcements give one address two link addresses in turns (A, B, A) within a minute; or one question gets two answers from
//! different link addresses within a second, which is certain; an announcement that nobody asked for is no such answer.
//!
//! ## What it is not
//! - `gateway-moved`: one change from A to B is a takeover.
//!
//! ## What people see
//! Connections that are refused, reset or time out now and then; SSH says that the host key has changed.
//!
//! ## False alarms it avoids
//! Virtual link addresses of VRRP, CARP and HSRP; what requests say of their senders; a host with two interfaces in one network that
//! answers on both (Linux `arp_ignore=0`): a notice.

use std::collections::BTreeMap;

use crate::event::PacketRef;
use crate::host::neighbor::{Answered, Known};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Mac};

/// Turns within this time.
const TURNS: Elapsed = Elapsed::secs(60);
/// Two answers to one question within this time.
const TWICE: Elapsed = Elapsed::secs(1);

pub static RULE: Rule = Rule {
    id: "duplicate-address",
    title: "two machines answer for one IP address",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    says: "two machines answer for {host}: {mac} and {other_mac}",
    variants: &[
        "this host answers for {host} with two of its interfaces, {mac} and {other_mac}",
        "{host} and another address are answered for by {mac} and {other_mac} alike: one host with two interfaces",
    ],
    users_see: &[
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Connection refused",
        "Connection timed out",
        "duplicate address detected",
    ],
    do_first: &[
        Step { says: "On a host of that link: do two link addresses answer?", command: "arping -D -c 3 {host}" },
        Step { says: "On a Linux bridge or host: behind which port is {other_mac}?", command: "bridge fdb show" },
    ],
    verify: &[Step { says: "prints one link address only, each time:", command: "arping -c 5 {host}" }],
    not: &[("gateway-moved", "both answer in turns, neither took over for good")],
    cannot_show: &["which of both machines has the address by right"],
    explains: &[
        Explains("stray-reset", Scope::Hop),
        Explains("handshake-reset-by-client", Scope::Hop),
        Explains("rto-unrecovered", Scope::Hop),
        Explains("connect-slow", Scope::Hop),
        Explains("gateway-moved", Scope::Hop),
        Explains("connect-refused", Scope::Hop),
        Explains("service-down", Scope::Hop),
        Explains("server-reset-mid-response", Scope::HopTime),
        Explains("http-upstream-reset-before-response", Scope::HopTime),
        Explains("http-upstream-closed-before-response", Scope::HopTime),
        Explains("connect-timeout", Scope::Hop),
    ],
    sources: &["RFC 5227 §2.4", "RFC 9568 §8.1.2", "Linux arp_ignore, arp_announce"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let known = capture.neighbors.by_address.iter();
    let mut found: Vec<(Address, Clash<'_>)> =
        known.filter_map(|(address, known)| Some((*address, clash(known)?))).collect();
    found.sort_by_key(|(_, clash)| clash.at.first().copied());
    // Two hosts that have the same two addresses each are one host, whose interfaces answer for each other.
    let pair = |clash: &Clash<'_>| (clash.one.mac.min(clash.other.mac), clash.one.mac.max(clash.other.mac));
    let mut pairs: BTreeMap<(Mac, Mac), usize> = BTreeMap::new();
    found.iter().for_each(|(_, clash)| *pairs.entry(pair(clash)).or_default() += 1);
    for (_, clash) in &mut found {
        clash.crosswise = pairs.get(&pair(clash)).is_some_and(|addresses| *addresses > 1);
    }
    (0_u32..).zip(found).filter_map(|(number, (address, clash))| told(number, address, &clash)).collect()
}

/// The packets that show it, and whose they are.
struct Clash<'a> {
    one: &'a Answered,
    other: &'a Answered,
    at: Vec<PacketRef>,
    certain: bool,
    /// The same two answer for another address as well.
    crosswise: bool,
}

fn clash(known: &Known) -> Option<Clash<'_>> {
    let real: Vec<&Answered> = known.answers.iter().filter(|answered| !is_virtual(answered.mac)).collect();
    let mut all: Vec<(PacketRef, &Answered)> = Vec::new();
    for answered in &real {
        all.extend(answered.times.first.iter().chain(&answered.times.last).map(|at| (*at, *answered)));
    }
    all.sort_by_key(|(at, _)| *at);
    all.dedup_by_key(|(at, _)| *at);
    let asked = |from: PacketRef, to: PacketRef| {
        let asks = known.askers.values().flat_map(|times| &times.first);
        let (mut before, mut between) = (false, false);
        for ask in asks {
            before |= *ask < from && from.time.since(ask.time) <= TWICE;
            between |= *ask > from && *ask < to;
        }
        before && !between
    };
    let twice = all.windows(2).find(|pair| {
        let [(from, one), (to, other)] = pair else { return false };
        one.mac != other.mac
            && to.time.since(from.time) <= TWICE
            && !announced(one, *from)
            && !announced(other, *to)
            && asked(*from, *to)
    });
    if let Some([(from, one), (to, other)]) = twice {
        return Some(Clash { one, other, at: vec![*from, *to], certain: true, crosswise: false });
    }
    // A, B, A: the turns, not the packets, are compared.
    all.dedup_by_key(|(_, answered)| answered.mac);
    let turns =
        all.windows(3).find(|turn| turn[0].1.mac == turn[2].1.mac && turn[2].0.time.since(turn[0].0.time) <= TURNS)?;
    Some(Clash {
        one: turns[0].1,
        other: turns[1].1,
        at: turns.iter().map(|(at, _)| *at).collect(),
        certain: false,
        crosswise: false,
    })
}

/// The packet answers no question. A host announces its address when it boots and when it takes one over; what it answers afterwards counts.
fn announced(answered: &Answered, at: PacketRef) -> bool {
    answered.announced.first.contains(&at) || answered.announced.last == Some(at)
}

/// VRRP and CARP (RFC 9568 §8.1.2), HSRP versions 1 and 2.
fn is_virtual(mac: Mac) -> bool {
    matches!(mac.0, [0, 0, 0x5e, 0, 1 | 2, _] | [0, 0, 0x0c, 0x07, 0xac, _] | [0, 0, 0x0c, 0x9f, 0xf0..=0xff, _])
}

fn told(number: u32, address: Address, clash: &Clash<'_>) -> Option<Finding> {
    let (first, rest) = clash.at.split_first()?;
    let shows = |answered: &Answered| format!("{address} is at {}", answered.mac);
    let mut finding = RULE.about(Subject::Host(number), *first, None, shows(clash.one));
    for (at, answered) in rest.iter().zip([clash.other, clash.one]) {
        finding = finding.cites(*at, None, shows(answered));
    }
    let finding = finding
        .with("host", address)
        .with("mac", clash.one.mac.to_string())
        .with("other_mac", clash.other.mac.to_string());
    if clash.one.own && clash.other.own {
        let flux = "both link addresses are this host's own: two interfaces in one network (arp_ignore=0)";
        return Some(finding.severity(Severity::Notice).variant(1).note(flux));
    }
    if clash.crosswise {
        let flux = "both are in one network, and each answers for all addresses of its host (arp_ignore=0)";
        return Some(finding.severity(Severity::Notice).variant(2).note(flux));
    }
    let finding = if clash.certain {
        finding.confidence(Confidence::Certain).note("one question got two answers")
    } else {
        finding.note("the address changes to and fro between them")
    };
    Some(finding.reaches(Reach { hosts: vec![address], ..Reach::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::neighbor::Times;
    use crate::rule::testing::{World, host};
    use crate::time::Timestamp;

    fn at(ms: i64) -> PacketRef {
        PacketRef { file: 0, number: ms as u64 + 1, time: Timestamp::default() + Elapsed::millis(ms) }
    }

    fn times(ms: &[i64]) -> Times {
        Times {
            count: ms.len() as u64,
            first: ms.iter().map(|ms| at(*ms)).collect(),
            last: ms.last().map(|ms| at(*ms)),
        }
    }

    /// Questions, answers of each host, and which hosts' answers were announcements.
    fn announcing(asked: &[i64], list: &[([u8; 6], &[i64], bool)], announced: &[(usize, &[i64])]) -> Vec<Finding> {
        let mut world = World::new();
        let known = world.neighbors.by_address.entry(host("10.0.0.2")).or_default();
        known.askers.insert(host("10.0.0.1"), times(asked));
        let answered = |(mac, ms, own): &([u8; 6], &[i64], bool)| Answered {
            mac: Mac(*mac),
            times: times(ms),
            unasked: 0,
            announced: Times::default(),
            own: *own,
        };
        known.answers = list.iter().map(answered).collect();
        announced.iter().for_each(|(host, ms)| {
            known.answers[*host].announced = times(ms);
            known.answers[*host].unasked = ms.len() as u64;
        });
        world.check(&RULE)
    }

    fn answers(asked: &[i64], list: &[([u8; 6], &[i64], bool)]) -> Vec<Finding> {
        announcing(asked, list, &[])
    }

    const A: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 2];

    #[test]
    fn interfaces_that_answer_for_each_other_are_one_host() {
        let both = |crosswise: bool| {
            let mut world = World::new();
            for (address, own) in [("10.0.0.2", true), ("10.0.0.3", crosswise)] {
                let known = world.neighbors.by_address.entry(host(address)).or_default();
                known.askers.insert(host("10.0.0.1"), times(&[0]));
                let macs = if own { vec![A, B] } else { vec![A] };
                known.answers = macs
                    .iter()
                    .zip([1, 2])
                    .map(|(mac, ms)| Answered {
                        mac: Mac(*mac),
                        times: times(&[ms]),
                        unasked: 0,
                        announced: Times::default(),
                        own: false,
                    })
                    .collect();
            }
            world.check(&RULE).iter().map(|finding| finding.severity).max()
        };
        assert_eq!((both(true), both(false)), (Some(Severity::Notice), Some(Severity::Critical)));
    }

    #[test]
    fn two_answers_to_one_question_are_certain() {
        let findings = answers(&[0], &[(A, &[1], false), (B, &[2], false)]);
        assert_eq!((findings[0].confidence, findings[0].evidence.len()), (Confidence::Certain, 2));
    }

    #[test]
    fn turns_within_a_minute_are_a_clash_and_one_move_is_a_takeover() {
        let turns = answers(&[0, 9_000, 20_000], &[(A, &[1, 20_001], false), (B, &[9_001], false)]);
        assert_eq!((turns[0].confidence, turns[0].evidence.len()), (Confidence::High, 3));
        assert!(answers(&[0, 9_000], &[(A, &[1], false), (B, &[9_001, 20_001], false)]).is_empty());
    }

    #[test]
    fn a_host_that_announced_itself_at_boot_is_told_by_its_answers() {
        let both: &[([u8; 6], &[i64], bool)] = &[(A, &[1, 90_001], false), (B, &[90_002], false)];
        let findings = announcing(&[0, 90_000], both, &[(0, &[1])]);
        assert_eq!((findings[0].confidence, findings[0].evidence.len()), (Confidence::Certain, 2));
    }

    #[test]
    fn who_announces_that_it_takes_over_did_not_answer() {
        let both: &[([u8; 6], &[i64], bool)] = &[(A, &[1], false), (B, &[2, 9_001], false)];
        assert!(announcing(&[0, 9_000], both, &[(1, &[2])]).is_empty());
    }

    #[test]
    fn a_hosts_own_two_interfaces_are_a_notice() {
        let findings = answers(&[0], &[(A, &[1], true), (B, &[2], true)]);
        assert_eq!((findings[0].severity, findings[0].variant), (Severity::Notice, 1));
    }

    #[test]
    fn virtual_link_addresses_of_routers_are_left_out() {
        assert!(answers(&[0], &[(A, &[1], false), ([0, 0, 0x5e, 0, 1, 7], &[2], false)]).is_empty());
    }
}
