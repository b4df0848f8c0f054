//! Flows of which nothing is heard are frozen where very many are open, and thawed when anything is to happen to them.

use super::{FlowTable, Place};
use crate::event::PacketRef;
use crate::event::cold::{Freezer, Templates, Thawer};
use crate::flow::frozen::Cold;
use crate::flow::half::Marks;
use crate::flow::key::{Key, Way};
use crate::flow::record::{Detail, Flow};
use crate::flow::wheel::{self, step_for};
use crate::flow::{Ended, Sink};
use crate::time::{Elapsed, Timestamp};

/// By this bit of a slot the wheel tells a frozen flow.
pub(super) const COLD: u32 = 1 << 31;
/// Open flows looked at for one that can be frozen, each time there is one more of them, and places that hold none.
const LOOKS: usize = 8;
const STEPS: usize = 64;
/// Of those, how many are frozen: more than one, so that there are less in the end.
const AT_ONCE: usize = 2;
/// What is heavier than this is not written down.
const HEAVY: usize = 16 << 10;
/// With every tick, one in so many of the places made for flows that came back is lost: a sixtieth in a second, about.
const FADES: usize = 512;

impl<S: Sink> FlowTable<S> {
    /// There is one more open flow: for it, others that are idle are frozen.
    #[cold]
    #[inline(never)]
    pub(super) fn chill(&mut self, now: Timestamp) {
        let (from, after) = (self.frozen_from(), self.shared.limits.frozen_after);
        // The more there are, the shorter is the silence that is enough: half for every sixteenth beyond.
        let excess = 16 * self.live.saturating_sub(from) / from.max(1);
        let idle = Elapsed(after.0 >> excess.min(40));
        let (mut looks, mut frozen) = (0, 0);
        for _ in 0..self.places.len().min(STEPS) {
            if self.live <= from || looks == LOOKS || frozen == AT_ONCE {
                break;
            }
            self.warm_hand = if self.warm_hand + 1 < self.places.len() { self.warm_hand + 1 } else { 0 };
            let Some(place) = self.places.get(self.warm_hand).filter(|place| place.detail.is_some()) else { continue };
            let ripe = place.flow.last().is_some_and(|last| now.since(last.time()) >= idle);
            if ripe && self.freeze(self.warm_hand as u32).is_some() {
                frozen += 1;
            } else {
                looks += 1;
            }
        }
        // Where no silence is waited for, everything is tried again behind the next packet.
        self.warm = if after > Elapsed::ZERO { self.live.max(from) } else { from };
    }

    /// From how many open flows on the next ones are to be frozen: not more than there are.
    pub(super) fn cool_down(&mut self) {
        self.lively -= self.lively.div_ceil(FADES);
        self.warm = self.live.max(self.shared.limits.frozen_from);
    }

    /// From how many open flows on others are frozen. Where many of them come back, to freeze them costs more than it saves, as long as there
    /// is plenty of room.
    fn frozen_from(&mut self) -> usize {
        let limits = &self.shared.limits;
        if limits.frozen_after == Elapsed::ZERO || self.memory() > limits.memory / 2 {
            self.lively = 0;
        }
        self.shared.limits.frozen_from + self.lively
    }

    /// Freezes a flow. `None`: it stays as it is, because something is due, or because it holds much.
    fn freeze(&mut self, slot: u32) -> Option<()> {
        let Place { flow, detail: Some(detail), conversation: Some(conversation) } = self.places.get(slot as usize)?
        else {
            return None;
        };
        let last = flow.last()?.time();
        let due = detail.due;
        if !restful(flow, detail, &self.shared.limits) || detail.heap() + S::weight(conversation) > HEAVY {
            return None;
        }
        let octets = write::<S>(flow, detail, conversation, &mut self.frozen.templates)?;
        let (key, deadline) = (flow.key, flow.deadline(&self.shared.limits));
        let tells = tells::<S>(flow, detail, conversation);
        let hash = key.hash(self.seed);
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        let place = self.places.get_mut(slot as usize)?;
        place.conversation = None;
        if let Some(detail) = place.detail.take() {
            self.shared.weight -= detail.weight as usize;
            self.keep_spare(detail);
        }
        self.free.push(slot);
        self.live -= 1;
        let due = self.wheel.schedule(self.frozen.next() | COLD, due);
        let mut cold = Cold::new((last, deadline), tells, octets);
        cold.due = due as u32;
        self.frozen.put(hash, cold);
        Some(())
    }

    /// The place of the flow of this name, if it was frozen.
    #[inline]
    pub(super) fn thawed(&mut self, key: &Key, hash: u64) -> Option<u32> {
        if self.frozen.len() == 0 {
            return None;
        }
        let number = self.frozen.find(key, hash)?;
        self.lively += 1;
        self.thaw(number, true)
    }

    /// Puts a frozen flow back among the places; `stays`: it is to be looked at when it would have been.
    #[cold]
    #[inline(never)]
    fn thaw(&mut self, number: u32, stays: bool) -> Option<u32> {
        let cold = self.frozen.take(number)?;
        let known = cold.open(&self.frozen.templates).and_then(|(key, from)| read::<S>(key, from));
        debug_assert!(known.is_some(), "what was written down can be read");
        let Some((flow, mut detail, conversation)) = known else {
            self.shared.counts.evicted += 1;
            return None;
        };
        detail.weight = (Self::OWN + detail.heap() + S::weight(&conversation)) as u32;
        self.shared.weight += detail.weight as usize;
        let detail = match self.spare.pop() {
            Some(mut spare) => {
                *spare = detail;
                spare
            }
            None => Box::new(detail),
        };
        let hash = flow.key.hash(self.seed);
        let slot = self.enter(Place { flow, detail: Some(detail), conversation: Some(conversation) }, hash);
        if stays && let Some(Some(detail)) = self.places.get_mut(slot as usize).map(|place| &mut place.detail) {
            let now = self.wheel.now().unwrap_or_default();
            let ahead = cold.due.wrapping_sub(now as u32);
            detail.due = self.wheel.schedule(slot, now.saturating_add(i64::from(ahead)));
        }
        Some(slot)
    }

    /// A visit planned for a frozen flow: whether it leaves now. `None`: it is one of a place, or stale.
    pub(super) fn frozen_due(&mut self, slot: u32, step: u32, now: Timestamp) -> Option<(PacketRef, u32, Ended)> {
        let number = slot & !COLD;
        let cold = self.frozen.get(number).filter(|cold| cold.due == step)?;
        if cold.deadline <= now {
            return Some((cold.id()?, slot, Ended::Expired));
        }
        let due = self.wheel.schedule(slot, step_for(cold.deadline, Elapsed(i64::MAX)));
        self.frozen.at(number)?.due = due as u32;
        None
    }

    /// Whether a slot is that of a frozen flow.
    pub(super) fn is_frozen(slot: u32) -> bool {
        slot & COLD != 0
    }

    /// The step at which a frozen flow is looked at.
    pub(super) fn frozen_step(&self, slot: u32) -> Option<u32> {
        self.frozen.get(slot & !COLD).map(|cold| cold.due)
    }

    /// All frozen flows, with slots for [`FlowTable::leave`].
    pub(super) fn all_frozen(&self) -> impl Iterator<Item = (PacketRef, u32)> {
        self.frozen.all().map(|(id, number)| (id, number | COLD))
    }

    /// Those of them that have something to tell before they leave.
    pub(super) fn frozen_telling(&self, all: bool) -> impl Iterator<Item = (PacketRef, u32)> {
        let tells = move |number: u32| all || self.frozen.get(number & !COLD).is_some_and(|cold| cold.tells);
        self.all_frozen().filter(move |(_, slot)| tells(*slot))
    }

    /// Shows a frozen flow as it stands.
    pub(super) fn show_frozen(&self, slot: u32, show: impl FnOnce(&Flow, &Detail, &S::Conversation)) {
        let known = self.frozen.get(slot & !COLD).and_then(|cold| cold.open(&self.frozen.templates));
        if let Some((flow, detail, conversation)) = known.and_then(|(key, from)| read::<S>(key, from)) {
            show(&flow, &detail, &conversation);
        }
    }

    /// Takes a flow out of the table, frozen or not, and reports it; one whose packets were put aside only if it is to leave by now.
    pub(super) fn leave(&mut self, slot: u32, why: Ended, now: Timestamp, sink: &mut S) {
        if Self::is_gathered(slot) {
            return self.ripened(slot, now, sink);
        }
        let place = if Self::is_frozen(slot) { self.thaw(slot & !COLD, false) } else { Some(slot) };
        if let Some(slot) = place {
            self.close(slot, why, now, sink);
        }
    }

    /// Makes room by a frozen flow that is idle for long. `false` when there is none.
    pub(super) fn evict_frozen(&mut self, now: Timestamp, sink: &mut S) -> bool {
        let idle = self.frozen.idle();
        idle.inspect(|number| self.leave(number | COLD, Ended::Evicted, now, sink)).is_some()
    }

    /// Lends a flow that is frozen, to whoever knows its first packet, and freezes it again. `false` when it is not.
    pub(super) fn lend_frozen(
        &mut self,
        (key, hash): (&Key, u64),
        id: PacketRef,
        show: impl FnOnce(&Flow, &Detail, &mut S::Conversation),
    ) {
        let number = self.frozen.find(key, hash);
        let known = |number: &u32| self.frozen.get(*number).and_then(Cold::id) == Some(id);
        let Some(slot) = number.filter(known).and_then(|number| self.thaw(number, true)) else { return };
        if let Some(Place { flow, detail: Some(detail), conversation: Some(conversation) }) =
            self.places.get_mut(slot as usize)
        {
            show(flow, detail, conversation);
        }
        self.freeze(slot);
    }
}

/// Nothing is due but its end, in a while: no hole waits to be confirmed, nothing is held behind one.
fn restful(flow: &Flow, detail: &Detail, limits: &super::Limits) -> bool {
    let waits = |way: &Way| {
        let held = detail.trails[*way].rare.as_ref().is_some_and(|rare| rare.assembler.pieces() > 0);
        held || flow.tracks[*way].marks.has(Marks::WAITING)
    };
    !flow.closed() && flow.patience(limits) > wheel::HASTE && !Way::BOTH.iter().any(waits)
}

/// A flow says more than that it is open: it waits for an answer, ends, or lost something.
fn tells<S: Sink>(flow: &Flow, detail: &Detail, conversation: &S::Conversation) -> bool {
    flow.asks() || flow.ending() || !detail.healthy() || S::tells(conversation)
}

fn write<S: Sink>(
    flow: &Flow,
    detail: &Detail,
    conversation: &S::Conversation,
    templates: &mut Templates,
) -> Option<Box<[u8]>> {
    let mut into = Freezer::default();
    into.put(&detail.id).ok()?;
    if !S::freeze(conversation, &mut into) {
        return None;
    }
    let Flow { key, tracks, client, role, mid_stream, established, unanswered } = flow;
    into.put(&(tracks, client, role, mid_stream, established, unanswered)).ok()?;
    into.put(detail).ok()?;
    Some(into.finish(&key.short(), templates))
}

fn read<S: Sink>(key: Key, mut from: Thawer) -> Option<(Flow, Detail, S::Conversation)> {
    let _: PacketRef = from.take()?;
    let conversation = S::thaw(&mut from)?;
    let (tracks, client, role, mid_stream, established, unanswered) = from.take()?;
    let detail = from.take()?;
    Some((Flow { key, tracks, client, role, mid_stream, established, unanswered }, detail, conversation))
}

#[cfg(test)]
mod tests;
