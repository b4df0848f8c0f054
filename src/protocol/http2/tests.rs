//! What is told of HTTP/2 connections.

use proptest::prelude::*;

use super::*;
use crate::event::Kind;
use crate::protocol::script::Play;
use crate::time::Elapsed;

const CLIENT: Side = Side::Client;
const SERVER: Side = Side::Server;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// One direction's encoder of header fields: what the static table lacks goes into the dynamic one.
struct Speaker(Vec<(String, String)>);

impl Speaker {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in fields {
            let fixed = match (*name, *value) {
                (":method", "GET") => Some(0x82),
                (":scheme", "http") => Some(0x86),
                (":status", "200") => Some(0x88),
                _ => None,
            };
            if let Some(octet) = fixed {
                block.push(octet);
                continue;
            }
            let known = self.0.iter().rev().position(|known| (known.0.as_str(), known.1.as_str()) == (*name, *value));
            if let Some(place) = known {
                block.push(0x80 | (62 + place) as u8);
                continue;
            }
            block.extend([&[0x40, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat());
            self.0.push(((*name).to_owned(), (*value).to_owned()));
        }
        block
    }

    fn headers(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
        let block = self.block(fields);
        frame(kind::HEADERS, flags | flag::END_HEADERS, stream, &block)
    }

    fn get(&mut self, stream: u32, path: &str) -> Vec<u8> {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "shop.example")];
        self.headers(flag::END_STREAM, stream, &fields)
    }

    fn call(&mut self, stream: u32) -> Vec<u8> {
        let fields = [(":method", "POST"), (":path", "/shop.Cart/Add"), ("content-type", "application/grpc")];
        [self.headers(0, stream, &fields), frame(kind::DATA, 1, stream, b"\0\0\0\0\x02ok")].concat()
    }
}

fn preface() -> Vec<u8> {
    [PREFACE.as_slice(), &frame(kind::SETTINGS, 0, 0, &[])].concat()
}

fn kinds(play: &Play) -> Vec<(Side, Kind)> {
    let told = play.events.iter().map(|e| (e.side, e.what.kind()));
    told.filter(|(_, kind)| !matches!(kind, Kind::Recognised | Kind::Settings | Kind::SettingsTaken)).collect()
}

/// Client, server, client, … until both have said all.
fn conversation(said: &[(Side, Vec<u8>)], size: usize) -> Play {
    let mut play = Play::new();
    for (side, bytes) in said {
        bytes.chunks(size).for_each(|piece| {
            play.bytes(*side, piece);
        });
    }
    play
}

fn one_exchange() -> [(Side, Vec<u8>); 3] {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let asked = [preface(), client.get(1, "/cart?id=7")].concat();
    let answer = server.headers(0, 1, &[(":status", "200"), ("content-type", "text/plain")]);
    let body = [frame(kind::DATA, 0, 1, &[b'x'; 300]), frame(kind::DATA, 1, 1, b"end")].concat();
    let greets = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 128]);
    [(CLIENT, asked), (SERVER, greets), (SERVER, [answer, body].concat())]
}

#[test]
fn open_streams_and_tables_are_weighed() {
    let mut client = Speaker::new();
    let mut play = conversation(&[(CLIENT, preface())], usize::MAX);
    let before = play.weight();
    for stream in 0..64 {
        play.client(&client.get(2 * stream + 1, &format!("/a/path/of/its/own/{stream}")));
    }
    let open = play.weight() - before;
    assert!((64 * 100..64 * 4096).contains(&open), "{open} octets");
    play.client(&frame(kind::HEADERS, flag::END_HEADERS, 131, &[])[..9]);
    assert!(play.weight() > before + open, "a frame that is not complete");
}

#[test]
fn an_exchange_is_told_wherever_its_octets_are_split() {
    let expected =
        [(CLIENT, Kind::Request), (CLIENT, Kind::StreamEnd), (SERVER, Kind::Response), (SERVER, Kind::StreamEnd)];
    for size in 1..340 {
        let play = conversation(&one_exchange(), size);
        assert_eq!(kinds(&play), expected, "{size}");
        assert_eq!(play.recognised(), [(CLIENT, Protocol::Http2), (SERVER, Protocol::Http2)]);
        let told = play.events.iter().any(|e| {
                matches!(&e.what, What::Request(head) if head.target == "/cart?id=7" && head.host.as_deref() == Some("shop.example"))
            });
        assert!(told, "{:?}", play.said());
    }
}

#[test]
fn blocks_in_several_frames_with_padding_and_priority_are_put_together() {
    let mut client = Speaker::new();
    let block = client.block(&[(":method", "GET"), (":path", "/a/long/path"), (":authority", "a")]);
    let (one, two) = block.split_at(4);
    let padded = [&[2, 0x80, 0, 0, 0, 9][..], one, &[0, 0]].concat();
    let said = [
        preface(),
        frame(kind::HEADERS, flag::PADDED | flag::PRIORITY | flag::END_STREAM, 1, &padded),
        frame(kind::CONTINUATION, 0, 1, &two[..1]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 1, &two[1..]),
    ];
    let play = conversation(&[(CLIENT, said.concat())], usize::MAX);
    let told = play.events.iter().any(|e| matches!(&e.what, What::Request(head) if head.target == "/a/long/path"));
    assert!(told, "{:?}", play.said());
}

#[test]
fn a_failed_call_is_told_with_its_status_and_words() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let head = server.headers(0, 1, &[(":status", "200"), ("content-type", "application/grpc")]);
    let trailers = server.headers(1, 1, &[("grpc-status", "14"), ("grpc-message", "no%20backend")]);
    let at_once = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")];
    let said = [
        (CLIENT, [preface(), client.call(1), client.call(3)].concat()),
        (SERVER, frame(kind::SETTINGS, 0, 0, &[])),
        (SERVER, [head, trailers, server.headers(1, 3, &at_once)].concat()),
    ];
    let play = conversation(&said, 7);
    let calls = play.events.iter().filter_map(|e| match &e.what {
        What::GrpcStatus(call) => Some((call.stream.number, call.status, call.message.as_str(), call.at_once)),
        _ => None,
    });
    assert_eq!(calls.collect::<Vec<_>>(), [(1, 14, "no backend", false), (3, 12, "", true)]);
}

#[test]
fn a_goaway_says_what_was_refused_and_what_waits() {
    let mut client = Speaker::new();
    let asked = [preface(), client.get(1, "/a"), client.get(3, "/b"), client.get(5, "/c")].concat();
    let away = [&3_u32.to_be_bytes()[..], &11_u32.to_be_bytes(), b"too_many_pings"].concat();
    let bye = [frame(kind::SETTINGS, 0, 0, &[]), frame(kind::GOAWAY, 0, 0, &away)].concat();
    let play = conversation(&[(CLIENT, asked), (SERVER, bye)], usize::MAX);
    let What::GoAway(farewell) = &play.events.last().expect("told").what else { panic!("{:?}", play.said()) };
    let numbers = |list: &[crate::event::h2::Stream]| list.iter().map(|stream| stream.number).collect::<Vec<_>>();
    assert_eq!((numbers(&farewell.refused), numbers(&farewell.waiting)), (vec![5], vec![1, 3]));
    assert_eq!((farewell.away.debug.as_str(), farewell.refused[0].request.as_str()), ("too_many_pings", "GET /c"));
}

#[test]
fn usual_exchanges_are_held_back_after_the_first_and_unusual_ones_are_not() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let mut play = conversation(&[(CLIENT, preface()), (SERVER, frame(kind::SETTINGS, 0, 0, &[]))], usize::MAX);
    for number in 0..200 {
        play.client(&client.get(2 * number + 1, "/"));
        let status = if number == 150 { "500" } else { "200" };
        play.server(&server.headers(1, 2 * number + 1, &[(":status", status)]));
    }
    let told: Vec<u32> = play
        .events
        .iter()
        .filter_map(|e| match &e.what {
            What::Request(head) => Some(head.stream),
            _ => None,
        })
        .collect();
    assert_eq!((told.len(), told.last()), (11, Some(&301)));
    play.end(SERVER);
    assert!(play.events.iter().any(|e| matches!(e.what, What::StreamEnd { stream: 399 })), "the last one at the end");
}

#[test]
fn a_slow_answer_and_a_reset_are_told_with_what_led_to_them() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let mut play = conversation(&[(CLIENT, preface()), (SERVER, frame(kind::SETTINGS, 0, 0, &[]))], usize::MAX);
    for number in 0..20 {
        play.client(&client.get(2 * number + 1, "/"));
        play.server(&server.headers(1, 2 * number + 1, &[(":status", "200")]));
    }
    play.events.clear();
    play.client(&client.get(41, "/slow"));
    play.client(&client.get(43, "/gone"));
    play.wait(Elapsed::secs(2));
    play.server(&server.headers(1, 41, &[(":status", "200")]));
    play.client(&frame(kind::RST_STREAM, 0, 43, &8_u32.to_be_bytes()));
    let expected = [
        Kind::Request,
        Kind::StreamEnd,
        Kind::Response,
        Kind::StreamEnd,
        Kind::Request,
        Kind::StreamEnd,
        Kind::StreamReset,
    ];
    assert_eq!(kinds(&play).iter().map(|(_, kind)| *kind).collect::<Vec<_>>(), expected);
    let What::StreamReset(reset) = &play.events.last().expect("told").what else { panic!() };
    assert_eq!((reset.code, reset.stream.request.as_str(), reset.stream.answered), (8, "GET /gone", false));
}

#[test]
fn a_connection_caught_in_its_middle_is_read_with_placeholders() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    client.get(1, "/seen/before");
    server.headers(1, 1, &[(":status", "200"), ("server", "shop/1.4")]);
    let mut play = Play::mid_stream();
    play.head.role = crate::flow::facts::RoleSource::Port;
    play.client(&client.get(3, "/seen/before"));
    play.server(&server.headers(1, 3, &[(":status", "200"), ("server", "shop/1.4")]));
    assert_eq!(play.recognised(), [(CLIENT, Protocol::Http2), (SERVER, Protocol::Http2)]);
    let What::Request(head) = &play.events[2].what else { panic!("{:?}", play.said()) };
    assert_eq!((head.method.as_str(), head.target.as_str(), head.host.as_deref()), ("GET", "?63", None));
    assert_eq!(play.events.iter().filter(|e| e.what == What::FieldsUnknown).count(), 2);
    let known = play.events.iter().any(|e| matches!(&e.what, What::Response(head) if head.status == 200));
    assert!(known, "{:?}", play.said());
}

#[test]
fn behind_a_hole_it_goes_on_and_inside_a_body_nothing_is_lost() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let mut play = conversation(&[(CLIENT, preface()), (SERVER, frame(kind::SETTINGS, 0, 0, &[]))], usize::MAX);
    play.client(&client.get(1, "/a"));
    let body = frame(kind::DATA, 1, 1, &[0; 5_000]);
    play.server(&[server.headers(0, 1, &[(":status", "200"), ("server", "shop")]), body[..1_000].to_vec()].concat());
    play.gap(SERVER, 3_000);
    play.server(&body[4_000..]);
    assert!(kinds(&play).ends_with(&[(SERVER, Kind::StreamEnd)]));
    play.gap(SERVER, 100);
    play.server(b"the rest of something else");
    play.client(&client.get(3, "/b"));
    play.server(&server.headers(1, 3, &[(":status", "200"), ("server", "shop")]));
    let told: Vec<u16> = play
        .events
        .iter()
        .filter_map(|e| match &e.what {
            What::Response(head) => Some(head.status),
            _ => None,
        })
        .collect();
    assert_eq!(told, [200, 200]);
    assert_eq!(play.events.iter().filter(|e| e.what == What::FieldsUnknown).count(), 1);
}

#[test]
fn a_window_that_stays_closed_is_told_and_one_that_opens_is_not() {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let update = |stream, more: u32| frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    let begin = [(CLIENT, [preface(), client.get(1, "/")].concat()), (SERVER, frame(kind::SETTINGS, 0, 0, &[]))];
    let mut play = conversation(&begin, usize::MAX);
    play.server(&server.headers(0, 1, &[(":status", "200")]));
    let windows = |play: &Play| {
        let told = |what: &What| matches!(what.kind(), Kind::StreamWindowClosed | Kind::StreamWindowOpened);
        play.events.iter().filter(|e| told(&e.what)).map(|e| (e.side, e.what.clone())).collect::<Vec<_>>()
    };
    let full = [frame(kind::DATA, 0, 1, &[0; 16_000]).repeat(4), frame(kind::DATA, 0, 1, &[0; 1_535])].concat();
    for _ in 0..3 {
        play.server(&full);
        play.settle();
        play.client(&[update(0, 65_535), update(1, 65_535)].concat());
    }
    let closed = What::StreamWindowClosed { stream: 1, whole: false };
    assert_eq!(windows(&play), vec![(SERVER, closed.clone()); 3]);
    play.events.clear();
    play.server(&full);
    play.client(&update(1, 9));
    play.wait(Elapsed::secs(3));
    play.client(&update(0, 9));
    let told = windows(&play);
    assert_eq!(told[0], (SERVER, closed));
    assert!(matches!(told[1], (CLIENT, What::StreamWindowOpened { stream: 1, .. })), "{told:?}");
    play.events.clear();
    play.gap(SERVER, 9);
    play.server(&frame(kind::DATA, 0, 1, &[0; 16_000]));
    play.settle();
    assert_eq!(windows(&play), [], "nobody knows any more");
}

/// Requests go out as places become free, `pause` behind that, on a connection that permits two streams; what is told of it,
/// times in ms.
fn queue(pause: Elapsed, rounds: u32, hole: bool) -> Vec<(u32, u32, i64)> {
    let (mut client, mut server) = (Speaker::new(), Speaker::new());
    let permits = frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2]);
    let mut play = conversation(&[(CLIENT, preface()), (SERVER, permits)], usize::MAX);
    if hole {
        play.gap(CLIENT, 40);
    }
    play.client(&[client.get(1, "/"), client.get(3, "/")].concat());
    for n in 0..rounds {
        play.wait(Elapsed::millis(400));
        play.server(&server.headers(1, 2 * n + 1, &[(":status", "200")]));
        play.wait(pause);
        play.client(&client.get(2 * n + 5, "/"));
    }
    play.settle();
    let told = play.events.iter().filter_map(|e| match &e.what {
        What::StreamsFull(full) => Some((full.limit, full.taken, e.at.time.since(full.since.time).0 / 1_000_000)),
        _ => None,
    });
    told.collect()
}

#[test]
fn requests_that_wait_for_a_free_stream_are_told_twice() {
    let told = queue(Elapsed::millis(5), 6, false);
    assert_eq!(told, [(2, 3, 1_215), (2, 6, 2_430)]);
}

#[test]
fn places_that_stay_free_and_few_of_them_are_no_queue() {
    assert_eq!(queue(Elapsed::millis(150), 6, false), [], "nobody waited");
    assert_eq!(queue(Elapsed::millis(5), 2, false), [], "chance");
    assert_eq!(queue(Elapsed::millis(5), 6, true), [], "nobody knows how many are open");
}

#[test]
fn an_upgrade_from_http1_is_followed() {
    let mut server = Speaker::new();
    let mut play = Play::new();
    play.client(b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    let agreed: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let answer = [frame(kind::SETTINGS, 0, 0, &[]), server.headers(1, 1, &[(":status", "503")])].concat();
    play.server(&[agreed, &answer].concat());
    play.client(&preface());
    let last = play.events.iter().rev().find_map(|e| match &e.what {
        What::Response(head) => Some((head.status, head.stream)),
        _ => None,
    });
    assert_eq!(last, Some((503, 1)));
    assert!(play.recognised().ends_with(&[(SERVER, Protocol::Http2), (CLIENT, Protocol::Http2)]));
}

#[test]
fn streams_and_blocks_are_bounded() {
    let mut client = Speaker::new();
    let mut play = conversation(&[(CLIENT, preface())], usize::MAX);
    for number in 0..2_000 {
        play.client(&client.get(2 * number + 1, "/"));
    }
    let mut endless = frame(kind::HEADERS, 0, 9_001, &[0x82]);
    for _ in 0..100 {
        endless.extend(frame(kind::CONTINUATION, 0, 9_001, &[0x82; 16_000]));
    }
    play.client(&endless);
    let before = play.events.len();
    play.settle();
    assert!(play.events.len() - before <= 256 * 3, "{}", play.events.len());
}

proptest! {
    #[test]
    fn no_octets_panic_and_pieces_make_no_difference(
        noise: Vec<u8>,
        place: usize,
        octet: u8,
        size in 1usize..30,
        cut in 0usize..200,
        frames in proptest::collection::vec((0u8..12, any::<u8>(), 0u32..6, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let mut said = one_exchange();
        let random: Vec<u8> = frames.iter().flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload)).collect();
        said[0].1.extend(&random);
        said[2].1.extend(&random);
        let place = place % said[2].1.len();
        said[2].1[place] = octet;
        said[2].1.extend(&noise);
        let told = |size| {
            let mut play = conversation(&said, size);
            play.end(SERVER);
            play.events.iter().map(|e| (e.side, e.what.kind())).collect::<Vec<_>>()
        };
        prop_assert_eq!(told(usize::MAX), told(size));
        let mut play = conversation(&said, size);
        play.gap(SERVER, 5);
        play.gap(CLIENT, 1);
        for bytes in [&said[2].1[..], &noise, &random] {
            play.server(bytes.get(cut..).unwrap_or(&noise));
            play.client(bytes);
        }
        play.end(CLIENT);
    }
}
