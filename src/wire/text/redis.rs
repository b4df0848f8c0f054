//! Redis: commands as RESP arrays or in one line, and the answers that name the protocol. redis.io, "Redis serialization protocol".

use super::failure::{Failure, Message, of_redis};
use super::{Greeting, LONGEST, LONGEST_LINE, first_line};
use crate::wire::Recognition;

/// Commands with which connections begin, in lower case; others are not believed in their one-line form.
const INLINE: [&[u8]; 12] = [
    b"ping",
    b"auth",
    b"hello",
    b"info",
    b"get",
    b"set",
    b"del",
    b"select",
    b"client",
    b"config",
    b"monitor",
    b"subscribe",
];

/// First words of refusals, which other protocols do not use.
const REFUSALS: [&[u8]; 11] = [
    b"-ERR ",
    b"-DENIED ",
    b"-NOAUTH ",
    b"-WRONGPASS ",
    b"-NOPERM ",
    b"-LOADING ",
    b"-MISCONF ",
    b"-READONLY ",
    b"-OOM ",
    b"-MASTERDOWN ",
    b"-CLUSTERDOWN ",
];

/// Commands that are answered at once, whatever they find. Not among them: what waits on purpose (BLPOP, XREAD, SUBSCRIBE, WAIT), what
/// runs somebody's script (EVAL, FCALL, EXEC), what goes through many keys (KEYS, SORT, SUNION), and what moves a whole data set.
const QUICK: [&str; 92] = [
    "APPEND",
    "BITCOUNT",
    "DECR",
    "DECRBY",
    "DEL",
    "ECHO",
    "EXISTS",
    "EXPIRE",
    "EXPIREAT",
    "GET",
    "GETBIT",
    "GETDEL",
    "GETEX",
    "GETRANGE",
    "GETSET",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HINCRBY",
    "HINCRBYFLOAT",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HMSET",
    "HSCAN",
    "HSET",
    "HSETNX",
    "HVALS",
    "INCR",
    "INCRBY",
    "INCRBYFLOAT",
    "LINDEX",
    "LINSERT",
    "LLEN",
    "LMOVE",
    "LPOP",
    "LPOS",
    "LPUSH",
    "LPUSHX",
    "LRANGE",
    "LREM",
    "LSET",
    "LTRIM",
    "MGET",
    "MSET",
    "MSETNX",
    "PERSIST",
    "PEXPIRE",
    "PEXPIREAT",
    "PFADD",
    "PFCOUNT",
    "PING",
    "PSETEX",
    "PTTL",
    "PUBLISH",
    "RPOP",
    "RPOPLPUSH",
    "RPUSH",
    "RPUSHX",
    "SADD",
    "SCARD",
    "SET",
    "SETBIT",
    "SETEX",
    "SETNX",
    "SETRANGE",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SPOP",
    "SRANDMEMBER",
    "SREM",
    "STRLEN",
    "TOUCH",
    "TTL",
    "TYPE",
    "UNLINK",
    "XACK",
    "XADD",
    "XLEN",
    "ZADD",
    "ZCARD",
    "ZCOUNT",
    "ZINCRBY",
    "ZRANGE",
    "ZRANGEBYSCORE",
    "ZRANK",
    "ZREM",
    "ZREVRANGE",
    "ZREVRANK",
    "ZSCORE",
];

/// Commands by which a check asks whether the server is there and how it does, and a library says who it is: no work is lost with them.
const NO_WORK: [&str; 22] = [
    "ACL", "AUTH", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "ECHO", "HELLO", "INFO", "LASTSAVE", "LATENCY",
    "MEMORY", "MODULE", "PING", "QUIT", "READONLY", "RESET", "ROLE", "SELECT", "SENTINEL", "SLOWLOG",
];

/// Whether a word is the name of a command that is known here.
pub fn is_command(word: &[u8]) -> bool {
    quick(word).is_some() || !is_work(word)
}

/// The name of a command that is answered at once, whatever it finds; `None` where it may take its time.
pub fn quick(command: &[u8]) -> Option<&'static str> {
    QUICK.into_iter().find(|quick| command.eq_ignore_ascii_case(quick.as_bytes()))
}

/// Whether an application loses something when this command is refused.
pub fn is_work(command: &[u8]) -> bool {
    !NO_WORK.into_iter().any(|other| command.eq_ignore_ascii_case(other.as_bytes()))
}

/// Whether an error with this first word refuses a login, or work for want of one. Checks that know no password take NOAUTH for a sign of
/// life, and libraries say who they are before they log in.
pub fn wants_a_login(word: &str, work: bool) -> bool {
    word == "WRONGPASS" || word == "NOAUTH" && work
}

/// Whether a client's stream begins with a command.
pub fn looks_like_client(bytes: &[u8]) -> Recognition {
    if bytes.first() == Some(&b'*') {
        return looks_like_array(bytes);
    }
    if bytes.first().is_some_and(|octet| !octet.is_ascii_alphabetic()) {
        return Recognition::No;
    }
    let word: Vec<u8> =
        bytes.iter().take_while(|octet| octet.is_ascii_alphabetic()).take(16).map(u8::to_ascii_lowercase).collect();
    if !INLINE
        .iter()
        .any(|command| if word.len() == bytes.len() { command.starts_with(&word) } else { *command == word })
    {
        return Recognition::No;
    }
    let Some(line) = first_line(bytes) else { return Recognition::NeedMore };
    // "GET / HTTP/1.1" is no command, nor is what other protocols write in one line behind the same word.
    let printable = line.is_some_and(|line| line.iter().all(|octet| matches!(octet, b' '..=b'~')));
    let target = line.is_some_and(|line| {
        memchr::memmem::find(line, b" /").is_some() || memchr::memmem::find(line, b"://").is_some()
    });
    if printable && !target && !line.is_some_and(of_memcached) { Recognition::Yes } else { Recognition::No }
}

/// `set KEY FLAGS EXPTIME OCTETS`, `noreply` behind it or not: memcached's text protocol stores so (its protocol.txt).
fn of_memcached(line: &[u8]) -> bool {
    let mut words = line.trim_ascii().split(|octet| *octet == b' ');
    let stores = matches!(words.next(), Some(b"set" | b"append"));
    let numbers = words.by_ref().skip(1).take(3).filter(|word| !word.is_empty() && word.iter().all(u8::is_ascii_digit));
    stores && numbers.count() == 3 && words.next().is_none_or(|word| word == b"noreply")
}

/// `*N\r\n$`: an array of bulk strings.
fn looks_like_array(bytes: &[u8]) -> Recognition {
    let digits = bytes.iter().skip(1).take_while(|octet| octet.is_ascii_digit()).count();
    let behind = bytes.get(1 + digits..).unwrap_or(&[]);
    match (digits, behind) {
        (0..=7, []) => Recognition::NeedMore,
        (1..=7, _) => Recognition::of_prefix(behind, b"\r\n$"),
        _ => Recognition::No,
    }
}

/// Whether a server's stream begins with an answer of Redis.
pub fn looks_like_server(bytes: &[u8]) -> Recognition {
    match bytes.first() {
        None => Recognition::NeedMore,
        Some(b'+') => any_of([&b"+OK\r\n"[..], b"+PONG\r\n", b"+QUEUED\r\n"].into_iter(), bytes),
        Some(b'-') => any_of(REFUSALS.into_iter(), bytes),
        Some(b'$' | b':' | b'*' | b'%') => looks_like_number(bytes),
        Some(_) => Recognition::No,
    }
}

fn any_of<'a>(words: impl Iterator<Item = &'a [u8]>, bytes: &[u8]) -> Recognition {
    let mut verdicts = words.map(|word| Recognition::of_prefix(bytes, word));
    verdicts.find(|verdict| *verdict != Recognition::No).unwrap_or(Recognition::No)
}

/// A type octet, a number, a line end.
fn looks_like_number(bytes: &[u8]) -> Recognition {
    let rest = bytes.get(1..).unwrap_or(&[]);
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let digits = rest.iter().take_while(|octet| octet.is_ascii_digit()).count();
    match (digits, rest.get(digits..).unwrap_or(&[])) {
        (0..=19, []) => Recognition::NeedMore,
        (1..=19, behind) => Recognition::of_prefix(behind, b"\r\n"),
        _ => Recognition::No,
    }
}

/// The server's first line, without its type octet. The words of the protected mode are longer than any line is looked at: their beginning
/// says enough.
pub fn greeting(bytes: &[u8]) -> Option<Greeting> {
    if looks_like_server(bytes) != Recognition::Yes {
        return None;
    }
    let (kind, text) = match first_line(bytes)? {
        Some(line) => line.split_first()?,
        None => bytes.get(..LONGEST)?.split_first().filter(|(kind, _)| **kind == b'-')?,
    };
    Some(Greeting::new(text, None, *kind == b'-'))
}

/// What stands at the beginning of a value of a server's answer. Arrays need no memory: their values stand behind one another.
pub fn message(bytes: &[u8], _login: bool) -> Message {
    let Some(kind) = bytes.first() else { return Message::Partial };
    // What follows +FULLRESYNC is a file.
    if !b"+-:$*_,#!=(%~>|".contains(kind) || bytes.starts_with(b"+FULLRESYNC") {
        return Message::Lost;
    }
    let Some(end) = memchr::memchr(b'\n', bytes.get(..LONGEST_LINE).unwrap_or(bytes)) else {
        return if bytes.len() < LONGEST_LINE { Message::Partial } else { Message::Lost };
    };
    let (line, all) = (bytes.get(1..end).unwrap_or(&[]).trim_ascii_end(), end as u64 + 1);
    match kind {
        // A string with its length: so many octets, and a line end. -1 stands for none.
        b'$' | b'!' | b'=' => match std::str::from_utf8(line).ok().and_then(|line| line.parse::<i64>().ok()) {
            Some(len @ 0..) => Message::Usual(all + len.unsigned_abs() + 2),
            Some(_) => Message::Usual(all),
            None => Message::Lost,
        },
        b'-' => {
            let word = line.split(|octet| *octet == b' ').next().unwrap_or(line);
            of_redis(word).map_or(Message::Usual(all), |class| Message::Failed(all, Failure::new(class, word, line)))
        }
        _ => Message::Usual(all),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_refusal_longer_than_a_line_is_told_by_its_beginning() {
        let text = [&b"-DENIED Redis is running in protected mode"[..], &[b'x'; 900], b"\r\n"].concat();
        let words = greeting(&text).expect("a refusal");
        assert!(words.refuses && words.text.starts_with("DENIED Redis"), "{words:?}");
    }

    #[test]
    fn commands_are_recognised() {
        let command = b"*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n";
        for end in 0..command.len() {
            let expected = if end < 5 { Recognition::NeedMore } else { Recognition::Yes };
            assert_eq!(looks_like_client(&command[..end]), expected, "{end}");
        }
        for (text, expected) in [
            ("PING\r\n", Recognition::Yes),
            ("info server\r\n", Recognition::Yes),
            ("GET key\r\n", Recognition::Yes),
            ("PIN", Recognition::NeedMore),
            ("GET / HTTP/1.1\r\n", Recognition::No),
            ("GET http://a/ HTTP/1.1\r\n", Recognition::No),
            ("PINGS\r\n", Recognition::No),
            ("EHLO a\r\n", Recognition::No),
            ("set key 0 60 5\r\n", Recognition::No),
            ("set key 0 0 3 noreply\r\n", Recognition::No),
            ("set key value\r\n", Recognition::Yes),
            ("set key 5 ex 60\r\n", Recognition::Yes),
            ("* OK IMAP4rev1\r\n", Recognition::No),
            ("*1\r\nx", Recognition::No),
            ("*123456789", Recognition::No),
        ] {
            assert_eq!(looks_like_client(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn answers_and_refusals_are_read() {
        for (text, shown, refuses) in [
            ("+OK\r\n", "OK", false),
            ("$-1\r\n", "-1", false),
            (":42\r\n", "42", false),
            ("-NOAUTH Authentication required.\r\n", "NOAUTH Authentication required.", true),
            ("-DENIED Redis is running in protected mode\r\n", "DENIED Redis is running in protected mode", true),
            ("-ERR max number of clients reached\r\n", "ERR max number of clients reached", true),
        ] {
            assert_eq!(greeting(text.as_bytes()), Some(Greeting::new(shown.as_bytes(), None, refuses)), "{text}");
            for end in 0..text.len() {
                assert_ne!(looks_like_server(&text.as_bytes()[..end]), Recognition::No, "{text} {end}");
                assert_eq!(greeting(&text.as_bytes()[..end]), None, "{text} {end}");
            }
        }
    }

    #[test]
    fn other_servers_are_none() {
        for text in ["+OK POP3 ready\r\n", "* OK IMAP4rev1\r\n", "-----BEGIN", "HTTP/1.1 200", "220 x"] {
            assert_eq!(looks_like_server(text.as_bytes()), Recognition::No, "{text}");
        }
    }

    #[test]
    fn answers_are_stepped_over_and_trouble_is_read() {
        assert_eq!(message(b"$5\r\nhello\r\n", false), Message::Usual(11));
        assert_eq!((message(b"$-1\r\n", false), message(b"*2\r\n", false)), (Message::Usual(5), Message::Usual(4)));
        assert_eq!((message(b"-OOM comm", false), message(b"hello", false)), (Message::Partial, Message::Lost));
        let text = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n";
        let Message::Failed(len, failure) = message(text, false) else { panic!("trouble") };
        assert_eq!((len, failure.code.as_str()), (text.len() as u64, "OOM"));
        assert_eq!(failure.text, "OOM command not allowed when used memory > 'maxmemory'.");
        for daily in [&b"-MOVED 3999 127.0.0.1:6381\r\n"[..], b"-WRONGTYPE x\r\n", b"-ERR unknown command\r\n"] {
            assert_eq!(message(daily, false), Message::Usual(daily.len() as u64));
        }
    }

    proptest! {
        #[test]
        fn no_octets_panic(bytes: Vec<u8>, text in "[-+$:*%A-Z0-9 \r\n]{0,30}") {
            for bytes in [&bytes[..], text.as_bytes()] {
                looks_like_client(bytes);
                message(bytes, false);
                greeting(bytes);
            }
        }
    }
}
