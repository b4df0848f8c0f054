//! The server closed in the middle of its answer: fewer octets came than it had promised.
//!
//! ## How tcpwhy knows
//! The head of the answer names its length, or says that it comes in chunks, and the server sent FIN or RST before that many octets or
//! before the last chunk. The server closed first. The octets that are missing are counted where the length was named.
//!
//! ## What it is not
//! - `server-reset-mid-response`: there nobody knows how long the answer was to be, or nothing of it came.
//! - `reset-unread-data`: there the client was still sending when the server closed.
//! - `response-stalled`: there the answer stops and nobody closes.
//! - `client-abandoned`: there the client closes first.
//!
//! ## What people see
//! `curl: (18) transfer closed with outstanding read data remaining`, `ERR_CONTENT_LENGTH_MISMATCH`, `ERR_INCOMPLETE_CHUNKED_ENCODING`,
//! half a page, a download that cannot be opened. The access log says 200.
//!
//! ## False alarms it avoids
//! Answers to HEAD, 204 and 304 have no body whatever their fields say. Without a length the close is the end (HTTP/1.0). Where the capture
//! lost octets of the server nobody can count them.

use crate::event::{Kind, PacketRef, ResetKind, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Explains, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "http-response-truncated",
    title: "the response is shorter than promised",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::Request, Kind::Response, Kind::ResponseTruncated]),
    claims_absence: true,
    says: "{server} {did} in the middle of its answer {status} to {request}: {missing} octets are missing",
    variants: &["{server} {did} in the middle of its answer {status} to {request}: the last chunk never came"],
    users_see: &[
        "curl: (18) transfer closed with outstanding read data remaining",
        "ERR_CONTENT_LENGTH_MISMATCH",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
        "upstream prematurely closed connection while reading upstream",
        "IncompleteRead",
        "curl: (56) Recv failure: Connection reset by peer",
    ],
    do_first: &[
        Step {
            says: "On {host}: did the service crash, or end a worker, at that second?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
        Step {
            says: "On {host}: did the kernel kill it?",
            command: "sudo dmesg -T | grep -iE 'killed process|segfault|oom'",
        },
        Step { says: "On {host}: is a disk full, the temporary files' too?", command: "df -h" },
    ],
    verify: &[Step {
        says: "from the client's host; (18) means that it still breaks off:",
        command: "curl -sS -o /dev/null -m 60 http://{host}:{port}{path}",
    }],
    not: &[
        ("client-abandoned", "the server closed first"),
        ("network", "the server itself said that nothing more comes"),
    ],
    cannot_show: &["why the server stopped: a crash, a limit of time, a full disk, a file that shrank"],
    explains: &[Explains("http-response-truncated", Scope::Link)],
    sources: &["RFC 9112 §8", "measured: nginx whose file shrinks, a Python application, nginx in front of it"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let server = flow.server();
    let close = close(flow)?;
    if server.unseen + server.cut + server.held_dropped > 0 || flow.facts.mid_stream || sent_more(flow) {
        return None;
    }
    let exchange = flow.exchange()?;
    let (answer, head) = exchange.response.filter(|(_, head)| head.status != 101)?;
    let missing = flow.story.events().rev().find_map(|e| match e.what {
        What::ResponseTruncated { missing } if e.at >= answer && e.side == Side::Server => Some(missing),
        _ => None,
    })?;
    let request = format!("{} {}", exchange.head.method, exchange.head.target);
    let path = super::http_server_error::plain(&exchange.head.target);
    let after = close.time.since(answer.time);
    let word = flow.close_word(Side::Server);
    let shows = match missing {
        Some(missing) => format!("{word} {after} after the answer began: {missing} octets short of its Content-Length"),
        None => format!("{word} {after} after the answer began: before the last chunk"),
    };
    let last = server.last_payload.filter(|last| *last > answer && *last < close);
    let finding = RULE
        .found(flow, close, Side::Server, shows)
        .and(exchange.request, Side::Client, format!("the request: {request}"))
        .and(answer, Side::Server, format!("the answer begins: {}", head.status))
        .and_maybe(last, Side::Server, "its last octets")
        .with("after", after)
        .with("did", if word == "RST" { "reset the connection" } else { "closed" })
        .with("path", path)
        .with("request", request)
        .with("status", u64::from(head.status));
    Some(match missing {
        Some(missing) => finding.with("missing", missing),
        None => finding.variant(1),
    })
}

/// The server's FIN, or its RST of a live socket, when it closed first.
fn close(flow: &FlowView<'_>) -> Option<PacketRef> {
    let (_, close) = flow.facts.closer.filter(|(closer, _)| *closer == Side::Server)?;
    if flow.server().fin == Some(close) {
        return Some(close);
    }
    let reset = flow.facts.reset(Side::Server)?;
    (reset.at == close && reset.kind == ResetKind::Abort && reset.unread == 0).then_some(close)
}

/// The server's RST stands behind octets that the capture does not have: it had sent them.
fn sent_more(flow: &FlowView<'_>) -> bool {
    let server = flow.server();
    let (Some(isn), Some(reset)) = (server.isn, flow.facts.reset(Side::Server)) else { return false };
    reset.seq.after(isn.plus(1).plus(server.payload as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::Scene;

    fn begun() -> Scene {
        let scene = Scene::open().request(3, "GET", "/big", 80).acked(Side::Client, 4);
        scene.response(6, 200, 90).data(Side::Server, 7, 1448)
    }

    fn truncated(scene: Scene, missing: Option<u64>) -> Scene {
        scene.also(Side::Server, What::ResponseTruncated { missing })
    }

    #[test]
    fn a_fin_before_the_promised_length_counts_what_is_missing() {
        let finding = truncated(begun().fin(Side::Server, 20), Some(41_000)).check(&RULE).expect("truncated");
        assert_eq!(finding.evidence.iter().map(|e| e.at.number).collect::<Vec<_>>(), [8, 4, 6, 7]);
        assert!(finding.evidence[0].shows.contains("41000 octets short"), "{}", finding.evidence[0].shows);
    }

    #[test]
    fn a_reset_behind_octets_that_the_capture_lacks_proves_that_they_were_sent() {
        let mut scene = truncated(begun().rst(Side::Server, 20, ResetKind::Abort, 0), Some(716));
        let server = &mut scene.facts.from_server;
        let next = server.isn.expect("a SYN+ACK").plus(1).plus(server.payload as u32);
        server.resets[0].seq = next;
        assert!(scene.check(&RULE).is_some());
        scene.facts.from_server.resets[0].seq = next.plus(716);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_fin_before_the_last_chunk_says_so() {
        assert_eq!(truncated(begun().fin(Side::Server, 20), None).check(&RULE).expect("truncated").variant, 1);
    }

    #[test]
    fn a_whole_answer_is_none() {
        let scene = begun().also(Side::Server, What::ResponseEnd).fin(Side::Server, 20);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_client_that_left_is_another_story() {
        let scene = begun().fin(Side::Client, 15).fin(Side::Server, 20);
        assert_eq!(truncated(scene, Some(1)).check(&RULE), None);
    }

    #[test]
    fn a_reset_of_a_live_socket_is_a_close_and_another_reset_is_none() {
        let reset = |kind, unread| truncated(begun().rst(Side::Server, 20, kind, unread), Some(1)).check(&RULE);
        assert!(reset(ResetKind::Abort, 0).expect("truncated").evidence[0].shows.starts_with("RST"));
        assert_eq!((reset(ResetKind::Abort, 80), reset(ResetKind::Edge, 0)), (None, None));
    }

    #[test]
    fn octets_that_the_capture_lost_are_not_missing() {
        let mut scene = truncated(begun().fin(Side::Server, 20), Some(1448));
        scene.facts.from_server.unseen = 1448;
        assert_eq!(scene.check(&RULE), None);
    }
}
