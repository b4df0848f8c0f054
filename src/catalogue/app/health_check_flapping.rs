//! A health check alternates between pass and fail: the server behind it is taken out and in again.
//!
//! ## How tcpwhy knows
//! One host connects to one server port at fixed times, as checkers do, and within five minutes the outcome changes at least three times
//! between pass (the port accepts and answers no error) and fail (refused, not answered, or an answer of 500 and above). Each outcome
//! holds for at least two checks in a row, as a checker counts before it acts.
//!
//! ## What it is not
//! - `service-down`: one outage, one change there and one back.
//! - `lb-health-check-noise`: checks that all end alike.
//!
//! ## What people see
//! "Server backend/web1 is DOWN", "is UP", and again; errors in waves; sessions that jump between servers.
//!
//! ## False alarms it avoids
//! Users' connections, which come at irregular times; a single failed check; one restart.

use crate::catalogue::close::lb_health_check_noise::period;
use crate::event::{PacketRef, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::Verdict;
use crate::rule::view::{CaptureView, Known};
use crate::rule::{Check, Rule, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "health-check-flapping",
    title: "a health check alternates between pass and fail",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Upstream,
    says: "the check of {checker} on {server} changed {changes} times between pass and fail in {span}",
    users_see: &["Server is DOWN", "Server is UP", "Health check failed", "errors in waves"],
    do_first: &[
        Step {
            says: "On {host}: does its listen queue fill up (Recv-Q), or is the port gone at times?",
            command: "ss -ltn 'sport = :{port}'",
        },
        Step {
            says: "On {checker}: what does the check ask for, how often, and after how many failures does it act?",
            command: "sudo grep -rnE 'check|inter |rise|fall' /etc/haproxy /etc/nginx",
        },
    ],
    verify: &[Step {
        says: "from {checker}, a few times; every one must say succeeded:",
        command: "nc -vz -w 2 {host} {port}",
    }],
    not: &[("service-down", "the port accepts again and again in between")],
    cannot_show: &["what the checker made of it: how many failures it counts before it takes the server out"],
    sources: &["HAProxy configuration manual: check, inter, fall, rise"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Changes that make a flapping check of one outage, and the time they must fall into.
const CHANGES: usize = 3;
const WITHIN: Elapsed = Elapsed::secs(300);
/// Checks looked at, and different periods a checker may have (`inter`, `fastinter`, `downinter`).
const LOOKED_AT: usize = 4096;
const PERIODS: usize = 3;
/// Changes cited.
const CITED: usize = 6;

/// One check: its flow and whether it passed.
type Outcome = (PacketRef, bool);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (checker, server, checks) in capture.pairs().filter(|(.., checks)| checks.len() > CHANGES) {
        if checks.len() <= LOOKED_AT {
            found.extend(judge(found.len() as u32, checker, server, checks));
            continue;
        }
        // Those kept whole first: they are the ones on which something was found.
        let mut some: Vec<Known<'_>> = checks.iter().filter(|check| check.whole.is_some()).copied().collect();
        some.extend(checks.iter().filter(|check| check.whole.is_none()));
        some.truncate(LOOKED_AT);
        some.sort_unstable_by_key(|check| check.digest.id);
        found.extend(judge(found.len() as u32, checker, server, &some));
    }
    found
}

/// The port accepted, and nothing that came over the connection says that it is ill.
fn passed(check: &Known<'_>) -> bool {
    let Some(flow) = check.whole else {
        return check.digest.accepted && check.digest.verdict == Verdict::Healthy;
    };
    let ill = flow.story.events().any(|event| matches!(&event.what, What::Response(head) if head.status >= 500));
    flow.digest.accepted && !ill && flow.digest.verdict < Verdict::Failed
}

fn judge(n: u32, checker: Address, server: Endpoint, checks: &[Known<'_>]) -> Option<Finding> {
    period(checks.iter().map(|check| check.digest.id), PERIODS, 10)?;
    let outcomes: Vec<Outcome> = checks.iter().map(|check| (check.digest.id, passed(check))).collect();
    let runs: Vec<&[Outcome]> = outcomes.chunk_by(|one, next| one.1 == next.1).collect();
    // A run of one in the middle is a single check that went otherwise; the first and the last may be cut by the capture.
    let inner = runs.get(1..runs.len().saturating_sub(1))?;
    let changes: Vec<Outcome> = runs.iter().skip(1).filter_map(|run| run.first()).copied().collect();
    let busiest = changes.windows(CHANGES).any(|window| window[CHANGES - 1].0.time.since(window[0].0.time) <= WITHIN);
    if !busiest || inner.iter().any(|run| run.len() < 2) {
        return None;
    }
    let word = |passed: bool| if passed { "passes" } else { "fails" };
    let (first, last) = (changes.first()?, changes.last()?);
    let mut finding =
        RULE.about(Subject::Host(n), first.0, None, format!("the check {}", word(first.1))).on_flow(first.0);
    for (id, passed) in changes.iter().skip(1).take(CITED - 1) {
        finding = finding.cites(*id, Some(*id), format!("it {} again", word(*passed)));
    }
    let good = outcomes.iter().rev().find(|(id, passed)| *passed && *id < first.0).map(|(id, _)| *id);
    let failed = outcomes.iter().filter(|(_, passed)| !passed).count() as u64;
    let reach = Reach {
        servers: vec![server],
        sources: vec![checker],
        spans: vec![(first.0.time, last.0.time)],
        flows: failed,
        of: outcomes.len() as u64,
        clients: 1,
        last_good: good,
        standing: if last.1 { Standing::Over(last.0) } else { Standing::GoesOn },
        ..Reach::default()
    };
    Some(
        finding
            .with("checker", checker)
            .with("server", server)
            .with("host", server.address)
            .with("port", u64::from(server.port))
            .with("changes", changes.len() as u64)
            .with("span", last.0.time.since(first.0.time))
            .reaches(reach),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, Side};
    use crate::rule::testing::{Scene, World};

    /// Checks every two seconds: `p` passes, `f` is refused.
    fn checks(outcomes: &str, every: impl Fn(i64) -> i64) -> Vec<Finding> {
        let mut world = World::new();
        for (n, outcome) in outcomes.chars().enumerate() {
            let scene = Scene::starting("10.0.0.9:40000", "10.0.0.2:80", n as u64 * 10 + 1, every(n as i64));
            world = match outcome {
                'p' => world.with_good(&scene.handshake().rst(Side::Client, 3, ResetKind::Abort, 0)),
                _ => world.with(&scene.syn(0).rst(Side::Server, 1, ResetKind::Refused, 0)),
            };
        }
        world.check(&RULE)
    }

    #[test]
    fn a_check_that_passes_and_fails_in_turns_flaps() {
        let findings = checks("pppffpppffppp", |n| n * 2000);
        assert_eq!((findings.len(), findings[0].confidence), (1, Confidence::High));
        assert_eq!(findings[0].values.get("changes"), Some(&4u64.into()));
    }

    #[test]
    fn one_outage_and_single_failures_do_not() {
        assert!(checks("ppppfffffpppp", |n| n * 2000).is_empty());
        assert!(checks("pppfpppfpppfp", |n| n * 2000).is_empty());
    }

    #[test]
    fn users_come_at_irregular_times() {
        assert!(checks("pppffpppffppp", |n| n * 2000 + (n * n * 7919) % 1900).is_empty());
    }
}
