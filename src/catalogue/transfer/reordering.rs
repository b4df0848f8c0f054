//! Packets overtake each other on the way: they arrive, but in the wrong order.
//!
//! ## How tcpwhy knows
//! At least five segments of one direction, and at least one in a hundred, came after segments that were sent later. That they were
//! overtaken and not sent again is told by the sender's own clock (TCP timestamps) or counter (IP id); without either, by their coming
//! sooner than a copy could.
//!
//! ## What it is not
//! - `packet-loss`: there the late segments are copies, sent after the receiver asked for them.
//! - `spurious-retransmission`: its consequence, when the sender takes the disorder for loss.
//!
//! ## What people see
//! Nothing at first. Transfers slower than the line allows when the disorder is deep: three duplicate acknowledgments make a sender resend and
//! slow down.
//!
//! ## False alarms it avoids
//! A capture whose queues were read out of order: there the receiver acknowledged the late segments before they appear. A few of many.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "reordering",
    title: "packets arrive in the wrong order",
    severity: Severity::Notice,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Reordered]),
    says: "{late} of {all} segments from {sender} to {receiver} were overtaken on the way",
    users_see: &["transfers slower than the line allows"],
    do_first: &[Step {
        says: "Several links or paths that take turns packet by packet? On switches and routers: hash by flow. On {receiver}:",
        command: "nstat -az TcpExtTCPSACKReorder TcpExtTCPTSReorder TcpExtTCPOFOQueue",
    }],
    verify: &[Step {
        says: "on {receiver}, a minute apart; a counter that stands still means that the order is kept:",
        command: "nstat -az TcpExtTCPOFOQueue",
    }],
    not: &[("packet-loss", "the late segments were sent in order, before those that came first")],
    cannot_show: &["which hop sends packets of one connection over several ways"],
    sources: &["RFC 4737", "RFC 8985 §4"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Fewer tell nothing about the path.
const FEW: u32 = 5;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Client, Side::Server].into_iter().find_map(|side| {
        let half = flow.facts.half(side);
        if half.reordered < FEW || u64::from(half.reordered) * 100 < half.segments {
            return None;
        }
        let mut late = flow.story.events().filter(|event| event.side == side && event.what.kind() == Kind::Reordered);
        let finding = RULE.found(flow, late.next()?.at, side, "sent before the segments ahead of it");
        let finding = late.take(3).fold(finding, |finding, event| finding.and(event.at, side, "another one"));
        Some(
            finding
                .with("late", u64::from(half.reordered))
                .with("all", half.segments)
                .with("sender", flow.facts.endpoint(side).address)
                .with("receiver", flow.facts.endpoint(side.other()).address),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;

    fn disordered(late: u32, of: u64) -> Scene {
        let mut scene = Scene::open().data(Side::Server, 3, 1448).event(Side::Server, 4, What::Reordered);
        let half = &mut scene.facts.from_server;
        (half.reordered, half.segments) = (late, of);
        scene
    }

    #[test]
    fn one_in_a_hundred_and_at_least_five_are_a_notice_about_the_network() {
        let finding = disordered(5, 500).check(&RULE).expect("disorder");
        assert_eq!((finding.severity, finding.culprit), (Severity::Notice, Culprit::Network));
        assert_eq!(finding.values.get("late"), Some(&5u64.into()));
    }

    #[test]
    fn a_few_and_a_few_of_many_are_nothing() {
        assert_eq!(disordered(4, 40).check(&RULE), None);
        assert_eq!(disordered(5, 501).check(&RULE), None);
    }
}
