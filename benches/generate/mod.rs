//! Generated traffic, the same for the same seed: correct handshakes, sequence numbers, checksums and records, flows interleaved in time.
//!
//! Benches, tests and `examples/generate.rs` share it. It looks like a capture on the client's side of a load balancer: the client answers
//! at once, the server a round trip later. Frames of a flow are made when it begins and wait in a heap for their time, so memory depends
//! on how many flows are under way, not on how much is written.

#![allow(dead_code)] // each user needs another part of it

mod conversation;
mod messages;
mod packet;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use conversation::Kind;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// What a load balancer sees, and nothing is wrong: TLS 1.3, HTTP/1 with keep-alive, DNS, IPv4 and IPv6.
    Healthy,
    /// As many patterns as can be made that look odd and are well, among ordinary flows: three in four.
    Benign,
    /// Healthy traffic; one flow in sixty is refused, unanswered, reset, loses a segment, or begins with a PROXY header that nobody expects.
    Mix,
    /// Very many short flows of small packets: seven a flow, 96 octets a frame.
    Small,
    /// Short flows that work; in one of eleven a load balancer sends a PROXY header to a pool that speaks TLS.
    Outage,
    /// Spoofed SYNs to one port; nobody answers.
    Flood,
    /// Flows that all stay open, about 800 octets of capture each.
    Storm,
    /// Attacks on whoever reads the capture: meant to exhaust memory or time. A "flow" is one bout of an attack, of 20 to 200 KB.
    Evil,
    /// One of these attacks alone, by its number.
    Attack(usize),
}

impl Shape {
    /// Every shape with the word it has on the command line.
    pub const ALL: [(&str, Shape); 8] = [
        ("healthy", Shape::Healthy),
        ("benign", Shape::Benign),
        ("mix", Shape::Mix),
        ("small", Shape::Small),
        ("outage", Shape::Outage),
        ("flood", Shape::Flood),
        ("storm", Shape::Storm),
        ("evil", Shape::Evil),
    ];

    /// The shape of a word on the command line: one of [`Shape::ALL`], or the name of an attack.
    pub fn named(word: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, shape)| *shape);
        known.or_else(|| Kind::attack(word).map(Self::Attack))
    }

    /// The names of all attacks.
    pub fn attacks() -> impl Iterator<Item = &'static str> {
        Kind::attacks()
    }

    fn kind(self, number: u64, random: &mut Random) -> Kind {
        match self {
            Shape::Outage if random.below(11) == 0 => Kind::Pool,
            Shape::Small | Shape::Outage => Kind::Short,
            Shape::Flood => Kind::Spoofed,
            Shape::Storm => Kind::Open,
            Shape::Evil => Kind::Evil(number as usize % Kind::ATTACKS),
            Shape::Attack(attack) => Kind::Evil(attack),
            Shape::Mix if random.below(60) == 0 => Kind::FAULTS[random.below(Kind::FAULTS.len() as u64) as usize],
            Shape::Benign if random.below(4) > 0 => Kind::Benign(random.below(Kind::PATTERNS as u64) as usize),
            Shape::Healthy | Shape::Benign | Shape::Mix => match random.below(100) {
                0..33 => Kind::Tls,
                33..63 => Kind::Http,
                _ => Kind::Dns,
            },
        }
    }

    /// Microseconds between the beginnings of two flows: some thousands are under way at any time.
    fn pause(self, random: &mut Random) -> u64 {
        match self {
            Shape::Benign => 5_000 + random.below(10_000),
            Shape::Healthy | Shape::Mix => 200 + random.below(200),
            Shape::Small | Shape::Outage => 20 + random.below(40),
            Shape::Flood | Shape::Storm => 2 + random.below(6),
            Shape::Evil | Shape::Attack(_) => 1_000 + random.below(2_000),
        }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Octets of the file.
    pub octets: u64,
    /// Packets.
    pub packets: u64,
    /// Flows begun; some patterns of [`Shape::Benign`] take two, most of [`Shape::Evil`] many.
    pub flows: u64,
}

/// A frame that waits for its time (µs since the epoch); the second number keeps frames of one microsecond in their order.
type Waiting = Reverse<(u64, u64, Vec<u8>)>;

/// Writes a pcap of at least `octets`; flows that are under way then are finished.
pub fn write(shape: Shape, octets: u64, seed: u64, out: &mut impl Write) -> io::Result<Totals> {
    out.write_all(&file_header())?;
    let mut totals = Totals { octets: 24, ..Totals::default() };
    let mut random = Random(seed | 1);
    let mut waiting: BinaryHeap<Waiting> = BinaryHeap::new();
    // 2023-11-14 22:13:20 UTC.
    let mut now = 1_700_000_000_000_000_u64;
    let mut order = 0;
    while totals.octets < octets {
        let kind = shape.kind(totals.flows, &mut random);
        for (at, frame) in conversation::frames(kind, totals.flows, now, &mut random) {
            waiting.push(Reverse((at, order, frame)));
            order += 1;
        }
        totals.flows += 1;
        now += shape.pause(&mut random);
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

/// The same in memory.
pub fn bytes(shape: Shape, octets: u64, seed: u64) -> (Vec<u8>, Totals) {
    let mut bytes = Vec::with_capacity(octets as usize + (1 << 16));
    let totals = write(shape, octets, seed, &mut bytes).expect("writing to memory");
    (bytes, totals)
}

/// Little-endian, microseconds, Ethernet, whole frames.
fn file_header() -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
    header[4..8].copy_from_slice(&[2, 0, 4, 0]);
    header[16..20].copy_from_slice(&262_144_u32.to_le_bytes());
    header[20..].copy_from_slice(&1_u32.to_le_bytes());
    header
}

fn record(at: u64, frame: &[u8], totals: &mut Totals, out: &mut impl Write) -> io::Result<()> {
    let mut header = [0; 16];
    let len = (frame.len() as u32).to_le_bytes();
    header[..4].copy_from_slice(&((at / 1_000_000) as u32).to_le_bytes());
    header[4..8].copy_from_slice(&((at % 1_000_000) as u32).to_le_bytes());
    header[8..12].copy_from_slice(&len);
    header[12..].copy_from_slice(&len);
    out.write_all(&header)?;
    out.write_all(frame)?;
    totals.packets += 1;
    totals.octets += 16 + frame.len() as u64;
    Ok(())
}

/// xorshift64*: fast, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}
