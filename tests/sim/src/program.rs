//! Random guest programs: what a node's processor executes.

use crate::rng::Rng;
use crate::scenario::{Load, Scenario, US};
use addr::{Access, Gfn};
use layout::Layout;

/// One instruction, or one access of a device of the guest's machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Pages it touches, all at the same instant.
    pub touches: Vec<(Gfn, Access)>,
    /// Done by the machine on the guest's behalf, not by the processor.
    pub by_machine: bool,
}

/// What a program does for a while.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Random accesses to pages that all nodes like.
    Hot { writes: u64 },
    /// One access to each page of a range.
    Scan { next: Gfn, left: u64, step: u64, access: Access },
}

/// A program and where it stands.
#[derive(Debug)]
pub struct Program {
    rng: Rng,
    load: Load,
    left: u64,
    phase: Phase,
    phase_left: u64,
    hot: Vec<Gfn>,
    layout: Layout,
    think_ns: u64,
}

impl Program {
    /// The program of a node.
    #[must_use]
    pub fn new(scenario: &Scenario, layout: &Layout, node: usize) -> Program {
        // The hot pages are the same at every node.
        let mut common = Rng::new(scenario.seed ^ 0x407);
        let pages = common.between(1, 12);
        let hot = (0..pages).map(|_| some_page(&mut common, layout)).collect();
        let mut rng = Rng::new(scenario.seed ^ (node as u64 + 1) << 32);
        let lends = usize::from(scenario.nodes - scenario.lenders) <= node;
        let think_ns = rng.pick(&[0, 2 * US, 50 * US]);
        Program {
            load: scenario.load,
            left: if lends { 0 } else { scenario.instructions },
            phase: Phase::Hot { writes: 500 },
            phase_left: 0,
            hot,
            layout: layout.clone(),
            think_ns,
            rng,
        }
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.left = 0;
    }

    /// Time until the next instruction.
    pub fn think(&mut self) -> u64 {
        200 + self.rng.below(self.think_ns + 1)
    }

    /// The next instruction.
    pub fn fetch(&mut self) -> Option<Instruction> {
        self.left = self.left.checked_sub(1)?;
        if self.phase_left == 0 {
            self.turn();
        }
        self.phase_left -= 1;
        let by_machine = self.rng.chance(50);
        let touches = match &mut self.phase {
            Phase::Hot { writes } => {
                let writes = *writes;
                let count = self.rng.pick(&[1, 1, 1, 2, 3]);
                (0..count).map(|_| self.hot_touch(writes)).collect()
            }
            Phase::Scan { next, left, step, access } => {
                let touch = (*next, *access);
                *left -= 1;
                let after = next.offset_by(*step);
                *next = if self.layout.home(after).is_some() { after } else { Gfn(0) };
                vec![touch]
            }
        };
        Some(Instruction { touches, by_machine })
    }

    fn hot_touch(&mut self, writes: u64) -> (Gfn, Access) {
        let gfn = self.rng.pick(&self.hot);
        (gfn, if self.rng.chance(writes) { Access::Write } else { Access::Read })
    }

    /// Begins another phase.
    fn turn(&mut self) {
        let hot = match self.load {
            Load::Hot => self.rng.chance(900),
            Load::Sweep => self.rng.chance(100),
            Load::Mixed => self.rng.chance(500),
        };
        self.phase = if hot {
            self.phase_left = self.rng.between(5, 150);
            Phase::Hot { writes: self.rng.pick(&[50, 500, 900]) }
        } else {
            self.scan()
        };
    }

    fn scan(&mut self) -> Phase {
        let long = if self.load == Load::Hot { 30 } else { 900 };
        let left = self.rng.between(10, long);
        self.phase_left = left;
        let access = if self.rng.chance(600) { Access::Write } else { Access::Read };
        let step = self.rng.pick(&[1, 1, 1, 3]);
        Phase::Scan { next: some_page(&mut self.rng, &self.layout), left, step, access }
    }
}

/// A page of RAM, often near the start of a run.
fn some_page(rng: &mut Rng, layout: &Layout) -> Gfn {
    let end = layout.end().0;
    let page = rng.below(end);
    if rng.chance(500) { Gfn(page).run_start().offset_by(page % 4) } else { Gfn(page) }
}
