//! Every rule of the catalogue, in the order of its families. Generated: `BLESS=1 cargo test --test generated` rewrites it.

use crate::rule::Rule;

/// Rules with the source file that holds their page.
pub static RULES: &[(&Rule, &str)] = &[
    (&super::capture::capture_clock_jump::RULE, include_str!("capture/capture_clock_jump.rs")),
    (&super::capture::capture_duplicate_packets::RULE, include_str!("capture/capture_duplicate_packets.rs")),
    (&super::capture::capture_ends_early::RULE, include_str!("capture/capture_ends_early.rs")),
    (&super::capture::capture_file_damaged::RULE, include_str!("capture/capture_file_damaged.rs")),
    (&super::capture::capture_filter_narrow::RULE, include_str!("capture/capture_filter_narrow.rs")),
    (&super::capture::capture_has_nothing::RULE, include_str!("capture/capture_has_nothing.rs")),
    (&super::capture::capture_offload_artifacts::RULE, include_str!("capture/capture_offload_artifacts.rs")),
    (&super::capture::capture_one_sided::RULE, include_str!("capture/capture_one_sided.rs")),
    (&super::capture::capture_packet_loss::RULE, include_str!("capture/capture_packet_loss.rs")),
    (&super::capture::capture_snaplen_truncated::RULE, include_str!("capture/capture_snaplen_truncated.rs")),
    (&super::capture::capture_starts_mid_stream::RULE, include_str!("capture/capture_starts_mid_stream.rs")),
    (&super::connect::connect_refused::RULE, include_str!("connect/connect_refused.rs")),
];
