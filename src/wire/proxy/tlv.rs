//! Type-length-values of version 2 and what the registered ones say. proxy-protocol.txt §2.2.1 to §2.2.8.

use serde::{Deserialize, Serialize};

use super::ProxyHeader;
use crate::wire::Cursor;

/// PP2_TYPE_ALPN
pub(super) const ALPN: u8 = 0x01;
/// PP2_TYPE_AUTHORITY
pub(super) const AUTHORITY: u8 = 0x02;
/// PP2_TYPE_CRC32C
pub(super) const CRC32C: u8 = 0x03;
/// PP2_TYPE_UNIQUE_ID
pub(super) const UNIQUE_ID: u8 = 0x05;
/// PP2_TYPE_SSL
pub(super) const SSL: u8 = 0x20;
/// PP2_SUBTYPE_SSL_VERSION
const SSL_VERSION: u8 = 0x21;
/// PP2_SUBTYPE_SSL_CN
const SSL_COMMON_NAME: u8 = 0x22;
/// PP2_SUBTYPE_SSL_CIPHER
const SSL_CIPHER: u8 = 0x23;
/// PP2_TYPE_NETNS
const NETNS: u8 = 0x30;
/// PP2_TYPE_AWS, whose subtype 0x01 is the id of a VPC endpoint.
const AWS: u8 = 0xea;

/// TLVs kept of one header.
const MOST: usize = 64;
/// Octets kept of one value.
const LONGEST: usize = 256;

/// One type-length-value of a version 2 header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tlv {
    /// Type octet (§2.2.x: 0x01 ALPN, 0x02 AUTHORITY, 0x03 CRC32C, 0x04 NOOP, 0x05 UNIQUE_ID, 0x20 SSL, 0x30 NETNS).
    pub kind: u8,
    /// True length of the value.
    pub len: u16,
    /// The first octets of the value.
    pub value: Vec<u8>,
}

/// What the SSL TLV says of the client's TLS connection to the proxy. §2.2.6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SslInfo {
    /// PP2_CLIENT_SSL: the client came over TLS.
    pub over_tls: bool,
    /// It showed a certificate on this connection or in this session.
    pub has_certificate: bool,
    /// The certificate was shown and verified.
    pub verified: bool,
    /// Version as text, for example `TLSv1.3`.
    pub version: Option<String>,
    /// Cipher suite as text.
    pub cipher: Option<String>,
    /// Common name of the client's certificate.
    pub common_name: Option<String>,
}

impl ProxyHeader {
    /// The first TLV of that type.
    pub fn tlv(&self, kind: u8) -> Option<&Tlv> {
        self.tlvs.iter().find(|tlv| tlv.kind == kind)
    }

    /// Application protocol the client negotiated with the proxy. §2.2.1.
    pub fn alpn(&self) -> Option<&str> {
        self.text(ALPN)
    }

    /// Host name the client asked for, usually the SNI. §2.2.2.
    pub fn authority(&self) -> Option<&str> {
        self.text(AUTHORITY)
    }

    /// The sender's opaque id of the connection, at most 128 octets. §2.2.5.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.tlv(UNIQUE_ID).map(|tlv| tlv.value.as_slice())
    }

    /// Name of the network namespace. §2.2.8.
    pub fn namespace(&self) -> Option<&str> {
        self.text(NETNS)
    }

    /// Id of the VPC endpoint that AWS network load balancers tell, `vpce-…`.
    pub fn vpc_endpoint(&self) -> Option<&str> {
        let (subtype, id) = self.tlv(AWS)?.value.split_first()?;
        if *subtype == 0x01 { std::str::from_utf8(id).ok() } else { None }
    }

    /// The SSL TLV, opened. `None` without one, or when it is shorter than its fixed part.
    pub fn ssl(&self) -> Option<SslInfo> {
        let mut cursor = Cursor::new(&self.tlv(SSL)?.value);
        let client = cursor.u8("client").ok()?;
        let verify = cursor.u32("verify").ok()?;
        let mut info = SslInfo {
            over_tls: client & 0x01 != 0,
            has_certificate: client & 0x06 != 0,
            verified: client & 0x06 != 0 && verify == 0,
            ..SslInfo::default()
        };
        while let Some((kind, value)) = next(&mut cursor) {
            let text = || std::str::from_utf8(value).ok().map(str::to_owned);
            match kind {
                SSL_VERSION => info.version = text(),
                SSL_CIPHER => info.cipher = text(),
                SSL_COMMON_NAME => info.common_name = text(),
                _ => {}
            }
        }
        Some(info)
    }

    fn text(&self, kind: u8) -> Option<&str> {
        std::str::from_utf8(&self.tlv(kind)?.value).ok()
    }
}

/// What a walk over the TLVs of a header found.
pub(super) struct Walked<'a> {
    /// The TLVs, bounded.
    pub tlvs: Vec<Tlv>,
    /// Value of the CRC32C TLV and its offset in the walked octets.
    pub checksum: Option<(usize, &'a [u8])>,
    /// The last one runs past the end.
    pub overrun: bool,
}

/// Reads the TLVs that fill `bytes`.
pub(super) fn walk(bytes: &[u8]) -> Walked<'_> {
    let mut cursor = Cursor::new(bytes);
    let mut walked = Walked { tlvs: Vec::new(), checksum: None, overrun: false };
    while let Some((kind, value)) = next(&mut cursor) {
        if kind == CRC32C && walked.checksum.is_none() {
            walked.checksum = Some((cursor.position() - value.len(), value));
        }
        if walked.tlvs.len() < MOST {
            let kept = value.get(..LONGEST).unwrap_or(value);
            walked.tlvs.push(Tlv { kind, len: value.len() as u16, value: kept.to_vec() });
        }
    }
    walked.overrun = cursor.remaining() > 0;
    walked
}

/// The next type and value; `None` at the end and, with the cursor left where it was, for one that does not fit.
fn next<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let mut ahead = *cursor;
    let kind = ahead.u8("TLV type").ok()?;
    let len = ahead.u16("TLV length").ok()?;
    let value = ahead.take(usize::from(len), "TLV value").ok()?;
    *cursor = ahead;
    Some((kind, value))
}
