//! The PVH start info: what QEMU hands over with `-kernel`.
//!
//! Source: Xen `public/arch-x86/hvm/start_info.h` (`struct hvm_start_info`,
//! version 1). The structure points to further tables, so the parser reads
//! physical memory through [`Physical`], a seam that tests fill with bytes.

use crate::info::{BootInfo, BootMethod, COMMAND_LINE_MAX, MAP_ENTRIES_MAX, MODULE_NAME_MAX};
use crate::info::{MODULES_MAX, Rsdp};
use crate::ranges::Range;
use crate::read;

/// `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336E_C578;

const START_INFO_SIZE: usize = 40;
const START_INFO_SIZE_V1: usize = 56;
const MODULE_ENTRY_SIZE: usize = 32;
const MEMORY_ENTRY_SIZE: usize = 24;

/// Physical memory as far as it can be read at this point of the boot.
pub trait Physical {
    /// The `len` bytes at a physical address, or `None` where they cannot be
    /// read; address 0 never can.
    fn bytes(&self, address: u64, len: usize) -> Option<&[u8]>;

    /// The text at `address` up to its zero byte, at most `max` bytes of it,
    /// and only what can be read.
    fn text(&self, address: u64, max: usize) -> &[u8] {
        let mut max = max;
        while max > 0 {
            if let Some(bytes) = self.bytes(address, max) {
                return read::until_zero(bytes);
            }
            max /= 2;
        }
        &[]
    }
}

/// Parses the start info at `address`. What is missing or broken is left out;
/// without the magic number all of it is.
pub fn parse(memory: &impl Physical, address: u64) -> BootInfo {
    let mut info = BootInfo::new(BootMethod::Unknown);
    fill(memory, address, &mut info);
    info
}

/// [`parse`] into a `BootInfo` that exists already (it is too large to move
/// about on a small stack).
pub fn fill(memory: &impl Physical, address: u64, info: &mut BootInfo) {
    let Some(header) = memory.bytes(address, START_INFO_SIZE) else { return };
    if read::u32(header, 0) != Some(MAGIC) {
        return;
    }
    info.method = BootMethod::Pvh;
    let version = read::u32(header, 4).unwrap_or(0);
    let modules = read::u32(header, 12).unwrap_or(0) as usize;
    let module_list = read::u64(header, 16).unwrap_or(0);
    let command_line = read::u64(header, 24).unwrap_or(0);
    if let Some(rsdp) = read::u64(header, 32).filter(|&a| a != 0) {
        info.rsdp = Rsdp::Address(rsdp);
    }
    if command_line != 0 {
        info.command_line.set(memory.text(command_line, COMMAND_LINE_MAX));
    }
    let modules = modules.min(MODULES_MAX);
    if let Some(list) = memory.bytes(module_list, modules * MODULE_ENTRY_SIZE) {
        for entry in list.chunks_exact(MODULE_ENTRY_SIZE) {
            add_module(memory, entry, info);
        }
    }
    if version < 1 {
        return;
    }
    let Some(header) = memory.bytes(address, START_INFO_SIZE_V1) else { return };
    let map = read::u64(header, 40).unwrap_or(0);
    let entries = (read::u32(header, 48).unwrap_or(0) as usize).min(MAP_ENTRIES_MAX);
    if let Some(map) = memory.bytes(map, entries * MEMORY_ENTRY_SIZE) {
        info.set_memory(map.chunks_exact(MEMORY_ENTRY_SIZE).map(|e| {
            let start = read::u64(e, 0).unwrap_or(0);
            let range = Range::from_len(start, read::u64(e, 8).unwrap_or(0));
            (range, read::u32(e, 16).unwrap_or(0))
        }));
    }
}

fn add_module(memory: &impl Physical, entry: &[u8], info: &mut BootInfo) {
    let start = read::u64(entry, 0).unwrap_or(0);
    let range = Range::from_len(start, read::u64(entry, 8).unwrap_or(0));
    let name = read::u64(entry, 16).unwrap_or(0);
    let name = if name == 0 { &[] } else { memory.text(name, MODULE_NAME_MAX) };
    if start != 0 {
        info.add_module(range, name);
    }
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    const BASE: u64 = 0x5000;

    struct Fake(Vec<u8>);

    impl Physical for Fake {
        fn bytes(&self, address: u64, len: usize) -> Option<&[u8]> {
            let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
            self.0.get(at..at.checked_add(len)?)
        }
    }

    fn put(to: &mut [u8], at: usize, value: u64, len: usize) {
        to[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    }

    /// Start info at 0, modules at 0x100, map at 0x200, texts at 0x400.
    fn machine() -> Fake {
        let mut m = vec![0u8; 0x1000];
        put(&mut m, 0, u64::from(MAGIC), 4);
        put(&mut m, 4, 1, 4);
        put(&mut m, 12, 1, 4);
        put(&mut m, 16, BASE + 0x100, 8);
        put(&mut m, 24, BASE + 0x400, 8);
        put(&mut m, 32, 0xF_5000, 8);
        put(&mut m, 40, BASE + 0x200, 8);
        put(&mut m, 48, 4, 4);
        put(&mut m, 0x100, 0x10_0000, 8);
        put(&mut m, 0x108, 0x1234, 8);
        put(&mut m, 0x110, BASE + 0x500, 8);
        let map = [
            (0, 0x9_FC00, 1),
            (0x10_0000, 0x700_0000, 1),
            (0x600_0000, 0x1_0800, 2),
            (0x700_0000, 0x1000, 3),
        ];
        for (i, (start, len, kind)) in map.into_iter().enumerate() {
            put(&mut m, 0x200 + i * 24, start, 8);
            put(&mut m, 0x208 + i * 24, len, 8);
            put(&mut m, 0x210 + i * 24, kind, 4);
        }
        m[0x400..0x407].copy_from_slice(b"nodes=2");
        m[0x500..0x504].copy_from_slice(b"pack");
        Fake(m)
    }

    #[test]
    fn reads_a_machine() {
        let info = parse(&machine(), BASE);
        assert_eq!(info.method, BootMethod::Pvh);
        assert_eq!(info.command_line.as_str(), "nodes=2");
        assert_eq!(info.rsdp, Rsdp::Address(0xF_5000));
        assert_eq!(info.modules().len(), 1);
        assert_eq!(info.modules()[0].range, Range::new(0x10_0000, 0x10_1234));
        assert_eq!(info.modules()[0].name.as_str(), "pack");
        let expected = [
            Range::new(0, 0x9_F000),
            Range::new(0x10_0000, 0x600_0000),
            Range::new(0x601_1000, 0x700_0000),
            Range::new(0x700_1000, 0x710_0000),
        ];
        assert_eq!(info.usable.as_slice(), expected);
        assert_eq!(info.acpi.as_slice(), [Range::new(0x700_0000, 0x700_1000)]);
    }

    #[test]
    fn refuses_a_wrong_magic_and_absent_tables() {
        let mut m = machine();
        m.0[0] ^= 1;
        assert_eq!(parse(&m, BASE).method, BootMethod::Unknown);
        assert_eq!(parse(&machine(), 0).method, BootMethod::Unknown);
        let mut m = machine();
        put(&mut m.0, 16, u64::MAX - 3, 8);
        put(&mut m.0, 40, 0, 8);
        let info = parse(&m, BASE);
        assert_eq!((info.modules().len(), info.usable.total()), (0, 0));
    }

    /// Any single field may hold anything: the parser comes back.
    #[test]
    fn survives_hostile_fields() {
        let values = [0, 1, 0x7F, 0xFF, 0x80];
        for at in (0..0x58).chain(0x100..0x120).chain(0x200..0x260) {
            for v in values {
                let mut m = machine();
                m.0[at] = v;
                let info = parse(&m, BASE);
                assert!(info.usable.as_slice().windows(2).all(|w| w[0].end < w[1].start));
            }
        }
        for len in 0..0x600 {
            let mut m = machine();
            m.0.truncate(len);
            let _ = parse(&m, BASE).modules();
        }
    }
}
