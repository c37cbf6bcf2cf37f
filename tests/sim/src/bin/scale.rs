//! Shows how faults, formation and metadata scale with the number of nodes;
//! keeps the tables and plots in the documentation.

use addr::{Frame, NodeId};
use clap::Parser;
use coherence::{Coherence, Limits};
use fabric::Config;
use layout::Layout;
use paging::memory::fake::VecMemory;
use paging::{Format, FramePool};
use peak_alloc::PeakAlloc;
use sim::scale::contention::Contention;
use sim::scale::report::{self, Metadata};
use sim::scale::spread::{Pattern, Spread};
use sim::scale::{contention, faults, join, spread};
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The sizes that are shown: vSMP's largest cluster had 128 nodes.
const SIZES: [u16; 6] = [2, 16, 32, 128, 1024, 4096];
/// 16 GiB.
const FRAMES: u64 = 1 << 22;
/// The largest cluster that is formed whole in every run.
const WHOLE_MAX: u16 = 1024;

const README: &str = "kernel/logic/coherence/README.md";
const PLOTS: [&str; 2] =
    ["kernel/logic/coherence/scale-faults.svg", "kernel/logic/coherence/scale-join.svg"];

/// Measures what a fault, formation and metadata cost in clusters of up to
/// 4,096 nodes.
#[derive(Parser)]
#[command(name = "cargo pangaea scale", bin_name = "cargo pangaea scale")]
struct Args {
    /// Write the tables and plots of the documentation anew.
    #[arg(long)]
    renew: bool,
    /// Fail if the tables of the documentation are out of date.
    #[arg(long, conflicts_with = "renew")]
    check: bool,
    /// Show only how nodes fight for pages.
    #[arg(long)]
    contention: bool,
    /// Form one cluster of this size alone, of which every node is simulated in
    /// all it does, and show what it took; 4096 nodes take 14 GiB and some
    /// minutes.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=4096))]
    join: Option<u16>,
    /// The same with 64 witnesses: see `join` in the simulator.
    #[arg(long, requires = "join")]
    sampled: bool,
}

/// Bytes that `make` leaves allocated.
fn kept<T>(make: impl FnOnce() -> T) -> (T, u64) {
    let before = HEAP.current_usage();
    let made = make();
    (made, (HEAP.current_usage() - before) as u64)
}

/// What a node of 16 GiB keeps for itself in a cluster of so many.
fn metadata(nodes: u16, fabric: u64) -> Metadata {
    let total = FRAMES * u64::from(nodes);
    let lender = Limits::new(FRAMES, total, false);
    let leader = Limits::new(FRAMES, total, true);
    let pages = lender.contribution(FRAMES);
    let layout = Layout::new(&vec![pages; usize::from(nodes)]).expect("a sound layout");
    let mut memory = VecMemory::new(FRAMES as usize + 1);
    let (_, protocol) = kept(|| {
        let mut pool = FramePool::with_room_for(FRAMES);
        pool.add(Frame(1), Frame(FRAMES + 1));
        Coherence::new(NodeId(nodes - 1), layout, lender, Format::NPT, pool, &mut memory)
    });
    let (lender_tables, leader_tables) = (lender.table_frames, leader.table_frames);
    let unpromised = leader.unpromised;
    Metadata { nodes, frames: FRAMES, protocol, fabric, lender_tables, leader_tables, unpromised }
}

/// Writes that are measured of each pattern of pages all over a large guest.
const WRITES: u64 = 100_000;

fn spreads() -> Vec<Spread> {
    let frames = spread::FRAMES;
    let hot = [frames / 8, frames / 4, frames * 3 / 8, frames / 2, frames].map(Pattern::Hot);
    let patterns =
        [Pattern::Dense(frames * 3 / 4)].into_iter().chain(hot).chain([Pattern::Uniform]);
    patterns.map(|pattern| spread::measure(pattern, WRITES)).collect()
}

/// One way through a fast link, in nanoseconds.
const NEAR_NS: u64 = 5_000;
/// The same of the links on which nodes choose how long they keep pages.
const DELAYS_NS: [u64; 3] = [NEAR_NS, 25_000, 75_000];

/// Nodes that fight for two pages which are kept for given times.
fn fixed_holds() -> Vec<(u16, u64, Option<Contention>)> {
    let holds = [20_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000];
    let of = |nodes| {
        let one = move |hold| contention::measure(nodes, NEAR_NS, Some(hold), 7);
        holds.iter().map(move |&hold| (nodes, hold, one(hold)))
    };
    [2, 4, 8].into_iter().flat_map(of).collect()
}

/// Nodes that choose for themselves how long; `None` if something starves.
fn chosen_holds() -> Option<Vec<Contention>> {
    let of = |delay| [2, 4, 8].map(|nodes| Contention::worst(nodes, delay, 0..3));
    DELAYS_NS.into_iter().flat_map(of).collect()
}

/// Heap of one fabric in a cluster that has formed: two of them are told of
/// all the others by the frames that a whole cluster would send.
fn fabric_bytes(nodes: u16) -> u64 {
    let config = Config::new([2, 0, 0, 0, 0, 0], 1, 1, 1, nodes);
    let (fabric, bytes) = kept(|| join::formed_alone(config));
    drop(fabric);
    bytes
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(nodes) = args.join {
        let form = if args.sampled { join::measure_sampled } else { join::measure };
        print!("{}", report::joins(&[form(nodes)]));
        return ExitCode::SUCCESS;
    }
    let Some(chosen) = chosen_holds() else {
        println!("scale: an instruction starves with the hold time that nodes choose");
        return ExitCode::FAILURE;
    };
    let contended = report::contention(&fixed_holds(), &chosen);
    if args.contention {
        print!("{contended}");
        return ExitCode::SUCCESS;
    }
    let fault_rows: Vec<_> = SIZES.iter().map(|&n| faults::measure(n, FRAMES)).collect();
    let form = |n| if n <= WHOLE_MAX { join::measure(n) } else { join::measure_sampled(n) };
    let join_rows: Vec<_> = SIZES.iter().map(|&n| form(n)).collect();
    let metadata_rows: Vec<_> = SIZES.iter().map(|&n| metadata(n, fabric_bytes(n))).collect();
    let tables = format!(
        "Messages / round trips:\n\n{}\n{}\n{}\n\
         A leading node of 64 MiB and a guest of 4 TiB:\n\n{}",
        report::faults(&fault_rows),
        report::joins(&join_rows),
        report::metadata(&metadata_rows),
        report::spreads(&spreads()),
    );
    println!("{tables}\n{contended}");
    let fault_plot = report::plot(
        "Messages and invalidations of one fault",
        "messages",
        &report::fault_lines(&fault_rows),
    );
    let join_plot =
        report::plot("Forming and keeping a cluster", "", &report::join_lines(&join_rows));
    let plots = match (fault_plot, join_plot) {
        (Ok(a), Ok(b)) => [a, b],
        (Err(e), _) | (_, Err(e)) => {
            println!("the plots cannot be drawn: {e}");
            return ExitCode::FAILURE;
        }
    };
    let tables = [("scale", tables.as_str()), ("contention", contended.as_str())];
    match keep(&args, &tables, &plots) {
        Ok(()) => {
            let read = fault_rows.last().expect("sizes").read.messages;
            let formed = join_rows.last().expect("sizes");
            println!(
                "scale: at {} nodes a read takes {read} messages, joining {} ms and {:.0} frames a \
                 node; of nodes that fight for pages none starves, longest wait over median at \
                 most {}",
                formed.nodes,
                formed.formed_ms,
                formed.each(),
                chosen.iter().map(Contention::ratio).max().expect("some")
            );
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("scale: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Renews or checks what the documentation says.
fn keep(args: &Args, tables: &[(&str, &str); 2], plots: &[String; 2]) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = |name: &str| root.join(name);
    let read = |name: &str| {
        std::fs::read_to_string(file(name)).map_err(|e| format!("{name} cannot be read: {e}"))
    };
    let write = |name: &str, text: &str| {
        std::fs::write(file(name), text).map_err(|e| format!("{name} cannot be written: {e}"))
    };
    let old = read(README)?;
    let mut text = old.clone();
    for (name, table) in tables {
        let (begin, end) = (format!("<!-- {name}: begin -->\n"), format!("<!-- {name}: end -->"));
        let marks = text.find(&begin).zip(text.find(&end));
        let (from, to) = marks.ok_or_else(|| format!("{README} has no place for {name}"))?;
        text.replace_range(from + begin.len()..to, table);
    }
    if args.renew {
        write(README, &text)?;
        return PLOTS.iter().zip(plots).try_for_each(|(name, svg)| write(name, svg));
    }
    let stale = text != old
        || PLOTS.iter().zip(plots).any(|(name, svg)| read(name).ok().as_ref() != Some(svg));
    if args.check && stale {
        return Err("the tables are out of date; cargo pangaea scale --renew".to_owned());
    }
    Ok(())
}
