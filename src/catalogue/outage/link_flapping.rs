//! Connectivity goes down and comes back, again and again.
//!
//! ## How tcpwhy knows
//! The same hosts fall silent at least twice, each time as `network-blackout` requires: asked by several connections that repeat themselves,
//! and not heard for 5 s or more. When the times between the returns are alike, something reboots in a loop.
//!
//! ## What it is not
//! - Batch traffic with pauses: there nobody asks in the pauses.
//! - One outage (`network-blackout`); the first short one of a series belongs to it.
//!
//! ## What people see
//! Alerts that come and go, sessions that drop every few minutes.
//!
//! ## False alarms it avoids
//! Roaming and the migration of virtual machines make one gap of at most 2 s.

use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::view::{CaptureView, Known};
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

use super::silence::{Blackout, blackouts};

/// Gaps cited.
const CITED: usize = 8;

pub static RULE: Rule = Rule {
    id: "link-flapping",
    title: "connectivity goes down and comes back repeatedly",
    severity: Severity::Critical,
    culprit: Culprit::Network,
    says: "nothing came back from {whom} {count} times in {span}, {dark} in all; each time packets went out",
    variants: &[
        "{whom} heard nothing from any host {count} times in {span}, {dark} in all; each time it went on sending",
    ],
    users_see: &["alerts that come and go", "Connection timed out", "sessions that drop every few minutes"],
    do_first: &[Step {
        says: "Uptime and log of the switch next to {asker}, over an out-of-band console; did its link go down? On {asker}:",
        command: "ip -s link",
    }],
    verify: &[Step {
        says: "from {asker}, for five minutes; no packet may be lost:",
        command: "ping -c 300 -i 1 {peer}",
    }],
    cannot_show: &["which device goes down, and why"],
    explains: &[Explains("network-blackout", Scope::Hop)],
    sources: &["lobste.rs, 2018: a switch that rebooted in a loop"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let all = blackouts(capture);
    let mut series: Vec<Vec<&Blackout<'_>>> = Vec::new();
    for blackout in &all {
        let hosts = blackout.hosts();
        let alike = |known: &Blackout<'_>| {
            let same_kind = known.silences[0].quiet == blackout.silences[0].quiet && known.hop() == blackout.hop();
            same_kind && (known.hop().is_some() || known.hosts().iter().any(|host| hosts.contains(host)))
        };
        match series.iter_mut().find(|series| series.iter().any(|known| alike(known))) {
            Some(series) => series.push(blackout),
            None => series.push(vec![blackout]),
        }
    }
    let series = series.into_iter().filter(|series| series.len() >= 2);
    series.enumerate().map(|(n, series)| finding(n as u32, &series, capture)).collect()
}

fn finding(n: u32, series: &[&Blackout<'_>], capture: &CaptureView<'_>) -> Finding {
    let (first, last) = (series[0], series[series.len() - 1]);
    let spans: Vec<(Timestamp, Timestamp)> = series.iter().map(|blackout| blackout.span(capture.end)).collect();
    let dark = spans.iter().fold(Elapsed::ZERO, |sum, (from, until)| sum + until.since(*from));
    let (from, until) = (spans[0].0, spans[spans.len() - 1].1);
    let confidence = series.iter().map(|blackout| blackout.confidence()).max().unwrap_or(Confidence::Medium);
    let several = first.deaf() && first.others().len() > 1;
    let heard = first.silences[0].heard;
    let mut finding = RULE
        .about(Subject::Host(n), heard, None, "last packet before the first gap")
        .confidence(confidence)
        .variant(u8::from(several));
    for (blackout, (from, until)) in series.iter().zip(&spans).take(CITED) {
        let asks: u64 = blackout.silences.iter().map(|silence| silence.asks).sum();
        let text = format!("silent for {}: {asks} packets out, 0 in", until.since(*from));
        finding = finding.cites(blackout.silences[0].asked, None, text);
        if let Some(back) = blackout.until() {
            finding = finding.cites(back, None, "heard again");
        }
    }
    if let Some(period) = period(series) {
        finding = finding.note(format!("it returns every {period}: something reboots in a loop"));
    }
    let hosts = first.hosts();
    let others = first.others();
    let standing = last.until().map_or(Standing::GoesOn, Standing::Over);
    let silence = first.silences[0];
    let (asker, peer) = match first.deaf() || first.hop().is_some() {
        true => (silence.host, silence.others.first().copied().unwrap_or(hosts[0])),
        false => (others.first().copied().unwrap_or(hosts[0]), hosts[0]),
    };
    let mut reach = Reach { spans, standing, last_good: Some(heard), ..Reach::default() };
    let dark_hosts: Vec<_> = series.iter().flat_map(|blackout| blackout.hosts()).collect();
    reach.hosts = capture.neighbors.machines(&dark_hosts);
    (reach.flows, reach.of, reach.clients) = flows(&reach, capture);
    let asked_last = last.silences[0].asked_last;
    finding
        .with("whom", hosts.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join(", "))
        .with("count", series.len() as u64)
        .with("span", until.since(from))
        .with("dark", dark)
        .with("asker", asker)
        .with("peer", peer)
        .rules_out(
            "a paused capture",
            "outgoing packets were recorded in every gap",
            &[first.silences[0].asked, asked_last],
        )
        .rules_out(
            "pauses in the traffic",
            "connections repeated themselves in every gap",
            &[first.silences[0].repeated],
        )
        .reaches(reach)
}

/// Flows open in any of the gaps, all flows of these hosts, and the clients of the former.
fn flows(reach: &Reach, capture: &CaptureView<'_>) -> (u64, u64, u64) {
    let (mut hit, mut of, mut clients) = (0, 0, Vec::new());
    // Whatever the clients' ports.
    let held = |client: Address, server: &Endpoint| reach.holds(&Endpoint::new(client, 0), server);
    for (client, _, flows) in capture.pairs().filter(|(client, server, _)| held(*client, server)) {
        let open = |flow: &&Known<'_>| reach.during(flow.digest.id.time, flow.digest.last, Elapsed::ZERO);
        let open = flows.iter().filter(open).count() as u64;
        of += flows.len() as u64;
        hit += open;
        clients.extend((open > 0).then_some(client));
    }
    clients.dedup();
    (hit, of, clients.len() as u64)
}

/// The time between returns, when at least three of them are alike (within a fifth).
fn period(series: &[&Blackout<'_>]) -> Option<Elapsed> {
    let returns: Vec<Timestamp> = series.iter().filter_map(|blackout| blackout.until()).map(|at| at.time).collect();
    let gaps: Vec<Elapsed> = returns.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let (low, high) = (*gaps.iter().min()?, *gaps.iter().max()?);
    (gaps.len() >= 2 && (high.0 - low.0) * 5 <= high.0).then(|| Elapsed((low.0 + high.0) / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::PacketRef;
    use crate::host::grid::{Quiet, Silence};
    use crate::rule::testing::{World, host};

    fn gap(from: i64, length: i64) -> Silence {
        let at = |number: i64, secs: i64| PacketRef {
            file: 0,
            number: (from + number) as u64,
            time: Timestamp::default() + Elapsed::secs(secs),
        };
        Silence {
            host: host("10.0.0.1"),
            hop: None,
            quiet: Quiet::Deaf,
            heard: at(0, from),
            rate: 30,
            asked: at(1, from),
            asked_last: at(3, from + length - 1),
            asks: 40,
            repeats: 30,
            repeated: at(2, from + 1),
            flows: 5,
            repeating: 5,
            others: vec![host("192.0.2.1"), host("192.0.2.2")],
            arp: 0,
            arp_first: None,
            until: Some(at(4, from + length)),
        }
    }

    fn world(gaps: &[(i64, i64)]) -> World {
        let mut world = World::new();
        gaps.iter().for_each(|(from, length)| world.grid.keep(gap(*from, *length)));
        world.end = Timestamp::default() + Elapsed::secs(10_000);
        world
    }

    #[test]
    fn three_gaps_with_equal_returns_are_a_reboot_loop() {
        let findings = world(&[(100, 20), (350, 200), (600, 200), (850, 200)]).check(&RULE);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::Certain));
        assert_eq!(findings[0].values.get("count"), Some(&4u64.into()));
        assert!(world(&[(100, 200), (350, 200), (600, 200)]).check(&RULE)[0].notes[0].contains("reboots in a loop"));
    }

    #[test]
    fn one_gap_is_a_blackout_and_no_flapping() {
        assert!(world(&[(100, 200)]).check(&RULE).is_empty());
    }
}
