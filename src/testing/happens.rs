//! Processes of a world come and go, and what was to happen happens: views are decided, heard of and installed, what failed
//! for a while works again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Event, ProcessFacts};
use super::later::Later;
use super::net::ProcessId;
use super::process::{Manner, Process};
use super::views::Change;
use super::world::{World, address};
use crate::member::{Member, MemberId, View, Views};

/// A resume is over soon.
const RESUME_LOOK: Duration = Duration::from_millis(2);

impl World {
    // ---- processes ----

    pub(super) fn process(&self, id: ProcessId) -> Option<&Process> {
        self.processes.get(id.0)?.as_ref()
    }

    /// One that is there and does not stand still.
    pub(super) fn any_running(&mut self) -> Option<ProcessId> {
        let running: Vec<_> =
            self.facts.running().filter(|(_, facts)| !facts.leaving).map(|(id, _)| id).collect();
        self.chance.choice(running)
    }

    /// A process begins at an address.
    pub(super) async fn begin(&mut self, address: SocketAddr) {
        let id = ProcessId(self.processes.len());
        // The clock of a machine may be wrong, also by more than its last process lived.
        let wrong = if self.chance.u8(..4) == 0 { self.chance.i64(-100_000..100_000) } else { 0 };
        let network = Arc::clone(&self.facts.network);
        let started = Process::start(&self.facts.plan, &network, id, address, wrong, &self.notes).await;
        let process = match started {
            Ok(process) => process,
            Err(error) => {
                self.processes.push(None);
                return self.violated("starts", format!("no process at {address}: {error}"));
            }
        };
        let me = process.me();
        self.processes.push(Some(process));
        self.facts.processes.push(ProcessFacts {
            address,
            ids: vec![me],
            alive: true,
            leaving: false,
            frozen: false,
            thawed: self.facts.now,
            ever: Default::default(),
            view: Default::default(),
            view_id: None,
            removed: Default::default(),
            contacted: Default::default(),
            prompt: true,
        });
        self.plan_router(id);
        self.observe(Event::Began { process: id });
        let at = self.facts.now + self.millis(50, 2_500);
        self.later.add(at, Later::Join(id, me));
    }

    /// A process is no more.
    pub(super) fn end(&mut self, id: ProcessId, silently: bool) {
        self.count_router(id);
        let Some(process) = self.processes.get_mut(id.0).and_then(Option::take) else { return };
        process.host.gate_of().kill();
        self.facts.network.kill(id, silently);
        self.facts.ledger.look();
        self.facts.ledger.forget_receipts_of(id);
        let now = self.facts.now;
        if let Some(facts) = self.facts.of_mut(id) {
            (facts.alive, facts.frozen) = (false, false);
            facts.thawed = now;
        }
        self.disturb(id);
        self.observe(Event::Killed { process: id });
        let me = process.me();
        let at = self.facts.now + self.millis(100, 5_000);
        self.later.add(at, Later::Remove(me));
    }

    /// Something is wrong between this process and all others.
    pub(super) fn disturb(&mut self, id: ProcessId) {
        let Some(here) = self.facts.of(id).map(|facts| facts.address) else { return };
        for at in 0..self.facts.plan.members {
            self.facts.note_disturbed(here, address(at));
        }
    }

    // ---- what was to happen ----

    pub(super) async fn happen(&mut self, later: Later) {
        // Who stands still does nothing; it is done when it goes on.
        let stands = |process: &ProcessId| self.facts.of(*process).is_some_and(|facts| facts.frozen);
        let frozen = match &later {
            Later::Install(process, _)
            | Later::Change(process, _)
            | Later::Reincarnate(process, _)
            | Later::Route(process) => stands(process),
            _ => false,
        };
        if frozen {
            return self.later.add(self.facts.now + Duration::from_millis(300), later);
        }
        match later {
            Later::Route(process) => self.begin_router(process),
            Later::Join(process, member) => self.join(process, member),
            Later::Remove(member) => self.remove(member),
            Later::Install(process, view) => self.install(process, view),
            Later::Change(process, change) => {
                let Some(me) = self.process(process).map(Process::me) else { return };
                if let Some(view) = self.oracle.hear(process, me, change) {
                    self.install(process, view);
                }
            }
            Later::Reincarnate(process, was) => self.reincarnate(process, was),
            Later::Thaw(process) => self.thaw(process),
            Later::Begin(address) => self.begin(address).await,
            Later::Free(from, to) => {
                self.facts.network.free(from, to);
                self.facts.note_disturbed(from, to);
                self.say(|| format!("free again: {from} to {to}"));
            }
            Later::Descriptors(process) => {
                self.facts.network.set_descriptors(process, false);
                self.disturb(process);
            }
            Later::Prompt(process) => {
                if let Some(one) = self.process(process) {
                    one.handlers.set(Manner::Prompt);
                }
                self.facts.of_mut(process).into_iter().for_each(|facts| facts.prompt = true);
                self.disturb(process);
            }
            Later::Again(one, other) => self.fail_again(one, other).await,
            Later::AtResume(one, other, last) if self.facts.now < last && !self.resumes(one, other) => {
                self.later.add(self.facts.now + RESUME_LOOK, later);
            }
            Later::AtResume(one, other, _) => self.fail_again(one, other).await,
            Later::Release(process) => {
                let released = self.process(process).and_then(|one| one.contacts.lock().pop());
                drop(released);
            }
        }
    }

    fn join(&mut self, process: ProcessId, member: MemberId) {
        let Some(one) = self.process(process).filter(|one| one.me() == member) else { return };
        let leaving = self.facts.of(process).is_none_or(|facts| facts.leaving);
        if self.facts.plan.views == Views::None || leaving || self.oracle.is_member(member) {
            return;
        }
        let member = Member { joined: None, ..one.messenger.member() };
        let now = self.facts.now;
        self.oracle.decide(now, &mut self.chance, Change::Add(process, member), &mut self.later);
    }

    pub(super) fn remove(&mut self, member: MemberId) {
        if !self.oracle.is_member(member) {
            return;
        }
        let now = self.facts.now;
        self.oracle.decide(now, &mut self.chance, Change::Remove(member), &mut self.later);
        // Whoever is well hears of it somehow, and comes back as another.
        if let Some(process) = self.facts.process_of(member).filter(|_| self.facts.is_alive(member)) {
            let at = now + self.millis(0, 4_000);
            self.later.add(at, Later::Reincarnate(process, member));
        }
    }

    fn install(&mut self, process: ProcessId, view: View) {
        let Some(one) = self.process(process) else { return };
        let members: Vec<MemberId> = view.members().iter().map(|member| member.id).collect();
        let (me, id) = (one.me(), view.id());
        if !members.contains(&me) && self.facts.of(process).is_none_or(|facts| facts.view.is_empty()) {
            // It has not joined yet, or anew, and hears of no views that are not its own.
            return;
        }
        let before = one.messenger.view();
        match one.messenger.install_view(view) {
            Ok(change) => {
                let now = self.facts.now;
                let Some(facts) = self.facts.of_mut(process) else { return };
                facts.ever.extend(&members);
                facts.view = members.into_iter().collect();
                facts.view_id = Some(id);
                facts.removed.extend(change.left.iter().map(|left| (*left, now)));
                let here = facts.address;
                for other in change.joined.iter().chain(&change.left) {
                    let other = self.facts.process_of(*other).and_then(|other| self.facts.of(other));
                    if let Some(there) = other.map(|facts| facts.address) {
                        self.facts.note_disturbed(here, there);
                    }
                }
                self.observe(Event::Installed { process, left: change.left });
            }
            Err(crate::ViewError::Expelled { .. }) => {
                let now = self.facts.now;
                let left: Vec<_> = before.iter().flat_map(|before| before.others(me)).collect();
                let Some(facts) = self.facts.of_mut(process) else { return };
                facts.view.clear();
                facts.removed.extend(left.iter().map(|left| (*left, now)));
                self.observe(Event::Installed { process, left });
            }
            Err(crate::ViewError::NotNewer { .. } | crate::ViewError::Closed(_)) => {}
            Err(error) => self.violated("views are installed", format!("P{}: {error}", process.0)),
        }
    }

    fn reincarnate(&mut self, process: ProcessId, was: MemberId) {
        let Some(one) = self.process(process).filter(|one| one.me() == was) else { return };
        if self.oracle.is_member(was) || one.messenger.reincarnate().is_err() {
            return;
        }
        let me = one.me();
        if let Some(facts) = self.facts.of_mut(process) {
            facts.ids.push(me);
            facts.view.clear();
            facts.removed.clear();
        }
        self.oracle.forget(process);
        self.disturb(process);
        self.observe(Event::Reincarnated { process, was });
        let at = self.facts.now + self.millis(0, 2_000);
        self.later.add(at, Later::Join(process, me));
    }

    pub(super) fn thaw(&mut self, process: ProcessId) {
        let now = self.facts.now;
        let Some(facts) = self.facts.of_mut(process).filter(|facts| facts.frozen) else { return };
        (facts.frozen, facts.thawed) = (false, now);
        self.disturb(process);
        if let Some(one) = self.process(process) {
            one.host.gate_of().open();
        }
        self.say(|| format!("P{} goes on", process.0));
    }
}
