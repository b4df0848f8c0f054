//! Writes the seeds of the fuzz targets from the project's captures: `cargo run --example fuzz_seeds` fills `fuzz/corpus/TARGET/`.
//!
//! Deterministic, and it only adds: what a fuzzer found and somebody put there stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use tcpwhy::capture::{OpenOptions, Source};
use tcpwhy::decode::{Decoder, Packet, Transport};
use tcpwhy::wire::proxy::{self, ProxyStart};
use tcpwhy::wire::{Endpoint, Recognition, http, text, tls};

/// Seeds of one target at most, and octets of one seed.
const SEEDS: usize = 24;
const OCTETS: usize = 1_500;
/// Seeds that begin alike teach a fuzzer little.
const ALIKE: usize = 12;

/// Seeds of one target by what they begin with.
#[derive(Default)]
struct Seeds(BTreeMap<&'static str, Target>);

/// What the seeds of a target begin with, and the seeds.
type Target = (BTreeSet<Vec<u8>>, Vec<Vec<u8>>);

impl Seeds {
    fn add(&mut self, target: &'static str, octets: &[u8]) {
        let (begin, seeds) = self.0.entry(target).or_default();
        let (most, octets_most) = match target {
            "decode" => (3 * SEEDS, OCTETS),
            "capture" => (SEEDS, 3 * OCTETS),
            _ => (SEEDS, OCTETS),
        };
        let fits = seeds.len() < most && (1..=octets_most).contains(&octets.len());
        // Frames of one link layer begin alike, whatever they carry, and so do files.
        let alike = match target {
            "decode" => OCTETS,
            "capture" => 64,
            _ => ALIKE,
        };
        if fits && begin.insert(octets[..octets.len().min(alike)].to_vec()) {
            seeds.push(octets.to_vec());
        }
    }

    /// What a packet holds for the targets that read one layer.
    fn packet(&mut self, packet: &Packet<'_>) {
        match packet.transport {
            Transport::Tcp(segment) => {
                self.add("tcp_options", segment.options);
                self.payload(segment.payload);
            }
            Transport::Udp(datagram) if datagram.source_port == 53 || datagram.destination_port == 53 => {
                self.add("dns", datagram.payload);
            }
            Transport::Icmp4(octets) | Transport::Icmp6(octets) | Transport::Arp(octets) => {
                self.add("icmp_arp", octets)
            }
            _ => {}
        }
    }

    fn payload(&mut self, octets: &[u8]) {
        let begins = |looks: fn(&[u8]) -> Recognition| looks(octets) == Recognition::Yes;
        if !matches!(proxy::parse(octets), ProxyStart::No | ProxyStart::Partial) {
            self.add("proxy_header", octets);
        } else if begins(tls::looks_like_client_hello) || begins(tls::looks_like_server_record) {
            self.add("tls", octets);
        } else if begins(http::looks_like_request) || begins(http::looks_like_response) {
            self.add("http", octets);
        } else if [
            text::smtp::looks_like_client as fn(&[u8]) -> Recognition,
            text::smtp::looks_like_server,
            text::ssh::looks_like_server,
            text::redis::looks_like_client,
            text::redis::looks_like_server,
            text::mysql::looks_like_server,
            text::postgres::looks_like_client,
            text::postgres::looks_like_server,
        ]
        .into_iter()
        .any(begins)
        {
            self.add("words", octets);
        }
    }
}

/// The payload of both directions of a connection, the direction of the first packet first.
type Said = BTreeMap<(Endpoint, Endpoint), [Vec<u8>; 2]>;

fn main() -> io::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seeds = Seeds::default();
    for path in captures(&home.join("captures"))? {
        let octets = std::fs::read(&path)?;
        // Every file of captures/links is another way to wrap one connection.
        let is_link = path.parent().is_some_and(|folder| folder.ends_with("links"));
        read(&path, is_link, &mut seeds);
        seeds.add("capture", &octets);
    }
    for (target, (_, seeds)) in seeds.0 {
        let folder = home.join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for octets in &seeds {
            std::fs::write(folder.join(format!("{:016x}", fnv(octets))), octets)?;
        }
        println!("{target}: {} seeds, {} octets", seeds.len(), seeds.iter().map(Vec::len).sum::<usize>());
    }
    Ok(())
}

fn read(path: &Path, is_link: bool, seeds: &mut Seeds) {
    let (mut decoder, mut said) = (Decoder::new(Default::default()), Said::new());
    let Ok(mut source) = Source::open(&[&path.to_string_lossy()], &OpenOptions::default()) else { return };
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = source.next() {
        if is_link && frame.number <= 3 {
            frames.extend(if frame.number == 1 { frame.link.0.to_be_bytes().to_vec() } else { Vec::new() });
            frames.extend((frame.bytes.len() as u16).to_be_bytes());
            frames.extend(frame.bytes);
        }
        let packet = decoder.decode(&frame);
        seeds.packet(&packet);
        if let (Transport::Tcp(segment), Some(from), Some(to)) =
            (packet.transport, packet.source(), packet.destination())
        {
            let (key, side) = if said.contains_key(&(to, from)) { ((to, from), 1) } else { ((from, to), 0) };
            let heard = &mut said.entry(key).or_default()[side];
            heard.extend(&segment.payload[..segment.payload.len().min(700_usize.saturating_sub(heard.len()))]);
        }
    }
    seeds.add("decode", &frames);
    for [client, server] in said.into_values().filter(|[client, server]| client.len() + server.len() > 0).take(1) {
        let head = [(client.len() as u16).to_be_bytes(), 7_u16.to_be_bytes()].concat();
        seeds.add("dissector", &[head, client, server].concat());
    }
}

/// All captures below a folder, sorted.
fn captures(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(captures(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            found.push(path);
        }
    }
    Ok(found)
}

/// FNV-1a, 64 bits: a name for a file.
fn fnv(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3))
}
