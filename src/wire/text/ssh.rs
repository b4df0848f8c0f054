//! SSH identification strings. RFC 4253 §4.2.

use super::{Greeting, first_line};
use crate::wire::Recognition;

/// What sshd writes instead of, or after, an identification string when it does not want the client.
const REFUSALS: [&[u8]; 5] = [
    b"Invalid SSH identification string.",
    b"Protocol mismatch.",
    b"Exceeded MaxStartups",
    b"Not allowed at this time",
    b"Too many authentication failures",
];

/// Whether a client's stream begins with an SSH identification string.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    match Recognition::of_prefix(bytes, b"SSH-2.0-") {
        Recognition::No => Recognition::of_prefix(bytes, b"SSH-1."),
        other => other,
    }
}

/// Whether a server's stream begins with an identification string, or with the words that refuse the client.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    let refusals = REFUSALS.iter().map(|words| Recognition::of_prefix(bytes, words));
    let mut verdicts = std::iter::once(looks_like_client(bytes)).chain(refusals);
    verdicts.find(|verdict| *verdict != Recognition::No).unwrap_or(Recognition::No)
}

/// The server's first line.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    // Refusals come with CR LF, and sometimes without any line end.
    let line = first_line(bytes).unwrap_or(Some(bytes))?;
    let refuses = REFUSALS.iter().any(|words| line.starts_with(words));
    (refuses || line.len() < bytes.len()).then(|| Greeting::new(line, None, refuses))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn identification_strings_are_recognised() {
        let line = b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n";
        for end in 0..line.len() {
            let expected = if end < 8 { Recognition::NeedMore } else { Recognition::Yes };
            assert_eq!(looks_like_client(&line[..end]), expected, "{end}");
            assert_eq!(looks_like_server(&line[..end]), expected, "{end}");
            assert_eq!(greeting(&line[..end]), None, "{end}");
        }
        assert_eq!(greeting(line), Some(Greeting::new(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", None, false)));
        assert_eq!(looks_like_client(b"SSH-1.99-x"), Recognition::Yes);
        assert_eq!(looks_like_client(b"SSTP"), Recognition::No);
    }

    #[test]
    fn refusals_are_recognised() {
        for text in [
            &b"Invalid SSH identification string.\r\n"[..],
            b"Exceeded MaxStartups\r\n",
            b"Not allowed at this time\r\n",
        ] {
            assert_eq!(greeting(text), Some(Greeting::new(text.trim_ascii_end(), None, true)));
        }
        assert_eq!(looks_like_server(b"Invalid request"), Recognition::No);
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>) {
            greeting(&bytes);
            greeting(&[b"SSH-2.0-", &bytes[..]].concat());
        }
    }
}
