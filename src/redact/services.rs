//! First messages of services with messages of octets: MySQL, PostgreSQL, MQTT, AMQP; errors behind them; and DNS over TCP.

use super::mapping::Mapping;
use super::stream::{Reader, Step};
use crate::wire::text::failure::{Message, ReadsMessage};
use crate::wire::text::{mysql, postgres};

/// Octets of a message that say what it is and how long: they stay.
const HEAD: u64 = 5;
/// Longest message that is waited for.
const LONGEST: usize = 64 * 1024;

/// What a side begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Mysql,
    PostgresClient,
    PostgresServer,
    Mqtt,
    Amqp,
    Dns,
}

/// Reads the first message of a service and the errors behind it, or all of DNS.
pub(super) struct First {
    service: Service,
    /// The first message was read.
    begun: bool,
    /// The client was let in.
    welcome: bool,
    /// Octets are missing.
    lost: bool,
}

impl Reader for First {
    fn step(&mut self, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        if self.begun
            && let Some(reads) = self.behind()
        {
            return self.follow(reads, map, bytes, last);
        }
        let len = self.len(bytes).map(|len| len.min(LONGEST));
        let whole = len.is_some_and(|len| bytes.len() >= len);
        if !whole && !last && bytes.len() < LONGEST {
            return Step::More;
        }
        let message = &bytes[..len.unwrap_or(bytes.len()).min(bytes.len())];
        self.begun = true;
        let mapped = match self.service {
            Service::Mysql => map.mysql(message),
            Service::PostgresClient => map.postgres_startup(message),
            Service::PostgresServer => map.postgres(message),
            Service::Mqtt => map.mqtt(message),
            Service::Amqp => map.frames(message),
            Service::Dns => {
                let (length, message) = message.split_at(message.len().min(2));
                return Step::Replace([length, &map.dns(message)].concat());
            }
        };
        if self.behind().is_some() { Step::Replace(mapped) } else { Step::ReplaceAndFill(mapped, u64::MAX) }
    }

    fn hole(&mut self) {
        self.lost = true;
    }

    fn resume(&mut self, _piece: &[u8]) -> bool {
        // Nobody reads on behind a hole.
        !self.lost
    }
}

impl First {
    pub(super) fn of(service: Service) -> Self {
        Self { service, begun: false, welcome: false, lost: false }
    }

    /// Who reads what stands behind the first message.
    fn behind(&self) -> Option<ReadsMessage> {
        match self.service {
            Service::Mysql => Some(mysql::message),
            Service::PostgresServer => Some(postgres::message),
            Service::PostgresClient => Some(postgres::client_message),
            _ => None,
        }
    }

    /// Errors keep their codes and common words, other messages their kind and length.
    fn follow(&mut self, reads: ReadsMessage, map: &mut Mapping, bytes: &[u8], last: bool) -> Step {
        let len = match reads(bytes, !self.welcome) {
            Message::Partial if last || bytes.len() >= LONGEST => return Step::Fill(bytes.len() as u64),
            Message::Partial => return Step::More,
            Message::Lost => return Step::Fill(u64::MAX),
            Message::Failed(len, _) => {
                let message = bytes.get(..len as usize).unwrap_or(bytes);
                let mysql = self.service == Service::Mysql;
                return Step::Replace(if mysql { map.mysql(message) } else { map.postgres(message) });
            }
            Message::Welcome(len) => {
                self.welcome = true;
                len
            }
            Message::Usual(len) => len,
        };
        let head = bytes.get(..HEAD.min(len) as usize).unwrap_or(bytes).to_vec();
        let rest = len - head.len() as u64;
        if rest == 0 { Step::Replace(head) } else { Step::ReplaceAndFill(head, rest) }
    }

    /// Octets of the first message; `None` before its length is there.
    fn len(&self, bytes: &[u8]) -> Option<usize> {
        let number = |from: usize, to: usize| {
            bytes.get(from..to).map(|octets| octets.iter().fold(0, |n: usize, octet| n << 8 | usize::from(*octet)))
        };
        match self.service {
            Service::Mysql => bytes
                .get(..3)
                .map(|len| 4 + (usize::from(len[0]) | usize::from(len[1]) << 8 | usize::from(len[2]) << 16)),
            Service::PostgresClient => number(0, 4),
            // Errors before version 3 end with a zero.
            Service::PostgresServer if bytes.get(1).is_some_and(|octet| *octet != 0) => {
                memchr::memchr(0, bytes).map(|end| end + 1)
            }
            Service::PostgresServer => number(1, 5).map(|len| len.saturating_add(1)),
            Service::Mqtt => varint(bytes.get(1..)?).map(|(len, octets)| 1 + octets + len),
            Service::Amqp if bytes.starts_with(b"AMQP") => Some(8),
            Service::Amqp => number(3, 7).map(|len| len.saturating_add(8)),
            Service::Dns => number(0, 2).map(|len| len + 2),
        }
    }
}

/// MQTT's lengths: the value and its octets.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (n, octet) in bytes.iter().take(4).enumerate() {
        value |= usize::from(octet & 0x7f) << (7 * n);
        if octet & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

impl Mapping {
    /// A greeting or a refusal: version, code and state stay.
    fn mysql(&mut self, packet: &[u8]) -> Vec<u8> {
        let (head, body) = packet.split_at(packet.len().min(5));
        let mapped = if head.get(4) == Some(&0xff) {
            let state = if body.get(2) == Some(&b'#') { 8 } else { 2 };
            let (code, words) = body.split_at(body.len().min(state));
            [code, &self.message(words)].concat()
        } else {
            let version = memchr::memchr(0, body).unwrap_or(body.len());
            let (version, rest) = body.split_at(version);
            [self.message(version), rest.iter().take(1).copied().collect(), self.opaque(rest.get(1..).unwrap_or(&[]))]
                .concat()
        };
        [head, &mapped].concat()
    }

    /// StartupMessage and CancelRequest: names of parameters stay.
    fn postgres_startup(&mut self, message: &[u8]) -> Vec<u8> {
        let (head, body) = message.split_at(message.len().min(8));
        if message.starts_with(&[0, 0, 0, 16]) {
            return [head, &self.opaque(body)].concat();
        }
        let mut out = head.to_vec();
        for (n, text) in body.split_inclusive(|octet| *octet == 0).enumerate() {
            let mapped = match n % 2 {
                // What a health check calls itself tells that it is one.
                1 if text.strip_suffix(b"\0") == Some(postgres::PROBE) => text.to_vec(),
                0 => self.message(text),
                _ => self.text(text),
            };
            out.extend(mapped);
        }
        out
    }

    /// An error or a request for authentication: severity and code stay.
    fn postgres(&mut self, message: &[u8]) -> Vec<u8> {
        if postgres::looks_like_server(message) == crate::wire::Recognition::No || message.get(1) != Some(&0) {
            return [&message[..1], &self.message(&message[1..])].concat();
        }
        let (head, body) = message.split_at(message.len().min(5));
        if head[0] == b'R' {
            let (wanted, rest) = body.split_at(body.len().min(4));
            return [head, wanted, &self.message(rest)].concat();
        }
        let mut out = head.to_vec();
        for field in body.split_inclusive(|octet| *octet == 0) {
            match field.first() {
                Some(b'S' | b'V' | b'C' | b'L') => out.extend_from_slice(field),
                Some(kind) => {
                    out.push(*kind);
                    let mapped = self.message(&field[1..]);
                    out.extend(mapped);
                }
                None => {}
            }
        }
        out
    }

    /// CONNECT and CONNACK: protocol, version, flags and reason stay.
    fn mqtt(&mut self, packet: &[u8]) -> Vec<u8> {
        let Some((_, octets)) = packet.get(1..).and_then(varint) else { return packet.to_vec() };
        let body = 1 + octets;
        let fixed = match packet[0] >> 4 {
            // Name with its length, version, flags, keep-alive.
            1 => packet.get(body + 1).map_or(2, |len| 2 + usize::from(*len)) + 4,
            // Flags, reason, length of properties.
            _ => 2 + packet.get(body + 2..).and_then(varint).map_or(0, |(_, octets)| octets),
        };
        let (kept, rest) = packet.split_at(packet.len().min(body + fixed));
        [kept, &self.opaque(rest)].concat()
    }

    /// A frame of AMQP: what is no text stays, as it is lengths and kinds.
    fn frames(&mut self, frame: &[u8]) -> Vec<u8> {
        let text = |octet: &u8| matches!(octet, b' '..=b'~');
        let mut out = Vec::with_capacity(frame.len());
        while out.len() < frame.len() {
            let rest = &frame[out.len()..];
            let run = rest.iter().take_while(|octet| text(octet)).count();
            if run > 0 {
                let mapped = self.message(&rest[..run]);
                out.extend(mapped);
            } else {
                out.push(rest[0]);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::super::secret::tests::key;
    use super::*;
    use crate::wire::text::{Greeting, amqp, mqtt};

    fn first(service: Service, bytes: &[u8]) -> Vec<u8> {
        let mut mapping = Mapping::new(&key(1), Level::All);
        match First::of(service).step(&mut mapping, bytes, true) {
            Step::ReplaceAndFill(out, u64::MAX) | Step::Replace(out) => out,
            _ => panic!("no first message"),
        }
    }

    fn text(greeting: Option<Greeting>) -> String {
        greeting.expect("a greeting").text
    }

    #[test]
    fn refusals_keep_their_words_and_lose_their_hosts() {
        let message = b"\xff\x6a\x04Host '203.0.113.7' is not allowed to connect to this MariaDB server";
        let packet = [&[message.len() as u8, 0, 0, 0][..], message].concat();
        let mapped = first(Service::Mysql, &packet);
        let said = text(mysql::greeting(&mapped));
        assert!(
            said.starts_with("Host '") && said.ends_with("' is not allowed to connect to this MariaDB server"),
            "{said}"
        );
        assert!(!said.contains("203.0"), "{said}");

        let fields = b"SFATAL\0VFATAL\0C28000\0Mno pg_hba.conf entry for host \"203.0.113.7\", user \"alice\"\0\0";
        let packet = [&[b'E'][..], &(fields.len() as u32 + 4).to_be_bytes(), fields].concat();
        let said = text(postgres::greeting(&first(Service::PostgresServer, &packet)));
        assert!(said.starts_with("FATAL 28000: no ") && !said.contains("alice") && !said.contains("203.0"), "{said}");
    }

    #[test]
    fn what_recognition_needs_stays() {
        let connect = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04cli1";
        let mapped = first(Service::Mqtt, connect);
        assert_eq!((mapped.len(), mqtt::looks_like_client(&mapped)), (connect.len(), crate::wire::Recognition::Yes));
        assert!(!mapped.ends_with(b"cli1"));
        assert_eq!(first(Service::Mqtt, &[0x20, 2, 0, 5]), [0x20, 2, 0, 5]);
        assert_eq!(first(Service::Amqp, b"AMQP\0\0\x09\x01"), b"AMQP\0\0\x09\x01");
        assert_eq!(amqp::looks_like_server(b"AMQP\0\0\x09\x01"), crate::wire::Recognition::Yes);
    }

    #[test]
    fn messages_that_break_off_keep_their_length() {
        for service in [Service::Mysql, Service::PostgresClient, Service::PostgresServer, Service::Mqtt, Service::Amqp]
        {
            for octets in [
                &b"E"[..],
                b"\x10\xff\xff\xff\xff\xff",
                b"\0\0\0\x08",
                b"R\0\0\xff\xff\xff",
                b"\x01\0\0\xff\xff\xff\xff\x05",
            ] {
                // What is behind the message is filled.
                assert!(first(service, octets).len() <= octets.len(), "{service:?} {octets:?}");
            }
        }
    }
}
