//! Assembles an incident: its words, its proof, its steps. How far it reaches stands in `scope.rs`, the report's lists in `entries.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::Causes;
use super::faces::Faces;
use super::format::{Purpose, filled, packet, rfc3339};
use super::id::finding_id;
use super::incident::{Draft, Extent};
use super::report::*;
use super::shared::Working;
use super::{Merged, Settings, probe, rank};
use crate::catalogue;
use crate::event::{PacketRef, Side};
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, Link, LinkMethod};
use crate::rule::{Rule, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::Address;

/// Candidates that are named where no link is taken.
const CANDIDATES: usize = 8;

/// Everything the parts of the report are made from.
pub(super) struct Builder<'a> {
    pub merged: &'a Merged,
    pub settings: &'a Settings,
    pub capture: &'a CaptureView<'a>,
    pub findings: &'a [Finding],
    pub causes: &'a Causes,
    pub faces: &'a Faces,
    pub ids: Vec<String>,
    pub working: Working<'a>,
}

/// Slots of a headline that count connections of one server.
const COUNTED: [&str; 2] = ["failures", "dropped"];

impl<'a> Builder<'a> {
    pub(super) fn new(
        merged: &'a Merged,
        settings: &'a Settings,
        capture: &'a CaptureView<'a>,
        findings: &'a [Finding],
        causes: &'a Causes,
        faces: &'a Faces,
        working: Working<'a>,
    ) -> Self {
        let ids = findings.iter().map(|f| finding_id(f, capture.flow_of(f))).collect();
        Self { merged, settings, capture, findings, causes, faces, ids, working }
    }

    fn rule(&self, i: usize) -> &'static Rule {
        catalogue::rule(&self.findings[i].rule).unwrap_or(&catalogue::UNKNOWN)
    }

    pub(super) fn flow(&self, i: usize) -> Option<&'a FlowSummary> {
        self.capture.flow_of(&self.findings[i])
    }

    pub(super) fn files(&self) -> usize {
        self.merged.infos.len()
    }

    pub(super) fn says(&self, i: usize) -> String {
        let finding = &self.findings[i];
        filled(self.rule(i).headline(finding.variant), finding, self.flow(i), Purpose::Prose, self.files())
    }

    /// One incident.
    pub(super) fn incident(&self, draft: &Draft, extent: &Extent) -> Incident {
        let shown = draft.shown;
        let finding = &self.findings[shown];
        let rule = self.rule(shown);
        let words = rule.words(finding.variant);
        let flow = self.flow(shown);
        let earliest = draft.members[0];
        let links = self.links(draft);
        let evidence = self.evidence(draft, &links);
        let severity = rank::severity(draft, self.findings);
        Incident {
            id: self.ids[earliest].clone(),
            rule: finding.rule.to_string(),
            title: rule.title.into(),
            severity,
            confidence: finding.confidence,
            culprit: self.culprit(finding, flow, rule),
            state: extent.state,
            recovered_at: extent.recovered.map(|at| rfc3339(at.time)),
            headline: self.headline(draft, extent),
            scope_line: self.scope_line(extent, finding.confidence),
            what_happened: [self.what_happened(draft, &links), self.names(extent), self.one_clock(&evidence)].concat(),
            scope: self.scope(extent),
            display_filters: display_filters(&evidence),
            evidence,
            misleads: self.misleads(extent),
            control: self.control(draft, extent),
            do_first: steps(words.do_first, finding, flow, self.files()),
            fix: fixes(rule, finding, flow, self.files()),
            verify: steps(words.verify, finding, flow, self.files()),
            users_see: words.users_see.iter().map(|text| (*text).to_owned()).collect(),
            not: self.not(finding, flow, rule),
            cannot_show: self.cannot_show(finding, flow, rule),
            capture_next: self.capture_next(finding, rule, extent),
            possible_deeper_causes: self.causes.deeper[shown].iter().map(|i| self.says(*i)).collect(),
            explains: draft.consequences.iter().take(64).map(|i| self.ids[*i].clone()).collect(),
            consequences: self.consequences(draft),
            flows: self.representatives(draft),
            links,
        }
    }

    /// The headline; of several servers all are named.
    fn headline(&self, draft: &Draft, extent: &Extent) -> String {
        let shown = draft.shown;
        let finding = &self.findings[shown];
        let template = self.rule(shown).headline(finding.variant);
        let mut headline = finding.clone();
        // What is counted at each of them is told of all.
        for slot in COUNTED.iter().filter(|_| draft.members.len() > 1) {
            let counts = draft.members.iter().map(|i| match self.findings[*i].values.get(slot) {
                Some(Value::Count(count)) => Some(*count),
                _ => None,
            });
            if let Some(sum) = counts.sum::<Option<u64>>() {
                headline.values.set(slot, sum.into());
            }
        }
        if extent.servers.len() > 1 {
            // The verb that follows stays in the singular.
            let each = if template.starts_with("{server} ") { "each of " } else { "" };
            headline.values.set("server", format!("{each}{}", listed(&extent.servers, 3)).into());
        }
        filled(template, &headline, self.flow(shown), Purpose::Prose, self.files())
    }

    fn culprit(&self, finding: &Finding, flow: Option<&FlowSummary>, rule: &Rule) -> CulpritEntry {
        let side = match finding.culprit {
            Culprit::Client => Some(Side::Client),
            Culprit::Server | Culprit::Upstream => Some(Side::Server),
            Culprit::Proxy => Some(rule.proxy_end),
            _ => None,
        };
        let address = flow.zip(side).map(|(flow, side)| flow.facts.endpoint(side).address);
        CulpritEntry { role: finding.culprit, address: address.map(|a| a.to_string()), why: rule.title.into() }
    }

    /// The shown finding's own packets and, of what it explains, those on its flow and on the linked leg.
    fn evidence(&self, draft: &Draft, links: &[LinkEntry]) -> Vec<EvidenceEntry> {
        let own = self.findings[draft.shown].subject.flow();
        let mut legs: BTreeSet<PacketRef> = own.into_iter().collect();
        if let Some(own) = own {
            legs.extend(self.capture.links_of(own).flat_map(|link| [link.client_leg, link.backend_leg]));
        }
        // In the order of one clock: see `one_clock`.
        let aligned = |at: PacketRef| (at.time - self.faces.ahead(at.file), at);
        let mut entries: BTreeMap<(Timestamp, PacketRef), EvidenceEntry> = BTreeMap::new();
        let mut add = |finding: &Finding| {
            for evidence in &finding.evidence {
                let entry = self.evidence_entry(evidence, finding, links);
                entries.entry(aligned(evidence.at)).or_insert(entry);
            }
        };
        add(&self.findings[draft.shown]);
        for i in &draft.consequences {
            if self.findings[*i].subject.flow().is_some_and(|flow| legs.contains(&flow)) {
                add(&self.findings[*i]);
            }
        }
        entries.into_values().take(24).collect()
    }

    pub(super) fn evidence_entry(&self, evidence: &Evidence, finding: &Finding, links: &[LinkEntry]) -> EvidenceEntry {
        let flow = evidence.flow.or_else(|| finding.subject.flow()).map(FlowRef::from);
        let leg = links.iter().find_map(|link| match flow {
            Some(n) if n == link.client_leg => Some(Leg::Client),
            Some(n) if n == link.backend_leg => Some(Leg::Backend),
            _ => None,
        });
        EvidenceEntry {
            file: evidence.at.file,
            packet: evidence.at.number,
            time: rfc3339(evidence.at.time),
            flow,
            leg,
            side: evidence.side,
            shows: evidence.shows.clone(),
        }
    }

    fn links(&self, draft: &Draft) -> Vec<LinkEntry> {
        let Some(flow) = self.findings[draft.shown].subject.flow() else { return Vec::new() };
        self.capture.links_of(flow).take(6).map(link_entry).collect()
    }

    fn representatives(&self, draft: &Draft) -> Vec<FlowRef> {
        let shown = self.findings[draft.shown].subject.flow();
        let linked =
            shown.iter().flat_map(|flow| self.capture.links_of(*flow)).flat_map(|l| [l.client_leg, l.backend_leg]);
        let members = draft.members.iter().filter_map(|i| self.findings[*i].subject.flow());
        let mut flows = Vec::new();
        let evidence = || self.findings[draft.shown].evidence.iter().filter(|_| shown.is_none());
        // What made the claim has a sender; a success before it or after it is cited without one.
        let claim = evidence().filter(|e| e.side.is_some()).filter_map(|e| e.flow);
        let cited = evidence().filter_map(|e| e.flow);
        for id in shown.into_iter().chain(linked).chain(members).chain(claim).chain(cited) {
            if flows.len() < 6 && !flows.contains(&FlowRef::from(id)) {
                flows.push(id.into());
            }
        }
        flows
    }

    fn what_happened(&self, draft: &Draft, links: &[LinkEntry]) -> Vec<String> {
        let finding = &self.findings[draft.shown];
        let mut sentences = finding.notes.clone();
        sentences.extend(links.iter().map(|link| {
            let says = &link.says;
            let [client_leg, backend_leg] = [link.client_leg, link.backend_leg].map(|leg| leg.name(self.files()));
            match link.exchanges.as_slice() {
                _ if link.methods == [LinkMethod::FanOut] => {
                    format!("a request of flow {client_leg} led to flow {backend_leg}: {says}")
                }
                [] => format!("flow {client_leg} and flow {backend_leg} are two legs of one connection: {says}"),
                [[0, backend], ..] => {
                    format!("request {backend} of flow {backend_leg} came in on flow {client_leg}: {says}")
                }
                [[client, 0], ..] => {
                    format!("flow {backend_leg} was opened for request {client} of flow {client_leg}: {says}")
                }
                [[client, backend], rest @ ..] => {
                    let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
                    format!(
                        "request {client} of flow {client_leg} is request {backend} of flow {backend_leg}{more}: {says}"
                    )
                }
            }
        }));
        let own = finding.subject.flow();
        sentences.extend(self.capture.open_links.iter().filter(|open| Some(open.backend_leg) == own).map(|open| {
            let named = open.candidates.iter().take(CANDIDATES);
            let mut legs: Vec<String> = named.map(|flow| FlowRef::from(*flow).name(self.files())).collect();
            if open.candidates.len() > legs.len() {
                legs.push("…".to_owned());
            }
            format!("which client it served is open: {} candidates (flows {})", open.candidates.len(), legs.join(", "))
        }));
        sentences
    }

    /// Says that packets of several inputs are in the order of one clock, where the inputs' clocks differ.
    fn one_clock(&self, evidence: &[EvidenceEntry]) -> Vec<String> {
        let files: BTreeSet<u16> = evidence.iter().filter(|entry| entry.packet > 0).map(|entry| entry.file).collect();
        let shifts: BTreeSet<Elapsed> = files.iter().map(|file| self.faces.ahead(*file)).collect();
        if shifts.len() < 2 {
            return Vec::new();
        }
        let told = files.iter().filter_map(|file| {
            let clock = self.faces.clocks.get(file)?;
            Some(format!("of input {} {}", file + 1, clock.says()))
        });
        let told = told.collect::<Vec<_>>().join("; ");
        vec![format!("the packets are put in the order of one clock, their times stand as recorded: {told}")]
    }

    fn consequences(&self, draft: &Draft) -> Vec<String> {
        let mut by_rule: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
        for i in &draft.consequences {
            by_rule.entry(self.findings[*i].rule.as_ref()).or_insert((0, *i)).0 += 1;
        }
        by_rule
            .into_values()
            .map(|(n, i)| {
                let at = packet(self.findings[i].first(), self.files());
                match n {
                    1 => format!("{} ({at})", self.says(i)),
                    n => format!("{} ({at}, {n} times)", self.says(i)),
                }
            })
            .collect()
    }

    fn not(&self, finding: &Finding, flow: Option<&FlowSummary>, rule: &Rule) -> Vec<NotEntry> {
        let proven = finding.not.iter().map(|not| NotEntry {
            rule: not.what.to_string(),
            because: not.because.clone(),
            evidence: not.evidence.iter().map(|at| PacketEntry { file: at.file, packet: at.number }).collect(),
        });
        let stated = rule.not.iter().filter(|(what, _)| !finding.not.iter().any(|not| not.what == *what));
        let stated = stated.map(|(what, because)| NotEntry {
            rule: (*what).into(),
            because: filled(because, finding, flow, Purpose::Prose, self.files()),
            evidence: Vec::new(),
        });
        proven.chain(stated).collect()
    }

    fn cannot_show(&self, finding: &Finding, flow: Option<&FlowSummary>, rule: &Rule) -> Vec<String> {
        let mut lines: Vec<String> = rule
            .words(finding.variant)
            .cannot_show
            .iter()
            .map(|line| filled(line, finding, flow, Purpose::Prose, self.files()))
            .collect();
        let packets = &self.merged.packets;
        if rule.claims_absence && packets.icmp == 0 {
            // M7: the absence of ICMP proves nothing in a file that holds none at all.
            lines.push("ICMP errors: the capture holds no ICMP at all, a filter may have hidden it".into());
        }
        lines
    }

    /// The line to paste for the next capture, when this one does not prove the case: a bare fact is certain, its reason is not.
    fn capture_next(&self, finding: &Finding, rule: &Rule, extent: &Extent) -> Vec<StepEntry> {
        if finding.confidence == Confidence::Certain && !rule.symptom {
            return Vec::new();
        }
        let hosts: BTreeSet<String> = extent
            .servers
            .iter()
            .map(|server| server.address)
            .chain(extent.senders.iter().copied())
            .chain(extent.hosts.iter().copied())
            .chain(extent.clients.iter().copied())
            .take(6)
            .map(|address| format!("host {address}"))
            .collect();
        if hosts.is_empty() {
            return Vec::new();
        }
        let expression = hosts.into_iter().collect::<Vec<_>>().join(" or ");
        let place = match extent.senders.as_slice() {
            [sender] => format!("on {sender}, the host that connects (it sees both legs if it is a proxy)"),
            _ if extent.servers.is_empty() => format!("on {}", listed(&asker(finding, extent), 2)),
            _ => format!("on {}", listed(&extent.servers.iter().map(|s| s.address).collect::<Vec<_>>(), 2)),
        };
        vec![StepEntry {
            says: format!("{place}, 70 s, meanwhile one request that fails; stop with Ctrl-C once:"),
            command: format!(
                "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -B 16384 -C 200 -W 10 -w \
                 /var/tmp/tcpwhy-$(date -u +%Y%m%dT%H%M%SZ).pcap '{expression} or icmp or icmp6 or arp or port 53'"
            ),
        }]
    }
}

/// The packets of the proof as Wireshark finds them, for each input.
fn display_filters(evidence: &[EvidenceEntry]) -> Vec<DisplayFilter> {
    let mut numbers: BTreeMap<u16, BTreeSet<u64>> = BTreeMap::new();
    for entry in evidence.iter().filter(|entry| entry.packet > 0) {
        numbers.entry(entry.file).or_default().insert(entry.packet);
    }
    let filter = |(file, numbers): (u16, BTreeSet<u64>)| {
        let numbers: Vec<String> = numbers.into_iter().map(|n| n.to_string()).collect();
        DisplayFilter { file, filter: format!("frame.number in {{{}}}", numbers.join(",")) }
    };
    numbers.into_iter().map(filter).collect()
}

fn link_entry(link: &Link) -> LinkEntry {
    let methods: Vec<&str> = link.methods.iter().map(|method| method.says()).collect();
    let certainty = match link.certainty {
        Confidence::Certain => "certain",
        Confidence::High => "high",
        Confidence::Medium => "medium",
        Confidence::Low => "low",
    };
    LinkEntry {
        client_leg: link.client_leg.into(),
        backend_leg: link.backend_leg.into(),
        methods: link.methods.clone(),
        exchanges: link.exchanges.iter().take(8).map(|pair| [pair.client, pair.backend]).collect(),
        says: format!("linked by {} ({certainty})", methods.join(" and by ")),
        certainty: link.certainty,
    }
}

fn steps(steps: &[Step], finding: &Finding, flow: Option<&FlowSummary>, files: usize) -> Vec<StepEntry> {
    steps
        .iter()
        .map(|step| {
            let (says, command) = probe::fitting(step, flow);
            StepEntry {
                says: filled(&says, finding, flow, Purpose::Prose, files),
                command: filled(&command, finding, flow, Purpose::Command, files),
            }
        })
        .collect()
}

fn fixes(rule: &Rule, finding: &Finding, flow: Option<&FlowSummary>, files: usize) -> Vec<FixEntry> {
    rule.fix
        .iter()
        .map(|fix| FixEntry {
            says: filled(fix.says, finding, flow, Purpose::Prose, files),
            command: filled(fix.command, finding, flow, Purpose::Command, files),
            risk: filled(fix.risk, finding, flow, Purpose::Prose, files),
        })
        .collect()
}

/// The first `n` of a list, and how many more there are.
fn listed<T: ToString>(items: &[T], n: usize) -> String {
    let mut text = items.iter().take(n).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > n {
        text.push_str(&format!(" and {} more", items.len() - n));
    }
    text
}

/// Where a finding about hosts was asked from: its `asker`, else the hosts themselves.
fn asker(finding: &Finding, extent: &Extent) -> Vec<Address> {
    match finding.values.get("asker") {
        Some(Value::Address(asker)) => vec![*asker],
        _ => extent.hosts.clone(),
    }
}
