//! Flow control of one HTTP/2 connection: how much each side may still send, and which window is closed for long. RFC 9113 §5.2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Emit, index};
use crate::event::{Event, PacketRef, Side, What};
use crate::time::Elapsed;

/// The window of the connection and of every stream until something else is said (§6.9.2).
const INITIAL: i64 = 65_535;
/// Streams whose windows are followed; the oldest is given up beyond.
const STREAMS: usize = 256;
/// A window that is closed for less than this is flow control at work.
const LONG: Elapsed = Elapsed::secs(1);

/// Both directions.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Windows([Sender; 2]);

/// What one side may still send.
#[derive(Debug, Serialize, Deserialize)]
struct Sender {
    /// Nothing was missed: the numbers are true.
    known: bool,
    initial: i64,
    connection: i64,
    streams: BTreeMap<u32, i64>,
    closed: Option<Closed>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Closed {
    /// The stream whose data closed it.
    stream: u32,
    /// It is the connection's.
    whole: bool,
    at: PacketRef,
    told: bool,
}

impl Default for Sender {
    fn default() -> Self {
        Self { known: true, initial: INITIAL, connection: INITIAL, streams: BTreeMap::new(), closed: None }
    }
}

impl Windows {
    /// Frames of a side were missed: what it sent is unknown, and how much it allowed the other.
    pub(super) fn forget(&mut self) {
        for sender in &mut self.0 {
            *sender = Sender { known: false, ..Sender::default() };
        }
    }

    /// A DATA frame of `side` is complete, padding included.
    pub(super) fn data(&mut self, at: PacketRef, side: Side, stream: u32, len: u32, ends: bool) {
        let sender = &mut self.0[index(side)];
        if !sender.known {
            return;
        }
        sender.connection -= i64::from(len);
        let left = sender.streams.get(&stream).copied().unwrap_or(sender.initial) - i64::from(len);
        if ends {
            return sender.over(stream);
        }
        if !sender.streams.contains_key(&stream) && sender.streams.len() == STREAMS {
            sender.streams.pop_first();
        }
        sender.streams.insert(stream, left);
        if (left <= 0 || sender.connection <= 0) && sender.closed.is_none() {
            sender.closed = Some(Closed { stream, whole: left > 0, at, told: false });
        }
    }

    /// `side` allows the other one more.
    pub(super) fn update(&mut self, at: PacketRef, side: Side, stream: u32, more: u32, emit: Emit<'_>) {
        let sender = &mut self.0[index(side.other())];
        if stream == 0 {
            sender.connection += i64::from(more);
        } else if let Some(left) = sender.streams.get_mut(&stream) {
            *left += i64::from(more);
        }
        sender.look(at, side, emit);
    }

    /// `side` announces the first window of the other's streams; those that are open move with it (§6.9.2).
    pub(super) fn settings(&mut self, at: PacketRef, side: Side, initial: u32, emit: Emit<'_>) {
        let sender = &mut self.0[index(side.other())];
        let change = i64::from(initial) - sender.initial;
        sender.initial = initial.into();
        sender.streams.values_mut().for_each(|left| *left += change);
        sender.look(at, side, emit);
    }

    /// A stream is over.
    pub(super) fn over(&mut self, stream: u32) {
        self.0.iter_mut().for_each(|sender| sender.over(stream));
    }

    /// What is closed is told.
    pub(super) fn settle(&mut self, emit: Emit<'_>) {
        for (sender, side) in self.0.iter_mut().zip([Side::Client, Side::Server]) {
            sender.tell(side, emit);
        }
    }

    /// The roles were the wrong way round.
    pub(super) fn flip(&mut self) {
        self.0.swap(0, 1);
    }
}

impl Sender {
    fn over(&mut self, stream: u32) {
        self.streams.remove(&stream);
        self.closed = self.closed.filter(|closed| closed.stream != stream);
    }

    /// Whether the window opened that was closed; `receiver` opened it.
    fn look(&mut self, at: PacketRef, receiver: Side, emit: Emit<'_>) {
        let Some(closed) = self.closed else { return };
        let left = self.streams.get(&closed.stream).copied().unwrap_or(self.initial);
        if left <= 0 || self.connection <= 0 {
            return;
        }
        let after = at.time.since(closed.at.time);
        if after >= LONG {
            self.tell(receiver.other(), emit);
            emit(Event { at, side: receiver, what: What::StreamWindowOpened { stream: closed.stream, after } });
        }
        self.closed = None;
    }

    fn tell(&mut self, side: Side, emit: Emit<'_>) {
        let Some(closed) = self.closed.as_mut() else { return };
        if !std::mem::replace(&mut closed.told, true) {
            let what = What::StreamWindowClosed { stream: closed.stream, whole: closed.whole };
            emit(Event { at: closed.at, side, what });
        }
    }
}
