//! `cargo pangaea bench peers`: the same work on Pangaea and on what people
//! use instead, one after the other in one run.
//!
//! Each [`Setup`] is two emulated machines with the same NIC and the same
//! link between them. The touches are `guests::workloads` for all; the other
//! [`Workload`]s are programs of Debian. What a Linux machine runs is in
//! `tests/peers`; [`machine`] puts it together, [`result`] and [`programs`]
//! make the tables.

mod exits;
mod machine;
mod programs;
mod result;
mod setup;
mod workload;

pub(crate) use setup::Setup;
pub(crate) use workload::Workload;

use super::measure::{Measured, take_lines};
use super::{COUNT_INSTRUCTIONS, hosting, plot, write};
use crate::cli::PeersArgs;
use crate::progress::Progress;
use crate::{compile, doctor, payload, report, signals, system};
use anyhow::{Context, Result, bail};
use exits::Exits;
use machine::{DebianGuest, LinuxFiles};
use programs::Programs;
use result::Outcome;
use runner::{
    ClusterConfig, Effect, Kind, LinkOptions, MemorySize, NodeOverride, Port, Recipe, Session,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workload::Sizes;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// The machine of Pangaea's nodes, and that of the others.
const PANGAEA_MACHINE: &str = "q35-svm";
const LINUX_MACHINE: &str = "linux-svm";
/// The kernel's words before a role's. On a busy host the emulated timer may
/// be late, which is no reason to give up.
const LINUX_WORDS: &str = "console=ttyS0 quiet panic=-1 no_timer_check";

/// What all set-ups have in common.
struct Bench<'a> {
    args: &'a PeersArgs,
    sizes: Sizes,
    progress: Progress,
    image: PathBuf,
    /// The folder of the bare guests.
    guests: PathBuf,
    linux: LinuxFiles,
    started: Instant,
}

/// Measures every set-up and prints the table.
pub(crate) fn peers(args: &PeersArgs) -> Result<u8> {
    let chosen = chosen(args);
    let progress = Progress::new();
    let recipe = recipe(LINUX_MACHINE)?;
    system::ensure(&doctor::emulator_needs(&recipe), &progress)?;
    let image = compile::node_image(&progress)?;
    let guests = compile::build("pangaea-guests", &progress)?;
    let linux = LinuxFiles::prepare(&guests, &progress)?;
    let sizes =
        Sizes { local_mib: args.memory.mib(), touches: args.touches, requests: args.requests };
    let bench = Bench { args, sizes, progress, image, guests, linux, started: Instant::now() };
    let mut touches = Vec::new();
    let mut programs = Programs::default();
    for (setup, workload) in chosen {
        let failed = || format!("{} failed ({workload:?})", setup.title());
        let measured = bench.run(setup, workload).with_context(failed)?;
        match workload {
            Workload::Touches => touches.push((setup, measured)),
            Workload::Stress | Workload::Redis => {
                programs.take(setup, workload, &measured, sizes).with_context(failed)?;
            }
        }
    }
    let all = args.only.is_empty() && args.workloads.is_empty();
    let exits = if all || args.exits { Some(bench.exits()?) } else { None };
    bench.progress.clear();
    let linux = self::recipe(LINUX_MACHINE)?;
    let touches = middle_rounds(touches)?;
    let outcome = Outcome::new(&touches, programs, sizes, &linux, exits)?;
    publish(&outcome, &touches, args)?;
    Ok(0)
}

/// Of the rounds of each set-up the one whose remote reads have the median of
/// their medians.
fn middle_rounds(touches: Vec<(Setup, Measured)>) -> Result<Vec<(Setup, Measured)>> {
    let mut rounds = BTreeMap::<Setup, Vec<(u64, Measured)>>::new();
    for (setup, measured) in touches {
        let median = measured.distribution("remote_read")?.summary().p50_ns;
        rounds.entry(setup).or_default().push((median, measured));
    }
    let middle = |mut of: Vec<(u64, Measured)>| {
        of.sort_by_key(|(median, _)| *median);
        of.swap_remove(of.len() / 2).1
    };
    Ok(rounds.into_iter().map(|(setup, of)| (setup, middle(of))).collect())
}

/// What is to run, in this order: the programs once, the touches in rounds.
fn chosen(args: &PeersArgs) -> Vec<(Setup, Workload)> {
    if args.exits && args.only.is_empty() && args.workloads.is_empty() {
        return Vec::new();
    }
    let setups = Setup::ALL.into_iter().filter(|s| args.only.is_empty() || args.only.contains(s));
    let wanted = |w: &Workload| args.workloads.is_empty() || args.workloads.contains(w);
    let first: Vec<_> = setups
        .flat_map(|s| Workload::ALL.into_iter().filter(wanted).map(move |w| (s, w)))
        .collect();
    let touches = first.iter().copied().filter(|(_, workload)| *workload == Workload::Touches);
    let again: Vec<_> = (1..args.rounds).flat_map(|_| touches.clone()).collect();
    [first, again].concat()
}

fn recipe(name: &str) -> Result<Recipe> {
    Ok(Recipe::load(&compile::workspace().join("qemu/machines"), name)?)
}

fn mebibytes(mib: u64) -> Result<MemorySize> {
    // Nodes lend memory in runs of 2 MiB.
    Ok(format!("{}M", mib.next_multiple_of(2)).parse()?)
}

/// What is said of a run while it goes on.
fn title(setup: Setup, workload: Workload) -> String {
    format!("{}, {workload:?}", setup.title())
}

/// The folder of a run's logs.
fn log_name(setup: Setup, workload: Workload) -> String {
    format!("{setup:?}-{workload:?}")
}

impl Bench<'_> {
    /// Boots a set-up's machines and lets them measure.
    fn run(&self, setup: Setup, workload: Workload) -> Result<Measured> {
        match setup {
            Setup::Pangaea => self.pangaea(workload),
            _ => self.linux(setup, workload),
        }
    }

    /// Two nodes, of which the second has room for everything.
    fn pangaea(&self, workload: Workload) -> Result<Measured> {
        let payload = match self.debian(workload)? {
            Some(guest) => guest.pack()?,
            None => {
                let words = self.sizes.words(workload).join(" ");
                payload::pack(&self.guests.join("touch"), None, &words)?
            }
        };
        let lender = mebibytes(Setup::lender_mib(self.sizes.local_mib))?;
        let mut config = self.config(&log_name(Setup::Pangaea, workload), PANGAEA_MACHINE)?;
        config.memory = self.args.memory;
        config.image = self.image.clone();
        config.payload = Some(payload.path().to_owned());
        let changes = NodeOverride { memory: Some(lender), ..NodeOverride::default() };
        config.overrides.insert(1, changes);
        self.drive(&title(Setup::Pangaea, workload), &config)
    }

    /// Debian as a guest, with a workload's script as its command.
    fn debian(&self, workload: Workload) -> Result<Option<DebianGuest>> {
        let Some(script) = workload.script() else { return Ok(None) };
        let words = self.sizes.words(workload);
        DebianGuest::prepare(script, &words, &self.progress).map(Some)
    }

    /// Two Linux machines.
    fn linux(&self, setup: Setup, workload: Workload) -> Result<Measured> {
        let [memory, server_memory] = setup.memory_mib(workload, self.sizes.local_mib);
        let [words, server_words] = setup.words(workload, self.sizes);
        let initrd = self.linux.initrd.path().to_owned();
        let guest = if setup.is_host() { self.debian(workload)? } else { None };
        let with_guest = guest.map(|guest| self.linux.initrd_with(&guest)).transpose()?;
        let mut config = self.config(&log_name(setup, workload), LINUX_MACHINE)?;
        config.memory = mebibytes(memory)?;
        config.image = self.linux.kernel.clone();
        config.payload =
            Some(with_guest.as_ref().map_or_else(|| initrd.clone(), |file| file.path().to_owned()));
        config.append = LINUX_WORDS.to_owned();
        let user = NodeOverride { append: Some(words), ..NodeOverride::default() };
        let server = NodeOverride {
            append: Some(server_words),
            memory: Some(mebibytes(server_memory)?),
            payload: Some(initrd),
            ..NodeOverride::default()
        };
        config.overrides = BTreeMap::from([(0, user), (1, server)]);
        self.drive(&title(setup, workload), &config)
    }

    /// One machine each, whose emulator counts instructions.
    fn exits(&self) -> Result<Exits> {
        let payload = payload::pack(&self.guests.join("exits"), None, "")?;
        let mut config = self.config("exits-pangaea", PANGAEA_MACHINE)?;
        config.nodes = 1;
        config.recipe.args.extend(COUNT_INSTRUCTIONS.map(str::to_owned));
        config.image = self.image.clone();
        config.payload = Some(payload.path().to_owned());
        let pangaea = self.drive("exits on Pangaea", &config).context("Pangaea failed")?;
        let mut config = self.config("exits-kvm", LINUX_MACHINE)?;
        config.nodes = 1;
        config.recipe.args.extend(COUNT_INSTRUCTIONS.map(str::to_owned));
        config.memory = mebibytes(Setup::user_mib(self.sizes.local_mib))?;
        config.image = self.linux.kernel.clone();
        config.payload = Some(self.linux.initrd.path().to_owned());
        config.append = format!("{LINUX_WORDS} {}", Setup::EXITS_WORDS);
        let kvm = self.drive("exits on KVM", &config).context("KVM failed")?;
        Exits::new(&pangaea, &kvm)
    }

    /// A cluster of two machines, yet without anything to boot.
    fn config(&self, log: &str, machine: &str) -> Result<ClusterConfig> {
        Ok(ClusterConfig {
            recipe: recipe(machine)?,
            nodes: 2,
            memory: self.args.memory,
            image: PathBuf::new(),
            payload: None,
            append: String::new(),
            join_timeout: Duration::from_secs(30),
            link: LinkOptions::default(),
            log_dir: self.args.log_dir.as_ref().map(|dir| dir.join(log)),
            overrides: BTreeMap::new(),
        })
    }

    /// Runs the machines until the first one has measured everything.
    fn drive(&self, what: &str, config: &ClusterConfig) -> Result<Measured> {
        let say = |text: &str| self.progress.stage(&format!("{what}: {text}"));
        say("starting the machines");
        let cluster = hosting::start(config.clone())?;
        let mut session = Session::new(config.nodes, config.recipe.direct, None);
        let mut measured = Measured::default();
        // A command's output has a port of its own under Pangaea.
        let mut pending: BTreeMap<(u32, Port), Vec<u8>> = BTreeMap::new();
        loop {
            if let Ok(message) = cluster.next(TICK) {
                if let Kind::Bytes(port, bytes) = &message.kind {
                    let pending = pending.entry((message.node, *port)).or_default();
                    pending.extend(bytes);
                    for line in take_lines(pending) {
                        if let Some(text) = measured.take(line)? {
                            say(&text);
                        }
                    }
                }
                for effect in session.observe(&message) {
                    self.show(effect);
                }
            }
            signals::wait_if_quitting();
            if measured.is_complete() {
                return Ok(measured);
            }
            if let Some(ended) = session.ended(cluster.elapsed()) {
                let text = pending.values().map(|p| String::from_utf8_lossy(p)).collect::<String>();
                bail!("a machine ended too early; {} {}", ended.sentence, text.trim());
            }
            let seconds = self.started.elapsed().as_secs();
            if seconds >= self.args.timeout {
                bail!("the benchmark was ended after {seconds} seconds (--timeout)");
            }
        }
    }

    /// Shows what a node says beside its measures.
    fn show(&self, effect: Effect) {
        match effect {
            Effect::Report(lines) => lines.iter().for_each(|l| self.progress.note(l)),
            Effect::Panic { node, message, backtrace } => {
                let lines = report::panic_lines(&self.image, node, &message, &backtrace);
                lines.iter().for_each(|l| self.progress.note(l));
            }
            Effect::Progress(_) | Effect::Console(_) | Effect::Stdout(_) | Effect::Stderr(_) => {}
        }
    }
}

/// Prints the result, and writes it and its plot to files.
fn publish(outcome: &Outcome, touches: &[(Setup, Measured)], args: &PeersArgs) -> Result<()> {
    let text = serde_json::to_string_pretty(outcome)? + "\n";
    let mut reads = BTreeMap::new();
    for (setup, m) in touches {
        reads.insert(setup.title().to_owned(), m.distribution("remote_read")?.clone());
    }
    write(&args.out, "peers.json", &text)?;
    if !reads.is_empty() {
        let title = "A read of a page in another machine's memory";
        write(&args.out, "peers.svg", &plot::draw(title, &reads)?)?;
    }
    if args.json {
        crate::terminal::print(&text)?;
    } else {
        crate::terminal::print(&outcome.table().to_string())?;
    }
    eprintln!("pangaea: the result and its plot are in {}", args.out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Line;
    use crate::cli::{Bench as What, Cli, Verb};
    use clap::Parser;

    fn chosen_by(options: &str) -> Result<Vec<(Setup, Workload)>> {
        let words = ["pangaea", "bench", "peers"].into_iter().chain(options.split_whitespace());
        let Verb::Bench(bench) = Cli::try_parse_from(words)?.verb else { panic!("another verb") };
        let What::Peers(args) = bench.what else { panic!("another benchmark") };
        Ok(chosen(&args))
    }

    #[test]
    fn the_round_with_the_median_counts() {
        let measured = |ticks: u64| {
            let mut m = Measured::default();
            let quantiles = vec![ticks; super::super::measure::STEPS + 1];
            let (name, hz) = ("remote_read".into(), 1_000_000_000);
            m.take(Line::Samples { name, hz, count: 500, quantiles }).unwrap();
            m
        };
        let (pangaea, nbd) = (Setup::Pangaea, Setup::NbdSwap);
        let rounds = [(nbd, 9), (pangaea, 5), (nbd, 7), (pangaea, 1), (nbd, 8), (pangaea, 3)];
        let of = middle_rounds(rounds.map(|(s, ticks)| (s, measured(ticks))).into()).unwrap();
        let medians =
            of.iter().map(|(s, m)| (*s, m.distribution("remote_read").unwrap().summary().p50_ns));
        assert_eq!(medians.collect::<Vec<_>>(), [(pangaea, 3), (nbd, 8)]);
        assert!(middle_rounds(vec![(nbd, Measured::default())]).is_err());
    }

    #[test]
    fn options_choose_set_ups_and_workloads() {
        let all = chosen_by("").unwrap();
        assert_eq!(all.len(), Setup::ALL.len() * Workload::ALL.len());
        let some = chosen_by("--only userfault-tcp,pangaea --workloads stress,touches").unwrap();
        let (pangaea, other) = (Setup::Pangaea, Setup::UserfaultTcp);
        let both = [Workload::Touches, Workload::Stress];
        assert_eq!(some, [both.map(|w| (pangaea, w)), both.map(|w| (other, w))].concat());
        assert_eq!(chosen_by("--exits").unwrap(), []);
        assert_eq!(chosen_by("--exits --only pangaea --workloads redis").unwrap().len(), 1);
        let rounds = chosen_by("--only pangaea,nbd-swap --rounds 3").unwrap();
        let of = |w| rounds.iter().filter(|(_, workload)| *workload == w).count();
        assert_eq!(Workload::ALL.map(of), [6, 2, 2]);
        assert!(chosen_by("--rounds 2").is_err());
        assert!(chosen_by("--workloads memtester").is_err());
    }
}
