//! The report as one JSON document, or as JSON lines: one object per capture, flow, finding and incident.
//!
//! Strings keep every character that was in the packets. Those that act on a terminal or cannot be seen (C1 controls, marks of direction,
//! characters without width) are written as `\uXXXX`, so that the document may be printed.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::diagnose::report::Report;
use crate::wire::harmless::is_hidden;

/// A formatter that escapes in strings what JSON would let through and a terminal would obey.
struct Visible<F>(F);

/// Hands a call on to the formatter inside.
macro_rules! as_inside {
    ($($name:ident($($arg:ident: $kind:ty),*)),* $(,)?) => {
        $(fn $name<W: ?Sized + Write>(&mut self, out: &mut W $(, $arg: $kind)*) -> io::Result<()> {
            self.0.$name(out $(, $arg)*)
        })*
    };
}

impl<F: Formatter> Formatter for Visible<F> {
    as_inside!(
        begin_array(),
        end_array(),
        begin_array_value(first: bool),
        end_array_value(),
        begin_object(),
        end_object(),
        begin_object_key(first: bool),
        end_object_key(),
        begin_object_value(),
        end_object_value(),
    );

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, hidden)) = rest.char_indices().find(|(_, character)| is_hidden(*character)) {
            out.write_all(&rest.as_bytes()[..at])?;
            // Above U+FFFF a pair of surrogates (RFC 8259 §7).
            for unit in hidden.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + hidden.len_utf8()..];
        }
        out.write_all(rest.as_bytes())
    }
}

/// Any value on one line.
pub fn line(value: &impl Serialize, mut out: impl Write) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(&mut out, Visible(CompactFormatter)))?;
    out.write_all(b"\n")
}

/// The whole report, indented.
pub fn document(report: &Report, mut out: impl Write) -> io::Result<()> {
    report.serialize(&mut Serializer::with_formatter(&mut out, Visible(PrettyFormatter::new())))?;
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
            line(&Line { kind, value }, &mut *out)?;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: &str) -> String {
        let mut out = Vec::new();
        line(&value, &mut out).expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_nothing_is_lost() {
        assert_eq!(written("a\u{202e}b\u{9b}1m\u{7f}\x1b"), "\"a\\u202eb\\u009b1m\\u007f\\u001b\"\n");
        assert_eq!(written("\u{e0041}"), "\"\\udb40\\udc41\"\n");
        assert_eq!(written("Grüße \"x\""), "\"Grüße \\\"x\\\"\"\n");
    }

    #[test]
    fn the_indented_form_is_that_of_serde_json() {
        let value = serde_json::json!({"a": [1, {"b": []}], "c": {}, "d": null});
        let mut out = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut out, Visible(PrettyFormatter::new()))).expect("written");
        assert_eq!(String::from_utf8(out).expect("text"), serde_json::to_string_pretty(&value).expect("written"));
    }

    proptest! {
        #[test]
        fn it_reads_back_as_it_was_and_holds_nothing_hidden(text: String) {
            let json = written(&text);
            prop_assert!(!json.trim_end_matches('\n').chars().any(is_hidden));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), text);
        }
    }
}
