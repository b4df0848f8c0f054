//! A checker connects and closes again and again at fixed times: that is how load balancers ask whether a service is alive.
//!
//! ## How tcpwhy knows
//! One client opened connections to one port in fixed periods, and the commonest came at least three times. Most checks carry nothing
//! and the client closes first, some by RST to save a TIME_WAIT: those may have up to three periods, each within 10 % (HAProxy has
//! `inter`, `fastinter` and `downinter`). Checks that ask something have to come as a clock does: one period within 2 %.
//!
//! ## What it is not
//! - `port-scan`: there the ports are many.
//! - `closed-before-request`: there the server closes first.
//!
//! ## What people see
//! Nothing; short connections fill the access log.
//!
//! ## False alarms it avoids
//! Requests of users on the same port come at irregular times and are not counted. Cron jobs and monitoring look alike and are as
//! harmless. It is silent: it tells other rules that "the check passes while the traffic fails".

use std::collections::BTreeMap;

use crate::event::{PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Checks closer together than this are a burst, not a period.
const SHORTEST: Elapsed = Elapsed::millis(200);
/// Connections looked at for their times.
const LOOKED_AT: usize = 64;
/// Different periods one checker may have.
const PERIODS: usize = 3;

pub static RULE: Rule = Rule {
    id: "lb-health-check-noise",
    title: "a checker connects and closes at fixed times",
    severity: Severity::Silent,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    says: "{checker} checks {checked} every {period}: {count} short connections",
    not: &[("port-scan", "one port is asked, at fixed times")],
    cannot_show: &["whether the checker is a load balancer, a monitor or a cron job"],
    sources: &[
        "HAProxy inter, fastinter, downinter (default 2 s)",
        "[S1]: checks to one port pass while the traffic to another fails",
    ],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Connections of one client to one port.
#[derive(Default)]
struct Series {
    count: u64,
    starts: Vec<PacketRef>,
    /// They carried nothing and the client closed first.
    empty: bool,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let checks = periodic(capture).into_iter();
    checks.filter_map(|((client, server), (series, period))| finding(client, server, &series, period)).collect()
}

/// The connections that come as a clock does, and their period.
fn periodic(capture: &CaptureView<'_>) -> BTreeMap<(Address, Endpoint), (Series, Elapsed)> {
    let often = |&(_, times): &(Elapsed, u32)| times >= capture.thresholds.check_periods;
    let mut all: BTreeMap<(Address, Endpoint), (Series, Elapsed)> = BTreeMap::new();
    for (client, server, flows) in capture.pairs() {
        // Fewer connections have fewer periods between them than the rule asks for.
        if flows.len() <= capture.thresholds.check_periods as usize {
            continue;
        }
        let starts = || flows.iter().take(LOOKED_AT).map(|flow| flow.digest.id);
        if let Some((period, _)) = period(starts(), 1, 2).filter(often) {
            let series = Series { count: flows.len() as u64, starts: starts().collect(), empty: false };
            all.insert((client, server), (series, period));
        }
    }
    // The empty ones are remembered longer than the digests, and stay apart from users' connections of the same host.
    for (server, service) in &capture.services.by_end {
        for (client, empty) in &service.empty {
            let mut series = Series { count: empty.count, starts: empty.starts.clone(), empty: true };
            series.starts.sort_unstable();
            match period(series.starts.iter().copied(), PERIODS, 10).filter(often) {
                Some((period, _)) => _ = all.insert((*client, *server), (series, period)),
                None => _ = all.remove(&(*client, *server)),
            }
        }
    }
    all
}

/// The commonest period and how often it came, when every gap belongs to one of at most `most` periods, each within `percent`.
pub(in crate::catalogue) fn period(
    mut starts: impl Iterator<Item = PacketRef>,
    most: usize,
    percent: i64,
) -> Option<(Elapsed, u32)> {
    let mut periods: Vec<(Elapsed, u32)> = Vec::new();
    let mut before = starts.next()?;
    for start in starts {
        let gap = start.time.since(before.time);
        before = start;
        let same = periods.iter_mut().find(|(known, _)| (gap - *known).abs().0 <= known.0 / 100 * percent);
        if let Some((_, times)) = same {
            *times += 1;
        } else {
            periods.push((gap, 1));
        }
        if gap < SHORTEST || periods.len() > most {
            return None;
        }
    }
    periods.into_iter().max_by_key(|(_, times)| *times)
}

fn finding(client: Address, server: Endpoint, series: &Series, period: Elapsed) -> Option<Finding> {
    let first = *series.starts.first()?;
    let shows = if series.empty { "a connection that carries nothing" } else { "a short connection" };
    let mut finding = RULE
        .about(Subject::Flow(first), first, Some(Side::Client), shows)
        .with("checker", client)
        .with("checked", server)
        .with("period", period)
        .with("count", series.count);
    for pair in series.starts.windows(2).take(3) {
        let gap = pair[1].time.since(pair[0].time);
        finding = finding.cites(pair[1], Some(pair[1]), format!("the next one, {gap} later"));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn checks(times: &[i64]) -> Vec<Finding> {
        let mut world = World::new();
        for (n, start) in times.iter().enumerate() {
            let scene = Scene::starting("10.0.0.9:40000", "10.0.0.2:1080", n as u64 * 10 + 1, *start);
            world = world.with_good(&scene.handshake().rst(Side::Client, 3, crate::event::ResetKind::Abort, 0));
        }
        world.check(&RULE)
    }

    #[test]
    fn four_empty_connections_two_seconds_apart_are_checks() {
        let findings = checks(&[0, 2003, 4001, 6010]);
        assert_eq!((findings.len(), findings[0].severity), (1, Severity::Silent));
        assert_eq!(findings[0].evidence[1].shows, "the next one, 2.0 s later");
    }

    #[test]
    fn a_checker_may_have_three_periods() {
        assert_eq!(checks(&[0, 3000, 6000, 9000, 14_000, 15_000, 16_010]).len(), 1);
    }

    #[test]
    fn connections_that_carry_octets_have_to_come_as_a_clock_does() {
        let told = |times: &[i64]| {
            let mut world = World::new();
            for (n, start) in times.iter().enumerate() {
                let scene = Scene::starting("10.0.0.9:40000", "10.0.0.2:80", n as u64 * 10 + 1, *start).handshake();
                world = world.with_good(&scene.request(3, "GET", "/healthz", 40).response(4, 404, 90));
            }
            world.check(&RULE).len()
        };
        assert_eq!(told(&[0, 2003, 4001, 6010]), 1);
        assert_eq!(told(&[0, 1900, 3800, 10_200, 14_650, 19_100]), 0);
    }

    #[test]
    fn users_come_at_irregular_times() {
        assert!(checks(&[0, 300, 2400, 3100, 6500, 7800]).is_empty());
    }

    #[test]
    fn three_connections_have_two_periods_only() {
        assert!(checks(&[0, 2000, 4000]).is_empty());
    }
}
