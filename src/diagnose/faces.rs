//! The same packets at two points are one connection: before and after address translation, on a veth and a bridge, or in two captures.
//!
//! A box that forwards or translates keeps sequence numbers and options; whoever ends TCP and begins it anew does not. Flows whose SYN (and
//! SYN+ACK, where both have it) carry the same initial numbers and options are therefore faces of one connection. One face is judged, what
//! the others alone could see is added to it, and each is counted once. Two captures of one connection also tell how their clocks differ,
//! and which packets were lost between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::format::{count, packet};
use super::incident::Extent;
use super::same::{Groups, one_way};
use super::{Merged, beside, explain};
use crate::event::{PacketRef, ResetKind, Side};
use crate::flow::facts::{Close, FlowFacts};
use crate::rule::finding::{Finding, Severity, Subject};
use crate::rule::summary::FlowSummary;
use crate::time::Elapsed;
use crate::wire::{Address, Endpoint};

/// Flows before and after one among which its packets are looked for under another address.
const NEAR: usize = 512;
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

impl Faces {
    /// Who asked before its address was translated.
    fn asked_by(&self, judged: &FlowFacts) -> Address {
        let earlier = |face: &&Face| face.id < judged.id && face.translated.is_some();
        let first = self.others.get(&judged.id).into_iter().flatten().filter(earlier).min_by_key(|face| face.id);
        first.map_or(judged.client.address, |face| face.client.address)
    }

    /// Puts those who asked in the place of the addresses that a node asks with for them.
    pub(super) fn untranslate<'a>(&self, extent: &mut Extent, flows: impl Iterator<Item = &'a FlowSummary>) {
        let (mut asked, mut with) = (BTreeSet::new(), BTreeSet::new());
        for flow in flows {
            asked.insert(self.asked_by(&flow.facts));
            with.insert(flow.facts.client.address);
        }
        // Not where a link or flows that are only counted tell of more clients.
        if extent.clients.iter().copied().eq(with) && extent.client_count == extent.clients.len() as u64 {
            extent.clients = asked.into_iter().collect();
            extent.client_count = extent.clients.len() as u64;
        }
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
            Some(how) if self.id < judged.id => {
                format!("{} asked {}, translated ({how}): flow {at}", self.client, self.server)
            }
            Some("SNAT") => format!("{} -> (SNAT) {} as flow {at}", judged.client, self.client),
            Some(how) => format!("{} -> ({how}) {} as flow {at}", judged.server, self.server),
            None => format!("the same addresses at another place as flow {at}"),
        }
    }
}

/// `merged` with one flow for each connection; `None` when every flow is a connection of its own.
pub(super) fn join(merged: &Merged) -> Option<(Merged, Faces)> {
    let Groups { begun, older } = Groups::of(&merged.flows);
    if begun.is_empty() && older.is_empty() {
        return None;
    }
    let groups = begun.iter().map(|group| (true, group)).chain(older.iter().map(|group| (false, group)));
    let mut faces = Faces::default();
    let mut clocks: BTreeMap<(u16, u16), Vec<i64>> = BTreeMap::new();
    let mut flows = merged.flows.clone();
    let (mut hidden, mut begun_before, mut elsewhere, mut services) = (0, 0, (0, 0), merged.services.clone());
    for (begins, group) in groups {
        let members: Vec<&FlowSummary> = group.iter().filter_map(|id| merged.flows.get(id)).collect();
        // Nobody is at a service address: who refuses is told where the last translation leads.
        let refused = members.iter().all(|flow| matches!(flow.facts.close, Close::Reset(_, ResetKind::Refused)));
        let depth = |flow: &&&FlowSummary| refused.then_some(Reverse(flow.facts.id));
        let part = |flow: &&&FlowSummary| one_way(&flow.facts).is_some();
        let order = |flow: &&&FlowSummary| (flow.facts.mid_stream, refused && part(flow), depth(flow), nearness(flow));
        let judged = members.iter().min_by_key(order).copied();
        let Some(judged) = judged else { continue };
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
            begun_before += u64::from(face.facts.mid_stream && !judged.facts.mid_stream);
            for side in [Side::Client, Side::Server] {
                // What one face lacks and the other holds, the capture did not miss.
                let (lacks, holds) = (face.facts.half(side), judged.facts.half(side));
                if holds.unseen == 0 {
                    elsewhere.0 += lacks.unseen;
                    elsewhere.1 += u64::from(lacks.unseen_acks);
                }
            }
            faces.others.entry(judged.facts.id).or_default().push(told(&judged.facts, &face.facts));
        }
        beside::take_back_silence(&mut whole, judged, &members);
        // Captures that begin and end at different times hold different parts of a connection that outlives them.
        if begins {
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
    joined.tally.mid_stream = joined.tally.mid_stream.saturating_sub(begun_before);
    joined.tally.unseen = joined.tally.unseen.saturating_sub(elsewhere.0);
    joined.tally.unseen_acks = joined.tally.unseen_acks.saturating_sub(elsewhere.1);
    Some((joined, faces))
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
    fn a_generator_that_gives_all_connections_one_number_makes_no_faces() {
        let ended = |octets: u32| {
            let scene = Scene::starting("10.0.0.1:40001", "10.244.1.7:8443", 50, 0).handshake();
            scene.data(Side::Client, 3, octets).fin(Side::Client, 5).fin(Side::Server, 6)
        };
        let first = || Scene::open().data(Side::Client, 3, 40).fin(Side::Client, 5).fin(Side::Server, 6);
        assert!(join(&merged(&[first(), ended(40)])).is_some(), "the same octets");
        assert!(join(&merged(&[first(), ended(41)])).is_none(), "others");
        let late = Scene::starting("10.0.0.1:40001", "10.244.1.7:8443", 50, 70_000).handshake();
        assert!(join(&merged(&[Scene::open(), late])).is_none(), "too late for the same SYN");
        let scan: Vec<Scene> = (0..9)
            .map(|host| Scene::starting("10.0.0.1:40001", &format!("10.0.1.{host}:80"), 50 * (host + 1), 0).syn(0))
            .collect();
        assert!(join(&merged(&scan)).is_none(), "a scanner");
        assert!(join(&merged(&scan[..2])).is_some(), "a translated SYN");
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
    fn a_refusal_is_told_where_the_last_translation_leads() {
        let service =
            Scene::starting("10.0.0.1:40000", "10.96.0.10:80", 1, 0).syn(0).rst(Side::Server, 1, ResetKind::Refused, 0);
        let pod = Scene::starting("10.244.0.1:40000", "10.244.0.3:8080", 2, 1).syn(0).rst(
            Side::Server,
            1,
            ResetKind::Refused,
            0,
        );
        let (joined, faces) = join(&merged(&[service.clone(), pod])).expect("two faces");
        let judged = &joined.flows.values().next().expect("one").facts;
        assert_eq!((joined.flows.len(), judged.server), (1, end("10.244.0.3:8080")));
        let says = faces.others[&judged.id][0].says(judged, 1);
        assert_eq!(says, "10.0.0.1:40000 asked 10.96.0.10:80, translated (NAT): flow #1");
        assert_eq!(faces.asked_by(judged), end("10.0.0.1:40000").address);
        let later = Scene::starting("10.244.0.1:40000", "10.244.0.3:8080", 2, 50).syn(0).rst(
            Side::Server,
            1,
            ResetKind::Refused,
            0,
        );
        assert!(join(&merged(&[service, later])).is_none(), "another connection with the same number by chance");
    }

    #[test]
    fn a_step_between_two_translations_belongs_to_the_connection() {
        let step = |server: &str| {
            let scene = Scene::starting("10.0.0.1:40000", server, 60, 1).mid_stream();
            scene.data(Side::Client, 3, 40)
        };
        let all = |step: Scene| join(&merged(&[Scene::open(), translated(0), step])).expect("faces").0.flows.len();
        assert_eq!(all(step("10.244.1.7:8443")), 1);
        let mut lacking = merged(&[Scene::open(), translated(0), step("10.244.1.7:8443")]);
        (lacking.tally.unseen, lacking.tally.unseen_acks) = (90, 3);
        if let Some(step) = lacking.flows.values_mut().find(|flow| flow.facts.mid_stream) {
            (step.facts.from_server.unseen, step.facts.from_server.unseen_acks) = (80, 2);
        }
        let tally = join(&lacking).expect("faces").0.tally;
        assert_eq!((tally.unseen, tally.unseen_acks), (10, 1), "another face holds what this one lacks");
        assert_eq!(all(step("10.244.1.8:8443")), 2, "an end that no face has");
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
