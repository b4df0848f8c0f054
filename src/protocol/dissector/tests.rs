//! What the dissector makes of octets, however they are split.

use proptest::prelude::*;

use super::*;
use crate::event::Kind;
use crate::protocol::script::{Play, head};
use crate::wire::samples::{self, octets};

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;

fn kinds(play: &Play) -> Vec<Kind> {
    play.events.iter().map(|e| e.what.kind()).collect()
}

#[test]
fn a_proxy_header_is_looked_through_wherever_the_octets_are_split() {
    let stream = octets(&format!("{}{}", samples::PROXY_V2, samples::CLIENT_HELLO_OPENSSL));
    let expected = [Kind::Recognised, Kind::ProxyHeader, Kind::Recognised, Kind::ClientHello];
    for cut in 1..stream.len() {
        let mut play = Play::new();
        play.client(&stream[..cut]);
        play.client(&stream[cut..]);
        assert_eq!(play.recognised(), [(CLIENT, Protocol::Proxy), (CLIENT, Protocol::Tls)], "{cut}");
        play.events.retain(|e| match e.what {
            What::ProxySplit { segments } => {
                assert!(segments == 2 && cut < 28, "{cut}");
                false
            }
            _ => true,
        });
        assert_eq!(kinds(&play), expected, "{cut}");
    }
}

#[test]
fn a_second_header_and_a_broken_one_are_told() {
    let mut play = Play::new();
    play.client(&[&octets(samples::PROXY_V2)[..], b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET /"].concat());
    assert_eq!(kinds(&play), [Kind::Recognised, Kind::ProxyHeader, Kind::ProxyHeaderAgain, Kind::Recognised]);
    let mut play = Play::new();
    assert_eq!(play.client(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 02\r\n"), Wants::Nothing);
    assert_eq!(kinds(&play), [Kind::Recognised, Kind::ProxyBroken]);
}

#[test]
fn a_header_that_never_became_whole_is_told_with_its_octets() {
    let header = octets(samples::PROXY_V2);
    for got in 1..header.len() {
        let mut play = Play::new();
        play.client(&header[..got]);
        assert!(play.events.is_empty());
        play.end(CLIENT);
        let expected = if got < 6 { Kind::Excerpt } else { Kind::ProxyIncomplete };
        assert_eq!(kinds(&play).get(1), Some(&expected), "{got}");
    }
}

#[test]
fn the_sides_are_recognised_independently() {
    let mut play = Play::new();
    play.client(&octets(samples::CLIENT_HELLO_OPENSSL));
    play.server(&octets(samples::HTTP_400));
    assert_eq!(play.recognised(), [(CLIENT, Protocol::Tls), (SERVER, Protocol::Http)]);
    assert!(kinds(&play).contains(&Kind::Response) && kinds(&play).contains(&Kind::ClientHello));
}

#[test]
fn what_nothing_begins_with_is_told_at_once_and_nothing_is_kept() {
    let mut play = Play::new();
    assert_eq!(play.client(b"\x01\x02 no protocol at all, and longer than an excerpt"), Wants::Nothing);
    assert_eq!(play.server(b"\xee\xee\xee"), Wants::Nothing);
    assert_eq!(play.recognised(), [(CLIENT, Protocol::Unknown), (SERVER, Protocol::Unknown)]);
    let What::Excerpt { octets } = &play.events[1].what else { panic!("an excerpt") };
    assert_eq!(octets.len(), 32);

    let (mut dissector, flow) = (Dissector::default(), head());
    for side in [CLIENT, SERVER] {
        dissector.bytes(&flow, side, flow.id, b"\xee\xee\xee", &mut |_| ());
    }
    assert!(matches!(dissector.0, Stage::Over));
    assert!(size_of::<Dissector>() <= 16);
}

#[test]
fn half_a_first_word_waits_and_is_decided_at_the_end() {
    let mut play = Play::new();
    assert_eq!(play.server(b"HTT"), Wants::More);
    assert!(play.events.is_empty());
    play.end(SERVER);
    assert_eq!(play.recognised(), [(SERVER, Protocol::Unknown)]);
}

#[test]
fn no_beginning_is_held_for_ever() {
    // The longest header that a length field can promise, and a line that never ends.
    let header = octets("0d0a0d0a000d0a515549540a 21 11 ffff");
    for begin in [&header[..], b"FROBNICATE /", b"ping"] {
        let mut play = Play::new();
        play.client(begin);
        for _ in 0..70 {
            play.client(&[b'x'; 1024]);
        }
        assert!(!play.events.is_empty());
    }
}

#[test]
fn guessed_roles_are_corrected_by_what_only_one_side_says() {
    let header = octets(samples::PROXY_V2);
    let (hello, answer) = (octets(samples::CLIENT_HELLO_GO), octets(samples::SERVER_HELLO_13));
    let client_says = [&hello[..], b"GET / HTTP/1.1\r\n\r\n", &header, b"EHLO mail.example\r\n"];
    let server_says = [&answer[..], b"HTTP/1.1 200 OK\r\n\r\n", b"220 mail.example ESMTP\r\n"];
    let said = client_says.map(|bytes| (SERVER, bytes)).into_iter().chain(server_says.map(|bytes| (CLIENT, bytes)));
    for (side, bytes) in said {
        let mut play = Play::mid_stream();
        assert_eq!(play.bytes(side, bytes), Wants::Flip, "{}", String::from_utf8_lossy(bytes));
        assert_eq!((play.head.client.port, play.head.role), (8_000, RoleSource::Layer7));
        assert!(play.events.iter().all(|e| e.side == side.other()), "{:?}", play.said());
        assert_ne!(play.recognised()[0].1, Protocol::Unknown);
        let mut play = Play::new();
        play.bytes(side, bytes);
        assert_eq!(play.head.client.port, 50_000, "a handshake cannot be argued with");
    }
}

#[test]
fn analyzers_go_on_after_the_roles_turned() {
    let mut play = Play::mid_stream();
    assert_eq!(play.client(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo"), Wants::Flip);
    assert_eq!(play.server(b"dy"), Wants::More);
    assert_eq!(play.client(b"GET /next HTTP/1.1\r\n\r\n"), Wants::More);
    play.server(b"HTTP/1.1 204 No Content\r\n\r\n");
    let (recognised, response, end) = (Kind::Recognised, Kind::Response, Kind::ResponseEnd);
    let expected = [recognised, response, end, recognised, Kind::Request, Kind::RequestEnd, response, end];
    assert_eq!(kinds(&play), expected);
}

#[test]
fn a_stream_caught_in_its_middle_is_recognised_at_a_later_segment() {
    let mut play = Play::mid_stream();
    play.head.role = RoleSource::Port;
    assert_eq!(play.server(b"the rest of some body"), Wants::More);
    assert_eq!(play.server(b"HTTP/1.1 is what this page is about"), Wants::More);
    play.client(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    play.server(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(play.recognised(), [(SERVER, Protocol::Unknown), (CLIENT, Protocol::Http), (SERVER, Protocol::Http)]);
    assert!(kinds(&play).ends_with(&[Kind::Response, Kind::ResponseEnd]));
}

#[test]
fn what_follows_a_hole_is_believed_only_when_it_tells_itself() {
    let mut play = Play::new();
    play.gap(CLIENT, 100);
    assert_eq!(play.client(b"*1\r\n$4\r\nPING\r\n"), Wants::More);
    play.client(&octets(samples::CLIENT_HELLO_SNI));
    assert_eq!(play.recognised(), [(CLIENT, Protocol::Unknown), (CLIENT, Protocol::Tls)]);
}

#[test]
fn tls_behind_a_request_of_postgresql_is_read() {
    let mut play = Play::new();
    play.client(&octets("00000008 04d2162f"));
    assert_eq!(play.server(b"S"), Wants::More);
    play.client(&octets(samples::CLIENT_HELLO_OPENSSL));
    play.server(&octets(samples::SERVER_HELLO_13));
    let (postgres, tls) = (Protocol::Postgres, Protocol::Tls);
    assert_eq!(play.recognised(), [(CLIENT, postgres), (SERVER, postgres), (CLIENT, tls), (SERVER, tls)]);
    assert!(kinds(&play).ends_with(&[Kind::ServerHello]));
}

proptest! {
    #[test]
    fn no_octets_panic_and_pieces_make_no_difference(
        from in 0usize..6,
        noise: Vec<u8>,
        at: usize,
        to: u8,
        size in 1usize..40,
        late: bool,
    ) {
        let mut stream = match from {
            0 => octets(samples::PROXY_V2),
            1 => octets(samples::CLIENT_HELLO_GO),
            2 => octets(samples::SERVER_FLIGHT_12),
            3 => octets(samples::HTTP_413),
            4 => octets(samples::HTTP_REQUEST),
            _ => Vec::new(),
        };
        if !stream.is_empty() {
            let at = at % stream.len();
            stream[at] = to;
        }
        stream.extend_from_slice(&noise);
        let mut said = Vec::new();
        for size in [stream.len().max(1), size] {
            let mut play = if late { Play::mid_stream() } else { Play::new() };
            for piece in stream.chunks(size) {
                for side in [SERVER, CLIENT] {
                    play.bytes(side, piece);
                }
            }
            if late {
                play.gap(SERVER, 7);
            }
            for side in [SERVER, CLIENT] {
                play.end(side);
            }
            said.push([CLIENT, SERVER].map(|of| {
                let of_side = play.events.iter().filter(|e| e.side == of);
                let told = of_side.filter(|e| !matches!(e.what, What::ProxySplit { .. }));
                // What was looked at when enough was seen depends on the pieces.
                told.map(|e| match &e.what {
                    What::Excerpt { .. } => What::Excerpt { octets: Vec::new() },
                    What::ProxyBroken(broken) => {
                        What::ProxyBroken(Box::new(proxy::BrokenHeader { len: 0, ..*broken.as_ref() }))
                    }
                    what => what.clone(),
                })
                .collect::<Vec<_>>()
            }));
        }
        if !late {
            prop_assert_eq!(&said[0], &said[1]);
        }
    }
}
