//! The command line: verbs and their options.

use crate::bench::{Setup, Workload};
use clap::{Args, Parser, Subcommand};
use runner::{Faults, LinkOptions, MemorySize, NODES_MAX};
use std::ffi::OsString;
use std::path::PathBuf;

/// Turns several machines into one: builds, boots and tests Pangaea.
#[derive(Debug, Parser)]
#[command(name = "cargo pangaea", bin_name = "cargo pangaea", version)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What `cargo pangaea` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Boot a cluster of emulated nodes and a guest on it.
    Run(RunArgs),
    /// Build the node's image.
    Build(BuildArgs),
    /// Make a bootable image for real machines (USB stick or CD).
    Image(ImageArgs),
    /// Say what this machine has and lacks, and the command that mends it.
    Doctor(DoctorArgs),
    /// Run every check and test of the project.
    Test(TestArgs),
    /// Watch a running cluster: its nodes' memory, faults and traffic.
    Top(TopArgs),
    /// Measure a cluster.
    Bench(BenchArgs),
    /// Throw random bytes at what takes bytes from outside.
    Fuzz(FuzzArgs),
    /// Simulate whole clusters in virtual time, decided by seeds.
    #[command(disable_help_flag = true)]
    Sim(SimArgs),
    /// Measure how the protocol and the fabric scale with the nodes.
    #[command(disable_help_flag = true)]
    Scale(SimArgs),
    /// Explore every state of small clusters that run the coherence protocol.
    #[command(disable_help_flag = true)]
    Model(ModelArgs),
}

/// What the exit statuses of `run` mean, for its help.
const RUN_STATUSES: &str = "\
Exit status: COMMAND's own; 0 after the guest's power-off or reset; 2 for a bad option; \
120 the cluster could not start or form; 121 a node was lost; 122 the guest died; \
123 Pangaea stopped with a fault of its own; 124 the time of --timeout ran out; \
1 for any other failure; 128 and a signal's number if a signal ended it.

Without COMMAND the terminal is the guest's console: \"exit\" switches the guest off, \
Ctrl-A x ends everything at once, Ctrl-A Ctrl-A sends one Ctrl-A.";

/// Options of `run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = RUN_STATUSES)]
pub(crate) struct RunArgs {
    /// How many nodes [default: 2, or 1 for a machine without Pangaea].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: Option<u32>,
    /// Memory of each node.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub(crate) memory: MemorySize,
    /// The guest's kernel: a file, or a series of Debian's such as 6.12.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<OsString>,
    /// The guest's initial RAM disk instead of the default one.
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    pub(crate) initrd: Option<PathBuf>,
    /// Further words for the guest kernel's command line.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// The machine recipe, a name in qemu/machines.
    #[arg(long, value_name = "NAME", default_value = "q35-svm")]
    pub(crate) machine: String,
    /// Print one JSON object at the end instead of the command's output.
    #[arg(long, requires = "command")]
    pub(crate) json: bool,
    /// Keep the logs of every serial port in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Show the nodes' logs and the guest kernel's console on standard error.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// End the run after this many seconds.
    #[arg(long, value_name = "SECS")]
    pub(crate) timeout: Option<u64>,
    /// How many seconds the nodes wait for each other [default: the machine's, 30 for most].
    #[arg(long, value_name = "SECS")]
    pub(crate) join_timeout: Option<u64>,
    /// Faults and captures of the link.
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// Start only this many of the nodes (to see what a missing one does).
    #[arg(long, value_name = "K", hide = true)]
    pub(crate) start_nodes: Option<u32>,
    /// Further words for every node's own command line.
    #[arg(long, value_name = "STR", hide = true)]
    pub(crate) node_append: Option<String>,
    /// Another node image than the one that is built here.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) image: Option<PathBuf>,
    /// A command to run in the guest; its output and exit status are run's.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What the link between the nodes does to frames.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LinkArgs {
    /// Percentage of frames that are lost.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = percentage)]
    pub(crate) loss: f64,
    /// Percentage of frames that arrive twice.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = percentage)]
    pub(crate) duplicate: f64,
    /// Percentage of frames that arrive late, behind others.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = percentage)]
    pub(crate) reorder: f64,
    /// Which frames are hit.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Capture every frame in this file (pcap).
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
}

impl LinkArgs {
    /// The runner's form of these options.
    pub(crate) fn options(&self) -> LinkOptions {
        let Self { loss, duplicate, reorder, seed, .. } = *self;
        let faults = Faults { loss, duplicate, reorder, seed };
        LinkOptions { faults, pcap: self.pcap.clone() }
    }
}

/// An odd number, of which one is in the middle.
fn odd(text: &str) -> Result<u32, String> {
    let number = text.parse::<u32>().ok().filter(|n| n % 2 == 1);
    number.ok_or_else(|| format!("{text} is not an odd number, as 3"))
}

/// Reads a percentage.
fn percentage(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("give a number from 0 to 100".to_owned()),
    }
}

/// Options of `build`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArgs {
    /// Build the bare guests of the tests instead, and print their folder.
    #[arg(long)]
    pub(crate) guests: bool,
}

/// Options of `image`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ImageArgs {
    /// How many machines the cluster has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u32,
    /// The guest's kernel: a file, or a series of Debian's such as 6.12.
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<OsString>,
    /// The guest's initial RAM disk instead of the default one.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// Further words for the guest kernel's command line.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// Largest frame payload of the machines' network in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = clap::value_parser!(u16).range(1500..=9000))]
    pub(crate) mtu: u16,
    /// How many seconds a machine waits for the others.
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub(crate) join_timeout: u64,
    /// Make lending memory the boot menu's default, instead of leading.
    #[arg(long)]
    pub(crate) lend: bool,
    /// Where to write the image.
    #[arg(value_name = "OUTPUT", default_value = "pangaea.iso")]
    pub(crate) output: PathBuf,
}

/// Options of `doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Install what is missing (on Debian as root).
    #[arg(long)]
    pub(crate) fix: bool,
}

/// Options of `test`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TestArgs {
    /// Leave out the system tests, which boot whole clusters.
    #[arg(long)]
    pub(crate) quick: bool,
}

/// What `fuzz` keeps, for its help.
const FUZZ_FILES: &str = "\
What was found interesting is kept in target/fuzz/corpus and used by the next run. An input that \
breaks a target is kept in target/fuzz; put it into tests/fuzz/seeds with the fix, and the tests \
run it for ever. For a long run: cargo pangaea fuzz --seconds 3600.";

/// Options of `fuzz`.
#[derive(Clone, Debug, Args)]
#[command(after_help = FUZZ_FILES)]
pub(crate) struct FuzzArgs {
    /// The target to run [default: all, one after the other].
    #[arg(value_name = "TARGET")]
    pub(crate) target: Option<String>,
    /// How long each target runs.
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// How many targets run at a time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) jobs: usize,
    /// Run this one input instead, and show what it does.
    #[arg(long, value_name = "FILE", requires = "target")]
    pub(crate) input: Option<PathBuf>,
}

/// Options of `sim` and `scale`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SimArgs {
    /// Options of that program; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<OsString>,
}

/// Options of `model`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    /// Options of the model checker; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<OsString>,
}

/// Options of `top`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    /// The process of `cargo pangaea run` [default: the newest].
    #[arg(long, value_name = "PROCESS")]
    pub(crate) process: Option<u32>,
    /// Print one sample of every node as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// How many seconds a cluster and its samples are waited for.
    #[arg(long, value_name = "SECS", default_value_t = 10)]
    pub(crate) wait: u64,
}

/// Options of `bench`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure.
    #[command(subcommand)]
    pub(crate) what: Bench,
}

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Bench {
    /// What it costs to touch a page that another node holds.
    RemoteFault(RemoteFaultArgs),
    /// The same work on Pangaea and on what people use instead.
    Peers(PeersArgs),
}

/// Options of `bench peers`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PeersArgs {
    /// Local memory; twice as much is used.
    #[arg(long, value_name = "SIZE", default_value = "128M")]
    pub(crate) memory: MemorySize,
    /// Run these only, separated by commas; stress and redis are programs of
    /// Debian, and are left out where a set-up has no operating system.
    #[arg(long, value_name = "WORKLOAD", value_delimiter = ',')]
    pub(crate) workloads: Vec<Workload>,
    /// How many reads of remote pages (memory sets a limit); the other passes
    /// touch two or four times as many pages.
    #[arg(long, value_name = "COUNT", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(100..=16384))]
    pub(crate) touches: u32,
    /// Measure the touches so many times, all set-ups in turns, and take for
    /// each the time with the median of its remote reads: a host has moods.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = odd)]
    pub(crate) rounds: u32,
    /// How many GETs, and as many SETs, redis-benchmark sends.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub(crate) requests: u32,
    /// Measure these only, separated by commas.
    #[arg(long, value_name = "SETUP", value_delimiter = ',')]
    pub(crate) only: Vec<Setup>,
    /// Measure what an exit costs, in instructions (alone, or with --only).
    #[arg(long)]
    pub(crate) exits: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the logs of every serial port in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Where to write the JSON and the plot.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// End the run after this many seconds.
    #[arg(long, value_name = "SECS", default_value_t = 7200)]
    pub(crate) timeout: u64,
}

/// Options of `bench remote-fault`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RemoteFaultArgs {
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u32,
    /// Memory of each node.
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub(crate) memory: MemorySize,
    /// The machine recipe, a name in qemu/machines.
    #[arg(long, value_name = "NAME", default_value = "q35-svm")]
    pub(crate) machine: String,
    /// How many faults of each kind (memory sets a limit).
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=65536))]
    pub(crate) faults: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Keep the logs of every serial port in this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Where to write the JSON and the plot.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// End the run after this many seconds.
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn run(words: &[&str]) -> Result<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["pangaea", "run"].iter().chain(words))?;
        match cli.verb {
            Verb::Run(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_is_everything_after_the_dashes() {
        let args = run(&["--nodes", "4", "--memory", "32G", "--", "sh", "-c", "a | b"]).unwrap();
        assert_eq!(args.nodes, Some(4));
        assert_eq!(args.memory.mib(), 32 << 10);
        assert_eq!(args.command, ["sh", "-c", "a | b"]);
    }

    #[test]
    fn the_simulator_reads_its_options_itself() {
        let words = ["pangaea", "sim", "--seed", "5", "--help"];
        let Verb::Sim(args) = Cli::try_parse_from(words).unwrap().verb else { panic!() };
        assert_eq!(args.options, ["--seed", "5", "--help"]);
    }

    #[test]
    fn guest_words_may_begin_with_a_dash() {
        assert_eq!(run(&["--append", "-- x"]).unwrap().append.as_deref(), Some("-- x"));
    }

    #[test]
    fn bad_options_are_usage_errors() {
        for words in [
            &["--nodes", "0"][..],
            &["--nodes", "65"],
            &["--memory", "1"],
            &["--memory", "lots"],
            &["--loss", "101"],
            &["--loss", "x"],
            &["--json"],
            &["--no-such-option"],
            &["--initrd", "f", "--", "true"],
        ] {
            let error = run(words).expect_err(&words.join(" "));
            assert_eq!(error.exit_code(), i32::from(runner::session::status::USAGE), "{words:?}");
        }
    }

    #[test]
    fn percentages_may_carry_their_sign() {
        let link = run(&["--loss", "5%", "--reorder", "2.5"]).unwrap().link.options();
        assert_eq!((link.faults.loss, link.faults.reorder), (5.0, 2.5));
    }
}
