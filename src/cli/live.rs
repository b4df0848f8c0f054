//! `tcpwhy live`: what is found is told as it becomes known, the report in the end.
//!
//! Three kinds of threads: those that catch packets, this one that numbers, writes and diagnoses them, and one that makes reports and
//! prints (`tell.rs`).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::args::{Direction, Live as Args};
use super::privilege::Plan;
use super::record::Recording;
use super::tell::{Printer, Teller, Work};
use super::{FailOn, exit_code, how};
use tcpwhy::capture::feed::{Feed, Notice};
use tcpwhy::capture::follow::follow as follow_file;
use tcpwhy::capture::live::{Live, LiveOptions, Way, interfaces};
use tcpwhy::capture::write::Counted;
use tcpwhy::diagnose::news::Told;
use tcpwhy::host::sockets::Sockets;
use tcpwhy::run::keep::{Keeper, Ring};
use tcpwhy::run::live::Watching;
use tcpwhy::time::{Elapsed, Timestamp};
use tcpwhy::wire::Address;

/// No look at what is known sooner after the one before.
const LOOK: Duration = Duration::from_millis(300);
/// How long to wait for packets before looking at the clock.
const PATIENCE: Duration = Duration::from_millis(100);

/// Does it.
pub(super) fn live(args: &Args) -> Result<ExitCode> {
    if args.list_interfaces {
        return list();
    }
    super::check(&args.options)?;
    if let Some(path) = &args.follow {
        return follow(path, args);
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
    let packets = Recording::begin(args, &described, super::zone(&args.options)?, &plan)?;
    let evidence = args.evidence.as_deref().map(|folder| plan.folder(folder)).transpose()?;
    let report_file = args.options.output.as_deref().map(|path| plan.create(path)).transpose()?;
    // Root also sees which programs the sockets belong to.
    let open = if args.options.sockets.is_some() { None } else { snapshot(args.options.quiet) };
    plan.carry_out()?;
    let file = packets.as_ref().map(|packets| packets.path().to_owned());
    let mut watching = Watching::new(diagnosis, &described, file);
    let own = open.is_some().then(|| own_addresses(&args.interface));
    if let (Some(open), Some(own)) = (open, &own) {
        watching.sockets(open, own);
    }
    let mut session = Session::begin(args, watching, Some(&described), report_file, evidence, || live.start())?;
    (session.packets, session.own) = (packets, own);
    if !args.options.quiet {
        greet(&described, args, &plan);
    }
    session.run(args.options.fail_on)
}

/// A file that somebody else writes; there is nothing to open that needs a right, and no silence to be sure of.
fn follow(path: &Path, args: &Args) -> Result<ExitCode> {
    if !args.interface.is_empty() || !args.filter.is_empty() || args.write.is_some() {
        bail!("--follow reads a file: -i, a filter and -w are about interfaces");
    }
    // Said before it is waited for.
    if !path.exists() && !args.options.quiet {
        eprintln!("tcpwhy: {} is not there yet", path.display());
    }
    let plan =
        Plan::new(args.relinquish_privileges.as_deref().or(Some("root").filter(|_| nix::unistd::geteuid().is_root())))?;
    let evidence = args.evidence.as_deref().map(|folder| plan.folder(folder)).transpose()?;
    let report_file = args.options.output.as_deref().map(|path| plan.create(path)).transpose()?;
    plan.carry_out()?;
    let watching =
        Watching::new(how(&args.options)?.all_flows(args.options.all_flows), &[], Some(path.display().to_string()));
    let session = Session::begin(args, watching, None, report_file, evidence, || follow_file(path))?;
    if !args.options.quiet {
        eprintln!("tcpwhy: following {}; what is found is told as it becomes known, Ctrl-C ends it", path.display());
    }
    session.run(args.options.fail_on)
}

/// What this host has open, through `ss` of iproute2, which asks the kernel (sock_diag); `None` where it is not there.
fn snapshot(quiet: bool) -> Option<Sockets> {
    let output = Command::new("ss").args(["-Htanpoi"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Some(Sockets::parse(&String::from_utf8_lossy(&output.stdout))),
        _ => {
            if !quiet {
                eprintln!(
                    "tcpwhy: ss (iproute2) does not run here: connections that hung before this began stay unknown"
                );
            }
            None
        }
    }
}

/// Addresses of the interfaces, as far as the system tells; none for all interfaces.
fn own_addresses(names: &[String]) -> Vec<Address> {
    if names.iter().any(|name| name == "any") {
        return Vec::new();
    }
    let listed = interfaces().unwrap_or_default();
    let listed = listed.iter().filter(|listed| names.contains(&listed.name));
    listed.flat_map(|listed| listed.addresses.iter().map(|address| (*address).into())).collect()
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

/// Everything that runs while packets come.
struct Session {
    feed: Feed,
    watching: Watching,
    packets: Option<Recording>,
    ring: Option<Ring>,
    /// Whose sockets count, when they were looked at.
    own: Option<Vec<Address>>,
    interfaces: usize,
    teller: Teller,
    stop: Arc<AtomicBool>,
    wanted: Arc<AtomicBool>,
    every: Option<Duration>,
    until: Option<FailOn>,
    end: Option<Instant>,
    quiet: bool,
    /// The last file is full.
    over: bool,
    /// Interfaces of a followed file, for the next look.
    described: Option<Vec<tcpwhy::capture::Interface>>,
}

/// What the interfaces counted since the file that is being written began.
fn of_this_file(watching: &Watching, counted: &[Counted]) -> Vec<Counted> {
    let own = |(n, (counted, interface)): (usize, (&Counted, &tcpwhy::capture::Interface))| {
        let dropped = (counted.dropped + counted.missed).saturating_sub(watching.dropped_before(n));
        Counted { dropped: 0, missed: dropped, delivered: interface.packets, ..*counted }
    };
    counted.iter().zip(watching.interfaces()).enumerate().map(own).collect()
}

impl Session {
    /// Starts everything that runs beside it. `interfaces`: those that are listened to.
    fn begin(
        args: &Args,
        watching: Watching,
        interfaces: Option<&[tcpwhy::capture::Interface]>,
        report_file: Option<File>,
        evidence: Option<&Path>,
        feed: impl FnOnce() -> Feed,
    ) -> Result<Self> {
        let (stop, wanted) = (super::on_interrupt()?, Arc::new(AtomicBool::new(false)));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, wanted.clone())
            .context("cannot listen for SIGUSR1")?;
        let keeper =
            evidence.map(|folder| Keeper::new(folder, interfaces.unwrap_or_default(), args.evidence_limit as u64));
        let ring = keeper.is_some().then(|| Ring::new(args.ring));
        let teller = Teller::begin(Printer {
            options: args.options.clone(),
            zone: super::zone(&args.options)?,
            file: report_file,
            told: Told::default(),
            keeper,
            failed: false,
        });
        Ok(Self {
            feed: feed(),
            watching,
            packets: None,
            ring,
            own: None,
            interfaces: interfaces.map_or(0, <[_]>::len),
            teller,
            stop,
            wanted,
            every: args.every,
            until: args.until_finding,
            end: args.time.map(|time| Instant::now() + time),
            quiet: args.options.quiet,
            over: false,
            described: None,
        })
    }

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
                Notice::ClockSet(step) => {
                    let (way, by) = if step.0 < 0 { ("back", Elapsed(-step.0)) } else { ("forward", step) };
                    eprintln!("tcpwhy: the clock was set {way} by {by}; the times of packets go on as they were");
                }
                Notice::Described(info) => {
                    self.watching.describe(*info);
                    self.described = Some(self.watching.interfaces().to_vec());
                }
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
                self.packets.iter_mut().for_each(Recording::flush);
                self.look(whole);
            }
            next_look = now + LOOK.max(self.teller.pause());
        }
        self.finish(fail_on)
    }

    /// Takes one packet the whole way.
    fn take(&mut self) -> bool {
        if let (Some(packets), Some(time)) = (&self.packets, self.feed.next_time()) {
            match packets.full(time) {
                Some(false) => {}
                Some(true) => self.rotate(time),
                None => self.over = true,
            }
        }
        let Self { feed, watching, packets, ring, .. } = self;
        feed.take(|taken| {
            packets.iter_mut().for_each(|packets| packets.packet(&taken));
            let at = watching.packet(&taken);
            if let Some(ring) = ring {
                ring.push(at, &taken);
            }
        })
    }

    fn rotate(&mut self, time: Timestamp) {
        let counted = self.counted();
        let Self { watching, packets: Some(packets), .. } = self else { return };
        packets.rotate(time, watching.reached(), &of_this_file(watching, &counted));
        watching.rotate(packets.path().to_owned(), &counted);
    }

    fn enough(&self) -> bool {
        let found = self.over || self.until.is_some_and(|until| self.teller.worst() >= Some(until.severity()));
        found
            || self.stop.load(Ordering::Relaxed)
            || self.teller.gone()
            || self.end.is_some_and(|end| Instant::now() >= end)
    }

    fn counted(&self) -> Vec<Counted> {
        (0..self.interfaces).map(|n| self.feed.counted(n)).collect()
    }

    /// Who waits now, and not only when this began.
    fn sockets(&mut self) {
        if let Some(own) = &self.own
            && let Some(open) = snapshot(true)
        {
            self.watching.sockets(open, own);
        }
    }

    fn look(&mut self, whole: bool) {
        if whole {
            self.sockets();
        }
        let counted = self.counted();
        let look = self.watching.look(whole, &counted);
        let (ring, reached) = (self.ring.as_mut().map(Ring::look).unwrap_or_default(), self.watching.reached());
        let told = self.teller.tell(Work { look, whole, reached, ring, described: self.described.clone() });
        if whole && !told {
            self.wanted.store(true, Ordering::Relaxed);
        }
    }

    fn finish(mut self, fail_on: Option<FailOn>) -> Result<ExitCode> {
        self.sockets();
        let counted = self.counted();
        let last = (self.ring.as_mut().map(Ring::look).unwrap_or_default(), self.watching.reached());
        let mut failed = None;
        if let Some(mut packets) = self.packets.take() {
            packets.end(self.watching.reached(), &of_this_file(&self.watching, &counted));
            failed = packets.failure();
        }
        if !self.quiet && self.interfaces == 0 {
            eprintln!("tcpwhy: {} packets", self.watching.packets());
        } else if !self.quiet {
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
