//! Steps over a chunked body without looking at its data. RFC 9112 §7.1.

use serde::{Deserialize, Serialize};

/// Longest chunk-size line with its extensions, and longest trailer section.
const LONGEST: u32 = 64 * 1024;

/// Walks through a chunked body that comes in arbitrary pieces. Chunk data is stepped over by its length; nothing is copied.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ChunkedReader {
    state: State,
    /// Octets of the line or trailer section being read.
    line: u32,
    /// Octets of chunk data stepped over so far.
    data: u64,
}

/// Where the reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// In the digits of a chunk size; how many there were.
    Size { size: u64, digits: u8 },
    /// Behind the digits, up to the line's end: extensions, blanks.
    Extension { size: u64 },
    /// In chunk data; octets left.
    Data { left: u64 },
    /// Behind chunk data: CR, then LF.
    DataEnd,
    /// At the beginning of a trailer line or the final empty line.
    Trailer,
    /// In a trailer line.
    TrailerLine,
    /// The body is complete.
    Done,
    /// It is no chunked body; why.
    #[serde(skip)]
    Broken(#[serde(skip)] &'static str),
}

/// Where the body stands after a piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedStep {
    /// The whole piece belongs to the body, and more must come.
    More,
    /// The body is complete; the first `used` octets of the piece belong to it.
    End {
        /// Octets of the piece that belong to the body.
        used: usize,
    },
    /// It is no chunked body; why, in a few words.
    Broken(&'static str),
}

impl Default for ChunkedReader {
    fn default() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, line: 0, data: 0 }
    }
}

impl ChunkedReader {
    /// Takes the next piece. After `End` and `Broken` every further piece is answered alike.
    pub fn push(&mut self, piece: &[u8]) -> ChunkedStep {
        let mut at = 0;
        loop {
            match self.state {
                State::Done => return ChunkedStep::End { used: at },
                State::Broken(why) => return ChunkedStep::Broken(why),
                State::Data { left } => at += self.step_over(left, piece.len().saturating_sub(at)),
                _ => {}
            }
            if matches!(self.state, State::Data { .. }) {
                return ChunkedStep::More;
            }
            let Some(octet) = piece.get(at) else { return ChunkedStep::More };
            self.state = self.after(*octet);
            at += 1;
        }
    }

    /// Tells that `missing` octets of the body are not in the capture. Whether the reader can go on: only if all of them are chunk data.
    pub fn gap(&mut self, missing: u64) -> bool {
        match self.state {
            State::Data { left } if left >= missing => {
                self.state = if left == missing { State::DataEnd } else { State::Data { left: left - missing } };
                self.data = self.data.saturating_add(missing);
                true
            }
            _ => false,
        }
    }

    /// Octets of chunk data so far.
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Steps over as much of the `left` octets of data as there is; how much that was.
    fn step_over(&mut self, left: u64, there: usize) -> usize {
        let now = left.min(there as u64);
        self.data = self.data.saturating_add(now);
        self.state = if now == left { State::DataEnd } else { State::Data { left: left - now } };
        now as usize
    }

    /// The state after one octet that is no chunk data. A bare LF ends a line as CR LF does (§2.2).
    fn after(&mut self, octet: u8) -> State {
        self.line += 1;
        if self.line > LONGEST {
            return State::Broken("a chunk's line or the trailer section is longer than 64 KiB");
        }
        match (self.state, octet) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = char::from(octet).to_digit(16).unwrap_or(0);
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { digits: 16, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                State::Broken("the chunk size is too large")
            }
            (State::Size { digits: 0, .. }, _) => State::Broken("no chunk size where one must be"),
            (State::Size { size, .. } | State::Extension { size }, b'\n') => self.begin(size),
            (State::Size { size, .. }, b';' | b' ' | b'\t' | b'\r') | (State::Extension { size }, _) => {
                State::Extension { size }
            }
            (State::Size { .. }, _) => State::Broken("an octet in the chunk size is no digit"),
            (State::DataEnd, b'\r') if self.line == 1 => State::DataEnd,
            (State::DataEnd, b'\n') => {
                self.line = 0;
                State::Size { size: 0, digits: 0 }
            }
            (State::DataEnd, _) => State::Broken("no line end behind a chunk's data"),
            (State::Trailer, b'\n') => State::Done,
            (State::Trailer, b'\r') => State::Trailer,
            (State::TrailerLine, b'\n') => State::Trailer,
            (State::Trailer | State::TrailerLine, _) => State::TrailerLine,
            (state @ (State::Data { .. } | State::Done | State::Broken(_)), _) => state,
        }
    }

    /// The state behind a chunk-size line.
    fn begin(&mut self, size: u64) -> State {
        self.line = 0;
        if size == 0 { State::Trailer } else { State::Data { left: size } }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY: &[u8] =
        b"4\r\nWiki\r\n6;name=\"a;b\"\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nExpires: never\r\nA: b\r\n\r\n";

    #[test]
    fn a_body_ends_where_it_ends_however_it_is_split() {
        let stream = [BODY, b"HTTP/1.1 200 OK"].concat();
        for size in 1..=stream.len() {
            let mut reader = ChunkedReader::default();
            let mut before = 0;
            let end = stream.chunks(size).find_map(|piece| match reader.push(piece) {
                ChunkedStep::More => {
                    before += piece.len();
                    None
                }
                ChunkedStep::End { used } => Some(before + used),
                ChunkedStep::Broken(why) => panic!("{why}"),
            });
            assert_eq!((end, reader.data()), (Some(BODY.len()), 24), "{size}");
        }
    }

    #[test]
    fn every_truncation_waits_for_more() {
        for end in 0..BODY.len() {
            assert_eq!(ChunkedReader::default().push(&BODY[..end]), ChunkedStep::More, "{end}");
        }
    }

    #[test]
    fn what_is_no_chunked_body_says_why() {
        for (body, why) in [
            (&b"\r\n"[..], "no chunk size where one must be"),
            (b"<html>", "no chunk size where one must be"),
            (b"4x\r\n", "an octet in the chunk size is no digit"),
            (b"11111111111111111\r\n", "the chunk size is too large"),
            (b"4\r\nWikiX", "no line end behind a chunk's data"),
            (b"4\r\nWiki\r\r\n", "no line end behind a chunk's data"),
        ] {
            let mut reader = ChunkedReader::default();
            assert_eq!(reader.push(body), ChunkedStep::Broken(why), "{}", String::from_utf8_lossy(body));
            assert_eq!(reader.push(b"0\r\n\r\n"), ChunkedStep::Broken(why));
        }
    }

    #[test]
    fn endless_extensions_and_trailers_are_refused() {
        let extension = [&b"4;"[..], &[b'x'; 70_000]].concat();
        assert!(matches!(ChunkedReader::default().push(&extension), ChunkedStep::Broken(_)));
        let trailers = [b"0\r\n".to_vec(), b"a: b\r\n".repeat(20_000)].concat();
        assert!(matches!(ChunkedReader::default().push(&trailers), ChunkedStep::Broken(_)));
    }

    #[test]
    fn a_hole_inside_chunk_data_is_survived() {
        let mut reader = ChunkedReader::default();
        assert!(!reader.gap(1));
        assert_eq!(reader.push(b"a\r\n12"), ChunkedStep::More);
        assert!(!reader.gap(9));
        assert!(reader.gap(8));
        assert_eq!(reader.push(b"\r\n0\r\n\r\n"), ChunkedStep::End { used: 7 });
        assert_eq!(reader.data(), 10);
    }

    proptest! {
        #[test]
        fn no_octets_panic_and_pieces_do_not_matter(bytes in "[0-9a-f\r\n; x]{0,60}", size in 1usize..9) {
            let mut whole = ChunkedReader::default();
            whole.push(bytes.as_bytes());
            let mut pieces = ChunkedReader::default();
            for piece in bytes.as_bytes().chunks(size) {
                pieces.push(piece);
            }
            prop_assert_eq!((whole.state, whole.data), (pieces.state, pieces.data));
        }
    }
}
