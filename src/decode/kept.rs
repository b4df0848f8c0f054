//! A packet that is looked at later: its octets are copied to where others of them lie, the rest stands apart.

use super::{Datagram, Ip, Link, Packet, Segment, Transport};
use crate::event::PacketRef;

/// A TCP or UDP packet whose options and payload lie in a buffer.
#[derive(Debug)]
pub(crate) struct Kept {
    at: PacketRef,
    interface: u16,
    link: Link,
    ip: Option<Ip>,
    cut: bool,
    transport: KeptTransport,
}

#[derive(Debug)]
enum KeptTransport {
    Tcp { segment: Segment<'static>, options: (u32, u32), payload: (u32, u32) },
    Udp { datagram: Datagram<'static>, payload: (u32, u32) },
}

impl Kept {
    /// Keeps a packet, its octets behind those in `octets`. `None` where it is neither TCP nor UDP.
    pub(crate) fn of(packet: &Packet<'_>, octets: &mut Vec<u8>) -> Option<Self> {
        let mut put = |more: &[u8]| {
            let from = octets.len() as u32;
            octets.extend_from_slice(more);
            (from, octets.len() as u32)
        };
        let transport = match &packet.transport {
            Transport::Tcp(segment) => KeptTransport::Tcp {
                options: put(segment.options),
                payload: put(segment.payload),
                segment: Segment { options: &[], payload: &[], ..*segment },
            },
            Transport::Udp(datagram) => {
                KeptTransport::Udp { payload: put(datagram.payload), datagram: Datagram { payload: &[], ..*datagram } }
            }
            _ => return None,
        };
        let Packet { at, interface, link, ip, cut, .. } = *packet;
        Some(Self { at, interface, link, ip, cut, transport })
    }

    /// The packet as it was; `all` are the octets it was kept with.
    pub(crate) fn packet<'a>(&self, all: &'a [u8]) -> Packet<'a> {
        let octets = |(from, to): (u32, u32)| all.get(from as usize..to as usize).unwrap_or(&[]);
        let transport = match &self.transport {
            KeptTransport::Tcp { segment, options, payload } => {
                Transport::Tcp(Segment { options: octets(*options), payload: octets(*payload), ..*segment })
            }
            KeptTransport::Udp { datagram, payload } => {
                Transport::Udp(Datagram { payload: octets(*payload), ..*datagram })
            }
        };
        let Self { at, interface, link, ip, cut, .. } = *self;
        Packet { at, interface, link, ip, transport, cut }
    }
}
