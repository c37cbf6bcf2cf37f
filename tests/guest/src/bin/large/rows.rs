//! The two rows and the walks over them.

use guests::boot::BootParams;
use guests::cpu::tsc;
use guests::hypercall::{Call, call};
use guests::memory::{Memory, Region};
use guests::order::Shuffle;
use guests::println;

/// Runs of 2 MiB of each row.
const RUNS: u64 = 8;
const RUN_PAGES: u64 = 512;
const PAGES: u64 = RUNS * RUN_PAGES;
/// The node that takes pages.
const REMOTE: u64 = 1;
/// Walks of each kind over each row: many and short, so that some fall where the
/// host does nothing else.
const ROUNDS: usize = 200;
/// Words between two that are read.
const STEP: u64 = 64;
/// Words of a row that are read.
const WORDS: u64 = PAGES * 512 / STEP;
/// Reads of a walk at random.
const READS: u64 = 1 << 14;
/// Longest that merges are waited for.
const PATIENCE_S: u64 = 60;

/// The row that is left alone, and the one that is not.
pub(crate) struct Rows([Region; 2]);

/// What a page holds in each word that a walk reads.
fn pattern(page: u64) -> u64 {
    (page + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// Whether a page is part of a large one.
fn is_large(gfn: u64) -> Result<bool, &'static str> {
    Ok(call(Call::Large, gfn, 0, 0).ok_or("the node does not say what is large")? == 1)
}

/// A word of a row.
fn read(row: &Region, word: u64) -> u64 {
    assert!(word / 512 < row.pages(), "word {word}");
    let address = ((row.first() << 12) + word * 8) as *const u64;
    // SAFETY: mapped memory that no Rust value lies in, by the check above.
    unsafe { address.read_volatile() }
}

/// Ticks of a walk over all of a row.
fn in_order(row: &Region) -> Result<u64, &'static str> {
    let start = tsc();
    let mut sum = 0u64;
    for at in 0..WORDS {
        sum = sum.wrapping_add(read(row, at * STEP));
    }
    let took = tsc() - start;
    let of = |page| pattern(page).wrapping_mul(512 / STEP);
    let wanted = (0..PAGES).fold(0u64, |sum, page| sum.wrapping_add(of(page)));
    if sum == wanted { Ok(took) } else { Err("a row does not hold what was written") }
}

/// Ticks of a walk that reads words at random.
fn at_random(row: &Region) -> Result<u64, &'static str> {
    let start = tsc();
    let (mut wrong, mut chance) = (0, 1u64);
    for _ in 0..READS {
        chance =
            chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (chance >> 33) % WORDS * STEP;
        wrong |= read(row, word) ^ pattern(word / 512);
    }
    let took = tsc() - start;
    if wrong == 0 { Ok(took) } else { Err("a page does not hold what was written to it") }
}

impl Rows {
    /// Finds them in what this node is home to.
    pub(crate) fn new(boot: &BootParams) -> Result<Rows, &'static str> {
        let nodes = call(Call::Nodes, 0, 0, 0).ok_or("there is no Pangaea below")?;
        if nodes < 2 {
            return Err("there is no other node");
        }
        let memory = Memory::find(boot);
        let near = memory.row(|gfn| call(Call::Home, gfn, 0, 0) == Some(0));
        let near = near.ok_or("this node is home to no memory")?;
        let from = near.first().next_multiple_of(RUN_PAGES) - near.first();
        let rows = [near.part(from, PAGES), near.part(from + PAGES, PAGES)];
        if rows[1].pages() < PAGES {
            return Err("this node is home to too little memory");
        }
        Ok(Rows(rows))
    }

    /// Writes all that the walks read.
    pub(crate) fn fill(&self) {
        for row in &self.0 {
            for page in 0..PAGES {
                for word in 0..512 / STEP {
                    let address = (row.address(page) + word * STEP * 8) as *mut u64;
                    // SAFETY: mapped memory that no Rust value lies in.
                    unsafe { address.write_volatile(pattern(page)) };
                }
            }
        }
    }

    /// The second row's runs that are large.
    fn large(&self) -> Result<u64, &'static str> {
        let mut count = 0;
        for run in 0..RUNS {
            count += u64::from(is_large(self.0[1].first() + run * RUN_PAGES)?);
        }
        Ok(count)
    }

    /// Has the other node take the second row, and takes it back.
    pub(crate) fn scatter(&self) -> Result<(), &'static str> {
        let row = &self.0[1];
        call(Call::TakeWrite, row.first(), PAGES, REMOTE).ok_or("the other node takes no pages")?;
        while call(Call::Outstanding, 0, 0, 0).ok_or("the node does not count")? > 0 {}
        for page in Shuffle::new(PAGES) {
            row.write(page, pattern(page));
        }
        Ok(())
    }

    /// Waits until every run is large again.
    pub(crate) fn await_merges(&self) -> Result<(), &'static str> {
        let hz = call(Call::TscHz, 0, 0, 0).ok_or("the TSC has no frequency")?;
        let start = tsc();
        while self.large()? < RUNS {
            if tsc() - start > PATIENCE_S * hz {
                return Err("runs are not merged");
            }
        }
        Ok(())
    }

    /// Walks both rows in turns.
    pub(crate) fn measure(&self, state: &str) -> Result<(), &'static str> {
        let (mut order, mut random) = ([u64::MAX; 2], [u64::MAX; 2]);
        for round in 0..2 * ROUNDS {
            // Neither row always comes first.
            let i = (round + round / 2) % 2;
            order[i] = order[i].min(in_order(&self.0[i])?);
            random[i] = random[i].min(at_random(&self.0[i])?);
        }
        let large = self.large()?;
        println!(
            "@bench {{\"name\":\"large\",\"state\":\"{state}\",\"runs\":{RUNS},\"large\":{large},\
             \"in_order\":[{},{}],\"at_random\":[{},{}]}}",
            order[0], order[1], random[0], random[1]
        );
        Ok(())
    }
}
