//! FTP's first words. RFC 959 §4.2, §5.4. SMTP greets with the same codes, so that a code alone is believed on FTP's own port only.

use super::{Greeting, first_line, holds};
use crate::wire::Recognition;

/// The port of the control connection.
const PORT: u16 = 21;
/// Codes with which a server may begin: a wait, a greeting, too many users, not let in.
const GREETINGS: [&[u8]; 4] = [b"120", b"220", b"421", b"530"];
/// Words by which servers name themselves that do not say FTP.
const NAMES: [&[u8]; 2] = [b"ftp", b"filezilla"];
/// What a client may say that no client of SMTP, POP3 or Redis says. `USER` is POP3's word too.
const COMMANDS: [&[u8]; 4] = [b"AUTH TLS\r\n", b"AUTH SSL\r\n", b"FEAT\r\n", b"SYST\r\n"];

/// Whether a client's stream begins with a command of FTP; on its own port a login is enough.
pub fn looks_like_client(bytes: &[u8], port: u16) -> Recognition {
    let begun = bytes.get(..10).unwrap_or(bytes).to_ascii_uppercase();
    let login = [&b"USER "[..]].into_iter().filter(|_| port == PORT);
    let verdicts = COMMANDS.into_iter().chain(login).map(|command| Recognition::of_prefix(&begun, command));
    verdicts.fold(Recognition::No, Recognition::or)
}

/// Whether a server's stream begins with a greeting or refusal: one of the codes, and FTP named in the line or FTP's own port.
pub fn looks_like_server(bytes: &[u8], port: u16) -> Recognition {
    let begun = bytes.get(..3).unwrap_or(bytes);
    if !GREETINGS.iter().any(|code| code.starts_with(begun)) {
        return Recognition::No;
    }
    match (bytes.get(3), first_line(bytes)) {
        (None | Some(b' ' | b'-'), None) => Recognition::NeedMore,
        (Some(b' ' | b'-'), Some(Some(line))) => {
            let named = NAMES.iter().any(|name| holds(line, name));
            if (named || port == PORT) && !holds(line, b"smtp") { Recognition::Yes } else { Recognition::No }
        }
        _ => Recognition::No,
    }
}

/// The server's first line, with its code. Given a stream that was recognised.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes, PORT) != Recognition::Yes {
        return None;
    }
    let line = first_line(bytes)??;
    let code = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
    Some(Greeting::new(line, Some(code), code >= 400))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_and_refusals_are_read() {
        for (line, port, code, refuses) in [
            (&b"220 (vsFTPd 3.0.3)\r\n"[..], 2121, 220, false),
            (b"220-FileZilla Server 1.8.2\r\n220 Please visit\r\n", 2121, 220, false),
            (b"220 files.example.com\r\n", 21, 220, false),
            (b"421 There are too many connected users, please try later.\r\n", 21, 421, true),
            (b"530 Sorry, the maximum number of clients are connected.\r\n", 21, 530, true),
        ] {
            assert_eq!(looks_like_server(line, port), Recognition::Yes, "{}", String::from_utf8_lossy(line));
            let greeting = greeting(line).expect("a greeting");
            assert_eq!((greeting.code, greeting.refuses), (Some(code), refuses));
        }
    }

    #[test]
    fn every_truncation_asks_for_more() {
        let line = b"220 (vsFTPd 3.0.3)\r\n";
        for end in 0..line.len() {
            assert_eq!(looks_like_server(&line[..end], 21), Recognition::NeedMore, "{end}");
            assert_eq!(greeting(&line[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_code_alone_is_believed_on_the_own_port_only() {
        for line in [&b"220 files.example.com\r\n"[..], b"421 Too many connections\r\n", b"2201", b"HTTP/1.1 200 OK"] {
            assert_eq!(looks_like_server(line, 2525), Recognition::No, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(looks_like_server(b"220 mx.example ESMTP\r\n", 21), Recognition::No);
    }

    #[test]
    fn clients_are_recognised_and_logins_on_the_own_port_only() {
        assert_eq!(looks_like_client(b"auth tls\r\n", 2121), Recognition::Yes);
        assert_eq!(looks_like_client(b"AUTH ", 2121), Recognition::NeedMore);
        assert_eq!(looks_like_client(b"AUTH secret\r\n", 6379), Recognition::No);
        assert_eq!(looks_like_client(b"USER ann\r\n", 21), Recognition::Yes);
        assert_eq!(looks_like_client(b"USER ann\r\n", 110), Recognition::No);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, port: u16) {
            looks_like_client(&bytes, port);
            looks_like_server(&bytes, port);
            greeting(&[b"220 ", &bytes[..]].concat());
            greeting(&bytes);
        }
    }
}
