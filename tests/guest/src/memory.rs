//! Memory to measure: mapped, and touched one page at a time.

use crate::boot::{BootParams, USABLE};
use crate::cpu::tsc;
use core::cell::UnsafeCell;
use x86_64::registers::control::Cr3;

/// First page that is not the guest's own: program, stack and what the loader
/// has left lie below 8 MiB (guest.ld).
const FIRST: u64 = 8 << 20 >> 12;
/// Pages below 4 GiB, which the loader has mapped.
const LOADER_MAPPED: u64 = 1 << 20;
/// Pages that one table of 1 GiB pages maps.
const TABLE_PAGES: u64 = 512 << 18;
/// Entry of a 1 GiB page: present, writable, large (AMD APM volume 2, 5.3).
const HUGE: u64 = 0x83;

/// Table of 1 GiB pages for the first 512 GiB.
#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: the guest has one processor and writes the table once, in `map_all`,
// before it is used.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([0; 512]));

/// Maps the first 512 GiB to themselves; `false` where the processor has no
/// 1 GiB pages.
fn map_all() -> bool {
    let extended = core::arch::x86_64::__cpuid(0x8000_0000).eax;
    if extended < 0x8000_0001 || core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 == 0 {
        return false;
    }
    let (root, flags) = Cr3::read();
    let table = TABLE.0.get();
    // SAFETY: only this function uses the table and no other runs. The root is the
    // loader's, identity mapped; the new entry maps the first 4 GiB as the old one
    // did, and what lies above as well. Writing CR3 drops the old translations.
    unsafe {
        for i in 0..512 {
            (*table)[i as usize] = i << 30 | HUGE;
        }
        (root.start_address().as_u64() as *mut u64).write_volatile(table as u64 | 3);
        Cr3::write(root, flags);
    }
    true
}

/// A row of pages that may be touched: usable memory beside the guest's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    first: u64,
    pages: u64,
}

impl Region {
    /// First page.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of pages.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// A part of it, cut at its end.
    #[must_use]
    pub fn part(&self, from: u64, pages: u64) -> Region {
        let from = from.min(self.pages);
        Region { first: self.first + from, pages: pages.min(self.pages - from) }
    }

    /// Where a page lies.
    ///
    /// # Panics
    /// If the region has not so many pages.
    #[must_use]
    pub fn address(&self, index: u64) -> u64 {
        assert!(index < self.pages, "page {index} of {}", self.pages);
        (self.first + index) << 12
    }

    /// Reads a word of a page, and says how many ticks that took.
    #[must_use]
    pub fn read(&self, index: u64) -> (u64, u64) {
        let address = self.address(index) as *const u64;
        let start = tsc();
        // SAFETY: mapped memory that no Rust value lies in.
        let value = unsafe { address.read_volatile() };
        (tsc() - start, value)
    }

    /// Writes a word of a page, and says how many ticks that took.
    pub fn write(&self, index: u64, value: u64) -> u64 {
        let address = self.address(index) as *mut u64;
        let start = tsc();
        // SAFETY: mapped memory that no Rust value lies in.
        unsafe { address.write_volatile(value) };
        tsc() - start
    }
}

/// All memory that may be touched, in at most a few regions.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    regions: [Region; 4],
}

impl Memory {
    /// Finds and maps the memory of the map.
    #[must_use]
    pub fn find(boot: &BootParams) -> Memory {
        let mapped = if map_all() { TABLE_PAGES } else { LOADER_MAPPED };
        let usable = boot.e820().filter(|r| r.kind == USABLE).filter_map(|r| {
            let first = r.start.div_ceil(4096).max(FIRST);
            let end = (r.start.checked_add(r.len)? / 4096).min(mapped);
            (first < end).then(|| Region { first, pages: end - first })
        });
        let mut regions = [Region { first: 0, pages: 0 }; 4];
        for (place, region) in regions.iter_mut().zip(usable) {
            *place = region;
        }
        Memory { regions }
    }

    /// The regions, in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        self.regions.iter().copied().filter(|r| r.pages > 0)
    }

    /// The first row of pages of which `is_wanted` is true; it must be so for
    /// whole runs of 2 MiB.
    #[must_use]
    pub fn row(&self, mut is_wanted: impl FnMut(u64) -> bool) -> Option<Region> {
        for region in self.regions() {
            let steps = || (0..region.pages).step_by(512);
            let mut wanted = |i: u64| is_wanted(region.first + i);
            let Some(from) = steps().find(|&i| wanted(i)) else { continue };
            let to = steps().find(|&i| i > from && !wanted(i)).unwrap_or(region.pages);
            return Some(region.part(from, to - from));
        }
        None
    }
}
