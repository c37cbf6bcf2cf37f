//! MSRs and control registers: values, and what is refused.

use crate::report::Emulator::Tcg;
use crate::report::Report;
use crate::trap::{PROTECTION, UNDEFINED, attempt};
use crate::{Test, apic, msrs, paging, remote};

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("msr.unknown", unknown),
    ("msr.reserved", reserved),
    ("msr.kept", kept),
    ("msr.canonical", canonical),
    ("msr.efer", efer),
    ("msr.registers", whole_registers),
    ("apic.base", apic_base),
    ("apic.registers", apic_registers),
    ("control.cr0", cr0),
    ("control.cr4", cr4),
    ("control.cr3", cr3),
    ("control.xcr0", xcr0),
    ("control.instructions", instructions),
];

const EFER: u32 = 0xC000_0080;
const PAT: u32 = 0x277;
/// CR4.OSXSAVE.
const OSXSAVE: u64 = 1 << 18;

fn unknown(r: &mut Report) {
    // Numbers that neither vendor has ever given.
    for msr in [0x0000_8000, 0x1234_5678, 0x9000_0000, 0xC000_1FFF, 0xFFFF_FFFF] {
        // QEMU answers all that it does not know.
        let known = (Tcg, [None, None]);
        let read = msrs::read(msr).err().flatten();
        let got = [read, msrs::write(msr, 0)];
        if remote::is_pangaea() {
            r.want("unknown", got, [PROTECTION; 2]);
        } else {
            r.except("unknown", got, [PROTECTION; 2], known, "unknown MSRs are ignored");
        }
    }
}

fn reserved(r: &mut Report) {
    let pat = msrs::read(PAT).unwrap_or(0);
    // Types 2 and 3 do not exist (AMD APM volume 2, 7.8.1).
    let bad = [2, 3 << 8, 8 << 16, 0xFF << 56].map(|v| msrs::write(PAT, v));
    let known = (Tcg, [None; 4]);
    if remote::is_pangaea() {
        r.want("pat", bad, [PROTECTION; 4]);
    } else {
        r.except("pat", bad, [PROTECTION; 4], known, "PAT takes anything");
    }
    let _ = msrs::write(PAT, pat);
    let base = msrs::read(apic::BASE).unwrap_or(0);
    if remote::is_pangaea() {
        let bad = [base | 1, base | 1 << 9, base | 1 << 52, base | 1 << 63];
        r.want("apic-base", bad.map(|v| msrs::write(apic::BASE, v)), [PROTECTION; 4]);
        let mtrr = [(0x2FFu32, 0x1000u64), (0x2FF, 2), (0x250, 2), (0xFE, 0)];
        r.want("mtrr", mtrr.map(|(m, v)| msrs::write(m, v)), [PROTECTION; 4]);
    }
}

fn kept(r: &mut Report) {
    // SYSENTER_CS, ESP, EIP; STAR, LSTAR, CSTAR; FS, GS, KernelGS base; PAT;
    // TSC_AUX.
    let registers: [(u32, u64); 11] = [
        (0x174, 0x1234),
        (0x175, 0xFFFF_8000_1234_5678),
        (0x176, 0x7FFF_8765_4321),
        (0xC000_0081, 0x1234_5678_9ABC_DEF0),
        (0xC000_0082, 0xFFFF_FFFF_8000_0000),
        (0xC000_0083, 0x0000_7FFF_FFFF_FFFF),
        (0xC000_0100, 0x0000_7000_0000_1000),
        (0xC000_0101, 0xFFFF_8000_0000_1000),
        (0xC000_0102, 0x10),
        (PAT, 0x0007_0406_0105_0006),
        (0xC000_0103, 0xDEAD),
    ];
    for (msr, value) in registers {
        let before = msrs::read(msr).unwrap_or(0);
        let fault = msrs::write(msr, value);
        r.want("msr", (msr, fault, msrs::read(msr)), (msr, None, Ok(value)));
        let _ = msrs::write(msr, before);
    }
}

fn canonical(r: &mut Report) {
    for msr in [0xC000_0082u32, 0xC000_0083, 0xC000_0100, 0xC000_0101, 0xC000_0102] {
        let before = msrs::read(msr).unwrap_or(0);
        let got = [0x0000_8000_0000_0000, 0x8000_0000_0000_0000].map(|v| msrs::write(msr, v));
        let known = (Tcg, [None; 2]);
        r.except(
            "msr",
            (msr, got),
            (msr, [PROTECTION; 2]),
            (known.0, (msr, known.1)),
            "WRMSR does not look whether an address is canonical",
        );
        let _ = msrs::write(msr, before);
    }
}

fn efer(r: &mut Report) {
    let efer = msrs::read(EFER).unwrap_or(0);
    r.want("lma-lme", efer >> 8 & 5, 5);
    let values = [efer & !(1 << 8), efer | 1 << 1, efer | 1 << 40, efer | 1 << 63];
    let got = values.map(|v| msrs::write(EFER, v));
    let known = (Tcg, [None; 4]);
    if remote::is_pangaea() {
        r.want("refused", got, [PROTECTION; 4]);
    } else {
        r.except("refused", got, [PROTECTION; 4], known, "EFER ignores what it does not know");
    }
    let nx = (msrs::write(EFER, efer | 1 << 11), msrs::read(EFER).unwrap_or(0) >> 11 & 1);
    r.want("nx", nx, (None, 1));
    let _ = msrs::write(EFER, efer);
    r.want("back", msrs::read(EFER), Ok(efer));
}

/// RDMSR clears the upper halves and takes only ECX.
fn whole_registers(r: &mut Report) {
    let high = 0xFFFF_FFFF_0000_0000u64;
    let (mut a, mut c, mut d) = (high, high | u64::from(EFER), high);
    let fault = attempt!(["rdmsr"] inout("rax") a, inout("rcx") c, inout("rdx") d);
    r.want("read", (fault, a >> 32, c, d), (None, 0, high | u64::from(EFER), 0));
    // WRMSR takes EDX:EAX whatever is above.
    (a, c, d) = (high | 0x5678, high | 0x176, high | 0x1234);
    let fault = attempt!(["wrmsr"] inout("rax") a, inout("rcx") c, inout("rdx") d);
    r.want("write", (fault, msrs::read(0x176)), (None, Ok(0x1234_0000_5678)));
    r.want("left", [a, c, d], [high | 0x5678, high | 0x176, high | 0x1234]);
    let _ = msrs::write(0x176, 0);
}

fn apic_base(r: &mut Report) {
    let base = msrs::read(apic::BASE).unwrap_or(0);
    r.want("place", base & 0xFFFF_F000, apic::PLACE);
    r.want("bsp-enabled", base >> 8 & 9, 9);
    if !apic::has_x2apic() {
        return r.skip("no x2APIC");
    }
    // Modes change as Intel SDM vol. 3, figure 11-27 has it.
    let x2 = base | apic::X2APIC;
    let off = base & !(apic::X2APIC | apic::ENABLED);
    let x1 = off | apic::ENABLED;
    let walk = [x1, off, off | apic::X2APIC, x2, off, x1, x2];
    let got = walk.map(|v| msrs::write(apic::BASE, v));
    let want = [PROTECTION, None, PROTECTION, PROTECTION, None, None, None];
    r.want("walk", got, want);
    apic::install();
}

fn apic_registers(r: &mut Report) {
    if !apic::has_x2apic() {
        return r.skip("no x2APIC");
    }
    let version = apic::read(apic::VERSION);
    r.hold_that("version", version, (0x10..=0x15).contains(&(version & 0xFF)));
    // EOI and self IPI can only be written; ID, version, ISR and the current
    // count only be read; what is in between is not there.
    let msr = apic::msr;
    let read = [apic::EOI, apic::SELF_IPI, 0x310, 0xE0].map(|a| msrs::read(msr(a)).err().flatten());
    r.want("no-read", read, [PROTECTION; 4]);
    let write = [apic::ID, apic::VERSION, apic::ISR, apic::CURRENT_COUNT, apic::PPR, 0xD0, 0x310];
    r.want("no-write", write.map(|a| msrs::write(msr(a), 0)), [PROTECTION; 7]);
    // Reserved bits, and an EOI that is not 0.
    let bad =
        [(apic::TPR, 0x100), (apic::SPURIOUS, 1 << 13), (apic::EOI, 1), (apic::TIMER, 1 << 20)];
    r.want("reserved", bad.map(|(a, v)| msrs::write(msr(a), v)), [PROTECTION; 4]);
    let wide = [(apic::TPR, 1u64 << 32), (apic::DIVIDE, 1 << 32), (apic::SELF_IPI, 0x100)];
    r.want("wide", wide.map(|(a, v)| msrs::write(msr(a), v)), [PROTECTION; 3]);
    r.want(
        "logical",
        apic::read(0xD0),
        1 << (apic::read(apic::ID) & 15) | apic::read(apic::ID) >> 4 << 16,
    );
}

/// Writes CR0, and puts the old value back in one go.
macro_rules! flip {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        attempt!([
            concat!("mov {old}, ", $register),
            concat!("mov ", $register, ", {new}"),
            concat!("mov ", $register, ", {old}"),
        ] old = out(reg) _, new = in(reg) value)
    }};
}

fn cr0(r: &mut Report) {
    let cr0 = paging::cr0();
    // NW without CD; PG without PE; the upper half.
    let values = [cr0 & !(1 << 30) | 1 << 29, cr0 & !1, cr0 | 1 << 32, cr0 | 1 << 63];
    let why = "MOV to CR0 is not checked";
    // The second would leave TCG in a mode that no processor has.
    for i in [0, 2, 3] {
        r.except("refused", (i, flip!("cr0", values[i])), (i, PROTECTION), (Tcg, (i, None)), why);
    }
    let known = [1 << 1, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30].map(|b| flip!("cr0", cr0 ^ b));
    r.want("taken", known, [None; 6]);
    // ET is always 1, reserved bits of the lower half read as 0.
    let after: u64;
    let fault =
        attempt!(["mov cr0, {v}", "mov {v}, cr0"] v = inout(reg) cr0 & !0x10 | 1 << 6 => after);
    r.except("fixed", (fault, after), (None, cr0), (Tcg, (None, cr0 | 1 << 6)), why);
    let _ = attempt!(["mov cr0, {v}"] v = in(reg) cr0);
}

fn cr4(r: &mut Report) {
    let cr4 = paging::cr4();
    let seven = core::arch::x86_64::__cpuid_count(7, 0);
    let one = core::arch::x86_64::__cpuid(1);
    // Bit, whether CPUID offers it.
    let bits: [(u32, bool); 9] = [
        (13, one.ecx >> 5 & 1 != 0),    // VMXE
        (14, one.ecx >> 6 & 1 != 0),    // SMXE
        (19, false),                    // key locker
        (20, seven.ebx >> 7 & 1 != 0),  // SMEP
        (21, seven.ebx >> 20 & 1 != 0), // SMAP
        (22, seven.ecx >> 3 & 1 != 0),  // PKE
        (23, false),                    // CET
        (24, false),                    // PKS
        (33, false),
    ];
    // QEMU 7.2 ends VMRUN for them as if it had refused the guest, and without
    // a VMRUN it executes the instruction over and over.
    r.unless("unknown", Tcg, "reserved bits of CR4 end the guest", [true; 9], || {
        bits.map(|(bit, offered)| {
            let fault = flip!("cr4", cr4 ^ 1 << bit);
            fault == if offered { None } else { PROTECTION }
        })
    });
    r.want("always", [2, 3, 4, 6, 7, 9, 10].map(|b| flip!("cr4", cr4 ^ 1 << b)), [None; 7]);
    // Whether there are five levels or not, long mode cannot change to them.
    r.unless("la57", Tcg, "it takes the bit", PROTECTION, || flip!("cr4", cr4 ^ 1 << 12));
    r.unless("pae", Tcg, "it leaves long mode", PROTECTION, || flip!("cr4", cr4 & !(1 << 5)));
}

fn cr3(r: &mut Report) {
    let root = paging::root();
    // Bits above the physical address are reserved (AMD APM volume 2, 5.3.2).
    r.unless("reserved", Tcg, "reserved bits of CR3 end the guest", PROTECTION, || {
        flip!("cr3", root | 1 << 60)
    });
    r.want("cache-bits", [flip!("cr3", root | 1 << 3), flip!("cr3", root | 1 << 4)], [None; 2]);
}

fn xcr0(r: &mut Report) {
    if core::arch::x86_64::__cpuid(1).ecx & 1 << 26 == 0 {
        return r.skip("no XSAVE");
    }
    let set = |register: u32, value: u64| {
        attempt!(["xsetbv"] in("ecx") register, in("eax") value as u32,
            in("edx") (value >> 32) as u32)
    };
    r.want("closed", set(0, 1), UNDEFINED);
    r.want("closed-read", attempt!(["xgetbv"] in("ecx") 0, out("eax") _, out("edx") _), UNDEFINED);
    paging::with_control((0, 0), (OSXSAVE, 0), || {
        r.want("taken", [set(0, 3), set(0, 1)], [None; 2]);
        // No x87; AVX without SSE; what nobody has; another register.
        let bad = [(0, 0), (0, 2), (0, 5), (0, 1 << 62), (1, 1), (7, 3)];
        r.want("refused", bad.map(|(c, v)| set(c, v)), [PROTECTION; 6]);
        let (low, high): (u64, u64);
        let fault = attempt!(["xgetbv"] in("ecx") 0, inout("rax") u64::MAX => low,
            inout("rdx") u64::MAX => high);
        r.want("read", (fault, low, high), (None, 1, 0));
        let fault = attempt!(["xgetbv"] in("ecx") 7, out("eax") _, out("edx") _);
        r.except("read-7", fault, PROTECTION, (Tcg, None), "XGETBV of another register");
    });
}

/// Instructions that exit without a value.
fn instructions(r: &mut Report) {
    r.want("wbinvd", attempt!(["wbinvd"]), None);
    r.want("invd", attempt!(["invd"]), None);
    r.want("pause", attempt!(["pause"]), None);
    r.want("rsm", attempt!(["rsm"]), UNDEFINED);
    r.want("ud2", attempt!(["ud2"]), UNDEFINED);
    if !remote::is_pangaea() {
        // There they may be, and MWAIT may sleep for ever.
        return;
    }
    let monitor = attempt!(["monitor"] in("rax") paging::arena(0), in("ecx") 0, in("edx") 0);
    let mwait = attempt!(["mwait"] in("eax") 0, in("ecx") 0);
    r.want("monitor", [monitor, mwait], [UNDEFINED; 2]);
    // No counter 0x3FFF on any processor.
    let fault = attempt!(["rdpmc"] in("ecx") 0x3FFF, out("eax") _, out("edx") _);
    r.want("rdpmc", fault, PROTECTION);
}
