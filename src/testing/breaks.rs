//! What goes wrong in a world, and what it hits.

use std::sync::Arc;
use std::time::Duration;

use super::faults::Fault;
use super::later::Later;
use super::net::{ConnId, ProcessId, Seen, Told};
use super::process::{Manner, Note, Process};
use super::world::World;
use crate::driver::clock;
use crate::member::Views;
use crate::peer::Doing;

/// A link is back within this after most breaks.
const AFTER_BREAK: Duration = Duration::from_millis(400);

impl World {
    pub(super) async fn fail(&mut self, fault: Fault) {
        if fault.is_of_link() {
            return self.fail_link(fault);
        }
        if let Some(process) = self.any_running() {
            self.fail_process(fault, process).await;
        }
    }

    async fn fail_process(&mut self, fault: Fault, process: ProcessId) {
        self.count_all(fault, process);
        let time = self.millis(100, 8_000);
        let until = self.facts.now + time;
        match fault {
            Fault::Freeze => {
                let frozen = self.facts.of_mut(process).map(|facts| facts.frozen = true);
                if let (Some(()), Some(one)) = (frozen, self.process(process)) {
                    one.host.gate_of().shut();
                }
                self.later.add(until, Later::Thaw(process));
            }
            Fault::Kill | Fault::PowerLoss | Fault::Swap => {
                self.kill(process, fault == Fault::PowerLoss);
                if fault == Fault::Swap
                    && let Some(other) = self.any_running()
                {
                    self.kill(other, false);
                }
            }
            Fault::NoDescriptors => {
                self.facts.network.set_descriptors(process, true);
                self.later.add(until, Later::Descriptors(process));
            }
            Fault::WallClock => {
                let millis = self.chance.i64(-1_000_000..1_000_000);
                self.process(process).into_iter().for_each(|one| one.host.jump(millis));
            }
            Fault::AllClocks => {
                tokio::time::advance(time).await;
                self.drain();
                self.facts.jumped = self.facts.now;
            }
            Fault::Remove => {
                let member = self.process(process).map(Process::me);
                member.into_iter().for_each(|member| self.remove(member));
                // Where nobody can be removed a node may become another all the same.
                if let (Some(member), true, Views::None) =
                    (member, self.facts.plan.routers, self.facts.plan.views)
                {
                    self.later.add(self.facts.now, Later::Reincarnate(process, member));
                }
            }
            Fault::Leave => self.leave(process),
            Fault::HungHandlers | Fault::SlowHandlers => {
                let slow = Manner::Slow(self.millis(1, 40));
                let manner = if fault == Fault::HungHandlers { Manner::Hung } else { slow };
                self.process(process).into_iter().for_each(|one| one.handlers.set(manner));
                self.facts.of_mut(process).into_iter().for_each(|facts| facts.prompt = false);
                self.later.add(until, Later::Prompt(process));
            }
            _ => {}
        }
        if fault != Fault::WallClock {
            self.disturb(process);
        }
        self.say(|| format!("{fault:?} of P{}, for {time:?} if it passes", process.0));
        self.hit(fault);
    }

    fn kill(&mut self, process: ProcessId, silently: bool) {
        let Some(address) = self.facts.of(process).map(|facts| facts.address) else { return };
        self.end(process, silently);
        let at = self.facts.now + self.millis(50, 5_000);
        self.later.add(at, Later::Begin(address));
    }

    fn leave(&mut self, process: ProcessId) {
        let time = self.millis(500, 6_000);
        // What ended before ended for another reason.
        self.look_at_receipts();
        self.facts.of_mut(process).into_iter().for_each(|facts| facts.leaving = true);
        let notes = Arc::clone(&self.notes);
        let Some(one) = self.process(process) else { return };
        let messenger = one.messenger.clone();
        // The one who ends it is not one of its own tasks, which end with it.
        drop(tokio::spawn(one.host.gate_of().hold(async move {
            let began = clock::now();
            messenger.leave(time).await;
            // `leave` closes when its time is over.
            let in_order = clock::now().duration_since(began) + Duration::from_millis(20) < time;
            notes.add(Note::Left { process, in_order });
        })));
    }

    fn fail_link(&mut self, fault: Fault) {
        let open = self.links();
        let Some(seen) = self.chance.choice(open) else { return };
        let [dialler, acceptor] = seen.ends;
        match self.chance.u8(..3) {
            0 => {
                let at = self.facts.now + self.millis(0, 200);
                self.later.add(at, Later::Again(dialler, acceptor));
            }
            1 => {
                let (at, last) = (self.facts.now, self.facts.now + AFTER_BREAK);
                self.later.add(at, Later::AtResume(dialler, acceptor, last));
            }
            _ => {}
        }
        self.fail_this(fault, seen);
    }

    /// Whether one of them writes again what the other has not received.
    pub(super) fn resumes(&self, one: ProcessId, other: ProcessId) -> bool {
        let is = |at: ProcessId, with: ProcessId| {
            let with = self.process(with).map(Process::me);
            let driver = self.process(at).map(|one| one.messenger.driver());
            let handle = driver.zip(with).and_then(|(driver, with)| driver.peer(with));
            handle.is_some_and(|handle| handle.peer.lock().doing().any(|doing| doing == Doing::Resuming))
        };
        is(one, other) || is(other, one)
    }

    /// What failed a moment ago is being mended, and that fails as well.
    pub(super) async fn fail_again(&mut self, one: ProcessId, other: ProcessId) {
        let pair = [one, other];
        let runs = |id: ProcessId| {
            self.facts.of(id).is_some_and(|facts| facts.runs_since().is_some() && !facts.leaving)
        };
        if self.is_calm || !runs(one) || !runs(other) {
            return;
        }
        if self.chance.u8(..3) == 0 {
            let fault = Fault::choose(&mut self.chance);
            if !fault.is_of_link() {
                return self.fail_process(fault, one).await;
            }
        }
        let fault = loop {
            let fault = Fault::choose(&mut self.chance);
            if fault.is_of_link() {
                break fault;
            }
        };
        let between = |seen: &Seen| pair.contains(&seen.ends[0]) && pair.contains(&seen.ends[1]);
        let newest = self.links().into_iter().rfind(between);
        match newest {
            Some(seen) => self.fail_this(fault, seen),
            // Nothing but the road can fail.
            None if matches!(fault, Fault::Partition | Fault::OneWayPartition) => {
                self.count_pair(fault, one, other);
                self.count_pair(fault, other, one);
                self.block_road(fault, pair);
                self.hit(fault);
            }
            None => {}
        }
    }

    /// Connections of which both ends are held by somebody who is there.
    fn links(&self) -> Vec<Seen> {
        let alive = |process: ProcessId| self.process(process).is_some();
        let is_link = |seen: &Seen| {
            seen.held_since.iter().all(Option::is_some) && seen.ends.iter().all(|end| alive(*end))
        };
        self.facts.network.seen().into_iter().filter(is_link).collect()
    }

    fn block_road(&mut self, fault: Fault, ends: [ProcessId; 2]) {
        let until = self.facts.now + self.millis(100, 9_000);
        let side = self.chance.usize(..2);
        let Some([one, other]) = self.addresses(ends) else { return };
        let both = [(one, other), (other, one)];
        let which = if fault == Fault::Partition { &both[..] } else { &both[side..=side] };
        for (from, to) in which {
            self.facts.network.block(*from, *to);
            self.later.add(until, Later::Free(*from, *to));
        }
        self.facts.note_disturbed(one, other);
    }

    fn fail_this(&mut self, fault: Fault, seen: Seen) {
        let [dialler, acceptor] = seen.ends;
        self.count_pair(fault, dialler, acceptor);
        self.count_pair(fault, acceptor, dialler);
        self.break_link(fault, seen.conn, seen.ends);
        self.say(|| format!("{fault:?} of the link from P{} to P{}", dialler.0, acceptor.0));
        self.hit(fault);
    }

    fn break_link(&mut self, fault: Fault, conn: ConnId, ends: [ProcessId; 2]) {
        let side = self.chance.usize(..2);
        let bytes = if self.chance.bool() { self.chance.u64(..2_000) } else { self.chance.u64(..200_000) };
        let told = [Told::Both, Told::Only(0), Told::Only(1), Told::Nobody];
        let told = self.chance.choice(told).unwrap_or(Told::Both);
        let slow = self.chance.u64(20_000..400_000);
        let Some([one, other]) = self.addresses(ends) else { return };
        let network = Arc::clone(&self.facts.network);
        match fault {
            Fault::Reset => network.break_conn(conn, Told::Both),
            Fault::HalfOpen => network.break_conn(conn, Told::Only(side)),
            Fault::Silence => network.break_conn(conn, Told::Nobody),
            Fault::Cut => network.cut_after(conn, side, bytes, told),
            Fault::OneWay => network.silence_one_way(conn, side),
            Fault::Bend => {
                self.facts.bent = true;
                network.bend_after(conn, side, bytes);
            }
            Fault::Slow => {
                network.slow_down(conn, slow);
                // As long as the connection lasts, that is perhaps to the end.
                self.facts.note_disturbed_for(one, other, Duration::from_secs(3_600));
            }
            Fault::Partition | Fault::OneWayPartition => self.block_road(fault, ends),
            _ => {}
        }
        self.facts.note_disturbed(one, other);
    }

    fn addresses(&self, ends: [ProcessId; 2]) -> Option<[std::net::SocketAddr; 2]> {
        let [one, other] = ends.map(|end| self.facts.of(end).map(|facts| facts.address));
        Some([one?, other?])
    }

    // ---- what it hits ----

    /// What a process is in the midst of with another.
    fn count_pair(&mut self, fault: Fault, at: ProcessId, with: ProcessId) {
        let id = self.process(with).map(Process::me);
        let driver = self.process(at).map(|one| Arc::clone(one.messenger.driver()));
        let Some(handle) = driver.zip(id).and_then(|(driver, id)| driver.peer(id)) else { return };
        let doing: Vec<_> = handle.peer.lock().doing().collect();
        doing.into_iter().for_each(|doing| self.coverage.hit(fault, doing));
    }

    fn count_all(&mut self, fault: Fault, process: ProcessId) {
        let all: Vec<_> = self.facts.running().map(|(id, _)| id).filter(|id| *id != process).collect();
        for other in all {
            self.count_pair(fault, process, other);
            self.count_pair(fault, other, process);
        }
    }
}
