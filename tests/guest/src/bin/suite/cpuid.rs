//! CPUID: what holds on every vendor's processor, and whether leaves agree
//! with each other and with what the processor does.

use crate::report::Report;
use crate::{Test, apic, paging, remote};
use core::arch::x86_64::CpuidResult;

/// The tests.
pub(crate) const TESTS: &[Test] = &[
    ("cpuid.range", range),
    ("cpuid.features", features),
    ("cpuid.hypervisor", hypervisor),
    ("cpuid.topology", topology),
    ("cpuid.osxsave", osxsave),
    ("cpuid.xsave", xsave),
    ("cpuid.registers", whole_registers),
];

/// CR4.OSXSAVE.
const OSXSAVE: u64 = 1 << 18;

fn ask(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

fn words(r: CpuidResult) -> [u32; 4] {
    [r.eax, r.ebx, r.ecx, r.edx]
}

/// Whether bit `bit` of leaf 1 ECX is set.
fn has(bit: u32) -> bool {
    ask(1, 0).ecx >> bit & 1 != 0
}

fn range(r: &mut Report) {
    let (basic, extended) = (ask(0, 0), ask(0x8000_0000, 0));
    r.hold("leaves up to 0xB", basic.eax >= 0xB || !remote::is_pangaea());
    r.hold("extended leaves up to 8", (0x8000_0008..0x8000_0100).contains(&extended.eax));
    let vendor = [basic.ebx, basic.edx, basic.ecx];
    let known = [*b"GenuineIntel", *b"AuthenticAMD"];
    let text: [u8; 12] = core::array::from_fn(|i| vendor[i / 4].to_le_bytes()[i % 4]);
    r.hold("a vendor", known.contains(&text));
    // AMD repeats the name in leaf 0x8000_0000, Intel leaves it empty.
    let again = [extended.ebx, extended.edx, extended.ecx];
    r.hold("one vendor", again == vendor || again == [0; 3]);
    // The upper bits of a leaf that does not exist mean nothing; of one
    // beyond, AMD says zeroes and Intel repeats the highest basic leaf.
    let beyond = words(ask(extended.eax + 0x1000, 0));
    let highest = words(ask(basic.eax, 0));
    r.hold("beyond the last leaf", beyond == [0; 4] || beyond == highest);
}

fn features(r: &mut Report) {
    let (f, e) = (ask(1, 0), ask(0x8000_0001, 0));
    // FPU, TSC, MSR, PAE, CX8, APIC, PGE, CMOV, PAT, FXSR, SSE, SSE2: what
    // long mode asks for.
    let base = 0x0700_A371 & !(1 << 12);
    r.want("base", f.edx & base, base);
    r.want("syscall-nx-lm", e.edx & (1 << 11 | 1 << 20 | 1 << 29), 1 << 11 | 1 << 20 | 1 << 29);
    r.want("lahf", e.ecx & 1, 1);
    // VMX, SMX, MONITOR; SVM.
    let hidden = f.ecx & (1 << 5 | 1 << 6 | 1 << 3) | e.ecx & 1 << 2;
    if remote::is_pangaea() {
        r.want("virtualization", hidden, 0);
        r.want("x2apic-deadline", f.ecx & (1 << 21 | 1 << 24), 1 << 21 | 1 << 24);
        let power = ask(0x8000_0007, 0).edx;
        r.want("invariant-tsc", power >> 8 & 1, 1);
    }
    r.hold("AVX only with XSAVE", f.ecx & 1 << 28 == 0 || f.ecx & 1 << 26 != 0);
    r.hold("AVX2 only with AVX", ask(7, 0).ebx & 1 << 5 == 0 || f.ecx & 1 << 28 != 0);
    // AMD repeats leaf 1 EDX, bits 0 to 9 and others, in 0x8000_0001.
    let repeated = 0x0183_F3FF;
    r.hold("both leaves agree", e.edx & 1 == 0 || e.edx & repeated == f.edx & repeated);
    let sizes = ask(0x8000_0008, 0).eax;
    r.hold_that("address bits", sizes, (36..=52).contains(&(sizes & 0xFF)));
    let large = ask(7, 0).ecx & 1 << 16 != 0;
    let linear = if large { 57 } else { 48 };
    r.hold_that("linear bits", sizes, sizes >> 8 & 0xFF == linear);
}

fn hypervisor(r: &mut Report) {
    r.want("present", has(31), true);
    let base = ask(0x4000_0000, 0);
    r.hold("a range", (0x4000_0000..0x4001_0000).contains(&base.eax));
    if remote::is_pangaea() {
        r.want("kvm", [base.ebx, base.ecx, base.edx], [0x4B4D_564B, 0x564B_4D56, 0x4D]);
        r.want("range", ask(0x4000_0100, 0).eax, 0x4000_0101);
        r.want("unused", words(ask(0x4000_0002, 0)), [0; 4]);
    }
}

fn topology(r: &mut Report) {
    let first = ask(1, 0).ebx >> 24;
    let apic = apic::read(apic::ID);
    let id = if apic::has_x2apic() { apic as u32 } else { apic as u32 >> 24 };
    r.want("leaf-1", first, id & 0xFF);
    if ask(0, 0).eax < 0xB {
        return r.skip("no topology leaf");
    }
    let (thread, core) = (ask(0xB, 0), ask(0xB, 1));
    r.want("kinds", [thread.ecx, core.ecx], [0x100, 0x201]);
    r.want("ids", [thread.edx, core.edx], [id, id]);
    r.hold("shifts", thread.eax & 0x1F <= core.eax & 0x1F);
    r.hold("threads", thread.ebx >= 1 && core.ebx >= thread.ebx);
    let end = ask(0xB, 2);
    r.want("end", [end.eax, end.ebx, end.ecx, end.edx], [0, 0, 2, id]);
    r.hold("cores", core.ebx.next_power_of_two() <= 1 << (core.eax & 0x1F));
}

fn osxsave(r: &mut Report) {
    if !has(26) {
        return r.skip("no XSAVE");
    }
    let seen = [(0, OSXSAVE), (OSXSAVE, 0), (0, OSXSAVE)]
        .map(|change| paging::with_control((0, 0), change, || has(27)));
    r.want("osxsave", seen, [false, true, false]);
}

fn xsave(r: &mut Report) {
    if !has(26) {
        return r.skip("no XSAVE");
    }
    paging::with_control((0, 0), (OSXSAVE, 0), || {
        let set = |value: u32| crate::trap::attempt!(["xsetbv"] in("ecx") 0, in("eax") value, in("edx") 0);
        let all = ask(0xD, 0);
        r.want("x87-sse", all.eax & 3, 3);
        let sizes = [1, 3].map(|value| {
            let fault = set(value);
            (fault, ask(0xD, 0).ebx)
        });
        // Legacy region and header, 576 bytes (AMD APM volume 2, 11.5.8).
        r.want("sizes", sizes, [(None, 576), (None, 576)]);
        r.hold("the largest", all.ecx >= 576 && ask(0xD, 0).ecx == all.ecx);
        if has(28) {
            let avx = ask(0xD, 2);
            r.want("avx", [avx.eax, avx.ebx], [256, 576]);
            r.want("with-avx", (set(7), ask(0xD, 0).ebx), (None, 832));
        }
        let _ = set(1);
    });
}

/// CPUID writes whole registers and no others.
fn whole_registers(r: &mut Report) {
    let high = 0xFFFF_FFFF_0000_0000u64;
    let (mut a, mut c, d, b): (u64, u64, u64, u64);
    (a, c) = (high, high);
    let mut others = [0x1111u64, 0x2222, 0x3333];
    let fault = crate::trap::attempt!(["xchg {b}, rbx", "cpuid", "xchg {b}, rbx"]
        b = inout(reg) high => b, inout("rax") a, inout("rcx") c, inout("rdx") high => d,
        inout("rsi") others[0], inout("rdi") others[1], inout("r15") others[2]);
    r.want("fault", fault, None);
    r.want("upper-halves", [a, b, c, d].map(|v| v >> 32), [0; 4]);
    r.want("others", others, [0x1111, 0x2222, 0x3333]);
}
