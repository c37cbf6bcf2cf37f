//! Touches of memory that lies on another machine, the same for everything
//! that is measured: a bare guest on Pangaea, one whose memory a user-space
//! pager keeps elsewhere, a Linux process that swaps.
//!
//! What differs is a [`Ground`]. [`run`] prints one line `@bench {json}` for
//! each measure: `remote_read` (pages that are all away, with room for them),
//! then over all pages, which are more than fit, `random`, `sequential` and
//! `chase`, each with the samples of the touches that had to wait for the
//! other machine, and a total of all touches.

use crate::order::Shuffle;
use crate::samples::Samples;
use core::fmt::Arguments;

/// In the first measure only every so many pages are read: a page is never
/// the one after, so that no fetch ahead spares a fault.
const STRIDE: u64 = 2;
/// Pages between two words on how far it is.
const STEP: u64 = 1 << 13;
/// What a read of a wrong value is called.
const WRONG: &str = "a page does not hold what was written to it";

/// Memory that can be touched, and what is below it.
///
/// # Safety
/// For each `page` below [`Ground::pages`], [`Ground::address`] is the
/// address of 4096 bytes that are mapped for reading and writing and that no
/// Rust value lies in.
pub unsafe trait Ground {
    /// Number of pages.
    fn pages(&self) -> u64;

    /// Where a page lies.
    fn address(&self, page: u64) -> *mut u64;

    /// TSC ticks a second.
    fn hz(&self) -> u64;

    /// Has the other machine take the first `pages` pages, so that none of
    /// them is here.
    ///
    /// # Errors
    /// Why that cannot be done.
    fn send_away(&mut self, pages: u64) -> Result<(), &'static str>;

    /// Takes note that a touch is about to begin.
    fn begin(&mut self) {}

    /// Whether the touch that has just ended had to wait for the other
    /// machine; `None` where only the time tells.
    fn missed(&mut self) -> Option<bool> {
        None
    }

    /// Prints text.
    fn print(&mut self, text: Arguments<'_>);
}

/// How much is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of the first measure; the others touch a multiple of it.
    pub touches: u64,
}

/// A read of one word, in ticks, and what it was.
fn read(ground: &impl Ground, page: u64, word: usize) -> (u64, u64) {
    assert!(page < ground.pages() && word < 512, "word {word} of page {page}");
    // SAFETY: the trait's contract, for a page that there is.
    let place = unsafe { ground.address(page).add(word) };
    let start = tsc();
    // SAFETY: as above.
    let value = unsafe { place.read_volatile() };
    (tsc() - start, value)
}

/// Writes both words of a page that the workloads read.
fn fill(ground: &impl Ground, page: u64, cycle: &Cycle) {
    assert!(page < ground.pages(), "page {page}");
    let place = ground.address(page);
    // SAFETY: the trait's contract, for a page that there is.
    unsafe {
        place.write_volatile(pattern(page));
        place.add(1).write_volatile(cycle.next(page));
    }
}

/// What the first word of a page holds: never zero, as a page of zeroes may
/// not be sent.
fn pattern(page: u64) -> u64 {
    (page + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// Reads the TSC after everything before has been done, and before anything
/// after begins (Intel SDM volume 2, RDTSC).
fn tsc() -> u64 {
    // SAFETY: LFENCE and RDTSC change nothing; CR4.TSD is clear here as under
    // every operating system that lets its processes read the TSC.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let now = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        now
    }
}

/// One cycle through all numbers below a limit, in no visible order: a linear
/// congruential generator whose modulus is the next power of two (full period
/// by Hull and Dobell: an odd increment, a multiplier of 1 modulo 4), without
/// the numbers that are too large.
struct Cycle {
    len: u64,
    mask: u64,
}

impl Cycle {
    fn new(len: u64) -> Cycle {
        Cycle { len, mask: len.next_power_of_two().max(4) - 1 }
    }

    /// The number after `at`.
    fn next(&self, at: u64) -> u64 {
        let mut x = at;
        loop {
            x = x.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(0x1405_7B7E_F767_814F);
            x &= self.mask;
            if x < self.len {
                return x;
            }
        }
    }
}

/// Measures everything.
///
/// # Errors
/// Why it broke off: a page with a wrong value above all.
pub fn run<G: Ground>(
    ground: &mut G,
    plan: Plan,
    samples: &mut Samples,
) -> Result<(), &'static str> {
    let cycle = Cycle::new(ground.pages());
    // Below it a touch was one of a page that was here.
    let threshold = remote_read(ground, plan, &cycle, samples)? / 2;
    let pages = ground.pages();
    for page in 0..pages {
        if page % STEP == 0 {
            stage(ground, format_args!("filling: {page} of {pages} pages"));
        }
        fill(ground, page, &cycle);
    }
    let all = Pass { threshold, touches: pages.min(4 * plan.touches) };
    let some = Pass { threshold, touches: pages.min(2 * plan.touches) };
    let mut order = Shuffle::new(pages);
    some.run(ground, samples, "random", |ground| {
        let page = order.next().unwrap_or(0);
        let (ticks, value) = read(ground, page, 0);
        if value == pattern(page) { Ok(ticks) } else { Err(WRONG) }
    })?;
    let mut page = 0;
    all.run(ground, samples, "sequential", |ground| {
        let (ticks, value) = read(ground, page, 0);
        page += 1;
        if value == pattern(page - 1) { Ok(ticks) } else { Err(WRONG) }
    })?;
    let mut at = pages / 2;
    some.run(ground, samples, "chase", |ground| {
        let (ticks, next) = read(ground, at, 1);
        if next != cycle.next(at) {
            return Err(WRONG);
        }
        at = next;
        Ok(ticks)
    })
}

fn stage<G: Ground>(ground: &mut G, text: Arguments<'_>) {
    ground.print(format_args!("@bench {{\"name\":\"stage\",\"text\":\"{text}\"}}\n"));
}

fn report<G: Ground>(ground: &mut G, name: &str, samples: &mut Samples) -> u64 {
    let hz = ground.hz();
    let distribution = samples.distribution();
    ground.print(format_args!("@bench {{\"name\":\"{name}\",\"hz\":{hz},{distribution}}}\n"));
    distribution.quantile(0)
}

/// Reads pages that are all away, with room for them; the least ticks that
/// one took.
fn remote_read<G: Ground>(
    ground: &mut G,
    plan: Plan,
    cycle: &Cycle,
    samples: &mut Samples,
) -> Result<u64, &'static str> {
    let pages = (plan.touches * STRIDE).min(ground.pages() / 2);
    stage(ground, format_args!("sending {pages} pages away"));
    (0..pages).for_each(|page| fill(ground, page, cycle));
    ground.send_away(pages)?;
    samples.clear();
    stage(ground, format_args!("reading pages that are away"));
    for at in Shuffle::new(pages / STRIDE) {
        let page = at * STRIDE;
        ground.begin();
        let (ticks, value) = read(ground, page, 0);
        if value != pattern(page) {
            return Err(WRONG);
        }
        if ground.missed() != Some(false) {
            samples.push(ticks);
        }
    }
    if samples.is_empty() {
        return Err("no page was away");
    }
    Ok(report(ground, "remote_read", samples))
}

/// One pass over pages of which not all can be here.
#[derive(Clone, Copy)]
struct Pass {
    threshold: u64,
    touches: u64,
}

impl Pass {
    fn run<G: Ground>(
        self,
        ground: &mut G,
        samples: &mut Samples,
        name: &str,
        mut touch: impl FnMut(&mut G) -> Result<u64, &'static str>,
    ) -> Result<(), &'static str> {
        samples.clear();
        let (mut total, mut faults) = (0u64, 0u64);
        for i in 0..self.touches {
            if i % STEP == 0 {
                stage(ground, format_args!("{name}: {i} of {} touches", self.touches));
            }
            ground.begin();
            let ticks = touch(ground)?;
            if ground.missed().unwrap_or(ticks >= self.threshold) {
                samples.push(ticks);
                faults += 1;
            }
            total += ticks;
        }
        if samples.is_empty() {
            return Err("no touch went to the other machine");
        }
        report(ground, name, samples);
        let (hz, pages) = (ground.hz(), self.touches);
        ground.print(format_args!(
            "@bench {{\"name\":\"{name}\",\"hz\":{hz},\"pages\":{pages},\"ticks\":{total},\
             \"faults\":{faults}}}\n"
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ordinary memory; every third touch is said to be a miss.
    struct Plain {
        memory: Vec<[u64; 512]>,
        touches: u64,
        away: u64,
        text: String,
    }

    // SAFETY: each page is an element of `memory`, which only the workloads
    // touch while they run.
    unsafe impl Ground for Plain {
        fn pages(&self) -> u64 {
            self.memory.len() as u64
        }
        fn address(&self, page: u64) -> *mut u64 {
            self.memory[page as usize].as_ptr().cast_mut()
        }
        fn hz(&self) -> u64 {
            1_000_000_000
        }
        fn send_away(&mut self, pages: u64) -> Result<(), &'static str> {
            self.away = pages;
            Ok(())
        }
        fn missed(&mut self) -> Option<bool> {
            self.touches += 1;
            Some(self.touches.is_multiple_of(3))
        }
        fn print(&mut self, text: Arguments<'_>) {
            self.text.push_str(&text.to_string());
        }
    }

    fn plain() -> Plain {
        Plain { memory: vec![[0; 512]; 300], touches: 0, away: 0, text: String::new() }
    }

    #[test]
    fn every_measure_is_reported() {
        let mut ground = plain();
        let mut samples = Box::new(Samples::new());
        run(&mut ground, Plan { touches: 60 }, &mut samples).unwrap();
        assert_eq!(ground.away, 120);
        for name in ["remote_read", "random", "sequential", "chase"] {
            let line = format!("@bench {{\"name\":\"{name}\",\"hz\":1000000000,\"count\":");
            assert!(ground.text.contains(&line), "{name} in {}", ground.text);
        }
        assert!(ground.text.contains("\"pages\":240,"), "four times the touches");
        assert!(ground.text.contains("\"pages\":120,"), "twice the touches");
    }

    #[test]
    fn a_wrong_value_is_found() {
        struct Forgetful(Plain);
        // SAFETY: as the one inside.
        unsafe impl Ground for Forgetful {
            fn pages(&self) -> u64 {
                self.0.pages()
            }
            fn address(&self, page: u64) -> *mut u64 {
                self.0.address(page)
            }
            fn hz(&self) -> u64 {
                1
            }
            fn send_away(&mut self, _: u64) -> Result<(), &'static str> {
                self.0.memory[2][0] += 1;
                Ok(())
            }
            fn print(&mut self, _: Arguments<'_>) {}
        }
        let mut samples = Box::new(Samples::new());
        let result = run(&mut Forgetful(plain()), Plan { touches: 60 }, &mut samples);
        assert_eq!(result, Err(WRONG));
    }

    #[test]
    fn the_cycle_visits_every_page_once() {
        for len in [2, 3, 5, 300, 4096, 30_001] {
            let cycle = Cycle::new(len);
            let mut seen = vec![false; len as usize];
            let mut at = len / 2;
            for _ in 0..len {
                at = cycle.next(at);
                assert!(!std::mem::replace(&mut seen[at as usize], true), "{at} of {len} twice");
            }
        }
    }
}
