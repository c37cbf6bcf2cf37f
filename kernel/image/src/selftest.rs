//! Checks of the bare machine that no host test can make, run by the word
//! `selftest` of the command line; `selftest=<fault>` brings the node down in
//! a chosen way, so that the report of a crash can be tested.

use platform::{Platform, apic, clock, cpu, interrupts};

/// Whether something is as it should be.
type Check = fn(&mut Platform) -> bool;

/// Runs the test that the command line names; `false` if it names none.
pub(crate) fn run(command_line: &str, platform: &mut Platform) -> bool {
    let mut any = false;
    for word in command_line.split_ascii_whitespace() {
        match word.split_once('=') {
            None if word == "selftest" => checks(platform),
            Some(("selftest", "echo")) => echo(),
            Some(("selftest", fault)) => crash(fault),
            _ => continue,
        }
        any = true;
    }
    any
}

fn checks(platform: &mut Platform) {
    let checks: [(&str, Check); 7] = [
        ("a refused MSR write is survived", refused_msr),
        ("the timer wakes a halted node on time", timer_wakes),
        ("a PIC line fires again and again", pic_line),
        ("a message signalled interrupt arrives", message),
        ("the heap gives and takes", heap),
        ("the last frame can be written", last_frame),
        ("two MSI vectors differ", vectors),
    ];
    let mut passed = 0;
    for (name, check) in checks {
        let ok = check(platform);
        log::info!("selftest: {name}: {}", if ok { "ok" } else { "FAILED" });
        passed += u32::from(ok);
    }
    let all = checks.len();
    platform::report::event("selftest", format_args!("\"passed\":{passed},\"of\":{all}"));
}

fn refused_msr(_: &mut Platform) -> bool {
    // What one emulator lets pass the other refuses: an unaligned VM_HSAVE_PA
    // (QEMU) and a reserved bit of EFER (Bochs). Hardware refuses both.
    let efer = cpu::rdmsr_checked(cpu::msr::EFER);
    // SAFETY: what is refused changes nothing, and what passes is masked.
    let refused = unsafe {
        !cpu::wrmsr_checked(0xC001_0117, 1)
            || !cpu::wrmsr_checked(cpu::msr::EFER, efer.unwrap_or(0) | 1 << 63)
    };
    refused && efer.is_some() && cpu::rdmsr_checked(cpu::msr::EFER) == efer
}

fn timer_wakes(_: &mut Platform) -> bool {
    (0..20).all(|_| {
        let start = clock::now_tsc();
        let deadline = start + clock::ns_to_tsc(2_000_000);
        apic::set_timer(deadline);
        while !interrupts::take(interrupts::TIMER) {
            interrupts::halt_until_interrupt();
        }
        let late_ns = clock::tsc_to_ns(clock::now_tsc().saturating_sub(start));
        // Early by what calibration errs; late by what the host's scheduler does.
        (1_990_000..1_000_000_000).contains(&late_ns)
    })
}

fn pic_line(_: &mut Platform) -> bool {
    const TICK: u16 = 11_932; // 10 ms of the PIT's 1.193182 MHz
    // SAFETY: channel 0 of the PIT is nobody's on a node; mode 2, low byte
    // and high byte.
    unsafe {
        cpu::outb(0x43, 0b0011_0100);
        cpu::outb(0x40, TICK as u8);
        cpu::outb(0x40, (TICK >> 8) as u8);
    }
    interrupts::enable_line(0);
    let start = clock::now_tsc();
    for _ in 0..10 {
        while !interrupts::take_line(0) {
            interrupts::halt_until_interrupt();
        }
    }
    interrupts::disable_line(0);
    clock::tsc_to_ns(clock::now_tsc() - start) > 80_000_000
}

/// QEMU's `edu` device raises an interrupt when asked to; without one there
/// is nothing to check.
fn message(_: &mut Platform) -> bool {
    const RAISE: usize = 0x60;
    const ACKNOWLEDGE: usize = 0x64;
    let Some(edu) = platform::pci::devices().into_iter().find(|d| d.device == 0x11E8) else {
        log::info!("selftest: no edu device");
        return true;
    };
    edu.enable();
    let (Some(vector), Ok((registers, _))) = (interrupts::alloc_msi_vector(), edu.map_bar(0))
    else {
        return false;
    };
    if !edu.enable_msi(vector) {
        return false;
    }
    (0..3).all(|_| {
        // SAFETY: registers of the edu device's own BAR, mapped above.
        unsafe { registers.add(RAISE).cast::<u32>().write_volatile(1) };
        while !interrupts::take(vector) {
            interrupts::halt_until_interrupt();
        }
        // SAFETY: as above.
        unsafe { registers.add(ACKNOWLEDGE).cast::<u32>().write_volatile(1) };
        true
    })
}

/// Sends back what COM2 receives, asleep in between, until a `q`.
fn echo() {
    // SAFETY: nobody else uses COM2 during the test.
    let Some(mut port) = (unsafe { platform::serial::SerialPort::open(2) }) else {
        return log::warn!("selftest: there is no COM2");
    };
    port.enable_receive_interrupt();
    interrupts::enable_line(port.line());
    let mut halts = 0;
    loop {
        while let Some(byte) = port.try_read() {
            while !port.try_write(byte) {
                core::hint::spin_loop();
            }
            if byte == b'q' {
                interrupts::disable_line(port.line());
                return log::info!("selftest: echo ended after {halts} halts");
            }
        }
        interrupts::halt_until_interrupt();
        interrupts::take_line(port.line());
        halts += 1;
    }
}

fn heap(_: &mut Platform) -> bool {
    let before = platform::heap::usage();
    let block = vec![0x5Au8; 1 << 20];
    let used = platform::heap::usage().0 - before.0;
    let intact = block.iter().all(|&b| b == 0x5A);
    drop(block);
    intact && used >= 1 << 20 && platform::heap::usage() == before
}

fn last_frame(platform: &mut Platform) -> bool {
    use paging::HostMemory;
    let mut last = None;
    // Take the memory in large pieces to reach its end quickly.
    for pages in [1u64 << 18, 1 << 12, 1] {
        while let Some(first) = platform.boot_memory.alloc_frames(pages, 1) {
            last = last.max(Some(first.offset_by(pages - 1)));
        }
    }
    let Some(last) = last else { return false };
    log::info!("selftest: the last frame is {last:#x}");
    platform.memory.zero(last);
    let zero = platform.memory.is_zero(last);
    platform.memory.write_entry(last, 511, 7);
    zero && !platform.memory.is_zero(last) && platform.memory.read_entry(last, 511) == 7
}

fn vectors(_: &mut Platform) -> bool {
    let (a, b) = (interrupts::alloc_msi_vector(), interrupts::alloc_msi_vector());
    a.is_some() && b.is_some() && a != b
}

/// Lies among the constants.
static CONSTANT: [u8; 16] = [1; 16];

/// Ends the node by a fault of the chosen kind.
fn crash(fault: &str) {
    match fault {
        "panic" => panic!("selftest: a \"panic\" was asked for"),
        "null" => {
            // SAFETY: page 0 is absent: this ends in a report, not in a read.
            let _: u64 = unsafe { core::hint::black_box(0x10 as *const u64).read_volatile() };
        }
        "text" => {
            // SAFETY: code is read only: this ends in a report.
            unsafe { (crash as fn(&str) as *mut u8).write_volatile(0xC3) }
        }
        "rodata" => {
            // SAFETY: constants are read only: this ends in a report.
            unsafe { CONSTANT.as_ptr().cast_mut().write_volatile(0) }
        }
        "execute" => {
            static mut CODE: [u8; 16] = [0xC3; 16];
            // SAFETY: data is not executable: the call ends in a report.
            let code: extern "C" fn() = unsafe { core::mem::transmute(&raw mut CODE) };
            code();
        }
        "stack" => {
            overflow(0);
        }
        other => log::warn!("selftest: no fault is called {other}"),
    }
}

#[inline(never)]
#[expect(unconditional_recursion, reason = "it is to overflow the stack")]
fn overflow(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 128]);
    overflow(depth + 1) + room[(depth % 128) as usize]
}
