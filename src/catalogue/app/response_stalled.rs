//! The answer started, then stopped: the server's program sends no more of what it promised.
//!
//! ## How tcpwhy knows
//! The head of the response promises more than came (its length, or a chunk that ends the body), everything that was sent is acknowledged,
//! the client's window is open, and for 10 s nothing more came: up to the end of the capture, until somebody closed, or until it went on
//! after all. A client that gives up earlier counts if the silence lasted for at least 1 s and 20 round trips.
//!
//! ## What it is not
//! - `zero-window`: there the client does not read.
//! - `packet-loss`, `rto-unrecovered`: there octets are under way and not acknowledged.
//! - `upstream-hang`: there no answer began.
//!
//! ## What people see
//! "curl: (28) Operation timed out after 15001 milliseconds with 30000 out of 100000 bytes received"; a browser that hangs at 30 %.
//!
//! ## False alarms it avoids
//! Event streams and upgraded connections, answers that trickle, bodies without a promised end, and captures that lost or cut packets.

use crate::event::PacketRef;
use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;
use crate::wire::http::Framing;

use super::poll;

pub static RULE: Rule = Rule {
    id: "response-stalled",
    title: "the answer started, then stopped",
    severity: Severity::Critical,
    confidence: Confidence::High,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::Request, Kind::Response]),
    claims_absence: true,
    says: "{server} stopped in the middle of its answer to {client_host}: {got} octets came, then nothing for {wait}",
    variants: &["{server} paused for {wait} in the middle of its answer to {client_host}"],
    users_see: &[
        "curl: (28) Operation timed out after 15001 milliseconds with 30000 out of 100000 bytes received",
        "a download or page that hangs at some percent",
        "upstream timed out (110: Connection timed out) while reading upstream",
    ],
    do_first: &[Step {
        says: "On {host}: which upstream, disk or lock does its program wait for? Its connections, with their timers:",
        command: "sudo ss -tnpo state established",
    }],
    verify: &[Step {
        says: "from {client_host}; a (28) with \"out of … bytes received\" shows it:",
        command: "curl -sS -o /dev/null -m 30 http://{host}:{port}/",
    }],
    not: &[
        ("rto-unrecovered", "everything that was sent is acknowledged"),
        ("zero-window", "the client's window is open"),
    ],
    cannot_show: &["what the server's program waits for"],
    sources: &["RFC 9112 §6.3", "RFC 9112 §8"],
    check: Check::Flow(check),
    spoke_late: Some(spoke_late),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let exchange = flow.exchange()?;
    let begun = flow.pending().and_then(|pending| pending.begun)?;
    let (_, head) = exchange.response?;
    let promised = matches!(head.framing_after(&exchange.head.method), Framing::Length(_) | Framing::Chunked);
    let hidden = flow.client().cut + flow.server().cut > 0;
    if !promised || exchange.is_push() || hidden || poll::named(&exchange.head.target) {
        return None;
    }
    let server = flow.server();
    let last = server.last_payload.filter(|last| *last >= begun)?;
    let all_arrived = server.unacknowledged.is_none_or(|waits| waits.len == 0);
    let closed = flow.client().zero_windows.iter().any(|zero| zero.until.is_none_or(|until| until > last));
    if !all_arrived || closed {
        return None;
    }
    let wait = flow.waited_since(last);
    let gave_up = patience::client_gave_up(flow, last, wait).is_some();
    // A server that closes has not stalled: it broke off.
    let open = flow.facts.closer.is_none_or(|(side, _)| side == Side::Client);
    if !open || wait < flow.thresholds.hang && !gave_up {
        return None;
    }
    let finding = RULE
        .found(flow, last, Side::Server, "the last octets of the answer")
        .and(begun, Side::Server, format!("{} begins", head.status))
        .and_maybe(flow.client().last.filter(|ack| *ack > last), Side::Client, "acknowledged: nothing is under way")
        .severity(if wait >= flow.thresholds.hang { Severity::Critical } else { Severity::Warning })
        .confidence(if wait >= flow.thresholds.hang { Confidence::High } else { Confidence::Medium })
        .with("got", Value::Octets(server.payload))
        .with("wait", wait);
    Some(match flow.facts.closer {
        Some((side, close)) => {
            finding.and(close, side, format!("{} {wait} later: the client gives up", flow.close_word(side)))
        }
        None => finding.with("until", flow.now),
    })
}

/// It went on: a pause, not an end.
fn spoke_late(finding: Finding, at: PacketRef) -> Finding {
    let stopped = finding.evidence.first().map_or(finding.first(), |last| last.at);
    let wait = at.time.since(stopped.time);
    finding
        .and(at, Side::Server, format!("the answer goes on after {wait}"))
        .with("wait", wait)
        .with("over", Value::Frame(at))
        .severity(if wait >= Elapsed::secs(60) { Severity::Warning } else { Severity::Notice })
        .variant(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;
    use crate::wire::http::{RequestHead, ResponseHead};

    fn begun(kind: Option<&str>) -> Scene {
        let request = RequestHead { method: "GET".into(), target: "/file".into(), minor: 1, ..Default::default() };
        let response = ResponseHead {
            status: 200,
            minor: 1,
            content_type: kind.map(Into::into),
            framing: Framing::Length(100_000),
            ..Default::default()
        };
        Scene::open()
            .data(Side::Client, 3, 60)
            .speaks(Side::Client, crate::event::Protocol::Http)
            .also(Side::Client, What::Request(Box::new(request)))
            .also(Side::Client, What::RequestEnd)
            .acked(Side::Client, 4)
            .data(Side::Server, 5, 1448)
            .also(Side::Server, What::Response(Box::new(response)))
            .acked(Side::Server, 6)
    }

    #[test]
    fn a_body_that_stops_for_ten_seconds_is_told_with_its_last_octets() {
        let finding = begun(None).capture_ends(12_005).check(&RULE).expect("stalled");
        assert_eq!((finding.severity, finding.evidence[0].at.number), (Severity::Critical, 6));
        assert_eq!(begun(None).capture_ends(9_000).check(&RULE), None);
    }

    #[test]
    fn a_client_that_gives_up_after_three_seconds_of_silence_counts() {
        let finding = begun(None).fin(Side::Client, 3_006).check(&RULE).expect("given up");
        assert_eq!((finding.severity, finding.confidence), (Severity::Warning, Confidence::Medium));
    }

    #[test]
    fn an_event_stream_pauses_for_its_events() {
        assert_eq!(begun(Some("text/event-stream")).capture_ends(90_000).check(&RULE), None);
    }

    #[test]
    fn octets_under_way_belong_to_the_loss_rules_and_a_closed_window_to_the_reader() {
        let lost = begun(None).data(Side::Server, 7, 1448).capture_ends(90_000);
        assert_eq!(lost.check(&RULE), None);
        let unread = begun(None).zero_window(Side::Client, 7).capture_ends(90_000);
        assert_eq!(unread.check(&RULE), None);
    }

    #[test]
    fn a_server_that_closes_has_not_stalled() {
        assert_eq!(begun(None).fin(Side::Server, 20_000).check(&RULE), None);
    }
}
