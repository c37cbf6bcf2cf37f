//! The vendor of this processor: chosen once, known nowhere else.

use crate::ending::{self, Class};
use addr::Frame;
use core::ptr::NonNull;
use paging::Format;
use platform::Platform;
use svm::{Svm, SvmVcpu};
use virt::Pages;
use virt::registers::cpuid;
use vmx::{Vmx, VmxVcpu};

/// A processor that can run a guest.
pub(crate) enum Backend {
    Amd(Svm),
    Intel(Vmx),
}

/// Its virtual processor.
pub(crate) enum BackendVcpu {
    Amd(SvmVcpu),
    Intel(VmxVcpu),
}

impl Backend {
    /// Turns virtualisation on, or says what the machine lacks.
    pub(crate) fn start(platform: &mut Platform) -> Backend {
        let lacks = |lack: &dyn core::fmt::Display| -> ! {
            ending::give_up(Class::Cpu, format_args!("{lack}"))
        };
        if is_intel() {
            let pages = pages(platform, Vmx::PAGES);
            // SAFETY: once, on the only processor that runs, with its page tables
            // and descriptor tables final.
            let vmx = unsafe { Vmx::enable(pages) }.unwrap_or_else(|lack| lacks(&lack));
            Backend::Intel(vmx)
        } else {
            let pages = pages(platform, Svm::PAGES);
            // SAFETY: once, on the only processor that runs, with its descriptor
            // tables final.
            let svm = unsafe { Svm::enable(pages) }.unwrap_or_else(|lack| lacks(&lack));
            Backend::Amd(svm)
        }
    }

    /// The format of this processor's nested page tables.
    pub(crate) fn format(&self) -> Format {
        match self {
            Backend::Amd(_) => Format::NPT,
            Backend::Intel(_) => Format::EPT,
        }
    }

    /// Makes the processor's one virtual processor.
    ///
    /// # Safety
    /// As [`Svm::new_vcpu`] and [`Vmx::new_vcpu`]; the tables are in
    /// [`Backend::format`].
    pub(crate) unsafe fn new_vcpu(self, nested: Frame) -> BackendVcpu {
        // SAFETY: passed on to the caller.
        unsafe {
            match self {
                Backend::Amd(svm) => BackendVcpu::Amd(svm.new_vcpu(nested)),
                Backend::Intel(vmx) => BackendVcpu::Intel(vmx.new_vcpu(nested)),
            }
        }
    }
}

/// Whether to look for VT-x: where it is shown, or where nothing is shown but
/// the vendor is one that would have VT-x.
fn is_intel() -> bool {
    const VENDORS: [&[u8; 12]; 3] = [b"GenuineIntel", b"CentaurHauls", b"  Shanghai  "];
    let [_, b, c, d] = cpuid(0, 0);
    let mut name = [0; 12];
    for (part, word) in name.chunks_exact_mut(4).zip([b, d, c]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    vmx::detect::has_vmx(cpuid) || VENDORS.contains(&&name)
}

/// Frames that the processor keeps for good.
fn pages(platform: &mut Platform, count: usize) -> Pages {
    let frame = platform.boot_memory.alloc_frames(count as u64, 1);
    let place = frame.and_then(|f| Some((f, NonNull::new(platform.memory.pointer(f))?)));
    let Some((frame, base)) = place else {
        ending::give_up(Class::Memory, format_args!("this node has no memory left for a vCPU"))
    };
    // SAFETY: the frames are contiguous RAM, identity mapped, and were given
    // to this call alone and for good.
    unsafe { Pages::new(frame, base, count) }
}
