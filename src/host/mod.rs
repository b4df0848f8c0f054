//! What belongs to no flow: neighbours, ICMP errors about unseen flows, names, and what each server is known to speak.

pub mod icmp;
pub mod names;
pub mod neighbor;
pub mod service;
