//! One side closed the connection, the other never does: it keeps a socket in CLOSE_WAIT.
//!
//! ## How tcpwhy knows
//! The FIN of one side was acknowledged, so the other kernel knows of it. The other side then sent neither octets nor a FIN of its own for
//! 60 s, or for 10 s up to the end of the capture. Its program does not close what it should.
//!
//! ## What it is not
//! - A half-close that is used: there the other side still sends.
//! - A FIN that nobody acknowledges: then the peer is gone or the path is dead.
//!
//! ## What people see
//! `ss -t state close-wait` grows, in the end "Too many open files".
//!
//! ## False alarms it avoids
//! A client that leaves a connection of its pool half open after the server's idle timeout is a notice: it closes it at the next use. A
//! wait that only the capture's clock made, by a jump (`capture-clock-jump`), is none.

use crate::event::{Kind, PacketRef, Side};
use crate::flow::Ended;
use crate::flow::facts::Close;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "half-closed-stuck",
    title: "one side closed, the other never does",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Fin, Kind::FinAcknowledged]),
    symptom: true,
    claims_absence: true,
    says: "{leaver} closed; {keeper} has not closed its side for {since}",
    users_see: &["CLOSE-WAIT", "Too many open files", "EMFILE"],
    do_first: &[Step {
        says: "On {keeper_host}: how many such sockets are there, and whose? The program must close at end of file:",
        command: "sudo ss -tnp state close-wait",
    }],
    verify: &[Step {
        says: "on {keeper_host}, twice a minute apart; a number that grows is a leak:",
        command: "ss -tn state close-wait | wc -l",
    }],
    not: &[("rto-unrecovered", "the FIN was acknowledged: the path works")],
    cannot_show: &["whether the program is busy or has forgotten the socket"],
    sources: &["RFC 9293 §3.6", "RFC 1122 §4.2.2.13"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let Close::HalfClosed(leaver) = flow.facts.close else { return None };
    let keeper = leaver.other();
    let (left, kept) = (flow.facts.half(leaver), flow.facts.half(keeper));
    let (fin, acked) = (left.fin?, left.fin_acked?);
    // What was acknowledged and is not in the capture may be the FIN.
    if kept.reset_count > 0 || left.reset_count > 0 || kept.unseen > 0 {
        return None;
    }
    let spoke_last = kept.last_payload.filter(|last| *last > fin);
    let since = flow.now.since(spoke_last.unwrap_or(fin).time);
    let confidence = if since >= flow.thresholds.half_closed {
        Confidence::High
    } else if flow.ended == Ended::CaptureEnd && since >= flow.thresholds.hang {
        Confidence::Medium
    } else {
        return None;
    };
    let finding = RULE
        .found(flow, fin, leaver, "FIN")
        .and(acked, keeper, "the FIN is acknowledged: that kernel knows")
        .and_maybe(spoke_last, keeper, "the last octets of the side that stays")
        .confidence(confidence)
        .culprit(if keeper == Side::Server { Culprit::Server } else { Culprit::Client })
        .with("leaver", flow.facts.endpoint(leaver))
        .with("keeper", flow.facts.endpoint(keeper))
        .with("keeper_host", flow.facts.endpoint(keeper).address)
        .with("since", since);
    Some(if keeper == Side::Client && pooled(flow, fin) { finding.severity(Severity::Notice) } else { finding })
}

/// A clock that jumps makes a close look long: what is left of the wait without the clock's own error must still be one.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(Value::Elapsed(since)) = finding.values.get("since") else { return Keep::Yes };
    if *since - capture.clock_error() < capture.thresholds.hang { Keep::Drop } else { Keep::Yes }
}

/// The server closed an idle connection that had done its work: the client's pool will notice at the next use.
fn pooled(flow: &FlowView<'_>, fin: PacketRef) -> bool {
    flow.pending().is_none() && flow.server().first_payload.is_some_and(|first| first < fin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::time::Elapsed;

    fn exchange() -> Scene {
        Scene::open().request(3, "GET", "/", 41).response(5, 200, 40).also(Side::Server, What::ResponseEnd)
    }

    fn left() -> Scene {
        exchange().fin(Side::Client, 300).acked(Side::Client, 301)
    }

    #[test]
    fn a_server_that_does_not_close_for_a_minute_leaks() {
        let finding = left().capture_ends(64_000).check(&RULE).expect("stuck");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::High));
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 7));
    }

    #[test]
    fn a_fin_that_the_capture_lost_leaves_nothing_open() {
        let mut scene = left().capture_ends(64_000);
        scene.facts.from_server.unseen = 1;
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn twenty_seconds_at_the_end_of_the_capture_are_likely_a_leak() {
        assert_eq!(left().capture_ends(20_000).check(&RULE).expect("stuck").confidence, Confidence::Medium);
    }

    #[test]
    fn an_hour_that_only_the_captures_clock_saw_is_no_wait() {
        let scene = left().capture_ends(3_602_000);
        let finding = scene.check(&RULE).expect("stuck by the clock");
        let mut world = World::new().with(&scene);
        assert!(world.corroborated(&RULE, finding.clone()).is_some());
        let last = PacketRef { time: scene.facts.id.time + Elapsed::millis(3_602_000), ..scene.facts.id };
        world.tally.clock_skewed = 3;
        world.tally.clock_skew_first = Some((scene.facts.id, last, Elapsed::secs(2)));
        assert_eq!(world.corroborated(&RULE, finding), None);
    }

    #[test]
    fn a_second_is_how_long_a_close_may_take() {
        assert_eq!(left().capture_ends(1_500).check(&RULE), None);
        assert_eq!(left().fin(Side::Server, 5_000).capture_ends(90_000).check(&RULE), None);
    }

    #[test]
    fn a_side_that_still_sends_uses_the_half_close() {
        let scene = left().data(Side::Server, 58_000, 100).capture_ends(64_000);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_fin_that_nobody_acknowledged_is_no_leak() {
        assert_eq!(exchange().fin(Side::Client, 300).capture_ends(90_000).check(&RULE), None);
    }

    #[test]
    fn a_pool_that_keeps_a_connection_the_server_closed_is_a_notice() {
        let scene = exchange().fin(Side::Server, 5_005).acked(Side::Server, 5_006).capture_ends(90_000);
        assert_eq!(scene.check(&RULE).expect("told").severity, Severity::Notice);
    }
}
