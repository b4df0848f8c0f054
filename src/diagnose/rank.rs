//! Which incident is told first.
//!
//! Critical roots stand in the order of their onset: size would put yesterday's outage before what is broken now. Below that,
//! severity × confidence × log2(1 + flows).

use super::incident::{Draft, Extent};
use crate::rule::finding::{Confidence, Finding, Severity};

/// Sorts drafts with their extents.
pub fn order(drafts: &mut [(Draft, Extent)], findings: &[Finding]) {
    drafts.sort_by(|a, b| {
        let key = |(draft, _): &(Draft, Extent)| severity(draft, findings);
        let (sa, sb) = (key(a), key(b));
        let low = |(draft, _): &(Draft, Extent)| findings[draft.shown].confidence == Confidence::Low;
        sb.cmp(&sa)
            .then(low(a).cmp(&low(b)))
            .then_with(|| match sa {
                Severity::Critical => std::cmp::Ordering::Equal,
                _ => score(b, findings).total_cmp(&score(a, findings)),
            })
            .then(a.1.first.cmp(&b.1.first))
    });
}

/// Highest severity of root and consequences.
pub fn severity(draft: &Draft, findings: &[Finding]) -> Severity {
    let all = draft.members.iter().chain(&draft.consequences);
    all.map(|i| findings[*i].severity).max().unwrap_or(Severity::Warning)
}

fn score((draft, extent): &(Draft, Extent), findings: &[Finding]) -> f64 {
    let severity = match severity(draft, findings) {
        Severity::Critical => 100.0,
        Severity::Warning => 50.0,
        _ => 10.0,
    };
    let confidence = match findings[draft.shown].confidence {
        Confidence::Certain => 1.0,
        Confidence::High => 0.8,
        Confidence::Medium => 0.5,
        Confidence::Low => 0.25,
    };
    severity * confidence * ((1 + extent.flows) as f64).log2()
}
