//! The proxy answers 502 or 503 by itself, at once, without asking any backend.
//!
//! ## How tcpwhy knows
//! The answer came within 50 ms of the request, and between both the proxy sent nothing to anybody else. In the minute before, connections
//! of the same host to a backend failed, and none to that backend has worked since: the proxy has taken it out of service.
//!
//! ## What it is not
//! - `proxy-upstream-connect-failed`: there the proxy tries, while the request waits.
//! - `http-rate-limited`: 429, or a Retry-After.
//!
//! ## What people see
//! A few slow errors, then most of them at once. HAProxy: `has no server available!` and `<NOSRV> SC`; Apache: AH01114, AH00940; nginx: `no
//! live upstreams while connecting to upstream`.
//!
//! ## False alarms it avoids
//! A 503 with Retry-After (maintenance); an answer during which the host talked to a backend; a load balancer without targets, whose tries
//! are not in the capture.

use std::collections::BTreeMap;

use crate::event::PacketRef;
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Subject};
use crate::rule::gateway::{failed_connect, gateway_error};
use crate::rule::summary::FlowSummary;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Explains, Fix, Rule, Scope, Step};
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// A proxy that asks nobody answers within this time.
const AT_ONCE: Elapsed = Elapsed::millis(50);
/// A backend stays out of service about this long after a failure (Apache's `retry=60`).
const OUT: Elapsed = Elapsed::secs(60);
/// Flows that are looked at around one request.
const LOOK: usize = 256;

pub static RULE: Rule = Rule {
    id: "proxy-no-server-available",
    title: "the proxy answers 5xx by itself: it has taken its backends out of service",
    confidence: Confidence::Medium,
    culprit: Culprit::Upstream,
    says: "the proxy {front} answered {status} {after} after the request without asking a backend: its last try, at {server}, had failed ({how})",
    users_see: &[
        "503 Service Unavailable",
        "502 Bad Gateway",
        "has no server available!",
        "AH01114",
        "AH00940",
        "no live upstreams while connecting to upstream",
        "<NOSRV>",
    ],
    do_first: &[
        Step { says: "On the proxy: does the backend accept a connection now?", command: "nc -vz -w 3 {host} {port}" },
        Step {
            says: "On the proxy, if it is HAProxy: which servers does it hold for DOWN?",
            command: "echo 'show servers state' | sudo socat stdio /run/haproxy/admin.sock",
        },
    ],
    fix: &[Fix {
        says: "Apache: do not give a backend up for a minute after one failure",
        command: "ProxyPass / http://{host}:{port}/ retry=0",
        risk: "every request then waits for the connection to fail",
    }],
    verify: &[Step { says: "on the proxy:", command: "nc -vz -w 3 {host} {port}" }],
    not: &[("proxy-upstream-connect-failed", "0 connections were tried between request and answer")],
    cannot_show: &["which backends the proxy is told to use"],
    explains: &[Explains("http-gateway-error", Scope::SameOrLink)],
    sources: &["measured: HAProxy, Apache (retry=60)", "Apache mod_proxy: retry"],
    check: Check::Capture(check),
    ..Rule::BLANK
};

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let hosts = Hosts::of(capture);
    let mut found = Vec::new();
    for flow in capture.flows.values() {
        for (exchange, n) in exchanges(&flow.story).iter().zip(1u32..) {
            let Some((at, head)) = exchange.response else { continue };
            let after = at.time.since(exchange.request.time);
            if !gateway_error(head) || head.status == 504 || after > AT_ONCE {
                continue;
            }
            let Some(tries) = hosts.tries(flow, exchange.request, at) else { continue };
            let Some((backend, failed, how)) = tries.first().copied() else { continue };
            let front = Some(flow.facts.id);
            let backends =
                tries.iter().map(|(backend, ..)| backend.facts.server).collect::<std::collections::BTreeSet<_>>();
            let mut finding = RULE
                .about(
                    Subject::Legs(flow.facts.id, backend.facts.id),
                    at,
                    None,
                    format!("{} after {after}", head.status),
                )
                .cites(exchange.request, front, "the request; 0 connections tried for it")
                .cites(failed, Some(backend.facts.id), format!("the last try at a backend: {how}"))
                .with("front", flow.facts.server)
                .with("status", u32::from(head.status))
                .with("after", after)
                .with("how", how);
            finding.evidence[0].flow = front;
            finding.ordinal = n;
            let sure = tries.len() > 1 || backends.len() > 1;
            found.push(if sure { finding.confidence(Confidence::High) } else { finding });
            break;
        }
    }
    found
}

/// Which connections each host opened, by time. A proxy is known by its addresses: the one that clients ask, and, on the capturing host, all
/// from which it sends.
struct Hosts<'a> {
    opened: BTreeMap<Address, Vec<&'a FlowSummary>>,
    capturing: BTreeMap<u16, Vec<&'a FlowSummary>>,
}

impl<'a> Hosts<'a> {
    fn of(capture: &'a CaptureView<'_>) -> Self {
        let mut hosts = Self { opened: BTreeMap::new(), capturing: BTreeMap::new() };
        for flow in capture.flows.values() {
            hosts.opened.entry(flow.facts.client.address).or_default().push(flow);
            if sends_here(&flow.facts.from_client) {
                hosts.capturing.entry(flow.facts.id.file).or_default().push(flow);
            }
        }
        hosts
    }

    /// Failed tries of the proxy before the request, latest first; `None` where it talked to somebody meanwhile or a try worked since.
    fn tries(
        &self,
        front: &FlowSummary,
        asked: PacketRef,
        answered: PacketRef,
    ) -> Option<Vec<(&'a FlowSummary, PacketRef, &'static str)>> {
        let here = sends_here(&front.facts.from_server);
        let list = if here {
            self.capturing.get(&front.facts.id.file)?
        } else {
            self.opened.get(&front.facts.server.address)?
        };
        let end = list.partition_point(|flow| flow.facts.id <= answered);
        let mut worked: Vec<Endpoint> = Vec::new();
        let mut failed = Vec::new();
        for flow in list[..end].iter().rev().take(LOOK) {
            let busy = |half: &crate::flow::facts::Half| {
                let within = |at: Option<PacketRef>| at.is_some_and(|at| at >= asked && at <= answered);
                within(half.first) || within(half.first_payload) || within(half.last_payload)
            };
            if flow.facts.id == front.facts.id {
                continue;
            }
            if busy(&flow.facts.from_client) {
                return None;
            }
            if asked.time.since(flow.facts.id.time) > OUT {
                break;
            }
            match failed_connect(flow) {
                Some((at, how)) if at < asked && !worked.contains(&flow.facts.server) => failed.push((*flow, at, how)),
                Some(_) => {}
                None => worked.push(flow.facts.server),
            }
        }
        Some(failed)
    }
}

/// Whether the host that sends this half is the one that captures.
fn sends_here(half: &crate::flow::facts::Half) -> bool {
    !half.faces.is_empty() && half.faces.iter().all(|face| face.direction == 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ResetKind, Side};
    use crate::rule::testing::{Scene, World};

    fn refused(start: i64) -> Scene {
        Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 1, start).syn(0).rst(Side::Server, 1, ResetKind::Refused, 0)
    }

    fn asks(start: i64, answer: i64) -> Scene {
        let scene = Scene::starting("10.0.0.1:40000", "10.0.0.2:80", 100, start).handshake();
        scene.request(3, "GET", "/", 80).response(answer, 502, 300)
    }

    #[test]
    fn an_error_at_once_after_failed_tries_is_the_proxys_own() {
        let world = World::new().with(&refused(0)).with(&asks(1000, 4));
        let found = world.check(&RULE);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].confidence, found[0].evidence.len()), (Confidence::Medium, 3));
    }

    #[test]
    fn a_try_while_the_request_waits_is_another_diagnosis() {
        let world = World::new().with(&refused(0)).with(&asks(1000, 9)).with(&refused(1004));
        assert_eq!(world.check(&RULE), []);
    }

    #[test]
    fn a_slow_error_or_a_backend_that_worked_since_is_none() {
        let world = World::new().with(&refused(0)).with(&asks(1000, 900));
        assert_eq!(world.check(&RULE), []);
        let good = Scene::starting("10.0.0.2:50001", "10.0.0.3:80", 50, 500).handshake().gone(600);
        let world = World::new().with(&refused(0)).with(&good).with(&asks(1000, 4));
        assert_eq!(world.check(&RULE), []);
    }
}
