//! What the processes of a world do: send, wait, ask, meet each other.

use std::sync::Arc;
use std::time::Duration;

use super::facts::Event;
use super::faults::Fault;
use super::later::Later;
use super::ledger::{self, BODY_BYTES_MIN, Sent, Tag, Way};
use super::net::ProcessId;
use super::process::{Answer, Ask, MEMBERS, Note, OPEN, Process};
use super::world::{World, address};
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
            84..87 => self.datagrams(process),
            87..89 => self.probe(process),
            89..93 => {
                let at = self.chance.usize(..self.facts.plan.members);
                self.contact(process, address(at));
            }
            93..95 => self.pour(process),
            95..98 => self.later.add(self.facts.now, Later::Release(process)),
            _ => self.preconnect(process),
        }
    }

    // ---- what the application does ----

    /// Somebody to send to: mostly one whom the view holds, or a contact.
    pub(super) fn recipient(&mut self, process: ProcessId) -> Option<MemberId> {
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
}
