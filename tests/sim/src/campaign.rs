//! Many seeds at once.

use crate::{Report, Scenario, Summary};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Campaign {
    /// Sums over all runs that held.
    pub summary: Summary,
    /// Runs that held.
    pub held: u64,
    /// Runs that failed, by seed.
    pub failed: Vec<(u64, Report)>,
}

/// Runs the seeds of a range on `threads` threads; `tell` hears of each
/// failure at once. Gives up after `most` failures.
pub fn run(
    seeds: std::ops::Range<u64>,
    nodes: Option<u16>,
    threads: usize,
    most: usize,
    tell: impl Fn(u64, &Report) + Sync,
) -> Campaign {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Campaign::default());
    let work = || {
        let mut mine = Summary::default();
        let mut held = 0;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            match crate::run(Scenario::of(seed, nodes), false) {
                Ok(summary) => {
                    mine.add(&summary);
                    held += 1;
                }
                Err(report) => {
                    tell(seed, &report);
                    let mut all = all.lock().expect("no thread panics while it holds this");
                    all.failed.push((seed, report));
                    if all.failed.len() >= most {
                        next.store(seeds.end, Ordering::Relaxed);
                    }
                }
            }
        }
        let mut all = all.lock().expect("as above");
        all.summary.add(&mine);
        all.held += held;
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut all = all.into_inner().expect("as above");
    all.failed.sort_by_key(|(seed, _)| *seed);
    all
}

impl Campaign {
    /// One line for the test command.
    #[must_use]
    pub fn line(&self) -> String {
        let Campaign { summary: s, held, failed } = self;
        format!(
            "{} seeds, {} failed: {} histories with {} events checked, {} litmus instances with \
             {} outcomes, {} operations, {} faults injected ({} frames, {} pauses, {} partitions, \
             {} deaths, {} restarts), {} runs merged, {} split, {} clusters ended on every node, {} restarted nodes refused",
            held + failed.len() as u64,
            failed.len(),
            s.histories,
            s.events,
            s.litmus,
            s.outcomes.len(),
            s.operations,
            s.faults.sum(),
            s.faults.lost + s.faults.doubled + s.faults.held_up + s.faults.cut + s.faults.overflows,
            s.faults.pauses,
            s.faults.partitions,
            s.faults.deaths,
            s.faults.restarts,
            s.merged[0] + s.merged[1],
            s.split,
            s.ended,
            s.refused,
        )
    }
}
