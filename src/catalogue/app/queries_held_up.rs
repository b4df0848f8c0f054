//! Queries of many connections wait at a database, and all are answered at the same moment: something held all of them up.
//!
//! ## How tcpwhy knows
//! In PostgreSQL without TLS, the answers to queries of five connections or more begin within half a second of each other, although they
//! were asked for over 1 s or more, and over four times that span, and the longest wait is 3 s or more. Queries that merely take long do not end together.
//!
//! ## What it is not
//! - A slow path: there the acknowledgments are late, too.
//! - `upstream-hang`, `client-abandoned`: there no answer comes at all, or nobody waits for it.
//! - `server-error-in-protocol`: there the database itself says that a wait for a lock was too long.
//!
//! ## What people see
//! All pages that need one table stand still for some seconds, and go on together.
//!
//! ## False alarms it avoids
//! Waits below 10 s are a notice: a pool (PgBouncer) that is busy for some seconds lets its queue go in the same way. Silent are
//! long queries, reports and maintenance, which end each for itself; jobs that begin together; replication and COPY; notifications that
//! come to many at once (LISTEN); errors, which a server that shuts down sends to all.

use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};

pub static RULE: Rule = Rule {
    id: "queries-held-up",
    title: "many queries waited at a database, and went on together",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::AnswerLate]),
    says: "{server} answered a query of {client_host} only after {wait}, at the same moment as others",
    variants: &["{count} queries to {server} waited, the longest for {wait}, and were answered at the same moment"],
    users_see: &[
        "pages that stand still for some seconds and go on together",
        "still waiting for AccessShareLock on relation",
    ],
    do_first: &[Step {
        says: "On {host}, while they wait: who blocks whom?",
        command: "sudo -u postgres psql -p {port} -c 'SELECT pid, pg_blocking_pids(pid), state, query FROM pg_stat_activity'",
    }],
    verify: &[Step {
        says: "On {host}; no new lines must come (log_lock_waits = on):",
        command: "sudo grep -hE 'still waiting for|acquired .* after' /var/log/postgresql/*.log | tail -n 5",
    }],
    not: &[("network", "the queries are acknowledged at once")],
    cannot_show: &["what held them up: a lock that somebody kept, a checkpoint, a disk, or a process that was stopped"],
    explains: &[
        Explains("slow-response", Scope::SameOrLink),
        Explains("upstream-hang", Scope::Link),
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("proxy-upstream-timeout", Scope::Link),
    ],
    sources: &["PostgreSQL documentation, Explicit Locking; pg_blocking_pids", "measured: PostgreSQL 15"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Variant of the headline that speaks for all.
const ALL: u8 = 1;
/// Connections that must wait together.
const TOGETHER: usize = 5;
/// Their answers begin within this time, and were asked for over at least that one.
const AT_ONCE: Elapsed = Elapsed::millis(500);
const SPREAD: Elapsed = Elapsed::secs(1);
/// Queries that take equally long end as far from each other as they began: these began at least so many times as far.
const TIMES: i64 = 4;
/// The longest wait is at least this long.
const LONG: Elapsed = Elapsed::secs(3);
/// Flows to a server that are looked at, and members that are cited.
const LOOKED_AT: usize = 4096;
const CITED: usize = 4;

/// A question and the first packet of its answer.
type Late = (PacketRef, PacketRef);

fn late(story: &Story) -> impl Iterator<Item = Late> {
    story.events().filter_map(|event| match &event.what {
        What::AnswerLate(late) => Some((late.asked, event.at)),
        _ => None,
    })
}

fn took((asked, answer): Late) -> Elapsed {
    answer.time.since(asked.time)
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    // A question that was lost on its way waits for its second copy.
    if flow.client().loss.timeout + flow.server().loss.timeout > 0 || flow.server().zero_window_count > 0 {
        return None;
    }
    let longest = late(flow.story).max_by_key(|late| (took(*late), std::cmp::Reverse(late.0)))?;
    let shows = format!("its answer begins {} later", took(longest));
    let finding =
        RULE.found(flow, longest.0, Side::Client, "the query is complete").and(longest.1, Side::Server, shows);
    Some(finding.severity(Severity::Silent))
}

/// From the first to the last of some moments.
fn between(times: impl Iterator<Item = Timestamp> + Clone) -> Elapsed {
    times.clone().max().zip(times.min()).map_or(Elapsed::ZERO, |(last, first)| last.since(first))
}

/// Alone it says nothing: a query may take its time.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Drop };
    let mine = (finding.first(), finding.last());
    let near = |late: &Late| (late.1.time.since(mine.1.time)).abs() <= AT_ONCE;
    let longest = |other: &FlowSummary| {
        let held = other.findings.iter().any(|found| found.rule == RULE.id);
        let late = late(&other.story).filter(|late| held && near(late)).max_by_key(|late| took(*late))?;
        Some((other.facts.id, late))
    };
    let mut members: Vec<(PacketRef, Late)> =
        capture.flows_to(&flow.facts.server).take(LOOKED_AT).filter_map(longest).collect();
    // The one that waited longest speaks for all.
    members.sort_unstable_by_key(|(id, late)| (std::cmp::Reverse(took(*late)), *id));
    let asked = || members.iter().map(|(_, (asked, _))| asked.time);
    let answered = || members.iter().map(|(_, (_, answer))| answer.time);
    let spread = between(asked());
    let at_once = Elapsed(between(answered()).0.saturating_mul(TIMES)) <= spread;
    let together =
        members.len() >= TOGETHER && spread >= SPREAD && at_once && members.iter().any(|(_, late)| took(*late) >= LONG);
    if !together {
        return Keep::Drop;
    }
    let hangs = members.iter().any(|(_, late)| took(*late) >= capture.thresholds.hang);
    let severity = if hangs { RULE.severity } else { Severity::Notice };
    let told = finding.clone().severity(severity).with("wait", took(mine)).with("over", Value::Frame(mine.1));
    if members.first().is_none_or(|(id, _)| *id != flow.facts.id) {
        *finding = told;
        return Keep::Yes;
    }
    let told = told.variant(ALL).with("count", members.len() as u64);
    *finding = members.iter().skip(1).take(CITED).fold(told, |told, (id, late)| {
        told.cites(late.1, Some(*id), format!("answered with it, {} after its query", took(*late)))
    });
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LateAnswer;
    use crate::rule::testing::{Scene, World};

    /// A connection whose query is asked at `asked` and answered at `answered`, in ms.
    fn waits(n: u64, asked: i64, answered: i64) -> Scene {
        let scene = Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:5432", 100 * n, 0).handshake();
        let mut scene = scene.data(Side::Client, asked, 40).acked(Side::Client, asked + 1);
        let asked = scene.facts.from_client.last_payload.expect("asked");
        scene = scene.data(Side::Server, answered, 60);
        scene.also(Side::Server, What::AnswerLate(Box::new(LateAnswer { asked })))
    }

    fn told(times: &[(i64, i64)]) -> Option<Finding> {
        let scenes: Vec<Scene> = (1..).zip(times).map(|(n, (asked, answered))| waits(n, *asked, *answered)).collect();
        let finding = scenes[0].clone().check(&RULE).expect("late");
        let world = scenes.into_iter().fold(World::new(), |world, mut scene| {
            scene.findings.extend(scene.clone().check(&RULE));
            world.with(&scene)
        });
        world.corroborated(&RULE, finding)
    }

    #[test]
    fn queries_that_are_asked_one_after_the_other_and_answered_together_were_held_up() {
        let held = [(10, 9_000), (900, 9_001), (2_000, 9_003), (4_000, 9_100), (7_000, 9_200)];
        let finding = told(&held).expect("held up");
        assert_eq!((finding.variant, finding.values.get("count")), (ALL, Some(&5u64.into())));
        assert_eq!(finding.severity, Severity::Notice);
        let longer: Vec<(i64, i64)> = held.iter().map(|(asked, answered)| (*asked, answered + 5_000)).collect();
        assert_eq!(told(&longer).expect("held up").severity, Severity::Warning);
        assert_eq!(told(&held[..4]), None, "four are few");
        let second: Vec<(i64, i64)> = held.iter().rev().copied().collect();
        let other = told(&second).expect("held up");
        assert_eq!((other.severity, other.variant), (Severity::Notice, 0), "another one speaks for all");
    }

    #[test]
    fn long_queries_end_each_for_itself_and_jobs_begin_together() {
        assert_eq!(told(&[(10, 9_000), (900, 7_000), (2_000, 5_003), (4_000, 9_900), (7_000, 12_000)]), None);
        assert_eq!(told(&[(10, 9_000), (300, 9_150), (600, 9_300), (900, 9_400), (1_200, 9_490)]), None, "alike");
        assert_eq!(told(&[(10, 9_000), (20, 9_001), (30, 9_003), (40, 9_100), (50, 9_200)]), None);
    }
}
