//! A processor for tests: capability MSRs, and fields kept in a map.

use crate::control::Allowed;
use crate::msr;
use crate::run::Hardware;
use crate::vmcs::{Field, Vmcs};
use std::boxed::Box;
use std::collections::BTreeMap;
use std::vec::Vec;
use vcpu::Registers;

/// A capability: these bits must be 1, every bit may be.
const fn all(must: u64) -> u64 {
    0xFFFF_FFFF << 32 | must
}

/// What a processor allows that has everything, by its TRUE capabilities.
pub(crate) const ALLOWED: Allowed = Allowed {
    pin: all(0x16),
    primary: all(0x0400_6172),
    secondary: all(0),
    exit: all(0x0003_6DFB),
    entry: all(0x0000_11FB),
};

/// CPUID of a processor with VMX and XSAVE.
pub(crate) fn cpuid(leaf: u32, _: u32) -> [u32; 4] {
    match leaf {
        1 => [0, 0, 1 << 26 | 1 << 5, 0],
        0xD => [7, 0, 0, 0],
        _ => [0; 4],
    }
}

/// Its capability MSRs.
pub(crate) fn capabilities(number: u32) -> u64 {
    let [pin, primary, exit, entry] = msr::VMX_TRUE_CONTROLS;
    match number {
        msr::VMX_BASIC => 1 << 55 | 6 << 50 | 0x1000 << 32 | 0x2B,
        n if n == pin => ALLOWED.pin,
        n if n == primary => ALLOWED.primary,
        n if n == exit => ALLOWED.exit,
        n if n == entry => ALLOWED.entry,
        0x481 => ALLOWED.pin,
        // Of the default1 class, with CR3-load and CR3-store exiting.
        0x482 => ALLOWED.primary | 3 << 15,
        0x483 => ALLOWED.exit | 4,
        0x484 => ALLOWED.entry | 4,
        msr::VMX_SECONDARY => ALLOWED.secondary,
        msr::VMX_EPT_VPID => 0x0611_4140,
        msr::VMX_CR0_FIXED0 => 0x8000_0021,
        msr::VMX_CR4_FIXED0 => 0x2000,
        msr::VMX_CR0_FIXED1 | msr::VMX_CR4_FIXED1 => 0xFFFF_FFFF,
        other => panic!("{other:x} is no capability"),
    }
}

/// What the processor does in a run.
pub(crate) type Run = Box<dyn FnOnce(&mut Fake, &mut Registers)>;

/// Fields and registers; a run does what the test says.
#[derive(Default)]
pub(crate) struct Fake {
    fields: BTreeMap<Field, u64>,
    pub(crate) runs: Vec<Run>,
    pub(crate) refuses: bool,
    pub(crate) launched: Vec<bool>,
    pub(crate) invalidated: usize,
    pub(crate) cr2: u64,
    pub(crate) dr6: u64,
    pub(crate) xcr0: u64,
    pub(crate) tpr: u8,
    pub(crate) nmis: usize,
    pub(crate) machine_checks: usize,
}

impl Fake {
    /// What a field was set to, if ever.
    pub(crate) fn written(&self, field: Field) -> Option<u64> {
        self.fields.get(&field).copied()
    }
}

impl Vmcs for Fake {
    fn read(&self, field: Field) -> u64 {
        self.fields.get(&field).copied().unwrap_or(0)
    }
    fn write(&mut self, field: Field, value: u64) {
        self.fields.insert(field, value);
    }
}

impl Hardware for Fake {
    fn enter(&mut self, registers: &mut Registers, launched: bool) -> bool {
        self.launched.push(launched);
        if self.refuses {
            return false;
        }
        self.write(Field::CUT_SHORT, 0);
        let run = self.runs.pop().expect("a run was not expected");
        run(self, registers);
        // An exit takes the event that was injected out (SDM 28.2.4).
        self.write(Field::ENTRY_EVENT, self.read(Field::ENTRY_EVENT) & !(1 << 31));
        true
    }
    fn invalidate(&mut self, _: u64, _: bool) {
        self.invalidated += 1;
    }
    fn task_priority(&self) -> u8 {
        self.tpr
    }
    fn set_task_priority(&mut self, priority: u8) {
        self.tpr = priority;
    }
    fn cr2(&self) -> u64 {
        self.cr2
    }
    fn set_cr2(&mut self, value: u64) {
        self.cr2 = value;
    }
    fn dr6(&self) -> u64 {
        self.dr6
    }
    fn set_dr6(&mut self, value: u64) {
        self.dr6 = value;
    }
    fn clear_breakpoints(&mut self) {}
    fn xcr0(&self) -> u64 {
        self.xcr0
    }
    fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        cpuid(leaf, subleaf)
    }
    fn host_machine_check(&mut self) {
        self.machine_checks += 1;
    }
    fn host_nmi(&mut self) {
        self.nmis += 1;
    }
}
