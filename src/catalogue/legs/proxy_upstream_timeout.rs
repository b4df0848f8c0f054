//! The proxy gave up waiting for its backend.
//!
//! ## How tcpwhy knows
//! The backend leg carried the request, and the backend acknowledged it. No octet of an answer came until the client got 504 (Apache: 502),
//! and the proxy closed the backend leg itself at that moment.
//!
//! ## What it is not
//! - `client-abandoned`: there the client closed before the proxy answered.
//! - `proxy-upstream-connect-failed`: there the backend never had the request.
//! - `http-upstream-closed-before-response`: there the backend closed.
//!
//! ## What people see
//! 504 Gateway Time-out; nginx: `upstream timed out (110: Connection timed out) while reading response header from upstream`; HAProxy: `sH--`;
//! Apache: 502 and AH01102 (70007).
//!
//! ## False alarms it avoids
//! A 504 that the backend sent itself, and a client that leaves before it.

use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Finding, Subject};
use crate::rule::gateway::{gateway_error, joined};
use crate::rule::view::LegsView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;

/// A proxy closes the backend leg within this time of giving up.
const TOGETHER: Elapsed = Elapsed::secs(1);
/// Nobody gives a backend less time than this.
const SHORTEST: Elapsed = Elapsed::millis(500);

pub static RULE: Rule = Rule {
    id: "proxy-upstream-timeout",
    title: "the proxy gave up waiting for its backend",
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    claims_absence: true,
    says: "{server} had a request of the proxy {client_host} for {waited} without answering; the proxy told its client {status}",
    users_see: &[
        "504 Gateway Time-out",
        "upstream timed out (110: Connection timed out) while reading response header from upstream",
        "sH--",
        "The timeout specified has expired",
    ],
    do_first: &[
        Step {
            says: "On {host}: what does the service do all that time? Where do its threads wait?",
            command: "ss -tnp 'sport = :{port}'",
        },
        Step {
            says: "On the proxy {client_host}: how long does it wait for a backend? Here it was {waited}",
            command: "sudo nginx -T 2>/dev/null | grep -nE 'proxy_(read|connect|send)_timeout'",
        },
    ],
    verify: &[Step {
        says: "on the proxy {client_host}; a number below {waited} is an answer in time:",
        command: "curl -sS -o /dev/null -m 300 -w '%{time_total}\\n' http://{host}:{port}/",
    }],
    not: &[
        ("client-abandoned", "the client waited for the proxy's answer"),
        ("network", "the backend acknowledged the request"),
    ],
    cannot_show: &["why the backend did not answer"],
    explains: &[Explains("http-gateway-error", Scope::Link), Explains("client-abandoned", Scope::Link)],
    sources: &["measured: nginx 504, HAProxy 504 sH, Apache 502"],
    check: Check::Legs(check),
    ..Rule::BLANK
};

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    let unanswered = |both: &&(_, crate::rule::exchange::Exchange<'_>)| both.1.response.is_none();
    let both = joined(legs);
    let (front, behind) = both.iter().find(unanswered)?;
    let (at, head) = front.response.filter(|(_, head)| gateway_error(head) && head.status != 503)?;
    let asked = behind.request_end?;
    let later = |packet: Option<crate::event::PacketRef>| packet.is_some_and(|packet| packet >= asked);
    if later(backend.facts.from_server.last_payload)
        || backend.facts.from_client.unacknowledged.is_some_and(|w| w.len > 0)
    {
        return None;
    }
    let (side, closed) = backend.facts.closer?;
    let apart = if closed > at { closed.time.since(at.time) } else { at.time.since(closed.time) };
    let waited = closed.time.since(asked.time);
    if side != Side::Client || apart > TOGETHER || waited < SHORTEST {
        return None;
    }
    let own = Some(client.facts.id);
    Some(
        RULE.about(
            Subject::Legs(client.facts.id, backend.facts.id),
            closed,
            Some(Side::Client),
            format!("the proxy closes after {waited} without an octet of an answer"),
        )
        .and(asked, Side::Client, "the request is complete on the backend leg")
        .and_maybe(backend.facts.from_client.first_payload_acked, Side::Server, "the backend acknowledged")
        .cites(front.request, own, "the client's request")
        .cites(at, own, format!("{} to the client", head.status))
        .confidence(legs.link.certainty)
        .with("waited", waited)
        .with("status", u32::from(head.status)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{ExchangePair, Link, LinkMethod};
    use crate::time::Timestamp;

    fn found(client: Scene, backend: Scene) -> Option<Finding> {
        let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::RequestLine, Confidence::High);
        let link = Link { exchanges: vec![pair], ..link };
        World::new().with(&client).with(&backend).check_legs(&RULE, &link)
    }

    fn backend() -> Scene {
        let scene = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake();
        scene.request(3, "GET", "/", 80).acked(Side::Client, 4)
    }

    #[test]
    fn a_backend_that_never_answers_is_named_with_the_time_it_had() {
        let client = Scene::open().request(3, "GET", "/", 80).response(60_010, 504, 300);
        let finding = found(client, backend().fin(Side::Client, 60_003)).expect("timed out");
        assert_eq!(finding.confidence, Confidence::High);
        assert_eq!(finding.evidence[0].shows, "the proxy closes after 60.0 s without an octet of an answer");
    }

    #[test]
    fn a_backend_that_closes_or_answers_did_not_time_out() {
        let client = || Scene::open().request(3, "GET", "/", 80).response(60_010, 504, 300);
        assert_eq!(found(client(), backend().fin(Side::Server, 60_003)), None);
        assert_eq!(found(client(), backend().response(60_000, 504, 300).fin(Side::Client, 60_003)), None);
    }

    #[test]
    fn a_client_that_leaves_first_is_not_told_of_a_timeout() {
        let client = Scene::open().request(3, "GET", "/", 80).fin(Side::Client, 1000);
        assert_eq!(found(client, backend().fin(Side::Client, 1003)), None);
    }
}
