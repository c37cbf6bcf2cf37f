//! What the fabric counts.

use wire::{Channel, Kind, WireError};

/// Why a received frame or message was dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Drop {
    /// Not our EtherType.
    Foreign,
    /// Another version of the formats.
    Version,
    /// Ends too early.
    Short,
    /// A kind that does not exist.
    Kind,
    /// Damaged header.
    Check,
    /// A field holds what it must not hold.
    Malformed,
    /// Another cluster.
    OtherCluster,
    /// Addressed to another station.
    NotForMe,
    /// Our own frame has come back.
    Echo,
    /// Another or no membership.
    Stale,
    /// The MAC address is not the named node's.
    WrongSource,
    /// From a node that is fenced.
    FromLost,
    /// Of a kind or from a node that has no meaning in the present state.
    Unexpected,
    /// Beyond the window that was granted.
    BeyondWindow,
    /// No reassembly buffer free; it will be sent again.
    NoBuffer,
    /// The cluster is stopping.
    Stopped,
}

impl Drop {
    /// How many reasons there are.
    pub const COUNT: usize = 16;
}

impl From<WireError> for Drop {
    fn from(error: WireError) -> Drop {
        match error {
            WireError::Foreign => Drop::Foreign,
            WireError::Version => Drop::Version,
            WireError::Short => Drop::Short,
            WireError::Kind => Drop::Kind,
            WireError::Check => Drop::Check,
            WireError::Malformed => Drop::Malformed,
        }
    }
}

/// Counts since [`crate::Fabric::new`]; all only grow.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Counters {
    /// Frames accepted, by [`Kind::index`].
    pub frames_in: [u64; Kind::COUNT],
    /// Frames sent, by [`Kind::index`].
    pub frames_out: [u64; Kind::COUNT],
    /// Messages delivered, by [`Channel::index`].
    pub messages_in: [u64; Channel::COUNT],
    /// Messages taken by `send`, by [`Channel::index`].
    pub messages_out: [u64; Channel::COUNT],
    /// Pages delivered.
    pub pages_in: u64,
    /// Pages taken by `send`.
    pub pages_out: u64,
    /// Frames and messages dropped, by [`Drop`].
    pub drops: [u64; Drop::COUNT],
    /// Messages or parts received again.
    pub duplicates: u64,
    /// Messages or parts sent again after the time-out.
    pub retransmits_timeout: u64,
    /// Messages or parts sent again because later ones were acknowledged.
    pub retransmits_fast: u64,
    /// Acknowledgements that made progress.
    pub acks_in: u64,
    /// Times this node itself was found to have been away.
    pub pauses: u64,
    /// Control frames not sent because their queue was full.
    pub control_overflows: u64,
    /// Events not reported because their queue was full.
    pub events_lost: u64,
}

impl Counters {
    /// Frames and messages dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize]
    }

    pub(crate) fn drop(&mut self, reason: Drop) {
        self.drops[reason as usize] += 1;
    }
}
