//! `cargo pangaea fuzz`: the targets of `tests/fuzz` under libFuzzer.
//!
//! libFuzzer comes as source with a crate, and what it needs of the compiler
//! are options of LLVM's that stable Rust passes on: no other toolchain.

use crate::cli::FuzzArgs;
use crate::compile::workspace;
use crate::progress::Progress;
use crate::system::{self, Need, Probe};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

/// What libFuzzer's source is compiled with.
pub(crate) const FUZZ_NEEDS: [Need; 1] = [Need {
    name: "g++",
    probe: Probe::Program("g++"),
    package: "g++",
    purpose: "builds the fuzzer",
}];

/// Names of the targets, as `tests/fuzz` has them.
const TARGETS: [&str; 7] = ["boot", "emulator", "fabric", "loader", "machine", "protocol", "wire"];

/// Instruments every branch and comparison for libFuzzer
/// (LLVM's SanitizerCoverage), and keeps our own checks.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks --cfg fuzzing";
/// The host's target, named so that build scripts are not instrumented.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// An input that takes longer than this is a failure of liveness.
const INPUT_LIMIT: Duration = Duration::from_secs(20);

/// How a target's run ended.
struct Run {
    name: &'static str,
    executions: u64,
    log: PathBuf,
    failure: Option<String>,
}

/// Runs the verb; the exit status is 0 if nothing was found.
pub(crate) fn fuzz(args: &FuzzArgs) -> Result<u8> {
    let progress = Progress::new();
    let chosen = choose(args.target.as_deref())?;
    let program = build(&progress)?;
    if let Some(input) = &args.input {
        return replay(&program, chosen[0], input);
    }
    let runs = run_all(&program, &chosen, args.seconds, args.jobs, &progress)?;
    progress.clear();
    let (text, failed) = summary(&runs);
    crate::terminal::print(&text)?;
    Ok(u8::from(failed))
}

/// The targets that a name stands for: itself, or all without a name.
fn choose(name: Option<&str>) -> Result<Vec<&'static str>> {
    let Some(name) = name else { return Ok(TARGETS.to_vec()) };
    match TARGETS.iter().find(|t| **t == name) {
        Some(&target) => Ok(vec![target]),
        None => bail!("there is no fuzz target `{name}`; there are: {}", TARGETS.join(", ")),
    }
}

/// Builds the fuzzer with coverage.
fn build(progress: &Progress) -> Result<PathBuf> {
    system::ensure(&FUZZ_NEEDS, progress)?;
    progress.stage("building the fuzzer");
    let folder = workspace().join("target/fuzz");
    let mut command = system::child("cargo");
    command.args(["build", "--quiet", "--release", "-p", "pangaea-fuzz", "--bin", "fuzz"]);
    command.args(["--features", "libfuzzer", "--target", HOST, "--target-dir"]).arg(&folder);
    command.current_dir(workspace()).env("RUSTFLAGS", RUSTFLAGS);
    system::run(&mut command).context("the fuzzer cannot be built")?;
    progress.clear();
    Ok(folder.join(HOST).join("release/fuzz"))
}

/// Runs the targets, `jobs` at a time.
fn run_all(
    program: &Path,
    targets: &[&'static str],
    seconds: u64,
    jobs: usize,
    progress: &Progress,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for group in targets.chunks(jobs.max(1)) {
        progress.stage(&format!("fuzzing {} for {seconds} s", group.join(", ")));
        let started: Result<Vec<_>> =
            group.iter().map(|&name| start(program, name, seconds)).collect();
        for (name, log, mut child) in started? {
            let status = child.wait().with_context(|| format!("waiting for {name}"))?;
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let failure = (!status.success()).then(|| reason(name, &text));
            runs.push(Run { name, executions: executions(&text), log, failure });
        }
    }
    Ok(runs)
}

/// Starts one target over its corpus and seeds.
fn start(
    program: &Path,
    name: &'static str,
    seconds: u64,
) -> Result<(&'static str, PathBuf, Child)> {
    let folder = workspace().join("target/fuzz");
    let corpus = folder.join("corpus").join(name);
    std::fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let log = folder.join(format!("{name}.log"));
    let file = std::fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let mut command = system::child(program.to_str().context("the path is no text")?);
    command
        .env("PANGAEA_FUZZ_TARGET", name)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={}", INPUT_LIMIT.as_secs()))
        .arg(format!("-artifact_prefix={}/{name}-", folder.display()))
        .args(["-print_final_stats=1", "-rss_limit_mb=2048"])
        .arg(&corpus)
        .arg(workspace().join("tests/fuzz/seeds").join(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file);
    let child = command.spawn().with_context(|| format!("starting the target {name}"))?;
    Ok((name, log, child))
}

/// Runs one input once, with everything it says.
fn replay(program: &Path, name: &str, input: &Path) -> Result<u8> {
    let mut command = system::child(program.to_str().context("the path is no text")?);
    command.env("PANGAEA_FUZZ_TARGET", name).env("RUST_BACKTRACE", "1").arg(input);
    let status = command.status().context("the fuzzer cannot be started")?;
    Ok(u8::from(!status.success()))
}

/// The number that libFuzzer gives at its end.
fn executions(log: &str) -> u64 {
    let line = log.lines().find_map(|l| l.strip_prefix("stat::number_of_executed_units:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Why a target failed and how to see it again.
fn reason(name: &str, log: &str) -> String {
    let mut lines = log.lines().skip_while(|l| !l.contains("panicked at"));
    let panic = lines.next().map(|at| format!("{at} {}", lines.next().unwrap_or_default()));
    let input = log.lines().find_map(|l| l.split_once("Test unit written to ")).map(|(_, f)| f);
    let why = panic.unwrap_or_else(|| {
        let error = log.lines().find(|l| l.contains("ERROR: libFuzzer"));
        error.unwrap_or("it ended without a reason").to_owned()
    });
    let again = input.map(|file| format!("\n  replay: cargo pangaea fuzz {name} --input {file}"));
    format!("{why}{}", again.unwrap_or_default())
}

/// A line for each target, one for all, and whether any failed.
fn summary(runs: &[Run]) -> (String, bool) {
    let mut text = String::new();
    for Run { name, executions, log, failure } in runs {
        let _ = match failure {
            None => writeln!(text, "fuzz {name:<10} {executions:>10} executions"),
            Some(why) => {
                writeln!(text, "fuzz {name:<10} FAILED: {why}\n  log: {}", log.display())
            }
        };
    }
    let all: u64 = runs.iter().map(|r| r.executions).sum();
    let failed = runs.iter().filter(|r| r.failure.is_some()).count();
    let _ = writeln!(text, "fuzz: {all} executions of {} targets, {failed} failed", runs.len());
    (text, failed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_those_of_the_crate() {
        let source = std::fs::read_dir(workspace().join("tests/fuzz/seeds")).unwrap();
        let mut seeds: Vec<_> =
            source.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        seeds.sort();
        assert_eq!(seeds, TARGETS);
    }

    #[test]
    fn an_unknown_target_names_those_there_are() {
        assert_eq!(choose(None).unwrap().len(), TARGETS.len());
        assert_eq!(choose(Some("wire")).unwrap(), ["wire"]);
        assert!(choose(Some("x")).unwrap_err().to_string().contains("protocol"));
    }

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let log = "thread panicked at a.rs:1:2:\nthe reason\n==1== ERROR: libFuzzer: deadly\n\
                   artifact_prefix='x'; Test unit written to /t/wire-crash-1\n";
        let why = reason("wire", log);
        assert!(why.contains("a.rs:1:2: the reason"), "{why}");
        assert!(why.ends_with("cargo pangaea fuzz wire --input /t/wire-crash-1"), "{why}");
        assert_eq!(executions("stat::number_of_executed_units: 123\n"), 123);
        let run = |failure| Run { name: "wire", executions: 5, log: PathBuf::new(), failure };
        let (text, failed) = summary(&[run(None), run(Some(why))]);
        assert!(failed && text.ends_with("fuzz: 10 executions of 2 targets, 1 failed\n"), "{text}");
    }
}
