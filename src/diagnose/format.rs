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
    /// As it is: texts from packets stay raw, the printer makes them harmless.
    Whole,
    /// A sentence: as it is, but for words longer than anybody reads.
    Prose,
    /// A command to paste: every text from a packet becomes one harmless word of sh.
    Command,
}

/// Fills a template of a rule with the finding's values and the slots every flow has; frames of several `files` name theirs.
pub fn filled(template: &str, finding: &Finding, flow: Option<&FlowSummary>, purpose: Purpose, files: usize) -> String {
    if !template.contains('{') {
        return template.to_owned();
    }
    // An IPv6 address in a URL stands in brackets (RFC 3986 §3.2.2).
    let bracketed = flow.is_some_and(|flow| !flow.facts.server.address.is_v4()) && template.contains("://{host}");
    let url = bracketed.then(|| template.replace("://{host}", "://[{host}]"));
    let template = url.as_deref().unwrap_or(template);
    // Where the client sent no name, the address stands for it; no server has a name that is an address (RFC 6066 §3).
    let nameless = match finding.values.get("name") {
        Some(Value::Address(address)) if template.contains("{name}") => Some(address.is_v4()),
        _ => None,
    };
    let unasked = nameless.map(|narrow| {
        let line = template.replace("-servername {name}", "-noservername");
        let line = line.replace("-verify_hostname {name}", "-verify_ip {name}");
        if narrow { line } else { line.replace("://{name}", "://[{name}]") }
    });
    let template = unasked.as_deref().unwrap_or(template);
    let singular = if purpose == Purpose::Prose { agreed(template, finding) } else { None };
    fill(singular.as_deref().unwrap_or(template), |slot| match finding.values.get(slot) {
        Some(value) => Some(written(value, purpose, files)),
        None => standard(slot, finding, flow, files),
    })
}

/// Verbs that follow a counted noun, for many and for one.
const VERBS: &[(&str, &str)] =
    &[("were", "was"), ("are", "is"), ("show", "shows"), ("come", "comes"), ("introduce", "introduces")];

/// The template with its counted nouns, and the verbs behind them, in the singular where the count is 1; `None` where nothing changes.
/// `{one} of {all} connections were`: the noun goes with the second number, the verb with the first.
fn agreed(template: &str, finding: &Finding) -> Option<String> {
    let one = |(slot, value): (&str, &Value)| *value == Value::Count(1) && template.contains(slot);
    if !finding.values.iter().any(one) {
        return None;
    }
    let mut words: Vec<String> = template.split(' ').map(str::to_owned).collect();
    let is_one = |word: &str| {
        let slot = word.trim_start_matches('(').strip_prefix('{').and_then(|word| word.strip_suffix('}'));
        slot.is_some_and(|slot| finding.values.get(slot) == Some(&Value::Count(1)))
    };
    let mut changed = false;
    for n in 0..words.len() {
        let part = n >= 2 && words[n - 1] == "of" && words[n - 2].starts_with('{');
        let (noun_is_one, subject_is_one) = (is_one(&words[n]), is_one(if part { &words[n - 2] } else { &words[n] }));
        let noun = n + 1 + usize::from(words.get(n + 1).is_some_and(|word| word == "more"));
        if !words[n].contains('{') || !(noun_is_one || subject_is_one) {
            continue;
        }
        let Some((stem, mark)) = words.get(noun).and_then(|word| plural(word)) else { continue };
        let (singular, ends) = (format!("{stem}{mark}"), !mark.is_empty());
        if noun_is_one {
            words[noun] = singular;
            changed = true;
        }
        let verb = words.get(noun + 1).and_then(|word| VERBS.iter().find(|(many, _)| many == word));
        if let Some((_, one)) = verb.filter(|_| subject_is_one && !ends) {
            words[noun + 1] = (*one).to_owned();
            changed = true;
        }
    }
    changed.then(|| words.join(" "))
}

/// The stem of a plural noun and the punctuation behind it: `copies,` is `copy` and `,`.
fn plural(word: &str) -> Option<(String, &str)> {
    let letters = word.trim_end_matches(|c: char| c.is_ascii_punctuation());
    let mark = &word[letters.len()..];
    let stem = match letters.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => letters.strip_suffix('s').filter(|stem| stem.len() > 2 && !stem.ends_with('s'))?.to_owned(),
    };
    Some((stem, mark))
}

/// A value as text.
pub fn written(value: &Value, purpose: Purpose, files: usize) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Packet(text) if purpose == Purpose::Command => harmless(text, Sink::Shell).into_owned(),
        Value::Packet(text) if purpose == Purpose::Prose => abbreviated(text),
        Value::Packet(text) => text.clone(),
        Value::Endpoint(end) => end.to_string(),
        Value::Address(address) => address.to_string(),
        Value::Elapsed(span) => span.to_string(),
        Value::Time(time) => rfc3339(*time),
        Value::Count(n) | Value::Octets(n) => n.to_string(),
        Value::Frame(at) => packet(*at, files),
    }
}

/// Characters of a word that are read in a sentence: a longer URL would push what happened to it off the screen. Evidence has it whole.
const WORD: usize = 80;

fn abbreviated(text: &str) -> String {
    let shorter = |word: &str| {
        let len = word.chars().count();
        if len <= WORD {
            return word.to_owned();
        }
        let tail = WORD / 4;
        let (begins, ends) = (word.chars().take(WORD - 1 - tail), word.chars().skip(len - tail));
        begins.chain(['…']).chain(ends).collect()
    };
    text.split(' ').map(shorter).collect::<Vec<_>>().join(" ")
}

fn standard(slot: &str, finding: &Finding, flow: Option<&FlowSummary>, files: usize) -> Option<String> {
    let facts = &flow?.facts;
    Some(match slot {
        "client" => facts.client.to_string(),
        "server" => facts.server.to_string(),
        "client_host" => facts.client.address.to_string(),
        "host" => facts.server.address.to_string(),
        "port" => facts.server.port.to_string(),
        "client_port" => facts.client.port.to_string(),
        "flow" => facts.id.number.to_string(),
        "packet" => packet(finding.evidence.first()?.at, files),
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
    fn a_template_agrees_with_its_counts() {
        let rule = crate::catalogue::rule("capture-starts-mid-stream").expect("it exists");
        let says = |mid: u64, all: u64| {
            let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
            let finding = rule.about(crate::rule::finding::Subject::Capture, at, None, "");
            let finding = finding.with("mid", mid).with("all", all);
            filled(rule.says, &finding, None, Purpose::Prose, 1)
        };
        assert_eq!(says(1, 1), "1 of 1 connection was already open when the capture began");
        assert_eq!(says(1, 4), "1 of 4 connections was already open when the capture began");
        assert_eq!(says(3, 4), "3 of 4 connections were already open when the capture began");
        assert_eq!(plural("copies,"), Some(("copy".to_owned(), ",")));
        assert_eq!(plural("address"), None);
    }

    #[test]
    fn where_no_name_was_sent_no_command_sends_one() {
        let rule = crate::catalogue::rule("tls-fatal-alert").expect("it exists");
        let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
        let command = |template: &str, name: Value| {
            let finding = rule.about(crate::rule::finding::Subject::Capture, at, None, "").with("name", name);
            filled(template, &finding, None, Purpose::Command, 1)
        };
        let address =
            |text: &str| Value::Address(crate::wire::Address::from(text.parse::<std::net::IpAddr>().expect("one")));
        let connect = "openssl s_client -servername {name} -verify_hostname {name}";
        assert_eq!(command(connect, address("192.0.2.1")), "openssl s_client -noservername -verify_ip 192.0.2.1");
        assert_eq!(
            command(connect, Value::Packet("a.example".into())),
            "openssl s_client -servername a.example -verify_hostname a.example"
        );
        assert_eq!(command("curl https://{name}/", address("2001:db8::1")), "curl https://[2001:db8::1]/");
        assert_eq!(command("curl https://{name}/", address("192.0.2.1")), "curl https://192.0.2.1/");
    }

    #[test]
    fn a_long_url_leaves_room_for_what_happened_to_it() {
        let url = format!("/search?{}&page=7", "q=é&".repeat(60));
        let value = Value::Packet(format!("GET {url}"));
        let sentence = written(&value, Purpose::Prose, 1);
        assert_eq!(sentence.chars().count(), 4 + WORD, "{sentence}");
        assert!(sentence.starts_with("GET /search?q=é&") && sentence.ends_with("&page=7"), "{sentence}");
        assert_eq!(written(&value, Purpose::Whole, 1), format!("GET {url}"));
        assert_eq!(abbreviated("FATAL 28000: no entry  for host"), "FATAL 28000: no entry  for host");
    }

    #[test]
    fn one_flow_has_no_plural() {
        assert_eq!(count(1, "flow"), "1 flow");
        assert_eq!(count(14, "flow"), "14 flows");
    }
}
