//! Traffic meant to exhaust the memory or the time of whoever reads it: one function per attack, each a bout of 20 to 200 KB.
//!
//! Lengths, checksums, handshakes and the numbers of segments are right, so that nothing is passed over as damaged. No flow ends, and no
//! bout waits for another: the more is written, the more is open.

use super::super::packet::arp_answer;
use super::{ACK, Conversation, FIN, PSH, RST, Random, SYN, messages};

/// An attack: its name, its server port and one bout of it.
pub(super) type Attack = (&'static str, u16, fn(&mut Conversation, &mut Random));

macro_rules! attacks {
    ($(($port:literal, $attack:ident)),* $(,)?) => { &[$((stringify!($attack), $port, $attack)),*] };
}

/// All of them.
pub(super) const ATTACKS: &[Attack] = attacks![
    (8080, every_second_octet),
    (8080, overlaps_that_contradict),
    (8080, far_apart),
    (8080, the_same_again),
    (8080, one_pair_of_ends_many_lives),
    (443, ends_that_collide),
    (0, every_server_is_new),
    (5000, fragments_that_never_complete),
    (80, head_of_many_lines),
    (80, line_without_end),
    (80, chunks_of_one_octet),
    (80, requests_nobody_answers),
    (80, requests_octet_by_octet),
    (80, answers_nobody_asked_for),
    (443, hello_in_records_of_one_octet),
    (443, hello_without_end),
    (443, records_of_nothing),
    (53, names_that_point_at_themselves),
    (53, queries_nobody_answers),
    (53, answers_full_of_addresses),
    (443, header_of_many_tlvs),
    (443, header_after_header),
    (8443, continuations_without_end),
    (8443, tables_resized),
    (8443, one_octet_is_four_thousand),
    (8443, streams_reset_at_once),
    (8443, settings_and_pings),
    (25, greeting_without_end),
    (6379, lengths_that_are_lies),
    (9999, noise),
    (80, errors_about_strangers),
];

impl Conversation {
    /// Every octet in a segment of its own.
    fn one_by_one(&mut self, side: usize, octets: &[u8]) {
        octets.iter().for_each(|octet| self.send(side, PSH | ACK, &[*octet]));
        self.acknowledge(1 - side);
    }

    /// Other ends from here on, as if a flow began.
    fn go_elsewhere(&mut self, hosts: [u32; 2], ports: [u16; 2], random: &mut Random) {
        (self.ends.hosts, self.ends.ports) = (hosts, ports);
        self.next = [random.next() as u32, random.next() as u32];
    }
}

/// Two thousand islands behind a hole.
fn every_second_octet(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    for n in 0..2_000 {
        flow.odd(0, flow.next[0].wrapping_add(1 + 2 * n), 501, ACK, b"x");
    }
}

/// Backwards, each half over the one before and with other octets; now and then the hole in front is filled.
fn overlaps_that_contradict(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let (begin, mss) = (flow.next[0].wrapping_add(1), flow.mss());
    for n in (0..90_u32).rev() {
        flow.odd(0, begin.wrapping_add(n * mss as u32 / 2), 501, ACK, &vec![n as u8; mss]);
    }
    if random.below(2) == 0 {
        flow.send(0, ACK, b"\x16");
        flow.acknowledge(1);
    }
}

/// Segments anywhere in half of the sequence space.
fn far_apart(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    for _ in 0..600 {
        let (side, jump) = (random.below(2) as usize, random.below(1 << 31) as u32);
        flow.odd(side, flow.next[side].wrapping_add(jump), 501, ACK, &[0x5a; 100]);
    }
}

/// One segment again and again, each time acknowledged.
fn the_same_again(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    for _ in 0..700 {
        flow.odd(0, flow.next[0], 501, PSH | ACK, b"again and again");
        flow.odd(1, flow.next[1], 0, ACK, &[]);
    }
}

/// SYN, SYN+ACK, RST, and anew from the same port.
fn one_pair_of_ends_many_lives(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..500 {
        flow.next = [random.next() as u32, random.next() as u32];
        flow.send(0, SYN, &[]);
        flow.send(1, SYN | ACK, &[]);
        flow.send(0, RST, &[]);
    }
}

/// Half a thousand million ends whose addresses, and whose ports, have one sum and one exclusive or: all are one to a hash made of these.
fn ends_that_collide(flow: &mut Conversation, random: &mut Random) {
    flow.ends.v6 = false;
    for _ in 0..300 {
        let (n, port) = (random.below(0x1_0000) as u32, random.below(0x2000) as u16);
        // Where one has a bit the other has none, so what is added here is taken away there.
        flow.go_elsewhere([0x0a00_0000 | n, 0xc0a8_ffff ^ n], [0x8000 | port, 0x1fff ^ port], random);
        flow.handshake();
        flow.send(0, PSH | ACK, b"x");
    }
}

/// Exchanges that work, each with a server, a port and a name that nobody saw before.
fn every_server_is_new(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..100 {
        let (host, port) = (random.next() as u32 | 1, 1 + random.below(60_000) as u16);
        flow.go_elsewhere([flow.ends.hosts[0], host], [60_001 + random.below(5_000) as u16, port], random);
        flow.handshake();
        flow.send(0, PSH | ACK, &messages::request(&long_name(random), random));
        flow.at += flow.rtt;
        flow.segments(1, &messages::answer(2));
        flow.send(0, FIN | ACK, &[]);
        flow.send(1, FIN | ACK, &[]);
        flow.acknowledge(0);
    }
}

/// Eight octets each; the first piece is missing, or the last, and some lie over others.
fn fragments_that_never_complete(flow: &mut Conversation, random: &mut Random) {
    for n in 0..1_500 {
        let (id, offset) = (random.next() as u32 % 400, 1 + random.below(8_000) as u16);
        let piece = [n as u8; 8];
        let frame = flow.ends.fragment(0, id, if n % 3 == 0 { 0 } else { offset }, true, &piece);
        flow.push(frame);
    }
}

fn head_of_many_lines(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    let lines: String = (0..8_000).map(|n| format!("x{n}: {n}\r\n")).collect();
    flow.segments(0, format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}").as_bytes());
}

fn line_without_end(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    let mut head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ".to_vec();
    head.resize(150_000, b'c');
    flow.segments(0, &head);
}

fn chunks_of_one_octet(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.send(0, PSH | ACK, &messages::request("a", random));
    flow.acknowledge(1);
    let chunks = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), b"1;a=b\r\nx\r\n".repeat(12_000)];
    flow.segments(1, &chunks.concat());
}

fn requests_nobody_answers(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.segments(0, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4_000));
}

fn requests_octet_by_octet(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.one_by_one(0, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(60));
}

fn answers_nobody_asked_for(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.send(0, PSH | ACK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    flow.acknowledge(1);
    let answers = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(2_000);
    flow.segments(1, &[answers, b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".repeat(2_000)].concat());
}

/// Every octet of a ClientHello in a record and a segment of its own, with empty records between.
fn hello_in_records_of_one_octet(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    for octet in &messages::client_hello("a", random)[5..] {
        flow.send(0, PSH | ACK, b"\x16\x03\x01\0\0");
        flow.send(0, PSH | ACK, &[0x16, 3, 1, 0, 1, *octet]);
    }
    flow.acknowledge(1);
    flow.one_by_one(1, &messages::server_flight(random)[..400]);
}

/// A hello that says it has sixteen million octets, and a certificate of as many.
fn hello_without_end(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let record = [&b"\x16\x03\x03\x40\0"[..], &[0; 0x4000]].concat();
    flow.segments(0, &[&b"\x16\x03\x01\0\x04\x01\xff\xff\xff"[..], &record.repeat(4)].concat());
    let certificate = [&messages::server_flight(random)[..95], b"\x16\x03\x03\0\x04\x0b\xff\xff\xff"].concat();
    flow.segments(1, &[&certificate[..], &record.repeat(4)].concat());
}

/// Empty records, warnings, and ChangeCipherSpec, thousands.
fn records_of_nothing(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.send(0, PSH | ACK, &messages::client_hello("a", random));
    flow.acknowledge(1);
    flow.segments(1, &b"\x16\x03\x03\0\0\x15\x03\x03\0\x02\x01\x5a".repeat(5_000));
    flow.segments(0, &[messages::CHANGE_CIPHER_SPEC, b"\x17\x03\x03\0\0"].concat().repeat(5_000));
}

fn names_that_point_at_themselves(flow: &mut Conversation, random: &mut Random) {
    for n in 0..300_u16 {
        let mut message = (random.next() as u16).to_be_bytes().to_vec();
        message.extend_from_slice(&[if n % 2 == 0 { 1 } else { 0x81 }, 0x80, 0xff, 0xff, 0xff, 0xff, 0, 1, 0xff, 0xff]);
        for hop in 0..200_u16 {
            // To itself; to the next one, and the last to the first; label after label, and back.
            match n % 3 {
                0 => message.extend_from_slice(&(0xc00c + 2 * hop).to_be_bytes()),
                1 => message.extend_from_slice(&(0xc00c + 2 * ((hop + 1) % 200)).to_be_bytes()),
                _ => message.extend_from_slice(b"\x01a"),
            }
        }
        message.extend_from_slice(b"\xc0\x0c\0\x01\0\x01");
        flow.datagram(usize::from(n % 2), &message);
    }
}

fn queries_nobody_answers(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..600 {
        let query = messages::query(&long_name(random), random);
        flow.datagram(0, &query);
    }
}

/// Each says eighty addresses of a name that nobody will ask for again.
fn answers_full_of_addresses(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..60 {
        let query = messages::query(&long_name(random), random);
        flow.datagram(0, &query);
        let mut answer = messages::answer_of(&query, random.next() as u32);
        answer[7] = 80;
        for _ in 1..80 {
            answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04");
            answer.extend_from_slice(&(random.next() as u32).to_be_bytes());
        }
        flow.datagram(1, &answer);
    }
}

/// A PROXY header of 65,535 octets: addresses, and then nothing but empty TLVs, one inside the other where a TLV may hold others.
fn header_of_many_tlvs(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let mut header = messages::proxy_header(random);
    header[14..16].fill(0xff);
    if random.below(2) == 0 {
        // PP2_TYPE_SSL: a client's flags and its verification, then TLVs.
        header.extend_from_slice(b"\x20\xff\x00\x01\0\0\0\0");
    }
    while header.len() + 3 <= 16 + 0xffff {
        header.extend_from_slice(b"\x04\0\0");
    }
    header.resize(16 + 0xffff, 4);
    flow.segments(0, &header);
}

fn header_after_header(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let version_1 = b"PROXY TCP4 203.0.113.9 192.168.0.1 40000 443\r\n";
    flow.segments(0, &[messages::proxy_header(random), version_1.to_vec()].concat().repeat(1_500));
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM_AND_HEADERS: u8 = 5;

/// RFC 9113 §4.1: length, type, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn http2(flow: &mut Conversation, frames: impl Iterator<Item = Vec<u8>>) {
    flow.handshake();
    let mut octets = PREFACE.to_vec();
    frames.for_each(|frame| octets.extend_from_slice(&frame));
    flow.send(1, PSH | ACK, b"\0\0\x06\x04\0\0\0\0\0\0\x01\xff\xff\xff\xff");
    flow.segments(0, &octets);
}

/// Header fields in frames of one octet, and no end of them.
fn continuations_without_end(flow: &mut Conversation, _: &mut Random) {
    let more = (0..8_000).map(|n| frame(CONTINUATION, 0, 1, if n % 2 == 0 { b"\x82" } else { b"" }));
    http2(flow, std::iter::once(frame(HEADERS, 0, 1, b"\x82\x84\x86")).chain(more));
}

/// The table emptied and made large again before every field (RFC 7541 §6.3), which is then put into it.
fn tables_resized(flow: &mut Conversation, _: &mut Random) {
    let block = |n: u32| {
        let mut block = b"\x20\x3f\xe1\x1f\x20\x3f\xe1\x1f\x82\x84\x86\x41\x01a".to_vec();
        block.extend_from_slice(format!("\x40\x04{:04}\x04{:04}", n % 10_000, n % 777).as_bytes());
        block
    };
    http2(flow, (0..2_500).map(|n| frame(HEADERS, END_STREAM_AND_HEADERS, 2 * n + 1, &block(n))));
}

/// A field of 4,000 octets goes into the table, and then one octet after the other stands for it.
fn one_octet_is_four_thousand(flow: &mut Conversation, _: &mut Random) {
    let block = [&b"\x40\x01a\x7f\xa1\x1e"[..], &[b'v'; 4_000], &[0xbe; 12_000]].concat();
    http2(flow, (0..8).map(|n| frame(HEADERS, END_STREAM_AND_HEADERS, 2 * n + 1, &block)));
}

fn streams_reset_at_once(flow: &mut Conversation, _: &mut Random) {
    let pair = |n: u32| {
        let asked = frame(HEADERS, END_STREAM_AND_HEADERS, 2 * n + 1, b"\x82\x84\x86\x41\x01a");
        [asked, frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat()
    };
    http2(flow, (0..3_000).map(pair));
}

fn settings_and_pings(flow: &mut Conversation, random: &mut Random) {
    let size = random.next() as u32;
    let one = |n: u32| match n % 4 {
        0 => frame(PING, 0, 0, &u64::from(n).to_be_bytes()),
        1 => frame(SETTINGS, 0, 0, &[&b"\0\x01"[..], &size.rotate_left(n).to_be_bytes()].concat()),
        2 => frame(WINDOW_UPDATE, 0, n, &[0, 0, 0, 1]),
        _ => frame(0xfa, 0xff, n, &[]),
    };
    http2(flow, (0..6_000).map(one));
}

/// Continuation lines of a greeting (RFC 5321 §4.2.1), half of them octet by octet.
fn greeting_without_end(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.segments(1, &b"220-hello\r\n".repeat(6_000));
    flow.one_by_one(1, &b"220-\r\n".repeat(100));
}

/// What begins like a message of a service, and claims to be as long as its field allows.
fn lengths_that_are_lies(flow: &mut Conversation, random: &mut Random) {
    const BEGINNINGS: [&[u8]; 8] = [
        b"*2147483647\r\n$2147483647\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
        b"\x7f\xff\xff\xff\0\x03\0\0user\0",
        b"\xff\xff\xff\0\x0a8.0.0\0",
        b"\x10\xff\xff\xff\x7f\0\x04MQTT",
        b"AMQP\0\0\x09\x01\x01\0\0\xff\xff\xff\xff",
        b"SSH-2.0-",
        b"\x30\x84\x7f\xff\xff\xff\x02\x01\x01\x60",
    ];
    let beginning = BEGINNINGS[random.below(8) as usize];
    flow.handshake();
    for side in [0, 1] {
        flow.segments(side, &beginning.repeat(40_000 / beginning.len()));
    }
}

fn noise(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    for _ in 0..60 {
        let octets: Vec<u8> = (0..100).flat_map(|_| random.next().to_le_bytes()).collect();
        flow.send(random.below(2) as usize, PSH | ACK, &octets);
    }
}

/// ICMP errors about flows that nobody saw, and addresses that ARP says to be somewhere else every time.
fn errors_about_strangers(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..600 {
        let ports = [random.next() as u16, random.next() as u16];
        let error = flow.ends.unreachable(random.next() as u32, random.next() as u32, ports);
        flow.push(error);
        let host = if random.below(2) == 0 { random.next() as u32 } else { 0xc0a8_0001 };
        flow.push(arp_answer(host, random.next() as u8));
    }
}

/// A name of 190 octets that nobody used before.
fn long_name(random: &mut Random) -> String {
    let label = |random: &mut Random| -> String { (0..60).map(|_| (b'a' + random.below(26) as u8) as char).collect() };
    format!("{}.{}.{}.example", label(random), label(random), label(random))
}
