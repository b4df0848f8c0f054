//! The application takes long to answer: the request was there at once, the first octet of the answer came seconds later.
//!
//! ## How tcpwhy knows
//! In HTTP/1, the time from the end of a request to the head of its final response is 1 s or more and at least 5 round trips, while the
//! client's window was open and its request was not sent twice. At least three requests to one server, and one in twenty of those that
//! are known, are a warning; a single one of 5 s or more as well; a single shorter one is a notice.
//!
//! ## What it is not
//! - A slow path: there the acknowledgment of the request is late, too.
//! - `packet-loss` and `zero-window`, which delay an answer that the application gave in time.
//! - `upstream-hang`: there no answer came.
//! - `proxy-adds-latency`: there the backend's leg shows that the proxy kept request or answer.
//! - A proxy's 502, 503 or 504: there the proxy gave up, and its upstream is the slow one.
//!
//! ## What people see
//! Slow pages, nginx's 499 and 504, a large `request_time` or `Tr`.
//!
//! ## False alarms it avoids
//! Long polls: routes that say so in their name, and those that answer after 20 s and more again and again. Event streams, and the
//! first request after a start (a single one below 5 s).

use crate::catalogue::legs::proxy_adds_latency::kept;
use crate::event::{Kind, PacketRef, Side};
use crate::rule::exchange::Exchange;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::joined;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};
use crate::time::Elapsed;

use super::poll::{self, Answered};

pub static RULE: Rule = Rule {
    id: "slow-response",
    title: "the application takes long to answer",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::Request, Kind::Response]),
    symptom: true,
    says: "{server} takes {took} to begin its answer to {client_host}: the request was there after {trip}",
    variants: &["{server} is slow: {slow} of {known} answers begin after {range}"],
    users_see: &["499", "504 Gateway Time-out", "slow pages", "Tr"],
    do_first: &[Step {
        says: "On {host}: from the server itself, does the same request take as long? Then the network is innocent:",
        command: "curl -sS -o /dev/null -m 70 -w '%{time_starttransfer}\\n' http://{host}:{port}/",
    }],
    verify: &[Step {
        says: "from {client_host}: connect and first octet; only the second one is large:",
        command: "curl -sS -o /dev/null -m 70 -w '%{time_connect} %{time_starttransfer}\\n' http://{host}:{port}/",
    }],
    not: &[("packet-loss", "the request was sent once and acknowledged")],
    cannot_show: &["what the application did in that time"],
    explains: &[
        Explains("client-abandoned", Scope::SameOrLink),
        Explains("proxy-upstream-timeout", Scope::SameOrLink),
        Explains("h2-stream-reset", Scope::SameOrLink),
        Explains("health-check-flapping", Scope::SameOrLink),
        Explains("pool-saturated", Scope::Peer),
    ],
    sources: &["RFC 9110 §15.6.5", "RFC 1122 §4.2.3.2"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// The path may take a fifth of the time.
const TIMES_THE_PATH: i64 = 5;
/// A lone answer is worth a warning from here.
const ALONE: Elapsed = Elapsed::secs(5);
/// Percent of the known answers that must be slow.
const SHARE: usize = 5;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.last.time.since(flow.facts.start()) < flow.thresholds.slow {
        return None;
    }
    let resent = flow.client().loss.timeout + flow.client().loss.fast + flow.server().loss.timeout;
    let unread = flow.client().zero_window_count > 0 || flow.server().zero_window_count > 0;
    if resent > 0 || unread || flow.client().unseen + flow.server().unseen > 0 {
        return None;
    }
    let exchanges = poll::answered(flow.story);
    let worst = slow(flow, &exchanges).max_by_key(|known| (known.took(), std::cmp::Reverse(known.asked)))?;
    if polls(&exchanges) {
        return None;
    }
    let took = worst.took();
    let separate = flow.round_trip().or(flow.client().min_rtt);
    let target = format!("{} {}: the request is complete", worst.head.method, worst.head.target);
    Some(
        RULE.found(flow, worst.asked, Side::Client, target)
            .and(worst.answer, Side::Server, format!("the answer begins {took} later"))
            .severity(if took >= ALONE { Severity::Warning } else { Severity::Notice })
            .confidence(if separate.is_some() { Confidence::High } else { Confidence::Medium })
            .with("took", took)
            .with("trip", separate.unwrap_or_default()),
    )
}

/// The answers whose first octet is late.
fn slow<'a, 'e>(flow: &FlowView<'_>, exchanges: &'e [Answered<'a>]) -> impl Iterator<Item = &'e Answered<'a>> {
    let trip = flow.round_trip().or(flow.client().min_rtt).unwrap_or_default();
    let least = flow.thresholds.slow.max(Elapsed(trip.0.saturating_mul(TIMES_THE_PATH)));
    exchanges.iter().filter(move |known| known.took() >= least && !another_matter(known))
}

/// It waited on purpose, or a proxy gave up on its upstream: the application did not speak.
fn another_matter(known: &Answered<'_>) -> bool {
    matches!(known.status, 502..=504)
        || poll::named(&known.head.target)
        || known.head.accepts_events
        || known.head.upgrade.is_some()
        || known.head.method == "CONNECT"
}

/// Answers that come after 20 s and more, twice: that route waits on purpose.
fn polls(exchanges: &[Answered<'_>]) -> bool {
    exchanges.iter().filter(|known| known.took() >= poll::LATE).count() > 1
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    let answer = finding.last();
    if capture.pools().iter().any(|pool| pool.holds_up(flow.facts.id, answer)) {
        // `pool-saturated` tells it, with the connections that were waited for.
        finding.severity = Severity::Silent;
        return Keep::Yes;
    }
    if let Some(kept) = kept_by_the_proxy(finding, capture) {
        finding.severity = if kept >= capture.thresholds.slow { Severity::Silent } else { Severity::Notice };
        return Keep::Yes;
    }
    let late: Vec<(PacketRef, Elapsed)> = capture.flows_to(&server).take(4096).filter_map(told).collect();
    if late.iter().filter(|(_, took)| *took >= poll::LATE).count() > 1
        && late.iter().all(|(_, took)| *took >= poll::LATE)
    {
        return Keep::Drop;
    }
    let (mut known, mut slow) = (0, Vec::new());
    for other in capture.flows_to(&server).take(4096) {
        for exchange in poll::answered(&other.story) {
            known += 1;
            if exchange.took() >= capture.thresholds.slow && !another_matter(&exchange) {
                slow.push(exchange.took());
            }
        }
    }
    let many = slow.len() >= capture.thresholds.many as usize && slow.len() * 100 >= known * SHARE;
    if !many {
        return Keep::Yes;
    }
    finding.severity = finding.severity.max(Severity::Warning);
    // The slowest speaks for all.
    let mine = told(flow).map(|(id, took)| (took, std::cmp::Reverse(id)));
    let first = late.iter().map(|(id, took)| (*took, std::cmp::Reverse(*id))).max();
    if mine == first
        && let (Some(shortest), Some(longest)) = (slow.iter().min(), slow.iter().max())
    {
        *finding = finding
            .clone()
            .variant(1)
            .with("slow", slow.len() as u64)
            .with("known", known as u64)
            .with("range", range(*shortest, *longest))
            .note(format!("half of them took {} or more", median(&mut slow.clone())));
    }
    Keep::Yes
}

/// `1.2 s to 3.4 s`; one of them where both read alike.
fn range(shortest: Elapsed, longest: Elapsed) -> String {
    let (shortest, longest) = (shortest.to_string(), longest.to_string());
    if shortest == longest { shortest } else { format!("{shortest} to {longest}") }
}

/// The proxy itself lost most of that time, and how much: its own rule tells it with both legs.
fn kept_by_the_proxy(finding: &Finding, capture: &CaptureView<'_>) -> Option<Elapsed> {
    let flow = finding.subject.flow()?;
    let answer = finding.last();
    capture.links_of(flow).filter(|link| link.client_leg == flow).find_map(|link| {
        let leg = |id: &PacketRef| capture.flows.get(id);
        let view = LegsView { link, client_leg: leg(&link.client_leg), backend_leg: leg(&link.backend_leg), capture };
        let told = |front: &Exchange<'_>| front.response.is_some_and(|(at, _)| at == answer);
        joined(&view)
            .iter()
            .find(|(front, _)| told(front))
            .and_then(|(front, back)| kept(front, back))
            .map(|kept| kept.added())
    })
}

/// A flow's own finding: its number, and how long its slowest answer took.
fn told(flow: &crate::rule::summary::FlowSummary) -> Option<(PacketRef, Elapsed)> {
    let finding = flow.findings.iter().find(|finding| finding.rule == RULE.id)?;
    Some((flow.facts.id, finding.last().time.since(finding.first().time)))
}

fn median(times: &mut [Elapsed]) -> Elapsed {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};

    fn answered(scene: Scene, asked: i64, took: i64, target: &str) -> Scene {
        scene
            .request(asked, "GET", target, 40)
            .acked(Side::Client, asked + 1)
            .response(asked + took, 200, 90)
            .also(Side::Server, What::ResponseEnd)
            .acked(Side::Server, asked + took + 1)
    }

    #[test]
    fn one_answer_after_two_seconds_is_a_notice_and_after_six_a_warning() {
        let two = answered(Scene::open(), 3, 2_000, "/").check(&RULE).expect("slow");
        assert_eq!((two.severity, two.evidence[0].at.number, two.evidence[1].at.number), (Severity::Notice, 4, 6));
        assert_eq!(answered(Scene::open(), 3, 6_000, "/").check(&RULE).expect("slow").severity, Severity::Warning);
        assert_eq!(answered(Scene::open(), 3, 900, "/").check(&RULE), None);
    }

    #[test]
    fn three_slow_answers_are_a_warning_that_counts_them() {
        let mut scene =
            answered(answered(answered(Scene::open(), 3, 2_000, "/1"), 3_000, 1_500, "/2"), 6_000, 1_100, "/3");
        let finding = scene.check(&RULE).expect("slow");
        scene.findings.push(finding.clone());
        let told = World::new().with(&scene).corroborated(&RULE, finding).expect("kept");
        assert_eq!((told.severity, told.variant), (Severity::Warning, 1));
        assert_eq!(told.values.get("slow"), Some(&3u64.into()));
    }

    #[test]
    fn a_slow_path_is_no_slow_application() {
        let mut scene = answered(Scene::open(), 3, 2_000, "/");
        (scene.facts.rtt_server, scene.facts.rtt_client) = (Some(Elapsed::millis(600)), None);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn long_polls_take_their_time_on_purpose() {
        assert_eq!(answered(Scene::open(), 3, 9_000, "/api/poll?since=1").check(&RULE), None);
        let twice = answered(answered(Scene::open(), 3, 25_000, "/next"), 26_000, 25_000, "/next");
        assert_eq!(twice.check(&RULE), None);
    }

    #[test]
    fn a_request_that_was_sent_twice_says_nothing_about_the_application() {
        let scene = Scene::open().request(3, "GET", "/", 40).again(Side::Client, 203).acked(Side::Client, 204);
        let scene = scene.response(2_000, 200, 90).also(Side::Server, What::ResponseEnd);
        assert_eq!(scene.check(&RULE), None);
    }
}
