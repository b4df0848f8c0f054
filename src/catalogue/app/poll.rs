//! Requests that are meant to wait: long polls and blocking queries.

use crate::event::story::Story;
use crate::event::{PacketRef, What};
use crate::rule::exchange::{Exchange, exchanges};
use crate::time::Elapsed;
use crate::wire::http::RequestHead;

/// Words in a request-target that say "wait until something happens": long polls, Kubernetes' watch, Consul's blocking queries, CouchDB's
/// changes feed, Telegram's `getUpdates` and Matrix's `timeout=`, XMPP over HTTP, ActiveSync's Ping, the GitLab runner.
const WORDS: [&str; 13] = [
    "poll",
    "watch",
    "wait",
    "timeout=",
    "subscribe",
    "stream",
    "events",
    "comet",
    "feed=",
    "getupdates",
    "http-bind",
    "cmd=ping",
    "jobs/request",
];
/// Consul's blocking queries last 5 minutes and a sixteenth: whoever waits longer than this does not wait on purpose.
const NAMED: Elapsed = Elapsed::secs(330);
/// An answer this late is that of a route which waits on purpose, or of one that is too slow for anybody.
pub(super) const LATE: Elapsed = Elapsed::secs(20);

/// The target says that it waits.
pub(in crate::catalogue) fn named(target: &str) -> bool {
    let target = target.to_ascii_lowercase();
    WORDS.iter().any(|word| target.contains(word))
}

/// Whether the latest request of the flow may well be left unanswered for `wait`: its route says so, or was answered as late before (then
/// twice that time is still no surprise). `elsewhere` are other connections to the server.
pub(super) fn on_purpose<'a>(story: &Story, wait: Elapsed, elsewhere: impl Iterator<Item = &'a Story>) -> bool {
    let Some(target) = latest(story) else { return false };
    if named(target) && wait < NAMED {
        return true;
    }
    let late = elsewhere
        .filter_map(|other| latest_answer(other, path(target)))
        .chain(latest_answer(story, path(target)))
        .max();
    late.is_some_and(|late| late >= LATE && wait <= late + late)
}

/// The longest time in which a path was answered.
fn latest_answer(story: &Story, wanted: &str) -> Option<Elapsed> {
    answered(story).iter().filter(|known| known.of(wanted)).map(Answered::took).max()
}

/// Times that the latest request's path was answered late.
pub(super) fn late_answers(story: &Story, wanted: &str) -> usize {
    answered(story).iter().filter(|known| known.of(wanted) && known.took() >= LATE).count()
}

/// Path without the query.
pub(super) fn path(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or(target)
}

/// One question and the first octets of its answer.
pub(super) struct Answered<'a> {
    /// Packet that completed the request.
    pub(super) asked: PacketRef,
    /// The request head.
    pub(super) head: &'a RequestHead,
    /// Packet of the final response head.
    pub(super) answer: PacketRef,
    /// Its status.
    pub(super) status: u16,
}

impl Answered<'_> {
    /// How long the first octet took.
    pub(super) fn took(&self) -> Elapsed {
        self.answer.time.since(self.asked.time)
    }

    /// It is an answer of that path. An error that came late is none: a long poll ends with a success.
    fn of(&self, wanted: &str) -> bool {
        self.status < 400 && path(&self.head.target) == wanted
    }
}

/// The answered requests that the story holds, one after the other. A response whose request was left out, and pipelined requests, are
/// passed over: nobody can tell what they answer.
pub(super) fn answered(story: &Story) -> Vec<Answered<'_>> {
    let mut list = Vec::new();
    let mut waiting: Option<(&RequestHead, Option<PacketRef>)> = None;
    for event in story.events() {
        match &event.what {
            What::Request(head) => waiting = Some((head, None)),
            What::RequestEnd => {
                if let Some((_, end)) = &mut waiting {
                    *end = Some(event.at);
                }
            }
            What::Response(response) if response.status >= 200 => {
                if let Some((head, Some(asked))) = waiting.take() {
                    list.push(Answered { asked, head, answer: event.at, status: response.status });
                }
            }
            _ => {}
        }
    }
    list.extend(exchanges(story).iter().filter_map(on_stream));
    list
}

/// An answered request of HTTP/2. A gRPC server may keep the head of its answer until it has something to say: those tell nothing.
fn on_stream<'a>(exchange: &Exchange<'a>) -> Option<Answered<'a>> {
    let head = exchange.head;
    let (answer, response) = exchange.response.filter(|(_, response)| head.stream > 0 && response.status >= 200)?;
    let asked = exchange.request_end.filter(|asked| *asked <= answer && !head.grpc)?;
    Some(Answered { asked, head, answer, status: response.status })
}

/// The target of the latest request; of HTTP/2 that of the first one that waits.
fn latest(story: &Story) -> Option<&str> {
    let all = exchanges(story);
    let waits = |one: &&Exchange<'_>| one.head.stream > 0 && one.response.is_none() && one.response_end.is_none();
    if let Some(exchange) = all.iter().find(waits) {
        return Some(exchange.head.target.as_str());
    }
    story.events().rev().find_map(|event| match &event.what {
        What::Request(head) => Some(head.target.as_str()),
        _ => None,
    })
}

/// The path of the latest request.
pub(super) fn latest_path(story: &Story) -> Option<&str> {
    latest(story).map(path)
}
