//! Turning VT-x on for one physical processor.

use crate::detect::{FeatureControl, Features, Unsupported, feature_control, features, has_vmx};
use crate::host::{Host, tss_base};
use crate::processor::VmxVcpu;
use crate::run::{self, Processor};
use crate::vmcs::{self, Roots, ept_pointer};
use crate::{msr, registers};
use addr::{Frame, HostPhys, PAGE_SIZE};
use core::arch::asm;
use core::mem::offset_of;
use core::ptr::NonNull;
use virt::Pages;
use virt::registers::{clear_breakpoints, cpuid, give_floating_point};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::segmentation::{CS, SS, Segment};

/// A page that begins with the revision identifier (SDM 25.2, 25.11.5).
#[repr(C, align(4096))]
struct Region {
    revision: u32,
    /// The processor's own.
    content: [u8; PAGE_SIZE - 4],
}

/// What the processor reads and writes by physical address.
#[repr(C, align(4096))]
pub(crate) struct Block {
    vmxon: Region,
    vmcs: Region,
    msr_bitmap: [u8; msr::MAP_BYTES],
    pub(crate) virtual_apic: [u8; PAGE_SIZE],
}

/// A processor in VMX operation, not yet a virtual processor.
pub struct Vmx {
    features: Features,
    block: NonNull<Block>,
    frame: Frame,
}

impl Vmx {
    /// Contiguous pages that a processor needs.
    pub const PAGES: usize = size_of::<Block>() / PAGE_SIZE;

    /// What this processor offers, without changing anything.
    ///
    /// # Errors
    /// [`Unsupported`] says what lacks.
    ///
    /// # Safety
    /// Runs at privilege level 0.
    pub unsafe fn probe() -> Result<Features, Unsupported> {
        if !has_vmx(cpuid) {
            return Err(Unsupported::NoVmx);
        }
        // SAFETY: `features` asks for MSRs that exist only; a processor with
        // VMX has IA32_FEATURE_CONTROL, and reading changes nothing.
        let read = |number| unsafe { Msr::new(number).read() };
        feature_control(FeatureControl::from_bits_retain(read(msr::FEATURE_CONTROL)))?;
        features(cpuid, read)
    }

    /// Turns VT-x on for the processor this runs on, keeping `pages`
    /// ([`Vmx::PAGES`] of them) for good.
    ///
    /// x87 and SSE are made usable and reset, since they are the guest's from
    /// here on, and CR4.OSXSAVE is set so that XCR0 can be.
    ///
    /// # Errors
    /// [`Unsupported`] says what lacks; no guest can run then.
    ///
    /// # Safety
    /// Runs at privilege level 0, once per processor, after page tables, GDT,
    /// TSS, IDT, FS and GS have been loaded for good: an exit brings back
    /// those of now. The host uses no x87 or SSE register, nor XCR0, CR2 (but
    /// to report a fault), DR0 to DR3, DR6, the MSRs of SYSENTER and SYSCALL,
    /// KERNEL_GS_BASE and TSC_AUX.
    pub unsafe fn enable(pages: Pages) -> Result<Vmx, Unsupported> {
        // SAFETY: at privilege level 0, says the caller.
        let features = unsafe { Vmx::probe() }?;
        let frame = pages.frame();
        // SAFETY: a block is made of integers, for which zeroes are values.
        let mut block: NonNull<Block> = unsafe { pages.into_zeroed() };
        // SAFETY: zeroed, and nobody else's: into_zeroed took the pages.
        let content = unsafe { block.as_mut() };
        content.vmxon.revision = features.revision;
        content.vmcs.revision = features.revision;
        msr::fill(&mut content.msr_bitmap);
        let vmx = Vmx { features, block, frame };
        // SAFETY: all of these registers exist by `features`, the regions have
        // their revision, and the caller gives the processor over.
        unsafe {
            set_registers(&features)?;
            enter_operation(vmx.physical(offset_of!(Block, vmxon)))?;
            load(vmx.physical(offset_of!(Block, vmcs)))?;
        }
        Ok(vmx)
    }

    /// What the processor offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Makes the processor's one virtual processor, over the EPT tables whose
    /// root is `nested` (four levels).
    ///
    /// # Safety
    /// Whenever the virtual processor runs, the tables are valid and map
    /// nothing but memory that is the guest's to read, write and execute as
    /// they say; it runs on this physical processor only, where the IDT can
    /// take interrupts, NMIs and machine checks.
    #[must_use]
    pub unsafe fn new_vcpu(self, nested: Frame) -> VmxVcpu {
        let page = |offset| HostPhys(self.physical(offset)).frame();
        let roots = Roots {
            nested,
            msr_bitmap: page(offset_of!(Block, msr_bitmap)),
            virtual_apic: page(offset_of!(Block, virtual_apic)),
        };
        // SAFETY: `enable` made the VMCS current and was given the registers;
        // its host state is set right below, and the caller answers for the
        // tables and the IDT.
        let mut processor = unsafe { Processor::new(self.block) };
        vmcs::prepare(&mut processor, &self.features.controls, roots);
        // SAFETY: at privilege level 0, since `enable` was.
        unsafe { host() }.write(&mut processor);
        VmxVcpu::new(self.features, processor, ept_pointer(nested))
    }

    fn physical(&self, offset: usize) -> u64 {
        self.frame.start().0 + offset as u64
    }
}

/// Sets what VMXON wants to find (SDM 24.7, 24.8).
///
/// # Safety
/// At privilege level 0, on a processor with these features, whose x87, SSE,
/// XCR0, debug address registers and TSC_AUX the host does not use.
unsafe fn set_registers(features: &Features) -> Result<(), Unsupported> {
    let fixed = |now: u64, [ones, may]: [u64; 2]| (now | ones) & may;
    // SAFETY: `features` says that the registers exist; bits that VMX wants
    // to be 1 are PE, NE and PG of CR0 and VMXE of CR4, of which the host has
    // all but VMXE, and those that it wants to be 0 exist on no such processor.
    unsafe {
        let mut control = Msr::new(msr::FEATURE_CONTROL);
        let now = FeatureControl::from_bits_retain(control.read());
        if let Some(value) = feature_control(now)? {
            control.write(value.bits());
        }
        give_floating_point(features.xsave);
        Cr0::write_raw(fixed(Cr0::read_raw(), features.cr0_fixed));
        Cr4::write_raw(fixed(Cr4::read_raw() | registers::CR4_VMXE, features.cr4_fixed));
        if features.has_rdtscp() {
            Msr::new(msr::TSC_AUX).write(0);
        }
        clear_breakpoints();
    }
    Ok(())
}

/// Enters VMX operation, and drops what EPT translations are left of an
/// earlier one.
///
/// # Safety
/// `region` is the physical address of a page with the revision identifier
/// that is the processor's for good; what SDM 24.7 asks for is set.
unsafe fn enter_operation(region: u64) -> Result<(), Unsupported> {
    let failed: u8;
    // SAFETY: the caller answers for the region and the registers.
    unsafe {
        asm!("vmxon [{}]", "setbe {}", in(reg) &raw const region, out(reg_byte) failed,
            options(nostack));
    }
    if failed == 0 { Ok(()) } else { Err(Unsupported::Refused) }
}

/// Makes a VMCS the current one.
///
/// # Safety
/// `region` is the physical address of a page with the revision identifier
/// that is the processor's for good; the processor is in VMX operation.
unsafe fn load(region: u64) -> Result<(), Unsupported> {
    let (not_clear, not_loaded): (u8, u8);
    // SAFETY: the caller answers for the region.
    unsafe {
        asm!("vmclear [{}]", "setbe {}", in(reg) &raw const region, out(reg_byte) not_clear,
            options(nostack));
        asm!("vmptrld [{}]", "setbe {}", in(reg) &raw const region, out(reg_byte) not_loaded,
            options(nostack));
    }
    if not_clear | not_loaded == 0 { Ok(()) } else { Err(Unsupported::Refused) }
}

/// Reads the host state of now.
///
/// # Safety
/// At privilege level 0, with a GDT that has the task register's descriptor.
unsafe fn host() -> Host {
    let (cr3, flags) = Cr3::read_raw();
    let (gdt, idt) = (sgdt(), sidt());
    let tr: u16;
    // SAFETY: reading registers that exist in long mode has no effect; TR was
    // loaded from this table, so its descriptor of 16 bytes lies there.
    unsafe {
        asm!("str {:x}", out(reg) tr, options(nostack, nomem, preserves_flags));
        let descriptor = gdt.base.as_ptr::<u64>().add(usize::from(tr >> 3));
        let read = |number| Msr::new(number).read();
        Host {
            cr: [Cr0::read_raw(), cr3.start_address().as_u64() | u64::from(flags), Cr4::read_raw()],
            pat: read(msr::PAT),
            efer: read(msr::EFER),
            selectors: [CS::get_reg().0, SS::get_reg().0, tr],
            fs_base: read(msr::FS_BASE),
            gs_base: read(msr::GS_BASE),
            tr_base: tss_base([descriptor.read_unaligned(), descriptor.add(1).read_unaligned()]),
            gdtr_base: gdt.base.as_u64(),
            idtr_base: idt.base.as_u64(),
            rip: run::exited as *const () as u64,
        }
    }
}

const _: () = {
    assert!(Vmx::PAGES == 4);
    assert!(offset_of!(Block, vmcs) == 0x1000);
    assert!(offset_of!(Block, msr_bitmap) == 0x2000);
    assert!(offset_of!(Block, virtual_apic) == 0x3000);
};
