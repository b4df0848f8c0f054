//! What saves memory shows nowhere: every capture says the same when it is done from the first flow on.

use std::path::{Path, PathBuf};

use super::Diagnosis;
use crate::flow::table::Limits;
use crate::time::Elapsed;

fn captures_below(folder: &Path, all: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            captures_below(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "pcap" || ext == "pcapng") {
            all.push(path);
        }
    }
}

#[test]
fn a_flow_that_was_put_aside_packed_or_frozen_is_the_flow_that_was_not() {
    let mut captures = Vec::new();
    captures_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("captures"), &mut captures);
    captures.sort();
    for path in captures {
        let merged = |limits| {
            let diagnosis = Diagnosis { limits, ..Diagnosis::default() };
            diagnosis.open(&[path.to_string_lossy()]).and_then(super::Opened::merged).ok()
        };
        let packed = Limits { packed_from: 0, ..Limits::default() };
        // Behind every packet: whatever a flow is in the middle of.
        let frozen = Limits { frozen_from: 0, frozen_after: Elapsed::ZERO, ..Limits::default() };
        let gathered = Limits { gathered_from: 0, ..Limits::default() };
        let plain = merged(Limits::default());
        assert!(plain == merged(gathered), "{} is put aside", path.display());
        assert!(plain == merged(packed), "{} is packed", path.display());
        assert!(plain == merged(frozen), "{} is frozen", path.display());
    }
}
