//! Inputs as they come: compressed, rotated, piped, damaged, filtered.

mod support;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use tcpwhy::capture::{LinkType, Source};
use tcpwhy::{Diagnosis, Report, TimeBound};

const GITLAB: &str = "captures/incidents/gitlab/both-legs.pcap";

fn gitlab() -> Vec<u8> {
    std::fs::read(support::root().join(GITLAB)).expect("readable")
}

type Frames = Vec<(u64, i64, u32, Vec<u8>)>;

fn frames(inputs: Vec<Box<dyn Read + Send>>) -> (Frames, Vec<tcpwhy::capture::CaptureInfo>) {
    let named = inputs.into_iter().map(|reader| ("x".to_owned(), reader)).collect();
    let mut source = Source::from_readers(named).expect("captures");
    let mut frames = Vec::new();
    while let Some(frame) = source.next().expect("readable") {
        frames.push((frame.number, frame.time.0, frame.wire_len, frame.bytes.to_vec()));
    }
    (frames, source.finish())
}

fn memory(bytes: Vec<u8>) -> Box<dyn Read + Send> {
    Box::new(io::Cursor::new(bytes))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn packed_captures_give_the_same_frames() {
    let plain = gitlab();
    let (expected, _) = frames(vec![memory(plain.clone())]);
    let half = plain.len() / 2;
    let two_members = [gzip(&plain[..half]), gzip(&plain[half..])].concat();
    let zstd = zstd::encode_all(&plain[..], 1).expect("memory");
    let two_frames = [lz4(&plain[..half]), lz4(&plain[half..])].concat();
    for packed in [gzip(&plain), two_members, zstd, lz4(&plain), two_frames] {
        let (got, info) = frames(vec![memory(packed)]);
        assert!(got == expected, "{}", info[0].format);
        assert!(info[0].damage.is_empty());
    }
}

#[test]
fn a_packed_file_that_is_cut_keeps_what_came_before() {
    let (expected, _) = frames(vec![memory(gitlab())]);
    let plain = gitlab();
    // lz4 unpacks whole blocks: the second half's frame is the one that is cut.
    let (half, rest) = plain.split_at(plain.len() / 2);
    for packed in [gzip(&plain), [lz4(half), lz4(rest)].concat()] {
        let (got, info) = frames(vec![memory(packed[..packed.len() * 3 / 4].to_vec())]);
        assert!(!got.is_empty() && got.len() < expected.len());
        assert!(got == expected[..got.len()]);
        assert_eq!(info[0].damage.len(), 1, "{:?}", info[0].damage);
    }
}

/// Offsets of the records of a little-endian pcap.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = 24;
    while let Some(head) = bytes.get(at..at + 16) {
        offsets.push(at);
        at += 16 + u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    }
    offsets.push(bytes.len());
    offsets
}

/// The capture in `n` pieces, as tcpdump -C writes them.
fn pieces(bytes: &[u8], n: usize) -> Vec<Vec<u8>> {
    let offsets = records(bytes);
    let step = offsets.len() / n + 1;
    let bounds: Vec<usize> = offsets.iter().copied().step_by(step).chain([bytes.len()]).collect();
    bounds.windows(2).map(|pair| [&bytes[..24], &bytes[pair[0]..pair[1]]].concat()).collect()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = support::folder(name);
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("written");
        path.to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn roots(report: &Report) -> Vec<(String, String)> {
    report.incidents.iter().map(|incident| (incident.rule.clone(), incident.headline.clone())).collect()
}

#[test]
fn a_rotated_ring_in_any_order_is_one_capture() {
    let folder = Folder::new("ring");
    let bytes = gitlab();
    let mut files: Vec<String> =
        pieces(&bytes, 5).iter().enumerate().map(|(n, piece)| folder.write(&format!("{n}.pcap"), piece)).collect();
    let whole = Diagnosis::new().open(&[folder.write("whole.pcap", &bytes)]).and_then(|o| o.run()).expect("a report");
    files.swap(0, 3);
    files.swap(1, 4);
    let ring = Diagnosis::new().open(&files).and_then(|opened| opened.run()).expect("a report");
    assert_eq!(roots(&whole), roots(&ring));
    assert_eq!(whole.counts.flows, ring.counts.flows);
    assert_eq!(ring.captures.len(), 5);
}

#[test]
fn a_label_stands_before_the_path() {
    let folder = Folder::new("label");
    let path = folder.write("a.pcap", &gitlab());
    let report = Diagnosis::new().open(&[format!("proxy={path}")]).and_then(|o| o.run()).expect("a report");
    assert_eq!(report.captures[0].label.as_deref(), Some("proxy"));
}

#[test]
fn the_hash_is_that_of_the_file() {
    let folder = Folder::new("hash");
    let path = folder.write("a.pcap", b"\xd4\xc3\xb2\xa1\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\x04\0\x01\0\0\0");
    let report = Diagnosis::new().hash(true).open(&[path]).and_then(|opened| opened.run()).expect("a report");
    let expected = "704e5e5b3234433c01fcfd1b20a306e77e985038120492dc53965c3edd38a4ea";
    assert_eq!(report.captures[0].sha256.as_deref(), Some(expected));
}

#[test]
fn a_window_of_time_passes_over_the_rest_and_counts_it() {
    let path = support::root().join(GITLAB).to_string_lossy().into_owned();
    let zone = jiff::tz::TimeZone::UTC;
    let since = TimeBound::parse("+5s", &zone).expect("a time");
    let until = TimeBound::parse("+8s", &zone).expect("a time");
    let part =
        Diagnosis::new().between(Some(since), Some(until)).open(&[path]).and_then(|o| o.run()).expect("a report");
    let packets = &part.counts.packets;
    assert!(packets["filtered"] > 0 && packets["tcp"] > 0);
    let cited = part.incidents.iter().flat_map(|incident| &incident.evidence).map(|evidence| evidence.packet);
    assert!(cited.min() > Some(100), "packet numbers stay those of the file");
}

#[test]
fn zeros_in_the_middle_cost_only_themselves() {
    let bytes = gitlab();
    let offsets = records(&bytes);
    let middle = offsets[offsets.len() / 2];
    let damaged = [&bytes[..middle], &[0; 4096][..], &bytes[middle..]].concat();
    let (expected, _) = frames(vec![memory(bytes)]);
    let (got, info) = frames(vec![memory(damaged)]);
    assert_eq!(got.len(), expected.len());
    assert_eq!(info[0].damage.len(), 1);
    assert_eq!(info[0].damage[0].resumed_after, Some(4096));
    assert_eq!(info[0].damage[0].after_packet, (offsets.len() / 2) as u64);
}

#[test]
fn every_prefix_of_a_capture_is_read_to_its_last_whole_packet() {
    let bytes = gitlab();
    let offsets = records(&bytes);
    let (expected, _) = frames(vec![memory(bytes.clone())]);
    for len in 24..offsets[12] {
        let (got, info) = frames(vec![memory(bytes[..len].to_vec())]);
        let whole = offsets.iter().skip(1).filter(|end| **end <= len).count();
        assert_eq!(got.len(), whole, "cut at {len}");
        assert!(got == expected[..whole]);
        let on_border = offsets.contains(&len);
        assert_eq!(info[0].damage.is_empty(), on_border, "cut at {len}");
        assert!(info[0].damage.iter().all(|damage| damage.cut_at_end));
    }
}

#[test]
fn interfaces_of_a_pcapng_keep_their_own_link_types() {
    let path = support::root().join("captures/links/mixed.pcapng");
    let source = Source::open(&[&path.to_string_lossy()], &Default::default()).expect("a capture");
    let report = Diagnosis::new().source(source).and_then(|opened| opened.run()).expect("a report");
    assert!(report.captures[0].link_types.len() > 1, "{:?}", report.captures[0].link_types);
    assert_eq!(report.counts.packets["unreadable"], 0);
}

#[test]
fn a_link_type_nobody_reads_is_counted_and_named() {
    let mut bytes = gitlab();
    bytes[20..22].copy_from_slice(&147u16.to_le_bytes());
    let opened = Source::from_readers(vec![("x".into(), memory(bytes))]).expect("a capture");
    let report = Diagnosis::new().source(opened).and_then(|opened| opened.run()).expect("a report");
    assert_eq!(report.counts.packets["unknown_link"], report.counts.packets["read"]);
    assert_eq!(report.captures[0].link_types, [LinkType(147).name()]);
}
