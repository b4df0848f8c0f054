//! The language rules are written in.
//!
//! A rule is one static ([`Rule`]) in one file of `catalogue/`: what it needs to have seen, a check that returns a [`Finding`], and the
//! words for people. A check sees its own flow only; siblings and what a port speaks come in through `corroborate`.

pub mod digests;
pub mod exchange;
pub mod finding;
pub mod gateway;
pub mod header;
pub mod lookup;
pub mod mismatch;
pub mod mutual;
pub mod offer;
pub mod patience;
pub mod pool;
pub mod summary;
pub mod tally;
#[cfg(test)]
pub mod testing;
pub mod threshold;
pub mod trust;
pub mod value;
pub mod view;

use crate::event::{Kind, KindSet, PacketRef, Side};
use finding::{Confidence, Culprit, Evidence, Finding, Severity, Subject};
use view::{CaptureView, FlowView, LegsView};

/// One diagnosis: facts about it as data, words for people, and the check.
pub struct Rule {
    /// Kebab-case, equal to the file's stem; names the fault.
    pub id: &'static str,
    /// What it is, half a sentence without a full stop.
    pub title: &'static str,
    /// Per flow; grouping may raise it.
    pub severity: Severity,
    /// Before the modifiers.
    pub confidence: Confidence,
    /// Who has to act.
    pub culprit: Culprit,
    /// Where a proxy that has to act ends the flow: the client of its backend leg, or the server of its client leg.
    pub proxy_end: Side,
    /// Kinds that must have been seen for the check to have anything to look at.
    pub needs: Needs,
    /// States a bare fact; any cause of confidence ≥ medium on the same flow or a linked leg explains it.
    pub symptom: bool,
    /// Warns of what will come while everybody is still served: beside a critical incident it is a notice.
    pub foretells: bool,
    /// Claims that something did *not* come: the caveats for one-sided, lossy and cut captures apply.
    pub claims_absence: bool,
    /// Headline: what happens between whom, in plain words. Slots in braces.
    pub says: &'static str,
    /// Other headlines by `Finding::variant` − 1.
    pub variants: &'static [&'static str],
    /// Words on users' screens and in logs, literally.
    pub users_see: &'static [&'static str],
    /// What a variant says in place of these and of the lists below.
    pub words_of: &'static [(u8, Words)],
    /// The question that decides, and the command that answers it. Read-only.
    pub do_first: &'static [Step],
    /// What changes state, with its risk.
    pub fix: &'static [Fix],
    /// One line that shows the fault or its absence without a capture.
    pub verify: &'static [Step],
    /// Look-alikes and what tells them apart, when the finding itself does not rule them out with packets: (rule or words, because).
    pub not: &'static [(&'static str, &'static str)],
    /// What a capture cannot show about it.
    pub cannot_show: &'static [&'static str],
    /// What it explains.
    pub explains: &'static [Explains],
    /// RFC sections, incidents, measurements.
    pub sources: &'static [&'static str],
    /// The check.
    pub check: Check,
    /// Looks at a finding again with the whole capture in view.
    pub corroborate: Option<fn(&mut Finding, &CaptureView<'_>) -> Keep>,
    /// A rule with it is also judged while a flow is open, when somebody has waited for `hang` and for `hang_critical`. What it found then
    /// stays; when the other side speaks after all, this says so on the finding (with the packet).
    pub spoke_late: Option<fn(Finding, PacketRef) -> Finding>,
    /// What shows that it is over.
    pub recovery: Recovery,
}

/// What a rule's file leaves out: `Rule { id: …, ..Rule::BLANK }`.
impl Rule {
    /// Every optional field empty.
    pub const BLANK: Self = Self {
        id: "",
        title: "",
        severity: Severity::Critical,
        confidence: Confidence::High,
        culprit: Culprit::Server,
        proxy_end: Side::Client,
        needs: Needs { all: KindSet::EMPTY, any: KindSet::EMPTY },
        symptom: false,
        foretells: false,
        claims_absence: false,
        says: "",
        variants: &[],
        users_see: &[],
        words_of: &[],
        do_first: &[],
        fix: &[],
        verify: &[],
        not: &[],
        cannot_show: &[],
        explains: &[],
        sources: &[],
        check: Check::Never,
        corroborate: None,
        spoke_late: None,
        recovery: Recovery::Served,
    };

    /// A finding of this rule about the view's flow, made by one packet.
    pub fn found(&self, flow: &FlowView<'_>, at: PacketRef, side: Side, shows: impl Into<String>) -> Finding {
        self.about(Subject::Flow(flow.facts.id), at, Some(side), shows)
    }

    /// A finding of this rule about any subject.
    pub fn about(&self, subject: Subject, at: PacketRef, side: Option<Side>, shows: impl Into<String>) -> Finding {
        Finding {
            rule: self.id.into(),
            subject,
            severity: self.severity,
            confidence: self.confidence,
            culprit: self.culprit,
            values: Default::default(),
            evidence: vec![Evidence { at, flow: None, side, shows: shows.into() }],
            not: Vec::new(),
            notes: Vec::new(),
            ordinal: 0,
            variant: 0,
            reach: None,
        }
    }

    /// The lists of a finding's variant.
    pub fn words(&self, variant: u8) -> Words {
        let own = self.words_of.iter().find(|(of, _)| *of == variant).map_or(Words::NONE, |(_, words)| *words);
        Words {
            users_see: if own.users_see.is_empty() { self.users_see } else { own.users_see },
            do_first: if own.do_first.is_empty() { self.do_first } else { own.do_first },
            verify: if own.verify.is_empty() { self.verify } else { own.verify },
            cannot_show: if own.cannot_show.is_empty() { self.cannot_show } else { own.cannot_show },
        }
    }

    /// The headline template of a finding's variant.
    pub fn headline(&self, variant: u8) -> &'static str {
        match variant {
            0 => self.says,
            n => self.variants.get(usize::from(n) - 1).copied().unwrap_or(self.says),
        }
    }
}

/// What a variant of a rule says in its own way; an empty list stands for the rule's.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// [`Rule::users_see`].
    pub users_see: &'static [&'static str],
    /// [`Rule::do_first`].
    pub do_first: &'static [Step],
    /// [`Rule::verify`].
    pub verify: &'static [Step],
    /// [`Rule::cannot_show`].
    pub cannot_show: &'static [&'static str],
}

impl Words {
    /// Nothing of its own.
    pub const NONE: Self = Self { users_see: &[], do_first: &[], verify: &[], cannot_show: &[] };
}

/// Which kinds of events a check cannot do without.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// All of these.
    pub all: KindSet,
    /// And, when not empty, at least one of these.
    pub any: KindSet,
}

impl Needs {
    /// Every one of `kinds`.
    pub const fn all(kinds: &[Kind]) -> Self {
        Self { all: KindSet::of(kinds), any: KindSet::EMPTY }
    }

    /// At least one of `kinds`.
    pub const fn any(kinds: &[Kind]) -> Self {
        Self { all: KindSet::EMPTY, any: KindSet::of(kinds) }
    }

    /// And at least one of `kinds`.
    pub const fn and_any(mut self, kinds: &[Kind]) -> Self {
        self.any = KindSet::of(kinds);
        self
    }

    /// Whether a flow that saw `seen` is worth a check.
    pub fn met(&self, seen: &KindSet) -> bool {
        seen.contains(&self.all) && (self.any == KindSet::EMPTY || seen.meets(&self.any))
    }
}

/// What a check looks at.
#[derive(Clone, Copy)]
pub enum Check {
    /// One flow, when it closes or the capture ends.
    Flow(fn(&FlowView<'_>) -> Option<Finding>),
    /// Two linked legs.
    Legs(fn(&LegsView<'_>) -> Option<Finding>),
    /// The whole capture.
    Capture(fn(&CaptureView<'_>) -> Vec<Finding>),
    /// Only the blank rule.
    Never,
}

/// What shows, after the last failure, that an incident of a rule is over. The flow must come from the sender that failed, if that is one,
/// and behind a PROXY header where the failures were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// A later flow to the same server that is served; of a warning also the failed flow itself, when it is served in the end.
    #[default]
    Served,
    /// Also one that is only accepted: what was wrong is that nobody accepted.
    Accepted,
    /// As [`Self::Served`], but by the same ClientHello's offer, whoever sends it: who offers something else was never refused.
    SameOffer,
    /// Only the failed flow itself: it asked for one name, and that others resolve or are served says nothing of this one.
    SameFlow,
    /// Only a later flow: that the failed one got an answer is no success, the answer is what is wrong, or nobody took it.
    LaterFlow,
}

/// Whether a finding survives a second look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As it now is.
    Yes,
    /// It was no such thing.
    Drop,
}

/// A question and the command that answers it. The command stands alone on its line, works in sh, and holds no "…".
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is asked, or what to expect.
    pub says: &'static str,
    /// The command; empty when there is none.
    pub command: &'static str,
}

/// A remedy that changes state.
#[derive(Clone, Copy, Debug)]
pub struct Fix {
    /// What it does.
    pub says: &'static str,
    /// The command or setting.
    pub command: &'static str,
    /// What can go wrong.
    pub risk: &'static str,
}

/// One edge: the rule that carries it explains `effect` where `scope` holds.
#[derive(Clone, Copy, Debug)]
pub struct Explains(pub &'static str, pub Scope);

/// Where an edge holds. Two scopes of one effect are two edges. A cause with a [`finding::Reach`] explains what that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On one flow.
    Same,
    /// On a linked leg.
    Link,
    /// On one flow or a linked leg.
    SameOrLink,
    /// On one server ip:port.
    Peer,
    /// On one server ip:port within the grouping time.
    PeerTime,
    /// Within the grouping time, anywhere.
    Time,
    /// One client's flows.
    Source,
    /// Beyond one next hop: a host the cause reaches.
    Hop,
    /// Beyond one next hop within the grouping time.
    HopTime,
    /// One server name (SNI, host or DNS name).
    Name,
    /// One server name within the grouping time.
    NameTime,
    /// One server name at one server ip:port.
    PeerName,
    /// One server address, any port.
    ServerAddress,
    /// One host's flows within the grouping time, at either end.
    Host,
    /// The flow whose packets the cause cites (matched by sequence numbers).
    Sequence,
}
