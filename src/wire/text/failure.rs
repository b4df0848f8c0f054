//! What a service says went wrong behind its greeting: logins that it refuses, and trouble that it reports to clients it had let in.
//!
//! Most errors are an application's daily life (a syntax error, a row that exists already) and are no failures here: a code that is not
//! in these tables is passed over. PostgreSQL documentation, "PostgreSQL Error Codes"; MySQL's "Server Error Message Reference"; redis.io,
//! "Redis serialization protocol"; RFC 5321 §4.2, RFC 3463.

use serde::{Deserialize, Serialize};

use crate::wire::text_of;

/// Octets of a text that are kept.
const LONGEST: usize = 160;

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Class {
    /// A mail is turned down for what the server allows to whom. Told of connections on which none was taken.
    Refused,
    /// One request is put off or turned down, as happens on a healthy server too: greylisting, a cluster that redirects.
    Usual,
    /// Requests stand in each other's way: deadlocks, waits for locks, statements that take too long.
    Contention,
    /// The server cannot do its work: no memory, no space, no connections, read-only.
    Trouble,
    /// A login is refused.
    Login,
}

/// An error of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it means.
    pub class: Class,
    /// SQLSTATE of PostgreSQL, number of MySQL, first word of Redis, reply code of SMTP.
    pub code: String,
    /// Code and words, cut to 160 octets, raw (the printer makes them harmless).
    pub text: String,
    /// How many of its connection came so far, this one too.
    pub count: u32,
    /// It answers the login of a health check that takes a refusal for a sign of life.
    pub probe: bool,
}

impl Failure {
    pub(super) fn new(class: Class, code: &[u8], text: &[u8]) -> Self {
        Self { class, code: text_of(code, 16).into(), text: text_of(text, LONGEST).into(), count: 1, probe: false }
    }
}

/// What stands at the beginning of a message of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// More octets are needed to say.
    Partial,
    /// Nothing that went wrong; so many octets.
    Usual(u64),
    /// The client is let in; so many octets.
    Welcome(u64),
    /// An error; so many octets.
    Failed(u64, Failure),
    /// No such message: whatever follows cannot be read.
    Lost,
}

/// Reads the beginning of a message of a server: `true` while the client is not let in yet.
pub type ReadsMessage = fn(&[u8], bool) -> Message;

/// What PgBouncer says to clients it had let in when it has no connection to the database for them (1.18 to 1.24).
const BOUNCER: [&[u8]; 4] =
    [b"query_wait_timeout", b"pgbouncer cannot connect to server", b"server_login_retry", b"server conn crashed"];

/// What an SQLSTATE of PostgreSQL means to a client that was let in; `None` for an application's daily life.
pub(super) fn of_sqlstate(state: &[u8], words: &[u8]) -> Option<Class> {
    let holds = |word: &[u8]| memchr::memmem::find(words, word).is_some();
    match state {
        // insufficient_resources; io_error; data and index corrupted; crash_shutdown; read_only_sql_transaction. Extensions say XX000, and
        // 58P01, of mistakes of their users.
        [b'5', b'3', ..] | b"58030" | b"XX001" | b"XX002" | b"57P02" | b"25006" => Some(Class::Trouble),
        // Deadlock; lock_not_available, also where lock_timeout is over.
        b"40P01" => Some(Class::Contention),
        b"55P03" if holds(b"timeout") => Some(Class::Contention),
        // query_canceled: by a timeout, or by a standby that must go on, but not by its user.
        b"57014" if holds(b"timeout") || holds(b"recovery") => Some(Class::Contention),
        // PgBouncer says protocol_violation of everything: here no connection to the database was free, or none could be made.
        b"08P01" if BOUNCER.iter().any(|words| holds(words)) => Some(Class::Trouble),
        _ => None,
    }
}

/// What an error number of MySQL or MariaDB means to a client that was let in.
pub(super) fn of_mysql(code: u16, words: &[u8]) -> Option<Class> {
    match code {
        // Wait for a lock, deadlock, a statement that took too long (MySQL, MariaDB).
        1205 | 1213 | 3024 | 1969 => Some(Class::Contention),
        // Disk, storage engine, memory, connections, shutdown, table full, threads, crashed table, lock table full, limits of a user.
        1021 | 1030 | 1037 | 1040 | 1041 | 1053 | 1114 | 1135 | 1194 | 1203 | 1206 | 1226 | 1836 => {
            Some(Class::Trouble)
        }
        // The server runs with an option that forbids the statement: others than this one are its user's mistake.
        1290 if memchr::memmem::find(words, b"read-only").is_some() => Some(Class::Trouble),
        _ => None,
    }
}

/// What the first word of an error of Redis means.
pub(super) fn of_redis(word: &[u8]) -> Option<Class> {
    match word {
        b"OOM" | b"MISCONF" | b"READONLY" | b"BUSY" | b"LOADING" | b"MASTERDOWN" | b"CLUSTERDOWN" | b"NOREPLICAS" => {
            Some(Class::Trouble)
        }
        // Checks that know no password take this answer for a sign of life.
        b"NOAUTH" | b"WRONGPASS" => Some(Class::Usual),
        // MOVED and ASK lead clients of a cluster to the right node.
        _ => None,
    }
}

/// What a reply of an SMTP server means: the code, and the enhanced code behind it (RFC 3463 §3.4: x.3 is about the mail system).
pub(super) fn of_smtp(code: &[u8], words: &[u8]) -> Option<Class> {
    let enhanced = |begin: &[&[u8]]| begin.iter().any(|begin| words.starts_with(begin));
    match code {
        b"452" if !enhanced(&[b"4.5.3", b"4.2.2", b"4.1."]) => Some(Class::Trouble),
        b"421" | b"450" | b"451" | b"454" | b"554" if enhanced(&[b"4.3.", b"5.3."]) => Some(Class::Trouble),
        b"450" | b"451" => Some(Class::Usual),
        [b'5', ..] if is_policy(words) => Some(Class::Refused),
        _ => None,
    }
}

/// Whether a reply turns a mail down because of who sends it, and not for its recipient: x.7 is about security and policy (RFC 3463 §3.8),
/// older servers say it in words.
fn is_policy(words: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [b"relay", b"denied", b"not permitted", b"authenticat", b"blocked"];
    let enhanced = words.first() == Some(&b'5') && words.get(1) == Some(&b'.');
    if enhanced { words.starts_with(b"5.7.") } else { WORDS.into_iter().any(|word| super::holds(words, word)) }
}
