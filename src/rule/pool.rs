//! A host whose few connections to a server are all busy, while the requests of its own clients wait in it for one to be free.
//!
//! What tells it: the number of requests that are with the server stays the same, since the next one leaves as soon as an answer is
//! complete; meanwhile more than that are with the host; and what the host asks belongs to what it is asked. Only HTTP/1 is read so, where
//! the framing says when an answer is complete (RFC 9112 §6.3).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::exchange::exchanges;
use super::finding::Confidence;
use super::summary::FlowSummary;
use super::view::{CaptureView, Known};
use crate::event::{PacketRef, Protocol};
use crate::flow::facts::IpProtocol;
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// The rule that finds the answers a user waits for.
const SLOW: &str = "slow-response";
/// Answers of the host that were slow.
const WAITING: usize = 2;
/// What waited for an answer is answered within this time.
const AT_ONCE: Elapsed = Elapsed::millis(5);
/// A place is free for no longer than this part of what a request takes, or for [`AT_ONCE`]: the host is busy, too.
const PART: i64 = 10;
/// So often a request took the place of another one, and once for each place.
const TURNS: usize = 3;
/// A request that waited took so many times what the server takes.
const TIMES: i64 = 2;
/// Percent of what is looked at that has to fit.
const MOST: usize = 80;
/// Levels looked at below the highest: a health check, or a request of another kind, comes on top.
const LEVELS: usize = 3;
/// Percent of the longest time that a higher level has to last.
const NEARLY: i64 = 90;
/// Exchanges of one connection that are all told; later ones are only where they are unusual.
const TOLD: usize = 16;
/// Flows looked at.
const LOOK: usize = 4096;

/// From, until.
pub type Span = (Timestamp, Timestamp);

/// One host's connections to one server, all of them busy.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Who holds them.
    pub host: Address,
    /// To whom.
    pub server: Endpoint,
    /// Where the host is asked itself.
    pub front: Endpoint,
    /// How many there are.
    pub limit: usize,
    /// How long all were busy.
    pub span: Span,
    /// What half of the requests take at the server.
    pub service: Elapsed,
    /// Each time that a request took the place of one that was answered, in order.
    pub turns: Vec<Turn>,
    /// What waited longest, in order of time.
    pub waits: Vec<Wait>,
    /// Most requests that waited in the host at once.
    pub most: usize,
    /// Requests of its clients in that time.
    pub asked: usize,
    /// Whose they are.
    pub clients: BTreeSet<Address>,
    /// A request still waits when the capture ends.
    pub goes_on: bool,
    /// The answer to the first later request that did not wait.
    pub over: Option<PacketRef>,
}

/// A request took the place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The answer is complete: its flow and packet; `None` where only the time is known.
    pub ended: (PacketRef, Option<PacketRef>),
    /// The next request.
    pub begun: (PacketRef, Option<PacketRef>),
    at: Timestamp,
}

/// A request of a client that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Its flow.
    pub flow: PacketRef,
    /// It is complete.
    pub asked: PacketRef,
    /// Its answer begins.
    pub answer: PacketRef,
}

impl Wait {
    /// From one to the other.
    pub fn took(&self) -> Elapsed {
        self.answer.time.since(self.asked.time)
    }
}

impl Pool {
    /// Whether an answer of that flow is one of those that came late because of it.
    pub fn holds_up(&self, flow: PacketRef, answer: PacketRef) -> bool {
        self.waits.iter().any(|wait| wait.flow == flow && wait.answer == answer)
    }
}

/// A request that is with a server.
#[derive(Clone, Copy)]
struct Stay {
    flow: PacketRef,
    from: Timestamp,
    until: Timestamp,
    /// Its packets, where they are known: the request, the end of the answer.
    packets: (Option<PacketRef>, Option<PacketRef>),
}

/// All of them, in the order of host and server.
pub(super) fn find(capture: &CaptureView<'_>) -> Vec<Pool> {
    let mut fronts: BTreeMap<Endpoint, Vec<Wait>> = BTreeMap::new();
    for flow in capture.found_by(SLOW).take(LOOK) {
        fronts.entry(flow.facts.server).or_default().extend(slow(flow, capture.thresholds.slow));
    }
    fronts.retain(|_, waits| waits.len() >= WAITING);
    if fronts.is_empty() {
        return Vec::new();
    }
    let places = places(capture, &fronts);
    let pairs = capture.pairs().filter(|(host, server, _)| places.contains_key(&(*host, *server)));
    let found = pairs.flat_map(|(host, server, flows)| {
        let asked_at = places[&(host, server)].iter();
        let fronts = asked_at.filter_map(|front| Some((*front, fronts.get(front)?)));
        fronts.filter_map(|(front, waits)| judge(capture, (host, server, flows), front, waits)).collect::<Vec<_>>()
    });
    found.collect()
}

fn slow(flow: &FlowSummary, least: Elapsed) -> Vec<Wait> {
    let told = exchanges(&flow.story).into_iter().filter_map(|one| {
        let wait = Wait { flow: flow.facts.id, asked: one.request_end?, answer: one.response?.0 };
        Some(wait).filter(|wait| wait.took() >= least)
    });
    told.collect()
}

/// Where a host that asks a server is asked itself: by its address, and by what links tell of its two sides.
fn places(
    capture: &CaptureView<'_>,
    fronts: &BTreeMap<Endpoint, Vec<Wait>>,
) -> BTreeMap<(Address, Endpoint), BTreeSet<Endpoint>> {
    let mut places: BTreeMap<(Address, Endpoint), BTreeSet<Endpoint>> = BTreeMap::new();
    let mut add = |client: PacketRef, backend: PacketRef| {
        let (Some(client), Some(backend)) = (capture.digest_of(client), capture.digest_of(backend)) else { return };
        if fronts.contains_key(&client.server()) {
            places.entry((backend.client().address, backend.server())).or_default().insert(client.server());
        }
    };
    capture.links.iter().for_each(|link| add(link.client_leg, link.backend_leg));
    for open in capture.open_links.iter().filter(|open| open.alike()) {
        open.candidates.iter().take(1).for_each(|client| add(*client, open.backend_leg));
    }
    for (host, flows) in capture.sources() {
        let own = fronts.range(Endpoint::new(host, 0)..=Endpoint::new(host, u16::MAX));
        let own: Vec<Endpoint> = own.map(|(front, _)| *front).collect();
        for server in flows.iter().map(|flow| flow.digest.server()).filter(|_| !own.is_empty()) {
            places.entry((host, server)).or_default().extend(own.iter().copied().filter(|front| *front != server));
        }
    }
    places
}

fn judge(
    capture: &CaptureView<'_>,
    (host, server, flows): (Address, Endpoint, &[Known<'_>]),
    front: Endpoint,
    waits: &[Wait],
) -> Option<Pool> {
    let from = waits.iter().map(|wait| wait.asked.time).min()?;
    let until = waits.iter().map(|wait| wait.answer.time).max()?;
    let (stays, known_until) = stays(flows, from, until)?;
    let free = AT_ONCE.max(Elapsed(median(&stays)?.0 / PART));
    let (limit, span, turns) = full(&stays, free, until.min(known_until), capture.thresholds.slow)?;
    let during: Vec<Stay> = stays.iter().filter(|stay| stay.from < span.1 && stay.until > span.0).copied().collect();
    let service = median(&during).filter(|service| *service <= span.1.since(span.0))?;
    let late = |wait: &&Wait| {
        let within = wait.answer.time.min(span.1).since(wait.asked.time.max(span.0));
        within + within >= wait.took() && wait.took() >= Elapsed(service.0.saturating_mul(TIMES))
    };
    let waits: Vec<Wait> = waits.iter().filter(late).copied().collect();
    if waits.len() < WAITING || !belong(capture, front, &turns, &waits, &stays, span) {
        return None;
    }
    let asked = asked(capture, &front, span);
    let most = queue(&asked, limit, span)?;
    let clients: BTreeSet<Address> =
        asked.iter().filter_map(|stay| Some(capture.digest_of(stay.flow)?.client().address)).collect();
    let goes_on = asked.iter().any(|stay| stay.until == Timestamp::MAX);
    let over = quick(capture, &front, span.1, service);
    Some(Pool {
        host,
        server,
        front,
        limit,
        span,
        service,
        turns,
        waits,
        most,
        asked: asked.len(),
        clients,
        goes_on,
        over,
    })
}

/// How long half of them were there.
fn median(stays: &[Stay]) -> Option<Elapsed> {
    let mut took: Vec<Elapsed> = stays.iter().map(|stay| stay.until.since(stay.from)).collect();
    took.sort_unstable();
    took.get(took.len() / 2).copied()
}

/// Every request that was with the server within the time, and until when all are known; `None` where some are not.
fn stays(flows: &[Known<'_>], from: Timestamp, until: Timestamp) -> Option<(Vec<Stay>, Timestamp)> {
    let (mut stays, mut known_until) = (Vec::new(), Timestamp::MAX);
    let meanwhile = |flow: &&Known<'_>| {
        let tcp = flow.digest.transport == IpProtocol::Tcp && flow.digest.accepted;
        tcp && flow.digest.id.time <= until && flow.digest.last >= from
    };
    for flow in flows.iter().filter(meanwhile).take(LOOK) {
        let Some(whole) = flow.whole else {
            // One request is all it had.
            if !flow.digest.lone() || flow.digest.protocol != Some(Protocol::Http) {
                return None;
            }
            let (from, until) = (flow.digest.id.time, flow.digest.last);
            stays.push(Stay { flow: flow.digest.id, from, until, packets: (Some(flow.digest.id), None) });
            continue;
        };
        let all = exchanges(&whole.story);
        if all.is_empty() && whole.facts.from_client.payload > 0 {
            return None;
        }
        if let Some(last) = all.last().filter(|_| all.len() >= TOLD || whole.story.left_out() > 0) {
            // Of a long one only the beginning is told.
            let last = all.get(TOLD - 1).unwrap_or(last);
            known_until = known_until.min(last.request.time);
        }
        stays.extend(all.iter().map(|one| {
            let end = one.response_end.or(one.response.map(|(at, _)| at)).or(whole.facts.closer.map(|(_, at)| at));
            let until = end.map_or(Timestamp::MAX, |at| at.time);
            Stay { flow: whole.facts.id, from: one.request.time, until, packets: (Some(one.request), end) }
        }));
    }
    stays.sort_by_key(|stay| (stay.from, stay.flow));
    Some((stays, known_until))
}

/// When it is, how many are there from then on, which stay that is of, and whether it begins.
type Change = (Timestamp, usize, usize, bool);

/// The number of requests there as it changes.
fn changes(stays: &[Stay]) -> Vec<Change> {
    let mut edges: Vec<(Timestamp, bool, usize)> = Vec::with_capacity(2 * stays.len());
    for (n, stay) in stays.iter().enumerate() {
        edges.push((stay.from, true, n));
        // An end comes before a beginning of the same moment, but not before its own.
        edges.push((stay.until.max(stay.from + Elapsed(1)), false, n));
    }
    edges.sort_unstable();
    let mut there = 0_usize;
    let counted = edges.into_iter().map(|(at, begins, n)| {
        there = if begins { there + 1 } else { there.saturating_sub(1) };
        (at, there, n, begins)
    });
    counted.collect()
}

/// The most requests that were there together for longest, with no more than moments in between: how many, when, and each change of hands.
fn full(stays: &[Stay], free: Elapsed, until: Timestamp, least: Elapsed) -> Option<(usize, Span, Vec<Turn>)> {
    let changes = changes(stays);
    let highest = changes.iter().map(|change| change.1).max()?;
    let fitting = (1..=highest).rev().take(LEVELS).filter_map(|limit| {
        let whole = longest(&changes, limit, free, until)?;
        let inside = |at: Timestamp| at > whole.0 && at <= whole.1;
        let begun = changes.iter().filter(|change| change.3 && inside(change.0)).count();
        let turns = turns(&changes, stays, free, whole);
        // Behind the last turn nobody waits any more.
        let span = (whole.0, turns.last()?.at);
        let fits =
            span.1.since(span.0) >= least && turns.len() >= TURNS.max(limit) && turns.len() * 100 >= begun * MOST;
        fits.then_some((limit, span, turns))
    });
    let fitting: Vec<_> = fitting.collect();
    let length = |span: Span| span.1.since(span.0).0;
    let longest = fitting.iter().map(|(_, span, _)| length(*span)).max()?;
    fitting.into_iter().find(|(_, span, _)| length(*span).saturating_mul(100) >= longest.saturating_mul(NEARLY))
}

/// The longest time with at least `limit` there, but for moments.
fn longest(changes: &[Change], limit: usize, free: Elapsed, until: Timestamp) -> Option<Span> {
    let (mut best, mut now): (Option<Span>, Option<Span>) = (None, None);
    let mut full_since = None;
    for (at, there, ..) in changes.iter().copied().chain([(Timestamp::MAX, 0, 0, false)]) {
        let at = at.min(until);
        match (there >= limit, full_since) {
            (true, None) => full_since = Some(at),
            (false, Some(since)) => {
                now = Some(match now {
                    Some((from, end)) if since.since(end) <= free => (from, at),
                    _ => (since, at),
                });
                full_since = None;
                best =
                    best.into_iter().chain(now).max_by_key(|(from, end)| (end.since(*from), std::cmp::Reverse(*from)));
            }
            _ => {}
        }
    }
    best
}

fn time_above(changes: &[Change], limit: usize, (from, until): Span) -> Elapsed {
    let parts = changes.windows(2).filter(|pair| pair[0].1 > limit);
    parts
        .map(|pair| pair[1].0.min(until).since(pair[0].0.max(from)).max(Elapsed::ZERO))
        .fold(Elapsed::ZERO, |sum, one| sum + one)
}

/// Where one ends and another begins at once: all were busy before, and are again.
fn turns(changes: &[Change], stays: &[Stay], free: Elapsed, span: Span) -> Vec<Turn> {
    let mut places: VecDeque<(Timestamp, usize)> = VecDeque::new();
    let mut turns = Vec::new();
    for &(at, _, n, begins) in changes.iter().filter(|change| change.0 > span.0 && change.0 <= span.1) {
        if !begins {
            places.push_back((at, n));
            continue;
        }
        while places.front().is_some_and(|(ended, _)| at.since(*ended) > free) {
            places.pop_front();
        }
        let Some((_, out)) = places.pop_front() else { continue };
        let (Some(out), Some(into)) = (stays.get(out), stays.get(n)) else { continue };
        turns.push(Turn { ended: (out.flow, out.packets.1), begun: (into.flow, into.packets.0), at });
    }
    turns
}

/// Whether what the host asks belongs to what it is asked: most connections that took over are linked, or most of those that waited are
/// answered right behind an answer of the server, where that can hardly be chance.
fn belong(
    capture: &CaptureView<'_>,
    front: Endpoint,
    turns: &[Turn],
    waits: &[Wait],
    stays: &[Stay],
    span: Span,
) -> bool {
    let is_front = |client: PacketRef| capture.digest_of(client).is_some_and(|client| client.server() == front);
    let linked = |turn: &&Turn| {
        let backend = turn.begun.0;
        let surely = capture.links_of(backend).any(|link| {
            link.backend_leg == backend && link.certainty >= Confidence::Medium && is_front(link.client_leg)
        });
        surely
            || capture
                .open_link(backend)
                .filter(|open| open.alike())
                .is_some_and(|open| open.candidates.iter().any(|client| is_front(*client)))
    };
    if turns.iter().filter(linked).count() * 100 >= turns.len() * MOST {
        return true;
    }
    let mut ends: Vec<Timestamp> =
        stays.iter().map(|stay| stay.until).filter(|at| *at >= span.0 && *at <= span.1).collect();
    ends.sort_unstable();
    let answered: Vec<&Wait> = waits.iter().filter(|wait| wait.answer.time <= span.1 + AT_ONCE).collect();
    let behind = |wait: &&&Wait| {
        let at = ends.partition_point(|end| *end <= wait.answer.time);
        at > 0 && wait.answer.time.since(ends[at - 1]) <= AT_ONCE
    };
    let chance = Elapsed(AT_ONCE.0.saturating_mul(4 * ends.len() as i64)) <= span.1.since(span.0);
    chance && answered.len() >= TURNS && answered.iter().filter(behind).count() * 100 >= answered.len() * MOST
}

/// What the host was asked in that time.
fn asked(capture: &CaptureView<'_>, front: &Endpoint, span: Span) -> Vec<Stay> {
    let whole = capture.flows_to(front).take(LOOK).flat_map(|flow| {
        let id = flow.facts.id;
        exchanges(&flow.story).into_iter().map(move |one| {
            let end = one.response.map(|(at, _)| at).or(flow.facts.closer.map(|(_, at)| at));
            let until = end.map_or(Timestamp::MAX, |at| at.time);
            Stay { flow: id, from: one.request.time, until, packets: (Some(one.request), end) }
        })
    });
    let lone = |digest: &&super::summary::Digest| digest.lone() && !capture.flows.contains_key(&digest.id);
    let brief = capture.began_to(front, span.0, span.1).filter(lone).take(LOOK).map(|digest| Stay {
        flow: digest.id,
        from: digest.id.time,
        until: digest.last,
        packets: (None, None),
    });
    whole.chain(brief).filter(|stay| stay.from <= span.1 && stay.until >= span.0).collect()
}

/// The answer to the first later request that took about as long as the server takes.
fn quick(capture: &CaptureView<'_>, front: &Endpoint, from: Timestamp, service: Elapsed) -> Option<PacketRef> {
    let later = capture.flows_to(front).take(LOOK).flat_map(|flow| exchanges(&flow.story));
    let later = later.filter(|one| one.request.time > from).filter_map(|one| Some((one.request, one.response?.0)));
    later
        .filter(|(asked, answer)| answer.time.since(asked.time) < Elapsed(service.0.saturating_mul(TIMES)))
        .min()
        .map(|(_, answer)| answer)
}

/// Most that waited at once, where some did for most of the time.
fn queue(asked: &[Stay], limit: usize, span: Span) -> Option<usize> {
    let changes = changes(asked);
    let waited = time_above(&changes, limit, span);
    let long = waited.0.saturating_mul(100) >= span.1.since(span.0).0.saturating_mul(MOST as i64);
    let most = changes.iter().filter(|change| change.0 < span.1).map(|change| change.1).max()?;
    (long && most > limit).then(|| most - limit)
}
