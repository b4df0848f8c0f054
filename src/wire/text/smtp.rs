//! SMTP's first words. RFC 5321 §3.1, §4.2. FTP greets with the same codes, so that a code alone is not believed.

use super::failure::{Failure, Message, of_smtp};
use super::{Greeting, first_line, holds};
use crate::wire::Recognition;

/// Codes with which an SMTP server may begin.
const GREETINGS: [&[u8]; 3] = [b"220", b"421", b"554"];

/// Whether a client's stream begins with EHLO, HELO or LHLO (RFC 2033).
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    let begun = bytes.get(..5).unwrap_or(bytes).to_ascii_uppercase();
    let verdicts = [&b"EHLO "[..], b"HELO ", b"LHLO "].map(|word| Recognition::of_prefix(&begun, word));
    verdicts.into_iter().find(|verdict| *verdict != Recognition::No).unwrap_or(Recognition::No)
}

/// Whether a server's stream begins with an SMTP greeting or refusal: one of the codes, and SMTP named in the line or an enhanced status code
/// (RFC 3463) behind it.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    let begun = bytes.get(..3).unwrap_or(bytes);
    if !GREETINGS.iter().any(|code| code.starts_with(begun)) {
        return Recognition::No;
    }
    match (bytes.get(3), first_line(bytes)) {
        (None | Some(b' ' | b'-'), None) => Recognition::NeedMore,
        (Some(b' ' | b'-'), Some(Some(line))) if holds(line, b"smtp") || has_enhanced_code(line) => Recognition::Yes,
        _ => Recognition::No,
    }
}

/// The server's first line, with its code.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    let line = first_line(bytes)??;
    let code = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
    Some(Greeting::new(line, Some(code), code >= 400))
}

/// Whether `4.x.y` or `5.x.y` stands behind the code.
fn has_enhanced_code(line: &[u8]) -> bool {
    let digits = |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let word = line.get(4..).unwrap_or(&[]).split(|octet| *octet == b' ').next().unwrap_or(&[]);
    let parts: Vec<&[u8]> = word.split(|octet| *octet == b'.').take(4).collect();
    matches!(&parts[..], [class, subject, detail] if matches!(class, [b'4' | b'5']) && digits(subject) && digits(detail))
}

/// What stands at the beginning of a line of a server: a reply code, and its last line a space behind it (RFC 5321 §4.2.1).
pub fn message(bytes: &[u8], _login: bool) -> Message {
    if bytes.iter().take(3).any(|octet| !octet.is_ascii_digit()) {
        return Message::Lost;
    }
    let line = match first_line(bytes) {
        None => return Message::Partial,
        Some(None) => return Message::Lost,
        Some(Some(line)) => line,
    };
    let all = memchr::memchr(b'\n', bytes).unwrap_or(0) as u64 + 1;
    match line {
        [a, b, c, b' ', words @ ..] => {
            let code = [*a, *b, *c];
            let failed = of_smtp(&code, words);
            failed.map_or(Message::Usual(all), |class| Message::Failed(all, Failure::new(class, &code, line)))
        }
        [_, _, _, b'-', ..] | [_, _, _] => Message::Usual(all),
        _ => Message::Lost,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn greetings_and_refusals_are_read() {
        for (line, code, refuses) in [
            (&b"220 mx.example ESMTP Postfix\r\n"[..], 220, false),
            (b"220-smtp.example ready\r\n220 ok\r\n", 220, false),
            (b"554 5.7.1 Service unavailable; client blocked\r\n", 554, true),
            (b"421 4.3.2 Service not available\r\n", 421, true),
        ] {
            let greeting = greeting(line).expect("a greeting");
            assert_eq!((greeting.code, greeting.refuses), (Some(code), refuses));
        }
    }

    #[test]
    fn every_truncation_asks_for_more() {
        let line = b"220 mx.example ESMTP Postfix\r\n";
        for end in 0..line.len() {
            assert_eq!(looks_like_server(&line[..end]), Recognition::NeedMore, "{end}");
            assert_eq!(greeting(&line[..end]), None, "{end}");
        }
    }

    #[test]
    fn other_servers_with_the_same_codes_are_none() {
        for line in [
            &b"220 (vsFTPd 3.0.5)\r\n"[..],
            b"220 ProFTPD Server ready.\r\n",
            b"421 Too many connections\r\n",
            b"2201",
            b"HTTP/1.1",
        ] {
            assert_eq!(looks_like_server(line), Recognition::No, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn clients_are_recognised() {
        assert_eq!(looks_like_client(b"EHLO a.example\r\n"), Recognition::Yes);
        assert_eq!(looks_like_client(b"helo a"), Recognition::Yes);
        assert_eq!(looks_like_client(b"EHL"), Recognition::NeedMore);
        assert_eq!(looks_like_client(b"HELP\r\n"), Recognition::No);
    }

    #[test]
    fn replies_are_read_by_their_last_line() {
        use crate::wire::text::failure::Class;
        let class = |line: &[u8]| match message(line, false) {
            Message::Failed(_, failure) => Some(failure.class),
            _ => None,
        };
        assert_eq!(class(b"452 4.3.1 Insufficient system storage\r\n"), Some(Class::Trouble));
        assert_eq!(class(b"451 4.3.0 Error: queue file write error\r\n"), Some(Class::Trouble));
        assert_eq!(class(b"450 4.2.0 Recipient address rejected: Greylisted\r\n"), Some(Class::Usual));
        for line in [&b"550 5.1.1 no such user\r\n"[..], b"421 4.4.2 timeout exceeded\r\n", b"250 2.1.5 Ok\r\n"] {
            assert_eq!(class(line), None);
        }
        assert_eq!(class(b"452 4.5.3 Too many recipients\r\n"), None, "the client sends the rest later");
        assert_eq!((message(b"25", false), message(b"\x16\x03", false)), (Message::Partial, Message::Lost));
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            looks_like_client(&bytes);
            message(&[b"452 ", &bytes[..]].concat(), false);
            greeting(&[b"220 ", &bytes[..]].concat());
            greeting(&bytes);
        }
    }
}
