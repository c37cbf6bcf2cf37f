//! Instructions that exit, and those that a guest must not have.

use crate::Verdict;
use crate::random::Random;
use crate::trap::{Fault, UNDEFINED, attempt};
use guests::hypercall;

/// All leaves that anybody answers, and many that nobody does.
pub(crate) fn cpuid() -> Verdict {
    let mut random = Random::new(7);
    let ask = |leaf: u32, subleaf: u32| {
        // No exception is architecturally possible.
        core::arch::x86_64::__cpuid_count(leaf, subleaf)
    };
    for base in [0, 0x4000_0000, 0x4000_0100, 0x8000_0000, 0xC000_0000, 0x2000_0000] {
        for leaf in base..base + 0x40 {
            for subleaf in (0..66).chain([u32::MAX, 0x8000_0000]) {
                let _ = ask(leaf, subleaf);
            }
        }
    }
    for _ in 0..2000 {
        let _ = ask(random.next() as u32, random.next() as u32);
    }
    if ask(0, 0).eax < 1 || ask(0x8000_0000, 0).eax < 0x8000_0008 {
        return Err("the highest leaves are missing");
    }
    // Neither SVM nor VMX is for guests.
    if ask(0x8000_0001, 0).ecx & 1 << 2 != 0 || ask(1, 0).ecx & 1 << 5 != 0 {
        return Err("a guest is shown SVM or VMX");
    }
    Ok(())
}

/// Hypercalls with operands that make no sense.
pub(crate) fn hypercalls() -> Verdict {
    let mut random = Random::new(8);
    let odd = [0, 1, 2, 0xFFF, 0x1_0000, 0xFFFF_FFFF, 1 << 32, 1 << 40, u64::MAX];
    for number in (0..40).chain([255, 1 << 16, 1 << 32, u64::MAX - 1, u64::MAX]) {
        for rbx in odd {
            for rdx in [0, 2, 63, 64, 0xFFFF, 0x1_0000, u64::MAX] {
                // Not node 1: the measurements 5 and 6 would be real, and as
                // long as they are told to be.
                let _ = hypercall::raw(number, rbx, odd[(random.next() % 9) as usize], rdx);
            }
        }
    }
    for number in [2, 3] {
        for gfn in odd {
            for count in [0, 1, 7, 100_000, 0xFFFF_FFFF, u64::MAX] {
                let _ = hypercall::raw(number, gfn, count, 1);
            }
        }
    }
    for _ in 0..3000 {
        let number = 12 + random.next() % 1000;
        let _ = hypercall::raw(number, random.next(), random.next(), random.next());
    }
    match hypercall::raw(1, 0, 0, 0) {
        2..=64 => Ok(()),
        _ => Err("the node does not answer hypercalls any more"),
    }
}

/// Runs one encoding; its memory operands are at RAX or RSI.
macro_rules! bytes {
    ($($byte:literal),+) => {
        attempt!([concat!(".byte ", $(stringify!($byte), ","),+ , " 0x90")]
            inout("rax") 12u64 << 20 => _, inout("rcx") 0u64 => _, inout("rdx") 0u64 => _,
            in("rsi") 12u64 << 20, in("rdi") 12u64 << 20)
    };
}

/// Instructions of SVM, VMX and others that this machine does not offer.
pub(crate) fn undefined() -> Verdict {
    let svm: [(&str, Option<Fault>); 8] = [
        ("VMRUN", bytes!(0x0F, 0x01, 0xD8)),
        ("VMLOAD", bytes!(0x0F, 0x01, 0xDA)),
        ("VMSAVE", bytes!(0x0F, 0x01, 0xDB)),
        ("STGI", bytes!(0x0F, 0x01, 0xDC)),
        ("CLGI", bytes!(0x0F, 0x01, 0xDD)),
        ("SKINIT", bytes!(0x0F, 0x01, 0xDE)),
        ("INVLPGA", bytes!(0x0F, 0x01, 0xDF)),
        ("RSM", bytes!(0x0F, 0xAA)),
    ];
    let vmx: [(&str, Option<Fault>); 11] = [
        ("VMLAUNCH", bytes!(0x0F, 0x01, 0xC2)),
        ("VMRESUME", bytes!(0x0F, 0x01, 0xC3)),
        ("VMXOFF", bytes!(0x0F, 0x01, 0xC4)),
        ("VMFUNC", bytes!(0x0F, 0x01, 0xD4)),
        ("VMXON", bytes!(0xF3, 0x0F, 0xC7, 0x36)),
        ("VMCLEAR", bytes!(0x66, 0x0F, 0xC7, 0x36)),
        ("VMPTRLD", bytes!(0x0F, 0xC7, 0x36)),
        ("VMREAD", bytes!(0x0F, 0x78, 0xC8)),
        ("VMWRITE", bytes!(0x0F, 0x79, 0xC8)),
        ("INVEPT", bytes!(0x66, 0x0F, 0x38, 0x80, 0x0E)),
        ("INVVPID", bytes!(0x66, 0x0F, 0x38, 0x81, 0x0E)),
    ];
    let rest: [(&str, Option<Fault>); 6] = [
        ("UD2", bytes!(0x0F, 0x0B)),
        ("RDPRU", bytes!(0x0F, 0x01, 0xFD)),
        ("ENCLS", bytes!(0x0F, 0x01, 0xCF)),
        ("TLBSYNC", bytes!(0x0F, 0x01, 0xFF)),
        ("INVLPGB", bytes!(0x0F, 0x01, 0xFE)),
        ("PVALIDATE", bytes!(0xF2, 0x0F, 0x01, 0xFF)),
    ];
    let mut wrong = 0;
    for (name, fault) in svm.iter().chain(&vmx).chain(&rest) {
        if *fault != Some(UNDEFINED) {
            guests::println!("{name} gave {fault:?}");
            wrong += 1;
        }
    }
    // These may be there or not; they must only come back.
    let _ = [
        bytes!(0x0F, 0x01, 0xC8),
        bytes!(0x0F, 0x01, 0xC9),
        bytes!(0x0F, 0x33),
        bytes!(0x0F, 0x08),
        bytes!(0x0F, 0x09),
        bytes!(0x0F, 0x01, 0xC1),
        bytes!(0x0F, 0x37),
        bytes!(0xF1),
        bytes!(0xCC),
        bytes!(0x0F, 0xFF, 0xC0),
    ];
    if wrong > 0 { Err("an instruction raised no #UD") } else { Ok(()) }
}
