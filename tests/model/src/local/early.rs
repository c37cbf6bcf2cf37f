//! A page that is mapped before the step that takes it: nobody may see a
//! difference but the vCPU, which goes on.

use super::{Local, ROOMY};
use crate::config::Config;
use addr::{Access, Arrived, Frame, NodeId};
use coherence::{Env, Message, Output, Violation};

/// What the vCPU does before the message with its page is taken.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    /// It stores a value to the page.
    Store(u64),
    /// It faults on another page.
    Fault(u8, Access),
    /// It gets on, and then faults on another page.
    Retires(u8, Access),
}

/// Where messages go, without the rows of the protocol.
struct Quiet {
    sent: Vec<(NodeId, Message, Option<Frame>)>,
    roomy: u8,
    flushed: bool,
}

impl Output for Quiet {
    fn send(&mut self, to: NodeId, message: Message, page: Option<Frame>) {
        self.sent.push((to, message, page));
    }
    fn free_frames(&self, node: NodeId) -> u64 {
        if self.roomy & 1 << node.0 != 0 { ROOMY } else { 0 }
    }
    fn flush(&mut self) {
        self.flushed = true;
    }
}

fn forbidden(v: Violation) -> String {
    format!("the protocol does not allow it: {} ({:?} from {})", v.why, v.message, v.from)
}

impl Local {
    /// Compares what this message leads to with what it leads to when its page is
    /// mapped first, and the message is taken after the vCPU has gone on.
    pub(super) fn check_early(
        &self,
        config: &Config,
        (from, message, value): (NodeId, Message, u64),
        roomy: u8,
    ) -> Result<(), String> {
        let pages = 0..config.pages.len() as u8;
        let accesses = pages.flat_map(|page| [(page, Access::Read), (page, Access::Write)]);
        let faults = accesses.flat_map(|(page, access)| {
            [Meanwhile::Fault(page, access), Meanwhile::Retires(page, access)]
        });
        let simple = [Meanwhile::Nothing, Meanwhile::Store(!value)];
        for meanwhile in simple.into_iter().chain(faults) {
            let way = |early| self.take(config, (from, message, value), (meanwhile, early), roomy);
            match way(true)? {
                early @ Some(_) if early != way(false)? => {
                    return Err(format!(
                        "a page that is mapped early: {meanwhile:?} goes another way"
                    ));
                }
                Some(_) => {}
                // It is not mapped early.
                None if matches!(meanwhile, Meanwhile::Nothing) => break,
                None => {}
            }
        }
        Ok(())
    }

    /// One of the two ways, as fingerprints; `None` where it cannot be gone.
    fn take(
        &self,
        config: &Config,
        (from, message, value): (NodeId, Message, u64),
        (meanwhile, early): (Meanwhile, bool),
        roomy: u8,
    ) -> Result<Option<impl PartialEq + use<>>, String> {
        let (mut coherence, mut memory) = (self.coherence.clone(), self.memory.clone());
        let mut out = Quiet { sent: Vec::new(), roomy, flushed: false };
        // The link's own frame, behind those of the pool.
        let mut landed = config.link_frame(usize::from(coherence.me().0));
        memory.store(landed, value);
        let mut env = Env { memory: &mut memory, out: &mut out };
        coherence.approach(env.memory, message.gfn);
        if early && !coherence.map_early(env.memory, &message, landed) {
            return Ok(None);
        }
        let page = message.gfn;
        if let Meanwhile::Store(value) = meanwhile
            && early
        {
            let Some(frame) = coherence.look(env.memory, page, Access::Write).flatten() else {
                return Ok(None);
            };
            env.memory.store(frame, value);
        }
        if let Meanwhile::Retires(..) = meanwhile
            && early
        {
            coherence.release_held(&mut env).map_err(forbidden)?;
        }
        if let Meanwhile::Fault(other, access) | Meanwhile::Retires(other, access) = meanwhile {
            let other = config.gfn(other.into());
            let entry = coherence.entry(env.memory, other);
            let foreseen = coherence.foresee_fetch(env.memory, other, access, &entry);
            let Some((to, request)) = foreseen else { return Ok(None) };
            let before = env.out.sent.len();
            coherence.access(&mut env, other, access, 0).map_err(forbidden)?;
            if env.out.sent.get(before) != Some(&(to, request, None)) {
                return Err(format!("{request:?} was foreseen and is not sent"));
            }
        }
        let page_of = Some(Arrived::Landed(&mut landed));
        coherence.handle_arrived(&mut env, from, message, page_of).map_err(forbidden)?;
        if coherence.is_early() {
            return Err("a page that is mapped early is not taken".to_owned());
        }
        if let Meanwhile::Store(value) = meanwhile
            && !early
        {
            let Some(frame) = coherence.look(env.memory, page, Access::Write).flatten() else {
                return Ok(None);
            };
            env.memory.store(frame, value);
        }
        if let Meanwhile::Retires(..) = meanwhile
            && !early
        {
            coherence.release_held(&mut env).map_err(forbidden)?;
        }
        // The page is counted where its table would else be taken out.
        coherence.take_out(&mut env, page);
        let counts = (coherence.masters(), coherence.replicas(), *coherence.counters());
        let Quiet { sent, flushed, .. } = out;
        let after = Local::seen(config, coherence, memory);
        after.check()?;
        // A request and a table of leaves may have each other's frames.
        let faults = matches!(meanwhile, Meanwhile::Fault(..) | Meanwhile::Retires(..));
        let frames = (!faults).then_some((after.raw, landed));
        Ok(Some((frames, counts, after.skeleton, after.txns, after.contents, sent, flushed)))
    }
}
