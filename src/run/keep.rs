//! Packets that were caught a moment ago, and those of them that prove an incident, in a file for each.
//!
//! The ring holds what came last, so that the packets from before a failure are there when it is known. A file is written anew when more
//! belongs to it and takes its name only when it is whole: whenever the process ends, what is there can be read.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::live::Taken;
use crate::capture::write::{Writer, Written};
use crate::capture::{Frame, Interface};
use crate::decode::Decoder;
use crate::diagnose::evidence::Selection;
use crate::diagnose::news::Told;
use crate::diagnose::report::{Incident, Report};
use crate::time::Timestamp;

/// A packet of the ring.
#[derive(Clone, Copy)]
struct Entry {
    number: u64,
    time: Timestamp,
    wire_len: u32,
    from: u32,
    kept: u32,
    interface: u16,
}

/// Packets in a row; what the ring takes and gives back at once.
#[derive(Default)]
pub struct Segment {
    entries: Vec<Entry>,
    octets: Vec<u8>,
}

impl Segment {
    fn weight(&self) -> usize {
        self.octets.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn frames<'a>(&'a self, interfaces: &'a [Interface]) -> impl Iterator<Item = Frame<'a>> {
        self.entries.iter().map(|entry| Frame {
            file: 0,
            point: 0,
            number: entry.number,
            time: entry.time,
            interface: entry.interface,
            link: interfaces.get(usize::from(entry.interface)).map(|interface| interface.link).unwrap_or_default(),
            wire_len: entry.wire_len,
            bytes: self.octets.get(entry.from as usize..(entry.from + entry.kept) as usize).unwrap_or(&[]),
            offset: 0,
            flags: 0,
        })
    }
}

/// What came last.
pub struct Ring {
    sealed: VecDeque<Arc<Segment>>,
    current: Segment,
    held: usize,
    room: usize,
}

/// Octets of a segment.
const SEGMENT: usize = 1 << 20;

impl Ring {
    /// An empty ring of so many octets.
    pub fn new(room: usize) -> Self {
        Self { sealed: VecDeque::new(), current: Segment::default(), held: 0, room }
    }

    /// Keeps packet `number`; the oldest make room for it.
    pub fn push(&mut self, number: u64, taken: &Taken<'_>) {
        let Taken { interface, time, wire_len, bytes } = *taken;
        let (from, kept) = (self.current.octets.len() as u32, bytes.len() as u32);
        self.current.entries.push(Entry { number, time, wire_len, from, kept, interface });
        self.current.octets.extend_from_slice(bytes);
        if self.current.octets.len() + self.current.entries.len() * size_of::<Entry>() >= SEGMENT {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let mut segment = std::mem::take(&mut self.current);
        segment.entries.shrink_to_fit();
        segment.octets.shrink_to_fit();
        self.held += segment.weight();
        self.sealed.push_back(Arc::new(segment));
        while self.held > self.room && self.sealed.len() > 1 {
            let oldest = self.sealed.pop_front();
            self.held -= oldest.map_or(0, |segment| segment.weight());
        }
    }

    /// All of it as of now, for another thread to look through.
    pub fn look(&mut self) -> Vec<Arc<Segment>> {
        if !self.current.entries.is_empty() {
            self.seal();
        }
        self.sealed.iter().cloned().collect()
    }
}

/// Writes the evidence.
pub struct Keeper {
    folder: PathBuf,
    interfaces: Vec<Interface>,
    /// Octets all files may take.
    limit: u64,
    files: BTreeMap<String, Evidence>,
    /// Files that went because of the limit.
    removed: u64,
}

/// One incident's packets.
struct Evidence {
    path: PathBuf,
    selection: Selection,
    packets: BTreeMap<u64, Saved>,
    octets: usize,
    /// Number of the last packet looked at.
    seen: u64,
    size: u64,
    /// More belonged to it than is kept.
    full: bool,
}

struct Saved {
    time: Timestamp,
    interface: u16,
    wire_len: u32,
    bytes: Box<[u8]>,
}

/// Octets of packets kept of one incident: thousands of flows show no more than a few.
const MOST: usize = 8 << 20;
/// Incidents whose packets are at hand; the files of others stay as they are.
const OPEN: usize = 64;

impl Keeper {
    /// Files go into `folder`, which exists, and take up to `limit` octets together.
    pub fn new(folder: &Path, interfaces: &[Interface], limit: u64) -> Self {
        let (folder, interfaces) = (folder.to_owned(), interfaces.to_vec());
        Self { folder, interfaces, limit, files: BTreeMap::new(), removed: 0 }
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the packets of an incident are.
    pub fn path(&self, id: &str) -> Option<&Path> {
        self.files.get(id).map(|file| file.path.as_path())
    }

    /// How many files there are, and how many had to go.
    pub fn count(&self) -> (usize, u64) {
        (self.files.len(), self.removed)
    }

    /// Adds what belongs to the incidents of the report, out of what came last. `told` knows by which id each was told first.
    ///
    /// # Errors
    /// When a file cannot be written; the others are.
    pub fn update(&mut self, report: &Report, told: &Told, ring: &[Arc<Segment>]) -> io::Result<()> {
        let mut failed = None;
        for incident in &report.incidents {
            let id = told.first_id(incident).unwrap_or(&incident.id);
            if !self.files.contains_key(id) && self.files.len() >= OPEN {
                continue;
            }
            if let Err(error) = self.incident(id, report, incident, ring) {
                failed = Some(error);
            }
        }
        self.make_room();
        failed.map_or(Ok(()), Err)
    }

    fn incident(&mut self, id: &str, report: &Report, incident: &Incident, ring: &[Arc<Segment>]) -> io::Result<()> {
        let selection = Selection::of(report, incident);
        let name = format!("{}-{}-{id}.pcapng", stamp(&incident.scope.first), incident.rule);
        let file = self.files.entry(id.to_owned()).or_insert_with(|| Evidence {
            path: self.folder.join(name),
            selection: Selection::default(),
            packets: BTreeMap::new(),
            octets: 0,
            seen: 0,
            size: 0,
            full: false,
        });
        let changed = file.selection != selection;
        if changed {
            file.selection = selection;
            // Flows that count only now may have begun long ago.
            file.seen = file.selection.first(0).map_or(file.seen, |first| file.seen.min(first.saturating_sub(1)));
        }
        if !file.collect(ring, &self.interfaces) && !changed {
            return Ok(());
        }
        file.write(incident, &self.interfaces)
    }

    /// The oldest files go until the others fit.
    fn make_room(&mut self) {
        while self.files.values().map(|file| file.size).sum::<u64>() > self.limit && self.files.len() > 1 {
            let oldest = self.files.iter().min_by_key(|(_, file)| file.packets.keys().next().copied());
            let Some(id) = oldest.map(|(id, _)| id.clone()) else { return };
            if let Some(file) = self.files.remove(&id) {
                self.removed += 1;
                // It may have been taken away already.
                drop(fs::remove_file(file.path));
            }
        }
    }
}

impl Evidence {
    /// Takes what is new out of the ring; whether there was any.
    fn collect(&mut self, ring: &[Arc<Segment>], interfaces: &[Interface]) -> bool {
        let mut decoder = Decoder::new(Default::default());
        let (mut more, seen) = (false, self.seen);
        for segment in ring {
            if segment.entries.last().is_none_or(|last| last.number <= seen) {
                continue;
            }
            for frame in segment.frames(interfaces).filter(|frame| frame.number > seen) {
                self.seen = self.seen.max(frame.number);
                let cited = self.selection.shows(0, frame.number).is_some();
                if self.packets.contains_key(&frame.number)
                    || !self.selection.holds(0, frame.number, &decoder.decode(&frame))
                {
                    continue;
                }
                if self.octets + frame.bytes.len() > MOST && !cited {
                    self.full = true;
                    continue;
                }
                self.octets += frame.bytes.len();
                let (time, interface, wire_len) = (frame.time, frame.interface, frame.wire_len);
                self.packets.insert(frame.number, Saved { time, interface, wire_len, bytes: frame.bytes.into() });
                more = true;
            }
        }
        more
    }

    fn write(&mut self, incident: &Incident, interfaces: &[Interface]) -> io::Result<()> {
        let beside = self.path.with_extension("part");
        let mut writer = Writer::new(BufWriter::new(File::create(&beside)?), Some(&self.about(incident)))?;
        interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
        for (number, saved) in &self.packets {
            let (interface, time) = (u32::from(saved.interface), saved.time);
            let packet = Written { interface, time, wire_len: saved.wire_len, bytes: &saved.bytes, flags: 0 };
            let shows = self.selection.shows(0, *number).unwrap_or(&[]);
            let comments: Vec<String> = shows.iter().map(|shows| format!("packet {number}: {shows}")).collect();
            writer.packet(&packet, &comments)?;
        }
        writer.flush()?;
        self.size = writer.octets();
        fs::rename(&beside, &self.path)
    }

    fn about(&self, incident: &Incident) -> String {
        let mut lines = vec![
            incident.headline.clone(),
            incident.scope_line.clone(),
            format!(
                "{}, incident {}; packet numbers in comments are those of the whole capture",
                incident.rule, incident.id
            ),
        ];
        if self.full {
            lines.push("more packets of these flows were left out: the file would be too large".into());
        }
        lines.join("\n")
    }
}

/// `2021-03-04T04:50:38.123Z` as part of a file's name.
fn stamp(time: &str) -> String {
    time.chars().take_while(|c| *c != '.').filter(char::is_ascii_alphanumeric).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{OpenOptions, Source};
    use crate::run::Opened;

    const GITLAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/incidents/gitlab/both-legs.pcap");

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("tcpwhy-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// The capture as if it had just come, and its report.
    fn caught(room: usize) -> (Ring, Report, Vec<Interface>) {
        let report = crate::Diagnosis::new().open(&[GITLAB]).and_then(Opened::run).expect("a report");
        let mut source = Source::open(&[GITLAB], &OpenOptions::default()).expect("a capture");
        let mut ring = Ring::new(room);
        while let Some(frame) = source.next().expect("memory") {
            let Frame { interface, time, wire_len, bytes, .. } = frame;
            ring.push(frame.number, &Taken { interface, time, wire_len, bytes });
        }
        (ring, report, source.finish().remove(0).interfaces)
    }

    #[test]
    fn the_evidence_file_alone_names_the_same_cause_and_its_comments_stand_on_the_packets_cited() {
        let (mut ring, report, interfaces) = caught(64 << 20);
        let folder = folder("evidence");
        let mut keeper = Keeper::new(&folder, &interfaces, u64::MAX);
        keeper.update(&report, &Told::default(), &ring.look()).expect("written");
        let incident = &report.incidents[0];
        let path = keeper.path(&incident.id).expect("a file").to_owned();
        let again = crate::Diagnosis::new().open(&[path.display().to_string()]).and_then(Opened::merged);
        let again = again.expect("a capture");
        let comments = again.infos[0].comments.clone();
        let again = crate::diagnose::report(&again, &Default::default());
        assert_eq!(again.incidents[0].rule, incident.rule);
        assert!(comments[0].starts_with(&incident.headline), "{}", comments[0]);
        let comments = comments.iter().skip(1);
        let cited: Vec<u64> =
            comments.filter_map(|comment| comment.strip_prefix("packet ")?.split(':').next()?.parse().ok()).collect();
        let expected: Vec<u64> = incident.evidence.iter().map(|evidence| evidence.packet).collect();
        assert!(expected.iter().all(|packet| cited.contains(packet)), "{cited:?} {expected:?}");

        // Nothing new, nothing written.
        let before = fs::metadata(&path).and_then(|file| file.modified()).expect("a time");
        keeper.update(&report, &Told::default(), &ring.look()).expect("written");
        assert_eq!(fs::metadata(&path).and_then(|file| file.modified()).expect("a time"), before);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_ring_holds_the_latest_packets_and_no_more_than_its_room() {
        let mut ring = Ring::new(4 << 20);
        let bytes = [7; 1000];
        for number in 1..=20_000 {
            let taken = Taken { interface: 0, time: Timestamp(number as i64), wire_len: 1000, bytes: &bytes };
            ring.push(number, &taken);
        }
        let held = ring.look();
        assert!(held.iter().map(|segment| segment.weight()).sum::<usize>() <= 5 << 20);
        let numbers: Vec<u64> = held.iter().flat_map(|segment| &segment.entries).map(|entry| entry.number).collect();
        assert_eq!((numbers.last(), numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)), (Some(&20_000), true));
        assert!(numbers.len() > 3000);
    }

    #[test]
    fn beyond_the_limit_the_oldest_file_goes() {
        let (mut ring, mut report, interfaces) = caught(64 << 20);
        let folder = folder("limit");
        let mut keeper = Keeper::new(&folder, &interfaces, 1);
        keeper.update(&report, &Told::default(), &ring.look()).expect("written");
        assert_eq!(keeper.count(), (1, 0));
        report.incidents[0].id = "another".into();
        keeper.update(&report, &Told::default(), &ring.look()).expect("written");
        assert_eq!((keeper.count(), fs::read_dir(&folder).expect("a folder").count()), ((1, 1), 1));
        fs::remove_dir_all(folder).expect("removed");
    }
}
