//! What somebody waits for leaves first: protocol and transport are looked at for
//! what they will send ([`coherence::Foreseen`], [`fabric::Glance`]), that goes to
//! the device, and then both take their steps.
//!
//! Nothing comes between. The steps decide as ever, and if they do not send what
//! was foreseen, this node stops: [`Fatal::Unforeseen`].

use super::cluster::{Cluster, ENDS_MAX, is_among};
use super::fatal::Fatal;
use super::{Guest, Node};
use addr::{Access, Gfn};
use coherence::{Foreseen, Kind, Message};
use fabric::{Desk, Fabric, Outgoing, PAGE_OFFSET, Seen, Transmit};
use paging::{Entry, HostMemory};

impl Cluster {
    /// The answer to a request that has come in this frame, written to the `desk`.
    #[inline(always)]
    fn foresee_answer(
        &self,
        fabric: &mut Fabric,
        now_ns: u64,
        bytes: &[u8],
        memory: &impl HostMemory,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        if self.has_output() {
            return None;
        }
        let Some((seen, body)) = fabric.glance_one(bytes) else {
            return self.foresee_second(fabric, now_ns, bytes, memory, desk);
        };
        let (request, end) = Message::from_bytes_with(body)?;
        if end.is_some_and(|end| end.gfn == request.gfn) || self.comes_later(request.gfn) {
            return None;
        }
        let Some((data, page)) = self.coherence().foresee_page(memory, seen.from(), &request)
        else {
            // Read again, or it would be kept in memory where it is a page.
            let (request, _) = Message::from_bytes_with(body)?;
            return self.foresee_other(fabric, now_ns, memory, (seen, request), desk);
        };
        let answer = self.outbox().foresee(data.party, data, Some(page));
        fabric.foresee(now_ns, &answer, Some(seen), desk)
    }

    /// Whether something about a page is taken, or leaves, before what follows from a
    /// message about it.
    #[inline(always)]
    fn comes_later(&self, gfn: Gfn) -> bool {
        self.ends.len() + 1 >= ENDS_MAX
            || self.ends.iter().any(|(_, end)| is_among(gfn, end))
            || self.outbox().patience.ends_for(gfn)
    }

    /// The answer to a request that comes behind the end of other transactions.
    #[inline(never)]
    fn foresee_second(
        &self,
        fabric: &mut Fabric,
        now_ns: u64,
        bytes: &[u8],
        memory: &impl HostMemory,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        let glance = fabric.glance(bytes)?;
        let mut bodies = glance.bodies();
        let end = Message::from_bytes(bodies.next()?).filter(|end| end.kind == Kind::Done)?;
        let request = Message::from_bytes(bodies.next()?)?;
        if bodies.next().is_some() || is_among(request.gfn, &end) || self.comes_later(request.gfn) {
            return None;
        }
        let seen = glance.seen();
        let told = self.coherence().foresee_answer(memory, seen.from(), &request)?;
        self.write(fabric, now_ns, (seen, told), desk)
    }

    /// The answer to a request that is no page.
    #[inline(never)]
    fn foresee_other(
        &self,
        fabric: &mut Fabric,
        now_ns: u64,
        memory: &impl HostMemory,
        (seen, request): (Seen, Message),
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        let told = self.coherence().foresee_other(memory, seen.from(), &request)?;
        self.write(fabric, now_ns, (seen, told), desk)
    }

    fn write(
        &self,
        fabric: &mut Fabric,
        now_ns: u64,
        (seen, (to, message, page)): (Seen, Foreseen),
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        let answer = self.outbox().foresee(to, message, page);
        fabric.foresee(now_ns, &answer, Some(seen), desk)
    }

    /// The request that [`Cluster::access`] will make for a page of which this node
    /// holds `entry`.
    #[inline(always)]
    #[must_use]
    pub fn foresee_fetch(
        &self,
        memory: &impl HostMemory,
        gfn: Gfn,
        access: Access,
        entry: &Entry,
    ) -> Option<Outgoing> {
        if self.has_output() || self.outbox().patience.ends_for(gfn) {
            return None;
        }
        let (to, message) = self.coherence().foresee_fetch(memory, gfn, access, entry)?;
        Some(self.outbox().foresee(to, message, None))
    }

    /// Sends what has left already, the steps to which have been taken.
    fn keep_word(&mut self, fabric: &mut Fabric, now_ns: u64) {
        self.flush_outbox(fabric, now_ns);
        if fabric.has_foreseen() {
            self.fail(Fatal::Unforeseen);
        }
    }
}

impl Node {
    /// Looks at a frame that has come, before [`Node::frame`] takes it. If it can
    /// be told what that will send, it is written to the `desk`, to be handed to the
    /// device; then comes [`Node::foresaw`] or, if the device has not taken it,
    /// [`Node::unforesee`], and the frame itself next.
    pub fn foresee(
        &mut self,
        tsc: u64,
        bytes: &[u8],
        memory: &impl HostMemory,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        let cluster = self.cluster.as_ref()?;
        let now_ns = self.clock.ns(tsc);
        let transmit = cluster.foresee_answer(&mut self.fabric, now_ns, bytes, memory, desk);
        if transmit.is_some() {
            self.serving_since = tsc;
        }
        transmit
    }

    /// What was foreseen is with the device.
    pub fn foresaw(&mut self, tsc: u64, with_page: bool) {
        if with_page {
            self.stages.serve.record(tsc.saturating_sub(self.serving_since));
        }
    }

    /// Has what is written ahead laid where it can leave from
    /// ([`Fabric::lay_ahead`]). To be called after [`Node::tick`].
    #[inline]
    pub fn lay_ahead(&mut self, gone: bool, lay: impl FnOnce(&[u8; PAGE_OFFSET], u16) -> bool) {
        self.fabric.lay_ahead(gone, lay);
    }

    /// The device has not taken what was foreseen: it leaves as usual.
    pub fn unforesee(&mut self) {
        self.fabric.unforesee();
    }

    /// The frame with which a request leaves before the protocol takes the steps
    /// to it, as [`Node::foresee`] has it for answers. Those steps come next, and
    /// then [`Node::keep_word`].
    pub fn foresee_request(
        &mut self,
        tsc: u64,
        request: &Outgoing,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        self.fabric.foresee(self.clock.ns(tsc), request, None, desk)
    }

    /// Sends what has left already, the steps to which have been taken.
    pub fn keep_word(&mut self, tsc: u64) {
        if self.fabric.has_foreseen()
            && let Some(cluster) = &mut self.cluster
        {
            cluster.keep_word(&mut self.fabric, self.clock.ns(tsc));
        }
    }

    /// The frame with the request that the guest's last fault makes, if that can
    /// be told: as [`Node::foresee`] has it, and next comes [`Node::ask`].
    pub fn foresee_guest(
        &mut self,
        tsc: u64,
        guest: &mut Guest,
        desk: &mut Desk<'_>,
    ) -> Option<Transmit> {
        self.foresee_request(tsc, guest.foreseen()?, desk)
    }

    /// Takes the steps of the guest's last fault, if they have not been.
    pub fn ask(&mut self, tsc: u64, guest: &mut Guest, memory: &mut impl HostMemory) {
        let Some(cluster) = &mut self.cluster else { return };
        guest.ask(cluster, memory, self.clock.ns(tsc));
        self.keep_word(tsc);
    }
}
