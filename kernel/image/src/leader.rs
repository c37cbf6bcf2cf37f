//! The leading node's start: vCPU, machine, operating system.

use crate::backend::{Backend, BackendVcpu};
use crate::consoles::Consoles;
use crate::ending::{self, Class};
use crate::life;
use crate::link::Link;
use addr::NodeId;
use boot::Payload;
use machine::loader::{Boot, Plan};
use machine::{CpuPlace, Machine, MemoryError};
use node::Guest;
use node::view::View;
use platform::memory::Modules;
use platform::report::event;
use platform::{clock, rtc};
use vcpu::Vcpu;

/// The guest's processors: one, on this node.
fn places() -> alloc::vec::Vec<CpuPlace> {
    vec![CpuPlace { apic_id: 0, node: NodeId::LEADER }]
}

/// Builds the guest's machine and loads its operating system. The payload's
/// memory is free afterwards.
pub(crate) fn load(
    link: &mut Link,
    payload: &Payload<'_>,
    vcpu: &mut impl Vcpu,
    start_tsc: u64,
) -> Guest {
    let layout = link.node.cluster.as_ref().expect("formed").coherence().layout().clone();
    let config = machine::Config {
        layout: layout.clone(),
        cpus: places(),
        tsc_hz: clock::tsc_hz(),
        rtc_unix_seconds: rtc::unix_seconds().unwrap_or(0),
        start_tsc,
    };
    let machine = Machine::new(config)
        .unwrap_or_else(|e| ending::give_up(Class::Config, format_args!("machine: {e:?}")));
    let cmdline = payload.cmdline.and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("");
    let boot = Boot {
        kernel: payload.kernel.unwrap_or(&[]),
        initrd: payload.initrd.unwrap_or(&[]),
        cmdline,
    };
    match Plan::new(&boot, &machine) {
        Ok(mut plan) => {
            write(link, &mut plan);
            plan.enter(vcpu);
        }
        Err(error) => life::stop(link, Class::Config, &format!("{error}")),
    }
    let memory_bytes = layout.total_pages() << addr::PAGE_SHIFT;
    event("guest-start", format_args!("\"memory_bytes\":{memory_bytes}"));
    Guest::new(machine)
}

/// Writes the operating system into the guest's memory, page by page through
/// the protocol.
fn write(link: &mut Link, plan: &mut Plan<'_>) {
    loop {
        let cluster = link.node.cluster.as_mut().expect("formed");
        let missing = plan.write(&mut View { cluster, memory: &mut link.memory });
        let (gfn, access) = match missing {
            Ok(()) => return,
            Err(MemoryError::Pending { gfn, access }) => (gfn, access),
            Err(MemoryError::NotMemory) => {
                life::stop(link, Class::Config, "the kernel does not fit in the guest's memory")
            }
        };
        let mut memory = link.memory;
        loop {
            let cluster = link.node.cluster.as_mut().expect("formed");
            cluster.release_held(&mut memory);
            if cluster.access(&mut memory, gfn, access, 0) == coherence::Progress::Ready {
                break;
            }
            if !link.pump(None) {
                link.wait(None);
            }
        }
    }
}

/// Runs the guest on this node; never returns.
pub(crate) fn run(link: Link, modules: Modules, backend: Backend) -> ! {
    let root = link.node.cluster.as_ref().expect("formed").coherence().root();
    // SAFETY: the root is a nested table of four levels in the processor's
    // format, which maps only frames that the node lends to the guest.
    match unsafe { backend.new_vcpu(root) } {
        BackendVcpu::Amd(vcpu) => run_on(link, modules, vcpu),
        BackendVcpu::Intel(vcpu) => run_on(link, modules, vcpu),
    }
}

fn run_on(mut link: Link, modules: Modules, mut vcpu: impl Vcpu) -> ! {
    let start_tsc = clock::now_tsc();
    let mut guest = load(&mut link, &modules.payload(), &mut vcpu, start_tsc);
    let pool = link.node.cluster.as_mut().expect("formed").coherence_mut().pool_mut();
    for range in modules.into_regions() {
        pool.add(range.start, range.end);
    }
    let mut consoles = Consoles::open(start_tsc);
    life::lead(&mut link, &mut guest, &mut vcpu, &mut consoles)
}
