//! Hand-made packets for the tests of this floor, and a sink that writes everything down.

use std::sync::Arc;

use super::facts::FlowFacts;
use super::table::{FlowTable, Lent, Limits};
use super::{Ended, FlowHead, Sink, Wants, checksum};
use crate::decode::{Datagram, Flags, Ip, Link, Packet, Pile, Segment, Transport};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, Kind, PacketRef, Side};
use crate::time::Timestamp;
use crate::wire::icmp::IcmpError;
use crate::wire::seq::Seq;
use crate::wire::{Address, Endpoint};

/// What a sink was told.
#[derive(Default)]
pub(super) struct Tape {
    pub(super) events: Vec<Event>,
    /// Octets lent of the client and of the server.
    pub(super) octets: [Vec<u8>; 2],
    pub(super) gaps: [u64; 2],
    pub(super) ends: [u32; 2],
    pub(super) ends_total: u32,
    pub(super) closed: Vec<(FlowFacts, Ended)>,
    /// Answer the next octets with [`Wants::Flip`].
    pub(super) flip: bool,
    /// Answer octets with [`Wants::Nothing`].
    pub(super) enough: bool,
}

impl Sink for Tape {
    type Conversation = ();

    fn open(&mut self, _: &FlowHead) {}

    fn freeze(_: &(), _: &mut Freezer) -> bool {
        true
    }

    fn thaw(_: &mut Thawer) -> Option<()> {
        Some(())
    }

    fn event(&mut self, _: &FlowHead, _: &mut (), event: Event) {
        self.events.push(event);
    }

    fn bytes(&mut self, _: &FlowHead, _: &mut (), side: Side, _: PacketRef, bytes: &[u8]) -> Wants {
        self.octets[side as usize].extend_from_slice(bytes);
        match (std::mem::take(&mut self.flip), self.enough) {
            (true, _) => Wants::Flip,
            (_, true) => Wants::Nothing,
            _ => Wants::More,
        }
    }

    fn gap(&mut self, _: &FlowHead, _: &mut (), side: Side, _: PacketRef, missing: u64) {
        self.gaps[side as usize] += missing;
    }

    fn datagram(&mut self, _: &FlowHead, _: &mut (), side: Side, _: PacketRef, bytes: &[u8], _: u32) -> Wants {
        self.octets[side as usize].extend_from_slice(bytes);
        if std::mem::take(&mut self.flip) { Wants::Flip } else { Wants::More }
    }

    fn end(&mut self, _: &FlowHead, _: &mut (), side: Side, _: PacketRef) {
        self.ends[side as usize] += 1;
        self.ends_total += 1;
    }

    fn closed(&mut self, facts: Box<FlowFacts>, _: (), why: Ended, _: Timestamp) {
        self.closed.push((*facts, why));
    }
}

/// What the checksum field holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Sum {
    /// Nothing.
    #[default]
    Empty,
    /// What it has to.
    Right,
    /// Something else.
    Wrong,
    /// The sum of the pseudo header only.
    Unfinished,
}

/// One packet. Sequence numbers are relative to the initial ones unless `absolute`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shot {
    pub(super) from_server: bool,
    /// The client's port.
    pub(super) port: u16,
    /// Letters of S, A, F, R, P.
    pub(super) flags: &'static str,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) absolute: bool,
    pub(super) payload: &'static [u8],
    /// Octets the snaplen cut off.
    pub(super) cut: u32,
    pub(super) window: u16,
    pub(super) options: &'static [u8],
    /// `None`: one more than the last.
    pub(super) id: Option<u16>,
    pub(super) ttl: u8,
    pub(super) interface: u16,
    pub(super) sum: Sum,
}

impl Default for Shot {
    fn default() -> Self {
        Self {
            from_server: false,
            port: 40_000,
            flags: "A",
            seq: 0,
            ack: 0,
            absolute: false,
            payload: b"",
            cut: 0,
            window: 1000,
            options: &[],
            id: None,
            ttl: 64,
            interface: 0,
            sum: Sum::Empty,
        }
    }
}

/// A table, its tape, and the numbers of the packets so far.
pub(super) struct Script {
    pub(super) table: FlowTable<Tape>,
    pub(super) sink: Tape,
    number: u64,
    time: Timestamp,
    ids: [u16; 2],
}

/// What a router says of the script's flow: host unreachable.
pub(super) const UNREACHABLE: IcmpError = IcmpError {
    from: Address(0),
    kind: 3,
    code: 1,
    v6: false,
    mtu: None,
    gateway: None,
    source: Script::CLIENT,
    destination: Script::SERVER,
    protocol: 6,
    ttl: 60,
    seq: None,
};

impl Script {
    pub(super) const CLIENT: Endpoint = Endpoint { address: Address(0xffff_0a00_0001), port: 40_000 };
    pub(super) const SERVER: Endpoint = Endpoint { address: Address(0xffff_0a00_0002), port: 80 };
    /// Initial sequence numbers, close before the wrap.
    const ISN: [u32; 2] = [u32::MAX - 2, u32::MAX - 1000];

    pub(super) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        let (number, time, ids) = (0, Timestamp(0), [100, 9_000]);
        Self { table: FlowTable::new(limits, 7), sink: Tape::default(), number, time, ids }
    }

    pub(super) fn seeded(seed: u64) -> Self {
        Self { table: FlowTable::new(Limits::default(), seed), ..Self::new() }
    }

    /// SYN at 0 ms, SYN+ACK at 2 ms, ACK at 3 ms; MSS 1460, no window scale.
    pub(super) fn handshake(&mut self) {
        let options = &[2, 4, 5, 0xb4];
        self.send(0, Shot { flags: "S", options, ..Shot::default() });
        self.send(2, Shot { flags: "SA", ack: 1, from_server: true, options, ..Shot::default() });
        self.client(3, "A", 1, 1, b"");
    }

    /// A packet of the client at `ms`.
    pub(super) fn client(&mut self, ms: i64, flags: &'static str, seq: u32, ack: u32, payload: &'static [u8]) {
        self.send(ms, Shot { flags, seq, ack, payload, ..Shot::default() });
    }

    /// A packet of the server at `ms`.
    pub(super) fn server(&mut self, ms: i64, flags: &'static str, seq: u32, ack: u32, payload: &'static [u8]) {
        self.send(ms, Shot { flags, seq, ack, payload, from_server: true, ..Shot::default() });
    }

    pub(super) fn send(&mut self, ms: i64, shot: Shot) {
        self.number += 1;
        self.time = Timestamp(ms * 1_000_000);
        let (me, peer) = if shot.from_server { (1, 0) } else { (0, 1) };
        let isn = |side: usize| if shot.absolute && side == me { 0 } else { Self::ISN[side] };
        let bits = [('S', Flags::SYN), ('A', Flags::ACK), ('F', Flags::FIN), ('R', Flags::RST), ('P', Flags::PSH)];
        let flags = bits.iter().filter(|(letter, _)| shot.flags.contains(*letter)).fold(0, |sum, (_, bit)| sum | bit.0);
        let client = Endpoint { port: shot.port, ..Self::CLIENT };
        let (source, destination) = if shot.from_server { (Self::SERVER, client) } else { (client, Self::SERVER) };
        self.ids[me] = shot.id.unwrap_or(self.ids[me].wrapping_add(1));
        let mut segment = Segment {
            source_port: source.port,
            destination_port: destination.port,
            seq: Seq(isn(me)).plus(shot.seq),
            ack: if shot.flags.contains('A') { Seq(isn(peer)).plus(shot.ack) } else { Seq(0) },
            flags: Flags(flags),
            window: shot.window,
            options: shot.options,
            payload: shot.payload,
            payload_len: shot.payload.len() as u32 + shot.cut,
            checksum: 0,
        };
        let ip = Ip {
            source: source.address,
            destination: destination.address,
            ttl: shot.ttl,
            id: Some(self.ids[me]),
            len: 40 + shot.payload.len() as u32 + shot.cut,
            reassembled: false,
            tunnelled: false,
        };
        segment.checksum = match shot.sum {
            Sum::Empty => 0,
            Sum::Right => checksum::right(&ip, &segment),
            Sum::Wrong => checksum::right(&ip, &segment) ^ 0x4000,
            Sum::Unfinished => checksum::unfinished_as(&ip, &segment),
        };
        let packet = Packet {
            at: PacketRef { file: 0, number: self.number, time: self.time },
            interface: shot.interface,
            link: Link::default(),
            ip: Some(ip),
            transport: Transport::Tcp(segment),
            cut: shot.cut > 0,
        };
        self.work(&packet);
    }

    /// A UDP datagram between the client's port and port 53 of the server, at `ms`.
    pub(super) fn datagram(&mut self, ms: i64, from_server: bool, id: u16, payload: &'static [u8]) {
        self.number += 1;
        self.time = Timestamp(ms * 1_000_000);
        let server = Endpoint { port: 53, ..Self::SERVER };
        let (source, destination) = if from_server { (server, Self::CLIENT) } else { (Self::CLIENT, server) };
        let len = payload.len() as u32;
        let packet = Packet {
            at: PacketRef { file: 0, number: self.number, time: self.time },
            interface: 0,
            link: Link::default(),
            ip: Some(Ip {
                source: source.address,
                destination: destination.address,
                ttl: 64,
                id: Some(id),
                len: 28 + len,
                reassembled: false,
                tunnelled: false,
            }),
            transport: Transport::Udp(Datagram {
                source_port: source.port,
                destination_port: destination.port,
                payload,
                payload_len: len,
            }),
            cut: false,
        };
        self.work(&packet);
    }

    /// The table may keep the packet, in a pile of its own.
    fn work(&mut self, packet: &Packet<'_>) {
        let mut pile = Pile::default();
        assert!(pile.push(packet));
        let mut number = None;
        let head = pile.head(0).expect("the packet");
        let lent = Lent { pile: &Arc::new(pile), place: 0, number: &mut number };
        let name = self.table.approach(&head);
        self.table.lent(&head, &name, lent, &mut self.sink);
        number.into_iter().for_each(|number| self.table.settle(number));
    }

    /// Capture time comes to `second`.
    pub(super) fn tick(&mut self, second: i64) {
        self.table.tick(Timestamp(second * 1_000_000_000), &mut self.sink);
    }

    pub(super) fn finish(&mut self) {
        self.table.finish(self.time, &mut self.sink);
    }

    /// The facts of the youngest flow in the table.
    pub(super) fn facts(&self) -> FlowFacts {
        let mut latest = None;
        self.table.snapshot(|facts, ()| latest = Some(facts));
        latest.expect("a flow is in the table")
    }

    /// Kinds of the events so far, without the checksums, which are wrong on purpose.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        self.sink.events.iter().map(|event| event.what.kind()).filter(|kind| *kind != Kind::BadChecksum).collect()
    }
}
