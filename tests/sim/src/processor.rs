//! The processor of a simulated node: executes the program's instructions
//! over the production page tables, and waits as the engine's guest does.

use crate::failure::{Class, Failure};
use crate::history::{Event, Op, Word};
use crate::host::{Host, Surroundings};
use crate::litmus::Place;
use crate::oracle;
use crate::program::{Instruction, Program};
use crate::scenario::{Defect, Load};
use addr::{Access, Frame, Gfn};
use coherence::Progress;
use machine::{GuestMemory, MemoryError};
use node::streams::{Run, Streams};
use node::view::View;
use paging::memory::fake::VecMemory;
use std::collections::HashMap;

/// Instructions in one turn of the processor.
const TURN: usize = 8;

/// What the processor is at.
#[derive(Debug, Default)]
pub struct Processor {
    pub(crate) instruction: Option<Instruction>,
    /// When the instruction began to wait.
    pub(crate) since: Option<u64>,
    /// The access that it waits for.
    pub(crate) missing: Option<(Gfn, Access)>,
    ready_faults: u32,
    pub(crate) searching: bool,
    pub(crate) next_ns: u64,
    /// It waits for the other programs, and may dawdle that long then.
    pub(crate) meeting: Option<u64>,
    /// What it saw last in each word.
    seen: HashMap<Word, u64>,
    streams: Streams,
}

impl Host {
    pub(crate) fn release_held(&mut self) {
        if let Some(cluster) = &mut self.node.cluster {
            cluster.release_held(&mut self.memory);
        }
    }

    /// Runs the processor for a turn.
    pub(crate) fn run(&mut self, now: u64, at: &mut Surroundings<'_>) -> Result<(), Failure> {
        for _ in 0..TURN {
            if self.program.is_none() || now < self.cpu.next_ns {
                return Ok(());
            }
            if !self.has_instruction() {
                self.release_held(); // it halts
                return Ok(());
            }
            if let Some(Instruction::Meet(skew_ns)) = self.cpu.instruction {
                // The world wakes it when all have come.
                self.cpu.meeting = Some(skew_ns);
                self.cpu.instruction = None;
                self.cpu.next_ns = u64::MAX;
                self.release_held();
                return Ok(());
            }
            let Some(missing) = self.attempt(now, at)? else {
                self.retired(now, at);
                continue;
            };
            if !self.fault(now, missing, at)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fetches an instruction if there is none; `false` if the program is over.
    fn has_instruction(&mut self) -> bool {
        if self.cpu.instruction.is_none() {
            self.cpu.instruction = self.program.as_mut().and_then(Program::fetch);
        }
        self.cpu.instruction.is_some()
    }

    /// Runs the processor with a page that is mapped and whose frame was not
    /// taken, until that has to be: before all but a fault whose request can be
    /// foreseen.
    pub(crate) fn run_early(&mut self, now: u64, at: &mut Surroundings<'_>) -> Result<(), Failure> {
        for _ in 0..TURN {
            let exits = match &self.cpu.instruction {
                Some(Instruction::Touch { by_machine, .. }) => *by_machine,
                Some(Instruction::Word { .. }) => false,
                Some(Instruction::Meet(_)) | None => true,
            };
            if exits || now < self.cpu.next_ns {
                return Ok(());
            }
            if let Some(missing) = self.attempt(now, at)? {
                self.fault_early(now, missing, at);
                return Ok(());
            }
            self.early += 1;
            self.retired(now, at);
            self.has_instruction();
        }
        Ok(())
    }

    /// Faults where the request can leave before the last page's frame is taken.
    fn fault_early(&mut self, now: u64, (gfn, access): (Gfn, Access), at: &mut Surroundings<'_>) {
        if self.cpu.since.is_none() {
            self.release_held();
        }
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        let entry = cluster.coherence_mut().approach(&self.memory, gfn);
        let foreseen = cluster.foresee_fetch(&self.memory, gfn, access, &entry);
        if foreseen.is_none() || self.cpu.streams.are_followed() {
            return;
        }
        self.ask(now, (gfn, access), at);
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        let progress = cluster.access(&mut self.memory, gfn, access, 0);
        self.node.keep_word(now);
        self.cpu.since.get_or_insert(now);
        self.cpu.missing = Some((gfn, access));
        at.trace
            .note(now, gfn, || format!("host {} early {access:?} fault: {progress:?}", self.index));
        self.touched.push(gfn);
    }

    fn retired(&mut self, now: u64, at: &Surroundings<'_>) {
        self.cpu.missing = None;
        let waited = self.cpu.since.take().map_or(0, |since| now - since);
        self.slowest_ns = self.slowest_ns.max(waited);
        if at.scenario.load == Load::Contend {
            self.waits_ns.push((now, waited));
        }
        self.retired += match self.cpu.instruction.take() {
            Some(Instruction::Touch { touches, .. }) => touches.len() as u64,
            Some(Instruction::Word { .. } | Instruction::Meet(_)) | None => 1,
        };
        self.cpu.ready_faults = 0;
        self.cpu.next_ns = now + self.program.as_mut().map_or(0, Program::think);
    }

    /// Executes the instruction if every page is there; else the first that
    /// is missing.
    fn attempt(
        &mut self,
        now: u64,
        at: &mut Surroundings<'_>,
    ) -> Result<Option<(Gfn, Access)>, Failure> {
        let instruction = self.cpu.instruction.clone().expect("there is one");
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        if cluster.take_flush() {
            match at.scenario.defect {
                Some(Defect::KeepsTranslations) => self.mmu.keep_readable(),
                _ => self.mmu.flush(),
            }
        }
        match instruction {
            Instruction::Touch { touches, by_machine: true } => self.by_machine(now, &touches, at),
            Instruction::Touch { touches, by_machine: false } => self.touch(now, &touches, at),
            Instruction::Word { word, op, place } => self.word(now, (word, op, place), at),
            Instruction::Meet(_) => unreachable!("nothing to execute"),
        }
    }

    /// The frame that an access goes to; `None` is a nested page fault.
    fn translate(&mut self, gfn: Gfn, access: Access) -> Result<Option<Frame>, Failure> {
        let cluster = self.node.cluster.as_ref().expect("programs run in a cluster");
        let root = cluster.coherence().root();
        let frame = self.mmu.translate(&mut self.memory, root, gfn, access);
        if let Some(frame) = frame
            && !self.memory.has(frame)
        {
            let what = format!("host {}: a page leads to frame {:#x}", self.index, frame.0);
            return Err(Failure::about(Class::Correctness, gfn, what));
        }
        Ok(frame)
    }

    fn touch(
        &mut self,
        now: u64,
        touches: &[(Gfn, Access)],
        at: &mut Surroundings<'_>,
    ) -> Result<Option<(Gfn, Access)>, Failure> {
        let mut frames = Vec::new();
        for &(gfn, access) in touches {
            match self.translate(gfn, access)? {
                Some(frame) => frames.push(frame),
                None => return Ok(Some((gfn, access))),
            }
        }
        for (&(gfn, access), &frame) in touches.iter().zip(&frames) {
            let found = oracle::marks(&self.memory, Some(frame));
            self.check(now, gfn, found, at)?;
            if access == Access::Write {
                let value = at.oracle.fresh(self.index);
                oracle::mark(&mut self.memory, frame, value);
                self.wrote(now, gfn, value, at);
            }
        }
        Ok(None)
    }

    /// One access to a word, recorded in the history.
    fn word(
        &mut self,
        now: u64,
        (word, op, place): (Word, Op, Option<Place>),
        at: &mut Surroundings<'_>,
    ) -> Result<Option<(Gfn, Access)>, Failure> {
        let access = if op == Op::Load { Access::Read } else { Access::Write };
        let Some(frame) = self.translate(word.gfn, access)? else {
            return Ok(Some((word.gfn, access)));
        };
        let mut found = oracle::read_word(&self.memory, frame, word);
        if at.scenario.defect == Some(Defect::TearsAtomics) && op.is_atomic() {
            // What it read at an earlier instant, if it had looked there.
            found = self.cpu.seen.get(&word).copied().unwrap_or(found);
        }
        let value = match op {
            Op::Load | Op::LockedLoad => None,
            Op::FetchAdd => Some(found + 1),
            Op::CompareExchange if self.cpu.seen.get(&word) != Some(&found) => None,
            Op::Store | Op::Exchange | Op::CompareExchange => Some(at.history.fresh(self.index)),
        };
        if op != Op::Store {
            let who = format_args!("host {}", self.index);
            at.oracle.check_word(word, found, who)?;
        }
        if let Some(value) = value {
            oracle::write_word(&mut self.memory, frame, word, value);
            at.oracle.wrote_word(word, value);
        }
        let event = Event { word, read: (op != Op::Store).then_some(found), wrote: value };
        at.trace.note(now, word.gfn, || format!("host {} {event}", self.index));
        at.history.note(self.index, event);
        if let Some(place) = place {
            at.litmus.push((place, event));
        }
        self.cpu.seen.insert(word, value.unwrap_or(found));
        self.touched.push(word.gfn);
        Ok(None)
    }

    /// The same through the view that the machine's devices use.
    fn by_machine(
        &mut self,
        now: u64,
        touches: &[(Gfn, Access)],
        at: &mut Surroundings<'_>,
    ) -> Result<Option<(Gfn, Access)>, Failure> {
        for &(gfn, access) in touches {
            let mut found = [0; 3];
            for (place, found) in oracle::addresses(gfn).into_iter().zip(&mut found) {
                let mut bytes = [0; 8];
                if let Err(e) = self.view().read(place, &mut bytes) {
                    return Ok(Some(pending(e, gfn)?));
                }
                *found = u64::from_le_bytes(bytes);
            }
            self.check(now, gfn, found, at)?;
            if access == Access::Write {
                let value = at.oracle.fresh(self.index);
                for place in oracle::addresses(gfn) {
                    if let Err(e) = self.view().write(place, &value.to_le_bytes()) {
                        return Ok(Some(pending(e, gfn)?));
                    }
                }
                self.wrote(now, gfn, value, at);
            }
        }
        Ok(None)
    }

    fn view(&mut self) -> View<'_, VecMemory> {
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        View { cluster, memory: &mut self.memory }
    }

    fn check(
        &mut self,
        now: u64,
        gfn: Gfn,
        found: [u64; 3],
        at: &mut Surroundings<'_>,
    ) -> Result<(), Failure> {
        at.trace.note(now, gfn, || format!("host {} reads {:#x}", self.index, found[0]));
        self.touched.push(gfn);
        at.oracle.check(gfn, found, format_args!("host {}", self.index))
    }

    fn wrote(&mut self, now: u64, gfn: Gfn, value: u64, at: &mut Surroundings<'_>) {
        at.trace.note(now, gfn, || format!("host {} writes {value:#x}", self.index));
        at.oracle.wrote(gfn, value);
    }

    /// Asks for a page; `true` if it is there.
    fn fault(
        &mut self,
        now: u64,
        (gfn, access): (Gfn, Access),
        at: &mut Surroundings<'_>,
    ) -> Result<bool, Failure> {
        let first = self.cpu.since.is_none();
        let since = *self.cpu.since.get_or_insert(now);
        if first {
            // Pages kept for the instruction before this one may go.
            self.release_held();
        }
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        cluster.coherence_mut().approach(&self.memory, gfn);
        let open = cluster.coherence().is_open(gfn);
        let run = if first { self.cpu.streams.miss(gfn, open) } else { Run::default() };
        let ahead = run.along_with(gfn);
        let access = if ahead > 0 { run.access(access) } else { access };
        if run.count == 0 {
            self.ask(now, (gfn, access), at);
        }
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        let progress = cluster.access(&mut self.memory, gfn, access, ahead);
        self.node.keep_word(now);
        let cluster = self.node.cluster.as_mut().expect("programs run in a cluster");
        if run.count > ahead {
            let how = run.access(access);
            cluster.prefetch(&mut self.memory, run.from, run.step, run.count, how);
        }
        if first || progress != Progress::Pending {
            at.trace
                .note(now, gfn, || format!("host {} {access:?} fault: {progress:?}", self.index));
        }
        self.touched.push(gfn);
        self.cpu.missing = (progress == Progress::Pending).then_some((gfn, access));
        self.cpu.searching = progress == Progress::Starved && cluster.coherence().puts_open() == 0;
        if progress == Progress::Ready {
            self.cpu.ready_faults += 1;
            if self.cpu.ready_faults > 1000 {
                return Err(Failure::about(Class::Liveness, gfn, "ready, and faults again"));
            }
            return Ok(true);
        }
        self.cpu.ready_faults = 0;
        if now - since > at.scenario.patience_ns() {
            let what = format!("host {} waits for page {:#x}: {progress:?}", self.index, gfn.0);
            return Err(Failure::about(Class::Liveness, gfn, what));
        }
        cluster.still_waiting(&mut self.memory, now);
        Ok(false)
    }
}

fn pending(error: MemoryError, gfn: Gfn) -> Result<(Gfn, Access), Failure> {
    match error {
        MemoryError::Pending { gfn, access } => Ok((gfn, access)),
        MemoryError::NotMemory => {
            Err(Failure::about(Class::Correctness, gfn, "RAM that is no memory"))
        }
    }
}
