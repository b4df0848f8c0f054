//! Generated traffic, the same for the same seed: correct handshakes, sequence numbers, checksums and records, flows interleaved in time.
//!
//! *mix* is what a proxy sees: TLS 1.3, HTTP/1 with keep-alive, DNS, IPv4 and IPv6, and on request some faults. *small* is many short
//! flows of small packets. *flood* is spoofed SYNs that nobody answers. *storm* is flows that all stay open.

#![allow(dead_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Healthy mix.
    Mix,
    /// Mix in which one flow in thirty fails.
    Faults,
    /// Short flows of small packets.
    Small,
    /// Spoofed SYNs to one port.
    Flood,
    /// Flows that stay open.
    Storm,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Octets of the file.
    pub octets: u64,
    /// Packets.
    pub packets: u64,
    /// Flows begun.
    pub flows: u64,
}

/// Writes a pcap of at least `octets`.
pub fn write(shape: Shape, octets: u64, seed: u64, out: &mut impl Write) -> io::Result<Totals> {
    let mut header = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    header.extend_from_slice(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header.extend_from_slice(&262_144_u32.to_le_bytes());
    header.extend_from_slice(&1_u32.to_le_bytes());
    out.write_all(&header)?;
    let mut totals = Totals { octets: 24, ..Totals::default() };
    let mut random = Random(seed | 1);
    // (time in µs, order, frame): packets of the flows that are under way.
    let mut waiting: BinaryHeap<Reverse<(u64, u64, Vec<u8>)>> = BinaryHeap::new();
    let mut now = 1_700_000_000_000_000_u64;
    let mut order = 0;
    while totals.octets < octets {
        let flow = Flow::new(totals.flows, shape, &mut random);
        for (after, frame) in flow.packets(shape, &mut random) {
            waiting.push(Reverse((now + after, order, frame)));
            order += 1;
        }
        totals.flows += 1;
        // Two to three thousand new flows a second keep some thousands under way.
        now += 300 + random.below(200);
        while waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((at, _, frame))) = waiting.pop() else { break };
            record(at, &frame, &mut totals, out)?;
        }
    }
    while let Some(Reverse((at, _, frame))) = waiting.pop() {
        record(at, &frame, &mut totals, out)?;
    }
    Ok(totals)
}

fn record(at: u64, frame: &[u8], totals: &mut Totals, out: &mut impl Write) -> io::Result<()> {
    let len = (frame.len() as u32).to_le_bytes();
    out.write_all(&((at / 1_000_000) as u32).to_le_bytes())?;
    out.write_all(&((at % 1_000_000) as u32).to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(&len)?;
    out.write_all(frame)?;
    totals.packets += 1;
    totals.octets += 16 + frame.len() as u64;
    Ok(())
}

/// xorshift64*: fast, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tls,
    Http,
    Dns,
    Refused,
    Unanswered,
    Proxy,
    Short,
    Syn,
    Open,
}

struct Flow {
    kind: Kind,
    v6: bool,
    client: u32,
    server: u32,
    ports: [u16; 2],
    next: [u32; 2],
    ids: [u16; 2],
    rtt: u64,
    at: u64,
    frames: Vec<(u64, Vec<u8>)>,
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const PSH: u8 = 24;
const FIN: u8 = 17;
const RST: u8 = 20;

impl Flow {
    fn new(number: u64, shape: Shape, random: &mut Random) -> Self {
        let kind = match shape {
            Shape::Small => Kind::Short,
            Shape::Flood => Kind::Syn,
            Shape::Storm => Kind::Open,
            Shape::Faults if random.below(30) == 0 => match random.below(3) {
                0 => Kind::Refused,
                1 => Kind::Unanswered,
                _ => Kind::Proxy,
            },
            Shape::Mix | Shape::Faults => match random.below(10) {
                0..5 => Kind::Tls,
                5..8 => Kind::Http,
                _ => Kind::Dns,
            },
        };
        let port = match kind {
            Kind::Tls => 443,
            Kind::Http | Kind::Short => 80,
            Kind::Dns => 53,
            Kind::Refused => 81,
            Kind::Unanswered => 82,
            Kind::Proxy => 1443,
            Kind::Syn | Kind::Open => 8080,
        };
        let host = match kind {
            Kind::Syn => random.next() as u32,
            _ => 0x0a00_0000 | (number / 60_000 % 0xffff) as u32,
        };
        Self {
            kind,
            v6: kind != Kind::Syn && random.below(5) == 0,
            client: host,
            server: 0xc0a8_0000 | random.below(64) as u32,
            ports: [1024 + (number % 60_000) as u16, port],
            next: [random.next() as u32, random.next() as u32],
            ids: [random.next() as u16, random.next() as u16],
            rtt: 200 + random.below(20_000),
            at: 0,
            frames: Vec::new(),
        }
    }

    fn packets(mut self, shape: Shape, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
        match self.kind {
            Kind::Dns => self.dns(random),
            Kind::Refused => {
                self.send(0, SYN, &[]);
                self.at += self.rtt;
                self.next[1] = 0;
                self.send(1, RST, &[]);
            }
            Kind::Unanswered => {
                let isn = self.next[0];
                for after in [0, 1_000_000, 3_000_000, 7_000_000] {
                    self.at = after;
                    self.next[0] = isn;
                    self.send(0, SYN, &[]);
                }
            }
            Kind::Syn => self.send(0, SYN, &[]),
            Kind::Open => {
                self.handshake();
                self.send(0, PSH, b"GET /stream HTTP/1.1\r\nHost: www.example.com\r\nAccept: text/event-stream\r\n\r\n");
                self.turn(1);
                self.send(1, PSH, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                self.turn(0);
            }
            Kind::Proxy => {
                self.handshake();
                let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
                header.extend_from_slice(&[203, 0, 113, 7, 192, 168, 0, 1, 0xcf, 0x0a, 0x01, 0xbb]);
                self.send(0, PSH, &header);
                self.send(0, PSH, &client_hello(random));
                self.turn(1);
                self.send(1, FIN, &[]);
                self.turn(0);
                self.send(0, FIN, &[]);
                self.turn(1);
            }
            Kind::Http | Kind::Short => self.http(shape, random),
            Kind::Tls => self.tls(random),
        }
        self.frames
    }

    fn handshake(&mut self) {
        self.send(0, SYN, &[]);
        self.at += self.rtt;
        self.send(1, SYN | ACK, &[]);
        self.at += self.rtt / 50;
        self.send(0, ACK, &[]);
    }

    /// Half a round trip later `side` acknowledges.
    fn turn(&mut self, side: usize) {
        self.at += self.rtt / 2;
        self.send(side, ACK, &[]);
    }

    fn http(&mut self, shape: Shape, random: &mut Random) {
        self.handshake();
        let exchanges = if shape == Shape::Small { 1 } else { 1 + random.below(3) };
        for n in 0..exchanges {
            let request = format!("GET /item/{n} HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: generator/1\r\n\r\n");
            self.send(0, PSH, request.as_bytes());
            self.turn(1);
            self.at += 500 + random.below(5_000);
            let len = if shape == Shape::Small { 16 } else { random.below(1_800) };
            let mut answer = format!("HTTP/1.1 200 OK\r\nServer: generator\r\nContent-Length: {len}\r\n\r\n").into_bytes();
            answer.resize(answer.len() + len as usize, b'x');
            self.segments(1, &answer);
            self.turn(0);
        }
        self.close(0);
    }

    fn tls(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH, &client_hello(random));
        self.turn(1);
        let mut flight = server_hello(random);
        flight.extend_from_slice(b"\x14\x03\x03\0\x01\x01");
        flight.extend_from_slice(&application(1_100 + random.below(500) as u16, random));
        self.segments(1, &flight);
        self.turn(0);
        let mut finished = b"\x14\x03\x03\0\x01\x01".to_vec();
        finished.extend_from_slice(&application(53, random));
        self.send(0, PSH, &finished);
        self.turn(1);
        for _ in 0..1 + random.below(2) {
            self.send(0, PSH, &application(120 + random.below(400) as u16, random));
            self.turn(1);
            self.at += 300 + random.below(4_000);
            self.segments(1, &application(200 + random.below(2_400) as u16, random));
            self.turn(0);
        }
        self.send(0, PSH, &application(19, random));
        self.close(0);
    }

    fn dns(&mut self, random: &mut Random) {
        let mut query = (random.next() as u16).to_be_bytes().to_vec();
        query.extend_from_slice(b"\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0\x01\0\x01");
        self.datagram(0, &query);
        self.at += self.rtt;
        let mut answer = query;
        answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
        answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\xa8\0\x01");
        self.datagram(1, &answer);
    }

    fn close(&mut self, side: usize) {
        self.send(side, FIN, &[]);
        self.at += self.rtt;
        self.send(1 - side, FIN, &[]);
        self.at += self.rtt / 50;
        self.send(side, ACK, &[]);
    }

    fn segments(&mut self, side: usize, bytes: &[u8]) {
        for (n, piece) in bytes.chunks(1_388).enumerate() {
            self.at += 12;
            self.send(side, PSH, piece);
            if n % 2 == 1 {
                self.send(1 - side, ACK, &[]);
            }
        }
    }

    fn send(&mut self, side: usize, flags: u8, payload: &[u8]) {
        let ack = if flags & ACK != 0 { self.next[1 - side] } else { 0 };
        let options: &[u8] = if flags & SYN != 0 { b"\x02\x04\x05\xb4\x01\x03\x03\x07\x04\x02\x01\x01" } else { &[] };
        let mut tcp = Vec::with_capacity(32 + payload.len());
        tcp.extend_from_slice(&self.ports[side].to_be_bytes());
        tcp.extend_from_slice(&self.ports[1 - side].to_be_bytes());
        tcp.extend_from_slice(&self.next[side].to_be_bytes());
        tcp.extend_from_slice(&ack.to_be_bytes());
        tcp.extend_from_slice(&[(5 + options.len() as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend_from_slice(options);
        tcp.extend_from_slice(payload);
        self.next[side] = self.next[side].wrapping_add(payload.len() as u32 + u32::from(flags & 3 != 0));
        self.ip(side, 6, tcp, 16);
    }

    fn datagram(&mut self, side: usize, payload: &[u8]) {
        let mut udp = Vec::with_capacity(8 + payload.len());
        udp.extend_from_slice(&self.ports[side].to_be_bytes());
        udp.extend_from_slice(&self.ports[1 - side].to_be_bytes());
        udp.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        self.ip(side, 17, udp, 6);
    }

    fn ip(&mut self, side: usize, protocol: u8, mut segment: Vec<u8>, checksum_at: usize) {
        let hosts = if side == 0 { [self.client, self.server] } else { [self.server, self.client] };
        let mut frame = Vec::with_capacity(54 + segment.len());
        let macs: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
        frame.extend_from_slice(&macs[1 - side]);
        frame.extend_from_slice(&macs[side]);
        let mut addresses = Vec::with_capacity(32);
        for host in hosts {
            if self.v6 {
                addresses.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            addresses.extend_from_slice(&host.to_be_bytes());
        }
        let sum = sum(&addresses) + u64::from(protocol) + segment.len() as u64 + sum_of(&segment);
        segment[checksum_at..checksum_at + 2].copy_from_slice(&fold(sum).to_be_bytes());
        if self.v6 {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(segment.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[protocol, 64]);
            frame.extend_from_slice(&addresses);
        } else {
            self.ids[side] = self.ids[side].wrapping_add(1);
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&(20 + segment.len() as u16).to_be_bytes());
            header.extend_from_slice(&self.ids[side].to_be_bytes());
            header.extend_from_slice(&[0x40, 0, 64, protocol, 0, 0]);
            header.extend_from_slice(&addresses);
            let checksum = fold(sum_of(&header));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend_from_slice(&[8, 0]);
            frame.extend_from_slice(&header);
        }
        frame.extend_from_slice(&segment);
        self.at += 3;
        self.frames.push((self.at, frame));
    }
}

fn sum(bytes: &[u8]) -> u64 {
    sum_of(bytes)
}

/// Sum of 16-bit words, RFC 1071.
fn sum_of(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(2);
    let odd = words.remainder().first().map_or(0, |octet| u64::from(*octet) << 8);
    words.map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u64>() + odd
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(n: usize, random: &mut Random) -> Vec<u8> {
    (0..n.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(n).collect()
}

fn record_of(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}

fn application(len: u16, random: &mut Random) -> Vec<u8> {
    // Nobody reads encrypted octets: eight random ones stand for all.
    let seed = random.next().to_le_bytes();
    record_of(0x17, &seed.iter().copied().cycle().take(usize::from(len)).collect::<Vec<_>>())
}

fn handshake_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0];
    message.extend_from_slice(&(body.len() as u16).to_be_bytes());
    message.extend_from_slice(body);
    record_of(0x16, &message)
}

fn client_hello(random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&octets(32, random));
    body.push(32);
    body.extend_from_slice(&octets(32, random));
    body.extend_from_slice(b"\0\x04\x13\x01\x13\x02\x01\0");
    let mut extensions = b"\0\0\0\x14\0\x12\0\0\x0fwww.example.com".to_vec();
    extensions.extend_from_slice(b"\0\x2b\0\x03\x02\x03\x04\0\x10\0\x0e\0\x0c\x02h2\x08http/1.1");
    // Padding, RFC 7685, up to the size that most clients send.
    let padding = 517 - 5 - 4 - body.len() - 2 - extensions.len() - 4;
    extensions.extend_from_slice(&[0, 21]);
    extensions.extend_from_slice(&(padding as u16).to_be_bytes());
    extensions.resize(extensions.len() + padding, 0);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    handshake_message(1, &body)
}

fn server_hello(random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&octets(32, random));
    body.push(32);
    body.extend_from_slice(&octets(32, random));
    body.extend_from_slice(b"\x13\x01\0\0\x06\0\x2b\0\x02\x03\x04");
    handshake_message(2, &body)
}
