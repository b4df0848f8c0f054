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
            says: "Is {port} the port {client_host} is configured for? HAProxy: srv_port must say the same.",
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
    let other_number = mismatch::by_number(server.port).is_some_and(|protocol| protocol != Protocol::Http);
    if !request && other_number { Keep::Drop } else { Keep::Yes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World, proxy_header};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn header(server: &str) -> Scene {
        let header = proxy_header(1, "35.229.69.78:80", 46);
        Scene::starting("10.224.26.1:56118", server, 6, 3)
            .handshake()
            .data(Side::Client, 3, 46)
            .speaks(Side::Client, Protocol::Proxy)
            .also(Side::Client, What::ProxyHeader(Box::new(header)))
    }

    fn request(scene: Scene, objection: Option<&str>) -> Scene {
        let head = RequestHead {
            method: "GET".into(),
            host: Some("www.example.com".into()),
            minor: 1,
            objection: objection.map(Into::into),
            ..Default::default()
        };
        scene
            .data(Side::Client, 3, 60)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(head)))
    }

    fn answer(scene: Scene, status: u16) -> Scene {
        let head = ResponseHead { status, minor: 1, closes: true, ..Default::default() };
        scene
            .data(Side::Server, 4, 309)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
            .fin(Side::Server, 5)
    }

    #[test]
    fn a_sound_request_behind_the_header_makes_it_certain() {
        let found = answer(request(header("10.0.0.2:3000"), None), 400).check(&RULE).expect("400");
        assert_eq!((found.confidence, found.evidence.len()), (Confidence::Certain, 3));
        let broken = answer(request(header("10.0.0.2:3000"), Some("space in target")), 400);
        assert_eq!(broken.check(&RULE).expect("400").confidence, Confidence::Medium);
    }

    #[test]
    fn the_header_alone_is_judged_by_the_ports_number() {
        assert_eq!(answer(header("10.0.0.2:8080"), 400).check(&RULE).expect("400").confidence, Confidence::High);
        let scene = answer(header("10.0.0.2:443"), 400);
        let found = scene.check(&RULE).expect("a candidate");
        assert!(World::new().with(&scene).corroborated(&RULE, found).is_none());
    }

    #[test]
    fn another_answer_than_400_is_silent() {
        assert!(answer(request(header("10.0.0.2:80"), None), 404).check(&RULE).is_none());
    }

    #[test]
    fn a_port_that_takes_headers_answers_400_for_other_reasons() {
        let scene = answer(request(header("10.0.0.2:80"), None), 400);
        let mut good = answer(request(header("10.0.0.2:80"), None), 200);
        good.facts.id.number = 100;
        let world = World::new().with(&scene).with_good(&good);
        assert!(world.corroborated(&RULE, scene.check(&RULE).expect("400")).is_none());
    }
}
