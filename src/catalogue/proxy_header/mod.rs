//! PROXY protocol headers: sent where they are not understood, missing where they are expected, or broken.

pub mod proxy_header_bad_checksum;
pub mod proxy_header_client_unknown;
pub mod proxy_header_duplicated;
pub mod proxy_header_fragmented;
pub mod proxy_header_from_untrusted;
pub mod proxy_header_malformed;
pub mod proxy_header_missing;
pub mod proxy_header_to_http_port;
pub mod proxy_header_to_other_service;
pub mod proxy_header_to_tls_port;
