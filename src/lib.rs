#![forbid(unsafe_code)]
//! Reads packet captures and says why connections failed.
//!
//! ```text
//! file(s) -> Frame -> Packet -> Flow (TCP truth + in-order octets) -> Events -> Findings -> Incidents -> Report -> text | json
//! ```
//!
//! Data climbs a tower one floor at a time, once, in one direction; names are taken only from floors below:
//!
//! | floor | rooms |
//! |---|---|
//! | F1 | [`error`], [`time`], [`wire`]: octets to meaning, no state |
//! | F2 | [`event`]: what can happen; [`capture`]: where frames come from |
//! | F3 | [`decode`]: frames to packets |
//! | F4 | [`flow`]: packets to flows, TCP truth |
//! | F5 | [`protocol`]: octets to protocol events; [`host`]: what belongs to no flow |
//! | F6 | [`rule`]: the language rules are written in |
//! | F7 | [`catalogue`]: the rules, one file each |
//! | F8 | [`diagnose`]: findings to understanding |
//! | F9 | [`run`]: the spine; [`render`]: the report's faces; [`redact`]: copies that name nobody |
//!
//! The door is [`Diagnosis`]:
//!
//! ```no_run
//! let report = tcpwhy::Diagnosis::new().open(&["incident.pcap"])?.run()?;
//! for incident in &report.incidents {
//!     println!("{}", incident.headline);
//! }
//! # Ok::<(), tcpwhy::Error>(())
//! ```

pub mod capture;
pub mod catalogue;
pub mod decode;
pub mod diagnose;
pub mod error;
pub mod event;
pub mod flow;
pub mod host;
pub mod protocol;
pub mod redact;
pub mod render;
pub mod rule;
pub mod run;
pub mod time;
pub mod wire;

pub use capture::window::TimeBound;
pub use diagnose::report::{Incident, Report};
pub use error::{Error, ErrorKind, Result};
pub use rule::finding::{Confidence, Severity};
pub use rule::threshold::Thresholds;
pub use run::{Diagnosis, Ends, Progress};
