//! The PROXY header arrived in pieces. Receivers that read it in one go hang up on the first piece.
//!
//! ## How tcpwhy knows
//! The octets of the header span two or more segments, or the stream ends inside the header. The specification asks the sender to send it at
//! once, so that the receiver may read it at once (§2). nginx closes, HAProxy resets, Apache waits for the rest.
//!
//! ## What it is not
//! - `proxy-header-malformed`: there the octets themselves break a rule.
//! - A header and a ClientHello in two segments: that is normal; only the header itself must stay together.
//!
//! ## What people see
//! Failures now and then, with `broken header` and truncated text in nginx's log, or `Truncated PROXY protocol header received` in HAProxy's.
//!
//! ## False alarms it avoids
//! A segment that was sent twice is judged after the stream is put together. A header that the capture lost or cut is not judged. When the
//! receiver waits and answers, it is a warning.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step, header};

pub static RULE: Rule = Rule {
    id: "proxy-header-fragmented",
    title: "the PROXY header arrived in pieces",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Proxy,
    needs: Needs::any(&[Kind::ProxySplit, Kind::ProxyIncomplete]),
    says: "{client_host} sends the PROXY header in pieces, and {server} hangs up",
    variants: &["{client_host} sends the PROXY header in pieces; {server} waits for the rest"],
    users_see: &["broken header:", "Truncated PROXY protocol header received", "SSL_ERROR_SYSCALL"],
    do_first: &[
        Step {
            says: "Which software on {client_host} writes the header, and does it write it with one call?",
            command: "ss -tnp state all 'dst {host} and dport = :{port}'",
        },
        Step { says: "Is the path's or the interface's MTU very small?", command: "ip route get {host}" },
    ],
    fix: &[Fix {
        says: "Make the sender write header at once, before anything else; update a receiver that cannot wait for the rest.",
        command: "",
        risk: "none for the header; a restart of the receiver drops its connections",
    }],
    verify: &[Step {
        says: "a header in one piece passes:",
        command: "curl -sv -m 5 --haproxy-protocol http://{server}/",
    }],
    not: &[("packet-loss", "nothing of the header was sent twice")],
    cannot_show: &["whether the sender wrote twice or something on the path split the segment"],
    explains: &[
        Explains("closed-without-answer", Scope::Same),
        Explains("tls-closed-after-clienthello", Scope::Same),
        Explains("unexpected-protocol-on-port", Scope::SameOrLink),
        Explains("http-bad-request", Scope::SameOrLink),
        Explains("http-framing-conflict", Scope::SameOrLink),
        Explains("reset-unread-data", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 2: sent at once",
        "measured on nginx 1.22, Apache 2.4, HAProxy 2.6",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.mid_stream || flow.client().unseen > 0 || flow.client().cut > 0 {
        return None;
    }
    let first = flow.client().first_payload?;
    let (finding, complete) = match (pieces(flow), flow.proxy_header()) {
        (Some(n), Some((at, proxy))) => {
            let found = RULE.found(flow, first, Side::Client, format!("first of {n} pieces of the PROXY header"));
            (header::fill(found.and(at, Side::Client, header::shows(proxy)), proxy), Some(at))
        }
        _ => (cut_off(flow, first)?, None),
    };
    let close = flow.close_of(Side::Server);
    let too_early = close.is_some_and(|close| complete.is_none_or(|at| close < at));
    match header::accepted(flow) {
        Some(answer) if !too_early => {
            let finding = finding.and(answer, Side::Server, "the receiver waited for the rest and answers");
            Some(finding.severity(Severity::Warning).variant(1))
        }
        _ => {
            let Some(close) = close else {
                return Some(finding.severity(Severity::Warning).variant(1));
            };
            let shows = format!("{} after {} octets", flow.close_word(Side::Server), flow.server().payload);
            Some(finding.and(close, Side::Server, shows))
        }
    }
}

fn pieces(flow: &FlowView<'_>) -> Option<u32> {
    flow.story.events().find_map(|e| match e.what {
        What::ProxySplit { segments } => Some(segments),
        _ => None,
    })
}

/// The stream ended inside the header. A length field that promises too much is `proxy-header-malformed`.
fn cut_off(flow: &FlowView<'_>, first: PacketRef) -> Option<Finding> {
    let got = flow.story.events().find_map(|e| match e.what {
        What::ProxyIncomplete { got } => Some(got),
        _ => None,
    })?;
    let (closer, close) = flow.facts.closer?;
    if header::length_lies(flow, got) {
        return None;
    }
    let found = RULE.found(flow, first, Side::Client, format!("{got} octets of a PROXY header, not all of it"));
    Some(match closer {
        Side::Client => found.and(close, Side::Client, format!("{} before the rest", flow.close_word(Side::Client))),
        Side::Server => found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, proxy_header};

    fn whole() -> What {
        What::ProxyHeader(Box::new(proxy_header(2, "35.229.69.78:443", 28)))
    }

    #[test]
    fn a_receiver_that_closes_after_the_first_piece_makes_it_critical() {
        let scene = Scene::open()
            .data(Side::Client, 3, 14)
            .fin(Side::Server, 4)
            .data(Side::Client, 103, 14)
            .also(Side::Client, What::ProxySplit { segments: 2 })
            .also(Side::Client, whole());
        let found = scene.check(&RULE).expect("header in pieces");
        assert_eq!((found.severity, found.variant), (Severity::Critical, 0));
        assert_eq!(found.evidence.last().map(|e| e.at.number), Some(5));
    }

    #[test]
    fn a_receiver_that_waits_for_the_rest_leaves_a_warning() {
        let scene = Scene::open()
            .data(Side::Client, 3, 14)
            .data(Side::Client, 103, 14)
            .also(Side::Client, What::ProxySplit { segments: 2 })
            .also(Side::Client, whole())
            .response(105, 200, 90);
        let found = scene.check(&RULE).expect("header in pieces");
        assert_eq!((found.severity, found.variant), (Severity::Warning, 1));
    }

    #[test]
    fn a_stream_that_ends_inside_the_header_is_one() {
        let cut = Scene::open().data(Side::Client, 3, 14).rst(Side::Server, 4, ResetKind::Abort, 14);
        assert!(cut.also(Side::Client, What::ProxyIncomplete { got: 14 }).check(&RULE).is_some());
    }

    #[test]
    fn a_header_still_under_way_when_the_capture_ends_is_not_judged() {
        let scene = Scene::open().data(Side::Client, 3, 14).also(Side::Client, What::ProxyIncomplete { got: 14 });
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_header_in_one_segment_and_a_request_in_the_next_is_silent() {
        let scene = Scene::open().data(Side::Client, 3, 28).also(Side::Client, whole()).request(4, "GET", "/", 60);
        assert!(scene.response(5, 200, 90).check(&RULE).is_none());
    }
}
