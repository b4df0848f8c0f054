//! `tcpwhy expect FILE.toml`: captures as regression tests.
//!
//! ```toml
//! [[expect]]
//! capture = "incident.pcap"             # beside the TOML file
//! root = "proxy-header-to-tls-port"     # rule of the first incident
//! confidence = "certain"                # its confidence
//! incidents = 1                         # how many
//! has = ["closed-without-answer"]       # findings that must be there, also explained ones
//! not = ["tls-fatal-alert"]             # findings that must not be there
//! at_most = "notice"                    # no finding above this severity
//! ```

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use tcpwhy::{Confidence, Diagnosis, Report, Severity};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    expect: Vec<Expectation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    capture: PathBuf,
    root: Option<String>,
    confidence: Option<Confidence>,
    incidents: Option<usize>,
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
    at_most: Option<Severity>,
}

/// Checks every expectation; exit code 1 when one is not met.
pub(crate) fn expect(files: &[PathBuf]) -> Result<ExitCode> {
    let (mut met, mut missed) = (0, 0);
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed: File =
            toml::from_str(&text).with_context(|| format!("{} holds no expectations", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        for expectation in parsed.expect {
            let path = folder.join(&expectation.capture);
            let report = Diagnosis::new().open(&[path.to_string_lossy()])?.run()?;
            let misses = expectation.misses(&report);
            match misses.as_slice() {
                [] => {
                    met += 1;
                    println!("ok    {}", expectation.capture.display());
                }
                misses => {
                    missed += 1;
                    println!("MISS  {}", expectation.capture.display());
                    misses.iter().for_each(|miss| println!("      {miss}"));
                }
            }
        }
    }
    println!("{met} met, {missed} missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

impl Expectation {
    fn misses(&self, report: &Report) -> Vec<String> {
        let mut misses = Vec::new();
        let root = report.incidents.first();
        if let Some(wanted) = &self.root {
            let got = root.map_or("no incident", |incident| incident.rule.as_str());
            if got != wanted {
                misses.push(format!("root: expected {wanted}, got {got}"));
            }
        }
        if let (Some(wanted), Some(incident)) = (self.confidence, root)
            && incident.confidence != wanted
        {
            misses.push(format!("confidence: expected {wanted:?}, got {:?}", incident.confidence).to_lowercase());
        }
        if let Some(wanted) = self.incidents
            && report.incidents.len() != wanted
        {
            misses.push(format!("incidents: expected {wanted}, got {}", report.incidents.len()));
        }
        let there = |id: &String| report.findings.iter().chain(&report.trust).any(|finding| finding.rule == *id);
        misses.extend(self.has.iter().filter(|id| !there(id)).map(|id| format!("finding missing: {id}")));
        misses.extend(self.not.iter().filter(|id| there(id)).map(|id| format!("finding not expected: {id}")));
        if let Some(limit) = self.at_most {
            let above = report.findings.iter().chain(&report.trust).filter(|finding| finding.severity > limit);
            misses.extend(above.map(|finding| format!("above {limit:?}: {}", finding.rule).to_lowercase()));
        }
        misses
    }
}
