//! The transcript: one line for each test, with what was seen.
//!
//! A line holds only what the architecture decides, so that it is the same on
//! every vendor's processor. Where an emulator is known to be wrong, the line
//! says what is right, and a line `@note` says what was seen and whose fault
//! it is: see [`Report::except`].

use core::fmt::{self, Debug, Display, Write};

/// Longest line. A longer one is cut, which fails the test.
const LINE_MAX: usize = 4096;

/// The emulator below, as the word `emulator=NAME` of the command line tells;
/// its known faults are excused. Without the word nothing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Emulator {
    /// None, or one that nothing is known of.
    Unknown,
    /// QEMU's TCG.
    Tcg,
    /// Bochs.
    Bochs,
}

impl Emulator {
    /// Reads the word's value.
    pub(crate) fn named(name: &str) -> Emulator {
        match name {
            "tcg" => Emulator::Tcg,
            "bochs" => Emulator::Bochs,
            _ => Emulator::Unknown,
        }
    }
}

/// Text of a bounded length.
struct Line {
    bytes: [u8; LINE_MAX],
    len: usize,
    is_cut: bool,
}

impl Line {
    const fn new() -> Line {
        Line { bytes: [0; LINE_MAX], len: 0, is_cut: false }
    }

    fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?")
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = LINE_MAX - self.len;
        let len = text.len().min(room);
        self.bytes[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        self.is_cut |= len < text.len();
        Ok(())
    }
}

/// What one test has seen.
pub(crate) struct Report {
    emulator: Emulator,
    line: Line,
    wrong: u32,
    checks: u32,
    skipped: Option<&'static str>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(emulator: Emulator) -> Report {
        Report { emulator, line: Line::new(), wrong: 0, checks: 0, skipped: None }
    }

    /// Checks a value, which goes into the transcript.
    pub(crate) fn want<T: PartialEq + Debug>(&mut self, what: &str, got: T, want: T) {
        self.checks += 1;
        let right = got == want;
        let _ = write!(self.line, " {what}={got:x?}");
        if !right {
            self.wrong += 1;
            let _ = write!(self.line, "(WANT {want:x?})");
        }
    }

    /// Checks a condition, which goes into the transcript if it does not hold.
    pub(crate) fn hold(&mut self, what: &str, holds: bool) {
        self.checks += 1;
        if !holds {
            self.wrong += 1;
            let _ = write!(self.line, " FAILED({what})");
        }
    }

    /// Checks a condition and says what was seen if it does not hold.
    pub(crate) fn hold_that(&mut self, what: &str, seen: impl Display, holds: bool) {
        self.checks += 1;
        if !holds {
            self.wrong += 1;
            let _ = write!(self.line, " FAILED({what}: {seen})");
        }
    }

    /// Checks a value that an emulator is known to get wrong: `known` is what
    /// it gives, `why` what is wrong with it. The transcript has what is
    /// right; a note says what was seen. Anywhere else it is [`Report::want`].
    pub(crate) fn except<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        got: T,
        want: T,
        (emulator, known): (Emulator, T),
        why: &str,
    ) {
        if self.emulator == emulator && got == known && got != want {
            guests::println!("@note {what}: {emulator:?} gives {got:x?}: {why}");
            self.want(what, &want, &want);
        } else {
            self.want(what, got, want);
        }
    }

    /// Checks what `get` gives, but on an emulator that would not come
    /// through: there it is left out, and a note says so.
    pub(crate) fn unless<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        emulator: Emulator,
        why: &str,
        want: T,
        get: impl FnOnce() -> T,
    ) {
        if self.emulator == emulator {
            guests::println!("@note {what}: not tried on {emulator:?}: {why}");
            self.want(what, &want, &want);
        } else {
            self.want(what, get(), want);
        }
    }

    /// Notes that the test cannot be done here.
    pub(crate) fn skip(&mut self, why: &'static str) {
        self.skipped = Some(why);
    }

    /// Prints the line of the test; whether it passed.
    pub(crate) fn print(&mut self, name: &str) -> Verdict {
        if self.line.is_cut {
            self.wrong += 1;
        }
        let verdict = match (self.skipped, self.wrong, self.checks) {
            (Some(_), 0, _) => Verdict::Skipped,
            // A test that checks nothing cannot fail.
            (_, 0, 1..) => Verdict::Passed,
            _ => Verdict::Failed,
        };
        let word = match verdict {
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        guests::println!(
            "@suite {name} {word}:{} {}",
            self.line.text(),
            self.skipped.unwrap_or("")
        );
        verdict
    }
}

/// What became of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// All checks held.
    Passed,
    /// Some did not.
    Failed,
    /// This machine lacks what it needs.
    Skipped,
}
