//! What a running cluster publishes for a live view: its nodes' last samples
//! in a file of its own, which `cargo pangaea top` finds.
//!
//! The samples come on each node's own serial port (`sample` events), so the
//! guest has no part in them: they go on when it hangs. The file is replaced
//! as a whole, and goes when the run ends; one that was left by a run that
//! was killed is known by its process.

use crate::compile::target_folder;
use crate::temporary::TemporaryFile;
use anyhow::{Context, Result};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use runner::ClusterConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The word that has a node print samples, and how often, in seconds.
pub(crate) const NODE_WORD: &str = "sample_s=1";

/// The folder of all published files.
fn folder() -> PathBuf {
    target_folder().join("clusters")
}

/// A page that many faults go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hot {
    /// The guest's page.
    pub(crate) gfn: u64,
    /// The guest's instruction pointer, in hexadecimal.
    pub(crate) rip: String,
    /// Faults that were looked at, of late.
    pub(crate) count: u64,
    /// The most that the count may be too large by.
    pub(crate) error: u64,
}

/// Remote faults since the sample before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recent {
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
}

/// A node's `sample` event (`node::report::sample`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) uptime_us: u64,
    pub(crate) node: u32,
    pub(crate) frames: u64,
    pub(crate) free: u64,
    pub(crate) masters: u64,
    pub(crate) replicas: u64,
    pub(crate) evicted: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Faults since start, by kind.
    pub(crate) faults: BTreeMap<String, u64>,
    /// The guest's other exits since start, by kind; empty where it does not run.
    pub(crate) exits: BTreeMap<String, u64>,
    pub(crate) recent: Recent,
    pub(crate) hot: Vec<Hot>,
}

/// A node's last two samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The one before.
    pub(crate) before: Option<Sample>,
    /// The last one.
    pub(crate) last: Sample,
}

/// What is in the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Published {
    /// The process that runs the cluster.
    pub(crate) process: u32,
    /// The machine recipe.
    pub(crate) machine: String,
    /// Nodes that were started.
    pub(crate) nodes: u32,
    /// Memory of each.
    pub(crate) memory_bytes: u64,
    /// The command in the guest, empty for a console.
    pub(crate) command: Vec<String>,
    /// Samples by node.
    pub(crate) samples: BTreeMap<u32, Pair>,
}

/// Publishes a run's samples; the file goes with it.
pub(crate) struct Publisher {
    state: Published,
    file: Option<TemporaryFile>,
}

impl Publisher {
    /// Publishes nothing yet.
    pub(crate) fn new(config: &ClusterConfig, command: &[String]) -> Self {
        let state = Published {
            process: std::process::id(),
            machine: config.recipe.name.clone(),
            nodes: config.nodes,
            memory_bytes: config.memory.bytes(),
            command: command.to_vec(),
            samples: BTreeMap::new(),
        };
        Self { state, file: None }
    }

    /// Takes a node's event if it is a sample; `false` if it is another.
    pub(crate) fn take(&mut self, event: &Value) -> bool {
        if event["event"] != "sample" {
            return false;
        }
        // A sample that cannot be read is one that nobody sees.
        let Ok(last) = Sample::deserialize(event) else { return true };
        let before = self.state.samples.remove(&last.node).map(|pair| pair.last);
        self.state.samples.insert(last.node, Pair { before, last });
        // A run goes on without a view of it.
        let _ = self.write();
        true
    }

    fn write(&mut self) -> Result<()> {
        let text = serde_json::to_vec(&self.state)?;
        match &self.file {
            Some(file) => file.replace(&text),
            None => {
                std::fs::create_dir_all(folder())?;
                let path = folder().join(format!("{}.json", self.state.process));
                self.file = Some(TemporaryFile::at(path, &text)?);
                Ok(())
            }
        }
    }
}

/// The clusters that run, the newest first.
pub(crate) fn running() -> Vec<Published> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let published = read(entry.path()).ok()?;
            if !is_alive(published.process) {
                let _ = std::fs::remove_file(entry.path());
                return None;
            }
            Some((entry.metadata().and_then(|m| m.created()).ok(), published))
        })
        .collect();
    found.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    found.into_iter().map(|(_, published)| published).collect()
}

/// The cluster of a process, as it is now; `None` if it has ended.
pub(crate) fn of(process: u32) -> Option<Published> {
    let published = read(folder().join(format!("{process}.json"))).ok()?;
    is_alive(process).then_some(published)
}

fn read(path: PathBuf) -> Result<Published> {
    let text = std::fs::read(&path)?;
    serde_json::from_slice(&text).with_context(|| format!("{} is strange", path.display()))
}

/// Whether a process is there.
fn is_alive(process: u32) -> bool {
    kill(Pid::from_raw(process.cast_signed()), None) != Err(nix::Error::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_read_as_the_node_prints_it() {
        // As `node::report::sample` writes it, with the mark of the image.
        let line = r#"{"event":"sample","uptime_us":5000000,"node":1,"frames":30000,"free":10,
            "masters":20000,"replicas":9000,"evicted":5,"bytes_in":1,"bytes_out":2,
            "faults":{"local_fault":0,"read_fault":7,"write_fault":8,"upgrade":9,"first_touch":1},
            "exits":{"hlt":4,"cpuid":0},
            "recent":{"count":3,"min_ns":1,"p50_ns":2,"p90_ns":3,"p99_ns":4},
            "hot":[{"gfn":291,"rip":"ffffffff81000000","count":5,"error":1}]}"#;
        let event: Value = serde_json::from_str(line).unwrap();
        let sample = Sample::deserialize(&event).unwrap();
        assert_eq!((sample.node, sample.faults["write_fault"], sample.exits["hlt"]), (1, 8, 4));
        assert_eq!(sample.hot[0].rip, "ffffffff81000000");
    }

    #[test]
    fn a_process_that_is_gone_is_told_from_one_that_is_there() {
        assert!(is_alive(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        assert!(!is_alive(id));
    }
}
