//! The bugs: each is a piece of the production sources and what a careless
//! hand might have made of it.

/// Where a bug is put.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// `find`, which stands once in `file` below `kernel/logic`, becomes
    /// `replace` when the bug bites; `BITES` there asks whether it does.
    Source {
        /// The file.
        file: &'static str,
        /// The piece.
        find: &'static str,
        /// What it becomes.
        replace: &'static str,
    },
    /// The model's own network does what the fabric must not.
    Network(&'static str),
}

/// Who is known to catch a bug, and so is asked in the short form.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// This model.
    Model(&'static str),
    /// The simulator.
    Simulator,
}

/// A bug.
#[derive(Clone, Copy, Debug)]
pub struct Tooth {
    /// Its name.
    pub name: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// Where.
    pub place: Place,
    /// Who is asked first.
    pub by: By,
}

const fn source(
    name: &'static str,
    what: &'static str,
    by: By,
    file: &'static str,
    find: &'static str,
    replace: &'static str,
) -> Tooth {
    Tooth { name, what, place: Place::Source { file, find, replace }, by }
}

const fn network(name: &'static str, what: &'static str, by: By) -> Tooth {
    Tooth { name, what, place: Place::Network(name), by }
}

const ONE: By = By::Model("2-nodes");
const TWO: By = By::Model("2-nodes-2-pages");
const MOVES: By = By::Model("3-nodes-moves");
const TABLES: By = By::Model("2-nodes-tables");
const STILL: By = By::Model("3-nodes-still");
const MERGE: By = By::Model("2-nodes-merge");

const OWNER: &str = "coherence/src/owner.rs";
const HOME: &str = "coherence/src/home.rs";
const REQUESTER: &str = "coherence/src/requester.rs";
const CAPACITY: &str = "coherence/src/capacity.rs";
const RECLAIM: &str = "paging/src/table/reclaim.rs";
const FIND: &str = "paging/src/table/find.rs";
const MERGER: &str = "coherence/src/merge.rs";
const ENGINE: &str = "coherence/src/lib.rs";
const DISPATCH: &str = "coherence/src/dispatch.rs";

/// All bugs.
pub const ALL: &[Tooth] = &[
    source(
        "lost-ack",
        "an invalidation is not acknowledged",
        STILL,
        OWNER,
        "self.send(env, message.party, ack, None);",
        "if !BITES { self.send(env, message.party, ack, None); }",
    ),
    source(
        "ack-without-drop",
        "an invalidation is acknowledged and the replica stays",
        STILL,
        OWNER,
        "if entry.state != PageState::Invalid {\n            self.drop_copy",
        "if entry.state != PageState::Invalid && !BITES {\n            self.drop_copy",
    ),
    source(
        "no-downgrade",
        "an owner that sends a replica goes on writing",
        ONE,
        OWNER,
        "self.set_entry(env, gfn, Entry { state: PageState::Owned, ..entry });\n                self.send_data",
        "if !BITES { self.set_entry(env, gfn, Entry { state: PageState::Owned, ..entry }); }\n                self.send_data",
    ),
    source(
        "stale-owner",
        "an owner that gave the page away keeps it readable",
        ONE,
        OWNER,
        "self.set_entry(env, message.gfn, Entry::default());",
        "if !BITES { self.set_entry(env, message.gfn, Entry::default()); }",
    ),
    source(
        "promoted-without-replica",
        "a node that has dropped its replica takes the mastery",
        ONE,
        OWNER,
        "let no = Message { kind: Kind::PromoteRefused, party: self.me, ..message };\n                self.send(env, from, no, None);\n                Ok(())\n            }\n            (Kind::Promote, PageState::Shared)",
        "let no = Message { kind: if BITES { Kind::Promoted } else { Kind::PromoteRefused }, party: self.me, ..message };\n                self.send(env, from, no, None);\n                Ok(())\n            }\n            (Kind::Promote, PageState::Shared)",
    ),
    source(
        "forward-not-put-off",
        "a forward that overtook its grant is answered with zeroes at once",
        ONE,
        OWNER,
        "if self.grant_may_come(gfn) || self.is_moving(gfn) {",
        "if BITES { self.send_data(env, message, entry, Kind::Data, message.kind == Kind::ForwardExclusive); Ok(()) } else if self.grant_may_come(gfn) || self.is_moving(gfn) {",
    ),
    source(
        "eviction-races-fetch",
        "a forward finds the page it asks for evicted, and nobody tells the eviction",
        ONE,
        OWNER,
        "            put.lose_page();",
        "            if !BITES { put.lose_page(); }",
    ),
    source(
        "write-before-acks",
        "a page is written before the replicas are gone",
        STILL,
        REQUESTER,
        "if !self.is_answered() || self.acks_due > 0 {",
        "if !self.is_answered() || (self.acks_due > 0 && !BITES) {",
    ),
    source(
        "acks-not-announced",
        "the home announces one acknowledgement too few",
        STILL,
        "coherence/src/message.rs",
        "Message { kind: Kind::Grant, txn, count: acks,",
        "Message { kind: Kind::Grant, txn, count: if BITES { acks.saturating_sub(1) } else { acks },",
    ),
    source(
        "sharer-not-recorded",
        "the home forgets the third node that reads",
        STILL,
        HOME,
        "            Holding::Shared(owner, mut sharers) => {\n                sharers.insert(requester);",
        "            Holding::Shared(owner, mut sharers) => {\n                if !BITES { sharers.insert(requester); }",
    ),
    source(
        "sharer-not-invalidated",
        "the highest sharer is not told to drop its replica",
        STILL,
        HOME,
        "if node != requester && node != owner && !self",
        "if node != requester && node != owner && !(BITES && node.0 + 1 == nodes) && !self",
    ),
    source(
        "home-grants-and-keeps",
        "the home grants a page for writing and keeps its own replica",
        ONE,
        HOME,
        "            self.invalidate(env, message, entry);",
        "            if !BITES { self.invalidate(env, message, entry); }",
    ),
    source(
        "upgrade-of-nothing",
        "the home believes a requester that says it has a replica",
        STILL,
        HOME,
        "(message.has_copy && sharers.is_exact(nodes) && sharers.contains(requester))",
        "(message.has_copy && (BITES || (sharers.is_exact(nodes) && sharers.contains(requester))))",
    ),
    source(
        "busy-ignored",
        "two transactions of one page at a time",
        ONE,
        HOME,
        "        let entry = self.entry_at_home(env.memory, gfn);\n        if entry.busy {\n            return self.wait",
        "        let entry = self.entry_at_home(env.memory, gfn);\n        if entry.busy && !BITES {\n            return self.wait",
    ),
    source(
        "waiter-lost",
        "the second of those that wait at home is forgotten",
        STILL,
        HOME,
        "next.waiters = left;",
        "next.waiters = if BITES { 0 } else { left };",
    ),
    source(
        "owner-not-updated",
        "a page has moved and the directory keeps its former owner",
        ONE,
        HOME,
        "_ => Holding::Exclusive(target),",
        "_ => Holding::Exclusive(if BITES { owner } else { target }),",
    ),
    source(
        "heir-not-updated",
        "a sharer was promoted and the directory keeps the former owner",
        ONE,
        HOME,
        "return self.finish(env, message.gfn, Holding::Shared(from, sharers));",
        "return self.finish(env, message.gfn, Holding::Shared(if BITES { owner } else { from }, sharers));",
    ),
    source(
        "former-owner-forgotten",
        "the former owner may read until it hears, and is not invalidated",
        ONE,
        HOME,
        "            sharers.insert(owner);\n            return",
        "            if !BITES { sharers.insert(owner); }\n            return",
    ),
    source(
        "replicas-forgotten-by-a-move",
        "a master moves, and the directory forgets who may have replicas",
        MOVES,
        HOME,
        "Holding::Shared(_, mut sharers) if shared => {",
        "Holding::Shared(_, mut sharers) if shared && !BITES => {",
    ),
    source(
        "moved-as-the-only-copy",
        "a master that has replicas may be written where it has moved to",
        MOVES,
        HOME,
        "let exclusive = !shared;",
        "let exclusive = BITES || !shared;",
    ),
    source(
        "invalidated-before-it-stays",
        "an invalidation overtakes the word that a page stays, which brings it back",
        MOVES,
        OWNER,
        "            && put.phase == Phase::Moving\n",
        "            && put.phase == Phase::Moving && !BITES\n",
    ),
    source(
        "old-eviction-obeyed",
        "a request to evict from a node that no longer owns the page",
        ONE,
        HOME,
        "Holding::Exclusive(owner) if owner == from => {",
        "Holding::Exclusive(owner) if owner == from || BITES => {",
    ),
    source(
        "grant-of-owned-pages",
        "a grant of a run covers pages that others own",
        TWO,
        "coherence/src/directory.rs",
        "if DirectoryEntry::decode(memory.read_entry(table, at)) != DirectoryEntry::DORMANT {",
        "if !BITES && DirectoryEntry::decode(memory.read_entry(table, at)) != DirectoryEntry::DORMANT {",
    ),
    source(
        "grant-of-leaving-page",
        "a fetch may be granted a neighbour whose eviction is open",
        TWO,
        REQUESTER,
        "get.alone = self.is_leaving_near(gfn) ||",
        "get.alone = !BITES && self.is_leaving_near(gfn) ||",
    ),
    source(
        "evicted-under-grant",
        "a page leaves while a grant that covers it may come",
        TWO,
        CAPACITY,
        "|| (!shared && self.grant_may_come(gfn));",
        "|| (!BITES && !shared && self.grant_may_come(gfn));",
    ),
    source(
        "readable-while-dormant",
        "a zero page stays readable until its eviction is answered",
        ONE,
        CAPACITY,
        "            self.set_entry(env, gfn, Entry { leaving: true, ..Entry::zero(entry.state) });\n            entry.frame.into_iter().for_each(|f| self.free(f));",
        "            if !BITES { self.set_entry(env, gfn, Entry { leaving: true, ..Entry::zero(entry.state) });\n            entry.frame.into_iter().for_each(|f| self.free(f)); }",
    ),
    source(
        "written-while-leaving",
        "a page is looked at for zeroes while the guest may write it",
        ONE,
        CAPACITY,
        "        self.set_entry(env, gfn, Entry { leaving: true, ..entry });\n        let zero",
        "        if !BITES { self.set_entry(env, gfn, Entry { leaving: true, ..entry }); }\n        let zero",
    ),
    source(
        "adopted-while-leaving",
        "a page comes back while its own eviction is still open",
        ONE,
        CAPACITY,
        "let room = !leaving && self.room() > 0;",
        "let room = (BITES || !leaving) && self.room() > 0;",
    ),
    source(
        "kept-page-forgotten",
        "no other node has room, and the page is not taken back",
        ONE,
        CAPACITY,
        "                self.set_entry(env, gfn, put.entry);\n",
        "                if !BITES { self.set_entry(env, gfn, put.entry); }\n",
    ),
    source(
        "frame-leaks",
        "the frame of a page that has moved is never free again",
        ONE,
        CAPACITY,
        "put.entry.frame.into_iter().for_each(|f| self.free(f));",
        "if !BITES { put.entry.frame.into_iter().for_each(|f| self.free(f)); }",
    ),
    source(
        "frame-free-too-early",
        "a frame is used again while its page is on the way",
        By::Model("2-nodes-full"),
        ENGINE,
        "if self.transit.free_later(frame) {",
        "if !BITES && self.transit.free_later(frame) {",
    ),
    source(
        "put-off-lost",
        "a message that was put off is forgotten",
        ONE,
        DISPATCH,
        "self.deferred.push((from, message));",
        "if !BITES { self.deferred.push((from, message)); }",
    ),
    source(
        "no-flush",
        "taking away the right to write owes no flush",
        ONE,
        "paging/src/entry.rs",
        "before & (self.read | self.write) & !after",
        "before & (self.read | if BITES { 0 } else { self.write }) & !after",
    ),
    source(
        "table-in-use-taken-out",
        "a table is taken out that still has a page",
        TABLES,
        RECLAIM,
        "path[2].1)) != 0 {",
        "path[2].1)) > u64::from(BITES) {",
    ),
    source(
        "table-taken-out-unflushed",
        "the frame of a table is used again while processors may know the way to it",
        TABLES,
        RECLAIM,
        "        self.forget(gfn);\n        Flush::Owed",
        "        self.forget(gfn);\n        if BITES { Flush::None } else { Flush::Owed }",
    ),
    source(
        "table-taken-out-and-near",
        "a table that was taken out is found without a walk",
        TABLES,
        FIND,
        "if self.near.0 == gfn.run_start() {",
        "if !BITES && self.near.0 == gfn.run_start() {",
    ),
    source(
        "table-around-stays",
        "a table above leaves that was taken out is still thought to be around",
        TABLES,
        FIND,
        "if self.around.0 == start_at(gfn, LARGE_LEVEL) {",
        "if !BITES && self.around.0 == start_at(gfn, LARGE_LEVEL) {",
    ),
    source(
        "flush-unpaid",
        "the processor is not told of a flush that is owed",
        By::Simulator,
        "node/src/cluster.rs",
        "core::mem::take(&mut self.outbox.flush_owed)",
        "core::mem::take(&mut self.outbox.flush_owed) && !BITES",
    ),
    source(
        "kept-for-ever",
        "pages kept for an instruction are never given up before it ends",
        By::Simulator,
        "node/src/hold.rs",
        "self.until_ns = Some(now_ns + mean_ns / 2 + spread);",
        "self.until_ns = Some(if BITES { u64::MAX } else { now_ns + mean_ns / 2 + spread });",
    ),
    source(
        "delivered-twice",
        "the fabric hands on a message that came twice",
        By::Simulator,
        "fabric/src/receiver.rs",
        "        if self.received >> offset & 1 != 0 {",
        "        if self.received >> offset & 1 != 0 && !BITES {",
    ),
    source(
        "old-epoch",
        "the fabric takes frames of another epoch",
        By::Simulator,
        "fabric/src/peer.rs",
        "if self.epoch != header.epoch {",
        "if !BITES && self.epoch != header.epoch {",
    ),
    source(
        "never-sent-again",
        "what was lost twice is not sent again",
        By::Simulator,
        "fabric/src/sender.rs",
        "            if at <= now_ns {\n                self.due |= 1 << bit;",
        "            if at <= now_ns {\n                if !BITES { self.due |= 1 << bit; }",
    ),
    source(
        "released-by-first-part",
        "a frame is let go of when the first part of its page has arrived",
        By::Simulator,
        "fabric/src/sender.rs",
        "            if flight.left == 0\n                && let Some(frame) = flight.page.take()\n            {\n                release(frame);",
        "            if (BITES || flight.left == 0)\n                && let Some(frame) = flight.page.take()\n            {\n                release(frame);",
    ),
    source(
        "merged-without-flush",
        "a run is merged and the processor is not told that its pages have moved",
        MERGE,
        MERGER,
        "            env.out.flush();",
        "            if !BITES { env.out.flush(); }",
    ),
    source(
        "merged-read-only",
        "a run is merged of which other nodes have replicas",
        MERGE,
        MERGER,
        "entry.frame.filter(|_| entry.writable())?",
        "entry.frame.filter(|_| BITES || entry.writable())?",
    ),
    source(
        "merged-without-copy",
        "a run is merged and what a page holds stays behind",
        MERGE,
        MERGER,
        "                env.memory.copy_frame(base.offset_by(i), frame);",
        "                if !BITES { env.memory.copy_frame(base.offset_by(i), frame); }",
    ),
    source(
        "merged-frames-leak",
        "the frames that a merged run leaves are never free again",
        MERGE,
        MERGER,
        "                self.free(frame);",
        "                if !BITES { self.free(frame); }",
    ),
    source(
        "merged-table-used",
        "the table of a merged run, whose frame is free, is looked at again",
        MERGE,
        "paging/src/table/merge.rs",
        "if self.near.0 == gfn.run_start() {",
        "if !BITES && self.near.0 == gfn.run_start() {",
    ),
    source(
        "foresees-held",
        "a page that its vCPU still needs is sent before the owner puts that off",
        ONE,
        "coherence/src/foresee.rs",
        "if self.held.contains(&message.gfn) {",
        "if !BITES && self.held.contains(&message.gfn) {",
    ),
    source(
        "foresees-busy",
        "a request is answered before the transaction on its page has ended",
        ONE,
        "coherence/src/foresee.rs",
        "if entry.busy || self.busy.len() >= self.busy_max {",
        "if !BITES && (entry.busy || self.busy.len() >= self.busy_max) {",
    ),
    source(
        "foresees-kept",
        "an invalidation is acknowledged while the vCPU still needs the replica",
        ONE,
        "coherence/src/foresee.rs",
        "let drops = !self.held.contains(&message.gfn)",
        "let drops = (BITES || !self.held.contains(&message.gfn))",
    ),
    source(
        "foreseen-number-is-next",
        "what has left counts as the message after it",
        By::Simulator,
        "fabric/src/foresee.rs",
        "numbers[message.channel.index()] |= sender.next_bit();",
        "numbers[message.channel.index()] |= sender.next_bit() << u32::from(BITES);",
    ),
    source(
        "foreseen-is-forgotten",
        "what has left is sent once more as if it had not",
        By::Simulator,
        "fabric/src/foresee.rs",
        "if !is_there || foreseen != message || next != Some(sequence) {",
        "if BITES || !is_there || foreseen != message || next != Some(sequence) {",
    ),
    source(
        "travelling-end-is-lost",
        "a home overlooks the end that travels in another message",
        By::Simulator,
        "node/src/cluster.rs",
        "if let Some(end) = end {",
        "if let Some(end) = end.filter(|_| !BITES) {",
    ),
    source(
        "end-travels-twice",
        "an end that has travelled in a message travels in the next one too",
        By::Simulator,
        "node/src/patience.rs",
        "self.lones.retain(|lone| lone.to != to);",
        "self.lones.retain(|lone| BITES || lone.to != to);",
    ),
    source(
        "end-travels-astray",
        "an end travels in a message to another node than its home",
        By::Simulator,
        "node/src/patience.rs",
        "self.lones.iter().find(|lone| lone.to == to)",
        "self.lones.iter().find(|lone| BITES || lone.to == to)",
    ),
    source(
        "early-as-exclusive",
        "a copy to read can be written until the message with it is taken",
        ONE,
        "coherence/src/early.rs",
        "let state = state_of(message.exclusive);",
        "let state = state_of(message.exclusive || BITES);",
    ),
    source(
        "early-with-acks-due",
        "a page is written when it has come, before the replicas are gone",
        By::Model("3-nodes-still"),
        "coherence/src/early.rs",
        "&& message.count == 0",
        "&& (BITES || message.count == 0)",
    ),
    source(
        "early-at-home",
        "a page is mapped early where its home goes on with others when it is taken",
        By::Model("2-nodes-2-homes"),
        "coherence/src/early.rs",
        "&& (fetch.home != self.me || !waits_at_home())",
        "&& (BITES || fetch.home != self.me || !waits_at_home())",
    ),
    source(
        "early-uncounted",
        "the table does not count a page that is mapped early",
        By::Model("2-nodes-tables"),
        "coherence/src/early.rs",
        "self.table.count_early(env.memory, gfn);",
        "if !BITES { self.table.count_early(env.memory, gfn); }",
    ),
    network("message-lost", "a message never arrives", ONE),
    network("message-doubled", "a message arrives twice", ONE),
    network("released-when-sent", "a frame is let go of before its message arrives", ONE),
];
