//! TLS handshakes that fail.

pub mod tls_alpn_mismatch;
pub mod tls_cert_expired;
pub mod tls_cert_expiring_soon;
pub mod tls_cert_name_mismatch;
pub mod tls_cert_not_yet_valid;
pub mod tls_cert_rejected;
pub mod tls_cert_untrusted;
pub mod tls_chain_incomplete;
pub mod tls_client_cert_rejected;
pub mod tls_client_cert_required;
pub mod tls_clienthello_lost;
pub mod tls_closed_after_clienthello;
pub mod tls_fatal_alert;
pub mod tls_handshake_stalled;
pub mod tls_no_shared_cipher;
pub mod tls_slow_handshake;
pub mod tls_sni_missing;
pub mod tls_sni_unrecognized;
pub mod tls_truncated_close;
pub mod tls_version_mismatch;
