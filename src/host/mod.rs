//! What belongs to no flow: the grid of seconds, silences, neighbours, signs of the link, ICMP errors about unseen flows, names, and what
//! each server is known to speak.

pub mod few;
pub mod grid;
pub mod icmp;
pub mod known;
pub mod link;
pub mod names;
pub mod neighbor;
pub(crate) mod places;
pub mod service;
pub mod sockets;
pub mod watch;
