//! Merging counters of shards and inputs: associative, so that any grouping gives the same totals.

use super::view::{Beyond, Tally};
use crate::event::PacketRef;

impl Tally {
    /// Adds the counters of another shard.
    pub fn merge(&mut self, other: Self) {
        self.flows += other.flows;
        self.tcp_flows += other.tcp_flows;
        self.tcp_with_payload += other.tcp_with_payload;
        self.one_sided += other.one_sided;
        self.one_sided_segments += other.one_sided_segments;
        self.mid_stream += other.mid_stream;
        self.ends_early += other.ends_early;
        self.unseen += other.unseen;
        self.acknowledged += other.acknowledged;
        self.unseen_acks += other.unseen_acks;
        self.cut += other.cut;
        self.payload_packets += other.payload_packets;
        self.duplicates += other.duplicates;
        self.oversized += other.oversized;
        self.bad_checksums += other.bad_checksums;
        self.checksums += other.checksums;
        self.clock_skewed += other.clock_skewed;
        self.held_dropped += other.held_dropped;
        self.evicted += other.evicted;
        self.relieved += other.relieved;
        self.dropped_healthy += other.dropped_healthy;
        self.dropped_undecided += other.dropped_undecided;
        self.dropped_degraded += other.dropped_degraded;
        self.dropped_failed += other.dropped_failed;
        self.mid_stream_first = match (self.mid_stream_first, other.mid_stream_first) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for (mine, theirs) in [
            (&mut self.one_sided_example, other.one_sided_example),
            (&mut self.ends_early_example, other.ends_early_example),
            (&mut self.unseen_first, other.unseen_first),
            (&mut self.cut_first, other.cut_first),
            (&mut self.duplicate_example, other.duplicate_example),
            (&mut self.oversized_first, other.oversized_first),
            (&mut self.bad_checksum_first, other.bad_checksum_first),
        ] {
            earlier(mine, theirs);
        }
        self.clock_skew_first = match (self.clock_skew_first, other.clock_skew_first) {
            (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
            (a, b) => a.or(b),
        };
        self.unseen_times.extend(other.unseen_times);
        self.unseen_times.sort_unstable();
        self.unseen_times.truncate(256);
        for (rule, n) in other.beyond_cap {
            *self.beyond_cap.entry(rule).or_default() += n;
        }
        other.beyond.iter().for_each(|beyond| self.add_beyond(beyond, usize::MAX));
    }

    /// Adds flows that are not kept whole; at most `cap` entries.
    pub fn add_beyond(&mut self, more: &Beyond, cap: usize) {
        let key = |beyond: &Beyond| (beyond.rule.clone(), beyond.server);
        match self.beyond.binary_search_by_key(&key(more), key) {
            Ok(place) => self.beyond[place].add(more),
            Err(place) if self.beyond.len() < cap => self.beyond.insert(place, more.clone()),
            Err(_) => {}
        }
    }
}

fn earlier(mine: &mut Option<(PacketRef, PacketRef)>, theirs: Option<(PacketRef, PacketRef)>) {
    if let Some(theirs) = theirs
        && mine.is_none_or(|mine| theirs.1 < mine.1)
    {
        *mine = Some(theirs);
    }
}
