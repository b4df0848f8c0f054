//! HTTP heads, and message framing of HTTP/1. RFC 9112; heads of HTTP/1 are read by `httparse`, those of HTTP/2 come from header blocks.

mod block;
mod chunked;
mod fields;
mod head;
mod recognise;

use serde::{Deserialize, Serialize};

use super::ShortText;
pub use block::{grpc_status, is_grpc, request_of, response_of};
pub use chunked::{ChunkedReader, ChunkedStep};
pub use head::{SHORTEST_ID, parse_request, parse_response, request_ids};
pub use recognise::{PREFACE, looks_like_preface, looks_like_request, looks_like_response};

/// What a request head tells. RFC 9112 §3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestHead {
    /// Method token.
    pub method: ShortText,
    /// request-target, cut to 256 octets.
    pub target: ShortText,
    /// 0 or 1 (HTTP/1.x).
    pub minor: u8,
    /// Host field.
    pub host: Option<ShortText>,
    /// User-Agent, cut to 80 octets.
    pub user_agent: Option<ShortText>,
    /// Last entries of X-Forwarded-For, Forwarded for=, X-Real-IP, True-Client-IP, CF-Connecting-IP: (field name in lower case, value cut to 64).
    pub forwarded: Vec<(ShortText, ShortText)>,
    /// Request ids: X-Request-ID, traceparent, …: (field name in lower case, value cut to 64), at most 8.
    pub ids: Vec<(ShortText, ShortText)>,
    /// Expect: 100-continue.
    pub expects_continue: bool,
    /// Upgrade field value, if any.
    pub upgrade: Option<ShortText>,
    /// Accept holds text/event-stream.
    pub accepts_events: bool,
    /// Octets of the head.
    pub len: u32,
    /// How the body ends.
    pub framing: Framing,
    /// Why a proxy and a server may take different ends for the message, if they may.
    pub conflict: Option<Conflict>,
    /// The strict reading failed and the lenient one succeeded: what the strict one objected to.
    pub objection: Option<ShortText>,
    /// HTTP/2: its stream; 0 in HTTP/1.
    pub stream: u32,
    /// A gRPC call (its Content-Type says so).
    pub grpc: bool,
    /// `grpc-timeout`: how long the caller waits.
    pub patience: Option<crate::time::Elapsed>,
}

/// What a response head tells. RFC 9112 §4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Reason phrase, cut to 64 octets.
    pub reason: ShortText,
    /// 0 or 1.
    pub minor: u8,
    /// Server field, cut to 64 octets.
    pub server: Option<ShortText>,
    /// Content-Type, cut to 64 octets.
    pub content_type: Option<ShortText>,
    /// Location, cut to 128 octets.
    pub location: Option<ShortText>,
    /// Retry-After.
    pub retry_after: Option<ShortText>,
    /// Via.
    pub via: Option<ShortText>,
    /// Request ids, as in [`RequestHead::ids`].
    pub ids: Vec<(ShortText, ShortText)>,
    /// Hash of the fields that tell one answer from another and that proxies pass on: ETag, else Last-Modified, else Date; with
    /// Content-Length. 0 = none of the three.
    pub identity: u64,
    /// Connection: close, or HTTP/1.0 without keep-alive.
    pub closes: bool,
    /// Octets of the head.
    pub len: u32,
    /// How the body ends, were it the answer to a GET: the caller corrects for HEAD, CONNECT, 1xx, 204, 304 (§6.3).
    pub framing: Framing,
    /// As in [`RequestHead::conflict`].
    pub conflict: Option<Conflict>,
    /// As in [`RequestHead::objection`].
    pub objection: Option<ShortText>,
    /// As in [`RequestHead::stream`].
    pub stream: u32,
}

impl ResponseHead {
    /// No 1xx behind which the answer is still to come. A status that a header table hides (0) is taken for an answer.
    pub fn is_final(&self) -> bool {
        self.status == 101 || !(100..200).contains(&self.status)
    }

    /// How the body ends when this answers a request with `method`: answers to HEAD, successful answers to CONNECT, and the status codes
    /// 1xx, 204 and 304 have none, whatever their fields say (RFC 9112 §6.3).
    pub fn framing_after(&self, method: &str) -> Framing {
        let tunnel = method == "CONNECT" && (200..300).contains(&self.status);
        if method == "HEAD" || tunnel || matches!(self.status, 100..200 | 204 | 304) {
            Framing::None
        } else {
            self.framing
        }
    }
}

/// How a message body ends. RFC 9112 §6.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// No body.
    #[default]
    None,
    /// Content-Length.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Up to the close of the connection.
    UntilClose,
}

/// Why two programs may take different ends for a message: what one takes for its body is another message to the other. RFC 9112 §6.3, §11.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Conflict {
    /// Both Content-Length and Transfer-Encoding.
    LengthAndCoding,
    /// Several lengths that differ.
    Lengths,
    /// A length that is no number, or none that fits 64 bits.
    Length,
    /// A request's last coding is not chunked.
    Coding,
}

impl Conflict {
    /// What the head has, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::LengthAndCoding => "both Content-Length and Transfer-Encoding",
            Self::Lengths => "two values of Content-Length that differ",
            Self::Length => "a Content-Length that cannot be read",
            Self::Coding => "a Transfer-Encoding that does not end in chunked",
        }
    }
}

/// What the octets at a message's beginning are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head<T> {
    /// The whole head is there.
    Complete(Box<T>),
    /// More octets are needed.
    Partial,
    /// It is no HTTP head; why, in a few words.
    Broken(&'static str),
}
