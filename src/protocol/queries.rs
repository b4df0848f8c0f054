//! How long a client of PostgreSQL waits for the first octet of an answer: its messages are stepped over by their lengths.
//!
//! PostgreSQL documentation, "Message Formats": a startup message with its length, then messages of a type, a length and a body. An answer is
//! due after Query and Sync; whatever the server says then is taken for its beginning.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Emit;
use crate::event::{Event, LateAnswer, PacketRef, Side, What};
use crate::time::Elapsed;
use crate::wire::text::postgres;

/// An answer is late when it begins that much after its question: below what any rule calls slow.
const LATE: Elapsed = Elapsed::secs(1);
/// So many are told one by one, then every doubling of their number.
const TOLD: u32 = 8;
/// The longest startup message and the longest other one that the server takes.
const STARTUP: u32 = 10_000;
const MESSAGE: u32 = 0x3fff_ffff;

/// The questions of one client.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Queries {
    /// The startup message is over.
    begun: bool,
    /// The beginning of a message: its type and length.
    head: SmallVec<[u8; 5]>,
    kind: u8,
    /// Octets of a message that are still to come.
    rest: u64,
    /// The packet that completed the oldest question without an answer.
    asked: Option<PacketRef>,
    late: u32,
}

impl Queries {
    /// The next octets of the client; whether more can be read.
    pub(super) fn bytes(&mut self, at: PacketRef, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let need = if self.begun { 5 } else { 4 };
            let wanted = if self.rest > 0 { self.rest } else { (need - self.head.len()) as u64 };
            let used = wanted.min(bytes.len() as u64) as usize;
            let (piece, behind) = bytes.split_at_checked(used).unwrap_or((bytes, &[]));
            bytes = behind;
            if self.rest > 0 {
                self.rest -= used as u64;
            } else {
                self.head.extend_from_slice(piece);
                if self.head.len() < need {
                    break;
                }
                if !self.head_ends() {
                    return false;
                }
            }
            if self.rest == 0 {
                self.message_ends(at);
            }
        }
        true
    }

    /// Type and length are whole; whether they make sense.
    fn head_ends(&mut self) -> bool {
        let head = std::mem::take(&mut self.head);
        let (kind, length, most) = match &head[..] {
            [kind, length @ ..] if self.begun => (*kind, length, MESSAGE),
            length => (0, length, STARTUP),
        };
        let Some(length) = length.first_chunk().map(|length| u32::from_be_bytes(*length)) else { return false };
        if !(4..=most).contains(&length) || self.begun && !postgres::CLIENT_TYPES.contains(&kind) {
            return false;
        }
        (self.kind, self.rest) = (kind, u64::from(length) - 4);
        true
    }

    fn message_ends(&mut self, at: PacketRef) {
        self.begun = true;
        if matches!(self.kind, b'Q' | b'S') {
            self.asked.get_or_insert(at);
        }
    }

    /// The server speaks.
    pub(super) fn answered(&mut self, at: PacketRef, bytes: &[u8], emit: Emit<'_>) {
        let answers = !bytes.first().is_some_and(|kind| b"NAS".contains(kind)) && !fails(bytes);
        let waited = |asked: &PacketRef| answers && at.time.since(asked.time) >= LATE;
        let Some(asked) = self.asked.take().filter(waited) else { return };
        self.late = self.late.saturating_add(1);
        if self.late <= TOLD || self.late.is_power_of_two() {
            emit(Event { at, side: Side::Server, what: What::AnswerLate(Box::new(LateAnswer { asked })) });
        }
    }
}

/// Whether an error is among the messages. A server that shuts down sends one to all, behind the description of rows that never come; by
/// that nobody can judge a wait, as little as by notices, notifications and settings.
fn fails(mut bytes: &[u8]) -> bool {
    while let Some((kind, rest)) = bytes.split_first() {
        let Some(length) = rest.first_chunk().map(|length| u32::from_be_bytes(*length)) else { return false };
        if *kind == b'E' || length < 4 {
            return true;
        }
        bytes = rest.get(length as usize..).unwrap_or(&[]);
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn at(second: i64) -> PacketRef {
        PacketRef { file: 0, number: second.unsigned_abs(), time: Timestamp(second * 1_000_000_000) }
    }

    const STARTUP: &[u8] = b"\0\0\0\x0d\0\x03\0\0user\0";
    const QUERY: &[u8] = b"Q\0\0\0\x0dSELECT 1\0";

    /// When the late answers were asked for, and when they came.
    fn late(talk: &[(i64, &[u8], i64)], size: usize) -> Vec<(u64, u64)> {
        let mut queries = Queries::default();
        let mut told = Vec::new();
        for (asked, octets, answered) in talk {
            for piece in octets.chunks(size) {
                assert!(queries.bytes(at(*asked), piece));
            }
            queries.answered(at(*answered), b"T\0\0\0\x06\0\0D\0\0\0\x10ro", &mut |event| match event.what {
                What::AnswerLate(late) => told.push((late.asked.number, event.at.number)),
                _ => panic!("another event"),
            });
        }
        told
    }

    #[test]
    fn an_answer_that_begins_seconds_after_its_question_is_told_however_it_is_split() {
        let prepared = b"P\0\0\0\x08\0x\0\0B\0\0\0\x06\0\0E\0\0\0\x05\0S\0\0\0\x04";
        for size in [1, 4, usize::MAX] {
            let talk: [(i64, &[u8], i64); 4] =
                [(1, STARTUP, 9), (10, QUERY, 10), (20, QUERY, 34), (40, &prepared[..], 42)];
            assert_eq!(late(&talk, size), [(20, 34), (40, 42)], "{size}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_not_waited_for() {
        let copy: &[u8] = b"d\0\0\0\x08rows";
        assert!(late(&[(1, STARTUP, 1), (2, copy, 30), (40, b"X\0\0\0\x04", 60)], 3).is_empty());
        let mut queries = Queries::default();
        assert!(queries.bytes(at(1), STARTUP) && queries.bytes(at(2), QUERY));
        queries.answered(at(30), b"T\0\0\0\x06\0\0E\0\0\0\x20", &mut |_| panic!("an error is no answer"));
        let mut queries = Queries::default();
        assert!(!queries.bytes(at(1), b"GET / HTTP/1.1\r\n"));
        let mut queries = Queries::default();
        assert!(queries.bytes(at(1), STARTUP) && !queries.bytes(at(2), b"\x16\x03\x01\0\x05"));
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, cut: u8) {
            let cut = usize::from(cut).min(bytes.len());
            let mut queries = Queries { begun: cut % 2 == 0, ..Queries::default() };
            let _ = queries.bytes(at(1), &bytes[..cut]) && queries.bytes(at(2), &bytes[cut..]);
            queries.answered(at(9), &bytes, &mut |_| ());
            prop_assert!(!queries.head.spilled());
        }
    }
}
