//! Capture quality.

pub mod capture_clock_jump;
pub mod capture_duplicate_packets;
pub mod capture_ends_early;
pub mod capture_file_damaged;
pub mod capture_filter_narrow;
pub mod capture_has_nothing;
pub mod capture_offload_artifacts;
pub mod capture_one_sided;
pub mod capture_packet_loss;
pub mod capture_snaplen_truncated;
pub mod capture_starts_mid_stream;
