//! What follows the last label of an MPLS stack, which nothing on the wire says.
//!
//! The first nibble tells IP (4, 6) from a pseudowire's control word (0; RFC 4385 §3) and its associated channel (1; §5). An Ethernet
//! pseudowire without control word (RFC 4448 §4.6) begins with any nibble, that of a server's address included (RFC 8469 §3). So what looks
//! like IP must have lengths that fit, and an Ethernet header is believed where its EtherType is one that is read here and what follows
//! agrees.

use super::Transport;
use super::link::{ARP, IPV4, IPV6, MAX_TAGS, MPLS, SERVICE_TAGS, VLAN};
use super::span::{Reason, Span};
use super::walk::{Layer, Step};

/// A label stack (RFC 3032 §2.1).
pub(super) fn mpls(mut span: Span<'_>) -> Result<Step<'_>, Reason> {
    for _ in 0..MAX_TAGS {
        let (label, rest) = span.take::<4>("MPLS label cut off")?;
        span = rest;
        if label[2] & 1 == 1 {
            return Ok(below(span));
        }
    }
    Err("more than 8 MPLS labels")
}

/// The payload of the last label.
fn below(span: Span<'_>) -> Step<'_> {
    let behind_word = span.skip(4, "").ok().filter(|inner| span.bytes[0] >> 4 == 0 && is_ethernet(*inner));
    let pseudowire = behind_word.or(Some(span).filter(|inner| is_ethernet(*inner)));
    match (span.bytes.first().map(|first| first >> 4), pseudowire) {
        (Some(4 | 6), Some(inner)) if !is_ip(span) => Step::Layer(Layer::Pseudowire, inner),
        (Some(4 | 6), _) => Step::Layer(Layer::Ip, span),
        (_, Some(inner)) => Step::Layer(Layer::Pseudowire, inner),
        _ => Step::End(Transport::NotIp(MPLS)),
    }
}

/// Whether the lengths an IP header states are those of what is there: padding and a frame check sequence may follow.
fn is_ip(span: Span<'_>) -> bool {
    // The least payload of an Ethernet frame, less one label; a check sequence and some alignment.
    const PADDED: u32 = 42;
    const BEHIND: u32 = 8;
    let fits = |length: u32| length <= span.wire && (span.wire <= PADDED || span.wire - length <= BEHIND);
    match span.bytes {
        [first, _, l0, l1, ..] if first >> 4 == 4 => {
            let length = u32::from(u16::from_be_bytes([*l0, *l1]));
            (20..=length).contains(&(u32::from(first & 0x0f) * 4)) && fits(length)
        }
        [_, _, _, _, l0, l1, ..] => fits(40 + u32::from(u16::from_be_bytes([*l0, *l1]))),
        // Too short to contradict.
        _ => true,
    }
}

/// Whether this is an Ethernet header in front of something known.
fn is_ethernet(span: Span<'_>) -> bool {
    let Ok((head, rest)) = span.take::<14>("") else { return false };
    let first = rest.bytes.first().map(|first| first >> 4);
    match u16::from_be_bytes([head[12], head[13]]) {
        IPV4 => first == Some(4),
        IPV6 => first == Some(6),
        ARP => rest.bytes.starts_with(&[0, 1, 8, 0, 6, 4]),
        kind => kind == VLAN || SERVICE_TAGS.contains(&kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where a stack of one label leads whose payload is this.
    fn leads_to(payload: &[u8]) -> &'static str {
        let stack = [&[0, 1, 1, 64], payload].concat();
        match mpls(Span::whole(&stack)) {
            Ok(Step::Layer(Layer::Ip, _)) => "IP",
            Ok(Step::Layer(Layer::Pseudowire, _)) => "pseudowire",
            Ok(Step::End(Transport::NotIp(MPLS))) => "nothing known",
            _ => "elsewhere",
        }
    }

    /// Ethernet, to an address that begins with `first`, around `kind` and `payload`, padded.
    fn ethernet(first: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1];
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame.resize(60, 0);
        frame
    }

    #[test]
    fn an_address_that_begins_with_4_or_6_is_no_ip() {
        let ip4 = [0x45, 0, 0, 46];
        for first in [0x00, 0x02, 0x44, 0x45, 0x60, 0x6c, 0xb8] {
            assert_eq!(leads_to(&ethernet(first, IPV4, &ip4)), "pseudowire", "{first:#x}");
            assert_eq!(leads_to(&[&[0; 4], &ethernet(first, IPV4, &ip4)[..]].concat()), "pseudowire", "{first:#x}");
        }
        assert_eq!(leads_to(&ethernet(0xff, ARP, &[0, 1, 8, 0, 6, 4, 0, 1])), "pseudowire");
    }

    #[test]
    fn ip_stays_ip_and_what_nobody_knows_is_not_guessed() {
        let mut packet = [0; 40];
        (packet[0], packet[3]) = (0x45, 40);
        assert_eq!(leads_to(&packet), "IP");
        assert_eq!(leads_to(&packet[..3]), "IP");
        assert_eq!(leads_to(&[&[0x60, 0, 0, 0, 0, 0][..], &[0; 40]].concat()), "IP");
        // An associated channel, a control word in front of ATM cells, a spanning tree frame, nothing.
        assert_eq!(leads_to(&[0x10, 0, 0, 0x21, 0x45, 0, 0, 20]), "nothing known");
        assert_eq!(leads_to(&[0; 60]), "nothing known");
        assert_eq!(leads_to(&ethernet(0x01, 38, &[0x42, 0x42, 3])), "nothing known");
        assert_eq!(leads_to(&[]), "nothing known");
    }
}
