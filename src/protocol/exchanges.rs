//! Which response answers which request, and which exchanges are told.
//!
//! A connection may carry a million requests, a flow's story holds few events. The first exchanges are told as they happen; later ones are
//! held back and told only when something about them is unusual: an error status, an upgrade, a slow answer, an objection or a conflict in
//! a head, an answer that nobody asked for or that breaks off; behind an error also the next few that are none. When the connection ends, or is to be judged while it is open, what is
//! outstanding is told, or else the latest exchange that was complete.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Emit;
use crate::event::{Event, PacketRef, Side, What};
use crate::time::Elapsed;
use crate::wire::http::{Framing, RequestHead, ResponseHead};

/// Exchanges that are told as they happen.
const TOLD: u64 = 16;
/// Requests without an answer that are followed; the oldest is given up beyond.
const OUTSTANDING: usize = 64;
/// Events held back of one exchange: a head and an end of each message, and some interim responses.
const HELD: usize = 8;
/// An answer is unusual when its head comes that much later than the head of its request: well below what any rule calls slow.
const SLOW: Elapsed = Elapsed::millis(500);

/// Good answers told behind an error: they show that it is over, or that it comes and goes.
const AGAIN: u8 = 2;

/// The exchanges of one connection.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Exchanges {
    begun: u64,
    /// Requests whose response is not complete, oldest first, and responses whose request is not complete.
    open: VecDeque<Exchange>,
    /// The latest complete exchange, if it was held back.
    latest: Vec<Event>,
    /// The connection ends: nothing more is held back.
    closing: bool,
    /// So many of the next good answers are told.
    recovering: u8,
}

#[derive(Debug, Serialize, Deserialize)]
struct Exchange {
    /// Packet with the request head; `None` where a response came before it.
    asked: Option<PacketRef>,
    method: Method,
    request_complete: bool,
    answer: Answer,
    /// Told as it happens.
    loud: bool,
    held: Vec<Event>,
}

/// What of a request decides how its response ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Method {
    Head,
    Connect,
    #[default]
    Other,
}

impl Method {
    fn of(token: &str) -> Self {
        match token {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    fn token(self) -> &'static str {
        match self {
            Self::Head => "HEAD",
            Self::Connect => "CONNECT",
            Self::Other => "",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Awaited,
    Begun,
    Complete,
}

/// What a response is to the request that it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answered {
    /// How its body ends.
    pub framing: Framing,
    pub method: Method,
    /// The request was seen.
    pub known: bool,
    /// The final response is still to come.
    pub interim: bool,
}

/// What events take that are held back: most of them point to a head.
pub(super) fn held_back(events: &Vec<Event>) -> usize {
    const HEAD: usize = 320;
    events.capacity() * size_of::<Event>() + events.len() * HEAD
}

impl Exchanges {
    /// Octets that its open exchanges take, about.
    pub(super) fn weight(&self) -> usize {
        let own = self.open.capacity() * size_of::<Exchange>();
        own + self.open.iter().map(|exchange| held_back(&exchange.held)).sum::<usize>() + held_back(&self.latest)
    }

    /// A request head was read.
    pub(super) fn request(&mut self, at: PacketRef, head: Box<RequestHead>, emit: Emit<'_>) {
        let unusual = head.conflict.is_some() || head.objection.is_some();
        let early = self.open.iter().rposition(|exchange| exchange.asked.is_none() && !exchange.request_complete);
        let number = early.unwrap_or_else(|| self.add(false));
        if let Some(exchange) = self.open.get_mut(number) {
            (exchange.asked, exchange.method) = (Some(at), Method::of(&head.method));
        }
        self.tell(number, Event { at, side: Side::Client, what: What::Request(head) }, unusual, emit);
    }

    /// The latest request is complete.
    pub(super) fn request_end(&mut self, event: Event, emit: Emit<'_>) {
        // Only the newest request can still be incomplete.
        let Some(number) = self.open.iter().rposition(|exchange| !exchange.request_complete) else { return };
        self.tell(number, event, false, emit);
        if let Some(exchange) = self.open.get_mut(number) {
            exchange.request_complete = true;
        }
        self.retire();
    }

    /// A response head was read; what it answers. `in_request`: the client is in the middle of a request head, and this answers that one
    /// if no other request is outstanding.
    pub(super) fn response(
        &mut self,
        at: PacketRef,
        head: Box<ResponseHead>,
        in_request: bool,
        emit: Emit<'_>,
    ) -> Answered {
        let interim = matches!(head.status, 100 | 102..200);
        let usual = matches!(head.status, 100 | 102..400) && head.conflict.is_none() && head.objection.is_none();
        let awaited = self.open.iter().position(|exchange| exchange.answer == Answer::Awaited);
        let number = awaited.unwrap_or_else(|| self.add(!in_request && !interim));
        let (mut method, mut asked) = (Method::Other, None);
        if let Some(exchange) = self.open.get_mut(number) {
            (method, asked) = (exchange.method, exchange.asked);
            if !interim {
                exchange.answer = Answer::Begun;
            }
        }
        let answered =
            Answered { framing: head.framing_after(method.token()), method, known: asked.is_some(), interim };
        let slow = asked.is_none_or(|asked| at.time.since(asked.time) >= SLOW);
        let failed = head.status >= 500;
        let recovers = self.recovering > 0 && !interim;
        self.recovering = if failed { AGAIN } else { self.recovering - u8::from(recovers) };
        self.tell(
            number,
            Event { at, side: Side::Server, what: What::Response(head) },
            !usual || slow || recovers,
            emit,
        );
        answered
    }

    /// The latest response is complete, or breaks off (then it is `unusual`).
    pub(super) fn response_end(&mut self, event: Event, unusual: bool, emit: Emit<'_>) {
        let Some(number) = self.open.iter().position(|exchange| exchange.answer == Answer::Begun) else {
            return emit(event);
        };
        self.tell(number, event, unusual, emit);
        if let Some(exchange) = self.open.get_mut(number) {
            exchange.answer = Answer::Complete;
        }
        self.retire();
    }

    /// A hole swallowed response heads: nobody knows how many requests they answered, so that the next one is taken for the latest's.
    pub(super) fn lose_answers(&mut self) {
        let awaited = self.open.iter().rposition(|exchange| exchange.answer == Answer::Awaited);
        for (number, exchange) in self.open.iter_mut().enumerate() {
            if Some(number) != awaited {
                exchange.answer = Answer::Complete;
            }
        }
        self.retire();
    }

    /// Something is told that concerns the connection as a whole: what led to it first.
    pub(super) fn settle(&mut self, emit: Emit<'_>) {
        self.latest.drain(..).for_each(&mut *emit);
        for exchange in &mut self.open {
            exchange.loud = true;
            exchange.held.drain(..).for_each(&mut *emit);
        }
    }

    /// The connection ends: from here on nothing is held back.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// Opens an exchange; its place.
    fn add(&mut self, request_complete: bool) -> usize {
        if self.open.len() == OUTSTANDING {
            self.open.pop_front();
        }
        self.begun += 1;
        self.open.push_back(Exchange {
            asked: None,
            method: Method::Other,
            request_complete,
            answer: Answer::Awaited,
            loud: self.closing || self.begun <= TOLD,
            held: Vec::new(),
        });
        self.open.len() - 1
    }

    fn tell(&mut self, number: usize, event: Event, unusual: bool, emit: Emit<'_>) {
        let Some(exchange) = self.open.get_mut(number) else { return };
        if !exchange.loud && !unusual && exchange.held.len() < HELD {
            return exchange.held.push(event);
        }
        if !exchange.loud {
            // Told in their order: a reader takes the last one told for the latest.
            self.latest.clear();
            for exchange in self.open.iter_mut().take(number + 1) {
                exchange.loud = true;
                exchange.held.drain(..).for_each(&mut *emit);
            }
        }
        emit(event);
    }

    /// Lets go of what is complete.
    fn retire(&mut self) {
        let complete = |exchange: &Exchange| exchange.request_complete && exchange.answer == Answer::Complete;
        while self.open.front().is_some_and(complete) {
            self.latest = self.open.pop_front().map(|exchange| exchange.held).unwrap_or_default();
        }
    }
}
