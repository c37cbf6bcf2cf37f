//! A small virtual machine monitor on KVM: one processor, a serial port, and
//! memory of which a part is paged.

use crate::link::{Link, PAGE};
use crate::memory::Mapping;
use crate::pager::Pager;
use crate::serial::{self, Serial};
use crate::uffd::Uffd;
use crate::vcpu;
use crate::words::Words;
use anyhow::{Context, Result, bail};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory below is the guest's own and not paged; `tests/guest` touches what
/// lies above.
pub(crate) const OWN: usize = 8 << 20;
/// PM1a control: the guest switches off.
const POWER: u16 = 0x604;
/// A write has every page sent away.
const PAGER: u16 = 0xE8;

/// Runs the guest `program=` with `2 * local=` pages of which `local=` are
/// here; the others are on the page server.
pub(crate) fn run(words: &Words, link: impl Link) -> Result<()> {
    let local = words.number("local")?;
    let touches = words.number("touches")?;
    let memory = Mapping::lazy(OWN + 2 * local * PAGE)?;
    let words_of_guest = format!("pager local={local} touches={touches}");
    let (mut machine, memory) = Machine::new(words, memory, &words_of_guest)?;
    let uffd = Uffd::open()?;
    let pager = start(Pager::new(uffd.clone(), memory, OWN, local, link)?, uffd);
    machine.run(|| pager.lock().unwrap_or_else(PoisonError::into_inner).send_all())
}

/// Runs the guest `program=` with `pages=` pages that nobody pages.
pub(crate) fn run_alone(words: &Words) -> Result<()> {
    let memory = Mapping::lazy(OWN + words.number("pages")? * PAGE)?;
    let (mut machine, _memory) = Machine::new(words, memory, "")?;
    machine.run(|| Ok(()))
}

/// A virtual machine that is ready to run.
struct Machine {
    vcpu: VcpuFd,
    _vm: VmFd,
    serial: Serial,
}

impl Machine {
    /// Puts the guest `program=` into its memory, which is given back.
    fn new(words: &Words, mut memory: Mapping, line: &str) -> Result<(Machine, Mapping)> {
        let program = std::fs::read(words.required("program")?)?;
        let kvm = Kvm::new().context("there is no KVM (/dev/kvm)")?;
        let vm = kvm.create_vm()?;
        give_memory(&vm, &memory)?;
        let entry = vcpu::load(&mut memory, &program)?;
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        let hz = u64::from(vcpu.get_tsc_khz()?) * 1000;
        let usable = 0..memory.len() as u64;
        vcpu::prepare(
            &mut memory,
            [0; 4096],
            std::slice::from_ref(&usable),
            &format!("hz={hz} {line}"),
        )?;
        vcpu.set_sregs(&vcpu::system_registers(vcpu.get_sregs()?))?;
        vcpu.set_regs(&vcpu::registers(entry))?;
        Ok((Machine { vcpu, _vm: vm, serial: Serial::default() }, memory))
    }

    /// Runs the guest until it switches off.
    fn run(&mut self, mut send_away: impl FnMut() -> Result<()>) -> Result<()> {
        let is_serial = |port: u16| port.wrapping_sub(serial::BASE) < serial::REGISTERS;
        let port = &mut self.serial;
        loop {
            match self.vcpu.run()? {
                VcpuExit::IoOut(at, data) if is_serial(at) => {
                    data.iter().for_each(|&byte| port.write(at - serial::BASE, byte));
                }
                VcpuExit::IoIn(at, data) if is_serial(at) => {
                    data.fill(port.read(at - serial::BASE));
                }
                VcpuExit::IoOut(PAGER, _) => send_away()?,
                VcpuExit::IoOut(POWER, _) => return Ok(()),
                VcpuExit::IoOut(..) => {}
                VcpuExit::IoIn(_, data) => data.fill(0xFF),
                other => bail!("the guest stopped: {other:?}"),
            }
        }
    }
}

/// Has a pager answer faults in a thread of its own.
pub(crate) fn start<L: Link>(pager: Pager<L>, uffd: Uffd) -> Arc<Mutex<Pager<L>>> {
    let pager = Arc::new(Mutex::new(pager));
    let handler = Arc::clone(&pager);
    std::thread::spawn(move || {
        let failed = answer(&uffd, &handler).unwrap_err();
        // The guest would wait for ever.
        println!(r#"@bench {{"name":"error","reason":"the pager: {failed:#}"}}"#);
        std::process::exit(1);
    });
    pager
}

/// Answers faults, for ever.
fn answer<L: Link>(uffd: &Uffd, pager: &Mutex<Pager<L>>) -> Result<()> {
    loop {
        let fault = uffd.next()?;
        pager.lock().unwrap_or_else(PoisonError::into_inner).handle(fault)?;
    }
}

/// Gives the machine its memory.
pub(crate) fn give_memory(vm: &VmFd, memory: &Mapping) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: memory.len() as u64,
        userspace_addr: memory.base().as_ptr() as u64,
    };
    // SAFETY: the mapping is never undone, and no Rust reference into it is
    // held while the guest runs.
    unsafe { vm.set_user_memory_region(region) }.context("KVM takes no memory")
}
