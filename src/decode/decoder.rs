//! The decoder: fast path, walk and fragments brought together.

use super::fragment::{Fragments, Limits, LostFragments};
use super::ip::{Header, Piece};
use super::span::Span;
use super::walk::{End, Walk};
use super::{Direction, FragmentCounts, Packet, Transport, fast};
use crate::capture::Frame;
use crate::event::PacketRef;
use crate::time::Timestamp;

/// Turns frames into packets. Feed it the frames of one capture in their order: fragments wait inside for each other.
pub struct Decoder {
    pub(super) fragments: Fragments,
    /// The last reassembled datagram: packets borrow it.
    assembled: Vec<u8>,
    counts: FragmentCounts,
}

impl Decoder {
    /// A decoder whose waiting fragments stay within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self { fragments: Fragments::new(limits), assembled: Vec::new(), counts: FragmentCounts::default() }
    }

    /// The packet of a frame; borrows the frame or the decoder's reassembly buffer.
    pub fn decode<'a>(&'a mut self, frame: &Frame<'a>) -> Packet<'a> {
        match Self::plain(frame) {
            Some(packet) => packet,
            None => self.odd(frame),
        }
    }

    /// The packet of an ordinary frame; `None` where [`Decoder::odd`] must look.
    #[inline(always)]
    pub fn plain<'a>(frame: &Frame<'a>) -> Option<Packet<'a>> {
        fast::packet(frame)
    }

    /// The packet of a frame that is not ordinary.
    #[cold]
    #[inline(never)]
    pub fn odd<'a>(&'a mut self, frame: &Frame<'a>) -> Packet<'a> {
        let mut packet = self.walk(frame);
        if packet.link.direction == Direction::Unknown {
            packet.link.direction = fast::told(frame);
        }
        packet
    }

    /// What became of fragmented datagrams so far.
    pub fn fragments(&self) -> &FragmentCounts {
        &self.counts
    }

    /// Datagrams of which fragments never came, at the time of the latest packet.
    pub fn lost_fragments(&self, now: Timestamp) -> LostFragments {
        self.fragments.lost(now)
    }

    /// Gives up the datagrams that still wait for fragments, so that [`Decoder::fragments`] tells of them. For the end of a capture.
    pub fn finish(&mut self) {
        self.fragments.finish(&mut self.counts);
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
        Packet {
            at: PacketRef { file: frame.file, number: frame.number, time: frame.time },
            interface: frame.interface,
            link: walk.link,
            ip: walk.ip,
            transport,
            cut: walk.cut,
        }
    }

    /// Adds a piece; when it completes a datagram that is itself a piece (a fragmented tunnel of fragments) goes on with that.
    fn reassemble(
        &mut self,
        frame: &Frame<'_>,
        walk: &Walk,
        header: &Header<'_>,
        piece: Piece,
    ) -> Result<Option<Whole>, &'static str> {
        let Some((protocol, octets)) = self.fragments.add(frame, &walk.link, header, piece, &mut self.counts)? else {
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
