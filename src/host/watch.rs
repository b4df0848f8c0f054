//! Listens to every host while the capture is read: finds the times in which it was asked again and again and nothing came back.
//!
//! Works on packets in capture order, so it lives on the reading side. Only what wants an answer counts as asking: a SYN, payload, a FIN,
//! a DNS query. Frames that are no TCP, UDP or ICMP are never an answer from beyond the link.

use super::grid::{Cell, Grid, Quiet, Silence};
use super::places::{Key, Places};
use crate::decode::{Flags, Packet, Transport, flow_hash};
use crate::event::{PacketRef, Stamp};
use crate::time::{Elapsed, Timestamp};
use crate::wire::arp::Neighbor;
use crate::wire::{Address, Mac};

/// What is known of all hosts so far.
#[derive(Clone)]
pub struct Watch {
    lanes: Places<Address, Lane>,
    /// What came from each link address, and what was sent through it.
    hops: Places<Hop, Way>,
    grid: Grid,
    /// The second at hand, when it begins, and how long it lasts: no time at all before the first packet.
    second: i64,
    begins: i64,
    lasts: u64,
    cell: Cell,
    black: Elapsed,
}

/// Both directions of one host.
#[derive(Clone, Default)]
struct Lane {
    /// Packets from it, and what others asked of it.
    from: Way,
    /// Packets to it, and what it asked of others.
    to: Way,
}

/// One direction: when something was heard, how often, and who waits for it.
#[derive(Clone, Default)]
struct Way {
    heard: Option<Stamp>,
    rate: Rate,
    asked: Option<Stamp>,
    waits: Option<Box<Waits>>,
}

/// Packets in this and the previous ten seconds.
#[derive(Clone, Copy)]
struct Rate {
    /// The second with which the next ten begin.
    until: i64,
    now: u32,
    before: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { until: WINDOW, now: 0, before: 0 }
    }
}

/// What was asked since, once the answer is late.
#[derive(Clone)]
struct Waits {
    /// Who asked first when the answer was late.
    asker: Address,
    last: PacketRef,
    asks: u64,
    repeats: u64,
    repeated: Option<PacketRef>,
    /// Flow and sequence number, when asked first, and whether it was asked again.
    seen: Vec<(u64, u32, Timestamp, bool)>,
    /// Who was asked, and when first.
    others: Vec<(Address, Timestamp)>,
    arp: u64,
    arp_first: Option<PacketRef>,
    /// When ARP of a host that was asked came, and the first question after it.
    alive: Option<Timestamp>,
    ignored: Option<Timestamp>,
}

/// A link address in one word, as it is looked up for every packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Hop(u64);

impl From<Mac> for Hop {
    #[inline]
    fn from(Mac([a, b, c, d, e, f]): Mac) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

impl Hop {
    fn mac(self) -> Mac {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        Mac([a, b, c, d, e, f])
    }
}

impl Key for Hop {
    #[inline]
    fn number(&self) -> u64 {
        self.0
    }
}

/// Hosts watched; the packets of others are counted as unwatched.
const HOSTS: usize = 16_384;
/// An answer this late is worth remembering who waits for it.
const LATE: Elapsed = Elapsed::millis(300);
/// Copies closer together are made by the capture (`-i any`, a mirror port), not by the sender.
const COPY: Elapsed = Elapsed::millis(100);
/// Questions remembered during one silence.
const SEEN: usize = 64;
/// Link addresses watched.
const HOPS: usize = 1024;
const OTHERS: usize = 16;
const WINDOW: i64 = 10;

impl Watch {
    /// Silences from `black` on are kept.
    pub fn new(black: Elapsed) -> Self {
        Self {
            lanes: Places::new(HOSTS),
            hops: Places::new(HOPS),
            grid: Grid::default(),
            second: i64::MIN,
            begins: 0,
            lasts: 0,
            cell: Cell::default(),
            black,
        }
    }

    /// Looks at one packet; `at` is its own.
    #[inline(always)]
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, at: Stamp) {
        let Some(ip) = packet.ip.as_ref() else { return };
        if same(ip.source, ip.destination) || stays_inside(ip.source) {
            return;
        }
        let asks = self.count(packet, at.time(), ip.len);
        let now = Now { stamp: at, late: at.time() - LATE, second: self.second };
        if let Some(lane) = self.lanes.get(ip.source) {
            if lane.from.hear(&now) {
                lane.from.ended((Some(ip.source), Quiet::Mute, None), packet, self.black, &mut self.grid);
            }
            if asks && lane.to.ask(&now) {
                lane.to.wait(packet, ip.destination, ip.source);
            }
        } else {
            self.grid.unwatched += 1;
        }
        if let Some(lane) = self.lanes.get(ip.destination) {
            if lane.to.hear(&now) {
                lane.to.ended((Some(ip.destination), Quiet::Deaf, None), packet, self.black, &mut self.grid);
            }
            if asks && lane.from.ask(&now) {
                lane.from.wait(packet, ip.source, ip.destination);
            }
        } else {
            self.grid.unwatched += 1;
        }
        // The same for the link addresses: what is sent through a router, and whether anything comes from it.
        let (Some(source), Some(destination)) = (packet.link.source, packet.link.destination) else { return };
        if let Some(way) = self.hops.get(Hop::from(source))
            && way.hear(&now)
        {
            way.ended((None, Quiet::Hop, Some(source)), packet, self.black, &mut self.grid);
        }
        if asks
            && let Some(way) = self.hops.get(Hop::from(destination))
            && way.ask(&now)
        {
            way.wait(packet, ip.destination, ip.source);
        }
    }

    /// Looks at an ARP packet: who asks for a neighbour while nothing comes.
    pub fn arp(&mut self, at: PacketRef, neighbor: &Neighbor) {
        if !neighbor.gratuitous {
            self.alive(at, neighbor.sender);
        }
        if neighbor.request
            && !neighbor.gratuitous
            && let Some(waits) = self.lanes.known(&neighbor.sender).and_then(|lane| lane.to.waits.as_mut())
        {
            waits.arp += 1;
            waits.arp_first.get_or_insert(at);
        }
    }

    /// A host whose ARP comes through the link is not cut off, whatever it goes on leaving unanswered: neither it nor, because of it, those
    /// who wait for it.
    fn alive(&mut self, at: PacketRef, host: Address) {
        let Some(waits) = self.lanes.known(&host).and_then(|lane| lane.from.waits.as_mut()) else { return };
        waits.alive.get_or_insert(at.time);
        let waiting: Vec<Address> = waits.others.iter().map(|(other, _)| *other).collect();
        for other in waiting {
            if let Some(waits) = self.lanes.known(&other).and_then(|lane| lane.to.waits.as_mut()) {
                waits.alive.get_or_insert(at.time);
            }
        }
    }

    /// Everything it saw; `end` is the capture's last moment.
    pub fn finish(mut self, end: Timestamp) -> Grid {
        self.grid.seconds.add(self.second, &self.cell);
        if self.second == i64::MIN {
            self.grid.seconds = Default::default();
        }
        let mut open = Vec::new();
        for (host, lane) in self.lanes.into_all() {
            for (quiet, way) in [(Quiet::Mute, lane.from), (Quiet::Deaf, lane.to)] {
                open.extend(way.silence((Some(host), quiet, None), None, end, self.black));
            }
        }
        for (hop, way) in self.hops.into_all() {
            open.extend(way.silence((None, Quiet::Hop, Some(hop.mac())), None, end, self.black));
        }
        // Places in the grid are by key: the order does not show.
        open.into_iter().for_each(|silence| self.grid.keep(silence));
        self.grid
    }

    /// Counts a packet in the cell of its second; whether it wants an answer.
    #[inline]
    fn count(&mut self, packet: &Packet<'_>, time: Timestamp, octets: u32) -> bool {
        if time.0.wrapping_sub(self.begins) as u64 >= self.lasts {
            self.turn(time);
        }
        self.cell.packets += 1;
        self.cell.octets += u64::from(octets);
        match &packet.transport {
            Transport::Tcp(segment) => {
                let flags = segment.flags;
                let ends = Flags::SYN.0 | Flags::FIN.0 | Flags::RST.0;
                if flags.0 & ends == 0 {
                    return segment.payload_len > 0;
                }
                let (syn, ack, reset) = (flags.has(Flags::SYN), flags.has(Flags::ACK), flags.has(Flags::RST));
                self.cell.syns += u64::from(syn && !ack);
                self.cell.answers += u64::from(syn && ack);
                self.cell.resets += u64::from(reset);
                !reset
            }
            Transport::Udp(datagram) => datagram.destination_port == 53,
            _ => false,
        }
    }

    /// Another second than that of the packet before.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, time: Timestamp) {
        if self.second != i64::MIN {
            self.grid.seconds.add(self.second, &self.cell);
        }
        (self.second, self.cell) = (time.second(), Cell::default());
        (self.begins, self.lasts) = (self.second.wrapping_mul(1_000_000_000), 1_000_000_000);
    }
}

/// Whether two addresses that were just written, half by half, are the same: compared in halves too, because a load of all 16 octets would
/// wait until both stores, and all those of the packet before, have reached the cache.
#[inline]
fn same(a: Address, b: Address) -> bool {
    let [high, low] = [(a.0 >> 64) as u64 ^ (b.0 >> 64) as u64, a.0 as u64 ^ b.0 as u64];
    high | low == 0
}

/// Whether packets from an address never leave the host. Nearly all are told from those by one word.
#[inline]
fn stays_inside(source: Address) -> bool {
    let low = source.0 as u64;
    (low == 1 || low >> 24 == 0xff_ff7f) && source.is_loopback()
}

/// The moment of a packet, once for everybody who hears of it.
struct Now {
    stamp: Stamp,
    /// Who asked then waits for long.
    late: Timestamp,
    second: i64,
}

/// Whose silence (of a hop whoever asked first), which kind, and the link address of a hop.
type Who = (Option<Address>, Quiet, Option<Mac>);

impl Way {
    /// Something was heard. Whether somebody waited for it: then a silence may have ended.
    #[inline]
    fn hear(&mut self, now: &Now) -> bool {
        if self.waits.is_some() {
            return true;
        }
        self.asked = None;
        self.rate.count(now.second);
        self.heard = Some(now.stamp);
        false
    }

    /// Something was heard, for which somebody waited. The way starts anew with what it knows of its rate; a silence that was long enough
    /// is kept.
    #[cold]
    #[inline(never)]
    fn ended(&mut self, who: Who, packet: &Packet<'_>, black: Elapsed, grid: &mut Grid) {
        let at = packet.at;
        let fresh = Self { heard: Some(at.into()), rate: self.rate, ..Self::default() };
        if let Some(silence) = std::mem::replace(self, fresh).silence(who, Some(at), at.time, black) {
            grid.keep(silence);
        }
        self.rate.count(at.time.second());
    }

    fn silence(
        self,
        (host, quiet, hop): Who,
        until: Option<PacketRef>,
        end: Timestamp,
        black: Elapsed,
    ) -> Option<Silence> {
        let (heard, asked, waits) = (self.heard?.packet(), self.asked?.packet(), self.waits?);
        let host = host.unwrap_or(waits.asker);
        // Who is there, and answers nothing for all that, was not cut off.
        let ignored = waits.ignored.is_some_and(|asked| end.since(asked) >= LATE);
        if end.since(asked.time) < black || ignored {
            return None;
        }
        let repeated = waits.repeated?;
        let mut flows: Vec<(u64, bool)> = waits.seen.iter().map(|(flow, _, _, again)| (*flow, !*again)).collect();
        flows.sort_unstable();
        flows.dedup_by_key(|(flow, _)| *flow);
        Some(Silence {
            host,
            hop,
            quiet,
            heard,
            rate: self.rate.now.max(self.rate.before),
            asked,
            asked_last: waits.last,
            asks: waits.asks,
            repeats: waits.repeats,
            repeated,
            flows: flows.len() as u32,
            repeating: flows.iter().filter(|(_, once)| !once).count() as u32,
            // Who was asked only at the end and answered was not silent.
            others: waits
                .others
                .into_iter()
                .filter(|(_, first)| end.since(*first) >= LATE)
                .map(|(other, _)| other)
                .collect(),
            arp: waits.arp,
            arp_first: waits.arp_first,
            until,
        })
    }

    /// A question. Whether an earlier one seems to be unanswered for long: [`Way::wait`] looks closely.
    #[inline]
    fn ask(&mut self, now: &Now) -> bool {
        match self.asked {
            Some(asked) => asked.time() <= now.late || self.waits.is_some(),
            None => {
                self.asked = Some(now.stamp);
                false
            }
        }
    }

    /// One more question while an earlier one is unanswered for long.
    #[cold]
    #[inline(never)]
    fn wait(&mut self, packet: &Packet<'_>, other: Address, asker: Address) {
        let Some(asked) = self.asked else { return };
        if self.waits.is_none() && packet.at.time.since(asked.time()) < LATE {
            return;
        }
        let Some((flow, seq)) = question(packet) else { return };
        let at = packet.at;
        let waits = self.waits.get_or_insert_with(|| Box::new(Waits::new(asked.packet(), asker)));
        waits.last = at;
        waits.asks += 1;
        if waits.alive.is_some() {
            waits.ignored.get_or_insert(at.time);
        }
        match waits.seen.iter().position(|known| (known.0, known.1) == (flow, seq)) {
            Some(place) => {
                let (_, _, first, again) = &mut waits.seen[place];
                if at.time.since(*first) >= COPY {
                    *again = true;
                    waits.repeats += 1;
                    waits.repeated.get_or_insert(at);
                }
            }
            None if waits.seen.len() < SEEN => waits.seen.push((flow, seq, at.time, false)),
            None => {}
        }
        if waits.others.len() < OTHERS && !waits.others.iter().any(|(known, _)| *known == other) {
            waits.others.push((other, at.time));
        }
    }
}

impl Waits {
    fn new(asked: PacketRef, asker: Address) -> Self {
        Self {
            asker,
            last: asked,
            asks: 1,
            repeats: 0,
            repeated: None,
            seen: Vec::new(),
            others: Vec::new(),
            arp: 0,
            arp_first: None,
            alive: None,
            ignored: None,
        }
    }
}

impl Rate {
    #[inline]
    fn count(&mut self, second: i64) {
        if second >= self.until {
            self.begin(second);
        }
        self.now = self.now.saturating_add(1);
    }

    #[cold]
    #[inline(never)]
    fn begin(&mut self, second: i64) {
        self.before = if second < self.until + WINDOW { self.now } else { 0 };
        (self.until, self.now) = (second + WINDOW, 0);
    }
}

/// A hash of the flow and the sequence number (DNS: the transaction id) of a packet that wants an answer.
fn question(packet: &Packet<'_>) -> Option<(u64, u32)> {
    let (source, destination) = (packet.source()?, packet.destination()?);
    match &packet.transport {
        Transport::Tcp(segment) => Some((flow_hash(source, destination, 6), segment.seq.0)),
        Transport::Udp(datagram) => {
            let id = datagram.payload.get(..2).map_or(0, |id| u32::from(id[0]) << 8 | u32::from(id[1]));
            Some((flow_hash(source, destination, 17), id))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Datagram, Ip, Link};

    fn at(ms: i64) -> PacketRef {
        PacketRef { file: 0, number: ms as u64 + 1, time: Timestamp::default() + Elapsed::millis(ms) }
    }

    fn address(last: u8) -> Address {
        Address::v4([10, 0, 0, last])
    }

    /// A DNS message with the transaction id `id`.
    fn dns(watch: &mut Watch, ms: i64, from: u8, to: u8, id: u16) {
        let (source_port, destination_port) = if from == 1 { (40_000 + id, 53) } else { (53, 40_000 + id) };
        let payload = [id.to_be_bytes(), [0; 2]].concat();
        let ip = Ip {
            source: address(from),
            destination: address(to),
            ttl: 64,
            id: None,
            len: 32,
            reassembled: false,
            tunnelled: false,
        };
        let transport = Transport::Udp(Datagram { source_port, destination_port, payload: &payload, payload_len: 4 });
        let link = Link::default();
        watch.packet(&Packet { at: at(ms), interface: 0, link, ip: Some(ip), transport, cut: false }, at(ms).into());
    }

    /// Host 1 gets answers of host 2 for a second, then repeats three questions in vain for nine.
    fn deserted(arp_at: &[i64]) -> Grid {
        let mut watch = Watch::new(Elapsed::secs(5));
        for n in 0..20 {
            dns(&mut watch, n * 50, 1, 2, n as u16);
            dns(&mut watch, n * 50 + 1, 2, 1, n as u16);
        }
        let mut times: Vec<(i64, Option<u16>)> = (2..11).map(|n| (n * 1000, Some(100 + n as u16 % 3))).collect();
        times.extend(arp_at.iter().map(|ms| (*ms, None)));
        times.sort_unstable();
        for (ms, id) in times {
            match id {
                Some(id) => dns(&mut watch, ms, 1, 2, id),
                None => {
                    let (sender, target) = (address(2), address(200));
                    watch.arp(at(ms), &Neighbor { request: true, sender, sender_mac: None, target, gratuitous: false });
                }
            }
        }
        watch.finish(Timestamp::default() + Elapsed::secs(11))
    }

    #[test]
    fn a_host_that_answers_nothing_for_nine_seconds_is_silent() {
        let silences = deserted(&[]).silences;
        let quiet: Vec<Quiet> = silences.iter().map(|silence| silence.quiet).collect();
        assert!(quiet.contains(&Quiet::Mute) && quiet.contains(&Quiet::Deaf), "{quiet:?}");
    }

    #[test]
    fn a_host_whose_arp_still_arrives_is_not_cut_off() {
        assert_eq!(deserted(&[5100]).silences, []);
    }

    #[test]
    fn arp_at_its_end_is_how_a_network_comes_back() {
        assert!(!deserted(&[10_900]).silences.is_empty());
    }
}
