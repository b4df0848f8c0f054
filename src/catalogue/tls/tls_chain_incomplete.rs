//! The server does not send its intermediate certificate.
//!
//! ## How tcpwhy knows
//! The readable Certificate message holds one certificate that is not self-signed. Two kinds of TLS software or more do not trust its issuer, while another
//! client is served under the same name with the same certificate. When the issuer's own certificate is seen elsewhere in the capture and is
//! an intermediate one, that proves it; without it a private authority that only some clients know looks the same, and confidence is medium.
//!
//! ## What it is not
//! - `tls-cert-untrusted`: nobody, or one client only, is known to refuse or to accept it.
//! - `cert-outage`: nobody at all accepts the certificate.
//!
//! ## What people see
//! It works in Chrome (which fetches or remembers the intermediate) and fails in curl, Java and Go: `unable to get local issuer certificate`.
//!
//! ## False alarms it avoids
//! One kind of client that does not know a private authority, and certificates whose issuer is seen to be a root.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PacketRef, Protocol, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Reach, Severity, Standing, Subject};
use crate::rule::summary::{Digest, FlowSummary, leaf_key};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Rule, Scope, Step, trust};
use crate::wire::tls::Certificate;
use crate::wire::{Address, Endpoint};

/// Kinds of TLS software that refuse: each brings its own list of authorities.
const KINDS: usize = 2;
/// Refusals cited.
const CITED: usize = 3;

pub static RULE: Rule = Rule {
    id: "tls-chain-incomplete",
    title: "the server does not send its intermediate certificate",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    says: "{server} sends the certificate of {name} without its intermediate {issuer}: {refused} refuse it, others accept it",
    variants: &[
        "{server} sends the certificate of {name} alone, and its issuer is known to some clients only: {refused} refuse it, \
         others accept it",
    ],
    users_see: &[
        "unable to get local issuer certificate",
        "unable to verify the first certificate",
        "PKIX path building failed",
        "certificate signed by unknown authority",
        "works in the browser",
    ],
    do_first: &[
        Step {
            says: "How many certificates does {server} send? With one only, the intermediate is missing.",
            command: "openssl s_client -connect {server} -servername {name} -showcerts </dev/null",
        },
        Step {
            says: "On {host}: which file does the server read? It must hold the whole chain (fullchain.pem), leaf first.",
            command: "grep -rnE 'ssl_certificate |SSLCertificateFile| crt ' /etc/nginx /etc/apache2 /etc/haproxy",
        },
    ],
    verify: &[Step {
        says: "prints Verification: OK from a host with the public authorities only:",
        command: "openssl s_client -connect {server} -servername {name} -verify_hostname {name} -verify_return_error </dev/null",
    }],
    not: &[("network", "the certificate arrived and was answered")],
    cannot_show: &["which authorities a client knows, and whether the one that accepts checks at all"],
    explains: &[
        // A proxy that leaves its backend on other connections too, where the session is resumed and shows no certificate.
        Explains("http-gateway-error", Scope::Peer),
        Explains("tls-cert-untrusted", Scope::PeerName),
        Explains("tls-cert-rejected", Scope::PeerName),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["RFC 8446 section 4.4.2", "RFC 5246 section 7.4.2", "measured on OpenSSL 3.0, Go 1.19, Java 17"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

/// A client that refused, and its finding.
type Refusal<'a> = (&'a FlowSummary, &'a Finding);

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut places: BTreeMap<(Endpoint, u32), Vec<Refusal<'_>>> = BTreeMap::new();
    for rule in ["tls-cert-untrusted", "tls-cert-rejected"] {
        for flow in capture.found_by(rule) {
            let Some(found) = flow.findings.iter().find(|finding| finding.rule == rule) else { continue };
            places.entry((flow.facts.server, flow.digest.name)).or_default().push((flow, found));
        }
    }
    let mut findings = Vec::new();
    for ((server, _), mut refusals) in places {
        refusals.sort_by_key(|(flow, _)| flow.facts.id);
        findings.extend(judge(findings.len() as u32, server, &refusals, capture));
    }
    findings
}

fn judge(n: u32, server: Endpoint, refusals: &[Refusal<'_>], capture: &CaptureView<'_>) -> Option<Finding> {
    let (shown, chain_at, leaf) = refusals.iter().find_map(|refusal| match trust::chain(&refusal.0.story)? {
        (at, [leaf]) if !leaf.self_signed => Some((refusal, at, leaf)),
        _ => None,
    })?;
    let kinds: BTreeSet<&[u16]> = refusals.iter().filter_map(|(flow, _)| trust::ciphers(&flow.story)).collect();
    let proven = match issuer(leaf, capture) {
        Some(root) if root.self_signed => return None,
        known => known.is_some(),
    };
    let (first, last) = (refusals.first()?, refusals.last()?);
    let good = served(server, leaf, (first.0.facts.id, last.0.facts.id), refusals, capture)?;
    if kinds.len() < KINDS {
        return None;
    }
    let name = trust::asked(&shown.0.story).map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let clients: BTreeSet<Address> = refusals.iter().map(|(flow, _)| flow.facts.client.address).collect();
    let (mut from, mut until) = (shown.1.first(), shown.1.last());
    for (_, found) in refusals {
        (from, until) = (from.min(found.first()), until.max(found.last()));
    }
    let mut finding = RULE
        .about(Subject::Host(n), chain_at, Some(Side::Server), trust::described(std::slice::from_ref(leaf)))
        .on_flow(shown.0.facts.id)
        .cites(good.id, Some(good.id), "a client that is served with it");
    for (flow, found) in refusals.iter().take(CITED) {
        if let Some(word) = found.evidence.first() {
            finding = finding.cites(word.at, Some(flow.facts.id), word.shows.clone());
        }
    }
    if !proven {
        let note =
            "The same is seen where a private authority is known to some clients only, or where one checks nothing.";
        finding = finding.variant(1).confidence(Confidence::Medium).note(note);
    }
    let shown_name = name.clone().map_or(Value::Address(server.address), Value::Packet);
    let reach = Reach {
        servers: vec![server],
        name,
        spans: vec![(from.time, until.time)],
        flows: refusals.len() as u64,
        of: capture.service(&server).map_or(0, |service| service.flows),
        clients: clients.len() as u64,
        last_good: (good.id < from).then_some(good.id),
        standing: Standing::GoesOn,
        ..Reach::default()
    };
    let finding = finding.with("server", server).with("host", server.address).with("name", shown_name);
    let issuer = Value::Packet(leaf.issuer.clone());
    let refused = format!("{} kinds of clients", kinds.len());
    Some(finding.with("issuer", issuer).with("refused", refused).reaches(reach))
}

/// A connection under the name that was served with the same certificate; a sealed one counts while others refuse.
fn served<'a>(
    server: Endpoint,
    leaf: &Certificate,
    (first, last): (PacketRef, PacketRef),
    refusals: &[Refusal<'_>],
    capture: &'a CaptureView<'_>,
) -> Option<&'a Digest> {
    let name = refusals.first()?.0.digest.name;
    let key = leaf_key(leaf);
    let refused = |id: PacketRef| refusals.iter().any(|(flow, _)| flow.facts.id == id);
    capture
        .began_to(&server, crate::time::Timestamp::MIN, crate::time::Timestamp::MAX)
        .filter(|digest| digest.served && digest.protocol == Some(Protocol::Tls) && digest.name == name)
        .filter(|digest| digest.leaf == key || digest.leaf == 0 && digest.id > first && digest.id < last)
        .find(|digest| !refused(digest.id))
}

/// The issuer's own certificate, where any server sends it.
fn issuer<'a>(leaf: &Certificate, capture: &'a CaptureView<'_>) -> Option<&'a Certificate> {
    let sent = |flow: &'a FlowSummary| trust::chain(&flow.story).map(|(_, chain)| chain).unwrap_or_default();
    capture.flows.values().flat_map(sent).find(|one| one.subject == leaf.issuer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::rule::trust::samples::{alert, certificate, tls_12_on, works};
    use crate::wire::tls::ClientHello;

    fn begun(n: u64, chain: Vec<Certificate>, suites: u16) -> Scene {
        let scene = Scene::starting(&format!("10.0.1.{n}:40000"), "10.0.0.2:443", n * 20, n as i64 * 1000);
        let hello = ClientHello { sni: Some("www.example.com".into()), ciphers: vec![suites], ..Default::default() };
        let scene = scene.handshake().event(Side::Client, 3, What::ClientHello(Box::new(hello)));
        tls_12_on(scene, chain)
    }

    fn refuses(n: u64, chain: Vec<Certificate>, suites: u16) -> Scene {
        let mut scene = alert(begun(n, chain, suites), Side::Client, 48);
        let rule = crate::catalogue::rule("tls-cert-untrusted").expect("built");
        scene.findings.extend(scene.check(rule));
        scene
    }

    fn leaf() -> Certificate {
        certificate(-1, 80)
    }

    fn issued(subject: &str, self_signed: bool) -> Certificate {
        Certificate { subject: subject.into(), issuer: "CN=root".into(), self_signed, ..certificate(-99, 800) }
    }

    fn world(kinds: [u16; 2]) -> World {
        World::new().with(&refuses(1, vec![leaf()], kinds[0])).with(&refuses(2, vec![leaf()], kinds[1]))
    }

    #[test]
    fn two_kinds_refuse_what_another_accepts() {
        let found = world([1, 2]).with_good(&works(begun(3, vec![leaf()], 3))).check(&RULE);
        assert_eq!((found.len(), found[0].confidence, found[0].variant), (1, Confidence::Medium, 1));
    }

    #[test]
    fn an_intermediate_that_is_seen_elsewhere_proves_it() {
        let full = works(begun(4, vec![leaf(), issued("CN=some CA", false)], 3));
        let found = world([1, 2]).with(&full).check(&RULE);
        assert_eq!((found.len(), found[0].confidence, found[0].variant), (1, Confidence::High, 0));
        let root = works(begun(4, vec![leaf(), issued("CN=some CA", true)], 3));
        assert!(world([1, 2]).with(&root).check(&RULE).is_empty(), "the issuer is a root: nothing is missing");
    }

    #[test]
    fn one_kind_of_client_and_a_certificate_that_nobody_accepts_are_other_rules() {
        assert!(world([1, 1]).with_good(&works(begun(3, vec![leaf()], 3))).check(&RULE).is_empty());
        assert!(world([1, 2]).check(&RULE).is_empty());
    }
}
