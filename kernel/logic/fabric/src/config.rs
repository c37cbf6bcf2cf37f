//! What a node is told before it looks for the others.

use addr::MAX_NODES;
use wire::{MTU_MAX, MTU_MIN, Mac};

/// Nodes up to which each node watches every other.
const SMALL_NODES: u16 = 32;
/// Messages that wait on one channel in a large cluster, over all peers.
const QUEUED_MAX: u32 = 16_384;
/// Least of them for one peer.
const QUEUE_MIN: u32 = 16;

/// Static configuration. [`Config::new`] gives every tunable a default.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// MAC address of the link's device.
    pub mac: Mac,
    /// Largest Ethernet payload the device can send and receive.
    pub mtu: u16,
    /// Which cluster this node belongs to.
    pub cluster: u64,
    /// Hash of the build; all nodes must run the same.
    pub build: u64,
    /// Random number of this life of the node.
    pub incarnation: u64,
    /// Nodes expected, this one included.
    pub nodes: u16,
    /// Has the guest's kernel, so that it should rather lead.
    pub has_payload: bool,
    /// Must lead.
    pub lead: bool,
    /// Only a node with the guest's kernel, or one told to lead, may lead.
    pub needs_payload: bool,
    /// Pages it contributes, a multiple of 512.
    pub pages: u64,
    /// Processors it contributes.
    pub cpus: u16,
    /// When to report that the others are missing; 0 for never.
    pub join_timeout_ns: u64,
    /// Longest silence towards a peer.
    pub heartbeat_ns: u64,
    /// Silence of a peer after which it is lost.
    pub dead_after_ns: u64,
    /// Mean time between two Hello broadcasts (scaled up in large clusters).
    pub hello_ns: u64,
    /// Longest time an acknowledgement waits for a frame to travel with.
    pub ack_delay_ns: u64,
    /// The same of a response without a page, which mostly is the last word of an
    /// exchange: nothing goes back at once.
    pub last_ack_delay_ns: u64,
    /// Least retransmission time-out.
    pub rto_min_ns: u64,
    /// Largest retransmission time-out.
    pub rto_max_ns: u64,
    /// Receive descriptors of the device; the windows granted to all peers
    /// on all channels together stay below this where the count allows.
    pub ring: u16,
    /// Messages that may wait for a window, for each peer and channel.
    pub queue: u16,
    /// Pages that may be under reassembly at once (small MTU only).
    pub reassembly: u16,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Config {
    /// The defaults: MTU 9000, 512 pages, 1 processor, heartbeat 100 ms, dead
    /// after 3 s, retransmission time-out 5 to 250 ms, acknowledgement delay
    /// 200 us and 3 ms, 256 waiting messages for each peer and channel.
    #[must_use]
    pub const fn new(mac: Mac, cluster: u64, build: u64, incarnation: u64, nodes: u16) -> Config {
        Config {
            mac,
            mtu: MTU_MAX,
            cluster,
            build,
            incarnation,
            nodes,
            has_payload: false,
            lead: false,
            needs_payload: false,
            pages: 512,
            cpus: 1,
            join_timeout_ns: 0,
            heartbeat_ns: 100_000_000,
            dead_after_ns: 3_000_000_000,
            hello_ns: 50_000_000,
            ack_delay_ns: 200_000,
            last_ack_delay_ns: 3_000_000,
            rto_min_ns: 5_000_000,
            rto_max_ns: 250_000_000,
            ring: 256,
            queue: 256,
            reassembly: 64,
            seed: incarnation,
        }
    }

    /// Asserts what the rest relies on; a wrong configuration is our own bug.
    pub(crate) fn check(&self) {
        assert!(self.nodes >= 1 && usize::from(self.nodes) <= MAX_NODES, "1 to 4096 nodes");
        assert!((MTU_MIN..=MTU_MAX).contains(&self.mtu), "MTU of 1500 to 9000 bytes");
        assert!(self.mac[0] & 1 == 0, "a MAC address of one station");
        assert!(self.queue >= 1 && self.reassembly >= 1 && self.hello_ns >= 1000);
        let ack_delay_ns = self.ack_delay_ns.max(self.last_ack_delay_ns);
        assert!(ack_delay_ns < self.rto_min_ns && self.rto_min_ns <= self.rto_max_ns);
        assert!(self.heartbeat_ns >= 2 && self.heartbeat_ns < self.dead_after_ns);
    }

    /// Window to grant each peer on each channel, so that all of them
    /// together fit in the receive ring.
    pub(crate) fn window(&self) -> u8 {
        let peers = u32::from(self.nodes.max(2) - 1);
        let share = u32::from(self.ring) / (peers * wire::Channel::COUNT as u32);
        share.clamp(u32::from(crate::WINDOW_MIN), u32::from(crate::WINDOW_MAX)) as u8
    }

    /// Whether the cluster is so large that a node does not keep something
    /// ready for, or in touch with, every other.
    pub(crate) fn is_large(&self) -> bool {
        self.nodes > SMALL_NODES
    }

    /// Messages that may wait for a window, for each peer and channel: those
    /// of all peers together do not grow with the cluster.
    pub(crate) fn queue(&self) -> u16 {
        let share = (QUEUED_MAX / u32::from(self.nodes)).max(QUEUE_MIN) as u16;
        self.queue.min(share)
    }

    /// Time between two Hello broadcasts: all nodes together send at most
    /// about 32 of them per `hello_ns`.
    pub(crate) fn hello_interval_ns(&self) -> u64 {
        self.hello_ns.saturating_mul(1 + u64::from(self.nodes) / 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_may_send_fits_in_the_ring() {
        let of = |nodes, ring| Config { ring, ..Config::new([0; 6], 1, 1, 1, nodes) };
        // 3 channels of every peer.
        let window = |nodes, ring| of(nodes, ring).window();
        assert_eq!((window(1, 256), window(2, 256), window(2, 120)), (60, 60, 40));
        assert_eq!((window(9, 256), window(9, 1024), window(100, 256)), (10, 42, 4));
        assert!(!of(SMALL_NODES, 256).is_large() && of(SMALL_NODES + 1, 256).is_large());
    }

    #[test]
    fn what_waits_for_all_peers_does_not_grow_with_the_cluster() {
        let queue = |nodes| Config::new([0; 6], 1, 1, 1, nodes).queue();
        assert_eq!((queue(2), queue(64), queue(128)), (256, 256, 128));
        assert_eq!((queue(1024), queue(4096)), (16, 16));
    }
}
