//! What is known of a world by whoever watches it, and what happens in it: the invariants judge by these alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::Fault;
use super::ledger::{Ending, Ledger, Tag};
use super::net::{Network, ProcessId};
use super::plan::Plan;
use super::routers::{Book, Told};
use crate::member::MemberId;
use crate::{PeerEvent, Stats, ViewId};

/// Something happened.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Sent {
        tag: Tag,
    },
    /// A handler was given a message; `tag`: `None` if its bytes are not those that were sent; `before`: the one that
    /// came before it on its stream.
    Delivered {
        process: ProcessId,
        from: MemberId,
        tag: Option<Tag>,
        before: Option<Tag>,
    },
    /// A receipt told the end of a message.
    Ended {
        tag: Tag,
        ending: Ending,
    },
    /// A process has installed a view, and who left by that.
    Installed {
        process: ProcessId,
        left: Vec<MemberId>,
    },
    /// It is another member from now on.
    Reincarnated {
        process: ProcessId,
        was: MemberId,
    },
    Began {
        process: ProcessId,
    },
    Killed {
        process: ProcessId,
    },
    Fault(Fault),
    Heard {
        process: ProcessId,
        event: PeerEvent,
    },
    /// Somebody waits: for room, a reply, an answer to a probe.
    WaitBegan {
        wait: u64,
        process: ProcessId,
        on: MemberId,
        until: Instant,
        what: &'static str,
    },
    WaitEnded {
        wait: u64,
    },
    /// A byte stream came to its end here: in order, or with an error.
    Drunk {
        process: ProcessId,
    },
    /// It has left: in order, or because its time was over.
    Left {
        process: ProcessId,
        in_order: bool,
    },
    /// A look at the figures of a process.
    Looked {
        process: ProcessId,
        stats: Box<Stats>,
    },
    /// Time has passed; comes some times a second.
    Tick,
    /// A panic anywhere.
    Panicked {
        text: String,
    },
    /// Nothing fails from now on.
    Calm,
    /// Everything has had its time, and is at rest or never will be.
    Rest,
    /// The last messages, from each to each, have had their time.
    Last {
        tags: Vec<Tag>,
    },
    /// Of flows and routers.
    Flow(Told),
    /// All processes have closed.
    Closed {
        tasks: usize,
    },
}

/// One run of one process.
#[derive(Debug)]
pub(super) struct ProcessFacts {
    pub(super) address: SocketAddr,
    /// Its ids, the present one last.
    pub(super) ids: Vec<MemberId>,
    pub(super) alive: bool,
    /// It has said goodbye, or is about to.
    pub(super) leaving: bool,
    pub(super) frozen: bool,
    /// When it last went on.
    pub(super) thawed: Instant,
    /// Whoever was in a view that it installed.
    pub(super) ever: BTreeSet<MemberId>,
    /// The view that is installed.
    pub(super) view: BTreeSet<MemberId>,
    pub(super) view_id: Option<ViewId>,
    /// Whom its views removed, and when.
    pub(super) removed: BTreeMap<MemberId, Instant>,
    /// Addresses that contacts of it were ever asked for.
    pub(super) contacted: BTreeSet<SocketAddr>,
    /// Its handlers return at once.
    pub(super) prompt: bool,
}

impl ProcessFacts {
    pub(super) fn id(&self) -> Option<MemberId> {
        self.ids.last().copied()
    }

    /// Since when it has been running, if it is.
    pub(super) fn runs_since(&self) -> Option<Instant> {
        (self.alive && !self.frozen).then_some(self.thawed)
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) plan: Plan,
    pub(super) began: Instant,
    pub(super) now: Instant,
    pub(super) network: Arc<Network>,
    pub(super) ledger: Ledger,
    pub(super) book: Book,
    pub(super) processes: Vec<ProcessFacts>,
    /// Bits were bent on the way.
    pub(super) bent: bool,
    /// When the clocks of all last jumped.
    pub(super) jumped: Instant,
    /// When something between two addresses last failed.
    pub(super) disturbed: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

impl Facts {
    pub(super) fn of(&self, process: ProcessId) -> Option<&ProcessFacts> {
        self.processes.get(process.0)
    }

    pub(super) fn of_mut(&mut self, process: ProcessId) -> Option<&mut ProcessFacts> {
        self.processes.get_mut(process.0)
    }

    /// The process that is, or was, this member.
    pub(super) fn process_of(&self, id: MemberId) -> Option<ProcessId> {
        self.processes.iter().position(|process| process.ids.contains(&id)).map(ProcessId)
    }

    /// Whether this member still is.
    pub(super) fn is_alive(&self, id: MemberId) -> bool {
        self.processes.iter().any(|process| process.alive && process.id() == Some(id))
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (ProcessId, &ProcessFacts)> {
        let all = self.processes.iter().enumerate().map(|(at, process)| (ProcessId(at), process));
        all.filter(|(_, process)| process.alive && !process.frozen)
    }

    pub(super) fn note_disturbed(&mut self, one: SocketAddr, other: SocketAddr) {
        self.note_disturbed_for(one, other, Duration::ZERO);
    }

    /// What fails now goes on for so long.
    pub(super) fn note_disturbed_for(&mut self, one: SocketAddr, other: SocketAddr, time: Duration) {
        let until = self.now + time;
        let last = self.disturbed.entry((one.min(other), one.max(other))).or_insert(until);
        *last = until.max(*last);
    }

    pub(super) fn disturbed(&self, one: SocketAddr, other: SocketAddr) -> Option<Instant> {
        self.disturbed.get(&(one.min(other), one.max(other))).copied()
    }

    /// Since the world began.
    pub(super) fn time(&self) -> Duration {
        self.now.duration_since(self.began)
    }

    /// A name for people: the process and how often it was reborn.
    pub(super) fn name(&self, id: MemberId) -> String {
        match self.process_of(id) {
            Some(process) => {
                let ids = self.of(process).map_or(&[][..], |facts| &facts.ids);
                let life = ids.iter().position(|other| *other == id).unwrap_or(0);
                format!("P{}{}", process.0, "'".repeat(life))
            }
            None => "nobody".to_owned(),
        }
    }
}
