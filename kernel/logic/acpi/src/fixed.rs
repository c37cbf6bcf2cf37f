//! FADT and MCFG: tables that are the same for every cluster.

use crate::{OEM, OEM_REVISION, OEM_TABLE};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use chipset::map;

/// IAPC_BOOT_ARCH (ACPI 6.5, table 5.11): devices on the ISA bus.
const LEGACY_DEVICES: u16 = 1 << 0;
/// IAPC_BOOT_ARCH: VGA must not be probed for.
const VGA_NOT_PRESENT: u16 = 1 << 2;
/// IAPC_BOOT_ARCH: the operating system must not turn PCIe ASPM on.
const NO_ASPM: u16 = 1 << 4;
/// Latencies that say that C2 and C3 do not exist.
const NO_C2_LATENCY_US: u16 = 101;
const NO_C3_LATENCY_US: u16 = 1001;

fn port(address: u16, bits: u8, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(address))
}

/// The FADT: full hardware, always in ACPI mode (SMI_CMD 0). Block addresses
/// stand in both widths and agree, as operating systems check.
pub(crate) fn fadt(facs: u64, dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (dsdt as u32).into();
    fadt.x_dsdt = dsdt.into();
    fadt.sci_int = u16::from(map::IRQ_SCI).into();
    fadt.pm1a_evt_blk = u32::from(map::PM1A_EVENT).into();
    fadt.pm1a_cnt_blk = u32::from(map::PM1A_CONTROL).into();
    fadt.pm_tmr_blk = u32::from(map::PM_TIMER).into();
    fadt.gpe0_blk = u32::from(map::GPE0).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_len = 4;
    fadt.gpe0_blk_len = map::GPE0_SIZE;
    fadt.p_lvl2_lat = NO_C2_LATENCY_US.into();
    fadt.p_lvl3_lat = NO_C3_LATENCY_US.into();
    fadt.century = chipset::rtc::CENTURY;
    fadt.iapc_boot_arch = (LEGACY_DEVICES | VGA_NOT_PRESENT | NO_ASPM).into();
    fadt.reset_reg = port(map::RESET_CONTROL, 8, AccessSize::ByteAccess);
    fadt.reset_value = map::RESET_VALUE;
    fadt.x_pm1a_evt_blk = port(map::PM1A_EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = port(map::PM1A_CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = port(map::PM_TIMER, 32, AccessSize::DwordAccess);
    fadt.x_gpe0_blk = port(map::GPE0, map::GPE0_SIZE * 8, AccessSize::ByteAccess);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(OEM_TABLE).into();
    fadt.finalize()
}

/// The MCFG: one ECAM for all buses of segment 0 (PCI Firmware 3.3, 4.1.2).
pub(crate) fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(map::ECAM_BASE, 0, 0, 0xFF);
    mcfg
}
