//! Names that survive: finding ids that live, offline and redacted runs agree on, and the Community ID of a flow.

use sha1::Digest as _;

use crate::event::What;
use crate::flow::facts::{FlowFacts, IpProtocol};
use crate::rule::finding::{Finding, Subject};
use crate::rule::summary::FlowSummary;
use crate::wire::{Address, Endpoint};

/// 12 hex digits of SHA-256 over rule, subject kind, protocol, ports in role order, both initial sequence numbers (UDP: the first DNS
/// transaction id) and the ordinal. Never addresses, names, frame numbers or times.
pub fn finding_id(finding: &Finding, flow: Option<&FlowSummary>) -> String {
    let mut hash = sha2::Sha256::new();
    hash.update(finding.rule.as_bytes());
    hash.update([0, subject_kind(&finding.subject)]);
    if let Some(flow) = flow {
        let facts = &flow.facts;
        hash.update([protocol_number(facts.transport)]);
        hash.update(facts.client.port.to_be_bytes());
        hash.update(facts.server.port.to_be_bytes());
        for half in [&facts.from_client, &facts.from_server] {
            hash.update(half.isn.map_or(0, |seq| seq.0).to_be_bytes());
        }
        if facts.transport == IpProtocol::Udp {
            let transaction = flow.story.events().find_map(|e| match &e.what {
                What::Dns(message) => Some(message.id),
                _ => None,
            });
            hash.update(transaction.unwrap_or(0).to_be_bytes());
        }
    }
    hash.update(ordinal(finding).to_be_bytes());
    let number = hash.finalize().iter().take(6).fold(0_u64, |number, octet| number << 8 | u64::from(*octet));
    format!("{number:012x}")
}

fn subject_kind(subject: &Subject) -> u8 {
    match subject {
        Subject::Flow(_) => 1,
        Subject::Exchange(..) => 2,
        Subject::Legs(..) => 3,
        Subject::Host(_) => 4,
        Subject::Capture => 5,
    }
}

fn ordinal(finding: &Finding) -> u32 {
    match finding.subject {
        Subject::Exchange(_, n) | Subject::Host(n) => n,
        _ => finding.ordinal,
    }
}

fn protocol_number(transport: IpProtocol) -> u8 {
    match transport {
        IpProtocol::Tcp => 6,
        IpProtocol::Udp => 17,
    }
}

/// Community ID version 1 with seed 0, the name other tools give the same flow (corelight/community-id-spec).
pub fn community_id(facts: &FlowFacts) -> String {
    let ordered = |a: Endpoint, b: Endpoint| {
        let key = |end: Endpoint| (octets(end.address), end.port);
        if key(a) <= key(b) { (a, b) } else { (b, a) }
    };
    let (first, second) = ordered(facts.client, facts.server);
    let mut hash = sha1::Sha1::new();
    hash.update([0, 0]);
    hash.update(octets(first.address));
    hash.update(octets(second.address));
    hash.update([protocol_number(facts.transport), 0]);
    hash.update(first.port.to_be_bytes());
    hash.update(second.port.to_be_bytes());
    format!("1:{}", base64(&hash.finalize()))
}

fn octets(address: Address) -> Vec<u8> {
    match address.to_ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_the_one_of_the_rfc() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
