//! Exchanges, and what depends on a condition.

use super::Step;
use super::alu::Binary;
use crate::stop::Stop;
use crate::walk::Use;
use crate::{Context, Machine};
use iced_x86::{ConditionCode, Instruction, Mnemonic};
use vcpu::RAX;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;

/// Whether a condition holds with these flags (AMD APM vol. 3, table 1-10).
fn holds(condition: ConditionCode, rflags: u64) -> bool {
    use ConditionCode as C;
    let is = |flag| rflags & flag != 0;
    match condition {
        C::None => false,
        C::o => is(OF),
        C::no => !is(OF),
        C::b => is(CF),
        C::ae => !is(CF),
        C::e => is(ZF),
        C::ne => !is(ZF),
        C::be => is(CF | ZF),
        C::a => !is(CF | ZF),
        C::s => is(SF),
        C::ns => !is(SF),
        C::p => is(PF),
        C::np => !is(PF),
        C::l => is(SF) != is(OF),
        C::ge => is(SF) == is(OF),
        C::le => is(ZF) || is(SF) != is(OF),
        C::g => !is(ZF) && is(SF) == is(OF),
    }
}

/// Whether an instruction is SETcc, as against CMOVcc and jumps.
fn is_set(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Seto
            | M::Setno
            | M::Setb
            | M::Setae
            | M::Sete
            | M::Setne
            | M::Setbe
            | M::Seta
            | M::Sets
            | M::Setns
            | M::Setp
            | M::Setnp
            | M::Setl
            | M::Setge
            | M::Setle
            | M::Setg
    )
}

impl Machine {
    pub(super) fn exchange(&mut self, at: &mut Context<'_>, step: &mut Step) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Write)?;
        let register = 1 - step.memory_operand()?;
        let (new, target) = (step.value(register)?, step.target(register)?);
        let old = self.load(at, &place)?;
        self.store(at, &place, new)?;
        step.put(target, old);
        Ok(())
    }

    pub(super) fn exchange_add(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
    ) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Write)?;
        let (other, target) = (step.value(1)?, step.target(1)?);
        let old = self.load(at, &place)?;
        let (sum, flags) = Binary::Add.apply(old, other, place.size, step.registers.rflags);
        self.store(at, &place, sum)?;
        step.put(target, old);
        step.registers.rflags = flags;
        Ok(())
    }

    /// CMPXCHG writes the old value back where it does not exchange, as a
    /// processor does (AMD APM vol. 3, CMPXCHG).
    pub(super) fn compare_exchange(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
    ) -> Result<(), Stop> {
        let place = self.device_operand(at, step, Use::Write)?;
        let new = step.value(1)?;
        let old = self.load(at, &place)?;
        let accumulator = step.registers.gpr[RAX];
        let (difference, flags) =
            Binary::Sub.apply(accumulator, old, place.size, step.registers.rflags);
        self.store(at, &place, if difference == 0 { new } else { old })?;
        step.registers.rflags = flags;
        if difference != 0 {
            step.put_accumulator(place.size, old);
        }
        Ok(())
    }

    /// CMOVcc and SETcc. CMOVcc reads its operand whatever the condition, and
    /// a dword clears the upper half of the register all the same.
    pub(super) fn conditional(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
    ) -> Result<(), Stop> {
        let condition = step.instruction.condition_code();
        let is_set = is_set(&step.instruction);
        let moves = matches!(step.instruction.op_count(), 2) && !is_set;
        if condition == ConditionCode::None || !(is_set || moves) {
            return Err(Stop::Unemulatable);
        }
        let holds = holds(condition, step.registers.rflags);
        if is_set {
            let place = self.device_operand(at, step, Use::Write)?;
            return self.store(at, &place, u64::from(holds));
        }
        let place = self.device_operand(at, step, Use::Read)?;
        let (target, old) = (step.target(0)?, step.value(0)?);
        let value = self.load(at, &place)?;
        step.put(target, if holds { value } else { old });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConditionCode as C;

    #[test]
    fn conditions_and_their_opposites() {
        let pairs = [
            (C::o, C::no),
            (C::b, C::ae),
            (C::e, C::ne),
            (C::be, C::a),
            (C::s, C::ns),
            (C::p, C::np),
            (C::l, C::ge),
            (C::le, C::g),
        ];
        for bits in 0..32u64 {
            let set = [CF, PF, ZF, SF, OF].iter().enumerate().filter(|(i, _)| bits >> i & 1 != 0);
            let flags = set.fold(0, |sum, (_, flag)| sum | flag);
            for (one, other) in pairs {
                assert_ne!(holds(one, flags), holds(other, flags), "{one:?} with {flags:x}");
            }
        }
        assert!(holds(C::l, SF) && holds(C::le, ZF) && holds(C::g, SF | OF) && holds(C::be, CF));
    }
}
