//! The evidence of a report: small captures that other programs read, and that alone lead to the same causes.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{captures_below, root};
use tcpwhy::Diagnosis;
use tcpwhy::run::dossier::Made;
use tcpwhy::run::proof::Proof;

/// Every capture of the project in which something must be found.
fn firing() -> Vec<PathBuf> {
    let below = |folder: &str| captures_below(&root().join("captures").join(folder));
    let look_alike = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("not-"));
    ["incidents", "rules"].iter().flat_map(|folder| below(folder)).filter(|path| !look_alike(path)).collect()
}

fn made(path: &Path) -> (Made, Proof) {
    let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let made = Diagnosis::new().make(&[name]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let proof = made.proof().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (made, proof)
}

fn folder(name: &str) -> PathBuf {
    support::folder(&format!("evidence-{name}"))
}

fn tcpwhy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwhy")).args(arguments).current_dir(root()).output().expect("the program starts")
}

#[test]
fn the_evidence_of_every_incident_alone_leads_to_the_same_causes() {
    let (mut wrong, mut proved) = (Vec::new(), 0);
    for path in firing() {
        let (made, proof) = made(&path);
        if made.report.incidents.is_empty() {
            continue;
        }
        proved += 1;
        if !proof.holds {
            wrong.push(format!("{}: {} packets do not lead to the same causes", path.display(), proof.packets));
        }
        if proof.files.len() != 1 || proof.packets > made.report.captures[0].packets {
            wrong.push(format!("{}: {} files, {} packets", path.display(), proof.files.len(), proof.packets));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(proved > 300, "{proved}");
}

#[test]
fn other_programs_read_the_evidence_and_find_the_comments_on_the_packets_they_speak_of() {
    let missing = !Command::new("tshark").arg("-v").output().is_ok_and(|output| output.status.success());
    if missing {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "tshark is missing");
        eprintln!("skipped, the look of another program at the evidence: tshark is not installed");
        return;
    }
    let folder = folder("tshark");
    // The other program takes a second for each: all of them with ALL=1 cargo test --test evidence other_programs
    let step = if std::env::var_os("ALL").is_some() { 1 } else { 12 };
    for path in &firing().into_iter().step_by(step).collect::<Vec<_>>() {
        let (made, proof) = made(path);
        if made.report.incidents.is_empty() {
            continue;
        }
        let file = folder.join("evidence.pcapng");
        std::fs::write(&file, &proof.files[0].octets).expect("written");
        let fields = ["-T", "fields", "-E", "aggregator=|", "-e", "frame.time_epoch", "-e", "frame.comment"];
        let of = |file: &Path| {
            let output =
                Command::new("tshark").arg("-n").arg("-r").arg(file).args(fields).output().expect("tshark runs");
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            let complaints: Vec<&str> =
                complaints.lines().filter(|line| !line.starts_with("Running as user")).collect();
            assert!(output.status.success() && complaints.is_empty(), "{}: {complaints:?}", file.display());
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let (original, evidence) = (of(path), of(&file));
        let times: Vec<&str> = original.lines().map(|line| line.split('\t').next().unwrap_or("")).collect();
        let mut commented = BTreeSet::new();
        for line in evidence.lines() {
            let (time, comments) = line.split_once('\t').unwrap_or((line, ""));
            for comment in comments.split("|packet ").filter(|comment| !comment.is_empty()) {
                let number = comment.trim_start_matches("packet ").split(':').next().unwrap_or("");
                let Ok(number) = number.parse::<usize>() else { continue };
                assert_eq!(times[number - 1], time, "{}: {comment}", path.display());
                commented.insert(number as u64);
            }
        }
        let cited = made.report.incidents.iter().flat_map(|incident| &incident.evidence);
        for packet in cited.map(|evidence| evidence.packet) {
            assert!(commented.contains(&packet), "{}: packet {packet} has no comment", path.display());
        }
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn two_points_of_capture_have_a_file_each_and_together_show_the_same() {
    let folder = folder("points");
    let beside = |end: &str| format!("{end}=captures/two-ends/syn-loss/{end}.pcap");
    let file = folder.join("proof.pcapng").display().to_string();
    let output = tcpwhy(&[&beside("client"), &beside("server"), "--evidence", &file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("proof-client.pcapng and ") && told.contains("the same causes"), "{told}");
    let proof = |end: &str| format!("{end}={}", folder.join(format!("proof-{end}.pcapng")).display());
    let again = tcpwhy(&[&proof("client"), &proof("server")]);
    let headline = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned);
    assert_eq!(headline(&again), headline(&output));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_bundle_holds_everything_and_its_sums_are_right() {
    use sha2::{Digest, Sha256};
    let folder = folder("bundle");
    let into = folder.join("ticket");
    let capture = "captures/incidents/gitlab/both-legs.pcap";
    let output = tcpwhy(&["report", capture, "-o", &into.display().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sums = std::fs::read_to_string(into.join("SHA256SUMS")).expect("sums");
    let mut names = Vec::new();
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").expect("sum and name");
        let octets = std::fs::read(into.join(name)).expect("a file");
        let hash: String = Sha256::digest(&octets).iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(hash, sum, "{name}");
        names.push(name.to_owned());
    }
    assert_eq!(names, ["report.md", "report.html", "report.json", "evidence.pcapng"]);
    let headline = "sends a PROXY header to a port that speaks TLS";
    for name in &names[..3] {
        let text = std::fs::read_to_string(into.join(name)).expect("text");
        assert!(text.contains(headline), "{name}");
    }
    // The hash of the input stands in it, and the input is what it says.
    let json = std::fs::read_to_string(into.join("report.json")).expect("text");
    let input = std::fs::read(root().join(capture)).expect("a capture");
    let hash: String = Sha256::digest(&input).iter().map(|octet| format!("{octet:02x}")).collect();
    assert!(json.contains(&hash) && json.contains(&format!("\"stored\": {}", input.len())), "{json}");

    let zip = folder.join("ticket.zip");
    let output = tcpwhy(&["-q", "report", capture, "-o", &zip.display().to_string()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = std::fs::File::open(&zip).expect("a file");
    let mut archive = zip::ZipArchive::new(file).expect("a zip file");
    for name in names {
        let mut packed = Vec::new();
        std::io::Read::read_to_end(&mut archive.by_name(&name).expect("it is there"), &mut packed).expect("readable");
        let plain = std::fs::read(into.join(&name)).expect("a file");
        // The command that made it stands in the reports.
        assert!(packed == plain || name.starts_with("report."), "{name}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn where_nothing_is_broken_there_is_no_evidence() {
    let folder = folder("healthy");
    let (proof, ticket) = (folder.join("proof.pcapng"), folder.join("ticket"));
    let capture = "captures/healthy/02-curl-end-of-tls.pcap";
    let output = tcpwhy(&["--evidence", &proof.display().to_string(), capture]);
    assert!(output.status.success() && !proof.exists());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no evidence"));
    let output = tcpwhy(&["report", capture, "-o", &ticket.display().to_string()]);
    assert!(output.status.success() && ticket.join("report.md").exists() && !ticket.join("evidence.pcapng").exists());
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn the_examples_are_what_the_program_makes() {
    let folder = folder("examples");
    let script = root().join("docs/examples/make.sh");
    let made = Command::new(script).arg(env!("CARGO_BIN_EXE_tcpwhy")).arg(&folder).output().expect("a shell");
    let told = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(made.status.success(), "{told}");
    assert_eq!(told.matches("alone they lead to the same causes").count(), 5, "{told}");
    let mut stale = Vec::new();
    for example in std::fs::read_dir(&folder).expect("a folder").flatten() {
        for file in std::fs::read_dir(example.path()).expect("a folder").flatten() {
            let there = root().join("docs/examples").join(example.file_name()).join(file.file_name());
            if std::fs::read(&there).ok() != std::fs::read(file.path()).ok() {
                stale.push(there.display().to_string());
            }
        }
    }
    assert!(stale.is_empty(), "docs/examples/make.sh makes others: {stale:?}");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let says = |arguments: &[&str]| {
        let output = tcpwhy(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    };
    let capture = "captures/incidents/gitlab/both-legs.pcap";
    assert!(says(&["report", capture]).contains("where to?"));
    assert!(says(&["report", "-o", "ticket"]).contains("no capture given"));
    assert!(says(&["report", capture, "-o", "/proc/nowhere/at/all"]).contains("cannot make /proc/nowhere"));
    assert!(says(&["--evidence", "/nowhere/e.pcapng", capture]).contains("cannot write /nowhere/e.pcapng"));
    assert!(says(&["--evidence", "e.pcapng", "-"]).contains("save standard input"));
}
