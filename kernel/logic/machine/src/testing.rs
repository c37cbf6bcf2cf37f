//! What the tests of this crate share: RAM of which every page is Pending
//! first, a machine, and a processor to bring exits from.

#![cfg_attr(miri, allow(dead_code, reason = "Miri skips the tests that decode instructions"))]

use crate::{Config, CpuPlace, GuestMemory, Machine, MemoryError, Outcome};
use addr::{Access, Gfn, GuestPhys, NodeId};
use alloc::vec;
use alloc::vec::Vec;
use layout::Layout;
use std::collections::{HashMap, HashSet};
use vcpu::fake::FakeVcpu;
use vcpu::{Exit, Segment};

/// Sparse RAM. When reluctant, the first access to a page, and the first
/// write after reads, is Pending until [`Ram::fetch`].
pub(crate) struct Ram {
    layout: Layout,
    pub(crate) pages: HashMap<u64, Vec<u8>>,
    here: HashSet<(u64, Access)>,
    reluctant: bool,
    pub(crate) fetched: usize,
}

impl Ram {
    pub(crate) fn new(layout: &Layout, reluctant: bool) -> Ram {
        Ram {
            layout: layout.clone(),
            pages: HashMap::new(),
            here: HashSet::new(),
            reluctant,
            fetched: 0,
        }
    }

    fn check(&mut self, gpa: GuestPhys, len: usize, access: Access) -> Result<(), MemoryError> {
        assert!(gpa.offset() + len <= 4096, "the machine splits at pages");
        let gfn = gpa.gfn();
        if self.layout.linear(gfn).is_none() {
            return Err(MemoryError::NotMemory);
        }
        let here = self.here.contains(&(gfn.0, access))
            || (access == Access::Read && self.here.contains(&(gfn.0, Access::Write)));
        if self.reluctant && !here {
            return Err(MemoryError::Pending { gfn, access });
        }
        Ok(())
    }

    pub(crate) fn is_here(&self, gfn: Gfn, access: Access) -> bool {
        !self.reluctant || self.here.contains(&(gfn.0, access))
    }

    pub(crate) fn fetch(&mut self, gfn: Gfn, access: Access) {
        self.fetched += 1;
        assert!(self.here.insert((gfn.0, access)), "{gfn:?} was fetched already");
    }

    /// Puts bytes in without asking, for the tests' set-up.
    pub(crate) fn put(&mut self, gpa: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = gpa + i as u64;
            let page = self.pages.entry(at >> 12).or_insert_with(|| vec![0; 4096]);
            page[at as usize & 0xFFF] = byte;
        }
    }

    pub(crate) fn put_u64(&mut self, gpa: u64, value: u64) {
        self.put(gpa, &value.to_le_bytes());
    }

    pub(crate) fn get(&self, gpa: u64, len: usize) -> Vec<u8> {
        (gpa..gpa + len as u64)
            .map(|at| self.pages.get(&(at >> 12)).map_or(0, |p| p[at as usize & 0xFFF]))
            .collect()
    }

    pub(crate) fn get_u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.get(gpa, 8).try_into().unwrap())
    }
}

impl GuestMemory for Ram {
    fn read(&mut self, gpa: GuestPhys, to: &mut [u8]) -> Result<(), MemoryError> {
        self.check(gpa, to.len(), Access::Read)?;
        let bytes = self.get(gpa.0, to.len());
        to.copy_from_slice(&bytes);
        Ok(())
    }
    fn write(&mut self, gpa: GuestPhys, from: &[u8]) -> Result<(), MemoryError> {
        self.check(gpa, from.len(), Access::Write)?;
        self.put(gpa.0, from);
        Ok(())
    }
}

pub(crate) const TSC_HZ: u64 = 2_000_000_000;
pub(crate) const START_TSC: u64 = 1_000_000;
/// Where [`Guest::code`] puts instructions.
pub(crate) const CODE: u64 = 0x20_0000;

/// A guest of one processor with 64 MiB, in 64-bit mode, with the first
/// 4 GiB mapped to themselves by pages at 0x2000.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    pub(crate) vcpu: FakeVcpu,
    pub(crate) ram: Ram,
    pub(crate) now: u64,
}

impl Guest {
    pub(crate) fn new(reluctant: bool) -> Guest {
        Guest::with_cpus(reluctant, 1)
    }

    pub(crate) fn with_cpus(reluctant: bool, cpus: u32) -> Guest {
        let layout = Layout::new(&[32 * 512]).unwrap();
        let mut ram = Ram::new(&layout, reluctant);
        let machine = Machine::new(Config {
            layout,
            cpus: (0..cpus).map(|apic_id| CpuPlace { apic_id, node: NodeId(0) }).collect(),
            tsc_hz: TSC_HZ,
            rtc_unix_seconds: 1_700_000_000,
            start_tsc: START_TSC,
        })
        .unwrap();
        ram.put_u64(0x2000, 0x3000 | 3);
        for i in 0..4 {
            ram.put_u64(0x3000 + 8 * i, (0x4000 + 0x1000 * i) | 3);
        }
        for i in 0..2048u64 {
            ram.put_u64(0x4000 + 8 * i, (i << 21) | 0x83);
        }
        let mut vcpu =
            FakeVcpu { system: crate::state::long_mode(0x2000, 0x1000, 31), ..Default::default() };
        vcpu.registers.rip = CODE;
        vcpu.registers.rflags = 2;
        Guest { machine, vcpu, ram, now: START_TSC }
    }

    /// Leaves long mode for flat 32-bit code without paging.
    pub(crate) fn flat32(&mut self) {
        let s = &mut self.vcpu.system;
        s.cr0 = 0x11;
        s.efer = 0;
        s.cs.attributes = (s.cs.attributes & !Segment::LONG) | Segment::DEFAULT_BIG;
    }

    pub(crate) fn code(&mut self, bytes: &[u8]) {
        let rip = self.vcpu.registers.rip;
        self.ram.put(rip, bytes);
    }

    /// Handles an exit as a node does: fetches what is Pending and tries
    /// again.
    pub(crate) fn exit(&mut self, exit: Exit) -> Outcome {
        for _ in 0..4096 {
            let outcome =
                self.machine.handle_exit(0, &exit, &mut self.vcpu, &mut self.ram, self.now);
            let Outcome::Pending { gfn, access } = outcome else { return outcome };
            self.ram.fetch(gfn, access);
        }
        panic!("an exit never ends being Pending");
    }

    /// An access to device memory by the instruction `bytes` at RIP.
    pub(crate) fn device(&mut self, bytes: &[u8], gpa: u64) -> Outcome {
        self.code(bytes);
        self.exit(Exit::PageFault {
            gpa: GuestPhys(gpa),
            access: Access::Write,
            fetch: false,
            walk: false,
        })
    }

    pub(crate) fn wrmsr(&mut self, msr: u32, value: u64) -> Outcome {
        self.vcpu.registers.gpr[vcpu::RCX] = u64::from(msr);
        self.vcpu.registers.gpr[vcpu::RAX] = value & 0xFFFF_FFFF;
        self.vcpu.registers.gpr[vcpu::RDX] = value >> 32;
        self.vcpu.injected = None;
        self.code(&[0x0F, 0x30]);
        self.exit(Exit::Wrmsr)
    }

    /// The register's value, or `None` if the guest got #GP.
    pub(crate) fn rdmsr(&mut self, msr: u32) -> Option<u64> {
        self.vcpu.registers.gpr[vcpu::RCX] = u64::from(msr);
        self.vcpu.injected = None;
        self.code(&[0x0F, 0x32]);
        assert_eq!(self.exit(Exit::Rdmsr), Outcome::Resume);
        let gpr = &self.vcpu.registers.gpr;
        match self.vcpu.injected.take() {
            None => Some((gpr[vcpu::RDX] << 32) | gpr[vcpu::RAX]),
            Some(event) => {
                assert_eq!(event, vcpu::Event::GENERAL_PROTECTION);
                None
            }
        }
    }

    pub(crate) fn prepare(&mut self) {
        self.machine.prepare_entry(0, &mut self.vcpu, self.now);
    }
}
