//! What is wrong at a server because of another one that it asks, where the legs of single requests cannot be joined: seen in numbers.
//!
//! A busy proxy serves many like requests at once, some of them sealed, over connections to its backends that it shares. Which of them went
//! to the broken backend nobody can tell; that all that fails at the proxy fails while that backend does, can be told.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::{Causes, Place};
use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Finding, Severity, Subject};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Rule, Scope};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// So many that wait for another server show what holds up the rest.
const HOLD: usize = 5;

/// When most of what is wrong at a server comes from the same thing at another server that it asks, what is wrong there meanwhile without
/// a leg of its own is held up by it: all its workers wait.
pub(super) fn held_up(findings: &[Finding], rules: &[&Rule], places: &[Place], causes: &mut Causes) {
    let mut at: BTreeMap<(&str, Endpoint), Vec<usize>> = BTreeMap::new();
    for (i, rule) in rules.iter().enumerate() {
        let passes_on = rule.explains.iter().any(|edge| edge.0 == rule.id && edge.1 == Scope::Link);
        if let Some(server) = places[i].server.filter(|_| passes_on) {
            at.entry((rule.id, server)).or_default().push(i);
        }
    }
    for ((rule, server), all) in at {
        let (led, alone): (Vec<usize>, Vec<usize>) = all.iter().partition(|i| causes.explained_by[**i].is_some());
        let mut behind: Vec<usize> = led.iter().filter_map(|i| causes.explained_by[*i]).collect();
        behind.retain(|cause| rules[*cause].id == rule && places[*cause].server != Some(server));
        behind.sort_unstable();
        behind.dedup();
        if behind.len() < HOLD || behind.len() < alone.len() {
            continue;
        }
        for i in alone {
            let began = findings[i].first();
            let before = behind.iter().copied().filter(|cause| findings[*cause].first() <= began);
            causes.explained_by[i] = before.max_by_key(|cause| findings[*cause].first());
        }
    }
}

/// What fails at the asking server follows, or leads, what failed at the one it asks by no more than this.
const MEANWHILE: Elapsed = Elapsed::secs(1);
/// Ports that fail within this time fail together.
const TOGETHER: Elapsed = Elapsed::secs(3);
/// An application that needs another server for its answer asks it this soon.
const AT_ONCE: Elapsed = Elapsed::millis(100);
/// Causes looked at for one effect: the latest before its end.
const LOOK: usize = 256;
/// So many percent of what fails in one way at a server must fail while the other one does.
const MOST: usize = 80;
/// What becomes of it at an application when those whom it asks do not answer: it says 500 (a proxy 502 to 504), or waits as they let it wait.
const BEHIND_AN_APPLICATION: [(&str, &[&str]); 3] = [
    (
        "http-server-error",
        &[
            "connect-refused",
            "connect-timeout",
            "service-down",
            "neighbor-unresolved",
            "server-error-in-protocol",
            "login-refused",
        ],
    ),
    ("upstream-hang", WAITS),
    ("slow-response", WAITS),
];
const WAITS: &[&str] = &[
    "accept-queue-overflow",
    "connect-timeout",
    "dns-outage",
    "icmp-admin-prohibited",
    "neighbor-unresolved",
    "network-blackout",
    "rto-unrecovered",
    "service-down",
];

/// Explains what fails at a server by what fails meanwhile, and as a rule of its own, at another one that the same host asks.
pub(super) fn in_numbers(
    findings: &[Finding],
    rules: &[&Rule],
    places: &[Place],
    capture: &CaptureView<'_>,
    causes: &mut Causes,
) {
    let hosts = Hosts::of(capture);
    let mut groups: BTreeMap<(&str, Endpoint), Vec<usize>> = BTreeMap::new();
    for i in (0..findings.len()).filter(|i| causes.explained_by[*i].is_none() && findings[*i].reach.is_none()) {
        let server = match findings[i].subject {
            // What a proxy does between two legs shows at its own port.
            Subject::Legs(client, _) => capture.digest_of(client).map(|digest| digest.server()),
            _ => places[i].server,
        };
        if let Some(server) = server.filter(|_| findings[i].severity >= Severity::Warning) {
            groups.entry((rules[i].id, server)).or_default().push(i);
        }
    }
    // What may be a cause, by who asked; what speaks for many flows apart.
    let (mut by_client, mut of_many): (BTreeMap<Address, Vec<usize>>, Vec<usize>) = Default::default();
    // What is only worth knowing does not answer for what fails: a report would say that nothing is broken.
    let counts =
        |i: &usize| findings[*i].confidence >= Confidence::Medium && findings[*i].severity >= Severity::Warning;
    for i in (0..findings.len()).filter(counts) {
        match (&findings[i].reach, places[i].client) {
            (Some(_), _) => of_many.push(i),
            (None, Some(client)) => by_client.entry(client.address).or_default().push(i),
            (None, None) => {}
        }
    }
    of_many.truncate(LOOK);
    for ((rule, server), effects) in groups {
        let Some(effect) = effects.first().map(|i| rules[*i]) else { continue };
        let from = hosts.asks_from(server.address);
        // Of each server that the host asks, and each rule found there.
        let mut behind: BTreeMap<(Address, &str), Vec<usize>> = BTreeMap::new();
        let mut of_these: Vec<usize> = from.iter().filter_map(|host| by_client.get(host)).flatten().copied().collect();
        of_these.extend(&of_many);
        of_these.sort_unstable();
        for i in of_these.into_iter().filter(|i| matters(rules[*i], findings[*i].severity, effect)) {
            if let Some(asked) = asked_by(&from, &findings[i], &places[i], capture) {
                behind.entry((asked, rules[i].id)).or_default().push(i);
            }
        }
        let group: BTreeSet<usize> = effects.iter().copied().collect();
        let best = behind.into_values().filter_map(|mut list| {
            list.retain(|cause| !group.contains(cause) && !group.contains(&causes.root(*cause)));
            let weight: u64 = list.iter().map(|i| weight(&findings[*i])).sum();
            let led: Vec<(usize, usize)> =
                effects.iter().filter_map(|effect| Some((*effect, nearest(findings, &list, *effect)?))).collect();
            let each = |(effect, cause): &(usize, usize)| at_once(&findings[*effect], &findings[*cause]);
            let enough = weight >= HOLD as u64 && led.len() * 100 >= effects.len() * MOST
                || led.len() == effects.len() && led.iter().all(each);
            // Of two a cause goes before a symptom, then what is found more often, then what began first.
            let earliest = *list.first()?;
            let symptom = rules[earliest].symptom;
            enough.then_some(((led.len(), !symptom, weight, std::cmp::Reverse(earliest)), led))
        });
        let best = best.max_by(|one, other| one.0.cmp(&other.0));
        debug_assert!(effects.iter().all(|i| rules[*i].id == rule), "one rule at one server");
        for (effect, cause) in best.into_iter().flat_map(|(_, led)| led) {
            if causes.root(cause) != effect {
                causes.explained_by[effect] = Some(cause);
            }
        }
    }
}

/// How often it was seen: of so many flows, or so many times on one.
fn weight(finding: &Finding) -> u64 {
    match (&finding.reach, finding.values.get("times")) {
        (Some(reach), _) => reach.flows.max(1),
        (None, Some(Value::Count(times))) => (*times).max(1),
        (None, _) => 1,
    }
}

/// Rules about all connections of a port, which tell of its host when several ports are hit.
const OF_THE_HOST: [&str; 3] = ["accept-queue-overflow", "service-down", "service-restart"];

/// What such a rule tells of several ports of one host, from one moment on, or again of one port, is one event: the earliest stands for it.
pub(super) fn of_one_host(findings: &[Finding], rules: &[&Rule], causes: &mut Causes) {
    let mut told: BTreeMap<(&str, Address), Vec<usize>> = BTreeMap::new();
    let open = |i: &usize| causes.explained_by[*i].is_none() && OF_THE_HOST.contains(&rules[*i].id);
    let server = |i: usize| match findings[i].reach.as_ref().map(|reach| reach.servers.as_slice()) {
        Some([server]) => Some(*server),
        _ => None,
    };
    for i in (0..findings.len()).filter(open) {
        if let Some(server) = server(i) {
            told.entry((rules[i].id, server.address)).or_default().push(i);
        }
    }
    let span = |i: usize| findings[i].reach.as_ref().and_then(|reach| reach.spans.first().copied());
    for mut list in told.into_values() {
        list.sort_by_key(|i| (findings[*i].first(), *i));
        let Some((first, others)) = list.split_first() else { continue };
        let Some((from, until)) = span(*first) else { continue };
        for other in others {
            let again = server(*other) == server(*first);
            if span(*other).is_some_and(|(began, _)| began.since(from) <= TOGETHER || again && began <= until) {
                causes.explained_by[*other] = Some(*first);
            }
        }
    }
}

/// What a server had taken when it fell silent, and never answered, is part of its silence: no request waited before it.
pub(super) fn of_one_silence(findings: &[Finding], rules: &[&Rule], places: &[Place], causes: &mut Causes) {
    let down = |i: &usize| rules[*i].id == "service-down" && causes.explained_by[*i].is_none();
    let mut led: Vec<(usize, usize)> = Vec::new();
    for cause in (0..findings.len()).filter(down) {
        let Some(reach) = &findings[cause].reach else { continue };
        let Some((from, until)) = reach.spans.first().copied() else { continue };
        let hangs = (0..findings.len()).filter(|i| {
            rules[*i].id == "upstream-hang"
                && causes.explained_by[*i].is_none()
                && places[*i].server.is_some_and(|server| reach.servers.contains(&server))
        });
        let (within, apart): (Vec<usize>, Vec<usize>) = hangs.partition(|i| {
            let began = findings[*i].first().time;
            from.since(began) <= MEANWHILE && began <= until
        });
        if apart.is_empty() {
            led.extend(within.into_iter().map(|effect| (effect, cause)));
        }
    }
    for (effect, cause) in led {
        causes.explained_by[effect] = Some(cause);
    }
}

/// What becomes of connections on whose way large packets vanish.
const WHERE_LARGE_PACKETS_VANISH: [&str; 4] =
    ["rto-unrecovered", "client-abandoned", "upstream-hang", "response-stalled"];

/// Where large packets between two hosts were seen to vanish and small ones to pass, connections of the two that stand still do so for
/// that: which of them proves it depends on what it had to send last.
pub(super) fn of_one_way(findings: &[Finding], rules: &[&Rule], places: &[Place], causes: &mut Causes) {
    let hosts = |i: usize| Some((places[i].client?.address, places[i].server?.address));
    let mut proven: BTreeMap<(Address, Address), usize> = BTreeMap::new();
    for i in
        (0..findings.len()).filter(|i| rules[*i].id == "pmtu-blackhole" && findings[*i].severity >= Severity::Warning)
    {
        if let Some(ends) = hosts(i) {
            proven.entry(ends).or_insert(i);
        }
    }
    for (i, rule) in rules.iter().enumerate() {
        let stands_still = causes.explained_by[i].is_none() && WHERE_LARGE_PACKETS_VANISH.contains(&rule.id);
        if let Some(cause) = hosts(i).filter(|_| stands_still).and_then(|ends| proven.get(&ends)) {
            causes.explained_by[i] = Some(*cause);
        }
    }
}

/// Whether a request, as soon as it came, led to what is stuck at the server that was asked next, for as long as it waited itself.
fn at_once(effect: &Finding, cause: &Finding) -> bool {
    let after = cause.first().time.since(effect.first().time);
    let waits = matches!(&*effect.rule, "upstream-hang" | "client-abandoned");
    waits && cause.reach.is_none() && after >= Elapsed(0) && after <= AT_ONCE
}

/// Whether a rule's finding at a server shows at those who ask it as the effect.
fn matters(cause: &Rule, severity: Severity, effect: &Rule) -> bool {
    if BEHIND_AN_APPLICATION.iter().any(|(shows, causes)| *shows == effect.id && causes.contains(&cause.id)) {
        return true;
    }
    let edge = cause.explains.iter().any(|edge| edge.0 == effect.id && edge.1 != Scope::Same);
    let turned_round = effect.explains.iter().any(|edge| edge.0 == cause.id && edge.1 != Scope::Same);
    if cause.id == effect.id {
        return cause.symptom || edge;
    }
    // A bare fact is explained by any cause that stops requests.
    let stops = severity == Severity::Critical && !cause.symptom && !cause.id.starts_with("capture-");
    (edge || effect.symptom && stops) && !turned_round
}

/// The host that a finding is about, where one of these asked it and is another one.
fn asked_by(from: &BTreeSet<Address>, finding: &Finding, place: &Place, capture: &CaptureView<'_>) -> Option<Address> {
    let Some(reach) = &finding.reach else {
        let (client, server) = (place.client?, place.server?);
        return (from.contains(&client.address) && !from.contains(&server.address)).then_some(server.address);
    };
    let asked = reach.servers.iter().map(|end| end.address).chain(reach.hosts.iter().copied());
    let asked = asked.into_iter().find(|host| !from.contains(host))?;
    let known = |flow: &crate::rule::summary::FlowSummary| from.contains(&flow.facts.client.address);
    let asks = match reach.sources.is_empty() {
        true => capture.flows_to_host(asked).any(known),
        false => reach.sources.iter().any(|source| from.contains(source)),
    };
    asks.then_some(asked)
}

/// The cause that was there when the effect was: the latest that began before it, else the first behind it.
fn nearest(findings: &[Finding], list: &[usize], effect: usize) -> Option<usize> {
    let (from, until) = (findings[effect].first().time, findings[effect].last().time);
    let meanwhile = |cause: &&usize| match &findings[**cause].reach {
        Some(reach) if !reach.spans.is_empty() => reach.during(from, until, MEANWHILE),
        _ => {
            let (first, last) = (findings[**cause].first().time, findings[**cause].last().time);
            first <= until + MEANWHILE && last + MEANWHILE >= from
        }
    };
    // Findings stand in the order of their first packets.
    let until_here = list.partition_point(|cause| findings[*cause].first().time <= until + MEANWHILE);
    let looked_at = &list[until_here.saturating_sub(LOOK)..until_here];
    let near: Vec<usize> = looked_at.iter().filter(meanwhile).copied().collect();
    let before = near.iter().copied().filter(|cause| findings[*cause].first().time <= from);
    before.max_by_key(|cause| findings[*cause].first()).or(near.first().copied())
}

/// Under which addresses a host asks others.
struct Hosts<'a> {
    by_front: BTreeMap<Address, BTreeSet<Address>>,
    /// By input, addresses of the capturing host: where it is asked, and from where it asks.
    own: BTreeMap<u16, BTreeSet<Address>>,
    capture: &'a CaptureView<'a>,
}

impl<'a> Hosts<'a> {
    /// By the legs that could be joined: whose client leg ends at an address asks from that of the backend leg.
    fn of(capture: &'a CaptureView<'a>) -> Self {
        let mut by_front: BTreeMap<Address, BTreeSet<Address>> = BTreeMap::new();
        let mut learn = |client_leg: &PacketRef, backend_leg: &PacketRef| {
            let (client, backend) = (capture.digest_of(*client_leg), capture.digest_of(*backend_leg));
            if let (Some(client), Some(backend)) = (client, backend) {
                by_front.entry(client.server().address).or_default().insert(backend.client().address);
            }
        };
        for link in capture.links.iter().filter(|link| link.certainty >= Confidence::Medium) {
            learn(&link.client_leg, &link.backend_leg);
        }
        for open in capture.open_links.iter().filter(|open| open.alike()) {
            open.candidates.iter().for_each(|client| learn(client, &open.backend_leg));
        }
        Self { by_front, own: own(capture), capture }
    }

    fn asks_from(&self, front: Address) -> BTreeSet<Address> {
        let mut all = self.by_front.get(&front).cloned().unwrap_or_default();
        all.insert(front);
        all.extend(self.own.values().filter(|own| own.contains(&front)).flatten());
        let list: Vec<Address> = all.iter().copied().collect();
        all.extend(self.capture.neighbors.machines(&list));
        all
    }
}

/// A capture of all interfaces tells which way packets go: what only comes in is for the capturing host, what only goes out is from it.
fn own(capture: &CaptureView<'_>) -> BTreeMap<u16, BTreeSet<Address>> {
    const IN: u8 = 1;
    const OUT: u8 = 2;
    let only =
        |faces: &[crate::flow::facts::Face], way| !faces.is_empty() && faces.iter().all(|face| face.direction == way);
    let mut own: BTreeMap<u16, BTreeSet<Address>> = BTreeMap::new();
    for facts in capture.flows.values().map(|flow| &flow.facts) {
        let (client, server) = (&facts.from_client.faces, &facts.from_server.faces);
        let ends = (facts.client.address, facts.server.address);
        if only(client, IN) && (server.is_empty() || only(server, OUT)) {
            own.entry(facts.id.file).or_default().insert(ends.1);
        } else if only(client, OUT) && (server.is_empty() || only(server, IN)) {
            own.entry(facts.id.file).or_default().insert(ends.0);
        }
    }
    own
}
