//! What a rule returns: a claim with the packets that prove it.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::value::{Value, Values};
use crate::event::{PacketRef, Side};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// A rule's id as findings carry it.
pub type RuleId = Cow<'static, str>;

/// The order of two ids. Where thousands of findings of one rule are sorted in, it is the same static, and its letters need no look.
pub fn rule_order(a: &RuleId, b: &RuleId) -> Ordering {
    if std::ptr::eq::<str>(&**a, &**b) { Ordering::Equal } else { a.cmp(b) }
}

/// How bad it is for the users of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// In the JSON and under `-v` only.
    Silent,
    /// Worth knowing; never an incident.
    Notice,
    /// Users are served badly.
    Warning,
    /// Users are not served.
    Critical,
}

/// How sure the claim is. Earned by the rules of the catalogue, never by tone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A possibility.
    Low,
    /// More likely than not.
    Medium,
    /// Hardly anything else fits.
    High,
    /// The octets prove it.
    Certain,
}

impl Confidence {
    /// One level up; `High` is the end unless octets prove it.
    pub fn raised(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium | Self::High => Self::High,
            Self::Certain => Self::Certain,
        }
    }

    /// One level down.
    pub fn lowered(self) -> Self {
        match self {
            Self::Certain => Self::High,
            Self::High => Self::Medium,
            Self::Medium | Self::Low => Self::Low,
        }
    }

    /// The word for it, capitalised, as a sentence of its own.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Low => "Low confidence.",
            Self::Medium => "Medium confidence.",
            Self::High => "High confidence.",
            Self::Certain => "Certain.",
        }
    }
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Culprit {
    /// The side that asked.
    Client,
    /// The side that was asked.
    Server,
    /// A proxy between them.
    Proxy,
    /// The service behind a proxy.
    Upstream,
    /// The path.
    Network,
    /// Name resolution.
    Dns,
    /// A setting on which both sides disagree.
    Config,
    /// The capture itself.
    Capture,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// One flow, by its number.
    Flow(PacketRef),
    /// The n-th exchange of a flow.
    Exchange(PacketRef, u32),
    /// Two linked legs: client leg, backend leg.
    Legs(PacketRef, PacketRef),
    /// A host or a server port, by an ordinal.
    Host(u32),
    /// The capture as a whole.
    Capture,
}

impl Subject {
    /// The flow it is about; of two legs the backend leg, where the cause sits.
    pub fn flow(&self) -> Option<PacketRef> {
        match *self {
            Self::Flow(id) | Self::Exchange(id, _) | Self::Legs(_, id) => Some(id),
            Self::Host(_) | Self::Capture => None,
        }
    }
}

/// One packet that proves a part of the claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The packet.
    pub at: PacketRef,
    /// The flow it belongs to, when it is not the finding's own.
    pub flow: Option<PacketRef>,
    /// Who sent it.
    pub side: Option<Side>,
    /// What it shows, a short phrase: `FIN 1.3 ms later: 0 octets, no alert`. Text from packets in it is raw.
    pub shows: String,
}

/// Another diagnosis that was ruled out, and by what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Not {
    /// The rule that does not hold, or words for what is no rule (`network`).
    pub what: Cow<'static, str>,
    /// What rules it out.
    pub because: String,
    /// The packets that do.
    pub evidence: Vec<PacketRef>,
}

/// A claim of one rule about one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule.
    pub rule: RuleId,
    /// About what.
    pub subject: Subject,
    /// How bad: the rule's, unless the check knows better.
    pub severity: Severity,
    /// How sure: the rule's base, then as the modifiers earned it.
    pub confidence: Confidence,
    /// Who has to act.
    pub culprit: Culprit,
    /// Slots of the rule's templates.
    pub values: Values,
    /// Never empty; the first one is the packet that made the claim.
    pub evidence: Vec<Evidence>,
    /// What was ruled out.
    pub not: Vec<Not>,
    /// Sentences that qualify the claim (a modifier's reason, a sub-cause, a possible deeper cause).
    pub notes: Vec<String>,
    /// Which event of that kind in the flow: part of the finding's id.
    pub ordinal: u32,
    /// A variant of the rule's texts: index into `Rule::variants`; 0 = the rule's own.
    pub variant: u8,
    /// Whom else and when it concerns; `None` = its own flow only.
    pub reach: Option<Box<Reach>>,
}

/// Value that names whom a finding's flow waited for beside its own ends: an ip:port, an address, or a flow by its first packet.
pub const WAITED_FOR: &str = "absent";

/// Numbers findings about hosts in the order of their first packets, which redaction leaves as it is; that of addresses it does not.
pub fn in_order_of_time(found: &mut [Finding]) {
    found.sort_by_key(Finding::first);
    for (number, finding) in (0..).zip(found) {
        finding.subject = Subject::Host(number);
    }
}

/// Whom and when a finding concerns that speaks for more than one flow: what its edges can explain, how far its incident reaches, and how it
/// stands. An empty list sets no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reach {
    /// Server ends.
    pub servers: Vec<Endpoint>,
    /// Hosts, at either end of a flow.
    pub hosts: Vec<Address>,
    /// Hosts that asked.
    pub sources: Vec<Address>,
    /// Server name (SNI, host, DNS name), lower case.
    pub name: Option<String>,
    /// When: from, until.
    pub spans: Vec<(Timestamp, Timestamp)>,
    /// Flows hit.
    pub flows: u64,
    /// Of how many.
    pub of: u64,
    /// Client addresses hit.
    pub clients: u64,
    /// The first of them, where they are not the sources.
    pub users: Vec<Address>,
    /// All hosts that connected in vain, where they are few; behind a proxy others are hit as well.
    pub askers: Vec<Address>,
    /// Last success before.
    pub last_good: Option<PacketRef>,
    /// How it stands at the end.
    pub standing: Standing,
}

/// How something stands when the capture ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Nobody tried again.
    #[default]
    Unknown,
    /// The last attempt failed.
    GoesOn,
    /// The first success after it.
    Over(PacketRef),
}

impl Reach {
    /// Whether a time overlaps one of the spans, give or take `slack`. No span = any time.
    pub fn during(&self, from: Timestamp, until: Timestamp, slack: Elapsed) -> bool {
        self.spans.is_empty() || self.spans.iter().any(|(a, b)| *a - slack <= until && from <= *b + slack)
    }

    /// Whether a flow between these ends is concerned.
    pub fn holds(&self, client: &Endpoint, server: &Endpoint) -> bool {
        (self.servers.is_empty() || self.servers.contains(server))
            && (self.hosts.is_empty() || self.hosts.contains(&client.address) || self.hosts.contains(&server.address))
            && (self.sources.is_empty() || self.sources.contains(&client.address))
    }

    /// Whether everything another reach concerns is concerned by this one too.
    pub fn includes(&self, other: &Self) -> bool {
        let hosts = |address: &Address| self.hosts.contains(address);
        let by_host = self.hosts.is_empty()
            || !other.hosts.is_empty() && other.hosts.iter().all(hosts)
            || !other.sources.is_empty() && other.sources.iter().all(hosts)
            || !other.askers.is_empty() && other.askers.iter().all(hosts)
            || !other.servers.is_empty() && other.servers.iter().all(|server| hosts(&server.address));
        let by_server = self.servers.is_empty()
            || !other.servers.is_empty() && other.servers.iter().all(|server| self.servers.contains(server));
        let by_source = self.sources.is_empty()
            || !other.sources.is_empty() && other.sources.iter().all(|source| self.sources.contains(source));
        by_host && by_server && by_source
    }
}

impl Finding {
    /// Gives back the room for more: it is complete.
    pub(super) fn settle(&mut self) {
        self.values.settle();
        self.evidence.shrink_to_fit();
        self.not.shrink_to_fit();
        self.notes.shrink_to_fit();
    }

    /// Adds a packet that proves a part of the claim; what it shows joins what the same packet already shows.
    pub fn and(mut self, at: PacketRef, side: Side, shows: impl Into<String>) -> Self {
        let shows = shows.into();
        match self.evidence.iter_mut().find(|known| known.at == at && known.flow.is_none()) {
            Some(known) => {
                known.shows.push_str("; ");
                known.shows.push_str(&shows);
            }
            None => self.evidence.push(Evidence { at, flow: None, side: Some(side), shows }),
        }
        self
    }

    /// Adds a packet if there is one.
    pub fn and_maybe(self, at: Option<PacketRef>, side: Side, shows: impl Into<String>) -> Self {
        match at {
            Some(at) => self.and(at, side, shows),
            None => self,
        }
    }

    /// Adds a packet of another flow that proves a part of the claim: it stands among the proof, and is no control.
    pub fn and_on(mut self, flow: Option<PacketRef>, at: PacketRef, side: Side, shows: impl Into<String>) -> Self {
        self.evidence.push(Evidence { at, flow, side: Some(side), shows: shows.into() });
        self
    }

    /// Adds a packet of another flow, or one whose sender does not matter.
    pub fn cites(mut self, at: PacketRef, flow: Option<PacketRef>, shows: impl Into<String>) -> Self {
        self.evidence.push(Evidence { at, flow, side: None, shows: shows.into() });
        self
    }

    /// Fills a slot.
    pub fn with(mut self, slot: &'static str, value: impl Into<Value>) -> Self {
        self.values.set(slot, value.into());
        self
    }

    /// Sets the severity.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Sets the confidence.
    pub fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// Sets who has to act.
    pub fn culprit(mut self, culprit: Culprit) -> Self {
        self.culprit = culprit;
        self
    }

    /// Rules something out.
    pub fn rules_out(
        mut self,
        what: impl Into<Cow<'static, str>>,
        because: impl Into<String>,
        evidence: &[PacketRef],
    ) -> Self {
        self.not.push(Not { what: what.into(), because: because.into(), evidence: evidence.to_vec() });
        self
    }

    /// Adds a qualifying sentence.
    pub fn note(mut self, sentence: impl Into<String>) -> Self {
        self.notes.push(sentence.into());
        self
    }

    /// Chooses another headline of the rule.
    pub fn variant(mut self, variant: u8) -> Self {
        self.variant = variant;
        self
    }

    /// Names the flow of the packet that made the claim, when the finding itself is about more than a flow.
    pub fn on_flow(mut self, flow: PacketRef) -> Self {
        if let Some(first) = self.evidence.first_mut() {
            first.flow = Some(flow);
        }
        self
    }

    /// Says whom and when it concerns.
    pub fn reaches(mut self, reach: Reach) -> Self {
        self.reach = Some(Box::new(reach));
        self
    }

    /// First packet of the event itself: packets of other flows (a control, the other leg) do not date it, nor what went well on its own
    /// flow before, where the check says what did not (slot `onset`).
    pub fn first(&self) -> PacketRef {
        match self.values.get("onset") {
            Some(Value::Frame(at)) => *at,
            _ => self.own().min().unwrap_or(self.evidence_at()),
        }
    }

    /// Last packet of the event itself.
    pub fn last(&self) -> PacketRef {
        self.own().max().unwrap_or(self.evidence_at())
    }

    /// The packet that ended what the finding tells, when its check knows one (slot `over`): an answer that came late, a window that opened.
    pub fn over(&self) -> Option<PacketRef> {
        match self.values.get("over") {
            Some(Value::Frame(at)) => Some(*at),
            _ => None,
        }
    }

    /// Until when it was still so, when no packet says it (slot `until`): somebody waits, and the capture ends.
    pub fn until(&self) -> Option<Timestamp> {
        match self.values.get("until") {
            Some(Value::Time(until)) => Some(*until),
            _ => None,
        }
    }

    fn own(&self) -> impl Iterator<Item = PacketRef> {
        let only_others = self.evidence.iter().all(|e| e.flow.is_some());
        self.evidence
            .iter()
            .filter(move |e| only_others || e.flow.is_none() || e.flow == self.subject.flow())
            .map(|e| e.at)
    }

    fn evidence_at(&self) -> PacketRef {
        match self.subject.flow() {
            Some(id) => id,
            None => PacketRef { file: 0, number: 0, time: crate::time::Timestamp(0) },
        }
    }
}
