//! Moments, counts and template slots as the report writes them.

use jiff::tz::TimeZone;

use crate::event::PacketRef;
use crate::rule::finding::Finding;
use crate::rule::summary::FlowSummary;
use crate::rule::value::{Value, fill};
use crate::time::Timestamp;
use crate::wire::harmless::{Sink, harmless};

/// RFC 3339 in UTC with nanoseconds.
pub fn rfc3339(time: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(moment) => format!("{moment:.9}"),
        Err(_) => format!("{} ns", time.0),
    }
}

/// Clock time with the zone's name, to the second: `10:04:12 UTC`.
pub fn clock(time: Timestamp, zone: &TimeZone) -> String {
    strftime(time, zone, "%H:%M:%S %Z")
}

/// Date and clock time: `2026-11-21 10:04:12 UTC`.
pub fn date_and_clock(time: Timestamp, zone: &TimeZone) -> String {
    strftime(time, zone, "%Y-%m-%d %H:%M:%S %Z")
}

fn strftime(time: Timestamp, zone: &TimeZone, format: &str) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(time.0)) {
        Ok(moment) => moment.to_zoned(zone.clone()).strftime(format).to_string(),
        Err(_) => format!("{} ns", time.0),
    }
}

/// `1 flow`, `2 flows`.
pub fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `#14`; with the file's index when there are several: `1#14`.
pub fn packet(at: PacketRef, files: usize) -> String {
    if files > 1 { format!("{}#{}", at.file + 1, at.number) } else { format!("#{}", at.number) }
}

/// Where a filled template goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A sentence: texts from packets stay raw, the printer makes them harmless.
    Prose,
    /// A command to paste: every text from a packet becomes one harmless word of sh.
    Command,
}

/// Fills a template of a rule with the finding's values and the slots every flow has.
pub fn filled(template: &str, finding: &Finding, flow: Option<&FlowSummary>, purpose: Purpose) -> String {
    // An IPv6 address in a URL stands in brackets (RFC 3986 §3.2.2).
    let bracketed = flow.is_some_and(|flow| !flow.facts.server.address.is_v4()) && template.contains("://{host}");
    let url = bracketed.then(|| template.replace("://{host}", "://[{host}]"));
    let template = url.as_deref().unwrap_or(template);
    fill(template, |slot| match finding.values.get(slot) {
        Some(value) => Some(written(value, purpose)),
        None => standard(slot, finding, flow),
    })
}

/// A value as text.
pub fn written(value: &Value, purpose: Purpose) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Packet(text) if purpose == Purpose::Command => harmless(text, Sink::Shell).into_owned(),
        Value::Packet(text) => text.clone(),
        Value::Endpoint(end) => end.to_string(),
        Value::Address(address) => address.to_string(),
        Value::Elapsed(span) => span.to_string(),
        Value::Time(time) => rfc3339(*time),
        Value::Count(n) | Value::Octets(n) => n.to_string(),
        Value::Frame(at) => format!("#{}", at.number),
    }
}

fn standard(slot: &str, finding: &Finding, flow: Option<&FlowSummary>) -> Option<String> {
    let facts = &flow?.facts;
    Some(match slot {
        "client" => facts.client.to_string(),
        "server" => facts.server.to_string(),
        "client_host" => facts.client.address.to_string(),
        "host" => facts.server.address.to_string(),
        "port" => facts.server.port.to_string(),
        "client_port" => facts.client.port.to_string(),
        "flow" => facts.id.number.to_string(),
        "packet" => format!("#{}", finding.evidence.first()?.at.number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_utc_with_nanoseconds() {
        assert_eq!(rfc3339(Timestamp(1_500_000_000)), "1970-01-01T00:00:01.500000000Z");
        assert_eq!(clock(Timestamp(36_252_000_000_000), &TimeZone::UTC), "10:04:12 UTC");
    }

    #[test]
    fn one_flow_has_no_plural() {
        assert_eq!(count(1, "flow"), "1 flow");
        assert_eq!(count(14, "flow"), "14 flows");
    }
}
