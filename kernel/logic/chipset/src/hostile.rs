//! Random accesses to the devices that have no such test of their own: none
//! may panic, and bounded outputs stay bounded.

use crate::{ioapic, ioapic::IoApic, map, pic::Pic, pm, pm::Pm, uart, uart::Uart};

/// A linear congruential generator (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 24) % below
    }
}

const STEPS: u64 = if cfg!(miri) { 500 } else { 200_000 };

#[test]
fn pic_keeps_its_promises() {
    let (mut pic, mut random) = (Pic::default(), Random(1));
    let ports = [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1];
    for _ in 0..STEPS {
        let port = ports[random.next(6) as usize];
        match random.next(4) {
            0 => pic.write(port, random.next(256) as u8),
            1 => drop(pic.read(port)),
            2 => pic.set_line(random.next(16) as u8, random.next(2) == 0),
            _ => {
                let asked = pic.output();
                let spurious = pic.acknowledge() & 7 == 7;
                assert!(asked || spurious, "nothing asked, yet a vector came");
            }
        }
    }
}

#[test]
fn io_apic_sends_at_most_one_message_a_pin() {
    let (mut io, mut random) = (IoApic::default(), Random(2));
    for _ in 0..STEPS {
        match random.next(4) {
            0 => io.set_line(random.next(24) as u8, random.next(2) == 0),
            1 => io.end_of_interrupt(random.next(256) as u8),
            2 => io.write(0, random.next(256) as u32),
            _ => io.write(random.next(5) as u32 * 16, random.next(1 << 18) as u32),
        }
        assert!(io.read(random.next(0x10) as u32) <= 0xFF, "only the index is below the window");
        let sent = core::iter::from_fn(|| io.take_message()).take(100).count();
        assert!(sent <= ioapic::PINS);
    }
}

#[test]
fn uart_stays_bounded() {
    let mut random = Random(3);
    let mut uart = Uart::new(uart::Config { tsc_hz: 1_000_000 });
    for step in 0..STEPS {
        let now = if step % 7 == 0 { random.next(1 << 40) } else { step };
        match random.next(4) {
            0 => uart.write(random.next(9) as u16, random.next(256) as u8, now),
            1 => drop(uart.read(random.next(9) as u16, now)),
            2 => {
                let room = uart.input_room();
                assert_eq!(uart.input(step as u8, now), room > 0);
            }
            _ => drop(uart.take_output()),
        }
        assert!(uart.output_len() <= uart::OUTPUT_MAX && uart.input_room() <= uart::FIFO);
        if let Some(at) = uart.deadline() {
            uart.tick(at);
            assert_eq!(uart.deadline(), None);
        }
    }
}

#[test]
fn pm_survives() {
    let (mut pm, mut random) = (Pm::new(pm::Config { tsc_hz: 1 << 31 }), Random(4));
    for _ in 0..STEPS {
        let port = map::PM_BASE + random.next(0x28) as u16;
        let (size, now) = (random.next(6) as u8, random.next(1 << 40) << 24);
        pm.write(port, size, random.next(1 << 32) as u32, now);
        pm.read(port, size, now);
        if let Some(at) = pm.deadline() {
            pm.tick(at);
            assert!(pm.deadline().is_none() || at == u64::MAX);
        }
    }
}
