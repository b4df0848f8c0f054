//! The capture from its first packet to its last: the inputs, what is doubtful about them, the incidents with their proof, the flows.
//!
//! All of it is in the report already; what the report does not know is not drawn, and the table below the drawing says that it is unknown.

use serde::Serialize;

use super::moment::{Clocks, whole};
use super::svg::{About, Anchor, Svg, step, wrapped};
use super::words::severity;
use crate::diagnose::report::{Capture, FindingEntry, Incident, Report, State};
use crate::rule::finding::Severity;
use crate::rule::summary::Verdict;
use crate::time::Elapsed;

/// Rows of each kind.
const INPUTS: usize = 8;
const INCIDENTS: usize = 12;
const DOUBTS: usize = 6;

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 14.0;
const RIGHT: f64 = 1026.0;
const ROW: f64 = 44.0;
/// Bins of the row of flows.
const BINS: usize = 120;

/// The drawing, and the same as a table.
#[derive(Serialize)]
pub(super) struct Timeline {
    pub svg: String,
    pub rows: Vec<Row>,
    /// Inputs, incidents and findings there is no room for.
    pub left_out: usize,
}

/// One row of the table.
#[derive(Serialize)]
pub(super) struct Row {
    pub what: String,
    pub from: String,
    pub to: String,
    pub says: String,
}

/// Time to place.
struct Axis {
    first: i64,
    span: f64,
}

impl Axis {
    fn x(&self, at: i64) -> f64 {
        let share = at.saturating_sub(self.first) as f64 / self.span;
        LEFT + (RIGHT - LEFT) * share.clamp(0.0, 1.0)
    }
}

/// Draws the capture; `None` where no packet has a time.
pub(super) fn draw(report: &Report, clocks: &Clocks) -> Option<Timeline> {
    let times = (0u16..).zip(&report.captures).flat_map(|(file, capture)| {
        [&capture.first, &capture.last].into_iter().flatten().filter_map(move |time| clocks.at(file, time))
    });
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), at| (first.min(at), last.max(at)));
    if first > last {
        return None;
    }
    let axis = Axis { first, span: (last.saturating_sub(first) as f64).max(1.0) };
    let doubts = doubts(report);
    let inputs = report.captures.len().min(INPUTS);
    let incidents = report.incidents.len().min(INCIDENTS);
    let rows = inputs + incidents + doubts.len().min(DOUBTS) + usize::from(!report.flows.is_empty());
    let bottom = 16.0 + rows as f64 * ROW;
    let description =
        format!("{inputs} inputs and {incidents} incidents from first to last packet. The table below says the same.");
    let about = About { id: "timeline-drawing", title: "Timeline of the capture", description: &description };
    let mut svg = Svg::begin(&about, "timeline", WIDTH, bottom + 34.0);
    ticks(&axis, bottom, &mut svg);
    let mut top = 16.0;
    let mut next = || {
        top += ROW;
        top - ROW
    };
    for (file, capture) in (0u16..).zip(report.captures.iter().take(INPUTS)) {
        input(capture, file, clocks, (&axis, next()), &mut svg);
    }
    for (n, incident) in report.incidents.iter().take(INCIDENTS).enumerate() {
        one(n + 1, incident, clocks, (&axis, next()), &mut svg);
    }
    for doubt in doubts.iter().take(DOUBTS) {
        doubtful(doubt, clocks, (&axis, next()), &mut svg);
    }
    if !report.flows.is_empty() {
        flows(report, clocks, (&axis, next()), &mut svg);
    }
    let left_out =
        report.captures.len() - inputs + report.incidents.len() - incidents + doubts.len().saturating_sub(DOUBTS);
    Some(Timeline { svg: svg.finish(), rows: table(report), left_out })
}

/// Findings about the capture that have a time.
fn doubts(report: &Report) -> Vec<&FindingEntry> {
    report.trust.iter().filter(|finding| finding.evidence.iter().any(|evidence| evidence.packet > 0)).collect()
}

fn ticks(axis: &Axis, bottom: f64, svg: &mut Svg) {
    let step = (step(axis.span, 6.0) as i64).max(1);
    let mut at = axis.first.div_euclid(step).saturating_add(1).saturating_mul(step);
    let place = |at: i64, svg: &mut Svg| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(at)).map(|time| time.to_string()).unwrap_or_default();
        let clock: String =
            time.split_once('T').map_or("", |(_, clock)| clock).trim_end_matches('Z').chars().take(12).collect();
        let x = axis.x(at);
        svg.line("grid", (x, 10.0), (x, bottom + 4.0));
        let anchor = match x {
            x if x < LEFT + 40.0 => Anchor::Start,
            x if x > RIGHT - 40.0 => Anchor::End,
            _ => Anchor::Middle,
        };
        svg.text("muted", (x, bottom + 20.0), anchor, &clock);
    };
    let end = axis.first.saturating_add(axis.span as i64);
    // A capture of one moment has no whole step inside.
    if at > end {
        place(axis.first, svg);
    }
    for _ in 0..12 {
        if at > end {
            break;
        }
        place(at, svg);
        at = at.saturating_add(step);
    }
}

fn bar(class: &str, (axis, top): (&Axis, f64), from: i64, to: i64, svg: &mut Svg) {
    let (from, to) = (axis.x(from), axis.x(to));
    svg.rect(class, (from - 1.0, top + 20.0), ((to - from).max(0.0) + 2.0, 12.0));
}

fn label(top: f64, text: &str, svg: &mut Svg) {
    svg.text("label", (LEFT, top + 13.0), Anchor::Start, &wrapped(text, 130, 1).join(""));
}

fn input(capture: &Capture, file: u16, clocks: &Clocks, place: (&Axis, f64), svg: &mut Svg) {
    label(place.1, &format!("{}: {}", capture.file, state(capture)), svg);
    let at = |time: &Option<String>| time.as_deref().and_then(|time| clocks.at(file, time));
    if let (Some(first), Some(last)) = (at(&capture.first), at(&capture.last)) {
        bar(if capture.damaged.is_some() { "input broken" } else { "input" }, place, first, last, svg);
    }
}

/// What is known of losses and damage.
fn state(capture: &Capture) -> String {
    let drops = match capture.kernel_drops {
        Some(0) => "the kernel dropped nothing".to_owned(),
        Some(n) => format!("the kernel dropped {n} packets"),
        None => "drops of the kernel unknown".to_owned(),
    };
    match capture.damaged.as_deref() {
        None | Some([]) => drops,
        Some(places) => {
            let after: Vec<String> = places.iter().take(3).map(|place| place.after_packet.to_string()).collect();
            format!("damaged after packet {}; {drops}", after.join(", "))
        }
    }
}

fn one(n: usize, incident: &Incident, clocks: &Clocks, place: (&Axis, f64), svg: &mut Svg) {
    let class = match incident.severity {
        Severity::Critical => "bad",
        Severity::Warning => "warn",
        Severity::Notice | Severity::Silent => "calm",
    };
    label(place.1, &format!("{n} {}: {}", severity(incident.severity), incident.headline), svg);
    let file = incident.evidence.first().map_or(0, |evidence| evidence.file);
    let at = |time: &str| clocks.at(file, time);
    let (axis, top) = place;
    if let (Some(first), Some(last)) = (at(&incident.scope.first), at(&incident.scope.last)) {
        bar(class, place, first, last, svg);
        if incident.state == State::StillFailing {
            let end = axis.first.saturating_add(axis.span as i64);
            svg.line(&format!("goes-on {class}"), (axis.x(last), top + 26.0), (axis.x(end), top + 26.0));
        }
    }
    let tick = |at: i64, mark: &str, svg: &mut Svg| {
        let x = axis.x(at);
        svg.line(mark, (x, top + 17.0), (x, top + 35.0));
    };
    for evidence in &incident.evidence {
        if let Some(at) = clocks.at(evidence.file, &evidence.time) {
            tick(at, "tick", svg);
        }
    }
    for good in [&incident.scope.last_good, &incident.recovered_at].into_iter().flatten() {
        if let Some(at) = at(good) {
            svg.circle("good", (axis.x(at), top + 26.0), 5.0);
        }
    }
}

fn doubtful(finding: &FindingEntry, clocks: &Clocks, place: (&Axis, f64), svg: &mut Svg) {
    label(place.1, &format!("capture: {}", finding.says), svg);
    for evidence in finding.evidence.iter().filter(|evidence| evidence.packet > 0) {
        if let Some(at) = clocks.at(evidence.file, &evidence.time) {
            let x = place.0.x(at);
            svg.path("doubt", &[(x, place.1 + 20.0), (x + 6.0, place.1 + 32.0), (x - 6.0, place.1 + 32.0)], true);
        }
    }
}

/// How many of the flows in the report began when: those that failed are dark.
fn flows(report: &Report, clocks: &Clocks, (axis, top): (&Axis, f64), svg: &mut Svg) {
    let listed = report.flows.len() as u64;
    let of = match report.counts.flows.total {
        total if total == listed => format!("all {total}"),
        total => format!("the {listed} in this report, of {total}"),
    };
    label(top, &format!("when flows began ({of}): failed or degraded below, others above the line"), svg);
    let mut bins = vec![[0u32; 2]; BINS];
    for flow in &report.flows {
        let share = (axis.x(clocks.start(flow)) - LEFT) / (RIGHT - LEFT);
        let bin = ((share * BINS as f64) as usize).min(BINS - 1);
        bins[bin][usize::from(matches!(flow.verdict, Verdict::Failed | Verdict::Degraded))] += 1;
    }
    let most = bins.iter().flatten().copied().max().unwrap_or(0).max(1);
    let middle = top + 28.0;
    svg.line("grid", (LEFT, middle), (RIGHT, middle));
    let width = (RIGHT - LEFT) / BINS as f64;
    for (n, counts) in bins.iter().enumerate() {
        for (kind, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = (f64::from(*count) / f64::from(most) * 11.0).max(2.0);
            let y = if kind == 0 { middle - height } else { middle };
            let class = if kind == 0 { "input" } else { "bad" };
            svg.rect(class, (LEFT + n as f64 * width, y), (width - 1.0, height));
        }
    }
}

fn table(report: &Report) -> Vec<Row> {
    let known = |time: &Option<String>| time.as_deref().map_or("unknown".into(), whole);
    let mut rows: Vec<Row> = Vec::new();
    for capture in report.captures.iter().take(INPUTS) {
        rows.push(Row {
            what: format!("input {}", capture.file),
            from: known(&capture.first),
            to: known(&capture.last),
            says: state(capture),
        });
    }
    for (n, incident) in report.incidents.iter().take(INCIDENTS).enumerate() {
        let good = known(&incident.scope.last_good);
        let recovered = incident.recovered_at.as_deref().map(|time| format!("; works again at {}", whole(time)));
        rows.push(Row {
            what: format!("incident {}", n + 1),
            from: whole(&incident.scope.first),
            to: whole(&incident.scope.last),
            says: format!("{}; last good before it: {good}{}", incident.headline, recovered.unwrap_or_default()),
        });
    }
    for doubt in doubts(report).into_iter().take(DOUBTS) {
        let times: Vec<&str> = doubt.evidence.iter().filter(|e| e.packet > 0).map(|e| e.time.as_str()).collect();
        let [from, to] = [times.first(), times.last()].map(|time| time.map_or("unknown".into(), |time| whole(time)));
        rows.push(Row { what: "the capture itself".into(), from, to, says: doubt.says.clone() });
    }
    rows
}

/// From the first packet of all to the last one, in words.
pub(super) fn span(report: &Report) -> Option<String> {
    let first = report.captures.iter().filter_map(|capture| capture.first.as_deref()).min()?;
    let last = report.captures.iter().filter_map(|capture| capture.last.as_deref()).max()?;
    let (from, to) = (super::moment::parse(first)?, super::moment::parse(last)?);
    let same = first.get(..10) == last.get(..10);
    let end = if same { last.get(11..19).map_or(whole(last), |clock| format!("{clock} UTC")) } else { whole(last) };
    Some(format!("{} to {end} ({})", whole(first).trim_end_matches(" UTC"), Elapsed(to.saturating_sub(from))))
}
