//! NIC drivers behind one trait.
//!
//! A node polls its NIC: [`Nic::transmit`] and [`Nic::receive`] are the two
//! hot calls, both without allocation and with at most one register access. A
//! node with nothing to do enables the receive interrupt, looks once more and
//! halts.
//!
//! [`Nic`] is the contract, [`AnyNic`] the choice made at boot, [`probe`]
//! makes it. [`e1000`], [`virtio`] and [`shm`] are the drivers; they see their device
//! through [`Registers`] and [`DmaRegion`] only, so they run on the host
//! against a fake. Nothing a device writes is believed: lengths and indices
//! are checked.
//!
//! Fixed cost of a running NIC: 2 MiB of receive buffers, 256 KiB of header
//! slots and some pages of descriptors.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod any;
mod choice;
mod dma;
pub mod e1000;
#[cfg(test)]
mod fake;
pub mod folded;
mod frame;
mod probe;
mod registers;
pub mod shm;
pub mod virtio;

pub use any::AnyNic;
pub use choice::Kind;
pub use dma::{DmaRegion, Environment, LandingPage};
pub use frame::{Arrival, NicCounters, PageSlice, Peek, TransmitError};
pub use probe::{Interrupt, Options, ProbeError, Probed, Seen, probe};
pub use registers::{Mmio, Registers};

use addr::Frame;
use frame::{check_frame, is_unicast};

/// Bytes of the longest frame that any driver here receives.
pub const BUFFER_LEN: usize = 8192;
/// Most payload after the 14-byte Ethernet header that any driver here
/// offers: the longest frame less virtio's header, Ethernet's, and a VLAN tag,
/// rounded down.
pub const MTU_MAX: u16 = 8160;
/// Most bytes that [`Nic::transmit`] copies as header: a whole ordinary frame,
/// so that small messages can be gathered in one.
pub const HEADER_MAX: usize = 2048;
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER_LEN: usize = 14;

/// Why a device could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NicError {
    /// The device did not come out of its reset.
    ResetTimeout,
    /// The device has no usable unicast address.
    NoStationAddress,
    /// Not enough contiguous memory for rings and buffers.
    NoMemory,
    /// A BAR or capability that the driver needs is absent or out of bounds.
    BadConfiguration,
    /// The device refused the features the driver cannot do without.
    Features,
    /// Every place in the shared memory is taken: by more nodes than it has
    /// places for, or by nodes of before, if it was not cleared.
    NoPlace,
}

impl core::fmt::Display for NicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            NicError::ResetTimeout => "does not come out of its reset, so switch the machine off",
            NicError::NoStationAddress => "has no address of its own",
            NicError::NoMemory => "gets no memory for its buffers, so give the node more",
            NicError::BadConfiguration => "lacks a part that the driver needs",
            NicError::Features => "refuses what the driver needs",
            NicError::NoPlace => {
                "has no free place: make the memory larger, or clear it by switching all nodes off"
            }
        })
    }
}

/// One running network interface.
pub trait Nic {
    /// The station address.
    fn mac(&self) -> [u8; 6];

    /// Most bytes of a frame after the 14-byte Ethernet header.
    fn mtu(&self) -> u16;

    /// Whether there is a link at this moment. After start it may take
    /// seconds; the caller asks again and decides how long.
    fn link_up(&mut self) -> bool;

    /// Sends one Ethernet frame: `header`, copied (at least 14 and, with
    /// `tail`, at most [`HEADER_MAX`] bytes), followed by a slice of a page that
    /// the device reads from the page itself, after this call returns, and by
    /// `tail`, copied, which only a frame with a page may have. The page must
    /// stay what it is until [`Nic::transmit_pending`] is false or
    /// [`Nic::pages_sent`] has counted it.
    ///
    /// # Errors
    /// [`TransmitError`]; nothing was sent then.
    ///
    /// # Panics
    /// If the header is shorter than 14 bytes or the slice leaves its page.
    fn transmit(
        &mut self,
        header: &[u8],
        page: Option<PageSlice>,
        tail: &[u8],
    ) -> Result<(), TransmitError>;

    /// Gets a frame ready that [`Nic::transmit`] would send, but for its page, of
    /// which `page_len` bytes go with it, and does not send it. It is forgotten when
    /// another is staged or sent. False, and nothing is staged, where this kind of
    /// device gains nothing by it, or the frame is too long or has no room.
    fn stage(&mut self, _header: &[u8], _page_len: u16, _tail: &[u8]) -> bool {
        false
    }

    /// The tail of the staged frame, or its header if it has none, to be changed.
    fn staged(&mut self) -> Option<&mut [u8]> {
        None
    }

    /// Sends the staged frame with as much of a page as it was to have. False if
    /// that is none; nothing was sent then.
    ///
    /// # Panics
    /// If the slice leaves its page.
    fn launch(&mut self, _page: Option<PageSlice>) -> bool {
        false
    }

    /// The next received frame, if there is one and it lies in one piece, which is
    /// not taken: [`Nic::receive`] hands on the same one.
    fn peek(&mut self) -> Option<Peek<'_>>;

    /// Shows the next received frame to `f` without taking it, if there is one whose
    /// first 4096 bytes fill a page frame: that, which stays where it is, and the
    /// rest. [`Nic::receive`] hands on the same one, as `f` has left it. A page
    /// that `f` gives to a guest is the guest's from then on: of such a page only
    /// the frame's number may be looked at.
    fn peek_long<T>(&mut self, _f: impl FnOnce(&mut LandingPage, &mut [u8]) -> T) -> Option<T> {
        None
    }

    /// Hands the next received frame to `f`, padding included, and gives its
    /// buffers, or what `f` has put in their place, back to the device. False
    /// if there was none.
    fn receive(&mut self, f: impl FnOnce(Arrival<'_>)) -> bool;

    /// The page frames in which pages land at first: once they have been
    /// exchanged they are like any others.
    fn landing_frames(&self) -> Option<(Frame, Frame)> {
        None
    }

    /// Whether a received frame waits. One memory read, for the last look
    /// before a halt.
    fn receive_ready(&self) -> bool;

    /// Whether the device may still read a page that was given to
    /// [`Nic::transmit`].
    fn transmit_pending(&mut self) -> bool;

    /// How many of the frames with a page the device is done with, counted
    /// from start in the order of their [`Nic::transmit`] calls: the n-th
    /// page is free when this is at least n.
    fn pages_sent(&mut self) -> u64;

    /// Frames that [`Nic::transmit`] takes now without [`TransmitError::Full`].
    fn room(&mut self) -> usize;

    /// Lets a received frame raise the interrupt. Causes from before are
    /// dropped: look at [`Nic::receive_ready`] once more before halting, with
    /// the processor's interrupts off until the halt.
    fn enable_interrupts(&mut self);

    /// Quiets the interrupt line; says whether this device had raised it.
    fn acknowledge_interrupt(&mut self) -> bool;

    /// Stops interrupts, for the time the driver is polled.
    fn disable_interrupts(&mut self);

    /// Makes the device raise its interrupt, which is enabled, to prove that
    /// the line is wired. False if this kind of device cannot.
    fn raise_interrupt(&mut self) -> bool;

    /// What happened since start.
    fn counters(&mut self) -> NicCounters;
}
