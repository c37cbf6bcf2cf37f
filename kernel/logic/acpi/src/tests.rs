use super::*;
use std::collections::BTreeMap;
use std::string::String;
use std::{format, vec};

const GIB: u64 = 1 << 18;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |s, &b| s.wrapping_add(b))
}

fn cpus(nodes: u16, each: u32) -> Vec<Cpu> {
    (0..nodes)
        .flat_map(|n| {
            (0..each).map(move |c| Cpu { apic_id: u32::from(n) * each + c, node: NodeId(n) })
        })
        .collect()
}

/// Follows the pointers as an operating system does; every length and
/// checksum is verified on the way.
fn walk(tables: &Tables) -> BTreeMap<String, Vec<u8>> {
    let base = tables.rsdp.0;
    let at = |address: u64| &tables.bytes[(address - base) as usize..];
    let whole = |address: u64| {
        let rest = at(address);
        let table = &rest[..u32_at(rest, 4) as usize];
        (String::from_utf8(table[..4].to_vec()).unwrap(), table.to_vec())
    };
    let rsdp = &tables.bytes[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(rsdp), rsdp[15]), (0, 0, 2));
    let (signature, xsdt) = whole(u64_at(rsdp, 24));
    assert_eq!((signature.as_str(), sum(&xsdt)), ("XSDT", 0));
    let mut found = BTreeMap::new();
    for entry in xsdt[36..].chunks(8) {
        let (signature, table) = whole(u64_at(entry, 0));
        assert_eq!(sum(&table), 0, "{signature}");
        found.insert(signature, table);
    }
    let fadt = &found["FACP"];
    assert_eq!(u64::from(u32_at(fadt, 40)), u64_at(fadt, 140));
    let (signature, dsdt) = whole(u64_at(fadt, 140));
    assert_eq!((signature.as_str(), sum(&dsdt)), ("DSDT", 0));
    let facs = u64::from(u32_at(fadt, 36));
    assert_eq!((facs % 64, &at(facs)[..4], u32_at(at(facs), 4)), (0, &b"FACS"[..], 64));
    found.insert(signature, dsdt);
    found
}

/// Entries of a table of (type, length, ...) records.
fn records(table: &[u8], start: usize) -> Vec<&[u8]> {
    let mut rest = &table[start..];
    let mut found = vec![];
    while !rest.is_empty() {
        let (record, next) = rest.split_at(usize::from(rest[1]));
        found.push(record);
        rest = next;
    }
    found
}

fn sample() -> Tables {
    let layout = Layout::new(&[2 * GIB, 2 * GIB]).unwrap();
    let mut config = Config::new(&layout, &[]);
    let cpus = cpus(2, 2);
    config.cpus = &cpus;
    config.window_64 = Some((GuestPhys(1 << 38), 1 << 36));
    build(&config).unwrap()
}

#[test]
fn all_tables_are_there_and_sound() {
    let tables = sample();
    assert_eq!(tables.rsdp, BASE_DEFAULT);
    let found = walk(&tables);
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["APIC", "DSDT", "FACP", "MCFG", "SLIT", "SRAT"]);
}

#[test]
fn fadt_tells_the_chipset() {
    let found = walk(&sample());
    let fadt = &found["FACP"];
    assert_eq!((fadt.len(), fadt[8], fadt[46]), (276, 6, 9));
    assert_eq!(u32_at(fadt, 48), 0, "no SMI command: always in ACPI mode");
    assert_eq!((u32_at(fadt, 56), u32_at(fadt, 64)), (0x600, 0x604));
    assert_eq!((u32_at(fadt, 76), u32_at(fadt, 80)), (0x608, 0x620));
    assert_eq!((fadt[108], fadt[109]), (0x32, 0x15));
    let flags = u32_at(fadt, 112);
    assert_eq!(flags & (1 << 10 | 1 << 8 | 1 << 4), 1 << 10 | 1 << 8);
    assert_eq!((fadt[116], u64_at(fadt, 120), fadt[128]), (1, 0xCF9, 6));
    for (narrow, wide) in [(56, 148), (64, 172), (76, 208), (80, 220)] {
        assert_eq!(u64::from(u32_at(fadt, narrow)), u64_at(fadt, wide + 4));
    }
}

#[test]
fn madt_splits_by_id() {
    let layout = Layout::new(&[GIB]).unwrap();
    let cpus: Vec<Cpu> =
        [0, 7, 254, 255, 4096].map(|apic_id| Cpu { apic_id, node: NodeId(0) }).to_vec();
    let found = walk(&build(&Config::new(&layout, &cpus)).unwrap());
    let madt = &found["APIC"];
    assert_eq!((u32_at(madt, 36), u32_at(madt, 40)), (0xFEE0_0000, 1));
    let records = records(madt, 44);
    let of = |kind: u8| records.iter().filter(move |r| r[0] == kind);
    let short: Vec<u8> = of(0).map(|r| r[3]).collect();
    let wide: Vec<u32> = of(9).map(|r| u32_at(r, 4)).collect();
    assert_eq!((short, wide), (vec![0, 7, 254], vec![255, 4096]));
    assert!(of(0).all(|r| r[2] == r[3] && u32_at(r, 4) == 1));
    assert!(of(9).all(|r| u32_at(r, 12) == u32_at(r, 4) && u32_at(r, 8) == 1));
    let overrides: Vec<(u8, u32, u8)> = of(2).map(|r| (r[3], u32_at(r, 4), r[8])).collect();
    assert_eq!(overrides, [(0, 2, 0), (9, 9, 0xD)]);
    assert_eq!((of(1).count(), of(4).count(), of(10).count()), (1, 1, 1));
    let srat = self::records(&found["SRAT"], 48);
    assert_eq!(srat.iter().filter(|r| r[0] == 0).count(), 3);
    assert_eq!(srat.iter().filter(|r| r[0] == 2).count(), 2);
}

#[test]
fn srat_and_slit_follow_the_layout() {
    let found = walk(&sample());
    let srat = &found["SRAT"];
    let memory: Vec<(u32, u64, u64)> = records(srat, 48)
        .iter()
        .filter(|r| r[0] == 1)
        .map(|r| (u32_at(r, 2), u64_at(r, 8), u64_at(r, 16)))
        .collect();
    let gib = 1 << 30;
    assert_eq!(memory, [(0, 0, 2 * gib), (1, 2 * gib, gib), (1, 4 * gib, gib)]);
    let domains: Vec<u8> = records(srat, 48).iter().filter(|r| r[0] == 0).map(|r| r[2]).collect();
    assert_eq!(domains, [0, 0, 1, 1]);
    let slit = &found["SLIT"];
    assert_eq!((u64_at(slit, 36), &slit[44..]), (2, &[10, 20, 20, 10][..]));
}

#[test]
fn dsdt_names_its_devices() {
    let found = walk(&sample());
    let dsdt = &found["DSDT"];
    let has = |what: &[u8]| dsdt.windows(what.len()).any(|w| w == what);
    for name in ["PCI0", "MBRD", "COM1", "COM2", "COM3", "RTC_", "TIMR", "_S5_", "C003", "ACPI0007"]
    {
        assert!(has(name.as_bytes()), "{name}");
    }
    assert!(!has(b"C004"));
    // The 64-bit window: minimum and maximum beside each other.
    let (start, end) = (1u64 << 38, (1u64 << 38) + (1 << 36) - 1);
    assert!(has(&[start.to_le_bytes(), end.to_le_bytes()].concat()));
    // The 32-bit window ends below the ECAM.
    assert!(has(&[0xC000_0000u32.to_le_bytes(), 0xDFFF_FFFFu32.to_le_bytes()].concat()));
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of processors in AML take an interpreter minutes")]
fn large_clusters_fit_or_are_refused() {
    let layout = Layout::new(&vec![GIB; 64]).unwrap();
    let many = cpus(64, 16);
    let tables = build(&Config::new(&layout, &many)).unwrap();
    assert!(tables.bytes.len() <= SIZE_MAX, "{}", tables.bytes.len());
    walk(&tables);
    let layout = Layout::new(&vec![GIB; 200]).unwrap();
    let few = cpus(200, 1);
    let found = walk(&build(&Config::new(&layout, &few)).unwrap());
    assert!(!found.contains_key("SLIT"));
    let most = cpus(200, 40);
    assert!(matches!(build(&Config::new(&layout, &most)), Err(Error::Size(_))));
}

#[test]
fn configurations_that_are_refused() {
    let layout = Layout::new(&[GIB]).unwrap();
    let one = [Cpu { apic_id: 0, node: NodeId(0) }];
    let good = Config::new(&layout, &one);
    assert_eq!(build(&Config { base: GuestPhys(0xE_0010), ..good }), Err(Error::Base));
    assert_eq!(build(&Config { base: GuestPhys(!63), ..good }), Err(Error::Base));
    assert_eq!(build(&Config { cpus: &[], ..good }), Err(Error::NoCpu));
    let stray = Cpu { apic_id: 0, node: NodeId(1) };
    assert_eq!(build(&Config { cpus: &[stray], ..good }), Err(Error::UnknownNode(stray)));
    assert_eq!(build(&Config { cpus: &[one[0], one[0]], ..good }), Err(Error::ApicId(0)));
    for (start, bytes) in [(1 << 32, 0), (GIB, 4096), (u64::MAX, 2)] {
        let window_64 = Some((GuestPhys(start), bytes));
        assert_eq!(build(&Config { window_64, ..good }), Err(Error::Window));
    }
    assert!(!format!("{}", Error::Size(5)).is_empty());
}
