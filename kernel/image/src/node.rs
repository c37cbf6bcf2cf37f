//! A node's life: from `BootInfo` to power off.

use boot::BootInfo;

/// Called by `boot` in long mode on the boot stack.
#[unsafe(no_mangle)]
fn pangaea_main(info: &'static BootInfo) -> ! {
    // SAFETY: first thing on the only processor that runs.
    unsafe { platform::serial::start_log(log::LevelFilter::Info) };
    log::info!("Pangaea {}, booted by {:?}", env!("CARGO_PKG_VERSION"), info.method);
    log::info!("command line: {}", info.command_line.as_str());
    log::info!(
        "usable memory: {} KiB in {} ranges",
        info.usable.total() >> 10,
        info.usable.as_slice().len()
    );
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    platform::serial::enter_panic();
    platform::serial::print_line(format_args!("{info}"));
    loop {
        core::hint::spin_loop();
    }
}
