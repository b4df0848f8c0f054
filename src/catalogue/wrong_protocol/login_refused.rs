//! A database greets its client and does not let it in: a wrong password, no such database, a limit of this user's connections.
//!
//! ## How tcpwhy knows
//! Behind its greeting and before it lets the client in, PostgreSQL answers with an ErrorResponse (28P01, 28000, 3D000, 53300), MySQL and
//! MariaDB with an error packet (1045, 1044, 1049, 1226), also after a change of the way of authentication. Redis answers AUTH with
//! WRONGPASS, or a command that is work (GET, not PING) with NOAUTH. Code and words are quoted.
//!
//! ## What it is not
//! - `service-greeting-error`: there the refusal is the first message.
//! - `server-error-in-protocol`: there the client had been let in.
//!
//! ## What people see
//! The quoted words, in the client's log.
//!
//! ## False alarms it avoids
//! A single refused login of a host that logs in otherwise was mistyped: a notice; several beside others that work are a warning, and so are
//! a host's only attempt at a database that lets others in, and logins without a password; of a host that is let in otherwise these are a
//! notice (`mysqladmin ping` takes the refusal for a sign of life). A public address that is refused where others are let in tries the door.
//! `pg_isready` asks for no more than an answer, and so does who names a user and nothing else (HAProxy's `option pgsql-check`), or sends
//! Redis a PING without a password: of NOAUTH to commands that are no work, `server-error-in-protocol` has a notice. A limit that was
//! reached stays critical. Behind TLS nobody can read the refusal.

use crate::event::{Kind, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, Words, header};
use crate::time::Timestamp;
use crate::wire::text::failure::Class;

/// A stranger tries the door a few times.
const KNOCKS: u64 = 3;
/// Flows to a server whose logins are counted.
const COUNTED: usize = 4096;
/// What names a limit in the words of a refusal.
const LIMITS: [&str; 9] = [
    "too many",
    "Too many",
    "max_user_connections",
    "connection slots",
    // PgBouncer has no connection to the database for anybody.
    "query_wait_timeout",
    "no more connections allowed",
    "cannot connect to server",
    "server down",
    "server_login_retry",
];
/// Refusals of one host beside which none of its logins worked: it is not let in any more.
const NONE_LET_IN: u64 = 3;

/// Variant of the headline: the server wants a login first.
const NO_LOGIN: u8 = 1;
/// Variant with the commands for Redis.
const REDIS: u8 = 2;
/// What is said of Redis.
const OF_REDIS: Words = Words {
    users_see: &["NOAUTH Authentication required", "WRONGPASS invalid username-password pair"],
    do_first: &[Step {
        says: "On {client_host}: which password is the application given, and when did that change?",
        command: "sudo find /etc /opt /srv -xdev -type f -mtime -2 -not -path '*/.git/*'",
    }],
    verify: &[Step {
        says: "from {client_host}, with the application's password in REDISCLI_AUTH; PONG must come:",
        command: "redis-cli -h {host} -p {port} ping",
    }],
    ..Words::NONE
};

pub static RULE: Rule = Rule {
    id: "login-refused",
    title: "a database refuses the login",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::LoginRefused]),
    says: "the {service} {server} refuses the login of {client_host}: {words}",
    variants: &[
        "the {service} {server} refuses what {client_host} asks without a login: {words}",
        "the {service} {server} refuses the login of {client_host}: {words}",
    ],
    users_see: &[
        "password authentication failed for user",
        "Access denied for user",
        "database does not exist",
        "Unknown database",
        "role does not exist",
        "too many connections for role",
        "has exceeded the 'max_user_connections' resource",
    ],
    words_of: &[(NO_LOGIN, OF_REDIS), (REDIS, OF_REDIS)],
    do_first: &[
        Step {
            says: "On {host}: what does the database's own log say of it? It often says more than it tells the client.",
            command: "sudo tail -n 50 /var/log/postgresql/*.log /var/log/mysql/error.log",
        },
        Step {
            says: "On {client_host}: which user, password and database is the application given, and when did that change?",
            command: "sudo find /etc /opt /srv -xdev -type f -mtime -2 -not -path '*/.git/*'",
        },
    ],
    verify: &[Step {
        says: "from {client_host}, with the application's own user, password and database; a result must come:",
        command: "psql -h {host} -p {port} -c 'SELECT 1' || mysql -h {host} -P {port} -p -e 'SELECT 1'",
    }],
    not: &[("network", "the login and its refusal arrived")],
    cannot_show: &["which end is out of date: what the client was given, or what the server knows"],
    explains: &[Explains("server-error-in-protocol", Scope::Same)],
    sources: &[
        "PostgreSQL documentation, Message Flow and Error Codes; MySQL errors 1044, 1045, 1049, 1203, 1226",
        "measured: PostgreSQL 15, MariaDB 10.11",
    ],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let service = flow.protocol(Side::Server).filter(|_| !flow.facts.mid_stream)?;
    let refused = flow.story.find(Kind::Failure, |e| match &e.what {
        What::Failure(failure) if failure.class == Class::Login && !failure.probe => Some((e.at, failure)),
        _ => None,
    });
    let (at, failure) = refused?;
    let close = flow.close_of(Side::Server).filter(|close| *close > at);
    let limit = LIMITS.iter().any(|words| failure.text.contains(words));
    let no_login = failure.code == "NOAUTH";
    let variant = match service {
        Protocol::Redis if no_login => NO_LOGIN,
        Protocol::Redis => REDIS,
        _ => 0,
    };
    // Redis greets nobody: what it says first may be this very refusal.
    let greeting = flow.first(Kind::Greeting, Side::Server).map(|event| event.at).filter(|_| variant == 0);
    let instead = if no_login { "instead of doing what the client asks" } else { "instead of letting the client in" };
    let finding = RULE
        .found(flow, at, Side::Server, format!("{instead}: {}", failure.text))
        .variant(variant)
        .and_maybe(greeting, Side::Server, "its first message is no refusal")
        .and_maybe(close, Side::Server, format!("{} behind it", flow.close_word(Side::Server)))
        .culprit(if limit { Culprit::Server } else { RULE.culprit })
        .with("service", service.name())
        .with("words", failure.text.clone());
    Some(finding)
}

/// What the other logins of the same host at the same server say, and whose they are.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding).filter(|_| !says(finding, &LIMITS)) else { return Keep::Yes };
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let (mut refused, mut let_in, mut first, mut latest) = (0, 0, Timestamp::MAX, Timestamp::MIN);
    for known in capture.began_to(&server, Timestamp::MIN, Timestamp::MAX).take(COUNTED) {
        let whole = capture.flows.get(&known.id);
        if known.client().address == client {
            if whole.is_some_and(|flow| flow.story.seen().has(Kind::LoginRefused)) {
                (refused, first) = (refused + 1, first.min(known.id.time));
            }
            if known.served && whole.is_none_or(|flow| !fails(&flow.findings) && !wants_a_login(flow)) {
                (let_in, latest) = (let_in + 1, latest.max(known.id.time));
            }
        }
    }
    if refused >= NONE_LET_IN && latest < first {
        let_in = 0;
    }
    let others = capture.service(&server).is_some_and(|service| service.good > 0);
    let stranger = header::is_public(client) && others;
    let unpassworded = says(finding, &["using password: NO"]);
    let (severity, note) = if unpassworded && let_in > 0 {
        (Severity::Notice, "no password was sent: mysqladmin ping does so, and takes the refusal for a sign of life")
    } else if let_in > 0 && refused == 1 {
        (Severity::Notice, "the same host is let in otherwise, and was refused once: mistyped")
    } else if let_in > 0 {
        (Severity::Warning, "the same host is let in by other logins")
    } else if stranger && refused <= KNOCKS {
        (Severity::Notice, "a public address that the service does not let in")
    } else if stranger {
        (Severity::Warning, "a public address that is never let in, and tries again and again")
    } else if unpassworded {
        (Severity::Warning, "no password was sent: mysqladmin ping does so, and takes the refusal for a sign of life")
    } else if others && refused == 1 {
        (Severity::Warning, "one attempt; the service lets others in")
    } else {
        return Keep::Yes;
    };
    *finding = finding.clone().severity(severity).note(note);
    Keep::Yes
}

/// A connection on which something else failed proves no login.
fn fails(findings: &[Finding]) -> bool {
    findings.iter().any(|found| found.severity == Severity::Critical)
}

/// Redis answers everybody, also whom it does not let in.
fn wants_a_login(flow: &FlowSummary) -> bool {
    flow.story.events().any(|e| matches!(&e.what, What::Failure(failure) if failure.code == "NOAUTH"))
}

fn says(finding: &Finding, words: &[&str]) -> bool {
    finding.evidence.iter().any(|evidence| words.iter().any(|word| evidence.shows.contains(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::{Scene, World};
    use crate::wire::text::Greeting;
    use crate::wire::text::failure::Failure;

    const DENIED: &str = "error 1045 (28000): Access denied for user 'a'@'b' (using password: YES)";

    fn greeted(client: &str, ms: i64) -> Scene {
        let scene = Scene::starting(client, "10.0.0.2:3306", 1 + ms as u64, ms).handshake();
        let words = Greeting { text: "8.0.36".into(), code: None, refuses: false };
        let scene = scene.data(Side::Server, 4, 60).speaks(Side::Server, Protocol::Mysql);
        scene.also(Side::Server, What::Greeting(Box::new(words))).data(Side::Client, 5, 80).acked(Side::Client, 5)
    }

    fn refused(client: &str, ms: i64, text: &str, probe: bool) -> Scene {
        let failure = Failure { class: Class::Login, code: "1045".into(), text: text.into(), count: 1, probe };
        greeted(client, ms).data(Side::Server, 6, 60).also(Side::Server, What::Failure(Box::new(failure)))
    }

    fn weighed(refusals: &[Scene], good: &[Scene]) -> Severity {
        let finding = refusals[0].clone().check(&RULE).expect("refused");
        let world = refusals.iter().fold(World::new(), |world, scene| {
            let mut scene = scene.clone();
            scene.findings.extend(scene.clone().check(&RULE));
            world.with(&scene)
        });
        let world = good.iter().fold(world, |world, scene| world.with_good(scene));
        world.corroborated(&RULE, finding).expect("kept").severity
    }

    #[test]
    fn a_refusal_is_quoted_with_its_packet_the_greeting_and_the_close() {
        let finding = refused("10.0.0.1:1", 0, DENIED, false).fin(Side::Server, 8).check(&RULE).expect("refused");
        assert_eq!(finding.evidence[0].shows, format!("instead of letting the client in: {DENIED}"));
        assert_eq!(finding.evidence.len(), 3);
        assert_eq!(greeted("10.0.0.1:1", 0).check(&RULE), None);
    }

    #[test]
    fn a_probe_that_takes_a_refusal_for_a_sign_of_life_is_none() {
        assert_eq!(refused("10.0.0.1:1", 0, DENIED, true).check(&RULE), None);
    }

    #[test]
    fn a_host_whose_logins_all_fail_is_critical_and_one_that_mistyped_a_notice() {
        let nth = |n: i64| refused(&format!("10.0.0.1:{n}"), 1000 * n, DENIED, false);
        let good = |n: i64| greeted(&format!("10.0.0.1:{n}"), 1000 * n).data(Side::Server, 6, 40);
        assert_eq!(weighed(&[nth(1), nth(2)], &[]), Severity::Critical);
        assert_eq!(weighed(&[nth(1)], &[good(3)]), Severity::Notice);
        assert_eq!(weighed(&[nth(1), nth(2)], &[good(3)]), Severity::Warning);
        let other = greeted("10.0.0.9:1", 5000).data(Side::Server, 6, 40);
        assert_eq!(weighed(&[nth(1)], std::slice::from_ref(&other)), Severity::Warning);
        assert_eq!(weighed(&[nth(1), nth(2)], &[other]), Severity::Critical);
    }

    #[test]
    fn a_limit_stays_critical_and_a_login_without_a_password_is_a_warning() {
        let good = || greeted("10.0.0.1:9", 9000).data(Side::Server, 6, 40);
        let limit = "FATAL 53300: too many connections for role \"a\"";
        assert_eq!(weighed(&[refused("10.0.0.1:1", 0, limit, false)], &[good()]), Severity::Critical);
        let bare = "error 1045 (28000): Access denied for user 'a'@'b' (using password: NO)";
        assert_eq!(weighed(&[refused("10.0.0.1:1", 0, bare, false)], &[]), Severity::Warning);
        assert_eq!(weighed(&[refused("10.0.0.1:1", 0, bare, false)], &[good()]), Severity::Notice);
        let far = greeted("10.0.0.8:9", 9000).data(Side::Server, 6, 40);
        assert_eq!(weighed(&[refused("10.0.0.1:1", 0, bare, false)], &[far]), Severity::Warning, "another host");
    }

    fn unknown_to_redis(client: &str, ms: i64) -> Scene {
        let scene = Scene::starting(client, "10.0.0.2:6379", 1 + ms as u64, ms).handshake().data(Side::Client, 4, 30);
        let text = "NOAUTH Authentication required.".to_owned();
        let failure = Failure { class: Class::Login, code: "NOAUTH".into(), text, count: 1, probe: false };
        let scene = scene.data(Side::Server, 6, 40).speaks(Side::Server, Protocol::Redis);
        scene.also(Side::Server, What::Failure(Box::new(failure)))
    }

    #[test]
    fn work_that_redis_refuses_is_critical_also_where_it_let_the_host_in_before() {
        let nth = |n: i64| unknown_to_redis(&format!("10.0.0.1:{n}"), 1000 * n);
        let good = |n: i64| {
            let scene = Scene::starting(&format!("10.0.0.1:{n}"), "10.0.0.2:6379", 1000 * n as u64, 1000 * n);
            scene.handshake().data(Side::Client, 4, 30).data(Side::Server, 6, 40).speaks(Side::Server, Protocol::Redis)
        };
        let finding = nth(2).check(&RULE).expect("refused");
        assert_eq!((finding.variant, finding.severity), (NO_LOGIN, Severity::Critical));
        assert_eq!(weighed(&[nth(2), nth(3)], &[]), Severity::Critical);
        assert_eq!(weighed(&[nth(2), nth(3), nth(4)], &[good(1)]), Severity::Critical, "let in before, not since");
        assert_eq!(weighed(&[nth(2), nth(3), nth(4)], &[good(9)]), Severity::Warning);
        assert_eq!(weighed(&[nth(2)], &[good(9)]), Severity::Notice);
    }
}
