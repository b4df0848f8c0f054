//! Methods 4 to 7: the same request on both legs. They join single requests of HTTP/1 flows, because connections to a backend are shared.

use std::collections::{BTreeMap, BTreeSet};

use super::hosts::meet;
use super::{AT_ONCE, Candidate, End, LOOK, PASSED_ON, latest, same_connection};
use crate::event::{PacketRef, What};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::Confidence;
use crate::rule::summary::FlowSummary;
use crate::rule::view::{ExchangePair, LinkMethod};
use crate::time::{Elapsed, Timestamp};
use crate::wire::http::{Framing, SHORTEST_ID, request_ids};

/// A request is forwarded, or forwarded again, within this time while nobody has answered the client.
const OPEN_FOR: Elapsed = Elapsed::secs(120);
/// Octets at the end of a target that a proxy which rewrites paths leaves alone.
const TAIL: usize = 8;
/// Several requests that look alike may be told apart by chance only up to here.
const ALIKE: usize = 3;

/// One request and what came of it.
pub(super) struct Asked<'a> {
    pub flow: &'a FlowSummary,
    /// Which request of the flow, from 1.
    pub number: u32,
    pub exchange: Exchange<'a>,
    /// The id in the connection's own PROXY header (version 2, UNIQUE_ID).
    announced: Option<&'a str>,
}

impl Asked<'_> {
    /// Ids it was asked with.
    fn ids(&self) -> impl Iterator<Item = &str> {
        request_ids(&self.exchange.head.ids).chain(self.announced)
    }

    /// The flow's number and that of the request.
    pub(super) fn end(&self) -> (PacketRef, u32) {
        (self.flow.facts.id, self.number)
    }

    /// When it was asked.
    pub(super) fn at(&self) -> Timestamp {
        self.exchange.request.time
    }

    /// When its answer began, or the flow ended without one.
    pub(super) fn answered(&self) -> Option<Timestamp> {
        self.exchange.response.map(|(at, _)| at.time).or(self.flow.facts.closer.map(|(_, at)| at.time))
    }

    /// Whether the client still waited at that time.
    pub(super) fn waits_at(&self, time: Timestamp) -> bool {
        let end = self.answered().unwrap_or(Timestamp::MAX);
        (self.at()..=end).contains(&time) && time.since(self.at()) <= OPEN_FOR
    }

    /// The pair with the request of another leg.
    pub(super) fn pair(&self, backend: u32) -> ExchangePair {
        let until = self.exchange.response_end.or(self.exchange.response.map(|(at, _)| at));
        ExchangePair {
            client: self.number,
            backend,
            from: self.at(),
            until: until.or(self.flow.facts.closer.map(|(_, at)| at)).map_or(Timestamp::MAX, |at| at.time),
        }
    }
}

/// Every request of the flows that are kept whole, by time.
pub(super) fn asked(flows: &BTreeMap<PacketRef, FlowSummary>) -> Vec<Asked<'_>> {
    let mut all: Vec<Asked<'_>> = flows
        .values()
        .flat_map(|flow| {
            let announced = announced(flow);
            let asked = move |(exchange, number)| Asked { flow, number, exchange, announced };
            exchanges(&flow.story).into_iter().zip(1..).map(asked)
        })
        .collect();
    all.sort_by_key(|one| (one.exchange.request, one.flow.facts.id, one.number));
    all
}

/// What the four methods say about requests of flows that are not linked yet.
pub(super) fn candidates(
    all: &[Asked<'_>],
    flows: &BTreeMap<PacketRef, FlowSummary>,
    linked: &BTreeSet<PacketRef>,
) -> Vec<Candidate> {
    let index = Index::of(all);
    let clients: BTreeSet<String> = flows.values().map(|flow| flow.facts.client.address.to_string()).collect();
    let mut found = Vec::new();
    announced_elsewhere(all, flows, &index, linked, &mut found);
    for backend in all.iter().filter(|one| !linked.contains(&one.flow.facts.id)) {
        let names_another = backend.exchange.head.forwarded.iter().any(|(_, who)| clients.contains(host_of(who)));
        let fits = |client: &&usize| {
            let client = &all[**client];
            client.flow.facts.id != backend.flow.facts.id
                && client.exchange.request < backend.exchange.request
                && client.waits_at(backend.at())
                && client.flow.facts.server != backend.flow.facts.server
                && !same_connection(client.flow.into(), backend.flow.into())
                && !(names_another && forwarded(client, backend).is_none())
        };
        let near = index.near(all, backend);
        let near: BTreeSet<usize> = near.iter().filter(fits).copied().collect();
        judge(all, backend, &near, &mut found);
    }
    drop_served(all, &mut found);
    found
}

/// A request that a proxy passed on at once is not passed on again while that backend still has it, or when it has answered: what is asked in
/// the same words meanwhile is another client's, perhaps one whose octets nobody here can read.
fn drop_served(all: &[Asked<'_>], found: &mut Vec<Candidate>) {
    let place_of: BTreeMap<End, usize> = all.iter().enumerate().map(|(place, one)| (one.end(), place)).collect();
    let asked = |end: &End| place_of.get(end).map(|place| &all[*place]);
    let mut best: BTreeMap<End, (Confidence, BTreeSet<End>)> = BTreeMap::new();
    for one in found.iter() {
        let (certainty, clients) = best.entry(one.backend).or_insert((one.certainty, BTreeSet::new()));
        if one.certainty > *certainty {
            (*certainty, *clients) = (one.certainty, BTreeSet::new());
        }
        if one.certainty == *certainty {
            clients.insert(one.client);
        }
    }
    // For each client's request the backend's that came at once, and until when it has it.
    let mut served: BTreeMap<End, (End, Timestamp, Timestamp)> = BTreeMap::new();
    for (backend, (certainty, clients)) in &best {
        let (Some(client), 1) = (clients.first(), clients.len()) else { continue };
        let (Some(front), Some(back)) = (asked(client), asked(backend)) else { continue };
        if *certainty < Confidence::High || back.at().since(front.at()) > AT_ONCE || line(front, back).is_none() {
            continue;
        }
        let until = match (back.exchange.response, back.flow.facts.closer) {
            (Some((at, head)), _) if head.status >= 500 => at.time,
            (None, Some((_, at))) => at.time,
            _ => Timestamp::MAX,
        };
        let known = served.entry(*client).or_insert((*backend, back.at(), until));
        if back.at() < known.1 {
            *known = (*backend, back.at(), until);
        }
    }
    found.retain(|one| {
        let Some((first, from, until)) = served.get(&one.client) else { return true };
        let Some(back) = asked(&one.backend) else { return true };
        one.certainty == Confidence::Certain || one.backend == *first || back.at() < *from || back.at() >= *until
    });
}

/// Where requests are found again: places in the list of all, each list in order of time.
struct Index<'a> {
    by_line: BTreeMap<(&'a str, &'a [u8]), Vec<usize>>,
    by_id: BTreeMap<&'a str, Vec<usize>>,
    by_client: BTreeMap<String, Vec<usize>>,
    by_answer: BTreeMap<(u16, u64), Vec<usize>>,
}

impl<'a> Index<'a> {
    fn of(all: &'a [Asked<'a>]) -> Self {
        let mut index = Self {
            by_line: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_client: BTreeMap::new(),
            by_answer: BTreeMap::new(),
        };
        for (place, one) in all.iter().enumerate() {
            index.by_line.entry(line_key(one)).or_default().push(place);
            let answer = one.exchange.response.map(|(_, head)| head);
            // An id that a proxy makes up stands in the answer to the client only.
            for id in one.ids().chain(answer.into_iter().flat_map(|head| request_ids(&head.ids))) {
                index.by_id.entry(id).or_default().push(place);
            }
            index.by_client.entry(one.flow.facts.client.address.to_string()).or_default().push(place);
            if let Some(head) = answer.filter(|head| head.identity != 0) {
                index.by_answer.entry((head.status, head.identity)).or_default().push(place);
            }
        }
        index
    }

    /// Requests that any method could join with this one.
    fn near(&self, all: &[Asked<'_>], backend: &Asked<'_>) -> Vec<usize> {
        let mut lists: Vec<&Vec<usize>> = Vec::new();
        lists.extend(self.by_line.get(&line_key(backend)));
        let answered = backend.exchange.response.into_iter().flat_map(|(_, head)| request_ids(&head.ids));
        lists.extend(backend.ids().chain(answered).filter_map(|id| self.by_id.get(id)));
        lists.extend(backend.exchange.head.forwarded.iter().filter_map(|(_, who)| self.by_client.get(host_of(who))));
        if let Some((_, head)) = backend.exchange.response {
            lists.extend(self.by_answer.get(&(head.status, head.identity)));
        }
        let time = |place: &usize| all[*place].at();
        lists.into_iter().flat_map(|list| latest(list, time, backend.at(), LOOK)).copied().collect()
    }
}

/// Method and the end of the target, which survives most rewriting of paths.
fn line_key<'a>(one: &Asked<'a>) -> (&'a str, &'a [u8]) {
    let target = one.exchange.head.target.as_bytes();
    (&one.exchange.head.method, target.get(target.len().saturating_sub(TAIL)..).unwrap_or(target))
}

/// The id in a flow's PROXY header, where it is text that tells a connection from others.
pub(super) fn announced(flow: &FlowSummary) -> Option<&str> {
    let id = flow.story.events().find_map(|event| match &event.what {
        What::ProxyHeader(header) => header.unique_id(),
        _ => None,
    })?;
    std::str::from_utf8(id).ok().filter(|id| id.len() >= SHORTEST_ID)
}

/// Method 2's id on a connection whose octets nobody here reads, and the same id on a request of the next or the previous leg.
fn announced_elsewhere(
    all: &[Asked<'_>],
    flows: &BTreeMap<PacketRef, FlowSummary>,
    index: &Index<'_>,
    linked: &BTreeSet<PacketRef>,
    found: &mut Vec<Candidate>,
) {
    let read: BTreeSet<PacketRef> = all.iter().map(|one| one.flow.facts.id).collect();
    for flow in flows.values().filter(|flow| !read.contains(&flow.facts.id)) {
        let began = flow.facts.start();
        let Some(list) = announced(flow).and_then(|id| index.by_id.get(id)) else { continue };
        for one in list.iter().take(LOOK).map(|place| &all[*place]) {
            let until = flow.facts.last.time;
            let (client, backend, pair) = if one.at() > began {
                let pair = ExchangePair { client: 0, backend: one.number, from: began, until };
                ((flow.facts.id, 0), one.end(), pair)
            } else {
                (one.end(), (flow.facts.id, 0), one.pair(0))
            };
            let free = !linked.contains(&backend.0) && !same_connection(flow.into(), one.flow.into());
            if free && one.at() <= until {
                let (method, certainty) = (LinkMethod::RequestId, Confidence::Certain);
                found.push(Candidate { client, backend, method, certainty, pair: Some(pair) });
            }
        }
    }
}

/// The address of `192.0.2.1`, `192.0.2.1:4711`, `[2001:db8::1]:4711`.
fn host_of(who: &str) -> &str {
    match who.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None if who.matches(':').count() == 1 => who.split(':').next().unwrap_or(who),
        None => who,
    }
}

/// What the methods say about the candidates of one request.
fn judge(all: &[Asked<'_>], backend: &Asked<'_>, near: &BTreeSet<usize>, found: &mut Vec<Candidate>) {
    let meeting: BTreeSet<usize> = near.iter().copied().filter(|place| meet(all[*place].flow, backend.flow)).collect();
    let alike = meeting.iter().filter(|place| line(&all[**place], backend).is_some()).count();
    let at_once = |client: &Asked<'_>| backend.at().since(client.at()) <= AT_ONCE;
    let first = |place: &usize| line(&all[*place], backend).is_some() && at_once(&all[*place]);
    let only_at_once = meeting.iter().filter(|place| first(place)).count() == 1;
    let agent = |client: &Asked<'_>| {
        let (one, other) = (&client.exchange.head.user_agent, &backend.exchange.head.user_agent);
        one.is_some() && one == other && line(client, backend).is_some()
    };
    let only_agent = meeting.iter().filter(|place| agent(&all[**place])).count() == 1;
    let answered_alike = meeting.iter().filter(|place| same_answer(&all[**place], backend)).count();
    for place in near {
        let client = &all[*place];
        let mut add = |method, certainty| {
            found.push(Candidate {
                client: client.end(),
                backend: backend.end(),
                method,
                certainty,
                pair: Some(client.pair(backend.number)),
            });
        };
        if let Some(certainty) = same_id(client, backend) {
            add(LinkMethod::RequestId, certainty);
        }
        if !meeting.contains(place) {
            continue;
        }
        let line = line(client, backend);
        if let Some(whole) = forwarded(client, backend) {
            let beside = if line.is_some() { Confidence::High } else { Confidence::Medium };
            add(LinkMethod::ForwardedFor, if whole { Confidence::Certain } else { beside });
        }
        let certainty = match alike {
            1 => Confidence::High,
            // Of several alike the only one that came at once before it is the likeliest.
            _ if only_at_once && at_once(client) => Confidence::High,
            2..=ALIKE if only_agent && agent(client) => Confidence::High,
            2..=ALIKE => Confidence::Medium,
            _ => Confidence::Low,
        };
        match line {
            Some(Line::Same) => add(LinkMethod::RequestLine, certainty),
            Some(Line::Rewritten) => add(LinkMethod::RequestLine, certainty.lowered()),
            None => {}
        }
        if same_answer(client, backend) {
            // Of answers that say nothing of their own, such as those of many requests at once, each is like the next.
            let certainty = match answered_alike {
                1 => Confidence::High,
                2..=ALIKE => Confidence::Medium,
                _ => Confidence::Low,
            };
            add(LinkMethod::SameAnswer, certainty);
        }
    }
}

/// An id that the backend was asked with is certain; one that only its answer carries, high.
fn same_id(client: &Asked<'_>, backend: &Asked<'_>) -> Option<Confidence> {
    let answered = |one: &Asked<'_>| one.exchange.response.map(|(_, head)| head.ids.clone()).unwrap_or_default();
    let (ours, theirs) = (answered(client), answered(backend));
    let known: BTreeSet<&str> = client.ids().chain(request_ids(&ours)).collect();
    if backend.ids().any(|id| known.contains(id)) {
        return Some(Confidence::Certain);
    }
    request_ids(&theirs).any(|id| known.contains(id)).then_some(Confidence::High)
}

/// Whether the backend leg names the client: with its port, or its address only.
fn forwarded(client: &Asked<'_>, backend: &Asked<'_>) -> Option<bool> {
    let from = client.flow.facts.client;
    let (host, whole) = (from.address.to_string(), from.to_string());
    backend.exchange.head.forwarded.iter().filter(|(_, who)| host_of(who) == host).map(|(_, who)| *who == whole).max()
}

enum Line {
    Same,
    /// Only the end of the target is the same, or the Host differs.
    Rewritten,
}

/// How much of the request line and Host is the same.
fn line(client: &Asked<'_>, backend: &Asked<'_>) -> Option<Line> {
    let (a, b) = (client.exchange.head, backend.exchange.head);
    let bodies_differ =
        matches!((a.framing, b.framing), (Framing::Length(one), Framing::Length(other)) if one != other);
    if a.method != b.method || bodies_differ {
        return None;
    }
    let host = |head: &crate::wire::http::RequestHead| head.host.as_deref().unwrap_or("").to_ascii_lowercase();
    if a.target == b.target {
        return Some(if host(a) == host(b) { Line::Same } else { Line::Rewritten });
    }
    let (long, short) = if a.target.len() > b.target.len() { (a, b) } else { (b, a) };
    (short.target.len() >= TAIL && long.target.ends_with(short.target.as_str())).then_some(Line::Rewritten)
}

/// Whether the answer on the backend leg is the one that the client got next.
fn same_answer(client: &Asked<'_>, backend: &Asked<'_>) -> bool {
    let (Some((at, ours)), Some((before, theirs))) = (client.exchange.response, backend.exchange.response) else {
        return false;
    };
    ours.status == theirs.status
        && ours.identity != 0
        && ours.identity == theirs.identity
        && before < at
        && at.time.since(before.time) <= PASSED_ON
}
