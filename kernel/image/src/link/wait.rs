//! When this node looks at its NIC, when it halts, and what interrupts it.

use super::{Link, POLL_NS};
use nic::Nic;
use node::Guest;
use platform::{apic, clock, interrupts};

/// Looks at the receive ring between two looks at everything else.
const LOOKS: u32 = 1024;

impl Link {
    /// Turns the NIC's interrupt off for a while, since its ring is polled for what the
    /// guest exited for at `since`, and sees to it that this node looks again when the
    /// while is over.
    pub(crate) fn lull(&mut self, since: u64, deadline: Option<u64>) {
        let until = self.lull.wait(since, clock::now_tsc());
        if let Some(probed) = &mut self.nic
            && self.lull_end == 0
        {
            probed.nic.disable_interrupts();
        }
        self.lull_end = until;
        if self.timer < self.lull_end {
            // Put off, or it would make the guest exit for nothing.
            self.timer = 0;
        }
        self.set_timer(deadline);
    }

    /// Whether the guest's page has come, and nothing of what it leaves to be done is to
    /// wait for another exit: it is likely to ask for no other soon.
    pub(crate) fn is_to_finish(&self, guest: &Guest) -> bool {
        self.lull.is_alone() && self.node.has_come(guest, &self.memory)
    }

    /// Does that: what waits is sent, the lull ends, and no interrupt that has come by
    /// now makes the guest exit as soon as it goes on.
    pub(crate) fn finish(&mut self, guest: &mut Guest) {
        self.hurry();
        self.refresh();
        interrupts::poll();
        self.take_interrupts();
        self.listen();
        // What has come before that will not interrupt.
        if self.has_frame() {
            self.take(Some(guest));
        }
        self.timer = 0;
        self.set_timer(guest.upcoming_deadline(clock::now_tsc()));
    }

    /// Turns the NIC's interrupt on again if that is due. What has come by
    /// then is to be taken afterwards. Whether it was: the guest has asked for nothing
    /// during the lull.
    pub(crate) fn end_lull(&mut self) -> bool {
        let ends = self.lull_end != 0 && clock::now_tsc() >= self.lull_end;
        if ends {
            self.listen();
        }
        ends
    }

    /// Sees to it that no timer interrupts the guest for what has been settled.
    pub(crate) fn refresh(&mut self) {
        self.node.refresh(clock::now_tsc());
    }

    /// Sends what waits to travel with the guest's next request. Each of that would
    /// make the guest exit once more, and what it exited for is over.
    pub(crate) fn hurry(&mut self) {
        self.node.hurry(clock::now_tsc());
        self.send(None);
    }

    fn listen(&mut self) {
        self.lull_end = 0;
        if let Some(probed) = &mut self.nic {
            probed.nic.enable_interrupts();
            let _ = probed.interrupt.take();
        }
        interrupts::arm();
    }

    /// Takes note of interrupts that have arrived.
    pub(crate) fn take_interrupts(&mut self) {
        if let Some(probed) = &mut self.nic
            && probed.interrupt.take()
        {
            probed.nic.acknowledge_interrupt();
        }
        if interrupts::take(interrupts::TIMER) {
            self.timer = 0;
        }
        for line in [3, 4] {
            let _ = interrupts::take_line(line);
        }
        interrupts::arm();
    }

    /// Sets the timer to the earliest of what the fabric and the caller wait
    /// for. A timer that is set too early costs one look, so it is left.
    pub(crate) fn set_timer(&mut self, deadline: Option<u64>) {
        let now = clock::now_tsc();
        // During a lull time is looked at with each answer that is waited for, and what
        // the fabric is to do soon leaves with the next request, or when the lull ends.
        let fabric = self.node.timeout_ns();
        let fabric = fabric.map(|ns| self.node.clock().ticks(ns).max(self.lull_end));
        let poll = (!self.interrupts_work).then(|| now + clock::ns_to_tsc(POLL_NS));
        let lull = (self.lull_end != 0).then_some(self.lull_end);
        let due = |at: Option<u64>| at.unwrap_or(u64::MAX);
        let at = due(fabric).min(due(deadline)).min(due(poll)).min(due(lull));
        if at == u64::MAX {
            return;
        }
        let at = at.max(now + 1);
        if self.timer == 0 || at < self.timer || self.timer <= now {
            self.timer = at;
            apic::set_timer(at);
        }
    }

    /// Waits for a frame, an interrupt or `deadline` (a TSC value): polls for
    /// a short while after traffic, then halts.
    pub(crate) fn wait(&mut self, deadline: Option<u64>) {
        let now = clock::now_tsc();
        if now.wrapping_sub(self.last_frame) < self.spin_ticks {
            self.look();
            return;
        }
        self.halt(deadline);
    }

    /// Looks at the receive ring for a while, until something has come.
    fn look(&self) {
        for _ in 0..LOOKS {
            if self.has_frame() {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// Like [`Link::wait`] while an answer is due: polls from `since` on.
    pub(crate) fn wait_for_answer(&mut self, since: u64) {
        if clock::now_tsc().wrapping_sub(since) < self.spin_ticks {
            self.look();
            return;
        }
        self.halt(None);
    }

    fn halt(&mut self, deadline: Option<u64>) {
        if self.node.timeout_ns() == Some(0) {
            return;
        }
        if self.lull_end != 0 {
            self.listen();
        }
        self.set_timer(deadline);
        // What came before the interrupt was on, or while the timer was set.
        if self.has_frame() {
            return;
        }
        interrupts::halt_until_interrupt();
        self.take_interrupts();
    }
}
