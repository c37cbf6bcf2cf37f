//! The Multiboot2 information: what GRUB hands over.
//!
//! Source: Multiboot2 specification 2.0, section 3.6 (boot information
//! format). The table is one block of tags, self-contained but for the
//! modules' contents. An own parser of sixty lines is taken over a crate's,
//! because every length in it is checked here and nothing panics.

use crate::info::{BootInfo, BootMethod, Rsdp};
use crate::ranges::Range;
use crate::read;

/// What the loader leaves in EAX.
pub const MAGIC: u32 = 0x36D7_6289;
/// Most bytes of the table that are looked at.
pub const SIZE_MAX: usize = 1 << 20;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_ACPI_OLD: u32 = 14;
const TAG_ACPI_NEW: u32 = 15;

/// Reads the table's own size from its first eight bytes.
#[must_use]
pub fn total_size(header: &[u8]) -> Option<usize> {
    let size = read::u32(header, 0)? as usize;
    (8..=SIZE_MAX).contains(&size).then_some(size)
}

/// Parses the table. What is missing or broken is left out.
#[must_use]
pub fn parse(table: &[u8]) -> BootInfo {
    let mut info = BootInfo::new(BootMethod::Unknown);
    fill(table, &mut info);
    info
}

/// [`parse`] into a `BootInfo` that exists already.
pub fn fill(table: &[u8], info: &mut BootInfo) {
    info.method = BootMethod::Multiboot2;
    let mut rest = table.get(8..).unwrap_or(&[]);
    while let (Some(kind), Some(size)) = (read::u32(rest, 0), read::u32(rest, 4)) {
        let size = size as usize;
        if kind == TAG_END || size < 8 {
            return;
        }
        let Some(tag) = rest.get(8..size) else { return };
        match kind {
            TAG_COMMAND_LINE => info.command_line.set(read::until_zero(tag)),
            TAG_MODULE => add_module(tag, info),
            TAG_MEMORY_MAP => add_memory_map(tag, info),
            TAG_ACPI_OLD if info.rsdp == Rsdp::Unknown => copy_rsdp(tag, info),
            TAG_ACPI_NEW => copy_rsdp(tag, info),
            _ => {}
        }
        // Tags start on multiples of eight; `size` is at most `SIZE_MAX`.
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or(&[]);
    }
}

fn add_module(tag: &[u8], info: &mut BootInfo) {
    if let (Some(start), Some(end)) = (read::u32(tag, 0), read::u32(tag, 4)) {
        let name = read::until_zero(tag.get(8..).unwrap_or(&[]));
        info.add_module(Range::new(u64::from(start), u64::from(end)), name);
    }
}

fn add_memory_map(tag: &[u8], info: &mut BootInfo) {
    let entry_size = read::u32(tag, 0).unwrap_or(0) as usize;
    if entry_size < 24 {
        return;
    }
    let entries = tag.get(8..).unwrap_or(&[]).chunks_exact(entry_size);
    info.set_memory(entries.map(|e| {
        let start = read::u64(e, 0).unwrap_or(0);
        let range = Range::from_len(start, read::u64(e, 8).unwrap_or(0));
        (range, read::u32(e, 16).unwrap_or(0))
    }));
}

fn copy_rsdp(tag: &[u8], info: &mut BootInfo) {
    if tag.len() < 20 {
        return;
    }
    let mut copy = [0; 36];
    let len = tag.len().min(copy.len());
    copy[..len].copy_from_slice(&tag[..len]);
    info.rsdp = Rsdp::Copy(copy);
}

#[cfg(test)]
mod tests {
    extern crate alloc;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn tag(to: &mut Vec<u8>, kind: u32, body: &[u8]) {
        to.extend(kind.to_le_bytes());
        to.extend((8 + body.len() as u32).to_le_bytes());
        to.extend(body);
        to.resize(to.len().next_multiple_of(8), 0);
    }

    fn table() -> Vec<u8> {
        let mut t = vec![0u8; 8];
        tag(&mut t, TAG_COMMAND_LINE, b"nodes=3 x\0");
        tag(&mut t, TAG_MODULE, b"\0\0\x20\0\0\0\x30\0kernel\0");
        let mut map = Vec::new();
        map.extend(24u32.to_le_bytes());
        map.extend(0u32.to_le_bytes());
        for (start, len, kind) in [(0u64, 0x8000u64, 1u64), (0x4000, 0x1000, 2)] {
            map.extend(start.to_le_bytes());
            map.extend(len.to_le_bytes());
            map.extend(kind.to_le_bytes());
        }
        tag(&mut t, TAG_MEMORY_MAP, &map);
        tag(&mut t, TAG_ACPI_NEW, &[7; 36]);
        tag(&mut t, TAG_ACPI_OLD, &[9; 20]);
        tag(&mut t, TAG_END, &[]);
        let len = t.len() as u32;
        t[..4].copy_from_slice(&len.to_le_bytes());
        t
    }

    #[test]
    fn reads_a_table() {
        let t = table();
        assert_eq!(total_size(&t), Some(t.len()));
        let info = parse(&t);
        assert_eq!(info.command_line.as_str(), "nodes=3 x");
        assert_eq!(info.modules()[0].range, Range::new(0x20_0000, 0x30_0000));
        assert_eq!(info.modules()[0].name.as_str(), "kernel");
        assert_eq!(info.usable.as_slice(), [Range::new(0, 0x4000), Range::new(0x5000, 0x8000)]);
        assert_eq!(info.rsdp, Rsdp::Copy([7; 36]));
    }

    #[test]
    fn survives_hostile_bytes() {
        let good = table();
        for len in 0..good.len() {
            let _ = parse(&good[..len]).modules();
        }
        for at in 0..good.len() {
            for v in [0, 1, 7, 0x18, 0x7F, 0x80, 0xFF] {
                let mut t = good.clone();
                t[at] = v;
                let info = parse(&t);
                assert!(info.modules().len() <= 1);
            }
        }
        assert_eq!(total_size(&[1, 0, 0, 0]), None);
        assert_eq!(total_size(&[0xFF; 8]), None);
    }
}
