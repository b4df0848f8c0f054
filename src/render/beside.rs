//! What a report says beside its incidents: that nothing is broken, how far to trust the capture, its flows, what was read.

use super::layout::{Page, Tone};
use super::text::{flow_number, inputs, numbered, tone, word};
use crate::catalogue;
use crate::diagnose::format;
use crate::diagnose::report::{Capture, FindingEntry, FlowEntry, Report, StepEntry};
use crate::rule::Step;
use crate::rule::finding::Severity;
use crate::rule::summary::Verdict;
use crate::rule::value::fill;

/// The rule that says so of an empty capture.
const NOTHING: &str = "capture-has-nothing";

/// It is about sockets that wait, not about the file.
fn hung(finding: &FindingEntry) -> bool {
    finding.rule == NOTHING && finding.values.contains_key("upstream")
}

/// Connections of which no packet can be shown, because they send none: which they are, how to see it, what ends it.
pub(super) struct Waits {
    pub first: StepEntry,
    pub verify: StepEntry,
    pub fix: StepEntry,
}

pub(super) fn waits(finding: &FindingEntry) -> Waits {
    let server = finding.values.get("upstream").map_or("", String::as_str);
    let (address, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let address = address.trim_matches(['[', ']']);
    let step = |says: &str, command: String| StepEntry { says: says.into(), command };
    let filter = format!("host {address} and port {port}");
    Waits {
        first: step(
            "Which are they? A line without \"timer:\" waits for ever:",
            format!("ss -tnpoi state established dst '{server}'"),
        ),
        verify: step(
            "start this, then restart one client that waits; its new request shows who is silent:",
            format!("sudo timeout 70 tcpdump -i any -nn -s 0 -w /var/tmp/again.pcap '{filter}'"),
        ),
        fix: step(
            "give the caller a total timeout; end those that wait now (cuts every connection there):",
            format!("ss -K dst '{server}'"),
        ),
    }
}

pub(super) fn waiting(finding: &FindingEntry, page: &mut Page) {
    let Waits { first, verify, fix } = waits(finding);
    page.labelled(word(finding.severity), &finding.says, tone(finding.severity), 3);
    page.blank();
    page.labelled("DO FIRST", &first.says, Tone::Plain, 1);
    page.command(&first.command);
    page.blank();
    for note in &finding.notes {
        page.labelled("", note, Tone::Plain, 3);
    }
    for (label, step) in [("VERIFY", verify), ("FIX", fix)] {
        page.labelled(label, &step.says, Tone::Plain, 2);
        page.command(&step.command);
    }
    page.commands("MORE", &[format!("tcpwhy explain {NOTHING}")]);
}

/// What is said where there is no incident.
pub(super) enum Quiet<'r> {
    /// Connections wait, and no packet shows it.
    Waiting(&'r FindingEntry),
    /// There is nothing to look at, and what helps.
    Nothing(&'r FindingEntry, Vec<StepEntry>),
    /// All is well, or nothing can be said, and what helps.
    Said { label: &'static str, says: String, tone: Tone, steps: Vec<StepEntry> },
}

pub(super) fn quiet(report: &Report) -> Quiet<'_> {
    let flows = &report.counts.flows;
    if let Some(hung) = report.trust.iter().find(|finding| hung(finding) && finding.severity >= Severity::Warning) {
        return Quiet::Waiting(hung);
    }
    if let Some(nothing) = report.trust.iter().find(|finding| finding.rule == NOTHING && !hung(finding)) {
        // Packets are there, and --filter, --since or --until passed over all of them.
        let steps = match packets(report, "read") {
            0 => look_first(nothing, 2),
            _ => vec![look_at_all(report)],
        };
        return Quiet::Nothing(nothing, steps);
    }
    let doubt = report.trust.iter().any(|finding| finding.severity >= Severity::Warning);
    let many = format::count(flows.total, "flow");
    // Flows are there, and none fits --client, --server, --name or --path.
    let none_fits = flows.total == 0 && packets(report, "tcp") + packets(report, "udp") > 0;
    let (label, says, tone) = match flows.total {
        0 if none_fits => ("UNKNOWN", "no flow in this capture is one that was asked for".into(), Tone::Warn),
        0 => (
            "UNKNOWN",
            "no TCP or UDP flow in this capture: nothing can be said about any connection".into(),
            Tone::Warn,
        ),
        n if flows.undecided == n => ("UNKNOWN", format!("nothing can be said about {many}: see below"), Tone::Warn),
        n if flows.undecided * 2 > n => {
            let text = format!("nothing is seen to be broken in {many}, but {} cannot be judged", flows.undecided);
            ("UNKNOWN", text, Tone::Warn)
        }
        _ if doubt => (
            "OK",
            format!("nothing is seen to be broken in {many}, as far as this capture shows: see TRUST"),
            Tone::Warn,
        ),
        n if flows.undecided > 0 => {
            let judged = n - flows.undecided;
            let text = format!("nothing is broken in {judged} of {many}; {} cannot be judged", flows.undecided);
            ("OK", text, Tone::Good)
        }
        _ => ("OK", format!("nothing is broken in {many}"), Tone::Good),
    };
    let steps = match label {
        _ if none_fits => vec![look_at_all(report)],
        "UNKNOWN" => capture_better(report),
        _ => Vec::new(),
    };
    Quiet::Said { label, says, tone, steps }
}

/// What helps where most cannot be judged.
fn capture_better(report: &Report) -> Vec<StepEntry> {
    let foreign = packets(report, "unknown_link") * 2 > packets(report, "read");
    match report.trust.iter().find(|finding| finding.severity >= Severity::Warning) {
        Some(limit) if !foreign => look_first(limit, 1),
        _ => vec![StepEntry {
            says: "Capture on the host itself. This prints what and how long:".into(),
            command: "tcpwhy capture-plan".into(),
        }],
    }
}

/// The screen when nothing is wrong: as useful as the other one.
pub(super) fn nothing_broken(report: &Report, page: &mut Page) {
    let steps = match quiet(report) {
        Quiet::Waiting(hung) => return waiting(hung, page),
        Quiet::Nothing(nothing, steps) => {
            page.labelled(word(nothing.severity), &nothing.says, tone(nothing.severity), 3);
            page.blank();
            return first_steps(&steps, page);
        }
        Quiet::Said { label, says, tone, steps } => {
            page.labelled(label, &says, tone, 2);
            steps
        }
    };
    worth_knowing(report, page);
    unjudged(report, page);
    page.blank();
    first_steps(&steps, page);
    if let Some(command) = every_flow(report) {
        page.commands("MORE", &[command]);
    }
}

fn first_steps(steps: &[StepEntry], page: &mut Page) {
    let mut label = "DO FIRST";
    for step in steps {
        page.labelled(label, &step.says, Tone::Plain, 2);
        page.command(&step.command);
        label = "";
    }
}

/// What lists all flows, where some are not listed.
pub(super) fn every_flow(report: &Report) -> Option<String> {
    let total = report.counts.flows.total;
    let inputs = inputs(report).filter(|_| total > 0 && total != report.flows.len() as u64)?;
    Some(format!("tcpwhy --all-flows {inputs}"))
}

/// How many packets of a kind were read.
fn packets(report: &Report, kind: &str) -> u64 {
    report.counts.packets.get(kind).copied().unwrap_or(0)
}

/// The same without what was asked for.
fn look_at_all(report: &Report) -> StepEntry {
    StepEntry {
        says: "Is what was asked for right? Everything that is there:".into(),
        command: format!("tcpwhy --all-flows {}", inputs(report).unwrap_or_else(|| "FILE".into())),
    }
}

/// The first `most` steps of what limits the capture.
fn look_first(limit: &FindingEntry, most: usize) -> Vec<StepEntry> {
    let filled = |text: &str| fill(text, |slot| limit.values.get(slot).cloned());
    let steps = catalogue::rule(&limit.rule).map_or(&[][..], |rule| rule.do_first);
    let step = |step: &Step| StepEntry { says: filled(step.says), command: filled(step.command) };
    steps.iter().take(most).map(step).collect()
}

pub(super) fn unjudged(report: &Report, page: &mut Page) {
    let mut label = "UNDECIDED";
    for line in report.not_judged.iter().take(5) {
        page.labelled(label, line, Tone::Plain, 2);
        label = "";
    }
}

/// Notices that nothing explains.
pub(super) fn notices(report: &Report) -> Vec<&FindingEntry> {
    report.findings.iter().filter(|f| f.severity == Severity::Notice && f.explained_by.is_none()).collect()
}

/// Up to five notices.
pub(super) fn worth_knowing(report: &Report, page: &mut Page) {
    let notices = notices(report);
    if notices.is_empty() {
        return;
    }
    page.blank();
    let mut label = "NOTICE";
    for finding in notices.iter().take(5) {
        page.labelled(label, &entry_line(report, finding), Tone::Plain, 2);
        label = "";
    }
    if notices.len() > 5 {
        page.labelled("", &format!("and {} more in --format json", notices.len() - 5), Tone::Plain, 1);
    }
}

pub(super) fn silent(report: &Report, page: &mut Page) {
    let mut label = "SILENT";
    for finding in report.findings.iter().filter(|f| f.severity == Severity::Silent).take(50) {
        page.labelled(label, &entry_line(report, finding), Tone::Plain, 2);
        label = "";
    }
}

/// What a finding says, with its packets.
pub(super) fn entry_line(report: &Report, finding: &FindingEntry) -> String {
    let packets: Vec<String> =
        finding.evidence.iter().filter(|e| e.packet > 0).take(3).map(|e| numbered(report, e)).collect();
    let times = if finding.count > 1 { format!(", {} times", finding.count) } else { String::new() };
    let notes = finding.notes.first().map(|note| format!("; {note}")).unwrap_or_default();
    format!("{} ({}{times}){notes}", finding.says, packets.join(" "))
}

/// Findings about the capture that the first screen does not hold.
pub(super) fn doubts(report: &Report) -> impl Iterator<Item = &FindingEntry> {
    // Where nothing else is broken it stands on the first screen.
    let beside = !report.incidents.is_empty();
    report.trust.iter().filter(move |finding| finding.rule != NOTHING || hung(finding) && beside)
}

/// How far to trust this capture.
pub(super) fn trust(report: &Report, page: &mut Page) {
    if report.trust.is_empty() {
        return;
    }
    page.blank();
    let mut label = "TRUST";
    for finding in doubts(report) {
        page.labelled(label, &entry_line(report, finding), tone(finding.severity), 3);
        label = "";
    }
}

/// Flows that are not healthy with their explanations; with `--all-flows` every flow.
pub(super) fn flows(report: &Report, page: &mut Page) {
    let told = |flow: &&FlowEntry| flow.verdict != Verdict::Healthy;
    let listed: Vec<&FlowEntry> = match report.counts.flows.total == report.flows.len() as u64 {
        true => report.flows.iter().collect(),
        false => report.flows.iter().filter(told).collect(),
    };
    if listed.is_empty() {
        return;
    }
    page.blank();
    page.line("FLOWS");
    let mut last: Option<(&str, usize)> = None;
    for flow in listed.iter().take(if page.style.verbose { usize::MAX } else { 40 }) {
        // The same words for the tenth flow in a row say nothing new.
        let same = last.is_some_and(|(text, _)| generic(text) == generic(&flow.explanation));
        let count = last.map_or(0, |(_, n)| n);
        if same && count >= 2 && !page.style.verbose {
            last = Some((&flow.explanation, count + 1));
            continue;
        }
        if count > 2 {
            page.labelled("", &format!("and {} more like it", count - 2), Tone::Plain, 1);
        }
        last = Some((&flow.explanation, if same { count + 1 } else { 0 }));
        let verdict = match flow.verdict {
            Verdict::Failed => "failed",
            Verdict::Degraded => "degraded",
            Verdict::Undecided => "undecided",
            Verdict::Healthy => "healthy",
        };
        let explanation = flow.explanation.strip_prefix("Not judged: ").unwrap_or(&flow.explanation);
        let mut text = format!("{} -> {} {verdict}: {explanation}", flow.client, flow.server);
        for face in &flow.faces {
            text.push_str(&format!(" Also seen: {face}."));
        }
        page.labelled(&format!("  {}", flow_number(report, flow)), &text, Tone::Plain, 4);
    }
    if let Some((_, n)) = last
        && n > 2
    {
        page.labelled("", &format!("and {} more like it", n - 2), Tone::Plain, 1);
    }
}

/// An explanation without its numbers, to see that two say the same.
pub(super) fn generic(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// An input in words.
pub(super) fn input(capture: &Capture) -> String {
    let links = capture.link_types.join(", ");
    let mut text = format!(
        "{} ({}{}), {}",
        format::count(capture.packets, "packet"),
        capture.format,
        if links.is_empty() { String::new() } else { format!(", {links}") },
        match (&capture.first, &capture.last) {
            (Some(first), Some(last)) => format!("{} to {}", short(first), short(last)),
            _ => "empty".to_owned(),
        }
    );
    if let (0, Some(damage)) = (capture.packets, capture.damaged.iter().flatten().next()) {
        text.push_str(&format!(": {}", damage.what));
    }
    if let Some(clock) = &capture.clock {
        text.push_str(&format!("; {}", clock.says));
    }
    if !capture.together_with.is_empty() {
        let others: Vec<String> = capture.together_with.iter().map(|file| (file + 1).to_string()).collect();
        text.push_str(&format!("; read as one capture with input {}", others.join(", ")));
    }
    text
}

/// Packets by kind and flows by verdict; none where nothing was read.
pub(super) fn sums(report: &Report) -> Option<[String; 2]> {
    let read = packets(report, "read");
    let kinds: Vec<String> = report
        .counts
        .packets
        .iter()
        .filter(|(name, n)| **n > 0 && name.as_str() != "read")
        .map(|(name, n)| format!("{n} {}", name.replace('_', " ")))
        .collect();
    let flows = &report.counts.flows;
    let flows = format!(
        "{}: {} healthy, {} degraded, {} failed, {} undecided",
        format::count(flows.total, "flow"),
        flows.healthy,
        flows.degraded,
        flows.failed,
        flows.undecided
    );
    (read > 0).then(|| [format!("{} = {}", format::count(read, "packet"), kinds.join(" + ")), flows])
}

/// What was read: the last lines of every report.
pub(super) fn totals(report: &Report, page: &mut Page) {
    page.blank();
    for capture in &report.captures {
        let mut text = input(capture);
        if let Some(hash) = &capture.sha256 {
            text.push_str(&format!(", sha256 {hash}"));
        }
        page.named("READ", &format!("{}:", capture.file), &text, 3);
    }
    if let Some([packets, flows]) = sums(report) {
        page.labelled("", &packets, Tone::Plain, 2);
        page.labelled("", &flows, Tone::Plain, 1);
    }
}

/// A time to the millisecond.
pub(super) fn short(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", &fraction[..fraction.len().min(3)]),
        None => time.to_owned(),
    }
}
