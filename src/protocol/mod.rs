//! Octets to protocol events: recognition by content on both sides, then one analyzer per protocol.
//!
//! Ports are hints at most. Each side is recognised for itself: a ClientHello answered by `HTTP/1.1 400` is TLS on one side and HTTP on
//! the other, and that is the finding. A PROXY header is read first and looked through.

mod dns;
mod http;
mod recognise;
mod tls;
mod words;

use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::facts::RoleSource;
use crate::flow::{FlowHead, Wants};
use crate::wire::Recognition;
use crate::wire::proxy::{self, ProxyStart};

/// Where an analyzer puts its events.
pub type Emit<'a> = &'a mut dyn FnMut(Event);

/// Reads one protocol on one flow. Events carry the side they were called with.
pub trait Analyzer: Send {
    /// The next octets of a side, in order.
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants;

    /// Octets that will never come.
    fn gap(&mut self, side: Side, missing: u64) -> Wants;

    /// The side sends no more.
    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>);

    /// The roles were the wrong way round.
    fn flip(&mut self);
}

/// One protocol that is recognised by content.
pub struct Entry {
    /// Which.
    pub protocol: Protocol,
    /// What a side's first octets say.
    pub recognise: fn(&Sample<'_>) -> Recognition,
    /// Its analyzer; `None` where the first words are all there is to read.
    pub start: Option<fn() -> Box<dyn Analyzer>>,
}

/// A side's first octets with what else may hint at their protocol.
#[derive(Clone, Copy)]
pub struct Sample<'a> {
    /// Who sent them.
    pub side: Side,
    /// The octets so far, PROXY headers removed.
    pub bytes: &'a [u8],
    /// The flow.
    pub flow: &'a FlowHead,
}

/// All protocols, the unmistakable ones first.
pub static PROTOCOLS: &[Entry] = &[
    Entry { protocol: Protocol::Tls, recognise: recognise::tls, start: Some(tls::start) },
    Entry { protocol: Protocol::Http2, recognise: recognise::http2, start: None },
    Entry { protocol: Protocol::Http, recognise: recognise::http, start: Some(http::start) },
    Entry { protocol: Protocol::Ssh, recognise: words::ssh, start: Some(words::start_ssh) },
    Entry { protocol: Protocol::Mysql, recognise: words::mysql, start: None },
    Entry { protocol: Protocol::Postgres, recognise: words::postgres, start: None },
    Entry { protocol: Protocol::Redis, recognise: words::redis, start: None },
    Entry { protocol: Protocol::Smtp, recognise: words::smtp, start: Some(words::start_smtp) },
    Entry { protocol: Protocol::Dns, recognise: recognise::dns_over_tcp, start: Some(dns::start) },
];

/// Octets held while a side is not recognised yet.
const HELD: usize = 64 * 1024 + 16;

/// What is kept per flow: nothing before the first payload, nothing more once nobody wants octets.
#[derive(Default)]
pub struct Dissector {
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    sides: [Start; 2],
    /// At most one per side; both sides share one when they speak the same.
    analyzers: Vec<(Protocol, Box<dyn Analyzer>)>,
}

/// How far a side's recognition has come.
enum Start {
    /// Its first octets are being collected; a PROXY header may stand before them.
    Reading { held: Vec<u8>, packets: u32, last: Option<PacketRef>, headers: u8 },
    /// This analyzer reads it.
    Known(Protocol),
    /// Nobody wants more of it.
    Opaque,
}

impl Default for Start {
    fn default() -> Self {
        Self::Reading { held: Vec::new(), packets: 0, last: None, headers: 0 }
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::Client => 0,
        Side::Server => 1,
    }
}

impl Dissector {
    /// The next octets of a side, in order.
    pub fn bytes(&mut self, flow: &FlowHead, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let state = self.state.get_or_insert_default();
        let wants = state.bytes(flow, side, at, bytes, emit);
        if wants == Wants::Flip {
            state.sides.swap(0, 1);
            state.analyzers.iter_mut().for_each(|(_, analyzer)| analyzer.flip());
        }
        wants
    }

    /// Octets that will never come.
    pub fn gap(&mut self, _flow: &FlowHead, side: Side, _at: PacketRef, missing: u64, _emit: Emit<'_>) {
        let state = self.state.get_or_insert_default();
        let wants = match &state.sides[index(side)] {
            Start::Known(protocol) => {
                let analyzer = state.analyzers.iter_mut().find(|(known, _)| known == protocol);
                analyzer.map_or(Wants::Nothing, |(_, analyzer)| analyzer.gap(side, missing))
            }
            // What begins with a hole cannot be recognised.
            Start::Reading { .. } | Start::Opaque => Wants::Nothing,
        };
        if wants == Wants::Nothing {
            state.sides[index(side)] = Start::Opaque;
        }
    }

    /// The side sends no more.
    pub fn end(&mut self, flow: &FlowHead, side: Side, at: PacketRef, emit: Emit<'_>) {
        let Some(state) = &mut self.state else { return };
        match std::mem::replace(&mut state.sides[index(side)], Start::Opaque) {
            Start::Known(protocol) => {
                if let Some((_, analyzer)) = state.analyzers.iter_mut().find(|(known, _)| *known == protocol) {
                    analyzer.end(side, at, emit);
                }
            }
            Start::Reading { held, last, .. } if !held.is_empty() => {
                let at = last.unwrap_or(at);
                state.at_end(flow, side, at, &held, emit);
            }
            Start::Reading { .. } | Start::Opaque => {}
        }
    }

    /// One UDP datagram; only DNS is read.
    pub fn datagram(
        &mut self,
        flow: &FlowHead,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
        len: u32,
        emit: Emit<'_>,
    ) -> Wants {
        dns::datagram(flow, side, at, bytes, len, emit)
    }
}

impl State {
    fn bytes(&mut self, flow: &FlowHead, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        match &mut self.sides[index(side)] {
            Start::Opaque => Wants::Nothing,
            Start::Known(protocol) => {
                let protocol = *protocol;
                self.analyze(protocol, side, at, bytes, emit)
            }
            Start::Reading { held, packets, last, .. } => {
                if *last != Some(at) {
                    *packets += 1;
                    *last = Some(at);
                }
                held.extend_from_slice(bytes);
                self.recognise(flow, side, at, emit)
            }
        }
    }

    fn analyze(&mut self, protocol: Protocol, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let Some((_, analyzer)) = self.analyzers.iter_mut().find(|(known, _)| *known == protocol) else {
            return Wants::Nothing;
        };
        let wants = analyzer.bytes(side, at, bytes, emit);
        if wants == Wants::Nothing {
            self.sides[index(side)] = Start::Opaque;
        }
        wants
    }

    /// Looks at what a side has sent so far.
    fn recognise(&mut self, flow: &FlowHead, side: Side, at: PacketRef, emit: Emit<'_>) -> Wants {
        let slot = &mut self.sides[index(side)];
        let Start::Reading { held, packets, headers, .. } = slot else { return Wants::Nothing };
        if side == Side::Client || flow.role != RoleSource::Handshake {
            match header(held, packets, headers, side, at, emit) {
                Headers::Wait if held.len() <= HELD => return Wants::More,
                Headers::Broken => {
                    *slot = Start::Opaque;
                    return Wants::Nothing;
                }
                Headers::Wait | Headers::Through => {}
            }
            if held.is_empty() {
                return Wants::More;
            }
        }
        let sample = Sample { side, bytes: held, flow };
        let mut undecided = false;
        for entry in PROTOCOLS {
            match (entry.recognise)(&sample) {
                Recognition::Yes => {
                    let held = std::mem::take(held);
                    return self.begin(entry, flow, side, at, &held, emit);
                }
                Recognition::NeedMore => undecided = true,
                Recognition::No => {}
            }
        }
        if undecided && held.len() <= HELD {
            return Wants::More;
        }
        unknown(side, at, held, emit);
        *slot = Start::Opaque;
        Wants::Nothing
    }

    /// A side is recognised: its analyzer takes over.
    fn begin(
        &mut self,
        entry: &Entry,
        flow: &FlowHead,
        side: Side,
        at: PacketRef,
        held: &[u8],
        emit: Emit<'_>,
    ) -> Wants {
        emit(Event { at, side, what: What::Recognised { protocol: entry.protocol } });
        let guessed = matches!(flow.role, RoleSource::Port | RoleSource::Guess);
        let turned = guessed && recognise::said_by(entry.protocol, held).is_some_and(|speaker| speaker != side);
        if let Some(greeting) = words::greeting(entry.protocol, held) {
            emit(Event { at, side, what: What::Greeting(Box::new(greeting)) });
        }
        let wants = match entry.start {
            None => {
                self.sides[index(side)] = Start::Opaque;
                Wants::Nothing
            }
            Some(start) => {
                self.sides[index(side)] = Start::Known(entry.protocol);
                if !self.analyzers.iter().any(|(known, _)| *known == entry.protocol) {
                    self.analyzers.push((entry.protocol, start()));
                }
                self.analyze(entry.protocol, side, at, held, emit)
            }
        };
        if turned { Wants::Flip } else { wants }
    }

    /// The side ended before it was recognised.
    fn at_end(&mut self, _flow: &FlowHead, side: Side, at: PacketRef, held: &[u8], emit: Emit<'_>) {
        // Shorter beginnings are common to everything; from here on only a PROXY header begins like this.
        let unmistakable = proxy::SIGNATURE_V2.len().min(held.len()) >= 6;
        if unmistakable && proxy::parse(held) == ProxyStart::Partial {
            emit(Event { at, side, what: What::Recognised { protocol: Protocol::Proxy } });
            emit(Event { at, side, what: What::ProxyIncomplete { got: held.len() as u32 } });
            emit(excerpt(side, at, held));
        } else {
            unknown(side, at, held, emit);
        }
    }
}

enum Headers {
    /// A header may still be coming.
    Wait,
    /// No (further) header; what is held is what follows.
    Through,
    /// Nothing behind it can be read.
    Broken,
}

/// Reads PROXY headers off the front of what is held.
fn header(
    held: &mut Vec<u8>,
    packets: &mut u32,
    headers: &mut u8,
    side: Side,
    at: PacketRef,
    emit: Emit<'_>,
) -> Headers {
    loop {
        match proxy::parse(held) {
            ProxyStart::No => return Headers::Through,
            ProxyStart::Partial => return Headers::Wait,
            ProxyStart::Broken(broken) => {
                emit(Event { at, side, what: What::Recognised { protocol: Protocol::Proxy } });
                emit(Event { at, side, what: What::ProxyBroken(Box::new(broken)) });
                return Headers::Broken;
            }
            ProxyStart::Header(header) => {
                held.drain(..(header.len as usize).min(held.len()));
                let what = match *headers {
                    0 => {
                        emit(Event { at, side, what: What::Recognised { protocol: Protocol::Proxy } });
                        What::ProxyHeader(header)
                    }
                    _ => What::ProxyHeaderAgain(header),
                };
                emit(Event { at, side, what });
                if *packets > 1 && *headers == 0 {
                    emit(Event { at, side, what: What::ProxySplit { segments: *packets } });
                }
                *headers = headers.saturating_add(1);
                *packets = u32::from(!held.is_empty());
                if held.is_empty() {
                    return Headers::Through;
                }
            }
        }
    }
}

fn unknown(side: Side, at: PacketRef, held: &[u8], emit: Emit<'_>) {
    emit(Event { at, side, what: What::Recognised { protocol: Protocol::Unknown } });
    emit(excerpt(side, at, held));
}

fn excerpt(side: Side, at: PacketRef, held: &[u8]) -> Event {
    Event { at, side, what: What::Excerpt { octets: held[..held.len().min(32)].to_vec() } }
}
