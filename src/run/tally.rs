//! What a flow adds to the counters that rules about the capture read.

use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Retransmission, What};
use crate::flow::facts::{FlowFacts, Half, Handshake, IpProtocol, SenderClock, Vantage};
use crate::host::grid::{Cell, Seconds};
use crate::rule::tally::Tally;
use crate::rule::view::FlowView;
use crate::time::Elapsed;

/// The capture was made at the other end: what this side sent came over the wire, and no card was still to fill in its checksums.
fn far_away(facts: &FlowFacts, half: &Half) -> bool {
    let far = match facts.vantage {
        Vantage::NearClient => &facts.from_server,
        Vantage::NearServer => &facts.from_client,
        Vantage::Unknown | Vantage::Middle => return false,
    };
    std::ptr::eq(far, half)
}

/// Adds a closed flow to the counters that capture-quality rules read.
pub(super) fn count(tally: &mut Tally, facts: &FlowFacts, story: &Story, view: &FlowView<'_>) {
    tally.flows += 1;
    tally.duplicates += facts.duplicates;
    if let Some(example) = facts.duplicate
        && tally.duplicate_example.is_none_or(|known| example.1 < known.1)
    {
        tally.duplicate_example = Some(example);
    }
    for half in [&facts.from_client, &facts.from_server] {
        tally.payload_packets += half.segments;
        let (looked_at, bad) = half.checksums;
        tally.checksums += u64::from(looked_at);
        let far = far_away(facts, half);
        tally.bad_checksums += if far { 0 } else { u64::from(bad) };
        let Some(trouble) = half.trouble.as_deref() else { continue };
        tally.cut += trouble.cut;
        note_first(&mut tally.cut_first, facts, trouble.cut_first);
        tally.held_dropped += trouble.held_dropped;
        tally.oversized += u64::from(trouble.oversized);
        note_first(&mut tally.oversized_first, facts, trouble.oversized_first);
        note_first(&mut tally.bad_checksum_first, facts, trouble.checksum_first.filter(|_| !far));
    }
    if facts.transport == IpProtocol::Udp {
        return;
    }
    tally.tcp_flows += 1;
    if facts.mid_stream {
        tally.mid_stream += 1;
        tally.mid_stream_first = first_of(tally.mid_stream_first, Some(facts.id));
    }
    if let Some(clock) = skewed(facts) {
        tally.clock_skewed += 1;
        if tally.clock_skew_first.is_none_or(|known| clock.first < known.0) {
            tally.clock_skew_first = Some((clock.first, clock.last, Elapsed::millis(clock.ticks.into())));
        }
    }
    let payload = facts.from_client.payload + facts.from_server.payload;
    if payload > 0 || facts.from_client.unseen + facts.from_server.unseen > 0 {
        tally.tcp_with_payload += 1;
    }
    if facts.both_ways() {
        for half in [&facts.from_client, &facts.from_server] {
            tally.unseen += half.unseen;
            tally.acknowledged += half.acknowledged;
            tally.unseen_acks += u64::from(half.unseen_acks);
            note_first(&mut tally.unseen_first, facts, half.unseen_first);
        }
        if story.seen().has(Kind::CaptureHole) {
            let times = story.events().filter(|e| e.what.kind() == Kind::CaptureHole).map(|e| e.at.time);
            tally.unseen_times.extend(times);
            tally.unseen_times.sort_unstable();
            tally.unseen_times.truncate(256);
        }
    } else if payload + facts.from_client.unseen + facts.from_server.unseen > 0
        && (facts.handshake != Handshake::Syn || hears_answers(facts))
    {
        tally.one_sided += 1;
        tally.one_sided_segments += facts.from_client.segments + facts.from_server.segments;
        let example = facts.from_client.unseen_first.or(facts.from_server.unseen_first).unwrap_or(facts.last);
        note_first(&mut tally.one_sided_example, facts, Some(example));
    }
    let waits = || view.unanswered().filter(|waits| view.now.since(waits.time) < view.thresholds.tail);
    if view.open_at_end()
        && let Some(waits) = waits()
    {
        tally.ends_early += 1;
        note_first(&mut tally.ends_early_example, facts, Some(waits));
    }
}

/// Marks on the grid when the flow began, ended, and lost something.
pub(super) fn mark(seconds: &mut Seconds, facts: &FlowFacts, story: &Story) {
    if facts.transport == IpProtocol::Udp {
        return;
    }
    let (first, last) = (facts.start().second(), facts.last.time.second());
    seconds.add(first, &Cell { opened: 1, closed: u64::from(first == last), ..Cell::default() });
    if first != last {
        seconds.add(last, &Cell { closed: 1, ..Cell::default() });
    }
    if !story.seen().has(Kind::Retransmitted) {
        return;
    }
    let lost = |event: &&Event| {
        matches!(event.what, What::Retransmitted { kind: Retransmission::Timeout | Retransmission::Fast, .. })
    };
    let mut when: Vec<i64> = story.events().filter(lost).map(|event| event.at.time.second()).collect();
    when.dedup();
    when.into_iter().for_each(|second| seconds.add(second, &Cell { lossy: 1, ..Cell::default() }));
}

/// Ticks a second of the clocks behind TSval; the last one is Linux's with microseconds (its route option `features tcp_usec_ts`).
const RATES: [i64; 5] = [1000, 250, 100, 10, 1_000_000];

/// The sender's clock that contradicts the capture's. One host alone may be odd, so neither side's clock may fit.
fn skewed(facts: &FlowFacts) -> Option<SenderClock> {
    let long = |clock: &SenderClock| clock.last.time.since(clock.first.time) >= Elapsed::secs(1);
    let clocks = [facts.from_client.clock, facts.from_server.clock];
    let mut clocks = clocks.into_iter().flatten().filter(long);
    let first = clocks.next()?;
    (!fits(&first) && !clocks.any(|clock| fits(&clock))).then_some(first)
}

/// Whether it ticked at a rate in use, give or take 20 %.
fn fits(clock: &SenderClock) -> bool {
    let seen = clock.last.time.since(clock.first.time).0 / 1_000_000;
    RATES.iter().any(|rate| {
        let told = i64::from(clock.ticks).saturating_mul(1000) / rate;
        told.abs_diff(seen) <= seen.unsigned_abs() / 5
    })
}

/// Its acknowledgments cover what the capture never saw, octets or a SYN+ACK: the other side does answer.
fn hears_answers(facts: &FlowFacts) -> bool {
    let accepted =
        facts.handshake == Handshake::Syn && facts.from_server.packets == 0 && facts.from_client.acked.is_some();
    accepted || facts.from_client.unseen + facts.from_server.unseen > 0
}

fn note_first(slot: &mut Option<(PacketRef, PacketRef)>, facts: &FlowFacts, at: Option<PacketRef>) {
    if let Some(at) = at
        && slot.is_none_or(|(_, known)| at < known)
    {
        *slot = Some((facts.id, at));
    }
}

fn first_of(known: Option<PacketRef>, at: Option<PacketRef>) -> Option<PacketRef> {
    match (known, at) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
