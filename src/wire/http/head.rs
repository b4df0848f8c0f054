//! Request and response heads: read strictly first; what only a lenient reader accepts is kept together with the objection.

use std::mem::MaybeUninit;

use httparse::{Error, Header, ParserConfig, Request, Response, Status};

use super::fields::{Fields, Name};
use super::{Framing, Head, RequestHead, ResponseHead};
use crate::wire::fnv::Fnv;
use crate::wire::{ShortText, short_of, text_of};

/// Longest head that is read.
const LONGEST: usize = 128 * 1024;
/// Fields that fit on the stack: nearly every head.
const FEW_FIELDS: usize = 64;
/// Fields of the largest head that is read.
const MOST_FIELDS: usize = 512;

/// Fields that carry the id of a request through several hops.
const REQUEST_IDS: [Name; 12] = [
    Name::XRequestId,
    Name::XCorrelationId,
    Name::XUniqueId,
    Name::Traceparent,
    Name::XAmznTraceId,
    Name::XCloudTraceContext,
    Name::XB3Traceid,
    Name::B3,
    Name::UberTraceId,
    Name::XTraceId,
    Name::RequestId,
    Name::CfRay,
];
/// Octets that tell a request from all others.
pub const SHORTEST_ID: usize = 8;
/// Request ids kept of one head.
const MOST_IDS: usize = 8;

/// Reads a request head at the start of `bytes`; what follows it is not looked at.
pub fn parse_request(bytes: &[u8]) -> Head<RequestHead> {
    let lenient = || {
        let mut lenient = ParserConfig::default();
        lenient
            .allow_multiple_spaces_in_request_line_delimiters(true)
            .allow_space_before_first_header_name(true)
            .ignore_invalid_headers_in_requests(true);
        lenient
    };
    parse(bytes, lenient, read_request, |head, objection| head.objection = Some(objection.into()))
}

/// Reads a response head at the start of `bytes`; what follows it is not looked at.
pub fn parse_response(bytes: &[u8]) -> Head<ResponseHead> {
    let lenient = || {
        let mut lenient = ParserConfig::default();
        lenient
            .allow_multiple_spaces_in_response_status_delimiters(true)
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_space_before_first_header_name(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true);
        lenient
    };
    parse(bytes, lenient, read_response, |head, objection| head.objection = Some(objection.into()))
}

/// A reader of one kind of head: `None` while octets are missing.
type Read<T> = for<'b> fn(&ParserConfig, &'b [u8], &mut [MaybeUninit<Header<'b>>]) -> Result<Option<Box<T>>, Error>;

fn parse<T>(bytes: &[u8], lenient: fn() -> ParserConfig, read: Read<T>, object: fn(&mut T, String)) -> Head<T> {
    let window = bytes.get(..LONGEST).unwrap_or(bytes);
    match with_room(window, &ParserConfig::default(), read) {
        Ok(Some(head)) => Head::Complete(head),
        result => unusual(window, result, lenient, read, object),
    }
}

/// The strict reading did not find a whole head.
#[cold]
fn unusual<T>(
    window: &[u8],
    strict: Result<Option<Box<T>>, Error>,
    lenient: fn() -> ParserConfig,
    read: Read<T>,
    object: fn(&mut T, String),
) -> Head<T> {
    let (result, objection) = match strict {
        Err(Error::TooManyHeaders) => return Head::Broken("more than 512 header fields"),
        Err(Error::Version) if let Some(known) = as_minor_1(window) => return parse(&known, lenient, read, object),
        Err(strict) => (with_room(window, &lenient(), read), Some(strict.to_string())),
        result => (result, None),
    };
    match result {
        Ok(Some(mut head)) => {
            if let Some(objection) = objection {
                object(&mut head, objection);
            }
            Head::Complete(head)
        }
        Ok(None) if window.len() >= LONGEST => Head::Broken("the head is longer than 128 KiB"),
        Ok(None) => Head::Partial,
        Err(error) => Head::Broken(reason(error)),
    }
}

/// The head with HTTP/1.1 in its first line, where that line names HTTP/1.2 or higher: what a recipient takes it for (RFC 9110 §2.5, §6.2).
fn as_minor_1(window: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"HTTP/1.";
    let line = window.split(|octet| *octet == b'\n').next()?.trim_ascii_end();
    let at = if line.starts_with(NAME) { NAME.len() } else { line.len().checked_sub(1)? };
    let named = line.get(..at)?.ends_with(NAME) && line.get(at + 1).is_none_or(|octet| *octet == b' ');
    let mut known = window.to_vec();
    let minor = known.get_mut(at).filter(|minor| named && (b'2'..=b'9').contains(minor))?;
    *minor = b'1';
    Some(known)
}

/// Reads with room for few fields, and again with room for many when that is not enough.
fn with_room<T>(bytes: &[u8], config: &ParserConfig, read: Read<T>) -> Result<Option<Box<T>>, Error> {
    match read(config, bytes, &mut [const { MaybeUninit::uninit() }; FEW_FIELDS]) {
        Err(Error::TooManyHeaders) => with_much_room(bytes, config, read),
        result => result,
    }
}

#[cold]
#[inline(never)]
fn with_much_room<T>(bytes: &[u8], config: &ParserConfig, read: Read<T>) -> Result<Option<Box<T>>, Error> {
    read(config, bytes, &mut [const { MaybeUninit::uninit() }; MOST_FIELDS])
}

fn reason(error: Error) -> &'static str {
    match error {
        Error::HeaderName => "invalid header name",
        Error::HeaderValue => "invalid header value",
        Error::NewLine => "invalid line end",
        Error::Status => "invalid status code",
        Error::Token => "invalid octet in the first line",
        Error::TooManyHeaders => "more than 512 header fields",
        Error::Version => "no HTTP/1 version in the first line",
    }
}

fn read_request<'b>(
    config: &ParserConfig,
    bytes: &'b [u8],
    room: &mut [MaybeUninit<Header<'b>>],
) -> Result<Option<Box<RequestHead>>, Error> {
    let mut request = Request::new(&mut []);
    let Status::Complete(len) = config.parse_request_with_uninit_headers(&mut request, bytes, room)? else {
        return Ok(None);
    };
    let fields = Fields::of(request.headers);
    let mut head = Box::<RequestHead>::default();
    head.method = short_of(request.method.unwrap_or_default(), 32);
    head.target = short_of(request.path.unwrap_or_default(), 256);
    head.minor = request.version.unwrap_or(0);
    head.host = text(&fields, Name::Host, 255);
    head.expects_continue = fields.lists(Name::Expect, "100-continue");
    head.upgrade = text(&fields, Name::Upgrade, 64);
    head.len = len as u32;
    (head.framing, head.conflict) = fields.framing(Framing::None);
    request_fields(&fields, &mut head);
    Ok(Some(head))
}

fn read_response<'b>(
    config: &ParserConfig,
    bytes: &'b [u8],
    room: &mut [MaybeUninit<Header<'b>>],
) -> Result<Option<Box<ResponseHead>>, Error> {
    let mut response = Response::new(&mut []);
    let Status::Complete(len) = config.parse_response_with_uninit_headers(&mut response, bytes, room)? else {
        return Ok(None);
    };
    let fields = Fields::of(response.headers);
    let minor = response.version.unwrap_or(0);
    let mut head = Box::<ResponseHead>::default();
    head.status = response.code.unwrap_or(0);
    head.reason = short_of(response.reason.unwrap_or_default(), 64);
    head.minor = minor;
    head.closes =
        fields.lists(Name::Connection, "close") || (minor == 0 && !fields.lists(Name::Connection, "keep-alive"));
    head.len = len as u32;
    (head.framing, head.conflict) = fields.framing(Framing::UntilClose);
    response_fields(&fields, &mut head);
    Ok(Some(head))
}

/// What the fields of a request say in any version of HTTP.
pub(super) fn request_fields(fields: &Fields<'_>, head: &mut RequestHead) {
    head.user_agent = text(fields, Name::UserAgent, 80);
    head.forwarded = forwarded(fields);
    head.ids = ids(fields);
    head.accepts_events = fields.lists(Name::Accept, "text/event-stream");
}

/// What the fields of a response say in any version of HTTP.
pub(super) fn response_fields(fields: &Fields<'_>, head: &mut ResponseHead) {
    head.server = text(fields, Name::Server, 64);
    head.content_type = text(fields, Name::ContentType, 64);
    head.location = text(fields, Name::Location, 128);
    head.retry_after = text(fields, Name::RetryAfter, 64);
    head.via = text(fields, Name::Via, 128);
    head.ids = ids(fields);
    head.identity = identity(fields);
}

pub(super) fn text(fields: &Fields<'_>, name: Name, most: usize) -> Option<ShortText> {
    fields.first(name).map(|value| text_of(value, most))
}

/// Who the nearest proxy says the client is: the last entry of each field, because earlier ones may be the client's invention.
fn forwarded(fields: &Fields<'_>) -> Vec<(ShortText, ShortText)> {
    use Name::{CfConnectingIp, Forwarded, TrueClientIp, XForwardedFor, XRealIp};
    const NAMES: u64 = Name::bits(&[XForwardedFor, Forwarded, XRealIp, TrueClientIp, CfConnectingIp]);
    if fields.among(NAMES) == 0 {
        return Vec::new();
    }
    let list = fields.entries(XForwardedFor).last().map(|entry| (XForwardedFor, entry));
    let standard = fields.entries(Forwarded).last().and_then(forwarded_for).map(|node| (Forwarded, node));
    let single = |name| fields.first(name).map(|value| (name, value));
    [list, standard, single(XRealIp), single(TrueClientIp), single(CfConnectingIp)]
        .into_iter()
        .flatten()
        .map(|(name, value)| (ShortText::const_new(name.text()), text_of(value, 64)))
        .collect()
}

/// The `for` parameter of one element of Forwarded, without quotes. RFC 7239 §4.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|octet| *octet == b';').find_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(4)?;
        let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        name.eq_ignore_ascii_case(b"for=").then_some(bare)
    })
}

/// A hash of the field that names the answer, its name first, and of the length of the body.
fn identity(fields: &Fields<'_>) -> u64 {
    let names = [Name::ETag, Name::LastModified, Name::Date];
    let Some((name, value)) = names.into_iter().find_map(|name| Some((name, fields.first(name)?))) else { return 0 };
    let length = fields.first(Name::ContentLength).unwrap_or(b"");
    let mut hash = Fnv::default();
    [name.text().as_bytes(), value, b"\0", length].into_iter().for_each(|piece| hash.push(piece));
    hash.key()
}

/// Ids without what changes from hop to hop: of `traceparent` and `b3` only the trace's own part counts. Very short ones are no ids.
pub fn request_ids(list: &[(ShortText, ShortText)]) -> impl Iterator<Item = &str> {
    list.iter().filter_map(|(name, value)| {
        let id = match name.as_str() {
            "traceparent" => value.split('-').nth(1)?,
            "b3" => value.split('-').next()?,
            "uber-trace-id" => value.split(':').next()?,
            "x-amzn-trace-id" => value.split(';').find_map(|part| part.trim().strip_prefix("Root="))?,
            "x-cloud-trace-context" => value.split('/').next()?,
            _ => value,
        };
        (id.len() >= SHORTEST_ID).then_some(id)
    })
}

fn ids(fields: &Fields<'_>) -> Vec<(ShortText, ShortText)> {
    let count = fields.among(const { Name::bits(&REQUEST_IDS) }).count_ones() as usize;
    if count == 0 {
        return Vec::new();
    }
    let mut list = Vec::with_capacity(count.min(MOST_IDS));
    let found = REQUEST_IDS.iter().filter_map(|name| Some((*name, fields.first(*name)?)));
    list.extend(found.take(MOST_IDS).map(|(name, value)| (ShortText::const_new(name.text()), text_of(value, 64))));
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::http::Conflict;
    use crate::wire::samples::{self, octets};

    fn request(text: &[u8]) -> RequestHead {
        match parse_request(text) {
            Head::Complete(head) => *head,
            other => panic!("{other:?}"),
        }
    }

    fn response(text: &[u8]) -> ResponseHead {
        match parse_response(text) {
            Head::Complete(head) => *head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_recorded_request_is_read_and_its_body_left_alone() {
        let bytes = octets(samples::HTTP_REQUEST);
        let head = request(&bytes);
        assert_eq!((head.method.as_str(), head.target.as_str(), head.minor), ("POST", "/", 1));
        assert_eq!((head.host.as_deref(), head.user_agent.as_deref()), (Some("10.99.1.1:1098"), Some("curl/7.88.1")));
        assert_eq!((head.len as usize, head.framing, head.conflict), (bytes.len(), Framing::Length(3_000_000), None));
        assert_eq!(head.objection, None);
        for end in 0..bytes.len() {
            assert_eq!(parse_request(&bytes[..end]), Head::Partial, "{end}");
        }
    }

    #[test]
    fn recorded_responses_are_read() {
        let bytes = octets(samples::HTTP_413);
        let head = response(&bytes);
        assert_eq!((head.status, head.reason.as_str(), head.closes), (413, "Request Entity Too Large", true));
        assert_eq!((head.server.as_deref(), head.content_type.as_deref()), (Some("nginx/1.22.1"), Some("text/html")));
        assert_eq!(head.framing, Framing::Length(u64::from(bytes.len() as u32 - head.len)));
        for end in 0..head.len as usize {
            assert_eq!(parse_response(&bytes[..end]), Head::Partial, "{end}");
        }
        assert_eq!(response(&octets(samples::HTTP_400)).status, 400);
    }

    #[test]
    fn what_proxies_add_is_kept() {
        let head = request(
            b"GET / HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\nForwarded: for=a, proto=https;For=\"[2001:db8::1]:47\"\r\n\
              X-Real-IP: 192.0.2.1\r\nX-Request-ID: abc\r\nTraceparent: 00-1-2-01\r\nUpgrade: websocket\r\n\
              Accept: text/html, text/event-stream;q=0.9\r\nExpect: 100-Continue\r\n\r\n",
        );
        let pairs = |list: &[(ShortText, ShortText)]| {
            list.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(
            pairs(&head.forwarded),
            ["x-forwarded-for=192.0.2.1", "forwarded=[2001:db8::1]:47", "x-real-ip=192.0.2.1"]
        );
        assert_eq!(pairs(&head.ids), ["x-request-id=abc", "traceparent=00-1-2-01"]);
        assert!(head.accepts_events && head.expects_continue);
        assert_eq!((head.upgrade.as_deref(), head.framing), (Some("websocket"), Framing::None));
    }

    #[test]
    fn an_answer_passed_on_keeps_its_identity() {
        let of = |fields: &str| response(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes()).identity;
        let one = of("ETag: \"a\"\r\nDate: x\r\nContent-Length: 3\r\n");
        assert_eq!(one, of("content-length: 3\r\nVia: 1.1 proxy\r\netag: \"a\"\r\ndate: y\r\n"));
        assert_ne!(one, of("ETag: \"b\"\r\nContent-Length: 3\r\n"));
        assert_eq!(of("Server: x\r\n"), 0);
        let head = response(b"HTTP/1.1 200 OK\r\nX-Request-ID: abc\r\n\r\n");
        assert_eq!(head.ids, [("x-request-id".into(), "abc".into())]);
    }

    #[test]
    fn the_end_of_a_request_follows_the_rules() {
        for (fields, framing, conflict) in [
            ("", Framing::None, None),
            ("Content-Length: 0\r\n", Framing::Length(0), None),
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Framing::Length(5), None),
            ("Content-Length: 5, 5\r\n", Framing::Length(5), None),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", Framing::Length(5), Some(Conflict::Lengths)),
            ("Content-Length: +5\r\n", Framing::None, Some(Conflict::Length)),
            ("Content-Length:\r\n", Framing::None, Some(Conflict::Length)),
            ("Content-Length: 99999999999999999999\r\n", Framing::None, Some(Conflict::Length)),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked, None),
            ("Transfer-Encoding: gzip, Chunked\r\n", Framing::Chunked, None),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Framing::Chunked, Some(Conflict::LengthAndCoding)),
            ("Transfer-Encoding: chunked, gzip\r\n", Framing::None, Some(Conflict::Coding)),
        ] {
            let head = request(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes());
            assert_eq!((head.framing, head.conflict), (framing, conflict), "{fields}");
        }
    }

    #[test]
    fn the_end_of_a_response_depends_on_what_was_asked() {
        let head = response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(head.framing_after("GET"), Framing::Length(5));
        assert_eq!(head.framing_after("HEAD"), Framing::None);
        assert_eq!(head.framing_after("CONNECT"), Framing::None);
        let head = response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(head.framing_after("GET"), Framing::None);
        let head = response(b"HTTP/1.1 200 OK\r\n\r\n");
        assert_eq!((head.framing_after("GET"), head.conflict), (Framing::UntilClose, None));
    }

    #[test]
    fn who_closes_is_read_from_version_and_fields() {
        for (text, closes) in [
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: Upgrade, Close\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        ] {
            assert_eq!(response(text.as_bytes()).closes, closes, "{text}");
        }
    }

    #[test]
    fn what_only_a_lenient_reader_accepts_comes_with_the_objection() {
        let head = request(b"GET / HTTP/1.1\r\nHost : a\r\nX: y\r\n\r\n");
        assert_eq!(head.objection.as_deref(), Some("invalid header name"));
        let head = response(b"HTTP/1.1 200 OK\r\nServer: a\r\n  b\r\n\r\n");
        assert_eq!((head.objection.is_some(), head.status), (true, 200));
    }

    #[test]
    fn what_is_no_head_says_why() {
        assert_eq!(request(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n").minor, 1, "RFC 9112 §2.3: a digit, whichever");
        assert_eq!(response(b"HTTP/1.9 200 OK\r\n\r\n").minor, 1);
        assert_eq!(parse_response(b"HTTP/1.22 200 OK\r\n\r\n"), Head::Broken("no HTTP/1 version in the first line"));
        assert_eq!(parse_request(b"GET / HTTP/2.0\r\n\r\n"), Head::Broken("no HTTP/1 version in the first line"));
        assert_eq!(parse_request(b"\x16\x03\x01\x02\x00"), Head::Broken("invalid octet in the first line"));
        assert_eq!(parse_response(b"HTTP/1.1 2x0 OK\r\n\r\n"), Head::Broken("invalid status code"));
    }

    #[test]
    fn many_fields_are_read_and_too_many_refused() {
        let head =
            |n: usize| [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(n), b"Host: h\r\n\r\n".to_vec()].concat();
        assert_eq!(request(&head(500)).host.as_deref(), Some("h"));
        assert_eq!(parse_request(&head(512)), Head::Broken("more than 512 header fields"));
        let endless = [b"GET / HTTP/1.1\r\na: ".to_vec(), vec![b'x'; LONGEST]].concat();
        assert_eq!(parse_request(&endless), Head::Broken("the head is longer than 128 KiB"));
    }

    proptest! {
        #[test]
        fn no_octets_panic(at: usize, to: u8, noise: Vec<u8>) {
            for sample in [samples::HTTP_REQUEST, samples::HTTP_413] {
                let mut bytes = octets(sample);
                let at = at % bytes.len();
                bytes[at] = to;
                parse_request(&bytes);
                parse_response(&bytes);
            }
            parse_request(&noise);
            parse_response(&[b"HTTP/1.1 200 ", &noise[..]].concat());
        }
    }
}
