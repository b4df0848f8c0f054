//! Whether an SMTP client gets rid of any mail on its connection: which reply answers which command (RFC 5321 §3.3, RFC 2920).
//!
//! Only the first letters of a client's lines are looked at. Who had one recipient taken, or begins to send a message, is followed no
//! further: that a server turns down some recipients is daily life.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Emit;
use crate::event::{Event, PacketRef, Side, What};
use crate::wire::text::failure::Failure;

/// Octets of a line that tell a command.
const VERB: usize = 4;
/// Commands that may wait for their replies, at two bits each: clients that send more at once are not followed.
const WAITING: u32 = 32;

/// What a line asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// EHLO, AUTH and its answers, RSET, QUIT.
    Other,
    Mail,
    Recipient,
    Data,
}

/// The mails of one client, until one is taken.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Letters {
    verb: SmallVec<[u8; VERB]>,
    /// Lines without a reply, the oldest in the lowest bits.
    waiting: u64,
    waiting_len: u32,
    /// The first refusal, and how many there were.
    first: Option<(PacketRef, Box<Failure>)>,
    refusals: u32,
    told: u32,
}

impl Letters {
    /// The next octets of the client; whether more can be read.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> bool {
        for piece in bytes.split_inclusive(|octet| *octet == b'\n') {
            let room = VERB - self.verb.len();
            self.verb.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if !piece.ends_with(b"\n") {
                break;
            }
            let verb = std::mem::take(&mut self.verb);
            let line = match &verb.to_ascii_uppercase()[..] {
                b"MAIL" => Line::Mail,
                b"RCPT" => Line::Recipient,
                b"DATA" => Line::Data,
                // What follows BDAT are no lines (RFC 3030).
                b"BDAT" => return false,
                _ => Line::Other,
            };
            if self.waiting_len == WAITING {
                return false;
            }
            self.waiting |= (line as u64) << (2 * self.waiting_len);
            self.waiting_len += 1;
        }
        true
    }

    /// A reply: whether it is to be followed further. `refusal`: how it is told, should it turn a mail down.
    pub(super) fn reply(&mut self, at: PacketRef, line: &[u8], refusal: Option<Failure>) -> bool {
        // Of several lines the last one has no hyphen (RFC 5321 §4.2.1).
        if line.get(3) == Some(&b'-') || self.waiting_len == 0 {
            return true;
        }
        let asked = self.waiting & 3;
        self.waiting >>= 2;
        self.waiting_len -= 1;
        let taken = matches!((asked, line.first()), (2, Some(b'2')) | (3, Some(b'3')));
        let mail = asked == Line::Mail as u64 || asked == Line::Recipient as u64;
        if let Some(failure) = refusal.filter(|_| mail) {
            self.refusals = self.refusals.saturating_add(1);
            self.first.get_or_insert_with(|| (at, Box::new(failure)));
        }
        !taken
    }

    /// Tells that no mail was taken and some were turned down.
    pub(super) fn end(&mut self, emit: Emit<'_>) {
        if let Some((at, failure)) = &self.first
            && self.refusals > self.told
        {
            self.told = self.refusals;
            let failure = Failure { count: self.refusals, ..failure.as_ref().clone() };
            emit(Event { at: *at, side: Side::Server, what: What::Failure(Box::new(failure)) });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::script::Play;
    use crate::wire::text::failure::Class;

    const GREETING: &[u8] = b"220 mx.example ESMTP\r\n";
    const DENIED: &[u8] = b"554 5.7.1 <a@b>: Relay access denied\r\n";

    /// How many mails are told to be turned down, in pieces of a size.
    fn refused(talk: &[(&[u8], &[u8])], size: usize) -> Option<u32> {
        let mut play = Play::new();
        play.server(GREETING);
        for (line, reply) in talk {
            for piece in line.chunks(size) {
                play.client(piece);
                play.freeze();
            }
            for piece in reply.chunks(size) {
                play.server(piece);
            }
        }
        play.end(Side::Client);
        let told = play.events.iter().filter_map(|e| match &e.what {
            What::Failure(failure) if failure.class == Class::Refused => Some(failure.count),
            _ => None,
        });
        told.max()
    }

    const HELLO: (&[u8], &[u8]) = (b"EHLO a\r\n", b"250-mx\r\n250 PIPELINING\r\n");
    const FROM: (&[u8], &[u8]) = (b"MAIL FROM:<a@b>\r\n", b"250 2.1.0 Ok\r\n");
    const TO: (&[u8], &[u8]) = (b"rcpt TO:<c@d>\r\n", DENIED);

    #[test]
    fn a_client_none_of_whose_mails_is_taken_is_told_with_their_number() {
        for size in [1, 3, usize::MAX] {
            let again = (&b"RSET\r\n"[..], &b"250 2.0.0 Ok\r\n"[..]);
            assert_eq!(
                refused(&[HELLO, FROM, TO, again, FROM, TO, (b"QUIT\r\n", b"221 Bye\r\n")], size),
                Some(2),
                "{size}"
            );
            let at_once = (
                &b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"[..],
                &b"250 2.1.0 Ok\r\n554 5.7.1 Relay access denied\r\n554 5.5.1 Error: no valid recipients\r\n"[..],
            );
            assert_eq!(refused(&[HELLO, at_once], size), Some(1), "{size}");
            assert_eq!(
                refused(&[HELLO, (b"MAIL FROM:<a@b>\r\n", b"530 5.7.0 Authentication required\r\n")], size),
                Some(1)
            );
        }
    }

    #[test]
    fn one_recipient_that_is_taken_and_one_that_does_not_exist_are_daily_life() {
        let taken = (&b"RCPT TO:<e@f>\r\n"[..], &b"250 2.1.5 Ok\r\n"[..]);
        assert_eq!(refused(&[HELLO, FROM, TO, taken], 5), None);
        assert_eq!(refused(&[HELLO, FROM, taken, TO], 5), None);
        assert_eq!(refused(&[HELLO, FROM, (b"RCPT TO:<c@d>\r\n", b"550 5.1.1 User unknown\r\n")], 5), None);
        assert_eq!(refused(&[HELLO, FROM, (b"VRFY <c@d>\r\n", DENIED)], 5), None);
        assert_eq!(refused(&[HELLO, FROM, TO, (b"BDAT 4 LAST\r\nRCPT", b"554 5.5.1 none\r\n")], 5), None);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, lines in "(RCPT|DATA|x|\n){0,80}", reply in "[2345 -]{0,5}") {
            for bytes in [&bytes[..], lines.as_bytes()] {
                let mut letters = Letters::default();
                letters.bytes(bytes);
                letters.reply(PacketRef { file: 0, number: 1, time: crate::time::Timestamp(0) }, reply.as_bytes(), None);
                prop_assert!(letters.waiting_len <= WAITING && !letters.verb.spilled());
            }
        }
    }
}
