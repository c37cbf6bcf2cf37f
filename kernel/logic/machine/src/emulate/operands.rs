//! Register and immediate operands, and the address of a memory operand.

use super::Step;
use crate::bus::ones;
use crate::stop::Stop;
use iced_x86::{Mnemonic, OpKind, Register};
use vcpu::RAX;

/// Bits of the 64 a register operand covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// Index in the register file.
    index: usize,
    /// Bytes: 1, 2, 4 or 8.
    size: usize,
    /// AH, CH, DH or BH.
    high: bool,
}

/// The part of the register file that a general register names.
fn general(register: Register) -> Option<Target> {
    if !register.is_gpr() {
        return None;
    }
    let high = matches!(register, Register::AH | Register::CH | Register::DH | Register::BH);
    // iced gives AH to BH the full registers RAX to RBX.
    Some(Target { index: register.full_register().number() & 15, size: register.size(), high })
}

impl Step {
    fn get(&self, target: Target) -> u64 {
        let full = self.registers.gpr[target.index];
        (if target.high { full >> 8 } else { full }) & ones(target.size)
    }

    /// Writes a register operand; a dword clears the upper half.
    pub(super) fn put(&mut self, target: Target, value: u64) {
        let full = &mut self.registers.gpr[target.index];
        let mask = ones(target.size);
        *full = match (target.size, target.high) {
            (4 | 8, _) => value & mask,
            (_, false) => (*full & !mask) | (value & mask),
            (_, true) => (*full & !0xFF00) | ((value & 0xFF) << 8),
        };
    }

    /// Writes AL, AX, EAX or RAX.
    pub(super) fn put_accumulator(&mut self, size: usize, value: u64) {
        self.put(Target { index: RAX, size, high: false }, value);
    }

    /// The register that operand `op` is.
    pub(super) fn target(&self, op: u32) -> Result<Target, Stop> {
        if self.instruction.op_kind(op) != OpKind::Register {
            return Err(Stop::Unemulatable);
        }
        general(self.instruction.op_register(op)).ok_or(Stop::Unemulatable)
    }

    /// What the instruction moves to CR8; `None` if it does not.
    pub(crate) fn to_cr8(&self) -> Option<u64> {
        let i = &self.instruction;
        let is_cr8 = i.mnemonic() == Mnemonic::Mov && i.op0_register() == Register::CR8;
        is_cr8.then(|| self.value(1).ok()).flatten()
    }

    /// The value of a register or immediate operand. A segment register
    /// gives its selector.
    pub(super) fn value(&self, op: u32) -> Result<u64, Stop> {
        if self.instruction.op_kind(op) == OpKind::Register {
            let register = self.instruction.op_register(op);
            if let Some(segment) = self.segment(register) {
                return Ok(u64::from(segment.selector));
            }
            return Ok(self.get(self.target(op)?));
        }
        self.instruction.try_immediate(op).map_err(|_| Stop::Unemulatable)
    }

    fn segment(&self, register: Register) -> Option<&vcpu::Segment> {
        let s = &self.system;
        match register {
            Register::CS => Some(&s.cs),
            Register::DS => Some(&s.ds),
            Register::ES => Some(&s.es),
            Register::SS => Some(&s.ss),
            Register::FS => Some(&s.fs),
            Register::GS => Some(&s.gs),
            _ => None,
        }
    }

    /// Base of a segment; in 64-bit code only FS and GS have one.
    pub(super) fn base(&self, register: Register) -> Option<u64> {
        let based = self.bitness != 64 || matches!(register, Register::FS | Register::GS);
        self.segment(register).map(|s| if based { s.base } else { 0 })
    }

    /// Cuts a linear address to the mode's width.
    pub(super) fn wrap(&self, linear: u64) -> u64 {
        if self.bitness == 64 { linear } else { linear & 0xFFFF_FFFF }
    }

    /// Linear address of the memory operand `op`.
    pub(super) fn linear(&self, op: u32) -> Result<u64, Stop> {
        let linear = self.instruction.virtual_address(op, 0, |register, _, _| {
            self.base(register).or_else(|| general(register).map(|target| self.get(target)))
        });
        linear.map(|l| self.wrap(l)).ok_or(Stop::Unemulatable)
    }
}
