//! TLS: the record layer, handshake messages across records, and what the hellos, certificates and alerts say.
//!
//! RFC 8446 (1.3), RFC 5246 (1.2). Complete handshake messages are read by `tls-parser`, certificates by `x509-parser`; the record layer
//! and the putting together of handshake messages are our own, because a hello may be split over records (§5.1).

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

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
    /// server_name, as sent.
    pub sni: Option<String>,
    /// Offered application protocols.
    pub alpn: Vec<String>,
    /// Offered cipher suites without GREASE.
    pub ciphers: Vec<u16>,
    /// An encrypted client hello extension is there: the name above is the outer one.
    pub ech: bool,
    /// Offers a session (ticket, PSK or non-empty session id in 1.2).
    pub resumes: bool,
    /// Octets of the handshake message, header included.
    pub len: u32,
}

/// What a ServerHello tells. RFC 8446 §4.1.3.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerHello {
    /// The negotiated version: supported_versions where present, else the legacy field.
    pub version: u16,
    /// The chosen suite.
    pub cipher: u16,
    /// The chosen application protocol, where it is readable (1.2).
    pub alpn: Option<String>,
    /// It is a HelloRetryRequest (magic random, §4.1.3).
    pub retry_request: bool,
}

/// A certificate of a TLS ≤ 1.2 Certificate message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Subject, RFC 4514 text.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Serial number in hex, as openssl prints it.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
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

/// How a protocol version is written by people.
pub fn version_name(version: u16) -> &'static str {
    match version {
        0x0300 => "SSL 3.0",
        0x0301 => "TLS 1.0",
        0x0302 => "TLS 1.1",
        0x0303 => "TLS 1.2",
        0x0304 => "TLS 1.3",
        _ => "an unknown TLS version",
    }
}
