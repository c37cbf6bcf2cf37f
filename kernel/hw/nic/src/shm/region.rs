//! The memory that all nodes see.
//!
//! Other machines write it at any time, so no Rust reference ever points into
//! it: integers are read and written volatile, bytes are copied by string
//! instructions that the compiler cannot look into. x86 keeps stores in order
//! and loads in order (Intel SDM volume 3, 9.2.2), and so does memory shared
//! by it; `fence` holds the compiler to that order.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};
use volatile::VolatilePtr;

/// A run of shared memory.
pub struct SharedRegion {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping stays for good (contract of `new`) and all accesses are
// fit for memory that others change; which processor makes them is all one.
unsafe impl Send for SharedRegion {}

impl SharedRegion {
    /// Takes `len` bytes of shared memory mapped at `base`.
    ///
    /// # Safety
    /// The memory is mapped for reads and writes for the rest of the program,
    /// is aligned to a page, and no Rust reference points into it.
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> SharedRegion {
        assert!((base.as_ptr() as usize).is_multiple_of(4096), "unaligned shared memory");
        SharedRegion { base, len }
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

    fn place(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(offset <= self.len && len <= self.len - offset, "outside the shared memory");
        // SAFETY: `offset` is inside the mapping that `new` was promised.
        unsafe { self.base.add(offset) }
    }

    fn word(&self, offset: usize) -> VolatilePtr<'_, u64> {
        let place = self.place(offset, 8).cast::<u64>();
        assert!(place.is_aligned(), "unaligned word of shared memory");
        // SAFETY: in bounds, aligned, and any bits are a u64.
        unsafe { VolatilePtr::new(place) }
    }

    /// Reads a word; later reads are not done before it.
    #[must_use]
    pub fn read(&self, offset: usize) -> u64 {
        let value = self.word(offset).read();
        core::sync::atomic::fence(Ordering::Acquire);
        value
    }

    /// Writes a word after everything written before.
    pub fn write(&mut self, offset: usize, value: u64) {
        core::sync::atomic::fence(Ordering::Release);
        self.word(offset).write(value);
    }

    /// Writes `new` where there is 0; `false` if there was something else.
    pub fn claim(&mut self, offset: usize, new: u64) -> bool {
        let place = self.place(offset, 8).cast::<u64>();
        assert!(place.is_aligned(), "unaligned word of shared memory");
        // SAFETY: in bounds and aligned; atomics are made for memory that
        // others change.
        let word = unsafe { AtomicU64::from_ptr(place.as_ptr()) };
        word.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Copies out of the region.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let from = self.place(offset, to.len());
        // SAFETY: the source is in bounds; the target is a slice of our own,
        // which shared memory cannot overlap.
        unsafe { copy(from.as_ptr(), to.as_mut_ptr(), to.len()) }
    }

    /// Copies into the region.
    pub fn copy_in(&mut self, offset: usize, from: &[u8]) {
        let to = self.place(offset, from.len());
        // SAFETY: as in `copy_out`, the other way.
        unsafe { copy(from.as_ptr(), to.as_ptr(), from.len()) }
    }

    /// Copies physical memory, which the node's own memory is mapped as, into
    /// the region.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes, which no one writes meanwhile.
    pub unsafe fn copy_from(&mut self, offset: usize, from: *const u8, len: usize) {
        let to = self.place(offset, len);
        // SAFETY: the target is in bounds, the source the caller's word.
        unsafe { copy(from, to.as_ptr(), len) }
    }
}

/// Copies `len` bytes, by words where that is whole.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, without overlap. One
/// of them may be changed by others at the same time: the bytes are then a
/// mixture, which the caller must not trust.
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: by the caller's word; the direction flag is clear in Rust code
    // (System V ABI, 3.2.1).
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) len % 8,
            inout("rcx") len / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}
