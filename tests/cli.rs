//! The program as people and scripts use it.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

const GITLAB: &str = "captures/incidents/gitlab/both-legs.pcap";

fn tcpwhy(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .args(arguments)
        .current_dir(support::root())
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_capture_is_diagnosed_with_exit_code_0() {
    let output = tcpwhy(&[GITLAB]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("CRITICAL"), "{}", stdout(&output));
}

#[test]
fn fail_on_turns_a_finding_into_exit_code_1() {
    assert_eq!(tcpwhy(&["--fail-on", "critical", GITLAB]).status.code(), Some(1));
}

#[test]
fn a_missing_file_is_one_clear_line_and_exit_code_2() {
    let output = tcpwhy(&["no-such-file.pcap"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("no-such-file.pcap"));
}

#[test]
fn a_text_file_is_said_to_be_no_capture() {
    let output = tcpwhy(&["Cargo.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not a capture file"), "{}", stderr(&output));
}

#[test]
fn the_memory_a_run_may_take_has_a_unit_and_a_least_value() {
    let said = |size: &str| {
        let output = tcpwhy(&["--max-memory", size, GITLAB]);
        (output.status.code(), stderr(&output), stdout(&output))
    };
    let (code, why, report) = said("128M");
    assert_eq!((code, report == stdout(&tcpwhy(&[GITLAB]))), (Some(0), true), "{why}");
    for (size, words) in [("127M", "at least 128M"), ("12X", "such as 512M")] {
        let (code, why, _) = said(size);
        assert!(code == Some(2) && why.contains(words), "{why}");
    }
}

#[test]
fn nothing_to_read_is_a_usage_error() {
    let output = tcpwhy(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("tcpwhy FILE"), "{}", stderr(&output));
}

#[test]
fn standard_input_is_read() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let bytes = std::fs::read(support::root().join(GITLAB)).expect("readable");
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("all of it is read");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    let (piped, file) = (stdout(&output), stdout(&tcpwhy(&[GITLAB])));
    assert_eq!(piped.lines().next(), file.lines().next());
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .args(["--format", "jsonl", "--all-flows", GITLAB])
        .current_dir(support::root())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn json_is_one_document_and_jsonl_one_object_per_line() {
    let document: serde_json::Value =
        serde_json::from_slice(&tcpwhy(&["--format", "json", GITLAB]).stdout).expect("JSON");
    assert_eq!(document["schema"], "tcpwhy.report/1");
    for line in stdout(&tcpwhy(&["--format", "jsonl", GITLAB])).lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect("an object per line");
        assert!(object["type"].is_string());
    }
}

#[test]
fn a_ticket_is_written_in_the_markup_of_its_tracker() {
    let ticket = |flavour: &str| stdout(&tcpwhy(&["--format", "markdown", "--flavour", flavour, GITLAB]));
    let usual = stdout(&tcpwhy(&["--format", "markdown", GITLAB]));
    assert_eq!(ticket("github").replace(" --flavour github", ""), usual);
    assert!(ticket("github").contains("<details>") && ticket("github").contains("| --- |"));
    assert!(!ticket("plain").contains("<details>") && ticket("plain").starts_with("## CRITICAL: "));
    assert!(ticket("jira").starts_with("h2. CRITICAL: ") && ticket("jira").contains("{noformat}"));
    let typed = format!("tcpwhy --format markdown --flavour gitlab {GITLAB}");
    assert!(ticket("gitlab").contains(&typed), "how to make it again");
}

#[test]
fn a_flavour_without_markdown_is_a_usage_error() {
    let output = tcpwhy(&["--flavour", "jira", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--format markdown"), "{}", stderr(&output));
}

#[test]
fn what_is_no_report_has_no_ticket_format() {
    for format in ["markdown", "html"] {
        for command in [&["flow", "1", GITLAB, "--format", format][..], &["diff", GITLAB, GITLAB, "--format", format]] {
            let output = tcpwhy(command);
            assert_eq!(output.status.code(), Some(2), "{command:?}");
            assert!(stdout(&output).is_empty() && stderr(&output).contains("--format json"), "{}", stderr(&output));
        }
    }
}

#[test]
fn explain_prints_the_page_of_a_rule() {
    let output = tcpwhy(&["explain", "proxy-header-to-tls-port"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("## How tcpwhy knows"));
}

#[test]
fn explain_finds_rules_by_what_users_see() {
    let output = tcpwhy(&["explain", "SSL_ERROR_SYSCALL"]);
    assert!(stdout(&output).contains("proxy-header-to-tls-port"), "{}", stdout(&output));
}

#[test]
fn an_unknown_id_suggests_the_nearest() {
    let output = tcpwhy(&["explain", "connect-refusd"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("connect-refused"), "{}", stderr(&output));
}

#[test]
fn rules_and_thresholds_are_listed() {
    assert!(stdout(&tcpwhy(&["rules"])).contains("connect-refused"));
    assert!(stdout(&tcpwhy(&["thresholds"])).contains("hang"));
}

#[test]
fn a_flow_is_found_by_any_of_its_packets() {
    let document: serde_json::Value =
        serde_json::from_slice(&tcpwhy(&["--format", "json", GITLAB]).stdout).expect("JSON");
    let packet = document["incidents"][0]["evidence"][0]["packet"].as_u64().expect("a packet");
    let output = tcpwhy(&["flow", &packet.to_string(), GITLAB]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains(&format!("#{packet}")), "{}", stdout(&output));
}

#[test]
fn two_captures_are_compared_server_by_server() {
    let output = tcpwhy(&["diff", "captures/rules/connect-refused/closed-port.pcap", GITLAB]);
    assert!(output.status.success(), "{}", stderr(&output));
    let document: serde_json::Value =
        serde_json::from_slice(&tcpwhy(&["diff", "--format", "json", GITLAB, GITLAB]).stdout).expect("JSON");
    assert_eq!((&document["schema"], &document["servers"]), (&"tcpwhy.diff/1".into(), &serde_json::json!([])));
}

#[test]
fn a_capture_plan_names_the_ends_in_a_line_to_paste() {
    let plan = stdout(&tcpwhy(&["capture-plan", "10.0.0.5:443"]));
    assert!(plan.contains("'(host 10.0.0.5 and tcp port 443) or icmp or icmp6 or arp or port 53'"), "{plan}");
    assert_eq!(tcpwhy(&["capture-plan", "lb.example"]).status.code(), Some(2));
}

#[test]
fn options_may_stand_before_flow() {
    let before = tcpwhy(&["--format", "json", "flow", "9", GITLAB]);
    let after = tcpwhy(&["flow", "9", GITLAB, "--format", "json"]);
    assert!(before.status.success(), "{}", stderr(&before));
    assert_eq!(stdout(&before), stdout(&after));
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_the_reading_and_the_report_says_so() {
    let capture = std::fs::read(support::root().join(GITLAB)).expect("the capture");
    let (half, rest) = capture.split_at(capture.len() / 2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpwhy starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(half).expect("it reads");
    // It listens for the signal before it reads; what was written fits a pipe, so give it a moment.
    std::thread::sleep(std::time::Duration::from_millis(500));
    // The shell's own kill: the program of that name is not everywhere.
    let sent = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().expect("a shell");
    assert!(sent.success());
    std::thread::sleep(std::time::Duration::from_millis(200));
    // The end of the pipe may be gone already.
    let _ = pipe.write_all(rest);
    drop(pipe);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(stdout(&output).contains("reading was interrupted"), "{}", stdout(&output));
}

#[test]
fn a_packet_beyond_the_end_is_a_clear_error() {
    let output = tcpwhy(&["flow", "99999999", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there is no packet 99999999"), "{}", stderr(&output));
}

#[test]
fn a_packet_of_a_capture_that_was_not_given_is_a_clear_error() {
    let output = tcpwhy(&["flow", "2#17", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("2#17 is packet 17 of capture 2"), "{}", stderr(&output));
}

#[test]
fn the_next_command_of_a_report_from_several_captures_runs() {
    let [client, backend] = ["client", "backend"].map(|leg| {
        format!("{leg}={}", support::root().join(format!("captures/incidents/gitlab/{leg}-leg.pcap")).display())
    });
    // A long command is continued as a shell reads it.
    let report = stdout(&tcpwhy(&[&client, &backend])).replace(" \\\n            ", " ");
    let line = report.lines().find_map(|line| line.strip_prefix("MORE      tcpwhy ")).expect("a next command");
    let output = tcpwhy(&line.split_whitespace().collect::<Vec<_>>());
    assert!(output.status.success() && stdout(&output).starts_with("FLOW"), "{line}: {}", stderr(&output));
}

#[test]
fn a_capture_without_packets_says_what_to_do_next() {
    let empty = support::root().join("captures/broken/empty-file.pcap");
    let report = stdout(&tcpwhy(&[&empty.display().to_string()]));
    assert!(report.contains("DO FIRST") && !report.contains("0 packets ="), "{report}");
}

#[test]
fn what_was_asked_for_and_is_not_there_is_not_called_an_empty_capture() {
    for asked in [["--client", "192.0.2.99"], ["--since", "23:59"]] {
        let report = stdout(&tcpwhy(&[asked[0], asked[1], GITLAB]));
        assert!(report.contains("asked for") && report.contains(&format!("tcpwhy --all-flows {GITLAB}")), "{report}");
    }
}

#[test]
fn filters_keep_the_packet_numbers() {
    let all: serde_json::Value = serde_json::from_slice(&tcpwhy(&["--format", "json", GITLAB]).stdout).expect("JSON");
    let some: serde_json::Value =
        serde_json::from_slice(&tcpwhy(&["--format", "json", "--filter", "tcp port 1443", GITLAB]).stdout)
            .expect("JSON");
    let header = |report: &serde_json::Value| {
        let evidence = report["incidents"][0]["evidence"].as_array().expect("evidence").clone();
        evidence.iter().find(|e| e["shows"].as_str().is_some_and(|s| s.contains("PROXY"))).map(|e| e["packet"].clone())
    };
    assert!(header(&all).is_some());
    assert_eq!(header(&all), header(&some));
    assert!(some["counts"]["packets"]["filtered"].as_u64() > Some(0));
}

#[test]
fn a_wrong_filter_is_refused_with_libpcaps_words() {
    let output = tcpwhy(&["--filter", "tcp prot 80", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("syntax"), "{}", stderr(&output));
}

#[test]
fn a_threshold_that_does_not_exist_suggests_the_nearest() {
    let output = tcpwhy(&["--threshold", "hagn=5s", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("did you mean hang"), "{}", stderr(&output));
}

#[test]
fn output_that_cannot_be_written_is_exit_code_2() {
    let output = tcpwhy(&["-o", "/no/such/folder/report.txt", GITLAB]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
}

#[test]
fn expectations_are_met_or_named() {
    let folder = support::folder("expect");
    let capture = support::root().join(GITLAB);
    let file = folder.join("e.toml");
    let text = |root: &str| format!("[[expect]]\ncapture = {:?}\nroot = \"{root}\"\n", capture.display().to_string());
    std::fs::write(&file, text("proxy-header-to-tls-port")).expect("written");
    assert_eq!(tcpwhy(&["expect", &file.to_string_lossy()]).status.code(), Some(0));
    std::fs::write(&file, text("connect-refused")).expect("written");
    let missed = tcpwhy(&["expect", &file.to_string_lossy()]);
    assert_eq!(missed.status.code(), Some(1));
    assert!(stdout(&missed).contains("expected connect-refused, got proxy-header-to-tls-port"));
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn a_report_has_no_colour_in_a_pipe_and_has_some_when_forced() {
    assert!(!stdout(&tcpwhy(&[GITLAB])).contains('\x1b'));
    assert!(stdout(&tcpwhy(&["--color", "always", GITLAB])).contains("\x1b[1;31m"));
}

/// Runs the program on a terminal, with an input that takes a second and a half; what the terminal shows. `None` without util-linux' script.
#[cfg(target_os = "linux")]
fn on_a_terminal(arguments: &str) -> Option<String> {
    let program = env!("CARGO_BIN_EXE_tcpwhy");
    let line = format!("{{ head -c 30000 {GITLAB}; sleep 1.5; tail -c +30001 {GITLAB}; }} | {program} {arguments} -");
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .current_dir(support::root())
        .stdin(Stdio::null())
        .output();
    let missing = match output {
        // In a container without /dev/pts it has no terminal to give.
        Ok(output) if !output.status.success() && output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        Ok(output) => return Some(stdout(&output)),
        Err(error) => error.to_string(),
    };
    let needed = format!("script, of util-linux, and a terminal for it are needed: {}", missing.trim());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{needed}");
    eprintln!("skipped: {needed}");
    None
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_a_line_tells_how_far_it_is_and_is_gone_before_the_report() {
    let Some(shown) = on_a_terminal("") else { return };
    let report = shown.find("CRITICAL").expect("a report");
    assert!(shown[..report].contains("B/s, "), "{shown:?}");
    // Back to the first column, nothing written, the rest of the line erased.
    let cleared = "\r\x1b[?7l\x1b[K\x1b[?7h";
    let before = shown[..report].trim_end_matches("\x1b[1;31m");
    assert!(before.ends_with(cleared), "{before:?}");
    assert!(!shown[report..].contains("B/s, "), "{shown:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn quiet_shows_nothing_but_the_report() {
    for quiet in ["--quiet", "--no-progress"] {
        let Some(shown) = on_a_terminal(quiet) else { return };
        assert!(shown.contains("CRITICAL") && !shown.contains("B/s, ") && !shown.contains("\x1b[K"), "{shown:?}");
    }
}

#[cfg(unix)]
#[test]
fn nothing_tells_how_far_it_is_when_nobody_looks() {
    let program = env!("CARGO_BIN_EXE_tcpwhy");
    let line = format!("{{ head -c 30000 {GITLAB}; sleep 1.5; tail -c +30001 {GITLAB}; }} | {program} -");
    let output = Command::new("sh").args(["-c", &line]).current_dir(support::root()).output().expect("a shell");
    assert!(stdout(&output).starts_with("CRITICAL"), "{}", stdout(&output));
    assert_eq!(stderr(&output), "");
}
