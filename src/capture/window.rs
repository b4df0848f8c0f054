//! `--since` and `--until`: absolute, a clock time on the capture's first day, or relative to the first packet.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::time::{Elapsed, Timestamp};

/// One end of the time asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum TimeBound {
    /// A moment.
    At(Timestamp),
    /// After the first packet.
    After(Elapsed),
    /// A clock time in that zone on the day of the first packet. The zone stays whole: its offset depends on the day.
    Clock(Time, TimeZone),
}

impl TimeBound {
    /// Reads `2026-11-21T10:04:12Z`, `10:04`, `10:04:12`, `+30s`.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn parse(text: &str, zone: &TimeZone) -> Result<Self> {
        if let Some(span) = text.strip_prefix('+') {
            let span = span_of(span);
            return span.map(Self::After).ok_or_else(|| unreadable(text));
        }
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            let nanos = i64::try_from(moment.as_nanosecond()).map_err(|_| unreadable(text))?;
            return Ok(Self::At(Timestamp(nanos)));
        }
        if let Ok(local) = text.parse::<jiff::civil::DateTime>()
            && text.len() > 8
        {
            let moment = local.to_zoned(zone.clone()).map_err(|_| unreadable(text))?.timestamp();
            let nanos = i64::try_from(moment.as_nanosecond()).map_err(|_| unreadable(text))?;
            return Ok(Self::At(Timestamp(nanos)));
        }
        let time: Time = text.parse().map_err(|_| unreadable(text))?;
        Ok(Self::Clock(time, zone.clone()))
    }

    /// The moment, in a capture that begins at `first`. A clock time that the day skips or repeats (summer time) is the one jiff takes: later
    /// by the gap, or the first of the two.
    pub fn at(&self, first: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => *moment,
            Self::After(span) => first + *span,
            Self::Clock(time, zone) => on_the_day_of(first, *time, zone).unwrap_or(first),
        }
    }
}

/// `None` beyond the years that nanoseconds since 1970 can count.
fn on_the_day_of(first: Timestamp, time: Time, zone: &TimeZone) -> Option<Timestamp> {
    let first = jiff::Timestamp::from_nanosecond(i128::from(first.0)).ok()?;
    let day = zone.to_datetime(first).date();
    let moment = day.to_datetime(time).to_zoned(zone.clone()).ok()?.timestamp();
    i64::try_from(moment.as_nanosecond()).ok().map(Timestamp)
}

fn span_of(text: &str) -> Option<Elapsed> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = match unit {
        "" | "s" => 1e9,
        "ms" => 1e6,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    };
    Some(Elapsed((number * unit) as i64))
}

fn unreadable(text: &str) -> Error {
    Error::usage(format!("{text} is no time (write 2026-11-21T10:04:12Z, 10:04:12, or +30s after the first packet)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Timestamp = Timestamp(1_700_000_000_000_000_000);

    fn at(text: &str) -> i64 {
        TimeBound::parse(text, &TimeZone::UTC).expect("a time").at(FIRST).0
    }

    #[test]
    fn absolute_relative_and_clock_times_are_read() {
        assert_eq!(at("2023-11-14T22:13:20Z"), FIRST.0);
        assert_eq!(at("+30s"), FIRST.0 + 30_000_000_000);
        assert_eq!(at("+1.5m"), FIRST.0 + 90_000_000_000);
        assert_eq!(at("22:13:20"), FIRST.0);
        assert_eq!(at("22:14"), FIRST.0 + 40_000_000_000);
    }

    #[test]
    fn a_clock_time_has_the_offset_of_the_captures_day() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
        let bound = TimeBound::parse("12:00", &berlin).expect("a time");
        let on = |first: &str| -> String {
            let first: jiff::Timestamp = first.parse().expect("a moment");
            let moment = bound.at(Timestamp(first.as_nanosecond() as i64));
            jiff::Timestamp::from_nanosecond(i128::from(moment.0)).expect("a moment").to_string()
        };
        assert_eq!(on("2026-07-01T08:00:00Z"), "2026-07-01T10:00:00Z");
        assert_eq!(on("2026-12-01T08:00:00Z"), "2026-12-01T11:00:00Z");
        // 23:30 UTC is the next day in Berlin.
        assert_eq!(on("2026-12-01T23:30:00Z"), "2026-12-02T11:00:00Z");
    }

    #[test]
    fn anything_else_is_refused_with_examples() {
        let error = TimeBound::parse("yesterday", &TimeZone::UTC).expect_err("no time");
        assert!(error.to_string().contains("+30s"));
    }
}
