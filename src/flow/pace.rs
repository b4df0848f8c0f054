//! What holds one direction up although nothing is lost: round trips that grow under load, a full window, small writes that wait for an
//! acknowledgment.
//!
//! RFC 896 (Nagle), RFC 1122 §4.2.3.2 (delayed acknowledgments), RFC 7323 (window scale). All of it is measured where the direction's
//! segments pass the capture point: near its receiver acknowledgments follow at once and nothing is found.
//! Cost: nothing until a direction has sent [`LARGE`] octets or an acknowledgment of a small segment came late; then one box.

use serde::{Deserialize, Serialize};

use super::Sink;
use super::facts;
use super::half::{Marks, Stamp};
use super::key::Way;
use super::live::Live;
use crate::decode::{Flags, Segment};
use crate::time::Elapsed;
use crate::wire::seq::Seq;

/// Round trips and windows of shorter transfers say nothing.
const LARGE: u64 = 64 << 10;
/// What a segment holds where no SYN told it (RFC 9293 §3.7.1 would say 536; links today hold more).
const SEGMENT: u32 = 1448;
/// How late a delayed acknowledgment comes beyond the round trip: 40 ms on Linux, 200 ms on Windows and BSD, less and more by their ticks.
const DELAYS: [(Elapsed, Elapsed); 2] =
    [(Elapsed::millis(36), Elapsed::millis(55)), (Elapsed::millis(180), Elapsed::millis(220))];
/// A segment that waited in the kernel leaves as soon as the acknowledgment is there.
const PROMPT: Elapsed = Elapsed::millis(2);

/// The account of one direction.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Pace {
    trips: Trips,
    /// Payload octets acknowledged since the account began, from which packet to which.
    acknowledged: u64,
    first: Option<Stamp>,
    last: Option<Stamp>,
    /// Of those: acknowledged while the window had no room for another segment.
    walled: u64,
    /// The acknowledgment that ended the first such moment, and the largest window that was full.
    wall: Option<Stamp>,
    window: u32,
    /// A small segment whose acknowledgment came late, and that acknowledgment.
    held: Option<(Stamp, Stamp)>,
    /// The same, and the segment that followed at once.
    freed: Option<(Stamp, Stamp, Stamp)>,
    stalls: u32,
    stalled: Elapsed,
    stall: Option<(Stamp, Stamp, Stamp)>,
}

/// Round trips of segments that were not alone on their way, so that no delayed acknowledgment is among them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Trips {
    /// How many were that long: four steps to each power of two, from 4 µs on.
    counts: Vec<u32>,
    count: u32,
    shortest: Option<Trip>,
    longest: Option<Trip>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Trip {
    sent: Stamp,
    acked: Stamp,
}

impl Trip {
    fn took(&self) -> Elapsed {
        self.acked.time().since(self.sent.time())
    }
}

/// Steps of [`Trips::counts`]: up to about a minute.
const STEPS: usize = 96;

impl Trips {
    fn note(&mut self, trip: Trip) {
        let micros = u32::try_from(trip.took().0 / 1_000).unwrap_or(u32::MAX).max(4);
        let power = micros.ilog2();
        let step = ((power - 2) * 4 + (micros >> (power - 2) & 3)) as usize;
        self.counts.resize(STEPS, 0);
        if let Some(count) = self.counts.get_mut(step.min(STEPS - 1)) {
            *count = count.saturating_add(1);
            self.count = self.count.saturating_add(1);
        }
        if self.shortest.is_none_or(|known| trip.took() < known.took()) {
            self.shortest = Some(trip);
        }
        if self.longest.is_none_or(|known| trip.took() > known.took()) {
            self.longest = Some(trip);
        }
    }

    /// Half of them took at least so long: the lower end of the step.
    fn median(&self) -> Option<Elapsed> {
        let mut seen = 0u64;
        let half = u64::from(self.count).div_ceil(2);
        let step = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= half
        })?;
        let (power, part) = (step / 4, step % 4);
        Some(Elapsed::micros((4 + part as i64) << power))
    }
}

/// Payload of a full segment towards a side that announced that MSS: options take up to 12 octets of it (timestamps, RFC 7323 §3.2).
fn full(mss: Option<u16>) -> u32 {
    mss.map_or(SEGMENT, |mss| u32::from(mss).saturating_sub(12).max(1))
}

impl Pace {
    /// As the facts tell it.
    pub(super) fn facts(&self) -> facts::Pace {
        let trip = |trip: Option<Trip>| trip.map(|trip| (trip.sent.packet(), trip.acked.packet()));
        facts::Pace {
            trips: self.trips.count,
            median: self.trips.median(),
            shortest: trip(self.trips.shortest),
            longest: trip(self.trips.longest),
            acknowledged: self.acknowledged,
            span: self.first.zip(self.last).map(|(first, last)| (first.packet(), last.packet())),
            walled: self.walled,
            wall: self.wall.map(Stamp::packet),
            window: self.window,
            stalls: self.stalls,
            stalled: self.stalled,
            stall: self.stall.map(|(small, ack, rest)| (small.packet(), ack.packet(), rest.packet())),
        }
    }

    /// The newest segment of an acknowledgment was sent then, and it was not alone on its way.
    pub(super) fn trip(&mut self, sent: Stamp, acked: Stamp) {
        if acked.time() >= sent.time() {
            self.trips.note(Trip { sent, acked });
        }
    }
}

impl<S: Sink> Live<'_, S> {
    /// The segment of `way` is about to acknowledge new octets of the other side: how that side stood until now.
    pub(super) fn paced(&mut self, way: Way, s: &Segment<'_>) {
        let sender = way.other();
        let payload = self.flow.tracks[sender].payload;
        let size = full(self.detail.trails[way].mss);
        if let Some(small) = self.late(way, s, size) {
            let at = self.stamp;
            self.detail.trails[sender].pace.get_or_insert_default().held = Some((small, at));
        }
        if payload >= LARGE {
            self.large(way, s, size);
        }
    }

    /// The other side has sent enough for its account.
    #[inline(never)]
    fn large(&mut self, way: Way, s: &Segment<'_>, size: u32) {
        let (sender, at) = (way.other(), self.stamp);
        let track = &self.flow.tracks[sender];
        let (una, next) = (track.una, track.next);
        let (window, known) = (self.flow.tracks[way].window, self.flow.tracks[way].marks.has(Marks::WINDOW));
        let octets = u64::from(s.ack.minus(una).unsigned_abs());
        let pace = self.detail.trails[sender].pace.get_or_insert_default();
        pace.first.get_or_insert(at);
        pace.last = Some(at);
        pace.acknowledged += octets;
        let flight = next.minus(una).max(0).unsigned_abs();
        if known && window > 0 && flight.saturating_add(size) > window {
            pace.walled += octets;
            pace.wall.get_or_insert(at);
            pace.window = pace.window.max(window);
        }
    }

    /// The one small segment on its way, when this pure acknowledgment of it comes as late as a delayed one.
    fn late(&self, way: Way, s: &Segment<'_>, size: u32) -> Option<Stamp> {
        let sender = way.other();
        let (track, trail) = (&self.flow.tracks[sender], &self.detail.trails[sender]);
        if s.payload_len > 0 || s.flags.has(Flags::FIN) || s.flags.has(Flags::SYN) || track.marks.has(Marks::FIN) {
            return None;
        }
        let sent = trail.flight.oldest()?;
        let alone = sent.start == track.una && sent.end() == track.next && s.ack == track.next;
        let waited = self.at.time.since(sent.first.time());
        let beyond = Elapsed(waited.0 - trail.min_rtt.map_or(0, |trip| trip.0));
        let delayed = DELAYS.iter().any(|(from, to)| (*from..=*to).contains(&beyond));
        (alone && delayed && sent.copies == 1 && !sent.late && sent.len < size).then_some(sent.first)
    }

    /// New payload of `way`: it may have waited for an acknowledgment, or be the answer to what did.
    #[inline]
    pub(super) fn released(&mut self, way: Way) {
        if Way::BOTH.iter().any(|way| self.detail.trails[*way].pace.is_some()) {
            self.released_now(way);
        }
    }

    #[inline(never)]
    fn released_now(&mut self, way: Way) {
        let at = self.stamp;
        let trip = self.detail.trails[way.other()].min_rtt.unwrap_or(Elapsed::ZERO);
        if let Some(pace) = self.detail.trails[way].pace.as_deref_mut()
            && let Some((small, ack)) = pace.held.take()
            && at.time().since(ack.time()) <= trip + PROMPT
        {
            pace.freed = Some((small, ack, at));
        }
        if let Some(pace) = self.detail.trails[way.other()].pace.as_deref_mut() {
            pace.held = None;
            if let Some(stall) = pace.freed.take() {
                pace.stalls = pace.stalls.saturating_add(1);
                pace.stalled = pace.stalled + stall.1.time().since(stall.0.time());
                pace.stall.get_or_insert(stall);
            }
        }
    }

    /// Takes a measured round trip of `sender` into its account, when more than that segment was on its way.
    pub(super) fn trip(&mut self, sender: Way, sent: Stamp, octets: u64, ack: Seq) {
        let size = full(self.detail.trails[sender.other()].mss);
        let rest = self.flow.tracks[sender].next.minus(ack).max(0).unsigned_abs();
        if (octets > u64::from(size) || rest >= size)
            && let Some(pace) = self.detail.trails[sender].pace.as_deref_mut()
        {
            pace.trip(sent, self.stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::script::{Script, Shot};

    fn open(server_trip: i64) -> Script {
        let mut script = Script::new();
        script.client(0, "S", 0, 0, b"");
        script.server(server_trip, "SA", 0, 1, b"");
        script.client(server_trip, "A", 1, 1, b"");
        script
    }

    /// The client writes twice and reads; the server delays its acknowledgment of the first write.
    fn stalls(delay: i64, gap: i64, answered: bool) -> u32 {
        let mut script = open(1);
        let (mut now, mut seq) = (10, 1);
        for n in 0..6u32 {
            let answers = if answered { n } else { 0 };
            script.client(now, "PA", seq, 1 + answers * 2, b"head");
            script.server(now + delay, "A", 1 + answers * 2, seq + 4, b"");
            script.client(now + delay + gap, "PA", seq + 4, 1 + answers * 2, b"body");
            if answered {
                script.server(now + delay + gap + 1, "PA", 1 + answers * 2, seq + 8, b"ok");
            } else {
                script.server(now + delay + gap + 1, "A", 1, seq + 8, b"");
            }
            (now, seq) = (now + delay + gap + 20, seq + 8);
        }
        script.facts().from_client.pace.map_or(0, |pace| pace.stalls)
    }

    #[test]
    fn a_second_write_that_leaves_with_a_late_acknowledgment_waited_for_it() {
        assert_eq!(stalls(41, 0, true), 6);
        assert_eq!(stalls(202, 0, true), 6);
    }

    #[test]
    fn prompt_acknowledgments_later_writes_and_streams_without_answers_are_no_stall() {
        assert_eq!(stalls(3, 0, true), 0);
        assert_eq!(stalls(120, 0, true), 0);
        assert_eq!(stalls(41, 9, true), 0);
        assert_eq!(stalls(41, 0, false), 0);
    }

    /// Rounds of `burst` segments; each round is acknowledged after `trip` ms with that window.
    fn bulk(burst: u32, window: u16, trip: impl Fn(u32) -> i64) -> facts::Pace {
        const LEN: u32 = 1448;
        let mut script = open(5);
        let (mut now, mut seq) = (10, 1);
        script.send(now, Shot { from_server: true, ack: 1, seq: 1, window, ..Shot::default() });
        for round in 0..40 {
            for _ in 0..burst {
                script.send(now, Shot { seq, ack: 1, cut: LEN, ..Shot::default() });
                seq += LEN;
            }
            now += trip(round);
            script.send(now, Shot { from_server: true, ack: seq, seq: 1, window, ..Shot::default() });
        }
        *script.facts().from_client.pace.expect("a large transfer")
    }

    #[test]
    fn a_window_without_room_for_another_segment_is_a_wall() {
        let limited = bulk(8, 12_000, |_| 30);
        assert_eq!((limited.walled, limited.window), (limited.acknowledged, 12_000));
        assert_eq!(bulk(8, 60_000, |_| 30).walled, 0);
    }

    #[test]
    fn the_median_of_the_round_trips_under_load_is_known_within_a_fifth() {
        let steady = bulk(8, 60_000, |_| 30).median.expect("trips");
        assert!((Elapsed::millis(24)..=Elapsed::millis(30)).contains(&steady), "{steady}");
        let grown = bulk(8, 60_000, |round| 10 + i64::from(round) * 10);
        let (sent, acked) = grown.longest.expect("trips");
        assert_eq!(acked.time.since(sent.time), Elapsed::millis(400));
        assert!(grown.median.expect("trips") >= Elapsed::millis(160));
    }

    #[test]
    fn a_short_exchange_has_no_account() {
        let mut script = open(1);
        script.client(10, "PA", 1, 1, b"x");
        script.server(11, "PA", 1, 2, b"y");
        assert_eq!(script.facts().from_client.pace, None);
    }
}
