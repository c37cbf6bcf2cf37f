//! The node's address space: switches from the boot's temporary tables to
//! its own, and maps device memory on demand.

use crate::cpu;
use crate::memory::{BootMemory, PhysMemory, unreachable};
pub use crate::page_table::MapError;
use crate::page_table::{ADDRESS_END, PageTable, Rights, TableSource};
use addr::Frame;
use boot::{BootInfo, Range};
use spin::Mutex;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr3, Cr3Flags, Cr4, Cr4Flags};
use x86_64::structures::paging::PhysFrame;

/// Frames kept for tables that map device memory after start-up: enough for
/// 30 windows far from each other.
const POOL_FRAMES: usize = 64;

/// Frames for tables of mappings made later.
struct Pool {
    next: Frame,
    left: usize,
}

impl TableSource for Pool {
    fn table_frame(&mut self) -> Option<Frame> {
        self.left = self.left.checked_sub(1)?;
        let frame = self.next;
        self.next = frame.offset_by(1);
        Some(frame)
    }
}

impl TableSource for BootMemory {
    fn table_frame(&mut self) -> Option<Frame> {
        self.alloc_frames(1, 1)
    }
}

struct AddressSpace {
    table: PageTable,
    memory: PhysMemory,
    pool: Pool,
}

static SPACE: Mutex<Option<AddressSpace>> = Mutex::new(None);

/// Builds the node's page tables and switches to them: RAM writable and not
/// executable, the image with the rights of its parts, guard pages and page 0
/// absent. RAM itself is not touched, however much there is.
///
/// # Errors
/// [`MapError::NoTables`] where there is no memory for the tables.
///
/// # Safety
/// To be called once, on the boot stack and the boot's page tables, with the
/// `BootInfo` of this boot.
pub unsafe fn start(
    info: &BootInfo,
    boot_memory: &mut BootMemory,
    guards: &[Range],
) -> Result<PhysMemory, MapError> {
    let mut ram = info.usable.clone();
    ram.remove(Range::new(0, 4096));
    ram.remove(unreachable());
    // SAFETY: the boot's tables map the first 4 GiB, where `BootMemory` finds
    // the tables' frames (lowest first); the tables built here map the rest.
    let mut memory = unsafe { PhysMemory::new(&ram) };
    let pool = boot_memory.alloc_frames(POOL_FRAMES as u64, 1).ok_or(MapError::NoTables)?;
    let pool = Pool { next: pool, left: POOL_FRAMES };
    let mut table = PageTable::new(&mut memory, boot_memory, cpu::has_giant_pages())?;
    ram.remove(info.image.image);
    for &range in ram.as_slice() {
        table.map(&mut memory, boot_memory, range, Rights::DATA)?;
    }
    let mut acpi = boot::RangeSet::<64>::new();
    info.acpi.as_slice().iter().for_each(|r| acpi.insert(r.touched_pages()));
    for range in [Range::new(0, 4096), unreachable(), info.image.image] {
        acpi.remove(range);
    }
    for &range in acpi.as_slice() {
        table.map(&mut memory, boot_memory, range, Rights::DATA)?;
    }
    let image = &info.image;
    table.map(&mut memory, boot_memory, image.text, Rights::TEXT)?;
    table.map(&mut memory, boot_memory, image.rodata, Rights::RODATA)?;
    let mut data = boot::RangeSet::<32>::new();
    data.insert(image.data);
    for &guard in guards {
        data.remove(guard);
    }
    for &range in data.as_slice() {
        table.map(&mut memory, boot_memory, range, Rights::DATA)?;
    }
    table.map(&mut memory, boot_memory, image.stack, Rights::DATA)?;
    // SAFETY: the new tables map the running code, its data and its stack at
    // the same addresses.
    unsafe { switch(table.root()) };
    *SPACE.lock() = Some(AddressSpace { table, memory, pool });
    Ok(memory)
}

/// The page attribute table at power-on, which [`crate::page_table::Caching`]
/// counts on (AMD APM volume 2, 7.8.2); a firmware may have changed it.
const PAT_AT_POWER_ON: u64 = 0x0007_0406_0007_0406;

/// Turns on write protection and no-execute, loads CR3, and then sets the modes
/// of CR4 that operating systems run with. They change nothing for the node,
/// which maps no page as global and none for users. But where the processor is
/// emulated, a world switch between two sides that differ in them flushes once
/// more each way (QEMU 7.2, `cpu_x86_update_cr4`).
///
/// # Safety
/// The tables map everything that the running code uses.
unsafe fn switch(root: Frame) {
    let root = PhysFrame::containing_address(x86_64::PhysAddr::new(root.start().0));
    // SAFETY: EFER exists in long mode; NXE, which the caller has checked, gives a
    // reserved bit its meaning. WP restricts writes to what the tables allow. The PAT's
    // value is the processor's own, it has the modes, the caller answers for the tables.
    unsafe {
        cpu::wrmsr(cpu::msr::EFER, cpu::rdmsr(cpu::msr::EFER) | cpu::EFER_NXE);
        if cpu::has_pat() {
            cpu::wrmsr(cpu::msr::PAT, PAT_AT_POWER_ON);
        }
        Cr4::update(|cr4| cr4.remove(Cr4Flags::PAGE_GLOBAL | Cr4Flags::PCID));
        Cr3::write(root, Cr3Flags::empty());
        Cr0::update(|cr0| {
            cr0.insert(Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR);
        });
        Cr4::update(|cr4| cr4.insert(cpu::os_modes()));
    }
}

/// Maps device registers at a physical address, uncached, and returns their
/// address (the same). Mapping again what is mapped is free. RAM is refused.
///
/// # Errors
/// [`MapError`]; [`MapError::Conflict`] where the range is RAM.
pub fn map_mmio(phys: u64, len: u64) -> Result<*mut u8, MapError> {
    map(phys, len, Rights::DEVICE)
}

/// Maps memory of a device that behaves like RAM (shared memory), cached.
///
/// # Errors
/// [`MapError`].
pub fn map_device_memory(phys: u64, len: u64) -> Result<*mut u8, MapError> {
    map(phys, len, Rights::DATA)
}

/// Maps firmware tables for reading: RAM and ACPI memory are mapped already;
/// anything else is mapped as memory, and the MTRRs keep devices uncached.
///
/// # Errors
/// [`MapError`].
pub fn map_firmware(phys: u64, len: u64) -> Result<*const u8, MapError> {
    match map(phys, len, Rights::DATA) {
        // Mapped as a device's registers before: readable as well.
        Err(MapError::Conflict) => map(phys, len, Rights::DEVICE),
        other => other,
    }
    .map(<*mut u8>::cast_const)
}

fn map(phys: u64, len: u64, rights: Rights) -> Result<*mut u8, MapError> {
    let range = Range::from_len(phys, len);
    if len == 0 || range.end > ADDRESS_END || phys < 4096 {
        return Err(MapError::Range);
    }
    let mut space = SPACE.lock();
    let space = space.as_mut().ok_or(MapError::NoTables)?;
    space.table.map(&mut space.memory, &mut space.pool, range.touched_pages(), rights)?;
    // Only entries that were absent change, and those are not cached in the
    // translation buffers: nothing to flush.
    Ok(phys as *mut u8)
}
