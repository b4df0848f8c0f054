//! One direction of a connection: what its octets are replaced by.
//!
//! The octets come in order, each once. What is recognised is read by its structure; what is not is replaced whole. Only what is not
//! simply filled is remembered, by its offset in the stream, so that every copy of an octet becomes the same.

use std::ops::Range;

use super::h2::Http2;
use super::http::Http;
use super::mapping::Mapping;
use super::services::{First, Service};
use super::tls::Tls;
use crate::wire::h2::{looks_like_frames, looks_like_settings};
use crate::wire::http::{looks_like_preface, looks_like_request, looks_like_response};
use crate::wire::proxy::{self, ProxyStart};
use crate::wire::text::{amqp, mqtt, mysql, postgres};
use crate::wire::tls::{
    RecordHeader, content, looks_like_client_hello, looks_like_server_record, looks_like_sslv2_hello,
};
use crate::wire::{Malformed, Recognition, dns};

/// Octets of a beginning that nothing known begins with.
const TEXT: usize = 8 * 1024;
const OCTETS: usize = 1024;
/// Octets that are replaced together where they mean nothing but themselves: equal ones stay equal.
const BLOCK: usize = 16;
/// Octets held while a side is not recognised.
const HELD: usize = 64 * 1024 + 16;
/// Segments in the middle of a stream at which a protocol is looked for.
const TRIES: u8 = 64;
/// How often one direction may turn into another protocol.
const TURNS: u8 = 8;

/// What a reader makes of the octets in front of it.
pub(super) enum Step {
    /// It needs to see more.
    More,
    /// As many octets as these are replaced by them.
    Replace(Vec<u8>),
    /// The same, and so many octets behind them are filled.
    ReplaceAndFill(Vec<u8>, u64),
    /// So many octets are filled.
    Fill(u64),
    /// Another protocol begins here.
    Again,
    /// Something unknown begins here.
    Unknown,
}

/// Reads one side of one protocol.
pub(super) trait Reader: Send {
    /// What the octets are replaced by; `last`: no more will come to them. Never called without octets; must use some unless it answers
    /// `More` and `last` is not set.
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step;

    /// Octets are missing here.
    fn hole(&mut self);

    /// Whether it reads on at the beginning of a segment: always, unless octets are missing before it.
    fn resume(&mut self, piece: &[u8]) -> bool;
}

/// `bytes` with what stands at `places` replaced by `mapped`, which is as long as they are together.
pub(super) fn put_back(bytes: &[u8], places: Vec<Range<usize>>, mapped: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (bytes.to_vec(), mapped);
    for place in places {
        let (now, later) = rest.split_at(place.len());
        out[place].copy_from_slice(now);
        rest = later;
    }
    out
}

/// What stands for an octet that is not remembered.
pub(super) fn filled(octet: u8) -> u8 {
    match octet {
        b'\r' | b'\n' => octet,
        b' '..=b'~' | b'\t' => b'x',
        _ => 0xff,
    }
}

/// What of a stream is not simply filled, in order of offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pieces: Vec<(u64, Vec<u8>)>,
    weight: usize,
}

impl Plan {
    fn add(&mut self, at: u64, octets: &[u8]) {
        self.weight += octets.len() + 32;
        match self.pieces.last_mut() {
            Some((from, piece)) if *from + piece.len() as u64 == at => piece.extend_from_slice(octets),
            _ => self.pieces.push((at, octets.to_vec())),
        }
    }

    /// Replaces octets that stand at an offset of the stream.
    pub(super) fn apply(&self, at: i64, octets: &mut [u8]) {
        let end = at + octets.len() as i64;
        octets.iter_mut().for_each(|octet| *octet = filled(*octet));
        let first = self.pieces.partition_point(|(from, piece)| (*from + piece.len() as u64) as i64 <= at);
        for (from, piece) in self.pieces[first..].iter().take_while(|(from, _)| (*from as i64) < end) {
            let from = *from as i64;
            let begin = at.max(from);
            let until = end.min(from + piece.len() as i64);
            let (slot, source) = (
                octets.get_mut((begin - at) as usize..(until - at) as usize),
                piece.get((begin - from) as usize..(until - from) as usize),
            );
            if let (Some(slot), Some(source)) = (slot, source) {
                slot.copy_from_slice(source);
            }
        }
    }

    /// Octets it takes, about.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(super) fn shrink(&mut self) {
        self.pieces.iter_mut().for_each(|(_, piece)| piece.shrink_to_fit());
        self.pieces.shrink_to_fit();
    }
}

/// Where a direction stands.
enum State {
    /// Nobody reads it yet.
    Beginning,
    Reading(Box<dyn Reader>),
    /// Nothing known; not recognised any more.
    Unknown,
    /// All that is left is filled.
    Over,
}

/// One direction that is being read.
pub(super) struct Direction {
    state: State,
    pending: Vec<u8>,
    /// Offset of what is pending.
    at: u64,
    /// Octets still to be filled.
    fill: u64,
    /// Octets before these are missing.
    late: bool,
    /// Source and destination.
    ports: (u16, u16),
    turns: u8,
    /// Segments that were looked at in vain.
    tries: u8,
    /// Nothing of it was looked at in vain, and no octets are missing: it may be anything.
    first: bool,
}

/// Makes a reader.
type Start = fn() -> Box<dyn Reader>;
/// What the octets say of a protocol, and its reader.
type Candidate = (Recognition, Start);

/// What the beginning of a direction is.
enum Beginning {
    /// Replaced by these octets, and what follows is looked at anew.
    Through(Vec<u8>),
    Reader(Box<dyn Reader>),
    Wait,
    Nothing,
}

impl Direction {
    pub(super) fn new(ports: (u16, u16), late: bool) -> Self {
        Self {
            state: State::Beginning,
            pending: Vec::new(),
            at: 0,
            fill: 0,
            late,
            ports,
            turns: 0,
            tries: 0,
            first: true,
        }
    }

    /// Whether whatever comes is filled.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Octets held.
    pub(super) fn held(&self) -> usize {
        self.pending.capacity()
    }

    /// The next octets.
    pub(super) fn bytes(&mut self, map: &mut Mapping, plan: &mut Plan, mut piece: &[u8]) {
        let filled = self.fill.min(piece.len() as u64);
        if filled > 0 {
            self.pass(filled);
            piece = &piece[filled as usize..];
        }
        if piece.is_empty() {
            return;
        }
        if let State::Reading(reader) = &mut self.state
            && self.pending.is_empty()
            && !reader.resume(piece)
        {
            self.at += piece.len() as u64;
            return;
        }
        self.pending.extend_from_slice(piece);
        self.read(map, plan, false);
    }

    /// `missing` octets will not come.
    pub(super) fn hole(&mut self, map: &mut Mapping, plan: &mut Plan, missing: u64) {
        self.read(map, plan, true);
        let filled = self.fill.min(missing);
        if filled > 0 {
            self.pass(filled);
        }
        self.at += missing - filled;
        if missing > filled {
            match &mut self.state {
                State::Beginning => (self.late, self.first) = (true, false),
                State::Reading(reader) => reader.hole(),
                State::Unknown | State::Over => self.state = State::Over,
            }
        }
    }

    /// No more will come.
    pub(super) fn end(&mut self, map: &mut Mapping, plan: &mut Plan) {
        self.read(map, plan, true);
        self.state = State::Over;
    }

    fn pass(&mut self, filled: u64) {
        self.at += filled;
        if self.fill != u64::MAX {
            self.fill -= filled;
        }
    }

    fn read(&mut self, map: &mut Mapping, plan: &mut Plan, last: bool) {
        let pending = std::mem::take(&mut self.pending);
        let mut used = 0;
        while used < pending.len() {
            let rest = &pending[used..];
            let step = match &mut self.state {
                State::Over => Step::Fill(u64::MAX),
                State::Unknown => unknown(map, rest, last),
                State::Reading(reader) => reader.step(map, rest, last),
                State::Beginning => self.begin(map, rest, last),
            };
            let (octets, fill) = match step {
                Step::More if !last => break,
                Step::More => (Vec::new(), rest.len() as u64),
                Step::Replace(octets) => (octets, 0),
                Step::ReplaceAndFill(octets, fill) => (octets, fill),
                Step::Fill(fill) => (Vec::new(), fill),
                Step::Again => {
                    self.turn();
                    continue;
                }
                Step::Unknown => {
                    self.state = if matches!(self.state, State::Unknown) { State::Over } else { State::Unknown };
                    continue;
                }
            };
            let octets = octets.get(..rest.len()).unwrap_or(&octets);
            if octets.is_empty() && fill == 0 && matches!(self.state, State::Reading(_)) {
                // A reader that does not go on would be asked for ever.
                self.state = State::Over;
                continue;
            }
            if !octets.is_empty() {
                plan.add(self.at, octets);
            }
            used += octets.len();
            self.at += octets.len() as u64;
            self.fill = fill;
            let filled = self.fill.min((pending.len() - used) as u64);
            self.pass(filled);
            used += filled as usize;
            if self.fill == u64::MAX {
                self.state = State::Over;
            }
        }
        if used < pending.len() {
            self.pending = if used == 0 { pending } else { pending[used..].to_vec() };
        }
    }

    /// Another protocol begins.
    fn turn(&mut self) {
        self.turns += 1;
        (self.late, self.first) = (false, true);
        self.state = if self.turns > TURNS { State::Unknown } else { State::Beginning };
    }

    fn begin(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        match self.recognise(map, bytes, last) {
            Beginning::Through(octets) => Step::Replace(octets),
            Beginning::Wait if bytes.len() <= HELD => Step::More,
            Beginning::Reader(mut reader) => {
                let step = reader.step(map, bytes, last);
                self.state = State::Reading(reader);
                step
            }
            // In the middle of a stream a later segment may still begin with something known.
            // What was looked at in vain so often is looked at no more, as by the dissector.
            _ if self.late && !self.first => {
                self.tries += 1;
                if self.tries >= TRIES {
                    self.state = State::Over;
                }
                Step::Fill(bytes.len() as u64)
            }
            _ if self.late => {
                self.first = false;
                match unknown(map, bytes, true) {
                    Step::ReplaceAndFill(octets, _) => {
                        let left = bytes.len() - octets.len().min(bytes.len());
                        Step::ReplaceAndFill(octets, left as u64)
                    }
                    step => step,
                }
            }
            _ => {
                self.state = State::Unknown;
                unknown(map, bytes, last)
            }
        }
    }

    fn recognise(&self, map: &mut Mapping, bytes: &[u8], last: bool) -> Beginning {
        match proxy::parse(bytes) {
            ProxyStart::Header(header) => return Beginning::Through(map.proxy_header(&bytes[..header.len as usize])),
            ProxyStart::Broken(broken) => {
                let len = (broken.len as usize).clamp(1, bytes.len());
                return Beginning::Reader(Box::new(Broken(len)));
            }
            ProxyStart::Partial if !last => return Beginning::Wait,
            ProxyStart::Partial if bytes.len() >= 6 => return Beginning::Through(map.proxy_header(bytes)),
            ProxyStart::Partial | ProxyStart::No => {}
        }
        if let Some(through) = postgres_asks_for_tls(bytes) {
            return Beginning::Through(bytes[..through].to_vec());
        }
        let mut wait = false;
        for (recognition, reader) in self.candidates(bytes) {
            match recognition {
                Recognition::Yes => return Beginning::Reader(reader()),
                Recognition::NeedMore => wait = true,
                Recognition::No => {}
            }
            if wait && !last {
                return Beginning::Wait;
            }
        }
        Beginning::Nothing
    }

    /// What it may be, in the order in which it is decided.
    fn candidates(&self, bytes: &[u8]) -> Vec<Candidate> {
        let tls = || Box::new(Tls::new()) as Box<dyn Reader>;
        let http2 = || Box::new(Http2::new()) as Box<dyn Reader>;
        let http = || Box::new(Http::new()) as Box<dyn Reader>;
        let late = |recognition: Recognition| if self.late { recognition } else { Recognition::No };
        let early = |recognition: Recognition| if self.late { Recognition::No } else { recognition };
        let mut all: Vec<Candidate> = vec![
            (looks_like_client_hello(bytes).or(looks_like_server_record(bytes)), tls),
            (early(looks_like_sslv2_hello(bytes)), tls),
            (late(chain(bytes)), tls),
            (looks_like_preface(bytes), http2),
            (early(looks_like_settings(bytes)), http2),
            (late(looks_like_frames(bytes)), http2),
            (looks_like_request(bytes).or(looks_like_response(bytes)), http),
        ];
        if self.first {
            all.extend([
                (mqtt::looks_like_client(bytes).or(mqtt::looks_like_server(bytes)), first(Service::Mqtt)),
                (amqp::looks_like_client(bytes).or(amqp::looks_like_server(bytes)), first(Service::Amqp)),
                (mysql::looks_like_server(bytes), first(Service::Mysql)),
                (postgres::looks_like_client(bytes), first(Service::PostgresClient)),
                (postgres::looks_like_server(bytes), first(Service::PostgresServer)),
                (self.dns(bytes), first(Service::Dns)),
            ]);
        }
        all
    }

    fn dns(&self, bytes: &[u8]) -> Recognition {
        let expected = [self.ports.0, self.ports.1].iter().any(|port| matches!(port, 53 | 5353 | 5355));
        match dns::split_stream(bytes) {
            Ok((message, _)) if expected || dns::looks_like_dns(message) => Recognition::Yes,
            Err(Malformed { need: 1.., .. }) if expected => Recognition::Yes,
            // Zeros are common at the beginning of messages of octets.
            Err(Malformed { need: 1.., .. }) if bytes.len() < 14 || bytes[0] < 16 && bytes[4..8] == [1, 0, 0, 1] => {
                Recognition::NeedMore
            }
            _ => Recognition::No,
        }
    }
}

fn first(service: Service) -> Start {
    match service {
        Service::Mysql => || Box::new(First::of(Service::Mysql)),
        Service::PostgresClient => || Box::new(First::of(Service::PostgresClient)),
        Service::PostgresServer => || Box::new(First::of(Service::PostgresServer)),
        Service::Mqtt => || Box::new(First::of(Service::Mqtt)),
        Service::Amqp => || Box::new(First::of(Service::Amqp)),
        Service::Dns => || Box::new(First::of(Service::Dns)),
    }
}

/// A broken PROXY header: so many octets are replaced as one, what follows is unknown.
struct Broken(usize);

impl Reader for Broken {
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], _last: bool) -> Step {
        match std::mem::take(&mut self.0) {
            0 => Step::Unknown,
            len => Step::Replace(map.proxy_header(&bytes[..len.min(bytes.len())])),
        }
    }

    fn hole(&mut self) {}

    fn resume(&mut self, _piece: &[u8]) -> bool {
        true
    }
}

/// PostgreSQL's requests for encryption, and the one octet that answers them: the conversation begins anew behind them.
fn postgres_asks_for_tls(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f | 0x30, ..] => Some(8),
        [b'S' | b'N' | b'G'] => Some(1),
        [b'S', rest @ ..] if looks_like_server_record(rest) == Recognition::Yes => Some(1),
        [b'N', rest @ ..] if postgres::looks_like_server(rest) == Recognition::Yes => Some(1),
        _ => None,
    }
}

/// In the middle of a stream: a record of TLS that ends with what was sent, or where the next begins.
fn chain(bytes: &[u8]) -> Recognition {
    let plausible = |bytes: &[u8]| match RecordHeader::parse(bytes) {
        Ok(RecordHeader { content: content::HEARTBEAT, .. } | RecordHeader { version: 0x0305.., .. }) => None,
        Ok(header) => Some(Ok(usize::from(header.len))),
        Err(Malformed { need: 1.., .. }) => Some(Err(())),
        Err(_) => None,
    };
    match plausible(bytes) {
        None => Recognition::No,
        Some(Err(())) => Recognition::NeedMore,
        Some(Ok(len)) => match bytes.get(RecordHeader::LEN + len..) {
            None => Recognition::NeedMore,
            Some([]) => Recognition::Yes,
            Some(rest) => match plausible(rest) {
                Some(Ok(_)) => Recognition::Yes,
                Some(Err(())) => Recognition::NeedMore,
                None => Recognition::No,
            },
        },
    }
}

/// Octets of nothing known: lines of text by their words, others block by block.
fn unknown(map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
    let text = |octet: &u8| matches!(octet, b' '..=b'~' | b'\t' | b'\r' | b'\n' | 0x80..);
    let begin = &bytes[..bytes.len().min(64)];
    let high = begin.iter().filter(|octet| **octet >= 0x80).count();
    let readable = begin.iter().all(text) && high * 4 <= begin.len();
    if readable {
        let end = bytes.iter().take_while(|octet| text(octet)).count().min(TEXT);
        if end == bytes.len() && end < TEXT && !last {
            return Step::More;
        }
        return Step::ReplaceAndFill(map.lines(&bytes[..end]), u64::MAX);
    }
    if bytes.len() < OCTETS && !last {
        return Step::More;
    }
    let bytes = &bytes[..bytes.len().min(OCTETS)];
    // How it begins may be what it is recognised by: line ends stay.
    let ends = bytes.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
    let mapped = bytes[ends..].chunks(BLOCK).flat_map(|block| {
        let octets = map.opaque(block);
        // No octet that begins a message of any protocol.
        octets.into_iter().map(|octet| octet | 0xc0)
    });
    Step::ReplaceAndFill(bytes[..ends].iter().copied().chain(mapped).collect(), u64::MAX)
}

#[cfg(test)]
mod tests;
