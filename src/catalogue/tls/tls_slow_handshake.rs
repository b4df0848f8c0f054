//! The TLS handshake itself is slow: one side thinks for a second or more before it goes on.
//!
//! ## How tcpwhy knows
//! The ClientHello is acknowledged at once, and the ServerHello comes 1 s or more later (but before 10 s: that is `tls-handshake-stalled`); or the
//! ServerHello is there, and the client's Finished comes 1 s or more later, at least 20 round trips, with nothing lost in between. High near the
//! server only: elsewhere its first copies may have been lost before the capture point. Medium for the client: the rest of the server's messages,
//! encrypted since TLS 1.3, may have come late.
//!
//! ## What it is not
//! - `packet-loss`, `rtt-high-or-rising`: there the path is slow.
//! - `slow-response`: there the handshake is over and a request waits.
//!
//! ## What people see
//! Pages that open after seconds, and then quickly: curl's `time_appconnect` is long, `time_connect` is not.
//!
//! ## False alarms it avoids
//! Segments sent again, octets that the capture lost, a client certificate (a person chooses it), and a flow that began before the capture.

use crate::event::{Kind, PacketRef, Side, What};
use crate::flow::facts::Vantage;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, trust};
use crate::time::Elapsed;

/// What a TLS client may fetch before it goes on: revocation lists, OCSP answers and missing issuers come by plain HTTP.
const HTTP: u16 = 80;

pub static RULE: Rule = Rule {
    id: "tls-slow-handshake",
    title: "the TLS handshake itself is slow",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::ClientHello, Kind::ServerHello]),
    says: "{server} answered the ClientHello of {client_host} only after {wait}",
    variants: &["{client_host} took {wait} to go on after the ServerHello of {server}"],
    users_see: &["time_appconnect", "TLS handshake, Client hello (1)", "TLS handshake timeout"],
    do_first: &[
        Step {
            says: "Where does the time go? Connect and TLS, in seconds:",
            command: "curl -sko /dev/null -m 30 -w '%{time_connect} %{time_appconnect}\\n' https://{host}:{port}/",
        },
        Step {
            says: "On {host}: is there a TCP proxy, a slow key store, or too little CPU?",
            command: "uptime; sudo ss -ltnp 'sport = :{port}'",
        },
        Step {
            says: "On {client_host}, where the client is slow: what does it look up or fetch by HTTP meanwhile?",
            command: "sudo tcpdump -ni any -c 50 'host {client_host} and (port 53 or port 80)'",
        },
    ],
    verify: &[Step {
        says: "the second number is hardly larger than the first once it is mended:",
        command: "curl -sko /dev/null -m 30 -w '%{time_connect} %{time_appconnect}\\n' https://{host}:{port}/",
    }],
    not: &[("packet-loss", "nothing was sent twice until then")],
    cannot_show: &[
        "what the side that waited was doing",
        "away from the server, whether its answer was sent before and lost on the way",
    ],
    explains: &[Explains("client-abandoned", Scope::Same)],
    sources: &["RFC 8446 §2", "measured: HAProxy 2.6 that inspects for 5 s, a client that checks revocation for 3 s"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.last.time.since(flow.facts.start()) < flow.thresholds.slow {
        return None;
    }
    let (client, server) = (flow.client(), flow.server());
    let clean = client.loss.total() + server.loss.total() == 0 && client.unseen + server.unseen == 0;
    if flow.facts.mid_stream || !clean || flow.saw(Kind::CertificateRequest) {
        return None;
    }
    let (asked, _) = flow.client_hello()?;
    let greeted = flow.first(Kind::ServerHello, Side::Server)?.at;
    let finding = server_slow(flow, asked, greeted).or_else(|| client_slow(flow, greeted))?;
    Some(trust::named(finding, flow))
}

fn long(flow: &FlowView<'_>, wait: Elapsed) -> bool {
    wait >= flow.thresholds.slow && wait < flow.thresholds.hang && patience::beyond_path(flow, wait)
}

/// The ServerHello lets wait although the ClientHello was acknowledged.
fn server_slow(flow: &FlowView<'_>, asked: PacketRef, greeted: PacketRef) -> Option<Finding> {
    let wait = greeted.time.since(asked.time);
    let acked = flow.client().first_payload_acked.filter(|acked| *acked < greeted)?;
    let quick = acked.time.since(asked.time) <= Elapsed(wait.0 / 5);
    // Without a first ServerHello of its own the server may have asked for another ClientHello.
    let retried = flow.story.events().any(|e| matches!(&e.what, What::ServerHello(hello) if hello.retry_request));
    (quick && !retried && long(flow, wait)).then(|| {
        RULE.found(flow, greeted, Side::Server, format!("ServerHello {wait} after the ClientHello"))
            .and(asked, Side::Client, "the ClientHello is complete")
            .and(acked, Side::Server, "its ACK: the server's kernel has it")
            .confidence(near_server(flow))
            .with("over", Value::Frame(greeted))
            .with("wait", wait)
    })
}

/// Elsewhere a ServerHello whose first copies were lost before the capture point looks the same.
fn near_server(flow: &FlowView<'_>) -> Confidence {
    if flow.facts.vantage == Vantage::NearServer { Confidence::High } else { RULE.confidence }
}

/// The client lets wait behind the ServerHello, and goes on in the end.
fn client_slow(flow: &FlowView<'_>, greeted: PacketRef) -> Option<Finding> {
    let finished = flow.first(Kind::TlsFinished, Side::Client)?.at;
    let wait = finished.time.since(greeted.time);
    let certificate = flow.story.events().any(|e| {
        let sent = matches!(e.what, What::CertificateSealed { .. } | What::Certificates(_));
        sent && e.side == Side::Client
    });
    (!certificate && long(flow, wait)).then(|| {
        RULE.found(flow, finished, Side::Client, format!("Finished {wait} after the ServerHello"))
            .and(greeted, Side::Server, "ServerHello")
            .variant(1)
            .culprit(Culprit::Client)
            .with("over", Value::Frame(finished))
            .with("wait", wait)
    })
}

/// What the client fetched meanwhile: a revocation list or an OCSP answer, when it says so.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(own) = capture.flow_of(finding).filter(|_| finding.variant == 1) else { return Keep::Yes };
    let (from, to) = (finding.first(), finding.last());
    let client = own.facts.client.address;
    let fetch = capture.flows.range(from..=to).map(|(_, flow)| flow).find(|flow| {
        flow.facts.client.address == client && flow.facts.server.port == HTTP && flow.facts.id != own.facts.id
    });
    if let Some(fetch) = fetch {
        let shows = format!("meanwhile it asks {}: a revocation list, OCSP or an issuer?", fetch.facts.server);
        *finding = finding.clone().cites(fetch.facts.id, Some(fetch.facts.id), shows);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::offer::samples::{makes, offer};
    use crate::rule::testing::{Scene, World};
    use crate::wire::tls::ServerHello;

    fn greeted(ms: i64) -> Scene {
        let chosen = ServerHello { version: 0x0304, cipher: 0x1301, ..Default::default() };
        makes(Scene::open(), offer())
            .acked(Side::Client, 4)
            .data(Side::Server, ms, 1200)
            .also(Side::Server, What::ServerHello(Box::new(chosen)))
    }

    fn finished(scene: Scene, ms: i64) -> Scene {
        scene.acked(Side::Server, ms).data(Side::Client, ms, 80).also(Side::Client, What::TlsFinished)
    }

    #[test]
    fn a_server_that_thinks_for_five_seconds_is_told_with_the_ack() {
        let found = greeted(5_003).check(&RULE).expect("slow");
        assert_eq!((found.variant, found.culprit), (0, Culprit::Server));
        assert_eq!(found.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [6, 4, 5]);
    }

    #[test]
    fn a_client_that_thinks_is_told_and_what_it_fetches_is_cited() {
        let scene = finished(greeted(6), 3_006);
        let found = scene.check(&RULE).expect("slow");
        assert_eq!((found.variant, found.confidence), (1, Confidence::Medium));
        let fetch = Scene::starting("10.0.0.1:50000", "10.0.0.80:80", 90, 100).handshake();
        let told = World::new().with(&scene).with(&fetch).corroborated(&RULE, found).expect("kept");
        assert_eq!(told.evidence.last().and_then(|cited| cited.flow), Some(fetch.facts.id));
    }

    #[test]
    fn quick_ones_losses_hangs_and_chosen_certificates_are_silent() {
        assert!(finished(greeted(300), 700).check(&RULE).is_none());
        assert!(greeted(11_003).check(&RULE).is_none(), "tls-handshake-stalled tells it");
        let lost = makes(Scene::open(), offer()).again(Side::Client, 300).acked(Side::Client, 1_300);
        let lost = lost.data(Side::Server, 1_304, 1200).also(Side::Server, What::ServerHello(Box::default()));
        assert!(lost.check(&RULE).is_none());
        let chosen = greeted(6).acked(Side::Server, 3_000).data(Side::Client, 3_001, 900);
        let chosen =
            chosen.also(Side::Client, What::CertificateSealed { len: 700 }).also(Side::Client, What::TlsFinished);
        assert!(chosen.check(&RULE).is_none());
    }
}
