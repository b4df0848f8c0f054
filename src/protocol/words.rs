//! First words of services: who greets how, what a client of theirs says first, and what the server complains about right after.

use super::{Analyzer, Emit, Sample};
use crate::event::{Event, PacketRef, Protocol, Side, What};
use crate::flow::Wants;
use crate::wire::Recognition;
use crate::wire::text::{Greeting, mysql, postgres, redis, smtp, ssh};

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

/// The server's first message, read.
pub(super) fn greeting(protocol: Protocol, bytes: &[u8]) -> Option<Greeting> {
    match protocol {
        Protocol::Ssh => ssh::greeting(bytes),
        Protocol::Smtp => smtp::greeting(bytes),
        Protocol::Mysql => mysql::greeting(bytes),
        Protocol::Postgres => postgres::greeting(bytes),
        Protocol::Redis => redis::greeting(bytes),
        _ => None,
    }
}

pub(super) fn start_ssh() -> Box<dyn Analyzer> {
    Box::new(Complaint { complains: ssh_complaint, held: Vec::new(), over: false })
}

pub(super) fn start_smtp() -> Box<dyn Analyzer> {
    Box::new(Complaint { complains: smtp_complaint, held: Vec::new(), over: false })
}

/// Octets of a server among which its complaint is looked for: a greeting of a few lines and one more.
const LONGEST: usize = 1024;

/// Looks for the line by which a server, right after its greeting, objects to octets that are not its protocol.
struct Complaint {
    complains: fn(&[u8]) -> Option<Greeting>,
    held: Vec<u8>,
    over: bool,
}

impl Analyzer for Complaint {
    fn bytes(&mut self, side: Side, at: PacketRef, bytes: &[u8], emit: Emit<'_>) -> Wants {
        // Once the client speaks the protocol, a refusal is an answer to what it asked.
        if side == Side::Client {
            self.over = true;
        }
        if self.over {
            return Wants::Nothing;
        }
        let room = LONGEST.saturating_sub(self.held.len());
        self.held.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        let behind_first = self.held.split(|octet| *octet == b'\n').skip(1);
        if let Some(complaint) = behind_first.filter(|line| !line.is_empty()).find_map(self.complains) {
            emit(Event { at, side, what: What::Greeting(Box::new(complaint)) });
            self.over = true;
        }
        self.over |= self.held.len() >= LONGEST;
        if self.over { Wants::Nothing } else { Wants::More }
    }

    fn gap(&mut self, _side: Side, _missing: u64) -> Wants {
        self.over = true;
        Wants::Nothing
    }

    fn end(&mut self, _side: Side, _at: PacketRef, _emit: Emit<'_>) {}

    fn flip(&mut self) {
        self.over = true;
    }
}

fn ssh_complaint(line: &[u8]) -> Option<Greeting> {
    ssh::greeting(line).filter(|words| words.refuses)
}

/// A reply of the 4xx or 5xx class (RFC 5321 §4.2.1), its end already seen or not.
fn smtp_complaint(line: &[u8]) -> Option<Greeting> {
    let line = line.strip_suffix(b"\r")?;
    let [class @ (b'4' | b'5'), b, c, b' ' | b'-', ..] = line else { return None };
    let code = [*class, *b, *c].iter().try_fold(0, |code, digit| match digit {
        b'0'..=b'9' => Some(code * 10 + u16::from(digit - b'0')),
        _ => None,
    })?;
    Some(Greeting { text: crate::wire::text_of(line, 96), code: Some(code), refuses: true })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn said(start: fn() -> Box<dyn Analyzer>, spoken: &[(Side, &[u8])]) -> Vec<String> {
        let mut analyzer = start();
        let mut words = Vec::new();
        for (side, bytes) in spoken {
            let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
            analyzer.bytes(*side, at, bytes, &mut |event| {
                if let What::Greeting(greeting) = event.what {
                    words.push(greeting.text);
                }
            });
        }
        words
    }

    #[test]
    fn a_complaint_behind_the_greeting_is_told() {
        let server = Side::Server;
        assert_eq!(
            said(start_smtp, &[(server, b"220 mail SMTP\r\n"), (server, b"500 Error: bad syntax\r\n")]),
            ["500 Error: bad syntax"]
        );
        let sshd: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\nInvalid SSH identification string.";
        assert_eq!(said(start_ssh, &[(server, sshd)]), ["Invalid SSH identification string."]);
    }

    #[test]
    fn a_refusal_of_what_the_client_asked_is_no_complaint() {
        let spoken: [(Side, &[u8]); 3] =
            [(Side::Server, b"220 mail SMTP\r\n"), (Side::Client, b"EHLO x\r\n"), (Side::Server, b"550 no\r\n")];
        assert!(said(start_smtp, &spoken).is_empty());
    }

    #[test]
    fn key_exchange_is_no_complaint() {
        let kex: &[u8] = b"SSH-2.0-OpenSSH_9.2p1\r\n\x00\x00\x04\x3c\x09\x14\n\x00\n";
        assert!(said(start_ssh, &[(Side::Server, kex)]).is_empty());
    }
}
