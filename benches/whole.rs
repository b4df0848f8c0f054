//! The whole diagnosis, from octets to report: generated traffic on one and two workers, the bundled incident, and a small capture.
//!
//! The octets are in memory; reading a file costs its copy from the page cache besides. docs/performance.md tells how to read the numbers.

mod generate;

use std::io::Cursor;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use generate::Shape;
use tcpwhy::Diagnosis;
use tcpwhy::capture::Source;

// As the program does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Octets that many readers share without a copy.
#[derive(Clone)]
struct Octets(Arc<Vec<u8>>);

impl AsRef<[u8]> for Octets {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn diagnose(octets: &Octets, workers: usize) -> usize {
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(octets.clone())) as _)]);
    let report = Diagnosis::new().workers(workers).source(source.expect("a capture")).and_then(|opened| opened.run());
    report.expect("a report").incidents.len()
}

fn generated(criterion: &mut Criterion) {
    for (name, shape, size) in
        [("mix", Shape::Mix, 32_000_000), ("small", Shape::Small, 32_000_000), ("evil", Shape::Evil, 8_000_000)]
    {
        let (bytes, totals) = generate::bytes(shape, size, 1);
        let octets = Octets(Arc::new(bytes));
        let mut group = criterion.benchmark_group(format!("whole/{name}"));
        group.sample_size(10);
        group.throughput(Throughput::ElementsAndBytes { elements: totals.packets, bytes: totals.octets });
        for workers in [1, 2] {
            group.bench_function(format!("{workers}-workers"), |bencher| bencher.iter(|| diagnose(&octets, workers)));
        }
        group.finish();
    }
}

fn incident(criterion: &mut Criterion) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/incidents/gitlab/both-legs.pcap");
    let octets = Octets(Arc::new(std::fs::read(path).expect("the bundled capture")));
    criterion.bench_function("whole/gitlab", |bencher| bencher.iter(|| diagnose(&octets, 1)));
}

/// What every run costs: 52 KB of octets, 126 packets.
fn start(criterion: &mut Criterion) {
    let octets = Octets(Arc::new(generate::bytes(Shape::Mix, 2_000, 1).0));
    criterion.bench_function("whole/start", |bencher| bencher.iter(|| diagnose(&octets, 1)));
}

criterion_group!(benches, generated, incident, start);
criterion_main!(benches);
