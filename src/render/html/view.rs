//! What the templates show: the report's own values beside what is worded, counted and drawn for the page.

use std::collections::BTreeSet;

use serde::Serialize;

use super::card::Card;
use super::moment::{Clocks, whole};
use super::words::{confidence, severity};
use super::{flows, ladder, sequence, timeline};
use crate::diagnose::format;
use crate::diagnose::report::{
    Capture, EvidenceEntry, FindingEntry, FlowEntry, FlowRef, Incident, Report, State, StepEntry,
};
use crate::render::beside::{self, Quiet, Waits};
use crate::render::layout::Tone;
use crate::render::text;
use crate::rule::finding::Severity;
use crate::run::dossier::Dossier;

/// Incidents that are told whole. Of the others each is a row.
const TOLD: usize = 25;
/// Rows of the list of further incidents, of findings, of inputs.
const ROWS: usize = 400;
const INPUTS: usize = 40;
/// Octets of drawings; the first ones have them.
const DRAWINGS: usize = 500_000;

/// The page.
#[derive(Serialize)]
pub(super) struct Page<'a> {
    pub title: String,
    pub says: Says,
    pub report: &'a Report,
    pub totals: String,
    pub span: Option<String>,
    /// Of several causes those that still hurt, when others do not.
    pub now: Vec<usize>,
    pub cards: Vec<Card<'a>>,
    pub others: Vec<Other<'a>>,
    pub more_incidents: usize,
    pub timeline: Option<timeline::Timeline>,
    pub flows: FlowTable,
    pub drawn: Vec<Drawn<'a>>,
    pub not_drawn: usize,
    pub findings: Vec<Found<'a>>,
    pub more_findings: usize,
    pub trust: Vec<Found<'a>>,
    pub inputs: Vec<Input<'a>>,
    pub more_inputs: usize,
    pub packets: Vec<(String, u64)>,
    pub command: &'a str,
}

/// The first sentence.
#[derive(Serialize)]
pub(super) struct Says {
    pub label: String,
    pub tone: &'static str,
    pub text: String,
    pub notes: Vec<String>,
    pub steps: Vec<Step>,
}

/// A sentence and its command, which may be empty.
#[derive(Serialize)]
pub(super) struct Step {
    pub label: &'static str,
    pub says: String,
    pub command: String,
}

/// A cause that has no card.
#[derive(Serialize)]
pub(super) struct Other<'a> {
    pub incident: &'a Incident,
    pub severity: &'static str,
    pub confidence: &'static str,
    pub flow: String,
}

/// A flow packet by packet.
#[derive(Serialize)]
pub(super) struct Drawn<'a> {
    pub id: String,
    pub name: String,
    pub flow: &'a FlowEntry,
    pub links: &'a [String],
    pub drawing: ladder::Drawing,
    pub chart: Option<sequence::Chart>,
}

/// A finding.
#[derive(Serialize)]
pub(super) struct Found<'a> {
    pub finding: &'a FindingEntry,
    pub severity: &'static str,
    pub confidence: &'static str,
    pub packets: Vec<Packet>,
    pub flow: Option<String>,
}

/// A packet to copy the filter of.
#[derive(Serialize)]
pub(super) struct Packet {
    pub name: String,
    pub filter: String,
}

/// An input.
#[derive(Serialize)]
pub(super) struct Input<'a> {
    pub n: usize,
    pub capture: &'a Capture,
    pub first: Option<String>,
    pub last: Option<String>,
    pub together: String,
}

/// The table of flows.
#[derive(Serialize)]
pub(super) struct FlowTable {
    pub rows: Vec<flows::Row>,
    pub json: String,
    /// Flows in the table, in the report, in the capture.
    pub listed: usize,
    pub left_out: usize,
    pub beside: u64,
}

/// Room for drawings.
pub(super) struct Room {
    left: usize,
}

impl Room {
    /// The drawing, if there is room for it.
    pub fn take<T>(&mut self, drawing: T, octets: impl Fn(&T) -> usize) -> Option<T> {
        let size = octets(&drawing);
        let fits = size <= self.left;
        self.left = if fits { self.left - size } else { 0 };
        fits.then_some(drawing)
    }

    pub fn is_over(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Page<'a> {
    pub fn of(dossier: &'a Dossier) -> Self {
        let report = &dossier.report;
        let clocks = Clocks::of(report);
        let mut room = Room { left: DRAWINGS };
        let told = report.incidents.len().min(TOLD);
        let numbered = (1..).zip(report.incidents.iter().take(told));
        let cards: Vec<Card<'a>> = numbered.map(|(n, one)| Card::of(dossier, one, n, &clocks, &mut room)).collect();
        let (drawn, not_drawn) = drawn(dossier, &clocks, &mut room);
        let others = report.incidents.iter().skip(told).take(ROWS).map(|incident| other(report, incident));
        let says = says(report);
        Self {
            title: title(report, &says),
            totals: totals(report),
            span: timeline::span(report),
            now: now(report, told),
            cards,
            others: others.collect(),
            more_incidents: report.incidents.len().saturating_sub(told + ROWS),
            timeline: timeline::draw(report, &clocks),
            flows: table(report, &drawn),
            drawn,
            not_drawn,
            findings: report.findings.iter().take(ROWS).map(|finding| found(report, finding)).collect(),
            more_findings: report.findings.len().saturating_sub(ROWS),
            trust: beside::doubts(report).map(|finding| found(report, finding)).collect(),
            inputs: report.captures.iter().take(INPUTS).enumerate().map(input).collect(),
            more_inputs: report.captures.len().saturating_sub(INPUTS),
            packets: packets(report),
            command: &dossier.command,
            says,
            report,
        }
    }
}

/// What still fails is looked at before what is over.
fn now(report: &Report, told: usize) -> Vec<usize> {
    let failing = |incident: &Incident| incident.state == State::StillFailing;
    let told = report.incidents.iter().take(told);
    let all = told.len();
    let now: Vec<usize> = (1..).zip(told).filter(|(_, incident)| failing(incident)).map(|(n, _)| n).collect();
    if now.len() == all { Vec::new() } else { now }
}

fn title(report: &Report, says: &Says) -> String {
    match report.incidents.first() {
        Some(first) => format!("{} – tcpwhy", first.headline),
        None => format!("{} – tcpwhy", says.text),
    }
}

/// Whether anything is broken, before anything else.
fn says(report: &Report) -> Says {
    let plain = |label: &str, tone, text: String| Says {
        label: label.to_lowercase(),
        tone,
        text,
        notes: Vec::new(),
        steps: Vec::new(),
    };
    match report.incidents.as_slice() {
        [] => quiet(report),
        [only] => plain(severity(only.severity), tone(only.severity), "One root cause was found".into()),
        [first, ..] => {
            let text = text::several(report.incidents.len()).trim_end_matches('.').to_owned();
            plain(severity(first.severity), tone(first.severity), text)
        }
    }
}

pub(super) fn tone(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "bad",
        Severity::Warning => "warn",
        Severity::Notice | Severity::Silent => "calm",
    }
}

/// No incident: nothing is broken, nothing can be said, or the capture itself is the matter.
fn quiet(report: &Report) -> Says {
    let of_finding = |finding: &FindingEntry, steps: Vec<Step>| Says {
        label: severity(finding.severity).to_owned(),
        tone: tone(finding.severity),
        text: finding.says.clone(),
        notes: finding.notes.clone(),
        steps,
    };
    let worded = |label: &'static str, step: StepEntry| Step { label, says: step.says, command: step.command };
    let first = |steps: Vec<StepEntry>| steps.into_iter().map(|step| worded("Do first", step)).collect();
    match beside::quiet(report) {
        Quiet::Waiting(finding) => {
            let Waits { first, verify, fix } = beside::waits(finding);
            of_finding(finding, vec![worded("Do first", first), worded("Verify", verify), worded("Fix", fix)])
        }
        Quiet::Nothing(finding, steps) => of_finding(finding, first(steps)),
        Quiet::Said { label, says, tone, steps } => {
            let tone = match tone {
                Tone::Good => "good",
                Tone::Warn => "warn",
                Tone::Bad => "bad",
                Tone::Plain => "calm",
            };
            Says { label: label.to_lowercase(), tone, text: says, notes: Vec::new(), steps: first(steps) }
        }
    }
}

fn totals(report: &Report) -> String {
    let flows = &report.counts.flows;
    format!(
        "{}: {} failed, {} degraded, {} undecided, {} healthy",
        format::count(flows.total, "flow"),
        flows.failed,
        flows.degraded,
        flows.undecided,
        flows.healthy
    )
}

fn other<'a>(report: &Report, incident: &'a Incident) -> Other<'a> {
    let flow = incident.flows.first().map(|flow| flows::name(*flow, report.captures.len()));
    Other {
        incident,
        severity: severity(incident.severity),
        confidence: confidence(incident.confidence),
        flow: flow.unwrap_or_default(),
    }
}

pub(super) fn packet(report: &Report, file: u16, number: u64) -> Packet {
    let name = flows::name(FlowRef { file, id: number }, report.captures.len());
    Packet { name, filter: format!("frame.number == {number}") }
}

fn found<'a>(report: &Report, finding: &'a FindingEntry) -> Found<'a> {
    let cited = |evidence: &EvidenceEntry| packet(report, evidence.file, evidence.packet);
    Found {
        finding,
        severity: severity(finding.severity),
        confidence: confidence(finding.confidence),
        packets: finding.evidence.iter().filter(|evidence| evidence.packet > 0).take(4).map(cited).collect(),
        flow: finding.flow.map(|flow| flows::name(flow, report.captures.len())),
    }
}

fn input((n, capture): (usize, &Capture)) -> Input<'_> {
    let together: Vec<String> = capture.together_with.iter().map(|file| (file + 1).to_string()).collect();
    Input {
        n: n + 1,
        capture,
        first: capture.first.as_deref().map(whole),
        last: capture.last.as_deref().map(whole),
        together: together.join(", "),
    }
}

fn packets(report: &Report) -> Vec<(String, u64)> {
    let kinds = report.counts.packets.iter().filter(|(name, n)| **n > 0 && name.as_str() != "read");
    kinds.map(|(name, n)| (name.replace('_', " "), *n)).collect()
}

/// Where the drawing of a flow is in the page.
pub(super) fn anchor(flow: FlowRef) -> String {
    format!("flow-{}-{}", flow.file + 1, flow.id)
}

/// Flows packet by packet, as far as there is room; and how many there is none for.
fn drawn<'a>(dossier: &'a Dossier, clocks: &Clocks, room: &mut Room) -> (Vec<Drawn<'a>>, usize) {
    let mut drawn = Vec::new();
    let ends = clocks.ends(&dossier.report);
    for ladder in &dossier.ladders {
        if room.is_over() {
            break;
        }
        let key = ladder.flow.key();
        let cited: BTreeSet<(u16, u64)> =
            ladder.findings.iter().flat_map(|finding| &finding.evidence).map(|e| (e.file, e.packet)).collect();
        let id = anchor(key);
        let stage = ladder::Stage {
            id: &format!("{id}-ladder"),
            legs: &[ladder],
            link: None,
            cited: &cited,
            clocks,
            ends: &ends,
        };
        let one = Drawn {
            name: flows::name(key, dossier.report.captures.len()),
            flow: &ladder.flow,
            links: &ladder.links,
            drawing: ladder::draw(&stage),
            chart: sequence::draw(&format!("{id}-sequence"), ladder, &cited),
            id,
        };
        let size = |one: &Drawn<'_>| one.drawing.octets() + one.chart.as_ref().map_or(0, |chart| chart.svg.len());
        drawn.extend(room.take(one, size));
    }
    let left = dossier.ladders.len() - drawn.len();
    (drawn, left)
}

fn table(report: &Report, drawn: &[Drawn<'_>]) -> FlowTable {
    let sorted = flows::sorted(report);
    let drawn: Vec<FlowRef> = drawn.iter().map(|one| one.flow.key()).collect();
    let data = flows::data(report, &sorted, &drawn);
    let files = report.captures.len();
    FlowTable {
        rows: sorted.iter().take(flows::STATIC).map(|flow| flows::row(flow, files)).collect(),
        json: data.json,
        listed: sorted.len() - data.left_out,
        left_out: data.left_out,
        beside: report.counts.flows.total.saturating_sub(report.flows.len() as u64),
    }
}
