//! PROXY protocol headers, versions 1 and 2, with the exact rule that a broken one breaks.
//!
//! proxy-protocol.txt (HAProxy, 2020/03/05): §2.1 version 1, §2.2 version 2. Own code because a diagnosis needs the broken rule.

mod tlv;
mod v1;
mod v2;

use serde::{Deserialize, Serialize};

use super::Endpoint;

pub use tlv::{SslInfo, Tlv};

/// `\r\n\r\n\0\r\nQUIT\n`, what every version 2 header begins with.
pub const SIGNATURE_V2: [u8; 12] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];

/// A header that could be read to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyHeader {
    /// 1 or 2.
    pub version: u8,
    /// Whose connection it announces.
    pub command: Command,
    /// Address family and transport as it stands in the header.
    pub family: Family,
    /// Where the original client is, when the header says so.
    pub source: Option<Endpoint>,
    /// What the original client had connected to.
    pub destination: Option<Endpoint>,
    /// TLVs of version 2, in order, at most 64 of them; values longer than 256 octets are cut to 256 (`len` keeps the true length).
    pub tlvs: Vec<Tlv>,
    /// CRC32C TLV: `Some(true)` fits, `Some(false)` does not, `None` absent.
    pub checksum_fits: Option<bool>,
    /// Octets of the whole header.
    pub len: u32,
}

/// Whose connection a header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The proxy's own (health check).
    Local,
    /// A client's.
    Proxy,
}

/// Address family of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// v1 `UNKNOWN`, v2 0x00.
    Unspecified,
    /// TCP over IPv4.
    Tcp4,
    /// UDP over IPv4.
    Udp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv6.
    Udp6,
    /// UNIX stream or datagram sockets.
    Unix,
}

/// What the first octets of a stream are, as far as PROXY goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyStart {
    /// No PROXY header can begin like this.
    No,
    /// Could still become one; more octets are needed.
    Partial,
    /// A whole header.
    Header(Box<ProxyHeader>),
    /// It begins as a PROXY header and breaks this rule.
    Broken(BrokenHeader),
}

/// Reads a PROXY header at the very beginning of a stream. `bytes` is all that came so far; what follows the header is not looked at.
///
/// Never `Broken` for text that merely resembles the word PROXY: only when a word of the protocol follows it.
pub fn parse(bytes: &[u8]) -> ProxyStart {
    match bytes.first() {
        None => ProxyStart::Partial,
        Some(0x0d) => v2::parse(bytes),
        Some(b'P' | b'p') => v1::parse(bytes),
        Some(_) => ProxyStart::No,
    }
}

/// The rule that a malformed header breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokenHeader {
    /// 1 or 2.
    pub version: u8,
    /// The rule.
    pub rule: Rule,
    /// Octets that were looked at.
    pub len: u32,
}

/// Rules of the specification that are seen broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    /// v1 longer than 107 octets without CRLF.
    V1TooLong,
    /// v1 line ended by LF alone.
    V1LfOnly,
    /// v1 fields not separated by exactly one space.
    V1Spaces,
    /// v1 protocol word is not TCP4, TCP6 or UNKNOWN.
    V1Family,
    /// v1 signature in lower case or otherwise misspelt.
    V1Case,
    /// v1 address does not fit the protocol word or is none.
    V1Address,
    /// v1 port is no number of 0–65535 or has leading zeros.
    V1Port,
    /// v1 line has too few or too many fields.
    V1Fields,
    /// v2 version nibble is not 2.
    V2Version,
    /// v2 command is neither LOCAL nor PROXY.
    V2Command,
    /// v2 family or transport is unknown.
    V2Family,
    /// v2 length is too small for the addresses of its family.
    V2Length,
    /// v2 TLV runs over the end of the header.
    V2TlvOverrun,
}

impl Rule {
    /// The broken rule in plain words, fit to follow "the header: ".
    pub fn says(self) -> &'static str {
        match self {
            Self::V1TooLong => "no CRLF within 107 octets (§2.1)",
            Self::V1LfOnly => "the line ends with LF alone, CRLF is required (§2.1)",
            Self::V1Spaces => "fields must be separated by exactly one space (§2.1)",
            Self::V1Family => "the protocol word must be TCP4, TCP6 or UNKNOWN (§2.1)",
            Self::V1Case => "it must begin with PROXY in capitals (§2.1)",
            Self::V1Address => "an address does not fit the protocol word (§2.1)",
            Self::V1Port => "a port must be 0 to 65535 without leading zeros (§2.1)",
            Self::V1Fields => "it must hold two addresses and two ports (§2.1)",
            Self::V2Version => "the version nibble must be 2 (§2.2)",
            Self::V2Command => "the command must be LOCAL (0) or PROXY (1) (§2.2)",
            Self::V2Family => "the address family or transport is not defined (§2.2)",
            Self::V2Length => "the length is too small for the addresses of its family (§2.2)",
            Self::V2TlvOverrun => "a TLV runs past the end of the header (§2.2)",
        }
    }
}
