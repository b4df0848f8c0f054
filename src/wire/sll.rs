//! Linux cooked capture: what `tcpdump -i any` puts in place of the link header. LINKTYPE_LINUX_SLL (113) and LINKTYPE_LINUX_SLL2 (276).

use super::{Cursor, Mac, Malformed};

/// Octets of a version 1 header.
pub const LEN_V1: usize = 16;
/// Octets of a version 2 header.
pub const LEN_V2: usize = 20;

/// Which way a packet went, as the capturing host saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To this host, or broadcast or multicast it listens to.
    Received,
    /// To somebody else, seen in promiscuous mode.
    Overheard,
    /// Sent by this host.
    Sent,
}

/// A cooked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CookedHeader {
    /// Which way the packet went.
    pub direction: Direction,
    /// EtherType of the payload (network order already undone).
    pub protocol: u16,
    /// Interface index; version 2 only.
    pub interface: Option<u32>,
    /// ARPHRD_ type of the device: 1 Ethernet, 772 loopback.
    pub hardware: u16,
    /// The sender's link address, when it has six octets.
    pub sender: Option<Mac>,
}

/// Reads a version 1 header: packet type (2), ARPHRD_ type (2), address length (2), address (8), protocol (2).
///
/// # Errors
/// `limit: Slice` when the frame is shorter than the header, `limit: Field` for a packet type that Linux does not have.
pub fn parse_v1(frame: &[u8]) -> Result<CookedHeader, Malformed> {
    let mut cursor = Cursor::new(frame);
    let direction = direction(cursor.u16("SLL packet type")?, 0)?;
    let hardware = cursor.u16("SLL hardware type")?;
    let len = cursor.u16("SLL address length")?;
    let sender = sender(len, cursor.array("SLL address")?);
    let protocol = cursor.u16("SLL protocol")?;
    Ok(CookedHeader { direction, protocol, interface: None, hardware, sender })
}

/// Reads a version 2 header: protocol (2), reserved (2), interface index (4), ARPHRD_ type (2), packet type (1), address length (1),
/// address (8).
///
/// # Errors
/// As [`parse_v1`].
pub fn parse_v2(frame: &[u8]) -> Result<CookedHeader, Malformed> {
    let mut cursor = Cursor::new(frame);
    let protocol = cursor.u16("SLL2 protocol")?;
    cursor.take(2, "SLL2 reserved field")?;
    let interface = Some(cursor.u32("SLL2 interface index")?);
    let hardware = cursor.u16("SLL2 hardware type")?;
    let direction = direction(cursor.u8("SLL2 packet type")?.into(), 10)?;
    let len = cursor.u8("SLL2 address length")?.into();
    let sender = sender(len, cursor.array("SLL2 address")?);
    Ok(CookedHeader { direction, protocol, interface, hardware, sender })
}

/// The kernel's PACKET_HOST, _BROADCAST, _MULTICAST, _OTHERHOST, _OUTGOING.
fn direction(packet_type: u16, offset: u32) -> Result<Direction, Malformed> {
    match packet_type {
        0..=2 => Ok(Direction::Received),
        3 => Ok(Direction::Overheard),
        4 => Ok(Direction::Sent),
        _ => Err(Malformed::field("cooked packet type", offset)),
    }
}

fn sender(len: u16, field: [u8; 8]) -> Option<Mac> {
    let [a, b, c, d, e, f, ..] = field;
    (len == 6).then_some(Mac([a, b, c, d, e, f]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Limit;
    use crate::wire::samples::octets;

    /// From `tcpdump -i any` on a Linux proxy.
    const V2: &str = "0800 0000 00000002 0001 00 06 96187b03b402 0000";
    const V1: &str = "0004 0001 0006 96187b03b402 0000 86dd";

    #[test]
    fn both_versions_are_read() {
        let sender = Some(Mac([0x96, 0x18, 0x7b, 0x03, 0xb4, 0x02]));
        let expected =
            CookedHeader { direction: Direction::Received, protocol: 0x0800, interface: Some(2), hardware: 1, sender };
        assert_eq!(parse_v2(&octets(V2)), Ok(expected));
        let expected =
            CookedHeader { direction: Direction::Sent, protocol: 0x86dd, interface: None, hardware: 1, sender };
        assert_eq!(parse_v1(&octets(V1)), Ok(expected));
    }

    #[test]
    fn every_truncation_is_said_to_be_short() {
        for end in 0..LEN_V2 {
            assert_eq!(parse_v2(&octets(V2)[..end]).map_err(|malformed| malformed.limit), Err(Limit::Slice), "{end}");
        }
        for end in 0..LEN_V1 {
            assert_eq!(parse_v1(&octets(V1)[..end]).map_err(|malformed| malformed.limit), Err(Limit::Slice), "{end}");
        }
    }

    #[test]
    fn an_unknown_packet_type_is_no_cooked_header() {
        assert!(parse_v1(&octets("0009 0001 0006 96187b03b402 0000 86dd")).is_err());
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            let _ = parse_v1(&bytes);
            let _ = parse_v2(&bytes);
        }
    }
}
