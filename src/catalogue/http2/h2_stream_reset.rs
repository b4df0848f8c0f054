//! Streams of an HTTP/2 connection are reset: single requests fail while the connection lives on.
//!
//! ## How tcpwhy knows
//! RST_STREAM on a request whose answer was not complete. From a server: any error code, REFUSED_STREAM (above its limit) and
//! INTERNAL_ERROR (often a backend that broke off) being the usual ones. From a client: CANCEL on a request that had waited for at least
//! 1 s and 20 round trips without an answer, in gRPC when its `grpc-timeout` had passed; or an error that blames the server. A hundred
//! resets by a client within a second are a flood (CVE-2023-44487).
//!
//! ## What it is not
//! - `h2-goaway-error`: there the whole connection ends.
//! - `server-reset-mid-response`: there TCP was reset.
//! - `upstream-hang`: there the client still waits.
//!
//! ## What people see
//! curl: "HTTP/2 stream 1 was not closed cleanly: INTERNAL_ERROR (err 2)"; gRPC: DEADLINE_EXCEEDED at the caller, CANCELLED at the service,
//! "RST_STREAM with error code"; nginx: 499.
//!
//! ## False alarms it avoids
//! A client that cancels what is already flowing (a download, a watch, a page that is left), NO_ERROR behind an early answer (RFC 9113
//! §8.1), streams refused after a graceful GOAWAY, routes that wait on purpose.

use super::{ASK_PLAINLY, ASK_SERVER};
use crate::catalogue::app::poll;
use crate::event::h2::StreamReset;
use crate::event::{Event, Kind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::value::{Value, counted};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule};
use crate::time::Elapsed;
use crate::wire::h2::error_name;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
/// Resets in one second that no person or program needs.
const FLOOD: u32 = 100;
/// Timer and path may make a deadline that much shorter or longer than it was written.
const AROUND: Elapsed = Elapsed::millis(50);

pub static RULE: Rule = Rule {
    id: "h2-stream-reset",
    title: "streams of an HTTP/2 connection are reset",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::StreamReset]),
    says: "{server} reset {request} of {client_host} with {error}",
    variants: &[
        "{client_host} gave {request} up after {wait}: {server} had not answered",
        "{client_host} opened and reset at least {count} streams of {server} within a second",
        "{client_host} reset {request} to {server} with {error}",
    ],
    users_see: &[
        "HTTP/2 stream 1 was not closed cleanly: INTERNAL_ERROR (err 2)",
        "DEADLINE_EXCEEDED",
        "RST_STREAM with error code",
        "stream terminated by RST_STREAM",
        "499",
    ],
    do_first: ASK_SERVER,
    verify: ASK_PLAINLY,
    not: &[("network", "the frame names the reason: a program decided it")],
    cannot_show: &["why its sender decided so"],
    sources: &[
        "RFC 9113 §5.4.2, §6.4, §7, §8.1",
        "CVE-2023-44487",
        "measured: nginx 1.22, nghttpd 1.52, gRPC 1.51, curl 7.88",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// What a reset is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    GaveUp(Elapsed),
    Blames,
    Server,
    Flood,
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let resets = flow.story.events().filter_map(|e| match &e.what {
        What::StreamReset(reset) => Some((e, reset.as_ref())),
        _ => None,
    });
    let sorted: Vec<_> = resets.filter_map(|(event, reset)| Some((sort(flow, event, reset)?, event, reset))).collect();
    let worst = sorted.iter().map(|(sort, ..)| rank(*sort)).max()?;
    let of_worst = || sorted.iter().filter(|(sort, ..)| rank(*sort) == worst);
    // The latest of a flood tells how large it was.
    let (sort, event, reset) = *if worst == rank(Sort::Flood) { of_worst().next_back() } else { of_worst().next() }?;
    let stream = &reset.stream;
    let error = error_name(reset.code);
    let request = if stream.request.is_empty() { format!("stream {}", stream.number) } else { stream.request.clone() };
    let finding = RULE
        .found(flow, event.at, event.side, format!("RST_STREAM {error}, stream {}", stream.number))
        .and_maybe(stream.asked, Side::Client, format!("the request: {request}"))
        .with("error", error)
        .with("request", Value::Packet(request));
    let alike = of_worst().count();
    let finding = match alike {
        _ if worst == rank(Sort::Flood) => finding,
        1 => finding,
        _ => finding.note(format!("{} of that kind are told of this connection", counted(alike, "reset"))),
    };
    Some(match sort {
        Sort::Server => by_server(finding, reset),
        Sort::GaveUp(wait) => gave_up(finding, reset, wait),
        Sort::Flood => finding
            .culprit(Culprit::Client)
            .with("count", reset.in_second)
            .note("each costs the server work that nobody waits for: the pattern of CVE-2023-44487")
            .variant(2),
        Sort::Blames => finding.culprit(Culprit::Server).variant(3),
    })
}

fn rank(sort: Sort) -> u8 {
    match sort {
        Sort::GaveUp(_) => 0,
        Sort::Blames => 1,
        Sort::Server => 2,
        Sort::Flood => 3,
    }
}

/// `None` for the usual ends of streams.
fn sort(flow: &FlowView<'_>, event: &Event, reset: &StreamReset) -> Option<Sort> {
    let stream = &reset.stream;
    if event.side == Side::Client && reset.in_second >= FLOOD {
        return Some(Sort::Flood);
    }
    let asked = stream.asked.filter(|_| !stream.answer_ended && reset.code != 0)?;
    match (event.side, reset.code) {
        (Side::Server, REFUSED_STREAM) if reset.leaving => None,
        (Side::Server, _) => Some(Sort::Server),
        (Side::Client, CANCEL) => {
            let wait = event.at.time.since(stream.request_end.unwrap_or(asked).time);
            let meant = match (stream.grpc, stream.patience) {
                (true, Some(patience)) => wait + AROUND >= patience,
                (true, None) => false,
                (false, _) => stream.request_end.is_some() && !poll::named(&stream.request),
            };
            (patience::patient(flow, wait) && meant && !stream.answered).then_some(Sort::GaveUp(wait))
        }
        // PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR.
        (Side::Client, 1..=3 | 6 | 9) => Some(Sort::Blames),
        (Side::Client, _) => None,
    }
}

fn by_server(finding: Finding, reset: &StreamReset) -> Finding {
    match reset.code {
        REFUSED_STREAM => finding.note("a refused stream was not worked on: it is safe to send again").note(
            "usually more streams than the server's SETTINGS permit at once, sent before the client had read them",
        ),
        _ if reset.stream.answered => finding.note("the answer had begun: what was received of it is not whole"),
        _ => finding,
    }
}

fn gave_up(finding: Finding, reset: &StreamReset, wait: Elapsed) -> Finding {
    let finding = finding.culprit(Culprit::Upstream).with("wait", wait).variant(1);
    match reset.stream.patience {
        Some(patience) => {
            finding.note(format!("the call's own deadline was {patience}: its caller sees DEADLINE_EXCEEDED"))
        }
        None => finding.confidence(Confidence::Medium).note("whether an answer would have come cannot be known"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::h2::Stream;
    use crate::event::{PacketRef, Protocol};
    use crate::rule::testing::Scene;

    fn asked() -> Scene {
        Scene::open().data(Side::Client, 3, 64).speaks(Side::Client, Protocol::Http2).acked(Side::Client, 4)
    }

    fn stream(scene: &Scene) -> Stream {
        let at = scene.facts.from_client.first_payload;
        Stream { number: 1, asked: at, request: "GET /a".into(), request_end: at, ..Stream::default() }
    }

    fn reset(scene: Scene, ms: i64, side: Side, code: u32, stream: Stream) -> Scene {
        let reset = StreamReset { stream, code, nth: 1, in_second: 1, leaving: false };
        scene.data(side, ms, 13).also(side, What::StreamReset(Box::new(reset)))
    }

    fn found(ms: i64, side: Side, code: u32, change: impl FnOnce(Stream) -> Stream) -> Option<Finding> {
        let stream = change(stream(&asked()));
        reset(asked(), ms, side, code, stream).check(&RULE)
    }

    #[test]
    fn a_servers_error_and_refusal_are_told() {
        let finding = found(9, Side::Server, 2, |stream| stream).expect("an error");
        assert_eq!(finding.evidence[0].shows, "RST_STREAM INTERNAL_ERROR, stream 1");
        assert_eq!((finding.evidence[1].at.number, finding.variant), (4, 0));
        let refused = found(9, Side::Server, 7, |stream| stream).expect("refused");
        assert!(refused.notes[0].contains("safe to send again"));
    }

    #[test]
    fn a_whole_answer_and_no_error_are_no_fault() {
        assert_eq!(found(9, Side::Server, 8, |stream| Stream { answered: true, answer_ended: true, ..stream }), None);
        assert_eq!(found(9, Side::Server, 0, |stream| Stream { answered: true, ..stream }), None);
        assert_eq!(found(9, Side::Server, 2, |stream| Stream { asked: None, ..stream }), None, "nobody knows which");
    }

    #[test]
    fn a_refusal_after_a_graceful_goodbye_is_announced() {
        let leaving = StreamReset { stream: stream(&asked()), code: 7, nth: 1, in_second: 1, leaving: true };
        let scene = asked().data(Side::Server, 9, 13).also(Side::Server, What::StreamReset(Box::new(leaving)));
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_waited_gave_up_and_one_that_cancels_did_not() {
        let finding = found(2_003, Side::Client, CANCEL, |stream| stream).expect("given up");
        assert_eq!((finding.variant, finding.confidence), (1, Confidence::Medium));
        assert_eq!(finding.values.get("wait"), Some(&Value::Elapsed(Elapsed::secs(2))));
        assert_eq!(found(500, Side::Client, CANCEL, |stream| stream), None, "too soon");
        assert_eq!(
            found(9_000, Side::Client, CANCEL, |stream| Stream { answered: true, ..stream }),
            None,
            "a download"
        );
        let watch = |stream| Stream { request: "GET /watch".into(), ..stream };
        assert_eq!(found(9_000, Side::Client, CANCEL, watch), None, "it waits on purpose");
    }

    #[test]
    fn a_call_is_given_up_at_its_deadline_only() {
        let call = |patience| move |stream| Stream { grpc: true, patience, ..stream };
        let finding = found(1_993, Side::Client, CANCEL, call(Some(Elapsed::secs(2)))).expect("its deadline");
        assert_eq!((finding.variant, finding.confidence), (1, Confidence::Certain));
        assert_eq!(found(1_993, Side::Client, CANCEL, call(Some(Elapsed::secs(30)))), None);
        assert_eq!(found(90_000, Side::Client, CANCEL, call(None)), None, "a stream of events");
    }

    #[test]
    fn a_hundred_in_a_second_are_a_flood() {
        let at = PacketRef { file: 0, number: 4, time: asked().facts.last.time };
        let reset = StreamReset {
            stream: Stream { asked: Some(at), ..Stream::default() },
            code: CANCEL,
            nth: 100,
            in_second: 100,
            leaving: false,
        };
        let scene = asked().data(Side::Client, 9, 1300).also(Side::Client, What::StreamReset(Box::new(reset)));
        let finding = scene.check(&RULE).expect("a flood");
        assert_eq!((finding.variant, finding.culprit), (2, Culprit::Client));
    }
}
