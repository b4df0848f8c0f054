//! Times of a report, which are RFC 3339 texts, as numbers on one clock.

use crate::diagnose::report::{Capture, FlowEntry, Report};
use crate::render::beside::short;

/// Nanoseconds since 1970; `None` for what is no time.
pub(super) fn parse(text: &str) -> Option<i64> {
    match text.strip_suffix(" ns") {
        // A time that no calendar holds.
        Some(number) => number.parse().ok(),
        None => i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok(),
    }
}

/// The time of day in UTC, to the microsecond.
pub(super) fn clock(text: &str) -> String {
    let Some((_, time)) = text.split_once('T') else { return text.to_owned() };
    let time = time.trim_end_matches('Z');
    time.get(..15).unwrap_or(time).to_owned()
}

/// Date and time of day in UTC, to the second.
pub(super) fn whole(text: &str) -> String {
    match (text.split_once('T'), text.get(..19)) {
        (Some(_), Some(seconds)) => format!("{} UTC", seconds.replace('T', " ")),
        _ => short(text),
    }
}

/// What of a capture's clock has to be taken away to come to the clock of the first one it shares connections with.
pub(super) struct Clocks {
    ahead: Vec<i64>,
}

impl Clocks {
    pub fn of(report: &Report) -> Self {
        let mut ahead: Vec<i64> = Vec::new();
        for capture in &report.captures {
            let own = capture.clock.as_ref();
            ahead.push(own.map_or(0, |clock| {
                clock.ahead_ns.saturating_add(ahead.get(usize::from(clock.of)).copied().unwrap_or(0))
            }));
        }
        Self { ahead }
    }

    /// A time that was written with the clock of input `file`.
    pub fn at(&self, file: u16, text: &str) -> Option<i64> {
        let ahead = self.ahead.get(usize::from(file)).copied().unwrap_or(0);
        Some(parse(text)?.saturating_sub(ahead))
    }

    /// When each input ends.
    pub fn ends(&self, report: &Report) -> Vec<i64> {
        let last = |(file, capture): (u16, &Capture)| self.at(file, capture.last.as_deref()?);
        (0..).zip(&report.captures).map(|one| last(one).unwrap_or(i64::MIN)).collect()
    }

    pub fn start(&self, flow: &FlowEntry) -> i64 {
        self.at(flow.file, &flow.start).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_back_and_shortened() {
        assert_eq!(parse("1970-01-01T00:00:01.500000000Z"), Some(1_500_000_000));
        assert_eq!(parse("-7 ns"), Some(-7));
        assert_eq!(parse("soon"), None);
        assert_eq!(clock("2026-11-21T04:50:38.692598123Z"), "04:50:38.692598");
        assert_eq!(whole("2026-11-21T04:50:38.692598123Z"), "2026-11-21 04:50:38 UTC");
    }
}
