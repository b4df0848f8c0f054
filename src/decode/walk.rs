//! The walk: header after header, link layers and tunnels, until something that is neither.

use super::ip::{self, Header, Piece};
use super::link;
use super::span::{Reason, Span};
use super::transport::{self, number};
use super::tunnel;
use super::{Ip, Link, Transport};
use crate::capture::Frame;

/// Tunnels inside tunnels: deeper ones are an attack on parsers.
const MAX_TUNNELS: u8 = 8;

/// A header still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Ethernet,
    Llc,
    EtherType(u16),
    Sll,
    Sll2,
    Loopback,
    Ppp,
    SerialPpp,
    Pppoe,
    /// Ethernet behind an MPLS label: a tunnel.
    Pseudowire,
    /// IPv4 or IPv6: the version nibble decides.
    Ip,
    Ipv4,
    Ipv6,
}

/// What reading one header leads to.
pub(super) enum Step<'a> {
    /// The next header, and the octets from there on.
    Layer(Layer, Span<'a>),
    /// The walk is over.
    End(Transport<'a>),
    /// The walk is over for now: the packet is a piece of a datagram.
    Piece(Header<'a>, Piece),
}

/// Where a walk ends.
pub(super) enum End<'a> {
    Transport(Transport<'a>),
    /// To be put together with others; the header's body is the piece.
    Piece(Header<'a>, Piece),
}

/// What a walk has learnt so far.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Of the innermost link header seen.
    pub(super) link: Link,
    /// The innermost IP header seen; none again when a tunnel is entered.
    pub(super) ip: Option<Ip>,
    /// See [`super::Packet::cut`].
    pub(super) cut: bool,
    tunnels: u8,
    reassembled: bool,
}

impl Walk {
    /// Walks over a frame from its first octet on.
    pub(super) fn over<'a>(frame: &Frame<'a>) -> (Self, End<'a>) {
        let span = Span::new(frame.bytes, frame.wire_len);
        let mut walk = Self { link: Link::default(), ip: None, cut: span.is_cut(), tunnels: 0, reassembled: false };
        let end = match link::first_layer(frame.link) {
            Some(layer) => walk.run(Ok(Step::Layer(layer, span))),
            None => End::Transport(Transport::UnknownLink),
        };
        (walk, end)
    }

    /// Goes on behind an IP header whose body was put together from pieces. Counts as a tunnel, so that fragments inside fragments end.
    pub(super) fn resume<'a>(&mut self, mut header: Header<'a>) -> End<'a> {
        self.reassembled = true;
        self.tunnels += 1;
        header.piece = None;
        let step = match self.tunnels > MAX_TUNNELS {
            true => Err("more than 8 tunnels inside each other"),
            false => self.ip(header),
        };
        self.run(step)
    }

    /// Every step either ends the walk, moves up a layer, or enters one of at most [`MAX_TUNNELS`] tunnels: the loop ends.
    fn run<'a>(&mut self, mut step: Result<Step<'a>, Reason>) -> End<'a> {
        loop {
            step = match step {
                Ok(Step::Layer(layer, span)) => self.step(layer, span),
                Ok(Step::End(transport)) => return End::Transport(transport),
                Ok(Step::Piece(header, piece)) => return End::Piece(header, piece),
                Err(reason) => return End::Transport(Transport::Unreadable(reason)),
            }
        }
    }

    fn step<'a>(&mut self, layer: Layer, span: Span<'a>) -> Result<Step<'a>, Reason> {
        match layer {
            Layer::Ethernet => link::ethernet(span, &mut self.link),
            Layer::Llc => link::llc(span),
            Layer::EtherType(kind) => link::ether_type(kind, span, &mut self.link),
            Layer::Sll => link::sll(span, &mut self.link),
            Layer::Sll2 => link::sll2(span, &mut self.link),
            Layer::Loopback => link::loopback(span),
            Layer::Ppp => link::ppp(span),
            Layer::SerialPpp => link::serial_ppp(span),
            Layer::Pppoe => link::pppoe(span),
            Layer::Pseudowire => self.enter(Layer::Ethernet, span),
            Layer::Ip => match span.bytes.first().ok_or("IP header cut off")? >> 4 {
                4 => self.ip(ip::ipv4(span)?),
                6 => self.ip(ip::ipv6(span)?),
                _ => Err("IP version neither 4 nor 6"),
            },
            Layer::Ipv4 => self.ip(ip::ipv4(span)?),
            Layer::Ipv6 => self.ip(ip::ipv6(span)?),
        }
    }

    /// What an IP packet carries, after its extension headers.
    fn ip<'a>(&mut self, mut header: Header<'a>) -> Result<Step<'a>, Reason> {
        self.cut = header.body.is_cut();
        header.ip.tunnelled |= self.tunnels > u8::from(self.reassembled);
        header.ip.reassembled |= self.reassembled;
        self.ip = Some(header.ip);
        if header.piece.is_none() {
            ip::extensions(&mut header)?;
            self.ip = Some(header.ip);
        }
        if let Some(piece) = header.piece {
            return Ok(Step::Piece(header, piece));
        }
        let body = header.body;
        Ok(match header.protocol {
            number::TCP => Step::End(Transport::Tcp(transport::tcp(body)?)),
            number::UDP => self.udp(body)?,
            number::ICMP if !header.v6 => Step::End(Transport::Icmp4(transport::icmp(body)?)),
            number::ICMP6 if header.v6 => Step::End(Transport::Icmp6(transport::icmp(body)?)),
            number::IPV4 => self.enter(Layer::Ipv4, body)?,
            number::IPV6 => self.enter(Layer::Ipv6, body)?,
            number::GRE => self.gre(body)?,
            other => Step::End(Transport::OtherIp(other)),
        })
    }

    fn enter<'a>(&mut self, layer: Layer, span: Span<'a>) -> Result<Step<'a>, Reason> {
        self.tunnels += 1;
        if self.tunnels > MAX_TUNNELS {
            return Err("more than 8 tunnels inside each other");
        }
        self.ip = None;
        Ok(Step::Layer(layer, span))
    }

    fn udp<'a>(&mut self, span: Span<'a>) -> Result<Step<'a>, Reason> {
        let (datagram, body) = transport::udp(span)?;
        match tunnel::in_datagram(datagram.destination_port, body) {
            Some((layer, body)) => self.enter(layer, body),
            None => Ok(Step::End(Transport::Udp(datagram))),
        }
    }

    fn gre<'a>(&mut self, span: Span<'a>) -> Result<Step<'a>, Reason> {
        match tunnel::gre(span)? {
            Some((layer, body)) => self.enter(layer, body),
            None => Ok(Step::End(Transport::OtherIp(number::GRE))),
        }
    }
}
