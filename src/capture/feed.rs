//! What was caught, by threads of interfaces or out of a growing file, in time order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::CaptureInfo;
use super::write::Counted;
use crate::time::{Elapsed, Timestamp};

/// Batches that wait to be diagnosed.
pub(super) const QUEUE: usize = 128;
/// Room of a batch that comes back to be filled again; larger ones are given back to the system.
const ROOM: usize = 8 << 20;

/// What one thread counts and everybody may read.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) kernel: AtomicU64,
    pub(super) interface: AtomicU64,
    pub(super) queue: AtomicU64,
}

/// Packets of one interface, in the order in which the kernel had them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) octets: Vec<u8>,
    pub(super) packets: Vec<Caught>,
    /// Whatever came until then is here, or in a batch before.
    pub(super) until: Option<Timestamp>,
    /// The interface is gone, and why.
    pub(super) gone: Option<String>,
    /// The machine's clock was set by so much.
    pub(super) stepped: Option<Elapsed>,
    /// From here on packets are of this file and these interfaces.
    pub(super) described: Option<Box<CaptureInfo>>,
}

/// One packet of a batch.
#[derive(Clone, Copy)]
pub(super) struct Caught {
    pub(super) interface: u16,
    pub(super) time: Timestamp,
    pub(super) wire_len: u32,
    /// Where its octets are.
    pub(super) from: u32,
    pub(super) kept: u32,
}

impl Batch {
    /// Adds a packet with its octets.
    pub(super) fn add(&mut self, packet: Caught, octets: &[u8]) {
        let (from, kept) = (self.octets.len() as u32, octets.len() as u32);
        self.octets.extend_from_slice(octets);
        self.packets.push(Caught { from, kept, ..packet });
    }

    pub(super) fn clear(&mut self) {
        self.octets.clear();
        self.packets.clear();
        (self.until, self.gone, self.described, self.stepped) = (None, None, None, None);
    }
}

/// A packet as it was caught.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// Index of its interface.
    pub interface: u16,
    /// When the kernel saw it.
    pub time: Timestamp,
    /// Octets on the wire.
    pub wire_len: u32,
    /// Octets kept.
    pub bytes: &'a [u8],
}

/// What all threads caught, in time order.
pub struct Feed {
    batches: Receiver<(usize, Batch)>,
    lanes: Vec<Lane>,
    stop: Arc<AtomicBool>,
}

pub(super) struct Lane {
    name: String,
    thread: Option<JoinHandle<()>>,
    empties: Sender<Batch>,
    counters: Arc<Counters>,
    waiting: VecDeque<Batch>,
    /// Next packet of the first batch.
    place: usize,
    /// Whatever came until then has been handed over by its thread.
    until: Timestamp,
    gone: bool,
}

/// What there is to know beside packets.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Nothing, or only packets.
    None,
    /// From here on packets are of this file, with these interfaces.
    Described(Box<CaptureInfo>),
    /// The machine's clock was set by so much (negative: back); times go on as they were.
    ClockSet(Elapsed),
    /// An interface is gone: its name, and what libpcap says.
    Gone(String, String),
    /// All threads ended, and nothing more comes.
    Over,
}

impl Feed {
    pub(super) fn new(batches: Receiver<(usize, Batch)>, lanes: Vec<Lane>, stop: Arc<AtomicBool>) -> Self {
        Self { batches, lanes, stop }
    }

    /// Waits for packets, at most for `patience`.
    pub fn wait(&mut self, patience: Duration) -> Notice {
        match self.batches.recv_timeout(patience) {
            Ok((n, batch)) => self.enter(n, batch),
            Err(RecvTimeoutError::Timeout) => Notice::None,
            Err(RecvTimeoutError::Disconnected) => Notice::Over,
        }
    }

    fn enter(&mut self, n: usize, mut batch: Batch) -> Notice {
        let Some(lane) = self.lanes.get_mut(n) else { return Notice::None };
        lane.until = batch.until.unwrap_or(lane.until).max(lane.until);
        if let Some(info) = batch.described.take() {
            return Notice::Described(info);
        }
        let (gone, stepped) = (batch.gone.take(), batch.stepped.take());
        if batch.packets.is_empty() {
            drop(lane.empties.try_send(batch));
        } else {
            lane.waiting.push_back(batch);
        }
        match gone {
            Some(why) => {
                lane.gone = true;
                Notice::Gone(lane.name.clone(), why)
            }
            None => stepped.map_or(Notice::None, Notice::ClockSet),
        }
    }

    /// When the next packet came.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.lanes.iter().filter_map(|lane| Some(lane.next()?.time)).min()
    }

    /// The next packet, if it is certain that no earlier one is still to come.
    pub fn take(&mut self, work: impl FnOnce(Taken<'_>)) -> bool {
        let first = self.lanes.iter().enumerate().filter_map(|(n, lane)| Some((lane.next()?.time, n))).min();
        let Some((time, n)) = first else { return false };
        let behind = |lane: &Lane| lane.waiting.is_empty() && !lane.over() && lane.until < time;
        if self.lanes.iter().any(behind) {
            return false;
        }
        let Some(lane) = self.lanes.get_mut(n) else { return false };
        if let (Some(batch), Some(packet)) = (lane.waiting.front(), lane.next()) {
            let bytes = batch.octets.get(packet.from as usize..(packet.from + packet.kept) as usize).unwrap_or(&[]);
            work(Taken { interface: packet.interface, time, wire_len: packet.wire_len, bytes });
        }
        lane.place += 1;
        if lane.next().is_none()
            && let Some(batch) = lane.waiting.pop_front()
        {
            lane.place = 0;
            if batch.octets.capacity() <= ROOM {
                drop(lane.empties.try_send(batch));
            }
        }
        true
    }

    /// How far time has come: all packets until then were handed out, once [`Feed::take`] gives none. `None` while not every interface has
    /// been heard of.
    pub fn reached(&self) -> Option<Timestamp> {
        if self.lanes.iter().any(|lane| !lane.waiting.is_empty()) {
            return None;
        }
        let open = self.lanes.iter().filter(|lane| !lane.over()).map(|lane| lane.until).min();
        open.or(self.lanes.iter().map(|lane| lane.until).max()).filter(|until| *until > Timestamp::MIN)
    }

    /// What an interface counted so far; `delivered` is left to whoever writes.
    pub fn counted(&self, n: usize) -> Counted {
        let Some(lane) = self.lanes.get(n) else { return Counted::default() };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &lane.counters;
        Counted {
            received: read(&counters.received),
            dropped: read(&counters.interface),
            missed: read(&counters.kernel) + read(&counters.queue),
            delivered: 0,
        }
    }

    /// Packets dropped because the diagnosis did not follow.
    pub fn overrun(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.counters.queue.load(Ordering::Relaxed)).sum()
    }

    /// Ends reading; what was caught is still handed out.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
        // Threads wait for room only with their last batch.
        while self.batches.recv_timeout(Duration::from_secs(2)).is_ok() {}
        self.lanes.iter_mut().filter_map(|lane| lane.thread.take()).for_each(|thread| drop(thread.join()));
    }
}

impl Lane {
    /// `empties`: where batches go to be filled again.
    pub(super) fn new(name: String, thread: JoinHandle<()>, empties: Sender<Batch>, counters: Arc<Counters>) -> Self {
        let (thread, waiting, until) = (Some(thread), VecDeque::new(), Timestamp::MIN);
        Self { name, thread, empties, counters, waiting, place: 0, until, gone: false }
    }

    fn next(&self) -> Option<Caught> {
        self.waiting.front()?.packets.get(self.place).copied()
    }

    fn over(&self) -> bool {
        self.gone || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    fn lane(name: &str) -> (Lane, Receiver<Batch>) {
        let (empties, spare) = bounded(4);
        // As long as the thread is there, more may come.
        let thread = std::thread::spawn(|| std::thread::sleep(Duration::from_millis(300)));
        (Lane::new(name.into(), thread, empties, Arc::default()), spare)
    }

    fn batch(interface: u16, times: &[i64], until: i64) -> Batch {
        let packets =
            times.iter().map(|time| Caught { interface, time: Timestamp(*time), wire_len: 60, from: 0, kept: 1 });
        let (packets, until) = (packets.collect(), Some(Timestamp(until)));
        Batch { octets: vec![7], packets, until, ..Batch::default() }
    }

    fn taken(feed: &mut Feed) -> Vec<(u16, i64)> {
        let mut all = Vec::new();
        while feed.take(|packet| all.push((packet.interface, packet.time.0))) {}
        all
    }

    #[test]
    fn packets_of_two_interfaces_come_in_time_order_and_none_too_early() {
        let (_full, batches) = bounded(4);
        let (first, _spare) = lane("eth0");
        let (second, _other) = lane("eth1");
        let mut feed = Feed { batches, lanes: vec![first, second], stop: Arc::default() };
        feed.enter(0, batch(0, &[10, 20, 30], 30));
        // Nothing is known of eth1 yet.
        assert_eq!((taken(&mut feed), feed.reached()), (vec![], None));
        feed.enter(1, batch(1, &[15], 25));
        assert_eq!(taken(&mut feed), [(0, 10), (1, 15), (0, 20)]);
        feed.enter(1, batch(1, &[], 40));
        assert_eq!((taken(&mut feed), feed.reached()), (vec![(0, 30)], Some(Timestamp(30))));
        drop(_full);
    }

    #[test]
    fn an_interface_that_is_gone_holds_nobody_up() {
        let (_full, batches) = bounded(4);
        let (first, _spare) = lane("eth0");
        let (second, _other) = lane("eth1");
        let mut feed = Feed { batches, lanes: vec![first, second], stop: Arc::default() };
        feed.enter(0, batch(0, &[10], 10));
        let gone = Batch { gone: Some("went away".into()), ..Batch::default() };
        assert_eq!(feed.enter(1, gone), Notice::Gone("eth1".into(), "went away".into()));
        assert_eq!((taken(&mut feed), feed.reached()), (vec![(0, 10)], Some(Timestamp(10))));
        drop(_full);
    }
}
