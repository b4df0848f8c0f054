//! The capture on a grid of seconds, and the times in which a host that was asked was not heard.
//!
//! [`Seconds`] counts packets, handshakes, resets and lossy flows per second; beyond its cap the seconds become coarser, never fewer. A
//! [`Silence`] is what one second cannot show: somebody goes on sending and nothing comes back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::PacketRef;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Address;

/// What the whole capture looks like in time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grid {
    /// Counters per second.
    pub seconds: Seconds,
    /// Times of silence in the order (first unanswered packet, host, kind), the first [`Grid::SILENCES`] of them.
    pub silences: Vec<Silence>,
    /// Silences beyond that.
    pub silences_beyond_cap: u64,
    /// Packets of hosts beyond the watch's cap, whose silences nobody noticed.
    pub unwatched: u64,
}

/// Which direction of a host fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Quiet {
    /// Nothing came from the host although others sent to it.
    Mute,
    /// Nothing came to the host although it sent to others.
    Deaf,
}

/// A time in which packets that want an answer were sent again and again, and none came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Whose.
    pub host: Address,
    /// Nothing from it, or nothing to it.
    pub quiet: Quiet,
    /// Last packet before it.
    pub heard: PacketRef,
    /// Packets in the busier of the two ten-second windows before that one.
    pub rate: u32,
    /// First packet that stayed unanswered.
    pub asked: PacketRef,
    /// Latest one.
    pub asked_last: PacketRef,
    /// How many: SYNs, segments with payload or FIN, DNS queries.
    pub asks: u64,
    /// Of these, copies of an earlier one.
    pub repeats: u64,
    /// The first copy of an earlier one.
    pub repeated: PacketRef,
    /// Connections that asked, counted up to 64.
    pub flows: u32,
    /// Connections that repeated themselves, counted up to 64.
    pub repeating: u32,
    /// The hosts on the other side, the first 16 in order of appearance.
    pub others: Vec<Address>,
    /// ARP requests of the host meanwhile, and the first of them.
    pub arp: u64,
    /// First ARP request.
    pub arp_first: Option<PacketRef>,
    /// First packet after it; `None` = the capture ended first.
    pub until: Option<PacketRef>,
}

impl Silence {
    /// From the first unanswered packet to the first packet heard again, or to the capture's end.
    pub fn span(&self, end: Timestamp) -> (Timestamp, Timestamp) {
        (self.asked.time, self.until.map_or(end, |at| at.time))
    }

    fn key(&self) -> (PacketRef, Address, Quiet) {
        (self.asked, self.host, self.quiet)
    }
}

impl Grid {
    /// Silences kept.
    pub const SILENCES: usize = 1024;

    /// Adds a silence in its place.
    pub fn keep(&mut self, silence: Silence) {
        let place = self.silences.partition_point(|known| known.key() <= silence.key());
        self.silences.insert(place, silence);
        if self.silences.len() > Self::SILENCES {
            self.silences.truncate(Self::SILENCES);
            self.silences_beyond_cap += 1;
        }
    }

    /// Adds what another part knows. Associative and commutative.
    pub fn merge(&mut self, other: Self) {
        self.seconds.merge(other.seconds);
        self.silences_beyond_cap += other.silences_beyond_cap;
        self.unwatched += other.unwatched;
        other.silences.into_iter().for_each(|silence| self.keep(silence));
    }
}

/// Counters per second; of a long capture per 2, 4, 8 … seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// Seconds per cell: a power of two.
    pub width: i64,
    /// Cells by the first second they cover.
    pub cells: BTreeMap<i64, Cell>,
}

impl Default for Seconds {
    fn default() -> Self {
        Self { width: 1, cells: BTreeMap::new() }
    }
}

/// What happened in one cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// TCP and UDP packets.
    pub packets: u64,
    /// Octets of them on the wire.
    pub octets: u64,
    /// SYNs, copies included.
    pub syns: u64,
    /// SYN+ACKs, copies included.
    pub answers: u64,
    /// RSTs.
    pub resets: u64,
    /// TCP flows that began.
    pub opened: u64,
    /// TCP flows whose last packet this is.
    pub closed: u64,
    /// TCP flows that had to send something again (timers and SACK, no probes).
    pub lossy: u64,
}

impl Cell {
    fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.octets += other.octets;
        self.syns += other.syns;
        self.answers += other.answers;
        self.resets += other.resets;
        self.opened += other.opened;
        self.closed += other.closed;
        self.lossy += other.lossy;
    }
}

impl Seconds {
    /// Cells kept: more than four hours of single seconds.
    pub const CAP: usize = 16_384;

    /// Adds to the cell of a moment.
    pub fn add(&mut self, second: i64, cell: &Cell) {
        self.cells.entry(second.div_euclid(self.width) * self.width).or_default().add(cell);
        while self.cells.len() > Self::CAP {
            self.widen();
        }
    }

    fn widen(&mut self) {
        self.width = self.width.saturating_mul(2);
        for (second, cell) in std::mem::take(&mut self.cells) {
            self.cells.entry(second.div_euclid(self.width) * self.width).or_default().add(&cell);
        }
    }

    /// Adds another part's cells. Associative and commutative: the width is the smallest under which all cells fit.
    pub fn merge(&mut self, other: Self) {
        while self.width < other.width {
            self.widen();
        }
        other.cells.into_iter().for_each(|(second, cell)| self.add(second, &cell));
    }

    /// Flows open in each cell of `from..=until`, as (first second, flows, cell).
    pub fn open(&self, from: i64, until: i64) -> Vec<(i64, u64, Cell)> {
        let mut open = 0u64;
        let mut out = Vec::new();
        for (second, cell) in &self.cells {
            open += cell.opened;
            if (from..=until).contains(second) {
                out.push((*second, open, *cell));
            }
            open = open.saturating_sub(cell.closed);
        }
        out
    }

    /// Width of a cell.
    pub fn width(&self) -> Elapsed {
        Elapsed::secs(self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_capture_gets_coarser_seconds_and_loses_none() {
        let mut seconds = Seconds::default();
        for second in 0..100_000 {
            seconds.add(second, &Cell { packets: 3, ..Cell::default() });
        }
        assert!(seconds.cells.len() <= Seconds::CAP);
        assert_eq!((seconds.width, seconds.cells.values().map(|cell| cell.packets).sum::<u64>()), (8, 300_000));
    }

    #[test]
    fn merging_does_not_depend_on_the_order() {
        let part = |from: i64| {
            let mut part = Seconds::default();
            (from..from + 12_000).for_each(|second| part.add(second, &Cell { resets: 1, ..Cell::default() }));
            part
        };
        let merged = |order: [i64; 3]| {
            let mut all = Seconds::default();
            order.into_iter().for_each(|from| all.merge(part(from)));
            all
        };
        assert_eq!(merged([0, 9_000, 40_000]), merged([40_000, 0, 9_000]));
    }

    #[test]
    fn open_flows_are_those_that_began_and_did_not_end() {
        let mut seconds = Seconds::default();
        seconds.add(1, &Cell { opened: 5, ..Cell::default() });
        seconds.add(3, &Cell { closed: 2, lossy: 2, ..Cell::default() });
        seconds.add(4, &Cell { packets: 1, ..Cell::default() });
        let open: Vec<(i64, u64)> = seconds.open(3, 9).into_iter().map(|(second, open, _)| (second, open)).collect();
        assert_eq!(open, [(3, 5), (4, 3)]);
    }
}
