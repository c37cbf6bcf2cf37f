//! Formats of the frames on the cluster link.
//!
//! Everything the nodes say to each other is one raw Ethernet II frame of the
//! EtherType 0x88B5 (IEEE Std 802, local experimental EtherType 1). A received
//! frame is looked at through [`Packet`], which checks all of it once; what is
//! sent is written from a plain value ([`Header`], [`Hello`], [`Link`], ...).
//! All integers are little-endian.
//!
//! Offsets are from the first byte of the Ethernet header, so that everything
//! the processor touches is 8-byte aligned in the frame and a page always
//! starts at byte [`PAGE_OFFSET`]. A link may carry a frame with a whole page
//! in another order, so that the page lands in a page frame of its own: then
//! header and page are looked at apart ([`Packet::parse_apart`]).
//!
//! ```text
//!   0  destination MAC   6  source MAC   12  EtherType (big-endian)
//!  14  version           15 kind         16  sender's node (0xFFFF: none yet)
//!  18  payload bytes     20 check        24  cluster
//!  32  epoch             40 free frames  44  masters
//!  48  what the kind says; of Data, Ack and Heartbeat:
//!  48  3 x u32: next sequence number awaited, of each channel
//!  60  3 x u8: window granted beyond it   63  u8: messages in this frame
//!  64  3 x u64: bit i: the awaited number plus i has come
//!  88  messages of 40 bytes: channel, part | parts << 4, 0, 0, u32 sequence, body
//! 128  a page or a part of one, after exactly one message
//! ```
//!
//! # Check
//!
//! The `check` field covers the header and the bodies (everything before the
//! payload), 32 bits of a multiplicative hash over 64-bit words, some hundred
//! instructions for a message. It keeps foreign or damaged headers out of the
//! state machines. Pages are not covered: Ethernet's own frame check sequence
//! covers them on the wire (IEEE 802.3, 3.2.9), the page is sent from its
//! frame by the device without the processor reading it, and a software sum
//! over 4 KiB would cost more than the rest of the path together.
#![no_std]
#![forbid(unsafe_code)]

mod bytes;
mod control;
mod draft;
mod header;
mod link;
mod packet;
mod roster;

pub use control::{Accept, Hello, Probe, ProbeReply, Refuse, Stop};
pub use draft::Draft;
pub use header::{Header, HeaderKey, seal};
pub use link::{Channel, Data, DataWriter, Link, Message, Messages, Payload};
pub use packet::{Body, Packet};
pub use roster::{Entry, Roster, emit_roster, roster_room};

/// A MAC address.
pub type Mac = [u8; 6];

/// The broadcast address.
pub const BROADCAST: Mac = [0xFF; 6];
/// IEEE Std 802 local experimental EtherType 1.
pub const ETHERTYPE: u16 = 0x88B5;
/// Version of these formats.
pub const VERSION: u8 = 1;
/// Bytes of the Ethernet II header.
pub const ETHERNET_BYTES: usize = 14;
/// Least payload an Ethernet frame must be able to carry.
pub const MTU_MIN: u16 = 1500;
/// Largest payload of an Ethernet frame that is used.
pub const MTU_MAX: u16 = 9000;
/// Bytes of an opaque message.
pub const BODY_BYTES: usize = 32;
/// Where what the kind says starts.
pub const HEADER_BYTES: usize = 48;
/// Where the messages of a Data frame start.
pub const LINK_END: usize = 88;
/// Bytes of one message with its sequence number.
pub const MESSAGE_BYTES: usize = 40;
/// Where a page starts in its frame.
pub const PAGE_OFFSET: usize = LINK_END + MESSAGE_BYTES;
/// Sender's node in frames of a node that has none yet.
pub const NO_NODE: u16 = 0xFFFF;

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// "I am here", broadcast by a node that has no membership yet.
    Hello = 1,
    /// The membership a leader proposes, or a part of it.
    Propose = 2,
    /// The membership that holds from now on, or a part of it.
    Commit = 3,
    /// Consent to a proposal.
    Accept = 4,
    /// "You cannot join", with the reason.
    Refuse = 5,
    /// Messages.
    Data = 6,
    /// Acknowledgement alone.
    Ack = 7,
    /// Sign of life.
    Heartbeat = 8,
    /// The cluster stops, with the reason.
    Stop = 9,
    /// Answer to Stop.
    StopAck = 10,
    /// Raw request of the benchmark.
    Probe = 11,
    /// Raw answer of the benchmark.
    ProbeReply = 12,
}

impl Kind {
    /// Kinds that exist; a kind's number is below `COUNT`.
    pub const COUNT: usize = 13;

    /// As an index into per-kind arrays.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    const fn from_wire(value: u8) -> Option<Kind> {
        Some(match value {
            1 => Kind::Hello,
            2 => Kind::Propose,
            3 => Kind::Commit,
            4 => Kind::Accept,
            5 => Kind::Refuse,
            6 => Kind::Data,
            7 => Kind::Ack,
            8 => Kind::Heartbeat,
            9 => Kind::Stop,
            10 => Kind::StopAck,
            11 => Kind::Probe,
            12 => Kind::ProbeReply,
            _ => return None,
        })
    }
}

/// Why a frame cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WireError {
    /// Not our EtherType.
    Foreign,
    /// Another version of these formats.
    Version,
    /// Ends before what it says it holds.
    Short,
    /// A kind that does not exist.
    Kind,
    /// The check does not match the header.
    Check,
    /// A field holds what it must not hold.
    Malformed,
}
