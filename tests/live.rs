//! `tcpwhy live` on the loopback interface, with real connections: what is found, when, and that the file says the same.
//!
//! Needs the right to open interfaces (root, or CAP_NET_RAW on the program); skipped without.

#![cfg(all(target_os = "linux", feature = "live"))]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A running `tcpwhy live` on the loopback interface.
struct Live {
    child: Child,
    lines: std::sync::mpsc::Receiver<(Instant, String)>,
    folder: PathBuf,
}

impl Live {
    /// `None` where interfaces may not be opened.
    fn begin(name: &str, arguments: &[&str]) -> Option<Self> {
        let folder = support::folder(&format!("live-{name}"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
            .args(["live", "-i", "lo", "--width", "100"])
            .args(arguments)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        // It says so when it listens.
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut first = String::new();
        // Before that it may say that there is no ss here.
        while !first.contains("listening on lo") && errors.read_line(&mut first).expect("text") > 0 {}
        if !first.contains("listening on lo") {
            child.wait().expect("ends");
            std::fs::remove_dir_all(&folder).expect("removed");
            assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "lo cannot be opened: {first}");
            eprintln!("skipped, live tests need the right to open interfaces: {}", first.trim());
            return None;
        }
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        let (sender, lines) = std::sync::mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    break;
                }
            }
        });
        Some(Self { child, lines, folder })
    }

    /// Waits for a line that holds `text`.
    fn told(&self, text: &str, patience: Duration) -> (Instant, String) {
        let end = Instant::now() + patience;
        let mut before = Vec::new();
        while let Ok((when, line)) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.contains(text) {
                return (when, line);
            }
            before.push(line);
        }
        panic!("no {text:?} within {patience:?}, but {before:#?}");
    }

    /// Sends a signal and waits for the end; everything it still wrote, and its exit code.
    fn end(mut self, signal: &str) -> (String, Option<i32>, PathBuf) {
        signalled(&self.child, signal);
        let code = self.child.wait().expect("ends").code();
        let rest: Vec<String> = self.lines.iter().map(|(_, line)| line).collect();
        (rest.join("\n"), code, self.folder)
    }
}

fn signalled(child: &Child, signal: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status();
    assert!(sent.expect("a shell").success());
}

fn tcpwhy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwhy")).args(arguments).output().expect("runs")
}

fn shown(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// A port that refuses: bound a moment ago, and free again.
fn refusing() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// One question and its answer, both closed.
fn exchange(listener: &TcpListener) {
    let address = listener.local_addr().expect("an address");
    let mut client = TcpStream::connect(address).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    client.write_all(b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n").expect("sent");
    assert!(server.read(&mut [0; 512]).expect("read") > 0);
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("sent");
    drop(server);
    client.read_to_end(&mut Vec::new()).expect("read");
}

#[test]
fn a_refusal_is_told_at_once_and_the_file_says_the_same_as_the_report() {
    let refusing = refusing();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let fine = listener.local_addr().expect("an address").port();
    let folder = support::folder("live-file");
    let file = shown(&folder, "all.pcapng");
    let filter = format!("tcp port {refusing} or tcp port {fine}");
    let Some(live) = Live::begin("refusal", &["-w", &file, "--evidence", "proof", &filter]) else { return };
    exchange(&listener);
    assert!(TcpStream::connect(("127.0.0.1", refusing)).is_err());
    let failed = Instant::now();
    let (when, line) = live.told("refuses connections", Duration::from_secs(20));
    assert!(when.saturating_duration_since(failed) < Duration::from_secs(10), "{line}");
    assert!(line.contains("CRITICAL") && line.contains(&refusing.to_string()), "{line}");
    let (_, evidence) = live.told("EVIDENCE", Duration::from_secs(5));
    let evidence = evidence.trim_start_matches("EVIDENCE").trim().to_owned();
    let (rest, code, beside) = live.end("INT");
    assert_eq!(code, Some(0));

    // The report of the interface is the report of the file.
    let offline = tcpwhy(&["--width", "100", &file]);
    let offline = String::from_utf8(offline.stdout).expect("text");
    let report = &rest[rest.rfind("CRITICAL").expect("a report")..];
    assert_eq!(report.trim_end(), offline.trim_end());
    assert!(report.contains("2 flows: 1 healthy, 0 degraded, 1 failed, 0 undecided"), "{report}");

    // The evidence alone says it too.
    let alone = tcpwhy(&[&beside.join(&evidence).display().to_string()]);
    assert!(String::from_utf8_lossy(&alone.stdout).starts_with("CRITICAL  127.0.0.1"), "{evidence}");
    std::fs::remove_dir_all(folder).expect("removed");
    std::fs::remove_dir_all(beside).expect("removed");
}

#[test]
fn a_request_that_hangs_is_told_when_its_patience_is_over_and_one_that_is_answered_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let Some(live) = Live::begin("hang", &["--threshold", "hang=2s", "--format", "jsonl", &format!("port {port}")])
    else {
        return;
    };
    exchange(&listener);
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: www.example.com\r\n\r\n").expect("sent");
    let asked = Instant::now();
    assert!(server.read(&mut [0; 512]).expect("read") > 0);
    // Nobody sends anything: the clock alone makes it known.
    let (when, line) = live.told("\"event\":\"opened\"", Duration::from_secs(20));
    assert!(line.contains("\"rule\":\"upstream-hang\""), "{line}");
    assert!(when.saturating_duration_since(asked) >= Duration::from_millis(1900), "too early");
    let (rest, code, folder) = live.end("TERM");
    assert_eq!(code, Some(0));
    assert!(!rest.contains("\"event\":\"opened\""), "{rest}");
    assert!(rest.contains("\"type\":\"incident\""), "{rest}");
    drop(client);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_signal_asks_for_a_report_and_a_found_fault_may_end_it() {
    let refusing = refusing();
    let filter = format!("tcp port {refusing}");
    let Some(live) = Live::begin("until", &["--until-finding", "critical", &filter]) else { return };
    signalled(&live.child, "USR1");
    live.told("READ", Duration::from_secs(20));
    assert!(TcpStream::connect(("127.0.0.1", refusing)).is_err());
    live.told("refuses connections", Duration::from_secs(20));
    let mut live = live;
    let end = Instant::now() + Duration::from_secs(20);
    while live.child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < end, "it goes on after the finding");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::fs::remove_dir_all(&live.folder).expect("removed");
}

#[test]
fn a_rotated_recording_is_read_as_one_capture() {
    let refusing = refusing();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let fine = listener.local_addr().expect("an address").port();
    let folder = support::folder("live-ring");
    let filter = format!("tcp port {refusing} or tcp port {fine}");
    // As root it goes on as another user, who may not write there.
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set");
    let pattern = shown(&folder, "ring.pcapng");
    let Some(live) = Live::begin("rotation", &["-w", &pattern, "-C", "1", "-s", "262144", &filter]) else { return };
    // Three million octets, and a failure on either side of them.
    assert!(TcpStream::connect(("127.0.0.1", refusing)).is_err());
    live.told("1 of 1 flow", Duration::from_secs(20));
    let mut client = TcpStream::connect(("127.0.0.1", fine)).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    let sink = std::thread::spawn(move || std::io::copy(&mut server, &mut std::io::sink()));
    for _ in 0..30 {
        client.write_all(&[b'x'; 100_000]).expect("sent");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(client);
    sink.join().expect("ends").expect("read");
    assert!(TcpStream::connect(("127.0.0.1", refusing)).is_err());
    live.told("now 2 flows", Duration::from_secs(20));
    let (rest, code, beside) = live.end("INT");
    assert_eq!(code, Some(0));
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|file| file.expect("a file").path().display().to_string())
        .collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    assert_eq!((files[0].as_str(), files[1].as_str()), (pattern.as_str(), format!("{pattern}1").as_str()));
    let arguments: Vec<&str> = ["--width", "100"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let offline = String::from_utf8(tcpwhy(&arguments).stdout).expect("text");
    let report = &rest[rest.rfind("\nCRITICAL").map_or(0, |at| at + 1)..];
    assert_eq!(report.trim_end(), offline.trim_end());
    std::fs::remove_dir_all(folder).expect("removed");
    std::fs::remove_dir_all(beside).expect("removed");
}

#[test]
fn a_file_is_followed_while_it_grows_and_over_into_the_next_one() {
    let folder = support::folder("follow");
    let capture = std::fs::read(support::root().join("captures/incidents/gitlab/both-legs.pcap")).expect("a capture");
    // Cut where a record ends, after the failure has begun.
    let cut = records(&capture).find(|at| *at > capture.len() / 4 * 3).expect("a record");
    let (first, second) = (folder.join("ring.pcap"), folder.join("ring.pcap1"));
    let (first_name, second_name) = (first.display().to_string(), second.display().to_string());
    let mut live = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .args(["live", "--width", "100", "--follow", &first_name])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let (sender, lines) = std::sync::mpsc::channel();
    let out = BufReader::new(live.stdout.take().expect("a pipe"));
    std::thread::spawn(move || {
        out.lines().map_while(Result::ok).for_each(|line| drop(sender.send((Instant::now(), line))));
    });
    let mut file = std::fs::File::create(&first).expect("a file");
    // In pieces that cut records.
    for piece in capture[..cut].chunks(4096) {
        file.write_all(piece).expect("written");
        std::thread::sleep(Duration::from_millis(1));
    }
    let live = Live { child: live, lines, folder: folder.clone() };
    live.told("sends a PROXY header to a port that speaks TLS", Duration::from_secs(20));
    std::fs::write(&second, [&capture[..24], &capture[cut..]].concat()).expect("written");
    live.told("now 14 flows", Duration::from_secs(20));
    let (rest, code, _) = live.end("INT");
    assert_eq!(code, Some(0));
    let offline = String::from_utf8(tcpwhy(&["--width", "100", &first_name, &second_name]).stdout).expect("text");
    let report = &rest[rest.rfind("\nCRITICAL").map_or(0, |at| at + 1)..];
    assert_eq!(report.trim_end(), offline.trim_end());
    std::fs::remove_dir_all(folder).expect("removed");
}

/// Where the records of a little-endian pcap begin.
fn records(capture: &[u8]) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(24), |at| {
        let len = capture.get(at + 8..at + 12)?;
        Some(at + 16 + u32::from_le_bytes(len.try_into().ok()?) as usize)
    })
}

#[test]
fn no_thread_keeps_a_capability() {
    let Some(live) = Live::begin("rights", &["tcp port 9"]) else { return };
    let tasks = std::fs::read_dir(format!("/proc/{}/task", live.child.id())).expect("threads");
    let mut threads = 0;
    for task in tasks {
        let status = std::fs::read_to_string(task.expect("a thread").path().join("status")).expect("its status");
        let held = status
            .lines()
            .filter(|line| ["CapInh", "CapPrm", "CapEff", "CapAmb"].iter().any(|set| line.starts_with(set)));
        for line in held {
            assert!(line.ends_with("\t0000000000000000"), "{line}");
        }
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        threads += 1;
    }
    assert!(threads > 2);
    let (_, code, folder) = live.end("INT");
    assert_eq!(code, Some(0));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn what_cannot_be_listened_to_is_said_in_one_line() {
    let said = |arguments: &[&str]| {
        let output = tcpwhy(arguments);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(said(&["live"]).contains("no interface given: tcpwhy live -i INTERFACE"));
    let unknown = said(&["live", "-i", "nowhere0"]);
    // Without rights the system does not even say whether it is there.
    assert!(
        unknown.contains("there is no interface nowhere0; there are: ") || unknown.contains("CAP_NET_RAW"),
        "{unknown}"
    );
    let filter = said(&["live", "-i", "lo", "tcp prot 80"]);
    assert!(
        filter.contains("the filter \"tcp prot 80\" does not fit lo: ") || filter.contains("CAP_NET_RAW"),
        "{filter}"
    );
    assert!(said(&["live", "-i", "lo", "--for", "soon"]).contains("write a time, such as 30s"));
    let listed = String::from_utf8(tcpwhy(&["live", "-D"]).stdout).expect("text");
    assert!(listed.lines().any(|line| line.starts_with("lo ") && line.contains("127.0.0.1")), "{listed}");
}
