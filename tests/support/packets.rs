//! Packets that tests make themselves: captures whose texts are meant to do harm to whoever shows them, and refusals by the thousand.

#![allow(dead_code)]

use std::path::PathBuf;

/// What somebody may put into packets; each at most 88 octets, so that they are quoted whole.
pub const TEXTS: [&[u8]; 13] = [
    b"\x1b[2J\x1b]0;owned\x07\x9b31m",
    b"</script><script>alert(1)</script><svg onload=alert(1)>",
    b"<img src=x onerror=alert(1)></details></summary><details open>",
    b"[click](http://evil.example) ![p](http://evil.example/p.png) | a | b |",
    b"```` ``` ` **x** __y__ ~~z~~ ||h||",
    b"';>PWNED;' $(>PWNED) `>PWNED` \"$(>PWNED)\" & >PWNED #",
    b"x\n>PWNED\n|| >PWNED",
    "a\u{202e}fdp.exe\u{200b}\u{2066}\u{feff}\u{e0041}".as_bytes(),
    b"nul\0octet\t/close\x0b- a\x0c# b",
    b"{noformat}{panel}{code} [~admin] !x.png! h1. {color:red}",
    b"@all #12 !3 %4 ~5 www.evil.example https://evil.example/x a@evil.example",
    b"&lt;b&gt; &#123; \\ \\\\ $x$ :tada: GH-1 <!-- x",
    b"-- -e --servername --help",
];

/// A capture in which a TLS name, the refusal of a MySQL server, and host and fields of HTTP hold the text, each on connections that fail.
pub fn capture(name: &str, text: &[u8]) -> PathBuf {
    let mut file = Pcap::default();
    for n in 0..3u8 {
        let tls = Talk { client: ([10, 9, 0, 10 + n], 40_001), server: ([10, 9, 0, 1], 443) };
        file.talk(&tls, &[(true, client_hello(text))]);
        let sql = Talk { client: ([10, 9, 0, 10 + n], 40_002), server: ([10, 9, 0, 2], 3306) };
        // Error 1040, too many connections.
        let refusal = [b"\xff\x10\x04#08004", text].concat();
        file.talk(&sql, &[(false, [&[refusal.len() as u8, 0, 0, 0], &refusal[..]].concat())]);
        let web = Talk { client: ([10, 9, 0, 10 + n], 40_003), server: ([10, 9, 0, 3], 80) };
        let request = [b"GET /x HTTP/1.1\r\nHost: ", text, b"\r\nUser-Agent: ", text, b"\r\n\r\n"].concat();
        let answer = [b"HTTP/1.1 500 ", text, b"\r\nServer: ", text, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        file.talk(&web, &[(true, request), (false, answer)]);
    }
    file.write(name)
}

/// So many connections that are refused, at forty servers.
pub fn refused(name: &str, many: u32) -> PathBuf {
    let mut file = Pcap::default();
    for n in 0..many {
        let client = ([10, 0, 1 + (n / 250 % 8) as u8, (n % 250) as u8], 10_000 + (n % 50_000) as u16);
        let talk = Talk { client, server: ([10, 9, 0, (n % 40) as u8], 8443) };
        file.segment(&talk, true, [100 + n, 0], SYN, &[]);
        file.segment(&talk, false, [101 + n, 0], RST | ACK, &[]);
    }
    file.write(name)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PUSH: u8 = 8;
const ACK: u8 = 16;

/// Two ends.
struct Talk {
    client: ([u8; 4], u16),
    server: ([u8; 4], u16),
}

/// A capture file of Ethernet frames, one every 10 ms.
#[derive(Default)]
struct Pcap {
    frames: Vec<Vec<u8>>,
}

impl Pcap {
    /// A handshake, what is said (true: by the client), and the server's end.
    fn talk(&mut self, talk: &Talk, said: &[(bool, Vec<u8>)]) {
        // Of their own: the same numbers elsewhere would be the same connection behind address translation.
        let first = (self.frames.len() as u32 + 1).wrapping_mul(0x9e37_79b9);
        let mut next = [first, !first];
        self.segment(talk, true, next, SYN, &[]);
        next[0] = next[0].wrapping_add(1);
        self.segment(talk, false, next, SYN | ACK, &[]);
        next[1] = next[1].wrapping_add(1);
        self.segment(talk, true, next, ACK, &[]);
        for (by_client, octets) in said {
            self.segment(talk, *by_client, next, PUSH | ACK, octets);
            let sent = &mut next[usize::from(!by_client)];
            *sent = sent.wrapping_add(octets.len() as u32);
            self.segment(talk, !by_client, next, ACK, &[]);
        }
        self.segment(talk, false, next, FIN | ACK, &[]);
        next[1] = next[1].wrapping_add(1);
        self.segment(talk, true, next, FIN | ACK, &[]);
        next[0] = next[0].wrapping_add(1);
        self.segment(talk, false, next, ACK, &[]);
    }

    fn segment(&mut self, talk: &Talk, by_client: bool, next: [u32; 2], flags: u8, octets: &[u8]) {
        let (from, to) = if by_client { (talk.client, talk.server) } else { (talk.server, talk.client) };
        let (seq, ack) = if by_client { (next[0], next[1]) } else { (next[1], next[0]) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let mut tcp = Vec::new();
        tcp.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
        tcp.extend([seq.to_be_bytes(), ack.to_be_bytes()].concat());
        tcp.extend([0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        tcp.extend(octets);
        let length = (tcp.len() as u16).to_be_bytes();
        let sum = checksum(&[&from.0[..], &to.0[..], &[0, 6], &length[..], &tcp[..]].concat());
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let whole = (tcp.len() as u16 + 20).to_be_bytes();
        let mut ip = vec![0x45, 0, whole[0], whole[1], 0, self.frames.len() as u8, 0x40, 0, 64, 6, 0, 0];
        ip.extend([from.0, to.0].concat());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        self.frames.push([&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip[..], &tcp[..]].concat());
    }

    /// Into a file for this process.
    fn write(&self, name: &str) -> PathBuf {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let path = folder.join(format!("{name}-{}.pcap", std::process::id()));
        std::fs::write(&path, self.octets()).expect("a folder for tests");
        path
    }

    fn octets(&self) -> Vec<u8> {
        let mut file = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 262_144, 1].map(u32::to_le_bytes).concat();
        for (n, frame) in self.frames.iter().enumerate() {
            let (time, length) = (n as u32 * 10_000, frame.len() as u32);
            file.extend(
                [1_763_700_000 + time / 1_000_000, time % 1_000_000, length, length].map(u32::to_le_bytes).concat(),
            );
            file.extend(frame);
        }
        file
    }
}

/// RFC 1071.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A ClientHello for a name, whatever its octets (RFC 8446 §4.1.2, RFC 6066 §3).
fn client_hello(name: &[u8]) -> Vec<u8> {
    let counted = |octets: &[u8]| [&(octets.len() as u16).to_be_bytes()[..], octets].concat();
    let names = counted(&[&[0][..], &counted(name)[..]].concat());
    let extensions = counted(&[&[0, 0][..], &counted(&names)[..], &[0, 43, 0, 3, 2, 3, 4][..]].concat());
    let hello = [&[3, 3][..], &[7; 32], &[0, 0, 4, 0x13, 1, 0xc0, 0x2f, 1, 0], &extensions].concat();
    let message = [&[1, 0][..], &counted(&hello)].concat();
    [&[22, 3, 1][..], &counted(&message)].concat()
}
