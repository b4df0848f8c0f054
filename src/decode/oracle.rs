//! The decoder against others: etherparse, its own walk, one connection in every link type, the public corpora, and noise.

use etherparse::{LaxSlicedPacket, PacketBuilder, PacketBuilderStep, TransportSlice, VlanId};
use proptest::collection::vec;
use proptest::prelude::*;

use super::samples::{self, frame};
use super::*;
use crate::wire::Address;

fn decoder() -> Decoder {
    Decoder::new(Limits::default())
}

/// What a TCP segment says, without where it came from.
fn says(segment: &Segment<'_>) -> String {
    format!("{segment:?}")
}

/// All segments of a file, each under the last 32 bits of its addresses: the same for IPv4 and its translation.
fn segments(records: &[samples::Record]) -> Vec<(u32, u32, String)> {
    let mut decoder = decoder();
    let mut found = Vec::new();
    for record in records {
        let packet = decoder.decode(&record.frame());
        if let (Some(ip), Transport::Tcp(segment)) = (packet.ip, packet.transport) {
            let unchecked = Segment { checksum: 0, ..segment };
            found.push((ip.source.0 as u32, ip.destination.0 as u32, says(&unchecked)));
        }
    }
    found
}

#[test]
fn one_connection_reads_the_same_in_every_link_type_and_tunnel() {
    let files = samples::links();
    let (_, original) = files.iter().find(|(name, _)| name == "ethernet").expect("ethernet.pcap");
    let mut expected = segments(original);
    assert_eq!(expected.len(), 10);
    assert!(expected[5].2.contains("payload_len: 1209"), "{}", expected[5].2);
    for (name, records) in &files {
        // Here the outer addresses of the fragment header's packet are made up.
        let mut found = segments(records);
        if name == "ethernet-ipv6-atomic-fragment" {
            found.iter_mut().for_each(|(source, destination, _)| (*source, *destination) = (0, 0));
            expected.iter_mut().for_each(|(source, destination, _)| (*source, *destination) = (0, 0));
        } else {
            expected = segments(original);
        }
        assert_eq!(found, expected, "{name}");
    }
    assert!(files.len() > 40, "only {} files", files.len());
}

/// Decodes the first frame of a file of `captures/links`.
fn first_of(name: &str, check: impl Fn(&Packet<'_>)) {
    let files = samples::links();
    let (_, records) = files.iter().find(|(stem, _)| stem == name).expect("a file of captures/links");
    check(&decoder().decode(&records[0].frame()));
}

#[test]
fn link_headers_tell_addresses_direction_interface_and_vlan() {
    let client = Some(crate::wire::Mac([2, 0, 0, 0, 0, 1]));
    let server = Some(crate::wire::Mac([2, 0, 0, 0, 0, 2]));
    let ethernet = Link { source: client, destination: server, ..Link::default() };
    let cooked = Link { source: client, direction: Direction::Out, ..Link::default() };
    for (name, link) in [
        ("ethernet", ethernet),
        ("vlan", Link { vlan: Some(100), ..ethernet }),
        ("qinq", Link { vlan: Some(100), ..ethernet }),
        ("sll", cooked),
        ("sll2", Link { ifindex: 2, ..cooked }),
        ("sll2-vlan", Link { ifindex: 2, vlan: Some(100), ..cooked }),
        ("vxlan", ethernet),
        ("raw", Link::default()),
        ("null", Link::default()),
    ] {
        first_of(name, |packet| assert_eq!(packet.link, link, "{name}"));
    }
}

#[test]
fn tunnels_hide_the_outer_addresses_and_say_so() {
    let tunnels = "vxlan vxlan-8472 geneve geneve-ipv6 geneve-in-vxlan gtp gre-in-udp gre gre-all gre-mpls gre-ethernet gre-ipv6 erspan-1 erspan \
                   erspan-3 erspan-3-platform ipip 4in6 6in4 6in6 mpls-pseudowire mpls-pseudowire-no-word";
    for name in tunnels.split_whitespace() {
        first_of(name, |packet| {
            let ip = packet.ip.expect("IP");
            assert!(ip.tunnelled && !ip.reassembled, "{name}");
            assert_eq!(ip.source.0 as u32, 0x0a63_0102, "{name}");
        });
    }
    first_of("ethernet", |packet| assert!(!packet.ip.expect("IP").tunnelled));
}

#[test]
fn tunnels_inside_each_other_are_walked_through_up_to_a_bound() {
    let files = samples::links();
    let (_, records) = files.iter().find(|(name, _)| name == "ethernet").expect("ethernet.pcap");
    // VXLAN around VXLAN, and pseudowires around pseudowires, which no IP header ends.
    let datagram = |inner: &[u8]| {
        let mut frame = Vec::new();
        let outer = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).udp(54321, 4789);
        let payload = [&[8, 0, 0, 0, 0, 0, 42, 0], inner].concat();
        outer.write(&mut frame, &payload).expect("memory");
        frame
    };
    let pseudowire = |inner: &[u8]| {
        let labels = [&[2; 6][..], &[4; 6], &[0x88, 0x47], &[0, 1, 1, 64], &[0; 4]].concat();
        // An EtherType of its own would be MPLS: a VLAN tag is what is recognised.
        let tagged = [&inner[..12], &[0x81, 0, 0, 5], &inner[12..]].concat();
        [labels, tagged].concat()
    };
    type Wrap = fn(&[u8]) -> Vec<u8>;
    let wraps: [Wrap; 2] = [datagram, pseudowire];
    for wrap in wraps {
        let mut bytes = records[0].bytes.clone();
        for depth in 1..=12 {
            bytes = wrap(&bytes);
            let mut decoder = decoder();
            let packet = decoder.decode(&frame(1, &bytes, bytes.len() as u32));
            match packet.transport {
                Transport::Tcp(_) => assert!(depth <= 8),
                Transport::Unreadable(reason) => {
                    assert!(depth > 8 && reason.contains("8 tunnels"), "{depth}: {reason}")
                }
                other => panic!("{depth}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_prefix_of_every_frame_is_read_without_a_panic() {
    let mut decoder = decoder();
    let mut frames = 0;
    for (_, records) in samples::links() {
        for record in &records {
            for cut in 0..=record.bytes.len().min(200) {
                let packet = decoder.decode(&frame(record.link.0, &record.bytes[..cut], record.wire_len));
                frames += 1;
                if let Transport::Tcp(segment) = packet.transport {
                    assert!(segment.payload.len() <= segment.payload_len as usize);
                }
            }
        }
    }
    assert!(frames > 1000);
}

/// Whether etherparse reads a TCP, UDP or ICMP packet out of this Ethernet frame; panics when it is another than ours.
fn agrees_with_etherparse(bytes: &[u8], packet: &Packet<'_>) -> bool {
    let Ok(lax) = LaxSlicedPacket::from_ethernet(bytes) else { return false };
    let Some(ip) = packet.ip.filter(|ip| !ip.tunnelled && !ip.reassembled) else { return false };
    let Some(transport) = lax.transport else { return false };
    // The innermost header etherparse read.
    let net = lax.net.expect("a transport has a net layer");
    let ends = match &net {
        etherparse::LaxNetSlice::Ipv4(v4) => {
            (Address::v4(v4.header().source()), Address::v4(v4.header().destination()))
        }
        etherparse::LaxNetSlice::Ipv6(v6) => {
            (Address::v6(v6.header().source()), Address::v6(v6.header().destination()))
        }
        etherparse::LaxNetSlice::Arp(_) => panic!("a transport over ARP"),
    };
    assert_eq!((ip.source, ip.destination), ends);
    match (transport, packet.transport) {
        (TransportSlice::Tcp(tcp), Transport::Tcp(segment)) => {
            assert_eq!((tcp.source_port(), tcp.destination_port()), (segment.source_port, segment.destination_port));
            assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (segment.seq.0, segment.ack.0));
            assert_eq!((tcp.window_size(), tcp.checksum()), (segment.window, segment.checksum));
            let flags = Flags(tcp.slice()[13]);
            assert_eq!((flags, tcp.options(), tcp.payload()), (segment.flags, segment.options, segment.payload));
            assert!(packet.cut || segment.payload_len as usize == tcp.payload().len());
        }
        (TransportSlice::Udp(udp), Transport::Udp(datagram)) => {
            assert_eq!((udp.source_port(), udp.destination_port()), (datagram.source_port, datagram.destination_port));
            assert_eq!(udp.payload(), datagram.payload);
            assert!(packet.cut || datagram.payload_len as usize == udp.payload().len());
        }
        (TransportSlice::Icmpv4(icmp), Transport::Icmp4(message)) => assert_eq!(icmp.slice(), message),
        (TransportSlice::Icmpv6(icmp), Transport::Icmp6(message)) => assert_eq!(icmp.slice(), message),
        (TransportSlice::Igmp(_), Transport::OtherIp(2)) => {}
        // etherparse takes such a datagram up to the end of the packet; Linux drops it (udp_rcv).
        (TransportSlice::Udp(_), Transport::Unreadable("UDP length below 8 octets")) => {}
        (theirs, ours) => panic!("etherparse: {theirs:?}, here: {ours:?}"),
    }
    true
}

#[test]
fn every_ethernet_frame_of_the_corpora_reads_as_etherparse_and_as_the_walk_read_it() {
    let files = samples::corpora();
    let (mut fast, mut slow) = (decoder(), decoder());
    let mut agreed = 0_u64;
    for path in &files {
        for record in samples::pcap(&std::fs::read(path).expect("a file of the corpora")) {
            let frame = record.frame();
            let walked = format!("{:?}", slow.walk(&frame));
            let packet = fast.decode(&frame);
            assert_eq!(format!("{packet:?}"), walked, "{} #{}", path.display(), record.number);
            if record.link.0 == 1 {
                let check = || agrees_with_etherparse(&record.bytes, &packet);
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
                agreed += u64::from(outcome.unwrap_or_else(|_| panic!("{} #{}", path.display(), record.number)));
            }
        }
    }
    assert_eq!(fast.fragments(), slow.fragments());
    assert!(files.is_empty() || agreed > 10_000, "only {agreed} frames compared");
}

/// An Ethernet frame of an ordinary TCP or UDP packet, as etherparse writes it.
fn ordinary() -> impl Strategy<Value = Vec<u8>> {
    let shape = (any::<[bool; 3]>(), any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u16; 3]>());
    let fields = (any::<[u32; 2]>(), 0_usize..11, vec(any::<u8>(), 0..100), vec(any::<u8>(), 0..9));
    (shape, fields).prop_map(|((choice, source, destination, numbers), (seqs, options, payload, trailer))| {
        let [tagged, v6, is_udp] = choice;
        let [source_port, destination_port, window] = numbers;
        // What may be a tunnel is not ordinary.
        let destination_port = if tunnel::may_be(destination_port) { 53 } else { destination_port };
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let v4 = |address: [u8; 16]| [address[0], address[1], address[2], address[3]];
        let network: PacketBuilderStep<etherparse::IpHeaders> = match (tagged, v6) {
            (false, false) => link.ipv4(v4(source), v4(destination), 64),
            (false, true) => link.ipv6(source, destination, 64),
            (true, v6) => {
                let vlan = link.single_vlan(VlanId::try_new(window & 0xfff).expect("12 bits"));
                if v6 { vlan.ipv6(source, destination, 64) } else { vlan.ipv4(v4(source), v4(destination), 64) }
            }
        };
        let mut bytes = Vec::new();
        if is_udp {
            network.udp(source_port, destination_port).write(&mut bytes, &payload).expect("a datagram");
        } else {
            let tcp = network.tcp(source_port, destination_port, seqs[0], window).ack(seqs[1]).psh();
            let tcp = tcp.options_raw(&[1; 40][..options * 4 - 4 * (options / 10)]).expect("40 octets at most");
            tcp.write(&mut bytes, &payload).expect("a segment");
        }
        bytes.extend(trailer);
        bytes
    })
}

/// Frames that begin right and are then altered, so that headers are broken in all places.
fn altered() -> impl Strategy<Value = Vec<u8>> {
    (ordinary(), vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)).prop_map(|(mut bytes, changes)| {
        for (place, octet) in changes {
            // The first hundred octets hold the headers.
            let place = place.index(bytes.len().min(100));
            bytes[place] = octet;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn ordinary_packets_take_the_fast_path_and_read_as_etherparse_reads_them(
        bytes in ordinary(), kept in any::<prop::sample::Index>()
    ) {
        let whole = frame(1, &bytes, bytes.len() as u32);
        let packet = fast::packet(&whole).expect("the fast path");
        prop_assert!(!packet.cut);
        prop_assert!(agrees_with_etherparse(&bytes, &packet));
        let cut = &bytes[..kept.index(bytes.len())];
        let packet = format!("{:?}", decoder().decode(&frame(1, cut, bytes.len() as u32)));
        prop_assert_eq!(packet, format!("{:?}", decoder().walk(&frame(1, cut, bytes.len() as u32))));
    }

    #[test]
    fn broken_packets_read_alike_on_both_paths(bytes in altered()) {
        let frame = frame(1, &bytes, bytes.len() as u32);
        prop_assert_eq!(format!("{:?}", decoder().decode(&frame)), format!("{:?}", decoder().walk(&frame)));
    }

    #[test]
    fn noise_in_any_known_link_type_never_panics(bytes in vec(any::<u8>(), 0..120), extra in 0_u32..200) {
        let mut decoder = decoder();
        let links = [0, 1, 9, 12, 14, 50, 51, 101, 104, 108, 113, 228, 229, 276, 147];
        let mut unknown = |link| {
            let packet = decoder.decode(&frame(link, &bytes, bytes.len() as u32 + extra));
            matches!(packet.transport, Transport::UnknownLink)
        };
        prop_assert_eq!(links.into_iter().filter(|link| unknown(*link)).count(), 1);
    }

    #[test]
    fn noise_behind_a_sound_link_header_never_panics(
        name in any::<prop::sample::Index>(), at in 12_usize..90, noise in vec(any::<u8>(), 1..40)
    ) {
        let files = samples::links();
        let (_, records) = &files[name.index(files.len())];
        let mut decoder = decoder();
        for record in records {
            let mut bytes = record.bytes.clone();
            bytes.iter_mut().skip(at).zip(&noise).for_each(|(octet, noise)| *octet = *noise);
            decoder.decode(&frame(record.link.0, &bytes, record.wire_len));
        }
    }
}
