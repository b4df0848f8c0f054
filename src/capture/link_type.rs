//! Names of link-layer header types. <https://www.tcpdump.org/linktypes.html>

use super::LinkType;

impl LinkType {
    /// BSD loopback: address family in the byte order of the capturing host.
    pub const NULL: Self = Self(0);
    /// IEEE 802.3 Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// PPP in HDLC-like framing or without.
    pub const PPP: Self = Self(9);
    /// Raw IP.
    pub const RAW: Self = Self(101);
    /// OpenBSD loopback: address family in network byte order.
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture.
    pub const LINUX_SLL: Self = Self(113);
    /// Linux cooked capture, version 2.
    pub const LINUX_SLL2: Self = Self(276);

    /// The registry's name without its prefix; one common phrase for those not listed here.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(number, _)| *number == self.0).map_or("an unlisted link type", |(_, name)| name)
    }

    /// libpcap's own number (DLT_) on Linux for a link type of a file: the same but for a few historical ones.
    pub fn dlt(self) -> u16 {
        match self.0 {
            // OpenBSD's number of raw IP, which libpcap on Linux does not know.
            14 => 12,
            100 => 11,
            101 => 12,
            102 => 15,
            103 => 16,
            106 => 19,
            246 => 18,
            other => other,
        }
    }

    /// The number files use for a number of libpcap on this system; the reverse of [`LinkType::dlt`].
    pub fn of_dlt(dlt: i32) -> Self {
        Self(match dlt {
            11 => 100,
            12 => 101,
            15 => 102,
            16 => 103,
            18 => 246,
            19 => 106,
            other => u16::try_from(other).unwrap_or(u16::MAX),
        })
    }
}

const NAMES: &[(u16, &str)] = &[
    (0, "BSD loopback"),
    (1, "Ethernet"),
    (3, "AX.25"),
    (6, "IEEE 802.5"),
    (7, "ARCNET"),
    (8, "SLIP"),
    (9, "PPP"),
    (10, "FDDI"),
    (12, "raw IP"),
    (14, "raw IP"),
    (50, "PPP in HDLC framing"),
    (51, "PPPoE"),
    (100, "ATM RFC 1483"),
    (101, "raw IP"),
    (104, "Cisco HDLC"),
    (105, "IEEE 802.11"),
    (107, "Frame Relay"),
    (108, "OpenBSD loopback"),
    (113, "Linux cooked"),
    (114, "LocalTalk"),
    (117, "OpenBSD pflog"),
    (119, "Prism 802.11"),
    (122, "IP over Fibre Channel"),
    (127, "IEEE 802.11 radiotap"),
    (129, "ARCNET Linux"),
    (138, "Apple IP over IEEE 1394"),
    (139, "MTP2 with pseudo-header"),
    (140, "MTP2"),
    (141, "MTP3"),
    (142, "SCCP"),
    (143, "DOCSIS"),
    (144, "Linux IrDA"),
    (147, "user 0"),
    (148, "user 1"),
    (149, "user 2"),
    (150, "user 3"),
    (163, "IEEE 802.11 AVS"),
    (165, "BACnet MS/TP"),
    (166, "PPP with direction"),
    (169, "GPRS LLC"),
    (177, "Linux LAPD"),
    (187, "Bluetooth HCI H4"),
    (189, "USB Linux"),
    (192, "PPI"),
    (195, "IEEE 802.15.4"),
    (197, "ERF"),
    (201, "Bluetooth HCI H4 with direction"),
    (204, "PPP with direction"),
    (220, "USB Linux mmapped"),
    (224, "Fibre Channel FC-2"),
    (226, "IP over Solaris IPnet"),
    (227, "CAN SocketCAN"),
    (228, "IPv4"),
    (229, "IPv6"),
    (230, "IEEE 802.15.4 without FCS"),
    (239, "NFLOG"),
    (240, "netANALYZER"),
    (242, "IP over InfiniBand"),
    (245, "NFC LLCP"),
    (249, "USBPcap"),
    (251, "Bluetooth LE"),
    (253, "netlink"),
    (258, "Apple PKTAP"),
    (272, "NordicTap BLE"),
    (276, "Linux cooked v2"),
    (283, "IEEE 802.15.4 TAP"),
    (288, "USB 2.0"),
];
