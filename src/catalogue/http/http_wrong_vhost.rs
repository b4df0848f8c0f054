//! The request reached a server that does not know this host.
//!
//! ## How tcpwhy knows
//! The server answered 421. Or it answered 404 to everything that was asked of it under one Host, at least two requests, while another
//! server gave a good answer to one of the same requests under the same Host.
//!
//! ## What it is not
//! - A page that does not exist: there other pages of the same Host do.
//! - `dns-stale-address`, `proxy-wrong-upstream`: why the request went there. They explain it.
//! - `tls-sni-unrecognized`: there the refusal comes in TLS already.
//!
//! ## What people see
//! A default page, or `404 Not Found` for the whole site, at some users only; `421 Misdirected Request`.
//!
//! ## False alarms it avoids
//! Health checks that ask for a path that is not there; backends of which one misses a file (it serves others under that Host). A proxy
//! that asks a second server after the 404 of the first.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{PacketRef, Protocol, Side};
use crate::rule::exchange::exchanges;
use crate::rule::finding::{Confidence, Culprit, Finding, Severity, Subject};
use crate::rule::value::Value;
use crate::rule::view::CaptureView;
use crate::rule::{Check, Recovery, Rule, Step};
use crate::wire::Endpoint;

pub static RULE: Rule = Rule {
    id: "http-wrong-vhost",
    title: "the request reached a server that does not know this host",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    says: "{server} does not know {name}: it answered {status} to {request}",
    variants: &["{server} answers 404 to everything under {name} ({asked} requests), and {elsewhere} serves it"],
    users_see: &["421 Misdirected Request", "404 Not Found", "Welcome to nginx!", "Apache2 Default Page"],
    do_first: &[
        Step { says: "Which addresses does the name have now? Is {host} one of them?", command: "dig +short {name}" },
        Step {
            says: "On {host}: which names does the server know?",
            command: "sudo nginx -T 2>/dev/null | grep -nE 'server_name|listen'",
        },
    ],
    verify: &[Step {
        says: "the server's own answer under that name; below 400 means that it knows it:",
        command: "curl -sS -o /dev/null -m 30 -w '%{response_code}\\n' -H 'Host: {name}' http://{host}:{port}{path}",
    }],
    not: &[("network", "request and answer arrived")],
    cannot_show: &["whether the name was sent to the wrong address, or the server's list of names is wrong"],
    sources: &["RFC 9110 §15.5.20, §7.4", "measured: nginx with a default server that returns 421 or 404"],
    check: Check::Capture(check),
    recovery: Recovery::SameFlow,
    ..Rule::BLANK
};

/// Requests that make "everything" of it.
const EVERYTHING: usize = 2;
/// Flows looked at.
const LOOKED_AT: usize = 65_536;
/// How the health checks of load balancers name themselves.
const CHECKERS: [&str; 4] = ["ELB-HealthChecker", "kube-probe", "GoogleHC", "check"];

/// One answer.
struct Answer<'a> {
    server: Endpoint,
    flow: PacketRef,
    request: PacketRef,
    at: PacketRef,
    status: u16,
    method: &'a str,
    target: &'a str,
}

fn check(capture: &CaptureView<'_>) -> Vec<Finding> {
    let mut by_name: BTreeMap<String, Vec<Answer<'_>>> = BTreeMap::new();
    let http = |flow: &&crate::rule::summary::FlowSummary| flow.digest.protocol == Some(Protocol::Http);
    for flow in capture.flows.values().filter(http).take(LOOKED_AT) {
        for one in exchanges(&flow.story) {
            let checks =
                one.head.user_agent.as_deref().is_some_and(|agent| CHECKERS.iter().any(|name| agent.contains(name)));
            let (Some((at, head)), Some(host), false) = (one.response, one.head.host.as_deref(), checks) else {
                continue;
            };
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
            if name.chars().any(|c| c.is_ascii_alphabetic()) && !name.starts_with('[') {
                let (method, target) = (one.head.method.as_str(), one.head.target.as_str());
                let (server, flow, request, status) = (flow.facts.server, flow.facts.id, one.request, head.status);
                by_name.entry(name).or_default().push(Answer { server, flow, request, at, status, method, target });
            }
        }
    }
    let mut findings: Vec<Finding> = Vec::new();
    for (name, answers) in &by_name {
        let servers: BTreeSet<Endpoint> = answers.iter().map(|answer| answer.server).collect();
        findings.extend(servers.iter().filter_map(|server| judge(capture, name, server, answers)));
    }
    findings.sort_by_key(Finding::first);
    findings
}

fn judge(capture: &CaptureView<'_>, name: &str, server: &Endpoint, answers: &[Answer<'_>]) -> Option<Finding> {
    let mine: Vec<&Answer<'_>> = answers.iter().filter(|answer| answer.server == *server).collect();
    if let Some(first) = mine.iter().find(|answer| answer.status == 421) {
        return Some(told(name, first));
    }
    let first = mine.first().filter(|_| mine.len() >= EVERYTHING && mine.iter().all(|answer| answer.status == 404))?;
    let asked = |other: &&Answer<'_>| {
        let same = mine.iter().any(|answer| (answer.method, answer.target) == (other.method, other.target));
        other.server != *server && (200..300).contains(&other.status) && same
    };
    let good = answers.iter().find(asked)?;
    if one_request(capture, first.flow, good.flow) {
        return None;
    }
    Some(
        told(name, first)
            .cites(
                good.at,
                Some(good.flow),
                format!("{} answers {} to {} {}", good.server, good.status, good.method, good.target),
            )
            .confidence(Confidence::Medium)
            .with("asked", mine.len() as u64)
            .with("elsewhere", good.server)
            .variant(1),
    )
}

/// Whether both are legs of one request: a proxy that asks the next one after a 404, as caches in front of a store do.
fn one_request(capture: &CaptureView<'_>, one: PacketRef, other: PacketRef) -> bool {
    let legs = |flow: PacketRef| -> BTreeSet<PacketRef> {
        capture.links_of(flow).map(|link| link.client_leg).chain([flow]).collect()
    };
    !legs(one).is_disjoint(&legs(other))
}

fn told(name: &str, answer: &Answer<'_>) -> Finding {
    let request = format!("{} {}", answer.method, answer.target);
    RULE.about(Subject::Flow(answer.flow), answer.at, Some(Side::Server), answer.status.to_string())
        .and(answer.request, Side::Client, format!("{request} for {name}"))
        .with("name", Value::Packet(name.to_owned()))
        .with("path", super::plain(answer.target))
        .with("request", request)
        .with("status", u64::from(answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn flow(server: &str, number: u64, answers: &[(&str, u16)]) -> Scene {
        let mut scene = Scene::starting("10.0.0.1:40000", server, number, 0).handshake();
        for (n, (target, status)) in (0_i64..).zip(answers) {
            let head = RequestHead {
                method: "GET".into(),
                target: (*target).into(),
                host: Some("shop.example:80".into()),
                ..Default::default()
            };
            let answer = ResponseHead { status: *status, ..Default::default() };
            scene = scene
                .data(Side::Client, 3 + n * 9, 80)
                .speaks(Side::Client, Protocol::Http)
                .also(Side::Client, What::Request(Box::new(head)))
                .also(Side::Client, What::RequestEnd)
                .data(Side::Server, 4 + n * 9, 120)
                .speaks(Side::Server, Protocol::Http)
                .also(Side::Server, What::Response(Box::new(answer)))
                .also(Side::Server, What::ResponseEnd);
        }
        scene
    }

    fn found(wrong: &[(&str, u16)], right: &[(&str, u16)]) -> Vec<Finding> {
        World::new().with(&flow("10.0.0.2:80", 1, wrong)).with(&flow("10.0.0.3:80", 50, right)).check(&RULE)
    }

    #[test]
    fn a_421_says_it() {
        let findings = found(&[("/", 421)], &[]);
        assert_eq!((findings.len(), findings[0].variant, findings[0].confidence), (1, 0, Confidence::Certain));
    }

    #[test]
    fn a_site_that_another_server_has_is_at_the_wrong_one() {
        let findings = found(&[("/", 404), ("/a", 404)], &[("/a", 200)]);
        assert_eq!((findings.len(), findings[0].variant, findings[0].evidence.len()), (1, 1, 3));
    }

    #[test]
    fn a_page_that_is_missing_is_no_wrong_server() {
        assert!(found(&[("/a", 404), ("/b", 200)], &[("/a", 200)]).is_empty());
        assert!(found(&[("/a", 404), ("/b", 404)], &[("/c", 200)]).is_empty());
        assert!(found(&[("/a", 404)], &[("/a", 200)]).is_empty());
    }
}
