//! The server limits how often this client may ask.
//!
//! ## How tcpwhy knows
//! The server answered 429. Three and more such answers to one client are a warning, fewer a notice. Where the answer says how long to wait
//! (Retry-After) and the client asked again earlier, that is told with both packets. nginx limits with 503 by default: a 503 that nginx
//! signs is taken for a limit where the same client got three of them and three good answers within 10 s.
//!
//! ## What it is not
//! - `http-gateway-error`: there a backend failed. nginx answers 502 and 504 to that, and 503 where it is told to.
//! - `http-server-error`: there the application failed.
//!
//! ## What people see
//! `429 Too Many Requests`, nginx's `limiting requests, excess`, an API client that fails in waves.
//!
//! ## False alarms it avoids
//! A 503 with Retry-After and no good answer beside it is maintenance. A single 429 that the client obeys is how it should be: a notice. An
//! answer that a proxy passes on is told at the leg of the server that gave it.

use crate::event::{Kind, PacketRef, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::joined;
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::http::ResponseHead;

pub static RULE: Rule = Rule {
    id: "http-rate-limited",
    title: "the server is limiting this client",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Request, Kind::Response, Kind::ErrorStatus]),
    says: "{server} answered {status} to {request}: it limits {client_host}{wait}",
    variants: &["{server} limits {client_host}{wait}: {limited} of {answers} answers are {status}"],
    users_see: &[
        "429 Too Many Requests",
        "503 Service Temporarily Unavailable",
        "limiting requests, excess",
        "Retry-After",
    ],
    do_first: &[
        Step {
            says: "On {host}: which limit is it, and by what does it tell clients apart?",
            command: "sudo nginx -T 2>/dev/null | grep -nE 'limit_(req|conn)'",
        },
        Step { says: "On {client_host}: which program asks that often?", command: "sudo ss -tnp 'dport = :{port}'" },
    ],
    verify: &[Step {
        says: "from the client's host, after the time to wait; below 400 means that the limit is free again:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}{path}",
    }],
    not: &[("http-gateway-error", "it answers others of the same client meanwhile")],
    cannot_show: &["how high the limit is, and whether it counts addresses, keys or users"],
    explains: &[Explains("http-gateway-error", Scope::SameOrLink)],
    sources: &["RFC 6585 §4", "RFC 9110 §10.2.3", "measured: nginx limit_req answers 503 within a millisecond"],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

/// Limits that nginx sets with 503 show as so many of either kind of answer within this time.
const OF_EACH: usize = 3;
const WITHIN: Elapsed = Elapsed::secs(10);
/// Flows of one port whose answers are counted.
const COUNTED: usize = 4096;
/// Longest Retry-After that is compared.
const LONGEST: i64 = 86_400;

fn limited(head: &ResponseHead) -> bool {
    head.status == 429 || by_nginx(head)
}

/// What may be nginx's `limit_req`: the status alone does not say it.
fn by_nginx(head: &ResponseHead) -> bool {
    let signed = head.server.as_deref().is_some_and(|name| name.starts_with("nginx") || name.starts_with("openresty"));
    head.status == 503 && head.retry_after.is_none() && signed
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let one = all.iter().find(|one| one.response.is_some_and(|(_, head)| limited(head)))?;
    let (at, head) = one.response?;
    let request = format!("{} {}", one.head.method, one.head.target);
    let wait = match seconds(head) {
        Some(seconds) => format!(", and says to wait {seconds} s"),
        None => String::new(),
    };
    let after = at.time.since(one.request.time);
    Some(
        RULE.found(flow, at, Side::Server, format!("{} {}, {after} after the request", head.status, head.reason))
            .and(one.request, Side::Client, format!("the request: {request}"))
            .severity(Severity::Notice)
            .confidence(if head.status == 429 { Confidence::Certain } else { Confidence::Medium })
            .with("path", super::plain(&one.head.target))
            .with("request", request)
            .with("status", u64::from(head.status))
            .with("wait", wait),
    )
}

/// Retry-After in seconds; as a date it is left alone.
fn seconds(head: &ResponseHead) -> Option<i64> {
    head.retry_after.as_deref()?.trim().parse().ok().filter(|seconds| (0..=LONGEST).contains(seconds))
}

/// Counts, and looks at what the client made of it.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if let Some(period) = super::http_server_error::checked(flow, finding, capture) {
        finding.notes.push(format!(
            "asked every {period} on a connection of its own: a health check, which this may tell something"
        ));
        return Keep::Yes;
    }
    if passed_on(flow, capture) {
        return Keep::Drop;
    }
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let mine = || capture.flows_to(&server).filter(move |other| other.facts.client.address == client).take(COUNTED);
    let mut all: Vec<Exchange<'_>> = mine().flat_map(|other| exchanges(&other.story)).collect();
    all.retain(|one| one.response.is_some());
    all.sort_by_key(|one| one.request);
    let told: Vec<PacketRef> =
        all.iter().filter(|one| is(one, limited)).filter_map(|one| Some(one.response?.0)).collect();
    if finding.confidence < Confidence::Certain && !mixed(&all, capture, flow) {
        return Keep::Drop;
    }
    if told.len() < capture.thresholds.many as usize {
        return Keep::Yes;
    }
    finding.severity = Severity::Warning;
    // The earliest speaks for all.
    if told.first() != Some(&finding.last()) {
        return Keep::Yes;
    }
    let mut led = finding.clone().variant(1).with("limited", told.len() as u64).with("answers", all.len() as u64);
    if let Some((answer, next, wait)) = impatient(&all) {
        let (own, after) = (
            |at: PacketRef| mine().find(|other| holds(other, at)).map(|other| other.facts.id),
            next.time.since(answer.time),
        );
        if answer != finding.last() {
            led = led.cites(answer, own(answer), format!("told to wait {wait} s"));
        }
        led = led.cites(next, own(next), format!("it asks again {after} later"));
        led =
            led.note(format!("the client does not wait: told to stay away for {wait} s, it asked again after {after}"));
    }
    *finding = led;
    Keep::Yes
}

fn is(one: &Exchange<'_>, what: fn(&ResponseHead) -> bool) -> bool {
    one.response.is_some_and(|(_, head)| what(head))
}

fn holds(flow: &FlowSummary, at: PacketRef) -> bool {
    flow.facts.id <= at && at <= flow.facts.last && flow.story.events().any(|event| event.at == at)
}

/// Whether good answers and 503s alternate as a limit makes them.
fn mixed(all: &[Exchange<'_>], capture: &CaptureView<'_>, flow: &FlowSummary) -> bool {
    let refused: Vec<PacketRef> = all.iter().filter(|one| is(one, by_nginx)).map(|one| one.request).collect();
    refused.windows(OF_EACH).any(|window| {
        let (from, to) = (window[0].time - WITHIN, window[0].time + WITHIN);
        let close = window[OF_EACH - 1].time <= to;
        let kept =
            all.iter().filter(|one| is(one, |head| head.status < 400) && (from..=to).contains(&one.request.time));
        let others = capture.began_to(&flow.facts.server, from, to).filter(|digest| {
            digest.client().address == flow.facts.client.address
                && digest.served
                && !capture.flows.contains_key(&digest.id)
        });
        close && kept.count() + others.count() >= OF_EACH
    })
}

/// The first answer that told to wait, and the request that came too early: its packet, the request's, the seconds.
fn impatient(all: &[Exchange<'_>]) -> Option<(PacketRef, PacketRef, i64)> {
    all.iter().find_map(|one| {
        let (answer, head) = one.response?;
        let wait = seconds(head).filter(|_| limited(head))?;
        let next = all.iter().map(|other| other.request).filter(|request| *request > answer).min()?;
        (next.time.since(answer.time) < Elapsed::secs(wait)).then_some((answer, next, wait))
    })
}

/// The answer came from a backend whose leg is in the capture and tells it.
fn passed_on(flow: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let legs = capture.links_of(flow.facts.id).filter(|link| link.client_leg == flow.facts.id);
    legs.into_iter().any(|link| {
        let leg = |id: &PacketRef| capture.flows.get(id);
        let view = LegsView { link, client_leg: leg(&link.client_leg), backend_leg: leg(&link.backend_leg), capture };
        joined(&view).iter().any(|(_, back)| is(back, limited))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    fn exchange(scene: Scene, ms: i64, status: u16, wait: Option<&str>, server: &str) -> Scene {
        let head = ResponseHead {
            status,
            retry_after: wait.map(Into::into),
            server: Some(server.into()),
            ..Default::default()
        };
        scene
            .request(ms, "GET", "/", 40)
            .data(Side::Server, ms + 1, 90)
            .also(Side::Server, What::Response(Box::new(head)))
            .also(Side::Server, What::ResponseEnd)
    }

    fn judged(scene: &Scene) -> Option<Finding> {
        World::new().with(scene).corroborated(&RULE, scene.check(&RULE)?)
    }

    #[test]
    fn one_answer_is_a_notice_and_three_are_a_warning_that_counts_them() {
        let one = exchange(Scene::open(), 3, 429, Some("30"), "api");
        assert_eq!(judged(&one).expect("limited").severity, Severity::Notice);
        let three = exchange(exchange(one, 200, 429, Some("30"), "api"), 400, 429, None, "api");
        let finding = judged(&three).expect("limited");
        assert_eq!((finding.severity, finding.variant), (Severity::Warning, 1));
        assert!(
            finding.notes[0].contains("told to stay away for 30 s, it asked again after 196 ms"),
            "{:?}",
            finding.notes
        );
    }

    #[test]
    fn nginx_limits_with_503_between_good_answers() {
        let mut scene = Scene::open();
        for n in 0..6 {
            scene = exchange(scene, 10 + n * 50, if n % 2 == 0 { 200 } else { 503 }, None, "nginx/1.22.1");
        }
        assert_eq!(judged(&scene).expect("limited").confidence, Confidence::Medium);
        let mut down = Scene::open();
        for n in 0..6 {
            down = exchange(down, 10 + n * 50, 503, None, "nginx/1.22.1");
        }
        assert_eq!(judged(&down), None);
    }

    #[test]
    fn maintenance_and_other_errors_are_no_limit() {
        assert_eq!(exchange(Scene::open(), 3, 503, Some("120"), "nginx").check(&RULE), None);
        assert_eq!(exchange(Scene::open(), 3, 403, None, "nginx").check(&RULE), None);
    }
}
