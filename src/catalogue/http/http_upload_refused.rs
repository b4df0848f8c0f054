//! The server refuses requests for their bodies: too large, or without a length. Mostly a limit that nobody thought of.
//!
//! ## How tcpwhy knows
//! A request with a body was answered 413 (too large) or 411 (no Content-Length). Three and more, and no body of that kind that was
//! taken, are a warning; fewer are a notice, unless the server then reset the connection with the body unread. For 413 only bodies count
//! that are as large as the smallest one refused.
//!
//! ## What it is not
//! - `http-header-too-large`: there the head is too large (431, 414).
//! - `reset-unread-data` is how the client may see it: the server closes with the rest of the body unread.
//!
//! ## What people see
//! `413 Request Entity Too Large`, `413 Content Too Large`; uploads and `docker push` fail, small forms work.
//!
//! ## False alarms it avoids
//! A single 413 is an answer: somebody tried too large a file. Where a body as large was taken, it is no limit of the server. An answer
//! that a proxy passes on is told at the leg of the server that gave it.

use crate::event::{Kind, PacketRef, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::joined;
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};
use crate::wire::http::Framing;

pub static RULE: Rule = Rule {
    id: "http-upload-refused",
    title: "the server refuses requests for their bodies",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Request, Kind::Response, Kind::ErrorStatus]),
    says: "{server} answered {status} to {request}: {why}",
    variants: &["{server} refused {refused} of {uploads} requests with a body with {status}: {why}"],
    users_see: &[
        "413 Request Entity Too Large",
        "413 Content Too Large",
        "411 Length Required",
        "client intended to send too large body",
    ],
    do_first: &[
        Step {
            says: "On {host}: which limit is set?",
            command: "sudo grep -rnE 'client_max_body_size|LimitRequestBody|req.body_size|maxPostSize' /etc/nginx /etc/apache2 /etc/haproxy /etc/tomcat*",
        },
        Step {
            says: "On {host}: what does the log say about that request?",
            command: "sudo tail -n 50 /var/log/nginx/error.log /var/log/apache2/error.log",
        },
    ],
    fix: &[Fix {
        says: "raise the limit where such uploads are meant to pass: nginx client_max_body_size (1m by default), Apache LimitRequestBody.",
        command: "",
        risk: "larger requests take memory and disk of the server; raise it for the one path only",
    }],
    verify: &[Step {
        says: "from the client's host, without a body; {status} means that it is still refused:",
        command: "curl -sS -o /dev/null -m 3 -w '%{response_code}\\n' -X {method} -H 'Expect: 100-continue' -H '{announced}' http://{host}:{port}{path}",
    }],
    not: &[("network", "the request arrived and was answered")],
    cannot_show: &["how high the limit is", "whether the server at this address refuses, or one behind it"],
    explains: &[
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("http-request-incomplete", Scope::SameOrLink),
        Explains("stray-reset", Scope::Same),
    ],
    sources: &["RFC 9110 §15.5.12, §15.5.14", "measured: nginx client_max_body_size"],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

/// Octets that are more than most limits allow.
const MANY: u64 = 20_000_000;
/// Flows of one port whose answers are counted.
const COUNTED: usize = 4096;

/// The status, where it refuses a request for its body.
fn refusal(one: &Exchange<'_>) -> Option<u16> {
    let status = one.response?.1.status;
    let body = one.head.framing != Framing::None;
    (body && matches!(status, 411 | 413)).then_some(status)
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let one = all.iter().find(|one| refusal(one).is_some())?;
    let (at, head) = one.response?;
    let request = format!("{} {}", one.head.method, one.head.target);
    let why = match head.status {
        413 => "its body is larger than a limit allows",
        _ => "its body has no length",
    };
    let (body, announced) = match one.head.framing {
        Framing::Length(size) => (format!("a body of {size} octets"), format!("Content-Length: {size}")),
        // Its octets are not counted: a length that stands for many.
        _ if head.status == 413 => ("a body without a length".into(), format!("Content-Length: {MANY}")),
        _ => ("a body without a length".into(), "Transfer-Encoding: chunked".to_owned()),
    };
    // Other tokens are none that a shell should read.
    let word = one.head.method.bytes().all(|c| c.is_ascii_uppercase());
    let method = if word { one.head.method.as_str() } else { "POST" };
    let signed = head.server.as_deref().map(|name| format!(", Server: {name}")).unwrap_or_default();
    Some(
        RULE.found(flow, at, Side::Server, format!("{} {}{signed}", head.status, head.reason))
            .and(one.request, Side::Client, format!("the request: {request}, {body}"))
            .severity(Severity::Notice)
            .with("path", super::plain(&one.head.target))
            .with("request", request)
            .with("method", method)
            .with("announced", announced)
            .with("status", u64::from(head.status))
            .with("why", why),
    )
}

/// Counts, and looks for bodies alike that were taken.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if passed_on(flow, capture) {
        return Keep::Drop;
    }
    let own = exchanges(&flow.story).iter().find_map(refusal);
    let all: Vec<Exchange<'_>> =
        capture.flows_to(&flow.facts.server).take(COUNTED).flat_map(|other| exchanges(&other.story)).collect();
    let uploads = all.iter().filter(|one| one.response.is_some() && one.head.framing != Framing::None);
    let (refused, others): (Vec<_>, Vec<_>) = uploads.partition(|one| refusal(one) == own);
    let smallest = refused.iter().filter_map(|one| length(one)).min();
    let alike = |one: &&Exchange<'_>| match own {
        Some(413) => smallest.is_none_or(|least| length(one).is_none_or(|size| size >= least)),
        _ => length(one).is_none(),
    };
    let taken =
        others.iter().filter(|one| alike(one)).any(|one| one.response.is_some_and(|(_, head)| head.status < 400));
    // The client may read the reset in place of the answer.
    let reset = flow.findings.iter().any(|other| other.rule == "reset-unread-data");
    if reset {
        *finding = finding.clone().severity(Severity::Warning);
        finding
            .notes
            .push("the rest of the body stays unread: the client may see a reset in place of this answer".into());
    }
    if taken || refused.len() < capture.thresholds.many as usize {
        return Keep::Yes;
    }
    finding.severity = Severity::Warning;
    let first: Option<PacketRef> = refused.iter().filter_map(|one| Some(one.response?.0)).min();
    // The earliest speaks for all.
    if first == Some(finding.last()) {
        let (refused, uploads) = (refused.len() as u64, (refused.len() + others.len()) as u64);
        *finding = finding.clone().variant(1).with("refused", refused).with("uploads", uploads);
    }
    Keep::Yes
}

fn length(one: &Exchange<'_>) -> Option<u64> {
    match one.head.framing {
        Framing::Length(size) => Some(size),
        _ => None,
    }
}

/// The answer came from a backend whose leg is in the capture and tells it.
fn passed_on(flow: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let legs = capture.links_of(flow.facts.id).filter(|link| link.client_leg == flow.facts.id);
    legs.into_iter().any(|link| {
        let leg = |id: &PacketRef| capture.flows.get(id);
        let view = LegsView { link, client_leg: leg(&link.client_leg), backend_leg: leg(&link.backend_leg), capture };
        joined(&view).iter().any(|(_, back)| refusal(back).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn upload(scene: Scene, ms: i64, framing: Framing, status: u16) -> Scene {
        let head =
            RequestHead { method: "POST".into(), target: "/files".into(), minor: 1, framing, ..Default::default() };
        let answer = ResponseHead { status, server: Some("nginx".into()), ..Default::default() };
        scene
            .data(Side::Client, ms, 1400)
            .also(Side::Client, What::Request(Box::new(head)))
            .data(Side::Server, ms + 1, 300)
            .also(Side::Server, What::Response(Box::new(answer)))
    }

    /// The engine puts the evidence in order before it asks.
    fn judged(scene: &Scene) -> Option<Finding> {
        let mut finding = scene.check(&RULE)?;
        finding.evidence.sort_by_key(|evidence| evidence.at);
        World::new().with(scene).corroborated(&RULE, finding)
    }

    const LARGE: Framing = Framing::Length(20_000);

    #[test]
    fn a_single_one_is_an_answer_and_three_are_a_limit() {
        let one = upload(Scene::open(), 3, LARGE, 413);
        let finding = judged(&one).expect("refused");
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, 0));
        assert_eq!(finding.evidence[0].shows, "the request: POST /files, a body of 20000 octets");
        let three = upload(upload(upload(one, 100, LARGE, 413), 200, Framing::Length(900), 201), 300, LARGE, 413);
        let finding = judged(&three).expect("refused");
        assert_eq!((finding.severity, finding.variant), (Severity::Warning, 1));
        let counted = (finding.values.get("refused"), finding.values.get("uploads"));
        assert_eq!(counted, (Some(&3u64.into()), Some(&4u64.into())));
    }

    #[test]
    fn a_single_one_whose_answer_a_reset_may_destroy_is_a_warning() {
        let mut scene = upload(Scene::open(), 3, LARGE, 413);
        let reset = crate::catalogue::rule("reset-unread-data").expect("it exists");
        scene.findings = vec![reset.found(&scene.view(), scene.facts.last, Side::Server, "RST")];
        assert_eq!(judged(&scene).expect("refused").severity, Severity::Warning);
    }

    #[test]
    fn a_larger_body_that_was_taken_shows_that_it_is_no_limit() {
        let mut scene = upload(Scene::open(), 3, Framing::Length(30_000), 201);
        for n in 1..5 {
            scene = upload(scene, n * 100, LARGE, 413);
        }
        assert_eq!(judged(&scene).expect("refused").severity, Severity::Notice);
    }

    #[test]
    fn without_a_body_and_with_other_answers_nothing_is_said() {
        assert_eq!(upload(Scene::open(), 3, Framing::None, 413).check(&RULE), None);
        assert_eq!(upload(Scene::open(), 3, LARGE, 400).check(&RULE), None);
        assert!(upload(Scene::open(), 3, Framing::Chunked, 411).check(&RULE).is_some());
    }
}
