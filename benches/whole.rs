//! The whole diagnosis: generated traffic on one and two workers, and the bundled incident. Report ratios, not absolute times.

mod generate;

use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use generate::Shape;
use tcpwhy::Diagnosis;
use tcpwhy::capture::Source;

fn diagnose(bytes: &[u8], workers: usize) -> usize {
    let reader = Box::new(Cursor::new(bytes.to_vec()));
    let source = Source::from_readers(vec![("x".into(), reader as _)]).expect("a capture");
    let report = Diagnosis::new().workers(workers).source(source).and_then(|opened| opened.run()).expect("a report");
    report.incidents.len()
}

fn whole(criterion: &mut Criterion) {
    for (name, shape) in [("mix", Shape::Mix), ("faults", Shape::Faults), ("small", Shape::Small)] {
        let mut bytes = Vec::new();
        generate::write(shape, 32 << 20, 1, &mut bytes).expect("memory");
        let mut group = criterion.benchmark_group(format!("whole/{name}"));
        group.sample_size(10).throughput(Throughput::Bytes(bytes.len() as u64));
        for workers in [1, 2] {
            group.bench_function(format!("{workers} worker(s)"), |bench| bench.iter(|| diagnose(&bytes, workers)));
        }
    }
    let gitlab = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/captures/incidents/gitlab/both-legs.pcap"));
    let gitlab = gitlab.expect("the bundled capture");
    criterion.bench_function("whole/gitlab", |bench| bench.iter(|| diagnose(&gitlab, 1)));
}

criterion_group!(benches, whole);
criterion_main!(benches);
