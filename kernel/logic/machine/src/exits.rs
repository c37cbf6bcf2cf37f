//! One function per kind of exit.
//!
//! Order matters in each: what may be Pending comes first (finding the next
//! instruction, reading operands), then the effect, then `advance`. So an
//! exit given up as Pending is handled again from its start with nothing
//! done twice.

use crate::cpuid::CR4_OSXSAVE;
use crate::emulate::Step;
use crate::state::RunState;
use crate::stop::{Death, Stop};
use crate::{Context, Machine, Outcome, fetch};
use addr::{Access, GuestPhys};
use vcpu::{Exit, IoExit, RAX, RBX, RCX, RDX, RFLAGS_IF, RFLAGS_TF};

impl Machine {
    /// Handles an exit; an `Err` has changed nothing that handling it again
    /// would repeat.
    pub(crate) fn exit(&mut self, at: &mut Context<'_>, exit: &Exit) -> Result<Outcome, Stop> {
        match *exit {
            Exit::PageFault { gpa, access, fetch, walk } => {
                self.page_fault(at, gpa, access, fetch, walk)
            }
            Exit::Cpuid => self.exit_cpuid(at),
            Exit::Rdmsr => self.exit_rdmsr(at),
            Exit::Wrmsr => self.exit_wrmsr(at),
            Exit::Io(io) => self.exit_io(at, &io),
            Exit::Hlt => self.exit_hlt(at),
            Exit::HostInterrupt | Exit::InterruptWindow | Exit::Ignore => Ok(Outcome::Resume),
            Exit::Shutdown => Ok(Outcome::Dead(Death::TripleFault)),
            Exit::Xsetbv => self.exit_xsetbv(at),
            Exit::WriteCr8 => self.exit_write_cr8(at),
            Exit::Hypercall => Ok(Outcome::Hypercall),
            Exit::CacheControl => {
                let next = self.next_rip(at)?;
                at.vcpu.advance(next);
                Ok(Outcome::Resume)
            }
            Exit::Undefined => Err(Stop::UNDEFINED),
            Exit::Invalid { code } => Ok(Outcome::Dead(Death::RefusedState(code))),
        }
    }

    /// Address of the next instruction: told by the hardware, or decoded.
    pub(crate) fn next_rip(&self, at: &mut Context<'_>) -> Result<u64, Stop> {
        if let Some(next) = at.vcpu.next_rip() {
            return Ok(next);
        }
        let system = at.vcpu.system();
        fetch::next_rip(at.memory, at.vcpu.registers(), &system)
    }

    fn page_fault(
        &mut self,
        at: &mut Context<'_>,
        gpa: GuestPhys,
        access: Access,
        fetch: bool,
        walk: bool,
    ) -> Result<Outcome, Stop> {
        if self.layout.linear(gpa.gfn()).is_some() {
            return Err(Stop::Pending { gfn: gpa.gfn(), access });
        }
        if walk {
            return Ok(Outcome::Dead(Death::PageTableNotMemory { gpa: gpa.0 }));
        }
        if fetch {
            // The bus answers all ones, which is no instruction.
            return Err(Stop::UNDEFINED);
        }
        self.emulate(at)?;
        self.counters.emulated += 1;
        Ok(Outcome::Resume)
    }

    fn exit_cpuid(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let next = self.next_rip(at)?;
        let gpr = at.vcpu.registers().gpr;
        let answer = self.with_query(at, |query| query.answer(gpr[RAX] as u32, gpr[RCX] as u32));
        let registers = at.vcpu.registers_mut();
        for (index, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
            registers.gpr[index] = u64::from(value);
        }
        at.vcpu.advance(next);
        Ok(Outcome::Resume)
    }

    fn exit_rdmsr(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let next = self.next_rip(at)?;
        let msr = at.vcpu.registers().gpr[RCX] as u32;
        let value = self.read_msr(at, msr)?;
        let registers = at.vcpu.registers_mut();
        registers.gpr[RAX] = value & 0xFFFF_FFFF;
        registers.gpr[RDX] = value >> 32;
        at.vcpu.advance(next);
        Ok(Outcome::Resume)
    }

    fn exit_wrmsr(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let next = self.next_rip(at)?;
        let (msr, value) = (at.vcpu.registers().gpr[RCX] as u32, edx_eax(at));
        self.write_msr(at, msr, value)?;
        at.vcpu.advance(next);
        Ok(Outcome::Resume)
    }

    fn exit_xsetbv(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let next = self.next_rip(at)?;
        let system = at.vcpu.system();
        if system.cr4 & CR4_OSXSAVE == 0 {
            return Err(Stop::UNDEFINED);
        }
        let value = edx_eax(at);
        let register = at.vcpu.registers().gpr[RCX] as u32;
        let valid = self.with_query(at, |query| query.xcr0_valid(value));
        if system.cpl != 0 || register != 0 || !valid {
            return Err(Stop::PROTECTION);
        }
        at.vcpu.set_xcr0(value);
        at.vcpu.advance(next);
        Ok(Outcome::Resume)
    }

    fn exit_write_cr8(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let step = Step::fetch(at)?;
        let Some(value) = step.to_cr8() else {
            // Another processor changed the code: the guest runs it anew.
            return Ok(Outcome::Resume);
        };
        if value > 0xF || at.vcpu.system().cpl != 0 {
            return Err(Stop::PROTECTION);
        }
        at.vcpu.set_tpr(value as u8);
        let tpr = at.vcpu.tpr();
        let cpu = &mut self.cpus[at.cpu];
        cpu.tpr = tpr;
        cpu.lapic.set_cr8(value as u8);
        at.vcpu.advance(step.next_rip());
        Ok(Outcome::Resume)
    }

    fn exit_hlt(&mut self, at: &mut Context<'_>) -> Result<Outcome, Stop> {
        let next = self.next_rip(at)?;
        let registers = at.vcpu.registers();
        let (rip, rflags) = (registers.rip, registers.rflags);
        at.vcpu.advance(next);
        // The trap of a single step is taken at once.
        if self.has_wake(at.cpu, rflags) || rflags & RFLAGS_TF != 0 {
            return Ok(Outcome::Resume);
        }
        if rflags & RFLAGS_IF == 0 && self.cpus.len() == 1 && !self.has_nmi_source() {
            return Ok(Outcome::Dead(Death::HaltedForEver { rip }));
        }
        let cpu = &mut self.cpus[at.cpu];
        cpu.state = RunState::Halted;
        cpu.halted_rflags = rflags;
        Ok(Outcome::Halted)
    }

    fn exit_io(&mut self, at: &mut Context<'_>, io: &IoExit) -> Result<Outcome, Stop> {
        // The size comes from the hardware's exit information.
        assert!(matches!(io.size, 1 | 2 | 4), "port access of {} bytes", io.size);
        if io.string {
            self.string_io(at, io)?;
            return Ok(Outcome::Resume);
        }
        let next = match io.next_rip {
            Some(next) => next,
            None => self.next_rip(at)?,
        };
        let mask = crate::bus::ones(usize::from(io.size));
        let rax = at.vcpu.registers().gpr[RAX];
        if io.input {
            let value = u64::from(self.read_port(io.port, io.size, at.now)) & mask;
            // A dword clears the register's upper half.
            let kept = if io.size == 4 { 0 } else { rax & !mask };
            at.vcpu.registers_mut().gpr[RAX] = kept | value;
        } else {
            self.write_port(io.port, io.size, (rax & mask) as u32, at.now);
        }
        at.vcpu.advance(next);
        self.sync_lines();
        Ok(self.power_outcome())
    }
}

fn edx_eax(at: &Context<'_>) -> u64 {
    let gpr = &at.vcpu.registers().gpr;
    (gpr[RDX] << 32) | (gpr[RAX] & 0xFFFF_FFFF)
}
