//! The client waits for `100 Continue` before it sends the body, and none comes.
//!
//! ## How tcpwhy knows
//! The request says `Expect: 100-continue`, no `100` came, and its body followed only after 0.9 s to 5 s: curl waits 1 s for leave. Or the
//! server answered 417.
//!
//! ## What it is not
//! - `slow-response`: there the server has the whole request and takes its time.
//! - `http-request-incomplete`: there the body never comes.
//!
//! ## What people see
//! Every upload takes one second longer than it should; `417 Expectation Failed`.
//!
//! ## False alarms it avoids
//! A server that gives leave, or refuses the upload at once. A body that follows at once. A large body, whose end says nothing about its
//! beginning.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;
use crate::wire::http::Framing;

pub static RULE: Rule = Rule {
    id: "http-expect-100-stall",
    title: "the client waits for 100 Continue",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::Request, Kind::ExpectsContinue, Kind::Response]),
    says: "{client_host} waited {after} for 100 Continue before it sent the body of {request}: {server} never gave it",
    variants: &["{server} answered 417 to {request}: it gives no 100 Continue"],
    users_see: &["every upload takes 1 s longer", "417 Expectation Failed"],
    do_first: &[Step {
        says: "Does it go at once without the expectation?",
        command: "curl -sS -o /dev/null -m 30 -H 'Expect:' -d @/etc/hostname -w '%{time_total}\\n' http://{host}:{port}{path}",
    }],
    verify: &[Step {
        says: "a second or more means that no 100 comes:",
        command: "curl -sS -o /dev/null -m 30 -H 'Expect: 100-continue' -d @/etc/hostname -w '%{time_total}\\n' http://{host}:{port}{path}",
    }],
    not: &[("slow-response", "the server did not have the whole request yet")],
    cannot_show: &["whether the server does not know 100 Continue, or a proxy in front of it swallowed the field"],
    sources: &["RFC 9110 §10.1.1", "curl waits 1 s (--expect100-timeout)"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// A pause of curl's second, with what the machine makes of it; longer ones have other reasons.
const PAUSE: std::ops::RangeInclusive<Elapsed> = Elapsed::millis(900)..=Elapsed::secs(5);
/// A body that leaves in one go.
const SMALL: u64 = 64 * 1024;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let resent = flow.client().loss.total() > 0 || flow.server().zero_window_count > 0;
    if resent || flow.client().unseen + flow.server().unseen > 0 {
        return None;
    }
    let all = exchanges(flow.story);
    all.iter().filter(|one| one.head.expects_continue).find_map(|one| stalled(flow, one))
}

fn stalled(flow: &FlowView<'_>, one: &Exchange<'_>) -> Option<Finding> {
    let request = format!("{} {}", one.head.method, one.head.target);
    let (answer, head) = one.response?;
    let told = |finding: Finding| finding.with("path", super::plain(&one.head.target)).with("request", request.clone());
    let asks = format!("{request} with Expect: 100-continue");
    if head.status == 417 {
        let finding = RULE.found(flow, answer, Side::Server, "417: no leave").and(one.request, Side::Client, asks);
        return Some(told(finding.variant(1)));
    }
    let sent = one.request_end.filter(|sent| *sent < answer)?;
    let after = sent.time.since(one.request.time);
    let small = matches!(one.head.framing, Framing::Length(1..=SMALL));
    if !small || !PAUSE.contains(&after) || leave(flow, one.request, sent) {
        return None;
    }
    let finding = RULE
        .found(flow, sent, Side::Client, format!("the body {after} later, without leave"))
        .and(one.request, Side::Client, asks)
        .with("after", after);
    Some(told(finding))
}

/// Whether the server gave leave in that time.
fn leave(flow: &FlowView<'_>, from: PacketRef, to: PacketRef) -> bool {
    flow.story.events().any(|event| {
        let within = from <= event.at && event.at <= to;
        within && event.side == Side::Server && matches!(&event.what, What::Response(head) if head.status < 200)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;
    use crate::wire::http::RequestHead;

    fn upload(body: i64, octets: u64, leave: bool) -> Option<Finding> {
        let head = RequestHead {
            method: "POST".into(),
            target: "/up".into(),
            framing: Framing::Length(octets),
            expects_continue: true,
            ..Default::default()
        };
        let mut scene = Scene::open().data(Side::Client, 3, 90).also(Side::Client, What::Request(Box::new(head)));
        if leave {
            scene = scene.response(body - 1, 100, 25);
        }
        let scene = scene.data(Side::Client, body, 500).also(Side::Client, What::RequestEnd);
        scene.response(body + 3, 200, 90).also(Side::Server, What::ResponseEnd).check(&RULE)
    }

    #[test]
    fn a_body_that_follows_after_a_second_without_leave_is_told() {
        let finding = upload(1_005, 500, false).expect("stalled");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
    }

    #[test]
    fn leave_a_body_at_once_and_a_large_one_are_none() {
        assert_eq!(upload(1_005, 500, true), None);
        assert_eq!(upload(5, 500, false), None);
        assert_eq!(upload(1_005, 5_000_000, false), None);
    }
}
