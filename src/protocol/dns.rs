//! DNS over UDP and TCP: questions and answers. RFC 1035, RFC 7766.

use serde::{Deserialize, Serialize};

use super::{Analyzer, Emit, Sample, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::{FlowHead, Wants};
use crate::wire::dns::{self, DnsMessage};
use crate::wire::{Cursor, Limit, Malformed, Recognition};

/// Longest message over TCP that is waited for on other ports.
const LONGEST_ELSEWHERE: u16 = 4096;

pub(super) fn start() -> Box<dyn Analyzer> {
    Box::<OverTcp>::default()
}

/// Whether DNS is expected on one of the ports: unicast, multicast, link-local. Elsewhere the octets must say so alone.
fn expected(flow: &FlowHead) -> bool {
    let usual = |port: u16| matches!(port, 53 | 5353 | 5355);
    usual(flow.server.port) || usual(flow.client.port)
}

/// What one datagram is.
pub(super) enum Datagram {
    /// This.
    Dns(Box<DnsMessage>),
    /// No DNS, though its port expects some.
    Strange,
    /// No DNS.
    Other,
}

/// Reads one datagram that had `len` octets on the wire.
pub(super) fn datagram(flow: &FlowHead, bytes: &[u8], len: u32) -> Datagram {
    let expected = expected(flow);
    let cut = (bytes.len() as u64) < u64::from(len);
    match dns::parse(bytes, cut) {
        Ok(message) if expected || dns::looks_like_dns(bytes) => Datagram::Dns(Box::new(message)),
        _ if expected => Datagram::Strange,
        _ => Datagram::Other,
    }
}

/// DNS behind its two octets of length: a query of the client, a response of the server. On port 53 the header is enough; elsewhere the
/// whole message must fit, for a length prefix is easily met by chance.
pub(super) fn over_tcp(sample: &Sample<'_>) -> Recognition {
    let cursor = &mut Cursor::new(sample.bytes);
    match judge(cursor, sample.side == Side::Server, expected(sample.flow)) {
        Ok(true) if expected(sample.flow) => Recognition::Yes,
        Ok(true) => match dns::split_stream(sample.bytes) {
            Ok((message, _)) if dns::looks_like_dns(message) => Recognition::Yes,
            Err(Malformed { limit: Limit::Slice, .. }) => Recognition::NeedMore,
            _ => Recognition::No,
        },
        Ok(false) => Recognition::No,
        Err(_) => Recognition::NeedMore,
    }
}

/// Length, id, flags and number of questions, judged as they come.
fn judge(cursor: &mut Cursor<'_>, response: bool, expected: bool) -> Result<bool, Malformed> {
    const WHAT: &str = "DNS header";
    let len = cursor.u16(WHAT)?;
    if len < 12 || (!expected && len > LONGEST_ELSEWHERE) {
        return Ok(false);
    }
    cursor.u16(WHAT)?;
    let flags = cursor.u8(WHAT)?;
    // QR tells the sides apart; opcodes beyond 5 were never assigned.
    if (flags & 0x80 != 0) != response || flags >> 3 & 0x0f > 5 {
        return Ok(false);
    }
    cursor.u8(WHAT)?;
    Ok(cursor.u16(WHAT)? == 1)
}

/// Messages behind two octets of length.
#[derive(Default, Serialize, Deserialize)]
struct OverTcp {
    /// A message that is not whole yet: at most 64 KiB.
    held: [Vec<u8>; 2],
}

impl Analyzer for OverTcp {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        let held = &mut self.held[index(side)];
        held.extend_from_slice(bytes);
        let mut rest = held.as_slice();
        let wants = loop {
            match dns::split_stream(rest) {
                Ok((message, behind)) => {
                    rest = behind;
                    let Ok(message) = dns::parse(message, false) else { break Wants::Nothing };
                    emit(Event { at, side, what: What::Dns(Box::new(message)) });
                }
                Err(Malformed { limit: Limit::Slice, .. }) => break Wants::More,
                Err(_) => break Wants::Nothing,
            }
        };
        let read = held.len() - rest.len();
        held.drain(..read);
        wants
    }

    fn gap(&mut self, _side: Side, _missing: u64) -> Wants {
        Wants::Nothing
    }

    fn end(&mut self, _side: Side, _at: PacketRef, _emit: Emit<'_>) {}

    fn freeze(&self, into: &mut Freezer) -> bool {
        into.put(self).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        from.take().map(|known| *self = known).is_some()
    }

    fn flip(&mut self) {
        self.held.swap(0, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::flow::facts::{IpProtocol, RoleSource};
    use crate::protocol::script::{Play, head};
    use crate::wire::samples::octets;

    const QUERY: &str = "abcd 0120 0001 0000 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001";
    const ANSWER: &str = "abcd 8180 0001 0001 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001 \
        c00c 0001 0001 0000012c 0004 c0000201";

    fn over_tcp(message: &str) -> Vec<u8> {
        let message = octets(message);
        [&(message.len() as u16).to_be_bytes()[..], &message].concat()
    }

    fn names(play: &Play) -> Vec<(Side, bool)> {
        let dns = play.events.iter().filter_map(|e| match &e.what {
            What::Dns(message) => Some((e.side, message.response)),
            _ => None,
        });
        dns.collect()
    }

    #[test]
    fn messages_over_tcp_are_read_on_any_port() {
        for port in [53, 8053] {
            let mut play = Play::new();
            play.head.server.port = port;
            play.client(&[over_tcp(QUERY), over_tcp(QUERY)].concat());
            play.server(&over_tcp(ANSWER));
            assert_eq!(play.recognised(), [(Side::Client, Protocol::Dns), (Side::Server, Protocol::Dns)]);
            assert_eq!(names(&play), [(Side::Client, false), (Side::Client, false), (Side::Server, true)]);
        }
    }

    #[test]
    fn datagrams_are_read_and_recognised_once() {
        let mut play = Play::new();
        play.head = crate::flow::FlowHead { transport: IpProtocol::Udp, ..head() };
        play.head.server.port = 53;
        assert_eq!(play.datagram(Side::Client, &octets(QUERY)), Wants::More);
        assert_eq!(play.datagram(Side::Server, &octets(ANSWER)), Wants::More);
        assert_eq!(play.datagram(Side::Server, b"\0\x01garbage"), Wants::More);
        assert_eq!(play.datagram(Side::Client, &octets(QUERY)), Wants::More);
        assert_eq!(play.recognised(), [(Side::Client, Protocol::Dns), (Side::Server, Protocol::Dns)]);
        assert_eq!(names(&play).len(), 3);
    }

    #[test]
    fn other_datagrams_are_left_alone() {
        let mut play = Play::new();
        play.head.server.port = 4433;
        assert_eq!(play.datagram(Side::Client, b"\xc0\0\0\0\x01 and more"), Wants::Nothing);
        assert!(play.events.is_empty());
    }

    #[test]
    fn an_answer_from_the_supposed_client_turns_guessed_roles() {
        let mut play = Play::new();
        (play.head.role, play.head.server.port) = (RoleSource::Guess, 40_000);
        assert_eq!(play.datagram(Side::Client, &octets(ANSWER)), Wants::Flip);
        assert_eq!(names(&play), [(Side::Server, true)]);
        assert_eq!(play.datagram(Side::Client, &octets(QUERY)), Wants::More);
        assert_eq!(play.recognised(), [(Side::Server, Protocol::Dns), (Side::Client, Protocol::Dns)]);
    }
}
