//! Model-specific registers that are not passed through.
//!
//! The backend passes the registers of [`PASSED_THROUGH`] to the hardware (a
//! control block or the world switch keeps them apart); every other access
//! comes here. What a guest has no use for is not there: #GP, counted by
//! number. Operating systems probe many registers; those that Linux reads
//! without a safety net have an answer. Numbers are those of Intel SDM
//! vol. 4 and AMD APM vol. 2, appendix A.

mod efer;
mod mtrr;

pub(crate) use efer::EFER;
pub(crate) use mtrr::Mtrrs;

use crate::stop::Stop;
use crate::{Context, Machine, pvclock};
use chipset::lapic;

/// Registers that the backend must pass through to the hardware: SYSENTER_CS,
/// _ESP, _EIP; STAR, LSTAR, CSTAR, SFMASK; FS, GS and KERNEL_GS base;
/// TSC_AUX. An exit for one of them raises #GP.
pub const PASSED_THROUGH: [u32; 11] = [
    0x174,
    0x175,
    0x176,
    0xC000_0081,
    0xC000_0082,
    0xC000_0083,
    0xC000_0084,
    0xC000_0100,
    0xC000_0101,
    0xC000_0102,
    0xC000_0103,
];

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// IA32_PLATFORM_ID.
const PLATFORM_ID: u32 = 0x17;
/// IA32_FEATURE_CONTROL: locked, without VMX.
const FEATURE_CONTROL: u32 = 0x3A;
/// IA32_TSC_ADJUST.
const TSC_ADJUST: u32 = 0x3B;
/// IA32_BIOS_UPDT_TRIG: loading microcode does nothing.
const MICROCODE_LOAD: u32 = 0x79;
/// IA32_BIOS_SIGN_ID; AMD patch level.
const MICROCODE_LEVEL: u32 = 0x8B;
/// MSR_PLATFORM_INFO.
const PLATFORM_INFO: u32 = 0xCE;
/// IA32_MCG_CAP: no banks.
const MCG_CAP: u32 = 0x179;
/// IA32_MCG_STATUS.
const MCG_STATUS: u32 = 0x17A;
/// IA32_MISC_ENABLE.
const MISC_ENABLE: u32 = 0x1A0;
/// Fast strings on; no branch trace store, no precise event based sampling.
const MISC_ENABLE_RESET: u64 = 1 | (1 << 11) | (1 << 12);
/// IA32_DEBUGCTL.
const DEBUG_CONTROL: u32 = 0x1D9;
/// LBR and BTF, the two bits that may be set (and are only kept).
const DEBUG_CONTROL_MASK: u64 = 3;
/// Last branch and last interrupt, from and to.
const LAST_BRANCH_FIRST: u32 = 0x1DB;
const LAST_BRANCH_LAST: u32 = 0x1DE;
/// IA32_PAT.
const PAT: u32 = 0x277;
/// AMD: MSRC001_0010 SYSCFG, with the memory type bits 18 to 22 that may be set.
const SYSCFG: u32 = 0xC001_0010;
const SYSCFG_MASK: u64 = 0x7C_0000;
/// AMD: HWCR. TscFreqSel says that the TSC counts at P0 frequency.
const HWCR: u32 = 0xC001_0015;
const HWCR_TSC_FREQ_SEL: u64 = 1 << 24;
/// HWCR bits that are kept: TlbCacheDis, INVD and FFDIS workarounds,
/// McStatusWrEn.
const HWCR_MASK: u64 = 0x4_0158;
/// AMD: top of memory below and above 4 GiB.
const TOP_MEM: u32 = 0xC001_001A;
const TOP_MEM2: u32 = 0xC001_001D;
/// AMD: northbridge configuration.
const NB_CFG: u32 = 0xC001_001F;
/// AMD: microcode loader.
const PATCH_LOADER: u32 = 0xC001_0020;
/// AMD: interrupt pending message.
const INT_PENDING: u32 = 0xC001_0055;
/// AMD: MMIO configuration base (the legacy one; ECAM is told by MCFG).
const MMIO_CONF_BASE: u32 = 0xC001_0058;
/// AMD: SMM base of TSEG, and mask.
const SMM_ADDR: u32 = 0xC001_0112;
const SMM_MASK: u32 = 0xC001_0113;
/// AMD: VM_CR, with SVMDIS and LOCK: no virtualization here.
const VM_CR: u32 = 0xC001_0114;
const VM_CR_VALUE: u64 = (1 << 4) | (1 << 3);
/// AMD: instruction and data cache configuration, bus unit configuration.
const IC_CFG: u32 = 0xC001_1021;
const DC_CFG: u32 = 0xC001_1022;
const BU_CFG2: u32 = 0xC001_102A;
/// AMD: decoder configuration, LFENCE is serialising.
const DE_CFG: u32 = 0xC001_1029;
const DE_CFG_LFENCE: u64 = 1 << 1;
/// MSR_SMI_COUNT.
const SMI_COUNT: u32 = 0x34;

/// One processor's registers that live in no device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Msrs {
    pub(crate) mtrrs: Mtrrs,
    misc_enable: u64,
    mcg_status: u64,
    debug_control: u64,
    syscfg: u64,
    hwcr: u64,
    wall_clock: u64,
    system_time: u64,
}

impl Msrs {
    pub(crate) fn new(phys_bits: u32) -> Msrs {
        Msrs {
            mtrrs: Mtrrs::new(phys_bits),
            misc_enable: MISC_ENABLE_RESET,
            mcg_status: 0,
            debug_control: 0,
            syscfg: 0,
            hwcr: 0,
            wall_clock: 0,
            system_time: 0,
        }
    }
}

/// Whether a value is a legal IA32_PAT.
fn pat_valid(value: u64) -> bool {
    value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=7))
}

/// AMD's own range; Intel's processors have nothing there.
const AMD_FIRST: u32 = 0xC001_0000;
const AMD_LAST: u32 = 0xC001_FFFF;

fn is_apic(msr: u32) -> bool {
    matches!(
        msr,
        lapic::MSR_APIC_BASE | lapic::MSR_TSC_DEADLINE | lapic::MSR_X2APIC_FIRST
            ..=lapic::MSR_X2APIC_LAST
    )
}

impl Machine {
    /// RDMSR.
    pub(crate) fn read_msr(&mut self, at: &mut Context<'_>, msr: u32) -> Result<u64, Stop> {
        if is_apic(msr) {
            let now = self.guest_tsc(at.cpu, at.now);
            return Ok(self.cpus[at.cpu].lapic.read_msr(msr, now)?);
        }
        let value = if self.is_foreign(at, msr) { None } else { self.plain_msr(at, msr) };
        if value.is_none() {
            self.counters.unknown_msrs.count(msr);
        }
        value.ok_or(Stop::PROTECTION)
    }

    /// Whether the register is of a vendor that the processor is not of.
    fn is_foreign(&self, at: &Context<'_>, msr: u32) -> bool {
        (AMD_FIRST..=AMD_LAST).contains(&msr) && self.with_query(at, |query| query.is_intel())
    }

    fn plain_msr(&self, at: &Context<'_>, msr: u32) -> Option<u64> {
        let cpu = &self.cpus[at.cpu];
        let m = &cpu.msrs;
        Some(match msr {
            TSC => self.guest_tsc(at.cpu, at.now),
            TSC_ADJUST => cpu.tsc_adjust,
            FEATURE_CONTROL => 1,
            MISC_ENABLE => m.misc_enable,
            MCG_STATUS => m.mcg_status,
            DEBUG_CONTROL => m.debug_control,
            PAT => at.vcpu.system().pat,
            EFER => at.vcpu.system().efer,
            SYSCFG => m.syscfg,
            HWCR => m.hwcr | HWCR_TSC_FREQ_SEL,
            TOP_MEM => layout::HOLE_START.start().0,
            TOP_MEM2 => self.layout.end().max(layout::HOLE_END).start().0,
            VM_CR => VM_CR_VALUE,
            DE_CFG => DE_CFG_LFENCE,
            pvclock::MSR_WALL_CLOCK => m.wall_clock,
            pvclock::MSR_SYSTEM_TIME => m.system_time,
            PLATFORM_ID
            | SMI_COUNT
            | MICROCODE_LEVEL
            | PLATFORM_INFO
            | MCG_CAP
            | NB_CFG
            | INT_PENDING
            | MMIO_CONF_BASE
            | SMM_ADDR
            | SMM_MASK
            | IC_CFG
            | DC_CFG
            | BU_CFG2
            | LAST_BRANCH_FIRST..=LAST_BRANCH_LAST => 0,
            _ => return m.mtrrs.read(msr),
        })
    }

    /// WRMSR. Writes guest memory, if at all, before anything else.
    pub(crate) fn write_msr(
        &mut self,
        at: &mut Context<'_>,
        msr: u32,
        value: u64,
    ) -> Result<(), Stop> {
        if is_apic(msr) {
            let now = self.guest_tsc(at.cpu, at.now);
            let effect = self.cpus[at.cpu].lapic.write_msr(msr, value, now)?;
            self.apply(at.cpu, effect);
            return Ok(());
        }
        if self.is_foreign(at, msr) {
            self.counters.unknown_msrs.count(msr);
            return Err(Stop::PROTECTION);
        }
        match msr {
            TSC => self.set_tsc_adjust(at, value.wrapping_sub(at.now)),
            TSC_ADJUST => self.set_tsc_adjust(at, value),
            EFER => self.write_efer(at, value),
            PAT if pat_valid(value) => {
                let mut system = at.vcpu.system();
                system.pat = value;
                at.vcpu.set_system(&system);
                Ok(())
            }
            pvclock::MSR_WALL_CLOCK => {
                let clock = pvclock::wall_clock(self.rtc_unix_seconds);
                pvclock::store(at.memory, value, &clock)?;
                self.cpus[at.cpu].msrs.wall_clock = value;
                Ok(())
            }
            pvclock::MSR_SYSTEM_TIME => {
                self.store_time(at, value, self.cpus[at.cpu].tsc_adjust)?;
                self.cpus[at.cpu].msrs.system_time = value;
                Ok(())
            }
            _ => self.write_plain_msr(at, msr, value),
        }
    }

    fn write_plain_msr(&mut self, at: &mut Context<'_>, msr: u32, value: u64) -> Result<(), Stop> {
        let phys_bits = self.cpus[at.cpu].phys_bits;
        let m = &mut self.cpus[at.cpu].msrs;
        let keep = |slot: &mut u64, mask: u64| {
            let legal = value & !mask == 0;
            if legal {
                *slot = value;
            }
            legal.then_some(()).ok_or(Stop::PROTECTION)
        };
        match msr {
            MISC_ENABLE => m.misc_enable = value,
            MCG_STATUS => keep(&mut m.mcg_status, 7)?,
            DEBUG_CONTROL => keep(&mut m.debug_control, DEBUG_CONTROL_MASK)?,
            SYSCFG => m.syscfg = value & SYSCFG_MASK,
            HWCR => m.hwcr = value & HWCR_MASK,
            // Writes that change nothing: locked, or without a meaning here.
            MICROCODE_LOAD | MICROCODE_LEVEL | PATCH_LOADER | VM_CR | DE_CFG | NB_CFG
            | INT_PENDING | IC_CFG | DC_CFG | BU_CFG2 => {}
            _ => {
                let written = m.mtrrs.write(msr, value, phys_bits);
                if written.is_none() {
                    self.counters.unknown_msrs.count(msr);
                }
                return written.unwrap_or(Err(Stop::PROTECTION));
            }
        }
        Ok(())
    }

    /// Moves the guest's TSC on one processor (Intel SDM vol. 3, 18.17.3),
    /// and what the guest was told about it.
    fn set_tsc_adjust(&mut self, at: &mut Context<'_>, adjust: u64) -> Result<(), Stop> {
        let system_time = self.cpus[at.cpu].msrs.system_time;
        self.store_time(at, system_time, adjust)?;
        self.cpus[at.cpu].tsc_adjust = adjust;
        at.vcpu.set_tsc_offset(adjust.wrapping_sub(self.start_tsc));
        Ok(())
    }

    /// Writes the time structure where MSR_KVM_SYSTEM_TIME_NEW has `msr`.
    fn store_time(&self, at: &mut Context<'_>, msr: u64, adjust: u64) -> Result<(), Stop> {
        if msr & pvclock::ENABLE == 0 {
            return Ok(());
        }
        let info = pvclock::time_info(self.scale, adjust);
        pvclock::store(at.memory, msr & !pvclock::ENABLE, &info)
    }
}
