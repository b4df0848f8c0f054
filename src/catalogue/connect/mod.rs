//! TCP connect.

pub mod connect_refused;
