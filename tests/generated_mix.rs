//! Generated traffic: healthy shapes have nothing above notice, what was broken in the others is found, and attacks do no harm.

#[path = "../benches/generate/mod.rs"]
mod generate;
mod support;

use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::{Duration, Instant};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use generate::Shape;
use tcpwhy::capture::Source;
use tcpwhy::{Diagnosis, Report, Severity};

fn report(bytes: Vec<u8>) -> Report {
    report_by(2, bytes)
}

fn report_by(workers: usize, bytes: Vec<u8>) -> Report {
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes)) as _)]).expect("a capture");
    Diagnosis::new().workers(workers).source(source).and_then(|opened| opened.run()).expect("a report")
}

/// The frames of a pcap that the generator wrote.
fn frames(pcap: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = &pcap[24..];
    std::iter::from_fn(move || {
        let (header, behind) = rest.split_at_checked(16)?;
        let kept = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let (frame, behind) = behind.split_at(kept);
        rest = behind;
        Some(frame)
    })
}

fn lines_on_limits(bytes: &[u8], workers: usize, memory: usize) -> (Report, Vec<String>) {
    let source = Source::from_readers(vec![("x".into(), Box::new(Cursor::new(bytes.to_vec())) as _)]);
    let diagnosis = Diagnosis::new().workers(workers).max_memory(memory);
    let report = source.and_then(|source| diagnosis.source(source)).and_then(|opened| opened.run()).expect("a report");
    let lines = report.not_judged.iter().filter(|line| line.contains("judged early")).cloned().collect();
    (report, lines)
}

#[test]
fn what_a_cap_on_memory_costs_is_told_and_does_not_depend_on_the_workers() {
    for (shape, memory) in [(Shape::Storm, 8 << 20), (Shape::Mix, 2 << 20), (Shape::Flood, 1 << 20)] {
        let (bytes, _) = generate::bytes(shape, 3_000_000, 7);
        let (one, told) = lines_on_limits(&bytes, 1, memory);
        assert!(told.iter().any(|line| line.contains("--max-memory")), "{:?}", one.not_judged);
        for workers in [2, 4] {
            let (more, _) = lines_on_limits(&bytes, workers, memory);
            let json = |report: &Report| serde_json::to_string(report).expect("a report");
            assert!(json(&one) == json(&more), "{workers} workers");
        }
        let (_, enough) = lines_on_limits(&bytes, 1, 1 << 30);
        assert!(enough.is_empty(), "{enough:?}");
    }
}

#[test]
fn nothing_is_wrong_with_healthy_traffic() {
    let (bytes, totals) = generate::bytes(Shape::Healthy, 5_000_000, 7);
    let report = report(bytes);
    let loud: BTreeSet<String> = support::findings(&report)
        .filter(|finding| finding.severity > Severity::Notice)
        .map(|finding| format!("{}: {}", finding.rule, finding.says))
        .collect();
    assert!(loud.is_empty(), "{loud:#?}");
    assert_eq!(report.counts.packets["read"], totals.packets);
    assert_eq!(report.counts.flows.total, totals.flows);
    assert_eq!(report.counts.flows.healthy, totals.flows, "{:?}", report.counts.flows);
}

#[test]
fn nothing_is_wrong_with_small_packets() {
    let (bytes, totals) = generate::bytes(Shape::Small, 5_000_000, 7);
    let frames = totals.octets - 24 - 16 * totals.packets;
    assert_eq!((frames / totals.packets, totals.packets / totals.flows), (96, 7), "{totals:?}");
    let report = report(bytes);
    assert_eq!(report.counts.flows.healthy, totals.flows, "{:?}", report.counts.flows);
    let loud = support::findings(&report).filter(|finding| finding.severity > Severity::Notice).count();
    assert_eq!(loud, 0);
}

#[test]
fn nothing_is_wrong_with_ten_thousand_flows_that_look_odd() {
    for seed in [7, 8] {
        let (bytes, totals) = generate::bytes(Shape::Benign, 42_000_000, seed);
        assert!(totals.flows >= 10_000, "{totals:?}");
        let report = report(bytes);
        let loud: BTreeSet<String> = support::findings(&report)
            .filter(|finding| finding.severity > Severity::Notice)
            .map(|finding| format!("{}: {}", finding.rule, finding.says))
            .collect();
        assert!(loud.is_empty(), "{loud:#?}");
        assert_eq!(report.counts.flows.failed, 0, "{:?}", report.counts.flows);
    }
}

#[test]
fn every_fault_in_a_mix_is_a_root() {
    let (bytes, _) = generate::bytes(Shape::Mix, 12_000_000, 7);
    let report = report(bytes);
    let roots: BTreeSet<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
    for rule in ["connect-refused", "connect-timeout", "proxy-header-to-tls-port"] {
        assert!(roots.contains(rule), "{rule} is not among {roots:?}");
    }
}

#[test]
fn five_thousand_broken_flows_among_fifty_thousand_are_one_incident_on_one_screen() {
    let (bytes, totals) = generate::bytes(Shape::Outage, 47_000_000, 7);
    assert!(totals.flows > 55_000, "{totals:?}");
    let report = report(bytes);
    assert_eq!(report.incidents.len(), 1, "{:?}", report.incidents.iter().map(|i| &i.headline).collect::<Vec<_>>());
    let incident = &report.incidents[0];
    assert_eq!(incident.rule, "proxy-header-to-tls-port");
    assert!(incident.scope.flows > 4_500, "{:?}", incident.scope);
    assert!(incident.scope_line.contains(&format!("{} of", incident.scope.flows)), "{}", incident.scope_line);
    let text = tcpwhy::render::text::report(&report, tcpwhy::render::Style::default());
    let screen = text.lines().position(|line| line.starts_with("DETAILS")).expect("details below the first screen");
    assert!(screen <= 26, "the first screen has {} lines", screen - 1);
    assert!(text.lines().take(screen).all(|line| line.chars().count() <= 100));
    let json = serde_json::to_string_pretty(&report).expect("plain data");
    assert!(json.len() < 100_000, "{} octets of JSON", json.len());
}

#[test]
fn a_flood_of_spoofed_syns_is_one_incident() {
    let (bytes, totals) = generate::bytes(Shape::Flood, 3_000_000, 7);
    assert!(totals.flows > 30_000, "{totals:?}");
    let report = report(bytes);
    let rules: Vec<&str> = report.incidents.iter().map(|incident| incident.rule.as_str()).collect();
    assert_eq!(rules, ["syn-flood"]);
}

/// Every attack in it: none makes the diagnosis panic, hang or say more than a person can read, and workers do not change what it says.
#[test]
fn attacks_on_the_reader_end_with_a_short_report() {
    let (bytes, totals) = generate::bytes(Shape::Evil, 12_000_000, 7);
    assert!(totals.flows >= 62, "not every attack is in it twice: {totals:?}");
    let begin = Instant::now();
    let json = |workers| serde_json::to_string(&report_by(workers, bytes.clone())).expect("plain data");
    let report = json(1);
    assert!(report.len() < 1_000_000, "{} octets of JSON", report.len());
    assert!(report == json(2), "two workers say something else");
    // Debug builds on a busy machine take seconds; an attack that works takes minutes.
    assert!(begin.elapsed() < Duration::from_secs(90), "{:?}", begin.elapsed());
}

#[test]
fn lengths_and_checksums_are_right_in_every_shape() {
    for (word, shape) in Shape::ALL {
        let (bytes, totals) = generate::bytes(shape, 3_000_000, 5);
        let mut packets = 0;
        for frame in frames(&bytes) {
            packets += 1;
            let told = SlicedPacket::from_ethernet(frame).unwrap_or_else(|error| panic!("{word} #{packets}: {error}"));
            assert!(!wrong(&told), "{word} #{packets}: a checksum is wrong");
        }
        assert_eq!(packets, totals.packets, "{word}");
    }
}

/// Whether a checksum of a packet is wrong. That of a fragmented datagram cannot be told from one piece.
fn wrong(packet: &SlicedPacket<'_>) -> bool {
    if let Some(NetSlice::Ipv4(ip)) = &packet.net {
        let header = ip.header().to_header();
        if header.calc_header_checksum() != header.header_checksum {
            return true;
        }
    }
    let (told, right) = match (&packet.net, &packet.transport) {
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) => {
            (tcp.checksum(), tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()))
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) => {
            (tcp.checksum(), tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()))
        }
        (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) => {
            let [from, to] = [ip.header().source(), ip.header().destination()];
            (udp.checksum(), udp.to_header().calc_checksum_ipv4_raw(from, to, udp.payload()))
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) => {
            let [from, to] = [ip.header().source(), ip.header().destination()];
            (udp.checksum(), udp.to_header().calc_checksum_ipv6_raw(from, to, udp.payload()))
        }
        _ => return false,
    };
    right != Ok(told)
}

#[test]
fn the_same_seed_gives_the_same_octets() {
    for (word, shape) in Shape::ALL {
        let (first, totals) = generate::bytes(shape, 300_000, 3);
        assert_eq!(first, generate::bytes(shape, 300_000, 3).0, "{word}");
        assert_ne!(first, generate::bytes(shape, 300_000, 4).0, "{word}");
        assert!(totals.octets == first.len() as u64 && totals.octets >= 300_000, "{word}: {totals:?}");
    }
}
