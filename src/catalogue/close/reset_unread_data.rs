//! The server closed while the client was still sending: the RST may destroy the answer before the client reads it.
//!
//! ## How tcpwhy knows
//! The server aborted (RST+ACK), or closed and then answered further octets with RST, although it had not taken the whole request: the
//! request's framing was not satisfied, or octets of the client lie beyond the RST's acknowledgment, or the server aborted without a
//! word after octets that are no complete request. Linux sends this RST when a program closes a socket with octets unread.
//!
//! ## What it is not
//! - A crash: the server decided to close, often after a proper answer such as 413, 401 or 400.
//! - `server-reset-mid-response`: there the request was complete and the answer was missing.
//!
//! ## What people see
//! `ECONNRESET` or `EPIPE` while uploading, instead of the "413 Request Entity Too Large" the server did send.
//!
//! ## False alarms it avoids
//! A client that sends a few late octets after a complete exchange is answered with RST as well: that harms nobody. A server that reads
//! the rest and throws it away (nginx `lingering_close`) closes without RST.

use crate::event::{Kind, Protocol, ResetKind, Side};
use crate::flow::facts::Reset;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Fix, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "reset-unread-data",
    title: "the server closed while the client was still sending: the RST may destroy the answer",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Reset]),
    symptom: true,
    says: "{server} answered {status} and reset the connection while the client was still sending",
    variants: &["{server} aborted the connection with {unread} octets of the client unread, without a word"],
    users_see: &["ECONNRESET", "EPIPE", "Broken pipe", "Connection reset by peer", "413 Request Entity Too Large"],
    do_first: &[Step {
        says: "On {host}: what did the service log when it closed this connection?",
        command: "sudo journalctl --since '15 min ago' -p info",
    }],
    fix: &[Fix {
        says: "Let the server read the rest of the request before it closes: nginx lingering_close on; elsewhere read the body.",
        command: "",
        risk: "the server spends its time and bandwidth on octets that it throws away",
    }],
    verify: &[Step {
        says: "from the client's host, a large upload; it should print the status, not a reset:",
        command: "head -c 20000000 /dev/zero | curl -sS -o /dev/null -m 60 -w '%{response_code}\\n' -T - http://{host}:{port}/",
    }],
    not: &[
        ("server-reset-mid-response", "the server had not taken the whole request"),
        ("stray-reset", "the RST belongs to a close by the server that this capture holds"),
    ],
    cannot_show: &["whether the client could read the answer before the RST arrived"],
    explains: &[Explains("server-reset-mid-response", Scope::Same), Explains("http-request-incomplete", Scope::Same)],
    sources: &["RFC 9112 §9.6", "RFC 2525 §2.17", "measured on Linux: close() with 100 octets unread sends RST+ACK"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Octets that a socket takes before its program reads (Linux: `tcp_rmem`, 6 MiB at most unless set otherwise).
const LARGEST_BUFFER: u64 = 6 << 20;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if !flow.closed_first(Side::Server) || matches!(flow.protocol(Side::Client), Some(Protocol::Tls)) {
        return None;
    }
    let resets = &flow.server().resets;
    let reset = resets.iter().find(|reset| matches!(reset.kind, ResetKind::Abort | ResetKind::AfterFin))?;
    answered_too_early(flow, reset).or_else(|| aborted(flow, reset))
}

/// The answer was sent, the request was not whole, and the server closed.
fn answered_too_early(flow: &FlowView<'_>, reset: &Reset) -> Option<Finding> {
    let exchange = flow.exchange().filter(|_| flow.client().unseen == 0)?;
    let (answer, head) = exchange.response?;
    let whole = exchange.request_end.is_some_and(|end| end < reset.at);
    // A whole request and a RST+ACK with unread octets: the client had begun something else.
    if whole && (reset.kind != ResetKind::Abort || reset.unread == 0) {
        return None;
    }
    let shows = match reset.kind {
        ResetKind::AfterFin => "RST in answer to octets that came after the close",
        _ => "RST+ACK: closed with octets unread",
    };
    Some(
        RULE.found(flow, reset.at, Side::Server, shows)
            .and(exchange.request, Side::Client, "the request begins; its body goes on")
            .and(answer, Side::Server, format!("{} is sent before the request is whole", head.status))
            .and_maybe(flow.server().fin, Side::Server, "FIN")
            .and_maybe(flow.client().last_payload, Side::Client, "the client still sends")
            .with("status", u64::from(head.status))
            .with("unread", Value::Octets(flow.client().payload)),
    )
}

/// No answer at all: a live socket was aborted with the client's octets in its buffer.
fn aborted(flow: &FlowView<'_>, reset: &Reset) -> Option<Finding> {
    let client = flow.client();
    let speechless = flow.server().payload == 0 && client.acknowledged > 0;
    let asked = flow.exchange().is_some_and(|exchange| exchange.request_end.is_some());
    let unknown =
        matches!(flow.protocol(Side::Client), None | Some(Protocol::Unknown | Protocol::Http | Protocol::Proxy));
    // More than any buffer holds: it was read, and who has read all may end so (iperf3 does).
    let read = reset.unread == 0 && client.payload > LARGEST_BUFFER;
    if reset.kind != ResetKind::Abort || !speechless || asked || !unknown || read {
        return None;
    }
    let first = client.first_payload.filter(|first| *first < reset.at)?;
    let finding = RULE
        .found(flow, reset.at, Side::Server, "RST+ACK: a live socket was aborted, no octet was sent")
        .and(first, Side::Client, "first octets of the client")
        .with("status", "nothing")
        .with("unread", Value::Octets(client.payload))
        .variant(1);
    Some(if reset.unread > 0 {
        finding
            .note(format!("{} octets lie beyond the RST's acknowledgment: the client was still sending", reset.unread))
    } else {
        finding
            .confidence(Confidence::Medium)
            .note("a program that closes on purpose with RST (SO_LINGER 0), or dies, looks the same")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;
    use crate::wire::http::RequestHead;

    /// A request whose body is not complete.
    fn upload() -> Scene {
        let head = RequestHead { method: "POST".into(), len: 64, ..Default::default() };
        Scene::open()
            .data(Side::Client, 3, 64)
            .speaks(Side::Client, Protocol::Http)
            .also(Side::Client, What::Request(Box::new(head)))
            .data(Side::Client, 4, 4000)
            .acked(Side::Client, 5)
    }

    #[test]
    fn an_answer_and_a_reset_in_the_middle_of_an_upload_are_cited() {
        let scene = upload().response(6, 413, 67).rst(Side::Server, 7, ResetKind::Abort, 0);
        let finding = scene.check(&RULE).expect("unread data");
        assert_eq!(finding.values.get("status"), Some(&Value::Count(413)));
        assert_eq!(finding.evidence[0].at.number, 8);
    }

    #[test]
    fn octets_after_the_servers_fin_are_answered_with_a_reset() {
        let scene = upload().response(6, 413, 67).fin(Side::Server, 7).data(Side::Client, 8, 1448).rst(
            Side::Server,
            9,
            ResetKind::AfterFin,
            1448,
        );
        assert!(scene.check(&RULE).is_some());
    }

    #[test]
    fn an_abort_without_a_word_leaves_the_octets_unread() {
        let scene = Scene::open().data(Side::Client, 3, 100).acked(Side::Client, 4);
        let finding = scene.rst(Side::Server, 300, ResetKind::Abort, 0).check(&RULE).expect("unread data");
        assert_eq!((finding.variant, finding.confidence), (1, Confidence::Medium));
        assert_eq!(finding.values.get("unread"), Some(&Value::Octets(100)));
    }

    #[test]
    fn what_no_buffer_holds_was_read() {
        let mut scene = Scene::open().data(Side::Client, 3, 100).acked(Side::Client, 4);
        scene.facts.from_client.payload = LARGEST_BUFFER + 1;
        assert_eq!(scene.rst(Side::Server, 300, ResetKind::Abort, 0).check(&RULE), None);
    }

    #[test]
    fn late_octets_after_a_whole_exchange_harm_nobody() {
        let scene = Scene::open()
            .request(3, "GET", "/", 41)
            .response(4, 200, 40)
            .also(Side::Server, What::ResponseEnd)
            .fin(Side::Server, 5)
            .data(Side::Client, 60, 4)
            .rst(Side::Server, 61, ResetKind::AfterFin, 4);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn octets_after_a_silent_close_are_answered_by_the_kernel() {
        let scene = Scene::open()
            .data(Side::Client, 3, 2)
            .acked(Side::Client, 4)
            .fin(Side::Server, 5)
            .data(Side::Client, 200, 4)
            .rst(Side::Server, 201, ResetKind::AfterFin, 4);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_whole_request_without_answer_was_reset_mid_response() {
        let scene = Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4);
        assert_eq!(scene.rst(Side::Server, 200, ResetKind::Abort, 0).check(&RULE), None);
    }
}
