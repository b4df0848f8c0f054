//! First words of services that speak plain text or a simple binary greeting: SSH, SMTP, MySQL, PostgreSQL, Redis.

use serde::{Deserialize, Serialize};

/// A first message of a service, or its refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Its first line or error text, cut to 96 octets, raw (the printer makes it harmless).
    pub text: String,
    /// Error code where the protocol has one (MySQL 1040, SMTP 421, PostgreSQL SQLSTATE as text in `text`).
    pub code: Option<u16>,
    /// It refuses instead of greeting.
    pub refuses: bool,
}
