//! Packets that were caught a moment ago, and those of them that prove an incident, in a file for each.
//!
//! The ring holds what came last, so that the packets from before a failure are there when it is known. A file is written anew when more
//! belongs to it and takes its name only when it is whole: whenever the process ends, what is there can be read.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::feed::Taken;
use crate::capture::write::{Counted, Writer, Written};
use crate::capture::{Frame, Interface};
use crate::decode::Decoder;
use crate::diagnose::evidence::Selection;
use crate::diagnose::news::Told;
use crate::diagnose::report::{Incident, Report};
use crate::time::Timestamp;
use crate::wire::harmless::{Sink, harmless};

/// Which file of a rotation, and which packet of it.
type At = (u16, u64);

/// A packet of the ring.
#[derive(Clone, Copy)]
struct Entry {
    at: At,
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
            file: entry.at.0,
            point: 0,
            number: entry.at.1,
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

    /// Keeps packet `at`; the oldest make room for it.
    pub fn push(&mut self, at: At, taken: &Taken<'_>) {
        let Taken { interface, time, wire_len, bytes } = *taken;
        if self.current.entries.is_empty() {
            self.reopen();
        }
        let (from, kept) = (self.current.octets.len() as u32, bytes.len() as u32);
        self.current.entries.push(Entry { at, time, wire_len, from, kept, interface });
        self.current.octets.extend_from_slice(bytes);
        if self.current.octets.len() + self.current.entries.len() * size_of::<Entry>() >= SEGMENT {
            self.seal();
        }
    }

    /// A segment that was sealed for a look before it was full goes on, unless somebody still looks.
    fn reopen(&mut self) {
        if self.sealed.back().is_some_and(|last| last.octets.len() < SEGMENT / 2 && Arc::strong_count(last) == 1)
            && let Some(last) = self.sealed.pop_back()
        {
            let weight = last.weight();
            match Arc::try_unwrap(last) {
                Ok(segment) => {
                    self.held -= weight;
                    self.current = segment;
                }
                Err(last) => self.sealed.push_back(last),
            }
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
    updates: u64,
}

/// One incident's packets.
struct Evidence {
    path: PathBuf,
    selection: Selection,
    packets: BTreeMap<At, Saved>,
    octets: usize,
    /// The last packet looked at.
    seen: At,
    size: u64,
    /// More belonged to it than is kept.
    full: bool,
    /// Others need the room: the file stays as it is.
    sealed: bool,
    /// Which of the updates wrote it last.
    written: u64,
}

struct Saved {
    time: Timestamp,
    interface: u16,
    wire_len: u32,
    bytes: Box<[u8]>,
}

/// Octets of packets kept of one incident: thousands of flows show no more than a few.
const MOST: usize = 8 << 20;
/// Incidents whose packets are at hand, those to which something came last; the files of others stay as they are.
const OPEN: usize = 64;
/// Files there may be; the oldest go.
const FILES: usize = 4096;

impl Keeper {
    /// Files go into `folder`, which exists, and take up to `limit` octets together.
    pub fn new(folder: &Path, interfaces: &[Interface], limit: u64) -> Self {
        let (folder, interfaces) = (folder.to_owned(), interfaces.to_vec());
        Self { folder, interfaces, limit, files: BTreeMap::new(), removed: 0, updates: 0 }
    }

    /// Interfaces that became known later.
    pub fn describe(&mut self, interfaces: Vec<Interface>) {
        self.interfaces = interfaces;
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

    /// Adds what belongs to the incidents of the report, out of what came last, which is all there is until `reached`: a silence is proof
    /// as well. `told` knows by which id each incident was told first.
    ///
    /// # Errors
    /// When a file cannot be written; the others are.
    pub fn update(
        &mut self,
        report: &Report,
        told: &Told,
        ring: &[Arc<Segment>],
        reached: Timestamp,
    ) -> io::Result<()> {
        let mut failed = None;
        self.updates += 1;
        for incident in &report.incidents {
            let id = told.first_id(incident).unwrap_or(&incident.id);
            if let Err(error) = self.incident(id, report, incident, (ring, reached)) {
                failed = Some(error);
            }
        }
        self.make_room();
        failed.map_or(Ok(()), Err)
    }

    fn incident(
        &mut self,
        id: &str,
        report: &Report,
        incident: &Incident,
        (ring, reached): (&[Arc<Segment>], Timestamp),
    ) -> io::Result<()> {
        let selection = Selection::of(report, incident);
        let name = format!("{}-{}-{id}.pcapng", stamp(&incident.scope.first), incident.rule);
        let file = self.files.entry(id.to_owned()).or_insert_with(|| Evidence {
            path: self.folder.join(name),
            selection: Selection::default(),
            packets: BTreeMap::new(),
            octets: 0,
            seen: (0, 0),
            size: 0,
            full: false,
            sealed: false,
            written: 0,
        });
        if file.sealed {
            return Ok(());
        }
        let changed = file.selection != selection;
        if changed {
            file.selection = selection;
            // Flows that count only now may have begun long ago.
            file.seen =
                file.selection.first().map_or(file.seen, |(n, first)| file.seen.min((n, first.saturating_sub(1))));
        }
        if !file.collect(ring, &self.interfaces) && !changed {
            return Ok(());
        }
        file.written = self.updates;
        file.write(incident, &self.interfaces, reached)
    }

    /// The packets of files that nothing came to for longest are let go, and the oldest files go until the others fit.
    fn make_room(&mut self) {
        while self.files.values().filter(|file| !file.sealed).count() > OPEN {
            let open = self.files.values_mut().filter(|file| !file.sealed);
            let Some(idle) = open.min_by_key(|file| file.written) else { break };
            (idle.packets, idle.sealed) = (BTreeMap::new(), true);
        }
        let size = |files: &BTreeMap<_, Evidence>| files.values().map(|file| file.size).sum::<u64>();
        while (size(&self.files) > self.limit || self.files.len() > FILES) && self.files.len() > 1 {
            let oldest = self.files.iter().min_by_key(|(_, file)| (file.written, file.seen));
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
            if segment.entries.last().is_none_or(|last| last.at <= seen) {
                continue;
            }
            for frame in segment.frames(interfaces).filter(|frame| (frame.file, frame.number) > seen) {
                let at = (frame.file, frame.number);
                self.seen = self.seen.max(at);
                let cited = self.selection.shows(at.0, at.1).is_some();
                if self.packets.contains_key(&at) || !self.selection.holds(at.0, at.1, &decoder.decode(&frame)) {
                    continue;
                }
                if self.octets + frame.bytes.len() > MOST && !cited {
                    self.full = true;
                    continue;
                }
                self.octets += frame.bytes.len();
                let (time, interface, wire_len) = (frame.time, frame.interface, frame.wire_len);
                self.packets.insert(at, Saved { time, interface, wire_len, bytes: frame.bytes.into() });
                more = true;
            }
        }
        more
    }

    fn write(&mut self, incident: &Incident, interfaces: &[Interface], reached: Timestamp) -> io::Result<()> {
        let beside = self.path.with_extension("part");
        let mut writer = Writer::new(BufWriter::new(File::create(&beside)?), Some(&self.about(incident)))?;
        interfaces.iter().try_for_each(|interface| writer.interface(interface))?;
        for ((file, number), saved) in &self.packets {
            let (interface, time) = (u32::from(saved.interface), saved.time);
            let packet = Written { interface, time, wire_len: saved.wire_len, bytes: &saved.bytes, flags: 0 };
            // Files of a rotation are told apart from the second on.
            writer.packet(&packet, &self.selection.comments(*file, *number, usize::from(*file) + 1))?;
        }
        for (n, _) in (0..).zip(interfaces) {
            let delivered = self.packets.values().filter(|saved| u32::from(saved.interface) == n).count() as u64;
            writer.statistics(n, reached, &Counted { received: delivered, delivered, ..Counted::default() })?;
        }
        writer.flush()?;
        self.size = writer.octets();
        fs::rename(&beside, &self.path)
    }

    fn about(&self, incident: &Incident) -> String {
        let mut lines = vec![
            harmless(&incident.headline, Sink::Line).into_owned(),
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
            ring.push((0, frame.number), &Taken { interface, time, wire_len, bytes });
        }
        (ring, report, source.finish().remove(0).interfaces)
    }

    #[test]
    fn the_evidence_file_alone_names_the_same_cause_and_its_comments_stand_on_the_packets_cited() {
        let (mut ring, report, interfaces) = caught(64 << 20);
        let folder = folder("evidence");
        let mut keeper = Keeper::new(&folder, &interfaces, u64::MAX);
        keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
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
        keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
        assert_eq!(fs::metadata(&path).and_then(|file| file.modified()).expect("a time"), before);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_ring_holds_the_latest_packets_and_no_more_than_its_room() {
        let mut ring = Ring::new(4 << 20);
        let bytes = [7; 1000];
        for number in 1..=20_000 {
            let taken = Taken { interface: 0, time: Timestamp(number as i64), wire_len: 1000, bytes: &bytes };
            ring.push((0, number), &taken);
        }
        let held = ring.look();
        assert!(held.iter().map(|segment| segment.weight()).sum::<usize>() <= 5 << 20);
        let numbers: Vec<u64> = held.iter().flat_map(|segment| &segment.entries).map(|entry| entry.at.1).collect();
        assert_eq!((numbers.last(), numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)), (Some(&20_000), true));
        assert!(numbers.len() > 3000);
    }

    #[test]
    fn looking_often_makes_no_small_segments() {
        let mut ring = Ring::new(4 << 20);
        for number in 1..=500 {
            let taken = Taken { interface: 0, time: Timestamp(1), wire_len: 9, bytes: &[7; 9] };
            ring.push((0, number), &taken);
            assert_eq!(ring.look().iter().map(|segment| segment.entries.len()).sum::<usize>(), number as usize);
        }
        assert_eq!(ring.sealed.len(), 1);
        // Whoever still looks keeps what was there.
        let seen = ring.look();
        ring.push((0, 501), &Taken { interface: 0, time: Timestamp(1), wire_len: 9, bytes: &[7; 9] });
        assert_eq!((seen[0].entries.len(), ring.look().len()), (500, 2));
    }

    #[test]
    fn more_incidents_than_are_at_hand_have_files_all_the_same() {
        let (mut ring, mut report, interfaces) = caught(64 << 20);
        let folder = folder("many");
        let mut keeper = Keeper::new(&folder, &interfaces, u64::MAX);
        let many = OPEN + 3;
        for n in 0..many {
            report.incidents[0].id = format!("{n:012}");
            keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
        }
        let at_hand = keeper.files.values().filter(|file| !file.packets.is_empty()).count();
        assert_eq!((keeper.count(), at_hand), ((many, 0), OPEN));
        // A file that was let go stays as it is.
        let path = keeper.path("000000000000").expect("a file").to_owned();
        let before = fs::read(&path).expect("a file");
        report.incidents[0].id = "000000000000".into();
        keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
        assert!(fs::read(&path).expect("a file") == before);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn beyond_the_limit_the_oldest_file_goes() {
        let (mut ring, mut report, interfaces) = caught(64 << 20);
        let folder = folder("limit");
        let mut keeper = Keeper::new(&folder, &interfaces, 1);
        keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
        assert_eq!(keeper.count(), (1, 0));
        report.incidents[0].id = "another".into();
        keeper.update(&report, &Told::default(), &ring.look(), Timestamp::MAX).expect("written");
        assert_eq!((keeper.count(), fs::read_dir(&folder).expect("a folder").count()), ((1, 1), 1));
        fs::remove_dir_all(folder).expect("removed");
    }
}
