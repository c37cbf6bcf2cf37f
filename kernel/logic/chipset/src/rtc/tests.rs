use super::*;

const HZ: u64 = 1_000_000;
/// 2024-02-29 23:59:58 UTC, a Thursday.
const START: u64 = 1_709_251_198;
const FIRST: u64 = 5_000_000;

fn rtc() -> Rtc {
    Rtc::new(Config { tsc_hz: HZ, start_unix: START, start_tsc: FIRST })
}

fn get(r: &mut Rtc, index: usize, now: u64) -> u8 {
    r.write(0x70, index as u8 | 0x80, now);
    r.read(0x71, now)
}

fn put(r: &mut Rtc, index: usize, value: u8, now: u64) {
    r.write(0x70, index as u8, now);
    r.write(0x71, value, now);
}

const TIME: [usize; 8] =
    [CENTURY as usize, YEAR, MONTH, DAY_OF_MONTH, HOUR, MINUTE, SECOND, WEEKDAY];

#[test]
fn tells_the_time() {
    let mut r = rtc();
    let read = |r: &mut Rtc, now| TIME.map(|i| get(r, i, now));
    assert_eq!(read(&mut r, FIRST), [0x20, 0x24, 2, 0x29, 0x23, 0x59, 0x58, 5]);
    assert_eq!(read(&mut r, FIRST + 2 * HZ), [0x20, 0x24, 3, 1, 0, 0, 0, 6]);
    put(&mut r, B, B_BINARY, FIRST);
    assert_eq!(read(&mut r, FIRST), [20, 24, 2, 29, 11 | HOUR_PM, 59, 58, 5]);
    assert_eq!(get(&mut r, HOUR, FIRST + 2 * HZ), 12);
    assert_eq!(get(&mut r, D, FIRST), 0x80);
    assert_eq!(get(&mut r, A, FIRST), 0x26);
    assert_eq!(get(&mut r, A, FIRST + HZ - 1), 0xA6);
}

#[test]
fn linux_sets_it() {
    let mut r = rtc();
    let now = FIRST + HZ / 3;
    put(&mut r, B, 0x82, now);
    put(&mut r, A, 0x76, now);
    for (index, value) in TIME.into_iter().zip([0x20, 0x30, 0x12, 0x31, 0x08, 0x15, 0x07, 1]) {
        put(&mut r, index, value, now);
        assert_eq!(get(&mut r, index, now + 9 * HZ), value, "held while SET");
    }
    put(&mut r, B, 2, now);
    put(&mut r, A, 0x26, now);
    assert_eq!(get(&mut r, SECOND, now), 7);
    assert_eq!(get(&mut r, SECOND, now + HZ / 2 - 1), 7);
    assert_eq!(get(&mut r, SECOND, now + HZ / 2), 8, "the next second comes after half a second");
    assert_eq!(get(&mut r, YEAR, now + HZ), 0x30);
    put(&mut r, SECOND, 0x59, now + HZ);
    assert_eq!(get(&mut r, SECOND, now + HZ), 0x59, "and without SET");
}

#[test]
fn update_interrupt() {
    let mut r = rtc();
    put(&mut r, B, 0x12, FIRST);
    assert_eq!(r.deadline(), Some(FIRST + HZ));
    r.tick(FIRST + HZ - 1);
    assert!(!r.line());
    r.tick(FIRST + HZ);
    assert!(r.line());
    assert_eq!(r.deadline(), None);
    assert_eq!(get(&mut r, C, FIRST + HZ) & 0x90, 0x90);
    assert!(!r.line());
    assert_eq!(r.deadline(), Some(FIRST + 2 * HZ));
}

#[test]
fn alarm_interrupt() {
    let mut r = rtc();
    for (index, value) in [(SECOND_ALARM, 0x05), (MINUTE_ALARM, 0x01), (HOUR_ALARM, 0x00)] {
        put(&mut r, index, value, FIRST);
    }
    put(&mut r, B, 0x22, FIRST);
    let due = FIRST + 67 * HZ;
    assert_eq!(r.deadline(), Some(due));
    r.tick(due - 1);
    assert!(!r.line());
    r.tick(due);
    assert!(r.line());
    assert_eq!(get(&mut r, C, due), C_IRQ | C_ALARM | C_UPDATE | C_PERIODIC);
    assert_eq!(r.deadline(), Some(due + 86_400 * HZ));
    put(&mut r, HOUR_ALARM, 0xFF, due);
    assert_eq!(r.deadline(), Some(due + 3600 * HZ));
    put(&mut r, MINUTE_ALARM, 0xC0, due);
    assert_eq!(r.deadline(), Some(due + 60 * HZ));
    put(&mut r, SECOND_ALARM, 0x75, due);
    assert_eq!(r.deadline(), None, "a second that never comes");
}

#[test]
fn periodic_interrupt() {
    let mut r = rtc();
    put(&mut r, A, 0x2A, FIRST);
    put(&mut r, B, 0x42, FIRST);
    for n in 1..=3 {
        let due = FIRST + HZ * n / 64;
        assert_eq!(r.deadline(), Some(due + u64::from(!(HZ * n).is_multiple_of(64))));
        r.tick(due + 1);
        assert!(r.line());
        assert_ne!(get(&mut r, C, due + 1) & C_PERIODIC, 0);
    }
}

#[test]
fn memory_keeps_what_is_written_and_nothing_panics() {
    let mut r = rtc();
    put(&mut r, 0x7F, 0xA5, FIRST);
    put(&mut r, D, 0, FIRST);
    assert_eq!((get(&mut r, 0x7F, FIRST), get(&mut r, D, FIRST)), (0xA5, 0x80));
    let mut seed = 3u64;
    for step in 0..if cfg!(miri) { 10 } else { 200_000 } {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(77);
        let now = if step % 4 == 0 { seed } else { step * 1000 };
        put(&mut r, (seed >> 35) as usize % 0x34, (seed >> 45) as u8, now);
        get(&mut r, (seed >> 25) as usize % 0x34, now);
        if let Some(at) = r.deadline() {
            r.tick(at);
        }
    }
}
