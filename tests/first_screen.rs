//! What is read first at 3 a.m. fits the screen: the first screen of every capture with an incident, and that of a report with many.

mod support;

use tcpwhy::Report;
use tcpwhy::render::{Style, text};

/// Lines of the only cause; of several, the overview and the screen of the first.
const ONE: usize = 25;
const SEVERAL: usize = 40;
/// Columns of a terminal nobody has made smaller.
const WIDTH: usize = 100;

#[test]
fn every_first_screen_fits() {
    assert_eq!(Style::default().width, WIDTH);
    let mut seen = 0;
    let mut faults = Vec::new();
    for path in support::captures_below(&support::root().join("captures")) {
        let Ok(report) = support::try_report(&path) else { continue };
        if report.incidents.is_empty() {
            continue;
        }
        seen += 1;
        let screen = first_of(&report);
        let most = if report.incidents.len() == 1 { ONE } else { SEVERAL };
        let lines = screen.lines().count();
        if lines > most {
            faults.push(format!("{}: {lines} lines, {most} at most", path.display()));
        }
        let wide = screen.lines().filter(|line| line.chars().count() > WIDTH);
        faults.extend(wide.map(|line| format!("{}: wider than {WIDTH} columns: {line}", path.display())));
    }
    assert!(seen > 500, "only {seen} captures with an incident");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn of_many_causes_the_first_steps_stand_on_the_first_screen() {
    let mut report =
        support::report(&support::root().join("captures/rules/http-invalid-response/node-http2-behind-nginx.pcap"));
    let known = report.incidents.clone();
    assert!(!known.is_empty());
    report.incidents = known.into_iter().cycle().take(30).collect();
    let screen = first_of(&report);
    let steps = screen.lines().position(|line| line.starts_with("DO FIRST")).expect("there are steps");
    assert!(steps < SEVERAL - ONE / 2, "they begin on line {}", steps + 1);
    // None is lost: the others follow the details.
    assert!(screen.contains("(20 more after the details)"), "{screen}");
    assert_eq!(text::report(&report, Style::default()).matches("the other causes:").count(), 1);
}

#[test]
fn a_long_headline_is_told_to_its_end() {
    let mut report = support::report(&support::root().join("captures/incidents/gitlab/both-legs.pcap"));
    let words = "what happens between whom, in plain words, however long the URL is that somebody asked for ".repeat(3);
    report.incidents[0].headline = format!("{}until it failed", &words[..250]);
    let screen = first_of(&report).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(screen.contains("until it failed"), "{screen}");
}

/// The screen, which is what the report begins with.
fn first_of(report: &Report) -> String {
    let screen = text::first_screen(report, Style::default());
    assert!(text::report(report, Style::default()).starts_with(&screen));
    screen
}
