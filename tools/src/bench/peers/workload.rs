//! What is run on each set-up: bare touches, or programs of Debian under an
//! operating system.

use clap::ValueEnum;
use serde::Serialize;

/// Bytes of a value in Redis, as `tests/peers/machine/workloads/redis` makes
/// them: with what Redis adds to it, one of the allocator's blocks of 4 KiB.
const VALUE_BYTES: u64 = 4090;
/// Bytes that stress-ng counts as one operation of this method: 4096 words.
const OPERATION_BYTES: u64 = 8 * 4096;

/// Something to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Single reads and writes by a bare guest or a process.
    Touches,
    /// stress-ng writes, inverts and verifies memory.
    Stress,
    /// Redis, with a data set that redis-benchmark reads and changes.
    Redis,
}

impl Workload {
    /// All, in the order in which they run.
    pub(super) const ALL: [Self; 3] = [Self::Touches, Self::Stress, Self::Redis];

    /// Its script in `tests/peers/machine/workloads`, if it is a program of
    /// Debian's.
    pub(super) fn script(self) -> Option<&'static str> {
        match self {
            Self::Touches => None,
            Self::Stress => Some("stress"),
            Self::Redis => Some("redis"),
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// MiB of local memory; twice as much is used.
    pub(super) local_mib: u64,
    /// Samples of a remote read.
    pub(super) touches: u32,
    /// Requests of each kind to Redis.
    pub(super) requests: u32,
}

impl Sizes {
    /// MiB that are used.
    pub(super) fn used_mib(self) -> u64 {
        2 * self.local_mib
    }

    /// Operations after which stress-ng ends: it has written all of its memory
    /// and then checked and inverted it.
    pub(super) fn operations(self) -> u64 {
        (self.used_mib() << 20) / OPERATION_BYTES
    }

    /// Keys whose values are as large as all memory that is used.
    pub(super) fn keys(self) -> u64 {
        (self.used_mib() << 20).div_ceil(VALUE_BYTES)
    }

    /// The words NAME=VALUE that a workload finds in its environment.
    pub(super) fn words(self, workload: Workload) -> Vec<String> {
        match workload {
            Workload::Touches => vec![format!("touches={}", self.touches)],
            Workload::Stress => {
                vec![format!("mib={}", self.used_mib()), format!("ops={}", self.operations())]
            }
            Workload::Redis => {
                vec![format!("keys={}", self.keys()), format!("requests={}", self.requests)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { local_mib: 128, touches: 1, requests: 20 };

    #[test]
    fn each_program_has_a_script_that_reads_its_words() {
        let scripts = crate::compile::workspace().join("tests/peers/machine/workloads");
        for workload in Workload::ALL {
            let Some(script) = workload.script() else { continue };
            let text = std::fs::read_to_string(scripts.join(script)).unwrap();
            for word in SIZES.words(workload) {
                let (name, _) = word.split_once('=').unwrap();
                let uses = [format!("${name}"), format!("${{{name}}}")];
                assert!(uses.iter().any(|u| text.contains(u)), "{script} has no use for {word}");
            }
        }
        let redis = std::fs::read_to_string(scripts.join("redis")).unwrap();
        assert!(redis.contains(&format!("-d {VALUE_BYTES} ")), "values of another size");
    }

    #[test]
    fn twice_the_local_memory_is_used() {
        assert_eq!(SIZES.words(Workload::Stress), ["mib=256", "ops=8192"]);
        assert!(SIZES.keys() * VALUE_BYTES >= 256 << 20);
        assert!((SIZES.keys() - 1) * VALUE_BYTES < 256 << 20);
    }
}
