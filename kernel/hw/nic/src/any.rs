//! The driver that was chosen at boot.

use crate::e1000::E1000;
use crate::shm::SharedMemory;
use crate::virtio::VirtioNet;
use crate::{Arrival, LandingPage, Mmio, Nic, NicCounters, PageSlice, Peek, TransmitError};
use addr::Frame;

/// Any NIC this crate drives. One branch a call, so the hot path stays
/// static.
#[allow(clippy::large_enum_variant, reason = "one value in a node, never moved")]
pub enum AnyNic {
    /// Intel 8254x or 82574L.
    E1000(E1000<Mmio>),
    /// virtio-net.
    Virtio(VirtioNet<Mmio>),
    /// Memory that all nodes see.
    Shared(SharedMemory),
}

macro_rules! each {
    ($any:expr, $nic:ident => $call:expr) => {
        match $any {
            AnyNic::E1000($nic) => $call,
            AnyNic::Virtio($nic) => $call,
            AnyNic::Shared($nic) => $call,
        }
    };
}

impl Nic for AnyNic {
    fn mac(&self) -> [u8; 6] {
        each!(self, nic => nic.mac())
    }
    fn mtu(&self) -> u16 {
        each!(self, nic => nic.mtu())
    }
    fn link_up(&mut self) -> bool {
        each!(self, nic => nic.link_up())
    }
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError> {
        each!(self, nic => nic.transmit(header, page, tail))
    }
    fn stage(&mut self, header: &[u8], page_len: u16, tail: &[u8]) -> bool {
        each!(self, nic => nic.stage(header, page_len, tail))
    }
    #[inline(always)]
    fn staged(&mut self) -> Option<&mut [u8]> {
        each!(self, nic => nic.staged())
    }
    #[inline(always)]
    fn launch(&mut self, page: Option<PageSlice>) -> bool {
        each!(self, nic => nic.launch(page))
    }
    #[inline(always)]
    fn peek(&mut self) -> Option<Peek<'_>> {
        each!(self, nic => nic.peek())
    }
    fn peek_long<T>(&mut self, f: impl FnOnce(&mut LandingPage, &mut [u8]) -> T) -> Option<T> {
        each!(self, nic => nic.peek_long(f))
    }
    fn receive(&mut self, f: impl FnOnce(Arrival<'_>)) -> bool {
        each!(self, nic => nic.receive(f))
    }
    fn landing_frames(&self) -> Option<(Frame, Frame)> {
        each!(self, nic => nic.landing_frames())
    }
    fn receive_ready(&self) -> bool {
        each!(self, nic => nic.receive_ready())
    }
    fn transmit_pending(&mut self) -> bool {
        each!(self, nic => nic.transmit_pending())
    }
    fn pages_sent(&mut self) -> u64 {
        each!(self, nic => nic.pages_sent())
    }
    fn room(&mut self) -> usize {
        each!(self, nic => nic.room())
    }
    fn enable_interrupts(&mut self) {
        each!(self, nic => nic.enable_interrupts());
    }
    fn acknowledge_interrupt(&mut self) -> bool {
        each!(self, nic => nic.acknowledge_interrupt())
    }
    fn disable_interrupts(&mut self) {
        each!(self, nic => nic.disable_interrupts());
    }
    fn raise_interrupt(&mut self) -> bool {
        each!(self, nic => nic.raise_interrupt())
    }
    fn counters(&mut self) -> NicCounters {
        each!(self, nic => nic.counters())
    }
}
