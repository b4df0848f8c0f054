//! The TCP flows of a capture, from the decoder and the flow table alone: no protocols, no rules, every flow whole.

use std::path::Path;

use tcpwhy::capture::{OpenOptions, Source};
use tcpwhy::decode::Decoder;
use tcpwhy::event::{Event, PacketRef, Side};
use tcpwhy::flow::facts::{FlowFacts, IpProtocol};
use tcpwhy::flow::table::{FlowTable, Limits};
use tcpwhy::flow::{Ended, FlowHead, Sink, Wants};
use tcpwhy::time::Timestamp;

/// Keeps the facts of TCP flows, and what was lent of each direction.
#[derive(Default)]
struct Recorder {
    flows: Vec<(FlowFacts, Lent)>,
}

/// What was lent of each direction, in octets; and how often its end was told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lent {
    pub octets: [u64; 2],
    pub gaps: [u64; 2],
    pub ends: [u32; 2],
}

impl Sink for Recorder {
    type Conversation = Lent;

    fn open(&mut self, _: &FlowHead) -> Lent {
        Lent::default()
    }

    fn event(&mut self, _: &FlowHead, _: &mut Lent, _: Event) {}

    fn bytes(&mut self, _: &FlowHead, lent: &mut Lent, side: Side, _: PacketRef, bytes: &[u8]) -> Wants {
        lent.octets[side as usize] += bytes.len() as u64;
        Wants::More
    }

    fn gap(&mut self, _: &FlowHead, lent: &mut Lent, side: Side, _: PacketRef, missing: u64) {
        lent.gaps[side as usize] += missing;
    }

    fn datagram(&mut self, _: &FlowHead, _: &mut Lent, _: Side, _: PacketRef, _: &[u8], _: u32) -> Wants {
        Wants::Nothing
    }

    fn end(&mut self, _: &FlowHead, lent: &mut Lent, side: Side, _: PacketRef) {
        lent.ends[side as usize] += 1;
    }

    fn closed(&mut self, facts: Box<FlowFacts>, lent: Lent, _: Ended, _: Timestamp) {
        if facts.transport == IpProtocol::Tcp {
            self.flows.push((*facts, lent));
        }
    }
}

/// The TCP flows of a capture in the order of their first packets; none when it is no capture.
pub fn flows(path: &Path, seed: u64) -> Vec<(FlowFacts, Lent)> {
    let (mut decoder, mut sink) = (Decoder::new(Default::default()), Recorder::default());
    let mut table = FlowTable::new(Limits::default(), seed);
    let (mut second, mut last) = (i64::MIN, Timestamp::MIN);
    let path = path.to_string_lossy();
    let Ok(mut source) = Source::open(&[path.as_ref()], &OpenOptions::default()) else { return Vec::new() };
    while let Ok(Some(frame)) = source.next() {
        last = last.max(frame.time);
        if last.second() > second {
            second = last.second();
            table.tick(Timestamp(second.saturating_mul(1_000_000_000)), &mut sink);
        }
        table.packet(&decoder.decode(&frame), &mut sink);
    }
    table.finish(last, &mut sink);
    sink.flows.sort_by_key(|(facts, _)| facts.id.number);
    sink.flows
}

/// `address:port`, an IPv6 address without brackets.
pub fn text(end: &tcpwhy::wire::Endpoint) -> String {
    format!("{}:{}", end.address, end.port)
}
