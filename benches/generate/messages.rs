//! What the flows carry: TLS records and hellos, HTTP/1 heads, DNS messages, a PROXY header.

use super::Random;

/// Names that are asked for, as SNI, Host or query.
pub(super) fn name(random: &mut Random) -> String {
    format!("shop-{:03}.example.com", random.below(200))
}

/// One TLS record. RFC 8446 §5.1: type, legacy version, length, body.
fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(5 + body.len());
    record.extend_from_slice(&[kind, 3, 3]);
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}

/// An encrypted record of `len` octets after its header.
pub(super) fn application(len: u64, random: &mut Random) -> Vec<u8> {
    // Nobody can read ciphertext: a short random pattern is as good as any.
    let pattern: [[u8; 8]; 8] = std::array::from_fn(|_| random.next().to_le_bytes());
    let mut body = pattern.as_flattened().repeat((len as usize).div_ceil(64));
    body.truncate(len as usize);
    record(0x17, &body)
}

/// ChangeCipherSpec for middleboxes, RFC 8446 §D.4.
pub(super) const CHANGE_CIPHER_SPEC: &[u8] = b"\x14\x03\x03\0\x01\x01";

fn random_octets<const N: usize>(random: &mut Random) -> [u8; N] {
    std::array::from_fn(|_| random.below(256) as u8)
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0];
    message.extend_from_slice(&(body.len() as u16).to_be_bytes());
    message.extend_from_slice(body);
    record(0x16, &message)
}

fn extension(extensions: &mut Vec<u8>, kind: u16, body: &[u8]) {
    extensions.extend_from_slice(&kind.to_be_bytes());
    extensions.extend_from_slice(&(body.len() as u16).to_be_bytes());
    extensions.extend_from_slice(body);
}

/// A ClientHello of TLS 1.3 as OpenSSL words it, padded to 517 octets as most browsers do (RFC 7685).
pub(super) fn client_hello(name: &str, random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&random_octets::<32>(random));
    body.push(32);
    body.extend_from_slice(&random_octets::<32>(random));
    body.extend_from_slice(b"\0\x08\x13\x02\x13\x03\x13\x01\xc0\x2f\x01\0");
    let mut server_name = (name.len() as u16 + 3).to_be_bytes().to_vec();
    server_name.push(0);
    server_name.extend_from_slice(&(name.len() as u16).to_be_bytes());
    server_name.extend_from_slice(name.as_bytes());
    let mut key_share = b"\0\x24\0\x1d\0\x20".to_vec();
    key_share.extend_from_slice(&random_octets::<32>(random));
    let mut extensions = Vec::with_capacity(512);
    extension(&mut extensions, 0, &server_name);
    extension(&mut extensions, 10, b"\0\x04\0\x1d\0\x17");
    extension(&mut extensions, 13, b"\0\x06\x04\x03\x08\x04\x04\x01");
    extension(&mut extensions, 16, b"\0\x0c\x02h2\x08http/1.1");
    extension(&mut extensions, 43, b"\x04\x03\x04\x03\x03");
    extension(&mut extensions, 45, b"\x01\x01");
    extension(&mut extensions, 51, &key_share);
    let padding = 517 - 5 - 4 - body.len() - 2 - extensions.len() - 4;
    extension(&mut extensions, 21, &vec![0; padding]);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    handshake(1, &body)
}

/// The server's first flight: ServerHello, ChangeCipherSpec, and the encrypted certificate in one record.
pub(super) fn server_flight(random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend_from_slice(&random_octets::<32>(random));
    body.push(32);
    body.extend_from_slice(&random_octets::<32>(random));
    body.extend_from_slice(b"\x13\x01\0");
    let mut key_share = b"\0\x1d\0\x20".to_vec();
    key_share.extend_from_slice(&random_octets::<32>(random));
    let mut extensions = Vec::with_capacity(64);
    extension(&mut extensions, 43, b"\x03\x04");
    extension(&mut extensions, 51, &key_share);
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut flight = handshake(2, &body);
    flight.extend_from_slice(CHANGE_CIPHER_SPEC);
    flight.extend_from_slice(&application(1_900 + random.below(900), random));
    flight
}

/// A GET request.
pub(super) fn request(name: &str, random: &mut Random) -> Vec<u8> {
    format!(
        "GET /items/{} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: generator/1.0\r\nAccept: */*\r\n\r\n",
        random.below(100_000)
    )
    .into_bytes()
}

/// A whole answer whose body has `len` octets.
pub(super) fn answer(len: u64) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: generator\r\nContent-Type: application/octet-stream\r\nContent-Length: {len}\r\n\r\n"
    )
    .into_bytes();
    answer.resize(answer.len() + len as usize, b'x');
    answer
}

/// The head of an answer whose events come when they come.
pub(super) const EVENT_STREAM: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A query for the A records of a name. RFC 1035 §4.1.
pub(super) fn query(name: &str, random: &mut Random) -> Vec<u8> {
    let mut query = (random.next() as u16).to_be_bytes().to_vec();
    query.extend_from_slice(b"\x01\0\0\x01\0\0\0\0\0\0");
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(b"\0\0\x01\0\x01");
    query
}

/// Its answer: one address.
pub(super) fn answer_of(query: &[u8], address: u32) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
    answer.extend_from_slice(b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04");
    answer.extend_from_slice(&address.to_be_bytes());
    answer
}

/// A PROXY header, version 2: TCP over IPv4.
pub(super) fn proxy_header(random: &mut Random) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&[203, 0, 113, random.below(250) as u8, 192, 168, 0, 1, 0xcf, 0x0a, 0x01, 0xbb]);
    header
}
