//! What is measured and where, and the steps that all measures share.

use guests::boot::BootParams;
use guests::hypercall::{Call, call};
use guests::memory::{Memory, Region};
use guests::println;
use guests::samples::{SAMPLES_MAX, Samples};
use spin::Mutex;

/// The samples of the measure that is being made.
pub(crate) static SAMPLES: Mutex<Samples> = Mutex::new(Samples::new());

/// Samples of a measure where the command line says nothing.
const FAULTS_DEFAULT: u64 = 10_000;
/// The node whose pages are measured.
pub(crate) const REMOTE: u64 = 1;
/// The node that the guest runs on.
const LOCAL: u64 = 0;

/// Names of the points at which the nodes print their histograms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(crate) enum Mark {
    Discard = 0,
    FirstTouch = 1,
    Read = 2,
    Upgrade = 3,
    Write = 4,
    Floor = 5,
    Evict = 6,
    Pressure = 7,
    OwnRead = 8,
}

/// What is to be measured.
pub(crate) struct Plan {
    /// Samples of each measure.
    pub(crate) faults: u64,
    /// Leaves out what needs all of the memory.
    pub(crate) short: bool,
    /// Pages that are touched in sequence at most.
    pub(crate) sequence: u64,
    /// All memory.
    pub(crate) memory: Memory,
    /// Memory whose home is the other node.
    pub(crate) remote: Region,
    /// Memory whose home is this node.
    pub(crate) own: Region,
    /// Frames of this node that were free at the start.
    pub(crate) frames: u64,
    hz: u64,
}

impl Plan {
    /// How often bandwidths are measured where there is enough to measure.
    pub(crate) const ROUNDS: usize = 5;
    /// Where there are fewer faults a page takes long, or none is timed.
    const ROUNDS_FROM: u64 = 1_000;

    /// How often bandwidths are measured; an odd number.
    pub(crate) const fn rounds(&self) -> usize {
        if self.short || self.faults < Plan::ROUNDS_FROM { 1 } else { Plan::ROUNDS }
    }

    pub(crate) fn new(boot: &BootParams) -> Result<Plan, &'static str> {
        let mut faults = FAULTS_DEFAULT;
        let mut short = false;
        let mut sequence = u64::MAX;
        for word in boot.command_line().split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("faults", n)) => faults = n.parse().map_err(|_| "faults= needs a number")?,
                Some(("sequence", n)) => {
                    sequence = n.parse().map_err(|_| "sequence= needs a number")?;
                }
                None if word == "short" => short = true,
                _ => {}
            }
        }
        let nodes = call(Call::Nodes, 0, 0, 0).ok_or("there is no Pangaea below")?;
        let hz = call(Call::TscHz, 0, 0, 0).ok_or("the TSC has no frequency")?;
        let frames = call(Call::FreeFrames, 0, 0, 0).ok_or("the node has no frames")?;
        if nodes < 2 {
            return Err("there is no other node");
        }
        let memory = Memory::find(boot);
        let remote = memory
            .row(|gfn| call(Call::Home, gfn, 0, 0) == Some(REMOTE))
            .ok_or("the other node is home to no memory")?;
        let own = memory
            .row(|gfn| call(Call::Home, gfn, 0, 0) == Some(LOCAL))
            .ok_or("this node is home to no memory")?;
        // One half for first touches, the other for faults, of which every
        // second page is touched.
        let faults = faults.clamp(1, (SAMPLES_MAX as u64).min(remote.pages() / 4));
        Ok(Plan { faults, short, sequence, memory, remote, own, frames, hz })
    }

    /// Says what is being done now.
    pub(crate) fn stage(&self, text: &str) {
        println!(r#"@bench {{"name":"stage","text":"{text}"}}"#);
    }

    /// Prints the distribution of the samples under a name.
    pub(crate) fn report(&self, name: &str) {
        let mut samples = SAMPLES.lock();
        let hz = self.hz;
        println!(r#"@bench {{"name":"{name}","hz":{hz},{}}}"#, samples.distribution());
    }

    /// Prints how often the guest exited for so many faults.
    pub(crate) fn report_exits(&self, name: &str, faults: u64, exits: u64) {
        println!(r#"@bench {{"name":"{name}","faults":{faults},"exits":{exits}}}"#);
    }

    /// So much of a second in ticks.
    pub(crate) const fn ticks(&self, microseconds: u64) -> u64 {
        self.hz * microseconds / 1_000_000
    }

    /// Prints what was done in how many ticks.
    pub(crate) fn report_total(&self, name: &str, pages: u64, ticks: u64, faults: u64) {
        let hz = self.hz;
        println!(
            r#"@bench {{"name":"{name}","hz":{hz},"pages":{pages},"ticks":{ticks},"faults":{faults}}}"#
        );
    }
}

/// Waits until the other nodes have done what they were asked to.
fn settle() -> Result<(), &'static str> {
    while call(Call::Outstanding, 0, 0, 0).ok_or("the node does not count")? > 0 {}
    Ok(())
}

/// How often this program has exited, this call included.
pub(crate) fn exits() -> Result<u64, &'static str> {
    call(Call::Exits, 0, 0, 0).ok_or("the node counts no exits")
}

/// Has every node print its histograms under a name and start them anew.
pub(crate) fn mark(mark: Mark) -> Result<(), &'static str> {
    call(Call::Mark, mark as u64, 0, 0).ok_or("the nodes take no mark")?;
    settle()
}

/// Has the other node take the master of every page of a region.
pub(crate) fn give_away(region: Region) -> Result<(), &'static str> {
    call(Call::TakeWrite, region.first(), region.pages(), REMOTE)
        .ok_or("the other node takes no pages")?;
    settle()
}

/// What page `index` of `region` holds: never zero, as a page of zeroes is
/// not sent.
pub(crate) fn pattern(region: &Region, index: u64) -> u64 {
    (region.first() + index).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}
