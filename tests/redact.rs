//! Redaction of every capture of the project: the same is found, nothing of the original is left, checksums and prefixes hold.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tcpwhy::capture::{OpenOptions, Source};
use tcpwhy::decode::Decoder;
use tcpwhy::diagnose::Merged;
use tcpwhy::event::What as Event;
use tcpwhy::redact::{Key, Level, Mapping, differences, rewrite};
use tcpwhy::render::Style;
use tcpwhy::render::markdown::Flavour;
use tcpwhy::run::Original;
use tcpwhy::wire::{Address, Mac};
use tcpwhy::{Diagnosis, Report, render};

/// Captures whose findings cannot survive, and why. Each must be needed.
const EXCEPTIONS: &[(&str, &str)] = &[];

fn key(n: u8) -> Key {
    Key::from_octets(&[n; 32])
}

/// Another one with `KEY=7 cargo test --test redact`.
fn usual() -> Key {
    key(std::env::var("KEY").ok().and_then(|n| n.parse().ok()).unwrap_or(1))
}

fn redacted(path: &Path, mapping: &mut Mapping) -> Vec<u8> {
    let mut out = Vec::new();
    rewrite(&path.to_string_lossy(), &mut out, mapping).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    out
}

fn report_of(octets: Vec<u8>) -> Report {
    let source = Source::from_readers(vec![("copy".into(), Box::new(Cursor::new(octets)) as _)]).expect("a capture");
    Diagnosis::new().workers(1).source(source).expect("a source").run().expect("a report")
}

fn captures() -> Vec<PathBuf> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let all = support::captures_below(&support::root().join("captures"));
    all.into_iter().filter(|path| path.to_string_lossy().contains(&only)).collect()
}

/// Does it with every capture, on all cores; what it says of them, in order.
fn each(work: impl Fn(&Path) -> Vec<String> + Sync) -> Vec<String> {
    let (captures, next, told) = (captures(), AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(path) = captures.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let said = work(path);
                    told.lock().expect("nobody panics").insert(path.clone(), said);
                }
            });
        }
    });
    told.into_inner().expect("nobody panics").into_values().flatten().collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(support::root()).unwrap_or(path).to_string_lossy().into_owned()
}

#[test]
fn at_lower_levels_addresses_stay_and_the_same_is_found() {
    let all = captures();
    for path in all.iter().skip(3).step_by(12) {
        let Ok(before) = Diagnosis::new().workers(1).open(&[path.to_string_lossy()]).and_then(|opened| opened.run())
        else {
            continue;
        };
        let open = || Source::open(&[&path.to_string_lossy()], &OpenOptions::default()).expect("a capture");
        let (macs, addresses) = header_addresses(open());
        for level in [Level::Ids, Level::IdsIps] {
            let copy = redacted(path, &mut Mapping::new(&usual(), level));
            let (new_macs, new_addresses) = header_addresses(source(copy.clone()));
            assert_eq!(new_macs.len(), macs.len(), "{}", name(path));
            assert!(level == Level::IdsIps || (&new_macs, &new_addresses) == (&macs, &addresses), "{}", name(path));
            let told = differences(&before, &report_of(copy));
            assert!(told.is_empty(), "{} {level:?}: {told:?}", name(path));
        }
    }
}

#[test]
fn the_same_is_found() {
    let told = each(|path| {
        let Ok(before) = Diagnosis::new().workers(1).open(&[path.to_string_lossy()]).and_then(|opened| opened.run())
        else {
            return Vec::new();
        };
        let after = report_of(redacted(path, &mut Mapping::new(&usual(), Level::All)));
        let told = differences(&before, &after);
        if told.is_empty() { Vec::new() } else { vec![format!("{}: {}", name(path), told.join("; "))] }
    });
    let other: Vec<&String> =
        told.iter().filter(|line| !EXCEPTIONS.iter().any(|(path, _)| line.starts_with(path))).collect();
    assert!(other.is_empty(), "{other:#?}");
    for (path, why) in EXCEPTIONS {
        assert!(told.iter().any(|line| line.starts_with(path)), "{path} does not need its exception: {why}");
    }
}

fn frames(mut source: Source) -> Vec<(u16, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = source.next().expect("readable") {
        frames.push((frame.link.0, frame.bytes.to_vec()));
    }
    frames
}

fn source(octets: Vec<u8>) -> Source {
    Source::from_readers(vec![("copy".into(), Box::new(Cursor::new(octets)) as _)]).expect("a capture")
}

/// What the original says of hosts, users and places, as its own reader finds it, not the redaction: text and what it is.
fn said(merged: &Merged, frames: &[(u16, Vec<u8>)]) -> BTreeSet<(&'static str, String)> {
    let mut said = BTreeSet::new();
    for flow in merged.flows.values() {
        for end in [flow.facts.client, flow.facts.server] {
            said.insert(("address", end.address.to_string()));
        }
        for event in flow.story.events() {
            match &event.what {
                Event::Request(head) => {
                    said.extend(head.host.iter().map(|host| ("name", host.to_string())));
                    said.insert(("url", head.target.to_string()));
                    said.extend(head.ids.iter().chain(&head.forwarded).map(|(_, value)| ("id", value.to_string())));
                }
                Event::Response(head) => {
                    said.extend(head.location.iter().map(|place| ("url", place.to_string())));
                    said.extend(head.ids.iter().map(|(_, value)| ("id", value.to_string())));
                }
                Event::ClientHello(hello) => said.extend(hello.sni.iter().map(|name| ("name", name.to_string()))),
                Event::Certificates(chain) => {
                    said.extend(chain.iter().flat_map(|one| &one.names).map(|name| ("name", name.clone())));
                }
                Event::Dns(message) => {
                    said.insert(("name", message.name.to_string()));
                    said.extend(message.aliases.iter().map(|name| ("name", name.to_string())));
                    said.extend(message.addresses.iter().map(|(address, _)| ("address", address.to_string())));
                }
                Event::ProxyHeader(header) => {
                    let ends = [header.source, header.destination].into_iter().flatten();
                    said.extend(ends.map(|end| ("address", end.address.to_string())));
                    said.extend(header.authority().map(|name| ("name", name.to_owned())));
                }
                _ => {}
            }
        }
    }
    for (_, bytes) in frames {
        for line in String::from_utf8_lossy(bytes).lines() {
            let lower = line.to_ascii_lowercase();
            let secret = ["cookie:", "set-cookie:", "authorization:", "proxy-authorization:", "x-api-key:"];
            if secret.iter().any(|name| lower.starts_with(name)) {
                let value = line.split_once(':').map_or("", |(_, value)| value);
                let words = value.split([' ', ';', '=', ',', '\r']).filter(|word| word.len() >= 8);
                said.extend(words.map(|word| ("credential", word.to_owned())));
            }
        }
    }
    said.retain(|(_, text)| text.len() >= 6);
    said
}

/// Everything that can be made of a capture: reports, with their escapes undone, and the packets of its evidence.
fn outputs(file: &Path) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let named = Original { name: "capture-1.pcapng".into(), hash: None };
    let made = Diagnosis::new().workers(1).all_flows(true).originals(vec![named]).make(&[file.to_string_lossy()]);
    let made = made.expect("a report");
    let dossier = made.dossier("tcpwhy capture-1.pcapng".into()).expect("a second look");
    let mut json = Vec::new();
    render::json::document(&made.report, &mut json).expect("memory");
    let verbose = Style { verbose: true, ..Style::default() };
    let ladders = dossier.ladders.iter().map(|ladder| render::ladder::text(ladder, verbose));
    let mut reports: Vec<String> = ladders.collect();
    reports.push(String::from_utf8(json).expect("text"));
    reports.push(render::text::report(&made.report, verbose));
    let flavours = [Flavour::Github, Flavour::Gitlab, Flavour::Plain, Flavour::Jira];
    reports.extend(flavours.map(|flavour| render::markdown::report(&dossier, flavour).replace('\\', "")));
    let page = render::html::report(&dossier);
    let entities = [("&#x2f;", "/"), ("&#x27;", "'"), ("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    reports.push(entities.iter().fold(page, |page, (entity, says)| page.replace(entity, says)));
    let evidence = (!made.report.incidents.is_empty()).then(|| made.proof().expect("evidence").files);
    let evidence: Vec<Vec<u8>> = evidence.into_iter().flatten().map(|file| file.octets).collect();
    let packets = evidence.iter().flat_map(|file| frames(source(file.clone()))).map(|(_, bytes)| bytes).collect();
    // Its comments are a report.
    (reports.into_iter().map(String::into_bytes).chain(evidence).collect(), packets)
}

/// Whether a text stands somewhere as a whole, in either case.
fn holds(octets: &[u8], text: &str) -> bool {
    let word = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
    let text = text.to_ascii_lowercase();
    memchr::memmem::find_iter(octets, text.as_bytes())
        .any(|at| !word(at.checked_sub(1).and_then(|at| octets.get(at))) && !word(octets.get(at + text.len())))
}

/// Link addresses and addresses of packets, as they stand in them.
fn header_addresses(source: Source) -> (BTreeSet<Mac>, BTreeSet<Address>) {
    let (mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let mut decoder = Decoder::new(Default::default());
    let mut source = source;
    while let Some(frame) = source.next().expect("readable") {
        let packet = decoder.decode(&frame);
        macs.extend(packet.link.source.into_iter().chain(packet.link.destination));
        addresses.extend(packet.ip.iter().flat_map(|ip| [ip.source, ip.destination]));
    }
    (macs, addresses)
}

#[test]
fn nothing_of_the_original_is_left() {
    let folder = support::folder("left");
    let told = each(|path| {
        let open = || Source::open(&[&path.to_string_lossy()], &OpenOptions::default());
        let Ok(original) = open() else { return Vec::new() };
        let before = frames(original);
        let Ok(merged) = Diagnosis::new().workers(1).open(&[path.to_string_lossy()]).and_then(|opened| opened.merged())
        else {
            return Vec::new();
        };
        let mut mapping = Mapping::new(&usual(), Level::All);
        let copy = redacted(path, &mut mapping);
        let file = folder.join(name(path).replace('/', "-"));
        std::fs::write(&file, &copy).expect("writable");
        let (mut reports, mut packets) = outputs(&file);
        packets.push(copy.clone());
        reports.iter_mut().chain(&mut packets).for_each(|octets| octets.make_ascii_lowercase());
        let _ = std::fs::remove_file(&file);

        let mut left = Vec::new();
        let said = said(&merged, &before);
        // What an address becomes may be another address of the same capture: small networks are exchanged within themselves.
        let images: BTreeSet<String> = said
            .iter()
            .filter_map(|(_, text)| Some(mapping.address(text.parse::<std::net::IpAddr>().ok()?.into()).to_string()))
            .collect();
        for (kind, text) in &said {
            let kept = match text.parse::<std::net::IpAddr>() {
                Ok(ip) => mapping.address(ip.into()) == ip.into() || images.contains(text),
                Err(_) => {
                    let same = |octets: Vec<u8>| octets == text.as_bytes();
                    same(mapping.name(text.as_bytes())) || same(mapping.text(text.as_bytes())) || is_kept_target(text)
                }
            };
            // A name of one word may be a word of the report's own sentences.
            let own = text.bytes().all(|octet| octet.is_ascii_lowercase());
            let mut searched = packets.iter().chain(reports.iter().filter(|_| !own));
            if !kept && searched.any(|octets| holds(octets, text)) {
                left.push(format!("{}: {kind} {text}", name(path)));
            }
        }
        let (macs, addresses) = header_addresses(open().expect("a capture"));
        let (new_macs, new_addresses) = header_addresses(source(copy));
        let mapped: BTreeSet<Mac> = macs.iter().map(|mac| mapping.mac(*mac)).collect();
        if !new_macs.is_subset(&mapped) {
            left.push(format!("{}: link addresses {new_macs:?}", name(path)));
        }
        let mapped: BTreeSet<Address> = addresses.iter().map(|address| mapping.address(*address)).collect();
        if new_addresses != mapped {
            left.push(format!("{}: addresses {new_addresses:?} and not {mapped:?}", name(path)));
        }
        left
    });
    let _ = std::fs::remove_dir_all(&folder);
    assert!(told.is_empty(), "{told:#?}");
}

/// Targets of which nothing but the words that tell long polling stays.
fn is_kept_target(text: &str) -> bool {
    const KEPT: [&str; 9] = ["poll", "watch", "wait", "timeout", "subscribe", "stream", "events", "comet", "feed"];
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut words = words.map(|word| KEPT.iter().fold(word.to_owned(), |word, kept| word.replace(kept, "")));
    words.all(|word| word.is_empty()) || text.starts_with("/grpc.health.v1.")
}

/// Whether the checksums of a plain frame fit: of IPv4, of TCP, UDP or ICMP behind it. `None`: it has none that can be judged.
fn sums((link, bytes): &(u16, Vec<u8>)) -> Option<(bool, bool)> {
    let at = match link {
        1 if bytes.get(12..14)? == [8, 0] => 14,
        113 if bytes.get(14..16)? == [8, 0] => 16,
        276 if bytes.get(..2)? == [8, 0] => 20,
        12 | 101 | 228 => 0,
        _ => return None,
    };
    let header = bytes.get(at..).filter(|header| header.first().is_some_and(|first| first >> 4 == 4))?;
    let len = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([*header.get(2)?, *header.get(3)?]));
    let body = header.get(len..total)?;
    let fragment = u16::from_be_bytes([*header.get(6)?, *header.get(7)?]) & 0x3fff != 0;
    let sum = |octets: &[u8]| {
        let words = octets.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
        words.sum::<u64>()
    };
    let fold = |sum: u64| (0..4).fold(sum, |sum, _| (sum & 0xffff) + (sum >> 16)) == 0xffff;
    let pseudo = sum(header.get(12..20)?) + u64::from(header[9]) + body.len() as u64;
    let body_fits = match header[9] {
        _ if fragment => false,
        1 => fold(sum(body)),
        17 if body.get(6..8)? == [0, 0] => true,
        6 | 17 => fold(sum(body) + pseudo),
        _ => false,
    };
    Some((fold(sum(header.get(..len)?)), body_fits))
}

#[test]
fn right_checksums_stay_right_and_wrong_ones_wrong() {
    let judged = AtomicUsize::new(0);
    let told = each(|path| {
        let Ok(original) = Source::open(&[&path.to_string_lossy()], &OpenOptions::default()) else { return Vec::new() };
        let before = frames(original);
        let after = frames(source(redacted(path, &mut Mapping::new(&usual(), Level::All))));
        assert_eq!(before.len(), after.len(), "{}", name(path));
        let pairs = before.iter().zip(&after).enumerate();
        let wrong = pairs.filter_map(|(n, (before, after))| {
            assert_eq!(before.1.len(), after.1.len());
            let (before, after) = (sums(before), sums(after));
            judged.fetch_add(usize::from(before.is_some()), Ordering::Relaxed);
            (before != after).then(|| format!("{} packet {}: {before:?} became {after:?}", name(path), n + 1))
        });
        wrong.take(3).collect()
    });
    assert!(told.is_empty(), "{told:#?}");
    assert!(judged.into_inner() > 10_000 || std::env::var_os("ONLY").is_some());
}

#[test]
fn bent_captures_are_redacted_without_a_panic() {
    let folder = support::folder("bent");
    let told = each(|path| {
        let whole = std::fs::read(path).expect("readable");
        if whole.len() > 60_000 {
            return Vec::new();
        }
        let mut random = whole
            .iter()
            .take(4096)
            .fold(0x9e37_79b9_7f4a_7c15_u64, |hash, octet| (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3));
        let mut below = |most: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % most.max(1)
        };
        let bent_at = folder.join(name(path).replace('/', "-"));
        for time in 0..2 {
            let mut bent = whole.clone();
            for _ in 0..1 + below(30) {
                let at = 24 + below(bent.len().saturating_sub(24));
                if let Some(octet) = bent.get_mut(at) {
                    *octet = below(256) as u8;
                }
            }
            std::fs::write(&bent_at, &bent).expect("writable");
            let run = || {
                let mut out = Vec::new();
                let _ = rewrite(&bent_at.to_string_lossy(), &mut out, &mut Mapping::new(&usual(), Level::All));
            };
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                return vec![format!("{} bent the {}. time", name(path), time + 1)];
            }
        }
        let _ = std::fs::remove_file(&bent_at);
        Vec::new()
    });
    let _ = std::fs::remove_dir_all(&folder);
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn addresses_that_share_octets_share_them_in_every_capture() {
    let mut mapping = Mapping::new(&usual(), Level::All);
    let mut all = BTreeSet::new();
    for path in captures().iter().step_by(2) {
        if let Ok(source) = Source::open(&[&path.to_string_lossy()], &OpenOptions::default()) {
            all.extend(header_addresses(source).1);
        }
    }
    let v4 = |address: Address| match address.to_ip() {
        std::net::IpAddr::V4(ip) => Some(ip.octets()),
        std::net::IpAddr::V6(_) => None,
    };
    let pairs: Vec<_> = all.iter().filter_map(|one| Some((v4(*one)?, v4(mapping.address(*one))?))).collect();
    for (one, mapped) in &pairs {
        for (other, also) in &pairs {
            let shared = |a: &[u8; 4], b: &[u8; 4]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
            assert_eq!(shared(one, other), shared(mapped, also), "{one:?} {other:?}");
        }
    }
    assert!(pairs.len() > 50 || std::env::var_os("ONLY").is_some());
}

#[test]
fn the_same_key_writes_the_same_and_another_one_something_else() {
    let path = support::root().join("captures/incidents");
    let path = support::captures_below(&path).into_iter().next().expect("an incident");
    let with = |n| redacted(&path, &mut Mapping::new(&key(n), Level::All));
    assert_eq!(with(1), with(1));
    assert_ne!(with(1), with(2));
}

/// A capture of UDP and TCP packets, each of which repeats the numbers of the one before with other octets: what makes them different cannot
/// survive.
fn overlapping() -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101].map(u32::to_le_bytes).concat();
    for n in 0..6_u8 {
        let mut packet = vec![0x45, 0, 0, 52, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet.extend([0xc3, 0x50, 0x1f, 0x90, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
        packet.extend([b'a' + n; 12]);
        file.extend([1, u32::from(n), 52, 52].map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

fn tcpwhy(arguments: &[&Path]) -> (Option<i32>, String) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_tcpwhy")).args(arguments).output().expect("it starts");
    let text = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_copy_that_is_diagnosed_otherwise_is_not_left() {
    let folder = support::folder("proof");
    let (input, out) = (folder.join("in.pcap"), folder.join("out.pcapng"));
    std::fs::write(&input, overlapping()).expect("writable");
    let (code, said) = tcpwhy(&[Path::new("redact"), &input, Path::new("-o"), &out]);
    let (code_of_report, said_of_report) = tcpwhy(&[Path::new("--redact"), &input]);
    let left: Vec<_> = std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    let _ = std::fs::remove_dir_all(&folder);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("diagnosed otherwise") && said.contains("capture-duplicate-packets"), "{said}");
    assert_eq!(left, ["in.pcap"]);
    assert_eq!(code_of_report, Some(2), "{said_of_report}");
    assert!(said_of_report.starts_with("tcpwhy: the redacted capture is diagnosed otherwise"), "{said_of_report}");
}

#[test]
fn the_command_says_what_it_did_and_refuses_what_would_hurt() {
    let folder = support::folder("redact");
    let all = support::captures_below(&support::root().join("captures/incidents"));
    let (one, other) = (&all[0], &all[1]);
    let (key, list) = (folder.join("key"), folder.join("list"));
    std::fs::write(&key, "0123456789abcdef").expect("writable");
    let redact = |arguments: &[&Path]| tcpwhy(&[&[Path::new("redact")], arguments].concat());
    let (output, with_key, with_list) = (Path::new("-o"), Path::new("--key"), Path::new("--list"));

    let (code, said) = redact(&[one, other, output, &folder, with_key, &key, with_list, &list]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("findings before and after") && said.contains(" addresses"), "{said}");
    let told = std::fs::read_to_string(&list).expect("a list");
    assert!(told.starts_with("# kind\toriginal\treplacement\naddresses\t"), "{told}");
    let again = folder.join("again.pcapng");
    let (code, _) = redact(&[one, output, &again, with_key, &key]);
    assert_eq!(code, Some(0));
    let stem = one.file_name().expect("a name").to_string_lossy().split(".pcap").next().expect("a stem").to_owned();
    let read = |path: &Path| std::fs::read(path).expect("readable");
    assert_eq!(read(&again), read(&folder.join(format!("{stem}.redacted.pcapng"))));

    std::fs::write(&key, "short").expect("writable");
    for (arguments, why) in [
        (&[one.as_path(), output, &again, with_key, &key][..], "a key needs"),
        (&[one, other, output, &again][..], "need a folder"),
        (&[&again, output, &again][..], "is an original"),
        (&[Path::new("-"), output, &again][..], "reads its input twice"),
    ] {
        let (code, said) = redact(arguments);
        assert!(code == Some(2) && said.contains(why), "{why}: {said}");
    }
    let _ = std::fs::remove_dir_all(&folder);
}
