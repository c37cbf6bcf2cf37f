use super::*;
use std::vec::Vec;

const HZ: u64 = 1_000_000_000;

fn uart() -> Uart {
    let mut u = Uart::new(Config { tsc_hz: HZ });
    u.write(3, 0x80, 0);
    u.write(0, 1, 0);
    u.write(1, 0, 0);
    u.write(3, 3, 0);
    u.write(4, 0x0B, 0);
    u
}

#[test]
fn probes_as_a_16550a() {
    let mut u = uart();
    u.write(1, 0xFF, 0);
    assert_eq!(u.read(1, 0), 0x0F);
    u.write(1, 0, 0);
    u.write(4, 0x1A, 0);
    assert_eq!(u.read(6, 0) & 0xF0, 0x90);
    u.write(4, 0x0B, 0);
    assert_eq!(u.read(6, 0), 0xB0 | 2, "back from loopback: only DSR changed since");
    assert_eq!(u.read(6, 0), 0xB0);
    assert_eq!(u.read(2, 0), 1);
    u.write(2, 1, 0);
    assert_eq!(u.read(2, 0), 0xC1);
    u.write(7, 0x5A, 0);
    assert_eq!(u.read(7, 0), 0x5A);
    u.write(3, 0x80, 0);
    assert_eq!((u.read(0, 0), u.read(1, 0)), (1, 0));
}

#[test]
fn output_is_never_lost_while_the_guest_waits() {
    let mut u = uart();
    u.write(2, 1, 0);
    let mut sent = 0usize;
    while u.read(5, 0) & LSR_THR_EMPTY != 0 {
        for _ in 0..FIFO {
            u.write(0, sent as u8, 0);
            sent += 1;
        }
    }
    assert_eq!(sent, OUTPUT_MAX);
    u.write(1, 2, 0);
    assert!(!u.line(), "a busy transmitter does not interrupt");
    let got: Vec<u8> = core::iter::from_fn(|| u.take_output()).collect();
    assert!(got.iter().enumerate().all(|(n, &b)| b == n as u8) && got.len() == sent);
    assert!(u.line());
    assert_eq!(u.read(2, 0), 0xC2);
    assert_eq!(u.read(2, 0), 0xC1, "reading IIR ends it");
    u.write(0, 1, 0);
    assert_eq!(u.read(2, 0), 0xC2);
    u.write(1, 0, 0);
    u.write(1, 2, 0);
    assert_eq!(u.read(2, 0), 0xC2, "enabling it raises it again");
}

#[test]
fn receiver_trigger_and_timeout() {
    let mut u = uart();
    u.write(2, 0x81, 0);
    u.write(1, 1, 0);
    for n in 0..7 {
        assert!(u.input(n, 100));
    }
    assert!(!u.line());
    let due = u.deadline().unwrap();
    assert_eq!(due, 100 + 40 * HZ / 115_200);
    u.tick(due);
    assert!(u.line());
    assert_eq!(u.read(2, due), 0xCC);
    assert_eq!(u.read(0, due), 0);
    assert!(!u.line(), "a read ends the timeout");
    assert!(u.input(7, due) && u.input(8, due));
    assert_eq!(u.read(2, due), 0xC4);
    assert_eq!(u.input_room(), 8);
    for n in 1..9 {
        assert_eq!(u.read(5, due) & 1, 1);
        assert_eq!(u.read(0, due), n);
    }
    assert_eq!((u.read(5, due), u.deadline()), (0x60, None));
}

#[test]
fn without_fifo_one_byte_fits() {
    let mut u = uart();
    u.write(1, 5, 0);
    assert!(u.input(1, 0) && !u.input(2, 0));
    assert_eq!(u.read(2, 0), IIR_RECEIVED);
    u.write(4, 0x1B, 0);
    u.write(0, 9, 0);
    assert!(!u.line(), "loopback takes OUT2 off the pin");
    u.write(4, 0x0B, 0);
    assert_eq!(u.read(2, 0), IIR_LINE, "overrun comes first");
    assert_eq!(u.read(5, 0), 0x63);
    assert_eq!(u.read(2, 0), IIR_RECEIVED);
    assert_eq!(u.output_len(), 0);
}

#[test]
fn modem_changes_and_break() {
    let mut u = uart();
    u.write(1, 8, 0);
    u.write(4, 0x1F, 0);
    u.write(4, 0x1B, 0);
    assert_eq!(u.read(6, 0), 0xB0 | MSR_RING_ENDED);
    u.write(4, 0x0B, 0);
    assert!(!u.line());
    assert!(u.input_break(0));
    assert_eq!(u.read(5, 0) & LSR_BREAK, LSR_BREAK);
    u.write(4, 0, 0);
    u.write(1, 0xF, 0);
    assert!(!u.line(), "OUT2 gates");
}
