//! ICMP and ICMPv6 messages and the packet they quote. RFC 792, RFC 4443.

use serde::{Deserialize, Serialize};

use super::{Endpoint, seq::Seq};

/// An ICMP error about somebody's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpError {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// It is ICMPv6.
    pub v6: bool,
    /// Next-hop MTU of "fragmentation needed" and "packet too big".
    pub mtu: Option<u32>,
    /// Source end of the quoted packet (port 0 when not quoted).
    pub source: Endpoint,
    /// Destination end of the quoted packet.
    pub destination: Endpoint,
    /// IP protocol number of the quoted packet.
    pub protocol: u8,
    /// TTL of the quoted packet as it stands in the quote.
    pub ttl: u8,
    /// Quoted TCP sequence number.
    pub seq: Option<Seq>,
}
