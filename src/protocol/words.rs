//! First words of services that need no analyzer: who greets how, and what a client of theirs says first.

use super::Sample;
use crate::event::{Protocol, Side};
use crate::wire::Recognition;
use crate::wire::text::{Greeting, mysql, postgres, redis, smtp, ssh};

pub(super) fn ssh(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => ssh::looks_like_client(sample.bytes),
        Side::Server => ssh::looks_like_server(sample.bytes),
    }
}

pub(super) fn smtp(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => smtp::looks_like_client(sample.bytes),
        Side::Server => smtp::looks_like_server(sample.bytes),
    }
}

/// The server speaks first; what its client answers means nothing without the greeting.
pub(super) fn mysql(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => Recognition::No,
        Side::Server => mysql::looks_like_server(sample.bytes),
    }
}

pub(super) fn postgres(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => postgres::looks_like_client(sample.bytes),
        Side::Server => postgres::looks_like_server(sample.bytes),
    }
}

pub(super) fn redis(sample: &Sample<'_>) -> Recognition {
    match sample.side {
        Side::Client => redis::looks_like_client(sample.bytes),
        Side::Server => redis::looks_like_server(sample.bytes),
    }
}

/// The server's first message, read.
pub(super) fn greeting(protocol: Protocol, bytes: &[u8]) -> Option<Greeting> {
    match protocol {
        Protocol::Ssh => ssh::greeting(bytes),
        Protocol::Smtp => smtp::greeting(bytes),
        Protocol::Mysql => mysql::greeting(bytes),
        Protocol::Postgres => postgres::greeting(bytes),
        Protocol::Redis => redis::greeting(bytes),
        _ => None,
    }
}
