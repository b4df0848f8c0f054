//! TCP connect.

pub mod accept_queue_overflow;
pub mod connect_refused;
pub mod connect_slow;
pub mod connect_timeout;
pub mod ephemeral_ports_exhausted;
pub mod handshake_reset_by_client;
pub mod port_reuse_collision;
pub mod syn_flood;
