//! Runs seeds of the cluster simulator; shows the timeline of what fails.

use clap::Parser;
use sim::{Scenario, campaign};
use std::process::ExitCode;

/// Simulates whole clusters in virtual time.
#[derive(Parser)]
#[command(name = "cargo pangaea sim", bin_name = "cargo pangaea sim")]
struct Args {
    /// Run this seed alone and show what happened, page by page.
    #[arg(long, required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Run this many seeds.
    #[arg(long, conflicts_with = "seed", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first of many seeds.
    #[arg(long, default_value_t = 0, conflicts_with = "seed")]
    first: u64,
    /// Nodes; else the seed says how many.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    nodes: Option<u16>,
    /// Show the timeline of this page (hexadecimal), also when all is well.
    #[arg(long, value_parser = page, requires = "seed")]
    page: Option<addr::Gfn>,
    /// Threads; else one for each processor.
    #[arg(long)]
    threads: Option<usize>,
}

fn page(text: &str) -> Result<addr::Gfn, String> {
    let digits = text.trim_start_matches("0x");
    let number = u64::from_str_radix(digits, 16);
    number.map(addr::Gfn).map_err(|_| "give a page number in hexadecimal".to_owned())
}

/// Failures after which the rest is not run.
const FAILURES_MAX: usize = 20;

fn main() -> ExitCode {
    let args = Args::parse();
    let failed = match (args.seed, args.seeds) {
        (Some(seed), _) => one(&args, seed),
        (None, Some(count)) => many(&args, count),
        (None, None) => unreachable!("one of them is required"),
    };
    ExitCode::from(u8::from(failed))
}

/// Replays a seed; whether it failed.
fn one(args: &Args, seed: u64) -> bool {
    let scenario = Scenario::of(seed, args.nodes);
    println!("{scenario:#?}");
    let mut world = sim::World::new(scenario.clone(), true);
    let outcome = sim::drive(&mut world);
    match &outcome {
        Ok(summary) => println!("{summary:#?}"),
        Err(failure) => println!("seed {seed}: {failure}\n  again: {}", scenario.command()),
    }
    let failed = outcome.as_ref().err().and_then(|f| f.page);
    match args.page.or(failed).or_else(|| world.trace.busiest()) {
        Some(gfn) => print!("{}", world.trace.timeline(gfn)),
        None => println!("no page was touched"),
    }
    outcome.is_err()
}

/// Runs many seeds; whether one failed.
fn many(args: &Args, count: u64) -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let seeds = args.first..args.first.saturating_add(count);
    let threads = args.threads.unwrap_or(cores);
    let campaign = campaign::run(seeds, args.nodes, threads, FAILURES_MAX, |seed, report| {
        println!("seed {seed}: {report}");
    });
    println!("{}", campaign.line());
    !campaign.failed.is_empty()
}
