//! Faults one at a time, without pressure: first touch, read, upgrade, write,
//! and the floor below them all.

use crate::link::stream;
use crate::plan::{Mark, Plan, SAMPLES, exits, give_away, mark, pattern};
use guests::cpu::tsc;
use guests::hypercall::{Call, call};
use guests::memory::Region;
use guests::order::Shuffle;

/// Pages of a run that the home may grant at once.
const RUN: u64 = 512;
/// Only every so many pages are touched: a page is never the one after a
/// touched one, so that no fetch ahead of a sequential reader spares a fault.
const STRIDE: u64 = 2;
/// Most runs that are touched for the first time.
const RUNS_MAX: u64 = 256;
/// Samples of faults on pages that this node is home to, at most: they take frames
/// that the measures after them need.
const OWN_FAULTS_MAX: u64 = 2_000;
/// Samples of faults that come alone, at most.
const LONE_FAULTS_MAX: u64 = 500;
/// How long the guest does something else before each, in microseconds: longer than the
/// node waits for the next with its NIC's interrupt off (`node::lull`).
const PAUSE_US: u64 = 2_000;
/// What a read of a wrong value is called.
const WRONG: &str = "a page does not hold what was written to it";

/// Touches memory that nobody has touched before, run by run.
pub(crate) fn first_touch(plan: &Plan) -> Result<(), &'static str> {
    plan.stage("first touch of dormant pages");
    mark(Mark::Discard)?;
    let runs = (plan.remote.pages() / 2 / RUN).min(RUNS_MAX);
    let mut samples = SAMPLES.lock();
    samples.clear();
    let mut ticks = 0;
    for run in 0..runs {
        let region = plan.remote.part(run * RUN, RUN);
        let first = region.write(0, pattern(&region, 0));
        samples.push(first);
        ticks += first;
        ticks += (1..RUN).map(|i| region.write(i, pattern(&region, i))).sum::<u64>();
    }
    drop(samples);
    mark(Mark::FirstTouch)?;
    plan.report("first_touch");
    plan.report_total("first_touch_page", runs * RUN, ticks, runs);
    Ok(())
}

/// Reads, upgrades, writes and floor, on the same pages.
pub(crate) fn measure(plan: &Plan) -> Result<(), &'static str> {
    let half = plan.remote.pages() / 2;
    let region = plan.remote.part(half, plan.faults * STRIDE);
    plan.stage("giving pages to the other node");
    for i in 0..region.pages() {
        region.write(i, pattern(&region, i));
    }
    give_away(region)?;
    mark(Mark::Discard)?;

    plan.stage("read faults");
    let before = exits()?;
    timed(&region, |i| read(&region, i))?;
    plan.report_exits("read_fault", plan.faults, exits()? - before - 1);
    mark(Mark::Read)?;
    plan.report("read_fault");

    plan.stage("upgrades");
    timed(&region, |i| Ok(region.write(i, pattern(&region, i))))?;
    mark(Mark::Upgrade)?;
    plan.report("upgrade");

    plan.stage("giving pages to the other node again");
    give_away(region)?;
    mark(Mark::Discard)?;
    plan.stage("write faults");
    timed(&region, |i| Ok(region.write(i, pattern(&region, i))))?;
    mark(Mark::Write)?;
    plan.report("write_fault");

    plan.stage("exit floor");
    timed(&region, |i| {
        let gfn = region.first() + i;
        if call(Call::Protect, gfn, 0, 0) != Some(1) {
            return Err("a page that was just written is not here");
        }
        Ok(region.write(i, pattern(&region, i)))
    })?;
    mark(Mark::Floor)?;
    plan.report("exit_floor");
    own(plan)?;
    alone(plan, region)?;
    in_sequence(plan, region)
}

/// Reads page `i`, which has to hold its pattern.
fn read(region: &Region, i: u64) -> Result<u64, &'static str> {
    let (ticks, value) = region.read(i);
    if value == pattern(region, i) { Ok(ticks) } else { Err(WRONG) }
}

/// Reads pages that the other node holds, and does something else before each.
fn alone(plan: &Plan, region: Region) -> Result<(), &'static str> {
    plan.stage("giving some pages to the other node");
    let faults = plan.faults.min(LONE_FAULTS_MAX);
    let region = region.part(0, faults * STRIDE);
    give_away(region)?;
    mark(Mark::Discard)?;
    plan.stage("read faults that come alone");
    let pause = plan.ticks(PAUSE_US);
    let before = exits()?;
    timed(&region, |i| {
        let until = tsc() + pause;
        while tsc() < until {}
        read(&region, i)
    })?;
    plan.report_exits("lone_read_fault", faults, exits()? - before - 1);
    plan.report("lone_read_fault");
    Ok(())
}

/// Reads pages that the other node holds and this one is home to: no message goes
/// to a home, the owner is asked at once.
fn own(plan: &Plan) -> Result<(), &'static str> {
    plan.stage("giving pages of this home to the other node");
    let pages = (plan.faults.min(OWN_FAULTS_MAX) * STRIDE).min(plan.own.pages() / 2);
    let region = plan.own.part(plan.own.pages() - pages, pages);
    for i in 0..pages {
        region.write(i, pattern(&region, i));
    }
    give_away(region)?;
    mark(Mark::Discard)?;
    plan.stage("read faults of this home's pages");
    timed(&region, |i| read(&region, i))?;
    mark(Mark::OwnRead)?;
    plan.report("own_read_fault");
    Ok(())
}

/// Reads pages that the other node holds one after the other, each once, while
/// this node has frames for all of them. The link's own bandwidth is measured in
/// turns with it, as one is to be compared with the other; of both the median counts.
fn in_sequence(plan: &Plan, region: Region) -> Result<(), &'static str> {
    // The least that a touch takes which faults: well below the floor, well
    // above a touch of a page that is here.
    let threshold = SAMPLES.lock().distribution().quantile(0) / 2;
    let mut links = [0; Plan::ROUNDS];
    let mut reads = [(0, 0); Plan::ROUNDS];
    let rounds = plan.rounds();
    for (link, read) in links.iter_mut().zip(&mut reads).take(rounds) {
        plan.stage("giving pages to the other node once more");
        give_away(region)?;
        mark(Mark::Discard)?;
        if rounds > 1 {
            *link = stream(plan)?;
        }
        plan.stage("reading in sequence");
        let started = tsc();
        for i in 0..region.pages() {
            let (ticks, value) = region.read(i);
            if value != pattern(&region, i) {
                return Err(WRONG);
            }
            read.1 += u64::from(ticks >= threshold);
        }
        read.0 = tsc() - started;
    }
    if rounds > 1 {
        plan.report_total("link", plan.faults, *median(&mut links[..rounds]), 0);
    }
    let (ticks, faults) = *median(&mut reads[..rounds]);
    plan.report_total("remote_sequence", region.pages(), ticks, faults);
    Ok(())
}

/// The value in the middle of an odd number of them.
fn median<T: Ord>(values: &mut [T]) -> &T {
    let middle = values.len() / 2;
    values.select_nth_unstable(middle).1
}

/// Keeps the ticks of touches in random order.
fn timed(
    region: &Region,
    mut touch: impl FnMut(u64) -> Result<u64, &'static str>,
) -> Result<(), &'static str> {
    let mut samples = SAMPLES.lock();
    samples.clear();
    for i in Shuffle::new(region.pages() / STRIDE) {
        samples.push(touch(i * STRIDE)?);
    }
    Ok(())
}
