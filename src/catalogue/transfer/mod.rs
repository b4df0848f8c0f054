//! Loss, windows and dead peers.

pub mod keepalive_probes_unanswered;
pub mod loss_burst_single;
pub mod packet_loss;
pub mod reordering;
pub mod rto_unrecovered;
pub mod zero_window;
