//! A split virtqueue (VIRTIO 1.2, 2.7) with fixed chains.
//!
//! Chain n starts at descriptor n x `links` for the queue's whole life, so a
//! chain's number is all that goes through the rings. The used ring is the
//! device's word: ids that are not heads of chains in flight are refused.

use crate::{DmaRegion, Environment};
use core::sync::atomic::{Ordering, fence};

/// Most chains of a queue.
pub(super) const CHAINS_MAX: usize = 256;

const DESCRIPTOR_LEN: usize = 16;
const DESCRIPTOR_NEXT: u16 = 1;
const DESCRIPTOR_WRITE: u16 = 2;
const AVAILABLE_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// The index fields of both rings; flags come first, entries after.
const INDEX: usize = 2;
const ENTRIES: usize = 4;

/// One part of a chain.
#[derive(Clone, Copy)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// What the used ring said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Used {
    /// The device is done with this chain and wrote that many bytes.
    Chain(usize, u32),
    /// An entry that makes no sense; it was passed over.
    Nonsense,
}

/// The queue's memory and indices.
pub(super) struct Queue {
    memory: DmaRegion,
    available: usize,
    used: usize,
    /// Descriptors in the tables, a power of two.
    size: u16,
    /// Descriptors of a chain: 1, 2 or 4.
    links: u16,
    available_index: u16,
    used_index: u16,
    in_flight: [bool; CHAINS_MAX],
}

impl Queue {
    /// Takes memory for `size` descriptors in chains of `links`.
    pub(super) fn new(environment: &mut dyn Environment, size: u16, links: u16) -> Option<Queue> {
        let count = usize::from(size);
        assert!(size.is_power_of_two() && matches!(links, 1 | 2 | 4) && size >= links);
        assert!(count / usize::from(links) <= CHAINS_MAX);
        let available = count * DESCRIPTOR_LEN;
        // Rings are aligned to 2 and 4 (2.7); each begins a cache line, as
        // they are written by different sides.
        let used = (available + ENTRIES + 2 * count + 2).next_multiple_of(64);
        let memory = environment.dma(used + ENTRIES + 8 * count + 2)?;
        let mut queue = Queue {
            memory,
            available,
            used,
            size,
            links,
            available_index: 0,
            used_index: 0,
            in_flight: [false; CHAINS_MAX],
        };
        queue.set_interrupt(false);
        Some(queue)
    }

    /// Addresses of descriptor table, available ring and used ring.
    pub(super) fn addresses(&self) -> [u64; 3] {
        [self.memory.bus(0), self.memory.bus(self.available), self.memory.bus(self.used)]
    }

    /// Number of chains.
    pub(super) fn chains(&self) -> usize {
        usize::from(self.size / self.links)
    }

    fn write_descriptor(&mut self, index: u16, part: Part, flags: u16, next: u16) {
        let place = usize::from(index) * DESCRIPTOR_LEN;
        self.memory.write(place, part.address);
        self.memory.write(place + 8, part.len);
        self.memory.write(place + 12, flags);
        self.memory.write(place + 14, next);
    }

    /// Offers a buffer that the device fills. The device learns of it by
    /// [`Queue::publish`].
    pub(super) fn offer_writable(&mut self, chain: usize, part: Part) {
        let head = self.head(chain);
        self.write_descriptor(head, part, DESCRIPTOR_WRITE, 0);
        self.offer(chain, head);
    }

    /// Offers parts that the device reads one after the other; the first is
    /// there, and none after one that is not.
    pub(super) fn offer_readable(&mut self, chain: usize, parts: [Option<Part>; 3]) {
        let head = self.head(chain);
        let count = parts.iter().take_while(|p| p.is_some()).count() as u16;
        assert!((1..=self.links).contains(&count), "more parts than a chain has descriptors");
        for (at, part) in (head..).zip(parts.into_iter().flatten()) {
            let last = at + 1 == head + count;
            let (flags, next) = if last { (0, 0) } else { (DESCRIPTOR_NEXT, at + 1) };
            self.write_descriptor(at, part, flags, next);
        }
        self.offer(chain, head);
    }

    fn head(&self, chain: usize) -> u16 {
        assert!(chain < self.chains() && !self.in_flight[chain], "chain {chain} is in use");
        chain as u16 * self.links
    }

    fn offer(&mut self, chain: usize, head: u16) {
        self.in_flight[chain] = true;
        let entry = usize::from(self.available_index % self.size);
        self.memory.write(self.available + ENTRIES + 2 * entry, head);
        self.available_index = self.available_index.wrapping_add(1);
    }

    /// Shows the offered chains to the device; says whether it wants to be
    /// notified (2.7.13).
    pub(super) fn publish(&mut self) -> bool {
        fence(Ordering::Release);
        self.memory.write(self.available + INDEX, self.available_index);
        // The index must be visible before the flag is read, or both sides
        // may go to sleep.
        fence(Ordering::SeqCst);
        self.memory.read::<u16>(self.used) & USED_NO_NOTIFY == 0
    }

    /// Asks for an interrupt when a chain is used, or not.
    pub(super) fn set_interrupt(&mut self, on: bool) {
        let flags = if on { 0 } else { AVAILABLE_NO_INTERRUPT };
        self.memory.write(self.available, flags);
        fence(Ordering::SeqCst);
    }

    /// Whether the device has used a chain.
    pub(super) fn ready(&self) -> bool {
        self.memory.read::<u16>(self.used + INDEX) != self.used_index
    }

    /// Takes the next entry of the used ring.
    pub(super) fn take(&mut self) -> Option<Used> {
        if !self.ready() {
            return None;
        }
        fence(Ordering::Acquire);
        let entry = self.used + ENTRIES + 8 * usize::from(self.used_index % self.size);
        let id: u32 = self.memory.read(entry);
        let len: u32 = self.memory.read(entry + 4);
        self.used_index = self.used_index.wrapping_add(1);
        let links = u32::from(self.links);
        let chain = (id / links) as usize;
        if !id.is_multiple_of(links) || chain >= self.chains() || !self.in_flight[chain] {
            return Some(Used::Nonsense);
        }
        self.in_flight[chain] = false;
        Some(Used::Chain(chain, len))
    }
}
