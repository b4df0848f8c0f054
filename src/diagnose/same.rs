//! Which flows carry the same packets: the faces of one connection, found by numbers, options, ends and times.

use std::collections::{BTreeMap, BTreeSet};

use super::Merged;
use crate::event::{PacketRef, Side};
use crate::flow::facts::{Close, FlowFacts, Half, IpProtocol};
use crate::rule::summary::FlowSummary;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// Without a SYN+ACK only 32 bits agree: then the SYNs must be this close in time as well.
const CLOSE: Elapsed = Elapsed::secs(60);

/// A packet is translated and sent on this fast: then the numbers of its SYN are enough even where both ends are translated.
const AT_ONCE: Elapsed = Elapsed::millis(5);

/// So many pairs of ends one connection has at one place at most: a service's address, a pod's, both again behind a translated client. More
/// that share their numbers are those of a scanner or a generator, who gives all their connections the same.
const MOST_FACES: usize = 6;

/// Pairs of one-way flows between the same ends that are compared.
const PAIRS: usize = 64;

/// Flows that are faces of one connection, two or more each: first those whose beginning tells, then those that were open before.
pub(super) struct Groups {
    pub(super) begun: Vec<Vec<PacketRef>>,
    pub(super) older: Vec<Vec<PacketRef>>,
}

impl Groups {
    pub(super) fn of(flows: &BTreeMap<PacketRef, FlowSummary>) -> Self {
        let mut begun = groups(flows);
        slices(flows, &mut begun);
        let older = in_two_captures(flows, &begun);
        Self { begun, older }
    }
}

/// Pairs of inputs each of which holds one direction of the same connections, and that share no packet: files of two interfaces of one
/// host. What comes in on one and goes out by the other is whole only when both are read as one capture.
pub fn one_place(merged: &Merged) -> Vec<(u16, u16)> {
    let mut lone: BTreeMap<(Endpoint, Endpoint), Vec<&FlowFacts>> = BTreeMap::new();
    for flow in merged.flows.values().map(|flow| &flow.facts).filter(|flow| flow.transport == IpProtocol::Tcp) {
        if let Some((from, to, _)) = one_way(flow) {
            lone.entry((from, to)).or_default().push(flow);
        }
    }
    let mut pairs: BTreeMap<(u16, u16), usize> = BTreeMap::new();
    for (ends, flows) in &lone {
        let Some(back) = lone.get(&(ends.1, ends.0)).filter(|_| ends.0 < ends.1) else { continue };
        for (a, b) in flows.iter().flat_map(|a| back.iter().map(move |b| (*a, *b))).take(PAIRS) {
            if a.id.file != b.id.file && answer_each_other(a, b) {
                *pairs.entry((a.id.file.min(b.id.file), a.id.file.max(b.id.file))).or_default() += 1;
            }
        }
    }
    for group in groups(&merged.flows) {
        for (i, a) in group.iter().enumerate() {
            group[i + 1..].iter().for_each(|b| _ = pairs.remove(&(a.file.min(b.file), a.file.max(b.file))));
        }
    }
    pairs.into_keys().collect()
}

/// Who sends to whom on a flow of which one direction only is in the capture.
pub(super) fn one_way(flow: &FlowFacts) -> Option<(Endpoint, Endpoint, &Half)> {
    match (flow.from_client.packets, flow.from_server.packets) {
        (1.., 0) => Some((flow.client, flow.server, &flow.from_client)),
        (0, 1..) => Some((flow.server, flow.client, &flow.from_server)),
        _ => None,
    }
}

/// At one time, and each acknowledges what the other sends.
fn answer_each_other(a: &FlowFacts, b: &FlowFacts) -> bool {
    let (Some((.., x)), Some((.., y))) = (one_way(a), one_way(b)) else { return false };
    let takes = |sent: &Half, got: &Half| match (sent.isn, sent.next, got.acked) {
        (Some(from), Some(to), Some(acked)) => acked.minus(from) >= 0 && acked.minus(to) <= 1,
        // A client that heard nothing acknowledges nothing.
        (_, _, None) => got.packets > 0 && got.syn_count > 0,
        _ => false,
    };
    let acknowledged = x.acked.is_some() || y.acked.is_some();
    a.start() <= b.last.time && b.start() <= a.last.time && acknowledged && takes(x, y) && takes(y, x)
}

/// Flows that carry the same packets, two or more each.
fn groups(flows: &BTreeMap<PacketRef, FlowSummary>) -> Vec<Vec<PacketRef>> {
    let mut by_number: BTreeMap<u32, Vec<&FlowFacts>> = BTreeMap::new();
    for flow in flows.values().map(|flow| &flow.facts) {
        let begun = flow.transport == IpProtocol::Tcp && !flow.mid_stream && flow.from_client.syn_count > 0;
        if let (true, Some(isn)) = (begun, flow.from_client.isn) {
            by_number.entry(isn.0).or_default().push(flow);
        }
    }
    let mut groups = Vec::new();
    for mut rest in by_number.into_values().filter(|alike| alike.len() > 1) {
        while !rest.is_empty() {
            // A face may share its client with one of the others and its server with another one.
            let mut group = vec![rest.remove(0)];
            let mut looked_at = 0;
            while let Some(member) = group.get(looked_at).copied() {
                let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|flow| same_packets(member, flow));
                rest = others;
                group.extend(same);
                looked_at += 1;
            }
            if group.len() > 1 && places(&group) <= MOST_FACES {
                groups.push(group.into_iter().map(|flow| flow.id).collect());
            }
        }
    }
    groups
}

/// How many different ends the faces of one capture have, at most.
fn places(group: &[&FlowFacts]) -> usize {
    let mut ends: BTreeMap<u16, BTreeSet<(Endpoint, Endpoint)>> = BTreeMap::new();
    for flow in group {
        ends.entry(flow.id.file).or_default().insert((flow.client, flow.server));
    }
    ends.values().map(BTreeSet::len).max().unwrap_or(0)
}

/// Adds what stands between two faces of a connection: packets of one direction, with the client's address of one face and the server's of
/// another, where a bridge translates in two steps.
fn slices(flows: &BTreeMap<PacketRef, FlowSummary>, groups: &mut [Vec<PacketRef>]) {
    let mut between: BTreeMap<(Endpoint, Endpoint), usize> = BTreeMap::new();
    let mut taken: BTreeSet<PacketRef> = BTreeSet::new();
    for (place, group) in groups.iter().enumerate() {
        let faces: Vec<&FlowFacts> = group.iter().filter_map(|id| flows.get(id)).map(|flow| &*flow.facts).collect();
        for (a, b) in faces.iter().flat_map(|a| faces.iter().map(move |b| (a, b))) {
            between.insert((a.client, b.server), place);
            between.insert((b.server, a.client), place);
        }
        taken.extend(group);
    }
    for flow in flows.values().map(|flow| &flow.facts).filter(|flow| !taken.contains(&flow.id)) {
        let Some((from, to, half)) = one_way(flow).filter(|_| flow.transport == IpProtocol::Tcp) else { continue };
        let Some(group) = between.get(&(from, to)).and_then(|place| groups.get_mut(*place)) else { continue };
        let holds = |id: &PacketRef| {
            let Some(whole) = flows.get(id).map(|whole| &whole.facts) else { return false };
            let side = if whole.client == from || whole.server == to { Side::Client } else { Side::Server };
            let sent = whole.half(side);
            let within = match (sent.isn.zip(sent.next), half.isn.zip(half.next)) {
                (Some((first, next)), Some((begin, end))) => begin.minus(first) >= 0 && next.minus(end) >= 0,
                // A refusal has no numbers of its own, only the one it answers.
                _ => half.acked.is_some() && half.acked == sent.acked,
            };
            within
                && whole.id.file == flow.id.file
                && whole.start() <= flow.last.time
                && flow.start() <= whole.last.time
        };
        if group.iter().any(holds) {
            group.push(flow.id);
        }
    }
}

/// Connections that began before one of two captures, and UDP: the same ends at the same time, and sequence numbers that overlap.
fn in_two_captures(flows: &BTreeMap<PacketRef, FlowSummary>, known: &[Vec<PacketRef>]) -> Vec<Vec<PacketRef>> {
    let taken: BTreeSet<PacketRef> = known.iter().flatten().copied().collect();
    let mut by_ends: BTreeMap<(IpProtocol, Endpoint, Endpoint), Vec<&FlowFacts>> = BTreeMap::new();
    for flow in flows.values().map(|flow| &flow.facts).filter(|flow| !taken.contains(&flow.id)) {
        by_ends.entry((flow.transport, flow.client, flow.server)).or_default().push(flow);
    }
    let mut groups = Vec::new();
    for mut rest in by_ends.into_values().filter(|alike| alike.len() > 1) {
        while !rest.is_empty() {
            let first = rest.remove(0);
            let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|flow| continues(first, flow));
            rest = others;
            if !same.is_empty() {
                groups.push(std::iter::once(first).chain(same).map(|flow| flow.id).collect());
            }
        }
    }
    groups
}

/// Two captures of one flow, begun before one of them or without a beginning. The pieces of one capture follow each other.
fn continues(a: &FlowFacts, b: &FlowFacts) -> bool {
    let overlap = |side: Side| {
        let (x, y) = (a.half(side), b.half(side));
        match (x.isn.zip(x.next), y.isn.zip(y.next)) {
            (Some((from, to)), Some((start, end))) => end.minus(from) >= 0 && to.minus(start) >= 0,
            _ => true,
        }
    };
    let udp = a.transport == IpProtocol::Udp;
    a.id.file != b.id.file
        && a.start() <= b.last.time
        && b.start() <= a.last.time
        && (udp || ((a.mid_stream || b.mid_stream) && overlap(Side::Client) && overlap(Side::Server)))
}

/// The same SYN, and the same SYN+ACK where both have one. A port used again at one place is not the same packet.
fn same_packets(a: &FlowFacts, b: &FlowFacts) -> bool {
    let elsewhere = (a.client, a.server) != (b.client, b.server) || a.id.file != b.id.file;
    let (x, y) = (&a.from_client, &b.from_client);
    let options = x.window_scale == y.window_scale && x.sack == y.sack && x.timestamps == y.timestamps;
    let one_file = a.id.file == b.id.file;
    let apart = a.start().since(b.start()).abs();
    let answers = match (a.from_server.syn_count > 0, b.from_server.syn_count > 0) {
        (true, true) => a.from_server.isn == b.from_server.isn && (!one_file || (apart <= CLOSE && same_octets(a, b))),
        _ => {
            let at_once = apart <= AT_ONCE && one_file;
            at_once || (apart <= CLOSE && (a.client == b.client || a.server == b.server))
        }
    };
    // One was accepted and the other refused: a scanner gives several targets one number.
    let accepted = |flow: &FlowFacts| flow.from_server.syn_count > 0;
    let refused = |flow: &FlowFacts| !accepted(flow) && !flow.from_server.resets.is_empty();
    let contradict = accepted(a) && refused(b) || refused(a) && accepted(b);
    elsewhere && options && answers && !contradict
}

/// Whether as many octets went over both, where both are in the capture from end to end. Generators give all their connections one number.
fn same_octets(a: &FlowFacts, b: &FlowFacts) -> bool {
    let whole = |flow: &FlowFacts| flow.close == Close::Fin && flow.from_client.unseen + flow.from_server.unseen == 0;
    let same = |side: Side| a.half(side).next == b.half(side).next;
    !(whole(a) && whole(b)) || (same(Side::Client) && same(Side::Server))
}
