//! Random guest programs: what a node's processor executes.

use crate::history::{Op, SLOTS, Word};
use crate::litmus::{self, Instance, Move, Place};
use crate::rng::Rng;
use crate::scenario::{Load, SPARSE_PAGES, Scenario, US};
use addr::{Access, Gfn, RUN_PAGES};
use layout::Layout;
use std::collections::VecDeque;

/// One instruction, or one access of a device of the guest's machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Instruction {
    /// Touches whole pages, all at the same instant.
    Touch {
        /// The pages.
        touches: Vec<(Gfn, Access)>,
        /// Done by the machine on the guest's behalf, not by the processor.
        by_machine: bool,
    },
    /// Accesses a word.
    Word {
        /// The word.
        word: Word,
        /// How.
        op: Op,
        /// The litmus step it is.
        place: Option<Place>,
    },
    /// Waits until all programs are here, then up to so many nanoseconds.
    Meet(u64),
}

/// What a program does for a while.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Random accesses to pages that all nodes like.
    Hot { writes: u64 },
    /// Random accesses to words of those pages; `own` of a thousand go to
    /// words that no other node writes (false sharing).
    Words { writes: u64, atomics: u64, own: u64 },
    /// The same anywhere in memory.
    Uniform { writes: u64 },
    /// One access to each page of a range.
    Scan { next: Gfn, left: u64, step: u64, access: Access },
}

/// A program and where it stands.
#[derive(Debug)]
pub struct Program {
    rng: Rng,
    node: usize,
    load: Load,
    left: u64,
    phase: Phase,
    phase_left: u64,
    hot: Vec<Gfn>,
    layout: Layout,
    think_ns: u64,
    litmus: VecDeque<Move>,
}

/// The litmus instances of a scenario; the same at every node.
#[must_use]
pub fn litmus_plan(scenario: &Scenario, layout: &Layout) -> Vec<Instance> {
    if scenario.load != Load::Litmus {
        return Vec::new();
    }
    let mut rng = Rng::new(scenario.seed ^ 0x117);
    let pages: Vec<Gfn> =
        (0..rng.between(2, 8)).map(|_| some_page(&mut rng, layout, scenario.load)).collect();
    let distinct: std::collections::BTreeSet<Gfn> = pages.into_iter().collect();
    let pages: Vec<Gfn> = distinct.into_iter().collect();
    litmus::plan(&mut rng, &pages, usize::from(scenario.nodes), scenario.litmus)
}

impl Program {
    /// The program of a node.
    #[must_use]
    pub fn new(scenario: &Scenario, layout: &Layout, node: usize, plan: &[Instance]) -> Program {
        // The hot pages are the same at every node.
        let mut common = Rng::new(scenario.seed ^ 0x407);
        let pages = common.between(1, 12);
        let hot = (0..pages).map(|_| some_page(&mut common, layout, scenario.load)).collect();
        let mut rng = Rng::new(scenario.seed ^ (node as u64 + 1) << 32);
        let lends = usize::from(scenario.nodes - scenario.lenders) <= node;
        let think_ns = rng.pick(&[0, 2 * US, 50 * US]);
        Program {
            node,
            load: scenario.load,
            left: if lends { 0 } else { scenario.instructions },
            phase: Phase::Hot { writes: 500 },
            phase_left: 0,
            hot,
            layout: layout.clone(),
            think_ns,
            rng,
            litmus: match scenario.load {
                Load::Contend => [Move::Meet { skew_ns: 0 }].into(),
                _ => litmus::moves(plan, node).into(),
            },
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.litmus.is_empty()
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.left = 0;
        self.litmus.clear();
    }

    /// Time until the next instruction.
    pub fn think(&mut self) -> u64 {
        if !self.litmus.is_empty() {
            return 50 + self.rng.below(1_000);
        }
        200 + self.rng.below(self.think_ns + 1)
    }

    /// How long it dawdles after a meeting.
    pub fn dawdle(&mut self, most_ns: u64) -> u64 {
        self.rng.below(most_ns + 1)
    }

    /// The next instruction.
    pub fn fetch(&mut self) -> Option<Instruction> {
        if let Some(next) = self.litmus.pop_front() {
            return Some(match next {
                Move::Meet { skew_ns } => Instruction::Meet(skew_ns),
                Move::Access { word, op, place } => Instruction::Word { word, op, place },
            });
        }
        self.left = self.left.checked_sub(1)?;
        if self.phase_left == 0 {
            self.turn();
        }
        self.phase_left -= 1;
        Some(self.phase_instruction())
    }

    fn phase_instruction(&mut self) -> Instruction {
        if self.load == Load::Contend {
            let (a, b) = (Gfn(512), Gfn(1));
            let pages =
                if self.left.is_multiple_of(2) { vec![a, b] } else { vec![self.rng.pick(&[a, b])] };
            let touches = pages.into_iter().map(|gfn| (gfn, Access::Write)).collect();
            return Instruction::Touch { touches, by_machine: false };
        }
        let by_machine = self.rng.chance(50);
        match &mut self.phase {
            Phase::Hot { writes } => {
                let writes = *writes;
                let count = self.rng.pick(&[1, 1, 1, 2, 3]);
                let touches = (0..count).map(|_| self.hot_touch(writes)).collect();
                Instruction::Touch { touches, by_machine }
            }
            Phase::Words { writes, atomics, own } => {
                let (writes, atomics, own) = (*writes, *atomics, *own);
                let gfn = self.rng.pick(&self.hot);
                self.word(gfn, writes, atomics, own)
            }
            Phase::Uniform { writes } => {
                let writes = *writes;
                let gfn = some_page(&mut self.rng, &self.layout, self.load);
                if self.rng.chance(500) {
                    return self.word(gfn, writes, 300, 0);
                }
                let access = if self.rng.chance(writes) { Access::Write } else { Access::Read };
                Instruction::Touch { touches: vec![(gfn, access)], by_machine }
            }
            Phase::Scan { next, left, step, access } => {
                let touch = (*next, *access);
                *left -= 1;
                let after = next.offset_by(*step);
                *next = if self.layout.home(after).is_some() { after } else { Gfn(0) };
                Instruction::Touch { touches: vec![touch], by_machine }
            }
        }
    }

    fn word(&mut self, gfn: Gfn, writes: u64, atomics: u64, own: u64) -> Instruction {
        let mine = self.rng.chance(own);
        let slot =
            if mine { self.node as u64 % u64::from(SLOTS) } else { self.rng.pick(&[0, 0, 1, 9]) };
        let op = match (self.rng.chance(writes), self.rng.chance(atomics)) {
            (true, true) => {
                self.rng.pick(&[Op::FetchAdd, Op::FetchAdd, Op::Exchange, Op::CompareExchange])
            }
            (true, false) => Op::Store,
            (false, true) => Op::LockedLoad,
            (false, false) => Op::Load,
        };
        Instruction::Word { word: Word { gfn, slot: slot as u8 }, op, place: None }
    }

    fn hot_touch(&mut self, writes: u64) -> (Gfn, Access) {
        let gfn = self.rng.pick(&self.hot);
        (gfn, if self.rng.chance(writes) { Access::Write } else { Access::Read })
    }

    /// Begins another phase.
    fn turn(&mut self) {
        let weights = match self.load {
            Load::Hot => [400, 900, 900],
            Load::Sharing => [50, 1000, 1000],
            Load::Uniform => [50, 150, 950],
            Load::Sweep => [50, 100, 100],
            Load::Sparse => [50, 200, 700],
            Load::Runs => [100, 200, 500],
            Load::Mixed | Load::Litmus | Load::Contend => [200, 450, 550],
        };
        let die = self.rng.below(1000);
        self.phase_left = self.rng.between(5, 150);
        self.phase = if die < weights[0] {
            Phase::Hot { writes: self.rng.pick(&[50, 500, 900]) }
        } else if die < weights[1] {
            let own = if self.load == Load::Sharing { self.rng.pick(&[600, 900]) } else { 0 };
            let (writes, atomics) = (self.rng.pick(&[50, 400, 700]), self.rng.pick(&[0, 300, 900]));
            Phase::Words { writes, atomics, own }
        } else if die < weights[2] {
            Phase::Uniform { writes: self.rng.pick(&[100, 500]) }
        } else {
            self.scan()
        };
    }

    fn scan(&mut self) -> Phase {
        if self.load == Load::Runs {
            self.phase_left = RUN_PAGES;
            let next = some_page(&mut self.rng, &self.layout, self.load).run_start();
            return Phase::Scan { next, left: RUN_PAGES, step: 1, access: Access::Write };
        }
        let long = if matches!(self.load, Load::Hot | Load::Sharing) { 30 } else { 900 };
        let left = self.rng.between(10, long);
        self.phase_left = left;
        let access = if self.rng.chance(600) { Access::Write } else { Access::Read };
        let step = match self.load {
            Load::Sparse => RUN_PAGES,
            _ => self.rng.pick(&[1, 1, 1, 3]),
        };
        let next = some_page(&mut self.rng, &self.layout, self.load);
        Phase::Scan { next, left, step, access }
    }
}

/// A page of RAM, often near the start of a run.
fn some_page(rng: &mut Rng, layout: &Layout, load: Load) -> Gfn {
    let end = layout.end().0;
    let page = rng.below(end);
    if load == Load::Sparse {
        return Gfn(page).run_start().offset_by(page % SPARSE_PAGES);
    }
    if rng.chance(500) { Gfn(page).run_start().offset_by(page % 4) } else { Gfn(page) }
}
