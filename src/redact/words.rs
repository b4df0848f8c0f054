//! Words that stay in messages: what protocols, servers and proxies say to everybody. No name, path, value or credential is looked up here
//! but by the few lists that say so.

use crate::wire::text::redis;

/// In capitals or not. Sorted, for the search.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "8bitmime", "_tcp", "a", "ab", "aborted", "about", "accept", "accept-encoding", "accepted", "access", "acct",
    "acme-challenge", "address", "administrator", "after", "again", "against", "agent", "aiohttp", "all", "allow",
    "allowed", "already", "amqp", "amqplain", "an", "and", "another", "any", "apache", "apachebench", "apop", "app",
    "applewebkit", "application", "apr", "argument", "arguments", "arp", "as", "ask", "asking", "at", "attempt",
    "attempts", "audio", "aug", "auth", "authenticate", "authentication", "authorization", "authorized", "available",
    "awselb", "axios", "backend", "bad", "badly", "balancer", "balancing", "basehttp", "basic", "be", "bearer",
    "because", "been", "before", "begin", "beginning", "being", "below", "between", "blocked", "body", "boundary", "br",
    "broken", "bucket", "busy", "busykey", "but", "by", "bye", "bytes", "cached", "caddy", "call", "called", "can",
    "cancel", "canceling", "cancelled", "cannot", "capa", "capabilities", "capability", "cause", "caused", "cdup",
    "center", "certificate", "challenge", "changed", "channel", "character", "charset", "check", "choices", "chrome",
    "chunked", "chunking", "cipher", "class", "cleartext", "client", "clients", "close", "closed", "closing",
    "cloudflare", "cloudfront", "cluster", "cluster_name", "clusterdown", "code", "codes", "comma", "command",
    "commands", "complete", "compress", "conf", "config", "conflict", "connack", "connect", "connected", "connecting",
    "connection", "connection-close", "connections", "contact", "content", "continue", "control", "cookie", "copyright",
    "could", "courier", "cowboy", "created", "crlf", "css", "curl", "current", "currently", "cwd", "cyrus", "data",
    "database", "db", "dbname", "deadline", "deadlock", "debian", "debug", "dec", "decoding", "default", "deflate",
    "del", "delete", "denied", "dependency", "detail", "details", "detected", "device", "did", "digest", "disabled",
    "discard", "disconnect", "disconnected", "disk", "div", "dmarc", "dns", "dns-sd", "do", "doctype", "document",
    "does", "domain", "domainkey", "domainkeys", "dovecot", "down", "dropbear", "dsn", "dst", "due", "during", "early",
    "ehlo", "elb-healthchecker", "empty", "en", "en_us", "enable", "enabled", "encoding", "encryption", "end", "ended",
    "enhancedstatuscodes", "enough", "entity", "entry", "envoy", "eprt", "epsv", "erlang", "err", "error", "errors",
    "esmtp", "ether", "etrn", "event", "event-stream", "exceed", "exceeded", "exceeds", "exception", "exec",
    "execabort", "execute", "exim", "exim4", "exists", "exit", "expect", "expectation", "expected", "expire", "expired",
    "expn", "extended", "fail", "failed", "failing", "failure", "fatal", "feat", "feb", "few", "field", "fields",
    "file", "filezilla", "firefox", "first", "flow", "flush-hosts", "following", "font", "for", "forbidden", "form",
    "form-data", "format", "found", "frame", "fri", "from", "frontend", "ftp", "ftpd", "full", "gateway", "gecko",
    "generic", "get", "gif", "gmt", "go", "go-http-client", "goaway", "gone", "googlehc", "got", "graceful_stop",
    "greater", "grpc", "grpc-go", "grpc-java", "grpc-node-js", "grpc-python", "gunicorn", "gzip", "h1", "h2", "h2c",
    "had", "handler", "handling", "handshake", "hapee", "haproxy", "has", "have", "hba", "head", "header", "headers",
    "health", "healthchecker", "healthy", "hello", "helo", "help", "hey", "hget", "host", "hostname", "hosts", "hour",
    "how", "hr", "href", "hset", "html", "http", "http-alt", "httpd", "https", "i", "icmp", "icmp6", "ico", "icy", "id",
    "ident", "identification", "identity", "idle_timeout", "if", "iis", "ill", "illegal", "image", "imap", "immutable",
    "implemented", "in", "inactive", "inbound", "incoming", "incorrect", "incr", "index", "inet", "info", "information",
    "input", "insufficient", "interface", "internal", "interrupted", "into", "invalid", "ip", "ip6", "is", "iso-8859-1",
    "issue", "it", "its", "jan", "java", "java-http-client", "javascript", "jetty", "jpeg", "json", "jul", "jun", "kb",
    "keep", "keep-alive", "keepalive", "kerberos", "kestrel", "key", "keys", "khtml", "killed", "known", "kube-probe",
    "large", "last", "later", "latest", "latin1", "ldap", "legal", "length", "less", "level", "lhlo", "li", "libssh",
    "licensed", "lighttpd", "like", "limit", "limited", "line", "link", "list", "listen", "listener", "load", "loading",
    "local", "locales", "location", "lock", "locked", "log", "login", "logon", "logout", "long", "longer", "look",
    "loop", "lpush", "mail", "malformed", "many", "mar", "mariadb", "mask", "master", "masterauth", "masterdown",
    "match", "max", "max-age", "max_age", "max_user_connections", "maxclients", "maximum", "maxmemory", "maxstartups",
    "may", "md5", "mechanisms", "media", "memory", "message", "messages", "meta", "method", "mget", "microsoft", "min",
    "minimum", "misconf", "mismatch", "missing", "mixed", "mode", "modified", "mon", "monday", "monitor", "more",
    "mosquitto", "moved", "mozilla", "mpl", "mqisdp", "mqtt", "mset", "multi", "multipart", "multiple", "must",
    "must-revalidate", "my", "mysql", "mysqladmin", "nacked", "name", "name-resolve", "names", "ndjson", "need",
    "needed", "negotiate", "net", "network", "never", "new", "next", "nginx", "nil", "no", "no-cache", "no-store",
    "noauth", "node", "nodejs", "none", "noop", "noperm", "noreplicas", "noreply", "noscript", "nosniff", "not",
    "nothing", "nov", "now", "ntlm", "null", "number", "oct", "octet-stream", "of", "off", "ok", "okhttp", "old", "on",
    "one", "only", "oom", "op", "open", "opened", "openresty", "openssh", "openssl", "option", "options", "or", "order",
    "other", "otp", "our", "out", "outbound", "over", "own", "p", "packet", "packets", "page", "parameter",
    "parameters", "parse", "parsing", "part", "partial", "pass", "passed", "password", "pasv", "path", "payload",
    "peer", "per", "permanent", "permanently", "permission", "permitted", "persist", "pg", "php", "ping",
    "ping_timeout", "pipelining", "plain", "plaintext", "plan", "platform", "please", "png", "pong", "pop", "pop3",
    "port", "portrange", "ports", "post", "postfix", "postgres", "postgresql", "pre", "preauth", "precondition",
    "preface", "previous", "pri", "private", "problem", "process", "processing", "product", "proftpd", "program",
    "prohibited", "property", "proto", "protocol", "proxy", "proxy-revalidate", "psk", "public", "publish", "pure-ftpd",
    "put", "pwd", "python", "python-requests", "q", "query", "queue", "queued", "quit", "quota", "rabbitmq", "range",
    "rate", "rcpt", "reached", "read", "read-only", "readonly", "ready", "reason", "reasons", "received", "recipient",
    "reconnect", "recovery", "redirect", "redis", "refused", "reject", "rejected", "relay", "released", "remaining",
    "remote", "remove", "replica", "reply", "request", "requested", "requests", "require", "required", "requires",
    "reserved", "reset", "resolve", "resource", "resources", "response", "responses", "restart", "restarting", "result",
    "retr", "retry", "return", "returned", "revalidate", "role", "router", "rpush", "rset", "rst", "run", "running",
    "s-maxage", "safari", "safe", "same", "sasl", "sat", "satisfiable", "scheme", "scram", "script", "secret", "secure",
    "security", "see", "select", "send", "sender", "sending", "sendmail", "sent", "sep", "sequence", "server",
    "servers", "service", "service-discovery", "services", "session", "set", "settings", "severity", "sha", "sha-256",
    "should", "shutdown", "shutting", "simplehttp", "sip", "sips", "size", "skip", "slave", "slot", "slots", "sm",
    "smtp", "smtputf8", "snapshots", "socket", "socks", "socks4", "socks5", "some", "something", "soon", "sorry",
    "space", "span", "speaking", "sqlstate", "src", "ssh", "sshd", "ssl", "ssl-enabled", "sslv2", "sslv3", "standby",
    "start", "started", "starting", "starttls", "startup", "state", "statement", "status", "still", "stls", "stop",
    "stopped", "stor", "storage", "stream", "stream-json", "strict", "string", "style", "subject", "subscribe",
    "success", "such", "sun", "superuser", "support", "supported", "svg", "syntax", "syst", "system", "table",
    "tablespace", "tcp", "tcp4", "tcp6", "tcpdump", "teapot", "temp", "temp_file_limit", "temporarily", "temporary",
    "tengine", "terminating", "text", "than", "that", "the", "their", "them", "then", "there", "these", "they", "this",
    "throttled", "thu", "time", "timed", "timeout", "title", "tls", "tlsv1", "to", "to-tls", "token", "tomcat", "too",
    "too_many_pings", "took", "top", "topic", "total", "traefik", "trailers", "transaction", "transfer", "transport",
    "try", "tryagain", "trying", "ttl", "ttp", "tue", "tuesday", "type", "ubuntu", "udp", "uidl", "ul", "unable",
    "unacceptable", "unauthorized", "unavailable", "unbound", "undertow", "unexpected", "unix", "unkillable", "unknown",
    "unrecognized", "unspec", "unsupported", "until", "unusable", "unwatch", "up", "update", "upgrade", "upstream",
    "uri", "url", "us", "use", "used", "user", "user-agent", "username", "using", "utf", "utf-8", "utf8", "uvicorn",
    "v", "valid", "value", "values", "varnish", "version", "versions", "very", "vhost", "via", "video", "violation",
    "virtual", "vlan", "vrfy", "vsftpd", "wait", "waiting", "want", "wanted", "warn", "warning", "was", "watch", "way",
    "we", "webp", "websocket", "wed", "welcome", "went", "were", "werkzeug", "wget", "what", "when", "where", "which",
    "while", "who", "why", "will", "with", "within", "without", "woff", "woff2", "word", "work", "worker", "would",
    "write", "wrk", "wrong", "wrongpass", "wrongtype", "www", "x-www-form-urlencoded", "xml", "xmpp-client", "yes",
    "yet", "you", "your", "zero", "zone",
];

/// Labels that have a meaning wherever they stand last in a name.
const LAST_LABELS: &[&str] = &["arpa", "home", "lan", "local", "localdomain", "localhost"];
/// Labels that have a meaning wherever they stand first.
const FIRST_LABELS: &[&str] = &["isatap", "teredo", "wpad", "localhost"];
/// Ends of names in which clouds and clusters hide many machines (`host::known`), longest first.
const SUFFIXES: &[&[&str]] = &[
    &["elb", "amazonaws", "com"],
    &["svc", "cluster", "local"],
    &["cloudfront", "net"],
    &["azurefd", "net"],
    &["trafficmanager", "net"],
    &["fastly", "net"],
    &["akamaiedge", "net"],
    &["in-addr", "arpa"],
    &["ip6", "arpa"],
];
/// Parts of request targets by which long polling and calls of gRPC's own services are told from others.
pub(super) const TARGETS: &[&[u8]] =
    &[b"poll", b"watch", b"wait", b"timeout", b"subscribe", b"stream", b"events", b"comet", b"feed"];
/// Application protocols of TLS.
const ALPN: &[&[u8]] = &[
    b"h2",
    b"h2c",
    b"h3",
    b"http/0.9",
    b"http/1.0",
    b"http/1.1",
    b"spdy/1",
    b"spdy/2",
    b"spdy/3",
    b"acme-tls/1",
    b"mqtt",
    b"postgresql",
    b"grpc-exp",
    b"imap",
    b"pop3",
    b"smtp",
    b"ftp",
    b"xmpp-client",
    b"xmpp-server",
    b"dot",
    b"doq",
    b"stun.turn",
    b"stun.nat-discovery",
    b"webrtc",
    b"c-webrtc",
    b"coap",
    b"managesieve",
    b"istio",
    b"istio-peer-exchange",
    b"istio-http/1.0",
    b"istio-http/1.1",
    b"istio-h2",
    b"redis",
    b"irc",
    b"nntp",
    b"nnsp",
    b"sunrpc",
    b"tds/8.0",
];

/// Whether a word says the same to everybody.
pub(super) fn is_common(word: &[u8]) -> bool {
    let mut lower = [0; 32];
    let Some(slot) = lower.get_mut(..word.len()) else { return false };
    slot.copy_from_slice(word);
    slot.make_ascii_lowercase();
    let slot = &*slot;
    WORDS.binary_search_by(|known| known.as_bytes().cmp(slot)).is_ok() || redis::is_command(slot)
}

/// Whether an application protocol is one of those that have a name.
pub(super) fn is_alpn(name: &[u8]) -> bool {
    ALPN.contains(&name)
}

/// How many of the last labels of a name stay.
pub(super) fn public_labels(labels: &[&[u8]]) -> usize {
    let fits = |suffix: &&&[&str]| {
        let start = labels.len().checked_sub(suffix.len());
        let end = start.and_then(|start| labels.get(start..)).unwrap_or(&[]);
        end.len() == suffix.len() && end.iter().zip(suffix.iter()).all(|(a, b)| a.eq_ignore_ascii_case(b.as_bytes()))
    };
    if let Some(suffix) = SUFFIXES.iter().find(fits) {
        return suffix.len();
    }
    let last = |label: &&[u8]| LAST_LABELS.iter().any(|known| label.eq_ignore_ascii_case(known.as_bytes()));
    usize::from(labels.last().is_some_and(last))
}

/// Whether the first label of a name stays.
pub(super) fn is_first_label(label: &[u8]) -> bool {
    FIRST_LABELS.iter().any(|known| label.eq_ignore_ascii_case(known.as_bytes()))
        // Kinds of services and records: _tcp, _acme-challenge.
        || label.strip_prefix(b"_").is_some_and(is_common)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_can_be_searched() {
        assert!(WORDS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(WORDS.iter().all(|word| *word == word.to_ascii_lowercase() && word.len() <= 32));
        assert!(is_common(b"HTTP") && is_common(b"Gateway") && !is_common(b"payments"));
    }

    #[test]
    fn names_of_clouds_keep_their_ends() {
        let labels = |name: &'static str| name.split('.').map(str::as_bytes).collect::<Vec<_>>();
        assert_eq!(public_labels(&labels("my-lb.eu-west-1.elb.amazonaws.com")), 3);
        assert_eq!(public_labels(&labels("printer.local")), 1);
        assert_eq!(public_labels(&labels("www.example.com")), 0);
        assert_eq!(public_labels(&[]), 0);
    }
}
