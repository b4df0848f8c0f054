//! POP3's first words. RFC 1939 §4; RFC 2449 (CAPA), RFC 2595 (STLS). Redis answers with the same signs, so that an error alone is believed on
//! POP3's own port only.

use super::{Greeting, first_line};
use crate::wire::Recognition;

/// The port of POP3 that begins in plain text.
const PORT: u16 = 110;
/// What a client may say that no client of FTP says.
const COMMANDS: [&[u8]; 3] = [b"CAPA\r\n", b"STLS\r\n", b"APOP "];

/// Whether a client's stream begins with a command of POP3; on its own port a login is enough.
pub fn looks_like_client(bytes: &[u8], port: u16) -> Recognition {
    let begun = bytes.get(..6).unwrap_or(bytes).to_ascii_uppercase();
    let login = [&b"USER "[..], b"AUTH "].into_iter().filter(|_| port == PORT);
    let verdicts = COMMANDS.into_iter().chain(login).map(|command| Recognition::of_prefix(&begun, command));
    verdicts.fold(Recognition::No, Recognition::or)
}

/// Whether a server's stream begins with a greeting: `+OK` and words behind it (a bare one is Redis'), or on POP3's own port an error.
pub fn looks_like_server(bytes: &[u8], port: u16) -> Recognition {
    let words: &[u8] = match bytes.first() {
        Some(b'-') if port == PORT => b"-ERR ",
        _ => b"+OK ",
    };
    Recognition::of_prefix(bytes, words)
}

/// The server's first line, without its sign. Given a stream that was recognised.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes, PORT) != Recognition::Yes {
        return None;
    }
    let (sign, line) = first_line(bytes)??.split_first()?;
    Some(Greeting::new(line, None, *sign == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_and_refusals_are_read() {
        for (line, shown, refuses) in [
            (&b"+OK Dovecot ready.\r\n"[..], "OK Dovecot ready.", false),
            (b"-ERR [SYS/TEMP] Too many connections\r\n", "ERR [SYS/TEMP] Too many connections", true),
        ] {
            assert_eq!(looks_like_server(line, 110), Recognition::Yes);
            assert_eq!(greeting(line), Some(Greeting::new(shown.as_bytes(), None, refuses)));
            for end in 0..line.len() {
                assert_ne!(looks_like_server(&line[..end], 110), Recognition::No, "{end}");
                assert_eq!(greeting(&line[..end]), None, "{end}");
            }
        }
    }

    #[test]
    fn the_answers_of_redis_are_none() {
        for text in ["+OK\r\n", "+PONG\r\n", "-ERR unknown command 'GET'\r\n", "* OK IMAP4rev1\r\n"] {
            assert_eq!(looks_like_server(text.as_bytes(), 6379), Recognition::No, "{text}");
        }
    }

    #[test]
    fn clients_are_recognised_and_logins_on_the_own_port_only() {
        assert_eq!(looks_like_client(b"CAPA\r\n", 1110), Recognition::Yes);
        assert_eq!(looks_like_client(b"cap", 1110), Recognition::NeedMore);
        assert_eq!(looks_like_client(b"USER ann\r\n", 110), Recognition::Yes);
        assert_eq!(looks_like_client(b"USER ann\r\n", 21), Recognition::No);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, port: u16) {
            looks_like_client(&bytes, port);
            looks_like_server(&bytes, port);
            greeting(&[b"+OK ", &bytes[..]].concat());
            greeting(&bytes);
        }
    }
}
