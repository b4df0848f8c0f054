//! The report as a ticket: every capture in every flavour is whole, within the tracker's limit, and holds nothing that acts; what a renderer of
//! GitHub's Markdown makes of it has the elements that were meant and no other.

#[path = "support/packets.rs"]
mod packets;
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tcpwhy::render::markdown::{Flavour, report, size};
use tcpwhy::run::dossier::Dossier;
use tcpwhy::wire::harmless::{Sink, harmless};

const FLAVOURS: [Flavour; 4] = [Flavour::Github, Flavour::Gitlab, Flavour::Plain, Flavour::Jira];
/// Incidents with a section of their own, where nothing had to be shortened.
const TOLD: usize = 5;

fn dossier(path: &Path) -> Option<Dossier> {
    let (diagnosis, name) = support::diagnosis(path);
    let command = format!("tcpwhy --format markdown {}", harmless(&name, Sink::Shell));
    diagnosis.hash(true).make(&[name]).ok()?.dossier(command).ok()
}

#[test]
fn every_capture_is_a_whole_ticket_in_every_flavour() {
    let captures =
        ["captures/incidents", "captures/rules"].map(|folder| support::captures_below(&support::root().join(folder)));
    every(captures.concat(), 400);
}

#[test]
fn a_hostile_capture_is_a_whole_ticket_in_every_flavour() {
    let captures = (0..).zip(packets::TEXTS).map(|(n, text)| packets::capture(&format!("markdown-{n}"), text));
    let captures: Vec<PathBuf> = captures.collect();
    let told = every(captures.clone(), captures.len());
    assert!(told >= captures.len() * 2, "only {told} incidents");
    captures.iter().for_each(|path| std::fs::remove_file(path).expect("it was written"));
}

/// Checks them all; how many incidents they hold.
fn every(captures: Vec<PathBuf>, least: usize) -> usize {
    let (mut seen, mut incidents, mut faults) = (0, 0, Vec::new());
    for path in &captures {
        let Some(dossier) = dossier(path) else { continue };
        seen += 1;
        incidents += dossier.report.incidents.len();
        for flavour in FLAVOURS {
            let text = report(&dossier, flavour);
            let found = [whole(&text, flavour), told(&dossier, &text, flavour), rendered(&text, flavour)].concat();
            faults.extend(found.into_iter().map(|fault| format!("{} {flavour:?}: {fault}", path.display())));
        }
    }
    assert!(seen >= least, "only {seen} captures");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    incidents
}

/// What a ticket consists of, as its lines tell.
#[derive(Default)]
struct Parts {
    /// Lines outside blocks of code.
    prose: Vec<String>,
    fences: usize,
    tables: usize,
    folds: usize,
}

/// Whether nothing is cut: fences and folds are balanced, rows have their cells; nothing in it acts.
fn whole(text: &str, flavour: Flavour) -> Vec<String> {
    let mut faults = Vec::new();
    if size(text) > flavour.limit() {
        faults.push(format!("{} characters", size(text)));
    }
    let acts = |c: char| {
        c != '\n' && c.is_control() || ('\u{200b}'..='\u{200f}').contains(&c) || ('\u{202a}'..='\u{202e}').contains(&c)
    };
    faults.extend(text.chars().find(|c| acts(*c)).map(|c| format!("holds {c:?}")));
    match parts(text, flavour) {
        Ok(parts) => faults.extend(parts.prose.iter().filter_map(|line| acting(line, flavour))),
        Err(fault) => faults.push(fault),
    }
    faults
}

/// What in a line of prose would do something in the tracker.
fn acting(line: &str, flavour: Flavour) -> Option<String> {
    // What splits a word for the tracker is an entity with digits of its own.
    let line = line.replace("&#8288;", "\u{2060}");
    let refers = |mark: char| line.split(mark).skip(1).any(|behind| behind.starts_with(|c: char| c.is_ascii_digit()));
    let wrong = match flavour {
        Flavour::Jira => line.contains("[~") || line.contains("://") || line.starts_with("bq."),
        _ => {
            let code: String = line.split('`').step_by(2).collect();
            line.starts_with('/') || code.contains("@all") || code.contains("://") || refers('#') && !line.contains('`')
        }
    };
    wrong.then(|| format!("acts: {line}"))
}

fn parts(text: &str, flavour: Flavour) -> Result<Parts, String> {
    let mut parts = Parts::default();
    let (mut fence, mut cells, mut open) = (None::<String>, None::<usize>, 0);
    for line in text.lines() {
        if let Some(end) = &fence {
            fence = (line != end).then(|| end.clone()).filter(|_| line != end);
            continue;
        }
        if line == "{noformat}" || line.len() >= 3 && line.bytes().all(|octet| octet == b'`') {
            fence = Some(line.to_owned());
            parts.fences += 1;
            cells = None;
            continue;
        }
        let panel = (line.starts_with("{panel:title="), line == "{panel}");
        open += i32::from(line == "<details>" || panel.0) - i32::from(line == "</details>" || panel.1);
        parts.folds += usize::from(line == "<details>" || panel.0);
        if line.starts_with('|') && flavour != Flavour::Plain {
            let row = bars(line.trim_start_matches('|').trim_end_matches('|'), line.starts_with("||"));
            parts.tables += usize::from(cells.is_none());
            if *cells.get_or_insert(row) != row {
                return Err(format!("{row} cells instead of {cells:?}: {line}"));
            }
        } else {
            cells = None;
        }
        parts.prose.push(line.to_owned());
    }
    match (fence, open) {
        (None, 0) => Ok(parts),
        (fence, open) => Err(format!("open: {fence:?}, {open} folds")),
    }
}

/// Cells of a row, by the bars that no backslash takes the meaning from.
fn bars(row: &str, heads: bool) -> usize {
    let plain = row.replace("\\\\", "").replace("\\|", "");
    1 + if heads { plain.matches("||").count() } else { plain.matches('|').count() }
}

/// Whether the ticket says what broke and by which packets.
fn told(dossier: &Dossier, text: &str, flavour: Flavour) -> Vec<String> {
    let mut faults = Vec::new();
    let incidents = &dossier.report.incidents;
    let sink = if flavour == Flavour::Jira { Sink::Jira } else { Sink::Markdown };
    for incident in incidents.iter().take(1) {
        if !text.contains(harmless(&incident.headline, sink).trim()) {
            faults.push(format!("does not say {}", incident.headline));
        }
    }
    if text.contains("Shortened.") {
        return faults;
    }
    for evidence in incidents.iter().take(TOLD).flat_map(|incident| &incident.evidence) {
        let name = match dossier.report.captures.len() {
            1 => format!("#{}", evidence.packet),
            _ => format!("{}#{}", evidence.file + 1, evidence.packet),
        };
        let shown = if flavour == Flavour::Jira { format!("{{{{{name}}}}}") } else { format!("`{name}`") };
        if !text.contains(&shown) {
            faults.push(format!("packet {name} is missing"));
        }
    }
    faults
}

/// Elements that a ticket may consist of.
const MEANT: [&str; 17] = [
    "h2", "h3", "h4", "p", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "details",
    "summary",
];

/// What a renderer of GitHub's Markdown makes of it: the elements that were meant and no other.
fn rendered(text: &str, flavour: Flavour) -> Vec<String> {
    if flavour == Flavour::Jira {
        return Vec::new();
    }
    let (Some(html), Ok(parts)) = (cmark(text), parts(text, flavour)) else { return Vec::new() };
    let mut counted: BTreeMap<String, usize> = BTreeMap::new();
    for tag in html.split('<').skip(1).filter(|tag| !tag.starts_with('/')) {
        let name: String = tag.chars().take_while(char::is_ascii_alphanumeric).collect();
        *counted.entry(name).or_default() += 1;
    }
    let count = |name: &str| counted.get(name).copied().unwrap_or(0);
    let mut faults = Vec::new();
    for (name, meant) in
        [("table", parts.tables), ("pre", parts.fences), ("details", parts.folds), ("summary", parts.folds)]
    {
        if count(name) != meant {
            faults.push(format!("{} <{name}> instead of {meant}", count(name)));
        }
    }
    let strange = counted.keys().filter(|name| !MEANT.contains(&name.as_str()));
    faults.extend(strange.map(|name| format!("<{name}> was not meant")));
    faults
}

/// The HTML that cmark-gfm makes of it; `None` where that is not installed (with CI=true a failure).
fn cmark(text: &str) -> Option<String> {
    let options = ["-e", "table", "-e", "autolink", "-e", "strikethrough", "-e", "tagfilter", "--unsafe"];
    let started = Command::new("cmark-gfm").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = started else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "cmark-gfm is missing (Debian package cmark-gfm)"
        );
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| {
            let _ = writeln!(std::io::stderr(), "skipped, what a renderer makes of Markdown: no cmark-gfm");
        });
        return None;
    };
    let mut input = child.stdin.take().expect("it was piped");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_proxy_that_answers_for_its_backend_is_named_by_its_own_address() {
    let path = support::root().join("captures/rules/grpc-error-status/nginx-502-to-a-call.pcap");
    let text = report(&dossier(&path).expect("a capture"), Flavour::Github);
    assert!(text.contains("At fault: the proxy, 10.224.26.2."), "{text}");
}

/// A report that holds far more than any tracker takes.
fn huge() -> Dossier {
    let path = support::root().join("captures/incidents/gitlab/both-legs.pcap");
    let mut dossier = dossier(&path).expect("a capture");
    let report = &mut dossier.report;
    let known = report.incidents[0].clone();
    report.incidents = (0..1024)
        .map(|n| {
            let mut incident = known.clone();
            incident.headline = format!("{n}: {} | ``` </details> {}", incident.headline, "<x> ".repeat(60));
            incident.evidence = known.evidence.iter().cycle().take(24).cloned().collect();
            incident.consequences = vec!["a | consequence ".repeat(30); 64];
            incident.what_happened = vec!["what happened ".repeat(30); 8];
            incident
        })
        .collect();
    let flow = report.flows[0].clone();
    report.flows = vec![flow; 10_000];
    report.counts.flows.total = 10_000;
    report.counts.flows.failed = 10_000;
    dossier
}

#[test]
fn of_ten_thousand_flows_and_a_thousand_incidents_every_flavour_takes_what_fits_and_says_so() {
    let dossier = huge();
    for flavour in FLAVOURS {
        let text = report(&dossier, flavour);
        let faults = [whole(&text, flavour), rendered(&text, flavour)].concat();
        assert!(faults.is_empty(), "{flavour:?}: {faults:#?}");
        assert!(text.contains("more causes"), "{flavour:?}");
        assert!(text.contains("tcpwhy --format markdown captures"), "{flavour:?}: how to reproduce");
        if matches!(flavour, Flavour::Github | Flavour::Jira) {
            assert!(text.contains("Shortened."), "{flavour:?}");
        }
    }
}

#[test]
fn no_command_that_holds_a_text_from_packets_does_more_than_it_says() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("markdown-pasted-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for tests");
    let mut pasted = 0;
    for (n, text) in (0..).zip(packets::TEXTS) {
        let path = packets::capture(&format!("pasted-{n}"), text);
        let dossier = dossier(&path).expect("a capture");
        for command in commands(&report(&dossier, Flavour::Github)) {
            // There is no program to be found, so only the shell itself could do something.
            let mut shell = Command::new("/usr/bin/timeout");
            shell.args(["5", "/bin/sh", "-c", &command]).env_clear().env("PATH", &folder).current_dir(&folder);
            let status = shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
            status.expect("a shell");
            pasted += 1;
            let there = std::fs::read_dir(&folder).expect("the folder").count();
            assert_eq!(there, 0, "it wrote something: {command}");
        }
        std::fs::remove_file(&path).expect("it was written");
    }
    std::fs::remove_dir(&folder).expect("it is empty");
    assert!(pasted > 100, "only {pasted} commands");
}

/// Blocks of code that are commands: they begin with the name of a program.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let (mut fence, mut block) = (None, Vec::new());
    for line in text.lines() {
        match &fence {
            None if line.starts_with("```") => fence = Some(line),
            Some(end) if line == *end => {
                fence = None;
                let lines = std::mem::take(&mut block);
                let continued = lines.iter().rev().skip(1).all(|line: &&str| line.ends_with('\\'));
                commands.extend(continued.then(|| lines.join("\n")));
            }
            Some(_) => block.push(line),
            None => {}
        }
    }
    commands.retain(|line| line.starts_with(|c: char| c.is_ascii_lowercase()) && !line.starts_with("frame."));
    commands
}
