//! The rows of the protocol's table, as the engine is seen to take them.

use coherence::{Event, Kind, Seen};
use coherence::{Role, observe::State};
use std::collections::BTreeSet;
use std::fmt;

/// Bits of [`Row::acts`] above those of the kinds that are sent.
const QUEUES: u64 = 1 << 62;
const PUTS_OFF: u64 = 1 << 63;

/// One row: in this state, on this event, these actions, and then that state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Row {
    /// Which part of a node.
    pub role: Role,
    /// The event.
    pub event: Event,
    /// The state before.
    pub state: State,
    /// The state after.
    pub next: State,
    /// Bit n: sends the kind with number n.
    acts: u64,
}

impl Row {
    /// What it does besides changing the state.
    #[must_use]
    pub fn actions(&self) -> String {
        let sent = Kind::ALL.iter().filter(|&&kind| self.acts & 1 << kind as u8 != 0);
        let mut words: Vec<String> = sent.map(|kind| format!("{kind:?}")).collect();
        if self.acts & QUEUES != 0 {
            words.push("wait".to_owned());
        }
        if self.acts & PUTS_OFF != 0 {
            words.push("put off".to_owned());
        }
        words.join(", ")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let same = self.state == self.next;
        let next = if same { "the same".to_owned() } else { self.next.to_string() };
        write!(f, "| {} | {} | {} | {next} |", self.state, self.event, self.actions())
    }
}

/// A step that has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    event: Event,
    state: State,
    next: Option<State>,
    acts: u64,
}

/// Hears the engine's steps and keeps the rows.
#[derive(Default, Debug)]
pub struct Recorder {
    begun: Vec<Begun>,
    rows: BTreeSet<Row>,
    seen: rustc_hash::FxHashSet<Row>,
}

impl Recorder {
    /// Hears a piece of a step.
    pub fn hear(&mut self, seen: Seen) {
        match seen {
            Seen::Begins(event, state) => {
                self.begun.push(Begun { event, state, next: None, acts: 0 });
            }
            Seen::Sends(kind) => self.act(1 << kind as u8),
            Seen::Queues => self.act(QUEUES),
            Seen::PutsOff => self.act(PUTS_OFF),
            Seen::Reaches(state) => {
                if let Some(begun) = self.begun.last_mut() {
                    begun.next = begun.next.or(Some(state));
                }
            }
            Seen::Ends(state) => {
                let Begun { event, state: before, next, acts } =
                    self.begun.pop().expect("what ends has begun");
                let next = next.unwrap_or(state);
                let row = Row { role: event.role(), event, state: before, next, acts };
                if self.seen.insert(row) {
                    self.rows.insert(row);
                }
            }
        }
    }

    fn act(&mut self, act: u64) {
        if let Some(begun) = self.begun.last_mut()
            && begun.next.is_none()
        {
            begun.acts |= act;
        }
    }

    /// A call of the engine is over; steps that it broke off are forgotten.
    pub fn rest(&mut self) {
        self.begun.clear();
    }

    /// The rows so far, in the table's order.
    #[must_use]
    pub fn rows(&self) -> &BTreeSet<Row> {
        &self.rows
    }

    /// Adds the rows of another.
    pub fn add(&mut self, other: &Recorder) {
        self.rows.extend(&other.rows);
    }
}
