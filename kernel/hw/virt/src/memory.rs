//! Physical memory that the backend keeps for the processor's use.

use addr::{Frame, PAGE_SIZE};
use core::ptr::NonNull;

/// Physically contiguous page frames, mapped, and given away for good.
#[derive(Debug)]
pub struct Pages {
    frame: Frame,
    base: NonNull<u8>,
    count: usize,
}

impl Pages {
    /// Takes over `count` frames from `frame` on, mapped at `base`.
    ///
    /// # Safety
    /// The frames are RAM, contiguous, mapped writable and write-back from
    /// `base` (page-aligned) on for as long as the machine runs, and nobody
    /// else reads or writes them any more.
    #[must_use]
    pub unsafe fn new(frame: Frame, base: NonNull<u8>, count: usize) -> Pages {
        assert!(base.addr().get().is_multiple_of(PAGE_SIZE), "pages are page-aligned");
        Pages { frame, base, count }
    }

    /// First frame.
    #[must_use]
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Zeroes the pages and makes them a `T` for good.
    ///
    /// # Panics
    /// If a `T` does not fit.
    ///
    /// # Safety
    /// All-zero bytes are a valid `T`.
    #[must_use]
    pub unsafe fn into_zeroed<T>(self) -> NonNull<T> {
        assert!(size_of::<T>() <= self.count * PAGE_SIZE, "the pages are too few");
        assert!(align_of::<T>() <= PAGE_SIZE);
        // SAFETY: `new` promised that these bytes are mapped, writable and
        // ours alone.
        unsafe { self.base.write_bytes(0, self.count * PAGE_SIZE) };
        self.base.cast()
    }
}
