//! Feature bits that pass from the host to the guest, and those that the
//! machine itself provides.

/// A mask of the bit numbers given.
macro_rules! mask {
    ($($(#[$doc:meta])* $bit:literal)*) => { 0 $(| (1u32 << $bit))* };
}

/// Leaf 1 ECX, XSAVE.
pub(crate) const XSAVE: u32 = 1 << 26;
/// Leaf 1 ECX, OSXSAVE: mirrors CR4.
pub(crate) const OSXSAVE: u32 = 1 << 27;
/// Leaf 1 EDX, HTT: more than one logical processor in the package.
pub(crate) const HTT: u32 = 1 << 28;
/// Leaf 6 EAX: the APIC timer runs in every power state.
pub(crate) const ARAT: u32 = 1 << 2;

/// Leaf 1 ECX from the host: SSE3, PCLMULQDQ, SSSE3, FMA, CMPXCHG16B, PCID,
/// SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
/// Hidden: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, CNXT-ID, SDBG, xTPR,
/// PDCM, DCA.
pub(crate) const ECX_1: u32 = mask!(0 1 9 12 13 17 19 20 22 23 25 26 28 29 30);
/// Leaf 1 ECX of the machine: x2APIC, TSC-deadline timer, hypervisor.
pub(crate) const ECX_1_SET: u32 = mask!(21 24 31);
/// Leaf 1 EDX from the host: FPU, VME, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP,
/// PGE, MCA, CMOV, PSE-36, CLFSH, MMX, FXSR, SSE, SSE2, SS.
/// Hidden: PSN, DS, ACPI (thermal), TM, PBE.
pub(crate) const EDX_1: u32 = mask!(0 1 2 3 4 5 6 7 8 11 13 14 15 17 19 23 24 25 26 27);
/// Leaf 1 EDX of the machine: APIC, MTRR, PAT.
pub(crate) const EDX_1_SET: u32 = mask!(9 12 16);

/// Leaf 7 EBX from the host: FSGSBASE, BMI1, AVX2, FDP_EXCPTN_ONLY, SMEP,
/// BMI2, ERMS, INVPCID, ZERO_FCS_FDS, AVX512F, AVX512DQ, RDSEED, ADX, SMAP,
/// AVX512_IFMA, CLFLUSHOPT, CLWB, AVX512CD, SHA, AVX512BW, AVX512VL.
/// Hidden: SGX, HLE, RTM, PQM, MPX, PQE, Processor Trace.
pub(crate) const EBX_7: u32 = mask!(0 3 5 6 7 8 9 10 13 16 17 18 19 20 21 23 24 28 29 30 31);
/// Leaf 7 EBX of the machine: TSC_ADJUST.
pub(crate) const EBX_7_SET: u32 = mask!(1);
/// Leaf 7 ECX from the host: PREFETCHWT1, AVX512_VBMI, UMIP, AVX512_VBMI2,
/// GFNI, VAES, VPCLMULQDQ, AVX512_VNNI, AVX512_BITALG, AVX512_VPOPCNTDQ,
/// LA57, RDPID. Hidden with XCR0's upper bits: PKU; and WAITPKG, CET, and
/// what needs MSRs of its own.
pub(crate) const ECX_7: u32 = mask!(0 1 2 6 8 9 10 11 12 14 16 22);
/// Leaf 7 EDX from the host: AVX512_4VNNIW, AVX512_4FMAPS, FSRM,
/// AVX512_VP2INTERSECT, MD_CLEAR, SERIALIZE, AVX512_FP16. Hidden: all
/// speculation controls with MSRs, ARCH_CAPABILITIES, AMX, hybrid.
pub(crate) const EDX_7: u32 = mask!(2 3 4 8 10 14 23);
/// Leaf 7 subleaf 1 EAX from the host: AVX-VNNI, AVX512_BF16, FZRM, FSRS, FSRC.
pub(crate) const EAX_7_1: u32 = mask!(4 5 10 11 12);

/// Leaf 0xD subleaf 1 EAX from the host: XSAVEOPT, XSAVEC, XGETBV with ECX 1.
/// Hidden: XSAVES (IA32_XSS), XFD.
pub(crate) const EAX_D_1: u32 = mask!(0 1 2);
/// XCR0 bits that pass: x87, SSE, AVX, and the three of AVX-512.
pub(crate) const XCR0: u64 = 0xE7;

/// Leaf 0x8000_0001 ECX from the host: LAHF, AltMovCr8, ABM, SSE4A,
/// misaligned SSE, 3DNow! prefetch, XOP, FMA4, TBM, TOPOEXT.
/// Hidden: SVM, extended APIC space, OSVW, IBS, SKINIT, WDT, LWP, TCE, the
/// performance counters, DBEXT, MWAITX.
pub(crate) const ECX_8001: u32 = mask!(0 4 5 6 7 8 11 16 21 22);
/// Leaf 0x8000_0001 ECX: the package has more than one core.
pub(crate) const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x8000_0001 EDX from the host: leaf 1's bits as AMD repeats them,
/// SYSCALL, NX, MMX extensions, FFXSR, 1 GiB pages, RDTSCP, long mode,
/// 3DNow! and its extensions.
pub(crate) const EDX_8001: u32 =
    mask!(0 1 2 3 4 5 6 7 8 11 13 14 15 17 20 22 23 24 25 26 27 29 30 31);
/// Leaf 0x8000_0001 EDX that AMD repeats of the machine: APIC, MTRR, PAT.
pub(crate) const EDX_8001_SET: u32 = EDX_1_SET;
/// Leaf 0x8000_0001 EDX, NX.
pub(crate) const NX: u32 = 1 << 20;
/// Leaf 0x8000_0001 EDX, fast FXSAVE and FXRSTOR.
pub(crate) const FFXSR: u32 = 1 << 25;
/// Leaf 0x8000_0007 EDX: invariant TSC.
pub(crate) const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 0x8000_0008 EBX from the host: CLZERO, FP error pointers restored.
pub(crate) const EBX_8008: u32 = mask!(0 2);
/// Leaf 0x8000_0021 EAX from the host: NoNestedDataBp, LFENCE always
/// serialising, null selector clears base.
pub(crate) const EAX_8021: u32 = mask!(0 2 6);
