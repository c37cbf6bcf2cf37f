//! What the kernel finds in memory: struct boot_params (the "zero page" of
//! Linux Documentation/arch/x86/zero-page.rst), a GDT, identity page tables.

use super::bzimage::HEADER;
use crate::map::Range;
use alloc::vec;
use alloc::vec::Vec;

const ACPI_RSDP: usize = 0x070;
const EXT_RAMDISK_IMAGE: usize = 0x0C0;
const EXT_RAMDISK_SIZE: usize = 0x0C4;
const EXT_CMD_LINE: usize = 0x0C8;
const E820_ENTRIES: usize = 0x1E8;
const VID_MODE: usize = 0x1FA;
const BOOT_FLAG: usize = 0x1FE;
const MAGIC: usize = 0x202;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const CMD_LINE: usize = 0x228;
const E820_TABLE: usize = 0x2D0;
const E820_ENTRY: usize = 20;
const E820_MAX: usize = 128;
/// An undefined loader, as loaders without a number say.
const LOADER_UNDEFINED: u8 = 0xFF;
const LOADED_HIGH: u8 = 1;
/// CAN_USE_HEAP of loadflags: there is no heap.
const CAN_USE_HEAP: u8 = 1 << 7;

/// What boot_params tells.
pub(super) struct Params<'a> {
    /// The kernel's setup header from 0x1F1 on; empty for an ELF executable.
    pub(super) header: &'a [u8],
    pub(super) e820: &'a [Range],
    pub(super) cmdline: u64,
    /// Address and length; length 0 for none.
    pub(super) initrd: (u64, u64),
    pub(super) rsdp: u64,
}

fn put(page: &mut [u8], at: usize, value: u64, size: usize) {
    page[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

impl Params<'_> {
    /// The 4096 bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; 4096];
        let p = &mut page[..];
        p[HEADER..HEADER + self.header.len()].copy_from_slice(self.header);
        put(p, BOOT_FLAG, 0xAA55, 2);
        p[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        put(p, VID_MODE, 0xFFFF, 2);
        p[TYPE_OF_LOADER] = LOADER_UNDEFINED;
        p[LOADFLAGS] = (p[LOADFLAGS] | LOADED_HIGH) & !CAN_USE_HEAP;
        let (initrd, initrd_len) = self.initrd;
        put(p, RAMDISK_IMAGE, initrd, 4);
        put(p, RAMDISK_SIZE, initrd_len, 4);
        put(p, EXT_RAMDISK_IMAGE, initrd >> 32, 4);
        put(p, EXT_RAMDISK_SIZE, initrd_len >> 32, 4);
        put(p, CMD_LINE, self.cmdline, 4);
        put(p, EXT_CMD_LINE, self.cmdline >> 32, 4);
        put(p, ACPI_RSDP, self.rsdp, 8);
        assert!(self.e820.len() <= E820_MAX, "the memory map has a fixed few ranges");
        p[E820_ENTRIES] = self.e820.len() as u8;
        for (i, range) in self.e820.iter().enumerate() {
            let at = E820_TABLE + i * E820_ENTRY;
            put(p, at, range.start, 8);
            put(p, at + 8, range.end - range.start, 8);
            put(p, at + 16, u64::from(range.kind as u32), 4);
        }
        page
    }
}

/// GDT with 64-bit code at 0x10 and data at 0x18 (`__BOOT_CS`, `__BOOT_DS`).
pub(super) fn gdt() -> Vec<u8> {
    let entries: [u64; 4] = [0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF];
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

/// Six pages of tables at `base` that map the first 4 GiB to themselves.
pub(super) fn identity_tables(base: u64) -> Vec<u8> {
    /// Present, writable.
    const TABLE: u64 = 3;
    /// The same, a 2 MiB page.
    const LARGE: u64 = 0x83;
    let mut tables = vec![0; 6 * 4096];
    put(&mut tables, 0, (base + 0x1000) | TABLE, 8);
    for i in 0..4 {
        put(&mut tables, 0x1000 + 8 * i, (base + 0x2000 + 0x1000 * i as u64) | TABLE, 8);
    }
    for i in 0..2048 {
        put(&mut tables, 0x2000 + 8 * i, ((i as u64) << 21) | LARGE, 8);
    }
    tables
}
