//! Host-side stand-ins: memory that a fake device reads and writes, and a
//! clock that only counts.

use crate::{Arrival, DmaRegion, Environment, PageSlice};
use addr::{Frame, HostPhys, PAGE_SIZE};
use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed};
use std::vec::Vec;

fn pages(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE_SIZE).unwrap();
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap()
}

/// A machine whose physical addresses are the test's own pointers.
#[derive(Default)]
pub(crate) struct FakeEnvironment {
    pub(crate) waited_us: u64,
    /// Bytes that may still be taken; `None` is no limit.
    pub(crate) left: Option<usize>,
}

impl Environment for FakeEnvironment {
    fn dma(&mut self, bytes: usize) -> Option<DmaRegion> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(bytes)?;
        }
        let base = pages(bytes);
        // SAFETY: fresh zeroed pages, leaked, so valid for good; nothing but
        // the fake device gets to know of them.
        Some(unsafe { DmaRegion::new(base, HostPhys(base.as_ptr() as u64), bytes) })
    }

    fn delay_us(&mut self, microseconds: u32) {
        self.waited_us += u64::from(microseconds);
    }
}

/// A received frame in one piece.
pub(crate) fn bytes_of(arrival: Arrival<'_>) -> Vec<u8> {
    match arrival {
        Arrival::Whole(bytes) => bytes.to_vec(),
        Arrival::Long(page, rest) => [page.bytes(PAGE_SIZE), rest].concat(),
    }
}

/// Reads what the device would read at a physical address.
pub(crate) fn device_read(address: u64, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| {
            // SAFETY: the drivers only tell the fake device addresses inside
            // leaked regions of `FakeEnvironment::dma` or `fake_page`.
            unsafe { ((address as usize + i) as *const u8).read_volatile() }
        })
        .collect()
}

/// Writes what the device would write at a physical address.
pub(crate) fn device_write(address: u64, bytes: &[u8]) {
    for (i, &byte) in bytes.iter().enumerate() {
        // SAFETY: as in `device_read`.
        unsafe { ((address as usize + i) as *mut u8).write_volatile(byte) }
    }
}

/// Reads a little-endian integer of `len` bytes.
pub(crate) fn device_word(address: u64, len: usize) -> u64 {
    device_read(address, len).iter().rev().fold(0, |value, &b| value << 8 | u64::from(b))
}

/// A slice of a fresh page that holds `byte(i)` at offset i of the slice.
pub(crate) fn fake_page(offset: u16, len: u16, byte: impl Fn(u16) -> u8) -> PageSlice {
    let base = pages(PAGE_SIZE);
    let content: Vec<u8> = (0..len).map(byte).collect();
    device_write(base.as_ptr() as u64 + u64::from(offset), &content);
    PageSlice { frame: Frame(base.as_ptr() as u64 >> 12), offset, len }
}
