//! The client began a request and never finished it: the server waited for the rest, then gave up.
//!
//! ## How tcpwhy knows
//! The client's octets begin as an HTTP/1 request, and its head has no end, or fewer octets of the body came than the head promises. Then
//! the server answered 408, or closed after 1 s or more without an answer, or nobody said anything for 10 s. What came was acknowledged.
//!
//! ## What it is not
//! - `upstream-hang`: there the request is complete and the server is silent.
//! - `pmtu-blackhole`, `rto-unrecovered`: there the rest was sent and did not arrive.
//! - `http-expect-100-stall`: there the client waits for `100 Continue` before it sends the body.
//! - `client-abandoned`: there the client closes.
//!
//! ## What people see
//! `408 Request Time-out` from HAProxy, Apache or nginx, HAProxy's `cR`, uploads that stop; with many such connections from few addresses a
//! server that answers nobody else (slowloris).
//!
//! ## False alarms it avoids
//! A 408 on a connection where nothing was asked ends an idle connection. A client that leaves in the middle of an upload. A server that
//! refuses an upload before its end (413).

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::Close;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::Elapsed;
use crate::wire::http::Framing;

pub static RULE: Rule = Rule {
    id: "http-request-incomplete",
    title: "the client never finished its request",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Recognised]),
    claims_absence: true,
    says: "{client_host} began a request to {server} and sent no more: {part}, then {wait} of silence; {outcome}",
    users_see: &["408 Request Time-out", "408 Request Timeout", "cR", "request timed out", "upload stops"],
    do_first: &[
        Step {
            says: "On {client_host}: which program sends that, and does it wait for something itself?",
            command: "sudo ss -tnp 'dport = :{port}'",
        },
        Step {
            says: "On {host}: who holds connections open, and how many each?",
            command: "ss -Htn 'sport = :{port}' | awk '{print $5}' | sort | uniq -c | sort -n | tail",
        },
    ],
    verify: &[Step {
        says: "from the client's host; a request that is sent whole must be answered:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[
        ("upstream-hang", "the server cannot answer what it has not got"),
        ("packet-loss", "all that the client sent was acknowledged"),
    ],
    cannot_show: &[
        "why the client stopped: its program waits, its connection broke unnoticed, or it means to hold the server up",
    ],
    sources: &[
        "RFC 9110 §15.5.9",
        "measured: HAProxy (timeout http-request) and Apache (reqtimeout) answer 408, nginx closes without a word",
    ],
    check: Check::Flow(check),
    corroborate: Some(many_at_once),
    ..Rule::BLANK
};

/// So many unfinished requests at once, from few addresses, hold a server up on purpose.
const FEW_SOURCES: usize = 3;
/// Flows of one server that are counted.
const COUNTED: usize = 4096;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let client = flow.client();
    let hidden = client.unseen + client.cut + client.held_dropped > 0 || flow.facts.mid_stream;
    let refused_by_kernel = client.unacknowledged.is_some_and(|waits| waits.len > 0 && waits.copies > 1);
    if flow.protocol(Side::Client) != Some(Protocol::Http) || hidden || refused_by_kernel {
        return None;
    }
    if flow.saw(Kind::HttpBroken) || flow.closed_first(Side::Client) {
        return None;
    }
    let last = client.last_payload?;
    let part = unfinished(flow)?;
    let (ended, outcome) = outcome(flow, last)?;
    let until = ended.map_or(flow.now, |at| at.time);
    let wait = until.since(last.time);
    let least = if ended.is_some() { flow.thresholds.gave_up } else { flow.thresholds.hang };
    if wait < least {
        return None;
    }
    let finding = RULE.found(flow, last, Side::Client, format!("the last octets of the client: {part}"));
    let finding = match ended {
        Some(at) => finding.and(at, Side::Server, format!("{outcome}, {wait} later")),
        None => finding,
    };
    let sure = if ended.is_some() { Confidence::Certain } else { Confidence::High };
    Some(finding.confidence(sure).with("part", part).with("wait", wait).with("outcome", outcome))
}

/// What of the latest request is missing.
fn unfinished(flow: &FlowView<'_>) -> Option<String> {
    let Some(exchange) = flow.exchange() else {
        let octets = flow.client().payload;
        return Some(format!("a head of {octets} octets that has no end"));
    };
    let late = exchange.response.is_some_and(|(_, head)| head.status != 408);
    let waits_for_leave = exchange.head.expects_continue && flow.client().last_payload == Some(exchange.request);
    // Behind a complete exchange only the server's own word tells a head from an empty line.
    let (end, last) = (exchange.request_end, flow.client().last_payload);
    if end.is_some_and(|end| Some(end) < last) && timed_out(flow, last?) {
        return Some("a further head that has no end".into());
    }
    if end.is_some() || late || waits_for_leave {
        return None;
    }
    let line = format!("{} {}", exchange.head.method, exchange.head.target);
    match exchange.head.framing {
        Framing::Length(promised) if flow.story.left_out() == 0 && only(flow) => {
            let came = flow.client().payload.saturating_sub(u64::from(exchange.head.len));
            Some(format!("{came} of the {promised} octets that {line} promises"))
        }
        Framing::Length(_) => Some(format!("less of {line} than it promises")),
        _ => Some(format!("{line} without its last chunk")),
    }
}

/// The server answered 408 after that packet.
fn timed_out(flow: &FlowView<'_>, last: PacketRef) -> bool {
    let is_408 = |what: &What| matches!(what, What::Response(head) if head.status == 408);
    flow.story.events().any(|event| event.at > last && is_408(&event.what))
}

/// The connection carried this one request only, and no PROXY header: its octets are all the client's.
fn only(flow: &FlowView<'_>) -> bool {
    let requests = flow.story.events().filter(|event| event.what.kind() == Kind::Request).count();
    requests == 1 && !flow.saw(Kind::ProxyHeader)
}

/// How it ended: the packet and the words; no packet where it is still open. `None` where it ended otherwise.
fn outcome(flow: &FlowView<'_>, last: PacketRef) -> Option<(Option<PacketRef>, &'static str)> {
    let answer = flow.story.events().find_map(|event| match &event.what {
        What::Response(head) if event.at > last && head.status >= 200 => Some((event.at, head.status)),
        _ => None,
    });
    match (answer, flow.close_of(Side::Server)) {
        (Some((at, 408)), _) => Some((Some(at), "the server answers 408")),
        (Some(_), _) => None,
        (None, _) if flow.server().last_payload.is_some_and(|at| at > last) => None,
        (None, Some(close)) if close > last => Some((Some(close), "the server closes without an answer")),
        (None, None) if flow.facts.close == Close::Open => Some((None, "the server still waits for the rest")),
        _ => None,
    }
}

/// Many at once from few addresses.
fn many_at_once(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let span = Elapsed::secs(60);
    let near = |other: &&crate::rule::summary::FlowSummary| {
        let apart = other.facts.id.time.since(flow.facts.id.time);
        Elapsed(apart.0.abs()) <= span && other.findings.iter().any(|known| known.rule == RULE.id)
    };
    let alike: Vec<_> = capture.flows_to(&flow.facts.server).filter(near).take(COUNTED).collect();
    let sources: std::collections::BTreeSet<_> = alike.iter().map(|other| other.facts.client.address).collect();
    let first = |other: &&crate::rule::summary::FlowSummary| {
        other.findings.iter().find(|known| known.rule == RULE.id).map(crate::rule::finding::Finding::first)
    };
    let leads = alike.iter().filter_map(first).min() == Some(finding.first());
    if leads && alike.len() >= capture.thresholds.pile as usize && sources.len() <= FEW_SOURCES {
        finding.notes.push(format!(
            "{} connections from {} do the same within a minute: they hold the server's workers (slowloris)",
            alike.len(),
            crate::rule::value::counted(sources.len(), "address").replace("addresss", "addresses")
        ));
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;
    use crate::wire::http::{RequestHead, ResponseHead};

    fn half_a_head() -> Scene {
        let scene = Scene::open().data(Side::Client, 3, 30).speaks(Side::Client, Protocol::Http);
        scene.acked(Side::Client, 4)
    }

    fn half_a_body(expects: bool) -> Scene {
        let framing = Framing::Length(1000);
        let head = RequestHead {
            method: "POST".into(),
            target: "/up".into(),
            minor: 1,
            len: 80,
            framing,
            expects_continue: expects,
            ..Default::default()
        };
        let scene = Scene::open().data(Side::Client, 3, 80).speaks(Side::Client, Protocol::Http);
        scene.also(Side::Client, What::Request(Box::new(head))).acked(Side::Client, 4)
    }

    fn timed_out(scene: Scene, ms: i64, status: u16) -> Scene {
        let head = ResponseHead { status, ..Default::default() };
        let scene = scene.data(Side::Server, ms, 100).speaks(Side::Server, Protocol::Http);
        scene.also(Side::Server, What::Response(Box::new(head)))
    }

    #[test]
    fn a_head_without_an_end_and_a_408_are_told_with_both_packets() {
        let finding = timed_out(half_a_head(), 10_003, 408).check(&RULE).expect("unfinished");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (4, 6));
        assert_eq!(finding.confidence, Confidence::Certain);
        assert_eq!(finding.values.get("part"), Some(&"a head of 30 octets that has no end".into()));
    }

    #[test]
    fn a_body_that_stops_is_counted() {
        let scene = half_a_body(false).data(Side::Client, 5, 300).acked(Side::Client, 6).fin(Side::Server, 60_010);
        let finding = scene.check(&RULE).expect("unfinished");
        assert_eq!(finding.values.get("part"), Some(&"300 of the 1000 octets that POST /up promises".into()));
    }

    #[test]
    fn ten_seconds_of_silence_are_enough_and_nine_are_not() {
        assert!(half_a_head().capture_ends(10_010).check(&RULE).is_some());
        assert_eq!(half_a_head().capture_ends(9_000).check(&RULE), None);
    }

    #[test]
    fn a_whole_request_a_client_that_leaves_and_an_early_refusal_are_none() {
        let whole = Scene::open().request(3, "GET", "/", 40).acked(Side::Client, 4);
        assert_eq!(whole.capture_ends(60_000).check(&RULE), None);
        assert_eq!(half_a_head().fin(Side::Client, 20_000).check(&RULE), None);
        assert_eq!(timed_out(half_a_body(false), 5_000, 413).check(&RULE), None);
    }

    #[test]
    fn a_further_head_is_unfinished_where_the_server_says_so() {
        let first = Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).also(Side::Server, What::ResponseEnd);
        let second = first.data(Side::Client, 100, 20).acked(Side::Client, 101);
        assert_eq!(second.clone().fin(Side::Server, 5_100).check(&RULE), None);
        assert!(timed_out(second, 3_100, 408).check(&RULE).is_some());
    }

    #[test]
    fn who_waits_for_leave_to_send_is_not_at_fault() {
        assert_eq!(half_a_body(true).capture_ends(60_000).check(&RULE), None);
        assert!(
            half_a_body(true)
                .data(Side::Client, 1003, 9)
                .acked(Side::Client, 1004)
                .capture_ends(60_000)
                .check(&RULE)
                .is_some()
        );
    }

    #[test]
    fn what_was_sent_and_not_acknowledged_did_not_arrive() {
        let lost = half_a_head().data(Side::Client, 5, 1400).again(Side::Client, 205).capture_ends(60_000);
        assert_eq!(lost.check(&RULE), None);
    }
}
