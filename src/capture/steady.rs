//! The machine's clock, made steady: when somebody sets it while packets are being caught, their times go on as they were.
//!
//! The kernel stamps packets with the wall clock. Set forward by an hour, every open connection would seem to have waited for an hour; set
//! back, answers would come before their questions. How long nothing happened is what a diagnosis is made of, so a step is taken out again.

use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Elapsed, Timestamp};

/// A difference between two looks that is no step: reading two clocks takes time, and NTP corrects a clock by half a millisecond a second.
const SLACK: i64 = 400_000_000;

/// The wall clock as it would be if nobody had set it since the beginning.
pub(super) struct Steady {
    begun: Instant,
    known: Mutex<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    /// Wall clock at the beginning, as the latest look makes it: it follows slow corrections.
    origin: i64,
    /// What is added to a stamp, now and before the latest step.
    shift: i64,
    before: i64,
}

/// What one look at the clocks tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The time now.
    pub(super) now: Timestamp,
    /// By how much the clock was set since the look before, if it was; negative: back.
    pub(super) step: Option<Elapsed>,
    shift: i64,
    before: i64,
}

impl Look {
    /// The time of a packet by its stamp: one that was stamped before the clock was set is told by being nearer to now that way.
    pub(super) fn time(&self, stamp: i64) -> Timestamp {
        let now = stamp.saturating_add(self.shift);
        let before = stamp.saturating_add(self.before);
        let far = |time: i64| self.now.0.abs_diff(time);
        Timestamp(if far(before) < far(now) { before } else { now })
    }
}

impl Steady {
    /// Begins with the clock as it is.
    pub(super) fn new() -> Self {
        let known = Known { origin: wall(), shift: 0, before: 0 };
        Self { begun: Instant::now(), known: Mutex::new(known) }
    }

    /// Looks at the clocks.
    pub(super) fn look(&self) -> Look {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = i64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(i64::MAX);
        known.look(wall(), passed)
    }
}

impl Known {
    /// `wall`: what the wall clock says; `passed`: nanoseconds since the beginning by a clock that nobody sets.
    fn look(&mut self, wall: i64, passed: i64) -> Look {
        let difference = wall.saturating_add(self.shift).saturating_sub(self.origin.saturating_add(passed));
        let step = (difference.abs() > SLACK).then_some(Elapsed(difference));
        match step {
            Some(step) => (self.before, self.shift) = (self.shift, self.shift.saturating_sub(step.0)),
            None => self.origin = self.origin.saturating_add(difference),
        }
        let now = Timestamp(wall.saturating_add(self.shift));
        Look { now, step, shift: self.shift, before: self.before }
    }
}

/// Nanoseconds since 1970 by the machine's clock.
pub(super) fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const BEGIN: i64 = 1_700_000_000 * SECOND;

    #[test]
    fn a_clock_that_is_set_forward_or_back_changes_no_distance_between_packets() {
        let mut known = Known { origin: BEGIN, shift: 0, before: 0 };
        for (step, after) in [(3_600 * SECOND, 10), (-7_200 * SECOND, 20), (SECOND / 2, 30)] {
            let look = known.look(BEGIN - known.shift + after * SECOND, after * SECOND);
            assert_eq!((look.step, look.now), (None, Timestamp(BEGIN + after * SECOND)));
            let wall = BEGIN - known.shift + step + (after + 1) * SECOND;
            let look = known.look(wall, (after + 1) * SECOND);
            assert_eq!(look.step, Some(Elapsed(step)));
            assert_eq!(look.now, Timestamp(BEGIN + (after + 1) * SECOND));
            // Stamped just before and just after the clock was set, and read together.
            let early = wall - step - SECOND / 100;
            assert_eq!(look.time(early), Timestamp(BEGIN + (after + 1) * SECOND - SECOND / 100));
            assert_eq!(look.time(wall), look.now);
        }
    }

    #[test]
    fn a_clock_that_is_corrected_slowly_is_followed() {
        let mut known = Known { origin: BEGIN, shift: 0, before: 0 };
        // Half a millisecond a second, for an hour.
        for second in 1..=3_600 {
            let look = known.look(BEGIN + second * (SECOND + 500_000), second * SECOND);
            assert_eq!(look.step, None);
            assert_eq!(look.now, Timestamp(BEGIN + second * (SECOND + 500_000)));
        }
    }
}
