//! One incident: what broke, the packets that prove it, what it is not, what to do; the rest is folded.

use super::block::{Block, Inline, labelled, plain, sentence, sentences};
use super::{Sizes, ladder};
use crate::catalogue;
use crate::diagnose::format::count;
use crate::diagnose::report::{EvidenceEntry, FixEntry, FlowEntry, Incident, Leg, Report, StepEntry};
use crate::event::Side;
use crate::render::beside::short;
use crate::render::text::{inputs, number, numbered, own_evidence, ruled_out, word};
use crate::rule::finding::{Confidence, Culprit, Severity};
use crate::run::dossier::Dossier;

/// Everything about one incident; `place` is which of how many.
pub(super) fn blocks(dossier: &Dossier, incident: &Incident, place: (usize, usize), sizes: &Sizes) -> Vec<Block> {
    let report = &dossier.report;
    let mut blocks = summary(report, incident, place);
    let (detailed, drawn) = (place.0 <= sizes.detailed, place.0 <= sizes.drawn);
    proof(report, incident, sizes, &mut blocks);
    if drawn && sizes.steps > 0 {
        blocks.extend(drawing(dossier, incident, sizes).into_iter().flatten());
    }
    filters(report, incident, &mut blocks);
    not(incident, sizes, &mut blocks);
    to_do(incident, sizes, &mut blocks);
    if detailed {
        blocks.extend(consequences(incident, sizes));
        blocks.extend(unseen(incident, sizes));
        blocks.extend(connections(report, incident, sizes));
    }
    blocks
}

/// Headline, state, and a paragraph for somebody who has never seen such a report.
fn summary(report: &Report, incident: &Incident, (place, of): (usize, usize)) -> Vec<Block> {
    let which = if of > 1 { format!("{place} of {of}, ") } else { String::new() };
    let head = Block::Head(2, format!("{which}{}: {}", word(incident.severity), incident.headline));
    let scope = Block::Text(vec![Inline::Strong(sentence(&incident.scope_line))]);
    let fault = format!("at fault: {}", culprit(incident));
    let mut text = vec![incident.title.as_str(), &fault, meaning(incident.confidence)];
    text.extend(incident.what_happened.iter().map(String::as_str));
    let mut text = sentences(text);
    if let (Some(good), Some(bad)) = (&incident.scope.last_good, &incident.scope.first_bad) {
        let onset = format!("The last success before it was at {}, the first failure at {}.", short(good), short(bad));
        text.push(Inline::Text(onset));
    }
    let mut blocks = vec![head, scope, Block::Text(text)];
    if let Some(doubt) = report.trust.iter().find(|finding| finding.severity >= Severity::Warning) {
        blocks.push(Block::labelled("Mind the capture:", sentence(&doubt.says)));
    }
    blocks
}

/// Who has to act, in words; why, where the title does not say it.
fn culprit(incident: &Incident) -> String {
    let role = match incident.culprit.role {
        Culprit::Client => "the client",
        Culprit::Server => "the server",
        Culprit::Proxy => "the proxy",
        Culprit::Upstream => "the service behind the proxy or server",
        Culprit::Network => "the network",
        Culprit::Dns => "name resolution (DNS)",
        Culprit::Config => "the configuration",
        Culprit::Capture => "the capture itself",
    };
    let at = incident.culprit.address.as_ref().map(|address| format!(", {address}")).unwrap_or_default();
    let why = Some(&incident.culprit.why).filter(|why| !why.is_empty() && **why != incident.title);
    format!("{role}{at}{}", why.map(|why| format!(" ({why})")).unwrap_or_default())
}

/// What a word for confidence stands for.
fn meaning(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "The packets below prove it.",
        Confidence::High => "Hardly anything else fits the packets below.",
        Confidence::Medium => "It is more likely than not, going by the packets below.",
        Confidence::Low => "It is a possibility, no more.",
    }
}

/// The packets, as a table.
fn proof(report: &Report, incident: &Incident, sizes: &Sizes, blocks: &mut Vec<Block>) {
    if incident.evidence.is_empty() {
        return;
    }
    blocks.push(Block::Head(3, "Proof".to_owned()));
    // Where not all of them are told, those of other flows (what worked before, what others did) are told last.
    let own: Vec<&EvidenceEntry> = own_evidence(report, incident).collect();
    let is_own = |entry: &EvidenceEntry| own.iter().any(|known| std::ptr::eq(*known, entry));
    let others = incident.evidence.iter().filter(|entry| !is_own(entry));
    let first: Vec<&EvidenceEntry> = own.iter().copied().chain(others).take(sizes.packets).collect();
    let told = incident.evidence.iter().filter(|entry| first.iter().any(|known| std::ptr::eq(*known, *entry)));
    let rows = told.map(|entry| {
        vec![
            Inline::Code(numbered(report, entry)),
            Inline::Text(clock(&entry.time)),
            Inline::Text(way(report, incident, entry)),
            Inline::Text(entry.shows.clone()),
        ]
    });
    let mut rows: Vec<Vec<Inline>> = rows.collect();
    let mut heads = vec!["Packet", "Time (UTC)", "From", "What it shows"];
    if rows.iter().all(|row| row[2] == Inline::Text(String::new())) {
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
        heads.remove(2);
    }
    blocks.push(Block::Table { heads, rows });
    left_out(incident.evidence.len() - first.len(), "packet", blocks);
}

/// `04:50:38.692` of a time in RFC 3339.
fn clock(time: &str) -> String {
    let short = short(time);
    short.split_once('T').map_or(short.clone(), |(_, clock)| clock.trim_end_matches('Z').to_owned())
}

/// Who sent it to whom, as far as that is known; of which flow, where it is not the one shown.
fn way(report: &Report, incident: &Incident, entry: &EvidenceEntry) -> String {
    let [between, last] = if ladder::asks(incident) { ["server", "backend"] } else { ["proxy", "server"] };
    let who = match (entry.leg, entry.side) {
        (Some(Leg::Client), Some(Side::Client)) => format!("client to {between}"),
        (Some(Leg::Client), Some(Side::Server)) => format!("{between} to client"),
        (Some(Leg::Backend), Some(Side::Client)) => format!("{between} to {last}"),
        (Some(Leg::Backend), Some(Side::Server)) => format!("{last} to {between}"),
        (_, Some(Side::Client)) => "client".to_owned(),
        (_, Some(Side::Server)) => "server".to_owned(),
        (Some(Leg::Client), None) => "client leg".to_owned(),
        (Some(Leg::Backend), None) => "backend leg".to_owned(),
        (None, None) => String::new(),
    };
    let shown = |flow| entry.leg.is_some() || incident.flows.first() == Some(&flow);
    let flow = entry.flow.filter(|flow| !shown(*flow)).map(|flow| format!("flow {}", flow.name(report.captures.len())));
    [Some(who).filter(|who| !who.is_empty()), flow].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The flow that shows it best, or both legs.
fn drawing(dossier: &Dossier, incident: &Incident, sizes: &Sizes) -> Option<[Block; 2]> {
    let shown = dossier.shows(incident);
    let lines = ladder::draw(&shown, incident, sizes.steps);
    let head = match shown.len() {
        2 => "Both legs of one of these connections, packet by packet",
        _ => "One of these connections, packet by packet",
    };
    let marked = lines.iter().any(|line| line.trim_start().starts_with('*'));
    let legend = if marked { "* marks the proof; " } else { "" };
    let text = format!("{head} ({legend}a flow goes by the number of its first packet):");
    (!lines.is_empty()).then(|| [Block::text(text), Block::Code(lines)])
}

/// Display filters, to be copied.
fn filters(report: &Report, incident: &Incident, blocks: &mut Vec<Block>) {
    for one in incident.display_filters.iter().take(4) {
        let file = report.captures.get(usize::from(one.file)).map_or("", |capture| capture.file.as_str());
        let of = if report.captures.len() > 1 { format!(" in {file}") } else { String::new() };
        blocks.push(Block::text(format!("The same packets{of}, as a display filter for Wireshark:")));
        blocks.push(Block::Code(vec![one.filter.clone()]));
    }
}

/// What it is not, and what might mislead.
fn not(incident: &Incident, sizes: &Sizes, blocks: &mut Vec<Block>) {
    let not = ruled_out(incident);
    if !not.is_empty() {
        blocks.push(Block::Head(3, "What it is not".to_owned()));
        let item = |(whats, because): &(Vec<&str>, &str)| {
            let mut line = vec![Inline::Strong("Not".to_owned())];
            for (n, what) in whats.iter().enumerate() {
                line.push(Inline::Text(if n == 0 { " " } else { ", nor " }.to_owned()));
                match catalogue::rule(what) {
                    Some(rule) => {
                        line.extend([Inline::Code((*what).to_owned()), Inline::Text(format!(" ({})", rule.title))])
                    }
                    None => line.push(Inline::Text((*what).to_owned())),
                }
            }
            line.push(Inline::Text(format!(": {}.", because.trim_end_matches('.'))));
            line
        };
        list(not.iter().map(item).collect(), sizes, blocks);
    }
    for (title, items) in
        [("What is well beside it and may mislead:", &incident.misleads), ("For comparison:", &incident.control)]
    {
        if !items.is_empty() {
            blocks.push(Block::text(title));
            list(items.iter().map(|one| plain(sentence(one))).collect(), sizes, blocks);
        }
    }
}

/// Steps, remedies with their risk, and how to see that it is mended.
fn to_do(incident: &Incident, sizes: &Sizes, blocks: &mut Vec<Block>) {
    blocks.push(Block::Head(3, "What to do".to_owned()));
    if incident.do_first.is_empty() {
        blocks.push(Block::labelled("Do first:", "read the packets above in Wireshark, or with the commands below."));
    }
    in_turn(&incident.do_first[..incident.do_first.len().min(sizes.items)], blocks);
    for FixEntry { says, command, risk } in incident.fix.iter().take(sizes.items) {
        let mut text = labelled("Fix:", sentence(says.trim_end_matches(':')));
        if !risk.is_empty() {
            // The risk is read before the command is pasted.
            text.push(Inline::Text(" ".into()));
            text.extend(labelled("Risk:", sentence(risk)));
        }
        blocks.push(Block::Text(text));
        blocks.extend(Block::command(command));
    }
    for one in incident.verify.iter().take(sizes.items) {
        step("Verify:", one, blocks);
    }
    let all = [incident.do_first.len(), incident.fix.len(), incident.verify.len()];
    left_out(all.iter().map(|n| n.saturating_sub(sizes.items)).sum(), "step", blocks);
}

/// What is done first, and what then.
pub(super) fn in_turn(steps: &[StepEntry], blocks: &mut Vec<Block>) {
    for (n, one) in steps.iter().enumerate() {
        step(if n == 0 { "Do first:" } else { "Then:" }, one, blocks);
    }
}

/// What is asked or done, and the command for it.
pub(super) fn step(label: &str, step: &StepEntry, blocks: &mut Vec<Block>) {
    blocks.push(Block::labelled(label, sentence(&step.says)));
    blocks.extend(Block::command(&step.command));
}

/// At most as many items as there is room for.
fn list(items: Vec<Vec<Inline>>, sizes: &Sizes, blocks: &mut Vec<Block>) {
    let more = items.len().saturating_sub(sizes.items);
    let items: Vec<_> = items.into_iter().take(sizes.items).collect();
    if !items.is_empty() {
        blocks.push(Block::Bullets(items));
    }
    left_out(more, "item", blocks);
}

/// Says that something is not told here, and where it is.
pub(super) fn left_out(n: usize, what: &str, blocks: &mut Vec<Block>) {
    if n > 0 {
        blocks.push(Block::text(format!("… {} in the attached report.", count(n as u64, &format!("more {what}")))));
    }
}

fn consequences(incident: &Incident, sizes: &Sizes) -> Option<Block> {
    let mut blocks = Vec::new();
    let titled = |title: &str, items: &[String], blocks: &mut Vec<Block>| {
        if !items.is_empty() {
            blocks.push(Block::text(title));
            list(items.iter().map(|one| plain(sentence(one))).collect(), sizes, blocks);
        }
    };
    if !incident.users_see.is_empty() {
        blocks.push(Block::text("Words on screens and in logs that go with it:"));
        list(incident.users_see.iter().map(|one| vec![Inline::Code(one.clone())]).collect(), sizes, &mut blocks);
    }
    titled("What follows from it:", &incident.consequences, &mut blocks);
    titled("What may lie behind it:", &incident.possible_deeper_causes, &mut blocks);
    fold("What users see, and what follows from it", blocks)
}

fn unseen(incident: &Incident, sizes: &Sizes) -> Option<Block> {
    let mut blocks = Vec::new();
    list(incident.cannot_show.iter().map(|one| plain(sentence(one))).collect(), sizes, &mut blocks);
    for next in incident.capture_next.iter().take(sizes.items) {
        step("Capture next:", &StepEntry { says: next.says.clone(), command: next.command.clone() }, &mut blocks);
    }
    let title = if incident.capture_next.is_empty() {
        "What this capture cannot show"
    } else {
        "What this capture cannot show, and what to capture next"
    };
    fold(title, blocks)
}

/// The flows it is about.
fn connections(report: &Report, incident: &Incident, sizes: &Sizes) -> Option<Block> {
    let named = incident.flows.iter().filter_map(|flow| report.flows.iter().find(|entry| entry.key() == *flow));
    let named: Vec<&FlowEntry> = named.collect();
    let row = |flow: &&FlowEntry| {
        vec![
            Inline::Code(number(report, flow.key())),
            Inline::Text(format!("{} to {}", flow.client, flow.server)),
            Inline::Text(flow.explanation.clone()),
        ]
    };
    let mut blocks = Vec::new();
    let rows: Vec<_> = named.iter().take(sizes.items).map(row).collect();
    if !rows.is_empty() {
        blocks.push(Block::Table { heads: vec!["First packet", "From, to", "What happened on it"], rows });
    }
    blocks.push(Block::text("More about this diagnosis, and the first of these flows in full:"));
    let mut commands = vec![format!("tcpwhy explain {}", incident.rule)];
    let inputs = inputs(report).unwrap_or_else(|| "FILE".to_owned());
    commands.extend(
        incident.flows.first().map(|flow| format!("tcpwhy flow {} {inputs}", flow.name(report.captures.len()))),
    );
    blocks.extend(commands.iter().filter_map(|command| Block::command(command)));
    let title = match (named.len() as u64, incident.scope.flows) {
        (0, _) => "Where to read on".to_owned(),
        (told, all) if told < all => format!("{told} of the {all} connections"),
        (told, _) => format!("The {}", count(told, "connection")),
    };
    fold(&title, blocks)
}

fn fold(title: &str, blocks: Vec<Block>) -> Option<Block> {
    (!blocks.is_empty()).then(|| Block::Fold { title: title.to_owned(), blocks })
}
