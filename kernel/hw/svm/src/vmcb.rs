//! The virtual machine control block: control area and state-save area.

use crate::control::VirtualInterrupt;
use crate::control::{Clean, Control, Intercept3, Intercept4, Intercept5, TlbControl};
use crate::state::{EFER_SVME, PAT_RESET, RFLAGS_FIXED, SaveArea};
use addr::{Frame, PAGE_SIZE};

/// A VMCB: one page that VMRUN takes by its physical address (APM appendix B).
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What to intercept, what to inject, why the guest stopped.
    pub control: Control,
    /// The guest's state.
    pub save: SaveArea,
}

const _: () = {
    assert!(core::mem::size_of::<Vmcb>() == PAGE_SIZE);
    assert!(core::mem::offset_of!(Vmcb, save) == 0x400);
};

/// The one address space identifier in use: a physical processor runs one
/// virtual one. 0 is the host's.
pub const ASID: u32 = 1;

/// Exceptions that never reach the guest by themselves: #MC is the host's,
/// #DB and #AC could keep a processor busy for ever in their own delivery
/// with no interrupt recognised, so they are stopped and injected again.
pub const EXCEPTIONS: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// The other faults that an instruction may raise; #BP and #OF are traps.
pub const FAULTS: u32 = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7 | 0x1F << 10 | 1 << 16 | 1 << 19;

/// The physical addresses that a control block refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Nested page tables.
    pub nested: Frame,
    /// MSR permission map.
    pub msrpm: Frame,
    /// I/O permission map.
    pub iopm: Frame,
}

impl Vmcb {
    /// A control block of zeroes, which VMRUN would refuse.
    #[must_use]
    pub const fn zeroed() -> Vmcb {
        // SAFETY: every field is an integer, an array of integers or a
        // transparent wrapper of one, for which all-zero bytes are a value.
        unsafe { core::mem::zeroed() }
    }

    /// Sets what stays the same for the life of a virtual processor, and the
    /// state of registers that [`vcpu::SystemRegisters`] does not have.
    pub fn prepare(&mut self, roots: Roots) {
        let c = &mut self.control;
        c.intercept_exceptions = EXCEPTIONS;
        c.intercept3 = Intercept3::INTR
            | Intercept3::NMI
            | Intercept3::SMI
            | Intercept3::INIT
            | Intercept3::RDPMC
            | Intercept3::CPUID
            | Intercept3::RSM
            | Intercept3::INVD
            | Intercept3::HLT
            | Intercept3::INVLPGA
            | Intercept3::IOIO_PROT
            | Intercept3::MSR_PROT
            | Intercept3::FERR_FREEZE
            | Intercept3::SHUTDOWN;
        c.intercept4 = Intercept4::all();
        c.intercept5 = Intercept5::all();
        c.iopm_base = roots.iopm.start().0;
        c.msrpm_base = roots.msrpm.start().0;
        c.asid = ASID;
        c.tlb_control = TlbControl::NOTHING;
        c.virtual_interrupt = VirtualInterrupt::MASKING;
        c.nested_control = Control::NESTED_PAGING;
        c.nested_cr3 = roots.nested.start().0;
        c.clean = Clean::empty();
        let s = &mut self.save;
        s.efer = EFER_SVME;
        s.g_pat = PAT_RESET;
        s.rflags = RFLAGS_FIXED;
        s.reset_debug();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prepared_block_is_one_that_vmrun_accepts() {
        let mut vmcb = Vmcb::zeroed();
        let roots = Roots { nested: Frame(0x10), msrpm: Frame(0x20), iopm: Frame(0x30) };
        vmcb.prepare(roots);
        // The conditions of APM 15.5.1 on the control area.
        assert!(vmcb.control.intercept4.contains(Intercept4::VMRUN));
        assert_ne!(vmcb.control.asid, 0);
        assert_ne!(vmcb.save.efer & EFER_SVME, 0);
        assert_eq!(vmcb.save.dr6 >> 32, 0);
        assert_eq!(vmcb.save.dr7 >> 32, 0);
        assert_eq!(vmcb.control.nested_cr3, 0x1_0000);
        assert_eq!(vmcb.control.msrpm_base, 0x2_0000);
        assert_eq!(vmcb.control.iopm_base, 0x3_0000);
        assert_eq!(vmcb.control.intercept_exceptions, 0x6_0002);
        assert_eq!(vmcb.control.intercept4.bits(), 0x6E7F);
        assert_eq!(vmcb.control.intercept3.bits(), 0xDD4C_800F);
    }
}
