//! Requests queue in the client: it has as many streams open as the server permits on one HTTP/2 connection.
//!
//! ## How tcpwhy knows
//! The server's SETTINGS say how many streams may be open at once (SETTINGS_MAX_CONCURRENT_STREAMS). So many were open for 1 s or longer, and
//! at least three times a place that became free was taken within 100 ms: somebody had waited for it.
//!
//! ## What it is not
//! - `h2-stream-reset` with REFUSED_STREAM: there the client opened more than were permitted.
//! - `h2-flow-control-stalled`: there a stream stands still because its receiver does not read.
//! - `slow-response`, `upstream-hang`: the server's answers take long, and that may be why the places do not become free.
//!
//! ## What people see
//! Latency that the server's own log does not show, and that grows with load: the request waits in the client before it is sent. In gRPC
//! calls that end with DEADLINE_EXCEEDED though the service answers quickly.
//!
//! ## False alarms it avoids
//! As many streams as are permitted, none of which ends (watches, subscriptions): whether one more waits is not on the wire. Limits of 256
//! and more are not followed, nor connections whose beginning or a part was not captured. Where most answers flow already, the path or their
//! size is what takes time: a notice.

use crate::event::h2::FullHouse;
use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::view::FlowView;
use crate::rule::{Check, Fix, Needs, Rule, Step};

pub static RULE: Rule = Rule {
    id: "h2-concurrency-limited",
    title: "requests wait for a free stream of an HTTP/2 connection",
    severity: Severity::Warning,
    confidence: Confidence::Medium,
    culprit: Culprit::Config,
    needs: Needs::all(&[Kind::StreamsFull]),
    says: "{client_host} keeps all {limit} streams that {server} permits on a connection busy for {time}: further requests wait in the client",
    users_see: &[
        "DEADLINE_EXCEEDED",
        "latency grows with load, but not in the server's own log",
        "max concurrent streams",
        "SETTINGS_MAX_CONCURRENT_STREAMS",
    ],
    do_first: &[Step {
        says: "From {client_host}, on a connection of its own while the service is busy: an answer at once means that the others only wait for \
               a place. How long until the first octet?",
        command: "curl -sS -o /dev/null -m 30 -w '%{time_starttransfer}\\n' http://{host}:{port}/",
    }],
    fix: &[
        Fix {
            says: "More connections from the client (a pool of channels in gRPC), or faster answers",
            command: "",
            risk: "",
        },
        Fix {
            says: "Permit more streams in the server: nginx http2_max_concurrent_streams, HAProxy tune.h2.fe.max-concurrent-streams, Envoy \
                   max_concurrent_streams, grpc.max_concurrent_streams",
            command: "",
            risk: "the server then works on more requests at once, with the memory and the threads that they need",
        },
    ],
    verify: &[Step {
        says: "on {client_host}; more connections than before must share the requests:",
        command: "ss -Htn state established dst {server} | wc -l",
    }],
    not: &[("network", "the server's own SETTINGS set the limit")],
    cannot_show: &["how many requests wait in the client, and for how long each"],
    sources: &[
        "RFC 9113 §5.1.2, §6.5.2",
        "defaults: nginx 128, Apache 100, HAProxy 100, Go 250, Envoy 1024 (before: 100)",
        "measured: nginx 1.22, a client in Node 20",
    ],
    check: Check::Flow(check),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let (latest, full) = told(flow).last()?;
    let time = latest.time.since(full.since.time);
    let flowing = full.unanswered * 2 < full.limit;
    let finding = RULE
        .found(flow, full.since, Side::Client, format!("this request takes the last of {} places", full.limit))
        .and(full.settings, Side::Server, format!("SETTINGS: at most {} streams at once", full.limit))
        .and(latest, Side::Client, format!("the {} place that became free was taken at once", nth(full.taken)))
        .with("limit", full.limit)
        .with("time", time);
    Some(match flowing {
        true => {
            finding.severity(Severity::Notice).note("most of the answers flow: their size or the path takes the time")
        }
        false => finding.note(format!("{} of the open requests have no answer yet", full.unanswered)),
    })
}

fn told<'a>(flow: &FlowView<'a>) -> impl Iterator<Item = (PacketRef, &'a FullHouse)> {
    flow.story.events().filter_map(|event| match &event.what {
        What::StreamsFull(full) => Some((event.at, full.as_ref())),
        _ => None,
    })
}

/// An ordinal number: `3rd`.
fn nth(n: u32) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::Scene;
    use crate::rule::value::Value;
    use crate::time::Elapsed;

    fn full(unanswered: u32) -> Option<Finding> {
        let asked =
            Scene::open().data(Side::Client, 3, 64).speaks(Side::Client, Protocol::Http2).data(Side::Server, 4, 40);
        let (since, settings) = (asked.facts.from_client.first_payload?, asked.facts.from_server.first_payload?);
        let house = FullHouse { limit: 2, settings, since, taken: 3, unanswered };
        let scene = asked.data(Side::Client, 2_003, 64).also(Side::Client, What::StreamsFull(Box::new(house)));
        scene.check(&RULE)
    }

    #[test]
    fn a_queue_is_told_with_the_limit_and_its_packets() {
        let finding = full(2).expect("full");
        assert_eq!(finding.evidence.iter().map(|told| told.at.number).collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(finding.values.get("time"), Some(&Value::Elapsed(Elapsed::secs(2))));
        assert_eq!(finding.evidence[2].shows, "the 3rd place that became free was taken at once");
        assert_eq!(finding.severity, Severity::Warning);
    }

    #[test]
    fn answers_that_flow_are_a_notice() {
        assert_eq!(full(0).map(|finding| finding.severity), Some(Severity::Notice));
        assert_eq!(
            ["11th", "21st", "2nd", "13th", "103rd"],
            [11, 21, 2, 13, 103].map(nth).map(|n| n).each_ref().map(|n| n.as_str())
        );
    }
}
