//! The node's RAM: what is free, and access to it through the identity map.
//!
//! Start-up: [`BootMemory`] knows all free RAM and gives out contiguous
//! frames for tables, DMA and the heap; then [`BootMemory::into_regions`]
//! hands all the rest to the page pool. [`PhysMemory`] reads and writes
//! frames by their physical address.

use addr::{Frame, PAGE_SIZE, PageBytes};
use alloc::vec::Vec;
use boot::{BootInfo, Module, Payload, Range, RangeSet};
use core::arch::asm;
use paging::HostMemory;
use spin::Once;

/// Below this firmware, loader and legacy devices have their places.
pub const LOW_END: u64 = 0x10_0000;
const RANGES_MAX: usize = 256;

/// A half-open range of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRange {
    /// First frame.
    pub start: Frame,
    /// One past the last frame.
    pub end: Frame,
}

impl FrameRange {
    /// Frames in the range.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.end.0 - self.start.0
    }

    const fn new(range: Range) -> FrameRange {
        FrameRange { start: Frame(range.start >> 12), end: Frame(range.end >> 12) }
    }
}

/// Gives out frames before the page pool exists.
pub struct BootMemory {
    free: RangeSet<RANGES_MAX>,
}

impl BootMemory {
    /// All usable RAM that the identity map reaches, less the low megabyte,
    /// the image and the modules.
    #[must_use]
    pub fn new(info: &BootInfo) -> BootMemory {
        let mut free = without_kernel(info);
        for module in info.modules() {
            free.remove(module.range.touched_pages());
        }
        BootMemory { free }
    }

    /// Takes `count` contiguous frames, the first a multiple of `align_pages`
    /// (a power of two); lowest first. Their content is undefined.
    pub fn alloc_frames(&mut self, count: u64, align_pages: u64) -> Option<Frame> {
        assert!(align_pages.is_power_of_two(), "alignment {align_pages}");
        let align = align_pages.checked_mul(PAGE_SIZE as u64)?;
        let len = count.checked_mul(PAGE_SIZE as u64).filter(|&len| len > 0)?;
        let start = self.free.as_slice().iter().find_map(|r| {
            let start = r.start.checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= r.end).then_some(start)
        })?;
        self.free.remove(Range::from_len(start, len));
        Some(Frame(start >> 12))
    }

    /// Free frames left.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.free.total() >> 12
    }

    /// Hands over everything that is left.
    #[must_use]
    pub fn into_regions(self) -> Vec<FrameRange> {
        self.free.as_slice().iter().map(|&r| FrameRange::new(r)).collect()
    }
}

/// Addresses that this processor or a four-level identity map cannot form.
pub(crate) fn unreachable() -> Range {
    let end = 1u64 << crate::cpu::physical_address_bits();
    Range::new(end.min(crate::page_table::ADDRESS_END), u64::MAX)
}

fn without_kernel(info: &BootInfo) -> RangeSet<RANGES_MAX> {
    let mut free = info.usable.clone();
    free.remove(Range::new(0, LOW_END));
    free.remove(unreachable());
    free.remove(info.image.image);
    free
}

/// The files that the loader brought, until their frames are given back.
pub struct Modules {
    info: &'static BootInfo,
}

impl Modules {
    /// The modules of this boot.
    ///
    /// # Safety
    /// To be made once; usable RAM above page 0 is mapped, and the modules'
    /// frames are not given out elsewhere ([`BootMemory`] leaves them out).
    #[cfg(target_os = "none")]
    pub(crate) unsafe fn new(info: &'static BootInfo) -> Modules {
        Modules { info }
    }

    /// A module's bytes; `None` where they are not in usable RAM.
    #[must_use]
    pub fn bytes(&self, module: &Module) -> Option<&[u8]> {
        let range = module.range;
        let listed = self.info.modules().iter().any(|m| m.range == range);
        let is_ram = self.info.usable.covers(range.touched_pages());
        if !listed || !is_ram || range.start < PAGE_SIZE as u64 {
            return None;
        }
        if range.end > unreachable().start || overlap(range, self.info.image.image) {
            return None;
        }
        // SAFETY: mapped RAM that nobody writes to as long as `self` lives
        // (`new`); any pattern is a valid u8.
        Some(unsafe { core::slice::from_raw_parts(range.start as *const u8, range.len() as usize) })
    }

    /// The guest's kernel, initial RAM disk and command line.
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        boot::bundle::payload(self.info.modules(), |module| self.bytes(module))
    }

    /// The frames that will come free with [`Modules::into_regions`].
    #[must_use]
    pub fn regions(&self) -> Vec<FrameRange> {
        module_regions(self.info)
    }

    /// Gives up the modules: the frames that they and nothing else occupied.
    #[must_use]
    pub fn into_regions(self) -> Vec<FrameRange> {
        module_regions(self.info)
    }
}

const fn overlap(a: Range, b: Range) -> bool {
    a.start < b.end && b.start < a.end
}

fn module_regions(info: &BootInfo) -> Vec<FrameRange> {
    let mut modules = without_kernel(info);
    for range in BootMemory::new(info).free.as_slice() {
        modules.remove(*range);
    }
    modules.as_slice().iter().map(|&r| FrameRange::new(r)).collect()
}

/// RAM as the identity map holds it, largest range first.
struct RamMap {
    ranges: [Range; RANGES_MAX],
    count: usize,
}

impl RamMap {
    /// Whether a frame is in any range.
    #[cold]
    fn contains(&self, frame: Frame) -> bool {
        let ranges = &self.ranges[..self.count];
        frame.0 < 1 << 52 && ranges.iter().any(|r| r.contains(frame.start().0))
    }
}

static RAM: Once<RamMap> = Once::new();

/// Access to page frames by physical address. A copyable handle; all handles
/// see the same memory.
#[derive(Clone, Copy)]
pub struct PhysMemory {
    ram: &'static RamMap,
    /// First frame of the largest range, and its length: nearly all RAM.
    first: u64,
    frames: u64,
}

impl PhysMemory {
    /// Access to the RAM in `ram`; the first call decides, later ones get the
    /// same memory.
    ///
    /// # Safety
    /// Every byte of `ram` is mapped to itself, readable and writable, for
    /// good; and whoever uses a frame through this handle owns that frame, so
    /// that no Rust reference to its bytes exists elsewhere.
    #[must_use]
    pub unsafe fn new(ram: &RangeSet<RANGES_MAX>) -> PhysMemory {
        let ram = RAM.call_once(|| {
            let mut map =
                RamMap { ranges: [Range::default(); RANGES_MAX], count: ram.as_slice().len() };
            map.ranges[..map.count].copy_from_slice(ram.as_slice());
            map.ranges[..map.count].sort_unstable_by_key(|r| core::cmp::Reverse(r.len()));
            map
        });
        let largest = ram.ranges[0];
        let first = largest.start.div_ceil(PAGE_SIZE as u64);
        let frames = (largest.end / PAGE_SIZE as u64).saturating_sub(first);
        PhysMemory { ram, first, frames }
    }

    /// Whether the frame is RAM.
    #[inline(always)]
    #[must_use]
    pub fn is_ram(&self, frame: Frame) -> bool {
        frame.0.wrapping_sub(self.first) < self.frames || self.ram.contains(frame)
    }

    /// The address of a frame's first byte, checked to be RAM.
    #[inline(always)]
    #[must_use]
    pub fn pointer(&self, frame: Frame) -> *mut u8 {
        assert!(self.is_ram(frame), "frame {frame:#x} is not RAM");
        frame.start().0 as *mut u8
    }

    /// The checked address of `len` bytes from `offset` on in a frame.
    #[inline]
    fn bytes(&self, frame: Frame, offset: usize, len: usize) -> *mut u8 {
        assert!(offset <= PAGE_SIZE && len <= PAGE_SIZE - offset, "{len} bytes at {offset}");
        self.pointer(frame).wrapping_add(offset)
    }

    /// The checked address of a table's entry.
    #[inline(always)]
    fn entry(&self, table: Frame, index: usize) -> *mut u64 {
        assert!(index < PAGE_SIZE / 8, "entry {index} of a table");
        self.pointer(table).cast::<u64>().wrapping_add(index)
    }
}

/// Copies bytes: whole lines of 64 by plain moves, the rest by a string move.
/// On hardware both run at the memory's speed; an emulator takes a string move
/// one element at a time, ten times as slow.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes; overlap is allowed
/// only where `to` is not inside `from`'s tail.
#[inline]
unsafe fn copy_forward(to: *mut u8, from: *const u8, len: usize) {
    let (mut to, mut from) = (to, from);
    if len >= 64 {
        // SAFETY: the loop moves `len / 64` lines, all inside the ranges that
        // the caller answers for.
        unsafe {
            asm!(
                "2:",
                "mov {a}, [{from}]",
                "mov {b}, [{from} + 8]",
                "mov {c}, [{from} + 16]",
                "mov {d}, [{from} + 24]",
                "mov [{to}], {a}",
                "mov [{to} + 8], {b}",
                "mov [{to} + 16], {c}",
                "mov [{to} + 24], {d}",
                "mov {a}, [{from} + 32]",
                "mov {b}, [{from} + 40]",
                "mov {c}, [{from} + 48]",
                "mov {d}, [{from} + 56]",
                "mov [{to} + 32], {a}",
                "mov [{to} + 40], {b}",
                "mov [{to} + 48], {c}",
                "mov [{to} + 56], {d}",
                "add {from}, 64",
                "add {to}, 64",
                "dec {lines}",
                "jnz 2b",
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                from = inout(reg) from, to = inout(reg) to,
                lines = inout(reg) len / 64 => _,
                options(nostack),
            );
        }
    }
    // SAFETY: what is left of the ranges; the direction flag is clear by the
    // ABI.
    unsafe {
        asm!("rep movsb", inout("rcx") len % 64 => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack, preserves_flags));
    }
}

impl HostMemory for PhysMemory {
    #[inline(always)]
    fn read_entry(&self, table: Frame, index: usize) -> u64 {
        let entry = self.entry(table, index);
        // SAFETY: eight aligned bytes of RAM, owned by the caller (`new`);
        // volatile, because the processor's walks change entries as well.
        unsafe { entry.read_volatile() }
    }

    #[inline]
    fn write_entry(&mut self, table: Frame, index: usize, value: u64) {
        let entry = self.entry(table, index);
        // SAFETY: as in `read_entry`; one aligned store.
        unsafe { entry.write_volatile(value) };
    }

    fn zero(&mut self, frame: Frame) {
        let to = self.pointer(frame);
        // Plain stores for the reason given at `copy_forward`.
        // SAFETY: 64 lines of 64 bytes are the 4096 bytes of a RAM frame,
        // owned by the caller (`new`).
        unsafe {
            asm!(
                "2:",
                "mov [{to}], {zero}",
                "mov [{to} + 8], {zero}",
                "mov [{to} + 16], {zero}",
                "mov [{to} + 24], {zero}",
                "mov [{to} + 32], {zero}",
                "mov [{to} + 40], {zero}",
                "mov [{to} + 48], {zero}",
                "mov [{to} + 56], {zero}",
                "add {to}, 64",
                "dec {lines}",
                "jnz 2b",
                zero = in(reg) 0u64, to = inout(reg) to => _,
                lines = inout(reg) PAGE_SIZE / 64 => _,
                options(nostack),
            );
        }
    }

    fn is_zero(&self, frame: Frame) -> bool {
        let from = self.pointer(frame).cast::<u64>();
        (0..PAGE_SIZE / 64).all(|line| {
            (0..8).fold(0, |any, word| {
                // SAFETY: within the 4096 aligned bytes of a RAM frame.
                any | unsafe { from.add(line * 8 + word).read() }
            }) == 0
        })
    }

    fn write(&mut self, frame: Frame, offset: usize, from: &[u8]) {
        let to = self.bytes(frame, offset, from.len());
        // SAFETY: `bytes` checked the target; `from` is a live slice that
        // cannot overlap it (`new`: no references into frames).
        unsafe { copy_forward(to, from.as_ptr(), from.len()) };
    }

    fn read(&self, frame: Frame, offset: usize, to: &mut [u8]) {
        let from = self.bytes(frame, offset, to.len());
        // SAFETY: as in `write`, the other way round.
        unsafe { copy_forward(to.as_mut_ptr(), from, to.len()) };
    }

    fn copy_in(&mut self, frame: Frame, from: &PageBytes) {
        self.write(frame, 0, from);
    }

    fn copy_frame(&mut self, to: Frame, from: Frame) {
        // SAFETY: both frames are RAM that is mapped to itself, owned by the
        // caller as promised in `new`; a copy onto itself is harmless.
        unsafe { copy_forward(self.pointer(to), self.pointer(from), PAGE_SIZE) };
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    #[repr(align(4096))]
    struct Pages([u8; 4 * PAGE_SIZE]);

    #[test]
    fn frames_are_read_written_and_checked() {
        let pages = Box::leak(Box::new(Pages([0x5A; 4 * PAGE_SIZE])));
        let start = pages.0.as_mut_ptr() as u64;
        let mut set = RangeSet::new();
        set.insert(Range::from_len(start, 4 * PAGE_SIZE as u64));
        // SAFETY: the pages are leaked, mapped, and used through this only.
        let mut m = unsafe { PhysMemory::new(&set) };
        let f = Frame(start >> 12);
        assert!(m.is_ram(f) && m.is_ram(f.offset_by(3)) && !m.is_ram(f.offset_by(4)));
        assert!(!m.is_ram(Frame(f.0 | 1 << 52)));
        assert!(!m.is_zero(f));
        m.zero(f);
        assert!(m.is_zero(f));
        for at in [0, 1, 8, 4087, 4095] {
            m.write(f, at, &[7]);
            assert!(!m.is_zero(f), "byte {at}");
            m.write(f, at, &[0]);
        }
        m.write(f, 4090, &[1, 2, 3, 4, 5, 6]);
        let mut out = [0; 6];
        m.read(f, 4090, &mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6]);
        m.write_entry(f, 511, 0xAABB);
        assert_eq!(m.read_entry(f, 511), 0xAABB);
        m.copy_frame(f.offset_by(1), f);
        assert_eq!(m.read_entry(f.offset_by(1), 511), 0xAABB);
        let mut page = [0; PAGE_SIZE];
        m.read(f.offset_by(2), 0, &mut page);
        assert_eq!(page, [0x5A; PAGE_SIZE]);
        let first = Frame(m.ram.ranges[0].start >> 12);
        for (frame, offset, len) in [(Frame(0), 0, 1), (first, 4095, 2), (first, 4097, 0)] {
            let refused = std::panic::catch_unwind(|| m.read(frame, offset, &mut [0; 2][..len]));
            assert!(refused.is_err());
        }
    }

    fn info() -> BootInfo {
        let mut info = BootInfo::default();
        info.usable.insert(Range::new(0, 0x9_F000));
        info.usable.insert(Range::new(0x10_0000, 0x800_0000));
        info.image.image = Range::new(0x100_0000, 0x110_0000);
        info
    }

    #[test]
    fn modules_come_back_once_and_whole() {
        let mut info = info();
        info.add_module(Range::new(0x200_0001, 0x200_1001), b"kernel");
        info.add_module(Range::new(0x200_1800, 0x200_1900), b"shares its page");
        info.add_module(Range::new(0x5000, 0x6000), b"low");
        info.add_module(Range::new(0x10F_F000, 0x110_1000), b"into the image");
        info.add_module(Range::new(0x7FF_F000, 0x800_1000), b"beyond RAM");
        let page = |start: u64, end: u64| FrameRange { start: Frame(start), end: Frame(end) };
        let expected = [page(0x1100, 0x1101), page(0x2000, 0x2002), page(0x7FFF, 0x8000)];
        assert_eq!(module_regions(&info), expected);
        let free = BootMemory::new(&info).into_regions();
        for r in expected {
            assert!(free.iter().all(|f| f.end <= r.start || r.end <= f.start));
        }
    }

    #[test]
    fn boot_frames_never_overlap_what_is_taken() {
        let mut memory = BootMemory::new(&info());
        let before = memory.free_frames();
        assert_eq!(before, 0x7F00 - 0x100);
        assert_eq!(memory.alloc_frames(1, 1), Some(Frame(0x100)));
        assert_eq!(memory.alloc_frames(2, 512), Some(Frame(0x200)));
        // Does not fit below the image.
        assert_eq!(memory.alloc_frames(0x1000, 1), Some(Frame(0x1100)));
        assert_eq!(memory.alloc_frames(u64::MAX / 4096, 1), None);
        assert_eq!(memory.alloc_frames(0, 1), None);
        assert_eq!(memory.free_frames(), before - 0x1003);
        let regions = memory.into_regions();
        assert_eq!(regions.iter().map(FrameRange::count).sum::<u64>(), before - 0x1003);
        assert!(regions.iter().all(|r| r.start >= Frame(0x101)));
    }
}
