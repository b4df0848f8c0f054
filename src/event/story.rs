//! What happened on one flow, in order and bounded: the first events, the latest ones, and which kinds were seen at all.

use std::collections::VecDeque;

use prefetch_index::prefetch_index;
use serde::{Deserialize, Serialize};

use super::errors::{Errors, GivenUp, Well};
use super::{Event, Kind, KindSet, Protocol, Side, What};
use crate::wire::http::ResponseHead;

/// The bounded list of a flow's events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    head: Vec<Event>,
    tail: VecDeque<Event>,
    seen: KindSet,
    left_out: u64,
    spoken: [Option<Protocol>; 2],
    /// Of the events that were given up, one was a request.
    requests_left_out: bool,
    /// Answers among them, where errors were.
    given_up: Option<Box<GivenUp>>,
}

impl Story {
    /// Events kept from the beginning.
    pub const HEAD: usize = 48;
    /// Events kept from the end.
    pub const TAIL: usize = 16;

    /// Events of an ordinary flow.
    const FEW: usize = 8;

    /// Adds an event; when the story is full, one from the middle is given up (and counted).
    pub fn push(&mut self, event: Event) {
        let kind = event.what.kind();
        self.seen.insert(kind);
        if Self::in_facts(kind) {
            return;
        }
        event.what.aspects(&mut self.seen);
        if let What::Recognised { protocol } = event.what
            && protocol != Protocol::Proxy
        {
            self.spoken[event.side as usize] = Some(protocol);
        }
        if self.head.len() < Self::HEAD {
            if self.head.is_empty() {
                self.head.reserve(Self::FEW);
            }
            self.head.push(event);
            return;
        }
        if self.tail.len() == Self::TAIL {
            if let Some(event) = self.tail.pop_front() {
                self.requests_left_out |= matches!(event.what, What::Request(_));
                if self.seen.has(Kind::ErrorStatus) && matches!(event.what, What::Response(_)) {
                    self.given_up.get_or_insert_default().add(&event);
                }
            }
            self.left_out += 1;
        }
        self.tail.push_back(event);
    }

    /// An empty one with the memory of one that is over, as far as an ordinary flow needs it: else in time all had that of the longest.
    pub fn renewed(mut self) -> Self {
        self.head.clear();
        self.head.shrink_to(2 * Self::FEW);
        Self { head: self.head, ..Self::default() }
    }

    /// Sends for its first events.
    pub(crate) fn approach(&self) {
        (0..self.head.len().min(Self::FEW)).for_each(|place| prefetch_index(&self.head, place));
    }

    /// Gives back what it has at hand for more.
    pub fn settle(&mut self) {
        self.head.shrink_to_fit();
        self.tail.shrink_to_fit();
    }

    /// Octets it takes beside itself, about: what an event points to is a head, a hello or nothing.
    pub fn weight(&self) -> usize {
        const BEHIND: usize = 160;
        (self.head.capacity() + self.tail.capacity()) * size_of::<Event>()
            + (self.head.len() + self.tail.len()) * BEHIND
    }

    /// All kept events in order.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.head.iter().chain(self.tail.iter())
    }

    /// Every kind that ever happened, also of events no longer kept.
    pub fn seen(&self) -> &KindSet {
        &self.seen
    }

    /// Events that were given up.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many events are kept of those before requests that were given up; `None` when every request is kept.
    pub fn before_lost_requests(&self) -> Option<usize> {
        self.requests_left_out.then_some(self.head.len())
    }

    /// Error statuses of answers that were given up.
    pub fn errors_left_out(&self) -> impl Iterator<Item = u16> {
        self.given_up.iter().flat_map(|given_up| given_up.statuses())
    }

    /// Answers of this error status that `counts` (which a caller may narrow by the head of those that are kept), all of the flow.
    pub fn errors(&self, status: u16, counts: impl Fn(&ResponseHead) -> bool) -> Errors {
        let such = |what: &What| matches!(what, What::Response(head) if head.status == status && counts(head));
        let told = |events: &mut dyn Iterator<Item = &Event>| {
            let mut errors = Errors::default();
            let mut well = Well::default();
            for event in events {
                errors.add(event, such);
                well.add(event);
            }
            (errors, well)
        };
        let (head, _) = told(&mut self.head.iter());
        let (tail, well) = told(&mut self.tail.iter());
        match &self.given_up {
            Some(given_up) => {
                let (middle, good) = given_up.of(status);
                head.then(&middle, good).then(&tail, &well)
            }
            None => head.then(&tail, &well),
        }
    }

    /// First kept event of `kind` by `side`.
    pub fn first(&self, kind: Kind, side: Side) -> Option<&Event> {
        self.find(kind, |e| (e.side == side && e.what.kind() == kind).then_some(e))
    }

    /// First kept event of `kind` by either side.
    pub fn first_of(&self, kind: Kind) -> Option<&Event> {
        self.find(kind, |e| (e.what.kind() == kind).then_some(e))
    }

    /// What `pick` finds first among events of `kind`. Nothing is looked at where none was seen.
    pub fn find<'a, T>(&'a self, kind: Kind, pick: impl Fn(&'a Event) -> Option<T>) -> Option<T> {
        if self.seen.has(kind) { self.events().find_map(pick) } else { None }
    }

    /// Kept events for which `pick` gives something.
    pub fn pick<'a, T: 'a>(&'a self, pick: impl Fn(&'a Event) -> Option<T> + 'a) -> impl Iterator<Item = T> + 'a {
        self.events().filter_map(pick)
    }

    /// What was recognised last on a side, PROXY headers looked through.
    pub fn spoken(&self, side: Side) -> Option<Protocol> {
        self.spoken[side as usize]
    }

    /// Kinds that are only noted as seen: the facts of the flow hold their packets, and nearly every flow has all of them.
    fn in_facts(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::Syn
                | Kind::SynAck
                | Kind::Established
                | Kind::Fin
                | Kind::FinAcknowledged
                | Kind::FirstPayload
                | Kind::FirstPayloadAcknowledged
        )
    }

    /// Swaps the roles: the side that was taken for the client is the server.
    pub fn flip(&mut self) {
        self.spoken.swap(0, 1);
        for event in self.head.iter_mut().chain(self.tail.iter_mut()) {
            event.side = event.side.other();
        }
    }

    /// First octets of a side that nothing recognised.
    pub fn excerpt(&self, side: Side) -> Option<&[u8]> {
        self.find(Kind::Excerpt, |e| match &e.what {
            What::Excerpt { octets } if e.side == side => Some(octets.as_slice()),
            _ => None,
        })
    }
}
