//! Frames to packets: the walk over link layers and tunnels, and IP fragments (its only state).
//!
//! [`Decoder`] tries the fast path first (Ethernet, at most one VLAN tag, plain IPv4 or IPv6, TCP or UDP; no allocation) and walks header by
//! header over everything else. Checksums are not verified: captures on a sending host show the octets before the network card filled them
//! in. No octets make it panic; what cannot be read is [`Transport::Unreadable`] with the reason.

mod decoder;
mod fast;
mod fragment;
mod hash;
mod ip;
pub mod kept;
mod link;
mod mpls;
mod span;
mod transport;
mod tunnel;
mod walk;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod samples;

pub use decoder::Decoder;
pub use fragment::{FragmentCounts, Limits, LostDatagram, LostFragments};
pub(crate) use hash::fold;
pub use hash::{flow_hash, keyed_flow_hash};
pub use kept::{Head, Pile};

use crate::event::PacketRef;
use crate::wire::seq::Seq;
use crate::wire::{Address, Endpoint, Mac};

/// What a frame carries, after every link layer, tunnel and fragment was walked through. Borrows the frame (or the fragment buffer).
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Which frame; for a reassembled datagram the frame that completed it.
    pub at: PacketRef,
    /// Index of the capture interface inside its file.
    pub interface: u16,
    /// What the link layer told.
    pub link: Link,
    /// The innermost IP header; `None` for ARP and for frames that hold no IP.
    pub ip: Option<Ip>,
    /// What IP (or the link) carries.
    pub transport: Transport<'a>,
    /// The capture kept fewer octets than the IP packet had (than the frame had when there is no IP). A cut that only took Ethernet padding
    /// or a trailer is none.
    pub cut: bool,
}

/// What the link layer says of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Which way the frame went, seen from the capturing host. Ethernet and plain pcapng do not say.
    pub direction: Direction,
    /// Sender's link address; SLL keeps only this one.
    pub source: Option<Mac>,
    /// Receiver's link address.
    pub destination: Option<Mac>,
    /// Kernel interface index (SLL2); 0 = unknown.
    pub ifindex: u32,
    /// Innermost VLAN id; `None` also for priority tags (id 0).
    pub vlan: Option<u16>,
}

/// Packet type of SLL and SLL2, or the direction of pcapng's flags option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The capture does not say.
    #[default]
    Unknown,
    /// Sent to the capturing host.
    In,
    /// Sent by the capturing host.
    Out,
    /// Broadcast or multicast by somebody else.
    Broadcast,
    /// From another host to another host.
    OtherHost,
}

/// The fields of an IPv4 or IPv6 header that diagnoses use.
#[derive(Clone, Copy, Debug)]
pub struct Ip {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 identification, or the low 16 bits of an IPv6 fragment header's; `None` for IPv6 without one.
    pub id: Option<u16>,
    /// Octets of the IP packet on the wire, header included; from the frame when the header says 0 (offload).
    pub len: u32,
    /// Put together from fragments.
    pub reassembled: bool,
    /// Outer headers were passed over (VXLAN, Geneve, GTP-U, GRE, IP-in-IP, pseudowires).
    pub tunnelled: bool,
}

/// What IP carries.
#[derive(Clone, Copy, Debug)]
pub enum Transport<'a> {
    /// A TCP segment.
    Tcp(Segment<'a>),
    /// A UDP datagram.
    Udp(Datagram<'a>),
    /// An ICMP (v4) message from its type octet on.
    Icmp4(&'a [u8]),
    /// An ICMPv6 message from its type octet on.
    Icmp6(&'a [u8]),
    /// An ARP packet from its hardware type on.
    Arp(&'a [u8]),
    /// A fragment that waits for the others.
    Fragment,
    /// IP with another protocol number.
    OtherIp(u8),
    /// Neither IP nor ARP; the EtherType (both SAPs for 802.3: STP 0x4242; the protocol number for PPP), 0 when there is none.
    NotIp(u16),
    /// The link type is one nobody here can read.
    UnknownLink,
    /// Headers are broken or cut before they could be read.
    Unreadable(&'static str),
}

/// A TCP segment. RFC 9293 §3.1.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Sequence number of the first octet (of the SYN when set).
    pub seq: Seq,
    /// Acknowledgment number; meaningful with the ACK flag only.
    pub ack: Seq,
    /// Flags of octet 13 ([`Flags`]).
    pub flags: Flags,
    /// Window field, unscaled.
    pub window: u16,
    /// Options as captured; may end early when [`Packet::cut`].
    pub options: &'a [u8],
    /// Payload octets that were captured.
    pub payload: &'a [u8],
    /// Payload octets on the wire.
    pub payload_len: u32,
    /// Checksum field as it stands.
    pub checksum: u16,
}

/// TCP control bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is meaningful.
    pub const ACK: Self = Self(0x10);
    /// Urgent pointer is meaningful.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A UDP datagram. RFC 768.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Payload octets that were captured.
    pub payload: &'a [u8],
    /// Payload octets on the wire.
    pub payload_len: u32,
}

impl Packet<'_> {
    /// Source end of a TCP or UDP packet.
    pub fn source(&self) -> Option<Endpoint> {
        let ip = self.ip.as_ref()?;
        match &self.transport {
            Transport::Tcp(s) => Some(Endpoint::new(ip.source, s.source_port)),
            Transport::Udp(d) => Some(Endpoint::new(ip.source, d.source_port)),
            _ => None,
        }
    }

    /// Destination end of a TCP or UDP packet.
    pub fn destination(&self) -> Option<Endpoint> {
        let ip = self.ip.as_ref()?;
        match &self.transport {
            Transport::Tcp(s) => Some(Endpoint::new(ip.destination, s.destination_port)),
            Transport::Udp(d) => Some(Endpoint::new(ip.destination, d.destination_port)),
            _ => None,
        }
    }
}
