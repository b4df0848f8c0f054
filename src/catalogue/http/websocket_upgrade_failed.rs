//! The upgrade to WebSocket did not happen: the server answered the request as any other one.
//!
//! ## How tcpwhy knows
//! A request with `Upgrade: websocket` was answered with something else than 101. Where the proxy's backend leg is in the capture and the
//! same request has no Upgrade there, the proxy dropped it: Upgrade concerns one connection only, and a proxy passes it on only where it is
//! told to.
//!
//! ## What it is not
//! - `http-gateway-error`: there the proxy did not reach its backend at all. It explains this one.
//! - A login: 401, 403 and 407 refuse the user, redirects send the client elsewhere.
//! - A WebSocket that is cut later: there 101 came.
//!
//! ## What people see
//! `WebSocket connection to 'wss://…' failed: Unexpected response code: 400`, pages that do not update by themselves, clients that fall
//! back to polling.
//!
//! ## False alarms it avoids
//! Upgrades to HTTP/2 (h2c) that are ignored: a server may. 401, 403, 407 and redirects.

use crate::event::{Kind, PacketRef, Side};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::gateway::joined;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Fix, Keep, Needs, Recovery, Rule, Step};

pub static RULE: Rule = Rule {
    id: "websocket-upgrade-failed",
    title: "the WebSocket upgrade did not happen",
    severity: Severity::Warning,
    confidence: Confidence::Certain,
    culprit: Culprit::Config,
    proxy_end: Side::Server,
    needs: Needs::all(&[Kind::Request, Kind::AsksUpgrade, Kind::Response]),
    says: "{server} answered {status} instead of 101 to {request}, which asked for WebSocket",
    variants: &[
        "the proxy {server} dropped Upgrade from {request}: its backend saw no WebSocket, the client got {status}",
    ],
    users_see: &[
        "WebSocket connection failed: Unexpected response code",
        "Error during WebSocket handshake",
        "server rejected WebSocket connection",
        "426 Upgrade Required",
    ],
    do_first: &[
        Step {
            says: "On {host}: does the proxy pass Upgrade and Connection on, and in HTTP/1.1?",
            command: "sudo nginx -T 2>/dev/null | grep -nE 'proxy_http_version|proxy_set_header +(Upgrade|Connection)'",
        },
        Step {
            says: "From the client's host: what does the server say to the upgrade (101)?",
            command: "curl -sS -i -m 5 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' http://{host}:{port}{path}",
        },
    ],
    fix: &[Fix {
        says: "On the proxy, in the location of that path (nginx):",
        command: "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;",
        risk: "an idle WebSocket is cut after proxy_read_timeout, 60 s unless set",
    }],
    verify: &[Step {
        says: "from the client's host; must print 101:",
        command: "curl -sS -o /dev/null -m 2 -w '%{response_code}\\n' -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' http://{host}:{port}{path}",
    }],
    not: &[("network", "request and answer arrived")],
    cannot_show: &["which fields of the handshake the server missed, when its leg is not in the capture"],
    sources: &["RFC 6455 §4.1, §4.2", "RFC 9110 §7.8", "measured: nginx without proxy_set_header Upgrade"],
    check: Check::Flow(check),
    corroborate: Some(by_the_proxy),
    recovery: Recovery::LaterFlow,
    ..Rule::BLANK
};

fn asks(one: &Exchange<'_>) -> bool {
    one.head
        .upgrade
        .as_deref()
        .is_some_and(|value| value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket")))
}

/// The statuses by which a server refuses the user, or sends the client elsewhere.
fn another_matter(status: u16) -> bool {
    matches!(status, 101 | 300..=399 | 401 | 403 | 407 | 429)
}

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let refused = |one: &&Exchange<'_>| asks(one) && one.response.is_some_and(|(_, head)| !another_matter(head.status));
    let one = all.iter().find(refused)?;
    let (at, head) = one.response?;
    let request = format!("{} {}", one.head.method, one.head.target);
    Some(
        RULE.found(flow, at, Side::Server, format!("{} {}: no switch of protocols", head.status, head.reason))
            .and(one.request, Side::Client, format!("{request} with Upgrade: websocket"))
            .with("path", super::plain(&one.head.target))
            .with("request", request)
            .with("status", u64::from(head.status)),
    )
}

/// Whether the proxy took the field away; on the backend leg of a link it is the same event, told once.
fn by_the_proxy(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = finding.subject.flow() else { return Keep::Yes };
    for link in capture.links_of(flow).filter(|link| link.client_leg == flow) {
        let leg = |id: &PacketRef| capture.flows.get(id);
        let view = LegsView { link, client_leg: leg(&link.client_leg), backend_leg: leg(&link.backend_leg), capture };
        let answer = Some(finding.last());
        let pairs = joined(&view);
        let Some((_, back)) = pairs.iter().find(|(front, _)| front.response.map(|(at, _)| at) == answer) else {
            continue;
        };
        if asks(back) {
            // The backend refused it itself: its leg tells it.
            return if back.response.is_some() { Keep::Drop } else { Keep::Yes };
        }
        let own = Some(link.backend_leg);
        *finding = finding
            .clone()
            .cites(back.request, own, "the same request on the backend leg, without Upgrade")
            .culprit(Culprit::Proxy)
            .variant(1);
        return Keep::Yes;
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::Scene;
    use crate::wire::http::RequestHead;

    fn asked(upgrade: &str, status: u16) -> Option<Finding> {
        let head = RequestHead {
            method: "GET".into(),
            target: "/ws".into(),
            upgrade: Some(upgrade.into()),
            ..Default::default()
        };
        let scene = Scene::open().data(Side::Client, 3, 190);
        let scene = scene.also(Side::Client, What::Request(Box::new(head))).also(Side::Client, What::RequestEnd);
        scene.response(5, status, 120).check(&RULE)
    }

    #[test]
    fn an_answer_other_than_101_is_told_with_both_packets() {
        let finding = asked("websocket", 400).expect("no switch");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (5, 4));
        assert!(asked("WebSocket", 426).is_some() && asked("websocket", 200).is_some());
    }

    #[test]
    fn a_switch_a_login_and_a_redirect_are_none() {
        for status in [101, 301, 401, 403] {
            assert_eq!(asked("websocket", status), None, "{status}");
        }
    }

    #[test]
    fn http2_may_be_declined() {
        assert_eq!(asked("h2c", 200), None);
    }
}
