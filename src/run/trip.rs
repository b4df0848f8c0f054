//! The whole trip of a frame on one page: read, pass over or decode, count, and hand to the shard of its flow.

use crate::capture::Frame;
use crate::capture::filter::{Filter, Pass};
use crate::decode::{Decoder, Packet, Transport, flow_hash};
use crate::diagnose::Merged;
use crate::event::{PacketRef, Stamp};
use crate::host::grid::Grid;
use crate::host::neighbor::Neighbors;
use crate::host::watch::Watch;
use crate::rule::tally::PacketTally;
use crate::rule::threshold::Thresholds;
use crate::time::Timestamp;
use crate::wire::icmp::IcmpError;
use crate::wire::{Endpoint, arp, icmp};

use super::Window;
use super::shard::Shards;

/// What the reading side keeps: everything that belongs to no flow.
pub(super) struct Trip {
    pub decoder: Decoder,
    pub filter: Option<Filter>,
    window: Window,
    /// Neither a filter nor times were asked for: no packet is passed over.
    all: bool,
    pub known: Known,
    eighth: Option<i64>,
    /// When the next eighth begins.
    next_eighth: Timestamp,
    /// The interfaces of all files.
    clocks: Vec<Clock>,
    /// The place in `clocks` of the packet at hand: the next one is likely of the same interface.
    clock: usize,
    /// By input: the point where it was recorded, as far as the shards were told.
    points: Vec<u16>,
    clock_step: crate::time::Elapsed,
}

/// One interface of a file, and its latest packet.
struct Clock {
    interface: u16,
    latest: PacketRef,
}

/// Clocks that are looked at.
const CLOCKS: usize = 4096;

/// What is known apart from flows so far.
pub(super) struct Known {
    /// Its first and last packet are complete with those of the clocks only: see [`Trip::last`].
    pub packets: PacketTally,
    neighbors: Neighbors,
    watch: Watch,
}

/// The same when all was read.
pub(super) struct Apart {
    packets: PacketTally,
    neighbors: Neighbors,
    grid: Grid,
}

impl Apart {
    /// Adds it to what is known of the flows.
    pub(super) fn join(self, merged: &mut Merged) {
        merged.packets = self.packets;
        merged.neighbors = self.neighbors;
        merged.grid.merge(self.grid);
    }
}

impl Clock {
    #[inline]
    fn is_of(&self, frame: &Frame<'_>) -> bool {
        self.latest.file == frame.file && self.interface == frame.interface
    }
}

impl Trip {
    pub(super) fn new(filter: Option<Filter>, window: Window, thresholds: &Thresholds) -> Self {
        Self {
            decoder: Decoder::new(Default::default()),
            all: filter.is_none() && window.is_open(),
            filter,
            window,
            known: Known {
                packets: PacketTally::default(),
                neighbors: Neighbors::default(),
                watch: Watch::new(thresholds.black),
            },
            eighth: None,
            next_eighth: Timestamp::MIN,
            clocks: Vec::new(),
            clock: 0,
            points: Vec::new(),
            clock_step: thresholds.clock_step,
        }
    }

    /// Takes one frame the whole way.
    #[inline(always)]
    pub(super) fn frame(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        self.known.packets.read += 1;
        if !self.all && !self.wanted(frame) {
            self.pass_over(frame);
            return;
        }
        self.clock(frame, shards);
        self.tick(frame.time, shards);
        // Looked at where it lies: moving a packet costs as much as decoding it.
        let plain = Decoder::plain(frame);
        match &plain {
            Some(packet) => self.known.take(packet, reference(frame).into(), frame, shards),
            None => self.odd(frame, shards),
        }
    }

    /// A frame that is not ordinary.
    #[cold]
    #[inline(never)]
    fn odd(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        let packet = self.decoder.odd(frame);
        self.known.take(&packet, packet.at.into(), frame, shards);
    }

    #[cold]
    #[inline(never)]
    fn pass_over(&mut self, frame: &Frame<'_>) {
        let at = reference(frame);
        let packets = &mut self.known.packets;
        packets.filtered += 1;
        packets.filtered_first.get_or_insert(at);
        packets.filtered_last = Some(at);
    }

    #[inline(never)]
    fn wanted(&mut self, frame: &Frame<'_>) -> bool {
        if !self.window.holds(frame.time) {
            return false;
        }
        match &mut self.filter {
            Some(filter) => filter.pass(frame) == Pass::Yes,
            None => true,
        }
    }

    /// After the last packet nothing came until then. Returns when the capture ends.
    pub(super) fn quiet_until(&mut self, until: Option<Timestamp>, shards: &mut Shards) -> Timestamp {
        let last = self.last().map(|last| last.time);
        let Some(until) = until.filter(|until| last.is_some_and(|last| *until > last)) else {
            return last.unwrap_or(Timestamp(0));
        };
        self.tick(until, shards);
        until
    }

    /// Ticks lie on the grid of eighths of a second; a clock that runs backwards never moves one back.
    #[inline]
    fn tick(&mut self, time: Timestamp, shards: &mut Shards) {
        if time >= self.next_eighth {
            self.turn(time.eighth(), shards);
        }
    }

    #[cold]
    #[inline(never)]
    fn turn(&mut self, eighth: i64, shards: &mut Shards) {
        if self.eighth.is_some_and(|known| eighth > known) {
            shards.tick(Timestamp::of_eighth(eighth));
        }
        self.eighth = self.eighth.max(Some(eighth));
        self.next_eighth = Timestamp::of_eighth(eighth.saturating_add(1));
    }

    /// A packet is the latest of its interface, and nearly always of the same one as its predecessor, and no older.
    #[inline]
    fn clock(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        match self.clocks.get_mut(self.clock) {
            Some(clock) if clock.is_of(frame) && frame.time >= clock.latest.time => clock.latest = reference(frame),
            _ => self.other_clock(frame, shards),
        }
    }

    /// The first packet of an interface, or one of another interface than that of the packet before, or one that is older.
    #[inline(never)]
    fn other_clock(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        // All packets of a file were recorded at one point.
        self.point(frame, shards);
        let at = reference(frame);
        let Some(place) = self.clocks.iter().position(|clock| clock.is_of(frame)) else {
            if self.clocks.len() < CLOCKS {
                self.clock = self.clocks.len();
                self.clocks.push(Clock { interface: frame.interface, latest: at });
            }
            self.reach(at);
            return;
        };
        self.clock = place;
        let before = std::mem::replace(&mut self.clocks[place].latest, at);
        if at.time < before.time {
            self.reach(before);
            self.reach(at);
            self.backwards(before, at);
        }
    }

    /// Tells the shards where an input was recorded, unless it is the first point.
    fn point(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        let file = usize::from(frame.file);
        if self.points.len() <= file {
            self.points.resize(file + 1, 0);
        }
        if self.points[file] != frame.point {
            self.points[file] = frame.point;
            shards.point(frame.file, frame.point);
        }
    }

    /// A packet that may be the first or the last of all, although it is not the latest of an interface.
    fn reach(&mut self, at: PacketRef) {
        let PacketTally { first, last, .. } = &mut self.known.packets;
        *first = Some(first.map_or(at, |first| first.min(at)));
        *last = Some(last.map_or(at, |last| last.max(at)));
    }

    /// A packet older than its predecessor on the same interface.
    #[cold]
    #[inline(never)]
    fn backwards(&mut self, before: PacketRef, at: PacketRef) {
        let step = before.time.since(at.time);
        if step > self.clock_step {
            let packets = &mut self.known.packets;
            packets.clock_steps += 1;
            packets.clock_step_first.get_or_insert((before, at));
            packets.clock_step_max = packets.clock_step_max.max(step);
        }
    }

    /// The last packet that was not passed over.
    fn last(&self) -> Option<PacketRef> {
        self.clocks.iter().map(|clock| clock.latest).chain(self.known.packets.last).max()
    }

    /// The counters, completed with what decoder and filter know, for a capture that ended at `end`.
    pub(super) fn finish(self, end: Timestamp) -> Apart {
        let last = self.last();
        let Known { mut packets, neighbors, watch } = self.known;
        if let Some(filter) = self.filter {
            packets.filter_refused = filter.refused();
        }
        packets.last = last;
        packets.lost_fragments = self.decoder.lost_fragments(end);
        Apart { packets, neighbors, grid: watch.finish(end) }
    }

    /// The same as of now.
    pub(super) fn peek(&self, end: Timestamp) -> Apart {
        let Known { packets, neighbors, watch } = &self.known;
        let lost_fragments = self.decoder.lost_fragments(end);
        let packets = PacketTally { last: self.last(), lost_fragments, ..packets.clone() };
        Apart { packets, neighbors: neighbors.clone(), grid: watch.clone().finish(end) }
    }
}

impl Known {
    /// Counts a packet, and hands it to the shard of its flow. `at` is its own: read from it again it would have to wait until it is written.
    #[inline(always)]
    fn take(&mut self, packet: &Packet<'_>, at: Stamp, frame: &Frame<'_>, shards: &mut Shards) {
        self.watch.packet(packet, at);
        let (source, destination, protocol) = match &packet.transport {
            Transport::Tcp(segment) => {
                self.packets.tcp += 1;
                (segment.source_port, segment.destination_port, 6)
            }
            Transport::Udp(datagram) => {
                let (source, destination) = (datagram.source_port, datagram.destination_port);
                self.packets.udp += 1;
                self.packets.dns += u64::from(source == 53 || destination == 53);
                self.neighbors.signs.learn(packet.at, packet, frame.bytes);
                (source, destination, 17)
            }
            _ => return self.apart(packet, frame, shards),
        };
        // Both directions and all faces with the same ends agree.
        if let Some(ip) = &packet.ip {
            let ends = (Endpoint::new(ip.source, source), Endpoint::new(ip.destination, destination));
            shards.packet(flow_hash(ends.0, ends.1, protocol) as usize, packet, at);
        }
    }

    /// What is no TCP and no UDP: few packets of nearly every capture.
    #[inline(never)]
    fn apart(&mut self, packet: &Packet<'_>, frame: &Frame<'_>, shards: &mut Shards) {
        let Self { packets, neighbors, watch } = self;
        let at = packet.at;
        neighbors.signs.learn(at, packet, frame.bytes);
        match &packet.transport {
            Transport::Tcp(_) | Transport::Udp(_) => {}
            Transport::Icmp4(message) => {
                packets.icmp += 1;
                quote(at, packet, icmp::parse_error4(message), shards);
            }
            Transport::Icmp6(message) => {
                packets.icmp += 1;
                if let Some(ip) = packet.ip
                    && let Ok(neighbor) = arp::parse_neighbor6(message, ip.source)
                {
                    watch.arp(at, &neighbor);
                    neighbors.learn(at, &neighbor, packet.link);
                }
                quote(at, packet, icmp::parse_error6(message), shards);
            }
            Transport::Arp(message) => {
                packets.arp += 1;
                if let Ok(neighbor) = arp::parse_arp(message) {
                    watch.arp(at, &neighbor);
                    neighbors.learn(at, &neighbor, packet.link);
                }
            }
            Transport::Fragment => packets.fragments += 1,
            Transport::OtherIp(_) => packets.other_ip += 1,
            Transport::NotIp(_) => packets.not_ip += 1,
            Transport::UnknownLink => {
                packets.unknown_link += 1;
                packets.unknown_link_first.get_or_insert(at);
                let link = frame.link;
                *packets.unknown_links.entry(format!("{} ({})", link.name(), link.0)).or_default() += 1;
            }
            Transport::Unreadable(why) => {
                packets.unreadable += 1;
                *packets.unreadable_why.entry((*why).to_owned()).or_default() += 1;
            }
        }
    }
}

#[inline]
fn reference(frame: &Frame<'_>) -> PacketRef {
    PacketRef { file: frame.file, number: frame.number, time: frame.time }
}

fn quote(at: PacketRef, packet: &Packet<'_>, error: Option<IcmpError>, shards: &mut Shards) {
    let Some(mut error) = error else { return };
    error.from = packet.ip.map_or(error.from, |ip| ip.source);
    let ends = |end: Endpoint| Endpoint::new(end.address, end.port);
    shards.icmp(flow_hash(ends(error.source), ends(error.destination), error.protocol) as usize, at, &error);
}
