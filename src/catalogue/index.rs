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
    (&super::connect::accept_queue_overflow::RULE, include_str!("connect/accept_queue_overflow.rs")),
    (&super::connect::connect_refused::RULE, include_str!("connect/connect_refused.rs")),
    (&super::connect::connect_slow::RULE, include_str!("connect/connect_slow.rs")),
    (&super::connect::connect_timeout::RULE, include_str!("connect/connect_timeout.rs")),
    (&super::close::client_abandoned::RULE, include_str!("close/client_abandoned.rs")),
    (&super::close::closed_before_request::RULE, include_str!("close/closed_before_request.rs")),
    (&super::close::closed_without_answer::RULE, include_str!("close/closed_without_answer.rs")),
    (&super::close::half_closed_stuck::RULE, include_str!("close/half_closed_stuck.rs")),
    (&super::close::idle_timeout_close::RULE, include_str!("close/idle_timeout_close.rs")),
    (&super::close::lb_health_check_noise::RULE, include_str!("close/lb_health_check_noise.rs")),
    (&super::close::reset_unread_data::RULE, include_str!("close/reset_unread_data.rs")),
    (&super::close::server_reset_mid_response::RULE, include_str!("close/server_reset_mid_response.rs")),
    (&super::close::stray_reset::RULE, include_str!("close/stray_reset.rs")),
    (&super::proxy_header::proxy_header_bad_checksum::RULE, include_str!("proxy_header/proxy_header_bad_checksum.rs")),
    (
        &super::proxy_header::proxy_header_client_unknown::RULE,
        include_str!("proxy_header/proxy_header_client_unknown.rs"),
    ),
    (&super::proxy_header::proxy_header_duplicated::RULE, include_str!("proxy_header/proxy_header_duplicated.rs")),
    (&super::proxy_header::proxy_header_fragmented::RULE, include_str!("proxy_header/proxy_header_fragmented.rs")),
    (
        &super::proxy_header::proxy_header_from_untrusted::RULE,
        include_str!("proxy_header/proxy_header_from_untrusted.rs"),
    ),
    (&super::proxy_header::proxy_header_malformed::RULE, include_str!("proxy_header/proxy_header_malformed.rs")),
    (&super::proxy_header::proxy_header_missing::RULE, include_str!("proxy_header/proxy_header_missing.rs")),
    (&super::proxy_header::proxy_header_to_http_port::RULE, include_str!("proxy_header/proxy_header_to_http_port.rs")),
    (
        &super::proxy_header::proxy_header_to_other_service::RULE,
        include_str!("proxy_header/proxy_header_to_other_service.rs"),
    ),
    (&super::proxy_header::proxy_header_to_tls_port::RULE, include_str!("proxy_header/proxy_header_to_tls_port.rs")),
    (&super::tls::tls_closed_after_clienthello::RULE, include_str!("tls/tls_closed_after_clienthello.rs")),
    (&super::tls::tls_fatal_alert::RULE, include_str!("tls/tls_fatal_alert.rs")),
    (&super::wrong_protocol::http_to_tls_port::RULE, include_str!("wrong_protocol/http_to_tls_port.rs")),
    (&super::wrong_protocol::tls_to_http_port::RULE, include_str!("wrong_protocol/tls_to_http_port.rs")),
    (
        &super::wrong_protocol::unexpected_protocol_on_port::RULE,
        include_str!("wrong_protocol/unexpected_protocol_on_port.rs"),
    ),
];
