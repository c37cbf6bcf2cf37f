//! What a node counts of the protocol.

/// What happened so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Fetches opened to read.
    pub read_fetches: u64,
    /// Fetches opened to write, with data.
    pub write_fetches: u64,
    /// Fetches opened to write where a copy was here.
    pub upgrades: u64,
    /// Fetches opened ahead of need.
    pub prefetches: u64,
    /// Pages of prefetches that came to nothing.
    pub skipped: u64,
    /// Grants of zero pages received.
    pub zero_grants: u64,
    /// Zero pages received by them.
    pub zero_pages: u64,
    /// Zero pages given a frame.
    pub materialised: u64,
    /// Pages received as data.
    pub pages_in: u64,
    /// Pages that came and stay in the frame in which they landed.
    pub pages_landed: u64,
    /// Pages that came and were copied to their frame.
    pub pages_copied: u64,
    /// Pages sent as data.
    pub pages_out: u64,
    /// Replicas dropped because another node writes.
    pub invalidated: u64,
    /// Replicas dropped for want of frames.
    pub dropped: u64,
    /// Masters that left for want of frames.
    pub evicted: u64,
    /// Of those, pages of zeroes that became dormant.
    pub evicted_zero: u64,
    /// Of those, masters that passed to a node with a replica.
    pub promoted: u64,
    /// Masters taken from other nodes.
    pub adopted: u64,
    /// Masters refused for want of frames.
    pub refused: u64,
    /// Evictions that found no room anywhere.
    pub no_room: u64,
    /// Nested tables taken out.
    pub tables_out: u64,
    /// Runs that became one large page again.
    pub merged: u64,
    /// Of those, runs whose pages lay in a run of frames already.
    pub merged_in_place: u64,
    /// Messages put off because the vCPU still needed the page.
    pub deferred: u64,
    /// Requests that had to wait at home.
    pub queued: u64,
}
