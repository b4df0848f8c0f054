//! TLS: the record layer, handshake messages across records, and what the hellos, certificates and alerts say.
//!
//! RFC 8446 (1.3), RFC 5246 (1.2). Complete handshake messages are read by `tls-parser`, certificates by `x509-parser`; the record layer
//! and the putting together of handshake messages are our own, because a hello may be split over records (§5.1).

mod certificate;
mod hello;
mod record;

use serde::{Deserialize, Serialize};

use super::ShortText;
use crate::time::Timestamp;

pub use certificate::parse_certificates;
pub use hello::{parse_client_hello, parse_server_hello};
pub use record::{
    HandshakeJoiner, HandshakeMessage, RecordHeader, looks_like_client_hello, looks_like_server_record,
    looks_like_sslv2_hello, parse_alert,
};

/// The record types of RFC 8446 §5.1.
pub mod content {
    /// change_cipher_spec
    pub const CHANGE_CIPHER_SPEC: u8 = 0x14;
    /// alert
    pub const ALERT: u8 = 0x15;
    /// handshake
    pub const HANDSHAKE: u8 = 0x16;
    /// application_data
    pub const APPLICATION_DATA: u8 = 0x17;
    /// heartbeat (RFC 6520)
    pub const HEARTBEAT: u8 = 0x18;
}

/// The handshake types of RFC 8446 §4 and RFC 5246 §7.4 that are told apart.
pub mod handshake {
    /// client_hello
    pub const CLIENT_HELLO: u8 = 1;
    /// server_hello, HelloRetryRequest too
    pub const SERVER_HELLO: u8 = 2;
    /// new_session_ticket
    pub const NEW_SESSION_TICKET: u8 = 4;
    /// certificate
    pub const CERTIFICATE: u8 = 11;
    /// server_key_exchange
    pub const SERVER_KEY_EXCHANGE: u8 = 12;
    /// certificate_request
    pub const CERTIFICATE_REQUEST: u8 = 13;
    /// server_hello_done
    pub const SERVER_HELLO_DONE: u8 = 14;
    /// certificate_verify
    pub const CERTIFICATE_VERIFY: u8 = 15;
    /// client_key_exchange
    pub const CLIENT_KEY_EXCHANGE: u8 = 16;
    /// finished
    pub const FINISHED: u8 = 20;
    /// certificate_status
    pub const CERTIFICATE_STATUS: u8 = 22;
}

/// What a ClientHello tells. RFC 8446 §4.1.2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientHello {
    /// legacy_version field.
    pub legacy_version: u16,
    /// Offered versions, from supported_versions or the legacy field; without GREASE.
    pub versions: Vec<u16>,
    /// The 32 random octets.
    pub random: [u8; 32],
    /// server_name, as sent, cut to 255 octets.
    pub sni: Option<ShortText>,
    /// Offered application protocols without GREASE, at most 32.
    pub alpn: Vec<ShortText>,
    /// Offered cipher suites without GREASE, at most 512.
    pub ciphers: Vec<u16>,
    /// An encrypted client hello extension is there: the name above is the outer one.
    pub ech: bool,
    /// Offers a session (ticket, PSK or non-empty session id in 1.2). Go sends a random session id in 1.2 too: true is no proof.
    pub resumes: bool,
    /// Octets of the handshake message, header included.
    pub len: u32,
}

/// What HAProxy's `option ssl-hello-chk` ends its 32 random octets with (measured on HAProxy 2.6).
pub const HEALTH_CHECK: &[u8] = b"HAPROXYSSLCHK\n";

/// What a ServerHello tells. RFC 8446 §4.1.3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// The negotiated version: supported_versions where present, else the legacy field.
    pub version: u16,
    /// The chosen suite.
    pub cipher: u16,
    /// The chosen application protocol, where it is readable (1.2).
    pub alpn: Option<ShortText>,
    /// It is a HelloRetryRequest (magic random, §4.1.3).
    pub retry_request: bool,
}

/// A certificate of a TLS ≤ 1.2 Certificate message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Subject in one line, in the certificate's own order (`C=DE, O=…, CN=…`), cut to 256 octets.
    pub subject: String,
    /// Issuer, likewise.
    pub issuer: String,
    /// Serial number in hex, as openssl prints it.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity; a year beyond 2262 becomes the last moment that nanoseconds can tell.
    pub not_after: Timestamp,
    /// dNSName and iPAddress entries of subjectAltName, text, bounded to 64 entries.
    pub names: Vec<String>,
    /// issuer = subject.
    pub self_signed: bool,
}

/// A readable alert. RFC 8446 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// 1 warning, 2 fatal.
    pub level: u8,
    /// AlertDescription.
    pub description: u8,
}

impl Alert {
    /// Whether it ends the connection.
    pub fn fatal(self) -> bool {
        self.level == 2
    }

    /// The registry's name, `alert N` for numbers it does not hold.
    pub fn name(self) -> &'static str {
        match self.description {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            21 => "decryption_failed",
            22 => "record_overflow",
            30 => "decompression_failure",
            40 => "handshake_failure",
            41 => "no_certificate",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            60 => "export_restriction",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            _ => "an alert without a name",
        }
    }
}

/// The registry's name of a cipher suite, `None` for numbers it does not hold.
pub fn cipher_name(suite: u16) -> Option<&'static str> {
    tls_parser::TlsCipherSuite::from_id(suite).map(|suite| suite.name)
}

/// How a protocol version is written by people.
pub fn version_name(version: u16) -> &'static str {
    match version {
        0x0002 => "SSL 2.0",
        0x0300 => "SSL 3.0",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 => "TLS 1.3",
        0x7f00..=0x7fff => "a draft of TLS 1.3",
        _ => "an unknown TLS version",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_have_the_names_of_the_registry() {
        assert_eq!(cipher_name(0x1301), Some("TLS_AES_128_GCM_SHA256"));
        assert_eq!(cipher_name(0xc030), Some("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"));
        assert_eq!(cipher_name(0xcca8), Some("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"));
        assert_eq!(cipher_name(0x002f), Some("TLS_RSA_WITH_AES_128_CBC_SHA"));
        assert_eq!(cipher_name(0x0a0a), None);
    }
}
