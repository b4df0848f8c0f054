//! What each fuzz target does with any octets: no panic, no hang, and what must hold whatever they are.
//!
//! Used twice: by the libFuzzer targets in `fuzz_targets/`, one file each, and by `tests/fuzz_corpus.rs`, which replays `corpus/` in plain
//! `cargo test`.

use std::io::Cursor;

use tcpwhy::capture::{Frame, LinkType, Source};
use tcpwhy::decode::{Decoder, Transport};
use tcpwhy::event::{Event, PacketRef, Side, What};
use tcpwhy::flow::FlowHead;
use tcpwhy::flow::facts::{IpProtocol, RoleSource};
use tcpwhy::protocol::Dissector;
use tcpwhy::time::Timestamp;
use tcpwhy::wire::http::{ChunkedReader, ChunkedStep};
use tcpwhy::wire::tls::{HandshakeJoiner, RecordHeader, content};
use tcpwhy::wire::{Address, Endpoint, arp, dns, http, icmp, proxy, sll, tcp, text, tls};
use tcpwhy::{Diagnosis, render};

/// Reads a target's octets.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const ALL: &[(&str, Target)] = &[
    ("whole", whole),
    ("capture", capture),
    ("decode", decode),
    ("tcp_options", tcp_options),
    ("proxy_header", proxy_header),
    ("tls", tls),
    ("http", http),
    ("dns", dns),
    ("icmp_arp", icmp_arp),
    ("words", words),
    ("dissector", dissector),
];

/// The whole pipeline: open, read, decode, flows, protocols, rules, report, text and JSON.
pub fn whole(octets: &[u8]) {
    let Some(source) = source(octets) else { return };
    let Ok(opened) = Diagnosis::new().workers(1).all_flows(true).source(source) else { return };
    let Ok(report) = opened.run() else { return };
    let text = render::text::report(&report, Default::default());
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "a control character reached the terminal");
    let mut json = Vec::new();
    render::json::document(&report, &mut json).expect("writing to memory");
    let back: tcpwhy::Report = serde_json::from_slice(&json).expect("its own JSON");
    assert_eq!(back, report);
}

fn source(octets: &[u8]) -> Option<Source> {
    let reader = Box::new(Cursor::new(octets.to_vec()));
    Source::from_readers(vec![("x".into(), reader as _)]).ok()
}

/// pcap and pcapng readers: frames are numbered without a gap and hold no more than what came in.
pub fn capture(octets: &[u8]) {
    // Packed input may hold any amount; it has readers of its own in front.
    let packed = matches!(octets, [0x1f, 0x8b, ..] | [0x28, 0xb5, ..] | [0x04, 0x22, ..] | [0x50..=0x5f, 0x2a, ..]);
    let Some(mut source) = source(octets).filter(|_| !packed) else { return };
    let mut number = 0;
    while let Ok(Some(frame)) = source.next() {
        assert!(frame.number > number, "#{} follows #{number}", frame.number);
        number = frame.number;
        assert!(frame.bytes.len() <= octets.len() && frame.offset <= octets.len() as u64);
    }
}

/// Frames to packets. Two octets of link type, then frames with two octets of length each: fragments meet in one decoder.
pub fn decode(octets: &[u8]) {
    let Some((link, mut rest)) = octets.split_first_chunk::<2>() else { return };
    let mut decoder = Decoder::new(Default::default());
    let mut number = 0;
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let (bytes, later) = behind.split_at(behind.len().min(u16::from_be_bytes(*len).into()));
        rest = later;
        number += 1;
        let packet = decoder.decode(&Frame {
            file: 0,
            point: 0,
            number,
            time: Timestamp(number as i64),
            interface: 0,
            link: LinkType(u16::from_be_bytes(*link)),
            wire_len: bytes.len() as u32 + u32::from(link[0] >> 7),
            bytes,
            offset: 0,
            flags: 0,
        });
        match packet.transport {
            Transport::Tcp(segment) => assert!(segment.payload.len() <= segment.payload_len as usize),
            Transport::Udp(datagram) => assert!(datagram.payload.len() <= datagram.payload_len as usize),
            _ => {}
        }
    }
    decoder.finish();
}

/// TCP options, and the checksum over a segment.
pub fn tcp_options(octets: &[u8]) {
    let options = tcp::TcpOptions::parse(octets);
    assert!(options.sack().len() <= 4);
    let _ = tcp::checksum(Address::v4([192, 0, 2, 1]), Address::v4([192, 0, 2, 2]), 6, octets);
}

/// PROXY headers: more octets never change a verdict, but for how many of a broken one were looked at.
pub fn proxy_header(octets: &[u8]) {
    let verdict = |octets: &[u8]| match proxy::parse(octets) {
        proxy::ProxyStart::Broken(broken) => format!("{:?}", proxy::BrokenHeader { len: 0, ..broken }),
        start => format!("{start:?}"),
    };
    let whole = verdict(octets);
    if let proxy::ProxyStart::Header(header) = proxy::parse(octets) {
        let _ = (header.alpn(), header.authority(), header.unique_id(), header.namespace(), header.ssl());
    }
    for end in (0..octets.len()).rev().take(64) {
        let so_far = verdict(&octets[..end]);
        assert!(so_far == "Partial" || so_far == whole, "{so_far} after {end} octets, {whole} at last");
    }
}

/// TLS records, the handshake messages in them, and the certificates in those. Octets that are no record are read as a message.
pub fn tls(octets: &[u8]) {
    let _ = (tls::looks_like_client_hello(octets), tls::looks_like_server_record(octets));
    let _ = (tls::looks_like_sslv2_hello(octets), tls::parse_alert(octets));
    message(octets);
    let mut joiner = HandshakeJoiner::default();
    let mut rest = octets;
    while let Ok(header) = RecordHeader::parse(rest) {
        let behind = rest.get(5..).unwrap_or_default();
        let (body, later) = behind.split_at(behind.len().min(header.len.into()));
        rest = later;
        match header.content {
            content::HANDSHAKE => {
                let _ = joiner.push(body, |whole| message(whole.bytes));
            }
            content::ALERT => {
                let _ = tls::parse_alert(body).map(|alert| (alert.fatal(), alert.name()));
            }
            _ => {}
        }
    }
}

/// A handshake message, read as each kind.
fn message(octets: &[u8]) {
    let _ = tls::parse_client_hello(octets);
    let _ = tls::parse_server_hello(octets);
    let _ = tls::parse_certificates(octets);
}

/// HTTP/1 heads, and chunked bodies: pieces give what the whole gives.
pub fn http(octets: &[u8]) {
    let _ = (http::looks_like_request(octets), http::looks_like_response(octets), http::looks_like_preface(octets));
    if let http::Head::Complete(head) = http::parse_response(octets) {
        let _ = (head.framing_after("GET"), head.framing_after("HEAD"));
    }
    let _ = http::parse_request(octets);
    let mut whole = ChunkedReader::default();
    let step = whole.push(octets);
    let mut pieces = ChunkedReader::default();
    let mut used = 0;
    let mut last = ChunkedStep::More;
    for octet in octets {
        last = pieces.push(std::slice::from_ref(octet));
        if last != ChunkedStep::More {
            break;
        }
        used += 1;
    }
    match (step, last) {
        (ChunkedStep::End { used: all }, ChunkedStep::End { used: one }) => assert_eq!(all, used + one),
        (a, b) => assert!(a == b, "{a:?} as a whole, {b:?} in pieces"),
    }
    assert_eq!(whole.data(), pieces.data());
}

/// DNS messages, whole and cut, and messages in a stream.
pub fn dns(octets: &[u8]) {
    let _ = (dns::looks_like_dns(octets), dns::parse(octets, false), dns::parse(octets, true));
    let mut rest = octets;
    while let Ok((message, later)) = dns::split_stream(rest) {
        assert!(later.len() < rest.len());
        let _ = dns::parse(message, false);
        rest = later;
    }
}

/// ICMP errors with their quotes, ARP and ND, cooked headers.
pub fn icmp_arp(octets: &[u8]) {
    let _ = (icmp::parse_error4(octets), icmp::parse_error6(octets));
    let _ = (arp::parse_arp(octets), arp::parse_neighbor6(octets, Address::v4([192, 0, 2, 1])));
    let _ = (sll::parse_v1(octets), sll::parse_v2(octets));
}

/// First words of SMTP, SSH, Redis, MySQL and PostgreSQL.
pub fn words(octets: &[u8]) {
    let _ =
        (text::smtp::looks_like_client(octets), text::smtp::looks_like_server(octets), text::smtp::greeting(octets));
    let _ = (text::ssh::looks_like_client(octets), text::ssh::looks_like_server(octets), text::ssh::greeting(octets));
    let _ = (text::redis::looks_like_client(octets), text::redis::looks_like_server(octets));
    let _ = (text::redis::greeting(octets), text::mysql::looks_like_server(octets), text::mysql::greeting(octets));
    let _ = (text::postgres::looks_like_client(octets), text::postgres::looks_like_server(octets));
    let _ = (text::postgres::answer_to_ssl_request(octets), text::postgres::greeting(octets));
}

/// Recognition and every analyzer: the same octets give the same events of each side however they are split, but for those that tell of
/// the pieces themselves. Two octets of length for the client's, two for the pieces.
pub fn dissector(octets: &[u8]) {
    let Some((&[l0, l1, p0, p1], rest)) = octets.split_first_chunk::<4>() else { return };
    let (client, server) = rest.split_at(rest.len().min(u16::from_be_bytes([l0, l1]).into()));
    let piece = usize::from(u16::from_be_bytes([p0, p1])).max(1);
    let whole = said(client, server, usize::MAX);
    // Octet by octet a long input would take its time twice over.
    let pieces = said(client, server, piece.max(rest.len() / 512));
    assert_eq!(whole, pieces, "in pieces of {piece}");
}

/// The events of a flow: all that the client says, then all that the server says.
fn said(client: &[u8], server: &[u8], piece: usize) -> Vec<String> {
    let end = |last, port| Endpoint::new(Address::v4([192, 0, 2, last]), port);
    let at = PacketRef { file: 0, number: 1, time: Timestamp(0) };
    let head = FlowHead {
        id: at,
        transport: IpProtocol::Tcp,
        client: end(1, 50_000),
        server: end(2, 8_000),
        role: RoleSource::Handshake,
        mid_stream: false,
    };
    let (mut dissector, mut said) = (Dissector::default(), Vec::new());
    let mut emit = |event: Event| {
        said.push(match event.what {
            What::ProxySplit { .. } => return,
            // How much was looked at when enough was seen.
            What::Excerpt { .. } => format!("{:?}: excerpt", event.side),
            What::ProxyBroken(broken) => format!("{:?}: {:?}", event.side, broken.rule),
            what => format!("{:?}: {what:?}", event.side),
        });
    };
    for (side, octets) in [(Side::Client, client), (Side::Server, server)] {
        for piece in octets.chunks(piece.min(octets.len()).max(1)) {
            dissector.bytes(&head, side, at, piece, &mut emit);
        }
    }
    for side in [Side::Client, Side::Server] {
        dissector.end(&head, side, at, &mut emit);
    }
    // A head that is broken far from its end is told when it is looked at next: the sides' events may change places.
    said.sort_by_key(|event| event.starts_with("Server"));
    said
}
