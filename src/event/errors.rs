//! What of a flow's answers were errors, also of those that its story gave up: how many, from when until when, and what came after.

use serde::{Deserialize, Serialize};

use super::{Event, PacketRef, What};

/// Answers of one error status on a flow, and the good ones between and behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Option<PacketRef>,
    /// The latest.
    pub latest: Option<PacketRef>,
    /// Good answers between two of them.
    pub between: u64,
    /// Good answers since the latest.
    pub since: u64,
    /// The first of those.
    pub after: Option<PacketRef>,
}

impl Errors {
    fn failed(&mut self, at: PacketRef) {
        self.count += 1;
        self.first.get_or_insert(at);
        self.latest = Some(at);
        self.between += std::mem::take(&mut self.since);
        self.after = None;
    }

    /// What came before the first of them tells nothing.
    fn went_well(&mut self, at: PacketRef) {
        if self.latest.is_some() {
            self.since += 1;
            self.after.get_or_insert(at);
        }
    }

    /// Both, one after the other.
    pub(super) fn then(mut self, later: &Self, well: &Well) -> Self {
        if later.count == 0 {
            if let Some(first) = well.first.filter(|_| self.latest.is_some()) {
                self.since += well.count;
                self.after.get_or_insert(first);
            }
            return self;
        }
        self.between += later.between + std::mem::take(&mut self.since);
        self.count += later.count;
        self.first = self.first.or(later.first);
        Self { latest: later.latest, since: later.since, after: later.after, ..self }
    }

    /// Takes an event; `counts` says of an answer whether it is such an error.
    pub(super) fn add(&mut self, event: &Event, counts: impl Fn(&What) -> bool) {
        match &event.what {
            what if counts(what) => self.failed(event.at),
            What::Response(head) if head.is_final() && head.status < 400 => self.went_well(event.at),
            _ => {}
        }
    }
}

/// Good answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Well {
    count: u64,
    first: Option<PacketRef>,
}

impl Well {
    /// Takes an event.
    pub(super) fn add(&mut self, event: &Event) {
        if matches!(&event.what, What::Response(head) if head.is_final() && head.status < 400) {
            self.count += 1;
            self.first.get_or_insert(event.at);
        }
    }
}

/// Answers that a story gave up, from the first error of the flow on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GivenUp {
    by_status: Vec<(u16, Errors)>,
    well: Well,
}

impl GivenUp {
    /// Statuses told apart.
    const STATUSES: usize = 4;

    /// Takes an event that is given up.
    pub(super) fn add(&mut self, event: &Event) {
        let What::Response(head) = &event.what else { return };
        if head.status >= 400 {
            let place = self.by_status.iter().position(|(status, _)| *status == head.status);
            match place {
                Some(place) => self.by_status[place].1.failed(event.at),
                None if self.by_status.len() < Self::STATUSES => {
                    let mut errors = Errors::default();
                    errors.failed(event.at);
                    self.by_status.push((head.status, errors));
                }
                None => {}
            }
        } else if head.is_final() {
            self.well.add(event);
            self.by_status.iter_mut().for_each(|(_, errors)| errors.went_well(event.at));
        }
    }

    /// Statuses of which it knows.
    pub(super) fn statuses(&self) -> impl Iterator<Item = u16> {
        self.by_status.iter().map(|(status, _)| *status)
    }

    /// What it knows of one status, and of good answers.
    pub(super) fn of(&self, status: u16) -> (Errors, &Well) {
        let known = self.by_status.iter().find(|(known, _)| *known == status);
        (known.map(|(_, errors)| errors.clone()).unwrap_or_default(), &self.well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::event::story::Story;
    use crate::time::Timestamp;
    use crate::wire::http::{RequestHead, ResponseHead};

    /// The story of a connection that carries these answers, a second apart.
    fn story(answers: impl IntoIterator<Item = u16>) -> Story {
        let mut story = Story::default();
        for (number, status) in (1..).zip(answers) {
            let at =
                |n: u64| PacketRef { file: 0, number: 2 * number + n, time: Timestamp(1_000_000_000 * number as i64) };
            let mut push = |n, side, what| story.push(Event { at: at(n), side, what });
            push(0, Side::Client, What::Request(Box::new(RequestHead { method: "GET".into(), ..Default::default() })));
            push(0, Side::Client, What::RequestEnd);
            push(1, Side::Server, What::Response(Box::new(ResponseHead { status, ..Default::default() })));
            push(1, Side::Server, What::ResponseEnd);
        }
        story
    }

    fn seconds(at: Option<PacketRef>) -> Option<i64> {
        at.map(|at| at.time.0 / 1_000_000_000)
    }

    #[test]
    fn errors_that_the_story_gave_up_are_counted_and_dated() {
        for (before, errors, after) in [(2, 3, 0), (2, 3, 2), (30, 12, 40), (0, 100, 1), (11, 4, 100), (100, 2, 3)] {
            let answers = [200].repeat(before).into_iter().chain([500].repeat(errors)).chain([200].repeat(after));
            let told = story(answers).errors(500, |_| true);
            let (first, last) = (before as i64 + 1, (before + errors) as i64);
            assert_eq!(
                (told.count, told.between, told.since),
                (errors as u64, 0, after as u64),
                "{before} {errors} {after}"
            );
            assert_eq!((seconds(told.first), seconds(told.latest)), (Some(first), Some(last)));
            assert_eq!(seconds(told.after), (after > 0).then_some(last + 1), "{before} {errors} {after}");
        }
    }

    #[test]
    fn good_answers_between_errors_are_counted() {
        let turns = story([500, 200, 200, 200].repeat(30));
        let told = turns.errors(500, |_| true);
        assert_eq!((told.count, told.since), (30, 3));
        assert!(told.between >= 84, "{}", told.between);
        assert_eq!(turns.errors(503, |_| true), Errors::default());
    }
}
