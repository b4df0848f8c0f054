//! Roots to incidents: which failures are one event, how far it reaches, and whether it goes on.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::Causes;
use super::report::State;
use crate::catalogue;
use crate::event::{Event, PacketRef, What};
use crate::rule::Recovery;
use crate::rule::finding::{Confidence, Finding, Reach, Severity, Standing};
use crate::rule::summary::{Digest, Verdict};
use crate::rule::tally::Beyond;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, in_turn};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// One event: the findings that are its root and those it explains, by index.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    /// Findings of the root rule, in time order.
    pub members: Vec<usize>,
    /// What they explain, in time order.
    pub consequences: Vec<usize>,
    /// The member that is shown: linked legs first, then the surest, the one with most evidence, the earliest.
    pub shown: usize,
}

/// Flows that worked, or were accepted at least, and are still known, by server: looked up for every root, so collected once.
pub(super) struct Good<'a>(BTreeMap<Endpoint, Vec<&'a Digest>>);

impl<'a> Good<'a> {
    /// Without `raised`: those that were good until others were known.
    pub(super) fn of(capture: &'a CaptureView<'_>, raised: &BTreeSet<PacketRef>) -> Self {
        let good = |digest: &&Digest| {
            digest.verdict == Verdict::Healthy && (digest.served || digest.accepted) && !raised.contains(&digest.id)
        };
        let by_server = capture.servers().map(|(server, flows)| (*server, in_turn(flows).filter(good).collect()));
        Self(by_server.collect())
    }

    /// Flows that got what they came for.
    pub(super) fn to(&self, server: &Endpoint) -> impl DoubleEndedIterator<Item = &Digest> {
        self.accepted_by(server).filter(|digest| digest.served)
    }

    /// Those, and connections that were only accepted: a check that says nothing shows that the port is open.
    fn accepted_by(&self, server: &Endpoint) -> impl DoubleEndedIterator<Item = &Digest> {
        self.0.get(server).into_iter().flatten().copied()
    }
}

/// Groups the roots among `findings`.
pub(super) fn group(findings: &[Finding], causes: &Causes, capture: &CaptureView<'_>, good: &Good<'_>) -> Vec<Draft> {
    let mut keyed: BTreeMap<(String, Anchor), Vec<usize>> = BTreeMap::new();
    // A weak cause that stands under a surer finding as its possible reason is no incident of its own.
    let behind: BTreeSet<usize> = causes.deeper.iter().flatten().copied().collect();
    for (i, finding) in findings.iter().enumerate() {
        let is_root =
            causes.explained_by[i].is_none() && !(finding.confidence == Confidence::Low && behind.contains(&i));
        if is_root && finding.severity >= Severity::Warning && !finding.rule.starts_with("capture-") {
            keyed.entry((finding.rule.to_string(), anchor(i, finding, capture))).or_default().push(i);
        }
    }
    let mut groups: Vec<(String, Anchor, Vec<usize>)> = Vec::new();
    for ((rule, anchor), mut members) in keyed {
        members.sort_by_key(|i| findings[*i].first());
        for part in split_by_success(members, findings, &anchor, capture, good) {
            groups.push((rule.clone(), anchor.clone(), part));
        }
    }
    let mut explained: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in (0..findings.len()).filter(|i| causes.explained_by[*i].is_some()) {
        explained.entry(causes.root(i)).or_default().push(i);
    }
    let merged = merge_pool(merge_one_sender(groups, findings, capture), findings, capture);
    let mut drafts: Vec<Draft> =
        merged.into_iter().map(|members| draft(members, findings, &explained, capture)).collect();
    drafts.sort_by_key(|draft| findings[draft.members[0]].first());
    drafts
}

/// What failures must share to be one event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Anchor {
    Server(Endpoint),
    /// A finding that speaks for many flows is an event of its own.
    Alone(usize),
}

fn anchor(i: usize, finding: &Finding, capture: &CaptureView<'_>) -> Anchor {
    match capture.flow_of(finding) {
        Some(flow) if finding.reach.is_none() => Anchor::Server(flow.facts.server),
        _ => Anchor::Alone(i),
    }
}

/// Failures of one kind at one server are one event unless the service worked in between and the grouping time passed.
fn split_by_success(
    members: Vec<usize>,
    findings: &[Finding],
    anchor: &Anchor,
    capture: &CaptureView<'_>,
    good: &Good<'_>,
) -> Vec<Vec<usize>> {
    // What only warns of something to come is one warning however often the service works meanwhile.
    let warns = |i: &usize| catalogue::rule(&findings[*i].rule).is_some_and(|rule| rule.severity == Severity::Notice);
    if members.iter().any(warns) {
        return vec![members];
    }
    let Anchor::Server(server) = anchor else { return vec![members] };
    let good: Vec<&Digest> = good.to(server).collect();
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut latest = Timestamp::MIN;
    for i in members {
        let first = findings[i].first().time;
        let far = first.since(latest) > capture.thresholds.group;
        let after = good.partition_point(|digest| digest.id.time <= latest);
        let worked_between = good.get(after).is_some_and(|digest| digest.id.time < first);
        match parts.last_mut() {
            Some(part) if !(far && worked_between) => part.push(i),
            _ => parts.push(vec![i]),
        }
        latest = latest.max(findings[i].last().time);
    }
    parts
}

/// Rules about the way between two hosts: whatever is asked of them suffers.
const OF_THE_WAY: [&str; 5] = [
    "asymmetric-return-path",
    "icmp-admin-prohibited",
    "pmtu-blackhole",
    "return-path-lost",
    "stateful-drop-after-handshake",
];

/// One host that does the same wrong thing to the same port of several servers is one event (a proxy and its pool).
fn merge_one_sender(
    groups: Vec<(String, Anchor, Vec<usize>)>,
    findings: &[Finding],
    capture: &CaptureView<'_>,
) -> Vec<Vec<usize>> {
    let group = capture.thresholds.group;
    let mut merged: Vec<(Timestamp, Timestamp, Vec<usize>)> = Vec::new();
    // Of each sender the places of its groups so far.
    let mut by_sender: BTreeMap<(String, Address, u16), Vec<usize>> = BTreeMap::new();
    for (rule, anchor, members) in groups {
        let clients: BTreeSet<Address> = members
            .iter()
            .filter_map(|i| capture.flow_of(&findings[*i]).map(|flow| flow.facts.client.address))
            .collect();
        let first = members.iter().map(|i| findings[*i].first().time).min().unwrap_or_default();
        let last = members.iter().map(|i| findings[*i].last().time).max().unwrap_or_default();
        let key = match (clients.len(), &anchor, clients.first()) {
            // The way to a host, or from it, is that of all its ports.
            (_, Anchor::Server(server), _) if OF_THE_WAY.contains(&rule.as_str()) => (rule, server.address, 0),
            (1, Anchor::Server(server), Some(client)) => (rule, *client, server.port),
            _ => {
                merged.push((first, last, members));
                continue;
            }
        };
        let places = by_sender.entry(key).or_default();
        let near = |place: &&usize| merged[**place].0 <= last + group && first <= merged[**place].1 + group;
        match places.iter().find(near) {
            Some(place) => {
                let known = &mut merged[*place];
                known.0 = known.0.min(first);
                known.1 = known.1.max(last);
                known.2.extend(members);
            }
            None => {
                places.push(merged.len());
                merged.push((first, last, members));
            }
        }
    }
    merged.into_iter().map(|(_, _, members)| members).collect()
}

/// Members of a pool that fail together begin within this time.
const TOGETHER: Elapsed = Elapsed::secs(3);

/// What findings that speak for many flows tell of the same port of several servers, which one host asks: its pool fails as one.
fn merge_pool(groups: Vec<Vec<usize>>, findings: &[Finding], capture: &CaptureView<'_>) -> Vec<Vec<usize>> {
    let mut merged: Vec<Vec<usize>> = Vec::new();
    let mut by_asker: BTreeMap<(String, Address, u16), Vec<(Timestamp, usize)>> = BTreeMap::new();
    for members in groups {
        let asked = match members.as_slice() {
            [only] => asker(&findings[*only], capture).map(|(client, port)| (&findings[*only], client, port)),
            _ => None,
        };
        let Some((finding, client, port)) = asked else {
            merged.push(members);
            continue;
        };
        let began = finding.first().time;
        let places = by_asker.entry((finding.rule.to_string(), client, port)).or_default();
        match places.iter().find(|(first, _)| Elapsed(began.since(*first).0.abs()) <= TOGETHER) {
            Some((_, place)) => merged[*place].extend(members),
            None => {
                places.push((began, merged.len()));
                merged.push(members);
            }
        }
    }
    merged
}

/// The one host that asked the one server of which a finding speaks, and that server's port.
fn asker(finding: &Finding, capture: &CaptureView<'_>) -> Option<(Address, u16)> {
    let reach = finding.reach.as_ref().filter(|reach| reach.clients == 1)?;
    let [server] = reach.servers.as_slice() else { return None };
    let flow = finding.subject.flow().or_else(|| finding.evidence.iter().find_map(|evidence| evidence.flow))?;
    Some((capture.digest_of(flow)?.client().address, server.port))
}

fn draft(
    mut members: Vec<usize>,
    findings: &[Finding],
    explained: &BTreeMap<usize, Vec<usize>>,
    capture: &CaptureView<'_>,
) -> Draft {
    members.sort_by_key(|i| (findings[*i].first(), *i));
    let mut consequences: Vec<usize> = members.iter().filter_map(|i| explained.get(i)).flatten().copied().collect();
    consequences.sort_by_key(|i| (findings[*i].first(), *i));
    let linked = |i: usize| findings[i].subject.flow().is_some_and(|flow| capture.links_of(flow).next().is_some());
    let shown = members
        .iter()
        .copied()
        .max_by_key(|i| {
            let finding = &findings[*i];
            (linked(*i), finding.confidence, finding.evidence.len(), std::cmp::Reverse((finding.first(), *i)))
        })
        .unwrap_or(members[0]);
    Draft { members, consequences, shown }
}

/// How far an event reaches and how it stands at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Extent {
    /// Distinct flows of the root.
    pub flows: u64,
    /// Flows to the same servers.
    pub of: u64,
    /// Server ends.
    pub servers: Vec<Endpoint>,
    /// Original clients: through a link the client of the client leg.
    pub clients: Vec<Address>,
    /// How many clients there are: more than are named where flows beyond the caps are only counted.
    pub client_count: u64,
    /// Hosts that a finding without a flow speaks of.
    pub hosts: Vec<Address>,
    /// Where the root's flows come from: the proxy's address when the legs are linked.
    pub senders: Vec<Address>,
    /// First and last failure.
    pub first: PacketRef,
    /// Last failure.
    pub last: PacketRef,
    /// Last success before the first failure.
    pub last_good: Option<PacketRef>,
    /// How it stands.
    pub state: State,
    /// First success after the last failure.
    pub recovered: Option<PacketRef>,
}

/// Measures a draft.
pub(super) fn extent(draft: &Draft, findings: &[Finding], capture: &CaptureView<'_>, good: &Good<'_>) -> Extent {
    if let [only] = draft.members.as_slice()
        && let Some(reach) = &findings[*only].reach
    {
        return extent_of_reach(reach, &findings[*only], draft, findings, capture);
    }
    let reaches = || draft.members.iter().map(|i| findings[*i].reach.as_ref());
    if let Some(reaches) = reaches().collect::<Option<Vec<_>>>().filter(|reaches| !reaches.is_empty()) {
        // What they explain is counted once.
        let mut consequences = Some(draft.consequences.clone());
        let each = draft.members.iter().zip(reaches).map(|(i, reach)| {
            let alone = Draft { members: vec![*i], consequences: consequences.take().unwrap_or_default(), shown: *i };
            extent_of_reach(reach, &findings[*i], &alone, findings, capture)
        });
        if let Some(all) = each.reduce(together) {
            return all;
        }
    }
    let mut flows = BTreeSet::new();
    let (mut servers, mut clients, mut senders) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for i in &draft.members {
        let Some(flow) = capture.flow_of(&findings[*i]) else { continue };
        flows.insert(flow.facts.id);
        servers.insert(flow.facts.server);
        senders.insert(flow.facts.client.address);
        let origin = capture.links_of(flow.facts.id).find(|link| link.backend_leg == flow.facts.id);
        let known = |id: &PacketRef| {
            capture.flows.get(id).map(|flow| flow.digest).or_else(|| capture.digests.get(*id).copied())
        };
        match origin.and_then(|link| known(&link.client_leg)) {
            Some(leg) => clients.insert(leg.client().address),
            None => clients.insert(flow.facts.client.address),
        };
    }
    let first = draft.members.iter().map(|i| findings[*i].first()).min();
    let last = draft.members.iter().map(|i| findings[*i].last()).max();
    let fallback = findings[draft.shown].first();
    let (first, mut last) = (first.unwrap_or(fallback), last.unwrap_or(fallback));
    let mut flow_count = flows.len() as u64;
    for beyond in beyond(draft, findings, &servers, (first, last), capture) {
        flow_count += beyond.flows;
        last = last.max(beyond.last);
        clients.extend(beyond.clients.iter().copied());
    }
    let (recovered, last_good) = successes(draft, findings, capture, good, (first, last), &senders, &servers);
    let state = match recovered {
        Some(_) => State::Over,
        None if draft.members.iter().all(|i| findings[*i].confidence == Confidence::Low) => State::Unknown,
        None if flows.is_empty() => State::Unknown,
        None => State::StillFailing,
    };
    let of = servers.iter().map(|server| capture.service(server).map_or(0, |service| service.flows)).sum::<u64>();
    Extent {
        flows: flow_count,
        of: of.max(flow_count),
        servers: servers.into_iter().collect(),
        client_count: clients.len() as u64,
        hosts: Vec::new(),
        clients: clients.into_iter().collect(),
        senders: senders.into_iter().collect(),
        first,
        last,
        last_good,
        state,
        recovered,
    }
}

/// Failures and successes from which on their turns tell something.
const AMONG: usize = 5;
/// Without a failure for so many times the usual pause between two, it is over: by chance that happens once in twenty times.
const PAUSES: i64 = 3;

/// Whether the latest failure of `count` is no older than others were when the next one came. Where some requests fail and others do not (one
/// backend of several is broken), a success behind the last failure says as little as those between them.
fn comes_again(count: usize, (first, last): (PacketRef, PacketRef), end: Timestamp) -> bool {
    let usual = last.time.since(first.time).0 / (count.max(2) as i64 - 1);
    count >= AMONG && end.since(last.time).0 < usual.saturating_mul(PAUSES)
}

/// The first success after the last failure and the last one before the first.
fn successes(
    draft: &Draft,
    findings: &[Finding],
    capture: &CaptureView<'_>,
    good: &Good<'_>,
    (first, last): (PacketRef, PacketRef),
    senders: &BTreeSet<Address>,
    servers: &BTreeSet<Endpoint>,
) -> (Option<PacketRef>, Option<PacketRef>) {
    let failed = || draft.members.iter().filter_map(|i| capture.flow_of(&findings[*i]));
    let recovery = catalogue::rule(&findings[draft.shown].rule).map(|rule| rule.recovery).unwrap_or_default();
    let by_offer = recovery == Recovery::SameOffer;
    let offers: BTreeSet<u32> = failed().filter(|_| by_offer).map(|flow| flow.digest.offer).collect();
    let same_offer = |digest: &&Digest| !by_offer || offers.contains(&digest.offer);
    let behind_proxy = failed().all(|flow| flow.digest.behind_proxy());
    let sender_counts = capture.flows.is_empty() || senders.len() == 1 && !by_offer;
    let alike = |digest: &&Digest| {
        (!sender_counts || senders.contains(&digest.client().address))
            && (digest.behind_proxy() || !behind_proxy)
            && recovery != Recovery::SameFlow
            && same_offer(digest)
    };
    let all = || servers.iter().flat_map(|server| good.to(server));
    let accepted = servers.iter().filter(|_| recovery == Recovery::Accepted);
    let accepted = accepted.flat_map(|server| good.accepted_by(server));
    let until = draft.members.iter().filter_map(|i| findings[*i].until()).max();
    let later = |id: &PacketRef| *id > last && until.is_none_or(|until| id.time > until);
    let recovered = all().chain(accepted).filter(alike).map(|digest| digest.id).filter(later).min();
    let ended: Option<Vec<PacketRef>> = draft.members.iter().map(|i| findings[*i].over()).collect();
    let recovered = recovered.or(ended.and_then(|ended| ended.into_iter().max()));
    let until = PacketRef { time: until.map_or(last.time, |until| until.max(last.time)), ..last };
    let between = all().filter(alike).filter(|digest| digest.id > first && digest.id < last).count();
    // Of connections that carry many requests, what their answers tell.
    let slot = |i: &usize, slot| match findings[*i].values.get(slot) {
        Some(Value::Count(n)) => *n as usize,
        _ => 0,
    };
    let between = between + draft.members.iter().map(|i| slot(i, "between")).sum::<usize>();
    let times = draft.members.iter().map(|i| slot(i, "times").max(1)).sum();
    let comes_again = between >= AMONG && comes_again(times, (first, until), capture.end);
    let recovered = recovered.filter(|_| !comes_again);
    let recovered = recovered.or_else(|| {
        let counts = recovery != Recovery::LaterFlow && !comes_again;
        counts.then(|| worked_in_the_end(draft, findings, capture)).flatten()
    });
    let last_good = all().filter(same_offer).map(|digest| digest.id).filter(|id| *id < first).max();
    (recovered, last_good)
}

/// Flows of the same rule to the same servers that were not kept whole and fall into the incident's time, give or take the window in which
/// digests live.
fn beyond<'a>(
    draft: &Draft,
    findings: &[Finding],
    servers: &BTreeSet<Endpoint>,
    (first, last): (PacketRef, PacketRef),
    capture: &'a CaptureView<'_>,
) -> Vec<&'a Beyond> {
    let rule = &findings[draft.shown].rule;
    let window = capture.thresholds.window;
    let in_time = |beyond: &&Beyond| beyond.first.time - window <= last.time && first.time <= beyond.last.time + window;
    let list = &capture.tally.beyond;
    let alike = list.iter().filter(|beyond| beyond.rule == *rule && servers.contains(&beyond.server));
    alike.filter(in_time).collect()
}

/// A flow that was served badly and served in the end: the packet that shows it, on the last of the root's flows.
fn worked_in_the_end(draft: &Draft, findings: &[Finding], capture: &CaptureView<'_>) -> Option<PacketRef> {
    let last = draft.members.iter().max_by_key(|i| findings[**i].last())?;
    let finding = &findings[*last];
    let facts = &capture.flow_of(finding)?.facts;
    let shown = finding.last();
    let answered = facts.from_server.last_payload.filter(|at| *at >= shown && facts.from_client.payload > 0);
    let flow = capture.flow_of(finding)?;
    let refused = |event: &Event| match &event.what {
        What::Response(response) => response.status >= 400,
        What::Dns(message) => message.response && message.rcode != 0,
        What::AlertPlain(alert) => alert.fatal(),
        _ => false,
    };
    let shut = facts.from_client.shut() || facts.from_server.shut();
    if finding.severity != Severity::Warning || shut || flow.story.events().any(refused) {
        return None;
    }
    facts.established.filter(|at| *at >= shown).or(answered)
}

/// Two extents of one event.
fn together(one: Extent, other: Extent) -> Extent {
    fn both<T: Ord>(one: Vec<T>, other: Vec<T>) -> Vec<T> {
        one.into_iter().chain(other).collect::<BTreeSet<T>>().into_iter().collect()
    }
    let clients = both(one.clients, other.clients);
    let over = one.state == State::Over && other.state == State::Over;
    let fails = one.state == State::StillFailing || other.state == State::StillFailing;
    Extent {
        flows: one.flows + other.flows,
        of: one.of + other.of,
        servers: both(one.servers, other.servers),
        client_count: one.client_count.max(other.client_count).max(clients.len() as u64),
        clients,
        hosts: both(one.hosts, other.hosts),
        senders: both(one.senders, other.senders),
        first: one.first.min(other.first),
        last: one.last.max(other.last),
        last_good: one.last_good.min(other.last_good),
        state: match (over, fails) {
            (true, _) => State::Over,
            (_, true) => State::StillFailing,
            _ => State::Unknown,
        },
        recovered: one.recovered.max(other.recovered).filter(|_| over),
    }
}

/// How far a finding reaches that speaks for many flows.
fn extent_of_reach(
    reach: &Reach,
    finding: &Finding,
    draft: &Draft,
    findings: &[Finding],
    capture: &CaptureView<'_>,
) -> Extent {
    // Who was only warned of it before it came was not hit.
    let struck = |i: &&usize| !catalogue::rule(&findings[**i].rule).is_some_and(|rule| rule.foretells);
    let hit: BTreeSet<PacketRef> =
        draft.consequences.iter().filter(struck).filter_map(|i| findings[*i].subject.flow()).collect();
    let first = finding.first();
    let end = reach.spans.last().map_or(finding.last().time, |(_, until)| *until);
    let last = PacketRef { time: end, ..finding.last() };
    let onset = reach.spans.first().map_or(first, |(from, _)| PacketRef { time: *from, ..first });
    let flows = reach.flows.max(hit.len() as u64);
    let (state, recovered) = match reach.standing {
        Standing::Unknown => (State::Unknown, None),
        Standing::GoesOn => (State::StillFailing, None),
        Standing::Over(at) => (State::Over, Some(at)),
    };
    let client = |id: &PacketRef| capture.flows.get(id).map(|flow| flow.facts.client.address);
    let clients: BTreeSet<Address> = match (reach.users.as_slice(), reach.sources.as_slice()) {
        ([], []) => hit.iter().filter_map(client).collect(),
        ([], sources) => sources.iter().copied().collect(),
        (users, _) => users.iter().copied().collect(),
    };
    Extent {
        flows,
        of: reach.of.max(flows),
        servers: reach.servers.clone(),
        client_count: reach.clients.max(clients.len() as u64),
        clients: clients.into_iter().collect(),
        hosts: reach.hosts.clone(),
        senders: reach.sources.clone(),
        first: onset,
        last,
        last_good: reach.last_good,
        state,
        recovered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Elapsed;

    #[test]
    fn failures_that_would_have_come_again_are_not_over() {
        let at = |ms: i64| PacketRef { file: 0, number: ms as u64, time: Timestamp::default() + Elapsed::millis(ms) };
        let goes_on = |count, until, end: i64| comes_again(count, (at(0), at(until)), at(end).time);
        assert!(goes_on(11, 10_000, 12_900), "one a second, and the last 2.9 s ago");
        assert!(!goes_on(11, 10_000, 13_000));
        assert!(!goes_on(4, 9_000, 9_001), "too few to have a pace");
    }
}
