//! A file that somebody is still writing: read up to its end, then on as it grows, and over into the next file of a rotation.
//!
//! Whoever writes it may hold packets back in a buffer, so nothing that is not in the file yet is taken for silence: time comes from
//! packets alone.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use super::feed::{Batch, Caught, Feed, Lane, QUEUE};
use super::{CaptureInfo, Interface, Source};
use crate::time::Timestamp;

/// Pause between two looks at a file that does not grow.
const PAUSE: Duration = Duration::from_millis(50);

/// What was read and is not handed on yet.
struct Pending {
    to: Sender<(usize, Batch)>,
    batch: Batch,
}

impl Pending {
    fn send(&mut self) {
        if !self.batch.packets.is_empty() {
            // A file waits; whoever listened may have gone.
            drop(self.to.send((0, std::mem::take(&mut self.batch))));
        }
    }
}

/// What somebody else writes to a file, from its beginning on; whatever it holds is taken, nothing is dropped.
pub fn follow(path: &Path) -> Feed {
    let (full, batches) = bounded(QUEUE);
    let stop = Arc::new(AtomicBool::new(false));
    let (own, path) = (stop.clone(), path.to_owned());
    let name = path.display().to_string();
    let thread = std::thread::spawn(move || run(&path, &full, &own));
    // What was read is never filled again.
    let empties = bounded(0).0;
    Feed::new(batches, vec![Lane::new(name, thread, empties, Arc::default())], stop)
}

/// Reads files until it is told to stop, and sends what they hold.
fn run(path: &Path, to: &Sender<(usize, Batch)>, stop: &Arc<AtomicBool>) {
    let gone = |why: String| drop(to.send((0, Batch { gone: Some(why), ..Batch::default() })));
    let mut path = path.to_owned();
    loop {
        let pending = Arc::new(Mutex::new(Pending { to: to.clone(), batch: Batch::default() }));
        let next = Arc::new(Mutex::new(None));
        let file = match wait_for(&path, stop) {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(error) => return gone(error.to_string()),
        };
        let growing =
            Growing { path: path.clone(), file, next: next.clone(), stop: stop.clone(), pending: pending.clone() };
        let name = path.display().to_string();
        let source = match Source::from_readers(vec![(name.clone(), Box::new(growing))]) {
            Ok(source) => source,
            // Nothing was written to it before it was over.
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(error) => return gone(error.to_string()),
        };
        if let Err(error) = pass_on(source, &name, &pending) {
            return gone(error.to_string());
        }
        match next.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(next) => path = next,
            None => return,
        }
    }
}

/// Hands on everything one file holds.
fn pass_on(mut source: Source, name: &str, pending: &Mutex<Pending>) -> crate::error::Result<()> {
    let mut described = 0;
    let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let Some(frame) = source.next()? else { break };
        let (interface, time, wire_len) = (frame.interface, frame.time, frame.wire_len);
        let bytes = frame.bytes.to_vec();
        let mut pending = lock();
        if let Some(info) = source.infos().first().filter(|info| info.interfaces.len() != described) {
            described = info.interfaces.len();
            pending.send();
            let fresh = |interface: &Interface| Interface { packets: 0, ..interface.clone() };
            let interfaces = info.interfaces.iter().map(fresh).collect();
            let (file, format) = (name.to_owned(), info.format.clone());
            let told = Box::new(CaptureInfo { file, format, interfaces, ..CaptureInfo::default() });
            drop(pending.to.send((0, Batch { described: Some(told), ..Batch::default() })));
        }
        pending.batch.add(Caught { interface, time, wire_len, from: 0, kept: 0 }, &bytes);
        pending.batch.until = pending.batch.until.max(Some(time)).or(Some(Timestamp::MIN));
        if pending.batch.packets.len() >= BATCH {
            pending.send();
        }
    }
    lock().send();
    Ok(())
}

/// Packets that are handed on at once.
const BATCH: usize = 4096;

/// The file, once it is there; `None` when nobody waits any more.
fn wait_for(path: &Path, stop: &AtomicBool) -> io::Result<Option<File>> {
    loop {
        match File::open(path) {
            Ok(file) => return Ok(Some(file)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Reads a file as it grows. It ends when the file was replaced or the next one of its rotation has begun, or when it is told to.
struct Growing {
    path: PathBuf,
    file: File,
    /// The next file of the rotation, once it is there.
    next: Arc<Mutex<Option<PathBuf>>>,
    stop: Arc<AtomicBool>,
    /// What was read is handed on before it waits.
    pending: Arc<Mutex<Pending>>,
}

impl Growing {
    /// Where the capture goes on, if it does elsewhere.
    fn successor(&self) -> Option<PathBuf> {
        let own = self.file.metadata().ok()?;
        let there = std::fs::metadata(&self.path);
        // Moved away and begun anew under its name.
        if there.is_ok_and(|there| (there.dev(), there.ino()) != (own.dev(), own.ino())) {
            return Some(self.path.clone());
        }
        successors(&self.path).into_iter().find(|path| {
            std::fs::metadata(path).is_ok_and(|next| {
                let age = |file: &std::fs::Metadata| (file.mtime(), file.mtime_nsec());
                // Of a ring that is written again and again, the next file may be an old one.
                next.len() > 0 && age(&next) >= age(&own)
            })
        })
    }
}

impl Read for Growing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.file.read(buffer)?;
            if n > 0 || buffer.is_empty() || self.stop.load(Ordering::Relaxed) {
                return Ok(n);
            }
            if let Some(next) = self.successor() {
                // What was written last, while it was looked for.
                let n = self.file.read(buffer)?;
                if n == 0
                    && let Ok(mut place) = self.next.lock()
                {
                    *place = Some(next);
                }
                return Ok(n);
            }
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).send();
            std::thread::sleep(PAUSE);
        }
    }
}

/// Names tcpdump gives to the file after this one: the next number (`-C`), with leading zeros and over again where there is a ring (`-W`).
fn successors(path: &Path) -> Vec<PathBuf> {
    let text = path.to_string_lossy().into_owned();
    let stem = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = &text[stem.len()..];
    let mut names = vec![format!("{text}1")];
    if let Ok(number) = digits.parse::<u64>() {
        let width = digits.len();
        let number = number.saturating_add(1);
        names = vec![format!("{stem}{number:0width$}"), format!("{stem}{:0width$}", 0), format!("{text}1")];
    }
    names.into_iter().map(PathBuf::from).filter(|name| name != path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_file_is_named_as_tcpdump_names_it() {
        let names = |path: &str| -> Vec<String> {
            successors(Path::new(path)).iter().map(|name| name.display().to_string()).collect()
        };
        assert_eq!(names("/a/all.pcap"), ["/a/all.pcap1"]);
        assert_eq!(names("/a/all.pcap9"), ["/a/all.pcap10", "/a/all.pcap0", "/a/all.pcap91"]);
        assert_eq!(names("/a/all.pcap08"), ["/a/all.pcap09", "/a/all.pcap00", "/a/all.pcap081"]);
    }
}
