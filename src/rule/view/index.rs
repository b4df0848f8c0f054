//! Where rules find flows again: by server, by pair of hosts, by time, by what was found on them.
//!
//! Cost: made once for a report, in time near-linear in flows.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Range;
use std::slice;
use std::sync::OnceLock;

use prefetch_index::prefetch_index;

use super::CaptureView;
use crate::event::PacketRef;
use crate::flow::facts::IpProtocol;
use crate::rule::digests::Digests;
use crate::rule::pool::Pool;
use crate::rule::summary::{Digest, FlowSummary};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// So many digests before its turn each is sent for.
const AHEAD: usize = 8;

/// Flows by what rules look them up by.
#[derive(Default)]
pub struct Index<'a> {
    kept: BTreeMap<Endpoint, Vec<&'a FlowSummary>>,
    found: BTreeMap<&'a str, Found<'a>>,
    /// The flows kept whole, and the others; each in the order of their first packets.
    by_time: [Vec<&'a Digest>; 2],
    /// All flows by server end, those to one in the order of their first packets.
    by_server: Vec<&'a Digest>,
    servers: Vec<(Endpoint, Range<usize>)>,
    /// All flows by client and server end, those of a pair in the order of their first packets.
    by_pair: Vec<Known<'a>>,
    pairs: Vec<Pair>,
    /// Who opened flows, in order.
    clients: Vec<Address>,
    dns_answers_alone: usize,
    /// Looked for when a rule asks for them.
    pub(super) pools: OnceLock<Vec<Pool>>,
}

impl<'a> Index<'a> {
    /// Of all flows that are still known.
    pub fn of(flows: &'a BTreeMap<PacketRef, FlowSummary>, digests: &'a Digests) -> Self {
        let mut index = Self::default();
        for flow in flows.values() {
            index.kept.entry(flow.facts.server).or_default().push(flow);
            for finding in &flow.findings {
                let found = index.found.entry(&finding.rule).or_default();
                found.flows.push(flow);
                found.servers.push(flow.facts.server.address);
            }
        }
        for found in index.found.values_mut() {
            found.servers.sort_unstable();
            found.servers.dedup();
        }
        let mut all: Vec<Known<'a>> = Vec::with_capacity(flows.len() + digests.len());
        all.extend(flows.values().map(Known::from).chain(digests.iter().map(Known::from)));
        index.by_time =
            [&all[..flows.len()], &all[flows.len()..]].map(|part| part.iter().map(|one| one.digest).collect());
        // The stable sort finds that these are two lists in order, and only merges them.
        all.sort_by_key(|one| one.digest.id);
        index.dns_answers_alone = dns_answers_alone(&all);

        // Sorted by numbers, not by addresses: there are many flows and few hosts.
        let servers = Ranks::of(all.iter().map(|one| one.digest.server()));
        let clients = Ranks::of(all.iter().map(|one| one.digest.client().address));
        let by_server = servers.sorted(0..all.len());
        let by_pair = clients.sorted(by_server.iter().copied());
        index.by_server = by_server.iter().map(|place| all[*place].digest).collect();
        index.servers =
            parts(&by_server, |place| servers.of[place]).map(|(n, part)| (servers.keys[n as usize], part)).collect();
        index.by_pair = by_pair.iter().map(|place| all[*place]).collect();
        let pairs = parts(&by_pair, |place| (clients.of[place], servers.of[place]));
        index.pairs = pairs.map(|((client, server), part)| Pair { client, server, flows: part }).collect();
        index.clients = clients.keys;
        index
    }
}

/// A client and a server end, by their places among all of them, and where the flows between them stand.
struct Pair {
    client: u32,
    server: u32,
    flows: Range<usize>,
}

/// The flows on which a rule found something, in the order of their first packets, and their servers in order.
#[derive(Default)]
struct Found<'a> {
    flows: Vec<&'a FlowSummary>,
    servers: Vec<Address>,
}

/// A flow that is still known: its short facts, and all of it where it was kept whole.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The short facts.
    pub digest: &'a Digest,
    /// The rest.
    pub whole: Option<&'a FlowSummary>,
}

impl<'a> From<&'a FlowSummary> for Known<'a> {
    fn from(flow: &'a FlowSummary) -> Self {
        Self { digest: &flow.digest, whole: Some(flow) }
    }
}

impl<'a> From<&'a Digest> for Known<'a> {
    fn from(digest: &'a Digest) -> Self {
        Self { digest, whole: None }
    }
}

impl CaptureView<'_> {
    /// Kept flows to one server end, in the order of their first packets.
    pub fn flows_to(&self, server: &Endpoint) -> impl Iterator<Item = &FlowSummary> {
        self.index.kept.get(server).into_iter().flatten().copied()
    }

    /// Kept flows to any port of a host, by port.
    pub fn flows_to_host(&self, host: Address) -> impl Iterator<Item = &FlowSummary> {
        let ports = Endpoint::new(host, 0)..=Endpoint::new(host, u16::MAX);
        self.index.kept.range(ports).flat_map(|(_, flows)| flows).copied()
    }

    /// Short facts of every flow that is still known, kept whole or not, by server end.
    pub fn known(&self) -> impl Iterator<Item = &Digest> {
        in_turn(&self.index.by_server)
    }

    /// Every server end of the flows that are still known, and the flows to it in the order of their first packets.
    pub fn servers(&self) -> impl Iterator<Item = (&Endpoint, &[&Digest])> {
        self.index.servers.iter().map(|(server, part)| (server, &self.index.by_server[part.clone()]))
    }

    /// Every host that opened flows to a server end, by host and server, and these flows in the order of their first packets.
    pub fn pairs(&self) -> impl Iterator<Item = (Address, Endpoint, &[Known<'_>])> {
        let index = &self.index;
        index.pairs.iter().map(|pair| {
            let (client, (server, _)) = (index.clients[pair.client as usize], &index.servers[pair.server as usize]);
            (client, *server, &index.by_pair[pair.flows.clone()])
        })
    }

    /// Every host that opened flows, and its flows by server end.
    pub fn sources(&self) -> impl Iterator<Item = (Address, &[Known<'_>])> {
        let index = &self.index;
        index.pairs.chunk_by(|one, other| one.client == other.client).map(|pairs| {
            let (first, last) = (&pairs[0], &pairs[pairs.len() - 1]);
            (index.clients[first.client as usize], &index.by_pair[first.flows.start..last.flows.end])
        })
    }

    /// Whether a host opened any of the flows that are still known.
    pub fn opens(&self, host: Address) -> bool {
        self.index.clients.binary_search(&host).is_ok()
    }

    /// Short facts of every flow to `server`, kept whole or not, that began within `from..=to`.
    pub fn began_to(&self, server: &Endpoint, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Digest> {
        let place = self.index.servers.binary_search_by_key(server, |(server, _)| *server).ok();
        let part = place.map_or(0..0, |place| self.index.servers[place].1.clone());
        began(&self.index.by_server[part], from, to)
    }

    /// Kept flows on which a rule found something, in the order of their first packets.
    pub fn found_by(&self, rule: &str) -> impl Iterator<Item = &FlowSummary> {
        self.index.found.get(rule).into_iter().flat_map(|found| &found.flows).copied()
    }

    /// Servers of the kept flows on which a rule found something, in order.
    pub fn servers_found_by(&self, rule: &str) -> &[Address] {
        self.index.found.get(rule).map_or(&[], |found| &found.servers)
    }

    /// Short facts of every flow, kept whole or not, that began within `from..=to`.
    pub fn began(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Digest> {
        let [kept, others] = &self.index.by_time;
        // A time that ends before it begins is the moment at which it begins.
        let to = to.max(from);
        began(kept, from, to).chain(began(others, from, to))
    }

    /// Answers of DNS servers whose question is not in the capture, without those to what was asked just before it began.
    pub fn dns_answers_alone(&self) -> usize {
        self.index.dns_answers_alone
    }
}

/// The distinct keys of a list, in order, and which of them each item of the list has.
struct Ranks<K> {
    keys: Vec<K>,
    of: Vec<u32>,
}

impl<K: Copy + Ord + Hash> Ranks<K> {
    fn of(list: impl Iterator<Item = K>) -> Self {
        let mut numbers: HashMap<K, u32, foldhash::fast::RandomState> = HashMap::default();
        let mut keys: Vec<(K, u32)> = Vec::new();
        let number = |key: K| {
            *numbers.entry(key).or_insert_with(|| {
                let next = keys.len() as u32;
                keys.push((key, next));
                next
            })
        };
        let mut of: Vec<u32> = list.map(number).collect();
        keys.sort_unstable();
        let mut ranks = vec![0; keys.len()];
        for (rank, (_, number)) in (0..).zip(&keys) {
            ranks[*number as usize] = rank;
        }
        of.iter_mut().for_each(|number| *number = ranks[*number as usize]);
        Self { keys: keys.into_iter().map(|(key, _)| key).collect(), of }
    }

    /// The items' places, sorted by key; those of one key stay in the order in which they come.
    fn sorted(&self, places: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut next = vec![0; self.keys.len()];
        self.of.iter().for_each(|rank| next[*rank as usize] += 1);
        let mut before = 0;
        for count in &mut next {
            before += std::mem::replace(count, before);
        }
        let mut sorted = vec![0; self.of.len()];
        for place in places {
            let next = &mut next[self.of[place] as usize];
            sorted[*next] = place;
            *next += 1;
        }
        sorted
    }
}

/// Where those that share a key stand in a list sorted by it.
fn parts<T: PartialEq>(sorted: &[usize], key: impl Fn(usize) -> T) -> impl Iterator<Item = (T, Range<usize>)> {
    let mut end = 0;
    std::iter::from_fn(move || {
        let (from, shared) = (end, key(*sorted.get(end)?));
        while sorted.get(end).is_some_and(|place| key(*place) == shared) {
            end += 1;
        }
        Some((shared, from..end))
    })
}

fn dns_answers_alone(known: &[Known<'_>]) -> usize {
    const DNS: u16 = 53;
    // Who asked before the capture began is answered within this time.
    let begin = known.first().map(|first| first.digest.id.time + Elapsed::secs(5)).unwrap_or_default();
    let alone = |digest: &Digest| digest.answered && !digest.completed && digest.id.time > begin;
    let dns = |digest: &Digest| digest.server().port == DNS && digest.transport == IpProtocol::Udp;
    known.iter().filter(|one| dns(one.digest) && alone(one.digest)).count()
}

/// Those of a list in the order of their first packets that began within `from..=to`.
fn began<'a, 'd>(
    list: &'a [&'d Digest],
    from: Timestamp,
    to: Timestamp,
) -> impl Iterator<Item = &'d Digest> + use<'a, 'd> {
    let first = list.partition_point(|digest| digest.id.time < from);
    let behind = list.partition_point(|digest| digest.id.time <= to);
    in_turn(list.get(first..behind).unwrap_or(&[]))
}

/// Each of a list, while one behind it is sent for: they lie in memory in the order of time.
pub(crate) fn in_turn<'a, 'd>(list: &'a [&'d Digest]) -> impl DoubleEndedIterator<Item = &'d Digest> + use<'a, 'd> {
    ahead(list, |digest| digest)
}

/// The short facts of flows, in the same way.
pub(crate) fn short<'a, 'd>(flows: &'a [Known<'d>]) -> impl Iterator<Item = &'d Digest> + use<'a, 'd> {
    ahead(flows, |flow| flow.digest)
}

fn ahead<'a, 'd, T>(
    list: &'a [T],
    digest: impl Fn(&'a T) -> &'d Digest,
) -> impl DoubleEndedIterator<Item = &'d Digest> {
    list.iter().enumerate().map(move |(place, one)| {
        list.get(place + AHEAD).into_iter().for_each(|later| prefetch_index(slice::from_ref(digest(later)), 0));
        digest(one)
    })
}

#[cfg(test)]
mod tests {
    use crate::rule::testing::{Scene, World, end, host};
    use crate::time::{Elapsed, Timestamp};

    const WEB: &str = "10.0.0.2:80";
    const DNS: &str = "10.0.0.2:53";

    /// Flows kept whole (odd numbers) and others, of two clients to two ends, not in the order of time.
    fn world() -> World {
        let flows = [
            ("10.0.0.9:1", WEB, 7),
            ("10.0.0.8:1", WEB, 2),
            ("10.0.0.8:2", DNS, 5),
            ("10.0.0.8:3", WEB, 3),
            ("10.0.0.9:2", WEB, 4),
        ];
        flows.into_iter().fold(World::new(), |world, (client, server, number)| {
            let scene = Scene::starting(client, server, number, number as i64 * 1000).handshake();
            if number % 2 == 1 { world.with(&scene) } else { world.with_good(&scene) }
        })
    }

    #[test]
    fn flows_stand_by_pair_and_by_server_in_the_order_of_time() {
        let world = world();
        let view = world.view();
        let pairs: Vec<_> = view
            .pairs()
            .map(|(client, server, flows)| {
                let numbers: Vec<u64> = flows.iter().map(|flow| flow.digest.id.number).collect();
                assert!(flows.iter().all(|flow| flow.whole.is_some() == (flow.digest.id.number % 2 == 1)));
                (client, server, numbers)
            })
            .collect();
        let (one, other) = (host("10.0.0.8"), host("10.0.0.9"));
        let expected = [(one, end(DNS), vec![5]), (one, end(WEB), vec![2, 3]), (other, end(WEB), vec![4, 7])];
        assert_eq!(pairs, expected);
        let sources: Vec<_> = view.sources().map(|(client, flows)| (client, flows.len())).collect();
        assert_eq!(sources, [(one, 3), (other, 2)]);
        let servers: Vec<_> = view
            .servers()
            .map(|(server, flows)| (*server, flows.iter().map(|flow| flow.id.number).collect::<Vec<_>>()))
            .collect();
        assert_eq!(servers, [(end(DNS), vec![5]), (end(WEB), vec![2, 3, 4, 7])]);
        assert!(view.opens(one) && view.opens(other) && !view.opens(host("10.0.0.2")));
    }

    #[test]
    fn flows_are_found_by_when_they_began() {
        let world = world();
        let view = world.view();
        let at = |number: i64| Timestamp::default() + Elapsed::secs(number);
        let to =
            |from, until| view.began_to(&end(WEB), at(from), at(until)).map(|flow| flow.id.number).collect::<Vec<_>>();
        assert_eq!((to(3, 4), to(5, 6), to(4, 3)), (vec![3, 4], vec![], vec![]));
        // The ones kept whole come first.
        let all = |from, until| view.began(at(from), at(until)).map(|flow| flow.id.number).collect::<Vec<_>>();
        assert_eq!((all(2, 5), all(4, 1)), (vec![3, 5, 2, 4], vec![4]));
        assert_eq!(view.known().count(), 5);
    }
}
