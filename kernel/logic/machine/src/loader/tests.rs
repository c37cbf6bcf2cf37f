//! Images made here, loaded into memory that is Pending at first.

use super::*;
use crate::testing::{Guest, Ram};
use alloc::string::String;
use alloc::vec;

const MIB: u64 = 1 << 20;

fn put(file: &mut [u8], at: usize, value: u64, size: usize) {
    file[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// A bzImage with 4 setup sectors and 3 pages of code, the middle one zero.
fn bzimage() -> Vec<u8> {
    let mut f = vec![0; 5 * 512 + 3 * 4096];
    put(&mut f, 0x1F1, 4, 1);
    put(&mut f, 0x200, 0x6AEB, 2); // jump: the header ends at 0x26C
    f[0x202..0x206].copy_from_slice(b"HdrS");
    put(&mut f, 0x206, 0x20F, 2);
    put(&mut f, 0x211, 1, 1);
    put(&mut f, 0x22C, 0x7FFF_FFFF, 4);
    put(&mut f, 0x230, 2 * MIB, 4);
    put(&mut f, 0x234, 1, 1);
    put(&mut f, 0x236, 1, 2);
    put(&mut f, 0x238, 2047, 4);
    put(&mut f, 0x258, 16 * MIB, 8);
    put(&mut f, 0x260, 8 * MIB, 4);
    let code = 5 * 512;
    f[code..code + 4096].fill(0x11);
    f[code + 8192..].fill(0x33);
    f
}

/// An executable at 2 MiB, linked at the top of the address space.
fn elf(phys: u64) -> Vec<u8> {
    let mut f = vec![0; 120 + 16];
    f[..6].copy_from_slice(b"\x7fELF\x02\x01");
    put(&mut f, 16, 2, 2);
    put(&mut f, 18, 62, 2);
    put(&mut f, 24, 0xFFFF_FFFF_8000_0004, 8);
    put(&mut f, 32, 64, 8);
    put(&mut f, 54, 56, 2);
    put(&mut f, 56, 1, 2);
    put(&mut f, 64, 1, 4);
    put(&mut f, 64 + 8, 120, 8);
    put(&mut f, 64 + 16, 0xFFFF_FFFF_8000_0000, 8);
    put(&mut f, 64 + 24, phys, 8);
    put(&mut f, 64 + 32, 16, 8);
    put(&mut f, 64 + 40, 0x5000, 8);
    f[120..].fill(0x77);
    f
}

fn load<'a>(kernel: &'a [u8], initrd: &'a [u8], cmdline: &'a str) -> Result<Plan<'a>, LoadError> {
    Plan::new(&Boot { kernel, initrd, cmdline }, &Guest::new(true).machine)
}

/// Writes all, fetching what is Pending.
fn write(plan: &mut Plan<'_>) -> Ram {
    let mut ram = Ram::new(Guest::new(true).machine.layout(), true);
    while let Err(error) = plan.write(&mut ram) {
        match error {
            MemoryError::Pending { gfn, access } => ram.fetch(gfn, access),
            MemoryError::NotMemory => panic!("placed outside memory"),
        }
    }
    ram
}

#[test]
fn linux_finds_everything() {
    let kernel = bzimage();
    let initrd = vec![0xAB; 5000];
    let mut plan = load(&kernel, &initrd, "console=ttyS0").unwrap();
    let ram = write(&mut plan);
    assert_eq!(ram.get(16 * MIB, 4096), vec![0x11; 4096]);
    assert!(!ram.pages.contains_key(&(16 * MIB / 4096 + 1)), "zeroes are not written");
    assert_eq!(ram.get(16 * MIB + 8192, 4096), vec![0x33; 4096]);
    // 64 MiB of RAM: the RAM disk is at its end.
    let initrd_at = 64 * MIB - 8192;
    assert_eq!(ram.get(initrd_at, 5000), initrd);

    let mut vcpu = vcpu::fake::FakeVcpu::default();
    plan.enter(&mut vcpu);
    assert_eq!(vcpu.registers.rip, 16 * MIB + 0x200);
    let zero_page = vcpu.registers.gpr[RSI];
    let word = |at: u64, size| {
        ram.get(zero_page + at, size).iter().rev().fold(0u64, |v, &b| (v << 8) | u64::from(b))
    };
    assert_eq!((word(0x218, 4), word(0x21C, 4), word(0xC0, 8)), (initrd_at, 5000, 0));
    assert_eq!(ram.get(word(0x228, 4), 14), b"console=ttyS0\0");
    assert_eq!((word(0x1FE, 2), word(0x206, 2), word(0x210, 2)), (0xAA55, 0x20F, 0x1FF));
    assert_eq!(word(0x70, 8), ACPI_BASE);
    assert_eq!(ram.get(ACPI_BASE, 8), b"RSD PTR ");
    assert_eq!(word(0x1E8, 1), 7);
    assert_eq!((word(0x2D0, 8), word(0x2D8, 8), word(0x2E0, 4)), (0, map::LOW_END, 1));
    // Long mode by tables that map everything below 4 GiB to itself.
    let s = vcpu.system;
    let mmu = crate::walk::Mmu::new(&s, 2);
    let mut plain = ram;
    for linear in [0, 16 * MIB + 0x200, 0xFEE0_0123, u64::from(u32::MAX)] {
        loop {
            match mmu.translate(&mut plain, linear, crate::walk::Use::Fetch) {
                Err(crate::stop::Stop::Pending { gfn, access }) => plain.fetch(gfn, access),
                gpa => break assert_eq!(gpa, Ok(linear)),
            }
        }
    }
    assert_eq!((s.cs.selector, s.ds.selector), (0x10, 0x18));
    assert_eq!(plain.get_u64(s.gdtr.base + 0x10), 0x00AF_9B00_0000_FFFF);
}

#[test]
fn executables_are_entered_at_their_physical_address() {
    let kernel = elf(2 * MIB);
    let mut plan = load(&kernel, &[], "").unwrap();
    let ram = write(&mut plan);
    assert_eq!(ram.get(2 * MIB, 17), [&[0x77; 16][..], &[0]].concat());
    assert_eq!(plan.registers.rip, 2 * MIB + 4);
    for bad in [0, 0xF_F000, 64 * MIB - 0x4000, u64::MAX - 5] {
        let error = load(&elf(bad), &[], "").err();
        assert_eq!(error, Some(LoadError::BadAddress { address: bad }));
    }
}

#[test]
fn a_relocatable_kernel_moves_where_there_is_room() {
    let mut kernel = bzimage();
    put(&mut kernel, 0x258, 60 * MIB, 8);
    let plan = load(&kernel, &[], "").unwrap();
    assert_eq!(plan.registers.rip, 2 * MIB + 0x200);
    put(&mut kernel, 0x234, 0, 1);
    let none = LoadError::KernelTooLarge { have: 63 * MIB, need: 8 * MIB };
    assert_eq!(load(&kernel, &[], "").err(), Some(none));
    put(&mut kernel, 0x234, 1, 1);
    put(&mut kernel, 0x260, 64 * MIB, 4);
    let none = LoadError::KernelTooLarge { have: 63 * MIB, need: 64 * MIB };
    assert_eq!(load(&kernel, &[], "").err(), Some(none));
}

#[test]
fn what_does_not_fit_is_told() {
    let kernel = bzimage();
    let large = vec![1; 40 * MIB as usize + 1];
    let error = LoadError::InitrdTooLarge { have: 40 * MIB, need: 40 * MIB + 1 };
    assert_eq!(load(&kernel, &large, "").err(), Some(error));
    assert!(load(&kernel, &large[1..], "").is_ok());
    let long = String::from_utf8(vec![b'x'; 2048]).unwrap();
    let error = LoadError::CommandLineTooLong { have: 2047, need: 2048 };
    assert_eq!(load(&kernel, &[], &long).err(), Some(error));
    assert!(load(&kernel, &[], &long[1..]).is_ok());
}

#[test]
fn other_files_are_refused() {
    let with = |at, value, size| {
        let mut kernel = bzimage();
        put(&mut kernel, at, value, size);
        load(&kernel, &[], "").err()
    };
    assert_eq!(with(0x202, 0, 4), Some(LoadError::NotAKernel));
    assert_eq!(with(0x206, 0x20B, 2), Some(LoadError::TooOld));
    assert_eq!(with(0x236, 0, 2), Some(LoadError::No64Bit));
    assert_eq!(with(0x1F1, 0xFF, 1), Some(LoadError::Damaged));
    assert_eq!(with(0x201, 0, 1), Some(LoadError::Damaged));
    assert_eq!(load(b"", &[], "").err(), Some(LoadError::NotAKernel));
    let mut wrong = elf(2 * MIB);
    put(&mut wrong, 18, 3, 2);
    assert_eq!(load(&wrong, &[], "").err(), Some(LoadError::No64Bit));
}

#[test]
fn cut_and_twisted_files_never_panic() {
    for file in [bzimage(), elf(2 * MIB)] {
        let step = if cfg!(miri) { 61 } else { 1 };
        for len in (0..file.len().min(0x300)).step_by(step).chain([file.len() - 1]) {
            let _ = load(&file[..len], &[], "");
        }
        for at in (0..file.len().min(0x280)).step_by(step) {
            for value in [0x00, 0x7F, 0x80, 0xFF] {
                let mut twisted = file.clone();
                twisted[at] = value;
                if let Ok(mut plan) = load(&twisted, b"x", "y")
                    && at % 16 == 8
                {
                    write(&mut plan);
                }
            }
        }
    }
}
