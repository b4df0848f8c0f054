//! Version 1: one line of text. proxy-protocol.txt §2.1.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{BrokenHeader, Command, Family, ProxyHeader, ProxyStart, Rule};
use crate::wire::{Address, Endpoint};

/// The longest line, CRLF included.
const LONGEST: usize = 107;

/// Reads a version 1 header from octets that begin with P in either case.
pub(super) fn parse(bytes: &[u8]) -> ProxyStart {
    match recognise(bytes) {
        Recognised::No => return ProxyStart::No,
        Recognised::Partial => return ProxyStart::Partial,
        Recognised::Wrong(rule) => return broken(rule, bytes.len().min(LONGEST)),
        Recognised::Yes => {}
    }
    let window = bytes.get(..LONGEST).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() >= LONGEST { broken(Rule::V1TooLong, LONGEST) } else { ProxyStart::Partial };
    };
    let len = end + 1;
    let Some(line) = window.get(..end).and_then(|line| line.strip_suffix(b"\r")) else {
        return broken(Rule::V1LfOnly, len);
    };
    match fields(line) {
        Ok((family, ends)) => ProxyStart::Header(Box::new(ProxyHeader {
            version: 1,
            command: Command::Proxy,
            family,
            source: ends.map(|(source, _)| source),
            destination: ends.map(|(_, destination)| destination),
            tlvs: Vec::new(),
            checksum_fits: None,
            len: len as u32,
        })),
        Err(rule) => broken(rule, len),
    }
}

fn broken(rule: Rule, len: usize) -> ProxyStart {
    ProxyStart::Broken(BrokenHeader { version: 1, rule, len: len as u32 })
}

/// What the signature and the word behind it are.
enum Recognised {
    No,
    Partial,
    Yes,
    Wrong(Rule),
}

/// Looks at `PROXY`, the blanks behind it and the protocol word. A method named PROXY or a sentence about a proxy must not look like a
/// broken header, so that nothing is said before the word fits the protocol.
fn recognise(bytes: &[u8]) -> Recognised {
    const SIGNATURE: &[u8] = b"PROXY";
    // What stands behind the longest line says nothing of it: no later octet may change the answer.
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    let begun = bytes.get(..SIGNATURE.len()).unwrap_or(bytes);
    if !begun.iter().zip(SIGNATURE).all(|(octet, letter)| octet.eq_ignore_ascii_case(letter)) {
        return Recognised::No;
    }
    let rest = bytes.get(SIGNATURE.len()..).unwrap_or(&[]);
    let blanks = rest.iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
    let word = rest.get(blanks..).unwrap_or(&[]);
    if blanks == 0 && !word.is_empty() {
        return Recognised::No;
    }
    let like = if begun == SIGNATURE { NEARLY_RIGHT } else { RIGHT };
    match is_protocol_word(word, like) {
        Some(false) => Recognised::No,
        None if bytes.len() >= LONGEST => Recognised::No,
        None => Recognised::Partial,
        Some(true) if begun != SIGNATURE => Recognised::Wrong(Rule::V1Case),
        Some(true) if rest.get(..blanks) != Some(b" ") => Recognised::Wrong(Rule::V1Spaces),
        Some(true) => Recognised::Yes,
    }
}

/// Words that, in either case, say that a misspelt PROXY is meant: "proxy tcp …" may be a sentence.
const RIGHT: &[&[u8]] = &[b"tcp4", b"tcp6", b"unknown"];
/// Words that say so behind a PROXY in capitals.
const NEARLY_RIGHT: &[&[u8]] = &[b"tcp", b"udp", b"unknown", b"unspec", b"unix", b"inet"];

/// Whether `word` begins with one of `like`, in either case; `None` while more octets are needed.
fn is_protocol_word(word: &[u8], like: &[&[u8]]) -> Option<bool> {
    let fits =
        |like: &&&[u8]| word.iter().zip(like.iter()).all(|(octet, letter)| octet.to_ascii_lowercase() == *letter);
    let mut candidates = like.iter().filter(fits).peekable();
    if candidates.peek().is_none() {
        return Some(false);
    }
    candidates.any(|like| word.len() >= like.len()).then_some(true)
}

/// Family and ends of a line without its CRLF.
fn fields(line: &[u8]) -> Result<(Family, Option<(Endpoint, Endpoint)>), Rule> {
    // All that a header may hold is ASCII; anything else sits where an address should be.
    let line = std::str::from_utf8(line).map_err(|_| Rule::V1Address)?;
    let mut words = line.split(' ').skip(1);
    let family = match words.next() {
        Some("TCP4") => Family::Tcp4,
        Some("TCP6") => Family::Tcp6,
        // Whatever stands behind UNKNOWN must be ignored.
        Some("UNKNOWN") => return Ok((Family::Unspecified, None)),
        _ => return Err(Rule::V1Family),
    };
    if line.contains('\t') || words.clone().any(str::is_empty) {
        return Err(Rule::V1Spaces);
    }
    let (Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Rule::V1Fields);
    };
    let (source, destination) = (address(family, source)?, address(family, destination)?);
    let ends = (Endpoint::new(source, port(source_port)?), Endpoint::new(destination, port(destination_port)?));
    Ok((family, Some(ends)))
}

fn address(family: Family, word: &str) -> Result<Address, Rule> {
    let read = match family {
        Family::Tcp4 => word.parse::<Ipv4Addr>().map(|ip| Address::v4(ip.octets())).ok(),
        _ => word.parse::<Ipv6Addr>().map(|ip| Address::v6(ip.octets())).ok(),
    };
    read.ok_or(Rule::V1Address)
}

fn port(word: &str) -> Result<u16, Rule> {
    let digits = word.bytes().all(|octet| octet.is_ascii_digit());
    let padded = word.len() > 1 && word.starts_with('0');
    if !digits || padded {
        return Err(Rule::V1Port);
    }
    word.parse().map_err(|_| Rule::V1Port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::parse;
    use super::*;

    fn rule_of(bytes: &[u8]) -> Option<Rule> {
        match parse(bytes) {
            ProxyStart::Broken(broken) => Some(broken.rule),
            _ => None,
        }
    }

    fn header_of(bytes: &[u8]) -> ProxyHeader {
        match parse(bytes) {
            ProxyStart::Header(header) => *header,
            other => panic!("no header in {:?}: {other:?}", String::from_utf8_lossy(bytes)),
        }
    }

    #[test]
    fn a_line_is_read_and_what_follows_is_left_alone() {
        let header = header_of(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nGET / HTTP/1.1\r\n");
        assert_eq!(header.source.map(|end| end.to_string()).as_deref(), Some("192.0.2.7:56324"));
        assert_eq!(header.destination.map(|end| end.to_string()).as_deref(), Some("198.51.100.1:443"));
        assert_eq!((header.version, header.family, header.len), (1, Family::Tcp4, 45));
    }

    #[test]
    fn ipv6_and_unknown_are_read() {
        let header = header_of(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 0\r\n");
        assert_eq!(header.source.map(|end| end.to_string()).as_deref(), Some("[2001:db8::1]:1"));
        assert_eq!(header_of(b"PROXY UNKNOWN\r\n").family, Family::Unspecified);
        assert_eq!(header_of(b"PROXY UNKNOWN whatever  stands here\r\n").source, None);
    }

    #[test]
    fn every_prefix_of_a_header_asks_for_more() {
        let line = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
        for end in 0..line.len() {
            assert_eq!(parse(&line[..end]), ProxyStart::Partial, "{end}");
        }
    }

    #[test]
    fn each_rule_is_named_when_it_is_broken() {
        for (line, rule) in [
            (&b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"[..], Rule::V1LfOnly),
            (b"PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Spaces),
            (b"PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Spaces),
            (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Spaces),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", Rule::V1Spaces),
            (b"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", Rule::V1Spaces),
            (b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Family),
            (b"PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Family),
            (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Family),
            (b"PROXY UNKNOWNS\r\n", Rule::V1Family),
            (b"proxy TCP4", Rule::V1Case),
            (b"Proxy tcp4 1.2.3.4", Rule::V1Case),
            (b"PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n", Rule::V1Address),
            (b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", Rule::V1Address),
            (b"PROXY TCP4 ::1 ::2 1 2\r\n", Rule::V1Address),
            (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", Rule::V1Address),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", Rule::V1Port),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", Rule::V1Port),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n", Rule::V1Port),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", Rule::V1Port),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", Rule::V1Fields),
            (b"PROXY TCP4\r\n", Rule::V1Fields),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", Rule::V1Fields),
        ] {
            assert_eq!(rule_of(line), Some(rule), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn the_line_may_hold_107_octets_and_no_more() {
        let mut line = b"PROXY UNKNOWN ".to_vec();
        line.resize(105, b'x');
        let longest = [&line[..], b"\r\n"].concat();
        assert_eq!(header_of(&longest).len, 107);
        let too_long = [&line[..], b"x\r\n"].concat();
        assert_eq!(rule_of(&too_long), Some(Rule::V1TooLong));
    }

    #[test]
    fn other_protocols_are_no_header() {
        for text in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROPFIND / HTTP/1.1\r\n",
            b"POST / HTTP/1.1\r\n",
            b"PROXY / HTTP/1.1\r\n",
            b"PROXY http://a/ HTTP/1.1\r\n",
            b"proxy settings are wrong\r\n",
            b"proxy tcp is not allowed\r\n",
            b"PROXYTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            b"proxy-connection: close\r\n",
            b"PROXY\r\n",
            b"220 mail ESMTP\r\n",
            b"\r\n",
            b"\r\nGET / HTTP/1.1",
            b"pop3",
        ] {
            let now = parse(text);
            let expected = if text == b"\r\n" { ProxyStart::Partial } else { ProxyStart::No };
            assert_eq!(now, expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn blanks_without_end_are_no_header() {
        let mut text = b"PROXY".to_vec();
        text.resize(300, b' ');
        assert_eq!(parse(&text), ProxyStart::No);
    }

    proptest! {
        #[test]
        fn what_ppp_reads_reads_the_same(a: [u8; 16], b: [u8; 16], ports: (u16, u16), v6: bool, tail: Vec<u8>) {
            let (word, from, to) = if v6 {
                ("TCP6", Ipv6Addr::from(a).to_string(), Ipv6Addr::from(b).to_string())
            } else {
                ("TCP4", Ipv4Addr::new(a[0], a[1], a[2], a[3]).to_string(), Ipv4Addr::new(b[0], b[1], b[2], b[3]).to_string())
            };
            let line = format!("PROXY {word} {from} {to} {} {}\r\n", ports.0, ports.1);
            let bytes = [line.as_bytes(), &tail[..]].concat();
            let oracle = ppp::v1::Header::try_from(line.as_str()).map(|header| header.addresses);
            let header = header_of(&bytes);
            let expected = if v6 {
                ppp::v1::Addresses::new_tcp6(a, b, ports.0, ports.1)
            } else {
                ppp::v1::Addresses::new_tcp4([a[0], a[1], a[2], a[3]], [b[0], b[1], b[2], b[3]], ports.0, ports.1)
            };
            prop_assert_eq!(oracle, Ok(expected));
            prop_assert_eq!(header.source.map(|end| end.port), Some(ports.0));
            prop_assert_eq!(header.destination.map(|end| end.port), Some(ports.1));
            prop_assert_eq!(header.len as usize, line.len());
        }

        #[test]
        fn text_behind_the_word_never_panics(text in "(PROXY|proxy) (TCP4|TCP6|UNKNOWN|tcp)?[ -~\r\n]{0,120}") {
            parse(text.as_bytes());
        }
    }
}
