//! `--format html` in a real browser: pages of real captures, of ten thousand failing flows and of a hostile capture are opened from the
//! disk and used as a reader does (`html/drive.py` says what is done). Skipped where there is no Chromium; with CI=true that is a failure.

#[path = "support/packets.rs"]
mod packets;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The captures whose pages are opened.
const CAPTURES: &[&str] = &[
    "captures/incidents/gitlab/both-legs.pcap",
    "captures/incidents/blackout/all.pcap",
    "captures/incidents/hung-fetch/both-sides.pcap",
    "captures/healthy/02-curl-end-of-tls.pcap",
    "captures/broken/cut-inside-a-record.pcap",
    "captures/broken/empty-file.pcap",
];

/// The page of a capture, written to `folder`.
fn page(folder: &Path, name: &str, capture: &Path, more: &[&str]) -> PathBuf {
    let page = folder.join(format!("{name}.html"));
    let output = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .args(["--quiet", "--format", "html", "-o"])
        .arg(&page)
        .args(more)
        .arg(capture)
        .current_dir(support::root())
        .output()
        .expect("runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    page
}

#[test]
fn pages_work_in_a_browser_and_nothing_is_fetched() {
    let folder = support::folder("html");
    let examples = std::fs::read_dir(support::root().join("docs/examples")).expect("examples").flatten();
    let examples = examples.map(|example| example.path().join("report.html")).filter(|page| page.is_file());
    let examples: Vec<PathBuf> = examples.collect();
    assert_eq!(examples.len(), 5, "{examples:?}");
    let mut pages: Vec<PathBuf> =
        CAPTURES.iter().map(|path| page(&folder, &path.replace(['/', '.'], "-"), Path::new(path), &[])).collect();
    // Markup and scripts, terminal escapes, marks of direction, null octets, a command's end.
    for n in [0, 1, 2, 5, 7, 8] {
        let name = format!("html-{n}");
        let capture = packets::capture(&name, packets::TEXTS[n]);
        pages.push(page(&folder, &name, &capture, &["--all-flows"]));
        std::fs::remove_file(capture).expect("removed");
    }
    let text = std::fs::read_to_string(folder.join("html-1.html")).expect("a page");
    // As text it has to be there, or the test tests nothing.
    assert!(
        text.contains("&lt;script&gt;alert(1)") && !text.contains("<script>alert"),
        "the hostile words are not in the page"
    );
    let capture = packets::refused("html-refused", 10_000);
    let refused = page(&folder, "refused", &capture, &["--all-flows"]);
    std::fs::remove_file(capture).expect("removed");
    let size = std::fs::metadata(&refused).expect("a page").len();
    assert!(size < 3_000_000, "{size} octets");
    pages.push(refused);
    pages.extend(examples);
    let drive = support::root().join("tests/html/drive.py");
    let output = Command::new("python3").arg("-B").arg(drive).args(&pages).output();
    let told = match &output {
        Ok(output) => format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => format!("python3: {error}"),
    };
    let _ = std::fs::remove_dir_all(&folder);
    match output.ok().and_then(|output| output.status.code()) {
        Some(0) => eprintln!("{told}"),
        // What is missing is no fault of the page.
        None | Some(77) => {
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{told}");
            eprintln!("skipped: {told}");
        }
        Some(_) => panic!("{told}"),
    }
}
