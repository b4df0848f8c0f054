//! The proxy (or client) used an idle connection again at the very moment at which the server closed it.
//!
//! ## How tcpwhy knows
//! An earlier request of the connection was answered, then it was idle. The server's FIN and the next request crossed: either came within a
//! round trip (50 ms at least) of the other. The request drew a RST and no answer.
//!
//! ## What it is not
//! - `http-upstream-closed-before-response`: there the server had the request and closed afterwards.
//! - `idle-flow-expired`: there the server sent no FIN, and something between forgot the connection.
//!
//! ## What people see
//! A rare 502 (one in a thousand or ten thousand), "socket hang up", `NoHttpResponseException`, "server closed idle connection".
//!
//! ## False alarms it avoids
//! A FIN on an idle connection without a request near it is how keep-alive ends. A client that asks the same again on a new connection and is
//! answered has lost only time: a warning.

use crate::event::{Kind, PacketRef, ResetKind, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};
use crate::time::{Elapsed, Timestamp};

/// Two packets may cross within this time on any path.
pub(super) const CROSSING: Elapsed = Elapsed::millis(50);
/// Shorter pauses end by no keep-alive timer.
const IDLE: Elapsed = Elapsed::millis(500);
/// A request is asked again within this time.
const RETRY: Elapsed = Elapsed::secs(2);

pub static RULE: Rule = Rule {
    id: "http-keepalive-race",
    title: "a connection was used again at the moment the server closed it for idleness",
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ResponseEnd, Kind::Fin, Kind::Reset]),
    says: "{server} closed an idle connection after {idle} while {client_host} was sending the next request on it",
    users_see: &[
        "502 Bad Gateway",
        "socket hang up",
        "NoHttpResponseException",
        "server closed idle connection",
        "recv() failed (104: Connection reset by peer) while reading response header from upstream",
    ],
    do_first: &[Step {
        says: "On {host}: is the server's keep-alive timeout longer than that of {client_host}? It must be; here it is about {idle}",
        command: "sudo nginx -T 2>/dev/null | grep -n keepalive_timeout",
    }],
    fix: &[Fix {
        says: "let the side that sends requests close first: its idle timeout shorter than the server's",
        command: "keepalive_timeout 75s;",
        risk: "idle connections are held longer by the server",
    }],
    verify: &[Step {
        says: "on {host}: how long does an idle connection live?",
        command: "ss -tnoe 'sport = :{port}'",
    }],
    not: &[("network", "both packets arrived; they crossed")],
    cannot_show: &["whether the request was repeated by the application"],
    explains: &[
        Explains("http-upstream-reset-before-response", Scope::SameOrLink),
        Explains("http-upstream-closed-before-response", Scope::SameOrLink),
        Explains("stray-reset", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
    ],
    sources: &["RFC 9112 §9.3.1, §9.5, §9.6"],
    check: Check::Flow(check),
    corroborate: Some(asked_again),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let fin = flow.server().fin?;
    let all = exchanges(flow.story);
    let [.., before, last] = all.as_slice() else { return None };
    let answered = before.response_end?;
    let asked = last.request;
    if last.response.is_some() || flow.server().unseen > 0 {
        return None;
    }
    let (one, other) = (asked.time.min(fin.time), asked.time.max(fin.time));
    let idle = fin.time.since(answered.time);
    let window = flow.round_trip().unwrap_or_default().max(CROSSING);
    if idle < IDLE || other.since(one) > window {
        return None;
    }
    let reset = reset_after(flow, asked)?;
    // A server that had read the request would not answer it with a RST at once, and would have acknowledged it.
    let unread = flow.server().acked.is_none_or(|acked| flow.client().next.is_none_or(|next| acked != next));
    let sure = fin < asked || unread;
    let order = if fin < asked { "before" } else { "after" };
    let finding = RULE
        .found(flow, fin, Side::Server, format!("FIN after {idle} of silence"))
        .and(answered, Side::Server, "the latest answer is complete")
        .and(asked, Side::Client, format!("the next request; the FIN came {} {order} it", other.since(one)))
        .and(reset, Side::Server, "RST: the connection was gone when the request came")
        .with("idle", idle);
    Some(if sure { finding.confidence(Confidence::Certain) } else { finding })
}

/// Whether the server's kernel refused octets that came after its FIN.
pub(super) fn reset_for_it(flow: &FlowView<'_>) -> bool {
    flow.server().fin.is_some_and(|fin| reset_after(flow, fin).is_some())
}

fn reset_after(flow: &FlowView<'_>, at: PacketRef) -> Option<PacketRef> {
    let refused = |kind| matches!(kind, ResetKind::Stray | ResetKind::AfterFin | ResetKind::Abort);
    flow.server().resets.iter().find(|reset| reset.at > at && refused(reset.kind)).map(|reset| reset.at)
}

/// A client that asks the same again on a new connection after the failure, and is answered, has lost only time.
fn asked_again(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let Some(lost) = exchanges(&flow.story).last().copied() else { return Keep::Yes };
    let (failed, server) = (finding.last(), flow.facts.server);
    let until = failed.time + RETRY;
    let again = capture.began(lost.request.time, until).find_map(|other| {
        let same = other.client().address == flow.facts.client.address && other.server() == server;
        let other = capture.flows.get(&other.id).filter(|_| same && other.id != flow.facts.id)?;
        Some((other.facts.id, repeat(other, &lost, failed, until)?))
    });
    if let Some((other, (asked, answered))) = again {
        *finding = finding
            .clone()
            .severity(Severity::Warning)
            .cites(asked, Some(other), format!("{} {} again, on a new connection", lost.head.method, lost.head.target))
            .cites(answered, Some(other), "it is answered there")
            .note("the request was sent again on a new connection and answered");
    }
    Keep::Yes
}

/// The same request on another flow, sent between `failed` and `until`, and the packet of its answer.
fn repeat(
    flow: &FlowSummary,
    lost: &Exchange<'_>,
    failed: PacketRef,
    until: Timestamp,
) -> Option<(PacketRef, PacketRef)> {
    let same = |one: &Exchange<'_>| one.head.method == lost.head.method && one.head.target == lost.head.target;
    let all = exchanges(&flow.story);
    let one = all.iter().find(|one| same(one) && one.request > failed && one.request.time <= until)?;
    Some((one.request, one.response?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    fn idle() -> Scene {
        let scene = Scene::open().request(3, "GET", "/", 80).response(4, 200, 40).acked(Side::Server, 5);
        scene.also(Side::Server, What::ResponseEnd)
    }

    #[test]
    fn a_request_that_crosses_the_close_is_told_with_all_packets() {
        let scene = idle().request(5000, "GET", "/b", 80).fin(Side::Server, 5010);
        let finding = scene.rst(Side::Server, 5020, ResetKind::Stray, 80).check(&RULE).expect("crossed");
        assert_eq!((finding.confidence, finding.evidence.len()), (Confidence::Certain, 4));
        let scene = idle().fin(Side::Server, 5000).request(5010, "GET", "/b", 80);
        assert!(scene.rst(Side::Server, 5020, ResetKind::AfterFin, 80).check(&RULE).is_some());
    }

    #[test]
    fn a_request_that_is_asked_again_and_answered_has_cost_only_time() {
        let scene =
            idle().request(5000, "GET", "/b", 80).fin(Side::Server, 5010).rst(Side::Server, 5020, ResetKind::Stray, 80);
        let finding = scene.check(&RULE).expect("crossed");
        let told = |target: &str, ms: i64, answered: bool| {
            let other =
                Scene::starting("10.0.0.1:40002", "10.0.0.2:443", 100, ms).handshake().request(3, "GET", target, 80);
            let other = if answered { other.response(4, 200, 40) } else { other };
            World::new().with(&scene).with(&other).corroborated(&RULE, finding.clone()).expect("kept")
        };
        let again = told("/b", 5_030, true);
        let cited: Vec<u64> = again.evidence.iter().skip(4).map(|evidence| evidence.at.number).collect();
        assert_eq!((again.severity, cited), (Severity::Warning, vec![103, 104]));
        for (target, ms, answered) in
            [("/b", 4_900, true), ("/c", 5_030, true), ("/b", 5_030, false), ("/b", 9_000, true)]
        {
            assert_eq!(told(target, ms, answered).severity, Severity::Critical, "{target} {ms} {answered}");
        }
    }

    #[test]
    fn a_close_long_after_the_request_is_no_race() {
        let scene = idle().request(5000, "GET", "/b", 80).fin(Side::Server, 5900);
        assert_eq!(scene.rst(Side::Server, 5910, ResetKind::Stray, 80).check(&RULE), None);
    }

    #[test]
    fn an_idle_close_without_a_request_is_how_keep_alive_ends() {
        assert_eq!(idle().fin(Side::Server, 5000).fin(Side::Client, 5001).check(&RULE), None);
    }
}
