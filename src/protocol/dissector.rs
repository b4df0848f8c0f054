//! What is kept per flow: the beginning of each side until it is recognised, then the analyzers that read on.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::recognise::{Among, Verdict, decide};
use super::{Analyzer, Emit, Entry, PROTOCOLS, Sample, dns, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::facts::RoleSource;
use crate::flow::{FlowHead, Wants};
use crate::wire::proxy::{self, ProxyStart};
use crate::wire::text::postgres;
use crate::wire::tls::content;

/// Octets held while a side is not recognised yet: the longest PROXY header.
const HELD: usize = 64 * 1024 + 16;
/// Segments in the middle of a stream at which a protocol is looked for.
const TRIES: u8 = 64;
/// Octets of an unrecognised beginning that are kept.
const EXCERPT: usize = 32;
/// Octets of PostgreSQL's SSLRequest, its length field first.
const POSTGRES_ASKS_FOR_TLS: usize = 8;
/// Shorter beginnings are common to many protocols; from here on only a PROXY header begins like one.
const UNMISTAKABLE: usize = 6;

/// Reads one flow's octets. Nothing is allocated before the first payload, and nothing is kept once nobody wants more.
#[derive(Default)]
pub struct Dissector(Stage);

#[derive(Default)]
enum Stage {
    /// No payload yet.
    #[default]
    Silent,
    /// A TCP stream that is being read.
    Stream(Box<Stream>),
    /// DNS over UDP; which sides were told to speak it.
    Datagrams([bool; 2]),
    /// Nobody wants more of either side.
    Over,
}

/// Both sides of a TCP stream.
struct Stream {
    sides: [Reader; 2],
    /// One, or one per side when they speak different protocols.
    analyzers: SmallVec<[(Protocol, Box<dyn Analyzer>); 1]>,
    /// A side said what only one role says: guessed roles are settled.
    roles_known: bool,
    /// The client asked a PostgreSQL server for TLS: the server answers with one octet.
    asked_for_tls: bool,
}

/// Who reads a side.
#[derive(Serialize, Deserialize)]
enum Reader {
    /// Nobody yet.
    Beginning(Beginning),
    /// The analyzer of this protocol.
    Analyzer(Protocol),
    /// Nobody wants more of it.
    Nobody,
}

/// The beginning of a side, while nobody knows what it is.
#[derive(Default, Serialize, Deserialize)]
struct Beginning {
    held: Vec<u8>,
    /// Pieces in which the held octets came.
    pieces: u32,
    /// The packet of the latest one.
    last: Option<PacketRef>,
    /// Whole PROXY headers before.
    headers: u8,
    /// Octets before these are missing.
    late: bool,
    /// Segments in the middle of the stream that were looked at in vain.
    tries: u8,
    /// The latest protocol that was told.
    told: Option<Protocol>,
}

/// All that is held of a beginning, with the packet that brought the latest of it.
#[derive(Clone, Copy)]
struct Piece<'a> {
    flow: &'a FlowHead,
    side: Side,
    at: PacketRef,
    bytes: &'a [u8],
}

impl<'a> Piece<'a> {
    fn sample(&self, beginning: &Beginning) -> Sample<'a> {
        Sample { side: self.side, bytes: self.bytes, late: beginning.late, flow: self.flow }
    }
}

impl Dissector {
    /// The next octets of a side, in order.
    pub fn bytes(&mut self, flow: &FlowHead, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let Some(stream) = self.stream(flow) else { return Wants::Nothing };
        let wants = stream.bytes(flow, side, at, bytes, emit);
        if wants != Wants::More {
            self.leave();
        }
        wants
    }

    /// `missing` octets of a side will never come.
    pub fn gap(&mut self, flow: &FlowHead, side: Side, missing: u64) {
        if let Some(stream) = self.stream(flow) {
            stream.gap(side, missing);
            self.leave();
        }
    }

    /// The side sends no more.
    pub fn end(&mut self, _flow: &FlowHead, side: Side, at: PacketRef, emit: Emit<'_>) {
        if let Stage::Stream(stream) = &mut self.0 {
            stream.end(side, at, emit);
            self.leave();
        }
    }

    /// Tells what was held back for brevity: a flow that is still open is to be judged.
    pub fn settle(&mut self, emit: Emit<'_>) {
        if let Stage::Stream(stream) = &mut self.0 {
            stream.analyzers.iter_mut().for_each(|(_, analyzer)| analyzer.settle(emit));
        }
    }

    /// Octets it takes beside itself, about.
    pub fn weight(&self) -> usize {
        const ANALYZER: usize = 768;
        let Stage::Stream(stream) = &self.0 else { return 0 };
        let beginning = |side: &Reader| if let Reader::Beginning(begin) = side { begin.held.capacity() } else { 0 };
        let analyzers = stream.analyzers.iter().map(|(_, analyzer)| ANALYZER + analyzer.held());
        size_of::<Stream>() + stream.sides.iter().map(beginning).sum::<usize>() + analyzers.sum::<usize>()
    }

    /// Writes down all it knows; `false` when an analyzer cannot.
    pub(crate) fn freeze(&self, into: &mut Freezer) -> bool {
        let stage: u8 = match &self.0 {
            Stage::Silent => 0,
            Stage::Over => 1,
            Stage::Datagrams(_) => 2,
            Stage::Stream(_) => 3,
        };
        into.put(&stage).is_ok()
            && match &self.0 {
                Stage::Silent | Stage::Over => true,
                Stage::Datagrams(told) => into.put(told).is_ok(),
                Stage::Stream(stream) => stream.freeze(into),
            }
    }

    /// The one that was written down.
    pub(crate) fn thaw(from: &mut Thawer) -> Option<Self> {
        Some(Self(match from.take::<u8>()? {
            0 => Stage::Silent,
            1 => Stage::Over,
            2 => Stage::Datagrams(from.take()?),
            _ => Stage::Stream(Box::new(Stream::thaw(from)?)),
        }))
    }

    /// One UDP datagram of `len` octets on the wire; only DNS is read.
    pub fn datagram(
        &mut self,
        flow: &FlowHead,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
        len: u32,
        emit: Emit<'_>,
    ) -> Wants {
        let message = match dns::datagram(flow, bytes, len) {
            dns::Datagram::Dns(message) => message,
            dns::Datagram::Strange => return Wants::More,
            dns::Datagram::Other => return Wants::Nothing,
        };
        let told = match &mut self.0 {
            Stage::Datagrams(told) => told,
            stage => {
                *stage = Stage::Datagrams([false; 2]);
                let Stage::Datagrams(told) = stage else { return Wants::Nothing };
                told
            }
        };
        // Multicast DNS has no roles: both ends use the same port, and anybody answers.
        let turned =
            guessed(flow) && flow.client.port != flow.server.port && message.response == (side == Side::Client);
        if !std::mem::replace(&mut told[index(side)], true) {
            emit(Event { at, side, what: What::Recognised { protocol: Protocol::Dns } });
        }
        emit(Event { at, side, what: What::Dns(message) });
        if turned {
            told.swap(0, 1);
            return Wants::Flip;
        }
        Wants::More
    }

    fn stream(&mut self, flow: &FlowHead) -> Option<&mut Stream> {
        if let Stage::Silent = self.0 {
            self.begin(flow.mid_stream);
        }
        match &mut self.0 {
            Stage::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    #[cold]
    fn begin(&mut self, late: bool) {
        self.0 = Stage::Stream(Box::new(Stream::new(late)));
    }

    /// Gives everything back once nobody wants more.
    fn leave(&mut self) {
        if let Stage::Stream(stream) = &self.0
            && stream.sides.iter().all(|side| matches!(side, Reader::Nobody))
        {
            self.0 = Stage::Over;
        }
    }
}

/// Whether content may correct the roles.
fn guessed(flow: &FlowHead) -> bool {
    matches!(flow.role, RoleSource::Port | RoleSource::Guess)
}

impl Stream {
    fn freeze(&self, into: &mut Freezer) -> bool {
        let Self { sides, analyzers, roles_known, asked_for_tls } = self;
        into.put(&(sides, roles_known, asked_for_tls, analyzers.len())).is_ok()
            && analyzers.iter().all(|(protocol, analyzer)| into.put(protocol).is_ok() && analyzer.freeze(into))
    }

    fn thaw(from: &mut Thawer) -> Option<Self> {
        let (sides, roles_known, asked_for_tls, count): (_, _, _, usize) = from.take()?;
        let mut analyzers = SmallVec::new();
        for _ in 0..count {
            let protocol = from.take()?;
            let mut analyzer = PROTOCOLS.iter().find(|entry| entry.protocol == protocol)?.start?();
            if !analyzer.thaw(from) {
                return None;
            }
            analyzers.push((protocol, analyzer));
        }
        Some(Self { sides, analyzers, roles_known, asked_for_tls })
    }

    fn new(late: bool) -> Self {
        let beginning = || Reader::Beginning(Beginning { late, ..Beginning::default() });
        Self { sides: [beginning(), beginning()], analyzers: SmallVec::new(), roles_known: false, asked_for_tls: false }
    }

    fn bytes(&mut self, flow: &FlowHead, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let beginning = match &mut self.sides[index(side)] {
            Reader::Nobody => return Wants::Nothing,
            Reader::Analyzer(protocol) => {
                let protocol = *protocol;
                let wants = match self.analyzer(protocol) {
                    Some(analyzer) => analyzer.bytes(side, at, bytes, emit),
                    None => Wants::Nothing,
                };
                if wants == Wants::Nothing {
                    self.sides[index(side)] = Reader::Nobody;
                }
                return wants;
            }
            Reader::Beginning(beginning) => beginning,
        };
        beginning.pieces = beginning.pieces.saturating_add(1);
        beginning.last = Some(at);
        let mut beginning = std::mem::take(beginning);
        self.sides[index(side)] = Reader::Nobody;
        if beginning.held.is_empty() {
            return self.begin(beginning, Piece { flow, side, at, bytes }, emit);
        }
        let mut joined = std::mem::take(&mut beginning.held);
        joined.extend_from_slice(bytes);
        self.begin(beginning, Piece { flow, side, at, bytes: &joined }, emit)
    }

    fn gap(&mut self, side: Side, missing: u64) {
        let reader = &mut self.sides[index(side)];
        match reader {
            Reader::Analyzer(protocol) => {
                let analyzer = self.analyzers.iter_mut().find(|(known, _)| known == protocol);
                if analyzer.is_none_or(|(_, analyzer)| analyzer.gap(side, missing) == Wants::Nothing) {
                    *reader = Reader::Nobody;
                }
            }
            Reader::Beginning(beginning) => {
                // What follows may begin in the middle of anything; only what tells itself is believed.
                let told = beginning.told;
                *beginning = Beginning { late: true, tries: 1, told, ..Beginning::default() };
            }
            Reader::Nobody => {}
        }
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        match std::mem::replace(&mut self.sides[index(side)], Reader::Nobody) {
            Reader::Analyzer(protocol) => {
                if let Some(analyzer) = self.analyzer(protocol) {
                    analyzer.end(side, at, emit);
                }
            }
            Reader::Beginning(beginning) if !beginning.held.is_empty() => beginning.end(side, at, emit),
            Reader::Beginning(_) | Reader::Nobody => {}
        }
        // Whatever is held back until something unusual happens: it may be the last that is heard of it.
        self.analyzers.iter_mut().for_each(|(_, analyzer)| analyzer.settle(emit));
    }

    fn analyzer(&mut self, protocol: Protocol) -> Option<&mut dyn Analyzer> {
        let (_, analyzer) = self.analyzers.iter_mut().find(|(known, _)| *known == protocol)?;
        Some(analyzer.as_mut())
    }

    /// Hands octets to a side's analyzer.
    fn analyze(&mut self, protocol: Protocol, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let wants = match self.analyzer(protocol) {
            Some(analyzer) => analyzer.bytes(side, at, bytes, emit),
            None => Wants::Nothing,
        };
        if wants != Wants::Nothing {
            self.sides[index(side)] = Reader::Analyzer(protocol);
        }
        wants
    }

    /// Looks at the beginning of a side, first as what the flow takes it for; when that says nothing and the roles are guessed, as the other.
    fn begin(&mut self, beginning: Beginning, piece: Piece<'_>, emit: Emit<'_>) -> Wants {
        let verdict = decide(&piece.sample(&beginning), beginning.among());
        if !matches!(verdict, Verdict::Nothing) || !guessed(piece.flow) || self.roles_known {
            return self.proceed(beginning, piece, verdict, emit);
        }
        let turned = Piece { side: piece.side.other(), ..piece };
        match decide(&turned.sample(&beginning), Among::TellingRoles) {
            verdict @ (Verdict::Nothing | Verdict::Wait) => self.proceed(beginning, piece, verdict, emit),
            verdict => {
                self.sides.swap(0, 1);
                self.analyzers.iter_mut().for_each(|(_, analyzer)| analyzer.flip());
                // Until this call returns, events go by the roles it was called with.
                self.proceed(beginning, turned, verdict, &mut |event| {
                    emit(Event { side: event.side.other(), ..event });
                });
                Wants::Flip
            }
        }
    }

    /// Acts on a verdict; looks through PROXY headers and PostgreSQL's request for TLS until what follows them is known.
    fn proceed(
        &mut self,
        mut beginning: Beginning,
        mut piece: Piece<'_>,
        mut verdict: Verdict,
        emit: Emit<'_>,
    ) -> Wants {
        let Piece { side, at, .. } = piece;
        loop {
            let through = match verdict {
                _ if side == Side::Server && std::mem::take(&mut self.asked_for_tls) => {
                    let answered = postgres::answer_to_ssl_request(piece.bytes).is_some();
                    if answered {
                        beginning.tell(side, at, Protocol::Postgres, emit);
                    }
                    usize::from(answered)
                }
                Verdict::Is(entry) => match self.recognised(entry, &mut beginning, piece, emit) {
                    Some(wants) => return wants,
                    None => POSTGRES_ASKS_FOR_TLS,
                },
                Verdict::Proxy(ProxyStart::Header(header)) => {
                    self.roles_known = true;
                    let len = header.len as usize;
                    beginning.header(side, at, header, emit);
                    beginning.pieces = u32::from(piece.bytes.len() > len);
                    len
                }
                Verdict::Proxy(ProxyStart::Broken(broken)) => {
                    beginning.tell(side, at, Protocol::Proxy, emit);
                    emit(Event { at, side, what: What::ProxyBroken(Box::new(broken)) });
                    return Wants::Nothing;
                }
                Verdict::Wait | Verdict::Proxy(_) if piece.bytes.len() <= HELD => {
                    beginning.held = piece.bytes.to_vec();
                    self.sides[index(side)] = Reader::Beginning(beginning);
                    return Wants::More;
                }
                _ => return self.unknown(beginning, piece, emit),
            };
            piece.bytes = piece.bytes.get(through..).unwrap_or(&[]);
            if piece.bytes.is_empty() {
                self.sides[index(side)] = Reader::Beginning(beginning);
                return Wants::More;
            }
            verdict = decide(&piece.sample(&beginning), beginning.among());
        }
    }

    /// A side is recognised: its analyzer takes over. `None` when it only asked for TLS, and what follows is to be recognised next.
    fn recognised(
        &mut self,
        entry: &Entry,
        beginning: &mut Beginning,
        piece: Piece<'_>,
        emit: Emit<'_>,
    ) -> Option<Wants> {
        let Piece { side, at, bytes, .. } = piece;
        // Records in the middle of a TLS stream look alike on both sides, and so do frames in the middle of HTTP/2.
        let alike = match entry.protocol {
            Protocol::Tls => bytes.first() != Some(&content::HANDSHAKE),
            Protocol::Http2 => beginning.late && bytes.first() != Some(&b'P'),
            _ => false,
        };
        self.roles_known |= entry.tells_roles && !alike;
        beginning.tell(side, at, entry.protocol, emit);
        if entry.protocol == Protocol::Postgres && side == Side::Client && asks_for_tls(bytes) {
            self.asked_for_tls = true;
            return None;
        }
        let Some(start) = entry.start else { return Some(Wants::Nothing) };
        if self.analyzer(entry.protocol).is_none() {
            self.analyzers.push((entry.protocol, start()));
        }
        Some(self.analyze(entry.protocol, side, at, bytes, emit))
    }

    /// Nothing known begins like this. In the middle of a stream a later segment may still begin with something known.
    fn unknown(&mut self, mut beginning: Beginning, piece: Piece<'_>, emit: Emit<'_>) -> Wants {
        let Piece { side, at, bytes, .. } = piece;
        if beginning.told != Some(Protocol::Unknown) {
            beginning.tell(side, at, Protocol::Unknown, emit);
            emit(excerpt(side, at, bytes));
        }
        if !beginning.late || beginning.tries >= TRIES {
            return Wants::Nothing;
        }
        beginning.tries += 1;
        self.sides[index(side)] = Reader::Beginning(beginning);
        Wants::More
    }
}

impl Beginning {
    fn among(&self) -> Among {
        if self.tries == 0 { Among::All } else { Among::TellingThemselves }
    }

    /// Tells a protocol, unless it was the latest that was told.
    fn tell(&mut self, side: Side, at: PacketRef, protocol: Protocol, emit: Emit<'_>) {
        if self.told.replace(protocol) != Some(protocol) {
            emit(Event { at, side, what: What::Recognised { protocol } });
        }
    }

    /// A whole PROXY header was read.
    fn header(&mut self, side: Side, at: PacketRef, header: Box<proxy::ProxyHeader>, emit: Emit<'_>) {
        self.tell(side, at, Protocol::Proxy, emit);
        let what = if self.headers == 0 { What::ProxyHeader(header) } else { What::ProxyHeaderAgain(header) };
        self.headers = self.headers.saturating_add(1);
        emit(Event { at, side, what });
        self.split(side, at, emit);
    }

    fn split(&self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if self.pieces > 1 {
            emit(Event { at, side, what: What::ProxySplit { segments: self.pieces } });
        }
    }

    /// The side ended before it was recognised.
    fn end(mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        let at = self.last.unwrap_or(at);
        let held = std::mem::take(&mut self.held);
        let begun = side == Side::Client && held.len() >= UNMISTAKABLE;
        if begun && proxy::parse(&held) == ProxyStart::Partial {
            self.tell(side, at, Protocol::Proxy, emit);
            emit(Event { at, side, what: What::ProxyIncomplete { got: held.len() as u32 } });
            self.split(side, at, emit);
        } else {
            self.tell(side, at, Protocol::Unknown, emit);
        }
        emit(excerpt(side, at, &held));
    }
}

/// Whether a client's first message is SSLRequest or GSSENCRequest: the conversation begins anew behind the one octet of its answer.
/// PostgreSQL documentation, "SSL Session Encryption".
fn asks_for_tls(bytes: &[u8]) -> bool {
    bytes.get(..4) == Some(&[0, 0, 0, POSTGRES_ASKS_FOR_TLS as u8])
}

fn excerpt(side: Side, at: PacketRef, octets: &[u8]) -> Event {
    let octets = octets.get(..EXCERPT).unwrap_or(octets).to_vec();
    Event { at, side, what: What::Excerpt { octets } }
}

#[cfg(test)]
mod tests;
