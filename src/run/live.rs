//! A capture that is still going on: the same way through as for files, and a look at what is known at any moment.
//!
//! Nothing of what was told feeds back: a look is a copy, and the report in the end is that of the same packets read from a file.

use super::shard::{self, Parts, Shards};
use super::trip::{Apart, Trip};
use super::{Diagnosis, Window, asked};
use std::net::IpAddr;

use crate::capture::feed::Taken;
use crate::capture::filter::{Filter, Pass};
use crate::capture::write::Counted;
use crate::capture::{CaptureInfo, Frame, Interface, LinkType};
use crate::diagnose::report::Report;
use crate::diagnose::{Merged, Settings, report};
use crate::host::sockets::Sockets;
use crate::time::Timestamp;
use crate::wire::{Address, Endpoint};

/// A diagnosis of packets as they come.
pub struct Watching {
    diagnosis: Diagnosis,
    trip: Trip,
    shards: Shards,
    /// Files that are full, then the one being written.
    infos: Vec<CaptureInfo>,
    reached: Timestamp,
}

/// What is known at one moment.
pub struct Look {
    parts: Parts,
    apart: Apart,
    rest: Merged,
    settings: Settings,
}

impl Look {
    /// Waits until all shards have come so far, and makes the report.
    pub fn report(self) -> Report {
        let Self { parts, apart, rest, settings } = self;
        let Merged { infos, asked, until, sockets, .. } = rest;
        let mut merged = Merged { infos, asked, until, sockets, ..shard::together(parts.iter().collect(), 1) };
        apart.join(&mut merged);
        report(&merged, &settings)
    }
}

impl Watching {
    /// Nothing seen yet. `file` is where the packets are written to, if they are: numbers in the report are numbers of that file.
    pub fn new(diagnosis: Diagnosis, interfaces: &[Interface], file: Option<String>) -> Self {
        let window = Window { since: None, until: None, ends: None };
        let trip = Trip::new(None, window, &diagnosis.settings.thresholds);
        let shards = Shards::new(diagnosis.settings.threads, &diagnosis.recording(), &diagnosis.limits);
        let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let info = CaptureInfo {
            format: if file.is_some() { "pcapng" } else { CaptureInfo::LIVE }.into(),
            file: file.unwrap_or_else(|| names.join(", ")),
            interfaces: interfaces.to_vec(),
            ..CaptureInfo::default()
        };
        Self { diagnosis, trip, shards, infos: vec![info], reached: Timestamp::MIN }
    }

    /// The file that is followed, and its interfaces so far. Another file than before begins new numbers.
    pub fn describe(&mut self, told: CaptureInfo) {
        if self.packets() > 0 && self.infos.last().is_some_and(|info| info.file != told.file) {
            self.rotate(told.file.clone(), &[]);
            self.info().interfaces.clear();
        }
        let CaptureInfo { file, format, interfaces, .. } = told;
        let info = self.info();
        (info.file, info.format) = (file, format);
        let new = interfaces.into_iter().skip(info.interfaces.len());
        info.interfaces.extend(new);
    }

    fn info(&mut self) -> &mut CaptureInfo {
        let last = self.infos.len() - 1;
        &mut self.infos[last]
    }

    /// The next packets go to another file: numbers begin anew. `counted` is what the interfaces counted so far.
    pub fn rotate(&mut self, file: String, counted: &[Counted]) {
        // More files than can be told apart: their numbers go on.
        if self.infos.len() > usize::from(u16::MAX) {
            return;
        }
        self.told(counted);
        let full = self.info();
        let interfaces = full.interfaces.iter().map(|interface| Interface {
            packets: 0,
            drops: None,
            until: None,
            ..interface.clone()
        });
        let info = CaptureInfo {
            file,
            format: full.format.clone(),
            interfaces: interfaces.collect(),
            ..CaptureInfo::default()
        };
        self.infos.push(info);
    }

    /// Takes the next packet; returns its number and that of its file.
    pub fn packet(&mut self, taken: &Taken<'_>) -> (u16, u64) {
        let Taken { interface, time, wire_len, bytes } = *taken;
        let file = (self.infos.len() - 1) as u16;
        let info = self.info();
        info.packets += 1;
        info.octets += u64::from(wire_len);
        info.first = Some(info.first.map_or(time, |first| first.min(time)));
        info.last = Some(info.last.map_or(time, |last| last.max(time)));
        let mut link = Default::default();
        if let Some(interface) = info.interfaces.get_mut(usize::from(interface)) {
            interface.packets += 1;
            link = interface.link;
        }
        let number = info.packets;
        let frame = Frame { file, point: 0, number, time, interface, link, wire_len, bytes, offset: 0, flags: 0 };
        self.trip.frame(&frame, &mut self.shards);
        self.reached = self.reached.max(time);
        (file, number)
    }

    /// What this host has open now, as far as the capture would see it: of `addresses` (empty: all) and of what the filter passes.
    pub fn sockets(&mut self, mut sockets: Sockets, addresses: &[Address]) {
        let filter = self.interfaces().first().and_then(|interface| interface.filter.clone());
        let mut filter = filter.map(|expression| Filter::new(&expression));
        sockets.established.retain(|socket| {
            let here = addresses.is_empty() || addresses.contains(&socket.local.address);
            here && filter.as_mut().is_none_or(|filter| match filter {
                Ok(filter) => {
                    let ways = [(socket.local, socket.peer), (socket.peer, socket.local)];
                    ways.iter().any(|(from, to)| passes(filter, *from, *to))
                }
                // It is about the link layer, and says nothing of connections.
                Err(_) => false,
            })
        });
        if let Some(earlier) = &self.diagnosis.sockets {
            sockets.remember(earlier);
        }
        self.diagnosis.sockets = Some(sockets);
    }

    /// Everything that came until then was taken: whoever waits has waited for so long.
    pub fn quiet(&mut self, until: Timestamp) {
        self.reached = self.reached.max(until);
        self.trip.quiet_until(Some(self.reached), &mut self.shards);
        self.shards.flush();
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.infos.iter().map(|info| info.packets).sum()
    }

    /// How far capture time has come.
    pub fn reached(&self) -> Timestamp {
        self.reached
    }

    /// The interfaces, with the packets of the file that is being written.
    pub fn interfaces(&self) -> &[Interface] {
        self.infos.last().map_or(&[], |info| &info.interfaces)
    }

    /// What is known now. With `all` as the report would be if the capture ended; else of the open flows only those that have something to
    /// tell, which is much less work.
    pub fn look(&mut self, all: bool, counted: &[Counted]) -> Look {
        self.told(counted);
        let end = self.trip.quiet_until(Some(self.reached), &mut self.shards);
        let rest = Merged {
            infos: self.infos.clone(),
            asked: asked(&self.diagnosis),
            until: Some(end),
            sockets: self.diagnosis.sockets.clone(),
            ..Merged::default()
        };
        // What is being read goes before.
        let settings = Settings { threads: 1, ..self.diagnosis.settings.clone() };
        Look { parts: self.shards.peek(all, end), apart: self.trip.peek(end), rest, settings }
    }

    /// The capture is over.
    pub fn finish(mut self, counted: &[Counted]) -> Report {
        self.told(counted);
        let until = self.infos.iter().filter_map(CaptureInfo::until).max();
        let Self { diagnosis, mut trip, mut shards, infos, .. } = self;
        let end = trip.quiet_until(until, &mut shards);
        let mut merged = shards.finish(end);
        trip.finish(end).join(&mut merged);
        merged.until = Some(end);
        merged.infos = infos;
        merged.asked = asked(&diagnosis);
        merged.sockets = diagnosis.sockets;
        report(&merged, &diagnosis.settings)
    }

    /// What the interfaces counted, as the file's statistics will say it.
    fn told(&mut self, counted: &[Counted]) {
        let reached = self.reached;
        // Counters go on from file to file.
        let before: Vec<u64> = (0..counted.len()).map(|n| self.dropped_before(n)).collect();
        let info = self.info();
        for ((interface, counted), before) in info.interfaces.iter_mut().zip(counted).zip(before) {
            interface.drops = Some((counted.dropped + counted.missed).saturating_sub(before));
            interface.until = Some((reached, interface.packets));
        }
        info.drops = info.interfaces.iter().filter_map(|interface| interface.drops).reduce(u64::saturating_add);
    }

    /// Packets of interface `n` that were dropped while earlier files were written.
    pub fn dropped_before(&self, n: usize) -> u64 {
        let full = self.infos.split_last().map_or(&[][..], |(_, full)| full);
        full.iter().filter_map(|info| info.interfaces.get(n)?.drops).sum()
    }
}

/// Whether a filter passes a segment between these ends. Filters about the link layer pass none.
fn passes(filter: &mut Filter, from: Endpoint, to: Endpoint) -> bool {
    let mut packet = match (from.address.to_ip(), to.address.to_ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let head = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            [&head[..], &a.octets(), &b.octets()].concat()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let head = [0x60, 0, 0, 0, 0, 20, 6, 64];
            [&head[..], &a.octets(), &b.octets()].concat()
        }
        _ => return false,
    };
    packet.extend([from.port.to_be_bytes(), to.port.to_be_bytes()].concat());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    let frame = Frame {
        file: 0,
        point: 0,
        number: 1,
        time: Timestamp(0),
        interface: 0,
        link: LinkType::RAW,
        wire_len: packet.len() as u32,
        bytes: &packet,
        offset: 0,
        flags: 0,
    };
    filter.pass(&frame) == Pass::Yes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SS: &str = "ESTAB 0 0 10.0.0.7:40000 10.9.9.9:80\n\t bytes_acked:22 lastsnd:90000 lastrcv:90003\n\
                      ESTAB 0 0 [2001:db8::7]:40001 [2001:db8::9]:443\n\t bytes_acked:22 lastsnd:90000 lastrcv:90003\n";

    fn watched(filter: Option<&str>, addresses: &[Address]) -> Vec<u16> {
        let interface = Interface { filter: filter.map(str::to_owned), ..Interface::default() };
        let mut watching = Watching::new(Diagnosis::new().workers(1), &[interface], None);
        watching.sockets(Sockets::parse(SS), addresses);
        let sockets = watching.diagnosis.sockets.expect("a snapshot");
        sockets.established.iter().map(|socket| socket.local.port).collect()
    }

    #[test]
    fn of_a_hosts_sockets_only_those_count_whose_packets_the_capture_would_see() {
        assert_eq!(watched(None, &[]), [40_000, 40_001]);
        assert_eq!(watched(Some("port 80"), &[]), [40_000]);
        assert_eq!(watched(Some("ip6 and dst port 443"), &[]), [40_001]);
        assert_eq!(watched(Some("udp"), &[]), [0; 0]);
        assert_eq!(watched(Some("ether host 02:00:00:00:00:01"), &[]), [0; 0]);
        assert_eq!(watched(None, &[Address::v4([10, 0, 0, 7])]), [40_000]);
    }
}
