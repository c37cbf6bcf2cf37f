//! Takes the machine over from the boot code.

use crate::memory::{BootMemory, Modules, PhysMemory};
use crate::page_table::MapError;
use crate::{
    acpi, address_space, apic, clock, cpu, descriptors, exceptions, heap, pci, pic, report,
};
use boot::BootInfo;

/// What a started node is made of.
pub struct Platform {
    /// Frames not given out yet.
    pub boot_memory: BootMemory,
    /// Access to all frames.
    pub memory: PhysMemory,
    /// The files that the loader brought.
    pub modules: Modules,
    /// RAM that the firmware left to the node, in bytes.
    pub ram_bytes: u64,
}

/// Why a node cannot start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// The loader told of no memory: it follows neither boot protocol, or its
    /// tables were overwritten (QEMU's, by a command line above 4 KiB).
    NoMemoryMap,
    /// The processor cannot forbid execution.
    NoExecuteMissing,
    /// The page tables could not be built.
    Map(MapError),
    /// There is not enough memory for the heap.
    NoMemory,
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            StartError::NoMemoryMap => "the loader gave no memory map",
            StartError::NoExecuteMissing => "the processor cannot forbid execution (NX)",
            StartError::Map(MapError::NoTables) => "there is no memory for page tables",
            StartError::Map(MapError::Conflict) => "the firmware's memory map contradicts itself",
            StartError::Map(MapError::Range) => "the firmware's memory map is out of range",
            StartError::NoMemory => "there is no memory for the heap",
        })
    }
}

impl From<MapError> for StartError {
    fn from(error: MapError) -> Self {
        StartError::Map(error)
    }
}

/// Starts the node: page tables, exceptions, heap, clock, interrupt
/// controllers, PCI. `heap_bytes` says how large the heap is to be, from the
/// bytes of RAM ([`heap::default_bytes`] or more).
///
/// # Errors
/// [`StartError`]; the machine may then be half taken over.
///
/// # Safety
/// To be called once, on the boot processor, interrupts off, with the
/// `BootInfo` of this boot.
pub unsafe fn start(
    info: &'static BootInfo,
    heap_bytes: impl Fn(u64) -> u64,
) -> Result<Platform, StartError> {
    report::start(&info.image);
    if !cpu::has_no_execute() {
        return Err(StartError::NoExecuteMissing);
    }
    if info.usable.as_slice().is_empty() {
        return Err(StartError::NoMemoryMap);
    }
    let mut boot_memory = BootMemory::new(info);
    let mut ram = info.usable.clone();
    ram.remove(crate::memory::unreachable());
    let ram_bytes = ram.total();
    // SAFETY: the caller calls once, on the boot's tables and stack.
    let memory =
        unsafe { address_space::start(info, &mut boot_memory, &descriptors::guard_pages())? };
    // SAFETY: once, on the node's own page tables.
    unsafe { exceptions::start() };
    cpu::enable_machine_check();
    let frames = heap_bytes(ram_bytes).div_ceil(4096);
    let start = boot_memory.alloc_frames(frames, 1).ok_or(StartError::NoMemory)?;
    // SAFETY: the frames were just taken out of the free memory, for good,
    // and are mapped writable.
    unsafe { heap::start(start.start().0, frames * 4096) };
    pic::start();
    let tables = acpi::start(info);
    if !tables.found {
        log::warn!("no ACPI tables: no power off, PCI by ports");
    }
    let by = clock::start(tables.pm_timer);
    log::info!("TSC {} kHz by {by}", clock::tsc_hz() / 1000);
    apic::start();
    pci::start(tables.ecam);
    pci::quiesce();
    // SAFETY: once; the page tables above map all usable RAM but page 0.
    let modules = unsafe { Modules::new(info) };
    Ok(Platform { boot_memory, memory, modules, ram_bytes })
}
