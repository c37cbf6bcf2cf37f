//! The virtual processor.

use crate::control::{Clean, Control, Intercept3, TlbControl};
use crate::detect::{Features, SvmFlags};
use crate::enable::Block;
use crate::exits::{Meaning, RawExit, code, decode};
use crate::inject::{Injection, NmiState};
use crate::run;
use crate::state::{DR7_GD, RFLAGS_FIXED};
use crate::vmcb::Vmcb;
use core::ptr::NonNull;
use vcpu::{Event, Exit, RAX, RFLAGS_IF, RSP, Registers, SystemRegisters, Vcpu};
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
    pending: Injection,
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
            pending: Injection::NONE,
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

    /// Writes into the VMCB what the run needs.
    fn commit(&mut self) {
        let flush = match self.flush_owed {
            false => TlbControl::NOTHING,
            true if self.features.svm.contains(SvmFlags::FLUSH_BY_ASID) => TlbControl::GUEST,
            true => TlbControl::EVERYTHING,
        };
        let (registers, clean, event) = (self.registers, self.clean, self.pending);
        let vmcb = self.vmcb_mut();
        vmcb.control.tlb_control = flush;
        vmcb.control.clean = clean;
        vmcb.control.event_injection = event.bits();
        vmcb.save.rax = registers.gpr[RAX];
        vmcb.save.rsp = registers.gpr[RSP];
        vmcb.save.rip = registers.rip;
        vmcb.save.rflags = registers.rflags | RFLAGS_FIXED;
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
        let again = match raw.code {
            // What could not be delivered is why it shut down.
            code::SHUTDOWN => Injection::NONE,
            _ => Injection::again(c.exit_int_info, self.pending),
        };
        let (rax, rsp, rip, rflags) = (s.rax, s.rsp, s.rip, s.rflags);
        self.registers.gpr[RAX] = rax;
        self.registers.gpr[RSP] = rsp;
        self.registers.rip = rip;
        self.registers.rflags = rflags;
        self.flush_owed = false;
        self.clean = Clean::all();
        self.pending = again;
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

    /// Asks for a window that V_TPR holds closed below `class`, if given.
    fn open_window(&mut self, class: Option<u8>) {
        self.intercept(Intercept3::VINTR, true);
        let c = self.control(Clean::TPR);
        c.virtual_interrupt = c.virtual_interrupt.with_priority(class);
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
        self.control(Clean::empty()).interrupt_state &= !Control::INTERRUPT_SHADOW;
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
        if wanted {
            return self.open_window(None);
        }
        self.intercept(Intercept3::VINTR, false);
        let c = self.control(Clean::TPR);
        c.virtual_interrupt = c.virtual_interrupt.without_pending();
    }

    fn request_window_above(&mut self, class: u8) {
        self.open_window(Some(class));
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
