//! Flows against tshark: the same streams, flags, octets, and the same answer to "was anything sent again or out of order".
//!
//! The oracle is `shared/corpora/tshark_streams.tsv` in a directory above this package; without it the test says so and passes. Presence
//! is compared, not kinds: tshark calls a retransmission within the handshake's round trip out-of-order, and copies that the capture made
//! retransmissions. Every difference is printed with what both sides counted.

#[path = "support/flows.rs"]
mod flows;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flows::{Lent, flows, text};
use tcpwhy::event::Side;
use tcpwhy::flow::facts::FlowFacts;

/// The corpora folder above this package.
fn corpora() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|dir| dir.join("shared/corpora")).find(|dir| dir.is_dir())
}

type Row = BTreeMap<String, String>;

fn number(row: &Row, field: &str) -> u64 {
    row.get(field).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn rows(corpora: &Path) -> BTreeMap<String, Vec<Row>> {
    let text = std::fs::read_to_string(corpora.join("tshark_streams.tsv")).expect("the list of streams is readable");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let mut files: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for line in lines {
        let row: Row = names.iter().map(|name| name.to_string()).zip(line.split('\t').map(String::from)).collect();
        // Two long captures of a port scanner and a torrent client would outweigh the other 742.
        if row["file"].contains("week1_baseline") || row["file"].contains("week3_telnet_bittorrent") {
            continue;
        }
        files.entry(row["file"].clone()).or_default().push(row);
    }
    files
}

/// What tshark and tcpwhy say of one stream, side by side.
struct Compared {
    name: String,
    flags: [(u64, u64); 4],
    octets: [(u64, u64); 2],
    resent: (bool, bool),
    about: String,
}

fn compare(row: &Row, facts: &FlowFacts) -> Compared {
    let a = format!("{}:{}", row["a_ip"], row["a_port"]);
    let first = if text(&facts.client) == a { Side::Client } else { Side::Server };
    let (ab, ba) = (facts.half(first), facts.half(first.other()));
    let halves = [ab, ba];
    let syns: u64 = halves.iter().map(|half| u64::from(half.syn_count)).sum();
    let fins: u64 = halves.iter().map(|half| u64::from(half.fin_count)).sum();
    let resets: u64 = halves.iter().map(|half| u64::from(half.reset_count)).sum();
    let flagged = ["retransmission", "fast_retransmission", "spurious_retransmission", "out_of_order"];
    let theirs = flagged.iter().any(|field| number(row, field) > 0);
    let ours =
        halves.iter().any(|half| half.loss.total() + half.reordered > 0 || half.syn_count > 1 || half.fin_count > 1);
    let about = flagged
        .iter()
        .chain(&["keep_alive", "lost_segment", "ack_lost_segment"])
        .map(|field| format!("{field}={}", number(row, field)))
        .chain(halves.iter().map(|half| {
            format!(
                "[{:?} reordered={} syns={} fins={} keepalives={} unseen={}]",
                (half.loss.timeout, half.loss.fast, half.loss.tail_probe, half.loss.spurious),
                half.reordered,
                half.syn_count,
                half.fin_count,
                half.keepalives,
                half.unseen
            )
        }))
        .chain([format!("duplicates={}", facts.duplicates)])
        .collect::<Vec<_>>()
        .join(" ");
    Compared {
        name: format!("{} #{} {a}", row["file"], row["stream"]),
        flags: [
            (number(row, "syn") + number(row, "synack"), syns),
            (number(row, "fin"), fins),
            (number(row, "rst"), resets),
            (number(row, "pkts_ab") + number(row, "pkts_ba"), ab.packets + ba.packets),
        ],
        octets: [(number(row, "bytes_ab"), ab.payload_sent), (number(row, "bytes_ba"), ba.payload_sent)],
        resent: (theirs, ours),
        about,
    }
}

/// Pairs streams and flows of one file: same ends, in order.
fn pair<'a>(rows: &'a [Row], flows: &'a [(FlowFacts, Lent)]) -> Vec<(&'a Row, Option<&'a FlowFacts>)> {
    let mut left: Vec<&FlowFacts> = flows.iter().map(|(facts, _)| facts).collect();
    rows.iter()
        .map(|row| {
            let (a, b) = (format!("{}:{}", row["a_ip"], row["a_port"]), format!("{}:{}", row["b_ip"], row["b_port"]));
            let index = left.iter().position(|facts| {
                let (client, server) = (text(&facts.client), text(&facts.server));
                (client == a && server == b) || (client == b && server == a)
            });
            (row, index.map(|index| left.remove(index)))
        })
        .collect()
}

#[test]
fn flows_agree_with_tshark_on_public_captures() {
    let Some(corpora) = corpora() else {
        // Past the harness, which hides what passing tests print.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"skipped, the comparison with tshark: no shared/corpora in a directory above\n",
        );
        return;
    };
    let (mut streams, mut found, mut flags, mut octets, mut resent, mut flagged, mut flagged_too) =
        (0, 0, 0, 0, 0, 0, 0);
    let (mut files, mut same_count) = (0, 0);
    for (file, rows) in rows(&corpora) {
        let path = corpora.join(&file);
        let flows = flows(&path, 7);
        files += 1;
        if flows.len() == rows.len() {
            same_count += 1;
        } else {
            println!("STREAMS {file}: tshark {} tcpwhy {}", rows.len(), flows.len());
        }
        for (row, facts) in pair(&rows, &flows) {
            streams += 1;
            let Some(facts) = facts else {
                println!("MISSING {file} #{} {}:{}", row["stream"], row["a_ip"], row["a_port"]);
                continue;
            };
            found += 1;
            let compared = compare(row, facts);
            let Compared { name, about, .. } = &compared;
            if compared.flags.iter().all(|(theirs, ours)| theirs == ours) {
                flags += 1;
            } else {
                println!("FLAGS (syn fin rst packets) {name}: {:?} {about}", compared.flags);
            }
            if compared.octets.iter().all(|(theirs, ours)| theirs == ours) {
                octets += 1;
            } else {
                println!("OCTETS {name}: {:?} {about}", compared.octets);
            }
            flagged += u32::from(compared.resent.0);
            flagged_too += u32::from(compared.resent.0 && compared.resent.1);
            if compared.resent.0 == compared.resent.1 {
                resent += 1;
            } else {
                println!("RESENT tshark {} tcpwhy {} {name}: {about}", compared.resent.0, compared.resent.1);
            }
        }
    }
    let share = |part: u32, whole: u32| 100.0 * f64::from(part) / f64::from(whole.max(1));
    println!("files {files}, same number of streams {same_count} ({:.2} %)", share(same_count, files));
    println!("streams {streams}, found {found} ({:.2} %)", share(found, streams));
    println!("flags {flags} ({:.2} %), octets {octets} ({:.2} %)", share(flags, streams), share(octets, streams));
    println!("sent again or out of order: alike {resent} ({:.2} %)", share(resent, streams));
    println!("of {flagged} that tshark flags: {flagged_too} ({:.2} %)", share(flagged_too, flagged));
    for part in [found, flags, octets, resent] {
        assert!(share(part, streams) >= 99.0, "{part} of {streams} streams agree");
    }
    assert!(share(flagged_too, flagged) >= 90.0, "{flagged_too} of {flagged} flagged streams agree");
}
