//! Discovery and formation: from nothing to a membership.
//!
//! Every node broadcasts Hello until it has a membership. The best of those
//! that know each other (told to lead, else has the guest's kernel, else the
//! lowest MAC address) proposes a membership of exactly the expected nodes;
//! when all have accepted, it commits. A node accepts one proposal at a time
//! and keeps its word twice as long as the proposer waits, so that no two
//! proposals that share a node can both be committed while frames arrive.

use crate::io::{Control, Io};
use crate::{Drop, Event, RefuseReason};
use alloc::vec::Vec;
use core::cmp::Ordering;
use wire::{BROADCAST, Entry, Hello, Mac};

mod proposal;

pub(crate) use proposal::TAKE_NS;

/// Hello intervals after which a silent candidate is forgotten.
const FORGET: u64 = 20;
/// Hello intervals a proposal may take.
const PROPOSAL: u64 = 20;
/// Most pages one node may contribute: keeps sums in range (4 PiB).
const PAGES_MAX: u64 = 1 << 40;
/// Refusals remembered, so that each is reported once.
const REPORTED: usize = 16;

/// Whether it is what a member may be.
fn sound(e: &Entry) -> bool {
    (wire::MTU_MIN..=wire::MTU_MAX).contains(&e.mtu)
        && e.mac[0] & 1 == 0
        && (1..=PAGES_MAX).contains(&e.pages)
        && e.pages.is_multiple_of(addr::RUN_PAGES)
}

/// Whether a node may lead at all.
fn may_lead(e: &Entry, io: &Io) -> bool {
    !io.config.needs_payload || e.lead || e.has_payload
}

/// Who should rather lead comes first.
fn rank(a: &Entry, b: &Entry) -> Ordering {
    let key = |e: &Entry| (!e.lead, !e.has_payload, e.mac);
    key(a).cmp(&key(b))
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Candidate {
    entry: Entry,
    heard_ns: u64,
    accepted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Seeking,
    /// This node has proposed the roster.
    Proposing {
        since_ns: u64,
    },
    /// This node has accepted the roster of another.
    Accepted {
        since_ns: u64,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Forming {
    me: Entry,
    /// The others, by MAC address.
    candidates: Vec<Candidate>,
    phase: Phase,
    /// Epoch and leader of `roster`.
    pub(crate) epoch: u64,
    leader: Mac,
    /// The proposed membership; incomplete while its parts arrive.
    roster: Vec<Option<Entry>>,
    attempts: u64,
    /// When to send our consent.
    accept_ns: Option<u64>,
    hello_ns: u64,
    last_hello_ns: u64,
    join_deadline_ns: Option<u64>,
    /// Another node with our MAC address, and how often it was heard.
    double: Option<(u64, u8)>,
    /// Until when we stay out because of it.
    double_until_ns: u64,
    reported: Vec<(Mac, RefuseReason)>,
}

impl Forming {
    pub(crate) fn new(io: &mut Io) -> Forming {
        let c = &io.config;
        let me = Entry {
            mac: c.mac,
            window: c.window(),
            has_payload: c.has_payload,
            lead: c.lead,
            incarnation: c.incarnation,
            pages: c.pages,
            cpus: c.cpus,
            mtu: c.mtu,
        };
        let nodes = usize::from(c.nodes);
        let join = (c.join_timeout_ns != 0).then(|| io.now_ns.saturating_add(c.join_timeout_ns));
        let first = io.rng.around(c.hello_ns / 8);
        let mut forming = Forming {
            me,
            candidates: Vec::with_capacity(nodes - 1),
            phase: Phase::Seeking,
            epoch: 0,
            leader: me.mac,
            roster: Vec::with_capacity(nodes),
            attempts: 0,
            accept_ns: None,
            hello_ns: io.now_ns + first,
            last_hello_ns: 0,
            join_deadline_ns: join,
            double: None,
            double_until_ns: 0,
            reported: Vec::with_capacity(REPORTED),
        };
        if nodes == 1 {
            forming.try_propose(io);
        }
        forming
    }

    fn known(&self) -> u16 {
        self.candidates.len() as u16 + 1
    }

    fn find(&self, mac: Mac) -> Result<usize, usize> {
        self.candidates.binary_search_by(|c| c.entry.mac.cmp(&mac))
    }

    /// The membership, when complete.
    pub(crate) fn members(&self) -> impl ExactSizeIterator<Item = Entry> + '_ {
        self.roster.iter().map(|e| e.expect("the roster is complete"))
    }

    pub(crate) fn hello_frame(&self, io: &Io) -> Hello {
        let config = &io.config;
        Hello { build: config.build, nodes: config.nodes, known: self.known(), entry: self.me }
    }

    /// Whether the roster may still be sent as a proposal.
    pub(crate) fn proposing(&self) -> bool {
        matches!(self.phase, Phase::Proposing { .. })
    }

    /// Whether all others have accepted our proposal.
    pub(crate) fn agreed(&self) -> bool {
        self.proposing() && self.candidates.iter().all(|c| c.accepted)
    }

    /// Whether a frame of this epoch proves that our accepted proposal has
    /// been committed.
    pub(crate) fn committed_by(&self, epoch: u64) -> bool {
        matches!(self.phase, Phase::Accepted { .. }) && epoch == self.epoch
    }

    /// Reports a refusal, once for each node and reason.
    pub(crate) fn report(&mut self, io: &mut Io, by: Mac, why: RefuseReason) {
        let entry = (by, why);
        if self.reported.contains(&entry) {
            return;
        }
        if self.reported.len() == REPORTED {
            self.reported.remove(0);
        }
        self.reported.push(entry);
        io.event(Event::Refused { by, reason: why });
    }

    /// Compares a Hello with what we are: what we report, what we tell them.
    pub(crate) fn conflict(&self, io: &Io, hello: &Hello) -> Option<(RefuseReason, RefuseReason)> {
        let (c, theirs) = (&io.config, hello);
        if theirs.build != c.build {
            let reason = |theirs| RefuseReason::VersionMismatch { theirs };
            return Some((reason(theirs.build), reason(c.build)));
        }
        if theirs.nodes != c.nodes {
            let reason = |theirs| RefuseReason::NodeCountMismatch { theirs };
            return Some((reason(theirs.nodes), reason(c.nodes)));
        }
        if theirs.entry.lead && c.lead {
            return Some((RefuseReason::TwoForcedLeaders, RefuseReason::TwoForcedLeaders));
        }
        None
    }

    /// Takes a Hello while there is no membership.
    pub(crate) fn hello(&mut self, io: &mut Io, hello: &Hello) -> Result<(), Drop> {
        let theirs = hello.entry;
        if !sound(&theirs) {
            return Err(Drop::Malformed);
        }
        if theirs.mac == self.me.mac {
            return self.double(io, theirs.incarnation);
        }
        if let Some((ours, told)) = self.conflict(io, hello) {
            self.report(io, theirs.mac, ours);
            let incarnation = theirs.incarnation;
            io.control(Control::Refuse { to: theirs.mac, incarnation, reason: told });
            if let Ok(at) = self.find(theirs.mac) {
                self.candidates.remove(at);
                self.withdraw();
            }
            return Ok(());
        }
        self.add(io, theirs)?;
        self.try_propose(io);
        Ok(())
    }

    fn add(&mut self, io: &mut Io, entry: Entry) -> Result<(), Drop> {
        let fresh = Candidate { entry, heard_ns: io.now_ns, accepted: false };
        match self.find(entry.mac) {
            Ok(at) if self.candidates[at].entry == entry => {
                self.candidates[at].heard_ns = io.now_ns;
                return Ok(());
            }
            Ok(at) => {
                self.candidates[at] = fresh; // it has restarted
                self.withdraw();
            }
            Err(_) if self.known() == io.config.nodes => {
                // Without a leader the others cannot form: one makes way for it.
                let led = may_lead(&self.me, io)
                    || self.candidates.iter().any(|c| may_lead(&c.entry, io));
                if led || !may_lead(&entry, io) {
                    return Err(Drop::Unexpected);
                }
                let last =
                    self.candidates.iter().enumerate().max_by(|a, b| rank(&a.1.entry, &b.1.entry));
                let Some((at, _)) = last else { return Err(Drop::Unexpected) };
                self.candidates.remove(at);
                self.withdraw();
                let at = self.find(entry.mac).expect_err("not among them");
                self.candidates.insert(at, fresh);
            }
            Err(at) => {
                self.candidates.insert(at, fresh);
                let (known, of) = (self.known(), io.config.nodes);
                io.event(Event::NodeJoined { known, of });
            }
        }
        self.hasten(io);
        Ok(())
    }

    /// Brings the next Hello forward, at most to a quarter of the interval
    /// after the last.
    fn hasten(&mut self, io: &mut Io) {
        let interval = io.config.hello_interval_ns();
        let soon = io.now_ns + io.rng.around(interval / 8);
        self.hello_ns = self.hello_ns.min(soon.max(self.last_hello_ns + interval / 4));
    }

    /// Another life with our MAC address. The first may be our own earlier
    /// life's last frame still on its way; the second is another node.
    fn double(&mut self, io: &mut Io, incarnation: u64) -> Result<(), Drop> {
        if incarnation == self.me.incarnation {
            return Err(Drop::Echo);
        }
        let heard = match self.double {
            Some((same, heard)) if same == incarnation => heard.saturating_add(1),
            _ => 1,
        };
        self.double = Some((incarnation, heard));
        if heard >= 2 {
            self.stay_out(io);
            let reason = RefuseReason::DuplicateIdentity;
            self.report(io, self.me.mac, reason);
            io.control(Control::Refuse { to: BROADCAST, incarnation, reason });
        }
        Ok(())
    }

    /// Takes no part while the MAC address is disputed.
    pub(crate) fn stay_out(&mut self, io: &Io) {
        self.double_until_ns = io.now_ns + FORGET * io.config.hello_interval_ns();
        self.withdraw();
    }

    /// Gives up our own proposal.
    fn withdraw(&mut self) {
        if self.proposing() {
            self.phase = Phase::Seeking;
        }
    }

    /// Excuses everyone's silence after our own absence.
    pub(crate) fn excuse(&mut self, now_ns: u64) {
        self.candidates.iter_mut().for_each(|c| c.heard_ns = now_ns);
    }

    /// Runs the timers; returns when to run them again.
    pub(crate) fn tick(&mut self, io: &mut Io) -> u64 {
        let now = io.now_ns;
        let interval = io.config.hello_interval_ns();
        if self.join_deadline_ns.is_some_and(|at| at <= now) {
            self.join_deadline_ns = None;
            let (present, of) = (self.known(), io.config.nodes);
            io.vital_event(Event::JoinTimeout { present, of });
        }
        if self.accept_ns.is_some_and(|at| at <= now) {
            self.accept_ns = None;
            if matches!(self.phase, Phase::Accepted { .. }) {
                io.control(Control::Accept { to: self.leader, epoch: self.epoch });
            }
        }
        if self.hello_ns <= now {
            self.tick_hello(io, interval);
        }
        let others = self.join_deadline_ns.into_iter().chain(self.accept_ns);
        others.fold(self.hello_ns, u64::min)
    }

    fn tick_hello(&mut self, io: &mut Io, interval: u64) {
        let now = io.now_ns;
        self.last_hello_ns = now;
        self.hello_ns = now + io.rng.around(interval);
        io.control(Control::Hello);
        let before = self.candidates.len();
        self.candidates.retain(|c| now - c.heard_ns < FORGET * interval);
        if self.candidates.len() != before {
            self.withdraw();
        }
        match self.phase {
            Phase::Seeking => self.try_propose(io),
            Phase::Proposing { since_ns } if now - since_ns >= PROPOSAL * interval => {
                self.phase = Phase::Seeking; // the next tick tries again
            }
            Phase::Proposing { .. } => self.send_roster(io),
            Phase::Accepted { since_ns } if now - since_ns >= 2 * PROPOSAL * interval => {
                self.phase = Phase::Seeking;
            }
            Phase::Accepted { .. } => {
                io.control(Control::Accept { to: self.leader, epoch: self.epoch })
            }
        }
    }
}
