//! What is told of HTTP/1 connections.

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
    assert_eq!(conversation(&[(CLIENT, requests), (SERVER, answers)], &[SERVER]), [asked, asked, end, end].concat());
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
    for answer in [&b"HTTP/1.1 two hundred\r\n\r\n"[..], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz"] {
        let mut play = Play::new();
        play.client(GET);
        play.server(answer);
        assert_eq!(play.server(b"more"), Wants::Nothing);
        assert_eq!(kinds(&play).iter().filter(|kind| **kind == Kind::HttpBroken).count(), 1);
    }
}

#[test]
fn an_error_whose_head_is_cut_is_told_by_its_status_line() {
    let told = |line: &[u8], then: &[u8]| {
        let mut play = Play::new();
        play.client(GET);
        play.server(line);
        play.gap(SERVER, 300);
        play.server(then);
        kinds(&play).iter().filter(|kind| **kind == Kind::ErrorCut).count()
    };
    assert_eq!(told(b"HTTP/1.1 502 Bad Gateway\r\nSer", b"x"), 1);
    assert_eq!(told(b"HTTP/1.1 504 ", b"x"), 1);
    assert_eq!(told(b"HTTP/1.1 200 OK\r\nServer: ngi", b"x"), 0);
    assert_eq!(told(b"HTTP/1.1 50", b"x"), 0, "not all of the status");
    assert_eq!(told(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 400\r\n\r\n", b"x"), 0, "a whole head");
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
    let expected = (0..16).chain([300, 500]).chain(501..503).collect::<Vec<_>>();
    assert_eq!(asked(&play), expected);
    assert_eq!(play.events.iter().filter(|e| matches!(e.what, What::ResponseEnd)).count(), expected.len());
    // The latest is told when the flow is judged or ends, and before what is still open.
    play.client(b"GET /1000 HTTP/1.1\r\n\r\n");
    play.settle();
    assert_eq!(asked(&play)[20..], [999, 1000]);
    assert!(kinds(&play).ends_with(&[Kind::ResponseEnd, Kind::Request, Kind::RequestEnd]));
    play.server(OK);
    play.end(SERVER);
    assert!(kinds(&play).ends_with(&[Kind::RequestEnd, Kind::Response, Kind::ResponseEnd]));
    assert_eq!(asked(&play).len(), 22);
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
