//! A NAT box, firewall or balancer forgot the connection while it was idle; the next octets go nowhere or are refused.
//!
//! ## How tcpwhy knows
//! The connection worked. Then neither side sent a packet for 30 s or more, and the first new octets were either answered by a RST at
//! once, or sent at least four times without any answer. The pause is told with the longest one that a connection of the same two hosts
//! survived: the timer lies between both.
//!
//! ## What it is not
//! - `http-keepalive-race`: there the server's FIN or RST crosses the request.
//! - A restart of the server: connections without a pause are reset at the same time; then this is not claimed.
//!
//! ## What people see
//! "Connection reset by peer", "MySQL server has gone away", "SSL connection has been closed unexpectedly"; the first query of the morning
//! hangs for 15 minutes.
//!
//! ## False alarms it avoids
//! Keep-alive probes end a pause; a server that closed before is no box that forgot.

use crate::event::{Kind, PacketRef, ResetKind, Side};
use crate::flow::facts::{FlowFacts, Handshake, Unacknowledged};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "idle-flow-expired",
    title: "the connection was forgotten on the path while it was idle",
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::any(&[Kind::Reset, Kind::Retransmitted]),
    says: "after {pause} without a packet the connection to {server} is gone: the next octets are refused with RST",
    variants: &["after {pause} without a packet the connection to {server} is gone: the next octets get no answer"],
    users_see: &[
        "Connection reset by peer",
        "MySQL server has gone away",
        "SSL connection has been closed unexpectedly",
        "Operation timed out",
    ],
    do_first: &[
        Step {
            says: "On each firewall or NAT box in between: how long does it remember an idle connection?",
            command: "sysctl net.netfilter.nf_conntrack_tcp_timeout_established",
        },
        Step {
            says: "On {client_host}: do its connections send keep-alives? Those that do show a keepalive timer:",
            command: "ss -tno dst {host}",
        },
    ],
    fix: &[Fix {
        says: "Send keep-alives before the timer runs out (the program has to set SO_KEEPALIVE):",
        command: "sysctl -w net.ipv4.tcp_keepalive_time=240",
        risk: "a few packets for each idle connection; connections that are open keep their old setting",
    }],
    verify: &[Step {
        says: "on {client_host}; established connections should show a keepalive timer:",
        command: "ss -tno dst {host}",
    }],
    not: &[
        ("http-keepalive-race", "the server sent no FIN before the octets"),
        ("service-restart", "no connection without a pause was reset"),
    ],
    cannot_show: &["which box forgot it", "whether an end slept during the pause (laptop, suspended machine)"],
    explains: &[
        Explains("rto-unrecovered", Scope::SameOrLink),
        Explains("stray-reset", Scope::SameOrLink),
        Explains("middlebox-reset", Scope::Same),
        Explains("server-reset-mid-response", Scope::SameOrLink),
        Explains("http-upstream-reset-before-response", Scope::SameOrLink),
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
    ],
    sources: &["RFC 5382", "nf_conntrack_tcp_timeout_established", "AWS NLB: 350 s, Azure: 240 s"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// A RST in answer comes within this time.
const ANSWER: Elapsed = Elapsed::secs(1);
/// Sends of the first octets after the pause that make a silence.
const COPIES: u32 = 4;
/// A connection without a pause that is reset this close shows a restart.
const BESIDE: Elapsed = Elapsed::secs(2);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let facts = flow.facts;
    let (before, after) = facts.pause?;
    let pause = after.time.since(before.time);
    if pause < flow.thresholds.idle {
        return None;
    }
    let side = [Side::Client, Side::Server]
        .into_iter()
        .find(|side| facts.half(*side).unacknowledged.is_some_and(|waits| waits.first == after))?;
    let (mine, peer) = (facts.half(side), facts.half(side.other()));
    let worked = facts.handshake == Handshake::Full || mine.acknowledged > 0 && peer.packets > 0;
    if !worked || [mine.fin, peer.fin].into_iter().flatten().any(|fin| fin < after) {
        return None;
    }
    let waits = mine.unacknowledged?;
    let finding = match refusal(facts, side, after) {
        Some(reset) => RULE.found(flow, reset, side.other(), format!("RST {} later", reset.time.since(after.time))),
        None if silent(flow, side, &waits) => RULE
            .found(flow, waits.last, side, format!("the same, {} copies, no answer", waits.copies))
            .confidence(Confidence::Medium)
            .variant(1),
        None => return None,
    };
    Some(
        finding
            .and(before, side, "the last packet before the pause")
            .and(after, side, format!("the first octets after {pause}"))
            .with("pause", pause),
    )
}

/// The RST that is the only thing said after the pause.
fn refusal(facts: &FlowFacts, side: Side, after: PacketRef) -> Option<PacketRef> {
    let peer = facts.half(side.other());
    let reset = peer.resets.first().filter(|reset| reset.kind != ResetKind::AfterFin)?;
    let at_once = reset.at > after && reset.at.time.since(after.time) <= ANSWER;
    let only = peer.last_payload.is_none_or(|last| last < after) && peer.packets > u64::from(peer.reset_count);
    (at_once && only).then_some(reset.at)
}

fn silent(flow: &FlowView<'_>, side: Side, waits: &Unacknowledged) -> bool {
    let peer = flow.facts.half(side.other());
    let heard = peer.last.is_some_and(|last| last > waits.first);
    waits.copies >= COPIES && !heard && !flow.saw(Kind::Icmp)
}

/// A restart resets busy connections too; pauses that were survived bound the timer.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let facts = &flow.facts;
    let at = finding.last().time;
    let (mut survived, mut restarted) = (None, false);
    for other in capture.flows_to(&facts.server).filter(|other| other.facts.id != facts.id) {
        let reset = other.facts.from_server.resets.first().map(|reset| reset.at.time);
        restarted |= other.facts.pause.is_none() && reset.is_some_and(|when| when.since(at).abs() <= BESIDE);
        if let (Some((before, after)), None) = (other.facts.pause, reset)
            && other.facts.from_client.unacknowledged.is_none()
            && other.facts.client.address == facts.client.address
        {
            survived = survived.max(Some(after.time.since(before.time)));
        }
    }
    if restarted {
        return Keep::Drop;
    }
    let pause = facts.pause.map(|(before, after)| after.time.since(before.time));
    if let (Some(survived), Some(pause)) = (survived, pause)
        && survived < pause
    {
        finding.confidence = finding.confidence.raised();
        finding.notes.push(format!("a pause of {survived} was survived, {pause} was not: the timer lies between"));
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn idle(ms: i64) -> Scene {
        let mut scene = Scene::open()
            .data(Side::Client, 3, 40)
            .acked(Side::Client, 4)
            .data(Side::Server, 5, 90)
            .acked(Side::Server, 6);
        let before = scene.facts.last;
        scene = scene.data(Side::Client, ms, 40);
        scene.facts.pause = Some((before, scene.facts.last));
        scene
    }

    #[test]
    fn a_reset_right_after_a_long_pause_is_a_forgotten_connection() {
        let finding = idle(40_000).rst(Side::Server, 40_001, ResetKind::Stray, 40).check(&RULE).expect("expired");
        assert_eq!((finding.variant, finding.confidence), (0, Confidence::High));
    }

    #[test]
    fn copies_into_silence_after_a_long_pause_are_medium() {
        let scene = idle(40_000).again(Side::Client, 40_200).again(Side::Client, 40_600).again(Side::Client, 41_400);
        assert_eq!(
            scene.check(&RULE).map(|finding| (finding.variant, finding.confidence)),
            Some((1, Confidence::Medium))
        );
    }

    #[test]
    fn a_short_pause_outlives_no_timer() {
        assert_eq!(idle(9_000).rst(Side::Server, 9_001, ResetKind::Stray, 40).check(&RULE), None);
    }

    #[test]
    fn an_answer_after_the_pause_proves_the_connection_alive() {
        let scene = idle(40_000).acked(Side::Client, 40_001).data(Side::Server, 40_002, 90);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_busy_connection_that_is_reset_too_shows_a_restart() {
        let scene = idle(40_000).rst(Side::Server, 40_001, ResetKind::Stray, 40);
        let busy = Scene::starting("10.0.0.1:40009", "10.0.0.2:443", 90, 39_900)
            .handshake()
            .data(Side::Client, 3, 40)
            .rst(Side::Server, 90, ResetKind::Abort, 40);
        let finding = scene.check(&RULE).expect("expired");
        assert_eq!(World::new().with(&scene).with(&busy).corroborated(&RULE, finding), None);
    }
}
