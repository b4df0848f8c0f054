//! What one shard keeps of its flows: story and dissector while they live; findings, lessons and a digest when they close.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::kept::{Failing, Kept, Place};
use super::prefix::Prefix;
use super::progress::Progress;
use super::tally::{count, mark};
use super::vigil::{Interim, Vigils, Watched};
use crate::catalogue::{self, FlowRule};
use crate::diagnose::{Merged, explain, flow_entry};
use crate::event::cold::{Freezer, Thawer};
use crate::event::story::Story;
use crate::event::{Event, Kind, KindSet, PacketRef, Side, What};
use crate::flow::facts::FlowFacts;
use crate::flow::table::FlowTable;
use crate::flow::{Distance, Ended, FlowHead, Sink, Wants};
use crate::host::grid::{Grid, Seconds};
use crate::host::icmp::StrayErrors;
use crate::host::names::Names;
use crate::host::service::Learner;
use crate::protocol::Dissector;
use crate::rule::finding::{Finding, Severity};
use crate::rule::summary::{Digest, FlowSummary, Verdict};
use crate::rule::tally::{Beyond, Tally};
use crate::rule::threshold::Thresholds;
use crate::rule::view::FlowView;
use crate::time::Timestamp;
use crate::wire::Endpoint;
use crate::wire::icmp::IcmpError;

/// What is kept per live flow.
#[derive(Default)]
pub struct Conversation {
    story: Story,
    dissector: Dissector,
    prefix: Prefix,
    /// The vigils hold it.
    watched: bool,
    /// What was found while it was open.
    interim: Option<Box<Interim>>,
}

impl Conversation {
    /// Something was found while it is open.
    fn found(&self) -> bool {
        self.interim.is_some()
    }

    /// What counts when it ends, without what reads on.
    fn copy(&self) -> Self {
        let Self { story, prefix, interim, .. } = self;
        Self { story: story.clone(), prefix: prefix.clone(), interim: interim.clone(), ..Self::default() }
    }
}

/// What of the flows is recorded.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The numbers of the rules.
    pub thresholds: Thresholds,
    /// A line for every flow.
    pub all_flows: bool,
    /// Flows between these ends are kept whole.
    pub keep: Option<(Endpoint, Endpoint)>,
    /// Told of flows that failed or were served badly.
    pub progress: Option<Arc<Progress>>,
}

/// The receiving end of a shard's flow table.
pub struct Recorder {
    recording: Recording,
    kept: BTreeMap<PacketRef, FlowSummary>,
    healthy: usize,
    /// The latest flows without a finding, behind the first [`HEALTHY_FIRST`].
    latest: VecDeque<FlowSummary>,
    places: Kept,
    digests: VecDeque<Digest>,
    services: Learner,
    names: Names,
    icmp: StrayErrors,
    seconds: Seconds,
    tally: Tally,
    lines: Vec<crate::diagnose::report::FlowEntry>,
    vigils: Vigils,
    asked: Asked,
    /// Stories of flows that were not kept: the next flows write into their memory.
    spare: Vec<Story>,
    /// The same of their facts. They go where they were read last, and not through all of the allocator's memory.
    #[allow(clippy::vec_box, reason = "the boxes are what is used again")]
    spare_facts: Vec<Box<FlowFacts>>,
}

/// Flows without a finding kept whole per shard, because they may be the other leg of a failure: the first, as the picture of how it was
/// while it worked, and the latest, for what fails long after. A small capture is kept whole.
const HEALTHY_FIRST: usize = 128;
const HEALTHY_LATEST: usize = 64;
/// Stories whose memory is at hand, per shard, and facts.
const SPARE: usize = 128;
const SPARE_FACTS: usize = 8;
/// Digests kept per shard inside the window.
const DIGESTS: usize = 16_384;
/// Where there are so many digests, room is made for all that are kept.
const MANY: usize = DIGESTS / 16;

impl Recorder {
    /// An empty one.
    pub fn new(recording: Recording) -> Self {
        Self {
            recording,
            kept: BTreeMap::new(),
            healthy: 0,
            latest: VecDeque::new(),
            places: Kept::default(),
            digests: VecDeque::new(),
            services: Learner::default(),
            names: Names::default(),
            icmp: StrayErrors::default(),
            seconds: Seconds::default(),
            tally: Tally::default(),
            lines: Vec::new(),
            vigils: Vigils::default(),
            asked: Asked::default(),
            spare: Vec::new(),
            spare_facts: Vec::new(),
        }
    }

    /// The first second at which an open flow is due.
    pub fn first_due(&self) -> Option<i64> {
        self.vigils.first()
    }

    /// Open flows on which somebody may wait for too long by now.
    pub fn due(&mut self, now: Timestamp) -> Vec<Watched> {
        self.vigils.due(now)
    }

    /// Judges a flow that is still open, once for each threshold its wait passes; what is found stays, even if the answer comes later.
    pub fn judge_open(&mut self, facts: &FlowFacts, head: &FlowHead, conversation: &mut Conversation, now: Timestamp) {
        let Conversation { story, dissector, watched, interim, .. } = conversation;
        dissector.settle(&mut |event| story.push(event));
        let thresholds = &self.recording.thresholds;
        let view = FlowView::new(facts, story, now, Ended::NotYet, thresholds);
        let Some(since) = view.unanswered() else {
            *watched = false;
            return;
        };
        let wait = now.since(since.time);
        let passed = u8::from(wait >= thresholds.hang) + u8::from(wait >= thresholds.hang_critical);
        let judged = interim.as_ref().and_then(|interim| interim.judged).filter(|(known, _)| *known == since);
        if passed > judged.map_or(0, |(_, passed)| passed) {
            let interim = interim.get_or_insert_default();
            interim.judged = Some((since, passed));
            let late = worth_asking(view.story.seen()).filter(|rule| rule.rule.spoke_late.is_some());
            for finding in check_flow(&view, late) {
                interim.add(finding);
            }
        }
        let next = match passed {
            0 => since.time + thresholds.hang,
            1 => since.time + thresholds.hang_critical,
            _ => now + thresholds.hang_critical,
        };
        *watched = self.vigils.set(next, Watched { flow: head.id, ends: (head.client, head.server) });
    }

    /// Forgets digests that left the window.
    pub fn tick(&mut self, now: Timestamp) {
        let horizon = now - self.recording.thresholds.window;
        while self.digests.front().is_some_and(|digest| digest.last < horizon) {
            self.digests.pop_front();
        }
    }

    /// What it knows, apart from the flows that are still open: as it would go on from here.
    fn copy(&self) -> Self {
        Self {
            recording: Recording { progress: None, ..self.recording.clone() },
            kept: self.kept.clone(),
            healthy: self.healthy,
            latest: self.latest.clone(),
            places: self.places.clone(),
            digests: self.digests.clone(),
            services: self.services.clone(),
            names: self.names.clone(),
            icmp: self.icmp.clone(),
            seconds: self.seconds.clone(),
            tally: self.tally.clone(),
            lines: self.lines.clone(),
            vigils: Vigils::default(),
            asked: Asked::default(),
            spare: Vec::new(),
            spare_facts: Vec::new(),
        }
    }

    /// What it would know if the capture ended now. Of the open flows only those count that have something to tell; with `all` every one.
    pub fn peek(&self, tables: &[FlowTable<Self>], all: bool, now: Timestamp) -> (Merged, VecDeque<Digest>) {
        let mut copy = self.copy();
        for table in tables {
            table.telling(all, Conversation::found, |facts, conversation, closed| {
                let why = if closed { Ended::Closed } else { Ended::CaptureEnd };
                copy.closed(Box::new(facts), conversation.copy(), why, now);
            });
        }
        copy.finish()
    }

    /// Everything it knows; the digests apart, because one map of all shards' digests is built much faster than many are merged.
    pub fn finish(mut self) -> (Merged, VecDeque<Digest>) {
        self.kept.extend(self.latest.into_iter().map(|summary| (summary.facts.id, summary)));
        let merged = Merged {
            flows: self.kept,
            services: self.services.finish(),
            names: self.names,
            icmp: self.icmp,
            grid: Grid { seconds: self.seconds, ..Grid::default() },
            tally: self.tally,
            lines: self.lines,
            ..Merged::default()
        };
        (merged, self.digests)
    }

    fn keep(&mut self, mut summary: FlowSummary) {
        let told = worst(&summary.findings).map(|finding| finding.rule.clone());
        let (server, id, last) = (summary.facts.server, summary.facts.id, summary.facts.last.time);
        match self.places.place(Failing { rule: told.unwrap_or_default(), server }, id, last) {
            Place::Kept => {}
            Place::Instead(victim) => {
                if let Some(victim) = self.kept.remove(&victim) {
                    self.beyond(victim);
                }
            }
            Place::None => return self.beyond(summary),
        }
        summary.settle();
        self.kept.insert(id, summary);
    }

    /// There is no room for it: it is counted by its worst finding.
    fn beyond(&mut self, summary: FlowSummary) {
        if let Some(rule) = worst(&summary.findings).map(|finding| finding.rule.clone()) {
            *self.tally.beyond_cap.entry(rule.clone()).or_default() += 1;
            let facts = &summary.facts;
            let (server, id, clients) = (facts.server, facts.id, vec![facts.client.address]);
            let beyond = Beyond { rule, server, flows: 1, first: id, last: id, clients };
            self.tally.add_beyond(&beyond, Beyond::CAP);
        }
        self.leave(summary);
    }

    /// Kept whole: the first for good, the latest until as many came after them.
    fn keep_healthy(&mut self, mut summary: FlowSummary) {
        if self.healthy < HEALTHY_FIRST {
            self.healthy += 1;
            summary.settle();
            self.kept.insert(summary.facts.id, summary);
            return;
        }
        if self.latest.len() == HEALTHY_LATEST
            && let Some(oldest) = self.latest.pop_front()
        {
            self.leave(oldest);
            // The one after the next: what is given back must be read, and was not for long.
            self.latest.get(1).into_iter().for_each(FlowSummary::approach);
        }
        self.latest.push_back(summary);
    }

    /// An ICMP error that quotes no flow of the table.
    pub fn stray(&mut self, at: PacketRef, error: &IcmpError) {
        self.icmp.learn(at, error.from, error);
    }

    /// Only the digest stays.
    fn leave(&mut self, summary: FlowSummary) {
        match summary.digest.verdict {
            Verdict::Healthy => self.tally.dropped_healthy += 1,
            Verdict::Undecided => self.tally.dropped_undecided += 1,
            Verdict::Degraded => self.tally.dropped_degraded += 1,
            Verdict::Failed => self.tally.dropped_failed += 1,
        }
        if self.recording.all_flows {
            let text = explain::healthy(&summary.facts, &summary.story);
            self.lines.push(flow_entry(&summary, summary.digest.verdict, format!("{text}.")));
        }
        match self.digests.len() {
            // Grown step by step, many of them would be moved again and again.
            MANY => self.digests.reserve_exact(DIGESTS - MANY),
            DIGESTS => drop(self.digests.pop_front()),
            _ => {}
        }
        self.digests.push_back(summary.digest);
        if self.spare.len() < SPARE {
            self.spare.push(summary.story.renewed());
        }
        if self.spare_facts.len() < SPARE_FACTS {
            self.spare_facts.push(summary.facts);
        }
    }
}

/// The flow rules worth asking about a flow, by what was seen on it: thousands of flows see the same.
#[derive(Default)]
struct Asked(HashMap<KindSet, Vec<&'static FlowRule>, foldhash::fast::RandomState>);

impl Asked {
    /// Kinds of flows remembered.
    const MOST: usize = 1024;

    fn about(&mut self, seen: KindSet) -> &[&'static FlowRule] {
        if self.0.len() >= Self::MOST && !self.0.contains_key(&seen) {
            self.0.clear();
        }
        self.0.entry(seen).or_insert_with(|| worth_asking(&seen).collect())
    }
}

fn worth_asking(seen: &KindSet) -> impl Iterator<Item = &'static FlowRule> {
    catalogue::FLOW_RULES.iter().filter(|rule| rule.needs.met(seen))
}

/// What rules say of a flow.
fn check_flow<'a>(view: &FlowView<'_>, rules: impl Iterator<Item = &'a FlowRule>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in rules {
        // No `extend`: it copies the room of a finding also where there is none.
        if let Some(finding) = (rule.check)(view) {
            findings.push(finding);
        }
    }
    findings
}

/// The worst finding of a flow; of several the one that no other explains.
fn worst(findings: &[Finding]) -> Option<&Finding> {
    let explained = |finding: &Finding| {
        let rules = findings.iter().filter_map(|other| catalogue::rule(&other.rule));
        rules.flat_map(|rule| rule.explains).any(|edge| edge.0 == finding.rule)
    };
    findings.iter().max_by_key(|finding| (finding.severity, !explained(finding)))
}

/// The other side speaks after all: whoever said on a tick that it was silent says so.
fn spoke(interim: &mut Interim, at: PacketRef) {
    let over = interim.over;
    for finding in interim.findings.iter_mut().skip(over) {
        if let Some(amend) = catalogue::rule(&finding.rule).and_then(|rule| rule.spoke_late) {
            *finding = amend(finding.clone(), at);
        }
    }
    interim.over = interim.findings.len();
}

impl Sink for Recorder {
    type Conversation = Conversation;

    fn weight(conversation: &Conversation) -> usize {
        conversation.story.weight() + conversation.dissector.weight()
    }

    fn freeze(conversation: &Conversation, into: &mut Freezer) -> bool {
        let Conversation { story, dissector, prefix, watched, interim } = conversation;
        into.put(&(story, prefix, watched, interim)).is_ok() && dissector.freeze(into)
    }

    fn tells(conversation: &Conversation) -> bool {
        conversation.found()
    }

    fn thaw(from: &mut Thawer) -> Option<Conversation> {
        let (story, prefix, watched, interim) = from.take()?;
        Some(Conversation { story, prefix, watched, interim, dissector: Dissector::thaw(from)? })
    }

    fn approach(&mut self, server: Endpoint, distance: Distance) {
        self.services.approach(server, distance);
    }

    fn spare_facts(&mut self) -> Option<Box<FlowFacts>> {
        self.spare_facts.pop()
    }

    fn open(&mut self, _flow: &FlowHead) -> Conversation {
        Conversation { story: self.spare.pop().unwrap_or_default(), ..Conversation::default() }
    }

    fn event(&mut self, _flow: &FlowHead, conversation: &mut Conversation, event: Event) {
        conversation.story.push(event);
    }

    fn bytes(
        &mut self,
        flow: &FlowHead,
        conversation: &mut Conversation,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
    ) -> Wants {
        match side {
            Side::Client if !conversation.watched => {
                let (due, ends) = (at.time + self.recording.thresholds.hang, (flow.client, flow.server));
                conversation.watched = self.vigils.set(due, Watched { flow: flow.id, ends });
            }
            Side::Client => {}
            Side::Server => conversation.interim.iter_mut().for_each(|interim| spoke(interim, at)),
        }
        let Conversation { story, dissector, prefix, .. } = conversation;
        if side == Side::Client {
            prefix.push(bytes);
        }
        let wants = dissector.bytes(flow, side, at, bytes, &mut |event| story.push(event));
        // Where the segments end must not decide how many octets the prefix has.
        let wants = if wants == Wants::Nothing && side == Side::Client && prefix.open() { Wants::More } else { wants };
        flip_if_wanted(wants, story)
    }

    fn gap(&mut self, flow: &FlowHead, conversation: &mut Conversation, side: Side, _at: PacketRef, missing: u64) {
        if side == Side::Client {
            conversation.prefix.gap();
        }
        conversation.dissector.gap(flow, side, missing);
    }

    fn datagram(
        &mut self,
        flow: &FlowHead,
        conversation: &mut Conversation,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
        len: u32,
    ) -> Wants {
        let Conversation { story, dissector, .. } = conversation;
        let wants = dissector.datagram(flow, side, at, bytes, len, &mut |event| story.push(event));
        // As a rule it is over with that, and what it says is learnt.
        if let Some(What::Dns(message)) = story.events().next_back().map(|event| &event.what) {
            self.names.approach(message);
        }
        flip_if_wanted(wants, story)
    }

    fn end(&mut self, flow: &FlowHead, conversation: &mut Conversation, side: Side, at: PacketRef) {
        let Conversation { story, dissector, .. } = conversation;
        dissector.end(flow, side, at, &mut |event| story.push(event));
    }

    fn closed(&mut self, facts: Box<FlowFacts>, conversation: Conversation, why: Ended, now: Timestamp) {
        let prefix = if facts.mid_stream { 0 } else { conversation.prefix.key() };
        let story = conversation.story;
        let view = FlowView::new(&facts, &story, now, why, &self.recording.thresholds);
        let rules = self.asked.about(*story.seen());
        let mut findings = check_flow(&view, rules.iter().copied());
        if let Some(interim) = conversation.interim {
            interim.join(&mut findings);
        }
        let undecided = explain::undecided(&facts, &story, now, &self.recording.thresholds).is_some();
        let verdict = match findings.iter().map(|f| f.severity).max() {
            Some(Severity::Critical) => Verdict::Failed,
            Some(Severity::Warning) => Verdict::Degraded,
            _ if undecided => Verdict::Undecided,
            _ => Verdict::Healthy,
        };
        if let Some(progress) = &self.recording.progress {
            progress.closed(verdict);
        }
        let digest = Digest::of(&facts, &story, verdict).with_prefix(prefix);
        count(&mut self.tally, &facts, &story, &view);
        mark(&mut self.seconds, &facts, &story);
        self.services.learn(&explain::lesson(&facts, &story, verdict));
        if story.seen().has(Kind::Dns) {
            for event in story.events() {
                if let What::Dns(message) = &event.what {
                    self.names.learn(event.at, message, facts.client.address);
                }
            }
        }
        let summary = FlowSummary { facts, story, findings, digest };
        if self.recording.keeps(&summary.facts) {
            self.kept.insert(summary.facts.id, summary);
        } else if summary.findings.is_empty() && !undecided {
            self.keep_healthy(summary);
        } else {
            self.keep(summary);
        }
    }
}

impl Recording {
    fn keeps(&self, facts: &FlowFacts) -> bool {
        let pair = (facts.client, facts.server);
        self.keep.is_some_and(|(a, b)| pair == (a, b) || pair == (b, a))
    }
}

fn flip_if_wanted(wants: Wants, story: &mut Story) -> Wants {
    if wants == Wants::Flip {
        story.flip();
    }
    wants
}

#[cfg(test)]
mod tests {
    use super::super::kept::KEPT_ALIKE;
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;

    #[test]
    fn of_many_healthy_flows_the_first_and_the_latest_are_kept_whole() {
        let recording = Recording { thresholds: Thresholds::default(), all_flows: false, keep: None, progress: None };
        let mut recorder = Recorder::new(recording);
        let many = (HEALTHY_FIRST + 3 * HEALTHY_LATEST) as u64;
        for number in 1..=many {
            let scene = Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, number as i64).handshake();
            recorder.keep_healthy(scene.summary());
        }
        let (merged, digests) = recorder.finish();
        let kept: Vec<u64> = merged.flows.keys().map(|id| id.number).collect();
        let (first, latest) = kept.split_at(HEALTHY_FIRST);
        assert_eq!((first[0], first.last()), (1, Some(&(HEALTHY_FIRST as u64))));
        assert_eq!((latest.len(), latest.last()), (HEALTHY_LATEST, Some(&many)));
        assert_eq!((merged.tally.dropped_healthy, digests.len()), (2 * HEALTHY_LATEST as u64, 2 * HEALTHY_LATEST));
        // What stays for good keeps no room for more; a copy has none.
        let full = |flow: &FlowSummary| flow.story.weight() == flow.story.clone().weight();
        assert!(merged.flows.values().take(HEALTHY_FIRST).all(full));
    }

    #[test]
    fn failures_beyond_the_cap_are_counted_as_failures() {
        let recording = Recording { thresholds: Thresholds::default(), all_flows: false, keep: None, progress: None };
        let mut recorder = Recorder::new(recording);
        for number in 1..=KEPT_ALIKE as u64 + 3 {
            let scene = Scene::starting("10.0.0.1:40000", "10.0.0.2:80", number, number as i64);
            let summary = scene.syn(0).rst(Side::Server, 1, ResetKind::Refused, 0).summary();
            let conversation = Conversation { story: summary.story, ..Conversation::default() };
            recorder.closed(summary.facts, conversation, Ended::Closed, Timestamp::MAX);
        }
        let (merged, digests) = recorder.finish();
        assert_eq!((merged.flows.len(), merged.tally.dropped_failed), (KEPT_ALIKE, 3));
        assert_eq!((merged.tally.dropped_healthy, digests.len()), (0, 3));
        assert_eq!(merged.tally.beyond_cap.values().sum::<u64>(), 3);
        let full = |flow: &FlowSummary| flow.findings.capacity() == flow.findings.len();
        assert!(merged.flows.values().all(full));
    }
}
