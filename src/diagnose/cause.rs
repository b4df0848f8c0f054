//! Which finding explains which: roots and consequences.
//!
//! An edge of a rule's `explains` list holds where its scope does. A symptom rule states a bare fact and is explained by any cause of
//! confidence ≥ medium on the same flow or a linked leg. Between two causes a weaker one never explains a stronger one; a finding that
//! speaks for many flows (it has a [`Reach`]) states what was seen of all of them, so it explains from medium on. Two causes are never one
//! because they overlap in time: without an edge nothing explains anything.

use std::collections::{BTreeMap, BTreeSet};

use super::{behind, explain};
use crate::catalogue;
use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Finding, Reach, Severity, Subject, WAITED_FOR};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, Link};
use crate::rule::{Rule, Scope};
use crate::wire::{Address, Endpoint};

/// What the findings have to do with each other.
#[derive(Debug, Default)]
pub struct Causes {
    /// For each finding the index of the one that explains it directly.
    pub explained_by: Vec<Option<usize>>,
    /// For each finding the weaker causes that may lie behind it.
    pub deeper: Vec<Vec<usize>>,
}

impl Causes {
    /// The finding at the end of the chain of causes.
    pub fn root(&self, mut finding: usize) -> usize {
        let mut steps = 0;
        while let Some(cause) = self.explained_by[finding] {
            finding = cause;
            steps += 1;
            debug_assert!(steps <= self.explained_by.len(), "the explains graph has no cycle");
            if steps > self.explained_by.len() {
                break;
            }
        }
        finding
    }
}

/// Where a finding is: its flow, the ends, the name asked for.
#[derive(Default)]
pub(super) struct Place {
    flow: Option<PacketRef>,
    pub(super) client: Option<Endpoint>,
    pub(super) server: Option<Endpoint>,
    name: Option<String>,
    /// Whom it waited for, where that is neither end; port 0 where none is known.
    waited_for: Option<Endpoint>,
    /// The flow it waited for, where that is known.
    waited_on: Option<PacketRef>,
}

impl Place {
    fn of(finding: &Finding, capture: &CaptureView<'_>) -> Self {
        let whole = capture.flow_of(finding);
        Self {
            flow: finding.subject.flow(),
            client: whole.map(|flow| flow.facts.client),
            server: whole.map(|flow| flow.facts.server),
            name: whole.and_then(name_of).or_else(|| finding.reach.as_ref().and_then(|reach| reach.name.clone())),
            waited_for: match finding.values.get(WAITED_FOR) {
                Some(Value::Endpoint(end)) => Some(*end),
                Some(Value::Address(address)) => Some(Endpoint::new(*address, 0)),
                _ => None,
            },
            waited_on: match finding.values.get(WAITED_FOR) {
                Some(Value::Frame(flow)) => Some(*flow),
                _ => None,
            },
        }
    }

    fn hosts(&self) -> impl Iterator<Item = Address> {
        [self.client, self.server].into_iter().flatten().map(|end| end.address)
    }
}

/// The name a flow asks for, lower case: SNI, host, or what it asks the DNS.
fn name_of(flow: &FlowSummary) -> Option<String> {
    explain::server_name(&flow.story).map(|name| name.trim_end_matches('.').to_ascii_lowercase())
}

/// Where causes are looked up that lie on another flow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Server(Endpoint),
    Host(Address),
    Source(Address),
    Name(String),
    Flow(PacketRef),
    Anywhere,
}

/// Causes considered for one effect at one key: those nearest in time.
const NEAREST: usize = 32;

/// Finds every finding's cause.
pub fn find(findings: &[Finding], capture: &CaptureView<'_>) -> Causes {
    let rules: Vec<&Rule> = findings.iter().filter_map(|f| catalogue::rule(&f.rule)).collect();
    let mut causes = Causes { explained_by: vec![None; findings.len()], deeper: vec![Vec::new(); findings.len()] };
    if rules.len() != findings.len() {
        debug_assert!(false, "every finding comes from a rule of the catalogue");
        return causes;
    }
    let places: Vec<Place> = findings.iter().map(|f| Place::of(f, capture)).collect();
    let mut on_flow: BTreeMap<PacketRef, Vec<usize>> = BTreeMap::new();
    for (i, finding) in findings.iter().enumerate() {
        for flow in flows_of(finding) {
            on_flow.entry(flow).or_default().push(i);
        }
    }
    let apart = index(findings, &rules, &places);
    let open = Open::of(capture);
    let reach = Reached { findings, rules: &rules, places: &places, capture, on_flow: &on_flow, apart: &apart, open };
    for effect in 0..findings.len() {
        let (cause, deeper) = reach.cause_of(effect);
        causes.explained_by[effect] = cause;
        causes.deeper[effect] = deeper;
    }
    behind::of_one_way(findings, &rules, &places, &mut causes);
    behind::held_up(findings, &rules, &places, &mut causes);
    behind::in_numbers(findings, &rules, &places, capture, &mut causes);
    behind::of_one_host(findings, &rules, &mut causes);
    behind::of_one_silence(findings, &rules, &places, &mut causes);
    break_cycles(&mut causes);
    causes
}

/// Causes by effect and key, in order of time: only edges that reach beyond a flow and its legs.
type Apart<'a> = BTreeMap<&'a str, BTreeMap<Key, Vec<usize>>>;

fn index<'a>(findings: &'a [Finding], rules: &[&'a Rule], places: &[Place]) -> Apart<'a> {
    let mut apart: Apart<'a> = BTreeMap::new();
    for (i, rule) in rules.iter().enumerate() {
        for edge in rule.explains {
            let keys = match (&findings[i].reach, edge.1) {
                (_, Scope::Same | Scope::Link | Scope::SameOrLink) => continue,
                (Some(reach), _) => keys_of_reach(reach),
                (None, scope) => keys_of_place(scope, &places[i], &findings[i]),
            };
            for key in keys {
                let list = apart.entry(edge.0).or_default().entry(key).or_default();
                if list.last() != Some(&i) {
                    list.push(i);
                }
            }
        }
    }
    apart
}

/// The narrowest list that a reach has.
fn keys_of_reach(reach: &Reach) -> Vec<Key> {
    if !reach.servers.is_empty() {
        return reach.servers.iter().copied().map(Key::Server).collect();
    }
    if !reach.sources.is_empty() {
        return reach.sources.iter().copied().map(Key::Source).collect();
    }
    if !reach.hosts.is_empty() {
        return reach.hosts.iter().copied().map(Key::Host).collect();
    }
    match &reach.name {
        Some(name) => vec![Key::Name(name.clone())],
        None => vec![Key::Anywhere],
    }
}

fn keys_of_place(scope: Scope, place: &Place, finding: &Finding) -> Vec<Key> {
    match scope {
        Scope::Same | Scope::Link | Scope::SameOrLink => Vec::new(),
        Scope::Peer | Scope::PeerTime | Scope::PeerName => place.server.map(Key::Server).into_iter().collect(),
        Scope::Time => vec![Key::Anywhere],
        Scope::Source => place.client.map(|client| Key::Source(client.address)).into_iter().collect(),
        Scope::Hop | Scope::HopTime | Scope::ServerAddress => {
            place.server.map(|server| Key::Host(server.address)).into_iter().collect()
        }
        Scope::Host => place.hosts().map(Key::Host).collect(),
        Scope::Name | Scope::NameTime => place.name.clone().map(Key::Name).into_iter().collect(),
        Scope::Sequence => {
            let cited: BTreeSet<PacketRef> = finding.evidence.iter().filter_map(|e| e.flow).collect();
            cited.into_iter().map(Key::Flow).collect()
        }
    }
}

struct Reached<'a> {
    findings: &'a [Finding],
    rules: &'a [&'a Rule],
    places: &'a [Place],
    capture: &'a CaptureView<'a>,
    on_flow: &'a BTreeMap<PacketRef, Vec<usize>>,
    apart: &'a Apart<'a>,
    open: Open,
}

/// The backend legs that a client leg fits, where several fit equally well: of many like requests nobody can tell which is which.
struct Open(BTreeMap<PacketRef, Vec<PacketRef>>);

impl Open {
    fn of(capture: &CaptureView<'_>) -> Self {
        let mut by_client: BTreeMap<PacketRef, Vec<PacketRef>> = BTreeMap::new();
        for open in capture.open_links.iter().filter(|open| open.alike()) {
            for client in &open.candidates {
                by_client.entry(*client).or_default().push(open.backend_leg);
            }
        }
        Self(by_client)
    }

    fn backends_of(&self, client: PacketRef) -> &[PacketRef] {
        self.0.get(&client).map_or(&[], Vec::as_slice)
    }
}

/// The flows that a finding is about: of two legs both.
fn flows_of(finding: &Finding) -> impl Iterator<Item = PacketRef> + use<> {
    let client = match finding.subject {
        Subject::Legs(client, _) => Some(client),
        _ => None,
    };
    finding.subject.flow().into_iter().chain(client)
}

/// How a possible cause is near an effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    Apart,
    Linked,
    Same,
}

impl Reached<'_> {
    fn cause_of(&self, effect: usize) -> (Option<usize>, Vec<usize>) {
        let mut best: Option<(usize, Near)> = None;
        let mut deeper = Vec::new();
        for (cause, near) in self.near(effect) {
            if cause == effect || !self.explains(cause, effect, near) {
                continue;
            }
            if !self.strong_enough(cause, effect) {
                deeper.push(cause);
                continue;
            }
            best = match best {
                Some(known) if self.better(known) >= self.better((cause, near)) => Some(known),
                _ => Some((cause, near)),
            };
        }
        deeper.sort_unstable();
        deeper.dedup();
        (best.map(|(cause, _)| cause), deeper)
    }

    /// Causes before symptoms, what is seen on the flow or its other leg before what is seen elsewhere, the surer first, then the earlier.
    fn better(&self, (i, near): (usize, Near)) -> (bool, bool, bool, Confidence, std::cmp::Reverse<PacketRef>) {
        let finding = &self.findings[i];
        (
            !self.rules[i].symptom,
            near != Near::Apart,
            finding.reach.is_some(),
            finding.confidence,
            std::cmp::Reverse(finding.first()),
        )
    }

    fn near(&self, effect: usize) -> Vec<(usize, Near)> {
        let mut near = Vec::new();
        let place = &self.places[effect];
        let on = |flow: PacketRef| self.on_flow.get(&flow).map(Vec::as_slice).unwrap_or(&[]);
        let span = |i: usize| (self.findings[i].first().time, self.findings[i].last().time);
        for flow in flows_of(&self.findings[effect]) {
            near.extend(on(flow).iter().map(|i| (*i, Near::Same)));
            for link in self.capture.links_of(flow).filter(|link| link.certainty >= Confidence::Medium) {
                let other = if link.client_leg == flow { link.backend_leg } else { link.client_leg };
                // Many requests share a connection: what happened to another one explains nothing.
                let joined = on(other).iter().filter(|i| link.joins(span(effect), span(**i)));
                near.extend(joined.map(|i| (*i, Near::Linked)));
            }
        }
        near.extend(self.whichever(effect).into_iter().map(|i| (i, Near::Linked)));
        near.extend(place.waited_on.into_iter().flat_map(|flow| on(flow).iter().map(|i| (*i, Near::Linked))));
        let Some(apart) = self.apart.get(self.rules[effect].id) else { return near };
        let mut keys = vec![Key::Anywhere];
        keys.extend(place.flow.map(Key::Flow));
        keys.extend(place.server.map(Key::Server));
        keys.extend(place.client.map(|client| Key::Source(client.address)));
        keys.extend(place.hosts().map(Key::Host));
        keys.extend(place.name.clone().map(Key::Name));
        keys.extend(place.waited_for.into_iter().flat_map(|end| [Key::Server(end), Key::Host(end.address)]));
        if let Some(reach) = &self.findings[effect].reach {
            keys.extend(reach.servers.iter().take(NEAREST).copied().map(Key::Server));
            keys.extend(reach.servers.iter().take(NEAREST).map(|server| Key::Host(server.address)));
            keys.extend(
                reach.sources.iter().take(NEAREST).flat_map(|source| [Key::Source(*source), Key::Host(*source)]),
            );
            keys.extend(reach.hosts.iter().chain(&reach.askers).take(NEAREST).copied().map(Key::Host));
        }
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let Some(list) = apart.get(&key) else { continue };
            let here = list.partition_point(|i| *i < effect);
            let around = &list[here.saturating_sub(NEAREST)..(here + NEAREST).min(list.len())];
            near.extend(around.iter().map(|i| (*i, Near::Apart)));
        }
        near
    }

    /// Where a client leg fits several backend legs: what was found meanwhile on every one of them, so that it matters to this one
    /// whichever it is. Of each rule the earliest.
    fn whichever(&self, effect: usize) -> Vec<usize> {
        let Subject::Flow(flow) = self.findings[effect].subject else { return Vec::new() };
        let linked = |link: &Link| link.client_leg == flow && link.certainty >= Confidence::Medium;
        let backends = self.open.backends_of(flow);
        if backends.is_empty() || self.capture.links_of(flow).any(linked) {
            return Vec::new();
        }
        let (from, until) = (self.findings[effect].first(), self.findings[effect].last());
        let mut by_rule: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for backend in backends {
            let on = self.on_flow.get(backend).map(Vec::as_slice).unwrap_or(&[]);
            let meanwhile = |i: &&usize| self.findings[**i].first() <= until && self.findings[**i].last() >= from;
            let mut seen = BTreeSet::new();
            for i in on.iter().filter(meanwhile).filter(|i| seen.insert(self.rules[**i].id)) {
                let (earliest, legs) = by_rule.entry(self.rules[*i].id).or_insert((*i, 0));
                *earliest = (*earliest).min(*i);
                *legs += 1;
            }
        }
        by_rule.into_values().filter(|(_, legs)| *legs == backends.len()).map(|(earliest, _)| earliest).collect()
    }

    fn explains(&self, cause: usize, effect: usize, near: Near) -> bool {
        let (cause_rule, effect_rule) = (self.rules[cause], self.rules[effect]);
        let by_table = cause_rule.explains.iter().any(|edge| {
            edge.0 == effect_rule.id
                && match (edge.1, near) {
                    (Scope::Same, _) => near == Near::Same,
                    (Scope::Link, _) => near == Near::Linked || (near == Near::Same && self.about_legs(cause, effect)),
                    (Scope::SameOrLink, _) => near != Near::Apart,
                    (Scope::PeerTime | Scope::Time | Scope::HopTime | Scope::NameTime, Near::Same) => {
                        self.in_time(cause, effect)
                    }
                    (_, Near::Same) => true,
                    (scope, _) => self.holds(scope, cause, effect),
                }
        });
        if by_table {
            // Of one thing on both legs the backend leg's is the cause.
            return cause_rule.id != effect_rule.id || near == Near::Linked && self.passed_on(cause, effect);
        }
        if cause_rule.id == effect_rule.id {
            return cause_rule.symptom && near == Near::Linked && self.passed_on(cause, effect);
        }
        // The table goes first: what it places below a symptom does not explain that symptom.
        let turned_round = effect_rule.explains.iter().any(|edge| edge.0 == cause_rule.id);
        effect_rule.symptom
            && !cause_rule.symptom
            && !turned_round
            && near != Near::Apart
            && !cause_rule.id.starts_with("capture-")
            && self.findings[cause].severity >= Severity::Warning
            && self.findings[cause].first() <= self.findings[effect].last()
    }

    /// Whether a scope holds between findings on different flows.
    fn holds(&self, scope: Scope, cause: usize, effect: usize) -> bool {
        let (a, b) = (&self.places[cause], &self.places[effect]);
        if let Some(end) = b.waited_for {
            let there = match (&self.findings[cause].reach, a.server, scope) {
                (Some(reach), _, Scope::Hop | Scope::Peer) => reach.holds(&end, &end),
                (None, Some(server), Scope::Peer) => server == end,
                (None, Some(server), Scope::Hop) => server.address == end.address,
                _ => false,
            };
            return there && self.in_time(cause, effect);
        }
        if let Some(reach) = &self.findings[cause].reach {
            let there = match (b.client, b.server, &self.findings[effect].reach) {
                (_, _, Some(other)) => reach.includes(other),
                (Some(client), Some(server), None) => reach.holds(&client, &server),
                _ => false,
            };
            let named = reach.name.is_none() || b.name.is_none() || reach.name == b.name;
            return there && named && self.in_time(cause, effect);
        }
        // What speaks for many flows is explained by one flow's cause only where it speaks of that flow's server alone.
        if let (Some(effect), Some(server)) = (&self.findings[effect].reach, a.server) {
            let mut hosts = effect.servers.iter().map(|end| end.address).chain(effect.hosts.iter().copied()).peekable();
            let machine = self.capture.neighbors.machines(&[server.address]);
            let alone = hosts.peek().is_some() && hosts.all(|host| machine.contains(&host));
            return matches!(scope, Scope::Hop | Scope::ServerAddress | Scope::Peer) && alone;
        }
        let same = |one: Option<Endpoint>, other: Option<Endpoint>| one.is_some() && one == other;
        let address = |end: Option<Endpoint>| end.map(|end| end.address);
        let same_host = |one: Option<Endpoint>, other| one.is_some() && address(one) == address(other);
        let same_name = a.name.is_some() && a.name == b.name;
        match scope {
            Scope::Same | Scope::Link | Scope::SameOrLink => false,
            Scope::Peer => same(a.server, b.server),
            Scope::PeerTime => same(a.server, b.server) && self.in_time(cause, effect),
            Scope::PeerName => same(a.server, b.server) && (same_name || a.name.is_none() || b.name.is_none()),
            Scope::Time => self.in_time(cause, effect),
            Scope::Source => same_host(a.client, b.client),
            Scope::Hop | Scope::ServerAddress => same_host(a.server, b.server),
            Scope::HopTime => same_host(a.server, b.server) && self.in_time(cause, effect),
            Scope::Name => same_name,
            Scope::NameTime => same_name && self.in_time(cause, effect),
            Scope::Host => a.hosts().any(|host| b.hosts().any(|other| other == host)) && self.in_time(cause, effect),
            Scope::Sequence => self.findings[cause].evidence.iter().any(|e| e.flow.is_some() && e.flow == b.flow),
        }
    }

    /// A finding about two legs is on both: what explains or suffers across a link stands beside it.
    fn about_legs(&self, cause: usize, effect: usize) -> bool {
        [cause, effect].into_iter().any(|i| matches!(self.findings[i].subject, Subject::Legs(..)))
    }

    /// The backend leg's bare fact is what the proxy passed on to the client leg.
    fn passed_on(&self, backend: usize, client: usize) -> bool {
        let (Some(backend), Some(client)) = (self.places[backend].flow, self.places[client].flow) else { return false };
        let linked =
            || self.capture.links_of(client).any(|link| (link.client_leg, link.backend_leg) == (client, backend));
        linked() || self.open.backends_of(client).contains(&backend)
    }

    /// Both at one time, give or take the grouping time; of a cause with spans, within one of them.
    fn in_time(&self, cause: usize, effect: usize) -> bool {
        let group = self.capture.thresholds.group;
        let (a, b) = (&self.findings[cause], &self.findings[effect]);
        let (from, until) = (b.first().time, b.last().time);
        match &a.reach {
            Some(reach) if !reach.spans.is_empty() => reach.during(from, until, group),
            _ => a.first().time - group <= until && from <= a.last().time + group,
        }
    }

    fn strong_enough(&self, cause: usize, effect: usize) -> bool {
        let (a, b) = (self.findings[cause].confidence, self.findings[effect].confidence);
        // What joins two legs is a fact about both, like a symptom: how sure it is says nothing about its cause.
        let fact = self.rules[effect].symptom
            || self.findings[cause].reach.is_some()
            || matches!(self.findings[effect].subject, Subject::Legs(..));
        if fact { a >= Confidence::Medium } else { a >= b }
    }
}

/// Two findings that would explain each other (possible only across legs): the earlier one stays the cause.
fn break_cycles(causes: &mut Causes) {
    for start in 0..causes.explained_by.len() {
        let mut seen = vec![start];
        let mut at = start;
        while let Some(next) = causes.explained_by[at] {
            if seen.contains(&next) {
                let first = seen[seen.iter().position(|i| *i == next).unwrap_or(0)..].iter().copied().min();
                if let Some(first) = first {
                    causes.explained_by[first] = None;
                }
                break;
            }
            seen.push(next);
            at = next;
        }
    }
}
