//! One flow, packet by packet: the second pass over the input, for the packets of one pair of ends.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::means::meaning;
pub use super::second::Point;
use super::second::{Step, Tracks, read};
use super::{Diagnosis, Ends};
use crate::capture::Source;
use crate::decode::Decoder;
use crate::diagnose::report::{FindingEntry, FlowEntry, FlowRef, Incident, Report};
use crate::diagnose::{Merged, report};
use crate::error::{Error, Result};
use crate::event::Side;
use crate::rule::summary::FlowSummary;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A flow with everything known of it and its packets.
#[derive(Clone, Debug, Serialize)]
pub struct Ladder {
    /// The inputs, as given.
    pub captures: Vec<String>,
    /// The flow as the report lists it.
    pub flow: FlowEntry,
    /// Findings on it.
    pub findings: Vec<FindingEntry>,
    /// Headlines of the incidents it belongs to.
    pub incidents: Vec<String>,
    /// The other legs it is linked to, in words.
    pub links: Vec<String>,
    /// Its packets, repeats collapsed.
    pub steps: Vec<Rung>,
    /// The same packets in numbers, each of its own.
    #[serde(skip)]
    pub points: Vec<Point>,
    /// Packets of the middle of a long flow that are in neither list.
    pub left_out: u64,
}

/// One packet, or several alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rung {
    /// Index of the input in `captures`.
    pub file: u16,
    /// Frame number of the first.
    pub packet: u64,
    /// Frame number of the last of several.
    pub until: Option<u64>,
    /// How many.
    pub count: u64,
    /// Time since the flow's first packet.
    pub after: Elapsed,
    /// Who sent it.
    pub side: Side,
    /// Flags and lengths: `SYN`, `ACK 19`, `517 octets`.
    pub what: String,
    /// What happened there, in words.
    pub means: Vec<String>,
}

impl Diagnosis {
    /// The flow that packet `number` of input `file` (0 is the first) belongs to. Reads the inputs twice.
    ///
    /// # Errors
    /// When the inputs cannot be read, when they hold no such packet, or when it belongs to no TCP or UDP flow.
    pub fn ladder<S: AsRef<str>>(self, inputs: &[S], file: u16, number: u64) -> Result<Ladder> {
        let ends = ends_of(&self, inputs, file, number)?;
        let settings = crate::diagnose::Settings { all_flows: true, only: Ends::default(), ..self.settings.clone() };
        let whole = self.clone().keep_all(ends).all_flows(true).open(inputs)?.merged()?;
        let summary = flow_with(&whole, ends, (file, number))
            .ok_or_else(|| Error::usage(format!("packet {number} belongs to no TCP or UDP flow that is looked at")))?;
        let told = report(&whole, &settings);
        let mut tracks = Tracks::new([summary], usize::MAX, |_| BTreeSet::new());
        read(&self, inputs, &whole.one_place, |frame, packet| {
            tracks.packet(frame, packet);
            Ok(())
        })?;
        let packets = tracks.finish().next().map(|(_, steps, _)| steps).unwrap_or_default();
        Ok(assemble(summary, &told, packets, 0))
    }
}

/// The ends of packet `number`.
fn ends_of<S: AsRef<str>>(diagnosis: &Diagnosis, inputs: &[S], file: u16, number: u64) -> Result<(Endpoint, Endpoint)> {
    let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
    let mut source = Source::open(&inputs, &diagnosis.open)?;
    let mut decoder = Decoder::new(Default::default());
    while let Some(frame) = source.next()? {
        let packet = decoder.decode(&frame);
        if frame.file == file && frame.number == number {
            return packet
                .source()
                .zip(packet.destination())
                .ok_or_else(|| Error::usage(format!("packet {number} is neither TCP nor UDP: it belongs to no flow")));
        }
    }
    let read = source.finish().get(usize::from(file)).map_or(0, |info| info.packets);
    Err(Error::usage(format!("there is no packet {number}: the capture holds {read}")))
}

/// The flow between these ends that was alive at packet `number`.
fn flow_with(merged: &Merged, (a, b): (Endpoint, Endpoint), at: (u16, u64)) -> Option<&FlowSummary> {
    let between = |flow: &&FlowSummary| {
        let pair = (flow.facts.client, flow.facts.server);
        pair == (a, b) || pair == (b, a)
    };
    let number = |flow: &FlowSummary| (flow.facts.id.file, flow.facts.id.number);
    // A flow of a rotated capture may have begun in an earlier piece.
    let began_before = |flow: &&FlowSummary| number(flow) <= at;
    merged.flows.values().filter(between).filter(began_before).max_by_key(|flow| number(flow))
}

/// What the report and the packets say of a flow, together.
pub(super) fn assemble(summary: &FlowSummary, told: &Report, packets: Vec<Step>, left_out: u64) -> Ladder {
    let id = FlowRef::from(summary.facts.id);
    let captures: Vec<String> = told.captures.iter().map(|capture| capture.file.clone()).collect();
    let mut means = Means::new();
    for event in summary.story.events() {
        if let Some(words) = meaning(event) {
            means.entry((event.at.file, event.at.number)).or_default().push(words);
        }
    }
    let findings: Vec<FindingEntry> = told.findings.iter().filter(|f| f.flow == Some(id)).cloned().collect();
    for evidence in findings.iter().flat_map(|finding| &finding.evidence) {
        let list = means.entry((evidence.file, evidence.packet)).or_default();
        // What the event said already is not said again in the finding's words.
        let begins = |text: &str| text.split(' ').next().unwrap_or("").to_owned();
        if !list.iter().any(|known| begins(known) == begins(&evidence.shows)) {
            list.push(evidence.shows.clone());
        }
    }
    let belongs = |incident: &&Incident| incident.flows.contains(&id);
    let incidents: Vec<&Incident> = told.incidents.iter().filter(belongs).collect();
    let links = incidents.iter().flat_map(|incident| &incident.links).map(|link| {
        let [client, backend] = [link.client_leg, link.backend_leg].map(|leg| leg.name(captures.len()));
        format!("client leg {client} and backend leg {backend} {}", link.says)
    });
    let links = links.collect();
    let flow = told
        .flows
        .iter()
        .find(|flow| flow.key() == id)
        .cloned()
        .unwrap_or_else(|| crate::diagnose::flow_entry(summary, summary.digest.verdict, String::new()));
    Ladder {
        incidents: incidents.iter().map(|incident| incident.headline.clone()).collect(),
        links,
        captures,
        flow,
        findings,
        points: packets.iter().map(|step| step.point).collect(),
        steps: collapse(packets, &means),
        left_out,
    }
}

/// What packets mean, by input and number.
type Means = BTreeMap<(u16, u64), Vec<String>>;

/// Packets of one side that say nothing new are one rung.
fn collapse(packets: Vec<Step>, means: &Means) -> Vec<Rung> {
    let mut rungs: Vec<Rung> = Vec::new();
    for step in packets {
        let means = means.get(&(step.at.file, step.at.number)).cloned().unwrap_or_default();
        if let Some(last) = rungs.last_mut()
            && (last.file, last.side) == (step.at.file, step.point.side)
            && means.is_empty()
            && kind(&last.what) == kind(&step.what)
            && (last.count > 1 || last.means.is_empty())
        {
            last.until = Some(step.at.number);
            last.count += 1;
            continue;
        }
        rungs.push(Rung {
            file: step.at.file,
            packet: step.at.number,
            until: None,
            count: 1,
            after: step.point.after,
            side: step.point.side,
            what: step.what,
            means,
        });
    }
    rungs
}

/// A step's words without its numbers.
fn kind(what: &str) -> String {
    what.chars().filter(|c| !c.is_ascii_digit()).collect()
}

impl Diagnosis {
    /// Keeps every flow between two hosts whole and looks at no others' ladders.
    fn keep_all(mut self, (a, b): (Endpoint, Endpoint)) -> Self {
        self.keep = Some((a, b));
        self.settings.only = Ends::default();
        self
    }
}
