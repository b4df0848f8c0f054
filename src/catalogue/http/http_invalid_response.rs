//! What came back for an HTTP request is no HTTP.
//!
//! ## How tcpwhy knows
//! The client sent a whole HTTP/1 request, and the server's first octets behind it begin no `HTTP/1` status line and nothing else that is
//! known by its first octets: they are quoted. Or they are frames of HTTP/2, or a head that breaks the syntax of HTTP.
//!
//! ## What it is not
//! - `http-to-tls-port`, `unexpected-protocol-on-port`: there the server's protocol is known.
//! - `http-framing-conflict`: there the octets come behind a complete answer.
//! - `closed-without-answer`: there nothing came back.
//!
//! ## What people see
//! `curl: (1) Received HTTP/0.9 when not allowed`, nginx's 502 with `upstream sent no valid HTTP/1.0 header`, HAProxy's `PH`.
//!
//! ## False alarms it avoids
//! `100 Continue` and `103 Early Hints` are HTTP. Behind an upgrade or CONNECT anything may come. Radio streams begin `ICY 200 OK`. A
//! client that reads 8 KiB and more of it takes it; nothing is said while more may come. Readers differ in what they forgive: a head that breaks the syntax, or a status line in
//! small letters, counts only where the client closed first, and is a warning. Where the beginning of the server's octets is not in the capture nothing is
//! said.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::exchange::Exchange;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Recovery, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "http-invalid-response",
    title: "what came back is not HTTP",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::Request, Kind::FirstPayload]).and_any(&[Kind::Recognised]),
    says: "{server} answered {request} with octets that are no HTTP/1: {octets}",
    variants: &[
        "{server} answered {request} with a head that breaks the syntax of HTTP",
        "{server} answered {request} with frames of HTTP/2: it was asked in HTTP/1",
    ],
    users_see: &[
        "curl: (1) Received HTTP/0.9 when not allowed",
        "upstream sent no valid HTTP/1.0 header",
        "502 Bad Gateway",
        "PH",
        "Parse Error: Expected HTTP/",
        "malformed HTTP response",
    ],
    do_first: &[
        Step {
            says: "On {host}: which program answers on that port? Is it the one that is meant?",
            command: "sudo ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "From the client's host: what does it say to a plain request?",
            command: "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {host} {port} | head -c 200 | od -c | head",
        },
    ],
    verify: &[Step {
        says: "from the client's host; a status means that HTTP is spoken there:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[("network", "request and answer arrived")],
    cannot_show: &["which program wrote the octets"],
    explains: &[Explains("http-gateway-error", Scope::Link), Explains("http-invalid-response", Scope::Link)],
    sources: &["RFC 9112 §4", "measured: HAProxy answers 502, nginx 1.22 passes the octets on as HTTP/0.9"],
    check: Check::Flow(check),
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

/// A status line that lost its first octet to sequence numbers which are off by one, as in written captures.
const ONE_OFF: &[u8] = b"TTP/1.";
/// The status line of Shoutcast servers, which players of radio streams take.
const ICY: &[u8] = b"ICY ";
/// A client that reads on takes what comes: HTTP/0.9, or a way of its own.
const TAKEN: u64 = 8192;
/// Octets quoted.
const QUOTED: usize = 24;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let server = flow.server();
    let lacking = server.unseen + server.cut + server.held_dropped + flow.client().unseen > 0;
    // The SYN+ACK tells where the server's octets begin.
    if flow.facts.mid_stream || lacking || server.syns.is_empty() {
        return None;
    }
    if flow.protocol(Side::Client) != Some(Protocol::Http) {
        return None;
    }
    let speaks = flow.protocol(Side::Server)?;
    if speaks == Protocol::Http && !flow.saw(Kind::HttpBroken) {
        return None;
    }
    let exchange = flow.exchange()?;
    match speaks {
        Protocol::Unknown => strange(flow, &exchange),
        Protocol::Http2 if !asked_for_upgrade(flow) => {
            let at = flow.server().first_payload?;
            let finding = told(flow, &exchange, at, "the answer begins with a frame of HTTP/2 (SETTINGS)".into());
            Some(finding.variant(2).note("the port speaks HTTP/2 only (h2c, gRPC)"))
        }
        Protocol::Http => broken(flow, &exchange),
        _ => None,
    }
}

/// A request of the flow asked for another protocol: what was upgraded is asked again as a stream of its own.
fn asked_for_upgrade(flow: &FlowView<'_>) -> bool {
    flow.story.events().any(|event| matches!(&event.what, What::Request(head) if head.upgrade.is_some()))
}

/// The first octets are nothing known.
fn strange(flow: &FlowView<'_>, exchange: &Exchange<'_>) -> Option<Finding> {
    let octets = flow.story.excerpt(Side::Server)?;
    if octets.starts_with(ICY) || octets.starts_with(ONE_OFF) || flow.server().acknowledged > TAKEN {
        return None;
    }
    let (at, latest) = (flow.server().first_payload?, flow.server().last_payload?);
    // More may come, and a client that takes much of it takes all.
    let may_go_on = flow.open_at_end() && flow.server().fin.is_none();
    if may_go_on && flow.now.since(latest.time) < flow.thresholds.tail {
        return None;
    }
    // A status line in small letters, or behind empty lines: many take it.
    let nearly = octets.trim_ascii_start().get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"));
    if nearly && !objected(flow) {
        return None;
    }
    let quoted = quoted(octets);
    let severity = if nearly { Severity::Warning } else { RULE.severity };
    let finding = told(flow, exchange, at, format!("the answer begins {quoted}")).severity(severity);
    Some(finding.with("octets", quoted))
}

/// A status line, and then something that is no head.
fn broken(flow: &FlowView<'_>, exchange: &Exchange<'_>) -> Option<Finding> {
    let event = flow.first(Kind::HttpBroken, Side::Server)?;
    let asked = exchange.request_end.unwrap_or(exchange.request);
    let outstanding = exchange.response.is_none() && asked <= event.at && objected(flow);
    let finding = || told(flow, exchange, event.at, "a head that breaks the syntax of HTTP".into()).variant(1);
    outstanding.then(|| finding().severity(Severity::Warning))
}

/// The client closed first: it did not take what came. Readers differ in what they forgive.
fn objected(flow: &FlowView<'_>) -> bool {
    flow.closed_first(Side::Client)
}

fn told(flow: &FlowView<'_>, exchange: &Exchange<'_>, at: PacketRef, shows: String) -> Finding {
    let request = format!("{} {}", exchange.head.method, exchange.head.target);
    RULE.found(flow, at, Side::Server, shows)
        .and(exchange.request, Side::Client, format!("the request: {request}"))
        .with("request", request)
}

/// Printable octets as they are, others in hexadecimal.
fn quoted(octets: &[u8]) -> String {
    let octets = octets.get(..QUOTED).unwrap_or(octets);
    let text = octets.iter().all(|octet| matches!(octet, b' '..=b'~' | b'\r' | b'\n' | b'\t'));
    if text {
        format!("\"{}\"", String::from_utf8_lossy(octets).trim_end().escape_debug())
    } else {
        octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    fn still_answering(octets: &[u8]) -> Scene {
        let scene = Scene::open().request(3, "GET", "/", 40).data(Side::Server, 5, 30);
        scene.speaks(Side::Server, Protocol::Unknown).also(Side::Server, What::Excerpt { octets: octets.to_vec() })
    }

    #[test]
    fn while_more_may_come_nothing_is_said() {
        assert_eq!(still_answering(b"hello world\n").check(&RULE), None);
        assert!(still_answering(b"hello world\n").capture_ends(9_000).check(&RULE).is_some());
    }

    fn answered(octets: &[u8]) -> Scene {
        still_answering(octets).fin(Side::Server, 6)
    }

    #[test]
    fn the_first_octets_are_quoted() {
        let finding = answered(b"hello world\n").check(&RULE).expect("no HTTP");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert_eq!(finding.values.get("octets"), Some(&"\"hello world\"".into()));
        let binary = answered(&[0x80, 1, 2]).check(&RULE).expect("no HTTP");
        assert_eq!(binary.values.get("octets"), Some(&"80 01 02".into()));
    }

    #[test]
    fn frames_of_http2_are_named() {
        let asked = Scene::open().request(3, "GET", "/", 40).data(Side::Server, 5, 9);
        assert_eq!(asked.speaks(Side::Server, Protocol::Http2).check(&RULE).expect("no HTTP/1").variant, 2);
    }

    #[test]
    fn a_head_that_breaks_is_told_only_while_a_request_is_outstanding() {
        let asked = Scene::open().request(3, "GET", "/", 40).data(Side::Server, 5, 30);
        let broken = asked.speaks(Side::Server, Protocol::Http).also(Side::Server, What::HttpBroken);
        assert_eq!(broken.clone().fin(Side::Server, 9).check(&RULE), None);
        assert_eq!(broken.fin(Side::Client, 9).check(&RULE).expect("broken").variant, 1);
        let behind =
            Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).also(Side::Server, What::ResponseEnd);
        assert_eq!(behind.also(Side::Server, What::HttpBroken).check(&RULE), None);
    }

    #[test]
    fn http_and_other_known_protocols_are_none() {
        assert_eq!(Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).check(&RULE), None);
        let ssh =
            Scene::open().request(3, "GET", "/", 40).data(Side::Server, 5, 30).speaks(Side::Server, Protocol::Ssh);
        assert_eq!(ssh.check(&RULE), None);
        assert_eq!(answered(b"ICY 200 OK\r\n").check(&RULE), None);
    }
}
