//! Methods 8 to 10: what happens at one host at nearly the same time. The weakest methods: only a single candidate is believed.

use std::collections::{BTreeMap, BTreeSet};

use super::hosts::{Host, Hosts};
use super::requests::Asked;
use super::{AT_ONCE, Candidate, End, LOOK, PASSED_ON, latest, same_connection};
use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::{Handshake, IpProtocol};
use crate::rule::exchange::exchanges;
use crate::rule::finding::Confidence;
use crate::rule::summary::{FlowSummary, protocol_of};
use crate::rule::view::LinkMethod;
use crate::time::Timestamp;
use crate::wire::Endpoint;

/// So many requests to one server that each led to the same other server are no coincidence.
const REPEATED: usize = 5;

/// What the three methods say about flows that nothing has joined yet.
pub(super) fn candidates(
    all: &[Asked<'_>],
    flows: &BTreeMap<PacketRef, FlowSummary>,
    hosts: &Hosts,
    linked: &BTreeSet<PacketRef>,
    whole: &BTreeSet<PacketRef>,
) -> Vec<Candidate> {
    let places = Places::of(flows, all, hosts, whole);
    let mut found = Vec::new();
    for backend in flows.values().filter(|flow| {
        flow.facts.transport == IpProtocol::Tcp && !linked.contains(&flow.facts.id) && !flow.facts.mid_stream
    }) {
        let before = found.len();
        places.failed_connection(backend, &mut found);
        if found.len() == before {
            places.passed_through(backend, &mut found);
        }
        if found.len() == before {
            places.answer_size(backend, &mut found);
            places.server_name(backend, before, &mut found);
        }
        if found.len() == before {
            places.fan_out(backend, &mut found);
        }
    }
    raise_repeated(flows, &mut found);
    found
}

/// Requests and flows by the host that was asked, each list in order of time.
struct Places<'a> {
    all: &'a [Asked<'a>],
    hosts: &'a Hosts,
    requests: BTreeMap<Host, Vec<usize>>,
    /// Flows that are no HTTP/1 and no leg of another link.
    streams: BTreeMap<Host, Vec<&'a FlowSummary>>,
}

impl<'a> Places<'a> {
    fn of(
        flows: &'a BTreeMap<PacketRef, FlowSummary>,
        all: &'a [Asked<'a>],
        hosts: &'a Hosts,
        whole: &BTreeSet<PacketRef>,
    ) -> Self {
        let mut places = Self { all, hosts, requests: BTreeMap::new(), streams: BTreeMap::new() };
        for (place, one) in all.iter().enumerate() {
            for host in hosts.server(one.flow.facts.id) {
                places.requests.entry(*host).or_default().push(place);
            }
        }
        let stream = |flow: &&FlowSummary| {
            flow.facts.transport == IpProtocol::Tcp
                && flow.facts.handshake >= Handshake::SynAck
                && protocol_of(&flow.story, Side::Client) != Some(Protocol::Http)
                && !whole.contains(&flow.facts.id)
        };
        for flow in flows.values().filter(stream) {
            for host in hosts.server(flow.facts.id) {
                places.streams.entry(*host).or_default().push(flow);
            }
        }
        places
    }

    /// Requests that waited at the backend leg's client host at that time.
    fn waiting(&self, backend: &FlowSummary, at: Timestamp) -> Vec<&'a Asked<'a>> {
        let mut found: BTreeMap<(PacketRef, u32), &Asked<'_>> = BTreeMap::new();
        for list in self.hosts.client(backend.facts.id).iter().filter_map(|host| self.requests.get(host)) {
            for place in latest(list, |place| self.all[*place].at(), at, LOOK) {
                let one = &self.all[*place];
                if one.waits_at(at) && self.other_leg(one.flow, backend) {
                    found.insert(one.end(), one);
                }
            }
        }
        found.into_values().collect()
    }

    /// Streams that were open at the backend leg's client host when it began.
    fn streams(&self, backend: &FlowSummary) -> Vec<&'a FlowSummary> {
        let began = backend.facts.start();
        let mut found: BTreeMap<PacketRef, &FlowSummary> = BTreeMap::new();
        for list in self.hosts.client(backend.facts.id).iter().filter_map(|host| self.streams.get(host)) {
            for flow in latest(list, |flow| flow.facts.start(), began, LOOK) {
                if flow.facts.last.time >= began && self.other_leg(flow, backend) {
                    found.insert(flow.facts.id, flow);
                }
            }
        }
        found.into_values().collect()
    }

    fn other_leg(&self, client: &FlowSummary, backend: &FlowSummary) -> bool {
        let (a, b) = (&client.facts, &backend.facts);
        a.id < b.id && a.server != b.server && a.client != b.client && !same_connection(client.into(), backend.into())
    }

    /// A connection that never carried anything, opened while a request waited (method 8).
    fn failed_connection(&self, backend: &FlowSummary, found: &mut Vec<Candidate>) {
        let facts = &backend.facts;
        if facts.from_client.payload + facts.from_server.payload > 0 || facts.handshake == Handshake::Full {
            return;
        }
        let began = facts.start();
        let waiting = self.waiting(backend, began);
        let near: Vec<&Asked<'_>> = waiting.iter().copied().filter(|one| began.since(one.at()) <= AT_ONCE).collect();
        let chosen = if waiting.len() > 1 && near.len() == 1 { near } else { waiting };
        let n = chosen.len();
        found.extend(chosen.into_iter().map(|one| Candidate {
            client: one.end(),
            backend: (facts.id, 0),
            method: LinkMethod::Timing,
            certainty: Confidence::Medium,
            pair: Some(one.pair(0)),
        }));
        if n == 0 {
            // A proxy that does not read the protocol: it connects as soon as it has a client, and closes when that fails.
            let ended = facts.last.time;
            let fits = |flow: &FlowSummary| {
                opened_for(flow, began)
                    || flow.facts.closer.is_some_and(|(_, at)| {
                        at.time >= ended && at.time.since(ended) <= PASSED_ON && flow.facts.from_server.payload == 0
                    })
            };
            self.streams_that(backend, fits, LinkMethod::Timing, found);
        }
    }

    /// Octets that nobody here reads: opened at once for the client, and closed at once after it or before it (method 8).
    fn passed_through(&self, backend: &FlowSummary, found: &mut Vec<Candidate>) {
        let http = protocol_of(&backend.story, Side::Client) == Some(Protocol::Http);
        if http || backend.facts.handshake < Handshake::SynAck {
            return;
        }
        let began = backend.facts.start();
        let fits = |flow: &FlowSummary| {
            let apart = |a: Timestamp, b: Timestamp| if a > b { a.since(b) } else { b.since(a) };
            let together = match (flow.facts.closer, backend.facts.closer) {
                (Some((_, one)), Some((_, other))) => apart(one.time, other.time) <= PASSED_ON,
                (None, None) => true,
                _ => false,
            };
            together && opened_for(flow, began)
        };
        self.streams_that(backend, fits, LinkMethod::Timing, found);
    }

    /// The proxy ends TLS: the answer on the backend leg is as long as what the client's leg carries sealed (method 7).
    fn answer_size(&self, backend: &FlowSummary, found: &mut Vec<Candidate>) {
        let asked = exchanges(&backend.story);
        let [one] = asked.as_slice() else { return };
        let Some((answer, _)) = one.response else { return };
        let half = &backend.facts.from_server;
        if half.unseen > 0 || half.cut > 0 {
            return;
        }
        let fits = |flow: &FlowSummary| {
            let sealed = flow.story.pick(|e| match e.what {
                What::TlsSealed { clear, .. } => Some(clear),
                _ => None,
            });
            let alike = |clear: u64| clear.abs_diff(half.payload) <= half.payload / 20;
            let first = flow.story.first(Kind::TlsData, Side::Server).map(|event| event.at.time);
            let passed_on = first.is_some_and(|at| at >= answer.time && at.since(answer.time) <= PASSED_ON);
            passed_on && flow.facts.from_server.unseen == 0 && sealed.into_iter().any(alike)
        };
        self.streams_that(backend, fits, LinkMethod::AnswerSize, found);
    }

    /// The proxy ends TLS, so that only names can be compared (method 9). Where sizes told the client legs from others (from `before` on in
    /// the list), names only confirm them.
    fn server_name(&self, backend: &FlowSummary, before: usize, found: &mut Vec<Candidate>) {
        let sized: BTreeSet<PacketRef> = found.iter().skip(before).map(|one| one.client.0).collect();
        let asked = exchanges(&backend.story);
        let [one] = asked.as_slice() else { return };
        let Some(host) = one.head.host.as_deref() else { return };
        let host = host.split(':').next().unwrap_or(host);
        let at = one.request.time;
        let fits = |flow: &FlowSummary| {
            let spoke = flow.facts.from_client.last_payload.is_some_and(|last| last.time >= flow.facts.start());
            let mut name = flow.story.pick(|e| match &e.what {
                What::ClientHello(hello) => hello.sni.as_deref(),
                _ => None,
            });
            let among = sized.is_empty() || sized.contains(&flow.facts.id);
            among && spoke && flow.facts.last.time >= at && name.any(|name| name.eq_ignore_ascii_case(host))
        };
        self.streams_that(backend, fits, LinkMethod::ServerName, found);
    }

    /// A request that made the server ask somebody else, and waited as long as that took (method 10).
    fn fan_out(&self, backend: &FlowSummary, found: &mut Vec<Candidate>) {
        let facts = &backend.facts;
        let Some(first) = facts.from_client.first_payload else { return };
        if exchanges(&backend.story).len() > 1 {
            return;
        }
        let began = facts.start();
        if first.time.since(began) > PASSED_ON {
            return;
        }
        let waiting = self.waiting(backend, began);
        let answered = facts.from_server.last_payload.map(|at| at.time);
        let given_up = facts.closer.map(|(_, at)| at.time);
        let in_order = |one: &Asked<'_>| match (answered, one.exchange.response) {
            (Some(theirs), Some((ours, _))) => theirs <= ours.time,
            (Some(_), None) => false,
            (None, Some((ours, _))) => given_up.is_some_and(|given_up| given_up <= ours.time),
            (None, None) => true,
        };
        let fits = |one: &&Asked<'_>| began.since(one.at()) <= PASSED_ON && in_order(one);
        let caused: Vec<&Asked<'_>> = waiting.iter().copied().filter(fits).collect();
        // Beside others that wait it may be one of those: believed only when the same happens again and again. Of several that fit equally
        // well none is taken in the end.
        let certainty = if waiting.len() == 1 || caused.len() > 1 { Confidence::Medium } else { Confidence::Low };
        found.extend(caused.into_iter().map(|one| Candidate {
            client: one.end(),
            backend: (facts.id, 0),
            method: LinkMethod::FanOut,
            certainty,
            pair: Some(one.pair(0)),
        }));
    }

    /// Streams that fit: one is believed; of several none is taken in the end.
    fn streams_that(
        &self,
        backend: &FlowSummary,
        fits: impl Fn(&FlowSummary) -> bool,
        method: LinkMethod,
        found: &mut Vec<Candidate>,
    ) {
        found.extend(self.streams(backend).into_iter().filter(|flow| fits(flow)).map(|flow| Candidate {
            client: (flow.facts.id, 0),
            backend: (backend.facts.id, 0),
            method,
            certainty: Confidence::Medium,
            pair: None,
        }));
    }
}

/// Whether a connection that began then was opened as soon as the client of this one was there, or had spoken.
fn opened_for(flow: &FlowSummary, began: Timestamp) -> bool {
    let ready = [flow.facts.from_server.first, flow.facts.established, flow.facts.from_client.first_payload];
    ready.into_iter().flatten().any(|at| at.time <= began && began.since(at.time) <= AT_ONCE)
}

/// What happens again and again between the same two servers is no coincidence.
fn raise_repeated(flows: &BTreeMap<PacketRef, FlowSummary>, found: &mut [Candidate]) {
    let ends = |one: &Candidate| -> Option<(Endpoint, Endpoint)> {
        Some((flows.get(&one.client.0)?.facts.server, flows.get(&one.backend.0)?.facts.server))
    };
    let mut fits: BTreeMap<PacketRef, usize> = BTreeMap::new();
    for one in found.iter().filter(|one| one.method == LinkMethod::FanOut) {
        *fits.entry(one.backend.0).or_default() += 1;
    }
    let mut often: BTreeMap<(Endpoint, Endpoint), usize> = BTreeMap::new();
    for one in found.iter().filter(|one| one.method == LinkMethod::FanOut && fits.get(&one.backend.0) == Some(&1)) {
        if let Some(ends) = ends(one) {
            *often.entry(ends).or_default() += 1;
        }
    }
    let repeated = |one: &Candidate| {
        one.method == LinkMethod::FanOut
            && ends(one).is_some_and(|ends| often.get(&ends).is_some_and(|n| *n >= REPEATED))
    };
    let mut taken: BTreeSet<End> = BTreeSet::new();
    for one in found.iter_mut().filter(|one| fits.get(&one.backend.0) == Some(&1) && repeated(one)) {
        one.certainty = Confidence::High;
        taken.insert(one.client);
    }
    // Where several came at once, first come is first served: the order may be wrong, what they all lead to is not. Candidates of one
    // backend leg stand together, the legs in order of time, the requests of a leg in that of their flows.
    let mut served: Option<PacketRef> = None;
    for one in found.iter_mut().filter(|one| fits.get(&one.backend.0) > Some(&1) && repeated(one)) {
        if served != Some(one.backend.0) && taken.insert(one.client) {
            served = Some(one.backend.0);
            one.certainty = Confidence::Medium;
        } else {
            one.certainty = Confidence::Low;
        }
    }
}
