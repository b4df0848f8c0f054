//! Two PROXY headers in a row. The receiver reads one and takes the second for the client's first octets.
//!
//! ## How tcpwhy knows
//! Directly behind a whole PROXY header the stream begins as a PROXY header again. The receiver then answers HTTP 400, or hangs up as a TLS
//! server does.
//!
//! ## What it is not
//! - `proxy-header-to-tls-port`, `proxy-header-to-http-port`: there the port reads no header at all.
//! - A hop that reads the header and writes its own (HAProxy `accept-proxy` with `send-proxy`): then one header comes out.
//!
//! ## What people see
//! `400 Bad Request`, or `wrong version number` and `tls: first record does not look like a TLS handshake`, although PROXY is configured on
//! both sides.
//!
//! ## False alarms it avoids
//! A receiver that strips both headers and answers is a notice.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step, header};
use crate::wire::proxy::ProxyHeader;

pub static RULE: Rule = Rule {
    id: "proxy-header-duplicated",
    title: "two PROXY headers in a row",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ProxyHeader, Kind::ProxyHeaderAgain]),
    says: "{client_host} adds a second PROXY header in front of the first, to {server}",
    users_see: &[
        "400 Bad Request",
        "wrong version number",
        "tls: first record does not look like a TLS handshake",
        "client sent invalid method while reading client request line",
    ],
    do_first: &[
        Step {
            says: "Which hops send a header? The outer one is written by {client_host}, the inner one by a hop before it.",
            command: "grep -nE 'send-proxy|accept-proxy' /etc/haproxy/haproxy.cfg",
        },
        Step {
            says: "Is a cloud balancer in front that sends one too? On AWS:",
            command: "aws elbv2 describe-target-groups --query 'TargetGroups[].TargetGroupArn'",
        },
    ],
    fix: &[Fix {
        says: "On {client_host} read the header that comes in (HAProxy: accept-proxy on the bind line), or send none there. Then reload.",
        command: "systemctl reload haproxy",
        risk: "with accept-proxy, connections to that hop without a header fail",
    }],
    verify: &[Step { says: "one header passes:", command: "curl -sv -m 5 --haproxy-protocol http://{server}/" }],
    cannot_show: &["which hop before {client_host} wrote the inner header, unless that leg is in the capture"],
    explains: &[
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
        // The hop before passes the answer on.
        Explains("proxy-header-to-http-port", Scope::Link),
        Explains("proxy-header-to-tls-port", Scope::Link),
    ],
    sources: &["proxy-protocol.txt (HAProxy, 2020/03/05) section 2", "measured on nginx 1.22, Apache 2.4, HAProxy 2.6"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (first, outer) = flow.proxy_header()?;
    let (second, inner) = again(flow)?;
    let finding = RULE.found(flow, first, Side::Client, header::shows(outer)).and(
        second,
        Side::Client,
        format!("directly behind it {}", header::shows(inner)),
    );
    let finding = header::fill(finding, outer).note(format!("behind it, {}", header::decoded(inner)));
    if let Some(answer) = header::accepted(flow) {
        let finding = finding.and(answer, Side::Server, "the receiver answers: it took both");
        return Some(finding.severity(Severity::Notice));
    }
    let (answer, close) = (flow.answer(), flow.close_of(Side::Server));
    if answer.or(close).is_none() {
        return Some(finding.severity(Severity::Warning).note("what the receiver makes of it is not in the capture"));
    }
    let finding = finding.and_maybe(answer, Side::Server, "the receiver's refusal");
    Some(finding.and_maybe(close, Side::Server, format!("{} by the receiver", flow.close_word(Side::Server))))
}

fn again<'a>(flow: &FlowView<'a>) -> Option<(PacketRef, &'a ProxyHeader)> {
    flow.story.events().find_map(|e| match &e.what {
        What::ProxyHeaderAgain(header) => Some((e.at, header.as_ref())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, end};
    use crate::wire::proxy::{Command, Family};

    fn two_headers() -> Scene {
        let header = |source| ProxyHeader {
            version: 2,
            command: Command::Proxy,
            family: Family::Tcp4,
            source: Some(end(source)),
            destination: Some(end("35.229.69.78:443")),
            tlvs: Vec::new(),
            checksum_fits: None,
            len: 28,
        };
        Scene::open()
            .data(Side::Client, 3, 116)
            .also(Side::Client, What::ProxyHeader(Box::new(header("10.0.0.1:40000"))))
            .also(Side::Client, What::ProxyHeaderAgain(Box::new(header("203.0.113.7:53002"))))
    }

    #[test]
    fn both_headers_and_the_refusal_are_cited() {
        let found = two_headers().response(5, 400, 309).fin(Side::Server, 6).check(&RULE).expect("two headers");
        assert_eq!(found.severity, Severity::Critical);
        assert_eq!(found.evidence.len(), 3);
        assert!(found.evidence[0].shows.contains("; directly behind it 28 octets"));
        assert!(found.evidence[0].shows.contains("203.0.113.7:53002"));
    }

    #[test]
    fn a_receiver_that_takes_both_leaves_a_notice() {
        let found = two_headers().response(5, 200, 90).check(&RULE).expect("two headers");
        assert_eq!(found.severity, Severity::Notice);
    }
}
