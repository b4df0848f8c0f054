//! What belongs to no flow: the grid of seconds, silences, neighbours, ICMP errors about unseen flows, names, and what each server is known to speak.

pub mod grid;
pub mod icmp;
pub mod names;
pub mod neighbor;
pub mod service;
pub mod watch;
