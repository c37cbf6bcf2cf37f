//! Explores the models of the coherence protocol.

use anyhow::{Context, Result, bail};
use clap::Parser;
use model::explore::Fault;
use model::rows::Recorder;
use model::teeth::{self, CAUGHT};
use model::{Explorer, configs, table};
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Explores all states of small clusters that run the coherence protocol.
#[derive(Parser)]
#[command(name = "cargo pangaea model", bin_name = "cargo pangaea model")]
struct Args {
    /// Explore every model to its end, or to --most. Those whose end is out of
    /// reach are cut where their lines in the model's page say, if --most does
    /// not say otherwise.
    #[arg(long)]
    exhaustive: bool,
    /// Only this model, to its end.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// At most so many states of each model.
    #[arg(long, value_name = "STATES")]
    most: Option<usize>,
    /// Write what was explored of each model to the model's own page.
    #[arg(long)]
    record: bool,
    /// Write the protocol's table anew.
    #[arg(long, conflicts_with_all = ["exhaustive", "only", "most"])]
    renew: bool,
    /// Look for bugs that were put in on purpose: `short` asks of each the one
    /// who is known to catch it, `all` asks model and simulator and writes the
    /// table of who caught what, the name of a bug does so for that one.
    #[arg(long, value_name = "HOW")]
    teeth: Option<String>,
    /// Say what is caught in a line, and nothing of the table.
    #[arg(long, hide = true)]
    hunt: bool,
    /// Have the network do what it must not.
    #[arg(long, hide = true, value_name = "FAULT")]
    fault: Option<String>,
    /// Name the models and end.
    #[arg(long)]
    list: bool,
}

/// The command that writes the table anew.
const RENEW: &str = "cargo pangaea model --renew";

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if args.list {
        configs::ALL.iter().for_each(|config| println!("{}", config.name));
        return Ok(());
    }
    match args.teeth.as_deref() {
        Some("all") => return teeth::all(None),
        Some("short") => return teeth::short(),
        Some(name) => return teeth::all(Some(name)),
        None => {}
    }
    if let Some(name) = &args.only
        && !configs::ALL.iter().any(|config| config.name == name)
    {
        bail!("there is no model {name}; --list names them");
    }
    model::local::hush_panics();
    let mut rows = Recorder::default();
    let (mut states, mut depth, mut models, mut complete) = (0, 0, 0, 0);
    let start = Instant::now();
    for config in configs::ALL {
        let whole = args.exhaustive || (args.only.is_some() && !args.hunt);
        let most = match config.short {
            _ if args.only.as_deref().is_some_and(|name| name != config.name) => continue,
            _ if whole => args.most.unwrap_or(config.most),
            Some(short) => short.min(args.most.unwrap_or(usize::MAX)),
            None => continue,
        };
        let mut explorer = Explorer::new(config);
        if let Some(name) = &args.fault {
            explorer.fault = Some(Fault::named(name).context("there is no such fault")?);
        }
        let begun = Instant::now();
        let mut shown = begun;
        let explored = explorer.run(most, &mut |explored, frontier| {
            if stderr().is_terminal() && shown.elapsed() > Duration::from_secs(1) {
                shown = Instant::now();
                let (depth, states) = (explored.depth, explored.states);
                eprint!("\r{}: depth {depth}, {states} states, {frontier} next ", config.name);
            }
        });
        if stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        let explored = match explored {
            Ok(explored) => explored,
            Err(failure) if args.hunt => {
                let (why, states) = (&failure.why, failure.states);
                println!("{CAUGHT}{} after {states} states: {why}", failure.model);
                bail!("{failure}");
            }
            Err(failure) => bail!("{failure}"),
        };
        println!(
            "{:<22} {:>9} states {:>10} steps, depth {:>3}, {:>3} rows, {:>6.1} s{}",
            config.name,
            explored.states,
            explored.steps,
            explored.depth,
            explorer.recorder.rows().len(),
            begun.elapsed().as_secs_f64(),
            if explored.complete { ", all" } else { "" }
        );
        if args.record {
            table::record(config.name, &explored, explorer.recorder.rows().len())?;
        }
        states += explored.states;
        depth = depth.max(explored.depth);
        models += 1;
        complete += usize::from(explored.complete);
        rows.add(&explorer.recorder);
    }
    let text = table::text(rows.rows());
    if args.renew {
        table::renew(&table::readme(), "table", &text)?;
    } else if args.only.is_some() && !args.hunt {
        table::check_known(rows.rows())?;
    } else if !args.hunt {
        table::check(&table::readme(), "table", &text, RENEW)?;
    }
    println!(
        "model: {models} models ({complete} to their end), {states} states, depth {depth}, \
         {} rows reached, {:.0} s",
        rows.rows().len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
