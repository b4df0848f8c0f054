//! A TLS client reached a port that speaks plain HTTP.
//!
//! ## How tcpwhy knows
//! The client's first octets are a ClientHello and the server's first octets are `HTTP/1.x`, mostly 400, or an HTML page without any head
//! (HTTP/0.9). Both are octets: it is certain.
//!
//! ## What it is not
//! - `proxy-header-to-tls-port` on the other leg of a TCP proxy: nginx's plain-text 400 is passed on to the TLS client. Then that leg
//!   explains this one.
//! - `unexpected-protocol-on-port`: there SSH, SMTP, MySQL or Redis answers.
//! - `tls-handshake-stalled`: there the server waits (Java, Redis, MariaDB).
//!
//! ## What people see
//! curl: `wrong version number`; Go: `first record does not look like a TLS handshake`; Java: `Unsupported or unrecognized SSL message`;
//! Windows: `SEC_E_INVALID_TOKEN`; browsers: `ERR_SSL_PROTOCOL_ERROR`. nginx's access log shows `"\x16\x03\x01…" 400`.
//!
//! ## False alarms it avoids
//! Only an answer in HTTP counts: a close without an octet says nothing about what the port speaks.

use crate::event::{Kind, PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, Words};

/// Variant of the headline about a port that speaks TLS to others.
const SOME: u8 = 1;

pub static RULE: Rule = Rule {
    id: "tls-to-http-port",
    title: "a TLS client reached a plain HTTP port",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ClientHello]).and_any(&[Kind::Response, Kind::Excerpt, Kind::Recognised]),
    says: "{client_host} speaks TLS to a port that speaks plain HTTP: {server}",
    variants: &[
        "{server} speaks TLS to others and answered {client_host} in plain HTTP: one of several behind it does",
    ],
    words_of: &[(
        SOME,
        Words {
            users_see: &[
                "error:0A00010B:SSL routines::wrong version number",
                "SSL_ERROR_RX_RECORD_TOO_LONG",
                "now and then",
            ],
            do_first: &[
                Step {
                    says: "On {host}: do all backends behind that port have one port, and send-proxy alike?",
                    command: "sudo grep -rnE 'server .*(send-proxy|:[0-9]+)|proxy_protocol|proxy_pass' /etc/haproxy /etc/nginx",
                },
                Step {
                    says: "On {host}: capture the leg behind it too: what does it send before the ClientHello?",
                    command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /tmp/both-legs.pcap tcp",
                },
            ],
            verify: &[Step {
                says: "twelve handshakes, from a client's host; not one fails once all backends are alike:",
                command: "for n in $(seq 12); do curl -sko /dev/null -m 5 -w '%{exitcode} ' https://{server}/; done",
            }],
            cannot_show: &[
                "which of the backends it is, and what it was sent first: a PROXY header in front of TLS is answered so",
            ],
        },
    )],
    users_see: &[
        "error:0A00010B:SSL routines::wrong version number",
        "tls: first record does not look like a TLS handshake",
        "Unsupported or unrecognized SSL message",
        "SEC_E_INVALID_TOKEN",
        "ERR_SSL_PROTOCOL_ERROR",
        "\\x16\\x03\\x01",
    ],
    do_first: &[
        Step {
            says: "Is {port} the port that should speak TLS? What listens there, on {host}:",
            command: "ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "Is TLS switched on for it? nginx: `listen {port} ssl`, Apache: SSLEngine on.",
            command: "grep -rnE 'listen.*{port}|SSLEngine' /etc/nginx /etc/apache2",
        },
    ],
    fix: &[Fix {
        says: "Switch TLS on at the server (nginx `listen {port} ssl`), or let the client or proxy speak plain HTTP to this port (nginx `proxy_pass http://`, HAProxy: no ssl on the server line).",
        command: "",
        risk: "with TLS on, plain clients of the port fail",
    }],
    verify: &[Step {
        says: "is answered in plain text as long as the port speaks HTTP:",
        command: "curl -sv -m 5 http://{server}/",
    }],
    not: &[("tls-fatal-alert", "the server sent no TLS record")],
    cannot_show: &["which side is configured as meant"],
    explains: &[
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-invalid-response", Scope::SameOrLink),
        Explains("tls-fatal-alert", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["measured on nginx 1.22, Apache 2.4, HAProxy 2.6, Go 1.19, Node 20, Python 3 http.server"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.saw(Kind::ProxyHeader) {
        return None;
    }
    let (hello_at, hello) = flow.client_hello()?;
    let (answer, shows, confidence) = match mismatch::refusal(flow) {
        Some(refusal @ Refusal::Http(at, _)) => (at, refusal.shows(flow), Confidence::Certain),
        Some(_) => return None,
        None => (page(flow)?, "an HTML page without a head (HTTP/0.9)".into(), Confidence::High),
    };
    let name = hello.sni.as_deref().unwrap_or("without a name");
    let finding = RULE.found(flow, hello_at, Side::Client, format!("ClientHello {name}")).confidence(confidence).and(
        answer,
        Side::Server,
        shows,
    );
    Some(mismatch::rules_out_path(finding, flow))
}

/// Python's http.server answers what it cannot read as HTTP/0.9: the page alone.
fn page(flow: &FlowView<'_>) -> Option<PacketRef> {
    let octets = flow.story.excerpt(Side::Server)?;
    let begins = |with: &[u8]| octets.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    (begins(b"<!doctype html") || begins(b"<html")).then(|| flow.answer()).flatten()
}

fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    if let Some(spoke) = mismatch::to_others(capture, &flow.facts.server, Protocol::Tls) {
        mismatch::cite_control(finding, &spoke, "TLS to the same port");
        finding.variant = SOME;
        finding.culprit = Culprit::Proxy;
        finding.confidence = finding.confidence.min(Confidence::High);
        let answer = finding.evidence.iter().find(|told| told.side == Some(Side::Server) && told.flow.is_none());
        if answer.is_some_and(|answer| flow.facts.from_client.first_payload.is_some_and(|hello| answer.at < hello)) {
            finding
                .notes
                .push("the plain answer came before the ClientHello: it answers what somebody else said".into());
        }
    } else if let Some(spoke) = mismatch::to_others(capture, &flow.facts.server, Protocol::Http) {
        mismatch::cite_control(finding, &spoke, "plain HTTP to the same port");
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;
    use crate::wire::tls::ClientHello;

    fn hello() -> Scene {
        let hello = ClientHello { sni: Some("www.example.com".into()), ..ClientHello::default() };
        Scene::open()
            .data(Side::Client, 3, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    #[test]
    fn an_answer_in_http_is_certain() {
        let found = hello().response(4, 400, 309).fin(Side::Server, 5).check(&RULE).expect("HTTP answers TLS");
        assert_eq!(found.confidence, Confidence::Certain);
        assert!(found.evidence[1].shows.starts_with("plain-text HTTP/1.1 400"));
    }

    #[test]
    fn a_bare_page_is_http_too() {
        let page = What::Excerpt { octets: b"<!DOCTYPE HTML>\n<html lang".to_vec() };
        let found = hello().data(Side::Server, 4, 516).also(Side::Server, page).fin(Side::Server, 5).check(&RULE);
        assert_eq!(found.expect("HTTP/0.9").confidence, Confidence::High);
    }

    #[test]
    fn a_close_says_nothing_about_the_port() {
        assert!(hello().fin(Side::Server, 5).check(&RULE).is_none());
    }

    #[test]
    fn a_banner_of_ssh_is_another_rules() {
        let scene = hello().data(Side::Server, 5, 41).speaks(Side::Server, Protocol::Ssh);
        assert!(scene.check(&RULE).is_none());
    }
}
