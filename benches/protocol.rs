//! What a flow's octets cost: recognising and reading the beginnings of recorded connections, and stepping over bulk data.
//!
//! Throughput is flows for `begin`, octets for `bulk`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tcpwhy::capture::{OpenOptions, Source};
use tcpwhy::decode::Decoder;
use tcpwhy::event::{Event, PacketRef, Side};
use tcpwhy::flow::facts::{FlowFacts, IpProtocol, RoleSource};
use tcpwhy::flow::table::{FlowTable, Limits};
use tcpwhy::flow::{Ended, FlowHead, Sink, Wants};
use tcpwhy::protocol::Dissector;
use tcpwhy::time::Timestamp;
use tcpwhy::wire::{Address, Endpoint};

/// The streams of one flow, segment by segment.
type Flow = (FlowHead, Vec<(Side, Vec<u8>)>);

/// Writes down what every flow of a capture is lent.
#[derive(Default)]
struct Scribe(Vec<Flow>);

impl Sink for Scribe {
    type Conversation = usize;

    fn open(&mut self, flow: &FlowHead) -> usize {
        self.0.push((*flow, Vec::new()));
        self.0.len() - 1
    }
    fn event(&mut self, _: &FlowHead, _: &mut usize, _: Event) {}
    fn bytes(&mut self, _: &FlowHead, number: &mut usize, side: Side, _: PacketRef, bytes: &[u8]) -> Wants {
        self.0[*number].1.push((side, bytes.to_vec()));
        Wants::More
    }
    fn gap(&mut self, _: &FlowHead, _: &mut usize, _: Side, _: PacketRef, _: u64) {}
    fn datagram(&mut self, _: &FlowHead, _: &mut usize, _: Side, _: PacketRef, _: &[u8], _: u32) -> Wants {
        Wants::Nothing
    }
    fn end(&mut self, _: &FlowHead, _: &mut usize, _: Side, _: PacketRef) {}
    fn closed(&mut self, _: Box<FlowFacts>, _: usize, _: Ended, _: Timestamp) {}
}

fn recorded(path: &str) -> Vec<Flow> {
    let path = format!("{}/captures/{path}", env!("CARGO_MANIFEST_DIR"));
    let mut source = Source::open(&[&path], &OpenOptions::default()).expect("a capture of the project");
    let mut table = FlowTable::new(Limits::default(), 1);
    let (mut decoder, mut scribe) = (Decoder::new(Default::default()), Scribe::default());
    let mut now = Timestamp(0);
    while let Some(frame) = source.next().expect("a sound capture") {
        now = frame.time;
        table.packet(&decoder.decode(&frame), &mut scribe);
    }
    table.finish(now, &mut scribe);
    scribe.0.retain(|(_, segments)| !segments.is_empty());
    scribe.0
}

fn play((head, segments): &Flow) -> u64 {
    let mut dissector = Dissector::default();
    let mut events = 0;
    let mut wants = [Wants::More; 2];
    for (side, bytes) in segments {
        let wanted = &mut wants[usize::from(*side == Side::Server)];
        if *wanted != Wants::Nothing {
            *wanted = dissector.bytes(head, *side, head.id, bytes, &mut |event| {
                black_box(&event);
                events += 1;
            });
        }
    }
    for side in [Side::Client, Side::Server] {
        dissector.end(head, side, head.id, &mut |_| events += 1);
    }
    events
}

fn begin(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol/begin");
    for (name, path) in [
        ("tls", "healthy/29-tls-many-clients.pcap"),
        ("http", "healthy/20-head-204-304.pcap"),
        ("proxy", "healthy/35-proxy-header-accepted.pcap"),
        ("redis", "healthy/41-redis.pcap"),
    ] {
        let flows = recorded(path);
        group.throughput(Throughput::Elements(flows.len() as u64));
        group.bench_function(name, |b| b.iter(|| flows.iter().map(play).sum::<u64>()));
    }
    group.finish();
}

/// A response body and encrypted records, a megabyte each, in segments of 1448 octets.
fn bulk(c: &mut Criterion) {
    const MEGABYTE: usize = 1 << 20;
    let end = |last, port| Endpoint::new(Address::v4([192, 0, 2, last]), port);
    let head = FlowHead {
        id: PacketRef { file: 0, number: 1, time: Timestamp(0) },
        transport: IpProtocol::Tcp,
        client: end(1, 50_000),
        server: end(2, 443),
        role: RoleSource::Handshake,
        mid_stream: true,
    };
    let body = vec![0x5a; MEGABYTE];
    let response = [format!("HTTP/1.1 200 OK\r\nContent-Length: {MEGABYTE}\r\n\r\n").as_bytes(), &body].concat();
    let chunk = [&b"4000\r\n"[..], &body[..0x4000], b"\r\n"].concat();
    let chunked =
        [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &chunk.repeat(64), b"0\r\n\r\n"].concat();
    let record = [&[0x17, 3, 3, 0x40, 0x11][..], &body[..0x4011]].concat();
    let mut group = c.benchmark_group("protocol/bulk");
    for (name, stream) in [("length", response), ("chunked", chunked), ("records", record.repeat(64))] {
        let flow: Flow = (head, stream.chunks(1448).map(|segment| (Side::Server, segment.to_vec())).collect());
        group.throughput(Throughput::Bytes(stream.len() as u64));
        group.bench_function(name, |b| b.iter(|| play(&flow)));
    }
    group.finish();
}

criterion_group!(benches, begin, bulk);
criterion_main!(benches);
