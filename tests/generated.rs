//! Generated files are fresh: the index of rules, their pages, the report's schema, the list of rules. `BLESS=1 cargo test` rewrites.

mod support;

use std::fmt::Write;

use support::{check_file, root};
use tcpwhy::catalogue::{self, RULES};

/// Families in the catalogue's order, with what they are about.
const FAMILIES: &[(&str, &str)] = &[
    ("capture", "How far the capture itself can be trusted."),
    ("link", "Link, ARP, neighbour discovery and ICMP."),
    ("path", "Paths and asymmetry."),
    ("connect", "TCP connect."),
    ("transfer", "Loss, latency and windows."),
    ("close", "Closes and resets."),
    ("proxy_header", "PROXY protocol headers."),
    ("tls", "TLS."),
    ("wrong_protocol", "One side speaks what the other does not."),
    ("http", "HTTP/1."),
    ("http2", "HTTP/2 and gRPC."),
    ("legs", "The two legs of a proxied request."),
    ("dns", "Name resolution."),
    ("app", "Hangs, latency and pools."),
    ("outage", "Capture-wide incidents."),
];

/// Stems of a family's rule files.
fn rules_of(family: &str) -> Vec<String> {
    let mut stems = Vec::new();
    let Ok(entries) = std::fs::read_dir(root().join("src/catalogue").join(family)) else { return stems };
    for entry in entries.flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        if text.contains("pub static RULE: Rule") {
            stems.push(entry.path().file_stem().expect("a file").to_string_lossy().into_owned());
        }
    }
    stems.sort();
    stems
}

#[test]
fn the_index_of_rules_is_fresh() {
    let mut index = String::from(
        "//! Every rule of the catalogue, in the order of its families. Generated: `BLESS=1 cargo test --test generated` rewrites it.\n\n\
         use crate::rule::Rule;\n\n/// Rules with the source file that holds their page.\n#[rustfmt::skip]\npub static RULES: &[(&Rule, &str)] = &[\n",
    );
    for (family, _) in FAMILIES {
        for stem in rules_of(family) {
            let _ = writeln!(index, "    (&super::{family}::{stem}::RULE, include_str!(\"{family}/{stem}.rs\")),");
        }
    }
    index.push_str("];\n");
    check_file(&root().join("src/catalogue/index.rs"), &index).expect("fresh");
}

#[test]
fn every_rule_has_its_page_in_docs() {
    let folder = root().join("docs/rules");
    for (rule, _) in RULES {
        let page = catalogue::page(rule.id).expect("a page");
        let mut text = format!("# {}\n\n*{}*\n\n{page}\n", rule.id, rule.title);
        let _ = write!(
            text,
            "\n---\nSeverity {}, confidence {} before the modifiers, at fault: {}.",
            lower(rule.severity),
            lower(rule.confidence),
            lower(rule.culprit)
        );
        let _ = writeln!(text, " Sources: {}.", rule.sources.join("; "));
        check_file(&folder.join(format!("{}.md", rule.id)), &text).expect("fresh");
    }
    for entry in std::fs::read_dir(&folder).expect("docs/rules").flatten() {
        let stem = entry.path().file_stem().expect("a file").to_string_lossy().into_owned();
        assert!(stem == "README" || catalogue::rule(&stem).is_some(), "docs/rules/{stem}.md has no rule");
    }
}

#[test]
fn the_list_of_rules_is_fresh() {
    let mut text =
        String::from("# The diagnoses\n\n| rule | severity | confidence | what it says |\n|---|---|---|---|\n");
    for (rule, _) in RULES {
        let (severity, confidence) = (lower(rule.severity), lower(rule.confidence));
        let _ = writeln!(text, "| [{0}]({0}.md) | {severity} | {confidence} | {1} |", rule.id, rule.title);
    }
    check_file(&root().join("docs/rules/README.md"), &text).expect("fresh");
}

#[test]
fn the_schema_of_the_report_is_fresh() {
    check_file(&root().join("docs/report.schema.json"), &tcpwhy::render::json::schema()).expect("fresh");
}

/// The README's output is what the program prints.
#[test]
fn the_readme_shows_a_real_output() {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).expect("a README");
    let report = support::report(&root().join("captures/incidents/gitlab/both-legs.pcap"));
    let text = tcpwhy::render::text::report(&report, Default::default());
    let screen: Vec<&str> = text.lines().take_while(|line| !line.starts_with("DETAILS")).collect();
    let (before, rest) = readme.split_once("```\n").expect("a block of output");
    let (_, after) = rest.split_once("```\n").expect("its end");
    let fresh = format!("{before}```\n{}\n```\n{after}", screen.join("\n").trim_end());
    check_file(&path, &fresh).expect("fresh");
}

/// A block of the pages that begins with `$ tcpwhy …` shows what this command prints, run in the project's directory.
#[test]
fn the_pages_show_real_outputs() {
    for name in ["docs/guide.md", "docs/output.md"] {
        let path = root().join(name);
        let page = std::fs::read_to_string(&path).expect("a page");
        let mut fresh = String::new();
        let mut rest = page.as_str();
        while let Some((before, block)) = rest.split_once("```\n$ tcpwhy ") {
            let (command, after) = block.split_once('\n').expect("a line");
            let (_, after) = after.split_once("```\n").or_else(|| after.split_once("```")).expect("the block's end");
            let output = std::process::Command::new(env!("CARGO_BIN_EXE_tcpwhy"))
                .args(command.split_whitespace())
                .current_dir(root())
                .output()
                .expect("tcpwhy runs");
            assert!(output.status.success(), "tcpwhy {command}");
            let text = String::from_utf8(output.stdout).expect("text");
            let _ = write!(fresh, "{before}```\n$ tcpwhy {command}\n{text}```\n");
            rest = after;
        }
        fresh.push_str(rest);
        check_file(&path, &fresh).expect("fresh");
    }
}

fn lower(word: impl std::fmt::Debug) -> String {
    format!("{word:?}").to_lowercase()
}
