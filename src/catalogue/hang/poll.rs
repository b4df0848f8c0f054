//! Requests that are meant to wait: long polls and blocking queries.

use crate::event::story::Story;
use crate::event::{PacketRef, What};
use crate::rule::exchange::Exchange;
use crate::rule::summary::FlowSummary;
use crate::rule::view::{CaptureView, FlowView};
use crate::time::Elapsed;
use crate::wire::http::RequestHead;

/// Words in a request-target that say "wait until something happens": long polls, Kubernetes' watch, Consul's blocking queries, CouchDB's
/// changes feed, Telegram's and Matrix's `timeout=`.
const WORDS: [&str; 9] = ["poll", "watch", "wait", "timeout=", "subscribe", "stream", "events", "comet", "feed="];
/// An answer this late, of a route, makes its next silence nothing special.
const LATE: Elapsed = Elapsed::secs(5);

/// The target says that it waits.
pub(super) fn named(target: &str) -> bool {
    let target = target.to_ascii_lowercase();
    WORDS.iter().any(|word| target.contains(word))
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
}

impl Answered<'_> {
    /// How long the first octet took.
    pub(super) fn took(&self) -> Elapsed {
        self.answer.time.since(self.asked.time)
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
            What::Response(head) if head.status >= 200 => {
                if let Some((head, Some(asked))) = waiting.take() {
                    list.push(Answered { asked, head, answer: event.at });
                }
            }
            _ => {}
        }
    }
    list
}

/// The route of the latest exchange was answered late before, on the same connection.
pub(super) fn answered_late(flow: &FlowView<'_>, exchange: &Exchange<'_>) -> bool {
    late(flow.story, path(&exchange.head.target))
}

/// The same on another connection to the server.
pub(super) fn elsewhere(flow: &FlowSummary, capture: &CaptureView<'_>) -> bool {
    let Some(wanted) = latest_path(&flow.story) else { return false };
    let others = capture.flows_to(&flow.facts.server).filter(|other| other.facts.id != flow.facts.id);
    others.take(256).any(|other| late(&other.story, wanted))
}

/// The path of the latest request.
pub(super) fn latest_path(story: &Story) -> Option<&str> {
    story.events().rev().find_map(|event| match &event.what {
        What::Request(head) => Some(path(&head.target)),
        _ => None,
    })
}

fn late(story: &Story, wanted: &str) -> bool {
    answered(story).iter().any(|known| path(&known.head.target) == wanted && known.took() >= LATE)
}
