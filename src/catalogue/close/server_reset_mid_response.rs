//! The server aborted the connection while a request waited for its answer, or in the middle of the answer.
//!
//! ## How tcpwhy knows
//! The server sent RST+ACK at its own next sequence number, so a live socket was aborted. Nobody had closed before, and the latest
//! request had no answer yet or only a part of it. In HTTP the framing of the messages proves that; elsewhere the client spoke last.
//!
//! ## What it is not
//! - `middlebox-reset`: there the RST has another TTL or does not fit the sequence.
//! - `stray-reset`: there the host does not know the connection (RST without ACK).
//! - `reset-unread-data`: there the client was still sending when the server closed.
//! - `idle-flow-expired`, `http-keepalive-race`: there a pause or a close of the server came before the request.
//!
//! ## What people see
//! `curl: (56) Recv failure: Connection reset by peer`, nginx's 502 with `recv() failed (104: Connection reset by peer)`.
//!
//! ## False alarms it avoids
//! A RST after a FIN of either side is the end of a close. A RST on a connection with nothing outstanding is a way to close an idle one.

use crate::event::{Kind, Protocol, ResetKind, Side};
use crate::flow::facts::Close;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "server-reset-mid-response",
    title: "the server aborted the connection while answering",
    severity: Severity::Critical,
    confidence: Confidence::Certain,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::FirstPayload, Kind::Reset]),
    symptom: true,
    says: "{server} reset the connection {after} after the request, without one octet of an answer",
    variants: &[
        "{server} reset the connection in the middle of its answer, {after} after the request",
        "{server} reset the connection {after} after the request: what it had sent could not be read as a whole answer",
    ],
    users_see: &[
        "curl: (56) Recv failure: Connection reset by peer",
        "Connection reset by peer",
        "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        "ECONNRESET",
    ],
    do_first: &[
        Step {
            says: "On {host}: did the kernel kill the service, or did it crash, at that second?",
            command: "sudo dmesg -T | grep -iE 'killed process|segfault|oom'",
        },
        Step {
            says: "On {host}: what did the service log, and was it restarted?",
            command: "sudo journalctl --since '15 min ago' -p warning",
        },
    ],
    verify: &[Step {
        says: "from the client's host; (56) means that it still resets:",
        command: "curl -sS -o /dev/null -m 30 http://{host}:{port}/",
    }],
    not: &[
        ("stray-reset", "the RST acknowledges the client's octets: the host knows the connection"),
        ("middlebox-reset", "the RST fits the server's sequence numbers and TTL"),
        ("client-abandoned", "the client had closed nothing"),
    ],
    cannot_show: &[
        "why the server aborted: a crash, a worker killed by its timeout, or a close meant that way (SO_LINGER 0)",
    ],
    sources: &["RFC 9293 §3.6, §3.10.7.4", "measured on Linux: abort is RST+ACK at the sender's next sequence number"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.facts.close != Close::Reset(Side::Server, ResetKind::Abort) || !flow.closed_first(Side::Server) {
        return None;
    }
    let reset = flow.facts.reset(Side::Server)?;
    let silent = flow.server().payload == 0;
    // Where the snaplen hid octets of an answer, nobody knows whether it was complete.
    if !silent && flow.client().cut + flow.server().cut > 0 {
        return None;
    }
    // Without one octet of the server only a question known to be whole shows a request; anything else may be unread data.
    let whole = match flow.protocol(Side::Client) {
        Some(Protocol::Tls) => !silent,
        Some(Protocol::Http) => true,
        None | Some(Protocol::Unknown) => !silent,
        Some(_) => true,
    };
    let pending = flow.pending().filter(|pending| whole && pending.asked < reset.at)?;
    // Octets of the client beyond the RST's acknowledgment: it was still sending (reset-unread-data).
    if reset.unread > 0 {
        return None;
    }
    // In a protocol nobody here reads, the last of several messages may be a farewell (LDAP unbind, QUIT) that needs no answer.
    if !pending.proven && pending.begun.is_none() && !silent {
        return None;
    }
    let after = reset.at.time.since(pending.asked.time);
    let shows = format!("RST+ACK {after} after the request: a live socket was aborted");
    let finding = RULE.found(flow, reset.at, Side::Server, shows).with("after", after);
    let finding = finding.and(
        pending.asked,
        Side::Client,
        if pending.proven { "the request is complete" } else { "the client spoke last" },
    );
    Some(match pending.begun {
        Some(begun) => finding
            .and(begun, Side::Server, "the answer begins")
            .and_maybe(
                flow.server().last_payload.filter(|last| *last > begun),
                Side::Server,
                "last octets of the answer",
            )
            .variant(1),
        None => match flow.server().last_payload.filter(|last| pending.asked < *last && *last < reset.at) {
            Some(last) => finding.and(last, Side::Server, "octets that are no whole answer").variant(2),
            None => finding,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;

    fn asked() -> Scene {
        Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4)
    }

    #[test]
    fn a_reset_before_the_first_octet_cites_the_request_and_the_reset() {
        let finding = asked().rst(Side::Server, 200, ResetKind::Abort, 0).check(&RULE).expect("a reset");
        assert_eq!((finding.variant, finding.evidence[0].at.number, finding.evidence[1].at.number), (0, 6, 4));
    }

    #[test]
    fn a_reset_in_the_middle_of_the_answer_says_so() {
        let scene =
            asked().response(6, 200, 90).data(Side::Server, 7, 1448).rst(Side::Server, 100, ResetKind::Abort, 0);
        assert_eq!(scene.check(&RULE).expect("a reset").variant, 1);
    }

    #[test]
    fn octets_that_nobody_can_read_are_no_silence() {
        let unread = asked().data(Side::Server, 6, 42).also(Side::Server, What::HttpBroken);
        let finding = unread.rst(Side::Server, 18, ResetKind::Abort, 0).check(&RULE).expect("a reset");
        let cited: Vec<u64> = finding.evidence.iter().map(|evidence| evidence.at.number).collect();
        assert_eq!((finding.variant, cited), (2, vec![7, 4, 6]));
    }

    #[test]
    fn where_the_snaplen_hid_octets_of_answers_nobody_knows() {
        let mut scene = asked().data(Side::Server, 6, 42).rst(Side::Server, 18, ResetKind::Abort, 0);
        assert!(scene.check(&RULE).is_some());
        scene.facts.from_server.cut = 1;
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_reset_after_the_whole_answer_closes_an_idle_connection() {
        let scene = asked().response(6, 200, 90).also(Side::Server, What::ResponseEnd);
        assert_eq!(scene.rst(Side::Server, 100, ResetKind::Abort, 0).check(&RULE), None);
    }

    #[test]
    fn a_reset_after_fin_is_no_failure() {
        let scene = asked().fin(Side::Server, 50).rst(Side::Server, 100, ResetKind::AfterFin, 0);
        assert_eq!(scene.check(&RULE), None);
        let scene = asked().fin(Side::Client, 50).rst(Side::Server, 100, ResetKind::Abort, 0);
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_host_that_forgot_the_connection_is_another_story() {
        assert_eq!(asked().rst(Side::Server, 100, ResetKind::Stray, 0).check(&RULE), None);
    }

    #[test]
    fn a_reset_that_does_not_fit_the_server_is_not_the_servers() {
        assert_eq!(asked().rst(Side::Server, 100, ResetKind::Edge, 0).check(&RULE), None);
    }
}
