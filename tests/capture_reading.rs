//! The readers against everything at hand: another reader, public captures, every cut, every way of being read.

mod support;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{Block, PcapBlockOwned};
use tcpwhy::capture::{CaptureInfo, OpenOptions, Source};

/// Input, number, nanoseconds, interface, link type, length on the wire, octets kept.
type Taken = (u16, u64, i64, u16, u16, u32, Vec<u8>);

fn drain(mut source: Source) -> (Vec<Taken>, Vec<CaptureInfo>) {
    let mut frames = Vec::new();
    while let Some(f) = source.next().expect("readable") {
        frames.push((f.file, f.number, f.time.0, f.interface, f.link.0, f.wire_len, f.bytes.to_vec()));
    }
    (frames, source.finish())
}

fn read(input: Box<dyn Read + Send>) -> Option<(Vec<Taken>, CaptureInfo)> {
    let source = Source::from_readers(vec![("x".into(), input)]).ok()?;
    let (frames, mut infos) = drain(source);
    Some((frames, infos.remove(0)))
}

fn memory(bytes: &[u8]) -> Box<dyn Read + Send> {
    Box::new(io::Cursor::new(bytes.to_vec()))
}

/// Gives `step` octets at a time, whatever is asked for.
struct Slow(io::Cursor<Vec<u8>>, usize);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1);
        self.0.read(&mut buffer[..most])
    }
}

fn slow(bytes: &[u8], step: usize) -> Box<dyn Read + Send> {
    Box::new(Slow(io::Cursor::new(bytes.to_vec()), step))
}

fn own(path: &str) -> Vec<u8> {
    std::fs::read(support::root().join(path)).expect("a capture of the project")
}

/// Rows of the public captures' table: path and number of packets.
fn manifest() -> Vec<(PathBuf, BTreeMap<String, String>)> {
    let Some(shared) = support::shared() else { return Vec::new() };
    let corpora = shared.join("corpora");
    let table = std::fs::read_to_string(corpora.join("MANIFEST.tsv")).expect("a table");
    let mut lines = table.lines().map(|line| line.split('\t').map(str::to_owned));
    let head: Vec<String> = lines.next().expect("a head").collect();
    let rows = lines.map(|line| head.iter().cloned().zip(line).collect::<BTreeMap<_, _>>());
    rows.map(|row| (corpora.join(row["repo"].replace('/', "+")).join(&row["path"]), row)).collect()
}

fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).expect("a file");
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).expect("gzip");
    plain
}

#[test]
fn public_captures_hold_the_packets_and_octets_their_table_says() {
    let mut wrong = Vec::new();
    for (path, row) in manifest() {
        let options = OpenOptions { hash: true, ..OpenOptions::default() };
        let (_, infos) = drain(Source::open(&[&path.to_string_lossy()], &options).expect("a capture"));
        let info = &infos[0];
        let before_damage = info.damage.first().map_or(info.packets, |damage| damage.after_packet);
        if before_damage.to_string() != row["pkts"] {
            wrong.push(format!("{}: {before_damage}, the table says {}: {:?}", info.file, row["pkts"], info.damage));
        }
        let links: std::collections::BTreeSet<u16> = info
            .interfaces
            .iter()
            .filter(|interface| interface.packets > 0)
            .map(|interface| interface.link.0)
            .collect();
        let links: Vec<String> = links.iter().map(u16::to_string).collect();
        if links.join(",") != row["linktypes"] {
            wrong.push(format!("{}: link types {links:?}, the table says {}", info.file, row["linktypes"]));
        }
        let hash = info.sha256.as_deref().unwrap_or("none");
        if !hash.starts_with(&row["sha256_16"]) {
            wrong.push(format!("{}: hash {hash}, the table says {}", info.file, row["sha256_16"]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// (nanoseconds, length on the wire, octets kept) of every packet up to the first thing pcap-parser cannot read; `None` where a block has
/// no time.
fn oracle(bytes: &[u8]) -> Vec<(Option<i128>, u32, Vec<u8>)> {
    let mut packets = Vec::new();
    let Ok(mut reader) = pcap_parser::create_reader(bytes.len() + 4096, io::Cursor::new(bytes)) else { return packets };
    let (mut unit, mut clocks) = (1_000, Vec::new());
    loop {
        // The first read took everything, so that no error can mean that more is needed.
        let Ok((used, block)) = reader.next() else { return packets };
        match block {
            PcapBlockOwned::LegacyHeader(header) if header.is_nanosecond_precision() => unit = 1,
            PcapBlockOwned::LegacyHeader(_) => {}
            PcapBlockOwned::Legacy(b) => {
                let time = i128::from(b.ts_sec) * 1_000_000_000 + i128::from(b.ts_usec) * unit;
                packets.push((Some(time), b.origlen, b.data.to_vec()));
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => clocks.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(b)) => {
                clocks.push((i128::from(b.ts_resolution().expect("a resolution")), i128::from(b.ts_offset())));
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
                let Some((per_second, offset)) = clocks.get(b.if_id as usize) else { return packets };
                let ticks = i128::from(b.ts_high) << 32 | i128::from(b.ts_low);
                let time = ticks * 1_000_000_000 / per_second + offset * 1_000_000_000;
                packets.push((Some(time), b.origlen, b.packet_data().to_vec()));
            }
            PcapBlockOwned::NG(Block::SimplePacket(b)) => packets.push((None, b.origlen, b.packet_data().to_vec())),
            PcapBlockOwned::NG(_) => {}
        }
        reader.consume(used);
    }
}

#[test]
fn every_frame_is_the_one_another_reader_sees() {
    let own = support::captures_below(&support::root().join("captures"));
    let mut compared = 0;
    for path in manifest().into_iter().map(|(path, _)| path).chain(own) {
        let bytes = unpacked(&path);
        let Some((frames, info)) = read(memory(&bytes)) else { continue };
        let expected = oracle(&bytes);
        // The other reader ends at damage, or reads on as if there were none.
        match info.damage.first() {
            None => assert_eq!(frames.len(), expected.len(), "{}", path.display()),
            Some(damage) => assert!(expected.len() as u64 >= damage.after_packet, "{}", path.display()),
        }
        let sound = info.damage.first().map_or(info.packets, |damage| damage.after_packet);
        let frames = frames.iter().take(sound as usize);
        for (frame, (time, wire, kept)) in frames.zip(&expected) {
            let (_, number, nanos, _, _, wire_len, octets) = frame;
            let what = format!("packet {number} of {}", path.display());
            assert!(time.is_none_or(|time| time == i128::from(*nanos)), "{what}: {nanos} is not {time:?}");
            assert_eq!((*wire_len, octets.len()), ((*wire).max(kept.len() as u32), kept.len()), "{what}");
            assert!(octets == kept, "{what}");
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared} frames were compared");
}

#[test]
fn one_octet_at_a_time_gives_the_same_frames_and_the_same_damage() {
    let public = manifest().into_iter().map(|(path, _)| path);
    let small = public.filter(|path| path.metadata().is_ok_and(|file| file.len() < 40_000));
    for path in support::captures_below(&support::root().join("captures")).into_iter().chain(small) {
        let bytes = std::fs::read(&path).expect("a file");
        let whole = read(memory(&bytes));
        assert!(whole == read(slow(&bytes, 1)), "{}", path.display());
        assert!(whole == read(slow(&bytes, 1_021)), "{}", path.display());
    }
}

#[test]
fn every_cut_gives_the_frames_before_it() {
    for path in ["captures/links/mixed.pcapng", "captures/links/fragments.pcap"] {
        let bytes = own(path);
        let (expected, _) = read(memory(&bytes)).expect("a capture");
        let mut most = 0;
        for len in 4..bytes.len().min(6_000) {
            let (frames, info) = read(memory(&bytes[..len])).expect("still a capture");
            assert!(frames == expected[..frames.len()], "{path} cut at {len}: {:?}", info.damage);
            assert!(frames.len() >= most, "{path} cut at {len}");
            let cut = info.damage.len() <= 1 && info.damage.iter().all(|damage| damage.cut_at_end);
            assert!(cut, "{path} cut at {len}: {:?}", info.damage);
            most = frames.len();
        }
        assert!(most > 5, "{path}");
    }
}

#[test]
fn packed_pcapng_gives_the_same_frames() {
    let plain = own("captures/links/mixed.pcapng");
    let (expected, _) = read(memory(&plain)).expect("a capture");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&plain).expect("memory");
    let gzip = gzip.finish().expect("memory");
    for packed in [gzip.clone(), zstd::encode_all(&plain[..], 3).expect("memory")] {
        let (frames, info) = read(memory(&packed)).expect("a capture");
        assert!(frames == expected && info.damage.is_empty(), "{}", info.format);
    }
    // Octets that went wrong are told, at the latest where gzip's check sum stands.
    let mut wrong = gzip;
    let middle = wrong.len() / 2;
    wrong[middle..middle + 40].fill(0xff);
    assert!(read(memory(&wrong)).is_none_or(|(_, info)| info.damage.iter().any(|damage| !damage.cut_at_end)));
}

#[test]
fn any_octets_are_read_without_a_panic_and_alike_in_pieces() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for path in ["captures/links/mixed.pcapng", "captures/links/fragments.pcap"] {
        let sound = own(path);
        for _ in 0..400 {
            let mut bytes = sound.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() % bytes.len();
                match random() % 4 {
                    0 => bytes[at] = random() as u8,
                    1 => bytes.truncate(at.max(30)),
                    2 => drop(bytes.drain(at..(at + random() % 90).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, vec![random() as u8; random() % 90])),
                }
                if bytes.len() < 30 {
                    break;
                }
            }
            assert!(read(memory(&bytes)) == read(slow(&bytes, 1 + random() % 50)));
        }
    }
}

#[test]
fn a_live_pipe_hands_out_each_packet_as_it_arrives() {
    for (path, count) in [("captures/links/fragments.pcap", 4), ("captures/links/mixed.pcapng", 4)] {
        let bytes = own(path);
        let (expected, _) = read(memory(&bytes)).expect("a capture");
        let whole = |len: usize| read(memory(&bytes[..len])).map_or(0, |(frames, _)| frames.len());
        let (pipe, mut writer) = io::pipe().expect("a pipe");
        let mut written = (24..bytes.len()).find(|len| whole(*len) == 1).expect("a first packet");
        writer.write_all(&bytes[..written]).expect("room");
        // If the reader waited for one octet more than the packet has, this would hang.
        let mut source = Source::from_readers(vec![("-".into(), Box::new(pipe))]).expect("a capture");
        for n in 1..=count {
            let frame = source.next().expect("readable").expect("a packet");
            assert_eq!((frame.number, frame.bytes), (n as u64, &expected[n - 1].6[..]));
            let next = (written..bytes.len()).find(|len| whole(*len) == n + 1).expect("a packet more");
            writer.write_all(&bytes[written..next]).expect("room");
            written = next;
        }
        assert_eq!(source.infos()[0].packets, count as u64);
    }
}

/// A plain capture of one packet per given second, which carries its second.
fn seconds(seconds: &[u32]) -> Vec<u8> {
    let mut file = own("captures/links/fragments.pcap")[..24].to_vec();
    for second in seconds {
        for word in [*second, 0, 4, 4, *second] {
            file.extend(word.to_le_bytes());
        }
    }
    file
}

fn order(frames: &[Taken]) -> Vec<(i64, u16)> {
    frames.iter().map(|frame| (frame.2 / 1_000_000_000, frame.0)).collect()
}

#[test]
fn overlapping_inputs_are_merged_by_time_then_by_name_order() {
    let inputs = [seconds(&[10, 12, 12, 20]), seconds(&[11, 12, 19]), seconds(&[]), seconds(&[1, 30])];
    let named = inputs.iter().map(|input| (String::new(), memory(input))).collect();
    let (frames, infos) = drain(Source::from_readers(named).expect("captures"));
    let expected = [(1, 3), (10, 0), (11, 1), (12, 0), (12, 0), (12, 1), (19, 1), (20, 0), (30, 3)];
    assert_eq!(order(&frames), expected);
    assert_eq!(infos.iter().map(|info| info.packets).collect::<Vec<_>>(), [4, 3, 0, 2]);
}

#[test]
fn a_clock_that_ran_back_keeps_the_order_of_its_file() {
    let named = vec![(String::new(), memory(&seconds(&[10, 5, 15]))), (String::new(), memory(&seconds(&[7, 12])))];
    let (frames, _) = drain(Source::from_readers(named).expect("captures"));
    assert_eq!(order(&frames), [(7, 1), (10, 0), (5, 0), (12, 1), (15, 0)]);
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_ring_of_many_files_in_any_order_is_read_file_after_file() {
    let folder = Folder(support::folder("ring"));
    // More files than a process may commonly hold open.
    let paths: Vec<String> = (0..1_500u32)
        .map(|n| {
            let path = folder.0.join(format!("{n}.pcap"));
            let first = 1_000 + n * 7 % 1_500 * 10;
            std::fs::write(&path, seconds(&[first, first + 9])).expect("written");
            path.to_string_lossy().into_owned()
        })
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let (frames, infos) = drain(Source::open(&paths, &OpenOptions::default()).expect("captures"));
    assert_eq!(frames.len(), 3_000);
    assert!(frames.is_sorted_by_key(|frame| frame.2));
    assert!(infos.iter().zip(&paths).all(|(info, path)| info.packets == 2 && info.file == *path));
}

#[test]
fn pipes_among_several_inputs_are_read_once_and_whole() {
    let open = |bytes: Vec<u8>| {
        let (pipe, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(&bytes).expect("room");
        pipe
    };
    let pipes = [open(seconds(&[1, 3])), open(seconds(&[2, 4]))];
    let paths: Vec<String> = pipes.iter().map(|pipe| format!("/dev/fd/{}", pipe.as_raw_fd())).collect();
    let options = OpenOptions { hash: true, ..OpenOptions::default() };
    let (frames, infos) = drain(Source::open(&[&paths[0], &paths[1]], &options).expect("captures"));
    assert_eq!(order(&frames), [(1, 0), (2, 1), (3, 0), (4, 1)]);
    assert!(infos.iter().all(|info| info.sha256.as_ref().is_some_and(|hash| hash.len() == 64)));
}

#[test]
fn standard_input_is_read_once_under_any_label() {
    let error = Source::open(&["-", "proxy=-"], &OpenOptions::default()).err().expect("refused");
    assert_eq!(error.to_string(), "standard input (-) can be read only once");
}

/// `cargo test --release --test capture_reading -- --ignored --nocapture`: reading a gigabyte against merely fetching it.
#[test]
#[ignore = "a measurement, not a test: it writes a gigabyte"]
fn how_fast_a_gigabyte_is_read() {
    let path = std::env::temp_dir().join(format!("tcpwhy-gigabyte-{}.pcap", std::process::id()));
    let mut file = io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    file.write_all(&seconds(&[])).expect("room");
    let payload = [0xa5; 1_514];
    let mut left = 1u64 << 30;
    for n in 0u32.. {
        let len = if n % 3 == 0 { 66 } else { 400 + n % 1_100 };
        for word in [1_700_000_000 + n / 1_000, n % 1_000 * 1_000, len, len] {
            file.write_all(&word.to_le_bytes()).expect("room");
        }
        file.write_all(&payload[..len as usize]).expect("room");
        left = left.saturating_sub(u64::from(len) + 16);
        if left == 0 {
            break;
        }
    }
    drop(file);
    let rate = |what: &str, work: &dyn Fn() -> u64| {
        let best = (0..5).map(|_| {
            let start = std::time::Instant::now();
            (work(), start.elapsed()).1
        });
        println!("{what}: {:.2} GB/s", (1u64 << 30) as f64 / 1e9 / best.min().expect("five").as_secs_f64());
    };
    rate("read() alone", &|| {
        let mut file = std::fs::File::open(&path).expect("a file");
        let mut buffer = vec![0; 256 * 1024];
        std::iter::from_fn(|| file.read(&mut buffer).ok().filter(|n| *n > 0)).map(|n| n as u64).sum()
    });
    rate("frames", &|| {
        let mut source = Source::open(&[&path.to_string_lossy()], &OpenOptions::default()).expect("a capture");
        let mut octets = 0;
        while let Some(frame) = source.next().expect("readable") {
            octets += frame.bytes.len() as u64;
        }
        octets
    });
    std::fs::remove_file(&path).expect("removed");
}
