//! Clusters that the door does not offer, built from the crate `runner`.

use crate::kicks::{self, Kicks};
use crate::{Folder, build, emulators};
use runner::cpio::Writer;
use runner::{Cluster, ClusterConfig, Effect, Ended, LinkOptions, Recipe, Session};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// A cluster that is about to be started.
pub struct Nodes {
    /// What to start; a test changes what it wants to be odd.
    pub config: ClusterConfig,
    /// A node that is killed once the guest has printed a text.
    pub kill: Option<(u32, &'static str)>,
    kick: Option<&'static str>,
    limit: Duration,
    logs: Folder,
}

impl Nodes {
    /// Default machines with a guest: `kernel` with a command line.
    ///
    /// # Panics
    /// If the recipe or the kernel cannot be read.
    #[must_use]
    pub fn new(nodes: u32, memory: &str, kernel: &Path, cmdline: &str) -> Nodes {
        Nodes::on("q35-svm", nodes, memory, kernel, cmdline)
    }

    /// The same with machines of the kind `machine`.
    ///
    /// # Panics
    /// If the recipe or the kernel cannot be read.
    #[must_use]
    pub fn on(machine: &str, nodes: u32, memory: &str, kernel: &Path, cmdline: &str) -> Nodes {
        let logs = Folder::new();
        let payload = logs.path().join("payload.cpio");
        write_payload(&payload, kernel, cmdline).expect("a payload");
        let machines = build::workspace().join("qemu/machines");
        let recipe = Recipe::load(&machines, machine).expect("the machine");
        let join_timeout = recipe.join_timeout;
        let config = ClusterConfig {
            recipe,
            nodes,
            memory: memory.parse().expect("a size of memory"),
            image: build::node_image().to_owned(),
            payload: Some(payload),
            append: String::new(),
            join_timeout: Duration::from_secs(join_timeout),
            link: LinkOptions::default(),
            log_dir: Some(logs.path().to_owned()),
            overrides: Default::default(),
        };
        Nodes { config, kill: None, kick: None, limit: Duration::from_secs(180), logs }
    }

    /// The same guest in one emulator of the kind `machine`, without Pangaea.
    ///
    /// # Panics
    /// If the recipe cannot be read.
    #[must_use]
    pub fn bare(machine: &str, memory: &str, kernel: &Path, cmdline: &str) -> Nodes {
        let mut bare = Nodes::new(1, memory, kernel, cmdline);
        let machines = build::workspace().join("qemu/machines");
        bare.config.recipe = Recipe::load(&machines, machine).expect("the machine");
        bare.config.image = kernel.to_owned();
        bare.config.payload = None;
        bare.config.append = cmdline.to_owned();
        bare
    }

    /// Sets the time limit.
    #[must_use]
    pub fn within(mut self, seconds: u64) -> Nodes {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Has the emulator of the only node kicked without pause, once the guest
    /// has printed a text.
    #[must_use]
    pub fn kicked(mut self, text: &'static str) -> Nodes {
        assert_eq!(self.config.nodes, 1, "the nodes would share a socket");
        self.config.recipe.args.extend(kicks::arguments(&self.socket()));
        self.kick = Some(text);
        self
    }

    /// Where an emulator that is kicked listens.
    fn socket(&self) -> PathBuf {
        self.folder().join("monitor")
    }

    /// The folder of the run's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.logs.path()
    }

    /// Runs the cluster to its end and makes sure that nothing keeps running.
    ///
    /// # Panics
    /// If it does not start, or anything keeps running.
    #[must_use]
    pub fn run(self) -> Outcome {
        let begun = Instant::now();
        let mut cluster = Cluster::start(&self.config).expect("the emulators start");
        let absent = self.config.overrides.values().filter(|o| o.absent).count() as u32;
        let direct = self.config.recipe.direct;
        let socket = self.socket();
        let mut session = Session::new(self.config.nodes - absent, direct, None);
        let mut outcome = Outcome {
            ended: None,
            events: Vec::new(),
            console: String::new(),
            panics: Vec::new(),
            took: Duration::ZERO,
            lost_for: Duration::ZERO,
            kicks: 0,
            logs: self.logs,
        };
        let (mut kill, mut kick, mut kicks) = (self.kill, self.kick, None);
        let mut killed = None;
        let mut console = Vec::new();
        while outcome.ended.is_none() && begun.elapsed() < self.limit {
            if let Ok(message) = cluster.next(TICK) {
                for effect in session.observe(&message) {
                    match effect {
                        Effect::Console(bytes) => console.extend(bytes),
                        Effect::Panic { node, message, .. } => {
                            outcome.panics.push(format!("node {node}: {message}"));
                        }
                        Effect::Stdout(_) | Effect::Stderr(_) => {}
                        Effect::Progress(_) | Effect::Report(_) => {}
                    }
                }
            }
            let printed = |text: &str| console.windows(text.len()).any(|w| w == text.as_bytes());
            if let Some((node, text)) = kill
                && printed(text)
            {
                cluster.kill(node);
                (kill, killed) = (None, Some(Instant::now()));
            }
            if kick.is_some_and(printed) {
                (kick, kicks) = (None, Some(Kicks::begin(&socket)));
            }
            outcome.ended = session.ended(cluster.elapsed());
        }
        outcome.lost_for = killed.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        cluster.end();
        outcome.kicks = kicks.map_or(0, Kicks::end);
        outcome.events = session.events().to_vec();
        outcome.console = String::from_utf8_lossy(&console).into_owned();
        outcome.took = begun.elapsed();
        let left = emulators();
        assert!(left.is_empty(), "left running: {left:?}");
        outcome
    }
}

/// Writes the archive that the leading node boots its guest from.
fn write_payload(path: &Path, kernel: &Path, cmdline: &str) -> std::io::Result<()> {
    let mut cpio = Writer::new(Vec::new());
    cpio.file("kernel", &std::fs::read(kernel)?, 0o644)?;
    cpio.file("cmdline", cmdline.as_bytes(), 0o644)?;
    std::fs::write(path, cpio.finish()?)
}

/// How such a cluster ended. Should the test fail while it lives, it prints
/// all that helps to see why.
pub struct Outcome {
    /// Status and sentence; `None` if the time limit ended it.
    pub ended: Option<Ended>,
    /// The nodes' events.
    pub events: Vec<(u32, Value)>,
    /// What the guest printed.
    pub console: String,
    /// What panicked on the nodes.
    pub panics: Vec<String>,
    /// How long it lasted.
    pub took: Duration,
    /// How long it went on once a node was killed.
    pub lost_for: Duration,
    /// How often its emulator was kicked.
    pub kicks: u64,
    /// The logs of the nodes.
    pub logs: Folder,
}

impl Outcome {
    /// Makes sure of the end: this status, no panic of any node, and a
    /// sentence that holds all of `words`.
    ///
    /// # Panics
    /// If the end is another.
    pub fn expect(&self, status: u8, words: &[&str]) -> &Outcome {
        assert_eq!(self.panics, [""; 0], "nodes must not panic");
        let ended = self.ended.as_ref().expect("it ends within its time limit");
        assert_eq!(ended.status, status, "{}", ended.sentence);
        for word in words {
            assert!(ended.sentence.contains(word), "no {word:?} in {:?}", ended.sentence);
        }
        self
    }

    /// The fatal events of a node: class and message.
    #[must_use]
    pub fn fatals(&self, node: u32) -> Vec<(&str, &str)> {
        self.events
            .iter()
            .filter(|(n, event)| *n == node && event["event"] == "fatal")
            .map(|(_, e)| {
                (e["class"].as_str().unwrap_or_default(), e["message"].as_str().unwrap_or_default())
            })
            .collect()
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ended with {:?} after {:.1} s", self.ended, self.took.as_secs_f64());
            eprintln!("--- the guest's console\n{}", self.console);
            eprintln!("--- panics: {:?}", self.panics);
            eprint!("{}", self.logs.tails());
        }
    }
}
