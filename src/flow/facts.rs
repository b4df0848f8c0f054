//! What is known of one flow: the truth about its TCP (or UDP) side, as plain data that rules, reports and merges read.
//!
//! RFC 9293 (TCP), RFC 7323 (timestamps, window scale), RFC 2018/2883 (SACK, DSACK), RFC 8985 (tail loss probe).
//! Everything is seen from the capture point: "before the capture point" means between the sender and it.

use std::ops::{Deref, DerefMut};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::FlowHead;
use crate::event::{PacketRef, ResetKind, Retransmission, Side};
use crate::time::{Elapsed, Timestamp};
use crate::wire::seq::Seq;
use crate::wire::{Endpoint, Mac};

/// The facts of one flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowFacts {
    /// Its first packet: the flow's number everywhere.
    pub id: PacketRef,
    /// TCP or UDP.
    pub transport: IpProtocol,
    /// Who opened it (see `role`).
    pub client: Endpoint,
    /// Who was asked.
    pub server: Endpoint,
    /// How the roles were found.
    pub role: RoleSource,
    /// How much of the three-way handshake is in the capture.
    pub handshake: Handshake,
    /// First packet is no SYN.
    pub mid_stream: bool,
    /// An earlier flow had the same ports (its first packet).
    pub reuses: Option<PacketRef>,
    /// Its latest packet.
    pub last: PacketRef,
    /// SYN (the copy that was answered) to SYN+ACK: the round trip between capture point and server.
    pub rtt_server: Option<Elapsed>,
    /// SYN+ACK to ACK: the round trip between capture point and client.
    pub rtt_client: Option<Elapsed>,
    /// Where the capture point is, by those two.
    pub vantage: Vantage,
    /// How it ended at the capture point.
    pub close: Close,
    /// First FIN or RST: side and packet.
    pub closer: Option<(Side, PacketRef)>,
    /// Copies of packets that the capture recorded more than once (already left out everywhere else).
    pub duplicates: u64,
    /// The first of them: original and copy.
    pub duplicate: Option<(PacketRef, PacketRef)>,
    /// Packets that came by again at the same place with a TTL lower by two or more: they go round (left out everywhere else).
    pub rounds: u32,
    /// Packet of the ACK that completed the handshake.
    pub established: Option<PacketRef>,
    /// The latest silence of 30 s or more that new payload ended: the last packet before it, and that payload's packet.
    pub pause: Option<(PacketRef, PacketRef)>,
    /// Client's direction.
    pub from_client: Half,
    /// Server's direction.
    pub from_server: Half,
}

impl FlowFacts {
    /// Those of a flow of which only the first packet is known.
    pub(super) fn of(head: &FlowHead) -> Self {
        Self {
            id: head.id,
            transport: head.transport,
            client: head.client,
            server: head.server,
            role: head.role,
            handshake: Handshake::default(),
            mid_stream: head.mid_stream,
            reuses: None,
            last: head.id,
            rtt_server: None,
            rtt_client: None,
            vantage: Vantage::default(),
            close: Close::default(),
            closer: None,
            duplicates: 0,
            duplicate: None,
            rounds: 0,
            established: None,
            pause: None,
            from_client: Half::default(),
            from_server: Half::default(),
        }
    }
}

/// One direction of a flow: what its sender sent, and how the peer took it. What went wrong stands in [`Trouble`], whose fields read as if they
/// were its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Half {
    /// Packets, duplicates made by the capture left out.
    pub packets: u64,
    /// Octets of their IP packets on the wire.
    pub octets: u64,
    /// Payload octets as sent: the sum of all segments, retransmissions included.
    pub payload_sent: u64,
    /// Payload octets once: distinct sequence space that the capture saw.
    pub payload: u64,
    /// Segments with payload.
    pub segments: u64,
    /// Octets of this direction that the peer acknowledged.
    pub acknowledged: u64,
    /// Initial sequence number (of the SYN), or the first number seen.
    pub isn: Option<Seq>,
    /// Next sequence number after everything sent.
    pub next: Option<Seq>,
    /// Highest acknowledgment number this side sent.
    pub acked: Option<Seq>,
    /// MSS option of its SYN.
    pub mss: Option<u16>,
    /// Window scale option of its SYN.
    pub window_scale: Option<u8>,
    /// SACK permitted on its SYN.
    pub sack: bool,
    /// Timestamps option on its SYN.
    pub timestamps: bool,
    /// Every copy of its SYN (client) or SYN+ACK (server): the first 12.
    pub syns: SmallVec<[PacketRef; 1]>,
    /// How many copies there were.
    pub syn_count: u32,
    /// First packet of this side.
    pub first: Option<PacketRef>,
    /// Latest packet of this side.
    pub last: Option<PacketRef>,
    /// First packet with payload.
    pub first_payload: Option<PacketRef>,
    /// Latest packet with new payload.
    pub last_payload: Option<PacketRef>,
    /// Packet of the peer that first acknowledged payload of this side.
    pub first_payload_acked: Option<PacketRef>,
    /// First FIN.
    pub fin: Option<PacketRef>,
    /// FINs sent.
    pub fin_count: u32,
    /// Packet of the peer that acknowledged the FIN.
    pub fin_acked: Option<PacketRef>,
    /// Checksums of its first segments looked at / wrong, those of damaged ones left out.
    pub checksums: (u32, u32),
    /// TTL of the first packet, smallest, largest; those of RSTs stand with the RSTs.
    pub ttl: (u8, u8, u8),
    /// Smallest time from a segment of this side to the peer's acknowledgment of it.
    pub min_rtt: Option<Elapsed>,
    /// What its timestamps option told of its own clock, SYN and RST left out.
    pub clock: Option<SenderClock>,
    /// What holds it up although nothing is lost; `None` where there was nothing to measure.
    pub pace: Option<Box<Pace>>,
    /// Interfaces (index in the file, kernel index) this side's packets were seen on, with its link address: the first 4.
    pub faces: SmallVec<[Face; 1]>,
    /// `None` where nothing of it happened: most directions are told in half the room.
    pub trouble: Option<Box<Trouble>>,
}

/// What most directions never have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trouble {
    /// The first 4 RSTs.
    pub resets: Vec<Reset>,
    /// How many RSTs.
    pub reset_count: u32,
    /// Retransmissions of this side's payload, SYN and FIN left out.
    pub loss: Loss,
    /// Segments that came late but were sent once.
    pub reordered: u32,
    /// Keep-alive probes sent by this side.
    pub keepalives: u32,
    /// Of those, answered.
    pub keepalives_answered: u32,
    /// Times this side advertised a window of 0; the longest of its intervals, 8 with the latest.
    pub zero_windows: Vec<ZeroWindow>,
    /// How many intervals.
    pub zero_window_count: u32,
    /// Probes that the peer sent into this side's closed window.
    pub zero_window_probes: u32,
    /// Octets of this direction that the peer acknowledged but the capture never saw.
    pub unseen: u64,
    /// ACKs (of the peer) that covered such octets.
    pub unseen_acks: u32,
    /// The first of them.
    pub unseen_first: Option<PacketRef>,
    /// The latest of them.
    pub unseen_last: Option<PacketRef>,
    /// Payload that was sent and is not acknowledged: its oldest segment.
    pub unacknowledged: Option<Unacknowledged>,
    /// Overlapping copies with different octets.
    pub overlap_conflicts: u32,
    /// Octets held for reassembly were given up because of the cap.
    pub held_dropped: u64,
    /// Payload packets that the snaplen cut.
    pub cut: u64,
    /// The first of them.
    pub cut_first: Option<PacketRef>,
    /// Segments larger than the peer's MSS (segmentation offload).
    pub oversized: u32,
    /// The first of them.
    pub oversized_first: Option<PacketRef>,
    /// First wrong checksum.
    pub checksum_first: Option<PacketRef>,
    /// Segments that came damaged: a wrong checksum, no acknowledgment, and the same octets again with one that fits.
    pub damages: u32,
    /// The first 16 of them, each with the copy that came right.
    pub damaged: Vec<(PacketRef, PacketRef)>,
}

impl Deref for Half {
    type Target = Trouble;

    fn deref(&self) -> &Trouble {
        static NONE: LazyLock<Trouble> = LazyLock::new(Trouble::default);
        self.trouble.as_deref().unwrap_or_else(|| &NONE)
    }
}

impl DerefMut for Half {
    fn deref_mut(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }
}

impl Half {
    /// Whether it sent anything but RSTs, which others send in its name.
    pub fn spoke(&self) -> bool {
        self.packets > u64::from(self.reset_count)
    }

    /// Whether its window is 0 to the end of the capture, as far as intervals are kept.
    pub fn shut(&self) -> bool {
        self.zero_windows.last().is_some_and(|zero| zero.until.is_none())
    }

    /// Octets that the side's own later numbers say it sent, that the capture never saw and that the peer never acknowledged: lost before the
    /// capture point, and not made good. 0 where its SYN is not in the capture.
    pub fn never_came(&self) -> u32 {
        let (Some(isn), Some(next), 1..) = (self.isn, self.next, self.syn_count) else { return 0 };
        let sent = u64::from(next.minus(isn.plus(1)).max(0).unsigned_abs());
        let known = self.payload + self.unseen + u64::from(self.fin_count.min(1));
        sent.saturating_sub(known) as u32
    }
}

/// How fast a direction of a large transfer went, and what it waited for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Round trips measured on segments that were not alone on their way, so that no delayed acknowledgment is among them.
    pub trips: u32,
    /// Half of them took at least so long (known within a fifth).
    pub median: Option<Elapsed>,
    /// The shortest of them: the segment and its acknowledgment.
    pub shortest: Option<(PacketRef, PacketRef)>,
    /// The longest.
    pub longest: Option<(PacketRef, PacketRef)>,
    /// Payload octets acknowledged since the first 64 KiB.
    pub acknowledged: u64,
    /// From which acknowledgment to which.
    pub span: Option<(PacketRef, PacketRef)>,
    /// Of these octets: acknowledged while the receiver's window had no room for another segment.
    pub walled: u64,
    /// The first such acknowledgment.
    pub wall: Option<PacketRef>,
    /// The largest window that was full.
    pub window: u32,
    /// Small segments whose acknowledgment was delayed by the receiver's timer, whose sender sent the rest with that acknowledgment, and
    /// whose answer came then (RFC 896 meets RFC 1122 §4.2.3.2).
    pub stalls: u32,
    /// Time lost by them.
    pub stalled: Elapsed,
    /// The first: the small segment, its acknowledgment, the rest.
    pub stall: Option<(PacketRef, PacketRef, PacketRef)>,
}

/// The clock of one side as its TSval showed it. RFC 7323 §5.4: how many ticks a second is the sender's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderClock {
    /// First packet with a value.
    pub first: PacketRef,
    /// Packet with the latest value.
    pub last: PacketRef,
    /// Ticks between both.
    pub ticks: u32,
}

/// Where and how packets of one side were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Face {
    /// Interface index inside the file.
    pub interface: u16,
    /// Kernel interface index, 0 = unknown.
    pub ifindex: u32,
    /// 0 unknown, 1 in, 2 out, 3 broadcast, 4 other host.
    pub direction: u8,
    /// Source link address.
    pub source: Option<Mac>,
    /// Destination link address.
    pub destination: Option<Mac>,
    /// The first packet seen so.
    pub first: PacketRef,
    /// Packets.
    pub packets: u64,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpProtocol {
    /// 6
    Tcp,
    /// 17
    Udp,
}

/// How the roles of a flow were found, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RoleSource {
    /// The sender of the bare SYN is the client.
    Handshake,
    /// Who sent the ClientHello, request, query or PROXY header.
    Layer7,
    /// A well-known or otherwise seen listening port.
    Port,
    /// The lower port is the server's.
    Guess,
}

/// How much of the handshake the capture holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Handshake {
    /// Nothing of it.
    #[default]
    None,
    /// SYN only.
    Syn,
    /// SYN+ACK (with or without the SYN), not the third packet.
    SynAck,
    /// All three.
    Full,
}

/// Where the capture point is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vantage {
    /// Cannot be told.
    #[default]
    Unknown,
    /// On or beside the client.
    NearClient,
    /// On or beside the server.
    NearServer,
    /// In between.
    Middle,
}

/// How a flow ended at the capture point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Close {
    /// It did not, as far as the capture goes.
    #[default]
    Open,
    /// FIN of both sides.
    Fin,
    /// FIN of one side only.
    HalfClosed(Side),
    /// RST by a side before both FINs.
    Reset(Side, ResetKind),
}

/// One RST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The packet.
    pub at: PacketRef,
    /// Its kind.
    pub kind: ResetKind,
    /// Its sequence number.
    pub seq: Seq,
    /// Its acknowledgment number, when it has one.
    pub ack: Option<Seq>,
    /// Octets the peer had sent beyond that acknowledgment when the RST came.
    pub unread: u32,
    /// TTL of the packet.
    pub ttl: u8,
}

/// Retransmissions of one direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// By timer.
    pub timeout: u32,
    /// Fast retransmissions.
    pub fast: u32,
    /// Tail loss probes.
    pub tail_probe: u32,
    /// Needless copies.
    pub spurious: u32,
    /// The first packet that shows one: a copy of acknowledged octets, or the receiver's DSACK.
    pub needless: Option<PacketRef>,
    /// Retransmissions less than one RTO apart are one episode.
    pub episodes: u32,
    /// The first copy is in the capture: lost between the capture point and the receiver (or its ACK was lost).
    pub after_capture_point: u32,
    /// The first copy is not in the capture: lost between the sender and the capture point.
    pub before_capture_point: u32,
    /// The worst by gap, at most 3.
    pub worst: Vec<Resent>,
    /// First and latest copy by timer or fast retransmission.
    pub span: Option<(PacketRef, PacketRef)>,
}

impl Loss {
    /// All copies, needless ones and probes included.
    pub fn total(&self) -> u32 {
        self.timeout + self.fast + self.tail_probe + self.spurious
    }
}

/// One retransmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resent {
    /// The first copy, when seen.
    pub original: Option<PacketRef>,
    /// The copy.
    pub copy: PacketRef,
    /// Time between them (or since the hole was noticed).
    pub gap: Elapsed,
    /// Why.
    pub kind: Retransmission,
}

impl Resent {
    /// `sent again after 805 µs`; without a time where the first copy is not known.
    pub fn says(&self) -> String {
        if self.gap > Elapsed::ZERO { format!("sent again after {}", self.gap) } else { "sent again".into() }
    }
}

/// One interval with a closed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZeroWindow {
    /// The packet that closed it.
    pub from: PacketRef,
    /// The packet that opened it again; `None` while closed.
    pub until: Option<PacketRef>,
}

/// The oldest segment nobody acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unacknowledged {
    /// Its first copy.
    pub first: PacketRef,
    /// Its latest copy.
    pub last: PacketRef,
    /// Copies in all.
    pub copies: u32,
    /// Payload octets of the first copy; 0 for a lone FIN.
    pub len: u32,
    /// Payload octets of its latest copy: behind segmentation offload the first copy may be larger than anything on the wire.
    pub copy_len: u32,
    /// Octets beyond it that the peer has by its latest SACK.
    pub sacked: u32,
}

impl FlowFacts {
    /// The direction of `side`.
    pub fn half(&self, side: Side) -> &Half {
        match side {
            Side::Client => &self.from_client,
            Side::Server => &self.from_server,
        }
    }

    /// The end of `side`.
    pub fn endpoint(&self, side: Side) -> Endpoint {
        match side {
            Side::Client => self.client,
            Side::Server => self.server,
        }
    }

    /// Directions that are in the capture.
    pub fn both_ways(&self) -> bool {
        self.from_client.packets > 0 && self.from_server.packets > 0
    }

    /// First RST of `side` before which it had sent no FIN.
    pub fn reset(&self, side: Side) -> Option<&Reset> {
        self.half(side).resets.iter().find(|r| r.kind != ResetKind::AfterFin)
    }

    /// When the flow began.
    pub fn start(&self) -> Timestamp {
        self.id.time
    }
}
