//! The price of an exit: what a guest pays for CPUID, for a port that nobody
//! listens at, and for the first touch of a page.
//!
//! It prints one line `@bench {json}` for each, times in TSC ticks; where the
//! emulator counts instructions, a tick is one. The word `hz=N` of its command
//! line is the TSC's frequency where there is no Pangaea to ask.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
guests::entry!(main);

#[cfg(target_os = "none")]
mod measure {
    use guests::boot::BootParams;
    use guests::hypercall::{Call, call};
    use guests::memory::Memory;
    use guests::println;
    use guests::samples::Samples;
    use spin::Mutex;
    use x86_64::instructions::port::Port;

    /// Samples of each measure.
    const COUNT: u64 = 2000;
    /// Before them, so that everything on the path is there.
    const WARM_UP: u64 = 200;
    /// A port of no device ("POST code").
    const PORT: u16 = 0x80;

    static SAMPLES: Mutex<Samples> = Mutex::new(Samples::new());

    pub(crate) fn run(boot: &BootParams) -> Result<(), &'static str> {
        let word = |word: &str| word.strip_prefix("hz=").and_then(|hz| hz.parse().ok());
        let hz = match boot.command_line().split_ascii_whitespace().find_map(word) {
            Some(hz) => hz,
            None => call(Call::TscHz, 0, 0, 0).ok_or("the TSC has no frequency")?,
        };
        measure(hz, "cpuid_exit", |_| {
            core::hint::black_box(core::arch::x86_64::__cpuid(0));
        });
        measure(hz, "port_exit", |_| {
            // SAFETY: no device has the port, so the write does nothing.
            unsafe { Port::new(PORT).write(0u8) };
        });
        let memory = Memory::find(boot);
        let region = memory.regions().max_by_key(|r| r.pages()).ok_or("there is no memory")?;
        if region.pages() < COUNT + WARM_UP {
            return Err("there is too little memory");
        }
        measure(hz, "fresh_page", |i| {
            region.write(i, 1);
        });
        measure(hz, "nothing", |_| {});
        Ok(())
    }

    fn measure(hz: u64, name: &str, mut exit: impl FnMut(u64)) {
        let mut samples = SAMPLES.lock();
        samples.clear();
        (0..WARM_UP).for_each(&mut exit);
        let mut total = 0;
        for i in WARM_UP..WARM_UP + COUNT {
            let start = guests::cpu::tsc();
            exit(i);
            let ticks = guests::cpu::tsc() - start;
            samples.push(ticks.max(1));
            total += ticks;
        }
        println!(r#"@bench {{"name":"{name}","hz":{hz},{}}}"#, samples.distribution());
        println!(
            r#"@bench {{"name":"{name}","hz":{hz},"pages":{COUNT},"ticks":{total},"faults":{COUNT}}}"#
        );
    }
}

#[cfg(target_os = "none")]
fn main(boot: &'static guests::boot::BootParams) -> ! {
    guests::entry::end(measure::run(boot))
}

/// On the host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this guest is built for x86_64-unknown-none: cargo pangaea bench peers");
}
