//! Who is client and who is server when no SYN says so: ports.

use std::collections::HashSet;

use super::facts::RoleSource;
use super::key::{Key, Way};
use crate::wire::Endpoint;

/// Ports above 1023 on which servers commonly listen, sorted.
const SERVICES: [u16; 40] = [
    1080, 1194, 1433, 1521, 1883, 2049, 2181, 2375, 2376, 2379, 3000, 3128, 3268, 3306, 3389, 4222, 4317, 5000, 5060,
    5222, 5353, 5432, 5672, 5671, 5984, 6379, 6443, 8000, 8008, 8080, 8081, 8443, 8500, 8883, 9000, 9042, 9090, 9092,
    9200, 11211,
];

/// Ends that were seen to accept a connection.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    known: HashSet<Endpoint, foldhash::fast::FixedState>,
    limit: usize,
}

impl Listeners {
    /// At most `limit` of them; 0 turns the hint off.
    pub(super) fn new(limit: usize) -> Self {
        Self { known: HashSet::default(), limit }
    }

    /// `end` answered a SYN with SYN+ACK.
    pub(super) fn note(&mut self, end: Endpoint) {
        if self.known.len() < self.limit {
            self.known.insert(end);
        }
    }
}

/// The direction of the client by ports alone. `sender` is the direction of the first packet; `first_asks` says that it decides when the
/// ports do not (UDP: who speaks first asks).
pub(super) fn by_port(key: &Key, sender: Way, first_asks: bool, listeners: &Listeners) -> (Way, RoleSource) {
    let score = |way: Way| {
        let end = key.end(way);
        let service = end.port < 1024 || SERVICES.contains(&end.port);
        u8::from(listeners.known.contains(&end)) * 2 + u8::from(service)
    };
    let [low, high] = Way::BOTH.map(|way| (score(way), key.end(way).port));
    match low.0.cmp(&high.0) {
        std::cmp::Ordering::Greater => (Way::High, RoleSource::Port),
        std::cmp::Ordering::Less => (Way::Low, RoleSource::Port),
        std::cmp::Ordering::Equal if first_asks || low.1 == high.1 => (sender, RoleSource::Guess),
        std::cmp::Ordering::Equal => (if low.1 < high.1 { Way::High } else { Way::Low }, RoleSource::Guess),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::facts::IpProtocol;
    use crate::wire::Address;

    fn server(client_port: u16, server_port: u16, listeners: &Listeners) -> (u16, RoleSource) {
        let client = Endpoint::new(Address::v4([10, 0, 0, 1]), client_port);
        let server = Endpoint::new(Address::v4([10, 0, 0, 2]), server_port);
        let (key, sender) = Key::of(client, server, IpProtocol::Tcp);
        let (way, role) = by_port(&key, sender, false, listeners);
        (key.end(way.other()).port, role)
    }

    #[test]
    fn a_service_port_is_the_servers_and_else_the_lower_one() {
        let none = Listeners::new(0);
        assert_eq!(server(40_000, 443, &none), (443, RoleSource::Port));
        assert_eq!(server(1500, 5432, &none), (5432, RoleSource::Port));
        assert_eq!(server(40_000, 9443, &none), (9443, RoleSource::Guess));
        assert_eq!(server(40_000, 50_051, &none), (40_000, RoleSource::Guess));
    }

    #[test]
    fn a_port_that_accepted_before_is_the_servers() {
        let mut listeners = Listeners::new(8);
        listeners.note(Endpoint::new(Address::v4([10, 0, 0, 2]), 50_051));
        assert_eq!(server(40_000, 50_051, &listeners), (50_051, RoleSource::Port));
    }
}
