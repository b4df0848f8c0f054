//! What the two sides of one flow say, segment by segment.

#[path = "benign.rs"]
mod benign;
#[path = "evil.rs"]
mod evil;

use super::Random;
use super::messages::{self, CHANGE_CIPHER_SPEC, EVENT_STREAM};
use super::packet::{ACK, Ends, FIN, PSH, RST, SYN, Segment};

/// What becomes of a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// TLS 1.3: some requests, closed by the client.
    Tls,
    /// HTTP/1 with keep-alive.
    Http,
    /// One query and its answer.
    Dns,
    /// One exchange of few octets in seven segments: the answer carries the acknowledgment and the FIN.
    Short,
    /// An event stream that stays open.
    Open,
    /// A SYN from an address that never sent it.
    Spoofed,
    /// Nothing listens.
    Refused,
    /// SYN, and three more.
    Unanswered,
    /// Reset in the middle of an answer.
    Reset,
    /// An answer whose second segment is lost and sent again.
    Lossy,
    /// A PROXY header to a port that speaks TLS.
    Proxy,
    /// The same from one load balancer to its pool of eight.
    Pool,
    /// A pattern that looks odd and is well, by its number.
    Benign(usize),
    /// An attack on whoever reads the capture, by its number: one bout of it, whatever flows that takes.
    Evil(usize),
}

impl Kind {
    /// How many benign patterns there are.
    pub(super) const PATTERNS: usize = benign::PATTERNS.len();
    /// How many attacks there are.
    pub(super) const ATTACKS: usize = evil::ATTACKS.len();

    /// The number of an attack.
    pub(super) fn attack(name: &str) -> Option<usize> {
        evil::ATTACKS.iter().position(|attack| attack.0 == name)
    }

    /// What all attacks are called.
    pub(super) fn attacks() -> impl Iterator<Item = &'static str> {
        evil::ATTACKS.iter().map(|attack| attack.0)
    }

    pub(super) const FAULTS: [Kind; 5] = [Kind::Refused, Kind::Unanswered, Kind::Reset, Kind::Lossy, Kind::Proxy];

    fn port(self) -> u16 {
        match self {
            Kind::Tls => 443,
            Kind::Http | Kind::Short => 80,
            Kind::Dns => 53,
            Kind::Open | Kind::Spoofed => 8080,
            Kind::Refused => 81,
            Kind::Unanswered => 82,
            Kind::Reset => 83,
            Kind::Lossy => 84,
            Kind::Proxy | Kind::Pool => 1443,
            Kind::Benign(pattern) => benign::PATTERNS[pattern].0,
            Kind::Evil(attack) => evil::ATTACKS[attack].1,
        }
    }
}

/// All frames of a flow with their times (µs since the epoch), in order.
pub(super) fn frames(kind: Kind, number: u64, begin: u64, random: &mut Random) -> Vec<(u64, Vec<u8>)> {
    let mut flow = Conversation::new(kind, number, begin, random);
    match kind {
        Kind::Tls => flow.tls(random),
        Kind::Http => flow.http(random),
        Kind::Dns => flow.dns(random),
        Kind::Short => flow.short(random),
        Kind::Open => flow.open(random),
        Kind::Spoofed => flow.send(0, SYN, &[]),
        Kind::Refused => flow.refused(),
        Kind::Unanswered => flow.unanswered(),
        Kind::Reset => flow.reset(random),
        Kind::Lossy => flow.lossy(random),
        Kind::Proxy | Kind::Pool => flow.proxy(random),
        Kind::Benign(pattern) => benign::PATTERNS[pattern].1(&mut flow, random),
        Kind::Evil(attack) => (evil::ATTACKS[attack].2)(&mut flow, random),
    }
    flow.frames
}

/// Clients take turns, so that a port is used again only after fourteen million flows.
const CLIENTS: u64 = 500;
const FIRST_CLIENT: u32 = 0x0a00_0001;
/// Linux' ephemeral ports.
const EPHEMERAL: (u16, u64) = (32_768, 28_232);

/// A flow being written. Sides: 0 is the client, 1 the server.
struct Conversation {
    ends: Ends,
    next: [u32; 2],
    /// Initial values of the hosts' timestamp clocks, which tick in milliseconds.
    clocks: [u32; 2],
    /// Value of the timestamp last seen from each side.
    stamps: [u32; 2],
    rtt: u64,
    at: u64,
    frames: Vec<(u64, Vec<u8>)>,
}

impl Conversation {
    fn new(kind: Kind, number: u64, begin: u64, random: &mut Random) -> Self {
        let client = match kind {
            Kind::Spoofed => random.next() as u32,
            Kind::Pool => 0x0a01_0001,
            _ => FIRST_CLIENT + (number % CLIENTS) as u32,
        };
        let pool = kind == Kind::Pool;
        let port = EPHEMERAL.0 + (number / if pool { 1 } else { CLIENTS } % EPHEMERAL.1) as u16;
        // Of the pool the next server whenever the load balancer's ports begin anew.
        let server = if pool { (number + number / EPHEMERAL.1) % 8 } else { random.below(64) };
        Self {
            ends: Ends {
                v6: !matches!(kind, Kind::Spoofed | Kind::Pool) && random.below(5) == 0,
                hosts: [client, 0xc0a8_0001 + server as u32],
                ports: [port, kind.port()],
                ids: [random.next() as u16, random.next() as u16],
            },
            next: [random.next() as u32, random.next() as u32],
            clocks: [random.next() as u32, random.next() as u32],
            stamps: [0; 2],
            rtt: 200 + random.below(20_000),
            at: begin,
            frames: Vec::with_capacity(32),
        }
    }

    fn tls(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH | ACK, &messages::client_hello(&messages::name(random), random));
        self.acknowledge(1);
        self.at += random.below(1_000);
        self.segments(1, &messages::server_flight(random));
        self.at += 400;
        let mut finished = CHANGE_CIPHER_SPEC.to_vec();
        finished.extend_from_slice(&messages::application(53, random));
        self.send(0, PSH | ACK, &finished);
        for _ in 0..1 + random.below(3) {
            self.at += random.below(300_000);
            self.send(0, PSH | ACK, &messages::application(120 + random.below(400), random));
            self.acknowledge(1);
            self.at += 300 + random.below(4_000);
            self.segments(1, &messages::application(100 + random.below(4_000), random));
            self.acknowledge(0);
        }
        self.at += random.below(500_000);
        // close_notify, encrypted
        self.send(0, PSH | ACK, &messages::application(19, random));
        self.close(0);
    }

    fn http(&mut self, random: &mut Random) {
        self.handshake();
        let name = messages::name(random);
        for _ in 0..1 + random.below(4) {
            self.send(0, PSH | ACK, &messages::request(&name, random));
            // An answer within 40 ms carries the acknowledgment.
            self.at += self.rtt + 300 + random.below(5_000);
            self.segments(1, &messages::answer(random.below(2_800)));
            self.acknowledge(0);
            self.at += random.below(300_000);
        }
        self.close(0);
    }

    fn short(&mut self, random: &mut Random) {
        self.handshake();
        self.send(
            0,
            PSH | ACK,
            b"GET /short/item/1 HTTP/1.1\r\nHost: shop.example.com\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        );
        self.at += self.rtt + random.below(100);
        self.send(
            1,
            FIN | PSH | ACK,
            b"HTTP/1.1 200 OK\r\nServer: generator/1.0\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        );
        self.at += 40;
        self.send(0, FIN | ACK, &[]);
        self.acknowledge(1);
    }

    fn open(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH | ACK, &messages::request(&messages::name(random), random));
        self.acknowledge(1);
        self.send(1, PSH | ACK, EVENT_STREAM);
        self.acknowledge(0);
    }

    fn dns(&mut self, random: &mut Random) {
        let query = messages::query(&messages::name(random), random);
        let frame = self.ends.udp(0, &query);
        self.push(frame);
        self.at += self.rtt;
        let frame = self.ends.udp(1, &messages::answer_of(&query, 0xc0a8_0001 + random.below(64) as u32));
        self.push(frame);
    }

    fn refused(&mut self) {
        self.send(0, SYN, &[]);
        self.at += self.rtt;
        // RFC 9293 §3.10.7.1: to a closed port the answer has sequence number 0.
        self.next[1] = 0;
        self.send(1, RST | ACK, &[]);
    }

    fn unanswered(&mut self) {
        let (begin, isn) = (self.at, self.next[0]);
        for after in [0, 1_020_000, 3_036_000, 7_068_000] {
            (self.at, self.next[0]) = (begin + after, isn);
            self.send(0, SYN, &[]);
        }
    }

    fn reset(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH | ACK, &messages::request(&messages::name(random), random));
        self.acknowledge(1);
        let answer = messages::answer(20_000);
        self.segments(1, &answer[..3 * self.mss()]);
        self.acknowledge(0);
        self.at += 5_000;
        self.send(1, RST | ACK, &[]);
    }

    fn lossy(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH | ACK, &messages::request(&messages::name(random), random));
        self.acknowledge(1);
        let (answer, mss) = (messages::answer(8_000), self.mss());
        let hole = self.next[1].wrapping_add(mss as u32);
        let behind = hole.wrapping_add(mss as u32);
        for (n, piece) in answer.chunks(mss).enumerate() {
            self.at += 12;
            if n == 1 {
                self.next[1] = behind;
                continue;
            }
            self.send(1, PSH | ACK, piece);
            if n > 1 {
                // RFC 5681 §4.2: a segment beyond a hole is acknowledged at once.
                self.duplicate_acknowledgment(hole, behind);
            }
        }
        self.at += self.rtt;
        let end = std::mem::replace(&mut self.next[1], hole);
        self.send(1, ACK, &answer[mss..2 * mss]);
        self.next[1] = end;
        self.acknowledge(0);
        self.close(0);
    }

    fn proxy(&mut self, random: &mut Random) {
        self.handshake();
        self.send(0, PSH | ACK, &messages::proxy_header(random));
        self.send(0, PSH | ACK, &messages::client_hello(&messages::name(random), random));
        self.acknowledge(1);
        self.send(1, FIN | ACK, &[]);
        self.send(0, FIN | ACK, &[]);
        self.acknowledge(1);
    }

    fn handshake(&mut self) {
        self.send(0, SYN, &[]);
        self.at += self.rtt;
        self.send(1, SYN | ACK, &[]);
        self.acknowledge(0);
    }

    fn close(&mut self, side: usize) {
        self.send(side, FIN | ACK, &[]);
        self.at += if side == 0 { self.rtt } else { 40 };
        self.send(1 - side, FIN | ACK, &[]);
        self.acknowledge(side);
    }

    /// The server acknowledges a round trip later, the client at once.
    fn acknowledge(&mut self, side: usize) {
        self.at += if side == 1 { self.rtt } else { 40 };
        self.send(side, ACK, &[]);
    }

    /// Octets in segments of full size; the other side acknowledges every second one (RFC 9293 §3.8.6.3).
    fn segments(&mut self, side: usize, octets: &[u8]) {
        let pieces = octets.len().div_ceil(self.mss());
        for (n, piece) in octets.chunks(self.mss()).enumerate() {
            self.at += 12;
            let last = n + 1 == pieces;
            self.send(side, if last { PSH | ACK } else { ACK }, piece);
            if n % 2 == 1 && !last {
                self.send(1 - side, ACK, &[]);
            }
        }
    }

    /// What fits beside a timestamp: 1,500 octets less both headers and 12 octets of options.
    fn mss(&self) -> usize {
        if self.ends.v6 { 1_428 } else { 1_448 }
    }

    fn duplicate_acknowledgment(&mut self, hole: u32, behind: u32) {
        let mut options = self.timestamps(0).to_vec();
        options.extend_from_slice(&[1, 1, 5, 10]);
        options.extend_from_slice(&behind.to_be_bytes());
        options.extend_from_slice(&self.next[1].to_be_bytes());
        self.segment(
            0,
            &Segment { seq: self.next[0], ack: hole, flags: ACK, window: 501, options: &options, payload: &[] },
        );
    }

    fn send(&mut self, side: usize, flags: u8, payload: &[u8]) {
        let timestamps = self.timestamps(side);
        let mut with_mss =
            [2, 4, 5, if self.ends.v6 { 0xa0 } else { 0xb4 }, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
        with_mss[8..16].copy_from_slice(&timestamps[4..]);
        let (options, window): (&[u8], u16) = match flags {
            _ if flags & SYN != 0 => (&with_mss, 64_240),
            _ if flags & RST != 0 => (&[], 0),
            _ => (&timestamps, 501),
        };
        let ack = if flags & ACK != 0 { self.next[1 - side] } else { 0 };
        self.segment(side, &Segment { seq: self.next[side], ack, flags, window, options, payload });
        self.next[side] = self.next[side].wrapping_add(payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0));
    }

    /// The timestamps option, RFC 7323 §3.2, behind two octets of padding.
    fn timestamps(&mut self, side: usize) -> [u8; 12] {
        let value = self.clocks[side].wrapping_add((self.at / 1_000) as u32);
        self.stamps[side] = value;
        let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
        option[4..8].copy_from_slice(&value.to_be_bytes());
        option[8..].copy_from_slice(&self.stamps[1 - side].to_be_bytes());
        option
    }

    fn datagram(&mut self, side: usize, octets: &[u8]) {
        let frame = self.ends.udp(side, octets);
        self.push(frame);
    }

    /// A segment with other numbers than the next ones.
    fn odd(&mut self, side: usize, seq: u32, window: u16, flags: u8, payload: &[u8]) {
        let (options, ack) = (self.timestamps(side), self.next[1 - side]);
        self.segment(side, &Segment { seq, ack, flags, window, options: &options, payload });
    }

    fn segment(&mut self, side: usize, segment: &Segment<'_>) {
        let frame = self.ends.tcp(side, segment);
        self.push(frame);
    }

    fn push(&mut self, frame: Vec<u8>) {
        self.at += 3;
        self.frames.push((self.at, frame));
    }
}
