//! TCP connect.

pub mod accept_queue_overflow;
pub mod connect_refused;
pub mod connect_slow;
pub mod connect_timeout;
pub mod syn_flood;
