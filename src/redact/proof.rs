//! The proof: what was redacted is diagnosed again, and the same must be found.

use std::collections::BTreeMap;

use crate::diagnose::report::Report;
use crate::error::{Error, ErrorKind, Result};
use crate::run::Diagnosis;

/// Findings told in an error.
const TOLD: usize = 12;

/// What was found, by id: rule and how often.
type Found = BTreeMap<(String, String), usize>;

/// Diagnoses both and compares them as [`same`] does.
///
/// # Errors
/// When they differ, with the findings that do; when one cannot be read.
pub(super) fn same_findings(before: &[String], after: &[String]) -> Result<usize> {
    let report = |inputs: &[String]| Diagnosis::new().open(inputs)?.run();
    same(&report(before)?, &report(after)?)
}

/// Compares what was found: every finding by its id, those about the capture too, and the rules of the incidents. How many there are.
///
/// # Errors
/// When they differ, with the findings that do.
pub fn same(before: &Report, after: &Report) -> Result<usize> {
    let differences = differences(before, after);
    if differences.is_empty() {
        return Ok(before.findings.len() + before.trust.len());
    }
    let more = differences.len().saturating_sub(TOLD);
    let told: Vec<String> = differences.into_iter().take(TOLD).collect();
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("the redacted capture is diagnosed otherwise, nothing was written: {}{rest}", told.join("; ")),
    ))
}

/// What only one of two reports found, in words.
pub fn differences(before: &Report, after: &Report) -> Vec<String> {
    let (one, other) = (found(before), found(after));
    let count = |found: &Found, key: &(String, String)| found.get(key).copied().unwrap_or(0);
    let mut told = Vec::new();
    for (key @ (rule, id), n) in &one {
        if count(&other, key) < *n {
            told.push(format!("lost {rule} {id}"));
        }
    }
    for (key @ (rule, id), n) in &other {
        if count(&one, key) < *n {
            told.push(format!("new {rule} {id}"));
        }
    }
    told
}

fn found(report: &Report) -> Found {
    let findings = report.findings.iter().chain(&report.trust).map(|one| (one.rule.clone(), one.id.clone()));
    let mut found = Found::new();
    for key in findings {
        *found.entry(key).or_default() += 1;
    }
    // Which of several equal findings an incident is named after may depend on the order of addresses.
    found.extend(report.incidents.iter().map(|one| ((format!("incident {}", one.rule), String::new()), 1)));
    found
}
