//! DNS messages: header, question and addresses. RFC 1035 §4.
//!
//! Own code: packets that the snaplen cut must be read as far as they go, and one reader for whole and cut messages cannot disagree with
//! itself. `simple-dns` is the oracle of its tests.

use serde::{Deserialize, Serialize};

use super::{Address, Cursor, Limit, Malformed, ShortText, text_of};

/// What a DNS message tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsMessage {
    /// Transaction id.
    pub id: u16,
    /// QR bit.
    pub response: bool,
    /// What is asked for: 0 is a query, 5 an update (RFC 1035 §4.1.1, RFC 2136 §2.2).
    pub opcode: u8,
    /// Response code, EDNS extended bits included.
    pub rcode: u16,
    /// TC bit.
    pub truncated: bool,
    /// First question's name, lower case, without the final dot, cut to 255 octets.
    pub name: ShortText,
    /// First question's type.
    pub qtype: u16,
    /// A and AAAA answers with their TTL in seconds.
    pub addresses: Vec<(Address, u32)>,
    /// CNAME chain of the answer section.
    pub aliases: Vec<ShortText>,
    /// Number of answer records.
    pub answers: u16,
    /// Extended DNS error code (RFC 8914).
    pub extended_error: Option<u16>,
    /// The capture kept only part of it.
    pub cut: bool,
}

/// Longest name, its dots included.
const LONGEST_NAME: usize = 255;
/// Addresses kept of one message.
const MOST_ADDRESSES: usize = 64;
/// Aliases kept of one message.
const MOST_ALIASES: usize = 16;
/// Records of one message that are looked at.
const MOST_RECORDS: u32 = 4096;

/// Record types that are read. RFC 1035 §3.2.2, RFC 3596, RFC 6891.
mod kind {
    pub(super) const A: u16 = 1;
    pub(super) const CNAME: u16 = 5;
    pub(super) const AAAA: u16 = 28;
    pub(super) const OPT: u16 = 41;
}

/// EDNS option code of an extended error. RFC 8914 §2.
const EXTENDED_ERROR: u16 = 15;

/// Reads a DNS message without the length that stands before it over TCP.
///
/// `cut` says that the capture kept only its beginning: then what is whole of it is returned.
///
/// # Errors
/// `limit: Slice` when octets are missing and the message is not cut (or not even the header is there), `limit: Field` when a name cannot be
/// one.
pub fn parse(bytes: &[u8], cut: bool) -> Result<DnsMessage, Malformed> {
    let header = Header::parse(&mut Cursor::new(bytes))?;
    let mut message = DnsMessage {
        id: header.id,
        response: header.flags & 0x8000 != 0,
        opcode: (header.flags >> 11 & 0x0f) as u8,
        rcode: header.flags & 0x000f,
        truncated: header.flags & 0x0200 != 0,
        answers: header.answers,
        cut,
        ..DnsMessage::default()
    };
    match read_sections(bytes, &header, &mut message) {
        // A server that truncates may stop in the middle of a record.
        Err(malformed) if malformed.limit == Limit::Slice && (cut || message.truncated) => Ok(message),
        Err(malformed) => Err(malformed),
        Ok(()) => Ok(message),
    }
}

/// Whether a datagram is so surely DNS that its port need not be asked: a header whose counts and bits fit, and a first question that reads
/// to its end. Not for messages that the capture cut within the question.
pub fn looks_like_dns(bytes: &[u8]) -> bool {
    let mut cursor = Cursor::new(bytes);
    let Ok(header) = Header::parse(&mut cursor) else { return false };
    let response = header.flags & 0x8000 != 0;
    let opcode = header.flags >> 11 & 0x0f;
    // Opcode 3 was never assigned, one bit must be zero, and a query reports no error.
    if opcode > 5 || opcode == 3 || header.flags & 0x0040 != 0 || (!response && header.flags & 0x000f != 0) {
        return false;
    }
    let multicast = header.id == 0;
    let questions = if multicast { 0..=32 } else { 1..=1 };
    let records = [header.answers, header.authorities, header.additional];
    if !questions.contains(&header.questions) || records.iter().any(|count| *count > 512) {
        return false;
    }
    if header.questions == 0 {
        return response
            && header.answers > 0
            && read_record(bytes, &mut cursor).is_ok_and(|record| is_class(record.class));
    }
    let Ok((name, qtype, class)) = read_question(bytes, &mut cursor) else { return false };
    let alone = header.questions == 1 && records == [0; 3];
    qtype != 0 && is_class(class) && !name.chars().any(char::is_control) && (!alone || cursor.remaining() == 0)
}

/// Splits the first message off a TCP stream: two octets of length, then the message. RFC 1035 §4.2.2. Returns it and what follows.
///
/// # Errors
/// `limit: Slice` while octets are missing, `limit: Field` for a length that no message can have.
pub fn split_stream(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut cursor = Cursor::new(bytes);
    let len = usize::from(cursor.u16("DNS length")?);
    if len < Header::LEN {
        return Err(Malformed::field("DNS length", 0));
    }
    let message = cursor.take(len, "DNS message")?;
    Ok((message, cursor.rest()))
}

/// IN, CH and ANY; multicast DNS uses the highest bit for itself (RFC 6762 §5.4, §10.2).
fn is_class(class: u16) -> bool {
    matches!(class & 0x7fff, 1 | 3 | 255)
}

/// RFC 1035 §4.1.1.
struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    answers: u16,
    authorities: u16,
    additional: u16,
}

impl Header {
    const LEN: usize = 12;

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let octets: [u8; Self::LEN] = cursor.array("DNS header")?;
        let field = |n: usize| u16::from_be_bytes([octets[2 * n], octets[2 * n + 1]]);
        Ok(Self {
            id: field(0),
            flags: field(1),
            questions: field(2),
            answers: field(3),
            authorities: field(4),
            additional: field(5),
        })
    }
}

/// Fills `message` as far as the octets reach.
fn read_sections(bytes: &[u8], header: &Header, message: &mut DnsMessage) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(bytes);
    cursor.take(Header::LEN, "DNS header")?;
    for number in 0..header.questions {
        let (name, qtype, _) = read_question(bytes, &mut cursor)?;
        if number == 0 {
            (message.name, message.qtype) = (name, qtype);
        }
    }
    let answers = u32::from(header.answers);
    let records = answers + u32::from(header.authorities) + u32::from(header.additional);
    for number in 0..records.min(MOST_RECORDS) {
        let record = read_record(bytes, &mut cursor)?;
        if record.kind == kind::OPT {
            note_opt(&record, message);
        } else if number < answers {
            note_answer(bytes, &record, message);
        }
    }
    Ok(())
}

/// Name, type and class of a question. RFC 1035 §4.1.2.
fn read_question<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>) -> Result<(ShortText, u16, u16), Malformed> {
    let name = read_name(bytes, cursor)?;
    Ok((name, cursor.u16("question type")?, cursor.u16("question class")?))
}

/// A resource record. RFC 1035 §4.1.3.
struct Record<'a> {
    kind: u16,
    class: u16,
    ttl: u32,
    /// Where the data begins in the message: names in it may point back.
    at: usize,
    data: &'a [u8],
}

fn read_record<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>) -> Result<Record<'a>, Malformed> {
    walk_name(bytes, cursor, |_| {})?;
    let (kind, class, ttl) = (cursor.u16("record type")?, cursor.u16("record class")?, cursor.u32("record TTL")?);
    let len = cursor.u16("record length")?;
    let at = cursor.position();
    Ok(Record { kind, class, ttl, at, data: cursor.take(len.into(), "record data")? })
}

fn note_answer(bytes: &[u8], record: &Record<'_>, message: &mut DnsMessage) {
    let address = match (record.kind, <[u8; 4]>::try_from(record.data), <[u8; 16]>::try_from(record.data)) {
        (kind::A, Ok(v4), _) => Some(Address::v4(v4)),
        (kind::AAAA, _, Ok(v6)) => Some(Address::v6(v6)),
        _ => None,
    };
    if let Some(address) = address.filter(|_| message.addresses.len() < MOST_ADDRESSES) {
        message.addresses.push((address, record.ttl));
    }
    if record.kind == kind::CNAME && message.aliases.len() < MOST_ALIASES {
        // The name must end where the record does, though what it points back to may lie anywhere before.
        let mut cursor = Cursor::new(bytes.get(..record.at + record.data.len()).unwrap_or(bytes));
        let alias = cursor.take(record.at, "record data").and_then(|_| read_name(bytes, &mut cursor));
        message.aliases.extend(alias);
    }
}

/// The extended response code stands in the TTL of OPT (RFC 6891 §6.1.3), an extended error among its options.
fn note_opt(record: &Record<'_>, message: &mut DnsMessage) {
    message.rcode |= (record.ttl >> 24 << 4) as u16;
    let mut cursor = Cursor::new(record.data);
    while let (Ok(code), Ok(len)) = (cursor.u16("option code"), cursor.u16("option length")) {
        let Ok(mut value) = cursor.take(len.into(), "option").map(Cursor::new) else { break };
        if code == EXTENDED_ERROR {
            message.extended_error = value.u16("extended error").ok();
        }
    }
}

/// Reads a name at the cursor and leaves the cursor behind it: labels, lower case, joined by dots. RFC 1035 §4.1.4.
///
/// A pointer must lead to a place before the one that was being read, so that no chain of pointers is endless, and there may be at most as
/// many as a name can have labels, so that none is long.
fn read_name<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>) -> Result<ShortText, Malformed> {
    // The label that makes it too long is still handed out.
    let (mut name, mut len) = ([0; LONGEST_NAME + 64], 0);
    walk_name(bytes, cursor, |label| {
        if len > 0 {
            name[len] = b'.';
            len += 1;
        }
        name[len..len + label.len()].copy_from_slice(label);
        len += label.len();
    })?;
    let name = &mut name[..len];
    name.make_ascii_lowercase();
    Ok(text_of(name, LONGEST_NAME))
}

/// As [`read_name`], handing out the labels.
fn walk_name<'a>(bytes: &'a [u8], cursor: &mut Cursor<'a>, mut each: impl FnMut(&'a [u8])) -> Result<(), Malformed> {
    const WHAT: &str = "DNS name";
    let (mut octets, mut at) = (cursor.bytes, cursor.at);
    let (mut name_len, mut jumps) = (0, 0);
    let (mut start, mut behind) = (at, None);
    loop {
        let wrong = Malformed::field(WHAT, at as u32);
        let short = |need, got: &[u8]| Malformed::short(WHAT, at as u32 + 1, need, got.len() as u32);
        match octets.get(at..).unwrap_or(&[]) {
            [] => return Err(Malformed::short(WHAT, at as u32, 1, 0)),
            [0, ..] => break,
            [len @ 1..=63, rest @ ..] => {
                let label = rest.get(..usize::from(*len)).ok_or_else(|| short(u32::from(*len), rest))?;
                name_len += usize::from(name_len > 0) + label.len();
                each(label);
                at += 1 + label.len();
            }
            [high @ 0xc0..=0xff, rest @ ..] => {
                let low = rest.first().ok_or_else(|| short(1, rest))?;
                let target = usize::from(u16::from_be_bytes([high & 0x3f, *low]));
                jumps += 1;
                if target >= start || jumps > 127 {
                    return Err(wrong);
                }
                behind.get_or_insert(at + 2);
                (octets, at, start) = (bytes, target, target);
            }
            _ => return Err(wrong),
        }
        if name_len > LONGEST_NAME {
            return Err(wrong);
        }
    }
    cursor.at = behind.unwrap_or(at + 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use simple_dns::rdata::{A, AAAA, CNAME, RData};
    use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

    use super::*;
    use crate::wire::samples::octets;

    /// Query for www.Example.com A with an OPT record, as dig sends it.
    const QUERY: &str =
        "abcd 0120 0001 0000 0000 0001 03777777 074578616d706c65 03636f6d 00 0001 0001 000029 04d0 00000000 0000";
    /// Its answer: CNAME web.example.com (compressed), A 192.0.2.1 with a TTL of 300.
    const ANSWER: &str = "abcd 8180 0001 0002 0000 0000 03777777 076578616d706c65 03636f6d 00 0001 0001 \
        c00c 0005 0001 0000003c 0006 03776562 c010 \
        c02d 0001 0001 0000012c 0004 c0000201";
    /// SERVFAIL with extended rcode 16 (BADVERS) and extended error 22 (no reachable authority).
    const REFUSAL: &str = "0001 8182 0001 0000 0000 0001 0161 00 001c 0001 000029 04d0 01000000 0006 000f 0002 0016";

    #[test]
    fn a_query_is_read() {
        let query = parse(&octets(QUERY), false).expect("whole");
        assert_eq!((query.id, query.response, query.name.as_str(), query.qtype), (0xabcd, false, "www.example.com", 1));
        assert_eq!((query.rcode, query.answers, query.cut), (0, 0, false));
    }

    #[test]
    fn an_answer_is_read_with_its_aliases() {
        let answer = parse(&octets(ANSWER), false).expect("whole");
        assert_eq!(answer.addresses, [(Address::v4([192, 0, 2, 1]), 300)]);
        assert_eq!((&answer.aliases[..], answer.answers), (&["web.example.com".into()][..], 2));
    }

    #[test]
    fn extended_codes_are_read() {
        let refusal = parse(&octets(REFUSAL), false).expect("whole");
        assert_eq!((refusal.rcode, refusal.extended_error, refusal.qtype), (18, Some(22), 28));
    }

    #[test]
    fn every_truncation_is_short_unless_the_capture_cut_it() {
        let bytes = octets(ANSWER);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], false).map_err(|malformed| malformed.limit), Err(Limit::Slice), "{end}");
            let kept = parse(&bytes[..end], true);
            assert_eq!(kept.is_ok(), end >= 12, "{end}");
        }
        let kept = parse(&bytes[..bytes.len() - 1], true).expect("question and alias are whole");
        assert_eq!(
            (kept.name.as_str(), kept.aliases.len(), kept.addresses.len(), kept.cut),
            ("www.example.com", 1, 0, true)
        );
    }

    #[test]
    fn a_truncated_answer_is_read_as_far_as_it_goes() {
        let mut bytes = octets(ANSWER);
        bytes[2] |= 0x02;
        let answer = parse(&bytes[..bytes.len() - 2], false).expect("TC says that it ends early");
        assert!(answer.truncated && answer.addresses.is_empty());
    }

    #[test]
    fn pointers_that_lead_forward_or_round_are_refused() {
        for name in ["c00c", "c00e 00 00", "0161 c00c", "40 00"] {
            let bytes = octets(&format!("0001 0100 0001 0000 0000 0000 {name} 0001 0001"));
            assert_eq!(parse(&bytes, true).map_err(|malformed| malformed.what), Err("DNS name"), "{name}");
        }
    }

    #[test]
    fn dns_is_recognised_and_other_datagrams_are_not() {
        for message in [QUERY, ANSWER, REFUSAL] {
            assert!(looks_like_dns(&octets(message)), "{message}");
        }
        // A multicast announcement: no question, one answer of class IN with the cache-flush bit.
        assert!(looks_like_dns(&octets("0000 8400 0000 0001 0000 0000 0161 00 0001 8001 00000078 0004 c0000201")));
        for other in [
            "",
            "00000000000000000000000000000000000000000000",
            "ffffffffffffffffffffffffffffffffffffffffffff",
            // NTP version 4 client, SIP, QUIC initial, a query with octets behind its question.
            "230206200000000000000000000000000000000000000000",
            "5245474953544552207369703a612e6578616d706c6520534950",
            "c00000000108 8394c8f03e515708 0000449e7b9aec34d1b1c98dd7689fb8ec11",
            "0001 0100 0001 0000 0000 0000 0161 00 0001 0001 ff",
            "0001 0100 0001 0000 0000 0000 0161 00 0001 1234",
            "0001 0100 0001 0000 0000 0000 0101 00 0001 0001",
            "0001 1900 0001 0000 0000 0000 0161 00 0001 0001",
        ] {
            assert!(!looks_like_dns(&octets(other)), "{other}");
        }
    }

    #[test]
    fn messages_are_split_off_a_stream() {
        let query = octets(QUERY);
        let stream = [&(query.len() as u16).to_be_bytes()[..], &query, b"xx"].concat();
        assert_eq!(split_stream(&stream), Ok((&query[..], &b"xx"[..])));
        for end in 0..stream.len() - 2 {
            assert_eq!(split_stream(&stream[..end]).map_err(|malformed| malformed.limit), Err(Limit::Slice), "{end}");
        }
        assert!(split_stream(&[0, 11]).is_err());
    }

    proptest! {
        #[test]
        fn no_octets_panic(at: usize, to: u8, noise: Vec<u8>) {
            let mut bytes = octets(ANSWER);
            let at = at % bytes.len();
            bytes[at] = to;
            for bytes in [&bytes, &noise] {
                let _ = parse(bytes, true);
                let _ = parse(bytes, false);
                looks_like_dns(bytes);
            }
        }

        #[test]
        fn noise_is_no_dns(noise in prop::collection::vec(any::<u8>(), 12..64)) {
            prop_assert!(!looks_like_dns(&noise));
        }

        #[test]
        fn what_simple_dns_writes_reads_the_same(id: u16, host in "[a-z]{1,20}(\\.[a-z]{1,20}){0,3}", v4: u32, v6: u128, ttl: u32) {
            let name = Name::new_unchecked(&host);
            let mut packet = Packet::new_reply(id);
            packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
            packet.questions.push(Question::new(name.clone(), QTYPE::TYPE(TYPE::A), QCLASS::CLASS(CLASS::IN), false));
            let records = [
                RData::CNAME(CNAME(Name::new_unchecked("alias.example"))),
                RData::A(A { address: v4 }),
                RData::AAAA(AAAA { address: v6 }),
            ];
            for data in records {
                packet.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, ttl, data));
            }
            for bytes in [packet.build_bytes_vec(), packet.build_bytes_vec_compressed()] {
                let bytes = bytes.expect("short names");
                let message = parse(&bytes, false).expect("whole");
                prop_assert!(looks_like_dns(&bytes));
                prop_assert_eq!((message.id, message.name.as_str(), message.qtype), (id, host.as_str(), 1));
                let addresses = [(Address::v4(v4.to_be_bytes()), ttl), (Address::v6(v6.to_be_bytes()), ttl)];
                prop_assert_eq!(message.addresses, addresses);
                prop_assert_eq!(message.aliases, ["alias.example"]);
            }
        }
    }
}
