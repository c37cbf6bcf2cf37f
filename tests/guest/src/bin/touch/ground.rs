//! The machine that the guest runs on.

use core::fmt::Arguments;
use guests::boot::BootParams;
use guests::hypercall::{Call, call};
use guests::memory::Memory;
use guests::rows::Rows;
use guests::workloads::{Ground, Plan};
use x86_64::instructions::port::Port;

/// A pager's port: a write has it send every page away.
const PAGER: u16 = 0xE8;
/// Touches where the command line says nothing.
const TOUCHES_DEFAULT: u64 = 5000;
/// The node that pages are sent to.
const REMOTE: u64 = 1;

/// What is below the guest.
enum Below {
    Pangaea,
    Pager,
}

/// The guest's memory on what is below it.
pub(crate) struct Machine {
    rows: Rows,
    hz: u64,
    below: Below,
}

/// The command line's words.
struct Words {
    touches: u64,
    pager: bool,
    hz: u64,
    local: u64,
}

impl Words {
    fn read(boot: &BootParams) -> Result<Words, &'static str> {
        let mut words = Words { touches: TOUCHES_DEFAULT, pager: false, hz: 0, local: 0 };
        for word in boot.command_line().split_ascii_whitespace() {
            if word == "pager" {
                words.pager = true;
            }
            let Some((name, value)) = word.split_once('=') else { continue };
            let place = match name {
                "touches" => &mut words.touches,
                "hz" => &mut words.hz,
                "local" => &mut words.local,
                _ => continue,
            };
            *place = value.parse().map_err(|_| "touches=, hz= and local= need numbers")?;
        }
        Ok(words)
    }
}

impl Machine {
    /// Finds twice the memory that fits, and says what is to be measured.
    pub(crate) fn new(boot: &BootParams) -> Result<(Machine, Plan), &'static str> {
        let words = Words::read(boot)?;
        let memory = Memory::find(boot);
        let machine = if words.pager {
            if words.hz == 0 || words.local == 0 {
                return Err("a pager's guest needs hz= and local=");
            }
            let rows = Rows::of(&memory, 2 * words.local);
            Machine { rows, hz: words.hz, below: Below::Pager }
        } else {
            Machine::on_pangaea(&memory)?
        };
        Ok((machine, Plan { touches: words.touches.max(1) }))
    }

    fn on_pangaea(memory: &Memory) -> Result<Machine, &'static str> {
        let nodes = call(Call::Nodes, 0, 0, 0).ok_or("there is no Pangaea below")?;
        let hz = call(Call::TscHz, 0, 0, 0).ok_or("the TSC has no frequency")?;
        let frames = call(Call::FreeFrames, 0, 0, 0).ok_or("the node has no frames")?;
        if nodes < 2 {
            return Err("there is no other node");
        }
        // What the other node is home to comes first, as there a fault takes
        // every step that it can take.
        let home = |gfn| call(Call::Home, gfn, 0, 0);
        let far = memory.row(|gfn| home(gfn) == Some(REMOTE));
        let far = far.ok_or("the other node is home to no memory")?;
        let near = memory.row(|gfn| home(gfn) != Some(REMOTE));
        let rows = Rows::new([Some(far), near].into_iter().flatten(), 2 * frames);
        if rows.pages() <= frames {
            return Err("the memory is not larger than this node's");
        }
        Ok(Machine { rows, hz, below: Below::Pangaea })
    }
}

// SAFETY: `Memory` has mapped what the rows are made of, and the guest's own
// program and stack lie elsewhere.
unsafe impl Ground for Machine {
    fn pages(&self) -> u64 {
        self.rows.pages()
    }

    fn address(&self, page: u64) -> *mut u64 {
        let (row, at) = self.rows.find(page);
        row.address(at) as *mut u64
    }

    fn hz(&self) -> u64 {
        self.hz
    }

    fn send_away(&mut self, pages: u64) -> Result<(), &'static str> {
        match self.below {
            Below::Pager => {
                // SAFETY: the port is the pager's, which reads no memory of
                // this program's for it.
                unsafe { Port::new(PAGER).write(1u32) };
                Ok(())
            }
            Below::Pangaea => self.rows.parts(pages).try_for_each(|part| {
                call(Call::TakeWrite, part.first(), part.pages(), REMOTE)
                    .ok_or("the other node takes no pages")?;
                while call(Call::Outstanding, 0, 0, 0).ok_or("the node does not count")? > 0 {}
                Ok(())
            }),
        }
    }

    fn print(&mut self, text: Arguments<'_>) {
        guests::print!("{text}");
    }
}
