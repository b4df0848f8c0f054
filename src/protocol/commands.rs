//! What a client of Redis asks for: the names of its commands, never what they hold.
//!
//! Arrays of bulk strings (redis.io, "Redis serialization protocol") are stepped over by their lengths. A client that sends anything else is
//! not read any further, and nothing is claimed of it. Nobody counts answers: commands between two of them are one batch, and only what
//! holds for all of a batch is known of each. At most 24 octets of a name or a length are held.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Emit;
use crate::event::{Event, PacketRef, Side, What};
use crate::wire::text::redis;

/// Octets of a line that holds a length, with its end, and of a name: the longest that is known has 16.
const LONGEST: usize = 24;
/// Values of one command, and octets of one value (Redis's own limits).
const VALUES: u64 = 1024 * 1024;
const OCTETS: u64 = 512 * 1024 * 1024;

/// The commands of one client.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Commands {
    /// Values of the command that are still to come, and how many came.
    left: u64,
    place: u64,
    /// Octets of a value that are still to come, its line end among them.
    rest: u64,
    /// The beginning of a line that a segment cut in two.
    line: SmallVec<[u8; LONGEST]>,
    /// The name of the command; the word behind it matters after CLIENT only.
    name: SmallVec<[u8; LONGEST]>,
    second: SmallVec<[u8; LONGEST]>,
    batch: Batch,
    /// The server spoke since the latest command.
    answered: bool,
    /// It said CLIENT REPLY: nobody knows any more what will be answered.
    mute: bool,
}

/// Commands between two answers.
#[derive(Default, Serialize, Deserialize)]
struct Batch {
    /// The packet that completed the first one, and its name.
    first: Option<(PacketRef, SmallVec<[u8; LONGEST]>)>,
    /// Each of them is answered at once.
    quick: bool,
    /// Each of them is work.
    work: bool,
    /// Each of them is done only for who is let in: all but the last words (QUIT, RESET), and those before a login (AUTH, HELLO) show by
    /// their success that it is done.
    guarded: bool,
    told: bool,
}

impl Commands {
    /// The next octets of the client; whether more can be read.
    pub(super) fn bytes(&mut self, at: PacketRef, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let used = self.rest.min(bytes.len() as u64) as usize;
                self.keep(bytes.get(..used).unwrap_or(bytes));
                bytes = bytes.get(used..).unwrap_or(&[]);
                self.rest -= used as u64;
                if self.rest == 0 {
                    self.value_ends(at);
                }
                continue;
            }
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            let (piece, behind) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            if self.line.len() + piece.len() > LONGEST {
                return false;
            }
            self.line.extend_from_slice(piece);
            bytes = behind;
            if piece.ends_with(b"\n") && !self.line_ends() {
                return false;
            }
        }
        true
    }

    /// A line with a length is whole; whether it is one.
    fn line_ends(&mut self) -> bool {
        let line = std::mem::take(&mut self.line);
        let Some((kind, number)) = line.trim_ascii_end().split_first() else { return false };
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u64>().ok());
        match (kind, number, self.left) {
            (b'*', Some(values @ 1..=VALUES), 0) => (self.left, self.place) = (values, 0),
            (b'$', Some(octets @ 0..=OCTETS), 1..) => self.rest = octets + 2,
            _ => return false,
        }
        true
    }

    /// Octets of a value: only of the first two anything is kept.
    fn keep(&mut self, bytes: &[u8]) {
        let word = match self.place {
            0 => &mut self.name,
            1 => &mut self.second,
            _ => return,
        };
        let inner = self.rest.saturating_sub(2).min((LONGEST - word.len()) as u64) as usize;
        word.extend_from_slice(bytes.get(..inner).unwrap_or(bytes));
    }

    fn value_ends(&mut self, at: PacketRef) {
        self.left -= 1;
        self.place += 1;
        if self.left == 0 {
            self.command_ends(at);
        }
    }

    fn command_ends(&mut self, at: PacketRef) {
        let (name, second) = (std::mem::take(&mut self.name), std::mem::take(&mut self.second));
        self.mute |= name.eq_ignore_ascii_case(b"client") && second.eq_ignore_ascii_case(b"reply");
        let (quick, work) = (redis::quick(&name).is_some(), redis::is_work(&name));
        let guarded = !name.eq_ignore_ascii_case(b"quit") && !name.eq_ignore_ascii_case(b"reset");
        if std::mem::take(&mut self.answered) || self.batch.first.is_none() {
            self.batch = Batch { first: Some((at, name)), quick, work, guarded, told: false };
        } else {
            self.batch.quick &= quick;
            self.batch.work &= work;
            self.batch.guarded &= guarded;
        }
    }

    /// The server speaks.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    /// Whether what the server answers now is work, whichever command it belongs to.
    pub(super) fn asks_for_work(&self) -> bool {
        self.batch.first.is_some() && self.batch.work
    }

    /// Whether a success shows that the client is let in.
    pub(super) fn asks_for_entry(&self) -> bool {
        self.batch.first.is_some() && self.batch.guarded
    }

    /// Tells what waits for an answer that should have come at once.
    pub(super) fn settle(&mut self, emit: Emit<'_>) {
        let whole = self.left == 0 && self.line.is_empty();
        if self.answered || self.mute || !whole || !self.batch.quick || self.batch.told {
            return;
        }
        if let Some((at, name)) = &self.batch.first
            && let Some(command) = redis::quick(name)
        {
            self.batch.told = true;
            let what = What::CommandWaits { command: command.into() };
            emit(Event { at: *at, side: Side::Client, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::script::Play;
    use crate::wire::text::failure::Class;

    fn command(words: &[&str]) -> Vec<u8> {
        let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), words.collect::<String>()).into_bytes()
    }

    /// What waits at the end of what the client said, in pieces, between answers.
    fn waits(said: &[(&[&str], &[u8])], size: usize) -> Vec<String> {
        let mut play = Play::new();
        for (asked, answer) in said {
            for piece in command(asked).chunks(size) {
                play.client(piece);
                play.freeze();
            }
            if !answer.is_empty() {
                play.server(answer);
            }
        }
        play.settle();
        play.settle();
        let told = play.events.iter().filter_map(|e| match &e.what {
            What::CommandWaits { command } => Some(command.clone()),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_quick_command_without_an_answer_waits_however_it_is_split() {
        for size in [1, 2, 7, usize::MAX] {
            assert_eq!(waits(&[(&["set", "a", "1"], b"+OK\r\n"), (&["Get", "a"], b"")], size), ["GET"], "{size}");
            assert_eq!(waits(&[(&["GET", "a"], b""), (&["SET", "b", "2"], b"")], size), ["GET"], "told once");
            assert!(waits(&[(&["SET", "a", "GET"], b"+OK\r\n")], size).is_empty());
        }
    }

    #[test]
    fn what_waits_on_purpose_is_none_nor_what_is_asked_behind_it() {
        for slow in [
            "BLPOP",
            "XREAD",
            "subscribe",
            "WAIT",
            "EVAL",
            "MONITOR",
            "KEYS",
            "REPLCONF",
            "GETS",
            "ZREVRANGEBYSCOREANDMORE",
        ] {
            assert!(waits(&[(&["PING"], b"+PONG\r\n"), (&[slow, "a", "0"], b"")], 5).is_empty(), "{slow}");
            assert!(waits(&[(&[slow, "a", "0"], b""), (&["GET", "a"], b"")], 5).is_empty(), "{slow}");
        }
        assert!(waits(&[(&["CLIENT", "REPLY", "OFF"], b""), (&["SET", "a", "1"], b"")], 5).is_empty());
        assert!(waits(&[(&["CLIENT", "REPLY", "SKIP"], b"+OK\r\n"), (&["SET", "a", "1"], b"")], 5).is_empty());
    }

    #[test]
    fn what_is_not_whole_and_what_nobody_can_read_is_none() {
        for said in [
            &b"*2\r\n$3\r\nGET\r\n$1\r\n"[..],
            b"GET a\r\n",
            b"*1\r\n$4\r\nPING\r\n*1\r\n",
            b"*1\r\n$4\r\nPING\r\nPING\r\n",
        ] {
            let mut play = Play::new();
            play.client(said);
            play.settle();
            assert!(play.events.iter().all(|e| !matches!(e.what, What::CommandWaits { .. })), "{said:?}");
        }
    }

    #[test]
    fn work_that_is_refused_for_want_of_a_login_is_a_refused_login() {
        let class = |asked: &[&str], answer: &[u8]| {
            let mut play = Play::new();
            play.client(&command(asked));
            play.server(answer);
            play.end(Side::Server);
            play.events.iter().find_map(|e| match &e.what {
                What::Failure(failure) => Some(failure.class),
                _ => None,
            })
        };
        let refused = b"-NOAUTH Authentication required.\r\n";
        assert_eq!(class(&["GET", "a"], refused), Some(Class::Login));
        assert_eq!(class(&["BLPOP", "a", "0"], refused), Some(Class::Login));
        for check in ["PING", "info", "HELLO", "CLIENT"] {
            assert_eq!(class(&[check], refused), Some(Class::Usual), "{check}");
        }
        assert_eq!(class(&["AUTH", "x"], b"-WRONGPASS invalid username-password pair\r\n"), Some(Class::Login));
    }

    #[test]
    fn who_is_let_in_before_or_after_was_not_refused() {
        let told = |talk: &[(&[&str], &[u8])]| {
            let mut play = Play::new();
            for (asked, answer) in talk {
                play.client(&command(asked));
                play.server(answer);
                play.freeze();
            }
            play.end(Side::Client);
            let told = play.events.iter().filter_map(|e| match &e.what {
                What::Failure(failure) => Some((failure.class, failure.count)),
                _ => None,
            });
            told.collect::<Vec<_>>()
        };
        let (get, auth): (&[&str], &[&str]) = (&["GET", "a"], &["AUTH", "x"]);
        let (refused, wrong) = (b"-NOAUTH Authentication required.\r\n", b"-WRONGPASS invalid\r\n");
        assert_eq!(told(&[(auth, wrong), (get, refused)]), [(Class::Login, 2)]);
        assert_eq!(told(&[(auth, wrong), (auth, b"+OK\r\n"), (get, b"$-1\r\n")]), [(Class::Usual, 1)]);
        assert_eq!(told(&[(get, b"$-1\r\n"), (auth, wrong)]), [(Class::Usual, 1)]);
        assert_eq!(told(&[(auth, wrong), (auth, b"+OK\r\n"), (auth, wrong)]), [(Class::Usual, 1), (Class::Usual, 2)]);
        assert_eq!(told(&[(auth, wrong), (&["QUIT"], b"+OK\r\n")]), [(Class::Login, 1)]);
        assert_eq!(told(&[(get, refused), (get, b"-ERR unknown command\r\n")]), [(Class::Login, 1)]);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, text in "[*$0-9GET\r\n]{0,40}", cut: u8) {
            for bytes in [&bytes[..], text.as_bytes()] {
                let mut commands = Commands::default();
                let at = PacketRef { file: 0, number: 1, time: crate::time::Timestamp(0) };
                let cut = usize::from(cut).min(bytes.len());
                let _ = commands.bytes(at, &bytes[..cut]) && commands.bytes(at, &bytes[cut..]);
                commands.settle(&mut |_| ());
                prop_assert!(commands.line.len() <= LONGEST && !commands.line.spilled() && !commands.name.spilled());
            }
        }
    }
}
