//! When to look at a flow again: a wheel of slots of an eighth of a second on capture time.
//!
//! A flow stands in the wheel once, at most [`SPAN`] steps ahead; whoever is due is asked for its real deadline and put back when it has
//! not come. So a packet never touches the wheel, and a clock that jumps by years costs one turn, not one step an eighth.

use crate::time::{Elapsed, Timestamp};

/// Slots, and so the farthest a visit can be planned ahead: a little over four minutes.
pub(super) const SPAN: i64 = 256 * PER_SECOND;
/// Steps are eighths of a second: what leaves soon leaves from the processor's cache.
const PER_SECOND: i64 = 8;
/// Visits of one slot that room is kept for: there are two thousand slots, and most are empty most of the time.
const ROOM: usize = 32;
/// Who has more patience than this is looked at on whole seconds: nothing is gained by more haste.
pub(super) const HASTE: Elapsed = Elapsed::secs(1);

/// The step at which what is due at `time`, after so much patience, is looked at.
pub(super) fn step_for(time: Timestamp, patience: Elapsed) -> i64 {
    let up = |unit: i64| Timestamp(time.0.saturating_add(unit - 1));
    if patience <= HASTE { up(125_000_000).eighth() } else { up(1_000_000_000).second().saturating_mul(PER_SECOND) }
}

/// The wheel. Entries are slab slots; a stale one is told by the step it was planned for. That needs no room: of all steps that share a
/// slot of the wheel only one lies ahead.
pub(super) struct Wheel {
    slots: Vec<Vec<u32>>,
    now: Option<i64>,
    planned: usize,
}

impl Wheel {
    /// An empty wheel that stands still until [`Wheel::start`].
    pub(super) fn new() -> Self {
        Self { slots: (0..SPAN).map(|_| Vec::new()).collect(), now: None, planned: 0 }
    }

    /// Gives the wheel its first step, once.
    #[inline]
    pub(super) fn start(&mut self, time: Timestamp) {
        if self.now.is_none() {
            self.now = Some(time.eighth());
        }
    }

    /// The step the wheel stands at.
    pub(super) fn now(&self) -> Option<i64> {
        self.now
    }

    /// Plans a visit at `step`, or as far ahead as the wheel reaches. Returns the step it was planned for.
    pub(super) fn schedule(&mut self, slot: u32, step: i64) -> i64 {
        let now = self.now.unwrap_or(step);
        let step = step.clamp(now.saturating_add(1), now.saturating_add(SPAN - 1));
        if let Some(entries) = self.slots.get_mut(step.rem_euclid(SPAN) as usize) {
            entries.push(slot);
            self.planned += 1;
        }
        step
    }

    /// Turns to `step` and moves everybody due until then to `due`, which is empty. A step in the past turns nothing.
    pub(super) fn advance(&mut self, step: i64, due: &mut Vec<(u32, u32)>) {
        let Some(now) = self.now else {
            self.now = Some(step);
            return;
        };
        if step <= now {
            return;
        }
        self.now = Some(step);
        let steps = step.saturating_sub(now).min(SPAN);
        for step in (1..=steps).map(|ahead| now.wrapping_add(ahead)) {
            if let Some(entries) = self.slots.get_mut(step.rem_euclid(SPAN) as usize) {
                due.extend(entries.drain(..).map(|slot| (slot, step as u32)));
                // A slot that was full once may stay empty for long.
                entries.shrink_to(ROOM);
            }
        }
        self.planned -= due.len();
    }

    /// The first step after the one it stands at, and before `end`, at which somebody may be due.
    pub(super) fn next_due(&self, end: i64) -> Option<i64> {
        let now = self.now.filter(|_| self.planned > 0)?;
        let mut steps = now.saturating_add(1)..end.min(now.saturating_add(SPAN));
        steps.find(|step| self.slots.get(step.rem_euclid(SPAN) as usize).is_some_and(|entries| !entries.is_empty()))
    }

    /// Visits planned, stale ones included.
    pub(super) fn planned(&self) -> usize {
        self.planned
    }

    /// Forgets stale visits: those that `current` denies.
    pub(super) fn forget(&mut self, mut current: impl FnMut(u32, u32) -> bool) {
        self.planned = 0;
        let ahead = self.now.unwrap_or_default().wrapping_add(1);
        for (index, entries) in (0_i64..).zip(&mut self.slots) {
            // The next step that comes to this slot.
            let step = ahead.wrapping_add(index.wrapping_sub(ahead).rem_euclid(SPAN));
            // Whoever freezes and thaws again and again is planned for the same step each time.
            entries.sort_unstable();
            entries.dedup();
            entries.retain(|slot| current(*slot, step as u32));
            entries.shrink_to(ROOM);
            self.planned += entries.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_comes_at_its_step_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(100_000_000_000 / PER_SECOND));
        assert_eq!(wheel.schedule(7, 103), 103);
        let mut due = Vec::new();
        wheel.advance(102, &mut due);
        assert!(due.is_empty());
        wheel.advance(103, &mut due);
        assert_eq!(due, [(7, 103)]);
    }

    #[test]
    fn a_deadline_beyond_the_span_is_visited_at_the_span() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(0));
        assert_eq!(wheel.schedule(1, 86_400), SPAN - 1);
    }

    #[test]
    fn a_jump_of_years_is_one_turn_and_forgets_nobody() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(-5_000_000_000));
        for slot in 0..1000 {
            wheel.schedule(slot, i64::from(slot));
        }
        let mut due = Vec::new();
        wheel.advance(i64::MAX / 2, &mut due);
        assert_eq!(due.len(), 1000);
    }

    #[test]
    fn the_next_visit_is_told_when_it_comes_before_a_step() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(0));
        assert_eq!(wheel.next_due(i64::MAX), None);
        wheel.schedule(1, SPAN - 2);
        wheel.schedule(2, 9);
        assert_eq!((wheel.next_due(9), wheel.next_due(10)), (None, Some(9)));
        wheel.advance(9, &mut Vec::new());
        assert_eq!(wheel.next_due(i64::MAX), Some(SPAN - 2));
    }

    #[test]
    fn stale_visits_are_forgotten_and_the_others_are_not() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(0));
        for slot in 0..100 {
            wheel.schedule(slot, i64::from(slot) + 1);
        }
        wheel.forget(|slot, step| slot % 10 == 0 && step == slot + 1);
        assert_eq!(wheel.planned(), 10);
        let mut due = Vec::new();
        wheel.advance(200, &mut due);
        assert_eq!((due.len(), wheel.planned()), (10, 0));
    }

    #[test]
    fn visits_that_are_forgotten_and_those_that_come_are_told_with_their_steps_wherever_the_wheel_stands() {
        for now in [-SPAN - 3, -1, 0, 7, SPAN, 5 * SPAN + 9] {
            let mut wheel = Wheel::new();
            wheel.advance(now, &mut Vec::new());
            let steps: Vec<i64> = [1, 2, 100, SPAN / 2, SPAN - 2, SPAN - 1].iter().map(|ahead| now + ahead).collect();
            for (slot, step) in (0..).zip(&steps) {
                assert_eq!(wheel.schedule(slot, *step), *step);
            }
            let mut asked = Vec::new();
            wheel.forget(|slot, step| {
                asked.push((slot, step));
                true
            });
            asked.sort_unstable();
            let planned: Vec<(u32, u32)> = (0..).zip(steps.into_iter().map(|step| step as u32)).collect();
            assert_eq!(asked, planned, "at {now}");
            let mut due = Vec::new();
            wheel.advance(now + SPAN, &mut due);
            assert_eq!(due, planned, "at {now}");
        }
    }

    #[test]
    fn a_slot_that_was_full_once_keeps_little() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(0));
        let mut due = Vec::new();
        for step in 1..=2 * SPAN {
            (0..500).for_each(|slot| _ = wheel.schedule(slot, step));
            wheel.advance(step, &mut due);
            due.clear();
        }
        let room: usize = wheel.slots.iter().map(|entries| entries.capacity() * size_of::<u32>()).sum();
        assert!(room <= SPAN as usize * ROOM * size_of::<u32>(), "{room}");
    }

    #[test]
    fn time_that_runs_backwards_turns_nothing() {
        let mut wheel = Wheel::new();
        wheel.start(Timestamp(50_000_000_000 / PER_SECOND));
        wheel.schedule(1, 51);
        let mut due = Vec::new();
        wheel.advance(10, &mut due);
        assert!(due.is_empty());
        wheel.advance(51, &mut due);
        assert_eq!(due.len(), 1);
    }
}
