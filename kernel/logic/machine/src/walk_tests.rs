//! Translation in each mode, with every table page Pending at first.

use super::*;
use crate::testing::Ram;
use layout::Layout;

/// Translates, fetching what is Pending.
fn walk(ram: &mut Ram, mmu: &Mmu, linear: u64, what: Use) -> Result<u64, Stop> {
    loop {
        match mmu.translate(ram, linear, what) {
            Err(Stop::Pending { gfn, access }) => ram.fetch(gfn, access),
            result => return result,
        }
    }
}

fn ram() -> Ram {
    Ram::new(&Layout::new(&[512 * 16]).unwrap(), true)
}

fn mmu(cr0: u64, cr4: u64, efer: u64, user: bool) -> Mmu {
    Mmu { cr0, cr3: 0x1000, cr4, efer, rflags: 2, user }
}

const PG_WP: u64 = CR0_PG | CR0_WP;
const LONG: u64 = EFER_LMA | EFER_NXE;

#[test]
fn without_paging_addresses_are_cut_to_32_bits() {
    let m = mmu(1, 0, 0, false);
    assert_eq!(walk(&mut ram(), &m, 0x1_2345_6789, Use::Read), Ok(0x2345_6789));
}

#[test]
fn two_levels_with_large_pages() {
    let mut r = ram();
    r.put(0x1000 + 4, &0x2003u32.to_le_bytes());
    r.put(0x2000 + 8, &0x7_7003u32.to_le_bytes());
    // 4 MiB page at 0x12_0040_0000 (PSE-36).
    r.put(0x1000 + 8, &(0x0040_0083u32 | (0x12 << 13)).to_le_bytes());
    let m = mmu(PG_WP, CR4_PSE, 0, false);
    assert_eq!(walk(&mut r, &m, 0x40_2123, Use::Write), Ok(0x7_7123));
    assert_eq!(r.get_u64(0x2008) & 0xFF, 0x63, "accessed and dirty");
    assert_eq!(r.get_u64(0x1004) & 0xFF, 0x23, "accessed");
    assert_eq!(walk(&mut r, &m, 0x81_2345, Use::Read), Ok(0x12_0041_2345));
    assert_eq!(walk(&mut r, &m, 0xC0_0000, Use::Write), Err(Stop::page_fault(0xC0_0000, 2)));
}

#[test]
fn physical_address_extension() {
    let mut r = ram();
    r.put_u64(0x1000 + 8, 0x2001); // no rights in a directory pointer
    r.put_u64(0x2000, 0x3003);
    r.put_u64(0x3000 + 16, 0x8000_0000_0005_5003);
    r.put_u64(0x2000 + 8, 0x1_2340_0083);
    let m = mmu(PG_WP, CR4_PAE, EFER_NXE, false);
    assert_eq!(walk(&mut r, &m, 0x4000_2ABC, Use::Write), Ok(0x5_5ABC));
    let fault = Stop::page_fault(0x4000_2ABC, ERROR_PRESENT | ERROR_FETCH);
    assert_eq!(walk(&mut r, &m, 0x4000_2ABC, Use::Fetch), Err(fault));
    assert_eq!(walk(&mut r, &m, 0x4020_0001, Use::Fetch), Ok(0x1_2340_0001));
    assert_eq!(r.get_u64(0x1008), 0x2001, "directory pointers keep no flags");
}

/// Tables for `linear` with `levels`; the leaf entry is returned.
fn long_tables(r: &mut Ram, linear: u64, levels: u64, leaf: u64) -> u64 {
    let mut table = 0x1000;
    for level in (1..levels).rev() {
        let at = table + 8 * ((linear >> (12 + 9 * level)) & 511);
        table += 0x1000;
        r.put_u64(at, table | 7);
    }
    let at = table + 8 * ((linear >> 12) & 511);
    r.put_u64(at, leaf);
    at
}

#[test]
fn four_and_five_levels() {
    for (levels, cr4, linear, wrong) in [
        (4, CR4_PAE, 0xFFFF_8123_4567_8000u64, 0x0000_8123_4567_8000u64),
        (5, CR4_PAE | CR4_LA57, 0xFF12_8123_4567_8000, 0x0112_8123_4567_8000),
    ] {
        let mut r = ram();
        let at = long_tables(&mut r, linear, levels, 0xAB_C003);
        let m = mmu(PG_WP, cr4, LONG, false);
        assert_eq!(walk(&mut r, &m, linear + 5, Use::Fetch), Ok(0xAB_C005));
        assert_eq!(r.get_u64(at), 0xAB_C003, "a fetch sets no flags");
        assert_eq!(walk(&mut r, &m, linear + 5, Use::Read), Ok(0xAB_C005));
        assert_eq!(r.get_u64(at), 0xAB_C023);
        assert_eq!(walk(&mut r, &m, wrong, Use::Read), Err(Stop::PROTECTION));
    }
}

#[test]
fn rights() {
    const SMEP_SMAP: u64 = CR4_PAE | CR4_SMEP | CR4_SMAP;
    // Leaf, CR0, CR4, user, use, error code or success.
    let cases = [
        (0x3, PG_WP, CR4_PAE, true, Use::Read, Some(5)),
        (0x7, PG_WP, CR4_PAE, true, Use::Write, None),
        (0x5, PG_WP, CR4_PAE, true, Use::Write, Some(7)),
        (0x1, PG_WP, CR4_PAE, false, Use::Write, Some(3)),
        (0x1, CR0_PG, CR4_PAE, false, Use::Write, None),
        (0x7, PG_WP, SMEP_SMAP, false, Use::Read, Some(1)),
        (0x7, PG_WP, SMEP_SMAP, false, Use::Fetch, Some(0x11)),
        (NO_EXECUTE | 7, PG_WP, CR4_PAE, true, Use::Fetch, Some(0x15)),
        (0x0, PG_WP, CR4_PAE, true, Use::Write, Some(6)),
    ];
    for (leaf, cr0, cr4, user, what, error) in cases {
        let mut r = ram();
        long_tables(&mut r, 0x1234_5000, 4, leaf | 0xAB_C000);
        let m = mmu(cr0, cr4, LONG, user);
        let expected = match error {
            None => Ok(0xAB_C000),
            Some(error) => Err(Stop::page_fault(0x1234_5000, error)),
        };
        assert_eq!(walk(&mut r, &m, 0x1234_5000, what), expected, "{leaf:#x} {what:?}");
    }
    let mut r = ram();
    long_tables(&mut r, 0x1234_5000, 4, 0xAB_C007);
    let m = Mmu { rflags: RFLAGS_AC, ..mmu(PG_WP, SMEP_SMAP, LONG, false) };
    assert_eq!(walk(&mut r, &m, 0x1234_5000, Use::Read), Ok(0xAB_C000), "AC lifts SMAP");
}

#[test]
fn a_table_outside_memory_faults() {
    let m = Mmu { cr3: 0xF000_0000, ..mmu(PG_WP, CR4_PAE, LONG, false) };
    let fault = Stop::page_fault(0x5000, ERROR_PRESENT | ERROR_RESERVED);
    assert_eq!(walk(&mut ram(), &m, 0x5000, Use::Read), Err(fault));
}
