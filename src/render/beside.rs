//! What a report says beside its incidents: that nothing is broken, how far to trust the capture, its flows, what was read.

use super::layout::{Page, Tone};
use super::text::{flow_number, inputs, numbered, tone, word};
use crate::catalogue;
use crate::diagnose::format;
use crate::diagnose::report::{FindingEntry, FlowEntry, Report};
use crate::rule::finding::Severity;
use crate::rule::summary::Verdict;
use crate::rule::value::fill;

/// The screen when nothing is wrong: as useful as the other one.
pub(super) const NOTHING: &str = "capture-has-nothing";

/// It is about sockets that wait, not about the file.
pub(super) fn hung(finding: &FindingEntry) -> bool {
    finding.rule == NOTHING && finding.values.contains_key("upstream")
}

/// What to do about sockets that wait: what it is, a sentence, a command.
pub(super) fn waiting_steps(finding: &FindingEntry) -> [(&'static str, &'static str, String); 3] {
    let server = finding.values.get("upstream").map_or("", String::as_str);
    let (address, port) = server.rsplit_once(':').unwrap_or((server, ""));
    let address = address.trim_matches(['[', ']']);
    let filter = format!("host {address} and port {port}");
    [
        (
            "DO FIRST",
            "Which are they? A line without \"timer:\" waits for ever:",
            format!("ss -tnpoi state established dst '{server}'"),
        ),
        (
            "VERIFY",
            "start this, then restart one client that waits; its new request shows who is silent:",
            format!("sudo timeout 70 tcpdump -i any -nn -s 0 -w /var/tmp/again.pcap '{filter}'"),
        ),
        (
            "FIX",
            "give the caller a total timeout; end those that wait now (cuts every connection there):",
            format!("ss -K dst '{server}'"),
        ),
    ]
}

/// Connections of which no packet can be shown, because they send none.
pub(super) fn waiting(finding: &FindingEntry, page: &mut Page) {
    let [first, verify, fix] = waiting_steps(finding);
    page.labelled(word(finding.severity), &finding.says, tone(finding.severity), 3);
    page.blank();
    page.labelled(first.0, first.1, Tone::Plain, 1);
    page.command(&first.2);
    page.blank();
    for note in &finding.notes {
        page.labelled("", note, Tone::Plain, 3);
    }
    for (label, says, command) in [verify, fix] {
        page.labelled(label, says, Tone::Plain, 2);
        page.command(&command);
    }
    page.commands("MORE", &[format!("tcpwhy explain {NOTHING}")]);
}

pub(super) fn nothing_broken(report: &Report, page: &mut Page) {
    let flows = &report.counts.flows;
    if let Some(hung) = waits(report) {
        return waiting(hung, page);
    }
    if let Some(nothing) = nothing(report) {
        page.labelled(word(nothing.severity), &nothing.says, tone(nothing.severity), 3);
        page.blank();
        return look_first(report, page);
    }
    let (label, text, tone) = standing(report);
    page.labelled(label, &text, tone, 2);
    worth_knowing(report, page);
    unjudged(report, page);
    page.blank();
    look_first(report, page);
    if let Some(inputs) = inputs(report).filter(|_| flows.total > 0 && flows.total != report.flows.len() as u64) {
        page.commands("MORE", &[format!("tcpwhy --all-flows {inputs}")]);
    }
}

/// Sockets that wait, where this is what is wrong.
pub(super) fn waits(report: &Report) -> Option<&FindingEntry> {
    report.trust.iter().find(|finding| hung(finding) && finding.severity >= Severity::Warning)
}

/// That the capture holds nothing, or nothing that was asked for.
pub(super) fn nothing(report: &Report) -> Option<&FindingEntry> {
    report.trust.iter().find(|finding| finding.rule == NOTHING && !hung(finding))
}

/// What to do first where no incident is: sentences and commands; none where nothing is broken.
pub(super) fn first_steps(report: &Report) -> Vec<(String, String)> {
    let (limit, most) = match nothing(report) {
        Some(nothing) if packets(report, "read") == 0 => (Some(nothing), 2),
        // Packets are there, and --filter, --since or --until passed over all of them.
        Some(_) => return vec![look_at_all(report)],
        None if none_fits(report) => return vec![look_at_all(report)],
        None if standing(report).0 != "UNKNOWN" => return Vec::new(),
        None => {
            let foreign = packets(report, "unknown_link") * 2 > packets(report, "read");
            (report.trust.iter().find(|finding| finding.severity >= Severity::Warning && !foreign), 1)
        }
    };
    match limit {
        Some(limit) => steps(limit).into_iter().take(most).collect(),
        None => {
            let says = "Capture on the host itself. This prints what and how long:";
            vec![(says.to_owned(), "tcpwhy capture-plan".to_owned())]
        }
    }
}

/// Flows are there, and none fits --client, --server, --name or --path.
fn none_fits(report: &Report) -> bool {
    report.counts.flows.total == 0 && packets(report, "tcp") + packets(report, "udp") > 0
}

/// What is said where packets are there and no incident is: in a word, in a sentence.
pub(super) fn standing(report: &Report) -> (&'static str, String, Tone) {
    let flows = &report.counts.flows;
    let doubt = report.trust.iter().any(|finding| finding.severity >= Severity::Warning);
    let many = format::count(flows.total, "flow");
    match flows.total {
        0 if none_fits(report) => ("UNKNOWN", "no flow in this capture is one that was asked for".into(), Tone::Warn),
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
        _ => ("OK", format!("nothing is broken in {many}"), Tone::Good),
    }
}

/// How many packets of a kind were read.
fn packets(report: &Report, kind: &str) -> u64 {
    report.counts.packets.get(kind).copied().unwrap_or(0)
}

/// The same without what was asked for.
fn look_at_all(report: &Report) -> (String, String) {
    let command = format!("tcpwhy --all-flows {}", inputs(report).unwrap_or_else(|| "FILE".into()));
    ("Is what was asked for right? Everything that is there:".to_owned(), command)
}

fn look_first(report: &Report, page: &mut Page) {
    let mut label = "DO FIRST";
    for (says, command) in first_steps(report) {
        page.labelled(label, &says, Tone::Plain, 2);
        page.command(&command);
        label = "";
    }
}

/// What to do about a finding on the capture: sentences and commands.
fn steps(limit: &FindingEntry) -> Vec<(String, String)> {
    let Some(rule) = catalogue::rule(&limit.rule) else { return Vec::new() };
    let filled = |text: &str| fill(text, |slot| limit.values.get(slot).cloned());
    rule.do_first.iter().map(|step| (filled(step.says), filled(step.command))).collect()
}

pub(super) fn unjudged(report: &Report, page: &mut Page) {
    let mut label = "UNDECIDED";
    for line in report.not_judged.iter().take(5) {
        page.labelled(label, line, Tone::Plain, 2);
        label = "";
    }
}

/// Up to five notices.
pub(super) fn worth_knowing(report: &Report, page: &mut Page) {
    let notices: Vec<&FindingEntry> =
        report.findings.iter().filter(|f| f.severity == Severity::Notice && f.explained_by.is_none()).collect();
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

fn entry_line(report: &Report, finding: &FindingEntry) -> String {
    let packets: Vec<String> =
        finding.evidence.iter().filter(|e| e.packet > 0).take(3).map(|e| numbered(report, e)).collect();
    let times = if finding.count > 1 { format!(", {} times", finding.count) } else { String::new() };
    let notes = finding.notes.first().map(|note| format!("; {note}")).unwrap_or_default();
    format!("{} ({}{times}){notes}", finding.says, packets.join(" "))
}

/// How far to trust this capture.
pub(super) fn trust(report: &Report, page: &mut Page) {
    if report.trust.is_empty() {
        return;
    }
    page.blank();
    // Where nothing else is broken it stands on the first screen.
    let beside = !report.incidents.is_empty();
    let mut label = "TRUST";
    for finding in report.trust.iter().filter(|finding| finding.rule != NOTHING || hung(finding) && beside) {
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
fn generic(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// What was read: the last lines of every report.
pub(super) fn totals(report: &Report, page: &mut Page) {
    page.blank();
    for capture in &report.captures {
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
        if let Some(hash) = &capture.sha256 {
            text.push_str(&format!(", sha256 {hash}"));
        }
        page.named("READ", &format!("{}:", capture.file), &text, 3);
    }
    let packets: Vec<String> = report
        .counts
        .packets
        .iter()
        .filter(|(name, n)| **n > 0 && name.as_str() != "read")
        .map(|(name, n)| format!("{n} {}", name.replace('_', " ")))
        .collect();
    let read = report.counts.packets.get("read").copied().unwrap_or(0);
    if read == 0 {
        return;
    }
    let packets = packets.join(" + ");
    page.labelled("", &format!("{} = {packets}", format::count(read, "packet")), Tone::Plain, 2);
    let flows = &report.counts.flows;
    let text = format!(
        "{}: {} healthy, {} degraded, {} failed, {} undecided",
        format::count(flows.total, "flow"),
        flows.healthy,
        flows.degraded,
        flows.failed,
        flows.undecided
    );
    page.labelled("", &text, Tone::Plain, 1);
}

/// A time to the millisecond.
pub(super) fn short(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", &fraction[..fraction.len().min(3)]),
        None => time.to_owned(),
    }
}
