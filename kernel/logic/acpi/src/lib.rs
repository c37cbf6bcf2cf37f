//! ACPI tables the guest sees (ACPI specification 6.5, chapter 5).
//!
//! [`build`] makes all tables as one blob for one place in guest memory: RSDP,
//! FACS, DSDT, FADT, MADT, SRAT, SLIT, MCFG, XSDT. The numbers in them are
//! those of [`chipset::map`], so the tables and the devices cannot disagree.
//! Each physical node is a proximity domain of its number.
//!
//! The machine copies the blob to [`Config::base`], keeps that range out of
//! usable memory, and gives [`Tables::rsdp`] to the operating system.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod devices;
mod fixed;
mod interrupts;
mod locality;
#[cfg(test)]
mod tests;

use acpi_tables::{Aml, rsdp::Rsdp, sdt::Sdt, xsdt::XSDT};
use addr::{GuestPhys, NodeId};
use alloc::vec::Vec;
use layout::Layout;

/// Most bytes that the tables may take: from 0xE0000 to 1 MiB.
pub const SIZE_MAX: usize = 128 * 1024;
/// Default place of the tables, where an operating system also searches.
pub const BASE_DEFAULT: GuestPhys = GuestPhys(0xE_0000);
/// Alignment of the blob, as the FACS needs it.
pub const ALIGNMENT: u64 = 64;

const OEM: [u8; 6] = *b"PANGEA";
const OEM_TABLE: [u8; 8] = *b"PANGAEA ";
const OEM_REVISION: u32 = 1;

/// A processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// x2APIC id; also the processor's `_UID`.
    pub apic_id: u32,
    /// Node it is on.
    pub node: NodeId,
}

/// What the tables are to tell.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// RAM and its homes.
    pub layout: &'a Layout,
    /// Processors, the bootstrap processor first.
    pub cpus: &'a [Cpu],
    /// Where the tables will lie; [`ALIGNMENT`]-aligned, below 4 GiB.
    pub base: GuestPhys,
    /// A window above all RAM for 64-bit PCI BARs: start and bytes.
    pub window_64: Option<(GuestPhys, u64)>,
}

impl<'a> Config<'a> {
    /// Tables at the default place, without a 64-bit window.
    #[must_use]
    pub const fn new(layout: &'a Layout, cpus: &'a [Cpu]) -> Config<'a> {
        Config { layout, cpus, base: BASE_DEFAULT, window_64: None }
    }
}

/// The tables as bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tables {
    /// To be copied to [`Config::base`].
    pub bytes: Vec<u8>,
    /// Address of the RSDP.
    pub rsdp: GuestPhys,
}

/// Why there are no tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The base is not aligned or its end is not below 4 GiB.
    Base,
    /// No processor at all.
    NoCpu,
    /// A processor on a node that the layout does not have.
    UnknownNode(Cpu),
    /// Two processors with one APIC id, or one with a broadcast id.
    ApicId(u32),
    /// The 64-bit window is empty, overlaps RAM or wraps.
    Window,
    /// The tables need so many bytes, more than [`SIZE_MAX`].
    Size(usize),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Error::Base => write!(f, "ACPI tables cannot lie at this base"),
            Error::NoCpu => write!(f, "no processor"),
            Error::UnknownNode(cpu) => {
                write!(f, "processor {} is on {}, which has no memory", cpu.apic_id, cpu.node)
            }
            Error::ApicId(id) => write!(f, "APIC id {id:#x} is taken twice or is reserved"),
            Error::Window => write!(f, "64-bit PCI window is empty, wraps or overlaps RAM"),
            Error::Size(bytes) => write!(f, "ACPI tables take {bytes} of {SIZE_MAX} bytes"),
        }
    }
}

impl core::error::Error for Error {}

/// Tables one after the other, with the address of each.
struct Blob {
    base: u64,
    bytes: Vec<u8>,
}

impl Blob {
    /// Appends a table, aligned to `align`, and tells its address.
    fn add(&mut self, align: usize, table: &dyn Aml) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let address = self.base + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        address
    }
}

/// A table of our own making: header, then `body`.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Sdt {
    let mut sdt = Sdt::new(signature, 36, revision, OEM, OEM_TABLE, OEM_REVISION);
    sdt.append_slice(body);
    sdt
}

fn check(config: &Config<'_>) -> Result<(), Error> {
    if !config.base.0.is_multiple_of(ALIGNMENT) || config.base.0 > (1 << 32) - SIZE_MAX as u64 {
        return Err(Error::Base);
    }
    if config.cpus.is_empty() {
        return Err(Error::NoCpu);
    }
    if let Some(&cpu) = config.cpus.iter().find(|c| c.node.index() >= config.layout.nodes()) {
        return Err(Error::UnknownNode(cpu));
    }
    let mut ids: Vec<u32> = config.cpus.iter().map(|c| c.apic_id).collect();
    ids.sort_unstable();
    if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::ApicId(pair[0]));
    }
    if ids.last() == Some(&u32::MAX) {
        return Err(Error::ApicId(u32::MAX));
    }
    if let Some((start, bytes)) = config.window_64 {
        let free = config.layout.end().max(layout::HOLE_END).start();
        if bytes == 0 || start < free || start.0.checked_add(bytes).is_none() {
            return Err(Error::Window);
        }
    }
    Ok(())
}

/// Makes the tables.
///
/// # Errors
/// [`Error`] tells what of the configuration cannot be put into tables.
pub fn build(config: &Config<'_>) -> Result<Tables, Error> {
    check(config)?;
    let mut blob = Blob { base: config.base.0, bytes: alloc::vec![0; Rsdp::len()] };
    let facs = blob.add(ALIGNMENT as usize, &acpi_tables::facs::FACS::new());
    let dsdt = blob.add(16, &devices::dsdt(config));
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(blob.add(16, &fixed::fadt(facs, dsdt)));
    xsdt.add_entry(blob.add(16, &interrupts::madt(config.cpus)));
    xsdt.add_entry(blob.add(16, &locality::srat(config)));
    if let Some(slit) = locality::slit(config.layout.nodes()) {
        xsdt.add_entry(blob.add(16, &slit));
    }
    xsdt.add_entry(blob.add(16, &fixed::mcfg()));
    let xsdt = blob.add(16, &xsdt);

    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    blob.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    if blob.bytes.len() > SIZE_MAX {
        return Err(Error::Size(blob.bytes.len()));
    }
    Ok(Tables { bytes: blob.bytes, rsdp: config.base })
}
