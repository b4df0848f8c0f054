//! A PROXY header in words: for evidence, for notes, and whether its receiver took it.

use super::finding::Finding;
use super::view::FlowView;
use crate::event::{Kind, PacketRef, Side, What};
use crate::wire::proxy::{Command, Family, ProxyHeader};
use crate::wire::{Address, Endpoint};

/// A version 2 header with IPv4 addresses: 12 octets of signature, 4 of fixed part, 12 of addresses (§2.2).
const WHOLE_TCP4: u32 = 28;

/// A short phrase: `28 octets \r\n\r\n\0\r\nQUIT\n: PROXY v2, client 203.0.113.7:53002`.
pub fn shows(header: &ProxyHeader) -> String {
    format!("{} octets {}: PROXY v{}, {}", header.len, begins(header.version), header.version, whose(header))
}

/// The octets a header of that version begins with, as people search for them.
pub fn begins(version: u8) -> &'static str {
    if version == 1 { "\"PROXY \"" } else { "\\r\\n\\r\\n\\0\\r\\nQUIT\\n" }
}

/// Everything the header says, a sentence of its own.
pub fn decoded(header: &ProxyHeader) -> String {
    let end = |end: Option<Endpoint>| end.map_or("none".to_owned(), |end| end.to_string());
    let mut text = format!(
        "the header: version {}, command {}, family {}, source {}, destination {}, {} octets",
        header.version,
        command(header.command),
        family(header.family),
        end(header.source),
        end(header.destination),
        header.len,
    );
    for tlv in &header.tlvs {
        text.push_str(&format!(", TLV 0x{:02x} {} ({} octets)", tlv.kind, tlv_name(tlv.kind), tlv.len));
    }
    text
}

/// Sets the slots every PROXY rule may use: {version}, {header_octets}, {header_client}.
pub fn fill(finding: Finding, header: &ProxyHeader) -> Finding {
    finding
        .with("version", u32::from(header.version))
        .with("header_octets", header.len)
        .with("header_client", whose(header))
        .note(decoded(header))
}

/// Whose connection the header announces.
fn whose(header: &ProxyHeader) -> String {
    match (header.command, header.source) {
        (Command::Local, _) => "LOCAL (the proxy's own connection)".into(),
        (Command::Proxy, Some(source)) => format!("client {source}"),
        (Command::Proxy, None) => "client not named".into(),
    }
}

/// The server took the header and what followed: a ServerHello, or an HTTP answer other than 400, or no close after other words.
pub fn accepted(flow: &FlowView<'_>) -> Option<PacketRef> {
    let answer = flow.answer()?;
    let refused = flow.story.events().filter(|e| e.side == Side::Server).any(|e| match &e.what {
        What::Response(head) => head.status == 400,
        What::AlertPlain(alert) => alert.fatal() && !flow.saw(Kind::ServerHello),
        What::Greeting(words) => words.refuses,
        _ => false,
    });
    (!refused).then_some(answer)
}

/// A second header, a broken one or one in pieces is a fault of its own: rules about what the port speaks leave it to theirs.
pub fn has_a_fault_of_its_own(flow: &FlowView<'_>) -> bool {
    let close = flow.close_of(Side::Server);
    let late = |header: PacketRef| close.is_some_and(|close| close < header);
    flow.saw(Kind::ProxyHeaderAgain)
        || flow.saw(Kind::ProxyBroken)
        || flow.saw(Kind::ProxyIncomplete)
        || (flow.saw(Kind::ProxySplit) && flow.proxy_header().is_some_and(|(at, _)| late(at)))
}

/// The stream ended inside a version 2 header although all addresses are there, and the server gave up waiting: the length field promises
/// more than was sent. A header that is cut inside its addresses was sent in pieces.
pub fn length_lies(flow: &FlowView<'_>, got: u32) -> bool {
    let version_2 = flow.story.excerpt(Side::Client).is_some_and(|octets| octets.starts_with(b"\r\n\r\n"));
    version_2 && got >= WHOLE_TCP4 && flow.closed_first(Side::Server)
}

/// An address that routers of the internet carry. Carrier NAT (100.64.0.0/10) and unique local addresses are not such.
pub fn is_public(address: Address) -> bool {
    match address.to_ip() {
        std::net::IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || shared)
        }
        std::net::IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

fn command(command: Command) -> &'static str {
    match command {
        Command::Local => "LOCAL",
        Command::Proxy => "PROXY",
    }
}

fn family(family: Family) -> &'static str {
    match family {
        Family::Unspecified => "UNSPEC",
        Family::Tcp4 => "TCP4",
        Family::Udp4 => "UDP4",
        Family::Tcp6 => "TCP6",
        Family::Udp6 => "UDP6",
        Family::Unix => "UNIX",
    }
}

fn tlv_name(kind: u8) -> &'static str {
    match kind {
        0x01 => "ALPN",
        0x02 => "AUTHORITY",
        0x03 => "CRC32C",
        0x04 => "NOOP",
        0x05 => "UNIQUE_ID",
        0x20 => "SSL",
        0x30 => "NETNS",
        0xe0..=0xef => "custom",
        0xf0..=0xf7 => "experimental",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::testing::{host, proxy_header};
    use crate::wire::proxy::Tlv;

    #[test]
    fn a_header_is_named_by_its_first_octets_and_its_client() {
        let mut header = proxy_header(2, "35.229.69.78:443", 28);
        assert_eq!(shows(&header), "28 octets \\r\\n\\r\\n\\0\\r\\nQUIT\\n: PROXY v2, client 203.0.113.7:53002");
        header.tlvs.push(Tlv { kind: 0x02, len: 15, value: b"www.example.com".to_vec() });
        assert_eq!(
            decoded(&header),
            "the header: version 2, command PROXY, family TCP4, source 203.0.113.7:53002, destination 35.229.69.78:443, \
             28 octets, TLV 0x02 AUTHORITY (15 octets)"
        );
    }

    #[test]
    fn private_shared_and_local_addresses_are_not_public() {
        for private in ["10.0.0.1", "172.16.9.9", "192.168.1.1", "100.64.0.1", "127.0.0.1", "fd00::1", "fe80::1"] {
            assert!(!is_public(host(private)), "{private}");
        }
        assert!(is_public(host("198.51.100.23")));
        assert!(is_public(host("2001:db8::1")));
    }
}
