//! `cargo pangaea run`: boots a cluster and a guest, and gives the user the
//! guest's console or one command's output.

use crate::cli::RunArgs;
use crate::console::Console;
use crate::live::{self, Publisher};
use crate::payload::{self, GuestFiles};
use crate::progress::Progress;
use crate::report::{self, Record};
use crate::temporary::TemporaryFile;
use crate::{compile, doctor, signals, system, terminal};
use anyhow::{Result, bail};
use runner::session::status;
use runner::{Cluster, ClusterConfig, Effect, Ended, Kind, Message, NodeOverride, Recipe, Session};
use signal_hook::consts::SIGPIPE;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Boots what the options say and returns the exit status.
pub(crate) fn run(args: &RunArgs) -> Result<u8> {
    let progress = Progress::new();
    let recipe = Recipe::load(&compile::workspace().join("qemu/machines"), &args.machine)?;
    let nodes = args.nodes.unwrap_or(if recipe.direct { 1 } else { 2 });
    system::ensure(&doctor::emulator_needs(&recipe), &progress)?;
    let guest = GuestFiles::find(
        args.kernel.as_ref(),
        args.initrd.as_deref(),
        args.append.as_deref(),
        &progress,
    )?;
    let nonce = format!("{:016x}", fastrand::u64(..));
    let (config, payload) = configure(args, recipe, nodes, &guest, &nonce, &progress)?;
    progress.stage("starting the nodes");
    let cluster = match Cluster::start(&config) {
        Ok(cluster) => cluster,
        Err(error) => {
            progress.clear();
            eprintln!("pangaea: {error}.");
            return Ok(status::NOT_FORMED);
        }
    };
    let started = nodes - count_absent(&config);
    let nonce = (!args.command.is_empty()).then_some(nonce.as_str());
    let session = Session::new(started, config.recipe.direct, nonce);
    let record = Record::new(args, &config);
    let publisher = Publisher::new(&config, record.command());
    let mut run = Run {
        args,
        config: &config,
        payload: Some(payload),
        progress,
        cluster,
        session,
        record,
        publisher,
        console: None,
        reported: Vec::new(),
    };
    let _restorer = terminal::Restorer;
    let ended = run.drive()?;
    run.conclude(&ended)
}

/// How many of the nodes are not to be started.
fn count_absent(config: &ClusterConfig) -> u32 {
    config.overrides.values().filter(|o| o.absent).count() as u32
}

/// Makes the cluster's configuration and its payload.
fn configure(
    args: &RunArgs,
    recipe: Recipe,
    nodes: u32,
    guest: &GuestFiles,
    nonce: &str,
    progress: &Progress,
) -> Result<(ClusterConfig, TemporaryFile)> {
    let initrd = match &args.initrd {
        // The user's own initrd stays as it is, byte for byte.
        Some(initrd) => std::fs::read(initrd)?,
        None => guest.initrd_with(&args.command, nonce)?,
    };
    let (image, payload, append) = if recipe.direct {
        let initrd = TemporaryFile::write("initrd", &initrd)?;
        (guest.kernel.clone(), initrd, guest.command_line.clone())
    } else {
        let image = match &args.image {
            Some(image) => image.clone(),
            None => compile::node_image(progress)?,
        };
        let payload = payload::pack(&guest.kernel, Some(&initrd), &guest.command_line)?;
        let words = args.node_append.as_deref().unwrap_or_default();
        (image, payload, format!("{} {words}", live::NODE_WORD).trim_end().to_owned())
    };
    let join_timeout = args.join_timeout.unwrap_or(recipe.join_timeout);
    let mut config = ClusterConfig {
        recipe,
        nodes,
        memory: args.memory,
        image,
        payload: Some(payload.path().to_owned()),
        append,
        join_timeout: Duration::from_secs(join_timeout),
        link: args.link.options(),
        log_dir: args.log_dir.clone(),
        overrides: Default::default(),
    };
    for node in args.start_nodes.unwrap_or(nodes)..nodes {
        config.overrides.insert(node, NodeOverride { absent: true, ..Default::default() });
    }
    Ok((config, payload))
}

/// A run that goes on.
struct Run<'a> {
    args: &'a RunArgs,
    config: &'a ClusterConfig,
    /// Gone once the emulator has it in memory.
    payload: Option<TemporaryFile>,
    progress: Progress,
    cluster: Cluster,
    session: Session,
    record: Record,
    /// What `cargo pangaea top` sees.
    publisher: Publisher,
    console: Option<Console>,
    /// Reports of nodes that were shown.
    reported: Vec<String>,
}

impl Run<'_> {
    /// Passes everything on until the run has ended.
    fn drive(&mut self) -> Result<Ended> {
        let limit = self.args.timeout.map(Duration::from_secs);
        loop {
            match self.cluster.next(TICK) {
                Ok(message) => self.take(&message)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now = self.cluster.elapsed();
            signals::wait_if_quitting();
            if let Some(ended) = self.session.ended(now) {
                return Ok(ended);
            }
            if limit.is_some_and(|limit| now >= limit) {
                let seconds = now.as_secs();
                let sentence = format!("the run was ended after {seconds} seconds (--timeout)");
                return Ok(Ended { status: status::TIMEOUT, sentence });
            }
        }
    }

    /// Takes one message.
    fn take(&mut self, message: &Message) -> Result<()> {
        if self.args.verbose
            && let Kind::Line(line) | Kind::Emulator(line) = &message.kind
        {
            self.progress.suspend(|| eprintln!("[node {}] {line}", message.node));
        }
        if message.node == 0 && matches!(message.kind, Kind::Line(_) | Kind::Bytes(..)) {
            self.payload = None;
        }
        if let Kind::Event(_, value) = &message.kind
            && self.publisher.take(value)
        {
            return Ok(());
        }
        for effect in self.session.observe(message) {
            self.show(effect)?;
        }
        Ok(())
    }

    /// Shows one thing where it belongs.
    fn show(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Stdout(bytes) if self.args.json => self.record.stdout.extend(bytes),
            Effect::Stderr(bytes) if self.args.json => self.record.stderr.extend(bytes),
            Effect::Stdout(bytes) => self.write(&mut std::io::stdout(), &bytes)?,
            Effect::Stderr(bytes) => self.write(&mut std::io::stderr(), &bytes)?,
            Effect::Console(bytes) => self.console_bytes(&bytes)?,
            Effect::Progress(text) if self.console.is_none() => self.progress.stage(&text),
            Effect::Progress(_) => {}
            Effect::Report(lines) => {
                lines.iter().for_each(|l| self.progress.note(l));
                self.reported.extend(lines);
            }
            Effect::Panic { node, message, backtrace } => {
                let lines = report::panic_lines(&self.config.image, node, &message, &backtrace);
                self.progress.suspend(|| lines.iter().for_each(|l| eprintln!("{l}")));
            }
        }
        Ok(())
    }

    /// Shows what the guest's kernel console says.
    fn console_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.record.console.push(bytes);
        if self.args.command.is_empty() {
            if self.console.is_none() {
                self.progress.clear();
                self.console = Some(Console::attach(&self.cluster)?);
            }
            return self.write(&mut std::io::stdout(), bytes);
        }
        if self.args.verbose {
            return self.write(&mut std::io::stderr(), bytes);
        }
        if !self.session.decided()
            && let Some(line) = self.record.console.last()
        {
            self.progress.stage(&format!("guest: {line}"));
        }
        Ok(())
    }

    /// Writes bytes as they are; nobody reading them any more ends the run.
    fn write(&self, out: &mut impl Write, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match self.progress.suspend(|| out.write_all(bytes).and_then(|()| out.flush())) {
            Ok(()) => Ok(()),
            // Nobody reads on (`run ... | head`): end as other programs do.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => signals::quit(128 + SIGPIPE),
            Err(error) => bail!("the output cannot be written: {error}"),
        }
    }

    /// Ends the cluster, explains a failure, and returns the exit status.
    fn conclude(mut self, ended: &Ended) -> Result<u8> {
        terminal::restore();
        self.progress.clear();
        self.cluster.end();
        if !ended.sentence.is_empty() {
            let told = self.reported.iter().any(|line| line.ends_with(&ended.sentence));
            let unclear = [status::FAULT, status::TIMEOUT].contains(&ended.status)
                || (ended.status == status::NOT_FORMED && !told);
            if unclear {
                self.last_lines();
            }
            if !told {
                eprintln!("pangaea: {}.", ended.sentence.trim_end_matches('.'));
            }
        }
        if self.args.json {
            self.record.print(ended, self.session.events(), self.cluster.elapsed())?;
        }
        Ok(ended.status)
    }

    /// Prints what each node and the guest said last.
    fn last_lines(&self) {
        for node in 0..self.config.nodes {
            let lines = self.cluster.last_lines(node);
            if !lines.is_empty() {
                eprintln!("The last lines of node {node}:");
                lines.iter().for_each(|line| eprintln!("    {line}"));
            }
        }
        let lines = self.record.console.recent();
        if !lines.is_empty() && !self.args.command.is_empty() {
            eprintln!("The last lines of the guest's console:");
            lines.iter().for_each(|line| eprintln!("    {line}"));
        }
        if let Some(folder) = self.args.log_dir.as_deref().map(Path::display) {
            eprintln!("All logs are in {folder}.");
        }
    }
}
