//! One datagram of a known flow. RFC 768. UDP has no order and no end: datagrams are handed on as they come.

use super::half::Marks;
use super::key::Way;
use super::live::Live;
use super::{RoleSource, Sink, Wants};
use crate::decode::{Datagram, Ip};

impl<S: Sink> Live<'_, S> {
    /// Works one datagram in. It is no copy made by the capture.
    pub(super) fn datagram(&mut self, way: Way, ip: &Ip, datagram: &Datagram<'_>) {
        let at = self.stamp;
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

#[cfg(test)]
mod tests {
    use crate::flow::facts::{IpProtocol, RoleSource};
    use crate::flow::script::Script;

    #[test]
    fn datagrams_are_handed_on_by_role_and_copies_are_not() {
        let mut script = Script::new();
        script.datagram(0, true, 1, b"answer");
        script.datagram(0, true, 1, b"answer");
        script.datagram(5, false, 1, b"query");
        let facts = script.facts();
        assert_eq!((facts.transport, facts.role, facts.server.port), (IpProtocol::Udp, RoleSource::Port, 53));
        assert_eq!((facts.from_server.packets, facts.from_client.payload, facts.duplicates), (1, 5, 1));
        assert_eq!(
            (script.sink.octets[0].as_slice(), script.sink.octets[1].as_slice()),
            (b"query".as_slice(), b"answer".as_slice())
        );
    }

    #[test]
    fn a_udp_flow_ends_after_a_minute_of_silence() {
        let mut script = Script::new();
        script.datagram(0, false, 1, b"query");
        script.tick(59);
        assert_eq!(script.table.len(), 1);
        script.tick(60);
        assert!(script.table.is_empty());
    }
}
