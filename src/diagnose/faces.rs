//! The same packets at two points are one connection: before and after address translation, on a veth and a bridge, or in two captures.
//!
//! A box that forwards or translates keeps sequence numbers and options; whoever ends TCP and begins it anew does not. Flows whose SYN (and
//! SYN+ACK, where both have it) carry the same initial numbers and options are therefore faces of one connection. One face is judged, what
//! the others alone could see is added to it, and each is counted once. Two captures of one connection also tell how their clocks differ,
//! and which packets were lost between them.

use std::collections::{BTreeMap, BTreeSet};

use super::format::{count, packet};
use super::{Merged, beside, explain};
use crate::event::{PacketRef, Side};
use crate::flow::facts::{FlowFacts, Half, IpProtocol};
use crate::rule::finding::{Finding, Severity, Subject};
use crate::rule::summary::FlowSummary;
use crate::time::Elapsed;
use crate::wire::Endpoint;

/// Without a SYN+ACK only 32 bits agree: then the SYNs must be this close in time as well.
const CLOSE: Elapsed = Elapsed::secs(60);

/// Flows before and after one among which its packets are looked for under another address.
const NEAR: usize = 512;
/// Pairs of one-way flows between the same ends that are compared.
const PAIRS: usize = 64;

/// A capture is at its end when nothing follows for so long.
pub(super) const ENDED: Elapsed = Elapsed::secs(1);

/// What was found out about faces.
#[derive(Debug, Default)]
pub(super) struct Faces {
    /// By the face that is judged: the others.
    pub(super) others: BTreeMap<PacketRef, Vec<Face>>,
    /// By input: how far its clock is ahead of an earlier input's.
    pub(super) clocks: BTreeMap<u16, Clock>,
}

impl Faces {
    /// How far an input's clock is ahead of that of the earliest input it can be compared with.
    pub(super) fn ahead(&self, file: u16) -> Elapsed {
        let mut ahead = Elapsed(0);
        let mut file = file;
        // Each step leads to an earlier input.
        while let Some(clock) = self.clocks.get(&file) {
            ahead = ahead + clock.ahead;
            file = clock.of;
        }
        ahead
    }
}

/// One more face of a connection.
#[derive(Debug)]
pub(super) struct Face {
    /// The flow's number.
    pub(super) id: PacketRef,
    /// Its ends, and how far they are those of the face that is judged.
    pub(super) client: Endpoint,
    /// The end that was asked there.
    pub(super) server: Endpoint,
    /// Source or destination was translated.
    pub(super) translated: Option<&'static str>,
}

/// The distance of two inputs' clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Clock {
    /// The earlier input.
    pub(super) of: u16,
    /// How far the later input's clock is ahead; the median.
    pub(super) ahead: Elapsed,
    /// Of so many connections.
    pub(super) connections: usize,
}

impl Clock {
    /// In words for people.
    pub(super) fn says(&self) -> String {
        let of = self.of + 1;
        let how = if self.ahead.0 < 0 { "behind" } else { "ahead of" };
        let by = Elapsed(self.ahead.0.saturating_abs());
        format!(
            "its clock is {by} {how} that of input {of} (median of {} seen in both)",
            count(self.connections as u64, "connection")
        )
    }
}

impl Face {
    /// `10.96.0.10:443 -> (DNAT) 10.244.1.7:8443`, or where else the same packets are.
    pub(super) fn says(&self, judged: &FlowFacts, files: usize) -> String {
        let at = packet(self.id, files);
        match self.translated {
            Some("SNAT") => format!("{} -> (SNAT) {} as flow {at}", judged.client, self.client),
            Some(how) => format!("{} -> ({how}) {} as flow {at}", judged.server, self.server),
            None => format!("the same addresses at another place as flow {at}"),
        }
    }
}

/// `merged` with one flow for each connection; `None` when every flow is a connection of its own.
pub(super) fn join(merged: &Merged) -> Option<(Merged, Faces)> {
    let mut groups = groups(&merged.flows);
    let begun = groups.len();
    groups.extend(in_two_captures(&merged.flows, &groups));
    if groups.is_empty() {
        return None;
    }
    let mut faces = Faces::default();
    let mut clocks: BTreeMap<(u16, u16), Vec<i64>> = BTreeMap::new();
    let mut flows = merged.flows.clone();
    let (mut hidden, mut services) = (0, merged.services.clone());
    for (place, group) in groups.into_iter().enumerate() {
        let members: Vec<&FlowSummary> = group.iter().filter_map(|id| merged.flows.get(id)).collect();
        let Some(judged) = members.iter().min_by_key(|flow| nearness(flow)).copied() else { continue };
        let mut whole = judged.clone();
        for face in members.iter().filter(|face| face.facts.id != judged.facts.id) {
            adopt(&mut whole, face);
            if let Some((pair, ahead)) = clock(&judged.facts, &face.facts) {
                clocks.entry(pair).or_default().push(ahead);
            }
            flows.remove(&face.facts.id);
            if face.facts.server == judged.facts.server {
                services.unlearn(&explain::lesson(&face.facts, &face.story, face.digest.verdict));
            }
            hidden += 1;
            faces.others.entry(judged.facts.id).or_default().push(told(&judged.facts, &face.facts));
        }
        beside::take_back_silence(&mut whole, judged, &members);
        // Captures that begin and end at different times hold different parts of a connection that outlives them.
        if place < begun {
            beside::name_lost_acks(&mut whole, &members, merged);
            compare(&mut whole, &members, merged);
        }
        whole.digest.verdict = members.iter().map(|face| face.digest.verdict).max().unwrap_or(whole.digest.verdict);
        flows.insert(judged.facts.id, whole);
    }
    for ((of, file), mut ahead) in clocks {
        ahead.sort_unstable();
        let clock = Clock { of, ahead: Elapsed(ahead[ahead.len() / 2]), connections: ahead.len() };
        faces.clocks.entry(file).or_insert(clock);
    }
    let mut joined = Merged { flows, services, ..merged.clone() };
    joined.tally.flows = joined.tally.flows.saturating_sub(hidden);
    Some((joined, faces))
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
fn one_way(flow: &FlowFacts) -> Option<(Endpoint, Endpoint, &Half)> {
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
            let first = rest.remove(0);
            let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|flow| same_packets(first, flow));
            rest = others;
            if !same.is_empty() {
                groups.push(std::iter::once(first).chain(same).map(|flow| flow.id).collect());
            }
        }
    }
    groups
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
    let answers = match (a.from_server.syn_count > 0, b.from_server.syn_count > 0) {
        (true, true) => a.from_server.isn == b.from_server.isn,
        _ => a.start().since(b.start()).abs() <= CLOSE && (a.client == b.client || a.server == b.server),
    };
    elsewhere && options && answers
}

/// The face nearest to the client tells the connection as users live it: the fastest ACK behind the SYN+ACK, else the first packet.
fn nearness(flow: &FlowSummary) -> (Elapsed, PacketRef) {
    let facts = &flow.facts;
    let heard = facts.rtt_client.unwrap_or(Elapsed(if facts.from_server.packets == 0 { 0 } else { i64::MAX }));
    (heard, facts.id)
}

/// Takes over what only the other face could see, or saw more surely.
fn adopt(whole: &mut FlowSummary, face: &FlowSummary) {
    for finding in &face.findings {
        let mut finding = finding.clone();
        finding.subject = match finding.subject {
            Subject::Flow(_) => Subject::Flow(whole.facts.id),
            Subject::Exchange(_, n) => Subject::Exchange(whole.facts.id, n),
            other => other,
        };
        let weight = |finding: &Finding| (finding.confidence, finding.severity);
        match whole.findings.iter_mut().find(|known| known.rule == finding.rule) {
            Some(known) if weight(known) >= weight(&finding) => {}
            Some(known) => *known = finding,
            None => whole.findings.push(finding),
        }
    }
}

/// How far the clock of the later input is ahead: the mean of what SYN and SYN+ACK say, so that the way between both cancels out.
fn clock(a: &FlowFacts, b: &FlowFacts) -> Option<((u16, u16), i64)> {
    let (a, b) = if a.id.file < b.id.file { (a, b) } else { (b, a) };
    let alike =
        a.from_client.syn_count == b.from_client.syn_count && a.from_server.syn_count == b.from_server.syn_count;
    if a.id.file == b.id.file || !alike {
        return None;
    }
    let between = |side: Side| Some(b.half(side).syns.first()?.time.since(a.half(side).syns.first()?.time));
    let (there, back) = (between(Side::Client)?, between(Side::Server)?);
    Some(((a.id.file, b.id.file), there.0.saturating_add(back.0) / 2))
}

fn told(judged: &FlowFacts, face: &FlowFacts) -> Face {
    let translated = match (judged.client == face.client, judged.server == face.server) {
        (true, true) => None,
        (false, true) => Some("SNAT"),
        (true, false) => Some("DNAT"),
        (false, false) => Some("NAT"),
    };
    Face { id: face.id, client: face.client, server: face.server, translated }
}

/// What was lost between two captures of one connection, said on its findings.
fn compare(whole: &mut FlowSummary, members: &[&FlowSummary], merged: &Merged) {
    let mut notes = Vec::new();
    for (i, a) in members.iter().enumerate() {
        for b in members[i + 1..].iter().filter(|b| b.facts.id.file != a.facts.id.file) {
            let (near, far) = if nearness(a) <= nearness(b) { (a, b) } else { (b, a) };
            notes.extend(lost(Side::Client, near, far, merged));
            notes.extend(lost(Side::Server, far, near, merged));
        }
    }
    for finding in whole.findings.iter_mut().filter(|finding| finding.severity >= Severity::Warning) {
        finding.notes.extend(notes.iter().cloned());
    }
}

/// Packets of `side` that the place nearer to it has and the other has not.
fn lost(side: Side, sent: &FlowSummary, got: &FlowSummary, merged: &Merged) -> Option<String> {
    let (there, here) = (sent.facts.half(side).packets, got.facts.half(side).packets);
    if here >= there {
        return None;
    }
    let place = |flow: &FlowSummary| {
        let file = flow.facts.id.file;
        let info = merged.infos.get(usize::from(file))?;
        Some(info.label.clone().unwrap_or_else(|| info.file.clone()))
    };
    let (from, to) = (place(sent)?, place(got)?);
    // A capture that ended before cannot have them.
    let ended = merged.infos.get(usize::from(got.facts.id.file)).and_then(|info| info.last);
    if ended.is_some_and(|ended| sent.facts.half(side).last.is_some_and(|last| last.time.since(ended) > ENDED)) {
        return None;
    }
    let end = sent.facts.endpoint(side);
    let missing = there - here;
    let told = format!("{missing} of {there} packets from {end} that are in {from} are not in {to}");
    Some(match elsewhere(side, sent, got, merged) {
        Some(way) => format!("{told}: {way}"),
        None => format!("{told}: lost in between"),
    })
}

/// Where the packets that are not in the other input went instead, if anything tells.
fn elsewhere(side: Side, sent: &FlowSummary, got: &FlowSummary, merged: &Merged) -> Option<String> {
    let (end, peer, half) = (sent.facts.endpoint(side), sent.facts.endpoint(side.other()), sent.facts.half(side));
    let (from, to) = (half.isn?, half.next?);
    let first_seen = merged
        .flows
        .range(sent.facts.id..)
        .map(|(_, flow)| &flow.facts)
        .chain(merged.flows.range(..sent.facts.id).rev().take(NEAR).map(|(_, flow)| &flow.facts));
    // The same numbers from another address to the same end.
    let other = first_seen.take(2 * NEAR).filter(|flow| flow.id.file == got.facts.id.file).find_map(|flow| {
        let source = [Side::Client, Side::Server].into_iter().find(|one| flow.endpoint(one.other()) == peer)?;
        let seen = flow.half(source);
        let first = seen.isn.filter(|_| flow.endpoint(source) != end && seen.packets > 0)?;
        (first.minus(from) >= 0 && to.minus(first) >= 0).then(|| (flow.endpoint(source), flow.id))
    });
    if let Some((source, flow)) = other {
        let flow = packet(flow, merged.infos.len());
        return Some(format!("they came from {source} (flow {flow}), by another way"));
    }
    let asymmetric = sent.findings.iter().any(|finding| finding.rule == "asymmetric-return-path");
    (asymmetric && side == Side::Server).then(|| "they left by another interface".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::rule::testing::{Scene, end};
    use crate::wire::seq::Seq;

    pub(in crate::diagnose) fn at_file(mut scene: Scene, file: u16) -> Scene {
        let moved = |at: &mut PacketRef| at.file = file;
        moved(&mut scene.facts.id);
        for half in [&mut scene.facts.from_client, &mut scene.facts.from_server] {
            half.syns.iter_mut().for_each(moved);
        }
        scene
    }

    pub(in crate::diagnose) fn merged(scenes: &[Scene]) -> Merged {
        let flows: BTreeMap<_, _> = scenes.iter().map(|scene| (scene.facts.id, scene.summary())).collect();
        let mut merged = Merged { flows, ..Merged::default() };
        merged.tally.flows = scenes.len() as u64;
        merged.infos = vec![Default::default(), Default::default()];
        merged
    }

    fn translated(start: i64) -> Scene {
        Scene::starting("10.0.0.1:40000", "10.244.1.7:8443", 50, start).handshake().data(Side::Client, 3, 40)
    }

    #[test]
    fn a_connection_before_and_after_translation_is_counted_once() {
        let (joined, faces) = join(&merged(&[Scene::open(), translated(0)])).expect("two faces");
        assert_eq!((joined.flows.len(), joined.tally.flows), (1, 1));
        let judged = joined.flows.values().next().expect("one");
        let other = &faces.others[&judged.facts.id][0];
        assert_eq!(other.says(&judged.facts, 1), "10.0.0.2:443 -> (DNAT) 10.244.1.7:8443 as flow #50");
        assert!(faces.clocks.is_empty());
    }

    #[test]
    fn connections_with_numbers_of_their_own_stay_apart() {
        let mut other = translated(0);
        other.facts.from_server.isn = Some(Seq(77));
        assert!(join(&merged(&[Scene::open(), other])).is_none());
    }

    #[test]
    fn a_port_used_again_at_one_place_is_no_second_face() {
        let again = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 50, 9000).handshake();
        assert_eq!(again.facts.client, end("10.0.0.1:40000"));
        assert!(join(&merged(&[Scene::open(), again])).is_none());
    }

    #[test]
    fn a_connection_older_than_both_captures_and_one_without_a_beginning_are_counted_once() {
        let old = |number: u64, start: i64| {
            let scene = Scene::starting("10.0.0.1:40000", "10.0.0.2:443", number, start).mid_stream();
            scene.data(Side::Client, 3, 40).data(Side::Server, 50, 40)
        };
        let (joined, _) = join(&merged(&[old(1, 0), at_file(old(9, 10), 1)])).expect("two captures");
        assert_eq!(joined.flows.len(), 1);
        // The next piece of a rotated capture begins where the one before ends.
        assert!(join(&merged(&[old(1, 0), at_file(old(9, 500), 1)])).is_none());
        let question = |number: u64| {
            let scene = Scene::starting("10.0.0.1:5353", "10.0.0.2:53", number, 0).udp();
            scene.data(Side::Client, 0, 40).data(Side::Server, 50, 90)
        };
        let (joined, _) = join(&merged(&[question(1), at_file(question(2), 1)])).expect("two captures");
        assert_eq!((joined.flows.len(), joined.tally.flows), (1, 1));
    }

    #[test]
    fn a_connection_seen_at_two_places_is_one_flow_of_its_server() {
        let far = at_file(Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 9, 0).handshake(), 1);
        let mut merged = merged(&[Scene::open(), far]);
        let mut learner = crate::host::service::Learner::default();
        for flow in merged.flows.values() {
            learner.learn(&explain::lesson(&flow.facts, &flow.story, flow.digest.verdict));
        }
        merged.services = learner.finish();
        let server = end("10.0.0.2:443");
        assert_eq!(merged.services.get(&server).map(|service| service.flows), Some(2));
        let (joined, _) = join(&merged).expect("two faces");
        assert_eq!(joined.services.get(&server).map(|service| (service.flows, service.accepted)), Some((1, 1)));
    }

    #[test]
    fn two_captures_of_one_connection_tell_how_their_clocks_differ() {
        let far = at_file(Scene::starting("10.0.0.1:40000", "10.0.0.2:443", 9, 2500).handshake(), 1);
        let (_, faces) = join(&merged(&[Scene::open(), far])).expect("two captures");
        assert_eq!(faces.clocks[&1], Clock { of: 0, ahead: Elapsed::millis(2500), connections: 1 });
    }
}
