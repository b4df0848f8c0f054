//! What `tcpwhy live` tells, on a thread of its own: a slow terminal delays nobody.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{Format, Options, style};
use tcpwhy::diagnose::news::{News, Told};
use tcpwhy::render::{json, text};
use tcpwhy::run::keep::{Keeper, Segment};
use tcpwhy::run::live::Look;
use tcpwhy::time::Timestamp;
use tcpwhy::{Report, Severity};

/// Looks take at most one part in so many of the time.
const SHARE: u32 = 20;

/// Makes reports of looks, and prints what is new.
pub(super) struct Teller {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<Result<Printer>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The worst that was told: 0 nothing, then severities from 1.
    worst: AtomicU8,
    /// Hundredths of a second the last look took.
    took: AtomicU8,
    /// Nobody reads any more.
    gone: AtomicBool,
}

pub(super) struct Work {
    pub(super) look: Look,
    pub(super) whole: bool,
    pub(super) reached: Timestamp,
    pub(super) ring: Vec<Arc<Segment>>,
    pub(super) described: Option<Vec<tcpwhy::capture::Interface>>,
}

impl Teller {
    pub(super) fn begin(printer: Printer) -> Self {
        // One look waits at most: the next one knows more anyway.
        let (work, todo) = bounded(1);
        let shared = Arc::new(Shared::default());
        let mine = shared.clone();
        let thread = std::thread::spawn(move || printer.run(&todo, &mine));
        Self { work: Some(work), thread: Some(thread), shared }
    }

    /// Hands a look over; `false` when the one before is still being printed.
    pub(super) fn tell(&self, todo: Work) -> bool {
        let Some(work) = &self.work else { return false };
        match work.try_send(todo) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.shared.gone.store(true, Ordering::Relaxed);
                false
            }
        }
    }

    pub(super) fn pause(&self) -> Duration {
        Duration::from_millis(u64::from(self.shared.took.load(Ordering::Relaxed)) * 10) * SHARE
    }

    pub(super) fn worst(&self) -> Option<Severity> {
        match self.shared.worst.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Severity::Notice),
            2 => Some(Severity::Warning),
            _ => Some(Severity::Critical),
        }
    }

    pub(super) fn gone(&self) -> bool {
        self.shared.gone.load(Ordering::Relaxed) || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Prints the report, once everything before it is printed.
    pub(super) fn finish(mut self, report: &Report, ring: &[Arc<Segment>], reached: Timestamp) -> Result<()> {
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
pub(super) struct Printer {
    pub(super) options: Options,
    pub(super) zone: jiff::tz::TimeZone,
    pub(super) file: Option<File>,
    pub(super) told: Told,
    pub(super) keeper: Option<Keeper>,
    /// Evidence could not be written, which was said.
    pub(super) failed: bool,
}

impl Printer {
    fn run(mut self, todo: &Receiver<Work>, shared: &Shared) -> Result<Self> {
        for Work { look, whole, reached, ring, described } in todo {
            if let (Some(keeper), Some(described)) = (&mut self.keeper, described) {
                keeper.describe(described);
            }
            let begin = Instant::now();
            let report = look.report();
            let took = begin.elapsed().as_millis() / 10;
            shared.took.store(u8::try_from(took).unwrap_or(u8::MAX), Ordering::Relaxed);
            let news = self.told.news(&report, reached);
            let worst = report.incidents.iter().map(|incident| rank(incident.severity)).max().unwrap_or(0);
            shared.worst.fetch_max(worst, Ordering::Relaxed);
            self.keep(&report, &ring, reached);
            self.news(&report, &news, reached)?;
            if whole {
                self.whole(&report, &mut io::stdout().lock())?;
            }
        }
        Ok(self)
    }

    /// Evidence first: what is told can be looked at.
    fn keep(&mut self, report: &Report, ring: &[Arc<Segment>], reached: Timestamp) {
        let Some(keeper) = &mut self.keeper else { return };
        match keeper.update(report, &self.told, ring, reached) {
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
                // One document, or one for each report that was asked for.
                Format::Json | Format::Markdown | Format::Html => {}
                Format::Jsonl => {
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
        let printed = match self.options.format {
            Format::Markdown | Format::Html => {
                let dossier = super::alone(report.clone());
                super::print(&self.options, &dossier, &mut out)
            }
            _ => super::print_report(&self.options, report, &mut out),
        };
        printed.and_then(|()| out.flush()).context("cannot write the output")
    }

    fn end(mut self, report: &Report, ring: &[Arc<Segment>], reached: Timestamp) -> Result<()> {
        // What was found last was told nobody yet.
        let news = self.told.news(report, reached);
        self.keep(report, ring, reached);
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
