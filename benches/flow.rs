//! What a packet costs the flow table: whole HTTP-like connections, many at a time, from SYN to the last FIN.
//!
//! Throughput is packets. `narrow` keeps all records in cache, `wide` does not; both count the opening and closing of flows.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tcpwhy::decode::{Flags, Ip, Link, Packet, Segment, Transport};
use tcpwhy::event::{Event, PacketRef, Side};
use tcpwhy::flow::facts::FlowFacts;
use tcpwhy::flow::table::{FlowTable, Limits};
use tcpwhy::flow::{Ended, FlowHead, Sink, Wants};
use tcpwhy::time::Timestamp;
use tcpwhy::wire::Address;
use tcpwhy::wire::seq::Seq;

const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const SYN_OPTIONS: [u8; 8] = [2, 4, 5, 0xb4, 1, 3, 3, 7];
const PAYLOAD: [u8; 1448] = [0x5a; 1448];

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    type Conversation = ();
    fn open(&mut self, _: &FlowHead) {}
    fn event(&mut self, _: &FlowHead, _: &mut (), event: Event) {
        black_box(&event);
    }
    fn bytes(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, bytes: &[u8]) -> Wants {
        black_box(bytes);
        Wants::More
    }
    fn gap(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, _: u64) {}
    fn datagram(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef, _: &[u8], _: u32) -> Wants {
        Wants::More
    }
    fn end(&mut self, _: &FlowHead, _: &mut (), _: Side, _: PacketRef) {}
    fn closed(&mut self, facts: Box<FlowFacts>, _: (), _: Ended, _: Timestamp) {
        black_box(&facts);
    }
}

/// One connection: is it the server's packet, flags, relative seq and ack, payload octets.
fn connection() -> Vec<(bool, u8, u32, u32, usize)> {
    let mut steps = vec![
        (false, 0x02, 0, 0, 0),
        (true, 0x12, 0, 1, 0),
        (false, 0x10, 1, 1, 0),
        (false, 0x18, 1, 1, 400),
        (true, 0x10, 1, 401, 0),
    ];
    for i in 0..12u32 {
        steps.push((true, 0x10, 1 + i * 1448, 401, 1448));
        if i % 2 == 1 {
            steps.push((false, 0x10, 401, 1 + (i + 1) * 1448, 0));
        }
    }
    // One segment in twelve is sent twice.
    steps.push((true, 0x10, 1 + 11 * 1448, 401, 1448));
    let end = 1 + 12 * 1448;
    steps.push((true, 0x11, end, 401, 0));
    steps.push((false, 0x11, 401, end + 1, 0));
    steps.push((true, 0x10, end + 1, 402, 0));
    steps
}

/// All packets of `flows` connections, one step of each in turn.
fn packets(flows: u32) -> Vec<Packet<'static>> {
    let (mut packets, mut number) = (Vec::new(), 0u64);
    for (step, &(server, flags, seq, ack, len)) in connection().iter().enumerate() {
        for flow in 0..flows {
            number += 1;
            let client = Address(0xffff_0a00_0000 | u128::from(flow >> 14));
            let host = Address::v4([10, 200, 0, 1]);
            let port = 1024 + (flow & 0x3fff) as u16;
            let (source, destination) = if server { (host, client) } else { (client, host) };
            let (source_port, destination_port) = if server { (443, port) } else { (port, 443) };
            let (isn, peer) = if server { (7_000, 3_000) } else { (3_000, 7_000) };
            let payload = &PAYLOAD[..len];
            packets.push(Packet {
                at: PacketRef { file: 0, number, time: Timestamp(number as i64 * 1_000) },
                interface: 0,
                link: Link::default(),
                ip: Some(Ip {
                    source,
                    destination,
                    ttl: 64,
                    id: Some(step as u16 + 1),
                    len: 52 + len as u32,
                    reassembled: false,
                    tunnelled: false,
                }),
                transport: Transport::Tcp(Segment {
                    source_port,
                    destination_port,
                    seq: Seq(isn + seq),
                    ack: Seq(peer + ack),
                    flags: Flags(flags),
                    window: 500,
                    options: if flags & 2 != 0 { &SYN_OPTIONS } else { &TIMESTAMPS },
                    payload,
                    payload_len: len as u32,
                    checksum: 0,
                }),
                cut: false,
            });
        }
    }
    packets
}

fn bench(criterion: &mut Criterion) {
    for (name, flows) in [("narrow", 500u32), ("wide", 40_000)] {
        let packets = packets(flows);
        let mut group = criterion.benchmark_group("flow");
        group.throughput(Throughput::Elements(packets.len() as u64)).sample_size(10);
        group.bench_function(name, |bencher| {
            let fresh = || FlowTable::<Nowhere>::new(Limits::default(), 7);
            bencher.iter_batched(
                fresh,
                |mut table| {
                    for packet in &packets {
                        table.packet(packet, &mut Nowhere);
                    }
                    table.finish(Timestamp(1), &mut Nowhere);
                    table
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
