//! HTTP/2 in the clear on both sides: frames are read, header blocks decoded, bodies stepped over. RFC 9113.
//!
//! A connection whose beginning was not captured, or that has a hole, is read on from the next segment that begins with frames. What its
//! header fields refer to may be unknown then; that is told once for each side.

use serde::{Deserialize, Serialize};

use super::streams::{Outcome, Streams};
use super::windows::Windows;
use super::{Analyzer, Emit, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::Wants;
use crate::wire::h2::{Found, FrameHeader, FrameReader, GoAway, Settings, block_part, flag, kind};
use crate::wire::hpack::{Decoder, Field};
use crate::wire::http::{PREFACE, RequestHead, grpc_status, request_of, response_of};

/// Longest header block that is put together.
const LONGEST_BLOCK: usize = 64 * 1024;

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<Http2>::default()
}

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Http2 {
    sides: [Half; 2],
    streams: Streams,
    windows: Windows,
}

#[derive(Default, Serialize, Deserialize)]
struct Half {
    begin: Begin,
    reader: FrameReader,
    /// Of the header blocks that this side sends.
    decoder: Decoder,
    block: Option<Block>,
    /// The protocol is to be told: it was HTTP/1 before.
    announce: bool,
    settings_told: bool,
    taken_told: bool,
    blind_told: bool,
}

/// How a side begins.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
enum Begin {
    /// So many octets of the preface were there.
    Preface(usize),
    /// The first frame comes.
    #[default]
    First,
    Over,
}

/// A header block that is not complete yet.
#[derive(Serialize, Deserialize)]
struct Block {
    header: FrameHeader,
    octets: Vec<u8>,
    /// It was longer than is held, or a part of it made no sense.
    broken: bool,
}

impl Http2 {
    /// A connection that was HTTP/1 until the server agreed to `request`'s upgrade: that is stream 1. RFC 7540 §3.2.
    pub(super) fn upgraded((at, head): (PacketRef, RequestHead), emit: Emit<'_>) -> Self {
        let mut new = Self::default();
        new.sides.iter_mut().for_each(|half| half.announce = true);
        new.streams.request(at, RequestHead { stream: 1, upgrade: None, ..head }, emit);
        new.streams.end(at, Side::Client, 1, emit);
        new
    }
}

impl Analyzer for Http2 {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let half = &mut self.sides[index(side)];
        if std::mem::take(&mut half.announce) {
            emit(Event { at, side, what: What::Recognised { protocol: Protocol::Http2 } });
        }
        let mut rest = half.preface(side, bytes);
        while !rest.is_empty() {
            let (used, found) = self.sides[index(side)].reader.next(rest);
            rest = rest.get(used..).unwrap_or(&[]);
            match found {
                Found::Nothing => {}
                Found::Begun(header) => self.begun(side, header),
                Found::Passed(header) => self.ended(side, at, header, emit),
                Found::Whole(header, payload) => {
                    self.begun(side, header);
                    self.frame(side, at, header, &payload, emit);
                }
            }
        }
        Wants::More
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        let half = &mut self.sides[index(side)];
        if matches!(half.begin, Begin::Over) && half.reader.gap(missing) {
            return Wants::More;
        }
        half.reader.gap(missing);
        half.begin = Begin::Over;
        half.block = None;
        half.decoder.forget();
        self.windows.forget();
        self.streams.lost();
        Wants::More
    }

    fn end(&mut self, _side: Side, _at: PacketRef, _emit: Emit<'_>) {}

    fn settle(&mut self, emit: Emit<'_>) {
        self.streams.settle(emit);
        self.windows.settle(emit);
    }

    fn held(&self) -> usize {
        let side = |half: &Half| {
            let block = half.block.as_ref().map_or(0, |block| block.octets.capacity());
            half.reader.held() + half.decoder.weight() + block
        };
        self.sides.iter().map(side).sum::<usize>() + self.streams.weight()
    }

    fn freeze(&self, into: &mut Freezer) -> bool {
        into.put(self).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        from.take().map(|known| *self = known).is_some()
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
        self.windows.flip();
    }
}

impl Half {
    /// Steps over the preface with which a client begins. A side that begins with anything but it and SETTINGS is in its middle.
    fn preface<'a>(&mut self, side: Side, bytes: &'a [u8]) -> &'a [u8] {
        let mut seen = match self.begin {
            Begin::First if side == Side::Client && bytes.first() == PREFACE.first() => 0,
            Begin::Preface(seen) => seen,
            Begin::First | Begin::Over => return bytes,
        };
        let left = PREFACE.get(seen..).unwrap_or_default();
        let used = left.len().min(bytes.len());
        seen += used;
        self.begin = if seen < PREFACE.len() { Begin::Preface(seen) } else { Begin::First };
        bytes.get(used..).unwrap_or_default()
    }
}

impl Http2 {
    /// A frame's header was read.
    fn begun(&mut self, side: Side, header: FrameHeader) {
        let half = &mut self.sides[index(side)];
        if matches!(std::mem::replace(&mut half.begin, Begin::Over), Begin::First)
            && (header.kind != kind::SETTINGS || header.has(flag::ACK))
        {
            half.decoder.forget();
            self.windows.forget();
            self.streams.lost();
        }
        // Its header block is too long to be put together.
        let lost = matches!(header.kind, kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION);
        if lost && header.len as usize > LONGEST_BLOCK {
            half.decoder.forget();
            half.block = None;
        }
    }

    /// A frame that was stepped over is complete.
    fn ended(&mut self, side: Side, at: PacketRef, header: FrameHeader, emit: Emit<'_>) {
        if header.kind == kind::DATA {
            self.windows.data(at, side, header.stream, header.len, header.ends_stream());
        }
        if header.ends_stream() {
            self.streams.end(at, side, header.stream, emit);
        }
    }

    fn frame(&mut self, side: Side, at: PacketRef, header: FrameHeader, payload: &[u8], emit: Emit<'_>) {
        match header.kind {
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => self.block(side, at, header, payload, emit),
            kind::DATA => self.ended(side, at, header, emit),
            kind::SETTINGS => self.settings(side, at, header, payload, emit),
            kind::RST_STREAM => {
                self.windows.over(header.stream);
                if let Some(code) = payload.first_chunk::<4>() {
                    self.streams.reset(at, side, header.stream, u32::from_be_bytes(*code), emit);
                }
            }
            kind::WINDOW_UPDATE => {
                if let Some(more) = payload.first_chunk::<4>() {
                    let more = u32::from_be_bytes(*more) & 0x7fff_ffff;
                    self.windows.update(at, side, header.stream, more, emit);
                }
            }
            kind::GOAWAY => {
                if let Ok(away) = GoAway::parse(payload) {
                    self.streams.farewell(at, side, away, emit);
                }
            }
            _ => {}
        }
    }

    fn settings(&mut self, side: Side, at: PacketRef, header: FrameHeader, payload: &[u8], emit: Emit<'_>) {
        let mut tell = |told: &mut bool, what| {
            if !std::mem::replace(told, true) {
                emit(Event { at, side, what });
            }
        };
        let half = &mut self.sides[index(side)];
        if header.has(flag::ACK) {
            return tell(&mut half.taken_told, What::SettingsTaken);
        }
        let settings = Settings::parse(payload);
        tell(&mut half.settings_told, What::Settings(settings));
        if let (Side::Server, Some(limit)) = (side, settings.concurrent) {
            self.streams.permits(at, limit);
        }
        if let Some(window) = settings.window {
            self.windows.settings(at, side, window, emit);
        }
        if let Some(size) = settings.header_table {
            self.sides[index(side.other())].decoder.allow(size);
        }
    }

    /// A part of a header block. Nothing else comes between its parts (RFC 9113 §6.10).
    fn block(&mut self, side: Side, at: PacketRef, header: FrameHeader, payload: &[u8], emit: Emit<'_>) {
        let half = &mut self.sides[index(side)];
        let part = block_part(&header, payload);
        if header.kind != kind::CONTINUATION {
            half.block = Some(Block { header, octets: Vec::new(), broken: false });
        }
        // The beginning of it is in a hole: the table cannot be followed.
        let Some(block) = &mut half.block else { return half.decoder.forget() };
        match part {
            Ok(part) if block.octets.len() + part.len() <= LONGEST_BLOCK => block.octets.extend_from_slice(part),
            _ => block.broken = true,
        }
        if !header.has(flag::END_HEADERS) {
            return;
        }
        let Some(Block { header, octets, broken }) = half.block.take() else { return };
        let mut fields = Vec::new();
        if broken {
            half.decoder.forget();
        } else {
            // What was read before octets that make no sense still stands.
            let _ = half.decoder.block(&octets, &mut fields);
        }
        let hidden = broken || fields.iter().any(|field| field.name.starts_with(b"?"));
        if (hidden || fields.is_empty()) && half.decoder.is_blind() && !std::mem::replace(&mut half.blind_told, true) {
            emit(Event { at, side, what: What::FieldsUnknown });
        }
        if header.kind == kind::HEADERS {
            self.head(side, at, header, &fields, octets.len() as u32, emit);
        }
    }

    /// A whole header block of a stream.
    fn head(&mut self, side: Side, at: PacketRef, header: FrameHeader, fields: &[Field], len: u32, emit: Emit<'_>) {
        let number = header.stream;
        match side {
            Side::Client => self.streams.request(at, request_of(number, fields, len), emit),
            Side::Server => {
                let trailers = self.streams.is_answered(number);
                if !trailers {
                    self.streams.response(at, response_of(number, fields, len), emit);
                }
                if let Some((status, message)) = grpc_status(fields) {
                    self.streams.grpc(at, number, Outcome { status, message, at_once: !trailers }, emit);
                }
            }
        }
        if header.ends_stream() {
            self.streams.end(at, side, number, emit);
        }
    }
}

#[cfg(test)]
mod tests;
