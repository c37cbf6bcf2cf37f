//! What the loader tells: the memory map and the command line (Linux
//! Documentation/arch/x86/zero-page.rst).

/// Offset of the number of E820 entries.
const E820_ENTRIES: usize = 0x1E8;
/// Offset of the E820 table.
const E820_TABLE: usize = 0x2D0;
/// Bytes of one entry: address, length, kind.
const E820_ENTRY: usize = 20;
/// Most entries.
const E820_MAX: usize = 128;
/// Offset of the command line's address (low half).
#[cfg(target_os = "none")]
const CMD_LINE: usize = 0x228;
/// Longest command line that is read.
#[cfg(target_os = "none")]
const CMD_LINE_MAX: usize = 4096;
/// Kind of memory that may be used (ACPI 6.5, table 15.6).
pub const USABLE: u32 = 1;

/// struct boot_params, the "zero page".
#[repr(C, align(4096))]
pub struct BootParams([u8; 4096]);

/// One range of the memory map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Kind; [`USABLE`] for memory.
    pub kind: u32,
}

impl BootParams {
    fn u64(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    /// The memory map.
    pub fn e820(&self) -> impl Iterator<Item = Range> + '_ {
        let count = usize::from(self.0[E820_ENTRIES]).min(E820_MAX);
        (0..count).map(|i| {
            let at = E820_TABLE + i * E820_ENTRY;
            let kind = self.u64(at + 12) >> 32;
            Range { start: self.u64(at), len: self.u64(at + 8), kind: kind as u32 }
        })
    }

    /// The command line; empty if it is no text.
    #[cfg(target_os = "none")]
    #[must_use]
    pub fn command_line(&self) -> &'static str {
        let start = (self.u64(CMD_LINE) & 0xFFFF_FFFF) as *const u8;
        if start.is_null() {
            return "";
        }
        // SAFETY: the loader has put the command line there with a zero
        // behind it, less than 64 KiB in memory that nothing changes.
        let bytes = unsafe { core::slice::from_raw_parts(start, CMD_LINE_MAX) };
        let len = bytes.iter().position(|&b| b == 0).unwrap_or(0);
        core::str::from_utf8(&bytes[..len]).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_is_read_as_the_loader_writes_it() {
        let mut page = [0; 4096];
        page[E820_ENTRIES] = 2;
        let mut put = |at: usize, start: u64, len: u64, kind: u32| {
            page[at..at + 8].copy_from_slice(&start.to_le_bytes());
            page[at + 8..at + 16].copy_from_slice(&len.to_le_bytes());
            page[at + 16..at + 20].copy_from_slice(&kind.to_le_bytes());
        };
        put(E820_TABLE, 0, 0x9_F000, 1);
        put(E820_TABLE + 20, 0xE_0000, 0x2000, 3);
        let map: Vec<_> = BootParams(page).e820().collect();
        let want = |start, len, kind| Range { start, len, kind };
        assert_eq!(map, [want(0, 0x9_F000, 1), want(0xE_0000, 0x2000, 3)]);
    }

    #[test]
    fn a_map_that_claims_too_much_ends_with_the_page() {
        let mut page = [0; 4096];
        page[E820_ENTRIES] = 255;
        assert_eq!(BootParams(page).e820().count(), E820_MAX);
    }
}
