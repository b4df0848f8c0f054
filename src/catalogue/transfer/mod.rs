//! Loss, windows and dead peers.

pub mod corrupt_segments;
pub mod delayed_ack_nagle_stall;
pub mod keepalive_probes_unanswered;
pub mod loss_burst_single;
pub mod packet_loss;
pub mod reordering;
pub mod rto_unrecovered;
pub mod rtt_high_or_rising;
pub mod spurious_retransmission;
pub mod window_limited;
pub mod zero_window;
