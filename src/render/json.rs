//! The report as one JSON document, or as JSON lines: one object per capture, flow, finding and incident.

use std::io::{self, Write};

use serde::Serialize;

use crate::diagnose::report::Report;

/// The whole report, indented.
pub fn document(report: &Report, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut out, report)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// One object per line, each with a `type`; the order is captures, incidents, findings, flows, counts.
pub fn lines(report: &Report, mut out: impl Write) -> io::Result<()> {
    fn all<T: Serialize>(kind: &'static str, values: &[T], out: &mut impl Write) -> io::Result<()> {
        for value in values {
            serde_json::to_writer(&mut *out, &Line { kind, value })?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
    let out = &mut out;
    all("capture", &report.captures, out)?;
    all("incident", &report.incidents, out)?;
    all("trust", &report.trust, out)?;
    all("finding", &report.findings, out)?;
    all("flow", &report.flows, out)?;
    all("counts", std::slice::from_ref(&report.counts), out)
}

/// The JSON Schema of the report, generated from the Rust types.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Report);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
