//! One end gave the whole HTTP/2 connection up with an error: GOAWAY, and every stream on it ends.
//!
//! ## How tcpwhy knows
//! A GOAWAY frame with an error code other than NO_ERROR, after HTTP/2 had begun. Requests that were open are listed: those above the last
//! stream that GOAWAY names were not worked on and can be sent again safely; of the others nobody knows how far they came. It is critical
//! when requests were open, else a warning: the next request needs a new connection, and that may end in the same way.
//!
//! ## What it is not
//! - A graceful goodbye: GOAWAY with NO_ERROR, at a restart, a drain, or the end of a connection's life.
//! - `h2-preface-failed`: there no stream had begun.
//! - `h2-stream-reset`: there one stream ends, and the connection lives.
//!
//! ## What people see
//! gRPC: "Received GOAWAY with error code ENHANCE_YOUR_CALM and debug data equal to too_many_pings", "http2: server sent GOAWAY and closed
//! the connection"; curl: "HTTP/2 stream was not closed cleanly"; browsers: ERR_HTTP2_PROTOCOL_ERROR.
//!
//! ## False alarms it avoids
//! NO_ERROR in every form. A client that leaves with an error code while nothing is open harms nobody: a notice.

use super::{ASK_PLAINLY, ASK_SERVER};
use crate::event::h2::{Farewell, Stream};
use crate::event::{Kind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::{Value, counted};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope};
use crate::wire::h2::{GoAway, error_name};

use super::h2_preface_failed::did_not_start;

pub static RULE: Rule = Rule {
    id: "h2-goaway-error",
    title: "one end gave the HTTP/2 connection up with an error",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::GoAway]),
    says: "{server} ended the HTTP/2 connection of {client_host} with {error}{words}",
    variants: &["{client_host} ended its HTTP/2 connection to {server} with {error}{words}"],
    users_see: &[
        "Received GOAWAY with error code ENHANCE_YOUR_CALM and debug data equal to too_many_pings",
        "http2: server sent GOAWAY and closed the connection",
        "HTTP/2 stream was not closed cleanly",
        "ERR_HTTP2_PROTOCOL_ERROR",
        "ERR_HTTP2_COMPRESSION_ERROR",
    ],
    do_first: ASK_SERVER,
    verify: ASK_PLAINLY,
    not: &[("network", "the frame names the error: a program decided to end the connection")],
    cannot_show: &["what the sender's code objected to, unless GOAWAY says it in words"],
    explains: &[Explains("h2-stream-reset", Scope::Same), Explains("grpc-error-status", Scope::Same)],
    sources: &["RFC 9113 §6.8, §7", "measured: gRPC 1.51, HAProxy 2.6, nghttpd 1.52"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (at, side, farewell) = flow.story.events().find_map(|e| match &e.what {
        What::GoAway(farewell) if farewell.away.code != 0 => Some((e.at, e.side, farewell.as_ref())),
        _ => None,
    })?;
    if did_not_start(flow) {
        return None;
    }
    let Farewell { away: GoAway { last, code, debug }, refused, waiting, answered } = farewell;
    let error = error_name(*code);
    let words = if debug.is_empty() { String::new() } else { format!(": {debug}") };
    let mut finding = RULE
        .found(flow, at, side, format!("GOAWAY {error}, last stream {last}{words}"))
        .severity(severity(side, farewell))
        .culprit(culprit(side, *code))
        .with("error", error)
        .with("words", Value::Packet(words))
        .variant(u8::from(side == Side::Client));
    for stream in refused.iter().chain(waiting).take(4) {
        finding = finding.and_maybe(stream.asked, Side::Client, format!("open: {}", stream.request));
    }
    if let Some(meaning) = meaning(*code, debug) {
        finding = finding.note(meaning);
    }
    if !refused.is_empty() {
        let list = listed(refused);
        finding = finding.note(format!("above stream {last} nothing was worked on, safe to send again: {list}"));
    }
    if !waiting.is_empty() {
        finding = finding.note(format!("open and of unknown outcome: {}", listed(waiting)));
    }
    Some(match *answered {
        0 => finding,
        n => finding.note(format!("{} answered on this connection before", counted(n as usize, "request"))),
    })
}

fn listed(streams: &[Stream]) -> String {
    let name = |stream: &Stream| format!("{} (stream {})", stream.request, stream.number);
    streams.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Whom it hurts.
fn severity(side: Side, farewell: &Farewell) -> Severity {
    let open = farewell.refused.len() + farewell.waiting.len();
    match side {
        _ if open > 0 => Severity::Critical,
        Side::Client => Severity::Notice,
        Side::Server => Severity::Warning,
    }
}

/// Codes by which the sender blames itself (INTERNAL_ERROR, REFUSED_STREAM, CANCEL, CONNECT_ERROR), the other side, or both settings.
fn culprit(sender: Side, code: u32) -> Culprit {
    let blamed = match code {
        2 | 7 | 8 | 0xa => sender,
        0xc | 0xd => return Culprit::Config,
        _ => sender.other(),
    };
    if blamed == Side::Client { Culprit::Client } else { Culprit::Server }
}

/// What is known of the most common ones.
fn meaning(code: u32, debug: &str) -> Option<&'static str> {
    Some(match code {
        0xb if debug.contains("too_many_pings") => {
            "the client's gRPC keepalive pings more often than the server permits (5 minutes unless configured): raise its keepalive time, \
             or permit the rate at the server"
        }
        0xb => "the sender protects itself from load of the other side",
        1 => "the sender saw a frame that the protocol forbids there",
        3 => "the sender was sent more octets than its window allowed",
        4 => "the sender's SETTINGS were not confirmed in time",
        6 => "the sender saw a frame of a wrong size",
        9 => {
            "the sender could not decode header fields: both ends disagree on the table, often behind a proxy that changes frames"
        }
        0xd => "the sender wants HTTP/1.1 for this",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;
    use crate::wire::h2::Settings;
    use crate::wire::http::ResponseHead;

    fn stream(number: u32) -> Stream {
        Stream { number, request: format!("GET /{number}"), ..Stream::default() }
    }

    fn away(side: Side, code: u32, open: &[u32], answered: u32) -> Scene {
        let farewell = Farewell {
            away: GoAway { last: 3, code, debug: "words".into() },
            refused: open.iter().filter(|number| **number > 3).copied().map(stream).collect(),
            waiting: open.iter().filter(|number| **number <= 3).copied().map(stream).collect(),
            answered,
        };
        let head = ResponseHead { status: 200, stream: 1, ..ResponseHead::default() };
        Scene::open()
            .data(Side::Client, 3, 64)
            .speaks(Side::Client, Protocol::Http2)
            .data(Side::Server, 4, 15)
            .speaks(Side::Server, Protocol::Http2)
            .also(Side::Server, What::Settings(Settings::default()))
            .also(Side::Server, What::Response(Box::new(head)))
            .data(side, 50, 30)
            .also(side, What::GoAway(Box::new(farewell)))
    }

    #[test]
    fn open_requests_make_it_critical_and_are_listed() {
        let finding = away(Side::Server, 2, &[3, 5], 1).check(&RULE).expect("an error");
        assert_eq!((finding.severity, finding.culprit), (Severity::Critical, Culprit::Server));
        assert_eq!(finding.notes[0], "above stream 3 nothing was worked on, safe to send again: GET /5 (stream 5)");
        assert_eq!(finding.notes[1], "open and of unknown outcome: GET /3 (stream 3)");
        assert_eq!(finding.evidence[0].shows, "GOAWAY INTERNAL_ERROR, last stream 3: words");
    }

    #[test]
    fn with_nothing_open_it_is_a_warning_and_from_a_client_a_notice() {
        assert_eq!(away(Side::Server, 11, &[], 7).check(&RULE).map(|f| f.severity), Some(Severity::Warning));
        let finding = away(Side::Client, 8, &[], 7).check(&RULE).expect("told");
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, 1));
    }

    #[test]
    fn a_graceful_goodbye_is_none() {
        assert_eq!(away(Side::Server, 0, &[5], 1).check(&RULE), None);
    }

    #[test]
    fn the_other_side_is_blamed_where_the_code_blames_it() {
        assert_eq!(culprit(Side::Server, 11), Culprit::Client);
        assert_eq!(culprit(Side::Client, 1), Culprit::Server);
        assert_eq!(culprit(Side::Client, 2), Culprit::Client);
        assert_eq!(culprit(Side::Server, 13), Culprit::Config);
    }
}
