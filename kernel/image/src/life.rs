//! The node's main loop, for those that lend memory and for the one that
//! leads.

use crate::consoles::Consoles;
use crate::ending::{self, Class};
use crate::identity::Mac;
use crate::link::{Link, Taken};
use fabric::{Event, StopReason};
use node::{End, Guest, Step};
use platform::clock;
use platform::report::{Json, event};
use vcpu::Vcpu;

/// How long a stopping node waits for the others to hear of it.
const STOP_NS: u64 = 2_000_000_000;
/// How long a node that was told to stop goes on answering, should its answer
/// be lost: several of the teller's repetitions.
const LINGER_NS: u64 = 500_000_000;

/// Most exits in a row between which this node looks at nothing but whether
/// something has come.
const AGAIN_MAX: u32 = 64;

/// Looks at what the fabric says; does not return if the cluster is over.
fn watch(link: &mut Link, mut guest: Option<&mut Guest>) {
    while let Some(happened) = link.event(guest.as_deref_mut()) {
        match happened {
            Event::NodeJoined { known, of } => {
                event("joined", format_args!("\"nodes\":{known},\"of\":{of}"));
            }
            Event::JoinTimeout { present, of } if present == of => ending::give_up(
                Class::JoinTimeout,
                format_args!(
                    "all {of} nodes are here, but none has the guest's kernel: boot one of them \
                     with a payload"
                ),
            ),
            Event::JoinTimeout { present, of } => ending::give_up(
                Class::JoinTimeout,
                format_args!(
                    "{present} of {of} nodes are here: start the others, or boot with \
                     nodes={present}"
                ),
            ),
            Event::Refused { by, reason } => {
                let (class, text) = ending::refusal(reason);
                if link.node.fabric().membership().is_none() {
                    ending::give_up(class, format_args!("{text} (the other is {})", Mac(by)));
                }
                log::warn!("a node was refused: {reason:?}, {}", Mac(by));
            }
            Event::PeerLost { node, epoch, status, .. } => lost(link, node, epoch, status.masters),
            Event::Stopped { by, reason } => {
                log::info!("{by} ends the cluster: {reason:?}");
                if let StopReason::Fatal(code) = reason {
                    ending::fatal(
                        Class::Peer,
                        format_args!("{by} has stopped the cluster (code {code})"),
                        "",
                    );
                }
                // Answer those that have not heard of it.
                drain(link, LINGER_NS);
                ending::summarise(link);
                ending::follow(reason);
            }
            Event::Formed | Event::StopDone | Event::ProbeReply { .. } => {}
        }
    }
    if let Some(mark) = link.node.mark() {
        ending::stages(&link.node, Some(mark));
        link.node.marked();
    }
    if let Some(text) = link.node.cluster.as_ref().and_then(ending::describe) {
        stop(link, Class::Protocol, &text);
    }
}

/// A peer is gone, and pages with it: nothing may go on.
fn lost(link: &mut Link, node: addr::NodeId, epoch: u64, masters: u32) -> ! {
    let homed = link
        .node
        .cluster
        .as_ref()
        .map_or(0, |c| c.coherence().directory().mastered_by(&link.memory, node));
    let fields = format!(
        ",\"node\":{},\"epoch\":\"{epoch:016x}\",\"pages\":{masters},\"pages_homed_here\":{homed}",
        node.0
    );
    let text = format!(
        "{node} is lost in epoch {epoch:016x}, and with it {masters} pages of the guest's \
         memory; the guest is stopped"
    );
    ending::fatal(Class::NodeLost, format_args!("{text}"), &fields);
    tell(link, StopReason::Fatal(Class::NodeLost.code()));
    drain(link, STOP_NS);
    ending::summarise(link);
    ending::off()
}

/// Reports a fault of this node and ends the cluster.
pub(crate) fn stop(link: &mut Link, class: Class, text: &str) -> ! {
    ending::fatal(class, format_args!("{text}"), "");
    tell(link, StopReason::Fatal(class.code()));
    drain(link, STOP_NS);
    ending::summarise(link);
    ending::off()
}

/// Tells the other nodes that it is over.
fn tell(link: &mut Link, reason: StopReason) {
    let now_ns = link.node.clock().ns(clock::now_tsc());
    link.node.fabric_mut().stop(now_ns, reason);
}

/// Goes on with the fabric until every peer has heard that it is over, at
/// most `limit_ns`.
fn drain(link: &mut Link, limit_ns: u64) {
    let end = clock::now_tsc() + clock::ns_to_tsc(limit_ns);
    while clock::now_tsc() < end {
        link.pump(None);
        while let Some(happened) = link.event(None) {
            if happened == Event::StopDone {
                return;
            }
        }
        link.wait(Some(end));
    }
}

/// Waits until the cluster has formed.
pub(crate) fn form(link: &mut Link) {
    while link.node.fabric().membership().is_none() {
        let any = link.pump(None);
        watch(link, None);
        if !any {
            link.wait(None);
        }
    }
    watch(link, None);
}

/// Lends this node's memory until the cluster ends.
pub(crate) fn lend(link: &mut Link) -> ! {
    loop {
        let any = link.pump(None);
        watch(link, None);
        if !any {
            link.wait(None);
        }
    }
}

/// Runs the guest until it ends, and the cluster with it.
pub(crate) fn lead(
    link: &mut Link,
    guest: &mut Guest,
    vcpu: &mut impl Vcpu,
    consoles: &mut Consoles,
) -> ! {
    let run = |link: &mut Link, guest: &mut Guest, vcpu: &mut _| {
        let mut memory = link.memory;
        link.node.run_guest(guest, vcpu, &mut memory, clock::now_tsc)
    };
    let mut interrupted = false;
    loop {
        let quiet = link.end_lull();
        link.pump(Some(guest));
        if quiet {
            link.hurry();
        } else if interrupted {
            link.refresh();
        }
        interrupted = false;
        watch(link, Some(guest));
        consoles.pump(&mut guest.machine);
        link.set_timer(guest.upcoming_deadline(clock::now_tsc()));
        let mut step = run(link, guest, vcpu);
        for _ in 0..AGAIN_MAX {
            if step != Step::Again || !link.is_idle() {
                break;
            }
            step = run(link, guest, vcpu);
        }
        loop {
            match step {
                Step::Blocked => wait_for_answer(link, guest, consoles),
                Step::Unsettled => {
                    link.settle(guest);
                    watch(link, Some(guest));
                }
                _ => break,
            }
            step = run(link, guest, vcpu);
        }
        match step {
            Step::Ran | Step::Again | Step::Blocked | Step::Unsettled => {}
            Step::Interrupted => {
                interrupted = true;
                link.take_interrupts();
                consoles.interrupted();
            }
            Step::Halted => {
                if consoles.backlog(&guest.machine) {
                    continue;
                }
                link.wait(guest.deadline());
                consoles.interrupted();
            }
            Step::Ended(end) => ended(link, guest, consoles, end),
        }
    }
}

/// Waits for a frame that may be what the guest waits for. The request leaves
/// first; all else is done while it is on its way, so that nothing stands
/// between the answer and the guest.
fn wait_for_answer(link: &mut Link, guest: &mut Guest, consoles: &mut Consoles) {
    link.send(Some(guest));
    link.settle(guest);
    link.meanwhile(guest);
    link.tick();
    // What is fetched ahead, or due again, leaves before this node may halt.
    link.send(Some(guest));
    consoles.pump(&mut guest.machine);
    // What is wrong is seen here, for an answer may let the guest go on at once.
    watch(link, Some(guest));
    link.lull(guest.exited_at(), guest.deadline());
    link.wait_for_answer(guest.exited_at());
    let taken = link.take(Some(guest));
    if taken == Taken::Frames && link.is_to_finish(guest) {
        link.finish(guest);
        consoles.interrupted();
    }
    if taken != Taken::PageOnly {
        watch(link, Some(guest));
    }
}

/// The guest is over: so is the cluster.
fn ended(link: &mut Link, guest: &mut Guest, consoles: &mut Consoles, end: End) -> ! {
    let patience = clock::now_tsc() + clock::ns_to_tsc(STOP_NS);
    while consoles.backlog(&guest.machine) && clock::now_tsc() < patience {
        consoles.pump(&mut guest.machine);
    }
    link.node.count_fault(guest);
    ending::exits(guest.machine.counters());
    match end {
        End::PowerOff | End::Reset => {
            let how = if end == End::PowerOff { "power-off" } else { "reset" };
            event("guest-end", format_args!("\"how\":\"{how}\""));
        }
        End::Dead(death) => {
            event("guest-end", format_args!("\"how\":\"died\",\"reason\":\"{}\"", Json(death)));
            stop(link, Class::Guest, &format!("the guest died: {death}"));
        }
    }
    let reason = if end == End::Reset { StopReason::Reset } else { StopReason::PowerOff };
    tell(link, reason);
    drain(link, STOP_NS);
    ending::summarise(link);
    ending::follow(reason)
}
