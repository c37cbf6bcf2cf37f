//! `cargo pangaea bench`: boots a cluster with a small bare guest that
//! measures, and collects what it prints.
//!
//! The guest prints one line `@bench {json}` for each measure.

use crate::cli::RemoteFaultArgs;
use crate::progress::Progress;
use crate::{compile, doctor, payload, report, system};
use anyhow::{Context, Result, bail};
use runner::{Cluster, ClusterConfig, Effect, Ended, Kind, LinkOptions, Recipe, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What marks a measure.
const PREFIX: &str = "@bench ";
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Measures remote faults and prints what the guest found.
pub(crate) fn remote_fault(args: &RemoteFaultArgs) -> Result<u8> {
    let progress = Progress::new();
    let recipe = Recipe::load(&compile::workspace().join("qemu/machines"), &args.machine)?;
    if recipe.direct {
        bail!("the machine {} has no Pangaea to measure", recipe.name);
    }
    system::ensure(doctor::emulator_needs(&recipe), &progress)?;
    let image = compile::node_image(&progress)?;
    let guest = compile::build("pangaea-guests", &progress)?.join("bench");
    let payload = payload::pack(&guest, None, "")?;
    let config = ClusterConfig {
        recipe,
        nodes: args.nodes,
        memory: args.memory,
        image,
        payload: Some(payload.path().to_owned()),
        append: String::new(),
        join_timeout: Duration::from_secs(30),
        link: LinkOptions::default(),
        log_dir: None,
        overrides: BTreeMap::new(),
    };
    let (ended, measures) = collect(&config, Duration::from_secs(args.timeout), &progress)?;
    progress.clear();
    if ended.status != 0 {
        eprintln!("pangaea: {}.", ended.sentence.trim_end_matches('.'));
        return Ok(ended.status);
    }
    if measures.is_empty() {
        bail!("the guest ended without a measure");
    }
    let result = json!({
        "cluster": {
            "nodes": config.nodes,
            "memory_bytes": config.memory.bytes() * u64::from(config.nodes),
            "machine": config.recipe.name,
            "link": config.recipe.nic,
            "mtu": config.recipe.mtu,
        },
        "measures": measures,
    });
    publish(&result, args.json, &args.out)?;
    Ok(0)
}

/// Runs the cluster to its end and collects the guest's measures.
fn collect(
    config: &ClusterConfig,
    limit: Duration,
    progress: &Progress,
) -> Result<(Ended, Vec<Value>)> {
    progress.stage("starting the nodes");
    let cluster = Cluster::start(config)?;
    let mut session = Session::new(config.nodes, false, None);
    let mut lines = BTreeMap::new();
    let mut measures = Vec::new();
    loop {
        if let Ok(message) = cluster.next(TICK) {
            if let Kind::Bytes(port, bytes) = &message.kind {
                let pending: &mut Vec<u8> = lines.entry(*port).or_default();
                pending.extend(bytes);
                measures.extend(take_measures(pending));
            }
            for effect in session.observe(&message) {
                match effect {
                    Effect::Progress(text) => progress.stage(&text),
                    Effect::Report(lines) => lines.iter().for_each(|l| progress.note(l)),
                    Effect::Panic { node, message, backtrace } => {
                        let lines = report::panic_lines(&config.image, node, &message, &backtrace);
                        lines.iter().for_each(|l| progress.note(l));
                    }
                    Effect::Console(_) | Effect::Stdout(_) | Effect::Stderr(_) => {}
                }
            }
        }
        let now = cluster.elapsed();
        if let Some(ended) = session.ended(now) {
            return Ok((ended, measures));
        }
        if now >= limit {
            bail!("the benchmark was ended after {} seconds (--timeout)", now.as_secs());
        }
    }
}

/// Takes the whole lines out of `pending` and reads the measures in them.
fn take_measures(pending: &mut Vec<u8>) -> Vec<Value> {
    let Some(end) = pending.iter().rposition(|&b| b == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = pending.drain(..=end).collect();
    String::from_utf8_lossy(&whole)
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix(PREFIX)?).ok())
        .collect()
}

/// Writes the result to a file and prints it.
fn publish(result: &Value, as_json: bool, folder: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(result)?;
    let file = folder.join("remote-fault.json");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, &text))
        .with_context(|| format!("{} cannot be written", file.display()))?;
    if as_json {
        println!("{text}");
    } else {
        for measure in result["measures"].as_array().into_iter().flatten() {
            println!("{measure}");
        }
        println!("Written to {}.", file.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_are_read_from_whole_lines() {
        let mut pending = b"noise\r\n@bench {\"name\":\"a\"}\r\n@bench {\"na".to_vec();
        assert_eq!(take_measures(&mut pending), [json!({"name": "a"})]);
        pending.extend(b"me\":\"b\"}\n@bench broken\n");
        assert_eq!(take_measures(&mut pending), [json!({"name": "b"})]);
        assert!(pending.is_empty());
    }
}
