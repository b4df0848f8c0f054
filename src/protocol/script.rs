//! Plays octets to a [`Dissector`] as the flow table would, for the tests of this floor.

use super::Dissector;
use crate::capture::{OpenOptions, Source};
use crate::decode::Decoder;
use crate::event::cold::{Freezer, Templates, Thawer};
use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::facts::{FlowFacts, IpProtocol, RoleSource};
use crate::flow::table::{FlowTable, Limits};
use crate::flow::{Ended, FlowHead, Sink, Wants};
use crate::time::{Elapsed, Timestamp};
use crate::wire::{Address, Endpoint};

/// A flow from 192.0.2.1:50000 to 192.0.2.2:8000 whose handshake was seen.
pub(super) fn head() -> FlowHead {
    let end = |last, port| Endpoint::new(Address::v4([192, 0, 2, last]), port);
    FlowHead {
        id: PacketRef { file: 0, number: 1, time: Timestamp(0) },
        transport: IpProtocol::Tcp,
        client: end(1, 50_000),
        server: end(2, 8_000),
        role: RoleSource::Handshake,
        mid_stream: false,
    }
}

/// A dissector, its flow, and what it said.
pub(super) struct Play {
    pub head: FlowHead,
    pub events: Vec<Event>,
    dissector: Dissector,
    now: Timestamp,
}

impl Play {
    pub(super) fn new() -> Self {
        Self { head: head(), events: Vec::new(), dissector: Dissector::default(), now: Timestamp(0) }
    }

    /// A flow whose beginning was not captured and whose roles are a guess.
    pub(super) fn mid_stream() -> Self {
        let mut play = Self::new();
        (play.head.mid_stream, play.head.role) = (true, RoleSource::Guess);
        play
    }

    pub(super) fn wait(&mut self, span: Elapsed) {
        self.now = self.now + span;
    }

    fn at(&mut self) -> PacketRef {
        self.now = self.now + Elapsed::micros(1);
        PacketRef { file: 0, number: 1, time: self.now }
    }

    fn play(
        &mut self,
        act: impl FnOnce(&mut Dissector, &FlowHead, PacketRef, &mut dyn FnMut(Event)) -> Wants,
    ) -> Wants {
        let at = self.at();
        let Self { dissector, head, events, .. } = self;
        let wants = act(dissector, head, at, &mut |event| events.push(event));
        if wants == Wants::Flip {
            assert_ne!(head.role, RoleSource::Handshake, "a handshake cannot be argued with");
            events.iter_mut().for_each(|event| event.side = event.side.other());
            std::mem::swap(&mut head.client, &mut head.server);
            head.role = RoleSource::Layer7;
        }
        wants
    }

    pub(super) fn bytes(&mut self, side: Side, bytes: &[u8]) -> Wants {
        self.play(|dissector, head, at, emit| dissector.bytes(head, side, at, bytes, emit))
    }

    /// Octets the dissector is taken to hold.
    pub(super) fn weight(&self) -> usize {
        self.dissector.weight()
    }

    pub(super) fn client(&mut self, bytes: &[u8]) -> Wants {
        self.bytes(Side::Client, bytes)
    }

    pub(super) fn server(&mut self, bytes: &[u8]) -> Wants {
        self.bytes(Side::Server, bytes)
    }

    pub(super) fn datagram(&mut self, side: Side, bytes: &[u8]) -> Wants {
        self.play(|dissector, head, at, emit| dissector.datagram(head, side, at, bytes, bytes.len() as u32, emit))
    }

    /// Freezes and thaws what is kept of the flow, where it can be.
    pub(super) fn freeze(&mut self) -> bool {
        let mut into = Freezer::default();
        if !self.dissector.freeze(&mut into) {
            return false;
        }
        let mut templates = Templates::default();
        let octets = into.finish(&[], &mut templates);
        self.dissector =
            Thawer::of(&octets, &templates).and_then(|mut from| Dissector::thaw(&mut from)).expect("what was frozen");
        true
    }

    pub(super) fn gap(&mut self, side: Side, missing: u64) {
        self.dissector.gap(&self.head, side, missing);
    }

    pub(super) fn end(&mut self, side: Side) {
        self.play(|dissector, head, at, emit| {
            dissector.end(head, side, at, emit);
            Wants::More
        });
    }

    pub(super) fn settle(&mut self) {
        self.play(|dissector, _, _, emit| {
            dissector.settle(emit);
            Wants::More
        });
    }

    /// What was recognised, in order.
    pub(super) fn recognised(&self) -> Vec<(Side, Protocol)> {
        let told = self.events.iter().filter_map(|e| match e.what {
            What::Recognised { protocol } => Some((e.side, protocol)),
            _ => None,
        });
        told.collect()
    }

    /// Every event, without its packet.
    pub(super) fn said(&self) -> Vec<(Side, &What)> {
        self.events.iter().map(|e| (e.side, &e.what)).collect()
    }
}

/// What happened to one flow of a capture, as the flow table lent it.
#[derive(Clone, Debug)]
pub(super) enum Act {
    Bytes(Side, Vec<u8>),
    Gap(Side, u64),
    Datagram(Side, Vec<u8>),
    End(Side),
}

/// Plays a recorded flow, its octets in pieces of at most `size`.
pub(super) fn replay(head: FlowHead, acts: &[Act], size: usize) -> Play {
    replay_with(head, acts, size, |_| ())
}

/// The same, with something between the pieces.
pub(super) fn replay_with(head: FlowHead, acts: &[Act], size: usize, mut between: impl FnMut(&mut Play)) -> Play {
    let mut play = Play { head, ..Play::new() };
    // The roles of a recorded flow do not turn again when it is played.
    for act in acts {
        match act {
            Act::Bytes(side, bytes) => bytes.chunks(size.max(1)).for_each(|piece| {
                play.bytes(*side, piece);
                between(&mut play);
            }),
            Act::Gap(side, missing) => play.gap(*side, *missing),
            Act::Datagram(side, bytes) => {
                play.datagram(*side, bytes);
            }
            Act::End(side) => play.end(*side),
        }
        between(&mut play);
    }
    play
}

/// Writes down what every flow of a capture is lent.
#[derive(Default)]
struct Scribe(Vec<(FlowHead, Vec<Act>)>);

impl Sink for Scribe {
    type Conversation = usize;

    fn open(&mut self, flow: &FlowHead) -> usize {
        self.0.push((*flow, Vec::new()));
        self.0.len() - 1
    }

    fn event(&mut self, _: &FlowHead, _: &mut usize, _: Event) {}

    fn bytes(&mut self, _: &FlowHead, number: &mut usize, side: Side, _: PacketRef, bytes: &[u8]) -> Wants {
        self.0[*number].1.push(Act::Bytes(side, bytes.to_vec()));
        Wants::More
    }

    fn gap(&mut self, _: &FlowHead, number: &mut usize, side: Side, _: PacketRef, missing: u64) {
        self.0[*number].1.push(Act::Gap(side, missing));
    }

    fn datagram(&mut self, _: &FlowHead, number: &mut usize, side: Side, _: PacketRef, bytes: &[u8], _: u32) -> Wants {
        self.0[*number].1.push(Act::Datagram(side, bytes.to_vec()));
        Wants::More
    }

    fn end(&mut self, _: &FlowHead, number: &mut usize, side: Side, _: PacketRef) {
        self.0[*number].1.push(Act::End(side));
    }

    fn closed(&mut self, _: Box<FlowFacts>, _: usize, _: Ended, _: Timestamp) {}
}

/// Every flow of a capture of the project, by its path below `captures/`.
pub(super) fn recorded(path: &str) -> Vec<(FlowHead, Vec<Act>)> {
    let path = format!("{}/captures/{path}", env!("CARGO_MANIFEST_DIR"));
    let mut source = Source::open(&[&path], &OpenOptions::default()).expect("a capture of the project");
    let mut table = FlowTable::new(Limits::default(), 1);
    let mut decoder = Decoder::new(Default::default());
    let mut scribe = Scribe::default();
    let mut now = Timestamp(0);
    while let Some(frame) = source.next().expect("a sound capture") {
        now = frame.time;
        table.packet(&decoder.decode(&frame), &mut scribe);
    }
    table.finish(now, &mut scribe);
    scribe.0
}
