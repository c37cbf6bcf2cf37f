//! Memory from the operating system.

use anyhow::{Context, Result, bail};
use std::io::Error;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Bytes of a huge page.
pub(crate) const HUGE: usize = 2 << 20;

/// Memory that was mapped, for as long as the process lives.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value, is never undone, and is plain
// memory.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Ordinary memory that is there when it is touched, in pages of 4 KiB.
    pub(crate) fn lazy(bytes: usize) -> Result<Mapping> {
        let mapping = Mapping::new(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)?;
        // SAFETY: the range is this mapping's.
        let advised = unsafe {
            libc::madvise(mapping.base.as_ptr().cast(), mapping.len, libc::MADV_NOHUGEPAGE)
        };
        if advised != 0 {
            return Err(Error::last_os_error()).context("memory cannot be kept in small pages");
        }
        Ok(mapping)
    }

    /// Ordinary memory that is all there.
    pub(crate) fn resident(bytes: usize) -> Result<Mapping> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Mapping::new(bytes, flags, None)
    }

    /// Huge pages that are all there and stay where they are.
    pub(crate) fn huge(bytes: usize) -> Result<Mapping> {
        let flags =
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | libc::MAP_HUGETLB;
        Mapping::new(bytes.next_multiple_of(HUGE), flags, None)
            .context("there are not enough huge pages (hugepages= of the kernel's command line)")
    }

    /// A file, a device's registers for example.
    pub(crate) fn file(file: &std::fs::File, bytes: usize) -> Result<Mapping> {
        Mapping::new(bytes, libc::MAP_SHARED, Some(file))
    }

    fn new(bytes: usize, flags: i32, file: Option<&std::fs::File>) -> Result<Mapping> {
        let fd = file.map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping at a place that the kernel chooses takes
        // nothing away.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os_error())
                .with_context(|| format!("{bytes} bytes of memory cannot be mapped"));
        }
        let base = NonNull::new(base.cast()).context("memory was mapped at address 0")?;
        Ok(Mapping { base, len: bytes })
    }

    /// Where it begins.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Where the byte at `offset` lies.
    pub(crate) fn place(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len, "offset {offset} of {}", self.len);
        // SAFETY: inside the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Bytes of it.
    pub(crate) fn bytes_mut(&mut self, offset: usize, len: usize) -> &mut [u8] {
        assert!(offset <= self.len && len <= self.len - offset, "bytes outside the mapping");
        // SAFETY: in bounds, initialised by the kernel, and borrowed from the
        // mapping's only owner.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(offset), len) }
    }

    /// The physical address of the byte at `offset`, which must be there and
    /// must not move (Linux Documentation/admin-guide/mm/pagemap.rst).
    pub(crate) fn physical(&self, offset: usize) -> Result<u64> {
        use std::os::unix::fs::FileExt;
        let address = self.place(offset) as u64;
        let mut entry = [0; 8];
        std::fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, address / 4096 * 8)?;
        let entry = u64::from_le_bytes(entry);
        let frame = entry & ((1 << 55) - 1);
        if entry >> 63 == 0 || frame == 0 {
            bail!("the physical address of memory is not told; that takes root's rights");
        }
        Ok(frame * 4096 + address % 4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_can_be_written() {
        for mut memory in [Mapping::lazy(3 * 4096).unwrap(), Mapping::resident(8192).unwrap()] {
            assert!(memory.bytes_mut(0, memory.len()).iter().all(|&b| b == 0));
            memory.bytes_mut(4096, 2).copy_from_slice(&[1, 2]);
            assert_eq!(memory.bytes_mut(4096, 3), [1, 2, 0]);
        }
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn bytes_outside_are_refused() {
        Mapping::lazy(4096).unwrap().bytes_mut(4000, 97);
    }
}
