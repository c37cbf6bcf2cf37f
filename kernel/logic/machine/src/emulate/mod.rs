//! Emulates instructions that touch device memory.
//!
//! The instruction is fetched and decoded ([`crate::fetch`]), its memory
//! operands translated ([`crate::walk`]), the access done ([`access`]), and
//! the result and flags computed ([`alu`]). Emulated are the moves and integer
//! operations that compilers and operating systems use on device registers,
//! stack operations, and the string instructions. Segment limits are not
//! checked: where they matter the hardware has checked them before it came to
//! the access. A breakpoint on data is not met by an emulated access, and a
//! locked operation is not atomic against other processors: devices have none
//! that would notice.
//!
//! Anything else is [`Stop::Unemulatable`], and so is an instruction whose
//! memory operand is RAM: it was not the cause of the exit.

mod access;
mod alu;
mod exchange;
mod operands;
mod stack;
mod strings;

use crate::fetch::{self, Code};
use crate::stop::Stop;
use crate::walk::{Mmu, Use};
use crate::{Context, Machine};
use access::Place;
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

    pub(crate) fn next_rip(&self) -> u64 {
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
            M::Xadd => self.exchange_add(at, step),
            M::Cmpxchg => self.compare_exchange(at, step),
            M::Push => self.push(at, step),
            M::Pop => self.pop(at, step),
            M::Bt => self.bit(at, step, None),
            M::Bts => self.bit(at, step, Some(alu::BitChange::Set)),
            M::Btr => self.bit(at, step, Some(alu::BitChange::Reset)),
            M::Btc => self.bit(at, step, Some(alu::BitChange::Complement)),
            _ => self.conditional(at, step),
        }
    }

    /// The device operand of an instruction.
    fn device_operand(
        &mut self,
        at: &mut Context<'_>,
        step: &Step,
        what: Use,
    ) -> Result<Place, Stop> {
        let op = step.memory_operand()?;
        let size = step.instruction.memory_size().size();
        if !matches!(size, 1 | 2 | 4 | 8) {
            return Err(Stop::Unemulatable);
        }
        let linear = step.linear(op)?;
        self.device_place(at, step, linear, size, what)
    }

    fn mov(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        if step.memory_operand()? == 0 {
            let place = self.device_operand(at, step, Use::Write)?;
            let value = step.value(1)?;
            self.store(at, &place, value)
        } else {
            let place = self.device_operand(at, step, Use::Read)?;
            let target = step.target(0)?;
            let value = self.load(at, &place)?;
            step.put(target, value);
            Ok(())
        }
    }

    fn extend(&mut self, at: &mut Context<'_>, step: &mut Step, signed: bool) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Read)?;
        let target = step.target(0)?;
        let value = self.load(at, &place)?;
        step.put(target, if signed { alu::sign_extend(value, place.size) } else { value });
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
        let place = self.device_operand(at, step, what)?;
        let other = step.value(u32::from(to_memory))?;
        let target = if to_memory { None } else { Some(step.target(0)?) };
        let value = self.load(at, &place)?;
        let (left, right) = if to_memory { (value, other) } else { (other, value) };
        let (result, flags) = operation.apply(left, right, place.size, step.registers.rflags);
        step.registers.rflags = flags;
        match target {
            _ if !store => {}
            Some(target) => step.put(target, result),
            None => self.store(at, &place, result)?,
        }
        Ok(())
    }

    fn unary(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: Unary,
    ) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Write)?;
        let value = self.load(at, &place)?;
        let (result, flags) = operation.apply(value, place.size, step.registers.rflags);
        step.registers.rflags = flags;
        self.store(at, &place, result)
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
        let place = self.device_place(at, step, linear, size, what)?;
        let value = self.load(at, &place)?;
        let bit = number & (bits - 1);
        step.registers.rflags = alu::with_carry(step.registers.rflags, value >> bit & 1 != 0);
        match change {
            Some(change) => self.store(at, &place, change.apply(value, bit)),
            None => Ok(()),
        }
    }
}

// The decoder builds its tables at first use, which takes an interpreter minutes.
#[cfg(all(test, not(miri)))]
mod operand_tests;
#[cfg(all(test, not(miri)))]
mod tests;
