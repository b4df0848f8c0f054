//! gRPC calls fail: the answer's `grpc-status` is an error of the service or of what stands before it.
//!
//! ## How tcpwhy knows
//! The status of a call stands in the trailers behind its answer, or in the head when there is no answer ("trailers-only"). Told are
//! UNKNOWN (an exception that nobody caught), DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS. A
//! gRPC request that is answered with another HTTP status than 200, or with a page instead of `application/grpc`, met a proxy. At least
//! five such calls, and one in twenty of those to that port, make it critical; fewer are a warning.
//!
//! ## What it is not
//! - `http-gateway-error`: a proxy's 502 to the same call is its cause.
//! - `h2-stream-reset`: there the call ends without a status.
//! - Statuses of the application's own: NOT_FOUND, INVALID_ARGUMENT, PERMISSION_DENIED and their like answer the request.
//!
//! ## What people see
//! `rpc error: code = Unavailable desc = …` in Go, `StatusCode.UNAVAILABLE` in Python, `UNAVAILABLE: io exception` in Java.
//!
//! ## False alarms it avoids
//! UNAUTHENTICATED, and UNIMPLEMENTED for health checks and reflection, which clients try whether or not a server has them: notices.

use crate::event::h2::GrpcStatus;
use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Side, What};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::wire::http::is_grpc;

const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;
/// Names by number (the gRPC project's "Status codes").
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
/// From here errors are no exception any more: so many calls, and one in so many.
const MANY: u64 = 5;
const ONE_IN: u64 = 20;
/// Flows of one port whose calls are counted.
const COUNTED: usize = 4096;
/// Exchanges of a connection that are told as they happen; of a longer one the usual ones are left out.
const TOLD: usize = 10;
/// Services that clients ask for on trial.
const TRIED: [&str; 2] = ["POST /grpc.health.v1.", "POST /grpc.reflection."];

pub static RULE: Rule = Rule {
    id: "grpc-error-status",
    title: "gRPC calls fail",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    proxy_end: Side::Server,
    needs: Needs::any(&[Kind::GrpcStatus, Kind::StreamEnd]),
    says: "{server} answered {request} of {client_host} with gRPC status {status}{words}",
    variants: &[
        "{server} fails {failed} of {calls} gRPC calls, the first with {status}{words}",
        "{server} answered the gRPC call {request} of {client_host} with {status}: a proxy speaks, not the service",
    ],
    users_see: &[
        "rpc error: code = Unavailable desc =",
        "StatusCode.UNAVAILABLE",
        "StatusCode.DEADLINE_EXCEEDED",
        "UNAVAILABLE: io exception",
        "Received http2 header with status: 502",
        "unexpected HTTP status code received from server",
    ],
    do_first: &[
        Step {
            says: "On {host}: what did the service log at that second?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
        Step { says: "On {host}: which process answers on that port?", command: "sudo ss -ltnp 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "from {client_host}; grpc-status 0, or SERVING, says that it works again:",
        command: "grpcurl -plaintext -max-time 5 {host}:{port} grpc.health.v1.Health/Check",
    }],
    not: &[("network", "call and answer arrived")],
    cannot_show: &["why the service failed: its log says so"],
    explains: &[Explains("grpc-error-status", Scope::Link)],
    sources: &["gRPC over HTTP2", "gRPC status codes", "measured: gRPC 1.51 for Python alone and behind nginx 1.22"],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

/// What a failed call is to its caller.
fn severity(call: &GrpcStatus) -> Option<Severity> {
    let tried = TRIED.iter().any(|service| call.stream.request.starts_with(service));
    match call.status {
        UNIMPLEMENTED if tried => Some(Severity::Notice),
        UNAUTHENTICATED => Some(Severity::Notice),
        2 | 4 | 8 | UNIMPLEMENTED..=15 => Some(Severity::Warning),
        _ => None,
    }
}

fn failed(story: &Story) -> impl Iterator<Item = (&Event, &GrpcStatus, Severity)> {
    story.events().filter_map(|e| match &e.what {
        What::GrpcStatus(call) => severity(call).map(|severity| (e, call.as_ref(), severity)),
        _ => None,
    })
}

/// A gRPC call that was answered with something else: its packet and what that is.
fn strange(exchange: &Exchange<'_>) -> Option<(PacketRef, String)> {
    let (at, head) = exchange.response.filter(|(_, head)| exchange.head.grpc && head.status > 0)?;
    let kind = head.content_type.as_deref();
    if head.status == 200 && (kind.is_none() || is_grpc(kind.map(str::as_bytes))) {
        return None;
    }
    Some((at, format!("HTTP {} {}", head.status, kind.unwrap_or("without a Content-Type"))))
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let page = || {
        let all = exchanges(flow.story);
        let (exchange, (at, what)) = all.iter().find_map(|one| strange(one).map(|what| (one, what)))?;
        let request = format!("{} {}", exchange.head.method, exchange.head.target);
        Some(
            RULE.found(flow, at, Side::Server, format!("{what} instead of application/grpc"))
                .and(exchange.request, Side::Client, format!("the call: {request}"))
                .with("request", Value::Packet(request))
                .with("status", Value::Packet(what))
                .culprit(Culprit::Proxy)
                .variant(2),
        )
    };
    let worst = failed(flow.story).map(|(.., severity)| severity).max();
    if worst != Some(Severity::Warning)
        && let Some(finding) = page()
    {
        return Some(finding);
    }
    let (event, call, severity) = failed(flow.story).find(|(.., severity)| Some(*severity) == worst)?;
    let status = format!("{} {}", call.status, name(call.status));
    let words = if call.message.is_empty() { String::new() } else { format!(": {}", call.message) };
    let place = if call.at_once { "in the head of the answer: there is no other" } else { "in the trailers" };
    let finding = RULE
        .found(flow, event.at, Side::Server, format!("grpc-status {status}{words} ({place})"))
        .and_maybe(call.stream.asked, Side::Client, format!("the call: {}", call.stream.request))
        .severity(severity)
        .with("request", Value::Packet(call.stream.request.clone()))
        .with("status", status)
        .with("words", Value::Packet(words));
    Some(match meaning(call) {
        Some(meaning) => finding.note(meaning),
        None => finding,
    })
}

fn name(status: u32) -> &'static str {
    NAMES.get(status as usize).copied().unwrap_or("of no known name")
}

/// Whose word such a status usually is.
fn meaning(call: &GrpcStatus) -> Option<&'static str> {
    Some(match call.status {
        2 => "an exception that the service did not turn into a status of its own",
        4 => "the deadline passed at the server, which knew it from grpc-timeout",
        8 => "a quota or a limit of the service, or a message that is too large",
        UNIMPLEMENTED if severity(call) == Some(Severity::Notice) => "clients try this service on every server",
        UNIMPLEMENTED => "the server does not have this method: another version of the service, or another service",
        14 => "the service, or a proxy in front of it, could not serve the call now: it may be tried again",
        UNAUTHENTICATED => "the caller's credentials: no fault of the service",
        _ => return None,
    })
}

/// How often it happened at that port.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if finding.severity != Severity::Warning {
        return Keep::Yes;
    }
    let (mut errors, mut calls) = (0_u64, 0_u64);
    for sibling in capture.flows_to(&flow.facts.server).take(COUNTED) {
        let all = exchanges(&sibling.story);
        let hurts = failed(&sibling.story).filter(|(.., severity)| *severity == Severity::Warning);
        let (mut told, mut ended) = (0, 0);
        for (_, call, _) in hurts {
            (told, ended) = (told + 1, call.ended);
        }
        errors += told + all.iter().filter(|one| strange(one).is_some()).count() as u64;
        // Of a long connection only the first calls and the unusual ones are told.
        let segments = if all.len() <= TOLD { 0 } else { sibling.facts.from_client.segments };
        calls += u64::from(ended).max(all.iter().filter(|one| one.head.grpc).count() as u64).max(segments);
    }
    let served = capture.began_to(&flow.facts.server, crate::time::Timestamp::MIN, crate::time::Timestamp::MAX);
    let kept = capture.flows_to(&flow.facts.server).take(COUNTED).count() as u64;
    calls += (served.take(16 * COUNTED).filter(|digest| digest.answered).count() as u64).saturating_sub(kept);
    if errors >= MANY && errors.saturating_mul(ONE_IN) >= calls {
        let told = finding.clone().severity(Severity::Critical);
        let told = if finding.variant == 0 { told.variant(1) } else { told };
        *finding = told.with("failed", errors).with("calls", calls);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::event::h2::Stream;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn asked(scene: Scene) -> Scene {
        let head = RequestHead {
            method: "POST".into(),
            target: "/shop.Cart/Add".into(),
            stream: 1,
            grpc: true,
            ..RequestHead::default()
        };
        scene
            .data(Side::Client, 3, 200)
            .speaks(Side::Client, Protocol::Http2)
            .also(Side::Client, What::Request(Box::new(head)))
            .also(Side::Client, What::StreamEnd { stream: 1 })
    }

    fn answered(scene: Scene, status: u16, kind: &str) -> Scene {
        let head = ResponseHead { status, content_type: Some(kind.into()), stream: 1, ..ResponseHead::default() };
        asked(scene)
            .data(Side::Server, 5, 90)
            .speaks(Side::Server, Protocol::Http2)
            .also(Side::Server, What::Response(Box::new(head)))
            .also(Side::Server, What::StreamEnd { stream: 1 })
    }

    fn ended(scene: Scene, status: u32, request: &str) -> Scene {
        let asked = scene.facts.from_client.first_payload;
        let stream = Stream { number: 1, asked, request: request.into(), grpc: true, ..Stream::default() };
        let call = GrpcStatus { stream, status, message: "no backend".into(), at_once: true, failed: 1, ended: 1 };
        scene.also(Side::Server, What::GrpcStatus(Box::new(call)))
    }

    fn call(status: u32) -> Option<Finding> {
        ended(answered(Scene::open(), 200, "application/grpc"), status, "POST /shop.Cart/Add").check(&RULE)
    }

    #[test]
    fn a_failed_call_is_told_with_its_words() {
        let finding = call(14).expect("it failed");
        assert_eq!(
            finding.evidence[0].shows,
            "grpc-status 14 UNAVAILABLE: no backend (in the head of the answer: there is no other)"
        );
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn what_the_application_answers_by_its_status_is_no_failure() {
        for status in [1, 3, 5, 6, 7, 9, 10, 11, 99] {
            assert_eq!(call(status), None, "{status}");
        }
        assert_eq!(answered(Scene::open(), 200, "application/grpc+proto").check(&RULE), None);
    }

    #[test]
    fn credentials_and_services_on_trial_are_notices() {
        assert_eq!(call(16).map(|finding| finding.severity), Some(Severity::Notice));
        let health = ended(answered(Scene::open(), 200, "application/grpc"), 12, "POST /grpc.health.v1.Health/Check");
        assert_eq!(health.check(&RULE).map(|finding| finding.severity), Some(Severity::Notice));
        assert_eq!(call(12).map(|finding| finding.severity), Some(Severity::Warning));
    }

    #[test]
    fn a_page_instead_of_a_message_is_a_proxys() {
        let finding = answered(Scene::open(), 502, "text/html").check(&RULE).expect("a page");
        assert_eq!((finding.variant, finding.culprit), (2, Culprit::Proxy));
        assert_eq!(finding.evidence[0].shows, "HTTP 502 text/html instead of application/grpc");
        assert!(answered(Scene::open(), 200, "text/html").check(&RULE).is_some());
    }

    #[test]
    fn five_of_a_hundred_calls_are_critical() {
        let nth = |n: u64| {
            let scene = Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:80", 100 * n, 1000 * n as i64);
            answered(scene.handshake(), 200, "application/grpc")
        };
        let world = |errors: u64, all: u64| {
            let scene = |n| if n <= errors { ended(nth(n), 14, "POST /shop.Cart/Add") } else { nth(n) };
            (1..=all).fold(World::new(), |world, n| world.with(&scene(n)))
        };
        let severity = |errors, all| {
            let finding = ended(nth(1), 14, "POST /shop.Cart/Add").check(&RULE).expect("it failed");
            world(errors, all).corroborated(&RULE, finding).expect("kept").severity
        };
        assert_eq!(severity(5, 100), Severity::Critical);
        assert_eq!((severity(4, 10), severity(5, 101)), (Severity::Warning, Severity::Warning));
    }
}
