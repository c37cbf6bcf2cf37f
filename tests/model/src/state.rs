//! The whole cluster between two steps: nodes, messages under way, and what
//! the guest has stored.

use crate::config::{Config, PAGES_MAX};
use crate::hash::Mixer;
use crate::local::{Input, Local, Outcome, Sent};
use addr::{Access, Frame, Gfn, NodeId};
use coherence::Message;
use coherence::observe::Digest;
use std::fmt;
use std::sync::Arc;

/// A message under way.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// Who sent it.
    pub from: u8,
    /// To whom.
    pub to: u8,
    /// The message.
    pub message: Message,
    /// The frame that goes with it, and what it held when it was sent.
    pub page: Option<(Frame, u64)>,
    index: u8,
    skeleton: u64,
    txn: Option<(u8, u32)>,
}

impl Flight {
    fn new(config: &Config, from: u8, sent: Sent) -> Flight {
        let Sent { to, message, page } = sent;
        let index = (0..config.pages.len())
            .find(|&page| config.gfn(page) == message.gfn)
            .expect("a page that is accessed") as u8;
        let mut digest = FlightDigest { index, words: Mixer::default(), txn: None };
        digest.word(u64::from(from) << 8 | u64::from(to.0));
        message.digest(&mut digest);
        let FlightDigest { words, txn, .. } = digest;
        Flight { from, to: to.0 as u8, message, page, index, skeleton: words.finish(), txn }
    }

    /// Whether a grant of zero pages covers the page, or the message is about
    /// it.
    #[must_use]
    pub fn concerns(&self, gfn: Gfn) -> bool {
        let Message { gfn: about, lead, count, .. } = self.message;
        let start = about.0.saturating_sub(u64::from(lead));
        about == gfn
            || (self.message.kind == coherence::Kind::ZeroGrant
                && (start..start + u64::from(count)).contains(&gfn.0))
    }
}

struct FlightDigest {
    index: u8,
    words: Mixer,
    txn: Option<(u8, u32)>,
}

impl Digest for FlightDigest {
    fn word(&mut self, word: u64) {
        self.words.word(word);
    }
    fn txn(&mut self, _: Gfn, txn: u32) {
        self.txn = Some((self.index, txn));
    }
    fn next_txn(&mut self, _: u32) {}
    fn content(&mut self, _: Gfn, _: Frame) {}
    fn empty(&mut self, _: Frame) {}
    fn sending(&mut self, _: Frame, _: u32, _: bool) {}
}

/// The cluster.
#[derive(Clone, Debug)]
pub struct State {
    /// The nodes.
    pub locals: Vec<Arc<Local>>,
    /// Messages under way, each of which may come next.
    pub flights: Vec<Flight>,
    /// Frames whose message has arrived, which the fabric still refers to.
    pub releases: Vec<(u8, Frame)>,
    /// The last value stored to each page.
    pub last: [u64; PAGES_MAX],
    /// The node that died.
    pub dead: Option<u8>,
    /// Nodes that have noticed the death and stopped, a bit each.
    pub stopped: u8,
}

/// Something that may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The message at this place arrives.
    Arrive(u8),
    /// The message at this place is lost.
    Lose(u8),
    /// The message at this place becomes two.
    Double(u8),
    /// The fabric lets go of the frame at this place.
    LetGo(u8),
    /// A node does something by itself.
    Do(u8, Own),
    /// A node dies.
    Die(u8),
    /// A node hears of the death and stops.
    Stop(u8),
}

/// What a node does by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Own {
    /// Its guest faults on a page.
    Fault(u8, Access, bool),
    /// A page is asked for ahead of need.
    Prefetch(u8, Access),
    /// Its guest stores a new value, or zero.
    Store(u8, bool),
    /// Its vCPU has got on.
    Retire,
    /// A page is to leave.
    Evict(u8),
    /// The table of its run is to go.
    TakeOut(u8),
    /// The run of a page is to become large.
    Merge(u8),
    /// Room is to be made.
    Balance,
}

impl State {
    /// The cluster before anything has happened.
    #[must_use]
    pub fn new(config: &Config) -> State {
        State {
            locals: (0..config.nodes()).map(|id| Arc::new(Local::new(config, id))).collect(),
            flights: Vec::new(),
            releases: Vec::new(),
            last: [0; PAGES_MAX],
            dead: None,
            stopped: 0,
        }
    }

    /// Whether the node runs.
    #[must_use]
    pub fn runs(&self, node: usize) -> bool {
        self.dead != Some(node as u8) && self.stopped & 1 << node == 0
    }

    /// Nodes that are dead or have stopped, a bit each.
    #[must_use]
    pub fn gone(&self) -> u8 {
        self.stopped | self.dead.map_or(0, |n| 1 << n)
    }

    /// Nodes that really have room, a bit each.
    #[must_use]
    pub fn roomy(&self) -> u8 {
        let bit = |(n, local): (usize, &Arc<Local>)| u8::from(local.room > 0) << n;
        self.locals.iter().enumerate().map(bit).sum()
    }

    /// All that may happen now.
    #[must_use]
    pub fn actions(&self, config: &Config) -> Vec<Action> {
        let mut all: Vec<Action> =
            (0..self.flights.len()).map(|i| Action::Arrive(i as u8)).collect();
        all.extend((0..self.releases.len()).map(|i| Action::LetGo(i as u8)));
        for node in (0..self.locals.len()).filter(|&n| self.runs(n)) {
            let id = node as u8;
            for own in self.own_actions(config, node) {
                all.push(Action::Do(id, own));
            }
            if self.dead.is_some() {
                all.push(Action::Stop(id));
            } else if config.may.die {
                all.push(Action::Die(id));
            }
        }
        all
    }

    fn own_actions(&self, config: &Config, node: usize) -> Vec<Own> {
        let may = config.may;
        let mut all = vec![Own::Retire];
        for page in 0..config.pages.len() as u8 {
            let next = config.pages.get(usize::from(page) + 1).map(|(home, _)| *home);
            let run = may.ahead && next == Some(config.pages[usize::from(page)].0);
            for access in [Access::Read, Access::Write] {
                all.push(Own::Fault(page, access, false));
                if run {
                    all.push(Own::Fault(page, access, true));
                }
                if may.prefetch {
                    all.push(Own::Prefetch(page, access));
                }
            }
            all.push(Own::Store(page, false));
            if may.store_zero {
                all.push(Own::Store(page, true));
            }
            if may.merge {
                all.push(Own::Merge(page));
            }
            let framed = self.locals[node].looks[usize::from(page)].entry.frame.is_some();
            if may.evict && (framed || may.take_out) {
                all.push(Own::Evict(page));
            }
            if may.take_out {
                all.push(Own::TakeOut(page));
            }
        }
        if may.balance {
            all.push(Own::Balance);
        }
        let takes = |own: &Own| self.locals[node].takes(self.input(*own));
        all.into_iter().filter(takes).collect()
    }

    fn input(&self, own: Own) -> Input {
        match own {
            Own::Fault(page, access, run) => Input::Fault(page, access, u16::from(run)),
            Own::Prefetch(page, access) => Input::Prefetch(page, access),
            Own::Store(page, true) => Input::Store(page, 0),
            Own::Store(page, false) => Input::Store(page, self.fresh(page)),
            Own::Retire => Input::Retire,
            Own::Evict(page) => Input::Evict(page),
            Own::TakeOut(page) => Input::TakeOut(page),
            Own::Merge(page) => Input::Merge(page),
            Own::Balance => Input::Balance,
        }
    }

    /// The least value that no copy of the page has.
    fn fresh(&self, page: u8) -> u64 {
        let here = |local: &Arc<Local>, value| local.contents.contains(&(page, value));
        (1..)
            .find(|&value| {
                self.last[usize::from(page)] != value
                    && !self.locals.iter().any(|local| here(local, value))
                    && !self.flights.iter().any(|f| f.page.is_some_and(|(_, v)| v == value))
            })
            .expect("values do not run out")
    }

    /// The node that an action runs on and what is put into it; `None` for a
    /// death, which no node takes part in.
    #[must_use]
    pub fn taken_by(&self, action: Action) -> Option<(usize, Input)> {
        match action {
            Action::Arrive(at) => {
                let f = &self.flights[usize::from(at)];
                let input = Input::Deliver(
                    NodeId(f.from.into()),
                    f.message,
                    f.page.map(|(_, value)| value),
                );
                Some((f.to.into(), input))
            }
            Action::LetGo(at) => {
                let (node, frame) = self.releases[usize::from(at)];
                Some((node.into(), Input::Release(frame)))
            }
            Action::Do(node, own) => Some((node.into(), self.input(own))),
            Action::Lose(_) | Action::Double(_) | Action::Die(_) | Action::Stop(_) => None,
        }
    }

    /// The cluster after `action`, which led its node to `outcome`. A frame
    /// that the fabric lets go of at once is still to be put in.
    #[must_use]
    pub fn after(&self, config: &Config, action: Action, outcome: Option<&Outcome>) -> State {
        let mut next = self.clone();
        match action {
            Action::Arrive(at) => {
                let flight = next.flights.swap_remove(at.into());
                if let Some((frame, _)) = flight.page
                    && next.runs(flight.from.into())
                {
                    next.releases.push((flight.from, frame));
                }
            }
            Action::Lose(at) => {
                next.flights.swap_remove(at.into());
            }
            Action::Double(at) => {
                let flight = next.flights[usize::from(at)];
                if flight.page.is_none() && next.flights.len() < 8 {
                    next.flights.push(flight);
                }
            }
            Action::LetGo(at) => {
                next.releases.swap_remove(at.into());
            }
            Action::Do(_, Own::Store(page, zero)) => {
                next.last[usize::from(page)] = if zero { 0 } else { self.fresh(page) };
            }
            Action::Do(..) => {}
            Action::Die(node) => next.dead = Some(node),
            Action::Stop(node) => next.stopped |= 1 << node,
        }
        if let (Some(outcome), Some((node, _))) = (outcome, self.taken_by(action)) {
            next.locals[node] = outcome.local.clone();
            let flight = |&sent: &Sent| Flight::new(config, node as u8, sent);
            next.flights.extend(outcome.sent.iter().map(flight));
        }
        let gone = next.gone();
        if gone != 0 {
            // What was sent to a node that is gone never arrives.
            next.flights.retain(|f| gone & 1 << f.to == 0);
            next.releases.retain(|(node, _)| gone & 1 << node == 0);
        }
        next
    }

    /// Lets go of the frames of what `action` has just sent: those of the
    /// flights after the first `before`, less the one that arrived.
    pub fn release_early(&mut self, before: usize, action: Action) {
        let first = before - usize::from(matches!(action, Action::Arrive(_)));
        if matches!(action, Action::Arrive(_)) {
            self.releases.clear(); // that frame was let go of long ago
        }
        let sent = self.flights.iter().skip(first);
        self.releases.extend(sent.filter_map(|f| Some((f.from, f.page?.0))));
    }

    /// A fingerprint that is equal for states that are alike: those that
    /// differ only in numbers of transactions, frames and values.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let ranks = Ranks::new(self);
        let mut all = Mixer::default();
        for (node, local) in self.locals.iter().enumerate() {
            if !self.runs(node) {
                all.word(u64::MAX);
                continue;
            }
            all.word(local.skeleton);
            local.txns.iter().for_each(|&txn| all.word(ranks.of(txn)));
            local.contents.iter().for_each(|&(page, value)| all.word(self.class(page, value)));
        }
        let name = |node: u8, frame| match self.runs(node.into()) {
            true => u64::from(self.locals[usize::from(node)].name(frame)),
            false => 0,
        };
        let one = |f: &Flight| {
            let mut words = Mixer::default();
            words.word(f.skeleton);
            f.txn.into_iter().for_each(|txn| words.word(ranks.of(txn)));
            if let Some((frame, value)) = f.page {
                words.word(name(f.from, frame) << 8 | self.class(f.index, value));
            }
            words.finish()
        };
        let mut flights: Vec<u64> = self.flights.iter().map(one).collect();
        flights.sort_unstable();
        flights.iter().for_each(|&flight| all.word(flight));
        let mut releases: Vec<u64> =
            self.releases.iter().map(|&(n, frame)| u64::from(n) << 32 | name(n, frame)).collect();
        releases.sort_unstable();
        all.word(releases.len() as u64);
        releases.iter().for_each(|&release| all.word(release));
        let written = self.last.iter().fold(0, |all, &v| all << 1 | u64::from(v != 0));
        all.word(written << 16 | u64::from(self.gone()) << 8 | self.dead.map_or(99, u64::from));
        all.finish()
    }

    fn class(&self, page: u8, value: u64) -> u64 {
        match value {
            0 => 0,
            last if last == self.last[usize::from(page)] => 1,
            _ => 2,
        }
    }
}

/// The places of transactions' numbers among all of their page.
struct Ranks(Vec<(u8, u32)>);

impl Ranks {
    fn new(state: &State) -> Ranks {
        let running = state.locals.iter().enumerate().filter(|(n, _)| state.runs(*n));
        let mut all: Vec<(u8, u32)> = running.flat_map(|(_, l)| l.txns.iter().copied()).collect();
        all.extend(state.flights.iter().filter_map(|f| f.txn));
        all.sort_unstable();
        all.dedup();
        Ranks(all)
    }

    fn of(&self, txn: (u8, u32)) -> u64 {
        let before = self.0.iter().filter(|known| known.0 == txn.0 && known.1 < txn.1).count();
        u64::from(txn.0) << 32 | before as u64
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, local) in self.locals.iter().enumerate() {
            write!(f, "  node {n}:")?;
            if !self.runs(n) {
                writeln!(f, " gone")?;
                continue;
            }
            for look in &local.looks {
                let e = look.entry;
                let leaving = if e.leaving { " leaving" } else { "" };
                let value = look.readable.map_or(String::new(), |v| format!("={v}"));
                let frame = if e.frame.is_some() { "" } else { "*" };
                let directory = look.directory.map_or(String::new(), |d| {
                    format!(" (home: {:?}{})", d.holding, if d.busy { ", busy" } else { "" })
                });
                write!(f, " {:?}{frame}{value}{leaving}{directory};", e.state)?;
            }
            writeln!(f)?;
        }
        for flight in &self.flights {
            let Flight { from, to, message, page, .. } = flight;
            let value = page.map_or(String::new(), |(_, v)| format!(" with {v}"));
            writeln!(
                f,
                "  under way {from} -> {to}: {:?} of {:#x} for {}, {} pages, txn {}{value}",
                message.kind, message.gfn.0, message.party, message.count, message.txn
            )?;
        }
        Ok(())
    }
}
