//! What belongs to no flow: neighbours, names, and what each server is known to speak.

pub mod neighbor;
pub mod service;
