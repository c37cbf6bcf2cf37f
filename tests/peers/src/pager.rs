//! Memory that is kept within a limit: what does not fit is on the page
//! server.
//!
//! A page that is fetched for a read is protected, so that one that was not
//! written needs not be sent back. Pages leave in the order in which they
//! came, a batch at a time when the limit is reached: userfaultfd tells
//! nothing about which are used.

use crate::link::{Link, PAGE};
use crate::memory::Mapping;
use crate::uffd::{Fault, Uffd};
use anyhow::{Context, Result, ensure};
use std::collections::VecDeque;
use std::io::Error;

/// Pages that leave at a time.
const BATCH: usize = 16;

/// Where a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nowhere: it was never touched and is all zeroes.
    Fresh,
    /// On the server only.
    Away,
    /// Here, protected, and the same on the server.
    Clean,
    /// Here, and may be written.
    Dirty,
}

/// The pages of a range and what is known of them.
pub(crate) struct Pager<L> {
    uffd: Uffd,
    memory: Mapping,
    /// Offset of the first page.
    first: usize,
    states: Vec<State>,
    /// Pages that are here, the oldest first.
    here: VecDeque<u32>,
    limit: usize,
    link: L,
}

impl<L: Link> Pager<L> {
    /// Pages `memory` from the offset `first` on, of which at most `limit`
    /// pages are here at a time.
    pub(crate) fn new(
        uffd: Uffd,
        memory: Mapping,
        first: usize,
        limit: usize,
        link: L,
    ) -> Result<Self> {
        ensure!(limit > BATCH, "a pager needs more than {BATCH} pages");
        let len = memory.len() - first;
        uffd.register(memory.place(first) as u64, len as u64)?;
        let states = vec![State::Fresh; len / PAGE];
        Ok(Pager { uffd, memory, first, states, here: VecDeque::new(), limit, link })
    }

    /// Where a page lies.
    fn address(&self, page: u32) -> u64 {
        self.memory.place(self.first + page as usize * PAGE) as u64
    }

    /// Answers a fault.
    pub(crate) fn handle(&mut self, fault: Fault) -> Result<()> {
        let offset = fault.address.wrapping_sub(self.address(0)) as usize;
        let page = u32::try_from(offset / PAGE)?;
        let address = self.address(page);
        match self.states[page as usize] {
            State::Fresh => {
                self.uffd.copy(address, &[0; PAGE], false)?;
                self.arrived(page, State::Dirty)
            }
            State::Away => {
                let uffd = &self.uffd;
                let mut place = |bytes: &[u8]| uffd.copy(address, bytes, !fault.write);
                self.link.get(page, &mut place)?;
                self.arrived(page, if fault.write { State::Dirty } else { State::Clean })
            }
            State::Clean if fault.protected => {
                self.states[page as usize] = State::Dirty;
                self.uffd.protect(address, false)
            }
            // Told before the page changed its state: the access is done anew.
            State::Clean | State::Dirty => self.uffd.wake(address),
        }
    }

    /// Takes note of a page that is here now, and makes room.
    fn arrived(&mut self, page: u32, state: State) -> Result<()> {
        self.states[page as usize] = state;
        self.here.push_back(page);
        if self.here.len() >= self.limit {
            self.send(BATCH)?;
        }
        Ok(())
    }

    /// Takes note of what was put into the memory before it was paged: bytes
    /// from offset `start` to `end`.
    pub(crate) fn adopt(&mut self, start: usize, end: usize) -> Result<()> {
        ensure!(start >= self.first && end <= self.memory.len(), "memory that is not paged");
        for page in (start - self.first) / PAGE..(end - self.first).div_ceil(PAGE) {
            self.arrived(u32::try_from(page)?, State::Dirty)?;
        }
        Ok(())
    }

    /// Sends everything away.
    pub(crate) fn send_all(&mut self) -> Result<()> {
        self.send(self.here.len())
    }

    /// Sends the `count` oldest pages away.
    fn send(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let Some(page) = self.here.pop_front() else { return Ok(()) };
            let address = self.address(page);
            if self.states[page as usize] == State::Dirty {
                // No write may come between the copy and the end.
                self.uffd.protect(address, true)?;
                let offset = self.first + page as usize * PAGE;
                let bytes = self.memory.bytes_mut(offset, PAGE);
                self.link.put(page, (&*bytes).try_into().expect("a page"))?;
            }
            self.states[page as usize] = State::Away;
            // SAFETY: the page is this mapping's, and the server has it.
            let gone = unsafe { libc::madvise(address as *mut _, PAGE, libc::MADV_DONTNEED) };
            if gone != 0 {
                return Err(Error::last_os_error()).context("a page cannot be given up");
            }
            // Who was caught by the protection faults anew and fetches it.
            self.uffd.wake(address)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::mpsc::{Sender, channel};

    /// A server in this process that tells what it is asked.
    struct Fake {
        pages: HashMap<u32, [u8; PAGE]>,
        puts: Sender<u32>,
    }

    impl Link for Fake {
        fn get(&mut self, page: u32, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
            take(self.pages.get(&page).context("a page that was never put")?)
        }
        fn put(&mut self, page: u32, bytes: &[u8; PAGE]) -> Result<()> {
            self.pages.insert(page, *bytes);
            Ok(self.puts.send(page)?)
        }
    }

    /// What was there before is sent away like anything else.
    #[test]
    fn pages_that_were_there_before_come_back() {
        const PAGES: usize = 60;
        let Ok(uffd) = Uffd::open() else {
            println!("userfaultfd is not to be had here; nothing was tried");
            return;
        };
        let mut memory = Mapping::lazy(PAGES * PAGE).unwrap();
        let base = memory.base().as_ptr() as usize;
        (0..PAGES).for_each(|page| memory.bytes_mut(page * PAGE, 1)[0] = page as u8 + 1);
        let (puts, sent) = channel();
        let link = Fake { pages: HashMap::new(), puts };
        let mut pager = Pager::new(uffd.clone(), memory, PAGE, 40, link).unwrap();
        assert!(pager.adopt(0, PAGE).is_err(), "that page is not paged");
        pager.adopt(PAGE, PAGES * PAGE).unwrap();
        assert!(sent.try_iter().count() > 10, "more than may be here");
        std::thread::spawn(move || {
            loop {
                pager.handle(uffd.next().unwrap()).unwrap();
            }
        });
        for page in 0..PAGES {
            // SAFETY: a page of the mapping, which the pager keeps mapped.
            let byte = unsafe { ((base + page * PAGE) as *const u8).read_volatile() };
            assert_eq!(byte, page as u8 + 1);
        }
    }

    /// Writes to more pages than fit and finds each again; pages that were
    /// only read are not sent back.
    #[test]
    fn pages_come_back_as_they_left() {
        const PAGES: usize = 100;
        let Ok(uffd) = Uffd::open() else {
            println!("userfaultfd is not to be had here; nothing was tried");
            return;
        };
        let memory = Mapping::lazy(PAGES * PAGE).unwrap();
        let base = memory.base().as_ptr() as usize;
        let (puts, sent) = channel();
        let link = Fake { pages: HashMap::new(), puts };
        let mut pager = Pager::new(uffd.clone(), memory, 0, 40, link).unwrap();
        std::thread::spawn(move || {
            loop {
                pager.handle(uffd.next().unwrap()).unwrap();
            }
        });
        let word = |page: usize| (base + page * PAGE) as *mut u64;
        for page in 0..PAGES {
            // SAFETY: a page of the mapping, which the pager keeps mapped.
            unsafe { word(page).write_volatile(page as u64 + 1) };
        }
        let check = || {
            for page in 0..PAGES {
                // SAFETY: as above.
                assert_eq!(unsafe { word(page).read_volatile() }, page as u64 + 1);
            }
        };
        check();
        check();
        check();
        assert_eq!(sent.try_iter().count(), PAGES, "pages that were only read stay unsent");
        // SAFETY: as above.
        unsafe { word(5).write_volatile(6) };
        check();
        assert!(sent.try_iter().any(|page| page == 5), "a written page is sent again");
    }
}
