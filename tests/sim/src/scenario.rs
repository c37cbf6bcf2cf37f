//! What a seed stands for: how many nodes, how bad the link is, what happens.

use crate::rng::Rng;
use addr::RUN_PAGES;
use coherence::Limits;

/// Nanoseconds in a microsecond.
pub const US: u64 = 1_000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;

/// The link and what the world does to the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Frames lost, per mille.
    pub loss: u64,
    /// Frames that arrive twice, per mille.
    pub double: u64,
    /// Least time on the wire, in nanoseconds.
    pub delay_ns: u64,
    /// Most time on top of that; frames overtake each other by it.
    pub jitter_ns: u64,
    /// Frames that are held up for up to 50 ms, per mille.
    pub strays: u64,
    /// Mean time between two pauses of a node; 0 for none.
    pub pause_every_ns: u64,
    /// Longest pause.
    pub pause_ns: u64,
}

/// What the nodes' programs do most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// All nodes at a few pages.
    Hot,
    /// Each node mostly at its own words of a few pages (false sharing).
    Sharing,
    /// Any page.
    Uniform,
    /// Litmus shapes, one after the other.
    Litmus,
    /// Nothing but writes to the same two pages, both by every second
    /// instruction; for the measurement of contention.
    Contend,
    /// More pages than a node has frames, by one node or by all.
    Sweep,
    /// A few pages of every 2 MiB, while frames are kept back for few nested
    /// tables and there are no more for pages than these pages need.
    Sparse,
    /// Everything by turns.
    Mixed,
    /// Whole runs, where frames are plenty, and a few pages of them here and
    /// there: runs that come apart and are merged again.
    Runs,
}

/// Pages of each run that programs touch under [`Load::Sparse`].
pub const SPARSE_PAGES: u64 = 3;
/// Frames that nodes keep for pages on their way then.
const SPARSE_RESERVE: u64 = 24;

/// What a simulated processor does wrong, on purpose. The checks that look
/// at the nodes or know the last write are then off: the history alone must
/// show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// Keeps reading through a translation that it was told to drop.
    KeepsTranslations,
    /// Reads and writes of an atomic at two instants.
    TearsAtomics,
}

/// What happens to whole nodes, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mishap {
    /// Nothing.
    None,
    /// A node dies after the cluster has formed.
    Death {
        /// Which.
        host: usize,
        /// How long after.
        after_ns: u64,
    },
    /// A node dies and comes back in a new life: it must stay out. Then the
    /// others are restarted as well, and all must form a new cluster.
    Rejoin {
        /// Which.
        host: usize,
        /// When it dies, after the cluster has formed.
        after_ns: u64,
        /// How long it is away.
        away_ns: u64,
    },
    /// The same while the nodes are still looking for each other.
    EarlyRestart {
        /// Which.
        host: usize,
        /// When it dies, after power-on.
        after_ns: u64,
        /// How long it is away.
        away_ns: u64,
    },
    /// Frames between two groups of nodes are lost for a while.
    Partition {
        /// Bit n: host n is in the one group.
        group: u8,
        /// When, after the cluster has formed.
        after_ns: u64,
        /// How long. Less than the fabric's patience: nothing may be lost;
        /// more: every node stops.
        long_ns: u64,
        /// Frames from the other group still come.
        one_way: bool,
    },
}

impl Mishap {
    /// Whether the cluster must end by it.
    #[must_use]
    pub fn ends_cluster(self) -> bool {
        match self {
            Mishap::None | Mishap::EarlyRestart { .. } => false,
            Mishap::Death { .. } | Mishap::Rejoin { .. } => true,
            Mishap::Partition { long_ns, .. } => long_ns > PATIENCE_NS,
        }
    }

    /// Whether a node may report that the cluster has ended.
    #[must_use]
    pub fn may_end_cluster(self) -> bool {
        self.ends_cluster() || matches!(self, Mishap::EarlyRestart { .. })
    }

    fn of(rng: &mut Rng, nodes: u16) -> Mishap {
        let host = rng.below(u64::from(nodes)) as usize;
        let after_ns = rng.between(MS, 40 * MS);
        let away_ns = rng.pick(&[20 * MS, 700 * MS, 5_000 * MS]);
        let away_ns = away_ns + rng.below(100 * MS);
        let group = rng.between(1, (1 << nodes) - 2) as u8;
        let one_way = rng.chance(300);
        match rng.below(1000) {
            _ if nodes == 1 => Mishap::None,
            0..60 => Mishap::Death { host, after_ns },
            60..100 => Mishap::Rejoin { host, after_ns, away_ns },
            100..130 => {
                let (after_ns, away_ns) = (rng.below(150 * MS), rng.below(300 * MS));
                Mishap::EarlyRestart { host, after_ns, away_ns }
            }
            130..190 => {
                let long_ns = rng.pick(&[30 * MS, 400 * MS, 2_000 * MS]);
                Mishap::Partition { group, after_ns, long_ns, one_way }
            }
            190..215 => Mishap::Partition { group, after_ns, long_ns: u64::MAX / 4, one_way },
            _ => Mishap::None,
        }
    }
}

/// A partition of this length is survived, one that is a good deal longer
/// is not.
const PATIENCE_NS: u64 = 2_500 * MS;

/// All that a seed decides before the first event.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Nodes.
    pub nodes: u16,
    /// Largest Ethernet payload.
    pub mtu: u16,
    /// The link.
    pub weather: Weather,
    /// Receive descriptors of each node's NIC.
    pub ring: usize,
    /// Frames of each node beyond what it must have; the first is the least.
    pub spare: Vec<u64>,
    /// 2 MiB runs that each node adds to the guest's memory.
    pub runs: Vec<u64>,
    /// Nested tables that frames are kept back for at each node, if fewer than
    /// [`Limits::new`] has it.
    pub tables: Option<u64>,
    /// Nodes that a home asks at most whether they take a master for the replica
    /// that they may have ([`Limits::asks_max`]).
    pub asks_max: u16,
    /// What the programs do.
    pub load: Load,
    /// Nodes that run no program at first; they only lend memory.
    pub lenders: u16,
    /// Instructions of each program.
    pub instructions: u64,
    /// Mean time that wanted pages are kept for an instruction, if not by
    /// measured round trips.
    pub hold_ns: Option<u64>,
    /// Litmus instances at most.
    pub litmus: usize,
    /// A fault of the simulated processors, to see that the checks find it.
    pub defect: Option<Defect>,
    /// What happens to whole nodes.
    pub mishap: Mishap,
    /// A node that is slower than the others, and how much.
    pub slow: Option<(usize, u64)>,
    /// Time between two rounds in which nodes merge runs of pages.
    pub merge_ns: u64,
    /// After so many turns a node lets go what waits to travel with its next request,
    /// as one does whose guest has asked for nothing for a while; 0 for never.
    pub hurry_every: u64,
}

impl Scenario {
    /// The scenario of a seed; `nodes` overrules the seed's number of nodes.
    #[must_use]
    pub fn of(seed: u64, nodes: Option<u16>) -> Scenario {
        let mut rng = Rng::new(seed ^ 0x5ce7_a210);
        let own = rng.pick(&[2, 2, 3, 3, 4, 5]);
        let nodes = nodes.unwrap_or(own);
        let weather = weather(&mut rng);
        let load = rng.pick(&[
            Load::Hot,
            Load::Sharing,
            Load::Uniform,
            Load::Sweep,
            Load::Mixed,
            Load::Litmus,
            Load::Litmus,
        ]);
        let mishap = Mishap::of(&mut rng, nodes);
        let slow = (rng.below(u64::from(nodes)) as usize, rng.pick(&[5, 30]));
        let slow = rng.chance(120).then_some(slow);
        let mut sparse = Rng::new(seed ^ 0x5ba_55e5);
        let load = if sparse.chance(125) { Load::Sparse } else { load };
        let tables = sparse.between(2, 8);
        // What came later is drawn apart: the rest of a seed stays as it was.
        let mut apart = Rng::new(seed ^ 0x001a_26e0);
        let load = if load != Load::Sparse && apart.chance(100) { Load::Runs } else { load };
        let merge_ns = apart.pick(&[MS / 5, MS, 100 * MS]);
        // So small a cluster has seldom more replicas than may be asked for.
        let asks_max = Rng::new(seed ^ 0x00a5_5e5e).pick(&[1, 4]);
        let spares: &[u64] = if load == Load::Runs { &[1500, 2600] } else { &[0, 0, 0, 40, 600] };
        Scenario {
            seed,
            nodes,
            mtu: rng.pick(&[1500, 8160]),
            weather,
            ring: rng.pick(&[256, 256, 64, 16]),
            spare: (0..nodes).map(|_| rng.pick(spares)).collect(),
            runs: (0..nodes)
                .map(|_| match load {
                    Load::Sparse => sparse.between(2, 6),
                    _ => rng.pick(&[1, 1, 2]),
                })
                .collect(),
            tables: (load == Load::Sparse).then_some(tables),
            asks_max,
            load,
            lenders: if load == Load::Litmus { 0 } else { rng.below(u64::from(nodes)) as u16 },
            instructions: match load {
                Load::Hot | Load::Sharing => 400,
                Load::Uniform => 500,
                Load::Litmus => 20,
                Load::Contend => 1000,
                Load::Sweep | Load::Mixed | Load::Sparse => 1500,
                Load::Runs => 3000,
            },
            hold_ns: None,
            litmus: 24,
            defect: None,
            mishap,
            slow,
            merge_ns,
            hurry_every: Rng::new(seed ^ 0x0048_0221).pick(&[0, 4, 40]),
        }
    }

    /// The limits of a node with so many frames in a cluster that has so many.
    #[must_use]
    pub fn limits(&self, frames: u64, cluster: u64, runs_guest: bool) -> Limits {
        let limits = Limits { asks_max: self.asks_max, ..Limits::new(frames, cluster, runs_guest) };
        let Some(nested) = self.tables else { return limits };
        let table_frames = frames / RUN_PAGES + nested;
        Limits {
            table_frames,
            unpromised: table_frames,
            reserve: SPARSE_RESERVE,
            open_max: 8,
            puts_max: 8,
            dones_max: 512,
            ..limits
        }
    }

    /// Frames that the fabric tells of a node: a run more than it lends as guest
    /// memory pays for tables and reserve.
    #[must_use]
    pub fn told(&self, host: usize) -> u64 {
        (self.runs[host] + 1) * RUN_PAGES
    }

    /// Frames that a node really has, at least.
    #[must_use]
    pub fn needed(&self, host: usize) -> u64 {
        let nodes = usize::from(self.nodes);
        let total = (0..nodes).map(|n| self.told(n)).sum();
        let limits = self.limits(self.told(host), total, true);
        let keeps = limits.unpromised + limits.reserve;
        if self.tables.is_none() {
            return limits.contribution(self.told(host)) + keeps;
        }
        // A table for each page that is touched, what an open fetch may need, and
        // the levels above.
        let pages = self.runs.iter().sum::<u64>() * SPARSE_PAGES;
        keeps + 2 * pages.div_ceil(self.nodes.into()) + 3 * (limits.open_max as u64 + 1) + 3
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo pangaea sim --seed {} --nodes {}", self.seed, self.nodes)
    }

    /// Longest time an access may take, in nanoseconds of virtual time.
    #[must_use]
    pub fn patience_ns(&self) -> u64 {
        10_000 * MS
    }
}

fn weather(rng: &mut Rng) -> Weather {
    let loss = rng.pick(&[0, 0, 5, 50, 200]);
    let (pause_every_ns, pause_ns) =
        rng.pick(&[(0, 0), (0, 0), (3 * MS, 300 * US), (40 * MS, 5 * MS), (400 * MS, 60 * MS)]);
    Weather {
        loss,
        double: rng.pick(&[0, 0, 10, 100]),
        delay_ns: rng.pick(&[5 * US, 20 * US, 60 * US]),
        jitter_ns: rng.pick(&[0, 20 * US, 200 * US]),
        strays: rng.pick(&[0, 5, 30, 150]),
        pause_every_ns,
        pause_ns,
    }
}
