//! Interfaces, live, through libpcap: one thread for each that only copies packets out of the kernel's ring and never waits for analysis.
//!
//! When whoever takes the packets is too slow, whole batches are dropped and counted: a capture with a hole that is known beats one that
//! stops the kernel's ring without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use pcap::{Active, Capture, Direction, Linktype, Precision};

use super::feed::{Batch, Caught, Counters, Feed, Lane, QUEUE};
use super::steady::{Look, Steady};
use super::{Interface, LinkType, steady};
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
            lanes.push(Lane::new(interface.name, thread, empties, counters));
        }
        Feed::new(batches, lanes, stop)
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

/// Adds a packet as libpcap gives it.
fn add(batch: &mut Batch, interface: u16, packet: &pcap::Packet<'_>, clock: &Look) {
    let stamp = packet.header.ts;
    // With Precision::Nano the field of microseconds holds nanoseconds.
    #[allow(clippy::useless_conversion, reason = "their width differs between platforms")]
    let nanos = i64::from(stamp.tv_sec).saturating_mul(1_000_000_000).saturating_add(i64::from(stamp.tv_usec));
    let (time, wire_len) = (clock.time(nanos), packet.header.len);
    batch.add(Caught { interface, time, wire_len, from: 0, kept: 0 }, packet.data);
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
            let taken = self.handle.dispatch(Some(BATCH), |packet| add(&mut batch, lane, &packet, &look));
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

#[cfg(test)]
mod tests {
    use super::*;

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
