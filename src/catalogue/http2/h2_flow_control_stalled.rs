//! A stream of HTTP/2 stands still: its sender used up the window, and the receiver does not open it.
//!
//! ## How tcpwhy knows
//! Every DATA frame and every WINDOW_UPDATE of the connection was counted from its beginning: the window of the stream, or of the whole
//! connection, is at zero, the stream has not ended, and nothing opened it for 10 s. TCP's own window is open. From 60 s on it is critical.
//!
//! ## What it is not
//! - `zero-window`: there TCP itself is stopped, and with it every stream.
//! - `response-stalled`: there the sender could go on and does not.
//! - `upstream-hang`: there no answer had begun.
//!
//! ## What people see
//! A download or a stream of messages that stops at 64 KiB, or after exactly as many octets each time; other requests of the connection
//! still work if only one stream's window is closed.
//!
//! ## False alarms it avoids
//! Windows that open again within 10 s, streams that ended or were reset, connections whose beginning or a part was not captured: there the
//! windows are not known.

use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::Value;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "h2-flow-control-stalled",
    title: "a stream of HTTP/2 waits for its receiver to open the window",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::StreamWindowClosed]),
    claims_absence: true,
    says: "{receiver} does not read {request}: {sender} has sent all that the HTTP/2 window allows, and waits for {wait}",
    users_see: &["a download stops at 64 KiB", "stream stalls, other requests go on", "curl: (28) Operation too slow"],
    do_first: &[
        Step {
            says: "On {receiver_host}: is the process that should read busy, blocked or paused? CPU time and state:",
            command: "ps -eo pid,stat,time,wchan:20,args --sort=-time",
        },
        Step {
            says: "On {receiver_host}: does its kernel hold octets that nobody reads? A Recv-Q above 0 says yes:",
            command: "ss -tn state established",
        },
    ],
    verify: &[Step {
        says: "from {client_host}; the octets that came before it stands still:",
        command: "curl -sS -o /dev/null -m 30 -w '%{size_download}\\n' http://{host}:{port}/",
    }],
    not: &[("zero-window", "TCP's own window is open")],
    cannot_show: &["why the receiver's program does not read"],
    sources: &["RFC 9113 §5.2, §6.9", "measured: nghttpd 1.52 and a client that sends no WINDOW_UPDATE"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, side, stream, whole) = closed(flow)?;
    let receiver = side.other();
    let wait = flow.waited_since(at);
    let stopped = flow.facts.half(receiver).zero_window_count > 0;
    if wait < flow.thresholds.hang || stopped || flow.client().unseen + flow.server().unseen > 0 {
        return None;
    }
    let ends = [flow.facts.client, flow.facts.server];
    let (sender, taker) = if side == Side::Client { (ends[0], ends[1]) } else { (ends[1], ends[0]) };
    let all = exchanges(flow.story);
    let asked = all.iter().rfind(|one| one.head.stream == stream);
    let request = asked.map_or(format!("stream {stream}"), |one| {
        format!("{} {}", one.head.method, one.head.target.split('?').next().unwrap_or(""))
    });
    let which = if whole { "of the whole connection" } else { "of the stream" };
    let finding = RULE
        .found(flow, at, side, format!("the window {which} is used up, stream {stream}"))
        .and_maybe(asked.map(|one| one.request), Side::Client, format!("the request: {request}"))
        .and_maybe(acknowledged(flow, receiver, at), receiver, "acknowledged: TCP goes on, no WINDOW_UPDATE")
        .severity(if wait >= flow.thresholds.hang_critical { Severity::Critical } else { Severity::Warning })
        .culprit(if receiver == Side::Client { Culprit::Client } else { Culprit::Server })
        .with("request", Value::Packet(request))
        .with("receiver", taker)
        .with("receiver_host", taker.address)
        .with("sender", sender)
        .with("wait", wait);
    Some(match whole {
        true => finding.note("every stream of the connection waits: the window is the connection's"),
        false => finding,
    })
}

/// The latest window that was closed and not opened again.
fn closed(flow: &FlowView<'_>) -> Option<(PacketRef, Side, u32, bool)> {
    let mut closed = None;
    for event in flow.story.events() {
        match (&event.what, closed) {
            (What::StreamWindowClosed { stream, whole }, _) => {
                closed = Some((event.at, event.side, *stream, *whole));
            }
            (What::StreamWindowOpened { stream, .. } | What::StreamEnd { stream }, Some((_, _, number, _)))
                if *stream == number =>
            {
                closed = None;
            }
            (What::StreamReset(reset), Some((at, side, number, whole))) if reset.stream.number == number => {
                // A client that gives up after a long wait proves it as well as the capture's end.
                let waited = event.at.time.since(at.time) >= flow.thresholds.hang;
                closed = waited.then_some((at, side, number, whole));
            }
            _ => {}
        }
    }
    closed
}

/// The receiver's kernel took the octets.
fn acknowledged(flow: &FlowView<'_>, receiver: Side, at: PacketRef) -> Option<PacketRef> {
    flow.facts.half(receiver).last.filter(|last| *last > at && flow.facts.closer.is_none_or(|(_, close)| *last < close))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;
    use crate::time::Elapsed;
    use crate::wire::http::RequestHead;

    fn download() -> Scene {
        let head =
            RequestHead { method: "GET".into(), target: "/large?key=1".into(), stream: 1, ..RequestHead::default() };
        Scene::open()
            .data(Side::Client, 3, 64)
            .speaks(Side::Client, Protocol::Http2)
            .also(Side::Client, What::Request(Box::new(head)))
            .data(Side::Server, 5, 1448)
            .speaks(Side::Server, Protocol::Http2)
            .also(Side::Server, What::StreamWindowClosed { stream: 1, whole: false })
            .acked(Side::Server, 6)
    }

    #[test]
    fn ten_seconds_are_a_warning_and_a_minute_is_critical() {
        let finding = download().capture_ends(15_005).check(&RULE).expect("stalled");
        let cited: Vec<u64> = finding.evidence.iter().map(|told| told.at.number).collect();
        assert_eq!((finding.severity, cited), (Severity::Warning, vec![5, 4, 6]));
        assert_eq!(finding.values.get("request"), Some(&Value::Packet("GET /large".into())));
        assert_eq!(finding.values.get("wait"), Some(&Value::Elapsed(Elapsed::secs(15))));
        let minute = download().capture_ends(60_005).check(&RULE).expect("stalled");
        assert_eq!((minute.severity, minute.culprit), (Severity::Critical, Culprit::Client));
        assert_eq!(download().capture_ends(9_000).check(&RULE), None);
    }

    #[test]
    fn a_window_that_opened_and_a_stream_that_ended_do_not_wait() {
        let opened = What::StreamWindowOpened { stream: 1, after: Elapsed::secs(2) };
        let going_on = download().data(Side::Client, 2_005, 13).also(Side::Client, opened);
        assert_eq!(going_on.capture_ends(60_000).check(&RULE), None);
        let ended = download().data(Side::Server, 900, 9).also(Side::Server, What::StreamEnd { stream: 1 });
        assert_eq!(ended.capture_ends(60_000).check(&RULE), None);
    }

    #[test]
    fn a_closed_window_of_tcp_is_another_rules() {
        assert_eq!(download().zero_window(Side::Client, 7).capture_ends(60_000).check(&RULE), None);
    }
}
