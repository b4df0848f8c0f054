//! A PROXY protocol header was sent to a plain HTTP server that does not expect it. The server takes it for a broken request.
//!
//! ## How tcpwhy knows
//! The client's first octets are a whole PROXY header (version 1 or 2), and the server answers HTTP 400 and closes; all common servers do
//! (nginx, Apache, HAProxy, Go, Node). That the port speaks HTTP is known by a request behind the header, else by other connections
//! that speak HTTP to it without a header, else by its number. It is certain with a well-formed request behind the header or with such
//! other connections, and high by the port's number.
//!
//! ## What it is not
//! - `proxy-header-to-tls-port`: nginx answers the same plain-text 400 on a TLS port; there a ClientHello follows the header.
//! - `proxy-header-duplicated`: the first header was accepted, the second was not.
//! - `http-bad-request`: the bare fact, here with its cause.
//!
//! ## What people see
//! `400 Bad Request` for every request. nginx logs `client sent invalid method while reading client request line` (version 2) or the line
//! with `"PROXY TCP4 …"` (version 1); HAProxy logs `<BADREQ>` with the flags `PR--`.
//!
//! ## False alarms it avoids
//! A header that was accepted is silent: another answer than 400 follows. A port that took headers from others answers 400 for reasons
//! of the request. An application that refuses a request with 400 keeps the connection open, a parser that gave up closes it.

use crate::event::{Kind, Protocol, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, header, mismatch};

pub static RULE: Rule = Rule {
    id: "proxy-header-to-http-port",
    title: "a PROXY protocol header was sent to a plain HTTP server that does not expect it",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader, Kind::Response]),
    says: "{client_host} sends a PROXY header to a port that speaks plain HTTP: {server}",
    users_see: &[
        "400 Bad Request",
        "client sent invalid method while reading client request line",
        "client sent invalid request while reading client request line",
        "PROXY TCP4",
        "<BADREQ>",
        "PR--",
        "QUIT",
    ],
    do_first: &[
        Step {
            says: "Is {port} the port that {client_host} is configured for? In HAProxy, srv_port must say the same.",
            command: "echo \"show servers state\" | socat stdio /run/haproxy/admin.sock",
        },
        Step {
            says: "It differs from haproxy.cfg: a server-state-file restored the old port. Is one loaded?",
            command: "grep -nE 'server-state-file|load-server-state' /etc/haproxy/haproxy.cfg",
        },
        Step {
            says: "{port} is meant: remove send-proxy, or switch PROXY on at the receiver. What listens there?",
            command: "ss -ltnp 'sport = :{port}'",
        },
    ],
    fix: &[
        Fix {
            says: "The receiver needs no header: remove send-proxy or send-proxy-v2 from the server line, then reload.",
            command: "systemctl reload haproxy",
            risk: "the receiver no longer learns the client's address, unless X-Forwarded-For carries it",
        },
        Fix {
            says: "The receiver shall read it: nginx `listen {port} proxy_protocol`; Apache `RemoteIPProxyProtocol On`; HAProxy `bind :{port} accept-proxy`.",
            command: "",
            risk: "from then on connections without the header fail on that port, health checks included",
        },
    ],
    verify: &[
        Step {
            says: "prints 400 with the header:",
            command: "curl -sS -m 5 -o /dev/null -w '%{http_code}\\n' --haproxy-protocol http://{server}/",
        },
        Step {
            says: "and not without it:",
            command: "curl -sS -m 5 -o /dev/null -w '%{http_code}\\n' http://{server}/",
        },
    ],
    not: &[("proxy-header-to-tls-port", "what follows the header is no ClientHello")],
    cannot_show: &["where the proxy took this port from: its configuration, a state file, or its API"],
    explains: &[
        Explains("proxy-upstream-closed", Scope::SameOrLink),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 6",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6, Go 1.19, Node 20, OpenJDK 17",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    let refusal = mismatch::refusal(flow)?;
    if header::has_a_fault_of_its_own(flow) || refusal.at() < at || !refusal.is_bad_request() {
        return None;
    }
    let behind = mismatch::spoken_by_client(flow);
    let confidence = match (behind, mismatch::by_number(flow.facts.server.port)) {
        (Some((_, Protocol::Http)), _) if well_formed(flow) => Confidence::Certain,
        // The server may have read the header and choked on the request.
        (Some((_, Protocol::Http)), _) => Confidence::Medium,
        (Some(_), _) => return None,
        (None, Some(Protocol::Http)) => Confidence::High,
        (None, Some(_)) => Confidence::Low,
        (None, None) => Confidence::Medium,
    };
    let mut finding = RULE.found(flow, at, Side::Client, header::shows(proxy)).confidence(confidence);
    if let Some((request, _)) = behind {
        finding = finding.and(request, Side::Client, "the request behind the header");
    }
    finding = finding.and(refusal.at(), Side::Server, refusal.shows(flow));
    Some(header::fill(mismatch::rules_out_path(finding, flow), proxy))
}

fn well_formed(flow: &FlowView<'_>) -> bool {
    flow.story.events().any(|e| match &e.what {
        What::Request(head) => head.objection.is_none() && (head.host.is_some() || head.minor == 0),
        _ => false,
    })
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    if mismatch::behind_header(capture, &server).is_some() {
        return Keep::Drop;
    }
    if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Http) {
        finding.confidence = Confidence::Certain;
        mismatch::cite_control(finding, &spoke, "HTTP without the header");
        return Keep::Yes;
    }
    let request = flow.story.seen().has(Kind::Request);
    if mismatch::to_others(capture, &server, Protocol::Tls).is_some() && !request {
        return Keep::Drop;
    }
    if finding.confidence == Confidence::Low { Keep::Drop } else { Keep::Yes }
}
