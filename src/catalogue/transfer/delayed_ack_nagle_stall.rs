//! A program writes small pieces, and each waits for the acknowledgment of the one before, which the other side delays.
//!
//! ## How tcpwhy knows
//! Five times or more: a small segment, nothing else on its way; the acknowledgment of it, without octets, some 40 or 200 ms later than a
//! round trip takes (the timer for delayed acknowledgments of the receiver's kernel, RFC 1122 §4.2.3.2); the rest of the message as soon as
//! that acknowledgment is there (the sender's kernel held it back, RFC 896); and then the answer.
//!
//! ## What it is not
//! - `slow-response`: there the whole request is there, and the answer late.
//! - `packet-loss`: nothing is sent twice.
//!
//! ## What people see
//! Each request takes 40 ms (Linux) or 200 ms (Windows) longer than it should, on an idle network, whatever the request is.
//!
//! ## False alarms it avoids
//! Streams of small messages without answers, where the pause may be the program's own; acknowledgments that are late by other times; pieces
//! that follow an acknowledgment only after a while.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Fix, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "delayed-ack-nagle-stall",
    title: "small writes wait for delayed acknowledgments",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::FirstPayloadAcknowledged]),
    says: "{sender} writes its messages to {receiver} in pieces and waits {each} for an acknowledgment in between, {stalls} times",
    users_see: &["every request takes 40 ms longer", "every request takes 200 ms longer"],
    do_first: &[Step {
        says: "On {sender_host}: does the program write a message in several pieces? A pause between two sendto or write calls is not its own here:",
        command: "sudo ss -tnpi dst {receiver_host}",
    }],
    fix: &[Fix {
        says: "In the program on {sender_host}: one write for each message, or TCP_NODELAY (nginx: tcp_nodelay on)",
        command: "",
        risk: "with TCP_NODELAY every small write is a packet of its own",
    }],
    verify: &[Step {
        says: "on {receiver_host}, a minute apart; the counter grows with each delayed acknowledgment:",
        command: "nstat -az TcpExtDelayedACKs",
    }],
    not: &[("slow-response", "the answer comes as soon as the last piece is there")],
    cannot_show: &["which of the program's writes the pieces are"],
    sources: &["RFC 896", "RFC 1122 §4.2.3.2, §4.2.3.4", "Linux TCP_DELACK_MIN (40 ms)"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Fewer are worth nothing: the kernel delays the first acknowledgments of any connection now and then.
const MANY: u32 = 5;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Client, Side::Server].into_iter().find_map(|side| judge(flow, side))
}

fn judge(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let pace = flow.facts.half(side).pace.as_deref().filter(|pace| pace.stalls >= MANY)?;
    let (small, acked, rest) = pace.stall?;
    let each = Elapsed(pace.stalled.0 / i64::from(pace.stalls));
    let (sender, receiver) = (flow.facts.endpoint(side), flow.facts.endpoint(side.other()));
    let waited = acked.time.since(small.time);
    Some(
        RULE.found(flow, acked, side.other(), format!("its acknowledgment, {waited} later, without octets"))
            .and(small, side, "the first piece of a message")
            .and(rest, side, format!("the rest, {} behind the acknowledgment", rest.time.since(acked.time)))
            .culprit(if side == Side::Client { Culprit::Client } else { Culprit::Server })
            .with("sender", sender.address)
            .with("sender_host", sender.address)
            .with("receiver", receiver)
            .with("receiver_host", receiver.address)
            .with("each", each)
            .with("stalls", u64::from(pace.stalls))
            .note(format!("{} lost on this connection in all", pace.stalled)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::Pace;
    use crate::rule::testing::Scene;

    fn stalled(stalls: u32) -> Scene {
        let mut scene = Scene::open().data(Side::Client, 3, 40);
        let small = scene.facts.last;
        scene = scene.acked(Side::Client, 44);
        let acked = scene.facts.last;
        scene = scene.data(Side::Client, 44, 400);
        let stall = Some((small, acked, scene.facts.last));
        let stalled = Elapsed::millis(41 * i64::from(stalls));
        scene.facts.from_client.pace = Some(Box::new(Pace { stalls, stalled, stall, ..Pace::default() }));
        scene
    }

    #[test]
    fn pieces_that_wait_for_delayed_acknowledgments_are_named_with_their_cost() {
        let finding = stalled(6).check(&RULE).expect("stalls");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((cited.as_slice(), finding.severity), ([5, 4, 6].as_slice(), Severity::Notice));
        assert_eq!(finding.notes, ["246 ms lost on this connection in all"]);
    }

    #[test]
    fn a_few_are_no_habit() {
        assert_eq!(stalled(4).check(&RULE), None);
    }
}
