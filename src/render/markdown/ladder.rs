//! A flow, or both legs of a proxied connection, drawn in at most 100 columns for a block of code.

use std::collections::BTreeSet;

use super::block::WIDTH;
use crate::diagnose::report::{FlowEntry, FlowRef, Incident};
use crate::event::Side;
use crate::render::layout::{clean, filled, shortened, wrap};
use crate::rule::view::LinkMethod;
use crate::run::ladder::{Ladder, Rung};
use crate::time::Elapsed;

/// Columns before the first lifeline: a mark, the packet's number, the time.
const MARGIN: usize = 26;
/// Columns between two lifelines: of one flow, of two legs beside each other.
const ALONE: usize = 60;
const BESIDE: usize = 35;
/// One packet, or several alike, between two lifelines.
struct Step<'l> {
    /// Nanoseconds since 1970.
    at: i128,
    lane: usize,
    rung: &'l Rung,
    cited: bool,
}

/// The flow, or the legs, that show an incident; of each drawing at most `most` steps. One drawing where the legs share a clock.
pub(super) fn draw(ladders: &[&Ladder], incident: &Incident, most: usize) -> Vec<String> {
    let beside = match ladders {
        [client, backend] => {
            client.flow.file == backend.flow.file && [client, backend].iter().all(|l| start(l).is_some())
        }
        _ => false,
    };
    if beside {
        return drawing(ladders, incident, most);
    }
    let mut lines = Vec::new();
    for ladder in ladders {
        if !lines.is_empty() {
            lines.push(String::new());
        }
        lines.extend(drawing(&[*ladder], incident, most / ladders.len()));
    }
    lines
}

fn drawing(ladders: &[&Ladder], incident: &Incident, most: usize) -> Vec<String> {
    let steps = steps(ladders, incident);
    let Some(first) = steps.first().map(|step| step.at) else { return Vec::new() };
    let shown = chosen(&steps, most);
    let roles = roles(ladders, incident);
    let gap = if ladders.len() > 1 { BESIDE } else { ALONE };
    let mut lines: Vec<String> = ladders.iter().flat_map(|ladder| ends(ladder, incident)).collect();
    lines.push(String::new());
    lines.push(heads(&roles, gap));
    let mut passed = 0;
    for (n, step) in steps.iter().enumerate() {
        if !shown.contains(&n) {
            passed += step.rung.count;
            continue;
        }
        lines.extend(more(std::mem::take(&mut passed), "more"));
        lines.extend(drawn(step, first, gap, ladders));
    }
    lines.extend(more(passed, "more"));
    let never = ladders.iter().map(|ladder| ladder.left_out).sum();
    lines.extend(more(never, "of the middle of a long flow"));
    lines
}

/// How many packets are not drawn here.
fn more(packets: u64, which: &str) -> Option<String> {
    (packets > 0).then(|| format!("{:>13} {packets} {which}", "..."))
}

fn start(ladder: &Ladder) -> Option<i128> {
    ladder.flow.start.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond)
}

/// The packets of all of them in the order of time.
fn steps<'l>(ladders: &[&'l Ladder], incident: &Incident) -> Vec<Step<'l>> {
    let mut steps = Vec::new();
    for (lane, ladder) in ladders.iter().enumerate() {
        let (start, key) = (start(ladder).unwrap_or(0), ladder.flow.key());
        let own = incident.evidence.iter().filter(|one| one.flow.is_none_or(|flow| flow == key));
        let cited: BTreeSet<(u16, u64)> = own.map(|one| (one.file, one.packet)).collect();
        let proves = |rung: &Rung| {
            let last = (rung.file, rung.until.unwrap_or(rung.packet));
            cited.range((rung.file, rung.packet)..=last).next().is_some()
        };
        let step = |rung: &'l Rung| Step { at: start + i128::from(rung.after.0), lane, rung, cited: proves(rung) };
        steps.extend(ladder.steps.iter().map(step));
    }
    steps.sort_by_key(|step| (step.at, step.rung.file, step.rung.packet));
    steps
}

/// Which steps are drawn: the proof in any case, then how it began and ended, then what means something near the proof.
fn chosen(steps: &[Step<'_>], most: usize) -> BTreeSet<usize> {
    let cited: Vec<usize> = (0..steps.len()).filter(|n| steps[*n].cited).collect();
    let rank = |n: usize| {
        let step = &steps[n];
        if step.cited {
            return 0;
        }
        let near = cited.iter().map(|other| other.abs_diff(n)).min().unwrap_or(n);
        let edge = n < 3 || n + 1 == steps.len();
        if edge { 1 } else { near + if step.rung.means.is_empty() { 6 } else { 1 } }
    };
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|n| (rank(*n), *n));
    order.into_iter().take(most.max(cited.len())).collect()
}

fn roles(ladders: &[&Ladder], incident: &Incident) -> Vec<&'static str> {
    match asks(incident) {
        _ if ladders.len() < 2 => vec!["client", "server"],
        // A request that made the server ask somebody else need not have passed a proxy.
        true => vec!["client", "server", "backend"],
        false => vec!["client", "proxy", "server"],
    }
}

/// Whether the legs belong together only because one asks another.
pub(super) fn asks(incident: &Incident) -> bool {
    incident.links.first().is_some_and(|link| link.methods == [LinkMethod::FanOut])
}

/// Who talks to whom, in lines that fit.
fn ends(ladder: &Ladder, incident: &Incident) -> Vec<String> {
    let FlowEntry { client, server, .. } = &ladder.flow;
    let key = ladder.flow.key();
    let leg = match incident.links.iter().find(|link| link.client_leg == key || link.backend_leg == key) {
        Some(link) if link.client_leg == key => "client leg, ",
        Some(_) => "backend leg, ",
        None => "",
    };
    let text = format!("{leg}flow {}: {} to {}", key.name(ladder.captures.len()), clean(client), clean(server));
    filled(text.split(' '), |_| WIDTH)
}

fn heads(roles: &[&str], gap: usize) -> String {
    let mut line = format!("  {:>11} {:>10}  ", "packet", "time");
    for (n, role) in roles.iter().enumerate() {
        // The last one ends at its lifeline.
        let before =
            (MARGIN + n * (gap + 1)).saturating_sub(line.len() + if n + 1 == roles.len() { role.len() - 1 } else { 0 });
        line.extend([" ".repeat(before).as_str(), role]);
    }
    line
}

/// A step and what it means.
fn drawn(step: &Step<'_>, first: i128, gap: usize, ladders: &[&Ladder]) -> Vec<String> {
    let Step { rung, lane, .. } = step;
    let lanes = ladders.len();
    let files = ladders[*lane].captures.len();
    let name = |id: u64| {
        let name = FlowRef { file: rung.file, id }.name(files);
        if files > 1 { name } else { format!("#{name}") }
    };
    let number = rung.until.map_or(name(rung.packet), |until| format!("{}-{until}", name(rung.packet)));
    let after = Elapsed(i64::try_from(step.at - first).unwrap_or(i64::MAX));
    let mark = if step.cited { "* " } else { "" };
    let margin = format!("{:>13} {:>10}  ", format!("{mark}{number}"), format!("+{after}"));
    let mut lines = vec![format!("{margin:<MARGIN$}{}", lifelines(&arrow(rung, gap), *lane, lanes, gap))];
    for means in rung.means.iter().filter(|means| **means != rung.what).take(2) {
        for line in shortened(wrap(&clean(means), gap - 4), 2) {
            let empty = " ".repeat(MARGIN);
            lines.push(format!("{empty}{}", lifelines(&format!("   {line}"), *lane, lanes, gap)));
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
}

/// All lifelines, with something between two of them.
fn lifelines(between: &str, lane: usize, lanes: usize, gap: usize) -> String {
    let mut line = String::from("|");
    for n in 0..lanes {
        let text = if n == lane { between } else { "" };
        line.push_str(&format!("{text:<gap$}|"));
    }
    line
}

/// `-- SYN ---->`, as wide as the gap.
fn arrow(rung: &Rung, gap: usize) -> String {
    let times = if rung.count > 1 { format!(" ({} packets)", rung.count) } else { String::new() };
    let what = if rung.what.is_empty() { "packet".to_owned() } else { clean(&rung.what) };
    let room = gap.saturating_sub(8 + times.len());
    let what: String = if what.chars().count() > room {
        what.chars().take(room.saturating_sub(1)).chain(['…']).collect()
    } else {
        what
    };
    let text = format!("-- {what}{times} ");
    let width = gap - 1;
    match rung.side {
        Side::Client => format!("{text:-<width$}>"),
        Side::Server => format!("<{text:-<width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::dossier::tests::dossier;

    #[test]
    fn both_legs_stand_beside_each_other_with_the_proof_marked() {
        let dossier = dossier("gitlab/both-legs.pcap");
        let incident = &dossier.report.incidents[0];
        let lines = draw(&dossier.shows(incident), incident, 30);
        assert!(lines[0].starts_with("client leg, flow 419: "), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("client") && line.contains("proxy") && line.ends_with("server")));
        for packet in [422, 427, 429, 431, 432] {
            let proof = lines.iter().any(|line| line.trim_start().starts_with(&format!("* #{packet} ")));
            assert!(proof, "{packet}: {lines:#?}");
        }
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
    }

    #[test]
    fn what_is_not_drawn_is_counted() {
        let dossier = dossier("gitlab/both-legs.pcap");
        let incident = &dossier.report.incidents[0];
        let (few, all) = (draw(&dossier.shows(incident), incident, 8), draw(&dossier.shows(incident), incident, 99));
        let number = |line: &&String| line.trim_start_matches(['*', ' ']).starts_with('#');
        let passed: usize = few
            .iter()
            .filter_map(|line| line.trim().strip_prefix("... ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        assert_eq!(few.iter().filter(number).count(), 8, "{few:#?}");
        assert_eq!(passed + 8, 18, "{few:#?}");
        assert_eq!(all.iter().filter(number).count(), 18, "{all:#?}");
    }
}
