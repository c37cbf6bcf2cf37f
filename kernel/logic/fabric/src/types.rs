//! Values that cross the fabric's surface.

use addr::{Arrived, Frame, NodeId};
use alloc::vec::Vec;
use wire::{BODY_BYTES, Channel, Entry, Mac};

/// A message to send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Outgoing {
    /// Receiver; not this node itself.
    pub to: NodeId,
    /// Virtual channel.
    pub channel: Channel,
    /// Opaque content.
    pub body: [u8; BODY_BYTES],
    /// A page to go with it. Its content must not change until the frame
    /// comes back from [`crate::Fabric::poll_released`].
    pub page: Option<Frame>,
    /// Nobody waits for it: like an acknowledgement it may stay until a frame
    /// goes to the same peer anyway, for [`crate::Config::ack_delay_ns`] at most.
    pub patient: bool,
}

/// Takes messages as they arrive.
pub trait Sink {
    /// Whether messages can be taken now. What comes before that is dropped
    /// unacknowledged, so that it is sent again.
    fn is_ready(&self) -> bool {
        true
    }

    /// Takes one message; called exactly once for each, in any order.
    fn deliver(
        &mut self,
        from: NodeId,
        channel: Channel,
        body: &[u8; BODY_BYTES],
        page: Option<Arrived<'_>>,
    );
}

/// Part of a page frame to be sent behind a header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageSlice {
    /// The page frame.
    pub frame: Frame,
    /// First byte.
    pub offset: u16,
    /// Bytes.
    pub len: u16,
}

/// A frame for the device: `header_len` bytes of the buffer, then the slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Transmit {
    /// Bytes written to the header buffer.
    pub header_len: usize,
    /// What follows them.
    pub page: Option<PageSlice>,
    /// They are not in that buffer but where the frame was laid ahead.
    pub is_laid: bool,
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SendError {
    /// The queue of this peer and channel is full; try again after progress.
    Full,
    /// No such node, this node itself, or a lost one.
    NoSuchPeer,
    /// There is no membership yet.
    NotFormed,
    /// The cluster is stopping.
    Stopped,
}

/// What a node says of itself on every frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Status {
    /// Free page frames.
    pub free_frames: u32,
    /// Master pages held.
    pub masters: u32,
}

/// A node of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Its place.
    pub id: NodeId,
    /// MAC address.
    pub mac: Mac,
    /// Number of its present life.
    pub incarnation: u64,
    /// Pages it contributes.
    pub pages: u64,
    /// Processors it contributes.
    pub cpus: u16,
    /// Has the guest's kernel.
    pub has_payload: bool,
    /// Was told to lead.
    pub lead: bool,
    /// Largest Ethernet payload it takes.
    pub mtu: u16,
    /// Window it grants to each peer on each channel.
    pub window: u8,
}

impl Member {
    pub(crate) fn new(id: u16, e: &Entry) -> Member {
        Member {
            id: NodeId(id),
            mac: e.mac,
            incarnation: e.incarnation,
            pages: e.pages,
            cpus: e.cpus,
            has_payload: e.has_payload,
            lead: e.lead,
            mtu: e.mtu,
            window: e.window,
        }
    }
}

/// Who forms the cluster. It never changes; a lost node is fenced.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    /// Random number of this membership, never 0.
    pub epoch: u64,
    /// This node.
    pub me: NodeId,
    /// Ethernet payload every member takes.
    pub mtu: u16,
    /// All nodes in the order of their ids; the first leads.
    pub members: Vec<Member>,
}

/// Why the cluster stops.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StopReason {
    /// The guest powered off.
    PowerOff,
    /// The guest reset the machine.
    Reset,
    /// Something broke; the code says what.
    Fatal(u64),
}

impl StopReason {
    pub(crate) fn to_wire(self) -> (u16, u64) {
        match self {
            StopReason::PowerOff => (1, 0),
            StopReason::Reset => (2, 0),
            StopReason::Fatal(code) => (3, code),
        }
    }

    pub(crate) fn from_wire(reason: u16, code: u64) -> Option<StopReason> {
        match reason {
            1 => Some(StopReason::PowerOff),
            2 => Some(StopReason::Reset),
            3 => Some(StopReason::Fatal(code)),
            _ => None,
        }
    }
}

/// Why two nodes cannot be in one cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RefuseReason {
    /// Another build.
    VersionMismatch {
        /// The other node's build.
        theirs: u64,
    },
    /// The cluster has formed without this node.
    ClusterFull,
    /// Two nodes have one MAC address.
    DuplicateIdentity,
    /// Another number of nodes expected.
    NodeCountMismatch {
        /// The other node's number.
        theirs: u16,
    },
    /// Both were told to lead.
    TwoForcedLeaders,
    /// This node was a member of the running cluster and is taken for lost:
    /// it has restarted, or was silent for too long.
    Fenced,
}

impl RefuseReason {
    pub(crate) fn to_wire(self) -> (u16, u64) {
        match self {
            RefuseReason::VersionMismatch { theirs } => (1, theirs),
            RefuseReason::ClusterFull => (2, 0),
            RefuseReason::DuplicateIdentity => (3, 0),
            RefuseReason::NodeCountMismatch { theirs } => (4, u64::from(theirs)),
            RefuseReason::TwoForcedLeaders => (5, 0),
            RefuseReason::Fenced => (6, 0),
        }
    }

    pub(crate) fn from_wire(reason: u16, detail: u64) -> Option<RefuseReason> {
        Some(match reason {
            1 => RefuseReason::VersionMismatch { theirs: detail },
            2 => RefuseReason::ClusterFull,
            3 => RefuseReason::DuplicateIdentity,
            4 => RefuseReason::NodeCountMismatch { theirs: u16::try_from(detail).ok()? },
            5 => RefuseReason::TwoForcedLeaders,
            6 => RefuseReason::Fenced,
            _ => return None,
        })
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// One more node is known.
    NodeJoined {
        /// Known now, this node included.
        known: u16,
        /// Expected.
        of: u16,
    },
    /// The membership holds; see [`crate::Fabric::membership`].
    Formed,
    /// The others did not come in time. The search goes on.
    JoinTimeout {
        /// Known now, this node included.
        present: u16,
        /// Expected.
        of: u16,
    },
    /// This node and the one of the MAC address cannot be in one cluster.
    /// The search goes on without it.
    Refused {
        /// The other node.
        by: Mac,
        /// Why.
        reason: RefuseReason,
    },
    /// A peer has been silent for too long; it is fenced.
    PeerLost {
        /// The peer.
        node: NodeId,
        /// Its life.
        incarnation: u64,
        /// The membership.
        epoch: u64,
        /// The last it said of itself.
        status: Status,
    },
    /// A peer stops the cluster.
    Stopped {
        /// The peer.
        by: NodeId,
        /// Why.
        reason: StopReason,
    },
    /// After [`crate::Fabric::stop`]: every peer knows, or was told in vain.
    StopDone,
    /// The answer to [`crate::Fabric::probe`] is complete.
    ProbeReply {
        /// What `probe` returned.
        token: u64,
        /// Bytes of payload that came.
        bytes: usize,
    },
}
