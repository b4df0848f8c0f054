//! What a client still waits for: the latest question of a flow and how far its answer came.
//!
//! Exact for HTTP/1, where the framing of both messages is known (RFC 9112 §6.3), for the streams of HTTP/2 in the clear, and for commands of
//! Redis that are answered at once. For everything else only "the client spoke last" is known, and where even that proves nothing (TLS may carry control frames of HTTP/2 at any time) the
//! answer is "nothing is pending".

use super::finding::Finding;
use super::value::Value;
use super::view::FlowView;
use crate::event::errors::Errors;
use crate::event::story::Story;
use crate::event::{Event, Kind, PacketRef, Protocol, Side, What};
use crate::flow::facts::Handshake;
use crate::wire::http::{RequestHead, ResponseHead};

/// One request of a flow and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Packet that completed the request head.
    pub request: PacketRef,
    /// The request head.
    pub head: &'a RequestHead,
    /// Packet that completed the request with its body.
    pub request_end: Option<PacketRef>,
    /// The final response head (1xx other than 101 left out) and its packet.
    pub response: Option<(PacketRef, &'a ResponseHead)>,
    /// Packet that completed the response.
    pub response_end: Option<PacketRef>,
}

/// Good answers behind the last error from which on it is over on that connection.
const AGAIN: u64 = 2;

/// Says of answers with an error status on one connection when they began and ended, and how often others came between; also of those that
/// the story gave up (slots `onset`, `until`, `over`, `times`, `between`).
pub fn dated(mut finding: Finding, errors: &Errors) -> Finding {
    let shown = finding.evidence.first().map(|told| told.at);
    if let Some(first) = errors.first.filter(|first| shown.is_some_and(|at| *first < at)) {
        finding = finding.with("onset", Value::Frame(first));
    }
    if let Some(latest) = errors.latest.filter(|latest| shown.is_some_and(|at| *latest > at)) {
        finding = finding.with("until", latest.time);
    }
    if let Some(after) = errors.after.filter(|_| errors.since >= AGAIN) {
        finding = finding.with("over", Value::Frame(after));
    }
    match errors.count {
        0 | 1 => finding,
        n => finding
            .with("times", n)
            .with("between", errors.between)
            .note(format!("{n} answers of this connection are of that kind")),
    }
}

/// A question without a whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The packet that completed the question.
    pub asked: PacketRef,
    /// First octets of its answer, when some came.
    pub begun: Option<PacketRef>,
    /// The framing of the messages proves it; otherwise the client merely spoke last.
    pub proven: bool,
}

/// All exchanges that the story tells, in order. In HTTP/1 each response is put to the oldest request that waits (RFC 9112 §9.3.2), in
/// HTTP/2 to that of its stream.
pub fn exchanges(story: &Story) -> Vec<Exchange<'_>> {
    let mut all: Vec<Exchange<'_>> = Vec::new();
    let gap = story.before_lost_requests();
    for (n, event) in story.events().enumerate() {
        let at = event.at;
        if gap == Some(n) {
            // HTTP/1 tells by the order alone what answers what: the rest of these exchanges was given up.
            all.retain(|one| one.head.stream != 0 || one.response_end.is_some());
        }
        match &event.what {
            What::Request(head) => {
                let head = head.as_ref();
                all.push(Exchange { request: at, head, request_end: None, response: None, response_end: None });
            }
            What::RequestEnd => {
                if let Some(exchange) = all.last_mut() {
                    exchange.request_end.get_or_insert(at);
                }
            }
            What::Response(head) if head.is_final() => {
                let waits = |one: &&mut Exchange<'_>| one.response.is_none() && one.head.stream == head.stream;
                if let Some(exchange) = all.iter_mut().find(waits) {
                    exchange.response = Some((at, head.as_ref()));
                }
            }
            What::ResponseEnd | What::ResponseTruncated { .. } => {
                let begun =
                    |exchange: &&mut Exchange<'_>| exchange.response.is_some() && exchange.response_end.is_none();
                if let Some(exchange) = all.iter_mut().find(begun) {
                    exchange.response_end = Some(at);
                }
            }
            What::StreamEnd { .. } | What::StreamReset(_) => end_stream(&mut all, event),
            _ => {}
        }
    }
    all
}

/// One direction of a stream is complete, or both are over.
fn end_stream(all: &mut [Exchange<'_>], event: &Event) {
    let number = match &event.what {
        What::StreamEnd { stream } => *stream,
        What::StreamReset(reset) => reset.stream.number,
        _ => return,
    };
    let Some(exchange) = all.iter_mut().rfind(|exchange| exchange.head.stream == number) else { return };
    match (&event.what, event.side) {
        (What::StreamEnd { .. }, Side::Client) => exchange.request_end = Some(event.at),
        _ => {
            exchange.response_end.get_or_insert(event.at);
        }
    }
}

impl<'a> Exchange<'a> {
    /// Long polls, event streams and upgraded connections: a close while the answer is open is their normal end.
    pub fn is_push(&self) -> bool {
        let events = |head: &ResponseHead| {
            head.status == 101 || head.content_type.as_deref().is_some_and(|kind| kind.starts_with("text/event-stream"))
        };
        self.head.accepts_events || self.head.upgrade.is_some() || self.response.is_some_and(|(_, head)| events(head))
    }
}

impl<'a> FlowView<'a> {
    /// The latest exchange; in HTTP/2, where many are open at once, the first one that waits for its answer.
    pub fn exchange(&self) -> Option<Exchange<'a>> {
        *self.latest.get_or_init(|| self.latest_exchange())
    }

    fn latest_exchange(&self) -> Option<Exchange<'a>> {
        if !self.saw(Kind::Request) {
            return None;
        }
        if self.protocol(Side::Client) == Some(Protocol::Http2) {
            return self.waiting_stream();
        }
        let (mut request_end, mut response, mut ended, mut response_end) = (None, None, None, None);
        // From the end: what came before the latest request does not matter.
        for event in self.story.events().rev() {
            match &event.what {
                What::Request(head) => {
                    return Some(Exchange { request: event.at, head, request_end, response, response_end });
                }
                What::RequestEnd => request_end = request_end.or(Some(event.at)),
                What::ResponseEnd => ended = ended.or(Some(event.at)),
                What::Response(head) if head.is_final() => {
                    response = response.or(Some((event.at, head.as_ref())));
                    // An end without a beginning is that of an earlier answer.
                    response_end = ended;
                }
                _ => {}
            }
        }
        None
    }

    /// The first stream that waits, else the last one. Where events were left out, an answer may be among them: only what came behind
    /// the gap is certain.
    fn waiting_stream(&self) -> Option<Exchange<'a>> {
        let all = exchanges(self.story);
        let sure = match self.story.left_out() {
            0 => None,
            _ => self.story.events().nth(Story::HEAD).map(|event| event.at),
        };
        let waits =
            |one: &&Exchange<'_>| one.request_end.is_some() && one.response.is_none() && one.response_end.is_none();
        all.iter()
            .filter(|one| sure.is_none_or(|from| one.request >= from))
            .find(waits)
            .or(all.last().filter(|one| sure.is_none_or(|from| one.request >= from)))
            .copied()
    }

    /// What the client still waits for, as far as the octets tell; `None` when nothing is outstanding or nobody can tell.
    pub fn pending(&self) -> Option<Pending> {
        *self.waits.get_or_init(|| self.outstanding())
    }

    fn outstanding(&self) -> Option<Pending> {
        let pending = self.asked()?;
        if self.client().unseen + self.server().unseen == 0 {
            return Some(pending);
        }
        // Octets that were acknowledged but never seen may be the answer, or the end of the question. Only if the last of them came before
        // the question, and nothing after it, is it still open.
        let hole = self.client().unseen_last.max(self.server().unseen_last)?;
        let silent = self.server().last_payload.is_none_or(|answer| answer < pending.asked);
        // A question whose end was seen ends with octets; a bare ACK that stands for it shows only that it is missing.
        let seen = self.client().last_payload.is_some_and(|octets| octets >= pending.asked);
        (hole <= pending.asked && seen && silent && pending.begun.is_none()).then_some(pending)
    }

    /// What the client asked for last without a whole answer, where nothing is missing from the capture.
    fn asked(&self) -> Option<Pending> {
        match self.protocol(Side::Client) {
            Some(Protocol::Http) => self.pending_http(),
            // A server that has not even begun HTTP/2 owes no answer. One of gRPC may keep the head of its answer until it has something
            // to say.
            Some(Protocol::Http2) if self.server().payload == 0 => None,
            Some(Protocol::Http2) if self.saw(Kind::Request) => {
                self.pending_http().filter(|_| self.exchange().is_some_and(|exchange| !exchange.head.grpc))
            }
            Some(Protocol::Tls) => {
                // Once the server has sent application data, a client that speaks last may only have sent a WINDOW_UPDATE.
                let asked = self.first(Kind::TlsData, Side::Client)?.at;
                let silent = self.first(Kind::TlsData, Side::Server).is_none();
                silent.then_some(Pending { asked, begun: None, proven: false })
            }
            Some(Protocol::Http2) => None,
            // What is published needs no answer, and pings come at any time.
            Some(Protocol::Mqtt | Protocol::Amqp) if self.server().payload > 0 => None,
            Some(Protocol::Redis) if self.is_replica() => None,
            Some(Protocol::Redis) if self.saw(Kind::CommandWaits) => self
                .command()
                .map(|(asked, _)| Pending { asked, begun: None, proven: true })
                .or_else(|| self.spoke_last()),
            _ => self.spoke_last(),
        }
    }

    /// The client's last octets, while nothing came behind them.
    fn spoke_last(&self) -> Option<Pending> {
        let asked = self.client().last_payload?;
        let silent = self.server().last_payload.is_none_or(|answer| answer < asked);
        silent.then_some(Pending { asked, begun: None, proven: false })
    }

    /// A command of Redis that is answered at once and was not, and its packet: the oldest that waits.
    pub fn command(&self) -> Option<(PacketRef, &'a str)> {
        let latest = self.story.events().rev().find_map(|event| match &event.what {
            What::CommandWaits { command } => Some((event.at, command.as_str())),
            _ => None,
        });
        latest.filter(|(asked, _)| self.server().last_payload.is_none_or(|answer| answer < *asked))
    }

    /// A replica of Redis says each second how far it got (REPLCONF ACK, 34 octets and some digits), and nobody answers.
    fn is_replica(&self) -> bool {
        const ACK: u64 = 64;
        let (mine, theirs) = (self.client(), self.server());
        mine.segments > 2 * theirs.segments + 2 && mine.payload <= ACK * mine.segments
    }

    /// The first copy of the oldest thing still unanswered: a SYN, a question, octets that nobody acknowledged; while an answer comes, its
    /// latest octets. A retry does not restart a wait, so waits are counted from here.
    pub fn unanswered(&self) -> Option<PacketRef> {
        if self.facts.handshake == Handshake::Syn && self.server().packets == 0 {
            return self.client().syns.first().copied();
        }
        if self.exchange().is_some_and(|exchange| exchange.is_push()) {
            return None;
        }
        match self.pending() {
            Some(Pending { begun: Some(begun), .. }) => self.server().last_payload.or(Some(begun)),
            Some(pending) => Some(pending.asked),
            None => {
                let waits = [self.client().unacknowledged, self.server().unacknowledged];
                waits.into_iter().flatten().map(|waits| waits.first).min()
            }
        }
    }

    fn pending_http(&self) -> Option<Pending> {
        let exchange = self.exchange()?;
        let asked = exchange.request_end?;
        if exchange.response_end.is_some() || exchange.response.is_some_and(|(_, head)| head.status == 101) {
            return None;
        }
        Some(Pending { asked, begun: exchange.response.map(|(at, _)| at), proven: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::Scene;

    #[test]
    fn a_whole_answer_leaves_nothing_pending() {
        let scene = Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).also(Side::Server, What::ResponseEnd);
        assert_eq!(scene.view().pending(), None);
    }

    #[test]
    fn the_second_request_is_pending_although_the_first_was_answered() {
        let scene = Scene::open()
            .request(3, "GET", "/", 40)
            .response(5, 200, 90)
            .also(Side::Server, What::ResponseEnd)
            .request(100, "GET", "/again", 44);
        let pending = scene.view().pending().expect("the second request waits");
        assert_eq!((pending.asked.number, pending.begun, pending.proven), (6, None, true));
    }

    #[test]
    fn an_answer_that_the_capture_missed_is_not_missing() {
        let mut scene = Scene::open().request(3, "GET", "/", 40);
        scene.facts.from_server.unseen = 253;
        assert_eq!(scene.view().pending(), None);
    }

    #[test]
    fn what_the_capture_missed_before_the_question_does_not_answer_it() {
        let asked_after = |hole: usize| {
            let scene =
                Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).also(Side::Server, What::ResponseEnd);
            let mut scene = scene.request(100, "GET", "/again", 44).acked(Side::Client, 140);
            let at = [scene.facts.from_server.last_payload, scene.facts.last.into()][hole];
            scene.facts.from_server.unseen = 253;
            scene.facts.from_server.unseen_last = at;
            scene
        };
        assert_eq!(asked_after(0).view().pending().map(|waits| waits.asked.number), Some(6));
        assert_eq!(asked_after(1).view().pending(), None, "the answer may be among what was missed");
    }

    #[test]
    fn what_a_replica_acknowledges_is_no_question() {
        let asked = |octets, times: i64| {
            let scene = Scene::open().data(Side::Client, 3, octets).data(Side::Server, 4, 7);
            let many = (1..times).fold(scene, |scene, number| scene.data(Side::Client, 1000 * number, octets));
            many.speaks(Side::Client, Protocol::Redis)
        };
        assert_eq!(asked(35, 9).view().pending(), None);
        assert!(asked(35, 2).view().pending().is_some(), "a command after one that was answered");
        assert!(asked(1448, 9).view().pending().is_some(), "one long command");
    }

    #[test]
    fn a_wait_is_counted_from_the_first_copy() {
        assert_eq!(Scene::new().syn(0).syn(1000).view().unanswered().map(|at| at.number), Some(1));
        let repeated = Scene::open().data(Side::Client, 3, 40).again(Side::Client, 203);
        assert_eq!(repeated.view().unanswered().map(|at| at.number), Some(4));
        let running = Scene::open().request(3, "GET", "/", 40).response(5, 200, 90).data(Side::Server, 900, 1448);
        assert_eq!(running.view().unanswered().map(|at| at.number), Some(6));
    }

    /// A request on a stream of HTTP/2.
    fn stream(scene: Scene, ms: i64, stream: u32, grpc: bool) -> Scene {
        let head = RequestHead { method: "GET".into(), target: "/".into(), stream, grpc, ..RequestHead::default() };
        scene
            .data(Side::Client, ms, 40)
            .speaks(Side::Client, Protocol::Http2)
            .also(Side::Client, What::Request(Box::new(head)))
            .also(Side::Client, What::StreamEnd { stream })
    }

    fn answer(scene: Scene, ms: i64, stream: u32) -> Scene {
        let head = ResponseHead { status: 200, stream, ..ResponseHead::default() };
        scene
            .data(Side::Server, ms, 90)
            .also(Side::Server, What::Response(Box::new(head)))
            .also(Side::Server, What::StreamEnd { stream })
    }

    #[test]
    fn answers_are_put_to_the_requests_of_their_streams() {
        let scene = answer(stream(stream(Scene::open(), 3, 1, false), 4, 3, false), 9, 3);
        let all = exchanges(&scene.story);
        assert_eq!((all[0].response.is_some(), all[1].response.map(|(at, _)| at.number)), (false, Some(6)));
        assert!(all[1].response_end.is_some() && all[0].request_end.is_some());
        let pending = scene.view().pending().expect("the first stream waits");
        assert_eq!((pending.asked.number, pending.proven), (4, true));
        assert_eq!(answer(scene, 20, 1).view().pending(), None);
        let call = stream(answer(stream(Scene::open(), 3, 1, false), 4, 1), 5, 3, true);
        assert_eq!(call.view().pending(), None, "a call may be answered late");
        assert_eq!(stream(Scene::open(), 3, 1, false).view().pending(), None, "HTTP/2 did not even begin");
    }

    #[test]
    fn an_answer_that_was_left_out_is_not_missing() {
        let mut scene = stream(Scene::open(), 3, 1, false);
        for number in 1..40 {
            scene = answer(
                stream(scene, 10 + i64::from(number), 2 * number + 1, false),
                60 + i64::from(number),
                2 * number + 1,
            );
        }
        assert!(scene.story.left_out() > 0);
        assert_eq!(scene.view().pending(), None);
    }

    #[test]
    fn no_answer_of_the_end_is_given_to_a_request_of_the_beginning() {
        let mut scene = Scene::open();
        for number in 0..60 {
            let ms = 10 + 10 * number;
            scene = scene.request(ms, "GET", "/", 40).response(ms + 1, 200, 40).also(Side::Server, What::ResponseEnd);
        }
        assert!(scene.story.left_out() > 0);
        let all = exchanges(&scene.story);
        let late = |one: &Exchange<'_>| one.response.is_none_or(|(at, _)| at.number > one.request.number + 2);
        assert!(all.len() >= 10 && !all.iter().any(late), "{all:?}");
    }

    #[test]
    fn an_answer_whose_body_meets_many_hindrances_stays_the_answer_of_its_request() {
        let mut scene = Scene::open().request(10, "GET", "/", 40).response(20, 200, 40);
        for _ in 0..100 {
            scene = scene.also(Side::Client, What::ZeroWindow);
        }
        let scene = scene.also(Side::Server, What::ResponseEnd);
        assert!(scene.story.left_out() > 0);
        let all = exchanges(&scene.story);
        assert!(all.len() == 1 && all[0].response_end.is_some(), "{all:?}");
    }

    #[test]
    fn an_interim_response_is_no_answer() {
        let scene = Scene::open().request(3, "POST", "/", 40).response(5, 100, 25);
        assert!(scene.view().pending().is_some_and(|pending| pending.begun.is_none()));
    }

    #[test]
    fn a_tls_client_that_speaks_last_after_server_data_may_only_manage_its_window() {
        let scene = Scene::open()
            .data(Side::Client, 3, 300)
            .speaks(Side::Client, Protocol::Tls)
            .data(Side::Server, 4, 900)
            .data(Side::Client, 5, 100)
            .also(Side::Client, What::TlsData);
        assert!(scene.view().pending().is_some());
        let answered = scene.data(Side::Server, 6, 500).also(Side::Server, What::TlsData).data(Side::Client, 7, 40);
        assert_eq!(answered.view().pending(), None);
    }
}
