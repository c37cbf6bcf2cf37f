//! Device registers behind a seam, so that drivers run on the host against a
//! fake device.

use core::ptr::NonNull;
use volatile::VolatilePtr;

/// A device's register block. Offsets are in bytes and naturally aligned.
pub trait Registers {
    /// Reads 8 bits.
    fn read8(&self, offset: usize) -> u8;
    /// Reads 16 bits.
    fn read16(&self, offset: usize) -> u16;
    /// Reads 32 bits.
    fn read32(&self, offset: usize) -> u32;
    /// Writes 8 bits.
    fn write8(&mut self, offset: usize, value: u8);
    /// Writes 16 bits.
    fn write16(&mut self, offset: usize, value: u16);
    /// Writes 32 bits.
    fn write32(&mut self, offset: usize, value: u32);
}

/// Registers in a mapped memory BAR.
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the block belongs to this value alone (contract of `new`), and device
// registers may be accessed from any processor.
unsafe impl Send for Mmio {}

impl Mmio {
    /// Takes the `len` bytes of registers mapped at `base`.
    ///
    /// # Safety
    /// The block is mapped uncached for the rest of the program, is aligned to
    /// four bytes, belongs to one device, and nothing else accesses it. What
    /// the driver makes the device do (DMA) is covered by
    /// [`crate::DmaRegion::new`].
    #[must_use]
    pub unsafe fn new(base: NonNull<u8>, len: usize) -> Mmio {
        assert!((base.as_ptr() as usize).is_multiple_of(4), "unaligned register block");
        Mmio { base, len }
    }

    /// The part of the block at `offset`, if it is inside.
    #[must_use]
    pub fn part(&self, offset: usize, len: usize) -> Option<Mmio> {
        if offset > self.len || len > self.len - offset || !offset.is_multiple_of(4) {
            return None;
        }
        // SAFETY: `offset` is inside the mapping.
        let base = unsafe { self.base.add(offset) };
        Some(Mmio { base, len })
    }

    #[inline]
    fn place<T>(&self, offset: usize) -> VolatilePtr<'_, T> {
        let size = size_of::<T>();
        assert!(
            offset <= self.len && size <= self.len - offset && offset.is_multiple_of(size),
            "register outside its block"
        );
        // SAFETY: inside the live mapping that `new` was promised, and aligned;
        // the block's accesses all come through this value.
        unsafe { VolatilePtr::new(self.base.add(offset).cast()) }
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $word:ty) => {
        #[inline]
        fn $read(&self, offset: usize) -> $word {
            self.place(offset).read()
        }
        #[inline]
        fn $write(&mut self, offset: usize, value: $word) {
            self.place(offset).write(value);
        }
    };
}

impl Registers for Mmio {
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}
