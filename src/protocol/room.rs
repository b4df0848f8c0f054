//! How many streams of an HTTP/2 connection may be open at once, and whether requests queue for a place. RFC 9113 §5.1.2.

use serde::{Deserialize, Serialize};

use crate::event::PacketRef;
use crate::event::h2::FullHouse;
use crate::time::{Elapsed, Timestamp};

/// A place that is taken within this time after it became free was waited for.
const AT_ONCE: Elapsed = Elapsed::millis(100);
/// Full for so long is told.
const LONG: Elapsed = Elapsed::secs(1);
/// So many places must have been taken at once: as many streams as are permitted may be chance.
const MANY: u32 = 3;

/// The streams that a server permits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Room {
    limit: u32,
    settings: PacketRef,
    full: Option<Full>,
}

/// All places are taken, or were until just now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Full {
    since: PacketRef,
    /// The latest request that took the last place.
    latest: PacketRef,
    /// Since when places are free, and how many.
    freed: Option<(Timestamp, u32)>,
    taken: u32,
    /// What [`Full::taken`] was when it was told, and how many streams had no answer then.
    told: u32,
    unanswered: u32,
}

impl Room {
    pub(super) fn new(limit: u32, settings: PacketRef) -> Self {
        Self { limit, settings, full: None }
    }

    /// The server permits so many from now on.
    pub(super) fn change(&mut self, limit: u32, settings: PacketRef) {
        if limit != self.limit {
            *self = Self::new(limit, settings);
        }
    }

    /// A stream began, and so many are open now; whether it is to be told that all places are taken.
    pub(super) fn begun(&mut self, at: PacketRef, open: u32) -> bool {
        let free_long = |(since, _): (Timestamp, u32)| at.time.since(since) > AT_ONCE;
        if self.full.is_some_and(|full| full.freed.is_some_and(free_long)) {
            self.full = None;
        }
        let is_full = open >= self.limit;
        if let Some(Full { freed: Some((_, free)), taken, .. }) = &mut self.full
            && *free > 0
        {
            (*free, *taken) = (*free - 1, taken.saturating_add(1));
        }
        if !is_full {
            return false;
        }
        let full =
            self.full.get_or_insert(Full { since: at, latest: at, freed: None, taken: 0, told: 0, unanswered: 0 });
        (full.latest, full.freed) = (at, None);
        full.told == 0 && full.lasts()
    }

    /// A stream ended, and so many are open now.
    pub(super) fn ended(&mut self, at: PacketRef, open: u32) {
        if let Some(full) = self.full.as_mut().filter(|_| open < self.limit) {
            full.freed.get_or_insert((at.time, 0)).1 += 1;
        }
    }

    /// What is to be told that was not yet, and at which packet, while so many streams have no answer.
    pub(super) fn tell(&mut self, unanswered: u32) -> Option<(PacketRef, FullHouse)> {
        let Self { limit, settings, full } = self;
        let full = full.as_mut().filter(|full| full.lasts() && full.taken > full.told)?;
        (full.told, full.unanswered) = (full.taken, unanswered.max(full.unanswered));
        let Full { since, latest, taken, unanswered, .. } = *full;
        Some((latest, FullHouse { limit: *limit, settings: *settings, since, taken, unanswered }))
    }
}

impl Full {
    fn lasts(&self) -> bool {
        self.taken >= MANY && self.latest.time.since(self.since.time) >= LONG
    }
}
