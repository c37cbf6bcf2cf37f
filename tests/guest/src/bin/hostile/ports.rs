//! Every port, as byte and as dword, and some as words.

use crate::random::Random;
use crate::trap::attempt;
use crate::{Verdict, trap};

/// Ports that would end the run, or garble the console that tells of it:
/// keyboard controller and port 0x92 (reset), COM1, reset control, PM1
/// control.
const SPARED: [(u16, u16); 5] =
    [(0x64, 0x64), (0x92, 0x92), (0x3F8, 0x3FF), (0xCF9, 0xCF9), (0x604, 0x605)];

/// Words are tried at fewer ports: bytes and dwords reach all that they do.
const WORDS_EVERY: u16 = 8;

/// Whether an access of `size` bytes reaches one of them.
fn is_spared(port: u16, size: u16) -> bool {
    let last = u32::from(port) + u32::from(size) - 1;
    SPARED.iter().any(|&(from, to)| u32::from(port) <= u32::from(to) && last >= u32::from(from))
}

/// Reads every port, and writes all but the spared ones.
pub(crate) fn scan() -> Verdict {
    let mut random = Random::new(1);
    for port in 0..=u16::MAX {
        let before = trap::counts().1;
        attempt!(["in al, dx"] in("dx") port, out("al") _);
        if port.is_multiple_of(WORDS_EVERY) {
            attempt!(["in ax, dx"] in("dx") port, out("ax") _);
        }
        attempt!(["in eax, dx"] in("dx") port, out("eax") _);
        let value = random.next() as u32;
        if !is_spared(port, 1) {
            attempt!(["out dx, al"] in("dx") port, in("al") value as u8);
        }
        if port.is_multiple_of(WORDS_EVERY) && !is_spared(port, 2) {
            attempt!(["out dx, ax"] in("dx") port, in("ax") value as u16);
        }
        if !is_spared(port, 4) {
            attempt!(["out dx, eax"] in("dx") port, in("eax") value);
        }
        if trap::counts().1 != before {
            return Err("a port access has faulted");
        }
    }
    Ok(())
}
