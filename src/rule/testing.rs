//! Flows and captures made by hand, for the rules' own tests: says what happened, packet by packet, and asks one rule.
//!
//! A [`Scene`] is one flow told in order of time; a [`World`] is a capture with the flows, services and counters a test puts into it.
//! Times are milliseconds since the flow's start, so that a test reads like the report it expects.

use std::collections::BTreeMap;

use super::digests::Digests;
use super::finding::Finding;
use super::summary::{Digest, FlowSummary, Verdict};
use super::tally::{PacketTally, Tally};
use super::threshold::Thresholds;
use super::view::{CaptureView, FlowView, LegsView, Link};
use super::{Check, Keep, Rule};
use crate::capture::{CaptureInfo, Interface};
use crate::event::story::Story;
use crate::event::{Event, PacketRef, Protocol, ResetKind, Retransmission, Side, What};
use crate::flow::Ended;
use crate::flow::facts::{
    Close, FlowFacts, Half, Handshake, IpProtocol, Resent, Reset, RoleSource, Unacknowledged, Vantage, ZeroWindow,
};
use crate::host::grid::Grid;
use crate::host::icmp::StrayErrors;
use crate::host::names::Names;
use crate::host::neighbor::Neighbors;
use crate::host::service::{Learner, Lesson, Services};
use crate::time::{Elapsed, Timestamp};
use crate::wire::dns::DnsMessage;
use crate::wire::http::{RequestHead, ResponseHead};
use crate::wire::proxy::{Command, Family, ProxyHeader};
use crate::wire::seq::Seq;
use crate::wire::{Address, Endpoint};

/// An end from `10.0.0.1:443` or `[2001:db8::1]:443`.
pub fn end(text: &str) -> Endpoint {
    let socket: std::net::SocketAddr = text.parse().expect("an address and a port");
    Endpoint::new(socket.ip().into(), socket.port())
}

/// A host from its address.
pub fn host(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

/// A DNS question.
pub fn dns_question(id: u16, name: &str, qtype: u16) -> What {
    What::Dns(Box::new(DnsMessage { id, name: name.into(), qtype, ..DnsMessage::default() }))
}

/// The answer to it, with addresses that may be believed for 60 s.
pub fn dns_answer(id: u16, name: &str, qtype: u16, rcode: u16, addresses: &[&str]) -> What {
    let addresses: Vec<_> = addresses.iter().map(|address| (host(address), 60)).collect();
    let answers = addresses.len() as u16;
    let name = name.into();
    What::Dns(Box::new(DnsMessage {
        id,
        response: true,
        rcode,
        name,
        qtype,
        addresses,
        answers,
        ..DnsMessage::default()
    }))
}

/// One flow, told in order of time.
#[derive(Clone)]
pub struct Scene {
    /// What the tracker would have found; a test may set what no method says.
    pub facts: FlowFacts,
    /// What happened.
    pub story: Story,
    /// Why it left the table.
    pub ended: Ended,
    /// When it was judged.
    pub now: Timestamp,
    /// The numbers.
    pub thresholds: Thresholds,
    /// What its own rules are meant to have found.
    pub findings: Vec<Finding>,
    start: i64,
    number: u64,
}

impl Scene {
    /// 10.0.0.1:40000 to 10.0.0.2:443, first packet #1.
    #[expect(clippy::new_without_default, reason = "a test begins a story, it asks for no default")]
    pub fn new() -> Self {
        Self::between("10.0.0.1:40000", "10.0.0.2:443")
    }

    /// From a client to a server, first packet #1 at time 0.
    pub fn between(client: &str, server: &str) -> Self {
        Self::starting(client, server, 1, 0)
    }

    /// From a client to a server; its first packet has `number` and comes `start` ms after the capture's beginning.
    pub fn starting(client: &str, server: &str, number: u64, start: i64) -> Self {
        let id = PacketRef { file: 0, number, time: moment(start) };
        let half = |isn| Half { isn: Some(Seq(isn)), next: Some(Seq(isn)), ttl: (64, 64, 64), ..Half::default() };
        let facts = FlowFacts {
            id,
            transport: IpProtocol::Tcp,
            client: end(client),
            server: end(server),
            role: RoleSource::Handshake,
            handshake: Handshake::None,
            mid_stream: false,
            reuses: None,
            last: id,
            rtt_server: None,
            rtt_client: None,
            vantage: Vantage::Unknown,
            close: Close::Open,
            closer: None,
            duplicates: 0,
            rounds: 0,
            duplicate: None,
            established: None,
            pause: None,
            from_client: half(1000),
            from_server: half(5000),
        };
        Self {
            facts,
            story: Story::default(),
            ended: Ended::CaptureEnd,
            now: id.time,
            thresholds: Thresholds::default(),
            findings: Vec::new(),
            start,
            number,
        }
    }

    /// SYN, SYN+ACK and ACK at 0, 1 and 2 ms.
    pub fn open() -> Self {
        Self::new().handshake()
    }

    /// SYN, SYN+ACK and ACK at 0, 1 and 2 ms.
    pub fn handshake(self) -> Self {
        self.syn(0).syn_ack(1).established(2)
    }

    /// A SYN; the second one and later ones are copies.
    pub fn syn(mut self, ms: i64) -> Self {
        let at = self.packet(Side::Client, ms);
        let half = &mut self.facts.from_client;
        half.syns.push(at);
        half.syn_count += 1;
        half.next = half.isn.map(|isn| isn.plus(1));
        let after = at.time.since(half.syns[0].time);
        let what = if half.syn_count == 1 { What::Syn { fast_open: false } } else { What::SynRetransmitted { after } };
        self.facts.handshake = self.facts.handshake.max(Handshake::Syn);
        self.happen(at, Side::Client, what)
    }

    /// A SYN+ACK; the second one and later ones are copies.
    pub fn syn_ack(mut self, ms: i64) -> Self {
        let at = self.packet(Side::Server, ms);
        let half = &mut self.facts.from_server;
        half.syns.push(at);
        half.syn_count += 1;
        half.next = half.isn.map(|isn| isn.plus(1));
        let after = at.time.since(half.syns[0].time);
        let what = if half.syn_count == 1 { What::SynAck } else { What::SynAckRetransmitted { after } };
        self.facts.rtt_server =
            self.facts.rtt_server.or(self.facts.from_client.syns.last().map(|syn| at.time.since(syn.time)));
        self.facts.handshake = self.facts.handshake.max(Handshake::SynAck);
        self.happen(at, Side::Server, what)
    }

    /// Datagrams, no TCP.
    pub fn udp(mut self) -> Self {
        self.facts.transport = IpProtocol::Udp;
        self.facts.role = RoleSource::Port;
        self
    }

    /// The client's ACK that completes the handshake.
    pub fn established(mut self, ms: i64) -> Self {
        let at = self.packet(Side::Client, ms);
        self.facts.handshake = Handshake::Full;
        self.facts.established = Some(at);
        self.facts.rtt_client = self.facts.from_server.syns.last().map(|syn| at.time.since(syn.time));
        self.happen(at, Side::Client, What::Established)
    }

    /// The capture began after the flow.
    pub fn mid_stream(mut self) -> Self {
        self.facts.mid_stream = true;
        self.facts.role = RoleSource::Port;
        let at = self.facts.id;
        self.happen(at, Side::Client, What::MidStream)
    }

    /// Payload of a side; nobody acknowledged it yet.
    pub fn data(mut self, side: Side, ms: i64, len: u32) -> Self {
        let at = self.packet(side, ms);
        let half = self.half_mut(side);
        let first = half.first_payload.is_none();
        half.payload += u64::from(len);
        half.payload_sent += u64::from(len);
        half.segments += 1;
        half.next = half.next.map(|next| next.plus(len));
        half.first_payload.get_or_insert(at);
        half.last_payload = Some(at);
        half.unacknowledged.get_or_insert(Unacknowledged {
            first: at,
            last: at,
            copies: 1,
            len,
            copy_len: len,
            sacked: 0,
        });
        if first { self.happen(at, side, What::FirstPayload) } else { self }
    }

    /// The peer acknowledges all that `side` sent, FIN included.
    pub fn acked(mut self, side: Side, ms: i64) -> Self {
        let at = self.packet(side.other(), ms);
        let half = self.half_mut(side);
        half.acknowledged = half.payload;
        half.unacknowledged = None;
        let first = half.first_payload.is_some() && half.first_payload_acked.is_none();
        let fin = half.fin.is_some() && half.fin_acked.is_none();
        let next = half.next;
        if first {
            half.first_payload_acked = Some(at);
        }
        if fin {
            half.fin_acked = Some(at);
        }
        self.half_mut(side.other()).acked = next;
        let scene = if first { self.happen(at, side, What::FirstPayloadAcknowledged) } else { self };
        if fin { scene.happen(at, side, What::FinAcknowledged) } else { scene }
    }

    /// The oldest unacknowledged segment of a side is sent again.
    pub fn again(mut self, side: Side, ms: i64) -> Self {
        let at = self.packet(side, ms);
        let half = self.half_mut(side);
        let original = half.unacknowledged.map(|waiting| waiting.first);
        if let Some(waiting) = &mut half.unacknowledged {
            (waiting.last, waiting.copies) = (at, waiting.copies + 1);
            half.payload_sent += u64::from(waiting.len);
        }
        half.loss.timeout += 1;
        half.loss.episodes += 1;
        let gap = original.map_or(Elapsed::ZERO, |first| at.time.since(first.time));
        half.loss.worst.push(Resent { original, copy: at, gap, kind: Retransmission::Timeout });
        self.happen(at, side, What::Retransmitted { kind: Retransmission::Timeout, original })
    }

    /// A FIN; the second one and later ones are copies.
    pub fn fin(mut self, side: Side, ms: i64) -> Self {
        let at = self.packet(side, ms);
        let half = self.half_mut(side);
        half.fin_count += 1;
        if half.fin.is_some() {
            if let Some(waiting) = &mut half.unacknowledged {
                (waiting.last, waiting.copies) = (at, waiting.copies + 1);
            }
            return self;
        }
        half.fin = Some(at);
        half.next = half.next.map(|next| next.plus(1));
        half.unacknowledged.get_or_insert(Unacknowledged {
            first: at,
            last: at,
            copies: 1,
            len: 0,
            copy_len: 0,
            sacked: 0,
        });
        self.facts.closer.get_or_insert((side, at));
        self.facts.close = match self.facts.close {
            Close::Open => Close::HalfClosed(side),
            Close::HalfClosed(other) if other != side => Close::Fin,
            close => close,
        };
        self.happen(at, side, What::Fin)
    }

    /// A RST; `unread` octets of the peer lie beyond its acknowledgment number.
    pub fn rst(mut self, side: Side, ms: i64, kind: ResetKind, unread: u32) -> Self {
        let at = self.packet(side, ms);
        let acked = self.facts.half(side).acked;
        let half = self.half_mut(side);
        let seq = half.next.unwrap_or_default();
        half.reset_count += 1;
        half.resets.push(Reset { at, kind, seq, ack: acked, unread, ttl: 64 });
        self.facts.closer.get_or_insert((side, at));
        if kind != ResetKind::AfterFin && !matches!(self.facts.close, Close::Fin | Close::Reset(..)) {
            self.facts.close = Close::Reset(side, kind);
        }
        self.happen(at, side, What::Reset { kind, unread })
    }

    /// The side closes its window.
    pub fn zero_window(mut self, side: Side, ms: i64) -> Self {
        let at = self.packet(side, ms);
        let half = self.half_mut(side);
        half.zero_window_count += 1;
        half.zero_windows.push(ZeroWindow { from: at, until: None });
        self.happen(at, side, What::ZeroWindow)
    }

    /// Anything else, in a packet of its own.
    pub fn event(mut self, side: Side, ms: i64, what: What) -> Self {
        let at = self.packet(side, ms);
        self.happen(at, side, what)
    }

    /// Anything else, in the packet told last.
    pub fn also(self, side: Side, what: What) -> Self {
        let at = self.facts.last;
        self.happen(at, side, what)
    }

    /// The side's octets are recognised, in the packet told last.
    pub fn speaks(self, side: Side, protocol: Protocol) -> Self {
        self.also(side, What::Recognised { protocol })
    }

    /// A whole request of `len` octets.
    pub fn request(self, ms: i64, method: &str, target: &str, len: u32) -> Self {
        let head = RequestHead { method: method.into(), target: target.into(), minor: 1, len, ..Default::default() };
        self.data(Side::Client, ms, len)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(head)))
            .also(Side::Client, What::RequestEnd)
    }

    /// A response head of `len` octets; say `also(ResponseEnd)` when it is complete.
    pub fn response(self, ms: i64, status: u16, len: u32) -> Self {
        let head = ResponseHead { status, minor: 1, len, ..Default::default() };
        self.data(Side::Server, ms, len)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
    }

    /// The capture ends at that time and the flow is judged.
    pub fn capture_ends(mut self, ms: i64) -> Self {
        self.ended = Ended::CaptureEnd;
        self.now = moment(self.start + ms);
        self
    }

    /// The flow left the table after its close, at that time.
    pub fn gone(mut self, ms: i64) -> Self {
        self.ended = Ended::Closed;
        self.now = moment(self.start + ms);
        self
    }

    /// Seen through rules' eyes.
    pub fn view(&self) -> FlowView<'_> {
        FlowView::new(&self.facts, &self.story, self.now, self.ended, &self.thresholds)
    }

    /// What a flow rule says about it, `needs` included.
    pub fn check(&self, rule: &Rule) -> Option<Finding> {
        match rule.check {
            Check::Flow(check) if rule.needs.met(self.story.seen()) => check(&self.view()),
            _ => None,
        }
    }

    /// As the engine keeps it.
    pub fn summary(&self) -> FlowSummary {
        let digest = Digest::of(&self.facts, &self.story, Verdict::Healthy);
        FlowSummary {
            facts: Box::new(self.facts.clone()),
            story: self.story.clone(),
            findings: self.findings.clone(),
            digest,
        }
    }

    fn packet(&mut self, side: Side, ms: i64) -> PacketRef {
        let at = PacketRef { file: 0, number: self.number, time: moment(self.start + ms) };
        self.number += 1;
        self.facts.last = at;
        self.now = self.now.max(at.time);
        let half = self.half_mut(side);
        half.packets += 1;
        half.first.get_or_insert(at);
        half.last = Some(at);
        at
    }

    fn happen(mut self, at: PacketRef, side: Side, what: What) -> Self {
        self.story.push(Event { at, side, what });
        self
    }

    fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.facts.from_client,
            Side::Server => &mut self.facts.from_server,
        }
    }
}

/// A PROXY header of `len` octets without extensions for a client that came to `destination`.
pub fn proxy_header(version: u8, destination: &str, len: u32) -> ProxyHeader {
    ProxyHeader {
        version,
        command: Command::Proxy,
        family: Family::Tcp4,
        source: Some(end("203.0.113.7:53002")),
        destination: Some(end(destination)),
        tlvs: Vec::new(),
        checksum_fits: None,
        len,
    }
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::default() + Elapsed::millis(ms)
}

/// A whole capture.
pub struct World {
    /// Inputs; one pcap file with one Ethernet interface unless a test says otherwise.
    pub infos: Vec<CaptureInfo>,
    /// Flows kept whole.
    pub flows: BTreeMap<PacketRef, FlowSummary>,
    /// Digests of others.
    pub digests: Digests,
    /// What servers speak.
    pub services: Services,
    /// What ARP told.
    pub neighbors: Neighbors,
    /// What the DNS told.
    pub names: Names,
    /// ICMP errors about unseen flows.
    pub icmp: StrayErrors,
    /// Seconds and silences.
    pub grid: Grid,
    /// What the host had open.
    pub sockets: Option<crate::host::sockets::Sockets>,
    /// Counters of flows.
    pub tally: Tally,
    /// Counters of packets.
    pub packets: PacketTally,
    /// Links between legs.
    pub links: Vec<Link>,
    /// The upstreams that the user expects.
    pub expected: Vec<Endpoint>,
    /// The numbers.
    pub thresholds: Thresholds,
    /// What the user asked for.
    pub asked: String,
    /// Latest packet time.
    pub end: Timestamp,
}

impl World {
    /// A sound pcap file without flows.
    #[expect(clippy::new_without_default, reason = "a test begins a story, it asks for no default")]
    pub fn new() -> Self {
        let interface = Interface { snaplen: 262_144, ..Interface::default() };
        let info = CaptureInfo {
            file: "test.pcap".into(),
            format: "pcap".into(),
            interfaces: vec![interface],
            ..CaptureInfo::default()
        };
        Self {
            infos: vec![info],
            flows: BTreeMap::new(),
            digests: Digests::default(),
            services: Services::default(),
            neighbors: Neighbors::default(),
            names: Names::default(),
            icmp: StrayErrors::default(),
            grid: Grid::default(),
            sockets: None,
            tally: Tally::default(),
            packets: PacketTally::default(),
            links: Vec::new(),
            expected: Vec::new(),
            thresholds: Thresholds::default(),
            asked: String::new(),
            end: Timestamp::default(),
        }
    }

    /// With a flow that is kept whole and has failed.
    pub fn with(self, scene: &Scene) -> Self {
        self.learn(scene, false)
    }

    /// With a flow that worked: only its digest is kept.
    pub fn with_good(self, scene: &Scene) -> Self {
        self.learn(scene, true)
    }

    fn learn(mut self, scene: &Scene, good: bool) -> Self {
        let mut summary = scene.summary();
        summary.digest.verdict = if good { Verdict::Healthy } else { Verdict::Failed };
        let facts = &scene.facts;
        let mut learner = Learner::default();
        learner.learn(&Lesson {
            client: facts.client,
            server: facts.server,
            flow: facts.id,
            accepted: !facts.from_server.syns.is_empty(),
            good,
            protocol: if good { summary.digest.protocol } else { None },
            behind_proxy: summary.digest.behind_proxy(),
            answer: facts.from_server.first_payload,
            empty: facts.from_client.payload + facts.from_server.payload == 0
                && facts.closer.is_some_and(|(side, _)| side == Side::Client),
            last: facts.last.time,
        });
        self.services.merge(learner.finish());
        self.tally.flows += 1;
        self.tally.tcp_flows += 1;
        self.packets.first = self.packets.first.min(Some(facts.id)).or(Some(facts.id));
        self.packets.last = self.packets.last.max(Some(facts.last));
        self.end = self.end.max(scene.now);
        if good {
            self.digests.merge(Digests::of(vec![summary.digest]));
        } else {
            self.flows.insert(facts.id, summary);
        }
        self
    }

    /// Seen through rules' eyes.
    pub fn view(&self) -> CaptureView<'_> {
        CaptureView {
            infos: &self.infos,
            flows: &self.flows,
            digests: &self.digests,
            services: &self.services,
            neighbors: &self.neighbors,
            names: &self.names,
            icmp: &self.icmp,
            grid: &self.grid,
            sockets: self.sockets.as_ref(),
            tally: &self.tally,
            packets: &self.packets,
            links: &self.links,
            open_links: &[],
            expected: &self.expected,
            links_by_flow: super::view::index_links(&self.links),
            thresholds: &self.thresholds,
            asked: &self.asked,
            end: self.end,
            index: super::view::Index::of(&self.flows, &self.digests),
        }
    }

    /// What a capture rule says about it.
    pub fn check(&self, rule: &Rule) -> Vec<Finding> {
        match rule.check {
            Check::Capture(check) => check(&self.view()),
            _ => Vec::new(),
        }
    }

    /// What a rule of two legs says about a link.
    pub fn check_legs(&self, rule: &Rule, link: &Link) -> Option<Finding> {
        let Check::Legs(check) = rule.check else { return None };
        let view = self.view();
        let leg = |id: &PacketRef| view.flows.get(id);
        check(&LegsView {
            link,
            client_leg: leg(&link.client_leg),
            backend_leg: leg(&link.backend_leg),
            capture: &view,
        })
    }

    /// The finding after a second look with the whole capture in view; `None` when it was dropped.
    pub fn corroborated(&self, rule: &Rule, mut finding: Finding) -> Option<Finding> {
        match rule.corroborate.map(|look| look(&mut finding, &self.view())) {
            Some(Keep::Drop) => None,
            Some(Keep::Yes) | None => Some(finding),
        }
    }
}
