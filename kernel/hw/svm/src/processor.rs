//! The virtual processor.

use crate::control::{Clean, Control, Intercept3, TlbControl, VirtualInterrupt};
use crate::detect::{Features, SvmFlags};
use crate::enable::Block;
use crate::exits::{Meaning, RawExit, code, decode};
use crate::inject::{Injection, NmiState};
use crate::run;
use crate::state::{DR6_BREAKPOINTS, DR6_BS, DR7_GD, RFLAGS_FIXED};
use crate::vmcb::Vmcb;
use core::ptr::NonNull;
use vcpu::{
    Event, Exit, RAX, RFLAGS_IF, RFLAGS_RF, RFLAGS_TF, RSP, Registers, SystemRegisters, Vcpu,
};
use virt::registers;
use x86_64::registers::xcontrol::XCr0;

/// The virtual processor of one physical processor.
///
/// It is bound to that processor, and so neither `Send` nor `Sync`.
pub struct SvmVcpu {
    features: Features,
    block: NonNull<Block>,
    /// Physical address of the guest's VMCB.
    guest: u64,
    /// Physical address of the host's.
    host: u64,
    registers: Registers,
    /// Fields of the VMCB unchanged since the last exit.
    clean: Clean,
    flush_owed: bool,
    nmi: NmiState,
    /// An NMI waits, so the guest is to exit once it can be injected.
    nmi_wanted: bool,
    /// A single step of the backend's own is under way.
    step: Option<Step>,
    /// The last run began with that step.
    stepping: bool,
    pending: Injection,
    /// The last run began with `pending` as a virtual interrupt.
    virtually: bool,
}

/// A single step to get behind what holds an NMI back: the IRET of the last
/// one, or an interrupt shadow. No intercept tells of either's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Step {
    /// The instruction.
    rip: u64,
    /// DR6 before it, which the trap changes.
    dr6: u64,
}

impl SvmVcpu {
    /// Takes over a prepared block.
    pub(crate) fn new(features: Features, block: NonNull<Block>, guest: u64, host: u64) -> SvmVcpu {
        let mut vcpu = SvmVcpu {
            features,
            block,
            guest,
            host,
            registers: Registers { rflags: RFLAGS_FIXED, ..Registers::default() },
            clean: Clean::empty(),
            flush_owed: true,
            nmi: NmiState::Open,
            nmi_wanted: false,
            step: None,
            stepping: false,
            pending: Injection::NONE,
            virtually: false,
        };
        vcpu.set_xcr0(1);
        vcpu
    }

    /// The control block, for a report of a guest that cannot run.
    #[must_use]
    pub fn vmcb(&self) -> &Vmcb {
        // SAFETY: the block is ours alone (Svm::enable), and the processor
        // writes it during `enter` only, when `self` is borrowed mutably.
        unsafe { &self.block.as_ref().guest }
    }

    /// What the processor offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `vmcb`, and `self` is borrowed mutably.
        unsafe { &mut self.block.as_mut().guest }
    }

    /// The control area, to change fields that `stale` covers.
    fn control(&mut self, stale: Clean) -> &mut Control {
        self.clean.remove(stale);
        &mut self.vmcb_mut().control
    }

    fn in_shadow(&self) -> bool {
        self.vmcb().control.interrupt_state & Control::INTERRUPT_SHADOW != 0
    }

    /// Begins, goes on with or gives up a step for an NMI that waits. A guest
    /// that steps itself exits behind the instruction anyway, and an event on
    /// its way would take a set TF to the guest's stack.
    fn plan_step(&mut self) {
        let held = match self.nmi {
            NmiState::Returning(at) => at == self.registers.rip,
            NmiState::Open => self.in_shadow(),
            NmiState::InService => false,
        };
        let steps_itself = self.registers.rflags & RFLAGS_TF != 0;
        let rip = self.registers.rip;
        self.stepping = false;
        if !(self.nmi_wanted && held) || steps_itself || self.pending.is_some() {
            return;
        }
        let dr6 = self.vmcb().save.dr6;
        self.step = Some(Step { rip, dr6 });
        self.stepping = true;
    }

    /// Makes an interrupt that waits a virtual one (V_IRQ, APM 15.21.4), which
    /// the guest takes before its first instruction as it does an injected one.
    ///
    /// QEMU 7.2 keeps an interrupt from EVENTINJ as its processor's current
    /// exception until the next one: kicked by another thread in between, it
    /// delivers it a second time, whatever IF says. An open window has V_IRQ
    /// for itself: an interrupt of the 8259 pair is still injected while one of
    /// the local APIC waits.
    fn plan_interrupt(&mut self) {
        self.virtually = false;
        let Some(vector) = self.pending.as_virtual() else { return };
        let held = self.registers.rflags & RFLAGS_IF == 0 || self.in_shadow();
        if held || self.vmcb().control.intercept3.contains(Intercept3::VINTR) {
            return;
        }
        let c = self.control(Clean::TPR);
        c.virtual_interrupt = c.virtual_interrupt.with_pending(vector);
        self.virtually = true;
    }

    /// Takes a virtual interrupt back after the run, and says if the guest has
    /// yet to take it: a physical interrupt or an exit on its way came first.
    fn end_interrupt(&mut self) -> bool {
        if !self.virtually {
            return false;
        }
        let c = self.control(Clean::TPR);
        let waits = c.virtual_interrupt.contains(VirtualInterrupt::IRQ);
        c.virtual_interrupt = c.virtual_interrupt.without_pending();
        waits
    }

    /// Writes into the VMCB what the run needs.
    fn commit(&mut self) {
        self.plan_step();
        self.plan_interrupt();
        let step = if self.stepping { RFLAGS_TF } else { 0 };
        let flush = match self.flush_owed {
            false => TlbControl::NOTHING,
            true if self.features.svm.contains(SvmFlags::FLUSH_BY_ASID) => TlbControl::GUEST,
            true => TlbControl::EVERYTHING,
        };
        let event = if self.virtually { Injection::NONE } else { self.pending };
        let (registers, clean) = (self.registers, self.clean);
        let vmcb = self.vmcb_mut();
        vmcb.control.tlb_control = flush;
        vmcb.control.clean = clean;
        vmcb.control.event_injection = event.bits();
        vmcb.save.rax = registers.gpr[RAX];
        vmcb.save.rsp = registers.gpr[RSP];
        vmcb.save.rip = registers.rip;
        vmcb.save.rflags = registers.rflags | RFLAGS_FIXED | step;
    }

    /// Reads from the VMCB what the run left. A run that VMRUN refused has
    /// left nothing of the guest's there (QEMU even puts the host's state into
    /// it), and flushed, cached and injected nothing.
    fn collect(&mut self) -> RawExit {
        let vmcb = self.vmcb();
        let (c, s) = (&vmcb.control, &vmcb.save);
        let raw = RawExit { code: c.exit_code, info1: c.exit_info1, info2: c.exit_info2 };
        if raw.is_refused() {
            return raw;
        }
        let cut_short = Injection::again(c.exit_int_info, self.pending);
        let (rax, rsp, rip, rflags) = (s.rax, s.rsp, s.rip, s.rflags);
        self.registers.gpr[RAX] = rax;
        self.registers.gpr[RSP] = rsp;
        // TF is the step's own as long as the instruction is not done.
        let stepping = self.stepping && rip == self.registers.rip;
        self.registers.rip = rip;
        self.registers.rflags = if stepping { rflags & !RFLAGS_TF } else { rflags };
        self.flush_owed = false;
        self.clean = Clean::all();
        self.pending = match (raw.code, self.end_interrupt()) {
            // What could not be delivered is why it shut down.
            (code::SHUTDOWN, _) => Injection::NONE,
            (_, true) => self.pending,
            (_, false) => cut_short,
        };
        raw
    }

    /// Does what an exit asks of the backend, and says what it asks of the machine.
    fn settle(&mut self, meaning: Meaning) -> Exit {
        match meaning {
            Meaning::Tell(Exit::InterruptWindow) => {
                self.request_window(false);
                Exit::InterruptWindow
            }
            Meaning::Tell(exit) => exit,
            Meaning::Reflect { vector: 1, .. } if self.ends_step() => Exit::Ignore,
            Meaning::Reflect { vector, error } => {
                self.reflect(vector, error);
                Exit::Ignore
            }
            Meaning::MachineCheck => {
                // SAFETY: Svm::new_vcpu was promised a handler.
                unsafe { registers::host_machine_check() };
                Exit::HostInterrupt
            }
            Meaning::Iret => {
                self.intercept(Intercept3::IRET, false);
                Exit::Ignore
            }
        }
    }

    /// Whether a #DB is the end of the backend's own step and nothing else,
    /// which the guest must not see. If the stepped IRET faulted, TF went to
    /// the guest's stack: the #DB then comes when the guest has come back to
    /// the IRET, and is known by TF being clear behind it.
    fn ends_step(&mut self) -> bool {
        if !self.stepping && self.registers.rflags & RFLAGS_TF != 0 {
            return false;
        }
        let Some(step) = self.step.take() else { return false };
        let seen = self.vmcb().save.dr6;
        self.vmcb_mut().save.dr6 = seen & !DR6_BS | step.dr6 & DR6_BS;
        self.clean.remove(Clean::DEBUG_REGISTERS);
        // Breakpoints that were met on the way are the guest's.
        seen & !step.dr6 & DR6_BREAKPOINTS == 0
    }

    /// Gives the guest an exception that was stopped on its way. An injected
    /// #DB does not clear DR7.GD as a real one does (APM 13.1.1.4).
    fn reflect(&mut self, vector: u8, error: Option<u32>) {
        if vector == 1 {
            self.vmcb_mut().save.dr7 &= !DR7_GD;
            self.clean.remove(Clean::DEBUG_REGISTERS);
        }
        self.inject(Event::Exception { vector, error });
    }

    fn intercept(&mut self, what: Intercept3, wanted: bool) {
        self.control(Clean::INTERCEPTS).intercept3.set(what, wanted);
    }

    /// Has writes of CR8 exit or not.
    ///
    /// The processor could watch V_TPR for a window by itself (V_INTR_PRIO,
    /// APM 15.21.2). But QEMU 7.2 opens the window where both are equal, over
    /// and over, and its own code aborts when a guest writes CR8 while V_IRQ
    /// is set. Writes of CR8 are rare where something waits.
    fn intercept_cr8(&mut self, wanted: bool) {
        let c = self.control(Clean::INTERCEPTS);
        c.intercept_cr = if wanted { Control::CR8_WRITE } else { 0 };
    }
}

impl Vcpu for SvmVcpu {
    fn run(&mut self) -> Exit {
        self.commit();
        let registers = &raw mut self.registers;
        // SAFETY: Svm::enable and Svm::new_vcpu were promised all that `enter`
        // asks for, and made both VMCBs; `registers` is ours.
        unsafe { run::enter(registers, self.guest, self.host) };
        let raw = self.collect();
        self.nmi = self.nmi.after_exit(self.registers.rip, raw.code == code::IRET);
        self.settle(decode(raw))
    }

    fn registers(&self) -> &Registers {
        &self.registers
    }

    fn registers_mut(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn system(&self) -> SystemRegisters {
        self.vmcb().save.system()
    }

    fn set_system(&mut self, system: &SystemRegisters) {
        self.clean.remove(
            Clean::CONTROL_REGISTERS
                | Clean::NESTED_PAGING
                | Clean::DESCRIPTOR_TABLES
                | Clean::SEGMENTS
                | Clean::CR2,
        );
        let save = &mut self.vmcb_mut().save;
        let before = save.translation();
        save.set_system(system);
        // VMRUN keeps the ASID's translations whatever they were made from.
        self.flush_owed |= self.vmcb().save.translation() != before;
    }

    fn advance(&mut self, next_rip: u64) {
        self.registers.rip = next_rip;
        self.registers.rflags &= !RFLAGS_RF;
        self.control(Clean::empty()).interrupt_state &= !Control::INTERRUPT_SHADOW;
        if self.registers.rflags & RFLAGS_TF != 0 {
            self.vmcb_mut().save.dr6 |= DR6_BS;
            self.reflect(1, None);
        }
    }

    fn inject(&mut self, event: Event) {
        self.pending = self.pending.followed_by(event);
        if event == Event::Nmi {
            self.nmi = NmiState::InService;
            self.intercept(Intercept3::IRET, true);
        }
    }

    fn can_take_interrupt(&self) -> bool {
        self.registers.rflags & RFLAGS_IF != 0 && !self.in_shadow() && !self.pending.is_some()
    }

    fn can_take_nmi(&self) -> bool {
        self.nmi == NmiState::Open && !self.in_shadow() && !self.pending.is_some()
    }

    fn request_window(&mut self, wanted: bool) {
        self.intercept(Intercept3::VINTR, wanted);
        self.intercept_cr8(wanted);
        let c = self.control(Clean::TPR);
        let pending = c.virtual_interrupt;
        c.virtual_interrupt =
            if wanted { pending.with_pending(0) } else { pending.without_pending() };
    }

    /// What is below CR8 can be taken once the guest has lowered that, which
    /// exits; where it then stands says if there is a window.
    fn request_window_above(&mut self, _class: u8) {
        self.request_window(false);
        self.intercept_cr8(true);
    }

    fn request_nmi_window(&mut self, wanted: bool) {
        self.nmi_wanted = wanted;
    }

    fn tpr(&self) -> u8 {
        self.vmcb().control.virtual_interrupt.tpr()
    }

    fn set_tpr(&mut self, tpr: u8) {
        let c = self.control(Clean::TPR);
        c.virtual_interrupt = c.virtual_interrupt.with_tpr(tpr);
    }

    fn next_rip(&self) -> Option<u64> {
        let c = &self.vmcb().control;
        match c.exit_code {
            code::IOIO => Some(c.exit_info2),
            _ if !self.features.svm.contains(SvmFlags::NEXT_RIP) => None,
            _ => (c.next_rip != 0).then_some(c.next_rip),
        }
    }

    fn tsc_offset(&self) -> u64 {
        self.vmcb().control.tsc_offset
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.control(Clean::INTERCEPTS).tsc_offset = offset;
    }

    fn host_cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        registers::cpuid(leaf, subleaf)
    }

    fn set_xcr0(&mut self, value: u64) {
        assert!(value & 1 == 1 && value & !self.features.xcr0 == 0, "XCR0 {value:x} was validated");
        if self.features.xsave {
            // SAFETY: CR4.OSXSAVE is set by Svm::enable, the machine and the
            // line above have checked the value, and the host does not use
            // what it turns on or off.
            unsafe { XCr0::write_raw(value) };
        }
    }

    /// Read from the register, which is the guest's: QEMU 7.2 does not
    /// intercept XSETBV, so the guest may have written it itself.
    fn xcr0(&self) -> u64 {
        if self.features.xsave { XCr0::read_raw() } else { 1 }
    }

    fn init(&mut self) {
        self.pending = Injection::NONE;
        self.nmi = NmiState::Open;
        self.nmi_wanted = false;
        self.step = None;
        self.intercept(Intercept3::IRET, false);
        self.request_window(false);
        self.set_tpr(0);
        self.clean.remove(Clean::DEBUG_REGISTERS);
        let vmcb = self.vmcb_mut();
        vmcb.control.interrupt_state = 0;
        vmcb.save.reset_debug();
        // SAFETY: the host sets no breakpoint; these registers are the guest's.
        unsafe { registers::clear_breakpoints() };
    }

    fn flush(&mut self) {
        self.flush_owed = true;
    }
}

#[cfg(test)]
#[path = "processor_tests.rs"]
mod tests;
