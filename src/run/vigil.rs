//! Which open flows are judged on a tick: those on which somebody may have waited for as long as a threshold.
//!
//! A flow is watched once, from its client's octets on, and looked at when the wait could be long enough. So the cost is one look per flow
//! and threshold, whatever goes over the flow in between.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::event::{PacketRef, Stamp};
use crate::rule::finding::Finding;
use crate::rule::summary::PackedEnd;
use crate::time::Timestamp;
use crate::wire::Endpoint;

/// A flow to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Its first packet.
    pub flow: PacketRef,
    /// Its ends, in any order.
    pub ends: (Endpoint, Endpoint),
}

/// Flows to look at, by the second from which it is worth it.
#[derive(Debug, Default)]
pub struct Vigils {
    by_second: BTreeMap<i64, Vec<Held>>,
    held: usize,
}

/// A flow to look at as it is kept: as many are as flows begin in the time of a threshold.
#[derive(Clone, Copy, Debug)]
struct Held {
    flow: Stamp,
    ends: [PackedEnd; 2],
}

const _: () = assert!(size_of::<Held>() <= 56);

impl Held {
    fn of(Watched { flow, ends: (one, other) }: Watched) -> Self {
        Self { flow: flow.into(), ends: [PackedEnd::of(one), PackedEnd::of(other)] }
    }

    fn watched(self) -> Watched {
        let [one, other] = self.ends.map(PackedEnd::end);
        Watched { flow: self.flow.packet(), ends: (one, other) }
    }
}

/// Flows watched at one time, per shard: as many as its table holds. Those that close in between are forgotten when their time comes.
const WATCHED: usize = 65_536;

impl Vigils {
    /// Looks at the flow at the first tick at or after `due`. `false` when too many are watched.
    pub fn set(&mut self, due: Timestamp, watched: Watched) -> bool {
        if self.held == WATCHED {
            return false;
        }
        self.held += 1;
        let whole = Timestamp(due.second().saturating_mul(1_000_000_000)) == due;
        let second = due.second().saturating_add(i64::from(!whole));
        let held = Held::of(watched);
        match self.by_second.last_entry() {
            // Nearly always, because time goes on.
            Some(mut latest) if *latest.key() == second => latest.get_mut().push(held),
            _ => self.by_second.entry(second).or_default().push(held),
        }
        true
    }

    /// The first second at which somebody is looked at.
    pub fn first(&self) -> Option<i64> {
        self.by_second.first_key_value().map(|(second, _)| *second)
    }

    /// Those whose time has come, in the order of their first packets.
    pub fn due(&mut self, now: Timestamp) -> Vec<Watched> {
        let later = self.by_second.split_off(&now.second().saturating_add(1));
        let now = std::mem::replace(&mut self.by_second, later);
        let mut due: Vec<Watched> = now.into_values().flatten().map(Held::watched).collect();
        self.held -= due.len();
        due.sort_unstable_by_key(|watched| watched.flow);
        due
    }
}

/// What was found on a flow while it was open.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Interim {
    /// The wait judged latest, by the packet it counts from, and how many thresholds it had passed.
    pub judged: Option<(PacketRef, u8)>,
    /// What rules said then.
    pub findings: Vec<Finding>,
    /// Of these the first ones, whose silence is over.
    pub over: usize,
}

/// Findings of open flows kept per flow: the earliest.
const KEPT: usize = 4;

impl Interim {
    /// Adds what a rule found; a longer look at the same wait replaces the shorter one.
    pub fn add(&mut self, finding: Finding) {
        let same = |known: &Finding| known.rule == finding.rule && known.first() == finding.first();
        match self.findings.iter().position(same) {
            Some(place) => self.findings[place] = finding,
            None if self.findings.len() < KEPT => self.findings.push(finding),
            None => {}
        }
    }

    /// Joins what was found at the end: it knows more of the same wait. Findings of one rule are numbered in their order.
    pub fn join(self, end: &mut Vec<Finding>) {
        for finding in self.findings {
            let known = |other: &Finding| other.rule == finding.rule && other.first() == finding.first();
            if !end.iter().any(known) {
                end.push(finding);
            }
        }
        end.sort_by(|a, b| (&a.rule, a.first()).cmp(&(&b.rule, b.first())));
        for i in 1..end.len() {
            if end[i].rule == end[i - 1].rule {
                end[i].ordinal = end[i - 1].ordinal + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Side;
    use crate::rule::Rule;
    use crate::rule::finding::Subject;

    fn at(ms: i64) -> PacketRef {
        PacketRef { file: 0, number: ms as u64, time: Timestamp(ms * 1_000_000) }
    }

    fn watched(ms: i64) -> Watched {
        let end = Endpoint::new(crate::wire::Address(0), 1);
        Watched { flow: at(ms), ends: (end, end) }
    }

    fn finding(ms: i64, shows: &str) -> Finding {
        Rule { id: "waits", ..Rule::BLANK }.about(Subject::Flow(at(1)), at(ms), Some(Side::Client), shows)
    }

    #[test]
    fn a_flow_is_looked_at_on_the_first_tick_after_its_time() {
        let mut vigils = Vigils::default();
        vigils.set(Timestamp(10_000_000_001), watched(2));
        vigils.set(Timestamp(10_000_000_000), watched(3));
        vigils.set(Timestamp(9_500_000_000), watched(1));
        assert_eq!(vigils.due(Timestamp(9_000_000_000)), []);
        assert_eq!(vigils.due(Timestamp(10_000_000_000)), [watched(1), watched(3)]);
        assert_eq!(vigils.due(Timestamp(90_000_000_000)), [watched(2)]);
    }

    #[test]
    fn the_number_of_watched_flows_is_bounded_and_falls_again() {
        let mut vigils = Vigils::default();
        let taken = (0..WATCHED + 5).filter(|_| vigils.set(Timestamp(1), watched(1))).count();
        assert_eq!((taken, vigils.due(Timestamp(5_000_000_000)).len()), (WATCHED, WATCHED));
        assert!(vigils.set(Timestamp(1), watched(1)));
    }

    #[test]
    fn the_longer_look_at_one_wait_replaces_the_shorter_and_two_waits_are_numbered() {
        let mut interim = Interim::default();
        interim.add(finding(5, "10 s"));
        interim.add(finding(5, "60 s"));
        let mut end = vec![finding(900, "at the end")];
        interim.join(&mut end);
        let told: Vec<(u32, &str)> = end.iter().map(|f| (f.ordinal, f.evidence[0].shows.as_str())).collect();
        assert_eq!(told, [(0, "60 s"), (1, "at the end")]);
    }
}
