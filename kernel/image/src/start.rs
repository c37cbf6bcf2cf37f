//! A node's start: from `BootInfo` to a formed cluster.

use crate::backend::Backend;
use crate::ending::{self, Class};
use crate::link::Link;
use crate::{BUILD_ID, VERSION, identity, leader, life, selftest};
use addr::NodeId;
use boot::BootInfo;
use nic::{LandingPage, Probed};
use node::{Clock, Cluster, Node, Settings};
use paging::{Format, FramePool};
use platform::{Platform, acpi, apic, clock, cpu, heap, pci, power, report, rtc, serial};

/// Called by `boot` in long mode on the boot stack.
#[unsafe(no_mangle)]
fn pangaea_main(info: &'static BootInfo) -> ! {
    // SAFETY: first thing on the only processor that runs.
    unsafe { serial::start_log(log::LevelFilter::Info) };
    log::info!("Pangaea {VERSION}, build {BUILD_ID}, booted by {:?}", info.method);
    log::info!("command line: {}", info.command_line.as_str());
    // SAFETY: once, on the boot processor, with the boot's own `BootInfo`.
    let started = unsafe { platform::start(info, heap::default_bytes) };
    let mut platform = started.unwrap_or_else(|e| panic!("the node cannot start: {e:?}"));
    report::set_end(power::power_off);
    describe(info, &platform);
    if selftest::run(info.command_line.as_str(), &mut platform) {
        ending::off();
    }
    let line = info.command_line.as_str();
    let settings = Settings::parse(line, |word| log::warn!("not understood: {word}"))
        .unwrap_or_else(|bad| ending::give_up(Class::Config, format_args!("{bad}")));
    join(&settings, platform)
}

/// Starts what the node needs of its hardware, joins the cluster and takes up
/// the node's part in it.
fn join(settings: &Settings<'_>, mut platform: Platform) -> ! {
    let backend = Backend::start(&mut platform);
    let nic = link_device(settings, &mut platform);
    let page = platform.boot_memory.alloc_frames(1, 1);
    let spare = platform.boot_memory.alloc_frames(1, 1);
    let spare = spare.map(|frame| LandingPage::new(&platform.memory, frame));
    let modules: u64 = platform.modules.regions().iter().map(|r| r.count()).sum();
    let frames = platform.boot_memory.free_frames() + modules;
    let payload = platform.modules.payload();
    let has_payload = payload.kernel.is_some();
    let config = identity::configure(settings, nic.as_ref(), frames, has_payload);
    let clock = Clock::new(clock::tsc_hz());
    let mut node = Node::new(config, clock, clock::now_tsc());
    node.fabric_mut().set_probe_page(page);
    let mut link = Link::new(node, platform.memory, nic, spare, settings);
    life::form(&mut link);

    let mut pool = FramePool::with_room_for(frames);
    for range in platform.boot_memory.into_regions() {
        pool.add(range.start, range.end);
    }
    for (start, end) in link.landing_frames() {
        pool.know(start, end);
    }
    let me = take_part(&mut link, pool, backend.format());
    if me != NodeId::LEADER {
        let coherence = link.node.cluster.as_mut().expect("formed").coherence_mut();
        for range in platform.modules.into_regions() {
            coherence.pool_mut().add(range.start, range.end);
        }
        life::lend(&mut link)
    }
    leader::run(link, platform.modules, backend)
}

/// Starts the NIC. A node that is alone does without if there is none.
fn link_device(settings: &Settings<'_>, platform: &mut Platform) -> Option<Probed> {
    let options = nic::Options { wanted: settings.nic, mtu_limit: settings.mtu };
    match nic::probe(&pci::devices(), &options, &mut platform.boot_memory) {
        Ok(probed) => {
            log::info!("NIC {:?} at {}", probed.kind, probed.device.address);
            Some(probed)
        }
        Err(error) if settings.nodes == 1 => {
            log::info!("alone without a NIC: {error}");
            None
        }
        Err(error) => ending::give_up(Class::Nic, format_args!("{error}")),
    }
}

/// Makes this node's part in the cluster out of its free frames.
fn take_part(link: &mut Link, pool: FramePool, format: Format) -> NodeId {
    let membership = link.node.fabric().membership().expect("formed").clone();
    let cluster = Cluster::new(&membership, pool, format, &mut link.memory);
    let cluster =
        cluster.unwrap_or_else(|why| ending::give_up(Class::Memory, format_args!("{why}")));
    let lent = cluster.coherence().layout().total_pages() << addr::PAGE_SHIFT;
    report::event(
        "formed",
        format_args!(
            "\"nodes\":{},\"epoch\":\"{:016x}\",\"me\":{},\"mtu\":{},\"guest_bytes\":{lent}",
            membership.members.len(),
            membership.epoch,
            membership.me.0,
            membership.mtu
        ),
    );
    link.node.cluster = Some(cluster);
    membership.me
}

/// Logs what the node is made of.
fn describe(info: &BootInfo, platform: &Platform) {
    let free_bytes = platform.boot_memory.free_frames() << 12;
    log::info!("RAM {} MiB, free {} MiB", platform.ram_bytes >> 20, free_bytes >> 20);
    for (i, module) in info.modules().iter().enumerate() {
        let (start, len) = (module.range.start, module.range.len());
        log::info!("module {i}: {len} bytes at {start:#x}, {:?}", module.name.as_str());
    }
    let payload = platform.modules.payload();
    let len = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    if let Some(kernel) = payload.kernel {
        let initrd = len(payload.initrd);
        log::info!("payload: kernel {} bytes, initrd {initrd} bytes", kernel.len());
    }
    let cpus = acpi::get().map_or(1, |t| t.cpus.iter().filter(|c| c.enabled).count());
    let mode = if apic::is_x2apic() { "x2APIC" } else { "xAPIC" };
    log::info!("{cpus} processors, {} MHz TSC, {mode} {}", clock::tsc_hz() / 1_000_000, apic::id());
    log::info!("{} bits of physical address", cpu::physical_address_bits());
    if let Some(seconds) = rtc::unix_seconds() {
        log::info!("calendar clock: {seconds} s since 1970");
    }
    for d in pci::devices() {
        log::info!(
            "PCI {} {:04x}:{:04x} class {:02x}{:02x} line {:?} msix {}",
            d.address,
            d.vendor,
            d.device,
            d.class,
            d.subclass,
            d.interrupt_line(),
            d.has_msix()
        );
    }
    // The modules' memory is lent as well, once the guest is loaded.
    let lent_later: u64 = platform.modules.regions().iter().map(|r| r.count() << 12).sum();
    let memory = platform.ram_bytes;
    let fixed = memory.saturating_sub(free_bytes + lent_later);
    report::event(
        "up",
        format_args!(
            "\"version\":\"{VERSION}\",\"build\":\"{BUILD_ID}\",\"memory_bytes\":{memory},\"fixed_bytes\":{fixed}"
        ),
    );
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    report::panic(info)
}
