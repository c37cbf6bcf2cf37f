//! Shared memory between the nodes as a link.
//!
//! Under QEMU it is an ivshmem-plain device (QEMU docs/specs/ivshmem-spec:
//! PCI 1af4:1110, the memory is BAR 2); on hardware what memory pooled by CXL
//! or a PCIe bridge gives. To the fabric it is a NIC like the others: the same
//! frames, the same reliability. What it saves is all that lies between: a
//! frame is written to where its receiver reads it.
//!
//! The memory is a square of rings of 512 KiB, one from every node to every
//! other; its size says for how many nodes. A node's place is the first that
//! is free when it starts; the table of places lies in the ring that place 0
//! would have to itself. A station address is made of the place. The memory
//! must be zero when the first node starts.
//!
//! A page is copied once on either side: into the memory, and out of it to the
//! page frame where it stays.
//!
//! The plain device has no interrupt: an idle node looks now and then.

mod region;
mod ring;
#[cfg(test)]
mod tests;

pub use region::SharedRegion;

use crate::frame::check_frame;
use crate::{
    Arrival, Environment, LandingPage, MTU_MAX, Nic, NicCounters, NicError, PageSlice, Peek,
    TransmitError,
};
use addr::{Frame, PAGE_SIZE};
use ring::{ENTRIES, FRAME_MAX, RING_BYTES, Reader, Writer};

/// PCI vendor and device of ivshmem.
pub const VENDOR: u16 = 0x1AF4;
/// PCI device.
pub const DEVICE: u16 = 0x1110;
/// The BAR that is the memory.
pub const MEMORY_BAR: u8 = 2;

/// Most nodes that a memory has places for.
const PLACES_MAX: usize = 64;
/// The first bytes of a station address, locally administered; the place follows.
const STATION: [u8; 5] = [0x02, 0x50, 0x47, 0x53, 0x4D];
/// How long a node watches its claim: emulated processors of different
/// machines may not be atomic against each other.
const SETTLE_US: u32 = 20_000;

/// The link.
pub struct SharedMemory {
    region: SharedRegion,
    place: usize,
    places: usize,
    identity: u64,
    mtu: u16,
    writers: [Writer; PLACES_MAX],
    readers: [Reader; PLACES_MAX],
    /// Where the next look for frames begins, so that no node is passed over.
    turn: usize,
    /// Where a frame being received is copied to, as what lies in shared
    /// memory may change: its first page, if it is longer than one, which may
    /// then stay where it has landed, and the rest.
    landing: LandingPage,
    first: Frame,
    buffer: [u8; FRAME_MAX],
    /// Bytes in it of a frame that was shown and not taken.
    peeked: Option<usize>,
    counters: NicCounters,
    pages: u64,
}

/// Nodes that `len` bytes have places for.
fn places(len: usize) -> usize {
    (1..=PLACES_MAX).take_while(|n| n * n * RING_BYTES <= len).last().unwrap_or(0)
}

/// Where the word lies that says who has a place.
const fn claim_of(place: usize) -> usize {
    place * 64
}

impl SharedMemory {
    /// Takes a place in the memory. `identity` is a number that no other node
    /// has, not 0.
    ///
    /// # Errors
    /// [`NicError::BadConfiguration`] for a memory too small for two nodes,
    /// [`NicError::NoPlace`] where every place is taken.
    pub fn start(
        region: SharedRegion,
        identity: u64,
        mtu_limit: Option<u16>,
        environment: &mut dyn Environment,
    ) -> Result<SharedMemory, NicError> {
        let places = places(region.len());
        if places < 2 || identity == 0 {
            return Err(NicError::BadConfiguration);
        }
        let page = environment.dma(PAGE_SIZE).ok_or(NicError::NoMemory)?.into_pages().pop();
        let landing = page.ok_or(NicError::NoMemory)?;
        let mut link = SharedMemory {
            first: landing.frame(),
            landing,
            region,
            place: 0,
            places,
            identity,
            mtu: mtu_limit.unwrap_or(MTU_MAX).min(MTU_MAX - 64),
            writers: [Writer::new(0); PLACES_MAX],
            readers: [Reader::new(0); PLACES_MAX],
            turn: 0,
            buffer: [0; FRAME_MAX],
            peeked: None,
            counters: NicCounters::default(),
            pages: 0,
        };
        link.place = link.claim(environment).ok_or(NicError::NoPlace)?;
        for other in 0..places {
            let ring = |from: usize, to: usize| (from * places + to) * RING_BYTES;
            link.writers[other] = Writer::new(ring(link.place, other));
            link.readers[other] = Reader::new(ring(other, link.place));
        }
        Ok(link)
    }

    fn claim(&mut self, environment: &mut dyn Environment) -> Option<usize> {
        for place in 0..self.places {
            if self.region.claim(claim_of(place), self.identity) {
                environment.delay_us(SETTLE_US);
                if self.owner(place) == self.identity {
                    return Some(place);
                }
            }
        }
        None
    }

    /// Who has a place; 0 for nobody.
    fn owner(&self, place: usize) -> u64 {
        self.region.read(claim_of(place))
    }

    /// The place that a frame is for; `None` for all others.
    fn target(&self, header: &[u8]) -> Result<Option<usize>, TransmitError> {
        match header.split_first_chunk::<5>() {
            Some((&STATION, [place, ..])) => Ok(Some(usize::from(*place))),
            _ if header.starts_with(&[0xFF; 6]) => Ok(None),
            // A station that is not on this link: lost, as on any wire.
            _ => Ok(Some(self.place)),
        }
    }

    fn put(&mut self, to: usize, header: &[u8], page: Option<PageSlice>, tail: &[u8]) -> bool {
        let Some(at) = self.writers[to].place(&self.region) else { return false };
        self.region.copy_in(at, header);
        let mut len = header.len();
        if let Some(page) = page {
            // SAFETY: the fabric keeps the page's frame as it is until
            // `pages_sent` counts it; the node's memory is identity mapped.
            unsafe {
                self.region.copy_from(at + len, page.address() as *const u8, usize::from(page.len));
            }
            len += usize::from(page.len);
        }
        self.region.copy_in(at + len, tail);
        len += tail.len();
        self.writers[to].publish(&mut self.region, len);
        true
    }

    /// Goes on to the next frame, that of another place first.
    fn advance(&mut self, from: usize) {
        self.readers[from].advance(&mut self.region);
        self.turn = from + 1;
    }

    /// The next place with a frame that waits.
    fn waiting(&self) -> Option<usize> {
        (0..self.places)
            .map(|n| (self.turn + n) % self.places)
            .find(|&from| from != self.place && self.readers[from].ready(&self.region))
    }
}

impl Nic for SharedMemory {
    fn mac(&self) -> [u8; 6] {
        let [a, b, c, d, e] = STATION;
        [a, b, c, d, e, self.place as u8]
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The link is up while the place is this node's.
    fn link_up(&mut self) -> bool {
        self.owner(self.place) == self.identity
    }

    #[inline(never)]
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        let len = check_frame(self.mtu, header, page, tail)?;
        let result = match self.target(header)? {
            Some(to) if to == self.place || to >= self.places => Ok(()),
            Some(to) if self.put(to, header, page, tail) => Ok(()),
            Some(_) => Err(TransmitError::Full),
            None => {
                // Whoever has no room misses it, as on any wire.
                for to in 0..self.places {
                    if to != self.place && self.owner(to) != 0 {
                        let _ = self.put(to, header, page, tail);
                    }
                }
                Ok(())
            }
        };
        self.counters.count_transmit(len, result);
        self.pages += u64::from(result.is_ok() && page.is_some());
        result
    }

    fn peek(&mut self) -> Option<Peek<'_>> {
        if self.peeked.is_none() {
            let from = self.waiting()?;
            let (at, len) = self.readers[from].frame(&self.region);
            let len = len.filter(|&len| len <= PAGE_SIZE)?;
            self.region.copy_out(at, &mut self.buffer[..len]);
            self.advance(from);
            self.peeked = Some(len);
        }
        self.peeked.map(|len| Peek { frame: &self.buffer[..len], staged: None })
    }

    fn receive(&mut self, f: impl FnOnce(Arrival<'_>)) -> bool {
        if let Some(len) = self.peeked.take() {
            f(Arrival::Whole(&self.buffer[..len]));
            return self.counters.count_receive(Some(len), 0);
        }
        for _ in 0..ENTRIES {
            let Some(from) = self.waiting() else { return false };
            let (at, len) = self.readers[from].frame(&self.region);
            let Some(len) = len else {
                self.advance(from);
                self.counters.count_receive(None, 1);
                continue;
            };
            let long = len > PAGE_SIZE;
            let (at, rest) = if long {
                self.region.copy_out(at, self.landing.bytes_mut(PAGE_SIZE));
                (at + PAGE_SIZE, &mut self.buffer[..len - PAGE_SIZE])
            } else {
                (at, &mut self.buffer[..len])
            };
            self.region.copy_out(at, rest);
            self.readers[from].advance(&mut self.region);
            self.turn = from + 1;
            self.counters.count_receive(Some(len), 0);
            f(if long { Arrival::Long(&mut self.landing, rest) } else { Arrival::Whole(rest) });
            return true;
        }
        false
    }

    fn landing_frames(&self) -> Option<(Frame, Frame)> {
        Some((self.first, self.first.offset_by(1)))
    }

    fn receive_ready(&self) -> bool {
        self.peeked.is_some() || self.waiting().is_some()
    }

    /// A page is copied while [`Nic::transmit`] runs.
    fn transmit_pending(&mut self) -> bool {
        false
    }

    fn pages_sent(&mut self) -> u64 {
        self.pages
    }

    /// What every ring to another node takes.
    fn room(&mut self) -> usize {
        let others = self.writers[..self.places].iter_mut().enumerate();
        let room = others
            .filter(|(to, _)| *to != self.place)
            .map(|(_, writer)| writer.room(&self.region))
            .min();
        room.unwrap_or(0) as usize
    }

    fn enable_interrupts(&mut self) {}

    fn acknowledge_interrupt(&mut self) -> bool {
        false
    }

    fn disable_interrupts(&mut self) {}

    fn raise_interrupt(&mut self) -> bool {
        false
    }

    fn counters(&mut self) -> NicCounters {
        self.counters
    }
}
