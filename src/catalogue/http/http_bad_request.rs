//! The server's parser refused the request: what came is no HTTP, or breaks its syntax.
//!
//! ## How tcpwhy knows
//! The server answered 400 within 1 s of the client's octets and closes, and the octets show why: no request line, an invalid field, two
//! lengths that contradict each other, or HTTP/1.1 without Host. A 400 to a request without such a flaw is the application's own.
//!
//! ## What it is not
//! - `tls-to-http-port`, `http-to-tls-port` and the rules about PROXY headers are its causes: they know what was sent instead.
//! - `unexpected-protocol-on-port`: another protocol that is recognised.
//!
//! ## What people see
//! `400 Bad Request` from nginx, Apache or HAProxy, although the application logs nothing.
//!
//! ## False alarms it avoids
//! Applications answer 400 to requests whose contents they do not like: such a request is well formed. Octets that are no HTTP at all come
//! from scanners mostly: a notice. A 400 before the client said anything was passed on by a proxy. 408 ends an idle connection.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::wire::http::{RequestHead, ResponseHead};

pub static RULE: Rule = Rule {
    id: "http-bad-request",
    title: "the server could not parse the request",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Response, Kind::ErrorStatus, Kind::FirstPayload]),
    symptom: true,
    says: "{server} answered 400 to {client_host}: {flaw}",
    users_see: &["400 Bad Request", "400 Bad request", "Your browser sent an invalid request."],
    do_first: &[
        Step {
            says: "On {host}: what does the server's log say about it? nginx logs its reason at level info",
            command: "sudo tail -n 50 /var/log/nginx/error.log /var/log/apache2/error.log /var/log/haproxy.log",
        },
        Step { says: "On {client_host}: which program sends that?", command: "sudo ss -tnp 'dport = :{port}'" },
    ],
    verify: &[Step {
        says: "from the client's host; a well-formed request must not be answered with 400:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[("network", "request and answer arrived")],
    cannot_show: &["which of several flaws the server objected to: its log says so"],
    sources: &[
        "RFC 9110 §15.5.1",
        "RFC 9112 §3.2, §5.1, §6.3",
        "measured: nginx, Apache and HAProxy answer 400 within 1 ms and close",
    ],
    check: Check::Flow(check),
    corroborate: Some(is_the_first_to_refuse),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, head) = refusal(flow)?;
    let asked = exchanges(flow.story);
    let request = asked.iter().find(|one| one.response.is_some_and(|(answer, _)| answer == at));
    let (sent, flaw) = match request {
        Some(one) => (one.request, flaw(one.head)?),
        None => unread(flow, at)?,
    };
    let after = at.time.since(sent.time);
    if after > flow.thresholds.refusal {
        return None;
    }
    let server = head.server.as_deref().map(|name| format!(", Server: {name}")).unwrap_or_default();
    let finding = RULE
        .found(flow, at, Side::Server, format!("400 {after} after the client's octets, and it closes{server}"))
        .and(sent, Side::Client, flaw.clone())
        .with("after", after)
        .with("flaw", flaw);
    let garbage = !flow.saw(Kind::Request) && flow.protocol(Side::Client) != Some(Protocol::Http);
    Some(if garbage {
        finding.severity(Severity::Notice).note("octets that are no HTTP come from scanners mostly")
    } else {
        finding
    })
}

/// The first 400 of a server that gives the connection up, if it came behind octets of the client.
fn refusal<'a>(flow: &FlowView<'a>) -> Option<(PacketRef, &'a ResponseHead)> {
    let first = flow.client().first_payload?;
    if flow.facts.mid_stream || flow.client().unseen + flow.client().cut > 0 {
        return None;
    }
    let mut answers = flow.story.events().filter_map(|e| match &e.what {
        What::Response(head) => Some((e.at, head.as_ref())),
        _ => None,
    });
    answers.find(|(at, head)| head.status == 400 && head.closes && first < *at)
}

/// What breaks the syntax of HTTP in a request that could be read all the same.
fn flaw(head: &RequestHead) -> Option<String> {
    let line = format!("{} {}", head.method, head.target);
    if let Some(objection) = &head.objection {
        return Some(format!("{line} has an {objection}"));
    }
    if let Some(conflict) = head.conflict {
        return Some(format!("{line} has {}", conflict.words()));
    }
    (head.minor >= 1 && head.host.is_none()).then(|| format!("{line} is HTTP/1.{} without Host", head.minor))
}

/// The octets that nobody could read as a request, and what they are.
fn unread(flow: &FlowView<'_>, answer: PacketRef) -> Option<(PacketRef, String)> {
    let broken = flow.story.events().find(|e| e.what.kind() == Kind::HttpBroken && e.side == Side::Client);
    if let Some(event) = broken.filter(|event| event.at <= answer) {
        let flaw = match exchanges(flow.story).into_iter().find(|one| one.request == event.at) {
            // Where a head tells no length, the message ends with it (RFC 9112 §6.3): a body is read as the next request.
            Some(one) => {
                format!("what it sent behind the head of {} {} is no request", one.head.method, one.head.target)
            }
            None => "the request's head breaks the syntax of HTTP".into(),
        };
        return Some((event.at, flaw));
    }
    let sent = flow.client().first_payload?;
    match flow.protocol(Side::Client) {
        Some(Protocol::Http) => None,
        Some(protocol) if protocol != Protocol::Unknown => {
            Some((sent, format!("it sent {}, no HTTP request", protocol.name())))
        }
        _ => Some((sent, "what it sent begins as no HTTP request does".into())),
    }
}

/// Dropped where a backend's 400 was passed on: the finding of its leg tells it.
fn is_the_first_to_refuse(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = finding.subject.flow() else { return Keep::Yes };
    let mut behind = capture.links_of(flow).filter(|link| link.client_leg == flow);
    let passed_on = behind.any(|link| {
        let backend = capture.flows.get(&link.backend_leg);
        backend.is_some_and(|leg| leg.findings.iter().any(|other| other.rule == RULE.id))
    });
    if passed_on { Keep::Drop } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;
    use crate::wire::http::Conflict;

    fn refused(scene: Scene, ms: i64, status: u16, closes: bool) -> Scene {
        let head = ResponseHead { status, closes, server: Some("nginx".into()), ..Default::default() };
        scene
            .data(Side::Server, ms, 300)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
    }

    fn asked(head: RequestHead) -> Scene {
        let head = RequestHead { method: "GET".into(), target: "/".into(), minor: 1, ..head };
        let scene = Scene::open().data(Side::Client, 3, 35).speaks(Side::Client, Protocol::Http);
        scene.also(Side::Client, What::Request(Box::new(head))).also(Side::Client, What::RequestEnd)
    }

    fn named() -> RequestHead {
        RequestHead { host: Some("a".into()), ..Default::default() }
    }

    #[test]
    fn the_flaw_of_a_request_is_told_with_both_packets() {
        let finding = refused(asked(RequestHead::default()), 5, 400, true).check(&RULE).expect("no Host");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert_eq!(finding.evidence[1].shows, "GET / is HTTP/1.1 without Host");
        for head in [
            RequestHead { conflict: Some(Conflict::Lengths), ..named() },
            RequestHead { objection: Some("invalid header name".into()), ..named() },
        ] {
            assert_eq!(refused(asked(head), 5, 400, true).check(&RULE).expect("a flaw").severity, Severity::Warning);
        }
    }

    #[test]
    fn a_well_formed_request_was_refused_by_the_application() {
        assert_eq!(refused(asked(named()), 5, 400, true).check(&RULE), None);
    }

    #[test]
    fn another_status_a_late_answer_and_a_server_that_goes_on_are_none() {
        assert_eq!(refused(asked(RequestHead::default()), 5, 408, true).check(&RULE), None);
        assert_eq!(refused(asked(RequestHead::default()), 2_005, 400, true).check(&RULE), None);
        assert_eq!(refused(asked(RequestHead::default()), 5, 400, false).check(&RULE), None);
    }

    #[test]
    fn octets_that_are_no_http_are_a_notice() {
        let scene = Scene::open().data(Side::Client, 3, 15).speaks(Side::Client, Protocol::Unknown);
        assert_eq!(refused(scene, 5, 400, true).check(&RULE).expect("seen").severity, Severity::Notice);
    }

    #[test]
    fn an_answer_before_the_client_spoke_was_passed_on() {
        assert_eq!(refused(Scene::open(), 5, 400, true).check(&RULE), None);
    }
}
