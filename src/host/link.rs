//! Signs that a link or a switch port came back: spanning-tree changes, and hosts that introduce themselves.
//!
//! IEEE 802.1D-2004 §9.3 (BPDU), RFC 5227 (ARP announcements), RFC 4862 §5.4.2 (probes for duplicates), RFC 4861 §6.3.7 (router
//! solicitations), RFC 2131 §4.4.1 (DHCP), IEEE 802.1AB (LLDP).

use serde::{Deserialize, Serialize};

use crate::decode::{Packet, Transport};
use crate::event::PacketRef;
use crate::wire::{Mac, arp};

/// All such signs, in order of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkSigns {
    /// The first 256.
    pub kept: Vec<Sign>,
    /// How many there were.
    pub count: u64,
}

/// One sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sign {
    /// Its packet.
    pub at: PacketRef,
    /// What it was.
    pub kind: SignKind,
    /// Who sent it, where the link header says.
    pub from: Option<Mac>,
}

/// What a sign is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SignKind {
    /// A bridge says that the spanning tree changes.
    TopologyChange,
    /// ARP announcement, or an advertisement nobody asked for.
    Announcement,
    /// A host asks whether somebody else has the address it wants.
    Probe,
    /// A host looks for routers.
    RouterSolicitation,
    /// A host without an address asks for one.
    DhcpRequest,
    /// A neighbour introduces itself by LLDP.
    Lldp,
}

impl SignKind {
    /// Words for it.
    pub fn says(self) -> &'static str {
        match self {
            Self::TopologyChange => "spanning tree: topology change",
            Self::Announcement => "announces its address",
            Self::Probe => "probes for a duplicate of its address",
            Self::RouterSolicitation => "looks for routers",
            Self::DhcpRequest => "asks for an address (DHCP)",
            Self::Lldp => "introduces itself (LLDP)",
        }
    }
}

impl LinkSigns {
    /// Signs kept; the others are only counted.
    pub const CAP: usize = 256;

    /// Learns from one packet and the octets of its frame.
    pub fn learn(&mut self, at: PacketRef, packet: &Packet<'_>, frame: &[u8]) {
        if let Some(kind) = kind_of(packet, frame) {
            self.count += 1;
            self.keep(Sign { at, kind, from: packet.link.source });
        }
    }

    /// Adds what another input told. Associative and commutative.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        other.kept.into_iter().for_each(|sign| self.keep(sign));
    }

    fn keep(&mut self, sign: Sign) {
        let place = self.kept.partition_point(|known| *known <= sign);
        if place < Self::CAP {
            self.kept.insert(place, sign);
            self.kept.truncate(Self::CAP);
        }
    }
}

/// Both service access points of 802.2 for spanning tree.
const STP: u16 = 0x4242;
const LLDP: u16 = 0x88cc;
const ROUTER_SOLICITATION: u8 = 133;

fn kind_of(packet: &Packet<'_>, frame: &[u8]) -> Option<SignKind> {
    match &packet.transport {
        Transport::NotIp(STP) => topology_change(frame).then_some(SignKind::TopologyChange),
        Transport::NotIp(LLDP) => Some(SignKind::Lldp),
        Transport::Arp(message) => {
            let neighbor = arp::parse_arp(message).ok()?;
            match (neighbor.gratuitous, neighbor.request && neighbor.sender.to_ip().is_unspecified()) {
                (true, _) => Some(SignKind::Announcement),
                (false, true) => Some(SignKind::Probe),
                (false, false) => None,
            }
        }
        Transport::Icmp6(message) if message.first() == Some(&ROUTER_SOLICITATION) => {
            Some(SignKind::RouterSolicitation)
        }
        Transport::Icmp6(message) => {
            let neighbor = arp::parse_neighbor6(message, packet.ip?.source).ok()?;
            let probe = neighbor.request && neighbor.sender.to_ip().is_unspecified();
            probe.then_some(SignKind::Probe).or(neighbor.gratuitous.then_some(SignKind::Announcement))
        }
        Transport::Udp(datagram) => {
            let asks = (datagram.source_port, datagram.destination_port) == (68, 67);
            (asks && packet.ip?.source.to_ip().is_unspecified()).then_some(SignKind::DhcpRequest)
        }
        _ => None,
    }
}

/// A topology change notification, or a configuration BPDU whose flags carry the change. The LLC header stands where the link header ends,
/// within the first octets of the frame.
fn topology_change(frame: &[u8]) -> bool {
    const LLC_AND_PROTOCOL: [u8; 5] = [0x42, 0x42, 0x03, 0, 0];
    const NOTIFICATION: u8 = 0x80;
    let head = frame.get(..frame.len().min(40)).unwrap_or(&[]);
    let Some(place) = head.windows(5).position(|octets| octets == LLC_AND_PROTOCOL) else { return false };
    match frame.get(place + 6..place + 8) {
        Some([NOTIFICATION, _]) => true,
        Some([0 | 2, flags]) => flags & 1 != 0,
        _ => frame.get(place + 6) == Some(&NOTIFICATION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;
    use crate::wire::samples::octets;

    /// Destination 01:80:c2:00:00:00, a source, 802.3 length, LLC; then the BPDU.
    fn bridge(bpdu: &str) -> Vec<u8> {
        octets(&format!("0180c2000000 020000000001 0026 424203 0000 {bpdu}"))
    }

    #[test]
    fn a_notification_and_the_change_flag_are_signs_and_a_hello_is_none() {
        assert!(topology_change(&bridge("00 80")));
        assert!(topology_change(&bridge("00 80 00")));
        assert!(topology_change(&bridge("00 00 01 8000")));
        assert!(topology_change(&bridge("02 02 7d 8000")));
        assert!(!topology_change(&bridge("02 02 3c 8000")));
        assert!(!topology_change(&bridge("00")));
        assert!(!topology_change(&[]));
    }

    #[test]
    fn the_first_are_kept_and_merging_does_not_depend_on_the_order() {
        let part = |numbers: std::ops::Range<u64>| {
            let mut signs = LinkSigns::default();
            for number in numbers {
                let at = PacketRef { file: 0, number, time: Timestamp(number as i64) };
                signs.count += 1;
                signs.keep(Sign { at, kind: SignKind::Lldp, from: None });
            }
            signs
        };
        let mut one = part(0..200);
        one.merge(part(200..900));
        let mut other = part(200..900);
        other.merge(part(0..200));
        assert_eq!((&one, one.kept.len(), one.count), (&other, LinkSigns::CAP, 900));
    }
}
