//! The house stands: floors import only downwards, and the rule table is sound as data.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tcpwhy::catalogue::RULES;
use tcpwhy::rule::Scope;

/// Rooms of `src/` by floor; inside a floor in their order.
const TOWER: &[&[&str]] = &[
    &["error", "time", "wire"],
    &["event", "capture"],
    &["decode"],
    &["flow"],
    &["protocol", "host"],
    &["rule"],
    &["catalogue"],
    &["diagnose"],
    &["run", "render", "redact"],
];

fn place(room: &str) -> Option<(usize, usize)> {
    TOWER.iter().enumerate().find_map(|(floor, rooms)| Some((floor, rooms.iter().position(|name| *name == room)?)))
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![support::root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src is readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are text");
                files.push((path, text));
            }
        }
    }
    files.sort();
    files
}

fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(support::root().join("src")).expect("below src");
    let first = below.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Names after `crate::` outside of test modules and comments.
fn imports(text: &str) -> impl Iterator<Item = &str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| {
        line.match_indices("crate::").map(|(at, found)| {
            let tail = &line[at + found.len()..];
            &tail[..tail.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(tail.len())]
        })
    })
}

#[test]
fn every_import_points_down_the_tower() {
    let mut upward = Vec::new();
    for (path, text) in sources() {
        let Some(own) = place(&room_of(&path)) else { continue };
        for name in imports(&text) {
            if place(name).is_some_and(|other| other > own) {
                upward.push(format!("{} takes from {name}", path.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn every_room_is_in_the_tower() {
    for (path, _) in sources() {
        let room = room_of(&path);
        let known = ["lib", "main", "cli"].contains(&room.as_str()) || place(&room).is_some();
        assert!(known, "{room} stands on no floor");
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, text) in sources() {
        let text = text.trim_start_matches("#![forbid(unsafe_code)]\n");
        assert!(text.starts_with("//! "), "{} has no head", path.display());
    }
}

#[test]
fn rule_ids_are_unique_kebab_case_and_their_files_stems() {
    let mut seen = BTreeSet::new();
    for (rule, source) in RULES {
        assert!(seen.insert(rule.id), "{} stands twice", rule.id);
        assert!(rule.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", rule.id);
        assert!(source.contains(&format!("id: \"{}\"", rule.id)), "{} is not in its own file", rule.id);
    }
    let stems: BTreeSet<String> = sources()
        .iter()
        .filter(|(path, text)| room_of(path) == "catalogue" && text.contains("pub static RULE: Rule"))
        .map(|(path, _)| path.file_stem().expect("a file").to_string_lossy().replace('_', "-"))
        .collect();
    let ids: BTreeSet<String> = seen.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(stems, ids);
}

#[test]
fn every_rule_has_its_page_words_and_sources() {
    for (rule, _) in RULES {
        let page = tcpwhy::catalogue::page(rule.id).expect("a page");
        for section in ["## How tcpwhy knows", "## What it is not", "## What people see", "## False alarms it avoids"] {
            assert!(page.contains(section), "{} lacks {section:?}", rule.id);
        }
        assert!(!rule.title.is_empty() && !rule.title.ends_with('.'), "{}: title", rule.id);
        assert!(!rule.says.is_empty(), "{}: says", rule.id);
        assert!(!rule.sources.is_empty(), "{}: sources", rule.id);
        let of_variants = rule.words_of.iter().flat_map(|(_, words)| words.do_first.iter().chain(words.verify));
        for step in rule.do_first.iter().chain(rule.verify).chain(of_variants) {
            assert!(!step.command.contains('…') && !step.command.contains(" #"), "{}: {}", rule.id, step.command);
            assert!(!step.command.contains('\n'), "{}: a command stands on one line", rule.id);
        }
    }
}

#[test]
fn every_rule_has_a_capture_that_fires_and_one_that_does_not() {
    let mut missing = Vec::new();
    for (rule, _) in RULES {
        let folder = support::root().join("captures/rules").join(rule.id);
        let names: Vec<String> = support::captures_below(&folder)
            .iter()
            .map(|path| path.file_name().expect("a file").to_string_lossy().into_owned())
            .collect();
        if !names.iter().any(|name| !name.starts_with("not-")) {
            missing.push(format!("{}: no capture that must fire", rule.id));
        }
        if !names.iter().any(|name| name.starts_with("not-")) {
            missing.push(format!("{}: no look-alike", rule.id));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_explains_graph_has_no_cycle_but_the_declared_ones_between_legs() {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (rule, _) in RULES {
        for edge in rule.explains {
            let across_legs = edge.0 == rule.id && edge.1 == Scope::Link;
            if !across_legs {
                edges.entry(rule.id).or_default().push(edge.0);
            }
        }
    }
    fn visit<'a>(
        at: &'a str,
        edges: &BTreeMap<&'a str, Vec<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) {
        assert!(!path.contains(&at), "cycle: {path:?} -> {at}");
        if !done.insert(at) {
            return;
        }
        path.push(at);
        for next in edges.get(at).into_iter().flatten() {
            visit(next, edges, path, done);
        }
        path.pop();
    }
    let mut done = BTreeSet::new();
    for id in edges.keys().copied().collect::<Vec<_>>() {
        visit(id, &edges, &mut Vec::new(), &mut done);
    }
}

/// The edges of the catalogue whose effect is no rule yet: they take hold by themselves when it is built.
#[test]
fn edges_to_rules_that_are_not_built_are_listed() {
    let built: BTreeSet<&str> = RULES.iter().map(|(rule, _)| rule.id).collect();
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    for (rule, _) in RULES {
        for edge in rule.explains.iter().filter(|edge| !built.contains(edge.0)) {
            waiting.insert(format!("{} -> {}\n", rule.id, edge.0));
        }
    }
    let text: String = waiting.into_iter().collect();
    let head = "# Edges whose effect is not built yet, written by BLESS=1 cargo test --test house.\n";
    support::check_file(&support::root().join("docs/waiting-edges.txt"), &format!("{head}{text}")).expect("fresh");
}

#[test]
fn symptom_rules_are_those_of_the_catalogue() {
    const SYMPTOMS: &[&str] = &[
        "closed-without-answer",
        "closed-before-request",
        "http-upstream-closed-before-response",
        "http-upstream-reset-before-response",
        "server-reset-mid-response",
        "reset-unread-data",
        "stray-reset",
        "client-abandoned",
        "half-closed-stuck",
        "rto-unrecovered",
        "http-bad-request",
        "http-framing-conflict",
        "http-gateway-error",
        "slow-response",
        "proxy-adds-latency",
        "proxy-retries-hide-failure",
        "tls-truncated-close",
        "tls-closed-after-clienthello",
    ];
    for (rule, _) in RULES {
        assert_eq!(rule.symptom, SYMPTOMS.contains(&rule.id), "{}", rule.id);
    }
}
