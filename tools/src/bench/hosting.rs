//! Machines that have memory and processor to themselves, as real ones do.
//!
//! An emulated machine gets its memory from the host page by page, as it
//! touches it, and each first touch takes some microseconds; and its threads
//! (the processor, and what stands for the devices) run where the host likes.
//! In a measurement that is nobody's work but the host's.

use anyhow::{Context, Result};
use runner::{Cluster, ClusterConfig};

/// Starts machines for a measurement: each on a processor of the host's, if
/// there are as many, and with all of their memory, if the host has twice as
/// much to give.
pub(super) fn start(mut config: ClusterConfig) -> Result<Cluster> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let available = available(&text).context("/proc/meminfo does not say what is available")?;
    config.recipe.pinned = true;
    config.recipe.resident |= config.memory_bytes() <= available / 2;
    Ok(Cluster::start(&config)?)
}

/// Bytes that the host can give without taking any from others.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_says_what_it_can_give() {
        let text = "MemTotal:       24689592 kB\nMemAvailable:   10 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(10 << 10));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }
}
