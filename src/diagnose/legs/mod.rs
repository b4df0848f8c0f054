//! Which client leg belongs to which backend leg: eleven methods, from octets that only two legs can share down to mere timing.
//!
//! Methods 1 to 3 ([`whole`]) join flows, 4 to 7 ([`requests`]) join single requests of HTTP/1 flows, 8 to 10 ([`timing`]) what is left, and
//! method 7 where the client leg is sealed. [`brief`] does 4 and 6 where one leg is a digest. A
//! backend leg that a surer method has joined is not offered to a weaker one. Among the candidates of one backend leg (or of one of its
//! requests) the surest wins; where several are equally sure none is taken, and the report says so.
//!
//! Cost: every method looks its candidates up by a key and by time, and looks at [`LOOK`] of them at most: near-linear in flows.

#[cfg(test)]
mod alike;
mod brief;
mod hosts;
mod requests;
#[cfg(test)]
mod tests;
mod timing;
mod whole;

use std::collections::{BTreeMap, BTreeSet};

use crate::event::PacketRef;
use crate::rule::digests::Digests;
use crate::rule::finding::Confidence;
use crate::rule::summary::FlowSummary;
use crate::rule::view::{ExchangePair, Known, Link, LinkMethod, OpenLink};
use crate::time::Elapsed;

/// Candidates that are looked at for one leg.
const LOOK: usize = 64;
/// A proxy turns to its backend within this time when nothing holds it up.
const AT_ONCE: Elapsed = Elapsed::millis(5);
/// What a proxy passes on (an answer, a close) it passes on within this time.
const PASSED_ON: Elapsed = Elapsed::millis(50);

/// What the methods found.
#[derive(Debug, Default)]
pub struct Legs {
    /// Links, in the order of their backend legs.
    pub links: Vec<Link>,
    /// Backend legs that several client legs fit equally well.
    pub open: Vec<OpenLink>,
}

/// One end of a candidate: a flow, and which of its requests (from 1; 0 = the flow as a whole).
type End = (PacketRef, u32);

/// One method's word for one pair.
#[derive(Clone, Debug)]
struct Candidate {
    client: End,
    backend: End,
    method: LinkMethod,
    certainty: Confidence,
    /// The joined exchange; `None` where flows are joined as wholes.
    pair: Option<ExchangePair>,
}

/// All links among the flows that are still known.
pub fn link(flows: &BTreeMap<PacketRef, FlowSummary>, digests: &Digests) -> Legs {
    let mut legs = Legs::default();
    settle(whole::candidates(flows, digests), &mut legs);
    let linked = |legs: &Legs| -> BTreeSet<PacketRef> { legs.links.iter().map(|link| link.backend_leg).collect() };
    let asked = requests::asked(flows);
    settle(requests::candidates(&asked, flows, &linked(&legs)), &mut legs);
    let known = linked(&legs);
    settle(brief::candidates(&asked, digests, |flow| known.contains(&flow)), &mut legs);
    let whole: BTreeSet<PacketRef> =
        legs.links.iter().filter(|link| link.exchanges.is_empty()).map(|link| link.client_leg).collect();
    let hosts = hosts::Hosts::of(flows);
    settle(timing::candidates(&asked, flows, &hosts, &linked(&legs), &whole), &mut legs);
    let linked = linked(&legs);
    legs.open.retain(|open| !linked.contains(&open.backend_leg));
    legs.open.sort_by_key(|open| open.backend_leg);
    // Several of its requests, or several methods.
    legs.open.dedup_by(|more, open| {
        let same = more.backend_leg == open.backend_leg;
        if same {
            open.candidates.append(&mut more.candidates);
            open.method = open.method.min(more.method);
        }
        same
    });
    for open in &mut legs.open {
        open.candidates.sort_unstable();
        open.candidates.dedup();
    }
    legs.links.sort_by_key(|link| (link.backend_leg, link.client_leg));
    legs
}

/// Lets the surest candidate of each backend end win, and joins what belongs to the same two flows.
fn settle(candidates: Vec<Candidate>, legs: &mut Legs) {
    let mut by_backend: BTreeMap<End, BTreeMap<End, Vec<Candidate>>> = BTreeMap::new();
    for candidate in candidates {
        by_backend.entry(candidate.backend).or_default().entry(candidate.client).or_default().push(candidate);
    }
    let mut links: BTreeMap<(PacketRef, PacketRef), Link> = BTreeMap::new();
    for (backend, by_client) in by_backend {
        // How sure the pair is, and the best method for it: of two certain ones the earlier method tells the nearer hop.
        let rank = |all: &[Candidate]| {
            let certainty = all.iter().map(|one| one.certainty).max().unwrap_or(Confidence::Low);
            (certainty, all.iter().map(|one| std::cmp::Reverse(one.method)).max())
        };
        let best = by_client.values().map(|all| rank(all)).max();
        let equal = |all: &Vec<Candidate>| match best {
            Some(best @ (Confidence::Certain, _)) => rank(all) == best,
            Some((certainty, _)) => rank(all).0 == certainty,
            None => false,
        };
        let sure = best.is_some_and(|(certainty, _)| certainty > Confidence::Low);
        // Many like requests fit by what they ask; an answer like many others, or the right time, says too little.
        let says = |all: &[Candidate]| all.iter().any(|one| one.method <= LinkMethod::RequestLine);
        let winners: Vec<(&End, &Vec<Candidate>)> =
            by_client.iter().filter(|(_, all)| equal(all) && (sure || says(all))).collect();
        let flows: BTreeSet<PacketRef> = winners.iter().map(|(client, _)| client.0).collect();
        if flows.len() > 1 {
            let method = winners.iter().flat_map(|(_, all)| all.iter()).map(|one| one.method).min();
            let method = method.unwrap_or(LinkMethod::Timing);
            legs.open.push(OpenLink { backend_leg: backend.0, method, candidates: flows.into_iter().collect() });
        } else if let Some((_, all)) = winners.last().filter(|_| sure) {
            // Of several requests of one flow the latest before it.
            join(all, &mut links);
        }
    }
    legs.links.extend(links.into_values());
}

fn join(all: &[Candidate], links: &mut BTreeMap<(PacketRef, PacketRef), Link>) {
    for one in all {
        let legs = (one.client.0, one.backend.0);
        let link = links.entry(legs).or_insert_with(|| Link::whole(legs.0, legs.1, one.method, one.certainty));
        link.certainty = link.certainty.max(one.certainty);
        if !link.methods.contains(&one.method) {
            link.methods.push(one.method);
            link.methods.sort_unstable();
        }
        if let Some(pair) = one.pair
            && !link.exchanges.contains(&pair)
            && link.exchanges.len() < Link::EXCHANGES
        {
            link.exchanges.push(pair);
        }
    }
}

/// The same packets before and after address translation keep their initial sequence number: one connection, no second leg.
fn same_connection(a: Known<'_>, b: Known<'_>) -> bool {
    if a.digest.numbers != 0 && b.digest.numbers != 0 {
        return a.digest.numbers == b.digest.numbers;
    }
    let isn = |leg: Known<'_>| leg.whole.and_then(|flow| flow.facts.from_client.isn);
    matches!((isn(a), isn(b)), (Some(a), Some(b)) if a == b)
}

/// The last `most` places of a list sorted by time that are not later than `until`, latest first.
fn latest<T>(
    list: &[T],
    time: impl Fn(&T) -> crate::time::Timestamp,
    until: crate::time::Timestamp,
    most: usize,
) -> impl Iterator<Item = &T> {
    let end = list.partition_point(|item| time(item) <= until);
    list[..end].iter().rev().take(most)
}
