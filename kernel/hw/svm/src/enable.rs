//! Turning SVM on for one physical processor.

use crate::detect::{Features, SvmFlags, Unsupported, features, must_unlock};
use crate::msr::{EFER, TSC_AUX, TSC_RATIO, VM_CR, VM_HSAVE_PA, VmCr};
use crate::processor::SvmVcpu;
use crate::state::EFER_SVME;
use crate::vmcb::{Roots, Vmcb};
use crate::{msr, ports, run};
use addr::{Frame, PAGE_SIZE};
use core::mem::offset_of;
use core::ptr::NonNull;
use virt::Pages;
use virt::registers::{clear_breakpoints, cpuid, give_floating_point};
use x86_64::registers::model_specific::Msr;

/// What the processor reads and writes by physical address.
#[repr(C, align(4096))]
pub(crate) struct Block {
    /// Host state save area (APM 15.30.4); its content is the processor's.
    host_save: [u8; PAGE_SIZE],
    /// The host's part of what VMLOAD and VMSAVE swap.
    host: Vmcb,
    /// The guest.
    pub(crate) guest: Vmcb,
    msrpm: [u8; msr::MAP_BYTES],
    iopm: [u8; ports::MAP_BYTES],
}

/// A processor with SVM on, not yet a virtual processor.
pub struct Svm {
    features: Features,
    block: NonNull<Block>,
    frame: Frame,
}

impl Svm {
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
        let features = features(cpuid)?;
        // SAFETY: a processor with SVM has VM_CR, and reading it changes nothing.
        must_unlock(VmCr::from_bits_retain(unsafe { Msr::new(VM_CR).read() }))?;
        Ok(features)
    }

    /// Turns SVM on for the processor this runs on, keeping `pages`
    /// ([`Svm::PAGES`] of them) for good.
    ///
    /// x87 and SSE are made usable and reset, since they are the guest's from
    /// here on, and CR4.OSXSAVE is set so that XCR0 can be.
    ///
    /// # Errors
    /// [`Unsupported`] says what lacks; the processor is as before then.
    ///
    /// # Safety
    /// Runs at privilege level 0, once per processor, after GDT, TSS, IDT, FS
    /// and GS have been loaded for good: an exit brings back the FS, GS, TR
    /// and LDTR of now. The host uses no x87 or SSE register, nor XCR0, DR0
    /// to DR3, TSC_AUX.
    pub unsafe fn enable(pages: Pages) -> Result<Svm, Unsupported> {
        // SAFETY: at privilege level 0, says the caller.
        let features = unsafe { Svm::probe() }?;
        let frame = pages.frame();
        // SAFETY: a block is made of bytes and of VMCBs, for which zeroes are values.
        let mut block: NonNull<Block> = unsafe { pages.into_zeroed() };
        // SAFETY: zeroed, and nobody else's: into_zeroed took the pages.
        let maps = unsafe { block.as_mut() };
        msr::fill(&mut maps.msrpm);
        ports::fill(&mut maps.iopm);
        let svm = Svm { features, block, frame };
        // SAFETY: all of these registers exist by `features`, and the caller
        // gives this processor over to the guest.
        unsafe {
            set_registers(&features, svm.physical(offset_of!(Block, host_save)));
            run::save_host(svm.physical(offset_of!(Block, host)));
        }
        Ok(svm)
    }

    /// What the processor offers.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// Makes the processor's one virtual processor, over the nested page
    /// tables whose root is `nested` (four levels, as the host's own).
    ///
    /// # Safety
    /// Whenever the virtual processor runs, the tables are valid and map
    /// nothing but memory that is the guest's to read, write and execute as
    /// they say; it runs on this physical processor only, where the IDT can
    /// take interrupts, NMIs and machine checks.
    #[must_use]
    pub unsafe fn new_vcpu(mut self, nested: Frame) -> SvmVcpu {
        let map = |offset| addr::HostPhys(self.physical(offset)).frame();
        let roots = Roots {
            nested,
            msrpm: map(offset_of!(Block, msrpm)),
            iopm: map(offset_of!(Block, iopm)),
        };
        let guest = self.physical(offset_of!(Block, guest));
        let host = self.physical(offset_of!(Block, host));
        // SAFETY: the block is ours, and no guest runs from it yet.
        unsafe { self.block.as_mut() }.guest.prepare(roots);
        SvmVcpu::new(self.features, self.block, guest, host)
    }

    fn physical(&self, offset: usize) -> u64 {
        self.frame.start().0 + offset as u64
    }
}

/// Writes the control registers and MSRs that a guest needs set in the host.
///
/// # Safety
/// At privilege level 0, on a processor with these features, whose x87, SSE,
/// XCR0, debug address registers and TSC_AUX the host does not use.
/// `host_save` is the physical address of a page kept for the processor.
unsafe fn set_registers(features: &Features, host_save: u64) {
    const EFER_NXE: u64 = 1 << 11;
    let no_execute = if features.no_execute { EFER_NXE } else { 0 };
    // SAFETY: the bits and registers exist by `features`, and the host does
    // not use those that become the guest's. NXE makes bit 63 of page table
    // entries mean no-execute, for the nested tables as for the host's own.
    unsafe {
        give_floating_point(features.xsave);
        let vm_cr = VmCr::from_bits_retain(Msr::new(VM_CR).read());
        if vm_cr.contains(VmCr::SVMDIS) {
            Msr::new(VM_CR).write(vm_cr.difference(VmCr::SVMDIS).bits());
        }
        let efer = Msr::new(EFER).read();
        Msr::new(EFER).write(efer | EFER_SVME | no_execute);
        Msr::new(VM_HSAVE_PA).write(host_save);
        if features.svm.contains(SvmFlags::TSC_RATIO) {
            Msr::new(TSC_RATIO).write(1 << 32);
        }
        if features.tsc_aux {
            Msr::new(TSC_AUX).write(0);
        }
        clear_breakpoints();
    }
}

const _: () = {
    assert!(Svm::PAGES == 8);
    assert!(offset_of!(Block, host) == 0x1000);
    assert!(offset_of!(Block, guest) == 0x2000);
    assert!(offset_of!(Block, msrpm) == 0x3000);
    assert!(offset_of!(Block, iopm) == 0x5000);
};
