//! A proxy answered 502, 503 or 504 itself.
//!
//! ## How tcpwhy knows
//! The status is one that gateways use for their own troubles, and no backend gave it: 502 and 504 in any case, 503 where a proxy signs it
//! (Server, Via, or HAProxy's page of 107 octets). Where the backend leg is in the capture and carries the same status, the answer is
//! the application's and this diagnosis is dropped. Where the proxy's other connections tell, it says why: a 503 while no backend was asked and
//! every connection of the same port to one was busy (a queue), or a TLS connection to the backend that the proxy itself closed behind the
//! handshake, right before its answer (nginx refuses a certificate so), or questions of the proxy to the DNS without an address in the answer
//! and no connection opened.
//!
//! ## What it is not
//! - `http-server-error`: there the application itself says 5xx.
//! - `proxy-upstream-connect-failed`, `proxy-upstream-timeout`, `http-upstream-closed-before-response` and the like are its causes: they need
//!   the backend leg.
//!
//! ## What people see
//! A page that says 502 Bad Gateway, 503 Service Unavailable or 504 Gateway Timeout.
//!
//! ## False alarms it avoids
//! A 503 with Retry-After is meant: maintenance, or a limit. A 503 that no proxy signs may be the application's own.

use super::gateway_reason::{self, DISTRUSTED, NAMELESS, QUEUED};
use super::http_server_error::cut_off;
use crate::event::{Kind, PacketRef, Side};
use crate::rule::exchange::{dated, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::gateway::{gateway_error, joined};
use crate::rule::value::Value;
use crate::rule::view::{CaptureView, FlowView, LegsView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step, Words};

/// Variant of the headline where the snaplen left the status line only.
const CUT: u8 = 5;

pub static RULE: Rule = Rule {
    id: "http-gateway-error",
    title: "a proxy answered with an error of its own",
    confidence: Confidence::Certain,
    culprit: Culprit::Proxy,
    proxy_end: Side::Server,
    needs: Needs::any(&[Kind::ErrorStatus, Kind::ErrorCut]),
    symptom: true,
    says: "the proxy {server} answered {status} {after} after the request: it got no usable answer from a backend",
    variants: &[
        "the proxy {server} answered {status} {after} after the request without asking {backend}, with {busy} connections to it busy all the while",
        "the proxy {server} answered {status}: it closed its TLS connection to {backend} before it asked, it seems to refuse the certificate",
        "the proxy {server} answered {status} {after} after the request: {resolver} gave it no address of {asked_name} ({how})",
        "the proxy {server} answered {status} {after} after the request: nobody answers for {absent}, its backend before",
        "the proxy {server} answered {status}; what else it said is cut off",
    ],
    words_of: &[
        (
            QUEUED,
            Words {
                users_see: &["503 Service Unavailable", "sQ", "upstream queue is full"],
                do_first: &[
                    Step {
                        says: "On the proxy {host}: how many connections may it open, and how long may a request wait?",
                        command: "sudo grep -nE 'maxconn|max_conns|queue' /etc/haproxy/haproxy.cfg /etc/nginx/nginx.conf",
                    },
                    Step {
                        says: "On the proxy {host}, if it is HAProxy: qcur, qmax, scur and slim of its servers",
                        command: "echo 'show stat' | sudo socat stdio /run/haproxy/admin.sock | cut -d, -f1-7",
                    },
                ],
                verify: &[],
                cannot_show: &["the limit itself, and whether the proxy refused for another reason meanwhile"],
            },
        ),
        (
            DISTRUSTED,
            Words {
                users_see: &[
                    "502 Bad Gateway",
                    "upstream SSL certificate verify error",
                    "upstream SSL certificate does not match",
                ],
                do_first: &[
                    Step {
                        says: "On the proxy {host}: what does its log say about the certificate?",
                        command: "sudo grep -n 'upstream SSL certificate' /var/log/nginx/error.log",
                    },
                    Step {
                        says: "On the proxy {host}: who issued the backend's certificate, and for which names?",
                        command: "openssl s_client -connect {backend} -showcerts </dev/null",
                    },
                ],
                verify: &[],
                cannot_show: &["why the proxy closed: it says so in its log only"],
            },
        ),
        (
            NAMELESS,
            Words {
                users_see: &["502 Bad Gateway", "could not be resolved", "no resolver defined to resolve"],
                do_first: &[
                    Step {
                        says: "On the proxy {host}: does the name resolve?",
                        command: "dig +tries=1 +time=3 {asked_name} @{resolver_host}",
                    },
                    Step {
                        says: "On the proxy {host}: what does its log say about that second?",
                        command: "sudo grep -n 'could not be resolved' /var/log/nginx/error.log",
                    },
                ],
                verify: &[],
                cannot_show: &["whether the proxy asked for that name for this request: only the time says so"],
            },
        ),
    ],
    users_see: &["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Time-out", "504 Gateway Timeout"],
    do_first: &[
        Step {
            says: "On the proxy {host}: what does its log say about that second?",
            command: "sudo journalctl --since '15 min ago' -u nginx -u haproxy -u apache2",
        },
        Step {
            says: "On the proxy {host}: capture its other leg too",
            command: "sudo tcpdump -i any -y LINUX_SLL2 -s 0 -w /tmp/both-legs.pcap tcp",
        },
    ],
    verify: &[Step {
        says: "from the client's host; 2xx or 3xx means that the backend answers again:",
        command: "curl -sS -o /dev/null -m 90 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[("network", "request and answer arrived")],
    cannot_show: &["what the backend did, unless its leg is in the capture"],
    explains: &[
        Explains("grpc-error-status", Scope::Same),
        Explains("websocket-upgrade-failed", Scope::Same),
        Explains("client-abandoned", Scope::Same),
    ],
    sources: &[
        "RFC 9110 §15.6.3 to §15.6.5",
        "measured: what nginx, HAProxy and Apache answer for each fault of a backend",
    ],
    check: Check::Flow(check),
    corroborate: Some(is_its_own),
    ..Rule::BLANK
};

/// Flows whose error is looked at beside the proxy's other connections.
const EXPLAINED: usize = 1024;

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let all = exchanges(flow.story);
    let failed = |one: &&crate::rule::exchange::Exchange<'_>| one.response.is_some_and(|(_, head)| gateway_error(head));
    let Some(first) = all.iter().find(failed) else {
        return cut_off(&RULE, CUT, flow, |status| matches!(status, 502 | 504));
    };
    let (at, head) = first.response?;
    let after = at.time.since(first.request.time);
    let status = head.status;
    let finding = RULE
        .found(flow, at, Side::Server, format!("{status} {after} after the request"))
        .and(first.request, Side::Client, "the request")
        .with("after", after)
        .with("status", Value::Count(status.into()));
    Some(dated(finding, &flow.story.errors(status, gateway_error)))
}

/// Drops it where the backend gave the same status: then it is the application's word.
fn is_its_own(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = finding.subject.flow() else { return Keep::Yes };
    if finding.variant == CUT && finding.values.get("after").is_none() {
        return Keep::Yes;
    }
    let answer: PacketRef = finding.evidence.iter().map(|told| told.at).max().unwrap_or(flow);
    let passed_on = capture.links_of(flow).filter(|link| link.client_leg == flow).any(|link| {
        let (client_leg, backend_leg) = (capture.flows.get(&link.client_leg), capture.flows.get(&link.backend_leg));
        joined(&LegsView { link, client_leg, backend_leg, capture }).iter().any(|(client, backend)| {
            match (client.response, backend.response) {
                (Some((at, ours)), Some((_, theirs))) => at == answer && ours.status == theirs.status,
                _ => false,
            }
        })
    });
    if passed_on {
        return Keep::Drop;
    }
    let asked = finding.evidence.iter().map(|told| told.at).min().unwrap_or(flow);
    let status = match finding.values.get("status") {
        Some(Value::Count(status)) => *status as u16,
        _ => 0,
    };
    // Of a storm of them the first ones say enough.
    let late = capture.found_by(RULE.id).nth(EXPLAINED).is_some_and(|other| flow >= other.facts.id);
    if let Some(front) = capture.flows.get(&flow).filter(|_| !late) {
        *finding = gateway_reason::told(finding.clone(), front, (asked, answer), status, capture);
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{ExchangePair, Link, LinkMethod};
    use crate::time::Timestamp;
    use crate::wire::http::ResponseHead;

    fn answered(status: u16, server: Option<&str>, retry_after: Option<&str>) -> Scene {
        let head = ResponseHead {
            status,
            server: server.map(Into::into),
            retry_after: retry_after.map(Into::into),
            ..Default::default()
        };
        let scene = Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4).data(Side::Server, 9, 300);
        scene.also(Side::Server, What::Response(Box::new(head)))
    }

    #[test]
    fn a_gateways_status_is_told_with_request_and_answer() {
        let finding = answered(502, Some("nginx"), None).check(&RULE).expect("a gateway's");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 4));
        assert!(answered(504, None, None).check(&RULE).is_some());
        assert!(answered(503, Some("awselb/2.0"), None).check(&RULE).is_some());
    }

    #[test]
    fn an_applications_503_and_maintenance_are_none() {
        assert_eq!(answered(503, Some("gunicorn"), None).check(&RULE), None);
        assert_eq!(answered(503, Some("nginx"), Some("120")).check(&RULE), None);
        assert_eq!(answered(500, Some("nginx"), None).check(&RULE), None);
    }

    #[test]
    fn a_status_that_the_backend_gave_is_the_applications() {
        let client = answered(502, Some("nginx"), None);
        let finding = client.check(&RULE).expect("looks like a gateway's");
        let backend = Scene::starting("10.0.0.2:50000", "10.0.0.3:80", 100, 4).handshake().request(3, "GET", "/", 80);
        let mut world = World::new().with(&client);
        assert!(world.corroborated(&RULE, finding.clone()).is_some());
        world = world.with(&backend.response(4, 502, 300));
        let pair = ExchangePair { client: 1, backend: 1, from: Timestamp(0), until: Timestamp::MAX };
        let (a, b) = (*world.flows.keys().next().expect("one"), *world.flows.keys().last().expect("two"));
        let link = Link::whole(a, b, LinkMethod::RequestId, Confidence::Certain);
        world.links = vec![Link { exchanges: vec![pair], ..link }];
        assert_eq!(world.corroborated(&RULE, finding), None);
    }
}
