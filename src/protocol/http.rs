//! HTTP/1 on both sides: heads are read, bodies are stepped over by their framing. RFC 9112.

use serde::{Deserialize, Serialize};

use super::exchanges::{Answered, Exchanges, Method};
use super::http2::Http2;
use super::{Analyzer, Emit, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::Recognition;
use crate::wire::http::{
    ChunkedReader, ChunkedStep, Framing, Head, RequestHead, ResponseHead, looks_like_request, looks_like_response,
    parse_request, parse_response,
};

/// Longest head that is put together from several segments.
const LONGEST_HEAD: usize = 64 * 1024;
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

#[derive(Default, Serialize, Deserialize)]
struct Http {
    sides: [Half; 2],
    exchanges: Exchanges,
    /// 101 or CONNECT: no longer HTTP.
    tunnel: bool,
    /// The latest request that asks for HTTP/2 in the clear.
    asks: Option<Box<(PacketRef, RequestHead)>>,
    /// The server agreed to it.
    upgraded: Option<Box<Http2>>,
    /// Beginning of the page behind a 400, while it may still say something.
    page: Option<Vec<u8>>,
}

#[derive(Default, Serialize, Deserialize)]
struct Half {
    part: Part,
    /// A head that is not complete yet.
    held: Vec<u8>,
    /// At that many held octets the head is looked at though its end is not in sight.
    look_at: usize,
    /// The last line of what is held has nothing but blanks so far.
    blank: bool,
}

/// What of a message comes next.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
enum Part {
    /// A head.
    #[default]
    Head,
    /// So many octets of a body. `sure`: the request that decides about it was seen.
    Length {
        left: u64,
        sure: bool,
    },
    Chunked(ChunkedReader),
    /// All that is left.
    UntilClose,
    /// A hole swallowed a head: a segment that begins with one is waited for.
    Lost,
}

/// Where a message stands after a piece of it.
enum Step {
    /// So many octets were used.
    Used(usize),
    /// No octet of this side is read any more.
    Done,
}

impl Analyzer for Http {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let mut rest = bytes;
        while !rest.is_empty() && !self.tunnel {
            let step = match self.sides[index(side)].part {
                Part::Head => self.head(side, at, rest, emit),
                Part::Lost if begins(side, rest) => {
                    self.sides[index(side)].part = Part::Head;
                    Step::Used(0)
                }
                Part::Lost => Step::Used(rest.len()),
                _ => self.body(side, at, rest, emit),
            };
            match step {
                Step::Used(used) => rest = rest.get(used..).unwrap_or(&[]),
                Step::Done => return Wants::Nothing,
            }
        }
        match &mut self.upgraded {
            Some(_) if rest.is_empty() => Wants::More,
            Some(http2) => http2.bytes(side, at, rest, emit),
            None if self.tunnel => Wants::Nothing,
            None => Wants::More,
        }
    }

    fn gap(&mut self, side: Side, missing: u64) -> Wants {
        if let Some(http2) = &mut self.upgraded {
            return http2.gap(side, missing);
        }
        let half = &mut self.sides[index(side)];
        let survived = match &mut half.part {
            Part::Length { left, .. } if *left > missing => {
                *left -= missing;
                true
            }
            Part::Chunked(reader) => reader.gap(missing),
            Part::UntilClose => true,
            Part::Length { .. } | Part::Head | Part::Lost => false,
        };
        if !survived {
            (half.part, half.look_at) = (Part::Lost, 0);
            half.held.clear();
            if side == Side::Server {
                self.page = None;
                self.exchanges.lose_answers();
            }
        }
        if self.tunnel { Wants::Nothing } else { Wants::More }
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        if self.upgraded.is_some() {
            return;
        }
        self.exchanges.close();
        let half = &self.sides[index(side)];
        let truncated = match half.part {
            // Without the request it may be the answer to HEAD.
            Part::Length { left, sure } => sure.then_some(Some(left)),
            Part::Chunked(_) => Some(None),
            Part::UntilClose => return self.complete(side, at, emit),
            Part::Head if half.held.is_empty() => None,
            Part::Head => match half.breaks(side) {
                true => {
                    self.exchanges.settle(emit);
                    return emit(Event { at, side, what: What::HttpBroken });
                }
                false => Some(None),
            },
            Part::Lost => None,
        };
        if let (Some(missing), Side::Server) = (truncated, side) {
            self.exchanges.response_end(Event { at, side, what: What::ResponseTruncated { missing } }, true, emit);
        }
    }

    fn held(&self) -> usize {
        let heads: usize = self.sides.iter().map(|side| side.held.capacity()).sum();
        heads + self.exchanges.weight() + self.upgraded.as_ref().map_or(0, |http2| http2.held())
    }

    fn settle(&mut self, emit: Emit<'_>) {
        self.exchanges.settle(emit);
        if let Some(http2) = &mut self.upgraded {
            http2.settle(emit);
        }
    }

    fn freeze(&self, into: &mut Freezer) -> bool {
        into.put(self).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        from.take().map(|known| *self = known).is_some()
    }

    fn flip(&mut self) {
        self.sides.swap(0, 1);
        if let Some(http2) = &mut self.upgraded {
            http2.flip();
        }
    }
}

impl Http {
    /// Reads a head at the front of `rest`, joined with what is held of it.
    fn head(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let half = &mut self.sides[index(side)];
        let held = half.held.len();
        if held == 0 {
            // Empty lines before a head are to be ignored (RFC 9112 §2.2).
            let blank = rest.iter().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
            if blank > 0 {
                return Step::Used(blank);
            }
            return match self.read(side, at, rest, emit) {
                Read::Whole(used) => Step::Used(used),
                Read::Broken => self.broken(side, at, emit),
                Read::Partial => self.hold(side, at, rest, emit),
            };
        }
        if !half.worth_reading(rest) {
            return self.hold(side, at, rest, emit);
        }
        let mut joined = std::mem::take(&mut half.held);
        joined.extend_from_slice(rest);
        match self.read(side, at, &joined, emit) {
            Read::Whole(used) => {
                self.sides[index(side)].look_at = 0;
                Step::Used(used.saturating_sub(held))
            }
            Read::Broken => self.broken(side, at, emit),
            Read::Partial => {
                joined.truncate(held);
                self.sides[index(side)].held = joined;
                self.hold(side, at, rest, emit)
            }
        }
    }

    fn hold(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let half = &mut self.sides[index(side)];
        let line = rest.rsplit(|octet| *octet == b'\n').next().unwrap_or(rest);
        let goes_on = line.len() == rest.len() && !half.held.is_empty();
        half.blank = (!goes_on || half.blank) && line.iter().all(is_blank);
        half.held.extend_from_slice(rest);
        half.look_at = half.look_at.max(2 * half.held.len());
        if half.held.len() > LONGEST_HEAD {
            return self.broken(side, at, emit);
        }
        Step::Used(rest.len())
    }

    fn broken(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) -> Step {
        self.sides[index(side)].held = Vec::new();
        self.exchanges.settle(emit);
        emit(Event { at, side, what: What::HttpBroken });
        Step::Done
    }

    fn read(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Read {
        match side {
            Side::Client => Read::of(parse_request(bytes), |head| self.request(at, head, emit)),
            Side::Server => Read::of(parse_response(bytes), |head| self.response(at, head, emit)),
        }
    }

    fn request(&mut self, at: PacketRef, head: Box<RequestHead>, emit: Emit<'_>) -> usize {
        let (used, framing) = (head.len as usize, head.framing);
        if head.upgrade.as_deref().is_some_and(asks_for_http2) {
            self.asks = Some(Box::new((at, head.as_ref().clone())));
        }
        self.exchanges.request(at, head, emit);
        self.begin(Side::Client, at, framing, true, emit);
        used
    }

    fn response(&mut self, at: PacketRef, head: Box<ResponseHead>, emit: Emit<'_>) -> usize {
        let (used, status) = (head.len as usize, head.status);
        let in_request = !self.sides[index(Side::Client)].held.is_empty();
        let Answered { framing, method, known, interim } = self.exchanges.response(at, head, in_request, emit);
        if !interim {
            self.page = (status == 400).then(Vec::new);
            self.begin(Side::Server, at, framing, known, emit);
            self.tunnel = status == 101 || (method == Method::Connect && (200..300).contains(&status));
            let asked = self.asks.take().filter(|_| status == 101);
            self.upgraded = asked.map(|asked| Box::new(Http2::upgraded(*asked, emit)));
        }
        used
    }

    /// A head was read: what follows it.
    fn begin(&mut self, side: Side, at: PacketRef, framing: Framing, sure: bool, emit: Emit<'_>) {
        self.sides[index(side)].part = match framing {
            Framing::None | Framing::Length(0) => return self.complete(side, at, emit),
            Framing::Length(left) => Part::Length { left, sure },
            Framing::Chunked => Part::Chunked(ChunkedReader::default()),
            Framing::UntilClose => Part::UntilClose,
        };
    }

    /// Steps over a body.
    fn body(&mut self, side: Side, at: PacketRef, rest: &[u8], emit: Emit<'_>) -> Step {
        let (used, complete) = match &mut self.sides[index(side)].part {
            Part::Length { left, sure } => {
                let used = (*left).min(rest.len() as u64);
                *left -= used;
                *sure = true;
                (used as usize, *left == 0)
            }
            Part::Chunked(reader) => match reader.push(rest) {
                ChunkedStep::More => (rest.len(), false),
                ChunkedStep::End { used } => (used, true),
                ChunkedStep::Broken(_) => return self.broken(side, at, emit),
            },
            Part::UntilClose | Part::Head | Part::Lost => (rest.len(), false),
        };
        if side == Side::Server && self.page.is_some() {
            self.read_page(at, rest.get(..used).unwrap_or(rest), emit);
        }
        if complete {
            self.complete(side, at, emit);
        }
        Step::Used(used)
    }

    fn complete(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        self.sides[index(side)].part = Part::Head;
        match side {
            Side::Client => self.exchanges.request_end(Event { at, side, what: What::RequestEnd }, emit),
            Side::Server => {
                self.page = None;
                self.exchanges.response_end(Event { at, side, what: What::ResponseEnd }, false, emit);
            }
        }
    }

    /// The octets behind the head of a 400.
    fn read_page(&mut self, at: PacketRef, bytes: &[u8], emit: Emit<'_>) {
        let Some(page) = &mut self.page else { return };
        let room = PAGE.saturating_sub(page.len());
        page.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let wants_tls = WANTS_TLS.iter().any(|words| memchr::memmem::find(page, words).is_some());
        if wants_tls || page.len() >= PAGE {
            self.page = None;
        }
        if wants_tls {
            emit(Event { at, side: Side::Server, what: What::TlsWanted });
        }
    }
}

/// What an empty line may hold beside its end.
fn is_blank(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t' | b'\r')
}

impl Half {
    /// Whether the head may be complete with `rest`: an empty line is in sight, or one of blanks, which a lenient reader takes for one. Else it
    /// is read at doubling lengths only, so that a head in single octets is not read once for each of them.
    fn worth_reading(&self, rest: &[u8]) -> bool {
        let mut blank = self.blank;
        for octet in rest {
            if *octet == b'\n' && blank {
                return true;
            }
            blank = *octet == b'\n' || blank && is_blank(octet);
        }
        self.held.len() + rest.len() >= self.look_at
    }

    /// Whether what is held can be no head.
    fn breaks(&self, side: Side) -> bool {
        match side {
            Side::Client => matches!(parse_request(&self.held), Head::Broken(_)),
            Side::Server => matches!(parse_response(&self.held), Head::Broken(_)),
        }
    }
}

/// What came of reading a head.
enum Read {
    /// It had so many octets.
    Whole(usize),
    Partial,
    Broken,
}

impl Read {
    fn of<T>(head: Head<T>, take: impl FnOnce(Box<T>) -> usize) -> Self {
        match head {
            Head::Complete(head) => Self::Whole(take(head)),
            Head::Partial => Self::Partial,
            Head::Broken(_) => Self::Broken,
        }
    }
}

/// Whether the Upgrade field offers HTTP/2 in the clear. RFC 7540 §3.2.
fn asks_for_http2(upgrade: &str) -> bool {
    upgrade.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("h2c"))
}

/// Whether a segment begins with a head.
fn begins(side: Side, bytes: &[u8]) -> bool {
    let recognition = match side {
        Side::Client => looks_like_request(bytes),
        Side::Server => looks_like_response(bytes),
    };
    recognition == Recognition::Yes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::protocol::script::Play;
    use crate::time::Elapsed;
    use crate::wire::samples::{self, octets};

    const CLIENT: Side = Side::Client;
    const SERVER: Side = Side::Server;
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// What was told behind the two recognitions.
    fn kinds(play: &Play) -> Vec<Kind> {
        play.events.iter().map(|e| e.what.kind()).filter(|kind| *kind != Kind::Recognised).collect()
    }

    /// The kinds that a conversation gives, however its pieces are split.
    fn conversation(said: &[(Side, &[u8])], ends: &[Side]) -> Vec<Kind> {
        let mut results = Vec::new();
        for size in [usize::MAX, 1, 2, 3, 7, 40] {
            let mut play = Play::new();
            for (side, bytes) in said {
                bytes.chunks(size).for_each(|piece| {
                    play.bytes(*side, piece);
                });
            }
            ends.iter().for_each(|side| play.end(*side));
            results.push(kinds(&play));
        }
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{results:?}");
        results.swap_remove(0)
    }

    #[test]
    fn requests_that_nobody_answers_are_weighed() {
        let mut play = Play::new();
        play.client(GET);
        let one = play.weight();
        for _ in 0..100 {
            play.client(GET);
        }
        assert!(play.weight() > one + 100 * 32, "{} after {one} octets", play.weight());
    }

    #[test]
    fn an_exchange_is_told_from_head_to_end() {
        let expected = [Kind::Request, Kind::RequestEnd, Kind::Response, Kind::ResponseEnd];
        assert_eq!(conversation(&[(CLIENT, GET), (SERVER, OK)], &[]), expected);
    }

    #[test]
    fn a_refused_upload_is_answered_before_it_ends() {
        let (request, refusal) = (octets(samples::HTTP_REQUEST), octets(samples::HTTP_413));
        let said = [(CLIENT, &request[..]), (CLIENT, &[b'x'; 5_000]), (SERVER, &refusal[..])];
        assert_eq!(conversation(&said, &[SERVER, CLIENT]), [Kind::Request, Kind::Response, Kind::ResponseEnd]);
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        let requests = b"HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb";
        let end = [Kind::Response, Kind::ResponseEnd];
        let asked = [Kind::Request, Kind::RequestEnd];
        assert_eq!(
            conversation(&[(CLIENT, requests), (SERVER, answers)], &[SERVER]),
            [asked, asked, end, end].concat()
        );
    }

    #[test]
    fn answers_without_a_body_have_none() {
        for (request, answer) in [
            (GET, &b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n"[..]),
            (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            (b"HEAD / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ] {
            let said = conversation(&[(CLIENT, request), (SERVER, answer)], &[SERVER]);
            assert_eq!(said, [Kind::Request, Kind::RequestEnd, Kind::Response, Kind::ResponseEnd]);
        }
    }

    #[test]
    fn interim_answers_do_not_end_an_exchange() {
        let request = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let said: [(Side, &[u8]); 4] =
            [(CLIENT, request), (SERVER, b"HTTP/1.1 100 Continue\r\n\r\n"), (CLIENT, b"hi"), (SERVER, OK)];
        let expected = [Kind::Request, Kind::Response, Kind::RequestEnd, Kind::Response, Kind::ResponseEnd];
        assert_eq!(conversation(&said, &[]), expected);
    }

    #[test]
    fn behind_an_upgrade_or_a_tunnel_nothing_is_read() {
        for (request, answer) in [
            (&b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"[..], &b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..]),
            (b"CONNECT a:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n"),
        ] {
            let mut play = Play::new();
            play.client(request);
            play.server(answer);
            let told = kinds(&play);
            assert_eq!(told, [Kind::Request, Kind::RequestEnd, Kind::Response, Kind::ResponseEnd]);
            assert_eq!(play.client(b"\x81\x00no request"), Wants::Nothing);
            assert_eq!(play.server(b"\x81\x00no response"), Wants::Nothing);
            play.end(CLIENT);
            play.end(SERVER);
            assert_eq!(kinds(&play), told);
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_told_with_what_is_missing() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"[..], What::ResponseTruncated { missing: Some(6) }),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
                What::ResponseTruncated { missing: None },
            ),
            (b"HTTP/1.1 200 OK\r\nContent-Le", What::ResponseTruncated { missing: None }),
            (b"HTTP/1.0 200 OK\r\n\r\nall that comes", What::ResponseEnd),
        ] {
            for size in [1, 1_000] {
                let mut play = Play::new();
                play.client(GET);
                answer.chunks(size).for_each(|piece| {
                    play.server(piece);
                });
                play.end(SERVER);
                assert_eq!(play.said().last(), Some(&(SERVER, &expected)));
            }
        }
    }

    #[test]
    fn an_answer_whose_request_nobody_saw_may_have_no_body() {
        assert_eq!(
            conversation(&[(SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")], &[SERVER]),
            [Kind::Response]
        );
    }

    #[test]
    fn an_answer_that_comes_before_the_request_is_paired_with_it_only_while_its_head_is_under_way() {
        // A timeout on an idle connection: the request that crosses it stays unanswered.
        let idle: [(Side, &[u8]); 3] =
            [(SERVER, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"), (CLIENT, GET), (SERVER, OK)];
        let (asked, answered) = ([Kind::Request, Kind::RequestEnd], [Kind::Response, Kind::ResponseEnd]);
        assert_eq!(conversation(&idle, &[]), [answered, asked, answered].concat());
        // An answer to half a head: the next one answers HEAD and has no body.
        let mut play = Play::new();
        play.client(b"GET / HTTP/1.1\r\nHo");
        play.server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        play.client(b"st: a\r\n\r\nHEAD / HTTP/1.1\r\n\r\n");
        play.server(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\n");
        assert_eq!(kinds(&play), [answered, asked, asked, answered].concat());
    }

    #[test]
    fn octets_that_are_no_http_are_told_once() {
        for answer in
            [&b"HTTP/1.1 two hundred\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz"]
        {
            let mut play = Play::new();
            play.client(GET);
            play.server(answer);
            assert_eq!(play.server(b"more"), Wants::Nothing);
            assert_eq!(kinds(&play).iter().filter(|kind| **kind == Kind::HttpBroken).count(), 1);
        }
    }

    #[test]
    fn a_head_without_end_is_given_up() {
        let mut play = Play::new();
        play.client(b"GET / HTTP/1.1\r\n");
        for _ in 0..70 {
            play.client(&[&b"X-Filler: "[..], &[b'x'; 1_000], b"\r\n"].concat());
        }
        assert_eq!(kinds(&play), [Kind::HttpBroken]);
    }

    #[test]
    fn a_hole_in_a_body_is_stepped_over_and_one_in_a_head_is_got_over() {
        let mut play = Play::new();
        play.client(GET);
        play.server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
        play.gap(SERVER, 990);
        play.server(b"end..");
        play.gap(SERVER, 100);
        assert_eq!(play.server(b"the middle of another answer"), Wants::More);
        play.client(&[GET, GET].concat());
        play.server(OK);
        let (asked, answered) = ([Kind::Request, Kind::RequestEnd], [Kind::Response, Kind::ResponseEnd]);
        assert_eq!(kinds(&play), [asked, answered, asked, asked, answered].concat());
    }

    #[test]
    fn of_a_long_connection_the_unusual_and_the_latest_are_told() {
        let error = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
        let mut play = Play::new();
        for number in 0..1_000 {
            play.client(format!("GET /{number} HTTP/1.1\r\n\r\n").as_bytes());
            if number == 300 {
                play.wait(Elapsed::secs(3));
            }
            play.server(if number == 500 { error } else { OK });
        }
        let asked = |play: &Play| {
            let requests = play.events.iter().filter_map(|e| match &e.what {
                What::Request(head) => head.target.trim_start_matches('/').parse().ok(),
                _ => None,
            });
            requests.collect::<Vec<u32>>()
        };
        let expected = (0..16).chain([300, 500]).collect::<Vec<_>>();
        assert_eq!(asked(&play), expected);
        assert_eq!(play.events.iter().filter(|e| matches!(e.what, What::ResponseEnd)).count(), expected.len());
        // The latest is told when the flow is judged or ends, and before what is still open.
        play.client(b"GET /1000 HTTP/1.1\r\n\r\n");
        play.settle();
        assert_eq!(asked(&play)[18..], [999, 1000]);
        assert!(kinds(&play).ends_with(&[Kind::ResponseEnd, Kind::Request, Kind::RequestEnd]));
        play.server(OK);
        play.end(SERVER);
        assert!(kinds(&play).ends_with(&[Kind::RequestEnd, Kind::Response, Kind::ResponseEnd]));
        assert_eq!(asked(&play).len(), 20);
    }

    #[test]
    fn requests_that_nobody_answers_are_bounded() {
        let mut play = Play::new();
        for _ in 0..10_000 {
            play.client(GET);
        }
        play.end(CLIENT);
        assert!(play.events.len() < 250, "{}", play.events.len());
    }

    #[test]
    fn a_page_that_asks_for_https_is_told_even_in_pieces() {
        let go: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(conversation(&[(SERVER, go)], &[]), [Kind::Response, Kind::TlsWanted]);
    }

    #[test]
    fn the_same_words_in_a_page_that_is_no_error_mean_nothing() {
        let page: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(conversation(&[(SERVER, page)], &[]), [Kind::Response]);
    }
}
