//! ARP (RFC 826) and neighbour discovery (RFC 4861 §4.3, §4.4): who asks for whom, who answers.

use serde::{Deserialize, Serialize};

use super::{Address, Cursor, Mac, Malformed};

/// One ARP packet or neighbour solicitation/advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// A request or solicitation; otherwise an answer or announcement.
    pub request: bool,
    /// Sender's protocol address; unspecified in probes.
    pub sender: Address,
    /// Sender's link address, when told.
    pub sender_mac: Option<Mac>,
    /// The address asked for or announced: in an ARP reply its sender's own, so that it equals the `target` of the request it answers.
    pub target: Address,
    /// An announcement nobody asked for: ARP with equal sender and target addresses, an advertisement without the solicited flag.
    pub gratuitous: bool,
}

/// Reads an ARP packet, from its hardware type on. RFC 826.
///
/// # Errors
/// `limit: Slice` when octets are missing; `limit: Field` when it is not about IPv4 or neither request nor reply (reverse ARP).
pub fn parse_arp(bytes: &[u8]) -> Result<Neighbor, Malformed> {
    let mut cursor = Cursor::new(bytes);
    cursor.u16("ARP hardware type")?;
    let (protocol, mac_len, address_len) =
        (cursor.u16("ARP protocol type")?, cursor.u8("ARP lengths")?, cursor.u8("ARP lengths")?);
    if (protocol, address_len) != (0x0800, 4) {
        return Err(Malformed::field("ARP protocol type", 2));
    }
    let request = match cursor.u16("ARP operation")? {
        1 => true,
        2 => false,
        _ => return Err(Malformed::field("ARP operation", 6)),
    };
    let sender_mac = <[u8; 6]>::try_from(cursor.take(mac_len.into(), "ARP sender")?).ok().map(Mac);
    let sender = Address::v4(cursor.array("ARP sender")?);
    cursor.take(mac_len.into(), "ARP target")?;
    let asked = Address::v4(cursor.array("ARP target")?);
    let target = if request { asked } else { sender };
    Ok(Neighbor { request, sender, sender_mac, target, gratuitous: sender == asked })
}

/// ICMPv6 types of RFC 4861 §4.3, §4.4 and the options of §4.6.1.
mod kind {
    pub(super) const SOLICITATION: u8 = 135;
    pub(super) const ADVERTISEMENT: u8 = 136;
    pub(super) const SOURCE_LINK_ADDRESS: u8 = 1;
    pub(super) const TARGET_LINK_ADDRESS: u8 = 2;
}

/// Reads a neighbour solicitation or advertisement from its ICMPv6 type octet on; `source` is the packet's, unspecified in probes for
/// duplicates.
///
/// # Errors
/// `limit: Slice` when the fixed part is not whole, `limit: Field` for other ICMPv6 messages. Damaged options are left out.
pub fn parse_neighbor6(bytes: &[u8], source: Address) -> Result<Neighbor, Malformed> {
    let mut cursor = Cursor::new(bytes);
    let request = match cursor.u8("ICMPv6 type")? {
        kind::SOLICITATION => true,
        kind::ADVERTISEMENT => false,
        _ => return Err(Malformed::field("ICMPv6 type", 0)),
    };
    cursor.take(3, "ICMPv6 header")?;
    let solicited = cursor.u32("neighbour flags")? & 0x4000_0000 != 0;
    let target = Address::v6(cursor.array("neighbour target")?);
    let wanted = if request { kind::SOURCE_LINK_ADDRESS } else { kind::TARGET_LINK_ADDRESS };
    let sender_mac = link_address(&mut cursor, wanted).ok().flatten();
    Ok(Neighbor { request, sender: source, sender_mac, target, gratuitous: !request && !solicited })
}

/// The link address that an option of that type tells.
fn link_address(cursor: &mut Cursor<'_>, wanted: u8) -> Result<Option<Mac>, Malformed> {
    const WHAT: &str = "neighbour option";
    while cursor.remaining() > 0 {
        let (kind, units) = (cursor.u8(WHAT)?, usize::from(cursor.u8(WHAT)?));
        // Lengths count units of eight octets, type and length included.
        let len = (units * 8).checked_sub(2).ok_or(Malformed::field(WHAT, cursor.position() as u32))?;
        let value = cursor.take(len, WHAT)?;
        if kind == wanted {
            return Ok(<[u8; 6]>::try_from(value).ok().map(Mac));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Limit;
    use crate::wire::samples::{self, octets};

    const TARGET6: &str = "fe80::7cdf:6bff:fe35:751a";
    /// Answers for that address, solicited, with its link address.
    const ADVERTISEMENT: &str = "88000000 60000000 fe800000000000007cdf6bfffe35751a 0201 7edf6b35751a";

    #[test]
    fn a_recorded_request_and_its_reply_are_about_one_address() {
        let request = parse_arp(&octets(samples::ARP_REQUEST)).expect("whole");
        assert!(request.request && !request.gratuitous);
        assert_eq!(
            (request.sender.to_string(), request.target.to_string()),
            ("198.51.100.10".into(), "198.51.100.1".into())
        );
        assert_eq!(request.sender_mac.map(|mac| mac.to_string()).as_deref(), Some("0a:33:e0:f8:23:c6"));
        let reply = parse_arp(&octets(samples::ARP_REPLY)).expect("whole");
        assert!(!reply.request && !reply.gratuitous);
        assert_eq!((reply.target, reply.sender), (request.target, request.target));
        assert_eq!(reply.sender_mac.map(|mac| mac.to_string()).as_deref(), Some("7e:df:6b:35:75:1a"));
    }

    #[test]
    fn an_announcement_and_a_probe_are_told_apart() {
        let announcement =
            parse_arp(&octets("0001080006040001 0a33e0f823c6 c633640a 000000000000 c633640a")).expect("whole");
        assert!(announcement.gratuitous);
        let probe = parse_arp(&octets("0001080006040001 0a33e0f823c6 00000000 000000000000 c633640a")).expect("whole");
        assert!(!probe.gratuitous && probe.sender == Address::v4([0; 4]));
    }

    #[test]
    fn every_truncation_is_said_to_be_short() {
        let bytes = octets(samples::ARP_REPLY);
        for end in 0..bytes.len() {
            assert_eq!(parse_arp(&bytes[..end]).map_err(|malformed| malformed.limit), Err(Limit::Slice), "{end}");
        }
        let bytes = octets(samples::DAD_SOLICITATION);
        for end in 0..24 {
            assert_eq!(
                parse_neighbor6(&bytes[..end], Address(0)).map_err(|malformed| malformed.limit),
                Err(Limit::Slice),
                "{end}"
            );
        }
        for end in 24..bytes.len() {
            assert!(parse_neighbor6(&bytes[..end], Address(0)).is_ok(), "{end}");
        }
    }

    #[test]
    fn a_recorded_probe_for_duplicates_is_read() {
        // It carries a nonce (option 14) and, as it must, no link address.
        let probe = parse_neighbor6(&octets(samples::DAD_SOLICITATION), Address(0)).expect("whole");
        assert_eq!((probe.request, probe.sender, probe.sender_mac), (true, Address(0), None));
        assert_eq!(probe.target.to_string(), TARGET6);
    }

    #[test]
    fn an_advertisement_tells_the_link_address_and_who_asked() {
        let source = Address::v6([0xfe; 16]);
        let answer = parse_neighbor6(&octets(ADVERTISEMENT), source).expect("whole");
        assert_eq!((answer.request, answer.gratuitous, answer.target.to_string().as_str()), (false, false, TARGET6));
        assert_eq!(answer.sender_mac.map(|mac| mac.to_string()).as_deref(), Some("7e:df:6b:35:75:1a"));
        let unasked = parse_neighbor6(&octets(&ADVERTISEMENT.replace("60000000", "20000000")), source).expect("whole");
        assert!(unasked.gratuitous);
    }

    #[test]
    fn other_messages_are_no_neighbours() {
        assert!(parse_arp(&octets("0001080006040003 0a33e0f823c6 c633640a 000000000000 c633640a")).is_err());
        assert!(parse_arp(&octets("000186dd06040001 0a33e0f823c6 c633640a 000000000000 c633640a")).is_err());
        assert!(parse_neighbor6(&octets("8500614a 00000000 0101 0a33e0f823c6"), Address(0)).is_err());
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            let _ = parse_arp(&[&octets("00010800")[..], &bytes].concat());
            let _ = parse_neighbor6(&bytes, Address(0));
            let _ = parse_neighbor6(&[&[136; 24][..], &bytes].concat(), Address(0));
        }
    }
}
