//! `cargo pangaea test`: every check and test, tier after tier.

mod steps;

use crate::cli::{FuzzArgs, TestArgs};
use crate::compile::{self, Toolchain, workspace};
use crate::doctor::{BOCHS, IMAGE_NEEDS, QEMU, TEST_NEEDS};
use crate::explore;
use crate::fuzz;
use crate::guest::Guest;
use crate::progress::Progress;
use crate::simulate;
use crate::system;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::process::Command;
use std::time::Duration;
use steps::{Lane, Outcome, Steps, Way};

/// Boots whole clusters; a tier of its own.
const SYSTEM_TESTS: &str = "pangaea-system-tests";
/// How long each fuzz target runs; a long run is `cargo pangaea fuzz`.
const FUZZ_SECONDS: u64 = 8;
/// Simulated clusters in one run: about two minutes of two cores.
const SEEDS: &str = "10000";
/// Half of the work of Miri.
const MIRI_FIRST: [&str; 3] = ["pangaea-coherence", "pangaea-fabric", "pangaea-node"];
/// What runs on bare metal only.
const BARE_PACKAGES: [&str; 2] = ["pangaea-kernel", "pangaea-guests"];

/// The workspace's packages as cargo tells them.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
}

/// One package.
#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
}

/// Runs the tiers in order; a failed one does not keep the others from
/// running, so that one run shows everything. The fuzzer and most clusters leave a
/// processor idle, which simulators and Miri take.
pub(crate) fn test(args: &TestArgs) -> Result<u8> {
    let progress = Progress::new();
    let metadata = metadata()?;
    let host = metadata.host_packages();
    let mut steps = Steps::default();
    steps.command("format", cargo("fmt").args(["--all", "--check"]));
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    steps.command("clippy, host", cargo("clippy").args(&host).args(clippy));
    steps.step("clippy, node image", |way| clippy_bare(way, &progress));
    let mut doc = cargo("doc");
    doc.args(&host).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    steps.command("documentation", &mut doc);
    steps.command("unit tests", cargo("test").args(&host).arg("--no-fail-fast"));
    let [first, others] = metadata.logic_packages();
    let protocol: Lane<'_> =
        Box::new(|steps| steps.step("Miri, the protocol", |way| miri(way, &first, &progress)));
    let logic: Lane<'_> = Box::new(|steps| {
        steps.command("simulator", simulate::command("pangaea-sim").args(["--seeds", SEEDS]));
        steps.command("scale", simulate::command("scale").arg("--check"));
        steps.command("model", &mut explore::command());
        steps.command("teeth", explore::command().args(["--teeth", "short"]));
        steps.step("Miri, other logic", |way| miri(way, &others, &progress));
    });
    steps.beside(vec![protocol, logic], |steps| {
        // By the clock, so not aside.
        steps.step("fuzzing", |_| fuzz_step());
        if args.quick {
            steps.add("system tests", Outcome::Skipped("--quick".to_owned()), Duration::ZERO);
        } else {
            steps.step("system tests", |way| system_tests(way, &progress));
        }
    });
    Ok(steps.conclude())
}

/// A cargo command in the workspace.
fn cargo(verb: &str) -> Command {
    let mut command = system::child("cargo");
    command.arg(verb).current_dir(workspace());
    command
}

/// Asks cargo for the workspace's packages.
fn metadata() -> Result<Metadata> {
    let text = system::run(cargo("metadata").args(["--no-deps", "--format-version", "1"]))?;
    serde_json::from_str(&text).context("cargo describes the workspace in an unknown way")
}

impl Metadata {
    /// `-p NAME` for each default member but the system tests.
    fn host_packages(&self) -> Vec<String> {
        let is_default = |p: &&Package| self.workspace_default_members.contains(&p.id);
        selection(self.packages.iter().filter(is_default).filter(|p| p.name != SYSTEM_TESTS))
    }

    /// `-p NAME` for each crate of the hypervisor's logic: for those of
    /// [`MIRI_FIRST`], and for the others.
    fn logic_packages(&self) -> [Vec<String>; 2] {
        let logic = self.packages.iter().filter(|p| p.manifest_path.contains("/kernel/logic/"));
        let (first, others): (Vec<_>, Vec<_>) =
            logic.partition(|p| MIRI_FIRST.contains(&p.name.as_str()));
        [first, others].map(|packages| selection(packages.into_iter()))
    }
}

/// Cargo's options that select packages.
fn selection<'a>(packages: impl Iterator<Item = &'a Package>) -> Vec<String> {
    packages.flat_map(|p| ["-p".to_owned(), p.name.clone()]).collect()
}

/// Lints what is built for bare metal.
fn clippy_bare(way: &Way, progress: &Progress) -> Result<Outcome> {
    let toolchain = compile::toolchain(progress)?;
    if toolchain == Toolchain::Debian {
        return Ok(Outcome::Skipped("Debian's compiler has no clippy".to_owned()));
    }
    let mut command = toolchain.cargo("clippy");
    for package in BARE_PACKAGES {
        command.args(["-p", package]);
    }
    way.execute(command.args(["--profile", "kernel", "--", "-D", "warnings"]))
}

/// Runs logic crates' unit tests under Miri, where it can be had.
fn miri(way: &Way, packages: &[String], progress: &Progress) -> Result<Outcome> {
    let missing = || {
        let mut ask = Command::new("rustup");
        ask.args(["run", "nightly", "cargo", "miri", "--version"]);
        system::run(&mut ask).is_err()
    };
    if missing() {
        let words = ["component", "add", "--toolchain", "nightly", "miri", "rust-src"];
        progress.note(&format!("this machine lacks Miri; running: rustup {}", words.join(" ")));
        let added = system::run(system::child("rustup").args(words));
        if added.is_err() || missing() {
            return Ok(Outcome::Skipped("Miri cannot be had here".to_owned()));
        }
    }
    let mut command = system::child("rustup");
    command.args(["run", "nightly", "cargo", "miri", "test"]).args(packages);
    // The toolchain of this program's own build must not overrule.
    command.current_dir(workspace()).env_remove("RUSTUP_TOOLCHAIN");
    way.execute(&mut command)
}

/// Fuzzes every target for a few seconds.
fn fuzz_step() -> Result<Outcome> {
    let args = FuzzArgs { target: None, seconds: FUZZ_SECONDS, jobs: 1, input: None };
    Ok(match fuzz::fuzz(&args)? {
        0 => Outcome::Passed,
        _ => Outcome::Failed("an input breaks a target".to_owned()),
    })
}

/// Boots whole clusters.
fn system_tests(way: &Way, progress: &Progress) -> Result<Outcome> {
    for needs in [&QEMU[..], &BOCHS, &IMAGE_NEEDS, &TEST_NEEDS] {
        system::ensure(needs, progress)?;
    }
    compile::node_image(progress)?;
    compile::build("pangaea-guests", progress)?;
    Guest::prepare(None, progress)?;
    progress.clear();
    let mut command = cargo("test");
    command.args(["-p", SYSTEM_TESTS, "--no-fail-fast", "--", "--test-threads=1"]);
    way.execute(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_has_host_and_logic_packages() {
        let metadata = metadata().unwrap();
        let host = metadata.host_packages();
        assert!(host.contains(&"pangaea".to_owned()) && host.contains(&"-p".to_owned()));
        assert!(!host.contains(&SYSTEM_TESTS.to_owned()));
        for bare in BARE_PACKAGES {
            assert!(!host.contains(&bare.to_owned()));
        }
        let [first, others] = metadata.logic_packages();
        assert_eq!(first.len(), 2 * MIRI_FIRST.len());
        assert!(others.contains(&"pangaea-addr".to_owned()) && !others.contains(&"pangaea".into()));
        assert!(first.iter().all(|word| word == "-p" || !others.contains(word)));
    }
}
