//! Guest memory as the machine sees it: through the protocol.

use super::cluster::Cluster;
use addr::{Access, GuestPhys, PAGE_SIZE};
use machine::{GuestMemory, MemoryError};
use paging::HostMemory;

/// Guest memory reached through what this node holds. What it does not hold
/// is [`MemoryError::Pending`].
pub struct View<'a, M> {
    /// This node's part in the cluster.
    pub cluster: &'a mut Cluster,
    /// The node's page frames.
    pub memory: &'a mut M,
}

impl<M: HostMemory> View<'_, M> {
    /// Reads bytes of one page.
    #[inline]
    fn read_in_page(&mut self, gpa: GuestPhys, to: &mut [u8]) -> Result<(), MemoryError> {
        let gfn = gpa.gfn();
        if let Some(frame) = self.cluster.outbox_mut().glimpses.find(gfn) {
            self.memory.read(frame, gpa.offset(), to);
            return Ok(());
        }
        self.check(gpa, to.len(), Access::Read)?;
        match self.cluster.coherence().look(self.memory, gfn, Access::Read) {
            Some(Some(frame)) => {
                self.cluster.outbox_mut().glimpses.remember(gfn, frame);
                self.memory.read(frame, gpa.offset(), to);
            }
            _ => to.fill(0),
        }
        Ok(())
    }

    /// Splits `len` bytes from `gpa` at page ends and checks that every page
    /// allows the access before the first byte is touched.
    fn check(&self, gpa: GuestPhys, len: usize, access: Access) -> Result<(), MemoryError> {
        let end = gpa.0.checked_add(len as u64).ok_or(MemoryError::NotMemory)?;
        let mut at = gpa;
        while at.0 < end {
            let gfn = at.gfn();
            if self.cluster.coherence().home(gfn).is_none() {
                return Err(MemoryError::NotMemory);
            }
            if self.cluster.coherence().look(self.memory, gfn, access).is_none() {
                return Err(MemoryError::Pending { gfn, access });
            }
            at = gfn.offset_by(1).start();
        }
        Ok(())
    }
}

impl<M: HostMemory> GuestMemory for View<'_, M> {
    fn read(&mut self, gpa: GuestPhys, to: &mut [u8]) -> Result<(), MemoryError> {
        if to.len() <= PAGE_SIZE - gpa.offset() {
            return self.read_in_page(gpa, to);
        }
        self.check(gpa, to.len(), Access::Read)?;
        let mut at = gpa;
        let mut rest = to;
        while !rest.is_empty() {
            let len = rest.len().min(PAGE_SIZE - at.offset());
            let (now, later) = rest.split_at_mut(len);
            let look = self.cluster.coherence().look(self.memory, at.gfn(), Access::Read);
            match look.expect("checked above") {
                Some(frame) => self.memory.read(frame, at.offset(), now),
                None => now.fill(0),
            }
            rest = later;
            at = GuestPhys(at.0 + len as u64);
        }
        Ok(())
    }

    fn read_word(&mut self, gpa: GuestPhys) -> Result<u64, MemoryError> {
        debug_assert!(gpa.0.is_multiple_of(8), "a word that lies across others");
        if let Some(frame) = self.cluster.outbox_mut().glimpses.find(gpa.gfn()) {
            return Ok(self.memory.read_entry(frame, gpa.offset() / 8));
        }
        let mut bytes = [0; 8];
        self.read_in_page(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write(&mut self, gpa: GuestPhys, from: &[u8]) -> Result<(), MemoryError> {
        self.check(gpa, from.len(), Access::Write)?;
        let mut at = gpa;
        let mut rest = from;
        while !rest.is_empty() {
            let len = rest.len().min(PAGE_SIZE - at.offset());
            let (now, later) = rest.split_at(len);
            let look = self.cluster.coherence().look(self.memory, at.gfn(), Access::Write);
            let frame = look.flatten().expect("checked above");
            self.memory.write(frame, at.offset(), now);
            rest = later;
            at = GuestPhys(at.0 + len as u64);
        }
        Ok(())
    }
}
