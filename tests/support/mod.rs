//! What several test files share: where captures are, how they are diagnosed, and when a test may be skipped.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use tcpwhy::{Diagnosis, Report};

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder for what a test writes; the test removes it.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tcpwhy-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// All files below `folder` with a capture's extension, sorted.
pub fn captures_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if is_capture(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_capture(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst").trim_end_matches(".lz4");
    [".pcap", ".pcapng", ".cap", ".trace", ".dmp", ".ntar", ".pcap-new"].iter().any(|end| name.ends_with(end))
}

/// The folder of shared material that lies beside the project, where there is one. With CI=true its absence is a failure.
pub fn shared() -> Option<PathBuf> {
    let found =
        root().ancestors().skip(1).map(|folder| folder.join("shared")).find(|path| path.join("corpora").is_dir());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the shared captures are missing");
        // Once for each test program, and past the harness, which hides what passing tests print.
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| skipped("no shared captures beside the project"));
    }
    found
}

/// Says why tests do nothing.
fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped, tests of other people's captures: {why}");
}

/// How a capture is diagnosed, and what it goes by: captures of the project by their path in it, so that reports are the same everywhere.
pub fn diagnosis(path: &Path) -> (Diagnosis, String) {
    // Tests run in the project's folder.
    let name = path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    // What an operator would give with --expect-upstream stands beside the capture.
    let expected = std::fs::read_to_string(path.with_extension("upstream")).unwrap_or_default();
    let expected = expected.lines().map(|line| {
        let end: std::net::SocketAddr = line.trim().parse().expect("ADDRESS:PORT");
        tcpwhy::wire::Endpoint::new(end.ip().into(), end.port())
    });
    // And what ss showed on the host (--sockets).
    let sockets = std::fs::read_to_string(path.with_extension("sockets")).ok();
    let sockets = sockets.map(|text| tcpwhy::host::sockets::Sockets::parse(&text));
    (Diagnosis::new().expect_upstreams(expected.collect()).sockets(sockets), name)
}

/// The report of one capture.
pub fn try_report(path: &Path) -> Result<Report, tcpwhy::Error> {
    let (diagnosis, name) = diagnosis(path);
    diagnosis.open(&[name])?.run()
}

/// The report of a capture that can be read.
pub fn report(path: &Path) -> Report {
    try_report(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every finding of a report, those about the capture included.
pub fn findings(report: &Report) -> impl Iterator<Item = &tcpwhy::diagnose::report::FindingEntry> {
    report.findings.iter().chain(&report.trust)
}

/// Whether files beside captures, docs and indexes are to be rewritten.
pub fn bless() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value == "1")
}

/// Compares with a checked-in file, or rewrites it with `BLESS=1`.
pub fn check_file(path: &Path, expected: &str) -> Result<(), String> {
    let there = std::fs::read_to_string(path).unwrap_or_default();
    if there == expected {
        return Ok(());
    }
    if bless() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        return std::fs::write(path, expected).map_err(|error| error.to_string());
    }
    let line = there.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    Err(format!(
        "{} is stale from line {} on (BLESS=1 cargo test rewrites it; read the difference before committing it)\n  file: {}\n  now:  {}",
        path.display(),
        line + 1,
        there.lines().nth(line).unwrap_or("(end)"),
        expected.lines().nth(line).unwrap_or("(end)"),
    ))
}
