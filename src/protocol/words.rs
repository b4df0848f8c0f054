//! First words of services: who greets how, what a client of theirs says first, and what the server complains about right after.

use super::commands::Commands;
use super::failures::Failures;
use super::queries::Queries;
use super::{Analyzer, Emit, Sample, index};
use crate::event::cold::{Freezer, Thawer};
use crate::event::{Event, PacketRef, Side, What};
use crate::flow::Wants;
use crate::wire::Recognition;
use crate::wire::text::failure::ReadsMessage;
use crate::wire::text::{Greeting, amqp, ftp, imap, mqtt, mysql, pop3, postgres, redis, smtp, ssh};

pub(super) fn ssh(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => ssh::looks_like_client(sample.bytes),
        Side::Server => ssh::looks_like_server(sample.bytes),
    }
}

pub(super) fn smtp(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => smtp::looks_like_client(sample.bytes),
        Side::Server => smtp::looks_like_server(sample.bytes),
    }
}

/// The server speaks first; what its client answers means nothing without the greeting.
pub(super) fn mysql(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => Recognition::No,
        Side::Server => mysql::looks_like_server(sample.bytes),
    }
}

pub(super) fn postgres(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => postgres::looks_like_client(sample.bytes),
        Side::Server => postgres::looks_like_server(sample.bytes),
    }
}

pub(super) fn redis(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => redis::looks_like_client(sample.bytes),
        Side::Server => redis::looks_like_server(sample.bytes),
    }
}

pub(super) fn imap(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => imap::looks_like_client(sample.bytes),
        Side::Server => imap::looks_like_server(sample.bytes),
    }
}

pub(super) fn amqp(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => amqp::looks_like_client(sample.bytes),
        Side::Server => amqp::looks_like_server(sample.bytes),
    }
}

pub(super) fn mqtt(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => mqtt::looks_like_client(sample.bytes),
        Side::Server => mqtt::looks_like_server(sample.bytes),
    }
}

pub(super) fn ftp(sample: &Sample<'_>) -> Recognition {
    let port = sample.flow.server.port;
    match sample.side {
        Side::Client => ftp::looks_like_client(sample.bytes, port),
        Side::Server => ftp::looks_like_server(sample.bytes, port),
    }
}

pub(super) fn pop3(sample: &Sample<'_>) -> Recognition {
    let port = sample.flow.server.port;
    match sample.side {
        Side::Client => pop3::looks_like_client(sample.bytes, port),
        Side::Server => pop3::looks_like_server(sample.bytes, port),
    }
}

/// Reads some words of a service, `None` when they are not whole or others.
type Reads = fn(&[u8]) -> Option<Greeting>;

/// Whether a client's first message is that of a health check, `None` while it is not whole.
type TellsProbe = fn(&[u8]) -> Option<bool>;

/// How a service speaks.
#[derive(Clone, Copy)]
struct Voice {
    /// Reads the first message of a server.
    greeting: Reads,
    /// The client greets in the same way.
    both: bool,
    /// Reads a line by which the server objects to octets that are not its protocol.
    complaint: Option<Reads>,
    /// Reads the messages behind the greeting.
    failures: Option<ReadsMessage>,
    /// Tells a client that only asks whether the server is there.
    probe: Option<TellsProbe>,
    /// The client's commands are read: they are those of Redis.
    commands: bool,
    /// Its lines are read: they are those of SMTP.
    letters: bool,
    /// Its questions are waited for: they are those of PostgreSQL.
    queries: bool,
}

impl Voice {
    /// A server that greets, and of which nothing else is read.
    const fn of(greeting: Reads) -> Self {
        Self {
            greeting,
            both: false,
            complaint: None,
            failures: None,
            probe: None,
            commands: false,
            letters: false,
            queries: false,
        }
    }
}

pub(super) fn start_ssh() -> Box<dyn Analyzer> {
    Words::start(Voice { both: true, complaint: Some(ssh_complaint), ..Voice::of(ssh::greeting) })
}

pub(super) fn start_smtp() -> Box<dyn Analyzer> {
    let failures = Some(smtp::message as ReadsMessage);
    Words::start(Voice { complaint: Some(smtp_complaint), failures, letters: true, ..Voice::of(smtp::greeting) })
}

pub(super) fn start_mysql() -> Box<dyn Analyzer> {
    Words::start(Voice { failures: Some(mysql::message), ..Voice::of(mysql::greeting) })
}

pub(super) fn start_postgres() -> Box<dyn Analyzer> {
    let failures = Some(postgres::message as ReadsMessage);
    Words::start(Voice { failures, probe: Some(postgres::is_probe), queries: true, ..Voice::of(postgres::greeting) })
}

pub(super) fn start_redis() -> Box<dyn Analyzer> {
    Words::start(Voice { failures: Some(redis::message), commands: true, ..Voice::of(redis::greeting) })
}

pub(super) fn start_ftp() -> Box<dyn Analyzer> {
    Words::start(Voice::of(ftp::greeting))
}

pub(super) fn start_imap() -> Box<dyn Analyzer> {
    Words::start(Voice { complaint: Some(imap_complaint), ..Voice::of(imap::greeting) })
}

pub(super) fn start_pop3() -> Box<dyn Analyzer> {
    Words::start(Voice::of(pop3::greeting))
}

pub(super) fn start_amqp() -> Box<dyn Analyzer> {
    Words::start(Voice::of(amqp::greeting))
}

pub(super) fn start_mqtt() -> Box<dyn Analyzer> {
    Words::start(Voice::of(mqtt::greeting))
}

/// Octets of a server among which its greeting is looked for: PostgreSQL's longest error.
const LONGEST: usize = 32 * 1024;
/// Octets among which a complaint is looked for: a greeting of a few lines and one more.
const LONGEST_COMPLAINT: usize = 1024;
/// Octets of a client's first message that are waited for.
const LONGEST_PROBE: usize = 1024;

/// Reads the greeting, the line by which a server, right after it, objects to octets that are not its protocol, and errors behind both.
struct Words {
    voice: Voice,
    held: [Vec<u8>; 2],
    greeted: [bool; 2],
    /// First words of a side are not waited for any more.
    heard: [bool; 2],
    /// The client speaks the protocol: a refusal is an answer to what it asked.
    client_speaks: bool,
    /// The server's messages, while they are read.
    failures: Option<Failures>,
    /// The client's commands, while they are read and so is what the server says to them.
    commands: Option<Box<Commands>>,
    /// The client's questions, while they are read and so is the server.
    queries: Option<Box<Queries>>,
}

impl Words {
    fn start(voice: Voice) -> Box<dyn Analyzer> {
        let letters = voice.letters.then(Box::default);
        let failures = voice.failures.map(|_| Failures::of(letters));
        let (held, greeted, heard) = ([Vec::new(), Vec::new()], [false; 2], [false; 2]);
        let commands = voice.commands.then(Box::default);
        let queries = voice.queries.then(Box::default);
        Box::new(Self { voice, held, greeted, heard, client_speaks: false, failures, commands, queries })
    }

    /// Tells the greeting once it is whole; a refusal without a line end is waited for while the side may still go on.
    fn greet(&mut self, side: Side, at: PacketRef, over: bool, emit: Emit<'_>) {
        let held = &self.held[index(side)];
        if self.greeted[index(side)] {
            return;
        }
        let Some(greeting) = (self.voice.greeting)(held) else { return };
        if greeting.refuses && !over && self.voice.complaint.is_some() && !held.contains(&b'\n') {
            return;
        }
        self.greeted[index(side)] = true;
        emit(Event { at, side, what: What::Greeting(Box::new(greeting)) });
    }

    /// Tells the complaint behind the greeting; whether more octets may still hold one.
    fn complain(&mut self, at: PacketRef, over: bool, emit: Emit<'_>) -> bool {
        let side = Side::Server;
        let Some(complaint) = self.voice.complaint.filter(|_| !self.client_speaks) else { return false };
        let held = &self.held[index(side)];
        let window = held.get(..LONGEST_COMPLAINT).unwrap_or(held);
        let lines = window.split_inclusive(|octet| *octet == b'\n').skip(1);
        let whole = lines.filter(|line| over || line.ends_with(b"\n"));
        if let Some(words) = whole.filter_map(|line| complaint(line.trim_ascii_end())).next() {
            emit(Event { at, side, what: What::Greeting(Box::new(words)) });
            return false;
        }
        window.len() < LONGEST_COMPLAINT
    }
}

impl Words {
    /// What the client asks for cannot be followed any more.
    fn forget(&mut self) -> Wants {
        (self.commands, self.queries) = (None, None);
        if let Some(failures) = &mut self.failures {
            failures.letters = None;
        }
        Wants::Nothing
    }

    /// The next octets of a side, while its first words are waited for; whether they still are.
    fn hear(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> bool {
        let held = &mut self.held[index(side)];
        let room = LONGEST.saturating_sub(held.len());
        held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let full = held.len() >= LONGEST;
        self.greet(side, at, full, emit);
        let greeted = self.greeted[index(side)];
        let more = if greeted { side == Side::Server && self.complain(at, false, emit) } else { !full };
        if !more {
            self.held[index(side)] = Vec::new();
        }
        more
    }

    /// The next octets of a client that does not greet; whether more of them may say that it is a health check.
    fn ask(&mut self, bytes: &[u8]) -> bool {
        let (Some(probe), Some(failures)) = (self.voice.probe, &mut self.failures) else { return false };
        let held = &mut self.held[index(Side::Client)];
        held.extend_from_slice(bytes.get(..LONGEST_PROBE.saturating_sub(held.len())).unwrap_or(bytes));
        let told = probe(held);
        failures.probe = told.unwrap_or(false);
        let more = told.is_none() && held.len() < LONGEST_PROBE;
        if !more {
            *held = Vec::new();
        }
        more
    }
}

impl Analyzer for Words {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        if side == Side::Client {
            self.client_speaks = true;
            if let Some(commands) = &mut self.commands {
                if commands.bytes(at, bytes) {
                    return Wants::More;
                }
                if let Some(failures) = &mut self.failures {
                    failures.end(false, emit);
                }
                return self.forget();
            }
            if let Some(letters) = self.failures.as_mut().and_then(|failures| failures.letters.as_mut()) {
                return if letters.bytes(bytes) { Wants::More } else { self.forget() };
            }
            if !self.voice.both {
                let probes = self.ask(bytes);
                if self.queries.as_mut().is_some_and(|queries| !queries.bytes(at, bytes)) {
                    self.queries = None;
                }
                return if probes || self.queries.is_some() { Wants::More } else { Wants::Nothing };
            }
        }
        if !self.heard[index(side)] {
            self.heard[index(side)] = !self.hear(side, at, bytes, emit);
        }
        if let Some(queries) = self.queries.as_mut().filter(|_| side == Side::Server) {
            queries.answered(at, bytes, emit);
        }
        if side == Side::Server
            && let (Some(reads), Some(failures)) = (self.voice.failures, &mut self.failures)
        {
            failures.work = self.commands.as_ref().is_some_and(|commands| commands.asks_for_work());
            failures.entry = self.commands.as_ref().is_some_and(|commands| commands.asks_for_entry());
            if !failures.bytes(reads, at, bytes, emit) {
                (self.failures, self.commands, self.queries) = (None, None, None);
            }
        }
        if let Some(commands) = self.commands.as_mut().filter(|_| side == Side::Server) {
            commands.answered();
        }
        let follows = side == Side::Server && self.failures.is_some();
        if follows || !self.heard[index(side)] { Wants::More } else { Wants::Nothing }
    }

    fn gap(&mut self, _side: Side, _missing: u64) -> Wants {
        self.forget()
    }

    fn end(&mut self, side: Side, at: PacketRef, emit: Emit<'_>) {
        let before = self.greeted[index(side)];
        self.greet(side, at, true, emit);
        if side == Side::Server && before {
            self.complain(at, true, emit);
        }
        if let Some(failures) = &mut self.failures {
            failures.end(self.commands.is_some(), emit);
        }
    }

    fn settle(&mut self, emit: Emit<'_>) {
        if let Some(commands) = &mut self.commands {
            commands.settle(emit);
        }
    }

    fn freeze(&self, into: &mut Freezer) -> bool {
        let Self { voice: _, held, greeted, heard, client_speaks, failures, commands, queries } = self;
        into.put(&(held, greeted, heard, client_speaks, failures, commands, queries)).is_ok()
    }

    fn thaw(&mut self, from: &mut Thawer) -> bool {
        let Some((held, greeted, heard, client_speaks, failures, commands, queries)) = from.take() else {
            return false;
        };
        (self.held, self.greeted, self.heard, self.client_speaks) = (held, greeted, heard, client_speaks);
        (self.failures, self.commands, self.queries) = (failures, commands, queries);
        true
    }

    fn flip(&mut self) {
        self.held.swap(0, 1);
        self.greeted.swap(0, 1);
        self.heard.swap(0, 1);
        self.forget();
    }
}

fn ssh_complaint(line: &[u8]) -> Option<Greeting> {
    ssh::greeting(line).filter(|words| words.refuses)
}

/// A line that is no command: `BAD` behind a star, or behind the word that stood where a tag stands (RFC 9051 §7.1.3).
fn imap_complaint(line: &[u8]) -> Option<Greeting> {
    let objects = line.starts_with(b"* BAD ") || line.starts_with(b"PROXY BAD ");
    objects.then(|| Greeting { text: crate::wire::text_of(line, 96).into(), code: None, refuses: true })
}

/// A reply of the 4xx or 5xx class (RFC 5321 §4.2.1).
fn smtp_complaint(line: &[u8]) -> Option<Greeting> {
    let [class @ (b'4' | b'5'), b, c, b' ' | b'-', ..] = line else { return None };
    let code = [*class, *b, *c].iter().try_fold(0, |code, digit| match digit {
        b'0'..=b'9' => Some(code * 10 + u16::from(digit - b'0')),
        _ => None,
    })?;
    Some(Greeting { text: crate::wire::text_of(line, 96).into(), code: Some(code), refuses: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Protocol;
    use crate::protocol::script::Play;

    fn words(play: &Play) -> Vec<(Side, &str)> {
        let words = play.events.iter().filter_map(|e| match &e.what {
            What::Greeting(greeting) => Some((e.side, greeting.text.as_str())),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn a_complaint_behind_the_greeting_is_told() {
        let mut play = Play::new();
        play.server(b"220 mail SMTP\r\n");
        play.server(b"500 Error: bad");
        play.server(b" syntax\r\n");
        assert_eq!(words(&play), [(Side::Server, "220 mail SMTP"), (Side::Server, "500 Error: bad syntax")]);
        let mut play = Play::new();
        play.server(b"SSH-2.0-OpenSSH_9.2p1\r\nInvalid SSH identification string.");
        play.end(Side::Server);
        let said = ["SSH-2.0-OpenSSH_9.2p1", "Invalid SSH identification string."];
        assert_eq!(words(&play), said.map(|text| (Side::Server, text)));
    }

    #[test]
    fn a_refusal_of_what_the_client_asked_is_no_complaint() {
        let mut play = Play::new();
        play.server(b"220 mail SMTP\r\n");
        play.client(b"EHLO x\r\n");
        play.server(b"550 no\r\n");
        assert_eq!(words(&play), [(Side::Server, "220 mail SMTP")]);
    }

    #[test]
    fn key_exchange_is_no_complaint() {
        let mut play = Play::new();
        play.server(b"SSH-2.0-OpenSSH_9.2p1\r\n\x00\x00\x04\x3c\x09\x14\n\x00\n");
        assert_eq!(words(&play).len(), 1);
    }

    #[test]
    fn a_greeting_in_pieces_is_told_once_it_is_whole() {
        let mut play = Play::new();
        play.server(b"\x0c\0\0\0\x0a8.");
        assert_eq!(play.recognised(), [(Side::Server, Protocol::Mysql)]);
        assert!(words(&play).is_empty());
        play.server(b"0.36\0....");
        assert_eq!(words(&play), [(Side::Server, "8.0.36")]);
    }

    #[test]
    fn a_refusal_without_a_line_end_is_told_when_the_server_closes() {
        let mut play = Play::new();
        play.server(b"Exceeded MaxStartups");
        assert!(words(&play).is_empty());
        play.end(Side::Server);
        assert_eq!(words(&play), [(Side::Server, "Exceeded MaxStartups")]);
    }

    #[test]
    fn services_are_recognised_on_both_sides() {
        for (client, server, protocol) in [
            (&b"SSH-2.0-x\r\n"[..], &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], Protocol::Ssh),
            (b"EHLO mail.example\r\n", b"220 mail.example ESMTP Postfix\r\n", Protocol::Smtp),
            (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", Protocol::Redis),
            (b"FEAT\r\n", b"220 (vsFTPd 3.0.3)\r\n", Protocol::Ftp),
            (b"a1 CAPABILITY\r\n", b"* OK IMAP4rev1 ready\r\n", Protocol::Imap),
            (b"CAPA\r\n", b"+OK ready\r\n", Protocol::Pop3),
            (b"AMQP\0\0\x09\x01", b"\x01\0\0\0\0\0\x0b\0\x0a\0\x0a\0\x09\0\0\0\0\0\xce", Protocol::Amqp),
            (b"\x10\x11\0\x04MQTT\x04\x02\0\x0a\0\x05probe", b"\x20\x02\0\0", Protocol::Mqtt),
            (b"\0\0\0\x0d\0\x03\0\0user\0", b"R\0\0\0\x08\0\0\0\x05", Protocol::Postgres),
        ] {
            let mut play = Play::new();
            play.client(client);
            play.server(server);
            assert_eq!(play.recognised(), [(Side::Client, protocol), (Side::Server, protocol)]);
            assert!(words(&play).iter().any(|(side, _)| *side == Side::Server), "{protocol:?}");
        }
    }
}
