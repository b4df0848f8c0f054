//! ARP (RFC 826) and neighbour discovery (RFC 4861 §4.3, §4.4): who asks for whom, who answers.

use serde::{Deserialize, Serialize};

use super::{Address, Mac};

/// One ARP packet or neighbour solicitation/advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// A request or solicitation; otherwise an answer or announcement.
    pub request: bool,
    /// Sender's protocol address; unspecified in probes.
    pub sender: Address,
    /// Sender's link address, when told.
    pub sender_mac: Option<Mac>,
    /// The address asked for or announced.
    pub target: Address,
    /// Sender = target: an announcement nobody asked for.
    pub gratuitous: bool,
}
