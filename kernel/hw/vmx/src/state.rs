//! Guest state (SDM 25.4): segments, system registers, what blocks events.

use crate::control::entry;
use crate::registers::{CR0_OWNED, CR0_PG, CR4_OWNED, Real, real_cr0, real_cr4, seen};
use crate::vmcs::{Field, Vmcs};
use vcpu::{Segment, SystemRegisters};

const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// IA32_PAT as a processor comes out of reset (SDM 12.12.4).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// RFLAGS bit 1, which always reads as one.
pub const RFLAGS_FIXED: u64 = 1 << 1;
/// RFLAGS.TF: single step.
pub const RFLAGS_TF: u64 = 1 << 8;
/// DR6 and DR7 after reset and INIT (SDM 10.1.1).
pub const DR6_RESET: u64 = 0xFFFF_0FF0;
/// DR7 after reset.
pub const DR7_RESET: u64 = 0x400;
/// DR7.GD: general detect.
pub const DR7_GD: u64 = 1 << 13;
/// Pending debug exceptions, BS: a single step is owed.
pub const PENDING_STEP: u64 = 1 << 14;

/// Interruptibility state (SDM table 25-3).
pub mod blocking {
    /// In the shadow of STI.
    pub const STI: u64 = 1 << 0;
    /// In the shadow of MOV SS or POP SS.
    pub const MOV_SS: u64 = 1 << 1;
    /// An NMI is in service.
    pub const NMI: u64 = 1 << 3;
    /// In one of the shadows.
    pub const SHADOW: u64 = STI | MOV_SS;
}

/// Position of a register in the groups of fields.
#[derive(Clone, Copy)]
enum Place {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Ldtr = 6,
    Tr = 7,
    Gdtr = 8,
    Idtr = 9,
}

/// Access rights: the segment is unusable (SDM table 25-2).
const UNUSABLE: u64 = 1 << 16;
/// The descriptor's present bit, in both forms.
const PRESENT: u64 = 1 << 7;
/// The descriptor's privilege level, in both forms.
const DPL: u64 = 3 << 5;

/// Access rights for a segment's attributes. A VMCB keeps the descriptor's
/// upper four flags right after the lower eight, a VMCS four bits further up.
#[must_use]
pub const fn rights(attributes: u16) -> u64 {
    let a = attributes as u64;
    let usable = if a & PRESENT == 0 { UNUSABLE } else { 0 };
    a & 0xFF | (a & 0xF00) << 4 | usable
}

/// The reverse of [`rights`]. Of an unusable segment only the privilege level
/// is a value: that of SS is the processor's (SDM 28.3.2).
#[must_use]
pub const fn attributes(rights: u64) -> u16 {
    if rights & UNUSABLE != 0 {
        return (rights & DPL) as u16;
    }
    (rights & 0xFF | rights >> 4 & 0xF00) as u16
}

fn read_segment(vmcs: &impl Vmcs, place: Place) -> Segment {
    let n = place as u32;
    Segment {
        selector: vmcs.read(Field::GUEST_SELECTOR.nth(n)) as u16,
        attributes: attributes(vmcs.read(Field::GUEST_RIGHTS.nth(n))),
        limit: vmcs.read(Field::GUEST_LIMIT.nth(n)) as u32,
        base: vmcs.read(Field::GUEST_BASE.nth(n)),
    }
}

fn write_segment(vmcs: &mut impl Vmcs, place: Place, segment: &Segment) {
    let n = place as u32;
    vmcs.write(Field::GUEST_SELECTOR.nth(n), u64::from(segment.selector));
    vmcs.write(Field::GUEST_RIGHTS.nth(n), rights(segment.attributes));
    vmcs.write(Field::GUEST_LIMIT.nth(n), u64::from(segment.limit));
    vmcs.write(Field::GUEST_BASE.nth(n), segment.base);
}

fn read_table(vmcs: &impl Vmcs, place: Place) -> Segment {
    let n = place as u32;
    Segment {
        limit: vmcs.read(Field::GUEST_LIMIT.nth(n)) as u32,
        base: vmcs.read(Field::GUEST_BASE.nth(n)),
        ..Segment::default()
    }
}

/// Limits of GDT and IDT have 16 bits (SDM 27.3.1.3).
fn write_table(vmcs: &mut impl Vmcs, place: Place, table: &Segment) {
    let n = place as u32;
    vmcs.write(Field::GUEST_LIMIT.nth(n), u64::from(table.limit & 0xFFFF));
    vmcs.write(Field::GUEST_BASE.nth(n), table.base);
}

/// CR0 as the guest sees it.
#[must_use]
pub fn cr0(vmcs: &impl Vmcs) -> u64 {
    seen(vmcs.read(Field::GUEST_CR0), vmcs.read(Field::CR0_SHADOW), CR0_OWNED)
}

/// CR4 as the guest sees it.
#[must_use]
pub fn cr4(vmcs: &impl Vmcs) -> u64 {
    seen(vmcs.read(Field::GUEST_CR4), vmcs.read(Field::CR4_SHADOW), CR4_OWNED)
}

/// The current privilege level.
fn cpl(vmcs: &impl Vmcs) -> u8 {
    (vmcs.read(Field::GUEST_RIGHTS.nth(Place::Ss as u32)) >> 5) as u8 & 3
}

/// Whether the guest executes 64-bit code.
#[must_use]
pub fn is_64_bit(vmcs: &impl Vmcs) -> bool {
    let code = attributes(vmcs.read(Field::GUEST_RIGHTS.nth(Place::Cs as u32)));
    vmcs.read(Field::GUEST_EFER) & EFER_LMA != 0 && code & Segment::LONG != 0
}

/// The registers as the guest sees them, but for CR2, which no field has.
#[must_use]
pub fn system(vmcs: &impl Vmcs, cr2: u64) -> SystemRegisters {
    SystemRegisters {
        cr0: cr0(vmcs),
        cr2,
        cr3: vmcs.read(Field::GUEST_CR3),
        cr4: cr4(vmcs),
        efer: vmcs.read(Field::GUEST_EFER),
        pat: vmcs.read(Field::GUEST_PAT),
        cs: read_segment(vmcs, Place::Cs),
        ds: read_segment(vmcs, Place::Ds),
        es: read_segment(vmcs, Place::Es),
        fs: read_segment(vmcs, Place::Fs),
        gs: read_segment(vmcs, Place::Gs),
        ss: read_segment(vmcs, Place::Ss),
        ldtr: read_segment(vmcs, Place::Ldtr),
        tr: read_segment(vmcs, Place::Tr),
        gdtr: read_table(vmcs, Place::Gdtr),
        idtr: read_table(vmcs, Place::Idtr),
        cpl: cpl(vmcs),
    }
}

/// The registers that decide how addresses are translated: a change of them
/// by other hands than the guest's asks for a flush (SDM 29.4.3).
#[must_use]
pub fn translation(vmcs: &impl Vmcs) -> [u64; 5] {
    [Field::GUEST_CR0, Field::GUEST_CR3, Field::GUEST_CR4, Field::GUEST_EFER, Field::GUEST_PAT]
        .map(|field| vmcs.read(field))
}

/// EFER for the VMCS of a guest that sees `efer`: LMA follows from LME and
/// CR0.PG, as in a processor.
fn efer_for(efer: u64, cr0: u64) -> u64 {
    let long = efer & EFER_LME != 0 && cr0 & CR0_PG != 0;
    efer & !EFER_LMA | if long { EFER_LMA } else { 0 }
}

/// Sets the registers, but for CR2. PDPTEs are left as the last exit stored
/// them: nobody above brings a guest into PAE paging by other means than the
/// guest's own instructions.
pub fn set_system(vmcs: &mut impl Vmcs, system: &SystemRegisters) {
    let (Real(real0), Real(real4)) = (real_cr0(system.cr0), real_cr4(system.cr4));
    let efer = efer_for(system.efer, system.cr0);
    let long = if efer & EFER_LMA != 0 { u64::from(entry::LONG_MODE) } else { 0 };
    let controls = vmcs.read(Field::ENTRY) & !u64::from(entry::LONG_MODE) | long;
    let values = [
        (Field::ENTRY, controls),
        (Field::GUEST_CR0, real0),
        (Field::CR0_SHADOW, system.cr0),
        (Field::GUEST_CR3, system.cr3),
        (Field::GUEST_CR4, real4),
        (Field::CR4_SHADOW, system.cr4),
        (Field::GUEST_EFER, efer),
        (Field::GUEST_PAT, system.pat),
    ];
    for (field, value) in values {
        vmcs.write(field, value);
    }
    let segments = [
        (Place::Cs, &system.cs),
        (Place::Ds, &system.ds),
        (Place::Es, &system.es),
        (Place::Fs, &system.fs),
        (Place::Gs, &system.gs),
        (Place::Ss, &system.ss),
        (Place::Ldtr, &system.ldtr),
        (Place::Tr, &system.tr),
    ];
    for (place, segment) in segments {
        write_segment(vmcs, place, segment);
    }
    write_table(vmcs, Place::Gdtr, &system.gdtr);
    write_table(vmcs, Place::Idtr, &system.idtr);
}

/// Sets what a reset and INIT leave of DR7 and of what blocks or owes events.
pub fn reset_events(vmcs: &mut impl Vmcs) {
    for (field, value) in [
        (Field::GUEST_DR7, DR7_RESET),
        (Field::GUEST_DEBUGCTL, 0),
        (Field::GUEST_PENDING_DEBUG, 0),
        (Field::INTERRUPTIBILITY, 0),
        (Field::ACTIVITY, 0),
    ] {
        vmcs.write(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    #[test]
    fn every_register_round_trips() {
        let segment = |n: u16, attributes| Segment {
            selector: n,
            attributes,
            limit: u32::from(n) + 2,
            base: u64::from(n) + 3,
        };
        let table = |n: u16| Segment { selector: 0, ..segment(n, 0) };
        let system = SystemRegisters {
            cr0: 0x8000_0011,
            cr2: 2,
            cr3: 3,
            cr4: 0x20,
            efer: 0xD01,
            pat: PAT_RESET,
            cs: segment(10, 0xAFB),
            ds: segment(20, 0xCF3),
            es: segment(30, 0x0F3),
            fs: segment(40, 0),
            gs: segment(50, 0xC93),
            ss: segment(60, 0x8F3),
            ldtr: segment(70, 0x82),
            tr: segment(80, 0x8B),
            gdtr: table(90),
            idtr: table(100),
            cpl: 3,
        };
        let mut vmcs = Fake::default();
        vmcs.write(Field::ENTRY, 0xD1FF);
        set_system(&mut vmcs, &system);
        assert_eq!(super::system(&vmcs, 2), system);
        assert_eq!(vmcs.read(Field::GUEST_RIGHTS.nth(1)), 0xA0FB);
        assert_eq!(vmcs.read(Field::GUEST_RIGHTS.nth(4)), UNUSABLE);
        assert_eq!(vmcs.read(Field::ENTRY), 0xD3FF, "IA-32e mode guest");
        assert!(is_64_bit(&vmcs));
        set_system(&mut vmcs, &SystemRegisters { cr0: 0x11, ..system });
        assert_eq!(vmcs.read(Field::ENTRY), 0xD1FF);
        assert_eq!(vmcs.read(Field::GUEST_EFER), 0x901);
        assert!(!is_64_bit(&vmcs));
    }

    #[test]
    fn an_unusable_stack_keeps_its_privilege_level() {
        assert_eq!(attributes(UNUSABLE | 0xC0F3), 0x60);
        assert_eq!(rights(0x60), UNUSABLE | 0x60);
        let mut vmcs = Fake::default();
        vmcs.write(Field::GUEST_RIGHTS.nth(2), rights(0x60));
        assert_eq!(cpl(&vmcs), 3);
    }

    #[test]
    fn long_mode_is_active_only_with_paging() {
        assert_eq!(efer_for(0x100, CR0_PG), 0x500);
        assert_eq!(efer_for(0x500, 0), 0x100);
        assert_eq!(efer_for(0x400, CR0_PG), 0);
    }
}
