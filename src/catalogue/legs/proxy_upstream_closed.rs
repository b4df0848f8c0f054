//! The backend closed, and the proxy passed that on to its client.
//!
//! ## How tcpwhy knows
//! Both legs are linked as wholes (the proxy passes octets on). The backend closed first, having sent nothing; within 50 ms the proxy closed
//! the client leg, and the client too had got nothing. FIN and RST need not match: HAProxy turns a RST of the backend into a FIN.
//!
//! ## What it is not
//! - A timer of the proxy: there the client leg is closed without an event on the backend leg.
//! - The normal end of a session: there octets of the server came before.
//!
//! ## What people see
//! An empty reply, `SSL_ERROR_SYSCALL`, "connection reset"; in the proxy's log that the server closed (`SD`, 0 octets).
//!
//! ## False alarms it avoids
//! A client that had closed first, and sessions in which the server answered.

use crate::event::Side;
use crate::rule::finding::{Confidence, Culprit, Finding, Subject};
use crate::rule::gateway::unanswered;
use crate::rule::view::LegsView;
use crate::rule::{Check, Explains, Rule, Scope, Step};
use crate::time::Elapsed;

/// A close is passed on within this time, beside the round trip to the backend.
const PASSED_ON: Elapsed = Elapsed::millis(50);

pub static RULE: Rule = Rule {
    id: "proxy-upstream-closed",
    title: "the backend closed, and the proxy passed that on",
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    says: "{server} closed on the proxy {client_host} without an octet, and {after} later the proxy {front} closed on its client",
    users_see: &["curl: (52) Empty reply from server", "SSL_ERROR_SYSCALL", "Connection reset by peer", "SD"],
    do_first: &[Step {
        says: "On {host}: what did the service log when it closed?",
        command: "sudo journalctl --since '15 min ago' -p warning",
    }],
    verify: &[Step {
        says: "on the proxy {client_host}; (52) or (35) means that the backend still closes:",
        command: "curl -sS -o /dev/null -m 10 http://{host}:{port}/",
    }],
    not: &[("network", "both closes arrived"), ("client-abandoned", "the servers closed first on both legs")],
    cannot_show: &["why the backend closed"],
    explains: &[
        Explains("tls-closed-after-clienthello", Scope::Link),
        Explains("closed-before-request", Scope::Link),
        Explains("closed-without-answer", Scope::Link),
        Explains("http-gateway-error", Scope::Link),
    ],
    sources: &["measured: HAProxy maps a RST of the backend to a FIN"],
    check: Check::Legs(check),
    ..Rule::BLANK
};

fn check(legs: &LegsView<'_>) -> Option<Finding> {
    let (client, backend) = (legs.client_leg?, legs.backend_leg?);
    if !legs.link.exchanges.is_empty() || backend.facts.from_server.syn_count == 0 {
        return None;
    }
    let (Some((Side::Server, cause)), Some((Side::Server, effect))) = (backend.facts.closer, client.facts.closer)
    else {
        return None;
    };
    let asked = client.facts.from_client.payload > 0 || backend.facts.from_client.payload > 0;
    if !unanswered(&client.facts) || !unanswered(&backend.facts) || !asked || effect < cause {
        return None;
    }
    let after = effect.time.since(cause.time);
    if after > PASSED_ON + backend.facts.rtt_server.unwrap_or_default() {
        return None;
    }
    let certainty = legs.link.certainty.min(Confidence::Certain);
    Some(
        RULE.about(
            Subject::Legs(client.facts.id, backend.facts.id),
            cause,
            Some(Side::Server),
            "the backend closes: 0 octets",
        )
        .cites(effect, Some(client.facts.id), format!("{after} later the proxy closes on its client: 0 octets"))
        .confidence(if certainty == Confidence::Certain { certainty } else { certainty.min(Confidence::High) })
        .with("after", after)
        .with("front", client.facts.server),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{Link, LinkMethod};

    fn found(client: Scene, backend: Scene) -> Option<Finding> {
        let link = Link::whole(client.facts.id, backend.facts.id, LinkMethod::PayloadPrefix, Confidence::High);
        World::new().with(&client).with(&backend).check_legs(&RULE, &link)
    }

    fn client() -> Scene {
        Scene::open().data(Side::Client, 3, 200).acked(Side::Client, 4)
    }

    fn backend() -> Scene {
        let scene = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake();
        scene.data(Side::Client, 3, 200).acked(Side::Client, 4)
    }

    #[test]
    fn a_close_that_is_passed_on_is_told_from_both_legs() {
        let finding = found(client().fin(Side::Server, 60), backend().fin(Side::Server, 50)).expect("passed on");
        assert_eq!((finding.confidence, finding.evidence.len()), (Confidence::High, 2));
    }

    #[test]
    fn a_timer_of_the_proxy_and_an_answered_session_are_not() {
        assert_eq!(found(client().fin(Side::Server, 900), backend().fin(Side::Server, 50)), None);
        assert_eq!(found(client().fin(Side::Server, 40), backend().fin(Side::Server, 50)), None);
        let answered = client().data(Side::Server, 30, 9).fin(Side::Server, 60);
        assert_eq!(found(answered, backend().fin(Side::Server, 50)), None);
    }
}
