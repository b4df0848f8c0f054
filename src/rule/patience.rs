//! Waiting: how long is long, who gave up, and what an answer that comes after all changes.

use super::finding::{Finding, Severity};
use super::value::Value;
use super::view::FlowView;
use crate::event::{PacketRef, ResetKind, Side};
use crate::time::Elapsed;

/// A wait of this many round trips is more than a slow path.
const ROUND_TRIPS: i64 = 20;

/// Whether the path alone does not make a wait so long.
pub fn beyond_path(flow: &FlowView<'_>, wait: Elapsed) -> bool {
    flow.round_trip().is_none_or(|trip| wait >= Elapsed(trip.0.saturating_mul(ROUND_TRIPS)))
}

/// Whether somebody who ends a wait had waited, and did not merely close.
pub fn patient(flow: &FlowView<'_>, wait: Elapsed) -> bool {
    wait >= flow.thresholds.gave_up && beyond_path(flow, wait)
}

/// Whether a close was decided by a program. A RST without ACK is not: that kernel does not know the connection (`stray-reset`).
pub fn decided(flow: &FlowView<'_>, side: Side, close: PacketRef) -> bool {
    flow.facts.reset(side).is_none_or(|reset| reset.at != close || reset.kind == ResetKind::Abort)
}

/// Who closed, deliberately, after a wait that is more than a slow path.
pub fn gave_up(flow: &FlowView<'_>, wait: Elapsed) -> Option<(Side, PacketRef)> {
    let (side, close) = flow.facts.closer?;
    (decided(flow, side, close) && patient(flow, wait)).then_some((side, close))
}

/// The client's packet that gave up what it had asked for at `asked`.
pub fn client_gave_up(flow: &FlowView<'_>, asked: PacketRef, wait: Elapsed) -> Option<PacketRef> {
    let (side, close) = gave_up(flow, wait)?;
    (side == Side::Client && close > asked).then_some(close)
}

/// What nobody knows of a client that gave up early: whether what it waited for would have come.
pub fn early(finding: Finding, wait: Elapsed, what: &str) -> Finding {
    finding.note(format!("the client gave up after {wait}; whether {what} would have come cannot be known"))
}

/// For `Rule::spoke_late`: the answer to the finding's first packet came after all, so nothing goes on. `shows` names the packet, `asked`
/// what it answers.
pub fn came_late(finding: Finding, at: PacketRef, shows: &str, asked: &str, variant: u8) -> Finding {
    let wait = at.time.since(finding.first().time);
    finding
        .and(at, Side::Server, format!("{shows}, {wait} after {asked}"))
        .with("wait", wait)
        .with("over", Value::Frame(at))
        .severity(Severity::Warning)
        .variant(variant)
        .note("judged while it was open: nobody knew then that an answer would come")
}
