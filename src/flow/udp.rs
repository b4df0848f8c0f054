//! One datagram of a known flow. RFC 768. UDP has no order and no end: datagrams are handed on as they come.

use super::half::{Marks, Stamp};
use super::key::Way;
use super::live::Live;
use super::{RoleSource, Sink, Wants};
use crate::decode::{Datagram, Ip};

impl<S: Sink> Live<'_, S> {
    /// Works one datagram in. It is no copy made by the capture.
    pub(super) fn datagram(&mut self, way: Way, ip: &Ip, datagram: &Datagram<'_>) {
        let at = Stamp::from(self.at);
        let (track, trail) = (&mut self.flow.tracks[way], &mut self.detail.trails[way]);
        track.count(ip, at);
        if trail.first.is_none() {
            trail.first = Some(at);
            trail.ttl_first = ip.ttl;
        }
        let len = u64::from(datagram.payload_len);
        track.sent += len;
        track.payload += len;
        if len > 0 {
            track.segments = track.segments.saturating_add(1);
            track.last_payload = Some(at);
            trail.first_payload.get_or_insert(at);
        }
        if (datagram.payload.len() as u64) < len {
            let rare = trail.rare();
            rare.cut += 1;
            rare.cut_first.get_or_insert(self.at);
        }
        if track.marks.has(Marks::DONE) {
            return;
        }
        let head = self.detail.head(self.flow);
        let side = self.flow.side(way);
        let (at, octets) = (self.at, datagram.payload);
        match self.sink.datagram(&head, self.conversation, side, at, octets, datagram.payload_len) {
            Wants::More => {}
            Wants::Nothing => {
                self.flow.tracks[way].marks.set(Marks::DONE);
            }
            Wants::Flip => {
                self.flow.client = self.flow.client.other();
                self.flow.role = RoleSource::Layer7;
            }
        }
    }
}
