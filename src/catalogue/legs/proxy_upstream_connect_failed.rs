//! The proxy could not connect to its backend, and told its client so.
//!
//! ## How tcpwhy knows
//! While a request of the client leg waited, the same host opened a connection that was refused, answered by an ICMP error or not answered,
//! and the client then got 502, 503 or 504, or a close without an answer. How the legs are linked is printed with the link.
//!
//! ## What it is not
//! - `proxy-no-server-available`: there the proxy does not even try.
//! - `proxy-upstream-timeout`, `proxy-upstream-closed`: there the connection to the backend was made.
//!
//! ## What people see
//! nginx: 502 `connect() failed (111: Connection refused) while connecting to upstream`, or 504 when nobody answers; HAProxy: 503 `SC`;
//! Apache: 503 and AH00957.
//!
//! ## False alarms it avoids
//! A failed try whose request was answered well after all (another backend took it).

use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Finding, Subject};
use crate::rule::gateway::{client_exchange, failed_connect, gateway_error, unanswered};
use crate::rule::view::LegsView;
use crate::rule::{Check, Explains, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "proxy-upstream-connect-failed",
    title: "the user's error comes from the proxy failing to connect to its backend",
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    says: "the proxy {client_host} could not connect to its backend {server} ({how}) and failed its client's request",
    users_see: &[
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Time-out",
        "connect() failed (111: Connection refused) while connecting to upstream",
        "AH00957",
        "AH01114",
    ],
    do_first: &[Step {
        says: "On the proxy {client_host}: does the backend accept a connection now?",
        command: "nc -vz -w 3 {host} {port}",
    }],
    verify: &[Step { says: "on the proxy {client_host}:", command: "nc -vz -w 3 {host} {port}" }],
    not: &[("http-server-error", "no backend saw the request"), ("proxy-no-server-available", "the proxy did try")],
    cannot_show: &["which backends the proxy would have had besides"],
    explains: &[
        Explains("http-gateway-error", Scope::Link),
        Explains("tls-closed-after-clienthello", Scope::Link),
        Explains("closed-before-request", Scope::Link),
        Explains("closed-without-answer", Scope::Link),
    ],
    sources: &["measured: what nginx, HAProxy and Apache answer for each fault of a backend"],
    check: Check::Legs(check),
    ..Rule::BLANK
};

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    let (failed, how) = failed_connect(backend)?;
    let subject = Subject::Legs(client.facts.id, backend.facts.id);
    let front = Some(client.facts.id);
    let finding = match client_exchange(legs) {
        Some(exchange) => {
            let (at, head) = exchange.response.filter(|(at, head)| gateway_error(head) && *at > backend.facts.id)?;
            RULE.about(subject, failed, None, how).cites(exchange.request, front, "the client's request").cites(
                at,
                front,
                format!("{} to the client, {} after its request", head.status, at.time.since(exchange.request.time)),
            )
        }
        None => {
            let (side, at) = client.facts.closer?;
            if side != Side::Server || !unanswered(&client.facts) || at < failed {
                return None;
            }
            RULE.about(subject, failed, None, how).cites(at, front, "the proxy closes its client's connection")
        }
    };
    let syn = backend.facts.from_client.syns.first().copied().filter(|syn| *syn != failed);
    let finding = match syn {
        Some(syn) => finding.and(syn, Side::Client, "the proxy asks for a connection"),
        None => finding,
    };
    Some(finding.confidence(legs.link.certainty).with("how", how))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::ResetKind;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{ExchangePair, Link, LinkMethod};
    use crate::time::Timestamp;

    fn found(client: Scene, backend: Scene) -> Option<Finding> {
        let pair = ExchangePair { client: 1, backend: 0, from: Timestamp(0), until: Timestamp::MAX };
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::Timing, Confidence::Medium);
        let link = Link { exchanges: vec![pair], ..link };
        World::new().with(&client).with(&backend).check_legs(&RULE, &link)
    }

    fn tried() -> Scene {
        Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).syn(0)
    }

    #[test]
    fn a_refusal_while_a_request_waits_is_what_the_client_sees() {
        let client = Scene::open().request(3, "GET", "/", 80).response(9, 502, 300);
        let finding = found(client, tried().rst(Side::Server, 1, ResetKind::Refused, 0)).expect("refused");
        assert_eq!((finding.confidence, finding.evidence.len()), (Confidence::Medium, 4));
        assert_eq!(finding.evidence[0].at.number, 101);
    }

    #[test]
    fn a_request_that_was_answered_after_all_did_not_fail() {
        let client = Scene::open().request(3, "GET", "/", 80).response(9, 200, 300);
        assert_eq!(found(client, tried().rst(Side::Server, 1, ResetKind::Refused, 0)), None);
    }

    #[test]
    fn a_connection_that_was_made_is_no_failed_one() {
        let client = Scene::open().request(3, "GET", "/", 80).response(9, 502, 300);
        assert_eq!(found(client, tried().syn_ack(1).established(2)), None);
    }
}
