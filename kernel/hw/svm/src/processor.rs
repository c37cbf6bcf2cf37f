//! The virtual processor.

mod step;

use crate::control::{Clean, Control, Intercept3, TlbControl, VirtualInterrupt};
use crate::detect::{Features, SvmFlags};
use crate::enable::Block;
use crate::exits::{Meaning, RawExit, code, decode};
use crate::inject::{Injection, NmiState};
use crate::run;
use crate::state::{CR0_PE, DR6_BS, DR7_GD, RFLAGS_FIXED};
use crate::vmcb::Vmcb;
use core::ptr::NonNull;
use step::{Over, Step};
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
    /// An interrupt waits, so the guest is to exit once it can be injected.
    window: bool,
    /// The same of an NMI.
    nmi_wanted: bool,
    /// The last run began in a shadow.
    shadowed: bool,
    /// The last run was a single step of the backend's own.
    step: Option<Step>,
    pending: Injection,
    /// The last run began with `pending` as a virtual interrupt.
    virtually: bool,
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
            window: false,
            nmi_wanted: false,
            shadowed: false,
            step: None,
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

    /// Says what becomes of V_IRQ (APM 15.21.4): an interrupt that waits to be
    /// injected goes by it, and else a window opens by it.
    ///
    /// EVENTINJ would do for an interrupt. But QEMU 7.2 keeps one from there as
    /// its processor's current exception until the next one: kicked by another
    /// thread in between, it delivers it a second time, whatever IF says. With
    /// V_IRQ taken, a window has to wait for the next exit, at the latest that
    /// of the handler's IRET.
    fn plan_virtual(&mut self) {
        let takes = self.registers.rflags & RFLAGS_IF != 0 && !self.shadowed;
        let vector = self.pending.interrupt().filter(|_| takes);
        self.virtually = vector.is_some();
        let window = self.window && !self.virtually && !self.shadow_holds_window();
        let iret = self.nmi == NmiState::InService || self.virtually && self.window;
        let over_shadow = self.step.is_some_and(|step| step.over == Over::Shadow);
        let c = &self.vmcb().control;
        let (intercepts, before) = (c.intercept3, c.virtual_interrupt);
        let mut wanted = intercepts;
        wanted.set(Intercept3::VINTR, window);
        wanted.set(step::FLAGS, over_shadow);
        wanted.set(Intercept3::IRET, iret || over_shadow);
        if wanted != intercepts {
            self.control(Clean::INTERCEPTS).intercept3 = wanted;
        }
        let after = match vector.or(window.then_some(0)) {
            Some(vector) => before.with_pending(vector),
            None => before.without_pending(),
        };
        if after != before {
            self.control(Clean::TPR).virtual_interrupt = after;
        }
    }

    /// Writes into the VMCB what the run needs.
    fn commit(&mut self) {
        self.plan_step();
        self.plan_virtual();
        let step = if self.step.is_some() { RFLAGS_TF } else { 0 };
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
        let waits = self.virtually && c.virtual_interrupt.contains(VirtualInterrupt::IRQ);
        let (rax, rsp, rip, rflags) = (s.rax, s.rsp, s.rip, s.rflags);
        self.registers.gpr[RAX] = rax;
        self.registers.gpr[RSP] = rsp;
        self.keep_shadow(raw.code, rip);
        self.registers.rflags = self.without_step(rip, rflags);
        self.registers.rip = rip;
        self.flush_owed = false;
        self.clean = Clean::all();
        self.pending = match raw.code {
            // What could not be delivered is why it shut down.
            code::SHUTDOWN => Injection::NONE,
            // A physical interrupt or an exit on its way came first.
            _ if waits => self.pending,
            _ => cut_short,
        };
        if raw.code == code::PAGE_FAULT {
            self.vmcb_mut().save.cr2 = raw.info2;
            self.clean.remove(Clean::CR2);
        }
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
            Meaning::Flags => {
                self.end_shadow();
                Exit::Ignore
            }
        }
    }

    /// Gives the guest an exception that was stopped on its way. An injected
    /// #DB does not clear DR7.GD as a real one does (APM 13.1.1.4). In real
    /// mode no exception pushes an error code.
    fn reflect(&mut self, vector: u8, error: Option<u32>) {
        let error = error.filter(|_| self.vmcb().save.cr0 & CR0_PE != 0);
        if vector == 1 {
            self.vmcb_mut().save.dr7 &= !DR7_GD;
            self.clean.remove(Clean::DEBUG_REGISTERS);
        }
        self.inject(Event::Exception { vector, error });
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

    fn cr4(&self) -> u64 {
        self.vmcb().save.cr4
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
        self.end_shadow();
        if self.registers.rflags & RFLAGS_TF != 0 {
            self.vmcb_mut().save.dr6 |= DR6_BS;
            self.reflect(1, None);
        }
    }

    fn inject(&mut self, event: Event) {
        self.pending = self.pending.followed_by(event);
        if event == Event::Nmi {
            self.nmi = NmiState::InService;
        }
    }

    fn can_take_interrupt(&self) -> bool {
        self.registers.rflags & RFLAGS_IF != 0 && !self.in_shadow() && !self.pending.is_some()
    }

    fn can_take_nmi(&self) -> bool {
        self.nmi == NmiState::Open && !self.in_shadow() && !self.pending.is_some()
    }

    fn request_window(&mut self, wanted: bool) {
        self.window = wanted;
        self.intercept_cr8(wanted);
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
