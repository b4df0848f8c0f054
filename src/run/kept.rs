//! Which failed and odd flows are kept whole when there are more than fit: every kind of failure at every server finds room.
//!
//! A kind is what its worst finding says, and where. While there is room all are kept, up to a number of one kind. Then a kind of which few
//! are kept takes the place of the latest one of a kind of which many are; the first ones, which tell how it began, stay. Where all kinds
//! are small, one that has been quiet for an hour makes room: a capture that goes on for days must see what breaks today.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::event::PacketRef;
use crate::rule::finding::{RuleId, rule_order};
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;

/// Flows kept whole per shard, and of these per kind: enough for evidence and counts, bounded on any capture.
pub(super) const KEPT: usize = 1024;
pub(super) const KEPT_ALIKE: usize = 512;
/// So many of a kind are left to it when others need room.
const FAIR: usize = 32;
/// What was quiet for so long makes room for what is new.
const QUIET: Elapsed = Elapsed::secs(3600);

/// The rule of a flow's worst finding (empty: it cannot be judged) and its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failing {
    pub(super) rule: RuleId,
    pub(super) server: Endpoint,
}

impl Ord for Failing {
    fn cmp(&self, other: &Self) -> Ordering {
        rule_order(&self.rule, &other.rule).then_with(|| self.server.cmp(&other.server))
    }
}

impl PartialOrd for Failing {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Who is kept, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    kinds: BTreeMap<Failing, Members>,
    len: usize,
    /// Kinds with more than [`FAIR`] flows.
    large: usize,
    /// No kind is quiet for longer than since then.
    quiet_since: Timestamp,
}

#[derive(Clone, Debug)]
struct Members {
    flows: BTreeSet<PacketRef>,
    last: Timestamp,
}

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is kept.
    Kept,
    /// It is kept instead of this one.
    Instead(PacketRef),
    /// There is no room.
    None,
}

impl Kept {
    /// Finds a place for flow `id`, whose last packet came at `last`.
    pub(super) fn place(&mut self, kind: Failing, id: PacketRef, last: Timestamp) -> Place {
        let alike = self.kinds.get(&kind).map_or(0, |members| members.flows.len());
        if alike >= KEPT_ALIKE {
            return Place::None;
        }
        if self.len < KEPT {
            self.enter(kind, id, last);
            return Place::Kept;
        }
        let victim = if alike < FAIR { self.victim(last) } else { None };
        match victim {
            Some(victim) => {
                self.enter(kind, id, last);
                Place::Instead(victim)
            }
            None => Place::None,
        }
    }

    fn enter(&mut self, kind: Failing, id: PacketRef, last: Timestamp) {
        let members = self.kinds.entry(kind).or_insert_with(|| Members { flows: BTreeSet::new(), last });
        members.flows.insert(id);
        members.last = members.last.max(last);
        self.large += usize::from(members.flows.len() == FAIR + 1);
        self.len += 1;
        self.quiet_since = if self.len == 1 { last } else { self.quiet_since.min(last) };
    }

    /// Takes out the latest flow of the largest kind, else of the one that is quiet for longest.
    fn victim(&mut self, now: Timestamp) -> Option<PacketRef> {
        let kind = if self.large > 0 {
            self.kinds.iter().max_by_key(|(_, members)| members.flows.len())?.0.clone()
        } else {
            if now.since(self.quiet_since) < QUIET {
                return None;
            }
            let (kind, members) = self.kinds.iter().min_by_key(|(_, members)| members.last)?;
            self.quiet_since = members.last;
            if now.since(members.last) < QUIET {
                return None;
            }
            kind.clone()
        };
        let members = self.kinds.get_mut(&kind)?;
        let victim = members.flows.pop_last()?;
        self.large -= usize::from(members.flows.len() == FAIR);
        if members.flows.is_empty() {
            self.kinds.remove(&kind);
        }
        self.len -= 1;
        Some(victim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;

    fn kind(n: usize) -> Failing {
        Failing { rule: "connect-refused".into(), server: Endpoint::new(Address(n as u128), 80) }
    }

    fn at(number: u64, seconds: i64) -> PacketRef {
        PacketRef { file: 0, number, time: Timestamp(seconds * 1_000_000_000) }
    }

    fn place(kept: &mut Kept, n: usize, number: u64, seconds: i64) -> Place {
        let id = at(number, seconds);
        kept.place(kind(n), id, id.time)
    }

    #[test]
    fn a_new_kind_takes_the_place_of_the_latest_of_the_largest_and_the_first_stay() {
        let mut kept = Kept::default();
        let of_a = (0..600).filter(|n| place(&mut kept, 1, *n, 0) == Place::Kept).count();
        let of_b = (600..1200).filter(|n| place(&mut kept, 2, *n, 0) == Place::Kept).count();
        assert_eq!((of_a, of_b), (KEPT_ALIKE, KEPT - KEPT_ALIKE));
        assert_eq!(place(&mut kept, 3, 2_000, 1), Place::Instead(at(1_111, 0)));
        assert_eq!(place(&mut kept, 3, 2_001, 1), Place::Instead(at(511, 0)));
        let more = (0..100).filter(|n| place(&mut kept, 3, 3_000 + n, 1) != Place::None).count();
        assert_eq!(more, FAIR - 2);
        assert_eq!(kept.len, KEPT);
        // What was large has lost its latest only.
        assert!(kept.kinds[&kind(1)].flows.contains(&at(0, 0)));
    }

    #[test]
    fn among_small_kinds_one_makes_room_that_was_quiet_for_an_hour() {
        let mut kept = Kept::default();
        for n in 0..KEPT {
            assert_eq!(place(&mut kept, n, n as u64, n as i64), Place::Kept);
        }
        assert_eq!(place(&mut kept, 5_000, 5_000, 3_000), Place::None);
        assert_eq!(place(&mut kept, 5_000, 5_000, 3_600), Place::Instead(at(0, 0)));
        assert_eq!(place(&mut kept, 5_001, 5_001, 3_600), Place::None);
        assert_eq!(place(&mut kept, 5_001, 5_001, 3_601), Place::Instead(at(1, 1)));
        assert_eq!((kept.len, kept.kinds.len()), (KEPT, KEPT));
    }

    #[test]
    fn books_agree_whatever_comes() {
        let mut kept = Kept::default();
        let mut held = BTreeSet::new();
        for n in 0..20_000_u64 {
            let which = (n.wrapping_mul(0x9e37_79b9) >> 7) as usize % (1 + n as usize / 9);
            match place(&mut kept, which, n, n as i64) {
                Place::Kept => assert!(held.insert(n)),
                Place::Instead(victim) => assert!(held.remove(&victim.number) && held.insert(n)),
                Place::None => {}
            }
        }
        assert_eq!((held.len(), kept.len), (KEPT, KEPT));
        let large = kept.kinds.values().filter(|members| members.flows.len() > FAIR).count();
        assert_eq!(kept.large, large);
    }
}
