//! Methods 1 to 3: octets that only two legs of one connection share. They join flows as wholes.

use std::collections::{BTreeMap, HashSet};

use super::hosts::meet;
use super::{AT_ONCE, Candidate, LOOK, latest, same_connection};
use crate::event::{PacketRef, Protocol, What};
use crate::rule::digests::Digests;
use crate::rule::finding::Confidence;
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::{Known, LinkMethod};
use crate::time::Elapsed;
use crate::wire::proxy::ProxyHeader;
use crate::wire::{Address, Endpoint};

/// A PROXY header's addresses link only legs that began this close together: ports are used again.
const HEADER_AGE: Elapsed = Elapsed::secs(60);

/// Where only the port is left to compare, the proxy must have turned to its backend at once.
const TRANSLATED_AGE: Elapsed = Elapsed::secs(1);

/// What the three methods say.
pub(super) fn candidates(flows: &BTreeMap<PacketRef, FlowSummary>, digests: &Digests) -> Vec<Candidate> {
    let known: Vec<Known<'_>> = flows.values().map(Known::from).chain(digests.iter().map(Known::from)).collect();
    let certain = |method| {
        move |(client, backend): (PacketRef, PacketRef)| Candidate {
            client: (client, 0),
            backend: (backend, 0),
            method,
            certainty: Confidence::Certain,
            pair: None,
        }
    };
    let mut found: Vec<Candidate> = Vec::new();
    found.extend(by_hello(&known).into_iter().map(certain(LinkMethod::ClientHelloRandom)));
    found.extend(by_header(&known, flows).into_iter().map(|((client, backend), certainty)| Candidate {
        client: (client, 0),
        backend: (backend, 0),
        method: LinkMethod::ProxyHeader,
        certainty,
        pair: None,
    }));
    let taken: std::collections::BTreeSet<PacketRef> =
        found.iter().flat_map(|one| [one.client.0, one.backend.0]).collect();
    by_prefix(&known, |flow| taken.contains(&flow), &mut found);
    found
}

/// Method 1: 32 random octets are equal on no two connections unless one passes the other's ClientHello on (RFC 8446 §4.1.2).
fn by_hello(known: &[Known<'_>]) -> Vec<(PacketRef, PacketRef)> {
    let mut pairs = Vec::new();
    for group in alike(known.iter().map(|one| (one.digest.hello, *one))) {
        for (i, backend) in group.iter().enumerate().skip(1) {
            // A chain of proxies: the leg that ends at the host where this one begins; else the latest that another host began.
            // A hello that is sent again to the same server is no leg.
            let earlier = || group[..i].iter().rev().filter(|leg| leg.digest.server() != backend.digest.server());
            let begins = backend.digest.client().address;
            let adjacent = earlier().find(|leg| leg.digest.server().address == begins);
            let other = || earlier().find(|leg| leg.digest.client().address != begins);
            let Some(client) = adjacent.or_else(other) else { continue };
            if !same_connection(*client, *backend) {
                pairs.push((client.digest.id, backend.digest.id));
            }
        }
    }
    pairs
}

/// A PROXY header that names its client, and the leg that it came on.
struct Announced<'a> {
    leg: &'a FlowSummary,
    header: &'a ProxyHeader,
    source: Endpoint,
}

/// Method 2: the backend leg's header names the client leg's own address and port.
fn by_header(
    known: &[Known<'_>],
    flows: &BTreeMap<PacketRef, FlowSummary>,
) -> Vec<((PacketRef, PacketRef), Confidence)> {
    let headers: Vec<Announced<'_>> = flows.values().filter_map(announced).collect();
    if headers.is_empty() {
        return Vec::new();
    }
    let mut by_port: BTreeMap<u16, Vec<Known<'_>>> = headers.iter().map(|one| (one.source.port, Vec::new())).collect();
    for leg in known {
        if let Some(legs) = by_port.get_mut(&leg.digest.client().port) {
            legs.push(*leg);
        }
    }
    by_port.values_mut().for_each(|legs| legs.sort_by_key(|leg| leg.digest.id));
    let mut pairs = Vec::new();
    for (place, one) in headers.iter().enumerate() {
        let backend = one.leg.facts.id;
        let mut pair = |client: PacketRef, certainty| pairs.push(((client, backend), certainty));
        if let Some(previous) = previous_hop(&headers[..place], one) {
            pair(previous, Confidence::Certain);
            continue;
        }
        let legs = by_port.get(&one.source.port).map(Vec::as_slice).unwrap_or(&[]);
        let age = |leg: &Digest| backend.time.since(leg.id.time);
        let fits = |leg: &&Digest| {
            leg.id < backend
                && leg.client() == one.source
                && one.header.destination.is_none_or(|destination| destination == leg.server())
        };
        let latest = || latest(legs, |leg| leg.digest.id.time, backend.time, LOOK);
        let before = || latest().filter(|leg| age(leg.digest) <= HEADER_AGE);
        if let Some(client) = before().map(|leg| leg.digest).find(fits) {
            pair(client.id, Confidence::Certain);
            continue;
        }
        // Before address translation the client, or what it asked for, had another address; its port mostly stays.
        let asks = |leg: &Digest| leg.client() == one.source && Some(leg.server()) == one.header.destination;
        let seen = legs.iter().any(|leg| asks(leg.digest));
        let translated = |leg: &&Known<'_>| {
            leg.digest.id < backend
                && leg.digest.last >= backend.time
                && age(leg.digest) <= TRANSLATED_AGE
                && meets(**leg, one.leg.into())
                && !same_connection(**leg, one.leg.into())
        };
        if !seen {
            before().filter(translated).for_each(|leg| pair(leg.digest.id, Confidence::High));
        }
    }
    pairs
}

fn announced(leg: &FlowSummary) -> Option<Announced<'_>> {
    let header = leg.story.events().find_map(|e| match &e.what {
        What::ProxyHeader(header) => Some(header),
        _ => None,
    })?;
    Some(Announced { leg, header, source: header.source? })
}

/// In a chain every hop repeats the first client: the leg before is the one with the same header that ends where this one begins.
fn previous_hop(earlier: &[Announced<'_>], one: &Announced<'_>) -> Option<PacketRef> {
    let backend = one.leg.facts.id;
    let same = |hop: &&Announced<'_>| {
        let ids = (hop.header.unique_id(), one.header.unique_id());
        hop.source == one.source
            && hop.header.destination == one.header.destination
            && (ids.0.is_none() || ids.1.is_none() || ids.0 == ids.1)
            && hop.leg.facts.server != one.leg.facts.server
            && hop.leg.facts.server.address == one.leg.facts.client.address
            && backend.time.since(hop.leg.facts.id.time) <= HEADER_AGE
    };
    earlier.iter().rev().take(LOOK).find(same).map(|hop| hop.leg.facts.id)
}

/// Method 3: the same first octets, from the host where the client leg ends. Octets of no text protocol are as good as random.
fn by_prefix(known: &[Known<'_>], taken: impl Fn(PacketRef) -> bool, found: &mut Vec<Candidate>) {
    let free = known.iter().filter(|one| !taken(one.digest.id));
    for group in alike(free.map(|one| (one.digest.prefix, *one))) {
        let ends: HashSet<Address, foldhash::fast::RandomState> =
            group.iter().map(|leg| leg.digest.server().address).collect();
        for backend in &group {
            // What many clients ask of a few servers is the same, and no server of them is a client: most groups are that.
            if backend.whole.is_none() && !ends.contains(&backend.digest.client().address) {
                continue;
            }
            let (id, began) = (backend.digest.id, backend.digest.id.time);
            let fits = |client: &Known<'_>| {
                client.digest.id < id
                    && client.digest.last >= began
                    && began.since(client.digest.id.time) <= HEADER_AGE
                    && meets(*client, *backend)
                    && !same_connection(*client, *backend)
            };
            let before = latest(&group, |leg| leg.digest.id.time, began, LOOK);
            let candidates: Vec<PacketRef> = before.filter(|leg| fits(leg)).map(|leg| leg.digest.id).collect();
            let near: Vec<PacketRef> =
                candidates.iter().copied().filter(|leg| began.since(leg.time) <= AT_ONCE).collect();
            let text = !matches!(backend.digest.protocol, None | Some(Protocol::Unknown | Protocol::Tls));
            let sure = if text { Confidence::High } else { Confidence::Certain };
            // Of several, the only one that began at once before it.
            let (chosen, certainty) = match (candidates.len(), near.len()) {
                (2.., 1) => (near, Confidence::Medium),
                _ => (candidates, sure),
            };
            found.extend(chosen.into_iter().map(|client| Candidate {
                client: (client, 0),
                backend: (id, 0),
                method: LinkMethod::PayloadPrefix,
                certainty,
                pair: None,
            }));
        }
    }
}

/// Flows of the same hash, two and more of each, in the order of their first packets; 0 is no hash.
fn alike<'a>(hashed: impl Iterator<Item = (u64, Known<'a>)>) -> Vec<Vec<Known<'a>>> {
    let mut hashed: Vec<(u64, Known<'_>)> = hashed.filter(|(hash, _)| *hash != 0).collect();
    // Most are the only ones of their hash, and need not be sorted.
    let mut known: HashSet<u64, foldhash::fast::RandomState> = HashSet::default();
    known.reserve(hashed.len());
    let again: HashSet<u64, foldhash::fast::RandomState> =
        hashed.iter().map(|(hash, _)| *hash).filter(|hash| !known.insert(*hash)).collect();
    hashed.retain(|(hash, _)| again.contains(hash));
    hashed.sort_unstable_by_key(|(hash, one)| (*hash, one.digest.id));
    let groups = hashed.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    groups.map(|group| group.iter().map(|(_, one)| *one).collect()).collect()
}

/// Whether the client leg ends at the host where the backend leg begins.
fn meets(client: Known<'_>, backend: Known<'_>) -> bool {
    let (end, begin) = (client.digest.server(), backend.digest.client());
    if end == backend.digest.server() {
        return false;
    }
    match (client.whole, backend.whole) {
        (Some(client), Some(backend)) => meet(client, backend),
        _ => end.address == begin.address,
    }
}
