//! `--since` and `--until`: absolute, a clock time on the capture's first day, or relative to the first packet.

use jiff::civil::Time;
use jiff::tz::TimeZone;

use crate::error::{Error, Result};
use crate::time::{Elapsed, Timestamp};

/// One end of the time asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimeBound {
    /// A moment.
    At(Timestamp),
    /// After the first packet.
    After(Elapsed),
    /// A clock time on the day of the first packet: nanoseconds since midnight, and the zone's offset from UTC in seconds.
    Clock(i64, i32),
}

const DAY: i64 = 86_400_000_000_000;

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
        let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
        let offset = zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds();
        Ok(Self::Clock(seconds * 1_000_000_000 + i64::from(time.subsec_nanosecond()), offset))
    }

    /// The moment, in a capture that begins at `first`.
    pub fn at(self, first: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::After(span) => first + span,
            Self::Clock(nanos, offset) => {
                let offset = i64::from(offset) * 1_000_000_000;
                let midnight = (first.0.saturating_add(offset)).div_euclid(DAY) * DAY - offset;
                Timestamp(midnight.saturating_add(nanos))
            }
        }
    }
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
    fn anything_else_is_refused_with_examples() {
        let error = TimeBound::parse("yesterday", &TimeZone::UTC).expect_err("no time");
        assert!(error.to_string().contains("+30s"));
    }
}
