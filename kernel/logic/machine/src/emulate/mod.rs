//! Emulates instructions that touch device memory.
//!
//! The instruction is fetched and decoded ([`crate::fetch`]), its memory
//! operand translated ([`crate::walk`]), the access done on the bus, and the
//! result and flags computed ([`alu`]). Emulated are the moves and integer
//! operations that compilers and operating systems use on device registers,
//! and the string moves. Segment limits are not checked: where they matter
//! the hardware has checked them before it came to the access. A single-step
//! trap (RFLAGS.TF) comes one instruction late, and a locked operation is not
//! atomic against other processors: devices have none that would notice.
//!
//! Anything else is [`Stop::Unemulatable`], and so is an instruction whose
//! memory operand is RAM: it was not the cause of the exit.

mod access;
mod alu;
mod operands;
mod strings;

use crate::fetch::{self, Code};
use crate::stop::Stop;
use crate::walk::{Mmu, Use};
use crate::{Context, Machine};
use alu::{Binary, Unary};
use iced_x86::{Instruction, Mnemonic, OpKind};
use vcpu::{Registers, SystemRegisters};

/// An instruction and the state it is executed in.
pub(crate) struct Step {
    instruction: Instruction,
    registers: Registers,
    system: SystemRegisters,
    mmu: Mmu,
    /// 16, 32 or 64.
    bitness: u32,
}

impl Step {
    /// Fetches and decodes the instruction at RIP.
    pub(crate) fn fetch(at: &mut Context<'_>) -> Result<Step, Stop> {
        let system = at.vcpu.system();
        let registers = *at.vcpu.registers();
        let mut code = Code::fetch(at.memory, &registers, &system)?;
        let instruction = code.decode(at.memory, &registers, &system)?;
        let mmu = Mmu::new(&system, registers.rflags);
        Ok(Step { instruction, registers, system, mmu, bitness: fetch::bitness(&system) })
    }

    fn next_rip(&self) -> u64 {
        let next = self.registers.rip.wrapping_add(self.instruction.len() as u64);
        fetch::wrap_rip(self.bitness, next)
    }

    /// Which operand is in memory.
    fn memory_operand(&self) -> Result<u32, Stop> {
        (0..self.instruction.op_count())
            .find(|&op| self.instruction.op_kind(op) == OpKind::Memory)
            .ok_or(Stop::Unemulatable)
    }
}

impl Machine {
    /// Executes the instruction at RIP.
    pub(crate) fn emulate(&mut self, at: &mut Context<'_>) -> Result<(), Stop> {
        let mut step = Step::fetch(at)?;
        if strings::is_string(&step.instruction) {
            return self.string_move(at, &mut step);
        }
        self.execute(at, &mut step)?;
        *at.vcpu.registers_mut() = step.registers;
        at.vcpu.advance(step.next_rip());
        Ok(())
    }

    fn execute(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        use Mnemonic as M;
        match step.instruction.mnemonic() {
            M::Mov | M::Movnti => self.mov(at, step),
            M::Movzx => self.extend(at, step, false),
            M::Movsx | M::Movsxd => self.extend(at, step, true),
            M::Add => self.binary(at, step, Binary::Add, true),
            M::Or => self.binary(at, step, Binary::Or, true),
            M::Adc => self.binary(at, step, Binary::Adc, true),
            M::Sbb => self.binary(at, step, Binary::Sbb, true),
            M::And => self.binary(at, step, Binary::And, true),
            M::Sub => self.binary(at, step, Binary::Sub, true),
            M::Xor => self.binary(at, step, Binary::Xor, true),
            M::Cmp => self.binary(at, step, Binary::Sub, false),
            M::Test => self.binary(at, step, Binary::And, false),
            M::Inc => self.unary(at, step, Unary::Inc),
            M::Dec => self.unary(at, step, Unary::Dec),
            M::Not => self.unary(at, step, Unary::Not),
            M::Neg => self.unary(at, step, Unary::Neg),
            M::Xchg => self.exchange(at, step),
            M::Bt => self.bit(at, step, None),
            M::Bts => self.bit(at, step, Some(alu::BitChange::Set)),
            M::Btr => self.bit(at, step, Some(alu::BitChange::Reset)),
            M::Btc => self.bit(at, step, Some(alu::BitChange::Complement)),
            _ => Err(Stop::Unemulatable),
        }
    }

    /// The device operand of an instruction: address and size.
    fn device_operand(
        &mut self,
        at: &mut Context<'_>,
        step: &Step,
        what: Use,
    ) -> Result<(u64, usize), Stop> {
        let op = step.memory_operand()?;
        let size = step.instruction.memory_size().size();
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(Stop::Unemulatable);
        }
        let linear = step.linear(op)?;
        Ok((self.device_address(at, &step.mmu, linear, size, what)?, size))
    }

    fn mov(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        if step.memory_operand()? == 0 {
            let (gpa, size) = self.device_operand(at, step, Use::Write)?;
            let value = step.value(1)?;
            self.write_device(at.cpu, gpa, size, value, at.now);
        } else {
            let (gpa, size) = self.device_operand(at, step, Use::Read)?;
            let target = step.target(0)?;
            let value = self.read_once(at, gpa, size);
            step.put(target, value);
        }
        Ok(())
    }

    fn extend(&mut self, at: &mut Context<'_>, step: &mut Step, signed: bool) -> Result<(), Stop> {
        let (gpa, size) = self.device_operand(at, step, Use::Read)?;
        let target = step.target(0)?;
        let value = self.read_once(at, gpa, size);
        step.put(target, if signed { alu::sign_extend(value, size) } else { value });
        Ok(())
    }

    fn binary(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: Binary,
        store: bool,
    ) -> Result<(), Stop> {
        let to_memory = step.memory_operand()? == 0;
        let what = if store && to_memory { Use::Write } else { Use::Read };
        let (gpa, size) = self.device_operand(at, step, what)?;
        let other = step.value(u32::from(to_memory))?;
        let target = if to_memory { None } else { Some(step.target(0)?) };
        let value = self.read_once(at, gpa, size);
        let (left, right) = if to_memory { (value, other) } else { (other, value) };
        let flags = step.registers.rflags;
        let (result, flags) = operation.apply(left, right, size, flags);
        step.registers.rflags = flags;
        match target {
            _ if !store => {}
            Some(target) => step.put(target, result),
            None => self.write_device(at.cpu, gpa, size, result, at.now),
        }
        Ok(())
    }

    fn unary(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: Unary,
    ) -> Result<(), Stop> {
        let (gpa, size) = self.device_operand(at, step, Use::Write)?;
        let value = self.read_once(at, gpa, size);
        let (result, flags) = operation.apply(value, size, step.registers.rflags);
        step.registers.rflags = flags;
        self.write_device(at.cpu, gpa, size, result, at.now);
        Ok(())
    }

    fn exchange(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        let (gpa, size) = self.device_operand(at, step, Use::Write)?;
        let register = 1 - step.memory_operand()?;
        let (new, target) = (step.value(register)?, step.target(register)?);
        let old = self.read_once(at, gpa, size);
        self.write_device(at.cpu, gpa, size, new, at.now);
        step.put(target, old);
        Ok(())
    }

    /// BT and its kin. With the bit number in a register the operand is a
    /// bit string that reaches beyond the address (AMD APM vol. 3, BT).
    fn bit(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        change: Option<alu::BitChange>,
    ) -> Result<(), Stop> {
        let op = step.memory_operand()?;
        let size = step.instruction.memory_size().size();
        if !matches!(size, 2 | 4 | 8) {
            return Err(Stop::Unemulatable);
        }
        let bits = 8 * size as u64;
        let number = step.value(1)?;
        let mut linear = step.linear(op)?;
        if step.instruction.op1_kind() == OpKind::Register {
            let signed = alu::sign_extend(number, size) as i64;
            let units = signed.div_euclid(bits as i64).wrapping_mul(size as i64);
            linear = step.wrap(linear.wrapping_add(units as u64));
        }
        let what = if change.is_some() { Use::Write } else { Use::Read };
        let gpa = self.device_address(at, &step.mmu, linear, size, what)?;
        let value = self.read_once(at, gpa, size);
        let bit = number & (bits - 1);
        step.registers.rflags = alu::with_carry(step.registers.rflags, value >> bit & 1 != 0);
        if let Some(change) = change {
            self.write_device(at.cpu, gpa, size, change.apply(value, bit), at.now);
        }
        Ok(())
    }
}

// The decoder builds its tables at first use, which takes an interpreter minutes.
#[cfg(all(test, not(miri)))]
mod tests;
