//! Capture-wide incidents: what only many flows together show.

pub mod cert_outage;
pub mod link_flapping;
pub mod loss_storm;
pub mod mass_connect_timeout;
pub mod network_blackout;
pub mod port_scan;
pub mod service_down;
pub mod service_restart;
mod silence;
