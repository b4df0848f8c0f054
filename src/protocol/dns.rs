//! DNS over UDP and TCP: questions and answers. RFC 1035, RFC 7766.

use super::{Analyzer, Emit, index};
use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::facts::RoleSource;
use crate::flow::{FlowHead, Wants};
use crate::wire::dns;

/// Ports on which DNS is expected: unicast, multicast, link-local. Elsewhere the octets must say so alone.
const PORTS: [u16; 3] = [53, 5353, 5355];

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<OverTcp>::default()
}

/// One datagram: DNS or nothing.
pub(super) fn datagram(flow: &FlowHead, side: Side, at: PacketRef, bytes: &[u8], len: u32, emit: Emit<'_>) -> Wants {
    let expected = PORTS.contains(&flow.server.port) || PORTS.contains(&flow.client.port);
    if !expected && !dns::looks_like_dns(bytes) {
        return Wants::Nothing;
    }
    let cut = (bytes.len() as u32) < len;
    let Ok(message) = dns::parse(bytes, cut) else { return if expected { Wants::More } else { Wants::Nothing } };
    let guessed = matches!(flow.role, RoleSource::Port | RoleSource::Guess);
    let turned = guessed && !PORTS.contains(&flow.server.port) && message.response == (side == Side::Client);
    emit(Event { at, side, what: What::Recognised { protocol: Protocol::Dns } });
    emit(Event { at, side, what: What::Dns(Box::new(message)) });
    if turned { Wants::Flip } else { Wants::More }
}

/// Messages behind two octets of length.
#[derive(Default)]
struct OverTcp {
    held: [Vec<u8>; 2],
}

impl Analyzer for OverTcp {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let held = &mut self.held[index(side)];
        held.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(&[a, b]) = held.get(from..from + 2) {
            let end = from + 2 + usize::from(u16::from_be_bytes([a, b]));
            let Some(message) = held.get(from + 2..end) else { break };
            match dns::parse(message, false) {
                Ok(message) => emit(Event { at, side, what: What::Dns(Box::new(message)) }),
                Err(_) => return Wants::Nothing,
            }
            from = end;
        }
        held.drain(..from);
        Wants::More
    }

    fn gap(&mut self, _side: Side, _missing: u64) -> Wants {
        Wants::Nothing
    }

    fn end(&mut self, _side: Side, _at: PacketRef, _emit: Emit<'_>) {}

    fn flip(&mut self) {
        self.held.swap(0, 1);
    }
}
