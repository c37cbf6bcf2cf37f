//! The virtual machine control structure: its fields, and what stays the same
//! in them for the life of a virtual processor.

use crate::control::Controls;
use crate::registers;
use crate::state;
use addr::Frame;

/// A field by its encoding (SDM appendix B). Bits 13 and 14 are the width (16,
/// 64, 32 bits, natural), bits 10 and 11 the kind (control, exit information,
/// guest, host).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct Field(pub u32);

/// Names fields.
macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl Field {
            $($(#[$doc])* pub const $name: Field = Field($code);)*
        }
    };
}

fields! {
    /// Virtual-processor identifier.
    VPID = 0x0000;
    /// First of ES, CS, SS, DS, FS, GS, LDTR, TR, two apart: selector.
    GUEST_SELECTOR = 0x0800;
    /// Host ES selector.
    HOST_ES = 0x0C00;
    /// Host CS selector.
    HOST_CS = 0x0C02;
    /// Host SS selector.
    HOST_SS = 0x0C04;
    /// Host DS selector.
    HOST_DS = 0x0C06;
    /// Host FS selector.
    HOST_FS = 0x0C08;
    /// Host GS selector.
    HOST_GS = 0x0C0A;
    /// Host TR selector.
    HOST_TR = 0x0C0C;
    /// Physical address of the MSR bitmap.
    MSR_BITMAP = 0x2004;
    /// Added to the TSC that the guest reads.
    TSC_OFFSET = 0x2010;
    /// Physical address of the virtual-APIC page.
    VIRTUAL_APIC = 0x2012;
    /// EPT pointer.
    EPT_POINTER = 0x201A;
    /// Guest-physical address of an EPT violation or misconfiguration.
    GUEST_PHYSICAL = 0x2400;
    /// VMCS link pointer.
    LINK = 0x2800;
    /// Guest IA32_DEBUGCTL.
    GUEST_DEBUGCTL = 0x2802;
    /// Guest IA32_PAT.
    GUEST_PAT = 0x2804;
    /// Guest IA32_EFER.
    GUEST_EFER = 0x2806;
    /// Host IA32_PAT.
    HOST_PAT = 0x2C00;
    /// Host IA32_EFER.
    HOST_EFER = 0x2C02;
    /// Pin-based controls.
    PIN = 0x4000;
    /// Primary processor-based controls.
    PRIMARY = 0x4002;
    /// Exceptions that exit, by vector.
    EXCEPTIONS = 0x4004;
    /// CR3-target count.
    CR3_TARGETS = 0x400A;
    /// VM-exit controls.
    EXIT = 0x400C;
    /// MSRs stored on exits.
    EXIT_STORES = 0x400E;
    /// MSRs loaded on exits.
    EXIT_LOADS = 0x4010;
    /// VM-entry controls.
    ENTRY = 0x4012;
    /// MSRs loaded on entries.
    ENTRY_LOADS = 0x4014;
    /// Event to inject.
    ENTRY_EVENT = 0x4016;
    /// Its error code.
    ENTRY_ERROR = 0x4018;
    /// TPR threshold.
    TPR_THRESHOLD = 0x401C;
    /// Secondary processor-based controls.
    SECONDARY = 0x401E;
    /// Error of the last VMX instruction that failed.
    INSTRUCTION_ERROR = 0x4400;
    /// Exit reason.
    REASON = 0x4402;
    /// Event that caused the exit.
    EXIT_EVENT = 0x4404;
    /// Its error code.
    EXIT_ERROR = 0x4406;
    /// Event whose delivery the exit cut short.
    CUT_SHORT = 0x4408;
    /// Its error code.
    CUT_SHORT_ERROR = 0x440A;
    /// Length of the instruction that caused the exit.
    INSTRUCTION_LENGTH = 0x440C;
    /// First of ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR, two apart: limit.
    GUEST_LIMIT = 0x4800;
    /// First of ES, CS, SS, DS, FS, GS, LDTR, TR, two apart: access rights.
    GUEST_RIGHTS = 0x4814;
    /// What keeps interrupts and NMIs from being taken.
    INTERRUPTIBILITY = 0x4824;
    /// Activity state.
    ACTIVITY = 0x4826;
    /// Guest IA32_SYSENTER_CS.
    GUEST_SYSENTER_CS = 0x482A;
    /// Host IA32_SYSENTER_CS.
    HOST_SYSENTER_CS = 0x4C00;
    /// Bits of CR0 that the host owns.
    CR0_MASK = 0x6000;
    /// Bits of CR4 that the host owns.
    CR4_MASK = 0x6002;
    /// What the guest reads of the host's bits of CR0.
    CR0_SHADOW = 0x6004;
    /// What the guest reads of the host's bits of CR4.
    CR4_SHADOW = 0x6006;
    /// Exit qualification.
    QUALIFICATION = 0x6400;
    /// Guest CR0.
    GUEST_CR0 = 0x6800;
    /// Guest CR3.
    GUEST_CR3 = 0x6802;
    /// Guest CR4.
    GUEST_CR4 = 0x6804;
    /// First of ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR, two apart: base.
    GUEST_BASE = 0x6806;
    /// Guest DR7.
    GUEST_DR7 = 0x681A;
    /// Guest RSP.
    GUEST_RSP = 0x681C;
    /// Guest RIP.
    GUEST_RIP = 0x681E;
    /// Guest RFLAGS.
    GUEST_RFLAGS = 0x6820;
    /// Guest pending debug exceptions.
    GUEST_PENDING_DEBUG = 0x6822;
    /// Guest IA32_SYSENTER_ESP.
    GUEST_SYSENTER_ESP = 0x6824;
    /// Guest IA32_SYSENTER_EIP.
    GUEST_SYSENTER_EIP = 0x6826;
    /// Host CR0.
    HOST_CR0 = 0x6C00;
    /// Host CR3.
    HOST_CR3 = 0x6C02;
    /// Host CR4.
    HOST_CR4 = 0x6C04;
    /// Host FS base.
    HOST_FS_BASE = 0x6C06;
    /// Host GS base.
    HOST_GS_BASE = 0x6C08;
    /// Host TR base.
    HOST_TR_BASE = 0x6C0A;
    /// Host GDTR base.
    HOST_GDTR_BASE = 0x6C0C;
    /// Host IDTR base.
    HOST_IDTR_BASE = 0x6C0E;
    /// Host IA32_SYSENTER_ESP.
    HOST_SYSENTER_ESP = 0x6C10;
    /// Host IA32_SYSENTER_EIP.
    HOST_SYSENTER_EIP = 0x6C12;
    /// Host RSP.
    HOST_RSP = 0x6C14;
    /// Host RIP.
    HOST_RIP = 0x6C16;
}

impl Field {
    /// The field of the same group that is `n` further on.
    #[must_use]
    pub const fn nth(self, n: u32) -> Field {
        Field(self.0 + 2 * n)
    }
}

/// A control structure's fields.
pub trait Vmcs {
    /// Reads a field.
    fn read(&self, field: Field) -> u64;
    /// Writes a field.
    fn write(&mut self, field: Field, value: u64);
}

/// The one virtual-processor identifier in use: a physical processor runs one
/// virtual one. 0 is the host's.
pub const VPID: u64 = 1;

/// Exceptions that never reach the guest by themselves: #MC is the host's,
/// #DB and #AC could keep a processor busy for ever in their own delivery
/// with no interrupt recognised, so they are stopped and injected again.
const EXCEPTIONS: u64 = 1 << 1 | 1 << 17 | 1 << 18;

/// The physical addresses that a control structure refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Roots {
    /// Nested page tables.
    pub nested: Frame,
    /// MSR bitmap.
    pub msr_bitmap: Frame,
    /// Virtual-APIC page, of which only the task priority is used.
    pub virtual_apic: Frame,
}

/// The EPT pointer (SDM 25.6.11): write-back tables, walks of four levels, no
/// accessed and dirty flags. With those flags every walk of the guest's page
/// tables would count as a write of them.
#[must_use]
pub const fn ept_pointer(root: Frame) -> u64 {
    const WRITE_BACK: u64 = 6;
    const FOUR_LEVELS: u64 = 3 << 3;
    root.start().0 | FOUR_LEVELS | WRITE_BACK
}

/// Sets what stays the same for the life of a virtual processor, and the
/// state of registers that [`vcpu::SystemRegisters`] does not have.
pub fn prepare(vmcs: &mut impl Vmcs, controls: &Controls, roots: Roots) {
    let values = [
        (Field::PIN, u64::from(controls.pin)),
        (Field::PRIMARY, u64::from(controls.primary)),
        (Field::SECONDARY, u64::from(controls.secondary)),
        (Field::EXIT, u64::from(controls.exit)),
        (Field::ENTRY, u64::from(controls.entry)),
        (Field::EXCEPTIONS, EXCEPTIONS),
        (Field::CR3_TARGETS, 0),
        (Field::EXIT_STORES, 0),
        (Field::EXIT_LOADS, 0),
        (Field::ENTRY_LOADS, 0),
        (Field::ENTRY_EVENT, 0),
        (Field::TPR_THRESHOLD, 0),
        (Field::MSR_BITMAP, roots.msr_bitmap.start().0),
        (Field::VIRTUAL_APIC, roots.virtual_apic.start().0),
        (Field::EPT_POINTER, ept_pointer(roots.nested)),
        (Field::TSC_OFFSET, 0),
        (Field::CR0_MASK, registers::CR0_OWNED),
        (Field::CR4_MASK, registers::CR4_OWNED),
        // No VMCS shadowing (SDM 25.4.2).
        (Field::LINK, u64::MAX),
        (Field::GUEST_SYSENTER_CS, 0),
        (Field::GUEST_SYSENTER_ESP, 0),
        (Field::GUEST_SYSENTER_EIP, 0),
        (Field::GUEST_PAT, state::PAT_RESET),
        (Field::GUEST_RFLAGS, state::RFLAGS_FIXED),
    ];
    for (field, value) in values {
        vmcs.write(field, value);
    }
    // A processor without the control does not have the field.
    if controls.has_vpid() {
        vmcs.write(Field::VPID, VPID);
    }
    state::reset_events(vmcs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::secondary;
    use crate::fake::{ALLOWED, Fake};

    #[test]
    fn neighbours_are_two_apart() {
        // SDM appendix B: TR's selector, IDTR's limit and base, TR's rights.
        assert_eq!(Field::GUEST_SELECTOR.nth(7), Field(0x080E));
        assert_eq!(Field::GUEST_LIMIT.nth(9), Field(0x4812));
        assert_eq!(Field::GUEST_BASE.nth(9), Field(0x6818));
        assert_eq!(Field::GUEST_RIGHTS.nth(7), Field(0x4822));
    }

    #[test]
    fn a_field_that_may_lack_is_written_only_where_it_is() {
        let roots = Roots { nested: Frame(1), msr_bitmap: Frame(2), virtual_apic: Frame(3) };
        let full = Controls::choose(&ALLOWED).unwrap();
        let plain = Controls { secondary: full.secondary & !secondary::VPID, ..full };
        for (controls, vpid) in [(full, Some(VPID)), (plain, None)] {
            let mut fake = Fake::default();
            prepare(&mut fake, &controls, roots);
            assert_eq!(fake.written(Field::VPID), vpid);
            assert_eq!(fake.written(Field::EPT_POINTER), Some(0x101E));
        }
    }

    #[test]
    fn an_ept_pointer_has_no_accessed_flags() {
        assert_eq!(ept_pointer(Frame(0x1234)), 0x0123_401E);
    }
}
