//! The report: plain serialisable data, schema `tcpwhy.report/1`. What every output format prints.
//!
//! Texts from packets inside it are raw; each printer makes them harmless for its own sink.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::{PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Severity};
use crate::rule::summary::Verdict;
use crate::rule::view::LinkMethod;

/// The schema's name.
pub const SCHEMA: &str = "tcpwhy.report/1";

/// What one run found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Who wrote it.
    pub tool: Tool,
    /// The inputs.
    pub captures: Vec<Capture>,
    /// Capture-quality findings: how far to trust the rest.
    pub trust: Vec<FindingEntry>,
    /// Counts that add up.
    pub counts: Counts,
    /// Root causes, worst first.
    pub incidents: Vec<Incident>,
    /// Equal findings once, with their count.
    pub findings: Vec<FindingEntry>,
    /// Flows that are cited; with `--all-flows` every flow.
    pub flows: Vec<FlowEntry>,
    /// What could not be judged, in sentences; never empty when `counts.flows.undecided` > 0.
    pub not_judged: Vec<String>,
}

/// Name and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// `tcpwhy`
    pub name: String,
    /// Semantic version.
    pub version: String,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capture {
    /// As given.
    pub file: String,
    /// Label of `name=path`.
    pub label: Option<String>,
    /// File format.
    pub format: String,
    /// SHA-256 of the input as stored, with `--hash` only.
    pub sha256: Option<String>,
    /// Octets of the input as stored, with `--hash` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<u64>,
    /// Link types by name.
    pub link_types: Vec<String>,
    /// Interface names, where the file has them.
    pub interfaces: Vec<String>,
    /// Packet records.
    pub packets: u64,
    /// Octets on the wire.
    pub octets: u64,
    /// RFC 3339, nanoseconds.
    pub first: Option<String>,
    /// Latest packet.
    pub last: Option<String>,
    /// Broken places of the file.
    pub damaged: Option<Vec<DamageEntry>>,
    /// Of `packets`, those read after the first broken place: they may lack what the damage took.
    pub packets_after_damage: u64,
    /// How far its clock is from that of an earlier input, when both hold the same connections.
    pub clock: Option<ClockEntry>,
    /// Other inputs, by index, that hold the other direction of the same connections: interfaces of one host, read as one capture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together_with: Vec<u16>,
    /// Drops the capturing kernel reported; `null` = the file does not say.
    pub kernel_drops: Option<u64>,
}

/// How an input's clock differs from another one's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockEntry {
    /// Index of the other input in `captures`.
    pub of: u16,
    /// How far this one is ahead, in nanoseconds; negative: behind.
    pub ahead_ns: i64,
    /// The median of so many connections that are in both.
    pub connections: u64,
    /// Words for it.
    pub says: String,
}

/// One broken place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DamageEntry {
    /// Last packet before it.
    pub after_packet: u64,
    /// Octet offset in the uncompressed input.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// Octets passed over; `null` when the rest could not be read.
    pub resumed_after: Option<u64>,
}

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Packets by what they were; `read` is the sum of the others.
    pub packets: BTreeMap<String, u64>,
    /// Flows by verdict.
    pub flows: FlowCounts,
}

/// Flows by verdict.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlowCounts {
    /// All.
    pub total: u64,
    /// Notice, silent or nothing found.
    pub healthy: u64,
    /// A warning.
    pub degraded: u64,
    /// A critical finding.
    pub failed: u64,
    /// No judgement possible.
    pub undecided: u64,
}

/// Whether it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The last attempt failed, or still waits.
    StillFailing,
    /// A success came after the last failure.
    Over,
    /// No attempt after the last failure, or the capture ended too early.
    Unknown,
}

/// One root cause with everything that belongs to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Id of the earliest finding of the root.
    pub id: String,
    /// Root rule.
    pub rule: String,
    /// The rule's title.
    pub title: String,
    /// Highest of its members.
    pub severity: Severity,
    /// Of the root.
    pub confidence: Confidence,
    /// Who has to act.
    pub culprit: CulpritEntry,
    /// Whether it goes on.
    pub state: State,
    /// First success after the last failure.
    pub recovered_at: Option<String>,
    /// What happens between whom, in plain words.
    pub headline: String,
    /// How many, who, since when: one line.
    pub scope_line: String,
    /// The long form: sentences.
    pub what_happened: Vec<String>,
    /// Extent.
    pub scope: IncidentScope,
    /// The packets that prove it, in time order.
    pub evidence: Vec<EvidenceEntry>,
    /// What is healthy beside it and misleads, or serves as control.
    pub misleads: Vec<String>,
    /// The same where it works.
    pub control: Vec<String>,
    /// What to look at first.
    pub do_first: Vec<StepEntry>,
    /// What changes state.
    pub fix: Vec<FixEntry>,
    /// How to see the fault without a capture.
    pub verify: Vec<StepEntry>,
    /// Words on screens and in logs.
    pub users_see: Vec<String>,
    /// What was ruled out.
    pub not: Vec<NotEntry>,
    /// What this capture cannot show.
    pub cannot_show: Vec<String>,
    /// What to capture next, when not certain: commands to paste with where and how long.
    pub capture_next: Vec<StepEntry>,
    /// Weaker causes that may lie behind.
    pub possible_deeper_causes: Vec<String>,
    /// Findings it explains (ids).
    pub explains: Vec<String>,
    /// The same for people: "closed without answer on 14 client legs".
    pub consequences: Vec<String>,
    /// Representative flows, at most six.
    pub flows: Vec<FlowRef>,
    /// Links between legs of these flows.
    pub links: Vec<LinkEntry>,
    /// Wireshark display filters for the evidence, one for each input that holds some of it.
    pub display_filters: Vec<DisplayFilter>,
}

/// Which flow: numbers of packets are those of one input, so the input belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct FlowRef {
    /// Index of the input in `captures`.
    pub file: u16,
    /// Number of the flow's first packet in that input.
    pub id: u64,
}

impl From<PacketRef> for FlowRef {
    fn from(id: PacketRef) -> Self {
        Self { file: id.file, id: id.number }
    }
}

impl FlowRef {
    /// `14`; of several inputs the second's `2#14`.
    pub fn name(self, files: usize) -> String {
        if files > 1 { format!("{}#{}", self.file + 1, self.id) } else { self.id.to_string() }
    }
}

/// A display filter and the input it is meant for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DisplayFilter {
    /// Index of the input in `captures`.
    pub file: u16,
    /// `frame.number in {…}`
    pub filter: String,
}

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PacketEntry {
    /// Index of the input in `captures`.
    pub file: u16,
    /// Frame number in that file.
    pub packet: u64,
}

/// Who has to act and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CulpritEntry {
    /// The role.
    pub role: Culprit,
    /// The host, where there is one.
    pub address: Option<String>,
    /// Why.
    pub why: String,
}

/// Extent of an incident.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentScope {
    /// Flows hit by the root.
    pub flows: u64,
    /// Of how many to the same servers.
    pub of: u64,
    /// Server ends, bounded to 16.
    pub servers: Vec<String>,
    /// Client addresses (original clients where a link or header tells them), bounded to 16.
    pub clients: Vec<String>,
    /// How many client addresses.
    pub client_count: u64,
    /// First failure.
    pub first: String,
    /// Last failure.
    pub last: String,
    /// Last success before the first failure.
    pub last_good: Option<String>,
    /// First failure after it, when there was a success.
    pub first_bad: Option<String>,
}

/// One packet of the proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvidenceEntry {
    /// Index of the input in `captures`.
    pub file: u16,
    /// Frame number in that file.
    pub packet: u64,
    /// RFC 3339, nanoseconds.
    pub time: String,
    /// The flow it belongs to.
    pub flow: Option<FlowRef>,
    /// Which leg it belongs to: `client` or `backend` where two legs are linked.
    pub leg: Option<Leg>,
    /// Who sent it.
    pub side: Option<Side>,
    /// What it shows.
    pub shows: String,
}

/// Which leg of a proxied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Leg {
    /// Client to proxy.
    Client,
    /// Proxy to upstream.
    Backend,
}

/// A question and its command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepEntry {
    /// The question, or what to expect.
    pub says: String,
    /// Ready to paste; empty when there is none.
    pub command: String,
}

/// A remedy that changes state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FixEntry {
    /// What it does.
    pub says: String,
    /// Command or setting.
    pub command: String,
    /// What can go wrong.
    pub risk: String,
}

/// A diagnosis that was ruled out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotEntry {
    /// Rule id, or words.
    pub rule: String,
    /// By what.
    pub because: String,
    /// Packets that rule it out.
    pub evidence: Vec<PacketEntry>,
}

/// Two legs of one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LinkEntry {
    /// The flow from the client.
    pub client_leg: FlowRef,
    /// The flow to the backend.
    pub backend_leg: FlowRef,
    /// Every method that joins them.
    pub methods: Vec<LinkMethod>,
    /// Which request of the client leg is which of the backend leg, from 1 (0: the connection failed before it carried one); at most 8.
    /// Empty: the flows are legs as wholes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanges: Vec<[u32; 2]>,
    /// Words for it: `linked by ClientHello random (certain)`.
    pub says: String,
    /// Of the best method.
    pub certainty: Confidence,
}

/// A finding, or several equal ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FindingEntry {
    /// 12 hex digits; equal for the same event in live, offline and redacted runs.
    pub id: String,
    /// Rule.
    pub rule: String,
    /// `flow`, `exchange`, `legs`, `host` or `capture`.
    pub subject: String,
    /// The flow it is about.
    pub flow: Option<FlowRef>,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// Headline of this finding.
    pub says: String,
    /// Id of the finding that explains it; `null` for roots.
    pub explained_by: Option<String>,
    /// Equal findings folded into this one.
    pub count: u64,
    /// Typed values of the headline's slots, as text.
    pub values: BTreeMap<String, String>,
    /// Qualifying sentences.
    pub notes: Vec<String>,
    /// The packets that prove it.
    pub evidence: Vec<EvidenceEntry>,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FlowEntry {
    /// Number of its first packet.
    pub id: u64,
    /// Index of the input in `captures`.
    pub file: u16,
    /// Community ID v1 (seed 0).
    pub community_id: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// Client end.
    pub client: String,
    /// Server end.
    pub server: String,
    /// Where else the same packets are in the capture: before or after address translation, or in another input.
    pub faces: Vec<String>,
    /// Recognised, in order.
    pub protocols: Vec<Protocol>,
    /// Judgement.
    pub verdict: Verdict,
    /// One sentence to one short paragraph.
    pub explanation: String,
    /// Finding ids.
    pub findings: Vec<String>,
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// Packets of both sides.
    pub packets: u64,
    /// Payload octets: from client, from server.
    pub octets: [u64; 2],
    /// Handshake round trip.
    pub rtt_ns: Option<i64>,
    /// How much of the handshake was seen: `none`, `syn`, `synack`, `full`.
    pub handshake: String,
    /// How it ended: `open`, `fin`, `half-closed by client`, `reset by server (abort)`, …
    pub close: String,
}

impl FlowEntry {
    /// What others call it by.
    pub fn key(&self) -> FlowRef {
        FlowRef { file: self.file, id: self.id }
    }
}
