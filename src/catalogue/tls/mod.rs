//! TLS handshakes that fail.

pub mod tls_closed_after_clienthello;
pub mod tls_fatal_alert;
