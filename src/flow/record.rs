//! One flow in the table: the record every packet touches (at most 256 octets) and the detail behind it.

use serde::{Deserialize, Serialize};

use super::FlowHead;
use super::facts::{Close, FlowFacts, Half, Handshake, IpProtocol, RoleSource, Trouble, Unacknowledged};
use super::half::{Clock, Marks, NOTHING, Stamp, Track, Trail, Trails};
use super::key::{Key, Pair, Way};
use super::limits::Limits;
use super::rtt;
use crate::event::{PacketRef, ResetKind, Side};
use crate::time::{Elapsed, Timestamp};

/// The hot record.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) tracks: Pair<Track>,
    /// The direction the client sends in.
    pub(super) client: Way,
    pub(super) role: RoleSource,
    pub(super) mid_stream: bool,
    /// The handshake is complete, or payload was seen.
    pub(super) established: bool,
    /// It began with a SYN, and the other side was not heard yet.
    pub(super) unanswered: bool,
}

const _: () = assert!(size_of::<Flow>() <= 256, "the hot record must fit four cache lines");

/// What is touched at turning points only.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Detail {
    pub(super) id: PacketRef,
    pub(super) reuses: Option<PacketRef>,
    /// The step at which the wheel will bring this flow up.
    #[serde(skip)]
    pub(super) due: i64,
    /// Octets the flow takes, as weighed last.
    #[serde(skip)]
    pub(super) weight: u32,
    pub(super) duplicates: u64,
    /// Packets that came by again with a lower TTL.
    pub(super) rounds: u32,
    /// The first of them: original and copy.
    pub(super) duplicate: Option<(Stamp, Stamp)>,
    pub(super) established: Option<Stamp>,
    /// The latest long silence: the packet before it, and the new payload behind it.
    pub(super) pause: Option<(Stamp, Stamp)>,
    pub(super) closer: Option<(Way, Stamp)>,
    pub(super) reset: Option<(Way, ResetKind)>,
    pub(super) rtt_server: Option<Elapsed>,
    pub(super) rtt_client: Option<Elapsed>,
    pub(super) trails: Trails,
}

/// How far a TCP flow is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Open,
    /// Both sides closed it, or one reset it.
    Closed,
    /// Both FINs are acknowledged as well: no more is due.
    Settled,
}

impl Flow {
    /// A flow that has seen nothing yet.
    pub(super) fn new(key: Key, client: Way, role: RoleSource) -> Self {
        Self { key, tracks: Pair::default(), client, role, mid_stream: false, established: false, unanswered: false }
    }

    /// The role of the end that sends in direction `way`.
    pub(super) fn side(&self, way: Way) -> Side {
        if way == self.client { Side::Client } else { Side::Server }
    }

    /// Time of its latest packet.
    pub(super) fn last(&self) -> Option<Stamp> {
        let [low, high] = Way::BOTH.map(|way| self.tracks[way].last);
        match (low, high) {
            (Some(a), Some(b)) => Some(if a.packet() < b.packet() { b } else { a }),
            (a, b) => a.or(b),
        }
    }

    /// How long the flow stays in the table after its latest packet.
    pub(super) fn patience(&self, limits: &Limits) -> Elapsed {
        match self.key.protocol() {
            IpProtocol::Udp if self.resolved() => limits.answered_linger,
            IpProtocol::Udp => limits.udp_expiry,
            IpProtocol::Tcp if self.stage() == Stage::Settled => limits.settled_linger,
            IpProtocol::Tcp if self.closed() => limits.closed_linger,
            IpProtocol::Tcp if self.established || self.mid_stream => limits.established_expiry,
            IpProtocol::Tcp => limits.syn_expiry,
        }
    }

    /// When it leaves the table if nothing more comes.
    pub(super) fn deadline(&self, limits: &Limits) -> Timestamp {
        self.last().map_or(Timestamp::MIN, Stamp::time) + self.patience(limits)
    }

    /// As many answers as queries to a DNS port: a resolver takes a new port for the next question.
    pub(super) fn resolved(&self) -> bool {
        let [low, high] = Way::BOTH.map(|way| self.tracks[way].packets);
        low == high && Way::BOTH.iter().any(|way| matches!(self.key.end(*way).port, 53 | 5353))
    }

    /// Somebody is still to answer: a SYN, or a datagram.
    pub(super) fn asks(&self) -> bool {
        self.unanswered || self.key.protocol() == IpProtocol::Udp && !self.resolved()
    }

    /// How far it is on its way out.
    pub(super) fn stage(&self) -> Stage {
        let done = |way: &Way| {
            let marks = self.tracks[*way].marks;
            marks.has(Marks::FIN_ACKED) && !marks.has(Marks::RESET)
        };
        match self.closed() {
            true if Way::BOTH.iter().all(done) => Stage::Settled,
            true => Stage::Closed,
            false => Stage::Open,
        }
    }

    /// A side closed it, or reset it.
    pub(super) fn ending(&self) -> bool {
        let ends = |way: &Way| self.tracks[*way].marks.has(Marks::FIN) || self.tracks[*way].marks.has(Marks::RESET);
        Way::BOTH.iter().any(ends)
    }

    /// Both sides closed it, or one reset it.
    pub(super) fn closed(&self) -> bool {
        let [low, high] = Way::BOTH.map(|way| self.tracks[way].marks);
        (low.has(Marks::FIN) && high.has(Marks::FIN)) || low.has(Marks::RESET) || high.has(Marks::RESET)
    }
}

impl Detail {
    /// The detail of a flow that begins with `id`.
    pub(super) fn new(id: PacketRef, reuses: Option<PacketRef>) -> Self {
        Self {
            id,
            reuses,
            due: i64::MIN,
            weight: 0,
            duplicates: 0,
            rounds: 0,
            duplicate: None,
            established: None,
            pause: None,
            closer: None,
            reset: None,
            rtt_server: None,
            rtt_client: None,
            trails: Trails::default(),
        }
    }

    /// Made ready for a flow that begins with `id`; memory it has stays with it.
    pub(super) fn renew(&mut self, id: PacketRef, reuses: Option<PacketRef>) {
        // By name, so that no field is forgotten, and without moving the trails.
        let Self {
            id: first,
            reuses: before,
            due,
            duplicates,
            rounds,
            duplicate,
            established,
            pause,
            closer,
            reset,
            rtt_server,
            rtt_client,
            weight,
            trails,
        } = self;
        trails.clear();
        (*first, *before, *due) = (id, reuses, i64::MIN);
        (*duplicates, *rounds, *duplicate) = (0, 0, None);
        (*established, *pause, *closer, *reset) = (None, None, None, None);
        (*rtt_server, *rtt_client, *weight) = (None, None, 0);
    }

    /// Octets it takes beside itself, without those held behind holes.
    pub(super) fn heap(&self) -> usize {
        self.trails.heap()
    }

    /// What sinks see of the flow.
    pub(super) fn head(&self, flow: &Flow) -> FlowHead {
        FlowHead {
            id: self.id,
            transport: flow.key.protocol(),
            client: flow.key.end(flow.client),
            server: flow.key.end(flow.client.other()),
            role: flow.role,
            mid_stream: flow.mid_stream,
        }
    }

    /// Nothing about it would interest anybody: closed by FIN of both, no loss, no reset.
    pub(super) fn healthy(&self) -> bool {
        let plain = |trail: &Trail| trail.rare.as_ref().is_none_or(|rare| rare.loss.total() == 0);
        self.reset.is_none() && Way::BOTH.iter().all(|way| plain(&self.trails[*way]))
    }

    /// Everything that is known, by roles.
    pub(super) fn facts(&self, flow: &Flow) -> FlowFacts {
        let mut facts = FlowFacts::of(&self.head(flow));
        self.tell(flow, &mut facts);
        facts
    }

    /// The same in place of other facts. Field by field: what is written in small pieces and then moved as a whole waits until all of them
    /// have reached the cache, some 100 ns for each flow.
    pub(super) fn tell(&self, flow: &Flow, facts: &mut FlowFacts) {
        let head = self.head(flow);
        let FlowFacts {
            id,
            transport,
            client,
            server,
            role,
            handshake,
            mid_stream,
            reuses,
            last,
            rtt_server,
            rtt_client,
            vantage,
            close,
            closer,
            duplicates,
            rounds,
            duplicate,
            established,
            pause,
            from_client,
            from_server,
        } = facts;
        *id = self.id;
        *transport = head.transport;
        *client = head.client;
        *server = head.server;
        *role = flow.role;
        *handshake = self.handshake(flow);
        *mid_stream = flow.mid_stream;
        *reuses = self.reuses;
        *last = flow.last().map_or(self.id, Stamp::packet);
        *rtt_server = self.rtt_server;
        *rtt_client = self.rtt_client;
        *vantage = rtt::vantage(self.rtt_server, self.rtt_client);
        *close = self.close(flow);
        *closer = self.closer.map(|(way, at)| (flow.side(way), at.packet()));
        *duplicates = self.duplicates;
        *rounds = self.rounds;
        *duplicate = self.duplicate.map(|(original, copy)| (original.packet(), copy.packet()));
        *established = self.established.map(Stamp::packet);
        *pause = self.pause.map(|(before, after)| (before.packet(), after.packet()));
        self.half(flow, flow.client, from_client);
        self.half(flow, flow.client.other(), from_server);
    }

    fn handshake(&self, flow: &Flow) -> Handshake {
        let syn = self.trails[flow.client].syn_count > 0;
        let answer = self.trails[flow.client.other()].syn_count > 0;
        match (syn, answer, self.established.is_some()) {
            (true, true, true) => Handshake::Full,
            (_, true, _) => Handshake::SynAck,
            (true, false, _) => Handshake::Syn,
            (false, false, _) => Handshake::None,
        }
    }

    fn close(&self, flow: &Flow) -> Close {
        if let Some((way, kind)) = self.reset {
            return Close::Reset(flow.side(way), kind);
        }
        let fin = |way: Way| flow.tracks[way].marks.has(Marks::FIN);
        match (fin(flow.client), fin(flow.client.other())) {
            (true, true) => Close::Fin,
            (true, false) => Close::HalfClosed(Side::Client),
            (false, true) => Close::HalfClosed(Side::Server),
            (false, false) => Close::Open,
        }
    }

    fn half(&self, flow: &Flow, way: Way, half: &mut Half) {
        let (track, trail) = (&flow.tracks[way], &self.trails[way]);
        let peer = &flow.tracks[way.other()];
        let tcp = flow.key.protocol() == IpProtocol::Tcp;
        let seen = tcp && track.marks.has(Marks::SEEN);
        let Half {
            packets,
            octets,
            payload_sent,
            payload,
            segments,
            acknowledged,
            isn,
            next,
            acked,
            mss,
            window_scale,
            sack,
            timestamps,
            syns,
            syn_count,
            first,
            last,
            first_payload,
            last_payload,
            first_payload_acked,
            fin,
            fin_count,
            fin_acked,
            checksums,
            ttl,
            min_rtt,
            clock,
            pace,
            faces,
            trouble,
        } = half;
        *packets = u64::from(track.packets);
        *octets = track.octets;
        *payload_sent = track.sent;
        *payload = track.payload;
        *segments = u64::from(track.segments);
        *acknowledged = track.acknowledged;
        *isn = seen.then_some(trail.isn);
        *next = seen.then_some(track.next);
        *acked = peer.marks.has(Marks::ACKED).then_some(peer.una);
        *mss = trail.mss;
        *window_scale = trail.window_scale;
        *sack = trail.sack;
        *timestamps = trail.timestamps;
        syns.clear();
        trail.syns.iter().for_each(|copy| syns.push(copy.at.packet()));
        *syn_count = trail.syn_count;
        *first = trail.first.map(Stamp::packet);
        *last = track.last.map(Stamp::packet);
        *first_payload = trail.first_payload.map(Stamp::packet);
        *last_payload = track.last_payload.map(Stamp::packet);
        *first_payload_acked = trail.first_payload_acked.map(Stamp::packet);
        *fin = trail.fin.map(Stamp::packet);
        *fin_count = trail.fin_count;
        *fin_acked = trail.fin_acked.map(Stamp::packet);
        *checksums = (u32::from(trail.checksums.0), u32::from(trail.checksums.1));
        *ttl = (trail.ttl_first, track.ttl_min, track.ttl_max);
        *min_rtt = trail.min_rtt;
        *clock = trail.clock.map(Clock::facts);
        *pace = trail.pace.as_ref().map(|pace| Box::new(pace.facts()));
        faces.clear();
        trail.faces.iter().for_each(|face| faces.push(*face));
        *trouble = went_wrong(track, trail);
    }
}

/// What went wrong; most often nothing.
fn went_wrong(track: &Track, trail: &Trail) -> Option<Box<Trouble>> {
    let unacknowledged = unacknowledged(track, trail);
    if trail.rare.is_none() && unacknowledged.is_none() {
        return None;
    }
    let rare = trail.rare.as_deref().unwrap_or(&NOTHING);
    Some(Box::new(Trouble {
        resets: rare.resets.clone(),
        reset_count: rare.reset_count,
        loss: rare.loss.clone(),
        reordered: rare.reordered,
        keepalives: rare.keepalives,
        keepalives_answered: rare.keepalives_answered,
        zero_windows: rare.zero_windows.clone(),
        zero_window_count: rare.zero_window_count,
        zero_window_probes: rare.zero_window_probes,
        unseen: rare.unseen,
        unseen_acks: rare.unseen_acks,
        unseen_first: rare.unseen_first,
        unseen_last: rare.unseen_last,
        unacknowledged,
        overlap_conflicts: rare.overlap_conflicts,
        held_dropped: rare.held_dropped,
        cut: rare.cut,
        cut_first: rare.cut_first,
        oversized: rare.oversized,
        oversized_first: rare.oversized_first,
        checksum_first: rare.checksum_first,
        damages: rare.damage.as_ref().map_or(0, |damage| damage.count),
        damaged: rare.damage.as_ref().map_or_else(Vec::new, |damage| damage.shown.clone()),
    }))
}

/// The oldest payload, or else the FIN, that nobody acknowledged.
fn unacknowledged(track: &Track, trail: &Trail) -> Option<Unacknowledged> {
    if let Some(sent) = trail.flight.oldest() {
        let (first, last) = (sent.first.packet(), sent.last.packet());
        let rare = trail.rare.as_deref();
        let copy = rare.and_then(|rare| rare.copied.iter().rev().find(|copy| copy.start == sent.start));
        let copy_len = copy.map_or(sent.len, |copy| copy.end.minus(copy.start).unsigned_abs());
        let sacked = rare.map_or(0, |rare| rare.sacked_octets);
        return Some(Unacknowledged { first, last, copies: u32::from(sent.copies), len: sent.len, copy_len, sacked });
    }
    let first = trail.fin.filter(|_| !track.marks.has(Marks::FIN_ACKED))?.packet();
    let last = trail.fin_last.map_or(first, Stamp::packet);
    Some(Unacknowledged { first, last, copies: trail.fin_count, len: 0, copy_len: 0, sacked: 0 })
}
