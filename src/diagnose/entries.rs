//! The lists of a report: findings, flows and inputs, a line each.

use std::collections::{BTreeMap, BTreeSet};

use super::build::Builder;
use super::explain;
use super::format::{self, Purpose, packet, rfc3339};
use super::id::community_id;
use super::report::*;
use crate::capture::CaptureInfo;
use crate::event::PacketRef;
use crate::rule::finding::{Confidence, Severity};
use crate::rule::summary::{FlowSummary, Verdict};

impl Builder<'_> {
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
                .map(|(name, value)| (name.to_owned(), format::written(value, Purpose::Whole, self.files())))
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
            let of = of.map(|id| {
                let open = self.capture.open_link(id);
                let fits = open.is_some_and(|open| open.candidates.binary_search(&flow.facts.id).is_ok());
                let or = if fits { " or one like it" } else { "" };
                format!(" what happened on flow {}{or}", FlowRef::from(id).name(self.files()))
            });
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
        stored: info.stored,
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
