//! The table of flows: the first rows as HTML, so that it can be read without JavaScript, all of them as compact JSON for the script.
//!
//! Ten thousand explanations differ in little more than ends and numbers. Each is a template with these left out (`\u{1}` the client end,
//! `\u{2}` the server end, `\u{3}` and `\u{4}` their addresses, `\u{5}` the next number) and the numbers beside it; templates are written once.
//! The marks cannot come from packets, whose control characters are made visible before.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::moment::{Clocks, parse};
use super::words::verdict;
use crate::capture::CaptureInfo;
use crate::diagnose::report::{FlowEntry, FlowRef, Report};
use crate::rule::summary::Verdict;
use crate::wire::harmless::{Sink, harmless, is_hidden};

/// Rows that are HTML.
pub(super) const STATIC: usize = 50;
/// Octets of JSON. What has no room is counted, and the page says so.
const MOST: usize = 1_800_000;

/// A row of the table as HTML.
#[derive(Serialize)]
pub(super) struct Row {
    pub name: String,
    pub verdict: &'static str,
    pub client: String,
    pub server: String,
    pub explanation: String,
    pub start: String,
    pub packets: u64,
}

/// The data, ready to stand inside a `script` element.
pub(super) struct Data {
    pub json: String,
    /// Flows of the report for which there was no room.
    pub left_out: usize,
}

/// What is written once.
#[derive(Default)]
struct Words {
    list: Vec<String>,
    place: BTreeMap<String, usize>,
    octets: usize,
}

impl Words {
    fn place(&mut self, word: &str) -> usize {
        if let Some(place) = self.place.get(word) {
            return *place;
        }
        self.octets += word.len() + 8;
        self.list.push(word.to_owned());
        self.place.insert(word.to_owned(), self.list.len() - 1);
        self.list.len() - 1
    }
}

/// The place of its verdict; the script has the same list.
fn rank(flow: &FlowEntry) -> u8 {
    match flow.verdict {
        Verdict::Failed => 0,
        Verdict::Degraded => 1,
        Verdict::Undecided => 2,
        Verdict::Healthy => 3,
    }
}

/// Flows as a reader wants them: what failed first.
pub(super) fn sorted(report: &Report) -> Vec<&FlowEntry> {
    let mut flows: Vec<&FlowEntry> = report.flows.iter().collect();
    flows.sort_by_key(|flow| (rank(flow), flow.key()));
    flows
}

pub(super) fn row(flow: &FlowEntry, files: usize) -> Row {
    Row {
        name: name(flow.key(), files),
        verdict: verdict(flow.verdict),
        client: flow.client.clone(),
        server: flow.server.clone(),
        explanation: flow.explanation.clone(),
        start: super::moment::clock(&flow.start),
        packets: flow.packets,
    }
}

/// `#14`; of several inputs the second's `2#14`.
pub(super) fn name(flow: FlowRef, files: usize) -> String {
    let name = flow.name(files);
    if files > 1 { name } else { format!("#{name}") }
}

/// What rows are packed with.
struct Packer<'a> {
    clocks: Clocks,
    /// The earliest start, in nanoseconds.
    base: i64,
    /// Rules by the ids of their findings.
    rules: BTreeMap<&'a str, &'a str>,
    words: Words,
    templates: Words,
    /// Flows whose drawing is in the page.
    drawn: &'a [FlowRef],
}

impl Packer<'_> {
    fn word(&mut self, text: &str) -> usize {
        self.words.place(&harmless(text, Sink::Line))
    }

    /// One row. The script takes the fields in this order.
    fn row(&mut self, flow: &FlowEntry) -> String {
        let (template, numbers) = pressed(flow);
        let protocols: Vec<&str> = flow.protocols.iter().map(|protocol| protocol.name()).collect();
        let rules: Vec<&str> = flow.findings.iter().filter_map(|id| self.rules.get(id.as_str()).copied()).collect();
        let start = self.clocks.start(flow);
        let lasted = parse(&flow.end).zip(parse(&flow.start)).map_or(0, |(end, start)| end.saturating_sub(start));
        let row = json!([
            flow.file,
            flow.id,
            rank(flow),
            harmless(&flow.client, Sink::Line),
            self.word(&flow.server),
            self.templates.place(&template),
            numbers,
            start.saturating_sub(self.base) / 1000,
            lasted / 1000,
            flow.packets,
            flow.octets[0],
            flow.octets[1],
            self.word(&flow.transport),
            self.word(&protocols.join(", ")),
            self.word(&flow.handshake),
            self.word(&flow.close),
            flow.rtt_ns.map(|rtt| rtt / 1000),
            harmless(&flow.community_id, Sink::Line),
            rules.into_iter().map(|rule| self.word(rule)).collect::<Vec<_>>(),
            flow.faces.iter().map(|face| self.word(face)).collect::<Vec<_>>(),
            u8::from(self.drawn.contains(&flow.key())),
        ]);
        row.to_string()
    }
}

/// All flows as JSON. `drawn` are those whose drawing is in the page.
pub(super) fn data(report: &Report, flows: &[&FlowEntry], drawn: &[FlowRef]) -> Data {
    let clocks = Clocks::of(report);
    let base = flows.iter().map(|flow| clocks.start(flow)).min().unwrap_or(0);
    let rules = report.findings.iter().map(|finding| (finding.id.as_str(), finding.rule.as_str())).collect();
    let mut packer = Packer { clocks, base, rules, words: Words::default(), templates: Words::default(), drawn };
    let (mut rows, mut size): (Vec<String>, usize) = (Vec::new(), 0);
    for flow in flows {
        if size + packer.words.octets + packer.templates.octets > MOST {
            break;
        }
        let row = packer.row(flow);
        size += row.len() + 1;
        rows.push(row);
    }
    let files: Vec<String> =
        report.captures.iter().map(|capture| harmless(&capture.file, Sink::Line).into_owned()).collect();
    // What was heard live is in no file that could be read again.
    let live = report.captures.iter().any(|capture| capture.format == CaptureInfo::LIVE);
    let head = json!({
        "files": files,
        "inputs": crate::render::text::inputs(report).filter(|_| !live),
        "base": base / 1000,
        "words": packer.words.list,
        "templates": packer.templates.list,
    });
    let head = head.to_string();
    let json = format!("{},\"rows\":[{}]}}", head.trim_end_matches('}'), rows.join(","));
    Data { json: inert(&json), left_out: flows.len() - rows.len() }
}

/// JSON that cannot end the `script` element it stands in, nor begin a comment there, and hides nothing.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if matches!(character, '<' | '>' | '&') || is_hidden(character) {
            // Above U+FFFF a pair of surrogates (RFC 8259 §7).
            for unit in character.encode_utf16(&mut [0; 2]) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(character);
        }
    }
    text
}

/// The address of an end: `10.0.0.5:443`, `[2001:db8::1]:443`.
fn address(end: &str) -> &str {
    end.rsplit_once(':').map_or(end, |(address, _)| address.trim_matches(['[', ']']))
}

/// The explanation without its ends and numbers, and the numbers.
fn pressed(flow: &FlowEntry) -> (String, String) {
    let text = harmless(&flow.explanation, Sink::Terminal);
    let mut marked = text.into_owned();
    for (mark, end) in [
        ("\u{1}", flow.client.as_str()),
        ("\u{2}", flow.server.as_str()),
        ("\u{3}", address(&flow.client)),
        ("\u{4}", address(&flow.server)),
    ] {
        if end.len() > 3 {
            marked = marked.replace(end, mark);
        }
    }
    let (mut template, mut numbers, mut inside) = (String::new(), String::new(), false);
    for character in marked.chars() {
        if character.is_ascii_digit() {
            if !inside {
                template.push('\u{5}');
                numbers.push_str(if numbers.is_empty() { "" } else { " " });
            }
            numbers.push(character);
        } else {
            template.push(character);
        }
        inside = character.is_ascii_digit();
    }
    (template, numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inside_the_data_ends_its_element() {
        assert_eq!(inert("\"</script><!--&\u{2028}\""), "\"\\u003c/script\\u003e\\u003c!--\\u0026\\u2028\"");
    }

    #[test]
    fn the_address_of_an_end_has_no_brackets() {
        assert_eq!(address("[2001:db8::1]:443"), "2001:db8::1");
        assert_eq!(address("10.0.0.5:443"), "10.0.0.5");
    }
}
