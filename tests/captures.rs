//! One named test per capture: its text report equals the file beside it, rules fire where they must and stay silent where they must
//! not, every cited packet exists, and the JSON keeps its schema.

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use tcpwhy::render::{Style, json, text};
use tcpwhy::{Report, Severity};

fn main() {
    let arguments = Arguments::from_args();
    let folder = support::root().join("captures");
    let schema: &'static jsonschema::Validator = Box::leak(Box::new(
        jsonschema::validator_for(&serde_json::from_str(&json::schema()).expect("the schema is JSON"))
            .expect("the schema is a schema"),
    ));
    let mut trials = Vec::new();
    for path in support::captures_below(&folder) {
        let name = path.strip_prefix(&folder).expect("below captures/").to_string_lossy().into_owned();
        trials.push(Trial::test(name.clone(), move || one(&path, &name, schema)));
    }
    // What the report of an incident's captures has to say, beside the text that it happens to have.
    let incidents = std::fs::read_dir(folder.join("incidents")).expect("captures/incidents");
    for path in incidents.flatten().map(|entry| entry.path().join("expect.toml")).filter(|path| path.is_file()) {
        let name = path.strip_prefix(&folder).expect("below captures/").to_string_lossy().into_owned();
        trials.push(Trial::test(name, move || expectations(&path)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

/// Every expectation of the file is met.
fn expectations(path: &Path) -> Result<(), Failed> {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tcpwhy")).arg("expect").arg(path).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned().into()),
    }
}

fn one(path: &Path, name: &str, schema: &jsonschema::Validator) -> Result<(), Failed> {
    let report = match support::try_report(path) {
        Ok(report) => report,
        // What cannot be read is refused with one clear line.
        Err(error) if name.starts_with("broken/") => {
            return Ok(support::check_file(&path.with_extension("txt"), &format!("error: {error}\n"))?);
        }
        Err(error) => return Err(error.to_string().into()),
    };
    marks(name, &report)?;
    whole(&report)?;
    shape(&report, schema)?;
    let text = text::report(&report, Style::default());
    support::check_file(&path.with_extension("txt"), &text)?;
    Ok(())
}

/// What the path promises.
fn marks(name: &str, report: &Report) -> Result<(), Failed> {
    let has = |rule: &str| support::findings(report).any(|finding| finding.rule == rule);
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("rules"), Some(rule), Some(case)) if case.starts_with("not-") => {
            // A notice with the rule's id says "seen, and no fault"; anything louder is a false alarm.
            let loud = support::findings(report).any(|f| f.rule == rule && f.severity > Severity::Notice);
            let meant_as_notice = tcpwhy::catalogue::rule(rule).is_some_and(|rule| rule.severity <= Severity::Notice);
            if loud || meant_as_notice && has(rule) {
                return Err(format!("{rule} fires on its look-alike").into());
            }
        }
        (Some("rules"), Some(rule), Some(_)) if !has(rule) => {
            return Err(format!("{rule} does not fire on its own capture").into());
        }
        (Some("healthy"), Some(_), _) => {
            let loud: Vec<&str> = support::findings(report)
                .filter(|finding| finding.severity > Severity::Notice)
                .map(|finding| finding.rule.as_str())
                .collect();
            if !loud.is_empty() {
                return Err(format!("healthy traffic, but: {}", loud.join(", ")).into());
            }
        }
        _ => {}
    }
    Ok(())
}

/// Counts add up, evidence is real, no slot is left unfilled.
fn whole(report: &Report) -> Result<(), Failed> {
    let packets = &report.counts.packets;
    let parts: u64 = packets.iter().filter(|(kind, _)| *kind != "read").map(|(_, n)| n).sum();
    if packets["read"] != parts {
        return Err(format!("{} packets were read, {parts} are accounted for", packets["read"]).into());
    }
    let flows = &report.counts.flows;
    if flows.total != flows.healthy + flows.degraded + flows.failed + flows.undecided {
        return Err(format!("flows do not add up: {flows:?}").into());
    }
    for finding in support::findings(report) {
        if finding.evidence.is_empty() {
            return Err(format!("{} has no evidence", finding.rule).into());
        }
        for evidence in &finding.evidence {
            let read = report.captures.get(usize::from(evidence.file)).map_or(0, |capture| capture.packets);
            let exists = evidence.packet >= 1 && evidence.packet <= read;
            if !exists && finding.rule != "capture-has-nothing" && finding.rule != "capture-file-damaged" {
                return Err(format!("{} cites packet {} of {read}", finding.rule, evidence.packet).into());
            }
        }
    }
    let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
    if let Some(slot) = unfilled(&json) {
        return Err(format!("a slot is left unfilled: {slot}").into());
    }
    let ids: BTreeSet<&str> = report.findings.iter().map(|finding| finding.id.as_str()).collect();
    for incident in &report.incidents {
        if incident.severity <= Severity::Notice {
            return Err(format!("{} is a notice and no incident", incident.rule).into());
        }
        if !ids.contains(incident.id.as_str()) && report.findings.iter().all(|f| f.rule != incident.rule) {
            return Err(format!("incident {} has no finding", incident.rule).into());
        }
    }
    Ok(())
}

/// `{word}` that is no shell or curl construct.
fn unfilled(json: &str) -> Option<&str> {
    let mut rest = json;
    while let Some(open) = rest.find('{') {
        let before = rest[..open].chars().next_back();
        let tail = &rest[open + 1..];
        let end = tail.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(tail.len());
        if end > 1 && tail[end..].starts_with('}') && before != Some('%') && before != Some('$') {
            return Some(&rest[open..open + end + 2]);
        }
        rest = tail;
    }
    None
}

/// The JSON validates against the schema and parses back to the same report.
fn shape(report: &Report, schema: &jsonschema::Validator) -> Result<(), Failed> {
    let value = serde_json::to_value(report).map_err(|error| error.to_string())?;
    if let Err(error) = schema.validate(&value) {
        return Err(format!("the JSON breaks its schema: {error}").into());
    }
    let back: Report = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if back != *report {
        return Err("the JSON does not parse back to the same report".into());
    }
    Ok(())
}
