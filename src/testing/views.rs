//! The membership system of a world: decides who is in, and who hears of it when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::later::{Later, Queue};
use super::net::ProcessId;
use crate::member::{Member, MemberId, View, ViewId, Views};

/// A change of who is in.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Add(ProcessId, Member),
    Remove(MemberId),
}

/// What one process knows, where each has views of its own.
#[derive(Debug, Default)]
struct Own {
    number: u64,
    members: BTreeMap<MemberId, Member>,
    /// Word of a removal may come before that of the joining.
    gone: BTreeSet<MemberId>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Oracle {
    views: Views,
    number: u64,
    members: BTreeMap<MemberId, (ProcessId, Member)>,
    own: BTreeMap<ProcessId, Own>,
    /// When each hears of the last view it was told of: they come in order.
    heard: BTreeMap<ProcessId, Instant>,
    stagger: Duration,
}

impl Oracle {
    pub(super) fn new(views: Views, stagger: Duration) -> Self {
        Self {
            views,
            number: 0,
            members: BTreeMap::new(),
            own: BTreeMap::new(),
            heard: BTreeMap::new(),
            stagger,
        }
    }

    pub(super) fn is_member(&self, id: MemberId) -> bool {
        self.members.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Decides, and sees to it that each hears of it at a time of its own.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        chance: &mut fastrand::Rng,
        change: Change,
        later: &mut Queue,
    ) {
        let mut told: Vec<ProcessId> = self.members.values().map(|(process, _)| *process).collect();
        self.number += 1;
        let id = ViewId { generation: 1, number: self.number };
        let change = match change {
            Change::Add(process, member) => {
                let member = Member { joined: Some(id), ..member };
                self.members.insert(member.id, (process, member.clone()));
                told.push(process);
                Change::Add(process, member)
            }
            Change::Remove(gone) => {
                if self.members.remove(&gone).is_none() {
                    return;
                }
                Change::Remove(gone)
            }
        };
        told.sort_unstable();
        told.dedup();
        for process in told {
            let stagger = self.stagger.as_millis() as u64;
            let at = now + Duration::from_millis(chance.u64(..=stagger));
            let last = self.heard.entry(process).or_insert(at);
            // Gossip comes in any order.
            let at = if self.views == Views::Agreed { at.max(*last) } else { at };
            *last = at;
            match self.views {
                Views::Agreed => later.add(at, Later::Install(process, self.view(id))),
                _ => later.add(at, Later::Change(process, change.clone())),
            }
        }
    }

    fn view(&self, id: ViewId) -> View {
        View::new(id, self.members.values().map(|(_, member)| member.clone()))
    }

    /// What a process makes of a change it hears of, where each has views of its own; `None`: it is itself the one that is
    /// removed, or it has not joined yet.
    pub(super) fn hear(&mut self, process: ProcessId, me: MemberId, change: Change) -> Option<View> {
        let joins = matches!(&change, Change::Add(_, member) if member.id == me);
        if joins {
            // It is told of all that there are.
            let members = self.members.iter().map(|(id, (_, member))| (*id, member.clone())).collect();
            self.own.entry(process).or_default().members = members;
        }
        let own = self.own.entry(process).or_default();
        match change {
            // Old word of somebody who is gone, which came late.
            Change::Add(_, member)
                if own.gone.contains(&member.id) || !self.members.contains_key(&member.id) =>
            {
                return None;
            }
            Change::Add(_, member) => drop(own.members.insert(member.id, member)),
            Change::Remove(gone) => {
                own.gone.insert(gone);
                own.members.remove(&gone);
            }
        }
        own.number += 1;
        let id = ViewId { generation: 1, number: own.number };
        own.members.contains_key(&me).then(|| View::new(id, own.members.values().cloned()))
    }

    /// What it knew is of its life before.
    pub(super) fn forget(&mut self, process: ProcessId) {
        if let Some(own) = self.own.get_mut(&process) {
            own.members.clear();
        }
    }
}
