//! A guest that the fuzzer drives: sparse RAM, a machine, a processor.

use crate::input::Input;
use addr::{Access, GuestPhys, NodeId};
use layout::Layout;
use machine::{Config, CpuPlace, GuestMemory, Machine, MemoryError, Outcome};
use std::collections::{HashMap, HashSet};
use vcpu::Exit;
use vcpu::fake::FakeVcpu;

/// Pages that an exit may ask for, one after the other, before it ends.
const PENDING_MAX: usize = 4096;

/// RAM of which each page is Pending before its first read, and again before
/// its first write.
pub(super) struct Ram {
    layout: Layout,
    pages: HashMap<u64, Box<[u8; 4096]>>,
    here: HashSet<(u64, Access)>,
}

impl Ram {
    fn check(&self, gpa: GuestPhys, len: usize, access: Access) -> Result<(), MemoryError> {
        assert!(gpa.offset() + len <= 4096, "an access crosses a page");
        let gfn = gpa.gfn();
        if self.layout.home(gfn).is_none() {
            return Err(MemoryError::NotMemory);
        }
        if self.here.contains(&(gfn.0, access)) || self.here.contains(&(gfn.0, Access::Write)) {
            return Ok(());
        }
        Err(MemoryError::Pending { gfn, access })
    }

    /// Puts bytes where the guest would have written them.
    pub(super) fn put(&mut self, gpa: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = gpa.wrapping_add(i as u64);
            self.pages.entry(at >> 12).or_insert_with(|| Box::new([0; 4096]))
                [(at & 0xFFF) as usize] = byte;
        }
    }
}

impl GuestMemory for Ram {
    fn read(&mut self, gpa: GuestPhys, to: &mut [u8]) -> Result<(), MemoryError> {
        self.check(gpa, to.len(), Access::Read)?;
        match self.pages.get(&gpa.gfn().0) {
            Some(page) => to.copy_from_slice(&page[gpa.offset()..gpa.offset() + to.len()]),
            None => to.fill(0),
        }
        Ok(())
    }

    fn write(&mut self, gpa: GuestPhys, from: &[u8]) -> Result<(), MemoryError> {
        self.check(gpa, from.len(), Access::Write)?;
        self.put(gpa.0, from);
        Ok(())
    }
}

/// The guest.
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) vcpu: FakeVcpu,
    pub(super) ram: Ram,
    pub(super) now: u64,
}

impl Guest {
    /// A guest of two processors with 64 MiB.
    pub(super) fn new() -> Guest {
        let layout = Layout::new(&[32 * 512]).expect("a layout");
        let places = [0, 1].map(|apic_id| CpuPlace { apic_id, node: NodeId(0) });
        let config = Config {
            layout: layout.clone(),
            cpus: places.to_vec(),
            tsc_hz: 2_000_000_000,
            rtc_unix_seconds: 1_700_000_000,
            start_tsc: 0,
        };
        Guest {
            machine: Machine::new(config).expect("a machine"),
            vcpu: FakeVcpu::default(),
            ram: Ram { layout, pages: HashMap::new(), here: HashSet::new() },
            now: 0,
        }
    }

    /// Registers of the fuzzer's choice, as any guest can set them.
    pub(super) fn registers(&mut self, input: &mut Input<'_>) {
        for register in &mut self.vcpu.registers.gpr {
            *register = input.skewed();
        }
    }

    /// Handles an exit as a node does; `false` if the guest is over.
    pub(super) fn exit(&mut self, exit: Exit) -> bool {
        self.vcpu.injected = None;
        for _ in 0..PENDING_MAX {
            let outcome =
                self.machine.handle_exit(0, &exit, &mut self.vcpu, &mut self.ram, self.now);
            match outcome {
                Outcome::Pending { gfn, access } => {
                    assert!(self.ram.here.insert((gfn.0, access)), "a page is asked for twice");
                }
                Outcome::Resume | Outcome::Halted => {
                    if self.machine.wakes(0, self.now) {
                        self.machine.prepare_entry(0, &mut self.vcpu, self.now);
                    }
                    return true;
                }
                Outcome::Hypercall => {
                    // The answer needs the instruction's length, so a page.
                    let value = 1;
                    let ended = self.machine.end_hypercall(
                        0,
                        value,
                        &mut self.vcpu,
                        &mut self.ram,
                        self.now,
                    );
                    if let Outcome::Pending { gfn, access } = ended {
                        self.ram.here.insert((gfn.0, access));
                    }
                    return true;
                }
                Outcome::PowerOff | Outcome::Reset | Outcome::Dead(_) => return false,
            }
        }
        panic!("an exit never ends being Pending");
    }
}
