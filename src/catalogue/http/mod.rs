//! HTTP/1: what servers and gateways answer, and where they do not.

pub mod http_bad_request;
pub mod http_expect_100_stall;
pub mod http_framing_conflict;
pub mod http_gateway_error;
pub mod http_header_too_large;
pub mod http_invalid_response;
pub mod http_keepalive_race;
pub mod http_rate_limited;
pub mod http_redirect_loop;
pub mod http_request_incomplete;
pub mod http_response_truncated;
pub mod http_server_error;
pub mod http_upstream_closed_before_response;
pub mod http_upstream_reset_before_response;
pub mod http_wrong_vhost;
pub mod websocket_upgrade_failed;

pub(in crate::catalogue) use http_server_error::plain;
