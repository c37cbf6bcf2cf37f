//! Round trips of the nodes' link, without any page fault.

use crate::plan::{Plan, REMOTE, SAMPLES};
use guests::hypercall::{Call, call};

/// Probes are not repeated; a link that loses more than one in so many is not
/// measured.
const LOST_SHARE: u64 = 10;
/// Payload of a probe that carries a page.
const PAGE: u64 = 4096;

pub(crate) fn measure(plan: &Plan) -> Result<(), &'static str> {
    round_trips(plan, "null_rtt", 0)?;
    round_trips(plan, "page_rtt", PAGE)?;
    if plan.rounds() == 1 {
        // Before any page is on its way: a slow link loses probes among them.
        plan.report_total("link", plan.faults, stream(plan)?, 0);
    }
    Ok(())
}

/// Pages one behind the other, as many at a time as the link likes: how many
/// ticks as many as the plan's faults take.
pub(crate) fn stream(plan: &Plan) -> Result<u64, &'static str> {
    plan.stage("link bandwidth");
    call(Call::Stream, PAGE, plan.faults, REMOTE).ok_or("the link lost a probe")
}

fn round_trips(plan: &Plan, name: &str, bytes: u64) -> Result<(), &'static str> {
    plan.stage(name);
    let mut lost = 0;
    let mut samples = SAMPLES.lock();
    samples.clear();
    for _ in 0..plan.faults {
        match call(Call::Probe, bytes, 1, REMOTE) {
            Some(ticks) => samples.push(ticks),
            None => lost += 1,
        }
        if lost * LOST_SHARE > plan.faults {
            return Err("the link loses probes");
        }
    }
    drop(samples);
    plan.report(name);
    Ok(())
}
