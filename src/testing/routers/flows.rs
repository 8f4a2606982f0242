//! Flows that processes begin: of chance in every respect; what each ends as is entered in the book.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use super::book::{Ended, Flow, Message, Told, Way};
use super::{ANSWER, LOCAL, LOOP, Load, NOBODY, OTHER, Router, STEPS, Step, key, kind, partition};
use crate::member::{MemberId, Views};
use crate::router::{ActorRef, FlowError, Hub, Reply, StaticList};
use crate::testing::facts::{Event, ProcessFacts};
use crate::testing::later::Later;
use crate::testing::net::ProcessId;
use crate::testing::process::{Note, Process};
use crate::testing::world::{World, address};

/// How one flow begins.
struct Start {
    hub: Hub,
    way: Way,
    part: u8,
    keys: Vec<u8>,
    time: Duration,
    patience: Duration,
    idempotent: bool,
    affinity: Option<u64>,
    node: Option<MemberId>,
    actor: Option<ActorRef>,
    load: Load,
}

type Ending = Pin<Box<dyn Future<Output = Ended> + Send>>;

impl World {
    /// A router begins with its process, or in some a while after that, when others may have spoken to it already.
    pub(in crate::testing) fn plan_router(&mut self, id: ProcessId) {
        if !self.facts.plan.routers {
            return;
        }
        if self.flow_chance.u8(..4) > 0 {
            return self.begin_router(id);
        }
        let late = Duration::from_millis(self.flow_chance.u64(1..5_000));
        self.later.add(self.facts.now + late, Later::Route(id));
    }

    pub(in crate::testing) fn begin_router(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(id.0).and_then(Option::as_mut) else { return };
        let sources = match self.facts.plan.views {
            Views::Agreed | Views::Local => None,
            Views::None => {
                Some(StaticList::new((0..self.facts.plan.members).map(|at| address(at).to_string())))
            }
        };
        match Router::start(process, sources, &mut self.flow_chance, &self.notes) {
            Ok(router) => process.router = Some(router),
            Err(error) => self.violated("routers start", format!("P{}: {error}", id.0)),
        }
    }

    /// What routers do beside all else.
    pub(in crate::testing) fn act_routers(&mut self) {
        if !self.facts.plan.routers {
            return;
        }
        let Some(process) = self.any_router() else { return };
        match self.flow_chance.u8(..100) {
            0..45 => {}
            45..47 => self.change_hosts(process),
            // More than a window holds.
            47 if self.flow_chance.u8(..3) == 0 => {
                let kind = self.flow_chance.u8(..STEPS);
                (0..300).for_each(|_| self.begin_flow(process, Some(kind)));
            }
            _ => (0..self.flow_chance.u8(1..=3)).for_each(|_| self.begin_flow(process, None)),
        }
    }

    fn any_router(&mut self) -> Option<ProcessId> {
        let running: Vec<_> =
            self.facts.running().filter(|(_, facts)| !facts.leaving).map(|(id, _)| id).collect();
        self.flow_chance.choice(running)
    }

    fn change_hosts(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(id.0).and_then(Option::as_mut) else { return };
        let Some(mut router) = process.router.take() else { return };
        let grows = router.hosts.len() < 2 || (router.hosts.len() < 4 && self.flow_chance.bool());
        let added = if grows {
            router.add_host(process, &mut self.flow_chance, &self.notes)
        } else {
            router.take_from(&mut self.flow_chance);
            Ok(())
        };
        process.router = Some(router);
        if let Err(error) = added {
            self.violated("hosts start", format!("P{}: {error}", id.0));
        }
    }

    /// Some flows are under way when the messengers close: they end as well.
    pub(in crate::testing) fn last_flows(&mut self) {
        if self.facts.plan.routers && self.goes_on() {
            let all: Vec<_> = self.facts.running().map(|(process, _)| process).collect();
            all.into_iter().for_each(|process| (0..3).for_each(|_| self.begin_flow(process, None)));
        }
    }

    /// One flow. `much`: of many one-way messages of a type.
    pub(in crate::testing) fn begin_flow(&mut self, id: ProcessId, much: Option<u8>) {
        let me = self.process(id).map(Process::me);
        let hubs = self.process(id).and_then(|one| one.router.as_ref()).map(|router| router.hubs.clone());
        let (Some(me), Some(hub)) = (me, hubs.and_then(|hubs| self.flow_chance.choice(hubs))) else { return };
        let to = self.facts.of(id).and_then(|facts| {
            let all: Vec<_> = if self.facts.plan.views == Views::None {
                // Also those that are no more.
                self.facts.processes.iter().filter_map(ProcessFacts::id).collect()
            } else {
                facts.view.iter().copied().collect()
            };
            self.flow_chance.choice(all)
        });
        let chance = &mut self.flow_chance;
        let (way, direct) = match chance.u8(..100) {
            _ if much.is_some() => (Way::Send, 0),
            0..50 => (Way::Request, 0),
            50..60 => (Way::Send, 0),
            60..68 => (Way::Broadcast, 0),
            68..78 => (Way::Tracked, 0),
            78..82 => (Way::Dropped, 0),
            82..90 => (Way::Request, 1),
            90..94 => (Way::Request, 2),
            94..97 => (Way::Send, 1),
            _ => (Way::Tracked, 2),
        };
        let number = match (much, chance.u8(..100)) {
            (Some(kind), _) => kind,
            (_, 0..84) => chance.u8(..STEPS),
            (_, 84..88) if way != Way::Broadcast => LOOP,
            (_, 88..94) => LOCAL,
            (_, 94..97) => ANSWER,
            _ => NOBODY,
        };
        let part = if chance.u8(..5) == 0 { chance.u8(1..=2) } else { 0 };
        let keys = if chance.bool() { vec![ANSWER] } else { vec![ANSWER, OTHER] };
        let millis = if chance.u8(..4) == 0 { chance.u64(20..400) } else { chance.u64(400..8_000) };
        let time = Duration::from_millis(millis);
        let (flow, tag) = (self.notes.number(), self.notes.number());
        let fill = if chance.u8(..40) == 0 { chance.usize(1_000..60_000) } else { chance.usize(..40) };
        let load =
            Load { flow, tag, chance: chance.u64(..), steps: chance.u8(..5), depth: 0, fill: vec![0; fill] };
        let start = Start {
            hub,
            way,
            part,
            keys: keys.clone(),
            time,
            patience: Duration::from_millis(chance.u64(1..500)),
            idempotent: chance.u8(..3) == 0,
            affinity: (chance.u8(..6) == 0).then(|| chance.u64(..16)),
            node: to.filter(|_| direct == 1),
            actor: to.filter(|_| direct == 2).map(|node| ActorRef { node, host: chance.u32(1..=4) }),
            load,
        };
        let (idempotent, broadcast) = (start.idempotent, way == Way::Broadcast);
        let (node, actor) = (start.node, start.actor);
        let message = Message {
            flow,
            kind: number,
            partition: part,
            by: id,
            idempotent,
            broadcast,
            node,
            actor,
            handled: Vec::new(),
            ended: 0,
        };
        let until = self.facts.now + time;
        let facts = Flow {
            process: id,
            by: me,
            way,
            tag,
            keys,
            until,
            ended: None,
            depth: 0,
            hops: 0,
            failures: Vec::new(),
        };
        self.facts.book.begin(flow, facts, message);
        self.observe(Event::Flow(Told::Began { flow }));
        let ending = start.begin(number);
        let notes = std::sync::Arc::clone(&self.notes);
        if let Some(one) = self.process(id) {
            one.spawn(async move {
                let ended = ending.await;
                notes.add(Note::Flow(Told::Ended { flow, ended }));
            });
        }
    }
}

impl Start {
    fn begin(self, number: u8) -> Ending {
        match number {
            0 => self.of::<0>(),
            1 => self.of::<1>(),
            2 => self.of::<2>(),
            3 => self.of::<3>(),
            LOOP => self.of::<LOOP>(),
            LOCAL => self.of::<LOCAL>(),
            ANSWER => self.of::<ANSWER>(),
            _ => self.of::<NOBODY>(),
        }
    }

    fn of<const N: u8>(self) -> Ending {
        match self.way {
            Way::Request | Way::Dropped => self.ask::<N>(),
            Way::Send | Way::Broadcast | Way::Tracked => self.send::<N>(),
        }
    }

    fn send<const N: u8>(self) -> Ending {
        let Self { hub, way, part, time, idempotent, affinity, node, actor, load, .. } = self;
        let message = Step::<N>(load);
        let mut sending = match (way, node, actor) {
            (Way::Broadcast, ..) => hub.broadcast(message),
            (_, Some(node), _) => hub.to(node).send(message),
            (_, _, Some(actor)) => hub.to_actor(actor).send(message),
            _ => hub.send(message),
        };
        sending = sending.partition(partition(part)).time_to_live(time);
        if idempotent {
            sending = sending.idempotent();
        }
        if let Some(affinity) = affinity {
            sending = sending.affinity(affinity);
        }
        Box::pin(async move {
            if way != Way::Tracked {
                return match sending.await {
                    Ok(()) => Ended::Placed,
                    Err(error) => Ended::Failed(error),
                };
            }
            let handled = match sending.tracked() {
                Ok(mut delivery) => delivery.handled().await,
                Err(error) => Err(error),
            };
            handled.map_or_else(Ended::Failed, |()| Ended::Handled)
        })
    }

    fn ask<const N: u8>(self) -> Ending {
        let Self { hub, way, part, keys, time, patience, idempotent, affinity, node, actor, load } = self;
        let message = Step::<N>(load);
        let asking = match (node, actor) {
            (Some(node), _) => hub.to(node).request(message),
            (_, Some(actor)) => hub.to_actor(actor).request(message),
            _ => hub.request(message),
        };
        let keys = keys.iter().map(|number| key(*number, 0)).collect::<Vec<_>>();
        let mut request = asking.callbacks(keys).partition(partition(part)).deadline(time).trail();
        if idempotent {
            request = request.idempotent();
        }
        if let Some(affinity) = affinity {
            request = request.affinity(affinity);
        }
        Box::pin(async move {
            if way == Way::Dropped {
                return match tokio::time::timeout(patience, request).await {
                    Ok(ended) => ended.map_or_else(Ended::Failed, read),
                    Err(_dropped) => Ended::Dropped,
                };
            }
            request.await.map_or_else(Ended::Failed, read)
        })
    }
}

fn read(reply: Reply) -> Ended {
    let answer = MessageOf::of(&reply);
    let load = match answer {
        MessageOf::Answer => reply.read::<Step<ANSWER>>().map(|read| read.map(|step| step.0)),
        MessageOf::Other => reply.read::<Step<OTHER>>().map(|read| read.map(|step| step.0)),
    };
    match load {
        Some(Ok(load)) => Ended::Answered { flow: load.flow, tag: load.tag, kind: answer as u8 },
        Some(Err(error)) => Ended::Failed(error),
        None => Ended::Failed(FlowError::Decode(format!("{} came", reply.key()))),
    }
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum MessageOf {
    Answer = ANSWER,
    Other = OTHER,
}

impl MessageOf {
    fn of(reply: &Reply) -> Self {
        if reply.key().identity() == kind(OTHER).name() { Self::Other } else { Self::Answer }
    }
}
