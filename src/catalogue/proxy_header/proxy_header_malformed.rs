//! The PROXY protocol header is not valid. Most receivers hang up on it.
//!
//! ## How tcpwhy knows
//! The client's octets begin as a PROXY header and break a rule of the specification, which is printed: version 1 without CRLF within 107
//! octets, LF alone, more than one space, a port with a leading zero or above 65535, an address that does not fit the protocol word, a
//! misspelt `PROXY`; version 2 with another version nibble, an unknown command or family, a length too small for its addresses, a TLV that
//! runs past the end, or a length that promises more octets than came before the server gave up.
//!
//! ## What it is not
//! - `proxy-header-fragmented`: there the header is cut in the middle of its fixed part; its rest came late or never.
//! - `proxy-header-bad-checksum`: every field is valid, only the checksum does not fit.
//! - `proxy-header-to-tls-port`: there the header is whole and valid, and the port does not read it.
//!
//! ## What people see
//! nginx logs `broken header` or `unknown PROXY protocol version: N`; HAProxy logs `Received an invalid PROXY protocol header`; Apache logs
//! `AH03497` to `AH03507` or `AH10183`. Receivers differ: nginx accepts an unknown command, HAProxy does not; Apache answers 400
//! to a line that ends with LF alone.
//!
//! ## False alarms it avoids
//! A broken header that the receiver accepts is a notice: nobody is hurt until another receiver reads it. A header in several segments is
//! judged after they are put together. Octets that the capture lost or cut prove nothing.

use crate::event::{Event, Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step, header};

pub static RULE: Rule = Rule {
    id: "proxy-header-malformed",
    title: "the PROXY protocol header is not valid",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Proxy,
    needs: Needs::any(&[Kind::ProxyBroken, Kind::ProxyIncomplete]),
    says: "{client_host} sends a broken PROXY header to {server}",
    variants: &["{client_host} sends a broken PROXY header to {server}, which accepts it all the same"],
    users_see: &[
        "broken header:",
        "unknown PROXY protocol version",
        "Received an invalid PROXY protocol header",
        "AH03497",
        "AH03507",
        "AH10183",
    ],
    do_first: &[
        Step {
            says: "The header breaks this rule: {broken}. Which software on {client_host} wrote it?",
            command: "ss -tnp state all 'dst {host} and dport = :{port}'",
        },
        Step {
            says: "What does a valid header get? It prints an HTTP status if the receiver is sound:",
            command: "curl -sS -m 5 -o /dev/null -w '%{http_code}\\n' --haproxy-protocol http://{server}/",
        },
    ],
    fix: &[Fix {
        says: "Repair or update the sender. A proxy's own send-proxy or send-proxy-v2 writes valid headers; scripts and home-made relays often do not.",
        command: "",
        risk: "none for the receiver",
    }],
    verify: &[Step {
        says: "on the receiver: the first octets as they arrive; compare with the rule:",
        command: "tcpdump -ni any -c 4 -X 'tcp port {port} and src host {client_host} and tcp[tcpflags] & tcp-push != 0'",
    }],
    not: &[("proxy-header-to-tls-port", "the header is not valid for any receiver")],
    cannot_show: &["which software wrote the header, when several share the sending host"],
    explains: &[
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("tls-closed-after-clienthello", Scope::SameOrLink),
        Explains("proxy-upstream-closed", Scope::SameOrLink),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) sections 2.1 and 2.2",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.mid_stream || flow.client().unseen > 0 || flow.client().cut > 0 {
        return None;
    }
    let (at, version, shows, broken) = flow.story.events().find_map(|e| broken(flow, e))?;
    let finding = RULE
        .found(flow, at, Side::Client, shows)
        .with("version", u32::from(version))
        .with("broken", broken.clone())
        .note(format!("the broken rule: {broken}"));
    if let Some(answer) = header::accepted(flow) {
        let finding = finding.and(answer, Side::Server, "the receiver answers: it accepted the header");
        return Some(
            finding.severity(Severity::Notice).variant(1).note("another receiver may hang up on the same header"),
        );
    }
    let Some(close) = flow.close_of(Side::Server) else {
        return Some(finding.severity(Severity::Warning).note("what the receiver makes of it is not in the capture"));
    };
    let word = flow.close_word(Side::Server);
    let octets = flow.server().payload;
    Some(finding.and(close, Side::Server, format!("{word} after {octets} octets")))
}

/// Packet, version, phrase and rule of a header that is not valid.
fn broken(flow: &FlowView<'_>, event: &Event) -> Option<(PacketRef, u8, String, String)> {
    match &event.what {
        What::ProxyBroken(header) => {
            let begins = header::begins(header.version);
            let shows = format!("PROXY v{} header ({begins}): {}", header.version, header.rule.says());
            Some((event.at, header.version, shows, header.rule.says().to_owned()))
        }
        What::ProxyIncomplete { got } if header::length_lies(flow, *got) => {
            let shows = format!("PROXY v2 header: {got} octets, and its length field promises more");
            Some((flow.client().first_payload?, 2, shows, "the length must not exceed what is sent (§2.2)".into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Protocol, ResetKind};
    use crate::rule::testing::Scene;
    use crate::wire::proxy::{self, BrokenHeader};

    fn broken_header() -> Scene {
        let header = BrokenHeader { version: 1, rule: proxy::Rule::V1LfOnly, len: 45 };
        Scene::open()
            .data(Side::Client, 3, 105)
            .speaks(Side::Client, Protocol::Proxy)
            .also(Side::Client, What::ProxyBroken(Box::new(header)))
    }

    #[test]
    fn the_broken_rule_is_named_with_the_close() {
        let found = broken_header().rst(Side::Server, 4, ResetKind::Abort, 105).check(&RULE).expect("broken header");
        assert_eq!(found.severity, Severity::Critical);
        assert_eq!(found.evidence.len(), 2);
        assert!(found.evidence[0].shows.contains("the line ends with LF alone"));
    }

    #[test]
    fn a_broken_header_that_was_accepted_is_a_notice() {
        let found = broken_header().response(5, 200, 90).check(&RULE).expect("broken header");
        assert_eq!((found.severity, found.variant), (Severity::Notice, 1));
    }

    fn incomplete(got: u32) -> Scene {
        let octets = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x54".to_vec();
        Scene::open()
            .data(Side::Client, 3, got)
            .also(Side::Client, What::Excerpt { octets })
            .rst(Side::Server, 4, ResetKind::Abort, got)
            .also(Side::Client, What::ProxyIncomplete { got })
    }

    #[test]
    fn a_length_beyond_what_came_breaks_the_header() {
        assert!(incomplete(28).check(&RULE).is_some());
    }

    #[test]
    fn a_header_cut_inside_its_addresses_was_sent_in_pieces() {
        assert!(incomplete(14).check(&RULE).is_none());
    }

    #[test]
    fn a_header_the_snaplen_cut_is_not_judged() {
        let mut scene = incomplete(28);
        scene.facts.from_client.cut = 1;
        assert!(scene.check(&RULE).is_none());
    }
}
