//! Methods 4 and 6 where one leg is no longer kept whole: its digest knows the first request by a hash.
//!
//! A hash of 32 bits is no proof and a digest knows neither when its request came nor which link address it has: what is certain between
//! flows kept whole is high here, what is high there is medium.

use std::collections::{BTreeMap, HashSet};

use smallvec::{SmallVec, smallvec};

use super::requests::Asked;
use super::{Candidate, End, LOOK};
use crate::event::PacketRef;
use crate::rule::digests::Digests;
use crate::rule::finding::Confidence;
use crate::rule::summary::{Digest, id_key, line_key};
use crate::rule::view::{ExchangePair, LinkMethod};
use crate::time::{Elapsed, Timestamp};
use crate::wire::http::request_ids;

/// A request line alone is believed when the other leg's request came this soon.
const SOON: Elapsed = Elapsed::secs(2);

/// A request, of a flow kept whole or of a digest.
struct Known<'a> {
    end: End,
    at: Timestamp,
    until: Timestamp,
    digest: &'a Digest,
    whole: bool,
    keys: SmallVec<[u32; 2]>,
}

/// Requests of one key, in order of time.
#[derive(Default)]
struct Alike {
    places: Vec<usize>,
    /// Where in that list those of flows kept whole stand.
    whole: Vec<usize>,
}

impl Alike {
    /// The latest of those that are not later than `until`, latest first: all of them, or those of flows kept whole.
    fn latest(&self, all: &[Known<'_>], until: Timestamp, only_whole: bool) -> impl Iterator<Item = usize> {
        let end = self.places.partition_point(|place| all[*place].at <= until);
        let from = end.saturating_sub(LOOK);
        let (first, behind) = match only_whole {
            true => (self.whole.partition_point(|at| *at < from), self.whole.partition_point(|at| *at < end)),
            false => (from, end),
        };
        let nth = move |n| if only_whole { self.whole[n] } else { n };
        (first..behind).rev().map(move |n| self.places[nth(n)])
    }
}

/// What the two methods say of pairs of a flow kept whole and a digest.
pub(super) fn candidates(asked: &[Asked<'_>], digests: &Digests, linked: impl Fn(PacketRef) -> bool) -> Vec<Candidate> {
    let mut all: Vec<Known<'_>> = asked.iter().map(of_request).collect();
    // Two digests are never joined: only what a request is asked for by is looked for among them.
    let wanted: HashSet<u32, foldhash::fast::RandomState> = all.iter().flat_map(|one| &one.keys).copied().collect();
    let whole = all.len();
    all.extend(digests.iter().filter(|digest| wanted.contains(&digest.request)).map(of_digest));
    if all.len() == whole {
        return Vec::new();
    }
    all.sort_by_key(|one| (one.at, one.end));
    let mut by_key: BTreeMap<u32, Alike> = BTreeMap::new();
    for (place, one) in all.iter().enumerate() {
        for key in &one.keys {
            let alike = by_key.entry(*key).or_default();
            if one.whole {
                alike.whole.push(alike.places.len());
            }
            alike.places.push(place);
        }
    }
    let mut found = Vec::new();
    for backend in all.iter().filter(|one| !linked(one.end.0)) {
        for key in &backend.keys {
            let Some(list) = by_key.get(key) else { continue };
            // Of two digests nothing is believed.
            let alike = list.latest(&all, backend.at, !backend.whole).map(|place| &all[place]);
            found
                .extend(alike.filter(|client| fits(client, backend, *key)).map(|client| joined(client, backend, *key)));
        }
    }
    found
}

fn of_digest(digest: &Digest) -> Known<'_> {
    let (at, until) = (digest.id.time, digest.last);
    Known { end: (digest.id, 1), at, until, digest, whole: false, keys: smallvec![digest.request] }
}

fn of_request<'a>(one: &Asked<'a>) -> Known<'a> {
    let answer = one.exchange.response.map(|(_, head)| head);
    let ids = request_ids(&one.exchange.head.ids).chain(answer.into_iter().flat_map(|head| request_ids(&head.ids)));
    let mut keys: SmallVec<[u32; 2]> = ids.map(id_key).collect();
    keys.push(line_key(one.exchange.head));
    keys.dedup();
    let until = one.answered().unwrap_or(Timestamp::MAX);
    Known { end: one.end(), at: one.at(), until, digest: &one.flow.digest, whole: true, keys }
}

fn fits(client: &Known<'_>, backend: &Known<'_>, key: u32) -> bool {
    let (one, other) = (client.digest, backend.digest);
    // One connection before and after translation is no two legs.
    let same = one.numbers != 0 && one.numbers == other.numbers;
    client.whole != backend.whole
        && client.end.0 != backend.end.0
        && client.at < backend.at
        && client.until >= backend.at
        && one.server() != other.server()
        && !same
        && (key % 2 == 1 || (one.server().address == other.client().address && backend.at.since(client.at) <= SOON))
}

fn joined(client: &Known<'_>, backend: &Known<'_>, key: u32) -> Candidate {
    let (method, certainty) = match key % 2 {
        1 => (LinkMethod::RequestId, Confidence::High),
        _ => (LinkMethod::RequestLine, Confidence::Medium),
    };
    let pair = ExchangePair { client: client.end.1, backend: backend.end.1, from: client.at, until: client.until };
    Candidate { client: client.end, backend: backend.end, method, certainty, pair: Some(pair) }
}
