//! The spine: from inputs to a report. [`Diagnosis`] is the library's door.

#[cfg_attr(not(feature = "live"), allow(dead_code))]
mod crew;
pub mod dossier;
#[cfg(test)]
mod frugal;
#[cfg(feature = "live")]
pub mod keep;
mod kept;
pub mod ladder;
#[cfg(feature = "live")]
pub mod live;
mod means;
mod prefix;
mod progress;
pub mod proof;
mod recorder;
mod second;
// What only a capture that goes on asks for is idle without it.
#[cfg_attr(not(feature = "live"), allow(dead_code))]
mod shard;
mod tally;
#[cfg_attr(not(feature = "live"), allow(dead_code))]
mod trip;
mod vigil;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::capture::filter::Filter;
use crate::capture::window::TimeBound;
use crate::capture::{OpenOptions, Source};
use crate::diagnose::report::Report;
pub use crate::diagnose::selection::Ends;
use crate::diagnose::{Merged, Settings, one_place, report};
use crate::error::Result;
use crate::flow::table::Limits;
use crate::host::sockets::Sockets;
use crate::rule::threshold::Thresholds;
use crate::time::Timestamp;
use crate::wire::Endpoint;
pub use progress::Progress;
use recorder::Recording;
use shard::Shards;
use trip::Trip;

/// A diagnosis to be made: what to read, what of it, and with which numbers.
///
/// ```no_run
/// let report = tcpwhy::Diagnosis::new().open(&["incident.pcap"])?.run()?;
/// for incident in &report.incidents {
///     println!("{}", incident.headline);
/// }
/// # Ok::<(), tcpwhy::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Diagnosis {
    settings: Settings,
    filter: Option<String>,
    since: Option<TimeBound>,
    until: Option<TimeBound>,
    open: OpenOptions,
    keep: Option<(Endpoint, Endpoint)>,
    stop: Option<Arc<AtomicBool>>,
    limits: Limits,
    progress: Option<Arc<Progress>>,
    sockets: Option<Sockets>,
    originals: Vec<Original>,
}

/// What an input is a copy of.
#[derive(Clone, Debug)]
pub struct Original {
    /// The name it goes by in the report.
    pub name: String,
    /// SHA-256 of the original as it is stored, in lower-case hex, and its octets.
    pub hash: Option<(String, u64)>,
}

/// Which times are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    since: Option<TimeBound>,
    until: Option<TimeBound>,
    /// Both ends, once the first packet tells what they are counted from.
    ends: Option<(Timestamp, Timestamp)>,
}

impl Window {
    /// Whether no time is asked for: all of them are.
    fn is_open(&self) -> bool {
        self.since.is_none() && self.until.is_none()
    }

    fn holds(&mut self, time: Timestamp) -> bool {
        let at = |bound: &TimeBound| bound.at(time);
        let (from, to) = *self.ends.get_or_insert_with(|| {
            (self.since.as_ref().map_or(Timestamp::MIN, at), self.until.as_ref().map_or(Timestamp::MAX, at))
        });
        (from..=to).contains(&time)
    }
}

impl Diagnosis {
    /// With the catalogue's numbers, on all cores, of everything.
    pub fn new() -> Self {
        Self::default().workers(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// Sets the numbers of the rules.
    pub fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.settings.thresholds = thresholds;
        self
    }

    /// Threads that share the work, the calling one among them; the report does not depend on it. 0 and 1: only that one.
    pub fn workers(mut self, threads: usize) -> Self {
        self.settings.threads = threads;
        self
    }

    /// Lists every flow with its explanation.
    pub fn all_flows(mut self, all: bool) -> Self {
        self.settings.all_flows = all;
        self
    }

    /// Zone of the clock times in sentences; UTC by default.
    pub fn zone(mut self, zone: jiff::tz::TimeZone) -> Self {
        self.settings.zone = zone;
        self
    }

    /// Only packets that match an expression in tcpdump's language. Packet numbers stay those of the file.
    pub fn filter(mut self, expression: Option<String>) -> Self {
        self.filter = expression;
        self
    }

    /// Only packets of this time.
    pub fn between(mut self, since: Option<TimeBound>, until: Option<TimeBound>) -> Self {
        (self.since, self.until) = (since, until);
        self
    }

    /// Reports only flows of these hosts, names and paths, with the legs that are linked to them. Everything is read all the same.
    pub fn ends(mut self, ends: Ends) -> Self {
        self.settings.only = ends;
        self
    }

    /// What the capturing host had open, as `ss -tnpoi` tells: names connections that wait and send nothing.
    pub fn sockets(mut self, sockets: Option<Sockets>) -> Self {
        self.sockets = sockets;
        self
    }

    /// The inputs are copies: the report shows what they stand for, in the order of the inputs.
    pub fn originals(mut self, originals: Vec<Original>) -> Self {
        self.originals = originals;
        self
    }

    /// The upstreams that proxies are expected to use.
    pub fn expect_upstreams(mut self, expected: Vec<Endpoint>) -> Self {
        self.settings.expected = expected;
        self
    }

    /// Once the flag is set, reading ends after the packet at hand, and the report says so.
    pub fn stop_on(mut self, stop: Arc<AtomicBool>) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Keeps these counters up to date while it reads, for another thread to show.
    pub fn progress(mut self, progress: Arc<Progress>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// How inputs are opened (caps of decompression).
    pub fn open_options(mut self, options: OpenOptions) -> Self {
        self.open = options;
        self
    }

    /// Whether the inputs' SHA-256 is put into the report.
    pub fn hash(mut self, hash: bool) -> Self {
        self.open.hash = hash;
        self
    }

    /// The memory a run may take, in octets, about; 2 GiB by default. Beyond it open flows are judged early, those of least interest first,
    /// and the report says how many. What is not open flows takes up to 96 MiB, and up to 32 MiB more are left to the allocator.
    pub fn max_memory(mut self, octets: usize) -> Self {
        self.limits.allow(octets);
        self
    }

    /// Opens files (`path`, `name=path`, `-` for standard input). Several are read as one in time order.
    ///
    /// # Errors
    /// When one cannot be opened or is no capture, or when the filter does not compile.
    pub fn open<S: AsRef<str>>(self, inputs: &[S]) -> Result<Opened> {
        let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
        let mut options = self.open.clone();
        if let Some(progress) = &self.progress {
            progress.begin(octets(&inputs));
            options.meter = Some(progress.meter());
        }
        let source = Source::open(&inputs, &options)?;
        let inputs: Vec<String> = inputs.into_iter().map(str::to_owned).collect();
        Ok(Opened { inputs, ..self.source(source)? })
    }

    /// Diagnoses an open source.
    ///
    /// # Errors
    /// When the filter does not compile.
    pub fn source(self, source: Source) -> Result<Opened> {
        let filter = self.filter.as_deref().map(Filter::new).transpose()?;
        Ok(Opened { diagnosis: self, source, filter, inputs: Vec::new() })
    }
}

/// Inputs that are open, ready to be read.
pub struct Opened {
    diagnosis: Diagnosis,
    source: Source,
    filter: Option<Filter>,
    /// What was opened by name, and can be opened again.
    inputs: Vec<String>,
}

impl Opened {
    /// Reads everything and says what happened.
    ///
    /// # Errors
    /// When the operating system refuses a read before the first packet, or a filter fits no link type of the input.
    pub fn run(self) -> Result<Report> {
        let settings = self.diagnosis.settings.clone();
        Ok(report(&self.merged()?, &settings))
    }

    /// Reads everything; the report is made from what this returns. Files of several interfaces of one host, which only the packets tell,
    /// are read once more as one capture.
    ///
    /// # Errors
    /// As [`Opened::run`].
    pub fn merged(self) -> Result<Merged> {
        let Self { diagnosis, inputs, .. } = &self;
        let (diagnosis, inputs) = (diagnosis.clone(), inputs.clone());
        let merged = self.read()?;
        let again = inputs.len() > 1 && !merged.interrupted && inputs.iter().all(|input| is_file(input));
        let together = if again { one_place(&merged) } else { Vec::new() };
        if together.is_empty() {
            return Ok(merged);
        }
        let mut opened = diagnosis.open(&inputs)?;
        opened.source.at_one_place(&together);
        Ok(Merged { one_place: together, ..opened.read()? })
    }

    fn read(self) -> Result<Merged> {
        let Self { diagnosis, mut source, filter, .. } = self;
        let asked = asked(&diagnosis);
        let window = Window { since: diagnosis.since.clone(), until: diagnosis.until.clone(), ends: None };
        let mut trip = Trip::new(filter, window, &diagnosis.settings.thresholds);
        let mut shards = Shards::new(diagnosis.settings.threads, &diagnosis.recording(), &diagnosis.limits);
        let (mut interrupted, mut seen) = (false, 0);
        while let Some(frame) = source.next()? {
            trip.frame(&frame, &mut shards);
            if let Some(progress) = &diagnosis.progress {
                progress.read(trip.known.packets.read, &mut seen);
            }
            if diagnosis.stopped() {
                interrupted = true;
                break;
            }
        }
        if let Some(progress) = &diagnosis.progress {
            progress.conclude(trip.known.packets.read);
        }
        // What was stopped, or asked for up to a time, is known no further than that.
        let whole = !interrupted && diagnosis.until.is_none();
        let end = trip.quiet_until(source.until().filter(|_| whole), &mut shards);
        let mut merged = shards.finish(end);
        merged.until = Some(end);
        if let Some(filter) = &trip.filter {
            filter.check_used()?;
        }
        trip.finish(end).join(&mut merged);
        merged.points = source.points();
        merged.infos = source.finish();
        for (info, original) in merged.infos.iter_mut().zip(diagnosis.originals) {
            info.file = original.name;
            (info.sha256, info.stored) = original.hash.unzip();
        }
        merged.asked = asked;
        merged.sockets = diagnosis.sockets;
        merged.interrupted = interrupted;
        Ok(merged)
    }
}

impl Diagnosis {
    fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn recording(&self) -> Recording {
        Recording {
            thresholds: self.settings.thresholds.clone(),
            all_flows: self.settings.all_flows,
            keep: self.keep,
            progress: self.progress.clone(),
        }
    }
}

/// Whether `path` or `name=path` is a file that can be read again.
fn is_file(input: &str) -> bool {
    std::path::Path::new(crate::capture::labelled(input).1).is_file()
}

/// Octets of all inputs as they are stored; `None` when one is no file.
fn octets(inputs: &[&str]) -> Option<u64> {
    let sizes = inputs.iter().map(|input| {
        let path = std::path::Path::new(crate::capture::labelled(input).1);
        path.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len())
    });
    sizes.sum()
}

/// What was asked for, in words for the report.
fn asked(diagnosis: &Diagnosis) -> String {
    let mut parts = Vec::new();
    if let Some(filter) = &diagnosis.filter {
        parts.push(format!("--filter '{filter}'"));
    }
    let only = &diagnosis.settings.only;
    for (flag, list) in [("--client", &only.clients), ("--server", &only.servers)] {
        parts.extend(list.iter().map(|address| format!("{flag} {address}")));
    }
    parts.extend(only.names.iter().map(|name| format!("--name {name}")));
    parts.extend(only.paths.iter().map(|path| format!("--path {path}")));
    if diagnosis.since.is_some() {
        parts.push("--since".into());
    }
    if diagnosis.until.is_some() {
        parts.push("--until".into());
    }
    parts.join(" ")
}
