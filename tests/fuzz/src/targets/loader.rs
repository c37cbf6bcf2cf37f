//! The loader of operating systems: any file, any command line.

use super::guest::Guest;
use crate::input::Input;
use machine::loader::{Boot, Plan};
use machine::{GuestMemory, MemoryError};
use vcpu::fake::FakeVcpu;

/// Memory that counts what it is given and checks that it is RAM.
struct Sink<'a> {
    guest: &'a Guest,
    written: u64,
}

impl GuestMemory for Sink<'_> {
    fn read(&mut self, _: addr::GuestPhys, to: &mut [u8]) -> Result<(), MemoryError> {
        to.fill(0);
        Ok(())
    }
    fn write(&mut self, gpa: addr::GuestPhys, from: &[u8]) -> Result<(), MemoryError> {
        assert!(gpa.offset() + from.len() <= 4096, "a write crosses a page");
        let ram = self.guest.machine.layout().home(gpa.gfn()).is_some();
        assert!(ram, "the loader writes where no RAM is: {gpa:?}");
        self.written += from.len() as u64;
        Ok(())
    }
}

/// Loads the bytes as a kernel.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.u8();
    let initrd = vec![1; usize::from(input.u16())];
    let cmdline = "x".repeat(input.skewed().min(70_000) as usize);
    let mut kernel = input.rest().to_vec();
    match choice % 3 {
        0 => {
            // A bzImage's marks (Linux boot protocol, 0x1FE and 0x202).
            kernel.resize(kernel.len().max(0x400), 0);
            kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
            kernel[0x202..0x206].copy_from_slice(b"HdrS");
        }
        1 => {
            kernel.resize(kernel.len().max(0x78), 0);
            kernel[..7].copy_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1, 1]);
        }
        _ => {}
    }
    let guest = Guest::new();
    let boot = Boot { kernel: &kernel, initrd: &initrd, cmdline: &cmdline };
    let Ok(mut plan) = Plan::new(&boot, &guest.machine) else { return };
    let mut sink = Sink { guest: &guest, written: 0 };
    plan.write(&mut sink).expect("this memory is never Pending");
    assert!(sink.written <= plan.len_bytes());
    plan.enter(&mut FakeVcpu::default());
}
