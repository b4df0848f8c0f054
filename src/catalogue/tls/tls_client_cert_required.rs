//! The server wants a client certificate, and the client has none.
//!
//! ## How tcpwhy knows
//! TLS 1.2: the server asks (CertificateRequest), the client answers with an empty Certificate message, the server ends with an alert
//! (HAProxy, Apache and OpenSSL 40; Go 42). TLS 1.3: the client's first sealed record has the length of an empty Certificate message (25;
//! Java 41), and all that comes back is one record as long as an alert, and the end. For the client the handshake has then succeeded:
//! its request may be under way already, and dies.
//! nginx completes the handshake and says `400 No required SSL certificate was sent` inside TLS 1.2: the certificate that was asked for is
//! empty, the only answer is one record of the size of that page, and the server closes. Two such connections of a client, and none without a
//! certificate that lives on, are told. What the record says cannot be read: only its length fits.
//!
//! ## What it is not
//! - `tls-client-cert-rejected`: there the client sent a certificate.
//! - `tls-no-shared-cipher`: there the 40 comes right behind the ClientHello; nobody asked for a certificate.
//! - A server that asks and goes on without one (`optional`): it sends tickets or data.
//!
//! ## What people see
//! curl: `(56) … tlsv13 alert certificate required`, or `(35) … sslv3 alert handshake failure`; Go: `remote error: tls: certificate required`.
//!
//! ## False alarms it avoids
//! A ticket or data of the server, a client that leaves first, a late end and a hole in the capture make it silent. nginx' answer inside TLS is
//! a warning where a client with a certificate is served, else a notice: a short page before a close may be any; in TLS 1.3 it is silent.

use crate::event::story::Story;
use crate::event::{Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::FlowFacts;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::mutual::{self, Offered};
use crate::rule::summary::FlowSummary;
use crate::rule::trust;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Fix, Keep, Needs, Rule, Scope, Step, Words};
use crate::time::{Elapsed, Timestamp};

pub static RULE: Rule = Rule {
    id: "tls-client-cert-required",
    title: "the server wants a client certificate and did not get one",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::ServerHello, Kind::Certificates]).and_any(&[Kind::AlertPlain, Kind::AlertEncrypted]),
    says: "{server} wants a client certificate; {client_host} sends none and is refused",
    variants: &[
        "{server} asks for a client certificate; {client_host} sends none, gets one short answer each time and is cut off",
    ],
    users_see: &[
        "tlsv13 alert certificate required",
        "sslv3 alert handshake failure",
        "remote error: tls: certificate required",
        "peer did not return a certificate",
        "ERR_BAD_SSL_CLIENT_AUTH_CERT",
    ],
    words_of: &[(
        INSIDE,
        Words { users_see: &["400 No required SSL certificate was sent", "400 Bad Request"], ..Words::NONE },
    )],
    do_first: &[
        Step {
            says: "Whose certificates does {server} accept? See Acceptable client certificate CA names.",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "Is it meant to ask? On {host}, if nginx or HAProxy stands there:",
            command: "grep -rnE 'ssl_verify_client|verify required|SSLVerifyClient' /etc/nginx /etc/haproxy /etc/apache2",
        },
    ],
    fix: &[Fix {
        says: "give the client its certificate and key.",
        command: "curl --cert client.pem --key client.key --connect-to ::{server} https://{name}/",
        risk: "none for others; the key must be readable by the client only",
    }],
    verify: &[Step {
        says: "from {client_host}; an alert or 400 means that it is still refused:",
        command: "curl -sSk -o /dev/null -m 10 -w '%{response_code}\\n' --cert client.pem --key client.key --connect-to ::{server} https://{name}/",
    }],
    not: &[("network", "the client's flight arrived and was answered")],
    cannot_show: &["what is said inside TLS: only its length and its place tell it"],
    explains: &[
        Explains("server-reset-mid-response", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &[
        "RFC 8446 section 4.4.2.4",
        "RFC 5246 section 7.4.6",
        "measured on HAProxy 2.6, Apache 2.4, OpenSSL 3.0, Go 1.19",
    ],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

/// Octets of nginx' answer with its head: 389 (1.22), less without a version, more with other names and fields.
const PAGE: std::ops::RangeInclusive<u64> = 330..=520;
/// Connections of a client that must have ended so.
const ALIKE: usize = 2;
/// Variant of the headline where the refusal stands inside TLS.
const INSIDE: u8 = 1;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    refused(flow).or_else(|| answered(flow))
}

/// TLS 1.2: one short answer, and the server closes.
fn answered(flow: &FlowView<'_>) -> Option<Finding> {
    let lacking = flow.client().unseen + flow.server().unseen + flow.client().cut + flow.server().cut > 0;
    if flow.facts.mid_stream || lacking || flow.protocol(Side::Client) != Some(Protocol::Tls) {
        return None;
    }
    let (close, clear) = cut_off(flow.facts, flow.story, flow.thresholds.refusal)?;
    let (offered_at, offered) = mutual::offered(flow.story)?;
    let request = flow.first(Kind::CertificateRequest, Side::Server)?.at;
    if offered != Offered::Nothing || !PAGE.contains(&clear) {
        return None;
    }
    let answer = flow.first(Kind::TlsData, Side::Server)?.at;
    let finding = RULE
        .found(flow, close, Side::Server, "the server closes behind its only answer")
        .and(offered_at, Side::Client, "Certificate message of the client: empty")
        .and(request, Side::Server, "CertificateRequest")
        .and(answer, Side::Server, format!("one record that holds {clear} octets: as long as nginx' page about it"))
        .severity(Severity::Notice)
        .confidence(Confidence::Medium)
        .variant(INSIDE);
    Some(trust::named(finding, flow))
}

/// The close of a server that said one record and was through, and the octets in that record.
fn cut_off(facts: &FlowFacts, story: &Story, soon: Elapsed) -> Option<(PacketRef, u64)> {
    let (_, close) = facts.closer.filter(|(side, _)| *side == Side::Server)?;
    let asked = story.first(Kind::TlsData, Side::Client)?.at;
    let clear = story.events().find_map(|e| match e.what {
        What::TlsSealed { records: 1, clear } if e.side == Side::Server => Some(clear),
        _ => None,
    })?;
    (asked < close && close.time.since(asked.time) <= soon).then_some((close, clear))
}

fn refused(flow: &FlowView<'_>) -> Option<Finding> {
    let refused = mutual::refused(flow).filter(|refused| refused.offered == Offered::Nothing)?;
    let finding = mutual::tell(&RULE, flow, &refused);
    Some(if refused.alert.is_some() { finding } else { finding.confidence(Confidence::High) })
}

/// A client that has a certificate and is served shows that it is the certificate that is missed.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding) else { return Keep::Yes };
    let inside = finding.variant == INSIDE;
    if inside && !each_time(own, capture) {
        return Keep::Drop;
    }
    let ends_so = |other: &FlowSummary| cut_off(&other.facts, &other.story, capture.thresholds.refusal).is_some();
    let with_one = capture
        .flows_to(&own.facts.server)
        .filter(|other| trust::same_name(&own.story, &other.story) && trust::accepted(other))
        .filter(|other| !inside || !ends_so(other))
        .find_map(|other| match mutual::offered(&other.story)? {
            (_, Offered::Nothing) => None,
            (at, _) => Some((other.facts.id, at, other.facts.client.address)),
        });
    if let Some((flow, at, client)) = with_one {
        let cited = finding.clone().cites(at, Some(flow), format!("{client} sends a certificate and is served"));
        *finding = if inside { cited.severity(Severity::Warning) } else { cited };
    }
    Keep::Yes
}

/// Every connection of the client without a certificate ends so, and several do. With `optional` they live on.
fn each_time(own: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let (client, server) = (own.facts.client.address, own.facts.server);
    // Of those that are only counted nobody knows.
    let counted = capture
        .began_to(&server, Timestamp::MIN, Timestamp::MAX)
        .any(|digest| digest.client().address == client && !capture.flows.contains_key(&digest.id));
    let without = capture.flows_to(&server).filter(|other| {
        let nothing = mutual::offered(&other.story).is_some_and(|(_, offered)| offered == Offered::Nothing);
        nothing && trust::accepted(other) && trust::same_name(&own.story, &other.story)
    });
    let ends: Vec<bool> = without
        .map(|other| {
            cut_off(&other.facts, &other.story, capture.thresholds.refusal)
                .is_some_and(|(_, clear)| PAGE.contains(&clear))
        })
        .collect();
    !counted && ends.len() >= ALIKE && ends.iter().all(|so| *so)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::mutual::samples;
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::{alert, certificate, works};

    fn empty() -> What {
        What::Certificates(Box::default())
    }

    #[test]
    fn an_empty_certificate_and_an_alert_are_certain() {
        for description in [40, 42, 116] {
            let found = alert(samples::asked_12(Vec::new()), Side::Server, description).check(&RULE).expect("required");
            assert_eq!((found.confidence, found.evidence.len()), (Confidence::Certain, 4));
        }
    }

    #[test]
    fn tls_13_tells_it_by_lengths() {
        let found = samples::hangs_up(samples::asked_13(empty()), 7, true).check(&RULE).expect("required");
        assert_eq!(found.confidence, Confidence::High);
    }

    #[test]
    fn a_server_that_goes_on_without_a_certificate_is_silent() {
        assert!(works(samples::asked_13(empty())).check(&RULE).is_none());
        assert!(samples::hangs_up(samples::asked_13(empty()), 7, false).check(&RULE).is_none(), "behind a ticket");
        assert!(samples::hangs_up(samples::asked_13(empty()), 9_000, true).check(&RULE).is_none(), "an idle time-out");
        let left = samples::asked_13(empty()).fin(Side::Client, 6);
        assert!(samples::hangs_up(left, 7, true).check(&RULE).is_none(), "the client left first");
    }

    /// TLS 1.2 without a certificate: one answer of so many octets, and the server closes after `ms`.
    fn page(clear: u64, ms: i64, number: u64) -> Scene {
        let mut scene = samples::asked_12(Vec::new())
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Client, 8, 108)
            .also(Side::Client, What::TlsData)
            .data(Side::Server, 9, clear as u32 + 29)
            .also(Side::Server, What::TlsData)
            .event(Side::Server, ms, What::AlertEncrypted { len: 26, alone: false })
            .also(Side::Server, What::TlsSealed { records: 1, clear })
            .fin(Side::Server, ms);
        scene.facts.id.number = number;
        scene
    }

    #[test]
    fn nginx_refuses_inside_tls() {
        let (one, two) = (page(389, 10, 1), page(389, 10, 70));
        let finding = one.check(&RULE).expect("required");
        assert_eq!((finding.variant, finding.confidence), (INSIDE, Confidence::Medium));
        assert_eq!(World::new().with(&one).corroborated(&RULE, finding.clone()), None, "once is a page like others");
        let told = World::new().with(&one).with(&two).corroborated(&RULE, finding.clone()).expect("kept");
        assert_eq!(told.severity, Severity::Notice);
        let mut good = works(samples::asked_12(vec![certificate(-1, 9)]));
        good.facts.id.number = 90;
        let world = World::new().with(&one).with(&two).with(&good);
        let told = world.corroborated(&RULE, finding.clone()).expect("kept");
        assert_eq!(told.severity, Severity::Warning);
        let mut lives = works(samples::asked_12(Vec::new()));
        lives.facts.id.number = 95;
        let world = World::new().with(&one).with(&two).with(&lives);
        assert_eq!(world.corroborated(&RULE, finding), None, "optional");
    }

    #[test]
    fn other_pages_and_idle_closes_are_no_refusal() {
        assert_eq!(page(2_000, 10, 1).check(&RULE), None);
        assert_eq!(page(389, 5_010, 1).check(&RULE), None);
    }

    #[test]
    fn a_certificate_that_was_sent_is_another_rule() {
        assert!(alert(samples::asked_12(vec![certificate(-1, 9)]), Side::Server, 42).check(&RULE).is_none());
        assert!(alert(Scene::open(), Side::Server, 40).check(&RULE).is_none());
    }

    #[test]
    fn one_that_is_served_with_a_certificate_is_the_control() {
        let scene = samples::hangs_up(samples::asked_13(empty()), 7, true);
        let finding = scene.check(&RULE).expect("required");
        let mut good = works(samples::asked_13(What::CertificateSealed { len: 880 }));
        good.facts.id.number = 90;
        let world = World::new().with(&scene).with(&good);
        let told = world.corroborated(&RULE, finding).expect("kept");
        assert!(told.evidence.last().is_some_and(|e| e.shows.contains("is served")));
    }
}
