//! A head is larger than what has to read it allows: mostly a cookie that grew.
//!
//! ## How tcpwhy knows
//! The server answered 431 or 414, or it answered 400 and closed within 1 s of a request whose head has at least 8,000 octets: where nginx
//! (8 KiB for one field), Apache (8,190 octets) and HAProxy (16 KiB in all) end. Or the backend's answer has a head of at least 4,000 octets
//! (where nginx' buffers end) and the proxy that asked for it says 502.
//!
//! ## What it is not
//! - `http-bad-request`: there the request breaks the syntax.
//! - `http-gateway-error` with another cause: there the backend gave no answer, or a small head.
//!
//! ## What people see
//! "Request Header Or Cookie Too Large", 431, 414, and for some users only; with a large answer 502 after login.
//!
//! ## False alarms it avoids
//! A large head that was answered. An application's 400 to a request of common size.

use crate::event::{Kind, LARGE_HEAD, PacketRef, Side, What};
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Recovery, Rule, Scope, Step};
use crate::wire::http::Framing;

/// Below this no server of common settings refuses a request's head: nginx 8 KiB, Apache 8,190 octets, Tomcat 8 KiB.
const REQUEST: u64 = 8_000;
/// Below this no proxy of common settings refuses an answer's head: nginx 4 or 8 KiB, Apache 8,192 octets.
const ANSWER: u32 = LARGE_HEAD;

pub static RULE: Rule = Rule {
    id: "http-header-too-large",
    title: "a head is larger than its reader allows",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::Response]).and_any(&[Kind::ErrorStatus, Kind::LargeHead]),
    says: "{server} answered {status} to a request head of {size} octets from {client_host}: larger than it allows",
    variants: &[
        "{server} answered with a head of {size} octets, and the proxy {client_host} said 502: larger than it takes",
    ],
    users_see: &[
        "Request Header Or Cookie Too Large",
        "431 Request Header Fields Too Large",
        "414 Request-URI Too Large",
        "Size of a request header field exceeds server limit.",
        "upstream sent too big header while reading response header from upstream",
    ],
    do_first: &[
        Step {
            says: "On {host}: what does the log say about that request?",
            command: "sudo tail -n 50 /var/log/nginx/error.log /var/log/apache2/error.log /var/log/haproxy.log",
        },
        Step {
            says: "On {host} and on the proxy: which limits are set?",
            command: "sudo grep -rnE 'large_client_header_buffers|proxy_buffer_size|LimitRequest|tune.bufsize' /etc/nginx /etc/apache2 /etc/haproxy",
        },
    ],
    verify: &[Step {
        says: "from the client's host, with a small head: below 400 means that only the size is refused:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[("network", "the whole head arrived")],
    cannot_show: &["which limit it was: of one field, of the first line, or of the whole head"],
    explains: &[Explains("http-bad-request", Scope::SameOrLink), Explains("http-gateway-error", Scope::SameOrLink)],
    sources: &[
        "RFC 6585 §5, RFC 9110 §15.5.15",
        "measured: nginx, Apache, HAProxy and Python with cookies of 9,000 to 66,000 octets; nginx with an answer of 12 kB of fields",
    ],
    check: Check::Flow(check),
    corroborate: Some(was_refused),
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    request(flow).or_else(|| answer(flow))
}

/// A request whose head was refused for its size.
fn request(flow: &FlowView<'_>) -> Option<Finding> {
    let first = flow.client().first_payload?;
    let (at, status, closes) = flow.story.events().find_map(|e| match &e.what {
        What::Response(head) if matches!(head.status, 400 | 414 | 431) => Some((e.at, head.status, head.closes)),
        _ => None,
    })?;
    let asked = flow.story.events().filter(|e| e.side == Side::Client).find_map(|e| match &e.what {
        What::Request(head) if head.len >= REQUEST as u32 => Some((e.at, u64::from(head.len), head)),
        _ => None,
    });
    let (sent, size) = match asked {
        Some((sent, size, head)) if status != 400 || head.framing == Framing::None => (sent, size),
        Some(_) => return None,
        // The server answers before the head is whole, or says by the status what it means.
        None if status != 400 || !flow.saw(Kind::Request) => (first, flow.client().payload),
        None => return None,
    };
    let after = at.time.since(sent.time);
    let large = size >= REQUEST && closes && after <= flow.thresholds.refusal;
    if flow.facts.mid_stream || first > at || (status == 400 && !large) {
        return None;
    }
    let shows = format!("{status} {after} after the client's octets");
    let finding = RULE.found(flow, at, Side::Server, shows).and(sent, Side::Client, format!("a head of {size} octets"));
    Some(finding.with("size", size).with("status", u64::from(status)))
}

/// An answer whose head is large; whether somebody refused it, the other leg tells.
fn answer(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let large = |one: &&crate::rule::exchange::Exchange<'_>| one.response.is_some_and(|(_, head)| head.len >= ANSWER);
    let one = all.iter().find(large)?;
    let (at, head) = one.response?;
    let size = u64::from(head.len);
    let finding = RULE
        .found(flow, at, Side::Server, format!("{} with a head of {size} octets", head.status))
        .and(one.request, Side::Client, "the request")
        .with("size", size);
    Some(finding.variant(1).culprit(Culprit::Server))
}

/// A large answer is a fault only where the proxy in front of it gave 502.
fn was_refused(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = finding.subject.flow().filter(|_| finding.variant == 1) else { return Keep::Yes };
    let at = finding.first().max(finding.last());
    let refused = capture.links_of(flow).filter(|link| link.backend_leg == flow).find_map(|link| {
        let leg = capture.flows.get(&link.client_leg)?;
        let said = leg.story.events().find_map(|e| bad_gateway(e.at, &e.what).filter(|said| *said > at))?;
        Some((said, link.client_leg))
    });
    let Some((said, leg)) = refused else { return Keep::Drop };
    *finding = finding.clone().cites(said, Some(leg), "502 of the proxy that asked for it");
    Keep::Yes
}

fn bad_gateway(at: PacketRef, what: &What) -> Option<PacketRef> {
    match what {
        What::Response(head) if head.status == 502 => Some(at),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn asked(len: u32, framing: Framing) -> Scene {
        let head = RequestHead { method: "GET".into(), host: Some("a".into()), len, framing, ..Default::default() };
        Scene::open().data(Side::Client, 3, len).also(Side::Client, What::Request(Box::new(head)))
    }

    fn answered(scene: Scene, status: u16, ms: i64, len: u32) -> Scene {
        let head = ResponseHead { status, closes: true, len, ..Default::default() };
        scene.data(Side::Server, ms, 300).also(Side::Server, What::Response(Box::new(head)))
    }

    #[test]
    fn a_400_to_a_large_head_is_told_with_its_size() {
        let finding = answered(asked(9_100, Framing::None), 400, 5, 200).check(&RULE).expect("too large");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert_eq!(finding.evidence[1].shows, "a head of 9100 octets");
    }

    #[test]
    fn statuses_that_say_so_need_no_size() {
        assert!(answered(asked(500, Framing::None), 431, 5, 200).check(&RULE).is_some());
        assert!(answered(asked(500, Framing::None), 414, 5, 200).check(&RULE).is_some());
    }

    #[test]
    fn common_sizes_bodies_and_late_answers_are_none() {
        assert_eq!(answered(asked(900, Framing::None), 400, 5, 200).check(&RULE), None);
        assert_eq!(answered(asked(9_100, Framing::Length(70)), 400, 5, 200).check(&RULE), None);
        assert_eq!(answered(asked(9_100, Framing::None), 400, 3_005, 200).check(&RULE), None);
        assert_eq!(answered(asked(9_100, Framing::None), 200, 5, 200).check(&RULE), None);
    }

    #[test]
    fn a_large_answer_that_no_proxy_refused_is_none() {
        let scene = answered(asked(90, Framing::None), 200, 5, 12_200);
        let finding = scene.check(&RULE).expect("large");
        assert_eq!(World::new().with(&scene).corroborated(&RULE, finding), None);
    }
}
