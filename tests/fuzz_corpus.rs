//! Every capture, bent a few thousand times in the same ways on every run: nothing may panic, and no control character may reach the
//! terminal. And every seed of every fuzz target, as it is and bent. The targets of fuzz/ search further; this is what plain `cargo test`
//! can afford.

mod support;
#[allow(dead_code)]
#[path = "../fuzz/targets.rs"]
mod targets;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tcpwhy::capture::Source;
use tcpwhy::{Diagnosis, render};

/// Octets diagnosed per capture: short captures are bent often, long ones seldom.
const OCTETS_PER_CAPTURE: usize = 400_000;
/// How often a capture is bent at least and at most.
const TIMES: (usize, usize) = (4, 24);

#[test]
fn bent_captures_are_read_without_a_panic() {
    let mut broken = Vec::new();
    let mut runs = 0;
    for path in support::captures_below(&support::root().join("captures")) {
        let whole = std::fs::read(&path).expect("readable");
        let times = (OCTETS_PER_CAPTURE / whole.len().max(1)).clamp(TIMES.0, TIMES.1);
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ whole.len() as u64);
        for time in 0..times {
            let bent = bend(&whole, &mut random);
            runs += 1;
            if catch_unwind(AssertUnwindSafe(|| diagnose(bent))).is_err() {
                broken.push(format!("{} bent the {}. time", path.display(), time + 1));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(runs > 2_000, "only {runs} captures were read");
}

#[test]
fn every_seed_of_every_fuzz_target_holds_as_it_is_and_bent() {
    let corpus = support::root().join("fuzz/corpus");
    let mut broken = Vec::new();
    // The captures are the seeds of the whole pipeline.
    for (name, target) in targets::ALL.iter().filter(|(name, _)| *name != "whole") {
        let mut seeds: Vec<_> = std::fs::read_dir(corpus.join(name)).expect(name).flatten().map(|e| e.path()).collect();
        seeds.sort();
        assert!(seeds.len() >= 4, "{name} has {} seeds", seeds.len());
        for path in seeds {
            let whole = std::fs::read(&path).expect("readable");
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ whole.len() as u64);
            let bent = (0..60).map(|_| bend(&whole, &mut random));
            for (time, octets) in std::iter::once(whole.clone()).chain(bent).enumerate() {
                if catch_unwind(|| target(&octets)).is_err() {
                    broken.push(format!("{} bent the {time}. time", path.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_fuzz_target_has_its_program() {
    let manifest = std::fs::read_to_string(support::root().join("fuzz/Cargo.toml")).expect("readable");
    for (name, _) in targets::ALL {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
        let program = support::root().join(format!("fuzz/fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(program).expect(name);
        assert!(text.contains(&format!("targets::{name}(")), "{name}.rs runs another target");
    }
}

#[test]
fn the_same_seed_bends_alike_and_bends_at_all() {
    let whole: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    let all = |seed| {
        let mut random = Random(seed);
        (0..200).map(|_| bend(&whole, &mut random)).collect::<Vec<_>>()
    };
    assert_eq!(all(5), all(5));
    assert!(all(5).iter().filter(|bent| **bent != whole).count() > 190);
}

fn diagnose(bytes: Vec<u8>) {
    let Ok(source) = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes)) as _)]) else { return };
    let Ok(opened) = Diagnosis::new().workers(1).all_flows(true).source(source) else { return };
    let Ok(report) = opened.run() else { return };
    let text = render::text::report(&report, Default::default());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character reached the terminal");
}

/// One to four changes, each of one kind.
fn bend(whole: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..1 + random.below(4) {
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => {
                let part = random.range(bytes.len());
                bytes.drain(part);
            }
            2 => {
                let part = random.range(bytes.len());
                bytes.splice(part.end..part.end, bytes[part.clone()].to_vec());
            }
            3 => {
                // A field full of zeros or ones: lengths at their limits.
                let part = random.range(bytes.len());
                let fill = if random.below(2) == 0 { 0 } else { 0xff };
                bytes[part].iter_mut().take(4).for_each(|octet| *octet = fill);
            }
            4 => swap_records(&mut bytes, random),
            _ => {
                for _ in 0..1 + random.below(16) {
                    let at = random.below(bytes.len());
                    if let Some(octet) = bytes.get_mut(at) {
                        *octet ^= 1 << random.below(8);
                    }
                }
            }
        }
    }
    bytes
}

/// Puts a record of a little-endian pcap behind the next one; leaves other files as they are.
fn swap_records(bytes: &mut [u8], random: &mut Random) {
    let end_of = |at: usize| {
        let len = bytes.get(at + 8..at + 12)?;
        let end = at + 16 + u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        (end <= bytes.len()).then_some(end)
    };
    let mut ends = vec![24];
    while let Some(end) = ends.last().and_then(|at| end_of(*at)) {
        ends.push(end);
    }
    if ends.len() > 2 {
        let first = random.below(ends.len() - 2);
        bytes[ends[first]..ends[first + 2]].rotate_left(ends[first + 1] - ends[first]);
    }
}

/// xorshift64: the same on every machine.
struct Random(u64);

impl Random {
    /// A number below `n`; 0 when `n` is 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    /// A part of at most 2,000 octets.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        start..(start + 1 + self.below(2_000)).min(len)
    }
}
