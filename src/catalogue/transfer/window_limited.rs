//! A transfer is as slow as its receiver's window allows, not as fast as the network is.
//!
//! ## How tcpwhy knows
//! For most of a transfer of 1 MB or more the sender had as much on its way as the receiver's window allows, and went on only when an
//! acknowledgment came. The round trip is 5 ms or more and does not grow, so that nothing queues; the window never closes, so that the
//! program reads; nothing is lost. Such a transfer carries one window each round trip, whatever the line could carry (RFC 7323 §1.1).
//! It is seen near the sender only: elsewhere what is on its way is not known.
//!
//! ## What it is not
//! - `zero-window`: there the program does not read.
//! - `rtt-high-or-rising`: there a queue on the way is full, and a larger window would only lengthen it.
//!
//! ## What people see
//! Downloads over a long distance with the same low rate at any time of the day; several at once are faster in sum.
//!
//! ## False alarms it avoids
//! Round trips below 5 ms, where any window is enough; transfers that loss or a queue slows down; the beginning of a transfer; a capture that
//! lacks the handshake, where the scale of the windows is not known.

use crate::event::{Kind, Side};
use crate::flow::facts::Handshake;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Fix, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "window-limited",
    title: "throughput is capped by the receive window, not by the network",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Established, Kind::FirstPayloadAcknowledged]),
    says: "{receiver} takes at most {window} octets each round trip of {trip} from {sender}: {rate}, whatever the line could carry",
    users_see: &["slow downloads over long distances", "TCP Window Full"],
    do_first: &[
        Step {
            says: "On {receiver_host}: how large may a receive buffer grow (the third number), and is scaling on?",
            command: "sysctl net.ipv4.tcp_rmem net.core.rmem_max net.ipv4.tcp_window_scaling",
        },
        Step {
            says: "On {receiver_host}, while it runs: rb in skmem is the buffer; a fixed one was set by the program (SO_RCVBUF):",
            command: "ss -tmi",
        },
    ],
    fix: &[
        Fix {
            says: "In the program on {receiver_host}: do not set SO_RCVBUF, the kernel then adapts the buffer",
            command: "",
            risk: "",
        },
        Fix {
            says: "On {receiver_host}, where the largest buffer is too small for the distance:",
            command: "sysctl -w net.ipv4.tcp_rmem='4096 131072 33554432'",
            risk: "more memory for each connection",
        },
    ],
    verify: &[Step { says: "on {sender_host}, while it runs; rwnd_limited is the time spent so:", command: "ss -ti" }],
    not: &[("packet-loss", "next to nothing was sent twice")],
    cannot_show: &["how much faster the line is"],
    sources: &["RFC 7323 §1.1, §2", "RFC 9293 §3.8.6"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Octets of a transfer worth a word.
const LARGE: u64 = 1_000_000;
/// Over shorter round trips any window is enough.
const FAR: Elapsed = Elapsed::millis(5);
/// What a line of 100 Mbit/s carries in a second.
const LINE: i64 = 12_500_000;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Server, Side::Client].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let (pace, trip) = (mine.pace.as_deref()?, mine.min_rtt?);
    let ((first, last), wall) = (pace.span?, pace.wall?);
    let full = pace.walled.saturating_mul(2) >= pace.acknowledged;
    let queued = pace.median.is_none_or(|median| median.0 >= trip.0.saturating_mul(2));
    let lost = u64::from(mine.loss.total()) * 100 > mine.segments;
    let far = trip >= FAR && flow.facts.handshake == Handshake::Full;
    if mine.payload < LARGE || !far || !full || queued || lost || peer.zero_window_count > 0 {
        return None;
    }
    let micros = (last.time.since(first.time).0 / 1_000).max(1).unsigned_abs();
    let rate = pace.acknowledged.saturating_mul(1_000_000) / micros;
    let (receiver, sender) = (flow.facts.endpoint(side.other()), flow.facts.endpoint(side));
    let share = pace.walled.saturating_mul(100) / pace.acknowledged.max(1);
    let needed = LINE.saturating_mul(trip.0 / 1_000) / 1_000_000;
    let finding = RULE
        .found(flow, wall, side.other(), "the window was full until this acknowledgment")
        .and(first, side.other(), "measured from here")
        .and(
            last,
            side.other(),
            format!("to here: {} octets acknowledged, {share} % of them with a full window", pace.acknowledged),
        )
        .culprit(if side == Side::Server { Culprit::Client } else { Culprit::Server })
        .with("receiver", receiver)
        .with("receiver_host", receiver.address)
        .with("sender", sender.address)
        .with("sender_host", sender.address)
        .with("window", Value::Octets(pace.window.into()))
        .with("trip", trip)
        .with("rate", format!("{}.{} Mbit/s", rate / 125_000, rate / 12_500 % 10))
        .note(format!("a line of 100 Mbit/s with this round trip needs a window of {needed} octets"));
    Some(match unscaled(flow) {
        Some(why) => finding.note(why),
        None => finding,
    })
}

/// Without the option on both SYNs no window is larger than 65535 octets (RFC 7323 §2.2).
fn unscaled(flow: &FlowView<'_>) -> Option<&'static str> {
    match (flow.client().window_scale, flow.server().window_scale) {
        (Some(_), Some(_)) => None,
        (Some(_), None) => {
            Some("the SYN+ACK has no window scale: the server has it switched off, or a box on the way removed it")
        }
        (None, _) => {
            Some("the SYN has no window scale: the client has it switched off, or a box on the way removed it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::Pace;
    use crate::rule::testing::Scene;

    /// 2 MB of the server in some 600 ms.
    fn download(trip: i64, median: i64, walled: u64) -> Scene {
        let mut scene = Scene::open().data(Side::Client, 3, 80).data(Side::Server, 10, 1448);
        let (first, last) = (scene.facts.id, scene.facts.last);
        scene = scene.acked(Side::Server, 610);
        let server = &mut scene.facts.from_server;
        (server.payload, server.segments, server.min_rtt) = (2_000_000, 1_400, Some(Elapsed::millis(trip)));
        server.pace = Some(Box::new(Pace {
            trips: 600,
            median: Some(Elapsed::millis(median)),
            acknowledged: 1_900_000,
            span: Some((first, scene.facts.last)),
            walled,
            wall: Some(last),
            window: 65_000,
            ..Pace::default()
        }));
        scene
    }

    #[test]
    fn a_full_window_over_a_steady_round_trip_caps_the_transfer() {
        let finding = download(20, 20, 1_800_000).check(&RULE).expect("capped");
        assert_eq!((finding.severity, finding.culprit), (Severity::Notice, Culprit::Client));
        assert_eq!(finding.values.get("window"), Some(&Value::Octets(65_000)));
        assert!(finding.notes[0].contains("250000 octets"), "{:?}", finding.notes);
        assert!(finding.notes[1].starts_with("the SYN has no window scale"));
    }

    #[test]
    fn a_queue_on_the_way_fills_any_window() {
        assert_eq!(download(20, 45, 1_800_000).check(&RULE), None);
    }

    #[test]
    fn near_by_any_window_is_enough() {
        assert_eq!(download(1, 1, 1_800_000).check(&RULE), None);
    }

    #[test]
    fn a_window_that_is_full_now_and_then_caps_nothing() {
        assert_eq!(download(20, 20, 500_000).check(&RULE), None);
    }

    #[test]
    fn a_reader_that_stops_is_another_matter() {
        let mut scene = download(20, 20, 1_800_000);
        scene.facts.from_client.zero_window_count = 1;
        assert_eq!(scene.check(&RULE), None);
    }
}
