//! Which finding explains which: roots and consequences.
//!
//! An edge of a rule's `explains` list holds where its scope does. A symptom rule states a bare fact and is explained by any cause of
//! confidence ≥ medium on the same flow or a linked leg. Between two causes a weaker one never explains a stronger one.

use std::collections::BTreeMap;

use crate::catalogue;
use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Finding, Severity, Subject};
use crate::rule::view::CaptureView;
use crate::rule::{Rule, Scope};
use crate::wire::Endpoint;

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

/// Where a finding is: its flow, the server end, the client.
struct Place {
    flow: Option<PacketRef>,
    server: Option<Endpoint>,
}

/// Finds every finding's cause.
pub fn find(findings: &[Finding], capture: &CaptureView<'_>) -> Causes {
    let rules: Vec<&Rule> = findings.iter().filter_map(|f| catalogue::rule(&f.rule)).collect();
    let places: Vec<Place> = findings
        .iter()
        .map(|f| Place { flow: f.subject.flow(), server: capture.flow_of(f).map(|flow| flow.facts.server) })
        .collect();
    let mut causes = Causes { explained_by: vec![None; findings.len()], deeper: vec![Vec::new(); findings.len()] };
    if rules.len() != findings.len() {
        debug_assert!(false, "every finding comes from a rule of the catalogue");
        return causes;
    }
    let mut on_flow: BTreeMap<PacketRef, Vec<usize>> = BTreeMap::new();
    let mut on_server: BTreeMap<Endpoint, Vec<usize>> = BTreeMap::new();
    for (i, place) in places.iter().enumerate() {
        for flow in flows_of(&findings[i]) {
            on_flow.entry(flow).or_default().push(i);
        }
        if let Some(server) = place.server {
            // Edges between flows of one server only start at rules that have such an edge.
            if rules[i].explains.iter().any(|e| matches!(e.1, Scope::Peer | Scope::PeerTime)) {
                on_server.entry(server).or_default().push(i);
            }
        }
    }
    let reach = Reach { findings, rules: &rules, places: &places, capture, on_flow: &on_flow, on_server: &on_server };
    for effect in 0..findings.len() {
        let (cause, deeper) = reach.cause_of(effect);
        causes.explained_by[effect] = cause;
        causes.deeper[effect] = deeper;
    }
    break_cycles(&mut causes);
    causes
}

struct Reach<'a> {
    findings: &'a [Finding],
    rules: &'a [&'a Rule],
    places: &'a [Place],
    capture: &'a CaptureView<'a>,
    on_flow: &'a BTreeMap<PacketRef, Vec<usize>>,
    on_server: &'a BTreeMap<Endpoint, Vec<usize>>,
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
#[derive(Clone, Copy, PartialEq)]
enum Near {
    Same,
    Linked,
    Server,
}

impl Reach<'_> {
    fn cause_of(&self, effect: usize) -> (Option<usize>, Vec<usize>) {
        let mut best: Option<usize> = None;
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
                Some(known) if self.better(known) >= self.better(cause) => Some(known),
                _ => Some(cause),
            };
        }
        deeper.sort_unstable();
        deeper.dedup();
        (best, deeper)
    }

    /// Causes before symptoms, the surer first, then the earlier.
    fn better(&self, i: usize) -> (bool, Confidence, std::cmp::Reverse<PacketRef>) {
        (!self.rules[i].symptom, self.findings[i].confidence, std::cmp::Reverse(self.findings[i].first()))
    }

    fn near(&self, effect: usize) -> Vec<(usize, Near)> {
        let mut near = Vec::new();
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
        if let Some(server) = self.places[effect].server {
            let peers = self.on_server.get(&server).map(Vec::as_slice).unwrap_or(&[]);
            near.extend(peers.iter().map(|i| (*i, Near::Server)));
        }
        near
    }

    fn explains(&self, cause: usize, effect: usize, near: Near) -> bool {
        let (cause_rule, effect_rule) = (self.rules[cause], self.rules[effect]);
        let by_table = cause_rule.explains.iter().any(|edge| {
            edge.0 == effect_rule.id
                && match edge.1 {
                    Scope::Same => near == Near::Same,
                    Scope::Link => near == Near::Linked || (near == Near::Same && self.about_legs(cause, effect)),
                    Scope::SameOrLink => near != Near::Server,
                    Scope::Peer => true,
                    Scope::PeerTime | Scope::Time => self.close_in_time(cause, effect),
                    Scope::Source => near == Near::Same,
                }
        });
        if by_table {
            return cause_rule.id != effect_rule.id || near == Near::Linked;
        }
        if cause_rule.id == effect_rule.id {
            return cause_rule.symptom && near == Near::Linked && self.passed_on(cause, effect);
        }
        // The table goes first: what it places below a symptom does not explain that symptom.
        let turned_round = effect_rule.explains.iter().any(|edge| edge.0 == cause_rule.id);
        effect_rule.symptom
            && !cause_rule.symptom
            && !turned_round
            && near != Near::Server
            && !cause_rule.id.starts_with("capture-")
            && self.findings[cause].severity >= Severity::Warning
            && self.findings[cause].first() <= self.findings[effect].last()
    }

    /// A finding about two legs is on both: what explains or suffers across a link stands beside it.
    fn about_legs(&self, cause: usize, effect: usize) -> bool {
        [cause, effect].into_iter().any(|i| matches!(self.findings[i].subject, Subject::Legs(..)))
    }

    /// The backend leg's bare fact is what the proxy passed on to the client leg.
    fn passed_on(&self, backend: usize, client: usize) -> bool {
        let (Some(backend), Some(client)) = (self.places[backend].flow, self.places[client].flow) else { return false };
        self.capture.links_of(client).any(|link| link.client_leg == client && link.backend_leg == backend)
    }

    fn close_in_time(&self, cause: usize, effect: usize) -> bool {
        let group = self.capture.thresholds.group;
        let (a, b) = (&self.findings[cause], &self.findings[effect]);
        a.first().time - group <= b.last().time && b.first().time <= a.last().time + group
    }

    fn strong_enough(&self, cause: usize, effect: usize) -> bool {
        let (a, b) = (self.findings[cause].confidence, self.findings[effect].confidence);
        // What joins two legs is a fact about both, like a symptom: how sure it is says nothing about its cause.
        let fact = self.rules[effect].symptom || matches!(self.findings[effect].subject, Subject::Legs(..));
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
