//! The peer stopped acknowledging and never came back: the same octets were sent again and again into nothing.
//!
//! ## How tcpwhy knows
//! One segment with payload was sent at least three times over at least half a second, 3 s have passed since its first copy, and nobody
//! acknowledged it up to the end of the flow. It is a bare fact: a dead host, a dead path, a firewall that forgot the connection and a
//! path MTU look alike from here.
//!
//! At the receiver's end it looks the other way round: octets that it has acknowledged come again and again, with growing pauses and nothing
//! new between them, up to the end. Then the acknowledgments get lost.
//!
//! ## What it is not
//! - `packet-loss`: there the transfer goes on.
//! - `zero-window`: there the peer answers, with a closed window.
//! - `connect-timeout`: there not even the handshake succeeded.
//!
//! ## What people see
//! A hang of up to 15 minutes, then ETIMEDOUT ("Connection timed out", 110); SSH sessions that freeze.
//!
//! ## False alarms it avoids
//! A capture that ends while the sender still backs off, a lone FIN that nobody acknowledges (the work was done), one-sided captures, and
//! connections that both sides closed.

use crate::event::{Kind, Retransmission, Side};
use crate::flow::facts::{Close, Resent};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::Endpoint;

pub static RULE: Rule = Rule {
    id: "rto-unrecovered",
    title: "the peer stopped acknowledging and never came back",
    severity: Severity::Critical,
    confidence: Confidence::Medium,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Retransmitted]),
    symptom: true,
    claims_absence: true,
    says: "{receiver} stopped acknowledging: {sender} sent the same {octets} octets {copies} times in {span}",
    variants: &[
        "{receiver} acknowledges nothing: {sender} sent the same {octets} octets {copies} times in {span}",
        "the ACKs of {receiver} do not arrive: for {span} {sender} repeats octets that were acknowledged at once",
    ],
    users_see: &["Connection timed out (110)", "ETIMEDOUT", "SSH sessions that freeze", "No route to host"],
    do_first: &[Step {
        says: "From {sender_host}: is {receiver_host} alive, and does the path to it work?",
        command: "ping -c 3 {receiver_host}",
    }],
    verify: &[Step {
        says: "on {sender_host}: one that backs off shows \"timer:(on,\" and a growing count:",
        command: "ss -tno state established dst {receiver_host}",
    }],
    not: &[("zero-window", "the peer did not answer with a closed window")],
    cannot_show: &["whether the host, its path, or a firewall between them is at fault"],
    explains: &[
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("response-stalled", Scope::SameOrLink),
        Explains("proxy-upstream-timeout", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::Link),
    ],
    sources: &["RFC 9293 §3.8.3", "RFC 6298 §5"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Variant of the headline where the octets arrived and their acknowledgments did not.
pub const ACKS_LOST: u8 = 2;

/// Copies that make a back-off.
const COPIES: u32 = 3;
/// And the least time over which they came: two tail probes are closer together.
const SPAN: Elapsed = Elapsed::millis(500);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if matches!(flow.facts.close, Close::Fin) {
        return None;
    }
    let sides = [Side::Client, Side::Server];
    sides
        .into_iter()
        .find_map(|side| direction(flow, side))
        .or_else(|| sides.into_iter().find_map(|side| unheard(flow, side)))
}

/// At the receiver's end: what `side` sends was acknowledged here, and comes again and again.
fn unheard(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (half, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let (new, end) = (half.last_payload?, half.last?);
    let mut copies = half.loss.worst.clone();
    copies.retain(|resent| resent.kind == Retransmission::Spurious && resent.copy > new);
    copies.sort_by_key(|resent| resent.copy);
    let [first, second, third] = copies.get(..3)? else { return None };
    let apart = |a: &Resent, b: &Resent| b.copy.time.since(a.copy.time);
    let backs_off = apart(second, third).0 > apart(first, second).0 + apart(first, second).0 / 2;
    let span = end.time.since(first.copy.time);
    // Its timer doubles: had an ACK arrived, the pause would be longer than all of it.
    let goes_on = flow.now.since(end.time) <= span;
    let acknowledged = peer.last.filter(|ack| *ack > first.copy)?;
    if !backs_off || span < flow.thresholds.tail || !goes_on || peer.reset_count > 0 {
        return None;
    }
    let finding = RULE
        .found(flow, first.copy, side, "octets that were acknowledged come again")
        .and_maybe(first.original, side, "their first copy")
        .and(second.copy, side, "and again")
        .and(third.copy, side, "and again, after a longer pause")
        .and(acknowledged, side.other(), "the other side's latest ACK")
        .variant(ACKS_LOST);
    let (sender, receiver) = (flow.facts.endpoint(side), flow.facts.endpoint(side.other()));
    Some(fill(finding, sender, receiver).with("octets", "").with("copies", "").with("span", span))
}

fn fill(finding: Finding, sender: Endpoint, receiver: Endpoint) -> Finding {
    finding
        .with("sender", sender)
        .with("receiver", receiver)
        .with("sender_host", sender.address)
        .with("receiver_host", receiver.address)
}

fn direction(flow: &FlowView<'_>, side: Side) -> Option<Finding> {
    let (half, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
    let waits = half.unacknowledged.filter(|waits| waits.len > 0 && waits.copies >= COPIES)?;
    let span = waits.last.time.since(waits.first.time);
    let long = span >= SPAN && flow.now.since(waits.first.time) >= flow.thresholds.tail;
    // A peer that closed its window is there; one that reset the connection afterwards, too.
    let closed = peer.zero_windows.last().is_some_and(|zero| zero.until.is_none());
    let came_back = peer.resets.iter().any(|reset| reset.at > waits.first);
    if !long || closed || came_back || peer.packets == 0 {
        return None;
    }
    let (sender, receiver) = (flow.facts.endpoint(side), flow.facts.endpoint(side.other()));
    let finding = RULE
        .found(flow, waits.first, side, "octets that nobody acknowledges")
        .and(waits.last, side, format!("their copy number {}, {span} later", waits.copies))
        .variant(u8::from(half.acknowledged == 0));
    let finding = fill(finding, sender, receiver)
        .with("octets", u64::from(waits.len))
        .with("copies", u64::from(waits.copies))
        .with("onset", Value::Frame(waits.first))
        .with("span", span);
    Some(match peer.last {
        Some(last) if last < waits.first => finding.and(last, side.other(), "the last packet of the other side"),
        Some(last) => finding
            .and(last, side.other(), "the other side still sends, but acknowledges nothing")
            .note("the other side still sends: only this direction, or only these octets, get lost"),
        None => finding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;

    fn sent() -> Scene {
        Scene::open().data(Side::Client, 3, 40).again(Side::Client, 203).again(Side::Client, 611)
    }

    #[test]
    fn three_copies_that_nobody_acknowledges_for_three_seconds() {
        let finding = sent().again(Side::Client, 1_500).capture_ends(3_100).check(&RULE).expect("gone");
        assert_eq!((finding.severity, finding.evidence[0].at.number), (Severity::Critical, 4));
        assert_eq!(finding.values.get("copies"), Some(&4u64.into()));
        assert_eq!(finding.evidence[2].at.number, 2, "the peer's last packet");
    }

    #[test]
    fn a_capture_that_ends_during_the_back_off_proves_nothing() {
        assert_eq!(sent().capture_ends(2_000).check(&RULE), None);
    }

    #[test]
    fn an_acknowledgment_ends_it() {
        assert_eq!(sent().acked(Side::Client, 1_000).capture_ends(9_000).check(&RULE), None);
    }

    /// The server's octets were acknowledged at once, and come again at these times.
    fn repeated(times: &[i64]) -> Scene {
        let mut scene = Scene::open().data(Side::Client, 3, 40).acked(Side::Client, 4).data(Side::Server, 5, 900);
        let original = scene.facts.from_server.last_payload;
        scene = scene.acked(Side::Server, 6);
        for ms in times {
            scene = scene.again(Side::Server, *ms).acked(Side::Server, *ms + 1);
            let gap = Elapsed::millis(*ms - 5);
            let copy = scene.facts.from_server.loss.worst.last_mut().expect("a copy");
            (copy.kind, copy.original, copy.gap) = (Retransmission::Spurious, original, gap);
        }
        scene
    }

    #[test]
    fn octets_that_come_again_though_they_were_acknowledged_show_that_the_acks_get_lost() {
        let finding = repeated(&[900, 1_800, 4_200]).capture_ends(5_000).check(&RULE).expect("unheard");
        assert_eq!((finding.variant, finding.culprit), (2, Culprit::Network));
        assert_eq!(finding.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [8, 6, 10, 12, 13]);
    }

    #[test]
    fn copies_that_stopped_coming_were_heard_at_last() {
        assert_eq!(repeated(&[900, 1_800, 4_200]).capture_ends(9_000).check(&RULE), None);
        assert_eq!(repeated(&[900, 2_550, 4_200]).capture_ends(5_000).check(&RULE), None);
        let more = repeated(&[900, 1_800, 4_200]).data(Side::Server, 4_300, 900).acked(Side::Server, 4_301);
        assert_eq!(more.capture_ends(5_000).check(&RULE), None);
    }

    #[test]
    fn a_fin_that_nobody_acknowledges_ends_work_that_was_done() {
        let scene =
            Scene::open().fin(Side::Client, 3).fin(Side::Client, 203).fin(Side::Client, 611).fin(Side::Client, 1_500);
        assert_eq!(scene.capture_ends(9_000).check(&RULE), None);
    }

    #[test]
    fn a_peer_that_resets_is_there() {
        let scene = sent().rst(Side::Server, 1_000, ResetKind::Stray, 0);
        assert_eq!(scene.gone(20_000).check(&RULE), None);
    }

    #[test]
    fn a_peer_with_a_closed_window_is_there() {
        let scene = Scene::open().zero_window(Side::Server, 3).data(Side::Client, 4, 1).again(Side::Client, 300);
        assert_eq!(scene.again(Side::Client, 900).capture_ends(9_000).check(&RULE), None);
    }
}
