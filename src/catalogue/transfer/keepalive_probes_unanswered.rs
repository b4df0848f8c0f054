//! The peer is gone: keep-alive probes get no answer.
//!
//! ## How tcpwhy knows
//! A side sent at least two keep-alive probes (0 or 1 old octet, into an open window, after a silence) that nobody answered, and the
//! other side has sent nothing since the first of them, for 3 s at least. Linux sends nine, 75 s apart, and then resets.
//!
//! ## What it is not
//! - Probes that are answered: that is how a quiet connection is kept alive.
//! - `rto-unrecovered`: there octets were under way.
//! - `zero-window`: there the peer's window is closed.
//!
//! ## What people see
//! "Connection timed out" (110) on an idle connection, pools full of dead connections, SSH sessions that are gone in the morning.
//!
//! ## False alarms it avoids
//! Answered probes, one lost probe, a capture that ends too early, and captures of one direction.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "keepalive-probes-unanswered",
    title: "the peer is gone: keep-alives get no answer",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Network,
    needs: Needs::all(&[Kind::KeepAlive]),
    claims_absence: true,
    says: "{peer} is gone: {probes} keep-alive probes of {prober} in {span}, no answer",
    users_see: &["Connection timed out (110)", "ETIMEDOUT", "Broken pipe on an idle connection"],
    do_first: &[Step {
        says: "From {prober_host}: is {peer_host} alive? If it is, a firewall between them forgot the connection:",
        command: "ping -c 3 {peer_host}",
    }],
    verify: &[Step {
        says: "on {prober_host}: such connections stand here with \"timer:(keepalive,\" and a growing count:",
        command: "ss -tno state established dst {peer_host}",
    }],
    not: &[("rto-unrecovered", "no octets were under way")],
    cannot_show: &["whether the host is gone, or a device between them forgot the connection"],
    sources: &["RFC 1122 §4.2.3.6", "RFC 9293 §3.8.4"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Unanswered probes that are no accident.
const PROBES: u32 = 2;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    [Side::Client, Side::Server].into_iter().find_map(|side| {
        let (half, peer) = (flow.facts.half(side), flow.facts.half(side.other()));
        let unanswered = half.keepalives.saturating_sub(half.keepalives_answered);
        let (heard, last) = (peer.last?, half.last?);
        let silent =
            last > heard && half.zero_window_probes == 0 && peer.zero_windows.iter().all(|z| z.until.is_some());
        if unanswered < PROBES || !silent || half.unacknowledged.is_some() {
            return None;
        }
        let told = flow.story.events().filter(|e| e.what.kind() == Kind::KeepAlive && e.side == side && e.at > heard);
        let first = told.map(|event| event.at).next().unwrap_or(last);
        let span = last.time.since(first.time);
        if flow.now.since(first.time) < flow.thresholds.tail {
            return None;
        }
        let (prober, other) = (flow.facts.endpoint(side), flow.facts.endpoint(side.other()));
        let finding = RULE.found(flow, first, side, "a keep-alive probe that nobody answers");
        let finding =
            if last > first { finding.and(last, side, format!("the latest packet, {span} later")) } else { finding };
        Some(
            finding
                .and(heard, side.other(), "the last packet of the other side")
                .with("prober", prober)
                .with("peer", other)
                .with("prober_host", prober.address)
                .with("peer_host", other.address)
                .with("probes", u64::from(unanswered))
                .with("onset", Value::Frame(first))
                .with("span", span),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;

    fn probed(times: &[i64]) -> Scene {
        let mut scene = Scene::open().data(Side::Client, 3, 40).acked(Side::Client, 4);
        for ms in times {
            scene.facts.from_client.keepalives += 1;
            scene = scene.event(Side::Client, *ms, What::KeepAlive);
        }
        scene
    }

    #[test]
    fn two_probes_without_an_answer_show_that_the_peer_is_gone() {
        let finding = probed(&[15_000, 30_000]).capture_ends(40_000).check(&RULE).expect("gone");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[2].at.number), (6, 5));
        assert_eq!(finding.values.get("probes"), Some(&2u64.into()));
    }

    #[test]
    fn one_probe_may_get_lost() {
        assert_eq!(probed(&[15_000]).capture_ends(40_000).check(&RULE), None);
    }

    #[test]
    fn answered_probes_keep_a_connection_alive() {
        let mut scene = probed(&[15_000, 30_000]);
        scene.facts.from_client.keepalives_answered = 2;
        assert_eq!(scene.event(Side::Server, 30_001, What::KeepAliveAnswered).capture_ends(40_000).check(&RULE), None);
    }

    #[test]
    fn a_capture_that_ends_with_the_probes_proves_nothing() {
        assert_eq!(probed(&[15_000, 16_000]).capture_ends(17_000).check(&RULE), None);
    }
}
