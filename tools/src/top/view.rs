//! What is to be seen: shares, and rates from two samples.

use crate::live::{Hot, Pair, Published, Sample};
use serde::Serialize;
use std::collections::BTreeMap;

/// Kinds of faults that another node has a part in (`node::stages`).
const REMOTE: [&str; 4] = ["read_fault", "write_fault", "upgrade", "first_touch"];
/// Hot pages that are shown.
const HOT_MAX: usize = 16;

/// The cluster at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct View {
    /// The process that runs it.
    pub(crate) process: u32,
    pub(crate) machine: String,
    pub(crate) memory_bytes: u64,
    pub(crate) command: Vec<String>,
    pub(crate) nodes: Vec<NodeView>,
    /// The pages that most remote faults went to of late, with their node.
    pub(crate) hot: Vec<HotView>,
}

/// A node. Rates are of the time between its last two samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeView {
    pub(crate) node: u32,
    pub(crate) uptime_s: f64,
    /// Page frames, and how many are used.
    pub(crate) frames: u64,
    pub(crate) used: u64,
    /// Pages whose master is here.
    pub(crate) owned: u64,
    /// Pages of which a copy to read is here.
    pub(crate) replicas: u64,
    /// Exits of the guest since start, by kind; empty where it does not run.
    pub(crate) exits: BTreeMap<String, u64>,
    pub(crate) exits_s: f64,
    /// Faults of the guest that another node had a part in.
    pub(crate) faults: u64,
    pub(crate) faults_s: f64,
    /// Of the remote faults since the sample before; 0 without any.
    pub(crate) fault_p50_us: f64,
    pub(crate) fault_p99_us: f64,
    pub(crate) evictions: u64,
    pub(crate) evictions_s: f64,
    pub(crate) in_bytes_s: f64,
    pub(crate) out_bytes_s: f64,
}

/// A hot page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HotView {
    pub(crate) node: u32,
    #[serde(flatten)]
    pub(crate) hot: Hot,
}

impl View {
    /// What the published samples come to.
    pub(crate) fn new(published: &Published) -> View {
        let nodes = published.samples.values().map(NodeView::new).collect();
        let of_node = |pair: &Pair| {
            let node = pair.last.node;
            pair.last.hot.iter().map(move |hot| HotView { node, hot: hot.clone() }).collect()
        };
        let mut hot: Vec<HotView> =
            published.samples.values().flat_map(|p| -> Vec<HotView> { of_node(p) }).collect();
        hot.sort_by_key(|h| (std::cmp::Reverse(h.hot.count), h.hot.gfn));
        hot.truncate(HOT_MAX);
        View {
            process: published.process,
            machine: published.machine.clone(),
            memory_bytes: published.memory_bytes,
            command: published.command.clone(),
            nodes,
            hot,
        }
    }
}

/// Faults that another node had a part in.
fn remote_faults(sample: &Sample) -> u64 {
    REMOTE.iter().filter_map(|kind| sample.faults.get(*kind)).sum()
}

/// The guest's exits by kind: those for its memory are counted as faults.
fn exits(sample: &Sample) -> BTreeMap<String, u64> {
    let mut exits = sample.exits.clone();
    if !exits.is_empty() {
        exits.insert("page fault".to_owned(), sample.faults.values().sum());
    }
    exits
}

impl NodeView {
    fn new(pair: &Pair) -> NodeView {
        let last = &pair.last;
        let before = pair.before.as_ref().unwrap_or(last);
        let seconds = last.uptime_us.saturating_sub(before.uptime_us) as f64 / 1e6;
        let rate = |of: fn(&Sample) -> u64| match seconds > 0.0 {
            // A node whose counts were cleared has had none.
            true => of(last).saturating_sub(of(before)) as f64 / seconds,
            false => 0.0,
        };
        NodeView {
            node: last.node,
            uptime_s: last.uptime_us as f64 / 1e6,
            frames: last.frames,
            used: last.frames.saturating_sub(last.free),
            owned: last.masters,
            replicas: last.replicas,
            exits: exits(last),
            exits_s: rate(|s| exits(s).values().sum()),
            faults: remote_faults(last),
            faults_s: rate(remote_faults),
            fault_p50_us: last.recent.p50_ns as f64 / 1e3,
            fault_p99_us: last.recent.p99_ns as f64 / 1e3,
            evictions: last.evicted,
            evictions_s: rate(|s| s.evicted),
            in_bytes_s: rate(|s| s.bytes_in),
            out_bytes_s: rate(|s| s.bytes_out),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::live::Recent;
    use std::collections::BTreeMap;

    /// A cluster of one node whose counts are `factor` times as large.
    pub(crate) fn published() -> Published {
        let sample = |uptime_us: u64, factor: u64| Sample {
            uptime_us,
            node: 0,
            frames: 1000,
            free: 100,
            masters: 700,
            replicas: 150,
            evicted: 10 * factor,
            bytes_in: 4096 * factor,
            bytes_out: 100 * factor,
            faults: BTreeMap::from([
                ("read_fault".into(), 30 * factor),
                ("write_fault".into(), 10 * factor),
                ("local_fault".into(), 999 * factor),
            ]),
            exits: BTreeMap::from([("hlt".into(), 5 * factor), ("cpuid".into(), factor)]),
            recent: Recent { count: 40, p50_ns: 150_000, p99_ns: 900_000 },
            hot: vec![
                Hot { gfn: 5, rip: "1000".into(), count: 2, error: 0 },
                Hot { gfn: 6, rip: "ffffffff81000000".into(), count: 9, error: 1 },
            ],
        };
        let pair = Pair { before: Some(sample(1_000_000, 1)), last: sample(3_000_000, 3) };
        Published {
            process: 1,
            machine: "q35-svm".into(),
            nodes: 1,
            memory_bytes: 128 << 20,
            command: vec!["redis-server".into()],
            samples: BTreeMap::from([(0, pair)]),
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let view = View::new(&published());
        let node = &view.nodes[0];
        assert_eq!((node.used, node.owned, node.replicas), (900, 700, 150));
        assert_eq!((node.faults, node.faults_s), (120, 40.0), "local faults do not count");
        assert_eq!((node.exits["hlt"], node.exits["page fault"]), (15, 3 * 1039));
        assert_eq!(node.exits_s, 1045.0);
        assert_eq!((node.evictions_s, node.in_bytes_s), (10.0, 4096.0));
        assert_eq!((node.fault_p50_us, node.fault_p99_us), (150.0, 900.0));
        assert_eq!(view.hot[0].hot.gfn, 6, "the hottest first");
    }

    #[test]
    fn one_sample_has_no_rates() {
        let mut published = published();
        published.samples.get_mut(&0).unwrap().before = None;
        let node = &View::new(&published).nodes[0];
        assert_eq!((node.faults_s, node.out_bytes_s), (0.0, 0.0));
    }

    #[test]
    fn counts_that_were_cleared_are_no_negative_rates() {
        let mut published = published();
        let pair = published.samples.get_mut(&0).unwrap();
        pair.last.faults.clear();
        assert_eq!(View::new(&published).nodes[0].faults_s, 0.0);
    }
}
