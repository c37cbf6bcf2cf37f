//! PUSH from device memory and POP to it.

use super::Step;
use crate::bus::ones;
use crate::stop::Stop;
use crate::walk::Use;
use crate::{Context, Machine};
use iced_x86::Register;
use vcpu::{RSP, Segment};

impl Step {
    /// Bytes of the stack pointer that count (AMD APM vol. 1, 3.6.1).
    fn stack_width(&self) -> usize {
        match self.bitness {
            64 => 8,
            _ if self.system.ss.attributes & Segment::DEFAULT_BIG != 0 => 4,
            _ => 2,
        }
    }

    /// Linear address of the stack at an offset from its pointer.
    fn stack_linear(&self, offset: u64) -> u64 {
        let pointer = self.registers.gpr[RSP].wrapping_add(offset) & ones(self.stack_width());
        self.wrap(self.base(Register::SS).unwrap_or(0).wrapping_add(pointer))
    }

    fn move_stack(&mut self, by: u64) {
        self.bump(RSP, by, self.stack_width());
    }
}

impl Machine {
    /// PUSH of a device's register.
    pub(super) fn push(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Read)?;
        let down = (place.size as u64).wrapping_neg();
        let to = self.place(at, step, step.stack_linear(down), place.size, Use::Write)?;
        let value = self.load(at, &place)?;
        self.store(at, &to, value)?;
        step.move_stack(down);
        Ok(())
    }

    /// POP to a device's register. An address by RSP counts with the stack
    /// pointer behind the POP (Intel SDM vol. 2, POP).
    pub(super) fn pop(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        let op = step.memory_operand()?;
        let size = step.instruction.memory_size().size();
        if !matches!(size, 2 | 4 | 8) {
            return Err(Stop::Unemulatable);
        }
        let from = self.place(at, step, step.stack_linear(0), size, Use::Read)?;
        step.move_stack(size as u64);
        let place = self.device_place(at, step, step.linear(op)?, size, Use::Write)?;
        let value = self.load(at, &from)?;
        self.store(at, &place, value)
    }
}
