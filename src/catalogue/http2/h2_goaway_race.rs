//! A server took leave of an HTTP/2 connection gracefully, and requests that were on their way were lost all the same.
//!
//! ## How tcpwhy knows
//! GOAWAY with NO_ERROR by the server, then its FIN or RST, and requests of that connection that got no answer and no RST_STREAM. A
//! graceful end has two steps: GOAWAY with the largest stream number, then, a round trip later, one with the number of the last stream
//! that is worked on (RFC 9113 §6.8). A server that names the last stream at once and closes races with requests that are under way.
//!
//! ## What it is not
//! - `h2-goaway-error`: there the connection ends in error.
//! - `http-keepalive-race`: the same in HTTP/1.
//! - `closed-without-answer`: there nothing was announced.
//!
//! ## What people see
//! "http2: Transport: cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY] after Request.Body was written", 502
//! of a proxy, "server closed the stream without sending trailers", a few errors at each deploy.
//!
//! ## False alarms it avoids
//! Streams that were answered or refused with RST_STREAM, requests that the same client sent again and that were answered then (a notice),
//! a capture that ends or has holes before the answers could come.

use crate::event::h2::Farewell;
use crate::event::{Kind, PacketRef, Side, What};
use crate::rule::exchange::{Exchange, exchanges};
use crate::rule::finding::{Confidence, Culprit, Finding, Severity};
use crate::rule::value::{Value, counted};
use crate::rule::view::{CaptureView, FlowView};
use crate::rule::{Check, Keep, Needs, Rule, Step};
use crate::time::{Elapsed, Timestamp};
use crate::wire::h2::GoAway;

/// The goodbye is still on its way to the client; longer where the round trip is.
const UNDER_WAY: Elapsed = Elapsed::millis(50);
/// Lost requests that are cited.
const CITED: usize = 4;

pub static RULE: Rule = Rule {
    id: "h2-goaway-race",
    title: "requests were lost at the graceful end of an HTTP/2 connection",
    severity: Severity::Warning,
    confidence: Confidence::High,
    culprit: Culprit::Server,
    needs: Needs::all(&[Kind::GoAway, Kind::Request]),
    claims_absence: true,
    says: "{server} took leave of {client_host} and closed while {lost} had no answer",
    users_see: &[
        "http2: Transport received Server's graceful shutdown GOAWAY",
        "server closed the stream without sending trailers",
        "502 Bad Gateway",
    ],
    do_first: &[
        Step {
            says: "On {host}: was the server stopped, reloaded, or is there a limit of requests or of age per connection?",
            command: "sudo journalctl --since '15 min ago'",
        },
        Step { says: "On {host}: which process speaks HTTP/2 there?", command: "sudo ss -ltnp 'sport = :{port}'" },
    ],
    verify: &[Step {
        says: "from {client_host}; a status says that a new connection works:",
        command: "curl -sS -o /dev/null -m 10 -w '%{response_code}\\n' http://{host}:{port}/",
    }],
    not: &[("network", "the server announced the end, and closed itself")],
    cannot_show: &["whether the client sent the requests again to another server"],
    sources: &["RFC 9113 §6.8", "measured: nginx 1.22 with keepalive_requests, h2load 1.52"],
    check: Check::Flow(check),
    corroborate: Some(corroborate),
    ..Rule::BLANK
};

fn check(flow: &FlowView<'_>) -> Option<Finding> {
    if flow.client().unseen + flow.server().unseen > 0 || flow.facts.mid_stream {
        return None;
    }
    let (at, farewell) = graceful(flow)?;
    let close = flow.close_of(Side::Server).filter(|close| *close >= at)?;
    let all = exchanges(flow.story);
    let under_way = flow.round_trip().unwrap_or_default().max(UNDER_WAY);
    let lost: Vec<&Exchange<'_>> = all.iter().filter(|one| is_lost(one, at.time + under_way)).collect();
    let first = lost.first()?;
    let last = farewell.away.last;
    let word = flow.close_word(Side::Server);
    let mut finding = RULE
        .found(flow, at, Side::Server, format!("GOAWAY NO_ERROR, last stream {last}"))
        .and(close, Side::Server, format!("{word} {} later", close.time.since(at.time)))
        .with("count", lost.len() as u64)
        .with("lost", counted(lost.len(), "request"))
        .with("request", Value::Packet(line(first)));
    for one in lost.iter().take(CITED) {
        finding = finding.and(
            one.request,
            Side::Client,
            format!("stream {}, never answered: {}", one.head.stream, line(one)),
        );
    }
    let beyond = lost.iter().filter(|one| one.head.stream > last).count();
    if beyond > 0 {
        finding = finding.note(format!("{beyond} of them above stream {last}: not worked on, safe to send again"));
    }
    let announced = flow.story.events().any(|e| matches!(&e.what, What::GoAway(one) if one.away.last == GoAway::OPEN));
    Some(match announced {
        true => finding,
        false => {
            finding.note("the server named its last stream at once, without announcing the end a round trip before")
        }
    })
}

/// The server's GOAWAY that names its last stream; no error of anybody.
fn graceful<'a>(flow: &FlowView<'a>) -> Option<(PacketRef, &'a Farewell)> {
    let farewells = || {
        flow.story.events().filter_map(|e| match &e.what {
            What::GoAway(farewell) => Some((e.at, e.side, farewell.as_ref())),
            _ => None,
        })
    };
    if farewells().any(|(_, _, farewell)| farewell.away.code != 0) {
        return None;
    }
    let (at, _, farewell) =
        farewells().find(|(_, side, one)| *side == Side::Server && one.away.last != GoAway::OPEN)?;
    Some((at, farewell))
}

/// Asked, and neither answered nor reset. A client that asks although it must know better by then is in no race.
fn is_lost(one: &Exchange<'_>, known: Timestamp) -> bool {
    one.head.stream > 0 && one.response.is_none() && one.response_end.is_none() && one.request.time <= known
}

fn line(one: &Exchange<'_>) -> String {
    format!("{} {}", one.head.method, one.head.target.split('?').next().unwrap_or(""))
}

/// A client that sent the same requests again and was answered lost nothing but time.
fn corroborate(finding: &mut Finding, capture: &CaptureView<'_>) -> Keep {
    let Some(flow) = capture.flow_of(finding) else { return Keep::Yes };
    let goodbye = finding.first();
    let lost = match finding.values.get("count") {
        Some(Value::Count(lost)) => *lost as usize,
        _ => return Keep::Yes,
    };
    let wanted = match finding.values.get("request") {
        Some(Value::Packet(request)) => request.clone(),
        _ => return Keep::Yes,
    };
    let own = flow.facts.id;
    let again = capture
        .flows_to(&flow.facts.server)
        .filter(|other| other.facts.client.address == flow.facts.client.address && other.facts.id != own)
        .flat_map(|other| exchanges(&other.story))
        .filter(|one| one.request > goodbye && line(one) == wanted && one.response.is_some());
    if again.count() >= lost {
        finding.severity = Severity::Notice;
        finding.notes.push("the client sent them again, and was answered".into());
    }
    Keep::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::rule::testing::{Scene, World};
    use crate::wire::http::{RequestHead, ResponseHead};

    fn asked(scene: Scene, ms: i64, stream: u32) -> Scene {
        let head = RequestHead { method: "GET".into(), target: "/".into(), stream, ..RequestHead::default() };
        scene
            .data(Side::Client, ms, 40)
            .speaks(Side::Client, Protocol::Http2)
            .also(Side::Client, What::Request(Box::new(head)))
            .also(Side::Client, What::StreamEnd { stream })
    }

    fn answered(scene: Scene, ms: i64, stream: u32) -> Scene {
        let head = ResponseHead { status: 200, stream, ..ResponseHead::default() };
        scene
            .data(Side::Server, ms, 90)
            .speaks(Side::Server, Protocol::Http2)
            .also(Side::Server, What::Response(Box::new(head)))
            .also(Side::Server, What::StreamEnd { stream })
    }

    fn goodbye(scene: Scene, ms: i64, last: u32) -> Scene {
        let away = GoAway { last, ..GoAway::default() };
        let farewell = Farewell { away, refused: Vec::new(), waiting: Vec::new(), answered: 1 };
        scene.data(Side::Server, ms, 17).also(Side::Server, What::GoAway(Box::new(farewell)))
    }

    fn raced() -> Scene {
        goodbye(answered(asked(asked(Scene::open(), 3, 1), 4, 3), 5, 1), 6, 1)
    }

    #[test]
    fn a_request_under_way_is_lost_with_the_close() {
        let finding = raced().fin(Side::Server, 6).check(&RULE).expect("lost");
        let cited: Vec<u64> = finding.evidence.iter().map(|told| told.at.number).collect();
        assert_eq!((cited, finding.evidence[0].shows.as_str()), (vec![7, 8, 5], "GOAWAY NO_ERROR, last stream 1"));
        assert_eq!(finding.notes[0], "1 of them above stream 1: not worked on, safe to send again");
    }

    #[test]
    fn an_open_connection_an_answer_and_a_refusal_lose_nothing() {
        assert_eq!(raced().capture_ends(900).check(&RULE), None);
        assert_eq!(answered(raced(), 7, 3).fin(Side::Server, 9).check(&RULE), None);
        let stream = crate::event::h2::Stream { number: 3, ..Default::default() };
        let reset = crate::event::h2::StreamReset { stream, code: 7, nth: 1, in_second: 1, leaving: true };
        let refused = raced().data(Side::Server, 7, 13).also(Side::Server, What::StreamReset(Box::new(reset)));
        assert_eq!(refused.fin(Side::Server, 9).check(&RULE), None);
    }

    #[test]
    fn a_request_after_the_goodbye_is_no_race() {
        let late = asked(goodbye(answered(asked(Scene::open(), 3, 1), 5, 1), 6, 1), 500, 3);
        assert_eq!(late.fin(Side::Server, 501).check(&RULE), None);
    }

    #[test]
    fn requests_that_were_sent_again_are_a_notice() {
        let scene = raced().fin(Side::Server, 6);
        let finding = scene.check(&RULE).expect("lost");
        let again = Scene::starting("10.0.0.1:40001", "10.0.0.2:443", 100, 10).handshake();
        let server = scene.facts.server;
        let mut again = answered(asked(again, 3, 1), 4, 1);
        (again.facts.server, again.facts.client.address) = (server, scene.facts.client.address);
        let world = World::new().with(&scene);
        assert_eq!(world.corroborated(&RULE, finding.clone()).map(|f| f.severity), Some(Severity::Warning));
        assert_eq!(world.with(&again).corroborated(&RULE, finding).map(|f| f.severity), Some(Severity::Notice));
    }
}
