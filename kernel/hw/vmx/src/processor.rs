//! The virtual processor.

use crate::control::primary;
use crate::detect::Features;
use crate::exits::{
    EVENT_NMI_UNBLOCKED, Meaning, RawExit, VM_FAIL, Violation, decode, is_instruction, reason,
};
use crate::inject::Injection;
use crate::registers::{CR0_PE, write_cr0, write_cr4};
use crate::run::{Hardware, Processor};
use crate::state::{self, DR6_RESET, DR7_GD, PENDING_STEP, RFLAGS_FIXED, RFLAGS_TF, blocking};
use crate::vmcs::Field;
use vcpu::{Event, Exit, RFLAGS_IF, RSP, Registers, SystemRegisters, Vcpu};

/// What the machine wants to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Window {
    /// Nothing.
    Closed,
    /// That an event can be taken.
    Any,
    /// That the task priority is below this class.
    Above(u8),
}

/// The virtual processor of one physical processor.
pub struct VmxVcpu<H = Processor> {
    features: Features,
    hardware: H,
    ept_pointer: u64,
    registers: Registers,
    launched: bool,
    flush_owed: bool,
    pending: Injection,
    window: Window,
    /// Primary controls as the VMCS has them.
    primary: u32,
    /// TPR threshold as the VMCS has it.
    threshold: u8,
    /// Interruptibility state as the VMCS has it.
    blocked: u64,
    /// Address of the instruction after the one that caused the last exit.
    next_rip: Option<u64>,
}

impl<H: Hardware> VmxVcpu<H> {
    /// Takes over a processor whose VMCS is prepared.
    pub(crate) fn new(features: Features, hardware: H, ept_pointer: u64) -> VmxVcpu<H> {
        let primary = features.controls.primary;
        let mut vcpu = VmxVcpu {
            features,
            hardware,
            ept_pointer,
            registers: Registers { rflags: RFLAGS_FIXED, ..Registers::default() },
            launched: false,
            flush_owed: true,
            pending: Injection::NONE,
            window: Window::Closed,
            primary,
            threshold: 0,
            blocked: 0,
            next_rip: None,
        };
        vcpu.hardware.set_dr6(DR6_RESET);
        vcpu.set_xcr0(1);
        vcpu
    }

    /// What the processor offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Writes into the VMCS what the run needs.
    fn commit(&mut self) {
        if core::mem::take(&mut self.flush_owed) {
            // Combined translations go with it, so that no INVVPID is owed
            // besides (SDM 29.4.3.1).
            self.hardware.invalidate(self.ept_pointer, self.features.invept_single);
        }
        let hardware = &mut self.hardware;
        hardware.write(Field::GUEST_RIP, self.registers.rip);
        hardware.write(Field::GUEST_RSP, self.registers.gpr[RSP]);
        hardware.write(Field::GUEST_RFLAGS, self.registers.rflags | RFLAGS_FIXED);
        let open = self.can_take_nmi();
        self.commit_event();
        self.commit_window(open);
    }

    /// Writes the event to inject. An exception ends a shadow, an NMI that
    /// was cut short is not in service yet: the processor refuses to inject
    /// into what blocks the event (SDM 27.3.1.5).
    fn commit_event(&mut self) {
        let mut event = self.pending;
        if !event.is_some() {
            return;
        }
        let unblocked =
            if event.is_nmi() { blocking::SHADOW | blocking::NMI } else { blocking::SHADOW };
        self.unblock(unblocked);
        if self.hardware.read(Field::GUEST_CR0) & CR0_PE == 0 {
            event = event.without_error();
        }
        self.hardware.write(Field::ENTRY_EVENT, event.info());
        self.hardware.write(Field::ENTRY_ERROR, event.error());
    }

    /// Writes what has to exit for the window. Whether an NMI or an interrupt
    /// waits is not told; an NMI can only wait while it cannot be taken, so
    /// only then is its window watched, or it would open at every entry.
    fn commit_window(&mut self, nmi_open: bool) {
        let tpr = self.hardware.task_priority();
        let (window, threshold) = match self.window {
            Window::Closed => (0, 0),
            Window::Any if nmi_open => (primary::INTERRUPT_WINDOW, 0),
            Window::Any => (primary::INTERRUPT_WINDOW | primary::NMI_WINDOW, 0),
            // A threshold above the priority would be refused (SDM 27.2.1.1).
            Window::Above(class) if class <= tpr => (0, class),
            Window::Above(_) => (primary::INTERRUPT_WINDOW, 0),
        };
        let controls = self.features.controls.primary | window;
        if controls != self.primary {
            self.primary = controls;
            self.hardware.write(Field::PRIMARY, u64::from(controls));
        }
        if threshold != self.threshold {
            self.threshold = threshold;
            self.hardware.write(Field::TPR_THRESHOLD, u64::from(threshold));
        }
    }

    /// Reads from the VMCS what the run left. A failed entry has left nothing
    /// of the guest's there, and injected nothing.
    fn collect(&mut self) -> RawExit {
        let hardware = &self.hardware;
        let reason = hardware.read(Field::REASON) as u32;
        self.next_rip = None;
        let mut raw = RawExit { reason, ..RawExit::default() };
        if reason & reason::ENTRY_FAILED != 0 {
            return raw;
        }
        self.launched = true;
        raw.qualification = hardware.read(Field::QUALIFICATION);
        self.registers.rip = hardware.read(Field::GUEST_RIP);
        self.registers.gpr[RSP] = hardware.read(Field::GUEST_RSP);
        self.registers.rflags = hardware.read(Field::GUEST_RFLAGS);
        self.blocked = hardware.read(Field::INTERRUPTIBILITY);
        let cut_short = hardware.read(Field::CUT_SHORT);
        self.pending = match reason {
            // What could not be delivered is why it shut down.
            reason::TRIPLE_FAULT => Injection::NONE,
            _ => Injection::again(cut_short, hardware.read(Field::CUT_SHORT_ERROR)),
        };
        let unblocked = match reason {
            reason::EXCEPTION => {
                raw.event = hardware.read(Field::EXIT_EVENT);
                raw.event & EVENT_NMI_UNBLOCKED != 0
            }
            reason::EPT_VIOLATION => {
                raw.gpa = hardware.read(Field::GUEST_PHYSICAL);
                raw.qualification & Violation::NMI_UNBLOCKED.bits() != 0
            }
            _ => false,
        };
        if is_instruction(reason) {
            raw.next_rip = self.after_instruction();
            self.next_rip = Some(raw.next_rip);
        }
        // The IRET that ended the blocking has not been completed and will be
        // executed again (SDM 28.2.3).
        if unblocked && !self.pending.is_some() {
            self.block(blocking::NMI);
        }
        raw
    }

    /// Address of the instruction after the one that caused the exit.
    fn after_instruction(&self) -> u64 {
        let rip = self.registers.rip;
        let next = rip.wrapping_add(self.hardware.read(Field::INSTRUCTION_LENGTH));
        // Below 4 GiB, 64-bit code may cross the line; other code wraps.
        if rip >> 32 == next >> 32 || state::is_64_bit(&self.hardware) {
            next
        } else {
            next & 0xFFFF_FFFF
        }
    }

    /// Does what an exit asks of the backend, and says what it asks of the machine.
    fn settle(&mut self, meaning: Meaning) -> Exit {
        match meaning {
            Meaning::Tell(exit) => {
                if exit == Exit::InterruptWindow {
                    self.window = Window::Closed;
                }
                return exit;
            }
            Meaning::Reflect { vector, error } => {
                self.inject(Event::Exception { vector, error });
            }
            Meaning::Debug { dr6 } => self.reflect_debug(dr6),
            Meaning::DebugTrap => {
                let next = self.after_instruction();
                self.advance(next);
                self.reflect_debug(0);
            }
            Meaning::MachineCheck => {
                self.hardware.host_machine_check();
                return Exit::HostInterrupt;
            }
            Meaning::Nmi => {
                self.hardware.host_nmi();
                return Exit::HostInterrupt;
            }
            Meaning::WriteCr0(from) => {
                let cr4 = state::cr4(&self.hardware);
                let value = self.operand(from);
                self.write_shadow(Field::CR0_SHADOW, write_cr0(value, cr4));
            }
            Meaning::WriteCr4(from) => {
                let value = self.operand(from);
                self.write_shadow(Field::CR4_SHADOW, write_cr4(value));
            }
        }
        Exit::Ignore
    }

    /// A general register as an operand of MOV to a control register: 64 bits
    /// in 64-bit mode, else 32.
    fn operand(&self, register: usize) -> u64 {
        let value = self.registers.gpr[register];
        if state::is_64_bit(&self.hardware) { value } else { value & 0xFFFF_FFFF }
    }

    /// Sets a read shadow, after which the MOV is executed again, or raises
    /// the #GP that it deserves.
    fn write_shadow(&mut self, shadow: Field, value: Option<u64>) {
        match value {
            Some(value) => self.hardware.write(shadow, value),
            None => self.inject(Event::GENERAL_PROTECTION),
        }
    }

    /// Gives the guest a #DB that was stopped on its way. The exit has not
    /// changed DR6, and an injected #DB clears no DR7.GD (SDM 28.1).
    fn reflect_debug(&mut self, cause: u64) {
        /// B0 to B3, BD and BS.
        const CAUSES: u64 = 0xF | 1 << 13 | 1 << 14;
        let dr6 = self.hardware.dr6();
        self.hardware.set_dr6(dr6 & !0xF | cause & CAUSES);
        let dr7 = self.hardware.read(Field::GUEST_DR7);
        self.hardware.write(Field::GUEST_DR7, dr7 & !DR7_GD);
        self.inject(Event::Exception { vector: 1, error: None });
    }

    fn block(&mut self, what: u64) {
        self.set_blocked(self.blocked | what);
    }

    fn unblock(&mut self, what: u64) {
        self.set_blocked(self.blocked & !what);
    }

    fn set_blocked(&mut self, blocked: u64) {
        if blocked != self.blocked {
            self.blocked = blocked;
            self.hardware.write(Field::INTERRUPTIBILITY, blocked);
        }
    }
}

impl<H: Hardware> Vcpu for VmxVcpu<H> {
    fn run(&mut self) -> Exit {
        self.commit();
        if !self.hardware.enter(&mut self.registers, self.launched) {
            self.next_rip = None;
            let error = self.hardware.read(Field::INSTRUCTION_ERROR);
            return Exit::Invalid { code: VM_FAIL | error };
        }
        let raw = self.collect();
        self.settle(decode(raw))
    }

    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system(&self) -> SystemRegisters {
        state::system(&self.hardware, self.hardware.cr2())
    }

    fn cr4(&self) -> u64 {
        state::cr4(&self.hardware)
    }

    fn set_system(&mut self, system: &SystemRegisters) {
        let before = state::translation(&self.hardware);
        state::set_system(&mut self.hardware, system);
        self.hardware.set_cr2(system.cr2);
        // Entries keep the VPID's translations whatever they were made from.
        self.flush_owed |= state::translation(&self.hardware) != before;
    }

    fn advance(&mut self, next_rip: u64) {
        self.registers.rip = next_rip;
        self.unblock(blocking::SHADOW);
        if self.registers.rflags & RFLAGS_TF != 0 {
            self.hardware.write(Field::GUEST_PENDING_DEBUG, PENDING_STEP);
        }
    }

    fn inject(&mut self, event: Event) {
        self.pending = self.pending.followed_by(event);
    }

    fn can_take_interrupt(&self) -> bool {
        self.registers.rflags & RFLAGS_IF != 0
            && self.blocked & blocking::SHADOW == 0
            && !self.pending.is_some()
    }

    fn can_take_nmi(&self) -> bool {
        self.blocked & (blocking::SHADOW | blocking::NMI) == 0 && !self.pending.is_some()
    }

    fn request_window(&mut self, wanted: bool) {
        self.window = if wanted { Window::Any } else { Window::Closed };
    }

    fn request_window_above(&mut self, class: u8) {
        self.window = Window::Above(class & 0xF);
    }

    fn tpr(&self) -> u8 {
        self.hardware.task_priority()
    }

    fn set_tpr(&mut self, tpr: u8) {
        self.hardware.set_task_priority(tpr & 0xF);
    }

    fn next_rip(&self) -> Option<u64> {
        self.next_rip
    }

    fn tsc_offset(&self) -> u64 {
        self.hardware.read(Field::TSC_OFFSET)
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.hardware.write(Field::TSC_OFFSET, offset);
    }

    fn host_cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.features.mask_cpuid(leaf, subleaf, self.hardware.cpuid(leaf, subleaf))
    }

    fn set_xcr0(&mut self, value: u64) {
        assert!(value & 1 == 1 && value & !self.features.xcr0 == 0, "XCR0 {value:x} was validated");
        if self.features.xsave {
            self.hardware.set_xcr0(value);
        }
    }

    fn xcr0(&self) -> u64 {
        if self.features.xsave { self.hardware.xcr0() } else { 1 }
    }

    fn init(&mut self) {
        self.pending = Injection::NONE;
        self.window = Window::Closed;
        self.blocked = 0;
        state::reset_events(&mut self.hardware);
        self.set_tpr(0);
        self.hardware.set_dr6(DR6_RESET);
        self.hardware.clear_breakpoints();
    }

    fn flush(&mut self) {
        self.flush_owed = true;
    }
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
