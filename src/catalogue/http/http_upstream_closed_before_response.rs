//! The backend took a whole request and closed its connection without answering it.
//!
//! ## How tcpwhy knows
//! The request is complete by its framing, no octet of an answer to it came, and the server sent a FIN. Either an earlier request of the
//! same connection was answered, or the connection is the backend leg of a proxy.
//!
//! ## What it is not
//! - `closed-without-answer`: the same on a connection that is no proxy's and has answered nothing.
//! - `http-keepalive-race`: there the backend closed an idle connection, and request and close crossed.
//! - `http-upstream-reset-before-response`: there it was a RST.
//!
//! ## What people see
//! nginx: `upstream prematurely closed connection while reading response header from upstream`; HAProxy: 502 with `SH--`; Apache: AH01102.
//!
//! ## False alarms it avoids
//! A request whose body is still coming, a client that closes first, a close within a round trip of the request after a pause.

use super::unanswered;
use crate::event::{Kind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "http-upstream-closed-before-response",
    title: "the backend closed after the request without answering",
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::RequestEnd, Kind::Fin]),
    symptom: true,
    claims_absence: true,
    says: "{server} took a request of {client_host} and closed {after} later without answering it",
    users_see: &[
        "upstream prematurely closed connection while reading response header from upstream",
        "502 Bad Gateway",
        "AH01102: error reading status line from remote server",
        "SH--",
    ],
    do_first: &[Step {
        says: "On {host}: did the service crash, or was a worker killed, at that second?",
        command: "sudo journalctl --since '15 min ago' -p warning",
    }],
    verify: &[Step {
        says: "from the proxy; (52) means that it still closes without a word:",
        command: "curl -sS -o /dev/null -m 10 http://{host}:{port}/",
    }],
    not: &[("client-abandoned", "the server closed first"), ("network", "the request was acknowledged")],
    cannot_show: &["why the backend closed"],
    explains: &[
        Explains("http-gateway-error", Scope::SameOrLink),
        Explains("closed-without-answer", Scope::SameOrLink),
        Explains("proxy-retries-hide-failure", Scope::Same),
    ],
    sources: &["RFC 9112 §9.6", "measured: nginx 502, HAProxy 502 SH, Apache 502 AH01102"],
    check: Check::Flow(check),
    corroborate: Some(behind_a_proxy),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let fin = flow.server().fin.filter(|fin| flow.facts.closer == Some((Side::Server, *fin)))?;
    let (asked, earlier) = unanswered(flow, fin)?;
    let answered = earlier > 0;
    if (flow.facts.mid_stream && !answered) || crossed(flow, fin.time.since(asked.time), answered) {
        return None;
    }
    let after = fin.time.since(asked.time);
    let finding = RULE
        .found(flow, fin, Side::Server, format!("FIN {after} later: no answer to this request"))
        .and(asked, Side::Client, "the request is complete")
        .with("after", after);
    Some(if answered {
        finding.note(format!("{earlier} earlier of the same connection were answered"))
    } else {
        finding
    })
}

/// The close may have been on its way when the request left: then it answers nothing.
fn crossed(flow: &FlowView<'_>, after: crate::time::Elapsed, answered: bool) -> bool {
    answered
        && after <= flow.round_trip().unwrap_or_default().max(super::http_keepalive_race::CROSSING)
        && super::http_keepalive_race::reset_for_it(flow)
}

/// Without an earlier answer it is this diagnosis only where the flow is a proxy's backend leg.
fn behind_a_proxy(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let answered = flow.facts.from_server.payload > 0;
    let backend = capture.links_of(flow.facts.id).any(|link| link.backend_leg == flow.facts.id);
    if answered || backend { Keep::Yes } else { Keep::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::What;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{Link, LinkMethod};

    fn second() -> Scene {
        let scene = Scene::open().request(3, "GET", "/", 80).response(4, 200, 40).also(Side::Server, What::ResponseEnd);
        scene.request(300, "GET", "/b", 80).acked(Side::Client, 301)
    }

    #[test]
    fn a_second_request_that_is_closed_on_is_told() {
        let finding = second().fin(Side::Server, 800).check(&RULE).expect("closed");
        assert_eq!(finding.evidence[0].at.number, 8);
        assert!(World::new().with(&second().fin(Side::Server, 800)).corroborated(&RULE, finding).is_some());
    }

    #[test]
    fn a_first_request_counts_on_a_backend_leg_only() {
        let scene = Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4).fin(Side::Server, 53);
        let finding = scene.check(&RULE).expect("closed");
        let mut world = World::new().with(&scene);
        assert_eq!(world.corroborated(&RULE, finding.clone()), None);
        let client = crate::event::PacketRef { file: 0, number: 99, time: Default::default() };
        world.links = vec![Link::whole(client, scene.facts.id, LinkMethod::RequestLine, Confidence::High)];
        assert!(world.corroborated(&RULE, finding).is_some());
    }

    #[test]
    fn an_answer_or_a_client_that_leaves_first_is_no_close_without_answer() {
        assert_eq!(second().response(400, 200, 40).fin(Side::Server, 800).check(&RULE), None);
        assert_eq!(second().fin(Side::Client, 700).fin(Side::Server, 800).check(&RULE), None);
    }
}
