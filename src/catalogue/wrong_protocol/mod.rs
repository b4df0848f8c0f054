//! Two ends that speak different protocols.

pub mod banner_delayed;
pub mod both_sides_wait;
pub mod http_to_tls_port;
pub mod login_refused;
pub mod service_greeting_error;
pub mod starttls_needed;
pub mod tls_to_http_port;
pub mod unexpected_protocol_on_port;
