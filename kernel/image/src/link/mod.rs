//! NIC and engine: frames in, frames out, and the wait in between ([`wait`]).

mod wait;

use addr::{Frame, PAGE_SIZE};
use alloc::vec::Vec;
use fabric::{Desk, Event, Transmit};
use nic::folded::{self, Unfolded, Unfolder};
use nic::{AnyNic, HEADER_MAX, LandingPage, Nic, PageSlice, Peek, Probed, TransmitError};
use node::histogram::Recent;
use node::lull::Lull;
use node::report::Traffic;
use node::{Guest, Node, Settings};
use platform::memory::PhysMemory;
use platform::{clock, interrupts};

/// Frames taken in one go before the guest gets its turn.
const BATCH: usize = 64;
/// Pages sent in one go before the next look at what has arrived: what leaves
/// for want of room must not keep back the page that the guest waits for.
const PAGES_AT_ONCE: usize = 2;
/// A node without interrupts from its NIC looks at it this often.
const POLL_NS: u64 = 250_000;
/// How long the NIC's interrupt stays off after an answer was polled for: at least,
/// and as long as what comes meanwhile may have to wait.
const LULL_NS: (u64, u64) = (300_000, 1_000_000);

/// The node's engine, its memory and its NIC.
pub(crate) struct Link {
    pub(crate) node: Node,
    pub(crate) memory: PhysMemory,
    nic: Option<Probed>,
    unfolder: Unfolder,
    /// Whether the NIC's interrupt was seen to arrive.
    interrupts_work: bool,
    header: [u8; HEADER_MAX],
    spin_ticks: u64,
    /// Ticks between two reports; 0 for none.
    report_ticks: u64,
    next_report: u64,
    /// Ticks between two samples for a live view; 0 for none.
    sample_ticks: u64,
    next_sample: u64,
    recent: Recent,
    last_frame: u64,
    /// What the timer is set to; 0 for nothing.
    timer: u64,
    /// When the NIC's interrupt is to be on again; 0 if it is.
    lull_end: u64,
    lull: Lull,
}

/// What [`Link::take`] has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// Nothing had come.
    Nothing,
    /// The guest's page is mapped, and nothing else has happened.
    PageOnly,
    /// Frames were taken.
    Frames,
}

/// Hands a frame to the NIC.
#[inline(always)]
fn hand(
    nic: &mut AnyNic,
    memory: &PhysMemory,
    header: &mut [u8],
    frame: &Transmit,
) -> Result<(), TransmitError> {
    if !frame.is_laid {
        return write(nic, memory, header, frame);
    }
    let sent = folded::launch(nic, memory, frame.page.map(slice));
    if sent { Ok(()) } else { Err(TransmitError::Full) }
}

fn slice(part: fabric::PageSlice) -> PageSlice {
    PageSlice { frame: part.frame, offset: part.offset, len: part.len }
}

/// Hands a frame to the NIC that lies in `header`.
#[inline(never)]
fn write(
    nic: &mut AnyNic,
    memory: &PhysMemory,
    header: &mut [u8],
    frame: &Transmit,
) -> Result<(), TransmitError> {
    let page = frame.page.map(slice);
    folded::transmit(nic, memory, &mut header[..frame.header_len], page)
}

impl Link {
    /// Joins an engine to a NIC; a node that is alone needs none.
    pub(crate) fn new(
        node: Node,
        memory: PhysMemory,
        mut nic: Option<Probed>,
        spare: Option<LandingPage>,
        settings: &Settings<'_>,
    ) -> Link {
        let works = nic.as_mut().map(|n| n.interrupt_works() == Some(true));
        if works == Some(false) {
            log::warn!("the NIC's interrupt does not arrive: polling every {POLL_NS} ns");
        }
        if let Some(n) = &mut nic {
            n.nic.enable_interrupts();
        }
        let spin_ticks = clock::ns_to_tsc(settings.spin_us * 1000);
        let report_ticks = settings.report_s * clock::tsc_hz();
        let sample_ticks = settings.sample_s * clock::tsc_hz();
        let interrupts_work = works.unwrap_or(true);
        Link {
            node,
            memory,
            nic,
            unfolder: Unfolder::new(spare),
            interrupts_work,
            header: [0; HEADER_MAX],
            spin_ticks,
            report_ticks,
            next_report: report_ticks,
            sample_ticks,
            next_sample: sample_ticks,
            recent: Recent::default(),
            last_frame: 0,
            timer: 0,
            lull_end: 0,
            lull: Lull::new(clock::ns_to_tsc(LULL_NS.0), clock::ns_to_tsc(LULL_NS.1)),
        }
    }

    /// Takes what has arrived and sends what waits; `true` if anything came.
    pub(crate) fn pump(&mut self, mut guest: Option<&mut Guest>) -> bool {
        let mut any = self.send(guest.as_deref_mut());
        if let Some(guest) = &mut guest {
            self.meanwhile(guest);
        }
        // Mostly nothing has come: that is cheaper to see than to take.
        any |= self.has_frame() && self.take(guest.as_deref_mut()) != Taken::Nothing;
        self.tick();
        self.tell(guest.as_deref());
        any | self.send(guest)
    }

    /// Takes what has arrived, and sends what follows from it. Where the guest's
    /// page has come, it stays at that, and the frame is left for [`Link::settle`],
    /// unless the guest is not to exit for it.
    pub(crate) fn take(&mut self, mut guest: Option<&mut Guest>) -> Taken {
        let mut taken = Taken::Nothing;
        for n in 0..BATCH {
            if n > 0 && !self.has_frame() {
                break;
            }
            let tsc = clock::now_tsc();
            match guest.as_deref_mut().filter(|guest| guest.is_waiting()) {
                Some(_) if self.lull.is_alone() => {}
                Some(guest) => {
                    if self.map_early(tsc, guest) {
                        self.last_frame = tsc;
                        return if n == 0 { Taken::PageOnly } else { Taken::Frames };
                    }
                }
                // What a guest waits for is no request.
                None => self.answer(tsc),
            }
            if !self.take_one(tsc, guest.as_deref_mut()) {
                break;
            }
            taken = Taken::Frames;
        }
        taken
    }

    /// Maps the page that the guest waits for, if it has come and that can be told
    /// by looking at its frame.
    #[inline(always)]
    fn map_early(&mut self, tsc: u64, guest: &mut Guest) -> bool {
        let (Some(probed), Some(access)) = (&mut self.nic, guest.awaits()) else { return false };
        let (node, memory, unfolder) = (&mut self.node, &mut self.memory, &mut self.unfolder);
        let mapped = probed.nic.peek_long(|page, rest| {
            unfolder.unfold_ahead(page, rest) && node.map_early(rest, page.frame(), access, memory)
        });
        if mapped == Some(true) {
            guest.received(tsc);
            self.lull.came(tsc);
        }
        mapped == Some(true)
    }

    /// Takes the frame of a page that is mapped, if there is one.
    pub(crate) fn settle(&mut self, guest: &mut Guest) {
        if self.node.is_early() {
            self.take_one(clock::now_tsc(), Some(guest));
        }
    }

    /// Takes the next frame, if there is one, and sends what follows from it.
    fn take_one(&mut self, tsc: u64, mut guest: Option<&mut Guest>) -> bool {
        let (node, memory) = (&mut self.node, &mut self.memory);
        let Some(probed) = &mut self.nic else { return false };
        let unfolder = &mut self.unfolder;
        let taken = probed.nic.receive(|arrival| match unfolder.unfold(memory, arrival) {
            Unfolded::Plain(bytes) => node.frame(tsc, bytes, memory),
            Unfolded::Landed(bytes, page) => {
                let frame = node.landed(tsc, bytes, page.frame(), memory);
                if frame != page.frame() {
                    *page = LandingPage::new(memory, frame);
                }
            }
            Unfolded::Foreign => {}
        });
        if taken {
            self.last_frame = tsc;
            if let Some(guest) = &mut guest {
                guest.received(tsc);
                if guest.is_waiting() {
                    self.lull.came(tsc);
                }
            }
            self.send(guest);
        }
        taken
    }

    /// Answers the frame that comes next, if the answer can be told by looking at
    /// it: somebody waits for that. What leads to it is done afterwards.
    fn answer(&mut self, tsc: u64) {
        let Some(probed) = &mut self.nic else { return };
        let (node, memory, header) = (&mut self.node, &self.memory, &mut self.header);
        let Some(Peek { frame, staged: laid }) = probed.nic.peek() else { return };
        let desk = &mut Desk { header, laid };
        let Some(frame) = node.foresee(tsc, frame, memory, desk) else { return };
        match hand(&mut probed.nic, memory, header, &frame) {
            Ok(()) => self.node.foresaw(clock::now_tsc(), frame.page.is_some()),
            Err(_) => self.node.unforesee(),
        }
    }

    /// Sends the request of the guest's last fault, if that has not been made, and
    /// then does what leads to it.
    fn ask(&mut self, guest: &mut Guest) {
        let now = clock::now_tsc();
        if let Some(probed) = &mut self.nic
            && let Some(frame) = {
                let mut desk = Desk { header: &mut self.header, laid: probed.nic.staged() };
                self.node.foresee_guest(now, guest, &mut desk)
            }
        {
            match hand(&mut probed.nic, &self.memory, &mut self.header, &frame) {
                Ok(()) => self.node.sent(clock::now_tsc(), false, Some(guest)),
                Err(_) => self.node.unforesee(),
            }
        }
        self.node.ask(now, guest, &mut self.memory);
    }

    /// Does what a fault leaves to be done while the guest waits.
    pub(crate) fn meanwhile(&mut self, guest: &mut Guest) {
        self.node.meanwhile(guest, &mut self.memory);
    }

    /// Does what time demands.
    pub(crate) fn tick(&mut self) {
        self.node.tick(clock::now_tsc(), &mut self.memory);
        self.lay_ahead();
    }

    /// Gets the frame that is written ahead ready in the device's memory.
    fn lay_ahead(&mut self) {
        let Some(Probed { nic, .. }) = &mut self.nic else { return };
        let gone = nic.staged().is_none();
        self.node.lay_ahead(gone, |frame, payload| match usize::from(payload) {
            0 => folded::stage(nic, frame, false),
            PAGE_SIZE => folded::stage(nic, frame, true),
            _ => false,
        });
    }

    /// Prints reports and samples that are due: never while a guest waits for a
    /// page, as it takes long.
    fn tell(&mut self, guest: Option<&Guest>) {
        let now = clock::now_tsc();
        if self.report_ticks != 0 && now >= self.next_report {
            self.next_report = now + self.report_ticks;
            crate::ending::summarise(self);
        }
        if self.sample_ticks != 0 && now >= self.next_sample {
            self.next_sample = now + self.sample_ticks;
            self.sample(guest);
        }
    }

    /// Prints a sample for a live view.
    fn sample(&mut self, guest: Option<&Guest>) {
        let traffic = self.nic.as_mut().map_or(Traffic::default(), |probed| {
            let counters = probed.nic.counters();
            Traffic { received: counters.received_bytes, sent: counters.sent_bytes }
        });
        let counters = guest.map(|guest| guest.machine.counters());
        crate::ending::sample(&mut self.node, &mut self.recent, traffic, counters);
    }

    /// Page frames that the NIC has at first and exchanges for others.
    pub(crate) fn landing_frames(&self) -> Vec<(Frame, Frame)> {
        let rings = self.nic.iter().filter_map(|p| p.nic.landing_frames());
        let spare = self.unfolder.spare().map(|f| (f, f.offset_by(1)));
        rings.chain(spare).collect()
    }

    /// Pages copied because the NIC handed them over in one piece.
    pub(crate) fn pages_unfolded(&self) -> u64 {
        self.unfolder.copied
    }

    /// Whether nothing has come and nothing is to be sent. What the timer is set
    /// for makes itself known as an interrupt.
    pub(crate) fn is_idle(&self) -> bool {
        !interrupts::any_pending() && !self.has_frame() && !self.node.has_output()
    }

    fn has_frame(&self) -> bool {
        self.nic.as_ref().is_some_and(|p| p.nic.receive_ready())
    }

    /// Sends what waits; `true` if some of it still does.
    pub(crate) fn send(&mut self, mut guest: Option<&mut Guest>) -> bool {
        if let Some(guest) = guest.as_deref_mut().filter(|guest| guest.is_to_ask()) {
            self.ask(guest);
        }
        let mut pages = 0;
        while self.node.has_output() {
            let Some(probed) = &mut self.nic else {
                // Alone: what the fabric would send has nowhere to go.
                while self.node.transmit(clock::now_tsc(), &mut self.header).is_some() {}
                return false;
            };
            if pages == PAGES_AT_ONCE || probed.nic.room() == 0 {
                return true;
            }
            let Some(frame) = self.node.transmit(clock::now_tsc(), &mut self.header) else {
                return false;
            };
            if let Err(error) = hand(&mut probed.nic, &self.memory, &mut self.header, &frame) {
                // It counts as lost on the wire and is sent again.
                log::warn!("a frame was not sent: {error:?}");
                return true;
            }
            let with_page = frame.page.is_some();
            pages += usize::from(with_page);
            self.node.sent(clock::now_tsc(), with_page, guest.as_deref_mut());
        }
        false
    }

    /// The next event of the fabric.
    pub(crate) fn event(&mut self, guest: Option<&mut Guest>) -> Option<Event> {
        self.node.event(clock::now_tsc(), guest)
    }
}
