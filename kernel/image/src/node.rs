//! A node's life: from `BootInfo` to power off.

use boot::BootInfo;

/// Called by `boot` in long mode on the boot stack.
#[unsafe(no_mangle)]
fn pangaea_main(info: &'static BootInfo) -> ! {
    // SAFETY: first thing on the only processor that runs.
    unsafe { platform::serial::start_log(log::LevelFilter::Info) };
    log::info!("Pangaea {}, booted by {:?}", env!("CARGO_PKG_VERSION"), info.method);
    log::info!("command line: {}", info.command_line.as_str());
    // SAFETY: once, on the boot processor, with the boot's own `BootInfo`.
    let started = unsafe { platform::start(info, platform::heap::default_bytes) };
    let platform = started.unwrap_or_else(|e| panic!("the node cannot start: {e:?}"));
    log::info!(
        "RAM {} KiB, free {} KiB",
        platform.ram_bytes >> 10,
        platform.boot_memory.free_frames() << 2
    );
    for d in platform::pci::devices() {
        log::info!(
            "PCI {} {:04x}:{:04x} class {:02x}{:02x}",
            d.address,
            d.vendor,
            d.device,
            d.class,
            d.subclass
        );
    }
    platform::power::power_off()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    platform::report::panic(info)
}
