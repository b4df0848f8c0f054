//! 1,138 public captures: nothing panics, every packet before the first damage is read, evidence is real, and every critical root has been
//! judged in `docs/corpora-criticals.md`.

mod support;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tcpwhy::Severity;

/// One line of the manifest: path below the corpora, packets before the first damage.
fn manifest(folder: &std::path::Path) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(folder.join("MANIFEST.tsv")).expect("a manifest");
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().expect("a head").split('\t').collect();
    let column = |name: &str| head.iter().position(|column| *column == name).expect("a column");
    let (repo, path, packets) = (column("repo"), column("path"), column("pkts"));
    let line = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let file = format!("{}/{}", fields[repo].replace('/', "+"), fields[path]);
        (file, fields[packets].parse().expect("a number"))
    };
    lines.map(line).collect()
}

/// Rule and capture of every row of the document's first table; all must be right.
fn judged() -> BTreeSet<(String, String)> {
    let text = include_str!("../docs/corpora-criticals.md");
    let table = text.split("\n## ").nth(1).expect("a section of criticals");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert_eq!(cells[3], "right", "{line}");
        (cells[1].to_owned(), cells[2].trim_matches('`').to_owned())
    };
    rows.map(row).collect()
}

#[test]
fn public_captures_are_read_to_their_first_damage_and_never_panic() {
    let Some(shared) = support::shared() else { return };
    let folder = shared.join("corpora");
    let files = manifest(&folder);
    assert!(files.len() > 1_000);
    let next = AtomicUsize::new(0);
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let critical: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let one = |file: &str, packets: u64| -> Option<String> {
        let path = folder.join(file);
        let report = match std::panic::catch_unwind(|| support::try_report(&path)) {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => return Some(format!("{file}: {error}")),
            Err(_) => return Some(format!("{file}: panic")),
        };
        let roots = report.incidents.iter().filter(|incident| incident.severity == Severity::Critical);
        let roots = roots.map(|incident| (incident.rule.clone(), file.to_owned()));
        critical.lock().expect("no panic while held").extend(roots);
        let capture = &report.captures[0];
        let sound = capture.damaged.as_ref().map_or(capture.packets, |damage| damage[0].after_packet);
        if sound != packets {
            return Some(format!("{file}: {sound} packets before the first damage, {packets} expected"));
        }
        let counts = &report.counts.packets;
        let parts: u64 = counts.iter().filter(|(kind, _)| *kind != "read").map(|(_, n)| n).sum();
        if counts["read"] != parts {
            return Some(format!("{file}: {} packets read, {parts} accounted for", counts["read"]));
        }
        let real = |packet: u64| (1..=capture.packets).contains(&packet);
        let mut traffic = report.findings.iter().flat_map(|finding| &finding.evidence);
        traffic.find(|e| !real(e.packet)).map(|e| format!("{file}: packet {} is cited", e.packet))
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((file, packets)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Some(what) = one(file, *packets) {
                        wrong.lock().expect("no panic while held").push(what);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("no panic while held");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let (critical, judged) = (critical.into_inner().expect("no panic while held"), judged());
    let unjudged: Vec<_> = critical.difference(&judged).collect();
    let gone: Vec<_> = judged.difference(&critical).collect();
    assert!(unjudged.is_empty() && gone.is_empty(), "without a verdict: {unjudged:#?}\nno longer critical: {gone:#?}");
}
