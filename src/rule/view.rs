//! The questions a rule may ask of a flow, of two linked legs, and of the whole capture.

mod index;

use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::digests::Digests;
use super::exchange::{Exchange, Pending};
use super::finding::{Confidence, Finding};
use super::mismatch::Refusal;
use super::pool::{self, Pool};
use super::summary::{Digest, FlowSummary, protocol_of};
use super::tally::{PacketTally, Tally};
use super::threshold::Thresholds;
use super::trust::Refused;
use crate::capture::CaptureInfo;
use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Protocol, Side, What};
use crate::flow::Ended;
use crate::flow::facts::{Close, FlowFacts, Half};
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
pub use index::{Index, Known};
pub(crate) use index::{in_turn, short};

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

impl OpenLink {
    /// Whether they fit by what they ask, so that one of them it is.
    pub fn alike(&self) -> bool {
        self.method <= LinkMethod::RequestLine
    }
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
    /// The best method by which they fit.
    pub method: LinkMethod,
    /// Client legs that fit it, or one of its requests, in order.
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
    pub digests: &'a Digests,
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
    /// Backend legs that several client legs fit equally well, in order.
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

    /// The client legs that fit a backend leg equally well, where there are several.
    pub fn open_link(&self, backend_leg: PacketRef) -> Option<&OpenLink> {
        let place = self.open_links.binary_search_by_key(&backend_leg, |open| open.backend_leg);
        place.ok().and_then(|place| self.open_links.get(place))
    }

    /// Hosts whose few connections to a server are all busy, while requests wait in them.
    pub fn pools(&self) -> &[Pool] {
        self.index.pools.get_or_init(|| pool::find(self))
    }

    /// Short facts of at most twice `n` flows that began before `flow`, kept whole or not: the latest of each kind first.
    pub fn latest_before(&self, flow: PacketRef, n: usize) -> impl Iterator<Item = &Digest> {
        let kept = self.flows.range(..flow).rev().take(n).map(|(_, flow)| &flow.digest);
        kept.chain(self.digests.before(flow).iter().rev().take(n))
    }

    /// Short facts of a flow, kept whole or not.
    pub fn digest_of(&self, flow: PacketRef) -> Option<&Digest> {
        self.flows.get(&flow).map(|flow| &flow.digest).or_else(|| self.digests.get(flow))
    }
}
