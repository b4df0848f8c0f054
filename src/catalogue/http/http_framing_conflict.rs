//! A message leaves open where it ends, and was taken; or a server says more than it was asked.
//!
//! ## How tcpwhy knows
//! A head has Content-Length and Transfer-Encoding, two lengths that differ, a length that cannot be read, or a coding that leaves the end
//! open, and the server did not refuse it. Or octets of the server come behind a complete answer while no request is outstanding: the
//! answer was longer than it promised, or another answer came that nobody asked for. Two programs on the way may take different ends for
//! such a message, and what one takes for a body is a request to the other (request smuggling).
//!
//! ## What it is not
//! - `http-bad-request`: there the server refused the message, as it should.
//! - The rules about PROXY headers: what they tell makes octets of one message look like another.
//!
//! ## What people see
//! Answers that belong to somebody else's request, 400 now and then on kept connections, warnings of security scanners.
//!
//! ## False alarms it avoids
//! A 408 on an idle connection ends it, and a 400 before the first request was passed on. 413 and 431 come before the request is complete.
//! Where the capture lacks octets nobody can tell what was outstanding.

use crate::event::{Event, Kind, PacketRef, Protocol, Side, What};
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Recovery, Rule, Step};
use crate::wire::http::{Conflict, RequestHead};

pub static RULE: Rule = Rule {
    id: "http-framing-conflict",
    title: "contradictory message framing",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Request]).and_any(&[Kind::Response, Kind::HttpBroken]),
    symptom: true,
    says: "{client_host} sent {request} with {conflict}, and {server} took it",
    variants: &[
        "{server} answered {request} with {conflict}",
        "{server} sent octets behind the end of its answer to {request}: its length is wrong",
        "{server} sent an answer {status} that nobody had asked for",
    ],
    users_see: &["the page of another request", "400 Bad Request", "HTTP request smuggling"],
    do_first: &[
        Step {
            says: "On {host}: which program answers on that port, and what stands in front of it?",
            command: "sudo ss -ltnp 'sport = :{port}'",
        },
        Step { says: "On {client_host}: which program asks for that?", command: "sudo ss -tnp 'dport = :{port}'" },
    ],
    verify: &[Step {
        says: "from the client's host; {conflict} must not come back:",
        command: "curl -sS -m 30 -o /dev/null -D - http://{host}:{port}{path}",
    }],
    not: &[("packet-loss", "the octets of both sides are all in the capture")],
    cannot_show: &["where the program behind takes the message to end"],
    sources: &["RFC 9112 §6.1 to §6.3, §11.2", "measured: Apache, HAProxy and nginx pass such answers on as 200"],
    check: Check::Flow(check),
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

/// Answers by which a server refuses a message whose end it cannot tell.
const REFUSALS: [u16; 4] = [400, 411, 501, 505];

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let lacking = |half: &crate::flow::facts::Half| half.unseen + half.cut + half.held_dropped > 0;
    if flow.facts.mid_stream || lacking(flow.client()) || lacking(flow.server()) {
        return None;
    }
    if flow.protocol(Side::Client) != Some(Protocol::Http) || flow.protocol(Side::Server) != Some(Protocol::Http) {
        return None;
    }
    let twice = flow.saw(Kind::Contradictory).then(|| said_twice(flow)).flatten();
    twice.or_else(|| beyond(flow))
}

/// A head whose fields contradict each other.
fn said_twice(flow: &FlowView<'_>) -> Option<Finding> {
    for exchange in exchanges(flow.story) {
        let Some((at, answer)) = exchange.response else { continue };
        if exchange.head.conflict.is_none() && answer.conflict.is_none() {
            continue;
        }
        let line = format!("{} {}", exchange.head.method, exchange.head.target);
        let asked = exchange.head.conflict.filter(|_| !REFUSALS.contains(&answer.status));
        if let Some(conflict) = asked.map(Conflict::words) {
            let finding = RULE.found(flow, exchange.request, Side::Client, format!("{line}: {conflict}")).and(
                at,
                Side::Server,
                format!("answered {}", answer.status),
            );
            return Some(told(finding, line, &exchange.head.target, conflict));
        }
        if let Some(conflict) = answer.conflict.map(Conflict::words) {
            let finding = RULE
                .found(flow, at, Side::Server, format!("{}: {conflict}", answer.status))
                .and(exchange.request, Side::Client, format!("the request: {line}"))
                .culprit(Culprit::Upstream)
                .variant(1);
            return Some(told(finding, line, &exchange.head.target, conflict));
        }
    }
    None
}

/// With the request's `line` and the `conflict` that must not come back.
fn told(finding: Finding, line: String, target: &str, conflict: &'static str) -> Finding {
    let finding = finding.with("path", super::http_server_error::plain(target));
    finding.with("request", line).with("conflict", conflict)
}

/// Octets of the server while nothing is outstanding.
fn beyond(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.story.left_out() > 0 {
        return None;
    }
    // Who has closed does not mind what comes.
    let left = flow.facts.closer.filter(|(side, _)| *side == Side::Client).map(|(_, at)| at);
    let mut outstanding: i64 = 0;
    let mut latest: Option<(&Event, &RequestHead)> = None;
    let mut complete: Option<PacketRef> = None;
    for event in flow.story.events() {
        let counts = matches!(event.what, What::Request(_) | What::ResponseEnd | What::Response(_) | What::HttpBroken);
        if !counts || left.is_some_and(|left| event.at >= left) {
            continue;
        }
        match &event.what {
            What::Request(head) => {
                outstanding += 1;
                latest = Some((event, head));
                complete = None;
            }
            What::ResponseEnd => complete = Some(event.at),
            What::Response(head) if head.status == 101 => return None,
            What::Response(head) if head.status > 199 => {
                outstanding -= 1;
                let asked_before = || latest.is_some() && silent_since(flow, event.at, complete);
                if outstanding < 0 && head.status < 400 && asked_before() {
                    let shows = format!("an answer {}, and no request is outstanding", head.status);
                    let finding = RULE.found(flow, event.at, Side::Server, shows).variant(3);
                    let finding = finding.and_maybe(complete, Side::Server, "the answer before it is complete");
                    let line = latest.map(|(_, head)| format!("{} {}", head.method, head.target))?;
                    let finding =
                        told(finding, line, "/", "an answer that nobody asked for").culprit(Culprit::Upstream);
                    return Some(finding.with("status", u64::from(head.status)));
                }
            }
            What::HttpBroken if event.side == Side::Server && outstanding == 0 => {
                let complete = complete?;
                let (request, head) = latest?;
                let line = format!("{} {}", head.method, head.target);
                let shows = "octets that begin no answer, and no request is outstanding";
                let finding = RULE
                    .found(flow, event.at, Side::Server, shows)
                    .and(request.at, Side::Client, format!("the request: {line}"))
                    .and(complete, Side::Server, "its answer is complete by its own words");
                let finding = told(finding, line, "/", "more than the length promises");
                return Some(finding.culprit(Culprit::Upstream).variant(2));
            }
            _ => {}
        }
    }
    None
}

/// The client sent nothing between the end of an answer and what came unasked: not even the beginning of a request.
fn silent_since(flow: &FlowView<'_>, at: PacketRef, complete: Option<PacketRef>) -> bool {
    let last = flow.client().last_payload;
    complete.is_some_and(|complete| last.is_none_or(|last| last < complete || last > at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;
    use crate::wire::http::ResponseHead;

    fn exchange(asked: Option<Conflict>, answered: Option<Conflict>, status: u16) -> Scene {
        let head = RequestHead { method: "POST".into(), target: "/a".into(), conflict: asked, ..Default::default() };
        let answer = ResponseHead { status, conflict: answered, ..Default::default() };
        Scene::open()
            .data(Side::Client, 3, 90)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(head)))
            .also(Side::Client, What::RequestEnd)
            .data(Side::Server, 5, 90)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(answer)))
            .also(Side::Server, What::ResponseEnd)
    }

    #[test]
    fn a_contradiction_that_was_taken_is_told_and_one_that_was_refused_is_not() {
        let finding = exchange(Some(Conflict::Length), None, 200).check(&RULE).expect("taken");
        assert_eq!((finding.variant, finding.evidence[0].at.number), (0, 4));
        assert_eq!(finding.evidence[0].shows, "POST /a: a Content-Length that cannot be read");
        assert_eq!(exchange(Some(Conflict::Length), None, 400).check(&RULE), None);
        assert_eq!(exchange(None, None, 200).check(&RULE), None);
    }

    #[test]
    fn a_contradiction_in_an_answer_is_the_servers() {
        let finding = exchange(None, Some(Conflict::Lengths), 200).check(&RULE).expect("told");
        assert_eq!((finding.variant, finding.culprit), (1, Culprit::Upstream));
    }

    #[test]
    fn octets_behind_a_complete_answer_are_told() {
        let longer = exchange(None, None, 200).data(Side::Server, 6, 20).also(Side::Server, What::HttpBroken);
        assert_eq!(longer.check(&RULE).expect("longer").variant, 2);
        let head = ResponseHead { status: 200, ..Default::default() };
        let again = exchange(None, None, 200).data(Side::Server, 900, 80);
        assert_eq!(again.also(Side::Server, What::Response(Box::new(head))).check(&RULE).expect("unasked").variant, 3);
    }

    #[test]
    fn a_408_on_an_idle_connection_ends_it() {
        let head = ResponseHead { status: 408, ..Default::default() };
        let idle = exchange(None, None, 200).data(Side::Server, 60_000, 80);
        assert_eq!(idle.also(Side::Server, What::Response(Box::new(head))).check(&RULE), None);
    }

    #[test]
    fn what_comes_behind_the_clients_close_misleads_nobody() {
        let head = ResponseHead { status: 200, ..Default::default() };
        let late = exchange(None, None, 200).fin(Side::Client, 50).data(Side::Server, 60, 80);
        assert_eq!(late.also(Side::Server, What::Response(Box::new(head))).check(&RULE), None);
    }
}
