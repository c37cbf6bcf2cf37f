//! The processor's descriptor tables: GDT, TSS with interrupt stacks, IDT.
//!
//! Source: AMD APM volume 2, section 4.8.4 (long-mode gate descriptors) and
//! 12.2.5 (64-bit task state segment). Faults that may come from a broken
//! stack get a stack of their own, each with a guard page below it.

use boot::Range;
use core::cell::UnsafeCell;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

const STACK_SIZE: usize = 16384;
const STACKS: usize = 4;

#[repr(C, align(4096))]
struct Stack {
    guard: [u8; 4096],
    bytes: [u8; STACK_SIZE],
}

/// The interrupt stacks; only the processor writes to them.
#[repr(transparent)]
struct InterruptStacks(UnsafeCell<[Stack; STACKS]>);

// SAFETY: Rust code only takes the address.
unsafe impl Sync for InterruptStacks {}

static INTERRUPT_STACKS: InterruptStacks = InterruptStacks(UnsafeCell::new(
    [const { Stack { guard: [0; 4096], bytes: [0; STACK_SIZE] } }; STACKS],
));

fn stack(index: usize) -> Range {
    let base = INTERRUPT_STACKS.0.get() as u64 + (index * size_of::<Stack>()) as u64;
    Range::from_len(base + core::mem::offset_of!(Stack, bytes) as u64, STACK_SIZE as u64)
}

/// The interrupt stacks' memory.
#[must_use]
pub fn interrupt_stacks() -> [Range; STACKS] {
    core::array::from_fn(stack)
}

/// The pages below the interrupt stacks, to be left unmapped.
#[must_use]
pub fn guard_pages() -> [Range; STACKS] {
    core::array::from_fn(|i| Range::new(stack(i).start - 4096, stack(i).start))
}

/// Interrupt stack of a vector (IST index, 1-based), 0 for the current stack:
/// #NMI, #DF, #MC, and #SS and #PF, which a stack overflow raises.
const fn stack_of(vector: usize) -> u8 {
    match vector {
        2 => 1,
        8 => 2,
        12 | 14 => 3,
        18 => 4,
        _ => 0,
    }
}

/// A 64-bit interrupt gate.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    /// Present, privilege 0, type 14 (interrupt gate: clears IF).
    attributes: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<Gate>() == 16);

impl Gate {
    const fn new(handler: u64, selector: u16, ist: u8) -> Gate {
        Gate {
            offset_low: handler as u16,
            selector,
            ist,
            attributes: 0x8E,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

static TSS: Once<TaskStateSegment> = Once::new();
static GDT: Once<(GlobalDescriptorTable, [SegmentSelector; 3])> = Once::new();
static IDT: Once<[Gate; 256]> = Once::new();

/// Loads the tables.
///
/// # Safety
/// To be called once by the boot processor, on the node's own page tables;
/// `stubs` is the address of 256 vector stubs of 16 bytes each.
pub unsafe fn start(stubs: u64) {
    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        for i in 0..STACKS {
            tss.interrupt_stack_table[i] = VirtAddr::new(stack(i).end);
        }
        tss
    });
    let (gdt, [code, data, task]) = GDT.call_once(|| {
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        (gdt, [code, data, task])
    });
    let idt = IDT.call_once(|| {
        core::array::from_fn(|v| Gate::new(stubs + 16 * v as u64, code.0, stack_of(v)))
    });
    gdt.load();
    // SAFETY: the selectors name the 64-bit code, data and task segments of
    // the table just loaded; the tables are statics and live for ever.
    unsafe {
        CS::set_reg(*code);
        SS::set_reg(*data);
        DS::set_reg(*data);
        ES::set_reg(*data);
        load_tss(*task);
        lidt(&DescriptorTablePointer {
            limit: (size_of::<[Gate; 256]>() - 1) as u16,
            base: VirtAddr::from_ptr(idt),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_split_the_address() {
        let g = Gate::new(0x1234_5678_9ABC_DEF0, 8, 3);
        let back = u64::from(g.offset_high) << 32
            | u64::from(g.offset_middle) << 16
            | u64::from(g.offset_low);
        assert_eq!((back, g.ist, g.attributes), (0x1234_5678_9ABC_DEF0, 3, 0x8E));
    }

    #[test]
    fn stacks_are_apart_from_their_guards() {
        for (stack, guard) in interrupt_stacks().iter().zip(guard_pages()) {
            assert_eq!((guard.end, guard.len(), stack.start % 4096), (stack.start, 4096, 0));
        }
    }
}
