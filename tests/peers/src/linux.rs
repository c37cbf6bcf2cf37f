//! A virtual machine with an operating system: Linux and its initial RAM disk
//! on KVM's own interrupt controllers and timer, with serial ports and nothing
//! else, neither ACPI nor PCI.
//!
//! The kernel is entered by Linux's 64-bit boot protocol (Linux
//! Documentation/arch/x86/boot.rst). All of its memory but [`OWN`] is paged,
//! kernel and page cache too.

use crate::link::{Link, PAGE};
use crate::memory::Mapping;
use crate::pager::Pager;
use crate::ports::{self, Ports};
use crate::uffd::Uffd;
use crate::vcpu;
use crate::vmm::{self, OWN};
use crate::words::Words;
use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_pit_config};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::ops::Range;

/// The kernel's words: a reset that KVM tells of when it panics. A timer that
/// is late on a busy host is no reason to give up.
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 reboot=t no_timer_check";
/// End of the memory below 640 KiB that firmware leaves.
const LOW_END: u64 = 0x9_FC00;
const HIGH: u64 = 1 << 20;
/// Offsets in the setup header, which are the same in the boot parameters.
const HEADER: usize = 0x1F1;
const JUMP: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21C;
const XLOADFLAGS: usize = 0x236;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
const HEADER_END_MAX: usize = 0x290;
/// The first protocol with [`XLOADFLAGS`], and its bit for a 64-bit entry,
/// which is at this offset.
const VERSION_MIN: u64 = 0x20C;
const KERNEL_64: u64 = 1;
const ENTRY_64: u64 = 0x200;
/// A loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xFF;
/// CPUID leaf 1, ECX: the local timer's deadline is a TSC value, which KVM
/// leaves to who makes the interrupt controller; and there is a hypervisor.
const DEADLINE_AND_HYPERVISOR: u32 = 1 << 24 | 1 << 31;

/// Runs Linux with `pages=` pages, of which `local=` are here; the others are
/// on the page server.
pub(crate) fn run(words: &Words, link: impl Link) -> Result<()> {
    let [local, pages] = [words.number("local")?, words.number("pages")?];
    // What is not paged is local, too.
    let limit = local.checked_sub(OWN / PAGE).context("too little local memory for Linux")?;
    let mut memory = Mapping::lazy(pages * PAGE)?;
    let read = |name| std::fs::read(words.required(name)?).context("a file of the guest's");
    let boot = Boot::place(&read("kernel")?, &read("initrd")?, &mut memory)?;
    let mut machine = Machine::new(&memory, boot.entry)?;
    let uffd = Uffd::open()?;
    let mut pager = Pager::new(uffd.clone(), memory, OWN, limit, link)?;
    for range in boot.loaded {
        pager.adopt(range.start, range.end)?;
    }
    let _pager = vmm::start(pager, uffd);
    machine.run()
}

/// What was put into the memory.
struct Boot {
    entry: u64,
    /// Offsets of the kernel and the initial RAM disk.
    loaded: [Range<usize>; 2],
}

/// A little-endian field of `size` bytes.
fn field(file: &[u8], at: usize, size: usize) -> Result<u64> {
    let bytes = file.get(at..at + size).context("the kernel is cut short")?;
    Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

impl Boot {
    /// Puts the kernel where it prefers to be, and the initial RAM disk at the
    /// memory's end.
    fn place(kernel: &[u8], initrd: &[u8], memory: &mut Mapping) -> Result<Boot> {
        ensure!(kernel.get(MAGIC..MAGIC + 4) == Some(b"HdrS"), "the guest's kernel is no bzImage");
        let is_64 = field(kernel, VERSION, 2)? >= VERSION_MIN
            && field(kernel, XLOADFLAGS, 2)? & KERNEL_64 != 0;
        ensure!(is_64, "the guest's kernel has no 64-bit entry");
        let sectors = field(kernel, HEADER, 1)?.max(1) as usize;
        let code = kernel.get((sectors + 1) * 512..).context("the kernel is cut short")?;
        let start = field(kernel, PREF_ADDRESS, 8)? as usize;
        let need = (field(kernel, INIT_SIZE, 4)? as usize).max(code.len());
        let end = memory.len();
        let disk = end.saturating_sub(initrd.len()) / PAGE * PAGE;
        ensure!(start >= OWN && start + need <= disk, "kernel and RAM disk do not fit");
        let loaded = [start..start + code.len(), disk..disk + initrd.len()];
        vcpu::put(memory, start as u64, code);
        vcpu::put(memory, disk as u64, initrd);
        let mut parameters = [0; 4096];
        let header_end = (MAGIC + field(kernel, JUMP, 1)? as usize).min(HEADER_END_MAX);
        parameters[HEADER..header_end].copy_from_slice(&kernel[HEADER..header_end]);
        parameters[TYPE_OF_LOADER] = LOADER_UNDEFINED;
        let mut word = |at: usize, value: usize| -> Result<()> {
            parameters[at..at + 4].copy_from_slice(&u32::try_from(value)?.to_le_bytes());
            Ok(())
        };
        word(RAMDISK_IMAGE, disk)?;
        word(RAMDISK_SIZE, initrd.len())?;
        let usable = [0..LOW_END, HIGH..end as u64];
        vcpu::prepare(memory, parameters, &usable, COMMAND_LINE)?;
        Ok(Boot { entry: start as u64 + ENTRY_64, loaded })
    }
}

/// What the processor tells of itself: what KVM can do.
fn cpuid(kvm: &Kvm) -> Result<CpuId> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    for entry in cpuid.as_mut_slice().iter_mut().filter(|entry| entry.function == 1) {
        entry.ecx |= DEADLINE_AND_HYPERVISOR;
    }
    Ok(cpuid)
}

/// A virtual machine that is ready to run.
struct Machine {
    vcpu: VcpuFd,
    vm: VmFd,
    ports: Ports,
}

impl Machine {
    fn new(memory: &Mapping, entry: u64) -> Result<Machine> {
        let kvm = Kvm::new().context("there is no KVM (/dev/kvm)")?;
        let vm = kvm.create_vm()?;
        vm.create_irq_chip().context("KVM makes no interrupt controllers")?;
        vm.create_pit2(kvm_pit_config::default()).context("KVM makes no timer")?;
        vmm::give_memory(&vm, memory)?;
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&cpuid(&kvm)?)?;
        vcpu.set_sregs(&vcpu::system_registers(vcpu.get_sregs()?))?;
        vcpu.set_regs(&vcpu::registers(entry))?;
        Ok(Machine { vcpu, vm, ports: Ports::new() })
    }

    /// Runs the guest until it resets itself.
    fn run(&mut self) -> Result<()> {
        loop {
            match self.vcpu.run()? {
                VcpuExit::IoOut(at, data) => {
                    if let Some(lines) = self.ports.write(at, data) {
                        ports::print(&lines);
                    }
                    self.ports.interrupt(&self.vm)?;
                }
                VcpuExit::IoIn(at, data) => {
                    if self.ports.read(at, data) {
                        self.ports.interrupt(&self.vm)?;
                    } else {
                        data.fill(0xFF);
                    }
                }
                VcpuExit::MmioRead(_, data) => data.fill(0xFF),
                VcpuExit::MmioWrite(..) | VcpuExit::Intr => {}
                VcpuExit::Shutdown => return Ok(()),
                other => bail!("the guest stopped: {other:?}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel of 1 KiB of code that wants to be at 16 MiB.
    fn kernel() -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[HEADER] = 1;
        file[JUMP] = 0x6A;
        file[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        file[VERSION..VERSION + 2].copy_from_slice(&0x20Fu16.to_le_bytes());
        file[XLOADFLAGS] = 1;
        file[PREF_ADDRESS..PREF_ADDRESS + 8].copy_from_slice(&(16u64 << 20).to_le_bytes());
        file[INIT_SIZE..INIT_SIZE + 4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        file.extend([0x90; 1024]);
        file
    }

    #[test]
    fn kernel_and_ram_disk_are_placed_and_told() {
        let mut memory = Mapping::lazy(32 << 20).unwrap();
        let boot = Boot::place(&kernel(), &[5; 5000], &mut memory).unwrap();
        assert_eq!(boot.entry, (16 << 20) + 0x200);
        let [code, disk] = boot.loaded;
        assert_eq!(code, 16 << 20..(16 << 20) + 1024);
        assert_eq!(disk, (32 << 20) - 8192..(32 << 20) - 8192 + 5000);
        assert!(memory.bytes_mut(code.start, 1024).iter().all(|&byte| byte == 0x90));
        assert!(memory.bytes_mut(disk.start, 5000).iter().all(|&byte| byte == 5));
    }

    #[test]
    fn what_does_not_boot_is_refused() {
        let mut memory = Mapping::lazy(32 << 20).unwrap();
        let mut refused = |kernel: &[u8], initrd: &[u8]| {
            Boot::place(kernel, initrd, &mut memory)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        assert!(refused(b"\x7fELF", &[]).contains("no bzImage"));
        assert!(refused(&kernel()[..600], &[]).contains("cut short"));
        assert!(refused(&kernel(), &vec![0; 20 << 20]).contains("do not fit"));
        let mut old = kernel();
        old[XLOADFLAGS] = 0;
        assert!(refused(&old, &[]).contains("no 64-bit entry"));
    }
}
