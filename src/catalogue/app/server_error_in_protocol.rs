//! A database, cache or mail server tells a client it had let in that it cannot do its work.
//!
//! ## How tcpwhy knows
//! Behind the greeting only the beginning of each message of the server is looked at. Told are errors of the server itself: PostgreSQL's
//! class 53 (memory, disk, connections), 58030, XX001, 25006 (read-only); MySQL's 1021, 1040, 1114, 1226, 1290, 1836 and their like;
//! OOM, MISCONF, READONLY, BUSY, LOADING, MASTERDOWN, CLUSTERDOWN and NOREPLICAS of Redis; 452 and x.3.x of a mail server. Deadlocks, waits
//! for locks and timeouts of statements (40P01, 57014; 1205, 1213, 1969, 3024) are told from the third on at one server; fewer are a notice.
//!
//! ## What it is not
//! - `service-greeting-error`, `login-refused`: there the client is not let in.
//! - `slow-response`, `upstream-hang`: there no answer comes, or late.
//!
//! ## What people see
//! The quoted words, in the application's log; from the application itself errors of the 5xx class.
//!
//! ## False alarms it avoids
//! An application's own mistakes and habits: syntax errors, tables that do not exist, rows that exist already, wrong types, a query that
//! its user cancels, MOVED and ASK of a Redis cluster. Greylisting (450, 451) and NOAUTH, which checks take for a sign of life, are notices.
//! Behind TLS nobody can read it.

use crate::event::{Kind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::wire::text::failure::{Class, Failure};

/// Deadlocks and their like are daily life until there are so many at one server.
const MANY: u32 = 3;
/// Flows to a server whose errors are counted.
const COUNTED: usize = 4096;
/// Errors of a flow cited with a packet.
const CITED: usize = 3;

pub static RULE: Rule = Rule {
    id: "server-error-in-protocol",
    title: "a database, cache or mail server reports trouble of its own",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    proxy_end: Side::Server,
    needs: Needs::all(&[Kind::Failure]),
    says: "the {service} {server} reports to {client_host}: {words}{times}",
    users_see: &[
        "Lock wait timeout exceeded; try restarting transaction",
        "Deadlock found when trying to get lock",
        "canceling statement due to statement timeout",
        "OOM command not allowed when used memory > 'maxmemory'",
        "READONLY You can't write against a read only replica",
        "cannot execute UPDATE in a read-only transaction",
        "452 4.3.1 Insufficient system storage",
    ],
    do_first: &[
        Step {
            says: "On {host}: what did the service log at that second?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
        Step { says: "On {host}: is memory or disk used up?", command: "free -m; df -h" },
    ],
    verify: &[Step {
        says: "On {host}; no new lines with the quoted words must come:",
        command: "sudo journalctl --since '5 min ago' -p warning",
    }],
    not: &[("network", "the request arrived, and so did the error")],
    cannot_show: &["which statement of the application met it first", "errors on connections behind TLS"],
    sources: &[
        "PostgreSQL documentation, Error Codes; MySQL Server Error Message Reference; RFC 5321 §4.2, RFC 3463",
        "measured: PostgreSQL 15, MariaDB 10.11, Redis 7.0",
    ],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let service = flow.protocol(Side::Server)?;
    let told = || flow.story.events().filter_map(|e| later(&e.what).map(|failure| (e.at, failure)));
    let class = told().map(|(_, failure)| failure.class).max()?;
    let mut of_class = told().filter(|(_, failure)| failure.class == class);
    let (at, first) = of_class.next()?;
    let count = told().map(|(_, failure)| failure.count).max().unwrap_or(1);
    let finding = RULE.found(flow, at, Side::Server, format!("error: {}", first.text));
    let cited = of_class.take(CITED - 1).fold(finding, |finding, (at, failure)| {
        finding.and(at, Side::Server, format!("another one: {}", failure.text))
    });
    let times = if count > 1 { format!(" ({count} errors on this connection)") } else { String::new() };
    let severe = class == Class::Trouble || class == Class::Contention && count >= MANY;
    Some(
        cited
            .severity(if severe { RULE.severity } else { Severity::Notice })
            .with("service", service.name())
            .with("words", first.text.clone())
            .with("times", times),
    )
}

/// An error that is no refused login.
fn later(what: &What) -> Option<&Failure> {
    match what {
        What::Failure(failure) if failure.class != Class::Login => Some(failure),
        _ => None,
    }
}

/// One deadlock is tried again; many are trouble, whoever met them.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding).filter(|_| finding.severity == Severity::Notice) else {
        return Keep::Yes;
    };
    let contends = |what: &What| later(what).filter(|failure| failure.class == Class::Contention).is_some();
    if !flow.story.events().any(|e| contends(&e.what)) {
        return Keep::Yes;
    }
    let siblings = capture.flows_to(&flow.facts.server).take(COUNTED);
    let errors: usize = siblings.map(|flow| flow.story.events().filter(|e| contends(&e.what)).count()).sum();
    if errors >= MANY as usize {
        let note = format!("{errors} deadlocks, waits for locks or timeouts of statements at this server");
        *finding = finding.clone().severity(RULE.severity).note(note);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::{Scene, World};

    fn failed(scene: Scene, class: Class, text: &str, count: u32) -> Scene {
        let failure = Failure { class, code: String::new(), text: text.into(), count, probe: false };
        let scene = scene.data(Side::Server, 5 + i64::from(count), 60).speaks(Side::Server, Protocol::Mysql);
        scene.also(Side::Server, What::Failure(Box::new(failure)))
    }

    #[test]
    fn trouble_is_quoted_and_counted() {
        let text = "error 1290 (HY000): The MariaDB server is running with the --read-only option";
        let scene = failed(failed(Scene::open(), Class::Trouble, text, 1), Class::Trouble, text, 2);
        let finding = scene.check(&RULE).expect("trouble");
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.evidence[0].shows, format!("error: {text}"));
        assert_eq!(finding.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [4, 5]);
    }

    #[test]
    fn what_happens_every_day_is_a_notice_and_a_refused_login_another_rules() {
        for class in [Class::Usual, Class::Contention] {
            let finding = failed(Scene::open(), class, "450 4.2.0 Greylisted", 1).check(&RULE);
            assert_eq!(finding.map(|finding| finding.severity), Some(Severity::Notice));
        }
        assert_eq!(failed(Scene::open(), Class::Login, "error 1045 (28000): Access denied", 1).check(&RULE), None);
    }

    #[test]
    fn the_third_deadlock_at_a_server_is_a_warning() {
        let nth = |n: i64| {
            let scene = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 20 * n as u64, 1000 * n).handshake();
            failed(scene, Class::Contention, "error 1213 (40001): Deadlock found", 1)
        };
        let told = |n: i64| {
            let finding = nth(1).check(&RULE).expect("a deadlock");
            let world = (1..=n).fold(World::new(), |world, n| world.with(&nth(n)));
            world.corroborated(&RULE, finding).expect("kept").severity
        };
        assert_eq!((told(2), told(3)), (Severity::Notice, Severity::Warning));
    }
}
