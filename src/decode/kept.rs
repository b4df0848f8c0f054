//! Packets that are looked at later: what each says is written small, and its octets lie behind those of the others.

use prefetch_index::prefetch_index;

use super::{Datagram, Flags, Ip, Link, Packet, Segment, Transport};
use crate::event::{PacketRef, Stamp};
use crate::wire::seq::Seq;
use crate::wire::{Address, Endpoint, Mac};

/// Packets that one pile holds: few enough to stay in the caches while it is filled and worked in, enough that handing it over costs nothing
/// for a packet.
pub const PACKETS: usize = 256;
/// Octets after which no further packet is added.
pub const OCTETS: usize = 64 << 10;
/// Room for the octets of a pile and the last packet of ordinary size.
const ROOM: usize = OCTETS + (2 << 10);
/// Octets that come from memory at once.
const LINE: usize = 64;
/// Octets of room that are sent for at a time.
const BLOCK: usize = 512;
/// Links that are found again.
const RECENT: usize = 16;

/// TCP and UDP packets in the order they came, and their octets: options and payloads.
#[derive(Debug, Default)]
pub struct Pile {
    packets: Vec<Kept>,
    octets: Vec<u8>,
    /// What the link layer said of them, with the interface; of some twice.
    links: Vec<(Link, u16)>,
    /// By link addresses, one of `links` that had them lately.
    recent: [u8; RECENT],
}

/// What tells the flow of a packet, and what it means for how long that lasts.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// When, and which.
    pub at: PacketRef,
    /// Who sent it.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// No segment, but a datagram.
    pub udp: bool,
    /// Of the segment, or none.
    pub flags: Flags,
    /// Octets of it that lie in the pile.
    pub octets: u32,
}

/// What a packet says beside its octets: one line of memory.
#[derive(Debug)]
#[repr(align(64))]
struct Kept {
    at: Stamp,
    seq: Seq,
    ack: Seq,
    /// Octets of the IP packet, and of the payload, on the wire.
    ip_len: u32,
    payload_len: u32,
    /// Where its octets lie: the addresses of IPv6, options, payload.
    begin: u32,
    end: u32,
    /// The addresses of IPv4.
    narrow: [u32; 2],
    ports: [u16; 2],
    /// Of the segment, or 0.
    window: u16,
    /// Where [`Marks::ID`] says that there is one.
    id: u16,
    checksum: u16,
    options: u8,
    flags: Flags,
    ttl: u8,
    marks: Marks,
    /// Which of the pile's links it came by.
    link: u8,
}

const _: () = assert!(size_of::<Kept>() == LINE);

/// What is so or not so of a packet.
#[derive(Clone, Copy, Debug, Default)]
struct Marks(u8);

impl Marks {
    /// Its addresses are those of IPv6.
    const WIDE: Self = Self(1);
    const UDP: Self = Self(1 << 1);
    const CUT: Self = Self(1 << 2);
    const REASSEMBLED: Self = Self(1 << 3);
    const TUNNELLED: Self = Self(1 << 4);
    /// Its IP header has an identification.
    const ID: Self = Self(1 << 5);

    #[inline]
    fn of(all: [(Self, bool); 6]) -> Self {
        Self(all.into_iter().fold(0, |marks, (mark, set)| marks | if set { mark.0 } else { 0 }))
    }

    #[inline]
    fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }
}

impl Pile {
    /// What the packets of a full pile take, and their octets.
    pub const WEIGHT: usize = PACKETS * size_of::<Kept>() + ROOM;

    /// How many packets there are.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether it has no room for another packet.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.packets.len() >= PACKETS || self.octets.len() >= OCTETS
    }

    /// Keeps one more packet. `false` where it is neither TCP nor UDP, or the pile has all that it may.
    #[inline]
    pub fn push(&mut self, packet: &Packet<'_>) -> bool {
        self.push_at(packet, packet.at.into())
    }

    /// The same where `at`, which is the packet's own, is at hand.
    #[inline]
    pub(crate) fn push_at(&mut self, packet: &Packet<'_>, at: Stamp) -> bool {
        if self.packets.capacity() == 0 {
            self.packets.reserve_exact(PACKETS);
            self.octets.reserve_exact(ROOM);
        }
        if self.packets.len() >= PACKETS {
            return false;
        }
        let Some(mut kept) = Kept::of(packet, at, &mut self.octets) else { return false };
        kept.link = self.link_of(packet);
        // Others had this memory last: room for what comes soon is sent for, block by block.
        let block = kept.end as usize / BLOCK;
        if block != kept.begin as usize / BLOCK {
            (0..BLOCK / LINE).for_each(|line| prefetch_index(&self.octets, (block + 2) * BLOCK + line * LINE));
        }
        self.packets.push(kept);
        prefetch_index(&self.packets, self.packets.len() + 3);
        true
    }

    /// Which of `links` is that of a packet.
    #[inline]
    fn link_of(&mut self, packet: &Packet<'_>) -> u8 {
        let low = |mac: Option<Mac>| mac.map_or(0, |Mac([.., octet])| octet);
        let slot = (low(packet.link.source) ^ low(packet.link.destination).rotate_left(3)) as usize % RECENT;
        let known = self.recent[slot];
        match self.links.get(usize::from(known)) {
            Some((link, interface)) if *link == packet.link && *interface == packet.interface => known,
            _ => self.new_link(slot, packet),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_link(&mut self, slot: usize, packet: &Packet<'_>) -> u8 {
        // There are no more of them than packets.
        let new = self.links.len() as u8;
        self.links.push((packet.link, packet.interface));
        self.recent[slot] = new;
        new
    }

    /// The packet of a place as it was. Made where it is used: moving it costs as much as making it.
    #[inline(always)]
    pub fn packet(&self, place: usize) -> Option<Packet<'_>> {
        let kept = self.packets.get(place)?;
        Some(kept.packet(self.octets_of(kept), self.links.get(usize::from(kept.link))?))
    }

    /// The head of the packet of a place.
    #[inline(always)]
    pub fn head(&self, place: usize) -> Option<Head> {
        let kept = self.packets.get(place)?;
        let (source, destination, _) = kept.addresses(self.octets_of(kept));
        let [source, destination] = [Endpoint::new(source, kept.ports[0]), Endpoint::new(destination, kept.ports[1])];
        let (udp, flags, octets) = (kept.marks.has(Marks::UDP), kept.flags, kept.end - kept.begin);
        Some(Head { at: kept.at.packet(), source, destination, udp, flags, octets })
    }

    fn octets_of(&self, kept: &Kept) -> &[u8] {
        self.octets.get(kept.begin as usize..kept.end as usize).unwrap_or(&[])
    }

    /// Sends for what the packet says.
    #[inline]
    pub fn fetch(&self, place: usize) {
        prefetch_index(&self.packets, place);
    }

    /// Sends for its octets.
    #[inline]
    pub fn fetch_octets(&self, place: usize) {
        let Some(kept) = self.packets.get(place).filter(|kept| kept.begin < kept.end) else { return };
        for octet in (kept.begin as usize..kept.end as usize).step_by(LINE) {
            prefetch_index(&self.octets, octet);
        }
        // Steps that begin within a line end before the last one.
        prefetch_index(&self.octets, kept.end as usize - 1);
    }

    /// Its memory, and nothing in it.
    pub fn emptied(mut self) -> Self {
        self.packets.clear();
        self.octets.clear();
        self.links.clear();
        self.octets.shrink_to(ROOM);
        self.links.shrink_to(RECENT);
        self
    }
}

impl Kept {
    #[inline(always)]
    fn of(packet: &Packet<'_>, at: Stamp, all: &mut Vec<u8>) -> Option<Self> {
        let begin = all.len() as u32;
        let ip = packet.ip.as_ref()?;
        let ((seq, ack, window, checksum, flags), options, payload, payload_len, ports, udp) = match &packet.transport {
            Transport::Tcp(s) => {
                let own = (s.seq, s.ack, s.window, s.checksum, s.flags);
                (own, s.options, s.payload, s.payload_len, [s.source_port, s.destination_port], false)
            }
            Transport::Udp(d) => {
                let own = (Seq(0), Seq(0), 0, 0, Flags(0));
                (own, &[][..], d.payload, d.payload_len, [d.source_port, d.destination_port], true)
            }
            _ => return None,
        };
        let options_len = u8::try_from(options.len()).ok()?;
        let wide = !(ip.source.is_v4() && ip.destination.is_v4());
        if wide {
            all.extend_from_slice(&ip.source.0.to_ne_bytes());
            all.extend_from_slice(&ip.destination.0.to_ne_bytes());
        }
        if !options.is_empty() {
            all.extend_from_slice(options);
        }
        all.extend_from_slice(payload);
        Some(Self {
            at,
            seq,
            ack,
            ip_len: ip.len,
            payload_len,
            begin,
            end: all.len() as u32,
            narrow: [ip.source.0 as u32, ip.destination.0 as u32],
            ports,
            window,
            id: ip.id.unwrap_or_default(),
            checksum,
            options: options_len,
            flags,
            ttl: ip.ttl,
            marks: Marks::of([
                (Marks::WIDE, wide),
                (Marks::UDP, udp),
                (Marks::CUT, packet.cut),
                (Marks::REASSEMBLED, ip.reassembled),
                (Marks::TUNNELLED, ip.tunnelled),
                (Marks::ID, ip.id.is_some()),
            ]),
            link: 0,
        })
    }

    /// Source and destination, and what lies behind them of `octets`, which are its own.
    #[inline(always)]
    fn addresses<'a>(&self, octets: &'a [u8]) -> (Address, Address, &'a [u8]) {
        match octets.split_first_chunk::<32>() {
            Some((both, octets)) if self.marks.has(Marks::WIDE) => {
                let [source, destination] = [both.first_chunk(), both.last_chunk()];
                let whole = |half: Option<&[u8; 16]>| Address(half.map_or(0, |half| u128::from_ne_bytes(*half)));
                (whole(source), whole(destination), octets)
            }
            _ => {
                let narrow = |address: u32| Address::v4(address.to_be_bytes());
                (narrow(self.narrow[0]), narrow(self.narrow[1]), octets)
            }
        }
    }

    /// The packet as it was; octets, link and interface are its own.
    #[inline(always)]
    fn packet<'a>(&self, octets: &'a [u8], (link, interface): &(Link, u16)) -> Packet<'a> {
        let (source, destination, octets) = self.addresses(octets);
        let (options, payload) = octets.split_at_checked(usize::from(self.options)).unwrap_or((&[], octets));
        let [source_port, destination_port] = self.ports;
        let Self { at, window, seq, ack, payload_len, id, checksum, flags, ttl, marks, .. } = *self;
        let transport = if marks.has(Marks::UDP) {
            Transport::Udp(Datagram { source_port, destination_port, payload, payload_len })
        } else {
            Transport::Tcp(Segment {
                source_port,
                destination_port,
                seq,
                ack,
                flags,
                window,
                options,
                payload,
                payload_len,
                checksum,
            })
        };
        let ip = Ip {
            source,
            destination,
            ttl,
            id: marks.has(Marks::ID).then_some(id),
            len: self.ip_len,
            reassembled: marks.has(Marks::REASSEMBLED),
            tunnelled: marks.has(Marks::TUNNELLED),
        };
        let cut = marks.has(Marks::CUT);
        Packet { at: at.packet(), interface: *interface, link: *link, ip: Some(ip), transport, cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Decoder, samples};

    #[test]
    fn every_packet_comes_back_as_it_was() {
        let mut decoder = Decoder::new(Default::default());
        let (mut wide, mut both) = (0, 0);
        for (name, records) in samples::links() {
            let mut pile = Pile::default();
            let mut came = Vec::new();
            for record in &records {
                let frame = record.frame();
                let packet = decoder.decode(&frame);
                let belongs = matches!(packet.transport, Transport::Tcp(_) | Transport::Udp(_));
                assert_eq!(pile.push(&packet), belongs, "{name}");
                if belongs {
                    came.push(format!("{packet:?}"));
                    wide += u32::from(packet.ip.is_some_and(|ip| !ip.source.is_v4()));
                }
            }
            both += came.len();
            for (place, was) in came.iter().enumerate() {
                assert_eq!(pile.packet(place).map(|packet| format!("{packet:?}")).as_ref(), Some(was), "{name}");
            }
            assert!(pile.packet(came.len()).is_none());
            let empty = pile.emptied();
            assert_eq!((empty.is_empty(), empty.is_full()), (true, false));
        }
        assert!(both > 500 && wide > 100, "{both} packets, {wide} over IPv6");
    }

    #[test]
    fn a_datagram_comes_back_and_a_pile_is_full_of_packets_or_of_octets() {
        let [source, destination] = [Address::v4([10, 0, 0, 1]), Address::v4([10, 0, 0, 2])];
        let ip = Ip { source, destination, ttl: 64, id: None, len: 2028, reassembled: true, tunnelled: false };
        let payload = [7; 2000];
        let datagram = Datagram { source_port: 4000, destination_port: 53, payload: &payload, payload_len: 2000 };
        let at = PacketRef { file: 1, number: 2, time: crate::time::Timestamp(3) };
        let transport = Transport::Udp(datagram);
        let packet = Packet { at, interface: 0, link: Link::default(), ip: Some(ip), transport, cut: true };
        let mut pile = Pile::default();
        while !pile.is_full() {
            assert!(pile.push(&packet));
        }
        assert_eq!(pile.len(), 33, "it was full of octets");
        assert_eq!(pile.packet(32).map(|packet| format!("{packet:?}")), Some(format!("{packet:?}")));
        let head = pile.head(32).expect("the last one");
        assert_eq!((head.at, head.udp, head.octets), (at, true, 2000));
        assert_eq!((head.source, head.destination), (Endpoint::new(source, 4000), Endpoint::new(destination, 53)));
        let bare = Datagram { payload: &[], payload_len: 0, ..datagram };
        let mut pile = Pile::default();
        while !pile.is_full() {
            assert!(pile.push(&Packet { transport: Transport::Udp(bare), ..packet }));
        }
        assert_eq!(pile.len(), PACKETS);
    }
}
