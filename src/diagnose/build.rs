//! Assembles the report from incidents, findings and flows.

use std::collections::{BTreeMap, BTreeSet};

use super::cause::Causes;
use super::explain;
use super::faces::Faces;
use super::format::{self, Purpose, filled, packet, rfc3339};
use super::id::{community_id, finding_id};
use super::incident::{Draft, Extent};
use super::report::*;
use super::{Merged, Settings, probe, rank, shared};
use crate::capture::CaptureInfo;
use crate::catalogue;
use crate::event::PacketRef;
use crate::host::known;
use crate::rule::finding::{Confidence, Culprit, Evidence, Finding, Severity};
use crate::rule::summary::{FlowSummary, Verdict};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, Link, LinkMethod};
use crate::rule::{Rule, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::Address;

/// Everything the parts of the report are made from.
pub(super) struct Builder<'a> {
    pub merged: &'a Merged,
    pub settings: &'a Settings,
    pub capture: &'a CaptureView<'a>,
    pub findings: &'a [Finding],
    pub causes: &'a Causes,
    pub faces: &'a Faces,
    pub ids: Vec<String>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        merged: &'a Merged,
        settings: &'a Settings,
        capture: &'a CaptureView<'a>,
        findings: &'a [Finding],
        causes: &'a Causes,
        faces: &'a Faces,
    ) -> Self {
        let ids = findings.iter().map(|f| finding_id(f, capture.flow_of(f))).collect();
        Self { merged, settings, capture, findings, causes, faces, ids }
    }

    fn rule(&self, i: usize) -> &'static Rule {
        catalogue::rule(&self.findings[i].rule).unwrap_or(&catalogue::UNKNOWN)
    }

    fn flow(&self, i: usize) -> Option<&'a FlowSummary> {
        self.capture.flow_of(&self.findings[i])
    }

    fn files(&self) -> usize {
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
            headline: self.headline(shown, extent),
            scope_line: self.scope_line(extent, finding.confidence),
            what_happened: [self.what_happened(draft, &links), self.names(extent), self.one_clock(&evidence)].concat(),
            scope: self.scope(extent),
            display_filters: display_filters(&evidence),
            evidence,
            misleads: self.misleads(extent),
            control: self.control(draft, extent),
            do_first: steps(rule.do_first, finding, flow, self.files()),
            fix: fixes(rule, finding, flow, self.files()),
            verify: steps(rule.verify, finding, flow, self.files()),
            users_see: rule.users_see.iter().map(|text| (*text).to_owned()).collect(),
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
    fn headline(&self, shown: usize, extent: &Extent) -> String {
        let finding = &self.findings[shown];
        let template = self.rule(shown).headline(finding.variant);
        let mut headline = finding.clone();
        if extent.servers.len() > 1 {
            // The verb that follows stays in the singular.
            let each = if template.starts_with("{server} ") { "each of " } else { "" };
            headline.values.set("server", format!("{each}{}", listed(&extent.servers, 3)).into());
        }
        filled(template, &headline, self.flow(shown), Purpose::Prose, self.files())
    }

    fn scope_line(&self, extent: &Extent, confidence: Confidence) -> String {
        let zone = &self.settings.zone;
        let mut line = String::new();
        if extent.flows > 0 {
            line.push_str(&format!("{} of {}", extent.flows, format::count(extent.of, "flow")));
            match extent.clients.as_slice() {
                [one] if extent.client_count == 1 => line.push_str(&format!(", client {one}")),
                _ => line.push_str(&format!(", {}", format::count(extent.client_count, "client"))),
            }
            line.push_str(", ");
        }
        let span = extent.last.time.since(extent.first.time);
        let first = format::clock(extent.first.time, zone);
        if span < crate::time::Elapsed::secs(1) {
            line.push_str(&format!("at {first}. "));
        } else {
            line.push_str(&format!("since {first}. "));
        }
        line.push_str(&match (extent.state, extent.recovered) {
            (State::Over, Some(at)) => format!("Over since {}.", format::clock(at.time, zone)),
            (State::Over, None) => "Over.".into(),
            (State::StillFailing, _) => "STILL FAILING.".into(),
            (State::Unknown, _) => "Whether it goes on is unknown.".into(),
        });
        line.push(' ');
        line.push_str(confidence.sentence());
        line
    }

    fn scope(&self, extent: &Extent) -> IncidentScope {
        let worked_before = extent.last_good.is_some();
        IncidentScope {
            flows: extent.flows,
            of: extent.of,
            servers: extent.servers.iter().take(16).map(ToString::to_string).collect(),
            clients: extent.clients.iter().take(16).map(ToString::to_string).collect(),
            client_count: extent.client_count,
            first: rfc3339(extent.first.time),
            last: rfc3339(extent.last.time),
            last_good: extent.last_good.map(|at| rfc3339(at.time)),
            first_bad: worked_before.then(|| rfc3339(extent.first.time)),
        }
    }

    fn culprit(&self, finding: &Finding, flow: Option<&FlowSummary>, rule: &Rule) -> CulpritEntry {
        let address = flow.and_then(|flow| match finding.culprit {
            Culprit::Client | Culprit::Proxy => Some(flow.facts.client.address),
            Culprit::Server | Culprit::Upstream => Some(flow.facts.server.address),
            _ => None,
        });
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

    fn evidence_entry(&self, evidence: &Evidence, finding: &Finding, links: &[LinkEntry]) -> EvidenceEntry {
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
            let legs: Vec<String> =
                open.candidates.iter().map(|flow| FlowRef::from(*flow).name(self.files())).collect();
            format!("which client it served is open: {} candidates (flows {})", legs.len(), legs.join(", "))
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

    /// Which names the DNS in the capture gave to the hosts, with the packet that says so, and what addresses mean by themselves.
    fn names(&self, extent: &Extent) -> Vec<String> {
        let servers = extent.servers.iter().map(|server| server.address);
        let hosts: BTreeSet<_> = servers.chain(extent.senders.iter().copied()).take(8).collect();
        let named = hosts.iter().filter_map(|host| {
            let (name, lease) = self.capture.names.name_of(*host, extent.first.time)?;
            let kind = known::name(name).map_or_else(String::new, |kind| format!(", {kind}"));
            Some(format!("{host} is {name}{kind}, as the DNS says in {}", packet(lease.first, self.files())))
        });
        let mut lines: Vec<String> = named.take(4).collect();
        let all: BTreeSet<_> = hosts.iter().chain(extent.clients.iter().take(64)).copied().collect();
        let known = all.iter().filter_map(|host| Some(format!("{host} is {}", known::address(*host)?)));
        lines.extend(known.take(4));
        lines
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

    /// What is healthy beside it: other ports of the same host that the same sender reaches.
    fn misleads(&self, extent: &Extent) -> Vec<String> {
        let mut lines = Vec::new();
        let hosts: BTreeSet<_> = extent.servers.iter().map(|server| server.address).collect();
        for host in hosts {
            for (end, service) in self.capture.services.of_host(host).filter(|(end, _)| !extent.servers.contains(end)) {
                let of_sender: u64 = extent.senders.iter().filter_map(|sender| service.clients.get(sender)).sum();
                if service.good == service.flows && service.good > 0 && of_sender > 0 {
                    lines.push(match service.flows {
                        1 => format!("the only flow to {end} is fine: that port is not the one that fails"),
                        n => format!(
                            "{} of {n} flows to {end} are fine: that port is not the one that fails",
                            service.good
                        ),
                    });
                }
            }
        }
        lines.truncate(4);
        lines
    }

    /// The same servers where it works.
    fn control(&self, draft: &Draft, extent: &Extent) -> Vec<String> {
        let mut lines: Vec<String> = shared::sentence(draft, self.findings, self.capture).into_iter().collect();
        for server in &extent.servers {
            let Some(service) = self.capture.service(server) else { continue };
            let (Some(first), good @ 1..) = (service.first_good, service.good) else { continue };
            let spoken: Vec<String> = service
                .plain
                .keys()
                .map(|protocol| protocol.name().to_owned())
                .chain(service.behind_proxy.keys().map(|protocol| format!("{} behind a PROXY header", protocol.name())))
                .collect();
            let spoken = if spoken.is_empty() { "data".to_owned() } else { spoken.join(", ") };
            let example = packet(first, self.files());
            lines
                .push(format!("{} to {server} worked ({spoken}); the first is {example}", format::count(good, "flow")));
        }
        lines.truncate(4);
        lines
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
        let mut lines: Vec<String> =
            rule.cannot_show.iter().map(|line| filled(line, finding, flow, Purpose::Prose, self.files())).collect();
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

    /// Findings that `wanted` accepts, equal ones folded into one entry.
    pub(super) fn entries(&self, wanted: impl Fn(usize) -> bool) -> Vec<FindingEntry> {
        type Key<'k> = (&'k str, Option<crate::wire::Endpoint>, Severity, Confidence, Option<&'k str>);
        let mut leaders: Vec<(Key<'_>, FindingEntry)> = Vec::new();
        let mut by_key: BTreeMap<Key<'_>, usize> = BTreeMap::new();
        for (i, finding) in self.findings.iter().enumerate().filter(|(i, _)| wanted(*i)) {
            let cause = self.causes.explained_by[i];
            let key: Key<'_> = (
                finding.rule.as_ref(),
                self.flow(i).map(|flow| flow.facts.server),
                finding.severity,
                finding.confidence,
                cause.map(|c| self.findings[c].rule.as_ref()),
            );
            match by_key.get(&key) {
                Some(leader) => leaders[*leader].1.count += 1,
                None => {
                    by_key.insert(key, leaders.len());
                    leaders.push((key, self.finding_entry(i, cause)));
                }
            }
        }
        leaders.into_iter().map(|(_, entry)| entry).collect()
    }

    fn finding_entry(&self, i: usize, cause: Option<usize>) -> FindingEntry {
        let finding = &self.findings[i];
        FindingEntry {
            id: self.ids[i].clone(),
            rule: finding.rule.to_string(),
            subject: match finding.subject {
                crate::rule::finding::Subject::Flow(_) => "flow",
                crate::rule::finding::Subject::Exchange(..) => "exchange",
                crate::rule::finding::Subject::Legs(..) => "legs",
                crate::rule::finding::Subject::Host(_) => "host",
                crate::rule::finding::Subject::Capture => "capture",
            }
            .into(),
            flow: finding.subject.flow().map(FlowRef::from),
            severity: finding.severity,
            confidence: finding.confidence,
            says: self.says(i),
            explained_by: cause.map(|c| self.ids[c].clone()),
            count: 1,
            values: finding
                .values
                .iter()
                .map(|(name, value)| (name.to_owned(), format::written(value, Purpose::Prose, self.files())))
                .collect(),
            notes: finding.notes.clone(),
            evidence: finding.evidence.iter().map(|e| self.evidence_entry(e, finding, &[])).collect(),
        }
    }

    /// The verdict of a kept flow by the findings as they now stand.
    pub(super) fn verdict(&self, flow: &FlowSummary, on_flow: &[usize]) -> Verdict {
        let worst = on_flow.iter().map(|i| self.findings[*i].severity).max();
        match worst {
            Some(Severity::Critical) => Verdict::Failed,
            Some(Severity::Warning) => Verdict::Degraded,
            _ => {
                let reason = explain::undecided(&flow.facts, &flow.story, self.merged.end(), &self.settings.thresholds);
                if reason.is_some() { Verdict::Undecided } else { Verdict::Healthy }
            }
        }
    }

    /// One flow's line.
    pub(super) fn flow_entry(&self, flow: &FlowSummary, on_flow: &[usize]) -> FlowEntry {
        let verdict = self.verdict(flow, on_flow);
        let mut entry = flow_entry(flow, verdict, self.explanation(flow, on_flow));
        entry.findings = on_flow.iter().map(|i| self.ids[*i].clone()).collect();
        entry
    }

    /// The other faces of a flow, in words.
    pub(super) fn faces(&self, entry: &FlowEntry) -> Vec<String> {
        let here = |id: &&PacketRef| FlowRef::from(**id) == entry.key();
        let Some((id, others)) = self.faces.others.iter().find(|(id, _)| here(id)) else { return Vec::new() };
        let Some(flow) = self.merged.flows.get(id) else { return Vec::new() };
        others.iter().map(|face| face.says(&flow.facts, self.files())).collect()
    }

    fn explanation(&self, flow: &FlowSummary, on_flow: &[usize]) -> String {
        let told = on_flow.iter().copied().filter(|i| self.findings[*i].severity >= Severity::Warning);
        // The cause on this flow first; a symptom is told by what explains it.
        let Some(main) = told.min_by_key(|i| (self.causes.explained_by[*i].is_some(), *i)) else {
            let now = self.merged.end();
            return match explain::undecided(&flow.facts, &flow.story, now, &self.settings.thresholds) {
                Some(reason) => format!("Not judged: {reason}."),
                None => format!("{}.", explain::healthy(&flow.facts, &flow.story)),
            };
        };
        let finding = &self.findings[main];
        let packets: Vec<String> = finding.evidence.iter().take(4).map(|e| packet(e.at, self.files())).collect();
        let mut text = format!("{} ({}).", self.says(main), packets.join(" "));
        let root = self.causes.root(main);
        if root != main {
            let of = self.findings[root].subject.flow().filter(|id| *id != flow.facts.id);
            let of = of.map(|id| format!(" what happened on flow {}", FlowRef::from(id).name(self.files())));
            let of = of.unwrap_or(" this".into());
            text.push_str(&format!(" It follows from{of}: {}.", self.says(root)));
        }
        text
    }
}

/// A flow's line from its own facts.
pub fn flow_entry(flow: &FlowSummary, verdict: Verdict, explanation: String) -> FlowEntry {
    let facts = &flow.facts;
    FlowEntry {
        id: facts.id.number,
        file: facts.id.file,
        community_id: community_id(facts),
        transport: match facts.transport {
            crate::flow::facts::IpProtocol::Tcp => "tcp".into(),
            crate::flow::facts::IpProtocol::Udp => "udp".into(),
        },
        client: facts.client.to_string(),
        server: facts.server.to_string(),
        faces: Vec::new(),
        protocols: explain::protocols(&flow.story),
        verdict,
        explanation,
        findings: Vec::new(),
        start: rfc3339(facts.id.time),
        end: rfc3339(facts.last.time),
        packets: facts.from_client.packets + facts.from_server.packets,
        octets: [facts.from_client.payload, facts.from_server.payload],
        rtt_ns: facts.rtt_server.zip(facts.rtt_client).map(|(a, b)| (a + b).0),
        handshake: match facts.handshake {
            crate::flow::facts::Handshake::None => "none",
            crate::flow::facts::Handshake::Syn => "syn",
            crate::flow::facts::Handshake::SynAck => "synack",
            crate::flow::facts::Handshake::Full => "full",
        }
        .into(),
        close: explain::close_word(facts),
    }
}

/// One input as the report shows it.
pub(super) fn capture_entry(info: &CaptureInfo) -> Capture {
    let links: BTreeSet<&str> = info.interfaces.iter().map(|interface| interface.link.name()).collect();
    Capture {
        file: info.file.clone(),
        label: info.label.clone(),
        format: info.format.clone(),
        sha256: info.sha256.clone(),
        link_types: links.into_iter().map(str::to_owned).collect(),
        interfaces: info.interfaces.iter().map(|i| i.name.clone()).filter(|name| !name.is_empty()).collect(),
        packets: info.packets,
        octets: info.octets,
        first: info.first.map(rfc3339),
        last: info.last.map(rfc3339),
        damaged: (!info.damage.is_empty()).then(|| {
            info.damage
                .iter()
                .take(32)
                .map(|damage| DamageEntry {
                    after_packet: damage.after_packet,
                    offset: damage.offset,
                    what: damage.what.clone(),
                    resumed_after: damage.resumed_after,
                })
                .collect()
        }),
        packets_after_damage: info
            .damage
            .first()
            .map_or(0, |damage| info.packets - damage.after_packet.min(info.packets)),
        clock: None,
        together_with: Vec::new(),
        kernel_drops: info.drops,
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
