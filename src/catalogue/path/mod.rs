//! The way packets take: replies that leave by another way, get lost, or are changed on it.

pub mod asymmetric_return_path;
pub mod idle_flow_expired;
pub mod middlebox_reset;
pub mod pmtu_blackhole;
pub mod pmtu_discovered;
pub mod reply_from_other_address;
pub mod return_path_lost;
pub mod stateful_drop_after_handshake;
