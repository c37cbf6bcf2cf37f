//! A process that touches more memory than its control group may have.

use crate::link::PAGE;
use crate::memory::Mapping;
use crate::words::Words;
use anyhow::{Result, anyhow};
use guests::samples::Samples;
use guests::workloads::{self, Ground, Plan};
use std::fmt::Arguments;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long pages are waited for that were told to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(300);
/// How long the TSC is compared with the clock.
const CALIBRATION: Duration = Duration::from_millis(500);

/// Touches `2 * local=` pages, in the control group whose folder is `group=`.
pub(crate) fn run(words: &Words) -> Result<()> {
    let pages = 2 * words.number("local")?;
    let mut process = Process {
        memory: Mapping::lazy(pages * PAGE)?,
        hz: tsc_hz(),
        group: words.required("group")?.into(),
        major_faults: 0,
    };
    let plan = Plan { touches: words.number("touches")? as u64 };
    let mut samples = Box::new(Samples::new());
    workloads::run(&mut process, plan, &mut samples).map_err(|reason| anyhow!(reason))?;
    println!(r#"@bench {{"name":"end"}}"#);
    Ok(())
}

/// The TSC's frequency by the system's clock.
fn tsc_hz() -> u64 {
    // SAFETY: reads a counter that the kernel lets processes read.
    let tsc = || unsafe { core::arch::x86_64::_rdtsc() };
    let (begun, first) = (Instant::now(), tsc());
    std::thread::sleep(CALIBRATION);
    let ticks = tsc() - first;
    (u128::from(ticks) * 1_000_000_000 / begun.elapsed().as_nanos()) as u64
}

/// The process's memory.
struct Process {
    memory: Mapping,
    hz: u64,
    group: PathBuf,
    major_faults: i64,
}

/// Faults so far for which a page was read from the swap device.
fn major_faults() -> i64 {
    // SAFETY: all zero is a value of this plain structure, and the call fills
    // it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage.ru_majflt
    }
}

impl Process {
    /// Of the first `pages` pages those that are in memory, mapped or not.
    fn resident(&self, pages: usize) -> Result<usize, &'static str> {
        let mut here = vec![0u8; pages];
        // SAFETY: the range is the mapping's, and the vector has a byte for
        // each of its pages.
        let told =
            unsafe { libc::mincore(self.memory.place(0).cast(), pages * PAGE, here.as_mut_ptr()) };
        if told != 0 {
            return Err("the kernel does not tell which pages are in memory");
        }
        Ok(here.iter().filter(|&&byte| byte & 1 != 0).count())
    }
}

// SAFETY: every page is this value's mapping, which lives as long as the
// process; only the workloads touch it.
unsafe impl Ground for Process {
    fn pages(&self) -> u64 {
        (self.memory.len() / PAGE) as u64
    }

    fn address(&self, page: u64) -> *mut u64 {
        self.memory.place(page as usize * PAGE).cast()
    }

    fn hz(&self) -> u64 {
        self.hz
    }

    /// Asks the control group to reclaim until no page is left, neither
    /// mapped nor in the swap cache (Linux
    /// Documentation/admin-guide/cgroup-v2.rst, `memory.reclaim`).
    fn send_away(&mut self, pages: u64) -> Result<(), &'static str> {
        let begun = Instant::now();
        loop {
            let here = self.resident(pages as usize)?;
            if here == 0 {
                return Ok(());
            }
            if begun.elapsed() > LEAVE_LIMIT {
                return Err("pages do not leave for the swap device");
            }
            // Reclaiming less than was asked for is an error to the kernel.
            let _ = std::fs::write(self.group.join("memory.reclaim"), (here * PAGE).to_string());
        }
    }

    fn begin(&mut self) {
        self.major_faults = major_faults();
    }

    fn missed(&mut self) -> Option<bool> {
        Some(major_faults() > self.major_faults)
    }

    fn print(&mut self, text: Arguments<'_>) {
        print!("{text}");
    }
}
