//! `cargo pangaea test`: every check and test, tier after tier.

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
use std::time::{Duration, Instant};

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

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// One line of the summary.
#[derive(Debug)]
struct Step {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

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
/// running, so that one run shows everything.
pub(crate) fn test(args: &TestArgs) -> Result<u8> {
    let progress = Progress::new();
    let metadata = metadata()?;
    let host = metadata.host_packages();
    let [first, others] = metadata.logic_packages();
    let mut steps = Steps::default();
    steps.command("format", cargo("fmt").args(["--all", "--check"]));
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    steps.command("clippy, host", cargo("clippy").args(&host).args(clippy));
    steps.step("clippy, node image", || clippy_bare(&progress));
    let mut doc = cargo("doc");
    doc.args(&host).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    steps.command("documentation", &mut doc);
    steps.command("unit tests", cargo("test").args(&host).arg("--no-fail-fast"));
    steps.command("simulator", simulate::command("pangaea-sim").args(["--seeds", SEEDS]));
    // Each side takes one processor, and about as long as the other.
    steps.beside(
        "Miri, the protocol",
        || miri(&first, "miri-first", &progress),
        |steps| {
            steps.command("scale", simulate::command("scale").arg("--check"));
            steps.command("model", &mut explore::command());
            steps.command("teeth", explore::command().args(["--teeth", "short"]));
            steps.step("fuzzing", fuzz_step);
            steps.step("Miri, other logic", || miri(&others, "miri-others", &progress));
        },
    );
    if args.quick {
        steps.add("system tests", Outcome::Skipped("--quick".to_owned()), Duration::ZERO);
    } else {
        steps.step("system tests", || system_tests(&progress));
    }
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
fn clippy_bare(progress: &Progress) -> Result<Outcome> {
    let toolchain = compile::toolchain(progress)?;
    if toolchain == Toolchain::Debian {
        return Ok(Outcome::Skipped("Debian's compiler has no clippy".to_owned()));
    }
    let mut command = toolchain.cargo("clippy");
    for package in BARE_PACKAGES {
        command.args(["-p", package]);
    }
    Ok(execute(command.args(["--profile", "kernel", "--", "-D", "warnings"])))
}

/// Runs logic crates' unit tests under Miri, where it can be had.
fn miri(packages: &[String], name: &str, progress: &Progress) -> Result<Outcome> {
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
    keep_output(&mut command, name)
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
fn system_tests(progress: &Progress) -> Result<Outcome> {
    for needs in [&QEMU[..], &BOCHS, &IMAGE_NEEDS, &TEST_NEEDS] {
        system::ensure(needs, progress)?;
    }
    compile::node_image(progress)?;
    compile::build("pangaea-guests", progress)?;
    Guest::prepare(None, progress)?;
    progress.clear();
    let mut command = cargo("test");
    command.args(["-p", SYSTEM_TESTS, "--no-fail-fast", "--", "--test-threads=1"]);
    Ok(execute(&mut command))
}

/// Runs a command beside others and shows what it printed when it is over.
fn keep_output(command: &mut Command, name: &str) -> Result<Outcome> {
    let path = workspace().join("target").join(format!("{name}.log"));
    let file = std::fs::File::create(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    let copy = file.try_clone().context("sharing a file")?;
    let outcome = execute(command.stdout(copy).stderr(file));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    eprintln!("\n== {name}, which ran beside\n{text}");
    Ok(outcome)
}

/// Runs a command whose output is the user's.
fn execute(command: &mut Command) -> Outcome {
    match command.status() {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(status) => Outcome::Failed(status.to_string()),
        Err(error) => Outcome::Failed(format!("it cannot be started: {error}")),
    }
}

/// The steps so far.
#[derive(Debug, Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Runs a step that is one command.
    fn command(&mut self, name: &'static str, command: &mut Command) {
        self.step(name, || Ok(execute(command)));
    }

    /// Runs a step.
    fn step(&mut self, name: &'static str, body: impl FnOnce() -> Result<Outcome>) {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = body().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        self.add(name, outcome, start.elapsed());
    }

    /// Runs a step beside those that `others` runs.
    fn beside(
        &mut self,
        name: &'static str,
        body: impl FnOnce() -> Result<Outcome> + Send,
        others: impl FnOnce(&mut Steps),
    ) {
        eprintln!("\n== {name}, beside the next steps");
        let start = Instant::now();
        let (outcome, took) = std::thread::scope(|scope| {
            let beside = scope.spawn(|| {
                let outcome = body().unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
                (outcome, start.elapsed())
            });
            others(self);
            beside
                .join()
                .unwrap_or_else(|_| (Outcome::Failed("it panicked".to_owned()), start.elapsed()))
        });
        self.add(name, outcome, took);
    }

    /// Adds a step that is over.
    fn add(&mut self, name: &'static str, outcome: Outcome, took: Duration) {
        self.0.push(Step { name, outcome, took });
    }

    /// Prints the summary and returns the exit status.
    fn conclude(&self) -> u8 {
        // A closed pipe takes nothing from the exit status.
        let _ = crate::terminal::print(&format!("\n{}\n", self.summary()));
        let failed = self.0.iter().any(|s| matches!(s.outcome, Outcome::Failed(_)));
        u8::from(failed)
    }

    /// The table of all steps, and the line that counts them.
    fn summary(&self) -> String {
        let mut text = String::new();
        let mut counts = [0; 3];
        for Step { name, outcome, took } in &self.0 {
            let (index, word) = match outcome {
                Outcome::Passed => (0, "passed".to_owned()),
                Outcome::Failed(why) => (1, format!("FAILED: {why}")),
                Outcome::Skipped(why) => (2, format!("skipped: {why}")),
            };
            counts[index] += 1;
            text.push_str(&format!("{name:<24}{:>8.1} s  {word}\n", took.as_secs_f64()));
        }
        let [passed, failed, skipped] = counts;
        text + &format!("steps: {passed} passed, {failed} failed, {skipped} skipped")
    }
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

    #[test]
    fn a_failed_step_fails_the_run_and_the_others_go_on() {
        let mut steps = Steps::default();
        steps.command("bad", &mut Command::new("false"));
        steps.command("good", &mut Command::new("true"));
        steps.step("broken", || anyhow::bail!("no reason"));
        steps.add("left out", Outcome::Skipped("a wish".into()), Duration::ZERO);
        steps.beside(
            "beside",
            || Ok(Outcome::Passed),
            |steps| {
                steps.command("meanwhile", &mut Command::new("true"));
            },
        );
        let summary = steps.summary();
        assert!(summary.ends_with("steps: 3 passed, 2 failed, 1 skipped"), "{summary}");
        assert!(summary.contains("FAILED: no reason") && summary.contains("skipped: a wish"));
        assert_eq!(steps.conclude(), 1);
    }
}
