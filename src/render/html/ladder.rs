//! A flow as a drawing: a lifeline for each end, an arrow for each packet, the proof marked. Two linked legs are one drawing, side by side, on
//! one clock, with the proxy that joins them between.

use std::collections::BTreeSet;

use serde::Serialize;

use super::moment::Clocks;
use super::svg::{About, Anchor, Svg, wrapped};
use crate::diagnose::format;
use crate::diagnose::report::{FlowRef, LinkEntry};
use crate::event::Side;
use crate::rule::view::LinkMethod;
use crate::run::ladder::{Ladder, Rung};
use crate::time::Elapsed;

/// Steps of one drawing. The proof comes first, then what means something, then the beginning and the end.
const MOST: usize = 44;
/// A silence that is drawn: shorter ones are seen from the times.
const SILENCE: i64 = 200_000_000;

/// What is drawn.
pub(super) struct Stage<'a> {
    /// Unique in the page.
    pub id: &'a str,
    /// One flow, or the client leg and the backend leg.
    pub legs: &'a [&'a Ladder],
    /// What joins them.
    pub link: Option<&'a LinkEntry>,
    /// Packets of the proof: input and number.
    pub cited: &'a BTreeSet<(u16, u64)>,
    pub clocks: &'a Clocks,
    /// When the capture ends, by input, on the common clock.
    pub ends: &'a [i64],
}

/// The drawing, and the same as rows of a table.
#[derive(Serialize)]
pub(super) struct Drawing {
    pub svg: String,
    pub rows: Vec<Row>,
    /// Packets that are in neither.
    pub left_out: u64,
    /// One, or two side by side.
    pub legs: usize,
}

impl Drawing {
    /// Octets that it takes in the page, about.
    pub fn octets(&self) -> usize {
        let words = |row: &Row| row.what.len() + row.means.iter().map(String::len).sum::<usize>();
        self.svg.len() + 1000 + self.rows.iter().map(|row| 400 + words(row)).sum::<usize>()
    }
}

/// One step in words.
#[derive(Serialize)]
pub(super) struct Row {
    pub packet: String,
    pub count: u64,
    pub filter: String,
    pub after: String,
    pub from: &'static str,
    pub to: &'static str,
    pub what: String,
    pub means: Vec<String>,
    pub cited: bool,
}

/// Where one leg stands.
struct Lane {
    left: f64,
    right: f64,
    /// Who asks, who is asked.
    who: [&'static str; 2],
}

/// One step of one of the legs.
struct Step<'a> {
    rung: &'a Rung,
    leg: usize,
    /// Nanoseconds on the common clock; of several packets the first, the last.
    at: i64,
    until: i64,
    cited: bool,
    /// Packets of its leg right before it that are not drawn.
    skipped: u64,
    /// And more that are not even known one by one.
    gap: bool,
}

/// Measures of a drawing.
struct Plan {
    width: f64,
    lanes: Vec<Lane>,
    /// Characters between two lifelines.
    room: usize,
    /// Where the heads end.
    head: f64,
}

impl Plan {
    fn of(stage: &Stage<'_>) -> Self {
        let asked = stage.link.is_some_and(|link| link.methods == [LinkMethod::FanOut]);
        if stage.legs.len() > 1 {
            let [middle, end] = if asked { ["server", "asked in turn"] } else { ["proxy", "upstream"] };
            let left = Lane { left: 270.0, right: 588.0, who: ["client", middle] };
            let right = Lane { left: 622.0, right: 940.0, who: [middle, end] };
            return Self { width: 1040.0, lanes: vec![left, right], room: 43, head: 92.0 };
        }
        let only = Lane { left: 290.0, right: 920.0, who: ["client", "server"] };
        Self { width: 1040.0, lanes: vec![only], room: 80, head: 62.0 }
    }
}

/// Draws it.
pub(super) fn draw(stage: &Stage<'_>) -> Drawing {
    let plan = Plan::of(stage);
    let chosen = chosen(stage);
    let (steps, left_out) = (&chosen.steps, chosen.left_out);
    let start = steps.first().map_or(0, |step| step.at);
    let several = stage.legs.first().is_some_and(|ladder| ladder.captures.len() > 1);
    let rows = steps.iter().map(|step| row(step, &plan, start, several)).collect();
    Drawing { svg: picture(stage, &plan, &chosen), rows, left_out, legs: stage.legs.len() }
}

/// What is drawn, and what is not.
struct Chosen<'a> {
    /// In order of time.
    steps: Vec<Step<'a>>,
    /// Packets that are not drawn.
    left_out: u64,
    /// When these were, or may have been: from, to.
    hidden: Vec<(i64, i64)>,
}

/// The steps that are drawn: the most telling ones.
fn chosen<'a>(stage: &Stage<'a>) -> Chosen<'a> {
    let mut all: Vec<(u8, Step<'a>)> = Vec::new();
    let mut hidden: Vec<(i64, i64)> = Vec::new();
    for (leg, ladder) in stage.legs.iter().enumerate() {
        all.extend(told(stage, leg, ladder, &mut hidden));
    }
    let mut ranks: Vec<(u8, usize)> = all.iter().enumerate().map(|(n, (rank, _))| (*rank, n)).collect();
    ranks.sort_unstable();
    let kept: BTreeSet<usize> = ranks.iter().take(MOST).map(|(_, n)| *n).collect();
    let mut left_out = stage.legs.iter().map(|ladder| ladder.left_out).sum();
    let mut steps: Vec<Step<'a>> = Vec::new();
    // Packets of each leg since its last step that is drawn.
    let mut skipped = vec![0; stage.legs.len()];
    for (n, (_, mut step)) in all.into_iter().enumerate() {
        if kept.contains(&n) {
            step.skipped = std::mem::take(&mut skipped[step.leg]);
            steps.push(step);
        } else {
            left_out += step.rung.count;
            skipped[step.leg] += step.rung.count;
            hidden.push((step.at, step.until));
        }
    }
    steps.sort_by_key(|step| step.at);
    Chosen { steps, left_out, hidden }
}

/// All steps of a leg, each with its rank: the proof, what means something, the beginning and the end, the rest.
fn told<'a>(stage: &Stage<'a>, leg: usize, ladder: &'a Ladder, hidden: &mut Vec<(i64, i64)>) -> Vec<(u8, Step<'a>)> {
    let start = stage.clocks.start(&ladder.flow);
    let at = |point: usize| start.saturating_add(ladder.points.get(point).map_or(0, |point| point.after.0));
    hidden.extend((1..ladder.points.len()).filter(|n| ladder.gap_before(*n)).map(|n| (at(n - 1), at(n))));
    let (mut steps, mut point) = (Vec::new(), 0);
    for (n, rung) in ladder.steps.iter().enumerate() {
        let within = (rung.file, rung.packet)..=(rung.file, rung.until.unwrap_or(rung.packet));
        let cited = stage.cited.range(within).next().is_some();
        let rank = match () {
            () if cited => 0,
            () if !rung.means.is_empty() => 1,
            () if n < 4 || n + 3 >= ladder.steps.len() => 2,
            () => 3,
        };
        let gap = ladder.gap_before(point);
        let last = point + rung.count.saturating_sub(1) as usize;
        let time = start.saturating_add(rung.after.0);
        steps.push((rank, Step { rung, leg, at: time, until: at(last).max(time), cited, skipped: 0, gap }));
        point = last + 1;
    }
    steps
}

fn number(rung: &Rung, several: bool) -> String {
    let name = |packet: u64| {
        let name = FlowRef { file: rung.file, id: packet }.name(if several { 2 } else { 1 });
        if several { name } else { format!("#{name}") }
    };
    match rung.until {
        Some(until) => format!("{}–{until}", name(rung.packet)),
        None => name(rung.packet),
    }
}

/// What the packet is, and how many there are of it.
fn what(rung: &Rung) -> String {
    let times = if rung.count > 1 { format!(" ({} packets)", rung.count) } else { String::new() };
    format!("{}{times}", rung.what)
}

fn row(step: &Step<'_>, plan: &Plan, start: i64, several: bool) -> Row {
    let rung = step.rung;
    let [asks, asked] = plan.lanes[step.leg].who;
    let (from, to) = if rung.side == Side::Client { (asks, asked) } else { (asked, asks) };
    let filter = match rung.until {
        Some(until) => format!("frame.number >= {} && frame.number <= {until}", rung.packet),
        None => format!("frame.number == {}", rung.packet),
    };
    Row {
        packet: number(rung, several),
        count: rung.count,
        filter,
        after: format!("+{}", Elapsed(step.at.saturating_sub(start))),
        from,
        to,
        what: what(rung),
        means: rung.means.clone(),
        cited: step.cited,
    }
}

/// Places of one step from top to bottom.
struct Placed {
    /// Words of a silence before it, or of packets that are not drawn.
    silence: Option<String>,
    means: Vec<String>,
    /// Where its arrow is.
    y: f64,
}

const LINE: f64 = 15.0;

fn placed(plan: &Plan, chosen: &Chosen<'_>) -> (Vec<Placed>, f64) {
    let (mut y, mut before): (f64, Option<i64>) = (plan.head, None);
    let mut places = Vec::new();
    for step in &chosen.steps {
        let unseen = |from: i64| chosen.hidden.iter().any(|(first, last)| *last >= from && *first <= step.at);
        let waited = before.filter(|before| !unseen(*before)).map_or(0, |before| step.at.saturating_sub(before));
        let silence = match (step.skipped, step.gap) {
            (0, false) => (waited >= SILENCE).then(|| format!("{} later", Elapsed(waited))),
            (0, true) => Some("more, not drawn".to_owned()),
            (n, false) => Some(format!("{n} not drawn")),
            (n, true) => Some(format!("{n} and more, not drawn")),
        };
        y += if silence.is_some() { 26.0 } else { 0.0 };
        let means: Vec<String> = step.rung.means.iter().take(2).flat_map(|text| wrapped(text, plan.room, 2)).collect();
        y += 24.0;
        places.push(Placed { silence, y, means: means.clone() });
        y += means.len() as f64 * LINE + 8.0;
        before = before.max(Some(step.until));
    }
    (places, y + 18.0)
}

/// How long nothing comes behind the last packet of flows that are still open.
fn silent_end(stage: &Stage<'_>, steps: &[Step<'_>]) -> Option<Elapsed> {
    let open = stage.legs.iter().all(|ladder| ladder.flow.close == "open");
    let last = steps.last()?;
    let end = stage.ends.get(usize::from(last.rung.file))?;
    let waited = end.saturating_sub(last.until);
    (open && waited >= SILENCE).then_some(Elapsed(waited))
}

fn picture(stage: &Stage<'_>, plan: &Plan, chosen: &Chosen<'_>) -> String {
    let (steps, left_out) = (chosen.steps.as_slice(), chosen.left_out);
    let several = stage.legs.first().is_some_and(|ladder| ladder.captures.len() > 1);
    let (places, last) = placed(plan, chosen);
    let silent_end = silent_end(stage, steps);
    let end = last + if silent_end.is_some() { 30.0 } else { 0.0 };
    let title = title(stage);
    let cited: Vec<String> = steps.iter().filter(|step| step.cited).map(|step| number(step.rung, several)).collect();
    let proof = if cited.is_empty() { String::new() } else { format!(" Packets of the proof: {}.", cited.join(", ")) };
    let description = format!(
        "{} in order of time.{proof}{} The same stands in the table below the drawing.",
        format::count(steps.len() as u64, "step"),
        if left_out > 0 { format!(" {} are left out.", format::count(left_out, "packet")) } else { String::new() }
    );
    let about = About { id: stage.id, title: &title, description: &description };
    let mut svg = Svg::begin(&about, "ladder", plan.width, end);
    heads(stage, plan, end, &mut svg);
    let start = steps.first().map_or(0, |step| step.at);
    for (step, place) in steps.iter().zip(&places) {
        if let Some(words) = &place.silence {
            let (left, right) = (plan.lanes[0].left, plan.lanes.last().map_or(0.0, |lane| lane.right));
            svg.line("silence", (left - 16.0, place.y - 34.0), (right + 16.0, place.y - 34.0));
            svg.text("muted", (190.0, place.y - 30.0), Anchor::End, words);
        }
        gutter(step, place.y, start, several, &mut svg);
        arrow(step, plan, place, &mut svg);
    }
    if let Some(waited) = silent_end {
        let words = format!("nothing more until the capture ends, {waited} later");
        svg.text("ending", (plan.lanes[0].left + 12.0, last + 6.0), Anchor::Start, &words);
    }
    svg.finish()
}

fn title(stage: &Stage<'_>) -> String {
    let ends = |ladder: &&Ladder| format!("{} to {}", ladder.flow.client, ladder.flow.server);
    let ends: Vec<String> = stage.legs.iter().map(ends).collect();
    format!("Packets of {}", ends.join(", and of "))
}

/// Lifelines and who they are.
fn heads(stage: &Stage<'_>, plan: &Plan, end: f64, svg: &mut Svg) {
    let mut head = |x: f64, role: &str, address: &str| {
        svg.text("role", (x, 18.0), Anchor::Middle, role);
        svg.text("end", (x, 36.0), Anchor::Middle, address);
    };
    let (first, last) = (&plan.lanes[0], &plan.lanes[plan.lanes.len() - 1]);
    let Some(client) = stage.legs.first().map(|ladder| &ladder.flow) else { return };
    head(first.left, first.who[0], &client.client);
    match stage.legs.get(1).map(|ladder| &ladder.flow) {
        Some(backend) => {
            let middle = (first.right + last.left) / 2.0;
            head(middle, first.who[1], &client.server);
            head(last.right, last.who[1], &backend.server);
            svg.text("end", (middle, 53.0), Anchor::Middle, &format!("onwards from {}", backend.client));
            let says = stage.link.map_or("", |link| link.says.as_str());
            for (n, line) in wrapped(says, 88, 1).iter().enumerate() {
                svg.text("link", (middle, 72.0 + 14.0 * n as f64), Anchor::Middle, line);
            }
            svg.rect("band", (first.right, plan.head - 12.0), (last.left - first.right, end - plan.head + 8.0));
        }
        None => head(first.right, first.who[1], &client.server),
    }
    for x in plan.lanes.iter().flat_map(|lane| [lane.left, lane.right]) {
        svg.line("life", (x, plan.head - 12.0), (x, end - 4.0));
    }
}

/// The packet's number and time.
fn gutter(step: &Step<'_>, y: f64, start: i64, several: bool, svg: &mut Svg) {
    let number = number(step.rung, several);
    if step.cited {
        let width = number.chars().count() as f64 * 7.3 + 12.0;
        svg.rect("pill", (4.0, y - 14.0), (width, 19.0));
    }
    svg.text(if step.cited { "cited" } else { "number" }, (10.0, y), Anchor::Start, &number);
    let after = format!("+{}", Elapsed(step.at.saturating_sub(start)));
    svg.text("muted", (190.0, y), Anchor::End, &after);
}

/// The arrow with what is sent above and what it means below.
fn arrow(step: &Step<'_>, plan: &Plan, place: &Placed, svg: &mut Svg) {
    let Some(lane) = plan.lanes.get(step.leg) else { return };
    let (from, to) = if step.rung.side == Side::Client { (lane.left, lane.right) } else { (lane.right, lane.left) };
    let y = place.y;
    let inwards = if to > from { -1.0 } else { 1.0 };
    let class = if step.cited { "arrow proof" } else { "arrow" };
    svg.line(class, (from, y), (to + 7.0 * inwards, y));
    let tip = to + inwards;
    svg.path(
        if step.cited { "tip proof" } else { "tip" },
        &[(tip, y), (tip + 9.0 * inwards, y - 4.5), (tip + 9.0 * inwards, y + 4.5)],
        true,
    );
    let middle = (lane.left + lane.right) / 2.0;
    let what = wrapped(&what(step.rung), plan.room, 1).join(" ");
    svg.text(if step.cited { "what proof" } else { "what" }, (middle, y - 5.0), Anchor::Middle, &what);
    for (n, line) in place.means.iter().enumerate() {
        svg.text("means", (middle, y + 14.0 + LINE * n as f64), Anchor::Middle, line);
    }
}
