//! HTTP/2 did not start: one side began with it, and the other does not go on in HTTP/2.
//!
//! ## How tcpwhy knows
//! The client's first octets are `PRI * HTTP/2.0` (prior knowledge: nothing negotiated it), and the server answers in HTTP/1, usually with
//! 400; or it acknowledges the octets and says nothing for 10 s, not even SETTINGS, which a server sends at once; or it ends the connection
//! with GOAWAY (PROTOCOL_ERROR or SETTINGS_TIMEOUT) before any stream. The other way round: a request of HTTP/1 meets a server that begins
//! with SETTINGS.
//!
//! ## What it is not
//! - `tls-alpn-mismatch`: there TLS would have negotiated HTTP/2.
//! - `upstream-hang`: there the server has begun HTTP/2 and owes an answer.
//! - `h2-goaway-error`: there HTTP/2 was under way.
//!
//! ## What people see
//! gRPC clients report UNAVAILABLE, "connection closed before server preface received", "error reading server preface: http2: frame too
//! large" or "Trying to connect an http1.x server"; curl says "Remote peer returned unexpected data while we expected SETTINGS frame".
//!
//! ## False alarms it avoids
//! Connections that begin before the capture or with a hole in it. A stranger who tries HTTP/2 on a public port that serves others is a
//! notice. A server that closes without an octet may have any reason: `closed-without-answer` tells it.

use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, header};
use crate::wire::h2::error_name;

/// Connections of one host that are a probe and no use.
const PROBES: u64 = 2;
const PROTOCOL_ERROR: u32 = 1;
const SETTINGS_TIMEOUT: u32 = 4;

pub static RULE: Rule = Rule {
    id: "h2-preface-failed",
    title: "HTTP/2 did not start",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::any(&[Kind::Settings, Kind::GoAway]),
    claims_absence: true,
    says: "{client_host} begins HTTP/2 with {server}, which answers in HTTP/1: {answer}",
    variants: &[
        "{client_host} began HTTP/2 with {server}, which said nothing for {wait}",
        "{client_host} and {server} gave HTTP/2 up before it began: {answer}",
        "{client_host} asks {server} in HTTP/1, which speaks HTTP/2 only",
    ],
    users_see: &[
        "UNAVAILABLE: connection closed before server preface received",
        "error reading server preface: http2: frame too large",
        "Trying to connect an http1.x server",
        "Remote peer returned unexpected data while we expected SETTINGS frame",
        "curl: (16) Error in the HTTP2 framing layer",
        "curl: (1) Received HTTP/0.9 when not allowed",
        "HPE_PAUSED_H2_UPGRADE",
    ],
    do_first: &[
        Step {
            says: "From {client_host}: does the port speak HTTP/2 without TLS? A 2 says yes:",
            command: "curl -sS -o /dev/null -m 5 --http2-prior-knowledge -w '%{http_version}\\n' http://{host}:{port}",
        },
        Step {
            says: "From {client_host}: does it speak HTTP/1? A status says yes:",
            command: "curl -sS -o /dev/null -m 5 --http1.1 -w '%{response_code}\\n' http://{host}:{port}",
        },
        Step { says: "On {host}: which process listens there?", command: "sudo ss -ltnp 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "from {client_host}; 2 when it works:",
        command: "curl -sS -o /dev/null -m 5 --http2-prior-knowledge -w '%{http_version}\\n' http://{host}:{port}",
    }],
    not: &[("network", "the client's octets arrived")],
    cannot_show: &["which of the two ends is configured as meant"],
    explains: &[
        Explains("grpc-error-status", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "RFC 9113 §3.3, §3.4, §6.5.3",
        "measured: nginx 1.22, Apache 2.4, Go 1.19, Node 20, nghttpd 1.52, curl 7.88, gRPC 1.51",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let holes = flow.client().unseen + flow.server().unseen;
    if flow.facts.mid_stream || holes > 0 {
        return None;
    }
    match flow.protocol(Side::Client) {
        Some(Protocol::Http2) => {}
        Some(Protocol::Http) => return asked_in_http1(flow),
        _ => return None,
    }
    let begun = flow.client().first_payload?;
    let finding = match flow.protocol(Side::Server) {
        Some(Protocol::Http2) => given_up(flow)?,
        Some(Protocol::Http) => answered(flow)?,
        None if flow.server().payload == 0 => silence(flow, begun)?,
        _ => return None,
    };
    let finding = finding.and(begun, Side::Client, "the HTTP/2 preface, PRI * HTTP/2.0");
    let grpc = flow.story.events().any(|e| matches!(&e.what, What::Request(head) if head.grpc));
    Some(match grpc {
        true => finding.note("the client speaks gRPC, which needs HTTP/2 on every hop"),
        false => finding,
    })
}

/// The server's first octets are SETTINGS; the client's are a request of HTTP/1.
fn asked_in_http1(flow: &FlowView<'_>) -> Option<Finding> {
    let settings = flow.first(Kind::Settings, Side::Server)?;
    let (at, line) = flow.story.events().find_map(|e| match &e.what {
        What::Request(head) if head.stream == 0 => {
            Some((e.at, format!("{} {}", head.method, head.target.split('?').next().unwrap_or(""))))
        }
        _ => None,
    })?;
    let upgraded = flow.story.events().any(|e| matches!(&e.what, What::Response(_)));
    let finding = RULE
        .found(flow, settings.at, Side::Server, "SETTINGS: the server speaks HTTP/2")
        .and(at, Side::Client, format!("a request of HTTP/1: {line}"))
        .and_maybe(flow.close_of(Side::Server), Side::Server, "it closes");
    (!upgraded).then(|| finding.variant(3))
}

/// The server answers in HTTP/1.
fn answered(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, head) = flow.story.events().find_map(|e| match &e.what {
        What::Response(head) if head.stream == 0 => Some((e.at, head.as_ref())),
        _ => None,
    })?;
    if head.status == 101 {
        return None;
    }
    let by = head.server.as_deref().map(|name| format!(", Server: {name}")).unwrap_or_default();
    let answer = format!("HTTP/1.{} {} {}", head.minor, head.status, head.reason).trim_end().to_owned();
    let finding = RULE.found(flow, at, Side::Server, format!("{answer}{by}"));
    Some(finding.with("answer", crate::rule::value::Value::Packet(answer)))
}

/// Not an octet of a server whose kernel took the preface.
fn silence(flow: &FlowView<'_>, begun: PacketRef) -> Option<Finding> {
    let acknowledged = flow.client().first_payload_acked?;
    let wait = flow.waited_since(begun);
    if wait < flow.thresholds.hang || flow.closed_first(Side::Server) {
        return None;
    }
    Some(
        RULE.found(flow, acknowledged, Side::Server, format!("acknowledged, and no SETTINGS for {wait}"))
            .confidence(Confidence::Medium)
            .note("a server of HTTP/2 sends SETTINGS at once: this one speaks something else, or its program hangs")
            .with("wait", wait)
            .variant(1),
    )
}

/// A GOAWAY instead of streams.
fn given_up(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, side, farewell) = flow.story.events().find_map(|e| match &e.what {
        What::GoAway(farewell) if matches!(farewell.away.code, PROTOCOL_ERROR | SETTINGS_TIMEOUT) => {
            Some((e.at, e.side, farewell.as_ref()))
        }
        _ => None,
    })?;
    if !before_any_stream(flow) {
        return None;
    }
    let words = match farewell.away.debug.as_str() {
        "" => String::new(),
        debug => format!(": {debug}"),
    };
    let answer = format!("GOAWAY {}{words}", error_name(farewell.away.code));
    let finding = RULE.found(flow, at, side, answer.clone());
    let confirmed = flow.first(Kind::SettingsTaken, side.other()).is_some();
    let finding = match farewell.away.code == SETTINGS_TIMEOUT && !confirmed {
        true => finding.note("its SETTINGS were never confirmed by the other side"),
        false => finding,
    };
    Some(finding.with("answer", crate::rule::value::Value::Packet(answer)).variant(2))
}

/// Neither an answer nor a stream that one side worked on.
fn before_any_stream(flow: &FlowView<'_>) -> bool {
    let begun = |e: &crate::event::Event| match &e.what {
        What::Response(_) | What::StreamReset(_) | What::GrpcStatus(_) => true,
        What::GoAway(farewell) => farewell.answered > 0 || (e.side == Side::Server && farewell.away.last > 0),
        _ => false,
    };
    flow.story.left_out() == 0 && !flow.story.events().any(begun)
}

/// HTTP/2 gave up before it began: that GOAWAY is this rule's.
pub(super) fn did_not_start(flow: &FlowView<'_>) -> bool {
    flow.protocol(Side::Server) != Some(Protocol::Http2) || given_up(flow).is_some()
}

/// A stranger on a port that works for others is no outage.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let Some(service) = capture.service(&flow.facts.server) else { return Keep::Yes };
    let client = flow.facts.client.address;
    let came = service.clients.get(&client).copied().unwrap_or(PROBES + 1);
    if service.good > 0 && came <= PROBES && header::is_public(client) {
        finding.severity = Severity::Notice;
        finding.notes.push("the port serves others: a stranger that probes it, or a mistyped port".into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::h2::Farewell;
    use crate::rule::testing::{Scene, World};
    use crate::wire::h2::{GoAway, Settings};
    use crate::wire::http::ResponseHead;

    fn preface(client: &str) -> Scene {
        Scene::between(client, "10.0.0.2:8080")
            .handshake()
            .data(Side::Client, 3, 64)
            .speaks(Side::Client, Protocol::Http2)
            .also(Side::Client, What::Settings(Settings::default()))
            .acked(Side::Client, 4)
    }

    fn goaway(scene: Scene, ms: i64, side: Side, code: u32, last: u32) -> Scene {
        let away = GoAway { last, code, debug: String::new() };
        let farewell = Farewell { away, refused: Vec::new(), waiting: Vec::new(), answered: 0 };
        scene.data(side, ms, 17).also(side, What::GoAway(Box::new(farewell)))
    }

    fn begins(scene: Scene) -> Scene {
        scene
            .data(Side::Server, 4, 15)
            .speaks(Side::Server, Protocol::Http2)
            .also(Side::Server, What::Settings(Settings::default()))
    }

    #[test]
    fn an_answer_in_http1_is_certain() {
        let scene = preface("10.0.0.1:40000").response(5, 400, 300);
        let finding = scene.check(&RULE).expect("HTTP/1");
        assert_eq!(
            (finding.severity, finding.confidence, finding.variant),
            (Severity::Critical, Confidence::Certain, 0)
        );
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 4));
    }

    #[test]
    fn an_upgrade_that_was_agreed_is_a_start() {
        let head = ResponseHead { status: 101, ..ResponseHead::default() };
        let scene = preface("10.0.0.1:40000").data(Side::Server, 5, 70).speaks(Side::Server, Protocol::Http);
        assert_eq!(scene.also(Side::Server, What::Response(Box::new(head))).check(&RULE), None);
    }

    #[test]
    fn a_request_of_http1_to_a_server_that_speaks_http2_is_told() {
        let scene = Scene::open().request(3, "GET", "/a", 80);
        let scene = scene.data(Side::Server, 4, 15).speaks(Side::Server, Protocol::Http2);
        let scene = scene.also(Side::Server, What::Settings(Settings::default())).fin(Side::Server, 5);
        let finding = scene.check(&RULE).expect("two languages");
        assert_eq!((finding.variant, finding.evidence.len()), (3, 3));
    }

    #[test]
    fn silence_counts_from_ten_seconds_on() {
        let finding = preface("10.0.0.1:40000").capture_ends(11_000).check(&RULE).expect("silent");
        assert_eq!((finding.confidence, finding.variant), (Confidence::Medium, 1));
        assert_eq!(preface("10.0.0.1:40000").capture_ends(9_000).check(&RULE), None);
        assert_eq!(preface("10.0.0.1:40000").fin(Side::Server, 12_000).check(&RULE), None, "it closed");
        assert_eq!(begins(preface("10.0.0.1:40000")).capture_ends(60_000).check(&RULE), None, "it began");
    }

    #[test]
    fn a_goaway_before_any_stream_is_a_failed_start_and_a_graceful_or_later_one_is_none() {
        let begun = || begins(preface("10.0.0.1:40000"));
        assert_eq!(goaway(begun(), 6, Side::Server, 1, 0).check(&RULE).map(|finding| finding.variant), Some(2));
        let late = goaway(begun(), 10_006, Side::Server, 4, 0).check(&RULE).expect("never confirmed");
        assert_eq!(late.notes, ["its SETTINGS were never confirmed by the other side"]);
        assert_eq!(goaway(begun(), 6, Side::Server, 0, 0).check(&RULE), None);
        assert_eq!(goaway(begun(), 6, Side::Server, 1, 3).check(&RULE), None, "it worked on a stream");
    }

    #[test]
    fn a_stranger_on_a_port_that_serves_others_is_a_notice() {
        let probe = preface("198.51.100.9:40000").response(5, 400, 300);
        let finding = probe.check(&RULE).expect("HTTP/1");
        let good = Scene::between("10.0.0.9:40000", "10.0.0.2:8080").handshake().request(3, "GET", "/", 80);
        let good = good.response(4, 200, 90).also(Side::Server, What::ResponseEnd);
        let told = World::new().with(&probe).with_good(&good).corroborated(&RULE, finding.clone()).expect("kept");
        assert_eq!(told.severity, Severity::Notice);
        assert_eq!(
            World::new().with(&probe).corroborated(&RULE, finding).map(|f| f.severity),
            Some(Severity::Critical)
        );
    }
}
