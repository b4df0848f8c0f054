//! What is counted over the whole capture, for rules about the capture itself; and merging counters of shards and inputs: associative, so
//! that any grouping gives the same totals.

use std::collections::BTreeMap;

use super::finding::{RuleId, rule_order};
use crate::decode::LostFragments;
use crate::event::PacketRef;
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// Counters of the whole run, merged over shards.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// Flows that left the table, TCP and UDP.
    pub flows: u64,
    /// Of these TCP.
    pub tcp_flows: u64,
    /// TCP flows with payload.
    pub tcp_with_payload: u64,
    /// Of those, one direction only although acknowledgments advance; the first of them.
    pub one_sided: u64,
    /// First packet of a one-sided flow and a packet whose acknowledgment covers unseen octets.
    pub one_sided_example: Option<(PacketRef, PacketRef)>,
    /// Segments with payload on those flows.
    pub one_sided_segments: u64,
    /// Flows that began before the capture; the first.
    pub mid_stream: u64,
    /// First of them.
    pub mid_stream_first: Option<PacketRef>,
    /// Flows whose outcome the capture's end hid; one of them with the thing that waits.
    pub ends_early: u64,
    /// Example: flow, the unanswered packet.
    pub ends_early_example: Option<(PacketRef, PacketRef)>,
    /// Octets acknowledged but never seen, and all octets acknowledged, on two-sided flows.
    pub unseen: u64,
    /// Octets acknowledged on two-sided flows.
    pub acknowledged: u64,
    /// ACKs that covered unseen octets, and the first of them (flow, packet).
    pub unseen_acks: u64,
    /// First such ACK.
    pub unseen_first: Option<(PacketRef, PacketRef)>,
    /// Times of the first 256 such ACKs, for M4.
    pub unseen_times: Vec<Timestamp>,
    /// Payload packets cut by the snaplen; the first (flow, packet).
    pub cut: u64,
    /// First cut packet.
    pub cut_first: Option<(PacketRef, PacketRef)>,
    /// Payload packets in all.
    pub payload_packets: u64,
    /// Packets recorded more than once; the first example.
    pub duplicates: u64,
    /// Original and copy of the first.
    pub duplicate_example: Option<(PacketRef, PacketRef)>,
    /// Segments larger than the MSS; the first.
    pub oversized: u64,
    /// First oversized (flow, packet).
    pub oversized_first: Option<(PacketRef, PacketRef)>,
    /// Wrong checksums; those left out that came from far away to the capture point.
    pub bad_checksums: u64,
    /// Checksums looked at.
    pub checksums: u64,
    /// First wrong checksum (flow, packet).
    pub bad_checksum_first: Option<(PacketRef, PacketRef)>,
    /// TCP flows of 1 s or more whose timestamps (TSval) advanced at no rate that stacks use (1000, 250, 100, 10 or a
    /// million a second, each ±20 %) by the capture's clock; neither side's, where both are long enough.
    pub clock_skewed: u64,
    /// The first of them: its first and last packet with a timestamp, and the time between both by the sender's clock (1000 a second).
    pub clock_skew_first: Option<(PacketRef, PacketRef, Elapsed)>,
    /// Octets given up because of caps, flows evicted.
    pub held_dropped: u64,
    /// Flows evicted by the table's cap.
    pub evicted: u64,
    /// Flows evicted because of the memory all of them took.
    pub relieved: u64,
    /// Full summaries that were not kept because of the cap, by rule.
    pub beyond_cap: BTreeMap<RuleId, u64>,
    /// The same by rule and server end, in that order, the first 1024 of each shard: how far an incident reaches beyond the kept flows.
    pub beyond: Vec<Beyond>,
    /// Flows by verdict of their own findings that are not among the kept ones.
    pub dropped_healthy: u64,
    /// Undecided flows that are not kept whole.
    pub dropped_undecided: u64,
    /// Degraded flows beyond the cap of those kept whole.
    pub dropped_degraded: u64,
    /// Failed flows beyond that cap.
    pub dropped_failed: u64,
}

impl Tally {
    /// Connections whose hosts' clocks have to disagree with the capture's.
    pub const CLOCK_FLOWS: u64 = 3;
}

/// Flows of one rule to one server that are not kept whole.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Beyond {
    /// The rule of their worst finding.
    pub rule: RuleId,
    /// The server end.
    pub server: Endpoint,
    /// How many.
    pub flows: u64,
    /// The first of them.
    pub first: PacketRef,
    /// First packet of the last of them.
    pub last: PacketRef,
    /// Their clients, the first 64.
    pub clients: Vec<Address>,
}

impl Beyond {
    /// Entries and clients kept.
    pub const CAP: usize = 1024;
    const CLIENTS: usize = 64;

    /// Adds what is known of more of them.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        for client in &other.clients {
            if let Err(place) = self.clients.binary_search(client) {
                self.clients.insert(place, *client);
            }
        }
        self.clients.truncate(Self::CLIENTS);
    }
}

/// Packets by what they were, as the reader counted them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PacketTally {
    /// Packet records read.
    pub read: u64,
    /// Passed over by `--filter`, `--since`, `--until`.
    pub filtered: u64,
    /// First packet passed over.
    pub filtered_first: Option<PacketRef>,
    /// Last packet passed over.
    pub filtered_last: Option<PacketRef>,
    /// TCP segments.
    pub tcp: u64,
    /// UDP datagrams.
    pub udp: u64,
    /// ICMP and ICMPv6.
    pub icmp: u64,
    /// ARP.
    pub arp: u64,
    /// Fragments that waited for others (the completing one counts as what it completed).
    pub fragments: u64,
    /// Datagrams of which fragments never came.
    pub lost_fragments: LostFragments,
    /// IP with other protocols.
    pub other_ip: u64,
    /// Frames without IP.
    pub not_ip: u64,
    /// Frames of link types nobody here reads.
    pub unknown_link: u64,
    /// First such frame.
    pub unknown_link_first: Option<PacketRef>,
    /// Broken or cut headers.
    pub unreadable: u64,
    /// UDP packets to or from port 53.
    pub dns: u64,
    /// Backward steps of an interface's clock: count and the first (before, after).
    pub clock_steps: u64,
    /// The first backward step.
    pub clock_step_first: Option<(PacketRef, PacketRef)>,
    /// The largest backward step.
    pub clock_step_max: Elapsed,
    /// First and last packet that was not passed over.
    pub first: Option<PacketRef>,
    /// Last such packet.
    pub last: Option<PacketRef>,
    /// Link types passed over by the filter: name and libpcap's reason.
    pub filter_refused: Vec<(String, u64, String)>,
    /// Link types nobody reads, by name with counts.
    pub unknown_links: BTreeMap<String, u64>,
    /// Why frames were unreadable, with counts.
    pub unreadable_why: BTreeMap<String, u64>,
}

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
        let order = |beyond: &Beyond| rule_order(&beyond.rule, &more.rule).then(beyond.server.cmp(&more.server));
        match self.beyond.binary_search_by(order) {
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
