//! What one direction sent and how far the peer took it: the segments in flight, the holes, and the copies made of either.
//!
//! RFC 9293 §3.4. Bounded: the newest segments are merged when there are too many in flight, the oldest hole is forgotten when there are
//! too many holes; both only cost precision in naming the first copy.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::event::{PacketRef, Retransmission};
use crate::time::{Elapsed, Timestamp};
use crate::wire::seq::Seq;

use super::half::Stamp;

/// Segments remembered in flight.
const IN_FLIGHT: usize = 256;
/// Acknowledged segments remembered, so that a needless copy can be shown beside its original.
const HISTORY: usize = 8;
/// Holes remembered.
const HOLES: usize = 64;

/// A segment with payload.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) start: Seq,
    pub(super) len: u32,
    pub(super) first: Stamp,
    pub(super) last: Stamp,
    /// First and last octets folded: tells most conflicting copies without keeping the payload.
    pub(super) print: u64,
    pub(super) copies: u16,
    /// Index of the face the first copy was seen on.
    pub(super) face: u8,
    /// It filled a hole: no round trip can be measured on it.
    pub(super) late: bool,
    /// IP id of the first copy; 0 where there is none.
    pub(super) ip_id: u16,
    /// Segments behind it were added to it, of which nothing is known but their octets.
    pub(super) merged: bool,
}

impl Sent {
    pub(super) fn end(&self) -> Seq {
        self.start.plus(self.len)
    }
}

/// The segments of one direction in sequence order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct InFlight {
    sent: VecDeque<Sent>,
    /// How many at the front are acknowledged.
    acked: usize,
}

impl InFlight {
    /// Octets the segments take.
    pub(super) fn heap(&self) -> usize {
        self.sent.capacity() * size_of::<Sent>()
    }

    /// As new, without giving a little memory back.
    pub(super) fn clear(&mut self) {
        self.sent.clear();
        self.sent.shrink_to(2 * HISTORY);
        self.acked = 0;
    }

    /// Adds a segment that was not seen before.
    pub(super) fn push(&mut self, sent: Sent) {
        if self.sent.len() >= IN_FLIGHT {
            if self.acked > 0 {
                self.sent.pop_front();
                self.acked -= 1;
            } else if let Some(last) = self.sent.back_mut().filter(|last| last.end() == sent.start) {
                last.len = last.len.saturating_add(sent.len);
                (last.late, last.merged) = (true, true);
                return;
            } else {
                return;
            }
        }
        if self.sent.back().is_none_or(|last| !last.start.after(sent.start)) {
            self.sent.push_back(sent);
            return;
        }
        let after = self.sent.iter().rev().take_while(|other| other.start.after(sent.start)).count();
        let index = self.sent.len() - after;
        self.acked = self.acked.min(index);
        self.sent.insert(index, sent);
    }

    /// Notes another copy of `start..end`: the first segment it repeats, as it stood before.
    pub(super) fn copied(&mut self, start: Seq, end: Seq, at: Stamp) -> Option<Sent> {
        let mut original = None;
        for sent in self.sent.iter_mut().rev().take_while(|sent| sent.end().after(start)) {
            if end.after(sent.start) {
                original = Some(*sent);
                sent.copies = sent.copies.saturating_add(1);
                sent.last = at;
            }
        }
        original
    }

    /// The segment that holds the octet at `seq`.
    pub(super) fn at(&self, seq: Seq) -> Option<&Sent> {
        self.sent.iter().rev().find(|sent| !sent.start.after(seq)).filter(|sent| sent.end().after(seq))
    }

    /// Notes that everything before `una` is acknowledged. Returns when the newest of it was sent, unless any of it was sent twice (Karn).
    pub(super) fn acknowledge(&mut self, una: Seq) -> Option<Stamp> {
        let mut sample = None;
        let mut clean = true;
        while let Some(sent) = self.sent.get(self.acked) {
            if sent.end().after(una) {
                break;
            }
            clean &= sent.copies == 1 && !sent.late;
            sample = Some(sent.first);
            self.acked += 1;
        }
        while self.acked > HISTORY {
            self.sent.pop_front();
            self.acked -= 1;
        }
        sample.filter(|_| clean)
    }

    /// The oldest segment that is not acknowledged.
    pub(super) fn oldest(&self) -> Option<&Sent> {
        self.sent.get(self.acked)
    }
}

/// Octets that were passed over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Hole {
    pub(super) start: Seq,
    pub(super) end: Seq,
    /// The packet behind the hole that showed it.
    pub(super) noticed: Stamp,
    /// Its timestamp option and IP id: a late packet has smaller ones, a copy has larger ones.
    pub(super) tsval: Option<u32>,
    pub(super) ip_id: Option<u16>,
    /// The receiver has the octets: its acknowledgment.
    pub(super) acked: Option<PacketRef>,
    /// Told to the floors above as octets the capture never saw.
    pub(super) lost: bool,
}

/// The holes of one direction in sequence order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Holes(Vec<Hole>);

impl Holes {
    /// Octets they take.
    pub(super) fn heap(&self) -> usize {
        self.0.capacity() * size_of::<Hole>()
    }

    /// Adds a hole at the end of what was seen.
    pub(super) fn open(&mut self, hole: Hole) {
        if self.0.len() >= HOLES {
            let oldest = self.0.iter().position(|hole| hole.lost).unwrap_or(0);
            self.0.remove(oldest);
        }
        self.0.push(hole);
    }

    /// Takes `start..end` out of the holes. Returns how many octets were missing until now, and the first hole touched.
    pub(super) fn fill(&mut self, start: Seq, end: Seq) -> (u32, Option<Hole>) {
        let (mut octets, mut first) = (0, None);
        let mut rest = Vec::new();
        self.0.retain_mut(|hole| {
            if !end.after(hole.start) || !hole.end.after(start) {
                return true;
            }
            first.get_or_insert(*hole);
            let stop = if hole.end.after(end) { end } else { hole.end };
            octets += stop.minus(start.max(hole.start)).unsigned_abs();
            let (left, right) = (start.after(hole.start), hole.end.after(end));
            if left && right {
                rest.push(Hole { start: end, ..*hole });
            }
            if left {
                hole.end = start;
            } else if right {
                hole.start = end;
            }
            left || right
        });
        if !rest.is_empty() {
            self.0.append(&mut rest);
            self.0.sort_by(|a, b| a.start.minus(b.start).cmp(&0));
        }
        (octets, first)
    }

    /// Notes that the receiver has everything before `ack`. Whether a hole was concerned that was not before.
    pub(super) fn acknowledge(&mut self, ack: Seq, at: PacketRef) -> bool {
        // A lost hole is kept for packets that come late; far behind, its numbers would come round again.
        self.0.retain(|hole| !hole.lost || ack.minus(hole.end).unsigned_abs() < 1 << 24);
        let mut concerned = false;
        let mut rest = None;
        for hole in self.0.iter_mut().filter(|hole| hole.acked.is_none() && ack.after(hole.start)) {
            if hole.end.after(ack) {
                rest = Some(Hole { start: ack, ..*hole });
                hole.end = ack;
            }
            hole.acked = Some(at);
            concerned = true;
        }
        if let Some(rest) = rest {
            self.0.push(rest);
            self.0.sort_by(|a, b| a.start.minus(b.start).cmp(&0));
        }
        concerned
    }

    /// The next acknowledged hole whose acknowledgment is at least `patience` old; it counts as lost to the capture from now on.
    pub(super) fn confirm(&mut self, now: Timestamp, patience: Elapsed) -> Option<Hole> {
        let ripe = |hole: &Hole| !hole.lost && hole.acked.is_some_and(|at| now.since(at.time) >= patience);
        let hole = self.0.iter_mut().find(|hole| ripe(hole))?;
        hole.lost = true;
        Some(*hole)
    }

    /// Whether an acknowledged hole still waits to be confirmed.
    pub(super) fn waiting(&self) -> bool {
        self.0.iter().any(|hole| !hole.lost && hole.acked.is_some())
    }

    /// Nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether octets before `end` may still come.
    pub(super) fn open_before(&self, end: Seq) -> bool {
        self.0.iter().any(|hole| !hole.lost && end.after(hole.start))
    }

    /// The end of the lost hole that begins at or before `position`.
    pub(super) fn lost_at(&self, position: Seq) -> Option<Seq> {
        let here = |hole: &&Hole| hole.lost && !hole.start.after(position) && hole.end.after(position);
        self.0.iter().find(here).map(|hole| hole.end)
    }
}

/// A copy whose judgement a later DSACK may change.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Copied {
    pub(super) start: Seq,
    pub(super) end: Seq,
    pub(super) kind: Retransmission,
    /// The copy.
    pub(super) at: PacketRef,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(number: u64) -> Stamp {
        Stamp::from(PacketRef { file: 0, number, time: Timestamp(number as i64 * 1_000) })
    }

    fn sent(start: u32, len: u32, number: u64) -> Sent {
        let at = stamp(number);
        let (start, print) = (Seq(start), 0);
        Sent { start, len, first: at, last: at, print, copies: 1, face: 0, late: false, ip_id: 0, merged: false }
    }

    fn hole(start: u32, end: u32) -> Hole {
        let (start, end) = (Seq(start), Seq(end));
        Hole { start, end, noticed: stamp(1), tsval: None, ip_id: None, acked: None, lost: false }
    }

    #[test]
    fn no_round_trip_is_measured_on_a_segment_that_was_sent_twice() {
        let mut flight = InFlight::default();
        flight.push(sent(0, 10, 1));
        flight.push(sent(10, 10, 2));
        assert_eq!(flight.copied(Seq(10), Seq(20), stamp(3)).map(|s| s.first), Some(stamp(2)));
        assert_eq!(flight.acknowledge(Seq(10)).map(Stamp::time), Some(Timestamp(1_000)));
        assert_eq!(flight.acknowledge(Seq(20)), None);
    }

    #[test]
    fn the_oldest_unacknowledged_segment_keeps_its_first_copy() {
        let mut flight = InFlight::default();
        flight.push(sent(0, 10, 1));
        flight.push(sent(10, 10, 2));
        flight.acknowledge(Seq(15));
        flight.copied(Seq(10), Seq(20), stamp(9));
        let oldest = flight.oldest().copied().expect("one is in flight");
        assert_eq!((oldest.first, oldest.last, oldest.copies), (stamp(2), stamp(9), 2));
    }

    #[test]
    fn a_hole_can_be_filled_from_its_middle() {
        let mut holes = Holes::default();
        holes.open(hole(100, 200));
        assert_eq!(holes.fill(Seq(120), Seq(130)).0, 10);
        assert!(holes.open_before(Seq(101)));
        assert_eq!(holes.fill(Seq(90), Seq(300)).0, 90);
        assert!(!holes.open_before(Seq(300)));
    }

    #[test]
    fn only_the_acknowledged_part_of_a_hole_is_lost_to_the_capture() {
        let mut holes = Holes::default();
        holes.open(hole(100, 200));
        let ack = PacketRef { file: 0, number: 5, time: Timestamp(0) };
        assert!(holes.acknowledge(Seq(150), ack));
        assert!(holes.confirm(Timestamp(9_999_999), Elapsed::millis(10)).is_none());
        let lost = holes.confirm(Timestamp(10_000_000), Elapsed::millis(10)).expect("patience is over");
        assert_eq!((lost.start, lost.end), (Seq(100), Seq(150)));
        assert_eq!(holes.lost_at(Seq(120)), Some(Seq(150)));
        assert!(holes.open_before(Seq(200)));
    }
}
