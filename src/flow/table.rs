//! The flow table: finds a packet's flow, opens and closes flows on capture time, and keeps memory bounded.
//!
//! A slab of records, a hash table of slab slots, and a wheel of deadlines. The hash is keyed by a seed because strangers choose what a
//! capture holds; nothing that comes out depends on it. A closed flow stays for a while, so that late packets still count for it, and then
//! leaves a tombstone, so that later ones do not look like a new flow.

mod freeze;
mod gather;
mod packed;
mod room;
mod segment;
mod stay;

use std::collections::VecDeque;

use hashbrown::HashTable;

use super::duplicates::Mark;
use super::embryo::Embryos;
use super::facts::{FlowFacts, IpProtocol};
use super::frozen::Frozen;
use super::gathered::Gathered;
pub use super::gathered::Lent;
use super::half::{Marks, Stamp};
pub use super::key::Name;
use super::key::{Key, Way};
use super::limits::Shared;
pub use super::limits::{Counts, Limits};
use super::live::Live;
use super::record::{Detail, Flow};
use super::roles::{self, Listeners};
use super::tombstone::Tombstones;
use super::wheel::Wheel;
use super::{Ended, FlowHead, Sink};
use crate::decode::{Datagram, Flags, Head, Ip, Packet, Transport};
use crate::event::{PacketRef, What};
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;
use crate::wire::icmp::IcmpError;

/// Visits of flows that left may stand in the wheel, so many beside four for each flow.
const STALE: usize = 65_536;

/// One slot of the slab: what every packet of the flow touches lies side by side.
struct Place<C> {
    flow: Flow,
    // Boxed, so that the slab does not copy it when it grows.
    detail: Option<Box<Detail>>,
    conversation: Option<C>,
}

/// What is known of where a packet's flow is.
#[derive(Clone, Copy)]
enum Hint {
    /// Nothing: it is looked up.
    None,
    /// It was put aside, and is of a flow that nobody knew before.
    New,
    /// It was put aside as well, and this is where its flow was a packet ago.
    At(u32),
}

/// The flows of one worker. Feed it packets in capture order and ticks of capture time.
pub struct FlowTable<S: Sink> {
    seed: u64,
    shared: Shared,
    index: HashTable<u32>,
    places: Vec<Place<S::Conversation>>,
    free: Vec<u32>,
    /// Details of flows that left, to be used again: taking new memory for each flow costs more than everything else about it.
    #[allow(clippy::vec_box, reason = "the boxes are what is used again")]
    spare: Vec<Box<Detail>>,
    live: usize,
    /// Flows of one SYN that are not among the places.
    embryos: Embryos,
    /// Idle flows that are not among the places.
    frozen: Frozen,
    /// Flows that have just begun and are not among the places.
    gathered: Gathered,
    /// With more flows among the places than these, idle ones are frozen; where the search for them goes on.
    warm: usize,
    warm_hand: usize,
    /// So many flows more may stay among the places, because as many came back from the frost lately.
    lively: usize,
    wheel: Wheel,
    listeners: Listeners,
    tombstones: Tombstones,
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
            tombstones: Tombstones::new(seed, limits.tombstones()),
            warm: limits.frozen_from,
            warm_hand: 0,
            lively: 0,
            shared: Shared { limits, counts: Counts::default(), held: 0, unanswered: 0, weight: 0 },
            index: HashTable::new(),
            places: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            live: 0,
            embryos: Embryos::new(seed),
            frozen: Frozen::new(seed),
            gathered: Gathered::new(seed),
            wheel: Wheel::new(),
            closed: VecDeque::new(),
            hand: 0,
        }
    }

    /// Works one packet in. Only TCP and UDP belong to flows; others are passed over.
    pub fn packet(&mut self, packet: &Packet<'_>, sink: &mut S) {
        let Some(name) = self.name_of(packet) else { return };
        self.wheel.start(packet.at.time);
        self.work_off_named(&name.key, sink);
        self.packet_now(&name, Hint::None, packet, sink);
    }

    /// The same with a packet that may stay for a while where it lies; `head` and `name` are its own. The pile is to be settled when no more
    /// of its packets come.
    #[inline]
    pub fn lent(&mut self, head: &Head, name: &Name, lent: Lent<'_>, sink: &mut S) {
        self.wheel.start(head.at.time);
        let (pile, place) = (lent.pile, lent.place);
        if self.gathers() && self.gather(name, head, lent, sink) {
            return;
        }
        if let Some(packet) = pile.packet(place) {
            self.packet_now(name, Hint::None, &packet, sink);
        }
    }

    /// The flow of a packet that comes soon. Where it is told whether its packets are put aside is sent for.
    #[inline]
    pub fn approach(&self, head: &Head) -> Name {
        let protocol = if head.udp { IpProtocol::Udp } else { IpProtocol::Tcp };
        let name = self.name(head.source, head.destination, protocol);
        self.gathered.approach_slot(name.hash);
        if gather::begins(head) {
            self.tombstones.approach_place(name.hash);
        }
        name
    }

    /// The same once that may be at hand: those packets' list is sent for, or who had the name lately.
    #[inline]
    pub fn near(&self, head: &Head, name: &Name) {
        self.gathered.approach_entry(name.hash);
        if gather::begins(head) {
            self.tombstones.approach(name.hash);
        }
    }

    /// The same at once. Returns where its flow is.
    fn packet_now(&mut self, name: &Name, hint: Hint, packet: &Packet<'_>, sink: &mut S) -> Option<u32> {
        let slot = self.work_in(name, hint, packet, sink);
        if self.live > self.warm {
            self.chill(packet.at.time);
        }
        slot
    }

    #[inline]
    fn name(&self, source: Endpoint, destination: Endpoint, protocol: IpProtocol) -> Name {
        let (key, way) = Key::of(source, destination, protocol);
        Name { key, hash: key.hash(self.seed), way }
    }

    fn name_of(&self, packet: &Packet<'_>) -> Option<Name> {
        let protocol = match &packet.transport {
            Transport::Tcp(_) => IpProtocol::Tcp,
            Transport::Udp(_) => IpProtocol::Udp,
            _ => return None,
        };
        Some(self.name(packet.source()?, packet.destination()?, protocol))
    }

    #[inline(never)]
    fn work_in(&mut self, name: &Name, hint: Hint, packet: &Packet<'_>, sink: &mut S) -> Option<u32> {
        let ip = packet.ip.as_ref()?;
        match &packet.transport {
            Transport::Tcp(segment) => {
                let slot = self.tcp_slot(name, hint, packet, ip, segment, sink)?;
                self.tcp(slot, name.way, packet, ip, segment, sink);
                // Of what was put aside that was noted when it came.
                if matches!(hint, Hint::None) && segment.flags.has(Flags::SYN) && segment.flags.has(Flags::ACK) {
                    self.listeners.note(Endpoint::new(ip.source, segment.source_port));
                }
                self.weigh(slot, name.way, packet.at.time, sink);
                Some(slot)
            }
            Transport::Udp(datagram) => {
                self.udp(name, packet, ip, datagram, sink);
                None
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn udp(
        &mut self,
        &Name { key, hash, way }: &Name,
        packet: &Packet<'_>,
        ip: &Ip,
        datagram: &Datagram<'_>,
        sink: &mut S,
    ) {
        let known = self.find(&key, hash).or_else(|| self.thawed(&key, hash));
        let slot = known.unwrap_or_else(|| {
            let (client, role) = roles::by_port(&key, way, true, &self.listeners);
            self.open(Flow::new(key, client, role), hash, packet.at, None, sink)
        });
        self.with(slot, packet.at, sink, |live| {
            if !live.duplicate(way, packet, || Mark::of_datagram(ip, datagram)) {
                live.datagram(way, ip, datagram);
            }
        });
        if self.flow(slot).is_some_and(Flow::resolved) {
            self.schedule(slot);
        }
        self.weigh(slot, way, packet.at.time, sink);
    }

    /// Tells the quoted flow about an ICMP error. `false` when it is not in the table.
    pub fn icmp(&mut self, at: PacketRef, error: &IcmpError, sink: &mut S) -> bool {
        let protocol = match error.protocol {
            6 => IpProtocol::Tcp,
            17 => IpProtocol::Udp,
            _ => return false,
        };
        let (key, way) = Key::of(error.source, error.destination, protocol);
        self.work_off_named(&key, sink);
        let Some(slot) = self.known(&key, key.hash(self.seed), sink) else {
            self.shared.counts.icmp_unmatched += 1;
            return false;
        };
        self.with(slot, at, sink, |live| live.event(way, What::Icmp(Box::new(*error))));
        true
    }

    /// Capture time has come to `now`: flows whose time is over leave, in the order of their first packets.
    pub fn tick(&mut self, now: Timestamp, sink: &mut S) {
        let mut due = Vec::new();
        self.wheel.advance(now.eighth(), &mut due);
        let mut ended = Vec::new();
        for (slot, step) in due {
            if Self::is_frozen(slot) {
                ended.extend(self.frozen_due(slot, step, now));
                continue;
            }
            if self.detail(slot).is_some_and(|detail| detail.due as u32 == step) {
                ended.extend(self.visit(slot, now, sink));
            }
        }
        self.ripen(now, &mut ended);
        // As the wheel would look at them: on whole seconds.
        let second = Timestamp(now.second().saturating_mul(1_000_000_000));
        self.end(ended, (second - self.shared.limits.syn_expiry, Ended::Expired), now, sink);
        self.tombstones.expire(now);
        self.cool_down();
        if self.wheel.planned() > STALE + 4 * (self.live + self.frozen.len()) {
            let mut wheel = std::mem::replace(&mut self.wheel, Wheel::new());
            wheel.forget(|slot, step| self.due(slot) == Some(step));
            self.wheel = wheel;
        }
        while self.closed.front().is_some_and(|(slot, id)| self.detail(*slot).is_none_or(|detail| detail.id != *id)) {
            self.closed.pop_front();
        }
    }

    /// A flow is due: whether it leaves now.
    fn visit(&mut self, slot: u32, now: Timestamp, sink: &mut S) -> Option<(PacketRef, u32, Ended)> {
        let id = self.detail(slot)?.id;
        if self.waiting(slot) {
            let last = self.last(slot).unwrap_or(id);
            self.with(slot, last, sink, |live| {
                for way in [live.flow.client, live.flow.client.other()] {
                    live.confirm_holes(way, now);
                }
            });
        }
        let flow = self.flow(slot)?;
        if flow.deadline(&self.shared.limits) <= now {
            return Some((id, slot, if flow.closed() { Ended::Closed } else { Ended::Expired }));
        }
        self.schedule(slot);
        None
    }

    /// When, before `end`, the next flow may have to be looked at: a tick then finds it in time. Never at or before the latest tick.
    pub fn next_due(&mut self, end: Timestamp) -> Option<Timestamp> {
        let gathered = self.gathered.next_due(end.eighth());
        let visit = self.wheel.next_due(end.eighth()).into_iter().chain(gathered).min().map(Timestamp::of_eighth);
        let packed = self.embryos.oldest().map(|(at, _)| at + self.shared.limits.syn_expiry);
        // Packed flows are looked at on whole seconds.
        let reached = self.wheel.now().map_or(i64::MIN, |step| Timestamp::of_eighth(step).second());
        let second = |due: Timestamp| (due + Elapsed::nanos(999_999_999)).second().max(reached.saturating_add(1));
        let packed = packed.map(|due| second(due).saturating_mul(1_000_000_000));
        visit.into_iter().chain(packed.map(Timestamp)).min().filter(|due| *due < end)
    }

    /// The capture is over: every flow leaves, in the order of their first packets.
    pub fn finish(&mut self, now: Timestamp, sink: &mut S) {
        self.work_off_all(sink);
        let open = self.slots().into_iter();
        let open = open.filter_map(|slot| Some((self.detail(slot)?.id, slot)));
        let open = open.chain(self.all_frozen()).map(|(id, slot)| (id, slot, Ended::CaptureEnd)).collect();
        self.end(open, (Timestamp::MAX, Ended::CaptureEnd), now, sink);
        self.tombstones.clear();
        self.closed.clear();
    }

    /// The flows in the table with what the sink keeps of them, in the order of their first packets; without those of which nothing but one
    /// SYN is known and that are kept packed, and without the frozen ones.
    pub fn open_flows(&self) -> impl Iterator<Item = (FlowHead, &S::Conversation)> {
        self.slots().into_iter().filter_map(|slot| {
            let place = self.places.get(slot as usize)?;
            Some((place.detail.as_ref()?.head(&place.flow), place.conversation.as_ref()?))
        })
    }

    /// Shows the facts of every flow in the table as they stand, in the order of their first packets; but for those kept packed or
    /// frozen.
    pub fn snapshot(&self, mut show: impl FnMut(FlowFacts, &S::Conversation)) {
        for slot in self.slots() {
            if let Some(Place { flow, detail: Some(detail), conversation: Some(conversation) }) =
                self.places.get(slot as usize)
            {
                show(detail.facts(flow), conversation);
            }
        }
    }

    /// Shows flows that have something to tell before they leave, in the order of their first packets: those that end, that wait for an
    /// answer, that lost something, or that `told` picks ([`Sink::tells`] where it is frozen); with `all` every flow. The last argument tells those that are closed.
    pub fn telling(
        &self,
        all: bool,
        told: impl Fn(&S::Conversation) -> bool,
        mut show: impl FnMut(FlowFacts, &S::Conversation, bool),
    ) {
        for slot in self.in_order(self.frozen_telling(all)) {
            if Self::is_frozen(slot) {
                self.show_frozen(slot, |flow, detail, conversation| show(detail.facts(flow), conversation, false));
                continue;
            }
            let Some(Place { flow, detail: Some(detail), conversation: Some(conversation) }) =
                self.places.get(slot as usize)
            else {
                continue;
            };
            if all || flow.asks() || flow.ending() || !detail.healthy() || told(conversation) {
                show(detail.facts(flow), conversation, flow.closed());
            }
        }
    }

    /// Lends one flow as it stands, with what the sink keeps of it, so that it can be judged while it is open. Nothing happens when the
    /// flow that began with `id` has left.
    pub fn lend(
        &mut self,
        id: PacketRef,
        (a, b): (Endpoint, Endpoint),
        show: impl FnOnce(FlowFacts, FlowHead, &mut S::Conversation),
    ) {
        let (key, _) = Key::of(a, b, IpProtocol::Tcp);
        let hash = key.hash(self.seed);
        let Some(slot) = self.find(&key, hash) else {
            return self.lend_frozen((&key, hash), id, |flow, detail, conversation| {
                show(detail.facts(flow), detail.head(flow), conversation);
            });
        };
        if let Some(Place { flow, detail: Some(detail), conversation: Some(conversation) }) =
            self.places.get_mut(slot as usize)
            && detail.id == id
        {
            show(detail.facts(flow), detail.head(flow), conversation);
        }
    }

    /// Flows in the table.
    pub fn len(&self) -> usize {
        self.live + self.embryos.len() + self.frozen.len() + self.gathered.len()
    }

    /// Whether the table holds no flow.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the caps cost so far, and the peaks.
    pub fn counts(&self) -> Counts {
        let opened = self.shared.counts.opened + (self.embryos.len() + self.gathered.len()) as u64;
        Counts { opened, ..self.shared.counts }
    }

    /// The slots of live flows in the order of their first packets.
    fn slots(&self) -> Vec<u32> {
        self.in_order(std::iter::empty())
    }

    /// The same, and `others` among them.
    fn in_order(&self, others: impl Iterator<Item = (PacketRef, u32)>) -> Vec<u32> {
        let mut slots: Vec<(PacketRef, u32)> = (0u32..)
            .zip(&self.places)
            .filter_map(|(slot, place)| place.detail.as_ref().map(|detail| (detail.id, slot)))
            .chain(others)
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, slot)| slot).collect()
    }

    fn flow(&self, slot: u32) -> Option<&Flow> {
        self.places.get(slot as usize).map(|place| &place.flow)
    }

    fn detail(&self, slot: u32) -> Option<&Detail> {
        self.places.get(slot as usize)?.detail.as_deref()
    }

    /// The step at which the wheel will bring it up.
    fn due(&self, slot: u32) -> Option<u32> {
        if Self::is_frozen(slot) { self.frozen_step(slot) } else { self.detail(slot).map(|detail| detail.due as u32) }
    }

    /// Its latest packet.
    fn last(&self, slot: u32) -> Option<PacketRef> {
        self.flow(slot).and_then(Flow::last).map(Stamp::packet)
    }

    fn waiting(&self, slot: u32) -> bool {
        let Some(flow) = self.flow(slot) else { return false };
        Way::BOTH.iter().any(|way| flow.tracks[*way].marks.has(Marks::WAITING))
    }

    fn find(&self, key: &Key, hash: u64) -> Option<u32> {
        let same = |slot: &u32| self.flow(*slot).is_some_and(|flow| flow.key == *key);
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
        let Place { flow, detail, conversation } = self.places.get_mut(slot as usize)?;
        let (detail, conversation) = (detail.as_deref_mut()?, conversation.as_mut()?);
        let result =
            work(&mut Live { flow, detail, conversation, sink, shared: &mut self.shared, at, stamp: at.into() });
        self.shared.counts.peak_held = self.shared.counts.peak_held.max(self.shared.held);
        Some(result)
    }
}

#[cfg(test)]
mod tests;
