#![forbid(unsafe_code)]
//! Reads packet captures and says why connections failed.
pub mod capture;
pub mod catalogue;
pub mod decode;
pub mod diagnose;
pub mod error;
pub mod event;
pub mod flow;
pub mod host;
pub mod rule;
pub mod time;
pub mod wire;
