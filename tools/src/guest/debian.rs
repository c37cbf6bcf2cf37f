//! Debian's packages: which there are, and their unpacked contents.

use crate::progress::Progress;
use crate::system;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages that were unpacked into the cache.
pub(crate) struct Store<'a> {
    folder: PathBuf,
    unpacked: BTreeMap<String, Package>,
    progress: &'a Progress,
}

/// One unpacked package.
struct Package {
    version: String,
    root: PathBuf,
}

impl<'a> Store<'a> {
    /// Opens the store below the cache's folder. Fetches apt's lists first
    /// where there are none.
    pub(crate) fn open(cache: &Path, progress: &'a Progress) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !runner::process::in_path(tool) {
                bail!(
                    "the default guest is made of Debian's packages, and this machine has no \
                     {tool}; give a guest of your own with --kernel and --initrd"
                );
            }
        }
        system::ensure_apt_lists(progress)?;
        let folder = cache.join("packages");
        std::fs::create_dir_all(&folder)?;
        Ok(Self { folder, unpacked: BTreeMap::new(), progress })
    }

    /// The unpacked packages' versions.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        self.unpacked.iter().map(|(name, p)| (name.clone(), p.version.clone())).collect()
    }

    /// Whether a package was unpacked.
    pub(crate) fn has(&self, package: &str) -> bool {
        self.unpacked.contains_key(package)
    }

    /// The folders of all unpacked packages.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        self.unpacked.values().map(|p| p.root.as_path())
    }

    /// Downloads and unpacks packages, as far as the cache lacks them, and
    /// returns their folders in the same order.
    pub(crate) fn unpack(&mut self, packages: &[String]) -> Result<Vec<PathBuf>> {
        let versions = candidate_versions(packages)?;
        let mut roots = Vec::new();
        let mut lacking = Vec::new();
        for name in packages {
            let version = versions
                .get(name)
                .with_context(|| format!("Debian has no package {name} here"))?
                .clone();
            let root = self.folder.join(format!("{name}_{}", version.replace(':', "%3a")));
            if !root.is_dir() {
                lacking.push((name.clone(), version.clone(), root.clone()));
            }
            roots.push(root.clone());
            self.unpacked.insert(name.clone(), Package { version, root });
        }
        if !lacking.is_empty() {
            self.fetch(&lacking)?;
        }
        Ok(roots)
    }

    /// Downloads packages (name, version, where to) at once and unpacks them.
    fn fetch(&self, lacking: &[(String, String, PathBuf)]) -> Result<()> {
        let work = self.folder.join(format!("tmp{}", std::process::id()));
        std::fs::create_dir_all(&work)?;
        let result = self.fetch_into(lacking, &work);
        // Leftovers in the cache harm nobody.
        let _ = std::fs::remove_dir_all(&work);
        result
    }

    /// Does the work of [`Self::fetch`] in the folder `work`.
    fn fetch_into(&self, lacking: &[(String, String, PathBuf)], work: &Path) -> Result<()> {
        let count = lacking.len();
        self.progress.stage(&format!("downloading {count} of Debian's packages for the guest"));
        let mut download = system::child("apt-get");
        // As root apt would drop to a user who may not write to the cache.
        download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
        download.args(lacking.iter().map(|(name, version, _)| format!("{name}={version}")));
        system::run(download.current_dir(work))
            .context("Debian's packages for the guest could not be downloaded")?;
        for (index, (name, _, root)) in lacking.iter().enumerate() {
            self.progress.stage(&format!("unpacking {name} ({} of {count})", index + 1));
            unpack_one(name, root, work)?;
        }
        Ok(())
    }
}

/// Unpacks the downloaded package `name` to `root`.
fn unpack_one(name: &str, root: &Path, work: &Path) -> Result<()> {
    let is_it = |path: &PathBuf| {
        let file = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        file.ends_with(".deb") && file.split('_').next() == Some(name)
    };
    let archive = std::fs::read_dir(work)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(is_it)
        .with_context(|| format!("apt-get brought no package for {name}"))?;
    let contents = work.join("contents");
    system::run(system::child("dpkg-deb").arg("-x").arg(archive).arg(&contents))
        .with_context(|| format!("Debian's package {name} could not be unpacked"))?;
    match std::fs::rename(&contents, root) {
        // Another run was faster; its copy is as good.
        Err(_) if root.is_dir() => Ok(std::fs::remove_dir_all(&contents)?),
        other => other.with_context(|| format!("{} cannot be made", root.display())),
    }
}

/// The versions to download: those that apt would install, but where this
/// machine has one installed that no source offers, the newest that one does.
fn candidate_versions(packages: &[String]) -> Result<BTreeMap<String, String>> {
    let ask = |words: &[&str]| {
        system::run(Command::new("apt-cache").args(words).args(packages)).with_context(|| {
            format!("apt knows not all of the packages {}; try apt-get update", packages.join(", "))
        })
    };
    let mut versions = parse_versions(&ask(&["show", "--no-all-versions"])?);
    let offered = parse_offers(&ask(&["madison"])?);
    for (name, version) in &mut versions {
        if let Some(offers) = offered.get(name)
            && !offers.contains(version)
        {
            version.clone_from(&offers[0]);
        }
    }
    Ok(versions)
}

/// Reads what `apt-cache madison` prints: each package's versions that can be
/// downloaded, the newest first.
fn parse_offers(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut offers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.ends_with(" Packages")) {
        let mut fields = line.split('|').map(str::trim);
        if let (Some(name), Some(version)) = (fields.next(), fields.next()) {
            offers.entry(name.to_owned()).or_default().push(version.to_owned());
        }
    }
    offers
}

/// Reads the fields `Package` and `Version` of control paragraphs.
fn parse_versions(text: &str) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::new();
    let mut package = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("Package: ") {
            package = Some(name.trim().to_owned());
        } else if let Some(version) = line.strip_prefix("Version: ")
            && let Some(name) = package.take()
        {
            versions.entry(name).or_insert_with(|| version.trim().to_owned());
        }
    }
    versions
}

/// The libraries that packages depend on. Everything else that they depend
/// on (users, init scripts, debconf) is for an installed system.
pub(crate) fn library_dependencies(packages: &[String]) -> Result<BTreeSet<String>> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--important"]).args(packages);
    Ok(parse_dependencies(&system::run(&mut depends)?))
}

/// Reads the libraries in what `apt-cache depends` prints.
fn parse_dependencies(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches('|').split_once("Depends: "))
        .map(|(_, name)| name.trim().to_owned())
        .filter(|name| name.starts_with("lib") || name.starts_with("zlib"))
        .collect()
}

/// The package that holds the kernel of a series, or Debian's default.
pub(crate) fn kernel_package(series: Option<&str>) -> Result<String> {
    let default = "linux-image-cloud-amd64";
    let Some(series) = series else { return kernel_of(default) };
    if let Ok(package) = kernel_of(&format!("linux-image-{series}-cloud-amd64")) {
        return Ok(package);
    }
    match kernel_of(default) {
        Ok(package) if package.starts_with(&format!("linux-image-{series}.")) => Ok(package),
        _ => bail!("Debian has no kernel of the series {series} here; leave out --kernel"),
    }
}

/// The kernel that a meta-package stands for.
pub(crate) fn kernel_of(meta: &str) -> Result<String> {
    let mut depends = Command::new("apt-cache");
    depends.args(["depends", "--important", meta]);
    let text = system::run(&mut depends)
        .with_context(|| format!("apt knows no package {meta}; try apt-get update"))?;
    text.lines()
        .filter_map(|line| line.split_once("Depends: "))
        .map(|(_, name)| name.trim().to_owned())
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("Debian's package {meta} names no kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_the_libraries_only() {
        let text = "redis-tools\n  Depends: adduser\n  Depends: libatomic1\n |Depends: zlib1g\n  \
                    PreDepends: libc6\n  Depends: <libvirtual>\n    libelogind0\n  Breaks: libx\n";
        let found: Vec<_> = parse_dependencies(text).into_iter().collect();
        assert_eq!(found, ["libatomic1", "libc6", "zlib1g"]);
    }

    #[test]
    fn only_packages_are_on_offer() {
        let text = "  libx |  2-1+deb12u1 | http://a.mirror/debian bookworm/main amd64 Packages\n  \
                    libx |    2-1 | http://a.mirror/debian bookworm/main amd64 Packages\n  \
                    liby | 3 | http://a.mirror/debian bookworm/main amd64 Packages\n  \
                    liby | 4 | http://a.mirror/debian bookworm/main Sources\n";
        let offers = parse_offers(text);
        assert_eq!(offers["libx"], ["2-1+deb12u1", "2-1"]);
        assert_eq!(offers["liby"], ["3"]);
    }

    #[test]
    fn the_first_version_of_each_package_counts() {
        let text = "Package: a\nVersion: 1:2-3\nDepends: b\n\nPackage: b\nVersion: 4\n\n\
                    Package: a\nVersion: 1\n";
        let versions = parse_versions(text);
        assert_eq!(versions["a"], "1:2-3");
        assert_eq!(versions["b"], "4");
    }
}
