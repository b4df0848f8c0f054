//! IMAP's first words. RFC 9051 §2.2.1 (tags), §7.1 (greetings).

use super::{Greeting, first_line};
use crate::wire::Recognition;

/// How a server begins: ready, already logged in, or not willing.
const GREETINGS: [&[u8]; 3] = [b"* OK ", b"* PREAUTH ", b"* BYE "];
/// Commands with which clients begin; they stand behind a tag.
const COMMANDS: [&[u8]; 9] =
    [b"CAPABILITY", b"LOGIN", b"STARTTLS", b"NOOP", b"ID", b"AUTHENTICATE", b"LOGOUT", b"SELECT", b"ENABLE"];
/// Octets of a tag at most: clients count, in digits behind a letter or two.
const LONGEST_TAG: usize = 12;

/// Whether a client's stream begins with a tag and a command that clients begin with.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    let tag = bytes.iter().take_while(|octet| octet.is_ascii_alphanumeric() || **octet == b'.').count();
    match (tag, bytes.get(tag)) {
        (0..=LONGEST_TAG, None) => return Recognition::NeedMore,
        (1..=LONGEST_TAG, Some(b' ')) => {}
        _ => return Recognition::No,
    }
    let rest = bytes.get(tag + 1..).unwrap_or(&[]);
    let word: Vec<u8> = rest
        .iter()
        .take_while(|octet| octet.is_ascii_alphabetic())
        .take(LONGEST_TAG + 1)
        .map(u8::to_ascii_uppercase)
        .collect();
    let ended = rest.get(word.len()).map(|octet| matches!(octet, b' ' | b'\r'));
    let is = |command: &&[u8]| match ended {
        None => command.starts_with(&word),
        Some(ended) => ended && *command == word,
    };
    match (COMMANDS.iter().any(is), ended) {
        (false, _) => Recognition::No,
        (true, None) => Recognition::NeedMore,
        // A word of two letters is common; the line's end and nothing that looks like HTTP makes it one of IMAP.
        (true, Some(_)) => match first_line(bytes) {
            None => Recognition::NeedMore,
            Some(Some(line)) if memchr::memmem::find(line, b"HTTP/").is_none() => Recognition::Yes,
            Some(_) => Recognition::No,
        },
    }
}

/// Whether a server's stream begins with an IMAP greeting.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    let begun = bytes.get(..10).unwrap_or(bytes).to_ascii_uppercase();
    GREETINGS.iter().map(|words| Recognition::of_prefix(&begun, words)).fold(Recognition::No, Recognition::or)
}

/// The server's first line, without its star.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    let line = first_line(bytes)??.strip_prefix(b"* ")?;
    Some(Greeting::new(line, None, line.get(..3)?.eq_ignore_ascii_case(b"BYE")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_and_refusals_are_read() {
        for (line, shown, refuses) in [
            (&b"* OK [CAPABILITY IMAP4rev1] Dovecot ready.\r\n"[..], "OK [CAPABILITY IMAP4rev1] Dovecot ready.", false),
            (b"* PREAUTH ready\r\n", "PREAUTH ready", false),
            (b"* BYE Too many connections\r\n", "BYE Too many connections", true),
        ] {
            assert_eq!(greeting(line), Some(Greeting::new(shown.as_bytes(), None, refuses)));
            for end in 0..line.len() {
                assert_ne!(looks_like_server(&line[..end]), Recognition::No, "{end}");
                assert_eq!(greeting(&line[..end]), None, "{end}");
            }
        }
    }

    #[test]
    fn other_servers_are_none() {
        for text in ["*3\r\n", "+OK POP3\r\n", "* 3 EXISTS\r\n", "HTTP/1.1 200", "220 x"] {
            assert_eq!(looks_like_server(text.as_bytes()), Recognition::No, "{text}");
        }
    }

    #[test]
    fn clients_are_recognised_by_tag_and_command() {
        for (text, expected) in [
            ("a1 LOGIN ann secret\r\n", Recognition::Yes),
            ("A0001 capability\r\n", Recognition::Yes),
            ("1 ID (\"name\" \"x\")\r\n", Recognition::Yes),
            ("a1 LOG", Recognition::NeedMore),
            ("a1", Recognition::NeedMore),
            ("a1 LOGINS x\r\n", Recognition::No),
            ("GET / HTTP/1.1\r\n", Recognition::No),
            ("GET ID HTTP/1.1\r\n", Recognition::No),
            ("EHLO mail.example\r\n", Recognition::No),
            ("SSH-2.0-x\r\n", Recognition::No),
            ("verylongwordnotatag LOGIN\r\n", Recognition::No),
        ] {
            assert_eq!(looks_like_client(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, text in "[a-zA-Z0-9* \r\n]{0,30}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                looks_like_client(bytes);
                looks_like_server(bytes);
                greeting(&[b"* OK ", bytes].concat());
            }
        }
    }
}
