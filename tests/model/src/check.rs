//! The invariants, in the order of the protocol's documentation.

use crate::config::Config;
use crate::state::State;
use addr::NodeId;
use coherence::Kind;
use coherence::directory::Holding;
use coherence::observe::Claim;
use paging::PageState;

/// Checks all that must hold of every state.
///
/// # Errors
/// What does not hold.
pub fn state(config: &Config, state: &State) -> Result<(), String> {
    (0..config.pages.len()).try_for_each(|page| {
        copies(state, page)?;
        masters(config, state, page)?;
        agreement(config, state, page)
    })?;
    if state.flights.is_empty() && state.releases.is_empty() && state.dead.is_none() {
        quiescence(state)?;
    }
    Ok(())
}

fn running(state: &State) -> impl Iterator<Item = (usize, &crate::local::Local)> {
    state.locals.iter().enumerate().filter(|(n, _)| state.runs(*n)).map(|(n, l)| (n, &**l))
}

/// Invariants 1 and 2: a writable copy is the only one, and whatever can be
/// read is the last write.
fn copies(state: &State, page: usize) -> Result<(), String> {
    let last = state.last[page];
    let (mut copies, mut exclusive) = (0, 0);
    for (node, local) in running(state) {
        let look = &local.looks[page];
        let Some(value) = look.readable else { continue };
        copies += 1;
        exclusive += usize::from(look.entry.state == PageState::Exclusive);
        if value != last {
            return Err(format!("node {node} reads {value} in page {page}, written was {last}"));
        }
    }
    if exclusive > 0 && copies > 1 {
        return Err(format!("page {page} is exclusive among {copies} copies"));
    }
    for flight in &state.flights {
        if let Some((frame, value)) = flight.page
            && state.runs(flight.from.into())
            && state.locals[usize::from(flight.from)].value(frame) != value
        {
            return Err(format!("the frame of {:?} changed under way", flight.message));
        }
    }
    Ok(())
}

/// Invariant 3: one master of each page that is not dormant, here or on its
/// way, and the last write is not lost.
fn masters(config: &Config, state: &State, page: usize) -> Result<(), String> {
    let gfn = config.gfn(page);
    let (mut sure, mut maybe) = (0, 0);
    for (_, local) in running(state) {
        match local.looks[page].claim {
            Claim::None => {}
            Claim::Maybe => maybe += 1,
            Claim::Master => sure += 1,
        }
    }
    for flight in state.flights.iter().filter(|f| f.concerns(gfn)) {
        match flight.message.kind {
            Kind::Data if flight.message.exclusive => sure += 1,
            Kind::ZeroGrant | Kind::Move => sure += 1,
            Kind::Grant => maybe += 1,
            _ => {}
        }
    }
    if sure > 1 {
        return Err(format!("page {page} has {sure} masters"));
    }
    if state.dead.is_some() {
        return Ok(());
    }
    let home = &state.locals[usize::from(config.pages[page].0)].looks[page];
    let entry = home.directory.expect("the home has an entry");
    if entry.holding != Holding::Dormant && sure + maybe == 0 {
        return Err(format!("page {page} has no master"));
    }
    let here = (page as u8, state.last[page]);
    let lost = here.1 != 0
        && !state.locals.iter().any(|local| local.contents.contains(&here))
        && !state.flights.iter().any(|f| f.concerns(gfn) && f.page.is_some_and(|p| p.1 == here.1));
    if lost {
        return Err(format!("the last write of page {page} is lost"));
    }
    Ok(())
}

/// Invariant 5: directory and nodes agree about a page with nothing open.
fn agreement(config: &Config, state: &State, page: usize) -> Result<(), String> {
    let gfn = config.gfn(page);
    let idle = state.locals.iter().all(|local| local.looks[page].idle)
        && !state.flights.iter().any(|f| f.concerns(gfn));
    if !idle || state.dead.is_some() {
        return Ok(());
    }
    let home = &state.locals[usize::from(config.pages[page].0)].looks[page];
    let entry = home.directory.expect("the home has an entry");
    for (node, local) in running(state) {
        let id = NodeId(node as u16);
        let here = local.looks[page].entry.state;
        let good = match entry.holding {
            Holding::Dormant => here == PageState::Invalid,
            Holding::Exclusive(owner) if owner == id => here == PageState::Exclusive,
            Holding::Exclusive(_) => here == PageState::Invalid,
            Holding::Shared(owner, _) if owner == id => here == PageState::Owned,
            Holding::Shared(_, sharers) => match here {
                PageState::Invalid => true,
                PageState::Shared => sharers.contains(id),
                PageState::Owned | PageState::Exclusive => false,
            },
        };
        if entry.busy || !good {
            return Err(format!("page {page}: {entry:?} at home, {here:?} at node {node}"));
        }
    }
    Ok(())
}

/// Invariant 4: nobody waits for what never comes. Messages that are put off
/// come again when the vCPU gets on.
fn quiescence(state: &State) -> Result<(), String> {
    let waits = |local: &crate::local::Local| !local.quiet && !local.keeps_others_waiting();
    if let Some((node, _)) = running(state).find(|(_, local)| waits(local))
        && !running(state).any(|(_, local)| local.keeps_others_waiting())
    {
        return Err(format!("node {node} waits, and nothing is under way"));
    }
    Ok(())
}
