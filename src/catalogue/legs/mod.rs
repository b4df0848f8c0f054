//! Both legs of a proxy: what its users see is what its backends did.

pub mod capture_lacks_backend_leg;
pub mod proxy_adds_latency;
pub mod proxy_no_server_available;
pub mod proxy_protocol_mismatch_upstream;
pub mod proxy_retries_hide_failure;
pub mod proxy_upstream_closed;
pub mod proxy_upstream_connect_failed;
pub mod proxy_upstream_timeout;
pub mod proxy_wrong_upstream;
