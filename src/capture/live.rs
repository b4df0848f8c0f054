//! Interfaces, live, through libpcap: one thread for each that only copies packets out of the kernel's ring and never waits for analysis.
//!
//! When whoever takes the packets is too slow, whole batches are dropped and counted: a capture with a hole that is known beats one that
//! stops the kernel's ring without a word.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use pcap::{Active, Capture, Direction, Linktype, Precision};

use super::steady::{Look, Steady};
use super::write::Counted;
use super::{CaptureInfo, Interface, LinkType, follow, steady};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Elapsed, Timestamp};

/// What to listen to, and how.
#[derive(Clone, Debug)]
pub struct LiveOptions {
    /// Names of interfaces; `any` is all of them.
    pub interfaces: Vec<String>,
    /// What the kernel passes on, in tcpdump's language.
    pub filter: Option<String>,
    /// Octets kept of a frame.
    pub snaplen: u32,
    /// Octets of the kernel's ring, each interface its own.
    pub buffer: usize,
    /// Also frames that are not meant for this host.
    pub promiscuous: bool,
    /// Which way packets go.
    pub direction: Way,
}

/// Which packets of an interface are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// All.
    #[default]
    Both,
    /// Received ones.
    In,
    /// Sent ones.
    Out,
}

/// What `-D` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// For `-i`.
    pub name: String,
    /// What libpcap says about it, if anything.
    pub description: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// `up, running`, `up, no carrier`, `down`.
    pub state: &'static str,
}

/// The kernel hands over what is younger than this in one go.
const HASTE: i32 = 100;
/// How long a packet may take from the interface to us: [`HASTE`], and what a busy machine adds.
const DELAY: Elapsed = Elapsed::millis(250);
/// Pause between two looks at a ring without packets.
const PAUSE: Duration = Duration::from_millis(10);
/// Packets taken out of a ring before they are handed on.
const BATCH: usize = 4096;
/// Batches that wait to be diagnosed.
const QUEUE: usize = 128;
/// Room of a batch that comes back to be filled again; larger ones are given back to the system.
const ROOM: usize = 8 << 20;
/// LINKTYPE_LINUX_SLL2: `any` with the interface of every packet.
const SLL2: i32 = 276;

/// The machine's interfaces.
///
/// # Errors
/// When the system does not tell.
pub fn interfaces() -> Result<Vec<Listed>> {
    let all = pcap::Device::list().map_err(|error| Error::new(ErrorKind::Io, words(error)))?;
    let listed = all.into_iter().map(|device| {
        let state = match (device.flags.is_up(), device.flags.is_running()) {
            (true, true) => "up, running",
            (true, false) => "up, no carrier",
            (false, _) => "down",
        };
        let addresses = device.addresses.iter().map(|address| address.addr).collect();
        Listed { name: device.name, description: device.desc.unwrap_or_default(), addresses, state }
    });
    // What no TCP flow is ever seen on.
    let odd = |name: &str| ["bluetooth", "nflog", "nfqueue", "dbus", "usbmon"].iter().any(|odd| name.starts_with(odd));
    Ok(listed.filter(|listed| !odd(&listed.name)).collect())
}

/// Interfaces that are open, before anything is read. Rights are needed up to here and no further.
pub struct Live {
    opened: Vec<(Interface, Capture<Active>)>,
}

impl Live {
    /// Opens all of them.
    ///
    /// # Errors
    /// When one does not exist, is down, may not be opened, or the filter does not fit it.
    pub fn open(options: &LiveOptions) -> Result<Self> {
        let opened = options.interfaces.iter().map(|name| open(name, options));
        Ok(Self { opened: opened.collect::<Result<_>>()? })
    }

    /// What they are.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.opened.iter().map(|(interface, _)| interface.clone()).collect()
    }

    /// Begins to read.
    pub fn start(self) -> Feed {
        let (full, batches) = bounded(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let clock = Arc::new(Steady::new());
        let mut lanes = Vec::new();
        for (n, (interface, handle)) in self.opened.into_iter().enumerate() {
            let (empties, spare) = bounded(QUEUE);
            let counters = Arc::new(Counters::default());
            let (full, counted, clock) = (full.clone(), counters.clone(), clock.clone());
            let thread = Catcher { lane: n, handle, full, spare, counters: counted, clock };
            let stop = stop.clone();
            let thread = std::thread::spawn(move || thread.run(&stop));
            lanes.push(Lane {
                name: interface.name,
                thread: Some(thread),
                empties,
                counters,
                waiting: VecDeque::new(),
                place: 0,
                until: Timestamp::MIN,
                gone: false,
            });
        }
        Feed { batches, lanes, stop }
    }
}

fn open(name: &str, options: &LiveOptions) -> Result<(Interface, Capture<Active>)> {
    let failed = |error| refused(name, error);
    let buffer = i32::try_from(options.buffer).unwrap_or(i32::MAX);
    let inactive = Capture::from_device(name).map_err(failed)?;
    let mut handle = inactive
        .snaplen(options.snaplen as i32)
        .buffer_size(buffer)
        // Of all interfaces at once none is put into that mode.
        .promisc(options.promiscuous && name != "any")
        .timeout(HASTE)
        .precision(Precision::Nano)
        .open()
        .map_err(failed)?;
    if name == "any" {
        handle.set_datalink(Linktype(SLL2)).map_err(failed)?;
    }
    match options.direction {
        Way::Both => {}
        Way::In => handle.direction(Direction::In).map_err(failed)?,
        Way::Out => handle.direction(Direction::Out).map_err(failed)?,
    }
    if let Some(filter) = &options.filter {
        let wrong = |error| Error::usage(format!("the filter {filter:?} does not fit {name}: {}", words(error)));
        handle.filter(filter, true).map_err(wrong)?;
    }
    let link = LinkType::of_dlt(handle.get_datalink().0);
    let interface = Interface {
        name: name.to_owned(),
        link,
        snaplen: options.snaplen,
        filter: options.filter.clone(),
        ..Interface::default()
    };
    let handle = handle.setnonblock().map_err(failed)?;
    Ok((interface, handle))
}

/// Why an interface cannot be opened, and what helps.
fn refused(name: &str, error: pcap::Error) -> Error {
    let why = words(error);
    let says = |text: &str| why.to_ascii_lowercase().contains(text);
    if says("permission") || says("not permitted") {
        let message = format!("{name} may not be opened by this user: CAP_NET_RAW is missing ({why})");
        return Error::new(ErrorKind::Permission, message);
    }
    if says("no such device") {
        let known = interfaces().unwrap_or_default();
        let names: Vec<&str> = known.iter().map(|listed| listed.name.as_str()).collect();
        return Error::usage(format!("there is no interface {name}; there are: {}", names.join(", ")));
    }
    if says("not up") {
        return Error::new(ErrorKind::Io, format!("{name} is down: ip link set {name} up"));
    }
    Error::new(ErrorKind::Io, format!("{name} cannot be opened: {why}"))
}

fn words(error: pcap::Error) -> String {
    match error {
        pcap::Error::PcapError(why) => why,
        other => other.to_string(),
    }
}

/// The machine's clock, which stamps packets too.
pub fn now() -> Timestamp {
    Timestamp(steady::wall())
}

/// What one thread counts and everybody may read.
#[derive(Default)]
struct Counters {
    received: AtomicU64,
    kernel: AtomicU64,
    interface: AtomicU64,
    queue: AtomicU64,
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

    fn push(&mut self, interface: u16, packet: &pcap::Packet<'_>, clock: &Look) {
        let stamp = packet.header.ts;
        // With Precision::Nano the field of microseconds holds nanoseconds.
        #[allow(clippy::useless_conversion, reason = "their width differs between platforms")]
        let nanos = i64::from(stamp.tv_sec).saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.tv_usec));
        let (time, wire_len) = (clock.time(nanos), packet.header.len);
        self.add(Caught { interface, time, wire_len, from: 0, kept: 0 }, packet.data);
    }

    fn clear(&mut self) {
        self.octets.clear();
        self.packets.clear();
        (self.until, self.gone, self.described, self.stepped) = (None, None, None, None);
    }
}

/// The thread of one interface.
struct Catcher {
    lane: usize,
    handle: Capture<Active>,
    full: Sender<(usize, Batch)>,
    spare: Receiver<Batch>,
    counters: Arc<Counters>,
    clock: Arc<Steady>,
}

impl Catcher {
    fn run(mut self, stop: &AtomicBool) {
        let lane = self.lane as u16;
        let mut batch = Batch::default();
        let mut counted = Timestamp::MIN;
        let mut last = Timestamp::MIN;
        // Once asked to stop, what is still in the ring is taken, for as long as it can take to get there.
        let mut end = None;
        loop {
            let look = self.clock.look();
            let before = look.now;
            batch.stepped = look.step.or(batch.stepped);
            if end.is_none() && stop.load(Ordering::Relaxed) {
                end = Some(before);
            }
            let taken = self.handle.dispatch(Some(BATCH), |packet| batch.push(lane, &packet, &look));
            if before.since(counted).0.unsigned_abs() > 250_000_000 {
                counted = before;
                self.count();
            }
            let quiet = matches!(taken, Ok(0));
            match taken {
                Ok(0) => batch.until = Some((before - DELAY).max(last)),
                Ok(_) => {
                    last = batch.packets.last().map_or(last, |packet| packet.time.max(last));
                    batch.until = Some(last);
                }
                Err(error) => batch.gone = Some(words(error)),
            }
            let gone = batch.gone.is_some();
            let over = gone || end.is_some_and(|end| last >= end || before.since(end) > DELAY);
            if over {
                self.count();
            }
            batch = self.hand_over(batch, over);
            if over {
                return;
            }
            if quiet {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Sends the batch and returns an empty one. Only the last may wait.
    fn hand_over(&mut self, batch: Batch, last: bool) -> Batch {
        let mut batch = if last {
            // Whoever listened may have gone.
            drop(self.full.send((self.lane, batch)));
            Batch::default()
        } else {
            match self.full.try_send((self.lane, batch)) {
                Ok(()) => self.spare.try_recv().unwrap_or_default(),
                Err(TrySendError::Full((_, batch)) | TrySendError::Disconnected((_, batch))) => {
                    self.counters.queue.fetch_add(batch.packets.len() as u64, Ordering::Relaxed);
                    batch
                }
            }
        };
        batch.clear();
        batch
    }

    fn count(&mut self) {
        if let Ok(stat) = self.handle.stats() {
            self.counters.received.store(stat.received.into(), Ordering::Relaxed);
            self.counters.kernel.store(stat.dropped.into(), Ordering::Relaxed);
            self.counters.interface.store(stat.if_dropped.into(), Ordering::Relaxed);
        }
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

struct Lane {
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
    /// What somebody else writes to a file, from its beginning on; whatever it holds is taken, nothing is dropped.
    pub fn follow(path: &Path) -> Self {
        let (full, batches) = bounded(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let (own, path) = (stop.clone(), path.to_owned());
        let name = path.display().to_string();
        let thread = std::thread::spawn(move || follow::run(&path, &full, &own));
        let lane = Lane {
            name,
            thread: Some(thread),
            empties: bounded(0).0,
            counters: Arc::default(),
            waiting: VecDeque::new(),
            place: 0,
            until: Timestamp::MIN,
            gone: false,
        };
        Self { batches, lanes: vec![lane], stop }
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
    fn next(&self) -> Option<Caught> {
        self.waiting.front()?.packets.get(self.place).copied()
    }

    fn over(&self) -> bool {
        self.gone || self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> (Lane, Receiver<Batch>) {
        let (empties, spare) = bounded(4);
        let counters = Arc::new(Counters::default());
        // As long as the thread is there, more may come.
        let thread = Some(std::thread::spawn(|| std::thread::sleep(Duration::from_millis(300))));
        let (waiting, until) = (VecDeque::new(), Timestamp::MIN);
        (Lane { name: name.into(), thread, empties, counters, waiting, place: 0, until, gone: false }, spare)
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

    #[test]
    fn what_is_missing_is_said_in_words_that_help() {
        let error = |text: &str| refused("eth9", pcap::Error::PcapError(text.into()));
        let denied = error("eth9: You don't have permission to perform this capture on that device");
        assert_eq!(denied.kind(), ErrorKind::Permission);
        assert!(
            error("eth9: No such device exists").to_string().starts_with("there is no interface eth9; there are: ")
        );
        assert!(error("eth9: That device is not up").to_string().contains("ip link set eth9 up"));
    }
}
