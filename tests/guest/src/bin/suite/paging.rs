//! The suite's page tables: the first 4 GiB map to themselves but for a
//! window of 4 KiB pages, whose entries are the tests'.

use core::arch::asm;
use core::cell::UnsafeCell;

/// Bits of an entry (AMD APM volume 2, 5.4).
pub(crate) const P: u64 = 1;
pub(crate) const W: u64 = 1 << 1;
pub(crate) const U: u64 = 1 << 2;
pub(crate) const A: u64 = 1 << 5;
pub(crate) const D: u64 = 1 << 6;
pub(crate) const LARGE: u64 = 1 << 7;
pub(crate) const G: u64 = 1 << 8;
pub(crate) const NX: u64 = 1 << 63;

/// First address of the window: below 4 GiB for 32-bit code, and where no
/// machine has memory.
pub(crate) const WINDOW: u64 = 0xC000_0000;
/// Pages of the window.
pub(crate) const WINDOW_PAGES: usize = 512;
/// The 2 MiB behind the window, whose one entry is the tests' too.
pub(crate) const LARGE_WINDOW: u64 = WINDOW + (2 << 20);
/// First address above 4 GiB: the entry of this 1 GiB is the tests'.
pub(crate) const HUGE_WINDOW: u64 = 4 << 30;

/// Pages of memory for the window, at addresses of the suite's own.
const ARENA_PAGES: usize = 32;

#[repr(C, align(4096))]
struct Tables {
    root: [u64; 512],
    pointers: [u64; 512],
    directories: [[u64; 512]; 4],
    window: [u64; WINDOW_PAGES],
    arena: [[u8; 4096]; ARENA_PAGES],
}

struct Shared(UnsafeCell<Tables>);

// SAFETY: the guest has one processor.
unsafe impl Sync for Shared {}

static TABLES: Shared = Shared(UnsafeCell::new(Tables {
    root: [0; 512],
    pointers: [0; 512],
    directories: [[0; 512]; 4],
    window: [0; WINDOW_PAGES],
    arena: [[0; 4096]; ARENA_PAGES],
}));

fn tables() -> *mut Tables {
    TABLES.0.get()
}

/// The root's address, for CR3.
pub(crate) fn root() -> u64 {
    tables() as u64
}

/// Makes the tables and loads them.
pub(crate) fn install() {
    let t = tables();
    // SAFETY: nothing uses these tables yet. They map what runs here to
    // itself, so that CR3 can change under it.
    unsafe {
        for i in 0..2048 {
            (*t).directories[i / 512][i % 512] = (i as u64) << 21 | LARGE | W | P;
        }
        for i in 0..4 {
            (*t).pointers[i] = &raw const (*t).directories[i] as u64 | U | W | P;
        }
        (*t).directories[3][0] = &raw const (*t).window as u64 | U | W | P;
        (*t).root[0] = &raw const (*t).pointers as u64 | U | W | P;
    }
    reload();
}

/// Loads the root.
pub(crate) fn reload() {
    // SAFETY: the tables were made by `install`.
    unsafe { asm!("mov cr3, {}", in(reg) root(), options(nostack, preserves_flags)) };
}

/// Physical address of a page of the arena, which holds zeroes or what the
/// last test has left there.
pub(crate) fn arena(page: usize) -> u64 {
    // SAFETY: only an address is made.
    unsafe { &raw const (*tables()).arena[page] as u64 }
}

/// Address of a page of the window.
pub(crate) fn address(page: usize) -> u64 {
    assert!(page < WINDOW_PAGES, "page {page} of the window");
    WINDOW + 4096 * page as u64
}

/// Address of the entry of a page of the window.
pub(crate) fn entry_of(page: usize) -> *mut u64 {
    assert!(page < WINDOW_PAGES, "page {page} of the window");
    // SAFETY: only an address is made, within the table.
    unsafe { &raw mut (*tables()).window[page] }
}

/// Address of the directory entry of [`WINDOW`] (0) or [`LARGE_WINDOW`] (1).
pub(crate) fn directory_entry(index: usize) -> *mut u64 {
    // SAFETY: only an address is made.
    unsafe { &raw mut (*tables()).directories[3][index] }
}

/// Address of the directory pointer of the first GiB, and of the next.
pub(crate) fn pointer_entry(index: usize) -> *mut u64 {
    // SAFETY: only an address is made.
    unsafe { &raw mut (*tables()).pointers[index] }
}

/// Address of an entry of the root.
pub(crate) fn root_entry(index: usize) -> *mut u64 {
    // SAFETY: only an address is made.
    unsafe { &raw mut (*tables()).root[index] }
}

/// Writes an entry of one of the tables, without a flush.
pub(crate) fn set(entry: *mut u64, value: u64) {
    // SAFETY: `entry` is of the tests', and maps nothing that Rust uses.
    unsafe { entry.write_volatile(value) };
}

/// Reads an entry.
pub(crate) fn get(entry: *mut u64) -> u64 {
    // SAFETY: as in `set`.
    unsafe { entry.read_volatile() }
}

/// Drops the translation of an address.
pub(crate) fn flush(address: u64) {
    // SAFETY: drops a translation, which is made again from the tables.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Maps a page of the window; returns its address.
pub(crate) fn map(page: usize, physical: u64, flags: u64) -> u64 {
    set(entry_of(page), physical | flags);
    flush(address(page));
    address(page)
}

/// Unmaps a page of the window; returns its address.
pub(crate) fn unmap(page: usize) -> u64 {
    map(page, 0, 0)
}

/// Reads a word through the window or anywhere else.
pub(crate) fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: tests read what they have mapped, where no Rust value lies.
    unsafe { (address as *const T).read_volatile() }
}

/// Writes a word.
pub(crate) fn poke<T: Copy>(address: u64, value: T) {
    // SAFETY: tests write what they have mapped, where no Rust value lies.
    unsafe { (address as *mut T).write_volatile(value) };
}

/// Copies bytes, such as code, to an address.
pub(crate) fn put(address: u64, bytes: &[u8]) {
    for (i, &byte) in (0u64..).zip(bytes) {
        poke(address + i, byte);
    }
}

/// Fills a page with a byte.
pub(crate) fn fill(address: u64, byte: u8) {
    for i in (0..4096).step_by(8) {
        poke(address + i, u64::from_ne_bytes([byte; 8]));
    }
}

/// Changes CR0 and CR4 for the time of `work`: bits set and cleared.
pub(crate) fn with_control<T>(
    (cr0_set, cr0_clear): (u64, u64),
    (cr4_set, cr4_clear): (u64, u64),
    work: impl FnOnce() -> T,
) -> T {
    let (cr0, cr4) = (cr0(), cr4());
    // SAFETY: the tests change bits that this program's own code, which is
    // mapped for level 0 and uses neither x87 nor SSE, can bear.
    unsafe {
        asm!("mov cr4, {1}", "mov cr0, {0}", in(reg) cr0 & !cr0_clear | cr0_set,
            in(reg) cr4 & !cr4_clear | cr4_set, options(nostack));
    }
    let result = work();
    // SAFETY: they were the values before.
    unsafe { asm!("mov cr0, {0}", "mov cr4, {1}", in(reg) cr0, in(reg) cr4, options(nostack)) };
    result
}

/// CR0.
pub(crate) fn cr0() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr0", out(reg) value, options(nomem, nostack)) };
    value
}

/// CR4.
pub(crate) fn cr4() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr4", out(reg) value, options(nomem, nostack)) };
    value
}
