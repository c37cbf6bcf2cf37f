//! The machine's way to guest memory.
//!
//! Memory belongs to whoever runs the machine. The machine knows only that a
//! page may not be at hand: then the access is [`MemoryError::Pending`], the
//! machine gives up the exit without having changed anything that would
//! matter a second time, and the caller comes back with the same exit once
//! the page is there.

use addr::{Access, Gfn, GuestPhys, PAGE_SIZE};

/// Why a guest-memory access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryError {
    /// The page is not here now: fetch it for this access, then call again.
    Pending {
        /// The page.
        gfn: Gfn,
        /// What is to be done with it.
        access: Access,
    },
    /// There is no RAM at this address.
    NotMemory,
}

/// Guest RAM, by physical address.
///
/// The machine never passes a range that crosses a page boundary, so an
/// implementation may serve each call from one page; an access that fails
/// must have changed nothing.
pub trait GuestMemory {
    /// Copies guest memory at `gpa` out.
    ///
    /// # Errors
    /// [`MemoryError`] if the page is not here now, or is not RAM.
    fn read(&mut self, gpa: GuestPhys, to: &mut [u8]) -> Result<(), MemoryError>;
    /// Reads a little-endian word of eight bytes, such as an entry of a page
    /// table. `gpa` is a multiple of eight.
    ///
    /// # Errors
    /// [`MemoryError`] if the page is not here now, or is not RAM.
    fn read_word(&mut self, gpa: GuestPhys) -> Result<u64, MemoryError> {
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
    /// Copies bytes into guest memory at `gpa`.
    ///
    /// # Errors
    /// [`MemoryError`] if the page is not here now, or is not RAM.
    fn write(&mut self, gpa: GuestPhys, from: &[u8]) -> Result<(), MemoryError>;
}

/// Bytes from `gpa` to the end of its page, at most `len`.
pub(crate) fn in_page(gpa: u64, len: usize) -> usize {
    len.min(PAGE_SIZE - (gpa as usize & (PAGE_SIZE - 1)))
}

/// Reads a little-endian number of `size` (1, 2, 4 or 8) bytes that does not
/// cross a page.
pub(crate) fn read_number(
    memory: &mut dyn GuestMemory,
    gpa: u64,
    size: usize,
) -> Result<u64, MemoryError> {
    if size == 8 && gpa.is_multiple_of(8) {
        return memory.read_word(GuestPhys(gpa));
    }
    let mut bytes = [0; 8];
    memory.read(GuestPhys(gpa), &mut bytes[..size])?;
    Ok(u64::from_le_bytes(bytes))
}
