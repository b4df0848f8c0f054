//! The cause lies behind this proxy, and its other leg is not in the capture.
//!
//! ## How tcpwhy knows
//! A client got an error that gateways make themselves, the answer is a proxy's (it signs it, or 502 and 504, which only gateways say), and
//! no connection that the proxy's host opened is in the file.
//!
//! ## What it is not
//! A server that answers 5xx as the origin itself: its answers carry no gateway's status.
//!
//! ## What people see
//! 502, 503 or 504, and nothing in the capture that explains it.
//!
//! ## False alarms it avoids
//! Captures in which the proxy's host opens connections, linked or not; proxy and origin in one process open none and are hardly ever the
//! ones that say 502.

use std::collections::BTreeSet;

use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::gateway::gateway_error;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Rule, Step};
use crate::wire::Endpoint;

pub static RULE: Rule = Rule {
    id: "capture-lacks-backend-leg",
    title: "the cause lies behind this proxy, and its other leg was not captured",
    severity: Severity::Notice,
    confidence: Confidence::Medium,
    culprit: Culprit::Capture,
    says: "{proxy} is a proxy and its backend leg is not in this capture: what failed behind it cannot be seen here",
    do_first: &[Step {
        says: "On the proxy: capture both legs at once",
        command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /tmp/both-legs.pcap tcp",
    }],
    cannot_show: &["everything between the proxy and its backends"],
    sources: &["RFC 9110 §15.6.3, §15.6.5: only gateways say 502 and 504"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    // A proxy often has another address towards its backends; on the capturing host that is seen by the direction.
    let here: BTreeSet<u16> = capture
        .flows
        .values()
        .filter(|flow| sent_here(&flow.facts.from_client))
        .map(|flow| flow.facts.id.file)
        .collect();
    let macs: BTreeSet<_> = capture
        .flows
        .values()
        .filter_map(|flow| match flow.facts.from_client.faces.as_slice() {
            [face] => face.source,
            _ => None,
        })
        .collect();
    let mut told: BTreeSet<Endpoint> = BTreeSet::new();
    let mut found = Vec::new();
    for flow in capture.flows.values() {
        let half = &flow.facts.from_server;
        let mac = match half.faces.as_slice() {
            [face] => face.source.filter(|mac| mac.0 != [0; 6]),
            _ => None,
        };
        if capture.opens(flow.facts.server.address)
            || (sent_here(half) && here.contains(&flow.facts.id.file))
            || mac.is_some_and(|mac| macs.contains(&mac))
            || capture.links_of(flow.facts.id).any(|link| link.client_leg == flow.facts.id)
        {
            continue;
        }
        let failed = exchanges(&flow.story).into_iter().find_map(|one| {
            let (at, head) = one.response.filter(|(_, head)| gateway_error(head))?;
            Some((one.request, at, head.status))
        });
        let Some((asked, at, status)) = failed else { continue };
        if told.insert(flow.facts.server) {
            let own = Some(flow.facts.id);
            found.push(
                RULE.about(Subject::Capture, at, None, format!("{status} of a gateway"))
                    .cites(asked, own, "the request")
                    .with("proxy", flow.facts.server),
            );
        }
    }
    found
}

fn sent_here(half: &crate::flow::facts::Half) -> bool {
    !half.faces.is_empty() && half.faces.iter().all(|face| face.direction == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};

    fn asked(status: u16) -> Scene {
        Scene::open().request(3, "GET", "/", 80).response(9, status, 300)
    }

    #[test]
    fn a_gateways_error_without_its_other_leg_is_noted_once() {
        let world = World::new().with(&asked(502));
        let found = world.check(&RULE);
        assert_eq!((found.len(), found[0].severity, found[0].evidence.len()), (1, Severity::Notice, 2));
    }

    #[test]
    fn a_proxy_that_opens_connections_has_its_other_leg_here() {
        let backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake();
        assert_eq!(World::new().with(&asked(502)).with(&backend).check(&RULE), []);
    }

    #[test]
    fn an_origins_own_error_says_nothing_about_a_proxy() {
        assert_eq!(World::new().with(&asked(500)).check(&RULE), []);
    }
}
