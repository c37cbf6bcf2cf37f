//! The protocol as seen from outside: the rows of its table, who claims a
//! page, and a digest of all that decides what a node will do.
//!
//! For the model checker and the tables in the documentation. An [`Output`]
//! that sets [`Output::WATCHES`] hears of every step as it is taken: the state
//! before, the event, what is sent, the state after. Where it does not, as in
//! the hypervisor, none of this is compiled into the path.

use super::Role;
use super::capacity::Phase;
use super::directory::Holding;
use super::home::Waits;
use super::requester::Answer;
use super::{Class, Coherence, Env, Kind, Message, Open, Output};
use addr::{Access, Frame, Gfn, NodeId};
use core::cmp::Ordering;
use core::fmt;
use paging::{HostMemory, PageState};

/// What makes a row of the table happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Event {
    /// The guest faults on a page.
    Fault(Access),
    /// The node wants to be rid of a page.
    Evict,
    /// A message comes, or its turn has come.
    Message(Kind),
    /// A further page of a run is asked for.
    Further(Kind),
}

impl Event {
    /// The part that takes it.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Event::Fault(_) => Role::Requester,
            Event::Evict => Role::Capacity,
            Event::Message(kind) | Event::Further(kind) => kind.role(),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Fault(Access::Read) => f.write_str("load faults"),
            Event::Fault(Access::Write) => f.write_str("store faults"),
            Event::Evict => f.write_str("frames run short"),
            Event::Message(kind) => write!(f, "{kind:?}"),
            Event::Further(kind) => write!(f, "{kind:?}, ahead of need"),
        }
    }
}

/// What the party of a message is to the directory entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Party {
    Owner,
    Sharer,
    Other,
}

/// What an open transaction at home waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Awaits {
    Done,
    Promote,
    Move,
}

/// A page at its home. A response to the home names no party.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum AtHome {
    Dormant,
    Exclusive(Option<Party>),
    /// Whether there are replicas besides the party's.
    Shared(Option<Party>, bool),
    Busy(Awaits),
    /// Busy, for one who must wait.
    Taken,
}

/// What a node has open on a page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Opened {
    Nothing,
    /// A fetch, where no more matters.
    Something,
    Fetch(Answered, Ordering),
    Put(Leaving),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Answered {
    Not,
    Grant,
    Data,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Leaving {
    Asked,
    Moving,
    Gone,
}

/// A page at a node that wants it or has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Here {
    page: PageState,
    /// Held as zeroes, without a frame.
    unbacked: bool,
    /// Kept for the vCPU.
    kept: bool,
    open: Opened,
}

/// The state of a page in one part of a node, as the table shows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct State(Of);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Of {
    Home(AtHome),
    Here(Here),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Of::Home(at) => at.fmt(f),
            Of::Here(here) => here.fmt(f),
        }
    }
}

impl fmt::Display for AtHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AtHome::Dormant => f.write_str("Dormant"),
            AtHome::Exclusive(None) => f.write_str("Exclusive"),
            AtHome::Exclusive(Some(Party::Owner)) => f.write_str("Exclusive, its own"),
            AtHome::Exclusive(Some(_)) => f.write_str("Exclusive, another's"),
            AtHome::Shared(party, others) => {
                f.write_str("Shared")?;
                match party {
                    None => {}
                    Some(Party::Owner) => f.write_str(", owns it")?,
                    Some(Party::Sharer) => f.write_str(", may have a replica")?,
                    Some(Party::Other) => f.write_str(", has none")?,
                }
                f.write_str(if *others { ", others may" } else { "" })
            }
            AtHome::Busy(awaits) => write!(f, "busy, awaits {awaits:?}"),
            AtHome::Taken => f.write_str("busy"),
        }
    }
}

impl fmt::Display for Here {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.page)?;
        if self.unbacked {
            f.write_str(" zeroes")?;
        }
        if self.kept {
            f.write_str(", kept")?;
        }
        match self.open {
            Opened::Nothing => Ok(()),
            Opened::Something => f.write_str(", fetching"),
            Opened::Fetch(answer, due) => {
                f.write_str(match answer {
                    Answered::Not => ", fetching",
                    Answered::Grant => ", has the grant",
                    Answered::Data => ", has the data",
                })?;
                f.write_str(match due {
                    Ordering::Less => ", acks came first",
                    Ordering::Equal => "",
                    Ordering::Greater => ", acks due",
                })
            }
            Opened::Put(Leaving::Asked) => f.write_str(", asked to leave"),
            Opened::Put(Leaving::Moving) => f.write_str(", moving"),
            Opened::Put(Leaving::Gone) => f.write_str(", asked to leave and gone"),
        }
    }
}

/// A piece of a step. Steps may stand within each other: what a step makes
/// possible is taken before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Seen {
    /// A step begins.
    Begins(Event, State),
    /// A message is sent, maybe to this node itself.
    Sends(Kind),
    /// The message waits at home for the page's transaction to end.
    Queues,
    /// The message is put off until the page may go.
    PutsOff,
    /// The state that the step leads to; what is seen until it ends is the
    /// work of other steps.
    Reaches(State),
    /// The step ends.
    Ends(State),
}

/// Whether an event asks the home for something: it has to wait while the page
/// is busy, whatever it is busy with.
fn is_request(event: Event) -> bool {
    matches!(event, Event::Message(kind) | Event::Further(kind) if kind.class() == Class::Request)
}

impl Coherence {
    #[inline]
    pub(crate) fn begins<M: HostMemory, O: Output>(
        &self,
        env: &mut Env<'_, M, O>,
        event: Event,
        message: &Message,
    ) {
        if O::WATCHES {
            let state = match self.state(env.memory, event, message) {
                State(Of::Home(AtHome::Busy(_))) if is_request(event) => {
                    State(Of::Home(AtHome::Taken))
                }
                state => state,
            };
            env.out.watch(Seen::Begins(event, state));
        }
    }

    #[inline]
    pub(crate) fn reaches<M: HostMemory, O: Output>(
        &self,
        env: &mut Env<'_, M, O>,
        message: &Message,
    ) {
        if O::WATCHES {
            let event = Event::Message(message.kind);
            env.out.watch(Seen::Reaches(self.state(env.memory, event, message)));
        }
    }

    #[inline]
    pub(crate) fn ends<M: HostMemory, O: Output>(
        &self,
        env: &mut Env<'_, M, O>,
        event: Event,
        message: &Message,
    ) {
        if O::WATCHES {
            env.out.watch(Seen::Ends(self.state(env.memory, event, message)));
        }
    }

    fn state(&self, memory: &impl HostMemory, event: Event, message: &Message) -> State {
        State(match event.role() {
            Role::Home => Of::Home(self.state_at_home(memory, message)),
            _ => Of::Here(self.state_here(memory, message.gfn, event)),
        })
    }

    fn state_at_home(&self, memory: &impl HostMemory, message: &Message) -> AtHome {
        let asks = message.kind.class() == Class::Request;
        if let Some(busy) = self.busy.get(&message.gfn.0) {
            return match busy.waits {
                Waits::Done { .. } => AtHome::Busy(Awaits::Done),
                Waits::Promote { .. } => AtHome::Busy(Awaits::Promote),
                Waits::Move { .. } => AtHome::Busy(Awaits::Move),
            };
        }
        let Some((home, index)) = self.layout.home(message.gfn) else { return AtHome::Taken };
        assert_eq!(home, self.me, "only the home's states are asked for");
        let party = message.party;
        match self.directory.get(memory, index).holding {
            Holding::Dormant => AtHome::Dormant,
            Holding::Exclusive(owner) => {
                let what = if owner == party { Party::Owner } else { Party::Other };
                AtHome::Exclusive(asks.then_some(what))
            }
            Holding::Shared(owner, sharers) => {
                let nodes = self.layout.nodes() as u16;
                let others = sharers.iter(nodes).any(|n| n != owner && (n != party || !asks));
                let what = match () {
                    () if owner == party => Party::Owner,
                    () if sharers.contains(party) => Party::Sharer,
                    () => Party::Other,
                };
                AtHome::Shared(asks.then_some(what), others)
            }
        }
    }

    fn state_here(&self, memory: &impl HostMemory, gfn: Gfn, event: Event) -> Here {
        let fault = matches!(event, Event::Fault(_));
        let answer = event.role() == Role::Requester && !fault;
        let entry = self.table.get(memory, gfn);
        let open = match self.open.get(&gfn.0) {
            None => Opened::Nothing,
            Some(Open::Fetch(_)) if !answer => Opened::Something,
            Some(Open::Fetch(fetch)) => {
                let answer = match fetch.answer {
                    Answer::None => Answered::Not,
                    Answer::Grant { .. } => Answered::Grant,
                    Answer::Data { .. } => Answered::Data,
                };
                Opened::Fetch(answer, fetch.acks_due.cmp(&0))
            }
            Some(Open::Put(put)) => Opened::Put(match put.phase {
                Phase::Asked => Leaving::Asked,
                Phase::Moving => Leaving::Moving,
                Phase::Gone => Leaving::Gone,
            }),
        };
        Here {
            page: entry.state,
            unbacked: fault && entry.state != PageState::Invalid && entry.frame.is_none(),
            kept: event.role() == Role::Owner && self.held.contains(&gfn),
            open,
        }
    }
}

/// What a node has of a page's mastery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Claim {
    /// Nothing.
    None,
    /// It may turn out to be the master: it gives the page up and has not been
    /// told that it is gone, or has been promised the page.
    Maybe,
    /// It is the master, or has received what makes it so.
    Master,
}

/// Takes in what decides what a node will do; see [`Coherence::digest`].
pub trait Digest {
    /// A word that counts as it is.
    fn word(&mut self, word: u64);
    /// The number of a transaction at the page's home. Of several of one page
    /// only which are equal matters.
    fn txn(&mut self, gfn: Gfn, txn: u32);
    /// The number that the home's next transaction gets: later than all.
    fn next_txn(&mut self, txn: u32);
    /// A frame that has a page's content; which frame it is does not matter.
    fn content(&mut self, gfn: Gfn, frame: Frame);
    /// A frame that is kept for a page and will be overwritten.
    fn empty(&mut self, frame: Frame);
    /// A frame that the fabric refers to, how often, and whether it is free
    /// after; these come in no order.
    fn sending(&mut self, frame: Frame, times: u32, free_after: bool);
}

impl Message {
    /// Tells `to` all that the message says.
    pub fn digest(&self, to: &mut impl Digest) {
        #[rustfmt::skip]
        let Message {
            kind, gfn, party, count, lead, txn, exclusive, zero, has_copy, prefetch, alone,
        } = *self;
        let flags = [exclusive, zero, has_copy, prefetch, alone].map(u64::from);
        let flags = flags.iter().fold(0, |all, flag| all << 1 | flag);
        to.word(u64::from(kind as u8) << 56 | u64::from(party.0) << 40 | flags << 32);
        to.word(u64::from(count) << 16 | u64::from(lead));
        to.word(gfn.0);
        if txn != 0 {
            to.txn(gfn, txn);
        }
    }
}

impl Coherence {
    /// What this node has of a page's mastery.
    #[must_use]
    pub fn claim(&self, memory: &impl HostMemory, gfn: Gfn) -> Claim {
        let entry = self.table.get(memory, gfn);
        match self.open.get(&gfn.0) {
            Some(Open::Fetch(fetch)) => match fetch.answer {
                Answer::Data { exclusive: true, .. } => return Claim::Master,
                Answer::Grant { .. } if !entry.state.is_master() => return Claim::Maybe,
                Answer::None | Answer::Grant { .. } | Answer::Data { .. } => {}
            },
            Some(Open::Put(put)) if put.keeps_frame() => return Claim::Maybe,
            Some(Open::Put(put)) if put.phase == Phase::Moving => return Claim::Maybe,
            Some(Open::Put(_)) | None => {}
        }
        match (entry.state.is_master(), entry.leaving) {
            (false, _) => Claim::None,
            (true, true) => Claim::Maybe,
            (true, false) => Claim::Master,
        }
    }

    /// Tells `to` all that decides what this node will do about `pages`, which
    /// must be all that are not alike: two nodes that tell the same behave the
    /// same.
    pub fn digest(&self, memory: &impl HostMemory, pages: &[Gfn], to: &mut impl Digest) {
        // No field may be forgotten, so this names them all. Left out are those
        // fixed at start, those that follow from others, measurements, and what
        // the choice of pages to evict rests on: a checker has to try every
        // choice (`Coherence::evict`). `open`, `busy` and `waiting` come with
        // their pages.
        #[rustfmt::skip]
        let Coherence {
            me: _, layout: _, limits: _, tables_covered: _, busy_max: _, requests_max: _,
            leaving: _, masters: _, replicas: _, started_put: _, counters: _,
            asked_for: _,
            open: _, busy: _, waiting: _, replacement: _, merge_hand: _, tables: _,
            table, pool, directory, next_txn, local, deferred, held, transit, demand, early,
        } = self;
        assert!(local.is_empty() && early.is_none(), "a digest is taken between steps");
        to.next_txn(*next_txn);
        to.word(pool.free_frames());
        to.word(table.tables() << 32 | directory.tables());
        to.word(*demand);
        for &gfn in pages {
            self.digest_page(memory, gfn, to);
        }
        to.word(deferred.len() as u64);
        for (from, message) in deferred {
            to.word(u64::from(from.0));
            message.digest(to);
        }
        for &gfn in pages.iter().filter(|gfn| held.contains(gfn)) {
            to.word(gfn.0);
        }
        for (frame, times, free_after) in transit.iter() {
            to.sending(frame, times, free_after);
        }
    }

    fn digest_page(&self, memory: &impl HostMemory, gfn: Gfn, to: &mut impl Digest) {
        let entry = self.table.get(memory, gfn);
        let large = self.table.is_large(memory, gfn);
        let leaves = self.table.has_leaves(memory, gfn);
        let merges = self.may_merge(memory, gfn).map_or(0, |copies| 1 + u64::from(copies));
        let flags = merges << 4 | u64::from(leaves) << 3 | u64::from(large) << 2;
        let flags = flags | u64::from(entry.leaving) << 1;
        to.word((entry.state as u64) << 8 | flags | u64::from(entry.accessed));
        entry.frame.into_iter().for_each(|frame| to.content(gfn, frame));
        self.digest_open(gfn, to);
        let Some((home, index)) = self.layout.home(gfn) else { return };
        if home != self.me {
            return;
        }
        let entry = self.directory.get(memory, index);
        let (word, owner, sharers) = match entry.holding {
            Holding::Dormant => (0, NodeId(0), 0),
            Holding::Exclusive(owner) => (1, owner, 0),
            Holding::Shared(owner, sharers) => (2, owner, sharers.bits()),
        };
        to.word(word << 32 | u64::from(owner.0) << 8 | u64::from(entry.busy));
        to.word(sharers);
        if let Some(busy) = self.busy.get(&gfn.0) {
            to.txn(gfn, busy.txn);
            let (kind, a, b, c) = match busy.waits {
                Waits::Done { requester, exclusive } => (0, requester.0, u16::from(exclusive), 0),
                Waits::Promote { owner, asked, tries } => (1, owner.0, asked.0, tries),
                Waits::Move { owner, target, tries, shared } => {
                    (2 + u64::from(shared), owner.0, target.0, tries)
                }
            };
            to.word(kind << 48 | u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c));
            to.word(u64::from(busy.waiters));
        }
        for (_, message) in self.waiting.iter().filter(|(_, m)| m.gfn == gfn) {
            message.digest(to);
        }
    }

    fn digest_open(&self, gfn: Gfn, to: &mut impl Digest) {
        match self.open.get(&gfn.0) {
            None => to.word(0),
            Some(Open::Fetch(fetch)) => {
                // Whether it is wanted makes a difference to a prefetch only.
                let wanted = !fetch.prefetch || fetch.wanted;
                let flags = u64::from(wanted) << 1 | u64::from(fetch.prefetch);
                to.word(1 << 32 | flags);
                to.word(fetch.acks_due as u64);
                match fetch.answer {
                    Answer::None => {
                        to.word(0);
                        to.empty(fetch.frame);
                    }
                    Answer::Grant { txn } => {
                        to.word(1);
                        to.txn(gfn, txn);
                        to.empty(fetch.frame);
                    }
                    Answer::Data { txn, exclusive } => {
                        to.word(2 + u64::from(exclusive));
                        to.txn(gfn, txn);
                        to.content(gfn, fetch.frame);
                    }
                }
            }
            Some(Open::Put(put)) => {
                to.word(2 << 32 | (put.phase as u64) << 8 | u64::from(put.zero));
                if put.keeps_frame() {
                    to.word((put.entry.state as u64) << 1 | u64::from(put.entry.leaving));
                    put.entry.frame.into_iter().for_each(|frame| to.content(gfn, frame));
                } else if put.phase == Phase::Moving {
                    to.word((put.entry.state as u64) << 1 | u64::from(put.entry.leaving));
                }
            }
        }
    }
}
