//! Records for programs, and the report of a node that goes down.
//!
//! A record is one line `@pangaea {json}` on the node's log; the host tool
//! reads them. A panic prints its text for people first, then the record
//! with raw return addresses, which the host tool turns into names.

use crate::cpu;
use crate::serial;
use boot::Range;
use core::fmt::{self, Display, Write};
use core::sync::atomic::{AtomicPtr, Ordering};
use spin::Once;

/// Most return addresses in a report.
const BACKTRACE_MAX: usize = 48;

/// Displays a text as the inside of a JSON string.
pub struct Json<T>(pub T);

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        s.chars().try_for_each(|c| match c {
            '"' | '\\' => write!(self.0, "\\{c}"),
            '\n' => self.0.write_str("\\n"),
            c if c < ' ' || c == '\x7F' => write!(self.0, "\\u{:04x}", u32::from(c)),
            c => self.0.write_char(c),
        })
    }
}

impl<T: Display> Display for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

/// Prints the record `@pangaea {"event":"<name>",<fields>}`; `fields` is JSON
/// without the braces, not empty.
pub fn event(name: &str, fields: fmt::Arguments<'_>) {
    serial::print_line(format_args!("@pangaea {{\"event\":\"{name}\",{fields}}}"));
}

/// The return addresses on the way out of a place.
#[derive(Clone, Copy, Debug)]
pub struct Backtrace {
    addresses: [u64; BACKTRACE_MAX],
    len: usize,
}

impl Backtrace {
    /// Walks the chain of frame pointers from `rbp` on: as long as it leads
    /// upward within one of `stacks` and the return addresses lie in `text`.
    /// `at` is the place itself, 0 if not known. `read` reads a stack word.
    fn walk(
        at: u64,
        rbp: u64,
        stacks: &[Range],
        text: Range,
        read: impl Fn(u64) -> u64,
    ) -> Backtrace {
        let mut trace = Backtrace { addresses: [0; BACKTRACE_MAX], len: 0 };
        if at != 0 {
            trace.push(at);
        }
        let mut rbp = rbp;
        while trace.len < BACKTRACE_MAX && rbp & 7 == 0 {
            let Some(top) = rbp.checked_add(16) else { break };
            if !stacks.iter().any(|s| s.start <= rbp && top <= s.end) {
                break;
            }
            let (next, back) = (read(rbp), read(rbp + 8));
            if !text.contains(back) {
                break;
            }
            trace.push(back);
            if next <= rbp {
                break;
            }
            rbp = next;
        }
        trace
    }

    fn push(&mut self, address: u64) {
        self.addresses[self.len] = address;
        self.len += 1;
    }

    /// The addresses, innermost first.
    #[must_use]
    pub fn addresses(&self) -> &[u64] {
        &self.addresses[..self.len]
    }
}

/// As the members of a JSON array of strings.
impl Display for Backtrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses().iter().enumerate() {
            write!(f, "{}\"{address:#x}\"", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

struct Ground {
    text: Range,
    stacks: [Range; 5],
}

static GROUND: Once<Ground> = Once::new();

/// Tells the reports where code and stacks are.
pub(crate) fn start(image: &boot::ImageLayout) {
    let [a, b, c, d] = crate::descriptors::interrupt_stacks();
    GROUND.call_once(|| Ground { text: image.text, stacks: [image.stack, a, b, c, d] });
}

fn backtrace(at: u64, rbp: u64) -> Backtrace {
    let (stacks, text) = match GROUND.get() {
        Some(ground) => (&ground.stacks[..], ground.text),
        None => (&[][..], Range::default()),
    };
    Backtrace::walk(at, rbp, stacks, text, |address| {
        // SAFETY: `walk` reads aligned words inside the stacks only, which
        // are mapped from the start and never unmapped.
        unsafe { (address as *const u64).read() }
    })
}

/// What ends a node after its report; see [`set_end`].
pub type End = fn() -> !;

static END: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets what is done after the report of a panic (power off, reset); without
/// it the node stops where it is.
pub fn set_end(end: End) {
    END.store(end as *mut (), Ordering::Release);
}

fn end() -> ! {
    let end = END.load(Ordering::Acquire);
    if end.is_null() {
        cpu::stop();
    }
    // SAFETY: the pointer was stored by `set_end` from exactly this type.
    unsafe { core::mem::transmute::<*mut (), End>(end)() }
}

/// Reports that the node goes down and ends it. `at` and `rbp` are where to
/// start the backtrace. A panic inside a panic stops at once.
pub fn die(message: fmt::Arguments<'_>, at: u64, rbp: u64) -> ! {
    if serial::enter_panic() {
        serial::print_line(format_args!("PANIC inside a panic: {message}"));
        cpu::stop();
    }
    serial::print_line(format_args!("PANIC: {message}"));
    let trace = backtrace(at, rbp);
    for (i, address) in trace.addresses().iter().enumerate() {
        serial::print_line(format_args!("  {i:2}: {address:#018x}"));
    }
    event("panic", format_args!("\"message\":\"{}\",\"backtrace\":[{trace}]", Json(message)));
    end()
}

/// The body of the image's panic handler.
#[cfg(target_os = "none")]
#[inline(never)]
pub fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    let rbp = cpu::frame_pointer();
    match info.location() {
        Some(place) => die(format_args!("{} at {place}", info.message()), 0, rbp),
        None => die(format_args!("{}", info.message()), 0, rbp),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(Json("a\"b\\c\nd\u{1}é").to_string(), "a\\\"b\\\\c\\nd\\u0001é");
    }

    #[test]
    fn walks_stay_on_the_stack() {
        let text = Range::new(0x1000, 0x2000);
        let stacks = [Range::new(0x8000, 0x8100)];
        let words = |chain: &'static [(u64, u64)]| {
            move |a: u64| chain.iter().find(|c| c.0 == a).map_or_else(|| panic!("{a:#x}"), |c| c.1)
        };
        let good = words(&[(0x8010, 0x8020), (0x8018, 0x1111), (0x8020, 0), (0x8028, 0x1222)]);
        let t = Backtrace::walk(0x1001, 0x8010, &stacks, text, good);
        assert_eq!(t.addresses(), [0x1001, 0x1111, 0x1222]);
        assert_eq!(t.to_string(), "\"0x1001\",\"0x1111\",\"0x1222\"");
        let looping = words(&[(0x8010, 0x8010), (0x8018, 0x1111)]);
        assert_eq!(Backtrace::walk(0, 0x8010, &stacks, text, looping).addresses(), [0x1111]);
        for bad in [0, 0x8011, 0x80F8, u64::MAX - 7] {
            let t = Backtrace::walk(0, bad, &stacks, text, |a| panic!("read {a:#x}"));
            assert_eq!(t.addresses().len(), 0);
        }
        let outside = words(&[(0x8010, 0x9000), (0x8018, 0x1111)]);
        assert_eq!(Backtrace::walk(0, 0x8010, &stacks, text, outside).addresses(), [0x1111]);
    }
}
