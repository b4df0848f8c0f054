//! What the first octets of a side say, for the protocols that have an analyzer.

use super::Sample;
use crate::event::{Protocol, Side};
use crate::wire::tls::{RecordHeader, content, looks_like_client_hello, looks_like_server_record, looks_like_sslv2_hello};
use crate::wire::{Recognition, http as wire_http};

/// TLS: a hello or alert at the beginning; in the middle of a stream a record whose end is the next record's beginning.
pub(super) fn tls(sample: &Sample<'_>) -> Recognition {
    let first = either(looks_like_client_hello(sample.bytes), looks_like_server_record(sample.bytes));
    match first {
        Recognition::No if sample.flow.mid_stream => middle_of_tls(sample.bytes),
        Recognition::No if sample.side == Side::Client => looks_like_sslv2_hello(sample.bytes),
        decided => decided,
    }
}

/// Two records in a row, or one that ends with what was sent.
fn middle_of_tls(bytes: &[u8]) -> Recognition {
    let plausible = |bytes: &[u8]| match RecordHeader::parse(bytes) {
        Ok(header) if header.content == content::APPLICATION_DATA && header.version == 0x0303 => Some(header),
        _ => None,
    };
    let Some(first) = plausible(bytes) else { return Recognition::No };
    let end = RecordHeader::LEN + usize::from(first.len);
    match bytes.get(end..) {
        None => Recognition::NeedMore,
        Some([]) => Recognition::Yes,
        Some(rest) if plausible(rest).is_some() => Recognition::Yes,
        Some(rest) if rest.len() < RecordHeader::LEN => Recognition::NeedMore,
        Some(_) => Recognition::No,
    }
}

/// HTTP/2 with prior knowledge.
pub(super) fn http2(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => wire_http::looks_like_preface(sample.bytes),
        Side::Server => Recognition::No,
    }
}

/// HTTP/1 in either direction.
pub(super) fn http(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => either(
            wire_http::looks_like_request(sample.bytes),
            if sample.flow.mid_stream { wire_http::looks_like_response(sample.bytes) } else { Recognition::No },
        ),
        Side::Server => either(
            wire_http::looks_like_response(sample.bytes),
            if sample.flow.mid_stream { wire_http::looks_like_request(sample.bytes) } else { Recognition::No },
        ),
    }
}

/// DNS behind its two octets of length; the port must say so too, for a length prefix is easily met by chance.
pub(super) fn dns_over_tcp(sample: &Sample<'_>) -> Recognition {
    if sample.flow.server.port != 53 && sample.flow.client.port != 53 {
        return Recognition::No;
    }
    let Some(&[a, b]) = sample.bytes.get(..2) else { return Recognition::NeedMore };
    match u16::from_be_bytes([a, b]) {
        0..12 => Recognition::No,
        _ => Recognition::Yes,
    }
}

fn either(a: Recognition, b: Recognition) -> Recognition {
    match (a, b) {
        (Recognition::Yes, _) | (_, Recognition::Yes) => Recognition::Yes,
        (Recognition::NeedMore, _) | (_, Recognition::NeedMore) => Recognition::NeedMore,
        _ => Recognition::No,
    }
}

/// Which side says such a thing; `None` where both do.
pub(super) fn said_by(protocol: Protocol, bytes: &[u8]) -> Option<Side> {
    match protocol {
        Protocol::Tls if looks_like_client_hello(bytes) == Recognition::Yes => Some(Side::Client),
        Protocol::Tls if bytes.get(5) == Some(&2) && bytes.first() == Some(&content::HANDSHAKE) => Some(Side::Server),
        Protocol::Http if wire_http::looks_like_response(bytes) == Recognition::Yes => Some(Side::Server),
        Protocol::Http | Protocol::Http2 => Some(Side::Client),
        _ => None,
    }
}
