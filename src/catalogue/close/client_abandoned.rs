//! The client gave up waiting: it closed while its complete request had no answer, or only a part of one.
//!
//! ## How tcpwhy knows
//! The request is complete by its framing (or the client spoke last), the client closed first, with FIN or RST, and until then no
//! answer had come or it was not complete. The wait often names the client's timeout: 1, 2, 3, 5, 10, 15, 30 or 60 s.
//!
//! ## What it is not
//! - A half-close (`nc`, HTTP/1.0, rsync): there the server still answers after the client's FIN, and the client takes it.
//! - The fault itself, most of the time: look for what was slow (`upstream-hang`, `slow-response`).
//!
//! ## What people see
//! nginx's status 499, HAProxy's `CH` or `CD`, ALB's 460, Envoy's `DC`; curl's "(28) Operation timed out".
//!
//! ## False alarms it avoids
//! A person who presses Esc, or a player that seeks in a film, gives up within a second or in the middle of a flowing answer: a notice.
//! Event streams and upgraded connections end this way. Octets of an unknown protocol may never want an answer, and Redis has commands
//! that wait on purpose (others, as GET and SET, do not): a notice. Words after
//! which the client closes at once, where earlier ones were answered, are its goodbye (PostgreSQL's Terminate, close_notify): silent.

use crate::event::{Kind, PacketRef, Protocol, Side};
use crate::rule::exchange::Pending;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::patience;
use crate::rule::view::FlowView;
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "client-abandoned",
    title: "the client gave up waiting",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Client,
    needs: Needs::all(&[Kind::FirstPayload]).and_any(&[Kind::Fin, Kind::Reset]),
    symptom: true,
    says: "{client_host} gave up on {server} after {wait} without one octet of an answer",
    variants: &[
        "{client_host} gave up on {server} in the middle of the answer, {wait} after its request",
        "{client_host} closed {wait} after its request: what {server} had sent could not be read as a whole answer",
    ],
    users_see: &["499", "CH", "CD", "460", "DC", "curl: (28) Operation timed out", "context deadline exceeded"],
    do_first: &[Step {
        says: "What was slow? From the server itself, does the same request answer at once?",
        command: "curl -sS -o /dev/null -m 70 -w '%{time_total}\\n' http://{host}:{port}/",
    }],
    verify: &[Step {
        says: "on {host}: requests that wait at this moment stand as open connections:",
        command: "ss -tn state established 'sport = :{port}'",
    }],
    not: &[
        ("server-reset-mid-response", "the client closed first"),
        ("closed-without-answer", "the client closed first"),
    ],
    cannot_show: &["whether an answer would have come"],
    sources: &["RFC 9112 §9.5"],
    check: Check::Flow(check),
    ..Rule::BLANK
};

/// Timeouts that clients use, in seconds.
const TIMEOUTS: [i64; 9] = [1, 2, 3, 5, 10, 15, 20, 30, 60];
/// Who closes so soon after its last words said goodbye (measured: psql 2 ms, openssl 20 µs).
const GOODBYE: Elapsed = Elapsed::millis(50);

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (_, close) = flow.facts.closer.filter(|(side, _)| *side == Side::Client && flow.facts.both_ways())?;
    let pending = flow.pending().filter(|pending| pending.asked <= close)?;
    // Octets that came are no silence, although nobody could read an answer in them. Whoever says what they are cites them.
    let came = |last: &PacketRef| pending.begun.is_none() && pending.asked < *last && *last < close;
    let http = flow.protocol(Side::Client) == Some(Protocol::Http);
    let unread = flow.server().last_payload.filter(|last| http && came(last));
    // Without the SYN+ACK nobody knows where the server's octets begin, nor whether some are missing.
    if flow.server().syns.is_empty() && !flow.facts.mid_stream {
        return None;
    }
    // Where the snaplen hid octets of an answer, nobody knows whether it was complete.
    if flow.client().cut + flow.server().cut > 0 && flow.server().payload > 0 {
        return None;
    }
    if !patience::decided(flow, Side::Client, close)
        || half_closed(flow)
        || flow.exchange().is_some_and(|exchange| exchange.is_push())
    {
        return None;
    }
    let wait = close.time.since(pending.asked.time);
    let severity = severity(flow, &Pending { begun: pending.begun.or(unread), ..pending }, wait)?;
    let word = flow.close_word(Side::Client);
    let shows = format!("{word} {wait} after the request: the client gives up");
    let asked = if pending.proven { "the request is complete" } else { "the client's last octets" };
    let mut finding = RULE
        .found(flow, close, Side::Client, shows)
        .and(pending.asked, Side::Client, asked)
        .and_maybe(pending.begun, Side::Server, "the answer begins")
        .severity(severity)
        .with("wait", wait);
    if pending.begun.is_some() {
        finding = finding.and_maybe(flow.server().last_payload, Side::Server, "last octets of the answer").variant(1);
    } else if unread.is_some() {
        finding = finding.variant(2);
    }
    if flow.protocol(Side::Client) == Some(Protocol::Redis) && !pending.proven {
        let waits = "BLPOP, XREAD BLOCK and SUBSCRIBE wait on purpose";
        finding = finding.severity(Severity::Notice).note(waits);
    }
    if let Some(timeout) = TIMEOUTS.iter().find(|s| (wait - Elapsed::secs(**s)).abs() <= Elapsed::millis(30 * **s)) {
        finding = finding.note(format!("the wait fits a client's timeout of {timeout} s"));
    }
    Some(finding)
}

/// The client only ended its own direction: the server went on talking and was heard.
fn half_closed(flow: &FlowView<'_>) -> bool {
    let (Some(fin), Some(last)) = (flow.client().fin, flow.server().last_payload) else { return false };
    let refused = flow.facts.from_client.reset_count > 0;
    last > fin && !refused
}

fn severity(flow: &FlowView<'_>, pending: &Pending, wait: Elapsed) -> Option<Severity> {
    let known = pending.proven || flow.protocol(Side::Client).is_some_and(|protocol| protocol != Protocol::Unknown);
    let patient = patience::patient(flow, wait);
    let Some(begun) = pending.begun else {
        if !pending.proven && wait < GOODBYE && flow.server().payload > 0 {
            return None;
        }
        return match (known, patient) {
            (true, true) => Some(Severity::Warning),
            (true, false) | (false, true) => Some(Severity::Notice),
            (false, false) => None,
        };
    };
    // An answer that was still flowing was cancelled; one that had stopped was given up.
    let (_, close) = flow.facts.closer?;
    let last = flow.server().last_payload.filter(|last| *last < close).unwrap_or(begun);
    let stalled = close.time.since(last.time) >= flow.thresholds.gave_up;
    Some(if stalled { Severity::Warning } else { Severity::Notice })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, What};
    use crate::rule::testing::Scene;

    fn asked() -> Scene {
        Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4)
    }

    #[test]
    fn a_client_that_closes_after_two_seconds_of_silence_names_its_timeout() {
        let finding = asked().fin(Side::Client, 2005).check(&RULE).expect("given up");
        assert_eq!((finding.severity, finding.variant), (Severity::Warning, 0));
        assert_eq!(finding.notes, ["the wait fits a client's timeout of 2 s"]);
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 4));
    }

    #[test]
    fn an_answer_that_stopped_for_seconds_was_given_up() {
        let finding = asked().response(5, 200, 90).rst(Side::Client, 5005, ResetKind::Abort, 0).check(&RULE);
        let finding = finding.expect("given up");
        assert_eq!((finding.severity, finding.variant), (Severity::Warning, 1));
    }

    #[test]
    fn a_download_that_is_cancelled_while_it_flows_is_a_notice() {
        let scene = asked().response(5, 200, 90).data(Side::Server, 5000, 1448);
        let finding = scene.rst(Side::Client, 5001, ResetKind::Abort, 0).check(&RULE).expect("cancelled");
        assert_eq!(finding.severity, Severity::Notice);
    }

    #[test]
    fn an_answer_that_nobody_can_read_is_no_silence() {
        let unread = asked().data(Side::Server, 5, 90).also(Side::Server, What::HttpBroken).acked(Side::Server, 6);
        let finding = unread.fin(Side::Client, 7).check(&RULE).expect("given up");
        assert_eq!((finding.severity, finding.variant), (Severity::Notice, 2));
    }

    #[test]
    fn without_the_syn_ack_nobody_knows_whether_an_answer_is_missing() {
        let mut scene = asked().fin(Side::Client, 2005);
        scene.facts.from_server.syns.clear();
        assert_eq!(scene.check(&RULE), None);
    }

    #[test]
    fn a_person_who_presses_escape_is_a_notice() {
        assert_eq!(asked().fin(Side::Client, 400).check(&RULE).expect("cancelled").severity, Severity::Notice);
    }

    #[test]
    fn a_half_close_that_is_answered_is_healthy() {
        let scene = asked().fin(Side::Client, 1500).response(1600, 200, 40).acked(Side::Server, 1601);
        assert_eq!(scene.check(&RULE), None);
        let scene = Scene::open().data(Side::Client, 3, 2).fin(Side::Client, 4).data(Side::Server, 5, 4);
        assert_eq!(scene.fin(Side::Server, 6).check(&RULE), None);
    }

    #[test]
    fn a_whole_answer_leaves_nothing_to_give_up() {
        let scene = asked().response(5, 200, 90).also(Side::Server, What::ResponseEnd);
        assert_eq!(scene.rst(Side::Client, 6, ResetKind::Abort, 0).check(&RULE), None);
    }

    #[test]
    fn a_host_that_does_not_know_the_connection_gives_nothing_up() {
        assert_eq!(asked().rst(Side::Client, 2005, ResetKind::Stray, 0).check(&RULE), None);
    }

    #[test]
    fn last_words_before_a_close_at_once_are_a_goodbye() {
        let greeted = || {
            Scene::open().data(Side::Client, 3, 60).data(Side::Server, 5, 40).speaks(Side::Client, Protocol::Postgres)
        };
        assert_eq!(greeted().data(Side::Client, 4000, 5).fin(Side::Client, 4002).check(&RULE), None);
        let later = greeted().data(Side::Client, 4000, 5).fin(Side::Client, 4400).check(&RULE).expect("given up");
        assert_eq!(later.severity, Severity::Notice);
        let silent = Scene::open().data(Side::Client, 3, 60).speaks(Side::Client, Protocol::Postgres);
        assert!(silent.fin(Side::Client, 5).check(&RULE).is_some());
    }

    #[test]
    fn octets_of_an_unknown_protocol_may_want_no_answer() {
        let scene = Scene::open().data(Side::Client, 3, 60).acked(Side::Client, 4).fin(Side::Client, 9000);
        assert_eq!(scene.check(&RULE).expect("told").severity, Severity::Notice);
        let hasty = Scene::open().data(Side::Client, 3, 60).acked(Side::Client, 4).fin(Side::Client, 500);
        assert_eq!(hasty.check(&RULE), None);
    }
}
