//! A node's life: from `BootInfo` to power off.

use crate::selftest;
use boot::BootInfo;
use platform::{Platform, acpi, apic, clock, cpu, heap, pci, power, report, rtc, serial};

/// What identifies this image beside its version.
const BUILD_ID: &str = env!("PANGAEA_BUILD_ID");
const VERSION: &str = env!("CARGO_PKG_VERSION");

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
    selftest::run(info.command_line.as_str(), &mut platform);
    report::event("off", format_args!("\"uptime_us\":{}", clock::uptime_us()));
    power::power_off()
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
    let (memory, fixed) = (platform.ram_bytes, platform.ram_bytes.saturating_sub(free_bytes));
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
