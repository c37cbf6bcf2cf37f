//! Memory that a NIC reads and writes by itself.
//!
//! A [`DmaRegion`] is physically contiguous, identity known, and never given
//! back: a driver takes its rings and buffers once, at start. All access is by
//! offset and checked, so a driver's index arithmetic cannot leave the region.
//! Descriptors are read and written with volatile accesses; ordering against
//! the device comes from `fence` (x86 keeps stores and loads in order, so it
//! only holds the compiler; Intel SDM volume 3, 9.2 "Memory Ordering").

use crate::ETHERNET_HEADER_LEN;
use addr::{Frame, HostPhys, PAGE_SIZE};
use alloc::vec::Vec;
use core::ptr::NonNull;
use platform::memory::PhysMemory;
use volatile::VolatilePtr;

/// Half of the header of a frame with one message.
const PIECE: usize = 64;

/// A physically contiguous run of memory shared with one device.
pub struct DmaRegion {
    base: NonNull<u8>,
    bus: HostPhys,
    len: usize,
}

// SAFETY: the region is owned by this value alone (contract of `new`) and
// is plain memory, so it may move to another processor with its owner.
unsafe impl Send for DmaRegion {}

mod sealed {
    /// Integers a descriptor consists of.
    pub trait Word: Copy {}
    impl Word for u8 {}
    impl Word for u16 {}
    impl Word for u32 {}
    impl Word for u64 {}
    impl Word for [u64; 2] {}
}

impl DmaRegion {
    /// Takes `len` bytes at `base`, which the device sees at `bus`.
    ///
    /// # Safety
    /// The memory is valid for reads and writes for the rest of the program,
    /// is used by nothing else but a device it is handed to, is aligned to at
    /// least 16 bytes, and `bus` is its physical address.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, bus: HostPhys, len: usize) -> DmaRegion {
        assert!(
            (base.as_ptr() as usize).is_multiple_of(16) && bus.0.is_multiple_of(16),
            "unaligned DMA memory"
        );
        DmaRegion { base, bus, len }
    }

    /// Bytes in the region.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the region holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The physical address of the byte at `offset`.
    #[must_use]
    pub fn bus(&self, offset: usize) -> u64 {
        assert!(offset < self.len, "DMA offset outside the region");
        self.bus.0 + offset as u64
    }

    fn place(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "DMA access outside the region");
        // SAFETY: `offset` is inside the allocation that `new` was promised.
        unsafe { self.base.add(offset) }
    }

    #[inline(always)]
    fn word<T: sealed::Word>(&self, offset: usize) -> VolatilePtr<'_, T> {
        let place = self.place(offset, size_of::<T>()).cast::<T>();
        assert!(place.is_aligned(), "unaligned DMA access");
        // SAFETY: in bounds and aligned; `T` is made of integers, so whatever the
        // device writes is valid; no CPU access but through this value.
        unsafe { VolatilePtr::new(place) }
    }

    /// Reads one integer that the device may have written.
    #[must_use]
    pub fn read<T: sealed::Word>(&self, offset: usize) -> T {
        self.word(offset).read()
    }

    /// Writes one integer, or the two of a descriptor, that the device may read.
    pub fn write<T: sealed::Word>(&mut self, offset: usize, value: T) {
        self.word(offset).write(value);
    }

    /// Bytes the device has finished writing. The caller has seen, before
    /// this call, that the device gave the place back.
    #[must_use]
    pub fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let start = self.place(offset, len).as_ptr();
        // SAFETY: in bounds of an initialised allocation; the driver calls
        // this only for a buffer the device has given back, so nobody writes
        // to it while the borrow of `self` lasts.
        unsafe { core::slice::from_raw_parts(start, len) }
    }

    /// Bytes at a place the device does not own at present, to be changed.
    #[inline(always)]
    pub fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        let start = self.place(offset, len).as_ptr();
        // SAFETY: in bounds of an initialised allocation; the device does not look
        // at the place, and `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(start, len) }
    }

    /// Copies bytes to a place the device does not own at present.
    #[inline(always)]
    pub fn copy_in(&mut self, offset: usize, from: &[u8]) {
        let to = self.place(offset, from.len()).as_ptr();
        // What most frames have, in pieces of a length that takes no call.
        if let Ok(usual) = <&[u8; 2 * PIECE]>::try_from(from) {
            let (pieces, _) = usual.as_chunks::<PIECE>();
            let second = to.wrapping_add(PIECE);
            // SAFETY: `to` is in bounds for both pieces.
            unsafe {
                to.cast::<[u8; PIECE]>().write_unaligned(pieces[0]);
                second.cast::<[u8; PIECE]>().write_unaligned(pieces[1]);
            }
            return;
        }
        if let Ok(header) = <&[u8; ETHERNET_HEADER_LEN]>::try_from(from) {
            let start = header.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            let end = header.last_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            let last = to.wrapping_add(ETHERNET_HEADER_LEN - size_of::<u64>());
            // SAFETY: `to` is in bounds for as many bytes as the header has: two words
            // that overlap.
            unsafe {
                to.cast::<u64>().write_unaligned(start);
                last.cast::<u64>().write_unaligned(end);
            }
            return;
        }
        // SAFETY: `to` is in bounds for `from.len()` bytes, and `from` cannot
        // overlap a region that nothing but this value refers to.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }
}

/// A page frame that a device fills.
#[derive(Debug)]
pub struct LandingPage {
    base: NonNull<u8>,
    frame: Frame,
}

// SAFETY: as for `DmaRegion`: the frame belongs to this value and its device.
unsafe impl Send for LandingPage {}

impl LandingPage {
    /// Takes a frame that belongs to whoever uses `memory`.
    ///
    /// # Panics
    /// If it is not RAM.
    #[must_use]
    pub fn new(memory: &PhysMemory, frame: Frame) -> LandingPage {
        let base = NonNull::new(memory.pointer(frame)).expect("frame 0 is never lent");
        LandingPage { base, frame }
    }

    /// The page frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// All of it, while nothing is being received into it: it was handed over
    /// with a frame.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.bytes(PAGE_SIZE)
    }

    /// As [`LandingPage::content`], to change it.
    pub fn content_mut(&mut self) -> &mut [u8] {
        self.bytes_mut(PAGE_SIZE)
    }

    /// The first bytes, which the device has finished writing.
    pub(crate) fn lead(&mut self) -> &mut [u8; crate::ETHERNET_HEADER_LEN] {
        // SAFETY: the first bytes of the page, as in `bytes_mut`.
        unsafe { self.base.cast().as_mut() }
    }

    /// The first `len` bytes, which the device has finished writing.
    pub(crate) fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= PAGE_SIZE, "more than a page");
        // SAFETY: a page of RAM, this value's and its device's alone (`new`, `DmaRegion::new`);
        // drivers ask only for a buffer that the device has given back, and for none that is
        // a guest's already (`Nic::peek_long`), which runs while no such borrow lives.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), len) }
    }

    /// As [`LandingPage::bytes`], to change them.
    pub(crate) fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= PAGE_SIZE, "more than a page");
        // SAFETY: as in `bytes`; `self` is borrowed mutably.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), len) }
    }
}

impl DmaRegion {
    /// Takes the region apart into page frames.
    ///
    /// # Panics
    /// If it does not begin with a page.
    #[must_use]
    pub fn into_pages(self) -> Vec<LandingPage> {
        assert!(self.bus.offset() == 0, "a region that begins within a page");
        let page = |i: usize| LandingPage {
            // SAFETY: inside the region.
            base: unsafe { self.base.add(i * PAGE_SIZE) },
            frame: self.bus.frame().offset_by(i as u64),
        };
        (0..self.len / PAGE_SIZE).map(page).collect()
    }
}

/// What a driver needs of the machine while it starts.
pub trait Environment {
    /// Gives `bytes` of zeroed memory, physically contiguous and aligned to a
    /// page, for good; `None` if there is no such run.
    fn dma(&mut self, bytes: usize) -> Option<DmaRegion>;
    /// Waits at least `microseconds`.
    fn delay_us(&mut self, microseconds: u32);
}
