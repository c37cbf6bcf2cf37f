//! Integer arithmetic with flags (AMD APM vol. 1, 3.1.4).

use crate::bus::ones;

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// Operations with two operands. CMP is `Sub` and TEST is `And`, whose
/// results are not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binary {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
}

/// Operations with one operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unary {
    Inc,
    Dec,
    Not,
    Neg,
}

/// What BTS, BTR and BTC do to the bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BitChange {
    Set,
    Reset,
    Complement,
}

/// Extends the sign of a value of `size` bytes.
pub(super) fn sign_extend(value: u64, size: usize) -> u64 {
    let shift = 64 - 8 * size as u32;
    (((value << shift) as i64) >> shift) as u64
}

/// Flags with CF as given.
pub(super) fn with_carry(rflags: u64, carry: bool) -> u64 {
    (rflags & !CF) | u64::from(carry)
}

fn sign(size: usize) -> u64 {
    1 << (8 * size - 1)
}

fn if_set(condition: bool, flag: u64) -> u64 {
    if condition { flag } else { 0 }
}

/// PF, ZF and SF of a result.
fn of_result(result: u64, size: usize) -> u64 {
    if_set((result as u8).count_ones().is_multiple_of(2), PF)
        | if_set(result == 0, ZF)
        | if_set(result & sign(size) != 0, SF)
}

fn add(left: u64, right: u64, carry: u64, size: usize) -> (u64, u64) {
    let wide = u128::from(left) + u128::from(right) + u128::from(carry);
    let result = wide as u64 & ones(size);
    let flags = of_result(result, size)
        | if_set(wide > u128::from(ones(size)), CF)
        | if_set((left ^ right ^ result) & 0x10 != 0, AF)
        | if_set((left ^ result) & (right ^ result) & sign(size) != 0, OF);
    (result, flags)
}

fn subtract(left: u64, right: u64, borrow: u64, size: usize) -> (u64, u64) {
    let result = left.wrapping_sub(right).wrapping_sub(borrow) & ones(size);
    let flags = of_result(result, size)
        | if_set(u128::from(left) < u128::from(right) + u128::from(borrow), CF)
        | if_set((left ^ right ^ result) & 0x10 != 0, AF)
        | if_set((left ^ right) & (left ^ result) & sign(size) != 0, OF);
    (result, flags)
}

impl Binary {
    /// Result and RFLAGS.
    pub(super) fn apply(self, left: u64, right: u64, size: usize, rflags: u64) -> (u64, u64) {
        let (left, right) = (left & ones(size), right & ones(size));
        let carry = rflags & CF;
        let logic = |result| (result, of_result(result, size));
        let (result, flags) = match self {
            Binary::Add => add(left, right, 0, size),
            Binary::Adc => add(left, right, carry, size),
            Binary::Sub => subtract(left, right, 0, size),
            Binary::Sbb => subtract(left, right, carry, size),
            Binary::Or => logic(left | right),
            Binary::And => logic(left & right),
            Binary::Xor => logic(left ^ right),
        };
        (result, (rflags & !STATUS) | flags)
    }
}

impl Unary {
    /// Result and RFLAGS. INC and DEC leave CF, NOT leaves all flags.
    pub(super) fn apply(self, value: u64, size: usize, rflags: u64) -> (u64, u64) {
        let value = value & ones(size);
        let (result, flags, changed) = match self {
            Unary::Inc => with_mask(add(value, 1, 0, size), STATUS & !CF),
            Unary::Dec => with_mask(subtract(value, 1, 0, size), STATUS & !CF),
            Unary::Neg => with_mask(subtract(0, value, 0, size), STATUS),
            Unary::Not => (!value & ones(size), 0, 0),
        };
        (result, (rflags & !changed) | (flags & changed))
    }
}

fn with_mask((result, flags): (u64, u64), mask: u64) -> (u64, u64, u64) {
    (result, flags, mask)
}

impl BitChange {
    pub(super) fn apply(self, value: u64, bit: u64) -> u64 {
        match self {
            BitChange::Set => value | (1 << bit),
            BitChange::Reset => value & !(1 << bit),
            BitChange::Complement => value ^ (1 << bit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_at_the_edges() {
        assert_eq!(Binary::Add.apply(0x7F, 1, 1, 2), (0x80, 2 | SF | OF | AF));
        assert_eq!(Binary::Add.apply(0xFF, 1, 1, 0), (0, CF | ZF | PF | AF));
        assert_eq!(Binary::Adc.apply(u64::MAX, 0, 8, CF), (0, CF | ZF | PF | AF));
        assert_eq!(Binary::Sub.apply(0, 1, 4, 0), (0xFFFF_FFFF, CF | SF | PF | AF));
        assert_eq!(Binary::Sbb.apply(0, u64::MAX, 8, CF), (0, CF | ZF | PF | AF));
        assert_eq!(Binary::Sub.apply(0x8000, 1, 2, 0), (0x7FFF, OF | AF | PF));
        assert_eq!(Binary::And.apply(0xF0, 0x0F, 1, STATUS), (0, ZF | PF));
        assert_eq!(Unary::Inc.apply(0xFF, 1, CF), (0, CF | ZF | PF | AF));
        assert_eq!(Unary::Neg.apply(0, 4, CF), (0, ZF | PF));
        assert_eq!(Unary::Not.apply(0, 2, STATUS), (0xFFFF, STATUS));
        assert_eq!(sign_extend(0x80, 1), 0xFFFF_FFFF_FFFF_FF80);
    }
}
