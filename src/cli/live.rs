//! `tcpwhy live`: what is found is told as it becomes known, the report in the end.
//!
//! Three kinds of threads: those that catch packets, this one that numbers, writes and diagnoses them, and one that makes reports and
//! prints, so that a slow terminal delays nobody.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::args::{Direction, Live as Args};
use super::privilege::Plan;
use super::{FailOn, Format, Options, exit_code, how, style};
use tcpwhy::capture::live::{Feed, Live, LiveOptions, Notice, Way, interfaces};
use tcpwhy::capture::write::{Counted, Writer, Written};
use tcpwhy::diagnose::news::{News, Told};
use tcpwhy::render::{json, text};
use tcpwhy::run::keep::{Keeper, Ring, Segment};
use tcpwhy::run::live::{Look, Watching};
use tcpwhy::time::Timestamp;
use tcpwhy::{Report, Severity};

/// No look at what is known sooner after the one before.
const LOOK: Duration = Duration::from_millis(500);
/// Looks take at most one part in so many of the time.
const SHARE: u32 = 20;
/// How long to wait for packets before looking at the clock.
const PATIENCE: Duration = Duration::from_millis(100);

/// Does it.
pub(super) fn live(args: &Args) -> Result<ExitCode> {
    if args.list_interfaces {
        return list();
    }
    if args.interface.is_empty() {
        bail!(
            "no interface given: tcpwhy live -i INTERFACE [FILTER]  (tcpwhy live -D lists them; -i any is all of them)"
        );
    }
    let filter = (!args.filter.is_empty()).then(|| args.filter.join(" "));
    let options = LiveOptions {
        interfaces: args.interface.clone(),
        filter,
        snaplen: args.snaplen,
        buffer: args.buffer_size.saturating_mul(1024),
        promiscuous: !args.no_promiscuous_mode,
        direction: match args.direction {
            Direction::In => Way::In,
            Direction::Out => Way::Out,
            Direction::Inout => Way::Both,
        },
    };
    let plan = Plan::new(args.relinquish_privileges.as_deref())?;
    let diagnosis = how(&args.options)?.all_flows(args.options.all_flows);
    let live = Live::open(&options).map_err(|error| hint(error, &args.interface))?;
    let described = live.interfaces();
    let packets = args.write.as_deref().map(|path| Recording::begin(path, &described, &plan)).transpose()?;
    let evidence = args.evidence.as_deref().map(|folder| evidence_folder(folder, &plan)).transpose()?;
    let report_file = args.options.output.as_deref().map(|path| create(path, &plan)).transpose()?;
    plan.carry_out()?;
    // From here on there are threads.
    let (stop, wanted) = (super::on_interrupt()?, Arc::new(AtomicBool::new(false)));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, wanted.clone()).context("cannot listen for SIGUSR1")?;
    if !args.options.quiet {
        greet(&described, args, &plan);
    }
    let file = args.write.as_ref().map(|path| path.display().to_string());
    let watching = Watching::new(diagnosis, &described, file);
    let keeper = evidence.map(|folder| Keeper::new(folder, &described, args.evidence_limit as u64));
    let ring = keeper.is_some().then(|| Ring::new(args.ring));
    let teller = Teller::begin(Printer {
        options: args.options.clone(),
        zone: super::zone(&args.options)?,
        file: report_file,
        told: Told::default(),
        keeper,
        failed: false,
    });
    let session = Session {
        feed: live.start(),
        watching,
        packets,
        ring,
        interfaces: described.len(),
        teller,
        stop,
        wanted,
        every: args.every,
        until: args.until_finding,
        end: args.time.map(|time| Instant::now() + time),
        quiet: args.options.quiet,
    };
    session.run(args.options.fail_on)
}

/// What a missing right needs.
fn hint(error: tcpwhy::Error, interfaces: &[String]) -> anyhow::Error {
    if error.kind() != tcpwhy::ErrorKind::Permission {
        return error.into();
    }
    let program = std::env::current_exe().map_or_else(|_| "tcpwhy".to_owned(), |path| path.display().to_string());
    let on = interfaces.iter().map(|name| format!(" -i {name}")).collect::<String>();
    anyhow::anyhow!("{error}\n  once:      sudo setcap cap_net_raw+ep {program}\n  this time: sudo {program} live{on}")
}

fn list() -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    for listed in interfaces()? {
        let addresses: Vec<String> = listed.addresses.iter().map(ToString::to_string).collect();
        let about = [addresses.join(" "), listed.description].into_iter().filter(|text| !text.is_empty());
        let line = format!("{:<16} {:<15} {}", listed.name, listed.state, about.collect::<Vec<_>>().join("  "));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn greet(interfaces: &[tcpwhy::capture::Interface], args: &Args, plan: &Plan) {
    let names: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
    let filter = if args.filter.is_empty() { String::new() } else { format!(", {}", args.filter.join(" ")) };
    let user = plan.name().map(|name| format!(" as {name}")).unwrap_or_default();
    eprintln!(
        "tcpwhy: listening on {}{filter}{user}; what is found is told as it becomes known, Ctrl-C ends it",
        names.join(", ")
    );
}

/// A file for somebody else to write to, once this process is somebody else.
fn create(path: &Path, plan: &Plan) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some((user, group)) = plan.owner() {
        std::os::unix::fs::fchown(&file, Some(user), Some(group))
            .with_context(|| format!("cannot give {} to {}", path.display(), plan.name().unwrap_or("its user")))?;
    }
    Ok(file)
}

/// Makes the folder for evidence, for whoever this process will be.
fn evidence_folder<'a>(folder: &'a Path, plan: &Plan) -> Result<&'a Path> {
    let failed = || format!("cannot use {} for evidence", folder.display());
    if !folder.is_dir() {
        std::fs::create_dir_all(folder).with_context(failed)?;
        if let Some((user, group)) = plan.owner() {
            std::os::unix::fs::chown(folder, Some(user), Some(group)).with_context(failed)?;
        }
    }
    Ok(folder)
}

/// The packets, as they are diagnosed.
struct Recording {
    path: String,
    writer: Writer<BufWriter<File>>,
    /// It could not be written any further, and why.
    failed: Option<io::Error>,
}

impl Recording {
    fn begin(path: &Path, interfaces: &[tcpwhy::capture::Interface], plan: &Plan) -> Result<Self> {
        let shown = path.display().to_string();
        let out = BufWriter::with_capacity(256 << 10, create(path, plan)?);
        let begun = || -> io::Result<_> {
            let mut writer = Writer::new(out, None)?;
            interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
            writer.flush()?;
            Ok(writer)
        };
        let writer = begun().with_context(|| format!("cannot write {shown}"))?;
        Ok(Self { path: shown, writer, failed: None })
    }

    /// Does it unless it failed before; a failure is said once, and the diagnosis goes on.
    fn write(&mut self, work: impl FnOnce(&mut Writer<BufWriter<File>>) -> io::Result<()>) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = work(&mut self.writer) {
            eprintln!(
                "tcpwhy: {} ends after {} packets: {error}; the diagnosis goes on",
                self.path,
                self.writer.packets().saturating_sub(1)
            );
            self.failed = Some(error);
        }
    }
}

/// Everything that runs while packets come.
struct Session {
    feed: Feed,
    watching: Watching,
    packets: Option<Recording>,
    ring: Option<Ring>,
    interfaces: usize,
    teller: Teller,
    stop: Arc<AtomicBool>,
    wanted: Arc<AtomicBool>,
    every: Option<Duration>,
    until: Option<FailOn>,
    end: Option<Instant>,
    quiet: bool,
}

impl Session {
    fn run(mut self, fail_on: Option<FailOn>) -> Result<ExitCode> {
        let mut next_look = Instant::now() + LOOK;
        let mut next_report = self.every.map(|every| Instant::now() + every);
        let mut looked_at = None;
        let mut stopping = false;
        loop {
            let notice = self.feed.wait(PATIENCE);
            while self.take() {}
            if let Some(reached) = self.feed.reached() {
                self.watching.quiet(reached);
            }
            match notice {
                Notice::Gone(name, why) => eprintln!("tcpwhy: {name} is gone, nothing more comes from it: {why}"),
                Notice::Over => break,
                Notice::None => {}
            }
            if !stopping && self.enough() {
                stopping = true;
                self.feed.stop();
            }
            let now = Instant::now();
            if stopping || now < next_look {
                continue;
            }
            let whole = self.wanted.swap(false, Ordering::Relaxed) || next_report.is_some_and(|due| due <= now);
            if whole && let (Some(every), Some(due)) = (self.every, next_report) {
                next_report = Some(if due <= now { now + every } else { due });
            }
            // Where neither packets nor time have come any further there is nothing to see.
            let here = (self.watching.packets(), self.watching.reached().second());
            if whole || looked_at != Some(here) {
                looked_at = Some(here);
                if let Some(packets) = &mut self.packets {
                    packets.write(Writer::flush);
                }
                self.look(whole);
            }
            next_look = now + LOOK.max(self.teller.pause());
        }
        self.finish(fail_on)
    }

    /// Takes one packet the whole way.
    fn take(&mut self) -> bool {
        let Self { feed, watching, packets, ring, .. } = self;
        feed.take(|taken| {
            if let Some(packets) = packets {
                let (interface, time) = (u32::from(taken.interface), taken.time);
                let written = Written { interface, time, wire_len: taken.wire_len, bytes: taken.bytes, flags: 0 };
                packets.write(|writer| writer.packet(&written, &[]));
            }
            let number = watching.packet(&taken);
            if let Some(ring) = ring {
                ring.push(number, &taken);
            }
        })
    }

    fn enough(&self) -> bool {
        let found = self.until.is_some_and(|until| self.teller.worst() >= Some(until.severity()));
        found
            || self.stop.load(Ordering::Relaxed)
            || self.teller.gone()
            || self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn counted(&self) -> Vec<Counted> {
        (0..self.interfaces).map(|n| self.feed.counted(n)).collect()
    }

    fn look(&mut self, whole: bool) {
        let counted = self.counted();
        let look = self.watching.look(whole, &counted);
        let (ring, reached) = (self.ring.as_mut().map(Ring::look).unwrap_or_default(), self.watching.reached());
        self.teller.tell(Work { look, whole, reached, ring });
    }

    fn finish(mut self, fail_on: Option<FailOn>) -> Result<ExitCode> {
        let counted = self.counted();
        let last = (self.ring.as_mut().map(Ring::look).unwrap_or_default(), self.watching.reached());
        let mut failed = None;
        if let Some(mut packets) = self.packets.take() {
            let until = self.watching.reached();
            for ((n, counted), interface) in (0..).zip(&counted).zip(self.watching.interfaces()) {
                let counted = Counted { delivered: interface.packets, ..*counted };
                packets.write(|writer| writer.statistics(n, until, &counted));
            }
            packets.write(Writer::flush);
            failed = packets.failed.map(|error| (packets.path, error));
        }
        if !self.quiet {
            let lost = counted.iter().map(|counted| counted.missed + counted.dropped).sum::<u64>();
            let overrun = match self.feed.overrun() {
                0 => String::new(),
                n => format!(", {n} of them because the diagnosis did not follow"),
            };
            eprintln!("tcpwhy: {} packets, {lost} dropped{overrun}", self.watching.packets());
        }
        let Self { feed, watching, teller, .. } = self;
        drop(feed);
        let report = watching.finish(&counted);
        teller.finish(&report, &last.0, last.1)?;
        if let Some((path, error)) = failed {
            return Err(error).with_context(|| format!("cannot write {path}"));
        }
        Ok(exit_code(&report, fail_on))
    }
}

/// Makes reports of looks, and prints what is new.
struct Teller {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<Result<Printer>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The worst that was told: 0 nothing, then severities from 1.
    worst: AtomicU8,
    /// Milliseconds the last look took.
    took: AtomicU8,
    /// Nobody reads any more.
    gone: AtomicBool,
}

struct Work {
    look: Look,
    whole: bool,
    reached: Timestamp,
    ring: Vec<Arc<Segment>>,
}

impl Teller {
    fn begin(printer: Printer) -> Self {
        // One look waits at most: the next one knows more anyway.
        let (work, todo) = bounded(1);
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        let thread = std::thread::spawn(move || printer.run(&todo, &mine));
        Self { work: Some(work), thread: Some(thread), shared }
    }

    fn tell(&self, todo: Work) {
        let Some(work) = &self.work else { return };
        if todo.whole {
            // Asked for: it may wait.
            drop(work.send(todo));
        } else if let Err(TrySendError::Disconnected(_)) = work.try_send(todo) {
            self.shared.gone.store(true, Ordering::Relaxed);
        }
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.took.load(Ordering::Relaxed)) * 10) * SHARE
    }

    fn worst(&self) -> Option<Severity> {
        match self.shared.worst.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Severity::Notice),
            2 => Some(Severity::Warning),
            _ => Some(Severity::Critical),
        }
    }

    fn gone(&self) -> bool {
        self.shared.gone.load(Ordering::Relaxed) || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Prints the report, once everything before it is printed.
    fn finish(mut self, report: &Report, ring: &[Arc<Segment>], reached: Timestamp) -> Result<()> {
        self.work.take();
        let printer = match self.thread.take().map(JoinHandle::join) {
            Some(Ok(printer)) => printer?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => return Ok(()),
        };
        printer.end(report, ring, reached)
    }
}

/// Writes to standard output, and the last report to a file if one was named.
struct Printer {
    options: Options,
    zone: jiff::tz::TimeZone,
    file: Option<File>,
    told: Told,
    keeper: Option<Keeper>,
    /// Evidence could not be written, which was said.
    failed: bool,
}

impl Printer {
    fn run(mut self, todo: &Receiver<Work>, shared: &Shared) -> Result<Self> {
        for Work { look, whole, reached, ring } in todo {
            let begin = Instant::now();
            let report = look.report();
            let took = begin.elapsed().as_millis() / 10;
            shared.took.store(u8::try_from(took).unwrap_or(u8::MAX), Ordering::Relaxed);
            let news = self.told.news(&report, reached);
            let worst = report.incidents.iter().map(|incident| rank(incident.severity)).max().unwrap_or(0);
            shared.worst.fetch_max(worst, Ordering::Relaxed);
            self.keep(&report, &ring);
            self.news(&report, &news, reached)?;
            if whole {
                self.whole(&report, &mut io::stdout().lock())?;
            }
        }
        Ok(self)
    }

    /// Evidence first: what is told can be looked at.
    fn keep(&mut self, report: &Report, ring: &[Arc<Segment>]) {
        let Some(keeper) = &mut self.keeper else { return };
        match keeper.update(report, &self.told, ring) {
            Ok(()) => self.failed = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    eprintln!("tcpwhy: evidence cannot be written: {error}; it is tried again");
                }
            }
        }
    }

    fn news(&self, report: &Report, news: &[News], reached: Timestamp) -> Result<()> {
        if news.is_empty() {
            return Ok(());
        }
        let mut out = BufWriter::new(io::stdout().lock());
        let style = style(&self.options);
        let clock = tcpwhy::diagnose::format::clock(reached, &self.zone);
        let time = tcpwhy::diagnose::format::rfc3339(reached);
        for one in news {
            match self.options.format {
                Format::Text => {
                    out.write_all(text::news(report, one, &clock, style).as_bytes())?;
                    if let Some(path) = self.evidence(one) {
                        writeln!(out, "EVIDENCE  {}", path.display())?;
                    }
                }
                Format::Json | Format::Jsonl => {
                    let told = Line { time: &time, news: one, evidence: self.evidence(one) };
                    json::line(&told, &mut out)?;
                }
            }
        }
        out.flush().context("cannot write the output")
    }

    /// Where the packets of a new incident are.
    fn evidence(&self, news: &News) -> Option<&Path> {
        match news {
            News::Opened { incident, .. } => {
                let id = self.told.first_id(incident).unwrap_or(&incident.id);
                self.keeper.as_ref().and_then(|keeper| keeper.path(id))
            }
            _ => None,
        }
    }

    fn whole(&self, report: &Report, out: &mut dyn Write) -> Result<()> {
        let mut out = BufWriter::new(out);
        match self.options.format {
            Format::Text => out.write_all(text::report(report, style(&self.options)).as_bytes())?,
            Format::Json => json::document(report, &mut out)?,
            Format::Jsonl => json::lines(report, &mut out)?,
        }
        out.flush().context("cannot write the output")
    }

    fn end(mut self, report: &Report, ring: &[Arc<Segment>], reached: Timestamp) -> Result<()> {
        // What was found last was told nobody yet.
        let news = self.told.news(report, reached);
        self.keep(report, ring);
        self.news(report, &news, reached)?;
        if let Some(keeper) = self.keeper.as_ref().filter(|_| !self.options.quiet) {
            let removed = match keeper.count().1 {
                0 => String::new(),
                n => format!(", {n} older ones went because of --evidence-limit"),
            };
            eprintln!("tcpwhy: evidence of {} incidents in {}{removed}", keeper.count().0, keeper.folder().display());
        }
        match self.file.take() {
            Some(mut file) => self.whole(report, &mut file),
            None => {
                let mut out = io::stdout().lock();
                if self.options.format == Format::Text && out.is_terminal() {
                    writeln!(out, "{}", "=".repeat(100))?;
                }
                self.whole(report, &mut out)
            }
        }
    }
}

/// A line of the event stream.
#[derive(serde::Serialize)]
struct Line<'a> {
    time: &'a str,
    #[serde(flatten)]
    news: &'a News,
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<&'a Path>,
}

fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Silent => 0,
        Severity::Notice => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    }
}
