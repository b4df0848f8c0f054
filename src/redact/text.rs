//! Text: words, names, addresses and URLs in it are replaced where they stand, what joins them stays.

use super::mapping::{Mapping, What, remember};
use super::words;
use crate::wire::{Address, Mac};

/// Which words stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// None.
    Nothing,
    /// Those that protocols and servers say to everybody.
    Common,
    /// Of words these parts.
    Parts(&'static [&'static [u8]]),
    /// Common words, and of others these parts.
    CommonAnd(&'static [&'static [u8]]),
}

/// Services of gRPC itself, whose absence means little.
const GRPC_OWN: [&[u8]; 2] = [b"/grpc.health.v1.", b"/grpc.reflection."];
/// Commands behind which users and passwords stand.
const LOGINS: [&[u8]; 7] = [b"pass", b"user", b"auth", b"login", b"apop", b"helo", b"ehlo"];

fn is_word(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'_' | b'-' | 0x80..)
}

fn begins_word(octet: u8) -> bool {
    octet != b'-' && is_word(octet)
}

/// Octets at the beginning of `bytes` that fulfil it.
fn run(bytes: &[u8], fits: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|octet| fits(**octet)).count()
}

impl Mapping {
    /// Text in which nothing stays but what joins words. As long as before.
    pub fn text(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.words(bytes, Keep::Nothing)
    }

    /// A message for people: the words that everybody says stay. As long as before.
    pub fn message(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.words(bytes, Keep::Common)
    }

    pub(super) fn words(&mut self, bytes: &[u8], keep: Keep) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while let Some(octet) = bytes.get(out.len()) {
            let at = out.len();
            let rest = &bytes[at..];
            let inside = at > 0 && is_word(bytes[at - 1]) && bytes[at - 1] != b'-';
            if !inside && let Some(address) = self.address_text(rest) {
                let len = address.len();
                out.extend(address);
                out.extend(port(&rest[len..]));
            } else if begins_word(*octet) {
                self.next_word(bytes, &mut out, keep);
            } else {
                out.push(*octet);
            }
        }
        out
    }

    /// The word at the end of `out` in `bytes`, with those that dots join to it.
    fn next_word(&mut self, bytes: &[u8], out: &mut Vec<u8>, keep: Keep) {
        let rest = &bytes[out.len()..];
        let len = run(rest, is_word);
        if ends_with_word(&bytes[..out.len()], b"ttp/") || ends_with_word(&bytes[..out.len()], b"tlsv") {
            let version = run(rest, |octet| octet.is_ascii_digit() || octet == b'.');
            if version > 0 {
                return out.extend_from_slice(&rest[..version]);
            }
        }
        if rest[len..].starts_with(b"://") && words::is_common(&rest[..len]) {
            out.extend_from_slice(&rest[..len + 3]);
            let authority = run(&rest[len + 3..], |octet| octet > b' ' && !b"/?#\"'<>,;".contains(&octet));
            let authority = &rest[len + 3..len + 3 + authority];
            return out.extend(self.authority(authority));
        }
        let name = dotted(rest);
        if name > len && rest[..name].iter().any(u8::is_ascii_alphabetic) {
            out.extend(self.name(&rest[..name]));
            return out.extend(port(&rest[name..]));
        }
        let word = &rest[..len];
        out.extend(self.kept_or_not(word, keep));
    }

    fn kept_or_not(&mut self, word: &[u8], keep: Keep) -> Vec<u8> {
        let common = |word: &[u8]| {
            words::is_common(word)
                || word
                    .split(|octet| matches!(octet, b'-' | b'_'))
                    .all(|part| part.is_empty() || words::is_common(part))
        };
        match keep {
            Keep::Nothing => self.word(word),
            Keep::Common | Keep::CommonAnd(_) if common(word) => word.to_vec(),
            Keep::Common => self.word(word),
            Keep::Parts(parts) | Keep::CommonAnd(parts) => self.word_around(word, parts),
        }
    }

    /// A word of which certain parts stay.
    fn word_around(&mut self, word: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let lower = word.to_ascii_lowercase();
        let found = parts.iter().filter_map(|part| Some((memchr::memmem::find(&lower, part)?, part.len()))).min();
        match found {
            None => self.word(word),
            Some((at, len)) => {
                let mut out = if at > 0 { self.word(&word[..at]) } else { Vec::new() };
                out.extend_from_slice(&word[at..at + len]);
                if at + len < word.len() {
                    out.extend(self.word_around(&word[at + len..], parts));
                }
                out
            }
        }
    }

    /// An address at the beginning of a text, replaced.
    fn address_text(&mut self, rest: &[u8]) -> Option<Vec<u8>> {
        let len = run(rest, |octet| octet.is_ascii_hexdigit() || matches!(octet, b'.' | b':'));
        let window = rest.get(..len.min(64))?;
        let first = *window.first()?;
        if first == b'.' || rest.get(len).is_some_and(|octet| begins_word(*octet) && len < 64 && window.ends_with(b"."))
        {
            return None;
        }
        let colons = window.iter().filter(|octet| **octet == b':').count();
        if colons >= 2 {
            return self.colon_text(rest, window);
        }
        if !first.is_ascii_digit() {
            return None;
        }
        let quad = quad(rest)?;
        self.v4_text(&rest[..quad])
    }

    /// A link address or an IPv6 address.
    fn colon_text(&mut self, rest: &[u8], window: &[u8]) -> Option<Vec<u8>> {
        if let Some(mac) = window.get(..17).and_then(mac_of)
            && !rest.get(17).is_some_and(|octet| octet.is_ascii_hexdigit() || *octet == b':')
        {
            let mapped = self.mac(mac).to_string().into_bytes();
            let upper = window.iter().any(u8::is_ascii_uppercase);
            return Some(if upper { mapped.to_ascii_uppercase() } else { mapped });
        }
        // A colon or a dot behind it is none of it, and neither is a port without brackets.
        let mut text = window;
        while let [shorter @ .., b':' | b'.'] = text {
            if shorter.ends_with(b":") {
                break;
            }
            text = shorter;
        }
        if rest.get(text.len()).is_some_and(|octet| octet.is_ascii_alphanumeric()) {
            return None;
        }
        self.v6_text(text)
    }

    /// A host name, label by label: names with the same end keep the same end.
    pub fn name(&mut self, name: &[u8]) -> Vec<u8> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let labels: Vec<&[u8]> = name.split(|octet| *octet == b'.').collect();
        let mapped = self.labels(&labels).join(&b'.');
        remember(&mut self.names, name, &mapped);
        if mapped != name {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            self.note(What::Name, || text(name), || text(&mapped));
        }
        mapped
    }

    /// Labels of a name, each in as many octets.
    pub(super) fn labels(&mut self, labels: &[&[u8]]) -> Vec<Vec<u8>> {
        // The root at the end is no label.
        let rooted = usize::from(labels.last().is_some_and(|label| label.is_empty()));
        let whole = &labels[..labels.len() - rooted];
        let public = words::public_labels(whole);
        let own = &whole[..whole.len() - public];
        if let Some(reversed) = self.reversed(own, &whole[own.len()..]) {
            return reversed.into_iter().chain(labels[own.len()..].iter().map(|label| label.to_vec())).collect();
        }
        let mapped = labels.iter().enumerate().map(|(n, label)| {
            if n >= own.len()
                || (n == 0 && words::is_first_label(label))
                || label.starts_with(b"_") && words::is_first_label(label)
            {
                label.to_vec()
            } else {
                self.words(label, Keep::Nothing)
            }
        });
        mapped.collect()
    }

    /// Labels of a name under in-addr.arpa or ip6.arpa: an address backwards, or the beginning of one.
    fn reversed(&mut self, own: &[&[u8]], public: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
        let number = |label: &&[u8], radix| {
            let text = std::str::from_utf8(label).ok()?;
            u8::from_str_radix(text, radix).ok().filter(|_| radix == 10 || text.len() == 1)
        };
        let [kind, _] = public else { return None };
        if kind.eq_ignore_ascii_case(b"in-addr") && own.len() <= 4 {
            let octets: Vec<u8> = own.iter().rev().map(|label| number(label, 10)).collect::<Option<_>>()?;
            let mut mapped: Vec<Vec<u8>> = match <[u8; 4]>::try_from(&octets[..]) {
                Ok(whole) => match self.address(Address::v4(whole)).to_ip() {
                    std::net::IpAddr::V4(ip) => ip.octets().map(|octet| octet.to_string().into_bytes()).to_vec(),
                    std::net::IpAddr::V6(_) => return None,
                },
                Err(_) => self.v4_prefix(&octets).iter().map(|octet| octet.to_string().into_bytes()).collect(),
            };
            mapped.reverse();
            return Some(mapped);
        }
        if kind.eq_ignore_ascii_case(b"ip6") && own.len() <= 32 {
            let digits: Vec<u8> = own.iter().rev().map(|label| number(label, 16)).collect::<Option<_>>()?;
            let all = digits.iter().chain(std::iter::repeat(&0)).take(32);
            let ip = Address(all.fold(0, |ip, digit| ip << 4 | u128::from(*digit)));
            let ip = self.address(ip).0;
            let mapped = (0..digits.len()).rev().map(|n| format!("{:x}", ip >> (124 - 4 * n) & 15).into_bytes());
            return Some(mapped.collect());
        }
        None
    }

    /// `user@host:port`, `host`, `[address]:port`.
    pub(super) fn authority(&mut self, bytes: &[u8]) -> Vec<u8> {
        let user = memchr::memrchr(b'@', bytes).map_or(0, |at| at + 1);
        let mut out = self.text(&bytes[..user]);
        let host = &bytes[user..];
        let end = match (memchr::memchr(b']', host), memchr::memrchr(b':', host)) {
            (Some(end), _) if host.starts_with(b"[") => end + 1,
            (_, Some(at)) if host[at + 1..].iter().all(u8::is_ascii_digit) && !host[..at].contains(&b':') => at,
            _ => host.len(),
        };
        let (host, port) = host.split_at(end);
        out.extend(match self.whole_address(host) {
            Some(address) => address,
            None if host.iter().all(|octet| is_word(*octet) || *octet == b'.') => self.name(host),
            None => self.text(host),
        });
        let digits = port.strip_prefix(b":").is_some_and(|port| port.iter().all(u8::is_ascii_digit));
        out.extend(if digits || port.is_empty() { port.to_vec() } else { self.text(port) });
        out
    }

    fn whole_address(&mut self, host: &[u8]) -> Option<Vec<u8>> {
        if let Some(inner) = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]")) {
            return Some([b"[", &self.v6_text(inner)?[..], b"]"].concat());
        }
        self.v4_text(host).or_else(|| self.v6_text(host))
    }

    /// A request target: a path, a URL, or for CONNECT a host.
    pub(super) fn target(&mut self, target: &[u8]) -> Vec<u8> {
        if let Some(own) = GRPC_OWN.iter().find(|own| target.starts_with(own)) {
            return [own, &self.text(&target[own.len()..])[..]].concat();
        }
        if !target.starts_with(b"/") && !target.contains(&b'/') && target.contains(&b':') {
            return self.authority(target);
        }
        self.words(target, Keep::Parts(words::TARGETS))
    }

    /// What only its owner should know: of its shape only the length and the separators stay.
    pub(super) fn credential(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mapped = self.text(bytes);
        let kept = |octet: u8| octet.is_ascii_alphanumeric() || b" \t\r\n;,=\"".contains(&octet) || octet >= 0x80;
        mapped.into_iter().map(|octet| if kept(octet) || octet < b' ' { octet } else { b'x' }).collect()
    }

    /// Lines of a protocol of text: codes, commands, common words and lengths stay.
    pub(super) fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let (mut bulk, mut bulks) = (false, 0);
        for line in bytes.split_inclusive(|octet| *octet == b'\n') {
            let number = run(line.get(1..).unwrap_or(&[]), |octet| octet.is_ascii_digit() || octet == b'-');
            match line.first() {
                Some(b'*' | b'$') if number > 0 && line[1 + number..].iter().all(u8::is_ascii_whitespace) => {
                    bulks = if line[0] == b'*' { 0 } else { bulks + 1 };
                    bulk = line[0] == b'$';
                    out.extend_from_slice(line);
                    continue;
                }
                _ => {}
            }
            let begins = prefix(line);
            out.extend_from_slice(&line[..begins]);
            let rest = &line[begins..];
            let command = run(rest, |octet| octet.is_ascii_alphabetic());
            let login = LOGINS.iter().any(|word| rest[..command].eq_ignore_ascii_case(word));
            if login {
                out.extend_from_slice(&rest[..command]);
                let mapped = self.text(&rest[command..]);
                out.extend(mapped);
            } else {
                let keep = if bulk && bulks > 1 { Keep::Nothing } else { Keep::Common };
                out.extend(self.words(rest, keep));
            }
            bulk = false;
        }
        out
    }
}

/// What begins a line and stays: the version of SSH, a reply code with its enhanced one.
fn prefix(line: &[u8]) -> usize {
    if line.starts_with(b"SSH-") {
        let version = 4 + run(&line[4..], |octet| octet.is_ascii_digit() || octet == b'.');
        return if line.get(version) == Some(&b'-') { version + 1 } else { version };
    }
    let digits = run(line, |octet| octet.is_ascii_digit());
    if digits != 3 || !matches!(line.get(3), None | Some(b' ' | b'-' | b'\r' | b'\n')) {
        return 0;
    }
    let rest = line.get(4..).unwrap_or(&[]);
    match rest {
        [b'2' | b'4' | b'5', b'.', _, b'.', ..] => 4 + run(rest, |octet| octet.is_ascii_digit() || octet == b'.'),
        _ => line.len().min(4),
    }
}

/// A port behind an address or a name.
fn port(rest: &[u8]) -> Vec<u8> {
    let digits = match rest {
        [b':', behind @ ..] => run(behind, |octet| octet.is_ascii_digit()),
        _ => return Vec::new(),
    };
    let ended = !rest.get(1 + digits).is_some_and(|octet| is_word(*octet) || *octet == b':');
    if (1..=5).contains(&digits) && ended { rest[..=digits].to_vec() } else { Vec::new() }
}

/// Octets of words joined by single dots.
fn dotted(rest: &[u8]) -> usize {
    let mut end = run(rest, is_word);
    while rest.get(end) == Some(&b'.') && rest.get(end + 1).is_some_and(|octet| begins_word(*octet)) {
        end += 1 + run(&rest[end + 1..], is_word);
    }
    end
}

/// Octets of four numbers joined by dots, with nothing that goes on behind them.
fn quad(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    for n in 0..4 {
        let digits = run(&rest[at..], |octet| octet.is_ascii_digit());
        if !(1..=3).contains(&digits) {
            return None;
        }
        at += digits;
        if n < 3 {
            if rest.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
    }
    let goes_on = match rest.get(at) {
        Some(b'.') => rest.get(at + 1).is_some_and(|octet| is_word(*octet)),
        Some(octet) => octet.is_ascii_alphanumeric() || *octet == b'_',
        None => false,
    };
    (!goes_on).then_some(at)
}

fn mac_of(text: &[u8]) -> Option<Mac> {
    let mut octets = [0; 6];
    for (n, slot) in octets.iter_mut().enumerate() {
        let digits = std::str::from_utf8(text.get(3 * n..3 * n + 2)?).ok()?;
        *slot = u8::from_str_radix(digits, 16).ok()?;
        if n < 5 && text.get(3 * n + 2) != Some(&b':') {
            return None;
        }
    }
    Some(Mac(octets))
}

fn ends_with_word(bytes: &[u8], word: &[u8]) -> bool {
    bytes.len().checked_sub(word.len()).and_then(|at| bytes.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;

    fn mapping() -> Mapping {
        Mapping::new(&key(1), Level::All)
    }

    fn text(octets: Vec<u8>) -> String {
        String::from_utf8(octets).expect("text")
    }

    #[test]
    fn a_name_is_the_same_in_urls_headers_and_messages() {
        let mut mapping = mapping();
        let name = text(mapping.name(b"shop.example.com"));
        for (before, behind) in [("https://", ":8443/x"), ("no such host: ", ""), ("a@", ", b")] {
            let mapped = text(mapping.message(format!("{before}shop.example.com{behind}").as_bytes()));
            assert!(mapped.contains(&name), "{mapped} lacks {name}");
        }
        assert!(text(mapping.name(b"www.shop.example.com")).ends_with(&name));
        assert_eq!(text(mapping.name(b"SHOP.Example.com")).to_lowercase(), name);
    }

    #[test]
    fn addresses_in_text_are_those_of_packets_and_ports_stay() {
        let mut mapping = mapping();
        let ip = mapping.address(Address::v4([203, 0, 113, 7])).to_string();
        assert_eq!(
            text(mapping.text(b"for=203.0.113.7:4711, x"))
                .split_once('=')
                .map(|(_, v)| v.to_owned())
                .as_deref()
                .map(|v| v.starts_with(&format!("{ip}:4711"))),
            Some(true)
        );
        let host: std::net::IpAddr = "2001:db8::7".parse().expect("an address");
        let six = mapping.address(host.into()).to_string();
        assert_eq!(text(mapping.authority(b"[2001:db8::7]:443")), format!("[{six}]:443"));
        assert!(
            text(mapping.message(b"Host '203.0.113.7' is not allowed"))
                .contains(&format!("Host '{ip}' is not allowed"))
        );
    }

    #[test]
    fn names_of_addresses_are_those_of_their_replacements() {
        let mut mapping = mapping();
        let std::net::IpAddr::V4(ip) = mapping.address(Address::v4([203, 0, 113, 7])).to_ip() else {
            panic!("no IPv4")
        };
        let [a, b, c, d] = ip.octets();
        assert_eq!(text(mapping.name(b"7.113.0.203.in-addr.arpa")), format!("{d}.{c}.{b}.{a}.in-addr.arpa"));
        assert_eq!(text(mapping.name(b"113.0.203.in-addr.arpa")), format!("{c}.{b}.{a}.in-addr.arpa"));
    }

    #[test]
    fn messages_keep_common_words_and_paths_keep_none() {
        let mut mapping = mapping();
        let page = b"<html>400 The plain HTTP request was sent to HTTPS port</html>";
        let mapped = text(mapping.message(page));
        assert!(mapped.contains("plain HTTP request was sent to HTTPS port"), "{mapped}");
        let path = text(mapping.target(b"/request/port?server=backend7&wait=1"));
        assert!(!path.contains("request") && !path.contains("server") && !path.contains("backend"), "{path}");
        assert!(path.contains("wait="), "{path}");
    }

    #[test]
    fn lines_keep_codes_versions_and_lengths() {
        let mut mapping = mapping();
        let mapped =
            text(mapping.lines(b"220 mail.example.com ESMTP Postfix\r\n550 5.7.1 no\r\nSSH-2.0-OpenSSH_9.2p1\r\n"));
        let lines: Vec<&str> = mapped.lines().collect();
        assert!(lines[0].starts_with("220 ") && lines[0].ends_with("ESMTP Postfix") && !lines[0].contains("example"));
        assert!(lines[1].starts_with("550 5.7.1 no") && lines[2].starts_with("SSH-2.0-"));
        let redis = text(mapping.lines(b"*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n"));
        assert!(redis.starts_with("*2\r\n$4\r\nAUTH\r\n$6\r\n") && !redis.contains("secret"), "{redis}");
        assert!(!text(mapping.lines(b"PASS password\r\n")).contains("password"));
    }

    #[test]
    fn everything_keeps_its_length() {
        let mut mapping = mapping();
        let texts: [&[u8]; 8] = [
            b"::",
            b"1.2.3.4.5",
            b"a:b:c:d",
            b"02:42:ac:11:00:02 up",
            b"http://[::1",
            b"\xc3\xa9\xff\x80-..-_",
            b"1.2.3.4:99999999",
            b"x://@:",
        ];
        for octets in texts {
            assert_eq!(mapping.message(octets).len(), octets.len(), "{octets:?}");
            assert_eq!(mapping.target(octets).len(), octets.len(), "{octets:?}");
            assert_eq!(mapping.authority(octets).len(), octets.len(), "{octets:?}");
            assert_eq!(mapping.credential(octets).len(), octets.len(), "{octets:?}");
            assert_eq!(mapping.lines(octets).len(), octets.len(), "{octets:?}");
        }
    }
}
