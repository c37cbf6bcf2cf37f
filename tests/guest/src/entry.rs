//! From the loader to a guest's main function, and the end by a panic.

use core::panic::PanicInfo;

/// Makes `fn main(boot: &'static BootParams) -> !` the guest's main function.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // The loader has set RSP, and RSI to the boot parameters.
        core::arch::global_asm!(
            ".globl _start",
            "_start:",
            "cld",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, rsi",
            "call {main}",
            "ud2",
            main = sym __guest_main,
        );

        extern "C" fn __guest_main(boot: *const $crate::boot::BootParams) -> ! {
            let main: fn(&'static $crate::boot::BootParams) -> ! = $main;
            $crate::serial::init();
            // SAFETY: the loader gives the address of the parameters, which
            // nothing ever changes.
            main(unsafe { &*boot })
        }
    };
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::println!("guest panic: {info}");
    crate::cpu::stop()
}

/// The end of a guest that measures: says that it has measured everything, or
/// why not, and switches the machine off.
pub fn end(measured: Result<(), &'static str>) -> ! {
    match measured {
        Ok(()) => crate::println!(r#"@bench {{"name":"end"}}"#),
        Err(reason) => crate::println!(r#"@bench {{"name":"error","reason":"{reason}"}}"#),
    }
    crate::cpu::power_off()
}
