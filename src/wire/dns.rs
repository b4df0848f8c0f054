//! DNS messages: header, question and addresses. RFC 1035 §4; read by `simple-dns`, with a fallback for packets the snaplen cut.

use serde::{Deserialize, Serialize};

use super::Address;

/// What a DNS message tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsMessage {
    /// Transaction id.
    pub id: u16,
    /// QR bit.
    pub response: bool,
    /// Response code, EDNS extended bits included.
    pub rcode: u16,
    /// TC bit.
    pub truncated: bool,
    /// First question's name, lower case, without the final dot, cut to 255 octets.
    pub name: String,
    /// First question's type.
    pub qtype: u16,
    /// A and AAAA answers with their TTL in seconds.
    pub addresses: Vec<(Address, u32)>,
    /// CNAME chain of the answer section.
    pub aliases: Vec<String>,
    /// Number of answer records.
    pub answers: u16,
    /// Extended DNS error code (RFC 8914).
    pub extended_error: Option<u16>,
    /// The capture kept only part of it.
    pub cut: bool,
}
