//! Close and reset.

pub mod client_abandoned;
pub mod closed_before_request;
pub mod closed_without_answer;
pub mod half_closed_stuck;
pub mod idle_timeout_close;
pub mod lb_health_check_noise;
pub mod reset_unread_data;
pub mod server_reset_mid_response;
pub mod stray_reset;
