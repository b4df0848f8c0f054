//! Sequence numbers over time, one panel per direction: what was sent, what was acknowledged, what came again; the proof is ringed.
//!
//! The bars and the line of acknowledgements are those of W. R. Stevens' time-sequence graphs.

use std::collections::BTreeSet;

use serde::Serialize;

use super::svg::{About, Anchor, Svg, step};
use crate::event::Side;
use crate::run::ladder::{Ladder, Point};
use crate::time::Elapsed;

/// Marks of one panel; of more, those at the same place are one, then every n-th is drawn.
const MOST: usize = 400;

const WIDTH: f64 = 1040.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 1020.0;
const HEIGHT: f64 = 190.0;

/// The chart.
#[derive(Serialize)]
pub(super) struct Chart {
    pub svg: String,
    /// Packets that are not in it.
    pub left_out: u64,
}

/// One direction.
struct Panel<'a> {
    title: String,
    points: Vec<&'a Point>,
    /// When the other side acknowledged up to where; each piece is whole.
    acks: Vec<Vec<(i64, u32)>>,
    top: f64,
    end: f64,
}

/// Draws a flow; `None` where no octets were sent.
pub(super) fn draw(id: &str, ladder: &Ladder, cited: &BTreeSet<(u16, u64)>) -> Option<Chart> {
    let span = ladder.points.iter().map(|point| point.after.0).max().unwrap_or(0).max(1);
    let several = ladder.captures.len() > 1;
    let mut panels: Vec<Panel<'_>> =
        [Side::Client, Side::Server].into_iter().filter_map(|side| panel(ladder, side)).collect();
    for (n, panel) in panels.iter_mut().enumerate() {
        panel.top = 34.0 + n as f64 * (HEIGHT + 44.0);
    }
    let bottom = panels.last()?.top + HEIGHT;
    let description = format!(
        "{} packets in {}. Bars are octets sent, the line is what the other side acknowledged.",
        ladder.points.len(),
        Elapsed(span)
    );
    let title = format!("Sequence numbers over time, {} to {}", ladder.flow.client, ladder.flow.server);
    let mut svg = Svg::begin(&About { id, title: &title, description: &description }, "sequence", WIDTH, bottom + 30.0);
    let x = |after: i64| LEFT + (RIGHT - LEFT) * (after as f64 / span as f64).clamp(0.0, 1.0);
    let mut left_out = ladder.left_out;
    for panel in &panels {
        axis(panel, &mut svg);
        left_out += marks(panel, ladder, (cited, several), &x, &mut svg);
    }
    times(span, bottom, &x, &mut svg);
    Some(Chart { svg: svg.finish(), left_out })
}

fn panel(ladder: &Ladder, side: Side) -> Option<Panel<'_>> {
    // A packet of an older connection lies before the first octet; its number looks huge.
    let sane = |seq: u32| seq < 1 << 31 || ladder.flow.octets[side as usize] >= 1 << 31;
    let points: Vec<&Point> = ladder.points.iter().filter(|point| point.side == side && sane(point.seq)).collect();
    if points.iter().all(|point| point.len == 0) {
        return None;
    }
    let end = points.iter().map(|point| f64::from(point.seq) + f64::from(point.len)).fold(1.0, f64::max);
    let mut acks = vec![Vec::new()];
    for (n, point) in ladder.points.iter().enumerate() {
        if ladder.gap_before(n) {
            acks.push(Vec::new());
        }
        let ack = point.ack.filter(|ack| point.side != side && f64::from(*ack) <= end + 1.0);
        if let (Some(ack), Some(piece)) = (ack, acks.last_mut()) {
            piece.push((point.after.0, ack));
        }
    }
    let (ends, title) = ((&ladder.flow.client, &ladder.flow.server), "octets from");
    let from = if side == Side::Client { ends.0 } else { ends.1 };
    Some(Panel { title: format!("{title} {} {from}", side_name(side)), points, acks, top: 0.0, end })
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

impl Panel<'_> {
    fn y(&self, seq: f64) -> f64 {
        self.top + HEIGHT - (HEIGHT - 14.0) * (seq / self.end).clamp(0.0, 1.0)
    }
}

/// The frame, its title and its octets.
fn axis(panel: &Panel<'_>, svg: &mut Svg) {
    svg.text("role", (LEFT, panel.top - 10.0), Anchor::Start, &panel.title);
    let step = step(panel.end, 4.0).max(1.0);
    let mut at = 0.0;
    while at <= panel.end {
        let y = panel.y(at);
        svg.line("grid", (LEFT, y), (RIGHT, y));
        svg.text("muted", (LEFT - 8.0, y + 4.0), Anchor::End, &octets(at));
        at += step;
    }
}

fn octets(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.0} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

/// The times below the last panel.
fn times(span: i64, bottom: f64, x: &impl Fn(i64) -> f64, svg: &mut Svg) {
    let step = step(span as f64, 6.0).max(1.0);
    let mut at = 0.0;
    while at <= span as f64 {
        let place = x(at as i64);
        svg.line("grid", (place, bottom), (place, bottom + 5.0));
        svg.text("muted", (place, bottom + 20.0), Anchor::Middle, &format!("+{}", Elapsed(at as i64)));
        at += step;
    }
}

/// Everything inside a panel; how many packets it has no room for.
fn marks(
    panel: &Panel<'_>,
    ladder: &Ladder,
    (cited, several): (&BTreeSet<(u16, u64)>, bool),
    x: &impl Fn(i64) -> f64,
    svg: &mut Svg,
) -> u64 {
    for piece in &panel.acks {
        let line = stairs(panel, piece, x);
        if line.len() > 1 {
            svg.path("acked", &line, false);
        }
    }
    let mut highest = 0.0f64;
    let mut drawn: BTreeSet<(i64, i64, bool)> = BTreeSet::new();
    let (mut marks, mut left_out) = (0, 0);
    let mut labels: Vec<(f64, f64)> = Vec::new();
    let every = panel.points.len().div_ceil(MOST * 4).max(1);
    for (n, point) in panel.points.iter().enumerate() {
        let (from, to) = (f64::from(point.seq), f64::from(point.seq) + f64::from(point.len));
        let again = point.len > 0 && to <= highest;
        highest = highest.max(to);
        let (place, top, low) = (x(point.after.0), panel.y(to), panel.y(from));
        let ringed = cited.contains(&(point.file, point.packet));
        // Pure acknowledgements are the other panel's line.
        if point.len == 0 && !point.marked && !ringed {
            continue;
        }
        let new = drawn.insert((place as i64, top as i64, again));
        if !ringed && !point.marked && (!new || marks >= MOST || n % every != 0) {
            // At a place where there is one already nothing is lost.
            left_out += u64::from(new);
            continue;
        }
        marks += 1;
        let class = if again { "again" } else { "sent" };
        svg.rect(class, (place - 1.5, top), (3.0, (low - top).max(2.5)));
        if let Some(word) = flags(ladder, point) {
            let anchor = if place < LEFT + 16.0 { Anchor::Start } else { Anchor::Middle };
            svg.text("flag", (place, (top - 5.0).max(panel.top + 8.0)), anchor, word);
        }
        if ringed {
            ring(panel, point, several, (place, (top + low) / 2.0), (&mut labels, svg));
        }
    }
    left_out
}

/// Two corners for each acknowledgement that is higher than those before.
fn stairs(panel: &Panel<'_>, acks: &[(i64, u32)], x: &impl Fn(i64) -> f64) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::new();
    let mut highest = 0;
    for (at, ack) in acks {
        let (place, y) = (x(*at), panel.y(f64::from(*ack)));
        if *ack < highest || line.len() >= MOST * 2 {
            continue;
        }
        highest = *ack;
        if let Some((_, before)) = line.last().copied() {
            line.push((place, before));
        }
        line.push((place, y));
    }
    line
}

/// A ring around a packet of the proof, and its number where no other number is in the way.
fn ring(
    panel: &Panel<'_>,
    point: &Point,
    several: bool,
    at: (f64, f64),
    (labels, svg): (&mut Vec<(f64, f64)>, &mut Svg),
) {
    svg.circle("ring", at, 8.0);
    if labels.iter().any(|(x, y)| (x - at.0).abs() < 64.0 && (y - at.1).abs() < 12.0) {
        return;
    }
    labels.push(at);
    let name = if several { format!("{}#{}", point.file + 1, point.packet) } else { format!("#{}", point.packet) };
    // At the right edge there is room on the left only.
    let (place, anchor) = if at.0 > RIGHT - 70.0 { (at.0 - 12.0, Anchor::End) } else { (at.0 + 12.0, Anchor::Start) };
    svg.text("ringed", (place, (at.1 + 4.0).max(panel.top + 10.0)), anchor, &name);
}

/// Which of the flags it is that is marked, as the ladder says it.
fn flags(ladder: &Ladder, point: &Point) -> Option<&'static str> {
    if !point.marked {
        return None;
    }
    let holds = |rung: &&crate::run::ladder::Rung| {
        rung.file == point.file
            && rung.side == point.side
            && (rung.packet..=rung.until.unwrap_or(rung.packet)).contains(&point.packet)
    };
    let what = ladder.steps.iter().find(holds).map_or("", |rung| rung.what.as_str());
    ["RST", "FIN", "SYN"].into_iter().find(|flag| what.contains(flag))
}
