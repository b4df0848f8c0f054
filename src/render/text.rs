//! The report for a terminal: the first screen of each incident, then its details, then what else there is to know.

use super::beside::{flows, nothing_broken, short, silent, totals, trust, unjudged, waiting, worth_knowing};
use super::layout::{Column, Page, Style, Tone};
use crate::capture::CaptureInfo;
use crate::diagnose::format;
use crate::diagnose::news::News;
use crate::diagnose::report::{Capture, EvidenceEntry, FlowEntry, FlowRef, Incident, Leg, Report, State, StepEntry};
use crate::rule::finding::Severity;
use crate::rule::view::LinkMethod;
use crate::wire::harmless::{Sink, harmless};

/// Lines of one incident's first screen.
const SCREEN: usize = 25;
/// Lines of the overview of several incidents and the first screen of the first; that one keeps at least `LEAST`.
const SCREENS: usize = 40;
const LEAST: usize = 20;
/// Incidents that are told in full; the others are one line each.
pub(super) const TOLD: usize = 5;
/// Of those, how many stand above the first steps; the others follow the details.
const ABOVE: usize = 5;

/// The whole report as text.
pub fn report(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    first(report, &mut page);
    for place in 1..report.incidents.len().min(TOLD) {
        one_of(report, place, SCREEN, &mut page);
    }
    for (i, incident) in report.incidents.iter().take(TOLD).enumerate() {
        details(report, incident, (report.incidents.len() > 1).then_some(i + 1), &mut page);
    }
    if let Some(rest) = report.incidents.get(TOLD + ABOVE..).filter(|rest| !rest.is_empty()) {
        page.blank();
        page.labelled("ALSO", "the other causes:", Tone::Plain, 1);
        page.table(&others(report, rest, style.width));
    }
    trust(report, &mut page);
    if !report.incidents.is_empty() {
        worth_knowing(report, &mut page);
        unjudged(report, &mut page);
    }
    if style.verbose {
        silent(report, &mut page);
    }
    flows(report, &mut page);
    totals(report, &mut page);
    page.finish()
}

/// What is read first: the screen of the only cause; of several, the overview and the screen of the first. The report begins with it.
pub fn first_screen(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    first(report, &mut page);
    page.finish()
}

fn first(report: &Report, page: &mut Page) {
    match report.incidents.as_slice() {
        [] => nothing_broken(report, page),
        [only] => screen(report, only, page, SCREEN),
        _ => {
            overview(report, page);
            // A blank line and the screen's number come before it.
            one_of(report, 0, SCREENS.saturating_sub(page.len() + 2).clamp(LEAST, SCREEN), page);
        }
    }
}

/// What is new on an interface; `clock` is the time of the report as it is told.
pub fn news(report: &Report, news: &News, clock: &str, style: Style) -> String {
    let mut page = Page::new(style);
    match news {
        News::Opened { incident, .. } => {
            page.line(&format!("--- {clock} {}", "-".repeat(60)));
            screen(report, incident, &mut page, SCREEN);
            page.blank();
        }
        News::Hung { finding } => {
            page.line(&format!("--- {clock} {}", "-".repeat(60)));
            waiting(finding, &mut page);
            page.blank();
        }
        News::Updated { severity, state, flows, before, headline, .. } => {
            let state = match state {
                State::StillFailing => "still failing",
                State::Over => "over",
                State::Unknown => "no attempt since",
            };
            let flows = format!("now {} (was {before}), {state}", format::count(*flows, "flow"));
            page.labelled(word(*severity), &format!("{clock} {flows}: {headline}"), tone(*severity), 2);
        }
        News::Superseded { headline, cause, .. } => {
            page.labelled("CAUSE", &format!("{clock} {cause}"), Tone::Plain, 2);
            page.labelled("", &format!("explains: {headline}"), Tone::Plain, 2);
        }
        News::Withdrawn { headline, .. } => {
            page.labelled(
                "WITHDRAWN",
                &format!("{clock} what came later speaks against it: {headline}"),
                Tone::Plain,
                2,
            );
        }
    }
    page.finish()
}

/// One of several first screens.
fn one_of(report: &Report, place: usize, budget: usize, page: &mut Page) {
    page.blank();
    page.line(&format!("--- {} of {} {}", place + 1, report.incidents.len(), "-".repeat(60)));
    screen(report, &report.incidents[place], page, budget);
}

pub(super) fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Critical => Tone::Bad,
        Severity::Warning => Tone::Warn,
        Severity::Notice | Severity::Silent => Tone::Plain,
    }
}

pub(super) fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "CRITICAL",
        Severity::Warning => "WARNING",
        Severity::Notice => "NOTICE",
        Severity::Silent => "SILENT",
    }
}

/// That there are several causes.
pub(super) fn several(causes: usize) -> String {
    match causes {
        2 => "2 independent causes; neither explains the other.".to_owned(),
        n => format!("{n} independent causes; none explains another."),
    }
}

/// Several roots: a line each and what to do first.
fn overview(report: &Report, page: &mut Page) {
    let told = report.incidents.len().min(TOLD);
    let worst = report.incidents[0].severity;
    page.labelled(word(worst), &several(report.incidents.len()), tone(worst), 1);
    for (i, incident) in report.incidents.iter().enumerate().take(told) {
        page.labelled(&format!("{:>8}", i + 1), &incident.headline, tone(incident.severity), 3);
        page.labelled("", &incident.scope_line, Tone::Plain, 1);
    }
    if report.incidents.len() > told {
        let above = report.incidents.len().min(told + ABOVE);
        let below = match report.incidents.len() - above {
            0 => String::new(),
            n => format!(" ({n} more after the details)"),
        };
        page.blank();
        page.labelled("ALSO", &format!("other causes, less urgent or less certain{below}:"), Tone::Plain, 1);
        page.table(&others(report, &report.incidents[told..above], page.style.width));
    }
    steps(&report.incidents[..told], page);
}

/// The first step of each cause in one place, what still fails before what is over: which of them (from 1), its state where these differ, the
/// step.
pub(super) fn first_of_each(incidents: &[Incident]) -> Vec<(usize, &'static str, &StepEntry)> {
    let rank = |state: State| match state {
        State::StillFailing => 0,
        State::Unknown => 1,
        State::Over => 2,
    };
    let numbered = (1..).zip(incidents);
    let mut steps: Vec<_> = numbered.filter_map(|(n, one)| Some((n, one.state, one.do_first.first()?))).collect();
    steps.sort_by_key(|(n, state, _)| (rank(*state), *n));
    let differ = steps.iter().any(|(_, state, _)| *state != steps[0].1);
    let state = |state| match state {
        State::StillFailing if differ => " hurts now",
        State::Over => " is over",
        _ => "",
    };
    steps.into_iter().map(|(n, how, step)| (n, state(how), step)).collect()
}

fn steps(incidents: &[Incident], page: &mut Page) {
    let steps = first_of_each(incidents);
    if !steps.is_empty() {
        page.blank();
    }
    for (place, (n, state, step)) in steps.iter().enumerate() {
        let label = if place == 0 { "DO FIRST" } else { "" };
        page.labelled(label, &format!("{n}{state}: {}", step.says), Tone::Plain, 2);
        if place == 0 {
            page.command(&step.command);
        }
    }
}

/// One line per incident that is not told.
fn others(report: &Report, incidents: &[Incident], width: usize) -> String {
    use comfy_table::{ContentArrangement, Table, presets};
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width as u16);
    for incident in incidents.iter().take(50) {
        let flows = incident.flows.first().map(|flow| number(report, *flow)).unwrap_or_default();
        table.add_row([
            word(incident.severity).to_lowercase(),
            format!("{:?}", incident.confidence).to_lowercase(),
            super::layout::clean(&incident.headline),
            flows,
        ]);
    }
    table.to_string()
}

/// The first screen of one incident.
fn screen(report: &Report, incident: &Incident, page: &mut Page, budget: usize) {
    let start = page.len();
    page.labelled(word(incident.severity), &incident.headline, tone(incident.severity), 3);
    page.labelled("", &incident.scope_line, Tone::Plain, 2);
    if let Some(doubt) = report.trust.iter().find(|finding| finding.severity >= Severity::Warning) {
        page.labelled("TRUST", &doubt.says, Tone::Warn, 1);
    }
    page.blank();
    match incident.do_first.first() {
        Some(step) => {
            page.labelled("DO FIRST", &step.says, Tone::Plain, 2);
            page.command(&step.command);
        }
        None => page.labelled("DO FIRST", "read the packets below in Wireshark or with tcpwhy flow", Tone::Plain, 1),
    }
    page.blank();
    let mut below = Page::new(page.style);
    beside_proof(report, incident, &mut below);
    let room = (start + budget).saturating_sub(page.len() + below.len()).max(6);
    proof(report, incident, page, room);
    page.append(below);
}

/// What the first screen says below the packets.
fn beside_proof(report: &Report, incident: &Incident, page: &mut Page) {
    for line in incident.misleads.iter().take(1) {
        page.labelled("MISLEADS", line, Tone::Plain, 1);
    }
    for line in incident.control.iter().take(1) {
        page.labelled("CONTROL", line, Tone::Plain, 1);
    }
    page.fitting("USERS", &incident.users_see, "  |  ", 1);
    let not: Vec<String> =
        ruled_out(incident).iter().map(|(whats, because)| format!("{} ({because})", whats.join(", "))).collect();
    page.fitting("NOT", &not, "; ", 1);
    page.fitting("UNSEEN", &incident.cannot_show, "; ", 1);
    if let Some(verify) = incident.verify.first() {
        page.labelled("VERIFY", &verify.says, Tone::Plain, 1);
        page.command(&verify.command);
    }
    more(report, incident, page);
}

/// Where to read on, each line to be pasted.
fn more(report: &Report, incident: &Incident, page: &mut Page) {
    let files = report.captures.len();
    let shown = incident.flows.first();
    let holder = shown.map(|flow| flow.file).or(incident.display_filters.first().map(|one| one.file)).unwrap_or(0);
    let mut more = Vec::new();
    // Packets that are in no file cannot be shown again; evidence has numbers of its own.
    let live = report.captures.iter().any(|capture| capture.format == CaptureInfo::LIVE);
    match (shown.filter(|_| !live), inputs(report)) {
        (Some(flow), Some(inputs)) => more.push(format!("tcpwhy flow {} {inputs}", flow.name(files))),
        (Some(flow), None) => {
            let file = report.captures.get(usize::from(holder)).map_or_else(|| "FILE".to_owned(), word_of);
            more.push(format!("tcpwhy flow {} {file}", flow.id));
        }
        (None, _) => {}
    }
    more.push(format!("tcpwhy explain {}", incident.rule));
    page.commands("MORE", &more);
    // Numbers are those of one input: the one that holds the flow shown.
    if let Some(one) = incident.display_filters.iter().find(|one| one.file == holder && !live) {
        let file = report.captures.get(usize::from(holder)).map_or("FILE", |capture| capture.file.as_str());
        let of = if files > 1 { format!(" of {file}") } else { String::new() };
        page.whole("", &[format!("Wireshark: {}{of}", one.filter)]);
    }
}

/// The inputs as words of a command, where these are not too many for a line.
pub(super) fn inputs(report: &Report) -> Option<String> {
    let few = report.captures.len() <= 8;
    few.then(|| report.captures.iter().map(word_of).collect::<Vec<_>>().join(" "))
}

/// An input as a word of a command. Standard input cannot be read again: FILE stands for where it was saved.
fn word_of(capture: &Capture) -> String {
    match (capture.file.as_str(), &capture.label) {
        _ if capture.format == CaptureInfo::LIVE => "FILE".to_owned(),
        ("-", _) => "FILE".to_owned(),
        (file, Some(label)) => harmless(&format!("{label}={file}"), Sink::Shell).into_owned(),
        (file, None) => harmless(file, Sink::Shell).into_owned(),
    }
}

/// What was ruled out and by what; several with the same reason share it.
pub(super) fn ruled_out(incident: &Incident) -> Vec<(Vec<&str>, &str)> {
    let mut reasons: Vec<(Vec<&str>, &str)> = Vec::new();
    for not in &incident.not {
        match reasons.iter_mut().find(|(_, because)| *because == not.because) {
            Some((whats, _)) => whats.push(&not.rule),
            None => reasons.push((vec![&not.rule], &not.because)),
        }
    }
    reasons
}

/// The packets of the incident's own flow and its other leg. Those of other flows are controls, unless they are told with their sender.
pub(super) fn own_evidence<'r>(report: &Report, incident: &'r Incident) -> impl Iterator<Item = &'r EvidenceEntry> {
    let own: Vec<FlowRef> = incident
        .links
        .iter()
        .flat_map(|link| [link.client_leg, link.backend_leg])
        .chain(incident.flows.first().copied())
        .collect();
    // A finding about a host or the whole capture has no flow of its own: every packet is its proof.
    let wide = report.findings.iter().any(|finding| finding.id == incident.id && finding.flow.is_none());
    let any = !wide && incident.evidence.iter().any(|e| e.flow.is_some_and(|flow| own.contains(&flow)));
    incident.evidence.iter().filter(move |e| !any || e.side.is_some() || e.flow.is_none_or(|flow| own.contains(&flow)))
}

/// The packets that prove it: one column, or one per leg.
fn proof(report: &Report, incident: &Incident, page: &mut Page, room: usize) {
    let two_legs = incident.evidence.iter().any(|e| e.leg == Some(Leg::Client))
        && incident.evidence.iter().any(|e| e.leg == Some(Leg::Backend));
    let wide = report.findings.iter().any(|finding| finding.id == incident.id && finding.flow.is_none());
    let start = page.len();
    if two_legs {
        let (client, backend) = leg_heads(report, incident);
        page.heads("PROOF", &client, &backend);
    } else {
        let flow = incident.flows.first().and_then(|id| report.flows.iter().find(|flow| flow.key() == *id));
        let head = match flow {
            Some(flow) if !wide => {
                format!("{} to {}, flow {}", flow.client, flow.server, flow.key().name(report.captures.len()))
            }
            _ => "the packets that show it:".to_owned(),
        };
        page.labelled("PROOF", &head, Tone::Plain, 1);
    }
    let mut own: Vec<&EvidenceEntry> = own_evidence(report, incident).collect();
    // What was before (a name's address, a connection that worked) is told where there is room for it.
    let room_of = |e: &EvidenceEntry| page.packet_lines(&shown(e, two_legs), column(e, two_legs));
    let taken: usize = own.iter().map(|e| room_of(e)).sum();
    let first = own.first().map(|e| &e.time);
    let before: Vec<&EvidenceEntry> = incident
        .evidence
        .iter()
        .filter(|e| Some(&e.time) < first && !own.iter().any(|known| std::ptr::eq(*known, *e)))
        .collect();
    if before.iter().map(|e| room_of(e)).sum::<usize>() + taken + page.len() - start <= room {
        own.splice(0..0, before);
    }
    // Every packet matters more than every word: what does not fit whole is shortened, and stands whole in the details.
    let left = room.saturating_sub(page.len() - start);
    let whole: usize = own.iter().map(|e| page.packet_lines(&shown(e, two_legs), column(e, two_legs))).sum();
    let lines = if whole <= left { 2 } else { 1 };
    for (i, evidence) in own.iter().enumerate() {
        let more = own.len() - i;
        if lines == 1 && more > 1 && page.len() - start + 1 >= room {
            page.labelled(
                "",
                &format!("and {}, in the details below", format::count(more as u64, "more packet")),
                Tone::Plain,
                1,
            );
            return;
        }
        packet(report, evidence, two_legs, lines, page);
    }
}

/// The column says already which leg it is.
fn shown(evidence: &EvidenceEntry, two_legs: bool) -> String {
    let text = &evidence.shows;
    let text = if two_legs { text.strip_prefix("client leg: ").unwrap_or(text) } else { text };
    text.to_owned()
}

fn column(evidence: &EvidenceEntry, two_legs: bool) -> Column {
    match (two_legs, evidence.leg) {
        (true, Some(Leg::Client)) => Column::Left,
        (true, Some(Leg::Backend)) => Column::Right,
        // Of neither leg: a control, a name.
        (true, None) => Column::Whole,
        (false, _) => Column::Whole,
    }
}

fn leg_heads(report: &Report, incident: &Incident) -> (String, String) {
    let flow_of = |leg: Leg| incident.evidence.iter().find(|e| e.leg == Some(leg)).and_then(|e| e.flow);
    let ends = |leg: Leg| {
        let id = flow_of(leg);
        report.flows.iter().find(|flow| Some(flow.key()) == id).map(|flow| (flow.client.clone(), flow.server.clone()))
    };
    let client = ends(Leg::Client).map_or("client leg".into(), |(client, _)| format!("client {client}"));
    // A request that made the server ask somebody else need not have passed a proxy.
    let asks = incident
        .links
        .iter()
        .any(|link| Some(link.backend_leg) == flow_of(Leg::Backend) && link.methods == [LinkMethod::FanOut]);
    let who = if asks { "from there" } else { "proxy" };
    let backend = ends(Leg::Backend).map_or("backend leg".into(), |(_, server)| format!("{who} to {server}"));
    (client, backend)
}

fn packet(report: &Report, evidence: &EvidenceEntry, two_legs: bool, lines: usize, page: &mut Page) {
    page.packet(&numbered(report, evidence), &shown(evidence, two_legs), column(evidence, two_legs), lines);
}

/// `#14`; of several inputs the second's `2#14`.
pub(super) fn numbered(report: &Report, evidence: &EvidenceEntry) -> String {
    number(report, FlowRef { file: evidence.file, id: evidence.packet })
}

/// The same for a flow, whose number is that of its first packet.
pub(super) fn number(report: &Report, flow: FlowRef) -> String {
    let name = flow.name(report.captures.len());
    if report.captures.len() > 1 { name } else { format!("#{name}") }
}

/// The same for an entry of a flow.
pub(super) fn flow_number(report: &Report, flow: &FlowEntry) -> String {
    number(report, flow.key())
}

/// What stands below the first screen.
fn details(report: &Report, incident: &Incident, number: Option<usize>, page: &mut Page) {
    page.blank();
    let title = match number {
        Some(n) => format!("DETAILS of {n}"),
        None => "DETAILS".to_owned(),
    };
    page.line(&format!("{title}: {}", incident.rule));
    page.labelled("", &format!("{} (incident {})", incident.title, incident.id), Tone::Plain, 3);
    for sentence in &incident.what_happened {
        page.labelled("", sentence, Tone::Plain, 4);
    }
    if let (Some(last_good), Some(first_bad)) = (&incident.scope.last_good, &incident.scope.first_bad) {
        page.labelled(
            "ONSET",
            &format!("last good {}, first bad {}", short(last_good), short(first_bad)),
            Tone::Plain,
            2,
        );
    }
    list("EXPLAINS", &incident.consequences, page);
    list("BEHIND", &incident.possible_deeper_causes, page);
    if incident.misleads.len() > 1 {
        list("MISLEADS", &incident.misleads[1..], page);
    }
    if incident.control.len() > 1 {
        list("CONTROL", &incident.control[1..], page);
    }
    if incident.evidence.len() > 3 {
        page.labelled("PACKETS", "all of the proof:", Tone::Plain, 1);
        for evidence in &incident.evidence {
            packet(report, evidence, false, 3, page);
        }
    }
    let mut label = "CHECK";
    for step in incident.do_first.iter().skip(1).chain(incident.verify.iter().skip(1)) {
        page.labelled(label, &step.says, Tone::Plain, 3);
        page.command(&step.command);
        label = "";
    }
    for fix in &incident.fix {
        // The risk is read before the command is pasted.
        page.labelled("FIX", fix.says.trim_end_matches(':'), Tone::Plain, 4);
        if !fix.risk.is_empty() {
            page.labelled("RISK", &fix.risk, Tone::Warn, 3);
        }
        page.command(&fix.command);
    }
    list("NOT", &incident.not.iter().skip(2).map(|n| format!("{}: {}", n.rule, n.because)).collect::<Vec<_>>(), page);
    list("UNSEEN", incident.cannot_show.get(1..).unwrap_or(&[]), page);
    let mut label = "CAPTURE";
    for step in &incident.capture_next {
        page.labelled(label, &format!("next, {}", step.says), Tone::Plain, 3);
        page.command(&step.command);
        label = "";
    }
}

fn list(label: &str, lines: &[String], page: &mut Page) {
    let mut label = label;
    for line in lines.iter().take(8) {
        page.labelled(label, line, Tone::Plain, 3);
        label = "";
    }
}
