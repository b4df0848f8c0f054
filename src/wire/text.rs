//! First words of services that speak plain text or a simple binary greeting: SSH, SMTP, FTP, IMAP, POP3, MySQL, PostgreSQL, Redis, AMQP, MQTT.
//!
//! One file per protocol with the same names in each: `looks_like_client` and `looks_like_server` recognise what that side says first,
//! `greeting` reads the server's first message, `None` while it is not whole or when it is none; where errors behind it are looked for,
//! `message` reads what stands at the beginning of each message of a server.

pub mod amqp;
pub mod failure;
pub mod ftp;
pub mod imap;
pub mod mqtt;
pub mod mysql;
pub mod pop3;
pub mod postgres;
pub mod redis;
pub mod smtp;
pub mod ssh;

use serde::{Deserialize, Serialize};

use super::text_of;

/// A first message of a service, or its refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its first line or error text, cut to 96 octets, raw (the printer makes it harmless).
    pub text: String,
    /// Error code where the protocol has one (MySQL 1040, SMTP and FTP 421, MQTT 5, PostgreSQL SQLSTATE as text in `text`).
    pub code: Option<u16>,
    /// It refuses instead of greeting.
    pub refuses: bool,
}

/// Octets of a text that are kept.
const LONGEST: usize = 96;
/// How far the end of a first line is looked for.
const LONGEST_LINE: usize = 512;

/// The first line, without its end: CR LF, or LF alone. `None` while the end is missing; `Some(None)` when the line is too long to be one.
fn first_line(bytes: &[u8]) -> Option<Option<&[u8]>> {
    let window = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(end) => {
            let line = window.get(..end).unwrap_or(window);
            Some(Some(line.strip_suffix(b"\r").unwrap_or(line)))
        }
        None if bytes.len() < LONGEST_LINE => None,
        None => Some(None),
    }
}

impl Greeting {
    fn new(text: &[u8], code: Option<u16>, refuses: bool) -> Self {
        Self { text: text_of(text, LONGEST).into(), code, refuses }
    }
}

/// Whether `line` holds `word` (given in lower case) in either case.
fn holds(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}
