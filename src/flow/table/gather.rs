//! Flows that have just begun wait where many do, and are worked in packet behind packet when they are over.

use super::freeze::COLD;
use super::{FlowTable, Hint, Name};
use crate::decode::{Flags, Head, Pile};
use crate::event::PacketRef;
use crate::flow::gathered::{Lent, Lingers};
use crate::flow::key::{Key, Way};
use crate::flow::{Ended, Sink};
use crate::time::Timestamp;

/// By this bit of a slot a flow is told whose packets are put aside.
const ASIDE: u32 = 1 << 30;

impl<S: Sink> FlowTable<S> {
    /// Whether packets are put aside at all.
    #[inline]
    pub(super) fn gathers(&self) -> bool {
        self.gathered.len() > 0 || self.live >= self.shared.limits.gathered_from
    }

    /// Puts a packet aside. `false`: it is to be worked in at once, as are those before it.
    pub(super) fn gather(&mut self, name: &Name, head: &Head, lent: Lent<'_>, sink: &mut S) -> bool {
        // Not copied: what was written a moment ago is read again as it was written, word by word.
        let Name { key, hash, way } = name;
        let (hash, way) = (*hash, *way);
        let now = self.wheel.now().unwrap_or_default();
        let limits = &self.shared.limits;
        let lingers = Lingers { settled: limits.settled_linger, answered: limits.answered_linger };
        // Where clocks run backwards, ticks and packets are worked in as they come.
        let backwards = head.at.time.eighth() < now;
        if let Some(number) = self.gathered.find(key, hash) {
            let mut again = false;
            if head.flags.has(Flags::SYN) {
                // Others want to know at once who listens; another SYN may end the flow at once.
                again = !head.flags.has(Flags::ACK);
                if !again {
                    self.listeners.note(head.source);
                }
            }
            if !backwards && !again && self.gathered.add(number, way, head, lent, lingers) {
                return true;
            }
            self.work_off(number, sink);
            return false;
        }
        if backwards || !begins(head) || !self.gathers_more() || self.is_known(key, hash) {
            return false;
        }
        let number = self.gathered.begin(name, now.max(head.at.time.eighth()), head.at);
        self.shared.counts.peak_flows = self.shared.counts.peak_flows.max(self.len());
        let kept = self.gathered.add(number, way, head, lent, lingers);
        if !kept {
            self.work_off(number, sink);
        }
        kept
    }

    /// There is plenty of room. A flood of SYNs takes that for flows soon, and the rest of it is packed.
    fn gathers_more(&self) -> bool {
        let limits = &self.shared.limits;
        let (many, heavy) = (self.len() >= limits.max_flows, self.memory() > limits.memory / 2);
        self.gathered.room() && !many && !heavy
    }

    /// The name belongs to a flow, or did lately.
    fn is_known(&self, key: &Key, hash: u64) -> bool {
        self.find(key, hash).is_some()
            || self.frozen.len() > 0 && self.frozen.find(key, hash).is_some()
            || self.embryos.len() > 0 && self.embryos.knows(key, hash)
            || self.tombstones.knows(hash, key)
    }

    /// Works the packets of a flow in, in the order they came.
    #[inline(never)]
    fn work_off(&mut self, number: u32, sink: &mut S) -> Option<Key> {
        let (key, taken) = self.gathered.take(number)?;
        // Since its packets are put aside nobody else took that name.
        let (mut name, mut hint) = (Name { key, hash: key.hash(self.seed), way: Way::Low }, Hint::New);
        taken.each(|way, packet| {
            name.way = way;
            hint = self.packet_now(&name, hint, packet, sink).map_or(Hint::None, Hint::At);
        });
        self.gathered.give_back(taken);
        Some(key)
    }

    /// No more packets come of the pile that has this number.
    pub fn settle(&mut self, number: u32) {
        self.gathered.settle(number);
    }

    /// The memory of a pile that was lent, if one is there that nobody needs.
    pub fn spare_pile(&mut self) -> Option<Pile> {
        self.gathered.spare()
    }

    /// The same for the flow of a name, if its packets were put aside.
    pub(super) fn work_off_named(&mut self, key: &Key, sink: &mut S) {
        if self.gathered.len() > 0
            && let Some(number) = self.gathered.find(key, key.hash(self.seed))
        {
            self.work_off(number, sink);
        }
    }

    /// The same for all, in the order of their first packets.
    pub fn work_off_all(&mut self, sink: &mut S) {
        let mut all: Vec<(PacketRef, u32)> = self.gathered.all().collect();
        all.sort_unstable();
        for (_, number) in all {
            self.work_off(number, sink);
        }
    }

    /// Whether a slot is that of a flow whose packets were put aside.
    pub(super) fn is_gathered(slot: u32) -> bool {
        slot & (ASIDE | COLD) == ASIDE
    }

    /// Those whose time is over by `now`, with slots for [`FlowTable::leave`].
    pub(super) fn ripen(&mut self, now: Timestamp, ended: &mut Vec<(PacketRef, u32, Ended)>) {
        let mut ripe = Vec::new();
        self.gathered.advance(now.eighth(), &mut ripe);
        ripe.sort_unstable();
        ripe.dedup();
        ended.extend(ripe.into_iter().map(|(id, number)| (id, number | ASIDE, Ended::Closed)));
    }

    /// What the flows need that leave behind the one at hand is sent for: it lies outside the near caches.
    pub(super) fn approach_ended(&mut self, ended: &[(PacketRef, u32, Ended)], sink: &mut S) {
        let aside = |n: usize| ended.get(n).map(|(_, slot, _)| *slot).filter(|slot| Self::is_gathered(*slot));
        let numbers = [0, 1, 2, 3].map(|n| aside(n).map(|slot| slot & !ASIDE));
        self.gathered.approach(numbers, |server, distance| sink.approach(server, distance));
    }

    /// Works in a flow whose packets were put aside; if it is due it leaves at once, while all of it is at hand.
    pub(super) fn ripened(&mut self, slot: u32, now: Timestamp, sink: &mut S) {
        let Some(key) = self.work_off(slot & !ASIDE, sink) else { return };
        let Some(slot) = self.find(&key, key.hash(self.seed)) else { return };
        if let Some((_, slot, why)) = self.visit(slot, now, sink) {
            self.close(slot, why, now, sink);
        }
    }
}

/// A SYN, or a question to a name server: what comes first of a short flow.
pub(super) fn begins(head: &Head) -> bool {
    if head.udp {
        head.destination.port == 53 && head.source.port > 1023
    } else {
        head.flags.has(Flags::SYN) && !head.flags.has(Flags::ACK)
    }
}

#[cfg(test)]
mod tests {
    use crate::event::Kind;
    use crate::flow::limits::Limits;
    use crate::flow::script::{Script, Shot};
    use crate::flow::{Ended, facts::Close};
    use crate::time::Elapsed;

    fn aside() -> Script {
        Script::with(Limits { gathered_from: 0, ..Limits::default() })
    }

    #[test]
    fn what_is_put_aside_is_worked_in_when_the_flow_is_over_and_leaves_with_the_same_tick() {
        let mut script = aside();
        script.handshake();
        script.client(10, "PA", 1, 1, b"question");
        script.client(20, "FA", 9, 1, b"");
        script.server(21, "FA", 1, 10, b"");
        script.client(22, "A", 10, 2, b"");
        assert_eq!((script.table.len(), script.table.gathered.len(), script.sink.events.len()), (1, 1, 0));
        script.tick(1);
        assert!(script.table.is_empty());
        let (facts, why) = script.sink.closed[0].clone();
        assert_eq!((why, facts.close, facts.from_client.payload), (Ended::Closed, Close::Fin, 8));
        assert_eq!(script.sink.octets[0], b"question");
    }

    #[test]
    fn a_flow_that_goes_on_is_worked_in_after_a_second_and_then_packet_by_packet() {
        let mut script = aside();
        script.handshake();
        script.tick(1);
        assert_eq!((script.table.len(), script.table.gathered.len()), (1, 0));
        assert!(script.kinds().contains(&Kind::Established));
        script.client(1_200, "PA", 1, 1, b"late");
        assert_eq!(script.sink.octets[0], b"late");
    }

    #[test]
    fn long_flows_and_too_many_are_worked_in_at_once() {
        let mut script = aside();
        script.handshake();
        for n in 0..80 {
            script.client(10 + i64::from(n), "PA", 1 + n, 1, b"x");
        }
        assert_eq!((script.table.gathered.len(), script.sink.octets[0].len()), (0, 80));
        let mut script = aside();
        for n in 0..6_000 {
            script.send(0, Shot { port: n + 1, flags: "S", ..Shot::default() });
        }
        assert_eq!(script.table.len(), 6_000);
        assert_eq!(script.table.gathered.len(), 96, "each lies in a pile of its own");
        let before = script.table.memory();
        script.finish();
        assert_eq!((script.sink.closed.len(), script.table.gathered.len()), (6_000, 0));
        assert!(script.table.memory() < before);
    }

    #[test]
    fn another_syn_ends_the_flow_when_it_comes() {
        let mut script = aside();
        script.handshake();
        script.client(10, "S", 77_000, 0, b"");
        assert_eq!(script.sink.closed[0].1, Ended::Replaced);
        assert!(script.kinds().contains(&Kind::PortReused));
    }

    #[test]
    fn where_clocks_run_backwards_nothing_waits() {
        let mut script = Script::with(Limits { gathered_from: 0, settled_linger: Elapsed::ZERO, ..Limits::default() });
        script.tick(100);
        script.client(0, "S", 0, 0, b"");
        script.server(1, "SA", 0, 1, b"");
        assert_eq!(script.table.gathered.len(), 0);
        assert_eq!(script.kinds(), [Kind::Syn, Kind::SynAck]);
    }
}
