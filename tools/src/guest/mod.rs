//! The default guest: Debian's stock kernel and an initial RAM disk of real
//! programs, assembled from Debian's packages and cached.
//!
//! Nothing binary is in the repository. [`Guest::prepare`] asks apt for the
//! packages' versions, downloads what the cache lacks, finds the shared
//! libraries that the programs need, and writes one uncompressed archive:
//! under emulation unpacking a compressed one costs more than reading it.

pub(crate) mod archive;
mod command;
pub(crate) mod debian;
pub(crate) mod libraries;

pub(crate) use command::command_archive;

use crate::progress::Progress;
use crate::system;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The guest's first process.
pub(crate) const INIT: &str = include_str!("../../guest/init");
/// Changes when the archive's layout does, so that old caches are not used.
const FORMAT: u32 = 1;

/// The programs beside busybox: their packages and their files there.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("busybox-static", &["bin/busybox"]),
    ("memtester", &["usr/sbin/memtester"]),
    ("numactl", &["usr/bin/numactl"]),
    ("redis-server", &["usr/bin/redis-server"]),
    ("redis-tools", &["usr/bin/redis-cli", "usr/bin/redis-benchmark"]),
    ("stress-ng", &["usr/bin/stress-ng"]),
];

/// A guest that is ready to boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// The kernel's file.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk's file.
    pub(crate) initrd: PathBuf,
    /// The packages it was made of, with their versions.
    pub(crate) packages: BTreeMap<String, String>,
    /// What it was made from; another stamp means to look again.
    stamp: u64,
}

impl Guest {
    /// Makes the guest with Debian's default kernel, or with that of a
    /// series such as `6.12`, or takes it from the cache.
    pub(crate) fn prepare(series: Option<&str>, progress: &Progress) -> Result<Self> {
        let cache = cache_folder()?;
        let record = cache.join(format!("guest-{}.json", series.unwrap_or("default")));
        let stamp = stamp();
        if let Some(guest) = Self::cached(&record).filter(|g| g.stamp == stamp) {
            return Ok(guest);
        }
        let mut made = Self::assemble(series, &cache, stamp, progress);
        // Old lists name packages that are gone, and lack newer kernels.
        let alone = made.is_err() && Self::cached(&record).is_none();
        if alone && system::renew_apt_lists(progress).unwrap_or(false) {
            made = Self::assemble(series, &cache, self::stamp(), progress);
        }
        match made {
            Ok(guest) => {
                write_whole(&record, &serde_json::to_vec_pretty(&guest)?)?;
                Ok(guest)
            }
            // Without a network an older guest still serves.
            Err(error) => match Self::cached(&record) {
                Some(guest) => {
                    progress.note(&format!("{error:#}; using the guest made earlier"));
                    Ok(guest)
                }
                None => Err(error),
            },
        }
    }

    /// Reads a cached guest whose files are still there.
    fn cached(record: &Path) -> Option<Self> {
        let guest: Self = serde_json::from_slice(&std::fs::read(record).ok()?).ok()?;
        (guest.kernel.is_file() && guest.initrd.is_file()).then_some(guest)
    }

    /// Downloads and assembles the guest.
    fn assemble(
        series: Option<&str>,
        cache: &Path,
        stamp: u64,
        progress: &Progress,
    ) -> Result<Self> {
        let mut store = debian::Store::open(cache, progress)?;
        let kernel_package = debian::kernel_package(series)?;
        progress.stage("fetching Debian's kernel");
        let kernel_root = store.unpack(std::slice::from_ref(&kernel_package))?.remove(0);
        let kernel = find_kernel(&kernel_root)?;
        progress.stage("assembling the guest from Debian's packages");
        let programs: Vec<String> = PROGRAMS.iter().map(|(p, _)| (*p).to_owned()).collect();
        let files: Vec<&str> = PROGRAMS.iter().flat_map(|(_, f)| f.iter().copied()).collect();
        let contents = libraries::collect(&mut store, &programs, &files)?;
        let packages = store.versions();
        let mut hasher = DefaultHasher::new();
        // The archive is the same for every kernel.
        let parts: Vec<_> = packages.iter().filter(|(name, _)| **name != kernel_package).collect();
        (FORMAT, INIT, parts).hash(&mut hasher);
        let initrd = cache.join(format!("initrd-{:016x}.cpio", hasher.finish()));
        if !initrd.is_file() {
            write_whole(&initrd, &archive::build(&contents, INIT, &[])?)?;
        }
        Ok(Self { kernel, initrd, packages, stamp })
    }
}

/// Tells whether a text names a kernel series, such as `6.12`.
pub(crate) fn is_series(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 2 && parts.iter().all(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
}

/// The folder of everything that is cached.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) => PathBuf::from(home).join(".cache"),
        _ => bail!("there is no folder for the cache; set HOME or XDG_CACHE_HOME"),
    };
    let folder = base.join("pangaea");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("the cache folder {} cannot be made", folder.display()))?;
    Ok(folder)
}

/// A number that changes when apt's lists, this program's init or its
/// choice of programs do.
fn stamp() -> u64 {
    let mut hasher = DefaultHasher::new();
    let lists = std::fs::metadata("/var/lib/apt/lists").and_then(|m| m.modified()).ok();
    let lists = lists.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    (FORMAT, INIT, PROGRAMS, lists).hash(&mut hasher);
    hasher.finish()
}

/// The kernel's file in its unpacked package.
pub(crate) fn find_kernel(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    let entries =
        std::fs::read_dir(&boot).context("Debian's kernel package holds no folder boot")?;
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
        .context("Debian's kernel package holds no kernel")
}

/// Writes a file so that it is there whole or not at all, also when several
/// runs do it at once.
pub(crate) fn write_whole(path: &Path, data: &[u8]) -> Result<()> {
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    std::fs::write(&temporary, data)
        .and_then(|()| std::fs::rename(&temporary, path))
        .with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        assert!(is_series("6.12") && is_series("6.1"));
        for other in ["6", "6.1.2", "a.b", "6.", "./6.1", "vmlinuz", ""] {
            assert!(!is_series(other), "{other}");
        }
    }
}
