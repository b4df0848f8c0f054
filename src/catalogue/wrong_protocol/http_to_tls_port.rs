//! Plain HTTP was sent to a port that speaks TLS.
//!
//! ## How tcpwhy knows
//! The client's first octets are an HTTP request, and the server refuses: its own 400 page says that the port wants TLS (nginx, Apache, Go),
//! or it sends a TLS alert, or it closes within 1 s without an octet (HAProxy, OpenSSL, Node). The page and the alert are certain.
//! A close or a plain 400 proves it when other connections to the same port speak TLS, and suggests it when the port's number is
//! one of HTTPS.
//!
//! ## What it is not
//! - `proxy-header-to-tls-port`: nginx answers 400 to that as well; the first octets are a PROXY header there.
//! - `http-bad-request`: the bare fact, here with its cause.
//! - A proxy that passes its backend's 400 page on. Where it keeps the client's connection open the fault is told at its other leg; where the
//!   port answers plain HTTP to others, it is said that one of several behind it wants TLS.
//!
//! ## What people see
//! The page `400 The plain HTTP request was sent to HTTPS port` (nginx), `You're speaking plain HTTP to an SSL-enabled server port` (Apache),
//! `Client sent an HTTP request to an HTTPS server.` (Go); `Empty reply from server` where the server hangs up.
//!
//! ## False alarms it avoids
//! A port that answers plain HTTP to others is silent. So are a 400 after which the server keeps the connection, a client that closes first,
//! and a request behind a PROXY header.

use crate::event::{Kind, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, Words};

/// Variant of the headline about a port that answers plain HTTP to others.
const SOME: u8 = 1;

pub static RULE: Rule = Rule {
    id: "http-to-tls-port",
    title: "plain HTTP was sent to a TLS port",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::Request]).and_any(&[Kind::Fin, Kind::Reset, Kind::AlertPlain]),
    says: "{client_host} sends plain HTTP to a port that speaks TLS: {server}",
    variants: &[
        "{server} answers plain HTTP, and some requests with a page that wants TLS: one of several behind it does",
    ],
    words_of: &[(
        SOME,
        Words {
            users_see: &["400 The plain HTTP request was sent to HTTPS port", "now and then"],
            do_first: &[
                Step {
                    says: "On {host}: which backends are behind that port, and which of them are asked with TLS?",
                    command: "sudo grep -rnE 'server .*:[0-9]+|proxy_pass|ProxyPass|BalancerMember' /etc/haproxy /etc/nginx /etc/apache2",
                },
                Step {
                    says: "On {host}: capture the leg behind it too; tcpwhy names the backend then:",
                    command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /tmp/both-legs.pcap tcp",
                },
            ],
            verify: &[Step {
                says: "twelve requests, from a client's host; no 400 once all backends are asked as they want:",
                command: "for n in $(seq 12); do curl -so /dev/null -m 5 -w '%{http_code} ' http://{server}/; done",
            }],
            cannot_show: &["which of the backends it is"],
        },
    )],
    users_see: &[
        "400 The plain HTTP request was sent to HTTPS port",
        "client sent plain HTTP request to HTTPS port",
        "You're speaking plain HTTP to an SSL-enabled server port",
        "AH01996",
        "Client sent an HTTP request to an HTTPS server.",
        "ERR_SSL_HTTP_REQUEST",
        "tls: first record does not look like a TLS handshake",
        "curl: (52) Empty reply from server",
    ],
    do_first: &[
        Step {
            says: "Which line on {client_host} names {server}, and does it say https?",
            command: "grep -rnE 'proxy_pass|ProxyPass|server .*:{port}' /etc/nginx /etc/apache2 /etc/haproxy",
        },
        Step {
            says: "Does the port speak TLS? It must print a certificate.",
            command: "openssl s_client -connect {server} </dev/null",
        },
    ],
    fix: &[Fix {
        says: "Speak TLS to that port: nginx `proxy_pass https://`; Apache `ProxyPass … https://` with SSLProxyEngine on; HAProxy `server … ssl verify required`; AWS target group protocol HTTPS. Or use the service's plain port.",
        command: "",
        risk: "a proxy that begins to verify certificates refuses those it does not know",
    }],
    verify: &[Step { says: "gets the 400 page, or an empty reply:", command: "curl -sv -m 5 http://{server}/" }],
    not: &[("proxy-header-to-tls-port", "the first octets are a request, no PROXY header")],
    cannot_show: &["whether the client's configuration or a redirect chose http"],
    explains: &[
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-invalid-response", Scope::SameOrLink),
        Explains("tls-fatal-alert", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
        Explains("http-to-tls-port", Scope::Link),
    ],
    sources: &["measured on nginx 1.22, Apache 2.4, HAProxy 2.6, OpenSSL 3.0, Go 1.19, Node 20, OpenJDK 17"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// What the page shows.
const PAGE: &str = "its page says that the port speaks TLS";

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (first, protocol) = mismatch::spoken_by_client(flow)?;
    if protocol != Protocol::Http || flow.saw(Kind::ProxyHeader) {
        return None;
    }
    let refusal = mismatch::refusal(flow)?;
    let tls_number = mismatch::by_number(flow.facts.server.port) == Some(Protocol::Tls);
    let confidence = match refusal {
        Refusal::Alert(..) => Confidence::Certain,
        // A proxy that passes the page on keeps its client's connection.
        Refusal::Http(..) if !refusal.is_bad_request() || !flow.closed_first(Side::Server) => return None,
        Refusal::Http(..) if flow.saw(Kind::TlsWanted) => Confidence::Certain,
        Refusal::Http(..) | Refusal::Closed(..) if tls_number => Confidence::Medium,
        Refusal::Http(..) | Refusal::Closed(..) => Confidence::Low,
        Refusal::Words(..) => return None,
    };
    let request = flow.exchange().map(|exchange| (exchange.head.method.as_str(), exchange.head.target.as_str()));
    let (method, _) = request.unwrap_or(("request", ""));
    let page = flow.story.first_of(Kind::TlsWanted).map(|e| e.at);
    let finding = RULE
        .found(flow, first, Side::Client, format!("{method} in plain text"))
        .confidence(confidence)
        .and(refusal.at(), Side::Server, refusal.shows(flow))
        .and_maybe(page, Side::Server, PAGE);
    Some(mismatch::rules_out_path(finding, flow))
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    if finding.confidence == Confidence::Certain {
        let page = finding.evidence.iter().any(|told| told.shows.contains(PAGE));
        if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Http).filter(|_| page) {
            mismatch::cite_control(finding, &spoke, "plain HTTP to the same port");
            finding.variant = SOME;
            finding.culprit = Culprit::Proxy;
            finding.confidence = Confidence::High;
        }
        return Keep::Yes;
    }
    if mismatch::to_others(capture, &server, Protocol::Http).is_some()
        || mismatch::behind_header(capture, &server).is_some()
    {
        return Keep::Drop;
    }
    if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Tls) {
        finding.confidence = Confidence::High;
        mismatch::cite_control(finding, &spoke, "TLS to the same port");
        return Keep::Yes;
    }
    if mismatch::by_number(server.port) == Some(Protocol::Tls) { Keep::Yes } else { Keep::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};
    use crate::wire::tls::Alert;

    fn request(server: &str) -> Scene {
        let head =
            RequestHead { method: "GET".into(), host: Some("www".into()), minor: 1, len: 60, ..Default::default() };
        Scene::starting("10.0.0.1:40000", server, 50, 100)
            .handshake()
            .data(Side::Client, 3, 60)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(head)))
    }

    fn bad_request(scene: Scene, closes: bool) -> Scene {
        let head = ResponseHead { status: 400, minor: 1, closes, reason: "Bad Request".into(), ..Default::default() };
        scene
            .data(Side::Server, 4, 400)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
    }

    fn tls_control(server: &str) -> Scene {
        Scene::between("10.0.0.9:40000", server)
            .handshake()
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Server, 4, 900)
            .speaks(Side::Server, Protocol::Tls)
    }

    #[test]
    fn the_servers_own_page_is_certain() {
        let scene =
            bad_request(request("10.0.0.2:8000"), true).also(Side::Server, What::TlsWanted).fin(Side::Server, 5);
        assert_eq!(scene.check(&RULE).expect("its page says so").confidence, Confidence::Certain);
    }

    #[test]
    fn a_page_from_a_port_that_serves_others_in_plain_text_is_one_backends() {
        let scene =
            bad_request(request("10.0.0.2:8000"), true).also(Side::Server, What::TlsWanted).fin(Side::Server, 5);
        let found = scene.check(&RULE).expect("its page says so");
        let head = ResponseHead { status: 200, minor: 1, ..Default::default() };
        let fine = Scene::starting("10.0.0.1:40001", "10.0.0.2:8000", 500, 100)
            .handshake()
            .request(3, "GET", "/", 60)
            .data(Side::Server, 4, 400)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)));
        let world = World::new().with(&scene).with_good(&fine);
        let told = world.corroborated(&RULE, found).expect("kept");
        assert_eq!((told.variant, told.culprit, told.confidence), (SOME, Culprit::Proxy, Confidence::High));
    }

    #[test]
    fn an_alert_is_certain() {
        let alert = What::AlertPlain(Alert { level: 2, description: 10 });
        let scene = request("10.0.0.2:8000").data(Side::Server, 4, 7).also(Side::Server, alert).fin(Side::Server, 5);
        assert_eq!(scene.check(&RULE).expect("an alert").confidence, Confidence::Certain);
    }

    #[test]
    fn a_page_that_a_proxy_passes_on_is_the_other_legs() {
        let kept = bad_request(request("10.0.0.2:80"), false).also(Side::Server, What::TlsWanted);
        assert!(kept.fin(Side::Client, 6).check(&RULE).is_none());
    }

    #[test]
    fn a_close_needs_others_that_speak_tls_there() {
        let scene = request("10.0.0.2:8000").fin(Side::Server, 5);
        let found = scene.check(&RULE).expect("a candidate");
        assert!(World::new().with(&scene).corroborated(&RULE, found.clone()).is_none());
        let world = World::new().with(&scene).with_good(&tls_control("10.0.0.2:8000"));
        assert_eq!(world.corroborated(&RULE, found).expect("others speak TLS").confidence, Confidence::High);
    }

    #[test]
    fn a_close_on_port_443_alone_is_medium() {
        let scene = request("10.0.0.2:443").fin(Side::Server, 5);
        assert_eq!(scene.check(&RULE).expect("port 443").confidence, Confidence::Medium);
    }
}
