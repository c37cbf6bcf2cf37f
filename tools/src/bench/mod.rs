//! `cargo pangaea bench`: boots a cluster with a small bare guest that
//! measures, and makes a result of what it and the nodes say.
//!
//! Two runs: one for times, and a short one in which QEMU counts instructions,
//! whose figures do not depend on how busy the host is. On Bochs an instruction
//! always is one tick of the TSC, so that its one run gives both.
//! [`measure`] reads what is said, [`result`] puts it together, [`plot`]
//! draws it.

mod hosting;
mod measure;
mod peers;
mod plot;
mod result;

pub(crate) use peers::{Setup, Workload, peers};

use crate::cli::RemoteFaultArgs;
use crate::progress::Progress;
use crate::{compile, doctor, payload, report, signals, system};
use anyhow::{Context, Result, bail};
use measure::{Measured, take_lines};
use result::{ClusterFacts, Instructions, Outcome};
use runner::{
    Cluster, ClusterConfig, Effect, Emulator, Ended, Kind, LinkOptions, Port, Recipe, Session,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Samples of each measure where instructions are counted: they repeat.
const COUNTED_FAULTS: u32 = 500;
/// Makes one instruction of QEMU one nanosecond of the emulated machine and one
/// tick of its TSC; while it sleeps, its time follows the host's.
const COUNT_INSTRUCTIONS: [&str; 2] = ["-icount", "shift=0"];

/// Pages that are touched in sequence on Bochs, whose link carries some 200 of
/// them in a second.
const BOCHS_SEQUENCE: u32 = 4096;

/// What all runs of a benchmark have in common.
struct Bench<'a> {
    args: &'a RemoteFaultArgs,
    recipe: Recipe,
    image: PathBuf,
    guest: PathBuf,
    progress: Progress,
    started: Instant,
}

/// How a run ended that gave no measures.
type Failed = Ended;

/// Measures remote faults and prints the result.
pub(crate) fn remote_fault(args: &RemoteFaultArgs) -> Result<u8> {
    let progress = Progress::new();
    let recipe = Recipe::load(&compile::workspace().join("qemu/machines"), &args.machine)?;
    if recipe.direct {
        bail!("the machine {} has no Pangaea to measure", recipe.name);
    }
    system::ensure(&doctor::emulator_needs(&recipe), &progress)?;
    let image = compile::node_image(&progress)?;
    let guest = compile::build("pangaea-guests", &progress)?.join("bench");
    let bench = Bench { args, recipe, image, guest, progress, started: Instant::now() };
    let timed = bench.run("times", &bench.recipe, &bench.words())?;
    let timed = match timed {
        Ok(measured) => measured,
        Err(failed) => return Ok(bench.explain(&failed)),
    };
    let counted = match bench.recipe.ips {
        // The TSC of Bochs counts instructions as it is.
        Some(ips) => Instructions::new(&timed, f64::from(ips))?,
        None => match bench.count()? {
            Ok(counted) => Instructions::new(&counted, 1e9)?,
            Err(failed) => return Ok(bench.explain(&failed)),
        },
    };
    let outcome = Outcome::new(&timed, counted, bench.facts())?;
    bench.progress.clear();
    publish(&outcome, &timed, args)?;
    Ok(0)
}

impl Bench<'_> {
    fn facts(&self) -> ClusterFacts {
        ClusterFacts {
            nodes: self.args.nodes,
            memory_bytes: self.args.memory.bytes() * u64::from(self.args.nodes),
            machine: self.recipe.name.clone(),
            link: self.recipe.nic.clone(),
            mtu: self.recipe.mtu,
        }
    }

    /// Says why there is no result.
    fn explain(&self, failed: &Failed) -> u8 {
        self.progress.clear();
        eprintln!("pangaea: {}.", failed.sentence.trim_end_matches('.'));
        failed.status
    }

    /// What the guest is told in the run for times.
    fn words(&self) -> String {
        let faults = self.args.faults;
        match self.recipe.emulator {
            Emulator::Qemu => format!("faults={faults}"),
            Emulator::Bochs => format!("faults={faults} sequence={BOCHS_SEQUENCE}"),
        }
    }

    /// The short run in which QEMU counts instructions.
    fn count(&self) -> Result<Result<Measured, Failed>> {
        let mut counting = self.recipe.clone();
        counting.args.extend(COUNT_INSTRUCTIONS.map(str::to_owned));
        let words = format!("short faults={}", COUNTED_FAULTS.min(self.args.faults));
        self.run("instructions", &counting, &words)
    }

    /// Boots a cluster, lets the guest measure, and collects what was said.
    fn run(&self, what: &str, recipe: &Recipe, words: &str) -> Result<Result<Measured, Failed>> {
        let payload = payload::pack(&self.guest, None, words)?;
        let config = ClusterConfig {
            recipe: recipe.clone(),
            nodes: self.args.nodes,
            memory: self.args.memory,
            image: self.image.clone(),
            payload: Some(payload.path().to_owned()),
            append: String::new(),
            join_timeout: Duration::from_secs(recipe.join_timeout),
            link: LinkOptions::default(),
            log_dir: self.args.log_dir.as_ref().map(|dir| dir.join(what)),
            overrides: BTreeMap::new(),
        };
        self.progress.stage(&format!("{what}: starting the nodes"));
        let cluster = hosting::start(config)?;
        let mut session = Session::new(self.args.nodes, false, None);
        let mut measured = Measured::default();
        let ended = self.drive(what, &cluster, &mut session, &mut measured)?;
        measured.take_events(session.events().iter().map(|(_, event)| event));
        if ended.status != 0 {
            return Ok(Err(ended));
        }
        measured.check_complete()?;
        Ok(Ok(measured))
    }

    /// Takes all messages until the run has ended.
    fn drive(
        &self,
        what: &str,
        cluster: &Cluster,
        session: &mut Session,
        measured: &mut Measured,
    ) -> Result<Ended> {
        let mut pending = Vec::new();
        loop {
            if let Ok(message) = cluster.next(TICK) {
                if let Kind::Bytes(Port::Console, bytes) = &message.kind {
                    pending.extend(bytes);
                    for line in take_lines(&mut pending) {
                        if let Some(text) = measured.take(line)? {
                            self.progress.stage(&format!("{what}: {text}"));
                        }
                    }
                }
                for effect in session.observe(&message) {
                    self.show(what, effect);
                }
            }
            signals::wait_if_quitting();
            if let Some(ended) = session.ended(cluster.elapsed()) {
                return Ok(ended);
            }
            let seconds = self.started.elapsed().as_secs();
            if seconds >= self.args.timeout {
                bail!("the benchmark was ended after {seconds} seconds (--timeout)");
            }
        }
    }

    /// Shows what a node says.
    fn show(&self, what: &str, effect: Effect) {
        match effect {
            Effect::Progress(text) => self.progress.stage(&format!("{what}: {text}")),
            Effect::Report(lines) => lines.iter().for_each(|l| self.progress.note(l)),
            Effect::Panic { node, message, backtrace } => {
                let lines = report::panic_lines(&self.image, node, &message, &backtrace);
                lines.iter().for_each(|l| self.progress.note(l));
            }
            Effect::Console(_) | Effect::Stdout(_) | Effect::Stderr(_) => {}
        }
    }
}

/// Prints the result, and writes it, its distributions and their plot to
/// files.
fn publish(outcome: &Outcome, timed: &Measured, args: &RemoteFaultArgs) -> Result<()> {
    let text = serde_json::to_string_pretty(outcome)?;
    let c = &outcome.cluster;
    let title = format!("Remote faults: {} nodes, {}, MTU {}", c.nodes, c.machine, c.mtu);
    let details = json!({"distributions": timed.samples, "totals": timed.totals});
    let files = [
        ("remote-fault.json", text.clone() + "\n"),
        ("remote-fault-distributions.json", serde_json::to_string(&details)? + "\n"),
        ("remote-fault.svg", plot::draw(&title, &timed.samples)?),
    ];
    for (name, content) in files {
        write(&args.out, name, &content)?;
    }
    if args.json {
        crate::terminal::print(&(text + "\n"))?;
    } else {
        crate::terminal::print(&outcome.table().to_string())?;
    }
    eprintln!("pangaea: the result and its plot are in {}", args.out.display());
    Ok(())
}

/// Writes one file of the result.
fn write(folder: &Path, name: &str, content: &str) -> Result<()> {
    let file = folder.join(name);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&file, content))
        .with_context(|| format!("{} cannot be written", file.display()))
}
