//! Flows against Zeek's own baselines: who opened a connection, who ended it and how, and how many octets each side sent.
//!
//! The oracle is every TCP connection with a history in the `conn.log`s of `shared/corpora/zeek+zeek`; it is joined with a flow by addresses and
//! ports. docs/zeek.md lists every difference with its reason: what is found here and what stands there must be the same.

#[path = "support/flows.rs"]
mod flows;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flows::{Lent, flows, text};
use tcpwhy::event::Side;
use tcpwhy::flow::facts::FlowFacts;

/// One TCP connection of a baseline. Its fields by their names in `conn.log`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Connection {
    originator: String,
    responder: String,
    /// `conn_state`; `None` in baselines that were cut down to some columns.
    state: Option<String>,
    history: String,
    /// `orig_bytes`, `resp_bytes`.
    octets: Option<[u64; 2]>,
    missed: Option<u64>,
    /// `orig_pkts`, `resp_pkts`.
    packets: Option<[u64; 2]>,
}

/// The connections of all baselines, each once, with the names of those that hold it.
fn baselines(zeek: &Path) -> BTreeMap<Connection, String> {
    let mut found = BTreeMap::new();
    let folder = zeek.join("testing/btest/Baseline");
    let mut tests: Vec<_> = std::fs::read_dir(folder).expect("baselines").flatten().map(|entry| entry.path()).collect();
    tests.sort();
    for test in tests {
        let name = test.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for log in ["conn.log", "conn.log.cut"] {
            let Ok(octets) = std::fs::read(test.join(log)) else { continue };
            for connection in connections(&String::from_utf8_lossy(&octets)) {
                found.entry(connection).or_insert_with(|| name.clone());
            }
        }
    }
    found
}

/// The TCP connections of a log whose history is known. `zeek-cut` leaves the names of columns in the first line.
fn connections(log: &str) -> Vec<Connection> {
    let mut names: Option<Vec<&str>> = None;
    let mut found = Vec::new();
    for line in log.lines() {
        if let Some(fields) = line.strip_prefix("#fields\t") {
            names = Some(fields.split('\t').collect());
        } else if !line.starts_with('#') && !line.is_empty() {
            let fields: Vec<&str> = line.split('\t').collect();
            let Some(names) = &names else {
                names = Some(fields);
                continue;
            };
            let row: BTreeMap<&str, &str> = names.iter().copied().zip(fields).collect();
            found.extend(connection(&row));
        }
    }
    found
}

fn connection(row: &BTreeMap<&str, &str>) -> Option<Connection> {
    let end = |side: &str| {
        let (host, port) = (row.get(format!("id.{side}_h").as_str())?, row.get(format!("id.{side}_p").as_str())?);
        Some(format!("{host}:{port}"))
    };
    let number = |field: &str| row.get(field)?.parse::<u64>().ok();
    let history = (*row.get("history")?).to_owned();
    if row.get("proto").is_some_and(|protocol| *protocol != "tcp") || history == "-" {
        return None;
    }
    Some(Connection {
        originator: end("orig")?,
        responder: end("resp")?,
        state: row.get("conn_state").map(|state| (*state).to_owned()),
        history,
        octets: number("orig_bytes").zip(number("resp_bytes")).map(|(a, b)| [a, b]),
        missed: number("missed_bytes"),
        packets: number("orig_pkts").zip(number("resp_pkts")).map(|(a, b)| [a, b]),
    })
}

/// What is compared: its name, and what Zeek and tcpwhy say.
type Aspect = (&'static str, String, String);

fn aspects(connection: &Connection, facts: &FlowFacts, lent: &Lent) -> Vec<Aspect> {
    let originator = if text(&facts.client) == connection.originator { Side::Client } else { Side::Server };
    let halves = [facts.half(originator), facts.half(originator.other())];
    let has = |letters: [char; 2]| letters.map(|letter| connection.history.contains(letter));
    let both = |[a, b]: [bool; 2]| match (a, b) {
        (true, true) => "both",
        (true, false) => "originator",
        (false, true) => "responder",
        (false, false) => "nobody",
    };
    let name = |side: Side| if side == originator { "originator" } else { "responder" };
    let first = connection.history.chars().find(|letter| "FfRr".contains(*letter));
    let first = first.map_or("nobody", |letter| if letter.is_uppercase() { "originator" } else { "responder" });
    let mut aspects: Vec<Aspect> = vec![
        ("opener", connection.originator.clone(), text(&facts.client)),
        ("SYN seen of", both(has(['S', 'h'])).into(), both(halves.map(|half| half.syn_count > 0)).into()),
        ("FIN of", both(has(['F', 'f'])).into(), both(halves.map(|half| half.fin_count > 0)).into()),
        ("RST of", both(has(['R', 'r'])).into(), both(halves.map(|half| half.reset_count > 0)).into()),
        ("payload sent again by", both(has(['T', 't'])).into(), both(halves.map(|half| half.loss.total() > 0)).into()),
        ("first to end it", first.into(), facts.closer.map_or("nobody", |(side, _)| name(side)).into()),
    ];
    if let Some(state) = &connection.state {
        aspects.push(("state", state.clone(), state_of(halves).into()));
    }
    if let Some(octets) = connection.octets {
        // Zeek counts sequence numbers, holes included.
        let missing = [originator, originator.other()].map(|side| lent.gaps[side as usize]);
        let ours = [halves[0].payload + missing[0], halves[1].payload + missing[1]];
        aspects.push(("octets", format!("{} {}", octets[0], octets[1]), format!("{} {}", ours[0], ours[1])));
        let missed = connection.missed.unwrap_or(0);
        aspects.push(("octets missed", missed.to_string(), (missing[0] + missing[1]).to_string()));
    }
    if let Some([a, b]) = connection.packets {
        let ours = format!("{} {}", halves[0].packets, halves[1].packets);
        aspects.push(("packets", format!("{a} {b}"), ours));
    }
    aspects
}

/// Zeek's `conn_state` of what tcpwhy saw of originator and responder.
fn state_of([originator, responder]: [&tcpwhy::flow::facts::Half; 2]) -> &'static str {
    let silent = originator.packets == 0;
    match (originator.syn_count > 0, responder.syn_count > 0) {
        (true, false) if responder.reset_count > 0 => "REJ",
        (true, false) if originator.reset_count > 0 => "RSTOS0",
        (true, false) if originator.fin_count > 0 => "SH",
        (true, false) => "S0",
        (false, _) if responder.reset_count > 0 => "RSTRH",
        (false, _) if silent && responder.fin_count > 0 => "SHR",
        (false, false) => "OTH",
        (_, true) => match (originator.fin_count > 0, responder.fin_count > 0) {
            (true, true) => "SF",
            _ if originator.reset_count > 0 => "RSTO",
            _ if responder.reset_count > 0 => "RSTR",
            (true, false) => "S2",
            (false, true) => "S3",
            (false, false) => "S1",
        },
    }
}

/// The rows of the document's table of differences: all cells but the reason.
fn explained() -> BTreeSet<String> {
    let text = include_str!("../docs/zeek.md");
    let table = text.split("\n## ").find(|section| section.starts_with("Every difference")).expect("the section");
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let row = |line: &str| {
        let (cells, reason) = line.trim_end_matches(" |").rsplit_once(" | ").expect("cells");
        assert!(reason.len() > 20, "no reason: {line}");
        format!("{cells} |")
    };
    rows.map(row).collect()
}

#[test]
fn connections_are_what_zeek_says_they_are_or_the_document_says_why_not() {
    let Some(shared) = support::shared() else { return };
    let zeek = shared.join("corpora/zeek+zeek");
    let mut flows_by_ends: BTreeMap<BTreeSet<String>, Vec<(String, FlowFacts, Lent)>> = BTreeMap::new();
    for path in support::captures_below(&zeek.join("testing/btest/Traces")) {
        let name = path.strip_prefix(zeek.join("testing/btest/Traces")).expect("below it").display().to_string();
        for (facts, lent) in flows(&path, 7) {
            let ends = BTreeSet::from([text(&facts.client), text(&facts.server)]);
            flows_by_ends.entry(ends).or_default().push((name.clone(), facts, lent));
        }
    }
    let connections = baselines(&zeek);
    let (mut joined, mut several, mut differences) = (0, 0, BTreeSet::new());
    let mut alike: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for (connection, baseline) in &connections {
        let ends = BTreeSet::from([connection.originator.clone(), connection.responder.clone()]);
        // The same ends stand in several traces or, one connection after the other, twice in one: the flow that agrees best is meant.
        let candidates = flows_by_ends.get(&ends).into_iter().flatten();
        let compared = candidates.map(|(trace, facts, lent)| (trace, aspects(connection, facts, lent)));
        let differ = |aspects: &[Aspect]| aspects.iter().filter(|(_, theirs, ours)| theirs != ours).count();
        let Some((trace, aspects)) = compared.min_by_key(|(_, aspects)| differ(aspects)) else {
            differences.insert(format!("| `{baseline}` | {} | flow | one | none |", connection.originator));
            continue;
        };
        joined += 1;
        several += u32::from(flows_by_ends[&ends].len() > 1);
        for (what, theirs, ours) in aspects {
            let count = alike.entry(what).or_default();
            count.1 += 1;
            count.0 += u32::from(theirs == ours);
            if theirs != ours {
                differences.insert(format!("| `{trace}` | {} | {what} | {theirs} | {ours} |", connection.originator));
            }
        }
    }
    println!("{} connections, {joined} joined, {several} chosen among several flows", connections.len());
    alike.iter().for_each(|(what, (same, all))| println!("| {what} | {same} of {all} |"));
    let explained = explained();
    let unexplained: Vec<_> = differences.difference(&explained).collect();
    let gone: Vec<_> = explained.difference(&differences).collect();
    assert!(unexplained.is_empty() && gone.is_empty(), "without a reason: {unexplained:#?}\nno difference: {gone:#?}");
    assert!(joined >= 54, "only {joined} connections were joined");
}
