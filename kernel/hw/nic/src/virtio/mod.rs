//! virtio-net over the modern PCI transport (VIRTIO 1.2).
//!
//! One queue pair, no offload, no merged buffers: a frame arrives in one
//! buffer, and is sent as the driver's header slot followed by the page
//! itself. [`capabilities`] finds the register structures, `registers` has
//! their fields, `transport` the start-up, `queue` the virtqueue.

pub mod capabilities;
#[cfg(test)]
mod fake;
mod queue;
mod registers;
#[cfg(test)]
mod tests;
mod transport;

pub use transport::{InterruptKind, Structures};

use crate::{
    Arrival, BUFFER_LEN, DmaRegion, ETHERNET_HEADER_LEN, Environment, HEADER_MAX, MTU_MAX, Nic,
    NicCounters, NicError, PageSlice, Peek, Registers, TransmitError, is_unicast,
};
use queue::{Part, Queue, Used};
use registers::{NET_HEADER_LEN, NO_VECTOR, RECEIVE_QUEUE, TRANSMIT_QUEUE, common, feature, net};

/// Vendor id of all virtio devices.
pub const VENDOR: u16 = 0x1AF4;
/// Device id of a virtio-net device, transitional and modern (4.1.2).
pub const DEVICES: [u16; 2] = [0x1000, 0x1041];
/// Bytes that the driver reaches in the common configuration structure.
pub const COMMON_LEN: usize = common::LEN;
/// Bytes that the driver reaches in the device's own configuration.
pub const DEVICE_LEN: usize = net::LEN;

/// Receive buffers at most: 2 MiB.
const RECEIVE_SIZE: u16 = 256;
/// Transmit descriptors at most.
const TRANSMIT_SIZE: u16 = 256;
/// Descriptors of a frame: header, page, what follows, and one to spare.
const LINKS: u16 = 4;
/// Frames in flight at most.
const CHAINS: usize = TRANSMIT_SIZE as usize / LINKS as usize;
/// A header slot: virtio's header, then ours.
const SLOT_LEN: usize = NET_HEADER_LEN + HEADER_MAX + 4;
/// Smallest MTU that a device may have (5.1.4.1).
const DEVICE_MTU_MIN: u16 = 68;

const _: () = assert!(MTU_MAX as usize + NET_HEADER_LEN + 18 <= BUFFER_LEN);
const _: () = assert!(SLOT_LEN.is_multiple_of(16));

/// A queue with the place that wakes the device.
struct Channel {
    queue: Queue,
    notify: usize,
    index: u16,
}

/// Which pages the device is done with. It may finish frames in any order;
/// [`Nic::pages_sent`] counts in the order they were given.
struct Pages {
    given: u64,
    /// All pages before this one are done.
    sent: u64,
    /// Number of the page in each chain.
    in_chain: [Option<u64>; CHAINS],
    /// Pages from `sent` on that are done, by number modulo the length.
    finished: [bool; CHAINS],
}

impl Default for Pages {
    fn default() -> Pages {
        Pages { given: 0, sent: 0, in_chain: [None; CHAINS], finished: [false; CHAINS] }
    }
}

impl Pages {
    fn pending(&self) -> u64 {
        self.given - self.sent
    }

    fn room(&self) -> bool {
        self.pending() < CHAINS as u64
    }

    fn give(&mut self, chain: usize) {
        self.in_chain[chain] = Some(self.given);
        self.given += 1;
    }

    fn done(&mut self, chain: usize) {
        let Some(number) = self.in_chain[chain].take() else { return };
        let place = |number: u64| (number % CHAINS as u64) as usize;
        self.finished[place(number)] = true;
        while core::mem::take(&mut self.finished[place(self.sent)]) {
            self.sent += 1;
        }
    }
}

/// A running virtio-net device.
pub struct VirtioNet<R> {
    structures: Structures<R>,
    receive: Channel,
    buffers: DmaRegion,
    transmit: Channel,
    headers: DmaRegion,
    /// Chains that are free to send, and how many.
    free: [u8; CHAINS],
    free_count: usize,
    pages: Pages,
    interrupt: InterruptKind,
    has_status: bool,
    mac: [u8; 6],
    mtu: u16,
    counters: NicCounters,
    /// The chain with a frame that was shown and not taken, and the frame's length.
    peeked: Option<(usize, usize)>,
}

impl<R: Registers> VirtioNet<R> {
    /// Resets and starts the device; it receives from now on.
    ///
    /// # Errors
    /// [`NicError`] if the device refuses, contradicts itself, or there is not
    /// enough memory.
    pub fn start(
        mut structures: Structures<R>,
        interrupt: InterruptKind,
        mtu_limit: Option<u16>,
        environment: &mut dyn Environment,
    ) -> Result<VirtioNet<R>, NicError> {
        structures.reset(environment)?;
        let needed = feature::VERSION_1 | feature::MAC;
        let wanted = feature::MTU | feature::STATUS | feature::ACCESS_PLATFORM;
        let features = structures.negotiate(needed, wanted).inspect_err(|_| structures.fail())?;
        let mut mac = [0; 6];
        for (at, byte) in mac.iter_mut().enumerate() {
            *byte = structures.device.read8(net::MAC + at);
        }
        if !is_unicast(mac) {
            structures.fail();
            return Err(NicError::NoStationAddress);
        }
        // Without the feature the device promises nothing beyond 1500.
        let device_mtu = if features & feature::MTU != 0 {
            structures.device.read16(net::MTU).max(DEVICE_MTU_MIN)
        } else {
            1500
        };
        let mtu = device_mtu.min(MTU_MAX).min(mtu_limit.unwrap_or(MTU_MAX));
        let (receive, transmit) = Self::channels(&mut structures, interrupt, environment)
            .inspect_err(|_| structures.fail())?;
        let buffers = environment.dma(receive.queue.chains() * BUFFER_LEN);
        let headers = environment.dma(transmit.queue.chains() * SLOT_LEN);
        let (Some(buffers), Some(headers)) = (buffers, headers) else {
            structures.fail();
            return Err(NicError::NoMemory);
        };
        let free_count = transmit.queue.chains();
        let mut nic = VirtioNet {
            structures,
            receive,
            buffers,
            transmit,
            headers,
            free: core::array::from_fn(|chain| chain as u8),
            free_count,
            pages: Pages::default(),
            interrupt,
            has_status: features & feature::STATUS != 0,
            mac,
            mtu,
            counters: NicCounters::default(),
            peeked: None,
        };
        for chain in 0..nic.receive.queue.chains() {
            nic.offer_buffer(chain);
        }
        nic.structures.driver_ok();
        let wake = nic.receive.queue.publish();
        nic.notify(RECEIVE_QUEUE, wake);
        Ok(nic)
    }

    fn channels(
        structures: &mut Structures<R>,
        interrupt: InterruptKind,
        environment: &mut dyn Environment,
    ) -> Result<(Channel, Channel), NicError> {
        let vector = match interrupt {
            InterruptKind::Line => NO_VECTOR,
            InterruptKind::MsiX(vector) => vector,
        };
        structures.common.write16(common::CONFIG_MSIX_VECTOR, NO_VECTOR);
        let (queue, notify) =
            structures.make_queue(RECEIVE_QUEUE, RECEIVE_SIZE, 1, vector, environment)?;
        let receive = Channel { queue, notify, index: RECEIVE_QUEUE };
        let (queue, notify) =
            structures.make_queue(TRANSMIT_QUEUE, TRANSMIT_SIZE, LINKS, NO_VECTOR, environment)?;
        let transmit = Channel { queue, notify, index: TRANSMIT_QUEUE };
        Ok((receive, transmit))
    }

    fn notify(&mut self, queue: u16, wanted: bool) {
        let channel = if queue == RECEIVE_QUEUE { &self.receive } else { &self.transmit };
        if wanted {
            self.structures.notify.write16(channel.notify, channel.index);
        }
    }

    fn offer_buffer(&mut self, chain: usize) {
        let address = self.buffers.bus(chain * BUFFER_LEN);
        self.receive.queue.offer_writable(chain, Part { address, len: BUFFER_LEN as u32 });
    }

    fn return_buffer(&mut self, chain: usize) {
        self.offer_buffer(chain);
        let wake = self.receive.queue.publish();
        self.notify(RECEIVE_QUEUE, wake);
    }

    /// Takes the chain of the next good frame from the queue, and the frame's
    /// length.
    fn take(&mut self) -> Option<(usize, usize)> {
        for _ in 0..self.receive.queue.chains() {
            let (chain, len) = match self.receive.queue.take()? {
                Used::Nonsense => {
                    self.counters.dropped += 1;
                    continue;
                }
                Used::Chain(chain, len) => (chain, len as usize),
            };
            let good = NET_HEADER_LEN + ETHERNET_HEADER_LEN..=BUFFER_LEN;
            if good.contains(&len) {
                return Some((chain, len - NET_HEADER_LEN));
            }
            self.counters.dropped += 1;
            self.return_buffer(chain);
        }
        None
    }

    /// Takes back the chains that were sent.
    fn clean(&mut self) {
        for _ in 0..self.transmit.queue.chains() {
            match self.transmit.queue.take() {
                None => break,
                Some(Used::Nonsense) => self.counters.dropped += 1,
                Some(Used::Chain(chain, _)) => {
                    self.pages.done(chain);
                    self.free[self.free_count] = chain as u8;
                    self.free_count += 1;
                }
            }
        }
    }

    fn send(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        if self.free_count <= self.transmit.queue.chains() / 2 {
            self.clean();
        }
        if self.free_count == 0 || (page.is_some() && !self.pages.room()) {
            return Err(TransmitError::Full);
        }
        self.free_count -= 1;
        let chain = usize::from(self.free[self.free_count]);
        // The first bytes of the slot are virtio's header: zero since start.
        let slot = chain * SLOT_LEN;
        self.headers.copy_in(slot + NET_HEADER_LEN, header);
        let len = (NET_HEADER_LEN + header.len()) as u32;
        let first = Part { address: self.headers.bus(slot), len };
        let second = page.map(|p| Part { address: p.address(), len: u32::from(p.len) });
        let third = (!tail.is_empty()).then(|| {
            let at = slot + NET_HEADER_LEN + header.len();
            self.headers.copy_in(at, tail);
            Part { address: self.headers.bus(at), len: tail.len() as u32 }
        });
        if page.is_some() {
            self.pages.give(chain);
        }
        self.transmit.queue.offer_readable(chain, [Some(first), second, third]);
        let wake = self.transmit.queue.publish();
        self.notify(TRANSMIT_QUEUE, wake);
        Ok(())
    }
}

impl<R: Registers> Nic for VirtioNet<R> {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn link_up(&mut self) -> bool {
        !self.has_status || self.structures.device.read16(net::STATUS) & net::STATUS_LINK_UP != 0
    }

    #[inline(never)]
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        let len = crate::check_frame(self.mtu, header, page, tail)?;
        let result = self.send(header, page, tail);
        self.counters.count_transmit(len, result);
        result
    }

    fn peek(&mut self) -> Option<Peek<'_>> {
        if self.peeked.is_none() {
            self.peeked = self.take();
        }
        let (chain, len) = self.peeked?;
        let frame = self.buffers.bytes(chain * BUFFER_LEN + NET_HEADER_LEN, len);
        Some(Peek { frame, staged: None })
    }

    fn receive(&mut self, f: impl FnOnce(Arrival<'_>)) -> bool {
        let Some((chain, len)) = self.peeked.take().or_else(|| self.take()) else { return false };
        f(Arrival::Whole(self.buffers.bytes(chain * BUFFER_LEN + NET_HEADER_LEN, len)));
        self.return_buffer(chain);
        self.counters.count_receive(Some(len), 0)
    }

    fn receive_ready(&self) -> bool {
        self.peeked.is_some() || self.receive.queue.ready()
    }

    fn transmit_pending(&mut self) -> bool {
        self.clean();
        self.pages.pending() != 0
    }

    fn pages_sent(&mut self) -> u64 {
        self.clean();
        self.pages.sent
    }

    fn room(&mut self) -> usize {
        self.clean();
        self.free_count.min(CHAINS - self.pages.pending() as usize)
    }

    fn enable_interrupts(&mut self) {
        self.receive.queue.set_interrupt(true);
    }

    fn acknowledge_interrupt(&mut self) -> bool {
        // Reading clears the status (4.1.4.5); MSI-X leaves it zero and is
        // never shared.
        let ours = match self.interrupt {
            InterruptKind::Line => self.structures.interrupt_status.read8(0) & 3 != 0,
            InterruptKind::MsiX(_) => true,
        };
        self.counters.interrupts += u64::from(ours);
        ours
    }

    fn disable_interrupts(&mut self) {
        self.receive.queue.set_interrupt(false);
    }

    fn raise_interrupt(&mut self) -> bool {
        false
    }

    fn counters(&mut self) -> NicCounters {
        self.counters
    }
}
