//! `cargo pangaea bench peers`: the same touches on Pangaea and on what
//! people use instead, one after the other in one run.
//!
//! Each [`Setup`] is two emulated machines with the same NIC and the same
//! link between them. The touches are `guests::workloads` for all. What a
//! Linux machine runs is in `tests/peers`; [`machine`] puts it together,
//! [`result`] makes the table.

mod exits;
mod machine;
mod result;
mod setup;

pub(crate) use setup::Setup;

use super::measure::{Measured, take_lines};
use super::{COUNT_INSTRUCTIONS, hosting, plot, write};
use crate::cli::PeersArgs;
use crate::progress::Progress;
use crate::{compile, doctor, payload, report, signals, system};
use anyhow::{Context, Result, bail};
use exits::Exits;
use machine::LinuxFiles;
use result::Outcome;
use runner::{
    ClusterConfig, Effect, Kind, LinkOptions, MemorySize, NodeOverride, Port, Recipe, Session,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
    progress: Progress,
    image: PathBuf,
    /// The folder of the bare guests.
    guests: PathBuf,
    linux: LinuxFiles,
    started: Instant,
}

/// Measures every set-up and prints the table.
pub(crate) fn peers(args: &PeersArgs) -> Result<u8> {
    let progress = Progress::new();
    let recipe = recipe(LINUX_MACHINE)?;
    system::ensure(&doctor::emulator_needs(&recipe), &progress)?;
    let image = compile::node_image(&progress)?;
    let guests = compile::build("pangaea-guests", &progress)?;
    let linux = LinuxFiles::prepare(&guests, &progress)?;
    let bench = Bench { args, progress, image, guests, linux, started: Instant::now() };
    let all = args.only.is_empty() && !args.exits;
    let chosen = |setup: &Setup| all || args.only.contains(setup);
    let mut measured = Vec::new();
    for setup in Setup::ALL.into_iter().filter(chosen) {
        let result = bench.run(setup).with_context(|| format!("{} failed", setup.title()))?;
        measured.push((setup, result));
    }
    let exits = if all || args.exits { Some(bench.exits()?) } else { None };
    bench.progress.clear();
    publish(&measured, exits, args)?;
    Ok(0)
}

fn recipe(name: &str) -> Result<Recipe> {
    Ok(Recipe::load(&compile::workspace().join("qemu/machines"), name)?)
}

fn mebibytes(mib: u64) -> Result<MemorySize> {
    // Nodes lend memory in runs of 2 MiB.
    Ok(format!("{}M", mib.next_multiple_of(2)).parse()?)
}

impl Bench<'_> {
    /// Boots a set-up's machines and lets them measure.
    fn run(&self, setup: Setup) -> Result<Measured> {
        match setup {
            Setup::Pangaea => self.pangaea(setup),
            _ => self.linux(setup),
        }
    }

    /// Two nodes, of which the second has room for everything.
    fn pangaea(&self, setup: Setup) -> Result<Measured> {
        let words = format!("touches={}", self.args.touches);
        let payload = payload::pack(&self.guests.join("touch"), None, &words)?;
        let lender = mebibytes(3 * self.args.memory.mib())?;
        let mut config = self.config("pangaea", PANGAEA_MACHINE)?;
        config.memory = self.args.memory;
        config.image = self.image.clone();
        config.payload = Some(payload.path().to_owned());
        let changes = NodeOverride { memory: Some(lender), ..NodeOverride::default() };
        config.overrides.insert(1, changes);
        self.drive(setup.title(), &config)
    }

    /// Two Linux machines.
    fn linux(&self, setup: Setup) -> Result<Measured> {
        let local_mib = self.args.memory.mib();
        let [memory, server_memory] = Setup::memory_mib(local_mib);
        let [words, server_words] = setup.words(local_mib, self.args.touches);
        let initrd = self.linux.initrd.path().to_owned();
        let mut config = self.config(&format!("{setup:?}"), LINUX_MACHINE)?;
        config.memory = mebibytes(memory)?;
        config.image = self.linux.kernel.clone();
        config.payload = Some(initrd.clone());
        config.append = LINUX_WORDS.to_owned();
        let user = NodeOverride { append: Some(words), ..NodeOverride::default() };
        let server = NodeOverride {
            append: Some(server_words),
            memory: Some(mebibytes(server_memory)?),
            payload: Some(initrd),
            ..NodeOverride::default()
        };
        config.overrides = BTreeMap::from([(0, user), (1, server)]);
        self.drive(setup.title(), &config)
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
        config.memory = mebibytes(Setup::memory_mib(self.args.memory.mib())[0])?;
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
        let mut pending = [Vec::new(), Vec::new()];
        loop {
            if let Ok(message) = cluster.next(TICK) {
                if let Kind::Bytes(Port::Console, bytes) = &message.kind {
                    let pending = &mut pending[message.node as usize];
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
                let text = pending.iter().map(|p| String::from_utf8_lossy(p)).collect::<String>();
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
fn publish(measured: &[(Setup, Measured)], exits: Option<Exits>, args: &PeersArgs) -> Result<()> {
    let linux = recipe(LINUX_MACHINE)?;
    let outcome = Outcome::new(measured, args.memory.bytes(), args.touches, &linux, exits)?;
    let text = serde_json::to_string_pretty(&outcome)? + "\n";
    let mut reads = BTreeMap::new();
    for (setup, m) in measured {
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
