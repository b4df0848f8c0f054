//! Family K: HTTP/2 in the clear, and gRPC over it.

pub mod grpc_error_status;
pub mod h2_concurrency_limited;
pub mod h2_flow_control_stalled;
pub mod h2_goaway_error;
pub mod h2_goaway_race;
pub mod h2_preface_failed;
pub mod h2_stream_reset;

use crate::rule::Step;

/// What to ask where a server ended a stream or the connection.
const ASK_SERVER: &[Step] = &[
    Step {
        says: "On {host}: what did the server log at that second?",
        command: "sudo journalctl --since '15 min ago' -p warning",
    },
    Step { says: "On {host}: which process speaks HTTP/2 there?", command: "sudo ss -ltnp 'sport = :{port}'" },
];

/// Whether a request works at all.
const ASK_PLAINLY: &[Step] = &[Step {
    says: "from {client_host}; a status says that a plain request works:",
    command: "curl -sS -o /dev/null -m 10 -w '%{response_code}\\n' http://{host}:{port}/",
}];
