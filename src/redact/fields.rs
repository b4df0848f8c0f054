//! Header fields of HTTP in any version: which values stay, which are names, which are secret.

use super::mapping::Mapping;
use super::text::Keep;
use super::words;

/// Fields whose values say nothing about anybody: framing, caching, types, times.
const PLAIN: &[&str] = &[
    ":method",
    ":protocol",
    ":scheme",
    ":status",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "date",
    "expect",
    "expires",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "http2-settings",
    "keep-alive",
    "last-modified",
    "max-forwards",
    "pragma",
    "proxy-connection",
    "range",
    "retry-after",
    "sec-websocket-version",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "upgrade-insecure-requests",
    "vary",
    "x-content-type-options",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-ssl",
];
/// Fields whose values are products, types and messages.
const MESSAGES: &[&str] = &[
    "alt-svc",
    "content-type",
    "forwarded",
    "grpc-message",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "server",
    "via",
    "warning",
    "www-authenticate",
    "proxy-authenticate",
    "x-powered-by",
];
/// Fields that hold credentials.
const CREDENTIALS: &[&str] = &[
    "authentication-info",
    "authorization",
    "cookie",
    "cookie2",
    "proxy-authentication-info",
    "proxy-authorization",
    "set-cookie",
    "set-cookie2",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-client-cert",
];
/// Fields of which parts are compared, and not the whole.
const COMPOUND: &[&str] =
    &["b3", "traceparent", "tracestate", "uber-trace-id", "x-amzn-trace-id", "x-cloud-trace-context"];

/// Names of health checkers that rules know a part of.
const CHECKER: &[&[u8]] = &[b"check"];

fn among(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

impl Mapping {
    /// The value of a field, in as many octets.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Vec<u8> {
        if among(PLAIN, name) {
            value.to_vec()
        } else if name.eq_ignore_ascii_case(b":path") {
            self.target(value)
        } else if name.eq_ignore_ascii_case(b"host") || name.eq_ignore_ascii_case(b":authority") {
            let blanks = value.len() - value.trim_ascii_start().len();
            let end = value.trim_ascii_end().len().max(blanks);
            [&value[..blanks], &self.authority(&value[blanks..end])[..], &value[end..]].concat()
        } else if name.eq_ignore_ascii_case(b"user-agent") {
            self.words(value, Keep::CommonAnd(CHECKER))
        } else if name.eq_ignore_ascii_case(b"referer") || name.eq_ignore_ascii_case(b"location") {
            // What `target` keeps of a path it keeps here.
            self.words(value, Keep::Parts(words::TARGETS))
        } else if among(MESSAGES, name) {
            self.message(value)
        } else if among(CREDENTIALS, name) {
            let scheme = value.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
            let scheme = scheme + value[scheme..].iter().take_while(|octet| octet.is_ascii_alphabetic()).count();
            let named = value.get(scheme) == Some(&b' ') && words::is_common(value[..scheme].trim_ascii());
            let kept = if named { scheme } else { 0 };
            [&value[..kept], &self.credential(&value[kept..])[..]].concat()
        } else if among(COMPOUND, name) {
            let parts = value.split_inclusive(|octet| *octet == b'-');
            parts.flat_map(|part| self.text(part)).collect()
        } else {
            self.text(value)
        }
    }

    /// A head or a trailer section: lines of fields, behind a first line where there is one.
    pub(super) fn head(&mut self, head: &[u8], first_line: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(head.len());
        let mut name: Vec<u8> = Vec::new();
        let mut first = first_line;
        for line in head.split_inclusive(|octet| *octet == b'\n') {
            let end = line.len() - line.iter().rev().take_while(|octet| matches!(octet, b'\r' | b'\n')).count();
            let (line, ending) = line.split_at(end);
            if line.is_empty() {
                // An empty line before the first one.
            } else if std::mem::take(&mut first) {
                out.extend(self.first_line(line));
            } else if line[0].is_ascii_whitespace() && !name.is_empty() {
                let value = self.field(&name, line);
                out.extend(value);
            } else if let Some(colon) = memchr::memchr(b':', line) {
                name = line[..colon].trim_ascii().to_vec();
                out.extend_from_slice(&line[..=colon]);
                let value = self.field(&name, &line[colon + 1..]);
                out.extend(value);
            } else {
                out.extend(self.message(line));
            }
            out.extend_from_slice(ending);
        }
        out
    }

    /// A request line or a status line, also one that is none.
    fn first_line(&mut self, line: &[u8]) -> Vec<u8> {
        if line.get(..5).is_some_and(|begin| begin.eq_ignore_ascii_case(b"HTTP/")) {
            let version = line.iter().position(|octet| matches!(octet, b' ' | b'\t')).unwrap_or(line.len());
            let status = line[version..].iter().take_while(|octet| octet.is_ascii_digit() || **octet == b' ').count();
            let kept = version + status;
            return [&line[..kept], &self.message(&line[kept..])[..]].concat();
        }
        let method = line.iter().take_while(|octet| octet.is_ascii_uppercase() || **octet == b'-').count();
        let blanks = line[method..].iter().take_while(|octet| **octet == b' ').count();
        if method == 0 || blanks == 0 {
            return self.message(line);
        }
        let (begin, rest) = line.split_at(method + blanks);
        let version = memchr::memmem::rfind(rest, b" HTTP/").unwrap_or(rest.len());
        let (target, version) = rest.split_at(version);
        let method = if begin.len() <= 33 { begin.to_vec() } else { self.text(begin) };
        [method, self.target(target), version.to_vec()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;

    #[test]
    fn a_head_keeps_what_frames_it_and_loses_what_names_somebody() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        let head = b"POST /accounts/4711?token=abcdefgh HTTP/1.1\r\nHost: shop.example.com:8443\r\nContent-Length: 12\r\n\
            Authorization: Basic dXNlcjpzZWNyZXQ=\r\nCookie: session=0123456789abcdef; theme=darkness\r\n\
            X-Forwarded-For: 203.0.113.7, 10.0.0.5\r\nUser-Agent: ELB-HealthChecker/2.0\r\nX-Request-ID: 7f3a9c1e22\r\n\r\n";
        let mapped = mapping.head(head, true);
        assert_eq!(mapped.len(), head.len());
        let text = String::from_utf8(mapped).expect("text");
        for kept in [
            "POST /",
            " HTTP/1.1\r\nHost: ",
            ":8443\r\nContent-Length: 12\r\nAuthorization: Basic ",
            "ELB-HealthChecker/",
            "\r\n\r\n",
        ] {
            assert!(text.contains(kept), "{kept:?} is not in {text}");
        }
        for gone in [
            "accounts",
            "4711",
            "abcdefgh",
            "shop",
            "example",
            "dXNl",
            "session",
            "0123456789",
            "darkness",
            "203.0.113",
            "7f3a9c1e22",
        ] {
            assert!(!text.contains(gone), "{gone:?} is in {text}");
        }
    }

    #[test]
    fn an_id_in_parts_stays_the_same_id_from_hop_to_hop() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        let mut id = |value: &[u8]| mapping.field(b"traceparent", value)[3..35].to_vec();
        let one = id(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(one, id(b"00-4bf92f3577b34da6a3ce929d0e0e4736-53995c3f42cd8ad8-00"));
        assert_ne!(one, b"4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn a_head_that_is_none_keeps_its_length_and_its_fault() {
        let mut mapping = Mapping::new(&key(1), Level::All);
        for head in [
            &b"HTTP/1.1 2 0 0 fine\r\n\r\n"[..],
            b"GET\r\n",
            b" folded\r\nX : y\r\n",
            b"\x80\xff\x00: \x01\n",
            b"A B C D\n",
        ] {
            let mapped = mapping.head(head, true);
            assert_eq!(mapped.len(), head.len());
            let kind = |octets: &[u8]| octets.iter().map(|octet| octet.is_ascii_alphanumeric()).collect::<Vec<_>>();
            assert_eq!(kind(&mapped), kind(head));
        }
    }
}
