//! One incident as a card: what broke and who has to act, the packets that prove it, what it is not, what to do.

use std::collections::BTreeSet;

use serde::Serialize;

use super::moment::{Clocks, clock, whole};
use super::view::{Packet, Room, packet, tone};
use super::words;
use super::{flows, ladder, sequence};
use crate::capture::CaptureInfo;
use crate::diagnose::report::{EvidenceEntry, Incident, IncidentScope, Leg, LinkEntry, Report};
use crate::render::text;
use crate::rule::finding::Severity;
use crate::run::dossier::Dossier;
use crate::run::ladder::Ladder;

/// Incidents of which everything is open.
const OPEN: usize = 5;

/// An incident.
#[derive(Serialize)]
pub(super) struct Card<'a> {
    pub n: usize,
    /// Its details are folded.
    pub folded: bool,
    pub incident: &'a Incident,
    pub severity: &'static str,
    pub tone: &'static str,
    pub culprit: [&'static str; 2],
    pub sure: [&'static str; 2],
    pub state: [&'static str; 2],
    /// The first failure, and what there is to say about when.
    pub since: Vec<String>,
    pub recovered: Option<String>,
    /// What limits the capture it was found in.
    pub doubt: Option<&'a str>,
    pub proof: Vec<Proof<'a>>,
    pub two_legs: bool,
    pub several_flows: bool,
    pub senders: bool,
    pub filters: Vec<Filter<'a>>,
    pub ruled_out: Vec<Not<'a>>,
    pub drawing: Option<ladder::Drawing>,
    pub charts: Vec<sequence::Chart>,
    pub more: Vec<String>,
}

/// A packet of the proof.
#[derive(Serialize)]
pub(super) struct Proof<'a> {
    pub packet: Packet,
    pub time: &'a str,
    pub clock: String,
    pub leg: &'static str,
    pub sender: &'static str,
    pub flow: String,
    pub shows: &'a str,
}

/// All packets of the proof that one input holds.
#[derive(Serialize)]
pub(super) struct Filter<'a> {
    pub of: Option<&'a str>,
    pub filter: &'a str,
}

/// What was ruled out.
#[derive(Serialize)]
pub(super) struct Not<'a> {
    pub what: &'a str,
    pub because: &'a str,
    pub packets: Vec<Packet>,
}

impl<'a> Card<'a> {
    pub fn of(dossier: &'a Dossier, incident: &'a Incident, n: usize, clocks: &Clocks, room: &mut Room) -> Self {
        let report = &dossier.report;
        let has = |leg: Leg| incident.evidence.iter().any(|evidence| evidence.leg == Some(leg));
        let flows: BTreeSet<_> = incident.evidence.iter().filter_map(|evidence| evidence.flow).collect();
        let doubt = report.trust.iter().find(|finding| finding.severity >= Severity::Warning);
        let (drawing, charts) = drawn(dossier, incident, n, clocks, room);
        Self {
            n,
            folded: n > OPEN,
            incident,
            severity: words::severity(incident.severity),
            tone: tone(incident.severity),
            culprit: words::culprit(incident.culprit.role),
            sure: words::how_sure(incident.confidence),
            state: words::state(incident.state),
            since: since(&incident.scope),
            recovered: incident.recovered_at.as_deref().map(whole),
            doubt: doubt.map(|finding| finding.says.as_str()),
            proof: incident.evidence.iter().map(|evidence| proof(report, incident, evidence)).collect(),
            two_legs: has(Leg::Client) && has(Leg::Backend),
            several_flows: flows.len() > 1,
            senders: incident.evidence.iter().any(|evidence| evidence.side.is_some()),
            filters: filters(report, incident),
            ruled_out: incident
                .not
                .iter()
                .map(|not| Not {
                    what: &not.rule,
                    because: &not.because,
                    packets: not.evidence.iter().map(|at| packet(report, at.file, at.packet)).collect(),
                })
                .collect(),
            drawing,
            charts,
            more: more(report, incident),
        }
    }
}

/// When it began and was seen last, the date once where all is of one day.
fn since(scope: &IncidentScope) -> Vec<String> {
    let times = [Some(&scope.first), Some(&scope.last), scope.last_good.as_ref()];
    let day = scope.first.get(..10).unwrap_or("");
    let same = times.into_iter().flatten().all(|time| time.get(..10) == Some(day) && time.contains('T'));
    let short = |time: &String| if same { clock(time).chars().take(8).collect() } else { whole(time) };
    let mut lines = vec![if same { format!("{} UTC", short(&scope.first)) } else { whole(&scope.first) }];
    if same {
        lines.push(day.to_owned());
    }
    lines.push(format!("latest {}", short(&scope.last)));
    lines.extend(scope.last_good.as_ref().map(|time| format!("last good before it {}", short(time))));
    lines
}

fn proof<'a>(report: &Report, incident: &Incident, evidence: &'a EvidenceEntry) -> Proof<'a> {
    let shows = evidence.shows.as_str();
    Proof {
        packet: packet(report, evidence.file, evidence.packet),
        time: &evidence.time,
        clock: clock(&evidence.time),
        leg: words::leg(evidence.leg),
        sender: words::sender(incident, evidence),
        flow: evidence.flow.map(|flow| flows::name(flow, report.captures.len())).unwrap_or_default(),
        shows: if evidence.leg.is_some() { shows.strip_prefix("client leg: ").unwrap_or(shows) } else { shows },
    }
}

fn filters<'a>(report: &'a Report, incident: &'a Incident) -> Vec<Filter<'a>> {
    let several = report.captures.len() > 1;
    let name = |file: u16| report.captures.get(usize::from(file)).map(|capture| capture.file.as_str());
    let filter = incident.display_filters.iter();
    filter.map(|one| Filter { of: name(one.file).filter(|_| several), filter: &one.filter }).collect()
}

/// The flow that shows it best, with its other leg, and its octets over time.
fn drawn(
    dossier: &Dossier,
    incident: &Incident,
    n: usize,
    clocks: &Clocks,
    room: &mut Room,
) -> (Option<ladder::Drawing>, Vec<sequence::Chart>) {
    let legs: Vec<&Ladder> = dossier.shows(incident);
    if legs.is_empty() || room.is_over() {
        return (None, Vec::new());
    }
    let cited: BTreeSet<(u16, u64)> = incident.evidence.iter().map(|e| (e.file, e.packet)).collect();
    let keys: Vec<_> = legs.iter().map(|ladder| ladder.flow.key()).collect();
    let joins = |link: &&LinkEntry| keys == [link.client_leg, link.backend_leg];
    let link = incident.links.iter().find(joins);
    let id = format!("ladder-{n}");
    let ends = clocks.ends(&dossier.report);
    let stage = ladder::Stage { id: &id, legs: &legs, link, cited: &cited, clocks, ends: &ends };
    let drawing = room.take(ladder::draw(&stage), ladder::Drawing::octets);
    let charts = legs
        .iter()
        .enumerate()
        .filter_map(|(leg, ladder)| sequence::draw(&format!("sequence-{n}-{}", leg + 1), ladder, &cited));
    let charts = charts.collect::<Vec<_>>().into_iter().filter_map(|chart| room.take(chart, |chart| chart.svg.len()));
    (drawing, charts.collect())
}

/// Commands that tell more, where there is a file to read again.
fn more(report: &Report, incident: &Incident) -> Vec<String> {
    let mut more = Vec::new();
    let live = report.captures.iter().any(|capture| capture.format == CaptureInfo::LIVE);
    if let (Some(flow), Some(inputs)) = (incident.flows.first().filter(|_| !live), text::inputs(report)) {
        more.push(format!("tcpwhy flow {} {inputs}", flow.name(report.captures.len())));
    }
    more.push(format!("tcpwhy explain {}", incident.rule));
    more
}
