//! Heads of HTTP/2 from the fields of their header blocks. RFC 9113 §8.3; the gRPC fields: "gRPC over HTTP2" of the gRPC project.

use httparse::Header;

use super::fields::{Fields, Name};
use super::head::{request_fields, response_fields, text};
use super::{Framing, RequestHead, ResponseHead};
use crate::time::Elapsed;
use crate::wire::hpack::Field;
use crate::wire::text_of;

/// The fields as HTTP/1 has them; names that are no text are left out.
fn plain(fields: &[Field]) -> Vec<Header<'_>> {
    let named = fields.iter().filter_map(|field| Some((std::str::from_utf8(&field.name).ok()?, &field.value[..])));
    named.map(|(name, value)| Header { name, value }).collect()
}

/// The head of a request of `len` octets on a stream. What a table entry hides that was never seen is named by its index (`?62`).
pub fn request_of(stream: u32, fields: &[Field], len: u32) -> RequestHead {
    let headers = plain(fields);
    let fields = Fields::of(&headers);
    // The entry that is not known may be any field: the first one stands for what is missing.
    let hidden = || headers.iter().find(|header| header.name.starts_with('?')).map_or("?", |header| header.name);
    let pseudo = |name, most| text(&fields, name, most).unwrap_or_else(|| hidden().into());
    let method = pseudo(Name::PseudoMethod, 32);
    // CONNECT has no path (§8.5).
    let target = if method == "CONNECT" { Name::PseudoAuthority } else { Name::PseudoPath };
    let mut head = RequestHead {
        target: pseudo(target, 256),
        method,
        minor: 0,
        host: text(&fields, Name::PseudoAuthority, 255).or_else(|| text(&fields, Name::Host, 255)),
        // Extended CONNECT (RFC 8441): WebSocket.
        upgrade: text(&fields, Name::PseudoProtocol, 64),
        len,
        stream,
        grpc: is_grpc(fields.first(Name::ContentType)),
        patience: fields.first(Name::GrpcTimeout).and_then(patience),
        ..RequestHead::default()
    };
    request_fields(&fields, &mut head);
    head
}

/// The head of a response of `len` octets on a stream; status 0 where the field was never seen.
pub fn response_of(stream: u32, fields: &[Field], len: u32) -> ResponseHead {
    let headers = plain(fields);
    let fields = Fields::of(&headers);
    let mut head = ResponseHead {
        status: number(fields.first(Name::PseudoStatus).unwrap_or_default()).unwrap_or(0) as u16,
        framing: Framing::UntilClose,
        len,
        stream,
        ..ResponseHead::default()
    };
    response_fields(&fields, &mut head);
    head
}

/// Status and message of a gRPC call, where the block has them: in the trailers, or in the head when there is no body.
pub fn grpc_status(fields: &[Field]) -> Option<(u32, String)> {
    let headers = plain(fields);
    let fields = Fields::of(&headers);
    let status = number(fields.first(Name::GrpcStatus)?)?;
    Some((status, text_of(&unescaped(fields.first(Name::GrpcMessage).unwrap_or_default()), 160).into()))
}

/// `application/grpc`, with what may follow it; not gRPC-Web, whose status is in the body.
pub fn is_grpc(content_type: Option<&[u8]>) -> bool {
    content_type
        .and_then(|value| value.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// `grpc-timeout`: at most eight digits and a unit. `None` also for more than can be waited for.
fn patience(value: &[u8]) -> Option<Elapsed> {
    let (unit, digits) = value.split_last()?;
    let count = i64::from(number(digits)?);
    let nanos = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Elapsed(count.checked_mul(nanos)?))
}

fn number(digits: &[u8]) -> Option<u32> {
    let plain = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    if plain { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

/// Octets written as `%` and two hex digits; what is no such is taken as it is.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |octet: &u8| (*octet as char).to_digit(16);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = match behind {
            [high, low, ..] if *first == b'%' => digit(high).zip(digit(low)),
            _ => None,
        };
        match escaped {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Vec<Field> {
        let text = |text: &str| text.as_bytes().to_vec().into();
        list.iter().map(|(name, value)| Field { name: text(name), value: text(value) }).collect()
    }

    #[test]
    fn a_grpc_request_is_read_with_its_deadline() {
        let list = [
            (":method", "POST"),
            (":path", "/shop.Cart/Add"),
            (":authority", "cart:50051"),
            ("content-type", "application/grpc+proto"),
            ("grpc-timeout", "1500m"),
        ];
        let head = request_of(5, &fields(&list), 90);
        assert_eq!((head.method.as_str(), head.target.as_str(), head.stream), ("POST", "/shop.Cart/Add", 5));
        assert_eq!((head.host.as_deref(), head.grpc), (Some("cart:50051"), true));
        assert_eq!(head.patience, Some(Elapsed::millis(1500)));
        assert_eq!((patience(b"90H"), patience(b"99999999H")), (Some(Elapsed::secs(324_000)), None));
        assert_eq!((patience(b""), patience(b"S"), patience(b"12"), patience(b"-1S")), (None, None, None, None));
    }

    #[test]
    fn what_is_not_known_is_named_by_its_index() {
        let head = request_of(7, &fields(&[(":method", "GET"), ("?63", "?63"), ("?62", "?62")]), 3);
        assert_eq!((head.method.as_str(), head.target.as_str(), head.host), ("GET", "?63", None));
        assert_eq!(request_of(7, &[], 0).target, "?");
        assert_eq!(response_of(7, &fields(&[("?62", "?62")]), 1).status, 0);
    }

    #[test]
    fn the_status_of_a_call_is_read_with_its_words() {
        let list = [(":status", "200"), ("grpc-status", "14"), ("grpc-message", "no%20route%C3%A9 100%")];
        assert_eq!(grpc_status(&fields(&list)), Some((14, "no routeé 100%".into())));
        assert_eq!(grpc_status(&fields(&[("grpc-status", "x")])), None);
        assert_eq!(grpc_status(&fields(&[(":status", "200")])), None);
        assert!(is_grpc(Some(b"application/grpc")) && is_grpc(Some(b"application/grpc;charset=utf-8")));
        assert!(!is_grpc(Some(b"application/grpc-web+proto")) && !is_grpc(Some(b"text/html")) && !is_grpc(None));
    }
}
