#![forbid(unsafe_code)]
//! Reads packet captures and says why connections failed.
pub mod capture;
pub mod decode;
pub mod error;
pub mod event;
pub mod flow;
pub mod time;
pub mod wire;
