//! One node: the production engine and its memory, what may be put into it,
//! and what comes out.

mod early;

use crate::config::Config;
use crate::hash::Mixer;
use crate::memory::Memory;
use crate::rows::Recorder;
use addr::{Access, Frame, Gfn, NodeId, PAGE_SIZE};
use coherence::directory::DirectoryEntry;
use coherence::observe::{Claim, Digest};
use coherence::{Coherence, Env, Limits, Message, Output, Seen};
use layout::Layout;
use paging::{Entry, Format, FramePool, PageState};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A page as one node has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    /// The nested page table's entry.
    pub entry: Entry,
    /// What a load finds, if the page can be read.
    pub readable: Option<u64>,
    /// What the node has of the page's mastery.
    pub claim: Claim,
    /// Nothing is open, waiting or put off for it here.
    pub idle: bool,
    /// Its run may become large.
    pub merges: bool,
    /// The directory's entry, at its home.
    pub directory: Option<DirectoryEntry>,
}

/// A node between two steps.
#[derive(Clone, Debug)]
pub struct Local {
    coherence: Coherence,
    memory: Memory,
    /// Fingerprint of everything, numbers of transactions and frames included.
    pub raw: u64,
    /// Fingerprint of what counts as it is.
    pub skeleton: u64,
    /// Transactions it knows of, by page.
    pub txns: Vec<(u8, u32)>,
    /// Contents it has, by page.
    pub contents: Vec<(u8, u64)>,
    /// Names of frames that count, by frame.
    names: Vec<(Frame, u16)>,
    /// The pages.
    pub looks: Vec<Look>,
    /// Frames of all pages that are held, those of a run that are not told
    /// apart included; in the order of gfns.
    held: Vec<Frame>,
    /// Nothing is open, waiting or put off.
    pub quiet: bool,
    /// The page's frames that others may fill.
    pub room: u64,
}

/// What may be put into a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The guest faults on a page; asks for so many after it.
    Fault(u8, Access, u16),
    /// A page, and the next where it has the same home, are asked for ahead.
    Prefetch(u8, Access),
    /// The guest stores a value.
    Store(u8, u64),
    /// The vCPU has got on.
    Retire,
    /// A page is to leave.
    Evict(u8),
    /// The table of its run is to go.
    TakeOut(u8),
    /// The run of a page is to become large.
    Merge(u8),
    /// Room is to be made.
    Balance,
    /// A message comes, with a page that holds a value.
    Deliver(NodeId, Message, Option<u64>),
    /// The fabric has let go of a frame.
    Release(Frame),
}

/// A message that was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sent {
    /// To whom.
    pub to: NodeId,
    /// The message.
    pub message: Message,
    /// The frame that goes with it, and what it holds.
    pub page: Option<(Frame, u64)>,
}

/// What a step led to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The node after it.
    pub local: Arc<Local>,
    /// What it sent.
    pub sent: Vec<Sent>,
    /// Nodes whose room was asked for.
    pub asked: u8,
}

/// The world as one step sees it.
struct Out<'a> {
    sent: Vec<(NodeId, Message, Option<Frame>)>,
    /// Nodes that seem to have room.
    roomy: u8,
    asked: Cell<u8>,
    flushed: bool,
    recorder: &'a mut Recorder,
}

/// Free frames of a node that seems to have room: more than any really has, so
/// that it is preferred to the home itself where the home prefers at all.
const ROOMY: u64 = 100;

impl Output for Out<'_> {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        self.asked.set(self.asked.get() | 1 << node.0);
        if self.roomy & 1 << node.0 != 0 { ROOMY } else { 0 }
    }
    fn flush(&mut self) {
        self.flushed = true;
    }
    const WATCHES: bool = true;
    fn watch(&mut self, seen: Seen) {
        self.recorder.hear(seen);
    }
}

impl Local {
    /// Node `id` of the model before anything has happened.
    #[must_use]
    pub fn new(config: &Config, id: usize) -> Local {
        let layout = Layout::new(&vec![addr::RUN_PAGES; config.nodes()]).expect("a good layout");
        let table_frames = config.table_frames();
        let limits = Limits {
            table_frames,
            unpromised: table_frames,
            reserve: config.reserve,
            open_max: config.open_max,
            puts_max: config.puts_max,
            asks_max: config.asks_max,
            dones_max: config.pages.len(),
        };
        let link = config.link_frame(id);
        let mut pool = FramePool::new();
        pool.add(Frame(1), link);
        pool.know(link, link.offset_by(1));
        let mut memory = Memory::new(link.0 as usize + 1);
        let me = NodeId(id as u16);
        let coherence = Coherence::new(me, layout, limits, Format::EPT, pool, &mut memory);
        Local::seen(config, coherence, memory)
    }

    fn seen(config: &Config, coherence: Coherence, memory: Memory) -> Local {
        let pages = config.all_gfns();
        let mut digester = Digester::new(&memory, &pages);
        digester.raw.word(u64::from(coherence.me().0));
        coherence.digest(&memory, &pages, &mut digester);
        let Digester { raw, mut skeleton, txns, contents, names, mut sending, .. } = digester;
        // Frames that hold nothing any more are alike but for this.
        let name = |frame| names.iter().find(|(f, _)| *f == frame).map_or(0, |(_, name)| *name);
        let mut parts: Vec<_> = sending
            .iter()
            .map(|&(frame, times, free)| {
                u64::from(name(frame)) << 40 | u64::from(times) << 1 | u64::from(free)
            })
            .collect();
        parts.sort_unstable();
        parts.iter().for_each(|&part| skeleton.word(part));
        sending.sort_unstable();
        let mut all = raw;
        sending.iter().for_each(|&(frame, times, free)| {
            all.word(frame.0 << 40 | u64::from(times) << 1 | u64::from(free));
            all.word(memory.value(frame));
        });
        let look = |&gfn: &Gfn| {
            let home = coherence.layout().home(gfn);
            let me = |&(home, _): &(NodeId, u64)| home == coherence.me();
            Look {
                entry: coherence.entry(&memory, gfn),
                readable: coherence
                    .look(&memory, gfn, Access::Read)
                    .map(|frame| frame.map_or(0, |f| memory.value(f))),
                claim: coherence.claim(&memory, gfn),
                idle: coherence.is_idle(gfn),
                merges: config.may.merge && coherence.may_merge(&memory, gfn).is_some(),
                directory: home.filter(me).map(|(_, at)| coherence.directory().get(&memory, at)),
            }
        };
        let everything = match config.may.merge {
            true => (0..coherence.layout().end().0).map(Gfn).collect(),
            false => pages.clone(),
        };
        let frame = |&gfn: &Gfn| coherence.entry(&memory, gfn).frame;
        Local {
            held: everything.iter().filter_map(frame).collect(),
            raw: all.finish(),
            skeleton: skeleton.finish(),
            txns,
            contents,
            looks: pages.iter().map(look).collect(),
            quiet: coherence.is_quiet(),
            room: coherence.room(),
            names,
            coherence,
            memory,
        }
    }

    /// A name of a frame that is the same in states that are alike; 0 for a
    /// frame whose content no longer counts.
    #[must_use]
    pub fn name(&self, frame: Frame) -> u16 {
        self.names.iter().find(|(f, _)| *f == frame).map_or(0, |(_, name)| *name)
    }

    /// Whether others wait for a page that is kept for the vCPU.
    #[must_use]
    pub fn keeps_others_waiting(&self) -> bool {
        self.coherence.keeps_others_waiting()
    }

    /// What a frame holds now.
    #[must_use]
    pub fn value(&self, frame: Frame) -> u64 {
        self.memory.value(frame)
    }

    /// Whether the input can change anything.
    #[must_use]
    pub fn takes(&self, input: Input) -> bool {
        match input {
            Input::Fault(page, Access::Read, _) => !self.looks[usize::from(page)].entry.readable(),
            Input::Fault(page, Access::Write, _) => !self.looks[usize::from(page)].entry.writable(),
            Input::Store(page, _) => self.looks[usize::from(page)].entry.writable(),
            Input::Evict(page) => self.looks[usize::from(page)].entry.is_held(),
            Input::Merge(page) => self.looks[usize::from(page)].merges,
            Input::Prefetch(page, _) => {
                self.looks[usize::from(page)].entry.state == PageState::Invalid
            }
            Input::Retire
            | Input::Balance
            | Input::TakeOut(_)
            | Input::Deliver(..)
            | Input::Release(_) => true,
        }
    }

    /// Puts `input` in. `roomy` are the nodes that seem to have room.
    ///
    /// # Errors
    /// What is wrong with what the engine did.
    pub fn step(
        &self,
        config: &Config,
        input: Input,
        roomy: u8,
        recorder: &mut Recorder,
    ) -> Result<Outcome, String> {
        let mut node = (self.coherence.clone(), self.memory.clone());
        let mut out =
            Out { sent: Vec::new(), roomy, asked: Cell::new(0), flushed: false, recorder };
        let (coherence, memory) = &mut node;
        IN_ENGINE.set(true);
        let taken = catch_unwind(AssertUnwindSafe(|| {
            if let Input::Deliver(from, message, Some(value)) = input {
                self.check_early(config, (from, message, value), roomy)?;
            }
            put(config, coherence, &mut Env { memory, out: &mut out }, input)
        }));
        IN_ENGINE.set(false);
        let Out { sent, asked, flushed, recorder, .. } = out;
        recorder.rest();
        taken.map_err(panic_text)??;
        let (coherence, memory) = node;
        let carry = |frame| (frame, memory.value(frame));
        let sent = sent
            .into_iter()
            .map(|(to, message, page)| Sent { to, message, page: page.map(carry) })
            .collect();
        let local = Local::seen(config, coherence, memory);
        local.check()?;
        self.check_flush(&local, flushed)?;
        Ok(Outcome { local: Arc::new(local), sent, asked: asked.get() })
    }

    /// Every frame is in one place.
    fn check(&self) -> Result<(), String> {
        let mut held = self.held.clone();
        let pages = held.len();
        held.sort_unstable();
        held.dedup();
        if held.len() != pages {
            return Err("a frame holds two pages".to_owned());
        }
        let (nested, directory) = self.coherence.table_frames();
        let (free, away) = (self.coherence.free_frames(), self.coherence.frames_in_transactions());
        let total = self.coherence.total_frames();
        if free + nested + directory + away + pages as u64 != total {
            return Err(format!(
                "of {total} frames {free} are free, {pages} hold pages, {} are tables, \
                 {away} are in transactions",
                nested + directory
            ));
        }
        Ok(())
    }

    /// Processors drop the translations that are no longer true.
    fn check_flush(&self, after: &Local, flushed: bool) -> Result<(), String> {
        let lost = self.looks.iter().zip(&after.looks).any(|(old, new)| {
            let (old, new) = (old.entry, new.entry);
            old.readable()
                && (!new.readable()
                    || old.frame != new.frame
                    || (old.writable() && !new.writable()))
        });
        if self.coherence.table_frames().0 > after.coherence.table_frames().0 && !flushed {
            return Err("a table was taken out and no flush is owed".to_owned());
        }
        if lost && !flushed {
            return Err("a right was lost and no flush is owed".to_owned());
        }
        Ok(())
    }
}

thread_local! {
    /// The engine runs: its panics are findings, and told with their steps.
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Keeps panics of the engine off the terminal.
pub fn hush_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IN_ENGINE.get() {
            tell(info);
        }
    }));
}

/// Runs the engine.
fn put(
    config: &Config,
    coherence: &mut Coherence,
    env: &mut Env<'_, Memory, Out<'_>>,
    input: Input,
) -> Result<(), String> {
    let gfn = |page: u8| config.gfn(page.into());
    let foreseen = match input {
        Input::Fault(page, access, 0) => {
            let entry = coherence.entry(env.memory, gfn(page));
            let foreseen = coherence.foresee_fetch(env.memory, gfn(page), access, &entry);
            foreseen.map(|(to, request)| (to, request, None))
        }
        Input::Deliver(from, message, _) => coherence.foresee_answer(env.memory, from, &message),
        _ => None,
    };
    let step = match input {
        Input::Fault(page, access, ahead) => {
            coherence.access(env, gfn(page), access, ahead).map(|_| ())
        }
        Input::Prefetch(page, access) => {
            let next = config.pages.get(usize::from(page) + 1).map(|(home, _)| *home);
            let run = next == Some(config.pages[usize::from(page)].0);
            coherence.prefetch(env, gfn(page), 1, 1 + u16::from(run), access)
        }
        Input::Store(page, value) => {
            let frame = coherence.look(env.memory, gfn(page), Access::Write).flatten();
            env.memory.store(frame.ok_or("a store to a page that is read-only")?, value);
            Ok(())
        }
        Input::Retire => coherence.release_held(env),
        Input::Evict(page) => {
            let others = (0..config.nodes() as u16).map(NodeId).filter(|&n| n != coherence.me());
            let room = others.fold(false, |any, n| any | (env.out.free_frames(n) > 0));
            coherence.evict(env, gfn(page), room).map(|_| ())
        }
        Input::TakeOut(page) => {
            coherence.take_out(env, gfn(page));
            Ok(())
        }
        Input::Merge(page) => match coherence.merge(env, gfn(page)) {
            true => Ok(()),
            false => return Err("a run that may be merged is not".to_owned()),
        },
        Input::Balance => coherence.balance(env),
        Input::Deliver(from, message, value) => {
            let mut page = [0; PAGE_SIZE];
            page[..8].copy_from_slice(&value.unwrap_or(0).to_le_bytes());
            coherence.handle(env, from, message, value.map(|_| &page))
        }
        Input::Release(frame) => {
            coherence.released(frame);
            Ok(())
        }
    };
    step.map_err(|v| {
        format!("the protocol does not allow it: {} ({:?} from {})", v.why, v.message, v.from)
    })?;
    let first = env.out.sent.first().copied();
    match foreseen {
        Some(foreseen) if first != Some(foreseen) => {
            Err(format!("{foreseen:?} was foreseen, and the step sends {first:?}"))
        }
        _ => Ok(()),
    }
}

fn panic_text(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

/// Turns a digest into the parts of [`Local`].
struct Digester<'a> {
    memory: &'a Memory,
    pages: &'a [Gfn],
    raw: Mixer,
    skeleton: Mixer,
    txns: Vec<(u8, u32)>,
    contents: Vec<(u8, u64)>,
    names: Vec<(Frame, u16)>,
    sending: Vec<(Frame, u32, bool)>,
}

impl<'a> Digester<'a> {
    fn new(memory: &'a Memory, pages: &'a [Gfn]) -> Digester<'a> {
        let (raw, skeleton) = (Mixer::default(), Mixer::default());
        let (txns, contents, names, sending) = (vec![], vec![], vec![], vec![]);
        Digester { memory, pages, raw, skeleton, txns, contents, names, sending }
    }

    fn page(&self, gfn: Gfn) -> u8 {
        self.pages.iter().position(|&p| p == gfn).expect("a page of the model") as u8
    }
}

impl Digest for Digester<'_> {
    fn word(&mut self, word: u64) {
        self.raw.word(word);
        self.skeleton.word(word);
    }
    fn txn(&mut self, gfn: Gfn, txn: u32) {
        self.raw.word(u64::from(txn));
        self.skeleton.word(u64::MAX);
        self.txns.push((self.page(gfn), txn));
    }
    fn next_txn(&mut self, txn: u32) {
        self.raw.word(u64::from(txn));
    }
    fn content(&mut self, gfn: Gfn, frame: Frame) {
        let value = self.memory.value(frame);
        self.raw.word(frame.0);
        self.raw.word(value);
        self.skeleton.word(u64::MAX - 1);
        self.contents.push((self.page(gfn), value));
        if !self.names.iter().any(|(f, _)| *f == frame) {
            self.names.push((frame, self.names.len() as u16 + 1));
        }
    }
    fn empty(&mut self, frame: Frame) {
        self.raw.word(frame.0);
    }
    fn sending(&mut self, frame: Frame, times: u32, free_after: bool) {
        self.sending.push((frame, times, free_after));
    }
}
