//! The report's own words for a reader who has not seen tcpwhy before.

use crate::diagnose::report::{EvidenceEntry, Incident, Leg, State};
use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Severity};
use crate::rule::summary::Verdict;
use crate::rule::view::LinkMethod;

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Notice => "notice",
        Severity::Silent => "silent",
    }
}

pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
        Confidence::Certain => "certain",
    }
}

/// What a confidence means.
pub(super) fn how_sure(confidence: Confidence) -> [&'static str; 2] {
    match confidence {
        Confidence::Low => ["Low confidence", "a possibility"],
        Confidence::Medium => ["Medium confidence", "more likely than not"],
        Confidence::High => ["High confidence", "hardly anything else fits"],
        Confidence::Certain => ["Certain", "the octets prove it"],
    }
}

pub(super) fn state(state: State) -> [&'static str; 2] {
    match state {
        State::StillFailing => ["Still failing", "no success of this kind after the last failure"],
        State::Over => ["Over", "a success came after the last failure"],
        State::Unknown => ["Unknown", "no attempt after the last failure, or the capture ended too early"],
    }
}

/// Who has to act, and what that means.
pub(super) fn culprit(role: Culprit) -> [&'static str; 2] {
    match role {
        Culprit::Client => ["Client", "the side that asked"],
        Culprit::Server => ["Server", "the side that was asked"],
        Culprit::Proxy => ["Proxy", "the proxy between them"],
        Culprit::Upstream => ["Upstream", "the service behind the proxy"],
        Culprit::Network => ["Network", "the path between them"],
        Culprit::Dns => ["Name resolution", "the DNS, or who asked it"],
        Culprit::Config => ["Configuration", "a setting on which two sides disagree"],
        Culprit::Capture => ["The capture itself", "how it was taken"],
    }
}

pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Failed => "failed",
        Verdict::Degraded => "degraded",
        Verdict::Undecided => "undecided",
        Verdict::Healthy => "healthy",
    }
}

/// Who sent a packet of the proof; of a backend leg the client is the one between.
pub(super) fn sender(incident: &Incident, evidence: &EvidenceEntry) -> &'static str {
    let asked = incident.links.iter().any(|link| link.methods == [LinkMethod::FanOut]);
    match (evidence.leg, evidence.side) {
        (_, None) => "",
        (None, Some(Side::Client)) | (Some(Leg::Client), Some(Side::Client)) => "client",
        (None, Some(Side::Server)) => "server",
        (Some(Leg::Client), Some(Side::Server)) | (Some(Leg::Backend), Some(Side::Client)) if asked => "server",
        (Some(Leg::Client), Some(Side::Server)) | (Some(Leg::Backend), Some(Side::Client)) => "proxy",
        (Some(Leg::Backend), Some(Side::Server)) if asked => "asked in turn",
        (Some(Leg::Backend), Some(Side::Server)) => "upstream",
    }
}

pub(super) fn leg(leg: Option<Leg>) -> &'static str {
    match leg {
        Some(Leg::Client) => "client leg",
        Some(Leg::Backend) => "backend leg",
        None => "",
    }
}
