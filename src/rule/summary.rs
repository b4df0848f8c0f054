//! What is kept of a closed flow: everything while it may matter, a digest for a while, then only counters.

use std::slice;

use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

use super::finding::Finding;
use crate::decode::fold;
use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::{Close, FlowFacts, Handshake, IpProtocol};
use crate::time::Timestamp;
use crate::wire::fnv::{Fnv, fnv};
use crate::wire::http::{RequestHead, request_ids};
use crate::wire::tls::{Certificate, ClientHello};
use crate::wire::{Address, Endpoint};

/// Judgement on one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Notice, silent finding or none.
    Healthy,
    /// One-sidedness, a mid-stream start or the capture's end forbade a judgement.
    Undecided,
    /// It has a warning.
    Degraded,
    /// It has a critical finding.
    Failed,
}

/// A flow that is kept whole because something was found on it, or because it may be the other leg of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowSummary {
    /// TCP or UDP truth; boxed, because it is large and changes hands often.
    pub facts: Box<FlowFacts>,
    /// What happened on it.
    pub story: Story,
    /// What its own rules found.
    pub findings: Vec<Finding>,
    /// Link keys and the short facts.
    pub digest: Digest,
}

impl FlowSummary {
    /// Sends for what is read of it when it is given back.
    pub(crate) fn approach(&self) {
        let FlowFacts { from_client, from_server, .. } = &*self.facts;
        prefetch_index(slice::from_ref(&*self.facts), 0);
        for half in [from_client, from_server] {
            prefetch_index(slice::from_ref(&half.syns), 0);
            prefetch_index(slice::from_ref(&half.faces), 0);
            prefetch_index(slice::from_ref(&half.trouble), 0);
        }
        self.story.approach();
    }
}

/// What stays of every closed flow for the window W: enough to link it, count it and tell how it went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Digest {
    /// First packet.
    pub id: PacketRef,
    client: PackedEnd,
    server: PackedEnd,
    /// Its latest packet's time.
    pub last: Timestamp,
    /// Hash of the first ClientHello's random; 0 = none.
    pub hello: u64,
    /// Hash of the client's first 64 to 256 octets, a leading PROXY header left out ([`PREFIX`]); 0 = fewer, or not all are known.
    pub prefix: u64,
    /// Hash of the name in the ClientHello, lower case; 0 = none.
    pub name: u32,
    /// Hash of the server's certificate, where it is readable (TLS 1.2); 0 = not.
    pub leaf: u32,
    /// Hash of what tells its first HTTP/1 request from others ([`id_key`], else [`line_key`]); 0 = none.
    pub request: u32,
    /// Hash of what the ClientHello offers, its name left out ([`offer_key`]); 0 = none.
    pub offer: u32,
    /// Hash of both initial sequence numbers, the same at any place of capture; 0 = SYN or SYN+ACK is not in the capture.
    pub numbers: u32,
    /// Verdict by its own findings.
    pub verdict: Verdict,
    /// The protocol both sides agreed on, or what the client spoke.
    pub protocol: Option<Protocol>,
    /// TCP or UDP.
    pub transport: IpProtocol,
    /// The server completed the handshake: its SYN+ACK is in the capture.
    pub accepted: bool,
    /// The client completed the handshake, or sent payload.
    pub completed: bool,
    /// The server answered with payload.
    pub answered: bool,
    /// It did what it was opened for: an answer came, and on TLS the client went on to send data after the handshake.
    pub served: bool,
    /// [`BEHIND_PROXY`], [`LONE`].
    marks: u8,
}

const BEHIND_PROXY: u8 = 1;
const LONE: u8 = 2;

// A million closed flows a minute are nothing unusual: what stays of each must stay small.
const _: () = assert!(std::mem::size_of::<Digest>() <= 112);

/// An end of a flow without the padding an aligned address brings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PackedEnd {
    address: [u8; 16],
    port: u16,
}

impl PackedEnd {
    /// Packs it.
    pub(crate) fn of(end: Endpoint) -> Self {
        Self { address: end.address.0.to_be_bytes(), port: end.port }
    }

    /// The end it is.
    pub(crate) fn end(self) -> Endpoint {
        Endpoint::new(Address(u128::from_be_bytes(self.address)), self.port)
    }
}

/// How many of the client's first octets [`Digest::prefix`] stands for, and how many it takes at least: shorter ones are too common.
pub const PREFIX: std::ops::RangeInclusive<u16> = 64..=256;

/// Hash of octets that come in pieces, eight at a time; where the pieces end does not matter. It links, it does not protect.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Mill {
    hash: u64,
    /// Octets that do not fill a word yet.
    word: u64,
    len: u64,
}

impl Mill {
    /// The next octets.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !self.len.is_multiple_of(8)
            && let Some((octet, rest)) = bytes.split_first()
        {
            self.octet(*octet);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.turn(u64::from_le_bytes(*word));
        }
        self.len += 8 * words.len() as u64;
        rest.iter().for_each(|octet| self.octet(*octet));
    }

    /// Octets so far.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Never 0.
    pub(crate) fn key(mut self) -> u64 {
        self.turn(self.word);
        self.turn(self.len);
        self.hash | 1
    }

    fn octet(&mut self, octet: u8) {
        self.word = self.word >> 8 | u64::from(octet) << 56;
        self.len += 1;
        if self.len.is_multiple_of(8) {
            self.turn(self.word);
            self.word = 0;
        }
    }

    fn turn(&mut self, word: u64) {
        // Digits of π after the point: constants nobody chose.
        self.hash = fold(self.hash ^ word ^ 0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344).rotate_left(29) ^ word;
    }
}

/// Hash of a ClientHello's random for [`Digest::hello`]; never 0.
pub fn hello_key(random: &[u8; 32]) -> u64 {
    milled(random)
}

fn milled(octets: &[u8]) -> u64 {
    let mut mill = Mill::default();
    mill.push(octets);
    mill.key()
}

/// Hash of a server name for [`Digest::name`]; 0 where no name was sent.
pub fn name_key(name: Option<&str>) -> u32 {
    name.map_or(0, |name| folded(fnv(name.trim_end_matches('.').bytes().map(|octet| octet.to_ascii_lowercase()))))
}

/// Hash of what a ClientHello offers, for [`Digest::offer`]: versions, suites and application protocols. Extensions come in any order.
pub fn offer_key(hello: &ClientHello) -> u32 {
    let mut hash = Fnv::default();
    for numbers in [&hello.versions, &hello.ciphers] {
        numbers.iter().for_each(|number| hash.push(&number.to_be_bytes()));
    }
    for name in &hello.alpn {
        hash.push(name.as_bytes());
        hash.octet(0);
    }
    folded(hash.key())
}

/// Hash of a certificate for [`Digest::leaf`]: issuer and serial number are what tells certificates apart (RFC 5280 §4.1.2.2).
pub fn leaf_key(leaf: &Certificate) -> u32 {
    folded(fnv(leaf.issuer.bytes().chain([0]).chain(leaf.serial.bytes())))
}

/// Hash of a request id for [`Digest::request`]: odd.
pub fn id_key(id: &str) -> u32 {
    folded(milled(id.as_bytes())) | 1
}

/// Hash of request line and Host for [`Digest::request`]: even.
pub fn line_key(head: &RequestHead) -> u32 {
    let mut hash = Fnv::default();
    for word in [&head.method, &head.target] {
        hash.push(word.as_bytes());
        hash.octet(b' ');
    }
    head.host.as_deref().unwrap_or("").bytes().for_each(|octet| hash.octet(octet.to_ascii_lowercase()));
    (folded(hash.key()) & !1).max(2)
}

/// Of a flow's first request: its id, else one that its answer carries, else its line.
fn request_key(story: &Story) -> u32 {
    let head = story.find(Kind::Request, |event| match &event.what {
        What::Request(head) => Some(head.as_ref()),
        _ => None,
    });
    let Some(head) = head else { return 0 };
    let answered = || {
        let answer = story.find(Kind::Response, |event| match &event.what {
            What::Response(head) if head.status >= 200 => Some(head.as_ref()),
            _ => None,
        });
        answer.and_then(|head| request_ids(&head.ids).next())
    };
    let id = request_ids(&head.ids).next().or_else(answered);
    id.map_or_else(|| line_key(head), id_key)
}

fn numbers_key(facts: &FlowFacts) -> u32 {
    let (client, server) = (&facts.from_client, &facts.from_server);
    match (client.isn, server.isn) {
        (Some(one), Some(other)) if client.syn_count > 0 && server.syn_count > 0 => {
            folded(fnv(one.0.to_be_bytes().into_iter().chain(other.0.to_be_bytes())))
        }
        _ => 0,
    }
}

fn folded(hash: u64) -> u32 {
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

impl Digest {
    /// Client end.
    pub fn client(&self) -> Endpoint {
        self.client.end()
    }

    /// Server end.
    pub fn server(&self) -> Endpoint {
        self.server.end()
    }

    /// A PROXY header came first.
    pub fn behind_proxy(&self) -> bool {
        self.marks & BEHIND_PROXY != 0
    }

    /// It carried one HTTP/1 request, or a TLS handshake that resumes no session; of others nobody counts what they carried.
    pub fn lone(&self) -> bool {
        self.marks & LONE != 0
    }

    /// With the hash of the client's first octets.
    pub fn with_prefix(self, prefix: u64) -> Self {
        Self { prefix, ..self }
    }

    /// The digest of a flow.
    pub fn of(facts: &FlowFacts, story: &Story, verdict: Verdict) -> Self {
        let hello = asked(story);
        Self {
            id: facts.id,
            client: PackedEnd::of(facts.client),
            server: PackedEnd::of(facts.server),
            last: facts.last.time,
            hello: hello.map_or(0, |hello| hello_key(&hello.random)),
            prefix: 0,
            name: name_key(hello.and_then(|hello| hello.sni.as_deref())),
            offer: hello.map_or(0, offer_key),
            leaf: certificate(story).map_or(0, leaf_key),
            request: request_key(story),
            numbers: numbers_key(facts),
            verdict,
            protocol: spoken(story),
            transport: facts.transport,
            accepted: facts.from_server.syn_count > 0,
            completed: facts.handshake == Handshake::Full || facts.from_client.payload > 0,
            answered: facts.from_server.payload > 0,
            served: served(facts, story),
            marks: if story.seen().has(Kind::ProxyHeader) { BEHIND_PROXY } else { 0 }
                | if lone(facts, story, hello) { LONE } else { 0 },
        }
    }
}

/// Whether a flow was opened for one exchange.
fn lone(facts: &FlowFacts, story: &Story, hello: Option<&ClientHello>) -> bool {
    match spoken(story) {
        _ if facts.mid_stream => false,
        Some(Protocol::Http) => {
            story.left_out() == 0 && story.events().filter(|event| event.what.kind() == Kind::Request).count() == 1
        }
        Some(Protocol::Tls) => hello.is_some_and(|hello| !hello.resumes),
        _ => false,
    }
}

/// The ClientHello.
fn asked(story: &Story) -> Option<&ClientHello> {
    story.find(Kind::ClientHello, |event| match &event.what {
        What::ClientHello(hello) => Some(hello.as_ref()),
        _ => None,
    })
}

/// The server's own certificate, where it is readable.
fn certificate(story: &Story) -> Option<&Certificate> {
    story.find(Kind::Certificates, |event| match &event.what {
        What::Certificates(chain) if event.side == Side::Server => chain.first(),
        _ => None,
    })
}

/// A handshake after which the client leaves serves nobody: it may not like the certificate.
fn served(facts: &FlowFacts, story: &Story) -> bool {
    let tls = spoken(story) == Some(Protocol::Tls);
    let data = || story.first(Kind::TlsData, Side::Client).is_some();
    let refused = story.seen().has(Kind::LoginRefused);
    facts.from_server.payload > 0 && !refused && (!tls || facts.mid_stream || data())
}

/// What was recognised on a side, PROXY headers looked through.
pub fn protocol_of(story: &Story, side: Side) -> Option<Protocol> {
    story.spoken(side)
}

/// The protocol both sides agreed on, else the client's, else the server's.
pub fn spoken(story: &Story) -> Option<Protocol> {
    let (client, server) = (protocol_of(story, Side::Client), protocol_of(story, Side::Server));
    match (client, server) {
        (Some(Protocol::Unknown) | None, other) => other,
        (client, _) => client,
    }
}

impl FlowSummary {
    /// Gives back what its lists have at hand: it stays as it is.
    pub fn settle(&mut self) {
        self.story.settle();
        self.findings.iter_mut().for_each(Finding::settle);
        self.findings.shrink_to_fit();
    }

    /// Whether the flow was still open when the capture ended.
    pub fn open(&self) -> bool {
        matches!(self.facts.close, Close::Open | Close::HalfClosed(_))
    }
}
