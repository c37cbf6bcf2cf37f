//! A running cluster: N emulators, their links, and what they say.

use crate::link::{self, Links};
use crate::logs::Tail;
use crate::node::{Node, Starting};
use crate::process;
use crate::switch::{Mac, Switch};
use crate::voice::Voice;
use crate::{
    Emulator, LinkOptions, MemorySize, Message, NODES_MAX, Port, Recipe, RunnerError, memory,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What a leading node needs beside the payload itself: image, heap, tables.
const PAYLOAD_HEADROOM_MIB: u64 = memory::NODE_MIN_BYTES >> 21;

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The kind of machine.
    pub recipe: Recipe,
    /// How many nodes.
    pub nodes: u32,
    /// Memory of each.
    pub memory: MemorySize,
    /// Pangaea's image, or for a direct recipe the guest's kernel.
    pub image: PathBuf,
    /// The guest's payload archive for the leading node, or for a direct
    /// recipe the guest's initrd.
    pub payload: Option<PathBuf>,
    /// Further words for every node's command line, or for a direct recipe
    /// the guest's command line.
    pub append: String,
    /// How long a node waits for the others.
    pub join_timeout: Duration,
    /// The links.
    pub link: LinkOptions,
    /// A folder for the logs of every port.
    pub log_dir: Option<PathBuf>,
    /// Nodes that differ from the rest (for tests of bad input).
    pub overrides: BTreeMap<u32, NodeOverride>,
}

impl ClusterConfig {
    /// Bytes of memory of all nodes that are started.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let memory = |n| match self.overrides.get(&n) {
            Some(node) if node.absent => 0,
            Some(node) => node.memory.unwrap_or(self.memory).bytes(),
            None => self.memory.bytes(),
        };
        (0..self.nodes).map(memory).sum()
    }
}

/// How one node differs from the rest.
#[derive(Clone, Debug, Default)]
pub struct NodeOverride {
    /// Another processor.
    pub cpu: Option<String>,
    /// Another size of memory.
    pub memory: Option<MemorySize>,
    /// Another address of its network card.
    pub mac: Option<Mac>,
    /// Another image.
    pub image: Option<PathBuf>,
    /// Words at the end of its command line.
    pub append: Option<String>,
    /// Another payload (on a direct machine, initrd) than the leading node's.
    pub payload: Option<PathBuf>,
    /// Commands of GRUB before it starts, in place of what a firmware can do.
    /// An emulator that needs no GRUB refuses any.
    pub firmware: String,
    /// It is never started.
    pub absent: bool,
}

/// A running cluster. Dropping it kills what still runs and waits for it.
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    messages: Receiver<Message>,
    inputs: BTreeMap<Port, File>,
    switch: Option<Switch>,
    started: Instant,
}

impl Cluster {
    /// Starts every node and its links.
    ///
    /// # Errors
    /// [`RunnerError`] says in one sentence what stands in the way. Nothing
    /// keeps running then.
    pub fn start(config: &ClusterConfig) -> Result<Self, RunnerError> {
        check(config)?;
        let program = config.recipe.emulator.program();
        if !process::in_path(program) {
            return Err(RunnerError::NoEmulator(program));
        }
        let wiring = config.recipe.emulator.wiring(&config.recipe.nic);
        let Links { ends, switch } = link::connect(config.nodes, wiring, &config.link)?;
        let (sender, messages) = mpsc::channel();
        let started = Instant::now();
        let mut cluster =
            Self { nodes: Vec::new(), messages, inputs: BTreeMap::new(), switch, started };
        let cluster_id = random_id();
        for (node, end) in (0..config.nodes).zip(ends) {
            let changes = config.overrides.get(&node).cloned().unwrap_or_default();
            if changes.absent {
                cluster.nodes.push(None);
                continue;
            }
            let voice = Voice { node, started, messages: sender.clone(), tail: Tail::default() };
            let starting = Starting { config, changes, voice, cluster_id };
            let node = starting.start(end, &mut cluster.inputs)?;
            cluster.nodes.push(Some(node));
        }
        Ok(cluster)
    }

    /// Waits for the next message, at most `timeout`.
    ///
    /// # Errors
    /// [`RecvTimeoutError::Disconnected`] when every node has ended and all
    /// was said.
    pub fn next(&self, timeout: Duration) -> Result<Message, RecvTimeoutError> {
        self.messages.recv_timeout(timeout)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The way to write to one of the guest's ports.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn input(&self, port: Port) -> io::Result<File> {
        match self.inputs.get(&port) {
            Some(line) => line.try_clone(),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the node has no such port")),
        }
    }

    /// Kills a node's emulator at once, as `kill -9` does.
    pub fn kill(&self, node: u32) {
        if let Some(Some(node)) = self.nodes.get(node as usize) {
            node.running.kill();
        }
    }

    /// The process id of a node's emulator.
    pub fn process_id(&self, node: u32) -> Option<u32> {
        Some(self.nodes.get(node as usize)?.as_ref()?.running.id())
    }

    /// The last lines that a node printed.
    pub fn last_lines(&self, node: u32) -> Vec<String> {
        match self.nodes.get(node as usize) {
            Some(Some(node)) => node.tail.lines(),
            _ => Vec::new(),
        }
    }

    /// The switch, if the nodes are linked by one.
    pub fn switch(&self) -> Option<&Switch> {
        self.switch.as_ref()
    }

    /// Kills what still runs and waits until it is gone.
    pub fn end(&mut self) {
        for node in self.nodes.iter().flatten() {
            node.running.kill();
        }
        for node in self.nodes.iter_mut().flatten() {
            if let Some(waiter) = node.waiter.take() {
                // A thread of ours that panicked has said so already.
                let _ = waiter.join();
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Refuses what cannot work before anything is started.
fn check(config: &ClusterConfig) -> Result<(), RunnerError> {
    if !(1..=NODES_MAX).contains(&config.nodes) {
        return Err(RunnerError::NodeCount(config.nodes));
    }
    let recipe = &config.recipe;
    let has_firmware = config.overrides.values().any(|o| !o.firmware.is_empty());
    if has_firmware && recipe.emulator != Emulator::Bochs {
        return Err(RunnerError::NoLoader(recipe.emulator.program()));
    }
    if recipe.direct && !recipe.linked && config.nodes != 1 {
        return Err(RunnerError::DirectWithNodes(recipe.name.clone()));
    }
    let size = |path: &Path| {
        std::fs::metadata(path).map(|m| m.len()).map_err(|e| RunnerError::file(path, "read", e))
    };
    size(&config.image)?;
    if let Some(payload) = &config.payload {
        let payload_mib = size(payload)?.div_ceil(1 << 20);
        let memory_mib = config.memory.mib();
        if payload_mib + PAYLOAD_HEADROOM_MIB > memory_mib {
            return Err(RunnerError::PayloadTooLarge { payload_mib, memory_mib });
        }
    }
    Ok(())
}

/// A number that tells this cluster from every other.
fn random_id() -> u64 {
    fastrand::u64(1..)
}

/// The address of node `n`'s network card: locally administered, in QEMU's
/// range, the same in every run.
pub(crate) fn default_mac(node: u32) -> Mac {
    let [.., high, low] = node.to_be_bytes();
    [0x52, 0x54, 0x00, 0x50, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_are_unicast() {
        let mut seen: Vec<Mac> = (0..NODES_MAX).map(default_mac).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), NODES_MAX as usize);
        assert!(seen.iter().all(|mac| mac[0] & 1 == 0));
    }

    fn config(machine: &str, nodes: u32) -> ClusterConfig {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("machines");
        ClusterConfig {
            recipe: Recipe::load(&folder, machine).unwrap(),
            nodes,
            memory: "128M".parse().unwrap(),
            image: folder.join("q35-svm.toml"),
            payload: None,
            append: String::new(),
            join_timeout: Duration::from_secs(1),
            link: LinkOptions::default(),
            log_dir: None,
            overrides: BTreeMap::new(),
        }
    }

    #[test]
    fn memory_adds_up() {
        let mut config = config("q35-svm", 4);
        let node = NodeOverride { memory: Some("1G".parse().unwrap()), ..Default::default() };
        config.overrides.insert(1, node);
        config.overrides.insert(2, NodeOverride { absent: true, ..Default::default() });
        assert_eq!(config.memory_bytes(), (128 + 1024 + 128) << 20);
    }

    #[test]
    fn a_cluster_that_cannot_work_is_refused() {
        assert!(check(&config("q35-svm", 2)).is_ok());
        assert!(matches!(check(&config("q35-svm", 0)), Err(RunnerError::NodeCount(0))));
        assert!(matches!(check(&config("q35-svm", 65)), Err(RunnerError::NodeCount(65))));
        assert!(matches!(check(&config("bare", 2)), Err(RunnerError::DirectWithNodes(_))));
        assert!(check(&config("linux-svm", 2)).is_ok());
        let mut missing = config("q35-svm", 1);
        missing.image.set_file_name("no such image");
        assert!(matches!(check(&missing), Err(RunnerError::File { .. })));
        let mut large = config("q35-svm", 1);
        let payload = std::env::temp_dir().join(format!("pangaea-payload-{}", std::process::id()));
        std::fs::File::create(&payload).unwrap().set_len(100 << 20).unwrap();
        large.payload = Some(payload.clone());
        let refused = check(&large);
        std::fs::remove_file(payload).unwrap();
        assert!(matches!(refused, Err(RunnerError::PayloadTooLarge { payload_mib: 100, .. })));
    }
}
