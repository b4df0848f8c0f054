//! The server hung up on the ClientHello without a word: no ServerHello, no alert.
//!
//! ## How tcpwhy knows
//! The ClientHello is complete, the server's FIN or RST comes before any octet of it, and the client had not closed. It is a bare fact and
//! always certain; the reason is another finding, or stands on another leg. The time between ClientHello and close tells something: under
//! 50 ms the server decided by itself; about 1, 2 or 3 s a TCP proxy tried in vain to reach its backend. A close that comes before the
//! ClientHello counts too: a TCP proxy may pass its backend's close on before the client has spoken.
//!
//! ## What it is not
//! - `tls-handshake-stalled`: there the server keeps silent and does not close.
//! - `tls-clienthello-lost`: there the ClientHello is not acknowledged.
//! - `tls-fatal-alert`: there the server says why.
//! - `client-abandoned`: there the client closes first.
//!
//! ## What people see
//! curl: `SSL_ERROR_SYSCALL`; Go: `EOF`; Java: `Remote host terminated the handshake`; Node: `ECONNRESET`; Firefox: `PR_END_OF_FILE_ERROR`;
//! Chrome: `ERR_CONNECTION_CLOSED` or `ERR_CONNECTION_RESET`.
//!
//! ## False alarms it avoids
//! An alert, a ServerHello or any other octet of the server makes it silent, and so does a client that closes first.

use crate::event::{Kind, PacketRef, Protocol, ResetKind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, mismatch};
use crate::time::Elapsed;

/// A server that closes this soon decided by itself: no other host was asked.
const AT_ONCE: Elapsed = Elapsed::millis(50);

pub static RULE: Rule = Rule {
    id: "tls-closed-after-clienthello",
    title: "the server hung up on the ClientHello without a word",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::ClientHello]).and_any(&[Kind::Fin, Kind::Reset]),
    symptom: true,
    says: "{server} hangs up on the ClientHello without a word: {close}, 0 octets",
    users_see: &[
        "SSL_ERROR_SYSCALL",
        "EOF",
        "Remote host terminated the handshake",
        "Client network socket disconnected before secure TLS connection was established",
        "ECONNRESET",
        "PR_END_OF_FILE_ERROR",
        "ERR_CONNECTION_CLOSED",
        "ERR_CONNECTION_RESET",
    ],
    do_first: &[
        Step {
            says: "Does {server} answer this name from another host? It must print a certificate.",
            command: "openssl s_client -connect {server} -servername {name} </dev/null",
        },
        Step {
            says: "Is {host} a proxy? Then the reason is on its other side: capture there, both legs.",
            command: "tcpdump -ni any -w /tmp/legs.pcap 'tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-rst) != 0 or tcp port {port}'",
        },
        Step {
            says: "What does its log say for {client}? HAProxy's flags: --, SD: backend closed; SC: not reached.",
            command: "grep -F '{client}' /var/log/haproxy.log",
        },
    ],
    verify: &[Step {
        says: "prints CONNECTED and a certificate once it is mended:",
        command: "openssl s_client -connect {server} -servername {name} </dev/null",
    }],
    not: &[("tls-handshake-stalled", "the server closed"), ("tls-fatal-alert", "no alert was sent")],
    cannot_show: &["why the server closed: it did not say"],
    explains: &[
        Explains("closed-before-request", Scope::Same),
        Explains("proxy-protocol-mismatch-upstream", Scope::Link),
    ],
    sources: &["GitLab Pages outage, 2021", "measured on nginx 1.22, Apache 2.4, HAProxy 2.6, Go 1.19"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (closer, close) = flow.facts.closer?;
    let server = flow.server();
    if closer != Side::Server || server.payload > 0 || server.unseen > 0 || flow.facts.mid_stream {
        return None;
    }
    let (hello_at, hello) = flow.client_hello()?;
    let word = flow.close_word(Side::Server);
    let name = hello.sni.as_deref().unwrap_or("without a name");
    let after = close.time.since(hello_at.time);
    let shows = if after < Elapsed::ZERO {
        format!("{word} {} before the ClientHello: 0 octets", after.abs())
    } else {
        format!("{word} {after} later: 0 octets, no alert")
    };
    let finding = RULE
        .found(flow, hello_at, Side::Client, format!("ClientHello {name}"))
        .and(close, Side::Server, shows)
        .with("close", word)
        .with("after", after);
    let finding = match &hello.sni {
        Some(name) => finding.with("name", crate::rule::value::Value::Packet(name.to_string())),
        None => finding.with("name", flow.facts.server.address),
    };
    let finding = match speaks(flow, close, after) {
        Some(sentence) => finding.note(sentence),
        None => finding,
    };
    Some(mismatch::rules_out_path(finding, flow))
}

/// What the kind of the close and its delay tell.
fn speaks(flow: &FlowView<'_>, close: PacketRef, after: Elapsed) -> Option<String> {
    let edge =
        flow.story.events().any(|e| e.at == close && matches!(e.what, What::Reset { kind: ResetKind::Edge, .. }));
    if edge {
        return Some(
            "the RST does not fit the server's other packets: a box on the path may have sent it, by the name".into(),
        );
    }
    if after < Elapsed::ZERO {
        return Some("the close came first: a TCP proxy passes on what its backend did before the client spoke".into());
    }
    if after <= AT_ONCE {
        return Some(format!("it closed after {after}: its own decision, or that of a backend close by"));
    }
    let seconds = after.as_secs_f64();
    let whole = seconds.round();
    ((1.0..=5.0).contains(&whole) && (seconds - whole).abs() < 0.1).then(|| {
        format!("it closed after {after}: a TCP proxy that tried its backend in vain, once a second, looks like that")
    })
}

/// Whether the port ever speaks TLS, and what else may be the reason when nothing else explains it.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let server = flow.facts.server;
    if let Some(spoke) = mismatch::to_others(capture, &server, Protocol::Tls) {
        mismatch::cite_control(finding, &spoke, "TLS to the same port");
        finding.notes.push("the port does speak TLS: by name, by client or by time it refused this one".into());
    } else if mismatch::behind_header(capture, &server).is_none() {
        let sentence = "no connection in this capture spoke TLS to this port: it may wait for a PROXY header \
                        (proxy-header-missing), be a TCP proxy without a backend, or speak something else";
        finding.notes.push(sentence.into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;
    use crate::wire::tls::{Alert, ClientHello};

    fn hello(scene: Scene, ms: i64) -> Scene {
        let hello = ClientHello { sni: Some("www.example.com".into()), ..ClientHello::default() };
        scene
            .data(Side::Client, ms, 517)
            .speaks(Side::Client, Protocol::Tls)
            .also(Side::Client, What::ClientHello(Box::new(hello)))
    }

    #[test]
    fn a_close_after_the_hello_cites_both() {
        let found = hello(Scene::open(), 3).acked(Side::Client, 3).fin(Side::Server, 5).check(&RULE).expect("hung up");
        assert_eq!(found.evidence[0].shows, "ClientHello www.example.com");
        assert_eq!(found.evidence[1].shows, "FIN 2 ms later: 0 octets, no alert");
        assert_eq!(found.not.len(), 2);
    }

    #[test]
    fn a_close_before_the_hello_is_the_same_symptom() {
        let found = hello(Scene::open().fin(Side::Server, 4), 54).check(&RULE).expect("hung up");
        assert_eq!(found.evidence[1].shows, "FIN 50 ms before the ClientHello: 0 octets");
    }

    #[test]
    fn three_seconds_are_a_proxy_without_a_backend() {
        let found = hello(Scene::open(), 3).fin(Side::Server, 3_008).check(&RULE).expect("hung up");
        assert!(found.notes[0].contains("once a second"));
    }

    #[test]
    fn an_alert_is_a_word() {
        let alert = What::AlertPlain(Alert { level: 2, description: 40 });
        let scene = hello(Scene::open(), 3).data(Side::Server, 4, 7).also(Side::Server, alert).fin(Side::Server, 5);
        assert!(scene.check(&RULE).is_none());
    }

    #[test]
    fn a_client_that_closes_first_was_not_hung_up_on() {
        assert!(hello(Scene::open(), 3).fin(Side::Client, 300).fin(Side::Server, 301).check(&RULE).is_none());
    }
}
