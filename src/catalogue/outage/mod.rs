//! Capture-wide incidents: what only many flows together show.

pub mod cert_outage;
pub mod link_flapping;
pub mod network_blackout;
pub mod port_scan;
pub mod service_down;
mod silence;
