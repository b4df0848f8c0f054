//! Errors that a service reports behind its greeting: a look at the beginning of each message, never at what it holds.
//!
//! Bodies are stepped over by their lengths. Nothing is kept but the beginning of a message that a segment cut in two.

use serde::{Deserialize, Serialize};

use super::Emit;
use super::letters::Letters;
use crate::event::{Event, PacketRef, Side, What};
use crate::wire::text::failure::{Class, Failure, Message, ReadsMessage};
use crate::wire::text::redis;

/// Octets of a message that are waited for: PostgreSQL's longest error.
const LONGEST: usize = 32 * 1024;
/// So many are told one by one.
const TOLD: u32 = 8;

/// How far the messages of a server were read.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Failures {
    /// The beginning of a message.
    held: Vec<u8>,
    /// Octets of a message that are still to come.
    rest: u64,
    /// The first message was read: it is the greeting.
    begun: bool,
    /// The client was let in.
    welcome: bool,
    /// Failures so far.
    count: u32,
    /// A health check logs in that takes a refusal for a sign of life.
    pub(super) probe: bool,
    /// The client asked for work with what is answered now.
    pub(super) work: bool,
    /// It asked for what Redis does for nobody else.
    pub(super) entry: bool,
    /// Redis refuses the login, or work without one; kept back, for the client may be let in after all.
    refused: Option<Box<(PacketRef, Failure)>>,
    /// The mails of a client of SMTP.
    pub(super) letters: Option<Box<Letters>>,
}

impl Failures {
    /// Of a server, with the mails of its client where it takes some.
    pub(super) fn of(letters: Option<Box<Letters>>) -> Self {
        Self { letters, ..Self::default() }
    }

    /// The next octets of the server; whether more are wanted.
    pub(super) fn bytes(&mut self, reads: ReadsMessage, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> bool {
        if self.held.is_empty() {
            return self.read(reads, at, bytes, emit).is_some_and(|used| {
                self.held.extend_from_slice(bytes.get(used..).unwrap_or(&[]));
                self.held.len() < LONGEST
            });
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(bytes);
        let Some(used) = self.read(reads, at, &joined, emit) else { return false };
        joined.drain(..used);
        self.held = joined;
        self.held.len() < LONGEST
    }

    /// Redis does what the client asks: what it refused before was mistyped, or asked for too early.
    fn let_in(&mut self, emit: Emit<'_>) {
        self.welcome = true;
        if let Some((at, failure)) = self.refused.take().map(|kept| *kept) {
            emit(Event { at, side: Side::Server, what: What::Failure(Box::new(failure)) });
        }
    }

    /// Tells what was kept back: no mail was taken, and the client was not let in. Whether it was can only be said where all that it asked
    /// was `followed`.
    pub(super) fn end(&mut self, followed: bool, emit: Emit<'_>) {
        if let Some((at, failure)) = self.refused.take().map(|kept| *kept) {
            let class = if followed { Class::Login } else { failure.class };
            let failure = Failure { class, ..failure };
            emit(Event { at, side: Side::Server, what: What::Failure(Box::new(failure)) });
        }
        if let Some(letters) = &mut self.letters {
            letters.end(emit);
        }
    }

    /// What a reply says to a client of SMTP: that a mail is turned down is told when none was taken in the end.
    fn of_a_mail(&mut self, message: Message, at: PacketRef, bytes: &[u8]) -> Message {
        let (len, refusal) = match message {
            Message::Failed(len, failure) if failure.class == Class::Refused => (len, Some(failure)),
            Message::Usual(len) => (len, None),
            other => {
                if let (Some(letters), Message::Failed(..)) = (&mut self.letters, &other) {
                    letters.reply(at, bytes, None);
                }
                return other;
            }
        };
        if self.letters.as_mut().is_some_and(|letters| !letters.reply(at, bytes, refusal)) {
            self.letters = None;
        }
        Message::Usual(len)
    }

    /// Reads whole messages; how many octets they took, `None` when they are none.
    fn read(&mut self, reads: ReadsMessage, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Option<usize> {
        let mut used = 0;
        loop {
            let left = bytes.get(used..).unwrap_or(&[]);
            let over = self.rest.min(left.len() as u64);
            self.rest -= over;
            used += over as usize;
            let left = left.get(over as usize..).unwrap_or(&[]);
            if left.is_empty() {
                return Some(used);
            }
            let greets = !self.begun;
            let message = self.of_a_mail(reads(left, !self.welcome), at, left);
            match message {
                Message::Partial => return Some(used),
                Message::Lost => return None,
                Message::Usual(len) => {
                    self.rest = len;
                    if self.entry && !left.starts_with(b"-") {
                        self.let_in(emit);
                    }
                }
                Message::Welcome(len) => (self.rest, self.welcome) = (len, true),
                Message::Failed(len, mut failure) => {
                    self.rest = len;
                    let login = failure.class == Class::Login;
                    if !(login && greets) {
                        self.count = self.count.saturating_add(1);
                        (failure.count, failure.probe) = (self.count, login && self.probe);
                        if !self.welcome && redis::wants_a_login(&failure.code, self.work) {
                            let count = self.count;
                            self.refused.get_or_insert_with(|| Box::new((at, failure))).1.count = count;
                        } else if self.count <= TOLD || self.count.is_power_of_two() {
                            emit(Event { at, side: Side::Server, what: What::Failure(Box::new(failure)) });
                        }
                    }
                }
            }
            self.begun = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::{Side, What};
    use crate::protocol::script::Play;
    use crate::wire::text::failure::Class;

    const STARTUP: &[u8] = b"\0\0\0\x0d\0\x03\0\0user\0";
    const ASKS: &[u8] = b"R\0\0\0\x08\0\0\0\x05";
    const READY: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    fn error(fields: &[u8]) -> Vec<u8> {
        [&b"E"[..], &(fields.len() as u32 + 4).to_be_bytes(), fields].concat()
    }

    fn told(play: &Play) -> Vec<(Class, &str, u32)> {
        let told = play.events.iter().filter_map(|e| match &e.what {
            What::Failure(failure) => Some((failure.class, failure.text.as_str(), failure.count)),
            _ => None,
        });
        told.collect()
    }

    /// A conversation of PostgreSQL's server, in pieces.
    fn postgres(messages: &[&[u8]], size: usize) -> Play {
        let mut play = Play::new();
        play.client(STARTUP);
        for piece in messages.concat().chunks(size) {
            play.server(piece);
            play.freeze();
        }
        play
    }

    #[test]
    fn a_login_that_is_refused_behind_the_greeting_is_told_however_it_is_split() {
        let wrong = error(b"SFATAL\0C28P01\0Mpassword authentication failed\0\0");
        for size in [1, 3, usize::MAX] {
            let play = postgres(&[ASKS, &wrong], size);
            assert_eq!(told(&play), [(Class::Login, "FATAL 28P01: password authentication failed", 1)], "{size}");
        }
        let greeting = error(b"SFATAL\0C53300\0Msorry, too many clients already\0\0");
        assert!(told(&postgres(&[&greeting], 7)).is_empty(), "a first message is a greeting");
    }

    #[test]
    fn behind_the_login_only_trouble_is_told() {
        let (daily, full) = (error(b"SERROR\0C23505\0Mduplicate\0\0"), error(b"SERROR\0C53100\0Mno space\0\0"));
        let row = [&b"D\0\0\0\x0d"[..], b"E\0\0\0\x40SE\0C"].concat();
        let play = postgres(&[ASKS, READY, &daily, &row, &full, &full], 2);
        let text = "ERROR 53100: no space";
        assert_eq!(told(&play), [(Class::Trouble, text, 1), (Class::Trouble, text, 2)]);
    }

    #[test]
    fn many_are_told_ever_more_rarely() {
        let full = error(b"SERROR\0C53100\0Mno space\0\0").repeat(40);
        let counts: Vec<u32> =
            told(&postgres(&[ASKS, READY, &full], 1000)).iter().map(|(_, _, count)| *count).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 16, 32]);
    }

    #[test]
    fn a_probe_is_marked() {
        let mut play = Play::new();
        let parameters = b"user\0nobody\0application_name\0pg_isready\0\0";
        let startup = [&(parameters.len() as u32 + 8).to_be_bytes()[..], b"\0\x03\0\0", parameters].concat();
        let (one, other) = startup.split_at(30);
        play.client(one);
        play.client(other);
        play.server(ASKS);
        play.server(&error(b"SFATAL\0C28000\0Mrole does not exist\0\0"));
        let probes = play.events.iter().filter(|e| matches!(&e.what, What::Failure(failure) if failure.probe));
        assert_eq!(probes.count(), 1);
    }

    #[test]
    fn mysql_is_read_however_it_is_split() {
        let packet = |number: u8, payload: &[u8]| [&[payload.len() as u8, 0, 0, number][..], payload].concat();
        let full = packet(1, b"\xff\x5a\x04#HY000The table 't' is full");
        let said = [
            packet(0, b"\x0a8.0.36\0...."),
            packet(2, b"\0\0\0\x02\0\0\0"),
            packet(1, b"\x03abc"),
            full,
            packet(1, b"\xff\x28\x04#42000You have an error in your SQL syntax"),
        ];
        for size in [1, 3, usize::MAX] {
            let mut play = Play::new();
            for piece in said.concat().chunks(size) {
                play.server(piece);
                play.freeze();
            }
            assert_eq!(told(&play), [(Class::Trouble, "error 1114 (HY000): The table 't' is full", 1)], "{size}");
        }
    }

    #[test]
    fn a_server_that_goes_on_with_tls_is_not_read() {
        let mut play = Play::new();
        play.server(b"\x0c\0\0\0\x0a8.0.36\0....");
        assert_eq!(play.server(b"\x16\x03\x03\0\x7a\x02"), crate::flow::Wants::Nothing);
        play.bytes(Side::Server, b"\x09\0\0\x02\xff\x15\x04#28000");
        assert!(told(&play).is_empty());
    }
}
