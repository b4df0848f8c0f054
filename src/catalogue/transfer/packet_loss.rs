//! Packets are being lost on the path: again and again segments had to be sent twice.
//!
//! ## How tcpwhy knows
//! Of one direction's segments with payload, 3 % or more (and at least 5, in at least two episodes) were sent again by timer or on
//! duplicate acknowledgments; 10 % are critical, 1 % with 3 of them a notice. If the first copy is in the capture, it was lost behind the
//! capture point; if it is missing, before it. The worst three are cited with both copies and the time between them.
//!
//! ## What it is not
//! - `loss-burst-single`: one episode has no rate.
//! - `rto-unrecovered`: there nothing came back at all; those copies are not counted here.
//! - `spurious-retransmission`: those copies were needless; they are not counted either.
//! - `capture-packet-loss`: there the receiver had what the capture missed.
//!
//! ## What people see
//! Slow transfers, stuttering calls, retransmissions in `ss -ti` and `nstat`.
//!
//! ## False alarms it avoids
//! Keep-alives, probes of a closed window, tail loss probes, copies that the receiver reports as duplicates, capture losses, and copies
//! of packets that the capture recorded twice.

use crate::event::{Kind, Side};
use crate::flow::facts::Half;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "packet-loss",
    title: "packets are being lost on the path",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Retransmitted]),
    says: "{percent} % of the segments from {sender} to {receiver} are lost, {place}",
    users_see: &["slow transfers", "calls that stutter", "retransmits in ss -ti and nstat"],
    do_first: &[
        Step {
            says: "On {client_host}: at which hop do probes or their answers get lost? (TCP, to the port that is in use)",
            command: "mtr -rwbzc 100 -T -P {port} {host}",
        },
        Step {
            says: "On both ends: does a network card, a queue or a policer drop them?",
            command: "ip -s -s link show",
        },
    ],
    verify: &[Step {
        says: "on {sender}, twice a minute apart; the counter grows with the loss:",
        command: "nstat -az TcpRetransSegs TcpExtTCPLostRetransmit",
    }],
    not: &[
        ("rto-unrecovered", "the receiver acknowledged later octets"),
        ("spurious-retransmission", "copies that were not needed are not counted"),
    ],
    cannot_show: &["which hop drops them"],
    explains: &[
        Explains("connect-slow", Scope::Same),
        Explains("connect-slow", Scope::PeerTime),
        Explains("slow-response", Scope::Same),
        Explains("tls-slow-handshake", Scope::Same),
        Explains("rtt-high-or-rising", Scope::Same),
    ],
    sources: &["RFC 5681 §3.2", "RFC 6298", "RFC 6582", "RFC 6675", "RFC 8985"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Lost segments that make a rate, and that are worth a notice.
const RATE: u64 = 5;
const FEW: u64 = 3;
/// Octets of a full segment on Ethernet, and the least that anybody takes (RFC 9293 §3.7.1).
const USUAL_MSS: u64 = 1460;
const MIN_MSS: u64 = 536;
/// Episodes that make a rate.
const EPISODES: u32 = 2;

/// Loss over this long is no burst.
const LASTS: Elapsed = Elapsed::secs(1);

/// Segments of a direction that were lost and made good. A timer that backs off sends the same segment again: one for each episode.
pub(super) fn replaced(half: &Half) -> u64 {
    // Copies of what is still waiting for an acknowledgment are no loss that was made good.
    let waiting = half.unacknowledged.map_or(0, |waits| waits.copies.saturating_sub(1));
    u64::from((half.loss.timeout.min(half.loss.episodes) + half.loss.fast).saturating_sub(waiting))
}

/// In more than one episode. Loss that never pauses for a retransmission timeout is one episode, too: there the time tells.
pub(super) fn again_and_again(half: &Half) -> bool {
    let lasts = half.loss.span.is_some_and(|(first, last)| last.time.since(first.time) >= LASTS);
    half.loss.episodes >= EPISODES || lasts && u64::from(half.loss.fast) >= RATE
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let sides = [Side::Client, Side::Server].into_iter();
    sides.filter_map(|side| direction(flow, side)).max_by_key(|finding| (finding.severity, finding.evidence.len()))
}

fn direction(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let half = flow.facts.half(side);
    let (lost, thresholds) = (replaced(half), flow.thresholds);
    if half.segments == 0 || !again_and_again(half) || half.unseen > 0 {
        return None;
    }
    let sent = on_the_wire(half, flow.facts.half(side.other()));
    let reaches = |percent: u32| lost * 100 >= sent * u64::from(percent);
    let severity = match lost {
        RATE.. if reaches(thresholds.loss_critical) => Severity::Critical,
        RATE.. if reaches(thresholds.loss_warning) => Severity::Warning,
        FEW.. if reaches(thresholds.loss_notice) => Severity::Notice,
        _ => return None,
    };
    let worst = half.loss.worst.first()?;
    let (before, after) = (half.loss.before_capture_point, half.loss.after_capture_point);
    let (sender, receiver) = (flow.facts.endpoint(side), flow.facts.endpoint(side.other()));
    let place = match (before, after) {
        (0, _) => format!("between the capture point and {}", receiver.address),
        (_, 0) => format!("between {} and the capture point", sender.address),
        _ => format!("{before} before the capture point and {after} behind it"),
    };
    let mut finding = RULE.found(flow, worst.copy, side, worst.says());
    for resent in &half.loss.worst {
        finding = finding.and_maybe(resent.original, side, "the first copy");
        if resent.copy != worst.copy {
            finding = finding.and(resent.copy, side, resent.says());
        }
    }
    Some(
        finding
            .severity(severity)
            .with("percent", Value::Text(percent(lost, sent)))
            .with("sender", sender.address)
            .with("receiver", receiver.address)
            .with("place", Value::Text(place))
            .note(format!("{lost} of {sent} segments, in {} episodes", half.loss.episodes)),
    )
}

/// Segments that were sent. A host that leaves cutting to its network card hands it many at once, which a capture there shows as one; what is
/// sent again comes singly.
fn on_the_wire(half: &Half, receiver: &Half) -> u64 {
    let largest = receiver.mss.map_or(USUAL_MSS, u64::from).clamp(MIN_MSS, USUAL_MSS);
    half.segments.max(half.payload / largest)
}

/// With one digit behind the point.
fn percent(part: u64, whole: u64) -> String {
    let tenths = part.saturating_mul(1000) / whole.max(1);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    fn lossy(lost: u32, episodes: u32) -> Scene {
        let mut scene = Scene::open().data(Side::Server, 3, 1448).again(Side::Server, 250).acked(Side::Server, 251);
        let half = &mut scene.facts.from_server;
        half.segments = 200;
        (half.loss.fast, half.loss.timeout, half.loss.episodes) = (lost - 1, 1, episodes);
        half.loss.after_capture_point = lost;
        scene
    }

    #[test]
    fn one_percent_is_a_notice_three_a_warning_ten_critical() {
        let severity = |lost| lossy(lost, 2).check(&RULE).map(|finding| finding.severity);
        assert_eq!(severity(2), None);
        assert_eq!(severity(3), Some(Severity::Notice));
        assert_eq!(severity(7), Some(Severity::Warning));
        assert_eq!(severity(20), Some(Severity::Critical));
    }

    #[test]
    fn the_place_of_the_loss_is_told_with_both_copies() {
        let finding = lossy(7, 2).check(&RULE).expect("loss");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        let place = finding.values.get("place").cloned();
        assert_eq!(place, Some(Value::Text("between the capture point and 10.0.0.1".into())));
        assert_eq!(finding.values.get("percent"), Some(&Value::Text("3.5".into())));
    }

    #[test]
    fn segments_that_a_network_card_cuts_are_counted_as_it_cuts_them() {
        let mut scene = lossy(7, 2);
        assert_eq!(scene.check(&RULE).map(|finding| finding.severity), Some(Severity::Warning));
        scene.facts.from_server.payload = 400 * 1460;
        let told = scene.check(&RULE).expect("loss");
        assert_eq!(told.severity, Severity::Notice);
        assert_eq!(told.values.get("percent"), Some(&Value::Text("1.7".into())));
    }

    #[test]
    fn one_episode_is_no_rate() {
        assert_eq!(lossy(20, 1).check(&RULE), None);
    }

    #[test]
    fn loss_that_never_pauses_is_no_burst() {
        let mut scene = lossy(20, 1);
        let later = crate::event::PacketRef { time: scene.facts.id.time + Elapsed::secs(2), ..scene.facts.id };
        scene.facts.from_server.loss.span = Some((scene.facts.id, later));
        assert!(scene.check(&RULE).is_some());
    }

    #[test]
    fn needless_copies_and_probes_are_no_loss() {
        let mut scene = lossy(7, 3);
        let loss = &mut scene.facts.from_server.loss;
        (loss.fast, loss.timeout, loss.spurious, loss.tail_probe) = (0, 1, 30, 9);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_capture_that_lost_packets_itself_has_no_rate() {
        let mut scene = lossy(20, 4);
        scene.facts.from_server.unseen = 1448;
        assert_eq!(scene.check(&RULE), None);
    }
}
