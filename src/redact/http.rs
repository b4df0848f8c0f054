//! HTTP/1: heads by their fields, bodies by their framing. RFC 9112.

use super::mapping::Mapping;
use super::stream::{Reader, Step};
use crate::wire::Recognition;
use crate::wire::http::{
    Framing, Head, PREFACE, looks_like_request, looks_like_response, parse_request, parse_response,
};
use crate::wire::tls::looks_like_server_record;

/// Longest head, and longest line of a chunked body, that are waited for.
const LONGEST_HEAD: usize = 64 * 1024;
const LONGEST_LINE: usize = 4096;
/// Octets of an error page that are read as a message: diagnoses know what some of them say.
const PAGE: usize = 1024;

/// Reads one side of HTTP/1.
pub(super) struct Http {
    part: Part,
    /// Octets of an error page that are still to be read.
    page: usize,
    /// At that many octets a head is looked at though its end is not in sight.
    look_at: usize,
    response: bool,
    lost: bool,
}

/// What of a message comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Length(u64),
    Chunk,
    ChunkData(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    /// 101 or CONNECT: another protocol.
    Tunnel,
}

impl Http {
    pub(super) fn new() -> Self {
        Self { part: Part::Head, page: 0, look_at: 0, response: false, lost: false }
    }

    fn head(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        let blank = bytes.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
        if blank > 0 {
            return Step::Replace(bytes[..blank].to_vec());
        }
        if bytes.starts_with(&PREFACE[..14]) {
            return Step::Again;
        }
        if !last && bytes.len() < self.look_at && !has_empty_line(bytes) {
            return Step::More;
        }
        self.look_at = 2 * bytes.len();
        self.response = bytes.get(..5).is_some_and(|begin| begin == b"HTTP/");
        let (len, next, page) = if self.response {
            match parse_response(bytes) {
                Head::Complete(head) => {
                    let next = match head.status {
                        101 => Part::Tunnel,
                        _ => part(head.framing_after("GET")),
                    };
                    (head.len as usize, next, if head.status >= 400 { PAGE } else { 0 })
                }
                Head::Partial => return self.partial(map, bytes, last),
                Head::Broken(_) => return broken(map, bytes, last),
            }
        } else {
            match parse_request(bytes) {
                Head::Complete(head) => {
                    let next = if head.method == "CONNECT" { Part::Tunnel } else { part(head.framing) };
                    (head.len as usize, next, 0)
                }
                Head::Partial => return self.partial(map, bytes, last),
                Head::Broken(_) => return broken(map, bytes, last),
            }
        };
        (self.part, self.page, self.look_at) = (next, page, 0);
        Step::Replace(map.head(&bytes[..len.min(bytes.len())], true))
    }

    fn partial(&self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        match last || bytes.len() > LONGEST_HEAD {
            true => Step::Replace(map.head(bytes, true)),
            false => Step::More,
        }
    }

    /// So many octets of a body, of which the page that somebody may read comes first.
    fn body(&mut self, map: &mut Mapping, bytes: &[u8], left: u64, last: bool) -> Step {
        let page = left.min(self.page as u64) as usize;
        if page == 0 {
            self.page = 0;
            return Step::Fill(left);
        }
        if bytes.len() < page && !last {
            return Step::More;
        }
        let there = page.min(bytes.len());
        self.page = 0;
        Step::ReplaceAndFill(map.message(&bytes[..there]), left.saturating_sub(there as u64))
    }

    fn line<'a>(&self, bytes: &'a [u8], last: bool) -> Option<&'a [u8]> {
        match memchr::memchr(b'\n', bytes) {
            Some(end) => Some(&bytes[..=end]),
            None if last || bytes.len() > LONGEST_LINE => Some(bytes),
            None => None,
        }
    }

    fn chunk(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        let Some(line) = self.line(bytes, last) else { return Step::More };
        let digits = line.iter().take_while(|octet| octet.is_ascii_hexdigit()).count();
        let size =
            std::str::from_utf8(&line[..digits.min(16)]).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        self.part = match size {
            Some(0) => Part::Trailer,
            Some(size) => Part::ChunkData(size),
            None => return broken(map, bytes, last),
        };
        Step::Replace([&line[..digits], &map.text(&line[digits..])[..]].concat())
    }
}

impl Reader for Http {
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        // The answer to HEAD has no body, whatever its fields say.
        let body = matches!(self.part, Part::Length(_) | Part::Chunk | Part::UntilClose);
        if body && self.response && looks_like_response(bytes) == Recognition::Yes {
            self.part = Part::Head;
        }
        match self.part {
            Part::Head => self.head(map, bytes, last),
            Part::Length(left) => {
                let step = self.body(map, bytes, left, last);
                if !matches!(step, Step::More) {
                    self.part = Part::Head;
                }
                step
            }
            Part::UntilClose if looks_like_server_record(bytes) == Recognition::Yes => Step::Again,
            Part::UntilClose => self.body(map, bytes, u64::MAX, last),
            Part::Chunk => self.chunk(map, bytes, last),
            Part::ChunkData(left) => {
                let step = self.body(map, bytes, left, last);
                if !matches!(step, Step::More) {
                    self.part = Part::ChunkEnd;
                }
                step
            }
            Part::ChunkEnd => match self.line(bytes, last) {
                Some(line) if line.len() <= 2 => {
                    self.part = Part::Chunk;
                    Step::Replace(line.to_vec())
                }
                Some(_) => broken(map, bytes, last),
                None => Step::More,
            },
            Part::Trailer => match self.line(bytes, last) {
                Some(line) => {
                    if line.trim_ascii_end().is_empty() {
                        self.part = Part::Head;
                    }
                    Step::Replace(map.head(line, false))
                }
                None => Step::More,
            },
            Part::Tunnel => Step::Again,
        }
    }

    fn hole(&mut self) {
        // A body goes on, as the analyzer has it.
        self.lost = !matches!(self.part, Part::UntilClose);
    }

    fn resume(&mut self, piece: &[u8]) -> bool {
        if self.lost {
            let found = [looks_like_request(piece), looks_like_response(piece)].contains(&Recognition::Yes);
            if !found {
                return false;
            }
            (self.lost, self.part, self.look_at) = (false, Part::Head, 0);
        }
        true
    }
}

fn part(framing: Framing) -> Part {
    match framing {
        Framing::None | Framing::Length(0) => Part::Head,
        Framing::Length(left) => Part::Length(left),
        Framing::Chunked => Part::Chunk,
        Framing::UntilClose => Part::UntilClose,
    }
}

/// Octets that are no head: nobody reads on behind them.
fn broken(map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
    let text = bytes.iter().take(64).all(|octet| matches!(octet, b'\t' | b'\r' | b'\n' | b' '..));
    match text {
        true if !last && bytes.len() < LONGEST_LINE && !has_empty_line(bytes) && bytes.len() < 512 => Step::More,
        true => Step::ReplaceAndFill(map.head(&bytes[..bytes.len().min(LONGEST_HEAD)], true), u64::MAX),
        false => Step::Unknown,
    }
}

fn has_empty_line(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', bytes).any(|at| {
        let rest = &bytes[at + 1..];
        let blanks = rest.iter().take_while(|octet| matches!(octet, b' ' | b'\t' | b'\r')).count();
        rest.get(blanks) == Some(&b'\n')
    })
}
