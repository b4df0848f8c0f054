//! `-w`: the packets as they are diagnosed, in one file or, with `-C`, `-G` and `-W`, in several as tcpdump makes them.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;

use super::args::Live as Args;
use super::privilege::Plan;
use tcpwhy::capture::Interface;
use tcpwhy::capture::feed::Taken;
use tcpwhy::capture::write::{Counted, Writer, Written};
use tcpwhy::time::{Elapsed, Timestamp};

/// The file being written.
pub(super) struct Recording {
    pattern: PathBuf,
    path: String,
    writer: Writer<BufWriter<File>>,
    interfaces: Vec<Interface>,
    /// When a file is full: octets, and time.
    most: Option<u64>,
    span: Option<Elapsed>,
    /// How many files there may be.
    files: Option<u32>,
    numbering: Numbering,
    zone: TimeZone,
    begun: Timestamp,
    /// Files so far.
    count: u32,
    /// It could not be written any further, and why.
    failed: Option<io::Error>,
}

impl Recording {
    /// Makes the first file, for whoever this process will be. `None` without `-w`.
    pub(super) fn begin(args: &Args, interfaces: &[Interface], zone: TimeZone, plan: &Plan) -> Result<Option<Self>> {
        let Some(pattern) = args.write.clone() else {
            if args.file_size.is_some() || args.rotate_seconds.is_some() || args.file_count.is_some() {
                bail!("-C, -G and -W are about the file of -w, which is missing");
            }
            return Ok(None);
        };
        if args.rotate_seconds.is_some() && !pattern.to_string_lossy().contains('%') {
            bail!("-G needs a time in the file's name, such as {}-%Y%m%d-%H%M%S.pcapng", pattern.display());
        }
        if args.file_count.is_some() && args.file_size.is_none() && args.rotate_seconds.is_none() {
            bail!("-W limits the files that -C or -G begin; neither is given");
        }
        let begun = tcpwhy::capture::live::now();
        let numbering = Numbering::of(args);
        let path = name(&pattern, 0, numbering, begun, &zone);
        let writer = open(plan.create(Path::new(&path))?, interfaces);
        let writer = writer.with_context(|| format!("cannot write {path}"))?;
        Ok(Some(Self {
            pattern,
            path,
            writer,
            interfaces: interfaces.to_vec(),
            most: args.file_size.map(|millions| millions.saturating_mul(1_000_000)),
            span: args.rotate_seconds.map(|seconds| Elapsed::secs(i64::from(seconds))),
            files: args.file_count,
            numbering,
            zone,
            begun,
            count: 1,
            failed: None,
        }))
    }

    /// Its name.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether the next packet, of `time`, belongs to the next file; `None` when there may be no other.
    pub(super) fn full(&self, time: Timestamp) -> Option<bool> {
        let large = self.most.is_some_and(|most| self.writer.octets() >= most);
        let old = self.span.is_some_and(|span| time.since(self.begun) >= span);
        let last = self.most.is_none() && self.files.is_some_and(|files| self.count >= files);
        match (large || old) && self.failed.is_none() {
            true if last => None,
            full => Some(full),
        }
    }

    /// Ends the file with what the interfaces counted for it, and begins the next one.
    pub(super) fn rotate(&mut self, time: Timestamp, until: Timestamp, counted: &[Counted]) {
        self.end(until, counted);
        let place = match self.numbering {
            Numbering::Ring(files) => self.count % files,
            Numbering::Open | Numbering::None => self.count,
        };
        self.path = name(&self.pattern, place, self.numbering, time, &self.zone);
        (self.count, self.begun) = (self.count.saturating_add(1), time);
        match File::create(&self.path).and_then(|file| open(file, &self.interfaces)) {
            Ok(writer) => self.writer = writer,
            Err(error) => self.fail(error),
        }
    }

    /// Writes what the interfaces counted for this file.
    pub(super) fn end(&mut self, until: Timestamp, counted: &[Counted]) {
        for (n, counted) in (0..).zip(counted) {
            self.write(|writer| writer.statistics(n, until, counted));
        }
        self.flush();
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, taken: &Taken<'_>) {
        let (interface, time) = (u32::from(taken.interface), taken.time);
        let written = Written { interface, time, wire_len: taken.wire_len, bytes: taken.bytes, flags: 0 };
        self.write(|writer| writer.packet(&written, &[]));
    }

    /// Hands everything to the operating system.
    pub(super) fn flush(&mut self) {
        self.write(Writer::flush);
    }

    /// The name, and why it could not be written to its end.
    pub(super) fn failure(self) -> Option<(String, io::Error)> {
        let path = self.path;
        self.failed.map(|error| (path, error))
    }

    /// Does it unless it failed before.
    fn write(&mut self, work: impl FnOnce(&mut Writer<BufWriter<File>>) -> io::Result<()>) {
        if self.failed.is_none()
            && let Err(error) = work(&mut self.writer)
        {
            self.fail(error);
        }
    }

    /// Said once; the diagnosis goes on.
    fn fail(&mut self, error: io::Error) {
        eprintln!("tcpwhy: {} cannot be written any further: {error}; the diagnosis goes on", self.path);
        self.failed = Some(error);
    }
}

fn open(file: File, interfaces: &[Interface]) -> io::Result<Writer<BufWriter<File>>> {
    let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, file), None)?;
    interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
    writer.flush()?;
    Ok(writer)
}

/// How later files are told from the first.
#[derive(Clone, Copy)]
enum Numbering {
    /// By their time alone.
    None,
    /// The first without a number.
    Open,
    /// So many files, written again and again.
    Ring(u32),
}

impl Numbering {
    fn of(args: &Args) -> Self {
        match (args.file_size, args.file_count) {
            (Some(_), Some(files)) => Self::Ring(files.max(1)),
            (Some(_), None) => Self::Open,
            (None, _) => Self::None,
        }
    }
}

/// The name of file `place`: its time filled in as by strftime, then its number as tcpdump writes it.
fn name(pattern: &Path, place: u32, numbering: Numbering, time: Timestamp, zone: &TimeZone) -> String {
    let pattern = pattern.display().to_string();
    let moment = jiff::Timestamp::from_nanosecond(time.0.into()).ok().filter(|_| pattern.contains('%'));
    let filled = moment.and_then(|moment| jiff::fmt::strtime::format(&pattern, &moment.to_zoned(zone.clone())).ok());
    let filled = filled.unwrap_or(pattern);
    match numbering {
        Numbering::Ring(files) => {
            let digits = (files - 1).to_string().len();
            format!("{filled}{place:0digits$}")
        }
        Numbering::Open if place > 0 => format!("{filled}{place}"),
        Numbering::Open | Numbering::None => filled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_tcpdump_names_them() {
        let named = |pattern: &str, place, numbering| {
            name(Path::new(pattern), place, numbering, Timestamp(1_614_833_439_000_000_000), &TimeZone::UTC)
        };
        assert_eq!(named("a.pcapng", 0, Numbering::Open), "a.pcapng");
        assert_eq!(named("a.pcapng", 3, Numbering::Open), "a.pcapng3");
        assert_eq!(named("a.pcapng", 3, Numbering::Ring(20)), "a.pcapng03");
        assert_eq!(named("a.pcapng", 3, Numbering::Ring(10)), "a.pcapng3");
        assert_eq!(named("a-%Y%m%d-%H%M%S.pcapng", 5, Numbering::None), "a-20210304-045039.pcapng");
    }
}
