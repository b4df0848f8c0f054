//! Requests that wait: hangs, slow and broken-off answers, connections that pile up.

mod group;
pub(super) mod poll;

pub mod connection_churn;
pub mod connection_pileup;
pub mod health_check_flapping;
pub mod pool_saturated;
pub mod queries_held_up;
pub mod response_stalled;
pub mod server_error_in_protocol;
pub mod slow_response;
pub mod upstream_hang;
