//! HTTP/1 on both sides: heads are read, bodies are stepped over by their framing. RFC 9112.

use serde::{Deserialize, Serialize};

use super::exchanges::{Answered, Exchanges, Method};
use super::http2::Http2;
use super::{Analyzer, Emit, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::Recognition;
use crate::wire::http::{
    ChunkedReader, ChunkedStep, Framing, Head, RequestHead, ResponseHead, looks_like_request, looks_like_response,
    parse_request, parse_response,
};

/// Longest head that is put together from several segments.
const LONGEST_HEAD: usize = 64 * 1024;
/// Errors whose heads were cut that are told of one connection, between two looks.
const MOST_CUT: usize = 16;
/// Octets of an error page that are looked at.
const PAGE: usize = 1024;
/// What the pages of nginx, Apache and Go say to plain HTTP on a TLS port.
const WANTS_TLS: [&[u8]; 3] = [
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
];

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<Http>::default()
}

#[derive(Default, Serialize, Deserialize)]
struct Http {
    sides: [Half; 2],
    exchanges: Exchanges,
    /// 101 or CONNECT: no longer HTTP.
    tunnel: bool,
    /// The latest request that asks for HTTP/2 in the clear.
    asks: Option<Box<(PacketRef, RequestHead)>>,
    /// The server agreed to it.
    upgraded: Option<Box<Http2>>,
    /// Beginning of the page behind a 400, while it may still say something.
    page: Option<Vec<u8>>,
    /// What heads without an end told, until it can be said.
    cut: Vec<Event>,
}

#[derive(Default, Serialize, Deserialize)]
struct Half {
    part: Part,
    /// A head that is not complete yet.
    held: Vec<u8>,
    /// The packet with which it begins.
    since: Option<PacketRef>,
    /// At that many held octets the head is looked at though its end is not in sight.
    look_at: usize,
    /// The last line of what is held has nothing but blanks so far.
    blank: bool,
}

/// What of a message comes next.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
enum Part {
    /// A head.
    #[default]
    Head,
    /// So many octets of a body. `sure`: the request that decides about it was seen.
    Length {
        left: u64,
        sure: bool,
    },
    Chunked(ChunkedReader),
    /// All that is left.
    UntilClose,
    /// A hole swallowed a head: a segment that begins with one is waited for.
    Lost,
}

/// Where a message stands after a piece of it.
enum Step {
    /// So many octets were used.
    Used(usize),
    /// No octet of this side is read any more.
    Done,
}

impl Analyzer for Http {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        self.cut.drain(..).for_each(&mut *emit);
        let mut rest = bytes;
        while !rest.is_empty() && !self.tunnel {
            let step = match self.sides[index(side)].part {
                Part::Head => self.head(side, at, rest, emit),
                Part::Lost if begins(side, rest) => {
                    self.sides[index(side)].part = Part::Head;
                    Step::Used(0)
                }
                Part::Lost => Step::Used(rest.len()),
                _ => self.body(side, at, rest, emit),
            };
            match step {
                Step::Used(used) => rest = rest.get(used..).unwrap_or(&[]),
                Step::Done => return Wants::Nothing,
            }
        }
        match &mut self.upgraded {
            Some(_) if rest.is_empty() => Wants::More,
            Some(http2) => http2.bytes(side, at, rest, emit),
            None if self.tunnel => Wants::Nothing,
            None => Wants::More,
        }
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        if let Some(http2) = &mut self.upgraded {
            return http2.gap(side, missing);
        }
        let half = &mut self.sides[index(side)];
        let survived = match &mut half.part {
            Part::Length { left, .. } if *left > missing => {
                *left -= missing;
                true
            }
            Part::Chunked(reader) => reader.gap(missing),
            Part::UntilClose => true,
            Part::Length { .. } | Part::Head | Part::Lost => false,
        };
        if !survived {
            if let (Part::Head, Side::Server, Some(at)) = (half.part, side, half.since)
                && let Some(status @ 500..=599) = status_of(&half.held)
                && self.cut.len() < MOST_CUT
            {
                self.cut.push(Event { at, side, what: What::ErrorCut { status } });
            }
            (half.part, half.look_at) = (Part::Lost, 0);
            half.held.clear();
            if side == Side::Server {
                self.page = None;
                self.exchanges.lose_answers();
            }
        }
        if self.tunnel { Wants::Nothing } else { Wants::More }
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        self.cut.drain(..).for_each(&mut *emit);
        if self.upgraded.is_some() {
            return;
        }
        self.exchanges.close();
        let half = &self.sides[index(side)];
        let truncated = match half.part {
            // Without the request it may be the answer to HEAD.
            Part::Length { left, sure } => sure.then_some(Some(left)),
            Part::Chunked(_) => Some(None),
            Part::UntilClose => return self.complete(side, at, emit),
            Part::Head if half.held.is_empty() => None,
            Part::Head => match half.breaks(side) {
                true => {
                    self.exchanges.settle(emit);
                    return emit(Event { at, side, what: What::HttpBroken });
                }
                false => Some(None),
            },
            Part::Lost => None,
        };
        if let (Some(missing), Side::Server) = (truncated, side) {
            self.exchanges.response_end(Event { at, side, what: What::ResponseTruncated { missing } }, true, emit);
        }
    }

    fn held(&self) -> usize {
        let heads: usize = self.sides.iter().map(|side| side.held.capacity()).sum();
        heads + self.exchanges.weight() + self.upgraded.as_ref().map_or(0, |http2| http2.held())
    }

    fn settle(&mut self, emit: Emit<'_>) {
        self.cut.drain(..).for_each(&mut *emit);
        self.exchanges.settle(emit);
        if let Some(http2) = &mut self.upgraded {
            http2.settle(emit);
        }
    }

    fn freeze(&self, into: &mut Freezer) -> bool {
        into.put(self).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        from.take().map(|known| *self = known).is_some()
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
        if let Some(http2) = &mut self.upgraded {
            http2.flip();
        }
    }
}

/// The status of a status line whose rest may be missing (RFC 9112 §4).
fn status_of(held: &[u8]) -> Option<u16> {
    let [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0'..=b'9', b' ', a, b, c, b' ' | b'\r' | b'\n', ..] = *held else {
        return None;
    };
    let digits = [a, b, c].map(|octet| u16::from(octet.wrapping_sub(b'0')));
    digits.iter().all(|digit| *digit < 10).then(|| digits.iter().fold(0, |status, digit| 10 * status + digit))
}

impl Http {
    /// Reads a head at the front of `rest`, joined with what is held of it.
    fn head(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let half = &mut self.sides[index(side)];
        let held = half.held.len();
        if held == 0 {
            // Empty lines before a head are to be ignored (RFC 9112 §2.2).
            let blank = rest.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
            if blank > 0 {
                return Step::Used(blank);
            }
            return match self.read(side, at, rest, emit) {
                Read::Whole(used) => Step::Used(used),
                Read::Broken => self.broken(side, at, emit),
                Read::Partial => self.hold(side, at, rest, emit),
            };
        }
        if !half.worth_reading(rest) {
            return self.hold(side, at, rest, emit);
        }
        let mut joined = std::mem::take(&mut half.held);
        joined.extend_from_slice(rest);
        match self.read(side, at, &joined, emit) {
            Read::Whole(used) => {
                self.sides[index(side)].look_at = 0;
                Step::Used(used.saturating_sub(held))
            }
            Read::Broken => self.broken(side, at, emit),
            Read::Partial => {
                joined.truncate(held);
                self.sides[index(side)].held = joined;
                self.hold(side, at, rest, emit)
            }
        }
    }

    fn hold(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let half = &mut self.sides[index(side)];
        let line = rest.rsplit(|octet| *octet == b'\n').next().unwrap_or(rest);
        let goes_on = line.len() == rest.len() && !half.held.is_empty();
        if half.held.is_empty() {
            half.since = Some(at);
        }
        half.blank = (!goes_on || half.blank) && line.iter().all(is_blank);
        half.held.extend_from_slice(rest);
        half.look_at = half.look_at.max(2 * half.held.len());
        if half.held.len() > LONGEST_HEAD {
            return self.broken(side, at, emit);
        }
        Step::Used(rest.len())
    }

    fn broken(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) -> Step {
        self.sides[index(side)].held = Vec::new();
        self.exchanges.settle(emit);
        emit(Event { at, side, what: What::HttpBroken });
        Step::Done
    }

    fn read(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Read {
        match side {
            Side::Client => Read::of(parse_request(bytes), |head| self.request(at, head, emit)),
            Side::Server => Read::of(parse_response(bytes), |head| self.response(at, head, emit)),
        }
    }

    fn request(&mut self, at: PacketRef, head: Box<RequestHead>, emit: Emit<'_>) -> usize {
        let (used, framing) = (head.len as usize, head.framing);
        if head.upgrade.as_deref().is_some_and(asks_for_http2) {
            self.asks = Some(Box::new((at, head.as_ref().clone())));
        }
        self.exchanges.request(at, head, emit);
        self.begin(Side::Client, at, framing, true, emit);
        used
    }

    fn response(&mut self, at: PacketRef, head: Box<ResponseHead>, emit: Emit<'_>) -> usize {
        let (used, status) = (head.len as usize, head.status);
        let in_request = !self.sides[index(Side::Client)].held.is_empty();
        let Answered { framing, method, known, interim } = self.exchanges.response(at, head, in_request, emit);
        if !interim {
            self.page = (status == 400).then(Vec::new);
            self.begin(Side::Server, at, framing, known, emit);
            self.tunnel = status == 101 || (method == Method::Connect && (200..300).contains(&status));
            let asked = self.asks.take().filter(|_| status == 101);
            self.upgraded = asked.map(|asked| Box::new(Http2::upgraded(*asked, emit)));
        }
        used
    }

    /// A head was read: what follows it.
    fn begin(&mut self, side: Side, at: PacketRef, framing: Framing, sure: bool, emit: Emit<'_>) {
        self.sides[index(side)].part = match framing {
            Framing::None | Framing::Length(0) => return self.complete(side, at, emit),
            Framing::Length(left) => Part::Length { left, sure },
            Framing::Chunked => Part::Chunked(ChunkedReader::default()),
            Framing::UntilClose => Part::UntilClose,
        };
    }

    /// Steps over a body.
    fn body(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let (used, complete) = match &mut self.sides[index(side)].part {
            Part::Length { left, sure } => {
                let used = (*left).min(rest.len() as u64);
                *left -= used;
                *sure = true;
                (used as usize, *left == 0)
            }
            Part::Chunked(reader) => match reader.push(rest) {
                ChunkedStep::More => (rest.len(), false),
                ChunkedStep::End { used } => (used, true),
                ChunkedStep::Broken(_) => return self.broken(side, at, emit),
            },
            Part::UntilClose | Part::Head | Part::Lost => (rest.len(), false),
        };
        if side == Side::Server && self.page.is_some() {
            self.read_page(at, rest.get(..used).unwrap_or(rest), emit);
        }
        if complete {
            self.complete(side, at, emit);
        }
        Step::Used(used)
    }

    fn complete(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        self.sides[index(side)].part = Part::Head;
        match side {
            Side::Client => self.exchanges.request_end(Event { at, side, what: What::RequestEnd }, emit),
            Side::Server => {
                self.page = None;
                self.exchanges.response_end(Event { at, side, what: What::ResponseEnd }, false, emit);
            }
        }
    }

    /// The octets behind the head of a 400.
    fn read_page(&mut self, at: PacketRef, bytes: &[u8], emit: Emit<'_>) {
        let Some(page) = &mut self.page else { return };
        let room = PAGE.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let wants_tls = WANTS_TLS.iter().any(|words| memchr::memmem::find(page, words).is_some());
        if wants_tls || page.len() >= PAGE {
            self.page = None;
        }
        if wants_tls {
            emit(Event { at, side: Side::Server, what: What::TlsWanted });
        }
    }
}

/// What an empty line may hold beside its end.
fn is_blank(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r')
}

impl Half {
    /// Whether the head may be complete with `rest`: an empty line is in sight, or one of blanks, which a lenient reader takes for one. Else it
    /// is read at doubling lengths only, so that a head in single octets is not read once for each of them.
    fn worth_reading(&self, rest: &[u8]) -> bool {
        let mut blank = self.blank;
        for octet in rest {
            if *octet == b'\n' && blank {
                return true;
            }
            blank = *octet == b'\n' || blank && is_blank(octet);
        }
        self.held.len() + rest.len() >= self.look_at
    }

    /// Whether what is held can be no head.
    fn breaks(&self, side: Side) -> bool {
        match side {
            Side::Client => matches!(parse_request(&self.held), Head::Broken(_)),
            Side::Server => matches!(parse_response(&self.held), Head::Broken(_)),
        }
    }
}

/// What came of reading a head.
enum Read {
    /// It had so many octets.
    Whole(usize),
    Partial,
    Broken,
}

impl Read {
    fn of<T>(head: Head<T>, take: impl FnOnce(Box<T>) -> usize) -> Self {
        match head {
            Head::Complete(head) => Self::Whole(take(head)),
            Head::Partial => Self::Partial,
            Head::Broken(_) => Self::Broken,
        }
    }
}

/// Whether the Upgrade field offers HTTP/2 in the clear. RFC 7540 §3.2.
fn asks_for_http2(upgrade: &str) -> bool {
    upgrade.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("h2c"))
}

/// Whether a segment begins with a head.
fn begins(side: Side, bytes: &[u8]) -> bool {
    let recognition = match side {
        Side::Client => looks_like_request(bytes),
        Side::Server => looks_like_response(bytes),
    };
    recognition == Recognition::Yes
}

#[cfg(test)]
mod tests;
