//! A backend failed a request, the proxy tried another one, and users saw only the time it took.
//!
//! ## How tcpwhy knows
//! Both legs are in the capture. A connection of the proxy to a backend that belongs to a client's request failed (refused, not answered,
//! or closed before an answer), and the client got an answer below 500 all the same. Where the request had been sent to the failed backend
//! already and its method is not safe to repeat (POST, PATCH), it may have been done twice: a warning.
//!
//! ## What it is not
//! - `proxy-upstream-connect-failed`, `proxy-upstream-closed`: there the client got the proxy's error.
//! - The failure itself (`connect-refused` and the like), which explains this.
//!
//! ## What people see
//! Nothing, or some slow requests; orders that exist twice.
//!
//! ## False alarms it avoids
//! A backend that closes after its answer. A connection that failed while the client's request was still under way elsewhere.

use crate::event::{PacketRef, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::gateway::{failed_connect, joined};
use crate::rule::summary::FlowSummary;
use crate::rule::view::{LegsView, LinkMethod};
use crate::rule::{Check, Needs, Rule, Step};
use crate::time::Elapsed;

pub static RULE: Rule = Rule {
    id: "proxy-retries-hide-failure",
    title: "the proxy retried; users saw only latency",
    severity: Severity::Notice,
    confidence: Confidence::High,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[]),
    symptom: true,
    says: "{server} failed {request}, and the proxy {client_host} got the answer {status} elsewhere: users lost {took}",
    variants: &["{server} may have done {request} before it failed: the proxy {client_host} sent it again elsewhere"],
    users_see: &["slow pages now and then", "done twice"],
    do_first: &[
        Step {
            says: "On the proxy {client_host}: what does it retry, and how often?",
            command: "sudo nginx -T 2>/dev/null | grep -nE 'proxy_next_upstream|max_fails|fail_timeout'",
        },
        Step { says: "On {host}: does anything listen on port {port}?", command: "ss -ltnp 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "on the proxy {client_host}; prints succeeded once the backend is back:",
        command: "nc -vz -w 5 {host} {port}",
    }],
    not: &[("http-gateway-error", "the client got an answer")],
    cannot_show: &["whether the failed backend did anything with the request"],
    sources: &["nginx: proxy_next_upstream", "RFC 9110 §9.2.2"],
    check: Check::Legs(check),
    ..Rule::BLANK
};

/// Methods that do no harm twice. RFC 9110 §9.2.2.
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    // An application that asks others for a part of its answer is no proxy.
    if legs.link.methods.contains(&LinkMethod::FanOut) {
        return None;
    }
    let (failed, words, sent) = failure(legs, backend)?;
    let (front, other) = served(legs, client, backend, failed)?;
    let (answer, head) = front.response?;
    let request = format!("{} {}", front.head.method, front.head.target);
    let own = Some(client.facts.id);
    let finding = RULE
        .about(
            Subject::Legs(client.facts.id, backend.facts.id),
            failed,
            Some(Side::Server),
            format!("the proxy's attempt is {words}"),
        )
        .cites(front.request, own, format!("the client's request: {request}"))
        .cites(answer, own, format!("the client is answered {}", head.status))
        .confidence(legs.link.certainty)
        .with("took", other.time.since(backend.facts.id.time).max(Elapsed::ZERO))
        .with("status", u64::from(head.status))
        .with("request", request);
    let twice = sent && !IDEMPOTENT.contains(&front.head.method.as_str());
    Some(if twice { finding.severity(Severity::Warning).variant(1) } else { finding })
}

/// How the proxy's attempt failed: the packet, words, and whether the request had been sent.
fn failure(legs: &LegsView<'_>, backend: &FlowSummary) -> Option<(PacketRef, &'static str, bool)> {
    if let Some((at, words)) = failed_connect(backend) {
        return Some((at, words, false));
    }
    let (side, close) = backend.facts.closer?;
    let unanswered = joined(legs).iter().any(|(_, back)| back.response.is_none() && back.request < close);
    let silent = backend.facts.from_server.payload + backend.facts.from_server.unseen == 0;
    (unanswered && silent).then_some(match side {
        Side::Server => (close, "closed by the backend without an answer", true),
        Side::Client => (close, "given up without an answer", true),
    })
}

/// The client's request that the attempt belongs to, if it was answered well afterwards, and the connection on which another backend did.
fn served<'a>(
    legs: &LegsView<'a>,
    client: &'a FlowSummary,
    backend: &FlowSummary,
    failed: PacketRef,
) -> Option<(Exchange<'a>, PacketRef)> {
    let begun = backend.facts.id;
    let front = exchanges(&client.story)
        .into_iter()
        .find(|one| one.request <= begun && one.response.is_some_and(|(at, head)| at > failed && head.status < 500))?;
    let (answer, _) = front.response?;
    let proxy = backend.facts.client.address;
    // Somebody else answered it: another connection of the proxy that was served meanwhile.
    let mut others = legs.capture.links_of(client.facts.id).filter(|link| link.client_leg == client.facts.id);
    let elsewhere = others.find(|link| {
        let other = link.backend_leg;
        other != backend.facts.id
            && legs.capture.digest_of(other).is_some_and(|digest| {
                digest.client().address == proxy && digest.answered && digest.last >= failed.time && other < answer
            })
    })?;
    Some((front, elsewhere.backend_leg))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{ExchangePair, Link};
    use crate::time::Timestamp;

    fn found(method: &str, status: u16, failed: Scene, with_other: bool) -> Option<Finding> {
        let client = Scene::open()
            .request(3, method, "/", 80)
            .response(60, status, 90)
            .also(Side::Server, crate::event::What::ResponseEnd);
        let good = Scene::starting("10.0.0.2:50002", "10.0.0.4:80", 200, 20).handshake();
        let good =
            good.request(3, method, "/", 80).response(8, 200, 90).also(Side::Server, crate::event::What::ResponseEnd);
        let pair = |backend| ExchangePair { client: 1, backend, from: Timestamp(0), until: Timestamp::MAX };
        let link = |backend: &Scene, n| {
            let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::RequestLine, Confidence::High);
            Link { exchanges: vec![pair(n)], ..link }
        };
        let mut world = World::new().with(&client).with(&failed).with(&good);
        let sent = u32::from(failed.facts.from_client.payload > 0);
        world.links = vec![link(&failed, sent)];
        if with_other {
            world.links.push(link(&good, 1));
        }
        world.check_legs(&RULE, &world.links[0])
    }

    fn refused() -> Scene {
        Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 5).syn(0).rst(Side::Server, 1, ResetKind::Refused, 0)
    }

    fn closed(method: &str) -> Scene {
        let scene = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 5).handshake();
        scene.request(3, method, "/", 80).acked(Side::Client, 4).fin(Side::Server, 9)
    }

    #[test]
    fn an_attempt_that_was_refused_and_repeated_elsewhere_is_a_notice() {
        let finding = found("GET", 200, refused(), true).expect("hidden");
        assert_eq!((finding.severity, finding.variant, finding.evidence.len()), (Severity::Notice, 0, 3));
        assert!(found("POST", 200, refused(), true).is_some_and(|finding| finding.variant == 0));
    }

    #[test]
    fn a_post_that_was_sent_twice_is_a_warning() {
        assert_eq!(found("POST", 200, closed("POST"), true).expect("twice").severity, Severity::Warning);
        assert_eq!(found("GET", 200, closed("GET"), true).expect("hidden").severity, Severity::Notice);
    }

    #[test]
    fn an_error_that_reached_the_client_and_no_second_attempt_are_none() {
        assert_eq!(found("GET", 502, refused(), true), None);
        assert_eq!(found("GET", 200, refused(), false), None);
    }
}
