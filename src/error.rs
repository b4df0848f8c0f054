//! What a person is told when tcpwhy cannot go on.
//!
//! Three things never mix: [`Error`] is for the person at the terminal, `wire::Malformed` is evidence about a packet, and a bug is a
//! `debug_assert!` plus a safe way on. Damaged input is no `Error` once a first packet was read: it is a notice in the report.

use std::fmt;

/// Why the program could not do what it was asked.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The classes of failure a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The operating system refused a read or a write.
    Io,
    /// The input is no capture file.
    NotACapture,
    /// The input is a capture, but needs something this build cannot do.
    Unsupported,
    /// A right is missing (live capture).
    Permission,
    /// The request itself makes no sense (a filter that does not compile, an unknown rule id).
    Usage,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error whose message says what was attempted, on what, what was found and what helps.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Wraps an operating system error with what was being done.
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            _ => ErrorKind::Io,
        };
        Self { kind, message: doing.into(), source: Some(Box::new(source)) }
    }

    /// A request that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}
