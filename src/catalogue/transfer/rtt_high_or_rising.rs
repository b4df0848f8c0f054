//! While octets flow a round trip takes many times as long as without: a queue on the way is full, or the way itself grew.
//!
//! ## How tcpwhy knows
//! Half of the round trips of a transfer took at least four times as long as the shortest one of that connection, and 20 ms more. Only
//! segments count that were not alone on their way (an acknowledgment of a lone one may be delayed by the receiver's timer) and that were
//! sent once. From 100 ms more it is a warning: whoever shares the line notices it. It is seen near the sender only, where the whole round
//! trip is.
//!
//! ## What it is not
//! - `slow-response`: there acknowledgments come at once, and the answer late.
//! - `packet-loss`: what is sent twice is not counted here.
//! - `zero-window`: a receiver that does not read delays what comes next, not its acknowledgments; such connections are left out.
//!
//! ## What people see
//! Everything else on that line becomes slow while something large is transferred: calls, terminals, games.
//!
//! ## False alarms it avoids
//! Delayed acknowledgments, retransmissions, and connections with few segments in flight.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Fix, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "rtt-high-or-rising",
    title: "latency on the path grows under load",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::FirstPayloadAcknowledged]),
    says: "while {sender} sends to {receiver} a round trip takes {median} instead of {shortest}: a queue on the way is full, or the way grew",
    users_see: &["high ping during downloads", "lag", "bufferbloat"],
    do_first: &[
        Step {
            says: "From {sender}, while it is slow: where on the way does the delay begin?",
            command: "mtr -n -r -c 10 {receiver}",
        },
        Step {
            says: "On {sender}, and on each router of the way: is its queue the one (backlog)?",
            command: "tc -s qdisc show",
        },
    ],
    fix: &[Fix {
        says: "On the host or router before the narrow line: a queue that stays short (with eth0 as its interface):",
        command: "tc qdisc replace dev eth0 root fq_codel",
        risk: "it must hold the queue itself: behind it no larger one may fill first",
    }],
    verify: &[Step {
        says: "from {sender}, once with and once without the transfer; the times should be alike:",
        command: "ping -c 20 {receiver}",
    }],
    not: &[("slow-response", "the acknowledgments themselves are late: kernels send them, no program is asked")],
    cannot_show: &["which queue on the way it is, and what else fills it; or whether packets take a longer way now"],
    sources: &["RFC 7567 §1", "RFC 8290", "RFC 6298 §3"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Round trips that make a median.
const TRIPS: u32 = 20;
/// A path whose round trip varies by itself stays below these.
const TIMES: i64 = 4;
const MORE: Elapsed = Elapsed::millis(20);
/// People notice from here.
const MUCH: Elapsed = Elapsed::millis(100);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Server, Side::Client].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (mine, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let (pace, shortest) = (mine.pace.as_deref()?, mine.min_rtt?);
    let (median, (sent, acked)) = (pace.median?, pace.longest?);
    let more = Elapsed(median.0 - shortest.0);
    let grown = median.0 >= shortest.0.saturating_mul(TIMES) && more >= MORE;
    if pace.trips < TRIPS || !grown || peer.zero_window_count > 0 {
        return None;
    }
    let mut finding = RULE
        .found(
            flow,
            acked,
            side.other(),
            format!("its acknowledgment, {} later: the longest", acked.time.since(sent.time)),
        )
        .and(sent, side, "a segment that was sent once");
    if let Some((sent, acked)) = pace.shortest {
        let took = acked.time.since(sent.time);
        finding = finding.and(sent, side, "the quickest segment under load").and(
            acked,
            side.other(),
            format!("its acknowledgment, {took} later"),
        );
    }
    Some(
        finding
            .severity(if more >= MUCH { Severity::Warning } else { Severity::Notice })
            .with("sender", flow.facts.endpoint(side).address)
            .with("receiver", flow.facts.endpoint(side.other()).address)
            .with("median", median)
            .with("shortest", shortest)
            .note(format!("half of {} round trips under load took so long or longer", pace.trips)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::Pace;
    use crate::rule::testing::Scene;

    fn transfer(shortest: i64, median: i64, trips: u32) -> Scene {
        let mut scene = Scene::open().data(Side::Client, 3, 1448).acked(Side::Client, 4 + median);
        let (sent, acked) = (scene.facts.id, scene.facts.last);
        let client = &mut scene.facts.from_client;
        client.min_rtt = Some(Elapsed::millis(shortest));
        client.pace = Some(Box::new(Pace {
            trips,
            median: Some(Elapsed::millis(median)),
            longest: Some((sent, acked)),
            ..Pace::default()
        }));
        scene
    }

    #[test]
    fn round_trips_that_grow_under_load_name_a_queue() {
        let severity = |scene: Scene| scene.check(&RULE).map(|finding| finding.severity);
        assert_eq!(severity(transfer(10, 150, 400)), Some(Severity::Warning));
        assert_eq!(severity(transfer(10, 45, 400)), Some(Severity::Notice));
    }

    #[test]
    fn steady_short_and_few_round_trips_are_no_queue() {
        assert_eq!(transfer(150, 300, 400).check(&RULE), None);
        assert_eq!(transfer(1, 15, 400).check(&RULE), None);
        assert_eq!(transfer(10, 150, 12).check(&RULE), None);
    }

    #[test]
    fn a_receiver_that_does_not_read_is_another_matter() {
        let mut scene = transfer(10, 150, 400);
        scene.facts.from_server.zero_window_count = 2;
        assert_eq!(scene.check(&RULE), None);
    }
}
