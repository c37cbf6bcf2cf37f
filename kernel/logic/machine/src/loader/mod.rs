//! Puts an operating system into a machine that has not started.
//!
//! Two kinds of images: Linux by its 64-bit boot protocol (`bzimage`; Linux
//! Documentation/arch/x86/boot.rst) and plain 64-bit ELF executables
//! (`elf`), which are entered the same way. [`Plan::new`] checks everything
//! and decides where all goes; [`Plan::write`] then copies, and can be called
//! again after a page was Pending; [`Plan::enter`] sets the registers.
//!
//! The start-up structures lie in conventional memory, which the kernel
//! takes over when it has read them. Pages of zeroes are never written:
//! guest memory starts as zeroes, and what is not touched needs no page.

mod bzimage;
mod elf;
mod params;

use crate::map::{self, ACPI_BASE};
use crate::memory::{GuestMemory, MemoryError, in_page};
use crate::{Machine, state};
use addr::{GuestPhys, NodeId};
use alloc::borrow::Cow;
use alloc::vec::Vec;
use layout::Layout;
use vcpu::{RSI, RSP, Registers, SystemRegisters, Vcpu};

/// Global descriptor table.
const GDT: u64 = 0x1000;
/// Identity page tables: PML4, directory pointers, four directories of 2 MiB
/// pages for the first 4 GiB.
const PAGE_TABLES: u64 = 0x2000;
/// struct boot_params, the "zero page".
const BOOT_PARAMS: u64 = 0x1_0000;
/// Command line.
const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of command line, whatever the kernel says.
const COMMAND_LINE_MAX: usize = 0x1_0000;
/// Stack pointer for images that expect one.
const STACK: u64 = 0x8_0000;

/// Why an operating system cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoadError {
    /// Neither a bzImage nor a 64-bit ELF executable.
    NotAKernel,
    /// The boot protocol is older than 2.12.
    TooOld,
    /// There is no 64-bit entry point.
    No64Bit,
    /// Headers point outside the file, or contradict each other.
    Damaged,
    /// The kernel needs memory that the machine does not have.
    KernelTooLarge {
        /// Bytes there are for it.
        have: u64,
        /// Bytes it needs.
        need: u64,
    },
    /// A part of the executable wants to be where the machine has no memory
    /// for it.
    BadAddress {
        /// The address.
        address: u64,
    },
    /// The initial RAM disk does not fit.
    InitrdTooLarge {
        /// Bytes there are for it.
        have: u64,
        /// Bytes it needs.
        need: u64,
    },
    /// The command line does not fit.
    CommandLineTooLong {
        /// Bytes there are for it.
        have: usize,
        /// Bytes it needs.
        need: usize,
    },
    /// There are no ACPI tables for this machine.
    Acpi(guest_acpi::Error),
}

impl core::fmt::Display for LoadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            LoadError::NotAKernel => {
                f.write_str("the file is neither a Linux bzImage nor a 64-bit ELF executable")
            }
            LoadError::TooOld => {
                f.write_str("the kernel's boot protocol is older than 2.12 (Linux 3.8)")
            }
            LoadError::No64Bit => f.write_str("the kernel has no 64-bit entry point"),
            LoadError::Damaged => f.write_str("the kernel file is damaged or cut short"),
            LoadError::KernelTooLarge { have, need } => {
                write!(f, "the kernel needs {need} bytes of memory, there are {have}")
            }
            LoadError::BadAddress { address } => {
                write!(f, "the kernel wants to be at {address:#x}, where it cannot be")
            }
            LoadError::InitrdTooLarge { have, need } => {
                write!(f, "the initial RAM disk needs {need} bytes of memory, there are {have}")
            }
            LoadError::CommandLineTooLong { have, need } => {
                write!(f, "the command line has {need} bytes, the kernel takes {have}")
            }
            LoadError::Acpi(error) => write!(f, "no ACPI tables: {error}"),
        }
    }
}

impl core::error::Error for LoadError {}

/// What is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct Boot<'a> {
    /// A bzImage or an ELF executable.
    pub kernel: &'a [u8],
    /// Initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// Command line.
    pub cmdline: &'a str,
}

/// Bytes that go to one place.
#[derive(Clone, Debug)]
struct Segment<'a> {
    gpa: u64,
    bytes: Cow<'a, [u8]>,
}

/// Where a kernel's parts go and where it starts.
struct Image<'a> {
    segments: Vec<Segment<'a>>,
    /// First address after the kernel and the memory it needs at once.
    end: u64,
    entry: u64,
    /// Setup header for boot_params, from offset 0x1F1 on.
    header: &'a [u8],
    /// Highest address of an initial RAM disk.
    initrd_max: u64,
    /// Bytes of command line it takes, without the final zero.
    cmdline_max: usize,
}

/// Memory for the kernel and its RAM disk: node 0's, from 1 MiB up to the
/// device window.
#[derive(Clone, Copy, Debug)]
struct Room {
    start: u64,
    end: u64,
}

impl Room {
    fn of(layout: &Layout) -> Room {
        let first = layout.ranges().first().filter(|r| r.home == NodeId::LEADER);
        let end = first.map_or(0, |r| r.end.start().0);
        Room { start: map::HIGH_START, end: end.max(map::HIGH_START) }
    }
}

/// A load that was checked and placed, and how far it is done.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    segments: Vec<Segment<'a>>,
    registers: Registers,
    system: SystemRegisters,
    /// Next to write: segment and byte.
    segment: usize,
    done: usize,
}

impl<'a> Plan<'a> {
    /// Checks the images and decides where everything goes.
    ///
    /// # Errors
    /// [`LoadError`] says what does not fit together.
    pub fn new(boot: &Boot<'a>, machine: &Machine) -> Result<Plan<'a>, LoadError> {
        Plan::place(boot, machine.layout(), machine.acpi_tables().map_err(LoadError::Acpi)?)
    }

    fn place(
        boot: &Boot<'a>,
        layout: &Layout,
        acpi: guest_acpi::Tables,
    ) -> Result<Plan<'a>, LoadError> {
        let room = Room::of(layout);
        let image = if elf::is_elf(boot.kernel) {
            elf::image(boot.kernel, room)?
        } else {
            bzimage::image(boot.kernel, room)?
        };
        let need = boot.cmdline.len();
        let have = image.cmdline_max.min(COMMAND_LINE_MAX - 1);
        if need > have {
            return Err(LoadError::CommandLineTooLong { have, need });
        }
        let initrd = place_initrd(boot.initrd, &image, room)?;
        let ranges = map::e820(layout, acpi.bytes.len() as u64);
        let params = params::Params {
            header: image.header,
            e820: &ranges,
            cmdline: COMMAND_LINE,
            initrd: (initrd, boot.initrd.len() as u64),
            rsdp: acpi.rsdp.0,
        };
        let gdt = params::gdt();
        let system = state::long_mode(PAGE_TABLES, GDT, gdt.len() as u32 - 1);
        let mut segments = image.segments;
        let mut put = |gpa, bytes| segments.push(Segment { gpa, bytes });
        put(initrd, Cow::Borrowed(boot.initrd));
        put(GDT, Cow::Owned(gdt));
        put(PAGE_TABLES, Cow::Owned(params::identity_tables(PAGE_TABLES)));
        put(BOOT_PARAMS, Cow::Owned(params.encode()));
        put(COMMAND_LINE, Cow::Borrowed(boot.cmdline.as_bytes()));
        put(ACPI_BASE, Cow::Owned(acpi.bytes));
        let mut registers = Registers { rip: image.entry, rflags: 2, ..Registers::default() };
        registers.gpr[RSI] = BOOT_PARAMS;
        registers.gpr[RSP] = STACK;
        Ok(Plan { segments, registers, system, segment: 0, done: 0 })
    }

    /// Copies everything into guest memory. After an error it goes on where
    /// it was.
    ///
    /// # Errors
    /// [`MemoryError::Pending`] names a page to fetch before the next call.
    pub fn write(&mut self, memory: &mut dyn GuestMemory) -> Result<(), MemoryError> {
        while let Some(segment) = self.segments.get(self.segment) {
            while self.done < segment.bytes.len() {
                let gpa = segment.gpa + self.done as u64;
                let len = in_page(gpa, segment.bytes.len() - self.done);
                let bytes = &segment.bytes[self.done..self.done + len];
                if bytes.iter().any(|&b| b != 0) {
                    memory.write(GuestPhys(gpa), bytes)?;
                }
                self.done += len;
            }
            self.segment += 1;
            self.done = 0;
        }
        Ok(())
    }

    /// Sets the registers of the first processor.
    pub fn enter(&self, vcpu: &mut impl Vcpu) {
        *vcpu.registers_mut() = self.registers;
        vcpu.set_system(&self.system);
        vcpu.set_xcr0(1);
        vcpu.flush();
    }

    /// Bytes to copy, zeroes included, for reports.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes.len() as u64).sum()
    }
}

/// Places the RAM disk as high as it may be, on a page boundary.
fn place_initrd(initrd: &[u8], image: &Image<'_>, room: Room) -> Result<u64, LoadError> {
    if initrd.is_empty() {
        return Ok(0);
    }
    let need = initrd.len() as u64;
    let end = room.end.min(image.initrd_max.saturating_add(1));
    let lowest = image.end.next_multiple_of(4096);
    let too_large = LoadError::InitrdTooLarge { have: end.saturating_sub(lowest), need };
    let start = end.checked_sub(need).ok_or(too_large)? & !0xFFF;
    if start < lowest { Err(too_large) } else { Ok(start) }
}

// Files of megabytes, byte by byte: too long for an interpreter.
#[cfg(all(test, not(miri)))]
mod tests;
