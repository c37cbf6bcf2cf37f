//! One node of a cluster: its emulator and the threads that listen to it.

use crate::cluster::default_mac;
use crate::emulator::{self, Launch, NodePlan};
use crate::link::End;
use crate::logs::{LogFile, Tail};
use crate::process::{self, Running};
use crate::voice::{Source, Voice};
use crate::{ClusterConfig, Kind, NodeOverride, Port, RunnerError};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::thread::JoinHandle;

/// One emulator.
pub(crate) struct Node {
    pub(crate) running: Running,
    pub(crate) tail: Tail,
    /// Ends when the emulator has ended and all it said was passed on.
    pub(crate) waiter: Option<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.running.kill();
    }
}

/// How long a node polls before it halts. Nodes that have a processor of the
/// host each may well poll; more of them would keep each other from running.
fn spin_us(nodes: u32) -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
    if nodes as usize <= processors { 2000 } else { 50 }
}

/// One node that is about to start.
pub(crate) struct Starting<'a> {
    pub(crate) config: &'a ClusterConfig,
    pub(crate) changes: NodeOverride,
    pub(crate) voice: Voice,
    pub(crate) cluster_id: u64,
}

impl Starting<'_> {
    /// Starts the emulator and the threads that listen to it.
    pub(crate) fn start(
        self,
        end: End,
        inputs: &mut BTreeMap<Port, File>,
    ) -> Result<Node, RunnerError> {
        let sources = self.sources();
        let append = self.append();
        let launch = emulator::prepare(&self.plan(&append, sources.len()), end)?;
        let Launch { command, inherited, serial, screen } = launch;
        let (running, mut child) = process::start(command, inherited)
            .map_err(RunnerError::system("starting the emulator"))?;
        // From here on the node is killed with the handle, whatever fails.
        let mut node = Node { running, tail: self.voice.tail.clone(), waiter: None };
        let mut listeners = Vec::new();
        if let Some(stderr) = child.stderr.take() {
            listeners.push(self.listen(Source::Emulator, stderr)?);
        }
        listeners.extend(screen.map(|screen| std::thread::spawn(move || drain(screen))));
        for (source, line) in sources.into_iter().zip(serial.open(&child)?) {
            if let Source::Guest(port) = source {
                let copy =
                    line.try_clone().map_err(RunnerError::system("sharing a serial line"))?;
                // Of several direct machines the first one has the user's ear.
                inputs.entry(port).or_insert(copy);
            }
            listeners.push(self.listen(source, line)?);
        }
        let voice = self.voice;
        node.waiter = Some(std::thread::spawn(move || {
            let status = process::wait(child);
            for listener in listeners {
                let _ = listener.join();
            }
            if let Ok(status) = status {
                voice.say(Kind::Exited(status));
            }
        }));
        Ok(node)
    }

    /// The serial ports of this node, COM1 first.
    fn sources(&self) -> Vec<Source> {
        let guest = Port::ALL.map(Source::Guest);
        match (self.config.recipe.direct, self.voice.node) {
            (true, _) => guest.to_vec(),
            (false, 0) => [&[Source::Log], &guest[..]].concat(),
            (false, _) => vec![Source::Log],
        }
    }

    /// What its process depends on.
    fn plan<'b>(&'b self, append: &'b str, serial_ports: usize) -> NodePlan<'b> {
        let config = self.config;
        let node = self.voice.node;
        let leading = if node == 0 { config.payload.as_deref() } else { None };
        let processors = if config.recipe.pinned { process::processors() } else { Vec::new() };
        let enough = processors.len() >= config.nodes as usize;
        NodePlan {
            recipe: &config.recipe,
            cpu: self.changes.cpu.as_deref().unwrap_or(&config.recipe.cpu),
            memory: self.changes.memory.unwrap_or(config.memory),
            image: self.changes.image.as_deref().unwrap_or(&config.image),
            payload: self.changes.payload.as_deref().or(leading),
            append,
            firmware: &self.changes.firmware,
            serial_ports,
            mac: self.changes.mac.unwrap_or_else(|| default_mac(node)),
            processor: processors.get(node as usize).copied().filter(|_| enough),
        }
    }

    /// The node's command line.
    fn append(&self) -> String {
        let config = self.config;
        let own = self.changes.append.as_deref().unwrap_or_default();
        if config.recipe.direct {
            return format!("{} {own}", config.append).trim().to_owned();
        }
        let mut line = format!(
            "nodes={} cluster={:016x} join_timeout={} nic=auto mtu={} spin_us={}",
            config.nodes,
            self.cluster_id,
            config.join_timeout.as_secs(),
            config.recipe.mtu,
            spin_us(config.nodes)
        );
        let lead = if self.voice.node == 0 { "lead" } else { "" };
        for words in
            [lead, &config.recipe.words, &config.append, own].iter().filter(|w| !w.is_empty())
        {
            line.push(' ');
            line.push_str(words);
        }
        line
    }

    /// Starts the thread that passes on what comes from `source`.
    fn listen(
        &self,
        source: Source,
        stream: impl Read + Send + 'static,
    ) -> Result<JoinHandle<()>, RunnerError> {
        let what = match source {
            Source::Log => "log",
            Source::Guest(port) => port.name(),
            Source::Emulator => "emulator",
        };
        let name = format!("node-{}-{what}.log", self.voice.node);
        let log = LogFile::create(self.config.log_dir.as_deref(), &name)?;
        let voice = self.voice.clone();
        Ok(std::thread::spawn(move || voice.relay(source, stream, log)))
    }
}

/// Reads a screen that nobody looks at, so that it never fills.
fn drain(mut screen: File) {
    let mut buffer = [0; 4096];
    // A terminal whose other end has closed gives an error.
    while let Ok(1..) = screen.read(&mut buffer) {}
}
