//! Litmus shapes: short programs of several processors with an outcome that
//! must never be seen, by the names of the field (Alglave, Maranget, Tautschnig,
//! "Herding cats", TOPLAS 2014). Pages are kept sequentially consistent, so
//! SB is forbidden as well.

use crate::history::{Event, Op, SLOTS, Word};
use crate::rng::Rng;
use addr::Gfn;

/// A step of a shape: a write or read of its first or second word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Writes.
    W(usize),
    /// Reads.
    R(usize),
}
use Step::{R, W};

/// Where a read saw the value come from: the step of a thread, or the start.
pub type Source = Option<(usize, usize)>;

/// What the reads of an instance saw, `seen[thread][step]`, and the last
/// writes of both words.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// By thread and step; writes have none.
    pub seen: Vec<Vec<Source>>,
    /// Last write of each word.
    pub last: [Source; 2],
}

/// A shape.
#[derive(Debug)]
pub struct Shape {
    /// Its name.
    pub name: &'static str,
    /// Steps of each thread.
    pub threads: &'static [&'static [Step]],
    /// Whether the outcome is the forbidden one.
    pub forbidden: fn(&Outcome) -> bool,
}

const START: Source = None;

/// All shapes.
pub const SHAPES: &[Shape] = &[
    Shape {
        name: "SB",
        threads: &[&[W(0), R(1)], &[W(1), R(0)]],
        forbidden: |o| o.seen[0][1] == START && o.seen[1][1] == START,
    },
    Shape {
        name: "MP",
        threads: &[&[W(0), W(1)], &[R(1), R(0)]],
        forbidden: |o| o.seen[1][0] == Some((0, 1)) && o.seen[1][1] == START,
    },
    Shape {
        name: "LB",
        threads: &[&[R(0), W(1)], &[R(1), W(0)]],
        forbidden: |o| o.seen[0][0] == Some((1, 1)) && o.seen[1][0] == Some((0, 1)),
    },
    Shape {
        name: "CoRR",
        threads: &[&[W(0)], &[R(0), R(0)]],
        forbidden: |o| o.seen[1][0] == Some((0, 0)) && o.seen[1][1] == START,
    },
    Shape {
        name: "2+2W",
        threads: &[&[W(0), W(1)], &[W(1), W(0)]],
        forbidden: |o| o.last == [Some((0, 0)), Some((1, 0))],
    },
    Shape {
        name: "WRC",
        threads: &[&[W(0)], &[R(0), W(1)], &[R(1), R(0)]],
        forbidden: |o| {
            o.seen[1][0] == Some((0, 0)) && o.seen[2][0] == Some((1, 1)) && o.seen[2][1] == START
        },
    },
    Shape {
        name: "IRIW",
        threads: &[&[W(0)], &[W(1)], &[R(0), R(1)], &[R(1), R(0)]],
        forbidden: |o| o.seen[2] == [Some((0, 0)), START] && o.seen[3] == [Some((1, 0)), START],
    },
];

/// How the steps are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Variant {
    /// Loads and stores.
    Plain,
    /// Writes are exchanges.
    Exchange,
    /// Writes are fetch-adds.
    Add,
    /// Writes are compare-exchanges, reads are locked too.
    Locked,
}

impl Variant {
    const ALL: [Variant; 4] = [Variant::Plain, Variant::Exchange, Variant::Add, Variant::Locked];

    fn op(self, step: Step) -> Op {
        match (step, self) {
            (R(_), Variant::Locked) => Op::LockedLoad,
            (R(_), _) => Op::Load,
            (W(_), Variant::Plain) => Op::Store,
            (W(_), Variant::Exchange | Variant::Locked) => Op::Exchange,
            (W(_), Variant::Add) => Op::FetchAdd,
        }
    }
}

/// A shape on two fresh words, given to processors.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Which of [`SHAPES`].
    pub shape: usize,
    /// How.
    pub variant: Variant,
    /// The words.
    pub words: [Word; 2],
    /// The processor of each thread.
    pub cpus: Vec<usize>,
    /// A word beside each of them that every thread reads first, so that it
    /// begins with a replica.
    pub warm: Option<[Word; 2]>,
    /// Most time that a thread begins after the others, in nanoseconds.
    pub skew_ns: u64,
}

/// A step as a processor does it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// Waits until every processor is here.
    Meet {
        /// Most time to dawdle after it.
        skew_ns: u64,
    },
    /// An access that counts for the outcome if it has a place.
    Access {
        /// The word.
        word: Word,
        /// How.
        op: Op,
        /// Its instance, thread and step, or the reading of a last value.
        place: Option<Place>,
    },
}

/// Which part of which instance an access is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Instance.
    pub instance: usize,
    /// Thread; one past the last for the reading of last values.
    pub thread: usize,
    /// Step, or word.
    pub step: usize,
}

/// The same instances for every processor of a cluster: pages of `pages`,
/// words used once.
#[must_use]
pub fn plan(rng: &mut Rng, pages: &[Gfn], cpus: usize, most: usize) -> Vec<Instance> {
    let mut instances = Vec::new();
    let mut used = vec![0u8; pages.len()];
    // The last slot of each page is read to warm up and never written.
    let warm_slot = SLOTS - 1;
    while instances.len() < most {
        let shape = rng.below(SHAPES.len() as u64) as usize;
        if SHAPES[shape].threads.len() > cpus {
            continue;
        }
        let free: Vec<usize> = (0..pages.len()).filter(|&p| used[p] + 2 <= warm_slot).collect();
        if free.is_empty() {
            break;
        }
        let at = [rng.pick(&free), rng.pick(&free)];
        let words = at.map(|p| {
            used[p] += 1;
            Word { gfn: pages[p], slot: used[p] - 1 }
        });
        let mut order: Vec<usize> = (0..cpus).collect();
        (0..cpus).for_each(|i| order.swap(i, i + rng.below((cpus - i) as u64) as usize));
        order.truncate(SHAPES[shape].threads.len());
        let warm = words.map(|w| Word { slot: warm_slot, ..w });
        instances.push(Instance {
            shape,
            variant: rng.pick(&Variant::ALL),
            words,
            cpus: order,
            warm: rng.chance(600).then_some(warm),
            skew_ns: rng.pick(&[0, 5_000, 40_000]),
        });
    }
    instances
}

/// What one processor does in a plan.
#[must_use]
pub fn moves(plan: &[Instance], cpu: usize) -> Vec<Move> {
    let mut moves = Vec::new();
    for (instance, i) in plan.iter().enumerate() {
        let access = |word, op, place| Move::Access { word, op, place };
        let thread = i.cpus.iter().position(|&c| c == cpu);
        if thread.is_some() {
            let warm = i.warm.into_iter().flatten();
            moves.extend(warm.map(|word| access(word, Op::Load, None)));
        }
        moves.push(Move::Meet { skew_ns: i.skew_ns });
        if let Some(thread) = thread {
            for (step, &what) in SHAPES[i.shape].threads[thread].iter().enumerate() {
                let (W(w) | R(w)) = what;
                let place = Some(Place { instance, thread, step });
                moves.push(access(i.words[w], i.variant.op(what), place));
            }
        }
        moves.push(Move::Meet { skew_ns: 0 });
        if thread == Some(0) {
            for (step, &word) in i.words.iter().enumerate() {
                let place = Some(Place { instance, thread: i.cpus.len(), step });
                moves.push(access(word, Op::Load, place));
            }
        }
    }
    moves
}

/// What came of a plan: complete instances, and the first forbidden outcome.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Complete instances.
    pub judged: u64,
    /// Distinct outcomes, by shape: how much was really a race.
    pub outcomes: std::collections::BTreeSet<String>,
    /// The first forbidden outcome.
    pub forbidden: Option<(String, Gfn)>,
}

/// Judges all complete instances.
#[must_use]
pub fn judge(plan: &[Instance], done: &[(Place, Event)]) -> Verdict {
    let mut verdict = Verdict::default();
    for (n, instance) in plan.iter().enumerate() {
        let mine: Vec<_> = done.iter().filter(|(p, _)| p.instance == n).collect();
        let shape = &SHAPES[instance.shape];
        let steps: usize = shape.threads.iter().map(|t| t.len()).sum();
        if mine.len() < steps + 2 {
            continue;
        }
        verdict.judged += 1;
        let outcome = outcome(instance, &mine);
        if (shape.forbidden)(&outcome) && verdict.forbidden.is_none() {
            let what = format!("{} ({:?}): {outcome:?}", shape.name, instance.variant);
            verdict.forbidden = Some((what, instance.words[0].gfn));
        }
        verdict.outcomes.insert(format!("{} {:?} {:?}", shape.name, outcome.seen, outcome.last));
    }
    verdict
}

fn outcome(instance: &Instance, done: &[&(Place, Event)]) -> Outcome {
    let threads = SHAPES[instance.shape].threads;
    let source = |event: &Event| -> Source {
        let value = event.read.filter(|&v| v != 0)?;
        let wrote = |(_, e): &&&(Place, Event)| e.word == event.word && e.wrote == Some(value);
        let (place, _) = done.iter().find(wrote).expect("fresh words are written here only");
        Some((place.thread, place.step))
    };
    let mut outcome =
        Outcome { seen: threads.iter().map(|t| vec![None; t.len()]).collect(), last: [None; 2] };
    for (place, event) in done {
        if place.thread == threads.len() {
            outcome.last[place.step] = source(event);
        } else if matches!(threads[place.thread][place.step], R(_)) {
            outcome.seen[place.thread][place.step] = source(event);
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of an instance in which each read is told what it sees.
    fn events(
        shape: usize,
        reads: &[Source],
        last: [Source; 2],
    ) -> (Instance, Vec<(Place, Event)>) {
        let word = |slot| Word { gfn: Gfn(1), slot };
        let words = [word(0), word(1)];
        let threads = SHAPES[shape].threads;
        let value = |s: Source| s.map_or(0, |(t, n)| 1 + (t * 8 + n) as u64);
        let mut reads = reads.iter();
        let mut done = Vec::new();
        for (thread, steps) in threads.iter().enumerate() {
            for (step, what) in steps.iter().enumerate() {
                let event = match what {
                    W(w) => Event::store(words[*w], value(Some((thread, step)))),
                    R(w) => Event::load(words[*w], value(*reads.next().unwrap())),
                };
                done.push((Place { instance: 0, thread, step }, event));
            }
        }
        for step in 0..2 {
            let place = Place { instance: 0, thread: threads.len(), step };
            done.push((place, Event::load(words[step], value(last[step]))));
        }
        let variant = Variant::Plain;
        let instance = Instance {
            shape,
            variant,
            words,
            cpus: vec![0; threads.len()],
            warm: None,
            skew_ns: 0,
        };
        (instance, done)
    }

    fn named(name: &str) -> usize {
        SHAPES.iter().position(|s| s.name == name).unwrap()
    }

    #[track_caller]
    fn forbidden(name: &str, reads: &[Source], last: [Source; 2], is: bool) {
        let (instance, done) = events(named(name), reads, last);
        let verdict = judge(&[instance], &done);
        assert_eq!(verdict.judged, 1);
        assert_eq!(verdict.forbidden.is_some(), is, "{name} {reads:?} {last:?}");
    }

    #[test]
    fn each_shape_forbids_its_outcome_and_no_other() {
        let none = [None; 2];
        forbidden("SB", &[None, None], none, true);
        forbidden("SB", &[Some((1, 0)), None], none, false);
        forbidden("MP", &[Some((0, 1)), None], none, true);
        forbidden("MP", &[Some((0, 1)), Some((0, 0))], none, false);
        forbidden("MP", &[None, None], none, false);
        forbidden("LB", &[Some((1, 1)), Some((0, 1))], none, true);
        forbidden("LB", &[Some((1, 1)), None], none, false);
        forbidden("CoRR", &[Some((0, 0)), None], none, true);
        forbidden("CoRR", &[None, Some((0, 0))], none, false);
        forbidden("2+2W", &[], [Some((0, 0)), Some((1, 0))], true);
        forbidden("2+2W", &[], [Some((1, 1)), Some((1, 0))], false);
        forbidden("WRC", &[Some((0, 0)), Some((1, 1)), None], none, true);
        forbidden("WRC", &[None, Some((1, 1)), None], none, false);
        let (x, y) = (Some((0, 0)), Some((1, 0)));
        forbidden("IRIW", &[x, None, y, None], none, true);
        forbidden("IRIW", &[x, None, y, x], none, false);
    }

    #[test]
    fn an_instance_that_was_cut_short_is_not_judged() {
        let (instance, mut done) = events(named("SB"), &[None, None], [None; 2]);
        done.pop();
        assert_eq!(judge(&[instance], &done).judged, 0);
    }

    #[test]
    fn plans_use_each_word_once_and_let_all_meet_alike() {
        let pages: Vec<Gfn> = (0..6).map(Gfn).collect();
        let plan = plan(&mut Rng::new(5), &pages, 3, 30);
        assert!(plan.len() > 25, "{}", plan.len());
        let mut words: Vec<Word> = plan.iter().flat_map(|i| i.words).collect();
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
        assert!(words.iter().all(|w| w.slot < SLOTS - 1));
        let meets =
            |cpu| moves(&plan, cpu).iter().filter(|m| matches!(m, Move::Meet { .. })).count();
        assert!((0..3).all(|cpu| meets(cpu) == 2 * plan.len()));
    }
}
