//! Whether one order of all operations explains a history (Lamport's
//! sequential consistency, 1979), word by word and over all words.
//!
//! The graph of what must come before what starts with program order and
//! with every read after the write it saw. Then, until nothing new follows,
//! for a read of a word that saw write `w`:
//!
//! - another write of the word that must precede the read must precede `w`;
//! - another write of the word that must follow `w` must follow the read.
//!
//! A cycle means that no order exists. (Saturation after Biswas and Enea, "On
//! the complexity of checking transactional consistency", OOPSLA 2019: every
//! cycle found is a real one. To decide the rest is NP-complete, Gibbons and
//! Korach 1997, and would need writes whose order nothing else fixes.)
//!
//! Program order makes each processor a chain, so that "must precede" is one
//! number for each processor and event (a vector clock) instead of a matrix.

use super::{Event, History, Word};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why no order explains a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// A value was read that nobody wrote.
    OutOfThinAir {
        /// What was read.
        event: Event,
    },
    /// One value was written twice: the history cannot be judged.
    WrittenTwice {
        /// The second write.
        event: Event,
    },
    /// The operations on one word alone contradict each other.
    Incoherent {
        /// The word.
        word: Word,
        /// Events that each must precede the next, and the last the first.
        cycle: Vec<(usize, Event)>,
    },
    /// Each word is coherent; their operations together are not in any order.
    Unordered {
        /// As above.
        cycle: Vec<(usize, Event)>,
    },
}

impl Flaw {
    /// The page it shows at.
    #[must_use]
    pub fn word(&self) -> Option<Word> {
        match self {
            Flaw::OutOfThinAir { event } | Flaw::WrittenTwice { event } => Some(event.word),
            Flaw::Incoherent { word, .. } => Some(*word),
            Flaw::Unordered { cycle } => cycle.first().map(|(_, e)| e.word),
        }
    }
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |f: &mut std::fmt::Formatter<'_>, cycle: &[(usize, Event)]| {
            cycle.iter().try_for_each(|(cpu, event)| write!(f, "\n    cpu {cpu}: {event}"))
        };
        match self {
            Flaw::OutOfThinAir { event } => write!(f, "a value that nobody wrote: {event}"),
            Flaw::WrittenTwice { event } => write!(f, "a value written twice: {event}"),
            Flaw::Incoherent { word, cycle } => {
                write!(f, "{word} is not coherent; each of these precedes the next, in a circle:")?;
                show(f, cycle)
            }
            Flaw::Unordered { cycle } => {
                write!(f, "no order of all operations; each precedes the next, in a circle:")?;
                show(f, cycle)
            }
        }
    }
}

/// Looks for a flaw.
///
/// # Errors
/// The first flaw found; those of single words come first.
pub fn check(history: &History) -> Result<(), Flaw> {
    let Err(whole) = Graph::new(history)?.saturate() else { return Ok(()) };
    let words: BTreeSet<Word> = whole.iter().map(|(_, e)| e.word).collect();
    for word in words {
        if let Err(cycle) = Graph::new(&history.of_word(word))?.saturate() {
            return Err(Flaw::Incoherent { word, cycle });
        }
    }
    Err(Flaw::Unordered { cycle: whole })
}

/// An event by processor and place in its program.
type At = (usize, usize);
type Cycle = Vec<(usize, Event)>;

struct Graph<'a> {
    history: &'a History,
    /// Index of the first event of each processor.
    starts: Vec<usize>,
    /// Edges besides program order, by target.
    before: Vec<BTreeSet<usize>>,
    /// `clocks[e][c]`: how many events of processor c must precede e.
    clocks: Vec<u32>,
    /// Writes of each word by each processor, as places in its program.
    writes: BTreeMap<Word, Vec<Vec<usize>>>,
    /// The write that each read saw; none for the initial zero.
    saw: Vec<(usize, Option<At>)>,
}

impl<'a> Graph<'a> {
    fn new(history: &'a History) -> Result<Graph<'a>, Flaw> {
        let cpus = history.cpus.len();
        let mut starts = Vec::new();
        let mut total = 0;
        for events in &history.cpus {
            starts.push(total);
            total += events.len();
        }
        let mut writer: HashMap<(Word, u64), At> = HashMap::new();
        let mut writes: BTreeMap<Word, Vec<Vec<usize>>> = BTreeMap::new();
        for (cpu, events) in history.cpus.iter().enumerate() {
            for (place, event) in events.iter().enumerate() {
                let Some(value) = event.wrote else { continue };
                let again = writer.insert((event.word, value), (cpu, place)).is_some();
                if again || value == 0 {
                    return Err(Flaw::WrittenTwice { event: *event });
                }
                writes.entry(event.word).or_insert_with(|| vec![Vec::new(); cpus])[cpu].push(place);
            }
        }
        let mut graph = Graph {
            history,
            before: vec![BTreeSet::new(); total],
            clocks: vec![0; total * cpus],
            writes,
            saw: Vec::new(),
            starts,
        };
        for (cpu, events) in history.cpus.iter().enumerate() {
            for (place, event) in events.iter().enumerate() {
                let Some(value) = event.read else { continue };
                let source = writer.get(&(event.word, value)).copied();
                if source.is_none() && value != 0 {
                    return Err(Flaw::OutOfThinAir { event: *event });
                }
                let reader = graph.starts[cpu] + place;
                graph.saw.push((reader, source));
                if let Some(source) = source {
                    graph.add(graph.index(source), reader);
                }
            }
        }
        Ok(graph)
    }

    fn index(&self, (cpu, place): At) -> usize {
        self.starts[cpu] + place
    }

    fn at(&self, index: usize) -> At {
        let cpu = self.starts.partition_point(|&s| s <= index) - 1;
        (cpu, index - self.starts[cpu])
    }

    fn event(&self, index: usize) -> (usize, Event) {
        let (cpu, place) = self.at(index);
        (cpu, self.history.cpus[cpu][place])
    }

    fn clock(&self, index: usize) -> &[u32] {
        let cpus = self.starts.len();
        &self.clocks[index * cpus..][..cpus]
    }

    /// Adds an edge; whether it is news.
    fn add(&mut self, from: usize, to: usize) -> bool {
        from != to && self.before[to].insert(from)
    }

    /// Adds what follows until nothing does; a cycle if one appears.
    fn saturate(&mut self) -> Result<(), Cycle> {
        loop {
            self.advance_clocks()?;
            let mut news = Vec::new();
            for &(reader, source) in &self.saw {
                self.follow(reader, source, &mut news);
            }
            let fresh = news.into_iter().filter(|&(from, to)| self.add(from, to)).count();
            if fresh == 0 {
                return Ok(());
            }
        }
    }

    /// What follows from one read.
    fn follow(&self, reader: usize, source: Option<At>, news: &mut Vec<(usize, usize)>) {
        let (_, event) = self.event(reader);
        let Some(writes) = self.writes.get(&event.word) else { return };
        for (cpu, places) in writes.iter().enumerate() {
            // The last write by this processor that must precede the read.
            let known = self.clock(reader)[cpu] as usize;
            let last = places.partition_point(|&p| p < known);
            if let Some(&place) = last.checked_sub(1).and_then(|i| places.get(i))
                && source != Some((cpu, place))
                && self.index((cpu, place)) != reader
            {
                // Nothing precedes the initial value: the edge below closes
                // the cycle then.
                let to = source.map_or(self.index((cpu, place)), |s| self.index(s));
                news.push((self.index((cpu, place)), to));
            }
            // The first that must follow the write it saw.
            let not_yet = |&p: &usize| match source {
                None => false,
                Some((c, place)) => {
                    (c == cpu && p <= place)
                        || (c != cpu && self.clock(self.index((cpu, p)))[c] as usize <= place)
                }
            };
            let mut first = places.partition_point(not_yet);
            if places.get(first).is_some_and(|&p| self.index((cpu, p)) == reader) {
                first += 1; // an atomic's own write
            }
            if let Some(&place) = places.get(first) {
                news.push((reader, self.index((cpu, place))));
            }
        }
    }

    /// Recomputes all clocks in one topological pass.
    fn advance_clocks(&mut self) -> Result<(), Cycle> {
        let cpus = self.starts.len();
        let mut next = vec![0; cpus];
        let mut done = vec![false; self.before.len()];
        let mut row = vec![0; cpus];
        loop {
            let mut moved = false;
            for cpu in 0..cpus {
                while next[cpu] < self.history.cpus[cpu].len() {
                    let index = self.starts[cpu] + next[cpu];
                    if !self.before[index].iter().all(|&b| done[b]) {
                        break;
                    }
                    row.fill(0);
                    if next[cpu] > 0 {
                        row.copy_from_slice(self.clock(index - 1));
                    }
                    row[cpu] = next[cpu] as u32;
                    for &b in &self.before[index] {
                        let (from, place) = self.at(b);
                        row.iter_mut().zip(self.clock(b)).for_each(|(r, &c)| *r = (*r).max(c));
                        row[from] = row[from].max(place as u32 + 1);
                    }
                    self.clocks[index * cpus..][..cpus].copy_from_slice(&row);
                    done[index] = true;
                    next[cpu] += 1;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let stuck = |&cpu: &usize| next[cpu] < self.history.cpus[cpu].len();
        match (0..cpus).find(stuck) {
            None => Ok(()),
            Some(cpu) => Err(self.cycle(self.starts[cpu] + next[cpu], &done)),
        }
    }

    /// A shortest cycle among what is not `done`, from near `stuck`.
    fn cycle(&self, stuck: usize, done: &[bool]) -> Cycle {
        // Backwards from a stuck event everything stuck has a stuck event
        // before it: walk until one comes again, then look for the shortest
        // way round from there.
        let mut seen = BTreeSet::new();
        let mut at = stuck;
        while seen.insert(at) {
            at = self.predecessors(at).find(|&b| !done[b]).expect("a stuck event waits for one");
        }
        let mut parent = HashMap::new();
        let mut queue = std::collections::VecDeque::from([at]);
        while let Some(index) = queue.pop_front() {
            for b in self.predecessors(index).filter(|&b| !done[b]) {
                if b == at {
                    let mut path = vec![self.event(at)];
                    let mut step = index;
                    while step != at {
                        path.push(self.event(step));
                        step = parent[&step];
                    }
                    return path;
                }
                if let std::collections::hash_map::Entry::Vacant(v) = parent.entry(b) {
                    v.insert(index);
                    queue.push_back(b);
                }
            }
        }
        unreachable!("{at} lies on a cycle")
    }

    fn predecessors(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let (_, place) = self.at(index);
        let own = (place > 0).then(|| index - 1);
        own.into_iter().chain(self.before[index].iter().copied())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
