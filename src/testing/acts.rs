//! What the processes of a world do, and what goes wrong with them.

use std::sync::Arc;
use std::time::Duration;

use super::facts::Event;
use super::faults::Fault;
use super::later::Later;
use super::ledger::{self, BODY_BYTES_MIN, Sent, Tag, Way};
use super::net::{ConnId, ProcessId, Seen, Told};
use super::process::{Answer, Ask, MEMBERS, Manner, Note, OPEN, Process};
use super::world::{World, address};
use crate::driver::clock;
use crate::member::{MemberId, Views};
use crate::wire::Class;
use crate::{Raw, RequestError};

impl World {
    /// One thing happens.
    pub(super) async fn act(&mut self) {
        if self.chance.u32(..100) < self.facts.plan.faults {
            let fault = Fault::choose(&mut self.chance);
            return self.fail(fault).await;
        }
        let Some(process) = self.any_running() else { return };
        match self.chance.u32(..100) {
            0..72 => self.burst(process),
            72..78 => self.wait_for_room(process),
            78..84 => self.ask(process),
            84..88 => self.datagrams(process),
            88..91 => self.probe(process),
            91..95 => {
                let at = self.chance.usize(..self.facts.plan.members);
                self.contact(process, address(at));
            }
            95..97 => self.later.add(self.facts.now, Later::Release(process)),
            _ => self.preconnect(process),
        }
    }

    // ---- what the application does ----

    /// Somebody to send to: mostly one whom the view holds, or a contact.
    fn recipient(&mut self, process: ProcessId) -> Option<MemberId> {
        let contacts: Vec<MemberId> = {
            let contacts = &self.process(process)?.contacts;
            contacts.lock().iter().map(crate::Contact::id).collect()
        };
        let facts = self.facts.of(process)?;
        let me = facts.id();
        let members: Vec<_> = facts.view.iter().copied().filter(|id| Some(*id) != me).collect();
        match self.chance.u8(..20) {
            // Whoever was there once.
            0 => self.chance.choice(facts.ever.iter().copied()),
            1 => me,
            2..6 if !contacts.is_empty() => self.chance.choice(contacts),
            _ if members.is_empty() => self.chance.choice(contacts),
            _ => self.chance.choice(members),
        }
    }

    fn size(&mut self) -> usize {
        match self.chance.u32(..1000) {
            0..840 => self.chance.usize(BODY_BYTES_MIN..300),
            840..950 => self.chance.usize(300..9_000),
            950..994 => self.chance.usize(60_000..200_000),
            _ => self.chance.usize(500_000..1_900_000),
        }
    }

    fn class(&mut self) -> Class {
        match self.chance.u8(..8) {
            0..2 => Class::Urgent,
            2..6 => Class::Normal,
            _ => Class::Bulk,
        }
    }

    fn is_open(&mut self) -> bool {
        self.facts.plan.views == Views::None || self.chance.u8(..5) == 0
    }

    fn burst(&mut self, process: ProcessId) {
        let Some(to) = self.recipient(process) else { return };
        let (class, open) = (self.class(), self.is_open());
        for _ in 0..self.chance.u32(1..=12) {
            let bytes = self.size();
            self.send(process, to, class, open, bytes);
        }
    }

    fn send(
        &mut self,
        process: ProcessId,
        to: MemberId,
        class: Class,
        open: bool,
        bytes: usize,
    ) -> Option<Tag> {
        let perishes = self.chance.u8(..12) == 0;
        let life = self.millis(1, 4_000);
        let key = self.chance.u64(..3);
        let tag = self.facts.ledger.next();
        let raw = Raw::new(if open { OPEN } else { MEMBERS }, ledger::body(tag, bytes));
        let one = self.process(process)?;
        let from = one.me();
        let way = if perishes { Way::Perishable } else { Way::Ordered };
        let sender = one.messenger.class(class);
        let receipt = match way {
            Way::Perishable => sender.expires_in(life).conflate(key).send_with_receipt(&raw, to),
            _ => sender.send_with_receipt(&raw, to),
        };
        let receipt = Some(receipt.ok()?);
        let at = self.facts.now;
        let sent =
            Sent { by: process, from, to, class, open, way, bytes, at, receipt, ending: None, times: 0 };
        self.facts.ledger.add(sent);
        self.observe(Event::Sent { tag });
        Some(tag)
    }

    /// One message to each whom a process knows, by members' streams where there are views.
    pub(super) fn send_last(&mut self, process: ProcessId) -> Vec<Tag> {
        let open = self.facts.plan.views == Views::None;
        let Some(one) = self.process(process) else { return Vec::new() };
        let to: Vec<MemberId> = if open {
            one.contacts.lock().iter().map(crate::Contact::id).collect()
        } else {
            one.messenger.view().iter().flat_map(|view| view.others(one.me())).collect()
        };
        let mut tags = Vec::new();
        for to in to {
            let tag = self.facts.ledger.next();
            let raw = Raw::new(if open { OPEN } else { MEMBERS }, ledger::body(tag, 50));
            let class = self.class();
            let Some(one) = self.process(process) else { continue };
            let (from, at) = (one.me(), self.facts.now);
            match one.messenger.class(class).send_with_receipt(&raw, to) {
                Ok(receipt) => {
                    let (way, receipt) = (Way::Ordered, Some(receipt));
                    let sent = Sent {
                        by: process,
                        from,
                        to,
                        class,
                        open,
                        way,
                        bytes: 50,
                        at,
                        receipt,
                        ending: None,
                        times: 0,
                    };
                    self.facts.ledger.add(sent);
                    tags.push(tag);
                }
                Err(error) => {
                    let to = self.facts.name(to);
                    self.violated("everything arrives", format!("P{} to {to}: {error}", process.0));
                }
            }
        }
        tags
    }

    fn begin_wait(&mut self, process: ProcessId, on: MemberId, time: Duration, what: &'static str) -> u64 {
        self.waits += 1;
        let (wait, until) = (self.waits, self.facts.now + time);
        self.observe(Event::WaitBegan { wait, process, on, until, what });
        wait
    }

    fn wait_for_room(&mut self, process: ProcessId) {
        let Some(to) = self.recipient(process) else { return };
        let (class, open, bytes) = (self.class(), self.is_open(), self.size());
        let time = self.millis(100, 6_000);
        let tag = self.facts.ledger.next();
        let raw = Raw::new(if open { OPEN } else { MEMBERS }, ledger::body(tag, bytes));
        let Some(from) = self.process(process).map(Process::me) else { return };
        let at = self.facts.now;
        let sent = Sent {
            by: process,
            from,
            to,
            class,
            open,
            way: Way::Waited,
            bytes,
            at,
            receipt: None,
            ending: None,
            times: 0,
        };
        self.facts.ledger.add(sent);
        self.observe(Event::Sent { tag });
        let wait = self.begin_wait(process, to, time, "room");
        let notes = Arc::clone(&self.notes);
        let Some(one) = self.process(process) else { return };
        let messenger = one.messenger.clone();
        one.spawn(async move {
            let _report = messenger.class(class).send_wait(&raw, [to], time).await;
            notes.add(Note::WaitEnded { wait, wrong: None });
        });
    }

    fn ask(&mut self, process: ProcessId) {
        let Some(to) = self.recipient(process) else { return };
        let time = self.millis(50, 6_000);
        let wait = self.begin_wait(process, to, time, "a reply");
        let notes = Arc::clone(&self.notes);
        let Some(one) = self.process(process) else { return };
        let messenger = one.messenger.clone();
        one.spawn(async move {
            let answer: Result<Answer, RequestError> = messenger.request(&Ask(wait), to, time).await;
            let wrong = match answer {
                Ok(Answer(other)) if other != wait => Some(format!("request {wait} was answered {other}")),
                _ => None,
            };
            notes.add(Note::WaitEnded { wait, wrong });
        });
    }

    fn probe(&mut self, process: ProcessId) {
        let Some(on) = self.recipient(process) else { return };
        let time = self.millis(50, 5_000);
        let wait = self.begin_wait(process, on, time, "a probe");
        let notes = Arc::clone(&self.notes);
        let Some(one) = self.process(process) else { return };
        let messenger = one.messenger.clone();
        one.spawn(async move {
            let _report = messenger.probe([on], time).await;
            notes.add(Note::WaitEnded { wait, wrong: None });
        });
    }

    fn datagrams(&mut self, process: ProcessId) {
        let Some(to) = self.recipient(process) else { return };
        let (class, open) = (self.class(), self.is_open());
        for _ in 0..self.chance.u32(1..=4) {
            let bytes = self.chance.usize(BODY_BYTES_MIN..2_000);
            let life = self.millis(1, 1_000);
            let tag = self.facts.ledger.next();
            let raw = Raw::new(if open { OPEN } else { MEMBERS }, ledger::body(tag, bytes));
            let Some(one) = self.process(process) else { return };
            let (from, at) = (one.me(), self.facts.now);
            if one.messenger.class(class).datagram(&raw, [to], life).is_ok_and(|said| said.handed_over == 1) {
                let sent = Sent {
                    by: process,
                    from,
                    to,
                    class,
                    open,
                    way: Way::Datagram,
                    bytes,
                    at,
                    receipt: None,
                    ending: None,
                    times: 0,
                };
                self.facts.ledger.add(sent);
                self.observe(Event::Sent { tag });
            }
        }
    }

    /// A contact, if whoever is there can be found.
    pub(super) fn contact(&mut self, process: ProcessId, to: std::net::SocketAddr) {
        if self.facts.of(process).is_none_or(|facts| facts.address == to) {
            return;
        }
        self.facts.of_mut(process).into_iter().for_each(|facts| {
            facts.contacted.insert(to);
        });
        let Some(one) = self.process(process) else { return };
        let (messenger, contacts) = (one.messenger.clone(), Arc::clone(&one.contacts));
        one.spawn(async move {
            if let Ok(contact) = messenger.contact(to.to_string()).await {
                contacts.lock().push(contact);
            }
        });
    }

    fn preconnect(&mut self, process: ProcessId) {
        let Some(one) = self.process(process) else { return };
        let view = one.messenger.view();
        one.messenger.preconnect(view.iter().flat_map(|view| view.others(one.me())));
    }

    // ---- what goes wrong ----

    async fn fail(&mut self, fault: Fault) {
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
        if self.chance.u8(..3) == 0 {
            let at = self.facts.now + self.millis(0, 200);
            self.later.add(at, Later::Again(dialler, acceptor));
        }
        self.fail_this(fault, seen);
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
        let newest = self.links().into_iter().filter(between).next_back();
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
            Fault::Slow => network.slow_down(conn, slow),
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
