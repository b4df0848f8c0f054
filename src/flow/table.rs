//! The flow table: finds a packet's flow, opens and closes flows on capture time, and keeps memory bounded.
//!
//! A slab of records, a hash table of slab slots, and a wheel of deadlines. The hash is keyed by a seed because strangers choose what a
//! capture holds; nothing that comes out depends on it. A closed flow stays for a while, so that late packets still count for it, and then
//! leaves a tombstone, so that later ones do not look like a new flow.

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::duplicates::{self, Mark};
use super::facts::{FlowFacts, IpProtocol, RoleSource};
use super::half::{Marks, Stamp};
use super::key::{Key, Way};
use super::live::Live;
use super::record::{Detail, Flow};
use super::roles::{self, Listeners};
use super::wheel::Wheel;
use super::{Ended, FlowHead, Sink};
use crate::decode::{Flags, Ip, Packet, Segment, Transport};
use crate::event::{PacketRef, What};
use crate::time::{Elapsed, Timestamp};
use crate::wire::icmp::IcmpError;
use crate::wire::seq::Seq;

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
    /// After that, late packets are swallowed for so long instead of opening a flow. Linux keeps TIME_WAIT for 60 s.
    pub tombstone: Elapsed,
    /// A flow without handshake and payload ends after so long. Linux gives up a SYN after 134 s (68 s after the last one).
    pub syn_expiry: Elapsed,
    /// An open flow ends after so long in silence.
    pub established_expiry: Elapsed,
    /// A UDP flow ends after so long in silence.
    pub udp_expiry: Elapsed,
    /// Listening ends remembered, as a hint for the roles of flows that began before the capture. 0: no hint; then the roles depend on the
    /// flow's own packets only, however flows are shared out between tables.
    pub listeners: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_flows: 1_000_000,
            held_octets_per_direction: 256 << 10,
            held_octets_total: 256 << 20,
            closed_linger: Elapsed::secs(10),
            tombstone: Elapsed::secs(60),
            syn_expiry: Elapsed::secs(185),
            established_expiry: Elapsed::secs(24 * 3600),
            udp_expiry: Elapsed::secs(60),
            listeners: 65_536,
        }
    }
}

/// What the table has to say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Flows opened.
    pub opened: u64,
    /// Flows that left because of the cap.
    pub evicted: u64,
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
}

/// A closed flow that was reported.
struct Tombstone {
    key: Key,
    id: PacketRef,
    until: Timestamp,
    /// Final sequence numbers, low end first; `None` where the side was never seen.
    next: [Option<Seq>; 2],
}

/// The flows of one worker. Feed it packets in capture order and ticks of capture time.
pub struct FlowTable<S: Sink> {
    seed: u64,
    shared: Shared,
    index: HashTable<u32>,
    flows: Vec<Flow>,
    // Boxed, so that the slab does not copy them when it grows.
    details: Vec<Option<Box<Detail>>>,
    conversations: Vec<Option<S::Conversation>>,
    free: Vec<u32>,
    live: usize,
    wheel: Wheel,
    listeners: Listeners,
    tombstones: HashTable<Tombstone>,
    burials: VecDeque<(u64, Key, Timestamp)>,
    /// Closed flows in the order they closed, with the first packet that tells a reused slot.
    closed: VecDeque<(u32, PacketRef)>,
    /// Where the search for an idle flow goes on.
    hand: usize,
}

impl<S: Sink> FlowTable<S> {
    /// An empty table. `seed` keys the hash and changes nothing else.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            seed,
            listeners: Listeners::new(limits.listeners),
            shared: Shared { limits, counts: Counts::default(), held: 0 },
            index: HashTable::new(),
            flows: Vec::new(),
            details: Vec::new(),
            conversations: Vec::new(),
            free: Vec::new(),
            live: 0,
            wheel: Wheel::new(),
            tombstones: HashTable::new(),
            burials: VecDeque::new(),
            closed: VecDeque::new(),
            hand: 0,
        }
    }

    /// Works one packet in. Only TCP and UDP belong to flows; others are passed over.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut S) {
        let (Some(ip), Some(source), Some(destination)) = (packet.ip.as_ref(), packet.source(), packet.destination())
        else {
            return;
        };
        self.wheel.start(packet.at.time.second());
        match &packet.transport {
            Transport::Tcp(segment) => {
                let (key, way) = Key::of(source, destination, IpProtocol::Tcp);
                let hash = key.hash(self.seed);
                if let Some(slot) = self.tcp_slot(key, hash, way, packet.at, segment, sink) {
                    self.tcp(slot, way, packet, ip, segment, sink);
                }
            }
            Transport::Udp(datagram) => {
                let (key, way) = Key::of(source, destination, IpProtocol::Udp);
                let hash = key.hash(self.seed);
                let slot = self.find(&key, hash).unwrap_or_else(|| {
                    let (client, role) = roles::by_port(&key, way, true, &self.listeners);
                    self.open(Flow::new(key, client, role), hash, packet.at, None, sink)
                });
                self.with(slot, packet.at, sink, |live| {
                    if !live.duplicate(way, packet, || Mark::of_datagram(ip, datagram)) {
                        live.datagram(way, ip, datagram);
                    }
                });
            }
            _ => {}
        }
    }

    /// Tells the quoted flow about an ICMP error. `false` when it is not in the table.
    pub fn icmp(&mut self, at: PacketRef, error: &IcmpError, sink: &mut S) -> bool {
        let protocol = match error.protocol {
            6 => IpProtocol::Tcp,
            17 => IpProtocol::Udp,
            _ => return false,
        };
        let (key, way) = Key::of(error.source, error.destination, protocol);
        let Some(slot) = self.find(&key, key.hash(self.seed)) else {
            self.shared.counts.icmp_unmatched += 1;
            return false;
        };
        self.with(slot, at, sink, |live| live.event(way, What::Icmp(Box::new(*error))));
        true
    }

    /// Capture time has come to `now`: flows whose time is over leave, in the order of their first packets.
    pub fn tick(&mut self, now: Timestamp, sink: &mut S) {
        let mut due = Vec::new();
        self.wheel.advance(now.second(), &mut due);
        let mut ended = Vec::new();
        for (slot, second) in due {
            let Some(detail) = self.detail(slot) else { continue };
            if detail.due != second {
                continue;
            }
            let (id, flow) = (detail.id, slot as usize);
            let waiting = self.waiting(slot);
            if waiting {
                self.with(slot, PacketRef { time: now, ..id }, sink, |live| {
                    live.at = live.flow.last().map_or(id, Stamp::packet);
                    for way in [live.flow.client, live.flow.client.other()] {
                        live.confirm_holes(way, now);
                    }
                });
            }
            let Some(flow) = self.flows.get(flow) else { continue };
            if flow.deadline(&self.shared.limits) <= now {
                ended.push((id, slot, if flow.closed() { Ended::Closed } else { Ended::Expired }));
            } else {
                self.schedule(slot);
            }
        }
        ended.sort_unstable_by_key(|(id, slot, _)| (*id, *slot));
        for (_, slot, why) in ended {
            self.close(slot, why, now, sink);
        }
        self.clear_tombstones(now);
        while self.closed.front().is_some_and(|(slot, id)| self.detail(*slot).is_none_or(|detail| detail.id != *id)) {
            self.closed.pop_front();
        }
    }

    /// The capture is over: every flow leaves, in the order of their first packets.
    pub fn finish(&mut self, now: Timestamp, sink: &mut S) {
        for slot in self.slots() {
            self.close(slot, Ended::CaptureEnd, now, sink);
        }
        self.tombstones.clear();
        self.burials.clear();
        self.closed.clear();
    }

    /// The flows in the table with what the sink keeps of them, in the order of their first packets.
    pub fn open_flows(&self) -> impl Iterator<Item = (FlowHead, &S::Conversation)> {
        self.slots().into_iter().filter_map(|slot| {
            let slot = slot as usize;
            let detail = self.details.get(slot)?.as_ref()?;
            Some((detail.head(self.flows.get(slot)?), self.conversations.get(slot)?.as_ref()?))
        })
    }

    /// Shows the facts of every flow in the table as they stand, in the order of their first packets.
    pub fn snapshot(&self, mut show: impl FnMut(FlowFacts, &S::Conversation)) {
        for slot in self.slots() {
            let slot = slot as usize;
            if let (Some(flow), Some(Some(detail)), Some(Some(conversation))) =
                (self.flows.get(slot), self.details.get(slot), self.conversations.get(slot))
            {
                show(detail.facts(flow), conversation);
            }
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether the table holds no flow.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// What the caps cost so far, and the peaks.
    pub fn counts(&self) -> Counts {
        self.shared.counts
    }

    /// The slots of live flows in the order of their first packets.
    fn slots(&self) -> Vec<u32> {
        let mut slots: Vec<(PacketRef, u32)> = (0u32..)
            .zip(&self.details)
            .filter_map(|(slot, detail)| detail.as_ref().map(|detail| (detail.id, slot)))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    fn detail(&self, slot: u32) -> Option<&Detail> {
        self.details.get(slot as usize)?.as_deref()
    }

    fn waiting(&self, slot: u32) -> bool {
        let Some(flow) = self.flows.get(slot as usize) else { return false };
        Way::BOTH.iter().any(|way| flow.tracks[*way].marks.has(Marks::WAITING))
    }

    fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let same = |slot: &u32| self.flows.get(*slot as usize).is_some_and(|flow| flow.key == *key);
        self.index.find(hash, same).copied()
    }

    /// Runs `work` on a live flow.
    fn with<T>(
        &mut self,
        slot: u32,
        at: PacketRef,
        sink: &mut S,
        work: impl FnOnce(&mut Live<'_, S>) -> T,
    ) -> Option<T> {
        let slot = slot as usize;
        let flow = self.flows.get_mut(slot)?;
        let detail = self.details.get_mut(slot)?.as_deref_mut()?;
        let conversation = self.conversations.get_mut(slot)?.as_mut()?;
        let result = work(&mut Live { flow, detail, conversation, sink, shared: &mut self.shared, at });
        self.shared.counts.peak_held = self.shared.counts.peak_held.max(self.shared.held);
        Some(result)
    }

    /// The flow of a segment: a known one, a new one, or `None` for a late packet of a reported one.
    fn tcp_slot(
        &mut self,
        key: Key,
        hash: u64,
        way: Way,
        at: PacketRef,
        segment: &Segment<'_>,
        sink: &mut S,
    ) -> Option<u32> {
        let bare_syn = segment.flags.has(Flags::SYN) && !segment.flags.has(Flags::ACK);
        let mut reuses = None;
        if let Some(slot) = self.find(&key, hash) {
            if !bare_syn || !self.begins_anew(slot, way, segment.seq) {
                return Some(slot);
            }
            reuses = self.detail(slot).map(|detail| detail.id);
            self.close(slot, Ended::Replaced, at.time, sink);
        } else if let Ok(entry) = self.tombstones.find_entry(hash, |tombstone| tombstone.key == key) {
            let tombstone = entry.get();
            let known = tombstone.next[way as usize];
            let new = segment.payload_len > 0 && known.is_none_or(|next| !next.after(segment.seq));
            if tombstone.until > at.time && !bare_syn && !new {
                self.shared.counts.late += 1;
                return None;
            }
            reuses = Some(tombstone.id);
            entry.remove();
        }
        let answer = segment.flags.has(Flags::SYN) && segment.flags.has(Flags::ACK);
        let (client, role) = if bare_syn {
            (way, RoleSource::Handshake)
        } else if answer {
            (way.other(), RoleSource::Handshake)
        } else {
            roles::by_port(&key, way, false, &self.listeners)
        };
        let mut flow = Flow::new(key, client, role);
        flow.mid_stream = !bare_syn && !answer;
        let slot = self.open(flow, hash, at, reuses, sink);
        self.with(slot, at, sink, |live| {
            if reuses.is_some() && bare_syn {
                live.event(way, What::PortReused);
            }
            if live.flow.mid_stream {
                live.event(way, What::MidStream);
            }
        });
        Some(slot)
    }

    /// Whether a bare SYN of `way` with number `seq` begins another connection than the one in the table.
    fn begins_anew(&self, slot: u32, way: Way, seq: Seq) -> bool {
        let (Some(flow), Some(detail)) = (self.flows.get(slot as usize), self.detail(slot)) else { return true };
        let (mine, peer) = (&flow.tracks[way], &flow.tracks[way.other()]);
        if mine.marks.has(Marks::SEEN) {
            return detail.trails[way].isn != seq;
        }
        // The side was silent so far: its SYN may have been recorded after the SYN+ACK, or both ends open at once.
        let trail = &detail.trails[way.other()];
        let answers = trail.syn_count > 0 && (!mine.marks.has(Marks::ACKED) || mine.una == seq.plus(1));
        !(answers && peer.payload == 0)
    }

    fn tcp(&mut self, slot: u32, way: Way, packet: &Packet<'_>, ip: &Ip, segment: &Segment<'_>, sink: &mut S) {
        let change = self.with(slot, packet.at, sink, |live| {
            if live.duplicate(way, packet, || Mark::of_segment(ip, segment)) {
                return (false, false);
            }
            let start = segment.seq.plus(u32::from(segment.flags.has(Flags::SYN)));
            let face = live.flow.tracks[way].face;
            if segment.payload_len > 0 && live.is_offload_copy(way, start, start.plus(segment.payload_len), face) {
                live.count_duplicate();
                return (false, false);
            }
            let closed = live.flow.closed();
            if !live.flow.established && segment.flags.has(Flags::SYN) && live.flow.role != RoleSource::Handshake {
                live.roles_by_syn(way, segment);
            }
            live.segment(way, ip, segment);
            (live.flow.closed() != closed, live.flow.closed())
        });
        let Some((changed, closed)) = change else { return };
        if segment.flags.has(Flags::SYN) && segment.flags.has(Flags::ACK) {
            self.listeners.note(packet.source().unwrap_or(crate::wire::Endpoint::new(ip.source, segment.source_port)));
        }
        if changed
            && closed
            && let Some(detail) = self.detail(slot)
        {
            self.closed.push_back((slot, detail.id));
        }
        if changed || self.waiting(slot) {
            self.schedule(slot);
        }
    }

    /// Puts a flow into the table.
    fn open(&mut self, flow: Flow, hash: u64, at: PacketRef, reuses: Option<PacketRef>, sink: &mut S) -> u32 {
        while self.live >= self.shared.limits.max_flows.max(1) && self.evict(at.time, sink) {}
        let detail = Box::new(Detail::new(at, reuses));
        let conversation = sink.open(&detail.head(&flow));
        let slot = match self.free.pop() {
            Some(slot) => {
                let place = slot as usize;
                if let (Some(f), Some(d), Some(c)) =
                    (self.flows.get_mut(place), self.details.get_mut(place), self.conversations.get_mut(place))
                {
                    (*f, *d, *c) = (flow, Some(detail), Some(conversation));
                }
                slot
            }
            None => {
                self.flows.push(flow);
                self.details.push(Some(detail));
                self.conversations.push(Some(conversation));
                self.flows.len() as u32 - 1
            }
        };
        let (flows, seed) = (&self.flows, self.seed);
        let rehash = |slot: &u32| flows.get(*slot as usize).map_or(0, |flow| flow.key.hash(seed));
        self.index.insert_unique(hash, slot, rehash);
        self.live += 1;
        self.shared.counts.opened += 1;
        self.shared.counts.peak_flows = self.shared.counts.peak_flows.max(self.live);
        self.schedule_at(slot, at.time);
        slot
    }

    /// Plans the next look at a flow; one planned earlier stays.
    fn schedule(&mut self, slot: u32) {
        let Some(flow) = self.flows.get(slot as usize) else { return };
        let deadline = flow.deadline(&self.shared.limits);
        let soon = flow.last().map_or(deadline, |last| last.time() + Elapsed::secs(1));
        self.schedule_at(slot, if self.waiting(slot) { deadline.min(soon) } else { deadline });
    }

    fn schedule_at(&mut self, slot: u32, time: Timestamp) {
        let second = (time + Elapsed::nanos(999_999_999)).second();
        let now = self.wheel.now().unwrap_or(second);
        let Some(Some(detail)) = self.details.get_mut(slot as usize) else { return };
        if detail.due > now && detail.due <= second {
            return;
        }
        detail.due = self.wheel.schedule(slot, second);
    }

    /// Takes a flow out of the table and reports it.
    fn close(&mut self, slot: u32, why: Ended, now: Timestamp, sink: &mut S) {
        let place = slot as usize;
        let last = self.flows.get(place).and_then(Flow::last).map(Stamp::packet);
        let Some(last) = last.or_else(|| self.detail(slot).map(|detail| detail.id)) else { return };
        self.with(slot, last, sink, |live| {
            for way in [live.flow.client, live.flow.client.other()] {
                live.flush(way);
            }
        });
        let (Some(flow), Some(Some(detail)), Some(Some(conversation))) = (
            self.flows.get(place),
            self.details.get_mut(place).map(Option::take),
            self.conversations.get_mut(place).map(Option::take),
        ) else {
            return;
        };
        let key = flow.key;
        let hash = key.hash(self.seed);
        let facts = detail.facts(flow);
        if why == Ended::Closed {
            let next =
                Way::BOTH.map(|way| Some(&flow.tracks[way]).filter(|t| t.marks.has(Marks::SEEN)).map(|t| t.next));
            let until = last.time + self.shared.limits.closed_linger + self.shared.limits.tombstone;
            self.bury(hash, Tombstone { key, id: detail.id, until, next });
        }
        for way in Way::BOTH {
            if let Some(rare) = &detail.trails[way].rare {
                self.shared.held -= rare.assembler.held();
            }
        }
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.free.push(slot);
        self.live -= 1;
        sink.closed(facts, conversation, why, now);
    }

    fn bury(&mut self, hash: u64, tombstone: Tombstone) {
        if self.burials.len() >= self.shared.limits.max_flows {
            self.unbury();
        }
        self.burials.push_back((hash, tombstone.key, tombstone.until));
        let seed = self.seed;
        self.tombstones.insert_unique(hash, tombstone, |tombstone| tombstone.key.hash(seed));
    }

    fn clear_tombstones(&mut self, now: Timestamp) {
        while self.burials.front().is_some_and(|(_, _, until)| *until <= now) {
            self.unbury();
        }
    }

    fn unbury(&mut self) {
        if let Some((hash, key, until)) = self.burials.pop_front()
            && let Ok(entry) = self.tombstones.find_entry(hash, |stone| stone.key == key && stone.until == until)
        {
            entry.remove();
        }
    }

    /// Makes room for one flow: closed and healthy, else closed, else the longest idle of a sample.
    fn evict(&mut self, now: Timestamp, sink: &mut S) -> bool {
        const SAMPLE: usize = 32;
        let (details, flows) = (&self.details, &self.flows);
        let still = |entry: &(u32, PacketRef)| {
            let detail = details.get(entry.0 as usize).and_then(Option::as_ref);
            detail.is_some_and(|detail| detail.id == entry.1)
        };
        while self.closed.front().is_some_and(|entry| !still(entry)) {
            self.closed.pop_front();
        }
        let healthy = |entry: &(u32, PacketRef)| {
            let detail = details.get(entry.0 as usize).and_then(Option::as_ref);
            still(entry) && detail.is_some_and(|detail| detail.healthy())
        };
        let first = self.closed.iter().take(SAMPLE).position(healthy);
        let victim = match first.or((!self.closed.is_empty()).then_some(0)) {
            Some(index) => self.closed.remove(index).map(|entry| entry.0),
            None => {
                let places = flows.len().max(1);
                let sample = (0..places).map(|step| (self.hand + step) % places);
                let live = sample.filter(|place| details.get(*place).is_some_and(Option::is_some)).take(SAMPLE);
                let last = |place: &usize| flows.get(*place).and_then(Flow::last).map(|last| last.time());
                let victim = live.min_by_key(last);
                self.hand = victim.map_or(0, |place| place + 1);
                victim.map(|place| place as u32)
            }
        };
        let Some(slot) = victim else { return false };
        self.shared.counts.evicted += 1;
        self.close(slot, Ended::Evicted, now, sink);
        true
    }
}

impl<S: Sink> Live<'_, S> {
    /// Notes the packet's face; whether it is a copy that the capture made.
    fn duplicate(&mut self, way: Way, packet: &Packet<'_>, mark: impl FnOnce() -> Mark) -> bool {
        let trail = &mut self.detail.trails[way];
        let face = duplicates::note_face(&mut trail.faces, self.flow.tracks[way].face, packet, Stamp::from(self.at));
        self.flow.tracks[way].face = face;
        let copy = trail.recent.has(mark(), self.at.time, face);
        if copy {
            self.count_duplicate();
        }
        copy
    }

    fn count_duplicate(&mut self) {
        self.detail.duplicates += 1;
        self.shared.counts.duplicates += 1;
    }

    /// A SYN on a flow whose roles came from ports: the SYN knows better.
    fn roles_by_syn(&mut self, way: Way, segment: &Segment<'_>) {
        self.flow.client = if segment.flags.has(Flags::ACK) { way.other() } else { way };
        self.flow.role = RoleSource::Handshake;
    }
}
