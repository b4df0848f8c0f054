//! Round trips as seen from the capture point: samples, the smoothed value, and where the capture point is.
//!
//! Karn's rule holds throughout: nothing is measured on what was sent twice (RFC 6298 §3).

use super::facts::Vantage;
use super::half::{SynCopy, Track, Trail};
use crate::event::PacketRef;
use crate::time::Elapsed;

/// Smallest retransmission timeout in common use (Linux).
pub(super) const MIN_RTO: Elapsed = Elapsed::millis(200);

/// Takes one measured round trip into the direction's account.
pub(super) fn sample(track: &mut Track, trail: &mut Trail, rtt: Elapsed) {
    if rtt < Elapsed::ZERO {
        return;
    }
    trail.min_rtt = Some(trail.min_rtt.map_or(rtt, |min| min.min(rtt)));
    let micros = u32::try_from(rtt.0 / 1_000).unwrap_or(u32::MAX).max(1);
    track.srtt = match track.srtt {
        0 => micros,
        old => old - old / 8 + micros / 8,
    };
}

/// Round trip between the two ends: both halves that meet at the capture point. `None` when neither was measured.
pub(super) fn between(one: &Track, other: &Track) -> Option<Elapsed> {
    let micros = i64::from(one.srtt) + i64::from(other.srtt);
    (micros > 0).then(|| Elapsed::micros(micros))
}

/// Time from the copy of a SYN that was answered to its answer: by timestamp echo when there is one, else the latest copy.
pub(super) fn answered(copies: &[SynCopy], echo: Option<u32>, answer: PacketRef) -> Option<Elapsed> {
    let echoed = echo.and_then(|echo| copies.iter().find(|copy| copy.tsval == Some(echo)));
    let copy = echoed.or(copies.last())?;
    Some(answer.time.since(copy.at.time())).filter(|rtt| *rtt >= Elapsed::ZERO)
}

/// Where the capture point is: one half of the round trip is below a millisecond and at least five times shorter than the other.
pub(super) fn vantage(to_server: Option<Elapsed>, to_client: Option<Elapsed>) -> Vantage {
    let (Some(server), Some(client)) = (to_server, to_client) else { return Vantage::Unknown };
    let near = |small: Elapsed, large: Elapsed| small < Elapsed::millis(1) && small.0.saturating_mul(5) <= large.0;
    if near(client, server) {
        Vantage::NearClient
    } else if near(server, client) {
        Vantage::NearServer
    } else if server.min(client) >= Elapsed::millis(1) {
        Vantage::Middle
    } else {
        Vantage::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_half_of_the_round_trip_is_where_the_capture_point_is() {
        let (short, long) = (Some(Elapsed::micros(40)), Some(Elapsed::millis(20)));
        assert_eq!(vantage(long, short), Vantage::NearClient);
        assert_eq!(vantage(short, long), Vantage::NearServer);
        assert_eq!(vantage(long, long), Vantage::Middle);
        assert_eq!(vantage(short, short), Vantage::Unknown);
        assert_eq!(vantage(long, None), Vantage::Unknown);
    }

    #[test]
    fn the_echoed_timestamp_names_the_copy_that_was_answered() {
        let at = |ms: i64| PacketRef { file: 0, number: ms as u64 + 1, time: crate::time::Timestamp(ms * 1_000_000) };
        let copies =
            [SynCopy { at: at(0).into(), tsval: Some(100) }, SynCopy { at: at(1000).into(), tsval: Some(1100) }];
        assert_eq!(answered(&copies, Some(100), at(1003)), Some(Elapsed::millis(1003)));
        assert_eq!(answered(&copies, None, at(1003)), Some(Elapsed::millis(3)));
    }
}
