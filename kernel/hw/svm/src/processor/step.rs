//! Single steps of the backend's own, to get behind what holds back an NMI (the
//! IRET of the last one) or any event (the shadow of STI or MOV SS): no
//! intercept tells of either's end.
//!
//! A guest must not see the trap flag of such a step. So what would take it to
//! the guest's stack exits meanwhile: faults, and in a shadow also instructions
//! that have the flags there. These end the shadow one instruction early.

use super::SvmVcpu;
use crate::control::{Clean, Control, Intercept3};
use crate::exits::code;
use crate::inject::NmiState;
use crate::state::{DR6_BREAKPOINTS, DR6_BS};
use crate::vmcb::{EXCEPTIONS, FAULTS};
use vcpu::{RFLAGS_IF, RFLAGS_TF};

/// Instructions besides IRET that have the flags on the stack.
pub(super) const FLAGS: Intercept3 =
    Intercept3::PUSHF.union(Intercept3::POPF).union(Intercept3::SWINT);

/// What a step leads over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    /// The IRET of an NMI's handler. It loads the flags.
    Iret,
    /// The instruction in a shadow. It leaves the trap flag as it is.
    Shadow,
}

/// A step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Step {
    /// What it leads over.
    pub(super) over: Over,
    /// DR6 before it, which the trap changes.
    dr6: u64,
}

impl SvmVcpu {
    pub(super) fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_state & Control::INTERRUPT_SHADOW != 0
    }

    pub(super) fn end_shadow(&mut self) {
        self.control(Clean::empty()).interrupt_state &= !Control::INTERRUPT_SHADOW;
    }

    /// Whether the shadow that a run begins in is all that holds an interrupt
    /// that waits.
    pub(super) fn shadow_holds_window(&self) -> bool {
        let open = self.registers.rflags & RFLAGS_IF != 0;
        self.shadowed && self.window && open && !self.pending.is_some()
    }

    /// Begins, goes on with or gives up a step for an NMI or an interrupt that
    /// waits. A guest that steps itself exits behind the instruction anyway,
    /// and an event on its way would take a set TF to the guest's stack.
    ///
    /// A processor holds V_IRQ in a shadow by itself. QEMU 7.2 forgets the
    /// shadow at VMRUN: the window would open between STI and HLT, and the
    /// guest then halt with nothing left to wake it.
    pub(super) fn plan_step(&mut self) {
        self.shadowed = self.in_shadow();
        let over = match self.nmi {
            NmiState::Returning(at) if self.nmi_wanted && at == self.registers.rip => {
                Some(Over::Iret)
            }
            NmiState::Open if self.nmi_wanted && self.shadowed => Some(Over::Shadow),
            _ if self.shadow_holds_window() => Some(Over::Shadow),
            _ => None,
        };
        let steps_itself = self.registers.rflags & RFLAGS_TF != 0;
        let over = over.filter(|_| !steps_itself && !self.pending.is_some());
        self.step = over.map(|over| Step { over, dr6: self.vmcb().save.dr6 });
        let exceptions = if self.step.is_some() { EXCEPTIONS | FAULTS } else { EXCEPTIONS };
        if self.vmcb().control.intercept_exceptions != exceptions {
            self.control(Clean::INTERCEPTS).intercept_exceptions = exceptions;
        }
    }

    /// Keeps a shadow over an exit that came before its instruction was done:
    /// what QEMU 7.2 forgot at VMRUN it cannot tell at the exit.
    pub(super) fn keep_shadow(&mut self, code: u64, rip: u64) {
        let before = matches!(code, code::INTR..=code::INIT | code::NPF);
        if self.shadowed && before && rip == self.registers.rip {
            self.control(Clean::empty()).interrupt_state |= Control::INTERRUPT_SHADOW;
        }
    }

    /// The guest's own flags, of those that a run has ended with. TF is the
    /// step's where the instruction is not done or has left it.
    pub(super) fn without_step(&self, rip: u64, rflags: u64) -> u64 {
        let ours = self.step.is_some_and(|step| match step.over {
            Over::Iret => rip == self.registers.rip,
            Over::Shadow => true,
        });
        if ours { rflags & !RFLAGS_TF } else { rflags }
    }

    /// Whether a #DB is the end of the backend's own step and nothing else,
    /// which the guest must not see.
    pub(super) fn ends_step(&mut self) -> bool {
        let Some(step) = self.step else { return false };
        let seen = self.vmcb().save.dr6;
        self.vmcb_mut().save.dr6 = seen & !DR6_BS | step.dr6 & DR6_BS;
        self.clean.remove(Clean::DEBUG_REGISTERS);
        // Breakpoints that were met on the way are the guest's.
        seen & !step.dr6 & DR6_BREAKPOINTS == 0
    }
}
