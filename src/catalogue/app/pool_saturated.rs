//! All connections that a host has to a server are busy: what its own clients ask waits in it for one to be free.
//!
//! ## How tcpwhy knows
//! In HTTP/1, for 1 s or more the same number of requests of one host is with a server, and whenever an answer is complete the next request
//! leaves within 5 ms. Meanwhile more requests than that are with the host itself, two or more of them for 1 s and twice as long as the
//! server takes for one. What the host asks is what it is asked: the legs are linked, or what waited is answered right behind the server's
//! answers, which come too rarely for chance.
//!
//! ## What it is not
//! - `slow-response`: there the server has the request. It is the deeper cause where the server takes 1 s and more.
//! - `upstream-hang`: there the connections wait for answers that do not come.
//! - `proxy-adds-latency`: the same seen on one request, without its reason.
//! - `accept-queue-overflow`: there connections wait at the server.
//!
//! ## What people see
//! Slow pages under load while the server answers each request quickly; HAProxy's `Tw` and `qcur`; a pool's "Connection is not available,
//! request timed out".
//!
//! ## False alarms it avoids
//! As many clients as connections, each of which asks again at once (nobody waits). A limit of requests a second (requests leave by the
//! clock, not behind an answer). A host that is asked for one thing while it asks for another.

use crate::event::Side;
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::pool::{Pool, Turn};
use crate::rule::value::counted;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "pool-saturated",
    title: "all connections to a server are busy, requests wait for a free one",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Client,
    says: "{connections} of {client_host} to {server} {are} busy: {waiting} in {client_host} for a free one, answers take up to {longest}",
    users_see: &[
        "slow pages under load",
        "Connection is not available, request timed out",
        "QueuePool limit",
        "qcur",
        "sQ",
    ],
    do_first: &[
        Step {
            says: "On {client_host}: is {limit} its limit? (HAProxy maxconn, Apache max=, a pool's size)",
            command: "sudo grep -rnE 'maxconn|max_conns|max=|MaxConnsPerHost|pool' /etc/haproxy /etc/nginx /etc/apache2",
        },
        Step {
            says: "On {client_host}: connections to it now; more than {limit} means that its workers are what is short:",
            command: "ss -Htn state established dst '{server}' | wc -l",
        },
    ],
    fix: &[Fix {
        says: "Let more through ({server} takes {service} for each), or make that shorter",
        command: "",
        risk: "{server} gets more at once: it needs the workers, connections and memory for them",
    }],
    verify: &[Step {
        says: "twelve at once; once it is mended none takes much longer than one alone:",
        command: "seq 12 | xargs -P12 -I@ curl -so /dev/null -m30 -w '%{time_starttransfer}\\n' http://{front}{path}",
    }],
    not: &[("slow-response", "{server} takes {service} once it has a request")],
    cannot_show: &["whether connections or workers of that host are what is short"],
    explains: &[Explains("proxy-adds-latency", Scope::Host)],
    sources: &["RFC 9112 §6.3", "measured: HAProxy 2.6 (maxconn), Apache 2.4 (max=), Go's net/http (MaxConnsPerHost)"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Of what waited, cited beside the longest.
const CITED: usize = 2;
/// Clients named.
const NAMED: usize = 16;

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    capture.pools().iter().zip(0..).filter_map(|(pool, n)| told(pool, n, capture)).collect()
}

fn told(pool: &Pool, n: u32, capture: &CaptureView<'_>) -> Option<Finding> {
    let worst = pool.waits.iter().max_by_key(|wait| (wait.took(), std::cmp::Reverse(wait.asked)))?;
    let connections = match pool.limit {
        1 => "the only connection".to_owned(),
        2 => "both connections".to_owned(),
        n => format!("all {n} connections"),
    };
    let waiting =
        if pool.most == 1 { "1 request waits".to_owned() } else { format!("up to {} requests wait", pool.most) };
    let took = worst.took();
    let all = exchanges(&capture.flows.get(&worst.flow)?.story);
    let head = all.iter().find(|one| one.request_end == Some(worst.asked))?.head;
    let mut finding = RULE
        .about(
            Subject::Host(n),
            worst.asked,
            Some(Side::Client),
            format!("{} {} is complete", head.method, head.target),
        )
        .on_flow(worst.flow)
        .cites(worst.answer, Some(worst.flow), format!("its answer begins {took} later"));
    let whole = |turn: &&Turn| turn.ended.1.is_some() && turn.begun.1.is_some();
    for turn in pool.turns.iter().filter(whole).take(CITED) {
        if let ((out, Some(ended)), (into, Some(begun))) = (turn.ended, turn.begun) {
            let after = begun.time.since(ended.time);
            let of = if pool.limit == 1 { "the one before".to_owned() } else { format!("one of {}", pool.limit) };
            finding = finding.cites(ended, Some(out), format!("{} has answered {of}", pool.server)).cites(
                begun,
                Some(into),
                format!("the next request leaves {after} later"),
            );
        }
    }
    let rate = pool.limit as f64 / (pool.service.0.max(1) as f64 / 1e9);
    let finding = finding
        .with("connections", connections)
        .with("are", if pool.limit == 1 { "is" } else { "are" }.to_owned())
        .with("waiting", waiting)
        .with("longest", took)
        .with("limit", pool.limit as u64)
        .with("service", pool.service)
        .with("client_host", pool.host)
        .with("server", pool.server)
        .with("host", pool.server.address)
        .with("port", u64::from(pool.server.port))
        .with("front", pool.front)
        .with("path", crate::catalogue::http::plain(&head.target))
        .note(format!(
            "{} at a time, {} each, are {rate:.1} requests a second; {} came to {} within {}",
            pool.limit,
            pool.service,
            counted(pool.asked, "request"),
            pool.front,
            pool.span.1.since(pool.span.0)
        ));
    Some(finding.reaches(Reach {
        servers: vec![pool.server],
        sources: vec![pool.host],
        spans: vec![pool.span],
        flows: pool.waits.len() as u64,
        of: pool.asked as u64,
        clients: pool.clients.len() as u64,
        users: pool.clients.iter().take(NAMED).copied().collect(),
        standing: match pool.over {
            _ if pool.goes_on => Standing::GoesOn,
            Some(at) => Standing::Over(at),
            None => Standing::Unknown,
        },
        ..Reach::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    /// A request that comes `at` ms into the capture and is answered `until`.
    fn asked(client: &str, server: &str, number: u64, at: i64, until: i64) -> Scene {
        let scene = Scene::starting(client, server, number, at).handshake();
        let scene = scene.request(3, "GET", "/", 80).acked(Side::Client, 4);
        let mut scene = scene.response(until - at, 200, 90).also(Side::Server, What::ResponseEnd);
        scene.findings.extend(scene.check(&super::super::slow_response::RULE));
        scene
    }

    /// `count` requests at once to a host that puts two at a time to a server, which takes 600 ms for each; `late` ms between an answer and
    /// the next request, `own` ms between the server's answer and the host's.
    fn world(count: i64, late: i64, own: i64) -> World {
        let turn = |n: i64| (n / 2) * (600 + late);
        (0..count).fold(World::new(), |world, n| {
            let client = format!("203.0.113.7:{}", 40_000 + n);
            let front = asked(&client, "10.0.0.2:80", 1 + 10 * n as u64, n, turn(n) + n + 602 + own);
            let host = format!("10.0.0.2:{}", 50_000 + n);
            let back = asked(&host, "10.0.0.3:8080", 1_001 + 10 * n as u64, turn(n) + n, turn(n) + n + 600);
            world.with(&front).with(&back)
        })
    }

    #[test]
    fn what_waits_for_one_of_two_connections_is_told_once() {
        let found = world(10, 1, 1).check(&RULE);
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(finding.values.get("limit"), Some(&2u64.into()));
        assert_eq!(finding.values.get("connections"), Some(&"both connections".to_owned().into()));
        // 1.2 s, 1.8 s, 2.4 s and 3.0 s; the first two did not wait.
        assert_eq!(finding.reach.as_ref().map(|reach| (reach.flows, reach.of, reach.clients)), Some((8, 10, 1)));
    }

    #[test]
    fn where_the_host_takes_its_time_between_two_requests_they_are_not_busy() {
        assert_eq!(world(10, 200, 1).check(&RULE), []);
    }

    #[test]
    fn answers_that_do_not_come_behind_those_of_the_server_have_nothing_to_do_with_it() {
        assert_eq!(world(10, 1, 150).check(&RULE), []);
    }

    #[test]
    fn as_many_requests_as_connections_wait_for_nothing() {
        assert_eq!(world(2, 1, 1).check(&RULE), []);
        assert_eq!(world(4, 1, 1).check(&RULE), [], "one turn is not many");
    }
}
