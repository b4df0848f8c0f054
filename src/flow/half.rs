//! What is kept of one direction: the hot part every packet touches, the trail of firsts and lasts, and the rare part for what went wrong.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::assembler::Assembler;
use super::checksum::Damage;
use super::duplicates::Recent;
use super::facts::{self, Face, Resent, ZeroWindow};
use super::key::Way;
use super::ledger::{Copied, Holes, InFlight};
use super::pace::Pace;
use crate::event::PacketRef;
pub(super) use crate::event::Stamp;
use crate::time::{Elapsed, Timestamp};
use crate::wire::seq::Seq;

/// What is known of a direction, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks(u16);

impl Marks {
    /// The capture has packets of this side: `next`, `delivered` mean something.
    pub(super) const SEEN: Self = Self(1);
    /// Its SYN was seen: its first number is exact.
    pub(super) const SYN: Self = Self(1 << 1);
    /// The peer acknowledged something: `una` means something.
    pub(super) const ACKED: Self = Self(1 << 2);
    /// It sent a FIN.
    pub(super) const FIN: Self = Self(1 << 3);
    /// The peer acknowledged the FIN.
    pub(super) const FIN_ACKED: Self = Self(1 << 4);
    /// The FIN was told to the floors above.
    pub(super) const FIN_TOLD: Self = Self(1 << 5);
    /// It advertised a window: `window` means something.
    pub(super) const WINDOW: Self = Self(1 << 6);
    /// Its latest window is 0.
    pub(super) const CLOSED_WINDOW: Self = Self(1 << 7);
    /// Nobody wants its octets any more.
    pub(super) const DONE: Self = Self(1 << 8);
    /// Its end was told to the floors above.
    pub(super) const ENDED: Self = Self(1 << 9);
    /// Its first payload octets were acknowledged.
    pub(super) const PAYLOAD_ACKED: Self = Self(1 << 10);
    /// Its latest packet is a keep-alive probe without an answer yet.
    pub(super) const KEEPALIVE: Self = Self(1 << 11);
    /// Its latest octet was a zero-window probe: sending it again is no retransmission.
    pub(super) const PROBE: Self = Self(1 << 12);
    /// A hole was acknowledged and waits to be confirmed.
    pub(super) const WAITING: Self = Self(1 << 13);
    /// Its RST broke the connection.
    pub(super) const RESET: Self = Self(1 << 14);
    /// Octets in its SYN were not accepted: sending them again is no retransmission.
    pub(super) const FAST_OPEN_REFUSED: Self = Self(1 << 15);

    /// Whether the bit of `mark` is set.
    pub(super) fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// Sets it; `true` when it was not set.
    pub(super) fn set(&mut self, mark: Self) -> bool {
        let new = !self.has(mark);
        self.0 |= mark.0;
        new
    }

    /// Clears it; `true` when it was set.
    pub(super) fn clear(&mut self, mark: Self) -> bool {
        let was = self.has(mark);
        self.0 &= !mark.0;
        was
    }
}

/// The hot part of one direction. Sequence numbers are 32 bits as on the wire; octets are counted in 64, so a wrap loses nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Track {
    pub(super) last: Option<Stamp>,
    /// Latest packet with new payload.
    pub(super) last_payload: Option<Stamp>,
    pub(super) octets: u64,
    /// Payload octets, copies included.
    pub(super) sent: u64,
    /// Payload octets once.
    pub(super) payload: u64,
    /// Payload octets the peer acknowledged.
    pub(super) acknowledged: u64,
    /// Saturate at 2³² - 1.
    pub(super) packets: u32,
    pub(super) segments: u32,
    /// After everything sent.
    pub(super) next: Seq,
    /// Highest number the peer acknowledged.
    pub(super) una: Seq,
    /// Up to here the octets were handed on.
    pub(super) delivered: Seq,
    /// Latest advertised window, scaled.
    pub(super) window: u32,
    /// Smoothed time from a segment to its acknowledgment, in microseconds; 0 = never measured.
    pub(super) srtt: u32,
    pub(super) marks: Marks,
    pub(super) scale: u8,
    pub(super) ttl_min: u8,
    pub(super) ttl_max: u8,
    /// Duplicate acknowledgments for this direction in a row.
    pub(super) dupacks: u8,
    /// Index of the face of its latest packet.
    pub(super) face: u8,
}

/// One copy of a SYN or SYN+ACK.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct SynCopy {
    pub(super) at: Stamp,
    pub(super) tsval: Option<u32>,
}

/// What the sender's own clock told (TSval, RFC 7323 §3.2): its first and its latest value.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Clock {
    pub(super) first: Stamp,
    pub(super) last: Stamp,
    pub(super) first_value: u32,
    pub(super) last_value: u32,
}

impl Clock {
    /// Works one value in. A value older than the latest one came late and tells nothing.
    pub(super) fn note(clock: &mut Option<Self>, at: Stamp, value: u32) {
        match clock {
            None => *clock = Some(Self { first: at, last: at, first_value: value, last_value: value }),
            Some(clock) if Seq(value).minus(Seq(clock.last_value)) >= 0 => (clock.last, clock.last_value) = (at, value),
            Some(_) => {}
        }
    }

    /// As the facts tell it.
    pub(super) fn facts(self) -> facts::SenderClock {
        let ticks = self.last_value.wrapping_sub(self.first_value);
        facts::SenderClock { first: self.first.packet(), last: self.last.packet(), ticks }
    }
}

/// The part of one direction that is touched at its turning points. In this order: what nearly every packet looks at lies together.
#[derive(Debug, Default, Serialize, Deserialize)]
#[repr(C)]
pub(super) struct Trail {
    pub(super) recent: Recent,
    /// Checksums of its first segments looked at, and wrong ones.
    pub(super) checksums: (u8, u8),
    /// Of how many further segments the checksum will be looked at.
    pub(super) more_checksums: u16,
    /// IP id of the latest packet, and whether all ids so far went up in small steps.
    pub(super) ip_id: Option<u16>,
    pub(super) isn: Seq,
    /// Number of its first payload octet.
    pub(super) payload_begins: Seq,
    pub(super) clock: Option<Clock>,
    pub(super) faces: SmallVec<[Face; 1]>,
    pub(super) first: Option<Stamp>,
    pub(super) flight: InFlight,
    /// What holds it up, once that can be told.
    pub(super) pace: Option<Box<Pace>>,
    pub(super) rare: Option<Box<Rare>>,
    pub(super) min_rtt: Option<Elapsed>,
    pub(super) first_payload: Option<Stamp>,
    pub(super) first_payload_acked: Option<Stamp>,
    pub(super) mss: Option<u16>,
    pub(super) window_scale: Option<u8>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
    pub(super) ttl_first: u8,
    pub(super) syn_count: u32,
    pub(super) syns: SmallVec<[SynCopy; 1]>,
    pub(super) fin: Option<Stamp>,
    pub(super) fin_last: Option<Stamp>,
    /// Number of the FIN.
    pub(super) fin_seq: Seq,
    pub(super) fin_count: u32,
    pub(super) fin_acked: Option<Stamp>,
}

/// What most directions never need.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Rare {
    /// Empty in a flow that is frozen.
    #[serde(skip)]
    pub(super) assembler: Assembler,
    pub(super) holes: Holes,
    pub(super) loss: facts::Loss,
    pub(super) copied: VecDeque<Copied>,
    /// Latest retransmission, and what was acknowledged then.
    pub(super) last_copy: Option<(Timestamp, Seq, crate::event::Retransmission)>,
    /// Highest octet the peer reported by SACK.
    pub(super) sacked: Option<Seq>,
    /// Octets its latest SACK reported beyond its acknowledgment number.
    pub(super) sacked_octets: u32,
    pub(super) reordered: u32,
    pub(super) keepalives: u32,
    pub(super) keepalives_answered: u32,
    pub(super) zero_windows: Vec<ZeroWindow>,
    pub(super) zero_window_count: u32,
    pub(super) zero_window_since: Option<Stamp>,
    /// Probes the peer sent into this side's closed window.
    pub(super) zero_window_probes: u32,
    pub(super) unseen: u64,
    pub(super) unseen_acks: u32,
    pub(super) unseen_first: Option<PacketRef>,
    pub(super) unseen_last: Option<PacketRef>,
    pub(super) overlap_conflicts: u32,
    pub(super) held_dropped: u64,
    pub(super) cut: u64,
    pub(super) cut_first: Option<PacketRef>,
    pub(super) oversized: u32,
    pub(super) oversized_first: Option<PacketRef>,
    pub(super) checksum_first: Option<PacketRef>,
    pub(super) damage: Option<Box<Damage>>,
    /// It was told that octets were passed over.
    pub(super) passed_over: bool,
    pub(super) resets: Vec<facts::Reset>,
    pub(super) reset_count: u32,
    /// Kinds of RST already told, one bit each.
    pub(super) resets_told: u8,
}

/// The trails of both directions. The second is made when its first packet comes: most flows of a scan or a flood never have one.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Trails {
    first: Trail,
    /// Whose trail `first` is, once it has begun.
    way: Way,
    begun: bool,
    second: Option<Box<Trail>>,
}

/// The trail of a direction that was never seen.
static UNSEEN: LazyLock<Trail> = LazyLock::new(Trail::default);

/// The rare part of a direction to which nothing rare happened.
pub(super) static NOTHING: LazyLock<Rare> = LazyLock::new(Rare::default);

impl Trails {
    /// As new, without giving its memory back.
    pub(super) fn clear(&mut self) {
        self.first.clear();
        self.begun = false;
        if let Some(second) = &mut self.second {
            second.clear();
        }
    }

    /// Octets they take beside themselves, without those held behind holes.
    pub(super) fn heap(&self) -> usize {
        self.first.heap() + self.second.as_ref().map_or(0, |second| size_of::<Trail>() + second.heap())
    }
}

impl Index<Way> for Trails {
    type Output = Trail;
    #[inline]
    fn index(&self, way: Way) -> &Trail {
        if self.way == way { &self.first } else { self.second.as_deref().unwrap_or_else(|| &UNSEEN) }
    }
}

impl IndexMut<Way> for Trails {
    #[inline]
    fn index_mut(&mut self, way: Way) -> &mut Trail {
        if !self.begun {
            (self.begun, self.way) = (true, way);
        }
        if self.way == way { &mut self.first } else { self.second.get_or_insert_default() }
    }
}

impl Trail {
    /// As new, but for the room of its segments.
    fn clear(&mut self) {
        let mut flight = std::mem::take(&mut self.flight);
        flight.clear();
        *self = Self { flight, ..Self::default() };
    }

    fn heap(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |rare| size_of::<Rare>() + rare.heap());
        let faces = if self.faces.spilled() { size_of::<Face>() * self.faces.capacity() } else { 0 };
        let syns = if self.syns.spilled() { size_of::<SynCopy>() * self.syns.capacity() } else { 0 };
        let pace = self.pace.as_ref().map_or(0, |_| size_of::<Pace>());
        rare + faces + syns + pace + self.flight.heap()
    }

    /// The rare part, made on first need.
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

impl Rare {
    fn heap(&self) -> usize {
        self.copied.capacity() * size_of::<Copied>()
            + self.zero_windows.capacity() * size_of::<ZeroWindow>()
            + self.resets.capacity() * size_of::<facts::Reset>()
            + self.holes.heap()
            + self.damage.as_ref().map_or(0, |_| size_of::<Damage>())
    }

    /// Adds one of the three worst copies by gap.
    pub(super) fn worst(&mut self, resent: Resent) {
        let worst = &mut self.loss.worst;
        let index = worst.iter().position(|other| resent.gap > other.gap).unwrap_or(worst.len());
        worst.insert(index, resent);
        worst.truncate(3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_on_beyond_its_wrap_and_a_late_value_does_not_turn_it_back() {
        let at = |number| Stamp::from(PacketRef { file: 0, number, time: Timestamp(0) });
        let mut clock = None;
        for (number, value) in [(1, u32::MAX - 9), (2, 90), (3, 80)] {
            Clock::note(&mut clock, at(number), value);
        }
        let told = clock.map(Clock::facts).expect("a clock");
        assert_eq!((told.first.number, told.last.number, told.ticks), (1, 2, 100));
    }
}
