//! A flow as a ladder: client on the left, server on the right, repeats collapsed.

use super::layout::{Page, Style, Tone, clean};
use crate::diagnose::report::FlowRef;
use crate::event::Side;
use crate::run::ladder::Ladder;

/// Rungs shown without `-v`: the beginning and the end of a long flow.
const SHOWN: usize = 60;

/// `#14`; of several inputs the second's `2#14`.
fn packet(at: FlowRef, ladder: &Ladder) -> String {
    let name = at.name(ladder.captures.len());
    if ladder.captures.len() > 1 { name } else { format!("#{name}") }
}

/// The ladder for a terminal.
pub fn text(ladder: &Ladder, style: Style) -> String {
    let mut page = Page::new(style);
    let flow = &ladder.flow;
    let head = format!("{} {} -> {}", packet(flow.key(), ladder), flow.client, flow.server);
    page.labelled("FLOW", &head, Tone::Plain, 2);
    page.labelled("", &flow.explanation, Tone::Plain, 6);
    for incident in &ladder.incidents {
        page.labelled("INCIDENT", incident, Tone::Bad, 3);
    }
    for link in &ladder.links {
        page.labelled("LEGS", link, Tone::Plain, 2);
    }
    for finding in &ladder.findings {
        let text = format!("{} ({})", finding.says, finding.rule);
        page.labelled("FINDING", &text, Tone::Plain, 3);
    }
    page.blank();
    page.line(&format!("{:>9} {:>9}  client                                    server", "packet", "time"));
    let steps = &ladder.steps;
    let (head, tail) = match steps.len() {
        n if style.verbose || n <= SHOWN => (n, n),
        n => (SHOWN * 2 / 3, n - SHOWN / 3),
    };
    for (i, rung) in steps.iter().enumerate() {
        if i >= head && i < tail {
            if i == head {
                page.line(&format!("{:>9} {} more steps (-v shows them)", "...", tail - head));
            }
            continue;
        }
        let first = packet(FlowRef { file: rung.file, id: rung.packet }, ladder);
        let number = rung.until.map_or(first.clone(), |until| format!("{first}-{until}"));
        let times = if rung.count > 1 { format!(" ({} packets)", rung.count) } else { String::new() };
        let arrow = match rung.side {
            Side::Client => format!("{}{times} ->", rung.what),
            Side::Server => format!("{:>40} <- {}{times}", "", rung.what),
        };
        page.line(&format!("{number:>9} {:>9}  {arrow}", format!("+{}", rung.after)));
        for means in &rung.means {
            let indent = if rung.side == Side::Client { 23 } else { 66 - 20 };
            page.line(&format!("{:indent$}{}", "", clean(means)));
        }
    }
    page.blank();
    page.labelled(
        "TOTAL",
        &format!(
            "{} packets, {} octets from the client, {} from the server; {}; {}",
            flow.packets, flow.octets[0], flow.octets[1], flow.close, flow.community_id
        ),
        Tone::Plain,
        2,
    );
    page.finish()
}
