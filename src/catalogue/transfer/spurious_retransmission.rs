//! Octets were sent again although they had arrived.
//!
//! ## How tcpwhy knows
//! Five segments or more were sent again that the receiver had: it said so (DSACK, RFC 2883), or had acknowledged them before the copy went
//! out; and there were more of these than of copies that were needed. The sender's timer ran out because acknowledgments came late or got
//! lost: the round trip jumped, or the way back loses packets.
//!
//! ## What it is not
//! - `packet-loss`: there the copies were needed.
//! - `capture-duplicate-packets`: there the capture recorded one packet twice.
//! - `return-path-lost`: there no acknowledgment arrives at all.
//!
//! ## What people see
//! Transfers that slow down for a moment, though nothing is lost: the sender takes its timer for loss and sends less.
//!
//! ## False alarms it avoids
//! Probes of the last segment, which are sent on suspicion; a few needless copies among many needed ones; one segment again and
//! again, which is what a sender does that hears no acknowledgment at all.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "spurious-retransmission",
    title: "data was sent again although it had arrived",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::Retransmitted]),
    says: "{sender} sent {copies} segments to {receiver} again that had arrived: acknowledgments came late or got lost",
    users_see: &["TCP Spurious Retransmission", "TCP Dup ACK"],
    do_first: &[Step {
        says: "From {sender}: does the round trip jump, or does the way back lose packets?",
        command: "ping -c 50 -i 0.2 {receiver}",
    }],
    verify: &[Step {
        says: "on {sender}, a minute apart; the counters grow with copies that were not needed:",
        command: "nstat -az TcpExtTCPDSACKRecv TcpExtTCPSpuriousRTOs",
    }],
    not: &[("packet-loss", "the receiver had the octets when they came again")],
    cannot_show: &["whether acknowledgments were late or lost, unless it was captured near the sender"],
    sources: &["RFC 2883", "RFC 3708", "RFC 5682"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Fewer are an anecdote.
const MANY: u32 = 5;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Server, Side::Client].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let loss = &flow.facts.half(side).loss;
    let shown = loss.needless.filter(|_| loss.spurious >= MANY && loss.spurious > loss.timeout + loss.fast)?;
    // One segment again and again is a sender that hears nothing at all: another rule's case.
    let first = loss.worst.first()?;
    if loss.worst.iter().all(|resent| resent.original == first.original) {
        return None;
    }
    let mut finding = RULE.about(
        Subject::Flow(flow.facts.id),
        shown,
        None,
        "shows that octets came twice: a DSACK, or a copy of acknowledged ones",
    );
    for resent in &loss.worst {
        if let Some(original) = resent.original {
            finding = finding.and(original, side, "a segment").and(
                resent.copy,
                side,
                format!("the same octets again, {} later", resent.gap),
            );
        }
    }
    let finding = finding
        .with("sender", flow.facts.endpoint(side).address)
        .with("receiver", flow.facts.endpoint(side.other()).address)
        .with("copies", u64::from(loss.spurious));
    Some(match loss.timeout + loss.fast {
        0 => finding.note("no copy was needed: nothing was lost"),
        n => finding.note(format!("{n} other copies were needed")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    fn resent(spurious: u32, needed: u32) -> Scene {
        let again = |scene: Scene, ms| scene.data(Side::Server, ms, 1448).again(Side::Server, ms + 250);
        let scene = again(Scene::open(), 3).acked(Side::Server, 460);
        let mut scene = again(scene, 500).acked(Side::Server, 960);
        let told = scene.facts.last;
        let loss = &mut scene.facts.from_server.loss;
        (loss.spurious, loss.timeout, loss.needless) = (spurious, needed, Some(told));
        scene
    }

    #[test]
    fn copies_of_what_had_arrived_are_named() {
        let finding = resent(6, 1).check(&RULE).expect("needless");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((cited.as_slice(), finding.severity), ([9, 4, 5, 7, 8].as_slice(), Severity::Notice));
    }

    #[test]
    fn few_ones_and_those_among_many_losses_are_none() {
        assert_eq!(resent(4, 0).check(&RULE), None);
        assert_eq!(resent(6, 30).check(&RULE), None);
    }

    #[test]
    fn one_segment_again_and_again_is_a_sender_that_hears_nothing() {
        let mut scene = resent(6, 1);
        scene.facts.from_server.loss.worst.truncate(1);
        assert_eq!(scene.check(&RULE), None);
    }
}
