//! A PROXY protocol header was sent to a port that expects TLS. The server cannot read it and hangs up before the handshake.
//!
//! ## How tcpwhy knows
//! The client's first octets are a whole PROXY header (version 1 or 2), and the server refuses as TLS servers do: it closes within 1 s
//! without an octet (Go, Apache, HAProxy, OpenSSL, Node), answers HTTP 400 in plain text (nginx), or sends a TLS alert (Java). That the port
//! speaks TLS is known by a ClientHello behind the header, else by other connections to the same port that speak TLS without a header, else
//! by its number. It is certain when such other connections are in the capture, when nginx answers its plain-text 400 to header and
//! ClientHello, or when an alert answers the header alone. With header, ClientHello and close on one connection it is high; with the
//! header alone and a close it is medium. The order of ClientHello and close does not matter: a proxy may open the backend
//! connection, send the header and be refused before its client has said anything.
//!
//! ## What it is not
//! - A certificate, a name or a TLS version: the server read no ClientHello.
//! - `proxy-header-malformed`, `proxy-header-fragmented`, `proxy-header-duplicated`: there the port does read PROXY headers.
//! - `tls-closed-after-clienthello`: the bare fact, here with its cause.
//! - `proxy-header-missing`: the same disagreement the other way round. It is what a rollback leaves behind.
//!
//! ## What people see
//! It depends on the TLS software of the backend. `curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL` when the backend hangs up (Go,
//! Apache, HAProxy, OpenSSL, Node); `wrong version number` when it is nginx; `sslv3 alert unexpected message` when it is Java. The log of a
//! TCP proxy shows 0 octets and no error. Health checks may stay green: HAProxy sends no PROXY header in checks that have a
//! port or an address of their own.
//!
//! ## False alarms it avoids
//! A header that was accepted is silent: a ServerHello follows. A port that took headers from others is left to the rules about
//! broken and missing ones. A client that closes first, a close later than 1 s, and octets that the capture lost prove nothing.

use crate::event::{Kind, PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::header;
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step};

/// Alerts by which TLS software refuses octets that are no TLS: unexpected_message, illegal_parameter, decode_error, protocol_version,
/// internal_error.
const ALERTS: [u8; 5] = [10, 47, 50, 70, 80];

pub static RULE: Rule = Rule {
    id: "proxy-header-to-tls-port",
    title: "a PROXY protocol header was sent to a port that expects TLS",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader]).and_any(&[Kind::Fin, Kind::Reset, Kind::AlertPlain, Kind::Response]),
    says: "{client_host} sends a PROXY header to a port that speaks TLS: {server}",
    users_see: &[
        "curl: (35) OpenSSL SSL_connect: SSL_ERROR_SYSCALL",
        "LibreSSL SSL_connect: SSL_ERROR_SYSCALL",
        "error:0A00010B:SSL routines::wrong version number",
        "sslv3 alert unexpected message",
        "client sent invalid method while reading client request line",
        "tls: first record does not look like a TLS handshake",
        "SSL handshake failure",
        "AH02008",
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
            says: "{port} is meant: remove send-proxy-v2, or switch PROXY on at the receiver. What listens there?",
            command: "ss -ltnp 'sport = :{port}'",
        },
    ],
    fix: &[
        Fix {
            says: "The old port came from the state file: rename the servers, or drop their lines there, then reload.",
            command: "systemctl reload haproxy",
            risk: "running connections finish on the old process; a rollback of the configuration leaves the new port in the file: then proxy-header-missing",
        },
        Fix {
            says: "{port} is meant and needs no header: remove send-proxy-v2 (or send-proxy) from the server line, then reload. On AWS: proxy_protocol_v2.enabled=false.",
            command: "systemctl reload haproxy",
            risk: "the receiver no longer learns the client's address",
        },
        Fix {
            says: "{port} is meant and wants the client's address: nginx `listen {port} ssl proxy_protocol` with set_real_ip_from and real_ip_header proxy_protocol; Apache `RemoteIPProxyProtocol On`; HAProxy `bind :{port} accept-proxy`; gitlab-pages listen-https-proxyv2; Traefik proxyProtocol.trustedIPs; Envoy the proxy_protocol listener filter.",
            command: "",
            risk: "from then on connections without the header fail on that port, health checks included",
        },
    ],
    verify: &[
        Step {
            says: "works: the port speaks TLS without the header:",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "fails as long as the fault is there:",
            command: "curl -sv -m 5 --haproxy-protocol --connect-to ::{server} https://{name}/",
        },
    ],
    not: &[("proxy-header-malformed", "the header is whole and valid")],
    cannot_show: &[
        "where the proxy took this port from: its configuration, a state file, or its API",
        "whether the receiver could be told to read PROXY headers",
    ],
    explains: &[
        Explains("tls-to-http-port", Scope::SameOrLink),
        Explains("tls-fatal-alert", Scope::SameOrLink),
        Explains("tls-closed-after-clienthello", Scope::SameOrLink),
        Explains("closed-before-request", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("stray-reset", Scope::SameOrLink),
        Explains("proxy-upstream-closed", Scope::SameOrLink),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 2",
        "GitLab Pages outage, 2021",
        "HAProxy issues #1412, #2103, #3296 (server-state-file)",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6, OpenSSL 3.0, Go 1.19, Node 20, OpenJDK 17",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    let refusal = mismatch::refusal(flow)?;
    if header::has_a_fault_of_its_own(flow) || refusal.at() < at {
        return None;
    }
    let behind = mismatch::spoken_by_client(flow);
    let confidence = confidence(flow, &refusal, behind)?;
    let mut finding = RULE.found(flow, at, Side::Client, header::shows(proxy)).confidence(confidence);
    if let Some((hello, _)) = behind {
        finding = finding.and(hello, Side::Client, says_hello(flow, refusal.at(), hello));
    }
    finding = finding.and(refusal.at(), Side::Server, refusal.shows(flow));
    let name = flow.client_hello().and_then(|(_, hello)| hello.sni.clone());
    let finding = match name {
        Some(name) => finding.with("name", crate::rule::value::Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    };
    let finding =
        finding.rules_out("certificate, name, TLS version", "the server read no ClientHello", &[refusal.at()]);
    Some(header::fill(mismatch::rules_out_path(finding, flow), proxy))
}

/// How sure one connection alone is; `None` when it says nothing of the kind.
fn confidence(flow: &FlowView<'_>, refusal: &Refusal<'_>, behind: Option<(PacketRef, Protocol)>) -> Option<Confidence> {
    let number = mismatch::by_number(flow.facts.server.port);
    let tls_follows = match behind {
        Some((_, Protocol::Tls)) => true,
        Some(_) => return None,
        None => false,
    };
    match refusal {
        Refusal::Closed(..) if tls_follows => Some(Confidence::High),
        Refusal::Closed(..) if number == Some(Protocol::Tls) => Some(Confidence::Medium),
        Refusal::Closed(..) if number.is_none() => Some(Confidence::Low),
        // Only nginx on a TLS port reads on in plain text; behind an accepted header a ClientHello gets a ServerHello.
        _ if refusal.is_bad_request() && tls_follows => Some(Confidence::Certain),
        _ if refusal.is_bad_request() && number == Some(Protocol::Tls) => Some(Confidence::Medium),
        _ if refusal.is_bad_request() && number.is_none() => Some(Confidence::Low),
        Refusal::Alert(at, alert) if ALERTS.contains(&alert.description) => match behind {
            // A receiver that took the header waits for the ClientHello: an alert before it answers the header.
            Some((hello, _)) if hello <= *at => match alert.description {
                10 => Some(Confidence::High),
                _ => Some(Confidence::Medium),
            },
            _ => Some(Confidence::Certain),
        },
        _ => None,
    }
}

fn says_hello(flow: &FlowView<'_>, refused: PacketRef, at: PacketRef) -> String {
    let name = flow.client_hello().and_then(|(_, hello)| hello.sni.as_deref()).unwrap_or("without a name");
    if at > refused {
        format!("ClientHello {name}, sent after the refusal: this port is meant to speak TLS")
    } else {
        format!("ClientHello {name} behind the header")
    }
}

/// What the port spoke to others settles it; without a ClientHello behind the header and with an unknown port number nothing else can.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    if mismatch::behind_header(capture, &server).is_some() || passed_on_behind_another(flow.facts.id, capture) {
        return Keep::Drop;
    }
    mismatch::cite_client_leg(finding, capture, flow);
    let hello = flow.story.first(Kind::ClientHello, Side::Client).is_some();
    if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Tls) {
        let answered = flow.facts.from_server.payload > 0;
        finding.confidence =
            if hello || answered { Confidence::Certain } else { finding.confidence.max(Confidence::High) };
        mismatch::cite_control(finding, &spoke, "TLS without the header");
        return Keep::Yes;
    }
    if mismatch::to_others(capture, &server, Protocol::Http).is_some() {
        if !hello {
            return Keep::Drop;
        }
        finding.confidence = finding.confidence.min(Confidence::High);
        finding
            .notes
            .push("other connections speak plain HTTP to this port: TLS may be as wrong there as the header".into());
    }
    let tls_on_client_leg = capture
        .links_of(flow.facts.id)
        .filter(|link| link.backend_leg == flow.facts.id)
        .filter_map(|link| capture.digest_of(link.client_leg))
        .any(|leg| leg.hello != 0);
    if tls_on_client_leg {
        finding.confidence = finding.confidence.max(Confidence::High);
    }
    let number = mismatch::by_number(server.port) == Some(Protocol::Tls);
    let alert = flow.story.first(Kind::AlertPlain, Side::Server).is_some();
    if hello || tls_on_client_leg || number || alert { Keep::Yes } else { Keep::Drop }
}

/// The server is a proxy that put a header of its own in front of this one: `proxy-header-duplicated` says so on its leg.
fn passed_on_behind_another(flow: PacketRef, capture: &CaptureView<'_>) -> bool {
    capture
        .links_of(flow)
        .filter(|link| link.client_leg == flow)
        .filter_map(|link| capture.flows.get(&link.backend_leg))
        .any(|leg| leg.story.seen().has(Kind::ProxyHeaderAgain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, What};
    use crate::rule::testing::{Scene, World, proxy_header};
    use crate::rule::view::{Link, LinkMethod};
    use crate::wire::http::ResponseHead;
    use crate::wire::tls::{Alert, ClientHello};

    fn header(server: &str) -> Scene {
        let header = proxy_header(2, "35.229.69.78:443", 28);
        Scene::starting("10.224.26.1:56118", server, 6, 3)
            .handshake()
            .data(Side::Client, 3, 28)
            .speaks(Side::Client, Protocol::Proxy)
            .also(Side::Client, What::ProxyHeader(Box::new(header)))
            .acked(Side::Client, 3)
    }

    fn hello(scene: Scene, ms: i64) -> Scene {
        let hello = ClientHello { sni: Some("jarv.staging.gitlab.io".into()), ..ClientHello::default() };
        scene
            .data(Side::Client, ms, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    fn bad_request(scene: Scene, ms: i64) -> Scene {
        let head =
            ResponseHead { status: 400, minor: 1, closes: true, reason: "Bad Request".into(), ..Default::default() };
        scene
            .data(Side::Server, ms, 309)
            .speaks(Side::Server, Protocol::Http)
            .also(Side::Server, What::Response(Box::new(head)))
            .fin(Side::Server, ms)
    }

    fn works(number: u64, server: &str) -> Scene {
        Scene::starting("10.224.26.1:4000", server, number, 0)
            .handshake()
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Server, 4, 900)
            .speaks(Side::Server, Protocol::Tls)
    }

    #[test]
    fn header_hello_and_close_are_high_and_all_cited() {
        let found = hello(header("10.224.26.2:3000"), 4).fin(Side::Server, 5).check(&RULE).expect("refused");
        assert_eq!(found.confidence, Confidence::High);
        let cited: Vec<u64> = found.evidence.iter().map(|e| e.at.number).collect();
        assert_eq!(cited, [9, 11, 12]);
        assert_eq!(
            found.evidence[0].shows,
            "28 octets \\r\\n\\r\\n\\0\\r\\nQUIT\\n: PROXY v2, client 203.0.113.7:53002"
        );
        assert_eq!(found.evidence[2].shows, "FIN 1 ms later: 0 octets, no alert");
        assert_eq!(found.not.len(), 3);
        assert!(found.notes[0].contains("destination 35.229.69.78:443"));
    }

    #[test]
    fn others_that_speak_tls_without_the_header_make_it_certain() {
        let scene = hello(header("10.224.26.2:3000"), 4).fin(Side::Server, 5);
        let world = World::new().with(&scene).with_good(&works(100, "10.224.26.2:3000"));
        let found = world.corroborated(&RULE, scene.check(&RULE).expect("refused")).expect("kept");
        assert_eq!(found.confidence, Confidence::Certain);
        assert!(found.evidence.last().is_some_and(|e| e.shows.starts_with("control: TLS without the header")));
    }

    #[test]
    fn a_close_before_the_hello_counts_when_the_hello_follows() {
        let scene =
            hello(header("10.224.26.2:3000").fin(Side::Server, 5), 60).rst(Side::Server, 61, ResetKind::Stray, 0);
        let found = scene.check(&RULE).expect("refused");
        assert_eq!(found.confidence, Confidence::High);
        assert!(found.evidence[1].shows.contains("sent after the refusal"));
    }

    #[test]
    fn a_header_alone_needs_the_ports_number_or_others() {
        let numbered = header("10.224.26.2:1443").fin(Side::Server, 5);
        assert_eq!(numbered.check(&RULE).expect("port 1443").confidence, Confidence::Medium);
        let scene = header("10.224.26.2:3000").fin(Side::Server, 5);
        let found = scene.check(&RULE).expect("a candidate");
        assert!(World::new().with(&scene).corroborated(&RULE, found.clone()).is_none());
        let world = World::new().with(&scene).with_good(&works(100, "10.224.26.2:3000"));
        assert_eq!(world.corroborated(&RULE, found).expect("kept").confidence, Confidence::High);
    }

    #[test]
    fn a_plain_text_400_to_header_and_hello_is_certain() {
        let found = hello(bad_request(header("10.224.26.2:3000"), 4), 30).check(&RULE).expect("refused");
        assert_eq!(found.confidence, Confidence::Certain);
        assert!(found.evidence[2].shows.starts_with("plain-text HTTP/1.1 400"));
    }

    #[test]
    fn an_alert_to_the_header_alone_is_certain_and_one_to_a_hello_is_not() {
        let alert = What::AlertPlain(Alert { level: 2, description: 10 });
        let alone = header("10.224.26.2:3000").data(Side::Server, 4, 7).also(Side::Server, alert).fin(Side::Server, 5);
        assert_eq!(alone.check(&RULE).expect("refused").confidence, Confidence::Certain);
        let version = What::AlertPlain(Alert { level: 2, description: 70 });
        let both = hello(header("10.224.26.2:3000"), 4).data(Side::Server, 5, 7).also(Side::Server, version);
        assert_eq!(both.check(&RULE).expect("refused").confidence, Confidence::Medium);
    }

    #[test]
    fn a_header_that_was_accepted_is_silent() {
        let scene = hello(header("10.224.26.2:443"), 4)
            .data(Side::Server, 5, 900)
            .also(Side::Server, What::ServerHello(Default::default()))
            .fin(Side::Server, 9);
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_client_that_closes_first_and_a_late_close_prove_nothing() {
        assert!(header("10.224.26.2:443").fin(Side::Client, 4).fin(Side::Server, 5).check(&RULE).is_none());
        assert!(header("10.224.26.2:443").fin(Side::Server, 5_003).check(&RULE).is_none());
    }

    #[test]
    fn a_port_that_takes_headers_from_others_has_another_reason() {
        let scene = hello(header("10.224.26.2:443"), 4).fin(Side::Server, 5);
        let mut sibling = hello(header("10.224.26.2:443"), 4).data(Side::Server, 5, 900);
        sibling.facts.id.number = 200;
        sibling = sibling.speaks(Side::Server, Protocol::Tls);
        let world = World::new().with(&scene).with_good(&sibling);
        assert!(world.corroborated(&RULE, scene.check(&RULE).expect("a candidate")).is_none());
    }

    #[test]
    fn the_clients_leg_is_cited() {
        let scene = hello(header("10.224.26.2:3000"), 4).fin(Side::Server, 5);
        let client = hello(Scene::between("203.0.113.7:53002", "35.229.69.78:443").handshake(), 3).fin(Side::Server, 9);
        let mut world = World::new().with(&scene).with(&client);
        world.links.push(Link {
            client_leg: client.facts.id,
            backend_leg: scene.facts.id,
            methods: vec![LinkMethod::ClientHelloRandom],
            certainty: Confidence::Certain,
            exchanges: Vec::new(),
        });
        let found = world.corroborated(&RULE, scene.check(&RULE).expect("refused")).expect("kept");
        let cited: Vec<_> = found.evidence.iter().filter(|e| e.flow == Some(client.facts.id)).collect();
        assert_eq!(cited.len(), 2);
        assert!(cited[0].shows.contains("jarv.staging.gitlab.io"));
    }
}
