//! The backend reset its connection after a whole request, before an octet of the answer.
//!
//! ## How tcpwhy knows
//! The request is complete by its framing, no octet of an answer to it came, and the server sent a RST without a FIN before it. The flow is
//! the backend leg of a proxy.
//!
//! ## What it is not
//! - `server-reset-mid-response`: the same on a connection that is no proxy's, or in the middle of an answer.
//! - `http-keepalive-race`, `idle-flow-expired`: there a close of the server or a long pause came before the request.
//! - `reset-unread-data`: there the client was still sending.
//!
//! ## What people see
//! nginx: `recv() failed (104: Connection reset by peer) while reading response header from upstream`; HAProxy: 502 with `SH--`.
//!
//! ## False alarms it avoids
//! A RST behind a FIN of either side, and a RST that meets a request whose body was still coming.

use super::unanswered;
use crate::event::{Kind, ResetKind, Side};
use crate::rule::finding::{Confidence, Culprit, Finding};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Explains, Keep, Needs, Rule, Scope, Step};

pub static RULE: Rule = Rule {
    id: "http-upstream-reset-before-response",
    title: "the backend reset the connection after the request, before answering",
    confidence: Confidence::Certain,
    culprit: Culprit::Upstream,
    needs: Needs::all(&[Kind::RequestEnd, Kind::Reset]),
    symptom: true,
    says: "{server} reset the connection {after} after a request of {client_host}, without one octet of an answer",
    users_see: &[
        "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        "502 Bad Gateway",
        "AH01102: error reading status line from remote server",
        "SH--",
    ],
    do_first: &[
        Step {
            says: "On {host}: did the kernel kill the service, or did it crash, at that second?",
            command: "sudo dmesg -T | grep -iE 'killed process|segfault|oom'",
        },
        Step {
            says: "On {host}: how often did the kernel abort connections with data outstanding?",
            command: "nstat -az TcpExtTCPAbortOnData TcpExtTCPAbortOnClose",
        },
    ],
    verify: &[Step {
        says: "from the proxy; (56) means that it still resets:",
        command: "curl -sS -o /dev/null -m 30 http://{host}:{port}/",
    }],
    not: &[("client-abandoned", "the client had closed nothing")],
    cannot_show: &["why the backend aborted"],
    explains: &[
        Explains("http-gateway-error", Scope::Link),
        Explains("http-upstream-closed-before-response", Scope::Link),
        Explains("closed-without-answer", Scope::Link),
        Explains("server-reset-mid-response", Scope::Same),
        Explains("server-reset-mid-response", Scope::PeerTime),
        Explains("proxy-retries-hide-failure", Scope::Same),
    ],
    sources: &["RFC 9293 §3.10.7.4", "measured: nginx 502, HAProxy 502 SH, Apache 502 (104)"],
    check: Check::Flow(check),
    corroborate: Some(behind_a_proxy),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    let reset = flow.facts.reset(Side::Server)?;
    if !flow.closed_first(Side::Server) || flow.server().fin.is_some() {
        return None;
    }
    if !matches!(reset.kind, ResetKind::Abort | ResetKind::Stray) || reset.unread > 0 && reset.kind == ResetKind::Abort
    {
        return None;
    }
    let (asked, _) = unanswered(flow, reset.at)?;
    let after = reset.at.time.since(asked.time);
    Some(
        RULE.found(flow, reset.at, Side::Server, format!("RST {after} later: no answer to this request"))
            .and(asked, Side::Client, "the request is complete")
            .with("after", after),
    )
}

fn behind_a_proxy(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = finding.subject.flow() else { return Keep::Drop };
    if capture.links_of(flow).any(|link| link.backend_leg == flow) { Keep::Yes } else { Keep::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{Scene, World};
    use crate::rule::view::{Link, LinkMethod};

    fn asked() -> Scene {
        Scene::open().request(3, "GET", "/", 80).acked(Side::Client, 4)
    }

    #[test]
    fn a_reset_on_a_backend_leg_is_told_with_both_packets() {
        let scene = asked().rst(Side::Server, 33, ResetKind::Abort, 0);
        let finding = scene.check(&RULE).expect("reset");
        assert_eq!((finding.evidence[0].at.number, finding.evidence[1].at.number), (6, 4));
        let mut world = World::new().with(&scene);
        assert_eq!(world.corroborated(&RULE, finding.clone()), None);
        let client = crate::event::PacketRef { file: 0, number: 99, time: Default::default() };
        world.links = vec![Link::whole(client, scene.facts.id, LinkMethod::RequestLine, Confidence::High)];
        assert!(world.corroborated(&RULE, finding).is_some());
    }

    #[test]
    fn a_reset_after_a_fin_or_in_an_answer_is_another_thing() {
        assert_eq!(asked().fin(Side::Server, 30).rst(Side::Server, 33, ResetKind::AfterFin, 0).check(&RULE), None);
        assert_eq!(asked().response(30, 200, 9).rst(Side::Server, 33, ResetKind::Abort, 0).check(&RULE), None);
    }
}
