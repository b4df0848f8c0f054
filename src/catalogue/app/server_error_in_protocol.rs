//! A database, cache or mail server tells a client it had let in that it cannot do its work.
//!
//! ## How tcpwhy knows
//! Behind the greeting only the beginning of each message of the server is looked at. Told are errors of the server itself: PostgreSQL's
//! class 53 (memory, disk, connections), 58030, XX001, 25006 (read-only), and 08P01 where PgBouncer has no connection to the database
//! (query_wait_timeout); MySQL's 1021, 1040, 1114, 1226, 1290, 1836 and their like;
//! a mail server that turns a client's mails down for what it allows to whom (5xx with x.7.x, "relaying denied"), three times and takes none of
//! them; OOM, MISCONF, READONLY, BUSY, LOADING, MASTERDOWN, CLUSTERDOWN and NOREPLICAS of Redis; 452 and x.3.x of a mail server. Deadlocks, waits
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
//! its user cancels, MOVED and ASK of a Redis cluster. Greylisting (450, 451) and NOAUTH as the answer to a PING, which checks take for a sign
//! of life, are notices. So are mails that are turned down fewer than three times, beside others of the same host that are taken, or of a public
//! address that the capture was not made at: every mail server turns strangers away. A recipient who does not exist is nothing at all.
//! Behind TLS nobody can read it.

use crate::event::story::Story;
use crate::event::{Kind, Protocol, Side, What};
use crate::flow::facts::Vantage;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, Words, header};
use crate::time::Timestamp;
use crate::wire::text::failure::{Class, Failure};

/// Deadlocks and their like are daily life until there are so many at one server.
const MANY: u32 = 3;
/// So many mails that are turned down are no single one that was sent astray.
const MAILS: u32 = 3;
/// Variant of the headline, for mails.
const NO_MAIL: u8 = 1;
/// Variant of PgBouncer's words.
const NO_CONNECTION: u8 = 2;
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
    variants: &[
        "the {service} {server} takes no mail of {client_host}: {words}",
        "the {service} {server} has no connection to the database for {client_host}: {words}{times}",
    ],
    users_see: &[
        "Lock wait timeout exceeded; try restarting transaction",
        "Deadlock found when trying to get lock",
        "canceling statement due to statement timeout",
        "OOM command not allowed when used memory > 'maxmemory'",
        "READONLY You can't write against a read only replica",
        "cannot execute UPDATE in a read-only transaction",
        "452 4.3.1 Insufficient system storage",
    ],
    words_of: &[
        (
            NO_MAIL,
            Words {
                users_see: &["550 5.7.1 relaying denied", "554 5.7.1 Relay access denied", "550 relay not permitted"],
                do_first: &[Step {
                    says: "On {host}: whom does the mail server refuse, and why?",
                    command: "sudo grep -hE 'reject|denied|rejected' /var/log/mail.log /var/log/maillog /var/log/exim4/mainlog | tail -n 20",
                }],
                verify: &[Step {
                    says: "On {host}; no new lines about {client_host} must come:",
                    command: "sudo tail -n 20 /var/log/mail.log /var/log/maillog /var/log/exim4/mainlog",
                }],
                ..Words::NONE
            },
        ),
        (
            NO_CONNECTION,
            Words {
                users_see: &["query_wait_timeout"],
                do_first: &[Step {
                    says: "On {host}: how many clients wait (cl_waiting), and what do the connections to the database do (sv_active)?",
                    command: "sudo -u postgres psql -p {port} pgbouncer -c 'SHOW POOLS'",
                }],
                verify: &[Step {
                    says: "On {host}; cl_waiting and maxwait must stay at 0:",
                    command: "sudo -u postgres psql -p {port} pgbouncer -c 'SHOW POOLS'",
                }],
                ..Words::NONE
            },
        ),
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
    explains: &[Explains("queries-held-up", Scope::Peer)],
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
    // Whom Redis refuses in the middle of a connection, it may have let in before.
    let of_redis = flow.facts.mid_stream && service == Protocol::Redis;
    let any = |what| if of_redis { failed(what) } else { later(what) };
    let told = || flow.story.events().filter_map(|e| any(&e.what).map(|failure| (e.at, failure)));
    let class = told().map(|(_, failure)| failure.class).max()?;
    let mut of_class = told().filter(|(_, failure)| failure.class == class);
    let (at, first) = of_class.next()?;
    let count = told().map(|(_, failure)| failure.count).max().unwrap_or(1);
    let finding = RULE.found(flow, at, Side::Server, format!("error: {}", first.text));
    let cited = of_class.take(CITED - 1).fold(finding, |finding, (at, failure)| {
        finding.and(at, Side::Server, format!("another one: {}", failure.text))
    });
    // The connection ends behind the error, or without a mail that was taken: nothing on it shows that all is well again.
    let in_vain = class == Class::Refused || flow.server().last_payload.is_some_and(|last| last <= cited.last());
    let (closer, close) = flow.facts.closer.filter(|_| in_vain).unzip();
    let side = closer.unwrap_or(Side::Server);
    let cited = cited.and_maybe(close, side, format!("{}: the connection ends with that", flow.close_word(side)));
    let times = if count > 1 { format!(" ({count} errors on this connection)") } else { String::new() };
    // What is no trouble after all is lowered when all is known: a connection that is raised then has been taken for one that worked.
    let severe = matches!(class, Class::Trouble | Class::Refused) || class == Class::Contention && count >= MANY;
    Some(
        cited
            .severity(if severe { RULE.severity } else { Severity::Notice })
            .variant(if first.code == "08P01" { NO_CONNECTION } else { 0 })
            .with("service", service.name())
            .with("words", first.text.clone())
            .with("times", times),
    )
}

fn failed(what: &What) -> Option<&Failure> {
    match what {
        What::Failure(failure) => Some(failure),
        _ => None,
    }
}

/// An error that is no refused login.
fn later(what: &What) -> Option<&Failure> {
    failed(what).filter(|failure| failure.class != Class::Login)
}

/// The flow's mails that were turned down.
fn turned_down(story: &Story) -> Option<u32> {
    let told = story.events().filter_map(|e| later(&e.what)).filter(|failure| failure.class == Class::Refused);
    told.map(|failure| failure.count).max()
}

/// A host none of whose mails is taken.
fn weigh_mails(finding: &mut Finding, flow: &FlowSummary, capture: &CaptureView<'_>) {
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let (mut refused, mut taken) = (0u32, 0);
    let own = capture.began_to(&server, Timestamp::MIN, Timestamp::MAX).take(COUNTED);
    for known in own.filter(|known| known.client().address == client) {
        let mails = capture.flows.get(&known.id).and_then(|flow| turned_down(&flow.story));
        refused = refused.saturating_add(mails.unwrap_or(0));
        taken += u32::from(known.served && mails.is_none());
    }
    let own_side = !header::is_public(client) || flow.facts.vantage == Vantage::NearClient;
    if refused >= MAILS && taken == 0 && own_side {
        let note = format!("{refused} times, and no mail of this host was taken");
        *finding = finding.clone().culprit(Culprit::Config).variant(NO_MAIL).note(note);
    } else {
        finding.severity = Severity::Notice;
    }
}

/// One deadlock is tried again; many are trouble, whoever met them.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if flow.story.events().filter_map(|e| later(&e.what)).all(|failure| failure.class == Class::Refused) {
        weigh_mails(finding, flow, capture);
    }
    if finding.severity != Severity::Notice || turned_down(&flow.story).is_some() {
        return Keep::Yes;
    }
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

    fn turned_down(client: &str, n: i64) -> Scene {
        let scene = Scene::starting(&format!("{client}:{}", 40_000 + n), "10.0.0.2:25", 20 * n as u64, 1000 * n);
        failed(scene.handshake(), Class::Refused, "554 5.7.1 Relay access denied", 1).fin(Side::Client, 90)
    }

    fn of_mails(scenes: &[Scene], world: World) -> Finding {
        let finding = scenes[0].clone().check(&RULE).expect("turned down");
        let world = scenes.iter().fold(world, |world, scene| world.with(scene));
        world.corroborated(&RULE, finding).expect("kept")
    }

    #[test]
    fn a_host_none_of_whose_mails_is_taken_is_a_warning_and_a_stranger_none() {
        let mails = |client: &str, n: i64| (1..=n).map(|n| turned_down(client, n)).collect::<Vec<_>>();
        let told = |client: &str, n: i64| of_mails(&mails(client, n), World::new());
        assert_eq!((told("10.0.0.1", 3).severity, told("10.0.0.1", 3).variant), (Severity::Warning, NO_MAIL));
        assert_eq!((told("10.0.0.1", 2).severity, told("10.0.0.1", 2).variant), (Severity::Notice, 0));
        assert_eq!(told("203.0.113.7", 9).severity, Severity::Notice);
        let taken = Scene::starting("10.0.0.1:41000", "10.0.0.2:25", 900, 9000).handshake();
        let taken = taken.data(Side::Server, 5, 60).data(Side::Client, 6, 60).speaks(Side::Server, Protocol::Smtp);
        let beside = of_mails(&mails("10.0.0.1", 3), World::new().with_good(&taken));
        assert_eq!(beside.severity, Severity::Notice);
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
