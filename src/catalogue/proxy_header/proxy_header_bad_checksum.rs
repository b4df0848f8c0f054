//! The CRC32C inside the PROXY header does not fit. Something changed the header after the sender had written it.
//!
//! ## How tcpwhy knows
//! The header carries TLV 0x03, and the CRC32C over the whole header, computed with that field zeroed, is another number (§2.2.3).
//!
//! ## What it is not
//! - A damaged segment: TCP's own checksum would have dropped it.
//! - `proxy-header-malformed`: every field of the header is valid.
//!
//! ## What people see
//! HAProxy resets the connection, and users see `Connection reset by peer` or `SSL_ERROR_SYSCALL`. nginx and Apache ignore the checksum: the
//! connection works, with whatever addresses now stand in the header.
//!
//! ## False alarms it avoids
//! A header without a checksum is silent, and so is one with further TLVs whose checksum fits.

use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mismatch::{self, Refusal};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step, header};

pub static RULE: Rule = Rule {
    id: "proxy-header-bad-checksum",
    title: "the CRC32C in the PROXY header is wrong",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Proxy,
    needs: Needs::all(&[Kind::ProxyHeader]),
    says: "the PROXY header from {client_host} to {server} was changed on its way: CRC32C wrong",
    users_see: &["Connection reset by peer", "SSL_ERROR_SYSCALL"],
    do_first: &[Step {
        says: "Which hop between the sender and {server} rewrites addresses or TLVs? Capture on both sides of {client_host}:",
        command: "tcpdump -ni any -c 20 -X 'tcp port {port} and host {host}'",
    }],
    fix: &[Fix {
        says: "Let the hop that edits the header write a new checksum, or none. HAProxy: leave crc32c out of proxy-v2-options.",
        command: "",
        risk: "without the checksum later changes go unnoticed",
    }],
    verify: &[Step {
        says: "a header without a checksum passes:",
        command: "curl -sv -m 5 --haproxy-protocol http://{server}/",
    }],
    cannot_show: &["what the header said before it was changed"],
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
        "proxy-protocol.txt (HAProxy, 2020/03/05) section 2.2.3",
        "RFC 4960 appendix B",
        "measured on HAProxy 2.6",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, proxy) = flow.proxy_header()?;
    if proxy.checksum_fits != Some(false) {
        return None;
    }
    let finding = RULE.found(flow, at, Side::Client, format!("{}, CRC32C does not fit", header::shows(proxy)));
    let finding = header::fill(finding, proxy);
    match mismatch::refusal(flow) {
        Some(refusal @ Refusal::Closed(close, _)) => {
            Some(finding.and(close, Side::Server, refusal.shows(flow)).severity(Severity::Critical))
        }
        _ => Some(finding.and_maybe(flow.answer(), Side::Server, "the receiver answers: it does not check")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, What};
    use crate::rule::testing::{Scene, end};
    use crate::wire::proxy::{Command, Family, ProxyHeader, Tlv};

    fn scene(fits: Option<bool>) -> Scene {
        let header = ProxyHeader {
            version: 2,
            command: Command::Proxy,
            family: Family::Tcp4,
            source: Some(end("203.0.113.7:53002")),
            destination: Some(end("35.229.69.78:443")),
            tlvs: vec![Tlv { kind: 3, len: 4, value: vec![1, 2, 3, 4] }],
            checksum_fits: fits,
            len: 35,
        };
        Scene::open().data(Side::Client, 3, 95).also(Side::Client, What::ProxyHeader(Box::new(header)))
    }

    #[test]
    fn a_receiver_that_resets_on_it_makes_it_critical() {
        let found = scene(Some(false)).rst(Side::Server, 4, ResetKind::Abort, 95).check(&RULE).expect("wrong checksum");
        assert_eq!(found.severity, Severity::Critical);
    }

    #[test]
    fn a_receiver_that_does_not_check_leaves_a_warning() {
        let found = scene(Some(false)).response(4, 200, 90).check(&RULE).expect("wrong checksum");
        assert_eq!(found.severity, Severity::Warning);
    }

    #[test]
    fn a_checksum_that_fits_or_is_absent_is_silent() {
        assert!(scene(Some(true)).rst(Side::Server, 4, ResetKind::Abort, 95).check(&RULE).is_none());
        assert!(scene(None).rst(Side::Server, 4, ResetKind::Abort, 95).check(&RULE).is_none());
    }
}
