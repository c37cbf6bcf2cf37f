//! What stands between the firmware's bytes and the acpi crate.
//!
//! The crate believes a table's length field, reads past the end of short
//! tables, and has no way to hear that memory cannot be mapped. So it never
//! sees the firmware's memory: [`Guard`] hands it copies, followed by zeros,
//! of tables whose length and checksum were found right, and a table of zeros
//! (which has no signature) in place of any other.

use acpi::aml::AmlError;
use acpi::sdt::SdtHeader;
use acpi::{Handle, Handler, PciAddress, PhysicalMapping};
use alloc::boxed::Box;
use alloc::vec;
use boot::pvh::Physical;
use core::ptr::NonNull;

/// Bytes of the header that every table begins with (ACPI 6.5, 5.2.6).
pub(super) const HEADER_SIZE: usize = size_of::<SdtHeader>();
/// Largest table that is copied for the crate: a MADT of 8000 processors.
const COPY_MAX: usize = 128 << 10;
/// Zeros after a copy: the crate looks at an entry of a MADT as a whole, even
/// if the table ends inside it; the longest has 82 bytes.
const ZEROS_AFTER: usize = 128;
/// A copy begins this far into its memory, which has the alignment of a u64:
/// the eight-byte entries after an XSDT's header are then aligned.
const LEAD: usize = 4;

pub(super) fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &b| sum.wrapping_add(b)) == 0
}

/// The length field of a table's header.
fn length(header: &[u8]) -> usize {
    u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize
}

/// A whole table of at most `max` bytes, with its header; `None` if its length
/// or checksum is wrong.
pub(super) fn table(memory: &impl Physical, address: u64, max: usize) -> Option<&[u8]> {
    let len = length(memory.bytes(address, HEADER_SIZE)?);
    if !(HEADER_SIZE..=max).contains(&len) {
        return None;
    }
    memory.bytes(address, len).filter(|t| length(t) == len && sums_to_zero(t))
}

/// The acpi crate's way to memory, and to nothing else: it is given tables to
/// decode and constants to evaluate, neither of which touches hardware.
pub(super) struct Guard<'a, M>(pub(super) &'a M);

impl<M> Clone for Guard<'_, M> {
    fn clone(&self) -> Self {
        Guard(self.0)
    }
}

impl<M: Physical> Guard<'_, M> {
    /// What is at a place where the crate looks for `size` bytes.
    fn find(&self, address: u64, size: usize) -> Option<&[u8]> {
        match size {
            HEADER_SIZE => self.0.bytes(address, size),
            _ => table(self.0, address, COPY_MAX).filter(|t| t.len() == size),
        }
    }
}

/// Numbers of u64 that hold a copy of `len` bytes and what is around it.
fn words(len: usize) -> usize {
    (LEAD + len + ZEROS_AFTER).div_ceil(8)
}

impl<M: Physical> Handler for Guard<'_, M> {
    unsafe fn map_physical_region<T>(
        &self,
        physical_address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        assert!(align_of::<T>() <= LEAD, "a table is packed");
        // What is smaller than a header is a register: not even read.
        let is_table = size_of::<T>() >= HEADER_SIZE;
        let found = self.find(physical_address as u64, size).filter(|_| is_table).unwrap_or(&[]);
        let len = found.len().max(size_of::<T>());
        let memory = Box::into_raw(vec![0u64; words(len)].into_boxed_slice());
        // SAFETY: `memory` was just allocated with room for LEAD bytes and
        // `found`; nothing else refers to it.
        let virtual_start = unsafe {
            let start = memory.cast::<u8>().add(LEAD);
            core::ptr::copy_nonoverlapping(found.as_ptr(), start, found.len());
            NonNull::new_unchecked(start.cast::<T>())
        };
        PhysicalMapping {
            physical_start: physical_address,
            virtual_start,
            region_length: len,
            mapped_length: words(len),
            handler: self.clone(),
        }
    }

    fn unmap_physical_region<T>(region: &PhysicalMapping<Self, T>) {
        let start = region.virtual_start.as_ptr().cast::<u8>();
        // SAFETY: mappings are made above and nowhere else, out of a box of
        // `mapped_length` words that begins LEAD bytes before them; each is
        // given back once, when it is dropped.
        unsafe {
            let memory = start.sub(LEAD).cast::<u64>();
            let memory = core::ptr::slice_from_raw_parts_mut(memory, region.mapped_length);
            drop(Box::from_raw(memory));
        }
    }

    fn read_u8(&self, _: usize) -> u8 {
        0
    }

    fn read_u16(&self, _: usize) -> u16 {
        0
    }

    fn read_u32(&self, _: usize) -> u32 {
        0
    }

    fn read_u64(&self, _: usize) -> u64 {
        0
    }

    fn write_u8(&self, _: usize, _: u8) {}

    fn write_u16(&self, _: usize, _: u16) {}

    fn write_u32(&self, _: usize, _: u32) {}

    fn write_u64(&self, _: usize, _: u64) {}

    fn read_io_u8(&self, _: u16) -> u8 {
        0
    }

    fn read_io_u16(&self, _: u16) -> u16 {
        0
    }

    fn read_io_u32(&self, _: u16) -> u32 {
        0
    }

    fn write_io_u8(&self, _: u16, _: u8) {}

    fn write_io_u16(&self, _: u16, _: u16) {}

    fn write_io_u32(&self, _: u16, _: u32) {}

    fn read_pci_u8(&self, _: PciAddress, _: u16) -> u8 {
        0
    }

    fn read_pci_u16(&self, _: PciAddress, _: u16) -> u16 {
        0
    }

    fn read_pci_u32(&self, _: PciAddress, _: u16) -> u32 {
        0
    }

    fn write_pci_u8(&self, _: PciAddress, _: u16, _: u8) {}

    fn write_pci_u16(&self, _: PciAddress, _: u16, _: u16) {}

    fn write_pci_u32(&self, _: PciAddress, _: u16, _: u32) {}

    fn nanos_since_boot(&self) -> u64 {
        0
    }

    fn stall(&self, _: u64) {}

    fn sleep(&self, _: u64) {}

    fn create_mutex(&self) -> Handle {
        Handle(0)
    }

    fn acquire(&self, _: Handle, _: u16) -> Result<(), AmlError> {
        Ok(())
    }

    fn release(&self, _: Handle) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use acpi::sdt::fadt::Fadt;
    use alloc::vec::Vec;

    struct Fake(Vec<u8>);

    impl Physical for Fake {
        fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
            let at = usize::try_from(address).ok()?;
            self.0.get(at..at.checked_add(len)?)
        }
    }

    fn map<T>(memory: &Fake, address: usize, size: usize) -> PhysicalMapping<Guard<'_, Fake>, T> {
        // SAFETY: the guard asks nothing of its caller.
        unsafe { Guard(memory).map_physical_region(address, size) }
    }

    /// A table of 40 bytes at 8, with a right checksum.
    fn memory() -> Fake {
        let mut bytes = vec![0u8; 48];
        bytes[8..12].copy_from_slice(b"FACP");
        bytes[12] = 40;
        bytes[47] = 7;
        let sum = bytes.iter().fold(0u8, |s, &b| s.wrapping_add(b));
        bytes[8 + 9] = 0u8.wrapping_sub(sum);
        Fake(bytes)
    }

    #[test]
    fn a_short_table_is_followed_by_zeros() {
        let memory = memory();
        let fadt = map::<Fadt>(&memory, 8, 40);
        assert_eq!({ fadt.header.length }, 40);
        assert_eq!({ fadt.firmware_ctrl }, 7 << 24);
        assert_eq!({ fadt.dsdt_address }, 0);
    }

    #[test]
    fn broken_tables_and_absent_memory_read_as_nothing() {
        let good = memory();
        for (address, size) in
            [(8, 41), (8, 39), (9, 40), (usize::MAX, 40), (8, 0), (8, usize::MAX)]
        {
            assert_eq!({ map::<Fadt>(&good, address, size).header.length }, 0);
        }
        let mut bad = memory();
        bad.0[46] = 1;
        assert_eq!({ map::<Fadt>(&bad, 8, 40).header.length }, 0);
        assert!(table(&good, 8, 39).is_none() && table(&good, 8, 40).is_some());
    }

    #[test]
    fn registers_are_not_read() {
        let memory = Fake(vec![0xFF; 64]);
        assert_eq!(*map::<u8>(&memory, 0, HEADER_SIZE), 0);
        assert_eq!(*map::<u8>(&memory, 0, 1), 0);
    }
}
