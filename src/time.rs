//! Time as the capture tells it: points on the capture's clock and the spans between them.
//!
//! Nothing below `run/` may ask the machine for the time: a report on the same packets is the same report, today and next year.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A moment on the capture's clock: nanoseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

/// A span between two moments, in nanoseconds; negative when the capture's clock ran backwards.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct Elapsed(pub i64);

impl Timestamp {
    /// Before every packet.
    pub const MIN: Self = Self(i64::MIN);
    /// After every packet.
    pub const MAX: Self = Self(i64::MAX);

    /// The whole second this moment lies in, rounded towards the past.
    pub fn second(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// The eighth of a second this moment lies in, likewise: the grid of capture-time ticks.
    #[inline]
    pub fn eighth(self) -> i64 {
        self.0.div_euclid(Self::EIGHTH)
    }

    /// When an eighth begins; see [`Timestamp::eighth`].
    pub fn of_eighth(eighth: i64) -> Self {
        Self(eighth.saturating_mul(Self::EIGHTH))
    }

    /// Nanoseconds of an eighth of a second.
    const EIGHTH: i64 = 125_000_000;

    /// Time from `earlier` to `self`; saturates instead of overflowing on absurd clocks.
    pub fn since(self, earlier: Self) -> Elapsed {
        Elapsed(self.0.saturating_sub(earlier.0))
    }
}

impl Elapsed {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// `n` nanoseconds.
    pub const fn nanos(n: i64) -> Self {
        Self(n)
    }

    /// `n` microseconds.
    pub const fn micros(n: i64) -> Self {
        Self(n.saturating_mul(1_000))
    }

    /// `n` milliseconds.
    pub const fn millis(n: i64) -> Self {
        Self(n.saturating_mul(1_000_000))
    }

    /// `n` seconds.
    pub const fn secs(n: i64) -> Self {
        Self(n.saturating_mul(1_000_000_000))
    }

    /// The span as fractional seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The span without its sign.
    pub fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }
}

impl Add<Elapsed> for Timestamp {
    type Output = Self;
    fn add(self, span: Elapsed) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Elapsed> for Timestamp {
    type Output = Self;
    fn sub(self, span: Elapsed) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Add for Elapsed {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Elapsed {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// Prints a span the way a person says it: three significant digits, the largest fitting unit (`23 µs`, `2.5 ms`, `4.0 s`, `5 h 12 min`).
impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let n = self.0.unsigned_abs();
        f.write_str(sign)?;
        match n {
            0 => f.write_str("0 s"),
            1..1_000 => write!(f, "{n} ns"),
            1_000..1_000_000 => write!(f, "{}", Tenths(n, 1_000, "µs")),
            1_000_000..1_000_000_000 => write!(f, "{}", Tenths(n, 1_000_000, "ms")),
            1_000_000_000..120_000_000_000 => write!(f, "{}", Tenths(n, 1_000_000_000, "s")),
            120_000_000_000..7_200_000_000_000 => {
                let secs = n / 1_000_000_000;
                match secs % 60 {
                    0 => write!(f, "{} min", secs / 60),
                    s => write!(f, "{} min {s} s", secs / 60),
                }
            }
            _ => {
                let mins = n / 60_000_000_000;
                match (mins / 60, mins % 60) {
                    (h, m) if h < 48 => write!(f, "{h} h {m} min"),
                    (h, _) => write!(f, "{} d {} h", h / 24, h % 24),
                }
            }
        }
    }
}

/// One decimal below 100 of the unit, none from there.
struct Tenths(u64, u64, &'static str);

impl fmt::Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(n, unit, name) = *self;
        let tenths = (n + unit / 20) / (unit / 10);
        if tenths >= 1000 || (tenths % 10 == 0 && unit < 1_000_000_000) {
            write!(f, "{} {name}", (n + unit / 2) / unit)
        } else {
            write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_people_say_them() {
        for (span, says) in [
            (Elapsed::nanos(0), "0 s"),
            (Elapsed::micros(23), "23 µs"),
            (Elapsed::micros(2_480), "2.5 ms"),
            (Elapsed::millis(208), "208 ms"),
            (Elapsed::secs(4), "4.0 s"),
            (Elapsed::millis(60_020), "60.0 s"),
            (Elapsed::secs(130), "2 min 10 s"),
            (Elapsed::secs(5 * 3600 + 12 * 60), "5 h 12 min"),
            (Elapsed::millis(-5), "-5 ms"),
        ] {
            assert_eq!(span.to_string(), says);
        }
    }

    #[test]
    fn the_second_of_a_moment_before_1970_is_rounded_down() {
        assert_eq!(Timestamp(-1).second(), -1);
    }
}
