//! String instructions: MOVS, STOS, LODS, INS and OUTS, with REP.
//!
//! Each element is a point of progress: after it RCX, RSI and RDI are
//! written back, so that an exit that becomes Pending, or a long REP cut into
//! several exits, goes on where it was.

use super::Step;
use crate::bus::ones;
use crate::stop::Stop;
use crate::{Context, Machine};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use vcpu::{IoExit, RAX, RCX, RDI, RSI};

/// Elements done in one exit, so that timers and interrupts are not held up.
const ELEMENTS_MAX: usize = 256;
/// RFLAGS.DF.
const DIRECTION: u64 = 1 << 10;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Memory at RSI.
    Source,
    /// Memory at RDI.
    Destination,
    Rax,
    Port(u16),
}

struct Operation {
    from: End,
    to: End,
    size: usize,
}

/// Whether this is a string instruction that [`Machine::string_move`] does.
pub(super) fn is_string(instruction: &Instruction) -> bool {
    operation(instruction).is_some()
}

fn operation(instruction: &Instruction) -> Option<Operation> {
    use Mnemonic as M;
    let (from, to, size) = match instruction.mnemonic() {
        M::Movsb => (End::Source, End::Destination, 1),
        M::Movsw => (End::Source, End::Destination, 2),
        // MOVSD is also an SSE instruction.
        M::Movsd if string_address(instruction).is_some() => (End::Source, End::Destination, 4),
        M::Movsq => (End::Source, End::Destination, 8),
        M::Stosb => (End::Rax, End::Destination, 1),
        M::Stosw => (End::Rax, End::Destination, 2),
        M::Stosd => (End::Rax, End::Destination, 4),
        M::Stosq => (End::Rax, End::Destination, 8),
        M::Lodsb => (End::Source, End::Rax, 1),
        M::Lodsw => (End::Source, End::Rax, 2),
        M::Lodsd => (End::Source, End::Rax, 4),
        M::Lodsq => (End::Source, End::Rax, 8),
        _ => return None,
    };
    Some(Operation { from, to, size })
}

/// Address size in bytes of a string instruction's memory operands.
fn string_address(instruction: &Instruction) -> Option<usize> {
    (0..instruction.op_count()).find_map(|op| match instruction.op_kind(op) {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(8),
        _ => None,
    })
}

impl Step {
    /// Linear address of a string operand, of `width` bytes of register.
    fn string_linear(&self, end: End, width: usize) -> u64 {
        let (register, segment) = match end {
            End::Source => (RSI, self.instruction.memory_segment()),
            _ => (RDI, Register::ES),
        };
        let offset = self.registers.gpr[register] & ones(width);
        self.wrap(self.base(segment).unwrap_or(0).wrapping_add(offset))
    }

    /// Adds to the low `width` bytes of an address or count register.
    fn bump(&mut self, register: usize, by: u64, width: usize) {
        let mask = ones(width);
        let full = &mut self.registers.gpr[register];
        let kept = if width == 2 { *full & !mask } else { 0 };
        *full = kept | (full.wrapping_add(by) & mask);
    }
}

impl Machine {
    /// MOVS, STOS or LODS at least one of whose ends is device memory.
    pub(super) fn string_move(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
    ) -> Result<(), Stop> {
        let operation = operation(&step.instruction).ok_or(Stop::Unemulatable)?;
        self.string(at, step, &operation)
    }

    /// INS or OUTS.
    pub(crate) fn string_io(&mut self, at: &mut Context<'_>, io: &IoExit) -> Result<(), Stop> {
        let mut step = Step::fetch(at)?;
        use Mnemonic as M;
        let matches = match step.instruction.mnemonic() {
            M::Insb | M::Insw | M::Insd => io.input,
            M::Outsb | M::Outsw | M::Outsd => !io.input,
            _ => false,
        };
        if !matches {
            // Another processor changed the code: the guest runs it anew.
            return Ok(());
        }
        let port = End::Port(io.port);
        let (from, to) = if io.input { (port, End::Destination) } else { (End::Source, port) };
        self.string(at, &mut step, &Operation { from, to, size: usize::from(io.size) })?;
        self.sync_lines();
        Ok(())
    }

    fn string(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: &Operation,
    ) -> Result<(), Stop> {
        let width = string_address(&step.instruction).ok_or(Stop::Unemulatable)?;
        let rep = step.instruction.has_rep_prefix() || step.instruction.has_repne_prefix();
        for _ in 0..ELEMENTS_MAX {
            if rep && step.registers.gpr[RCX] & ones(width) == 0 {
                break;
            }
            self.element(at, step, operation, width)?;
            if rep {
                step.bump(RCX, u64::MAX, width);
            }
            self.cpus[at.cpu].replay = None;
            *at.vcpu.registers_mut() = step.registers;
            if !rep {
                break;
            }
        }
        if !rep || step.registers.gpr[RCX] & ones(width) == 0 {
            at.vcpu.advance(step.next_rip());
        }
        Ok(())
    }

    fn element(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: &Operation,
        width: usize,
    ) -> Result<(), Stop> {
        let Operation { from, to, size } = *operation;
        let value = match from {
            End::Rax => step.registers.gpr[RAX],
            End::Port(port) => self.port_once(at, port, size),
            End::Source | End::Destination => {
                let linear = step.string_linear(from, width);
                self.load(at, &step.mmu, linear, size)?
            }
        };
        match to {
            End::Rax => {
                let mask = ones(size);
                let kept = if size >= 4 { 0 } else { step.registers.gpr[RAX] & !mask };
                step.registers.gpr[RAX] = kept | (value & mask);
            }
            End::Port(port) => self.write_port(port, size as u8, value as u32, at.now),
            End::Source | End::Destination => {
                let linear = step.string_linear(to, width);
                self.store(at, &step.mmu, linear, size, value)?;
            }
        }
        let down = step.registers.rflags & DIRECTION != 0;
        let by = if down { (size as u64).wrapping_neg() } else { size as u64 };
        for (end, register) in [(End::Source, RSI), (End::Destination, RDI)] {
            if from == end || to == end {
                step.bump(register, by, width);
            }
        }
        Ok(())
    }

    /// Reads a port once for each element, also if storing it is Pending.
    fn port_once(&mut self, at: &Context<'_>, port: u16, size: usize) -> u64 {
        if let Some(value) = self.cpus[at.cpu].replay {
            return value;
        }
        let value = u64::from(self.read_port(port, size as u8, at.now));
        self.cpus[at.cpu].replay = Some(value);
        value
    }
}
