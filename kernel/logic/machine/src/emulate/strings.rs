//! String instructions: MOVS, STOS, LODS, CMPS, SCAS, INS and OUTS, with REP.
//!
//! Each element is a point of progress: after it RCX, RSI and RDI are
//! written back, so that an exit that becomes Pending, or a long REP cut into
//! several exits, goes on where it was.

use super::Step;
use super::access::Place;
use super::alu::Binary;
use crate::bus::ones;
use crate::stop::Stop;
use crate::walk::Use;
use crate::{Context, Machine};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use vcpu::{IoExit, RAX, RCX, RDI, RFLAGS_TF, RSI};

/// Elements done in one exit, so that timers and interrupts are not held up.
const ELEMENTS_MAX: usize = 256;
/// RFLAGS.DF.
const DIRECTION: u64 = 1 << 10;
/// RFLAGS.ZF.
const ZERO: u64 = 1 << 6;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Memory at RSI.
    Source,
    /// Memory at RDI.
    Destination,
    Rax,
    Port(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// What comes from one end goes to the other.
    Move,
    /// Both ends are read and compared; the flags end a REPE or REPNE.
    Compare,
}

struct Operation {
    kind: Kind,
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
    let (kind, from, to) = match instruction.mnemonic() {
        // MOVSD and CMPSD are also SSE instructions.
        _ if string_address(instruction).is_none() => return None,
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => (Kind::Move, End::Source, End::Destination),
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => (Kind::Move, End::Rax, End::Destination),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => (Kind::Move, End::Source, End::Rax),
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => (Kind::Compare, End::Source, End::Destination),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => (Kind::Compare, End::Rax, End::Destination),
        _ => return None,
    };
    Some(Operation { kind, from, to, size: instruction.memory_size().size() })
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

    /// Whether a repeated instruction goes on after an element, its count
    /// aside (AMD APM vol. 3, 1.2.6).
    fn goes_on(&self, operation: &Operation) -> bool {
        let equal = self.registers.rflags & ZERO != 0;
        operation.kind == Kind::Move || equal != self.instruction.has_repne_prefix()
    }

    /// Adds to the low `width` bytes of an address or count register.
    pub(super) fn bump(&mut self, register: usize, by: u64, width: usize) {
        let mask = ones(width);
        let full = &mut self.registers.gpr[register];
        let kept = if width == 2 { *full & !mask } else { 0 };
        *full = kept | (full.wrapping_add(by) & mask);
    }
}

impl Machine {
    /// A string instruction at least one of whose ends is device memory.
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
        let operation = Operation { kind: Kind::Move, from, to, size: usize::from(io.size) };
        self.string(at, &mut step, &operation)?;
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
        // A single step comes behind each element.
        let max = if step.registers.rflags & RFLAGS_TF != 0 { 1 } else { ELEMENTS_MAX };
        let left = |step: &Step| rep && step.registers.gpr[RCX] & ones(width) != 0;
        let mut more = left(step) || !rep;
        for _ in 0..max {
            if !more {
                break;
            }
            self.element(at, step, operation, width)?;
            if rep {
                step.bump(RCX, u64::MAX, width);
            }
            self.cpus[at.cpu].replay = None;
            *at.vcpu.registers_mut() = step.registers;
            more = left(step) && step.goes_on(operation);
        }
        at.vcpu.advance(if more { step.registers.rip } else { step.next_rip() });
        Ok(())
    }

    /// Does one element. Both ends are translated before anything is done, the
    /// first one's fault before the second one's.
    fn element(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        operation: &Operation,
        width: usize,
    ) -> Result<(), Stop> {
        let Operation { kind, from, to, size } = *operation;
        let mut place = |end: End, what| -> Result<Option<Place>, Stop> {
            match end {
                End::Rax | End::Port(_) => Ok(None),
                End::Source | End::Destination => {
                    let linear = step.string_linear(end, width);
                    self.place(at, step, linear, size, what).map(Some)
                }
            }
        };
        let source = place(from, Use::Read)?;
        let second = if kind == Kind::Compare { Use::Read } else { Use::Write };
        let destination = place(to, second)?;
        match kind {
            Kind::Move => {
                let value = self.take(at, step, from, source.as_ref(), size)?;
                self.give(at, step, to, destination.as_ref(), (value, size))?;
            }
            Kind::Compare => self.compare(at, step, source, destination, size)?,
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

    /// The value from one end of a move.
    fn take(
        &mut self,
        at: &mut Context<'_>,
        step: &Step,
        from: End,
        place: Option<&Place>,
        size: usize,
    ) -> Result<u64, Stop> {
        match (from, place) {
            (End::Port(port), _) => Ok(self.port_once(at, port, size)),
            (_, Some(place)) => self.load(at, place),
            (_, None) => Ok(step.registers.gpr[RAX]),
        }
    }

    /// Gives a value and its size to the other end of a move.
    fn give(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        to: End,
        place: Option<&Place>,
        (value, size): (u64, usize),
    ) -> Result<(), Stop> {
        match (to, place) {
            (End::Port(port), _) => self.write_port(port, size as u8, value as u32, at.now),
            (_, Some(place)) => self.store(at, place, value)?,
            (_, None) => step.put_accumulator(size, value),
        }
        Ok(())
    }

    /// Sets the flags by both ends' difference. All RAM is read before any
    /// device, so that no device is read twice.
    fn compare(
        &mut self,
        at: &mut Context<'_>,
        step: &mut Step,
        source: Option<Place>,
        destination: Option<Place>,
        size: usize,
    ) -> Result<(), Stop> {
        let mut values = [step.registers.gpr[RAX]; 2];
        let places = [source, destination];
        for (value, place) in values.iter_mut().zip(&places) {
            if let Some(place) = place {
                *value = self.load_ram(at, place)?;
            }
        }
        for (value, place) in values.iter_mut().zip(&places) {
            if let Some(place) = place {
                *value |= self.load_device(at, place);
            }
        }
        let [left, right] = values;
        step.registers.rflags = Binary::Sub.apply(left, right, size, step.registers.rflags).1;
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
