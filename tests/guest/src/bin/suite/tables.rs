//! The suite's own GDT, TSS and stacks.

use core::arch::asm;
use core::cell::UnsafeCell;
use guests::trap::Pointer;

/// Selectors of the GDT. The user's three are in the order that SYSRET wants,
/// the kernel's in that of SYSCALL (AMD APM volume 2, 6.1.1).
pub(crate) const CODE: u16 = 0x08;
pub(crate) const DATA: u16 = 0x10;
pub(crate) const CODE_32: u16 = 0x18;
pub(crate) const USER_CODE_32: u16 = 0x33;
pub(crate) const USER_DATA: u16 = 0x3B;
pub(crate) const USER_CODE: u16 = 0x43;
const TASK: u16 = 0x48;
/// Data that is not present.
pub(crate) const ABSENT: u16 = 0x58;
/// A slot for a test's own descriptor.
pub(crate) const SPARE: u16 = 0x60;
/// One that must stay empty, for a test of 16 bytes at [`SPARE`].
const SLOTS: usize = 14;

/// Stack of an exception from another privilege level, and of the double
/// fault.
const STACK_BYTES: usize = 16 << 10;
/// Bytes of the I/O permission bitmap that the TSS has: ports 0 to 0x7FF and
/// the byte of ones behind it.
const BITMAP_BYTES: usize = 0x100 + 1;

/// Task state segment (AMD APM volume 2, figure 12-8).
#[repr(C, packed)]
struct Task {
    _reserved_0: u32,
    rsp: [u64; 3],
    _reserved_1: u64,
    ist: [u64; 7],
    _reserved_2: [u8; 10],
    bitmap_base: u16,
    bitmap: [u8; BITMAP_BYTES],
}

#[repr(C, align(4096))]
struct Tables {
    gdt: [u64; SLOTS],
    task: Task,
    stacks: [[u8; STACK_BYTES]; 2],
}

/// Only one processor runs, and what changes these does so between tests.
struct Shared(UnsafeCell<Tables>);

// SAFETY: the guest has one processor.
unsafe impl Sync for Shared {}

static TABLES: Shared = Shared(UnsafeCell::new(Tables {
    gdt: [
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x00CF_9B00_0000_FFFF,
        0x0000_9B00_0000_FFFF,
        0x0000_9300_0000_FFFF,
        0x00CF_FB00_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        0,
        0,
        0x00CF_1300_0000_FFFF,
        0,
        0,
    ],
    task: Task {
        _reserved_0: 0,
        rsp: [0; 3],
        _reserved_1: 0,
        ist: [0; 7],
        _reserved_2: [0; 10],
        bitmap_base: core::mem::offset_of!(Task, bitmap) as u16,
        bitmap: [0xFF; BITMAP_BYTES],
    },
    stacks: [[0; STACK_BYTES]; 2],
}));

fn tables() -> *mut Tables {
    TABLES.0.get()
}

/// The GDT's pointer.
pub(crate) fn gdt() -> Pointer {
    Pointer { limit: 8 * SLOTS as u16 - 1, base: tables() as u64 }
}

/// Sets the descriptor at [`SPARE`].
pub(crate) fn set_spare(descriptor: u64) {
    // SAFETY: nothing refers to the slot but the test that sets it.
    unsafe { (&raw mut (*tables()).gdt[usize::from(SPARE) / 8]).write_volatile(descriptor) };
}

/// Opens or closes a port below 0x800 to user code.
pub(crate) fn set_port(port: u16, open: bool) {
    let (byte, bit) = (usize::from(port) / 8, 1 << (port % 8));
    // SAFETY: the bitmap is the TSS's, which only the processor reads.
    unsafe {
        let place = &raw mut (*tables()).task.bitmap[byte];
        let old = place.read_volatile();
        place.write_volatile(if open { old & !bit } else { old | bit });
    }
}

/// Loads GDT, TSS and the segment registers.
pub(crate) fn install() {
    let t = tables();
    // SAFETY: nothing has loaded these tables yet, and no other processor
    // runs. The far return loads CS with the same kind of segment.
    unsafe {
        let stacks = &raw const (*t).stacks as u64;
        let top = |stack: u64| stacks + (stack + 1) * STACK_BYTES as u64;
        (&raw mut (*t).task.rsp).cast::<u64>().write_unaligned(top(0));
        (&raw mut (*t).task.ist).cast::<u64>().write_unaligned(top(1));
        let base = &raw const (*t).task as u64;
        let limit = size_of::<Task>() as u64 - 1;
        let low = limit | (base & 0xFF_FFFF) << 16 | 0x89 << 40 | (base >> 24 & 0xFF) << 56;
        (*t).gdt[usize::from(TASK) / 8] = low;
        (*t).gdt[usize::from(TASK) / 8 + 1] = base >> 32;
    }
    reload();
    // SAFETY: the descriptor was made above.
    unsafe { asm!("ltr {0:x}", "lldt {1:x}", in(reg) TASK, in(reg) 0, options(nostack)) };
}

/// Loads the GDT and all segment registers, as after a trip to another mode.
pub(crate) fn reload() {
    let pointer = gdt();
    // SAFETY: the selectors are those of the table.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "mov fs, {zero:e}",
            "mov gs, {zero:e}",
            "push {code}",
            "lea {zero}, [rip + 2f]",
            "push {zero}",
            "retfq",
            "2:",
            pointer = in(reg) &pointer,
            data = in(reg) u32::from(DATA),
            code = in(reg) u64::from(CODE),
            zero = inout(reg) 0u64 => _,
        );
    }
}
