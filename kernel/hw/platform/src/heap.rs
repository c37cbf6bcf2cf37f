//! The heap: for start-up and rare paths, never for the path of a fault.
//!
//! First fit in one contiguous range taken from [`crate::memory::BootMemory`].
//! Its size is decided once: [`default_bytes`] is 2 MiB and 1/8192 of RAM, at
//! most 1 GiB; a caller that keeps more tables in it asks for more. Pages of
//! it that are never used are never touched.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use linked_list_allocator::Heap;
use spin::Mutex;

const BASE_BYTES: u64 = 2 << 20;
const MAX_BYTES: u64 = 1 << 30;

/// Heap size for a node with this much RAM; a multiple of 4 KiB.
#[must_use]
pub const fn default_bytes(ram_bytes: u64) -> u64 {
    let bytes = BASE_BYTES + ram_bytes / 8192;
    (if bytes > MAX_BYTES { MAX_BYTES } else { bytes }) & !4095
}

/// The node's heap, empty until [`start`].
pub struct NodeHeap(Mutex<Heap>);

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: NodeHeap = NodeHeap(Mutex::new(Heap::empty()));

/// Gives the heap its memory.
///
/// # Safety
/// `start..start + bytes` is mapped, writable, owned by the heap from now on,
/// for good. To be called once.
pub unsafe fn start(start: u64, bytes: u64) {
    // SAFETY: the caller promises what `init` asks for.
    unsafe { HEAP.0.lock().init(start as *mut u8, bytes as usize) };
}

/// Bytes in use and bytes free.
#[must_use]
pub fn usage() -> (usize, usize) {
    let heap = HEAP.0.lock();
    (heap.used(), heap.free())
}

// SAFETY: every block comes from the locked `Heap`, which gives out disjoint
// blocks of the layout asked for and takes them back with the same layout.
unsafe impl GlobalAlloc for NodeHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller returns a block of `alloc` with its layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(default_bytes(512 << 20), (2 << 20) + (64 << 10));
        assert_eq!(default_bytes(1 << 45), 1 << 30);
        assert_eq!(default_bytes(12345) % 4096, 0);
    }
}
