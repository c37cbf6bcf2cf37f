//! Exceptions and interrupts: noted, and gone on as a test wants.
//!
//! Three ways to meet an exception. [`attempt!`] runs instructions in 64-bit
//! code at level 0 and goes on behind them. [`crate::leave`] runs code of
//! another kind, whose exception ends it. [`log`] lets traps (breakpoints,
//! single steps) come and go, and keeps a list. A [`hook`] sees everything
//! first.

use crate::apic;
use crate::tables::CODE;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
pub(crate) use guests::attempt;
use guests::trap::Pointer;
pub(crate) use guests::trap::{Frame, RECOVER, load};

/// An exception that a test has raised.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its vector.
    pub(crate) vector: u8,
    /// Its error code; 0 where there is none.
    pub(crate) error: u32,
    /// CR2 of a page fault; else 0.
    pub(crate) cr2: u64,
}

/// Names of the exceptions (AMD APM volume 2, table 8-1).
const NAMES: [&str; 20] = [
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#09", "#TS", "#NP", "#SS",
    "#GP", "#PF", "#0F", "#MF", "#AC", "#MC", "#XF",
];

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.vector)) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "#{:02x}", self.vector)?,
        }
        match self.vector {
            8 | 10..=13 | 17 => write!(f, "({:x})", self.error),
            14 => write!(f, "({:x})@{:x}", self.error, self.cr2),
            _ => Ok(()),
        }
    }
}

/// An exception without an error code.
pub(crate) const fn plain(vector: u8) -> Option<Fault> {
    Some(Fault { vector, error: 0, cr2: 0 })
}

/// An exception with an error code.
pub(crate) const fn coded(vector: u8, error: u32) -> Option<Fault> {
    Some(Fault { vector, error, cr2: 0 })
}

/// A page fault.
pub(crate) const fn page(error: u32, cr2: u64) -> Option<Fault> {
    Some(Fault { vector: 14, error, cr2 })
}

/// #DE, #UD, #NM.
pub(crate) const DIVIDE: Option<Fault> = plain(0);
pub(crate) const UNDEFINED: Option<Fault> = plain(6);
pub(crate) const NOT_AVAILABLE: Option<Fault> = plain(7);
/// #GP(0).
pub(crate) const PROTECTION: Option<Fault> = coded(13, 0);

/// Most entries of a log.
const LOG_MAX: usize = 64;

/// A trap of a log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Entry {
    pub(crate) vector: u8,
    pub(crate) rip: u64,
    /// DR6 at a #DB.
    pub(crate) dr6: u64,
}

/// A function that sees each exception and interrupt first; `true` ends its
/// handling.
type Hook = fn(&mut Frame) -> bool;

struct State {
    caught: Option<Fault>,
    /// The frame of the last exception that was caught.
    frame: Frame,
    log: [Entry; LOG_MAX],
    log_len: usize,
    is_logging: bool,
    counts: [u32; 256],
    hook: Option<Hook>,
}

/// Only one processor runs; handlers and tests take turns, as interrupts are
/// let in only where a test wants them.
struct Shared(UnsafeCell<State>);

// SAFETY: the guest has one processor.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    caught: None,
    frame: Frame { gpr: [0; 15], vector: 0, error: 0, rip: 0, cs: 0, rflags: 0, rsp: 0, ss: 0 },
    log: [Entry { vector: 0, rip: 0, dr6: 0 }; LOG_MAX],
    log_len: 0,
    is_logging: false,
    counts: [0; 256],
    hook: None,
}));

/// The test that runs, for a report of what it did not expect.
static TEST: AtomicUsize = AtomicUsize::new(0);

fn with<T>(work: impl FnOnce(&mut State) -> T) -> T {
    // SAFETY: one processor; `work` neither faults nor lets interrupts in.
    work(unsafe { &mut *STATE.0.get() })
}

/// Called by the stubs.
extern "C" fn handle(frame: &mut Frame) {
    let (hook, is_logging) = with(|s| {
        let count = &mut s.counts[frame.vector as usize];
        *count = count.saturating_add(1);
        (s.hook, s.is_logging)
    });
    if let Some(hook) = hook
        && hook(frame)
    {
        return;
    }
    let vector = frame.vector as u8;
    if vector == 2 {
        return;
    }
    if vector >= 32 && !(vector == LEAVE && frame.cs != u64::from(CODE)) {
        return apic::end_of_interrupt();
    }
    let cr2: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nomem, nostack)) };
    let fault =
        Fault { vector, error: frame.error as u32, cr2: if vector == 14 { cr2 } else { 0 } };
    if is_logging && matches!(vector, 1 | 3) {
        let dr6 = if vector == 1 { take_dr6() } else { 0 };
        with(|s| {
            if let Some(entry) = s.log.get_mut(s.log_len) {
                *entry = Entry { vector, rip: frame.rip, dr6 };
                s.log_len += 1;
            } else {
                // A trap that never ends is no use to anybody.
                frame.rflags &= !RFLAGS_TF;
            }
        });
        // A fault on an instruction must not come again for it.
        frame.rflags |= if vector == 1 { RFLAGS_RF } else { 0 };
        return;
    }
    let recover = RECOVER.swap(0, Relaxed);
    let is_away = frame.cs != u64::from(CODE);
    if (is_away && !crate::leave::is_out()) || (!is_away && recover == 0) {
        let name = crate::test_name(TEST.load(Relaxed));
        let Frame { rip, cs, .. } = frame;
        guests::println!("@suite {name} FAILED: unexpected {fault:?} at {cs:x}:{rip:x}");
        guests::println!("{frame:x?}");
        guests::cpu::stop();
    }
    with(|s| {
        s.caught = Some(fault);
        s.frame = *frame;
    });
    if is_away {
        return crate::leave::come_back(frame);
    }
    frame.rip = recover;
    // No single step behind an attempt that had set it.
    frame.rflags &= !RFLAGS_TF;
}

/// The vector by which code of [`crate::leave`] comes back by itself.
pub(crate) const LEAVE: u8 = 0x80;
/// RFLAGS.TF and RF.
pub(crate) const RFLAGS_TF: u64 = 1 << 8;
pub(crate) const RFLAGS_RF: u64 = 1 << 16;

/// Reads DR6 and clears it to what it is without any condition.
pub(crate) fn take_dr6() -> u64 {
    let value: u64;
    // SAFETY: debug registers belong to the tests.
    unsafe {
        asm!("mov {0}, dr6", "mov dr6, {1}", out(reg) value, in(reg) 0xFFFF_0FF0u64,
            options(nomem, nostack));
    }
    value
}

/// Ends an attempt: what it has raised.
pub(crate) fn outcome() -> Option<Fault> {
    RECOVER.store(0, Relaxed);
    with(|s| s.caught.take())
}

/// The frame of the last exception that was caught.
pub(crate) fn frame() -> Frame {
    with(|s| s.frame)
}

/// How often a vector came since the last [`clear_counts`].
pub(crate) fn count(vector: u8) -> u32 {
    with(|s| s.counts[usize::from(vector)])
}

/// Counts anew.
pub(crate) fn clear_counts() {
    with(|s| s.counts = [0; 256]);
}

/// Sets or removes the hook.
pub(crate) fn hook(hook: Option<Hook>) {
    with(|s| s.hook = hook);
}

/// Runs `work` with #DB and #BP logged, and gives the log.
pub(crate) fn log(work: impl FnOnce()) -> ([Entry; LOG_MAX], usize) {
    take_dr6();
    with(|s| {
        s.log_len = 0;
        s.is_logging = true;
    });
    work();
    with(|s| {
        s.is_logging = false;
        (s.log, s.log_len)
    })
}

/// Tells which test runs, and forgets what the last has left.
pub(crate) fn begin(test: usize) {
    TEST.store(test, Relaxed);
    clear_counts();
    hook(None);
}

/// Gates of the interrupt descriptor table (AMD APM volume 2, 4.8.4).
#[repr(C, align(16))]
struct Gates(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: the guest has one processor.
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; 256]));

/// Vectors that user code may call: #BP, #OF and the way back.
const OPEN: [usize; 3] = [3, 4, LEAVE as usize];

/// Makes a gate present or not.
pub(crate) fn set_gate(vector: u8, present: bool) {
    let stub = guests::trap::stub(vector);
    let vector = usize::from(vector);
    let level = if OPEN.contains(&vector) { 3u64 } else { 0 };
    // The double fault has a stack of its own.
    let stack = u64::from(vector == 8);
    let kind = u64::from(present) << 47 | level << 45 | 0xE << 40 | stack << 32;
    let low = stub & 0xFFFF | u64::from(CODE) << 16 | kind | (stub >> 16 & 0xFFFF) << 48;
    // SAFETY: the processor reads the gate when it delivers the vector, which
    // does not happen meanwhile.
    unsafe { (GATES.0.get().cast::<[u64; 2]>().add(vector)).write_volatile([low, stub >> 32]) };
}

/// Loads the table of all 256 stubs.
pub(crate) fn install() {
    guests::trap::set_handler(handle);
    (0..=255).for_each(|vector| set_gate(vector, true));
    reload();
}

/// Loads the table again, as after a trip to another mode.
pub(crate) fn reload() {
    load(&Pointer { limit: 256 * 16 - 1, base: GATES.0.get() as u64 });
}
