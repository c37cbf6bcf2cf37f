//! The guest goes on before the frame with its page is taken.
//!
//! What a guest waits for is the page: when that has come, it is mapped
//! ([`coherence::Coherence::map_early`]) and the guest runs. The frame stays with
//! the device until the guest has exited, and until the request that it exited for
//! has left: the steps are taken while that is on its way. A frame that then turns
//! out not to be what was mapped stops this node: [`Fatal::Unforeseen`].

use super::Node;
use super::cluster::Cluster;
use super::fatal::Fatal;
use addr::{Access, Frame, Gfn};
use coherence::Message;
use paging::HostMemory;

impl Cluster {
    /// Looks whether the page that was mapped early has been taken.
    #[inline]
    pub(crate) fn settled(&mut self) {
        if self.coherence().is_early() {
            self.fail(Fatal::Unforeseen);
        }
    }
}

impl Node {
    /// Maps the page that the guest waits for, to access it so, if it has come in
    /// this frame and all of it can be told by looking: `true` then. The page lies in
    /// the page frame `page` of the link's, apart from the other `bytes`.
    ///
    /// The same frame has to go to [`Node::landed`] later: after the guest's next
    /// exit, and before anything but [`Node::foresee_guest`] and [`Node::ask`].
    /// [`super::Step::Unsettled`] says that it is time.
    pub fn map_early(
        &mut self,
        bytes: &[u8],
        page: Frame,
        (gfn, access): (Gfn, Access),
        memory: &mut impl HostMemory,
    ) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        let Some(body) = self.fabric.glance_landed(bytes) else { return false };
        let is_it = |m: &Message| m.gfn == gfn && (m.exclusive || access == Access::Read);
        let Some(message) = Message::from_bytes(body).filter(is_it) else { return false };
        cluster.coherence_mut().map_early(memory, &message, page)
    }

    /// Whether a page is mapped whose frame was not taken.
    #[inline]
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.coherence().is_early())
    }
}
