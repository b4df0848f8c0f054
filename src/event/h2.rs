//! What HTTP/2 and gRPC connections tell beside requests and answers.

use serde::{Deserialize, Serialize};

use super::PacketRef;
use crate::time::Elapsed;
use crate::wire::h2::GoAway;

/// One stream, as far as it went. RFC 9113 §5.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its number.
    pub number: u32,
    /// Packet that completed the request's header fields; `None` when they came before the capture or in a hole.
    pub asked: Option<PacketRef>,
    /// Method and path, cut to 128 octets; empty when not known.
    pub request: String,
    /// A gRPC call.
    pub grpc: bool,
    /// How long its caller said that it waits.
    pub patience: Option<Elapsed>,
    /// Packet that completed the request.
    pub request_end: Option<PacketRef>,
    /// The header fields of the final answer came.
    pub answered: bool,
    /// The answer is complete.
    pub answer_ended: bool,
}

/// A RST_STREAM. RFC 9113 §6.4.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReset {
    /// The stream.
    pub stream: Stream,
    /// Error code (§7).
    pub code: u32,
    /// How many this side reset on the connection so far, this one included.
    pub nth: u32,
    /// Of these, in the same second of capture time.
    pub in_second: u32,
    /// Its sender had announced before that it takes no more streams.
    pub leaving: bool,
}

/// A GOAWAY and how its connection stood. RFC 9113 §6.8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Farewell {
    /// What it says.
    pub away: GoAway,
    /// Streams without a whole answer above the last one that its sender names: none of them was worked on. At most 8.
    pub refused: Vec<Stream>,
    /// Other streams without a whole answer, at most 8.
    pub waiting: Vec<Stream>,
    /// Streams that were answered before.
    pub answered: u32,
}

/// The status of a gRPC call that is not 0 (OK).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrpcStatus {
    /// The call.
    pub stream: Stream,
    /// Status code.
    pub status: u32,
    /// `grpc-message`, cut to 160 octets.
    pub message: String,
    /// It stands in the head: nothing else was answered ("trailers-only").
    pub at_once: bool,
    /// Calls of the connection that failed so far, this one included.
    pub failed: u32,
    /// Calls of the connection that ended so far.
    pub ended: u32,
}

/// As many streams are open as the server permits, and more would be. RFC 9113 §5.1.2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FullHouse {
    /// Streams that the server permits at once.
    pub limit: u32,
    /// Packet of the SETTINGS that says so.
    pub settings: PacketRef,
    /// Packet of the request that took the last place.
    pub since: PacketRef,
    /// Places that became free since then and were taken at once.
    pub taken: u32,
    /// Open streams whose answer had not begun when it was told; the larger number, when it is told again.
    pub unanswered: u32,
}
