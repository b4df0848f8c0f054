//! What must not matter does not: how octets arrive, how many workers there are, when it happened, what hosts are called. And what
//! must not happen never does: no panic on a cut file, and no certain finding that the whole file lacks.

mod support;

use std::io::{self, Read};
use std::path::PathBuf;

use support::{captures_below, root};
use tcpwhy::capture::Source;
use tcpwhy::{Confidence, Diagnosis, Report};

/// Every sound capture of ours, and the real ones beside the project where they are.
fn captures() -> Vec<PathBuf> {
    let mut all = captures_below(&root().join("captures"));
    all.retain(|path| {
        !path.starts_with(root().join("captures/broken"))
            && !path.starts_with(root().join("captures/rules/capture-file-damaged"))
    });
    if let Some(shared) = support::shared() {
        all.extend(captures_below(&shared.join("captures")));
    }
    all
}

fn diagnose_bytes(bytes: Vec<u8>, workers: usize) -> Result<Report, tcpwhy::Error> {
    let source = Source::from_readers(vec![("x".into(), Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>)])?;
    Diagnosis::new().workers(workers).all_flows(true).source(source)?.run()
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).expect("a report is JSON")
}

/// Hands out one octet at a time.
struct Dribble<R>(R);

impl<R: Read> Read for Dribble<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}

#[test]
fn octets_one_by_one_and_all_at_once_give_the_same_report() {
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        let Ok(whole) = diagnose_bytes(bytes.clone(), 1) else { continue };
        let source = Source::from_readers(vec![("x".into(), Box::new(Dribble(io::Cursor::new(bytes))) as _)]);
        let dribbled = source.and_then(|source| Diagnosis::new().workers(1).all_flows(true).source(source)?.run());
        assert_eq!(json(&whole), json(&dribbled.expect("the same octets")), "{}", path.display());
    }
}

#[test]
fn the_number_of_workers_does_not_change_one_octet() {
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        let Ok(one) = diagnose_bytes(bytes.clone(), 1) else { continue };
        for workers in [2, 4] {
            let many = diagnose_bytes(bytes.clone(), workers).expect("the same octets");
            assert_eq!(json(&one), json(&many), "{} with {workers} workers", path.display());
        }
    }
}

/// Offsets of the records of a classic little-endian pcap.
fn records(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = 24;
    while let Some(head) = bytes.get(at..at + 16) {
        offsets.push(at);
        at += 16 + u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    }
    offsets.push(at.min(bytes.len()));
    offsets
}

fn is_plain_pcap(bytes: &[u8]) -> bool {
    bytes.len() > 24 && matches!(bytes[..4], [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1])
}

/// Certain findings above notice about traffic that the whole file lacks: as a finding, explained or not, and superseded by none. A bare
/// fact is superseded when the whole file tells something else about the same flow: the cut hid what the flow's octets were.
fn news(cut: &Report, whole: &Report) -> Vec<String> {
    let of_traffic = |rule: &str| !rule.starts_with("capture-");
    let known = |rule: &str| support::findings(whole).any(|finding| finding.rule == rule);
    let told = |id: Option<tcpwhy::diagnose::report::FlowRef>| {
        whole.flows.iter().any(|flow| Some(flow.key()) == id && !flow.findings.is_empty())
    };
    let superseded = |finding: &tcpwhy::diagnose::report::FindingEntry| {
        tcpwhy::catalogue::rule(&finding.rule).is_some_and(|rule| rule.symptom) && told(finding.flow)
    };
    support::findings(cut)
        .filter(|finding| finding.confidence == Confidence::Certain && finding.severity > tcpwhy::Severity::Notice)
        .filter(|finding| of_traffic(&finding.rule) && !known(&finding.rule) && !superseded(finding))
        .map(|finding| format!("{} on flow {:?}", finding.rule, finding.flow))
        .collect()
}

#[test]
fn a_file_cut_at_any_packet_claims_nothing_certain_that_the_whole_lacks() {
    let mut violations = Vec::new();
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        if !is_plain_pcap(&bytes) {
            continue;
        }
        let whole = diagnose_bytes(bytes.clone(), 1).expect("a capture");
        let offsets = records(&bytes);
        // Every packet of short captures; of long ones about sixty places.
        let step = (offsets.len() / 60).max(1);
        for at in offsets.iter().step_by(step) {
            let cut = diagnose_bytes(bytes[..(*at).min(bytes.len())].to_vec(), 1).expect("a cut capture is still one");
            for new in news(&cut, &whole) {
                violations.push(format!("{} cut at octet {at}: {new}", path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "certain there, unknown in the whole:\n{}", violations.join("\n"));
}

#[test]
fn any_snaplen_claims_nothing_certain_that_the_whole_lacks() {
    let mut violations = Vec::new();
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        if !is_plain_pcap(&bytes) {
            continue;
        }
        let whole = diagnose_bytes(bytes.clone(), 1).expect("a capture");
        for snaplen in [20, 34, 54, 60, 66, 68, 74, 80, 96, 128, 200, 300, 1000] {
            let cut = diagnose_bytes(with_snaplen(&bytes, snaplen), 1).expect("still a capture");
            for new in news(&cut, &whole) {
                violations.push(format!("{} with snaplen {snaplen}: {new}", path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "certain there, unknown in the whole:\n{}", violations.join("\n"));
}

/// The capture as `tcpdump -s snaplen` would have written it.
fn with_snaplen(bytes: &[u8], snaplen: u32) -> Vec<u8> {
    let mut out = bytes[..24].to_vec();
    out[16..20].copy_from_slice(&snaplen.max(64).to_le_bytes());
    for pair in records(bytes).windows(2) {
        let record = &bytes[pair[0]..pair[1]];
        let Some(head) = record.get(..16) else { break };
        let kept = u32::from_le_bytes([head[8], head[9], head[10], head[11]]).min(snaplen);
        out.extend_from_slice(&head[..8]);
        out.extend_from_slice(&kept.to_le_bytes());
        out.extend_from_slice(&head[12..16]);
        out.extend_from_slice(record.get(16..16 + kept as usize).unwrap_or(&record[16.min(record.len())..]));
    }
    out
}

#[test]
fn the_same_capture_a_year_later_has_the_same_findings() {
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        if !is_plain_pcap(&bytes) {
            continue;
        }
        let mut shifted = bytes.clone();
        for offset in records(&bytes).iter().filter(|at| **at + 16 <= bytes.len()) {
            let seconds = u32::from_le_bytes([bytes[*offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]]);
            shifted[*offset..offset + 4].copy_from_slice(&seconds.wrapping_add(365 * 86_400).to_le_bytes());
        }
        let ids = |bytes: Vec<u8>| -> Vec<(String, String)> {
            let report = diagnose_bytes(bytes, 1).expect("a capture");
            // Certificates carry dates, the only thing in a capture that its time is compared with.
            let certificates = ["tls-fatal-alert", "tls-chain-incomplete", "cert-outage"];
            let dated = |rule: &str| rule.starts_with("tls-cert-") || certificates.contains(&rule);
            let findings = support::findings(&report).filter(|finding| !dated(&finding.rule));
            findings.map(|finding| (finding.rule.clone(), finding.id.clone())).collect()
        };
        assert_eq!(ids(bytes), ids(shifted), "{}", path.display());
    }
}

#[test]
fn the_same_packets_as_pcapng_give_the_same_findings() {
    for path in captures() {
        let bytes = std::fs::read(&path).expect("readable");
        if !is_plain_pcap(&bytes) || bytes[0] != 0xd4 {
            continue;
        }
        let ids = |bytes: Vec<u8>| -> Vec<(String, String, u64)> {
            let report = diagnose_bytes(bytes, 1).expect("a capture");
            let traffic = report.findings.iter();
            traffic.map(|finding| (finding.rule.clone(), finding.id.clone(), finding.evidence[0].packet)).collect()
        };
        assert_eq!(ids(bytes.clone()), ids(as_pcapng(&bytes)), "{}", path.display());
    }
}

/// One section, one interface, enhanced packet blocks. pcapng §4.
fn as_pcapng(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let padded = body.len().div_ceil(4) * 4;
        let total = (padded + 12) as u32;
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&total.to_le_bytes());
        out.extend_from_slice(body);
        out.resize(out.len() + padded - body.len(), 0);
        out.extend_from_slice(&total.to_le_bytes());
    };
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend_from_slice(&[1, 0, 0, 0]);
    section.extend_from_slice(&u64::MAX.to_le_bytes());
    block(0x0a0d_0d0a, &section);
    let mut interface = bytes[20..22].to_vec();
    interface.extend_from_slice(&[0, 0]);
    interface.extend_from_slice(&bytes[16..20]);
    block(1, &interface);
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    for pair in records(bytes).windows(2) {
        let at = pair[0];
        let (kept, wire) = (word(at + 8), word(at + 12));
        let Some(data) = bytes.get(at + 16..at + 16 + kept as usize) else { break };
        let micros = u64::from(word(at)) * 1_000_000 + u64::from(word(at + 4));
        let mut body = 0_u32.to_le_bytes().to_vec();
        body.extend_from_slice(&((micros >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(micros as u32).to_le_bytes());
        body.extend_from_slice(&kept.to_le_bytes());
        body.extend_from_slice(&wire.to_le_bytes());
        body.extend_from_slice(data);
        block(6, &body);
    }
    out
}
