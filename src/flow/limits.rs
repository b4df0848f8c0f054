//! How much a flow table may hold and for how long, and what it has to say about that.

use super::tombstone::Tombstones;
use crate::time::Elapsed;

/// How much a table may hold and how long. Reaching a cap is counted ([`Counts`]), never silent.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Flows at one time. Then the least interesting goes first: closed and healthy, else closed, else the longest idle of a sample.
    pub max_flows: usize,
    /// Octets held behind holes for one direction. 256 KiB is four times the window without scaling.
    pub held_octets_per_direction: usize,
    /// The same for all flows together.
    pub held_octets_total: usize,
    /// A closed flow is reported so long after its latest packet; late copies and RSTs still count for it.
    pub closed_linger: Elapsed,
    /// The same for a flow of which nothing more is due, both FINs being acknowledged. Long
    /// enough for the copies that `-i any` and mirror ports make; short, because what leaves soon leaves from the processor's cache.
    pub settled_linger: Elapsed,
    /// After that, late packets are swallowed for so long instead of opening a flow. Linux keeps TIME_WAIT for 60 s.
    pub tombstone: Elapsed,
    /// A flow without handshake and payload ends after so long. Linux gives up a SYN after 134 s (68 s after the last one).
    pub syn_expiry: Elapsed,
    /// An open flow ends after so long in silence.
    pub established_expiry: Elapsed,
    /// A UDP flow ends after so long in silence.
    pub udp_expiry: Elapsed,
    /// The same for a DNS exchange in which every query has its answer: long enough for a second answer that took another way.
    pub answered_linger: Elapsed,
    /// Listening ends remembered, as a hint for the roles of flows that began before the capture. 0: no hint; then the roles depend on the
    /// flow's own packets only, however flows are shared out between tables.
    pub listeners: usize,
    /// From so many flows on, and packets in the batch they came with, the packets of those that begin are put aside, and such a flow is
    /// worked in at once when it is over, or after a second. Nothing else shows of it.
    pub gathered_from: usize,
    /// From so many SYNs without an answer on, flows of which only one SYN was seen are kept packed. Nothing else shows of it.
    pub packed_from: usize,
    /// From so many open flows on, those that are idle are frozen. Nothing else shows of it. Ordinary captures never have so many.
    pub frozen_from: usize,
    /// How long they are idle then, at most: the more are open, the shorter.
    pub frozen_after: Elapsed,
    /// Octets the table may take, by its own estimate ([`super::table::FlowTable::memory`]). Then flows leave as they do at `max_flows`.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 1_000_000,
            held_octets_per_direction: 256 << 10,
            held_octets_total: 64 << 20,
            closed_linger: Elapsed::secs(5),
            settled_linger: Elapsed::millis(100),
            answered_linger: Elapsed::millis(250),
            tombstone: Elapsed::secs(60),
            syn_expiry: Elapsed::secs(185),
            established_expiry: Elapsed::secs(24 * 3600),
            udp_expiry: Elapsed::secs(60),
            listeners: 65_536,
            gathered_from: 64,
            packed_from: 256,
            frozen_from: 1024,
            frozen_after: Elapsed::secs(1),
            memory: Self::of_tables(2 << 30),
        }
    }
}

impl Limits {
    /// What a run takes beside its flow tables: the program, buffers, services, watched hosts, digests, flows kept whole, and in
    /// the end the report.
    const REST: usize = 96 << 20;

    /// Room in pages that are not full, at most.
    const EMPTY: usize = 32 << 20;

    /// A whole run may take `octets`.
    pub fn allow(&mut self, octets: usize) {
        self.memory = Self::of_tables(octets);
    }

    /// What the tables may take of a run's `octets`. Of flows that differ much the allocator leaves pages half empty: an eighth of what
    /// they hold, but no more than that of a hundred thousand flows.
    const fn of_tables(octets: usize) -> usize {
        let (left, least) = (octets.saturating_sub(Self::REST), octets / 4);
        let empty = if left / 8 < Self::EMPTY { left / 8 } else { Self::EMPTY };
        if left - empty > least { left - empty } else { least }
    }

    /// Reported flows remembered: at most a quarter of the memory.
    pub(super) fn tombstones(&self) -> usize {
        self.max_flows.min(self.memory / 4 / Tombstones::WEIGHT)
    }
}

/// Octets a hash table takes that held so many entries at most. What it says itself depends on the seed of the hash; who has to leave
/// must not.
pub(super) fn index_octets(most: usize, entry: usize) -> usize {
    (most * 8 / 7 + 1).next_power_of_two() * (entry + 1)
}

/// What the table has to say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows opened.
    pub opened: u64,
    /// Flows that left because of the cap.
    pub evicted: u64,
    /// Flows that left because of the memory they took together.
    pub relieved: u64,
    /// Octets not waited for because of the caps on held octets.
    pub held_dropped: u64,
    /// Packets of flows already reported.
    pub late: u64,
    /// Copies made by the capture.
    pub duplicates: u64,
    /// ICMP errors whose flow is not in the table.
    pub icmp_unmatched: u64,
    /// Most flows at one time.
    pub peak_flows: usize,
    /// Most octets held at one time.
    pub peak_held: usize,
}

/// What all flows of a table share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) counts: Counts,
    /// Octets held behind holes.
    pub(super) held: usize,
    /// Flows that began with a SYN nobody answered yet, without the packed ones.
    pub(super) unanswered: usize,
    /// What the flows among the places weigh together, without the octets held.
    pub(super) weight: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tables_may_take_leaves_room_for_the_rest_and_for_pages_that_are_not_full() {
        let mut limits = Limits::default();
        let allowed = [(128, 32), (256, 140), (512, 384), (2048, 1920)];
        for (mib, tables) in allowed {
            limits.allow(mib << 20);
            assert_eq!(limits.memory, tables << 20, "of {mib} MiB");
        }
        assert_eq!(limits.memory, Limits::default().memory);
    }

    #[test]
    fn reported_flows_take_a_quarter_at_most() {
        let limits = Limits { memory: 10 << 20, ..Limits::default() };
        assert!(limits.tombstones() > 29_000 && limits.tombstones() * Tombstones::WEIGHT <= limits.memory / 4);
    }
}
