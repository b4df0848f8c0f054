//! HTTP/1: what servers and gateways answer, and where they do not.

mod gateway_reason;
pub mod http_bad_request;
pub mod http_expect_100_stall;
pub mod http_framing_conflict;
pub mod http_gateway_error;
pub mod http_header_too_large;
pub mod http_invalid_response;
pub mod http_keepalive_race;
pub mod http_rate_limited;
pub mod http_redirect_loop;
pub mod http_request_incomplete;
pub mod http_response_truncated;
pub mod http_server_error;
pub mod http_upload_refused;
pub mod http_upstream_closed_before_response;
pub mod http_upstream_reset_before_response;
pub mod http_wrong_vhost;
pub mod websocket_upgrade_failed;

pub(in crate::catalogue) use http_server_error::plain;

use crate::event::{PacketRef, What};
use crate::rule::exchange::exchanges;
use crate::rule::view::FlowView;

/// When the latest request was complete, if that was before `end` and no octet of an answer came; and how many requests were before it.
fn unanswered(flow: &FlowView<'_>, end: PacketRef) -> Option<(PacketRef, usize)> {
    // Most often something came behind the latest request: then nobody need put requests and answers together.
    let latest = flow.story.events().rev().find(|event| matches!(event.what, What::Request(_)))?;
    let began = flow.server().last_payload.is_some_and(|octets| octets > latest.at);
    // Where a request is missing, nobody knows which one an answer belongs to.
    if began || flow.server().unseen + flow.client().unseen > 0 {
        return None;
    }
    let all = exchanges(flow.story);
    let last = all.last().filter(|last| last.response.is_none())?;
    let asked = last.request_end.filter(|complete| *complete < end)?;
    Some((asked, all.len() - 1))
}
