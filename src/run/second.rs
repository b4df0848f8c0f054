//! The second pass: inputs are read once more for the packets of flows that are known by then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::Diagnosis;
use crate::capture::{Frame, Source};
use crate::decode::{Decoder, Flags, Packet, Transport};
use crate::error::Result;
use crate::event::{PacketRef, Side};
use crate::rule::summary::FlowSummary;
use crate::time::{Elapsed, Timestamp};
use crate::wire::Endpoint;
use crate::wire::seq::Seq;

/// One packet of a flow in numbers, for a chart of sequence numbers over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Index of the input.
    pub file: u16,
    /// Frame number in that input.
    pub packet: u64,
    /// Time since the flow's first packet.
    pub after: Elapsed,
    /// Who sent it.
    pub side: Side,
    /// First octet's place in its direction, counted from the initial sequence number (UDP: 0).
    pub seq: u32,
    /// Octets of payload.
    pub len: u32,
    /// What it acknowledges of the other direction, where it acknowledges anything.
    pub ack: Option<u32>,
    /// SYN, FIN or RST is set.
    pub marked: bool,
}

/// A packet of a flow, in words and numbers.
pub(super) struct Step {
    pub at: PacketRef,
    pub what: String,
    pub point: Point,
}

/// Reads the inputs once more. `together`: inputs that were read as one point of capture.
pub(super) fn read<S: AsRef<str>>(
    diagnosis: &Diagnosis,
    inputs: &[S],
    together: &[(u16, u16)],
    mut visit: impl FnMut(&Frame<'_>, &Packet<'_>) -> Result<()>,
) -> Result<()> {
    let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
    let mut source = Source::open(&inputs, &diagnosis.open)?;
    source.at_one_place(together);
    let mut decoder = Decoder::new(Default::default());
    while let Some(frame) = source.next()? {
        visit(&frame, &decoder.decode(&frame))?;
    }
    Ok(())
}

/// The packets of some flows.
pub(super) struct Tracks<'a> {
    tracks: Vec<Track<'a>>,
    by_ends: BTreeMap<(Endpoint, Endpoint), Vec<usize>>,
}

struct Track<'a> {
    summary: &'a FlowSummary,
    /// Packets that have to be there, however many there are.
    wanted: BTreeSet<(u16, u64)>,
    steps: Steps,
    /// What sequence numbers are counted from, by sender.
    origin: BTreeMap<Endpoint, Seq>,
    /// The same packets at another point of capture are another flow.
    point: Option<u16>,
}

/// Packets of one flow: the first, the last, and those that are wanted.
struct Steps {
    most: usize,
    first: Vec<Step>,
    last: VecDeque<Step>,
    left_out: u64,
}

impl Steps {
    fn push(&mut self, step: Step, wanted: bool) {
        if wanted || self.first.len() < self.most {
            // What is wanted of the middle stands behind the beginning, in its order.
            self.first.push(step);
            return;
        }
        self.last.push_back(step);
        if self.last.len() > self.most / 4 {
            self.last.pop_front();
            self.left_out += 1;
        }
    }
}

impl<'a> Tracks<'a> {
    /// Follows these flows; of each so many packets at its beginning are kept, a quarter of that at its end, and those `wanted` names.
    pub(super) fn new(
        flows: impl IntoIterator<Item = &'a FlowSummary>,
        most: usize,
        wanted: impl Fn(&FlowSummary) -> BTreeSet<(u16, u64)>,
    ) -> Self {
        let mut by_ends: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let tracks = flows.into_iter().enumerate().map(|(n, summary)| {
            let (client, server) = (summary.facts.client, summary.facts.server);
            by_ends.entry((client.min(server), client.max(server))).or_default().push(n);
            let steps = Steps { most, first: Vec::new(), last: VecDeque::new(), left_out: 0 };
            Track { summary, wanted: wanted(summary), steps, origin: BTreeMap::new(), point: None }
        });
        Self { tracks: tracks.collect(), by_ends }
    }

    /// Takes the packet if it belongs to one of them.
    pub(super) fn packet(&mut self, frame: &Frame<'_>, packet: &Packet<'_>) {
        let (Some(from), Some(to)) = (packet.source(), packet.destination()) else { return };
        let Some(between) = self.by_ends.get(&(from.min(to), from.max(to))) else { return };
        for n in between {
            if let Some(track) = self.tracks.get_mut(*n) {
                track.packet(frame, packet, (from, to));
            }
        }
    }

    /// For each flow its packets, and how many are left out.
    pub(super) fn finish(self) -> impl Iterator<Item = (&'a FlowSummary, Vec<Step>, u64)> {
        self.tracks.into_iter().map(|track| {
            let Steps { mut first, last, left_out, .. } = track.steps;
            first.extend(last);
            first.sort_by_key(|step| step.at);
            (track.summary, first, left_out)
        })
    }
}

impl Track<'_> {
    fn packet(&mut self, frame: &Frame<'_>, packet: &Packet<'_>, (from, to): (Endpoint, Endpoint)) {
        let facts = &self.summary.facts;
        let at = PacketRef { file: frame.file, number: frame.number, time: frame.time };
        if at == facts.id {
            self.point = Some(frame.point);
        }
        if at < facts.id || at > facts.last || self.point != Some(frame.point) {
            return;
        }
        let side = if from == facts.client { Side::Client } else { Side::Server };
        let (what, point) = describe(packet, (from, to), &mut self.origin, (at, side, facts.id.time));
        let wanted = self.wanted.contains(&(at.file, at.number));
        self.steps.push(Step { at, what, point }, wanted);
    }
}

/// Flags, relative numbers and length, as Wireshark counts them.
fn describe(
    packet: &Packet<'_>,
    (from, to): (Endpoint, Endpoint),
    origin: &mut BTreeMap<Endpoint, Seq>,
    (at, side, start): (PacketRef, Side, Timestamp),
) -> (String, Point) {
    let after = at.time.since(start);
    let mut point = Point { file: at.file, packet: at.number, after, side, seq: 0, len: 0, ack: None, marked: false };
    let segment = match &packet.transport {
        Transport::Tcp(segment) => segment,
        Transport::Udp(datagram) => {
            point.len = datagram.payload_len;
            return (format!("datagram, {} octets", datagram.payload_len), point);
        }
        _ => return (String::new(), point),
    };
    if segment.flags.has(Flags::SYN) {
        origin.insert(from, segment.seq);
    }
    let base = *origin.entry(from).or_insert(segment.seq);
    (point.seq, point.len) = (segment.seq.minus(base) as u32, segment.payload_len as u32);
    let mut words = Vec::new();
    for (flag, name) in [(Flags::SYN, "SYN"), (Flags::FIN, "FIN"), (Flags::RST, "RST")] {
        if segment.flags.has(flag) {
            words.push(name.to_owned());
            point.marked = true;
        }
    }
    if segment.payload_len > 0 {
        words.push(format!("{} octets at {}", segment.payload_len, segment.seq.minus(base)));
    }
    if segment.flags.has(Flags::ACK) {
        let acked = segment.ack.minus(*origin.entry(to).or_insert(segment.ack));
        point.ack = Some(acked as u32);
        words.push(format!("ACK {acked}"));
    }
    if segment.window == 0 && !segment.flags.has(Flags::RST) {
        words.push("window 0".into());
    }
    (words.join(", "), point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_flow_the_beginning_the_end_and_what_is_wanted_are_kept() {
        let mut steps = Steps { most: 8, first: Vec::new(), last: VecDeque::new(), left_out: 0 };
        for n in 1..=100 {
            let at = PacketRef { file: 0, number: n, time: Timestamp(n as i64) };
            let (after, side) = (Elapsed(0), Side::Client);
            let point = Point { file: 0, packet: n, after, side, seq: 0, len: 0, ack: None, marked: false };
            steps.push(Step { at, what: String::new(), point }, n == 50);
        }
        let kept: Vec<u64> = steps.first.iter().chain(&steps.last).map(|step| step.at.number).collect();
        assert_eq!(kept, [1, 2, 3, 4, 5, 6, 7, 8, 50, 99, 100]);
        assert_eq!(steps.left_out, 89);
    }
}
