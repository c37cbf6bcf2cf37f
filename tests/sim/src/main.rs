//! Runs seeds of the cluster simulator; shows the timeline of what fails.

use clap::Parser;
use sim::Scenario;
use std::process::ExitCode;

/// Simulates whole clusters in virtual time.
#[derive(Parser)]
struct Args {
    /// The first seed.
    #[arg(long)]
    seed: u64,
    /// Nodes; else the seed says how many.
    #[arg(long)]
    nodes: Option<u16>,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut failed = 0u64;
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let scenario = Scenario::of(seed, args.nodes);
        let single = args.count == 1;
        if single {
            println!("{scenario:#?}");
        }
        match sim::run(scenario, single) {
            Ok(summary) if single => println!("{summary:#?}"),
            Ok(_) => {}
            Err(report) => {
                failed += 1;
                println!("seed {seed}: {report}");
            }
        }
    }
    println!("{} seeds, {failed} failed", args.count);
    ExitCode::from(u8::from(failed > 0))
}
