//! The whole trip of a frame on one page: read, pass over or decode, count, and hand to the shard of its flow.

use crate::capture::Frame;
use crate::capture::filter::{Filter, Pass};
use crate::decode::{Decoder, Packet, Transport, flow_hash};
use crate::diagnose::Merged;
use crate::event::PacketRef;
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
    pub window: Window,
    pub packets: PacketTally,
    pub neighbors: Neighbors,
    watch: Watch,
    eighth: Option<i64>,
    /// When the next eighth begins.
    next_eighth: Timestamp,
    /// By file and interface: the latest packet.
    clocks: Vec<((u16, u16), PacketRef)>,
    /// The place in `clocks` of the packet at hand: the next one is likely of the same interface.
    clock: usize,
    /// By input: the point where it was recorded, as far as the shards were told.
    points: Vec<u16>,
    clock_step: crate::time::Elapsed,
}

/// What is known apart from flows.
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

impl Trip {
    pub(super) fn new(filter: Option<Filter>, window: Window, thresholds: &Thresholds) -> Self {
        Self {
            decoder: Decoder::new(Default::default()),
            filter,
            window,
            packets: PacketTally::default(),
            neighbors: Neighbors::default(),
            watch: Watch::new(thresholds.black),
            eighth: None,
            next_eighth: Timestamp::MIN,
            clocks: Vec::new(),
            clock: 0,
            points: Vec::new(),
            clock_step: thresholds.clock_step,
        }
    }

    /// Takes one frame the whole way.
    pub(super) fn frame(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        self.packets.read += 1;
        let at = PacketRef { file: frame.file, number: frame.number, time: frame.time };
        if !self.wanted(frame) {
            self.pass_over(at);
            return;
        }
        self.clock(at, frame.interface);
        self.point(frame, shards);
        self.tick(frame.time, shards);
        // Looked at where it lies: moving a packet costs as much as decoding it.
        match Decoder::plain(frame) {
            Some(packet) => take(&mut self.packets, &mut self.neighbors, &mut self.watch, &packet, frame, shards),
            None => self.odd(frame, shards),
        }
    }

    /// A frame that is not ordinary.
    #[cold]
    #[inline(never)]
    fn odd(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        let packet = self.decoder.odd(frame);
        take(&mut self.packets, &mut self.neighbors, &mut self.watch, &packet, frame, shards);
    }

    #[cold]
    #[inline(never)]
    fn pass_over(&mut self, at: PacketRef) {
        self.packets.filtered += 1;
        self.packets.filtered_first.get_or_insert(at);
        self.packets.filtered_last = Some(at);
    }

    #[inline]
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
        let last = self.packets.last.map_or(Timestamp(0), |at| at.time);
        let Some(until) = until.filter(|until| *until > last && self.packets.last.is_some()) else { return last };
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

    /// Tells the shards where an input was recorded, unless it is the first point.
    #[inline]
    fn point(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        if self.points.get(usize::from(frame.file)) != Some(&frame.point) {
            self.tell_point(frame, shards);
        }
    }

    #[cold]
    #[inline(never)]
    fn tell_point(&mut self, frame: &Frame<'_>, shards: &mut Shards) {
        let file = usize::from(frame.file);
        if self.points.len() <= file {
            self.points.resize(file + 1, 0);
        }
        if self.points[file] != frame.point {
            self.points[file] = frame.point;
            shards.point(frame.file, frame.point);
        }
    }

    /// A packet older than its predecessor on the same interface.
    #[inline]
    fn clock(&mut self, at: PacketRef, interface: u16) {
        let key = (at.file, interface);
        if self.clocks.get(self.clock).is_none_or(|(known, _)| *known != key) && !self.other_clock(key, at) {
            return;
        }
        let Some((_, known)) = self.clocks.get_mut(self.clock) else { return };
        let before = std::mem::replace(known, at);
        if at.time < before.time {
            self.backwards(before, at);
        }
    }

    #[cold]
    #[inline(never)]
    fn backwards(&mut self, before: PacketRef, at: PacketRef) {
        let step = before.time.since(at.time);
        if step > self.clock_step {
            self.packets.clock_steps += 1;
            self.packets.clock_step_first.get_or_insert((before, at));
            self.packets.clock_step_max = self.packets.clock_step_max.max(step);
        }
    }

    /// Another interface than that of the packet before; whether it is known or there is room for it.
    #[inline(never)]
    fn other_clock(&mut self, key: (u16, u16), at: PacketRef) -> bool {
        let place = self.clocks.iter().position(|(known, _)| *known == key);
        if place.is_none() && self.clocks.len() < 4096 {
            self.clocks.push((key, at));
        }
        self.clock = place.unwrap_or(self.clocks.len() - 1);
        place.is_some()
    }

    /// The counters, completed with what decoder and filter know, for a capture that ended at `end`.
    pub(super) fn finish(mut self, end: Timestamp) -> Apart {
        if let Some(filter) = self.filter {
            self.packets.filter_refused = filter.refused();
        }
        self.packets.lost_fragments = self.decoder.lost_fragments(end);
        Apart { packets: self.packets, neighbors: self.neighbors, grid: self.watch.finish(end) }
    }

    /// The same as of now.
    pub(super) fn peek(&self, end: Timestamp) -> Apart {
        let mut packets = self.packets.clone();
        packets.lost_fragments = self.decoder.lost_fragments(end);
        Apart { packets, neighbors: self.neighbors.clone(), grid: self.watch.clone().finish(end) }
    }
}

/// Counts a packet, and hands it to the shard of its flow.
#[inline(always)]
fn take(
    packets: &mut PacketTally,
    neighbors: &mut Neighbors,
    watch: &mut Watch,
    packet: &Packet<'_>,
    frame: &Frame<'_>,
    shards: &mut Shards,
) {
    let at = packet.at;
    if packets.first.is_none_or(|first| at < first) {
        packets.first = Some(at);
    }
    if packets.last.is_none_or(|last| at > last) {
        packets.last = Some(at);
    }
    watch.packet(packet);
    let (source, destination, protocol) = match &packet.transport {
        Transport::Tcp(segment) => {
            packets.tcp += 1;
            (segment.source_port, segment.destination_port, 6)
        }
        Transport::Udp(datagram) => {
            let (source, destination) = (datagram.source_port, datagram.destination_port);
            packets.udp += 1;
            packets.dns += u64::from(source == 53 || destination == 53);
            neighbors.signs.learn(at, packet, frame.bytes);
            (source, destination, 17)
        }
        _ => return apart(packets, neighbors, watch, packet, frame, shards),
    };
    // Both directions and all faces with the same ends agree.
    if let Some(ip) = &packet.ip {
        let ends = (Endpoint::new(ip.source, source), Endpoint::new(ip.destination, destination));
        shards.packet(flow_hash(ends.0, ends.1, protocol) as usize, packet);
    }
}

/// What is no TCP and no UDP: few packets of nearly every capture.
#[inline(never)]
fn apart(
    packets: &mut PacketTally,
    neighbors: &mut Neighbors,
    watch: &mut Watch,
    packet: &Packet<'_>,
    frame: &Frame<'_>,
    shards: &mut Shards,
) {
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

fn quote(at: PacketRef, packet: &Packet<'_>, error: Option<IcmpError>, shards: &mut Shards) {
    let Some(mut error) = error else { return };
    error.from = packet.ip.map_or(error.from, |ip| ip.source);
    let ends = |end: Endpoint| Endpoint::new(end.address, end.port);
    shards.icmp(flow_hash(ends(error.source), ends(error.destination), error.protocol) as usize, at, &error);
}
