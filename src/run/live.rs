//! A capture that is still going on: the same way through as for files, and a look at what is known at any moment.
//!
//! Nothing of what was told feeds back: a look is a copy, and the report in the end is that of the same packets read from a file.

use super::shard::{self, Parts, Shards};
use super::trip::{Apart, Trip};
use super::{Diagnosis, Window, asked};
use crate::capture::live::Taken;
use crate::capture::write::Counted;
use crate::capture::{CaptureInfo, Frame, Interface};
use crate::diagnose::report::Report;
use crate::diagnose::{Merged, Settings, report};
use crate::time::Timestamp;

/// A diagnosis of packets as they come.
pub struct Watching {
    diagnosis: Diagnosis,
    trip: Trip,
    shards: Shards,
    info: CaptureInfo,
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
        let Merged { infos, asked, until, .. } = rest;
        let mut merged = Merged { infos, asked, until, ..shard::together(parts.iter().collect()) };
        apart.join(&mut merged);
        report(&merged, &settings)
    }
}

impl Watching {
    /// Nothing seen yet. `file` is where the packets are written to, if they are: numbers in the report are numbers of that file.
    pub fn new(diagnosis: Diagnosis, interfaces: &[Interface], file: Option<String>) -> Self {
        let window = Window { since: None, until: None, ends: None };
        let trip = Trip::new(None, window, &diagnosis.settings.thresholds);
        let shards = Shards::new(diagnosis.threads, &diagnosis.recording(), &diagnosis.limits);
        let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
        let info = CaptureInfo {
            format: if file.is_some() { "pcapng" } else { LIVE }.into(),
            file: file.unwrap_or_else(|| names.join(", ")),
            interfaces: interfaces.to_vec(),
            ..CaptureInfo::default()
        };
        Self { diagnosis, trip, shards, info, reached: Timestamp::MIN }
    }

    /// Takes the next packet; returns its number.
    pub fn packet(&mut self, taken: &Taken<'_>) -> u64 {
        let Taken { interface, time, wire_len, bytes } = *taken;
        let info = &mut self.info;
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
        let frame = Frame { file: 0, point: 0, number, time, interface, link, wire_len, bytes, offset: 0, flags: 0 };
        self.trip.frame(&frame, &mut self.shards);
        self.reached = self.reached.max(time);
        number
    }

    /// Everything that came until then was taken: whoever waits has waited for so long.
    pub fn quiet(&mut self, until: Timestamp) {
        self.reached = self.reached.max(until);
        self.trip.quiet_until(Some(self.reached), &mut self.shards);
        self.shards.flush();
    }

    /// Packets so far.
    pub fn packets(&self) -> u64 {
        self.info.packets
    }

    /// How far capture time has come.
    pub fn reached(&self) -> Timestamp {
        self.reached
    }

    /// Packets of each interface so far.
    pub fn interfaces(&self) -> &[Interface] {
        &self.info.interfaces
    }

    /// What is known now. With `all` as the report would be if the capture ended; else of the open flows only those that have something to
    /// tell, which is much less work.
    pub fn look(&mut self, all: bool, counted: &[Counted]) -> Look {
        self.told(counted);
        let end = self.trip.quiet_until(Some(self.reached), &mut self.shards);
        let rest = Merged {
            infos: vec![self.info.clone()],
            asked: asked(&self.diagnosis),
            until: Some(end),
            ..Merged::default()
        };
        let settings = self.diagnosis.settings.clone();
        Look { parts: self.shards.peek(all, end), apart: self.trip.peek(end), rest, settings }
    }

    /// The capture is over.
    pub fn finish(mut self, counted: &[Counted]) -> Report {
        self.told(counted);
        let until = self.info.until();
        let Self { diagnosis, mut trip, mut shards, info, .. } = self;
        let end = trip.quiet_until(until, &mut shards);
        let mut merged = shards.finish(end);
        trip.finish(end).join(&mut merged);
        merged.until = Some(end);
        merged.infos = vec![info];
        merged.asked = asked(&diagnosis);
        report(&merged, &diagnosis.settings)
    }

    /// What the interfaces counted, as the file's statistics will say it.
    fn told(&mut self, counted: &[Counted]) {
        for (interface, counted) in self.info.interfaces.iter_mut().zip(counted) {
            interface.drops = Some(counted.dropped + counted.missed);
            interface.until = Some((self.reached, interface.packets));
        }
        self.info.drops =
            self.info.interfaces.iter().filter_map(|interface| interface.drops).reduce(u64::saturating_add);
    }
}

/// Format of a capture that is written to no file.
pub const LIVE: &str = "live";
