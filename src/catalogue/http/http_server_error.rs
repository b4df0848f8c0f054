//! The application answered with an error of its own: 500 and its like.
//!
//! ## How tcpwhy knows
//! The answer's status is 5xx, and it is none by which a proxy speaks of its backend. At least five such answers, and one in twenty of all
//! answers of that port, make it critical; fewer are a warning. Where the backend leg carries the same status, that leg is the place.
//!
//! ## What it is not
//! - `http-gateway-error`: 502, 504, and 503 that a proxy signs, speak of the server behind.
//! - `http-bad-request` and other 4xx: there the server blames the request.
//!
//! ## What people see
//! A page that says 500 Internal Server Error, or an application that shows an error.
//!
//! ## False alarms it avoids
//! A 503 with Retry-After is meant: maintenance, or a limit. 501 and 505 answer requests that no application has to understand, often those
//! of scanners: a notice. Answers to the health checks of load balancers fail no user: a notice too.

use crate::catalogue::close::lb_health_check_noise::period;
use crate::event::errors::Errors;
use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::exchange::{Exchange, dated, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::{gateway_error, joined};
use crate::rule::summary::FlowSummary;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::http::ResponseHead;

/// Variant of the headline where the snaplen left the status line only.
const CUT: u8 = 2;
/// Variant where the errors came in the midst of a long connection.
const LATER: u8 = 3;
/// From here errors are no exception any more: so many answers, and one in so many.
const MANY: u64 = 5;
const ONE_IN: u64 = 20;
/// Flows of one port whose answers are counted.
const COUNTED: usize = 4096;
/// Exchanges of a connection that are all told; of a longer one the usual ones are left out.
const TOLD: usize = 16;
/// How the health checks of load balancers name themselves.
const CHECKERS: [&str; 3] = ["ELB-HealthChecker", "kube-probe", "GoogleHC"];

pub static RULE: Rule = Rule {
    id: "http-server-error",
    title: "the application answered with a server error",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    needs: Needs::any(&[Kind::ErrorStatus, Kind::ErrorCut]),
    says: "{server} answered {status} to {request} {after} after the request: the application's own error",
    variants: &[
        "{server} answers {status}: {failed} of {answers} answers are server errors of the application",
        "{server} answered {status}; what else it said is cut off",
        "{server} answered {status} {failed} times on one connection: the application's own error",
    ],
    users_see: &["500 Internal Server Error", "HTTP 500", "Internal Server Error"],
    do_first: &[
        Step {
            says: "On {host}: what did the application log at that second?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
        Step { says: "On {host}: which process answers on that port?", command: "sudo ss -ltnp 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "from the client's host; below 500 means that the application answers again:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}{path}",
    }],
    not: &[("network", "request and answer arrived"), ("http-gateway-error", "the status is none of a proxy's own")],
    cannot_show: &["why the application failed: its log says so"],
    explains: &[Explains("http-server-error", Scope::Link)],
    sources: &["RFC 9110 §15.6", "measured: 500 of a Python application alone and behind nginx"],
    check: Check::Flow(check),
    corroborate: Some(weigh),
    ..Rule::BLANK
};

/// The exchange was answered with an error of the application itself.
fn failed(exchange: &Exchange<'_>) -> Option<(PacketRef, u16)> {
    let (at, head) = exchange.response?;
    own(head).then_some((at, head.status))
}

fn own(head: &ResponseHead) -> bool {
    let meant = head.status == 503 && head.retry_after.is_some();
    (500..600).contains(&head.status) && !meant && !gateway_error(head)
}

/// Errors of which the story gave up the heads, as those that a connection begins and ends well with: by status alone.
fn left_out(story: &Story) -> impl Iterator<Item = (u16, Errors)> {
    let statuses = story.errors_left_out().filter(|status| matches!(status, 500 | 505..=599));
    statuses.map(|status| (status, story.errors(status, own)))
}

/// All errors of a connection that hurt somebody.
fn errors_of(flow: &FlowSummary, all: &[Exchange<'_>], capture: &CaptureView<'_>) -> u64 {
    let told = all.iter().filter(|one| hurts(one)).count() as u64;
    if is_front(flow.facts.id, capture) {
        return told;
    }
    told.max(left_out(&flow.story).map(|(_, errors)| errors.count).sum())
}

/// Whether it is a proxy's connection to its client, of which other legs are known: what the story gave up may be a backend's word.
fn is_front(flow: PacketRef, capture: &CaptureView<'_>) -> bool {
    capture.links_of(flow).any(|link| link.client_leg == flow)
}

/// It hurts somebody: no health check, and no request that an application need not understand.
fn hurts(exchange: &Exchange<'_>) -> bool {
    let check =
        exchange.head.user_agent.as_deref().is_some_and(|agent| CHECKERS.iter().any(|name| agent.starts_with(name)));
    !check && failed(exchange).is_some_and(|(_, status)| !matches!(status, 501 | 505))
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let Some(worst) = all.iter().find(|one| hurts(one)).or_else(|| all.iter().find(|one| failed(one).is_some())) else {
        if let Some((status, errors)) = left_out(flow.story).next() {
            let told = RULE.found(flow, errors.first?, Side::Server, format!("{status}, the first such answer"));
            let told = told.variant(LATER).with("status", Value::Count(status.into())).with("path", "/".to_owned());
            return Some(dated(told.with("failed", errors.count), &errors));
        }
        let cut = cut_off(&RULE, CUT, flow, |status| !matches!(status, 501 | 502 | 504 | 505))?;
        return Some(cut.with("path", "/".to_owned()));
    };
    let (at, status) = failed(worst)?;
    let after = at.time.since(worst.request.time);
    let request = format!("{} {}", worst.head.method, worst.head.target);
    let finding = RULE
        .found(flow, at, Side::Server, format!("{status} {after} after the request"))
        .and(worst.request, Side::Client, format!("the request: {request}"))
        .with("after", after)
        .with("path", plain(&worst.head.target))
        .with("request", request)
        .with("status", Value::Count(status.into()));
    let finding = dated(finding, &flow.story.errors(status, own));
    Some(if hurts(worst) {
        finding
    } else {
        finding.severity(Severity::Notice).note("a health check, or a request that no application has to understand")
    })
}

/// An error of which the snaplen left the status line: the first one with a status that counts.
pub(super) fn cut_off(
    rule: &'static Rule,
    variant: u8,
    flow: &FlowView<'_>,
    counts: impl Fn(u16) -> bool,
) -> Option<Finding> {
    let told = flow.story.events().filter_map(|event| match event.what {
        What::ErrorCut { status } if counts(status) => Some((event.at, status)),
        _ => None,
    });
    let all: Vec<(PacketRef, u16)> = told.collect();
    let (at, status) = *all.first()?;
    let finding = rule
        .found(flow, at, Side::Server, format!("{status}, the rest of the head is cut off"))
        .confidence(Confidence::High)
        .variant(variant)
        .with("status", Value::Count(status.into()));
    let client = flow.client();
    let asked = [client.last_payload, client.first_payload].into_iter().flatten().find(|asked| *asked < at);
    let finding = match asked {
        Some(asked) => {
            finding.and(asked, Side::Client, "the client's octets before it").with("after", at.time.since(asked.time))
        }
        None => finding,
    };
    let count = all.len();
    Some(if count > 1 { finding.note(format!("{count} answers of this connection are of that kind")) } else { finding })
}

/// The path of a request for a command line: only what no shell reads as anything else.
pub(in crate::catalogue) fn plain(target: &str) -> &str {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "/.-_%~,+=:@".contains(c);
    let path = target.split('?').next().unwrap_or(target);
    if path.starts_with('/') && path.chars().all(harmless) { path } else { "/" }
}

/// How often it happened at that port; the leg of the application speaks for the legs in front of it.
fn weigh(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding).filter(|_| finding.variant != CUT) else { return Keep::Yes };
    if passed_on(flow.facts.id, finding, capture) {
        return Keep::Drop;
    }
    if is_front(flow.facts.id, capture) {
        if finding.variant == LATER && told_behind(finding, flow, capture) {
            return Keep::Drop;
        }
        if let Some(told) = finding.evidence.iter().map(|told| told.at).min() {
            finding.values.set("onset", Value::Frame(told));
        }
    }
    let (mut errors, mut answers) = (0, 0);
    for sibling in capture.flows_to(&flow.facts.server).take(COUNTED) {
        let all = exchanges(&sibling.story);
        errors += errors_of(sibling, &all, capture);
        answers += answered(sibling, &all);
    }
    // Healthy flows that were let go answered at least once.
    let kept = capture.flows_to(&flow.facts.server).take(COUNTED).count() as u64;
    let served = capture.began_to(&flow.facts.server, crate::time::Timestamp::MIN, crate::time::Timestamp::MAX);
    answers += (served.take(16 * COUNTED).filter(|digest| digest.answered).count() as u64).saturating_sub(kept);
    if let Some(period) = checked(flow, finding, capture) {
        finding.severity = Severity::Notice;
        finding.notes.push(format!(
            "asked every {period} on a connection of its own by who names no program: a health check, which an error may answer on purpose (\"not this one\")"
        ));
        return Keep::Yes;
    }
    if errors >= MANY && errors.saturating_mul(ONE_IN) >= answers && finding.severity == Severity::Warning {
        let told = finding.clone().severity(Severity::Critical).variant(1);
        *finding = told.with("failed", errors).with("answers", answers);
    }
    Keep::Yes
}

/// Whether one of the servers behind it was found to give that status.
fn told_behind(finding: &Finding, flow: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let of_legs = capture.links_of(flow.facts.id).filter(|link| link.client_leg == flow.facts.id);
    let behind: Vec<_> =
        of_legs.filter_map(|link| capture.digest_of(link.backend_leg)).map(|digest| digest.server()).collect();
    let same = |one: &Finding| one.rule == finding.rule && one.values.get("status") == finding.values.get("status");
    let mut found = capture.found_by(RULE.id).filter(|other| behind.contains(&other.facts.server));
    found.any(|other| other.findings.iter().any(same))
}

/// Connections that carry one such question each, as a clock does: how often.
const CHECKS: u32 = 3;
/// Of those the first so many are looked at.
const CHECKED: usize = 64;

/// The period of questions that all come alone and get that error: users ask at irregular times, and their programs have names.
pub(super) fn checked(flow: &FlowSummary, finding: &Finding, capture: &CaptureView<'_>) -> Option<Elapsed> {
    let path = finding.values.get("path")?;
    let (client, server) = (flow.facts.client.address, flow.facts.server);
    let nameless = |other: &FlowSummary| {
        other.digest.lone() && exchanges(&other.story).iter().all(|one| one.head.user_agent.is_none())
    };
    let alike = capture.found_by(&finding.rule).filter(|other| {
        other.facts.server == server
            && other.facts.client.address == client
            && other.findings.iter().any(|one| one.rule == finding.rule && one.values.get("path") == Some(path))
    });
    let all: Vec<&FlowSummary> = alike.take(CHECKED).collect();
    if !all.iter().all(|other| nameless(other)) {
        return None;
    }
    let (period, times) = period(all.iter().map(|other| other.facts.id), 1, 20)?;
    (times >= CHECKS).then_some(period)
}

/// How many answers a connection carried, at most: where not all are told, each segment of the client may have been a request.
fn answered(flow: &FlowSummary, told: &[Exchange<'_>]) -> u64 {
    let answers = told.iter().filter(|one| one.response.is_some()).count() as u64;
    let all = told.len() + 1 < TOLD && flow.story.left_out() == 0;
    if all { answers } else { flow.facts.from_client.segments.max(answers) }
}

/// The backend gave the same status: the finding of its leg tells it.
fn passed_on(flow: PacketRef, finding: &Finding, capture: &CaptureView<'_>) -> bool {
    let own: Vec<PacketRef> = finding.evidence.iter().map(|told| told.at).collect();
    capture.links_of(flow).filter(|link| link.client_leg == flow).any(|link| {
        let (client_leg, backend_leg) = (capture.flows.get(&link.client_leg), capture.flows.get(&link.backend_leg));
        joined(&LegsView { link, client_leg, backend_leg, capture }).iter().any(|(client, backend)| {
            match (failed(client), failed(backend)) {
                (Some((at, ours)), Some((_, theirs))) => own.contains(&at) && ours == theirs,
                _ => false,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Protocol, What};
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn head(status: u16) -> ResponseHead {
        ResponseHead { status, server: Some("shop/1.4".into()), ..Default::default() }
    }

    fn answered(scene: Scene, ms: i64, head: ResponseHead) -> Scene {
        scene
            .request(ms, "GET", "/cart?id=1", 80)
            .data(Side::Server, ms + 5, 300)
            .also(Side::Server, What::Response(Box::new(head)))
            .also(Side::Server, What::ResponseEnd)
    }

    fn nth(n: u64, status: u16) -> Scene {
        let scene = Scene::starting(&format!("10.0.0.1:{}", 40_000 + n), "10.0.0.2:443", 100 * n, 1000 * n as i64);
        answered(scene.handshake(), 3, head(status))
    }

    /// Connections that ask once each and get 503, `gaps` ms apart.
    fn lone(gaps: &[i64], agent: Option<&str>) -> Option<Severity> {
        let mut world = World::new();
        let mut last = None;
        for (number, start) in (1..).zip(gaps) {
            let scene = Scene::starting(&format!("10.0.0.1:{}", 40000 + number), "10.0.0.2:8009", number * 100, *start);
            let asked = RequestHead {
                method: "OPTIONS".into(),
                target: "/primary".into(),
                user_agent: agent.map(Into::into),
                ..Default::default()
            };
            let scene = scene
                .handshake()
                .data(Side::Client, 3, 60)
                .speaks(Side::Client, Protocol::Http)
                .also(Side::Client, What::Request(Box::new(asked)))
                .also(Side::Client, What::RequestEnd)
                .data(Side::Server, 4, 90)
                .speaks(Side::Server, Protocol::Http)
                .also(Side::Server, What::Response(Box::new(head(503))))
                .also(Side::Server, What::ResponseEnd);
            let mut scene = scene;
            let found = scene.check(&RULE).expect("503");
            scene.findings.push(found.clone());
            world = world.with(&scene);
            last = Some(found);
        }
        world.corroborated(&RULE, last?).map(|finding| finding.severity)
    }

    #[test]
    fn a_clock_that_asks_without_a_name_is_a_check() {
        assert_eq!(lone(&[0, 1000, 2001, 3002, 4001], None), Some(Severity::Notice));
        assert!(
            lone(&[0, 1000, 2001, 3002, 4001], Some("curl/8")) > Some(Severity::Notice),
            "programs of users have names"
        );
        assert!(lone(&[0, 300, 2001, 2400, 4001], None) > Some(Severity::Notice), "users are no clock");
    }

    #[test]
    fn a_500_is_a_warning_with_request_and_answer() {
        let finding = answered(Scene::open(), 3, head(500)).check(&RULE).expect("an error");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert_eq!((finding.severity, finding.values.get("path")), (Severity::Warning, Some(&Value::from("/cart"))));
    }

    #[test]
    fn a_gateways_words_maintenance_and_4xx_are_none() {
        for status in [200, 304, 400, 404, 502, 504] {
            assert_eq!(answered(Scene::open(), 3, head(status)).check(&RULE), None, "{status}");
        }
        let maintenance = ResponseHead { retry_after: Some("120".into()), ..head(503) };
        assert_eq!(answered(Scene::open(), 3, maintenance).check(&RULE), None);
        assert!(answered(Scene::open(), 3, head(503)).check(&RULE).is_some());
    }

    #[test]
    fn health_checks_and_methods_that_nobody_implements_are_notices() {
        let finding = answered(Scene::open(), 3, head(501)).check(&RULE).expect("seen");
        assert_eq!(finding.severity, Severity::Notice);
        let probe =
            RequestHead { user_agent: Some("kube-probe/1.29".into()), method: "GET".into(), ..Default::default() };
        let scene = Scene::open().data(Side::Client, 3, 80).also(Side::Client, What::Request(Box::new(probe)));
        let scene = scene.data(Side::Server, 5, 90).also(Side::Server, What::Response(Box::new(head(500))));
        assert_eq!(scene.check(&RULE).expect("seen").severity, Severity::Notice);
    }

    #[test]
    fn five_errors_of_a_hundred_answers_are_critical_and_four_are_not() {
        let world = |errors: u64, all: u64| {
            (1..=all).fold(World::new(), |world, n| world.with(&nth(n, if n <= errors { 500 } else { 200 })))
        };
        let severity = |errors, all| {
            let finding = nth(1, 500).check(&RULE).expect("an error");
            world(errors, all).corroborated(&RULE, finding).expect("kept").severity
        };
        assert_eq!(severity(5, 100), Severity::Critical);
        assert_eq!(severity(4, 10), Severity::Warning);
        assert_eq!(severity(5, 101), Severity::Warning);
    }

    #[test]
    fn only_what_no_shell_reads_stands_in_a_command() {
        assert_eq!(plain("/a/b-c,1.html?x=1"), "/a/b-c,1.html");
        assert_eq!((plain("/a;reboot"), plain("http://x/"), plain("/$(id)")), ("/", "/", "/"));
    }
}
