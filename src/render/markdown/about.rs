//! What stands around the incidents: the overview of several, that nothing is broken, what was read, how to make the report again.

use std::collections::BTreeMap;

use super::Sizes;
use super::block::{Block, Inline, labelled, plain, sentence, sentences};
use super::incident::{in_turn, left_out, step};
use crate::diagnose::format::count;
use crate::diagnose::report::{Capture, FlowEntry, Incident, Report};
use crate::render::beside::{
    Quiet, Waits, doubts, entry_line, every_flow, generic, input, notices, quiet, sums, waits,
};
use crate::render::text::{first_of_each, flow_number, inputs, several, word};
use crate::rule::summary::Verdict;
use crate::run::dossier::Dossier;

/// Several causes: a table, and where to begin.
pub(super) fn overview(report: &Report, told: usize, sizes: &Sizes) -> Vec<Block> {
    let worst = report.incidents.iter().map(|incident| incident.severity).max();
    let text = several(report.incidents.len());
    let head = format!("{}: {}", worst.map_or("", word), text.trim_end_matches('.'));
    let mut blocks = vec![Block::Head(2, head)];
    let row = |(n, incident): (usize, &Incident)| {
        vec![
            Inline::Text(n.to_string()),
            Inline::Text(word(incident.severity).to_owned()),
            Inline::Text(incident.headline.clone()),
            Inline::Text(sentence(&incident.scope_line)),
        ]
    };
    let rows: Vec<_> = (1..).zip(&report.incidents).take(told + sizes.listed).map(row).collect();
    let more = report.incidents.len() - rows.len();
    blocks.push(Block::Table { heads: vec!["No.", "How bad", "What broke", "How many, since when, and now"], rows });
    left_out(more, "cause", &mut blocks);
    if report.incidents.len() > told {
        blocks
            .push(Block::text(format!("The first {told} are told below; the others are less urgent or less certain.")));
    }
    let steps = first_of_each(&report.incidents[..told]);
    for (place, (n, state, step)) in steps.iter().enumerate() {
        let label = if place == 0 { "Do first:" } else { "Then:" };
        blocks.push(Block::labelled(label, format!("cause {n}{state}: {}", sentence(&step.says))));
        blocks.extend(Block::command(&step.command));
    }
    blocks
}

/// No incident.
pub(super) fn nothing_broken(report: &Report) -> Vec<Block> {
    let (head, steps) = match quiet(report) {
        Quiet::Waiting(finding) => {
            let Waits { first, verify, fix } = waits(finding);
            let mut blocks = vec![Block::Head(2, format!("{}: {}", word(finding.severity), finding.says))];
            for (label, one) in [("Do first:", first), ("Verify:", verify), ("Fix:", fix)] {
                step(label, &one, &mut blocks);
            }
            blocks.extend(finding.notes.iter().map(|note| Block::text(sentence(note))));
            return blocks;
        }
        Quiet::Nothing(finding, steps) => (format!("{}: {}", word(finding.severity), finding.says), steps),
        Quiet::Said { label, says, steps, .. } => (format!("{label}: {}", says.replace(": see TRUST", "")), steps),
    };
    let mut blocks = vec![Block::Head(2, head)];
    in_turn(&steps, &mut blocks);
    if report.trust.is_empty() && report.not_judged.is_empty() && report.counts.flows.total > 0 {
        blocks.push(Block::text(
            "Every flow could be judged, and nothing about the capture limits that. What the capture does not hold (other hosts, \
             other times, what programs do inside) it cannot speak for.",
        ));
    }
    if let Some(command) = every_flow(report) {
        blocks.push(Block::text("Every flow with a sentence about it:"));
        blocks.extend(Block::command(&command));
    }
    blocks
}

/// How far to trust it, what else was noticed, what was read, and how to make the report again.
pub(super) fn about(dossier: &Dossier, sizes: &Sizes) -> Vec<Block> {
    let report = &dossier.report;
    let mut blocks = Vec::new();
    let limits = doubts(report).map(|finding| plain(sentence(&entry_line(report, finding))));
    let undecided = report.not_judged.iter().map(|line| labelled("Not judged:", sentence(line)));
    section("How far to trust it", limits.chain(undecided).collect(), sizes, &mut blocks);
    let noticed = notices(report).into_iter().map(|finding| plain(sentence(&entry_line(report, finding))));
    section("Also noticed", noticed.collect(), sizes, &mut blocks);
    blocks.extend(unhealthy(report, sizes));
    blocks.push(Block::Head(2, "How to reproduce".to_owned()));
    let several = report.captures.len() > 1;
    let item = |(n, capture)| what_was_read(capture, several.then_some(n));
    let items: Vec<_> = (1..).zip(&report.captures).map(item).collect();
    bullets(items, "input", sizes, &mut blocks);
    if let Some([packets, flows]) = sums(report) {
        blocks.push(Block::Text(sentences([packets.as_str(), &flows])));
    }
    blocks.extend(Block::command(&dossier.command));
    let made = format!("Made by {} {} from these packets alone.", report.tool.name, report.tool.version);
    // Whoever made a bundle has the rest beside this text; a redacted report does not lead to what was redacted.
    let bundled = dossier.command.starts_with("tcpwhy report ");
    let alone = dossier.command.contains(" --format");
    let attach = match bundled {
        true => "The page (report.html), the data (report.json) and the packets of the proof come beside this text.",
        false if alone => "Page, data and packets of the proof, to attach:",
        false => "",
    };
    blocks.push(Block::Text(sentences([made.as_str(), attach])));
    if alone && !bundled {
        let files = inputs(report).unwrap_or_else(|| "FILE".to_owned());
        blocks.extend(Block::command(&format!("tcpwhy report {files} -o ticket.zip")));
    }
    blocks
}

/// Name, size and hash, and what is in it; of several which.
fn what_was_read(capture: &Capture, number: Option<usize>) -> Vec<Inline> {
    let number = number.map(|n| format!("{n}: ")).unwrap_or_default();
    let mut line = vec![Inline::Text(number), Inline::Strong(capture.file.clone())];
    line.push(Inline::Text(format!(": {}", input(capture))));
    if let Some(octets) = capture.stored {
        line.push(Inline::Text(format!("; {octets} octets")));
    }
    if let Some(hash) = &capture.sha256 {
        line.extend([Inline::Text(", SHA-256 ".into()), Inline::Code(hash.clone())]);
    }
    line
}

/// Flows that are not healthy, folded.
fn unhealthy(report: &Report, sizes: &Sizes) -> Option<Block> {
    let all = report.counts.flows.total == report.flows.len() as u64;
    let told: Vec<&FlowEntry> = report.flows.iter().filter(|flow| all || flow.verdict != Verdict::Healthy).collect();
    let row = |flow: &&FlowEntry| {
        vec![
            Inline::Code(flow_number(report, flow)),
            Inline::Text(format!("{} to {}", flow.client, flow.server)),
            Inline::Text(format!("{:?}", flow.verdict).to_lowercase()),
            Inline::Text(flow.explanation.clone()),
        ]
    };
    // The same words for the tenth flow say nothing new.
    let mut alike: BTreeMap<String, usize> = BTreeMap::new();
    let fresh = |flow: &&&FlowEntry| {
        let seen = alike.entry(generic(&flow.explanation)).or_default();
        *seen += 1;
        all || *seen <= 2
    };
    let rows: Vec<_> = told.iter().filter(fresh).take(sizes.flows).map(row).collect();
    if rows.is_empty() {
        return None;
    }
    let counts = &report.counts.flows;
    let whole = if all { counts.total } else { counts.failed + counts.degraded + counts.undecided };
    let more = usize::try_from(whole).unwrap_or(usize::MAX).saturating_sub(rows.len());
    let mut blocks =
        vec![Block::Table { heads: vec!["First packet", "From, to", "State", "What happened on it"], rows }];
    left_out(more, "flow", &mut blocks);
    let kind = if all { "" } else { " that are not healthy" };
    Some(Block::Fold { title: format!("{}{kind}", count(whole, "flow")), blocks })
}

fn section(title: &str, items: Vec<Vec<Inline>>, sizes: &Sizes, blocks: &mut Vec<Block>) {
    if !items.is_empty() {
        blocks.push(Block::Head(2, title.to_owned()));
        bullets(items, "item", sizes, blocks);
    }
}

fn bullets(items: Vec<Vec<Inline>>, what: &str, sizes: &Sizes, blocks: &mut Vec<Block>) {
    let more = items.len().saturating_sub(sizes.items);
    blocks.push(Block::Bullets(items.into_iter().take(sizes.items).collect()));
    left_out(more, what, blocks);
}
