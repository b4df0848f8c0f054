//! The questions a rule may ask of a flow, of two linked legs, and of the whole capture.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::ops::Range;

use super::exchange::{Exchange, Pending};
use super::finding::{Confidence, Finding};
use super::mismatch::Refusal;
use super::summary::{Digest, FlowSummary, protocol_of};
use super::tally::{PacketTally, Tally};
use super::threshold::Thresholds;
use super::trust::Refused;
use crate::capture::CaptureInfo;
use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Protocol, Side, What};
use crate::flow::Ended;
use crate::flow::facts::{Close, FlowFacts, Half, IpProtocol};
use crate::host::grid::Grid;
use crate::host::icmp::StrayErrors;
use crate::host::names::Names;
use crate::host::neighbor::Neighbors;
use crate::host::service::{Service, Services};
use crate::host::sockets::Sockets;
use crate::time::{Elapsed, Timestamp};
use crate::wire::proxy::ProxyHeader;
use crate::wire::tls::ClientHello;
use crate::wire::{Address, Endpoint};

/// One flow, as its own rules see it.
pub struct FlowView<'a> {
    /// TCP or UDP truth.
    pub facts: &'a FlowFacts,
    /// What happened.
    pub story: &'a Story,
    /// Capture time of the judgement: the capture's end, or when the flow left the table.
    pub now: Timestamp,
    /// Why it left the table.
    pub ended: Ended,
    /// The numbers.
    pub thresholds: &'a Thresholds,
    /// The latest exchange, once a rule asked for it.
    pub(super) latest: OnceCell<Option<Exchange<'a>>>,
    /// What the client still waits for, once a rule asked for it.
    pub(super) waits: OnceCell<Option<Pending>>,
    /// How the server refused the first octets, once a rule asked for it.
    pub(super) turned_away: OnceCell<Option<Refusal<'a>>>,
    /// How the client refused the server's certificate, once a rule asked for it.
    pub(super) refused: OnceCell<Option<Refused<'a>>>,
}

impl<'a> FlowView<'a> {
    /// As it stands at `now`.
    pub fn new(
        facts: &'a FlowFacts,
        story: &'a Story,
        now: Timestamp,
        ended: Ended,
        thresholds: &'a Thresholds,
    ) -> Self {
        Self {
            facts,
            story,
            now,
            ended,
            thresholds,
            latest: OnceCell::new(),
            waits: OnceCell::new(),
            turned_away: OnceCell::new(),
            refused: OnceCell::new(),
        }
    }

    /// Client's direction.
    pub fn client(&self) -> &'a Half {
        &self.facts.from_client
    }

    /// Server's direction.
    pub fn server(&self) -> &'a Half {
        &self.facts.from_server
    }

    /// Whether a kind was ever seen.
    pub fn saw(&self, kind: Kind) -> bool {
        self.story.seen().has(kind)
    }

    /// First event of a kind by a side.
    pub fn first(&self, kind: Kind, side: Side) -> Option<&'a Event> {
        self.story.first(kind, side)
    }

    /// What a side's octets were recognised as, PROXY headers looked through.
    pub fn protocol(&self, side: Side) -> Option<Protocol> {
        protocol_of(self.story, side)
    }

    /// The client's PROXY header and its (last) packet.
    pub fn proxy_header(&self) -> Option<(PacketRef, &'a ProxyHeader)> {
        self.story.find(Kind::ProxyHeader, |e| match &e.what {
            What::ProxyHeader(header) => Some((e.at, header.as_ref())),
            _ => None,
        })
    }

    /// The first ClientHello and its packet.
    pub fn client_hello(&self) -> Option<(PacketRef, &'a ClientHello)> {
        self.story.find(Kind::ClientHello, |e| match &e.what {
            What::ClientHello(hello) => Some((e.at, hello.as_ref())),
            _ => None,
        })
    }

    /// First packet with payload of the server.
    pub fn answer(&self) -> Option<PacketRef> {
        self.server().first_payload
    }

    /// How long the server (or the path) has kept silent since `at`, up to the judgement or the flow's close.
    pub fn waited_since(&self, at: PacketRef) -> Elapsed {
        let until = match self.facts.closer {
            Some((_, close)) => close.time,
            None => self.now,
        };
        until.since(at.time)
    }

    /// The side's first FIN or RST that is no aftermath of its own FIN, whichever came first.
    pub fn close_of(&self, side: Side) -> Option<PacketRef> {
        let fin = self.facts.half(side).fin;
        let reset = self.facts.reset(side).map(|r| r.at);
        match (fin, reset) {
            (Some(fin), Some(reset)) => Some(fin.min(reset)),
            (fin, reset) => fin.or(reset),
        }
    }

    /// Whether `side` was the first to close.
    pub fn closed_first(&self, side: Side) -> bool {
        self.facts.closer.is_some_and(|(closer, _)| closer == side)
    }

    /// `FIN` or `RST`, whichever the side closed with first.
    pub fn close_word(&self, side: Side) -> &'static str {
        let half = self.facts.half(side);
        match (half.fin, self.facts.reset(side)) {
            (Some(fin), Some(reset)) if reset.at < fin => "RST",
            (Some(_), _) => "FIN",
            (None, Some(_)) => "RST",
            (None, None) => "nothing",
        }
    }

    /// The flow was still open when the capture ended.
    pub fn open_at_end(&self) -> bool {
        self.ended == Ended::CaptureEnd && matches!(self.facts.close, Close::Open | Close::HalfClosed(_))
    }

    /// Smallest known round trip between both ends; `None` when nothing told it.
    pub fn round_trip(&self) -> Option<Elapsed> {
        match (self.facts.rtt_server, self.facts.rtt_client) {
            (Some(server), Some(client)) => Some(server + client),
            (one, other) => one.or(other),
        }
    }
}

/// How sure a link between two legs is, and why.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LinkMethod {
    /// The same ClientHello (random) on both.
    ClientHelloRandom,
    /// The backend leg's PROXY header names the client leg's client.
    ProxyHeader,
    /// The client's first octets, a leading PROXY header left out, are the same on both.
    PayloadPrefix,
    /// The same request id on both.
    RequestId,
    /// X-Forwarded-For, Forwarded or X-Real-IP of the backend leg names the client leg's client.
    ForwardedFor,
    /// The same request line and Host, in time.
    RequestLine,
    /// The same answer on both, at nearly the same time.
    SameAnswer,
    /// As many octets in the TLS records of the client leg as in the answer of the backend leg, at nearly the same time.
    AnswerSize,
    /// The proxy opened one while the other waited, and passed its close on.
    Timing,
    /// The SNI of the client leg is the Host of the backend leg.
    ServerName,
    /// A request made the server ask another one, and waited for it.
    FanOut,
}

impl LinkMethod {
    /// Words for it.
    pub fn says(self) -> &'static str {
        match self {
            Self::ClientHelloRandom => "ClientHello random",
            Self::ProxyHeader => "addresses in the PROXY header",
            Self::PayloadPrefix => "the client's first octets",
            Self::RequestId => "request id",
            Self::ForwardedFor => "the forwarded client address",
            Self::RequestLine => "request line, Host and time",
            Self::SameAnswer => "the same answer",
            Self::AnswerSize => "the size of the answer",
            Self::Timing => "timing",
            Self::ServerName => "SNI equal to Host",
            Self::FanOut => "fan-out",
        }
    }
}

/// Two legs of one connection.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Link {
    /// Flow number of the client leg.
    pub client_leg: PacketRef,
    /// Flow number of the backend leg.
    pub backend_leg: PacketRef,
    /// Every method that joins them, best first.
    pub methods: Vec<LinkMethod>,
    /// Of the best method.
    pub certainty: Confidence,
    /// Which exchanges are joined, where HTTP keep-alive puts many on one flow (at most [`Link::EXCHANGES`]); empty: the flows as wholes.
    pub exchanges: Vec<ExchangePair>,
}

/// One request on both legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ExchangePair {
    /// Which request of the client leg, from 1.
    pub client: u32,
    /// Which request of the backend leg, from 1; 0 for a leg that never carried it (its connection failed).
    pub backend: u32,
    /// When the client leg's request came.
    pub from: Timestamp,
    /// When its answer ended; `Timestamp::MAX` while open.
    pub until: Timestamp,
}

impl Link {
    /// Exchanges remembered of one pair of flows.
    pub const EXCHANGES: usize = 64;

    /// Two flows that are legs as wholes.
    pub fn whole(client_leg: PacketRef, backend_leg: PacketRef, method: LinkMethod, certainty: Confidence) -> Self {
        Self { client_leg, backend_leg, methods: vec![method], certainty, exchanges: Vec::new() }
    }

    /// Whether something of one leg and something of the other, each from its first to its last packet, belong to one joined exchange.
    pub fn joins(&self, one: (Timestamp, Timestamp), other: (Timestamp, Timestamp)) -> bool {
        let within = |pair: &ExchangePair, (from, to): (Timestamp, Timestamp)| from <= pair.until && to >= pair.from;
        self.exchanges.is_empty() || self.exchanges.iter().any(|pair| within(pair, one) && within(pair, other))
    }
}

/// A leg for which several others fit equally well, so that none is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenLink {
    /// The backend leg.
    pub backend_leg: PacketRef,
    /// Client legs that fit it, at most 8.
    pub candidates: Vec<PacketRef>,
}

/// Which links a flow takes part in, by places in the list.
pub fn index_links(links: &[Link]) -> BTreeMap<PacketRef, Vec<usize>> {
    let mut index: BTreeMap<PacketRef, Vec<usize>> = BTreeMap::new();
    for (place, link) in links.iter().enumerate() {
        for leg in [link.client_leg, link.backend_leg] {
            index.entry(leg).or_default().push(place);
        }
    }
    index
}

/// Two linked legs, as legs rules see them.
#[derive(Clone, Copy)]
pub struct LegsView<'a> {
    /// The link.
    pub link: &'a Link,
    /// Client leg, when it was kept whole.
    pub client_leg: Option<&'a FlowSummary>,
    /// Backend leg, when it was kept whole.
    pub backend_leg: Option<&'a FlowSummary>,
    /// The rest.
    pub capture: &'a CaptureView<'a>,
}

/// The whole capture: what was merged from all shards.
pub struct CaptureView<'a> {
    /// Inputs.
    pub infos: &'a [CaptureInfo],
    /// The flows kept whole, by number.
    pub flows: &'a BTreeMap<PacketRef, FlowSummary>,
    /// Digests of the other flows still inside the window.
    pub digests: &'a BTreeMap<PacketRef, Digest>,
    /// What servers speak.
    pub services: &'a Services,
    /// What ARP and neighbour discovery told.
    pub neighbors: &'a Neighbors,
    /// What the DNS told.
    pub names: &'a Names,
    /// ICMP errors about flows that are not in the capture.
    pub icmp: &'a StrayErrors,
    /// The capture on a grid of seconds, and who was not heard when.
    pub grid: &'a Grid,
    /// What the capturing host had open, where a snapshot tells.
    pub sockets: Option<&'a Sockets>,
    /// Counters of flows.
    pub tally: &'a Tally,
    /// Counters of packets.
    pub packets: &'a PacketTally,
    /// Links between legs.
    pub links: &'a [Link],
    /// Backend legs that several client legs fit equally well.
    pub open_links: &'a [OpenLink],
    /// The upstreams that the user expects (`--expect-upstream`).
    pub expected: &'a [Endpoint],
    /// Places in `links` by flow ([`index_links`]).
    pub links_by_flow: BTreeMap<PacketRef, Vec<usize>>,
    /// The numbers.
    pub thresholds: &'a Thresholds,
    /// What the user asked for (`--filter …`), empty when everything.
    pub asked: &'a str,
    /// Latest packet time.
    pub end: Timestamp,
    /// What was looked up before.
    pub index: Index<'a>,
}

/// A flow that is still known: its short facts, and all of it where it was kept whole.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The short facts.
    pub digest: &'a Digest,
    /// The rest.
    pub whole: Option<&'a FlowSummary>,
}

/// The flows on which a rule found something, in the order of their first packets, and their servers in order.
#[derive(Default)]
struct Found<'a> {
    flows: Vec<&'a FlowSummary>,
    servers: Vec<Address>,
}

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
    pairs: Vec<Range<usize>>,
    dns_answers_alone: usize,
}

impl<'a> Index<'a> {
    /// Of all flows that are still known.
    pub fn of(flows: &'a BTreeMap<PacketRef, FlowSummary>, digests: &'a BTreeMap<PacketRef, Digest>) -> Self {
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
        let whole = flows.values().map(|flow| Known { digest: &flow.digest, whole: Some(flow) });
        let mut all: Vec<Known<'a>> = Vec::with_capacity(flows.len() + digests.len());
        all.extend(whole.chain(digests.values().map(|digest| Known { digest, whole: None })));
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
        index.pairs = parts(&by_pair, |place| (clients.of[place], servers.of[place])).map(|(_, part)| part).collect();
        index
    }

    /// The client of a pair.
    fn client(&self, pair: &Range<usize>) -> Address {
        self.by_pair[pair.start].digest.client().address
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
    list.get(first..behind).unwrap_or(&[]).iter().copied()
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
        self.index.by_server.iter().copied()
    }

    /// Every server end of the flows that are still known, and the flows to it in the order of their first packets.
    pub fn servers(&self) -> impl Iterator<Item = (&Endpoint, &[&Digest])> {
        self.index.servers.iter().map(|(server, part)| (server, &self.index.by_server[part.clone()]))
    }

    /// Every host that opened flows to a server end, by host and server, and these flows in the order of their first packets.
    pub fn pairs(&self) -> impl Iterator<Item = (Address, Endpoint, &[Known<'_>])> {
        self.index.pairs.iter().map(|pair| {
            let flows = &self.index.by_pair[pair.clone()];
            (self.index.client(pair), flows[0].digest.server(), flows)
        })
    }

    /// Every host that opened flows, and its flows by server end.
    pub fn sources(&self) -> impl Iterator<Item = (Address, &[Known<'_>])> {
        let index = &self.index;
        let same = index.pairs.chunk_by(|one, other| index.client(one) == index.client(other));
        same.map(|pairs| (index.client(&pairs[0]), &index.by_pair[pairs[0].start..pairs[pairs.len() - 1].end]))
    }

    /// Whether a host opened any of the flows that are still known.
    pub fn opens(&self, host: Address) -> bool {
        self.index.pairs.binary_search_by_key(&host, |pair| self.index.client(pair)).is_ok()
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
}

impl CaptureView<'_> {
    /// The flow a finding is about, when it was kept whole.
    pub fn flow_of(&self, finding: &Finding) -> Option<&FlowSummary> {
        self.flows.get(&finding.subject.flow()?)
    }

    /// A packet as notes name it: `#14`; with the file's index when there are several: `1#14`.
    pub fn cite(&self, at: PacketRef) -> String {
        format!("{}#{}", self.file_of(at), at.number)
    }

    /// A flow as notes name it, by its first packet: `flow 14`, or `flow 1#14`.
    pub fn cite_flow(&self, first: PacketRef) -> String {
        match self.file_of(first).as_str() {
            "" => format!("flow {}", first.number),
            file => format!("flow {file}#{}", first.number),
        }
    }

    fn file_of(&self, at: PacketRef) -> String {
        if self.infos.len() > 1 { (at.file + 1).to_string() } else { String::new() }
    }

    /// Answers of DNS servers whose question is not in the capture, without those to what was asked just before it began.
    pub fn dns_answers_alone(&self) -> usize {
        self.index.dns_answers_alone
    }

    /// How much time the capture's clock invented or hid at most: a step back, or what the hosts' own clocks deny on three connections.
    pub fn clock_error(&self) -> Elapsed {
        let skewed = self.tally.clock_skew_first.filter(|_| self.tally.clock_skewed >= Tally::CLOCK_FLOWS);
        let denied =
            skewed.map_or(Elapsed::ZERO, |(first, last, told)| Elapsed((last.time.since(first.time).0 - told.0).abs()));
        self.packets.clock_step_max.abs().max(denied)
    }

    /// What is known of a server ip:port.
    pub fn service(&self, end: &Endpoint) -> Option<&Service> {
        self.services.get(end)
    }

    /// Other ports of the same host that worked.
    pub fn good_ports(&self, host: Address, except: u16) -> impl Iterator<Item = (&Endpoint, &Service)> {
        self.services.of_host(host).filter(move |(end, service)| end.port != except && service.good > 0)
    }

    /// Links in which a flow takes part.
    pub fn links_of(&self, flow: PacketRef) -> impl Iterator<Item = &Link> {
        let places = self.links_by_flow.get(&flow).map(Vec::as_slice).unwrap_or(&[]);
        places.iter().filter_map(|place| self.links.get(*place))
    }

    /// Short facts of every flow, kept whole or not, that began within `from..=to`.
    pub fn began(&self, from: Timestamp, to: Timestamp) -> impl Iterator<Item = &Digest> {
        let [kept, others] = &self.index.by_time;
        // A time that ends before it begins is the moment at which it begins.
        let to = to.max(from);
        began(kept, from, to).chain(began(others, from, to))
    }

    /// Short facts of at most twice `n` flows that began before `flow`, kept whole or not: the latest of each kind first.
    pub fn latest_before(&self, flow: PacketRef, n: usize) -> impl Iterator<Item = &Digest> {
        let kept = self.flows.range(..flow).rev().take(n).map(|(_, flow)| &flow.digest);
        kept.chain(self.digests.range(..flow).rev().take(n).map(|(_, digest)| digest))
    }

    /// Short facts of a flow, kept whole or not.
    pub fn digest_of(&self, flow: PacketRef) -> Option<&Digest> {
        self.flows.get(&flow).map(|flow| &flow.digest).or_else(|| self.digests.get(&flow))
    }
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
