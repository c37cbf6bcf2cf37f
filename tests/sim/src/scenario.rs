//! What a seed stands for: how many nodes, how bad the link is, what happens.

use crate::rng::Rng;

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
    /// More pages than a node has frames, by one node or by all.
    Sweep,
    /// Everything by turns.
    Mixed,
}

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
    /// What the programs do.
    pub load: Load,
    /// Nodes that run no program at first; they only lend memory.
    pub lenders: u16,
    /// Instructions of each program.
    pub instructions: u64,
    /// When a node dies, after the cluster has formed, and which.
    pub kill: Option<(u64, usize)>,
}

impl Scenario {
    /// The scenario of a seed; `nodes` overrules the seed's number of nodes.
    #[must_use]
    pub fn of(seed: u64, nodes: Option<u16>) -> Scenario {
        let mut rng = Rng::new(seed ^ 0x5ce7_a210);
        let own = rng.pick(&[2, 2, 3, 3, 4, 5]);
        let nodes = nodes.unwrap_or(own);
        let weather = weather(&mut rng);
        let load = rng.pick(&[Load::Hot, Load::Hot, Load::Sweep, Load::Mixed]);
        let kill = rng
            .chance(120)
            .then(|| (rng.between(MS, 40 * MS), rng.below(u64::from(nodes)) as usize));
        Scenario {
            seed,
            nodes,
            mtu: rng.pick(&[1500, 8160]),
            weather,
            ring: rng.pick(&[256, 256, 64, 16]),
            spare: (0..nodes).map(|_| rng.pick(&[0, 0, 0, 40, 600])).collect(),
            runs: (0..nodes).map(|_| rng.pick(&[1, 1, 2])).collect(),
            load,
            lenders: rng.below(u64::from(nodes)) as u16,
            instructions: match load {
                Load::Hot => 400,
                Load::Sweep | Load::Mixed => 1500,
            },
            kill: kill.filter(|_| nodes > 1),
        }
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo run -p pangaea-sim -- --seed {} --nodes {}", self.seed, self.nodes)
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
