//! What no packet shows: the connections a host has open, as `ss -tnpoi` of iproute2 tells them.
//!
//! A connection on which both sides wait sends nothing, for ever; no capture that begins later shows it. The kernel knows who spoke last
//! and how long ago (tcp_info: `tcpi_last_data_sent`, `tcpi_last_data_recv`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::time::Elapsed;
use crate::wire::Endpoint;

/// A snapshot of a host's TCP sockets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sockets {
    /// Those that are established.
    pub established: Vec<Socket>,
    /// Ports somebody listens on, as far as the snapshot tells.
    listening: BTreeSet<u16>,
}

/// One established socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Socket {
    /// This host's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Octets that were sent and not acknowledged yet.
    pub unacknowledged: u64,
    /// Octets received that the program did not read.
    pub unread: u64,
    /// The kernel will do something about it by itself: a keep-alive probe, a retransmission.
    pub timer: bool,
    /// Since it sent something.
    pub sent: Option<Elapsed>,
    /// Since it received something.
    pub received: Option<Elapsed>,
    /// Octets the peer acknowledged, the SYN counted.
    pub delivered: u64,
    /// Octets received.
    pub heard: u64,
    /// The program, where the snapshot names it.
    pub program: Option<String>,
}

/// Connections to one server that wait for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// The server.
    pub server: Endpoint,
    /// How many there are.
    pub count: u64,
    /// The longest wait.
    pub longest: Elapsed,
    /// Of them, how many nothing will ever end: no timer runs.
    pub for_ever: u64,
    /// The program behind the first, where it is known.
    pub program: Option<String>,
}

/// Sockets kept of a snapshot.
const MOST: usize = 65_536;
/// Who answered and then was told something short may have the last word: only what was sent so much later than the latest octet came
/// is a question.
const AFTER: Elapsed = Elapsed::millis(500);

impl Sockets {
    /// Reads the output of `ss -tn` with `-i`, and `-p`, `-o`, `-a` and `-H` as may be. Lines it cannot read are passed over.
    pub fn parse(text: &str) -> Self {
        let mut sockets = Self::default();
        let mut open = false;
        for line in text.lines() {
            if line.starts_with([' ', '\t']) {
                if open && let Some(socket) = sockets.established.last_mut() {
                    socket.details(line);
                }
                continue;
            }
            let mut words = line.split_whitespace();
            let state = words.next().unwrap_or("");
            open = state == "ESTAB" && sockets.established.len() < MOST;
            if open {
                match Socket::of(words) {
                    Some(socket) => sockets.established.push(socket),
                    None => open = false,
                }
            } else if state == "LISTEN" {
                let port = words.nth(2).and_then(|end| end.rsplit(':').next()?.parse::<u16>().ok());
                sockets.listening.extend(port);
            }
        }
        sockets
    }

    /// Servers for which connections of this host wait at least for `patience`: everything sent was acknowledged, and it spoke last.
    /// `seen` tells connections that sent packets while the capture ran. The most waited for come first.
    pub fn waiting(&self, patience: Elapsed, seen: impl Fn(&Socket) -> bool) -> Vec<Waiting> {
        let mut servers: BTreeMap<Endpoint, Waiting> = BTreeMap::new();
        for socket in self.established.iter().filter(|socket| self.asks(socket) && !seen(socket)) {
            let Some(wait) = socket.waits().filter(|wait| *wait >= patience) else { continue };
            let server = servers.entry(socket.peer).or_insert_with(|| Waiting {
                server: socket.peer,
                count: 0,
                longest: wait,
                for_ever: 0,
                program: socket.program.clone(),
            });
            server.count += 1;
            server.for_ever += u64::from(!socket.timer);
            server.longest = server.longest.max(wait);
        }
        let mut all: Vec<Waiting> = servers.into_values().collect();
        all.sort_by_key(|waiting| (std::cmp::Reverse(waiting.count), waiting.server));
        all
    }

    /// Programs that an earlier snapshot, made with more rights, knew.
    pub fn remember(&mut self, earlier: &Self) {
        let known = |socket: &Socket| ((socket.local, socket.peer), socket.program.clone());
        let programs: BTreeMap<_, _> = earlier.established.iter().map(known).collect();
        for socket in self.established.iter_mut().filter(|socket| socket.program.is_none()) {
            socket.program = programs.get(&(socket.local, socket.peer)).cloned().flatten();
        }
    }

    /// Whether this host began the connection. A port that somebody listens on is no client's; else clients have the higher port.
    fn asks(&self, socket: &Socket) -> bool {
        !self.listening.contains(&socket.local.port) && socket.local.port > socket.peer.port
    }
}

impl Socket {
    /// The words of its line behind the state: both queues, both ends, then what `-p` and `-o` add.
    fn of<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let (unread, unacknowledged) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (local, peer) = (end(words.next()?)?, end(words.next()?)?);
        let mut socket = Self {
            local,
            peer,
            unacknowledged,
            unread,
            timer: false,
            sent: None,
            received: None,
            delivered: 0,
            heard: 0,
            program: None,
        };
        for word in words {
            socket.timer |= word.starts_with("timer:");
            if let Some(users) = word.strip_prefix("users:((\"") {
                // A process chooses its name.
                let plain = |c: &char| c.is_ascii_alphanumeric() || "._-:+@".contains(*c);
                socket.program = users.split('"').next().map(|name| name.chars().filter(plain).take(64).collect());
            }
        }
        Some(socket)
    }

    /// The words of the line that `-i` adds.
    fn details(&mut self, line: &str) {
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once(':')) {
            let number = value.parse::<u64>().ok();
            let since = number.and_then(|ms| i64::try_from(ms).ok()).map(Elapsed::millis);
            match name {
                "lastsnd" => self.sent = since,
                "lastrcv" => self.received = since,
                "bytes_acked" => self.delivered = number.unwrap_or(0),
                "bytes_received" => self.heard = number.unwrap_or(0),
                _ => {}
            }
        }
    }

    /// How long it has waited for an answer; `None` when it does not, or nothing tells.
    fn waits(&self) -> Option<Elapsed> {
        let sent = self.sent?;
        // One of the octets acknowledged is the SYN.
        if self.delivered < 2 || self.unacknowledged > 0 || self.unread > 0 {
            return None;
        }
        let after = self.received.is_none_or(|received| received.0.saturating_sub(sent.0) >= AFTER.0);
        (self.heard == 0 || after).then_some(sent)
    }
}

/// `192.0.2.7:443`, `[2001:db8::7]:443`, `[fe80::1%eth0]:443`, `192.0.2.7%eth0:443`.
fn end(text: &str) -> Option<Endpoint> {
    let mut plain = String::with_capacity(text.len());
    let mut zone = false;
    for c in text.chars() {
        zone = (zone || c == '%') && !matches!(c, ']' | ':');
        if !zone {
            plain.push(c);
        }
    }
    let end: SocketAddr = plain.parse().ok()?;
    let ip = match end.ip() {
        // A socket for both families names IPv4 so.
        std::net::IpAddr::V6(address) => {
            address.to_ipv4_mapped().map_or(std::net::IpAddr::V6(address), std::net::IpAddr::V4)
        }
        address => address,
    };
    Some(Endpoint::new(ip.into(), end.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iproute2 6.1 prints it; the first waits for its first answer, the second was answered and idles, the third asked again.
    const SS: &str = r#"State Recv-Q Send-Q Local Address:Port  Peer Address:Port Process
LISTEN 0      128          0.0.0.0:50000      0.0.0.0:*     users:(("x",pid=1,fd=4))
ESTAB 0      0      [2001:db8::7]:56080    [2001:db8:ba2::100]:80  users:(("httpd",pid=6481,fd=4))
	 ts sack cubic wscale:10,10 rto:204 bytes_sent:21 bytes_acked:22 segs_out:3 lastsnd:18720000 lastrcv:18720003 lastack:18720000
ESTAB 0      0          10.0.0.7:42760     10.0.0.9%eth0:8124  users:(("app",pid=1,fd=7)) timer:(keepalive,119min,0)
	 ts bytes_sent:90 bytes_acked:91 bytes_received:700 lastsnd:90000 lastrcv:89990 lastack:89990
ESTAB 0      0          10.0.0.7:42761     10.0.0.9:8124  timer:(keepalive,119min,0)
	 ts bytes_sent:90 bytes_acked:91 bytes_received:700 lastsnd:90000 lastrcv:150000 lastack:90000
ESTAB 0      30         10.0.0.7:42762     10.0.0.9:8124
	 ts bytes_sent:90 bytes_acked:91 lastsnd:90000 lastrcv:150000
ESTAB 0      0   [::ffff:10.0.0.7]:50000   [::ffff:10.0.0.8]:41000
	 ts bytes_sent:90 bytes_acked:91 bytes_received:70 lastsnd:90000 lastrcv:150000
"#;

    #[test]
    fn who_spoke_last_and_was_not_answered_waits() {
        let sockets = Sockets::parse(SS);
        assert_eq!(sockets.established.len(), 5);
        let waiting = sockets.waiting(Elapsed::secs(60), |_| false);
        let told: Vec<(String, u64, String, u64, Option<&str>)> = waiting
            .iter()
            .map(|one| {
                (one.server.to_string(), one.count, one.longest.to_string(), one.for_ever, one.program.as_deref())
            })
            .collect();
        // Neither who was answered, nor who still sends, nor the end somebody else connected to.
        assert_eq!(
            told,
            [
                ("10.0.0.9:8124".into(), 1, "90.0 s".into(), 0, None),
                ("[2001:db8:ba2::100]:80".into(), 1, "5 h 12 min".into(), 1, Some("httpd")),
            ]
        );
        assert_eq!(sockets.waiting(Elapsed::secs(100), |_| false).len(), 1);
        assert!(sockets.waiting(Elapsed::secs(60), |_| true).is_empty());
    }

    #[test]
    fn what_is_no_output_of_ss_holds_no_socket() {
        for text in
            ["", "ESTAB", "ESTAB 0 0", "ESTAB a b c d", "\t lastsnd:5", "ESTAB 0 0 [::1:5 :::", "\u{1b}[31m\n ESTAB"]
        {
            assert!(Sockets::parse(text).established.is_empty(), "{text:?}");
        }
        let odd = Sockets::parse(
            "ESTAB 0 0 10.0.0.7:42760 10.0.0.9:1 users:((\"\n\t lastsnd:99999999999999999999 bytes_acked:x\n",
        );
        assert_eq!((odd.established.len(), odd.waiting(Elapsed::ZERO, |_| false).len()), (1, 0));
    }
}
