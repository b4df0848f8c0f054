//! The whole trip of a frame on one page: read, pass over or decode, count, and hand to the shard of its flow.

use crate::capture::filter::{Filter, Pass};
use crate::capture::{Frame, LinkType};
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
    clocks: Vec<((u16, u16), PacketRef)>,
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
            clocks: Vec::new(),
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
        let plain = Decoder::plain(frame);
        let odd;
        let packet = match &plain {
            Some(packet) => packet,
            None => {
                odd = self.decoder.odd(frame);
                &odd
            }
        };
        if self.packets.first.is_none_or(|first| at < first) {
            self.packets.first = Some(at);
        }
        if self.packets.last.is_none_or(|last| at > last) {
            self.packets.last = Some(at);
        }
        count(&mut self.packets, packet, frame.link);
        if matches!(packet.transport, Transport::UnknownLink) {
            self.packets.unknown_link_first.get_or_insert(at);
        }
        if !matches!(packet.transport, Transport::Tcp(_)) {
            self.neighbors.signs.learn(at, packet, frame.bytes);
        }
        self.watch.packet(packet);
        match &packet.transport {
            Transport::Tcp(_) | Transport::Udp(_) => {
                if let Some(shard) = shard_of(packet) {
                    shards.packet(shard, packet);
                }
            }
            Transport::Icmp4(message) => quote(at, packet, icmp::parse_error4(message), shards),
            Transport::Icmp6(message) => {
                if let Some(ip) = packet.ip
                    && let Ok(neighbor) = arp::parse_neighbor6(message, ip.source)
                {
                    self.watch.arp(at, &neighbor);
                    self.neighbors.learn(at, &neighbor, packet.link);
                }
                quote(at, packet, icmp::parse_error6(message), shards);
            }
            Transport::Arp(message) => {
                if let Ok(neighbor) = arp::parse_arp(message) {
                    self.watch.arp(at, &neighbor);
                    self.neighbors.learn(at, &neighbor, packet.link);
                }
            }
            _ => {}
        }
    }

    fn pass_over(&mut self, at: PacketRef) {
        self.packets.filtered += 1;
        self.packets.filtered_first.get_or_insert(at);
        self.packets.filtered_last = Some(at);
    }

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
        let eighth = time.eighth();
        if self.eighth.is_some_and(|known| eighth > known) {
            shards.tick(Timestamp::of_eighth(eighth));
        }
        self.eighth = self.eighth.max(Some(eighth));
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

    /// A packet older than its predecessor on the same interface.
    fn clock(&mut self, at: PacketRef, interface: u16) {
        let key = (at.file, interface);
        let Some((_, known)) = self.clocks.iter_mut().find(|(k, _)| *k == key) else {
            if self.clocks.len() < 4096 {
                self.clocks.push((key, at));
            }
            return;
        };
        let step = known.time.since(at.time);
        if step > self.clock_step {
            self.packets.clock_steps += 1;
            self.packets.clock_step_first.get_or_insert((*known, at));
            self.packets.clock_step_max = self.packets.clock_step_max.max(step);
        }
        *known = at;
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

/// The shard of a packet's flow: both directions and all faces with the same ends agree.
fn shard_of(packet: &Packet<'_>) -> Option<usize> {
    let protocol = match packet.transport {
        Transport::Tcp(_) => 6,
        _ => 17,
    };
    Some(flow_hash(packet.source()?, packet.destination()?, protocol) as usize)
}

fn quote(at: PacketRef, packet: &Packet<'_>, error: Option<IcmpError>, shards: &mut Shards) {
    let Some(mut error) = error else { return };
    error.from = packet.ip.map_or(error.from, |ip| ip.source);
    let ends = |end: Endpoint| Endpoint::new(end.address, end.port);
    shards.icmp(flow_hash(ends(error.source), ends(error.destination), error.protocol) as usize, at, &error);
}

fn count(packets: &mut PacketTally, packet: &Packet<'_>, link: LinkType) {
    match &packet.transport {
        Transport::Tcp(_) => packets.tcp += 1,
        Transport::Udp(datagram) => {
            packets.udp += 1;
            packets.dns += u64::from(datagram.source_port == 53 || datagram.destination_port == 53);
        }
        Transport::Icmp4(_) | Transport::Icmp6(_) => packets.icmp += 1,
        Transport::Arp(_) => packets.arp += 1,
        Transport::Fragment => packets.fragments += 1,
        Transport::OtherIp(_) => packets.other_ip += 1,
        Transport::NotIp(_) => packets.not_ip += 1,
        Transport::UnknownLink => {
            packets.unknown_link += 1;
            *packets.unknown_links.entry(format!("{} ({})", link.name(), link.0)).or_default() += 1;
        }
        Transport::Unreadable(why) => {
            packets.unreadable += 1;
            *packets.unreadable_why.entry((*why).to_owned()).or_default() += 1;
        }
    }
}
