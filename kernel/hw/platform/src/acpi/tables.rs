//! RSDP, XSDT or RSDT, FADT, MADT, MCFG, decoded by the acpi crate.

use super::guard::{Guard, HEADER_SIZE, sums_to_zero, table};
use super::sleep;
use crate::pci::EcamRegion;
use acpi::address::{AddressSpace, GenericAddress};
use acpi::rsdp::Rsdp;
use acpi::sdt::fadt::Fadt;
use acpi::sdt::madt::{LocalApicEntry, LocalX2ApicEntry, Madt, MadtEntry};
use acpi::sdt::mcfg::Mcfg;
use acpi::{AcpiTable, AcpiTables, AmlTable, PhysicalMapping};
use alloc::vec::Vec;
use boot::pvh::Physical;

/// Largest definition block that is looked at.
const AML_MAX: usize = 4 << 20;
/// Largest root table that is looked at: 256 tables.
const ROOT_MAX: usize = HEADER_SIZE + 256 * 8;
/// Most processors that are listed.
const CPUS_MAX: usize = 4096;

/// A processor of the node, from the MADT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its local APIC identity.
    pub apic_id: u32,
    /// Whether it can be used (else it may be plugged in later).
    pub enabled: bool,
}

/// A generic address structure (ACPI 6.5, 5.2.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// In system memory.
    Memory(u64),
    /// An I/O port.
    Port(u16),
}

/// What the tables say, as far as the node uses it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tables {
    /// Whether a valid RSDP was found.
    pub found: bool,
    /// OEM identity of the RSDP.
    pub oem: [u8; 6],
    /// Processors of the node.
    pub cpus: Vec<Cpu>,
    /// Port of the PM timer.
    pub pm_timer: Option<u16>,
    /// Port of the PM1a control register.
    pub pm1a_control: Option<u16>,
    /// Port of the PM1b control register.
    pub pm1b_control: Option<u16>,
    /// Port and value that hand the hardware over to ACPI.
    pub enable: Option<(u16, u8)>,
    /// Register and value that reset the machine.
    pub reset: Option<(Register, u8)>,
    /// SLP_TYPa and SLP_TYPb of the state S5.
    pub s5: Option<(u8, u8)>,
    /// Memory mapped PCI configuration space of segment 0.
    pub ecam: Option<EcamRegion>,
}

fn is_rsdp(bytes: &[u8]) -> bool {
    bytes.starts_with(b"RSD PTR ") && bytes.get(..20).is_some_and(sums_to_zero)
}

/// Finds an RSDP on a 16-byte boundary; empty if there is none. (The crate's
/// search believes the length field of whatever it comes across.)
#[must_use]
pub fn find_rsdp(area: &[u8]) -> &[u8] {
    (0..area.len()).step_by(16).map(|at| &area[at..]).find(|b| is_rsdp(b)).unwrap_or(&[])
}

/// Reads the tables from an RSDP on. What is missing or broken is left out.
#[must_use]
pub fn parse(memory: &impl Physical, rsdp: &[u8]) -> Tables {
    let mut found = Tables::default();
    if !is_rsdp(rsdp) {
        return found;
    }
    let mut bytes = [0; size_of::<Rsdp>()];
    let len = rsdp.len().min(bytes.len());
    bytes[..len].copy_from_slice(&rsdp[..len]);
    // SAFETY: an `Rsdp` consists of integers: any bytes of its size are one.
    let root_pointer: Rsdp = unsafe { core::mem::transmute(bytes) };
    found.found = true;
    found.oem = root_pointer.oem_id;
    let extended = root_pointer.revision >= 2 && len == bytes.len() && sums_to_zero(&bytes);
    let Some(tables) = root(memory, &root_pointer, extended) else { return found };
    if let Some(fadt) = first::<_, Fadt>(&tables) {
        read_fadt(&fadt, &mut found);
        found.s5 = read_s5(memory, &tables, &fadt);
    }
    if let Some(madt) = first::<_, Madt>(&tables) {
        read_madt(&madt, &mut found);
    }
    if let Some(mcfg) = first::<_, Mcfg>(&tables) {
        read_mcfg(&mcfg, &mut found);
    }
    found
}

/// The tables that the XSDT lists, or the RSDT if there is no sound XSDT.
fn root<'a, M: Physical>(
    memory: &'a M,
    root_pointer: &Rsdp,
    extended: bool,
) -> Option<AcpiTables<Guard<'a, M>>> {
    let xsdt = root_pointer.xsdt_address;
    let rsdt = u64::from(root_pointer.rsdt_address);
    let (address, revision) = if extended && table(memory, xsdt, ROOT_MAX).is_some() {
        (xsdt, root_pointer.revision)
    } else {
        table(memory, rsdt, ROOT_MAX)?;
        (rsdt, 0)
    };
    // SAFETY: a table of sound length is at the address, and the guard answers
    // for every other that it leads to.
    unsafe { AcpiTables::from_rsdt(Guard(memory), revision, address as usize).ok() }
}

/// The first sound table of a kind.
fn first<'a, M: Physical, T: AcpiTable>(
    tables: &AcpiTables<Guard<'a, M>>,
) -> Option<PhysicalMapping<Guard<'a, M>, T>> {
    // In place of a broken table the guard gives zeros, without a signature.
    tables.find_tables::<T>().find(|t| {
        let table = t.get();
        let header = table.header();
        header.signature == T::SIGNATURE && header.length as usize <= t.region_length
    })
}

/// A register that the node can reach; `None` if its address is zero.
fn register(address: &GenericAddress) -> Option<Register> {
    match address.address_space {
        _ if address.address == 0 => None,
        AddressSpace::SystemMemory => Some(Register::Memory(address.address)),
        AddressSpace::SystemIo => u16::try_from(address.address).ok().map(Register::Port),
        _ => None,
    }
}

/// The port of a register block: the extended field, else the old one.
fn port(block: Option<GenericAddress>, old: u32) -> Option<u16> {
    match block.as_ref().and_then(register) {
        Some(Register::Port(port)) => Some(port),
        _ => u16::try_from(old).ok().filter(|&p| p != 0),
    }
}

/// ACPI 6.5, table 5.9.
fn read_fadt(fadt: &Fadt, found: &mut Tables) {
    let fadt = with_usual_lengths(fadt);
    let flags = fadt.flags;
    if !flags.system_is_hw_reduced_acpi() {
        found.pm_timer = port(fadt.pm_timer_block().ok().flatten(), fadt.pm_timer_block);
        found.pm1a_control = port(fadt.pm1a_control_block().ok(), fadt.pm1a_control_block);
        found.pm1b_control =
            port(fadt.pm1b_control_block().ok().flatten(), fadt.pm1b_control_block);
        let command = port(None, fadt.smi_cmd_port);
        found.enable = command.zip(Some(fadt.acpi_enable).filter(|&v| v != 0));
    }
    if flags.supports_system_reset_via_fadt() {
        let reset = fadt.reset_register().ok().as_ref().and_then(register);
        found.reset = reset.map(|r| (r, fadt.reset_value));
    }
}

/// A FADT whose register lengths are those of ACPI 6.5, 4.8.3. The crate
/// multiplies what it finds there by eight, within a byte.
fn with_usual_lengths(fadt: &Fadt) -> Fadt {
    let mut fadt = *fadt;
    (fadt.pm1_event_length, fadt.pm1_control_length) = (4, 2);
    fadt
}

/// The sleep types of S5, from the DSDT or else an SSDT.
fn read_s5<M: Physical>(
    memory: &M,
    tables: &AcpiTables<Guard<'_, M>>,
    fadt: &Fadt,
) -> Option<(u8, u8)> {
    let fadt = with_usual_lengths(fadt);
    let look = |block: AmlTable| {
        let aml = table(memory, block.phys_address as u64, AML_MAX)?.get(HEADER_SIZE..)?;
        sleep::s5(&Guard(memory), &fadt, block.revision, aml)
    };
    tables.dsdt().ok().and_then(look).or_else(|| tables.ssdts().find_map(look))
}

/// ACPI 6.5, 5.2.12.
fn read_madt<M: Physical>(madt: &PhysicalMapping<Guard<'_, M>, Madt>, found: &mut Tables) {
    // The crate subtracts the size of what comes before the entries unchecked.
    if (madt.get().header.length as usize) < size_of::<Madt>() {
        return;
    }
    // SAFETY: the guard's copy of the table has `region_length` bytes.
    let bytes = unsafe {
        core::slice::from_raw_parts(madt.virtual_start.as_ptr().cast::<u8>(), madt.region_length)
    };
    for entry in madt.get().entries().take(sound_entries(bytes)) {
        let (len, size, apic_id, flags) = match entry {
            MadtEntry::LocalApic(e) => {
                (e.header.length, size_of::<LocalApicEntry>(), u32::from(e.apic_id), e.flags)
            }
            MadtEntry::LocalX2Apic(e) => {
                (e.header.length, size_of::<LocalX2ApicEntry>(), e.x2apic_id, e.flags)
            }
            _ => continue,
        };
        if usize::from(len) >= size && found.cpus.len() < CPUS_MAX {
            found.cpus.push(Cpu { apic_id, enabled: flags & 1 != 0 });
        }
    }
}

/// How many entries of known kinds a MADT has before the first that is broken.
/// The crate's iterator never ends at an entry of length zero.
fn sound_entries(madt: &[u8]) -> usize {
    const KIND_MAX: u8 = 0x10;
    let mut rest = madt.get(size_of::<Madt>()..).unwrap_or(&[]);
    let mut count = 0;
    while let &[kind, len, ..] = rest {
        if len < 2 || usize::from(len) > rest.len() {
            break;
        }
        count += usize::from(kind <= KIND_MAX);
        rest = &rest[usize::from(len)..];
    }
    count
}

/// PCI Firmware Specification 3.2, 4.1.2.
fn read_mcfg<M: Physical>(mcfg: &PhysicalMapping<Guard<'_, M>, Mcfg>, found: &mut Tables) {
    // As in `read_madt`.
    if (mcfg.header.length as usize) < size_of::<Mcfg>() {
        return;
    }
    found.ecam = mcfg.entries().iter().find(|e| e.pci_segment_group == 0).map(|e| EcamRegion {
        base: e.base_address,
        first_bus: e.bus_number_start,
        last_bus: e.bus_number_end,
    });
}
