//! The page coherence protocol: one writer or many readers of each page.
//!
//! A directory protocol with moving owners and no fixed backing frame: every
//! node's memory is a cache of the guest's, and the sum of all of it is
//! usable. [`Coherence`] is one node's part in all its roles:
//!
//! - requester ([`requester`]): opens a fetch for a page the guest wants,
//!   installs what comes back;
//! - home ([`home`]): keeps the [`directory`], serialises the transactions of
//!   one page, sends forwards and invalidations;
//! - owner and sharer ([`owner`]): gives pages up;
//! - capacity ([`capacity`]): drops replicas and moves masters away when
//!   frames run short (`replacement` says which), takes masters from others.
//!
//! What is this node's alone is mapped in large pages, again as well
//! ([`Coherence::visit_run`]).
//!
//! There is no I/O, clock or randomness here. Messages come in by
//! [`Coherence::handle`], go out through [`Output`]; pages lie in
//! [`paging::HostMemory`]. Messages may arrive in any order, each exactly once.
//! What the protocol does not allow is a [`Violation`]: the caller stops the
//! cluster, since going on could mean wrong data.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod body;
pub mod capacity;
mod counters;
pub mod directory;
mod dispatch;
mod early;
mod foresee;
pub mod home;
mod merge;
pub mod message;
pub mod observe;
pub mod owner;
mod replacement;
pub mod requester;
mod slots;
mod tables;
mod transit;

pub use body::{End, MESSAGE_LEN};
pub use capacity::Limits;
pub use counters::Counters;
pub use foresee::Foreseen;
pub use merge::Visit;
pub use message::{Class, Kind, Message, Role};
pub use observe::{Event, Seen};
pub use requester::{Fetch, Progress};

use addr::{Access, Arrived, Frame, Gfn, NodeId};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use capacity::Put;
use directory::Directory;
use early::Early;
use home::Busy;
use layout::Layout;
use paging::table::Flush;
use paging::{Entry, FramePool, HostMemory, PageState, PageTable};
use replacement::Replacement;
use slots::Slots;
use tables::Tables;
use transit::Transit;

/// Where messages go and what the engine around knows.
pub trait Output {
    /// Sends a message to another node. A `page` must stay as it is until the
    /// caller says so by [`Coherence::released`].
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>);
    /// Free frames of another node, as last heard.
    fn free_frames(&self, node: NodeId) -> u64;
    /// The node with most free frames among the first `nodes`, the first of
    /// several, other than those of `not`; `None` if none has any. An engine of
    /// large clusters does better than to look at each.
    fn roomiest(&self, nodes: u16, not: &[NodeId]) -> Option<NodeId> {
        let others = (0..nodes).map(NodeId).filter(|n| !not.contains(n));
        let best = others.max_by_key(|&n| (self.free_frames(n), core::cmp::Reverse(n)));
        best.filter(|&n| self.free_frames(n) > 0)
    }
    /// Translations of this node's processors must be dropped before the guest
    /// runs again and before any message sent from now on leaves.
    fn flush(&mut self);

    /// Whether [`Output::watch`] is to be told what happens. Where it is not,
    /// telling costs nothing.
    const WATCHES: bool = false;
    /// Hears of every step of the protocol; see [`observe`].
    fn watch(&mut self, _seen: Seen) {}
}

/// Memory and output, as every step needs them.
pub struct Env<'a, M, O> {
    /// The node's page frames.
    pub memory: &'a mut M,
    /// Where messages go.
    pub out: &'a mut O,
}

/// A message that the protocol does not allow in this state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Who sent it.
    pub from: NodeId,
    /// The message.
    pub message: Message,
    /// What is wrong with it.
    pub why: &'static str,
}

/// An open transaction of this node on one page.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Open {
    Fetch(Fetch),
    Put(Put),
}

/// Pages held for the vCPU at most: more than any instruction needs.
const HELD_MAX: usize = 16;

/// Room for transactions at a home before any is open: all that the nodes of a
/// small cluster can have. In a large one more than that at one home is rare,
/// and its tables grow once.
const OPEN_AT_START: usize = 8192;

/// One node's part in the protocol.
#[derive(Clone, Debug)]
pub struct Coherence {
    me: NodeId,
    layout: Layout,
    limits: Limits,
    /// The limits keep frames for all tables that there can be.
    tables_covered: bool,
    table: PageTable,
    pool: FramePool,
    directory: Directory,
    /// The page that the last message was about, its home, and its index there.
    asked_for: (Gfn, NodeId, u64),
    open: Slots<Open>,
    /// Pages whose eviction is open: few, so that a fetch can look at them all.
    leaving: Vec<Gfn>,
    busy: Slots<Busy>,
    busy_max: usize,
    /// Requests that all nodes may have open together.
    requests_max: usize,
    waiting: VecDeque<(NodeId, Message)>,
    next_txn: u32,
    local: VecDeque<Message>,
    deferred: Vec<(NodeId, Message)>,
    held: Vec<Gfn>,
    /// The page that is mapped before its message is taken.
    early: Option<Early>,
    transit: Transit,
    replacement: Replacement,
    tables: Tables,
    /// Where the hand is that merges runs.
    merge_hand: Gfn,
    /// Pages that may leave for the frames that this node has taken for itself
    /// since it last had plenty.
    demand: u64,
    started_put: Option<Gfn>,
    masters: u64,
    replicas: u64,
    counters: Counters,
}

impl Coherence {
    /// A node's part before anything was touched. `pool` has all frames that
    /// the node lends, tables included.
    ///
    /// # Panics
    /// If the pool cannot hold even the root table.
    pub fn new(
        me: NodeId,
        layout: Layout,
        limits: Limits,
        format: paging::Format,
        mut pool: FramePool,
        memory: &mut impl HostMemory,
    ) -> Coherence {
        let nodes = layout.nodes();
        let table = PageTable::new(format, &mut pool, memory).expect("a pool with frames");
        let requests = nodes * (limits.open_max + limits.puts_max);
        // A transaction ends at home when Done arrives; its requester goes on
        // when it sends it.
        let busy_max = requests + nodes * limits.dones_max;
        Coherence {
            me,
            directory: Directory::new(layout.pages_of(me)),
            asked_for: (Gfn(u64::MAX), me, 0),
            open: Slots::with_room_for(limits.open_max + limits.puts_max),
            leaving: Vec::with_capacity(limits.puts_max),
            busy: Slots::with_room_for(busy_max.min(OPEN_AT_START)),
            busy_max,
            requests_max: requests,
            waiting: VecDeque::with_capacity(requests.min(OPEN_AT_START)),
            next_txn: 1,
            local: VecDeque::with_capacity(256),
            deferred: Vec::with_capacity(requests.min(OPEN_AT_START)),
            held: Vec::with_capacity(HELD_MAX),
            early: None,
            transit: Transit::new(limits.open_max),
            replacement: Replacement::new(pool.total_frames()),
            tables: Tables::new(),
            merge_hand: Gfn(0),
            demand: 0,
            started_put: None,
            masters: 0,
            replicas: 0,
            counters: Counters::default(),
            tables_covered: limits.cover_tables(&layout, me),
            layout,
            limits,
            table,
            pool,
        }
    }

    /// Puts a page that has come into a frame, or in the place of one.
    #[inline(always)]
    pub(crate) fn land(
        counters: &mut Counters,
        memory: &mut impl HostMemory,
        frame: Frame,
        page: Arrived<'_>,
    ) -> Frame {
        match page {
            Arrived::Bytes(bytes) => {
                memory.copy_in(frame, bytes);
                counters.pages_copied += 1;
                frame
            }
            Arrived::Landed(landed) => {
                counters.pages_landed += 1;
                core::mem::replace(landed, frame)
            }
        }
    }

    /// Changes what this node holds of a page, owing a flush where due.
    fn set_entry<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        entry: Entry,
    ) {
        let empty = self.table.empty_leaves();
        let (old, flush) = self
            .table
            .replace(env.memory, &mut self.pool, gfn, entry)
            .expect("frames for tables are kept back");
        if self.table.empty_leaves() > empty && !self.tables_covered {
            self.tables.emptied(gfn.run_start());
        }
        self.replacement.ranked(old.rank, entry.rank, 1);
        let masters = self.masters + u64::from(entry.state.is_master());
        self.masters = masters - u64::from(old.state.is_master());
        let replicas = self.replicas + u64::from(entry.state == PageState::Shared);
        self.replicas = replicas - u64::from(old.state == PageState::Shared);
        if flush == Flush::Owed {
            env.out.flush();
        }
    }

    /// Notes what this node has come to hold of a page of which it held nothing.
    #[inline]
    fn fill_entry<M: HostMemory, O: Output>(
        &mut self,
        env: &mut Env<'_, M, O>,
        gfn: Gfn,
        entry: Entry,
    ) {
        self.table
            .fill(env.memory, &mut self.pool, gfn, entry)
            .expect("frames for tables are kept back");
        self.count_filled(&entry);
    }

    /// Counts a page of which this node has come to hold that.
    #[inline(always)]
    fn count_filled(&mut self, entry: &Entry) {
        self.replacement.ranked(0, entry.rank, 1);
        self.masters += u64::from(entry.state.is_master());
        self.replicas += u64::from(entry.state == PageState::Shared);
    }

    /// Gives a frame back, at once or when the fabric has let go of it.
    fn free(&mut self, frame: Frame) {
        if self.transit.free_later(frame) {
            return;
        }
        self.pool.release(frame);
    }

    /// The fabric no longer refers to a page given to [`Output::send`].
    pub fn released(&mut self, frame: Frame) {
        if self.transit.arrived(frame) {
            self.pool.release(frame);
        }
    }

    /// What this node holds of a page.
    #[must_use]
    pub fn entry(&self, memory: &impl HostMemory, gfn: Gfn) -> Entry {
        self.table.get(memory, gfn)
    }

    /// What this node holds of a page that is about to be fetched or used; the
    /// steps that follow find it faster.
    pub fn approach(&mut self, memory: &impl HostMemory, gfn: Gfn) -> Entry {
        self.table.approach(memory, gfn);
        self.table.get(memory, gfn)
    }

    /// Whether an access would succeed now, and the frame it goes to. `None`
    /// in the frame's place reads as zeroes.
    #[must_use]
    pub fn look(
        &self,
        memory: &impl HostMemory,
        gfn: Gfn,
        access: Access,
    ) -> Option<Option<Frame>> {
        let entry = self.table.get(memory, gfn);
        let ready = match access {
            Access::Read => {
                entry.state != PageState::Invalid && (entry.frame.is_some() || !entry.leaving)
            }
            Access::Write => entry.writable(),
        };
        ready.then_some(entry.frame)
    }

    /// Home of a page; `None` where there is no RAM.
    #[must_use]
    pub fn home(&self, gfn: Gfn) -> Option<NodeId> {
        self.layout.home(gfn).map(|(home, _)| home)
    }

    /// The guest's memory and its homes.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The nested page table's root.
    #[must_use]
    pub fn root(&self) -> Frame {
        self.table.root()
    }

    /// Frames free now.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.pool.free_frames()
    }

    /// Frames that the pool was given.
    #[must_use]
    pub fn total_frames(&self) -> u64 {
        self.pool.total_frames()
    }

    /// Pages whose master is here.
    #[must_use]
    pub fn masters(&self) -> u64 {
        self.masters
    }

    /// Pages of which a replica is here.
    #[must_use]
    pub fn replicas(&self) -> u64 {
        self.replicas
    }

    /// The frame pool, to add frames that come free after start.
    pub fn pool_mut(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    /// The page whose eviction was begun last, once; for measurements.
    pub fn take_started_put(&mut self) -> Option<Gfn> {
        self.started_put.take()
    }

    /// Counts so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The directory of the pages this node is home to.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Frames used for nested tables and for directory tables.
    #[must_use]
    pub fn table_frames(&self) -> (u64, u64) {
        (self.table.tables(), self.directory.tables())
    }

    /// Whether a page is part of a large one.
    #[must_use]
    pub fn is_large(&self, memory: &impl HostMemory, gfn: Gfn) -> bool {
        self.table.is_large(memory, gfn)
    }

    /// Large pages, and how often one came apart.
    #[must_use]
    pub fn large_pages(&self) -> (u64, u64) {
        (self.table.large_leaves(), self.table.splits())
    }

    /// Frames that belong to no page now: kept for fetches, left behind by
    /// pages that move, or waiting for the fabric to let go of them. With the
    /// free frames, those of tables and those of pages they are all that the
    /// pool was given.
    #[must_use]
    pub fn frames_in_transactions(&self) -> u64 {
        let open = self.open.values().filter(|open| match open {
            Open::Fetch(_) => true,
            Open::Put(put) => put.keeps_frame(),
        });
        open.count() as u64 + self.transit.freeing()
    }

    /// Evictions of this node that are under way.
    #[must_use]
    pub fn puts_open(&self) -> usize {
        self.leaving.len()
    }

    /// Fetches of this node that are under way, those ahead of need among them.
    #[inline]
    #[must_use]
    pub fn fetches_open(&self) -> usize {
        self.open.len() - self.leaving.len()
    }

    /// Whether another node waits for a page that is kept here.
    #[must_use]
    pub fn keeps_others_waiting(&self) -> bool {
        self.deferred.iter().any(|(_, m)| self.held.contains(&m.gfn))
    }

    /// Whether this node has nothing open, waiting or put off.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty()
            && self.busy.is_empty()
            && self.waiting.is_empty()
            && self.deferred.is_empty()
    }

    /// Whether this node has nothing open, waiting or put off for the page.
    #[must_use]
    pub fn is_idle(&self, gfn: Gfn) -> bool {
        !self.open.contains_key(&gfn.0)
            && !self.busy.contains_key(&gfn.0)
            && !self.deferred.iter().any(|(_, m)| m.gfn == gfn)
    }

    /// Whether this node has a transaction of its own open on the page.
    #[inline]
    #[must_use]
    pub fn is_open(&self, gfn: Gfn) -> bool {
        match &self.early {
            // Its fetch is the one that is open: nothing needs to be searched.
            Some(early) if self.open.len() == 1 => early.gfn == gfn,
            _ => self.open.contains_key(&gfn.0),
        }
    }
}
