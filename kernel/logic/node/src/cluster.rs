//! The formed cluster as one node sees it: fabric and coherence joined.
//!
//! The two do not know each other. Messages that come in go straight from the
//! fabric's receive path into the protocol; what the protocol sends is kept in
//! an outbox and handed to the fabric when that call has returned.

use super::actor::{Actor, Control};
use super::fatal::{Fatal, TooSmall};
use super::hold::{self, Hold};
use super::merging::Merging;
use super::outbox::Outbox;
use super::patience::ENDS_AT_ONCE;
use addr::{Access, Arrived, Frame, Gfn, NodeId};
use alloc::vec::Vec;
use coherence::{Coherence, Env, Kind, Limits, Message, Progress};
use fabric::{Fabric, Member, Membership, Sink, Status};
use layout::Layout;
use paging::{FramePool, HostMemory};
use wire::Channel;

/// Ends of transactions that wait at once; more are handled as they come.
pub(crate) const ENDS_MAX: usize = 64;

/// One node of a formed cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    me: NodeId,
    coherence: Coherence,
    outbox: Outbox,
    pub(crate) actor: Actor,
    hold: Hold,
    /// Mean time that a page is kept from others for an instruction that still
    /// lacks another one, or may have retired since.
    hold_ns: u64,
    /// It stays as it is, whatever round trips take.
    hold_fixed: bool,
    pub(crate) merging: Merging,
    /// Ends of transactions at this home that have come and wait for
    /// [`Cluster::catch_up`].
    pub(crate) ends: Vec<(NodeId, Message)>,
    fatal: Option<Fatal>,
    /// [`Cluster::learn_rooms`] has been called.
    pub(crate) rooms_known: bool,
    /// Whose frame has come last: its room is looked at later, or when another
    /// node's comes.
    heard: Option<NodeId>,
}

/// The part of [`Cluster`] and the memory that take messages from the fabric.
struct Inbox<'a, M> {
    cluster: &'a mut Cluster,
    memory: &'a mut M,
}

/// Whether the transaction on a page is one of those that `end` ends.
pub(crate) fn is_among(gfn: Gfn, end: &Message) -> bool {
    gfn.0.wrapping_sub(end.gfn.0) < u64::from(end.count.max(1))
}

impl<M: HostMemory> Sink for Inbox<'_, M> {
    #[inline(always)]
    fn deliver(
        &mut self,
        from: NodeId,
        _channel: Channel,
        body: &[u8; wire::BODY_BYTES],
        page: Option<Arrived<'_>>,
    ) {
        if let Some(control) = Control::from_bytes(body) {
            self.cluster.actor.control(&mut self.cluster.outbox, from, control);
            return;
        }
        let cluster = &mut *self.cluster;
        let Some((message, end)) = Message::from_bytes_with(body) else {
            cluster.fail(Fatal::Unreadable(from));
            return;
        };
        if let Some(end) = end {
            cluster.ended(self.memory, from, end.message(from));
        }
        if message.kind == Kind::Done {
            cluster.ended(self.memory, from, message);
            return;
        }
        if cluster.ends.iter().any(|(_, end)| is_among(message.gfn, end)) {
            cluster.handle_ends(self.memory);
        }
        cluster.handle(self.memory, from, message, page);
    }
}

impl Cluster {
    /// This node's part in the cluster of `membership`, lending the frames of
    /// `pool`. Every node computes the same layout from the same membership.
    ///
    /// # Errors
    /// [`TooSmall`] names the node whose memory is too small to add anything.
    pub fn new(
        membership: &Membership,
        pool: FramePool,
        format: paging::Format,
        memory: &mut impl HostMemory,
    ) -> Result<Cluster, TooSmall> {
        Cluster::with_limits(membership, pool, format, memory, Limits::new)
    }

    /// The same with limits other than [`Limits::new`], of a node's frames, those
    /// of all nodes, and whether it runs the guest.
    ///
    /// # Errors
    /// As [`Cluster::new`].
    pub fn with_limits(
        membership: &Membership,
        pool: FramePool,
        format: paging::Format,
        memory: &mut impl HostMemory,
        limits: impl Fn(u64, u64, bool) -> Limits,
    ) -> Result<Cluster, TooSmall> {
        let total = membership.members.iter().map(|m| m.pages).sum();
        let lender = |m: &Member| limits(m.pages, total, false);
        let limits = |m: &Member| limits(m.pages, total, m.id == NodeId::LEADER);
        let contribution = |m: &Member| limits(m).contribution(m.pages);
        let pages: Vec<u64> = membership.members.iter().map(contribution).collect();
        let me = membership.me;
        let layout = Layout::new(&pages).map_err(|e| {
            let node = match e {
                layout::LayoutError::Unaligned(node) => node,
                layout::LayoutError::NodeCount => me,
            };
            let member = &membership.members[node.index()];
            let would_lend = lender(member).contribution(member.pages) > 0;
            let (frames, tables) = (member.pages, limits(member).unpromised);
            TooSmall { node, frames, tables, would_lend }
        })?;
        let limits = limits(&membership.members[me.index()]);
        let nodes = membership.members.len();
        let coherence = Coherence::new(me, layout, limits, format, pool, memory);
        let outbox = Outbox::new(nodes);
        Ok(Cluster {
            me,
            coherence,
            outbox,
            actor: Actor::default(),
            hold: Hold::new(u64::from(me.0)),
            hold_ns: hold::mean_ns(None),
            hold_fixed: false,
            merging: Merging::new(me == NodeId::LEADER),
            ends: Vec::with_capacity(ENDS_MAX),
            fatal: None,
            rooms_known: false,
            heard: None,
        })
    }

    #[inline(always)]
    fn handle(
        &mut self,
        memory: &mut impl HostMemory,
        from: NodeId,
        message: Message,
        page: Option<Arrived<'_>>,
    ) {
        let mut env = Env { memory, out: &mut self.outbox };
        if let Err(v) = self.coherence.handle_arrived(&mut env, from, message, page) {
            self.fail(Fatal::Violation(v));
        }
    }

    /// Takes the end of transactions at this home: a request may come with it, and
    /// somebody waits for that.
    #[inline]
    fn ended(&mut self, memory: &mut impl HostMemory, from: NodeId, end: Message) {
        if end.count > ENDS_AT_ONCE {
            self.fail(Fatal::Unreadable(from));
            return;
        }
        if self.ends.len() == ENDS_MAX {
            self.handle_ends(memory);
        }
        self.ends.push((from, end));
    }

    fn handle_ends(&mut self, memory: &mut impl HostMemory) {
        while let Some((from, end)) = self.ends.pop() {
            for i in 0..end.count.max(1) {
                let gfn = Gfn(end.gfn.0.wrapping_add(u64::from(i)));
                let txn = end.txn.wrapping_add(u32::from(i));
                self.handle(memory, from, Message { gfn, txn, count: 0, ..end }, None);
            }
        }
    }

    /// Does what nobody waits for and the paths of messages leave behind: ends
    /// transactions at this home, takes back frames that the fabric is done
    /// with, lets patient messages go and tells the fabric what to say of this
    /// node.
    pub(crate) fn catch_up(
        &mut self,
        fabric: &mut Fabric,
        now_ns: u64,
        memory: &mut impl HostMemory,
    ) {
        self.handle_ends(memory);
        self.learn_room(fabric);
        while let Some(frame) = fabric.poll_released() {
            self.coherence.released(frame);
        }
        self.outbox.try_patience(now_ns, self.coherence.fetches_open() > 1);
        self.flush_outbox(fabric, now_ns);
        fabric.set_status(Status {
            free_frames: u32::try_from(self.coherence.room()).unwrap_or(u32::MAX),
            masters: u32::try_from(self.coherence.masters()).unwrap_or(u32::MAX),
        });
    }

    /// Lets go of what waits to travel with a request of this node.
    pub(crate) fn hurry(&mut self, fabric: &mut Fabric, now_ns: u64) {
        self.outbox.hurry();
        self.flush_outbox(fabric, now_ns);
    }

    /// Whether [`Cluster::catch_up`] has something that others wait for in the end.
    pub(crate) fn is_behind(&self) -> bool {
        !self.ends.is_empty() || self.outbox.patience.is_unseen()
    }

    pub(crate) fn fail(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
    }

    /// What stopped this node, if anything did.
    #[must_use]
    pub fn fatal(&self) -> Option<Fatal> {
        self.fatal
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The protocol.
    #[must_use]
    pub fn coherence(&self) -> &Coherence {
        &self.coherence
    }

    /// The protocol, to add frames and the like.
    pub fn coherence_mut(&mut self) -> &mut Coherence {
        &mut self.coherence
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Protocol and outbox, for calls that need both.
    pub(crate) fn parts(&mut self) -> (&mut Coherence, &mut Outbox) {
        (&mut self.coherence, &mut self.outbox)
    }

    /// Whether translations must be dropped before the guest runs; asking
    /// clears it.
    pub fn take_flush(&mut self) -> bool {
        core::mem::take(&mut self.outbox.flush_owed)
    }

    /// Takes a frame from the link, whose page may have landed apart from it.
    pub(crate) fn frame(
        &mut self,
        fabric: &mut Fabric,
        now_ns: u64,
        (bytes, landed): (&[u8], Option<&mut Frame>),
        memory: &mut impl HostMemory,
    ) {
        let mut inbox = Inbox { cluster: self, memory };
        match landed {
            None => fabric.handle_frame(now_ns, bytes, &mut inbox),
            Some(landed) => fabric.handle_landed(now_ns, bytes, landed, &mut inbox),
        }
        let heard = fabric.take_heard();
        if heard != self.heard {
            self.learn_room(fabric);
            self.heard = heard;
        }
        if self.coherence.keeps_others_waiting() {
            if let Some(rtt_ns) = heard.and_then(|from| fabric.rtt_ns(from))
                && !self.hold_fixed
            {
                self.hold_ns = hold::mean_ns(Some(rtt_ns));
            }
            // The instruction may retire without another exit: then nothing
            // else would end it.
            self.hold.begin(now_ns, self.hold_ns);
        }
    }

    /// Whether anything waits to be handed to the fabric.
    pub(crate) fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Hands to the fabric what waits.
    #[inline]
    pub(crate) fn flush_outbox(&mut self, fabric: &mut Fabric, now_ns: u64) {
        if self.outbox.is_empty() {
            return;
        }
        if let Err((to, error)) = self.outbox.flush_to(fabric, now_ns) {
            self.fail(Fatal::Send(to, error));
        }
    }

    /// Takes note of the room of the node that was heard last.
    fn learn_room(&mut self, fabric: &Fabric) {
        if let Some(from) = self.heard.take()
            && let Some(Status { free_frames, .. }) = fabric.peer_status(from)
        {
            self.outbox.rooms.set(from, free_frames);
        }
    }

    /// Takes over what the fabric knows of every node's room at start.
    pub(crate) fn learn_rooms(&mut self, fabric: &Fabric) {
        for node in (0..self.coherence.layout().nodes() as u16).map(NodeId) {
            if let Some(status) = fabric.peer_status(node).filter(|_| node != self.me) {
                self.outbox.rooms.set(node, status.free_frames);
            }
        }
        self.rooms_known = true;
    }

    /// Asks for a page; see [`Coherence::access`].
    pub fn access(
        &mut self,
        memory: &mut impl HostMemory,
        gfn: Gfn,
        access: Access,
        ahead: u16,
    ) -> Progress {
        if self.outbox.is_congested() {
            // Acknowledgements will come, and with them the next try.
            return Progress::Pending;
        }
        let mut env = Env { memory, out: &mut self.outbox };
        match self.coherence.access(&mut env, gfn, access, ahead) {
            Ok(progress) => progress,
            Err(v) => {
                self.fail(Fatal::Violation(v));
                Progress::Pending
            }
        }
    }

    /// Asks for pages that nobody waits for yet; see [`Coherence::prefetch`].
    pub fn prefetch(
        &mut self,
        memory: &mut impl HostMemory,
        from: Gfn,
        step: i64,
        count: u16,
        access: Access,
    ) {
        if self.outbox.is_congested() {
            return;
        }
        let mut env = Env { memory, out: &mut self.outbox };
        if let Err(v) = self.coherence.prefetch(&mut env, from, step, count, access) {
            self.fail(Fatal::Violation(v));
        }
    }

    /// Says that an instruction still waits for a page. Pages kept for it that
    /// other nodes want go when they were kept long enough.
    pub fn still_waiting(&mut self, memory: &mut impl HostMemory, now_ns: u64) {
        if !self.coherence.keeps_others_waiting() {
            self.hold.end();
        } else if self.hold.is_over(now_ns, self.hold_ns) {
            self.release_held(memory);
        }
    }

    /// Sets the mean time that a wanted page is kept for an instruction, which
    /// else follows the round trips to those who want it.
    pub fn fix_hold_ns(&mut self, ns: u64) {
        (self.hold_ns, self.hold_fixed) = (ns, true);
    }

    /// The mean time that a wanted page is kept for an instruction.
    #[must_use]
    pub fn hold_ns(&self) -> u64 {
        self.hold_ns
    }

    /// Gives up what was kept long enough.
    pub(crate) fn end_hold(&mut self, memory: &mut impl HostMemory, now_ns: u64) {
        if self.hold.until_ns().is_some_and(|at| at <= now_ns) {
            self.release_held(memory);
        }
    }

    /// When [`super::Node::tick`] has something to do here again.
    pub(crate) fn timeout_ns(&self) -> Option<u64> {
        let messages = self.hold.until_ns().into_iter().chain(self.outbox.patience.until_ns());
        messages.chain(self.merging.until_ns()).min()
    }

    /// Lets go of pages that were kept for the vCPU.
    #[inline]
    pub fn release_held(&mut self, memory: &mut impl HostMemory) {
        self.hold.end();
        let mut env = Env { memory, out: &mut self.outbox };
        if let Err(v) = self.coherence.release_held(&mut env) {
            self.fail(Fatal::Violation(v));
        }
    }

    /// Makes room while something is starved; see [`Coherence::balance`].
    pub fn balance(&mut self, memory: &mut impl HostMemory) {
        let mut env = Env { memory, out: &mut self.outbox };
        if let Err(v) = self.coherence.balance(&mut env) {
            self.fail(Fatal::Violation(v));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use paging::memory::fake::VecMemory;

    /// Frames of 16 GiB.
    const FRAMES: u64 = 1 << 22;

    fn refused(nodes: u16, frames: impl Fn(u16) -> u64) -> Option<TooSmall> {
        let member = |n: u16| Member {
            id: NodeId(n),
            mac: [2, 0, 0, 0, (n >> 8) as u8, n as u8],
            incarnation: 1,
            pages: frames(n),
            cpus: 1,
            mtu: 9000,
            window: 4,
            has_payload: n == 0,
            lead: false,
        };
        let members = (0..nodes).map(member).collect();
        let membership = Membership { epoch: 1, me: NodeId(nodes - 1), mtu: 9000, members };
        let mut memory = VecMemory::new(8);
        let mut pool = FramePool::new();
        pool.add(Frame(1), Frame(8));
        Cluster::new(&membership, pool, paging::Format::NPT, &mut memory).err()
    }

    /// The largest cluster is admitted, and one whose leader is much smaller than
    /// the rest; one that the upper tables of the guest alone would fill is refused
    /// by every node, in words.
    #[test]
    fn only_a_leader_that_the_upper_tables_would_fill_is_refused() {
        let led_by = |leader| refused(4096, move |n| if n == 0 { leader } else { FRAMES });
        assert_eq!(
            (refused(256, |_| FRAMES), led_by(FRAMES), led_by(FRAMES / 16)),
            (None, None, None)
        );
        let small = FRAMES / 128;
        let why = led_by(small).expect("too small");
        assert_eq!((why.node, why.frames, why.would_lend), (NodeId(0), small, true));
        assert!(why.tables > small);
        let said = why.to_string();
        assert!(said.contains("has 128 MiB") && said.contains("start fewer nodes"), "{said}");
        assert_eq!(refused(100, |n| if n == 0 { small } else { FRAMES }), None);
    }

    #[test]
    fn a_node_without_memory_is_refused() {
        let why = refused(3, |n| if n == 2 { 512 } else { FRAMES }).expect("too small");
        assert_eq!((why.node, why.would_lend), (NodeId(2), false));
        assert!(why.to_string().ends_with("too little memory to add any to the guest's"));
    }
}
