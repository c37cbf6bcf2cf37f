use super::*;

/// Initialises as operating systems do: bases 0x30 and 0x38, all open.
fn pic() -> Pic {
    let mut p = Pic::default();
    for (port, words) in [(0x20, [0x11, 0x30, 4, 1]), (0xA0, [0x11, 0x38, 2, 1])] {
        p.write(port, words[0]);
        words[1..].iter().for_each(|&w| p.write(port + 1, w));
        p.write(port + 1, 0);
    }
    p
}

#[test]
fn mask_reads_back() {
    let mut p = pic();
    p.write(0x21, 0xFB);
    assert_eq!(p.read(0x21), 0xFB);
    p.set_line(0, true);
    assert!(!p.output());
    p.write(0x21, 0);
    assert!(p.output());
}

#[test]
fn priorities_and_end_of_interrupt() {
    let mut p = pic();
    p.set_line(4, true);
    assert_eq!(p.acknowledge(), 0x34);
    p.set_line(5, true);
    assert!(!p.output(), "lower priority waits");
    p.set_line(0, true);
    assert_eq!(p.acknowledge(), 0x30);
    p.write(0x20, 0x0B);
    assert_eq!(p.read(0x20), 0x11);
    p.write(0x20, 0x20);
    p.write(0x20, 0x64);
    assert_eq!(p.read(0x20), 0);
    assert_eq!(p.acknowledge(), 0x35);
}

#[test]
fn the_slave_comes_through_the_cascade() {
    let mut p = pic();
    p.set_line(8, true);
    p.set_line(12, true);
    assert_eq!(p.acknowledge(), 0x38);
    assert!(!p.output());
    p.write(0xA0, 0x20);
    assert!(!p.output(), "the master's in-service bit holds");
    p.write(0x20, 0x62);
    assert_eq!(p.acknowledge(), 0x3C);
}

#[test]
fn edges_latch_and_levels_follow() {
    let mut p = pic();
    p.set_line(3, true);
    p.set_line(3, false);
    assert_eq!(p.acknowledge(), 0x33);
    p.write(0x20, 0x20);
    assert!(!p.output());
    p.write(0x4D1, 0xFF);
    assert_eq!(p.read(0x4D1), 0xDE);
    p.set_line(10, true);
    assert_eq!(p.acknowledge(), 0x3A);
    p.write(0xA0, 0x20);
    p.write(0x20, 0x20);
    assert!(p.output(), "a level asks again");
    p.set_line(10, false);
    assert!(!p.output());
    assert_eq!(p.acknowledge(), 0x37, "spurious");
    p.write(0x20, 0x0B);
    assert_eq!(p.read(0x20), 0);
}

#[test]
fn special_mask_poll_and_rotation() {
    let mut p = pic();
    p.set_line(1, true);
    p.acknowledge();
    p.set_line(6, true);
    p.write(0x20, 0x68);
    p.write(0x21, 0x02);
    assert!(p.output(), "a masked in-service bit does not block");
    p.write(0x20, 0x0C);
    assert_eq!(p.read(0x20), 0x86);
    p.write(0x20, 0xE6);
    p.write(0x20, 0x61);
    p.write(0x21, 0);
    p.set_line(7, true);
    p.set_line(0, true);
    assert_eq!(p.acknowledge(), 0x37, "7 is best after rotation to 6");
}

#[test]
fn automatic_end_of_interrupt() {
    let mut p = pic();
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 3)] {
        p.write(port, value);
    }
    p.set_line(5, true);
    assert_eq!(p.acknowledge(), 0x35);
    p.write(0x20, 0x0B);
    assert_eq!(p.read(0x20), 0);
}
