//! Findings to understanding: confidence, links between legs, causes and consequences, incidents, and the report.
//!
//! [`report`] is pure: the same merged summaries give the same report, offline and in a live snapshot.

mod behind;
mod beside;
mod build;
mod cause;
mod confidence;
pub mod diff;
mod entries;
pub mod evidence;
pub mod explain;
mod faces;
pub mod format;
pub mod id;
mod incident;
mod legs;
pub mod news;
mod probe;
mod raised;
mod rank;
pub mod report;
mod same;
mod scope;
pub mod selection;
mod severity;
mod shared;
pub(crate) mod spread;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capture::CaptureInfo;
use crate::catalogue;
use crate::event::PacketRef;
use crate::host::grid::Grid;
use crate::host::icmp::StrayErrors;
use crate::host::names::Names;
use crate::host::neighbor::Neighbors;
use crate::host::service::Services;
use crate::host::sockets::Sockets;
use crate::rule::digests::Digests;
use crate::rule::finding::{Confidence, Finding, Severity};
use crate::rule::summary::{FlowSummary, Verdict};
use crate::rule::tally::{PacketTally, Tally};
use crate::rule::threshold::Thresholds;
use crate::rule::view::{CaptureView, Index, LegsView, index_links};
use crate::rule::{Check, Keep, Rule};
use crate::time::Timestamp;
use crate::wire::Endpoint;
use build::Builder;
pub use entries::flow_entry;
use report::{Counts, FlowCounts, FlowEntry, Report, SCHEMA, Tool};
pub use same::one_place;
use selection::{Ends, Selected};
use shared::Working;
use spread::{both, spread};

/// What all shards and inputs together know: plain data, the only thing the report is made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Merged {
    /// Inputs.
    pub infos: Vec<CaptureInfo>,
    /// Flows kept whole.
    pub flows: BTreeMap<PacketRef, FlowSummary>,
    /// Digests of the others, inside the window.
    pub digests: Digests,
    /// What servers speak.
    pub services: Services,
    /// What ARP and neighbour discovery told.
    pub neighbors: Neighbors,
    /// What the DNS told.
    pub names: Names,
    /// ICMP errors about flows that are not in the capture.
    pub icmp: StrayErrors,
    /// The capture on a grid of seconds, and who was not heard when.
    pub grid: Grid,
    /// Counters of flows.
    pub tally: Tally,
    /// Counters of packets.
    pub packets: PacketTally,
    /// Lines of flows that are not kept whole, with `--all-flows`.
    #[serde(skip)]
    pub lines: Vec<FlowEntry>,
    /// What the user asked for in words; empty = everything.
    pub asked: String,
    /// The point of capture of each input.
    pub points: Vec<u16>,
    /// Pairs of inputs that hold one direction each of the same connections: interfaces of one host, read as one capture.
    pub one_place: Vec<(u16, u16)>,
    /// Reading was stopped before the input's end.
    pub interrupted: bool,
    /// What the capturing host had open, where a snapshot tells.
    pub sockets: Option<Sockets>,
    /// When the capture ended: with its last packet, or later where it tells that nothing came any more.
    pub until: Option<Timestamp>,
}

impl Merged {
    /// When the capture ended.
    pub fn end(&self) -> Timestamp {
        self.until.or(self.packets.last.map(|at| at.time)).unwrap_or(Timestamp(0))
    }

    /// Adds what another shard knows. Associative; both sides may hold any flows.
    pub fn merge(&mut self, other: Self) {
        self.flows.extend(other.flows);
        self.digests.merge(other.digests);
        self.services.merge(other.services);
        self.neighbors.merge(other.neighbors);
        self.names.merge(other.names);
        self.icmp.merge(other.icmp);
        self.grid.merge(other.grid);
        self.tally.merge(other.tally);
        self.lines.extend(other.lines);
    }
}

/// How a report is to be made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The numbers of the rules.
    pub thresholds: Thresholds,
    /// List every flow.
    pub all_flows: bool,
    /// Zone of the clock times in sentences.
    pub zone: jiff::tz::TimeZone,
    /// The upstreams that proxies are expected to use (`--expect-upstream`).
    pub expected: Vec<Endpoint>,
    /// Which flows are reported.
    pub only: Ends,
    /// In how many threads packets are worked in and the report is made; it does not depend on it.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            thresholds: Thresholds::default(),
            all_flows: false,
            zone: jiff::tz::TimeZone::UTC,
            expected: Vec::new(),
            only: Ends::default(),
            threads: 1,
        }
    }
}

/// Flows that are listed without `--all-flows`, beyond those the incidents cite.
const LISTED_FLOWS: usize = 60;

/// Of fewer flows one thread makes the report, and of more not more than there are parts of some size.
const SHARED: usize = 1024;
const THREADS: usize = 4;

/// What happened, from all that is known. Pure.
pub fn report(merged: &Merged, settings: &Settings) -> Report {
    let joined = faces::join(merged);
    let (merged, faces) = match &joined {
        Some((joined, faces)) => (joined, faces),
        None => (merged, &faces::Faces::default()),
    };
    let threads = threads(merged, settings);
    let (legs, index) =
        both(threads, || legs::link(&merged.flows, &merged.digests), || Index::of(&merged.flows, &merged.digests));
    let links = legs.links;
    let capture = CaptureView {
        infos: &merged.infos,
        flows: &merged.flows,
        digests: &merged.digests,
        services: &merged.services,
        neighbors: &merged.neighbors,
        names: &merged.names,
        icmp: &merged.icmp,
        grid: &merged.grid,
        sockets: merged.sockets.as_ref(),
        tally: &merged.tally,
        packets: &merged.packets,
        links: &links,
        open_links: &legs.open,
        expected: &settings.expected,
        links_by_flow: index_links(&links),
        thresholds: &settings.thresholds,
        asked: &merged.asked,
        end: merged.end(),
        index,
    };
    let mut findings = all_findings(&capture, threads);
    let raised = raised::raised(&findings, &capture);
    let good = incident::Good::of(&capture, &raised);
    let working = Working::of(&capture, &raised, &good);
    let selected = settings.only.select(&capture, faces);
    if let Some(selected) = &selected {
        findings.retain(|finding| selected.wants(finding));
    }
    let causes = cause::find(&findings, &capture);
    first_things_first(&mut findings, &causes);
    let builder = Builder::new(merged, settings, &capture, &findings, &causes, faces, working);

    let drafts = incident::group(&findings, &causes, &capture, &good);
    let mut drafts: Vec<_> = drafts
        .into_iter()
        .map(|draft| {
            let mut extent = incident::extent(&draft, &findings, &capture, &good);
            faces.untranslate(&mut extent, draft.members.iter().filter_map(|i| capture.flow_of(&findings[*i])));
            (draft, extent)
        })
        .collect();
    rank::order(&mut drafts, &findings);
    let incidents = spread(threads, &drafts, |(draft, extent)| builder.incident(draft, extent));

    let mut on_flow: BTreeMap<PacketRef, Vec<usize>> = BTreeMap::new();
    for (i, finding) in findings.iter().enumerate() {
        if let Some(flow) = finding.subject.flow() {
            on_flow.entry(flow).or_default().push(i);
        }
    }
    let (mut flows, flow_counts) = flows(merged, selected.as_ref(), &builder, &on_flow, &incidents);
    for flow in &mut flows {
        flow.faces = builder.faces(flow);
    }
    let trust = |i: usize| findings[i].rule.starts_with("capture-");
    Report {
        schema: SCHEMA.into(),
        tool: Tool { name: env!("CARGO_PKG_NAME").into(), version: env!("CARGO_PKG_VERSION").into() },
        captures: captures(merged, faces),
        trust: builder.entries(|i| trust(i) && findings[i].severity > Severity::Silent),
        findings: builder.entries(|i| !trust(i) || findings[i].severity == Severity::Silent),
        counts: Counts { packets: packet_counts(&merged.packets), flows: flow_counts },
        incidents,
        flows,
        not_judged: not_judged(merged, settings, selected.as_ref()),
    }
}

/// In how many threads the report is made: that of a few flows is made before another thread has begun.
fn threads(merged: &Merged, settings: &Settings) -> usize {
    if merged.flows.len() < SHARED { 1 } else { settings.threads.min(THREADS) }
}

/// What a rule about the capture or about legs says.
fn found(rule: &Rule, capture: &CaptureView<'_>) -> Vec<Finding> {
    match rule.check {
        Check::Capture(check) => check(capture),
        Check::Legs(check) => {
            let view = |link| LegsView {
                link,
                client_leg: capture.flows.get(&link.client_leg),
                backend_leg: capture.flows.get(&link.backend_leg),
                capture,
            };
            capture.links.iter().filter_map(|link| check(&view(link))).collect()
        }
        Check::Flow(_) | Check::Never => Vec::new(),
    }
}

/// Flow findings looked at again, legs and capture rules, and the modifiers, in the order (first packet, rule).
fn all_findings(capture: &CaptureView<'_>, threads: usize) -> Vec<Finding> {
    let mut findings: Vec<Finding> = capture.flows.values().flat_map(|flow| flow.findings.iter().cloned()).collect();
    findings.extend(spread(threads, catalogue::RULES, |(rule, _)| found(rule, capture)).into_iter().flatten());
    for finding in &mut findings {
        finding.evidence.sort_by_key(|e| e.at);
        finding.evidence.dedup_by_key(|e| e.at);
        if let Some(rule) = catalogue::rule(&finding.rule) {
            confidence::limit(finding, rule, capture);
        }
    }
    confidence::siblings(&mut findings, capture);
    findings.retain_mut(|finding| match catalogue::rule(&finding.rule).and_then(|rule| rule.corroborate) {
        Some(corroborate) => corroborate(finding, capture) == Keep::Yes,
        None => true,
    });
    severity::lift(&mut findings, capture);
    findings.sort_by_cached_key(|finding| (finding.first(), finding.rule.clone(), finding.subject));
    findings
}

/// Where something is broken now, what is only foretold is a notice: an operator mends the one before the other.
fn first_things_first(findings: &mut [Finding], causes: &cause::Causes) {
    let broken = findings.iter().zip(&causes.explained_by).any(|(finding, cause)| {
        let known = finding.confidence > Confidence::Low && !finding.rule.starts_with("capture-");
        cause.is_none() && known && finding.severity == Severity::Critical
    });
    for finding in findings.iter_mut().filter(|_| broken) {
        if catalogue::rule(&finding.rule).is_some_and(|rule| rule.foretells) {
            finding.severity = finding.severity.min(Severity::Notice);
        }
    }
}

fn flows(
    merged: &Merged,
    selected: Option<&Selected>,
    builder: &Builder<'_>,
    on_flow: &BTreeMap<PacketRef, Vec<usize>>,
    incidents: &[report::Incident],
) -> (Vec<FlowEntry>, FlowCounts) {
    let cited: BTreeSet<report::FlowRef> =
        incidents.iter().flat_map(|incident| incident.flows.iter().copied()).collect();
    let all_flows = builder.settings.all_flows;
    let mut counts = match selected {
        Some(selected) => selected.count(merged),
        None => FlowCounts {
            total: merged.tally.flows,
            healthy: merged.tally.dropped_healthy,
            undecided: merged.tally.dropped_undecided,
            degraded: merged.tally.dropped_degraded,
            failed: merged.tally.dropped_failed,
        },
    };
    let mut entries = Vec::new();
    let mut listed = 0;
    let wanted_flow = |id: &PacketRef| selected.is_none_or(|selected| selected.holds(id));
    for (id, flow) in merged.flows.iter().filter(|(id, _)| wanted_flow(id)) {
        let found = on_flow.get(id).map(Vec::as_slice).unwrap_or(&[]);
        let verdict = builder.verdict(flow, found);
        match verdict {
            Verdict::Healthy => counts.healthy += 1,
            Verdict::Undecided => counts.undecided += 1,
            Verdict::Degraded => counts.degraded += 1,
            Verdict::Failed => counts.failed += 1,
        }
        let wanted = verdict != Verdict::Healthy && listed < LISTED_FLOWS;
        if all_flows || cited.contains(&(*id).into()) || wanted {
            listed += usize::from(wanted);
            entries.push(builder.flow_entry(flow, found));
        }
    }
    if all_flows {
        let ids: Option<BTreeSet<(u16, u64)>> = selected.map(|_| {
            merged.digests.iter().map(|digest| digest.id).filter(wanted_flow).map(|id| (id.file, id.number)).collect()
        });
        let wanted = |entry: &&FlowEntry| ids.as_ref().is_none_or(|ids| ids.contains(&(entry.file, entry.id)));
        entries.extend(merged.lines.iter().filter(wanted).cloned());
        entries.sort_by_key(|entry| (entry.file, entry.id));
    }
    (entries, counts)
}

/// The inputs, and how far their clocks differ.
fn captures(merged: &Merged, faces: &faces::Faces) -> Vec<report::Capture> {
    let mut captures: Vec<report::Capture> = merged.infos.iter().map(entries::capture_entry).collect();
    for (a, b) in &merged.one_place {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(capture) = captures.get_mut(usize::from(*one)) {
                capture.together_with.push(*other);
            }
        }
    }
    for (file, clock) in &faces.clocks {
        if let Some(capture) = captures.get_mut(usize::from(*file)) {
            capture.clock = Some(report::ClockEntry {
                of: clock.of,
                ahead_ns: clock.ahead.0,
                connections: clock.connections as u64,
                says: clock.says(),
            });
        }
    }
    captures
}

/// Packets by what they were; `read` is the sum of all the others.
fn packet_counts(packets: &PacketTally) -> BTreeMap<String, u64> {
    [
        ("read", packets.read),
        ("filtered", packets.filtered),
        ("tcp", packets.tcp),
        ("udp", packets.udp),
        ("icmp", packets.icmp),
        ("arp", packets.arp),
        ("fragments", packets.fragments),
        ("other_ip", packets.other_ip),
        ("not_ip", packets.not_ip),
        ("unknown_link", packets.unknown_link),
        ("unreadable", packets.unreadable),
    ]
    .into_iter()
    .map(|(name, n)| (name.to_owned(), n))
    .collect()
}

fn not_judged(merged: &Merged, settings: &Settings, selected: Option<&Selected>) -> Vec<String> {
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let end = merged.end();
    let wanted = |flow: &&FlowSummary| selected.is_none_or(|selected| selected.holds(&flow.facts.id));
    for flow in merged.flows.values().filter(|flow| flow.digest.verdict == Verdict::Undecided).filter(wanted) {
        if let Some(reason) = explain::undecided(&flow.facts, &flow.story, end, &settings.thresholds) {
            let reason = reason.to_string();
            // Waiting times differ; the kind of reason is what is counted.
            let kind = reason.split(" for ").next().unwrap_or(&reason).to_owned();
            *reasons.entry(kind).or_default() += 1;
        }
    }
    let mut lines: Vec<String> =
        reasons.into_iter().map(|(reason, n)| format!("{}: {reason}", format::count(n, "flow"))).collect();
    lines.extend(limits_reached(&merged.tally));
    let unreadable = &merged.packets.unreadable_why;
    lines.extend(unreadable.iter().map(|(why, n)| format!("{} not readable: {why}", format::count(*n, "frame"))));
    if merged.interrupted {
        let last = merged.packets.last.map_or(0, |at| at.number);
        lines.push(format!("reading was interrupted: nothing after packet {last} was looked at"));
    }
    lines
}

/// Every cap that was reached, in words: a limit is never silent.
fn limits_reached(tally: &Tally) -> Vec<String> {
    let mut lines = Vec::new();
    if tally.evicted > 0 {
        let flows = format::count(tally.evicted, "flow");
        lines.push(format!("{flows} were judged early: more were open at once than the table holds"));
    }
    if tally.relieved > 0 {
        let flows = format::count(tally.relieved, "flow");
        lines.push(format!(
            "{flows} were judged early: together the open ones took the memory that --max-memory allows"
        ));
    }
    if tally.held_dropped > 0 {
        lines.push(format!("{} octets behind holes were given up: too many waited at once", tally.held_dropped));
    }
    for (rule, n) in &tally.beyond_cap {
        lines.push(format!("{} more with {rule} are counted, not kept", format::count(*n, "flow")));
    }
    lines
}
