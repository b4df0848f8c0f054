//! The time is lost between the two legs: the proxy kept the request before it asked its backend, or the answer after it had it.
//!
//! ## How tcpwhy knows
//! Both legs are in one capture. From the end of the client's request to the request on the backend leg, and from the end of the backend's
//! answer to the beginning of the client's, 1 s or more went by in all, and that is at least half of what the client waited. Where the proxy
//! meanwhile tried another host in vain (SYNs of the same request that nobody answers, ARP right behind it), that host is named instead.
//!
//! ## What it is not
//! - `slow-response`: there the backend takes the time.
//! - `connect-timeout`, `connect-slow`, `dns-slow`, `dns-no-answer`, `dns-stale-address`: what the proxy waits for, where it can be seen.
//!   They explain it.
//!
//! ## What people see
//! Slow pages, while the application's own log says that it answered at once. HAProxy's `Tw` or `Tc` is large, nginx's `request_time` far
//! above `upstream_response_time`.
//!
//! ## False alarms it avoids
//! An application that asks others for a part of its answer: its request is another one. A proxy that collects an upload before it asks:
//! time counts from the last octet of the request. A proxy that collects the answer: time counts from its last octet. Legs of two captures,
//! whose clocks may differ, are left out.

use crate::event::{PacketRef, Side};
use crate::rule::exchange::Exchange;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject, WAITED_FOR};
use crate::rule::gateway::{failed_connect, joined};
use crate::rule::summary::FlowSummary;
use crate::rule::value::counted;
use crate::rule::view::{CaptureView, LegsView};
use crate::rule::{Check, Keep, Needs, Recovery, Rule, Step, Words};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

pub static RULE: Rule = Rule {
    id: "proxy-adds-latency",
    title: "the time is lost between the two legs, not by the backend that answers",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Proxy,
    needs: Needs::all(&[]),
    symptom: true,
    says: "the proxy {client_host} kept {request} for {before} before it asked {server}, which answered in {answered}",
    variants: &[
        "the proxy {client_host} kept the answer of {server} to {request} for {behind}",
        "the proxy {client_host} waited {before} for {absent}, which did not answer, before it asked {server} for {request}",
    ],
    users_see: &["slow pages", "sQ", "Tw", "request_time above upstream_response_time"],
    words_of: &[(
        ABSENT,
        Words {
            users_see: &["slow pages now and then"],
            do_first: &[
                Step {
                    says: "On the proxy {client_host}: does {absent_host} answer?",
                    command: "ping -c 3 -W 1 {absent_host}; ip neigh show to {absent_host}",
                },
                Step {
                    says: "On the proxy {client_host}: how long does it wait for a connection, and does it check its backends?",
                    command: "sudo grep -rnE 'timeout connect|check|proxy_connect_timeout|fail_timeout' /etc/haproxy /etc/nginx",
                },
            ],
            verify: &[Step {
                says: "from a client's host; all are as fast as others once {absent_host} answers or is taken out:",
                command: "for n in 1 2 3 4 5 6; do curl -sS -o /dev/null -m 30 -w '%{time_starttransfer}\\n' http://{front}{path}; done",
            }],
            cannot_show: &["whether that host is down, or something on the way swallows what is sent to it"],
        },
    )],
    do_first: &[
        Step {
            says: "On the proxy {client_host}: do requests queue for a free connection (qcur, maxconn)?",
            command: "sudo grep -nE 'maxconn|max_conns|queue' /etc/haproxy/haproxy.cfg /etc/nginx/nginx.conf",
        },
        Step {
            says: "On the proxy {client_host}: is it short of CPU, or do its workers wait for a disk?",
            command: "vmstat 1 5",
        },
    ],
    verify: &[Step {
        says: "on the proxy {client_host}; the backend itself answers sooner:",
        command: "curl -sS -o /dev/null -m 30 -w '%{time_starttransfer}\\n' http://{host}:{port}{path}",
    }],
    not: &[("slow-response", "most of the time went by while the backend was not asked, or had answered")],
    cannot_show: &["what the proxy did in that time: a queue, a script, a subrequest that stayed on the host"],
    sources: &["HAProxy: timers Tw, Tc, Tr; maxconn", "measured: HAProxy with maxconn 1 in front of a busy server"],
    check: Check::Legs(check),
    corroborate: Some(corroborate),
    // That the answer came in the end is no success: it came late.
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

/// Variant of the headline about a time that went by in front of another host that did not answer.
const ABSENT: u8 = 2;
/// A proxy that turns to a host begins within this time.
const AT_ONCE: Elapsed = Elapsed::millis(10);
/// An answer is passed on within this time.
const PASSED_ON: Elapsed = Elapsed::millis(50);
/// Other connections of the proxy looked at.
const LOOKED_AT: usize = 4096;
/// Of those that fell into the time, named.
const NAMED: usize = 3;

/// How long a proxy kept a request, and its answer.
pub(in crate::catalogue) struct Kept {
    /// From the request's end to the request on the backend leg.
    before: Elapsed,
    /// From the end of the backend's answer to the beginning of the client's.
    behind: Elapsed,
    /// What the client waited.
    total: Elapsed,
}

impl Kept {
    /// Both.
    pub(in crate::catalogue) fn added(&self) -> Elapsed {
        self.before + self.behind
    }
}

/// What a proxy added to one request, as far as both legs tell; `None` where it is less than half of what the client waited.
pub(in crate::catalogue) fn kept(front: &Exchange<'_>, back: &Exchange<'_>) -> Option<Kept> {
    let (asked, (answer, _)) = (front.request_end?, front.response?);
    let (given, _) = back.response?;
    if asked.file != back.request.file || !passed_on(front, back) {
        return None;
    }
    let span = |from: PacketRef, to: PacketRef| to.time.since(from.time).max(Elapsed::ZERO);
    let (before, total) = (span(asked, back.request), span(asked, answer));
    // While the backend is still sending, a proxy that collects is no slow one.
    let behind = span(back.response_end.unwrap_or(given).max(given), answer);
    let added = before + behind;
    (added + added >= total && back.request <= answer).then_some(Kept { before, behind, total })
}

/// The same request on both legs, its path whole, or with its beginning taken away or put before it: an application that asks others for its
/// answer works meanwhile, and is no proxy.
fn passed_on(front: &Exchange<'_>, back: &Exchange<'_>) -> bool {
    let (one, other) = (front.head.target.as_str(), back.head.target.as_str());
    front.head.method == back.head.method && (one.ends_with(other) || other.ends_with(one))
}

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    let slow = legs.capture.thresholds.slow;
    let pairs = joined(legs);
    let all: Vec<_> = pairs
        .iter()
        .filter_map(|(front, back)| Some((kept(front, back).filter(|kept| kept.added() >= slow)?, front, back)))
        // Of many like requests another one may be this one's: an answer that does not follow the backend's is no sign that it is not.
        .filter(|(kept, _, _)| legs.link.certainty == Confidence::Certain || kept.behind <= PASSED_ON || lone(legs))
        .collect();
    let (worst, front, back) =
        all.iter().max_by_key(|(kept, front, _)| (kept.added(), std::cmp::Reverse(front.request)))?;
    let ((asked, (answer, head)), (given, _)) = ((front.request_end?, front.response?), back.response?);
    let first = worst.before >= worst.behind;
    let own = Some(client.facts.id);
    let subject = Subject::Legs(client.facts.id, backend.facts.id);
    let request = format!("{} {}", front.head.method, front.head.target);
    let shows = if first {
        format!("the proxy asks the backend {} after it had the request", worst.before)
    } else {
        "the proxy asks the backend".to_owned()
    };
    let absent = if first { absent(legs, asked, back.request) } else { None };
    let mut finding = RULE
        .about(subject, back.request, Some(Side::Client), shows)
        .and(given, Side::Server, format!("the backend answers {} later", given.time.since(back.request.time)))
        .cites(asked, own, format!("the client's request is complete: {request}"))
        .cites(answer, own, format!("the client is answered {}, {} after its request", head.status, worst.total))
        .confidence(legs.link.certainty)
        .with("path", crate::catalogue::http::plain(&front.head.target))
        .with("request", request)
        .with("before", worst.before)
        .with("behind", worst.behind)
        .with("answered", given.time.since(back.request.time));
    if !first {
        let end = back.response_end.unwrap_or(given);
        finding = finding.and(end, Side::Server, "the backend's answer is complete").variant(1);
    }
    if all.len() > 1 {
        finding = finding.note(format!("{} of these two connections were kept so", counted(all.len(), "request")));
    }
    if let Some(absent) = absent {
        finding = finding
            .variant(ABSENT)
            .culprit(Culprit::Network)
            .with("absent_host", absent.host)
            .with("front", client.facts.server);
        finding = match absent.end {
            Some(end) => finding.with(WAITED_FOR, end),
            None => finding.with(WAITED_FOR, absent.host),
        };
        let add = |finding: Finding, (at, shows)| finding.and_on(absent.flow, at, Side::Client, shows);
        finding = absent.tried.into_iter().fold(finding, add);
    } else if let Some(note) = meanwhile(legs, asked, back.request).filter(|_| first) {
        finding = finding.note(note);
    }
    Some(finding)
}

/// Rules of a server that keeps requests waiting itself.
const WAITED: [&str; 3] = ["slow-response", "upstream-hang", "response-stalled"];

/// Of many like requests one that waits in a slow backend is easily taken for one that came later and was answered: where the proxy waits for a
/// backend meanwhile, only legs that are joined for certain tell that it was the proxy.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Subject::Legs(client, backend) = finding.subject else { return Keep::Yes };
    let mut links = capture.links_of(backend).filter(|link| link.client_leg == client);
    let Some(leg) = capture.flows.get(&backend) else { return Keep::Yes };
    if links.any(|link| link.certainty == Confidence::Certain) || leg.digest.lone() {
        return Keep::Yes;
    }
    let (from, until) = (finding.first().time, finding.last().time);
    let waits = |flow: &FlowSummary| {
        let of_proxy = flow.facts.client.address == leg.facts.client.address && flow.facts.id != backend;
        let found = |found: &Finding| {
            WAITED.contains(&&*found.rule) && found.first().time <= until && found.last().time >= from
        };
        of_proxy && flow.findings.iter().any(found)
    };
    match WAITED.iter().any(|rule| capture.found_by(rule).any(waits)) {
        true => Keep::Drop,
        false => Keep::Yes,
    }
}

/// Whether nobody else was served by the proxy's connections to that server: each of both legs carries this request alone.
fn lone(legs: &LegsView<'_>) -> bool {
    [legs.client_leg, legs.backend_leg].into_iter().flatten().all(|flow| flow.digest.lone())
}

/// Whom the proxy turned to first, and in vain.
struct Absent {
    host: Address,
    /// The port, where it got as far as a SYN.
    end: Option<Endpoint>,
    flow: Option<PacketRef>,
    tried: Vec<(PacketRef, String)>,
}

/// A host that the proxy waited for, for at least half of the time between `from` and `to`: a connection that belongs to the same request
/// and came to nothing, or questions for a neighbour that nobody answered.
fn absent(legs: &LegsView<'_>, from: PacketRef, to: PacketRef) -> Option<Absent> {
    let long = |begun: PacketRef| {
        let waited = to.time.since(begun.time);
        begun >= from && begun < to && waited + waited >= to.time.since(from.time)
    };
    unconnected(legs, &long, to).or_else(|| unresolved(legs, from, to).filter(|absent| long(absent.tried[0].0)))
}

fn unconnected(legs: &LegsView<'_>, long: &impl Fn(PacketRef) -> bool, to: PacketRef) -> Option<Absent> {
    let (client, backend) = (legs.client_leg?.facts.id, legs.backend_leg?);
    let tried = legs.capture.links_of(client).filter(|link| link.client_leg == client && long(link.backend_leg));
    tried.filter_map(|link| legs.capture.flows.get(&link.backend_leg)).find_map(|flow| {
        let (failed, words) = failed_connect(flow)?;
        let facts = &flow.facts;
        // What was refused at once cost no time.
        let in_vain = facts.client.address == backend.facts.client.address && facts.from_server.packets == 0;
        let mut tried: Vec<(PacketRef, String)> = facts
            .from_client
            .syns
            .iter()
            .filter(|syn| **syn < to)
            .map(|syn| (*syn, format!("SYN to {}", facts.server)))
            .collect();
        if !tried.iter().any(|(at, _)| *at == failed) && failed < to {
            tried.push((failed, words.to_owned()));
        }
        in_vain.then_some(Absent {
            host: facts.server.address,
            end: Some(facts.server),
            flow: Some(flow.facts.id),
            tried,
        })
    })
}

/// Questions for the link address of a host (ARP, neighbour discovery) that begin right behind the request.
fn unresolved(legs: &LegsView<'_>, from: PacketRef, to: PacketRef) -> Option<Absent> {
    let proxy = legs.backend_leg?.facts.client.address;
    legs.capture.neighbors.by_address.iter().find_map(|(host, known)| {
        let asked = known.askers.get(&proxy)?.first.iter().filter(|at| **at >= from && **at < to);
        let tried: Vec<(PacketRef, String)> = asked.map(|at| (*at, format!("{proxy} asks who has {host}"))).collect();
        let at_once = tried.first()?.0.time.since(from.time) <= AT_ONCE;
        let mut answers =
            known.answers.iter().flat_map(|answered| answered.times.first.iter().chain(&answered.times.last));
        let answered = answers.any(|at| *at >= from && *at < to);
        (at_once && !answered && tried.len() > 1).then_some(Absent { host: *host, end: None, flow: None, tried })
    })
}

/// What the proxy's other connections were about while it kept the request.
fn meanwhile(legs: &LegsView<'_>, from: PacketRef, to: PacketRef) -> Option<String> {
    let backend = legs.backend_leg?;
    let (proxy, server) = (backend.facts.client.address, backend.facts.server);
    let busy = |other: &&crate::rule::summary::FlowSummary| {
        let from_proxy = other.facts.client.address == proxy && other.facts.id != backend.facts.id;
        from_proxy && other.facts.id < from && other.facts.last > from
    };
    let to_same = legs.capture.flows_to(&server).filter(busy).take(LOOKED_AT).count();
    if to_same > 0 {
        return Some(format!(
            "{} of the proxy to {server} {} busy meanwhile: a limit of connections (maxconn, pool size) would look so",
            counted(to_same, "connection"),
            if to_same == 1 { "was" } else { "were" }
        ));
    }
    let begun = legs.capture.began(from.time, to.time).take(LOOKED_AT);
    let own = |digest: &&crate::rule::summary::Digest| {
        digest.client().address == proxy || digest.client().address.is_loopback()
    };
    let others = begun.filter(own).filter(|digest| digest.server() != server);
    let name =
        |digest: &crate::rule::summary::Digest| format!("{} ({})", digest.server(), legs.capture.cite_flow(digest.id));
    let named: Vec<String> = others.take(NAMED).map(name).collect();
    (!named.is_empty()).then(|| format!("the proxy asked others meanwhile: {}", named.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::host::neighbor::{Answered, Times};
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{ExchangePair, Link, LinkMethod};
    use crate::time::Timestamp;

    fn exchange(scene: Scene, asked: i64, answered: i64) -> Scene {
        let scene = scene.handshake().request(asked, "GET", "/", 80).acked(Side::Client, asked + 1);
        scene.response(answered, 200, 90).also(Side::Server, What::ResponseEnd)
    }

    fn found(client: (i64, i64), backend: (i64, i64)) -> Option<Finding> {
        let client = exchange(Scene::new(), client.0, client.1);
        let backend = exchange(Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 0), backend.0, backend.1);
        let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::RequestLine, Confidence::High);
        let link = Link { exchanges: vec![pair], ..link };
        World::new().with(&client).with(&backend).check_legs(&RULE, &link)
    }

    #[test]
    fn a_request_kept_for_two_seconds_is_the_proxys_time() {
        let finding = found((3, 2_050), (2_003, 2_045)).expect("kept");
        assert_eq!((finding.variant, finding.evidence.len()), (0, 4));
        assert_eq!(finding.values.get("before"), Some(&Elapsed::secs(2).into()));
    }

    #[test]
    fn an_answer_kept_for_two_seconds_too() {
        assert_eq!(found((3, 2_050), (5, 45)).expect("kept").variant, 1);
    }

    /// Kept for 2 s, while a connection to another backend began `ms` into the request and nobody answered its SYNs.
    fn beside(ms: i64, linked: bool) -> Finding {
        let client = exchange(Scene::new(), 3, 2_050);
        let backend = exchange(Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 0), 2_003, 2_045);
        let silent = Scene::starting("10.0.0.2:50002", "10.0.0.4:80", 200, 3 + ms).syn(0).syn(1000);
        let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
        let link = |id| Link::whole(client.facts.id, id, LinkMethod::RequestLine, Confidence::High);
        let link_of = Link { exchanges: vec![pair], ..link(backend.facts.id) };
        let mut world = World::new().with(&client).with(&backend).with(&silent);
        world.links = vec![link_of.clone()];
        if linked {
            world.links.push(link(silent.facts.id));
        }
        world.check_legs(&RULE, &link_of).expect("kept")
    }

    #[test]
    fn the_host_that_the_proxy_waited_for_is_named() {
        let finding = beside(1, true);
        let cited: Vec<u64> = finding.evidence.iter().skip(4).map(|evidence| evidence.at.number).collect();
        assert_eq!((finding.variant, finding.culprit, cited), (ABSENT, Culprit::Network, vec![200, 201]));
        assert_eq!(finding.values.get(WAITED_FOR), Some(&crate::rule::testing::end("10.0.0.4:80").into()));
        assert_eq!(beside(1, false).variant, 0, "a connection of another request");
        assert_eq!(beside(1_500, true).variant, 0, "most of the time had gone by");
    }

    #[test]
    fn questions_for_a_neighbour_right_behind_the_request_name_the_host_too() {
        let told = |asked: [i64; 2], answered: Option<i64>| {
            let client = exchange(Scene::new(), 3, 2_050);
            let backend = exchange(Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 0), 2_003, 2_045);
            let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
            let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::RequestLine, Confidence::High);
            let link = Link { exchanges: vec![pair], ..link };
            let mut world = World::new().with(&client).with(&backend);
            let at = |ms: i64| PacketRef {
                file: 0,
                number: 50 + ms as u64,
                time: Timestamp::default() + Elapsed::millis(ms),
            };
            let known = world.neighbors.by_address.entry(crate::rule::testing::host("10.0.0.9")).or_default();
            let times = Times { count: 2, first: asked.map(at).to_vec(), last: Some(at(asked[1])) };
            known.askers.insert(crate::rule::testing::host("10.0.0.2"), times);
            known.answers.extend(answered.map(|ms| Answered {
                mac: crate::wire::Mac([2; 6]),
                times: Times { count: 1, first: vec![at(ms)], last: Some(at(ms)) },
                unasked: 0,
                announced: Times::default(),
                own: false,
            }));
            world.check_legs(&RULE, &link).expect("kept").variant
        };
        assert_eq!(told([5, 1_005], None), ABSENT);
        assert_eq!(told([5, 1_005], Some(1_006)), 0, "it answered");
        assert_eq!(told([500, 1_500], None), 0, "asked for something else");
    }

    #[test]
    fn a_backend_that_takes_the_time_and_a_short_stay_are_none() {
        assert_eq!(found((3, 5_050), (5, 5_045)), None);
        assert_eq!(found((3, 950), (900, 945)), None);
        assert_eq!(found((3, 5_050), (1_503, 5_045)), None);
    }
}
