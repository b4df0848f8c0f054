//! One side's segment or datagram as an Ethernet frame with right lengths and checksums.

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const FRAGMENT: u8 = 44;

/// Both ends of a flow; index 0 is the client.
pub(super) struct Ends {
    pub v6: bool,
    /// The IPv4 address, or the last four octets of the IPv6 address.
    pub hosts: [u32; 2],
    pub ports: [u16; 2],
    /// IPv4 identifications, counted up by each host.
    pub ids: [u16; 2],
}

/// What a TCP header says.
pub(super) struct Segment<'a> {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    /// A multiple of four octets.
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

impl Ends {
    pub(super) fn tcp(&mut self, side: usize, segment: &Segment<'_>) -> Vec<u8> {
        let header = 20 + segment.options.len();
        let mut frame = self.network(side, TCP, header + segment.payload.len());
        let at = frame.len();
        frame.extend_from_slice(&self.ports[side].to_be_bytes());
        frame.extend_from_slice(&self.ports[1 - side].to_be_bytes());
        frame.extend_from_slice(&segment.seq.to_be_bytes());
        frame.extend_from_slice(&segment.ack.to_be_bytes());
        frame.extend_from_slice(&[(header as u8 / 4) << 4, segment.flags]);
        frame.extend_from_slice(&segment.window.to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(segment.options);
        frame.extend_from_slice(segment.payload);
        self.checksum(&mut frame, TCP, at, 16);
        frame
    }

    pub(super) fn udp(&mut self, side: usize, payload: &[u8]) -> Vec<u8> {
        let len = 8 + payload.len();
        let mut frame = self.network(side, UDP, len);
        let at = frame.len();
        frame.extend_from_slice(&self.ports[side].to_be_bytes());
        frame.extend_from_slice(&self.ports[1 - side].to_be_bytes());
        frame.extend_from_slice(&(len as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(payload);
        self.checksum(&mut frame, UDP, at, 6);
        frame
    }

    /// A piece of a UDP datagram that begins `eights` times eight octets into it: RFC 791 §3.2, RFC 8200 §4.5.
    pub(super) fn fragment(&mut self, side: usize, id: u32, eights: u16, more: bool, piece: &[u8]) -> Vec<u8> {
        if self.v6 {
            let mut frame = self.network(side, FRAGMENT, 8 + piece.len());
            frame.extend_from_slice(&[UDP, 0]);
            frame.extend_from_slice(&(eights << 3 | u16::from(more)).to_be_bytes());
            frame.extend_from_slice(&id.to_be_bytes());
            frame.extend_from_slice(piece);
            return frame;
        }
        let mut frame = self.network(side, UDP, piece.len());
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&(eights | u16::from(more) << 13).to_be_bytes());
        frame[24..26].fill(0);
        let checksum = folded(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame.extend_from_slice(piece);
        frame
    }

    /// An ICMP error of the server's side, host unreachable, about a SYN nobody saw. RFC 792.
    pub(super) fn unreachable(&mut self, source: u32, destination: u32, ports: [u16; 2]) -> Vec<u8> {
        self.v6 = false;
        let mut quoted = Ends { v6: false, hosts: [source, destination], ports, ids: [0; 2] };
        let nothing = Segment { seq: 1, ack: 0, flags: SYN, window: 501, options: &[], payload: &[] };
        let mut message = vec![3, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&quoted.tcp(0, &nothing)[14..42]);
        let checksum = folded(sum(&message));
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = self.network(1, ICMP, message.len());
        frame.extend_from_slice(&message);
        frame
    }

    /// Link and IP header of a packet whose IP payload has `len` octets.
    fn network(&mut self, side: usize, protocol: u8, len: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(14 + 40 + len);
        // Locally administered: the client's router and the load balancer.
        let macs: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
        frame.extend_from_slice(&macs[1 - side]);
        frame.extend_from_slice(&macs[side]);
        if self.v6 {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
            frame.extend_from_slice(&[protocol, 64]);
            for host in [self.hosts[side], self.hosts[1 - side]] {
                // 2001:db8::/32 is for documentation, RFC 3849.
                frame.extend_from_slice(&[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
                frame.extend_from_slice(&host.to_be_bytes());
            }
        } else {
            self.ids[side] = self.ids[side].wrapping_add(1);
            frame.extend_from_slice(&[8, 0, 0x45, 0]);
            frame.extend_from_slice(&(20 + len as u16).to_be_bytes());
            frame.extend_from_slice(&self.ids[side].to_be_bytes());
            frame.extend_from_slice(&[0x40, 0, 64, protocol, 0, 0]);
            frame.extend_from_slice(&self.hosts[side].to_be_bytes());
            frame.extend_from_slice(&self.hosts[1 - side].to_be_bytes());
            let checksum = folded(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        frame
    }

    /// Fills in the checksum over pseudo header and segment; the segment begins at `at`, its checksum lies `field` octets further.
    fn checksum(&self, frame: &mut [u8], protocol: u8, at: usize, field: usize) {
        let addresses = if self.v6 { at - 32..at } else { at - 8..at };
        let len = (frame.len() - at) as u64;
        let checksum = folded(sum(&frame[addresses]) + u64::from(protocol) + len + sum(&frame[at..]));
        frame[at + field..at + field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Sum of the 16-bit words, RFC 1071.
fn sum(bytes: &[u8]) -> u64 {
    // Words of 32 bits: the sum folds to the same 16 bits, in half the additions.
    let words = bytes.chunks_exact(4);
    let mut rest = [0; 4];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    words.map(|four| u64::from(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))).sum::<u64>()
        + u64::from(u32::from_be_bytes(rest))
}

fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An ARP answer: `host` is at the hardware address that ends with its octets and `turn`. RFC 826.
pub(super) fn arp_answer(host: u32, turn: u8) -> Vec<u8> {
    let [a, b, c, d] = host.to_be_bytes();
    let here = [2, turn, a, b, c, d];
    let mut frame = vec![2, 0, 0, 0, 0, 1];
    frame.extend_from_slice(&here);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend_from_slice(&here);
    frame.extend_from_slice(&host.to_be_bytes());
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
    frame
}
