//! Family K: HTTP/2 in the clear, and gRPC over it.

pub mod grpc_error_status;
pub mod h2_flow_control_stalled;
pub mod h2_goaway_error;
pub mod h2_goaway_race;
pub mod h2_preface_failed;
pub mod h2_stream_reset;
