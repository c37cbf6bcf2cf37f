//! The 64-bit entry: from the loader's tables to the kernel's `pangaea_main`.

use crate::info::{BootInfo, ImageLayout};
use crate::pvh::Physical;
use crate::ranges::Range;
use crate::{multiboot2, pvh};
use core::cell::UnsafeCell;

core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));

/// One past the highest address that `entry.s` maps.
const MAPPED_END: u64 = 1 << 32;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __data_end: u8;
    static __stack_guard: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
}

unsafe extern "Rust" {
    /// The kernel's entry, defined by `kernel/image`.
    fn pangaea_main(info: &'static BootInfo) -> !;
}

/// A cell for the one `BootInfo`, which is too large for a stack frame.
struct Once(UnsafeCell<BootInfo>);

// SAFETY: only `boot_entry_rust` touches the cell, once, before any other
// processor or interrupt handler runs.
unsafe impl Sync for Once {}

static INFO: Once = Once(UnsafeCell::new(BootInfo::EMPTY));

/// The first 4 GiB, as the temporary page tables map them.
struct LowMemory;

impl Physical for LowMemory {
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
        let end = address.checked_add(len as u64)?;
        if address == 0 || end > MAPPED_END {
            return None;
        }
        // SAFETY: the range is not null and identity mapped by the temporary page
        // tables; any bit pattern is a valid u8; nothing writes to the loader's
        // tables while the boot code reads them (one processor, no interrupts).
        Some(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
    }
}

/// The running image as the linker laid it out.
fn image_layout() -> ImageLayout {
    let range = |start: *const u8, end: *const u8| Range::new(start as u64, end as u64);
    ImageLayout {
        image: range(&raw const __image_start, &raw const __image_end),
        text: range(&raw const __text_start, &raw const __text_end),
        rodata: range(&raw const __rodata_start, &raw const __rodata_end),
        data: range(&raw const __data_start, &raw const __data_end),
        stack_guard: range(&raw const __stack_guard, &raw const __stack_bottom),
        stack: range(&raw const __stack_bottom, &raw const __stack_top),
    }
}

#[unsafe(no_mangle)]
extern "C" fn boot_entry_rust(magic: u32, table: u32) -> ! {
    // SAFETY: `entry.s` calls this function once; no other reference exists.
    let info = unsafe { &mut *INFO.0.get() };
    if magic == multiboot2::MAGIC {
        let header = LowMemory.bytes(u64::from(table), 8);
        let size = header.and_then(multiboot2::total_size).unwrap_or(0);
        if let Some(table) = LowMemory.bytes(u64::from(table), size) {
            multiboot2::fill(table, info);
        }
    } else {
        pvh::fill(&LowMemory, u64::from(table), info);
    }
    info.image = image_layout();
    // SAFETY: `kernel/image` defines the symbol with this signature; the
    // exclusive reference ends here and becomes a shared one.
    unsafe { pangaea_main(info) }
}
