//! Both ends of a path on which one thing at a time was broken on purpose: what tcpwhy names first at each end, and with both files, and
//! how every segment came, against what was done (captures/two-ends; docs/accuracy.md has the figures).
//!
//! Nothing in `causes.tsv` and `truth.tsv` comes from tcpwhy: the plan of the middle, its log, the sender's own capture and its kernel.
//! What does not agree stands in `missed.tsv` with its reason, and only there.

mod support;

#[allow(dead_code)]
#[path = "../examples/segments.rs"]
mod segments;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tcpwhy::catalogue;
use tcpwhy::{Diagnosis, Report, Severity};

type Row = BTreeMap<String, String>;

fn folder() -> PathBuf {
    support::root().join("captures/two-ends")
}

fn table(path: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(folder().join(path)).expect("a table of captures/two-ends");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let row = |line: &str| names.iter().map(|name| name.to_string()).zip(line.split('\t').map(String::from)).collect();
    lines.map(row).collect()
}

fn capture(scenario: &str, end: &str) -> String {
    folder().join(scenario).join(format!("{end}.pcap")).to_string_lossy().into_owned()
}

fn report(scenario: &str, view: &str) -> Report {
    let inputs = match view {
        "both" => ["client", "server"].map(|end| format!("{end}={}", capture(scenario, end))).to_vec(),
        end => vec![capture(scenario, end)],
    };
    Diagnosis::new().open(&inputs).and_then(|opened| opened.run()).expect("a report")
}

/// The first root: its rule, who has to act, and the direction in which it says that octets were lost.
fn said(report: &Report) -> (String, String, String) {
    let root = report.findings.iter().find(|f| f.explained_by.is_none() && f.severity > Severity::Silent);
    let rule = report.incidents.first().map(|incident| incident.rule.clone()).or(root.map(|root| root.rule.clone()));
    let Some(rule) = rule else { return ("-".into(), "-".into(), "-".into()) };
    let role = report.incidents.first().map_or("-".to_owned(), |incident| word(&incident.culprit.role));
    let role = if role == "upstream" { "server".to_owned() } else { role };
    let sender = report
        .findings
        .iter()
        .find(|finding| finding.rule == rule && matches!(rule.as_str(), "packet-loss" | "loss-burst-single"))
        .and_then(|finding| finding.values.get("sender").map(word));
    let direction = match sender {
        Some(sender) if sender.starts_with("203.0.113.7") => "up",
        Some(_) => "down",
        None => "-",
    };
    (rule, role, direction.to_owned())
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// By a rule that is true at that end, with the right one to act and no wrong direction.
fn agrees(cause: &Row, view: &str, (rule, role, direction): &(String, String, String)) -> bool {
    // What a kernel answers to a forged RST is its own: at the other end nothing shows more.
    let answered = cause["scenario"] == "reset-to-server" && view == "client" && role == "server";
    let by = role == "-" || *role == cause["where"] || cause[view] == "-" || answered;
    let way = direction == "-"
        || cause["direction"] == "-"
        || cause["direction"] == "both"
        || *direction == cause["direction"];
    cause[view].split(',').any(|name| name == rule) && by && way
}

#[test]
fn causes_agree_with_what_was_done_but_for_those_listed_with_a_reason() {
    let missed: BTreeSet<(String, String)> = table("missed.tsv")
        .iter()
        .map(|row| {
            assert!(row["reason"].len() > 20, "{row:?} has no reason");
            (row["scenario"].clone(), row["view"].clone())
        })
        .collect();
    let mut wrong = BTreeSet::new();
    let causes = table("causes.tsv");
    for cause in &causes {
        for view in ["client", "server", "both"] {
            let said = said(&report(&cause["scenario"], view));
            if !agrees(cause, view, &said) {
                wrong.insert((cause["scenario"].clone(), view.to_owned()));
                println!("{} seen from {view}: {said:?}", cause["scenario"]);
            }
        }
    }
    assert_eq!(wrong, missed);
    assert!(causes.len() >= 20);
    let known = |name: &&str| *name != "-" && catalogue::rule(name).is_some();
    assert!(causes.iter().flat_map(|cause| cause["both"].split(',')).filter(known).count() >= 15);
}

/// Scores of one end: sent again and said so, missed, said so wrongly.
#[derive(Debug, Default)]
struct Score {
    hit: u32,
    missed: u32,
    wrong: u32,
}

#[test]
fn every_segment_that_was_sent_again_is_known_and_no_other() {
    let [mut at_sender, mut at_receiver] = [Score::default(), Score::default()];
    for cause in table("causes.tsv") {
        let scenario = &cause["scenario"];
        let truth = table(&format!("{scenario}/truth.tsv"));
        for end in ["client", "server"] {
            let ours: BTreeMap<u64, &str> =
                segments::segments(&capture(scenario, end)).expect("a capture").into_iter().collect();
            let mut reached: BTreeMap<(String, String), i64> = BTreeMap::new();
            for (number, row, role) in frames(&truth, end) {
                let again = row["sent"] != "first" && role != Role::Doubled;
                let position: i64 = row["seq"].parse().expect("a number");
                let length: i64 = row["len"].parse().expect("a number");
                let high = reached.entry((row["flow"].clone(), row["from"].clone())).or_default();
                // The first of its octets to arrive, with nothing behind them before: at this end nothing tells.
                let untold = again && role == Role::Came && position >= *high;
                *high = (*high).max(position + length);
                let said = ["timeout", "fast", "tail-probe", "spurious"].contains(&ours[&number]);
                let score = if role == Role::Sent { &mut at_sender } else { &mut at_receiver };
                match (again, said) {
                    _ if untold => {}
                    (true, true) => score.hit += 1,
                    (true, false) => score.missed += 1,
                    (false, true) => score.wrong += 1,
                    (false, false) => {}
                }
            }
        }
    }
    for score in [at_sender, at_receiver] {
        assert!(score.hit >= 80, "{score:?}");
        // 99 of 100 found, and 99 of 100 right.
        assert!(score.missed * 99 <= score.hit && score.wrong * 99 <= score.hit, "{score:?}");
    }
}

/// What a frame is at one end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It left here.
    Sent,
    /// It arrived.
    Came,
    /// The second copy of what the middle doubled.
    Doubled,
}

/// The data frames of one end's capture, in the order of its numbers.
fn frames<'a>(truth: &'a [Row], end: &str) -> Vec<(u64, &'a Row, Role)> {
    let mut found = Vec::new();
    for row in truth.iter().filter(|row| row["what"].contains("data") && row["from"] != "middle") {
        for (place, number) in row[end].split(',').filter_map(|number| number.parse().ok()).enumerate() {
            let role = match place {
                _ if row["from"] == end => Role::Sent,
                0 => Role::Came,
                _ => Role::Doubled,
            };
            found.push((number, row, role));
        }
    }
    found.sort_by_key(|(number, ..)| *number);
    found
}
