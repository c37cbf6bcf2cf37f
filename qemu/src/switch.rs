//! A small Ethernet switch between emulated nodes.
//!
//! Each port is a UDP socket connected to its node's network backend; one
//! datagram is one frame. A thread a port blocks in `recv`, so a frame costs
//! one wake-up. The switch learns source addresses, floods what it does not
//! know, and can hurt frames on purpose ([`Faults`]) and capture them.

use crate::faults::{Decisions, Fate};
use crate::{Faults, pcap};
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Longest time a port's thread waits before it looks whether to stop.
const STOP_POLL: Duration = Duration::from_millis(100);
/// Longest frame.
const FRAME_LEN_MAX: usize = 65_536;

/// Which port each address was last seen on.
#[derive(Debug, Default)]
struct Table {
    ports: HashMap<Mac, usize>,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// To one port.
    One(usize),
    /// To every port but the one it came from.
    Flood,
    /// Nowhere: too short, or its target is where it came from.
    Nowhere,
}

impl Table {
    /// Learns the frame's source and looks up its destination.
    fn route(&mut self, from: usize, frame: &[u8]) -> Target {
        let (Some(destination), Some(source)) = (mac_at(frame, 0), mac_at(frame, 6)) else {
            return Target::Nowhere;
        };
        if !is_group(source) {
            self.ports.insert(source, from);
        }
        match self.ports.get(&destination) {
            _ if is_group(destination) => Target::Flood,
            None => Target::Flood,
            Some(&port) if port == from => Target::Nowhere,
            Some(&port) => Target::One(port),
        }
    }
}

/// The address at an offset of a frame.
fn mac_at(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok()
}

/// Whether an address is a broadcast or multicast one (IEEE 802, I/G bit).
fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

/// What went through a switch.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that came in.
    pub frames: AtomicU64,
    /// Frames lost on purpose.
    pub lost: AtomicU64,
    /// Frames doubled on purpose.
    pub duplicated: AtomicU64,
    /// Frames delayed on purpose.
    pub delayed: AtomicU64,
}

/// A frame that waits for its time.
struct Delayed {
    due: Instant,
    port: usize,
    frame: Vec<u8>,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    /// The earliest is the greatest, as [`BinaryHeap`] gives the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.due.cmp(&self.due)
    }
}

/// What the ports share.
struct Shared {
    ports: Vec<UdpSocket>,
    table: Mutex<Table>,
    capture: Option<Mutex<pcap::Writer<File>>>,
    counters: Arc<Counters>,
    stop: AtomicBool,
}

/// A running switch; dropping it stops it.
pub struct Switch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch over connected sockets, one a port.
    ///
    /// # Errors
    /// What the operating system says to a socket's options.
    pub fn start(
        ports: Vec<UdpSocket>,
        faults: Faults,
        capture: Option<pcap::Writer<File>>,
    ) -> io::Result<Self> {
        for port in &ports {
            port.set_read_timeout(Some(STOP_POLL))?;
        }
        let shared = Arc::new(Shared {
            ports,
            table: Mutex::default(),
            capture: capture.map(Mutex::new),
            counters: Arc::default(),
            stop: AtomicBool::new(false),
        });
        let (late, queue) = mpsc::channel();
        let mut switch = Self { shared: shared.clone(), threads: Vec::new() };
        for port in 0..shared.ports.len() {
            let (shared, late) = (shared.clone(), late.clone());
            let decisions = faults.decisions(port as u32);
            switch.spawn(format!("switch-port-{port}"), move || {
                shared.serve(port, decisions, &late);
            })?;
        }
        switch.spawn("switch-delay".to_owned(), move || shared.deliver_late(&queue))?;
        Ok(switch)
    }

    /// What went through so far.
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Starts one of the switch's threads.
    fn spawn(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(body)?);
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread of ours that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Forwards what one port sends until the switch stops.
    fn serve(&self, from: usize, mut decisions: Decisions, late: &mpsc::Sender<Delayed>) {
        let mut buffer = vec![0; FRAME_LEN_MAX];
        while !self.stop.load(Ordering::Relaxed) {
            // A time-out is the chance to stop; "refused" says that the
            // node's end is not open yet or any more, which is its affair.
            let Ok(len) = self.ports[from].recv(&mut buffer) else { continue };
            self.forward(from, &buffer[..len], &mut decisions, late);
        }
    }

    /// Sends one frame on to where it belongs.
    fn forward(
        &self,
        from: usize,
        frame: &[u8],
        decisions: &mut Decisions,
        late: &mpsc::Sender<Delayed>,
    ) {
        self.counters.frames.fetch_add(1, Ordering::Relaxed);
        if let Some(capture) = &self.capture {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // A capture that cannot be written (a full disk) must not stop
            // the link.
            let _ = lock(capture).frame(now, frame);
        }
        let target = lock(&self.table).route(from, frame);
        let to = match target {
            Target::Nowhere => return,
            Target::One(port) => port..port + 1,
            Target::Flood => 0..self.ports.len(),
        };
        for port in to.filter(|&port| port != from) {
            match decisions.next_fate() {
                Fate::Lost => {
                    self.counters.lost.fetch_add(1, Ordering::Relaxed);
                }
                Fate::Arrives { copies, delay } => {
                    if copies > 1 {
                        self.counters.duplicated.fetch_add(1, Ordering::Relaxed);
                        self.send(port, frame);
                    }
                    if delay.is_zero() {
                        self.send(port, frame);
                        continue;
                    }
                    self.counters.delayed.fetch_add(1, Ordering::Relaxed);
                    let due = Instant::now() + delay;
                    // The receiver lives as long as the senders.
                    let _ = late.send(Delayed { due, port, frame: frame.to_vec() });
                }
            }
        }
    }

    /// Sends a frame out of a port; a full or closed one loses it, as a
    /// cable would.
    fn send(&self, port: usize, frame: &[u8]) {
        let _ = self.ports[port].send(frame);
    }

    /// Sends delayed frames when they are due, until the switch stops.
    fn deliver_late(&self, queue: &mpsc::Receiver<Delayed>) {
        let mut waiting: BinaryHeap<Delayed> = BinaryHeap::new();
        while !self.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let wait = match waiting.peek() {
                Some(first) if first.due <= now => {
                    let first = waiting.pop().expect("it was just seen");
                    self.send(first.port, &first.frame);
                    continue;
                }
                Some(first) => (first.due - now).min(STOP_POLL),
                None => STOP_POLL,
            };
            match queue.recv_timeout(wait) {
                Ok(delayed) => waiting.push(delayed),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

/// Locks; a poisoned lock holds nothing that a half-done change could harm.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(to: u8, from: u8) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, from]);
        frame[12] = 0x88;
        frame
    }

    fn broadcast(from: u8) -> Vec<u8> {
        let mut frame = frame(0, from);
        frame[..6].fill(0xFF);
        frame
    }

    /// A switch and the nodes' ends of its ports.
    fn switch(nodes: usize, faults: Faults) -> (Switch, Vec<UdpSocket>) {
        let pairs: Vec<_> = (0..nodes).map(|_| crate::link::pair().unwrap()).collect();
        let (ours, theirs) = pairs.into_iter().unzip();
        (Switch::start(ours, faults, None).unwrap(), theirs)
    }

    fn receive(node: &UdpSocket, wait: Duration) -> Option<Vec<u8>> {
        node.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 2000];
        node.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec())
    }

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(50);

    #[test]
    fn the_table_learns_and_routes() {
        let mut table = Table::default();
        assert_eq!(table.route(0, &frame(2, 1)), Target::Flood);
        assert_eq!(table.route(1, &frame(1, 2)), Target::One(0));
        assert_eq!(table.route(0, &frame(2, 1)), Target::One(1));
        assert_eq!(table.route(0, &frame(1, 1)), Target::Nowhere);
        assert_eq!(table.route(0, &broadcast(1)), Target::Flood);
        assert_eq!(table.route(0, &[0; 11]), Target::Nowhere);
    }

    #[test]
    fn frames_flood_until_an_address_is_known() {
        let (_switch, nodes) = switch(3, Faults::default());
        nodes[0].send(&broadcast(10)).unwrap();
        assert_eq!(receive(&nodes[1], SOON).unwrap(), broadcast(10));
        assert_eq!(receive(&nodes[2], SOON).unwrap(), broadcast(10));
        nodes[1].send(&frame(10, 11)).unwrap();
        assert_eq!(receive(&nodes[0], SOON).unwrap(), frame(10, 11));
        assert_eq!(receive(&nodes[2], NEVER), None);
    }

    #[test]
    fn what_is_doubled_arrives_twice_and_what_is_late_arrives() {
        let faults = Faults { duplicate: 100.0, reorder: 100.0, ..Faults::default() };
        let (switch, nodes) = switch(2, faults);
        nodes[0].send(&broadcast(10)).unwrap();
        for _ in 0..2 {
            assert_eq!(receive(&nodes[1], SOON).unwrap(), broadcast(10));
        }
        assert_eq!(receive(&nodes[1], NEVER), None);
        let counters = switch.counters();
        assert_eq!(counters.duplicated.load(Ordering::Relaxed), 1);
        assert_eq!(counters.delayed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_is_lost_never_arrives() {
        let (switch, nodes) = switch(2, Faults { loss: 100.0, ..Faults::default() });
        nodes[0].send(&broadcast(10)).unwrap();
        assert_eq!(receive(&nodes[1], NEVER), None);
        drop(nodes);
        let counters = switch.counters();
        drop(switch);
        assert_eq!(counters.lost.load(Ordering::Relaxed), 1);
    }
}
