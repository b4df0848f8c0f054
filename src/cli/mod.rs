//! The command line: the first customer of the library.

mod args;
mod bundle;
mod evidence;
mod expect;
mod explain;
#[cfg(feature = "live")]
mod live;
mod memory;
mod plan;
#[cfg(feature = "live")]
mod privilege;
mod progress;
#[cfg(feature = "live")]
mod record;
mod redact;
#[cfg(feature = "live")]
mod tell;

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Parser;

pub(crate) use args::Args;
use args::{Color, Command, FailOn, Format, Input, Options};
use redact::Copies;
use tcpwhy::host::sockets::Sockets;
use tcpwhy::redact::same;
use tcpwhy::render::{Style, html, json, ladder, markdown, text};
use tcpwhy::run::dossier::{Dossier, Made};
use tcpwhy::wire::Endpoint;
use tcpwhy::wire::harmless::{Sink, harmless};
use tcpwhy::{Diagnosis, Ends, Progress, Report, Thresholds};

/// What was typed. Options of `flow` and `report` may also stand before it: they are the same ones, but to clap the word is then a file.
pub(crate) fn parse() -> Args {
    let mut typed: Vec<_> = std::env::args_os().collect();
    let args = Args::parse_from(&typed);
    let meant = |files: &[String]| {
        files.len() > 2 && files[0] == "flow" && files[1].rsplit('#').next().is_some_and(|n| n.parse::<u64>().is_ok())
    };
    let word = match args.input.files.first().map(String::as_str) {
        Some("flow") if meant(&args.input.files) => "flow",
        Some("report") if args.input.output.is_some() && !std::path::Path::new("report").exists() => "report",
        _ => return args,
    };
    match typed.iter().position(|typed| typed == word) {
        Some(place) if args.command.is_none() => {
            let word = typed.remove(place);
            typed.insert(1, word);
            Args::parse_from(typed)
        }
        _ => args,
    }
}

/// Does what was asked for.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        #[cfg(feature = "live")]
        Some(Command::Live(args)) => live::live(&args),
        Some(Command::Flow { number, input }) => flow(number, &input),
        Some(Command::Diff { good, bad, format, verbose }) => diff(&good, &bad, format, verbose),
        Some(Command::CapturePlan { ends }) => plan::plan(&ends),
        Some(Command::Explain { words, code }) => explain::explain(&words.join(" "), code),
        Some(Command::Redact(args)) => redact::redact(&args),
        Some(Command::Rules) => explain::rules(),
        Some(Command::Thresholds { threshold }) => explain::thresholds(&thresholds(&threshold)?),
        Some(Command::Report { input }) => bundle::bundle(&input),
        Some(Command::Expect { files }) => expect::expect(&files),
        None if args.input.files.is_empty() => {
            bail!("no capture given: tcpwhy FILE, or tcpdump -w - | tcpwhy -  (tcpwhy --help shows more)")
        }
        None => diagnose(&args.input),
    }
}

/// Whether somebody closed the pipe we write to (`tcpwhy … | head`): no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            || cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
                == Some(io::ErrorKind::BrokenPipe)
    })
}

fn diagnose(input: &Input) -> Result<ExitCode> {
    check(input)?;
    let travels = matches!(input.format, Format::Markdown | Format::Html);
    let piped = input.files.iter().any(|file| file == "-");
    if input.redact.is_none() && input.evidence.is_none() && (piped || !travels) {
        let dossier = alone(read(input)?);
        write(input, |out| print(input, &dossier, out))?;
        return Ok(exit_code(&dossier.report, input.fail_on));
    }
    let made = make(input, input.hash || travels)?;
    if let Some(path) = &input.evidence {
        evidence::file(&made.made, path, input.quiet)?;
    }
    let dossier = if travels { made.made.dossier(made.command)? } else { alone(made.made.report) };
    write(input, |out| print(input, &dossier, out))?;
    Ok(exit_code(&dossier.report, input.fail_on))
}

/// Prints it as asked.
fn print(input: &Options, dossier: &Dossier, out: &mut dyn Write) -> io::Result<()> {
    match input.format {
        Format::Markdown => out.write_all(markdown::report(dossier, flavour(input)).as_bytes()),
        Format::Html => out.write_all(html::report(dossier).as_bytes()),
        Format::Text | Format::Json | Format::Jsonl => print_report(input, &dossier.report, out),
    }
}

/// Whose Markdown.
fn flavour(input: &Options) -> markdown::Flavour {
    input.flavour.map(Into::into).unwrap_or_default()
}

/// Whether options contradict each other.
fn check(input: &Options) -> Result<()> {
    if input.flavour.is_some() && input.format != Format::Markdown {
        bail!("--flavour says whose Markdown: it goes with --format markdown only");
    }
    Ok(())
}

/// Prints what needs the report alone.
fn print_report(input: &Options, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    match input.format {
        Format::Json => json::document(report, out),
        Format::Jsonl => json::lines(report, out),
        _ => out.write_all(text::report(report, style(input)).as_bytes()),
    }
}

/// A report without the flows that show its incidents.
fn alone(report: Report) -> Dossier {
    Dossier { report, ladders: Vec::new(), command: typed(std::env::args()) }
}

/// A report of inputs that can be looked at again.
struct Ready {
    made: Made,
    /// What leads to it.
    command: String,
    /// Redacted copies of the inputs, as long as they are needed.
    _copies: Option<Copies>,
}

/// The report, and what is needed to look at the inputs again.
fn make(input: &Input, hash: bool) -> Result<Ready> {
    if input.files.iter().any(|file| file == "-") {
        bail!("the input is read more than once for this: save standard input to a file first");
    }
    let stop = on_interrupt()?;
    let diagnosis = diagnosis(input)?.stop_on(stop.clone()).hash(hash);
    let Some(level) = input.redact else {
        let made = shown(input, diagnosis, |diagnosis| Ok(diagnosis.make(&input.files)?))?;
        return Ok(Ready { made, command: typed(std::env::args()), _copies: None });
    };
    let copies = redact::copies(input, level, hash)?;
    let diagnosis = diagnosis.hash(false);
    let before = shown(input, diagnosis.clone(), |diagnosis| Ok(diagnosis.open(&input.files)?.run()?))?;
    let of_copies = diagnosis.originals(copies.originals.clone());
    let made = shown(input, of_copies, |diagnosis| Ok(diagnosis.make(&copies.files)?))?;
    // Parts of both, cut anywhere, prove nothing.
    if stop.load(Ordering::Relaxed) {
        bail!("stopped before the copies were proved: nothing was written");
    }
    same(&before, &made.report)?;
    Ok(Ready { made, command: copies.command.clone(), _copies: Some(copies) })
}

/// What was typed, ready to paste. The program goes by its name: where it lies says nothing elsewhere.
fn typed(words: impl Iterator<Item = String>) -> String {
    let words = words.skip(1).map(|word| harmless(&word, Sink::Shell).into_owned());
    ["tcpwhy".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

/// The report of the inputs as asked.
fn read(input: &Input) -> Result<Report> {
    let diagnosis = diagnosis(input)?.stop_on(on_interrupt()?);
    shown(input, diagnosis, |diagnosis| Ok(diagnosis.open(&input.files)?.run()?))
}

/// Does it with a line on the terminal that tells how far it is; the line is gone when this returns.
fn shown<T>(input: &Input, diagnosis: Diagnosis, work: impl FnOnce(Diagnosis) -> Result<T>) -> Result<T> {
    let progress = Arc::new(Progress::default());
    let line = if input.quiet { None } else { progress::Line::begin(&progress) };
    work(if line.is_some() { diagnosis.progress(progress) } else { diagnosis })
}

/// A flag that Ctrl-C sets: `tcpdump -w - | tcpwhy -` ends with a report. A second one ends at once.
fn on_interrupt() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            // 128 + SIGINT, as shells report it.
            std::process::exit(130);
        }
    })
    .context("cannot listen for Ctrl-C")?;
    Ok(flag)
}

fn diagnosis(input: &Input) -> Result<Diagnosis> {
    let zone = zone(input)?;
    let bound = |text: &Option<String>| -> Result<_> {
        let parse = |text: &String| tcpwhy::TimeBound::parse(text, &zone).map_err(anyhow::Error::from);
        text.as_ref().map(parse).transpose()
    };
    let diagnosis = how(input)?.between(bound(&input.since)?, bound(&input.until)?);
    Ok(diagnosis.filter(input.filter.clone()).hash(input.hash))
}

fn zone(input: &Options) -> Result<jiff::tz::TimeZone> {
    match &input.tz {
        None => Ok(jiff::tz::TimeZone::UTC),
        Some(name) => jiff::tz::TimeZone::get(name).with_context(|| format!("{name} is no time zone")),
    }
}

/// What is asked of files and of interfaces alike.
fn how(input: &Options) -> Result<Diagnosis> {
    let ends = Ends {
        clients: input.client.iter().copied().map(Into::into).collect(),
        servers: input.server.iter().copied().map(Into::into).collect(),
        names: input.name.clone(),
        paths: input.path.clone(),
    };
    let sockets = input.sockets.as_ref().map(|path| -> Result<_> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let sockets = Sockets::parse(&String::from_utf8_lossy(&text));
        if sockets.established.is_empty() {
            bail!("{} names no established connection: it has to be the output of ss -tnpoi", path.display());
        }
        Ok(sockets)
    });
    let mut diagnosis = Diagnosis::new()
        .sockets(sockets.transpose()?)
        .thresholds(thresholds(&input.threshold)?)
        .ends(ends)
        .expect_upstreams(input.expect_upstream.iter().map(|end| Endpoint::new(end.ip().into(), end.port())).collect())
        .zone(zone(input)?)
        .all_flows(input.all_flows || input.format == Format::Jsonl)
        .max_memory(input.max_memory.unwrap_or_else(memory::default));
    if let Some(threads) = input.threads {
        diagnosis = diagnosis.workers(threads);
    }
    Ok(diagnosis)
}

fn thresholds(settings: &[String]) -> Result<Thresholds> {
    let mut thresholds = Thresholds::default();
    for setting in settings {
        let Some((name, value)) = setting.split_once('=') else {
            bail!("--threshold takes name=value, such as hang=5s (tcpwhy thresholds lists the names)");
        };
        if let Err(why) = thresholds.set(name.trim(), value.trim()) {
            let nearest = explain::nearest(name, Thresholds::NAMES.iter().copied());
            bail!("{why}{}", nearest.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default());
        }
    }
    Ok(thresholds)
}

fn style(input: &Options) -> Style {
    let terminal = input.output.is_none() && io::stdout().is_terminal();
    let color = match input.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    Style { width: input.width.unwrap_or(100).clamp(60, 400), color, verbose: input.verbose }
}

fn write(input: &Options, print: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    match &input.output {
        Some(path) => {
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            let mut out = BufWriter::new(file);
            print(&mut out).and_then(|()| out.flush()).with_context(|| format!("cannot write {}", path.display()))
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            print(&mut out).and_then(|()| out.flush()).context("cannot write the output")
        }
    }
}

/// 0 diagnosed; 1 `--fail-on` reached; 3 not reached, but more than half of the flows could not be judged.
fn exit_code(report: &Report, fail_on: Option<FailOn>) -> ExitCode {
    let Some(fail_on) = fail_on else { return ExitCode::SUCCESS };
    let level = fail_on.severity();
    let findings = report.findings.iter().chain(&report.trust).map(|finding| finding.severity);
    let worst = findings.chain(report.incidents.iter().map(|incident| incident.severity)).max();
    let flows = &report.counts.flows;
    match worst {
        Some(worst) if worst >= level => ExitCode::from(1),
        _ if flows.undecided * 2 > flows.total => ExitCode::from(3),
        _ => ExitCode::SUCCESS,
    }
}

/// Refuses the formats of reports.
fn no_report(command: &str, format: Format) -> Result<()> {
    if matches!(format, Format::Markdown | Format::Html) {
        bail!("tcpwhy {command} prints text or JSON: --format text, or --format json");
    }
    Ok(())
}

fn diff(good: &str, bad: &str, format: Format, verbose: bool) -> Result<ExitCode> {
    no_report("diff", format)?;
    let read = |path: &str| Diagnosis::new().open(&[path]).and_then(tcpwhy::run::Opened::merged);
    let diff = tcpwhy::diagnose::diff::diff(&read(good)?, &read(bad)?);
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => {
            let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let style = Style { color, verbose, ..Style::default() };
            out.write_all(tcpwhy::render::diff::text(&diff, style).as_bytes())?;
        }
        _ => json::line(&diff, &mut out)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn flow((file, number): (u16, u64), input: &Input) -> Result<ExitCode> {
    if input.files.is_empty() {
        bail!("tcpwhy flow needs a file: tcpwhy flow {number} FILE");
    }
    if input.files.iter().any(|file| file == "-") {
        bail!("tcpwhy flow reads its input twice and cannot read standard input: save it to a file first");
    }
    check(input)?;
    no_report("flow", input.format)?;
    if usize::from(file) >= input.files.len() {
        let (given, wanted) = (input.files.len(), file + 1);
        bail!(
            "{wanted}#{number} is packet {number} of capture {wanted}, and {given} was given: name all captures of the report"
        );
    }
    let ladder = shown(input, diagnosis(input)?, |diagnosis| Ok(diagnosis.ladder(&input.files, file, number)?))?;
    let style = style(input);
    write(input, |out| match input.format {
        Format::Text => out.write_all(ladder::text(&ladder, style).as_bytes()),
        _ => json::line(&ladder, out),
    })?;
    Ok(ExitCode::SUCCESS)
}
