//! The state-save area of the VMCB (APM appendix B, table B-2).

use vcpu::{Segment, SystemRegisters};

/// EFER.SVME: VMRUN refuses a guest without it (APM 15.5.1).
pub const EFER_SVME: u64 = 1 << 12;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const CR0_PG: u64 = 1 << 31;
/// CR0.PE: protected mode.
pub const CR0_PE: u64 = 1;
/// IA32_PAT as a processor comes out of reset (APM 7.8).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// RFLAGS bit 1, which always reads as one.
pub const RFLAGS_FIXED: u64 = 1 << 1;
/// DR6.B0 to B3: the breakpoints that were met.
pub const DR6_BREAKPOINTS: u64 = 0xF;
/// DR6.BS: a single step.
pub const DR6_BS: u64 = 1 << 14;
/// DR7.GD: general detect.
pub const DR7_GD: u64 = 1 << 13;

/// The save area, offsets 400h to FFFh of the VMCB. Offsets below count from
/// its start. [`Segment`] has the layout of a VMCB segment.
#[repr(C)]
pub struct SaveArea {
    /// 000h.
    pub es: Segment,
    /// 010h.
    pub cs: Segment,
    /// 020h.
    pub ss: Segment,
    /// 030h.
    pub ds: Segment,
    /// 040h.
    pub fs: Segment,
    /// 050h.
    pub gs: Segment,
    /// 060h.
    pub gdtr: Segment,
    /// 070h.
    pub ldtr: Segment,
    /// 080h.
    pub idtr: Segment,
    /// 090h.
    pub tr: Segment,
    _reserved_0a0: [u8; 0x2B],
    /// 0CBh: current privilege level.
    pub cpl: u8,
    _reserved_0cc: u32,
    /// 0D0h.
    pub efer: u64,
    _reserved_0d8: [u8; 0x70],
    /// 148h.
    pub cr4: u64,
    /// 150h.
    pub cr3: u64,
    /// 158h.
    pub cr0: u64,
    /// 160h.
    pub dr7: u64,
    /// 168h.
    pub dr6: u64,
    /// 170h.
    pub rflags: u64,
    /// 178h.
    pub rip: u64,
    _reserved_180: [u8; 0x58],
    /// 1D8h.
    pub rsp: u64,
    _reserved_1e0: [u8; 0x18],
    /// 1F8h.
    pub rax: u64,
    /// 200h.
    pub star: u64,
    /// 208h.
    pub lstar: u64,
    /// 210h.
    pub cstar: u64,
    /// 218h.
    pub sfmask: u64,
    /// 220h.
    pub kernel_gs_base: u64,
    /// 228h.
    pub sysenter_cs: u64,
    /// 230h.
    pub sysenter_esp: u64,
    /// 238h.
    pub sysenter_eip: u64,
    /// 240h.
    pub cr2: u64,
    _reserved_248: [u8; 0x20],
    /// 268h: the guest's PAT, with nested paging.
    pub g_pat: u64,
    /// 270h: DEBUGCTL, with last-branch virtualisation.
    pub debugctl: u64,
    _reserved_278: [u8; 0x988],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Segment>() == 16);
    assert!(offset_of!(Segment, selector) == 0);
    assert!(offset_of!(Segment, attributes) == 2);
    assert!(offset_of!(Segment, limit) == 4);
    assert!(offset_of!(Segment, base) == 8);
    assert!(size_of::<SaveArea>() == 0xC00);
    assert!(offset_of!(SaveArea, gdtr) == 0x060);
    assert!(offset_of!(SaveArea, tr) == 0x090);
    assert!(offset_of!(SaveArea, cpl) == 0x0CB);
    assert!(offset_of!(SaveArea, efer) == 0x0D0);
    assert!(offset_of!(SaveArea, cr4) == 0x148);
    assert!(offset_of!(SaveArea, cr0) == 0x158);
    assert!(offset_of!(SaveArea, dr6) == 0x168);
    assert!(offset_of!(SaveArea, rip) == 0x178);
    assert!(offset_of!(SaveArea, rsp) == 0x1D8);
    assert!(offset_of!(SaveArea, rax) == 0x1F8);
    assert!(offset_of!(SaveArea, sfmask) == 0x218);
    assert!(offset_of!(SaveArea, sysenter_eip) == 0x238);
    assert!(offset_of!(SaveArea, cr2) == 0x240);
    assert!(offset_of!(SaveArea, g_pat) == 0x268);
    assert!(offset_of!(SaveArea, debugctl) == 0x270);
};

impl SaveArea {
    /// The registers as the guest sees them.
    #[must_use]
    pub fn system(&self) -> SystemRegisters {
        SystemRegisters {
            cr0: self.cr0,
            cr2: self.cr2,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer & !EFER_SVME,
            pat: self.g_pat,
            cs: self.cs,
            ds: self.ds,
            es: self.es,
            fs: self.fs,
            gs: self.gs,
            ss: self.ss,
            ldtr: self.ldtr,
            tr: self.tr,
            gdtr: self.gdtr,
            idtr: self.idtr,
            cpl: self.cpl,
        }
    }

    /// Gives DR6 and DR7 their values after reset and INIT (APM 14.1.3).
    pub fn reset_debug(&mut self) {
        self.dr6 = 0xFFFF_0FF0;
        self.dr7 = 0x400;
    }

    /// The registers that decide how addresses are translated: a change of
    /// them by other hands than the guest's asks for a flush (APM 15.16).
    #[must_use]
    pub fn translation(&self) -> [u64; 5] {
        [self.cr0, self.cr3, self.cr4, self.efer, self.g_pat]
    }

    /// Sets the registers. EFER.SVME is forced, and EFER.LMA follows from LME
    /// and CR0.PG, as in a processor.
    pub fn set_system(&mut self, system: &SystemRegisters) {
        self.cr0 = system.cr0;
        self.cr2 = system.cr2;
        self.cr3 = system.cr3;
        self.cr4 = system.cr4;
        self.efer = efer_for(system.efer, system.cr0);
        self.g_pat = system.pat;
        self.cs = system.cs;
        self.ds = system.ds;
        self.es = system.es;
        self.fs = system.fs;
        self.gs = system.gs;
        self.ss = system.ss;
        self.ldtr = system.ldtr;
        self.tr = system.tr;
        self.gdtr = system.gdtr;
        self.idtr = system.idtr;
        self.cpl = system.cpl;
    }
}

/// EFER for the VMCB of a guest that sees `efer`.
fn efer_for(efer: u64, cr0: u64) -> u64 {
    let long = efer & EFER_LME != 0 && cr0 & CR0_PG != 0;
    efer & !EFER_LMA | if long { EFER_LMA } else { 0 } | EFER_SVME
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmcb::Vmcb;

    #[test]
    fn every_register_round_trips() {
        let segment = |n: u16| Segment {
            selector: n,
            attributes: n + 1,
            limit: u32::from(n) + 2,
            base: u64::from(n) + 3,
        };
        let system = SystemRegisters {
            cr0: 0x8000_0011,
            cr2: 2,
            cr3: 3,
            cr4: 0x20,
            efer: 0xD01,
            pat: PAT_RESET,
            cs: segment(10),
            ds: segment(20),
            es: segment(30),
            fs: segment(40),
            gs: segment(50),
            ss: segment(60),
            ldtr: segment(70),
            tr: segment(80),
            gdtr: segment(90),
            idtr: segment(100),
            cpl: 3,
        };
        let mut vmcb = Vmcb::zeroed();
        vmcb.save.set_system(&system);
        assert_eq!(vmcb.save.efer, 0x1D01);
        assert_eq!(vmcb.save.system(), system);
    }

    #[test]
    fn long_mode_is_active_only_with_paging() {
        assert_eq!(efer_for(0x100, CR0_PG), 0x1500);
        assert_eq!(efer_for(0x500, 0), 0x1100);
        assert_eq!(efer_for(0x400, CR0_PG), 0x1000);
    }
}
