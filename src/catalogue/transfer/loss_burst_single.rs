//! One brief burst of loss that was made good: no rate can be told from it.
//!
//! ## How tcpwhy knows
//! At least three segments of one direction were sent again, all within one episode (less than one retransmission timeout apart), and
//! later octets were acknowledged.
//!
//! ## What it is not
//! - `packet-loss`: there it happens again and again.
//! - `rto-unrecovered`: there nothing is acknowledged any more.
//!
//! ## What people see
//! A pause of some hundred milliseconds, mostly nothing.
//!
//! ## False alarms it avoids
//! One or two lost segments, a timer that backs off, tail loss probes, needless copies, and holes of the capture.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

use super::packet_loss::{again_and_again, replaced};

pub static RULE: Rule = Rule {
    id: "loss-burst-single",
    title: "one brief burst of loss, made good",
    severity: Severity::Notice,
    confidence: Confidence::Low,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Retransmitted]),
    says: "one burst of {lost} lost segments from {sender} to {receiver}; afterwards it went on",
    users_see: &["a short pause"],
    do_first: &[Step {
        says: "Did other connections lose packets in that second, too? On both ends:",
        command: "ip -s -s link show",
    }],
    verify: &[Step {
        says: "on {sender}, a minute apart; a counter that stands still means that it was once:",
        command: "nstat -az TcpRetransSegs",
    }],
    not: &[("packet-loss", "all of it happened at one moment")],
    cannot_show: &["which hop dropped them"],
    sources: &["RFC 6298 §5", "RFC 6675"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Fewer are daily business.
const BURST: u64 = 3;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Client, Side::Server].into_iter().find_map(|side| {
        let half = flow.facts.half(side);
        let lost = replaced(half);
        let went_on = half.unacknowledged.is_none() && half.acknowledged > 0;
        if again_and_again(half) || lost < BURST || !went_on || half.unseen > 0 {
            return None;
        }
        // A pause of seconds is no brief burst, whatever it was.
        let worst = half.loss.worst.first().filter(|worst| worst.gap < flow.thresholds.tail)?;
        Some(
            RULE.found(flow, worst.copy, side, worst.says())
                .and_maybe(worst.original, side, "the first copy")
                .with("lost", lost)
                .with("sender", flow.facts.endpoint(side).address)
                .with("receiver", flow.facts.endpoint(side.other()).address),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    fn burst(lost: u32, episodes: u32) -> Scene {
        let mut scene = Scene::open().data(Side::Server, 3, 1448).again(Side::Server, 250).acked(Side::Server, 251);
        let half = &mut scene.facts.from_server;
        half.segments = 200;
        (half.loss.fast, half.loss.timeout, half.loss.episodes) = (lost, 0, episodes);
        scene
    }

    #[test]
    fn one_episode_that_was_made_good_is_a_notice_of_low_confidence() {
        let finding = burst(12, 1).check(&RULE).expect("a burst");
        assert_eq!((finding.severity, finding.confidence), (Severity::Notice, Confidence::Low));
        assert_eq!(finding.values.get("lost"), Some(&12u64.into()));
    }

    #[test]
    fn a_single_lost_segment_is_daily_business() {
        assert_eq!(burst(2, 1).check(&RULE), None);
    }

    #[test]
    fn loss_that_comes_again_is_another_matter() {
        assert_eq!(burst(12, 2).check(&RULE), None);
    }

    #[test]
    fn what_is_still_waiting_was_not_made_good() {
        assert_eq!(burst(12, 1).data(Side::Server, 300, 1448).check(&RULE), None);
    }
}
