//! What must hold of the whole cluster, looked at from outside.

use crate::failure::{Class, Failure};
use crate::host::Host;
use crate::oracle::{self, Oracle};
use addr::{Access, Gfn, NodeId};
use coherence::directory::Holding;
use paging::PageState;
use std::collections::HashSet;

fn wrong(gfn: Gfn, what: String) -> Failure {
    Failure::about(Class::Correctness, gfn, what)
}

/// Checks one page at every node: each copy that can be read holds the last
/// write, one master at most, an exclusive copy is the only one.
///
/// # Errors
/// What does not hold.
pub fn page(hosts: &[Host], oracle: &Oracle, gfn: Gfn) -> Result<(), Failure> {
    let (mut masters, mut copies, mut exclusive) = (0, 0, 0);
    for host in hosts.iter().filter(|h| h.alive) {
        let Some(cluster) = &host.node.cluster else { continue };
        let coherence = cluster.coherence();
        let entry = coherence.entry(&host.memory, gfn);
        masters += usize::from(entry.state.is_master() && !entry.leaving);
        if let Some(frame) = coherence.look(&host.memory, gfn, Access::Read) {
            copies += 1;
            exclusive += usize::from(entry.state == PageState::Exclusive);
            let found = oracle::marks(&host.memory, frame);
            let who = format_args!("a look at host {}", host.index);
            oracle.check(gfn, found, who)?;
            oracle.check_words(gfn, &host.memory, frame, who)?;
        }
    }
    if masters > 1 {
        return Err(wrong(gfn, format!("page {:#x} has {masters} masters", gfn.0)));
    }
    if exclusive > 0 && copies > 1 {
        let what = format!("page {:#x} is exclusive among {copies} copies", gfn.0);
        return Err(wrong(gfn, what));
    }
    Ok(())
}

/// Checks that every frame of a node is in exactly one place.
///
/// # Errors
/// How many are missing or too many.
pub fn frames(host: &Host) -> Result<(), Failure> {
    let Some(cluster) = &host.node.cluster else { return Ok(()) };
    let coherence = cluster.coherence();
    let mut seen = HashSet::new();
    let (mut masters, mut replicas) = (0, 0);
    let mut gfn = Gfn(0);
    while gfn < coherence.layout().end() {
        let entry = coherence.entry(&host.memory, gfn);
        masters += u64::from(entry.state.is_master());
        replicas += u64::from(entry.state == PageState::Shared);
        if let Some(frame) = entry.frame
            && !seen.insert(frame)
        {
            return Err(wrong(gfn, format!("host {}: {frame:?} holds two pages", host.index)));
        }
        gfn = gfn.offset_by(1);
    }
    let counted = (coherence.masters(), coherence.replicas());
    if counted != (masters, replicas) {
        let held = (masters, replicas);
        let what = format!("host {} counts {counted:?} pages, but has {held:?}", host.index);
        return Err(Failure::new(Class::Correctness, what));
    }
    let (nested, directory) = coherence.table_frames();
    let (free, held) = (coherence.free_frames(), seen.len() as u64);
    let away = coherence.frames_in_transactions();
    let sum = free + held + nested + directory + away;
    if sum == host.total_frames {
        return Ok(());
    }
    let what = format!(
        "host {} has {} frames, but {free} free, {held} held, {nested} and {directory} tables, \
         {away} in transactions",
        host.index, host.total_frames
    );
    Err(Failure::new(Class::Correctness, what))
}

/// Checks directories and nodes against each other when nothing is open.
///
/// # Errors
/// The first page about which they do not agree.
pub fn agreement(hosts: &[Host]) -> Result<(), Failure> {
    let Some(layout) = hosts[0].node.cluster.as_ref().map(|c| c.coherence().layout()) else {
        return Ok(());
    };
    let host_of =
        |id: NodeId| hosts.iter().find(|h| h.id() == Some(id)).expect("a member of the cluster");
    let state = |id: NodeId, gfn: Gfn| {
        let host = host_of(id);
        let coherence = host.node.cluster.as_ref().expect("formed").coherence();
        coherence.entry(&host.memory, gfn).state
    };
    let nodes = layout.nodes() as u16;
    let mut gfn = Gfn(0);
    while gfn < layout.end() {
        if let Some((home, index)) = layout.home(gfn) {
            let host = host_of(home);
            let directory = host.node.cluster.as_ref().expect("formed").coherence().directory();
            let entry = directory.get(&host.memory, index);
            let good = |id: NodeId| match entry.holding {
                Holding::Dormant => state(id, gfn) == PageState::Invalid,
                Holding::Exclusive(o) if o == id => state(id, gfn) == PageState::Exclusive,
                Holding::Exclusive(_) => state(id, gfn) == PageState::Invalid,
                Holding::Shared(o, _) if o == id => state(id, gfn) == PageState::Owned,
                Holding::Shared(_, s) => match state(id, gfn) {
                    PageState::Invalid => true,
                    PageState::Shared => s.contains(id),
                    PageState::Owned | PageState::Exclusive => false,
                },
            };
            if let Some(id) = (0..nodes).map(NodeId).find(|&id| entry.busy || !good(id)) {
                let what = format!("{entry:?} at home, {:?} at {id}", state(id, gfn));
                return Err(wrong(gfn, format!("page {:#x}: {what}", gfn.0)));
            }
        }
        gfn = gfn.offset_by(1);
    }
    Ok(())
}
