//! The two 8259A interrupt controllers in their PC arrangement.
//!
//! Source: Intel 8259A datasheet. Lines are remapped to vectors 0x20 to 0x2F
//! and masked until a driver enables them.

use crate::cpu::{inb, outb};
use crate::interrupts::PIC_BASE;
use core::sync::atomic::{AtomicU16, Ordering};

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xA0;
const CASCADE: u16 = 1 << 2;
const READ_ISR: u8 = 0x0B;
const END_OF_INTERRUPT: u8 = 0x20;

/// Lines that drivers want.
static ENABLED: AtomicU16 = AtomicU16::new(0);
/// Of these, the lines that fired and wait to be armed again.
static FIRED: AtomicU16 = AtomicU16::new(0);

fn command(pic: u16, value: u8) {
    // SAFETY: the 8259 pair is this module's alone.
    unsafe { outb(pic, value) };
}

fn data(pic: u16, value: u8) {
    // SAFETY: as above.
    unsafe { outb(pic + 1, value) };
}

fn write_mask() {
    let open = ENABLED.load(Ordering::Relaxed) & !FIRED.load(Ordering::Relaxed);
    let open = if open & 0xFF00 != 0 { open | CASCADE } else { open };
    data(MASTER, !(open as u8));
    data(SLAVE, !((open >> 8) as u8));
}

/// Initialises both controllers with every line masked.
pub(crate) fn start() {
    for (pic, base, cascade) in [(MASTER, PIC_BASE, CASCADE as u8), (SLAVE, PIC_BASE + 8, 2)] {
        command(pic, 0x11); // ICW1: edge triggered, cascade, ICW4 follows
        data(pic, base); // ICW2
        data(pic, cascade); // ICW3
        data(pic, 0x01); // ICW4: 8086 mode, normal end of interrupt
    }
    write_mask();
}

/// Opens a line.
pub(crate) fn enable(line: u8) {
    ENABLED.fetch_or((1 << (line & 15)) & !CASCADE, Ordering::Relaxed);
    write_mask();
}

/// Closes a line.
pub(crate) fn disable(line: u8) {
    ENABLED.fetch_and(!(1 << (line & 15)), Ordering::Relaxed);
    write_mask();
}

/// Opens again the lines that have fired.
pub(crate) fn arm() {
    if FIRED.load(Ordering::Relaxed) != 0 {
        FIRED.store(0, Ordering::Relaxed);
        write_mask();
    }
}

/// Masks the line that fired and ends the interrupt; `false` if it was
/// spurious (the in-service register does not show it).
pub(crate) fn acknowledge(line: u8) -> bool {
    let pic = if line < 8 { MASTER } else { SLAVE };
    command(pic, READ_ISR);
    // SAFETY: as in `command`.
    let in_service = unsafe { inb(pic) } & 1 << (line & 7) != 0;
    if in_service {
        FIRED.fetch_or(1 << line, Ordering::Relaxed);
        write_mask();
        command(pic, END_OF_INTERRUPT);
    }
    if line >= 8 {
        command(MASTER, END_OF_INTERRUPT);
    }
    in_service && ENABLED.load(Ordering::Relaxed) & 1 << line != 0
}
