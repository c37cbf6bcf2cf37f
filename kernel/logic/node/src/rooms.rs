//! Free frames of all nodes, and who has most.
//!
//! A tournament: each inner place of a binary tree holds the winner of the
//! two below it. A change costs at most one comparison for each doubling of
//! the cluster, and so does the question for the roomiest node.

use addr::NodeId;
use alloc::vec::Vec;

/// What each node last said of its room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rooms {
    free: Vec<u32>,
    /// Winners; place 1 is the root, the children of i are 2i and 2i + 1, the
    /// last half are the nodes themselves.
    winners: Vec<u16>,
}

impl Rooms {
    /// Nobody has room yet.
    pub(crate) fn new(nodes: usize) -> Rooms {
        let leaves = nodes.next_power_of_two();
        let mut winners = alloc::vec![0; 2 * leaves];
        (0..leaves).for_each(|n| winners[leaves + n] = n as u16);
        let mut rooms = Rooms { free: alloc::vec![0; nodes], winners };
        (1..leaves).rev().for_each(|i| rooms.winners[i] = rooms.winner(i));
        rooms
    }

    pub(crate) fn free(&self, node: NodeId) -> u32 {
        self.free.get(node.index()).copied().unwrap_or(0)
    }

    fn better(&self, a: u16, b: u16) -> u16 {
        let key = |n| (self.free(NodeId(n)), core::cmp::Reverse(n));
        if key(a) >= key(b) { a } else { b }
    }

    fn winner(&self, place: usize) -> u16 {
        self.better(self.winners[2 * place], self.winners[2 * place + 1])
    }

    /// A node has told its room.
    pub(crate) fn set(&mut self, node: NodeId, free: u32) {
        if self.free[node.index()] == free {
            return;
        }
        self.free[node.index()] = free;
        let mut place = (self.winners.len() / 2 + node.index()) / 2;
        while place > 0 {
            self.winners[place] = self.winner(place);
            place /= 2;
        }
    }

    /// The first of the nodes with most room other than those of `not`.
    pub(crate) fn roomiest(&self, not: &[NodeId]) -> Option<NodeId> {
        let best = NodeId(self.best(1, self.winners.len() / 2, 0, not)?);
        (self.free(best) > 0).then_some(best)
    }

    /// The best of the `span` nodes from `first` on, which `place` stands for.
    fn best(&self, place: usize, span: usize, first: usize, not: &[NodeId]) -> Option<u16> {
        if !not.iter().any(|n| (first..first + span).contains(&n.index())) {
            return Some(self.winners[place]);
        }
        if span == 1 {
            return None;
        }
        let left = self.best(2 * place, span / 2, first, not);
        let right = self.best(2 * place + 1, span / 2, first + span / 2, not);
        match (left, right) {
            (Some(a), Some(b)) => Some(self.better(a, b)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_a_look_at_every_node_finds() {
        let mut chance = 1u64;
        let mut random = |n: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 33) % n
        };
        for nodes in [1usize, 2, 3, 7, 64, 100] {
            let mut rooms = Rooms::new(nodes);
            for _ in 0..if cfg!(miri) { 20 } else { 500 } {
                let (node, free) = (NodeId(random(nodes as u64) as u16), random(4) as u32);
                rooms.set(node, free);
                assert_eq!(rooms.free(node), free);
                let not = [(); 3].map(|()| NodeId(random(nodes as u64) as u16));
                let others = (0..nodes as u16).map(NodeId).filter(|n| !not.contains(n));
                let best = others.max_by_key(|&n| (rooms.free(n), core::cmp::Reverse(n)));
                let best = best.filter(|&n| rooms.free(n) > 0);
                assert_eq!(rooms.roomiest(&not), best, "{nodes} nodes without {not:?}");
            }
        }
    }
}
