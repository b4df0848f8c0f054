//! Methods 1 to 3: octets that only two legs of one connection share. They join flows as wholes.

use std::collections::BTreeMap;

use super::hosts::{runs_client, runs_server};
use super::{AT_ONCE, Candidate, LOOK, latest, same_connection};
use crate::event::{PacketRef, Protocol, What};
use crate::rule::finding::Confidence;
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::LinkMethod;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A PROXY header's addresses link only legs that began this close together: ports are used again.
const HEADER_AGE: Elapsed = Elapsed::secs(60);

/// What the three methods say.
pub(super) fn candidates(
    flows: &BTreeMap<PacketRef, FlowSummary>,
    digests: &BTreeMap<PacketRef, Digest>,
) -> Vec<Candidate> {
    let known: Vec<&Digest> = flows.values().map(|flow| &flow.digest).chain(digests.values()).collect();
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
    found.extend(by_hello(&known, flows).into_iter().map(certain(LinkMethod::ClientHelloRandom)));
    found.extend(by_header(&known, flows).into_iter().map(certain(LinkMethod::ProxyHeader)));
    let taken: std::collections::BTreeSet<PacketRef> =
        found.iter().flat_map(|one| [one.client.0, one.backend.0]).collect();
    by_prefix(&known, flows, |flow| taken.contains(&flow), &mut found);
    found
}

/// Method 1: 32 random octets are equal on no two connections unless one passes the other's ClientHello on (RFC 8446 §4.1.2).
fn by_hello(known: &[&Digest], flows: &BTreeMap<PacketRef, FlowSummary>) -> Vec<(PacketRef, PacketRef)> {
    let mut pairs = Vec::new();
    for group in alike(known.iter().map(|digest| (digest.hello, *digest))) {
        for (i, backend) in group.iter().enumerate().skip(1) {
            // A chain of proxies: the leg that ends at the host where this one begins; else the latest that another host began.
            // A hello that is sent again to the same server is no leg.
            let earlier = || group[..i].iter().rev().filter(|leg| leg.server() != backend.server());
            let adjacent = earlier().find(|leg| leg.server().address == backend.client().address);
            let other = || earlier().find(|leg| leg.client().address != backend.client().address);
            let Some(client) = adjacent.or_else(other) else { continue };
            if !same_connection(client, backend, flows) {
                pairs.push((client.id, backend.id));
            }
        }
    }
    pairs
}

/// Method 2: the backend leg's header names the client leg's own address and port.
fn by_header(known: &[&Digest], flows: &BTreeMap<PacketRef, FlowSummary>) -> Vec<(PacketRef, PacketRef)> {
    let headers: Vec<(&FlowSummary, Endpoint, Option<Endpoint>)> = flows
        .values()
        .filter_map(|flow| {
            let header = flow.story.events().find_map(|e| match &e.what {
                What::ProxyHeader(header) => Some(header),
                _ => None,
            })?;
            Some((flow, header.source?, header.destination))
        })
        .collect();
    if headers.is_empty() {
        return Vec::new();
    }
    let mut by_client: BTreeMap<Endpoint, Vec<&Digest>> =
        headers.iter().map(|(_, source, _)| (*source, Vec::new())).collect();
    for digest in known {
        if let Some(legs) = by_client.get_mut(&digest.client()) {
            legs.push(digest);
        }
    }
    let mut pairs = Vec::new();
    for (backend, source, destination) in headers {
        let candidates = by_client.get(&source).map(Vec::as_slice).unwrap_or(&[]);
        let fits = |leg: &&&Digest| {
            leg.id < backend.facts.id
                && backend.facts.id.time.since(leg.id.time) <= HEADER_AGE
                && destination.is_none_or(|destination| destination == leg.server())
        };
        if let Some(client) = candidates.iter().filter(fits).max_by_key(|leg| leg.id) {
            pairs.push((client.id, backend.facts.id));
        }
    }
    pairs
}

/// Method 3: the same first octets, from the host where the client leg ends. Octets of no text protocol are as good as random.
fn by_prefix(
    known: &[&Digest],
    flows: &BTreeMap<PacketRef, FlowSummary>,
    taken: impl Fn(PacketRef) -> bool,
    found: &mut Vec<Candidate>,
) {
    let free = known.iter().filter(|digest| !taken(digest.id));
    for group in alike(free.map(|digest| (digest.prefix, *digest))) {
        for backend in &group {
            let began = backend.id.time;
            let fits = |client: &&&Digest| {
                client.id < backend.id
                    && client.last >= began
                    && began.since(client.id.time) <= HEADER_AGE
                    && meets(client, backend, flows)
                    && !same_connection(client, backend, flows)
            };
            let candidates: Vec<&&Digest> = latest(&group, |leg| leg.id.time, began, LOOK).filter(fits).collect();
            let near: Vec<&&Digest> =
                candidates.iter().copied().filter(|leg| began.since(leg.id.time) <= AT_ONCE).collect();
            let text = !matches!(backend.protocol, None | Some(Protocol::Unknown | Protocol::Tls));
            let sure = if text { Confidence::High } else { Confidence::Certain };
            // Of several, the only one that began at once before it.
            let (chosen, certainty) = match (candidates.len(), near.len()) {
                (2.., 1) => (near, Confidence::Medium),
                _ => (candidates, sure),
            };
            found.extend(chosen.into_iter().map(|client| Candidate {
                client: (client.id, 0),
                backend: (backend.id, 0),
                method: LinkMethod::PayloadPrefix,
                certainty,
                pair: None,
            }));
        }
    }
}

/// Flows of the same hash, two and more of each, in the order of their first packets; 0 is no hash.
fn alike<'a>(hashed: impl Iterator<Item = (u64, &'a Digest)>) -> Vec<Vec<&'a Digest>> {
    let mut hashed: Vec<(u64, &Digest)> = hashed.filter(|(hash, _)| *hash != 0).collect();
    hashed.sort_unstable_by_key(|(hash, digest)| (*hash, digest.id));
    let groups = hashed.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1);
    groups.map(|group| group.iter().map(|(_, digest)| *digest).collect()).collect()
}

/// Whether the client leg ends at the host where the backend leg begins.
fn meets(client: &Digest, backend: &Digest, flows: &BTreeMap<PacketRef, FlowSummary>) -> bool {
    if client.server() == backend.server() {
        return false;
    }
    match (flows.get(&client.id), flows.get(&backend.id)) {
        (Some(client), Some(backend)) => {
            let ends = runs_server(client);
            runs_client(backend).iter().any(|key| ends.contains(key))
        }
        _ => client.server().address == backend.client().address,
    }
}
