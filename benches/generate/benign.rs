//! Flows that look odd and are well: the benign patterns of false-alarm lists, one function each.

use super::{ACK, Conversation, EVENT_STREAM, FIN, PSH, RST, Random, SYN, messages};

/// Explicit congestion notification, asked for on the SYN (RFC 3168 §6.1.1).
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
/// Its address, or the last octets of it.
const LOAD_BALANCER: u32 = 0x0a01_0001;
/// One second in the generator's unit.
const SECOND: u64 = 1_000_000;

/// A pattern: its server port and what is said.
pub(super) type Pattern = (u16, fn(&mut Conversation, &mut Random));

/// All of them.
pub(super) const PATTERNS: &[Pattern] = &[
    (80, reset_after_fin),
    (443, reset_after_close_notify),
    (443, preconnect),
    (80, check_by_load_balancer),
    (8080, keepalive_probes),
    (80, short_zero_window),
    (80, tail_loss_probe),
    (8080, begins_mid_stream),
    (443, no_close_notify),
    (80, half_close),
    (8080, event_stream),
    (8080, websocket),
    (8080, long_poll),
    (80, idle_keepalive_closed_by_server),
    (80, answers_without_body),
    (80, length_by_close),
    (80, credentials_asked_for),
    (80, continue_100),
    (1443, proxy_header_taken),
    (443, congestion_notification),
    (80, reset_after_last_answer),
    (80, timeout_408),
    (53, no_such_record),
    (80, fast_retry_of_syn_ack),
    (80, check_by_http),
    (80, cancelled_download),
    (443, happy_eyeballs),
    (53, search_list),
    (80, one_syn_retry),
];

impl Conversation {
    fn ask(&mut self, random: &mut Random) {
        self.send(0, PSH | ACK, &messages::request(&messages::name(random), random));
        self.at += self.rtt + 300 + random.below(5_000);
    }

    fn tell(&mut self, octets: &[u8]) {
        self.segments(1, octets);
        self.acknowledge(0);
    }

    fn exchange(&mut self, random: &mut Random) {
        self.ask(random);
        self.tell(&messages::answer(random.below(2_800)));
    }

    fn tls_handshake(&mut self, random: &mut Random) {
        self.send(0, PSH | ACK, &messages::client_hello(&messages::name(random), random));
        self.acknowledge(1);
        self.segments(1, &messages::server_flight(random));
        self.at += 400;
        let finished = [messages::CHANGE_CIPHER_SPEC, &messages::application(53, random)].concat();
        self.send(0, PSH | ACK, &finished);
        self.at += self.rtt;
        self.acknowledge(1);
    }

    fn tls_exchange(&mut self, random: &mut Random) {
        self.send(0, PSH | ACK, &messages::application(120 + random.below(400), random));
        self.acknowledge(1);
        self.at += 300 + random.below(4_000);
        self.tell(&messages::application(100 + random.below(4_000), random));
    }

    /// Goes on with another connection of the same client, from a port below the ephemeral ones.
    fn connect_again(&mut self, random: &mut Random) {
        self.ends.ports[0] -= 20_000;
        self.next = [random.next() as u32, random.next() as u32];
        self.handshake();
    }
}

fn reset_after_fin(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.exchange(random);
    flow.send(0, FIN | ACK, &[]);
    flow.at += flow.rtt;
    flow.send(1, FIN | ACK, &[]);
    flow.send(0, RST, &[]);
}

fn reset_after_close_notify(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.tls_handshake(random);
    flow.tls_exchange(random);
    flow.send(0, PSH | ACK, &messages::application(19, random));
    flow.send(0, FIN | ACK, &[]);
    flow.at += flow.rtt;
    flow.send(1, PSH | ACK, &messages::application(19, random));
    flow.send(0, RST, &[]);
}

fn preconnect(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    if random.below(2) == 0 {
        flow.tls_handshake(random);
    }
    flow.at += 5 * SECOND + random.below(3 * SECOND);
    flow.close(0);
}

fn check_by_load_balancer(flow: &mut Conversation, _: &mut Random) {
    flow.send(0, SYN, &[]);
    flow.at += flow.rtt;
    flow.send(1, SYN | ACK, &[]);
    flow.send(0, RST | ACK, &[]);
}

fn keepalive_probes(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.exchange(random);
    for _ in 0..3 {
        flow.at += 15 * SECOND;
        let seq = flow.next[0].wrapping_sub(1);
        flow.odd(0, seq, 501, ACK, &[]);
        flow.acknowledge(1);
    }
    flow.at += SECOND;
    flow.exchange(random);
    flow.close(0);
}

fn short_zero_window(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    let answer = messages::answer(4 * flow.mss() as u64);
    let (first, rest) = answer.split_at(2 * flow.mss());
    flow.segments(1, first);
    let seq = flow.next[0];
    flow.odd(0, seq, 0, ACK, &[]);
    flow.at += 150_000;
    flow.odd(0, seq, 501, ACK, &[]);
    flow.at += flow.rtt;
    flow.tell(rest);
    flow.close(0);
}

fn tail_loss_probe(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    let (seq, answer) = (flow.next[1], messages::answer(400));
    flow.send(1, PSH | ACK, &answer);
    // Lost behind the capture point; RFC 8985 §7.2.
    flow.at += 2 * flow.rtt + 2_000;
    flow.odd(1, seq, 501, PSH | ACK, &answer);
    flow.acknowledge(0);
    flow.close(0);
}

fn begins_mid_stream(flow: &mut Conversation, random: &mut Random) {
    for _ in 0..2 {
        flow.exchange(random);
        flow.at += random.below(SECOND);
    }
    flow.close(0);
}

fn no_close_notify(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.tls_handshake(random);
    flow.tls_exchange(random);
    flow.close(random.below(2) as usize);
}

fn half_close(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.send(0, PSH | ACK, &messages::request(&messages::name(random), random));
    flow.send(0, FIN | ACK, &[]);
    flow.acknowledge(1);
    flow.at += 20_000;
    flow.tell(&messages::answer(3_000));
    flow.send(1, FIN | ACK, &[]);
    flow.acknowledge(0);
}

fn event_stream(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    flow.tell(EVENT_STREAM);
    for _ in 0..3 {
        flow.at += 12 * SECOND;
        flow.tell(b"9\r\ndata: 1\n\n\r\n");
    }
    flow.close(0);
}

fn websocket(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let name = messages::name(random);
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {name}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    flow.send(0, PSH | ACK, upgrade.as_bytes());
    flow.at += flow.rtt + 1_000;
    flow.tell(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    for _ in 0..2 {
        flow.at += 30 * SECOND;
        // Ping and pong, RFC 6455 §5.5.
        flow.send(1, PSH | ACK, &[0x89, 0]);
        flow.send(0, PSH | ACK, &[0x8a, 0x80, 1, 2, 3, 4]);
        flow.acknowledge(1);
    }
    flow.send(0, PSH | ACK, &[0x88, 0x82, 1, 2, 3, 4, 2, 0xea]);
    flow.at += flow.rtt;
    flow.send(1, PSH | ACK, &[0x88, 2, 3, 0xe8]);
    flow.close(1);
}

fn long_poll(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let name = messages::name(random);
    for _ in 0..3 {
        flow.send(0, PSH | ACK, format!("GET /poll HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes());
        flow.acknowledge(1);
        flow.at += 25 * SECOND;
        flow.tell(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]");
    }
    flow.close(0);
}

fn idle_keepalive_closed_by_server(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.exchange(random);
    flow.at += 5 * SECOND;
    flow.close(1);
}

fn answers_without_body(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let name = messages::name(random);
    for (method, head) in [
        ("HEAD", "200 OK\r\nContent-Length: 70000"),
        ("DELETE", "204 No Content"),
        ("GET", "304 Not Modified\r\nETag: \"a\""),
    ] {
        flow.send(0, PSH | ACK, format!("{method} /a HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes());
        flow.at += flow.rtt + 900;
        flow.tell(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes());
    }
    flow.close(0);
}

fn length_by_close(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    let mut answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec();
    answer.resize(2_000 + random.below(4_000) as usize, b'y');
    flow.tell(&answer);
    flow.close(1);
}

fn credentials_asked_for(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    flow.tell(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n");
    let name = messages::name(random);
    let again = format!("GET /items/1 HTTP/1.1\r\nHost: {name}\r\nAuthorization: Basic YTpi\r\n\r\n");
    flow.send(0, PSH | ACK, again.as_bytes());
    flow.at += flow.rtt + 2_000;
    flow.tell(&messages::answer(300));
    flow.close(0);
}

fn continue_100(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let name = messages::name(random);
    let head = format!("PUT /a HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n");
    flow.send(0, PSH | ACK, head.as_bytes());
    flow.at += flow.rtt;
    flow.tell(b"HTTP/1.1 100 Continue\r\n\r\n");
    flow.send(0, PSH | ACK, &[b'z'; 1_000]);
    flow.at += flow.rtt + 3_000;
    flow.tell(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
    flow.close(0);
}

/// One load balancer sends them all, from ports that no other of its flows has.
fn proxy_header_taken(flow: &mut Conversation, random: &mut Random) {
    let [client, _] = flow.ends.hosts;
    let [port, _] = flow.ends.ports;
    let turn = u64::from(client - super::FIRST_CLIENT) + super::CLIENTS * u64::from(port - super::EPHEMERAL.0);
    flow.ends.hosts[0] = LOAD_BALANCER;
    flow.ends.ports[0] = 10_000 + (turn % 50_000) as u16;
    flow.handshake();
    flow.send(0, PSH | ACK, &messages::proxy_header(random));
    flow.tls_handshake(random);
    flow.tls_exchange(random);
    flow.send(0, PSH | ACK, &messages::application(19, random));
    flow.close(0);
}

fn congestion_notification(flow: &mut Conversation, random: &mut Random) {
    flow.send(0, SYN | ECE | CWR, &[]);
    flow.at += flow.rtt;
    flow.send(1, SYN | ACK | ECE, &[]);
    flow.acknowledge(0);
    flow.tls_handshake(random);
    flow.tls_exchange(random);
    flow.send(0, PSH | ACK, &messages::application(19, random));
    flow.close(0);
}

fn reset_after_last_answer(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    flow.ask(random);
    flow.segments(1, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello");
    flow.acknowledge(0);
    flow.send(0, RST | ACK, &[]);
}

fn timeout_408(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.at += 10 * SECOND;
    flow.tell(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    flow.close(1);
}

fn no_such_record(flow: &mut Conversation, random: &mut Random) {
    let mut query = messages::query(&messages::name(random), random);
    // AAAA.
    let kind = query.len() - 3;
    query[kind] = 28;
    flow.datagram(0, &query);
    flow.at += flow.rtt;
    query[2..4].copy_from_slice(&[0x81, 0x80]);
    flow.datagram(1, &query);
}

/// The first name of the search list does not exist, the second does.
fn search_list(flow: &mut Conversation, random: &mut Random) {
    let name = messages::name(random);
    let mut query = messages::query(&format!("{name}.svc.cluster.local"), random);
    flow.datagram(0, &query);
    flow.at += flow.rtt;
    // NXDOMAIN.
    query[2..4].copy_from_slice(&[0x81, 0x83]);
    flow.datagram(1, &query);
    flow.at += 200;
    let query = messages::query(&name, random);
    flow.datagram(0, &query);
    flow.at += flow.rtt;
    flow.datagram(1, &messages::answer_of(&query, 0xc0a8_0001));
}

/// One in 200 lost the first ACK: the SYN+ACK comes again after a second.
fn fast_retry_of_syn_ack(flow: &mut Conversation, random: &mut Random) {
    if random.below(200) > 0 {
        flow.handshake();
    } else {
        flow.send(0, SYN, &[]);
        flow.at += flow.rtt;
        flow.send(1, SYN | ACK, &[]);
        flow.acknowledge(0);
        flow.at += SECOND;
        flow.next[1] = flow.next[1].wrapping_sub(1);
        flow.send(1, SYN | ACK, &[]);
        flow.acknowledge(0);
    }
    flow.exchange(random);
    flow.close(0);
}

fn check_by_http(flow: &mut Conversation, _: &mut Random) {
    flow.handshake();
    flow.send(0, PSH | ACK, b"GET /healthz HTTP/1.1\r\nHost: 192.168.0.1\r\nUser-Agent: ELB-HealthChecker/2.0\r\n\r\n");
    flow.at += flow.rtt + 500;
    flow.tell(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    flow.close(1);
}

/// A video player seeks: it leaves the first answer and asks for a part.
fn cancelled_download(flow: &mut Conversation, random: &mut Random) {
    flow.handshake();
    let name = messages::name(random);
    flow.send(0, PSH | ACK, format!("GET /film HTTP/1.1\r\nHost: {name}\r\nRange: bytes=0-\r\n\r\n").as_bytes());
    flow.at += flow.rtt + 1_000;
    let mut head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-999999/1000000\r\n".to_vec();
    head.extend_from_slice(b"Content-Length: 1000000\r\n\r\n");
    head.resize(8 * flow.mss(), b'v');
    flow.tell(&head);
    flow.send(0, RST | ACK, &[]);
    flow.at += 2_000;
    flow.connect_again(random);
    let part = format!("GET /film HTTP/1.1\r\nHost: {name}\r\nRange: bytes=900000-901999\r\n\r\n");
    flow.send(0, PSH | ACK, part.as_bytes());
    flow.at += flow.rtt + 1_000;
    let mut head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 900000-901999/1000000\r\n".to_vec();
    head.extend_from_slice(b"Content-Length: 2000\r\n\r\n");
    head.resize(head.len() + 2_000, b'v');
    flow.tell(&head);
    flow.close(0);
}

/// Both families are tried (RFC 8305 §5); the one that comes second is given up at once.
fn happy_eyeballs(flow: &mut Conversation, random: &mut Random) {
    flow.ends.v6 = true;
    flow.send(0, SYN, &[]);
    flow.at += flow.rtt;
    flow.send(1, SYN | ACK, &[]);
    flow.send(0, RST | ACK, &[]);
    flow.ends.v6 = false;
    flow.connect_again(random);
    flow.tls_handshake(random);
    flow.tls_exchange(random);
    flow.send(0, PSH | ACK, &messages::application(19, random));
    flow.close(0);
}

/// One in 200: a single SYN among thousands is lost.
fn one_syn_retry(flow: &mut Conversation, random: &mut Random) {
    if random.below(200) == 0 {
        flow.send(0, SYN, &[]);
        flow.next[0] = flow.next[0].wrapping_sub(1);
        flow.at += SECOND + 20_000;
    }
    flow.handshake();
    flow.exchange(random);
    flow.close(0);
}
