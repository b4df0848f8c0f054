//! A client opens a new connection for every request, where it could keep one.
//!
//! ## How tcpwhy knows
//! Fifty connections or more of one host to one server within 10 s, each with one HTTP/1 request that was answered, or with a TLS handshake
//! that resumes no session and less than a second of life. At least four of five connections of that time are so.
//!
//! ## What it is not
//! - `ephemeral-ports-exhausted`: what it leads to, when thousands of ports rest.
//! - `lb-health-check-noise`: there nothing is asked, or the same thing at a fixed period.
//! - `port-scan`: there no answer comes.
//!
//! ## What people see
//! Many sockets in TIME-WAIT; latency of a round trip more for each request, of two or three with TLS; processor time of both sides that goes
//! into handshakes.
//!
//! ## False alarms it avoids
//! Connections that carry several requests, TLS that resumes sessions, hosts that open few. It is a cost, not a fault: a notice.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::IpProtocol;
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject, in_order_of_time};
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::value::counted;
use crate::rule::view::{CaptureView, Known};
use crate::rule::{Check, Fix, Rule, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Connections within [`WITHIN`].
const MANY: usize = 50;
const WITHIN: Elapsed = Elapsed::secs(10);
/// A TLS connection that lives longer may have carried more than one exchange.
const BRIEF: Elapsed = Elapsed::secs(1);
/// Percent of the connections of that time.
const MOST: usize = 80;
/// A round trip that takes no longer is not worth a word.
const FAR: Elapsed = Elapsed::millis(1);
/// Connections cited.
const CITED: usize = 3;

pub static RULE: Rule = Rule {
    id: "connection-churn",
    title: "a new connection for every request",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    says: "{client_host} opens a new connection to {server} for every request: {count} within {span}",
    variants: &["{client_host} makes a full TLS handshake with {server} for every request: {count} within {span}"],
    users_see: &["many sockets in TIME-WAIT", "TIME_WAIT", "Cannot assign requested address"],
    do_first: &[Step {
        says: "On {client_host}: how many connections to it rest in TIME-WAIT?",
        command: "ss -Htan state time-wait dst {host} | wc -l",
    }],
    fix: &[
        Fix {
            says: "nginx as a proxy keeps none by itself: keepalive 32 in its upstream, and in the location:",
            command: "proxy_http_version 1.1; proxy_set_header Connection \"\";",
            risk: "the backend must keep idle connections for longer than the proxy does (keepalive_timeout)",
        },
        Fix {
            says: "In a program: one client or session object for all requests, a pool, TLS session resumption",
            command: "",
            risk: "",
        },
    ],
    verify: &[Step {
        says: "on {client_host}, twice and ten seconds apart; the number of opened connections must grow more slowly:",
        command: "nstat -az TcpActiveOpens",
    }],
    cannot_show: &["what it costs the server"],
    sources: &["RFC 9112 §9.3", "RFC 8446 §2.2", "measured: nginx 1.22 as a proxy, with and without keepalive"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// Pairs of a client and a server that are told, those with most connections.
const TOLD: usize = 8;

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (client, server, flows) in capture.pairs().filter(|(.., flows)| flows.len() >= MANY) {
        let n = found.len() as u32;
        found.extend(churn(client, server, flows, n));
    }
    in_order_of_time(&mut found);
    let flows = |finding: &Finding| finding.reach.as_ref().map_or(0, |reach| reach.flows);
    found.sort_by_key(|finding| (std::cmp::Reverse(flows(finding)), finding.first()));
    let more = found.len().saturating_sub(TOLD);
    found.truncate(TOLD);
    match found.pop() {
        Some(last) if more > 0 => {
            found.push(last.note(format!("{} of a client and a server do the same", counted(more, "more pair"))));
        }
        last => found.extend(last),
    }
    found
}

fn churn(client: Address, server: Endpoint, flows: &[Known<'_>], n: u32) -> Option<Finding> {
    let lone: Vec<&Known<'_>> = flows.iter().filter(|flow| is_lone(flow.digest)).collect();
    let busy = |part: &&[&Known<'_>]| part[MANY - 1].digest.id.time.since(part[0].digest.id.time) <= WITHIN;
    let first = lone.windows(MANY).find(busy)?[0].digest.id;
    let last = lone.windows(MANY).rfind(busy)?[MANY - 1].digest.id;
    let meanwhile = |id: PacketRef| id >= first && id <= last;
    let of = flows.iter().filter(|flow| flow.digest.transport == IpProtocol::Tcp && meanwhile(flow.digest.id)).count();
    let lone: Vec<&Known<'_>> = lone.into_iter().filter(|flow| meanwhile(flow.digest.id)).collect();
    if lone.len() * 100 < of * MOST {
        return None;
    }
    let tls = lone.iter().filter(|flow| flow.digest.protocol == Some(Protocol::Tls)).count() * 2 > lone.len();
    let shows = |flow: &Digest| {
        let life = flow.last.since(flow.id.time);
        format!(
            "a connection from port {} for {}, {life} long",
            flow.client().port,
            if tls { "one handshake" } else { "one request" }
        )
    };
    let begin = lone.first()?.digest;
    let finding = RULE.about(Subject::Host(n), begin.id, Some(Side::Client), shows(begin)).on_flow(begin.id);
    let others = lone.iter().skip(1).take(CITED - 2).chain(lone.last());
    let finding =
        others.fold(finding, |finding, flow| finding.cites(flow.digest.id, Some(flow.digest.id), shows(flow.digest)));
    let whole: Vec<&FlowSummary> = lone.iter().filter_map(|flow| flow.whole).collect();
    let mut finding = finding
        .variant(u8::from(tls))
        .with("client_host", client)
        .with("server", server)
        .with("host", server.address)
        .with("port", u64::from(server.port))
        .with("count", lone.len() as u64)
        .with("span", last.time.since(first.time));
    for note in notes(&whole) {
        finding = finding.note(note);
    }
    Some(finding.reaches(Reach {
        servers: vec![server],
        sources: vec![client],
        spans: vec![(first.time, last.time)],
        flows: lone.len() as u64,
        of: of as u64,
        clients: 1,
        standing: Standing::Unknown,
        ..Reach::default()
    }))
}

/// It was opened for one exchange, and had it.
fn is_lone(flow: &Digest) -> bool {
    let brief = flow.protocol == Some(Protocol::Http) || flow.last.since(flow.id.time) < BRIEF;
    flow.lone() && flow.served && flow.transport == IpProtocol::Tcp && brief
}

/// Who wants it so, and what each costs.
fn notes(flows: &[&FlowSummary]) -> Vec<String> {
    let mut notes = Vec::new();
    let most = |count: usize| count > 0 && count * 2 > flows.len();
    let old = flows.iter().filter(|flow| asks(flow, |head| head.minor == 0)).count();
    let closes = flows.iter().filter(|flow| answers_closing(flow)).count();
    if most(old) {
        notes.push("the client asks in HTTP/1.0: nginx does, unless told otherwise".to_owned());
    } else if most(closes) {
        notes.push("the answers say Connection: close, which may be what the client asked for".to_owned());
    }
    let mut trips: Vec<Elapsed> = flows.iter().filter_map(|flow| flow.facts.rtt_server).collect();
    trips.sort_unstable();
    if let Some(trip) = trips.get(trips.len() / 2).filter(|trip| **trip >= FAR) {
        notes.push(format!("each waits {trip} for its SYN+ACK before it can ask"));
    }
    notes
}

fn asks(flow: &FlowSummary, is: impl Fn(&crate::wire::http::RequestHead) -> bool) -> bool {
    let head = flow.story.find(Kind::Request, |event| match &event.what {
        What::Request(head) => Some(head.as_ref()),
        _ => None,
    });
    head.is_some_and(is)
}

fn answers_closing(flow: &FlowSummary) -> bool {
    let head = flow.story.find(Kind::Response, |event| match &event.what {
        What::Response(head) => Some(head.as_ref()),
        _ => None,
    });
    head.is_some_and(|head| head.closes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn asked(n: i64, apart: i64, requests: i64) -> Scene {
        let scene = Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:80", 20 * n as u64 + 1, apart * n);
        let scene = (0..requests).fold(scene.handshake(), |scene, n| {
            scene.request(10 * n + 3, "GET", "/", 80).response(10 * n + 5, 200, 90)
        });
        scene.fin(Side::Server, 90)
    }

    fn found(count: i64, apart: i64, requests: i64) -> Vec<Finding> {
        (0..count).fold(World::new(), |world, n| world.with_good(&asked(n, apart, requests))).check(&RULE)
    }

    #[test]
    fn fifty_within_ten_seconds_are_told_once_and_cited() {
        let finding = &found(60, 150, 1)[..];
        let [finding] = finding else { panic!("{finding:?}") };
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, 0));
        assert_eq!(finding.evidence.iter().map(|told| told.at.number).collect::<Vec<_>>(), [1, 21, 1181]);
        assert_eq!(finding.reach.as_ref().map(|reach| (reach.flows, reach.of)), Some((60, 60)));
    }

    #[test]
    fn fewer_and_slower_ones_and_those_that_are_used_again_are_silent() {
        assert_eq!(found(49, 10, 1), []);
        assert_eq!(found(60, 250, 1), [], "fifty take longer");
        assert_eq!(found(60, 150, 2), [], "two requests on each");
    }

    #[test]
    fn of_many_clients_those_with_most_connections_are_told() {
        let mut world = World::new();
        for client in 0..10_i64 {
            for n in 0..50 + client {
                let (number, ms) = (client as u64 * 100_000 + 20 * n as u64 + 1, 150 * n + client);
                let scene = Scene::starting(&format!("10.0.1.{client}:{}", 40_000 + n), "10.0.0.2:80", number, ms);
                let scene = scene.handshake().request(3, "GET", "/", 80).response(5, 200, 90).fin(Side::Server, 90);
                world = world.with_good(&scene);
            }
        }
        let found = world.check(&RULE);
        let counts: Vec<_> =
            found.iter().map(|finding| finding.reach.as_ref().map_or(0, |reach| reach.flows)).collect();
        assert_eq!(counts, [59, 58, 57, 56, 55, 54, 53, 52]);
        let notes: Vec<&str> = found.iter().flat_map(|finding| &finding.notes).map(String::as_str).collect();
        assert_eq!(notes, ["2 more pairs of a client and a server do the same"]);
    }

    #[test]
    fn where_half_of_the_connections_are_kept_it_is_not_every_request() {
        let world = (0..120).fold(World::new(), |world, n| world.with_good(&asked(n, 60, 1 + n % 2)));
        assert_eq!(world.check(&RULE), []);
    }
}
