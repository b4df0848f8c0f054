//! Packets to flows: who talks to whom, what TCP did, and the octets in order. Knows no protocol above TCP.
//!
//! Generic over what the floors above keep per flow ([`Sink::Conversation`]); in-order octets are lent through [`Sink`], never copied
//! unless a segment waits behind a hole.

pub mod facts;

mod ack;
mod assembler;
mod checksum;
mod close;
mod duplicates;
mod embryo;
mod frozen;
mod gathered;
mod half;
mod key;
mod ledger;
mod limits;
mod live;
mod loss;
mod options;
mod pace;
mod payload;
mod record;
mod roles;
mod rtt;
#[cfg(test)]
mod script;
pub mod table;
mod tcp;
mod tombstone;
mod udp;
mod wheel;

use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Retransmission, Side};
use crate::time::Timestamp;
use crate::wire::Endpoint;
use facts::{FlowFacts, IpProtocol, RoleSource};

/// What a sink may look at while a flow lives. Cheap: no facts are assembled for it.
#[derive(Clone, Copy, Debug)]
pub struct FlowHead {
    /// First packet: the flow's number.
    pub id: PacketRef,
    /// TCP or UDP.
    pub transport: IpProtocol,
    /// Client end.
    pub client: Endpoint,
    /// Server end.
    pub server: Endpoint,
    /// How the roles were found.
    pub role: RoleSource,
    /// First packet is no SYN.
    pub mid_stream: bool,
}

/// Why a flow left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides closed it, or one reset it, and the linger time passed.
    Closed,
    /// Nothing came for the time its state allows.
    Expired,
    /// A SYN with a new initial sequence number took its ports.
    Replaced,
    /// The table's cap was reached.
    Evicted,
    /// The capture ended.
    CaptureEnd,
    /// It has not: it is judged while it is open, because somebody waits.
    NotYet,
}

/// What a sink answers to octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Go on lending octets of this direction.
    More,
    /// Nothing more of this direction: only sequence numbers are followed from here.
    Nothing,
    /// The roles were guessed the wrong way round: swap them (facts and later events), then go on.
    Flip,
}

/// How a segment with payload came that is not simply the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was sent before.
    Again(Retransmission),
    /// It was sent once, and overtaken by later ones.
    Late,
    /// It was sent once, and the network made two of it.
    Doubled,
}

/// How far ahead something is that will be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Two others come before.
    Far,
    /// One other.
    Near,
    /// Nothing.
    Next,
}

/// Where a flow's events and octets go. Push, static dispatch.
pub trait Sink {
    /// What is kept per flow.
    type Conversation;

    /// Octets that what is kept of a flow takes beside itself, as far as that is easily told.
    fn weight(_conversation: &Self::Conversation) -> usize {
        0
    }

    /// Writes down all that is kept of a flow, for [`Sink::thaw`]. `false`: it cannot be, or only at length.
    fn freeze(_conversation: &Self::Conversation, _into: &mut Freezer) -> bool {
        false
    }

    /// What was written down, as it was.
    fn thaw(_from: &mut Thawer) -> Option<Self::Conversation> {
        None
    }

    /// What is kept of a flow says more than that it is open: asked before it is frozen.
    fn tells(_conversation: &Self::Conversation) -> bool {
        false
    }

    /// Much will be said soon of a flow to this server: what is known of the server may be sent for.
    fn approach(&mut self, _server: Endpoint, _distance: Distance) {}

    /// Facts of another flow that nobody needs any more: their memory is written to again.
    fn spare_facts(&mut self) -> Option<Box<FlowFacts>> {
        None
    }

    /// A flow begins.
    fn open(&mut self, flow: &FlowHead) -> Self::Conversation;

    /// Something happened.
    fn event(&mut self, flow: &FlowHead, conversation: &mut Self::Conversation, event: Event);

    /// The next octets of one direction, in order. `at` is the packet that made them available.
    fn bytes(
        &mut self,
        flow: &FlowHead,
        conversation: &mut Self::Conversation,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
    ) -> Wants;

    /// `missing` octets of one direction will never come (capture loss, snaplen, cap); later octets follow them.
    fn gap(&mut self, flow: &FlowHead, conversation: &mut Self::Conversation, side: Side, at: PacketRef, missing: u64);

    /// One UDP datagram; `len` octets on the wire.
    fn datagram(
        &mut self,
        flow: &FlowHead,
        conversation: &mut Self::Conversation,
        side: Side,
        at: PacketRef,
        bytes: &[u8],
        len: u32,
    ) -> Wants;

    /// The direction's octets are over (FIN reached in order, or RST, or the flow ended).
    fn end(&mut self, flow: &FlowHead, conversation: &mut Self::Conversation, side: Side, at: PacketRef);

    /// Every segment that came again or late, where [`Sink::event`] tells the first of an episode. Called once more for the same packet when a
    /// DSACK shows that it was needless.
    fn judged(&mut self, _flow: &FlowHead, _conversation: &mut Self::Conversation, _at: PacketRef, _came: Came) {}

    /// The flow left the table. `now` is the capture time at which that was decided.
    fn closed(&mut self, facts: Box<FlowFacts>, conversation: Self::Conversation, why: Ended, now: Timestamp);
}
