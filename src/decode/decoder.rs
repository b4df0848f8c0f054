//! The decoder: fast path, walk, fragments and counts brought together.

use super::counts::Counts;
use super::fragment::{Fragments, Limits};
use super::ip::{Header, Piece};
use super::span::Span;
use super::walk::{End, Walk};
use super::{Direction, Packet, Transport, fast};
use crate::capture::Frame;
use crate::event::PacketRef;

/// Turns frames into packets. Feed it the frames of one capture in their order: fragments wait inside for each other.
pub struct Decoder {
    pub(super) fragments: Fragments,
    /// The last reassembled datagram: packets borrow it.
    assembled: Vec<u8>,
    counts: Counts,
}

impl Decoder {
    /// A decoder whose waiting fragments stay within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { fragments: Fragments::new(limits), assembled: Vec::new(), counts: Counts::default() }
    }

    /// The packet of a frame; borrows the frame or the decoder's reassembly buffer. Counts it.
    #[inline]
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>) -> Packet<'a> {
        // pcapng tells the direction beside the packet (§4.3.1), the link layer of Linux cooked captures inside it.
        let told = match frame.flags & 3 {
            1 => Direction::In,
            2 => Direction::Out,
            _ => Direction::Unknown,
        };
        if let Some(packet) = fast::packet(frame, told) {
            self.counts.note(frame.link, &packet);
            return packet;
        }
        let mut packet = self.walk(frame);
        if packet.link.direction == Direction::Unknown {
            packet.link.direction = told;
        }
        packet
    }

    /// What became of the frames so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Gives up the datagrams that still wait for fragments, so that [`Counts::fragments`] tells of them. For the end of a capture.
    pub fn finish(&mut self) {
        self.fragments.finish(&mut self.counts.fragments);
    }

    /// Any frame, header by header.
    #[cold]
    pub(super) fn walk<'a>(&'a mut self, frame: &Frame<'a>) -> Packet<'a> {
        let (mut walk, end) = Walk::over(frame);
        let transport = match end {
            End::Transport(transport) => transport,
            End::Piece(header, piece) => match self.reassemble(frame, &walk, &header, piece) {
                Err(reason) => Transport::Unreadable(reason),
                Ok(None) => Transport::Fragment,
                Ok(Some(whole)) => {
                    self.assembled = whole.octets;
                    walk = whole.walk;
                    match walk.resume(Header { body: Span::whole(&self.assembled), ..whole.header }) {
                        End::Transport(transport) => transport,
                        End::Piece(..) => Transport::Fragment,
                    }
                }
            },
        };
        let packet = Packet {
            at: PacketRef { file: frame.file, number: frame.number, time: frame.time },
            interface: frame.interface,
            link: walk.link,
            ip: walk.ip,
            transport,
            cut: walk.cut,
        };
        self.counts.note(frame.link, &packet);
        packet
    }

    /// Adds a piece; when it completes a datagram that is itself a piece (a fragmented tunnel of fragments) goes on with that.
    fn reassemble(
        &mut self,
        frame: &Frame<'_>,
        walk: &Walk,
        header: &Header<'_>,
        piece: Piece,
    ) -> Result<Option<Whole>, &'static str> {
        let Some((protocol, octets)) =
            self.fragments.add(frame, &walk.link, header, piece, &mut self.counts.fragments)?
        else {
            return Ok(None);
        };
        let headers = header.ip.len.saturating_sub(header.body.wire);
        let mut header = Header { protocol, body: Span::whole(&[]), ..*header };
        header.ip.len = headers + octets.len() as u32;
        let mut inner = walk.clone();
        if let End::Piece(inside, piece) = inner.resume(Header { body: Span::whole(&octets), ..header }) {
            return self.reassemble(frame, &inner, &inside, piece);
        }
        Ok(Some(Whole { walk: walk.clone(), header, octets }))
    }
}

/// A datagram put together, and the walk up to it.
struct Whole {
    walk: Walk,
    header: Header<'static>,
    octets: Vec<u8>,
}
