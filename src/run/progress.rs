//! How far a diagnosis is, for somebody who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::rule::summary::Verdict;

/// Counters that a running diagnosis keeps up to date and any other thread may read: see [`Diagnosis::progress`](super::Diagnosis::progress).
///
/// They tell a person how it goes and are no part of the result: packets are written down now and then, and what looks suspect while the
/// capture is read may be explained by its rest.
#[derive(Debug, Default)]
pub struct Progress {
    consumed: Arc<AtomicU64>,
    total: AtomicU64,
    packets: AtomicU64,
    failed: AtomicU64,
    degraded: AtomicU64,
    concluding: AtomicBool,
}

/// Packets after which their number is told even if no input was read meanwhile.
const OFTEN: u64 = 4096;

impl Progress {
    /// Octets read of the inputs as they are stored, packed or not.
    pub fn octets(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Octets of all inputs; `None` when one of them is no file.
    pub fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    /// Packets read.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Closed flows on which a rule saw a failure, and those on which it saw users served badly.
    pub fn suspects(&self) -> (u64, u64) {
        (self.failed.load(Ordering::Relaxed), self.degraded.load(Ordering::Relaxed))
    }

    /// Whether everything is read and the report is being made.
    pub fn concluding(&self) -> bool {
        self.concluding.load(Ordering::Relaxed)
    }

    /// Inputs are opened, maybe once more.
    pub(super) fn begin(&self, total: Option<u64>) {
        for counter in [&self.consumed, &self.packets, &self.failed, &self.degraded] {
            counter.store(0, Ordering::Relaxed);
        }
        self.total.store(total.unwrap_or(0), Ordering::Relaxed);
        self.concluding.store(false, Ordering::Relaxed);
    }

    /// Where readers count.
    pub(super) fn meter(&self) -> Arc<AtomicU64> {
        self.consumed.clone()
    }

    /// Notes the number of packets whenever the inputs were read meanwhile; `seen` is the reader's memory of that.
    pub(super) fn read(&self, packets: u64, seen: &mut u64) {
        let consumed = self.octets();
        if consumed != *seen || packets.is_multiple_of(OFTEN) {
            *seen = consumed;
            self.packets.store(packets, Ordering::Relaxed);
        }
    }

    pub(super) fn conclude(&self, packets: u64) {
        self.packets.store(packets, Ordering::Relaxed);
        self.concluding.store(true, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, verdict: Verdict) {
        match verdict {
            Verdict::Failed => self.failed.fetch_add(1, Ordering::Relaxed),
            Verdict::Degraded => self.degraded.fetch_add(1, Ordering::Relaxed),
            Verdict::Healthy | Verdict::Undecided => return,
        };
    }
}
