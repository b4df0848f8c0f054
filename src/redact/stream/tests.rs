//! What is replaced in streams that come in pieces.

use super::super::Level;
use super::super::secret::tests::key;
use super::*;
use crate::wire::samples::{self, octets};

/// The replaced octets of a stream that comes in pieces.
fn replaced(stream: &[u8], piece: usize) -> Vec<u8> {
    let mut map = Mapping::new(&key(1), Level::All);
    let (mut plan, mut direction) = (Plan::default(), Direction::new((50000, 80), false));
    stream.chunks(piece).for_each(|octets| direction.bytes(&mut map, &mut plan, octets));
    direction.end(&mut map, &mut plan);
    let mut out = stream.to_vec();
    plan.apply(0, &mut out);
    out
}

const HTTP: &[u8] = b"POST /orders/17 HTTP/1.1\r\nHost: shop.example.com\r\nContent-Length: 9\r\n\r\ncard=4711GET /a HTTP/1.1\r\nHost: b\r\n\r\n";
const CHUNKED: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\nTransfer-Encoding: chunked\r\n\r\n1a\r\nalice sees Bad Gateway her\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

#[test]
fn the_pieces_in_which_octets_come_make_no_difference() {
    let record = |len: u16| [&[0x17, 3, 3][..], &len.to_be_bytes(), &vec![0x5a; usize::from(len)]].concat();
    let hello = octets(&format!("{}140303000101", samples::SERVER_HELLO_13));
    let tls = [hello, record(42), record(811), record(69), record(300), record(19)].concat();
    for stream in
        [HTTP, CHUNKED, &tls, b"220 mail.example.com ESMTP\r\n250 ok\r\n", &[1, 2, 3, 200, 90, 90].repeat(300)]
    {
        let whole = replaced(stream, stream.len());
        assert_eq!(whole.len(), stream.len());
        for piece in [1, 2, 3, 7, 50] {
            let pieces = replaced(stream, piece);
            let differs = pieces.iter().zip(&whole).position(|(one, other)| one != other);
            assert_eq!(differs, None, "{piece} octets a piece: {:?}", String::from_utf8_lossy(&stream[..20]));
        }
    }
}

#[test]
fn heads_stay_readable_and_bodies_are_filled() {
    let text = String::from_utf8(replaced(HTTP, 1000)).expect("text");
    assert!(text.contains("Content-Length: 9\r\n\r\nxxxxxxxxxGET /"), "{text}");
    let text = String::from_utf8(replaced(CHUNKED, 1000)).expect("text");
    assert!(
        text.contains("Bad Gateway") && text.contains("\r\n0\r\n\r\nHTTP/1.1 200 OK") && text.ends_with("xxx"),
        "{text}"
    );
    assert!(!text.contains("alice"), "{text}");
}

#[test]
fn a_copy_of_any_octets_becomes_the_same() {
    let whole = replaced(HTTP, 1000);
    let mut map = Mapping::new(&key(1), Level::All);
    let (mut plan, mut direction) = (Plan::default(), Direction::new((50000, 80), false));
    direction.bytes(&mut map, &mut plan, HTTP);
    direction.end(&mut map, &mut plan);
    for from in 0..HTTP.len() {
        let to = (from + 13).min(HTTP.len());
        let mut copy = HTTP[from..to].to_vec();
        plan.apply(from as i64, &mut copy);
        assert_eq!(copy, whole[from..to]);
    }
    let mut before = *b"octets before the beginning";
    plan.apply(-20, &mut before);
    assert!(before.starts_with(b"xxxxxxxxxx"));
}

#[test]
fn reading_goes_on_behind_a_hole_where_a_segment_begins_with_a_head() {
    let mut map = Mapping::new(&key(1), Level::All);
    let (mut plan, mut direction) = (Plan::default(), Direction::new((80, 50000), false));
    direction.bytes(&mut map, &mut plan, b"HTTP/1.1 200 OK\r\nContent-");
    direction.hole(&mut map, &mut plan, 100);
    direction.bytes(&mut map, &mut plan, b"in the middle of something");
    let at = direction.at;
    direction.bytes(&mut map, &mut plan, b"HTTP/1.1 504 Gateway Time-out\r\n\r\n");
    direction.end(&mut map, &mut plan);
    let mut head = *b"HTTP/1.1 504 Gateway Time-out\r\n\r\n";
    plan.apply(at as i64, &mut head);
    assert!(head.starts_with(b"HTTP/1.1 504 Gateway"), "{}", String::from_utf8_lossy(&head));
}

#[test]
fn no_octets_make_it_panic_or_stop() {
    let mut random = 1_u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for seed in [
        HTTP,
        CHUNKED,
        b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x05\x01\x04\0\0\0\x01\x82",
        b"\0\0\0\x08\x04\xd2\x16\x2f\x16\x03",
    ] {
        for _ in 0..300 {
            let mut bent = seed.to_vec();
            for _ in 0..1 + next() % 4 {
                let at = next() % bent.len();
                bent[at] = next() as u8;
            }
            let mut map = Mapping::new(&key(1), Level::All);
            let (mut plan, mut direction) = (Plan::default(), Direction::new((53, 50000), next() % 2 == 0));
            for piece in bent.chunks(1 + next() % 40) {
                direction.bytes(&mut map, &mut plan, piece);
                if next() % 9 == 0 {
                    direction.hole(&mut map, &mut plan, next() as u64 % 50);
                }
            }
            direction.end(&mut map, &mut plan);
            assert!(direction.pending.is_empty());
        }
    }
}
