//! What the kernel is told about the machine it woke up on.

use crate::ranges::{Range, RangeSet};

/// Most entries kept of any kind of memory.
pub const RANGES_MAX: usize = 256;
/// Most memory map entries that are looked at.
pub const MAP_ENTRIES_MAX: usize = 1024;
/// Most modules kept.
pub const MODULES_MAX: usize = 16;
/// Most bytes kept of the command line.
pub const COMMAND_LINE_MAX: usize = 4096;
/// Most bytes kept of a module's name and arguments.
pub const MODULE_NAME_MAX: usize = 512;

/// Who loaded the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootMethod {
    /// Through the PVH note (QEMU's `-kernel`).
    Pvh,
    /// Through the Multiboot2 header (GRUB).
    Multiboot2,
    /// By something that follows neither protocol; nothing is known.
    Unknown,
}

/// Where the ACPI tables start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rsdp {
    /// The loader did not say: search the BIOS areas.
    Unknown,
    /// Physical address of the RSDP.
    Address(u64),
    /// A copy of the RSDP (20 bytes of it for ACPI 1.0, else 36).
    Copy([u8; 36]),
}

/// Text from outside: bytes up to a limit, not always UTF-8.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Text<N> {
    /// No text.
    #[must_use]
    pub const fn new() -> Self {
        Text { bytes: [0; N], len: 0 }
    }

    /// Keeps the first `N` bytes.
    pub fn set(&mut self, from: &[u8]) {
        self.len = from.len().min(N);
        self.bytes[..self.len].copy_from_slice(&from[..self.len]);
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text up to the first byte that is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(s) => s,
            Err(e) => core::str::from_utf8(&self.as_bytes()[..e.valid_up_to()]).unwrap_or(""),
        }
    }
}

/// A file that the loader put into memory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Module {
    /// Where its bytes are.
    pub range: Range,
    /// Its command line: with GRUB the words after the file name.
    pub name: Text<MODULE_NAME_MAX>,
}

/// The parts of the running image. Every range starts and ends on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ImageLayout {
    /// All of it.
    pub image: Range,
    /// Code: read and execute.
    pub text: Range,
    /// Constants: read only.
    pub rodata: Range,
    /// Variables: read and write.
    pub data: Range,
    /// The page below the stack, to be unmapped.
    pub stack_guard: Range,
    /// The stack of the boot processor.
    pub stack: Range,
}

/// Everything that boot tells the kernel.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// Who loaded the image.
    pub method: BootMethod,
    /// Free RAM as the firmware saw it: disjoint from `acpi` and `reserved`,
    /// but it still holds the image, the modules and the loader's tables,
    /// which the kernel takes out.
    pub usable: RangeSet<RANGES_MAX>,
    /// ACPI tables and ACPI non-volatile storage (types 3 and 4 of the map).
    pub acpi: RangeSet<RANGES_MAX>,
    /// Everything else that the firmware listed.
    pub reserved: RangeSet<RANGES_MAX>,
    /// The raw command line; whether the image's file name comes first is up
    /// to the loader.
    pub command_line: Text<COMMAND_LINE_MAX>,
    modules: [Module; MODULES_MAX],
    module_count: usize,
    /// The ACPI root pointer.
    pub rsdp: Rsdp,
    /// The running image.
    pub image: ImageLayout,
}

impl Default for BootInfo {
    fn default() -> Self {
        Self::new(BootMethod::Unknown)
    }
}

impl BootInfo {
    /// Nothing is known.
    pub const EMPTY: BootInfo = BootInfo {
        method: BootMethod::Unknown,
        usable: RangeSet::new(),
        acpi: RangeSet::new(),
        reserved: RangeSet::new(),
        command_line: Text::new(),
        modules: [const { Module { range: Range::new(0, 0), name: Text::new() } }; MODULES_MAX],
        module_count: 0,
        rsdp: Rsdp::Unknown,
        image: ImageLayout {
            image: Range::new(0, 0),
            text: Range::new(0, 0),
            rodata: Range::new(0, 0),
            data: Range::new(0, 0),
            stack_guard: Range::new(0, 0),
            stack: Range::new(0, 0),
        },
    };

    /// Knows nothing but the way it booted.
    #[must_use]
    pub fn new(method: BootMethod) -> Self {
        BootInfo { method, ..Self::EMPTY }
    }

    /// The modules in the loader's order.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules[..self.module_count]
    }

    /// Adds a module; an empty one, or one too many, is left out.
    pub fn add_module(&mut self, range: Range, name: &[u8]) {
        if range.is_empty() || self.module_count == MODULES_MAX {
            return;
        }
        let module = &mut self.modules[self.module_count];
        module.range = range;
        module.name.set(name);
        self.module_count += 1;
    }

    /// Takes in a whole memory map: ranges and their kinds as in ACPI 6.5,
    /// table 15.3 (address range types); unknown kinds count as reserved.
    /// Where entries overlap the stricter kind wins. Pages that are usable
    /// only in part are not usable.
    pub(crate) fn set_memory(&mut self, map: impl Iterator<Item = (Range, u32)> + Clone) {
        let map = map.take(MAP_ENTRIES_MAX);
        for (range, kind) in map.clone() {
            match kind {
                1 => self.usable.insert(range.whole_pages()),
                3 | 4 => self.acpi.insert(range),
                _ => self.reserved.insert(range),
            }
        }
        for (range, _) in map.filter(|&(_, kind)| kind != 1) {
            self.usable.remove(range.touched_pages());
        }
        for i in 0..self.reserved.as_slice().len() {
            self.acpi.remove(self.reserved.as_slice()[i]);
        }
    }
}
