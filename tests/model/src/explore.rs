//! Breadth-first search through all states.
//!
//! A step changes one node only, so nodes are shared between states, and what
//! an input does to a node is remembered: the engine runs once for each pair
//! of node and input, however many states they meet in.

use crate::check;
use crate::config::Config;
use crate::hash::Mixer;
use crate::local::{Input, Local, Outcome};
use crate::rows::Recorder;
use crate::state::{Action, Own, State};
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

/// Outcomes remembered at most.
const MEMORY_MAX: usize = 1 << 20;
/// Frames that the fabric still refers to at most when their message has
/// arrived, where it takes its time.
const LATE_MAX: usize = 2;
/// Marks a state that is not followed by another on the way to rest.
const RESTS: u64 = 0;

/// What was explored.
#[derive(Clone, Copy, Default, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps taken between them.
    pub steps: usize,
    /// Steps of the longest of the shortest ways to a state.
    pub depth: usize,
    /// States in which nothing is open or under way.
    pub quiet: usize,
    /// Nothing is left to explore.
    pub complete: bool,
}

/// A state that must not be, and how it comes about.
#[derive(Debug)]
pub struct Failure {
    /// The model.
    pub model: &'static str,
    /// What is wrong.
    pub why: String,
    /// The steps to it.
    pub path: Vec<String>,
    /// States seen before it.
    pub states: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model {}: {}", self.model, self.why)?;
        for (at, step) in self.path.iter().enumerate() {
            writeln!(f, "{:>4}. {step}", at + 1)?;
        }
        write!(f, "  again: cargo pangaea model --only {}", self.model)
    }
}

/// A step: what happens, and which nodes seem to have room.
#[derive(Clone, Copy, Debug)]
struct Step(Action, u8);

/// Where a state came from.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    step: Step,
}

/// What the network does that the fabric never does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A message may get lost.
    Lose,
    /// A message may arrive twice.
    Double,
    /// A frame is let go of when its message is sent.
    ReleaseEarly,
}

impl Fault {
    /// The fault of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Fault> {
        match name {
            "message-lost" => Some(Fault::Lose),
            "message-doubled" => Some(Fault::Double),
            "released-when-sent" => Some(Fault::ReleaseEarly),
            _ => None,
        }
    }
}

/// The search.
pub struct Explorer<'a> {
    config: &'a Config,
    /// A fault of the network.
    pub fault: Option<Fault>,
    /// Rows that were taken.
    pub recorder: Recorder,
    outcomes: FxHashMap<u64, Arc<Outcome>>,
    nodes: FxHashMap<u64, Arc<Local>>,
    known: FxHashMap<u64, u32>,
    origins: Vec<Origin>,
    /// By state: the fingerprint of the next one on the way to rest.
    to_rest: Vec<u64>,
}

impl<'a> Explorer<'a> {
    /// A search that has not begun.
    #[must_use]
    pub fn new(config: &'a Config) -> Explorer<'a> {
        Explorer {
            config,
            fault: None,
            recorder: Recorder::default(),
            outcomes: FxHashMap::default(),
            nodes: FxHashMap::default(),
            known: FxHashMap::default(),
            origins: Vec::new(),
            to_rest: Vec::new(),
        }
    }

    /// Explores up to `most` states. `level` is told the depth and the number
    /// of states whenever all states of a depth are known.
    ///
    /// # Errors
    /// The first state found that must not be.
    pub fn run(
        &mut self,
        most: usize,
        level: &mut dyn FnMut(&Explored, usize),
    ) -> Result<Explored, Box<Failure>> {
        let mut explored = Explored { complete: true, ..Explored::default() };
        let first = State::new(self.config);
        self.known.insert(first.fingerprint(), 0);
        self.origins.push(Origin { parent: 0, step: Step(Action::Do(0, Own::Retire), 0) });
        let mut frontier = vec![(0, first)];
        while !frontier.is_empty() {
            let mut next = Vec::new();
            for (index, state) in frontier.drain(..) {
                if self.known.len() >= most {
                    explored.complete = false;
                    break;
                }
                self.expand(index, &state, &mut next, &mut explored)?;
            }
            explored.states = self.known.len();
            explored.depth += usize::from(!next.is_empty());
            frontier = next;
            level(&explored, frontier.len());
            if !explored.complete {
                break;
            }
            self.nodes.retain(|_, node| Arc::strong_count(node) > 1);
        }
        self.check_rest(explored.complete)?;
        Ok(explored)
    }

    fn expand(
        &mut self,
        index: u32,
        state: &State,
        next: &mut Vec<(u32, State)>,
        explored: &mut Explored,
    ) -> Result<(), Box<Failure>> {
        let from = state.fingerprint();
        let mut to_rest = RESTS;
        let mut actions = state.actions(self.config);
        let each = 0..state.flights.len() as u8;
        match self.fault {
            Some(Fault::Lose) => actions.extend(each.map(Action::Lose)),
            Some(Fault::Double) => actions.extend(each.map(Action::Double)),
            Some(Fault::ReleaseEarly) | None => {}
        }
        for action in actions {
            let mut roomy = self.first_guess(state);
            loop {
                let (after, asked) = self
                    .apply(state, action, roomy)
                    .map_err(|why| self.failure(why, index, Some(Step(action, roomy))))?;
                let fingerprint = after.fingerprint();
                explored.steps += 1;
                if to_rest == RESTS && leads_to_rest(action) && fingerprint != from {
                    to_rest = fingerprint;
                }
                let count = self.known.len() as u32;
                if let Entry::Vacant(entry) = self.known.entry(fingerprint) {
                    entry.insert(count);
                    self.origins.push(Origin { parent: index, step: Step(action, roomy) });
                    check::state(self.config, &after)
                        .map_err(|why| self.failure(why, count, None))?;
                    next.push((count, after));
                }
                match self.next_guess(state, action, roomy, asked) {
                    Some(other) => roomy = other,
                    None => break,
                }
            }
        }
        if to_rest == RESTS && state.dead.is_none() {
            explored.quiet += 1;
            self.check_quiet(state).map_err(|why| self.failure(why, index, None))?;
        }
        let at = index as usize;
        if self.to_rest.len() <= at {
            self.to_rest.resize(at + 1, RESTS);
        }
        self.to_rest[at] = to_rest;
        Ok(())
    }

    /// Nodes that seem to have room, to begin with.
    fn first_guess(&self, state: &State) -> u8 {
        if self.config.may.evict { 0 } else { state.roomy() }
    }

    /// Where evictions are free, what a node knows of others' room may be
    /// anything: all sets are tried wherever it was asked for.
    fn next_guess(&self, state: &State, action: Action, roomy: u8, asked: u8) -> Option<u8> {
        let (node, _) = state.taken_by(action)?;
        let all = (1u8 << self.config.nodes()) - 1;
        if !self.config.may.evict || (roomy == 0 && asked == 0) {
            return None;
        }
        (roomy + 1..=all).find(|set| set & 1 << node == 0)
    }

    /// The state after a step, and the nodes whose room was asked for.
    fn apply(&mut self, state: &State, action: Action, roomy: u8) -> Result<(State, u8), String> {
        let Some((node, input)) = state.taken_by(action) else {
            return Ok((state.after(self.config, action, None), 0));
        };
        let outcome = self.outcome(&state.locals[node], input, roomy)?;
        let mut after = state.after(self.config, action, Some(&outcome));
        if self.fault == Some(Fault::ReleaseEarly) {
            after.release_early(state.flights.len(), action);
        }
        let late = if self.config.may.late_release { LATE_MAX } else { 0 };
        while after.releases.len() > late {
            let (node, frame) = after.releases.remove(0);
            let local = after.locals[usize::from(node)].clone();
            let released = self.outcome(&local, Input::Release(frame), 0)?;
            after.locals[usize::from(node)] = released.local.clone();
        }
        Ok((after, outcome.asked))
    }

    fn outcome(&mut self, local: &Local, input: Input, roomy: u8) -> Result<Arc<Outcome>, String> {
        let key = key(local, input, roomy);
        if let Some(outcome) = self.outcomes.get(&key) {
            return Ok(outcome.clone());
        }
        let mut outcome = local.step(self.config, input, roomy, &mut self.recorder)?;
        outcome.local = self.nodes.entry(outcome.local.raw).or_insert(outcome.local).clone();
        let outcome = Arc::new(outcome);
        if self.outcomes.len() >= MEMORY_MAX {
            self.outcomes.clear();
        }
        self.outcomes.insert(key, outcome.clone());
        Ok(outcome)
    }

    /// Lets all that is under way arrive, and vCPUs get on, until nothing
    /// changes any more.
    fn drain(&mut self, mut state: State) -> Result<State, String> {
        loop {
            let from = state.fingerprint();
            let mut moved = false;
            for action in state.actions(self.config).into_iter().filter(|a| leads_to_rest(*a)) {
                let roomy = state.roomy();
                let (after, _) = self.apply(&state, action, roomy)?;
                if after.fingerprint() != from {
                    check::state(self.config, &after)?;
                    (state, moved) = (after, true);
                    break;
                }
            }
            if !moved {
                return Ok(state);
            }
        }
    }

    /// A state in which nothing is under way: every access succeeds.
    fn check_quiet(&mut self, state: &State) -> Result<(), String> {
        if let Some(node) = state.locals.iter().position(|local| !local.quiet) {
            return Err(format!("node {node} waits, and nothing will ever happen"));
        }
        if !self.config.live {
            return Ok(());
        }
        for node in 0..self.config.nodes() as u8 {
            for page in 0..self.config.pages.len() as u8 {
                for access in [addr::Access::Read, addr::Access::Write] {
                    self.check_access(state, node, page, access)?;
                }
            }
        }
        Ok(())
    }

    fn check_access(
        &mut self,
        state: &State,
        node: u8,
        page: u8,
        access: addr::Access,
    ) -> Result<(), String> {
        let mut state = state.clone();
        let fault = Action::Do(node, Own::Fault(page, access, false));
        for _ in 0..3 * self.config.pages.len() {
            if !state.actions(self.config).contains(&fault) {
                return Ok(());
            }
            let roomy = state.roomy();
            state = self.apply(&state, fault, roomy)?.0;
            state = self.drain(state)?;
            if !state.actions(self.config).contains(&fault) {
                return Ok(());
            }
            // Frames ran short; what is not in use leaves.
            let all = state.actions(self.config);
            let full = state.roomy() == 0;
            let makes_room = |action: &&Action| match action {
                Action::Do(n, Own::Balance | Own::Evict(_) | Own::TakeOut(_)) => *n == node || full,
                _ => false,
            };
            for action in all.iter().filter(makes_room) {
                if !state.actions(self.config).contains(action) {
                    continue;
                }
                let roomy = state.roomy();
                state = self.apply(&state, *action, roomy)?.0;
                state = self.drain(state)?;
            }
        }
        Err(format!("node {node} never gets to {access:?} page {page}"))
    }

    /// From every state, what is under way comes to rest.
    fn check_rest(&mut self, complete: bool) -> Result<(), Box<Failure>> {
        const UNKNOWN: u8 = 0;
        const ON_WAY: u8 = 1;
        const GOOD: u8 = 2;
        let mut marks = vec![UNKNOWN; self.known.len()];
        for start in 0..self.to_rest.len() as u32 {
            let mut way = Vec::new();
            let mut at = start;
            loop {
                match marks[at as usize] {
                    GOOD => break,
                    ON_WAY => return Err(self.failure("messages never end".to_owned(), at, None)),
                    _ => {}
                }
                marks[at as usize] = ON_WAY;
                way.push(at);
                let Some(&next) = self.to_rest.get(at as usize) else { break };
                if next == RESTS {
                    break;
                }
                let known = self.known.get(&next);
                assert!(known.is_some() || !complete, "every next state is known");
                let Some(&next) = known else { break };
                at = next;
            }
            way.iter().for_each(|&at| marks[at as usize] = GOOD);
        }
        Ok(())
    }

    /// Describes how a state, and the step after it, comes about.
    fn failure(&mut self, why: String, index: u32, last: Option<Step>) -> Box<Failure> {
        let states = self.known.len();
        let mut steps = Vec::new();
        let mut at = index;
        while at != 0 {
            let Origin { parent, step } = self.origins[at as usize];
            steps.push(step);
            at = parent;
        }
        steps.reverse();
        steps.extend(last);
        let mut state = State::new(self.config);
        let mut path = Vec::new();
        for Step(action, roomy) in steps {
            path.push(self.describe(&state, action, roomy));
            match self.apply(&state, action, roomy) {
                Ok((after, _)) => state = after,
                Err(_) => break,
            }
        }
        path.push(format!("then\n{state}"));
        Box::new(Failure { model: self.config.name, why, path, states })
    }

    fn describe(&self, state: &State, action: Action, roomy: u8) -> String {
        match action {
            Action::Arrive(at) => {
                let f = &state.flights[usize::from(at)];
                let m = f.message;
                let value = f.page.map_or(String::new(), |(_, v)| format!(", with {v}"));
                format!(
                    "{:?} of {:#x} from {} arrives at {} (txn {}, count {}{value})",
                    m.kind, m.gfn.0, f.from, f.to, m.txn, m.count
                )
            }
            Action::Lose(at) | Action::Double(at) => {
                let m = state.flights[usize::from(at)].message;
                let what = if action == Action::Lose(at) { "is lost" } else { "is doubled" };
                format!("{:?} of {:#x} {what}", m.kind, m.gfn.0)
            }
            Action::LetGo(at) => {
                format!("a frame is let go of at {}", state.releases[usize::from(at)].0)
            }
            Action::Do(node, own) => format!("node {node}: {own:?} (room: {roomy:03b})"),
            Action::Die(node) => format!("node {node} dies"),
            Action::Stop(node) => format!("node {node} stops"),
        }
    }
}

/// Whether it ends something and begins nothing.
fn leads_to_rest(action: Action) -> bool {
    matches!(action, Action::Arrive(_) | Action::LetGo(_) | Action::Do(_, Own::Retire))
}

fn key(local: &Local, input: Input, roomy: u8) -> u64 {
    let mut key = Mixer::default();
    key.word(local.raw);
    let (kind, word) = match input {
        Input::Fault(page, access, ahead) => {
            (0, u64::from(page) << 32 | (access as u64) << 16 | u64::from(ahead))
        }
        Input::Prefetch(page, access) => (7, u64::from(page) << 32 | access as u64),
        Input::Store(page, value) => (1, u64::from(page) << 32 | value),
        Input::Retire => (2, 0),
        Input::Evict(page) => (3, page.into()),
        Input::TakeOut(page) => (8, page.into()),
        Input::Merge(page) => (9, page.into()),
        Input::Balance => (4, 0),
        Input::Release(frame) => (5, frame.0),
        Input::Deliver(from, message, value) => {
            for part in message.to_bytes().chunks_exact(8) {
                key.word(u64::from_le_bytes(part.try_into().expect("eight bytes")));
            }
            key.word(value.map_or(u64::MAX, |v| v));
            (6, from.0.into())
        }
    };
    key.word(kind << 8 | u64::from(roomy));
    key.word(word);
    key.finish()
}
