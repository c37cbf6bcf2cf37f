//! More memory than the node has: bandwidth, and faults while others make
//! room.

use crate::plan::{Mark, Plan, SAMPLES, mark, pattern};
use guests::cpu::tsc;
use guests::hypercall::{Call, call};
use guests::order::Shuffle;
use guests::println;
use guests::rows::Rows;

/// Pages between two words on how far it is.
const STEP: u64 = 1 << 14;

pub(crate) fn measure(plan: &Plan) -> Result<(), &'static str> {
    let rows = Rows::of(&plan.memory, 2 * plan.frames);
    if rows.pages() <= plan.frames {
        return Err("the memory is not larger than this node's");
    }
    // The least that a touch takes which faults: well below the floor, well
    // above a touch of a page that is here.
    let threshold = SAMPLES.lock().distribution().quantile(0) / 2;
    progress("filling more memory than the node has", 0, rows.pages());
    for i in 0..rows.pages() {
        let (row, at) = rows.find(i);
        row.write(at, pattern(&row, at));
        if i % STEP == 0 {
            progress("filling more memory than the node has", i, rows.pages());
        }
    }
    mark(Mark::Evict)?;
    pass(
        plan,
        &rows,
        ["sequential", "sequential_fetched"],
        threshold,
        0..rows.pages().min(plan.sequence),
    )?;
    // Twice: the samples are of the random pass, in which nothing is fetched
    // ahead.
    let count = rows.pages().min(2 * plan.faults) as usize;
    pass(
        plan,
        &rows,
        ["random", "random_fetched"],
        threshold,
        Shuffle::new(rows.pages()).take(count),
    )?;
    mark(Mark::Pressure)?;
    plan.report("pressure_fault");
    Ok(())
}

fn progress(text: &str, done: u64, of: u64) {
    println!(r#"@bench {{"name":"stage","text":"{text}: {done} of {of} pages"}}"#);
}

fn fetched() -> Result<u64, &'static str> {
    call(Call::Fetched, 0, 0, 0).ok_or("the node does not count what it fetches")
}

/// Reads pages in an order; keeps the ticks of those that were not here. The
/// time for all that came over the link is that of the whole pass: pages that
/// were asked for ahead arrive while others are touched.
fn pass(
    plan: &Plan,
    rows: &Rows,
    [name, fetches]: [&str; 2],
    threshold: u64,
    order: impl Iterator<Item = u64>,
) -> Result<(), &'static str> {
    let mut samples = SAMPLES.lock();
    samples.clear();
    plan.stage(name);
    let (mut pages, mut total, mut faults) = (0, 0, 0);
    let (fetched_before, started) = (fetched()?, tsc());
    for i in order {
        let (row, at) = rows.find(i);
        let (ticks, value) = row.read(at);
        if value != pattern(&row, at) {
            return Err("a page does not hold what was written to it");
        }
        if ticks >= threshold {
            samples.push(ticks);
            faults += 1;
        }
        pages += 1;
        total += ticks;
    }
    let elapsed = tsc() - started;
    let came = fetched()? - fetched_before;
    plan.report_total(name, pages, total, faults);
    plan.report_total(fetches, came, elapsed, faults);
    Ok(())
}
