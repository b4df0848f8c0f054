//! HTTP/1 on both sides: heads are read, bodies are stepped over by their framing. RFC 9112.

use std::collections::VecDeque;

use super::{Analyzer, Emit, index};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::http::{ChunkedReader, ChunkedStep, Framing, Head, parse_request, parse_response};

/// Longest head that is put together.
const LONGEST_HEAD: usize = 128 * 1024;
/// Requests that may be outstanding; pipelining deeper than this is not followed.
const OUTSTANDING: usize = 256;
/// Octets of an error page that are looked at.
const PAGE: usize = 1024;
/// What the pages of nginx, Apache and Go say to plain HTTP on a TLS port.
const WANTS_TLS: [&[u8]; 3] = [
    b"plain HTTP request was sent to HTTPS port",
    b"speaking plain HTTP to an SSL-enabled server port",
    b"sent an HTTP request to an HTTPS server",
];

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<Http>::default()
}

#[derive(Default)]
struct Http {
    sides: [Half; 2],
    /// Methods of requests without an answer yet.
    methods: VecDeque<String>,
    /// 101 or CONNECT: no longer HTTP.
    tunnel: bool,
    /// Beginning of the page behind a 400, while it may still say something.
    page: Option<Vec<u8>>,
}

#[derive(Default)]
struct Half {
    /// A head that is not complete yet.
    held: Vec<u8>,
    body: Body,
}

#[derive(Default)]
enum Body {
    /// Between messages: a head comes next.
    #[default]
    None,
    /// Octets of it still to come.
    Length(u64),
    Chunked(ChunkedReader),
    UntilClose,
}

impl Analyzer for Http {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.tunnel {
                return Wants::Nothing;
            }
            self.read_page(side, at, rest, emit);
            let half = &mut self.sides[index(side)];
            let used = match &mut half.body {
                Body::None => match self.head(side, at, rest, emit) {
                    Some(used) => used,
                    None => return Wants::Nothing,
                },
                Body::UntilClose => return Wants::More,
                Body::Length(left) => {
                    let used = (*left).min(rest.len() as u64);
                    *left -= used;
                    if *left == 0 {
                        half.complete(side, at, emit);
                    }
                    used as usize
                }
                Body::Chunked(reader) => match reader.push(rest) {
                    ChunkedStep::More => rest.len(),
                    ChunkedStep::End { used } => {
                        half.complete(side, at, emit);
                        used
                    }
                    ChunkedStep::Broken(_) => {
                        emit(Event { at, side, what: What::HttpBroken });
                        return Wants::Nothing;
                    }
                },
            };
            rest = rest.get(used..).unwrap_or(&[]);
        }
        Wants::More
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        match &mut self.sides[index(side)].body {
            Body::Length(left) if *left > missing => {
                *left -= missing;
                Wants::More
            }
            Body::UntilClose => Wants::More,
            Body::Chunked(reader) => match reader.gap(missing) {
                true => Wants::More,
                false => Wants::Nothing,
            },
            _ => Wants::Nothing,
        }
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        let half = &mut self.sides[index(side)];
        match (&half.body, side) {
            (Body::Length(left), Side::Server) => {
                emit(Event { at, side, what: What::ResponseTruncated { missing: Some(*left) } });
            }
            (Body::Chunked(_), Side::Server) => {
                emit(Event { at, side, what: What::ResponseTruncated { missing: None } });
            }
            (Body::UntilClose, _) => half.complete(side, at, emit),
            _ => {}
        }
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
    }
}

impl Http {
    /// Reads a head at the front of `rest`; how many of its octets were used. `None` when it is no head.
    fn head(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Option<usize> {
        let half = &mut self.sides[index(side)];
        let held = half.held.len();
        // An empty line before a request is to be ignored (RFC 9112 §2.2).
        if held == 0 && rest.starts_with(b"\r\n") && side == Side::Client {
            return Some(2);
        }
        let joined;
        let bytes = match held {
            0 => rest,
            _ => {
                half.held.extend_from_slice(rest);
                joined = std::mem::take(&mut half.held);
                &joined
            }
        };
        let used = match side {
            Side::Client => self.request(at, bytes, emit),
            Side::Server => self.response(at, bytes, emit),
        };
        match used {
            Parsed::Used(used) => Some(used.saturating_sub(held)),
            Parsed::Partial if bytes.len() <= LONGEST_HEAD => {
                self.sides[index(side)].held = bytes.to_vec();
                Some(rest.len())
            }
            Parsed::Partial | Parsed::Broken => {
                emit(Event { at, side, what: What::HttpBroken });
                None
            }
        }
    }

    /// The octets behind the head of a 400.
    fn read_page(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) {
        let Some(page) = &mut self.page else { return };
        if side != Side::Server {
            return;
        }
        let room = PAGE.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let wants_tls = WANTS_TLS.iter().any(|words| memchr::memmem::find(page, words).is_some());
        if wants_tls {
            emit(Event { at, side, what: What::TlsWanted });
        }
        if wants_tls || page.len() >= PAGE {
            self.page = None;
        }
    }

    fn request(&mut self, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Parsed {
        let head = match parse_request(bytes) {
            Head::Complete(head) => head,
            Head::Partial => return Parsed::Partial,
            Head::Broken(_) => return Parsed::Broken,
        };
        let used = head.len as usize;
        if self.methods.len() < OUTSTANDING {
            self.methods.push_back(head.method.clone());
        }
        let framing = head.framing;
        emit(Event { at, side: Side::Client, what: What::Request(head) });
        self.sides[index(Side::Client)].begin(framing, Side::Client, at, emit);
        Parsed::Used(used)
    }

    fn response(&mut self, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Parsed {
        let head = match parse_response(bytes) {
            Head::Complete(head) => head,
            Head::Partial => return Parsed::Partial,
            Head::Broken(_) => return Parsed::Broken,
        };
        let used = head.len as usize;
        let interim = matches!(head.status, 100 | 102..200);
        let method = if interim { None } else { self.methods.pop_front() };
        let method = method.as_deref().unwrap_or("");
        self.tunnel = head.status == 101 || method == "CONNECT" && (200..300).contains(&head.status);
        let framing = head.framing_after(method);
        self.page = (head.status == 400).then(Vec::new);
        emit(Event { at, side: Side::Server, what: What::Response(head) });
        if !interim {
            self.sides[index(Side::Server)].begin(framing, Side::Server, at, emit);
        }
        Parsed::Used(used)
    }
}

enum Parsed {
    Used(usize),
    Partial,
    Broken,
}

impl Half {
    /// A head was read: what follows it.
    fn begin(&mut self, framing: Framing, side: Side, at: PacketRef, emit: Emit<'_>) {
        self.body = match framing {
            Framing::None | Framing::Length(0) => return self.complete(side, at, emit),
            Framing::Length(len) => Body::Length(len),
            Framing::Chunked => Body::Chunked(ChunkedReader::default()),
            Framing::UntilClose => Body::UntilClose,
        };
    }

    fn complete(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        self.body = Body::None;
        let what = match side {
            Side::Client => What::RequestEnd,
            Side::Server => What::ResponseEnd,
        };
        emit(Event { at, side, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::time::Timestamp;

    fn kinds(pieces: &[&[u8]]) -> Vec<Kind> {
        let mut http = start();
        let mut kinds = Vec::new();
        for piece in pieces {
            let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
            http.bytes(Side::Server, at, piece, &mut |event| kinds.push(event.what.kind()));
        }
        kinds
    }

    #[test]
    fn a_page_that_asks_for_https_is_told_even_in_pieces() {
        let go: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(kinds(&[go]), [Kind::Response, Kind::TlsWanted]);
        assert_eq!(kinds(&[&go[..50], &go[50..]]), [Kind::Response, Kind::TlsWanted]);
    }

    #[test]
    fn the_same_words_in_a_page_that_is_no_error_mean_nothing() {
        let page: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(kinds(&[page]), [Kind::Response]);
    }
}
