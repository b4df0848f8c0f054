//! Which client leg belongs to which backend leg: by the ClientHello's random, by the addresses in the PROXY header.

use std::collections::BTreeMap;

use crate::event::{PacketRef, What};
use crate::rule::finding::Confidence;
use crate::rule::summary::{Digest, FlowSummary};
use crate::rule::view::{Link, LinkMethod};
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A PROXY header's addresses link only legs that began this close together: ports are used again.
const HEADER_AGE: Elapsed = Elapsed::secs(60);

/// All links among the flows that are still known, in the order of their backend legs.
pub fn link(flows: &BTreeMap<PacketRef, FlowSummary>, digests: &BTreeMap<PacketRef, Digest>) -> Vec<Link> {
    let known: Vec<&Digest> = flows.values().map(|flow| &flow.digest).chain(digests.values()).collect();
    let mut found: BTreeMap<(PacketRef, PacketRef), Vec<LinkMethod>> = BTreeMap::new();
    for pair in by_hello(&known, flows) {
        found.entry(pair).or_default().push(LinkMethod::ClientHelloRandom);
    }
    for pair in by_header(&known, flows) {
        found.entry(pair).or_default().push(LinkMethod::ProxyHeader);
    }
    let mut links: Vec<Link> = found
        .into_iter()
        .map(|((client_leg, backend_leg), methods)| Link {
            client_leg,
            backend_leg,
            methods,
            // Both methods compare what only these two legs can share.
            certainty: Confidence::Certain,
        })
        .collect();
    links.sort_by_key(|link| (link.backend_leg, link.client_leg));
    links
}

/// Method 1: 32 random octets are equal on no two connections unless one passes the other's ClientHello on (RFC 8446 §4.1.2).
fn by_hello(known: &[&Digest], flows: &BTreeMap<PacketRef, FlowSummary>) -> Vec<(PacketRef, PacketRef)> {
    let mut by_hello: BTreeMap<u64, Vec<&Digest>> = BTreeMap::new();
    for digest in known.iter().filter(|digest| digest.hello != 0) {
        by_hello.entry(digest.hello).or_default().push(digest);
    }
    let mut pairs = Vec::new();
    for mut group in by_hello.into_values().filter(|group| group.len() > 1) {
        group.sort_by_key(|digest| digest.id);
        for (i, backend) in group.iter().enumerate().skip(1) {
            // A chain of proxies: the leg that ends at the host where this one begins; else the first leg of all.
            let earlier = &group[..i];
            let client = earlier.iter().rev().find(|leg| leg.server().address == backend.client().address);
            let client = client.unwrap_or(&earlier[0]);
            if !same_connection(client, backend, flows) {
                pairs.push((client.id, backend.id));
            }
        }
    }
    pairs
}

/// The same packets before and after address translation keep their initial sequence number: one connection, no second leg.
fn same_connection(a: &Digest, b: &Digest, flows: &BTreeMap<PacketRef, FlowSummary>) -> bool {
    let isn = |digest: &Digest| flows.get(&digest.id).and_then(|flow| flow.facts.from_client.isn);
    matches!((isn(a), isn(b)), (Some(a), Some(b)) if a == b)
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
    let mut by_client: BTreeMap<Endpoint, Vec<&Digest>> = BTreeMap::new();
    for digest in known {
        by_client.entry(digest.client()).or_default().push(digest);
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
