//! The streams of one HTTP/2 connection: which events of them are told.
//!
//! A connection may carry millions of exchanges, and a story holds few events. The first ones are told as they happen; later ones are held
//! back and told only when something about them is unusual: an error status, a slow answer, a reset, a failed call. When the connection
//! ends, or is to be judged while it is open, what is outstanding is told, or else the latest exchange that was complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Emit;
use super::exchanges::held_back;
use super::room::Room;
use crate::event::h2::{Farewell, GrpcStatus, Stream, StreamReset};
use crate::event::{Event, PacketRef, Side, What};
use crate::time::Elapsed;
use crate::wire::h2::GoAway;
use crate::wire::http::{RequestHead, ResponseHead, is_grpc};
use crate::wire::text_of;

/// Exchanges that are told as they happen: with the beginning of a connection they fill the first part of a story.
const TOLD: u32 = 10;
/// Streams without an end that are followed; the oldest is given up beyond.
const OPEN: usize = 256;
/// Events held back of one exchange.
const HELD: usize = 8;
/// An answer is unusual when its head comes that much later than the head of its request: well below what any rule calls slow.
const SLOW: Elapsed = Elapsed::millis(500);
/// Resets and failed calls that are told one by one.
const EACH: u32 = 8;
/// So many resets in one second are told once more.
const FLOOD: u32 = 100;
/// GOAWAY frames of one side that are told.
const FAREWELLS: u32 = 4;
/// Streams listed in one.
const LISTED: usize = 8;

/// The streams of one connection.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Streams {
    begun: u32,
    answered: u32,
    open: BTreeMap<u32, Open>,
    /// The latest complete exchange, if it was held back.
    latest: Vec<Event>,
    resets: [Resets; 2],
    /// GOAWAY frames of each side.
    farewells: [u32; 2],
    /// gRPC calls that ended, and of these failed.
    calls: (u32, u32),
    room: Option<Room>,
    /// Frames are missing: how many streams are open is not known.
    lost: bool,
}

/// The status of a gRPC call.
pub(super) struct Outcome {
    pub(super) status: u32,
    pub(super) message: String,
    /// It came with the head of the answer.
    pub(super) at_once: bool,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Open {
    stream: Stream,
    loud: bool,
    held: Vec<Event>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Resets {
    count: u32,
    second: i64,
    in_second: u32,
}

impl Streams {
    /// Octets that its open streams take, about: what an event that is held back points to is a head.
    pub(super) fn weight(&self) -> usize {
        let open = |stream: &Open| size_of::<Open>() + stream.stream.request.capacity() + held_back(&stream.held);
        self.open.values().map(open).sum::<usize>() + held_back(&self.latest)
    }

    /// A request head was read.
    pub(super) fn request(&mut self, at: PacketRef, head: RequestHead, emit: Emit<'_>) {
        let number = head.stream;
        // Requests have odd numbers (RFC 9113 §5.1.1); a second block of one holds trailers.
        if number.is_multiple_of(2) || self.open.contains_key(&number) {
            return;
        }
        self.begun += 1;
        if self.open.len() == OPEN {
            self.open.pop_first();
        }
        let stream = Stream {
            number,
            asked: Some(at),
            request: text_of(format!("{} {}", head.method, path(&head.target)).as_bytes(), 128).into(),
            grpc: head.grpc,
            patience: head.patience,
            ..Stream::default()
        };
        self.open.insert(number, Open { stream, loud: self.begun <= TOLD, held: Vec::new() });
        self.fill(at, emit);
        self.tell(number, Event { at, side: Side::Client, what: What::Request(Box::new(head)) }, false, emit);
    }

    /// A response head was read.
    pub(super) fn response(&mut self, at: PacketRef, head: ResponseHead, emit: Emit<'_>) {
        let (number, last) = (head.stream, head.is_final());
        let Some(open) = self.open.get_mut(&number).filter(|open| !open.stream.answered) else {
            return;
        };
        open.stream.answered = last;
        let slow = open.stream.asked.is_none_or(|asked| at.time.since(asked.time) >= SLOW);
        let strange = open.stream.grpc && !is_grpc(head.content_type.as_deref().map(str::as_bytes));
        self.answered += u32::from(last);
        let unusual = slow || strange || !matches!(head.status, 0 | 100 | 102..400);
        self.tell(number, Event { at, side: Side::Server, what: What::Response(Box::new(head)) }, unusual, emit);
    }

    /// Whether the head of the final answer of a stream was read.
    pub(super) fn is_answered(&self, number: u32) -> bool {
        self.open.get(&number).is_some_and(|open| open.stream.answered)
    }

    /// The status of a gRPC call was read.
    pub(super) fn grpc(&mut self, at: PacketRef, number: u32, call: Outcome, emit: Emit<'_>) {
        let Outcome { status, message, at_once } = call;
        self.calls.0 = self.calls.0.saturating_add(1);
        if status == 0 {
            return;
        }
        self.calls.1 = self.calls.1.saturating_add(1);
        let (ended, failed) = self.calls;
        let Some(open) = self.open.get(&number).filter(|_| worth_telling(failed)) else { return };
        let stream = Stream { grpc: true, ..open.stream.clone() };
        let status = GrpcStatus { stream, status, message, at_once, failed, ended };
        self.tell(number, Event { at, side: Side::Server, what: What::GrpcStatus(Box::new(status)) }, true, emit);
    }

    /// One direction of a stream is complete.
    pub(super) fn end(&mut self, at: PacketRef, side: Side, number: u32, emit: Emit<'_>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        match side {
            Side::Client => open.stream.request_end = Some(at),
            Side::Server => open.stream.answer_ended = true,
        }
        let over = open.stream.request_end.is_some() && open.stream.answer_ended;
        self.tell(number, Event { at, side, what: What::StreamEnd { stream: number } }, false, emit);
        if over {
            self.latest = self.open.remove(&number).map(|open| open.held).unwrap_or_default();
            self.free(at);
        }
    }

    /// A side resets a stream.
    pub(super) fn reset(&mut self, at: PacketRef, side: Side, number: u32, code: u32, emit: Emit<'_>) {
        let leaving = self.farewells[super::index(side)] > 0;
        let resets = &mut self.resets[super::index(side)];
        resets.count = resets.count.saturating_add(1);
        if resets.second != at.time.second() {
            (resets.second, resets.in_second) = (at.time.second(), 0);
        }
        resets.in_second += 1;
        let Resets { count: nth, in_second, .. } = *resets;
        let Open { stream, held, loud } = self.open.remove(&number).unwrap_or_default();
        self.free(at);
        // A request that was told must not look as if it waited.
        if !loud && !worth_telling(nth) && in_second != FLOOD {
            return;
        }
        held.into_iter().for_each(&mut *emit);
        let stream = Stream { number, ..stream };
        let reset = StreamReset { stream, code, nth, in_second, leaving };
        emit(Event { at, side, what: What::StreamReset(Box::new(reset)) });
    }

    /// A side takes no more streams.
    pub(super) fn farewell(&mut self, at: PacketRef, side: Side, away: GoAway, emit: Emit<'_>) {
        let count = &mut self.farewells[super::index(side)];
        *count = count.saturating_add(1);
        if *count > FAREWELLS {
            return;
        }
        self.settle(emit);
        let unfinished = || self.open.values().map(|open| &open.stream).filter(|stream| !stream.answer_ended);
        // A client names streams that the server pushed: it refuses no request of its own.
        let beyond = |stream: &&Stream| side == Side::Server && stream.number > away.last;
        let refused = unfinished().filter(beyond).take(LISTED).cloned().collect();
        let waiting = unfinished().filter(|stream| !beyond(stream)).take(LISTED).cloned().collect();
        let farewell = Farewell { away, refused, waiting, answered: self.answered };
        emit(Event { at, side, what: What::GoAway(Box::new(farewell)) });
    }

    /// What is outstanding is told, and the latest exchange.
    pub(super) fn settle(&mut self, emit: Emit<'_>) {
        self.tell_full(emit);
        self.latest.drain(..).for_each(&mut *emit);
        for open in self.open.values_mut() {
            open.loud = true;
            open.held.drain(..).for_each(&mut *emit);
        }
    }

    /// The server permits so many streams at once.
    pub(super) fn permits(&mut self, at: PacketRef, limit: u32) {
        // More are not followed.
        let limit = Some(limit).filter(|limit| !self.lost && (1..OPEN as u32).contains(limit));
        match (&mut self.room, limit) {
            (Some(room), Some(limit)) => room.change(limit, at),
            (room, limit) => *room = limit.map(|limit| Room::new(limit, at)),
        }
    }

    /// Frames are missing.
    pub(super) fn lost(&mut self) {
        (self.lost, self.room) = (true, None);
    }

    fn fill(&mut self, at: PacketRef, emit: Emit<'_>) {
        let open = self.open.len() as u32;
        if self.room.as_mut().is_some_and(|room| room.begun(at, open)) {
            self.tell_full(emit);
        }
    }

    fn free(&mut self, at: PacketRef) {
        let open = self.open.len() as u32;
        if let Some(room) = &mut self.room {
            room.ended(at, open);
        }
    }

    fn tell_full(&mut self, emit: Emit<'_>) {
        let Some(room) = &mut self.room else { return };
        let unanswered = self.open.values().filter(|open| !open.stream.answered).count() as u32;
        if let Some((at, full)) = room.tell(unanswered) {
            emit(Event { at, side: Side::Client, what: What::StreamsFull(Box::new(full)) });
        }
    }

    fn tell(&mut self, number: u32, event: Event, unusual: bool, emit: Emit<'_>) {
        let Some(open) = self.open.get_mut(&number) else { return };
        if !open.loud && !unusual && open.held.len() < HELD {
            return open.held.push(event);
        }
        open.loud = true;
        open.held.drain(..).for_each(&mut *emit);
        emit(event);
    }
}

/// The first few, then every doubling.
fn worth_telling(nth: u32) -> bool {
    nth <= EACH || nth.is_power_of_two()
}

/// Queries may hold secrets. A placeholder of a header table begins with a question mark.
fn path(target: &str) -> &str {
    if target.starts_with('?') {
        return target;
    }
    target.split('?').next().unwrap_or(target)
}
