//! What a packet costs to decode: the fast path, the walk, and the fast path with a flow hash; etherparse beside it for measure.
//!
//! One iteration decodes 1,024 frames that differ in addresses and ports; divide by that for the cost of a packet.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::{PacketBuilder, SlicedPacket};
use tcpwhy::capture::{Frame, LinkType};
use tcpwhy::decode::{Decoder, Limits, Transport, keyed_flow_hash};
use tcpwhy::time::Timestamp;

const FRAMES: usize = 1024;

/// TCP segments of 100 octets of payload with timestamps, over IPv4 or IPv6.
fn frames(v6: bool) -> Vec<Vec<u8>> {
    let one = |n: usize| {
        let [high, low] = (n as u16).to_be_bytes();
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let network = if v6 {
            let mut source = [0x20; 16];
            (source[14], source[15]) = (high, low);
            link.ipv6(source, [0x20; 16], 64)
        } else {
            link.ipv4([10, 0, high, low], [10, 1, 0, 1], 64)
        };
        let tcp = network.tcp(40_000 + n as u16, 443, n as u32, 512).ack(7).psh();
        let mut bytes = Vec::new();
        tcp.options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])
            .expect("twelve octets of options")
            .write(&mut bytes, &[0x5a; 100])
            .expect("a frame in memory");
        bytes
    };
    (0..FRAMES).map(one).collect()
}

fn frame(link: u16, bytes: &[u8]) -> Frame<'_> {
    Frame {
        file: 0,
        point: 0,
        number: 1,
        time: Timestamp(0),
        interface: 0,
        link: LinkType(link),
        wire_len: bytes.len() as u32,
        bytes,
        offset: 0,
        flags: 0,
    }
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for (name, v6) in [("ipv4", false), ("ipv6", true)] {
        let ethernet = frames(v6);
        // The same packets without their link header are not for the fast path.
        let raw: Vec<&[u8]> = ethernet.iter().filter_map(|bytes| bytes.get(14..)).collect();
        let mut decoder = Decoder::new(Limits::default());
        group.bench_function(format!("fast/{name}"), |bencher| {
            bencher.iter(|| {
                for bytes in &ethernet {
                    black_box(decoder.decode(&frame(1, bytes)));
                }
            });
        });
        group.bench_function(format!("fast+hash/{name}"), |bencher| {
            bencher.iter(|| {
                for bytes in &ethernet {
                    let packet = decoder.decode(&frame(1, bytes));
                    if let (Some(source), Some(destination), Transport::Tcp(segment)) =
                        (packet.source(), packet.destination(), packet.transport)
                    {
                        black_box((keyed_flow_hash(source, destination, 6, 42), segment.seq));
                    }
                }
            });
        });
        group.bench_function(format!("walk/{name}"), |bencher| {
            bencher.iter(|| {
                for bytes in &raw {
                    black_box(decoder.decode(&frame(101, bytes)));
                }
            });
        });
        group.bench_function(format!("etherparse/{name}"), |bencher| {
            bencher.iter(|| {
                for bytes in &ethernet {
                    let _ = black_box(SlicedPacket::from_ethernet(bytes));
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
